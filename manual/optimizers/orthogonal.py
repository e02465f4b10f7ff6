"""Muon: momentum made orthogonal by Newton and Schulz's iteration."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.manual.layout import settled
from handgrad.manual.optimizers.core import (
    GradientTransformation,
    Rate,
    check_decay,
    check_not_negative,
    check_params,
    check_rate,
    check_state,
    check_trees,
    each,
    increment,
    may_decay,
    one_minus_power,
    value_at,
    zero_count,
    zeros_like,
)
from handgrad.manual.shapes import whole

__all__ = ["muon", "orthogonalize"]

QUINTIC = (3.4445, -4.7750, 2.0315)


class MuonState(NamedTuple):
    """t, the momentum m of every leaf, and v of the leaves that are no matrices."""

    step: jax.Array
    mu: Any
    nu: Any


def muon(
    learning_rate: Rate,
    ns_coeffs: tuple[float, float, float] = QUINTIC,
    ns_steps: int = 5,
    beta: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    nesterov: bool = True,
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
    adam_eps_root: float = 0.0,
    adam_weight_decay: float = 0.0,
    adam_learning_rate: Rate | None = None,
    consistent_rms: float | None = None,
    bias_correction: bool = True,
) -> GradientTransformation:
    r"""Muon (Jordan et al. 2024) on matrices of shape (in, out); Adam on all other leaves.

        mₜ = β mₜ₋₁ + (1 − β) gₜ
        m̄ₜ = β mₜ / (1 − βᵗ⁺¹) + (1 − β) gₜ / (1 − βᵗ)       (nesterov; otherwise mₜ / (1 − βᵗ))
        Oₜ = orthogonalize(m̄ₜ)
        θₜ = θₜ₋₁ − η (√max(1, out/in) Oₜ + λ θₜ₋₁)

    learning_rate: η, a number or a schedule. beta: β. weight_decay: λ. ns_coeffs, ns_steps: those
    of `orthogonalize`.
    bias_correction: True as optax. False is the author's m̄ₜ = β mₜ + (1 − β) gₜ: since O does not
        depend on the size of m̄, the two differ only by the mixture in the first steps.
    consistent_rms: c replaces the factor by c √max(in, out) (Liu et al. 2025; they take 0.2).
    nesterov, eps: they hold for the other leaves too, which take the step of `nadam` (of `adam`
        without) with adam_b1, adam_b2, adam_eps_root, and decay by adam_weight_decay, as in optax.
    adam_learning_rate: None for the same η.
    """
    adam_rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    check_rate(learning_rate=learning_rate, adam_learning_rate=adam_rate)
    check_decay(beta=beta, adam_b1=adam_b1, adam_b2=adam_b2)
    check_not_negative(
        eps=eps,
        adam_eps_root=adam_eps_root,
        weight_decay=weight_decay,
        adam_weight_decay=adam_weight_decay,
    )
    if consistent_rms is not None:
        check_not_negative(consistent_rms=consistent_rms)
    _check_iteration("muon", ns_coeffs, ns_steps)
    decays = may_decay(weight_decay) or may_decay(adam_weight_decay)

    def init(params):
        nu = jax.tree.map(lambda p: None if jnp.ndim(p) == 2 else jnp.zeros_like(p), params)
        return MuonState(zero_count(), zeros_like(params), nu)

    def mixed(b, g, m, now, following):
        """The momentum to follow; now and following are 1 − bᵗ and 1 − bᵗ⁺¹."""
        return b * (m / following) + (1 - b) * (g / now) if nesterov else m / now

    def factor(fan_in, fan_out):
        if consistent_rms is None:
            return max(1, fan_out / max(fan_in, 1)) ** 0.5
        return max(fan_in, fan_out) ** 0.5 * consistent_rms

    def update(grads, state, params=None):
        check_state(state, MuonState)
        check_trees(grads, state.mu)
        if decays:
            check_params("muon (with weight decay)", grads, params)
        count = increment(state.step)
        rates = value_at(learning_rate, state.step), value_at(adam_rate, state.step)
        start = [one_minus_power(beta, t) for t in (count, count + 1)]
        adam_start = [one_minus_power(adam_b1, t) for t in (count, count + 1)]
        c2 = one_minus_power(adam_b2, count)

        def rule(g, m, v, p, eta, adam_eta, now, following, adam_now, adam_following, c2):
            if v is None:
                m = beta * m + (1 - beta) * g
                o = orthogonalize(mixed(beta, g, m, now, following), ns_coeffs, ns_steps, eps)
                step = factor(*g.shape) * o
                return -eta * (step + weight_decay * p if decays else step), m, v
            m = adam_b1 * m + (1 - adam_b1) * g
            v = adam_b2 * v + (1 - adam_b2) * (g * g)
            m_bar = mixed(adam_b1, g, m, adam_now, adam_following)
            step = m_bar / (jnp.sqrt(v / c2 + adam_eps_root) + eps)
            return -adam_eta * (step + adam_weight_decay * p if decays else step), m, v

        updates, mu, nu = each(
            rule,
            grads,
            (state.mu, state.nu),
            params if decays else None,
            scalars=(*rates, *(start if bias_correction else (1.0, 1.0)), *adam_start, c2),
        )
        return updates, MuonState(count, mu, nu)

    return GradientTransformation(init, update)


def orthogonalize(
    matrix: jax.Array,
    ns_coeffs: tuple[float, float, float] = QUINTIC,
    ns_steps: int = 5,
    eps: float = 1e-8,
) -> jax.Array:
    r"""Roughly U Vᵀ of M = U S Vᵀ, by the quintic iteration of Newton and Schulz.

        X₀ = M / (‖M‖ + ε),   A = Xₖ Xₖᵀ,   Xₖ₊₁ = a Xₖ + (b A + c A²) Xₖ

    Every singular value s goes the way s ← as + bs³ + cs⁵: (2, −3/2, 1/2) leads all of (0, 1] to
    1; Jordan's (3.4445, −4.7750, 2.0315) lead them near 1 much faster and keep them within
    about 0.7 … 1.2.

    matrix: (n, m). Returns (n, m). ns_coeffs: a, b, c. ns_steps: how many. eps: ε.
    A is formed on the shorter side.
    """
    if matrix.ndim != 2:
        raise ValueError(f"orthogonalize takes a matrix; it was given shape {matrix.shape}")
    _check_iteration("orthogonalize", ns_coeffs, ns_steps)
    return settled(_iterated, matrix, ns_coeffs, ns_steps, eps)


def _iterated(matrix, ns_coeffs, ns_steps, eps):
    a, b, c = ns_coeffs
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (jnp.sqrt(jnp.sum(x * x)) + eps)

    def once(_, x):
        gram = x @ x.T
        return a * x + (b * gram + c * (gram @ gram)) @ x

    if isinstance(ns_steps, Tracer):  # an injected hyperparameter
        x = jax.lax.fori_loop(0, ns_steps, once, x)
    else:
        for step in range(ns_steps):
            x = once(step, x)
    return x.T if tall else x


def _check_iteration(name, ns_coeffs, ns_steps):
    if not (isinstance(ns_steps, Tracer) and jnp.issubdtype(ns_steps.dtype, jnp.integer)):
        whole(name, ns_steps=ns_steps, least=0)
    if not isinstance(ns_coeffs, tuple | list) and np.ndim(ns_coeffs) != 1:
        raise TypeError(f"{name}: ns_coeffs is {ns_coeffs!r}; it must be three numbers: a, b and c")
    if len(ns_coeffs) != 3:
        raise ValueError(f"ns_coeffs has {len(ns_coeffs)} numbers; it must have 3: a, b and c")
