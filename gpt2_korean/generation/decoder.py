"""One model, two questions: the logits after some prompts, and the logits after one token more.

A decoder keeps the keys and values of what it has read. This one is GPT-2 over the weights alone, made for one token at
a time; library_decoder.py asks any transformers model, openvino_decoder.py OpenVINO. Knows ids and tensors, no text.
"""

import math

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpt2_korean.model.gpt2 import context_length, ties_head, weight_shapes
from gpt2_korean.speed import linear

# A captured step reads a fixed length of the cache, and is captured anew once that is used up. PyTorch's
# attention takes longer the longer that length is; the kernel of writing_kernels.py stops where the text does, and only
# chooses its block size by whether all stands in its smaller block.
REACH, SMALL_REACH = 256, 128
# Tokens of prompts that are read at a time: as many as keep a GPU busy, in little memory.
MOST_AT_ONCE = 2**14
# Not cuDNN's, which has to be loaded and plans for each new shape: half a second for the first, then 0.1 s.
FOR_ANY_SHAPE = [
    SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.OVERRIDEABLE, SDPBackend.MATH
]  # fmt: skip


class GPT2Decoder:
    """GPT-2 (Radford et al. 2019) with a fixed cache, so that a step can be captured as a graph.

    config: as config.json has it; gpt2.is_supported.
    tensors: name → weight as a checkpoint has them, with or without the prefix `transformer.`; each is
        popped as it is taken, so that at no time much more than one copy stands in memory.
    make_linear: a function of linear.py, or writing_kernels.fused.
    attend: writing_kernels.attend, or None for PyTorch's attention.
    captures: whether steps can be recorded as a graph: an accelerator then waits for its memory rather
        than for the next kernel.

    Raises KeyError for a weight that is missing.
    """

    paged = False

    def __init__(self, config, tensors, device, dtype, make_linear=linear.plain, attend=None, captures=False):
        def take(name):
            tensor = tensors.pop(name if name in tensors else f"transformer.{name}")
            return tensor.detach().to(device).to(dtype)  # the device casts faster than the processor beside it

        def take_linear(name, norm=None, activation=None):
            weight = take(f"{name}.weight").t()  # Conv1D keeps [in, out]; rows of [out, in] are read in one go
            if place is not None:
                weight = place[: weight.numel()].view(weight.shape).copy_(weight)
            return make_linear(weight.contiguous(), take(f"{name}.bias"), norm, activation)

        def take_norm(name):
            return take(f"{name}.weight"), take(f"{name}.bias"), config.get("layer_norm_epsilon", 1e-5)

        # Weights that are packed anyway are turned in one place: fresh memory would take longer than the turning.
        largest = max(math.prod(shape) for name, shape in weight_shapes(config).items() if name.startswith("h."))
        place = torch.empty(largest, device=device, dtype=dtype) if make_linear is linear.packed else None
        self.device, self.dtype, self.attend = device, dtype, attend
        self.vocab_size, self.context = config["vocab_size"], context_length(config)
        self.cache_bytes = 2 * config["n_layer"] * config["n_embd"] * dtype.itemsize  # of a token
        self.captures, self.warm = captures, False  # warm: whether a step has been run
        self.cache = self.recording = None  # recording: loop.py's, of steps over this cache
        self.heads, tied = config["n_head"], ties_head(tensors)
        self.tokens, self.positions = self._align(take("wte.weight")), take("wpe.weight")
        activation = config.get("activation_function", "gelu_new")
        self.layers = [
            (
                take_linear(f"h.{index}.attn.c_attn", norm=take_norm(f"h.{index}.ln_1")),
                take_linear(f"h.{index}.attn.c_proj"),
                take_linear(f"h.{index}.mlp.c_fc", norm=take_norm(f"h.{index}.ln_2"), activation=activation),
                take_linear(f"h.{index}.mlp.c_proj"),
            )
            for index in range(config["n_layer"])
        ]
        head = self.tokens if tied else self._align(take("lm_head.weight"))
        self.head = make_linear(head, None, take_norm("ln_f"))

    def _align(self, embeddings):
        """A GPU's matrix units take rows by the 8: GPT-2's 50,257 would halve the speed of the head."""
        return embeddings if self.device.type == "cpu" else F.pad(embeddings, (0, 0, 0, -len(embeddings) % 64))

    def start(self, ids, mask, steps, rows=None):
        """Logits [batch, vocab] after `ids` [batch, n], flush right where `mask` is 1; `steps` steps may follow.

        rows: int64 [batch], with which of `ids` each row begins, where several share one reading; there are then fewer
            of `ids`. None: each with its own.
        """
        width = ids.shape[1]
        self._make_room(len(ids) if rows is None else len(rows), width, steps)
        padding = (1 - mask).sum(1)  # each row's first slot is the one behind it
        self.first[: len(ids)] = padding
        padding = padding.tolist()
        self.padded = any(padding)
        ends = [self._read(ids, part, min(padding[part])) for part in _parts(padding, width)]
        logits = self._logits(*map(torch.cat, zip(*ends, strict=True)))
        if rows is None:
            return logits
        self.first.copy_(self.first[rows])
        for cache in self.cache:
            read = cache[:, :, :, :width]
            read.copy_(read[:, rows])
        return logits[rows]

    def read(self, ids, first):
        """Logits [n, vocab] after each of `ids`, a list, from the `first` on."""
        self._make_room(1, len(ids), 0)
        self.first.zero_()
        ids = torch.tensor([ids], device=self.device)
        x, added = self._forward(ids, self.slots[: ids.shape[1]], slice(ids.shape[1]), is_causal=True)
        return self.head(x[0, first:], added[0, first:])[0][:, : self.vocab_size]

    def _read(self, ids, part, skipped):
        """The last position of _forward over the rows `part` of `ids`, a slice, less the padding before all of them."""
        ids, seen = ids[part, skipped:], slice(skipped, ids.shape[1])
        new, first = self.slots[seen], self.first[part]
        attention = {"is_causal": True}
        if self.padded:
            # Padding looks at itself alone, since a softmax over nothing is no number.
            sees = (new[:, None] >= new) & (new >= first[:, None, None]) | (new[:, None] == new)
            attention = {"attn_mask": sees[:, None]}
        with sdpa_kernel(FOR_ANY_SHAPE):
            return [each[:, -1:] for each in self._forward(ids, new, seen, part, **attention)]

    def _make_room(self, batch, width, steps):
        """A cache for `batch` rows of `width` tokens and `steps` more; the next is at `width`."""
        slots = self.room(width + steps)
        if not self._has_room(batch, slots):
            self.cache = self.recording = None  # before the new ones take their memory
            shape = (2, batch, self.heads, slots, self.tokens.shape[1] // self.heads)
            # Zeros, since what is masked is multiplied by 0 and must be a number.
            self.cache = [torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in self.layers]
            self.slots = torch.arange(slots, device=self.device)
            self.first, self.next = (self.slots.new_zeros(size) for size in (batch, 1))
        self.next.fill_(width)

    def _has_room(self, batch, slots):
        """Whether the cache that there is serves: a recorded step reads as much of a longer one."""
        if self.cache is None or self.cache[0].shape[1] != batch:
            return False
        return slots <= len(self.slots) if self.captures else slots == len(self.slots)

    def room(self, tokens):
        """How many tokens to make room for where there are to be `tokens`: few sizes, so that recordings fit again."""
        step = REACH if self.attend is None else SMALL_REACH
        return -(-tokens // step) * step if self.captures else tokens

    def reach(self, slots):
        """How much of the cache a step reads that fills the last of `slots`."""
        if self.captures and self.attend is not None:
            return SMALL_REACH if slots <= SMALL_REACH else len(self.slots)
        return self.room(slots)

    def step(self, tokens, reach):
        """Logits [n, vocab] after one token more in the first n rows, `tokens` [n]; see `reach`."""
        attention = {}
        if self.attend is None and (self.captures or self.padded):
            seen = self.slots[:reach]
            first = self.first[: len(tokens), None]
            attention = {"attn_mask": ((seen <= self.next) & (seen >= first))[:, None, None]}
        rows = slice(len(tokens))
        logits = self._logits(*self._forward(tokens[:, None], self.next, slice(reach), rows, **attention))
        self.next += 1
        return logits

    def keep(self, rows):
        """Go on with these of the rows alone, int64 [n]: they become the first. Returns whether it can."""
        self.first[: len(rows)] = self.first[rows]
        used = int(self.next)
        for cache in self.cache:
            read = cache[:, :, :, :used]
            read[:, : len(rows)] = read[:, rows]
        return True

    def _forward(self, ids, slots, seen, rows=slice(None), **attention):
        """The residual stream, in two parts, after `ids` at `slots` in `rows` of the cache and seeing `seen` of it."""
        (batch, new), first = ids.shape, self.first[rows]
        positions = (slots - first[:, None]).clamp(min=0)
        x, added = F.embedding(ids, self.tokens), F.embedding(positions, self.positions)
        for (to_qkv, attention_out, mlp_in, mlp_out), cache in zip(self.layers, self.cache, strict=True):
            cache = cache[:, rows]
            qkv, x = to_qkv(x, added)
            if self.attend is not None and new == 1:
                y = self.attend(qkv, *cache, first, slots, seen.stop)
            else:
                qkv = qkv.view(batch, new, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
                cache.index_copy_(3, slots, qkv[1:])
                y = F.scaled_dot_product_attention(qkv[0], *cache[:, :, :, seen], **attention)
                y = y.transpose(1, 2).reshape(batch, new, -1)
            inner, x = mlp_in(x, attention_out(y))
            added = mlp_out(inner)
        return x, added

    def _logits(self, x, added):
        return self.head(x[:, -1], added[:, -1])[0][:, : self.vocab_size]


def _parts(padding, width):
    """Yield slices of rows that are read together: MOST_AT_ONCE tokens at most, unless a single row has more.

    padding: of each row in `width`. Rows sorted by length need the fewest reads."""
    start = least = 0
    for row, each in enumerate(padding):
        least = min(least, each) if row > start else each
        if row > start and (row + 1 - start) * (width - least) > MOST_AT_ONCE:
            yield slice(start, row)
            start, least = row, each
    yield slice(start, len(padding))
