"""GPT-2's forward pass as training computes it: its own modules and weights, a faster way through them.

transformers' goes through general code: an activation of eight kernels, masks, and all logits in float32 to
compute the loss from. The weights, the dropout and the formulas are the same here, and so is what is saved.
A layer ends with the next one's layer norm, so that a compiler can join the two.
"""

from types import MethodType

import torch
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from gpt2_korean import loss
from gpt2_korean.dropout import draw_seeds, dropout
from gpt2_korean.linear import TANH_GELU


def can_be_fast(model):
    """Whether `model` is a GPT-2 that this file knows the way through."""
    return model.config.model_type == "gpt2" and not model.config.add_cross_attention and hasattr(model, "lm_head")


def use_fast_forward(model, compiler=None):
    """Replace the forward of a GPT2LMHeadModel by one that, given labels, returns the loss alone.

    compiler: what compiles a function for the shape of the batches in training, None for no compilation.
    Evaluation meets many shapes and goes the same way uncompiled.

    Compiled layers also keep the residual stream in bfloat16 where the rest is computed in it, and have a
    dropout of their own: what is not a matrix product waits for memory, and this is half as much of it.
    """
    ways = ways_in_training = _layer, loss.softmax_in_parts
    for block in model.transformer.h:
        if model.config.activation_function in TANH_GELU:
            block.mlp.act = torch.nn.GELU(approximate="tanh")
        if compiler is not None:
            block.attn.resid_dropout = block.mlp.dropout = torch.nn.Identity()
    if compiler is not None:
        ways_in_training = compiler(_layer), compiler(loss.softmax_in_place)

    def forward(self, input_ids=None, labels=None, num_items_in_batch=None, **keywords):
        """num_items_in_batch: how many labels the mean is over, where a batch is a part of a step's."""
        if labels is None:
            return type(self).forward(self, input_ids=input_ids, **keywords)
        layer, softmax_in_place = ways_in_training if self.training else ways
        hidden_states = _last_hidden_states(self.transformer, input_ids, layer, self.training and compiler is not None)
        total = loss.summed_loss(hidden_states, self.lm_head.weight, labels, softmax_in_place)
        items = (labels[:, 1:] != loss.IGNORED).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutputWithCrossAttentions(loss=total / items)

    model.forward = MethodType(forward, model)


def _last_hidden_states(body, input_ids, layer, compiled):
    """[batch, length, width] of `body`, a GPT2Model."""
    device = input_ids.device
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else body.dtype
    positions = torch.arange(input_ids.shape[1], device=device)
    residual = body.drop(body.wte(input_ids) + body.wpe(positions))
    if compiled and dtype == torch.bfloat16:
        residual = residual.to(dtype)
    normalized = body.h[0].ln_1(residual).to(dtype)
    drops = compiled and body.config.resid_pdrop > 0
    seeds = draw_seeds(2 * len(body.h), device).split(2) if drops else [None] * len(body.h)
    next_norms = [*(block.ln_1 for block in body.h[1:]), body.ln_f]
    for block, *inputs in zip(body.h, next_norms, seeds, strict=True):
        if body.training and block.gradient_checkpointing:
            # The function that gradient_checkpointing_enable() chose.
            residual, normalized = block._gradient_checkpointing_func(layer, residual, normalized, block, *inputs)
        else:
            residual, normalized = layer(residual, normalized, block, *inputs)
    return normalized


def _layer(residual, normalized, block, next_norm, seeds):
    """The residual stream after `block`, and its layer norm.

    seeds: [2, 2], of the two dropouts (see dropout.py); None where the block's modules drop, or nothing is to be.
    """
    residual = residual + _drop(block.attn(normalized)[0], block, seeds, 0)
    residual = residual + _drop(block.mlp(block.ln_2(residual)), block, seeds, 1)
    return residual, next_norm(residual).to(normalized.dtype)


def _drop(x, block, seeds, which):
    return x if seeds is None else dropout(x, block.attn.config.resid_pdrop, seeds[which])
