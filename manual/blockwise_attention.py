"""Attention without its weights: memory that grows with the length, not with its square."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.manual.attention import scale_of
from handgrad.manual.masks import check_lengths, cleared
from handgrad.manual.mesh import spread
from handgrad.manual.numerics import exp, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import whole

__all__ = ["blockwise_attention"]


@op
def blockwise_attention(q, k, v, *, causal=True, lengths=None, scale=None, block=256):
    r"""Y = softmax(scale Q Kᵀ) V, block by block: no more than block² weights a head at a time.

    q, k: (*batch, time, width). v: (*batch, time, out). Returns (*batch, time, out). The function
    is `attention`, but for digits of s̄ that are small beside p̄ (below, p̄ᵢⱼ − Dᵢ cancels where one
    weight is almost 1), and without a bias, which would be as large as the weights. One of the keys
    alone, as ALiBi's is, can be given as a column more: ones in q, and bias / scale in k.
    causal: query i sees the keys j ≤ i. lengths: integers of the shape of the first batch axis (a
    scalar where there is none); the keys from there on are padding, and a query that may see
    nothing reads zero. scale: a number, 1/√width if None. block: rows at a time.
    The scores of a row come in pieces. With its peak m and sums so far, a new piece of scores s
        m′ = max(m, max s),   α = e^{m − m′},   eⱼ = e^{sⱼ − m′},
        l ← α l + Σⱼ eⱼ,   a ← α a + Σⱼ eⱼ vⱼ
    and y = a / l in the end. Of every row only m and l are kept (m + ln l is its log-sum-exp, which
    beside a large m would lose the digits of ln l), by which pᵢⱼ = e^{sᵢⱼ − mᵢ} / lᵢ is made again.
    Backward, over the same pairs of blocks, with Dᵢ = ȳᵢ·yᵢ = Σⱼ pᵢⱼ p̄ᵢⱼ computed before:
        v̄ⱼ += pᵢⱼ ȳᵢ,   s̄ᵢⱼ = pᵢⱼ (ȳᵢ·vⱼ − Dᵢ),   q̄ᵢ += scale s̄ᵢⱼ kⱼ,   k̄ⱼ += scale s̄ᵢⱼ qᵢ
    Pairs of blocks that lie wholly in a query's future are left out of both. float16 and bfloat16
    are computed in float32.
    Raises ValueError where the shapes do not fit or an axis is empty, and for a length outside
    [0, time] that is known when the function is traced; TypeError for wrong dtypes.
    Source: Dao et al., "FlashAttention" (2022) and "FlashAttention-2" (2023), algorithms 1 and 2;
    Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018).
    """
    _check(q, k, v)
    time = q.shape[-2]
    if lengths is not None:
        lengths = check_lengths("blockwise_attention", lengths, q.shape[:-2][:1], time)
        k, v = cleared("blockwise_attention", lengths, k, v)
    block = min(whole("blockwise_attention", block=block), time)
    scale = scale_of("blockwise_attention", scale, q)
    y, peak, total, kept_y = _forward(q, k, v, lengths, scale, causal, block)
    return y, (q, k, v, lengths, peak, total, kept_y)


@functools.partial(
    jax.jit, static_argnames=("causal", "block"), inline=True
)  # or a scan is, at every call
def _forward(q, k, v, lengths, scale, causal, block):
    time = q.shape[-2]
    pairs = _pairs(time, block, causal)
    seen = _Seen(time, block, causal, lengths, q.ndim - 1)
    rows, keys, values = _all_blocks(block, scale * widen(q), k, v)

    def step(state, pair):
        i, j = pair
        peak, total, read = (_at(x, i) for x in state)
        s, inside = _scores(_at(rows, i), _at(keys, j), seen, pair)
        # the peak only keeps e from overflowing: it cancels out of y, and has no derivative
        new_peak = lax.stop_gradient(jnp.maximum(peak, s.max(-1, keepdims=True)))
        e = jnp.where(inside, exp(s - new_peak), 0)  # (*batch, block, block)
        shrink = exp(peak - new_peak)
        total = shrink * total + e.sum(-1, keepdims=True)
        read = shrink * read + e @ _at(values, j)
        return tuple(map(_put, state, (new_peak, total, read), (i, i, i))), None

    one = jnp.zeros((*rows.shape[:-1], 1), rows.dtype)
    start = one + jnp.finfo(one.dtype).min, one, jnp.zeros_like(values)
    (peak, total, read), _ = lax.scan(step, spread(start, rows, keys, lengths), pairs)
    total = jnp.where(total == 0, 1, total)  # a row that may see nothing
    y = read / total
    return _unblocked(y, v.shape, q.dtype), peak, total, y


@blockwise_attention.backward
def _(residuals, dy, *, causal, scale, block):
    q = residuals[0]
    block, scale = min(int(block), q.shape[-2]), scale_of("blockwise_attention", scale, q)
    return _backward(residuals, dy, scale, causal, block)


@functools.partial(jax.jit, static_argnames=("causal", "block"), inline=True)
def _backward(residuals, dy, scale, causal, block):
    q, k, v, lengths, peak, total, y = residuals
    time = q.shape[-2]
    seen = _Seen(time, block, causal, lengths, q.ndim - 1)
    rows, keys, values, dy = _all_blocks(block, scale * widen(q), k, v, dy)
    # D as p̄ is made, by a product of blocks: where one weight is 1 the two are then equal
    dots = jnp.diagonal(dy @ _t(y), axis1=-2, axis2=-1)[..., None]

    def step(state, pair):
        i, j = pair
        dq, dk, dv = state
        q, k, v, dy_i = _at(rows, i), _at(keys, j), _at(values, j), _at(dy, i)
        s, inside = _scores(q, k, seen, pair)
        p = jnp.where(inside, exp(s - _at(peak, i)) / _at(total, i), 0)
        ds = p * (dy_i @ _t(v) - _at(dots, i))
        dv = _put(dv, _at(dv, j) + _t(p) @ dy_i, j)
        dk = _put(dk, _at(dk, j) + _t(ds) @ q, j)  # q has been scaled
        dq = _put(dq, _at(dq, i) + ds @ k, i)
        return (dq, dk, dv), None

    start = jnp.zeros_like(rows), jnp.zeros_like(keys), jnp.zeros_like(values)
    start = spread(start, residuals)
    (dq, dk, dv), _ = lax.scan(step, start, _pairs(time, block, causal))
    return (
        _unblocked(scale * dq, q.shape, q.dtype),
        _unblocked(dk, k.shape, k.dtype),
        _unblocked(dv, v.shape, v.dtype),
    )


class _Seen:
    """Which of the keys of block j the queries of block i may see."""

    def __init__(self, time, block, causal, lengths, rank):
        self.block, self.causal, self.lengths, self.rank = block, causal, lengths, rank
        self.time = time

    def __call__(self, pair):
        i, j = pair
        shape = (1,) * (self.rank - 1) + (self.block, self.block)
        row, column = (lax.broadcasted_iota(jnp.int32, shape, self.rank - a) for a in (1, 0))
        row, column = row + i * self.block, column + j * self.block
        inside = column < self.time  # the last block is padded
        if self.causal:
            inside = inside & (column <= row)
        if self.lengths is not None:
            lengths = self.lengths.reshape(
                self.lengths.shape + (1,) * (self.rank + 1 - self.lengths.ndim)
            )
            shape = jnp.broadcast_shapes(lengths.shape, shape)
            inside = jnp.broadcast_to(inside, shape) & (
                jnp.broadcast_to(column, shape) < jnp.broadcast_to(lengths, shape)
            )
        return inside


def _scores(q, k, seen, pair):
    """The scores of a pair of blocks, the least of all numbers where nothing is seen; and where."""
    s = q @ _t(k)
    inside = jnp.broadcast_to(seen(pair), s.shape)
    return jnp.where(inside, s, jnp.finfo(s.dtype).min), inside


def _pairs(time, block, causal):
    """The numbers (i, j) of all pairs of a block of queries and one of keys, i by i."""
    count = -(-time // block)
    both = np.tril_indices(count) if causal else np.indices((count, count)).reshape(2, -1)
    return tuple(np.asarray(x, np.int32) for x in both)


def _all_blocks(block, *arrays):
    """Each in blocks, in the widest of their dtypes, float32 at least."""
    arrays = [widen(x) for x in arrays]
    dtype = jnp.result_type(*arrays)
    return [_blocks(x.astype(dtype), block) for x in arrays]


def _blocks(x, block):
    """(*batch, time, ·) -> (blocks, *batch, block, ·), padded with zeros."""
    *batch, time, width = x.shape
    x = jnp.pad(x, [(0, 0)] * len(batch) + [(0, -time % block), (0, 0)])
    return jnp.moveaxis(x.reshape(*batch, -(-time // block), block, width), -3, 0)


def _unblocked(x, shape, dtype):
    """The inverse of `_blocks`."""
    x = jnp.moveaxis(x, 0, -3)
    x = x.reshape(*shape[:-2], x.shape[-3] * x.shape[-2], shape[-1])
    return x[..., : shape[-2], :].astype(dtype)


def _at(x, i):
    return lax.dynamic_index_in_dim(x, i, 0, keepdims=False)


def _put(x, block, i):
    return lax.dynamic_update_index_in_dim(x, block, i, 0)


def _t(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


def _check(q, k, v):
    ranks = jnp.ndim(q) >= 2 and jnp.ndim(v) == jnp.ndim(q)
    if not ranks or q.shape != jnp.shape(k) or v.shape[:-1] != q.shape[:-1]:
        raise ValueError(
            f"blockwise_attention: q has shape {jnp.shape(q)}, k {jnp.shape(k)} and v "
            f"{jnp.shape(v)}; they must be (*batch, time, width), the same, and (*batch, time, out)"
        )
    if 0 in q.shape[-2:]:
        raise ValueError(
            f"blockwise_attention: q has shape {q.shape}; there must be at least one step of time "
            "and one number in each"
        )
