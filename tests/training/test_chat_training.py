"""A run on conversations leaves a chat model: from any start, with LoRA, gone on with, and trained further."""

import json
import re
import statistics
from itertools import cycle, islice

import pytest
from conftest import read_to_write, save_kogpt2, save_tiny_gpt2
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from gpt2_korean.model import lora
from gpt2_korean.text import vocabulary
from gpt2_korean.text.chat_template import CHAT_TEMPLATE, MARKS, has_our_template
from gpt2_korean.text.prompts import SAMPLE_QUESTIONS
from gpt2_korean.training import diversity, samples
from gpt2_korean.training.report import shorten

pytestmark = pytest.mark.usefixtures("brief_texts")
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def conversations(tmp_path, rng, sample_texts):
    words, path = " ".join(sample_texts).split(), tmp_path / "대화.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for _ in range(20):
            roles = ["system"] * rng.randrange(2) + ["user", "assistant"] * rng.randint(1, 2)
            turns = [{"role": role, "content": " ".join(rng.sample(words, 2))} for role in roles]
            file.write(json.dumps({"messages": turns}, ensure_ascii=False) + "\n")
    return path


@pytest.fixture
def words(conversations, tmp_path):
    return [
        "train.py", f"--dataset_path={conversations}", "--do_train", "--max_steps=4", "--save_steps=2", "--device=cpu",
        "--report_to=none", "--disable_tqdm", "--no_bf16", f"--output_dir={tmp_path / 'out'}",
        "--per_device_train_batch_size=2", "--learning_rate=1e-2",
    ]  # fmt: skip


def own_words(tmp_path, tokenizer, *_):
    return [f"--model_type={save_tiny_gpt2(tmp_path / 'base', tokenizer, initializer_range=0.02)}"]


def new_words(tmp_path, _, english, monkeypatch):
    monkeypatch.setattr(vocabulary, "LEAST_TOKENS", 384)
    base = save_tiny_gpt2(tmp_path / "base", english, initializer_range=0.02)
    return [f"--model_type={base}", "--tokenizer=korean", "--vocab_size=384"]


def kogpt2_words(tmp_path, tokenizer, *_):
    save_kogpt2(tmp_path / "base", [*tokenizer.get_vocab(), "가 나 다"])
    return [f"--model_type={tmp_path / 'base'}"]


RUNS = [(own_words, []), (own_words, ["--lora_rank=4"]), (new_words, ["--lora_rank=4"]), (kogpt2_words, [])]


@pytest.mark.parametrize("start, adapter", RUNS, ids=["own", "own, LoRA", "new, LoRA", "KoGPT2's"])
def test_a_run_on_conversations_leaves_a_chat_model_and_goes_on_exactly(
    start, adapter, words, conversations, tmp_path, byte_tokenizer, english_tokenizer, run_main, monkeypatch
):
    start = start(tmp_path, byte_tokenizer, english_tokenizer, monkeypatch)
    code, _, err = run_main(*words, *start, *adapter)
    assert code == 0, err
    out = tmp_path / "out"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    marks = tokenizer.convert_tokens_to_ids(list(MARKS.values()))
    assert has_our_template(tokenizer) and tokenizer("")["input_ids"] == [tokenizer.eos_token_id]
    turns = [len(json.loads(line)["messages"]) for line in conversations.read_text("utf-8").splitlines()]
    assert max(marks) < len(tokenizer) == model.config.vocab_size
    assert model.config.learnt_answers == statistics.median_high(turns) // 2
    if adapter:
        saved = load_file(out / "adapter" / "adapter_model.safetensors")
        rows = saved["base_model.model.transformer.wte.weight"]
        assert rows.shape[0] == len(tokenizer) and lora.read_adapter(out / "adapter")["r"] == 4
    whole = load_file(out / "model.safetensors")
    (tmp_path / "out").rename(tmp_path / "first")
    code, _, err = run_main(*words, *start, *adapter, f"--resume_from_checkpoint={tmp_path / 'first' / 'checkpoint-2'}")
    assert code == 0, err
    again = load_file(out / "model.safetensors")
    assert whole.keys() == again.keys() and all(whole[name].equal(again[name]) for name in whole)


