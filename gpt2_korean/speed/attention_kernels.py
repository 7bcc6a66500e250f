"""Triton kernels of attention within the pieces of a batch, in training: their work is what the pieces ask for.

The rows of a batch follow one another as one text. A tile of queries goes over the tiles of keys from the one where
its first query's piece begins to its own last query, so short pieces cost little, and a long one costs no other
anything; all this is read on the device, so that a recorded step follows each batch. Scores are not kept: the way back
computes them again from the logarithms of their sums (FlashAttention-2, Dao 2023, arXiv 2307.08691).
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
# The score of a key that is not seen. Finite: what a query adds up in a tile where it sees none is scaled to nothing
# once it meets its own key. A power of two: scaling it makes no rounding error, which exp2 would turn infinite.
UNSEEN = tl.constexpr(-(2.0**100))


@triton.jit
def _load(ptr, first, tokens, stride, ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """[ROWS, BLOCK]: one head's rows of the tokens from `first` on, 0 beyond the last and beyond the head."""
    rows, columns = tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    places = tl.cast(first, tl.int64) * stride + rows * stride + columns
    return tl.load(ptr + places, (first + rows < tokens) & (columns < WIDTH), 0.0)


@triton.jit
def _store(ptr, x, first, tokens, stride, ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    rows, columns = tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    places = tl.cast(first, tl.int64) * stride + rows * stride + columns
    tl.store(ptr + places, x.to(ptr.dtype.element_ty), (first + rows < tokens) & (columns < WIDTH))


@triton.jit
def _store_gradient(
    ptr, x, parts_ptr, parts_stride, first, tokens, heads, ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    """Store x among the gradients of queries, keys and values, and its sums over the tile's tokens."""
    _store(ptr, x, first, tokens, 3 * heads * WIDTH, ROWS, WIDTH, BLOCK)
    columns = tl.arange(0, BLOCK)
    tl.store(parts_ptr + tl.program_id(1) * parts_stride + columns, tl.sum(x, 0), columns < WIDTH)


@triton.jit
def _is_seen(queries, keys, reach):
    """Whether queries - keys is in [0, reach]: as numbers without a sign, those below 0 are large."""
    return (queries - keys).to(tl.uint32) <= reach.to(tl.uint32)


@triton.jit
def _odd_hash(x):
    """The finalizer of MurmurHash with the constants of Wellons' search for the least bias (lowbias32, 2018), odd."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16) | 1


@triton.jit
def _hash(x, seed_ptr, PART: tl.constexpr):
    return _odd_hash(x.to(tl.uint32) * 0x9E3779B1 + tl.load(seed_ptr + PART).to(tl.uint32))


@triton.jit
def _hash_tokens(tokens, heads, head, seed_ptr, PART: tl.constexpr, UNIT: tl.constexpr):
    """Dropout keeps the weight of a key for a query where the product of their hashes is at least LEAST of 2**32.

    A token's own is that of its tile of UNIT tokens times that of its place therein, so that a loop over tiles hashes
    one number for each, and what is left to each weight is one multiplication. Odd numbers are a group under it, so
    that each product is as evenly spread as the hashes; shares, pairs, triples and rectangles of weights, in tiles and
    across them, were correlated no more than truly random ones over 200,000 seeds.
    """
    return _hash(tokens // UNIT * heads + head, seed_ptr, PART) * _hash(tokens % UNIT, seed_ptr, PART + 1)


@triton.jit
def _count(low, high, full_low, full_high, MASKED: tl.constexpr):
    """How many of the tiles in [low, high) are MASKED: those that are not in [full_low, full_high)."""
    count = full_high - full_low
    if MASKED:
        count = high - low - count
    return count


@triton.jit
def _tile(i, low, full_low, full_high, MASKED: tl.constexpr):
    """The i-th of the tiles that _count counts."""
    tile = full_low + i
    if MASKED:
        tile = low + i + tl.where(low + i < full_low, 0, full_high - full_low)
    return tile


@triton.jit
def _queries(starts_ptr, tokens, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    """A program's tile of queries: the first, all, how far back each sees, and `low, high, full_low, full_high` of the
    tiles of keys that one of them sees, and that all of them see whole."""
    first = tl.program_id(1) * QUERIES
    queries, last = first + tl.arange(0, QUERIES), tl.minimum(first + QUERIES, tokens) - 1
    reach = (queries - tl.load(starts_ptr + queries, queries < tokens, 0))[:, None]
    low, high = tl.load(starts_ptr + first) // KEYS, last // KEYS + 1
    full_low = tl.cdiv(tl.load(starts_ptr + last), KEYS)
    return first, queries, reach, low, high, full_low, tl.maximum(full_low, (first + 1) // KEYS)


@triton.jit
def attention_kernel(
    q_ptr, k_ptr, v_ptr, starts_ptr, seed_ptr, x_ptr, log_sums_ptr, tokens, stride, head_stride, scale,
    LEAST: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """x of a tile of queries, and the logarithms to the base of 2 of their scores' sums, float32 [heads, tokens].

    By these logarithms a weight is as large as dropout makes those that it keeps.
    UNIT: the tokens of a tile in the kernels that go over the others, here of_keys' QUERIES; see _hash_tokens.
    """
    head, heads = tl.program_id(0), tl.num_programs(0)
    q_ptr, k_ptr, v_ptr = q_ptr + head * head_stride, k_ptr + head * head_stride, v_ptr + head * head_stride
    first, queries, reach, low, high, full_low, full_high = _queries(starts_ptr, tokens, QUERIES, KEYS)
    q = _load(q_ptr, first, tokens, stride, QUERIES, WIDTH, BLOCK)
    if LEAST > 0:
        of_queries = _hash_tokens(queries, heads, head, seed_ptr, 0, UNIT)
        of_places = _hash(tl.arange(0, KEYS), seed_ptr, 3)[None, :]
    x, factor = tl.zeros([QUERIES, BLOCK], tl.float32), scale * LOG2_E
    highest, total = tl.full([QUERIES], float("-inf"), tl.float32), tl.zeros([QUERIES], tl.float32)
    for masked in tl.static_range(2):
        for i in range(_count(low, high, full_low, full_high, masked)):
            tile = _tile(i, low, full_low, full_high, masked)
            key = tile * KEYS
            keys = (key + tl.arange(0, KEYS))[None, :]
            k = _load(k_ptr, key, tokens, stride, KEYS, WIDTH, BLOCK)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee")
            if masked == 1:
                scores = tl.where(_is_seen(queries[:, None], keys, reach), scores, UNSEEN)
            new_highest = tl.maximum(highest, tl.max(scores, 1) * factor)
            shrink = tl.exp2(highest - new_highest)
            weights = tl.exp2(scores * factor - new_highest[:, None])
            total, highest = total * shrink + tl.sum(weights, 1), new_highest
            if LEAST > 0:
                kept = (of_queries * _hash(tile, seed_ptr, 2))[:, None] * of_places >= LEAST
                weights = tl.where(kept, weights, 0.0)
            v = _load(v_ptr, key, tokens, stride, KEYS, WIDTH, BLOCK)
            x = tl.dot(weights.to(v.dtype), v, x * shrink[:, None], input_precision="ieee")
    share = 1 / (total * (1 - LEAST / 2**32))
    _store(x_ptr + head * WIDTH, x * share[:, None], first, tokens, heads * WIDTH, QUERIES, WIDTH, BLOCK)
    tl.store(log_sums_ptr + head * tokens + queries, highest - tl.log2(share), queries < tokens)


@triton.jit
def of_queries_kernel(
    q_ptr, k_ptr, v_ptr, starts_ptr, seed_ptr, x_ptr, of_x_ptr, log_sums_ptr, along_ptr, of_qkv_ptr, parts_ptr,
    tokens, stride, head_stride, scale,
    LEAST: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """The gradient of a tile of queries.

    along: float32 [heads, tokens], the sums of x times its gradient, over what dropout enlarges kept weights by.
    parts: float32 [tiles, width], the gradients' sums over the tokens of a tile.
    """
    head, heads = tl.program_id(0), tl.num_programs(0)
    q_ptr, k_ptr, v_ptr = q_ptr + head * head_stride, k_ptr + head * head_stride, v_ptr + head * head_stride
    first, queries, reach, low, high, full_low, full_high = _queries(starts_ptr, tokens, QUERIES, KEYS)
    q = _load(q_ptr, first, tokens, stride, QUERIES, WIDTH, BLOCK)
    x = _load(x_ptr + head * WIDTH, first, tokens, heads * WIDTH, QUERIES, WIDTH, BLOCK)
    of_x = _load(of_x_ptr + head * WIDTH, first, tokens, heads * WIDTH, QUERIES, WIDTH, BLOCK)
    along = tl.sum(x.to(tl.float32) * of_x.to(tl.float32), 1) * (1 - LEAST / 2**32)
    tl.store(along_ptr + head * tokens + queries, along, queries < tokens)
    log_sums = tl.load(log_sums_ptr + head * tokens + queries, queries < tokens, 0.0)
    if LEAST > 0:
        of_queries = _hash_tokens(queries, heads, head, seed_ptr, 0, UNIT)
        of_places = _hash(tl.arange(0, KEYS), seed_ptr, 3)[None, :]
    of_q, factor = tl.zeros([QUERIES, BLOCK], tl.float32), scale * LOG2_E
    for masked in tl.static_range(2):
        for i in range(_count(low, high, full_low, full_high, masked)):
            tile = _tile(i, low, full_low, full_high, masked)
            key = tile * KEYS
            keys = (key + tl.arange(0, KEYS))[None, :]
            k = _load(k_ptr, key, tokens, stride, KEYS, WIDTH, BLOCK)
            v = _load(v_ptr, key, tokens, stride, KEYS, WIDTH, BLOCK)
            scores = tl.dot(q, tl.trans(k), input_precision="ieee")
            weights = tl.exp2(scores * factor - log_sums[:, None])
            if masked == 1:
                weights = tl.where(_is_seen(queries[:, None], keys, reach), weights, 0.0)
            of_weights = tl.dot(of_x, tl.trans(v), input_precision="ieee")
            if LEAST > 0:
                kept = (of_queries * _hash(tile, seed_ptr, 2))[:, None] * of_places >= LEAST
                of_weights = tl.where(kept, of_weights, 0.0)
            of_scores = weights * (of_weights - along[:, None])
            of_q = tl.dot(of_scores.to(k.dtype), k, of_q, input_precision="ieee")
    of_qkv_ptr, parts_ptr, width = of_qkv_ptr + head * WIDTH, parts_ptr + head * WIDTH, heads * WIDTH
    _store_gradient(of_qkv_ptr, of_q * scale, parts_ptr, width, first, tokens, heads, QUERIES, WIDTH, BLOCK)


@triton.jit
def of_keys_kernel(
    q_ptr, k_ptr, v_ptr, ends_ptr, seed_ptr, of_x_ptr, log_sums_ptr, along_ptr, of_qkv_ptr, parts_ptr,
    tokens, stride, head_stride, scale,
    LEAST: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """The gradients of a tile of keys and of their values: over the queries up to where the last key's piece ends.

    parts: float32 [tiles, 2 × width], as above.
    """
    head, heads, first = tl.program_id(0), tl.num_programs(0), tl.program_id(1) * KEYS
    q_ptr, k_ptr, v_ptr = q_ptr + head * head_stride, k_ptr + head * head_stride, v_ptr + head * head_stride
    log_sums_ptr, along_ptr, of_x_ptr = log_sums_ptr + head * tokens, along_ptr + head * tokens, of_x_ptr + head * WIDTH
    keys, last = first + tl.arange(0, KEYS), tl.minimum(first + KEYS, tokens) - 1
    reach = (tl.load(ends_ptr + keys, keys < tokens, keys + 1) - 1 - keys)[:, None]
    low, high = first // QUERIES, tl.cdiv(tl.load(ends_ptr + last), QUERIES)
    full_low = tl.cdiv(last, QUERIES)  # from where on all keys are seen by all queries
    full_high = tl.maximum(full_low, tl.load(ends_ptr + first) // QUERIES)
    k = _load(k_ptr, first, tokens, stride, KEYS, WIDTH, BLOCK)
    v = _load(v_ptr, first, tokens, stride, KEYS, WIDTH, BLOCK)
    of_k, of_v = tl.zeros([KEYS, BLOCK], tl.float32), tl.zeros([KEYS, BLOCK], tl.float32)
    factor = scale * LOG2_E
    if LEAST > 0:
        of_keys = _hash_tokens(keys, 1, 0, seed_ptr, 2, UNIT)
        of_places = _hash(tl.arange(0, QUERIES), seed_ptr, 1)[None, :]
    for masked in tl.static_range(2):
        for i in range(_count(low, high, full_low, full_high, masked)):
            tile = _tile(i, low, full_low, full_high, masked)
            query = tile * QUERIES
            queries = query + tl.arange(0, QUERIES)
            q = _load(q_ptr, query, tokens, stride, QUERIES, WIDTH, BLOCK)
            of_x = _load(of_x_ptr, query, tokens, heads * WIDTH, QUERIES, WIDTH, BLOCK)
            log_sums = tl.load(log_sums_ptr + queries, queries < tokens, 0.0)
            along = tl.load(along_ptr + queries, queries < tokens, 0.0)
            scores = tl.dot(k, tl.trans(q), input_precision="ieee")
            weights = tl.exp2(scores * factor - log_sums[None, :])
            if masked == 1:
                weights = tl.where(_is_seen(queries[None, :], keys[:, None], reach), weights, 0.0)
            of_weights = tl.dot(v, tl.trans(of_x), input_precision="ieee")
            left = weights
            if LEAST > 0:
                kept = (of_keys * _hash(tile * heads + head, seed_ptr, 0))[:, None] * of_places >= LEAST
                left = tl.where(kept, weights, 0.0)
            of_v = tl.dot(left.to(q.dtype), of_x, of_v, input_precision="ieee")
            of_scores = left * of_weights - weights * along[None, :]
            of_k = tl.dot(of_scores.to(q.dtype), q, of_k, input_precision="ieee")
    of_qkv_ptr, parts_ptr, width = of_qkv_ptr + head * WIDTH, parts_ptr + head * WIDTH, heads * WIDTH
    of_k_ptr, of_v_ptr = of_qkv_ptr + width, of_qkv_ptr + 2 * width
    _store_gradient(of_k_ptr, of_k * scale, parts_ptr, 2 * width, first, tokens, heads, KEYS, WIDTH, BLOCK)
    _store_gradient(of_v_ptr, of_v, parts_ptr + width, 2 * width, first, tokens, heads, KEYS, WIDTH, BLOCK)
