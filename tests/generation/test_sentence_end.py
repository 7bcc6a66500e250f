"""A text ends with a sentence, wherever a reader of Korean would say that one ends; nothing shown is taken back."""

import json

import pytest

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation import sentence_end, write
from gpt2_korean.generation.batch_size import MOST_ON_CPU
from gpt2_korean.generation.commands import Turn
from gpt2_korean.generation.load import load
from gpt2_korean.generation.output import Output
from gpt2_korean.generation.sentence_end import SentenceStream, sentence_ends
from gpt2_korean.generation.terminal import write_turn
from gpt2_korean.generation.text_stream import TextStream
from gpt2_korean.server.events import Asked, Page, Row, write_rows, write_text
from gpt2_korean.server.openai_answers import REASONS


def sentences(text, whole=True):
    """The text cut at each of its ends; what follows the last one is left out."""
    ends = list(sentence_ends(text, whole))
    return [text[start:end].strip() for start, end in zip([0, *ends], ends, strict=False)]


# Each with `|` where a sentence ends.
MARKED = [
    "준길은 안으로 들어섰다.| 간호부 한 사람뿐이다.| 그러나",
    "「빨리 이 방을 나가시요!| 당신은 권리가 없소!」|\n간호부장은 앞을 막았다.| 그",
    "“가자.”| 그가 말했다.| “어디로?”|\n",
    "“가자.”라고 그가 말했다.| 그리고 ‘안 돼!’라며 막았다.|",
    "그는 (웃으며 말했다.)| 고개를 들었다.|",
    "값은 3.5배가 되었다.| 2026. 5. 1. 서울에서 만났다.| 1. 서론 2. 본론",
    "목록\n|가. 첫째 항목을 본다.|\n나. 둘째|\n",
    "A. B. Kim과 Mr. Park이 왔다.| i.e. 그랬다.| It was over.| Yes",
    "그런데... 나는… 모르겠다.| 정말 재밌게 봤어요...| 근데 결말이 아쉬워요~| 다시 볼 듯",
    "“그게….”| 그는 말을 흐렸다.|",
    "진짜 재밌어요.또 보고 싶다.그래도 3.5점.|",
    "좋죠.다시 봤다.[1] 그러나 “좋다.”라고 한다…그런데 예시.한국은 없다.|",
    "뭐?!| 정말이야?…| 그래!!!| 좋다。그렇다！| 끝",
    "스토리도 연기도 최고\n|한 번 더 볼 예정ㅋㅋㅋ\n|\n아쉽다",
    "비가 오고, \n눈이 오고，\n산、\n바람이 분다.|\n산,\n",
    "example.com에서 v1.2를 받는다.| 끝",
    "점수는 10~20점 사이이다.| 끝",
    "구두점이 하나도 없는 글은 그대로 둔다",
    "\n\n  첫 줄|\n",
    "",
]


@pytest.mark.parametrize("marked", MARKED)
def test_sentences_end_where_a_reader_says_so(marked):
    # What stands without a blank behind 다. and 요. is marked apart, so that the examples stay readable.
    for joined in ("요.또", "다.그래", "다。그", "죠.다"):
        marked = marked.replace(joined, f"{joined[:2]}|{joined[2:]}")
    expected = [part.strip() for part in marked.split("|")[:-1]]
    assert sentences(marked.replace("|", "")) == expected


def test_what_stands_at_the_very_end_ends_only_where_nothing_follows():
    for text in ("갔다.", "갔다.”", "정말?", "값은 3."):
        assert sentences(text, whole=False) == []
    assert sentences("갔다.”") == ["갔다.”"] and sentences("값은 3.") == []


