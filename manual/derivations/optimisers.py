"""Optimisers: O1 to O6, sections 7–9 of the blog, step by step beside optax."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from handgrad.manual import optimizers
from handgrad.manual.derivation import Derivation
from handgrad.manual.derivations.notation import BLOG, FUNDAMENTALS, compiled
from handgrad.manual.optimizers import printed

STEPS, ETA, EPS, RHO, B1, B2 = 4, 0.1, 1e-8, 0.9, 0.9, 0.999


def path(optimizer: Any) -> Callable[..., Any]:
    """The updates that an optimiser makes of the gradients g, (steps, parameters)."""

    def updates(g):
        params = jnp.zeros_like(g[0])
        state, made = optimizer.init(params), []
        for gradient in g:
            update, state = optimizer.update(gradient, state, params)
            made.append(update)
        return jnp.stack(made)

    return updates


def made_by(optimizer: Any) -> Callable[..., Any]:
    """The same, compiled."""
    return compiled(path(optimizer))


def each_step(rule: Callable[..., Any]) -> Callable[..., Any]:
    """An update rule of t and all gradients up to gₜ, for t = 1, 2, …"""
    return lambda g: np.stack([rule(t, g[:t]) for t in range(1, STEPS + 1)])


def decayed(rho, terms):
    """(1 − ρ) Σ_τ ρ^{t−τ} of the terms up to t."""
    t = len(terms)
    return (1 - rho) * sum(rho ** (t - tau) * terms[tau - 1] for tau in range(1, t + 1))


def adam_rule(power1, power2):
    """η m̂ / (√v̂ + ε) with 1 − βᵗ replaced by what the two functions of t give."""

    def rule(t, g):
        m_hat = decayed(B1, g) / power1(t)
        v_hat = decayed(B2, g**2) / power2(t)
        return -ETA * m_hat / (np.sqrt(v_hat) + EPS)

    return each_step(rule)


GRADIENTS = {"g": (STEPS, 3)}

DERIVATIONS = [
    Derivation(
        "AdaGrad",
        path(optax.adagrad(ETA, initial_accumulator_value=0.0, eps=EPS)),
        sample=GRADIENTS,
        source=BLOG,
        claim="O1",
        ends_in=("optimizers.adagrad",),
    )
    .line(r"\Delta_t = -\frac{\eta}{\sqrt{G_t+\epsilon}}g_t,\; G_t ="
          r" \sum_\tau\frac{1}{\sqrt{g_\tau^2}}",
          made_by(printed.adagrad_reciprocals(ETA, EPS)), source="section 7, step 4",
          wrong="G is not “the sum of the reciprocals of the root mean squares”, it is the sum of "
          "the squares; the square root and the reciprocal are in the formula already")
    .line(r"\Delta_t = -\frac{\eta_t}{\sqrt{G_t+\epsilon}}g_t,\; \eta_t = \eta\,2^{-t+1}",
          made_by(printed.adagrad_halved(ETA, EPS)), source="section 7, step 5",
          wrong="η is not halved after every step: G alone shrinks the steps; halved, the whole "
          "path is at most 2η long")
    .line(r"\Delta_t = -\frac{\eta}{\sqrt{G_t+\epsilon}}g_t,\; G_t = g_t^2",
          each_step(lambda t, g: -ETA * g[-1] / np.sqrt(g[-1] ** 2 + EPS)),
          source="section 7, step 2 (and 8, 9)",
          wrong="“before every iteration the history is set to zero”: then there is none, and "
          "every step is ±η whatever the gradient; it is set to zero once, at the start")
    .line(r"\Delta_t = -\frac{\eta}{\sqrt{G_t+\epsilon}}g_t,\; G_t = \sum_{\tau\le t}g_\tau^2",
          each_step(lambda t, g: -ETA / np.sqrt(sum(gi**2 for gi in g) + EPS) * g[-1]),
          source="section 7, step 4")
    .line(r"= \text{adagrad}",
          made_by(optimizers.adagrad(ETA, initial_accumulator_value=0.0, eps=EPS))),
    Derivation(
        "RMSProp",
        path(optax.rmsprop(ETA, decay=RHO, eps=EPS)),
        sample=GRADIENTS,
        source=BLOG,
        claim="O2",
        ends_in=("optimizers.rmsprop",),
    )
    .line(r"\Delta_t = -\eta\frac{g_t}{\sqrt{v_t+\epsilon}},\; v_t ="
          r" \rho v_{t-1}+(1-\rho)\frac{g_t^2}{2\eta}",
          made_by(printed.rmsprop_over_rate(ETA, RHO, EPS)), source="section 8, step 4",
          wrong="the square of the gradient is not divided by 2η: every step would be √(2η) times "
          "as long")
    .line(r"\Delta_t = -\frac{g_t}{\sqrt{v_t+\epsilon}}\,g_t",
          each_step(lambda t, g: -g[-1] / np.sqrt(decayed(RHO, g**2) + EPS) * g[-1]),
          source="section 8, step 7",
          wrong="g/√(v+ε) is taken “as the new learning rate”: the step is then g²/√(v+ε), which "
          "never goes up, whatever the sign of the gradient; η/√(v+ε) is the rate")
    .line(r"\Delta_t = -\eta_t\frac{g_t}{\sqrt{v_t+\epsilon}},\; \eta_t = \eta\,2^{-t+1}",
          made_by(printed.rmsprop_halved(ETA, RHO, EPS)), source="section 8, step 8",
          wrong="η is not halved after every step")
    .line(r"\Delta_t = -\eta\frac{g_t}{\sqrt{v_t+\epsilon}},\; v_t ="
          r" (1-\rho)\sum_{\tau\le t}\rho^{t-\tau}g_\tau^2",
          each_step(lambda t, g: -ETA * g[-1] / np.sqrt(decayed(RHO, g**2) + EPS)),
          source="section 8")
    .line(r"= \text{rmsprop}", made_by(optimizers.rmsprop(ETA, decay=RHO, eps=EPS))),
    Derivation(
        "Adam",
        path(optax.adam(ETA, b1=B1, b2=B2, eps=EPS)),
        sample=GRADIENTS,
        source=BLOG,
        claim="O3",
        ends_in=("optimizers.adam",),
    )
    .line(r"\hat m_t = \frac{m_t}{1-\beta_1^t},\; \beta_1^t, \beta_2^t \text{ decay linearly in }"
          r" t",
          made_by(printed.adam_linear(ETA, B1, B2, EPS)), source="section 9, step 7",
          wrong="βᵗ is a power: it decays geometrically")
    .line(r"\theta_t = \theta_{t-1} - \frac{\eta_t}{\sqrt{\hat v_t}+\epsilon}\hat m_t,\;"
          r" \eta_t = \eta\,2^{-t+1}",
          made_by(printed.adam_halved(ETA, B1, B2, EPS)), source="section 9, step 8",
          wrong="η is not halved after every step")
    .line(r"m_t = b_1m_{t-1}+(1-b_1)g_t,\; \hat m_t = \frac{m_t}{1-\beta_1^t},\; b_1\ne\beta_1",
          adam_rule(lambda t: 1 - 0.8**t, lambda t: 1 - B2**t), source="section 9, step 6",
          wrong="b and β are introduced as two sets of constants; the correction is one only if "
          "they are the same: here b₁ = 0.9 and β₁ = 0.8")
    .line(r"m_t = (1-\beta_1)\sum_\tau\beta_1^{t-\tau}g_\tau,\; v_t ="
          r" (1-\beta_2)\sum_\tau\beta_2^{t-\tau}g_\tau^2,\; \Delta_t ="
          r" -\eta\frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)}+\epsilon}",
          adam_rule(lambda t: 1 - B1**t, lambda t: 1 - B2**t), source="section 9, step 6")
    .line(r"= \text{adam}", made_by(optimizers.adam(ETA, b1=B1, b2=B2, eps=EPS))),
    Derivation(
        "SGD",
        path(optax.sgd(ETA)),
        sample=GRADIENTS,
        source=FUNDAMENTALS,
        claim="O4",
        ends_in=("optimizers.sgd",),
    )
    .line(r"\Delta_t = -\eta g_t", each_step(lambda t, g: -ETA * g[-1]), source="3.11")
    .line(r"= \text{sgd}", made_by(optimizers.sgd(ETA))),
    Derivation(
        "momentum (heavy ball)",
        path(optax.sgd(ETA, momentum=RHO)),
        sample=GRADIENTS,
        source=BLOG,
        claim="O5",
        ends_in=("optimizers.momentum",),
    )
    .line(r"\Delta_t = -\eta v_t,\; v_t = \sum_{\tau\le t}\beta^{t-\tau}g_\tau",
          each_step(lambda t, g: -ETA * decayed(RHO, g) / (1 - RHO)),
          source="section 9, the momentum variable")
    .line(r"= \text{momentum}", made_by(optimizers.momentum(ETA, RHO))),
    Derivation(
        "Nesterov's momentum",
        path(optax.sgd(ETA, momentum=RHO, nesterov=True)),
        sample=GRADIENTS,
        source="Nesterov (1983); Sutskever et al. (2013)",
        claim="O6",
        ends_in=("optimizers.nesterov",),
    )
    .line(r"\Delta_t = -\eta(g_t+\beta v_t),\; v_t = \sum_{\tau\le t}\beta^{t-\tau}g_\tau",
          each_step(lambda t, g: -ETA * (g[-1] + RHO * decayed(RHO, g) / (1 - RHO))))
    .line(r"= \text{nesterov}", made_by(optimizers.nesterov(ETA, RHO))),
]  # fmt: skip
