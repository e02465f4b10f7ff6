"""What several operations share to keep their digits.

float32 inside, Σ eˣ in two parts, and the slopes of σ and tanh out of their arguments.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp

__all__ = [
    "Normaliser",
    "log_probabilities",
    "normalise",
    "probabilities",
    "sigmoid_and_slope",
    "tanh_slope",
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
    """σ(x) and σ′(x) = σ(x)σ(−x), each with all its digits, from one exponential."""
    e = jnp.exp(jnp.where(x > 0, -x, x))  # in (0, 1]
    return jnp.where(x > 0, 1, e) / (1 + e), e / jnp.square(1 + e)


def tanh_slope(x: jax.Array) -> jax.Array:
    """4σ′(2x), which is 1 − tanh² x with the digits that near ±1 the difference has lost."""
    _, slope = sigmoid_and_slope(2 * x)
    return 4 * slope
