"""What every optimiser is made of: the pair (init, update), a rule for each leaf, the checks."""

import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.manual.numerics import widen

__all__ = ["GradientTransformation", "Rate", "Schedule", "apply_updates", "chain"]

Schedule: TypeAlias = Callable[[Any], Any]
Rate: TypeAlias = float | jax.Array | Schedule


class GradientTransformation(NamedTuple):
    """An optimiser: `init(params) -> state`, `update(grads, state, params) -> (updates, state)`.

    The updates are *added* to the parameters (the minus sign is inside): see `apply_updates`.
    The pair has the shape of optax's, so either library chains the other's.
    """

    init: Callable[[Any], Any]
    update: Callable[..., tuple[Any, Any]]


class Stateless(NamedTuple):
    """The state of a transformation that remembers nothing."""


def apply_updates(params: Any, updates: Any) -> Any:
    """θ + Δ, leaf by leaf, in the dtype of θ. params, updates: trees of one shape."""
    check_trees(updates, params, "update")
    return jax.tree.map(lambda p, u: (p + u).astype(jnp.result_type(p)), params, updates)


def chain(*transformations: Any) -> GradientTransformation:
    """The updates of each of the transformations are the gradients of the next: f₁, then f₂, …

    The state is the tuple of their states. Transformations of optax may stand among them; what
    else `update` is given by name goes to those that take it.
    """
    for i, transformation in enumerate(transformations):
        check_transformation(f"chain: argument {i}", transformation)

    def init(params):
        return tuple(transformation.init(params) for transformation in transformations)

    def update(grads, state, params=None, **extra):
        if not isinstance(state, tuple | list) or len(state) != len(transformations):
            came = f" of {len(state)}" if isinstance(state, tuple | list) else ""
            raise ValueError(
                f"the state is a {type(state).__name__}{came}; it must be the tuple of "
                f"{len(transformations)} that `init`, or the last `update`, of this chain returned"
            )
        states = []
        for transformation, inner in zip(transformations, state, strict=True):
            more = taken(transformation, extra)
            grads, inner = transformation.update(grads, inner, params, **more)
            states.append(inner)
        return grads, tuple(states)

    return GradientTransformation(init, update)


def taken(transformation: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """Of the extra arguments of an update those that this transformation takes."""
    if not extra:
        return extra
    parameters = inspect.signature(transformation.update).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return extra
    return {name: value for name, value in extra.items() if name in parameters}


def each(rule: Callable, grads: Any, states: tuple = (), *reads: Any, scalars: tuple = ()) -> Any:
    """The trees (updates, *new states) of `rule(g, *states, *reads, *scalars)` at every leaf.

    Half-precision leaves are computed in float32 and every result goes back into the dtype of
    the leaf that it answers; scalars are cast to the leaf's (wide) dtype. A state that is None
    stays None. Everything is one expression for a leaf, so that the compiler makes a single
    pass over memory.
    """
    check_floating(grads, "gradient")
    leaves, structure = jax.tree.flatten(grads)
    columns = [
        [None] * len(leaves) if tree is None else structure.flatten_up_to(tree)
        for tree in (*states, *reads)
    ]
    results = []
    for g, *rest in zip(leaves, *columns, strict=True):
        wide = widen(jnp.asarray(g))
        given = (jnp.asarray(s).astype(wide.dtype) if _is_array(s) else s for s in scalars)
        others = (None if leaf is None else widen(jnp.asarray(leaf)) for leaf in rest)
        made = rule(wide, *others, *given)
        made = made if isinstance(made, tuple) else (made,)
        results.append(
            [
                None if new is None else new.astype(jnp.result_type(old))
                for new, old in zip(made, (g, *rest), strict=False)
            ]
        )
    if not leaves:
        return (grads, *states) if states else grads
    made = zip((grads, *states), zip(*results, strict=True), strict=True)
    trees = [None if old is None else structure.unflatten(column) for old, column in made]
    return tuple(trees) if states else trees[0]


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)


def zeros_like(params: Any) -> Any:
    return full_like(params, 0.0)


def full_like(params: Any, value: Any) -> Any:
    check_floating(params, "parameter")
    return jax.tree.map(lambda p: jnp.full_like(p, value), params)


def zero_count() -> jax.Array:
    return jnp.zeros((), jnp.int32)


def increment(count: jax.Array) -> jax.Array:
    """t + 1; it stays at the largest int32 rather than turning negative."""
    return jnp.minimum(count, jnp.iinfo(jnp.int32).max - 1) + 1


def real(count: jax.Array) -> jax.Array:
    """The step number as a floating-point number of the default precision."""
    return count.astype(jnp.result_type(float))


def power(b: Any, t: jax.Array) -> jax.Array:
    """bᵗ = exp(t ln b)."""
    return jnp.exp(real(t) * log_of(b))


def one_minus_power(b: Any, t: jax.Array) -> jax.Array:
    """1 − bᵗ = −expm1(t ln b): in float32 the plain form is wrong by 1e-5 for b = 0.999."""
    return -jnp.expm1(real(t) * log_of(b))


