"""Attention: every query reads a mean of the values, weighted by how well it matches their keys.

All of it here stores the weights, (queries, keys) for each head; `blockwise_attention` does not.
"""

from typing import Any

import jax
import jax.numpy as jnp

from handgrad.manual.dense import affine
from handgrad.manual.masks import added, allowed, cleared
from handgrad.manual.numerics import widen
from handgrad.manual.op import op
from handgrad.manual.shapes import as_float, number, whole
from handgrad.manual.trees import fit, matrix

__all__ = ["attention", "grouped_query_attention", "multi_head_attention"]


@op
def attention(q, k, v, bias=None, *, causal=False, lengths=None, mask=None, scale=None):
    r"""Y = P V,  P = softmax(S) over the keys,  S = scale Q Kᵀ + B.

    q: (*batch, queries, width). k: (*batch, keys, width). v: (*batch, keys, out), the same batch
    axes for all three. Returns (*batch, queries, out). scale: a number, 1/√width if None.
    bias: B, such as a relative position has, or None: (queries, keys) or of the rank of the scores
    with axes of one, along which it is the same. Where it is −∞, a query may not see a key.
    What a query may see is what all of these allow:
    causal: query i sees the keys j ≤ i. lengths: integers of the shape of the first batch axis
    (a scalar where there is none); the keys from there on are padding. mask: booleans, True where
    a query may see a key, (queries, keys) or of the rank of the scores with axes of one.
    A query that may see nothing reads zero, and its gradient is zero.
    Backward, with p̄ = ȳ Vᵀ:
        s̄ᵢⱼ = pᵢⱼ (p̄ᵢⱼ − Σₗ pᵢₗ p̄ᵢₗ),   V̄ = Pᵀ Ȳ,   Q̄ = scale S̄ K,   K̄ = scale S̄ᵀ Q,
        B̄ = Σ S̄ over the axes along which B is the same
    where s̄ is computed from p̄ᵢⱼ − p̄ᵢₘ if pᵢₘ is above ½ (see `softmax`). float16 and bfloat16
    are computed in float32.
    Raises ValueError where the shapes do not fit or an axis is empty, and for a length outside
    [0, keys] that is known when the function is traced (as in a tuple); TypeError for wrong dtypes.
    Source: Vaswani et al., "Attention is all you need" (2017), eq. 1; the bias: Shaw et al.,
    "Self-attention with relative position representations" (2018); Raffel et al., "T5" (2020).
    """
    _check("attention", q, k, v)
    if q.shape[:-2] != k.shape[:-2]:
        raise ValueError(
            f"attention: q has shape {q.shape} and k {k.shape}; their batch axes must be equal"
        )
    scores = (*q.shape[:-1], k.shape[-2])
    seen = allowed("attention", scores, causal, lengths, mask)
    k, v = cleared("attention", lengths, k, v)
    scale = scale_of("attention", scale, q)
    b = None if bias is None else added("attention", bias, scores)
    y, weights = _read(q, k, v, b, seen, scale)
    return y.astype(q.dtype), (q, k, v, weights, bias)  # of bias the backward needs the shape


@attention.backward
def _(residuals, dy, *, scale):
    q, k, v, weights, bias = residuals  # the weights are zero where nothing is seen, and so is s̄
    scale = scale_of("attention", scale, q)
    *dqkv, ds = _read_back(q, k, v, weights, dy, scale, biased=bias is not None)
    return *dqkv, _bias_cotangent(ds, q, k, bias)


@op
def grouped_query_attention(
    q, k, v, bias=None, *, causal=False, lengths=None, mask=None, scale=None
):
    r"""Attention of several heads, of which each group of heads shares the keys and the values.

    q: (batch, heads, queries, width). k: (batch, groups, keys, width). v: (batch, groups, keys,
    out); heads is a multiple of groups, and head h reads group ⌊h groups / heads⌋: one group is
    multi-query attention, as many as heads multi-head attention.
    Returns (batch, heads, queries, out). bias, causal, lengths (batch,), mask, scale: as for
    `attention`; the scores are (batch, heads, queries, keys).
    Backward: that of `attention` with the heads of a group as so many more queries of the same
    keys; the sums over queries in K̄ and V̄ then run over the heads of the group too.
    Raises ValueError and TypeError as `attention` does, and where groups do not divide heads.
    Source: Shazeer, "Fast transformer decoding" (2019); Ainslie et al., "GQA" (2023).
    """
    name = "grouped_query_attention"
    _check(name, q, k, v)
    if q.ndim != 4 or k.ndim != 4 or q.shape[0] != k.shape[0]:
        raise ValueError(
            f"{name}: q has shape {q.shape} and k {k.shape}; they must be "
            "(batch, heads, queries, width) and (batch, groups, keys, width)"
        )
    _check_heads(name, q.shape[1], k.shape[1])
    k, v = cleared(name, lengths, k, v)
    return _grouped(name, q, k, v, bias, causal, lengths, mask, scale)


