"""Moments of the gradient, corrected for their start at zero: Adam and what grew out of it."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

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
    power,
    real,
    value_at,
    zero_count,
    zeros_like,
)

__all__ = ["adam", "adamax", "adamw", "amsgrad", "lion", "nadam"]


class AdamState(NamedTuple):
    """t, the mean m of the gradients and v of their squares."""

    step: jax.Array
    mu: Any
    nu: Any


class AdaMaxState(NamedTuple):
    """t, the mean m of the gradients and u, the largest of them that is still remembered."""

    step: jax.Array
    mu: Any
    nu: Any


class AmsGradState(NamedTuple):
    """t, m, v and the largest v so far."""

    step: jax.Array
    mu: Any
    nu: Any
    nu_max: Any


class NAdamState(NamedTuple):
    """t, m, v and ∏μ, the product of the momenta so far."""

    step: jax.Array
    mu: Any
    nu: Any
    mu_product: jax.Array


class LionState(NamedTuple):
    """t and the momentum m."""

    step: jax.Array
    mu: Any


def adam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
) -> GradientTransformation:
    r"""Adam (Kingma and Ba 2015, algorithm 1).

        mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ
        vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²
        m̂ₜ = mₜ / (1 − β₁ᵗ),   v̂ₜ = vₜ / (1 − β₂ᵗ)
        θₜ = θₜ₋₁ − η m̂ₜ / (√(v̂ₜ + ε₀) + ε)

    learning_rate: η. b1, b2: β₁, β₂ in [0, 1). eps: ε; eps_root: ε₀, 0 in the paper (a positive
    one keeps the derivative of √ finite where a gradient of the update itself is taken).
    1 − βᵗ decays geometrically to 1, and is computed without cancellation.

    Source: "Backpropagation and optimisers" (blog), section 9, whose formulas are these; its
    words (β₁ᵗ and β₂ᵗ "decay linearly", η is halved after every step) are not: see
    `optimizers.printed`.
    """
    return _adam(learning_rate, b1, b2, eps, eps_root)


def adamw(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: Rate = 1e-4,
    *,
    scale_decay: bool = True,
) -> GradientTransformation:
    r"""Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).

        m, v, m̂, v̂ as in Adam
        θₜ = θₜ₋₁ − η (m̂ₜ / (√(v̂ₜ + ε₀) + ε) + λ θₜ₋₁)

    The decay is not divided by √v̂: under Adam the gradient of ½λ‖θ‖² (add λθ to g) is, so that
    parameters with large gradients hardly decay at all.

    learning_rate: η, a number or a schedule. b1, b2, eps, eps_root: β₁, β₂, ε, ε₀ as in `adam`.
    weight_decay: λ ≥ 0, or a schedule; 1e-4 as optax, 1e-2 in PyTorch.
    scale_decay: True multiplies λ by η, as optax and PyTorch do; False is the paper's own
        θₜ = θₜ₋₁ − η m̂ₜ/(√v̂ₜ + ε) − λ θₜ₋₁ (there λ keeps its meaning when η is retuned; a
        schedule of η has to be given to λ as well).
    """
    check_rate(weight_decay=weight_decay)
    return _adam(learning_rate, b1, b2, eps, eps_root, weight_decay, scale_decay)


def _adam(learning_rate, b1, b2, eps, eps_root, weight_decay=None, scale_decay=True):
    check_rate(learning_rate=learning_rate)
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return AdamState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, AdamState)
        check_trees(grads, state.mu)
        if weight_decay is None:
            params = None
        else:
            check_params("adamw", grads, params)
        count = increment(state.step)
        eta = value_at(learning_rate, state.step)
        lam = value_at(0.0 if weight_decay is None else weight_decay, state.step)
        c1, c2 = one_minus_power(b1, count), one_minus_power(b2, count)

        def rule(g, m, v, p, eta, lam, c1, c2):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            m_hat, v_hat = m / c1, v / c2
            step = m_hat / (jnp.sqrt(v_hat + eps_root) + eps)
            if p is None:
                return -eta * step, m, v
            return -eta * (step + lam * p) if scale_decay else -eta * step - lam * p, m, v

        updates, mu, nu = each(
            rule, grads, (state.mu, state.nu), params, scalars=(eta, lam, c1, c2)
        )
        return updates, AdamState(count, mu, nu)

    return GradientTransformation(init, update)


def amsgrad(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool | Literal["after"] = True,
) -> GradientTransformation:
    r"""AMSGrad (Reddi, Kale and Kumar 2018, algorithm 2): the second moment never shrinks.

        mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ,   vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²
        v̌ₜ = max(v̌ₜ₋₁, vₜ / (1 − β₂ᵗ))
        θₜ = θₜ₋₁ − η mₜ / (1 − β₁ᵗ) / (√(v̌ₜ + ε₀) + ε)

    learning_rate: η, a number or a schedule. b1, b2, eps_root: β₁, β₂, ε₀ as in `adam`.
    bias_correction_mu: True as optax and PyTorch; the paper does not correct m.
    bias_correction_nu: True corrects v before the maximum, as optax: since 1 − β₂ᵗ grows, an
        early large v/(1 − β₂ᵗ) may stay the maximum for ever. False is the paper, which
        corrects nothing. "after" is PyTorch: the maximum is taken of v, and then corrected.
    eps: 1e-8 as optax and PyTorch; the paper has none.
    """
    check_rate(learning_rate=learning_rate)
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps, eps_root=eps_root)
    if bias_correction_nu not in (True, False, "after"):
        raise ValueError(
            f"bias_correction_nu is {bias_correction_nu!r}; it must be True (before the maximum), "
            f"False or 'after'"
        )

    def init(params):
        mu, nu, nu_max = (zeros_like(params) for _ in range(3))
        return AmsGradState(zero_count(), mu, nu, nu_max)

    def update(grads, state, params=None):
        check_state(state, AmsGradState)
        check_trees(grads, state.mu)
        count = increment(state.step)
        eta = value_at(learning_rate, state.step)
        c1 = one_minus_power(b1, count) if bias_correction_mu else 1.0
        c2 = one_minus_power(b2, count)

        def rule(g, m, v, v_max, eta, c1, c2):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            v_max = jnp.maximum(v_max, v / c2 if bias_correction_nu is True else v)
            v_hat = v_max / c2 if bias_correction_nu == "after" else v_max
            return -eta * (m / c1) / (jnp.sqrt(v_hat + eps_root) + eps), m, v, v_max

        updates, mu, nu, nu_max = each(
            rule, grads, (state.mu, state.nu, state.nu_max), scalars=(eta, c1, c2)
        )
        return updates, AmsGradState(count, mu, nu, nu_max)

    return GradientTransformation(init, update)


def adamax(
    learning_rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformation:
    r"""AdaMax (Kingma and Ba 2015, algorithm 2): the second moment in the maximum norm.

        mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ
        uₜ = max(β₂ uₜ₋₁, |gₜ| + ε)
        θₜ = θₜ₋₁ − η / (1 − β₁ᵗ) · mₜ / uₜ

    learning_rate: η, a number or a schedule. b1, b2: β₁, β₂ in [0, 1).
    eps: 1e-8 inside the maximum as optax and PyTorch; 0 is the paper's (a parameter that never
    had a gradient then stays where it is).
    """
    check_rate(learning_rate=learning_rate)
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps)

    def init(params):
        return AdaMaxState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, AdaMaxState)
        check_trees(grads, state.mu)
        count = increment(state.step)
        eta = value_at(learning_rate, state.step)
        c1 = one_minus_power(b1, count)

        def rule(g, m, u, eta, c1):
            m = b1 * m + (1 - b1) * g
            u = jnp.maximum(b2 * u, jnp.abs(g) + eps)
            return jnp.where(u > 0, -eta * (m / c1) / u, 0.0), m, u

        updates, mu, nu = each(rule, grads, (state.mu, state.nu), scalars=(eta, c1))
        return updates, AdaMaxState(count, mu, nu)

    return GradientTransformation(init, update)


def nadam(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    momentum_decay: float | None = None,
) -> GradientTransformation:
    r"""Adam with Nesterov's momentum (Dozat 2016, algorithm 2).

        mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ,   vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²
        m̄ₜ = μₜ₊₁ mₜ / (1 − ∏ₖ₌₁ᵗ⁺¹ μₖ) + (1 − μₜ) gₜ / (1 − ∏ₖ₌₁ᵗ μₖ)
        θₜ = θₜ₋₁ − η m̄ₜ / (√(vₜ / (1 − β₂ᵗ) + ε₀) + ε)

    learning_rate: η, a number or a schedule. b1, b2, eps, eps_root: β₁, β₂, ε, ε₀ as in `adam`.
    momentum_decay: None keeps μₜ = β₁ (optax). ψ is the warm-up of the paper and of PyTorch,
        μₜ = β₁ (1 − ½ · 0.96^(ψt)), with ψ = 0.004 in both (1 in Keras).
    The paper multiplies v̂ by β₂ once more; neither optax nor PyTorch does, nor this.
    """
    check_rate(learning_rate=learning_rate)
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps, eps_root=eps_root)
    if momentum_decay is not None:
        check_not_negative(momentum_decay=momentum_decay)

    def momenta(count, product):
        """μₜ, μₜ₊₁, 1 − ∏μ up to t, 1 − ∏μ up to t + 1 and ∏μ up to t."""
        if momentum_decay is None:
            now, following = one_minus_power(b1, count), one_minus_power(b1, count + 1)
            return b1, b1, now, following, power(b1, count)
        t = real(count)
        mu, mu_next = (
            b1 * (1 - 0.5 * 0.96 ** (momentum_decay * time)).astype(product.dtype)
            for time in (t, t + 1)
        )
        product = product * mu
        return mu, mu_next, 1 - product, 1 - product * mu_next, product

    def init(params):
        return NAdamState(zero_count(), zeros_like(params), zeros_like(params), jnp.ones((), float))

    def update(grads, state, params=None):
        check_state(state, NAdamState)
        check_trees(grads, state.mu)
        count = increment(state.step)
        eta = value_at(learning_rate, state.step)
        mu_t, mu_next, now, following, product = momenta(count, state.mu_product)
        c2 = one_minus_power(b2, count)

        def rule(g, m, v, eta, mu_t, mu_next, now, following, c2):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            m_bar = mu_next * (m / following) + (1 - mu_t) * (g / now)
            return -eta * m_bar / (jnp.sqrt(v / c2 + eps_root) + eps), m, v

        updates, mu, nu = each(
            rule,
            grads,
            (state.mu, state.nu),
            scalars=(eta, mu_t, mu_next, now, following, c2),
        )
        return updates, NAdamState(count, mu, nu, product.astype(state.mu_product.dtype))

    return GradientTransformation(init, update)


def lion(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: Rate = 1e-3,
) -> GradientTransformation:
    r"""Lion (Chen et al. 2023, algorithm 2): the sign of a momentum.

        cₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ
        θₜ = θₜ₋₁ − η (sign cₜ + λ θₜ₋₁)
        mₜ = β₂ mₜ₋₁ + (1 − β₂) gₜ

    learning_rate: η, a number or a schedule. b1, b2: β₁, β₂ in [0, 1).
    weight_decay: λ ≥ 0; 1e-3 as optax, 0 in the authors' code (with λ = 0 the parameters may be
    left out of `update`). sign 0 = 0.
    """
    check_rate(learning_rate=learning_rate, weight_decay=weight_decay)
    check_decay(b1=b1, b2=b2)
    decays = may_decay(weight_decay)

    def init(params):
        return LionState(zero_count(), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, LionState)
        check_trees(grads, state.mu)
        if decays:
            check_params("lion (with weight decay)", grads, params)
        eta = value_at(learning_rate, state.step)
        lam = value_at(weight_decay, state.step)

        def rule(g, m, p, eta, lam):
            c = b1 * m + (1 - b1) * g
            m = b2 * m + (1 - b2) * g
            return -eta * (jnp.sign(c) + lam * p if decays else jnp.sign(c)), m

        updates, mu = each(rule, grads, (state.mu,), params if decays else None, scalars=(eta, lam))
        return updates, LionState(increment(state.step), mu)

    return GradientTransformation(init, update)
