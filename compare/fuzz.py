"""Search for an input at which a derivation fails, and make it as small as possible.

Many samples of one shape are judged at a glance, in float64, with one random cotangent each. What
differs there is examined for itself, as `check` would, so that kinks and rounding raise no alarm.
"""

import dataclasses
import importlib.util
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare import inputs, judge, witness
from handgrad.compare.examination import Examination
from handgrad.compare.judge import Rows
from handgrad.compare.laboratory import laboratory
from handgrad.compare.patience import patience
from handgrad.compare.problem import Kind, Problem, Trouble, is_inexact
from handgrad.compare.report import Report

__all__ = ["Found", "search"]

TRIALS = 500
BATCH = 25  # samples of one shape
CONFIRMED = 4  # of these, how many are examined for themselves
STEPS = 150  # of shrinking, at most
PATIENCE = 5.0  # seconds of a loop that may converge for numbers like the user's alone
DIGITS = 40  # enough to say which side lost its digits
OWN = "your inputs"  # how the judge calls the sample that was given


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search found: nothing, or the arguments at which the derivation fails."""

    trials: int  # inputs tried, until the first that fails
    shapes: int
    args: tuple | None = None
    kept: tuple[str, ...] = ()  # what was not tried, though the reference is defined there


def search(
    candidate: Callable, reference: Callable, args: tuple, *, kind: Kind = "function",
    argnums: Sequence[int] | None = None, seed: int = 0, trials: int = TRIALS,
    seconds: float = np.inf, progress: Callable[[int], None] = lambda done: None,
    alike: Sequence[tuple] = (),
) -> Found:  # fmt: skip
    """Try inputs like `args`, of other shapes and scales, with special values and ties in them.

    seconds: stop then, whatever has been tried. progress(trials): called now and then.
    alike: arguments that were drawn in the same way; what signs they may have, all of them tell.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = _Search(candidate, reference, args, kind, argnums, seed, seconds, alike)
        return whole.run(trials, progress)


