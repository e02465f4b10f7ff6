"""RAdam: Adam that waits until its second moment can be trusted."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from handgrad.manual.optimizers.core import (
    GradientTransformation,
    Rate,
    check_decay,
    check_not_negative,
    check_rate,
    check_state,
    check_trees,
    each,
    increment,
    log_of,
    one_minus_power,
    real,
    value_at,
    zero_count,
    zeros_like,
)

__all__ = ["effective_length", "radam"]


class RAdamState(NamedTuple):
    """t, the mean m of the gradients and v of their squares."""

    step: jax.Array
    mu: Any
    nu: Any


def radam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
) -> GradientTransformation:
    r"""Rectified Adam (Liu et al. 2020, algorithm 2).

        ρ∞ = 2/(1 − β₂) − 1,   ρₜ = ρ∞ − 2t β₂ᵗ/(1 − β₂ᵗ)
        m, v, m̂, v̂ as in Adam
        ρₜ ≥ threshold:   rₜ = √[(ρₜ−4)(ρₜ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρₜ)],
                          θₜ = θₜ₋₁ − η rₜ m̂ₜ / (√(v̂ₜ + ε₀) + ε)
        otherwise:        θₜ = θₜ₋₁ − η m̂ₜ

    learning_rate: η, a number or a schedule. b1, b2, eps, eps_root: β₁, β₂, ε, ε₀ as in `adam`.
    threshold: 5 as optax, PyTorch and the authors' code; the paper says ρₜ > 4, where r becomes
        real. It must be at least 4.
    ρₜ as printed is a small difference of numbers near 2000; `effective_length` has none.
    """
    check_rate(learning_rate=learning_rate)
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps, eps_root=eps_root, threshold=threshold)
    if not isinstance(threshold, Tracer) and not threshold >= 4:
        raise ValueError(f"threshold is {threshold}; it must be ≥ 4, below which r is not real")
    rho_inf = 2 / (1 - b2) - 1

    def init(params):
        return RAdamState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, RAdamState)
        check_trees(grads, state.mu)
        count = increment(state.step)
        eta = value_at(learning_rate, state.step)
        c1, c2 = one_minus_power(b1, count), one_minus_power(b2, count)
        rho = effective_length(b2, count)
        rectified = rho >= threshold
        safe = jnp.where(rectified, rho, 5.0)
        r = jnp.sqrt((safe - 4) * (safe - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * safe))

        def rule(g, m, v, eta, c1, c2, r):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            m_hat, v_hat = m / c1, v / c2
            adaptive = r * m_hat / (jnp.sqrt(v_hat + eps_root) + eps)
            return -eta * jnp.where(rectified, adaptive, m_hat), m, v

        updates, mu, nu = each(rule, grads, (state.mu, state.nu), scalars=(eta, c1, c2, r))
        return updates, RAdamState(count, mu, nu)

    return GradientTransformation(init, update)


def effective_length(b2: float, count: jax.Array) -> jax.Array:
    r"""ρₜ of RAdam, the length of the simple average that v̂ is worth.

    With x = −ln β₂, ρ∞ = coth(x/2) and 2t/(e^(tx) − 1) = t (coth(tx/2) − 1), so that for small tx
    Langevin's L(y) = coth y − 1/y gives a sum without cancellation:

        ρₜ = coth(x/2) − 2t/(e^(tx) − 1) = t + L(x/2) − t L(tx/2)

    As printed, float32 is wrong by 0.04 at t = 6 (β₂ = 0.999), and r by one per cent.
    """
    x, t = jnp.asarray(-log_of(b2), float), real(count)
    y = 0.5 * t * x
    early = t + _langevin(0.5 * x) - t * _langevin(y)
    late = 1 / jnp.tanh(0.5 * x) - 2 * t / jnp.expm1(2 * y)
    return jnp.where(y < 1, early, late)


def _langevin(y):
    """coth y − 1/y for 0 ≤ y < 1, as Lambert's continued fraction y/(3 + y²/(5 + y²/(7 + …)))."""
    fraction = 19.0
    for odd in range(17, 1, -2):
        fraction = odd + y * y / fraction
    return y / fraction
