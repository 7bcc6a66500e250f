"""A Korean vocabulary for an English model: whole, of every string, agreed on everywhere."""

import copy
import json
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from conftest import ROOT, save_kogpt2, save_tiny_gpt2
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from gpt2_korean.messages import UserError
from gpt2_korean.text import cache, vocabulary
from gpt2_korean.text.documents import read_corpus

SAMPLE = ROOT / "data" / "korean_texts.txt"


@pytest.fixture(scope="module")
def documents():
    return read_corpus([SAMPLE])


@pytest.fixture
def english_folder(english_tokenizer, tmp_path):
    return save_tiny_gpt2(tmp_path / "english", english_tokenizer)


def test_the_same_text_gives_the_same_vocabulary_and_a_second_time_from_the_cache(documents, monkeypatch):
    first = vocabulary.learn_tokenizer(documents, 2048, 32)
    assert len(first) == 2048
    again = vocabulary.train_tokenizer(list(documents["text"]), 2048, 32)
    assert again.backend_tokenizer.to_str() == first.backend_tokenizer.to_str()
    learnt = []
    monkeypatch.setattr(vocabulary, "train_tokenizer", lambda *given: learnt.append(given) or first)
    kept = vocabulary.learn_tokenizer(documents, 2048, 32)
    assert kept.backend_tokenizer.to_str() == first.backend_tokenizer.to_str() and not learnt
    assert (kept.bos_token_id, kept.eos_token_id, kept.pad_token_id, kept.model_max_length) == (0, 0, 0, 32)
    monkeypatch.setattr(cache, "hash_code", lambda: "of another version, which may learn another one")
    vocabulary.learn_tokenizer(read_corpus([SAMPLE]), 2048, 32)
    assert len(learnt) == 1


def test_of_two_that_learn_the_same_vocabulary_at_once_one_waits_for_the_other(documents, monkeypatch):
    calls, train = [], vocabulary.train_tokenizer
    monkeypatch.setattr(vocabulary, "train_tokenizer", lambda *given: calls.append(given) or train(*given))
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda _: vocabulary.learn_tokenizer(documents, 1408, 32), range(2))
    assert len(calls) == 1 and len(first) == 1408
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_of_a_large_corpus_a_sample_is_learnt_whose_size_is_told(documents, monkeypatch, capsys):
    monkeypatch.setattr(vocabulary, "SAMPLED_CHARACTERS", 20_000)
    learnt_from, train = [], vocabulary.train_tokenizer
    monkeypatch.setattr(
        vocabulary, "train_tokenizer", lambda texts, *sizes: learnt_from.extend(texts) or train(texts, *sizes)
    )
    vocabulary.learn_tokenizer(documents.select(range(0, len(documents), 2)), 2048, 32)
    taken = sum(map(len, learnt_from))
    shown = re.search(r"글 ([\d,]+)자 가운데 고르게 뽑은 1/(\d+)로 어휘를", capsys.readouterr().err)
    texts, step = documents["text"][::2], int(shown[2])
    assert learnt_from == texts[::step] and 5_000 < taken < 21_000
    assert shown[1] == f"{sum(map(len, texts)):,}"


def test_of_how_much_a_vocabulary_is_learnt_is_told(documents, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    whole = documents.select(range(10))
    for given, told in (
        (whole, f"글 {sum(map(len, whole['text'])):,}자로"),
        (whole.to_iterable_dataset(), "글의 앞부분으로"),
    ):
        capsys.readouterr()
        vocabulary.learn_tokenizer(given, 384, 32)
        assert f"{told} 어휘를 배웁니다" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]  # nor is a stream's kept anywhere


def test_every_string_of_unicode_comes_back_whole(documents, rng):
    learnt = vocabulary.learn_tokenizer(documents, 1024, 32)
    planes = [range(0x20), range(0x20, 0x7F), range(0x80, 0x800), range(0xAC00, 0xD7A4), range(0x1100, 0x1200)]
    planes += [range(0x800, 0xD800), range(0xE000, 0x10000), range(0x10000, 0x110000)]
    for _ in range(500):
        text = "".join(chr(rng.choice(rng.choice(planes))) for _ in range(rng.randint(1, 40)))
        ids = learnt(text, add_special_tokens=False)["input_ids"]
        assert learnt.decode(ids, clean_up_tokenization_spaces=False) == text
        assert learnt.eos_token_id not in ids


def test_only_a_vocabulary_that_is_not_korean_gives_way_and_only_to_a_large_corpus(
    english_tokenizer, byte_tokenizer, sample_texts
):
    enough = vocabulary.ENOUGH_CHARACTERS
    assert vocabulary.should_replace(english_tokenizer, sample_texts, enough)
    assert vocabulary.should_replace(english_tokenizer, sample_texts, None)
    assert not vocabulary.should_replace(english_tokenizer, sample_texts, enough - 1)
    assert not vocabulary.should_replace(byte_tokenizer, sample_texts, enough)


