"""The decoder of decoder.py for any causal model of transformers, through its own forward and cache."""

import inspect
import math

import torch

from gpt2_korean.model.gpt2 import context_length


class LibraryDecoder:
    """Any causal model of transformers.

    One without keys and values to keep (GPT, Mamba, RWKV) reads all of a text anew for each token, and each row by
    itself: not all of these know of padding.
    """

    captures = paged = False

    def __init__(self, model):
        self.model = model
        self.device = next(model.parameters()).device
        self.vocab_size = model.config.vocab_size
        self.context = context_length(model.config)
        # Its class's: in training the model's own forward may be another, which hands the rest on.
        self.accepted = inspect.signature(type(model).forward).parameters
        # Its name since transformers 5.24; models that bring their own code may have the one before.
        self.cached = "cache" if "cache" in self.accepted else "past_key_values"

    @property
    def cache_bytes(self):
        """As far as a configuration tells; heads that share keys take less."""
        config = self.model.config.get_text_config()
        numbers = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size"))
        return 2 * math.prod(numbers) * self.model.dtype.itemsize

    def start(self, ids, mask, steps, rows=None):
        """As GPT2Decoder.start; each row is read by itself, since not every cache can be shared."""
        self.ids, self.mask = (ids, mask) if rows is None else (ids[rows], mask[rows])
        self.cache = None
        return self._forward(self.ids)

    def read(self, ids, first):
        """As GPT2Decoder.read."""
        return self.model(input_ids=torch.tensor([ids], device=self.device), use_cache=False).logits[0, first:]

    def room(self, tokens):
        return tokens

    def reach(self, slots):
        return slots

    def step(self, tokens, reach):
        """As GPT2Decoder.step; `reach` is the cache's own concern here."""
        self.ids = torch.cat([self.ids, tokens[:, None]], 1)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        return self._read_rows() if self.cache is None else self._forward(tokens[:, None])

    def keep(self, rows):
        """As GPT2Decoder.keep; a cache of a model's own may keep more than it leaves out rows of."""
        from transformers import DynamicCache

        if self.cache is not None:
            if type(self.cache) is not DynamicCache:
                return False
            self.cache.reorder_cache(rows)
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        return True

    def _forward(self, ids):
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        inputs = {"position_ids": positions, "logits_to_keep": 1}
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            use_cache=True,
            **{self.cached: self.cache},
            **{name: value for name, value in inputs.items() if name in self.accepted},
        )
        kept = vars(output).get("cache", vars(output).get("past_key_values"))
        # Mamba's and xLSTM's is a state, into which a batch's padding is read too; before 5.24 it had another name.
        is_state = "attention_mask" not in self.accepted or all(getattr(kept, "is_linear", [False]))
        self.cache = None if is_state else kept
        return self._read_rows() if self.cache is None else output.logits[:, -1]

    def _read_rows(self):
        rows = zip(self.ids, self.mask, strict=True)
        return torch.cat([self.read(ids[mask == 1].tolist(), -1) for ids, mask in rows])