def test_ends_that_were_found_stand_whatever_follows(rng):
    letters = '가다요 .…!?~"”3A\n'
    for _ in range(500):
        text = "".join(rng.choice(letters) for _ in range(rng.randint(0, 40)))
        place = rng.randint(0, len(text))
        ends, before = list(sentence_ends(text, whole=True)), list(sentence_ends(text[:place], whole=False))
        assert ends[: len(before)] == before and ends == sorted(set(ends)) and 0 not in ends
        assert all(text[:end].strip() for end in ends)


def pieces(tokenizer, text, length, most, sizes, stops=()):
    """What a SentenceStream shows of a text's tokens, `most` of them at most, `sizes` at a time."""
    stream = SentenceStream(TextStream(tokenizer, [1], stops), length, most)
    ids, shown = tokenizer(text)["input_ids"][:most], []
    while ids and not stream.ended:
        size = next(sizes)
        shown.append(stream.push(ids[:size]))
        ids = ids[size:]
    return [*shown, stream.close()]


def endless(number):
    while True:
        yield number


def test_a_text_is_finished_or_cut_back_and_stays_where_it_has_no_end(byte_tokenizer):
    def write(text, length, most=None, **more):
        length, most = (count(byte_tokenizer, text, part) for part in (length, most or text))
        return "".join(pieces(byte_tokenizer, text, length, most, endless(1), **more))

    text = "첫 문장이다. 둘째 문장이다. 셋째 문장이다. 넷째는 안 끝나고"
    assert write(text, "첫 문장") == "첫 문장이다."
    assert write(text, "첫 문장이다.") == "첫 문장이다."
    assert write(text, "첫 문장이다. 둘") == "첫 문장이다. 둘째 문장이다."
    assert write(text, text[:-4], text) == "첫 문장이다. 둘째 문장이다. 셋째 문장이다."
    assert write(text, "첫 문장이다. 둘", "첫 문장이다. 둘째 문장이다.") == "첫 문장이다. 둘째 문장이다."
    assert write("끝이 없는 글이 이어지고 이어지고", "끝이 없는", None) == "끝이 없는"
    assert write("한 줄 리뷰\n또 한 줄", "한 줄") == "한 줄 리뷰"


def count(tokenizer, text, part):
    """How many tokens of `text` write `part`."""
    ids = tokenizer(text)["input_ids"]
    return next(number for number in range(len(ids) + 1) if tokenizer.decode(ids[:number]).startswith(part))


def test_what_the_model_or_a_stop_text_ends_is_shown_whole(byte_tokenizer):
    text = "끝난 문장이다. 이름 모를 꽃"
    cases = [((), text), (("모를",), "끝난 문장이다. 이름 "), (("이름",), "끝난 문장이다. "), (("꽃이다",), text)]
    for stops, whole in cases:
        for length in range(count(byte_tokenizer, text, whole) + 5, 60):  # what comes at once may be more than it
            assert "".join(pieces(byte_tokenizer, text, length, 2 * length, endless(99), stops)) == whole
    stream = SentenceStream(TextStream(byte_tokenizer, [1], ["꽃", "모를"]), 99, 99)
    stream.push(byte_tokenizer(text)["input_ids"])
    assert (stream.ended, stream.stop) == ("stop", "모를")


def test_it_does_not_matter_how_many_tokens_come_at_once_and_no_unfinished_sentence_is_shown(
    byte_tokenizer, sample_texts, rng
):
    for text in [*rng.sample(sample_texts, 60), *(marked.replace("|", "") for marked in MARKED if marked)]:
        text = text[: rng.randint(20, 200)]
        ids = byte_tokenizer(text)["input_ids"]
        length = rng.randint(1, len(ids))
        most, stops = rng.choice([len(ids), 2 * length]), rng.choice([(), ("습니다",), (text[-9:-7],)])
        one = "".join(pieces(byte_tokenizer, text, length, most, endless(1), stops))
        sizes = iter(lambda: rng.randint(1, 9), 0)
        *shown, last = pieces(byte_tokenizer, text, length, most, sizes, stops)
        assert "".join([*shown, last]) == one and text.startswith(one)
        known = ""
        for piece in shown[:-1]:
            known += piece
            assert known == "" or len(known) in sentence_ends(text, whole=True) or piece == ""


