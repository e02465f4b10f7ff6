"""What would make a wrong derivation right: one change of an equation, or one edit of its source.

What is likely comes first. Where NumPy can run the source as it stands, its edits are cheap; else
the changes of equations are, and where one of these mends, the edits of its line alone are tried:
they are easier to read.
"""

import ast
import contextlib
import copy
import dataclasses
import functools
import heapq
import io
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from handgrad.compare import eager, inputs, witness
from handgrad.compare.interpret import Program, walk
from handgrad.compare.judge import Comparison, differs
from handgrad.compare.kept import Kept
from handgrad.compare.looks import Looks
from handgrad.compare.mutate import Bench, Mend, Mutant, constants, mend, mutants, repeated, richer
from handgrad.compare.mutations import is_float
from handgrad.compare.patience import patience
from handgrad.compare.problem import Problem, Row, Trouble, argument_names
from handgrad.compare.rewrite import Kind, Rewrite, Written, pinned, written
from handgrad.compare.scaled import lacking, recurring
from handgrad.compare.source import Place
from handgrad.compare.substitutions import slopes_of
from handgrad.compare.terms import so_often

BUDGET = 5e8  # element operations spent on one round of changes of equations
SECONDS = {
    "likely": 3.0,
    "unlikely": 1.5,
    "simple": 1.5,
    "forgotten": 1.0,
    "named": 5.0,
    "missing": 1.5,
    "further": 2.0,
    "looking": 1.0,
    "several": 9.0,
}  # by a run of the derivation as it is
REST: tuple[Kind, ...] = ("unlikely", "forgotten", "named", "missing", "further")
OF_SEVERAL: tuple[tuple[Kind, ...], ...] = (("likely", "simple"), ("unlikely", "named"))
ELSEWHERE = 1.0  # seconds of a loop at other numbers
LOOKED_AT = 1e4  # element operations that the smallest change costs
FUNCTIONS = 24  # whose source is edited: the derivation, and what it calls
LARGE = 5e7  # element operations of a derivation that is too slow to be edited
MOST = 2  # mends that are looked for
MISTAKES = 3  # that are looked for, where a single one does not explain it
SECOND = 0.3  # seconds for the second of them
SLOW = 2e-3  # seconds of a run from where on smaller arrays are looked for
SMALLEST = 1e-7  # no edit of the source makes a smaller relative deviation

Agrees = Callable[[list[np.ndarray]], bool]


