"""Small changes to a hand-written backward, one at a time.

A wrong derivation that one change makes right is *mended*: the change is the diagnosis. A right
one that a change leaves right was not *exercised* there by the inputs: coverage.

The interpreter runs the traced backward with one equation's operands or result changed; nothing
is compiled.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.compare import primitives
from handgrad.compare.interpret import CALLS, CONTROL, Program
from handgrad.compare.source import Place, place

Values = dict[core.Var, np.ndarray]  # what has been computed before the equation
Change = Callable[[list, list, Values], list]  # operands, results, values -> results


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one equation."""

    eqn: core.JaxprEqn
    words: str  # "negate `d.mean(-1)`"
    change: Change
    place: Place | None

    def run(self, program: Program, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The program's results with this change."""

        known: Values = dict(zip(program.jaxpr.jaxpr.invars, values, strict=True))

        def after(eqn, inputs, results):
            if eqn is self.eqn:
                results = self.change(inputs, results, known)
            known.update(zip(eqn.outvars, results, strict=True))
            return results

        return program(*values, after=after)

    def __str__(self) -> str:
        return f"{self.place}: {self.words}" if self.place else self.words


def mutants(program: Program) -> Iterator[Mutant]:
    """Every change worth trying, in the order of the program."""
    yield from _of(program.jaxpr.jaxpr, None, _changes)


def substitutions(program: Program, names: Sequence[str]) -> Iterator[Mutant]:
    """Every operand replaced by another value of its shape: a stale or neighbouring residual.

    names: of the program's inputs.
    """
    called = dict(zip(program.jaxpr.jaxpr.invars, names, strict=True))

    def changes(eqn: core.JaxprEqn, before: Sequence[core.Var]) -> Iterator[tuple[str, Change]]:
        name = eqn.primitive.name
        if name not in primitives.RULES or name in _TRANSPARENT:
            return
        for k, old in enumerate(eqn.invars):
            if not isinstance(old, core.Var) or not _float(old):
                continue
            for new in before:
                if new is not old and _float(new) and _shape(new) == _shape(old):
                    words = f"use `{called.get(new, '?')}` for `{called.get(old, 'it')}` in @"
                    yield words, _replace(eqn, k, new)

    yield from _of(program.jaxpr.jaxpr, None, changes, called)


def _replace(eqn: core.JaxprEqn, k: int, new: core.Var) -> Change:
    def change(inputs, results, known):
        operands = [known[new] if j == k else x for j, x in enumerate(inputs)]
        return [primitives.RULES[eqn.primitive.name](*operands, **eqn.params)]

    return change


def _of(
    jaxpr: core.Jaxpr, around: Place | None, changes: Callable, called: dict | None = None
) -> Iterator[Mutant]:
    before = [v for v in jaxpr.invars if _float(v)]
    used = {v for eqn in jaxpr.eqns for v in eqn.invars if isinstance(v, core.Var)}
    used |= {v for v in jaxpr.outvars if isinstance(v, core.Var)}
    for eqn in jaxpr.eqns:
        where = place(eqn) or around
        name = eqn.primitive.name
        if name in CONTROL and not _library(eqn):
            for inner in core.jaxprs_in_params(eqn.params):
                yield from _of(inner, where, changes, called)
        if not any(v in used and _float(v) for v in eqn.outvars):
            continue
        text = where.text if where else name
        for words, change in changes(eqn, before):
            yield Mutant(eqn, words.replace("@", f"`{text}`"), _safely(change, eqn), where)
        if called is not None:
            called.update((v, where.name if where else name) for v in eqn.outvars)
        before = [*before, *eqn.outvars] if name not in _TRANSPARENT else before


def _library(eqn: core.JaxprEqn) -> bool:
    """A call of a library function such as jnp.mean: changed as a whole, not inside."""
    if eqn.primitive.name not in CALLS:
        return False
    inner = next(iter(core.jaxprs_in_params(eqn.params)), None)
    if inner is None or not inner.eqns:
        return True
    mine, theirs = place(eqn), place(inner.eqns[0])
    return mine is None or theirs is None or (mine.file, mine.line) == (theirs.file, theirs.line)


def _shape(v: Any) -> tuple[int, ...]:
    return tuple(getattr(v.aval, "shape", ()))


def _float(v: Any) -> bool:
    return jnp.issubdtype(getattr(v.aval, "dtype", np.int32), jnp.floating)


def _changes(eqn: core.JaxprEqn, _: Sequence[core.Var]) -> Iterator[tuple[str, Change]]:
    """(words with @ for the expression, change)."""
    name, params = eqn.primitive.name, eqn.params
    shape, size = _shape(eqn.outvars[0]), math.prod(_shape(eqn.outvars[0]))
    one = len(eqn.outvars) == 1
    floats = [i for i, v in enumerate(eqn.invars) if _float(v)]
    if name in _TRANSPARENT:
        return
    if one:
        yield "negate @", lambda i, r, k: [-r[0]]
        yield "leave out @", lambda i, r, k: [np.zeros_like(r[0])]
        yield "double @", lambda i, r, k: [2 * r[0]]
        yield "halve @", lambda i, r, k: [r[0] / 2]
        if len(shape) >= 2 and shape[-1] == shape[-2] > 1:
            yield "transpose @", lambda i, r, k: [np.swapaxes(r[0], -1, -2)]
    if name in ("add", "sub", "add_any") and len(floats) == 2:
        yield "take the first term of @ alone", lambda i, r, k: [_as(i[0], r[0])]
        sign = -1.0 if name == "sub" else 1.0
        yield "take the second term of @ alone", lambda i, r, k: [_as(sign * i[1], r[0])]
        yield (
            ("add instead of subtracting in @", lambda i, r, k: [i[0] + i[1]])
            if name == "sub"
            else ("subtract instead of adding in @", lambda i, r, k: [i[0] - i[1]])
        )
    if name in ("mul", "div"):
        literal = [isinstance(v, core.Literal) for v in eqn.invars]
        yield "drop the second factor of @", lambda i, r, k: [_as(i[0], r[0])]
        if name == "mul":
            yield "drop the first factor of @", lambda i, r, k: [_as(i[1], r[0])]
            yield "divide instead of multiplying in @", lambda i, r, k: [i[0] / i[1]]
            if not any(literal):
                yield "square the first factor of @", lambda i, r, k: [i[0] * r[0]]
                yield "square the second factor of @", lambda i, r, k: [i[1] * r[0]]
        else:
            yield "multiply instead of dividing in @", lambda i, r, k: [i[0] * i[1]]
            yield "divide twice in @", lambda i, r, k: [r[0] / i[1]]
            yield "take the reciprocal of @", lambda i, r, k: [1 / r[0]]
    if name in ("integer_pow", "square"):
        power = params.get("y", 2)
        yield "raise to one power less in @", lambda i, r, k: [i[0] ** float(power - 1)]
        yield "raise to one power more in @", lambda i, r, k: [i[0] ** float(power + 1)]
    if name in ("rsqrt", "sqrt"):
        yield "square @", lambda i, r, k: [r[0] ** 2]
        yield "cube @", lambda i, r, k: [r[0] ** 3]
    if name in _UNARY:
        yield "leave out the function in @", lambda i, r, k: [i[0]]
    if name == "reduce_sum":
        n = math.prod(_shape(eqn.invars[0])) // max(1, size)
        if n > 1:
            yield f"divide @ by {n} (mean for sum)", lambda i, r, k: [r[0] / n]
            yield f"multiply @ by {n} (sum for mean)", lambda i, r, k: [r[0] * n]
            yield "take one element for the sum in @", lambda i, r, k: [_one(i[0], params["axes"])]
    if name == "dot_general":
        for k in (0, 1):
            a = _shape(eqn.invars[k])
            if len(a) >= 2 and a[-1] == a[-2] > 1:
                yield (
                    f"transpose the {'second' if k else 'first'} matrix in @",
                    _redo(
                        eqn,
                        lambda i, n=k: [
                            np.swapaxes(x, -1, -2) if j == n else x for j, x in enumerate(i)
                        ],
                    ),
                )
    if name == "select_n" and len(eqn.invars) == 3:
        yield "swap the two cases of @", lambda i, r, k: [np.where(i[0], i[1], i[2])]
        yield "take the second case of @ everywhere", lambda i, r, k: [i[1]]
        yield "take the first case of @ everywhere", lambda i, r, k: [i[2]]
    if name in ("scan", "rev", "slice", "concatenate", "pad", "dynamic_slice", "split"):
        for step, word in ((1, "later"), (-1, "earlier")):
            yield f"shift @ one step {word}", lambda i, r, k, s=step: [_shift(x, s) for x in r]
    if name == "scan":
        yield "reverse the direction of @", _redo_scan(eqn)
    if name in ("rev",):
        yield "do not reverse in @", lambda i, r, k: [i[0]]


_TRANSPARENT = {
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "convert_element_type", "copy",
    "stop_gradient", "optimization_barrier",
}  # fmt: skip
_UNARY = {
    "exp", "log", "tanh", "logistic", "sin", "cos", "sqrt", "rsqrt", "log1p", "expm1", "abs",
    "sign", "erf", "square",
}  # fmt: skip


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


def _redo(eqn: core.JaxprEqn, operands: Callable[[list], list]) -> Change:
    return lambda i, r, known: [primitives.RULES[eqn.primitive.name](*operands(i), **eqn.params)]


def _redo_scan(eqn: core.JaxprEqn) -> Change:
    """Run the loop the other way round."""

    def change(inputs, results, known):
        program = Program(lambda *x: x, 0.0)
        return CONTROL["scan"](program, eqn, inputs, None, reverse=not eqn.params["reverse"])

    return change


def _safely(change: Change, eqn: core.JaxprEqn) -> Change:
    """Keep the shapes: a change that does not fit leaves the results as they are."""

    def run(inputs, results, known):
        try:
            changed = change(inputs, results, known)
        except (ValueError, IndexError, TypeError, KeyError, primitives.Unsupported):
            return results
        if any(np.shape(c) != np.shape(r) for c, r in zip(changed, results, strict=True)):
            return results
        return [np.asarray(c).astype(r.dtype) for c, r in zip(changed, results, strict=True)]

    return run


# --- mending -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Mend:
    """A change that makes a wrong derivation right."""

    place: Place | None
    words: str


def mend(
    program: Program,
    trials: Iterable[Mutant],
    rows: Sequence[Sequence[np.ndarray]],
    agrees: Sequence[Callable[[list[np.ndarray]], bool]],
    most: int = 3,
) -> list[Mend]:
    """The single changes with which the program's results agree with the truth on every row.

    agrees: for each row, whether results are the true ones to the noise. Equal suggestions on
    one line are merged, the first kept.
    """
    found: dict[Any, Mend] = {}
    for mutant in trials:
        key = (mutant.place.file, mutant.place.line) if mutant.place else mutant.words
        if key in found:
            continue
        if all(ok(mutant.run(program, row)) for row, ok in zip(rows, agrees, strict=True)):
            found[key] = Mend(mutant.place, mutant.words)
            if len(found) >= most:
                break
    return list(found.values())
