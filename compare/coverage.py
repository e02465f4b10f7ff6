"""Which parts of a hand-written derivation the inputs exercise.

The traced derivation is changed in one place at a time (`mutate`). A change that alters no
gradient on the inputs of the check has survived them: what stands at its place is not verified
by these inputs, however right the gradient looks. Further inputs tell a weak sample from a
change that no input can show.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from handgrad.compare import judge, witness
from handgrad.compare.judge import Rows
from handgrad.compare.laboratory import laboratory
from handgrad.compare.mutate import Mutant, mutants
from handgrad.compare.problem import Kind, Problem, Row, Trouble, name_of
from handgrad.compare.source import Place


@dataclasses.dataclass(frozen=True)
class Survivor:
    """A change that the inputs do not notice."""

    place: Place | None
    words: str

    def __str__(self) -> str:
        return f"{self.place}: {self.words}" if self.place else self.words


@dataclasses.dataclass(frozen=True)
class Coverage:
    """How many of the changes the inputs notice."""

    name: str
    killed: int
    survived: tuple[Survivor, ...] = ()  # noticed at other inputs only: these are weak
    equivalent: tuple[Survivor, ...] = ()  # noticed at no input tried
    unavailable: str | None = None

    @property
    def fraction(self) -> float:
        """Killed over killable; 1 where there is nothing to kill."""
        total = self.killed + len(self.survived)
        return self.killed / total if total else 1.0

    def __str__(self) -> str:
        if self.unavailable:
            return f"{self.name}: coverage not available: {self.unavailable}"
        total = self.killed + len(self.survived)
        lines = [
            f"{self.name}: the inputs notice {self.killed} of {total} changes "
            f"({self.fraction:.0%}); "
            f"{len(self.equivalent)} changes make no difference at any input tried"
        ]
        lines += [f"  not verified by these inputs: {s}" for s in self.survived]
        return "\n".join(lines)


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
    except Trouble as trouble:
        return Coverage(title, 0, unavailable=str(trouble))
    if row.untraceable is not None:
        return Coverage(title, 0, unavailable=f"JAX cannot trace it ({row.untraceable})")
    with laboratory():
        return _measure(title, row, rows, _further(problem, rows, seed))


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

    def notices(mutant: Mutant, inputs: list[np.ndarray]) -> bool:
        return any(map(_changed, mutant.run(program, known[id(inputs)]), base[id(inputs)]))

    killed, survived, equivalent = 0, [], []
    for mutant in mutants(program):
        if any(notices(mutant, inputs) for inputs in own):
            killed += 1
        else:
            weak = any(notices(mutant, inputs) for inputs in further)
            (survived if weak else equivalent).append(Survivor(mutant.place, mutant.words))
    return Coverage(title, killed, tuple(survived), tuple(equivalent))


def _changed(mutated: np.ndarray, base: np.ndarray) -> bool:
    if not np.issubdtype(base.dtype, np.inexact) or not base.size:
        return bool((mutated != base).any())
    with np.errstate(all="ignore"):
        finite = np.abs(base[np.isfinite(base)])
        scale = np.abs(np.nan_to_num(base)) + (np.sqrt(np.mean(finite**2)) if finite.size else 0)
        return bool(judge.differs(mutated, base, 1e4 * witness.EPS * scale).any())
