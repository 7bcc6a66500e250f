"""Pieces of documents → the arrays of a block; blocks → the tensors of a batch."""

import numpy as np

IGNORED = -100  # the label of a position that predicts nothing, as in transformers


def assemble(tokens, pieces, offsets, begin, undo=None):
    """The block of `pieces` (rows as a Plan has them) of Tokens, each read from its position in `offsets` on.

    transformers shifts labels by one, so the first label is ignored, and the last token of a piece is a label but no
    input, unless it ends the block. undo: `ids -> (ids, places)`, of Merges, for as many tokens as a block has room
    for; not for pieces of which a part is learnt in another block.
    """
    inputs, labels, positions, end = [], [[IGNORED]], [], None
    read = [tokens.read(document, first, stop) for document, first, _, stop in pieces.tolist()]
    read = read if undo is None else _taken_apart(read, undo)
    for number, (document, first, fresh, stop) in enumerate(pieces.tolist()):
        targets, learnt = read[number]
        before = tokens.read(document, first - 1, first)[0] if first else [begin]
        inputs += [before, targets[:-1]]
        if learnt is not None or fresh > first:
            targets = targets.copy()
            targets[: fresh - first] = IGNORED
            if learnt is not None:
                targets[learnt == 0] = IGNORED
        labels.append(targets)
        if offsets is not None:
            offset = max(0, offsets[number] - (len(targets) - (stop - first)))  # what has grown ends where it did
            offset = 0 if offset == end else offset  # else it would be taken for a part of the one before it
            end = offset + len(targets)
            positions.append(np.arange(offset, end))
    if offsets is not None:  # one more, where the last label stands
        positions.append(positions[-1][-1:] + 1)
    inputs.append(read[-1][0][-1:])
    block = {"input_ids": inputs, "labels": labels, "position_ids": positions}
    return {name: np.concatenate(parts).astype(np.int64) for name, parts in block.items() if parts}


def _taken_apart(read, undo):
    """`[(targets, learnt)]` of pieces, some of whose tokens are two and more."""
    ids, places = undo(np.concatenate([targets for targets, _ in read]))
    ends = np.cumsum([len(targets) for targets, _ in read])
    cuts = np.searchsorted(places, ends[:-1])
    pieces = zip(np.split(ids, cuts), np.split(places, cuts), ends, read, strict=True)
    return [
        (own, None if learnt is None else learnt[places - (end - len(targets))])
        for own, places, end, (targets, learnt) in pieces
    ]


def collate(blocks, pad_token_id, length=0):
    """A batch of blocks: each of their arrays as a tensor [batch, longest block, or `length`], int64.

    Padding stands on the right, where no real token attends to it, and is no label; so no attention mask
    is needed and attention may take its causal kernel. Where no piece sees another, each token of it is one.
    """
    from torch import as_tensor

    length = max(length, *(len(block["input_ids"]) for block in blocks))
    padding = {"input_ids": np.full(length, pad_token_id), "labels": np.full(length, IGNORED)}
    padding["position_ids"] = np.zeros(length, np.int64)
    return {
        name: as_tensor(np.stack([np.append(row[name], padding[name][: length - len(row[name])]) for row in blocks]))
        for name in blocks[0]
    }


def fill_up(batch, rows, length):
    """`batch` with each tensor [rows, length]: what is added holds no labels, and nothing real attends to it."""
    from torch.nn.functional import pad

    given, reached = batch["labels"].shape
    missing = (0, length - reached, 0, rows - given)
    return {name: pad(tensor, missing, value=IGNORED if name == "labels" else 0) for name, tensor in batch.items()}
