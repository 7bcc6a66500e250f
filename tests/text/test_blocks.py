"""Packing loses nothing: every token of every document is predicted exactly once."""

import weakref
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset, concatenate_datasets
from torch.utils.data import BatchSampler

from gpt2_korean.messages import UsageError
from gpt2_korean.text import documents as corpus
from gpt2_korean.text import tokens
from gpt2_korean.text.assemble import collate
from gpt2_korean.text.blocks import EpochOrder, PackedBlocks, count_targets, pack, pack_texts
from gpt2_korean.text.packing import plan_documents, plan_stream, plan_windows
from gpt2_korean.text.tokens import Buffer, Tokens
from gpt2_korean.text.vocabulary import train_tokenizer

EOS = 0


def in_memory(documents, learnt=None):
    """Tokens of documents, lists of ids; learnt: for each a list of flags."""
    documents = [np.array([*ids, EOS], np.int32) for ids in documents]
    flags = np.concatenate([[*own, 1] for own in learnt]).astype(np.int8) if learnt else np.empty(0, np.int8)
    lengths = np.array(list(map(len, documents)), np.int32)
    return Buffer({"ids": np.concatenate(documents), "lengths": lengths, "learnt": flags})


def pieces_of(block):
    """`(first position, inputs, targets)` of each piece of a block, told by its position_ids alone."""
    positions = block["position_ids"]
    borders = [0, *np.flatnonzero(np.diff(positions) != 1) + 1, len(positions) - 1]
    for begin, end in pairwise(borders):
        yield positions[begin], block["input_ids"][begin:end].tolist(), block["labels"][begin + 1 : end + 1].tolist()


@pytest.fixture
def random_documents(rng):
    def make():
        number, longest = rng.randint(1, 12), rng.choice([3, 12, 40])
        return [[rng.randint(1, 99) for _ in range(rng.randint(0, longest))] for _ in range(number)]

    return make


def test_a_corpus_is_told_from_another_by_any_token_any_end_and_what_is_learnt():
    def table(*rows):
        return Tokens(Dataset.from_list([dict(zip(("ids", "lengths", "learnt"), row, strict=True)) for row in rows]))

    row = [[1, 2, 0, 3, 4, 0], [3, 3], [1, 0, 1, 1, 0, 1]]
    others = [[[1, 2, 0, 3, 5, 0], *row[1:]], [row[0], [2, 4], row[2]], [*row[:2], [0, 1, 1, 1, 0, 1]]]
    assert tokens.fingerprint(table(row, row)) == tokens.fingerprint(table(row, row))
    assert len({tokens.fingerprint(table(row, last)) for last in (row, *others)}) == 4
    rows = [[[number, 0], [2], [1, 1]] for number in range(1, 9)]
    assert [each["ids"].tolist() for each in tokens.some_rows(table(*rows), 5)] == [[1, 0], [5, 0]]
    assert len(list(tokens.some_rows(table(*rows), 99))) == 8


def test_in_documents_every_piece_is_read_as_if_it_stood_alone(random_documents, rng):
    for _ in range(200):
        documents, size = random_documents(), rng.randint(2, 24)
        blocks = PackedBlocks(in_memory(documents), size, plan_documents, EOS)
        whole = [[EOS, *ids, EOS] for ids in documents]
        wanted = sorted(
            (ids[first : first + size - 1][: len(ids) - 1 - first], ids[first + 1 : first + size])
            for ids in whole
            for first in range(0, len(ids) - 1, size - 1)
        )
        for epoch in range(-1, 2):
            found = [pieces_of(blocks[(epoch + 1) * len(blocks) + index]) for index in range(len(blocks))]
            found = [piece for block in found for piece in block]
            assert epoch >= 0 or all(first == 0 for first, *_ in found)
            assert sorted((inputs, targets) for _, inputs, targets in found) == wanted


