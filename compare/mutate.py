"""Small changes to a hand-written backward, one at a time.

A wrong derivation that one change makes right is *mended*: the change is the diagnosis. A right
one that a change leaves right was not *exercised* there by the inputs: coverage.

The interpreter computes anew what follows from the changed equation, and nothing is compiled.
What changes there are stands in `mutations`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.compare import primitives
from handgrad.compare.interpret import CALLS, CONTROL, Program, scan_layout
from handgrad.compare.mutations import (
    REPEATING,
    TRANSPARENT,
    Change,
    Values,
    applied,
    changes,
    combined,
    is_float,
    is_value,
    replaced,
)
from handgrad.compare.source import Place, place

Offers = Callable[[core.JaxprEqn, Sequence[core.Var], dict], Iterator[tuple[str, Change]]]


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change of one equation, or of all those that a line makes again and again."""

    at: dict[int, tuple[core.JaxprEqn, Change]]  # by the equation of the outermost jaxpr
    words: str  # "negate `d.mean(-1)`"
    place: Place | None
    of: tuple[core.Var, Callable] | None = None  # or of something that it closes over

    def run(self, program: Program, values: Values) -> list[np.ndarray]:
        """The program's results with this change; `values` are those of `program.values`."""
        given = {self.of[0]: self.of[1](values[self.of[0]])} if self.of else None
        return program.resume(values, {top: self.changed(program, top) for top in self.at}, given)

    def changed(self, program: Program, top: int) -> Callable:
        """(inputs, results, values) -> results of the outermost equation `top`, with the change."""
        eqn, change = self.at[top]
        step = program.steps()[top]

        def results(inputs: list, plain: list, known: Values) -> list:
            if step.eqn is eqn:
                return change(inputs, plain, known)
            known = dict(known)

            def after(inner, inputs, results):
                known.update((v, x) for v, x in zip(inner.invars, inputs, strict=True) if _var(v))
                if inner is eqn:
                    results = change(inputs, results, known)
                known.update(zip(inner.outvars, results, strict=True))
                return results

            return program.redo(step, inputs, after)

        return results

    def __str__(self) -> str:
        return f"{self.place}: {self.words}" if self.place else self.words


def mutants(program: Program) -> Iterator[Mutant]:
    """Every change of an equation by itself, in the order of the program."""
    return _every(program, lambda eqn, before, called: changes(eqn))


def richer(program: Program, names: Sequence[str]) -> Iterator[Mutant]:
    """More that may be wrong: a function left out or mistaken, a factor, a term, an operand.

    names: of the program's inputs.
    """
    linear = _linear(program, names)

    def with_others(eqn: core.JaxprEqn, before: Sequence[core.Var], called: dict) -> Iterator:
        return combined(eqn, before, called, linear)

    yield from _indices(program)
    for offers in (applied, replaced, with_others):
        yield from _every(program, offers, names)


def _linear(program: Program, names: Sequence[str]) -> set[core.Var]:
    """The variables that depend on the cotangent, inside loops and calls too."""
    found: set[core.Var] = set()

    def follow(jaxpr: core.Jaxpr) -> None:
        for eqn in jaxpr.eqns:
            if not any(_var(a) and a in found for a in eqn.invars):
                continue
            found.update(eqn.outvars)
            carries = range(*_carried(eqn))
            for inner in core.jaxprs_in_params(eqn.params):
                given = eqn.invars[len(eqn.invars) - len(inner.invars) :]
                for k, (outer, v) in enumerate(zip(given, inner.invars, strict=False)):
                    if k in carries or (_var(outer) and outer in found):
                        found.add(v)
                follow(inner)

    jaxpr = program.jaxpr.jaxpr
    found.update(v for v, name in zip(jaxpr.invars, names, strict=False) if name.startswith("dy"))
    follow(jaxpr)
    return found


def _carried(eqn: core.JaxprEqn) -> tuple[int, int]:
    """The operands that a loop carries, from and to."""
    if eqn.primitive.name != "scan":
        return 0, 0
    consts, carries = scan_layout(eqn)
    return consts, consts + carries