class Search:
    """A derivation that is wrong at some rows, and what is known to be right there."""

    def __init__(
        self, problem: Problem, candidate: Row, reference: Row, c: Comparison, rows: Sequence[int],
        kept: Kept,
    ):  # fmt: skip
        self.problem, self.candidate, self.kept = problem, candidate, kept
        self.columns = [[col[r] for col in c.rows.columns] for r in rows]
        self.agrees = [self._test(c, r, 1.0) for r in rows]
        self.given = len(rows)  # of these columns; those after them are of other numbers
        if not problem.large:
            self._at_other_numbers(reference, len(c.paths) - len(problem.verified))
        self.shared = {w.function.__code__: w for w in written(problem.reference)}
        self.here: list[Mend] = []  # what mends it at these inputs, or sizes, and not at others
        self.loosely = self._test(c, rows[0], 10.0)
        self.each = [self._each_test(c, r) for r in rows]
        wrong = [[w[r].any() for w in c.wrong] for r in rows]
        self.at_fault = [frozenset(k for k, w in enumerate(row) if w) for row in wrong]
        self.truth = [g[rows[0]] for g in c.truth]
        self.hand = [h[rows[0]] for h in c.hand]
        self.wrong = [w[rows[0]] for w in c.wrong]
        self.right = [not w.any() for w in c.wrong]
        n = len(problem.cotangent_shapes)
        self.names = [
            *(v.path for v in problem.variables),
            *(("dy",) if n == 1 else (f"dy[{i}]" for i in range(n))),
        ]
        small = candidate.untraceable is not None or _costs(candidate.single)[0] < LARGE
        worth = small and self._deviation(c, rows[0]) > SMALLEST
        self.edited = Edited(self) if worth else None

    @property
    def traceable(self) -> bool:
        return self.candidate.untraceable is None

    @property
    def before(self) -> list[np.ndarray]:
        """What the derivation gives at the first row; nothing if it does not run."""
        return self.candidate.one(self.columns[0])

    @classmethod
    def _test(cls, c: Comparison, row: int, slack: float) -> Agrees:
        each = cls._each_test(c, row, slack)
        return lambda results: all(each(results))

    @staticmethod
    def _each_test(c: Comparison, row: int, slack: float = 10.0) -> Callable:
        def agree(results: list[np.ndarray]) -> Iterator[bool]:
            return (
                # where autodiff is nan, a mend may not make a number nan
                not (
                    (differs(r, g[row], slack * x[row]) & ~(np.isnan(g[row]) & ~np.isnan(h[row])))
                    | (np.isnan(r) & ~np.isnan(h[row]))
                ).any()
                for r, h, g, x in zip(results, c.hand, c.truth, c.noise, strict=True)
            )

        return agree

    def _at_other_numbers(self, reference: Row, split: int) -> None:
        """Two rows more, of other signs, where the reference has a gradient there."""
        p = self.problem
        for column, everything in self._elsewhere(reference, 2):
            gradients = everything[len(p.cotangent_shapes) :]
            truth = [*everything[:split], *(gradients[i] for i in p.verified)]
            if all(np.isfinite(g).all() for g in truth) and self._runs(column):
                self.columns.append(column)
                self.agrees.append(functools.partial(agree, truth))

    def _elsewhere(self, reference: Row, times: int) -> Iterator[tuple[list, list]]:
        """Other numbers, and what the reference gives there, as long as that takes no time."""
        p, rng = self.problem, witness.seeded(0, "numbers")
        leaves = jax.tree.leaves(p.args)
        given = [leaves[place] for place in p._places]
        for _ in range(times):
            others = zip(_drawn(given, {}, rng), p.variables, strict=True)
            values = [np.asarray(x, v.value.dtype) for x, v in others]
            dys = [
                np.ones(s) if p.kind == "gradient" else rng.standard_normal(s)
                for s in p.cotangent_shapes
            ]
            try:
                with patience(ELSEWHERE):  # a loop may converge for numbers like the user's alone
                    yield [*values, *dys], reference.one([*values, *dys])
            except TimeoutError:
                return

    def _runs(self, column: list[np.ndarray]) -> bool:
        """Whether the derivation as it is can be called so."""
        try:
            with patience(ELSEWHERE):
                self.candidate.one(column)
        except (Trouble, TimeoutError):
            return False
        return True

    def told(self, results: list[np.ndarray], anywhere: bool) -> bool | None:
        """Whether these differ from the derivation's wherever that is wrong, and not elsewhere.

        None if they do so for some of the gradients that are wrong. anywhere: in any wrong element
        is enough.
        """
        moved = []
        for r, h, wrong, right in zip(results, self.hand, self.wrong, self.right, strict=True):
            same = np.isclose(
                r, h, rtol=1e-9, atol=1e-12 * np.abs(h).max(initial=0), equal_nan=True
            )
            if right and not same.all():
                return False
            if wrong.any():
                moved.append((wrong & ~same).any() if anywhere else not (same & wrong).any())
        return all(moved) or (None if any(moved) else False)

    def gained(self, results: list[np.ndarray], row: int) -> frozenset[int]:
        """Which gradients are right there, of those that were not; none if another is not now."""
        wrong = frozenset(k for k, a in enumerate(self.each[row](results)) if not a)
        return self.at_fault[row] - wrong if wrong <= self.at_fault[row] else frozenset()

    @staticmethod
    def _deviation(c: Comparison, row: int) -> float:
        """The largest, relative to the array it is in; infinite where something is not finite."""
        worst = 0.0
        with np.errstate(all="ignore"):
            for h, g in zip(c.hand, c.truth, strict=True):
                scale = np.abs(g[row]).max(initial=0)
                gap = np.abs(h[row] - g[row]).max(initial=0)
                if gap:
                    worst = max(worst, np.nan_to_num(gap / scale, nan=np.inf))
        return worst

    def likely(self) -> list[Mend]:
        """A single change of an equation by itself, or a likely edit of the source."""
        if self.edited is not None and self.edited.fast:
            edits = self.edited.mends
            return edits("likely") or self._changed(_of_one_equation) or edits("simple")
        found = self._changed(_of_one_equation)
        if self.edited is None:
            return found
        lines = {(m.place.file, m.place.line) for m in found if m.place} or None
        if not found:
            return self.edited.mends("likely")
        if self.problem.beside is not None:  # of an equation nobody knows what it is at other sizes
            found = []
        kinds: tuple[Kind, ...] = ("likely", "unlikely")
        kinds += () if lines else ("simple", "named", "further")
        return next(filter(None, (self.edited.mends(kind, lines) for kind in kinds)), found)

    def solved(self) -> list[Mend]:
        """A constant that an equation lacks."""
        if self.candidate.untraceable is not None:
            return []
        costs, left = _costs(self.candidate.single), [BUDGET]

        def affords(at: int) -> bool:  # most are given up after two or three evaluations
            left[0] -= 6 * (costs[min(at, len(costs) - 1)] + LOOKED_AT)  # larger, it has more
            return left[0] > 0

        return self._changed(lambda bench: constants(bench, affords, self.names))

    def elsewhere(self, seconds: float = math.inf, multiplied: bool = False) -> list[Mend]:
        """The other edits alone, where they cost little; so long for each kind at most.

        multiplied: it is known to be wrong by a factor, so that a term is what it hardly lacks.
        """
        edited = self.edited
        if edited is None:
            return []
        if not edited.fast:
            rest: tuple[Kind, ...] = ("forgotten", "missing")
        elif multiplied:
            rest = ("unlikely", "named", "further", "forgotten", "missing")
        else:
            rest = REST
        rounds = (edited.mends(kind, None, seconds) for kind in rest if not self.here)
        return next(filter(None, rounds), [])

    def unlikely(self) -> list[Mend]:
        """Everything else: other operands, functions, factors and terms, other edits."""
        edited = self.edited
        rounds = [lambda: self._changed(lambda bench: _each(richer(bench.program, self.names)))]
        if edited is not None:
            more = [functools.partial(edited.mends, kind) for kind in REST]
            rounds = [*more, *rounds] if edited.fast else [*rounds, *more]
        return next(filter(None, (search() for search in rounds if not self.here)), [])

    def several(self) -> list[Mend]:
        """Two mistakes or three, where no single change makes every gradient right."""
        if self.edited is None or not self.edited.fast or len(self.at_fault[0]) < 2:
            return []
        return self.edited.several()

    def suspects(self) -> tuple[list[Place], bool]:
        """The lines that alone can be at fault if one is; none if these are nearly all of them.

        Else those where a part of it can be; and whether it is these.
        """
        edited = self.edited
        if edited is None or not edited.looks.complete:
            return [], False
        looks, partly = edited.looks, not edited.looks.suspects
        lines, among = (
            {(p.file, p.line): p for s in edited.sources for p in s.written.places(nodes)}
            for nodes in (looks.suspects or looks.partly, looks.looked_at)
        )
        return [*lines.values()] if len(lines) <= max(1, len(among) * 2 / 3) else [], partly

    def unread(self) -> list[tuple[str, Place]]:
        """What the derivation computes and never uses."""
        if self.edited is None:
            return []
        looks = self.edited.looks
        return [found for s in self.edited.sources for found in s.written.unread(looks)]

    def _bench(self) -> Bench:
        program = self.candidate.single
        values = [program.values(*column) for column in self.columns]
        return Bench(program, values, self.agrees, self.truth)

    def _changed(self, offers: Callable[[Bench], Iterable[Mutant]]) -> list[Mend]:
        if self.candidate.untraceable is not None:
            return []
        bench = self._bench()
        found = mend(bench, self._afforded(offers(bench)), MOST)
        found = [m for m in found if not self._of_the_reference(m.place)]
        right = [m for m in found if self._at_other_sizes(m, offers)]
        self.here += [
            dataclasses.replace(m, here="at these sizes") for m in found if m not in right
        ]
        if offers is _of_one_equation:
            right = [_of_how_many(m, offers(bench)) for m in right]
        return _latest_first(right)

    def _of_the_reference(self, place: Place | None) -> bool:
        """Whether the line is one of a function that the reference runs too."""
        return place is not None and any(
            place.file == code.co_filename
            and isinstance(w.definition, ast.FunctionDef)
            and w.definition.lineno <= place.line <= (w.definition.end_lineno or 0)
            for code, w in self.shared.items()
        )

    def _at_other_sizes(self, found: Mend, offers: Callable[[Bench], Iterable[Mutant]]) -> bool:
        """Whether the same change mends it there too, where it can be called so.

        And leaves it right where it was, if that is known: with the arguments that a search had.
        """
        p, shapes = self.problem, [t.shape for t in self.truth]
        other = at_larger_sizes(p, True)
        if other is not None and other.right_for(shapes):
            other = None
        given = None
        if p.beside is not None:
            given = instance(p, p.candidate, p.tree.unflatten(p.beside), True)
        return all(
            self._mends_at(at, found, offers, shapes) for at in (other, given) if at is not None
        )

    @staticmethod
    def _mends_at(
        other: "Instance", found: Mend, offers: Callable[[Bench], Iterable[Mutant]], shapes: list
    ) -> bool:
        program = Program(other.problem.candidate_row, *other.column, widened=other.problem.widened)

        def agrees(results: list[np.ndarray]) -> bool:
            return Instance(other.problem, other.column, results, other.truth).right_for(shapes)

        bench = Bench(program, [program.values(*other.column)], [agrees], other.truth)
        same = (
            trial
            for trial in offers(bench)
            if trial.words == found.words and trial.place == found.place
        )
        return any(bench.mended(trial) for trial in same)

    def _afforded(self, trials: Iterable[Mutant]) -> Iterator[Mutant]:
        """As many as the budget allows: of each, what follows from it is computed anew."""
        costs = _costs(self.candidate.single)
        left = BUDGET
        for trial in trials:
            left -= costs[min(trial.at, default=0)] + LOOKED_AT
            if left < 0:
                return
            yield trial


