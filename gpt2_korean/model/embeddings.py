"""A model's embeddings carried over to another vocabulary: each new row built from the old ones and from the corpus.

Two things are known of a new token. How it is spelt: the pieces into which the old tokenizer cuts its bytes,
whose rows average to something near. And how it is used: which tokens stand beside it in the corpus. Rows of
tokens that are used alike then start close together, as a trained model has them, which the mean of a few
bytes' rows cannot tell. Measured against other starts in benchmarks/RESULTS.md.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save

from gpt2_korean.messages import say
from gpt2_korean.text.blocks import token_stream
from gpt2_korean.text.cache import keep, kept_beside
from gpt2_korean.text.chat_template import encode_texts
from gpt2_korean.text.corpus import sample_texts
from gpt2_korean.text.vocabulary import COUNTED_CHARACTERS, spent

COUNTED_TOKENS = 16_000_000  # of a corpus, to learn from how its tokens are used: more would only take time

# The neighbours that are counted, by how far they stand from the token, and of how many of the most frequent.
PLACES = (-2, -1, 1, 2)
NEIGHBOURS = 1024
# Each token counts as seen this many more times, with the average neighbours, so that chance tells little of a
# rare one.
PRIOR = 20


def replace_vocabulary(model, old, new, documents, blocks):
    """Carry `model` over from the tokenizer `old` to `new`, by which `documents` are packed into `blocks`.

    What takes minutes of it is kept beside the blocks, for the next run and for the other ranks.
    """
    pieces, old_rows = find_pieces(old, new), _rows(model)
    digest = hashlib.sha256(str(pieces).encode() + Path(__file__).read_bytes())
    for rows in old_rows:
        digest.update(rows.numpy())
    tokens = getattr(getattr(blocks, "tokens", None), "table", None)  # a stream has none
    kept = kept_beside(tokens, f"embeddings-{digest.hexdigest()[:32]}.safetensors")
    if kept is not None and kept.exists():
        new_rows = list(load_file(kept).values())
    else:
        new_rows = carried_rows(old_rows, pieces, token_stream(blocks, COUNTED_TOKENS))
        keep(kept, save({str(number): rows for number, rows in enumerate(new_rows)}))
    _take_rows(model, new_rows, pieces)
    sample = sample_texts(documents, COUNTED_CHARACTERS)
    copied = sum(len(piece) == 1 for piece in pieces)
    say(
        f"어휘: 글자당 {spent(old, sample):.2f} → {spent(new, sample):.2f}토큰 · 토큰 {len(new):,}개"
        f"(그대로 옮김 {copied:,}개, 조각과 쓰임에서 계산 {len(new) - copied:,}개)"
    )


def carry_over(model, old_tokenizer, new_tokenizer, ids):
    """Give `model`, in place, the vocabulary of `new_tokenizer`, each row of its embeddings as carried_rows tells.

    Both tokenizers are byte-level. ids: int64 [n], tokens of the corpus in their order.
    """
    pieces = find_pieces(old_tokenizer, new_tokenizer)
    _take_rows(model, carried_rows(_rows(model), pieces, ids), pieces)


def carried_rows(old_rows, pieces, ids):
    """The rows of new tokens, [new vocab, width] for each of `old_rows` [old vocab, width], built from those.

    A token of the same bytes keeps its row bit for bit; any other gets the mean of its pieces' rows and, added
    to it, what `usage_vectors` tells, brought into the space of the rows by `align` and out to their `spread`.

    pieces: what find_pieces gives. ids: int64 [n], tokens of the corpus in their order.
    """
    computed = torch.tensor([len(piece) > 1 for piece in pieces])
    usage = usage_vectors(ids, len(pieces), old_rows[0].shape[1])
    new_rows = []
    for old in old_rows:
        rows = mean_of_pieces(old, pieces)
        moved = rows + spread(old) * align(usage.to(rows), rows)
        new_rows.append(rows.where(~computed[:, None].to(old.device), moved))
    return new_rows


def _rows(model):
    return [embedding.weight.detach() for embedding in embedding_layers(model)]


def _take_rows(model, new_rows, pieces):
    old_biases = [bias.detach() for bias in _biases(model)]
    model.resize_token_embeddings(len(new_rows[0]), mean_resizing=False)
    with torch.no_grad():
        for rows, embedding in zip(new_rows, embedding_layers(model), strict=True):
            embedding.weight.copy_(rows)
        for old, bias in zip(old_biases, _biases(model), strict=True):
            bias.copy_(mean_of_pieces(old, pieces))


def _biases(model):
    """The bias of each token's logit, [vocab, 1], in a list that is empty where a model has none; GPT-J and Phi do."""
    bias = getattr(model.get_output_embeddings(), "bias", None)
    return [] if bias is None else [bias[:, None]]


def add_rows(model, tokenizer, added):
    """Give `added` (ids), new tokens of `tokenizer`, rows in `model`: each the mean of those that spell its name."""
    pieces = encode_texts(tokenizer.convert_ids_to_tokens(added), tokenizer)
    rows = max(max(added) + 1, model.get_input_embeddings().num_embeddings)  # some models have rows to spare
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for own in (*(embedding.weight for embedding in embedding_layers(model)), *_biases(model)):
            own[added] = mean_of_pieces(own, pieces)


