"""Any causal LM loads with ids that agree; what cannot be loaded is refused with the way on."""

import copy
import errno
import json
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, read_to_write, save_kogpt2, tiny_gpt2
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, pipeline
from transformers.utils import logging

from gpt2_korean.messages import UserError
from gpt2_korean.model.find import Start
from gpt2_korean.model.hub import find_cached
from gpt2_korean.model.load import load_pretrained, load_start, make_scratch_model
from gpt2_korean.model.quiet import show_downloads_only
from gpt2_korean.model.tokenizer import agree_on_ends
from gpt2_korean.text.documents import read_corpus


def assert_special_ids_agree(model, tokenizer):
    for name in ("eos_token_id", "pad_token_id"):
        ids = {getattr(part, name) for part in (model.config, model.generation_config, tokenizer)}
        assert len(ids) == 1 and 0 <= ids.pop() < model.config.vocab_size


def put_in_cache(folder, name):
    """Lay a model's folder into the Hub's cache, as huggingface_hub does, for a hub id; where it is there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    repository = Path(HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    return shutil.copytree(folder, repository / "snapshots" / "abc")


def test_a_scratch_size_needs_no_download_and_loads_anywhere(tmp_path, sample_texts):
    model, tokenizer = make_scratch_model("scratch-mini", read_corpus([ROOT / "data" / "korean_texts.txt"]))
    assert (model.config.n_layer, model.config.n_embd) == (4, 256)
    assert_special_ids_agree(model, tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write = pipeline("text-generation", str(tmp_path))
    assert write("한국어", max_new_tokens=3, do_sample=False)[0]["generated_text"].startswith("한국어")
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = sample_texts[0]
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert loaded.model_max_length == model.config.n_positions


def test_a_scratch_size_learns_as_many_tokens_as_are_asked_for_where_its_text_has_them(tmp_path, capsys):
    few = tmp_path / "글.txt"
    few.write_text("한국어 글을 쓰는 모델이다. " * 40, "utf-8")
    for text, size, fits in ((ROOT / "data" / "korean_texts.txt", 512, True), (few, 2048, False)):
        model, tokenizer = make_scratch_model("scratch-mini", read_corpus([text]), size)
        told = capsys.readouterr().err
        assert model.config.vocab_size == len(tokenizer) <= size and (len(tokenizer) == size) == fits
        assert f"토큰 {len(tokenizer):,}개" in told and (f"{size:,}개에" in told) != fits


def test_what_becomes_of_the_checkpoint_that_a_run_goes_on_from_changes_no_weight(tiny_model_folder, tmp_path):
    checkpoint = Path(shutil.copytree(tiny_model_folder, tmp_path / "checkpoint-1"))
    options = SimpleNamespace(lora_rank=None, trust_remote_code=False)
    model, _ = load_start(Start(str(checkpoint), checkpoint), None, options)
    file = checkpoint / "model.safetensors"
    with file.open("rb+") as opened:
        opened.write(bytes(file.stat().st_size))
    saved = load_file(tiny_model_folder / file.name)
    assert all(torch.equal(weight, saved[name]) for name, weight in model.named_parameters())


def test_gpt2s_own_files_load_with_end_and_padding_in_agreement(tmp_path, byte_tokenizer):
    """As OpenAI published it: vocab.json and merges.txt, no padding token, no tokenizer.json."""
    backend = json.loads(byte_tokenizer.backend_tokenizer.to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(backend["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(" ".join(pair) for pair in backend["merges"]))
    tiny_gpt2(len(byte_tokenizer)).save_pretrained(tmp_path)
    model, tokenizer = load_pretrained(tmp_path, torch.float32)
    assert_special_ids_agree(model, tokenizer)
    assert tokenizer("한국어")["input_ids"] == byte_tokenizer("한국어")["input_ids"]
    assert tokenizer.model_max_length == 32


def test_model_and_generation_config_take_the_tokenizers_ids(byte_tokenizer):
    model, tokenizer = tiny_gpt2(640), copy.deepcopy(byte_tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(5)
    tokenizer.bos_token = None
    agree_on_ends(model, tokenizer)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (5, 5, 0)
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(3)  # as KoGPT2's
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|끝|>"]})
    for answer_end, ends in (("<|끝|>", [5, 640]), (tokenizer.eos_token, 5)):
        tokenizer.chat_template = "{{ messages[-1].content + '" + answer_end + "' }}"
        agree_on_ends(model, tokenizer)
        assert (model.config.bos_token_id, model.config.eos_token_id) == (3, 5)
        assert model.generation_config.eos_token_id == ends


def test_a_byte_level_tokenizer_composes_syllables_where_its_file_does(byte_tokenizer, tmp_path):
    tiny_gpt2(len(byte_tokenizer)).save_pretrained(tmp_path)
    content = {**json.loads(byte_tokenizer.backend_tokenizer.to_str()), "normalizer": {"type": "NFC"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    _, tokenizer = load_pretrained(tmp_path, torch.float32)
    apart = unicodedata.normalize("NFD", "한국어")
    assert tokenizer(apart)["input_ids"] == byte_tokenizer("한국어")["input_ids"]


def test_a_byte_level_tokenizer_is_given_no_end_of_text_besides_its_own(byte_tokenizer, tmp_path):
    tiny_gpt2(len(byte_tokenizer) + 7, eos_token_id=0).save_pretrained(tmp_path)
    content = byte_tokenizer.backend_tokenizer.to_str().replace("<|endoftext|>", "</s>")
    (tmp_path / "tokenizer.json").write_text(content, "utf-8")
    model, tokenizer = load_pretrained(tmp_path, torch.float32)
    assert (len(tokenizer), tokenizer.eos_token) == (len(byte_tokenizer), "</s>")
    assert_special_ids_agree(model, tokenizer)


def test_a_gpt2_with_the_words_of_bert_reads_them(tmp_path):
    """As kykim/gpt3-kor-small_based_on_gpt2: nothing but vocab.txt tells of them."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "오", "##늘", "##은"]
    tiny_gpt2(len(words), eos_token_id=3).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(words), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}', "utf-8")
    _, tokenizer = load_pretrained(tmp_path, torch.float32)
    assert tokenizer("오늘은", add_special_tokens=False)["input_ids"] == [5, 6, 7] and tokenizer.eos_token == "[SEP]"


