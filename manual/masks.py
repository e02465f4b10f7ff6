"""Which places of padded sequences count: masks and lengths, checked and made of one shape.

And what is added to the scores, which has the shapes that a mask has.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.manual.shapes import indices_below

__all__ = ["added", "allowed", "check_lengths", "cleared"]


def allowed(
    name: str,
    shape: tuple[int, ...],
    causal: bool,
    lengths: Any,
    mask: Any,
) -> jax.Array | None:
    """True where a query may see a key, of the rank of the scores; None where all may see all.

    shape: that of the scores, (*batch, queries, keys). The axes of what is returned are those of
    the scores or one, so that nothing is stored larger than it was given.
    """
    rank, keys = len(shape), shape[-1]
    parts = []
    if causal:
        square = (1,) * (rank - 2) + shape[-2:]
        rows, columns = (lax.broadcasted_iota(jnp.int32, square, rank - a) for a in (2, 1))
        parts.append(columns <= rows)
    if lengths is not None:
        lengths = check_lengths(name, lengths, shape[:-2][:1], keys)
        lengths = lengths.reshape(lengths.shape + (1,) * (rank - lengths.ndim))
        places = lax.broadcasted_iota(jnp.int32, (1,) * (rank - 1) + (keys,), rank - 1)
        parts.append(_both(jnp.less, places, lengths))
    if mask is not None:
        parts.append(_mask(name, mask, shape))
    found = None
    for part in parts:
        found = part if found is None else _both(jnp.logical_and, found, part)
    return found


def added(name: str, bias: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A bias of scores of this shape, of their rank, each of its axes as long as theirs or one."""
    if not jnp.issubdtype(bias.dtype, jnp.floating):
        hint = "; a mask is given as mask=" if bias.dtype == jnp.bool_ else ""
        raise TypeError(f"{name}: bias is {bias.dtype}, and must be floating-point{hint}")
    return _beside(name, "bias", bias, shape)


def check_lengths(name: str, lengths: Any, batch: tuple[int, ...], time: int) -> jax.Array:
    """The lengths as int32 of shape `batch`; those that are known now must lie in [0, time]."""
    array = lengths if isinstance(lengths, jax.Array) else np.asarray(lengths)
    if not array.size:
        array = array.astype(int)  # NumPy takes () for floating-point numbers
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"{name}: lengths are {array.dtype}, and must be integers")
    if array.shape != batch:
        raise ValueError(
            f"{name}: lengths have shape {array.shape}; they must be {batch}, one for each "
            "sequence of the batch"
        )
    indices_below(name, time + 1, f"with padded sequences of length {time}", lengths=array)
    return jnp.asarray(array, jnp.int32)


def cleared(name: str, lengths: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """(*batch, time, ·), with zeros from the end of each sequence on: 0 · ∞ is not nothing."""
    if lengths is None:
        return arrays
    *batch, time, _ = arrays[0].shape
    lengths = check_lengths(name, lengths, tuple(batch[:1]), time)

    def clear(x):
        ends = lengths.reshape(lengths.shape + (1,) * (x.ndim - lengths.ndim))
        places = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 2)
        return jnp.where(_both(jnp.less, places, ends), x, 0)

    return tuple(map(clear, arrays))


def _mask(name, mask, shape):
    try:
        mask = jnp.asarray(mask)
    except (TypeError, OverflowError) as error:
        raise TypeError(f"{name}: mask is {mask!r}; it must be a boolean array") from error
    if mask.dtype != jnp.bool_:
        raise TypeError(
            f"{name}: mask is {mask.dtype}, and must be boolean: True where a query may see a key"
        )
    return _beside(name, "mask", mask, shape)


def _beside(name, argument, array, shape):
    given = array.shape
    if array.ndim == 2:
        array = array.reshape((1,) * (len(shape) - 2) + array.shape)
    fits = len(array.shape) == len(shape) and all(
        m in (1, n) for m, n in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name}: {argument} has shape {given} and the scores {shape}; it must be "
            f"{shape[-2:]} (queries, keys), or have every axis of the scores, each as long or one"
        )
    return array


def _both(combine, a, b):
    shape = jnp.broadcast_shapes(a.shape, b.shape)
    return combine(jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape))
