"""Gated linear units: one half of the features decides how much of the other half passes."""

import math

import jax.numpy as jnp
from jax import lax

from handgrad.manual.activations import gelu_of, gelu_slope, sigmoid_slope, silu_slope
from handgrad.manual.numerics import logistic, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import same_shapes, whole

__all__ = ["geglu", "glu", "swiglu"]


@op
def glu(x, *, axis=-1):
    r"""y = a ∘ σ(b), with x = (a, b) cut in two halves along `axis`.

    x: any shape with at least one axis, even along `axis`. axis: int. Returns that shape with
    `axis` halved; bfloat16 and float16 are computed in float32.
    Backward: x̄ = (ȳ ∘ σ(b), ȳ ∘ a ∘ σ′(b)).
    Raises ValueError where `axis` does not exist or is odd.
    Source: Dauphin, Fan, Auli, Grangier (2017), "Language modeling with gated convolutional
    networks".
    """
    axis = whole("glu", least=-math.inf, axis=axis)
    if not -jnp.ndim(x) <= axis < jnp.ndim(x) or x.shape[axis] % 2:
        raise ValueError(
            f"glu: x has shape {jnp.shape(x)}; it must have an even number of features along "
            f"axis {axis}, to be cut into values and gates"
        )
    value, gate = jnp.split(widen(x), 2, axis)
    return (value * logistic(gate)).astype(x.dtype), x


@glu.backward
def _(x, dy, *, axis):
    value, gate = jnp.split(widen(x), 2, axis)
    dy = widen(dy)
    opened = logistic(_again(gate))
    dx = jnp.concatenate([dy * opened, dy * value * sigmoid_slope(gate)], axis)
    return (dx.astype(x.dtype),)


@op
def swiglu(gate, value):
    r"""y = silu(g) ∘ v, silu(g) = g σ(g), with gate g and value v.

    gate, value: any equal shapes. Returns the same shape; bfloat16 and float16 are computed in
    float32.
    Backward: ḡ = ȳ ∘ v ∘ silu′(g),  v̄ = ȳ ∘ silu(g). Both are made anew from g and v: neither
    silu(g) nor its slope is kept.
    Raises ValueError where the shapes differ.
    Source: Shazeer (2020), "GLU variants improve transformer".
    """
    same_shapes("swiglu", gate=gate, value=value)
    z = widen(gate)
    return (z * logistic(z) * widen(value)).astype(gate.dtype), (gate, value)


@swiglu.backward
def _(residuals, dy):
    gate, value = residuals
    dy = widen(dy)
    z = _again(widen(gate))
    return dy * widen(value) * silu_slope(widen(gate)), dy * z * logistic(z)


@op
def geglu(gate, value, *, approximate=True):
    r"""y = gelu(g) ∘ v, with gate g and value v.

    gate, value: any equal shapes. approximate: gelu's, by tanh. Returns the same shape; bfloat16
    and float16 are computed in float32.
    Backward: ḡ = ȳ ∘ v ∘ gelu′(g),  v̄ = ȳ ∘ gelu(g), both made anew from g and v.
    Raises ValueError where the shapes differ.
    Source: Shazeer (2020), "GLU variants improve transformer".
    """
    same_shapes("geglu", gate=gate, value=value)
    return (gelu_of(widen(gate), approximate) * widen(value)).astype(gate.dtype), (gate, value)


@geglu.backward
def _(residuals, dy, *, approximate):
    gate, value = residuals
    dy = widen(dy)
    opened = gelu_of(_again(widen(gate)), approximate)
    return dy * widen(value) * gelu_slope(widen(gate), approximate), dy * opened


def _again(gate):
    """What is made of it is not made of the gate, so it is computed where it is needed: in less
    time than another result is written down for it and read.
    """
    return lax.optimization_barrier(gate)
