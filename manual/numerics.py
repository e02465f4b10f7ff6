"""What several operations share to keep their digits.

float32 inside, Σ eˣ in two parts, √Σ x², the gradient of a matrix, and the slopes of σ and tanh
out of their arguments.
"""

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

__all__ = [
    "Normaliser",
    "length",
    "log_probabilities",
    "normalise",
    "outer",
    "over",
    "probabilities",
    "sigmoid_and_slope",
    "tanh_and_slope",
    "wide",
    "widen",
]

Normaliser: TypeAlias = tuple[jax.Array, jax.Array]


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype to accumulate in: float32 for bfloat16 and float16, else the same."""
    return jnp.dtype(jnp.float32) if dtype in (jnp.bfloat16, jnp.float16) else jnp.dtype(dtype)


def widen(x: jax.Array) -> jax.Array:
    """x in the dtype to accumulate in."""
    return x.astype(wide(x.dtype))


def outer(x: jax.Array, dy: jax.Array) -> jax.Array:
    """Σ xᵀ ȳ over all axes but the last: (..., in), (..., out) -> (in, out), in `wide`."""
    # as one product of matrices: a contraction over several axes transposes both of them first
    x, dy = (a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in (x, dy))
    return jnp.matmul(x.T, dy, preferred_element_type=wide(x.dtype))


def normalise(x: jax.Array, axis: int = -1) -> Normaliser:
    """Σⱼ eˣʲ = eˣᵐ(1 + r) with m the largest entry and r = Σ_{j≠m} e^{xⱼ−xₘ}: (xₘ, r).

    x: any shape. Returns two arrays of x's shape with `axis` of size one, accumulated in float32
    at least. Nothing overflows, and an r that is small beside 1 keeps its digits: by them the
    log-probability of an almost certain class, and its distance to 1, are not rounded to zero.
    """
    x = widen(x)
    peak = x.max(axis, keepdims=True)
    e = jnp.exp(x - peak)  # in [0, 1]
    ones = jnp.floor(e)  # 1 at m and wherever it is tied
    rest = (e - ones).sum(axis, keepdims=True) + (ones.sum(axis, keepdims=True) - 1)
    return peak, rest


def log_probabilities(x: jax.Array, normaliser: Normaliser) -> jax.Array:
    """ln p = (x − xₘ) − ln(1 + r), p = softmax x."""
    peak, rest = normaliser
    return widen(x) - peak - jnp.log1p(rest)


def probabilities(x: jax.Array, normaliser: Normaliser) -> tuple[jax.Array, jax.Array]:
    """p = e^{x−xₘ}/(1 + r) and 1 − p, both with all their digits.

    The latter is a difference of almost equal numbers only where p is above ½; that is at the
    largest entry alone, where it is r/(1 + r).
    """
    peak, rest = normaliser
    p = jnp.exp(widen(x) - peak) / (1 + rest)
    return p, jnp.where(p > 0.5, rest / (1 + rest), 1 - p)


def sigmoid_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """σ(x) and σ′(x) = e/(1 + e)², e = e^{−|x|}, each with all its digits, from one exponential."""
    e = jnp.exp(jnp.where(x > 0, -x, x))  # in (0, 1]
    total = 1 + e
    return jnp.where(x > 0, 1, e) / total, e / (total * total)


def tanh_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """t = tanh x and t′ = 1 − t²; from |t| = ½ on, where the difference loses its digits, it is
    e^{−2|x|}(1 + |t|)²."""
    t = jnp.tanh(x)
    far, root = jnp.where(x > 0, -x, x), 1 + jnp.where(x > 0, t, -t)  # each side is analytic
    square = t * t
    return t, jnp.where(square < 0.25, 1 - square, jnp.exp(2 * far) * root * root)


def length(x: jax.Array, axis: int | tuple[int, ...] = -1) -> jax.Array:
    """‖x‖ = √Σ x² along `axis`, which stays, of size one; in float32 at least.

    The squares are those of x over a power of two near its largest entry, which is exact: they
    neither overflow nor vanish, and a vector of 1e-30 has its length. Zero has the derivative 0.
    """
    x = widen(x)
    scale = _power_of_two_below(jnp.abs(x).max(axis, keepdims=True, initial=0))
    squares = jnp.square(x / scale).sum(axis, keepdims=True)
    return jnp.where(squares == 0, 0, scale * jnp.sqrt(jnp.where(squares == 0, 1, squares)))


def over(x: jax.Array, size: jax.Array) -> jax.Array:
    """x / size, and 0 where the size is 0: the direction of x, if that is its length."""
    return widen(x) / jnp.where(size == 0, jnp.inf, size)


def _power_of_two_below(x: jax.Array) -> jax.Array:
    """2^⌊log₂ x⌋, read off the exponent's bits (so it has no derivative); 1 for 0."""
    integer, bits = (jnp.uint32, 0x7F800000) if x.dtype.itemsize == 4 else (jnp.uint64, 0x7FF << 52)
    power = lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, integer) & jnp.array(bits, integer), x.dtype
    )
    return jnp.where(power == 0, 1, power)