def _drawn(leaves: Sequence, sizes: Mapping, rng: np.random.Generator) -> list:
    """Others of their kind, of ordinary size, off kinks and ties."""
    domains = [inputs.Domain.of(leaf) for leaf in leaves]
    drawn = []
    for leaf, x, domain in zip(leaves, inputs.draw(leaves, sizes, rng), domains, strict=True):
        if domain.kind == "free":
            x = inputs.cast(rng.standard_normal(np.shape(x)), x)
        elif domain.kind in inputs.BY_ELEMENT:  # what is drawn may be all zeros, or immense
            x = inputs.cast(inputs.taken(leaf, np.asarray(x), 1, rng), x)
        drawn.append(x)
    return inputs.nudged(drawn, domains, rng)


def _sizes(p: Problem, way: Callable[[Sequence], Iterator[Mapping]]) -> Iterator[Mapping]:
    """Other sizes than those that the derivation is written for."""
    leaves = jax.tree.leaves(p.args)
    return inputs.unpinned(way(leaves), leaves, pinned(p.candidate))


def _part(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(x)[tuple(slice(n) for n in shape)]


def agree(truth: list[np.ndarray], results: list[np.ndarray], close: float = 1e-6) -> bool:
    """To a few digits of the largest, fewer in float32: elsewhere a function may be saturated."""
    scale = max((np.abs(g[np.isfinite(g)]).max(initial=0) for g in truth), default=0)
    narrow = any(r.dtype.kind == "f" and r.dtype.itemsize < 8 for r in results)
    close = max(close, 1e-4) if narrow else close
    return all(
        np.allclose(r, g, rtol=close, atol=1e-2 * close * scale, equal_nan=True)
        for r, g in zip(results, truth, strict=True)
    )


def _latest_first(mends: Iterable[Mend]) -> list[Mend]:
    """What is wrong later on can often be made up for before it; and again in what is returned."""
    return sorted(mends, key=lambda m: (m.returns, -m.place.line if m.place else 0))


def _of_one_equation(bench: Bench) -> Iterator[Mutant]:
    return _each(mutants(bench.program))


def _of_how_many(found: Mend, trials: Iterable[Mutant]) -> Mend:
    """A line that is run again and again says so if it is to be changed in one of its rounds."""
    rounds = sum(t.words == found.words and t.place == found.place for t in trials)
    words = f"{found.words}, in one of {rounds} rounds" if rounds > 1 else found.words
    return dataclasses.replace(found, words=words)


def _each(trials: Iterable) -> Iterator:
    """Every change by itself, then wherever its expression has made an equation."""
    once, again = itertools.tee(trials)
    yield from once
    yield from repeated(again)


def _costs(program: Program) -> list[float]:
    """Element operations from each equation on to the end, with what one costs besides."""
    each = [
        1.0 * sum((math.prod(getattr(v.aval, "shape", ())) + 3000) * step.repeats for v in outvars)
        for step in program.steps()
        for outvars in [step.eqn.outvars]
    ]
    return [*itertools.accumulate(reversed(each))][::-1] or [0.0]


@dataclasses.dataclass(frozen=True)
class Source:
    """A function of the derivation, how it can be run, and how long that takes."""

    written: Written
    by_numpy: bool
    seconds: float


@dataclasses.dataclass(frozen=True)
class Instance:
    """A derivation at some arguments: what it gives there, and what it should."""

    problem: Problem
    column: list[np.ndarray]
    hand: list[np.ndarray]
    truth: list[np.ndarray]

    @property
    def right(self) -> bool:
        return agree(self.truth, self.hand)

    def right_for(self, shapes: Sequence[tuple[int, ...]]) -> bool:
        """In the elements that arrays of these shapes have, too: of others they tell nothing."""
        truth, hand = (list(map(_part, of, shapes)) for of in (self.truth, self.hand))
        return agree(truth, hand)


class Edited:
    """The derivation with its source edited: run by NumPy where that can be, and traced at last."""

    def __init__(self, search: Search):
        self.search, self.problem = search, search.problem
        self.traceable = search.traceable
        self.names = eager.Names()
        functions = written(self.problem.candidate, self.problem.reference)[:FUNCTIONS]
        slopes = slopes_of([w.definition for w in written(self.problem.reference)])
        slopes += dict.fromkeys(slope for w in functions for slope in w.slopes())
        self.looks = Looks(numbers=_numbers(search.problem.traced.jaxpr), slopes=slopes)
        called = argument_names(search.problem.candidate, len(search.problem.args))
        for name, arg in zip(called, search.problem.args, strict=True):
            if inputs.is_array(arg):
                self.looks.shapes[name] = {np.shape(arg)}
        ways = inputs.grown, inputs.pairs_apart
        self.sizes = [[*itertools.islice(_sizes(self.problem, way), 16)] for way in ways]
        self.others: dict[tuple[int, int], Instance | None] = {}  # the derivation at these sizes
        self.before = search.before
        self.sources: list[Source] = []
        self.small: Instance | None = None
        self.patience = SECONDS["likely"]  # with a loop that may have lost its end
        left = SECONDS["likely"]
        if self.traceable and any(
            eqn.primitive.name == "while" for eqn in search.candidate.single.equations()
        ):
            return  # an edit of such a loop may never end
        with _quietly():
            for function in functions:
                started = time.thread_time()
                source = self._source(function)
                left -= time.thread_time() - started
                if source is not None:
                    self.sources.append(source)
                if left < 0:
                    self.looks.complete = False
                    break
            for source in self.sources:
                self._look(source, SECONDS["looking"] / len(self.sources))
            if not self.looks.suspects:  # where all is nan, nothing tells
                self.looks.idle.clear()
            self.small = self._small()

    def _source(self, written: Written) -> Source | None:
        """None where what was written is not the derivation that was checked."""
        traced = self._timed(lambda: self._run(written.compiled(), self.search.columns[0]))
        if traced is None:
            return None
        if self.traceable:
            seconds = self._timed(lambda: self._numpy(written.compiled(self.names)))
            if seconds is not None and seconds < traced:
                return Source(written, True, seconds)
        return Source(written, False, traced)

    def _look(self, source: Source, seconds: float) -> None:
        column = self.search.columns[0]
        told = self.search.told
        if source.by_numpy:
            run = self._quiet(self._numpy)
            source.written.look(run, told, seconds, self.looks, self.names)
        elif not self.traceable:
            run = self._quiet(lambda f: self._run(f, column))
            source.written.look(run, told, seconds, self.looks)

    def _quiet(self, run: Callable) -> Callable:
        return lambda candidate: self._attempt(lambda: run(candidate))

    def _small(self) -> Instance | None:
        """The wrong derivation with smaller arrays, where it is as wrong and much faster."""
        slow = [s for s in self.sources if s.seconds > SLOW and (s.by_numpy or not self.traceable)]
        if not slow:
            return None
        leaves, tree = jax.tree.flatten(self.problem.args)
        rng, until = witness.seeded(0, "small"), time.thread_time() + SECONDS["looking"]
        for sizes in _sizes(self.problem, inputs.small):
            if time.thread_time() > until:
                return None
            try:
                args = jax.tree.unflatten(tree, _drawn(leaves, sizes, rng))
            except ValueError:  # a matrix that is to be square
                continue
            found = self._instance(self.problem.candidate, args)
            if found is None or found.right:
                continue
            started = time.thread_time()
            results = self._attempt(lambda f=found, s=slow[0]: self._again(f, s), found.truth)
            seconds = time.thread_time() - started
            if results is not None and seconds < slow[0].seconds / 2:
                return found
        return None

    def _again(self, at: Instance, source: Source, trial: Rewrite | None = None) -> list:
        whole = source.written.compiled if trial is None else trial.candidate
        if source.by_numpy:
            return self._numpy(whole(self.names), at.problem, at.column)
        return self._run(whole(), at.column, at.problem)

    def _timed(self, run: Callable[[], list]) -> float | None:
        """Seconds of the second run; None if it does not give what the derivation gives."""
        seconds = 0.0
        for _ in range(2):
            started = time.thread_time()
            results = self._attempt(run)
            if results is None or not all(map(_close, results, self.before)):
                return None
            seconds = time.thread_time() - started
        return seconds

    @property
    def fast(self) -> bool:
        """Whether no edit has to be traced to be refuted."""
        return bool(self.sources) and all(s.by_numpy or not self.traceable for s in self.sources)

    def mends(self, kind: Kind, lines: set | None = None, seconds: float = math.inf) -> list[Mend]:
        """The edits that make it right, two at most, each on another line."""
        found: dict[tuple, Mend] = {}
        edit: dict[tuple, Rewrite] = {}  # of one line what is right at more sizes
        until = time.thread_time() + min(seconds, SECONDS[kind])
        again = SECOND  # for more of a line that has one, beside the time for the others

        def offers(source: Source) -> Iterator[tuple[Source, Rewrite]]:
            return ((source, trial) for trial in source.written.edits(kind, self.looks))

        with _quietly():
            loosely = not self.before or not self.search.loosely(self.before)
            trials = heapq.merge(*map(offers, self.sources), key=lambda pair: pair[1].stage)
            for source, trial in trials:
                key = trial.place.file, trial.place.line
                if (lines is not None and key not in lines) or (key in found and again < 0):
                    continue
                if time.thread_time() > until or len(found) == MOST:
                    break
                if key in found:
                    started = time.thread_time()
                    mended = self._mends(trial, source, loosely) == ""
                    if mended and self._reach(trial) > self._reach(edit[key]):
                        mend = Mend(trial.place, trial.words, trial.returns)
                        found[key], edit[key] = mend, trial
                    spent = time.thread_time() - started
                    again, until = again - spent, until + spent
                    continue
                self.patience = 0.1 + 20 * source.seconds
                for other in self._meant(trial, source):
                    alone = self._mends(other, source, loosely)
                    if alone is None:
                        continue
                    mend = Mend(other.place, other.words, other.returns, alone)
                    if not alone:
                        found[key], edit[key] = mend, other
                        until = min(until, time.thread_time() + SECOND)
                        break
                    chosen = self.problem.beside is None  # by the user, not by a search
                    tells = other.telling or not self.before
                    if chosen and tells and (other is trial or trial.adds):
                        self.search.here.append(mend)
        forward = [mend for key, mend in found.items() if edit[key].forward]
        return sorted(_latest_first(found.values()), key=lambda mend: mend in forward)

    def several(self) -> list[Mend]:
        """An edit after which some gradient is right that was not, and so on until all are."""
        looks, self.looks = self.looks, self.looks.of_some()
        with _quietly():
            found = self._one_by_one(time.thread_time() + SECONDS["several"])
        self.looks = looks
        others = "with the other change" if len(found) == 2 else "with the other changes"
        found.sort(key=lambda m: (m.place.file, m.place.line) if m.place else ("", 0))
        return [dataclasses.replace(m, here=others) for m in found]

    def _one_by_one(self, until: float, depth: int = 1) -> list[Mend]:
        at_fault = self.search.at_fault
        for kinds in OF_SEVERAL:
            for source, trial, gained in self._gaining(kinds, until):
                mend = Mend(trial.place, trial.words, trial.returns)
                if all(f <= gained for f in at_fault):
                    if depth > 1 and self._mends(trial, source, False) == "":
                        return [mend]
                elif depth < MISTAKES and time.thread_time() < until:
                    with self._held(source, trial, gained):
                        rest = self._one_by_one(until, depth + 1)
                    if rest:
                        return [mend, *rest]
        return []

    def _gaining(
        self, kinds: tuple[Kind, ...], until: float
    ) -> list[tuple[Source, Rewrite, frozenset[int]]]:
        """Edits after which more is right, those that gain the most first; two that gain alike."""
        found: dict[frozenset[int], list] = {}
        offers = (
            (s, t) for k in kinds for s in self.sources for t in s.written.edits(k, self.looks)
        )
        for source, trial in offers:
            if time.thread_time() > until:
                break
            self.patience = 0.1 + 20 * source.seconds
            for other in (trial, *self._scaled_for_one(trial, source)):
                gained = self._gained(other, source)
                alike = found.setdefault(gained, [])
                if gained and len(alike) < 2:
                    alike.append((source, other, gained))
        most_first = sorted(found, key=len, reverse=True)
        return [each for gained in most_first for each in found[gained]]

    def _scaled_for_one(self, trial: Rewrite, source: Source) -> Iterator[Rewrite]:
        """A value doubled, times the number that one gradient lacks."""
        more = self._attempt(lambda: self._fastest(trial, source)) if trial.doubles else None
        if more is None:
            return
        for k in sorted(self.search.at_fault[0]):
            lacks = lacking([self.before[k]], [more[k]], [self.search.truth[k]])
            if lacks is not None and abs(1 + lacks) > 1e-9:
                yield from source.written.scaled(trial, 1 + lacks, self.looks)

    def _gained(self, trial: Rewrite, source: Source) -> frozenset[int]:
        """At every row at which anything is wrong."""
        results = self._attempt(lambda: self._fastest(trial, source))
        gained = frozenset() if results is None else self.search.gained(results, 0)
        for row, at_fault in enumerate(self.search.at_fault):
            if gained and row and at_fault:
                column = self.search.columns[row]
                results = self._attempt(lambda col=column: self._run(trial.candidate(), col))
                gained &= frozenset() if results is None else self.search.gained(results, row)
        return gained

    def _fastest(self, trial: Rewrite, source: Source) -> list:
        if source.by_numpy:
            return self._numpy(trial.candidate(self.names))
        return self._run(trial.candidate(), self.search.columns[0])

    @contextlib.contextmanager
    def _held(self, source: Source, trial: Rewrite, gained: frozenset[int]) -> Iterator[None]:
        """As if the derivation had been written so."""
        kept = self.sources, self.before, self.search.at_fault
        others = written(trial.candidate(), self.problem.reference)[:FUNCTIONS]
        self.before = self._fastest(trial, source)
        self.search.at_fault = [wrong - gained for wrong in self.search.at_fault]
        with trial.edit.applied():
            # the function edited is parsed anew as it stands in its file, which does not give this
            anew = (self._source(function) for function in others)
            self.sources = [source, *(s for s in anew if s is not None)]
            try:
                yield
            finally:
                self.sources, self.before, self.search.at_fault = kept

    def _meant(self, trial: Rewrite, source: Source) -> Iterator[Rewrite]:
        """It; a value doubled times the number that it lacks; a term as often as it lacks."""
        if not trial.adds:
            yield trial
        hardly = self.traceable and not source.by_numpy
        if not self.before or (not trial.adds and (hardly or not trial.doubles)):
            return
        more = self._attempt(lambda: self._fastest(trial, source))
        lacks = None if more is None else lacking(self.before, more, self.search.truth)
        if lacks is None and more is not None and trial.adds:
            lacks = self._recurring(trial, source, more)
        if lacks is not None:
            factor = lacks if trial.adds else 1 + lacks
            if abs(factor) > 1e-9:
                yield from source.written.scaled(trial, factor, self.looks)

    def _recurring(self, trial: Rewrite, source: Source, more: list) -> float | None:
        """How often it lacks a term of which a recurrence makes powers."""

        def results(factor: float) -> list | None:
            other = dataclasses.replace(trial, edit=so_often(trial.edit, factor))
            return self._attempt(lambda: self._fastest(other, source))

        return recurring(self.before, more, self.search.truth, results)

    def _mends(self, trial: Rewrite, source: Source, loosely: bool) -> str | None:
        """Where alone it makes it right: "" if that is everywhere, None if it does not.

        loosely: NumPy's results can tell wrong from right.
        """
        if self.small is not None and (source.by_numpy or not self.traceable):
            small = self.small
            results = self._attempt(lambda: self._again(small, source, trial), small.truth)
            if results is None or not agree(small.truth, results):
                return None
        if loosely and source.by_numpy:
            results = self._attempt(lambda: self._numpy(trial.candidate(self.names)))
            if results is None or not self.search.loosely(results):
                return None
        for k, (column, ok) in enumerate(zip(self.search.columns, self.search.agrees, strict=True)):
            results = self._attempt(lambda col=column: self._run(trial.candidate(), col))
            if results is None or not ok(results):
                return None if k < self.search.given else "at your inputs"
        if not self._leaves_the_reference(trial):
            return None
        return "" if self._right_elsewhere(trial) else "at these sizes"

    def _leaves_the_reference(self, trial: Rewrite) -> bool:
        """Whether it mends it too where the reference runs the function that is edited."""
        p, shared = self.problem, self.search.shared.get(trial.written.function.__code__)
        if shared is None:
            return True
        before = self._instance(p.candidate, p.args)
        after = self._instance(trial.candidate(), p.args, trial.of(shared))
        if before is None or after is None:
            return before is after
        return self._right(after) and agree(before.truth, after.truth)

    def _right_elsewhere(self, trial: Rewrite) -> bool:
        """Whether it is right where the arrays have other sizes, at which the functions run."""
        p, candidate = self.problem, trial.candidate()
        if p.beside is not None:
            beside = self._instance(candidate, p.tree.unflatten(p.beside))
            if beside is None or not self._right(beside):
                return False
        return all(self._right_in(family, candidate) for family in range(len(self.sizes)))

    def _right_in(self, family: int, candidate: Callable) -> bool:
        """At the first sizes at which it runs, and the derivation as it is does and is wrong."""
        for k in range(len(self.sizes[family])):
            other = self._other(family, k)
            if other is None or self._right(other):  # these do not go together, or tell nothing
                continue
            run = functools.partial(self._run, candidate, other.column, other.problem)
            hand = self._attempt(run, other.truth)
            if hand is not None:
                return self._right(dataclasses.replace(other, hand=hand))
        return True

    def _reach(self, trial: Rewrite) -> int:
        """At how many sizes that are apart it runs and is right: the mistake itself may not run."""
        candidate = trial.candidate()
        runs = (self._at(sizes, k, candidate) for k, sizes in enumerate(self.sizes[1]))
        return sum(at is not None and self._right(at) for at in runs)

    def _other(self, family: int, k: int) -> Instance | None:
        """The derivation as it is with arrays of these sizes, evaluated once."""
        if (family, k) not in self.others:
            at = self._at(self.sizes[family][k], k, self.problem.candidate)
            self.others[family, k] = at
        return self.others[family, k]

    def _at(self, sizes: Mapping, k: int, candidate: Callable) -> Instance | None:
        p, rng = self.problem, witness.seeded(0, "sizes", k)
        try:
            args = p.tree.unflatten(_drawn(jax.tree.leaves(p.args), sizes, rng))
        except ValueError:  # a matrix that is to be square
            return None
        return self._instance(candidate, args)

    def _instance(
        self, candidate: Callable, args: tuple, reference: Callable | None = None
    ) -> Instance | None:
        return instance(self.problem, candidate, args, self.traceable, reference)

    def _right(self, at: Instance) -> bool:
        return at.right_for([t.shape for t in self.search.truth])

    def _attempt(
        self, run: Callable[[], list], like: Sequence[np.ndarray] | None = None
    ) -> list | None:
        try:
            with patience(self.patience):
                results = run()
        except Exception:  # whatever comes of a line that nobody has written
            return None
        finally:
            self.search.kept.restore()
        due = [t.shape for t in (self.search.truth if like is None else like)]
        if [np.shape(r) for r in results] != due:
            return None
        return results

    def _variant(self, candidate: Callable, problem: Problem | None = None) -> Problem:
        variant = copy.copy(problem or self.problem)
        variant.candidate, variant.verified = candidate, list(self.problem.verified)
        return variant

    def _run(
        self, candidate: Callable, column: list[np.ndarray], problem: Problem | None = None
    ) -> list:
        variant = self._variant(candidate, problem)
        if not self.traceable:
            return [np.array(r) for r in variant.candidate_row(*[v.copy() for v in column])]
        return Program(variant.candidate_row, *column, widened=variant.widened)(*column)

    def _numpy(
        self,
        candidate: Callable,
        problem: Problem | None = None,
        column: Sequence[np.ndarray] | None = None,
    ) -> list:
        variant = self._variant(candidate, problem)
        variant.leaves = [_as_held(leaf) for leaf in variant.leaves]
        column = [v.copy().view(eager.Array) for v in column or self.search.columns[0]]
        if self.problem.kind != "function":
            return [np.asarray(r) for r in variant.candidate_row(*column)]
        if not isinstance(candidate, jax.custom_vjp):
            raise TypeError("what JAX differentiates does not run without it")
        return [np.asarray(r) for r in variant.candidate_by_rules(*column)]


def instance(
    p: Problem,
    candidate: Callable,
    args: tuple,
    traceable: bool,
    reference: Callable | None = None,
) -> Instance | None:
    """None where it cannot be called so."""
    try:
        with patience(1.0):
            other = Problem(candidate, reference or p.reference, args, p.kind, p.argnums)
            values = [v.value for v in other.variables]
            rng = witness.seeded(0, "dy")
            dys = [rng.standard_normal(s) for s in other.cotangent_shapes]
            if p.kind == "gradient":
                dys = [np.ones(s) for s in other.cotangent_shapes]
            run = other.candidate_row
            if traceable:
                hand = Program(run, *values, *dys, widened=other.widened)(*values, *dys)
            else:
                hand = [np.array(r) for r in run(*[v.copy() for v in (*values, *dys)])]
            truth = Program(other.reference_row, *values, *dys)(*values, *dys)
    except Exception:
        return None
    split = len(hand) - len(other.verified)
    right = [*truth[:split], *(truth[len(dys) :][i] for i in other.verified)]
    if [np.shape(h) for h in hand] != [np.shape(g) for g in right]:
        return None
    return Instance(other, [*values, *dys], hand, right)


def at_larger_sizes(p: Problem, traceable: bool) -> Instance | None:
    """The derivation with larger arrays, at the first sizes at which it can be called."""
    rng = witness.seeded(0, "sizes")
    leaves, tree = jax.tree.flatten(p.args)
    for sizes in itertools.islice(_sizes(p, inputs.grown), 16):
        try:
            args = jax.tree.unflatten(tree, _drawn(leaves, sizes, rng))
        except ValueError:  # a matrix that is to be square
            continue
        found = instance(p, p.candidate, args, traceable)
        if found is not None:
            return found
    return None


def _numbers(jaxpr: core.Jaxpr) -> list[float]:
    """The numbers written out in the reference: its eps, its slopes."""
    found = [
        float(v.val)
        for eqn in walk(jaxpr)
        for v in eqn.invars
        if isinstance(v, core.Literal) and np.ndim(v.val) == 0 and is_float(v)
    ]
    written = (float(f"{x:.7g}") for x in found if math.isfinite(x))  # it may hold float32's
    return [*dict.fromkeys([*written, *filter(math.isfinite, found)])]


def _as_held(leaf: object) -> object:
    """Arrays that are no variables: indices, masks."""
    if isinstance(leaf, np.ndarray):
        return leaf.view(eager.Array)
    if isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        return np.asarray(leaf).view(eager.Array)
    return leaf


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-9, atol=1e-12 * np.abs(b).max(initial=0), equal_nan=True))


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """What the variants warn of or print is nobody's business."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
