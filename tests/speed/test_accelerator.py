"""On a GPU: a captured step and its kernels write what plain PyTorch writes. Skipped where there is none."""

import pytest
import torch
from conftest import GPU, needs_gpu, tiny_gpt2

from gpt2_korean import device
from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.loop import generate_ids, stream_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.generation.whole_characters import build_tables
from gpt2_korean.speed import linear

pytestmark = needs_gpu
VOCABULARY, CONTEXT = 301, 300


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(VOCABULARY, n_positions=CONTEXT, n_embd=48, n_head=3)


def decoder(model, captures, kernels=None):
    ways = (kernels.fused, kernels.attend) if kernels else (linear.plain, None)
    return GPT2Decoder(model.config.to_dict(), dict(model.state_dict()), GPU, torch.float32, *ways, captures)


@pytest.fixture(scope="module")
def kernels():
    pytest.importorskip("triton")
    from gpt2_korean.speed import writing_kernels

    return writing_kernels


def random_prompts(rng, number):
    return [[rng.randint(1, VOCABULARY - 1) for _ in range(rng.randint(1, 40))] for _ in range(number)]


@pytest.mark.parametrize("rows", [1, 7])
def test_captured_steps_write_what_uncaptured_ones_do(model, kernels, rng, rows):
    greedy = Sampling(temperature=0, repetition_penalty=1.2, frequency_penalty=0.3, no_repeat_ngram_size=3)
    capturing = [decoder(model, True, ours) for ours in (None, kernels)]
    for _ in range(3):  # the second time on as the first has recorded it
        prompts = random_prompts(rng, rows)
        plain = generate_ids(decoder(model, captures=False), prompts, 700, greedy, -1)
        for each in capturing:
            assert generate_ids(each, prompts, 700, greedy, -1, every=16) == plain


def test_captured_steps_of_fewer_rows_write_what_uncaptured_ones_do(model, kernels, rng, monkeypatch):
    monkeypatch.setattr("gpt2_korean.generation.loop.FEWEST_RECORDED", 2)
    greedy = Sampling(temperature=0, repetition_penalty=1.2)
    for each in [decoder(model, True, ours) for ours in (None, kernels)]:
        for _ in range(3):
            prompts = random_prompts(rng, 21)
            plain = generate_ids(decoder(model, captures=False), prompts, 120, greedy, -1)
            over, texts, ended = [rng.randint(1, 120) for _ in prompts], [[] for _ in prompts], [False] * 21
            for chunk in stream_ids(each, prompts, 120, greedy, -1, every=4, ended=ended):
                for row, ids in enumerate(chunk):
                    texts[row] += ids
                    ended[row] = len(texts[row]) >= over[row]
            for text, whole, most in zip(texts, plain, over, strict=True):
                assert len(text) >= most and text == whole[: len(text)]


def test_captured_steps_repeat_no_more_than_uncaptured_ones(model, kernels, rng):
    dry = Sampling(temperature=0, dry_multiplier=5.0, dry_penalty_last_n=200)
    capturing = [decoder(model, True, ours) for ours in (None, kernels)]
    for breaker in (7, 9):
        breakers = torch.arange(VOCABULARY) == breaker
        prompts = random_prompts(rng, 3)
        plain = generate_ids(decoder(model, captures=False), prompts, 400, dry, -1, breakers=breakers)
        for each in capturing:
            assert generate_ids(each, prompts, 400, dry, -1, every=16, breakers=breakers) == plain


def test_captured_steps_write_whole_characters(model, kernels, byte_tokenizer):
    wide = tiny_gpt2(len(byte_tokenizer), n_positions=CONTEXT, initializer_range=0.02)
    tables = build_tables(byte_tokenizer, len(byte_tokenizer)).to(GPU)
    for ours in (None, kernels):
        wild = Sampling(temperature=1.5, min_length=20, penalize_prompt=False, repetition_penalty=1.1)
        rows = generate_ids(decoder(wide, True, ours), [[0]] * 100, 350, wild, 0, tables, every=16)
        assert not any("\ufffd" in byte_tokenizer.decode(row) for row in rows)
        assert min(map(len, rows)) >= 20


def test_the_device_says_whether_it_has_graphs():
    assert device.has_graphs(GPU)
    assert not device.has_graphs(torch.device("cpu"))


def test_captured_draws_differ_from_step_to_step_and_a_seed_repeats_them(model, kernels):
    def write(seed, made):
        torch.manual_seed(seed)
        return generate_ids(made, [[1]] * 4, 200, Sampling(temperature=50.0, top_k=100), -1, every=16)

    one, other = (decoder(model, True, kernels) for _ in range(2))
    first = write(1, one)
    assert first == write(1, one) == write(1, other) != write(2, one)
    assert len({tuple(row) for row in first}) == 4
    assert all(len(set(row)) > 50 for row in first)


@pytest.mark.skipif(GPU.type != "cuda", reason="only CUDA's graphs can be made late")
def test_a_replay_draws_on_where_the_device_is_late_to_begin_recording(monkeypatch):
    class Late(torch.cuda.CUDAGraph):
        def capture_begin(self, *arguments, **keywords):
            torch.cuda._sleep(10**9)  # cycles, on the stream that records
            super().capture_begin(*arguments, **keywords)

    def draw():
        return torch.rand(4, device=GPU)

    torch.manual_seed(0)
    expected = [draw().tolist(), draw().tolist()]
    monkeypatch.setattr("torch.cuda.CUDAGraph", Late)
    torch.manual_seed(0)
    first = draw().tolist()
    graph, drawn = device.record_graph(draw, GPU)
    graph.replay()
    assert [first, drawn.tolist()] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_kernels_can_be_compiled_before_they_are_asked_for(kernels, model, dtype):
    kernels.compile_kernels(model.config.to_dict(), GPU, dtype)