def _indices(program: Program) -> Iterator[Mutant]:
    """Integers that it closes over, one more or less: indices are no variables."""
    for var in program.jaxpr.jaxpr.constvars:
        if jnp.issubdtype(getattr(var.aval, "dtype", np.bool_), np.integer):
            users = [s.eqn for s in program.steps() if var in s.eqn.invars]
            where = place(users[0]) if users else None
            for step, word in ((1, "more"), (-1, "less")):
                words = f"take one {word} than the indices in `{where.text if where else '?'}`"
                yield Mutant({}, words, where, (var, lambda x, s=step: x + s))


def repeated(trials: Iterable[Mutant]) -> Iterator[Mutant]:
    """The same change wherever one expression has made an equation, as in an unrolled loop."""
    groups: dict[Any, list[Mutant]] = {}
    for mutant in trials:
        does = {eqn.primitive for eqn, _ in mutant.at.values()}
        groups.setdefault((mutant.place, mutant.words, *does), []).append(mutant)
    for (where, words, *_), members in groups.items():
        at = {top: change for m in members for top, change in m.at.items()}
        if len(at) > 1:
            yield Mutant(at, f"{words}, every time", where)


def _every(program: Program, offers: Offers, names: Sequence[str] = ()) -> Iterator[Mutant]:
    jaxpr = program.jaxpr.jaxpr
    called = dict(zip(jaxpr.invars, names, strict=False))
    called |= {v: "a constant" for v in jaxpr.constvars}
    before = [v for v in (*jaxpr.invars, *jaxpr.constvars) if is_value(v)]
    used = _used(jaxpr)
    inner = _inside_expressions(jaxpr)
    for top, step in enumerate(program.steps()):
        if id(step.eqn) not in inner:
            yield from _of(top, step.eqn, None, offers, before, used, called)


def _of(
    top: int, eqn: core.JaxprEqn, around: Place | None, offers: Offers, before: list, used: set,
    called: dict,
) -> Iterator[Mutant]:  # fmt: skip
    """The mutants of one equation and of those nested in it; it then stands in `before`."""
    where = place(eqn) or around
    name = eqn.primitive.name
    if name in CONTROL and not _library(eqn):
        for inner in core.jaxprs_in_params(eqn.params):
            inside, inner_used = [v for v in inner.invars if is_value(v)], _used(inner)
            hidden = _inside_expressions(inner)
            for nested in inner.eqns:
                if id(nested) in hidden:
                    continue
                yield from _of(top, nested, where, offers, inside, inner_used, called)
    if any(v in used for v in eqn.outvars):
        text = where.text if where else name
        for words, change in offers(eqn, before, called):
            yield Mutant({top: (eqn, _safely(change))}, _said_of(text, words), where)
    called.update((v, where.name if where else name) for v in eqn.outvars)
    if name not in REPEATING:
        before += [v for v in eqn.outvars if is_value(v)]


# What a factor passes through: that of a mean's sum is one of the mean.
_LINEAR = {
    "reduce_sum", "broadcast_in_dim", "convert_element_type", "reshape", "transpose", "neg",
    "squeeze", "div", "mul", "copy", "slice", "select_n", "cumsum", "dot_general", "rev", "sub",
    "gather", "concatenate", "pad", "add", "expand_dims", "scatter-add", "real", "imag",
}  # fmt: skip


def _inside_expressions(jaxpr: core.Jaxpr) -> set[int]:
    """Equations of a library function such as softmax, whose expression has another value.

    What is said of them would be read as said of the whole.
    """
    users: dict[core.Var, list[core.JaxprEqn]] = {}
    for eqn in jaxpr.eqns:
        for atom in eqn.invars:
            if isinstance(atom, core.Var):
                users.setdefault(atom, []).append(eqn)
    returned = {a for a in jaxpr.outvars if _var(a)}
    places = {id(eqn): place(eqn) for eqn in jaxpr.eqns}
    hidden: set[int] = set()
    for eqn in reversed(jaxpr.eqns):
        where = places[id(eqn)]
        using = [u for v in eqn.outvars for u in users.get(v, ())]
        if where is None or not using or any(v in returned for v in eqn.outvars):
            continue
        mine = [u for u in using if places[id(u)] == where and u.primitive is not eqn.primitive]
        if len(mine) == len(using) and any(
            u.primitive.name not in _LINEAR or id(u) in hidden for u in mine
        ):
            hidden.add(id(eqn))
    return hidden