@grouped_query_attention.backward
def _(residuals, dy, *, scale):
    q, k, v, weights, bias = residuals
    groups, scale = k.shape[1], scale_of("attention", scale, q)
    dq, dk, dv, ds = _read_back(
        _by_group(q, groups), k, v, weights, _by_group(dy, groups), scale, biased=bias is not None
    )
    return dq.reshape(q.shape), dk, dv, _bias_cotangent(ds, q, k, bias)


@op
def multi_head_attention(
    x,
    context,
    wq,
    wk,
    wv,
    wo,
    bq=None,
    bk=None,
    bv=None,
    bo=None,
    bias=None,
    *,
    heads,
    causal=False,
    lengths=None,
    mask=None,
):
    r"""Y = [head₁ … head_H] Wₒ + bₒ,  headₕ = attention(X W_q, C W_k, C W_v) in its own columns.

    x: (batch, queries, in), which asks. context: (batch, keys, in_context), which is read: x again
    for self-attention. wq: (in, heads width). wk: (in_context, groups width).
    wv: (in_context, groups out). wo: (heads out, model). bq, bk, bv, bo: (columns,) of the matrix
    of that name, or None. bias: what is added to the scores, as for `attention`, or None.
    Returns (batch, queries, model).
    heads: their number; width follows from wq, and the number of groups from wk (fewer than heads:
    grouped queries). causal, lengths (batch,), mask: as for `attention`, the scores being
    (batch, heads, queries, keys); the scale is 1/√width.
    Backward: the cotangents of the affine map Wₒ, then of every head, then of the three affine
    maps; context has those of the keys and those of the values, added up. The bias has that of
    the heads.
    Raises ValueError where the shapes do not fit or heads do not divide the columns.
    Source: Vaswani et al., "Attention is all you need" (2017), section 3.2.2.
    """
    name = "multi_head_attention"
    matrices, biases = (wq, wk, wv, wo), (bq, bk, bv, bo)
    heads, groups = check_projections(name, x, context, matrices, biases, heads)
    (context,) = cleared(name, lengths, context)
    q, kept_q = affine.forward(x, wq, bq)
    k, kept_k = affine.forward(context, wk, bk)
    v, kept_v = affine.forward(context, wv, bv)
    read, kept = _grouped(
        name, _split(q, heads), _split(k, groups), _split(v, groups), bias, causal, lengths, mask
    )
    y, kept_o = affine.forward(_join(read), wo, bo)
    return y, (kept_q, kept_k, kept_v, kept, kept_o)


@multi_head_attention.backward
def _(residuals, dy, *, heads):
    kept_q, kept_k, kept_v, kept, kept_o = residuals
    dread, dwo, dbo = affine.pullback(kept_o, dy)
    dq, dk, dv, dbias = grouped_query_attention.pullback(kept, _split(dread, int(heads)))
    dx, dwq, dbq = affine.pullback(kept_q, _join(dq))
    dkeys, dwk, dbk = affine.pullback(kept_k, _join(dk))
    dvalues, dwv, dbv = affine.pullback(kept_v, _join(dv))
    dcontext = (widen(dkeys) + widen(dvalues)).astype(dkeys.dtype)
    return dx, dcontext, dwq, dwk, dwv, dwo, dbq, dbk, dbv, dbo, dbias


def _grouped(name, q, k, v, bias, causal, lengths, mask, scale=None):
    """What the heads of every group read, and the residuals; the name is for the messages."""
    scores = (*q.shape[:-1], k.shape[-2])
    seen = allowed(name, scores, causal, lengths, mask)
    if seen is not None:
        seen = _by_group(jnp.broadcast_to(seen, scores), k.shape[1])
    b = None
    if bias is not None:
        b = added(name, bias, scores)
        b = _by_group(jnp.broadcast_to(b, (len(b), *scores[1:3], b.shape[3])), k.shape[1])
    y, weights = _read(_by_group(q, k.shape[1]), k, v, b, seen, scale_of(name, scale, q))
    return y.reshape(*q.shape[:-1], v.shape[-1]).astype(q.dtype), (q, k, v, weights, bias)


def _read(q, k, v, bias, seen, scale):
    """What every query reads, and its weights: both in float32 at least."""
    q, k, v = widen(q), widen(k), widen(v)
    # q is scaled, not the scores: fused with − peak, a scaled score would be rounded otherwise
    scores = (scale * q) @ _t(k)  # (*batch, queries, keys)
    least = jnp.finfo(scores.dtype).min
    if bias is not None:
        scores = scores + jnp.broadcast_to(widen(bias), scores.shape)
        least = -jnp.inf  # what is not seen: to the least number itself a bias may be set
    if seen is not None:
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape), scores, least)
    peak = scores.max(-1, keepdims=True)
    blind = peak == least  # nothing may be seen
    if bias is not None:
        peak = jnp.where(blind, 0, peak)
    e = jnp.exp(scores - peak)
    total = jnp.where(blind, jnp.inf, e.sum(-1, keepdims=True))
    weights = e / total
    return weights @ v, weights


