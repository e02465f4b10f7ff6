"""The changes of one equation: what people get wrong on one line of a derivation.

Each is a pair of words, with @ for the expression, and a `Change` of the equation's results.
"""

import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.compare import primitives
from handgrad.compare.interpret import CONTROL, Program

Values = dict[core.Var, Any]  # what has been computed
Change = Callable[[list, list, Values], list]  # operands, results, values -> results
Offer = tuple[str, Change]

REPEATING = {"broadcast_in_dim", "copy", "stop_gradient", "optimization_barrier"}
TRANSPARENT = REPEATING | {"reshape", "squeeze", "expand_dims", "convert_element_type"}
_UNARY = {
    "exp", "log", "tanh", "logistic", "sin", "cos", "sqrt", "rsqrt", "log1p", "expm1", "abs",
    "sign", "erf", "square",
}  # fmt: skip
_INDEXED = {"gather", "scatter", "scatter-add", "dynamic_slice", "dynamic_update_slice"}
_SLIDING = {"scan", "rev", "slice", "concatenate", "pad", "dynamic_slice", "split"}


def is_float(v: Any) -> bool:
    return jnp.issubdtype(getattr(v.aval, "dtype", np.int32), jnp.floating)


def is_value(v: Any) -> bool:
    """A float, or a mask."""
    return is_float(v) or getattr(v.aval, "dtype", None) == np.bool_


def _shape(v: Any) -> tuple[int, ...]:
    return tuple(getattr(v.aval, "shape", ()))


def changes(eqn: core.JaxprEqn) -> Iterator[Offer]:
    """Those of an equation by itself."""
    if eqn.primitive.name in TRANSPARENT or not any(map(is_float, eqn.outvars)):
        return
    yield from _of_any(eqn)
    yield from _OF.get(eqn.primitive.name, _nothing)(eqn)
    if eqn.primitive.name in _UNARY:
        yield "leave out the function in @", lambda i, r, k: [i[0]]
    if eqn.primitive.name in _SLIDING:
        for step, word in ((1, "later"), (-1, "earlier")):
            yield f"shift @ one step {word}", lambda i, r, k, s=step: [_shift(x, s) for x in r]


def _nothing(eqn: core.JaxprEqn) -> Iterator[Offer]:
    yield from ()


def _of_any(eqn: core.JaxprEqn) -> Iterator[Offer]:
    if len(eqn.outvars) != 1:
        return
    shape = _shape(eqn.outvars[0])
    yield "negate @", lambda i, r, k: [-r[0]]
    yield "leave out @", lambda i, r, k: [np.zeros_like(r[0])]
    yield "double @", lambda i, r, k: [2 * r[0]]
    yield "halve @", lambda i, r, k: [r[0] / 2]
    if len(shape) >= 2 and shape[-1] == shape[-2] > 1:
        yield "transpose @", lambda i, r, k: [np.swapaxes(r[0], -1, -2)]


def _sum(eqn: core.JaxprEqn) -> Iterator[Offer]:
    if not all(map(is_float, eqn.invars)):
        return
    minus = eqn.primitive.name == "sub"
    sign = -1.0 if minus else 1.0
    yield "take the first term of @ alone", lambda i, r, k: [_as(i[0], r[0])]
    yield "take the second term of @ alone", lambda i, r, k: [_as(sign * i[1], r[0])]
    if minus:
        yield "add instead of subtracting in @", lambda i, r, k: [i[0] + i[1]]
    else:
        yield "subtract instead of adding in @", lambda i, r, k: [i[0] - i[1]]
    yield "square the first term of @", lambda i, r, k: [i[0] ** 2 + sign * i[1]]
    yield "square the second term of @", lambda i, r, k: [i[0] + sign * i[1] ** 2]


def _product(eqn: core.JaxprEqn) -> Iterator[Offer]:
    yield "drop the first factor of @", lambda i, r, k: [_as(i[1], r[0])]
    yield "drop the second factor of @", lambda i, r, k: [_as(i[0], r[0])]
    yield "divide instead of multiplying in @", lambda i, r, k: [i[0] / i[1]]
    if not any(isinstance(v, core.Literal) for v in eqn.invars):
        yield "square the first factor of @", lambda i, r, k: [i[0] * r[0]]
        yield "square the second factor of @", lambda i, r, k: [i[1] * r[0]]


