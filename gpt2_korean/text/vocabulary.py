"""Documents → a byte-level BPE vocabulary of their own.

Byte-level as GPT-2's (Radford et al. 2019, section 2.2): all 256 bytes are tokens, so every string can
be written and none is unknown.
"""

import os
import sys
from pathlib import Path

from gpt2_korean.messages import say

END_OF_TEXT = "<|endoftext|>"
# The matrix units of every accelerator like a vocabulary of whole tiles; none is padded, since a
# padding row could be generated.
TILE = 128
# A vocabulary that spends more tokens than this on a character is not one for Korean: GPT-2's own spends
# 2.1, a Korean one of a few hundred tokens 1.2, of 32,000 tokens 0.4.
TOKENS_PER_CHARACTER = 1.4
# From how many characters on a vocabulary of one's own is the default: see benchmarks/RESULTS.md.
ENOUGH_CHARACTERS = 2_000_000
# More of a corpus than this teaches hardly other words, and takes more memory and time.
SAMPLED_CHARACTERS = 50_000_000
# Below this many tokens a text is too short to have taught any words.
LEAST_TOKENS = 1024


def should_replace(tokenizer, sample, characters):
    """Whether a model's vocabulary gives way to one learnt from the corpus, where nobody said.

    Only where it is byte-level, is not one for Korean, and the corpus (`characters` in all, None for an
    endless one; `sample` a part of it) is large enough to teach both words and rows.
    """
    from gpt2_korean.generation.whole_characters import token_bytes

    enough = characters is None or characters >= ENOUGH_CHARACTERS
    return enough and token_bytes(tokenizer) is not None and spent(tokenizer, sample) > TOKENS_PER_CHARACTER


def spent(tokenizer, texts):
    """Tokens per character of `texts`, a list of str."""
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return sum(map(len, ids)) / sum(map(len, texts))


def learn_tokenizer(documents, vocab_size, context_length):
    """`train_tokenizer` on a sample of a Dataset's texts, kept in the datasets cache beside them.

    What is learnt from an IterableDataset is not kept.
    """
    from datasets.fingerprint import Hasher

    from gpt2_korean.text.documents import count_characters, sample_texts

    kept = None
    if getattr(documents, "cache_files", None):
        name = Hasher.hash([documents._fingerprint, vocab_size, Path(__file__).read_bytes()])
        kept = Path(documents.cache_files[0]["filename"]).with_name(f"tokenizer-{name}.json")
        if kept.exists():
            return wrap(context_length, tokenizer_file=str(kept))
    texts = sample_texts(documents, SAMPLED_CHARACTERS)
    sampled, characters = sum(map(len, texts)), count_characters(documents)
    of_how_many = f"{characters:,}자에서 고르게 뽑은 " if characters and sampled < characters else ""
    say(f"글 {of_how_many}{sampled:,}자에서 어휘를 배웁니다.")
    tokenizer = train_tokenizer(texts, vocab_size, context_length)
    if kept is not None:
        unfinished = kept.with_suffix(f".{os.getpid()}")
        tokenizer.backend_tokenizer.save(str(unfinished))
        os.replace(unfinished, kept)
    return tokenizer


def train_tokenizer(texts, vocab_size, context_length):
    """Train a tokenizer of at most `vocab_size` tokens, a multiple of 128, on a list of str.

    A small corpus gives fewer, since a pair is merged only where it occurs twice: then the largest
    multiple of 128 that it gives. `<|endoftext|>` (id 0) is begin, end and padding alike. The same texts
    give the same tokenizer, a PreTrainedTokenizerFast.
    """
    tokenizer = train_bpe(texts, vocab_size)
    size = tokenizer.get_vocab_size()
    whole_tiles = size // TILE * TILE
    if size > whole_tiles > 256:
        # Merges are learnt in order, so the smaller vocabulary is the larger one's beginning.
        tokenizer = train_bpe(texts, whole_tiles)
    return wrap(context_length, tokenizer_object=tokenizer)


def wrap(context_length, **source):
    """A PreTrainedTokenizerFast of a tokenizer_object or tokenizer_file whose ends are all `<|endoftext|>`."""
    from transformers import PreTrainedTokenizerFast

    ends = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    return PreTrainedTokenizerFast(**source, **ends, model_max_length=context_length)


def train_bpe(texts, vocab_size, *cuts):
    """A byte-level tokenizers.Tokenizer; `cuts` are pre-tokenizers that divide a text before GPT-2's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*cuts, byte_level]) if cuts else byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),  # in a log it leaves nothing but blank lines
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer
