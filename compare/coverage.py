"""Which parts of a hand-written derivation the inputs exercise.

The traced derivation is changed in one place at a time (`mutate`). A change that alters no
gradient on the inputs of the check has survived them: what stands at its place is not verified
by these inputs, however right the gradient looks. Further inputs tell a weak sample from a
change that no input can show.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from handgrad.compare import judge, witness
from handgrad.compare.examination import fingerprint
from handgrad.compare.interpret import Program
from handgrad.compare.judge import Rows
from handgrad.compare.laboratory import laboratory
from handgrad.compare.mutate import Mutant, mutants
from handgrad.compare.mutations import Values
from handgrad.compare.problem import Kind, Problem, Row, Trouble, name_of
from handgrad.compare.source import Place


@dataclasses.dataclass(frozen=True)
class Survivor:
    """A change that the inputs do not notice, and why none of those tried does."""

    place: Place | None
    words: str
    reason: str = ""

    @property
    def key(self) -> tuple:
        """The same for other sizes of the same inputs."""
        where = (self.place.file, self.place.line, self.place.text) if self.place else ()
        return *where, re.sub(r"by \d+ \(", "by N (", self.words)

    def __str__(self) -> str:
        words = f"{self.words}: {UNREACHED}" if self.reason == UNREACHED else self.words
        return f"{self.place}: {words}" if self.place else words


UNREACHED = "no input tried comes there"  # a branch of a condition, or a loop of no rounds


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How many of the changes the inputs notice."""

    name: str
    killed: int
    survived: tuple[Survivor, ...] = ()  # noticed at other inputs only, or run at none
    equivalent: tuple[Survivor, ...] = ()  # noticed at no input tried
    unavailable: str | None = None
    noticed: frozenset[tuple] = frozenset()  # the keys of those killed

    @property
    def total(self) -> int:
        """How many there are to notice."""
        return self.killed + len(self.survived)

    @property
    def fraction(self) -> float:
        """Killed over killable; 1 where there is nothing to kill."""
        return self.killed / self.total if self.total else 1.0

    def reaches(self, least: float) -> bool:
        """Whether it is at least this; what cannot be measured is not."""
        return self.unavailable is None and self.fraction >= least

    def to_dict(self) -> dict:
        """For JSON."""

        def plain(changes: tuple[Survivor, ...]) -> list[dict]:
            return [{"place": str(c.place), "change": c.words, "reason": c.reason} for c in changes]

        return {
            "name": self.name, "unavailable": self.unavailable, "noticed": self.killed,
            "of": self.total, "survived": plain(self.survived),
            "equivalent": plain(self.equivalent),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.unavailable:
            return f"{self.name}: coverage not available: {self.unavailable}"
        lines = [
            f"{self.name}: the inputs notice {self.killed} of {self.total} changes "
            f"({self.fraction:.0%}); "
            f"{len(self.equivalent)} changes make no difference at any input tried"
        ]
        lines += [f"  not verified by these inputs: {s}" for s in self.survived]
        return "\n".join(lines)


def together(name: str, parts: Sequence[Coverage]) -> Coverage:
    """What several inputs notice between them, each change of a line counted once."""
    measured = [p for p in parts if p.unavailable is None]
    if not measured:
        reasons = dict.fromkeys(p.unavailable for p in parts)
        return Coverage(name, 0, unavailable="; ".join(filter(None, reasons)))
    noticed = frozenset(key for p in measured for key in p.noticed)
    run = {s.key for p in measured for s in p.equivalent}
    weak = {
        s.key: s
        for p in measured
        for s in p.survived
        if s.key not in noticed and not (s.reason == UNREACHED and s.key in run)
    }
    same = {
        s.key: s
        for p in measured
        for s in p.equivalent
        if s.key not in noticed and s.key not in weak
    }
    return Coverage(name, len(noticed), tuple(weak.values()), tuple(same.values()), noticed=noticed)


def coverage(
    candidate: Callable, reference: Callable, *args: Any, kind: Kind = "function", seed: int = 0,
    argnums: Sequence[int] | None = None, name: str | None = None,
) -> Coverage:  # fmt: skip
    """The coverage of a derivation by sample inputs; the arguments are those of `examine`."""
    title = name or name_of(candidate)
    try:
        problem = Problem(candidate, reference, args, kind, argnums)
        rows = Rows.plan(problem, seed)
        with laboratory():
            row = Row(problem.candidate_row, [c[0] for c in rows.columns], problem.widened)
            hidden = _hidden(row, problem)
    except Trouble as trouble:
        return Coverage(title, 0, unavailable=str(trouble))
    if hidden is not None:
        return Coverage(title, 0, unavailable=hidden)
    with laboratory():
        return _measure(title, row, rows, _further(problem, rows, seed))


def _hidden(row: Row, problem: Problem) -> str | None:
    """Why what the derivation does cannot be changed equation by equation."""
    if row.untraceable is not None:
        return f"JAX cannot trace it ({row.untraceable})"
    if row.calls_back:
        return "it calls back into Python, and what that does cannot be seen"
    if row.single.jaxpr.effects:
        effects = ", ".join(sorted(map(str, row.single.jaxpr.effects)))
        return f"it has side effects ({effects}), which a change could not be run without"
    again = Program(problem.candidate_row, *row.like, widened=problem.widened)
    if fingerprint(again.jaxpr) != fingerprint(row.single.jaxpr):
        return (
            "it is not deterministic: traced twice it is two different programs; "
            "pass random numbers or a key as an argument"
        )
    return None


def _further(problem: Problem, rows: Rows, seed: int) -> list[list[np.ndarray]]:
    """Other inputs: larger, smaller, of other signs, drawn anew."""
    n = len(problem.variables)
    rng = witness.seeded(seed, "further")
    values = [c[0] for c in rows.columns[:n]]
    dys = [rng.standard_normal(c.shape[1:]) for c in rows.columns[n:]]
    if problem.kind == "gradient":
        dys = [np.ones(())]
    scaled = [[s * v for v in values] for s in (0.1, 10.0, -1.0)]
    drawn = [[rng.standard_normal(v.shape) for v in values] for _ in range(2)]
    return [[*sample, *dys] for sample in (*scaled, *drawn)]


def _measure(title: str, row: Row, rows: Rows, further: list[list[np.ndarray]]) -> Coverage:
    own = [[c[r] for c in rows.columns] for r in range(len(rows))]
    program = row.single
    known = {id(inputs): program.values(*inputs) for inputs in (*own, *further)}
    base = {id(inputs): program(*inputs) for inputs in (*own, *further)}

    def notices(mutant: Mutant, inputs: list[np.ndarray], finite: bool = False) -> bool:
        results = mutant.run(program, known[id(inputs)])
        if finite and not all(map(_finite, results)):
            return False  # an overflow far from the sample says nothing of it
        return any(map(_changed, results, base[id(inputs)]))

    noticed, survived, equivalent = [], [], []
    for mutant in mutants(program):
        found = Survivor(mutant.place, mutant.words)
        if any(notices(mutant, inputs) for inputs in own):
            noticed.append(found.key)
        elif any(notices(mutant, inputs, finite=True) for inputs in further):
            survived.append(found)
        else:
            every = [known[id(inputs)] for inputs in (*own, *further)]
            reason = _reason(program, mutant, every)
            found = dataclasses.replace(found, reason=reason)
            (survived if reason == UNREACHED else equivalent).append(found)
    return Coverage(
        title, len(noticed), tuple(survived), tuple(equivalent), noticed=frozenset(noticed)
    )


def _reason(program: Program, mutant: Mutant, known: Sequence[Values]) -> str:
    """Why a change makes no difference: to the value itself, or to what comes of it."""
    if not any(_reached(program, mutant, values) for values in known):
        return UNREACHED
    before, after, last = [], [], []
    rng = np.random.default_rng(0)
    for values in known:
        for top in mutant.at:
            step = program.steps()[top]
            plain = [values[v] for v in step.eqn.outvars]
            changed = mutant.changed(program, top)(program.inputs(step, values), plain, values)
            before += plain
            after += changed
            other = {top: lambda i, r, k: [x + rng.standard_normal(np.shape(x)) for x in r]}
            if all(np.issubdtype(np.asarray(x).dtype, np.floating) for x in plain):
                base = program.resume(values, {})
                last.append(any(map(_changed, program.resume(values, other), base)))
    if not any(map(_changed, after, before)):
        zero = not any(np.any(x) for x in before)
        return "the value is zero" if zero else "the value stays what it is"
    if last and not any(last):
        return "no result depends on the value"
    return "what follows cancels or ignores the change"


def _reached(program: Program, mutant: Mutant, values: Values) -> bool:
    """Whether the equation that is changed is run."""
    for top, (eqn, _) in mutant.at.items():
        step, run = program.steps()[top], []

        def after(inner, inputs, results, eqn=eqn, run=run):
            run.append(inner is eqn)
            return results

        if step.eqn is eqn:
            return True
        program.redo(step, program.inputs(step, values), after)
        if any(run):
            return True
    return not mutant.at


def _finite(x: np.ndarray) -> bool:
    return not np.issubdtype(x.dtype, np.inexact) or bool(np.isfinite(x).all())


def _changed(mutated: np.ndarray, base: np.ndarray) -> bool:
    if not np.issubdtype(base.dtype, np.inexact) or not base.size:
        return bool((mutated != base).any())
    with np.errstate(all="ignore"):
        finite = np.abs(base[np.isfinite(base)])
        scale = np.abs(np.nan_to_num(base)) + (np.sqrt(np.mean(finite**2)) if finite.size else 0)
        return bool(judge.differs(mutated, base, 1e4 * witness.EPS * scale).any())
