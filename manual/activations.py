"""Activation functions, each with its derivative by hand. All are elementwise but the softmaxes.

What a backward keeps from its forward is chosen for the digits first, then for the memory:
σ′ and tanh′ are computed from the input x, because 1 − y has no digits left once y has come near
one, and the relus keep one bit an element. Derivatives of products such as x·σ(x) are exact to
rounding except within x of where e^x underflows (x < −87 in float32), where they return zero.
"""

import functools
import math

import jax.numpy as jnp
from jax import lax

from handgrad.manual.numerics import (
    exp,
    exp_quotient,
    expm1,
    inexact,
    log_probabilities,
    logistic,
    logistic_parts,
    normalise,
    probabilities_and_rest,
    rounded,
    tanh_and_slope,
    widen,
)
from handgrad.manual.op import op
from handgrad.manual.shapes import whole
from handgrad.manual.trees import arrays

__all__ = [
    "elu",
    "gelu",
    "identity",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "log_sum_exp",
    "relu",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "softmax",
    "softplus",
    "step",
    "tanh",
]


@op
def identity(x):
    r"""y = x, the linear neuron.

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ.
    Raises TypeError for integers.
    Source: "Fundamentals of deep learning" (ch. 3), table 3-1.
    """
    arrays("identity", x=x)
    return x, ()


@identity.backward
def _(_residuals, dy):
    return (dy,)


@op
def step(x):
    r"""y = 1 where x ≥ 0, else 0.

    x: any shape. Returns the same shape and dtype.
    Backward: x̄ = 0, the derivative almost everywhere; at the jump it is a convention.
    Raises TypeError for integers.
    Source: "Fundamentals of deep learning" (ch. 3), table 3-1.
    """
    return jnp.where(x >= 0, jnp.ones_like(x), jnp.zeros_like(x)), ()


@step.backward
def _(_residuals, dy):
    return (jnp.zeros_like(dy),)


@op
def sign(x):
    r"""y = 1 where x ≥ 0, else −1: a neuron with two values, so sign(0) = 1 (jnp.sign(0) = 0).

    x: any shape. Returns the same shape and dtype.
    Backward: x̄ = 0, the derivative almost everywhere; at the jump it is a convention.
    Raises TypeError for integers.
    Source: "Fundamentals of deep learning" (ch. 3), table 3-1.
    """
    return jnp.where(x >= 0, jnp.ones_like(x), -jnp.ones_like(x)), ()


@sign.backward
def _(_residuals, dy):
    return (jnp.zeros_like(dy),)


@op
def sigmoid(x):
    r"""y = σ(x) = 1 / (1 + e⁻ˣ).

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: x̄ = ȳ ∘ σ′(x), σ′(x) = σ(x)σ(−x) = y(1 − y), which has no correct digit left at
    x = 20 in float32. σ′ is even: it is computed at −|x|, where y is small.
    Raises TypeError for integers.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.44–14.47.
    """
    n, d = exp_quotient(widen(x))
    return (d / (n + d)).astype(x.dtype), x


@sigmoid.backward
def _(x, dy):
    return ((widen(dy) * sigmoid_slope(widen(x))).astype(x.dtype),)


def sigmoid_slope(x):
    _, n, d = logistic_parts(x)
    return n * (d / ((n + d) * (n + d)))


@op
def tanh(x):
    r"""y = tanh x = (eˣ − e⁻ˣ) / (eˣ + e⁻ˣ) = 2σ(2x) − 1.

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ ∘ (1 − y²), which has no correct digit left at |x| = 10 in float32: it is
    computed as (1 − |y|)(1 + |y|) with 1 − |y| = 2σ(−2|x|).
    Of integers it is that of the same floating-point numbers.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.48–14.53.
    """
    return tanh_and_slope(x)[0], x


@tanh.backward
def _(x, dy):
    _, slope = tanh_and_slope(x)
    return (dy * slope,)


@op
def relu(x):
    r"""y = max(x, 0).

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ where x > 0, else 0; so relu′(0) = 0, the convention of jax.nn.relu.
    Raises TypeError for integers.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.54–14.55.
    """
    # jnp.maximum would have the slope ½ at 0, once differentiated again; NaN is not ≤ 0 and stays
    return jnp.where(x <= 0, 0, x), x > 0  # a bit an element is all that is kept


