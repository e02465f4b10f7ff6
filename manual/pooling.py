"""Pooling in any number of spatial axes, one axis after the other.

A window of 3 × 3 is a window of 3 along the columns, then one along the rows: six shifted slices
instead of nine. The backward goes back through the axes in the opposite order, and adds up as many
slices, spread out by the stride; windows that do not overlap need no sum.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.manual.convolution import pairs, per_axis
from handgrad.manual.numerics import widen
from handgrad.manual.op import op
from handgrad.manual.shapes import is_less

__all__ = ["average_pool", "global_average_pool", "global_max_pool", "max_pool"]


class Axis(NamedTuple):
    """How one spatial axis is pooled: output p is made of the entries stride·p + k − low."""

    axis: int
    size: int
    window: int
    stride: int
    low: int
    high: int

    @property
    def out(self) -> int:
        return (self.size + self.low + self.high - self.window) // self.stride + 1

    @property
    def reach(self) -> int:
        """From the first entry that a slice takes to the last, and one more."""
        return self.stride * (self.out - 1) + 1


@op
def max_pool(x, *, window, stride=None, padding=0):
    r"""y[n, p, c] = max over k of x[n, s·p + k − l, c], 0 ≤ k < window.

    x: (batch, *space, channels), one to three spatial axes. Returns (batch, *out_space, channels),
    out_space = ⌊(space + l + h − window) / s⌋ + 1. window, stride s (None: the window): a number,
    or one for each axis. padding: a number, or for each axis a number or a pair (l, h), smaller
    than the window; what stands outside never is the largest.
    Backward: x̄[n, q, c] = Σ ȳ[n, p, c] over the windows p whose largest entry stands at q; of
    equal ones the first in row-major order takes it all. Where it stands is kept, a byte for each
    output and axis, and x is not.
    A NaN counts as the largest, and the last of several takes it all, as in PyTorch.
    Raises ValueError where the shapes and options do not fit, TypeError for integers.
    Source: Zhou, Chellappa (1988), "Computation of optical flow using a neural network";
    Boureau, Ponce, LeCun (2010), "A theoretical analysis of feature pooling".
    """
    axes = _axes("max_pool", x, window, stride, padding)
    if not jnp.issubdtype(x.dtype, jnp.floating):  # outside stands −∞, which no integer is
        raise TypeError(f"max_pool: x is {x.dtype}; it must be of floating-point numbers")
    shape, places = x[:0], []  # no entry of x, but its shape
    for axis in reversed(axes):
        x, place = _largest(x, axis)
        places.append(place)
    return x, (shape, places)


@max_pool.backward
def _(residuals, dy, *, window, stride, padding):
    shape, places = residuals
    axes = _axes("max_pool", shape, window, stride, padding)
    for axis, place in zip(axes, reversed(places), strict=True):
        dy = _spread(dy, axis, place)
    return (dy,)


@op
def average_pool(x, *, window, stride=None, padding=0, count_include_pad=True):
    r"""y[n, p, c] = 1/m Σₖ x[n, s·p + k − l, c], 0 ≤ k < window, of zeros outside x.

    x: (batch, *space, channels), one to three spatial axes. Returns (batch, *out_space, channels),
    out_space = ⌊(space + l + h − window) / s⌋ + 1. window, stride s (None: the window): a number,
    or one for each axis. padding: a number, or for each axis a number or a pair (l, h), smaller
    than the window. count_include_pad: m counts the whole window, else what is inside x.
    Backward: x̄[n, q, c] = Σ ȳ[n, p, c] / m over the windows p in which q stands. Nothing is kept.
    Sums are accumulated in float32 at least.
    Raises ValueError where the shapes and options do not fit.
    Source: LeCun, Bottou, Bengio, Haffner (1998), "Gradient-based learning applied to document
    recognition".
    """
    axes = _axes("average_pool", x, window, stride, padding)
    total = widen(x)
    for axis in axes:
        total = functools.reduce(jnp.add, _slices(total, axis, 0))
    y = total * _share(axes, count_include_pad, total.dtype)
    return y.astype(x.dtype), x[:0]  # no entry of x, but its shape


@average_pool.backward
def _(shape, dy, *, window, stride, padding, count_include_pad):
    axes = _axes("average_pool", shape, window, stride, padding)
    dx = widen(dy)
    dx = dx * _share(axes, count_include_pad, dx.dtype)
    for axis in axes:
        dx = _spread(dx, axis)
    return (dx,)


@op
def global_average_pool(x):
    r"""y[n, c] = the mean of x[n, p, c] over all places p.

    x: (batch, *space, channels), at least one spatial axis. Returns (batch, channels).
    Backward: x̄[n, p, c] = ȳ[n, c] / places. Sums are accumulated in float32 at least.
    Raises ValueError where there is no place.
    Source: Lin, Chen, Yan (2014), "Network in network".
    """
    _places("global_average_pool", x)
    return widen(x).mean(tuple(range(1, x.ndim - 1))).astype(x.dtype), x[:0]


@global_average_pool.backward
def _(shape, dy):
    batch, channels = dy.shape
    space = shape.shape[1:-1]
    each = (widen(dy) / math.prod(space)).reshape(batch, *(1 for _ in space), channels)
    return (jnp.broadcast_to(each, (batch, *space, channels)),)


@op
def global_max_pool(x):
    r"""y[n, c] = the largest x[n, p, c] of all places p.

    x: (batch, *space, channels), at least one spatial axis. Returns (batch, channels).
    Backward: x̄[n, p, c] = ȳ[n, c] at the place of the largest, 0 elsewhere; of equal ones the
    first in row-major order takes it all, and so does the first NaN. That place is all that is
    kept.
    Raises ValueError where there is no place.
    Source: Oquab, Bottou, Laptev, Sivic (2015), "Is object localization for free?".
    """
    places = _places("global_max_pool", x)
    flat = x.reshape(x.shape[0], places, x.shape[-1])
    # flat.max, of which JAX shares the derivative among equal ones; here the first has it
    window = (1, places, 1)
    y = lax.reduce_window(flat, -jnp.inf, lax.max, window, (1, 1, 1), "VALID")
    at = lax.broadcasted_iota(jnp.int32, flat.shape, 1)
    # the first of the largest, or of nan; XLA makes an argmax on a single thread of the CPU
    place = jnp.where((flat == y) | jnp.isnan(flat), at, places).min(1, keepdims=True)
    return y[:, 0], (place, x[:0])


@global_max_pool.backward
def _(residuals, dy):
    place, shape = residuals
    _, *space, channels = shape.shape
    here = lax.broadcasted_iota(place.dtype, (1, math.prod(space), channels), 1)
    dx = jnp.where(here == place, dy[:, None], 0)
    return (dx.reshape(dy.shape[0], *space, channels),)


def _places(name, x):
    places = math.prod(jnp.shape(x)[1:-1])
    if jnp.ndim(x) < 3 or not places:
        raise ValueError(
            f"{name}: x has shape {jnp.shape(x)}; it must be (batch, *space, channels) with at "
            "least one place"
        )
    return places


# --- one axis ------------------------------------------------------------------------------------


def _slices(x, axis, outside):
    """x[s·p + k − l] for each k of the window: `window` arrays, of the length of the output."""
    config = [(0, 0, 0)] * x.ndim
    config[axis.axis] = (axis.low, axis.high, 0)
    x = lax.pad(x, jnp.array(outside, x.dtype), config)
    return [
        lax.slice_in_dim(x, k, k + axis.reach, axis.stride, axis.axis) for k in range(axis.window)
    ]


def _spread(dy, axis, place=None):
    """Each entry back to all of its window, or to its `place` there; where windows meet, the sum.

    It is the transpose of `_slices`. Windows apart from each other lie side by side as they are.
    """
    if axis.stride >= axis.window:
        return _side_by_side(dy, axis, place)

    def back(k):
        part = dy if place is None else jnp.where(place == k, dy, 0)
        config = [(0, 0, 0)] * part.ndim
        start = k - axis.low
        config[axis.axis] = (start, axis.size - start - axis.reach, axis.stride - 1)
        return lax.pad(part, jnp.zeros((), part.dtype), config)

    return sum(back(k) for k in range(axis.window))


def _side_by_side(dy, axis, place):
    """A new axis for the entries of a window and the gap behind it, merged with that of windows."""
    after = axis.axis + 1
    k = lax.broadcasted_iota(jnp.int32, (axis.stride,) + (1,) * (dy.ndim - axis.axis - 1), 0)
    k = k.reshape((1,) * after + k.shape)
    here = k < axis.window
    if place is not None:
        here = k == jnp.expand_dims(place, after).astype(jnp.int32)
    spread = jnp.where(here, jnp.expand_dims(dy, after), 0)
    spread = spread.reshape(*dy.shape[: axis.axis], axis.out * axis.stride, *dy.shape[after:])
    config = [(0, 0, 0)] * dy.ndim
    config[axis.axis] = (-axis.low, axis.size + axis.low - axis.stride * axis.out, 0)
    return lax.pad(spread, jnp.zeros((), dy.dtype), config)


def _largest(x, axis):
    """The largest of each window, and which of the window it is: the first of equal ones."""
    largest, *others = _slices(x, axis, -jnp.inf)
    place = jnp.zeros(largest.shape, jnp.int8 if axis.window < 128 else jnp.int32)
    if axis.low:  # the −∞ outside is not less than one in x: begin with the first entry inside
        p = lax.broadcasted_iota(jnp.int32, largest.shape, axis.axis)
        place = jnp.maximum(axis.low - axis.stride * p, 0).astype(place.dtype)
    for k, other in enumerate(others, 1):
        larger = (other > largest) | jnp.isnan(other)
        place = jnp.where(larger, jnp.array(k, place.dtype), place)
        # jnp.maximum, differentiated again, would share the slope among equal ones
        largest = jnp.where(larger, other, largest)
    return largest, place


def _share(axes, count_include_pad, dtype):
    """1/m for each output, broadcast over batch and channels."""
    if count_include_pad:
        return jnp.array(1 / math.prod(axis.window for axis in axes), dtype)
    counts = np.ones((1,) * (len(axes) + 2))
    for axis in axes:
        first = axis.stride * np.arange(axis.out) - axis.low
        inside = np.minimum(first + axis.window, axis.size) - np.maximum(first, 0)
        counts = counts * np.expand_dims(inside, [a for a in range(counts.ndim) if a != axis.axis])
    return jnp.array(1 / counts, dtype)


# --- what the options mean -----------------------------------------------------------------------


def _axes(name, x, window, stride, padding):
    """Each spatial axis with its options, checked."""
    sizes = jnp.shape(x)[1:-1]
    if not 1 <= len(sizes) <= 3:
        raise ValueError(
            f"{name}: x has shape {jnp.shape(x)}; it must be (batch, *space, channels) with one to "
            "three spatial axes"
        )
    windows = per_axis(name, len(sizes), window=window)
    strides = windows if stride is None else per_axis(name, len(sizes), stride=stride)
    pads = pairs(name, len(sizes), padding)
    if any(max(pair) >= w for pair, w in zip(pads, windows, strict=True)):
        raise ValueError(
            f"{name}: padding is {padding}; it must be less than the window of {windows}: a window "
            "wholly outside x has nothing to pool"
        )
    axes = [
        Axis(k, n, w, s, low, high)
        for k, (n, w, s, (low, high)) in enumerate(
            zip(sizes, windows, strides, pads, strict=True), 1
        )
    ]
    for axis in axes:
        if is_less(axis.size, 1) or is_less(axis.out, 1):
            raise ValueError(
                f"{name}: x has shape {jnp.shape(x)}; with padding ({axis.low}, {axis.high}) axis "
                f"{axis.axis} must have room for the window of {axis.window}"
            )
    return axes