@pytest.mark.parametrize(
    ("text", "length", "stop", "ended"),
    [
        ("이름 모를 꽃", "이름 모", "없는 글", "end"),
        ("이름 모를 꽃", "이름 모", "꽃", "stop"),
        ("이름 모를 꽃", "이름 모를 꽃", "꽃", "stop"),
        ("꽃이다. 이름 모를", "꽃이다", "없는 글", "sentence"),
        ("꽃이다. 이름 모를 꽃", "꽃이다. 이름", "모를", "stop"),
        ("이름 모를 꽃" + "이 피고" * 9, "이름 모를 꽃", "없는 글", "length"),
    ],
)
def test_all_who_ask_know_a_text_that_ended_by_itself_however_long_it_is(
    monkeypatch, byte_tokenizer, tiny_model_folder, text, length, stop, ended
):
    def stream_ids(_, __, length, *more):
        yield from ([[index]] for index in byte_tokenizer(text)["input_ids"][: 2 * length])

    monkeypatch.setattr(write, "stream_ids", stream_ids)
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--end_at_sentence", f"--stop={stop}"]
    options = parse_generate_options([*words, f"--length={count(byte_tokenizer, text, length)}"])
    model, settled = load(tiny_model_folder, options.model)
    out = Output(None, False, options.prompts, settled)
    page, by_itself = Page(model, options, ""), ended in ("end", "stop")
    assert write_turn(model, out, [], Turn("가"), options.settings, 1).ended == by_itself
    *_, last = write_text(page, Asked("가", [], options.settings, 1))
    assert last == {"ended": by_itself}
    *_, [last] = write_rows(page, [Row("가", 1, options.settings, 1, 0, None, None)])
    assert last["ended"] == ended and REASONS[ended] == ("length" if ended == "length" else "stop")


def test_the_same_text_is_streamed_written_in_a_batch_and_recorded(run_main, tiny_model_folder, tmp_path):
    file = tmp_path / "글.jsonl"
    words = [f"--model_name_or_path={tiny_model_folder}", "--prompt=오늘은", "--device=cpu", "--dtype=float32"]
    words += ["--length=40", "--end_at_sentence", "--seed=2", "--top_k=0", "--dry_multiplier=0.8", "--min_p=0.01"]
    shown = [
        run_main("generate.py", *words, f"--output_file={file}", more)[:2] for more in ("--stream", "--stream=false")
    ]
    assert shown[0] == shown[1] and shown[0][0] == 0
    streamed, batched = map(json.loads, file.read_text("utf-8").splitlines())
    sizes = [record["settings"].pop("batch_size") for record in (streamed, batched)]
    assert sizes == [1, MOST_ON_CPU]  # what is streamed is written by itself
    assert streamed == batched and shown[0][1] == streamed["text"] + "\n"
    new = streamed["text"].removeprefix("오늘은")
    assert not list(sentence_ends(new, whole=True)) or len(new) in sentence_ends(new, whole=True)
    settings = streamed["settings"]
    assert (
        settings["end_at_sentence"]
        and settings["dry_multiplier"] == 0.8
        and settings["dry_sequence_breaker"][0] == "\n"
    )


def test_a_long_text_is_not_looked_through_anew_with_each_of_its_tokens(monkeypatch, byte_tokenizer):
    looked_at = []

    class Counted:
        def finditer(self, text, start=0):
            looked_at.append(len(text) - start)
            return marks.finditer(text, start)

    marks = sentence_end.MARKS
    monkeypatch.setattr(sentence_end, "MARKS", Counted())
    sentence = "한 문장이다. "
    text = 50 * sentence
    assert "".join(pieces(byte_tokenizer, text, 10_000, 20_000, endless(1))) == text
    assert max(looked_at) <= 2 * len(sentence)
