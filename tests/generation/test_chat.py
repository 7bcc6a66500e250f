"""A model with a chat template answers without any further flag, as transformers' generate() does."""

import copy
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import read_to_write, save_tiny_gpt2
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from gpt2_korean.generation.loop import generate_ids
from gpt2_korean.generation.sampling import Sampling
from gpt2_korean.generation.write import cut_last_turn, read_after_turns, stream_texts
from gpt2_korean.messages import UserError
from gpt2_korean.text.chat_prompt import find_answer_end, find_chat

LENGTH, CONTEXT = 12, 96
WORDS = ["--device=cpu", "--dtype=float32", "--allow_invalid_utf8", "--temperature=0", f"--length={LENGTH}"]
# Marks that are special tokens, another order of them, and an end of turn that is not the end of text.
OTHERS = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPOKEN = ["오늘은", " 그 사람은 ", "<|assistant|>네<|endoftext|>", "마을에 <|user|>\n눈이", "가나 다라"]
PLAIN = {"end_at_sentence": False, "dry_sequence_breaker": (), "token_healing": False}


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory, byte_tokenizer):
    """A GPT-2 with a template of another maker."""
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = OTHERS
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "other", tokenizer, n_positions=CONTEXT)


@pytest.fixture(scope="module")
def library_folder(tmp_path_factory, chat_tokenizer):
    """A model with our template that only transformers can compute."""
    changes = {"activation_function": "silu", "n_positions": CONTEXT}
    return save_tiny_gpt2(tmp_path_factory.mktemp("models") / "library", chat_tokenizer, **changes)


@pytest.fixture
def folder(request):
    return request.getfixturevalue(request.param)


FOLDERS = ["chat_model_folder", "library_folder", "other_folder"]
every = pytest.mark.parametrize("folder", FOLDERS, indirect=True)


def turns_of(*contents, system=None):
    turns = [{"role": ("user", "assistant")[n % 2], "content": each.strip()} for n, each in enumerate(contents)]
    return [{"role": "system", "content": system}, *turns] if system else turns


def library_ids(folder, turns):
    """What transformers reads of a conversation."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    keywords = {"return_dict": False, "add_generation_prompt": True, "sanitize_control_tokens": True}
    return tokenizer.apply_chat_template(turns, **keywords)


def library_answer(folder, turns, length=LENGTH):
    """The text of transformers' greedy answer, but for a character that it does not end."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    ids = library_ids(folder, turns)
    assert len(ids) + length <= CONTEXT
    ends = [tokenizer.eos_token_id]
    if "<|im_end|>" in tokenizer.get_vocab():
        ends = [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    new = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=length,
        do_sample=False, eos_token_id=ends, pad_token_id=0,
    )[0, len(ids) :]  # fmt: skip
    return tokenizer.decode(new, skip_special_tokens=True).rstrip("\ufffd")


@every
def test_a_prompt_is_a_users_turn_and_the_answer_alone_is_printed(run_main, folder, tmp_path):
    words = [f"--model_name_or_path={folder}", *WORDS]
    expected = [library_answer(folder, turns_of(prompt)) for prompt in SPOKEN]
    for prompt, answer in zip(SPOKEN, expected, strict=True):
        code, out, err = run_main("generate.py", *words, f"--prompt={prompt}")
        assert code == 0 and "--raw" in err
        assert out == answer.lstrip() + "\n"
    file, kept = tmp_path / "물음.txt", tmp_path / "답.jsonl"
    lines = [prompt for prompt in SPOKEN if "\n" not in prompt]
    file.write_text("\n".join(lines), "utf-8")
    code, out, _ = run_main(
        "generate.py", *words, f"--prompt_file={file}", "--num_return_sequences=2", f"--output_file={kept}"
    )
    assert code == 0 and out.count("===") == 4 * len(lines)
    assert all(out.count(f" ===\n나> {line}\n") == 2 for line in lines)
    records = [json.loads(line) for line in kept.read_text("utf-8").splitlines()]
    answers = [answer for prompt, answer in zip(SPOKEN, expected, strict=True) if prompt in lines for _ in range(2)]
    assert [record["text"] for record in records] == [answer.strip() for answer in answers]
    assert [record["prompt"] for record in records[::2]] == lines


