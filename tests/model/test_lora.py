"""LoRA: only the adapter learns, both it and the merged model are saved, and either writes the same text."""

import json
import shutil

import pytest
import torch
from conftest import save_tiny_gpt2, tiny_gpt2
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

from gpt2_korean.messages import UsageError
from gpt2_korean.model import lora
from gpt2_korean.model.load import load_pretrained
from gpt2_korean.text import vocabulary

pytestmark = pytest.mark.usefixtures("brief_texts")
IDS = torch.arange(1, 25).reshape(2, 12)


@pytest.fixture
def train_words(tmp_path, tiny_model_folder, sample_texts):
    """The words of a short run with adapters on the tiny model, to which a test adds its own."""
    corpus = tmp_path / "글.txt"
    corpus.write_text("\n\n".join(sample_texts[:12]), "utf-8")
    return [
        "train.py", f"--dataset_path={corpus}", f"--model_type={tiny_model_folder}", f"--output_dir={tmp_path / 'out'}",
        "--device=cpu", "--disable_tqdm", "--report_to=none", "--do_train", "--max_steps=4", "--save_steps=2",
        "--learning_rate=1e-2", "--lora_rank=4", "--no_bf16",
    ]  # fmt: skip


@pytest.fixture
def new_words(train_words, tmp_path, english_tokenizer, monkeypatch):
    """The same from an English model, which gets a Korean vocabulary, as small as the corpus is here."""
    folder = save_tiny_gpt2(tmp_path / "english", english_tokenizer, seed=1, initializer_range=0.02)
    monkeypatch.setattr(vocabulary, "LEAST_TOKENS", 384)
    monkeypatch.setattr(vocabulary, "ENOUGH_CHARACTERS", 100)
    return [*train_words, f"--model_type={folder}", "--vocab_size=384"]


@pytest.fixture(params=["own vocabulary", "new vocabulary"])
def run_words(request, train_words):
    return train_words if request.param == "own vocabulary" else request.getfixturevalue("new_words")


def logits(loaded):
    with torch.no_grad():
        return loaded.eval()(IDS).logits


def test_only_adapters_change_and_the_merged_model_is_the_adapted_one(
    train_words, tmp_path, tiny_model_folder, run_main
):
    code, _, err = run_main(*train_words)
    assert code == 0, err
    base, out = load_file(tiny_model_folder / "model.safetensors"), tmp_path / "out"
    for folder in (out / "checkpoint-2", out / "checkpoint-4", out / "adapter"):
        saved = load_file(folder / "adapter_model.safetensors")
        assert len(saved) == 2 * 2 * 4 and all("lora_" in name for name in saved)  # layers × matrices, A and B
        assert not (folder / "model.safetensors").exists()
        assert len(AutoTokenizer.from_pretrained(folder)) == 640
    merged = load_file(out / "model.safetensors")
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed == {name for name in base if "h." in name and "ln_" not in name and name.endswith("weight")}
    # By peft itself, without our code: the adapter on its base.
    for folder in (out / "checkpoint-4", out / "adapter"):
        reference = AutoPeftModelForCausalLM.from_pretrained(folder)
        torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(out)), logits(reference))
        assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(reference))
    for name in ("r", "lora_alpha"):
        assert lora.read_adapter(out / "adapter")[name] == {"r": 4, "lora_alpha": 8}[name]


def test_a_new_vocabulary_is_trained_whole_and_saved_with_the_adapter(new_words, tmp_path, run_main):
    code, _, err = run_main(*new_words)
    assert code == 0 and "어휘: 글자당" in err, err
    out = tmp_path / "out"
    saved = load_file(out / "checkpoint-4" / "adapter_model.safetensors")
    assert [name for name in saved if "lora_" not in name] == ["base_model.model.transformer.wte.weight"]
    before = load_file(out / "checkpoint-2" / "adapter_model.safetensors")
    rows = {name: step["base_model.model.transformer.wte.weight"] for name, step in (("2", before), ("4", saved))}
    assert rows["4"].shape == (384, 32) and not torch.equal(rows["2"], rows["4"])
    merged = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(merged.get_input_embeddings().weight, rows["4"]) and merged.config.tie_word_embeddings
    assert merged.lm_head.weight is merged.transformer.wte.weight
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "english")
    base.resize_token_embeddings(384)
    torch.testing.assert_close(logits(merged), logits(PeftModel.from_pretrained(base, out / "checkpoint-4")))


