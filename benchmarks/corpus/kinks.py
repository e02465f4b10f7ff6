"""Backward passes of activations with a kink."""

import jax
import jax.numpy as jnp
import numpy as np

from corpus.tools import Function, normal

SCALES = (1e-3, 1.0, 1e2)
SLOPE, ALPHA = 0.1, 1.3

ELU = Function("elu", lambda x: jax.nn.elu(x, ALPHA), normal((3, 7)))


def elu_by_input(x, dy):
    return (dy * jnp.where(x > 0, 1.0, ALPHA * jnp.exp(jnp.minimum(x, 0))),)


def elu_by_output(x, dy):
    y = jnp.where(x > 0, x, ALPHA * jnp.expm1(jnp.minimum(x, 0)))
    return (dy * jnp.where(y > 0, 1.0, y + ALPHA),)


def elu_by_parts(x, dy):
    positive = (x > 0).astype(x.dtype)
    return (positive * dy + (1 - positive) * dy * ALPHA * jnp.exp(-abs(x)),)


ELU.right(elu_by_input, elu_by_output, elu_by_parts, scales=SCALES)
ELU.wrong(
    elu_by_input,
    ("kink side", "x > 0", "x < 0"),
    ("constant factor", "ALPHA * ", ""),
    ("negative inputs", "ALPHA * jnp.exp(jnp.minimum(x, 0))", "0.0"),
)
ELU.wrong(elu_by_output, ("constant factor", "y + ALPHA", "y + 1"))
ELU.wrong(elu_by_parts, ("abs or sign", "-abs(x)", "-x"))

RELU = Function("relu", jax.nn.relu, normal((4, 5)))


def relu_left(x, dy):
    return (jnp.where(x > 0, dy, 0),)


def relu_half(x, dy):
    return (dy * (1 + jnp.sign(x)) / 2,)


def relu_right(x, dy):
    return (dy * (x >= 0),)


def relu_numpy(x, dy):
    dx = np.array(dy)
    dx[np.asarray(x) <= 0] = 0
    return (dx,)


def with_zeros(rng, scale):
    x = scale * rng.standard_normal((4, 5))
    x[0, 1] = x[2, 3] = x[3, 0] = 0.0
    return (x,)


RELU.right(relu_left, relu_half, relu_right, scales=SCALES)
RELU.right(relu_numpy, category="numpy")
RELU.right(
    relu_left,
    relu_half,
    relu_right,
    draw=with_zeros,
    sample="with zeros",
    category="kink convention",
    note="the derivative at 0 is 0, ½ or 1",
)
RELU.wrong(
    relu_left,
    ("kink side", "x > 0", "x < 0"),
    ("operand dropped", "jnp.where(x > 0, dy, 0)", "dy"),
    ("threshold", "x > 0", "x > 0.1"),
    ("operand dropped", "dy, 0", "dy * x, 0"),
)
RELU.wrong(relu_numpy, ("wrong operand", "(x) <= 0", "(dy) <= 0"))

LEAKY_RELU = Function("leaky_relu", lambda x: jax.nn.leaky_relu(x, SLOPE), normal((4, 5)))


def leaky_relu_by_side(x, dy):
    return (jnp.where(x > 0, dy, SLOPE * dy),)


def leaky_relu_by_sign(x, dy):
    return (dy * ((1 + SLOPE) + (1 - SLOPE) * jnp.sign(x)) / 2,)


LEAKY_RELU.right(leaky_relu_by_side, leaky_relu_by_sign, scales=SCALES)
LEAKY_RELU.right(
    leaky_relu_by_side,
    leaky_relu_by_sign,
    draw=with_zeros,
    sample="with zeros",
    category="kink convention",
    note="the derivative at 0 is the slope, or the mean of both",
)
LEAKY_RELU.wrong(
    leaky_relu_by_side,
    ("kink side", "dy, SLOPE * dy", "SLOPE * dy, dy"),
    ("negative inputs", "SLOPE * dy", "-SLOPE * dy"),
    ("negative inputs", "SLOPE * dy", "0"),
    ("constant factor", "SLOPE * dy", "dy / SLOPE"),
)

SOFTSIGN = Function("softsign", jax.nn.soft_sign, normal((4, 5)))


def softsign_by_input(x, dy):
    return (dy / (1 + abs(x)) ** 2,)


def softsign_by_output(x, dy):
    y = x / (1 + abs(x))
    return (dy * (1 - abs(y)) ** 2,)


SOFTSIGN.right(softsign_by_input, scales=SCALES)
SOFTSIGN.right(softsign_by_output, scales=(1e-3, 1.0))
SOFTSIGN.wrong(softsign_by_input, ("abs or sign", "abs(x)", "x"), ("operand dropped", " ** 2", ""))
SOFTSIGN.wrong(softsign_by_output, ("abs or sign", "abs(y)", "y"), ("sign", "1 - abs", "1 + abs"))

PRELU = Function("prelu", lambda x, a: jnp.where(x > 0, x, a * x), normal((5, 5), fixed=((5,),)))


def prelu_by_side(x, a, dy):
    dx = jnp.where(x > 0, dy, a * dy)
    return dx, jnp.sum(dy * jnp.minimum(x, 0), axis=0)


def prelu_by_matrix(x, a, dy):
    negative = 1 - (x > 0).astype(x.dtype)
    return dy - negative * dy * (1 - a), jnp.einsum("nc,nc,nc->c", negative, x, dy)


PRELU.right(prelu_by_side, prelu_by_matrix, scales=SCALES)
PRELU.wrong(
    prelu_by_side,
    ("wrong axis", "axis=0", "axis=1"),
    ("mean for sum", "jnp.sum", "jnp.mean"),
    ("kink side", "minimum", "maximum"),
    ("operand dropped", "a * dy", "dy"),
    ("wrong axis", "a * dy", "a[:, None] * dy"),
)

FUNCTIONS = [ELU, RELU, LEAKY_RELU, SOFTSIGN, PRELU]
