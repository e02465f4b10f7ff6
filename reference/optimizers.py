"""The optimisers of `handgrad.manual.optimizers`, out of optax: same names, same arguments.

Where optax has the method, its own constructor or its own parts are given. An option that optax
lacks (a paper's or PyTorch's setting) is the plain formula, written in `_plain`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from handgrad.reference.schedules import (
    constant_schedule,
    cosine_schedule,
    exponential_schedule,
    linear_one_cycle_schedule,
    noam_schedule,
    one_cycle_schedule,
    relative_step_schedule,
    step_schedule,
)

__all__ = [
    "GradientTransformation",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "apply_updates",
    "chain",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "constant_schedule",
    "cosine_schedule",
    "exponential_schedule",
    "guard",
    "l2_gradient",
    "lamb",
    "linear_one_cycle_schedule",
    "lion",
    "momentum",
    "muon",
    "nadam",
    "nesterov",
    "noam_schedule",
    "one_cycle_schedule",
    "orthogonalize",
    "proximal_sgd",
    "radam",
    "relative_step_schedule",
    "rmsprop",
    "sgd",
    "sgdw",
    "step_schedule",
]

GradientTransformation = optax.GradientTransformation
apply_updates = optax.apply_updates
chain = optax.chain


def sgd(learning_rate):
    return optax.sgd(learning_rate)


def momentum(learning_rate, decay=0.9, *, rate_inside=False):
    return _trace(learning_rate, decay, rate_inside, nesterov=False)


def nesterov(learning_rate, decay=0.9, *, rate_inside=False):
    return _trace(learning_rate, decay, rate_inside, nesterov=True)


def _trace(learning_rate, decay, rate_inside, *, nesterov):
    if not rate_inside:
        return optax.sgd(learning_rate, decay, nesterov)
    return optax.chain(
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.trace(decay, nesterov),
        optax.scale(-1.0),
    )


def sgdw(learning_rate, weight_decay=1e-4, momentum=0.0, *, decoupled=True):
    parts = [optax.trace(momentum), optax.add_decayed_weights(weight_decay)]
    return optax.chain(
        *(parts if decoupled else reversed(parts)), optax.scale_by_learning_rate(learning_rate)
    )


def proximal_sgd(learning_rate, l1):
    """By Moreau: the prox of λ‖·‖₁ is what the projection on the box [−λ, λ] leaves."""

    def direction(g, t, p):
        eta: Any = learning_rate(t - 1) if callable(learning_rate) else learning_rate
        z = p - eta * g
        box = optax.projections.projection_box(z, -eta * l1, eta * l1)
        return (z - box) - p

    return _plain(direction)


def adagrad(learning_rate, initial_accumulator_value=0.1, eps=1e-7, *, eps_in_sqrt=True):
    if eps_in_sqrt:
        return optax.adagrad(learning_rate, initial_accumulator_value, eps)

    def direction(g, t, p, sum_of_squares):
        total = sum_of_squares + g**2
        return jnp.where(total > 0, g / (jnp.sqrt(total) + eps), 0), total

    return _plain(
        direction,
        sum_of_squares=lambda p: jnp.full_like(p, initial_accumulator_value),
        learning_rate=learning_rate,
    )


def rmsprop(
    learning_rate,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    centered=False,
    momentum=None,
    nesterov=False,
    bias_correction=False,
    *,
    rate_inside=True,
):
    if rate_inside or momentum is None:
        return optax.rmsprop(
            learning_rate,
            decay,
            eps,
            initial_scale,
            eps_in_sqrt,
            centered,
            momentum,
            nesterov,
            bias_correction,
        )
    scale = optax.scale_by_stddev if centered else optax.scale_by_rms
    return optax.chain(
        scale(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        optax.trace(momentum, nesterov),
        optax.scale_by_learning_rate(learning_rate),
    )


def adadelta(learning_rate=1.0, rho=0.9, eps=1e-6):
    return optax.adadelta(learning_rate, rho, eps)


def adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    return optax.adam(learning_rate, b1, b2, eps, eps_root)


def adamw(
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    weight_decay=1e-4,
    *,
    scale_decay=True,
):
    if scale_decay:
        return optax.adamw(learning_rate, b1, b2, eps, eps_root, weight_decay=weight_decay)
    return optax.chain(
        optax.scale_by_adam(b1, b2, eps, eps_root),
        optax.scale_by_learning_rate(learning_rate, flip_sign=False),
        optax.add_decayed_weights(weight_decay),
        optax.scale(-1.0),
    )


def amsgrad(
    learning_rate,
    b1=0.9,
    b2=0.999,
    eps=1e-8,
    eps_root=0.0,
    bias_correction_mu=True,
    bias_correction_nu=True,
):
    if bias_correction_nu != "after":
        return optax.amsgrad(
            learning_rate,
            b1,
            b2,
            eps,
            eps_root,
            bias_correction_mu=bias_correction_mu,
            bias_correction_nu=bias_correction_nu,
        )

    def direction(g, t, p, mu, nu, nu_max):
        mu, nu = (1 - b1) * g + b1 * mu, (1 - b2) * g**2 + b2 * nu
        nu_max = jnp.maximum(nu_max, nu)
        mu_hat = mu / (1 - b1**t) if bias_correction_mu else mu
        return mu_hat / (jnp.sqrt(nu_max / (1 - b2**t) + eps_root) + eps), mu, nu, nu_max

    zeros = jnp.zeros_like
    return _plain(direction, mu=zeros, nu=zeros, nu_max=zeros, learning_rate=learning_rate)


def adamax(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    return optax.adamax(learning_rate, b1, b2, eps)


def nadam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, *, momentum_decay=None):
    if momentum_decay is None:
        return optax.nadam(learning_rate, b1, b2, eps, eps_root)

    def at(t):
        return b1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def direction(g, t, p, mu, nu, mu_product):
        mu, nu = (1 - b1) * g + b1 * mu, (1 - b2) * g**2 + b2 * nu
        product = mu_product * at(t)
        ahead = at(t + 1) * mu / (1 - product * at(t + 1)) + (1 - at(t)) * g / (1 - product)
        return ahead / (jnp.sqrt(nu / (1 - b2**t) + eps_root) + eps), mu, nu, product

    return _plain(
        direction,
        mu=jnp.zeros_like,
        nu=jnp.zeros_like,
        mu_product=jnp.ones_like,
        learning_rate=learning_rate,
    )


def radam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=5.0):
    return optax.radam(learning_rate, b1, b2, eps, eps_root, threshold)


def lion(learning_rate, b1=0.9, b2=0.99, weight_decay=1e-3):
    return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay)


def lamb(learning_rate, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, weight_decay=0.0):
    return optax.lamb(learning_rate, b1, b2, eps, eps_root, weight_decay)


def adafactor(
    learning_rate=None,
    min_dim_size_to_factor=128,
    decay_rate=0.8,
    decay_offset=0,
    multiply_by_parameter_scale=True,
    clipping_threshold=1.0,
    momentum=None,
    weight_decay_rate=None,
    eps=1e-30,
    factored=True,
):
    """optax.adafactor part by part, its decay 1 − t^(−0.8) in the default precision.

    `optax.adafactor` itself computes that decay in float32 whatever the parameters are.
    """

    def decay(step, exponent):
        return 1.0 - jnp.asarray(step + 1, jnp.result_type(float)) ** -exponent

    parts: list = [
        optax.scale_by_factored_rms(
            factored, decay_rate, decay_offset, min_dim_size_to_factor, eps, decay
        )
    ]
    if clipping_threshold is not None:
        parts.append(optax.clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        parts.append(optax.scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        parts.append(optax.scale_by_param_block_rms())
    if momentum is not None:
        parts.append(optax.ema(momentum, debias=False))
    if weight_decay_rate is not None:
        parts.append(optax.add_decayed_weights(weight_decay_rate))
    return optax.chain(*parts, optax.scale(-1.0))


def muon(
    learning_rate,
    ns_coeffs=(3.4445, -4.7750, 2.0315),
    ns_steps=5,
    beta=0.95,
    eps=1e-8,
    weight_decay=0.0,
    *,
    nesterov=True,
    adam_b1=0.9,
    adam_b2=0.999,
    adam_eps_root=0.0,
    adam_weight_decay=0.0,
    adam_learning_rate=None,
    consistent_rms=None,
    bias_correction=True,
):
    if bias_correction:
        return optax.contrib.muon(
            learning_rate,
            ns_coeffs,
            ns_steps,
            beta,
            eps,
            weight_decay,
            nesterov=nesterov,
            adam_b1=adam_b1,
            adam_b2=adam_b2,
            adam_eps_root=adam_eps_root,
            adam_weight_decay=adam_weight_decay,
            adam_learning_rate=adam_learning_rate,
            consistent_rms=consistent_rms,
        )

    def matrix(g):
        fan_in, fan_out = g.shape
        scale = (
            jnp.sqrt(jnp.maximum(1.0, fan_out / fan_in))
            if consistent_rms is None
            else jnp.sqrt(max(g.shape)) * consistent_rms
        )
        return scale * orthogonalize(g, ns_coeffs, ns_steps, eps)

    mean = optax.chain(optax.scale(1 - beta), optax.trace(beta, nesterov))
    adam_rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    return optax.partition(
        {
            "muon": optax.chain(
                mean,
                optax.stateless_with_tree_map(lambda g, _: matrix(g)),
                optax.add_decayed_weights(weight_decay),
                optax.scale_by_learning_rate(learning_rate),
            ),
            "adam": optax.adamw(
                adam_rate,
                adam_b1,
                adam_b2,
                eps,
                adam_eps_root,
                weight_decay=adam_weight_decay,
                nesterov=nesterov,
            ),
        },
        lambda params: jax.tree.map(lambda p: "muon" if p.ndim == 2 else "adam", params),
    )


def orthogonalize(matrix, ns_coeffs=(3.4445, -4.7750, 2.0315), ns_steps=5, eps=1e-8) -> Any:
    """The step of optax's Muon without momentum and without its factor."""
    transformation = optax.contrib.scale_by_muon(
        ns_coeffs, ns_steps, beta=0.0, eps=eps, nesterov=False
    )
    return transformation.update(matrix, transformation.init(matrix))[0]


