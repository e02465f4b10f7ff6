"""Penalties on the weights, and the proximal step of the one with a kink."""

import jax.numpy as jnp

from handgrad.manual.numerics import magnitude, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import within

__all__ = ["elastic_net", "l1_penalty", "l2_penalty", "soft_threshold"]


@op
def l2_penalty(w, *, strength=1.0):
    r"""½ λ Σ w², with λ the strength.

    w: any shape. Returns a scalar. Backward: w̄ = ȳ λ w, which is why it is called weight decay.
    Raises TypeError for integers.
    Source: "Backpropagation and optimisers" (blog, AI & the art of programming), section 5.1.
    """
    return (0.5 * strength * jnp.square(widen(w)).sum()).astype(w.dtype), w


@l2_penalty.backward
def _(w, dy, *, strength):
    return ((widen(dy) * strength * widen(w)).astype(w.dtype),)


@op
def l1_penalty(w, *, strength=1.0):
    r"""λ Σ |w|, with λ the strength.

    w: any shape. Returns a scalar. Backward: w̄ = ȳ λ sign w; at the kink, 0 by convention.
    Raises TypeError for integers.
    Source: "Backpropagation and optimisers" (blog, AI & the art of programming), section 5.2.
    """
    return (strength * magnitude(widen(w)).sum()).astype(w.dtype), w


@l1_penalty.backward
def _(w, dy, *, strength):
    return ((widen(dy) * strength * jnp.sign(widen(w))).astype(w.dtype),)


@op
def elastic_net(w, *, l1=1.0, l2=1.0):
    r"""α Σ |w| + β Σ w², with α = l1 and β = l2; mind that there is no ½ here.

    w: any shape. Returns a scalar. Backward: w̄ = ȳ (α sign w + 2 β w).
    Raises TypeError for integers.
    Source: "Backpropagation and optimisers" (blog, AI & the art of programming), section 5.3; Zou
    and Hastie (2005).
    """
    wide = widen(w)
    return (l1 * magnitude(wide).sum() + l2 * jnp.square(wide).sum()).astype(w.dtype), w


@elastic_net.backward
def _(w, dy, *, l1, l2):
    wide = widen(w)
    return ((widen(dy) * (l1 * jnp.sign(wide) + 2 * l2 * wide)).astype(w.dtype),)


@op
def soft_threshold(w, *, threshold=1.0):
    r"""sign(w) max(|w| − τ, 0): the w' that minimises ½ ‖w' − w‖² + τ ‖w'‖₁.

    w: any shape. threshold: τ ≥ 0. Returns the shape of w.
    Backward: w̄ = ȳ where |w| > τ, else 0 (at the two kinks too).
    Raises ValueError for a negative threshold.
    Source: Donoho, "De-noising by soft-thresholding" (1995).
    """
    within("soft_threshold", 0, threshold=threshold)
    wide = widen(w)
    outside = jnp.abs(wide) > threshold
    y = jnp.where(outside, wide - jnp.sign(wide) * threshold, 0)
    return y.astype(w.dtype), outside


@soft_threshold.backward
def _(outside, dy):
    return (jnp.where(outside, dy, jnp.zeros_like(dy)),)
