"""Documents → the vocabulary to train with: a model's own, another's, or a byte-level BPE of their own.

Byte-level as GPT-2's (Radford et al. 2019, section 2.2): all 256 bytes are tokens, so every string can
be written and none is unknown.
"""

import contextlib
import ctypes

from gpt2_korean.messages import UserError, say, warn
from gpt2_korean.text import bpe
from gpt2_korean.text.cache import keep, kept_beside, one_makes
from gpt2_korean.text.chat_template import MARKS, encode_texts, hold_conversations, keep_one_template
from gpt2_korean.text.corpus import count_characters, sample_texts, sampling_step
from gpt2_korean.text.end_of_text import settle_ends
from gpt2_korean.text.folders import find_path

END_OF_TEXT = "<|endoftext|>"
# The matrix units of every accelerator like a vocabulary of whole tiles; none is padded, since a
# padding row could be generated.
TILE = 128
# A vocabulary that spends more tokens than this on a character is not one for Korean: GPT-2's own spends
# 2.1, a Korean one of a few hundred tokens 1.2, of 32,000 tokens 0.4.
TOKENS_PER_CHARACTER = 1.4
# From how many characters on a vocabulary of one's own is the default: see benchmarks/RESULTS.md.
ENOUGH_CHARACTERS = 2_000_000
# The tokens to learn where nobody said: a token that occurs seldom is not learnt, so they grow with the square root of
# the text, from LEAST_LEARNT to MOST_LEARNT; the best of those measured (benchmarks/RESULTS.md).
TOKENS_OF_ENOUGH, LEAST_LEARNT, MOST_LEARNT = 8192, 4096, 32_000
# Of a corpus, to tell what a vocabulary spends on it, or lacks.
COUNTED_CHARACTERS = 200_000
# More of a corpus than this takes more memory and time for hardly fewer tokens: benchmarks/RESULTS.md.
SAMPLED_CHARACTERS = 20_000_000
# Below this many tokens a text is too short to have taught any words.
LEAST_TOKENS = 1024


def choose_tokenizer(tokenizer, documents, options, reader=None):
    """The tokenizer to train with: a model's own, or another one to which the model is then to be carried over.

    options: ModelOptions, whose `tokenizer` is None (should_replace decides), "korean", "original", or the folder of a
    tokenizer. reader: the class that reads such a folder, AutoTokenizer if it is None, which imports torch.
    Raises UserError for a tokenizer that cannot be loaded or carried over to.
    """
    choice = options.tokenizer
    if choice == "original":
        return tokenizer
    if choice is None:
        sample = sample_texts(documents, COUNTED_CHARACTERS)
        if not should_replace(tokenizer, sample, count_characters(documents, "length")):
            if options.vocab_size is not None:
                warn("모델의 어휘를 쓰므로 --vocab_size는 쓰이지 않습니다. 바꾸려면 --tokenizer=korean을 주세요.")
            return tokenizer
        choice = "korean"
    if token_bytes(tokenizer) is None:  # said before a vocabulary is learnt, which takes minutes
        raise UserError(
            f"--tokenizer={choice}: 바이트 단위 어휘가 아닌 모델이라 바꿀 수 없습니다. --tokenizer=original을 주거나 "
            "gpt2 같은 모델에서 시작하세요."
        )
    if choice == "korean":
        new = learn_tokenizer(documents, options.vocab_size or fitting_size(documents), tokenizer.model_max_length)
        if len(new) < min(LEAST_TOKENS, options.vocab_size or LEAST_TOKENS):
            warn(f"글에 서로 다른 낱말이 적어 토큰을 {len(new):,}개밖에 배우지 못했으므로 모델의 원래 어휘를 씁니다.")
            return tokenizer
    else:
        new = _other_tokenizer(choice, tokenizer.model_max_length, reader)
    if token_bytes(new) is None:
        raise UserError(
            f"--tokenizer={choice}: 바이트 단위 어휘가 아니라 쓸 수 없습니다. --tokenizer=korean이나 original을 주세요."
        )
    return new


