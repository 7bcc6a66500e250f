"""GPT-2's forward pass as training computes it: its own modules and weights, a faster way through them.

transformers' goes through general code: an activation of eight kernels, masks, and all logits in float32 to
compute the loss from. The weights, the dropout and the formulas are the same here, and so is what is saved.
A layer ends with the next one's layer norm, so that one kernel can do both.
"""

from types import MethodType

import torch
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from gpt2_korean.model.gpt2 import TANH_GELU
from gpt2_korean.speed import loss


def use_fast_forward(model, functions=None):
    """Replace the forward of a GPT2LMHeadModel by one that, given labels, returns the loss alone.

    functions: what takes the place of start, layer and loss.cross_entropy_in_parts in training. Evaluation goes the
    plain way, in which nothing is rounded that transformers does not round.
    """
    plain = start, layer, loss.cross_entropy_in_parts
    for block in model.transformer.h:
        if model.config.activation_function in TANH_GELU:
            block.mlp.act = torch.nn.GELU(approximate="tanh")

    def forward(self, input_ids=None, labels=None, num_items_in_batch=None, **keywords):
        """num_items_in_batch: how many labels the mean is over, where a batch is a part of a step's."""
        if labels is None:
            return type(self).forward(self, input_ids=input_ids, **keywords)
        *of_body, cross_entropy = (functions or plain) if self.training else plain
        hidden_states = _last_hidden_states(self.transformer, input_ids, *of_body)
        total = loss.summed_loss(hidden_states, self.lm_head.weight, labels, cross_entropy)
        items = (labels[:, 1:] != loss.IGNORED).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutputWithCrossAttentions(loss=total / items)

    model.forward = MethodType(forward, model)


def _last_hidden_states(body, input_ids, start, layer):
    """[batch, length, width] of `body`, a GPT2Model."""
    embedded = body.wte(input_ids) + body.wpe(torch.arange(input_ids.shape[1], device=input_ids.device))
    residual, normalized = start(embedded, body.drop, body.h[0].ln_1, loss.product_dtype(embedded))
    for block, next_norm in zip(body.h, [*(block.ln_1 for block in body.h[1:]), body.ln_f], strict=True):
        if body.training and block.gradient_checkpointing:
            # The function that gradient_checkpointing_enable() chose.
            residual, normalized = block._gradient_checkpointing_func(layer, residual, normalized, block, next_norm)
        else:
            residual, normalized = layer(residual, normalized, block, next_norm)
    return normalized


def start(embedded, drop, norm, dtype):
    """The residual stream before the first layer, and its layer norm in `dtype`, that of the matrix products."""
    residual = drop(embedded)
    return residual, norm(residual).to(dtype)


def layer(residual, normalized, block, next_norm):
    """The residual stream after `block`, and its layer norm by the next layer's."""
    residual = residual + block.attn(normalized)[0]
    residual = residual + block.mlp(block.ln_2(residual))
    return residual, next_norm(residual).to(normalized.dtype)
