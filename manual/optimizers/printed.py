"""What "Backpropagation and optimisers" (blog), sections 7–9, prints and should not have.

Each is its optimiser with one statement taken as printed, so that the departure measured is that
statement's alone. None of them is exported: they are evidence for the errata.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.manual.optimizers.adaptive import adagrad, rmsprop
from handgrad.manual.optimizers.core import (
    GradientTransformation,
    each,
    increment,
    real,
    zero_count,
    zeros_like,
)
from handgrad.manual.optimizers.moments import adam

__all__ = [
    "adagrad_halved",
    "adagrad_reciprocals",
    "adam_halved",
    "adam_linear",
    "rmsprop_halved",
    "rmsprop_over_rate",
]


class SquaresState(NamedTuple):
    """t and the accumulator."""

    step: jax.Array
    sum_of_squares: Any


class MeanState(NamedTuple):
    """t and the mean of what is taken for the square."""

    step: jax.Array
    nu: Any


class MomentsState(NamedTuple):
    """t, m and v."""

    step: jax.Array
    mu: Any
    nu: Any


def _halved(learning_rate: float):
    """The rate "divided by two" after every step: η, η/2, η/4, … It sums to 2η."""
    return lambda t: learning_rate * 0.5 ** real(t)


def adagrad_halved(learning_rate: float, eps: float = 1e-7) -> GradientTransformation:
    r"""Section 7, step 5: θₜ = θₜ₋₁ − η 2^(1−t) gₜ / √(Gₜ + ε).

    The whole way is then at most 2η for each parameter, wherever the minimum lies.
    """
    return adagrad(_halved(learning_rate), 0.0, eps)


def rmsprop_halved(
    learning_rate: float, decay: float = 0.9, eps: float = 1e-8
) -> GradientTransformation:
    r"""Section 8, step 8: θₜ = θₜ₋₁ − η 2^(1−t) gₜ / √(vₜ + ε)."""
    return rmsprop(_halved(learning_rate), decay, eps)


def adam_halved(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformation:
    r"""Section 9, step 8: θₜ = θₜ₋₁ − η 2^(1−t) m̂ₜ / (√v̂ₜ + ε)."""
    return adam(_halved(learning_rate), b1, b2, eps)


def adagrad_reciprocals(learning_rate: float, eps: float = 1e-7) -> GradientTransformation:
    r"""Section 7, step 4: G as "the sum of the reciprocals of the root mean squares".

        Gₜ = Gₜ₋₁ + 1/√(gₜ²),   θₜ = θₜ₋₁ − η gₜ / √(Gₜ + ε)

    Small gradients then make G large, and the steps no longer forget the gradient's scale: g
    times c makes the step c^(3/2) times as long, not the same. A zero gradient adds nothing here
    (as printed it would stop its parameter for ever).
    """

    def init(params):
        return SquaresState(zero_count(), zeros_like(params))

    def update(grads, state, params=None):
        def rule(g, G):
            G = G + jnp.where(g == 0, 0.0, 1 / jnp.sqrt(g * g))
            return -learning_rate * g / jnp.sqrt(G + eps), G

        updates, total = each(rule, grads, (state.sum_of_squares,))
        return updates, SquaresState(increment(state.step), total)

    return GradientTransformation(init, update)


def rmsprop_over_rate(
    learning_rate: float, decay: float = 0.9, eps: float = 1e-8
) -> GradientTransformation:
    r"""Section 8, step 4: "the square of the gradient divided by 2η".

        vₜ = ρ vₜ₋₁ + (1 − ρ) gₜ²/(2η),   θₜ = θₜ₋₁ − η gₜ / √(vₜ + ε)

    Every step is √(2η) times RMSProp's: the rate enters as η^(3/2).
    """

    def init(params):
        return MeanState(zero_count(), zeros_like(params))

    def update(grads, state, params=None):
        def rule(g, v):
            v = decay * v + (1 - decay) * (g * g / (2 * learning_rate))
            return -learning_rate * g / jnp.sqrt(v + eps), v

        updates, nu = each(rule, grads, (state.nu,))
        return updates, MeanState(increment(state.step), nu)

    return GradientTransformation(init, update)


def adam_linear(
    learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformation:
    r"""Section 9, step 7: β₁ᵗ and β₂ᵗ "decay linearly".

        m̂ₜ = mₜ / (1 − max(0, 1 − t(1 − β₁))),   v̂ₜ = vₜ / (1 − max(0, 1 − t(1 − β₂)))

    The straight line through the right values at t = 0 and t = 1. It reaches 0 at t = 1/(1 − β),
    where βᵗ is still 1/e: the first step is right, the second is not.
    """

    def init(params):
        return MomentsState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, params=None):
        count = increment(state.step)
        c1, c2 = (jnp.minimum(real(count) * (1 - b), 1.0) for b in (b1, b2))

        def rule(g, m, v, c1, c2):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            return -learning_rate * (m / c1) / (jnp.sqrt(v / c2) + eps), m, v

        updates, mu, nu = each(rule, grads, (state.mu, state.nu), scalars=(c1, c2))
        return updates, MomentsState(count, mu, nu)

    return GradientTransformation(init, update)