def log_of(b: Any) -> Any:
    """ln b, in double precision where b is a Python number."""
    if _is_array(b):
        return jnp.log(b)
    return math.log(b) if b > 0 else -math.inf


def may_decay(weight_decay: Rate) -> bool:
    """Whether there is a decay for which the parameters are needed: not where it is known as 0."""
    return callable(weight_decay) or isinstance(weight_decay, Tracer) or bool(weight_decay > 0)


def value_at(rate: Rate, count: jax.Array) -> Any:
    """The learning rate (or decay) of this step: a schedule is asked with the steps done so far."""
    if not callable(rate):
        return rate
    value = rate(count)
    if not _is_number(value):
        raise _no_number("what the schedule returns", value, "a number or a 0-d array")
    return value


# --- checks ---------------------------------------------------------------------------------------


def check_rate(**rates: Any) -> None:
    """Numbers ≥ 0; a schedule or a traced number is believed."""
    for name, value in rates.items():
        if callable(value):
            continue
        number = _number(name, value, "a number, a 0-d array or a schedule (a function of t)")
        if number is not None and not number >= 0:
            raise ValueError(
                f"{name} is {number}; it must be ≥ 0, since the update already points downhill"
            )


def check_decay(**decays: Any) -> None:
    """Numbers in [0, 1)."""
    for name, value in decays.items():
        number = _number(name, value, "a number in [0, 1)")
        if number is not None and not 0 <= number < 1:
            raise ValueError(
                f"{name} is {number}; it must lie in [0, 1): it is the part of the past that is "
                f"kept at every step"
            )


def check_not_negative(**values: Any) -> None:
    for name, value in values.items():
        number = _number(name, value, "a number ≥ 0")
        if number is not None and not number >= 0:
            raise ValueError(f"{name} is {number}; it must be ≥ 0")


def check_positive(**values: Any) -> None:
    for name, value in values.items():
        number = _number(name, value, "a number > 0")
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number}; it must be > 0")


def _number(name: str, value: Any, wanted: str) -> float | None:
    """The value, None where it is known only at run time."""
    if not _is_number(value):
        raise _no_number(name, value, wanted)
    return None if isinstance(value, Tracer) else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) or (_is_array(value) and np.shape(value) == ())


def _no_number(name: str, value: Any, wanted: str) -> Exception:
    if _is_array(value):
        return ValueError(f"{name} is an array of shape {np.shape(value)}; it must be {wanted}")
    return TypeError(f"{name} is {value!r}; it must be {wanted}")


def check_trees(grads: Any, like: Any, what: str = "gradient") -> None:
    """The gradients have the tree and shapes of `like`: the parameters, or a state of theirs.

    what: the name for a leaf of what stands in the place of the gradients.
    """
    (leaves, tree), (others, other) = map(jax.tree.flatten, (grads, like))
    if tree == other and list(map(np.shape, leaves)) == list(map(np.shape, others)):
        return
    ours, theirs = (dict(jax.tree_util.tree_leaves_with_path(t)) for t in (grads, like))
    for path in theirs:
        if path not in ours:
            raise ValueError(
                f"the parameters have a leaf {label(path)} and the {what}s have none: "
                f"give the {what}s of all the parameters"
            )
    for path, leaf in ours.items():
        if path not in theirs:
            raise ValueError(
                f"the {what}s have a leaf {label(path)} and the parameters have none: "
                f"the {what}s must be those of the tree that `init` was given"
            )
        if np.shape(leaf) != np.shape(theirs[path]):
            raise ValueError(
                f"the {what} {label(path)} has shape {np.shape(leaf)}; it must have its "
                f"parameter's, {np.shape(theirs[path])}"
            )
    raise ValueError(
        f"the {what}s are the tree {tree}; they must be the tree of the parameters, {other}"
    )


def check_state(state: Any, kind: type) -> None:
    """The state is one that this optimiser makes."""
    if not isinstance(state, kind):
        raise TypeError(
            f"the state is a {type(state).__name__}; it must be the {kind.__name__} that `init`, "
            f"or the last `update`, of this optimiser returned"
        )


def check_transformation(where: str, transformation: Any) -> None:
    """It is a pair of functions, by these names."""
    if not all(callable(getattr(transformation, name, None)) for name in ("init", "update")):
        raise TypeError(
            f"{where} is {transformation!r}; it must be an optimiser or another transformation, "
            "with an init and an update, such as adam(0.1)"
        )


def check_floating(tree: Any, what: str) -> None:
    """Integers would round every update to zero."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        dtype = leaf.dtype if _is_array(leaf) else jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"the {what} {label(path)} is {dtype}; it must be of floating-point numbers"
            )


def check_params(optimizer: str, grads: Any, params: Any) -> None:
    """This optimiser reads the parameters, and they fit the gradients."""
    if params is None:
        raise ValueError(
            f"{optimizer} reads the parameters: call update(grads, state, params), "
            f"not update(grads, state)"
        )
    check_trees(grads, params)


def label(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "(the only one)"