def should_replace(tokenizer, sample, characters):
    """Whether a model's vocabulary gives way to one learnt from the corpus, where nobody said.

    Only where it is byte-level, is not one for Korean, and the corpus (`characters` in all, None for an
    endless one; `sample` a part of it) is large enough to teach both words and rows.
    """
    enough = characters is None or characters >= ENOUGH_CHARACTERS
    return enough and token_bytes(tokenizer) is not None and spent(tokenizer, sample) > TOKENS_PER_CHARACTER


def spent(tokenizer, texts):
    """Tokens per character of `texts`, a list of str."""
    return sum(map(len, encode_texts(texts, tokenizer))) / sum(map(len, texts))


def fitting_size(documents, most=MOST_LEARNT):
    """How many tokens to learn from `documents`, a multiple of 128; `most` of a stream, whose end is not known."""
    characters = count_characters(documents, "length")
    if characters is None:
        return most
    fitting = round(TOKENS_OF_ENOUGH * (characters / ENOUGH_CHARACTERS) ** 0.5 / TILE) * TILE
    return min(most, max(LEAST_LEARNT, fitting))


def learn_tokenizer(documents, vocab_size, context_length):
    """`train_tokenizer` on a sample of a Dataset's texts, kept in the datasets cache beside them.

    What is learnt from an IterableDataset is not kept. Where there are conversations, it has the MARKS of their turns.
    """
    kept = kept_beside(documents, f"tokenizer-{vocab_size}.json")
    if kept is not None and kept.exists():
        return wrap(context_length, tokenizer_file=str(kept))
    step = sampling_step(documents, SAMPLED_CHARACTERS)
    part = f" 가운데 고르게 뽑은 1/{step}로" if step and step > 1 else "로"
    beginning = "글의 앞부분으로" if step is None else f"글 {count_characters(documents, 'length'):,}자{part}"
    say(f"{beginning} 어휘를 배웁니다.")
    with one_makes(kept):  # the process that reads ahead may be learning it
        if kept is not None and kept.exists():
            return wrap(context_length, tokenizer_file=str(kept))
        texts = sample_texts(documents, SAMPLED_CHARACTERS)
        marks = list(MARKS.values()) if hold_conversations(documents) else []
        tokenizer = train_tokenizer(texts, vocab_size, context_length, marks)
        with contextlib.suppress(OSError, AttributeError, TypeError):  # glibc would keep much of what learning took
            ctypes.CDLL(None).malloc_trim(0)
        keep(kept, tokenizer.backend_tokenizer.to_str(pretty=True).encode())
    return tokenizer


def train_tokenizer(texts, vocab_size, context_length, marks=()):
    """Train a tokenizer of at most `vocab_size` tokens, a multiple of 128, on a list of str.

    A small corpus gives fewer, since a pair is merged only where it occurs twice: then the largest
    multiple of 128 that it gives. `<|endoftext|>` (id 0) is begin, end and padding alike; `marks` are special
    tokens too, from id 1 on. The same texts give the same tokenizer, a PreTrainedTokenizerFast.
    """
    special = [END_OF_TEXT, *marks]
    stand_ins = {byte: chr(point) for point, byte in byte_alphabet().items()}
    alphabet = sorted(stand_ins, key=stand_ins.get)
    words = {word.encode(): count for word, count in bpe.count_words(texts).items()}
    merges = bpe.learn_merges(words, vocab_size - len(special) - len(alphabet), alphabet)
    merges = [tuple("".join(stand_ins[byte] for byte in token) for token in pair) for pair in merges]
    tokens = [*special, *map(stand_ins.get, alphabet), *map("".join, merges)]
    whole_tiles = len(tokens) // TILE * TILE
    if len(tokens) > whole_tiles > 256:
        # Merges are learnt in order, so the smaller vocabulary is the larger one's beginning.
        tokens, merges = tokens[:whole_tiles], merges[: whole_tiles - len(tokens)]
    return wrap(context_length, tokenizer_object=byte_level_bpe(tokens, merges, special))


def wrap(context_length, **source):
    """A PreTrainedTokenizerFast of a tokenizer_object or tokenizer_file whose ends are all `<|endoftext|>`."""
    from transformers import PreTrainedTokenizerFast

    ends = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}
    return PreTrainedTokenizerFast(**source, **ends, model_max_length=context_length)