def _said_of(text: str, words: str) -> str:
    """The words with the expression for @, save where @ is Python's, between backticks."""
    outside = words.split("`")
    outside[::2] = [said.replace("@", f"`{text}`") for said in outside[::2]]
    return "`".join(outside)


def _var(atom: Any) -> bool:
    return isinstance(atom, core.Var)


def _used(jaxpr: core.Jaxpr) -> set:
    """The variables that a result depends on."""
    live = {a for a in jaxpr.outvars if _var(a)}
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(v in live for v in eqn.outvars):
            live.update(a for a in eqn.invars if _var(a))
    return live


def _library(eqn: core.JaxprEqn) -> bool:
    """A call of a library function such as jnp.mean: changed as a whole, not inside."""
    if eqn.primitive.name not in CALLS:
        return False
    inner = next(iter(core.jaxprs_in_params(eqn.params)), None)
    if inner is None or not inner.eqns:
        return True
    mine, theirs = place(eqn), place(inner.eqns[0])
    return mine is None or theirs is None or (mine.file, mine.line) == (theirs.file, theirs.line)


def _safely(change: Change) -> Change:
    """Keep the shapes: a change that does not fit leaves the results as they are."""

    def run(inputs, results, known):
        if not all(isinstance(r, np.ndarray | np.generic) for r in results):
            return results  # random keys
        try:
            with np.errstate(all="ignore"):
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
    returns: bool = False  # it changes what a function returns
    here: str = ""  # where alone it is right: "at these sizes"


@dataclasses.dataclass
class Bench:
    """A wrong derivation with inputs at which it is wrong, and a test of what would be right."""

    program: Program
    values: list[Values]  # of every row
    agrees: Sequence[Callable[[list[np.ndarray]], bool]]  # row by row, to the noise
    truth: list[np.ndarray]  # at the first row

    def mended(self, mutant: Mutant) -> bool:
        return all(
            ok(mutant.run(self.program, values))
            for values, ok in zip(self.values, self.agrees, strict=True)
        )


def mend(bench: Bench, trials: Iterable[Mutant], most: int = 3, more: int = 200) -> list[Mend]:
    """The single changes that make it right; equal suggestions on one line are merged.

    After the first that does, `more` others are tried at most.
    """
    found: dict[Any, Mend] = {}
    for mutant in trials:
        if found:
            more -= 1
            if more < 0:
                break
        key = (mutant.place.file, mutant.place.line) if mutant.place else mutant.words
        if key not in found and bench.mended(mutant):
            found[key] = Mend(mutant.place, mutant.words)
            if len(found) >= most:
                break
    return list(found.values())