@pytest.fixture
def kogpt2_like(tmp_path, sample_texts):
    save_kogpt2(tmp_path / "kogpt2", sample_texts)
    return tmp_path / "kogpt2"


def test_a_tokenizer_that_is_not_byte_level_is_kept_as_it_is(kogpt2_like, tmp_path, sample_texts):
    model, tokenizer = load_pretrained(kogpt2_like, torch.float32)
    assert_special_ids_agree(model, tokenizer)
    assert tokenizer.eos_token == "</s>"
    reference = Tokenizer.from_file(str(kogpt2_like / "tokenizer.json"))
    for text in sample_texts[:20]:
        assert tokenizer(text)["input_ids"] == reference.encode(text).ids
    model.save_pretrained(tmp_path / "again")
    tokenizer.save_pretrained(tmp_path / "again")
    again = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again("오늘은 날씨가 좋다")["input_ids"] == reference.encode("오늘은 날씨가 좋다").ids
    assert again.eos_token_id == 1


def test_generated_text_of_such_a_tokenizer_continues_the_prompt(kogpt2_like):
    from gpt2_korean.generation.text_stream import TextStream
    from gpt2_korean.text.prompts import encode_prompt

    _, tokenizer = load_pretrained(kogpt2_like, torch.float32)
    whole = "오늘은 날씨가 좋다"
    for prompt in ("오늘은", "오늘은 날씨가"):
        ids = encode_prompt(prompt, tokenizer, tokenizer.eos_token_id)
        stream = TextStream(tokenizer, ids)
        assert prompt + stream.push(tokenizer(whole)["input_ids"][len(ids) :]) + stream.close() == whole