def _quotient(eqn: core.JaxprEqn) -> Iterator[Offer]:
    yield "do not divide in @", lambda i, r, k: [_as(i[0], r[0])]
    yield "multiply instead of dividing in @", lambda i, r, k: [i[0] * i[1]]
    yield "divide twice in @", lambda i, r, k: [r[0] / i[1]]
    yield "take the reciprocal of @", lambda i, r, k: [1 / r[0]]


def _power(eqn: core.JaxprEqn) -> Iterator[Offer]:
    power = float(eqn.params.get("y", 2))
    yield "raise to one power less in @", lambda i, r, k: [i[0] ** (power - 1)]
    yield "raise to one power more in @", lambda i, r, k: [i[0] ** (power + 1)]


def _root(eqn: core.JaxprEqn) -> Iterator[Offer]:
    yield "square @", lambda i, r, k: [r[0] ** 2]
    yield "cube @", lambda i, r, k: [r[0] ** 3]


def _reduction(eqn: core.JaxprEqn) -> Iterator[Offer]:
    axes, operand = eqn.params["axes"], _shape(eqn.invars[0])
    n = math.prod(operand[a] for a in axes)
    if n > 1:
        yield f"divide @ by {n} (mean for sum)", lambda i, r, k: [r[0] / n]
        yield f"multiply @ by {n} (sum for mean)", lambda i, r, k: [r[0] * n]
        yield "take one element for the sum in @", lambda i, r, k: [_one(i[0], axes)]
    for other in range(len(operand)):
        if len(axes) == 1 and other not in axes and operand[other] == operand[axes[0]]:
            yield f"sum over axis {other} in @", lambda i, r, k, a=other: [i[0].sum(a)]


def _matrices(eqn: core.JaxprEqn) -> Iterator[Offer]:
    for n, which in enumerate(("first", "second")):
        shape = _shape(eqn.invars[n])
        if len(shape) >= 2 and shape[-1] == shape[-2] > 1:

            def swapped(i, r, k, n=n):
                return [_rule(eqn)(*_with(i, n, np.swapaxes(i[n], -1, -2)), **eqn.params)]

            yield f"transpose the {which} matrix in @", swapped


def _choice(eqn: core.JaxprEqn) -> Iterator[Offer]:
    if len(eqn.invars) == 3:
        yield "swap the two cases of @", lambda i, r, k: [np.where(i[0], i[1], i[2])]
        yield "take the second case of @ everywhere", lambda i, r, k: [i[1]]
        yield "take the first case of @ everywhere", lambda i, r, k: [i[2]]


def _loop(eqn: core.JaxprEqn) -> Iterator[Offer]:
    def turned(inputs, results, known):
        program = Program(lambda *x: x, 0.0)
        return CONTROL["scan"](program, eqn, inputs, None, reverse=not eqn.params["reverse"])

    yield "reverse the direction of @", turned


def _reversal(eqn: core.JaxprEqn) -> Iterator[Offer]:
    yield "do not reverse in @", lambda i, r, k: [i[0]]


def _writing(eqn: core.JaxprEqn) -> Iterator[Offer]:
    adds = eqn.primitive.name == "scatter"
    other = primitives.RULES["scatter-add" if adds else "scatter"]
    words = "add instead of setting in @" if adds else "set instead of adding in @"
    yield words, lambda i, r, k: [other(*i, **eqn.params)]


_OF: dict[str, Callable[[core.JaxprEqn], Iterator[Offer]]] = {
    "add": _sum, "sub": _sum, "add_any": _sum, "mul": _product, "div": _quotient,
    "integer_pow": _power, "square": _power, "sqrt": _root, "rsqrt": _root,
    "reduce_sum": _reduction, "dot_general": _matrices, "select_n": _choice, "scan": _loop,
    "rev": _reversal, "scatter": _writing, "scatter-add": _writing,
}  # fmt: skip


# --- a function left out or mistaken --------------------------------------------------------------

