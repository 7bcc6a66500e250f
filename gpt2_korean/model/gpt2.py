"""What a GPT-2 is that we know our way through, said once: its variants, its shapes, the sizes that need no download.

A `config` is a dict, as config.json has it, unless a function says otherwise. Imports no torch.
"""

from gpt2_korean.messages import UsageError

# The demo's size learns to write Korean words on two cores within 3 minutes: a large vocabulary for its width, since
# a small corpus is learnt sooner by words than by their parts, and no dropout, since a model this small is far from
# learning anything by heart.
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
SCRATCH_SIZES = {
    "scratch-mini": {"n_layer": 4, "n_embd": 256, "n_head": 4, "n_positions": 256, "vocab_size": 8192, **NO_DROPOUT},
}

TANH_GELU = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")  # one function under three of transformers' names
ACTIVATIONS = (*TANH_GELU, "gelu", "relu")  # those that speed/linear.py knows
SIZES = ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size")


def is_gpt2(config):
    """Whether it is a GPT-2 that reads nothing but its own text."""
    return config.get("model_type") == "gpt2" and not config.get("add_cross_attention")


def check_dropout(rate, config):
    """Raise UsageError where a model of this `config` is no GPT-2, of which alone the dropout can be set to `rate`."""
    if not is_gpt2(config):
        kind = config["model_type"]
        raise UsageError(f"--dropout={rate:g}: GPT-2에만 쓸 수 있는데 이 모델({kind})은 다릅니다. 이 플래그를 빼세요.")


def is_supported(config):
    """Whether GPT2Decoder computes what the `config` asks for."""
    return (
        is_gpt2(config)
        and all(name in config for name in SIZES)
        and not config.get("quantization_config")
        and config.get("activation_function", "gelu_new") in ACTIVATIONS
        and config.get("scale_attn_weights", True)
        and not config.get("scale_attn_by_inverse_layer_idx")
    )


def can_be_fast(model):
    """Whether speed/forward.py knows the way through a `model` of transformers.

    It makes no mask: of transformers' attentions only PyTorch's own (sdpa) is then causal by itself.
    """
    causal = model.config._attn_implementation == "sdpa"
    return causal and is_gpt2(model.config.to_dict()) and hasattr(model, "lm_head")


def can_be_fused(model):
    """Whether speed/layer.py computes what a `model` of transformers computes."""
    config = model.config.to_dict()
    return can_be_fast(model) and is_supported(config) and config["activation_function"] in TANH_GELU


def context_length(config):
    """How many positions a model has, None where its architecture sets no limit.

    config: a dict, or one of transformers.
    """
    names = ("n_positions", "max_position_embeddings", "max_seq_len")  # the last is MPT's
    values = config if isinstance(config, dict) else {name: getattr(config, name, None) for name in names}
    return next((values[name] for name in names if values.get(name) is not None), None)


def inner_width(config):
    """The width of the MLP between its two linear layers."""
    return config.get("n_inner") or 4 * config["n_embd"]


def weight_shapes(config):
    """The weights of a GPT-2, name → shape, less the head, which may be the embeddings again."""
    width, inner = config["n_embd"], inner_width(config)
    shapes = {"wte.weight": (config["vocab_size"], width), "wpe.weight": (config["n_positions"], width)}
    linears = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
    linears |= {"mlp.c_fc": (width, inner), "mlp.c_proj": (inner, width)}
    norms = ["ln_f"]
    for index in range(config["n_layer"]):
        norms += [f"h.{index}.ln_1", f"h.{index}.ln_2"]
        for name, shape in linears.items():
            shapes |= {f"h.{index}.{name}.weight": shape, f"h.{index}.{name}.bias": shape[1:]}
    for norm in norms:
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return shapes


def ties_head(tensors):
    """Whether the output embeddings are the input ones among weights, name → tensor, with or without `transformer.`.

    Where both are there and differ, both are used, as transformers does, whatever tie_word_embeddings says: a config
    is kept as it was when a head of its own has been learnt or merged.
    """
    head, rows = tensors.get("lm_head.weight"), tensors.get("wte.weight", tensors.get("transformer.wte.weight"))
    return head is None or (rows is not None and head.dtype == rows.dtype and head.equal(rows))