def _read_back(q, k, v, weights, dy, scale, *, biased):
    """The cotangents of q, k and v, and S̄ where there is a bias, which the scale is not of."""
    wide_q, wide_k, wide_v, dy = map(widen, (q, k, v, dy))
    dv = _t(weights) @ dy
    dp = dy @ _t(wide_v)
    dp = dp - (jnp.round(weights) * dp).sum(-1, keepdims=True)  # of a weight above ½, if any
    from_mean = dp - (weights * dp).sum(-1, keepdims=True)
    scaled = scale * weights * from_mean
    dq, dk = (scaled @ wide_k).astype(q.dtype), (_t(scaled) @ wide_q).astype(k.dtype)
    return dq, dk, dv.astype(v.dtype), weights * from_mean if biased else None


def _bias_cotangent(ds, q, k, bias):
    """Of S̄ the sum over the axes that the bias has not, or has of size one."""
    if bias is None:
        return None
    own = (1,) * (q.ndim - bias.ndim) + bias.shape
    along = tuple(axis for axis, n in enumerate(own) if n == 1)
    ds = ds.reshape(*q.shape[:-1], k.shape[-2])  # the heads of a group apart again
    return ds.sum(along, keepdims=True).reshape(bias.shape)


def _t(x: jax.Array) -> jax.Array:
    return jnp.swapaxes(x, -1, -2)


def _by_group(x, groups):
    """(batch, heads, queries, ·) -> (batch, groups, heads of a group × queries, ·)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups * x.shape[2], x.shape[3])


def _split(x, heads):
    """(batch, time, heads × width) -> (batch, heads, time, width)."""
    return jnp.swapaxes(x.reshape(*x.shape[:2], heads, x.shape[2] // heads), 1, 2)


def _join(x):
    """(batch, heads, time, width) -> (batch, time, heads × width)."""
    batch, heads, time, width = x.shape
    return jnp.swapaxes(x, 1, 2).reshape(batch, time, heads * width)


def scale_of(name: str, scale: Any, q: jax.Array) -> Any:
    """What the scores are multiplied by."""
    if scale is None:
        return q.shape[-1] ** -0.5
    number(name, scale=scale)
    return as_float(scale)


def _check(name, q, k, v):
    ranks = jnp.ndim(q) >= 2 and jnp.ndim(k) == jnp.ndim(q) == jnp.ndim(v)
    if not ranks or q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1]:
        raise ValueError(
            f"{name}: q has shape {jnp.shape(q)}, k {jnp.shape(k)} and v {jnp.shape(v)}; they must "
            "be (…, queries, width), (…, keys, width) and (…, keys, out)"
        )
    if 0 in q.shape[-2:] or 0 in k.shape[-2:]:
        raise ValueError(
            f"{name}: q has shape {q.shape} and k {k.shape}; there must be at least one query, one "
            "key and one number in each"
        )


def _check_heads(name, heads, groups):
    if groups < 1 or heads % groups:
        raise ValueError(
            f"{name}: q has {heads} heads and k and v have {groups}; the former must be a multiple "
            "of the latter"
        )


def check_projections(
    name: str,
    x: jax.Array,
    context: jax.Array,
    matrices: tuple,
    biases: tuple,
    heads: Any,
) -> tuple[int, int]:
    """The numbers of heads and of groups; matrices and biases are those of q, k, v and o."""
    ranks = jnp.ndim(x) == 3 and jnp.ndim(context) == 3
    if not ranks or x.shape[0] != context.shape[0] or 0 in (x.shape[1], context.shape[1]):
        raise ValueError(
            f"{name}: x has shape {jnp.shape(x)} and context {jnp.shape(context)}; they must be "
            "(batch, queries, in) and (batch, keys, in_context), with a query and a key at least"
        )
    heads = whole(name, heads=heads)
    wq, wk, wv, wo = matrices
    columns = [matrix(name, f"w{each}", w)[1] for each, w in zip("qkvo", matrices, strict=True)]
    fit(name, f"x of shape {x.shape}", {"wq": (wq, (x.shape[2], columns[0]))})
    needed = {
        "wk": (wk, (context.shape[2], columns[1])),
        "wv": (wv, (context.shape[2], columns[2])),
    }
    fit(name, f"context of shape {context.shape}", needed)
    for each, b, w in zip("qkvo", biases, matrices, strict=True):
        fit(name, f"w{each} of shape {w.shape}", {f"b{each}": (b, w.shape[1:])}, or_none=True)
    if wq.shape[1] % heads:
        raise ValueError(
            f"{name}: wq has shape {wq.shape}; its columns must be a multiple of the {heads} heads"
        )
    width = wq.shape[1] // heads
    groups = wk.shape[1] // max(width, 1)
    if width < 1 or groups < 1 or wk.shape[1] % width or wv.shape[1] % groups:
        raise ValueError(
            f"{name}: wk has shape {wk.shape} and wv {wv.shape}; with heads of width {width}, as "
            "wq has them, they must be (in_context, groups width) and (in_context, groups out)"
        )
    _check_heads(name, heads, groups)
    if wo.shape[0] != heads * (wv.shape[1] // groups):
        raise ValueError(
            f"{name}: wo has shape {wo.shape}; its rows must be {heads * (wv.shape[1] // groups)}, "
            f"the columns of {heads} heads"
        )
    return heads, groups
