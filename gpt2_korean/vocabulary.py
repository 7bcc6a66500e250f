"""Documents → a byte-level BPE tokenizer of their own vocabulary.

Byte-level as GPT-2's (Radford et al. 2019, section 2.2): all 256 bytes are tokens, so every string can
be written and none is unknown.
"""

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(texts, vocab_size, context_length):
    """Train a tokenizer of at most `vocab_size` tokens on an iterable of str.

    A small corpus gives fewer: a pair of tokens is merged only where it occurs twice. `<|endoftext|>`
    (id 0) is begin, end and padding alike. Returns a PreTrainedTokenizerFast.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=context_length,
    )
