"""Smooth activations. None overflows, and none subtracts what is almost equal, save near the
zeros of its own derivative; each backward keeps x alone."""

import jax.numpy as jnp

from handgrad.manual.numerics import exp, expm1, widen
from handgrad.manual.op import op
from handgrad.manual.shapes import positive

__all__ = ["celu", "mish", "softsign", "squareplus"]


@op
def mish(x):
    r"""y = x t with t = tanh(ln(1 + eˣ)) = n / (n + 2),  n = eˣ(eˣ + 2).

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: x̄ = ȳ ∘ (t + x t′),  t′ = 4 eˣ(1 + eˣ) / (n + 2)².
    Both fractions are taken in e = e^{−|x|}, and for x > 0 divided through by e²ˣ: one
    exponential for tanh, logarithm and exponential, which cannot overflow.
    Raises TypeError for integers.
    Source: Misra (2020), "Mish: a self regularized non-monotonic activation function".
    """
    z = widen(x)
    t, _ = _tanh_of_softplus(z)
    return (z * t).astype(x.dtype), x


@mish.backward
def _(x, dy):
    z = widen(x)
    t, slope = _tanh_of_softplus(z)
    return ((widen(dy) * (t + z * slope)).astype(x.dtype),)


def _tanh_of_softplus(x):
    """t and t′ with all their digits."""
    e = exp(jnp.where(x > 0, -x, x))  # in (0, 1]
    numerator = jnp.where(x > 0, 1 + 2 * e, e * (e + 2))  # n, or n e⁻²ˣ
    denominator = numerator + 2 * jnp.where(x > 0, e * e, 1)
    slope = 4 * jnp.where(x > 0, e, 1) * e * (1 + e) / (denominator * denominator)
    return numerator / denominator, slope


@op
def softsign(x):
    r"""y = x / (1 + |x|).

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: x̄ = ȳ s² with s = 1 / (1 + |x|). Autodiff's s − |x| s² loses its digits at large x.
    Raises TypeError for integers.
    Source: Bergstra, Desjardins, Lamblin, Bengio (2009), "Quadratic polynomials learn better
    image features".
    """
    z = widen(x)
    return (z / (1 + jnp.abs(z))).astype(x.dtype), x


@softsign.backward
def _(x, dy):
    s = 1 / (1 + jnp.abs(widen(x)))
    return ((widen(dy) * s * s).astype(x.dtype),)


@op
def squareplus(x, *, b=4.0):
    r"""y = (x + r) / 2 with r = √(x² + b): a relu whose corner is rounded off by b > 0.

    x: any shape. b: a positive number. Returns the same shape; bfloat16 and float16 are computed
    in float32.
    Backward: x̄ = ȳ y / r, since 1 + x/r = 2y/r.
    For x ≤ 0, where x + r would lose its digits, y = c = b / 2(r + |x|), and for x > 0 it is x + c;
    y / r is q = c / r = b / 2(r² + r|x|) there, and 1 − q here. Raises ValueError for b ≤ 0.
    Source: Barron (2021), "Squareplus: a softplus-like algebraic rectifier".
    """
    positive("squareplus", b=b)
    z = widen(x)
    size = jnp.abs(z)
    r = jnp.maximum(size, _root(z, b)[2])  # where z was cut off, it is |z| to rounding
    return (jnp.where(z >= 0, z, 0) + 0.25 * b / (0.5 * size + 0.5 * r)).astype(x.dtype), x


@squareplus.backward
def _(x, dy, *, b):
    z = widen(x)
    size, square, r = _root(z, b)
    q = 0.5 * b / (square + r * size)
    return ((widen(dy) * jnp.where(z >= 0, 1 - q, q)).astype(x.dtype),)


def _root(z, b):
    """|z|, cut off where r² would overflow (not r² + r|z|: q is 0 there), r² and r = √(z² + b)."""
    # JAX's |z| has the slope 1 at 0, as the branch
    size = jnp.minimum(jnp.abs(z), 0.8 * float(jnp.finfo(z.dtype).max) ** 0.5)
    square = size * size + b
    return size, square, jnp.sqrt(square)


@op
def celu(x, *, alpha=1.0):
    r"""y = x where x > 0, else α(e^{x/α} − 1) with α = alpha: its slope is continuous at 0.

    x: any shape. alpha: a positive number. Returns the same shape; bfloat16 and float16 are
    computed in float32.
    Backward: x̄ = ȳ where x > 0, else ȳ e^{x/α}, and not 1 + y/α, which loses its digits.
    Raises ValueError for alpha ≤ 0.
    Source: Barron (2017), "Continuously differentiable exponential linear units".
    """
    positive("celu", alpha=alpha)
    z = widen(x)
    not_positive = jnp.where(z > 0, 0, z)
    return jnp.where(z > 0, z, alpha * expm1(not_positive / alpha)).astype(x.dtype), x


@celu.backward
def _(x, dy, *, alpha):
    z, wide_dy = widen(x), widen(dy)
    not_positive = jnp.where(z > 0, 0, z)  # the branch not taken must not overflow either
    dx = jnp.where(z > 0, wide_dy, wide_dy * exp(not_positive / alpha))
    return (dx.astype(x.dtype),)
