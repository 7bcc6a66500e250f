"""The UTF-8 automaton over a vocabulary's bytes: which tokens keep a text valid, and where they lead.

A vocabulary of bytes holds tokens that are parts of characters, and a model that draws one may go on
with another that does not fit: the text then shows U+FFFD. The automaton below is the Unicode standard's
table 3-7 (well-formed UTF-8 byte sequences), run over the bytes of every token from every state, once.
Knows tokens and bytes; draws nothing.
"""

from dataclasses import dataclass

import numpy
import torch

from gpt2_korean.text.vocabulary import token_bytes

# States: how far a character has got. Its first byte decides the range of its second.
START, ONE_LEFT, TWO_LEFT, THREE_LEFT, AFTER_E0, AFTER_ED, AFTER_EF, AFTER_EF_BF, AFTER_F0, AFTER_F4, INVALID = range(
    11
)
STATES = INVALID  # the valid ones
BYTES_LEFT = numpy.array([0, 1, 2, 3, 2, 2, 2, 1, 3, 3])


@dataclass(frozen=True)
class Utf8Tables:
    """allowed: bool [4 × states, vocab or some more], the states by how many tokens may still follow (3 stands for more
    as well); next_state: int64 [states, vocab]. Both are wanted on the model's device."""

    allowed: torch.Tensor
    next_state: torch.Tensor

    def to(self, device):
        return Utf8Tables(self.allowed.to(device), self.next_state.to(device))


def byte_transitions():
    """The automaton: uint8 [states + 1, 256], the state after each byte; INVALID stays invalid.

    Table 3-7, but that U+FFFD (EF BF BD), the sign of a broken character, is not written either.
    """
    table = numpy.full((STATES + 1, 256), INVALID, numpy.uint8)

    def lead(state, first, last, then):
        table[state, first : last + 1] = then

    lead(START, 0x00, 0x7F, START)
    lead(START, 0xC2, 0xDF, ONE_LEFT)
    lead(START, 0xE0, 0xE0, AFTER_E0)
    lead(START, 0xE1, 0xEC, TWO_LEFT)
    lead(START, 0xED, 0xED, AFTER_ED)
    lead(START, 0xEE, 0xEE, TWO_LEFT)
    lead(START, 0xEF, 0xEF, AFTER_EF)
    lead(START, 0xF0, 0xF0, AFTER_F0)
    lead(START, 0xF1, 0xF3, THREE_LEFT)
    lead(START, 0xF4, 0xF4, AFTER_F4)
    lead(ONE_LEFT, 0x80, 0xBF, START)
    lead(TWO_LEFT, 0x80, 0xBF, ONE_LEFT)
    lead(THREE_LEFT, 0x80, 0xBF, TWO_LEFT)
    lead(AFTER_E0, 0xA0, 0xBF, ONE_LEFT)  # below: an overlong form
    lead(AFTER_ED, 0x80, 0x9F, ONE_LEFT)  # above: a surrogate
    lead(AFTER_EF, 0x80, 0xBF, ONE_LEFT)
    lead(AFTER_EF, 0xBF, 0xBF, AFTER_EF_BF)
    lead(AFTER_EF_BF, 0x80, 0xBF, START)
    lead(AFTER_EF_BF, 0xBD, 0xBD, INVALID)
    lead(AFTER_F0, 0x90, 0xBF, TWO_LEFT)  # below: an overlong form
    lead(AFTER_F4, 0x80, 0x8F, TWO_LEFT)  # above: beyond U+10FFFF
    return table


def build_tables(tokenizer, vocab_size):
    """The Utf8Tables of a tokenizer that writes bytes, byte-level or where it lacks a character; None for any other.

    vocab_size: of the model's logits; ids beyond the tokenizer's are padding and never allowed. Special
    tokens, the end of text above all, stand between characters only.
    """
    pieces = token_bytes(tokenizer) or fallback_bytes(tokenizer)
    if pieces is None:
        return None
    next_state = numpy.full((STATES, vocab_size), INVALID, numpy.uint8)
    special = [index for index, piece in enumerate(pieces) if piece is None]
    next_state[START, special] = START
    pieces = {index: piece for index, piece in enumerate(pieces) if piece}
    _run_automaton(next_state, [START], pieces)
    # Within a character only another of its bytes leads on, and few tokens begin with one.
    within = {index: piece for index, piece in pieces.items() if 0x80 <= piece[0] <= 0xBF}
    _run_automaton(next_state, range(START + 1, STATES), within)
    valid = next_state != INVALID
    left = numpy.append(BYTES_LEFT, 99)[next_state]
    # Rows of whole 16 bytes, which a GPU gathers six times as fast.
    allowed = numpy.zeros((4 * STATES, -(-vocab_size // 16) * 16), bool)
    allowed[:, :vocab_size] = numpy.concatenate([valid & (left <= more) for more in range(4)])
    next_state[~valid] = START  # never taken; any index will do
    return Utf8Tables(torch.from_numpy(allowed), torch.from_numpy(next_state.astype(numpy.int64)))


def fallback_bytes(tokenizer):
    """As token_bytes, of words and characters with a token for each byte of what they lack (Llama's, Gemma's): their
    letters are UTF-8 as they are, and the mark of a space is as whole as it."""
    tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not getattr(getattr(tokenizer, "model", None), "byte_fallback", False):
        return None
    vocabulary = tokenizer.get_vocab()
    single = {f"<0x{byte:02X}>": bytes([byte]) for byte in range(256)}
    pieces = [None] * (max(vocabulary.values()) + 1)
    for token, index in ordinary_tokens(tokenizer):
        pieces[index] = single.get(token, token.encode())
    return pieces if single.keys() <= vocabulary.keys() else None


def ordinary_tokens(tokenizer):
    """Yield `(token, id)` of all but the special tokens of a tokenizer (of tokenizers), as they are spelled."""
    added = tokenizer.get_added_tokens_decoder()
    for token, index in tokenizer.get_vocab().items():
        if index not in added or not added[index].special:
            yield token, index


def _run_automaton(next_state, states, pieces):
    """Fill `next_state` [states, vocab] in the rows `states` for `pieces` {id: bytes}, a column of bytes at a time."""
    transitions = byte_transitions()
    ids = sorted(pieces, key=lambda index: len(pieces[index]), reverse=True)
    lengths = numpy.array([len(pieces[index]) for index in ids])
    starts = lengths.cumsum() - lengths
    data = numpy.frombuffer(b"".join(pieces[index] for index in ids), numpy.uint8)
    after = numpy.repeat(numpy.array(states, numpy.uint8)[:, None], len(ids), axis=1)
    for position in range(lengths[0]):
        longer = numpy.searchsorted(-lengths, -position)  # tokens with a byte at this position come first
        after[:, :longer] = transitions[after[:, :longer], data[starts[:longer] + position]]
    next_state[numpy.ix_(states, ids)] = after
