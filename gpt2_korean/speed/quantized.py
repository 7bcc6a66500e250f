"""--quantize: weights in 8 or 4 bits, the one way in this folder that changes the answer.

A weight [out, in] becomes codes, integers, and scales, of which `codes × scales` is what is left of it.
"""

import torch

GROUP = 64  # inputs that share a scale in 4 bits
SHARES = (1.0, 0.85)  # of the largest value, tried as the end of the codes' range
ROUNDS = 2
ROWS = 2**17  # weights that are worked on at a time, which then stay in a processor's caches


def in_8_bits(weight):
    """`(codes, scales)` of a weight [out, in]: int8 [out, in], float32 [out, 1]."""
    codes, scales = zip(*map(_nearest, weight.split(max(1, ROWS // weight.shape[1]))), strict=True)
    return torch.cat(codes), torch.cat(scales)


def in_4_bits(weight):
    """`(codes, scales)` of a weight [out, in], `in` a multiple of GROUP, each group's scale that of least error.

    codes: uint8 [out, in / GROUP, GROUP / 2], two signed numbers of 4 bits each, the first in the lower half.
    scales: float32 [out, in / GROUP, 1], rounded to float16.
    """
    groups = weight.unflatten(1, (-1, GROUP))
    codes, scales = zip(*map(_least_error, groups.split(max(1, ROWS // weight.shape[1]))), strict=True)
    codes = torch.cat(codes) & 15
    return codes[..., ::2] | codes[..., 1::2] << 4, torch.cat(scales)


def _nearest(rows):
    rows = rows.float()
    scales = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
    return (rows / scales).round_().to(torch.int8), scales


def _least_error(groups):
    """`(codes, scales)` of groups [..., GROUP]: uint8 in two's complement, float32 [..., 1].

    A range from -8 to 7 fits the side on which the largest value stands. From each start the codes and the scale, which
    for given codes is a regression's, are fitted to each other in turns.
    """
    groups = groups.float()
    extreme = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    best = None
    for share in SHARES:
        scales = _round(extreme * (share / -8))
        for _ in range(ROUNDS):
            codes = _codes(groups, scales)
            scales = _round((groups * codes).sum(-1, keepdim=True) / codes.square().sum(-1, keepdim=True))
        error = (groups - _codes(groups, scales) * scales).square().sum(-1, keepdim=True)
        if best is None:
            best, least = scales, error
        better = error < least
        best, least = torch.where(better, scales, best), torch.where(better, error, least)
    return _codes(groups, best).to(torch.int8).view(torch.uint8), best


def _codes(groups, scales):
    return (groups / scales).round_().clamp_(-8, 7)


def _round(scales):
    """As float16 has them; nowhere 0, and no number where a group is all zeros."""
    scales = scales.half().float().nan_to_num_()
    return torch.where(scales == 0, 2.0**-24, scales)
