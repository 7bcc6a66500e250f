"""Rows of a new vocabulary: GPT-2's own where it has the token, else built of its pieces and of how it is used."""

import copy
import json

import numpy
import pytest
import torch
from conftest import ROOT, save_tiny_gpt2, tiny_gpt2
from safetensors.torch import load_file
from transformers import GPTJConfig, GPTJForCausalLM

from gpt2_korean.model import embeddings
from gpt2_korean.text.blocks import pack
from gpt2_korean.text.documents import read_corpus
from gpt2_korean.text.packing import plan_stream
from gpt2_korean.text.vocabulary import train_tokenizer
from gpt2_korean.training import trainer

SAMPLE = ROOT / "data" / "korean_texts.txt"


@pytest.fixture
def ids(byte_tokenizer, sample_texts):
    return torch.tensor(byte_tokenizer("\n".join(sample_texts[:40]))["input_ids"])


@pytest.mark.parametrize("tied", [True, False])
def test_rows_are_copied_bit_for_bit_or_start_from_the_mean_of_their_pieces(
    english_tokenizer, byte_tokenizer, ids, tied, monkeypatch
):
    model = tiny_gpt2(len(english_tokenizer), tie_word_embeddings=tied)
    old = [layer.weight.detach().clone() for layer in (model.transformer.wte, model.lm_head)]
    # Without what the corpus tells of the tokens, the old tokenizer itself, on the text of a token, is the reference.
    monkeypatch.setattr(embeddings, "usage_vectors", lambda ids, size, width: torch.zeros(size, width))
    embeddings.carry_over(model, english_tokenizer, byte_tokenizer, ids)
    copied = [len(piece) == 1 for piece in embeddings.find_pieces(english_tokenizer, byte_tokenizer)].count(True)
    assert 256 < copied < len(byte_tokenizer) - 100 and model.config.vocab_size == len(byte_tokenizer)
    assert (model.lm_head.weight is model.transformer.wte.weight) == tied
    old_ids, checked = english_tokenizer.get_vocab(), 0
    for token, index in byte_tokenizer.get_vocab().items():
        text = byte_tokenizer.decode([index])
        for before, layer in zip(old, (model.transformer.wte, model.lm_head), strict=True):
            if token in old_ids:
                assert torch.equal(layer.weight[index], before[old_ids[token]])
            elif "\ufffd" not in text and text.strip() == text:
                torch.testing.assert_close(layer.weight[index], before[english_tokenizer(text)["input_ids"]].mean(0))
                checked += 1
    assert checked > 50
    assert model(torch.tensor([[1, 2, 3]])).logits.shape[-1] == len(byte_tokenizer)


def test_the_bias_of_a_tokens_logit_goes_with_it(english_tokenizer, byte_tokenizer, ids):
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "rotary_dim": 4, "n_positions": 32}
    model = GPTJForCausalLM(GPTJConfig(vocab_size=len(english_tokenizer), **shape))
    old = torch.rand(len(english_tokenizer))
    model.lm_head.bias.data.copy_(old)
    embeddings.carry_over(model, english_tokenizer, byte_tokenizer, ids)
    pieces = embeddings.find_pieces(english_tokenizer, byte_tokenizer)
    wanted = torch.stack([old[piece].mean() for piece in pieces])
    torch.testing.assert_close(model.lm_head.bias.data, wanted)
    tokenizer = copy.deepcopy(byte_tokenizer)
    tokenizer.add_tokens(["<|user|>"], special_tokens=True)
    embeddings.add_rows(model, tokenizer, [len(wanted)])
    spelt = tokenizer("<|user|>", split_special_tokens=True)["input_ids"]
    torch.testing.assert_close(model.lm_head.bias.data, torch.cat([wanted, wanted[spelt].mean()[None]]))


def test_a_token_that_was_added_starts_from_what_spells_its_name(english_tokenizer, byte_tokenizer):
    names = ["ㅋㅋㅋ", "   ", "[질문]", "<bot>", "사용자"]
    new, old = copy.deepcopy(byte_tokenizer), english_tokenizer
    new.add_tokens(names[:3])
    new.add_tokens(names[3:], special_tokens=True)
    pieces = embeddings.find_pieces(old, new)
    for name, index in zip(names, new.convert_tokens_to_ids(names), strict=True):
        assert pieces[index] == old(name, add_special_tokens=False)["input_ids"] != []
        assert old.decode(pieces[index]) == name