def test_a_chat_model_trained_further_keeps_its_marks(words, tmp_path, small_corpus, byte_tokenizer, run_main):
    assert run_main(*words, *own_words(tmp_path, byte_tokenizer))[0] == 0
    first, before = tmp_path / "out", AutoTokenizer.from_pretrained(tmp_path / "out")
    for data in ([], [f"--dataset_path={small_corpus}"]):
        code, _, err = run_main(*words, *data, f"--model_type={first}", f"--output_dir={tmp_path / f'more{len(data)}'}")
        assert code == 0, err
        kept = AutoTokenizer.from_pretrained(tmp_path / f"more{len(data)}")
        assert kept.backend_tokenizer.to_str() == before.backend_tokenizer.to_str() and has_our_template(kept)


def test_a_model_with_a_template_keeps_it(words, tmp_path, sample_texts, run_main):
    tokenizer = vocabulary.train_tokenizer(sample_texts[:40], 640, 32)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = CHATML
    code, _, err = run_main(*words, *own_words(tmp_path, tokenizer))
    assert code == 0, err
    kept = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert kept.chat_template == CHATML and kept.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_measuring_conversations_wants_a_chat_model(words, tmp_path, tiny_model_folder, run_main):
    measure = [word for word in words if word != "--do_train" and not word.startswith(("--max", "--save", "--out"))]
    code, _, err = run_main(*measure, "--do_eval", f"--model_type={tiny_model_folder}")
    assert code == 1 and "chat_template" in err and "Traceback" not in err, err
    assert run_main(*words, f"--model_type={tiny_model_folder}")[0] == 0
    code, _, err = run_main(*measure, "--do_eval", f"--model_type={tmp_path / 'out'}")
    assert code == 0, err


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, CHATML])
def test_a_model_in_training_answers_as_generate_does(words, tmp_path, sample_texts, run_main, template):
    tokenizer = vocabulary.train_tokenizer(sample_texts[:40], 640, 32)
    if template == CHATML:
        tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
        tokenizer.chat_template = CHATML
    code, _, err = run_main(*words, *own_words(tmp_path, tokenizer), "--do_eval", "--eval_steps=4")
    assert code == 0, err
    assert "--interactive" in err and "써 보기" in err
    assert [err.count(f"\n  {question} |") for question in SAMPLE_QUESTIONS] == [1, 1, 1]
    out = tmp_path / "out"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    read = read_to_write(out)
    with samples.writing(model, tokenizer) as loaded:
        turns = [{"role": "user", "content": SAMPLE_QUESTIONS[0]}]
        assert loaded.chat.encode(turns) == read.chat.encode(turns) and loaded.chat.end == read.chat.end
        written = samples.continue_prompts(loaded, SAMPLE_QUESTIONS)
    assert all(
        shorten(f"{question} | {answer}", 100) in err
        for question, answer in zip(SAMPLE_QUESTIONS, written, strict=True)
    )


def test_the_texts_of_a_chat_model_that_are_measured_are_answers_to_the_held_out_questions(
    words, conversations, tmp_path, byte_tokenizer, run_main, monkeypatch
):
    assert run_main(*words, *own_words(tmp_path, byte_tokenizer))[0] == 0
    asked, original = [], samples.stream_ids

    def stream(decoder, prompts, *others):
        asked.append(prompts)
        return original(decoder, prompts, *others)

    monkeypatch.setattr(samples, "stream_ids", stream)
    measure = [word for word in words if not word.startswith(("--do_train", "--max", "--save", "--out"))]
    code, out, err = run_main(
        *measure, "--do_eval", f"--model_type={tmp_path / 'out'}", f"--validation_file={conversations}"
    )
    assert code == 0, err
    values = json.loads(out.splitlines()[-1])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    said = [json.loads(line)["messages"] for line in conversations.read_text("utf-8").splitlines()]
    answers = [turns.pop()["content"] for turns in said]
    assert values["distinct_1"] > 0 and values["held_out"] == diversity.measure(diversity.cut_stretches(answers, 5, 20))
    keywords = {"add_generation_prompt": True, "return_dict": False}
    expected = [tokenizer.apply_chat_template(turns, **keywords) for turns in said]
    questions = cycle(expected)
    assert asked == [list(islice(questions, 5)) for _ in asked]