class _Search:
    def __init__(
        self, candidate: Callable, reference: Callable, args: tuple, kind: Kind,
        argnums: Sequence[int] | None, seed: int, seconds: float, alike: Sequence[tuple] = (),
    ):  # fmt: skip
        self.sides, self.argnums, self.seed = (candidate, reference), argnums, seed
        self.kind: Kind = kind
        self.leaves, self.tree = jax.tree.flatten(args)
        drawn = [jax.tree.leaves(each) for each in (args, *alike)]
        self.domains = [inputs.Domain.of_draws(*leaves) for leaves in zip(*drawn, strict=True)]
        self.until = time.monotonic() + seconds
        self.rng = witness.seeded(seed, "search")
        self.steps = STEPS
        self.digits = DIGITS if importlib.util.find_spec("mpmath") else None

    def run(self, trials: int, progress: Callable[[int], None]) -> Found:
        done, shapes = 0, set()
        resizings = inputs.resizings(self.leaves, self.rng)
        for turn in itertools.count():
            n = min(BATCH, trials - done)
            if n <= 0 or time.monotonic() > self.until:
                break
            samples = self._samples(next(resizings, {}) if turn % 2 else {}, n)
            failing = self._failing(samples)
            progress(n)
            done += n
            if failing is None:  # these sizes do not go together
                continue
            shapes.add(tuple(np.shape(x) for x in samples[0] if inputs.is_array(x)))
            for k in failing:
                if self._fails(samples[k]):
                    return Found(done - n + k + 1, len(shapes), self._smallest(samples[k]))
        return Found(done, len(shapes), kept=self._kept() if done else ())

    def _samples(self, sizes: inputs.Sizes | inputs.Axes, n: int) -> list[list[Any]]:
        """Samples of one shape; what is no variable (labels, masks) is the same in all of them."""
        base = inputs.draw(self.leaves, sizes, self.rng, self.domains)
        if not sizes and self.rng.random() < 0.5:
            base = self.leaves
        samples = []
        for _ in range(n):
            new = inputs.draw(self.leaves, sizes, self.rng, self.domains)
            alone = int(self.rng.integers(len(new))) if self.rng.random() < 0.3 else None
            samples.append(
                [
                    x if _is_variable(x) and alone in (None, i) else b
                    for i, (x, b) in enumerate(zip(new, base, strict=True))
                ]
            )
        return samples

    def _problem(self, leaves: Sequence[Any]) -> Problem:
        args = jax.tree.unflatten(self.tree, leaves)
        return Problem(*self.sides, args, self.kind, self.argnums)

    def _failing(self, samples: list[list[Any]]) -> list[int] | None:
        """Some of the samples that differ at a glance; None where the functions take none."""
        found = self._glanced(samples)
        if found is None:
            return None
        _, found = found
        return found if len(found) <= CONFIRMED else [found[i] for i in _evenly(len(found))]

    def _glanced(self, samples: list[list[Any]]) -> tuple[list[int], list[int]] | None:
        """The samples at which the reference is finite, and those that differ; as `_failing`."""
        try:
            problem = self._problem(samples[0])
            values = [self._problem(sample).values() for sample in samples]
            with patience(PATIENCE):
                return _Glance(problem, Report("", self.kind, self.seed)).differing(values)
        except (Trouble, TimeoutError):
            return None

    def _fails(self, leaves: Sequence[Any]) -> bool:
        """Whether it is wrong here, and by more than a convention at a point.

        Beside numbers of 1e4 the numerical derivative is too coarse to know a kink. So what is
        wrong at a point alone has to be wrong with these numbers cut off at 8 as well.
        """
        if not self._wrong(leaves):
            return False
        if self._wrong(inputs.nudged(leaves, self.domains, witness.seeded(self.seed, "nudge"))):
            return True
        tamed = inputs.tamed(leaves, self.domains)
        same = all(
            np.array_equal(a, b) for a, b in zip(leaves, tamed, strict=True) if _is_variable(a)
        )
        return same or self._wrong(tamed)

    def _wrong(self, leaves: Sequence[Any]) -> bool:
        """Whether `check` fails, at these inputs rather than near them, and not through autodiff.

        With mpmath at hand, gradients in which autodiff loses the digits are told from wrong ones.
        """
        try:
            problem = self._problem(leaves)
            with patience(PATIENCE):
                report = _Brief(problem, Report("", self.kind, self.seed)).run()
            if not _wrong_itself(report) or not self.digits:
                return _wrong_itself(report)
            with patience(PATIENCE):
                report = _Brief(problem, Report("", self.kind, self.seed), self.digits).run()
        except (Trouble, TimeoutError):
            return False
        exactness = report.exactness
        lost = exactness is not None and any(a.inaccurate for a in exactness.agreements)
        return lost or _wrong_itself(report)

    # --- what was left out ---

    def _kept(self) -> tuple[str, ...]:
        """Arguments that were kept positive, say, though the reference is finite elsewhere.

        That the inputs are positive may be chance or a condition of the derivation: no alarm.
        """
        try:
            problem = self._problem(self.leaves)
        except Trouble:
            return ()
        said = []
        for i, variable in zip(problem._places, problem.variables, strict=True):
            domain = self.domains[i]
            x = np.asarray(self.leaves[i])
            first = np.arange(x.size).reshape(x.shape) == 0
            samples = [
                inputs.replaced(self.leaves, i, np.where(first, v, x)) for v in domain.others
            ]
            glanced = self._glanced(samples) if samples else None
            if glanced is None or not glanced[0]:
                continue
            fails = [domain.others[k] for k in glanced[1] if self._fails(samples[k])]
            where = f" (it fails where an element is {fails[0]:g})" if fails else ""
            kept = {"unit interval": "between 0 and 1"}.get(domain.kind, domain.kind)
            said.append(f"{variable.path} was kept {kept}, as your inputs are{where}")
        return tuple(said)

    # --- smaller ---

    def _smallest(self, leaves: list[Any]) -> tuple:
        self.until = max(self.until, time.monotonic() + 30)
        for move in (self._simpler, self._fewer, self._simpler, self._fewer):
            while (new := move(leaves)) is not None:
                leaves = new
        return jax.tree.unflatten(self.tree, leaves)

    def _fewer(self, leaves: list[Any]) -> list[Any] | None:
        for sizes, start in inputs.smaller(leaves):
            new = inputs.shrunk(leaves, sizes, start)
            if self._tired():
                break
            if self._fails(new):
                return new
        return None

    def _simpler(self, leaves: list[Any]) -> list[Any] | None:
        every = inputs.simpler(leaves, self.domains)
        while (batch := list(itertools.islice(every, BATCH))) and not self._tired():
            for k in self._failing(batch) or ():
                if self._fails(batch[k]):
                    return batch[k]
        return None

    def _tired(self) -> bool:
        self.steps -= 1
        return self.steps < 0 or time.monotonic() > self.until


class _Glance(Examination):
    """Many samples, one cotangent each."""

    def differing(self, samples: Sequence[list[np.ndarray]]) -> tuple[list[int], list[int]]:
        """The samples at which the reference is finite, and those of them that differ."""
        p, rng = self.problem, witness.seeded(self.seed, "glance")
        cotangents = [
            np.zeros(s, complex if jnp.issubdtype(d, np.complexfloating) else float)
            for s, d in zip(p.cotangent_shapes, p.cotangent_dtypes, strict=True)
        ]
        one = p.kind == "gradient"
        columns = [
            np.stack(column)
            for column in zip(
                *(
                    [*s, *(np.ones(()) if one else judge.gaussian(rng, c) for c in cotangents)]
                    for s in samples
                ),
                strict=True,
            )
        ]
        with laboratory():
            like, self.rows = [c[0] for c in columns], len(samples)
            self.reference = self._trace_reference(like)
            self.candidate = self._trace_candidate(like)
            truth = self.reference.rows(columns)
            finite = [np.isfinite(t).reshape(len(samples), -1).all(1) for t in truth]
            known = np.flatnonzero(np.logical_and.reduce(finite))
            if not known.size:
                return [], []
            rows = Rows([c[known] for c in columns], [""] * len(known), [1] * len(known))
            self._shapes(rows)
            n = len(p.cotangent_shapes)
            pick = [*range(n if p.kind == "function" else 0), *(n + i for i in p.verified)]
            c = judge.compare(
                p, self.candidate, self.reference, rows, [""] * len(pick), pick, self.seed
            )
        differ = np.logical_or.reduce([w.reshape(len(known), -1).any(1) for w in c.wrong])
        return known.tolist(), known[differ].tolist()


def _wrong_itself(report: Report) -> bool:
    """Where the numerical derivative sides with neither, nobody knows who is right."""
    return any(
        not q.ok and q.where.partition(",")[0] == OWN and q.siding != "neither"
        for q in (*report.outputs, *report.gradients)
    )


class _Brief(Examination):
    """The verdict alone, in doubt for the derivation: no run in its dtype, no explanation."""

    explains = False

    def _judged(self, rows: Rows, paths: list[str], pick: list[int]) -> judge.Comparison:
        c = super()._judged(rows, paths, pick)
        judge.doubt(c, self.problem, self.reference, pick, self.seed)
        return c

    def _start(self, cotangents: list, precision: str | None = None) -> None:
        return None


def _evenly(n: int) -> list[int]:
    return np.unique(np.linspace(0, n - 1, CONFIRMED).astype(int)).tolist()


def _is_variable(leaf: Any) -> bool:
    return inputs.is_array(leaf) and is_inexact(leaf)