def test_the_end_of_a_text_is_the_models_own_whatever_it_is_called(english_tokenizer, byte_tokenizer):
    new = copy.deepcopy(byte_tokenizer)
    new.add_special_tokens({"eos_token": "</s>"})
    pieces = embeddings.find_pieces(english_tokenizer, new)
    assert new.eos_token_id == len(byte_tokenizer) and pieces[-1] == [english_tokenizer.eos_token_id]


def test_where_rows_lie_as_their_tokens_are_used_a_new_one_goes_to_where_its_use_says(rng):
    """Of a model whose rows are how their tokens are used, turned, about a mean. Spelling tells nothing of the others:
    each moves, from the mean of its pieces, to where the turn has it, and as far as the rows are apart.
    """
    copied, vocab_size, width, ids = 70, 80, 8, [0]
    for _ in range(4000):
        ids.append((3 * ids[-1] + rng.randrange(4)) % vocab_size)
    usage = embeddings.usage_vectors(torch.tensor(ids), vocab_size, width)
    pieces = [[index] for index in range(copied)] + [[0, 1]] * (vocab_size - copied)
    generator, turned = torch.Generator().manual_seed(rng.randrange(2**31)), []
    for times, mean in ((3, 5), (0.5, -2)):
        turn, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
        turned.append(times * usage @ turn + mean)
    found = embeddings.carried_rows([rows[:copied] for rows in turned], pieces, torch.tensor(ids))
    for rows, whole in zip(found, turned, strict=True):
        old = whole[:copied]
        assert torch.equal(rows[:copied], old)
        moved, apart = rows[copied:] - old[:2].mean(0), numpy.linalg.norm(old - old.numpy().mean(0), axis=1).mean()
        torch.testing.assert_close(moved.norm(dim=1), float(apart) * usage[copied:].norm(dim=1), rtol=1e-3, atol=1e-4)
        assert torch.cosine_similarity(moved, (whole - whole.mean(0))[copied:]).min() > 0.5


@pytest.mark.parametrize("neighbours", [embeddings.NEIGHBOURS, 2])
def test_usage_vectors_lie_as_the_square_roots_of_the_probabilities_of_neighbours(rng, monkeypatch, neighbours):
    """Counted in Python, token by token: with room for all components, all inner products are the same."""
    monkeypatch.setattr(embeddings, "NEIGHBOURS", neighbours)
    vocab_size = 12
    ids = [rng.choice([*[1] * 5, *[3] * 8, *range(vocab_size - 1)]) for _ in range(400)]  # the last never occurs
    counts = numpy.zeros((vocab_size, len(embeddings.PLACES), vocab_size))
    for at, token in enumerate(ids):
        for column, place in enumerate(embeddings.PLACES):
            if 0 <= at + place < len(ids):
                counts[token, column, ids[at + place]] += 1
    occurrences = numpy.bincount(ids, minlength=vocab_size)
    usual = counts.sum(0) / len(ids)
    roots = numpy.sqrt((counts + embeddings.PRIOR * usual) / (occurrences[:, None, None] + embeddings.PRIOR))
    roots = roots[..., occurrences.argsort()[::-1][:neighbours]].reshape(vocab_size, -1)  # of the most frequent
    roots -= roots.mean(0)
    roots /= (numpy.linalg.norm(roots, axis=1) * occurrences).sum() / occurrences.sum()
    found = embeddings.usage_vectors(torch.tensor(ids), vocab_size, 64).numpy()
    assert found.shape == (vocab_size, 64)
    numpy.testing.assert_allclose(found @ found.T, roots @ roots.T, atol=1e-4)
    fewer = []
    for seed in range(2):  # which draws nothing
        torch.manual_seed(seed)
        fewer.append(embeddings.usage_vectors(torch.tensor(ids), vocab_size, 6))
    assert torch.equal(*fewer) and numpy.linalg.matrix_rank(fewer[0]) == 6


def test_products_of_more_columns_than_are_computed_at_a_time_are_all_there(rng):
    matrix = torch.rand(5, 1100, generator=torch.Generator().manual_seed(rng.randrange(2**31)))
    torch.testing.assert_close(embeddings._products(matrix), matrix.T @ matrix)


def test_components_left_out_are_the_least(rng):
    """Of 8 directions with falling spread 4 are kept: numpy's decomposition says how much that can hold."""
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    features = torch.randn(200, 8, generator=generator) * torch.tensor([8.0, 6, 4, 3, 2, 1, 0.5, 0.2])
    kept = features @ embeddings._leading_space(features.T @ features, 4)
    largest = numpy.linalg.svd(features.numpy(), compute_uv=False)[:4]
    assert kept.norm().item() == pytest.approx(numpy.linalg.norm(largest), rel=1e-3)