def test_training_with_a_korean_vocabulary_agrees_on_its_ids_and_a_checkpoint_keeps_it(
    english_folder, tmp_path, run_main
):
    run = [
        "train.py", f"--dataset_path={SAMPLE}", "--do_train", "--max_steps=1", "--device=cpu", "--report_to=none",
        "--per_device_train_batch_size=1",
    ]  # fmt: skip
    first, second = tmp_path / "first", tmp_path / "second"
    code, _, err = run_main(
        *run, f"--model_type={english_folder}", "--tokenizer=korean", "--vocab_size=1024", f"--output_dir={first}"
    )
    assert code == 0, err
    assert "토큰 1,024개" in err and "조각과 쓰임에서 계산" in err
    model, tokenizer = AutoModelForCausalLM.from_pretrained(first), AutoTokenizer.from_pretrained(first)
    assert len(tokenizer) == model.config.vocab_size == 1024
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert {getattr(part, name) for part in (tokenizer, model.config, model.generation_config)} == {0}
    code, _, err = run_main(*run, f"--model_type={first}", f"--output_dir={second}")
    assert code == 0 and "어휘:" not in err
    kept = AutoTokenizer.from_pretrained(second)
    assert kept.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_another_tokenizer_can_be_given_and_an_unfitting_one_is_refused(
    english_folder, tiny_model_folder, byte_tokenizer, tmp_path, run_main
):
    run = [
        "train.py",
        f"--dataset_path={SAMPLE}",
        f"--model_type={english_folder}",
        "--do_train",
        "--max_steps=1",
        "--device=cpu",
    ]
    run += ["--report_to=none", "--per_device_train_batch_size=1"]
    assert run_main(*run, f"--tokenizer={tiny_model_folder}", f"--output_dir={tmp_path / 'out'}")[0] == 0
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(byte_tokenizer)
    code, _, err = run_main(*run, f"--tokenizer={tmp_path / 'none'}", f"--output_dir={tmp_path / 'other'}")
    assert code == 2 and "--tokenizer=" in err
    (tmp_path / "none").mkdir()
    code, _, err = run_main(*run, f"--tokenizer={tmp_path / 'none'}", f"--output_dir={tmp_path / 'other'}")
    assert code == 1 and "tokenizer.json이 든 폴더나" in err
    assert run_main(*run, "--vocab_size=1000")[0] == 2


def test_a_vocabulary_that_is_not_byte_level_is_refused_by_its_flag_before_another_is_learnt(
    english_tokenizer, documents, sample_texts, tmp_path, monkeypatch
):
    save_kogpt2(tmp_path, sample_texts)
    words = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), eos_token="</s>")
    words.save_pretrained(tmp_path)
    monkeypatch.setattr(vocabulary, "train_tokenizer", lambda *_: pytest.fail("learnt in vain"))
    for own, wanted in ((words, "korean"), (words, str(tmp_path)), (english_tokenizer, str(tmp_path))):
        with pytest.raises(UserError, match=f"^--tokenizer={wanted}: 바이트 단위 어휘가 아.*original"):
            vocabulary.choose_tokenizer(own, documents, SimpleNamespace(tokenizer=wanted, vocab_size=640))


@pytest.mark.parametrize(
    ("error", "words"), [(OSError("a gated repo.\nAsk."), "a gated repo."), (OSError(), "OSError")]
)
def test_a_tokenizer_of_the_hub_that_cannot_be_had_is_told_of_the_token_and_a_folder_is_not(
    english_tokenizer, documents, tmp_path, error, words
):
    class Reader:
        @staticmethod
        def from_pretrained(_, local_files_only, trust_remote_code):
            assert local_files_only != told and not trust_remote_code  # nobody's code is run
            raise error

    for wanted, told in (("owner/no-such-name", True), (str(tmp_path), False)):
        options = SimpleNamespace(tokenizer=wanted, vocab_size=None)
        with pytest.raises(UserError, match=rf"--tokenizer={wanted}: .*\({words}\)") as refusal:
            vocabulary.choose_tokenizer(english_tokenizer, documents, options, Reader)
        assert ("HF_TOKEN" in str(refusal.value)) == told


