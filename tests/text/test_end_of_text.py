"""A text ends where the tokenizer says, else where the model's config does, and never at a token without a row."""

import copy

import pytest

from gpt2_korean.text.end_of_text import find_end, settle_ends


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