def test_a_resumed_run_ends_where_an_unbroken_one_does_bit_for_bit(new_words, tmp_path, run_main):
    assert run_main(*new_words)[0] == 0
    out = tmp_path / "out"
    unbroken = [load_file(out / name) for name in ("model.safetensors", "adapter/adapter_model.safetensors")]
    shutil.rmtree(out / "checkpoint-4")
    code, _, err = run_main(*new_words, "--resume_from_checkpoint=auto")
    assert code == 0 and "checkpoint-2" in err, err
    resumed = [load_file(out / name) for name in ("model.safetensors", "adapter/adapter_model.safetensors")]
    for one, other in zip(unbroken, resumed, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_generate_writes_the_same_from_checkpoint_adapter_and_merged_model(run_words, tmp_path, run_main):
    assert run_main(*run_words, "--do_eval")[0] == 0
    texts = [
        run_main("generate.py", f"--model_name_or_path={tmp_path / 'out' / name}", "--prompt=한국", "--seed=1",
                 "--length=8", "--device=cpu")[:2]
        for name in (".", "adapter", "checkpoint-4")
    ]  # fmt: skip
    assert texts[0][0] == 0 and texts[0][1].startswith("한국")
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("precision", ["--no_bf16", "--bf16"])
def test_evaluation_after_training_is_of_the_merged_model(train_words, tmp_path, sample_texts, run_main, precision):
    (held_out := tmp_path / "평가.txt").write_text("\n\n".join(sample_texts[12:24]), "utf-8")
    # The last step is evaluated too, before the adapter is merged, which rounds a little otherwise.
    evaluated_words = [*train_words, "--do_eval", "--eval_steps=4", f"--validation_file={held_out}", precision]
    code, trained, err = run_main(*evaluated_words)
    assert code == 0, err
    code, again, err = run_main(*evaluated_words, "--resume_from_checkpoint=auto")  # of a run that is over
    assert code == 0 and again == trained, err
    for folder in ("out", "out/adapter"):
        words = [f"--validation_file={held_out}", "--device=cpu", precision, "--report_to=none"]
        evaluated = run_main("train.py", "--do_eval", f"--model_type={tmp_path / folder}", *words)[1]
        first, then = (json.loads(out.splitlines()[-1]) for out in (trained, evaluated))
        assert first == {name: then[name] for name in first}


@pytest.mark.parametrize("embeddings", [False, True])
def test_merged_weights_are_those_of_the_merged_model_and_nothing_is_merged(embeddings):
    plain, before = tiny_gpt2(300), tiny_gpt2(300).state_dict()
    found = lora.merged_weights(plain)
    assert found.keys() == before.keys() and all(torch.equal(found[name], before[name]) for name in before)
    adapted = lora.adapt(plain, 4, train_embeddings=embeddings)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.1)
    base, before = adapted.get_base_model(), {name: each.clone() for name, each in adapted.state_dict().items()}
    found = lora.merged_weights(base)
    after = adapted.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    merged = lora.merge(adapted).state_dict()
    assert found.keys() == merged.keys() and all(torch.equal(found[name], merged[name]) for name in merged)
    assert not torch.equal(
        merged["transformer.h.0.attn.c_attn.weight"], tiny_gpt2(300).state_dict()["transformer.h.0.attn.c_attn.weight"]
    )


def test_an_adapter_loads_in_the_asked_type(train_words, tmp_path, run_main):
    assert run_main(*train_words)[0] == 0
    loaded, _ = load_pretrained(tmp_path / "out" / "adapter", torch.bfloat16)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}
    assert type(loaded) is type(tiny_gpt2(8))