def constants(
    bench: Bench, affords: Callable[[int], bool], called: Sequence[str]
) -> Iterator[Mutant]:
    """A factor or a term that an equation lacks, solved for; the mend is still to be tested.

    It may be wanting in the result, or in one operand that other equations use as well. affords:
    whether one more equation, by its number, may be looked at. called: what the inputs are.
    """
    program, values = bench.program, bench.values[0]
    used = _used(program.jaxpr.jaxpr)
    hand = [values[v] for v in program.jaxpr.jaxpr.outvars if _var(v)]
    if len(hand) != len(bench.truth):
        return
    names: dict = dict(zip(program.jaxpr.jaxpr.invars, called, strict=False))
    hidden = _inside_expressions(program.jaxpr.jaxpr)
    for step in program.steps():
        where = place(step.eqn)
        name = where.name if where else step.eqn.primitive.name
        names.update((v, name) for v in step.eqn.outvars)
    for top, step in reversed([*enumerate(program.steps())]):  # the sum before what is summed
        out, name = step.eqn.outvars, step.eqn.primitive.name
        where = place(step.eqn)
        text = where.text if where else name
        if len(out) != 1 or out[0] not in used or not is_float(out[0]) or name in TRANSPARENT:
            continue
        if id(step.eqn) in hidden:
            continue
        if not affords(top):
            return
        yield from _solved(bench, top, f"`{text}`", where, lambda i, r, change: [change(r[0])])
        for n, atom in enumerate(step.eqn.invars if step.rule or name in CALLS else ()):
            if not isinstance(atom, core.Var) or not is_float(atom) or _uses(program, atom) < 2:
                continue

            def changed(i: list, r: list, change: Callable, n=n, step=step) -> list:
                inputs = [change(x) if k == n else x for k, x in enumerate(i)]
                return program.redo(step, inputs)

            what = f"`{names.get(atom, 'an argument')}` in `{text}`"
            yield from _solved(bench, top, what, where, changed)


def _uses(program: Program, var: core.Var) -> int:
    return sum(a is var for s in program.steps() for a in s.eqn.invars)


def _solved(
    bench: Bench, top: int, what: str, where: Place | None, changed: Callable
) -> Iterator[Mutant]:
    """What is changed in the equation number `top` multiplied by a constant, or added one to."""
    program, values = bench.program, bench.values[0]
    eqn = program.steps()[top].eqn
    for words, change, start in (
        ("multiply {} by {}", lambda x, c: x * c, 1.0),
        ("add {1} to {0}", lambda x, c: x + c, 0.0),
    ):

        def results(c: float, change=change) -> np.ndarray:
            new = {top: lambda i, r, k: changed(i, r, lambda x: change(x, c))}
            return _flat(program.resume(values, new))

        c = _solve(results, _flat(bench.truth), start)
        if c is not None:
            solved = _safely(lambda i, r, k, c=c, f=change: changed(i, r, lambda x: f(x, c)))
            nothing = start == 1 and abs(c) < 1e-12
            said = f"leave out {what}" if nothing else words.format(what, _number(c))
            yield Mutant({top: (eqn, solved)}, said, where)


def _flat(results: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(r) for r in results]) if results else np.zeros(0)


def _solve(results: Callable[[float], np.ndarray], truth: np.ndarray, start: float) -> float | None:
    """c with results(c) = truth, by Gauss and Newton; None as soon as it does not converge."""
    c, here = start, results(start)
    gap = np.linalg.norm(here - truth)
    for _ in range(25):
        h = 1e-6 * max(abs(c), 1e-3)
        slope = (results(c + h) - here) / h
        square = float(np.vdot(slope, slope).real)
        if not math.isfinite(square) or square == 0:
            return None
        step = float(np.vdot(slope, truth - here).real) / square
        if abs(step) <= 1e-14 * max(abs(c), 1e-3):
            return c
        c += step
        here = results(c)
        now = np.linalg.norm(here - truth)
        if not now < 0.7 * gap:
            return c if now <= 1e-9 * np.linalg.norm(truth) else None
        gap = now
    return c


def _number(c: float) -> str:
    """c, and what it may be: a fraction, or the root of one."""
    for power, form in ((1, "{}"), (2, "√({})")):
        for d in range(1, 65):
            n = abs(c) ** power * d
            if 1 <= round(n) <= 64 and abs(n - round(n)) < 1e-11 * n:
                fraction = f"{round(n)}/{d}" if d > 1 else f"{round(n)}"
                sign = "-" if c < 0 else ""
                return (
                    f"{c:.10g}" if d == 1 == power else f"{c:.10g} = {sign}{form.format(fraction)}"
                )
    enough = abs(float(f"{c:.10g}") - c) <= 5e-11 * abs(c)
    return f"{c:.10g}" if enough else f"{c:.15g}"
