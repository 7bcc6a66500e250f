"""A template around each prompt, and a conversation's earlier turns before it, the oldest forgotten first."""

import json

import pytest

from gpt2_korean.cli import generate_checks
from gpt2_korean.cli.generate_options import parse_generate_options, to_words
from gpt2_korean.messages import UsageError
from gpt2_korean.text.conversations import fill, put_after_turns

TEMPLATE = "질문: {prompt}\n답변:"


def test_the_oldest_turns_are_forgotten_where_the_text_grows_too_long():
    turns, last = [("하나", " 첫째"), ("둘", " 둘째"), ("셋", " 셋째")], fill(TEMPLATE, "넷")
    whole = "질문: 하나\n답변: 첫째\n질문: 둘\n답변: 둘째\n질문: 셋\n답변: 셋째\n질문: 넷\n답변:"
    places = [0, *(place for place in range(1, len(whole)) if whole.startswith("\n질문", place - 1))]
    for room in range(len(last), len(whole) + 1):
        text = put_after_turns(TEMPLATE, turns, last, lambda text, room=room: len(text) <= room)
        assert text == next(whole[place:] for place in places if len(whole) - place <= room)
    assert put_after_turns(TEMPLATE, turns, last, lambda text: False) == last


def test_without_a_template_each_prompt_stands_by_itself():
    assert fill(None, "가") == "가"
    assert put_after_turns(None, [("나", "다")], "가", lambda text: True) == "가"


@pytest.mark.parametrize("word", ["질문:", "질문: {Q}", ""])
def test_a_template_without_a_place_for_the_prompt_is_refused(word):
    with pytest.raises(UsageError, match="--prompt_template"):
        parse_generate_options(["--model_name_or_path=x", f"--prompt_template={word}"])


def test_a_templated_prompt_is_that_of_the_same_text_and_only_its_answer_is_shown(
    run_main, tiny_model_folder, tmp_path
):
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--length=8", "--seed=1", "--stop=."]
    _, plain, _ = run_main("generate.py", *words, "--prompt=질문: 가나\n답변:")
    expected = plain.removeprefix("질문: 가나\n답변:").lstrip()
    kept = tmp_path / "out.jsonl"
    file = tmp_path / "prompts.txt"
    file.write_text("가나\n", "utf-8")
    for prompt in ("--prompt=가나", f"--prompt_file={file}"):
        template = r"--prompt_template=질문: {prompt}\n답변:"
        code, out, _ = run_main("generate.py", *words, prompt, template, f"--output_file={kept}")
        assert (code, out) == (0, expected)
    record = json.loads(kept.read_text("utf-8").splitlines()[0])
    assert record["prompt"] == "가나" and record["settings"]["prompt_template"] == TEMPLATE
    assert record["text"] == expected.strip()


def test_a_conversation_goes_on_from_its_earlier_turns(run_main, tiny_model_folder, pipe):
    """With greedy answers the second one is that of the whole text so far, given as one prompt."""
    words = [f"--model_name_or_path={tiny_model_folder}", "--device=cpu", "--length=4", "--temperature=0"]
    pipe("가", "나", "/new", "나")
    code, out, err = run_main("generate.py", *words, "--interactive", r"--prompt_template=Q{prompt}A")
    assert code == 0 and "새로 시작" in err

    def answer(prompt):
        return run_main("generate.py", *words, f"--prompt={prompt}")[1].removeprefix(prompt).removesuffix("\n")

    first, forgetful = answer("Q가A"), answer("Q나A")
    second = answer(f"Q가A{first}\nQ나A")
    assert out == "".join(f"{text.lstrip()}\n" for text in (first, second, forgetful)) and second != forgetful


def test_a_conversation_has_one_answer_at_a_time():
    words = ["--model_name_or_path=x", "--interactive", "--num_return_sequences=2"]
    parse_generate_options(words)
    with pytest.raises(UsageError, match="--num_return_sequences"):
        parse_generate_options([*words, "--prompt_template={prompt}"])


def test_words_made_of_options_give_the_same_options(rng, monkeypatch):
    monkeypatch.setattr(generate_checks, "find_spec", lambda name: name)  # whether OpenVINO is installed or not
    for _ in range(100):
        words = [
            f"--length={rng.randint(1, 999)}", f"--top_p={rng.uniform(0.01, 1)}", f"--temperature={rng.uniform(0, 9)}",
            r"--stop=\n", "--stop=-", f"--penalize_prompt={rng.choice(['true', 'false'])}", "--stream=false",
            "--prompt=", "--prompt=-'$(ls)'\n\"`가", f"--seed={rng.randint(0, 2**63 - 1)}", "--quantize=int8",
            r"--prompt_template=질문: {prompt}\n\t답변:", "--allow_invalid_utf8", "--raw",
        ]  # fmt: skip
        options = parse_generate_options(["--model_name_or_path=x y", *rng.sample(words, 5)])
        assert parse_generate_options(to_words(options)) == options
    staged = parse_generate_options(["--model_name_or_path=x", "--system= 너는 '시인'이야.\r\n ", "--prompt=가"])
    assert parse_generate_options(to_words(staged)) == staged and staged.prompts.system == "너는 '시인'이야."
    served = parse_generate_options(["--model_name_or_path=x", "--serve", "--port=0"])
    again = parse_generate_options(to_words(served))  # the same texts, without the page
    assert again.settings == served.settings and not again.page.serve and "--port" not in " ".join(to_words(served))
