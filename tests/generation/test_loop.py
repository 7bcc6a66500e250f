"""Generation equals transformers' generate(), alone and batched, and goes on past the context."""

import random
import warnings
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_gpt2
from transformers import GPT2LMHeadModel

from gpt2_korean.generation.decoder import GPT2Decoder
from gpt2_korean.generation.library_decoder import LibraryDecoder
from gpt2_korean.generation.loop import fit_prompt, generate_ids, stream_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.speed import linear

VOCABULARY, CONTEXT = 300, 32
GREEDY = Sampling(temperature=0, repetition_penalty=1.2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(VOCABULARY)


def gpt2_decoder(model, make_linear=linear.plain):
    return GPT2Decoder(model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32, make_linear)


@pytest.fixture(scope="module", params=["library", "plain", "packed", "openvino"])
def decoder(request, model):
    if request.param == "library":
        return LibraryDecoder(model)
    if request.param == "openvino":
        pytest.importorskip("openvino", reason="requirements-openvino.txt is not installed")
        from gpt2_korean.generation.choose_decoder import gpt2_decoder as decoder_of

        return decoder_of(model.config.to_dict(), model.state_dict(), CPU, torch.float32, openvino=True)
    if request.param == "packed" and not linear.packs(CPU, torch.float32):
        pytest.skip("PyTorch without oneDNN")
    return gpt2_decoder(model, getattr(linear, request.param))


def random_prompt(rng, longest=12):
    return [rng.randint(1, VOCABULARY - 1) for _ in range(rng.randint(1, longest))]


def library_ids(model, prompt, length, eos_token_id=None):
    """New ids of generate(), greedy with the same penalty; `eos_token_id` None never ends."""
    output = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=length,
        do_sample=False, repetition_penalty=GREEDY.repetition_penalty, eos_token_id=eos_token_id, pad_token_id=0,
    )  # fmt: skip
    return output[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def greedy(model):
    """Prompts and what generate() goes on with after each: once for all decoders, which take less time."""
    prompts = [random_prompt(random.Random(number)) for number in range(200)]
    return prompts, [library_ids(model, prompt, 8) for prompt in prompts]


def test_greedy_ids_equal_generate_alone_and_in_a_batch(greedy, decoder):
    prompts, reference = greedy
    alone = [generate_ids(decoder, [prompt], 8, GREEDY, -1)[0] for prompt in prompts]
    batched = [
        row for start in range(0, 200, 40) for row in generate_ids(decoder, prompts[start : start + 40], 8, GREEDY, -1)
    ]
    assert alone == reference
    assert batched == reference


def test_a_row_ends_before_its_end_of_text_while_others_go_on(model, decoder, rng):
    prompts = [random_prompt(rng) for _ in range(10)]
    free = [library_ids(model, prompt, 12) for prompt in prompts]
    eos = free[0][5]
    rows = generate_ids(decoder, prompts, 12, GREEDY, eos, every=5)
    for row, ids in zip(rows, free, strict=True):
        assert row == (ids[: ids.index(eos)] if eos in ids else ids)


def test_rows_that_ended_are_computed_no_more_and_the_others_are_as_alone(decoder, rng, monkeypatch):
    sizes, step = [], decoder.step
    monkeypatch.setattr(decoder, "step", lambda tokens, reach: sizes.append(len(tokens)) or step(tokens, reach))
    for _ in range(4):
        some = [random_prompt(rng, longest=CONTEXT) for _ in range(8)]
        chosen = [rng.randrange(8) for _ in range(16)]
        prompts = [some[number] for number in chosen]
        each = [generate_ids(decoder, [prompt], 60, GREEDY, -1)[0] for prompt in some]
        alone = [each[number] for number in chosen]
        eos, ended, looks = rng.choice(alone[0]), [False] * 16, []
        ends = [ids.index(eos) if eos in ids else 60 for ids in alone]
        over = [rng.choice([1, 2, rng.randint(1, 60)]) for _ in prompts]  # when the caller has enough
        sizes.clear()
        for chunk in stream_ids(decoder, prompts, 60, GREEDY, eos, ended=ended):
            looks.append(chunk)
            for row in range(16):
                ended[row] = ended[row] or over[row] <= len(looks)
        written = [[index for chunk in row for index in chunk] for row in zip(*looks, strict=True)]
        assert written == [ids[: min(end, most)] for ids, end, most in zip(alone, ends, over, strict=True)]
        # At most twice as many as go on; where leaving rows out copies nothing, those alone.
        needed = [min(end + 1, most) for end, most in zip(ends, over, strict=True)]
        assert sum(sizes) < (1 if decoder.paged else 2) * sum(needed)


@pytest.fixture(scope="module")
def long_texts(model):
    """Prompts and what generate() writes after each, begun anew on the newer half wherever the context is full."""
    texts, length = [], 3 * CONTEXT
    for number in range(5):
        prompt = window = random_prompt(random.Random(number))
        expected = []
        while len(expected) < length:
            # generate() reads CONTEXT positions and draws one token more than it reads.
            new = library_ids(model, window, min(length - len(expected), CONTEXT - len(window) + 1))
            expected, window = expected + new, (window + new)[-(CONTEXT // 2) :]
        texts.append((prompt, expected))
    return texts


def test_past_the_context_it_goes_on_as_if_started_on_the_newer_half(long_texts, decoder):
    for prompt, expected in long_texts:
        assert generate_ids(decoder, [prompt], len(expected), GREEDY, -1) == [expected]


def test_rows_slide_on_by_their_own_length_in_a_batch(decoder, rng):
    prompts = [random_prompt(rng, longest=CONTEXT) for _ in range(6)]
    alone = [generate_ids(decoder, [prompt], 50, GREEDY, -1)[0] for prompt in prompts]
    assert generate_ids(decoder, prompts, 50, GREEDY, -1) == alone


def test_ids_come_every_few_steps_and_are_the_same(decoder, rng):
    prompts = [random_prompt(rng) for _ in range(3)]
    whole = generate_ids(decoder, prompts, 40, GREEDY, -1)
    for every in (1, 3, 7):
        chunks = list(stream_ids(decoder, prompts, 40, GREEDY, -1, every=every))
        assert [[index for chunk in row for index in chunk] for row in zip(*chunks, strict=True)] == whole
        assert len(chunks[0][0]) == 1 and max(len(chunk[0]) for chunk in chunks) <= every


def test_a_recording_serves_later_calls_that_it_fits(model, rng, monkeypatch):
    """A replay stands in for a device's graph: the work of the recorded call, over that call's tensors."""
    decoder = GPT2Decoder(model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32, captures=True)
    recorded = []

    def addresses():
        return [tensor.data_ptr() for tensor in (*decoder.cache, decoder.first, decoder.next, decoder.slots)]

    def record(work, device, before):
        recorded.append(addresses())

        def replay():
            assert addresses() == recorded[-1]
            work()

        return SimpleNamespace(replay=replay), None

    monkeypatch.setattr("gpt2_korean.generation.loop.record_graph", record)
    for sampling, rows, recordings in ((GREEDY, 3, 1), (GREEDY, 3, 1), (GREEDY, 5, 2), (Sampling(temperature=0), 5, 3)):
        for length in (4, 100, 7):
            prompts = [random_prompt(rng) for _ in range(rows)]
            found = generate_ids(decoder, prompts, length, sampling, -1)
            assert found == generate_ids(gpt2_decoder(model), prompts, length, sampling, -1)
        assert len(recorded) == recordings


def test_what_was_recorded_over_a_longer_cache_serves_shorter_texts(rng, monkeypatch):
    model = tiny_gpt2(VOCABULARY, n_positions=600)
    decoder = GPT2Decoder(model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32, captures=True)
    recorded = []

    def record(work, device, before):
        recorded.append(work)
        return SimpleNamespace(replay=work), None

    monkeypatch.setattr("gpt2_korean.generation.loop.record_graph", record)
    for length, recordings in ((300, 2), (5, 2), (290, 2), (10, 2), (520, 5)):
        prompts = [random_prompt(rng) for _ in range(3)]
        found = generate_ids(decoder, prompts, length, GREEDY, -1, every=7)
        assert found == generate_ids(gpt2_decoder(model), prompts, length, GREEDY, -1)
        assert len(recorded) == recordings


def test_recorded_steps_leave_out_ended_rows_by_halves_and_the_others_are_as_alone(rng, monkeypatch):
    model = tiny_gpt2(VOCABULARY, n_positions=200)
    decoder = GPT2Decoder(model.config.to_dict(), dict(model.state_dict()), CPU, torch.float32, captures=True)
    recorded, replayed, plain = [], [], gpt2_decoder(model)

    def record(work, device, before):
        def replay():
            replayed.append(work)
            work()

        recorded.append(work)
        return SimpleNamespace(replay=replay), None

    monkeypatch.setattr("gpt2_korean.generation.loop.record_graph", record)
    monkeypatch.setattr("gpt2_korean.generation.loop.FEWEST_RECORDED", 4)
    sizes, step = [], decoder.step
    monkeypatch.setattr(decoder, "step", lambda tokens, reach: sizes.append(len(tokens)) or step(tokens, reach))
    for _ in range(4):
        prompts = [random_prompt(rng) for _ in range(18)]
        over = [rng.choice([1, 30, 60]) for _ in prompts[:16]] + [1, 90]  # after so many tokens the caller has enough
        texts, ended = [[] for _ in prompts], [False] * 18
        sizes.clear()
        for chunk in stream_ids(decoder, prompts, 90, GREEDY, -1, every=5, ended=ended):
            for row, ids in enumerate(chunk):
                texts[row] += ids
                ended[row] = len(texts[row]) >= over[row]
        for prompt, text, most in zip(prompts, texts, over, strict=True):
            assert len(text) >= most and text == generate_ids(plain, [prompt], len(text), GREEDY, -1)[0]
        assert sizes[0] == 18 and sizes[-1] == 4 and set(sizes) <= {18, 9, 4}
    assert len(recorded) <= 3 and len(replayed) > 300  # later batches replay what the first ones recorded


@pytest.fixture
def make_linear(request):
    """The function of linear.py that is meant."""
    if request.param == "packed" and not linear.packs(CPU, torch.float32):
        pytest.skip("PyTorch without oneDNN")
    return getattr(linear, request.param)


@pytest.mark.parametrize("make_linear", ["packed"], indirect=True)
def test_a_row_is_the_same_whatever_stands_beside_it(make_linear):
    torch.manual_seed(0)
    weight, bias, rows = torch.randn(24, 16), torch.randn(24), torch.randn(9, 16) * 10.0 ** torch.arange(-4, 5)[:, None]
    product = make_linear(weight, bias)
    for start in range(9):
        for end in range(start + 1, 10):
            torch.testing.assert_close(product(rows[start:end]), product(rows)[start:end], rtol=1e-5, atol=1e-5)
    assert product(torch.zeros(2, 16)).equal(bias.expand(2, -1))


@pytest.mark.parametrize("name", linear.ACTIVATIONS)
@pytest.mark.parametrize("make_linear", ["plain", "packed"], indirect=True)
def test_each_way_of_a_linear_layer_is_that_of_pytorch(make_linear, name):
    from transformers.activations import ACT2FN

    torch.manual_seed(0)
    weight, bias, x, added = (torch.randn(*shape) for shape in ((24, 16), (24,), (5, 16), (5, 16)))
    norm = (torch.randn(16), torch.randn(16), 1e-5)
    torch.testing.assert_close(make_linear(weight, bias, None, name)(x), ACT2FN[name](x @ weight.T + bias))
    for inputs in ((x,), (x, added)):
        normed = torch.nn.functional.layer_norm(sum(inputs), (16,), *norm)
        ours, total = make_linear(weight, bias, norm, name)(*inputs)
        torch.testing.assert_close(ours, ACT2FN[name](normed @ weight.T + bias))
        assert torch.equal(total, sum(inputs))


def test_weights_are_packed_in_those_types_alone_that_the_processor_has_kernels_for(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    for has in (True, False):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda has=has: has)
        packed = [linear.packs(CPU, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
        assert packed == [True, has, False]
    assert not linear.packs(torch.device("cuda"), torch.float32)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not linear.packs(CPU, torch.float32)


def test_the_prompts_oldest_tokens_give_way(rng):
    for _ in range(200):
        prompt = list(range(rng.randint(1, 100)))
        length, context = rng.randint(1, 100), rng.randint(2, 60)
        kept = fit_prompt(prompt, length, context)
        assert kept == prompt[len(prompt) - len(kept) :] and kept
        assert len(kept) <= context
        assert kept == prompt or len(kept) >= context // 2
        if len(prompt) + length - 1 <= context:
            assert kept == prompt
    assert fit_prompt(list(range(99)), 5, None) == list(range(99))


def test_a_seed_repeats_the_text(decoder):
    def write(seed):
        torch.manual_seed(seed)
        return generate_ids(decoder, [[1, 2], [3]], 9, Sampling(top_k=20), -1)

    assert write(1) == write(1) != write(2)
    assert all(len(row) == 9 for row in write(1))


def test_other_architectures_generate_too(rng):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.5, **shape)).eval()
    prompts = [random_prompt(rng) for _ in range(8)]
    ours = generate_ids(LibraryDecoder(llama), prompts, 10, GREEDY, -1)
    assert ours == [library_ids(llama, prompt, 10) for prompt in prompts]


@pytest.mark.parametrize("kind", ["OpenAIGPT", "Mamba", "Rwkv", "xLSTM"])
def test_models_that_keep_no_keys_and_values_write_the_same_texts_as_the_library(rng, kind):
    import transformers

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.5, "vocab_size": VOCABULARY}
    own = {"OpenAIGPT": {"n_head": 2}, "xLSTM": {"hidden_size": 64, "num_heads": 2, "qk_dim_factor": 1.0}}
    config = getattr(transformers, f"{kind}Config")(**(shape | own.get(kind, {})))
    model = transformers.AutoModelForCausalLM.from_config(config)
    prompts = [random_prompt(rng) for _ in range(3)]
    prompts.append(prompts[0])
    ours = generate_ids(LibraryDecoder(model.eval()), prompts, 6, GREEDY, -1)
    assert ours == [library_ids(model, prompt, 6) for prompt in prompts]


class CallsItCache(GPT2LMHeadModel):
    """A GPT-2 that calls what it keeps as transformers does since 5.24."""

    def forward(self, input_ids, attention_mask=None, cache=None, use_cache=None):
        output = super().forward(input_ids, cache, attention_mask, use_cache=use_cache)
        return SimpleNamespace(logits=output.logits, cache=output[1] if use_cache else None)


class CallsItPastKeyValues(GPT2LMHeadModel):
    """One that calls it as before, as models do that bring their own code."""

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None):
        output = super().forward(input_ids, past_key_values, attention_mask, use_cache=use_cache)
        return SimpleNamespace(logits=output.logits, past_key_values=output[1] if use_cache else None)


@pytest.mark.parametrize("named", [GPT2LMHeadModel, CallsItCache, CallsItPastKeyValues])
def test_a_model_is_given_back_what_it_keeps_by_the_name_that_it_has_for_it(model, rng, named):
    other, prompts = named(model.config).eval(), [[rng.randint(1, VOCABULARY - 1) for _ in range(5)] for _ in range(3)]
    other.load_state_dict(model.state_dict())
    decoder = LibraryDecoder(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a name that is no more
        ours = generate_ids(decoder, prompts, 6, GREEDY, -1)
    assert decoder.cache is not None
    assert ours == [library_ids(model, prompt, 6) for prompt in prompts]


def test_a_model_whose_cache_keeps_more_than_keys_goes_on_with_all_rows():
    from transformers import MiniMaxConfig, MiniMaxForCausalLM

    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "head_dim": 16,
    }
    shape |= {"num_key_value_heads": 1, "num_local_experts": 2, "layer_types": ["linear_attention", "full_attention"]}
    model = MiniMaxForCausalLM(MiniMaxConfig(vocab_size=VOCABULARY, initializer_range=0.5, **shape)).eval()
    decoder, ended, looks = LibraryDecoder(model), [False] * 4, []
    prompts = [[number, 7, 9] for number in range(1, 5)]
    for chunk in stream_ids(decoder, prompts, 6, GREEDY, -1, ended=ended):
        looks.append(chunk[3])
        ended[:3] = [True] * 3
    assert [[index for ids in looks for index in ids]] == generate_ids(decoder, prompts[3:], 6, GREEDY, -1)


def test_mpt_writes_beyond_its_context():
    from transformers import MptConfig, MptForCausalLM

    model = MptForCausalLM(MptConfig(d_model=32, n_layers=2, n_heads=2, max_seq_len=16, vocab_size=VOCABULARY)).eval()
    assert len(generate_ids(LibraryDecoder(model), [[1, 2, 3]], 40, GREEDY, -1)[0]) == 40


def test_texts_of_one_prompt_share_one_reading_and_are_as_those_read_apart(model, decoder, rng):
    for _ in range(5):
        some = [random_prompt(rng, longest=rng.choice([1, 12, CONTEXT])) for _ in range(rng.randint(1, 4))]
        prompts = [rng.choice(some) for _ in range(9)]
        length = rng.choice([1, 2, 9, 50])
        alone = [generate_ids(decoder, [prompt], length, GREEDY, -1)[0] for prompt in prompts]
        assert generate_ids(decoder, prompts, length, GREEDY, -1) == alone


def test_a_prompt_of_many_texts_is_read_once(model, rng, monkeypatch):
    decoder, read = gpt2_decoder(model), []
    forward = decoder._forward
    monkeypatch.setattr(
        decoder, "_forward", lambda ids, *more, **how: read.append(ids.shape) or forward(ids, *more, **how)
    )
    one, other = random_prompt(rng), random_prompt(rng)
    generate_ids(decoder, [one, other, one, one], 3, GREEDY, -1)
    assert read == [(2, max(len(one), len(other))), (4, 1), (4, 1)]
    drawn = generate_ids(decoder, [one] * 3, 30, Sampling(), -1)
    assert len({*map(tuple, drawn)}) == 3  # and yet each is drawn by itself
