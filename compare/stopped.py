"""What would make a derivation right that raises, or returns a gradient of another shape.

There is nothing to compare, but an edit of its source can be tried all the same: first one of the
lines that the traceback shows.
"""

import ast
import contextlib
import functools
import itertools
import math
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from handgrad.compare.interpret import Program
from handgrad.compare.kept import Kept
from handgrad.compare.mending import Edited, Instance, Search, Source, agree, instance
from handgrad.compare.mutate import Mend
from handgrad.compare.patience import patience
from handgrad.compare.problem import Problem, Row, Trouble
from handgrad.compare.rewrite import Kind, Rewrite, Written, written
from handgrad.compare.source import is_library

__all__ = ["mends"]

ERRORS = TypeError | ValueError | IndexError | KeyError | None  # what shapes that do not fit raise
KINDS: tuple[Kind, ...] = ("likely", "unlikely", "simple", "named", "further")
SECONDS = 1.0  # for each kind of edit of lines that the traceback does not show
PATIENCE = 12.0  # for all of them
ROWS = 3  # pairs of inputs and cotangents at which an edit has to be right
SIZES = 3  # and other sizes


def mends(
    problem: Problem, reference: Row, column: Sequence[np.ndarray], trouble: Trouble
) -> list[Mend]:
    """At most two edits; none where the trouble is not of this kind."""
    error = trouble.error
    if problem.large or not isinstance(error, ERRORS):
        return []
    kept = Kept(problem.candidate, problem.leaves)
    verified = [*problem.verified]
    said = None if error is None else (error.args, error.__traceback__)
    try:
        return _Search(problem, reference, column, kept, trouble).mends()
    finally:
        problem.verified = verified
        kept.restore(large=True)
        if error is not None and said is not None:  # an object that is raised again and again
            error.args, error.__traceback__ = said


class _Search(Search):
    """The derivation, and what autodiff gives at a few inputs."""

    def __init__(
        self, problem: Problem, reference: Row, column: Sequence[np.ndarray], kept: Kept,
        trouble: Trouble,
    ):  # fmt: skip
        self.problem, self.kept, self.here, self.error = problem, kept, [], trouble.error
        traced = trouble.__cause__  # what is written for NumPy JAX refuses in another line
        self.for_numpy = traced is not None and _frames(traced)[-1:] != _frames(self.error)[-1:]
        self.shared = {w.function.__code__: w for w in written(problem.reference)}
        rows = [([*column], reference.one(column)), *self._elsewhere(reference, ROWS - 1)]
        self.columns, self._everything = ([*each] for each in zip(*rows, strict=True))
        self.given = 1
        self.expect(problem.verified)

    @property
    def traceable(self) -> bool:
        return False  # as it is

    @property
    def before(self) -> list[np.ndarray]:
        return []

    def expect(self, verified: list[int]) -> None:
        """The gradients of these variables: which are returned is known when something is."""
        p, n = self.problem, len(self.problem.cotangent_shapes)
        split = n if p.kind == "function" else 0
        p.verified = verified
        truths = [[*every[:split], *(every[n + i] for i in verified)] for every in self._everything]
        self.truth = truths[0]
        self.agrees = [functools.partial(agree, truth) for truth in truths]
        self.loosely = functools.partial(agree, truths[0], close=1e-3)  # NumPy keeps to float32

    def told(self, results: list[np.ndarray], anywhere: bool) -> bool | None:
        return None

    def mends(self) -> list[Mend]:
        edited = _Edited(self)
        every = edited.lines
        shown = every & {*_frames(self.error)}
        if self.error is not None and not shown:  # it is the call itself that raises, say
            return []
        until = time.thread_time() + PATIENCE
        for lines, seconds in ((shown, math.inf), (every - shown, SECONDS)):
            for kind in KINDS if lines else ():
                left = until - time.thread_time()
                found = edited.mends(kind, lines, min(seconds, left)) or self.here[:1]
                if found:
                    return found
        return []


class _Edited(Edited):
    """The derivation with its source edited, which does not run as it is."""

    search: _Search

    @property
    def lines(self) -> set[tuple[str, int]]:
        """All that can be edited."""
        return {
            (source.written.function.__code__.co_filename, node.lineno)
            for source in self.sources
            for node in ast.walk(source.written.definition)
            if isinstance(node, ast.expr | ast.stmt)
        }

    def _source(self, written: Written) -> Source | None:
        column = self.search.columns[0]
        started = time.thread_time()
        symptom = self._symptom(lambda: self._run(written.compiled(), column))
        seconds = time.thread_time() - started
        by_numpy = self._symptom(lambda: self._numpy(written.compiled(self.names)))
        return Source(written, by_numpy >= symptom, seconds)

    def _symptom(self, run: Callable[[], list]) -> float:
        """The line that raises, or infinity: how far it comes."""
        try:
            with patience(self.patience):
                run()
        except Exception as error:
            return next((line for _, line in reversed(_frames(error))), 0)
        else:
            return math.inf
        finally:
            self.search.kept.restore()

    def _variant(self, candidate: Callable, problem: Problem | None = None) -> Problem:
        self._latest = super()._variant(candidate, problem)
        return self._latest

    def _attempt(
        self, run: Callable[[], list], like: Sequence[np.ndarray] | None = None
    ) -> list | None:
        def noted() -> list:
            results = run()
            if self._latest.verified != self.problem.verified:
                self.search.expect(self._latest.verified)
            return results

        return super()._attempt(noted, like)

    def _run(
        self, candidate: Callable, column: list[np.ndarray], problem: Problem | None = None
    ) -> list:
        """As JAX runs it; or as Python does, if that cannot be."""
        variant = self._variant(candidate, problem)
        if not self.search.for_numpy:
            with contextlib.suppress(Exception):
                return Program(variant.candidate_row, *column, widened=variant.widened)(*column)
        return [np.array(r) for r in variant.candidate_row(*[v.copy() for v in column])]

    def _instance(
        self, candidate: Callable, args: tuple, reference: Callable | None = None
    ) -> Instance | None:
        ways = (False,) if self.search.for_numpy else (True, False)
        found = (instance(self.problem, candidate, args, way, reference) for way in ways)
        return next(filter(None, found), None)

    def _right_elsewhere(self, trial: Rewrite) -> bool:
        """At a few other sizes, of those at which it runs; at what a search started from."""
        p, candidate = self.problem, trial.candidate()
        if p.beside is not None:
            beside = self._instance(candidate, p.tree.unflatten(p.beside))
            if beside is None or not self._right(beside):
                return False
        return all(self._right(at) for at in itertools.islice(self._elsewhere(candidate), SIZES))

    def _elsewhere(self, candidate: Callable) -> Iterator[Instance]:
        for family in self.sizes:
            for k, sizes in enumerate(family):
                at = self._at(sizes, k, candidate)
                if at is not None:
                    yield at


def _frames(error: BaseException | None) -> list[tuple[str, int]]:
    """The lines of the user's own that a traceback shows, the innermost last."""
    shown = traceback.extract_tb(None if error is None else error.__traceback__)
    return [(f.filename, f.lineno or 0) for f in shown if not is_library(f.filename)]
