"""Dropout whose mask is a hash of the places, so that a compiler can make it inside another kernel for next to nothing.

What torch.compile makes of PyTorch's dropout draws each number by ten rounds of Philox, and uses a quarter of what a
draw gives: beside a layer norm it takes longer than the memory does. Which numbers are dropped needs no such care.
"""

import torch


def draw_seeds(number, device):
    """int32 [number, 2], from the device's own generator: a recorded graph draws others whenever it is replayed."""
    # Of four numbers each, so that every row begins where a compiler may read 16 bytes at once.
    return torch.randint(-(2**31), 2**31 - 1, (number, 4), dtype=torch.int32, device=device)[:, :2]


def dropout(x, probability, seed):
    """`x` with zeros where the hash of the place says so, the rest divided by 1 - probability.

    seed: int32 [2]. The hash is the finalizer of MurmurHash with the constants of Wellons' search for the least bias
    (lowbias32, 2018), the second half of the seed added between its rounds.
    """
    bits = torch.arange(x.numel(), dtype=torch.int32, device=x.device).view(x.shape) ^ seed[0]
    bits = (bits ^ (bits >> 16 & 0xFFFF)) * 0x7FEB352D + seed[1]
    bits = (bits ^ (bits >> 15 & 0x1FFFF)) * (0x846CA68B - 2**32)
    bits = (bits ^ (bits >> 16 & 0xFFFF)) & 0x7FFFFFFF
    return torch.where(bits >= round(probability * 2**31), x / (1 - probability), 0)