_FUNCTIONS: dict[str, Callable] = {
    "the square of": np.square,
    "the square root of": np.sqrt,
    "the reciprocal of": lambda x: 1 / x,
    "one minus": lambda x: 1 - x,
    "exp of": np.exp,
    "log of": np.log,
    "tanh of": np.tanh,
    "the logistic of": lambda x: 1 / (1 + np.exp(-x)),
    "the absolute value of": np.abs,
    "the sign of": np.sign,
    "the positive part of": lambda x: np.maximum(x, 0),
}
_COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}
_OF_COMPARED = {"the absolute value of"}


def applied(eqn: core.JaxprEqn, before: Sequence[core.Var], called: dict) -> Iterator[Offer]:
    """A function applied to an operand or to the result, a sign inside, an index moved by one."""
    name = eqn.primitive.name
    if name in TRANSPARENT or name not in primitives.RULES:
        return
    for n, atom in enumerate(eqn.invars):
        shape, text = _shape(atom), called.get(atom, "an index") if _named(atom) else ""

        def with_operand(function: Callable, n=n) -> Change:
            return lambda i, r, k: [_rule(eqn)(*_with(i, n, function(i[n])), **eqn.params)]

        if is_float(atom) and isinstance(atom, core.Var):
            for words, function in _FUNCTIONS.items():
                if name in _COMPARISONS and words not in _OF_COMPARED:
                    continue  # a comparison hardly tells them from each other
                yield f"take {words} `{text}` in @", with_operand(function)
            for axis in range(len(shape)):
                if shape[axis] > 1:
                    yield f"sum `{text}` over axis {axis} in @", with_operand(_summed(axis))
        elif name in _INDEXED and jnp.issubdtype(getattr(atom.aval, "dtype", bool), np.integer):
            for step, word in ((1, "more"), (-1, "less")):
                yield f"take one {word} than {text} in @", with_operand(lambda x, s=step: x + s)
    if name == "slice":
        yield from _slid(eqn)
    if name in _UNARY:
        yield "negate the argument of @", lambda i, r, k: [_rule(eqn)(-i[0], **eqn.params)]
    if name in ("logistic", "tanh"):
        other = "tanh" if name == "logistic" else "logistic"
        yield (
            f"take the {other} for the {name} in @",
            lambda i, r, k: [primitives.RULES[other](i[0])],
        )


def _slid(eqn: core.JaxprEqn) -> Iterator[Offer]:
    """A slice moved by one along an axis."""
    start, stop = eqn.params["start_indices"], eqn.params["limit_indices"]
    for axis, n in enumerate(_shape(eqn.invars[0])):
        for step, word in ((1, "later"), (-1, "earlier")):
            if start[axis] + step >= 0 and stop[axis] + step <= n:
                moved = dict(
                    start_indices=_with(list(start), axis, start[axis] + step),
                    limit_indices=_with(list(stop), axis, stop[axis] + step),
                )
                yield (
                    f"slice one {word} along axis {axis} in @",
                    lambda i, r, k, m=moved: [_rule(eqn)(*i, **{**eqn.params, **m})],
                )


def _summed(axis: int) -> Callable:
    return lambda x: np.broadcast_to(x.sum(axis, keepdims=True), x.shape)


def _named(atom: Any) -> bool:
    return isinstance(atom, core.Var)


# --- another operand: a stale or neighbouring residual, a forgotten factor or term ---------------


def replaced(eqn: core.JaxprEqn, before: Sequence[core.Var], called: dict) -> Iterator[Offer]:
    """Every operand replaced by another value of its shape."""
    name = eqn.primitive.name
    if name not in primitives.RULES or name in TRANSPARENT or not any(map(is_float, eqn.outvars)):
        return
    for n, old in enumerate(eqn.invars):
        if not isinstance(old, core.Var) or not is_float(old):
            continue
        for new in before:
            if new is not old and _shape(new) == _shape(old):
                words = f"use `{called.get(new, '?')}` for `{called.get(old, 'it')}` in @"
                yield (
                    words,
                    lambda i, r, k, n=n, new=new: [_rule(eqn)(*_with(i, n, k[new]), **eqn.params)],
                )


