"""A text ends where the tokenizer says, else where the model's config does, and never at a token without a row."""

import copy

import pytest
from conftest import tiny_gpt2

from gpt2_korean.text.end_of_text import agree_on_ends, find_end, settle_ends


@pytest.mark.parametrize(
    ("own", "configured", "end"),
    [(3, 5, 3), (0, 5, 0), (None, 5, 5), (None, [6, 5], 6), (8, 5, 5), (None, 8, None), (8, [9], None)],
)
def test_the_end_is_the_tokenizers_then_the_configs_within_the_vocabulary(own, configured, end):
    assert find_end(own, configured, vocab_size=8) == end
    assert find_end(None, None) is None and find_end(9, None) == 9


def test_a_tokenizer_is_given_the_end_that_it_lacks_and_fills_up_with_it(byte_tokenizer):
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.eos_token = tokenizer.pad_token = None
    assert not settle_ends(copy.deepcopy(tokenizer)) and not settle_ends(tokenizer, 640, 640)
    assert settle_ends(tokenizer, [7], 640)
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 7
    assert settle_ends(tokenizer, 9, 640) and tokenizer.eos_token_id == 7


def test_model_and_generation_config_take_the_tokenizers_ids(byte_tokenizer):
    model, tokenizer = tiny_gpt2(640), copy.deepcopy(byte_tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(5)
    tokenizer.bos_token = None
    agree_on_ends(model, tokenizer)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (5, 5, 0)
    for answer_end, ends in ((7, [5, 7]), (5, 5)):
        agree_on_ends(model, tokenizer, answer_end)
        assert (model.config.eos_token_id, model.generation_config.eos_token_id) == (5, ends)
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(3)  # as KoGPT2's
    agree_on_ends(model, tokenizer)
    assert (model.config.bos_token_id, model.config.eos_token_id) == (3, 5)