def test_aligning_finds_the_turn_that_was_hidden_and_changes_no_distance(rng):
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    usage = torch.randn(50, 8, generator=generator)
    usage -= usage.mean(0)
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    torch.testing.assert_close(embeddings.align(usage, 3 * usage @ turn + 5), usage @ turn, atol=1e-4, rtol=1e-4)
    elsewhere = embeddings.align(usage, torch.randn(50, 8, generator=generator))
    torch.testing.assert_close(elsewhere @ elsewhere.T, usage @ usage.T, atol=1e-4, rtol=1e-4)


def test_tokens_that_are_used_alike_start_close_together(rng):
    """3 and 4 stand anywhere between 1 and 2, 5 between others: as spellings do not tell, their use does."""
    ids = []
    for _ in range(300):
        ids += rng.choice([[1, rng.choice([3, 4]), 2], [6, 5, 7], [rng.randrange(8, 20)]])
    usage = embeddings.usage_vectors(torch.tensor(ids), 20, 16)
    assert (usage[3] - usage[4]).norm() < 0.3 * (usage[3] - usage[5]).norm()


@pytest.mark.parametrize("length", [0, 1, 3])
def test_a_corpus_of_a_few_tokens_still_gives_rows(english_tokenizer, byte_tokenizer, ids, length):
    model = tiny_gpt2(len(english_tokenizer))
    embeddings.carry_over(model, english_tokenizer, byte_tokenizer, ids[:length])
    assert model.transformer.wte.weight.isfinite().all()


def test_what_is_kept_for_the_next_run_is_what_the_whole_text_tells_of_this_model_and_vocabulary(
    english_tokenizer, byte_tokenizer, small_corpus, sample_texts, monkeypatch, capsys
):
    monkeypatch.setattr(embeddings, "NEIGHBOURS", 16)  # is quicker
    documents = read_corpus([small_corpus])
    blocks = pack(documents, byte_tokenizer, 32, plan_stream)

    def replaced(old=english_tokenizer, change=lambda model: None):
        model = tiny_gpt2(len(old), tie_word_embeddings=False)
        change(model)
        capsys.readouterr()
        embeddings.replace_vocabulary(model, old, byte_tokenizer, documents, blocks)
        return model.lm_head.weight, model.transformer.wte.weight, capsys.readouterr().err

    model, texts = tiny_gpt2(len(english_tokenizer), tie_word_embeddings=False), documents["text"][:]
    ids = [index for text in texts for index in [*byte_tokenizer(text)["input_ids"], byte_tokenizer.eos_token_id]]
    embeddings.carry_over(model, english_tokenizer, byte_tokenizer, torch.tensor(ids))
    *first, told = replaced()
    assert all(map(torch.equal, first, (model.lm_head.weight, model.transformer.wte.weight)))
    with monkeypatch.context() as patch:
        patch.setattr(embeddings, "carried_rows", None)  # may not be called
        *again, told_again = replaced()
    assert all(map(torch.equal, first, again)) and told == told_again

    spent = [sum(len(each(text)["input_ids"]) for text in texts) for each in (english_tokenizer, byte_tokenizer)]
    before, after = (tokens / sum(map(len, texts)) for tokens in spent)
    copied = len(english_tokenizer.get_vocab().keys() & byte_tokenizer.get_vocab().keys())
    assert f"글자당 {before:.2f} → {after:.2f}토큰 · 토큰 640개(그대로 옮김 {copied}개" in told
    assert f"계산 {640 - copied}개)" in told

    with torch.no_grad():
        head, _, _ = replaced(change=lambda model: model.lm_head.weight.neg_())
        _, tokens, _ = replaced(change=lambda model: model.transformer.wte.weight.neg_())
    other, _, _ = replaced(train_tokenizer(sample_texts[40:80], 640, 32))
    assert not any(map(torch.equal, (head, tokens, other), (first[0], first[1], first[0])))
    calls, carried_rows = [], embeddings.carried_rows
    monkeypatch.setattr(embeddings, "carried_rows", lambda *given: calls.append(given) or carried_rows(*given))
    monkeypatch.setattr(embeddings, "__file__", __file__)
    assert torch.equal(replaced()[0], first[0]) and len(calls) == 1  # another version of the program may compute others