@every
def test_a_conversation_remembers_its_turns_until_new(run_main, folder, pipe):
    pipe("", "  ", "오늘은", "내일은", "/again", "/new", "", "내일은")
    code, out, err = run_main("generate.py", f"--model_name_or_path={folder}", *WORDS, "--interactive")
    assert code == 0, err
    first = library_answer(folder, turns_of("오늘은"))
    second = library_answer(folder, turns_of("오늘은", first, "내일은"))
    answers = [first, second, second, library_answer(folder, turns_of("내일은"))]
    assert out == "".join(f"{answer.lstrip()}\n" for answer in answers)


def test_a_word_that_a_template_fails_at_ends_no_session(run_main, other_folder, tmp_path, pipe):
    strict = shutil.copytree(other_folder, tmp_path / "strict")
    fails = "{% if '</s>' in message.content %}{{ message.content.index('Q') if '값' in message.content else '' + 1 }}"
    template = OTHERS.replace("{% if message.role", fails + "{% endif %}{% if message.role")
    (strict / "chat_template.jinja").write_text(template, "utf-8")
    pipe("오늘은", "</s>", "값 </s>", "내일은")
    code, out, err = run_main("generate.py", f"--model_name_or_path={strict}", *WORDS, "--interactive")
    assert code == 0 and err.count("이 대화를 받지 않습니다") == 2, err
    first = library_answer(strict, turns_of("오늘은"))
    second = library_answer(strict, turns_of("오늘은", first, "내일은"))
    assert out == "".join(f"{answer.lstrip()}\n" for answer in (first, second))


