"""Clipping as operations with a derivative; `optimizers` has it as a step on the gradients."""

import jax
import jax.numpy as jnp

from handgrad.manual.numerics import alone, length_in_units
from handgrad.manual.op import op
from handgrad.manual.shapes import floating, known, number, positive
from handgrad.manual.trees import arrays

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
    least, most = known(low), known(high)
    if least is not None and most is not None and not least <= most:
        raise ValueError(f"clip_by_value: low is {low} and high {high}; low must not be above high")
    # jnp.clip would have the slope ½ at a bound, once differentiated again
    y = jnp.where(x < low, low, jnp.where(x > high, high, x))
    return y.astype(x.dtype), (x >= low) & (x <= high)


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
    arrays("clip_by_norm", x=x)
    floating("clip_by_norm", x=x)
    positive("clip_by_norm", max_norm=max_norm)
    (y,), residuals = clip_by_global_norm.forward([x], max_norm=max_norm)
    return y, residuals


@clip_by_norm.backward
def _(residuals, dy):
    ((dx,),) = clip_by_global_norm.pullback(residuals, [dy])
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
    size, unit = length_in_units(leaves, None)
    long = ~(size * unit <= max_norm)  # so NaN is not taken for short
    size, unit = jnp.where(long, size, 1), jnp.where(long, unit, 1)
    factor = jnp.where(long, max_norm / size, 1)

    def shorten(x):
        return (x.astype(size.dtype) * (1 / unit) * factor).astype(x.dtype)

    return jax.tree.map(shorten, tree), (tree, long, size, unit, factor)


@clip_by_global_norm.backward
def _(residuals, dy):
    tree, long, size, unit, factor = residuals
    # two factors, since 1 / N may be subnormal, which is zero; x / unit itself is needed for the
    # rest too, and XLA would write it down for the sum
    shrink, across = 1 / unit, 1 / size

    def along(dy, x):
        return (dy.astype(size.dtype) * (x.astype(size.dtype) * across * alone(shrink))).sum()

    s = sum(jax.tree.leaves(jax.tree.map(along, dy, tree)))
    share = jnp.where(long, s / size, 0)

    def back(dy, x):
        radial = x.astype(size.dtype) * shrink * share
        return (dy.astype(size.dtype) - radial) * shrink * factor

    return (jax.tree.map(back, dy, tree),)
