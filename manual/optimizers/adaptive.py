"""A rate for every parameter, out of its squared gradients: AdaGrad, RMSProp, AdaDelta."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.manual.optimizers.core import (
    GradientTransformation,
    Rate,
    check_decay,
    check_not_negative,
    check_rate,
    check_state,
    check_trees,
    each,
    full_like,
    increment,
    one_minus_power,
    value_at,
    zero_count,
    zeros_like,
)

__all__ = ["adadelta", "adagrad", "rmsprop"]


class AdaGradState(NamedTuple):
    """t and G, the sum of the squared gradients."""

    step: jax.Array
    sum_of_squares: Any


class RmsPropState(NamedTuple):
    """t, the means m of the gradients (centred form) and v of their squares, the velocity."""

    step: jax.Array
    mu: Any
    nu: Any
    trace: Any


class AdaDeltaState(NamedTuple):
    """t, E[g²] and E[Δ²]."""

    step: jax.Array
    e_g: Any
    e_x: Any


def adagrad(
    learning_rate: Rate,
    initial_accumulator_value: float = 0.1,
    eps: float = 1e-7,
    *,
    eps_in_sqrt: bool = True,
) -> GradientTransformation:
    r"""AdaGrad (Duchi, Hazan and Singer 2011).

        Gₜ = Gₜ₋₁ + gₜ²
        θₜ = θₜ₋₁ − η gₜ / √(Gₜ + ε)

    learning_rate: η, constant: G alone shrinks the steps. Source: "Backpropagation and
    optimisers" (blog), section 7, whose words ("the sum of the reciprocals of the root mean
    squares", "η is halved after every step") contradict its own formula: see
    `optimizers.printed`.
    initial_accumulator_value: G₀; 0.1 as optax, 0 in the paper and in PyTorch. With G₀ = 0 the
        first step is ±η whatever the gradient.
    eps: ε; 1e-7 as optax, 1e-10 in PyTorch.
    eps_in_sqrt: True is √(G + ε), optax and the blog; False is √G + ε, the paper and PyTorch.
    A parameter that never had a gradient (G = 0) does not move.
    """
    check_rate(learning_rate=learning_rate)
    check_not_negative(initial_accumulator_value=initial_accumulator_value, eps=eps)

    def init(params):
        return AdaGradState(zero_count(), full_like(params, initial_accumulator_value))

    def update(grads, state, params=None):
        check_state(state, AdaGradState)
        check_trees(grads, state.sum_of_squares)
        eta = value_at(learning_rate, state.step)

        def rule(g, G, eta):
            G = G + g * g
            root = jnp.sqrt(G + eps) if eps_in_sqrt else jnp.sqrt(G) + eps
            return -eta * jnp.where(G > 0, g / root, 0.0), G

        updates, total = each(rule, grads, (state.sum_of_squares,), scalars=(eta,))
        return updates, AdaGradState(increment(state.step), total)

    return GradientTransformation(init, update)


def rmsprop(
    learning_rate: Rate,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    rate_inside: bool = True,
) -> GradientTransformation:
    r"""RMSProp (Tieleman and Hinton 2012, lecture 6.5); centred: Graves (2013), eqs. 38–45.

        vₜ = ρ vₜ₋₁ + (1 − ρ) gₜ²
        mₜ = ρ mₜ₋₁ + (1 − ρ) gₜ                     (centred; otherwise m = 0)
        nₜ = gₜ / √(vₜ − mₜ² + ε)
        bₜ = β bₜ₋₁ − η nₜ                            (without momentum β = 0)
        θₜ = θₜ₋₁ + bₜ                                (Nesterov: θₜ₋₁ − η nₜ + β bₜ)

    learning_rate: η. decay: ρ in [0, 1); 0.9 in the lecture and optax, 0.99 in PyTorch.
    eps, eps_in_sqrt: √(v + ε) as Graves and optax, or √v + ε as PyTorch. The lecture has no ε.
    initial_scale: v₀ (0 everywhere but in early TensorFlow, 1).
    momentum: β in [0, 1), None for none.
    nesterov: the last line, with momentum only. centered: whether m is subtracted.
    bias_correction: m and v over 1 − ρᵗ, off everywhere. Centred, the first variance is then
        g² − g² = 0, and the first step g/√ε.
    rate_inside: True puts η into the velocity as above (Graves, optax); False is PyTorch's
        bₜ = β bₜ₋₁ + nₜ, θₜ = θₜ₋₁ − η bₜ. The two differ only under a schedule.
    A variance vₜ − mₜ² that rounding makes negative counts as 0.

    Source: "Backpropagation and optimisers" (blog), section 8, which divides the square by 2η
    and halves η after every step: see `optimizers.printed`.
    """
    check_rate(learning_rate=learning_rate)
    check_decay(decay=decay)
    check_not_negative(eps=eps, initial_scale=initial_scale)
    if momentum is not None:
        check_decay(momentum=momentum)

    def init(params):
        return RmsPropState(
            zero_count(),
            mu=zeros_like(params) if centered else None,
            nu=full_like(params, initial_scale),
            trace=None if momentum is None else zeros_like(params),
        )

    def update(grads, state, params=None):
        check_state(state, RmsPropState)
        check_trees(grads, state.nu)
        count = increment(state.step)
        eta = value_at(learning_rate, state.step)
        correction = one_minus_power(decay, count) if bias_correction else 1.0

        def rule(g, m, v, b, eta, correction):
            v = decay * v + (1 - decay) * (g * g)
            variance = v / correction
            if centered:
                m = decay * m + (1 - decay) * g
                variance = jnp.maximum(variance - (m / correction) ** 2, 0.0)
            n = g / (jnp.sqrt(variance + eps) if eps_in_sqrt else jnp.sqrt(variance) + eps)
            if momentum is None:
                return -eta * n, m, v, b
            step = -eta * n if rate_inside else n
            b = momentum * b + step
            ahead = step + momentum * b if nesterov else b
            return ahead if rate_inside else -eta * ahead, m, v, b

        updates, mu, nu, trace = each(
            rule, grads, (state.mu, state.nu, state.trace), scalars=(eta, correction)
        )
        return updates, RmsPropState(count, mu, nu, trace)

    return GradientTransformation(init, update)


def adadelta(
    learning_rate: Rate = 1.0, rho: float = 0.9, eps: float = 1e-6
) -> GradientTransformation:
    r"""AdaDelta (Zeiler 2012, algorithm 1).

        E[g²]ₜ = ρ E[g²]ₜ₋₁ + (1 − ρ) gₜ²
        Δₜ = −√(E[Δ²]ₜ₋₁ + ε) / √(E[g²]ₜ + ε) · gₜ
        E[Δ²]ₜ = ρ E[Δ²]ₜ₋₁ + (1 − ρ) Δₜ²
        θₜ = θₜ₋₁ + η Δₜ

    learning_rate: η; 1 is the paper's method, which has none. Without a rate optax forgets the
        minus sign as well and climbs; here the rate is 1 and the step goes downhill.
    rho: ρ in [0, 1); 0.9 as optax and PyTorch, 0.95 in the paper. eps: ε > 0 starts the motion.
    """
    check_rate(learning_rate=learning_rate)
    check_decay(rho=rho)
    check_not_negative(eps=eps)

    def init(params):
        return AdaDeltaState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, AdaDeltaState)
        check_trees(grads, state.e_g)
        eta = value_at(learning_rate, state.step)

        def rule(g, e_g, e_x, eta):
            e_g = rho * e_g + (1 - rho) * (g * g)
            delta = -jnp.sqrt(e_x + eps) / jnp.sqrt(e_g + eps) * g
            e_x = rho * e_x + (1 - rho) * (delta * delta)
            return eta * delta, e_g, e_x

        updates, e_g, e_x = each(rule, grads, (state.e_g, state.e_x), scalars=(eta,))
        return updates, AdaDeltaState(increment(state.step), e_g, e_x)

    return GradientTransformation(init, update)