def byte_level_bpe(tokens, merges, special):
    """A tokenizers.Tokenizer of `tokens` (list of str by id, `special` ones among them) and `merges`, pairs of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    # Without a prefix and a suffix as in GPT-2's own file, and not none at all: read and saved, it stays the same.
    no_affixes = {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges, **no_affixes))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _other_tokenizer(path, context_length, reader):
    path = find_path(path)
    try:
        if reader is None:
            from transformers import AutoTokenizer as reader
        tokenizer = reader.from_pretrained(path, local_files_only=path.exists(), trust_remote_code=False)
    except Exception as error:  # whatever the libraries make of others' files
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        way_on = "온전한 tokenizer.json이 든 폴더나 Hub의 이름을 주세요"
        if not path.exists():
            way_on += "(비공개이거나 허락이 필요하면 HF_TOKEN도 설정하세요)"
        raise UserError(f"--tokenizer={path}: 토크나이저를 불러올 수 없습니다({words}).\n{way_on}.") from None
    if sorted(tokenizer.get_vocab().values()) != list(range(len(tokenizer))):  # rows of embeddings have no gaps
        raise UserError(
            f"--tokenizer={path}: 토큰의 번호가 0부터 빠짐없이 이어지지 않습니다. 다른 토크나이저를 주세요."
        )
    if not settle_ends(tokenizer):
        way_on = 'tokenizer_config.json에 "eos_token": "</s>"처럼 적으세요'
        raise UserError(f"--tokenizer={path}: 글의 끝을 나타내는 토큰(eos_token)이 없습니다. {way_on}.")
    keep_one_template(tokenizer)
    tokenizer.model_max_length = context_length
    return tokenizer


def byte_alphabet():
    """GPT-2's printable stand-in for each byte, `{code point: byte}` (Radford et al. 2019, encoder.py's idea).

    Printable Latin-1 stands for itself; the other bytes, in order, for the characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: byte for byte in printable} | {0x100 + n: byte for n, byte in enumerate(others)}


def unlike_gpt2(content):
    """What in the `content` of a tokenizer.json has it cut texts otherwise than GPT-2's does, as a user is told of such
    a tokenizer; None where nothing does."""
    model, cutting = content["model"], content["pre_tokenizer"] or {}
    if model["type"] != "BPE":
        return f"BPE가 아닌 토크나이저({model['type']})"
    unknown = [key for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix") if model.get(key)]
    unknown += [key for key in ("byte_fallback", "ignore_merges") if model.get(key)]
    if unknown:
        return f"GPT-2의 BPE에 없는 설정({', '.join(unknown)})을 쓰는 토크나이저"
    if content["normalizer"] is not None:
        return f"글을 고쳐서 읽는 토크나이저(normalizer: {content['normalizer']['type']})"
    plain = cutting.get("type") == "ByteLevel" and cutting.get("use_regex", True)
    if not plain or cutting.get("add_prefix_space"):
        kind = cutting.get("type") if not plain else "add_prefix_space"
        return f"글을 GPT-2와 다르게 자르는 토크나이저(pre_tokenizer: {kind})"
    return None


def token_bytes(tokenizer):
    """The bytes of each token, a list by id (None for a special token); None where they are not byte-level.

    tokenizer: a tokenizers.Tokenizer, or one of transformers. A vocabulary without a token for every single
    byte is none either: it could not always end a character.
    """
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if "ByteLevel" not in str(getattr(tokenizer, "decoder", "")):
        return None
    alphabet = byte_alphabet()
    vocabulary = tokenizer.get_vocab()
    pieces = [None] * (max(vocabulary.values()) + 1)
    added = tokenizer.get_added_tokens_decoder()
    for token, index in vocabulary.items():
        if index not in added:
            try:
                pieces[index] = token.translate(alphabet).encode("latin-1")
            except UnicodeEncodeError:  # a token that no bytes are written by
                return None
        elif not added[index].special:
            pieces[index] = token.encode()
    return pieces if {bytes([byte]) for byte in range(256)} <= set(pieces) else None
