"""Whether a model can read several documents of one block without mixing them."""

import torch

from gpt2_korean.model.gpt2 import can_be_fast


def can_pack_documents(model):
    """Whether positions that start anew keep documents apart in a `model` of transformers, no mask being given.

    Tried, since architectures differ and none says so: those with sinusoids, relative positions or a state that is
    carried on ignore them, some attentions heed them in a batch of one row alone.
    """
    if can_be_fast(model):
        return True
    halves = torch.arange(2, 18, device=model.device).view(2, 8) % model.config.vocab_size
    positions = torch.arange(4, device=model.device).repeat(2, 2)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = model(halves[:, 4:], use_cache=False).logits
            packed = model(halves, position_ids=positions, use_cache=False).logits[:, 4:]
            mixed = model(halves, use_cache=False).logits[:, 4:]
    except (TypeError, ValueError, RuntimeError):  # it takes no positions, or cannot be computed here
        return False
    finally:
        model.train(was_training)
    return bool((packed - alone).norm() <= 0.1 * (mixed - alone).norm())  # rounding in bfloat16 comes to a hundredth