def combined(
    eqn: core.JaxprEqn, before: Sequence[core.Var], called: dict, linear: Set[core.Var]
) -> Iterator[Offer]:
    """The result times, over, plus or minus a value that is at hand and fits it.

    linear: the values that depend on the cotangent. A backward being linear in it, none of them is
    a factor of another, and a term belongs to its like.
    """
    name = eqn.primitive.name
    if len(eqn.outvars) != 1 or not is_float(eqn.outvars[0]):
        return
    if name in TRANSPARENT and name != "broadcast_in_dim":
        return
    (out,) = eqn.outvars
    mine = [v for v in before if v is not out and _fits(_shape(v), _shape(out))]
    for other in mine:
        name = called.get(other, "?")
        if other not in linear or not linear:
            yield f"multiply @ by `{name}`", lambda i, r, k, o=other: [r[0] * _at(k[o], r[0])]
            yield f"divide @ by `{name}`", lambda i, r, k, o=other: [r[0] / _at(k[o], r[0])]
        if is_float(other) and (other in linear) == (out in linear):
            yield f"add `{name}` to @", lambda i, r, k, o=other: [r[0] + _at(k[o], r[0])]
            yield f"subtract `{name}` from @", lambda i, r, k, o=other: [r[0] - _at(k[o], r[0])]
    for other in mine:
        if not is_float(other) or other in linear:
            continue
        for words, slope in _SLOPES.items():
            factor = words.format(f"`{called.get(other, '?')}`")

            def scaled(i, r, k, o=other, f=slope):
                return [r[0] * _at(f(k[o]), r[0])]

            def divided(i, r, k, o=other, f=slope):
                return [r[0] / _at(f(k[o]), r[0])]

            yield f"multiply @ by {factor}, a factor left out", scaled
            yield f"divide @ by {factor}, a factor too many", divided
        if out not in linear and _shape(other) == _shape(out):
            for words, slope in _DERIVATIVES.items():
                of = f"the derivative of {words} at `{called.get(other, '?')}`"
                yield f"take {of} for @", lambda i, r, k, o=other, f=slope: [f(k[o])]


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _gelu(x: np.ndarray) -> np.ndarray:
    """The derivative of its tanh form."""
    root = math.sqrt(2 / math.pi)
    t = np.tanh(root * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * root * (1 + 3 * 0.044715 * x**2)


# What the chain rule leaves behind a nonlinearity, of its result or of its argument.
_SLOPES: dict[str, Callable] = {
    "1 - {}": lambda x: 1 - x,
    "1 - {0}**2": lambda x: 1 - x**2,
    "{0} (1 - {0})": lambda x: x * (1 - x),
    "{} > 0": lambda x: x > 0,
    "{} <= 0": lambda x: x <= 0,
    "{}**2": np.square,
    "sign({})": np.sign,
    "exp({})": np.exp,
    "logistic({})": _logistic,
    "cos({})": np.cos,
}
_DERIVATIVES: dict[str, Callable] = {
    "the logistic": lambda x: _logistic(x) * _logistic(-x),
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "silu": lambda x: _logistic(x) * (1 + x * _logistic(-x)),
    "gelu (by tanh)": _gelu,
    "relu": lambda x: (x > 0).astype(x.dtype),
    "softplus": _logistic,
    "log": lambda x: 1 / x,
    "the square root": lambda x: 0.5 / np.sqrt(x),
    "the reciprocal": lambda x: -1 / x**2,
}


def _fits(small: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array broadcasts against another, or is the leading part of its shape."""
    if len(small) > len(shape):
        return False
    trailing = all(a in (1, b) for a, b in zip(small[::-1], shape[::-1], strict=False))
    return trailing or small == shape[: len(small)]


def _at(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    """x along the leading axes where it does not fit the trailing ones."""
    if all(a in (1, b) for a, b in zip(x.shape[::-1], like.shape[::-1], strict=False)):
        return x
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


# --- arrays --------------------------------------------------------------------------------------


def _rule(eqn: core.JaxprEqn) -> Callable:
    return primitives.RULES[eqn.primitive.name]


def _with(items: list, n: int, new: Any) -> list:
    return [new if j == n else x for j, x in enumerate(items)]


def _as(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, like.shape)


def _one(x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    return x[tuple(0 if a in axes else slice(None) for a in range(x.ndim))]


def _shift(x: np.ndarray, step: int) -> np.ndarray:
    if x.ndim == 0 or x.shape[0] < 2:
        return x
    out = np.roll(x, step, 0)
    out[0 if step > 0 else -1] = 0
    return out
