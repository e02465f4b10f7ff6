"""Losses of an error e = ŷ − t that grow like |e| far from zero, and so forgive outliers."""

import math

import jax.numpy as jnp
from jax import lax

from handgrad.manual.losses import error_of
from handgrad.manual.numerics import at_most, magnitude, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import positive, same_shapes

__all__ = ["huber", "log_cosh", "mae", "smooth_l1"]


@op
def mae(predictions, targets):
    r"""M = 1/N Σ |ŷ − t|, the mean over all N entries.

    predictions, targets: any equal shapes. Returns a scalar.
    Backward: ŷ̄ = M̄/N sign(ŷ − t),  t̄ = −ŷ̄; at the kink, ŷ = t, 0.
    Raises ValueError where the shapes differ.
    Source: Willmott, Matsuura (2005), "Advantages of the mean absolute error".
    """
    same_shapes("mae", predictions=predictions, targets=targets)
    error, dtype = error_of(predictions, targets)
    return magnitude(error).mean().astype(dtype), error.astype(dtype)  # whose sign is all of it


@mae.backward
def _(error, dy):
    # in float32 at least: 1/N alone may lie below the smallest float16
    dpredictions = (widen(dy) / max(error.size, 1) * jnp.sign(widen(error))).astype(error.dtype)
    return dpredictions, -dpredictions


@op
def huber(predictions, targets, *, delta=1.0):
    r"""H = Σₒ h(ŷₒ − tₒ) for each sample, h(e) = ½ e² where |e| ≤ δ, else δ(|e| − ½ δ).

    predictions, targets: (*batch, outputs). delta: δ, a positive number. Returns (*batch,).
    Backward: ŷ̄ = H̄ min(max(ŷ − t, −δ), δ),  t̄ = −ŷ̄.
    h = m (|e| − ½ m) with m = min(|e|, δ): one formula, which cannot overflow.
    Raises ValueError where the shapes differ or delta is not positive.
    Source: Huber (1964), "Robust estimation of a location parameter".
    """
    same_shapes("huber", least=1, predictions=predictions, targets=targets)
    positive("huber", delta=delta)
    error, dtype = error_of(predictions, targets)  # (*batch, outputs)
    size = jnp.abs(error)
    near = at_most(size, delta)
    return (near * (size - 0.5 * near)).sum(-1).astype(dtype), error


@huber.backward
def _(error, dy, *, delta):
    dpredictions = (widen(dy)[..., None] * _clipped(error, delta)).astype(dy.dtype)
    return dpredictions, -dpredictions


def _clipped(error, bound):
    """min(max(e, −bound), bound), which at the bounds has the slope 1; of jnp.clip it is ½."""
    return jnp.where(error < -bound, -bound, jnp.where(error > bound, bound, error))


@op
def smooth_l1(predictions, targets, *, beta=1.0):
    r"""S = Σₒ s(ŷₒ − tₒ) for each sample, s(e) = ½ e²/β where |e| ≤ β, else |e| − ½ β.

    predictions, targets: (*batch, outputs). beta: β, a positive number. Returns (*batch,).
    It is huber's with δ = β, divided by β: far from zero its slope is 1 whatever β.
    Backward: ŷ̄ = S̄ min(max(e/β, −1), 1), t̄ = −ŷ̄ with e = ŷ − t, which is all that is kept.
    Raises ValueError where the shapes differ or beta is not positive.
    Source: Girshick (2015), "Fast R-CNN".
    """
    same_shapes("smooth_l1", least=1, predictions=predictions, targets=targets)
    positive("smooth_l1", beta=beta)
    error, dtype = error_of(predictions, targets)  # (*batch, outputs)
    size = jnp.abs(error)
    near = at_most(size, beta)
    return (near / beta * (size - 0.5 * near)).sum(-1).astype(dtype), error


@smooth_l1.backward
def _(error, dy, *, beta):
    dpredictions = (widen(dy)[..., None] * _clipped(error / beta, 1)).astype(dy.dtype)
    return dpredictions, -dpredictions


@op
def log_cosh(predictions, targets):
    r"""L = Σₒ ln cosh(ŷₒ − tₒ) for each sample.

    predictions, targets: (*batch, outputs). Returns (*batch,).
    Backward: ŷ̄ = L̄ tanh(ŷ − t),  t̄ = −ŷ̄.
    ln cosh e = |e| + ln(1 + e^{−2|e|}) − ln 2, which at |e| = 1e-4 has no digits left in float32.
    With r = min(|e|, 1), u = e^{−|e|} and v = max(u, e⁻¹) it is |e| − r + ln(1 + c − (v² − u²)/2v),
    of which c = cosh r − 1 = r²/2! + r⁴/4! + … is all up to |e| = 1.
    Raises ValueError where the shapes differ.
    Source: Chen, Chen, Ni (2019), "Log hyperbolic cosine loss improves variational auto-encoder".
    """
    same_shapes("log_cosh", least=1, predictions=predictions, targets=targets)
    error, dtype = error_of(predictions, targets)  # (*batch, outputs)
    size = jnp.abs(error)
    near = at_most(size, 1)
    near = jnp.where(size == 1, lax.stop_gradient(near), near)  # of a tie the slope is not halved
    square, series = near * near, 1.0
    for k in range(7 if error.dtype.itemsize == 4 else 11, 1, -1):  # the next is below ulp / 100
        series = 1 + square * (1 / (2 * k * (2 * k - 1))) * series
    u = jnp.exp(-size)
    v = jnp.maximum(u, math.exp(-1) * (1 + 4 * float(jnp.finfo(u.dtype).eps)))  # > u at the tie
    loss = (size - near) + jnp.log1p(0.5 * square * series - (v - u) * (v + u) / (2 * v))
    return loss.sum(-1).astype(dtype), error


@log_cosh.backward
def _(error, dy):
    dpredictions = (widen(dy)[..., None] * jnp.tanh(error)).astype(dy.dtype)
    return dpredictions, -dpredictions