def test_in_a_stream_every_token_follows_the_one_before_it_in_the_text(random_documents, rng):
    for _ in range(200):
        documents, size = random_documents(), rng.randint(2, 24)
        blocks = PackedBlocks(in_memory(documents), size, plan_stream, EOS)
        text = [EOS, *(index for ids in documents for index in [*ids, EOS])]
        for number, first in enumerate(range(0, len(text) - 1, size - 1)):
            assert blocks[number].keys() == {"input_ids", "labels"}
            assert blocks[number]["input_ids"].tolist() == text[first : first + size]
            assert blocks[number]["labels"].tolist() == [-100, *text[first + 1 : first + size]]


@pytest.mark.parametrize("make_plan", [plan_documents, plan_stream, plan_windows])
def test_what_is_not_learnt_is_no_label_and_all_else_is_one_once(make_plan, random_documents, rng):
    for _ in range(100):
        documents = random_documents()
        learnt = [[rng.random() < 0.5 for _ in ids] for ids in documents]
        blocks = PackedBlocks(in_memory(documents, learnt), rng.randint(2, 24), make_plan, EOS)
        labels = np.concatenate([block["labels"] for block in blocks])
        wanted = [
            index
            for ids, own in zip(documents, learnt, strict=True)
            for index, learns in zip([*ids, EOS], [*own, True], strict=True)
            if learns
        ]
        assert sorted(labels[labels != -100]) == sorted(wanted)
        assert count_targets(blocks) == len(wanted)


@pytest.mark.parametrize("make_plan", [plan_documents, plan_windows])
def test_no_block_is_of_a_long_question_alone(make_plan):
    questions, answers = [[1] * 50, [2] * 7, [3] * 15], [[4] * 30, [5], [6] * 2]
    documents = [asked + said for asked, said in zip(questions, answers, strict=True)]
    learnt = [[False] * len(asked) + [True] * len(said) for asked, said in zip(questions, answers, strict=True)]
    blocks = PackedBlocks(in_memory(documents, learnt), 16, make_plan, EOS)
    for epoch in range(2):
        labels = [blocks[epoch * len(blocks) + index]["labels"] for index in range(len(blocks))]
        assert all((each != -100).any() for each in labels)
        assert sum((each != -100).sum() for each in labels) == blocks.targets == 36


@pytest.mark.parametrize("make_plan", [plan_documents, plan_stream, plan_windows])
def test_plain_texts_beside_conversations_are_learnt_and_counted_in_whichever_row_they_stand(make_plan, rng):
    rows = []
    for masked in (False, True, False):  # a row of the cache without a conversation has no flags
        documents = [[rng.randint(1, 99) for _ in range(rng.randint(1, 40))] for _ in range(5)]
        rows.append(in_memory(documents, masked and [[0] * len(ids) for ids in documents]).table)
    blocks = PackedBlocks(Tokens(concatenate_datasets([Dataset.from_list([row]) for row in rows])), 16, make_plan, EOS)
    labels = np.concatenate([block["labels"] for block in blocks])
    wanted = [*rows[0]["ids"], *[EOS] * 5, *rows[2]["ids"]]
    assert sorted(labels[labels != -100]) == sorted(wanted)
    assert count_targets(blocks) == len(wanted)


