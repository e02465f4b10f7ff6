"""Transformations to chain: clipping, L2 in the gradient, a guard against NaN and infinity."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.manual.numerics import widen
from handgrad.manual.optimizers.core import (
    GradientTransformation,
    Rate,
    Stateless,
    check_params,
    check_positive,
    check_rate,
    check_state,
    check_transformation,
    check_trees,
    each,
    increment,
    label,
    taken,
    value_at,
    zero_count,
)

__all__ = ["clip_by_global_norm", "clip_by_norm", "clip_by_value", "guard", "l2_gradient"]


class DecayState(NamedTuple):
    """t, the number of steps done."""

    step: jax.Array


class GuardState(NamedTuple):
    """How many steps were skipped, and the state of the guarded optimiser."""

    total_notfinite: jax.Array
    inner_state: Any


def clip_by_value(max_delta: float) -> GradientTransformation:
    r"""g ← min(max(g, −c), c), entry by entry. max_delta: c > 0."""
    check_positive(max_delta=max_delta)
    return _stateless(lambda grads: each(lambda g: jnp.clip(g, -max_delta, max_delta), grads))


def clip_by_norm(max_norm: float) -> GradientTransformation:
    r"""g ← g min(1, c/‖g‖), every leaf by its own norm. max_norm: c > 0."""
    check_positive(max_norm=max_norm)

    def rule(g):
        return g * _shrink(jnp.sqrt(jnp.sum(g * g)), max_norm)

    return _stateless(lambda grads: each(rule, grads))


def clip_by_global_norm(max_norm: float) -> GradientTransformation:
    r"""g ← g min(1, c/‖g‖), ‖g‖ over all leaves (Pascanu, Mikolov and Bengio 2013, algorithm 1).

    max_norm: c > 0. The direction of the whole gradient is kept. Squares of half-precision
    gradients are summed in float32.
    """
    check_positive(max_norm=max_norm)

    def clip(grads):
        norm = jnp.sqrt(sum(jnp.sum(widen(g) ** 2) for g in jax.tree.leaves(grads)))
        return each(lambda g, shrink: g * shrink, grads, scalars=(_shrink(norm, max_norm),))

    return _stateless(clip)


def _shrink(norm, max_norm):
    return jnp.where(norm < max_norm, 1.0, max_norm / norm)


def l2_gradient(weight_decay: Rate) -> GradientTransformation:
    r"""g ← g + λθ, the gradient of J + ½λ‖θ‖²: coupled decay, to stand before any optimiser.

    weight_decay: λ ≥ 0, or a schedule. Before `sgd` it is weight decay; before `adam` it is not,
    since λθ is divided by √v̂ with the rest (Loshchilov and Hutter 2019): see `adamw`.
    """
    check_rate(weight_decay=weight_decay)

    def update(grads, state, params=None):
        check_state(state, DecayState)
        check_params("l2_gradient", grads, params)
        lam = value_at(weight_decay, state.step)
        decayed = each(lambda g, p, lam: g + lam * p, grads, (), params, scalars=(lam,))
        return decayed, DecayState(increment(state.step))

    return GradientTransformation(lambda params: DecayState(zero_count()), update)


def guard(
    inner: Any, *, nonfinite: Literal["raise", "skip", "pass"] = "raise"
) -> GradientTransformation:
    """What happens when a gradient holds NaN or infinity.

    nonfinite: "raise" a FloatingPointError that names the leaves (inside `jit`: a
        jax.errors.JaxRuntimeError with that text, when the step runs); "skip" the step, so that
        parameters and state stay as they are, and count it in `state.total_notfinite`; "pass"
        them on.
    inner: the optimiser to guard; it is passed what else `update` is given by name, if it takes it.
    """
    if nonfinite not in ("raise", "skip", "pass"):
        raise ValueError(f"nonfinite is {nonfinite!r}; it must be 'raise', 'skip' or 'pass'")
    check_transformation("guard: inner", inner)

    def init(params):
        return GuardState(zero_count(), inner.init(params))

    def update(grads, state, params=None, **extra):
        check_state(state, GuardState)
        extra = taken(inner, extra)
        if nonfinite == "pass":
            updates, inner_state = inner.update(grads, state.inner_state, params, **extra)
            return updates, GuardState(state.total_notfinite, inner_state)
        leaves = jax.tree_util.tree_leaves_with_path(grads)
        names = [label(path) for path, _ in leaves]
        finite = jnp.array([jnp.isfinite(g).all() for _, g in leaves], bool)
        if nonfinite == "raise":
            _raise_unless(finite, names)
            updates, inner_state = inner.update(grads, state.inner_state, params, **extra)
            return updates, GuardState(state.total_notfinite, inner_state)
        go = finite.all()
        updates, inner_state = inner.update(grads, state.inner_state, params, **extra)
        updates = jax.tree.map(lambda u: jnp.where(go, u, jnp.zeros_like(u)), updates)
        inner_state = jax.tree.map(
            lambda new, old: jnp.where(go, new, old), inner_state, state.inner_state
        )
        skipped = jnp.where(go, state.total_notfinite, increment(state.total_notfinite))
        return updates, GuardState(skipped, inner_state)

    return GradientTransformation(init, update)


def _raise_unless(finite, names):
    def complain(finite):
        bad = [name for name, good in zip(names, np.asarray(finite), strict=True) if not good]
        if bad:
            raise FloatingPointError(
                f"the gradient holds NaN or infinity at {', '.join(bad)}: lower the learning "
                f"rate, clip the gradient, or skip such steps with guard(…, nonfinite='skip')"
            )

    if isinstance(finite, Tracer):
        jax.debug.callback(complain, finite)
    else:
        complain(finite)


def _stateless(transform) -> GradientTransformation:
    def update(grads, state, params=None):
        if params is not None:
            check_trees(grads, params)
        return transform(grads), state

    return GradientTransformation(lambda params: Stateless(), update)