@relu.backward
def _(positive, dy):
    return (jnp.where(positive, dy, jnp.zeros_like(dy)),)


@op
def leaky_relu(x, *, negative_slope=0.01):
    r"""y = x where x ≥ 0, else negative_slope · x.

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ where x ≥ 0, else negative_slope · ȳ; so the derivative at 0 is 1, the
    convention of jax.nn.leaky_relu.
    Raises TypeError for integers.
    Source: Maas, Hannun, Ng (2013), "Rectifier nonlinearities improve neural network acoustic
    models".
    """
    return jnp.where(x >= 0, x, _sloped(x, negative_slope)), x >= 0


@leaky_relu.backward
def _(not_negative, dy, *, negative_slope):
    return (jnp.where(not_negative, dy, _sloped(dy, negative_slope)),)


def _sloped(x, slope):
    return (slope * widen(x)).astype(x.dtype)  # a slope may be below the smallest float16


@op
def elu(x, *, alpha=1.0):
    r"""y = x where x > 0, else α(eˣ − 1) with α = alpha.

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: x̄ = ȳ where x > 0, else ȳ ∘ αeˣ; so the derivative at 0 is α, the convention of
    jax.nn.elu. It equals y + α, which has no correct digit left at x = −20 in float32.
    Raises TypeError for integers.
    Source: Clevert, Unterthiner, Hochreiter (2016), "Fast and accurate deep network learning by
    exponential linear units".
    """
    z = widen(x)
    not_positive = jnp.where(z > 0, 0, z)
    return jnp.where(z > 0, z, alpha * expm1(not_positive)).astype(x.dtype), x


@elu.backward
def _(x, dy, *, alpha):
    z, wide_dy = widen(x), widen(dy)
    not_positive = jnp.where(z > 0, 0, z)  # the branch not taken must not overflow either
    dx = jnp.where(z > 0, wide_dy, alpha * wide_dy * exp(not_positive))
    return (dx.astype(x.dtype),)


SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


@op
def selu(x):
    r"""y = λ · elu(x; α) with λ = 1.0507…, α = 1.6732…, which keep mean 0 and variance 1.

    x: any shape. Returns the same shape.
    Backward: x̄ = elu's with the cotangent λȳ; so the derivative at 0 is λα, as in jax.nn.selu.
    Raises TypeError for integers.
    Source: Klambauer et al. (2017), "Self-normalizing neural networks".
    """
    y, residuals = elu.forward(x, alpha=SELU_ALPHA)
    return SELU_SCALE * y, residuals


@selu.backward
def _(residuals, dy):
    return elu.pullback(residuals, SELU_SCALE * dy, alpha=SELU_ALPHA)


@op
def softplus(x):
    r"""y = ln(1 + eˣ) = max(x, 0) + ln(1 + e^{−|x|}).

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ ∘ σ(x).
    Of integers it is that of the same floating-point numbers.
    Source: Dugas et al. (2001), "Incorporating second-order functional knowledge for better
    option pricing".
    """
    x = inexact(x)
    above = jnp.where(x >= 0, x, 0)  # jnp.maximum and |x| would not have the slope ½ at 0
    return above + jnp.log1p(exp(-jnp.abs(x))), x


@softplus.backward
def _(x, dy):
    return (dy * logistic(x),)


@op
def log_sigmoid(x):
    r"""y = ln σ(x) = −softplus(−x) = min(x, 0) − ln(1 + e^{−|x|}).

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ ∘ σ(−x), and not 1 − σ(x), which is 0 from x = 17 on in float32.
    Of integers it is that of the same floating-point numbers.
    Source: the logistic neuron's log-likelihood, "Fundamentals of deep learning" (ch. 3).
    """
    x = inexact(x)
    return jnp.where(x < 0, x, 0) - jnp.log1p(exp(-jnp.abs(x))), x


@log_sigmoid.backward
def _(x, dy):
    return (dy * logistic(-x),)


@op
def silu(x):
    r"""y = x σ(x), also called swish.

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: x̄ = ȳ ∘ (σ(x) + xσ′(x)).
    Raises TypeError for integers.
    Source: Elfwing, Uchibe, Doya (2018), "Sigmoid-weighted linear units for neural network
    function approximation in reinforcement learning".
    """
    z = widen(x)
    return (z * logistic(z)).astype(x.dtype), x


