"""Losses of an error e = ŷ − t that grow like |e| far from zero, and so forgive outliers."""

import math

import jax.numpy as jnp

from handgrad.manual.losses import error_of
from handgrad.manual.numerics import expm1, magnitude, widen
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
    Backward: ŷ̄ = H̄ min(max(ŷ − t, −δ), δ),  t̄ = −ŷ̄. That is all that is kept; h = c (e − ½ c)
    with the same c = min(max(e, −δ), δ), in one formula which cannot overflow.
    Raises ValueError where the shapes differ or delta is not positive.
    Source: Huber (1964), "Robust estimation of a location parameter".
    """
    same_shapes("huber", least=1, predictions=predictions, targets=targets)
    positive("huber", delta=delta)
    error, dtype = error_of(predictions, targets)  # (*batch, outputs)
    clipped = _clipped(error, delta)
    return (clipped * (error - 0.5 * clipped)).sum(-1).astype(dtype), clipped


@huber.backward
def _(clipped, dy):
    dpredictions = (widen(dy)[..., None] * clipped).astype(dy.dtype)
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
    loss = jnp.where(size < beta, 0.5 * (error / beta) * error, size - 0.5 * beta).sum(-1)
    return loss.astype(dtype), error


@smooth_l1.backward
def _(error, dy, *, beta):
    dpredictions = (widen(dy)[..., None] * _clipped(error / beta, 1)).astype(dy.dtype)
    return dpredictions, -dpredictions


@op
def log_cosh(predictions, targets):
    r"""L = Σₒ ln cosh(ŷₒ − tₒ) for each sample.

    predictions, targets: (*batch, outputs). Returns (*batch,).
    Backward: ŷ̄ = L̄ tanh(ŷ − t),  t̄ = −ŷ̄.
    ln cosh e = |e| + ln(1 + e^{−2|e|}) − ln 2, which at |e| = 1e-4 has no digits left in float32;
    below 1 it is ln(1 + m²/2(1 + m)) with m = e^{−|e|} − 1, since cosh e − 1 = m²/2(1 + m).
    Raises ValueError where the shapes differ.
    Source: Chen, Chen, Ni (2019), "Log hyperbolic cosine loss improves variational auto-encoder".
    """
    same_shapes("log_cosh", least=1, predictions=predictions, targets=targets)
    error, dtype = error_of(predictions, targets)  # (*batch, outputs)
    size = jnp.abs(error)
    m = expm1(-size)  # in (−1, 0]
    within = jnp.where(size < 1, m * m / jnp.where(size < 1, 2 * (1 + m), 1), (1 + m) * (1 + m))
    loss = jnp.log1p(within) + jnp.where(size < 1, 0, size - math.log(2))
    return loss.sum(-1).astype(dtype), error


@log_cosh.backward
def _(error, dy):
    dpredictions = (widen(dy)[..., None] * jnp.tanh(error)).astype(dy.dtype)
    return dpredictions, -dpredictions
