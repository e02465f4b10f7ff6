"""Clipping as operations with a derivative; `optimizers` has it as a step on the gradients."""

import jax
import jax.numpy as jnp
from jax.core import Tracer

from handgrad.manual.numerics import length, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import floating, number, positive

__all__ = ["clip_by_global_norm", "clip_by_norm", "clip_by_value"]


@op
def clip_by_value(x, *, low, high):
    r"""y = min(max(x, low), high).

    x: any shape. low, high: numbers, low ≤ high. Returns the same shape.
    Backward: x̄ = ȳ where low ≤ x ≤ high, else 0; at both bounds 1, so that what lies on one can
    leave it.
    Raises ValueError where low is above high.
    Source: Mikolov (2012), "Statistical language models based on neural networks".
    """
    number("clip_by_value", low=low, high=high)
    if not any(isinstance(n, Tracer) for n in (low, high)) and not low <= high:
        raise ValueError(f"clip_by_value: low is {low} and high {high}; low must not be above high")
    return jnp.clip(x, low, high), (x >= low) & (x <= high)


@clip_by_value.backward
def _(inside, dy):
    return (jnp.where(inside, dy, jnp.zeros_like(dy)),)


@op
def clip_by_norm(x, *, max_norm):
    r"""y = x where ‖x‖ ≤ c, else c x / ‖x‖, with ‖x‖ = √Σ x² over all entries and c = max_norm.

    x: any shape. max_norm: a positive number. Returns the same shape.
    Backward, with x̂ = x / ‖x‖:  x̄ = ȳ where ‖x‖ ≤ c, else c (ȳ − x̂ Σ ȳ x̂) / ‖x‖.
    Raises ValueError where max_norm is not positive.
    Source: Pascanu, Mikolov, Bengio (2013), "On the difficulty of training recurrent neural
    networks".
    """
    positive("clip_by_norm", max_norm=max_norm)
    (y,), residuals = clip_by_global_norm.forward([x], max_norm=max_norm)
    return y, residuals


@clip_by_norm.backward
def _(residuals, dy, *, max_norm):
    ((dx,),) = clip_by_global_norm.pullback(residuals, [dy], max_norm=max_norm)
    return (dx,)


@op
def clip_by_global_norm(tree, *, max_norm):
    r"""Every array times min(1, c / N), N = √Σ x² over all entries of all arrays, c = max_norm.

    tree: arrays of any shape in any tree. max_norm: a positive number. Returns the same tree.
    Backward, with x̂ = x / N for each array:  x̄ = ȳ where N ≤ c, else c (ȳ − x̂ s) / N, with
    s = Σ ȳ x̂ over all entries of all arrays, so that each gradient depends on all cotangents.
    N neither overflows nor vanishes, and is in float32 at least. Where all is zero, x̄ = ȳ.
    Raises ValueError where the tree is empty or max_norm is not positive.
    Source: Pascanu, Mikolov, Bengio (2013), "On the difficulty of training recurrent neural
    networks".
    """
    positive("clip_by_global_norm", max_norm=max_norm)
    leaves = jax.tree.leaves(tree)
    if not leaves:
        raise ValueError("clip_by_global_norm: the tree holds no array; there must be at least one")
    for x in leaves:
        floating("clip_by_global_norm", tree=x)
    lengths = [length(x, tuple(range(x.ndim))).reshape(()) for x in leaves]
    dtype = jnp.result_type(max((n.dtype for n in lengths), key=lambda d: d.itemsize))
    norm = length(jnp.stack([n.astype(dtype) for n in lengths]))[0]
    return jax.tree.map(lambda x: _shorten(x, norm, max_norm).astype(x.dtype), tree), (tree, norm)


@clip_by_global_norm.backward
def _(residuals, dy, *, max_norm):
    tree, norm = residuals
    long = ~(norm <= max_norm)
    size = jnp.where(long, norm, 1)  # not zero

    def along(dy, x):
        return (widen(dy) * (widen(x) / size.astype(widen(x).dtype))).sum().astype(norm.dtype)

    s = sum(jax.tree.leaves(jax.tree.map(along, dy, tree)))

    def back(dy, x):
        wide_x = widen(x)
        radial = wide_x * (s / size).astype(wide_x.dtype)
        return _shorten(jnp.where(long, widen(dy) - radial, widen(dy)), norm, max_norm)

    return (jax.tree.map(back, dy, tree),)


def _shorten(x, norm, max_norm):
    """x times min(1, max_norm / norm), in float32 at least."""
    long = ~(norm <= max_norm)  # so NaN is not taken for short
    factor = jnp.where(long, max_norm / jnp.where(long, norm, 1), 1)
    return widen(x) * factor.astype(widen(x).dtype)