@pytest.mark.parametrize(
    ("part", "changes", "told"),
    [
        ("model", {"type": "Unigram"}, "Unigram"),
        ("model", {"dropout": 0.1}, "dropout"),
        ("model", {"continuing_subword_prefix": "##"}, "continuing_subword_prefix"),
        ("model", {"end_of_word_suffix": "</w>"}, "end_of_word_suffix"),
        ("model", {"byte_fallback": True, "ignore_merges": True}, "byte_fallback, ignore_merges"),
        ("normalizer", {"type": "NFC"}, "NFC"),
        ("pre_tokenizer", None, "pre_tokenizer: None"),
        ("pre_tokenizer", {"type": "Metaspace"}, "Metaspace"),
        ("pre_tokenizer", {"use_regex": False}, "ByteLevel"),
        ("pre_tokenizer", {"add_prefix_space": True}, "add_prefix_space"),
    ],
)
def test_what_has_a_tokenizer_cut_texts_otherwise_than_gpt2s_is_named(byte_tokenizer, part, changes, told):
    content = json.loads(byte_tokenizer.backend_tokenizer.to_str())
    assert vocabulary.unlike_gpt2(content) is None
    del content["pre_tokenizer"]["use_regex"]  # as files of older versions
    assert vocabulary.unlike_gpt2(content) is None
    changed = None if changes is None else {**(content[part] or {}), **changes}
    assert told in vocabulary.unlike_gpt2({**content, part: changed})


def test_two_sentences_teach_no_vocabulary_and_that_is_said(english_folder, english_tokenizer, tmp_path, run_main):
    path = tmp_path / "글.txt"
    path.write_text("오늘은 날씨가 좋다.\n\n내일은 비가 온다.", "utf-8")
    code, _, err = run_main(
        "train.py", f"--dataset_path={path}", f"--model_type={english_folder}", "--tokenizer=korean", "--do_train",
        f"--output_dir={tmp_path / 'out'}", "--max_steps=1", "--device=cpu", "--report_to=none",
    )  # fmt: skip
    assert code == 0 and "서로 다른 낱말이 적어" in err and "원래 어휘를 씁니다" in err
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")) == len(english_tokenizer)


def test_who_says_nothing_gets_a_vocabulary_of_a_large_text_and_who_says_original_the_models(
    english_tokenizer, documents, monkeypatch, capsys
):
    def choose(choice, size):
        options = SimpleNamespace(tokenizer=choice, vocab_size=size)
        return vocabulary.choose_tokenizer(english_tokenizer, documents, options)

    characters = sum(map(len, documents["text"]))
    monkeypatch.setattr(vocabulary, "ENOUGH_CHARACTERS", characters)
    learnt = choose(None, 1024)
    assert len(learnt) == 1024 and learnt.model_max_length == english_tokenizer.model_max_length
    assert choose("original", None) is english_tokenizer
    monkeypatch.setattr(vocabulary, "ENOUGH_CHARACTERS", characters + 1)
    assert choose(None, None) is english_tokenizer
    assert "--vocab_size" not in capsys.readouterr().err
    assert choose(None, 512) is english_tokenizer
    assert "--vocab_size는 쓰이지 않습니다" in capsys.readouterr().err


def test_another_tokenizer_has_the_models_context_one_template_and_what_fills_up_and_ends_a_text(
    english_tokenizer, byte_tokenizer, documents, tmp_path
):
    other, options = copy.deepcopy(byte_tokenizer), SimpleNamespace(tokenizer=str(tmp_path), vocab_size=None)
    other.model_max_length, other.pad_token = 5, None
    other.chat_template = {"default": "하나", "rag": "둘"}
    other.save_pretrained(tmp_path)
    chosen = vocabulary.choose_tokenizer(english_tokenizer, documents, options)
    assert len(chosen) == len(byte_tokenizer) and chosen.model_max_length == english_tokenizer.model_max_length
    assert chosen.pad_token_id == chosen.eos_token_id == 0 and chosen.chat_template == "하나"
    other.eos_token = None
    other.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=rf"--tokenizer={tmp_path}: 글의 끝.*tokenizer_config\.json"):
        vocabulary.choose_tokenizer(english_tokenizer, documents, options)


def test_a_small_vocabulary_that_is_asked_for_is_taken_and_of_a_large_one_what_the_text_teaches(
    english_tokenizer, documents, capsys
):
    few = documents.select(range(0, len(documents), 8))
    for asked, least, most in ((512, 512, 512), (2**17, vocabulary.LEAST_TOKENS, 2**17 - 128)):
        options = SimpleNamespace(tokenizer="korean", vocab_size=asked)
        learnt = vocabulary.choose_tokenizer(english_tokenizer, few, options)
        assert least <= len(learnt) <= most and len(learnt) % 128 == 0
    assert "낱말이 적어" not in capsys.readouterr().err


def test_a_longer_text_is_given_more_tokens_up_to_the_most(documents):
    texts = {characters: Dataset.from_dict({"length": [characters]}) for characters in (100, 10**6, 8 * 10**6, 10**9)}
    sizes = [vocabulary.fitting_size(text) for text in texts.values()]
    assert sizes == [4096, 5760, 16384, 32_000]  # 8,192 at two million, by the square root
    assert [vocabulary.fitting_size(text, 8192) for text in texts.values()] == [4096, 5760, 8192, 8192]
    assert all(size % 128 == 0 for size in sizes)
    assert vocabulary.fitting_size(documents.to_iterable_dataset()) == 32_000
