"""Packing loses nothing: every token of every document is predicted exactly once."""

from itertools import pairwise

import pytest
import torch

from gpt2_korean.text import documents as corpus
from gpt2_korean.text.blocks import collate, count_targets, cut, pack

EOS = 0


def test_every_token_is_a_target_once_and_in_order(rng):
    for _ in range(300):
        documents = [[rng.randint(1, 99) for _ in range(rng.randint(0, 40))] for _ in range(rng.randint(1, 12))]
        block_size = rng.randint(2, 20)
        blocks = list(cut(documents, EOS, block_size))
        targets = [token for block in blocks for token in block[1:]]
        assert targets == [token for document in documents for token in [*document, EOS]]
        assert blocks[0][0] == EOS
        assert all(len(block) == block_size for block in blocks[:-1])
        assert all(before[-1] == after[0] for before, after in pairwise(blocks))


def test_one_sentence_is_one_short_block():
    assert list(cut([[5, 6]], EOS, 1024)) == [[EOS, 5, 6, EOS]]


@pytest.fixture
def documents(tmp_path, sample_texts):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(sample_texts[:20]), "utf-8")
    return corpus.read_corpus([path])


def test_packed_blocks_spell_the_corpus(documents, byte_tokenizer):
    blocks = pack(documents, byte_tokenizer, 64)
    ids = [token for block in blocks for token in block["input_ids"].tolist()[1:]]
    assert byte_tokenizer.decode(ids).split("<|endoftext|>")[:-1] == documents["text"]
    assert count_targets(blocks) == len(ids)


def test_blocks_are_cached_for_the_same_text_tokenizer_and_size(documents, byte_tokenizer, sample_texts):
    from gpt2_korean.text.vocabulary import train_tokenizer

    first = pack(documents, byte_tokenizer, 64)
    assert pack(documents, byte_tokenizer, 64).cache_files == first.cache_files
    others = [
        pack(documents, byte_tokenizer, 65),
        pack(documents.select(range(19)), byte_tokenizer, 64),
        pack(documents, train_tokenizer(sample_texts[:5], 400, 32), 64),
    ]
    for other in others:
        assert other.cache_files != first.cache_files


def test_a_stream_is_packed_as_a_table_is(documents, byte_tokenizer):
    table = [block["input_ids"].tolist() for block in pack(documents, byte_tokenizer, 64)]
    stream = pack(documents.to_iterable_dataset(), byte_tokenizer, 64)
    assert [block["input_ids"].tolist() for block in stream] == table


def test_a_short_block_is_padded_on_the_right_and_its_padding_is_no_label(rng):
    rows = [[rng.randint(1, 99) for _ in range(length)] for length in (7, 3, 1)]
    batch = collate([{"input_ids": torch.tensor(row, dtype=torch.int32)} for row in rows], pad_token_id=EOS)
    for row, ids, labels in zip(rows, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        assert ids == row + [EOS] * (7 - len(row))
        assert labels == row + [-100] * (7 - len(row))
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
