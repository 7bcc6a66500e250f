"""Text comes in whole characters as its tokens do, adds up to what the tokenizer writes, and ends at a stop text."""

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.generation.load import load
from gpt2_korean.generation.text_stream import TextStream
from gpt2_korean.generation.write import encode, stream_pieces


def cut(ids, rng):
    """The ids in a few chunks, some of them empty."""
    places = sorted(rng.randrange(len(ids) + 1) for _ in range(rng.randint(0, 6)))
    return [ids[a:b] for a, b in zip([0, *places], [*places, len(ids)], strict=True)]


def pieces(stream, chunks):
    return [stream.push(chunk) for chunk in chunks] + [stream.close()]


@pytest.fixture(params=["transformers", "tokenizers"])
def tokenizer(request, byte_tokenizer):
    return byte_tokenizer if request.param == "transformers" else byte_tokenizer.backend_tokenizer


def test_pieces_add_up_to_the_text_and_never_show_half_a_character(tokenizer, byte_tokenizer, sample_texts, rng):
    for text in rng.sample(sample_texts, 30):
        text = text[:120] + "😀 뷁 한"
        ids = byte_tokenizer(text)["input_ids"]
        middle = rng.randrange(1, len(ids))
        shown = pieces(TextStream(tokenizer, ids[:middle]), cut(ids[middle:], rng))
        prompt = byte_tokenizer.decode(ids[:middle])
        if not prompt.endswith("\ufffd"):  # prompts are texts, so they end on a character
            assert prompt + "".join(shown) == text
        assert not any("\ufffd" in piece for piece in shown)


def test_syllables_are_shown_as_soon_as_they_are_whole(byte_tokenizer):
    text = "가나다라마바사아자차카타파하" * 3
    stream, ids = TextStream(byte_tokenizer, byte_tokenizer("한")["input_ids"]), byte_tokenizer(text)["input_ids"]
    known = expected = ""
    for number, index in enumerate(ids, 1):
        known += stream.push([index])
        written = byte_tokenizer.decode(ids[:number])
        expected = expected if written.endswith("\ufffd") else written
        assert known == expected


def test_a_cut_character_is_left_out_at_the_end(byte_tokenizer):
    ids = byte_tokenizer("가뷁")["input_ids"]
    shown = pieces(TextStream(byte_tokenizer, byte_tokenizer("나")["input_ids"]), [ids[:-1]])
    assert "".join(shown) == "가"


def test_a_text_ends_before_its_first_stop(tokenizer, byte_tokenizer, sample_texts, rng):
    for text in rng.sample(sample_texts, 60):
        text = text[:80]
        starts = rng.sample(range(len(text)), rng.randint(1, 3))
        stops = ["없는 글", *(text[start : start + rng.randint(1, 4)] for start in starts)]
        _, place, first = min((text.find(stop) + len(stop), text.find(stop), stop) for stop in stops if stop in text)
        stream = TextStream(tokenizer, byte_tokenizer("가")["input_ids"], stops)
        shown = pieces(stream, cut(byte_tokenizer(text)["input_ids"], rng))
        assert "".join(shown) == text[:place]
        assert (stream.ended, stream.stop) == ("stop", first)


def test_it_does_not_matter_how_many_tokens_come_at_once_where_a_stop_stands_in_another(byte_tokenizer):
    for size in range(1, 30):
        stream, ids = (
            TextStream(byte_tokenizer, [1], ["는 아역들", "아역"]),
            byte_tokenizer("나오는 아역들이")["input_ids"],
        )
        assert "".join(pieces(stream, [ids[at : at + size] for at in range(0, len(ids), size)])) == "나오는 "


def test_what_only_began_like_a_stop_is_shown_after_all(byte_tokenizer):
    stream = TextStream(byte_tokenizer, byte_tokenizer("가")["input_ids"], ["끝이다"])
    shown = [stream.push(byte_tokenizer(text)["input_ids"]) for text in ("이제 끝이", "네 끝")] + [stream.close()]
    assert shown == ["이제 ", "끝이네 ", "끝"] and stream.close() == ""


def test_a_stop_is_found_though_another_could_begin_within_it_and_the_text_with_it(byte_tokenizer):
    for text, shown in (("끝이다", ""), ("더는 끝이다", "더는 ")):
        for stops in (["끝이다", "이다음"], ["이다음", "끝이다"]):
            stream = TextStream(byte_tokenizer, byte_tokenizer("가")["input_ids"], stops)
            ids = byte_tokenizer(text)["input_ids"]
            assert "".join(pieces(stream, [[index] for index in ids])) == shown and stream.ended == "stop"


def test_a_stop_is_held_against_what_stands_there_alone_however_long_it_is(byte_tokenizer):
    class Stop(str):
        looks = 0

        def __getitem__(self, place):
            Stop.looks += 1
            return super().__getitem__(place)

    stream = TextStream(byte_tokenizer, byte_tokenizer("가")["input_ids"], [Stop("나" * 1000)])
    shown = "".join(pieces(stream, [[index] for index in byte_tokenizer("라나나다")["input_ids"]]))
    assert shown == "라나나다" and Stop.looks < 100


def test_what_a_text_may_begin_with_is_left_out_of_its_beginning_alone(byte_tokenizer):
    ids = [byte_tokenizer.eos_token_id, *byte_tokenizer(" 뷁 가")["input_ids"]]
    for chunks in ([ids], [[index] for index in ids]):
        assert "".join(pieces(TextStream(byte_tokenizer, [1], lead=" "), chunks)) == "뷁 가"


def test_no_space_is_lost_behind_a_token_that_is_not_shown():
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "▁나": 1, "▁너": 2}, unk_token="<unk>"))
    backend.decoder = decoders.Metaspace()  # as of Llama and Gemma: what stands first loses its space
    backend.add_special_tokens(["<unk>"])
    for tokenizer in (backend, PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")):
        for ids in ([1, 0, 2], [0, 0, 2, 1], [1, 0, 0, 1, 0, 2]):
            shown = "나" + "".join(pieces(TextStream(tokenizer, [1]), [[index] for index in ids]))
            assert shown == backend.decode([1, *ids])


def test_what_the_model_will_forget_or_leaves_out_of_a_text_is_told_before_it_and_nothing_else(tiny_model_folder):
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--dtype=float32"]
    model, _ = load(tiny_model_folder, parse_generate_options(words).model)
    room = model.decoder.context - len(encode(model, "오늘은")) + 1  # the last token is read no more
    for prompt, length, part in (("오늘은", room, None), ("오늘은", room + 1, "잊으며"), ("오늘은" * 200, 2, "빼고")):
        told = []
        settings = parse_generate_options([*words, f"--length={length}"]).settings
        stream_pieces(model, ["가", prompt], settings, 1, told.append)
        assert (told == []) if part is None else part in "".join(told)
