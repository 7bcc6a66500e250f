"""Positions that start anew keep documents apart in transformers' own forward, or the model is told to be unable."""

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_gpt2
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, Trainer, TrainingArguments

from gpt2_korean.model.packing import can_pack_documents

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "num_attention_heads", "num_heads", "n_head"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim"), 48),
    **dict.fromkeys(("num_key_value_heads", "rotary_dim", "head_dim"), None),
    **dict.fromkeys(("dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    "vocab_size": 301,
}
SPECIAL = {
    "llama": {"num_key_value_heads": 1},
    "qwen2": {"num_key_value_heads": 2},
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
    "gptj": {"rotary_dim": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 5},
}


def random_model(kind):
    """A small model of this architecture, its weights large enough that its tokens depend on one another."""
    torch.manual_seed(0)
    known = CONFIG_MAPPING[kind]().to_dict()
    config = CONFIG_MAPPING[kind](
        **{name: size for name, size in SIZES.items() if name in known} | SPECIAL.get(kind, {})
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return model


def packed_and_alone(model, rng):
    """The summed loss of random documents in two rows, and of each by itself, with the gradients of either."""
    rows, positions, losses = [[], []], [[], []], []
    for row, places in zip(rows, positions, strict=True):
        while len(row) < 24:
            size = min(rng.randint(1, 9), 24 - len(row))
            row += [rng.randrange(301) for _ in range(size)]
            places += range(size)
    rows, positions = torch.tensor(rows), torch.tensor(positions)

    def summed(logits, ids, places):
        inside = places[:, 1:] > 0
        return (F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none") * inside).sum()

    packed = summed(model(rows, position_ids=positions, use_cache=False).logits, rows, positions)
    for row, places in zip(rows, positions, strict=True):
        starts = (places == 0).nonzero().flatten().tolist()
        for start, end in zip(starts, [*starts[1:], len(row)], strict=True):
            ids = row[None, start:end]
            losses.append(summed(model(ids, use_cache=False).logits, ids, places[None, start:end]))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        (
            loss.detach(),
            [0 if found is None else found for found in torch.autograd.grad(loss, weights, allow_unused=True)],
        )
        for loss in (packed, sum(losses))
    ]


@pytest.mark.parametrize(
    "kind", ["gpt2", "llama", "gpt_neox", "qwen2", "gemma", "gptj", "gpt_neo", "opt", "bloom", "xglm"]
)
def test_documents_are_packed_only_where_each_is_read_as_by_itself(rng, kind):
    model = random_model(kind)
    packed, alone = packed_and_alone(model, rng)
    assert can_pack_documents(model.train()) and model.training if kind in CAN else not can_pack_documents(model)
    if kind in CAN:
        torch.testing.assert_close(packed, alone, rtol=1e-3, atol=1e-3)
    else:
        assert abs(packed[0] - alone[0]) > 1e-2


CAN = ("gpt2", "llama", "gpt_neox", "qwen2", "gemma", "gptj", "gpt_neo")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_any_attention_of_a_gpt2_can(rng, attention):
    model = tiny_gpt2(301, attn_implementation=attention)
    assert can_pack_documents(model) and can_pack_documents(model.bfloat16())
    packed, alone = packed_and_alone(model.float(), rng)
    torch.testing.assert_close(packed, alone, rtol=1e-3, atol=1e-3)


def test_a_model_that_takes_no_positions_cannot():
    model = random_model("opt")
    model.forward = lambda input_ids, use_cache: type(model).forward(model, input_ids, use_cache=use_cache)
    assert not can_pack_documents(model)


def test_a_trainer_keeps_no_cache_beside_which_positions_would_not_count(tmp_path):
    model = tiny_gpt2(301)
    Trainer(model, TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True))
    assert model.config.use_cache is False
