"""The verdict in multiple precision: is the derivation wrong, or its code inaccurate?

Both sides, as traced, are evaluated with so many digits that rounding is out of the question. What
differs still is looked at twice more: with 650 more digits (what cancels anywhere in float64's
range has digits left then), and with the constants of both sides moved by an ulp, since a
constant is a float64 number, and 2/3 by hand is another one than 2 divided by 3.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from handgrad.compare import witness
from handgrad.compare.interpret import opened
from handgrad.compare.judge import TINY, Comparison
from handgrad.compare.laboratory import laboratory
from handgrad.compare.problem import Problem, Row, name_of
from handgrad.compare.report import Agreement, Element, Exactness, Quantity

__all__ = ["LEAST", "MOST", "Judgement", "available"]

LEAST, MOST = 20, 1000  # digits
RANGE = 650  # more digits than the exponents of float64 span
WORK = 1e6  # numbers computed in one row: some seconds
MOVES = 6  # of the constants
SPREAD = 8.0  # so many times what the moves do is put down to the constants


def available(digits: Any) -> int:
    """The digits asked for, if they can be had."""
    if not isinstance(digits, int) or isinstance(digits, bool) or not LEAST <= digits <= MOST:
        raise ValueError(
            f"digits is {digits!r}; it must be a whole number from {LEAST} (float64 has 16) to "
            f"{MOST}"
        )
    try:
        import mpmath  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"digits={digits} needs mpmath: pip install 'handgrad[exact]'", name="mpmath"
        ) from None
    return digits


AGREE, CONSTANTS, DIFFER = 0, 1, 2
WORDS = ("agree", "constants", "differ")


class Judgement:
    """The rows of a comparison once more, in multiple precision.

    Made, it has cleared in the comparison what differs in float64 for want of digits only;
    `conclude` then adds what float64 is too coarse to see.
    """

    def __init__(
        self, problem: Problem, candidate: Row, reference: Row, c: Comparison, pick: Sequence[int],
        digits: int,
    ):  # fmt: skip
        self.c, self.pick, self.digits = c, list(pick), digits
        self.found: dict[int, list[_Looked]] = {}  # by row, for every array
        self.cleared = [0] * len(c.paths)
        self.trouble = ""
        if candidate.untraceable is not None:
            self.trouble = f"JAX cannot trace {name_of(problem.candidate)}"
            return
        from handgrad.compare import multiprecision

        work = sum(multiprecision.work(opened(r.single.jaxpr)[0]) for r in (candidate, reference))
        if work > WORK:
            self.trouble = (
                f"that would take {work:.0e} operations, one at a time, for each of the samples, "
                f"and {WORK:.0e} is the most; give smaller inputs"
            )
            return
        like = [column[0] for column in c.rows.columns]
        with laboratory():
            self.sides = [multiprecision.Exact(r.single, like) for r in (candidate, reference)]
            try:
                for row in self._rows():
                    self.found[row] = self._look(row)
            except multiprecision.Unsupported as unsupported:
                self.trouble = f"there is no rule for the primitive {unsupported}"
                return
        self._clear()

    def conclude(self, quantities: list[Quantity]) -> tuple[list[Quantity], Exactness]:
        """The verdicts with what float64 does not show; and what was found, array by array."""
        if self.trouble:
            return quantities, Exactness(self.digits, problem=self.trouble)
        rows, agreements = list(self.found), []
        for k, q in enumerate(quantities):
            gap = np.stack([self.found[r][k].gap for r in rows])
            verdict = np.stack([self.found[r][k].verdict for r in rows])
            forgiven = self.c.forgiven.get(k)
            if forgiven is not None:
                gap, verdict = (np.where(forgiven[rows], 0, x) for x in (gap, verdict))
            worst = int(verdict.max(initial=AGREE))
            row, index, difference = 0, (), 0.0
            if gap.size:
                flat = int(np.argmax(np.where(verdict == worst, gap, -1)))
                at, *where = (int(i) for i in np.unravel_index(flat, gap.shape))
                row, index, difference = rows[at], tuple(where), float(gap.flat[flat])
            found = Agreement(
                q.path, WORDS[worst], difference, index, self.c.rows.labels[row], self.cleared[k]
            )
            agreements.append(found)
            if q.ok and worst == DIFFER:
                wrong = int((verdict == DIFFER).reshape(len(rows), -1).sum(1).max())
                element = Element(
                    index, *(_plain(x[k][row][index]) for x in (self.c.hand, self.c.truth))
                )
                quantities[k] = dataclasses.replace(
                    q, wrong=wrong, worst=element, deviation=difference, where=found.where
                )
        return quantities, Exactness(self.digits, len(rows), tuple(agreements))

    def _rows(self) -> list[int]:
        """The first row of every sample, and all that differ in float64."""
        samples = self.c.rows.samples
        firsts = {samples.index(s) for s in samples}
        wrong = {int(r) for w in self.c.wrong for r in np.nonzero(w)[0]}
        return sorted(firsts | wrong)

    def _look(self, row: int) -> list["_Looked"]:
        tolerance = 10.0 ** (-0.8 * self.digits)
        pairs = self._both(row, self.digits)
        gaps = [_relative(h, t) for h, t in pairs]
        truth = [_rounded(t) for _, t in pairs]
        if all((g <= tolerance).all() for g in gaps):
            return [
                _Looked(g, np.full(g.shape, AGREE), t) for g, t in zip(gaps, truth, strict=True)
            ]
        pairs = self._both(row, self.digits + RANGE)
        gaps = [
            np.where(g > tolerance, _relative(h, t), g)
            for g, (h, t) in zip(gaps, pairs, strict=True)
        ]
        far = [g > tolerance for g in gaps]
        due = [f & False for f in far]
        if any(f.any() for f in far):
            due = self._due_to_constants(row, pairs)
        return [
            _Looked(g, np.where(f, np.where(d, CONSTANTS, DIFFER), AGREE), t)
            for g, f, d, t in zip(gaps, far, due, truth, strict=True)
        ]

    def _due_to_constants(self, row: int, pairs: list[tuple]) -> list[np.ndarray]:
        """Where a difference is no more than what rounding the constants makes."""
        spread: list[Any] = [0.0] * len(pairs)
        rng = witness.seeded(row, "constants")
        base = [h - t for h, t in self._both(row, self.digits)]
        for salt in rng.integers(2**63, size=MOVES).astype(np.uint64):
            moved = self._both(row, self.digits, _Moved(salt))
            for k, ((h, t), b) in enumerate(zip(moved, base, strict=True)):
                spread[k] = np.fmax(spread[k], _absolute(h - t - b))
        return [_absolute(h - t) <= SPREAD * s for (h, t), s in zip(pairs, spread, strict=True)]

    def _both(self, row: int, digits: int, after: Any = None) -> list[tuple]:
        """By hand and by autodiff, array by array."""
        columns = [column[row] for column in self.c.rows.columns]
        hand, everything = (s.evaluate(digits, *columns, after=after) for s in self.sides)
        return [(h, everything[i]) for h, i in zip(hand, self.pick, strict=True)]

    def _clear(self) -> None:
        """What differs in float64 alone is inaccurate code, and no wrong derivation."""
        c = self.c
        for row, arrays in self.found.items():
            for k, looked in enumerate(arrays):
                clear = c.wrong[k][row] & (looked.verdict != DIFFER)
                if not clear.any():
                    continue
                c.wrong[k][row] &= ~clear
                c.lost[k][row] |= clear
                with np.errstate(all="ignore"):
                    errors = [np.abs(side[k][row] - looked.truth) for side in (c.hand, c.truth)]
                    by_hand = clear & ~(errors[0] <= errors[1])
                self.cleared[k] = max(self.cleared[k], int(by_hand.sum()))


@dataclasses.dataclass
class _Looked:
    """An array by hand and by autodiff: the relative difference of every element, its verdict."""

    gap: np.ndarray
    verdict: np.ndarray
    truth: np.ndarray  # in float64


class _Moved(witness.Fixed):
    """Moves every constant that is no short binary number by an ulp or two.

    The same constant is moved in the same way wherever it stands; what is computed out of short
    ones, as ln 2 may be, has all its digits and stays.
    """

    rounds_by = 0.0

    def __init__(self, salt: np.uint64):
        super().__init__()
        self.salt = salt

    def constant(self, x: Any) -> Any:
        long = x.dtype == object and _long(_plain_floats(x)).any()
        self._fix([x], witness.EPS * bool(long))
        return x

    def moved(self, x: Any) -> Any:
        known = self.fixed[id(x)][1]
        if not known or x.dtype != object:
            return x
        plain = _plain_floats(x)
        eps = np.maximum(known, witness.SINGLE / 2 * witness.singles(plain)) * _long(plain)
        return np.asarray(x * (1 + eps * witness.units(plain, self.salt)))

    def _eps(self, x: Any) -> float:
        singles = x.dtype == object and witness.singles(_plain_floats(x)).any()
        return max(self.fixed.get(id(x), (x, 0.0))[1], witness.SINGLE / 2 * bool(singles))


def _long(plain: np.ndarray) -> np.ndarray:
    return np.isfinite(plain) & (np.frexp(plain)[0] * 2.0**16 % 1 != 0)


def _plain_floats(x: np.ndarray) -> np.ndarray:
    return np.array([float(v.real) for v in x.flat]).reshape(x.shape)


def _relative(hand: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """|hand - truth| of the larger of the two; none where float64 underflows."""

    def gap(h: Any, t: Any) -> float:
        if h == t or (h != h and t != t):
            return 0.0
        size = max(abs(h), abs(t))
        if size < TINY:
            return 0.0
        g = float(abs(h - t) / size)
        return np.inf if g != g else g

    return _floats(np.frompyfunc(gap, 2, 1)(hand, truth))


def _absolute(x: np.ndarray) -> np.ndarray:
    return _floats(np.frompyfunc(lambda v: float(abs(v)), 1, 1)(x))


def _rounded(x: np.ndarray) -> np.ndarray:
    kind = complex if any(v.imag for v in x.flat) else float
    return np.array([kind(v if kind is complex else v.real) for v in x.flat]).reshape(x.shape)


def _floats(x: Any) -> np.ndarray:
    return np.asarray(x).astype(float)


def _plain(x: np.ndarray) -> complex:
    return complex(x) if np.iscomplexobj(x) else float(x)
