"""Documents → token blocks that Trainer can read: tokenised, joined, packed, cached on disk.

The documents become one stream, `<eos> document <eos> document <eos>`, cut into blocks of `block_size`
tokens. Neighbouring blocks share one token, the last of the one and the first of the next: a model
predicts all tokens of a block but the first, and so every token of every document, its end included, is
predicted exactly once. The last block may be short; nothing is dropped.
"""

import hashlib
import math
from collections import Counter
from dataclasses import dataclass

from gpt2_korean.messages import UsageError, say, warn
from gpt2_korean.text.cache import cached_dataset
from gpt2_korean.text.documents import count_characters, sample_texts, text_batches
from gpt2_korean.text.vocabulary import COUNTED_CHARACTERS

# Documents that are tokenised together: enough to keep all cores at work, few enough that a batch of the
# longest ones stays small in memory.
BATCH = 256


@dataclass(frozen=True)
class Blocks:
    """The blocks of Texts, None where they are not needed, and how many tokens a whole one has."""

    train: object
    held_out: object
    size: int


def pack_texts(texts, tokenizer, context, block_size=None):
    """The Blocks of Texts, and say how many they are and what of the texts the vocabulary cannot write.

    context: how many tokens the model can read at a time, None where it sets no limit. block_size: None for as many.
    Raises UsageError.
    """
    longest = context or 1024
    size = block_size or longest
    if size > longest:
        raise UsageError(f"--block_size={size}: 모델의 문맥 길이 {longest}보다 길 수 없습니다.")
    packed = []
    for name, documents in (("학습 글", texts.train), ("평가 글", texts.held_out)):
        packed.append(None if documents is None else pack(documents, tokenizer, size))
        if documents is not None:
            say(describe(name, documents, packed[-1]))
            unknown = count_unknown(packed[-1], tokenizer)
            if unknown:
                such = " ".join(map(repr, unknown_characters(documents, tokenizer)))
                such = f"({such} 등)" if such else ""
                warn(f"{name}: {unknown:,}곳의 글자가 어휘에 없어 {tokenizer.unk_token}로 바뀌었습니다{such}.")
    return Blocks(*packed, size)


def pack(documents, tokenizer, block_size):
    """The blocks of `documents` (column `text`): a datasets.Dataset with one column, input_ids.

    For an IterableDataset the blocks are made as they are asked for, and an IterableDataset is returned.
    """
    import datasets

    arguments = {"documents": documents, "tokenizer": tokenizer, "block_size": block_size}
    if isinstance(documents, datasets.IterableDataset):
        return datasets.IterableDataset.from_generator(_blocks, gen_kwargs=arguments).with_format("torch")
    identity = [documents._fingerprint, vocabulary_of(tokenizer), tokenizer.eos_token_id, block_size]
    return cached_dataset(_blocks, arguments, identity).with_format("torch")


