"""What the derivations share: the documents' titles, the usual functions in NumPy, samples."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual.op import Op
from handgrad.manual.quick import compiled

__all__ = [
    "BLOG",
    "CHAPTER",
    "FUNDAMENTALS",
    "HILL",
    "QUESTIONS",
    "by_hand",
    "compiled",
    "one_hot",
    "orthogonal",
    "positive",
    "same",
    "sigmoid",
    "softmax",
    "values",
]

CHAPTER = "“The Math Behind Deep Learning” (ch. 14)"
BLOG = "“Backpropagation and optimisers” (blog, AI & the art of programming)"
QUESTIONS = "“Ten Questions You Must Learn in Deep Learning”, section 2.4"
HILL = "Tobias Hill, “Part 2: Gradient descent and backpropagation” (2018)"
FUNDAMENTALS = "“Fundamentals of deep learning” (ch. 3)"


def sigmoid(z):
    """σ(z) = 1 / (1 + e⁻ᶻ)."""
    return 1 / (1 + np.exp(-z))


def softmax(s):
    """eˢ / Σ eˢ over the last axis."""
    e = np.exp(s - np.max(s, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def same(a, b):
    """Kronecker's δ."""
    return float(a == b)


def by_hand(operation: Op, *args: Any, dy: Any = 1.0, wrt: int = 0, **config: Any) -> Any:
    """The cotangent of one argument, by the operation's own backward: a derivation's last line."""
    return jax.tree.map(np.asarray, _backward(operation, **config)(args, dy)[wrt])


def values(operation: Op, *args: Any, **config: Any) -> Any:
    """The operation's output."""
    return jax.tree.map(np.asarray, _forward(operation, **config)(args))


@functools.cache
def _backward(operation: Op, **config: Any) -> Callable[..., tuple]:
    @compiled
    def run(args, dy):
        y, residuals = operation.forward(*args, **config)
        dy = jax.tree.map(lambda y, dy: jnp.broadcast_to(jnp.asarray(dy, y.dtype), y.shape), y, dy)
        return operation.pullback(residuals, dy, **config)

    return run


@functools.cache
def _forward(operation: Op, **config: Any) -> Callable[..., Any]:
    return compiled(lambda args: operation.forward(*args, **config)[0])


def one_hot(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Rows with a single one, drawn at random."""
    return lambda rng: np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]


def positive(*shape: int) -> Callable[[np.random.Generator], np.ndarray]:
    """Positive numbers (log-normal)."""
    return lambda rng: np.exp(0.5 * rng.standard_normal(shape))


def orthogonal(n: int) -> Callable[[np.random.Generator], np.ndarray]:
    """A random orthogonal matrix."""
    return lambda rng: np.linalg.qr(rng.standard_normal((n, n)))[0]
