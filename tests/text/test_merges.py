"""Tokens taken apart at random say what they said, as often as the merges that made them are left out."""

import json
import shutil
from collections import Counter
from functools import partial
from itertools import groupby

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from gpt2_korean.messages import UsageError
from gpt2_korean.text.assemble import assemble
from gpt2_korean.text.blocks import PackedBlocks
from gpt2_korean.text.merges import Merges, merged_pairs
from gpt2_korean.text.packing import plan_documents, plan_stream
from gpt2_korean.text.tokens import Buffer


def numbers(rng):
    return np.random.default_rng(rng.getrandbits(32))


def spelled(ids, tokenizer):
    return "".join(tokenizer.convert_ids_to_tokens(ids.tolist()))


@pytest.mark.parametrize("dropout", [0.05, 0.5, 0.99])
def test_each_token_becomes_others_that_are_spelled_as_it_is(dropout, byte_tokenizer, sample_texts, rng):
    merges, end = Merges(byte_tokenizer, dropout), byte_tokenizer.eos_token_id
    for text in rng.sample(sample_texts, 20):
        ids = np.array([*byte_tokenizer.encode(text), end], np.int32)
        for most in (len(ids), len(ids) + rng.randint(1, 9), 10**6):
            apart, places = merges.undo(ids, most, numbers(rng))
            own = [[index for index, _ in group] for _, group in groupby(enumerate(places), key=lambda pair: pair[1])]
            assert [spelled(apart[each], byte_tokenizer) for each in own] == [
                spelled(ids[[place]], byte_tokenizer) for place in range(len(ids))
            ]
            assert len(apart) <= most and apart[-1] == end


def test_a_token_stays_whole_where_none_of_its_merges_is_left_out(byte_tokenizer):
    pairs = merged_pairs(byte_tokenizer)

    def merges_of(token):
        return 1 + sum(map(merges_of, pairs[token])) if token in pairs else 0

    merges, copies = Merges(byte_tokenizer, 0.1), 20_000
    tokens = {merges_of(token): token for token in pairs}  # one of each number of merges
    assert max(tokens) > 3
    for number, token in tokens.items():
        apart, places = merges.undo(np.full(copies, token, np.int32), 10**9, np.random.default_rng(token))
        whole = (np.bincount(places) == 1).mean()
        assert whole == pytest.approx(0.9**number, abs=0.015)  # more than four times what chance makes of it
        assert len(apart) / copies == pytest.approx(merges.growth([np.array([token])]), rel=0.02)


@pytest.mark.parametrize("make_plan", [partial(plan_documents, reach=90), plan_stream])
@pytest.mark.parametrize("learns_all", [True, False])
def test_blocks_teach_all_of_the_text_whatever_becomes_of_its_tokens(
    make_plan, learns_all, byte_tokenizer, sample_texts, rng
):
    end, merges = byte_tokenizer.eos_token_id, Merges(byte_tokenizer, 0.2)
    documents = [[*byte_tokenizer.encode(text), end] for text in rng.sample(sample_texts, 15)]
    ids = np.concatenate(documents).astype(np.int32)
    learnt = np.empty(0, np.int8) if learns_all else numbers(rng).integers(0, 2, len(ids)).astype(np.int8)
    row = {"ids": ids, "lengths": np.array(list(map(len, documents)), np.int32), "learnt": learnt}
    wanted = Counter(spelled(ids if learns_all else ids[learnt == 1], byte_tokenizer))
    size, seed = rng.choice([9, 40, 80]), rng.getrandbits(16)
    blocks, again = (PackedBlocks(Buffer(row), size, make_plan, end, seed, merges) for _ in range(2))
    epochs = []
    for epoch in range(3):
        found = [blocks[epoch * len(blocks) + number] for number in range(len(blocks))]
        labels = np.concatenate([block["labels"] for block in found])
        assert Counter(spelled(labels[labels >= 0], byte_tokenizer)) == wanted
        assert all(len(block["input_ids"]) == len(block["labels"]) <= size for block in found)
        for block in found if "position_ids" in found[0] else ():
            positions = block["position_ids"]
            assert positions.min() >= 0 and positions.max() <= 90
            goes_on = np.diff(positions)[:-1] == 1  # within a piece what has been learnt is read next
            assert not learns_all or (block["input_ids"][1:-1] == block["labels"][1:-1])[goes_on].all()
        epochs.append(labels.tolist())
        same = again[(epoch + 1) * len(blocks) - 1]
        assert all((same[name] == values).all() for name, values in found[-1].items())
    assert epochs[1] != epochs[2] and blocks.targets == pytest.approx((labels >= 0).sum(), rel=0.15)