def test_a_held_out_token_has_half_a_window_before_it_or_all_there_is(random_documents, rng):
    for _ in range(100):
        documents, size = random_documents(), rng.randint(2, 24)
        blocks = PackedBlocks(in_memory(documents), size, plan_windows, EOS)
        texts = [[EOS, *ids, EOS] for ids in documents]
        for index in range(len(blocks)):
            for _, inputs, targets in pieces_of(blocks[index]):
                for place, target in enumerate(targets):
                    if target != -100:
                        seen = [*inputs[: place + 1], target]
                        assert any(
                            text[max(0, end - len(seen)) : end] == seen
                            and (len(seen) == end or len(seen) > (size - 1) // 2)
                            for text in texts
                            for end in range(2, len(text) + 1)
                        )


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_several_ranks_predict_each_token_once_in_an_epoch(ranks, rng):
    for number in range(30):
        documents, batch = [[rng.randint(1, 99)] * rng.randint(1, 9) for _ in range(rng.randint(1, 40))], 4
        blocks = PackedBlocks(in_memory(documents), 12, plan_documents, EOS)
        order = EpochOrder(blocks, batch * ranks, anew=number % 2 == 0)
        order.set_epoch(number)
        assert next(iter(order)) == (0 if number % 2 else (number + 1) * len(blocks))
        sampler, found, shares = BatchSampler(order, batch, drop_last=False), [], []
        for rank in range(ranks):
            batches = [[blocks[index] for index in own] for own in BatchSamplerShard(sampler, ranks, rank)]
            labels = [collate(own, 0)["labels"] for own in batches]
            assert all(len(own) == batch for own in labels)
            found += [label for own in labels for label in own[own != -100].tolist()]
            shares.append(len(batches))
        assert sorted(found) == sorted(index for ids in documents for index in [*ids, EOS])
        assert set(shares) == {-(-len(blocks) // (batch * ranks))}


def test_every_epoch_has_an_order_of_its_own_the_same_whenever_it_is_asked_for(rng):
    documents = [[rng.randint(1, 99) for _ in range(5)] for _ in range(60)]

    def read(blocks, epoch):
        order = EpochOrder(blocks)
        order.set_epoch(epoch)
        return [blocks[index]["input_ids"].tolist() for index in order]

    for make_plan in (plan_documents, plan_stream):
        first = [read(PackedBlocks(in_memory(documents), 16, make_plan, EOS, seed=1), epoch) for epoch in range(3)]
        blocks = PackedBlocks(in_memory(documents), 16, make_plan, EOS, seed=1)
        assert [read(blocks, epoch) for epoch in (2, 0, 1)] == [first[2], first[0], first[1]]
        assert first[0] != first[1] != first[2]
        assert sorted(map(len, first[0])) == sorted(map(len, first[1]))
        other = PackedBlocks(in_memory(documents), 16, make_plan, EOS, seed=2)
        assert read(other, 0) != first[0]


def test_of_two_epochs_only_one_plan_is_in_memory_at_a_time(rng):
    made = []

    def make_plan(*arguments):
        assert all(plan() is None for plan in made)
        plan = plan_documents(*arguments)
        made.append(weakref.ref(plan))
        return plan

    blocks = PackedBlocks(in_memory([[rng.randint(1, 99) for _ in range(5)] for _ in range(60)]), 16, make_plan, EOS)
    for index in (0, len(blocks), 2 * len(blocks), 1):
        blocks[index]
    assert len(made) == 4 and blocks.plan.pieces.dtype == blocks.plan.offsets.dtype == np.int32


@pytest.fixture
def documents(tmp_path, sample_texts):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(sample_texts[:20]), "utf-8")
    return corpus.read_corpus([path])


def test_packed_blocks_spell_the_corpus(documents, byte_tokenizer):
    blocks = pack(documents, byte_tokenizer, 64, plan_stream)
    ids = [token for index in range(len(blocks)) for token in blocks[index]["labels"].tolist()[1:]]
    assert byte_tokenizer.decode(ids).split("<|endoftext|>")[:-1] == documents["text"]
    assert count_targets(blocks) == len(ids)


def test_tokens_are_cached_for_the_same_text_and_tokenizer(documents, byte_tokenizer, sample_texts):
    def files(documents, tokenizer, size=64):
        return pack(documents, tokenizer, size, plan_stream).tokens.table.cache_files

    first = files(documents, byte_tokenizer)
    assert files(documents, byte_tokenizer) == files(documents, byte_tokenizer, 65) == first
    assert files(documents.select(range(19)), byte_tokenizer) != first
    assert files(documents, train_tokenizer(sample_texts[:5], 400, 32)) != first


def test_tokens_do_not_wait_in_memory_for_the_end_of_the_corpus(tmp_path, byte_tokenizer, monkeypatch):
    path, row, held = tmp_path / "a.txt", tokens._row, []
    path.write_text("\n\n".join("가나다라마바사아자차" * 40 + str(number) for number in range(400)), "utf-8")
    documents = corpus.read_corpus([path])
    monkeypatch.setattr(tokens, "BATCH", 10)
    monkeypatch.setattr(tokens, "ROW", 2**13)
    monkeypatch.setattr(tokens, "_row", lambda each: held.append(pyarrow.total_allocated_bytes()) or row(each))
    blocks = pack(documents, byte_tokenizer, 64, plan_stream)
    assert len(held) > 15 and max(held) - held[0] < 4 * blocks.targets / 5


@pytest.mark.parametrize("make_plan", [plan_documents, plan_stream])
def test_a_stream_of_documents_is_packed_as_a_table_is(make_plan, documents, byte_tokenizer):
    table = pack(documents, byte_tokenizer, 64, make_plan)
    stream = list(pack(documents.to_iterable_dataset(), byte_tokenizer, 64, make_plan))
    assert len(stream) == len(table)
    for index, block in enumerate(stream):
        for name, values in table[index].items():
            assert np.array_equal(values, block[name])


@pytest.mark.parametrize("make_plan", [plan_documents, plan_stream])
def test_a_stream_is_drawn_part_by_part_as_an_epoch_is(make_plan, documents, byte_tokenizer, monkeypatch):
    monkeypatch.setattr(tokens, "BATCH", 4)
    monkeypatch.setattr(tokens, "ROW", 1)  # five parts of four documents
    stream = pack(documents.to_iterable_dataset(), byte_tokenizer, 64, make_plan, seed=3)
    drawn, expected = list(stream), []
    for number in range(5):
        part = documents.select(range(4 * number, 4 * number + 4))
        blocks = pack(part, byte_tokenizer, 64, make_plan, seed=3 + number)
        expected += [blocks[index] for index in range(len(blocks), 2 * len(blocks))]
    for block, other in zip(drawn, expected, strict=True):
        assert all(np.array_equal(values, other[name]) for name, values in block.items())
    again = list(stream)
    assert all(np.array_equal(block["labels"], other["labels"]) for block, other in zip(drawn, again, strict=True))
    if make_plan is plan_documents:  # positions that no document is long enough for are learnt too
        assert any(block["position_ids"][0] for block in drawn)


def test_a_short_block_is_padded_on_the_right_and_its_padding_is_no_label(rng):
    rows = [[rng.randint(1, 99) for _ in range(length)] for length in (7, 3, 1)]
    names = "input_ids", "labels", "position_ids"
    batch = collate([dict.fromkeys(names, np.array(row)) for row in rows], pad_token_id=EOS)
    assert batch["position_ids"].tolist() == [row + [0] * (7 - len(row)) for row in rows]  # each a piece by itself
    for row, ids, labels in zip(rows, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        assert ids == row + [EOS] * (7 - len(row))
        assert labels == row + [-100] * (7 - len(row))
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64


def test_texts_are_packed_as_asked_or_as_the_model_reads_and_drawn_by_the_seed_of_the_data(
    small_corpus, byte_tokenizer
):
    documents = corpus.read_corpus([small_corpus])
    texts = corpus.Texts(train=documents, held_out=documents)

    def packed(apart=True, packing=None, block_size=None, **more):
        options = SimpleNamespace(block_size=block_size, packing=packing, train_on_prompt=False)
        asked = {"seed": 3, "data_seed": None, "train_sampling_strategy": "random", **more}
        return pack_texts(texts, byte_tokenizer, 16, apart, options, SimpleNamespace(**asked))

    assert packed().packing == "documents" and "position_ids" in packed().train[0]
    for stream in (packed(apart=False), packed(packing="stream")):
        assert stream.packing == "stream" and "position_ids" not in stream.train[0]
    # What is held out is read document by document, by one in a block each where the model does not keep them apart.
    assert ["position_ids" in each.held_out[0] for each in (packed(packing="stream"), packed(apart=False))] == [
        True,
        False,
    ]
    with pytest.raises(UsageError, match="--packing=documents"):
        packed(apart=False, packing="documents")
    drawn = packed(block_size=8).train  # of a small block some pieces stand anywhere in the model's context
    assert 8 < max(drawn[len(drawn) + index]["position_ids"].max() for index in range(len(drawn))) <= 16
    seeds = [packed(**more).train.seed for more in ({}, {"data_seed": 7}, {"train_sampling_strategy": "sequential"})]
    assert seeds == [3, 7, 0]
