"""Activations of straight pieces. At a kink each has the slope that jax.nn gives it.

A backward keeps what tells the pieces apart: a bit an element where the slopes are constants.
The forward is written in pieces too: differentiated once more it has the same slopes, where
jnp.clip and jnp.maximum have ½. NaN lies beyond no kink and stays what it is.
"""

import jax.numpy as jnp
from jax import lax

from handgrad.manual.numerics import at_most, widen
from handgrad.manual.op import op

__all__ = ["hard_sigmoid", "hard_swish", "hard_tanh", "prelu", "relu6"]


@op
def prelu(x, alpha):
    r"""y = x where x ≥ 0, else α x, with slopes α that are learned.

    x: (*batch, channels). alpha: (channels,), or a scalar for all channels.
    Returns the shape and the dtype of x.
    Backward: x̄ = ȳ where x ≥ 0, else α ȳ;  ᾱ = Σ x ȳ over the places where x < 0, accumulated
    in float32 at least. At 0 the slope is 1, as leaky_relu's.
    Raises ValueError where alpha is of another shape.
    Source: He, Zhang, Ren, Sun (2015), "Delving deep into rectifiers".
    """
    if jnp.ndim(alpha) and (jnp.ndim(x) < 1 or alpha.shape != x.shape[-1:]):
        raise ValueError(
            f"prelu: alpha has shape {alpha.shape} and x {jnp.shape(x)}; alpha must be a scalar, "
            "or (channels,) with x of (*batch, channels)"
        )
    return jnp.where(x >= 0, x, _sloped(x, alpha, x)), (x, alpha)


@prelu.backward
def _(residuals, dy):
    x, alpha = residuals
    dx = jnp.where(x >= 0, dy, _sloped(dy, alpha, x))
    below = at_most(widen(x), 0)
    below = jnp.where(x == 0, lax.stop_gradient(below), below)  # or its slope at 0 would be ½
    return dx, (below * widen(dy)).sum(tuple(range(x.ndim - alpha.ndim)))


def _sloped(z, alpha, x):
    """α z in the dtype of z, with the slopes along the channels of x."""
    slopes = jnp.reshape(widen(alpha), (1,) * (x.ndim - alpha.ndim) + alpha.shape)
    return (slopes * widen(z)).astype(z.dtype)


@op
def relu6(x):
    r"""y = min(max(x, 0), 6).

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ where 0 < x < 6, else 0; at both kinks 0, as in jax.nn.relu6.
    Raises TypeError for integers.
    Source: Krizhevsky (2010), "Convolutional deep belief networks on CIFAR-10".
    """
    return jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x)), (x > 0) & (x < 6)


@relu6.backward
def _(inside, dy):
    return (jnp.where(inside, dy, jnp.zeros_like(dy)),)


@op
def hard_tanh(x):
    r"""y = min(max(x, −1), 1).

    x: any shape. Returns the same shape.
    Backward: x̄ = ȳ where −1 ≤ x ≤ 1, else 0; at both kinks 1, as in jax.nn.hard_tanh.
    Raises TypeError for integers.
    Source: Collobert (2004), "Large scale machine learning".
    """
    return jnp.where(x < -1, -1, jnp.where(x > 1, 1, x)), (x >= -1) & (x <= 1)


@hard_tanh.backward
def _(inside, dy):
    return (jnp.where(inside, dy, jnp.zeros_like(dy)),)


@op
def hard_sigmoid(x):
    r"""y = min(max(x + 3, 0), 6) / 6.

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: x̄ = ȳ / 6 where −3 < x < 3, else 0; at both kinks 0, as in jax.nn.hard_sigmoid.
    Raises TypeError for integers.
    Source: Courbariaux, Bengio, David (2015), "BinaryConnect"; with these slopes Howard et al.
    (2019), "Searching for MobileNetV3".
    """
    return _gate(widen(x)).astype(x.dtype), jnp.abs(x) < 3


@hard_sigmoid.backward
def _(inside, dy):
    return (jnp.where(inside, dy / 6, jnp.zeros_like(dy)),)


@op
def hard_swish(x):
    r"""y = x h with h = min(max(x + 3, 0), 6) / 6, the hard_sigmoid of x.

    x: any shape. Returns the same shape; bfloat16 and float16 are computed in float32.
    Backward: x̄ = ȳ (h + x/6) where −3 < x < 3, else ȳ h; so 0 at −3 and 1 at 3, as in
    jax.nn.hard_swish.
    Raises TypeError for integers.
    Source: Howard et al. (2019), "Searching for MobileNetV3".
    """
    z = widen(x)
    return (z * _gate(z)).astype(x.dtype), x


@hard_swish.backward
def _(x, dy):
    z = widen(x)
    slope = jnp.where(jnp.abs(z) < 3, (2 * z + 3) / 6, jnp.where(z > 0, 1, 0))
    return ((widen(dy) * slope).astype(x.dtype),)


def _gate(z):
    """min(max(z + 3, 0), 6) / 6."""
    return jnp.where(z <= -3, 0, jnp.where(z >= 3, 6, z + 3)) / 6