def test_weights_that_have_no_place_are_told_in_a_line_but_for_constants_of_older_versions(
    kogpt2_like, capsys, caplog, monkeypatch
):
    monkeypatch.setattr(logging.get_logger("transformers"), "propagate", True)
    path = kogpt2_like / "model.safetensors"
    constants = {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(load_file(path) | constants, path, {"format": "pt"})
    load_pretrained(kogpt2_like, torch.float32)
    assert "masked_bias" not in capsys.readouterr().err
    save_file(load_file(path) | {"score.weight": torch.zeros(2, 4)}, path, {"format": "pt"})
    load_pretrained(kogpt2_like, torch.float32)
    assert capsys.readouterr().err.count("score.weight 등 1개") == 1 and not caplog.records


def test_damaged_or_unfitting_weights_are_refused_by_name(tiny_model_folder, tmp_path, rng):
    for case in ("truncated", "empty", "missing", "other size", "bad config"):
        folder = tmp_path / case
        shutil.copytree(tiny_model_folder, folder)
        weights = folder / "model.safetensors"
        if case == "truncated":
            weights.write_bytes(weights.read_bytes()[: rng.randrange(1, weights.stat().st_size)])
        elif case == "empty":
            weights.write_bytes(b"")
        elif case == "missing":
            weights.unlink()
        elif case == "other size":
            GPT2LMHeadModel(
                GPT2Config(n_layer=3, n_embd=32, n_head=2, n_positions=32, vocab_size=640)
            ).config.save_pretrained(folder)
        else:
            (folder / "config.json").write_text("{")
        with pytest.raises(UserError) as refusal:
            load_pretrained(folder, torch.float32, "--model_name_or_path")
        assert str(folder) in str(refusal.value) and "--model_name_or_path" in str(refusal.value)
        assert len(str(refusal.value).splitlines()) <= 2


def test_a_model_that_sees_what_follows_is_refused_unless_its_config_makes_it_a_decoder(tmp_path, byte_tokenizer):
    from transformers import RobertaConfig, RobertaForMaskedLM

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = RobertaConfig(vocab_size=len(byte_tokenizer), pad_token_id=1, max_position_embeddings=40, **shape)
    for part in (RobertaForMaskedLM(config), byte_tokenizer):
        part.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="뒤에 오는 글도"):
        load_pretrained(tmp_path, torch.float32)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | {"is_decoder": True}), "utf-8")
    load_pretrained(tmp_path, torch.float32)