def test_gradient_checkpointing_trains_the_same_adapter_and_is_not_warned_of(train_words, tmp_path, run_main, recwarn):
    adapters = []
    for words in ([], ["--gradient_checkpointing", "--overwrite_output_dir"]):
        assert run_main(*train_words, *words)[0] == 0
        adapters.append(load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors"))
    for name, weight in adapters[0].items():
        torch.testing.assert_close(weight, adapters[1][name])
        assert "lora_B" not in name or weight.any()
    assert not [each.message for each in recwarn if each.category is FutureWarning]


def test_a_run_without_adapters_leaves_none_of_an_earlier_one(train_words, tmp_path, run_main):
    assert run_main(*train_words)[0] == 0
    mine = tmp_path / "out" / "adapter" / "메모.txt"
    mine.write_text("내 것")
    assert run_main(*train_words, "--overwrite_output_dir", "--lora_rank=0")[0] == 0
    assert [path.name for path in (tmp_path / "out" / "adapter").iterdir()] == ["메모.txt"]
    assert not (tmp_path / "out" / "checkpoint-4" / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--lora_rank=-1"], ["--lora_rank", "0 이상"]),
        (["--lora_rank=0", "--lora_alpha=8"], ["--lora_alpha", "--lora_rank"]),
        (["--model_type=scratch-mini"], ["--lora_rank", "scratch-mini"]),
        (["--do_train=false", "--do_eval"], ["--lora_rank", "--do_train"]),
        (["--lora_rank=8", "--resume_from_checkpoint"], ["--lora_rank=8", "--lora_rank=4"]),
        (["--lora_rank=0", "--resume_from_checkpoint"], ["--lora_rank=0", "--lora_rank=4"]),
        (["--lora_alpha=9", "--resume_from_checkpoint"], ["--lora_alpha=9", "--lora_alpha=8"]),
        (["--model_type={out}/checkpoint-4", "--output_dir={out}2"], ["--model_type", "--output_dir"]),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(train_words, tmp_path, run_main, words, named):
    adapter = tmp_path / "out" / "checkpoint-4"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8, "base_model_name_or_path": "gpt2"}')
    (adapter / "trainer_state.json").write_text('{"global_step": 4, "max_steps": 4}')
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(4)}, adapter / "adapter_model.safetensors")
    code, _, err = run_main(*train_words, *(word.format(out=tmp_path / "out") for word in words))
    message = err[err.index("오류:") :]
    assert code == 2 and all(word in message for word in named), message
    assert len(message.strip().splitlines()) <= 2


def test_a_base_that_is_gone_or_a_damaged_adapter_is_named(train_words, tmp_path, run_main):
    assert run_main(*train_words)[0] == 0
    folder = tmp_path / "out" / "adapter"
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights[:100])
    code, _, err = run_main("generate.py", f"--model_name_or_path={folder}", "--device=cpu")
    assert code == 1 and str(folder) in err and "Traceback" not in err
    (folder / "adapter_model.safetensors").write_bytes(weights)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "/no/where"}))
    code, _, err = run_main("generate.py", f"--model_name_or_path={folder}", "--device=cpu")
    assert code == 2 and "adapter_config.json" in err and "/no/where" in err and "base_model_name_or_path" in err


def test_a_model_that_takes_no_adapter_is_told_of():
    model = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(UsageError, match=r"--lora_rank=4.*mamba"):
        lora.adapt(model, 4)


def test_an_adapter_whose_base_has_changed_since_says_so(train_words, tiny_model_folder, tmp_path, run_main):
    base, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(tiny_model_folder, base)
    assert run_main(*train_words, f"--model_type={base}")[0] == 0
    for has_changed in (False, True):
        for folder in (out / "checkpoint-4", out / "adapter"):
            code, _, err = run_main("generate.py", f"--model_name_or_path={folder}", "--prompt=가", "--length=1")
            assert code == 0 and (f"바탕 모델({base})의 파일이 바뀌었습니다" in err) == has_changed, err
        model = AutoModelForCausalLM.from_pretrained(base)
        model.transformer.wte.weight.data.neg_()
        model.save_pretrained(base)


def test_an_adapter_that_does_not_fit_its_base_any_more_is_named_as_well_where_its_run_goes_on(
    train_words, tiny_model_folder, byte_tokenizer, tmp_path, run_main
):
    base = shutil.copytree(tiny_model_folder, tmp_path / "base")
    run, adapter = [*train_words, f"--model_type={base}"], tmp_path / "out" / "checkpoint-4"
    assert run_main(*run)[0] == 0
    save_tiny_gpt2(base, byte_tokenizer, n_embd=64)
    for flag, words in (
        ("--model_name_or_path", ["generate.py", f"--model_name_or_path={adapter}", "--prompt=가", "--device=cpu"]),
        ("--resume_from_checkpoint", [*run, "--max_steps=6", "--resume_from_checkpoint"]),
    ):
        code, _, err = run_main(*words)
        assert code == 1 and f"{flag}={adapter}: 모델을 불러올 수 없습니다" in err, err


def test_a_whole_model_that_begins_from_an_adapter_learns_all_of_its_weights(run_words, tmp_path, run_main):
    assert run_main(*run_words)[0] == 0
    checkpoint, new = tmp_path / "out" / "checkpoint-4", tmp_path / "new"
    words = [*run_words, "--lora_rank=0", f"--model_type={checkpoint}", "--tokenizer=original", f"--output_dir={new}"]
    code, _, err = run_main(*(word for word in words if "vocab_size" not in word))
    assert code == 0, err
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", new))
    assert not [name for name in before if torch.equal(before[name], after[name])]