def vocabulary_of(tokenizer):
    """What decides the tokens of a text: the whole tokenizer.json, or a Python tokenizer's vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())


def _blocks(documents, tokenizer, block_size):
    from tqdm import tqdm

    with tqdm(desc="토큰으로 나누기", unit="글자", unit_scale=True) as progress:
        for block in cut(_token_lists(documents, tokenizer, progress), tokenizer.eos_token_id, block_size):
            yield {"input_ids": block}


def _token_lists(documents, tokenizer, progress):
    for texts in text_batches(documents, BATCH):
        # The Rust tokenizers spread a batch over all cores. The name of a special token in a text is text.
        encoded = tokenizer(
            texts, add_special_tokens=False, split_special_tokens=True, return_attention_mask=False, verbose=False
        )
        progress.update(sum(map(len, texts)))
        yield from encoded["input_ids"]


def cut(token_lists, eos_token_id, block_size):
    """Yield the blocks (lists of ids) of an iterable of documents (lists of ids)."""
    stream = [eos_token_id]
    for token_ids in token_lists:
        stream += token_ids
        stream.append(eos_token_id)
        start = 0
        while len(stream) - start >= block_size:
            yield stream[start : start + block_size]
            start += block_size - 1
        stream = stream[start:]
    if len(stream) > 1:
        yield stream


def describe(name, documents, blocks):
    """One line on a packed corpus; of an endless stream nothing can be counted."""
    tokens = count_targets(blocks)
    if tokens is None:
        return f"{name}: 스트리밍이라 미리 세지 않습니다."
    characters = count_characters(documents)
    return (
        f"{name}: 문서 {len(documents):,}개 · 글자 {characters:,}개 · 토큰 {tokens:,}개"
        f"(글자당 {tokens / characters:.2f}개) · 블록 {len(blocks):,}개"
    )


def count_targets(blocks):
    """How many tokens a model predicts in `blocks`, all but the first of each; None for a stream."""
    import pyarrow.compute

    if not hasattr(blocks, "num_rows"):
        return None
    return pyarrow.compute.sum(pyarrow.compute.list_value_length(blocks.data["input_ids"])).as_py() - len(blocks)


def count_unknown(blocks, tokenizer):
    """At how many places of `blocks` the texts have what the vocabulary does not; 0 for a stream, uncounted."""
    import pyarrow.compute

    unknown = tokenizer.unk_token_id
    # GPT-2's tokenizer names the end of a text, since no text is unknown to it.
    if unknown in (None, tokenizer.eos_token_id) or not hasattr(blocks, "num_rows"):
        return 0
    ids = blocks.data["input_ids"]
    firsts = pyarrow.compute.list_element(ids, 0)  # which the blocks before have as well
    whole, twice = (
        pyarrow.compute.sum(pyarrow.compute.equal(tokens, unknown)).as_py()
        for tokens in (pyarrow.compute.list_flatten(ids), firsts)
    )
    return whole - twice


def unknown_characters(documents, tokenizer, count=5):
    """The most frequent of the characters of `documents` that the vocabulary lacks, at most `count`."""
    found = Counter("".join(sample_texts(documents, COUNTED_CHARACTERS))).most_common()
    ids = tokenizer([character for character, _ in found], add_special_tokens=False)["input_ids"]
    lacking = [character for (character, _), own in zip(found, ids, strict=True) if tokenizer.unk_token_id in own]
    return lacking[:count]


def token_stream(blocks, limit):
    """About `limit` tokens in their order, int64 [n]: of blocks evenly chosen, or the first 2,000 of a stream."""
    import torch

    if not hasattr(blocks, "num_rows"):
        return torch.cat([block["input_ids"] for block in blocks.take(2000)]).long()
    step = math.ceil(count_targets(blocks) / limit)
    chosen = blocks.select(range(0, len(blocks), step)).with_format("arrow")[:]["input_ids"]
    return torch.from_numpy(chosen.combine_chunks().flatten().to_numpy().astype("int64"))


def fingerprint(blocks):
    """A hash of the tokens of `blocks`: of all of them up to 20,000 blocks, of that many evenly chosen above."""
    step = max(1, len(blocks) // 20_000)
    digest = hashlib.sha256(str(len(blocks)).encode())
    for table in blocks.select(range(0, len(blocks), step)).with_format("arrow").iter(1000):
        for ids in table["input_ids"].chunks:
            digest.update(ids.value_lengths().to_numpy().tobytes() + ids.flatten().to_numpy().tobytes())
    return digest.hexdigest()


def collate(blocks, pad_token_id):
    """A batch of blocks as `input_ids` and `labels`, both [batch, longest block], int64.

    Padding stands on the right, where no real token attends to it, and is no label; so no attention mask
    is needed and attention may take its causal kernel.
    """
    from torch.nn.utils.rnn import pad_sequence

    rows = [block["input_ids"].long() for block in blocks]
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad_token_id),
        "labels": pad_sequence(rows, batch_first=True, padding_value=-100),
    }


def fill_up(batch, rows, length):
    """`batch` with each tensor [rows, length]: what is added holds no labels, and nothing real attends to it."""
    from torch.nn.functional import pad

    missing = (0, length - batch["labels"].shape[1], 0, rows - batch["labels"].shape[0])
    return {name: pad(tensor, missing, value=-100 if name == "labels" else 0) for name, tensor in batch.items()}
