"""Generation equals transformers' generate(), alone and batched, and goes on past the context."""

import pytest
import torch
from conftest import tiny_gpt2

from gpt2_korean.decoding import fit_prompt, generate_ids
from gpt2_korean.sampling import Sampling

VOCABULARY, CONTEXT = 300, 32
GREEDY = Sampling(temperature=0, repetition_penalty=1.2)


@pytest.fixture(scope="module")
def model():
    return tiny_gpt2(VOCABULARY)


def random_prompt(rng, longest=12):
    return [rng.randint(1, VOCABULARY - 1) for _ in range(rng.randint(1, longest))]


def library_ids(model, prompt, length, eos_token_id=None):
    """New ids of generate(), greedy with the same penalty; `eos_token_id` None never ends."""
    output = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), max_new_tokens=length,
        do_sample=False, repetition_penalty=GREEDY.repetition_penalty, eos_token_id=eos_token_id, pad_token_id=0,
    )  # fmt: skip
    return output[0, len(prompt) :].tolist()


def test_greedy_ids_equal_generate_alone_and_in_a_batch(model, rng):
    prompts = [random_prompt(rng) for _ in range(40)]
    reference = [library_ids(model, prompt, 16) for prompt in prompts]
    alone = [generate_ids(model, [prompt], 16, GREEDY, -1, CONTEXT)[0] for prompt in prompts]
    batched = [
        row for start in (0, 20) for row in generate_ids(model, prompts[start : start + 20], 16, GREEDY, -1, CONTEXT)
    ]
    assert alone == reference
    assert batched == reference


def test_a_row_ends_before_its_end_of_text_while_others_go_on(model, rng):
    prompts = [random_prompt(rng) for _ in range(10)]
    free = [library_ids(model, prompt, 12) for prompt in prompts]
    eos = free[0][5]
    rows = generate_ids(model, prompts, 12, GREEDY, eos, CONTEXT)
    for row, ids in zip(rows, free, strict=True):
        assert row == (ids[: ids.index(eos)] if eos in ids else ids)


def test_past_the_context_it_goes_on_as_if_started_on_the_newer_half(model, rng):
    for _ in range(5):
        prompt, length = random_prompt(rng), 3 * CONTEXT
        expected, window = [], prompt
        while len(expected) < length:
            # generate() reads CONTEXT positions and draws one token more than it reads.
            new = library_ids(model, window, min(length - len(expected), CONTEXT - len(window) + 1))
            expected, window = expected + new, (window + new)[-(CONTEXT // 2) :]
        assert generate_ids(model, [prompt], length, GREEDY, -1, CONTEXT) == [expected]


def test_rows_slide_on_by_their_own_length_in_a_batch(model, rng):
    prompts = [random_prompt(rng, longest=CONTEXT) for _ in range(6)]
    alone = [generate_ids(model, [prompt], 50, GREEDY, -1, CONTEXT)[0] for prompt in prompts]
    assert generate_ids(model, prompts, 50, GREEDY, -1, CONTEXT) == alone


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


def test_a_seed_repeats_the_text_and_steps_are_reported(model):
    steps = []
    runs = [
        generate_ids(
            model,
            [[1, 2], [3]],
            9,
            Sampling(top_k=20),
            -1,
            CONTEXT,
            torch.Generator().manual_seed(seed),
            lambda: steps.append(1),
        )
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert len(steps) == 27
    assert all(len(row) == 9 for row in runs[0])


def test_other_architectures_generate_too(rng):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.5, **shape)).eval()
    prompts = [random_prompt(rng) for _ in range(8)]
    assert generate_ids(llama, prompts, 10, GREEDY, -1, 64) == [library_ids(llama, prompt, 10) for prompt in prompts]