@pytest.mark.parametrize("changes", [{}, {"scale_attn_by_inverse_layer_idx": True}])
def test_steps_in_which_nothing_is_learnt_do_no_harm(words, tmp_path, byte_tokenizer, run_main, changes):
    row = {"질문": "가나다라 " * 60, "답변": "네"}  # longer than a step
    (tmp_path / "긴 질문.json").write_text(json.dumps([row] * 3, ensure_ascii=False), "utf-8")
    base = save_tiny_gpt2(tmp_path / "base", byte_tokenizer, initializer_range=0.02, **changes)
    more = [
        f"--dataset_path={tmp_path / '긴 질문.json'}",
        f"--model_type={base}",
        "--max_steps=12",
        "--logging_steps=1",
        "--packing=stream",
    ]
    code, _, err = run_main(*words, *more)
    assert code == 0 and "손실 0 " in err, err


def learnt_characters(err, name):
    """What the line on the texts `name` says: how many characters are learnt of them."""
    return int(re.search(rf"^{name}: .*?글자 ([\d,]+)개", err, re.MULTILINE)[1].replace(",", ""))


@pytest.mark.parametrize(
    ("start", "flags", "all_turns"),
    [
        (own_words, [], False),
        (own_words, ["--train_on_prompt"], True),
        (new_words, [], True),
        (new_words, ["--train_on_prompt=false"], False),
        (new_words, ["--no_train_on_prompt"], False),
    ],
)
def test_questions_are_learnt_where_the_vocabulary_is_new_and_answers_alone_count_at_an_evaluation(
    start, flags, all_turns, words, conversations, tmp_path, byte_tokenizer, english_tokenizer, run_main, monkeypatch
):
    words = [*words, *start(tmp_path, byte_tokenizer, english_tokenizer, monkeypatch), *flags]
    code, _, err = run_main(*words, "--do_eval", f"--validation_file={conversations}")
    assert code == 0, err
    turns = [turn for line in conversations.read_text("utf-8").splitlines() for turn in json.loads(line)["messages"]]
    answers = sum(len(turn["content"]) for turn in turns if turn["role"] == "assistant")
    # Between two turns of a conversation stands what counts for a character: 20 conversations have as many fewer.
    whole = sum(len(turn["content"]) for turn in turns) + len(turns) - 20
    assert learnt_characters(err, "학습 글") == (whole if all_turns else answers)
    assert learnt_characters(err, "평가 글") == answers
    assert ("--train_on_prompt=false" in err) == (all_turns and not flags)

    shown = run_main(*words, "--show_data=1", "--overwrite_output_dir")[1]
    assert ("⟦<|" in shown or "⟦ <|" in shown) == all_turns  # the mark of the first turn is learnt, or is not

    # What a run has begun with it goes on with, and nothing else.
    assert run_main(*words, "--resume_from_checkpoint=auto", "--max_steps=5")[0] == 0
    code, _, err = run_main(*words, "--resume_from_checkpoint=auto", f"--train_on_prompt={not all_turns}")
    assert code == 1 and "--train_on_prompt" in err


def test_a_text_in_the_place_of_conversations_is_named_and_not_a_flag_that_nobody_gave(
    words, tmp_path, byte_tokenizer, english_tokenizer, run_main, monkeypatch
):
    words = [*words, *new_words(tmp_path, byte_tokenizer, english_tokenizer, monkeypatch)]
    assert run_main(*words)[0] == 0
    (tmp_path / "글.txt").write_text("오늘은 비가 옵니다.\n\n" * 40, "utf-8")
    code, _, err = run_main(*words, f"--dataset_path={tmp_path / '글.txt'}", "--resume_from_checkpoint=auto")
    assert code == 1 and "(학습할 글: " in err and "--train_on_prompt:" not in err


@pytest.mark.parametrize(("longer", "remembered"), [(0, 1), (9, 1), (10, 3)])
def test_a_model_remembers_as_much_as_half_of_its_conversations_have(
    longer, remembered, words, tmp_path, byte_tokenizer, run_main
):
    exchange = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": "네"}]
    rows = [{"messages": exchange * (3 if number < longer else 1)} for number in range(20)]
    path = tmp_path / "차례.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    words = [word for word in words if not word.startswith("--dataset_path")] + own_words(tmp_path, byte_tokenizer)
    assert run_main(*words, f"--dataset_path={path}")[0] == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.learnt_answers == remembered
