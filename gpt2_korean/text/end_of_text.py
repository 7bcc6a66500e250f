"""Which token ends a text: the tokenizer's own, else the one that the model's config names; both then agree on it.

Beginnings and padding follow from it: training reads every document from an end of text on. Knows of tokenizers and
configs their ids alone.
"""

import math


def find_end(own, configured, vocab_size=math.inf):
    """The id that ends a text: the tokenizer's `own`, else what the config has, the first of a list; None for neither.

    None are also those that the model has no row for.
    """
    configured = configured[:1] if isinstance(configured, list) else [configured]
    return next((index for index in (own, *configured) if _is_in(index, vocab_size)), None)


def settle_ends(tokenizer, configured=None, vocab_size=math.inf):
    """Have a `tokenizer` of transformers end texts as find_end says, and fill up with that if it has no padding.

    Returns whether there is an end of text.
    """
    end = find_end(tokenizer.eos_token_id, configured, vocab_size)
    if end is None:
        return False
    if end != tokenizer.eos_token_id:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    if not _is_in(tokenizer.pad_token_id, vocab_size):
        tokenizer.pad_token = tokenizer.eos_token
    return True


def begin_with_end(tokenizer):
    """Have a `tokenizer` of transformers put its end of text in front of texts, as training does.

    It is saved so in tokenizer.json, whose post-processor all others go by, llama.cpp too.
    """
    tokenizer.bos_token = tokenizer.eos_token
    tokenizer.add_bos_token = True


def _is_in(index, vocab_size):
    return isinstance(index, int) and 0 <= index < vocab_size
