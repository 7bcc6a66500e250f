"""train.py --do_eval alone: numbers by which two models can be compared, whatever their tokenizers."""

import itertools
import json
from collections import Counter
from types import SimpleNamespace

import pytest
from conftest import tiny_gpt2

from gpt2_korean.training import samples
from gpt2_korean.training.diversity import cut_stretches, distinct, measure, repetition


def test_distinct_and_repetition_are_as_counted_by_hand(rng):
    for _ in range(50):
        texts = ["".join(rng.choices("가나다 라", k=rng.randint(8, 40))) for _ in range(rng.randint(1, 6))]
        for n in (1, 2, 3, 8):
            counted = Counter()
            shares = []
            for text in texts:
                before, again = set(), 0
                for ngram in zip(*(text[offset:] for offset in range(n)), strict=False):
                    counted[ngram] += 1
                    again += ngram in before
                    before.add(ngram)
                shares.append(again / (len(text) - n + 1))
            assert distinct(texts, n) == pytest.approx(len(counted) / counted.total())
            assert repetition(texts, n) == pytest.approx(sum(shares) / len(shares))


def test_a_model_in_a_loop_is_told_from_one_that_is_not(rng):
    loop = measure(["좋아요 좋아요 " * 12] * 9)
    other = measure(["".join(rng.choices([chr(0xAC00 + code) for code in range(999)], k=96)) for _ in range(9)])
    assert loop["repetition_8"] > 0.9 > 0.1 > other["repetition_8"]
    assert all(loop[f"distinct_{n}"] < 0.1 < other[f"distinct_{n}"] for n in (1, 2, 3))


def test_people_s_texts_are_cut_as_long_as_the_model_s_without_overlap(sample_texts):
    stretches = cut_stretches(sample_texts, 30, 50)
    whole = "\n".join(sample_texts)
    assert len(stretches) == 30 and {len(stretch) for stretch in stretches} == {50}
    places = [whole.index(stretch) for stretch in stretches]
    assert all(after - before >= 50 for before, after in itertools.pairwise(places))
    assert places[-1] > len(whole) * 0.9
    assert cut_stretches(["가" * 99], 2, 50) is None
    assert cut_stretches(["가가나나다다라라마마바바사"], 4, 2) == ["가가", "나나", "라라", "마마"]


@pytest.fixture
def writes(byte_tokenizer, monkeypatch):
    """Have a model write given ids, chunk after chunk; returns the model, and how each of its texts began."""
    begun, end = [], byte_tokenizer.eos_token_id

    def arrange(*chunks, encode=None):
        def stream(decoder, starts, *_):
            begun.append(starts)
            for ids in chunks:
                assert ids is not None  # more than is wanted
                yield [ids] * len(starts)

        monkeypatch.setattr(samples, "stream_ids", stream)
        chat = SimpleNamespace(encode=encode, end=end)
        loaded = SimpleNamespace(decoder=None, utf8=None, eos_token_id=end, tokenizer=byte_tokenizer, chat=chat)
        return loaded, begun

    return arrange


def test_the_model_s_documents_stand_in_lines_and_a_character_under_way_in_none(byte_tokenizer, writes):
    def ids(text):
        return byte_tokenizer.encode(text, add_special_tokens=False)

    end, begun = byte_tokenizer.eos_token_id, ids("뷁")
    assert len(begun) > 1
    loaded, starts = writes([*ids("가나다"), end], [*ids("라마"), begun[0]], [*begun[1:], *ids("바사")], None)
    told = list(samples.write_stretches(loaded, 2, 8))
    assert told == [[text] * 2 for text in ("가나다\n", "가나다\n라마", "가나다\n라마뷁바")]
    assert starts == [[[end], [end]]]


def test_a_chat_model_s_answers_stand_in_lines_and_each_question_is_asked_in_its_turn(byte_tokenizer, writes):
    asked, talks = [], [[{"content": f"질문 {n}"}, {"content": "사람의 답"}] for n in range(3)]
    halves = [byte_tokenizer.encode(text, add_special_tokens=False) for text in (" 네,", " 네 ")]
    loaded, starts = writes(*halves, encode=lambda turns: asked.append(turns) or [1])
    *_, texts = samples.write_answers(loaded, talks, 2, 7)
    assert texts == ["네, 네\n네,"] * 2 and starts == [[[1], [1]]] * 2
    assert asked == [talks[number][:1] for number in (0, 1, 2, 0)]


@pytest.mark.parametrize("context", [32, 256])
def test_the_model_s_stretches_are_just_as_long_whole_characters_and_the_same_each_time(byte_tokenizer, context):
    model = tiny_gpt2(len(byte_tokenizer), n_positions=context)

    def write():
        with samples.writing(model, byte_tokenizer) as loaded:
            return list(samples.write_stretches(loaded, 7, 45))[-1]

    texts = write()
    assert [len(text) for text in texts] == [45] * 7 and not any("\ufffd" in text for text in texts)
    assert write() == texts and len(set(texts)) == 7


@pytest.mark.usefixtures("brief_texts")
def test_evaluation_alone_ends_with_json_and_is_the_same_each_time(tiny_model_folder, small_corpus, tmp_path, run_main):
    run = [
        "train.py", "--do_eval", f"--validation_file={small_corpus}", f"--model_type={tiny_model_folder}",
        "--device=cpu", "--report_to=none", f"--output_dir={tmp_path / 'none'}",
    ]  # fmt: skip
    code, out, err = run_main(*run)
    assert code == 0, err
    values = json.loads(out.splitlines()[-1])
    measures = {"distinct_1", "distinct_2", "distinct_3", "repetition_8"}
    assert measures < values.keys() and values["held_out"].keys() == measures
    for name in measures:
        shown = f"{values[name]:.4f}", f"{values['held_out'][name]:.4f}"
        assert any(line.split()[1:] == list(shown) for line in out.splitlines()), name
    assert values["perplexity_per_character"] == pytest.approx(2 ** values["bits_per_character"])
    assert run_main(*run, "--per_device_eval_batch_size=3")[1].splitlines()[5:9] == out.splitlines()[5:9]


def test_of_too_little_text_by_people_only_the_model_is_measured(tiny_model_folder, small_corpus, tmp_path, run_main):
    small_corpus.write_text("짧은 글이다.", "utf-8")
    run = [
        "train.py", "--do_eval", f"--validation_file={small_corpus}", f"--model_type={tiny_model_folder}",
        "--device=cpu", "--report_to=none", f"--output_dir={tmp_path / 'none'}",
    ]  # fmt: skip
    _, out, err = run_main(*run)
    assert json.loads(out.splitlines()[-1])["held_out"] is None and "평가 글" not in out
    assert "10,000자가 되지 않아" in err
    _, out, err = run_main(*run, "--no_measure_texts")
    assert "held_out" not in json.loads(out.splitlines()[-1]) and "distinct" not in out and "10,000자" not in err
