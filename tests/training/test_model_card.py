"""The model card of a run: what the Hub can read, what a visitor wants to know, nothing lost that a user wrote."""

import random

import pytest
from conftest import signal_self
from huggingface_hub import ModelCard

from gpt2_korean.cli.licenses import LICENSES
from gpt2_korean.training.model_card import adapter_card, model_card
from gpt2_korean.training.record import Record, name_of_text


def record_of(**changes):
    provenance = {
        "model": {"name": "gpt2-medium"}, "corpus": {"tokens": 5_000}, "vocabulary": {"tokens": 8}, "block_size": 7,
    }  # fmt: skip
    losses = [{"step": step, "loss": 9.0 - step} for step in (1, 2, 3)]
    losses += [{"step": 2, "eval_loss": 1.0, "eval_bits_per_character": 4.5}]
    losses += [{"step": 3, "eval_loss": 1.0, "eval_bits_per_character": 4.75}]
    options = {"model_type": "gpt2-medium", "dataset_path": "글 모음/나의 글.txt", **changes.pop("options", {})}
    known = {"device": "cpu", "seed": 1, "steps": {"done": 3, "of": 3}, "characters": 12_345, "losses": losses}
    return Record(["train.py"], options, provenance=provenance, **{**known, **changes})


@pytest.mark.parametrize("license_name", [None, *random.Random(0).sample(LICENSES, 5)])
def test_the_hub_reads_what_the_flags_say(license_name):
    card = ModelCard(model_card("x", record_of(options={"license": license_name})))
    assert card.data.license == (license_name or "mit")  # of the model that it began with
    assert card.data.base_model == "gpt2-medium"
    assert ("--license=" in card.text) == (license_name is None)
    assert f"\n`{license_name or 'mit'}`" in card.text
    assert card.data.datasets is None
    card = ModelCard(model_card("x", record_of(options={"dataset_name": "someone/texts", "dataset_path": None})))
    assert card.data.datasets == ["someone/texts"] and "someone/texts" in card.text
    assert ModelCard(model_card("x", record_of(options={"model_type": "scratch-mini"}))).data.base_model is None
    told = card.data
    assert (told.language, told.pipeline_tag, told.library_name) == ("ko", "text-generation", "transformers")
    assert "gpt2-korean" in told.tags


def test_what_is_not_known_is_not_made_up_and_a_folder_of_ones_own_is_no_data_set_of_the_hub(tmp_path):
    card = ModelCard(model_card("x", record_of(options={"model_type": "someone/model"})))
    assert (card.data.license, card.data.base_model) == ("unknown", "someone/model")
    card = ModelCard(model_card("x", record_of(options={"dataset_name": str(tmp_path), "dataset_path": None})))
    assert card.data.datasets is None


def test_it_tells_the_text_by_name_and_characters_and_which_step_the_model_is_of():
    text = model_card("x", record_of(model={"step": 2, "sample": None}))
    assert "| 학습한 글 | 나의 글.txt · 글자 12,345개 · 토큰 5,000개 |" in text and "글 모음" not in text
    assert "| 떼어 둔 글의 글자당 비트 | 4.5000 |" in text and "2스텝의 것" in text
    assert "| 떼어 둔 글의 글자당 비트 | 4.7500 |" in model_card("x", record_of(model={"step": 3, "sample": None}))
    assert "| a\\|b.txt · 글자" in model_card("x", record_of(options={"dataset_path": "a|b.txt"}))
    assert "A language model that continues Korean text" in text


def test_a_data_set_is_called_with_its_configuration():
    assert name_of_text({"dataset_name": "a/b", "dataset_config_name": "ko"}) == "a/b/ko"
    assert name_of_text({"dataset_name": "a/b", "dataset_path": None}) == "a/b"


