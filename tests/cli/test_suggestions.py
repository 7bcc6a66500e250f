"""Who types another tool's name, a misspelt one or a bare path is told what was meant, before anything is loaded."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2_korean.cli.generate_flags import generate_parser
from gpt2_korean.cli.generate_options import parse_generate_options
from gpt2_korean.cli.model_names import GPT2, SCRATCH, model_name, start_name, tokenizer_name
from gpt2_korean.cli.other_names import GENERATE_NAMES, TRAIN_NAMES
from gpt2_korean.cli.train_flags import train_parser
from gpt2_korean.cli.train_options import parse_train_options
from gpt2_korean.cli.trainer_flags import read_trainer_flags
from gpt2_korean.messages import UsageError

PARSERS = {"train.py": train_parser(), "generate.py": generate_parser()}
TABLES = {"train.py": TRAIN_NAMES, "generate.py": GENERATE_NAMES}
OTHERS = [
    (script, ours, name) for script, table in TABLES.items() for ours, names in table.items() for name in names.split()
]
# Those that are no letter or two away from another one, as adam_beta1 and fp16 are.
FLAGS = [
    (script, flag)
    for script, parser in PARSERS.items()
    for flag in parser.flag_names()
    if len(flag) > 10 and not re.search(r"^--no_|\d", flag)
]


def squeezed(name):
    return name.lower().replace("-", "").replace("_", "")


def refusal(parse, words):
    with pytest.raises(UsageError) as refused:
        parse(words)
    assert len(str(refused.value).splitlines()) <= 2
    return str(refused.value)


@given(st.sampled_from(OTHERS), st.sampled_from([str, str.upper, str.title, lambda name: name.replace("_", "-")]),
       st.sampled_from(["", "=1", "=글.txt"]))  # fmt: skip
def test_another_tools_name_leads_to_our_flag(other, spell, value):
    script, ours, name = other
    said = refusal(PARSERS[script].parse, [f"--{spell(name)}{value}"])
    assert f" --{ours}입니다." in said
    if len(name) == 1:
        assert f" --{ours}입니다." in refusal(PARSERS[script].parse, [f"-{name}", "1"])


def test_the_flags_by_which_run_clm_makes_a_model_of_another_size_lead_to_the_models_folder():
    """--config_name is spelt like --config, which takes a file of flags."""
    for word in ("--config_name=gpt2", "--config_overrides=n_layer=2,n_embd=128"):
        assert "여기서는 --model_type입니다." in refusal(PARSERS["train.py"].parse, [word])


@pytest.mark.parametrize("script", TABLES)
def test_every_name_means_one_flag_that_is_taken_as_it_is_told(script):
    parser, table = PARSERS[script], TABLES[script]
    names = [squeezed(name) for names in table.values() for name in names.split()]
    assert len(names) == len(set(names))
    assert not set(names) & {squeezed(flag) for flag in parser.flag_names()}
    for ours in table:
        assert f"--{ours.split('=')[0]}" in parser.flag_names()
        if "=" in ours:
            parser.parse([f"--{ours}"])


@given(st.sampled_from(FLAGS), st.randoms(use_true_random=False))
def test_a_flag_with_one_letter_wrong_is_recognised(flag, rng):
    script, flag = flag
    place = rng.randrange(3, len(flag) - 1)
    wrong = rng.choice(
        [
            flag[:place] + flag[place + 1 :],
            flag[:place] + flag[place] + flag[place:],
            flag[:place] + flag[place + 1] + flag[place] + flag[place + 2 :],
        ]
    )
    if squeezed(wrong) not in map(squeezed, PARSERS[script].flag_names()):
        assert f"혹시 {flag}인가요?" in refusal(PARSERS[script].parse, [wrong])


@given(st.sampled_from(FLAGS), st.sampled_from([str.upper, lambda flag: flag.title().replace("_", "")]))
def test_a_flag_in_another_tools_spelling_is_recognised(flag, spell):
    script, flag = flag
    assert f"혹시 {flag}인가요?" in refusal(PARSERS[script].parse, [f"--{spell(flag[2:])}=1"])


def test_a_word_of_a_switch_with_no_before_it_leads_to_no_opposite():
    for script, word, meant in (("train.py", "no_compile", "no_torch_compile"), ("train.py", "no_train", "no_do_train"),
                                ("generate.py", "no_healing", "no_token_healing")):  # fmt: skip
        assert f"혹시 --{meant}인가요?" in refusal(PARSERS[script].parse, [f"--{word}"])


def test_a_word_out_of_a_long_flag_leads_to_it_and_two_letters_to_none():
    for script, word, meant in (("train.py", "bad", "skip_bad_rows"), ("generate.py", "utf8", "allow_invalid_utf8")):
        assert f"혹시 --{meant}인가요?" in refusal(PARSERS[script].parse, [f"--{word}"])
    assert "인가요" not in refusal(PARSERS["train.py"].parse, ["--ps"])  # of steps


def test_of_two_flags_as_near_the_one_that_help_lists_is_told():
    for word, meant in (("--eval_batch_siz", "per_device_eval_batch_size"), ("--max_stes", "max_steps"),
                        ("--dataset", "dataset_path"), ("--seeds", "seed")):  # fmt: skip
        assert f"--{meant}" in refusal(PARSERS["train.py"].parse, [f"{word}=1"])


def test_the_beginning_of_a_value_leads_to_it(rng):
    for flag, begun, meant in (("optim", "adamw", "adamw_torch"), ("optim", "AdaMW", "adamw_torch"),
                               ("lr_scheduler_type", "cos", "cosine")):  # fmt: skip
        assert f"혹시 {meant}인가요?" in refusal(PARSERS["train.py"].parse, [f"--{flag}={begun}"])
    for name, flag in read_trainer_flags().items():
        if len(flag.choices) > 8:
            value = rng.choice(flag.choices)
            begun = value[: rng.randint(3, len(value))]
            if begun not in flag.choices:
                assert re.search(
                    f"혹시 {re.escape(begun)}.*인가요", refusal(PARSERS["train.py"].parse, [f"--{name}={begun}"])
                )


def test_a_value_that_begins_with_a_letter_wrong_leads_to_what_begins_so():
    for begun, meant in (("adamww", "adamw_torch"), ("adamm", "adamw_torch"), ("sdg", "sgd"), ("muno", "muon"),
                         ("adamw_trch_fused", "adamw_torch_fused"), ("grokadam_w", "grokadamw")):  # fmt: skip
        assert f"혹시 {meant}인가요?" in refusal(PARSERS["train.py"].parse, [f"--optim={begun}"])


def test_a_path_alone_leads_to_the_flag_that_it_is_for(tmp_path):
    model = tmp_path / "모델"
    model.mkdir()
    (model / "config.json").write_text("{}")
    adapter = tmp_path / "어댑터"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    for name in ("글.txt", "표.csv", "run.yaml", "other.YML"):
        (tmp_path / name).touch()
    for path, flag in ((tmp_path / "글.txt", "dataset_path"), (tmp_path, "dataset_path"), (model, "model_type"),
                       (adapter, "model_type"), (tmp_path / "run.yaml", "config"),
                       (tmp_path / "other.YML", "config")):  # fmt: skip
        assert f"--{flag}={path}인가요?" in refusal(parse_train_options, ["--do_train", str(path)])
    for path, flag in ((model, "model_name_or_path"), (tmp_path / "글.txt", "prompt_file")):
        assert f"--{flag}={path}인가요?" in refusal(parse_generate_options, [str(path)])
    several = refusal(parse_train_options, ["--dataset_path", str(tmp_path / "글.txt"), str(tmp_path / "표.csv")])
    assert "--dataset_path 플래그는 하나만" in several and "따옴표" in several
    assert "따옴표" in refusal(
        parse_generate_options, ["--model_name_or_path", str(model), "--prompt", "오늘은", "날씨가"]
    )
    assert "따옴표" in refusal(parse_generate_options, ["--model_name_or_path=x", "--prompt=x", str(model)])


def test_a_value_of_a_switch_is_one_whatever_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = {True: ("1", "on", "Yes", "TRUE"), False: ("0", "off", "No", "False")}
    for word, value in ((word, value) for value, each in words.items() for word in each):
        (tmp_path / word).mkdir()
        parsed = parse_train_options(["--do_eval", word, "--do_train", "--dataset_path=x"])
        assert parsed.do_eval is value and parsed.do_train


def misspelt(name, rng):
    place = rng.randrange(1, len(name) - 1)
    return rng.choice([name[:place] + name[place + 1 :], name[:place] + name[place:], name.replace("-", "_"),
                       name.upper(), name[:place] + name[place + 1] + name[place] + name[place + 2 :]])  # fmt: skip


@given(st.sampled_from([*SCRATCH, *GPT2]), st.randoms(use_true_random=False))
def test_a_misspelt_model_that_everybody_uses_is_refused_by_its_name(name, rng):
    wrong = misspelt(name, rng)
    for script, flag, names in (
        ("train.py", "--model_type", (*SCRATCH, *GPT2)),
        ("generate.py", "--model_name_or_path", GPT2),
    ):
        if wrong in names:
            PARSERS[script].parse([f"{flag}={wrong}"])
        elif name in names:
            assert "인가요?" in refusal(PARSERS[script].parse, [f"{flag}={wrong}"])


@pytest.mark.parametrize(
    ("word", "meant"),
    [("gpt2-small", "gpt2"), ("GPT2_base", "gpt2"), ("gpt2m", "gpt2-medium"), ("gpt2-l", "gpt2-large")],
)
def test_a_model_is_known_by_what_else_it_is_called(word, meant):
    for script, flag in (("train.py", "--model_type"), ("generate.py", "--model_name_or_path")):
        assert f"혹시 {meant}인가요?" in refusal(PARSERS[script].parse, [f"{flag}={word}"])


@pytest.mark.parametrize("word", ["kogpt2", "KoGPT-2", "kogpt2-base-v2"])
def test_the_korean_gpt2_by_its_short_name_leads_to_the_whole_one_and_not_to_the_english_one(word):
    for parse, flag in ((parse_train_options, "model_type"), (parse_generate_options, "model_name_or_path")):
        assert "혹시 skt/kogpt2-base-v2인가요?" in refusal(parse, [f"--{flag}={word}"])


def test_a_name_that_is_anothers_or_a_folders_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2-meduim").mkdir()
    (tmp_path / "koraen").mkdir()
    others = ("skt/kogpt2-base-v2", "someone/gpt2-meduim", "me/gpt2-medium", "./gpt2-xll", "distilgpt2", "./x")
    for name in ("gpt2-meduim", *others, "bert-base-uncased"):
        assert start_name(name) == model_name(name) == name
    for name in ("koraen", "korean", "original", "someone/tokenizer", "roberta-base", "gpt2", "./x"):
        assert tokenizer_name(name) == name


@pytest.mark.parametrize(
    ("word", "meant"),
    [("korea", "korean"), ("Korean", "korean"), ("ko", "korean"), ("kr", "korean"), ("korean1", "korean"),
     ("orignal", "original"), *((word, None) for word in ("default", "auto", "한국어", "none"))],
)  # fmt: skip
def test_a_misspelt_tokenizer_is_refused(word, meant):
    said = refusal(parse_train_options, ["--do_train", "--dataset_path=x", f"--tokenizer={word}"])
    assert "--tokenizer" in said and (f"혹시 {meant}인가요?" if meant else "korean, original") in said


def test_numbers_out_of_bounds_are_refused_in_korean_that_is_right():
    for word, said in (("--top_p=1.5", "1.5는 쓸 수 없습니다. 0보다 크고 1 이하인 수를 주세요."),
                       ("--top_k=-1", "-1은 쓸 수 없습니다. 0 이상 1,000,000,000 이하인 정수를 주세요."),
                       ("--length=둘", "'둘'은 정수가 아닙니다. 1 이상 1,000,000 이하인 정수를 주세요."),
                       ("--length=", "값이 비었습니다. 1 이상 1,000,000 이하인 정수를 주세요.")):  # fmt: skip
        assert said in refusal(parse_generate_options, ["--model_name_or_path=x", word])
    assert "1000은 128의 배수가 아닙니다. 1024는 어떤가요?" in refusal(parse_train_options, ["--vocab_size=1000"])


@pytest.mark.parametrize(
    ("parse", "words"),
    [
        (parse_train_options, "--do_train --dataset_path=x --model_type=scratch-mini --tokenizer=korean"),
        (parse_train_options, "--do_train --dataset_path=x --model_type=scratch-mini --lora_rank=8"),
        (parse_generate_options, "--model_name_or_path=x --interactive --prompt=x"),
        (parse_generate_options, "--model_name_or_path=x --prompt=x --system=x --raw"),
        (parse_generate_options, "--model_name_or_path=x --serve --stream"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_with_the_way_on(parse, words):
    assert re.search("(빼세요|주세요)[.]$", refusal(parse, words.split()))


def test_a_file_for_the_name_of_a_data_set_leads_to_the_flag_of_files(tmp_path):
    (tmp_path / "글.txt").touch()
    said = refusal(parse_train_options, ["--do_train", f"--dataset_name={tmp_path / '글.txt'}"])
    assert f"혹시 --dataset_path={tmp_path / '글.txt'}인가요?" in said


def test_the_address_of_a_data_set_leads_to_its_name():
    page = "https://huggingface.co/datasets/owner/texts/viewer/ko"
    said = refusal(parse_train_options, [f"--dataset_name={page}", "--do_train"])
    assert "혹시 --dataset_name=owner/texts인가요?" in said


@pytest.mark.parametrize("word", ["scratch-mini", "scratch_mini"])
def test_to_write_with_a_model_by_the_name_of_its_start_is_told_of_the_folder(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal(parse_generate_options, [f"--model_name_or_path={word}", "--prompt=가"])
    assert "학습한 모델의 폴더를 주세요" in said
    (tmp_path / word).mkdir()
    assert model_name(word) == word


def test_without_flags_a_script_shows_how_it_is_used(capsys):
    for parse, script, rules in (
        (parse_train_options, "train.py", ["--dataset_path", "--do_train"]),
        (parse_generate_options, "generate.py", ["--model_name_or_path", "--prompt"]),
    ):
        with pytest.raises(SystemExit) as ended:
            parse([])
        out, err = capsys.readouterr()
        assert ended.value.code == 2 and out == "" and "오류" not in err
        assert "사용법:" in err and f"python {script} --help" in err and all(rule in err for rule in rules)


def test_generate_tells_the_models_there_are_and_how_to_use_them(capsys):
    models = [f"fine_tuned_models/모델 {number}" for number in range(9)]
    with pytest.raises(SystemExit):
        parse_generate_options([], lambda folder: models)
    err = capsys.readouterr().err
    assert [number for number in range(9) if f"_path=fine_tuned_models/모델 {number}'" in err] == [0, 1, 2, 3, 4]
    said = refusal(lambda words: parse_generate_options(words, lambda folder: models), ["--prompt=x"])
    assert "--model_name_or_path" in said and models[0] in said and models[5] not in said


def test_the_examples_that_are_shown_are_accepted():
    from gpt2_korean.cli.usage import EXAMPLE

    assert parse_train_options([word.replace('"', "") for word in EXAMPLE.split()[2:]]).do_train


@pytest.mark.parametrize("dash", ["–", "—", "―", "−", "—-", "——"])
def test_a_flag_whose_dashes_a_word_processor_made_long_is_shown_as_it_is_typed(dash):
    with pytest.raises(UsageError, match=r"--do_train$"):
        parse_train_options([f"{dash}do_train"])


@pytest.mark.parametrize("words", ["--{} = {}", "--{}= {}"])
def test_a_flag_with_spaces_about_its_equals_sign_is_shown_without_them(words):
    for parse, name, value in ((parse_train_options, "dataset_path", "data/korean_texts.txt"),
                               (parse_train_options, "learning_rate", "5e-5"), (parse_train_options, "bf16", "true"),
                               (parse_train_options, "report_to", "none"), (parse_generate_options, "prompt", "오늘은"),
                               (parse_generate_options, "model_name_or_path", "x")):  # fmt: skip
        said = refusal(parse, ["--length=5", *words.format(name, value).split(), "--seed=1"])
        assert "빈칸" in said and said.endswith(f': --{name}="{value}"')


def test_an_equals_sign_is_a_text_too():
    for words in (["--stop", "="], ["--stop=="], ["--stop", "=", "--seed=1"]):
        assert parse_generate_options(["--model_name_or_path=x", "--prompt=", *words]).settings.stop == ["="]


@pytest.mark.parametrize("name", ["dataset_path", "validation_file"])
def test_of_texts_given_twice_it_is_told_that_the_last_alone_is_read(name, capsys):
    words = ["--do_train", "--do_eval", "--dataset_path=x.txt"] if name == "validation_file" else ["--do_train"]
    words.append(f"--{name}=a.txt")
    assert getattr(parse_train_options(words).text, name) == "a.txt" and not capsys.readouterr().err
    for other in ([f"--{name.replace('_', '-')}=b.txt"], [f"--{name}", "b.txt"]):
        assert getattr(parse_train_options([*words, *other]).text, name) == "b.txt"
        assert f"--{name}: 여러 번 주어" in capsys.readouterr().err