def test_a_system_turn_stands_first_and_stays_while_the_oldest_turns_are_forgotten(chat_model_folder, rng):
    model = read_to_write(chat_model_folder)
    for _ in range(30):
        options = SimpleNamespace(prompt_template=None, system=rng.choice([None, "너는 시인이야."]))
        pairs = [(rng.choice(SPOKEN), rng.choice(SPOKEN)) for _ in range(rng.randint(0, 6))]
        prompt, length = rng.choice(SPOKEN), rng.randint(1, 60)
        conversation = read_after_turns(model, options, pairs, prompt, length)
        fitting = [
            turns for start in range(len(pairs) + 1)
            if len(library_ids(chat_model_folder, turns := turns_of(
                *(text for pair in pairs[start:] for text in pair), prompt, system=options.system
            ))) <= max(CONTEXT - length + 1, CONTEXT // 2)
        ]  # fmt: skip
        assert conversation == (fitting[0] if fitting else turns_of(prompt, system=options.system))
        assert model.chat.encode(conversation) == library_ids(chat_model_folder, conversation)
        # No more answers than the conversations had that it learnt from.
        answers = rng.randint(1, 8)
        learnt = replace(model, chat=replace(model.chat, answers=answers))
        newest = pairs[max(0, len(pairs) + 1 - answers) :]
        assert read_after_turns(learnt, options, pairs, prompt, length) == read_after_turns(
            model, options, newest, prompt, length
        )


@every
def test_a_prompt_too_long_loses_its_own_beginning_and_no_mark(folder, rng):
    model = read_to_write(folder)
    prompt = " ".join(rng.choices(SPOKEN, k=40))
    silent, whole = (library_ids(folder, turns_of(each)) for each in ("", prompt))
    ids = cut_last_turn(model, turns_of(prompt), model.chat.encode(turns_of(prompt)), 20)
    kept = CONTEXT - 20 + 1 - len(silent)
    end = next(place for place in range(len(whole)) if whole[-1 - place] != silent[-1 - place])
    start = len(silent) - end
    assert len(ids) == CONTEXT - 20 + 1
    assert ids == silent[:start] + whole[len(whole) - end - kept :]


def test_an_order_at_the_end_that_is_too_long_loses_its_own_beginning_and_no_mark(chat_model_folder):
    model = read_to_write(chat_model_folder)
    conversation = [*turns_of("가"), {"role": "system", "content": "나는 " * CONTEXT}]
    ids, last = model.chat.encode(conversation), model.chat.encode(conversation[1:])
    begun = len(ids) - len(last) + 2  # the begin token is in both; the last turn's mark
    kept = CONTEXT - 20 + 1 - begun
    assert cut_last_turn(model, conversation, ids, 20) == ids[:begun] + ids[-kept:]


def test_a_question_behind_a_system_turn_that_leaves_no_room_for_its_marks_is_read_from_its_end(chat_model_folder):
    model = read_to_write(chat_model_folder)
    turns = turns_of("가 나 다", system="너는 시인이야. " * CONTEXT)
    ids = model.chat.encode(turns)
    assert cut_last_turn(model, turns, ids, 20) == ids


@every
def test_raw_continues_a_text_as_a_model_without_a_template_does(run_main, folder, tmp_path):
    plain = shutil.copytree(folder, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    assert "chat_template" not in (plain / "tokenizer_config.json").read_text("utf-8")
    tokenizer = json.loads((plain / "tokenizer.json").read_text("utf-8"))
    renamed = json.dumps(tokenizer, ensure_ascii=False).replace("<|user|>", "<|other|>")
    (plain / "tokenizer.json").write_text(renamed, "utf-8")
    for words in (["--prompt=오늘은 <|user|>"], [], ["--prompt=가", r"--prompt_template=질문: {prompt}\n답변:"]):
        raw = run_main("generate.py", f"--model_name_or_path={folder}", *WORDS, "--raw", *words)
        assert raw[:2] == run_main("generate.py", f"--model_name_or_path={plain}", *WORDS, *words)[:2]
        assert raw[0] == 0 and "대화" not in raw[2]


@pytest.mark.parametrize("template", ["", " \n"])
def test_a_model_with_an_empty_template_continues_texts(run_main, other_folder, tmp_path, template):
    empty = shutil.copytree(other_folder, tmp_path / "empty")
    (empty / "chat_template.jinja").write_text(template, "utf-8")
    written = [run_main("generate.py", f"--model_name_or_path={folder}", *WORDS, "--prompt=오늘은", *raw)
               for folder, raw in ((empty, []), (other_folder, ["--raw"]))]  # fmt: skip
    assert written[0][:2] == written[1][:2] and written[0][0] == 0, written


def test_what_does_not_go_with_a_model_is_refused_by_its_flag(
    run_main, chat_model_folder, other_folder, tiny_model_folder, tmp_path
):
    def refused(folder, *words):
        code, out, err = run_main("generate.py", f"--model_name_or_path={folder}", "--device=cpu", *words)
        assert code in (1, 2) and out == ""
        return err.splitlines()[-1]

    assert "--system" in refused(tiny_model_folder, "--prompt=가", "--system=너는 시인이야.")
    assert "--raw" in refused(chat_model_folder, "--prompt=가", "--prompt_template=Q{prompt}A")
    assert "--prompt" in refused(chat_model_folder, "--prompt= ") and "--raw" in refused(chat_model_folder)
    assert "--num_return_sequences" in refused(chat_model_folder, "--interactive", "--num_return_sequences=2")
    assert "--system" in refused(other_folder, "--prompt=가", "--system=너는 시인이야.")
    silent = shutil.copytree(other_folder, tmp_path / "silent")
    (silent / "chat_template.jinja").write_text("{{ messages[-1].content }}", "utf-8")
    assert "--system" in refused(silent, "--prompt=가", "--system=너는 시인이야.")
    for words in (["--raw"], ["--prompt_template=Q{prompt}A"]):
        assert f"{words[0].split('=')[0]}" in refused(chat_model_folder, "--system=가", *words)


def test_answers_need_no_transformers_where_the_template_is_ours(chat_model_folder, run_script):
    flags = [f"--model_name_or_path={chat_model_folder}", "--device=cpu", "--length=5", "--prompt=가", "--system=나"]
    code = f"import sys, generate; generate.main({flags}); print({{'transformers', 'jinja2'}} & {{*sys.modules}})"
    result = run_script("-c", code)
    assert result.stdout.endswith("set()\n"), result.stderr


@every
def test_an_answer_ends_at_its_end_and_at_nothing_else(folder):
    model = read_to_write(folder, allow_invalid_utf8=True)
    settings = SimpleNamespace(**vars(Sampling(temperature=0)), length=LENGTH, stop=None, **PLAIN)
    turns = turns_of("오늘은")
    free = generate_ids(model.decoder, [model.chat.encode(turns)], LENGTH, Sampling(temperature=0), None)[0]
    for end in (free[5], model.chat.end):
        ending = replace(model, eos_token_id=free[2], chat=replace(model.chat, end=end))
        written = "".join(new for _, (new,) in stream_texts(ending, [turns], settings))
        ids = free[: free.index(end)] if end in free else free
        assert written == model.tokenizer.decode(ids).rstrip("\ufffd")
    settings.stop = [written[4:6]]
    assert "".join(new for _, (new,) in stream_texts(model, [turns], settings)) == written.partition(written[4:6])[0]


@every
def test_an_answer_that_has_begun_goes_on_where_it_is(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = read_to_write(folder, allow_invalid_utf8=True)
    options = SimpleNamespace(system=None, prompt_template=None)
    settings = SimpleNamespace(**vars(Sampling(temperature=0)), length=LENGTH, stop=None, **PLAIN)
    for begun in ("오늘은", "마을에 눈이 <|user|>", "가나 다라 "):
        read = read_after_turns(model, options, [("처음", "답")], "물음", LENGTH, begun)
        turns = [*turns_of("처음", "답", "물음"), {"role": "assistant", "content": begun}]
        assert read == turns
        ids = tokenizer.apply_chat_template(
            turns_of("처음", "답", "물음"), add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
        )
        ids += tokenizer(model.chat.lead + begun, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        new = generate_ids(model.decoder, [ids], LENGTH, Sampling(temperature=0), model.chat.end)[0]
        shown = "".join(new for _, (new,) in stream_texts(model, [read], settings))
        assert shown == model.tokenizer.decode([*ids, *new]).removeprefix(model.tokenizer.decode(ids)).rstrip("\ufffd")


def test_an_answer_that_has_begun_changes_no_other_of_its_batch(chat_model_folder):
    model = read_to_write(chat_model_folder)
    settings = SimpleNamespace(**vars(Sampling(temperature=0)), length=LENGTH, stop=None, **PLAIN)

    def write(*conversations):
        pieces = (new for _, new in stream_texts(model, conversations, settings))
        return ["".join(texts) for texts in zip(*pieces, strict=True)]

    anew, begun = turns_of("물음"), turns_of("물음", "오늘은")
    model = replace(model, chat=replace(model.chat, lead=write(anew)[0][0]))  # which is then not shown
    assert write(begun, anew) == [*write(begun), *write(anew)] == write(anew, begun)[::-1]


def test_the_end_of_an_answer_is_the_token_that_its_template_writes_there(chat_tokenizer, other_folder):
    tokenizer = AutoTokenizer.from_pretrained(other_folder)
    assert find_chat(tokenizer, 0).end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    assert find_chat(tokenizer, 0).end == 0
    asks = "{% if messages[-1].role != 'user' %}{{ raise_exception('the last is no user') }}{% endif %}"
    tokenizer.chat_template = asks + OTHERS
    assert find_chat(tokenizer, 0).end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(UserError, match="never"):
        find_chat(tokenizer, 0)
    tokenizer.chat_template = None
    assert find_chat(tokenizer, 0) is find_chat(tokenizer.backend_tokenizer, 0) is None
    for ours in (chat_tokenizer, chat_tokenizer.backend_tokenizer):
        assert find_chat(ours, 0).end == 0


def test_a_trained_model_of_another_makers_template_tells_others_where_an_answer_ends(run_main, other_folder, tmp_path):
    corpus = tmp_path / "대화.jsonl"
    corpus.write_text(json.dumps({"messages": turns_of("오늘은", "맑아요")}, ensure_ascii=False) + "\n", "utf-8")
    words = [f"--model_type={other_folder}", f"--dataset_path={corpus}", "--do_train", "--max_steps=1", "--use_cpu"]
    code, _, err = run_main(
        "train.py", *words, f"--output_dir={tmp_path / 'out'}", "--report_to=none", "--block_size=64"
    )
    assert code == 0, err
    tokenizer, told = (
        AutoTokenizer.from_pretrained(tmp_path / "out"),
        GenerationConfig.from_pretrained(tmp_path / "out"),
    )
    assert told.eos_token_id == [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    assert find_answer_end(tokenizer) is None
