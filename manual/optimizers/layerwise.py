"""Optimisers that look at a whole layer: LAMB (its norm), Adafactor (its rows and columns)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.manual.optimizers.core import (
    GradientTransformation,
    Rate,
    check_decay,
    check_floating,
    check_not_negative,
    check_params,
    check_positive,
    check_rate,
    check_state,
    check_trees,
    each,
    increment,
    one_minus_power,
    real,
    value_at,
    zero_count,
    zeros_like,
)

__all__ = ["adafactor", "lamb"]


class LambState(NamedTuple):
    """t, the mean m of the gradients and v of their squares."""

    step: jax.Array
    mu: Any
    nu: Any


class AdafactorState(NamedTuple):
    """t, the row and column means R and C of a factored leaf, V of another one; the momentum."""

    step: jax.Array
    v_row: Any
    v_col: Any
    v: Any
    ema: Any


def lamb(
    learning_rate: Rate,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: Rate = 0.0,
) -> GradientTransformation:
    r"""LAMB (You et al. 2020, algorithm 2), for each leaf (layer):

        m, v, m̂, v̂ as in Adam
        rₜ = m̂ₜ / (√(v̂ₜ + ε₀) + ε) + λ θₜ₋₁
        θₜ = θₜ₋₁ − η φ(‖θₜ₋₁‖) / ‖rₜ‖ · rₜ,   φ(z) = z

    The ratio of the norms counts as 1 where either is zero.
    learning_rate: η, a number or a schedule. b1, b2, eps_root: β₁, β₂, ε₀ as in `adam`.
    eps: 1e-6 as in the paper and in optax. weight_decay: λ; 0 as optax, 0.01 in the paper.
    """
    check_rate(learning_rate=learning_rate, weight_decay=weight_decay)
    check_decay(b1=b1, b2=b2)
    check_not_negative(eps=eps, eps_root=eps_root)

    def init(params):
        return LambState(zero_count(), zeros_like(params), zeros_like(params))

    def update(grads, state, params=None):
        check_state(state, LambState)
        check_params("lamb", grads, params)
        check_trees(grads, state.mu)
        count = increment(state.step)
        eta = value_at(learning_rate, state.step)
        lam = value_at(weight_decay, state.step)
        c1, c2 = one_minus_power(b1, count), one_minus_power(b2, count)

        def rule(g, m, v, p, eta, lam, c1, c2):
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * (g * g)
            r = (m / c1) / (jnp.sqrt(v / c2 + eps_root) + eps) + lam * p
            size, length = jnp.sqrt(jnp.sum(p * p)), jnp.sqrt(jnp.sum(r * r))
            ratio = jnp.where((size > 0) & (length > 0), size / length, 1.0)
            return -eta * ratio * r, m, v

        updates, mu, nu = each(
            rule, grads, (state.mu, state.nu), params, scalars=(eta, lam, c1, c2)
        )
        return updates, LambState(count, mu, nu)

    return GradientTransformation(init, update)


def adafactor(
    learning_rate: Rate | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    weight_decay_rate: Rate | None = None,
    eps: float = 1e-30,
    factored: bool = True,
) -> GradientTransformation:
    r"""Adafactor (Shazeer and Stern 2018, algorithms 4 and 5), for each leaf X of shape n × m:

        β̂ₜ = 1 − t^(−0.8)
        Rₜ = β̂ₜ Rₜ₋₁ + (1 − β̂ₜ) mean over columns of (Gₜ² + ε₁)           n numbers
        Cₜ = β̂ₜ Cₜ₋₁ + (1 − β̂ₜ) mean over rows of (Gₜ² + ε₁)              m numbers
        V̂ₜ = Rₜ Cₜ / mean Rₜ                         (a vector keeps V itself)
        Uₜ = Gₜ / √V̂ₜ,   Ûₜ = Uₜ / max(1, RMS(Uₜ)/d)
        Xₜ = Xₜ₋₁ − max(ε₂, RMS(Xₜ₋₁)) ρₜ Ûₜ − λ Xₜ₋₁,   ε₂ = 1e-3

    With more than two axes the two longest are the rows and columns.

    learning_rate: ρₜ. None is ρ = 1, as optax; the paper's min(1e-2, 1/√t) is
        `relative_step_schedule()`.
    min_dim_size_to_factor: a leaf is factored where its second longest axis is at least as long:
        128 as optax; the paper factors every matrix (2).
    decay_rate, decay_offset: the power 0.8, and a number ≥ 0 taken off t (0 but in fine-tuning,
        where a state comes with its t); what is left counts as 1 at least.
    multiply_by_parameter_scale, clipping_threshold: the factor max(ε₂, RMS(X)); d = 1.
    momentum: β₁ of a mean of the updates, None as in the paper.
    weight_decay_rate: λ, not multiplied by ρ. eps: ε₁.
    """
    if learning_rate is not None:
        check_rate(learning_rate=learning_rate)
    if weight_decay_rate is not None:
        check_rate(weight_decay_rate=weight_decay_rate)
    if momentum is not None:
        check_decay(momentum=momentum)
    if clipping_threshold is not None:
        check_positive(clipping_threshold=clipping_threshold)
    check_positive(decay_rate=decay_rate)
    check_not_negative(
        eps=eps, decay_offset=decay_offset, min_dim_size_to_factor=min_dim_size_to_factor
    )
    if isinstance(min_dim_size_to_factor, Tracer):
        raise TypeError(
            "adafactor: min_dim_size_to_factor is traced; it must be known, since the shapes of "
            "the state depend on it: name it in the static_args of optax.inject_hyperparams"
        )

    def axes(shape):
        """The rows' and the columns' axis (the longest), None where the leaf is not factored."""
        if not factored or len(shape) < 2:
            return None
        *_, row, column = (int(axis) for axis in np.argsort(shape))
        return (row, column) if shape[row] >= min_dim_size_to_factor else None

    def init(params):
        def means(p, which):
            """Zeros of the shape of R (0), C (1) or V (None), or nothing."""
            both = axes(jnp.shape(p))
            if (both is None) != (which is None):
                return None
            return jnp.zeros_like(p) if both is None else jnp.zeros_like(p.sum(both[1 - which]))

        check_floating(params, "parameter")
        rows, columns, full = (
            jax.tree.map(lambda p, which=which: means(p, which), params) for which in (0, 1, None)
        )
        ema = None if momentum is None else zeros_like(params)
        return AdafactorState(zero_count(), rows, columns, full, ema)

    def update(grads, state, params=None):
        check_state(state, AdafactorState)
        check_params("adafactor", grads, params)
        check_trees(state, jax.eval_shape(init, params), "mean")
        count = increment(state.step)
        rho = 1.0 if learning_rate is None else value_at(learning_rate, state.step)
        lam = 0.0 if weight_decay_rate is None else value_at(weight_decay_rate, state.step)
        t = jnp.maximum(real(count) - decay_offset, 1)
        new = t**-decay_rate  # 1 − β̂, the weight of this gradient

        def rule(g, R, C, V, ema, p, rho, lam, new):
            square = g * g + eps
            both = axes(g.shape)
            if both is None:
                V = (1 - new) * V + new * square
                u = g / jnp.sqrt(V)
            else:
                row, column = both
                R = (1 - new) * R + new * square.mean(column)
                C = (1 - new) * C + new * square.mean(row)
                over = R.mean(row - (row > column), keepdims=True)  # mean R
                u = g / jnp.expand_dims(jnp.sqrt(R / over), column)
                u = u / jnp.expand_dims(jnp.sqrt(C), row)
            if clipping_threshold is not None:
                u = u / jnp.maximum(1.0, _rms(u) / clipping_threshold)
            u = rho * u
            if multiply_by_parameter_scale:
                u = u * jnp.maximum(_rms(p), 1e-3)
            if momentum is not None:
                u = ema = momentum * ema + (1 - momentum) * u
            if weight_decay_rate is not None:
                u = u + lam * p
            return -u, R, C, V, ema

        updates, *means = each(
            rule,
            grads,
            (state.v_row, state.v_col, state.v, state.ema),
            params,
            scalars=(rho, lam, new),
        )
        return updates, AdafactorState(count, *means)

    return GradientTransformation(init, update)


def _rms(x):
    return jnp.sqrt(jnp.mean(x * x))