def test_a_piece_that_has_grown_back_to_where_the_one_before_it_ends_is_no_part_of_it():
    tokens = Buffer({"ids": np.array([1, 2, 3, 4], np.int32), "lengths": np.array([2, 2]), "learnt": np.empty(0)})
    pieces = np.array([[0, 0, 0, 2], [1, 0, 0, 2]])

    def undo(ids):
        return np.array([1, 2, 3, 5, 6]), np.array([0, 1, 2, 3, 3])  # the last token is two

    for offset, positions in ((3, [0, 1, 0, 1, 2, 3]), (4, [0, 1, 3, 4, 5, 6])):
        block = assemble(tokens, pieces, np.array([0, offset]), 0, undo)
        assert block["position_ids"].tolist() == positions and block["labels"].tolist() == [-100, 1, 2, 3, 5, 6]


def test_a_run_goes_on_with_the_merges_that_it_leaves_out(train_words, tmp_path, run_main):
    run = ["train.py", *train_words, "--do_train", "--report_to=none", "--max_steps=6", "--save_steps=3"]
    run += ["--logging_steps=1", "--per_device_train_batch_size=4"]

    def losses(*words):
        code, _, err = run_main(*run, *words)
        assert code == 0, err
        log = json.loads((tmp_path / "out/checkpoint-6/trainer_state.json").read_text())["log_history"]
        return [entry["loss"] for entry in log if "loss" in entry], err

    plain, _ = losses()
    apart, err = losses("--bpe_dropout=0.2", "--overwrite_output_dir")
    assert "--bpe_dropout=0.2: " in err and apart != plain
    shutil.rmtree(tmp_path / "out/checkpoint-6")
    code, _, err = run_main(*run, "--resume_from_checkpoint=auto", "--bpe_dropout=0.1")
    assert code == 1 and "--bpe_dropout: 체크포인트는 0.2, 지금은 0.1" in err
    assert losses("--resume_from_checkpoint=auto")[0] == pytest.approx(apart)


def test_what_has_no_merges_has_none_to_leave_out(train_words, run_main):
    words = Tokenizer(models.WordLevel({"가": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(UsageError, match=r"--bpe_dropout=0\.1: .*토크나이저"):
        Merges(PreTrainedTokenizerFast(tokenizer_object=words), 0.1)
    stream = ["--dataset_name=a/b", "--streaming", "--max_steps=3", "--do_train", "--bpe_dropout=0.1"]
    code, _, err = run_main("train.py", *stream)
    assert code == 2 and "--bpe_dropout" in err and "--streaming" in err


def test_merges_are_those_of_gpt2s_kind_whose_tokens_are_spelled_as_their_parts(tmp_path):
    """Not of those that mark the middle or the end of a word; in a file of older tokenizers a merge is one string."""
    for mark, parts in ((None, ("가", "나")), ("continuing_subword_prefix", ("가", "##나")),
                        ("end_of_word_suffix", ("가", "나##"))):  # fmt: skip
        whole = "가나##" if mark == "end_of_word_suffix" else "가나"
        marks = {mark: "##"} if mark else {}
        made = Tokenizer(models.BPE({parts[0]: 0, parts[1]: 1, whole: 2}, [parts], **marks))
        told = json.loads(made.to_str())
        told["model"]["merges"] = [" ".join(parts)]
        (tmp_path / "tokenizer.json").write_text(json.dumps(told), "utf-8")
        read = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
        assert merged_pairs(read) == ({} if mark else {2: (0, 1)})