def test_an_adapter_tells_of_another_vocabulary_where_it_has_one():
    own, bases = adapter_card("나", record_of(), True), adapter_card("나", record_of(), False)
    for words in ("resize_token_embeddings", "size mismatch"):
        assert words in own and words not in bases
    for text in (own, bases):
        card = ModelCard(text)
        assert (card.data.library_name, card.data.base_model) == ("peft", "gpt2-medium")
        assert "# 나: LoRA" in card.text and 'adapter = "나/adapter"' in card.text


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/b.txt", "b.txt"), ("/home/gildong", "~"), ("글/", "글"), ("data/*.txt", "*.txt"), ("/home/gildong/a", "a")],
)
def test_a_text_is_called_by_its_name_alone(path, name):
    assert name_of_text({"dataset_path": path}) == name


@pytest.mark.parametrize("written", ["이다.", "```\n---\nlicense: x\n---\n# 제목", "````", "`가` ````", ""])
def test_a_sample_stands_there_as_it_was_written(written):
    sample = {"prompt": "오늘은", "text": written}
    card = ModelCard(model_card("x", record_of(model={"step": 3, "sample": sample})))
    fence = "`" * (5 if "````" in written else 4 if "```" in written else 3)
    assert f"\n{fence}text\n오늘은{written}\n{fence}\n" in card.text and card.data.license == "mit"
    told = model_card("x", record_of(model={"step": 3, "sample": sample}), talks=True)
    assert f"나: 오늘은\n모델: {written}\n" in told and '[{"role": "user", "content": ' in told


def test_the_card_of_the_starting_model_is_read_wherever_it_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "README.md").write_text("---\nlicense: mit\nbase_model: someone/model\n---\n", "utf-8")
    card = ModelCard(model_card("x", record_of(options={"model_type": str(tmp_path)})))
    assert (card.data.license, card.data.base_model) == ("mit", "someone/model") and str(tmp_path) not in str(card)


@pytest.mark.parametrize("metadata", ["license: mit: 2", "\tlicense: mit", "license:", "mit"])
def test_a_card_of_the_starting_model_that_cannot_be_read_tells_no_license(tmp_path, metadata):
    (tmp_path / "README.md").write_text(f"---\n{metadata}\n---\n", "utf-8")
    card = ModelCard(model_card("x", record_of(options={"model_type": str(tmp_path)})))
    assert card.data.license == "unknown" and "정하지 않았습니다" in card.text and "`None`" not in card.text


def test_it_is_loaded_by_the_name_that_the_hub_has():
    text = model_card("폴더", record_of(), "gildong/my-model")
    assert 'model = "gildong/my-model"\n' in text and "# gildong/my-model" in text
    assert 'model = "폴더"  # ' in model_card("폴더", record_of())


def test_a_run_that_went_on_has_the_card_of_one_that_never_stopped(
    resumable_words, tmp_path, small_corpus, run_main, at_training_step
):
    """But for the folder's name: a sample that the model wrote, its evaluation, the license that was asked for."""
    words = [*resumable_words, "--do_eval", f"--validation_file={small_corpus}", "--license=CC-BY-4.0", "--lora_rank=2"]
    cards = []
    for name in ("하나", "둘"):
        if cards:
            at_training_step(5, lambda _: signal_self())
            assert run_main(*words, f"--output_dir={tmp_path / name}")[0] == 75
        assert run_main(*words, f"--output_dir={tmp_path / name}")[0] == 0
        cards.append(ModelCard.load(tmp_path / name / "README.md"))
    assert all(card.data.license == "cc-by-4.0" and "```text\n오늘은" in card.text for card in cards)
    assert "| 떼어 둔 글의 글자당 비트 | " in cards[0].text and "| LoRA | 랭크 2 |" in cards[0].text
    assert cards[0].text.replace("하나", "둘") == cards[1].text


def test_a_chat_model_shows_an_exchange(train_words, tmp_path, run_main):
    talks = tmp_path / "대화.csv"
    talks.write_text("질문,답변\n" + "".join(f"안녕 {n},반가워요 {n}\n" for n in range(9)), "utf-8")
    code, _, err = run_main("train.py", *train_words, f"--dataset_path={talks}", "--do_train", "--max_steps=2")
    assert code == 0, err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "```text\n나: 안녕하세요\n모델: " in card.text and "chats in Korean" in card.text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--do_train", "--license=apache2"], "혹시 apache-2.0인가요?"),
        (["--do_train", "--license=공공누리"], "--license=other"),
        (["--do_train", "--no_measure_texts"], "--no_measure_texts"),
    ],
)
def test_flags_that_mean_nothing_are_refused(train_words, run_main, words, told):
    code, _, err = run_main("train.py", *train_words, *words)
    assert code == 2 and told in err