def test_embeddings_learn_at_their_own_rate_and_nothing_else_does(tiny_model_folder, tmp_path, run_main):
    """A step of plain gradient descent is as long as its learning rate: ten times the rate, ten times the step."""
    run = ["train.py", f"--dataset_path={SAMPLE}", f"--model_type={tiny_model_folder}", "--do_train", "--max_steps=1"]
    run += [
        "--device=cpu",
        "--report_to=none",
        "--optim=sgd",
        "--learning_rate=0.01",
        "--per_device_train_batch_size=1",
    ]
    steps = []
    before = load_file(tiny_model_folder / "model.safetensors")
    for words in ([], ["--embedding_learning_rate=0.1"]):
        assert run_main(*run, *words, f"--output_dir={tmp_path / 'out'}", "--overwrite_output_dir")[0] == 0
        after = load_file(tmp_path / "out" / "model.safetensors")
        steps.append({name: after[name] - before[name] for name in before})
    for name, step in steps[0].items():
        times = 10 if name == "transformer.wte.weight" else 1
        torch.testing.assert_close(steps[1][name], times * step, atol=1e-6, rtol=1e-3)
    assert steps[0]["transformer.wte.weight"].abs().max() > 1e-5


def test_what_is_split_off_keeps_all_else_of_its_group():
    weights = {name: torch.nn.Parameter(torch.zeros(1)) for name in "abcde"}
    groups = [
        {"params": [weights["a"], weights["b"]], "weight_decay": 0.1},
        {"params": [weights["c"], weights["d"]], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, eps=1e-6)
    assert embeddings.split_off(optimizer, [weights[name] for name in "bde"], lr=5e-3) == 2
    named = {id(weight): name for name, weight in weights.items()}
    found = [
        ("".join(named[id(each)] for each in group["params"]), group["weight_decay"], group["lr"], group["eps"])
        for group in optimizer.param_groups
    ]
    assert found == [("a", 0.1, 1e-3, 1e-6), ("c", 0.0, 1e-3, 1e-6), ("b", 0.1, 5e-3, 1e-6), ("d", 0.0, 5e-3, 1e-6)]


def test_embeddings_that_are_no_weights_of_their_own_are_told_of(
    small_corpus, tiny_model_folder, tmp_path, run_main, monkeypatch
):
    """As FSDP may have it, which keeps several weights in one."""
    monkeypatch.setattr(trainer, "embedding_layers", lambda model: [torch.nn.Embedding(3, 2)])
    code, _, err = run_main(
        "train.py", f"--dataset_path={small_corpus}", f"--model_type={tiny_model_folder}", "--do_train",
        "--max_steps=1", f"--output_dir={tmp_path / 'out'}", "--device=cpu", "--report_to=none",
        "--embedding_learning_rate=0.1",
    )  # fmt: skip
    assert code == 0 and "--embedding_learning_rate 대신 --learning_rate" in err


def test_a_run_that_goes_on_keeps_the_rate_of_its_new_embeddings(english_tokenizer, tmp_path, run_main):
    source, out = save_tiny_gpt2(tmp_path / "english", english_tokenizer, initializer_range=0.02), tmp_path / "out"
    run = [
        "train.py", f"--dataset_path={SAMPLE}", f"--model_type={source}", "--tokenizer=korean", "--vocab_size=1024",
        f"--output_dir={out}", "--do_train", "--device=cpu", "--report_to=none", "--per_device_train_batch_size=1",
        "--save_steps=2", "--disable_tqdm",
    ]  # fmt: skip
    assert run_main(*run, "--max_steps=4")[0] == 0
    whole = load_file(out / "checkpoint-4" / "model.safetensors")
    rates = [group["lr"] for group in torch.load(out / "checkpoint-2" / "optimizer.pt")["param_groups"]]
    assert rates[-1] / rates[0] == pytest.approx(2e-3 / 5e-4) and len(rates) == 3  # by the plan for so few steps
    for path in (out / "checkpoint-4").iterdir():
        path.unlink()
    code, _, err = run_main(*run, "--max_steps=4", "--resume_from_checkpoint=auto")
    assert code == 0 and "임베딩 0.002" in err and "조각과 쓰임" not in err
    resumed = load_file(out / "checkpoint-4" / "model.safetensors")
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    assert json.loads((out / "checkpoint-4" / "resume.json").read_text())["embedding_learning_rate"] == 2e-3
    code, _, err = run_main(*run, "--max_steps=6", "--resume_from_checkpoint=auto", "--embedding_learning_rate=0.1")
    assert code == 1 and "--embedding_learning_rate" in err and "0.002" in err