@pytest.mark.parametrize("values", [{"temperature": 0.7}, {"do_sample": False, "top_k": 0}, {"early_stopping": True}])
def test_a_model_with_settings_of_writing_that_transformers_would_not_save_is_saved(
    tiny_model_folder, tmp_path, values
):
    shutil.copytree(tiny_model_folder, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(values), "utf-8")
    model, tokenizer = load_pretrained(tmp_path / "model", torch.float32)
    model.save_pretrained(tmp_path / "saved")
    assert_special_ids_agree(GPT2LMHeadModel.from_pretrained(tmp_path / "saved"), tokenizer)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gemma3", "글만 다루는 모델이 아니라서"), ("vit", "글만 다루는 모델이 아니라서"), ("t5", "T5"), ("bart", "BART")],
)
def test_a_model_of_pictures_or_translations_is_refused_as_such(tmp_path, byte_tokenizer, kind, reason):
    byte_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), "utf-8")
    save_file({"weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=reason):
        load_pretrained(tmp_path, torch.float32)


def test_a_hub_id_out_of_reach_names_the_three_ways_on():
    with pytest.raises(UserError) as refusal:
        load_pretrained("gpt2-medium", torch.float32)
    for way in ("모델 폴더", "HF_ENDPOINT", "HF_HOME", "--model_type=scratch-mini"):
        assert way in str(refusal.value)
    with pytest.raises(UserError, match="HF_HOME") as refusal:
        load_pretrained("gpt2-medium", torch.float32, "--model")  # of a program that trains nothing
    assert "scratch" not in str(refusal.value)


def test_a_cached_hub_model_loads_without_the_hub(tiny_model_folder):
    """A copied HF_HOME is one of the ways on."""
    put_in_cache(tiny_model_folder, "owner/tiny")
    model, _ = load_pretrained("owner/tiny", torch.float32)
    assert model.config.n_embd == 32


def test_of_a_cached_model_the_newest_files_are_read_as_far_as_the_hub_answers(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_cached("owner/two", "--model_type") == (None, None)
    repository = tmp_path / "models--owner--two"
    for commit in ("old", "new"):
        (repository / "snapshots" / commit).mkdir(parents=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (repository / "snapshots" / commit / name).write_text("{}")
        save_file({"weight": torch.zeros(1)}, repository / "snapshots" / commit / "model.safetensors")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("old")
    both = [SimpleNamespace(rfilename=name) for name in ("config.json", "adapter_config.json")]
    for told, siblings in (("old", None), ("new", both), ("newer", None)):  # one with an adapter beside it is whole
        info = SimpleNamespace(sha=told, siblings=siblings)
        monkeypatch.setattr("huggingface_hub.model_info", lambda *_, info=info, **__: info)
        there = repository / "snapshots" / told
        assert find_cached("owner/two", "--model_type") == (there if there.exists() else None, True)
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: 1 / 0)
    assert find_cached("owner/two", "--model_type") == (repository / "snapshots" / "old", False)


@pytest.mark.parametrize("lacks", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("is_noted", [False, True])
def test_of_a_cached_model_that_lacks_a_file_of_a_tokenizer_none_is_read(monkeypatch, tmp_path, lacks, is_noted):
    """Of one that has no such file the Hub's library keeps a note."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    there = {"config.json", "tokenizer.json", "tokenizer_config.json"} - {lacks}
    names = [f"snapshots/abc/{name}" for name in there] + ([f".no_exist/abc/{lacks}"] if is_noted else [])
    for name, text in (("refs/main", "abc"), *((name, "{}") for name in names)):
        (tmp_path / "models--owner--part" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models--owner--part" / name).write_text(text)
    assert find_cached("owner/part", "--model_type") == (None, None)


def test_a_download_that_broke_off_names_what_is_missing_and_how_it_goes_on(tiny_model_folder):
    (put_in_cache(tiny_model_folder, "owner/half") / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model\.safetensors.*`hf download owner/half`"):
        load_pretrained("owner/half", torch.float32)


def test_why_the_hub_is_out_of_reach_is_told(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

    monkeypatch.setattr("huggingface_hub.model_info", unreachable)
    with pytest.raises(UserError, match=r"파일도 없습니다\(ConnectionError: \[SSL: CERTIFICATE_VERIFY_FAILED\]"):
        load_pretrained("owner/none", torch.float32)


GATED, NO_TOKEN = {"X-Error-Code": "GatedRepo"}, {"X-Error-Message": "Invalid credentials in Authorization header"}
TOKEN = "hf_" + "x" * 30


@pytest.mark.parametrize(("refused", "status", "headers", "token", "words"), [
    ("/resolve/", 401, GATED, TOKEN, "허락이 필요한 모델입니다"),
    ("/resolve/", 502, {}, TOKEN, r"Hub에서 받지 못했습니다\(.*502"),
    ("/resolve/", 200, {}, TOKEN, r"Hub에서 받지 못했습니다\(FileMetadataError"),  # a hotel's page to log in at
    ("/api/", 404, {"X-Error-Code": "RepoNotFound"}, TOKEN, r"Hub에 그런 모델이 없습니다.*HF_TOKEN"),
    ("/api/", 429, {}, TOKEN, r"Hub에서 받지 못했습니다\(.*429"),
    ("/api/", 401, NO_TOKEN, TOKEN, "Hub가 토큰을 받지 않습니다"),
    ("/api/", 401, {}, "", r"Hub에서 받지 못했습니다\(.*401"),  # of a mirror: there is no token to mend
])  # fmt: skip
def test_what_the_hub_refuses_is_told_as_such(refused, status, headers, token, words, monkeypatch):
    """Of a gated model it tells everybody; only its files are refused."""
    import httpx2
    from huggingface_hub.utils import _http, set_client_factory

    def answer(request):
        if refused in request.url.path:
            return httpx2.Response(status, headers=headers, request=request)
        return httpx2.Response(200, json={"id": "owner/model", "sha": "a" * 40, "siblings": []}, request=request)

    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda _: None)  # between its library's trials
    usual = _http.default_client_factory
    set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(answer)))
    try:
        with pytest.raises(UserError, match=words) as refusal:
            load_pretrained("owner/model", torch.float32)
    finally:
        set_client_factory(usual)
    assert len(str(refusal.value).splitlines()) <= 2


def a_file_that_the_hub_has_not():
    import httpx2
    from huggingface_hub.errors import RemoteEntryNotFoundError

    request = httpx2.Request("GET", "https://hub/owner/model/resolve/main/model-00002-of-00002.safetensors")
    return RemoteEntryNotFoundError("404 Client Error", response=httpx2.Response(404, request=request))


@pytest.mark.parametrize(("error", "status", "words"), [
    ("RepositoryNotFoundError", 401, "Hub에 그런 모델이 없습니다.*HF_TOKEN"),  # it may be private by now
    ("HfHubHTTPError", 429, "Hub에서 받지 못했습니다"),
])  # fmt: skip
def test_a_hub_that_refuses_is_not_called_out_of_reach_and_hinders_no_model_that_is_there_already(
    tiny_model_folder, error, status, words, monkeypatch
):
    import httpx2
    from huggingface_hub import errors

    def refuse(*_, **__):
        request = httpx2.Request("GET", "https://hub/api/models/owner/refused")
        raise getattr(errors, error)("no", response=httpx2.Response(status, request=request))

    monkeypatch.setattr("huggingface_hub.model_info", refuse)
    there = put_in_cache(tiny_model_folder, f"owner/refused-{status}")
    model, _ = load_pretrained(f"owner/refused-{status}", torch.float32)
    assert model.config.n_embd == 32
    (there / "model.safetensors").unlink()
    with pytest.raises(UserError, match=words) as refusal:
        load_pretrained(f"owner/refused-{status}", torch.float32)
    assert "네트워크" not in str(refusal.value)


@pytest.mark.parametrize(("error", "words"), [
    (a_file_that_the_hub_has_not(), r"모델을 불러올 수 없습니다 \(Can't load"),  # and will not have a little later
    (OSError(errno.ENOSPC, "No space left on device"), r"HF_HOME.*디스크에 남은 공간이 없습니다"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), r"HF_HOME.*디스크에 남은 공간이 없습니다"),
    (ConnectionError("Data processing error: CAS service error"), r"Hub에서 받지 못했습니다\(ConnectionError: Data"),
    (OSError("Consistency check failed: file should be of size 9"), r"Hub에서 받지 못했습니다\(OSError: Consistency"),
])  # fmt: skip
def test_a_download_that_breaks_off_is_told_as_one_whatever_transformers_makes_of_it(error, words, monkeypatch):
    def load(*_, **__):
        try:
            raise error
        except OSError:
            raise OSError("Can't load the configuration. Make sure you don't have a local directory") from None

    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: SimpleNamespace(sha="abc", siblings=[]))
    monkeypatch.setattr("gpt2_korean.model.load.choose_attention", load)  # the first to ask for a file
    with pytest.raises(UserError, match=words):
        load_pretrained("owner/model", torch.float32)


def test_nobody_is_asked_to_convert_the_pickled_weights_of_the_hub(tiny_model_folder, monkeypatch, tmp_path):
    """Nor is the end of a program waited with for an answer."""
    folder = tmp_path / "repository"
    shutil.copytree(tiny_model_folder, folder)
    (folder / "model.safetensors").rename(tmp_path / "weights")
    torch.save(load_file(tmp_path / "weights"), folder / "pytorch_model.bin")

    def find(_, file, **__):
        return str(folder / file) if (folder / file).exists() else None

    started = []
    monkeypatch.delenv("DISABLE_SAFETENSORS_CONVERSION", raising=False)
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: SimpleNamespace(sha="abc", siblings=[]))
    monkeypatch.setattr("transformers.modeling_utils.is_offline_mode", lambda: False)
    monkeypatch.setattr("transformers.modeling_utils.has_file", lambda *_, **__: False)
    monkeypatch.setattr("transformers.modeling_utils.cached_file", find)
    monkeypatch.setattr("transformers.modeling_utils.auto_conversion", lambda *_, **__: started.append(1))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the Hub's client's tries to reach it: minutes in all
    put_in_cache(folder, "owner/pickled")
    load_pretrained("owner/pickled", torch.float32)
    assert not started


@pytest.mark.parametrize("hub_answers", [False, True])
def test_an_adapter_of_the_hub_is_sent_for_as_a_folder(hub_answers, tmp_path, monkeypatch):
    """By its name it would be looked for as a whole model, and a downloaded one called missing."""
    info = SimpleNamespace(sha="abc", siblings=[SimpleNamespace(rfilename="adapter_config.json")])
    monkeypatch.setattr("huggingface_hub.model_info", lambda *_, **__: info if hub_answers else 1 / 0)
    if not hub_answers:
        (tmp_path / "adapter_config.json").write_text("{}")
        put_in_cache(tmp_path, "owner/adapter")
    with pytest.raises(UserError, match=r"어댑터는 .*`hf download owner/adapter`"):
        load_pretrained("owner/adapter", torch.float32)


def test_the_hub_is_asked_once_for_a_cached_model_whatever_it_is(byte_tokenizer, tmp_path, monkeypatch):
    """One that is no GPT-2 goes another way, and the Hub would be waited for again: seconds where it is silent."""
    asked = []
    monkeypatch.setattr("huggingface_hub.model_info", lambda name, timeout: asked.append((name, timeout)) or 1 / 0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(**shape, vocab_size=len(byte_tokenizer), eos_token_id=byte_tokenizer.eos_token_id)
    for part in (LlamaForCausalLM(config), byte_tokenizer):
        part.save_pretrained(tmp_path)
    put_in_cache(tmp_path, "owner/llama")
    assert read_to_write("owner/llama").decoder.vocab_size == len(byte_tokenizer)
    [(name, seconds)] = asked
    assert name == "owner/llama" and 0 < seconds <= 30


def test_downloads_show_progress_and_loading_does_not():
    import huggingface_hub.utils
    import transformers

    show_downloads_only()
    assert not huggingface_hub.utils.are_progress_bars_disabled()
    assert not transformers.utils.logging.is_progress_bar_enabled()
