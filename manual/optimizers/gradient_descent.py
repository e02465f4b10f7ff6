"""Descent along the gradient: plain, with momentum, with weight decay, with an L1 penalty."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from handgrad.manual.optimizers.core import (
    GradientTransformation,
    Rate,
    check_decay,
    check_params,
    check_rate,
    check_state,
    check_trees,
    each,
    increment,
    value_at,
    zero_count,
    zeros_like,
)

__all__ = ["momentum", "nesterov", "proximal_sgd", "sgd", "sgdw"]


class CountState(NamedTuple):
    """t, the number of steps done (a schedule asks for it)."""

    step: jax.Array


class TraceState(NamedTuple):
    """t and the velocity v."""

    step: jax.Array
    trace: Any


def sgd(learning_rate: Rate) -> GradientTransformation:
    r"""Gradient descent (Cauchy 1847; Robbins and Monro 1951).

        θₜ = θₜ₋₁ − η gₜ

    learning_rate: η ≥ 0, or a schedule.
    Source: "Fundamentals of deep learning" (ch. 3), eqs. 3.11–3.12; "The Math Behind Deep
    Learning" (ch. 14), 14.168.
    """
    check_rate(learning_rate=learning_rate)

    def init(params):
        return CountState(zero_count())

    def update(grads, state, params=None):
        check_state(state, CountState)
        if params is not None:
            check_trees(grads, params)
        eta = value_at(learning_rate, state.step)

        def rule(g, eta):
            return -eta * g

        return each(rule, grads, scalars=(eta,)), CountState(increment(state.step))

    return GradientTransformation(init, update)


def momentum(
    learning_rate: Rate, decay: float = 0.9, *, rate_inside: bool = False
) -> GradientTransformation:
    r"""The heavy ball (Polyak 1964).

        vₜ = β vₜ₋₁ + gₜ
        θₜ = θₜ₋₁ − η vₜ

    learning_rate: η. decay: β in [0, 1).
    rate_inside: False is the form of optax and PyTorch, above. True is the form of Sutskever et
        al. (2013), vₜ = β vₜ₋₁ + ηₜ gₜ and θₜ = θₜ₋₁ − vₜ. The two differ only under a schedule:
        there the velocity keeps the rates that its gradients had.
    Polyak's own form, θₜ₊₁ = θₜ − η gₜ + β(θₜ − θₜ₋₁), is the second.
    """
    return _heavy_ball(learning_rate, decay, rate_inside, lambda b, g, v: v)


def nesterov(
    learning_rate: Rate, decay: float = 0.9, *, rate_inside: bool = False
) -> GradientTransformation:
    r"""Nesterov's accelerated gradient (1983), in the variables of Bengio et al. (2012).

        vₜ = β vₜ₋₁ + gₜ
        θₜ = θₜ₋₁ − η (gₜ + β vₜ)

    Here θ is the point looked ahead to: with φₜ = θₜ + ηβ vₜ these are the classical
    vₜ = β vₜ₋₁ + ∇f(φₜ₋₁ − ηβ vₜ₋₁) and φₜ = φₜ₋₁ − η vₜ (Sutskever et al. 2013).

    learning_rate, decay, rate_inside: as in `momentum`.
    """
    return _heavy_ball(learning_rate, decay, rate_inside, lambda b, g, v: g + b * v)


def _heavy_ball(learning_rate, decay, rate_inside, direction) -> GradientTransformation:
    check_rate(learning_rate=learning_rate)
    check_decay(decay=decay)

    def init(params):
        return TraceState(zero_count(), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, TraceState)
        check_trees(grads, state.trace)
        eta = value_at(learning_rate, state.step)

        def rule(g, v, eta):
            if rate_inside:
                v = decay * v + eta * g
                return -direction(decay, eta * g, v), v
            v = decay * v + g
            return -eta * direction(decay, g, v), v

        updates, trace = each(rule, grads, (state.trace,), scalars=(eta,))
        return updates, TraceState(increment(state.step), trace)

    return GradientTransformation(init, update)


def sgdw(
    learning_rate: Rate,
    weight_decay: float = 1e-4,
    momentum: float = 0.0,
    *,
    decoupled: bool = True,
) -> GradientTransformation:
    r"""Descent with weight decay (Loshchilov and Hutter 2019, algorithm 1).

        L2, coupled:   gₜ ← gₜ + λ θₜ₋₁;   vₜ = β vₜ₋₁ + gₜ;   θₜ = θₜ₋₁ − η vₜ
        decoupled:                         vₜ = β vₜ₋₁ + gₜ;   θₜ = θₜ₋₁ − η (vₜ + λ θₜ₋₁)

    Coupled is the gradient of J + ½λ‖θ‖² ("Backpropagation and optimisers" (blog), section 5.1,
    its formula with the ½). With β = 0 the two are the same; with momentum the coupled decay is
    remembered by the velocity, and under Adam it is divided by √v̂: see `adamw`.

    learning_rate: η. weight_decay: λ ≥ 0. momentum: β in [0, 1).
    """
    check_rate(learning_rate=learning_rate, weight_decay=weight_decay)
    check_decay(momentum=momentum)

    def init(params):
        return TraceState(zero_count(), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, TraceState)
        check_params("sgdw", grads, params)
        check_trees(grads, state.trace)
        eta = value_at(learning_rate, state.step)
        lam = value_at(weight_decay, state.step)

        def rule(g, v, p, eta, lam):
            if decoupled:
                v = momentum * v + g
                return -eta * (v + lam * p), v
            v = momentum * v + (g + lam * p)
            return -eta * v, v

        updates, trace = each(rule, grads, (state.trace,), params, scalars=(eta, lam))
        return updates, TraceState(increment(state.step), trace)

    return GradientTransformation(init, update)


def proximal_sgd(learning_rate: Rate, l1: float) -> GradientTransformation:
    r"""Descent with an L1 penalty by its proximal step (ISTA; Daubechies et al. 2004).

        z = θₜ₋₁ − η gₜ
        θₜ = argmin ½‖θ − z‖² + ηλ‖θ‖₁ = max(|z| − ηλ, 0) with the sign of z

    The soft threshold lands on 0 exactly, where the subgradient step θ − η(g + λ sign θ)
    oscillates around it. "Backpropagation and optimisers" (blog), section 5.2, calls the
    penalty "weight clipping"; clipping to [−c, c] is another operation.

    learning_rate: η. l1: λ ≥ 0.
    """
    check_rate(learning_rate=learning_rate, l1=l1)

    def init(params):
        return CountState(zero_count())

    def update(grads, state, params=None):
        check_state(state, CountState)
        check_params("proximal_sgd", grads, params)
        eta = value_at(learning_rate, state.step)

        def rule(g, p, eta):
            z = p - eta * g
            return jnp.copysign(jnp.maximum(jnp.abs(z) - eta * l1, 0.0), z) - p

        updates = each(rule, grads, (), params, scalars=(eta,))
        return updates, CountState(increment(state.step))

    return GradientTransformation(init, update)
