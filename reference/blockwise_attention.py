"""What blockwise attention computes, with all its weights at once: the function of JAX's own."""

import jax
import jax.numpy as jnp

__all__ = ["blockwise_attention"]


def blockwise_attention(q, k, v, *, causal=True, lengths=None, scale=None, block=256):
    """softmax(scale q kᵀ) v; the size of the blocks is of no consequence."""
    time = q.shape[-2]
    scores = q @ jnp.swapaxes(k, -1, -2) * (1 / q.shape[-1] ** 0.5 if scale is None else scale)
    seen = jnp.ones(scores.shape, bool)
    if causal:
        seen = jnp.tril(seen)
    if lengths is not None:
        ends = jnp.asarray(lengths, jnp.int32)
        ends = ends.reshape(ends.shape + (1,) * (scores.ndim - ends.ndim))
        ends = jnp.broadcast_to(ends, scores.shape)
        seen = seen & (jnp.broadcast_to(jnp.arange(time, dtype=jnp.int32), scores.shape) < ends)
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.finfo(scores.dtype).min), axis=-1)
    return jnp.where(seen, weights, jnp.zeros_like(weights)) @ v
