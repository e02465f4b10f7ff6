"""The derivative of the final loss with respect to the learning rate, through every step, by hand.

After K steps θ_K depends on η; forward mode carries dθ/dη along, reverse mode keeps the
parameters of all steps and walks back. `objective` has `value`, `gradient` and `hvp`
(the Hessian times a vector), such as `handgrad.manual.descent.Objective`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from handgrad.manual.optimizers.core import check_decay, check_not_negative, one_minus_power
from handgrad.manual.shapes import floating, number, whole

__all__ = [
    "adam_hypergradient_forward",
    "adam_hypergradient_reverse",
    "sgd_hypergradient_forward",
    "sgd_hypergradient_reverse",
]


def sgd_hypergradient_forward(objective: Any, params: Any, learning_rate: Any, *, steps: int):
    r"""L = f(θ_K) and dL/dη for θₖ₊₁ = θₖ − η gₖ, in forward mode, with θ̇ = dθ/dη:

        θ̇₀ = 0,   θ̇ₖ₊₁ = θ̇ₖ − gₖ − η Hₖ θ̇ₖ,   dL/dη = ∇f(θ_K) · θ̇_K

    objective: see above. params: a tree, θ₀. learning_rate: η, a scalar. steps: K.
    Returns (L, dL/dη), two scalars. Memory does not grow with K.
    Source: Franceschi et al. (2017), "Forward and reverse gradient-based hyperparameter
    optimization".
    """
    steps = whole("sgd_hypergradient_forward", least=0, steps=steps)
    gradient, hvp, w = _flat("sgd_hypergradient_forward", objective, params)
    learning_rate = _rate("sgd_hypergradient_forward", learning_rate, w)

    def step(carry, _):
        w, dw = carry
        g, dg = gradient(w), hvp(w, dw)
        return (w - learning_rate * g, dw - g - learning_rate * dg), None

    (w, dw), _ = jax.lax.scan(step, (w, jnp.zeros_like(w)), length=steps)
    return _value(objective, params, w), jnp.dot(gradient(w), dw)


def sgd_hypergradient_reverse(objective: Any, params: Any, learning_rate: Any, *, steps: int):
    r"""L = f(θ_K) and dL/dη for θₖ₊₁ = θₖ − η gₖ, in reverse mode, with θ̄ = dL/dθ:

        θ̄_K = ∇f(θ_K);   k = K−1 … 0:   η̄ ← η̄ − gₖ · θ̄ₖ₊₁,   θ̄ₖ = θ̄ₖ₊₁ − η Hₖ θ̄ₖ₊₁

    Arguments and result as in `sgd_hypergradient_forward`. All θₖ are kept.
    Source: Maclaurin, Duvenaud and Adams (2015), "Gradient-based hyperparameter optimization
    through reversible learning", algorithm 2.
    """
    steps = whole("sgd_hypergradient_reverse", least=0, steps=steps)
    gradient, hvp, w = _flat("sgd_hypergradient_reverse", objective, params)
    learning_rate = _rate("sgd_hypergradient_reverse", learning_rate, w)

    def forward(w, _):
        return w - learning_rate * gradient(w), w

    def backward(carry, w):
        lam, rate_bar = carry
        rate_bar = rate_bar - jnp.dot(gradient(w), lam)
        return (lam - learning_rate * hvp(w, lam), rate_bar), None

    w, path = jax.lax.scan(forward, w, length=steps)
    start = gradient(w), jnp.zeros((), w.dtype)
    (_, rate_bar), _ = jax.lax.scan(backward, start, path, reverse=True)
    return _value(objective, params, w), rate_bar


def adam_hypergradient_forward(
    objective: Any,
    params: Any,
    learning_rate: Any,
    *,
    steps: int,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
):
    r"""L = f(θ_K) and dL/dη through K steps of Adam, in forward mode. Each step, with ġ = H θ̇:

        m = β₁m + (1−β₁)g              ṁ = β₁ṁ + (1−β₁)ġ
        v = β₂v + (1−β₂)g²             v̇ = β₂v̇ + 2(1−β₂) g ∘ ġ
        r = √(v/(1−β₂ᵗ))               ṙ = v̇ / (2r(1−β₂ᵗ))
        u = m/(1−β₁ᵗ) / (r + ε)        u̇ = (ṁ/(1−β₁ᵗ) − u ∘ ṙ) / (r + ε)
        θ = θ − ηu                     θ̇ = θ̇ − u − ηu̇

    An entry whose gradients were all zero has r = 0, where √ has no derivative: ṙ counts as 0.
    Arguments and result as in `sgd_hypergradient_forward`; b1, b2, eps as in `adam`.
    """
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps)
    steps = whole("adam_hypergradient_forward", least=0, steps=steps)
    gradient, hvp, w = _flat("adam_hypergradient_forward", objective, params)
    learning_rate = _rate("adam_hypergradient_forward", learning_rate, w)

    def step(carry, t):
        (w, m, v), (dw, dm, dv) = carry
        c1, c2 = (one_minus_power(b, t).astype(w.dtype) for b in (b1, b2))
        g, dg = gradient(w), hvp(w, dw)
        m, dm = b1 * m + (1 - b1) * g, b1 * dm + (1 - b1) * dg
        v, dv = b2 * v + (1 - b2) * g * g, b2 * dv + 2 * (1 - b2) * g * dg
        r = jnp.sqrt(v / c2)
        dr = dv * _half_inverse(r) / c2
        u = m / c1 / (r + eps)
        du = (dm / c1 - u * dr) / (r + eps)
        w, dw = w - learning_rate * u, dw - u - learning_rate * du
        return ((w, m, v), (dw, dm, dv)), None

    zero = jnp.zeros_like(w)
    start = ((w, zero, zero), (zero, zero, zero))
    ((w, _, _), (dw, _, _)), _ = jax.lax.scan(step, start, jnp.arange(1, steps + 1))
    return _value(objective, params, w), jnp.dot(gradient(w), dw)


def adam_hypergradient_reverse(
    objective: Any,
    params: Any,
    learning_rate: Any,
    *,
    steps: int,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
):
    r"""L = f(θ_K) and dL/dη through K steps of Adam, in reverse mode.

    The lines of `adam_hypergradient_forward` answered from the last to the first:

        η̄ ← η̄ − u · θ̄,            ū = −η θ̄
        m̄ ← m̄ + ū / ((r+ε)(1−β₁ᵗ)),   r̄ = −ū ∘ u / (r+ε)
        v̄ ← v̄ + r̄ / (2r(1−β₂ᵗ))
        ḡ = (1−β₁) m̄ + 2(1−β₂) g ∘ v̄
        m̄ ← β₁ m̄,   v̄ ← β₂ v̄,   θ̄ ← θ̄ + H ḡ

    Arguments and result as in `adam_hypergradient_forward`. θ, m and v of all steps are kept.
    """
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps)
    steps = whole("adam_hypergradient_reverse", least=0, steps=steps)
    gradient, hvp, w = _flat("adam_hypergradient_reverse", objective, params)
    learning_rate = _rate("adam_hypergradient_reverse", learning_rate, w)

    def forward(carry, t):
        before, m, v = carry
        c1, c2 = (one_minus_power(b, t).astype(before.dtype) for b in (b1, b2))
        g = gradient(before)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        r = jnp.sqrt(v / c2)
        w = before - learning_rate * (m / c1 / (r + eps))
        return (w, m, v), (before, m, v, t)

    def backward(carry, kept):
        w_bar, m_bar, v_bar, rate_bar = carry
        w, m, v, t = kept
        c1, c2 = (one_minus_power(b, t).astype(w.dtype) for b in (b1, b2))
        g, r = gradient(w), jnp.sqrt(v / c2)
        u = m / c1 / (r + eps)
        rate_bar = rate_bar - jnp.dot(u, w_bar)
        u_bar = -learning_rate * w_bar
        m_bar = m_bar + u_bar / ((r + eps) * c1)
        r_bar = -u_bar * u / (r + eps)
        v_bar = v_bar + r_bar * _half_inverse(r) / c2
        g_bar = (1 - b1) * m_bar + 2 * (1 - b2) * g * v_bar
        return (w_bar + hvp(w, g_bar), b1 * m_bar, b2 * v_bar, rate_bar), None

    zero = jnp.zeros_like(w)
    (w, _, _), path = jax.lax.scan(forward, (w, zero, zero), jnp.arange(1, steps + 1))
    start = gradient(w), zero, zero, jnp.zeros((), w.dtype)
    (_, _, _, rate_bar), _ = jax.lax.scan(backward, start, path, reverse=True)
    return _value(objective, params, w), rate_bar


def _half_inverse(r):
    """1/(2r), and 0 where r = 0."""
    return jnp.where(r > 0, 0.5 / jnp.where(r > 0, r, 1.0), 0.0)


def _flat(name, objective, params):
    """Gradient and Hessian times vector on one vector, and that vector."""
    w, unravel = ravel_pytree(params)
    floating(name, params=w)

    def gradient(w):
        return ravel_pytree(objective.gradient(unravel(w)))[0]

    def hvp(w, v):
        return ravel_pytree(objective.hvp(unravel(w), unravel(v)))[0]

    return gradient, hvp, w


def _rate(name, learning_rate, w):
    """η in the dtype of θ, which it would change otherwise from step to step."""
    number(name, learning_rate=learning_rate)
    return jnp.asarray(learning_rate, w.dtype)


def _value(objective, params, w):
    return objective.value(ravel_pytree(params)[1](w))