@silu.backward
def _(x, dy):
    return ((widen(dy) * silu_slope(widen(x))).astype(x.dtype),)


def silu_slope(x):
    """σ + xσ′, of one division."""
    w, n, d = logistic_parts(x)
    return (w * (n + d) + x * n * d) / ((n + d) * (n + d))


@op
def gelu(x, *, approximate=True):
    r"""y = x Φ(x), Φ the normal distribution; approximate (the default, as in jax.nn.gelu):
    y = ½x(1 + tanh u) = x σ(2u) with u = √(2/π)(x + 0.044715x³).

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: exact          x̄ = ȳ ∘ (Φ(x) + xφ(x)),  φ(x) = e^{−x²/2}/√(2π)
              approximate    x̄ = ȳ ∘ (σ(2u) + x σ′(2u) 2u′)
    The sigmoids keep the digits that 1 + tanh u and 1 − tanh² u lose far from zero.
    Raises TypeError for integers.
    Source: Hendrycks, Gimpel (2016), "Gaussian error linear units".
    """
    z = widen(x)
    return gelu_of(z, approximate).astype(x.dtype), x


@gelu.backward
def _(x, dy, *, approximate):
    return ((widen(dy) * gelu_slope(widen(x), approximate)).astype(x.dtype),)


def gelu_of(x, approximate):
    if not approximate:
        return x * _normal_distribution(x)
    w, n, d, _ = _parts_by_tanh(x)
    return x * (w / (n + d))


def gelu_slope(x, approximate):
    if not approximate:
        return _normal_distribution(x) + x * exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    w, n, d, steepness = _parts_by_tanh(x)
    return (w * (n + d) + steepness * (n * d)) / ((n + d) * (n + d))


def _parts_by_tanh(x):
    """w, n and d of σ(2u) as `logistic_parts` has them, and x times the derivative of 2u.

    n / d is 2 to the power of −2|u| / ln 2, of which the whole part is the power of two.
    """
    c = 2 * math.sqrt(2 / math.pi)
    square = jnp.where(x * x > 1600, 1600, x * x)  # beyond, σ(2u) is 0 or 1 in every dtype
    powers = jnp.abs(x) * (c / math.log(2) + 0.044715 * c / math.log(2) * square)
    n, d = exp_quotient(powers, math.log(2))
    return jnp.where(x < 0, n, d), n, d, x * (c + 3 * 0.044715 * c * square)


def _normal_distribution(x):
    return 0.5 * lax.erfc(-math.sqrt(0.5) * x)  # 1 + erf would lose the digits of the left tail


@op
def softmax(x, *, axis=-1):
    r"""yᵢ = e^{xᵢ} / Σⱼ e^{xⱼ} along `axis`.

    x: any shape with at least one axis. axis: int. Returns the same shape; bfloat16 and float16
    are computed in float32.
    Backward: x̄ᵢ = Σⱼ ȳⱼ yⱼ(δᵢⱼ − yᵢ) = yᵢ(dᵢ − Σⱼ dⱼyⱼ) with d = ȳ − ȳₘ where an entry yₘ is
    above ½, else d = ȳ. The shift changes nothing in exact arithmetic, since Σ y = 1; without
    it, where yₘ is almost 1, ȳₘ − Σⱼ ȳⱼyⱼ is the difference of two almost equal numbers. Where
    there is no such entry at all, no time is spent on it.
    Raises ValueError for an axis that x does not have, TypeError for integers.
    Source: "The Math Behind Deep Learning" (ch. 14), eq. 14.160–14.164; Bridle (1990).
    """
    axis = _axis_of("softmax", x, axis)
    z = widen(x)
    e = jnp.exp(z - z.max(axis, keepdims=True, initial=-jnp.inf))
    total = e.sum(axis, keepdims=True)
    y = (e / total).astype(x.dtype)
    return y, (y, total)


@softmax.backward
def _(residuals, dy, *, axis):
    y, total = residuals
    p, d = widen(y), widen(dy)
    certain = (total < 2).any()  # the largest entry is 1 / total
    shift, mean = lax.cond(certain, _about_the_largest(int(axis)), _about_zero(int(axis)), p, d)
    return ((p * (d - shift - mean)).astype(y.dtype),)


