"""Attention as it is printed: one score for each pair of a query and a key."""

import jax
import jax.numpy as jnp

__all__ = ["attention", "grouped_query_attention", "multi_head_attention"]


def attention(q, k, v, bias=None, *, causal=False, lengths=None, mask=None, scale=None):
    """softmax(scale q kᵀ + bias) v; zero for a query that may see nothing."""
    scale = 1 / q.shape[-1] ** 0.5 if scale is None else scale
    scores = jnp.einsum("...qd,...kd->...qk", q, k) * scale
    seen = _seen(scores.shape, causal, lengths, mask)
    if bias is not None:
        bias = jnp.broadcast_to(jnp.expand_dims(bias, [*range(q.ndim - bias.ndim)]), scores.shape)
        seen = seen & (bias > -jnp.inf)
        scores = scores + bias
    p = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min), axis=-1)
    y = jnp.einsum("...qk,...kd->...qd", p, v)
    return jnp.where(seen.any(-1, keepdims=True), y, jnp.zeros_like(y))


def grouped_query_attention(
    q, k, v, bias=None, *, causal=False, lengths=None, mask=None, scale=None
):
    """Every group of keys and values is repeated for the heads that share it."""
    share = q.shape[1] // k.shape[1]
    k, v = jnp.repeat(k, share, axis=1), jnp.repeat(v, share, axis=1)
    return attention(q, k, v, bias, causal=causal, lengths=lengths, mask=mask, scale=scale)


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
    """Project, attend in heads, put the heads side by side, project again."""

    def project(x, w, b):
        y = jnp.einsum("bti,ij->btj", x, w)
        return y if b is None else y + b[None, None, :]

    width = wq.shape[1] // heads
    groups = wk.shape[1] // width
    q = jnp.stack(jnp.split(project(x, wq, bq), heads, axis=-1), axis=1)
    k = jnp.stack(jnp.split(project(context, wk, bk), groups, axis=-1), axis=1)
    v = jnp.stack(jnp.split(project(context, wv, bv), groups, axis=-1), axis=1)
    y = grouped_query_attention(q, k, v, bias, causal=causal, lengths=lengths, mask=mask)
    return project(jnp.concatenate([y[:, h] for h in range(heads)], axis=-1), wo, bo)


def _seen(shape, causal, lengths, mask):
    """Booleans of the shape of the scores."""
    *batch, queries, keys = shape
    seen = jnp.ones(shape, bool)
    if causal:
        seen = seen & jnp.broadcast_to(jnp.tri(queries, keys, dtype=bool), shape)
    if lengths is not None:
        lengths = jnp.asarray(lengths, jnp.int32)
        inside = jnp.expand_dims(lengths, -1) > jnp.arange(keys, dtype=jnp.int32).reshape(
            (1,) * lengths.ndim + (keys,)
        )
        inside = inside.reshape(*batch[:1], *(1 for _ in batch[1:]), 1, keys)
        seen = seen & jnp.broadcast_to(inside, shape)
    if mask is not None:
        mask = jnp.asarray(mask)
        mask = mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)
        seen = seen & jnp.broadcast_to(mask, shape)
    return seen
