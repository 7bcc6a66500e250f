"""GPT-2's forward pass as training computes it: its own modules and weights, a faster way through them.

transformers' goes through general code: an activation of eight kernels, masks, and all logits in float32 to
compute the loss from. The weights, the dropout and the formulas are the same here, and so is what is saved.
A layer ends with the next one's layer norm, so that one kernel can do both.
"""

from types import MethodType

import torch
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from gpt2_korean.model.gpt2 import TANH_GELU
from gpt2_korean.speed import loss, pieces


def use_fast_forward(model, functions=None, separate=pieces.separate, always=False):
    """Replace the forward of a GPT2LMHeadModel by one that, given labels, returns the loss alone.

    functions: what takes the place of embed, start, layer and loss.cross_entropy_in_parts in training; separate: of
    pieces.separate; always: even where each row is one text. Evaluation goes the plain way, in which nothing is rounded
    that transformers does not round.
    """
    plain = embed, start, layer, loss.cross_entropy_in_parts
    for block in model.transformer.h:
        if model.config.activation_function in TANH_GELU:
            block.mlp.act = torch.nn.GELU(approximate="tanh")

    def forward(self, input_ids=None, labels=None, num_items_in_batch=None, position_ids=None, **keywords):
        """num_items_in_batch: how many labels the mean is over, where a batch is a part of a step's.

        position_ids: None, or [batch, length], which tell documents apart as pieces.py says.
        """
        if labels is None:
            return type(self).forward(self, input_ids=input_ids, position_ids=position_ids, **keywords)
        of_tokens, *of_body, cross_entropy = (functions or plain) if self.training else plain
        attend, positions = None, position_ids
        if positions is None and always and self.training:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        if positions is not None:
            attend = (separate if self.training else pieces.separate)(positions)
        embedded, weight = of_tokens(self.transformer.wte, self.lm_head.weight, input_ids)
        hidden_states = _last_hidden_states(self.transformer, embedded, position_ids, attend, *of_body)
        total = loss.summed_loss(hidden_states, weight, labels, cross_entropy)
        items = (labels[:, 1:] != loss.IGNORED).sum().clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutputWithCrossAttentions(loss=total / items)

    model.forward = MethodType(forward, model)


def _last_hidden_states(body, embedded, positions, attend, start, layer):
    """[batch, length, width] of `body`, a GPT2Model."""
    positions = torch.arange(embedded.shape[1], device=embedded.device) if positions is None else positions
    embedded = embedded + body.wpe(positions)
    streams = start(embedded, body.drop, body.h[0].ln_1, loss.product_dtype(embedded))
    for block, next_norm in zip(body.h, [*(block.ln_1 for block in body.h[1:]), body.ln_f], strict=True):
        if body.training and block.gradient_checkpointing:
            # The function that gradient_checkpointing_enable() chose.
            streams = block._gradient_checkpointing_func(layer, *streams, block, next_norm, attend)
        else:
            streams = layer(*streams, block, next_norm, attend)
    return streams[1]


def embed(tokens, weight, ids):
    """The embeddings of `ids` by the module `tokens`, and the output embedding's `weight` for the loss."""
    return tokens(ids), weight


def start(embedded, drop, norm, dtype):
    """The residual stream before the first layer, and its layer norm in `dtype`, that of the matrix products."""
    residual = drop(embedded)
    return residual, norm(residual).to(dtype)


def layer(residual, normalized, block, next_norm, attend=None):
    """The residual stream after `block`, and its layer norm by the next layer's.

    attend: None, or the attention within pieces, see pieces.py.
    """
    residual = residual + (block.attn(normalized)[0] if attend is None else _mix(block.attn, normalized, attend))
    residual = residual + block.mlp(block.ln_2(residual))
    return residual, next_norm(residual).to(normalized.dtype)


def _mix(attention, x, attend):
    """What a GPT2Attention computes of x [batch, length, width], but for how tokens attend."""
    qkv = attention.c_attn(x).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    dropout = attention.attn_dropout.p if attention.training else 0.0
    return attention.resid_dropout(attention.c_proj(attend(*qkv, dropout, attention.scaling)))