def mean_of_pieces(rows, pieces):
    """The mean of the `rows` [old vocab, width] of each list of ids in `pieces`: [len(pieces), width]."""
    lengths = torch.tensor(list(map(len, pieces)), device=rows.device)
    flat = torch.tensor([index for piece in pieces for index in piece], device=rows.device)
    return F.embedding_bag(flat, rows, lengths.cumsum(0) - lengths, mode="mean")


def usage_vectors(ids, vocab_size, width):
    """What the corpus tells of each token's use, float32 [vocab_size, width], of length 1 on average over the text.

    Hellinger PCA (Lebret and Collobert 2014, arXiv 1312.5542): the principal components of the square roots
    of the probabilities with which a token has each frequent token at each of the PLACES beside it.
    """
    frequency = torch.bincount(ids, minlength=vocab_size)
    frequent = frequency.topk(min(NEIGHBOURS, vocab_size)).indices
    columns = len(frequent) + 1  # the last collects all rare neighbours, and is dropped
    rank = torch.full((vocab_size,), len(frequent), device=ids.device)
    rank[frequent] = torch.arange(len(frequent), device=ids.device)
    rows, neighbours = ids * columns, rank[ids]
    usage = torch.empty(vocab_size, len(PLACES), len(frequent), device=ids.device)
    for column, place in enumerate(PLACES):
        pairs = rows[:-place] + neighbours[place:] if place > 0 else rows[-place:] + neighbours[:place]
        usage[:, column] = torch.bincount(pairs, minlength=vocab_size * columns).view(-1, columns)[:, :-1]
    usual = usage.sum(0) / max(1, len(ids))
    usage = usage.add_(PRIOR * usual).div_(frequency[:, None, None] + PRIOR).sqrt_().flatten(1)
    usage -= usage.mean(0)
    components = _leading_space(_products(usage), min(width, usage.shape[1]))
    usage = F.pad(usage @ components, (0, width - components.shape[1]))
    length = (usage.norm(dim=1) * frequency).sum() / max(1, len(ids))
    return usage / length.clamp(min=1e-12)


def _products(matrix):
    """matrix.T @ matrix, of which what lies below the diagonal is not computed again."""
    products, step = matrix.new_empty(matrix.shape[1], matrix.shape[1]), 512
    for first in range(0, len(products), step):
        rows = matrix[:, first : first + step].T @ matrix[:, first:]
        products[first : first + step, first:] = rows
        products[first:, first : first + step] = rows.T
    return products


def _leading_space(matrix, width):
    """`width` orthonormal columns that span about the leading eigenvectors of a symmetric matrix.

    Subspace iteration (Halko et al. 2011, algorithm 4.4); the eigenvectors themselves would take minutes.
    """
    columns = torch.randn(len(matrix), width, generator=torch.Generator().manual_seed(0)).to(matrix)
    for _ in range(5):
        columns, _ = torch.linalg.qr(matrix @ columns)
    return columns


def align(usage, rows):
    """`usage` turned so that it lies as close as it can to `rows` about their mean, both [vocab, width].

    The orthogonal Procrustes problem (Schönemann 1966), by which WECHSEL (Minixhofer et al. 2022, arXiv 2112.06598)
    brings one language's vectors into another's space. There a dictionary pairs them; here the spelling does.
    """
    left, _, right = torch.linalg.svd(usage.T @ (rows - rows.mean(0)))
    return usage @ (left @ right)


def spread(rows):
    """How far `rows` [vocab, width] are from their mean, on average."""
    return (rows - rows.mean(0)).norm(dim=1).mean()


def find_pieces(old_tokenizer, new_tokenizer):
    """For each new token, by id, the old ones that write its bytes: ids, just one where it is a token there too."""
    old_ids = old_tokenizer.get_vocab()
    cut = old_tokenizer.backend_tokenizer.model.tokenize
    pieces, added = [None] * len(new_tokenizer), new_tokenizer.added_tokens_decoder
    for token, index in new_tokenizer.get_vocab().items():
        if index == new_tokenizer.eos_token_id:
            pieces[index] = [old_tokenizer.eos_token_id]
        elif token in old_ids:
            pieces[index] = [old_ids[token]]
        elif index in added:  # its name is written as it is, and not in the alphabet of bytes
            (pieces[index],) = encode_texts([token], old_tokenizer)
        else:
            pieces[index] = [piece.id for piece in cut(token)]
    return pieces


def embedding_layers(model):
    """The input embeddings, and the output ones where they are not the same."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    return [inputs] if outputs is None or outputs.weight is inputs.weight else [inputs, outputs]


def split_off(optimizer, parameters, **changes):
    """Give those of `parameters` that the optimizer trains groups of their own, last, with these `changes`.

    Returns how many they are.
    """
    wanted, found = {id(parameter) for parameter in parameters}, 0
    for group in list(optimizer.param_groups):
        chosen = [parameter for parameter in group["params"] if id(parameter) in wanted]
        if chosen:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in wanted]
            optimizer.add_param_group({**group, "params": chosen, **changes})
            found += len(chosen)
    return found