@functools.cache  # one function an axis: a branch that is new is compiled anew, outside of `jit`
def _about_the_largest(axis):
    def about_the_largest(p, d):
        shift = (jnp.round(p) * d).sum(axis, keepdims=True)  # p rounds to 1 above ½, else to 0
        return shift, (p * (d - shift)).sum(axis, keepdims=True)

    return about_the_largest


@functools.cache
def _about_zero(axis):
    def about_zero(p, d):
        mean = (p * d).sum(axis, keepdims=True)
        return jnp.zeros_like(mean), mean

    return about_zero


def _axis_of(name, x, axis):
    """The axis as an int, where x has it."""
    axis, axes = whole(name, least=-math.inf, axis=axis), x.ndim
    if not -axes <= axis < axes:
        needed = f"axis must be in [{-axes}, {axes})" if axes else "x must have at least one axis"
        raise ValueError(f"{name}: axis is {axis} and x has shape {x.shape}; {needed}")
    return axis


@op
def log_softmax(x, *, axis=-1):
    r"""yᵢ = xᵢ − ln Σⱼ e^{xⱼ} along `axis`.

    x: any shape with at least one axis. axis: int. Returns the same shape; bfloat16 and float16
    are computed in float32.
    Backward: x̄ᵢ = ȳᵢ − pᵢ Σⱼ ȳⱼ = ȳᵢ(1 − pᵢ) − pᵢ(Σⱼ ȳⱼ − ȳᵢ) with p = eʸ and 1 − p made of the
    exponentials of the others: the gradient of an almost certain class keeps its digits.
    x is kept with two numbers a row instead of y, which a narrow dtype rounds too much for eʸ.
    Raises ValueError for an axis that x does not have or that is empty, TypeError for integers.
    Source: "Fundamentals of deep learning" (ch. 3), eq. 3.15–3.18.
    """
    axis = _axis_of("log_softmax", x, axis)
    if not x.shape[axis]:
        raise ValueError(
            f"log_softmax: x has shape {x.shape}; it must have an entry at least along axis {axis}"
        )
    normaliser = normalise(x, axis)
    return log_probabilities(x, normaliser).astype(x.dtype), (x, normaliser)


@log_softmax.backward
def _(residuals, dy, *, axis):
    x, normaliser = residuals
    p, not_p = probabilities_and_rest(x, normaliser)
    dz = widen(dy)
    total = rounded(dz.sum(axis, keepdims=True))  # or the sum's kernel makes all that follows too
    return ((dz * not_p - p * (total - dz)).astype(x.dtype),)


@op
def log_sum_exp(x, *, axis=-1, keepdims=False):
    r"""y = ln Σⱼ e^{xⱼ} along `axis`: a smooth maximum, and the normaliser of log_softmax.

    x: any shape with at least one axis, of size one or more along `axis`. axis: int. Returns that
    shape without `axis`, or of size one along it with keepdims; bfloat16 and float16 are computed
    in float32.
    Backward: x̄ᵢ = ȳ pᵢ, p = softmax x.
    Raises ValueError where there is nothing to add up.
    Source: "Fundamentals of deep learning" (ch. 3), eq. 3.15–3.18; Blanchard, Higham, Higham
    (2021), "Accurately computing the log-sum-exp and softmax functions".
    """
    axis = whole("log_sum_exp", least=-math.inf, axis=axis)
    if not -jnp.ndim(x) <= axis < jnp.ndim(x) or not x.shape[axis]:
        raise ValueError(
            f"log_sum_exp: x has shape {jnp.shape(x)}; it must have at least one entry along axis "
            f"{axis}, since the logarithm of an empty sum is not finite"
        )
    peak = widen(x).max(axis, keepdims=True)
    peak = jnp.where(jnp.isfinite(peak), peak, 0)  # of infinities the sum is infinite, or zero
    total = exp(rounded(x) - peak).sum(axis, keepdims=True)  # else 1 or more: no overflow
    y = (peak + jnp.log(total)).astype(x.dtype)
    return y if keepdims else y.squeeze(axis), (x, peak, total)


@log_sum_exp.backward
def _(residuals, dy, *, axis, keepdims):
    x, peak, total = residuals
    dy = widen(dy) if keepdims else jnp.expand_dims(widen(dy), axis)
    return ((exp(rounded(x) - peak) * (dy / total)).astype(x.dtype),)