def clip_by_value(max_delta):
    return optax.clip(max_delta)


def clip_by_norm(max_norm):
    """optax clips the norm of a whole tree: each leaf is given to it as a tree of its own."""
    clip = optax.clip_by_global_norm(max_norm)

    def alone(g, _) -> Any:
        return clip.update(g, clip.init(g))[0]

    return optax.stateless_with_tree_map(alone)


def clip_by_global_norm(max_norm):
    return optax.clip_by_global_norm(max_norm)


def l2_gradient(weight_decay):
    return optax.add_decayed_weights(weight_decay)


def guard(inner, *, nonfinite="raise"):
    if nonfinite == "skip":
        return optax.apply_if_finite(inner, max_consecutive_errors=2**31 - 1)
    if nonfinite == "pass":
        return inner
    raise ValueError("optax has no optimiser that raises; nonfinite must be 'skip' or 'pass' here")


def _plain(direction: Callable, learning_rate: Any = None, **fields: Callable) -> Any:
    """An optimiser of `direction(g, t, p, **state) -> (direction, *state)` at each leaf.

    The state is a dict of one tree a field (and the count). With a rate the parameters go
    against the direction, without they follow it.
    """

    def init(params):
        made = {name: jax.tree.map(make, params) for name, make in fields.items()}
        return {"count": jnp.zeros((), jnp.int32)} | made

    def update(updates, state, params=None):
        grads, t = updates, state["count"] + 1
        params = grads if params is None else params
        made = jax.tree.map(
            lambda g, p, *old: direction(g, t, p, *old) if old else (direction(g, t, p),),
            grads,
            params,
            *(state[name] for name in fields),
        )
        trees = [
            jax.tree.map(lambda _, row, i=i: row[i], grads, made) for i in range(1 + len(fields))
        ]
        scale = optax.identity()
        if learning_rate is not None:
            eta: Any = learning_rate(state["count"]) if callable(learning_rate) else learning_rate
            scale = optax.scale(-eta)
        scaled, _ = scale.update(trees[0], scale.init(grads))
        return scaled, {"count": t} | dict(zip(fields, trees[1:], strict=True))

    return optax.GradientTransformation(init, update)
