"""The verdict on a derivation: in float64, element by element, against a measured noise floor."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from handgrad.compare import witness
from handgrad.compare.problem import Problem, Row, Trouble, first, name_of
from handgrad.compare.report import Element, Quantity
from handgrad.compare.witness import EPS, Numerical

FIRST = 1000.0  # a deviation of less than this many noise floors passes at once
FEW = 4.0  # roundings in float32 of what else is computed in float64
SECOND = 100.0  # of floors measured with a rounding error behind every operation
EXCUSED = 0.1  # the most that noise of the candidate's own excuses, of the cotangents' size
PLAIN = 1e-4  # of the cotangents' size: a deviation that numbers are asked about before it is noise
FIRMLY = 0.01  # of a deviation, how near the numbers are to autodiff where they decide against it
NARROW = 4.0  # of those where the reference computes in less than float64, in its own precision
ZERO = 1e-14  # of the largest element: what is below this may be 0 but for rounding
TINY = 1e-290  # below this, float64 underflows
TIED = 1024  # elements at one kink that are moved one by one
JACOBIAN = 4096  # the full Jacobian is taken where outputs × (inputs + outputs) is no more


@dataclasses.dataclass
class Rows:
    """Pairs of a sample (values of the variables) and a cotangent, along the leading axis."""

    columns: list[np.ndarray]
    labels: list[str]
    samples: list[int]

    @classmethod
    def plan(cls, problem: Problem, seed: int) -> "Rows":
        """The user's values, two samples near them (of a large problem one), one of tamed scale."""
        values = [witness.polish(v) for v in problem.values()]
        rng = witness.seeded(seed, "samples")
        samples = [("your inputs", values)]
        samples += [
            (f"inputs near yours ({k})", [witness.vary(v, rng) for v in values])
            for k in ((1,) if problem.large else (1, 2))
        ]
        tamed = [witness.tame(v) for v in values]
        if any((a != b).any() for a, b in zip(tamed, values, strict=True)):
            samples.append(("your inputs scaled to one", tamed))
        rows: list[tuple[int, str, list, list]] = []
        for k, (label, sample) in enumerate(samples):
            for dy_label, dy in _cotangents(problem, seed, everything=k == 0):
                rows.append((k, f"{label}, {dy_label}" if dy_label else label, sample, dy))
        columns = [
            np.stack(c) for c in zip(*[[*sample, *dy] for _, _, sample, dy in rows], strict=True)
        ]
        return cls(columns, [row[1] for row in rows], [row[0] for row in rows])

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, which: Sequence[int] | np.ndarray) -> list[np.ndarray]:
        return [c[np.asarray(which)] for c in self.columns]

    def keep(self, which: np.ndarray) -> "Rows":
        index = np.flatnonzero(which)
        return Rows(
            self.take(index), [self.labels[i] for i in index], [self.samples[i] for i in index]
        )


def _cotangents(problem: Problem, seed: int, everything: bool) -> list[tuple[str, list]]:
    if problem.kind == "gradient":
        return [("", [np.ones(())])]
    rng = witness.seeded(seed, "cotangents")
    kinds = [
        np.zeros(s, complex if np.issubdtype(d, np.complexfloating) else float)
        for s, d in zip(problem.cotangent_shapes, problem.cotangent_dtypes, strict=True)
    ]

    def random() -> list[np.ndarray]:
        return [gaussian(rng, kind) for kind in kinds]

    found = [("a random cotangent", random())]
    if not problem.large:
        found.append(("another random cotangent", random()))
    if not everything or problem.large:
        return found
    found.append(("the zero cotangent", [np.zeros_like(d) for d in found[0][1]]))
    outputs = sum(d.size for d in found[0][1])
    inputs = sum(v.value.size for v in problem.variables)
    if outputs <= 64 and outputs * (inputs + outputs) <= JACOBIAN:
        which = range(outputs)
    else:
        which = (
            sorted(rng.choice(outputs, min(3, outputs), replace=False).tolist()) if outputs else []
        )
    for k in which:
        flat = np.zeros(outputs)
        flat[k] = 1.0
        parts = np.split(flat, np.cumsum([d.size for d in found[0][1]])[:-1])
        dy = [p.reshape(d.shape).astype(d.dtype) for p, d in zip(parts, found[0][1], strict=True)]
        found.append((f"the cotangent with a single one at {k}", dy))
    return found


@dataclasses.dataclass
class Comparison:
    """Hand and truth on every row, and what differs beyond the noise."""

    rows: Rows
    paths: list[str]
    hand: list[np.ndarray]
    truth: list[np.ndarray]
    noise: list[np.ndarray]
    wrong: list[np.ndarray]
    lost: list[np.ndarray]
    everything: list[np.ndarray]  # all results of the reference
    lost_by: float = 0.0  # the largest relative deviation that rounding explains
    coarse: bool = False  # compared in a precision narrower than float64

    forgiven: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
    # what only the reference's noise explains, and the noise without that
    excused: dict[int, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not any(w.any() for w in self.wrong)

    def forgive(self, k: int, which: np.ndarray | None = None) -> None:
        """What differs in gradient k, or this of it, is a convention, or autodiff's own fault."""
        self.forgiven[k] = self.wrong[k] if which is None else self.wrong[k] & which
        self.wrong[k] = self.wrong[k] & ~self.forgiven[k]


def compare(
    problem: Problem, candidate: Row, reference: Row, rows: Rows, paths: list[str],
    pick: list[int], seed: int,
) -> Comparison:  # fmt: skip
    """Evaluate both sides on all rows; `pick` says which of the reference's results to compare."""
    truth = reference.rows(rows.columns)
    rows, truth = _usable(problem, rows, truth)
    rows, truth, hand = _callable(candidate, rows, truth)
    picked = [truth[i] for i in pick]
    rng = witness.seeded(seed, "noise")
    measured = witness.floors(reference, rows.columns, truth, rng, 2)
    noise = [FIRST * np.maximum(measured[i], EPS * np.abs(truth[i])) + TINY for i in pick]
    coarse = False
    narrow = all(np.asarray(v.given).dtype.itemsize < 8 for v in problem.variables)
    if candidate.untraceable is not None or (narrow and candidate.single.holds_singles()):
        own = [
            _of_own_precision(problem, k - len(pick), h, g, candidate.untraceable is not None)
            for k, (h, g) in enumerate(zip(hand, picked, strict=True))
        ]
        coarse = any(
            floor.any() and differs(h, g, n).any()
            for h, g, n, floor in zip(hand, picked, noise, own, strict=True)
        )
        noise = [np.maximum(x, floor) for x, floor in zip(noise, own, strict=True)]
    if candidate.foreign:
        own = witness.floors(candidate, rows.columns, hand, rng, 8, rounding=False)
        noise = [np.maximum(x, SECOND * floor) for x, floor in zip(noise, own, strict=True)]
        coarse = True
    wrong = [differs(h, g, n) for h, g, n in zip(hand, picked, noise, strict=True)]
    lost = [np.zeros(w.shape, bool) for w in wrong]
    result = Comparison(rows, paths, hand, picked, noise, wrong, lost, truth, coarse=coarse)
    established = [False] * len(wrong)
    while True:  # until every array is cleared, or has a row that stays wrong
        open_rows = [
            w.reshape(len(rows), -1).any(1) & (not known)
            for w, known in zip(result.wrong, established, strict=True)
        ]
        suspicious = of_every_sample(rows, np.flatnonzero(np.logical_or.reduce(open_rows)))[:4]
        if not suspicious.size:
            return result
        _second_look(result, problem, candidate, reference, pick, suspicious, seed)
        established = [
            known or bool(w[suspicious].any())
            for w, known in zip(result.wrong, established, strict=True)
        ]


def of_every_sample(rows: Rows, which: Sequence[int] | np.ndarray) -> np.ndarray:
    """These rows, one of each sample before the others."""
    samples = np.array(rows.samples)[which]
    _, first = np.unique(samples, return_index=True)
    order = [*np.sort(first), *np.setdiff1d(np.arange(len(which)), first)]
    return np.asarray(which)[np.array(order, int)]


def _of_own_precision(
    problem: Problem, k: int, hand: np.ndarray, truth: np.ndarray, unseen: bool
) -> np.ndarray:
    """The noise of code that computes in its arguments' float32, which nothing widens.

    k: of the last gradients, the -1st is the last. Where all of it may, unseen, as NumPy's does,
    many roundings; where a constant is of that, a few.
    """
    if -k > len(problem.verified):
        return np.zeros(())
    own = np.asarray(problem.variables[problem.verified[k]].given).dtype
    if own.itemsize >= 8:
        return np.zeros(())
    rounded = hand.astype(own).astype(hand.dtype)
    roundings = FIRST if unseen and np.array_equal(hand, rounded, equal_nan=True) else FEW
    size = np.nan_to_num(np.abs(truth)).reshape(len(truth), -1).max(1, initial=0)
    return _column(roundings * float(jnp.finfo(own).eps) * size, truth)


def _scale(*groups: Sequence[np.ndarray]) -> np.ndarray:
    """The largest root mean square of an array among these, row by row."""
    every = [a.reshape(len(a), -1) for group in groups for a in group if a[0].size]
    with np.errstate(all="ignore"):
        return np.max([np.sqrt(np.nan_to_num(np.abs(a) ** 2).mean(1)) for a in every], 0)


def _column(x: np.ndarray, like: np.ndarray) -> np.ndarray:
    return x.reshape(-1, *[1] * (like.ndim - 1))


def differs(hand: np.ndarray, truth: np.ndarray, noise: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        gap = np.abs(hand - truth)
        if gap.max(initial=0) < np.inf and (far := gap > noise).sum() == 0:
            return far
        same = (hand == truth) | (np.isnan(hand) & np.isnan(truth))
        return ~(same | ((gap <= noise) & np.isfinite(gap)))


def allowance(c: Comparison, k: int) -> float:
    """How far off gradient k may be and pass, relative to its largest element, at the least."""
    found = []
    for noise, truth in zip(c.noise[k], c.truth[k], strict=True):
        scale = np.abs(truth[np.isfinite(truth)]).max(initial=0)
        if scale:
            found.append(float(np.nan_to_num(noise[np.isfinite(truth)], nan=0).max() / scale))
    return min(found, default=0.0)


def _usable(problem: Problem, rows: Rows, truth: list[np.ndarray]) -> tuple[Rows, list]:
    """Leave out samples of our making at which the function is not defined."""
    outputs = truth[: len(problem.cotangent_shapes)]
    for y in outputs:
        bad = ~np.isfinite(y[0])
        if bad.any():
            infinite = [v.path for v in problem.variables if np.isinf(v.value).any()]
            because = f" (the input {infinite[0]!r} has inf)" if infinite else ""
            raise Trouble(
                f"the reference {name_of(problem.reference)} gives {y[0][bad][0]} at {first(bad)} "
                f"of its output at your inputs{because}: give inputs at which it is defined"
            )
    finite = np.logical_and.reduce([np.isfinite(t).reshape(len(rows), -1).all(1) for t in truth])
    own = np.array(rows.samples) == 0
    keep = finite | own
    return rows.keep(keep), [t[keep] for t in truth]


def _callable(candidate: Row, rows: Rows, truth: list) -> tuple[Rows, list, list]:
    """Leave out samples of our making at which plain Python raises, as for a place off a grid."""
    try:
        return rows, truth, candidate.rows(rows.columns)
    except Trouble:
        if candidate.untraceable is None:
            raise
    found = {}
    for r in range(len(rows)):
        try:
            found[r] = candidate.one([c[r] for c in rows.columns])
        except Trouble:
            if rows.samples[r] == 0:
                raise
    raised = {rows.samples[r] for r in range(len(rows)) if r not in found}
    keep = np.array([sample not in raised for sample in rows.samples])
    hand = [np.stack(y) for y in zip(*(found[r] for r in np.flatnonzero(keep)), strict=True)]
    return rows.keep(keep), [t[keep] for t in truth], hand


def _second_look(
    c: Comparison, problem: Problem, candidate: Row, reference: Row, pick: list[int],
    which: np.ndarray, seed: int,
) -> None:  # fmt: skip
    """Plant a rounding error behind every operation of both sides: is the deviation no more?

    A candidate that jumps by a good part of what it computes is not excused by its own noise.
    """
    columns = c.rows.take(which)
    rng = witness.seeded(seed, "rounding")
    hand, truth, was = ([x[which] for x in each] for each in (c.hand, c.truth, c.wrong))
    base = [t[which] for t in c.everything]
    rounding = None if candidate.untraceable else False
    of_truth = witness.floors(reference, columns, base, rng, 8, rounding=False)
    of_hand = witness.floors(candidate, columns, hand, rng, 8, rounding)
    if candidate.untraceable is not None:
        pairs = zip(of_hand, witness.rounding_of_numpy(candidate, columns, hand), strict=True)
        of_hand = [np.maximum(moved, own) for moved, own in pairs]
    most = EXCUSED * _scale(columns[len(problem.variables) :], truth)
    mine = [np.minimum(SECOND * h, _column(most, h)) for h in of_hand]
    floor = [np.maximum(SECOND * of_truth[i], m) for i, m in zip(pick, mine, strict=True)]
    if reference.narrow:
        own = witness.floors(reference, columns, base, rng, 8, rounding=True)
        floor = [np.maximum(f, NARROW * own[i]) for i, f in zip(pick, floor, strict=True)]
    still = [w & differs(h, t, f) for w, h, t, f in zip(was, hand, truth, floor, strict=True)]
    for k, (s, f) in enumerate(zip(still, floor, strict=True)):
        cleared = was[k] & ~s
        if cleared.any():
            size = np.maximum(np.abs(hand[k]), np.abs(truth[k]))
            with np.errstate(all="ignore"):  # a zero of the mathematics has no digits to lose
                told = cleared & ~(size < ZERO * np.nan_to_num(np.abs(c.truth[k])).max(initial=0))
                gap = np.abs(hand[k] - truth[k]) / size
            c.lost_by = max(c.lost_by, float(gap[told].max(initial=0)))
            plain = differs(
                hand[k], truth[k], np.maximum(mine[k], _column(most, s) / EXCUSED * PLAIN)
            )
            if not reference.narrow and (plain & cleared).any():
                excused, noise = c.excused.setdefault(
                    k, (np.zeros_like(c.wrong[k]), c.noise[k].copy())
                )
                excused[which] |= plain & cleared
                noise[which] = np.maximum(noise[which], mine[k])
        c.wrong[k][which], c.lost[k][which] = s, cleared
        c.noise[k][which] = np.maximum(c.noise[k][which], f)


def refute(c: Comparison, problem: Problem, numerical: Numerical, offset: int) -> None:
    """What only noise of the reference excuses is wrong where numbers say that it is not noise.

    These are differences over steps so large that what rounding makes of a derivative is not in
    them. An index that jumps, say, with a rounding error is noise as large as the gradient, of
    which there is none at the inputs themselves.
    """
    n = len(problem.variables)
    for k, (excused, noise) in c.excused.items():
        at_row, *index = np.nonzero(excused)
        if k < offset or not len(at_row) or np.iscomplexobj(c.hand[k]):
            continue
        gap = np.abs(c.hand[k] - c.truth[k])[(at_row, *index)]
        worst = np.argsort(-np.nan_to_num(gap, nan=np.inf), kind="stable")[:4]
        at_row, gap, index = at_row[worst], gap[worst], tuple(i[worst] for i in index)
        columns = c.rows.take(at_row)
        directions = [np.zeros_like(v) for v in columns[:n]]
        directions[problem.verified[k - offset]][(np.arange(len(worst)), *index)] = 1.0
        sides = [
            _against(columns[n:], numerical.one_sided(columns[:n], directions, side)[0])
            for side in (-1, 0, 1)
        ]
        with np.errstate(all="ignore"):
            far = np.abs(np.subtract(sides, c.truth[k][(at_row, *index)])).max(0)
            rows = np.unique(at_row[far <= FIRMLY * gap])
        if rows.size:
            c.wrong[k][rows] |= excused[rows]
            c.lost[k][rows] &= ~excused[rows]
            c.noise[k][rows] = noise[rows]
    if not any(lost.any() for lost in c.lost):
        c.lost_by = 0.0


def doubt(c: Comparison, problem: Problem, reference: Row, pick: list[int], seed: int) -> None:
    """Call nothing wrong where autodiff is too uncertain to be a witness against a derivation.

    For inputs that nobody chose. At a pole, such as a singular matrix of which rounding has left a
    pivot, autodiff is noise of its own size, and the derivation may be infinite. Beside large
    numbers small ones have an error of the large ones' last place.
    """
    if c.ok:
        return
    columns, truth, samples = c.rows.columns, c.everything, np.array(c.rows.samples)
    rng = witness.seeded(seed, "doubt")
    least = 1e-6 * _scale(columns[len(problem.variables) :]).max()

    def largest(x: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            x = np.nan_to_num(np.abs(x), nan=np.inf)
        return x.max(0).reshape(len(samples), -1).max(1, initial=0)

    def apart(x: np.ndarray, _: np.ndarray) -> np.ndarray:  # equal numbers no longer equal
        return x * (1 + 1e-12 * rng.standard_normal(x.shape))

    moved = witness.shaken(reference, columns, rng, 8, rounding=False)
    beside = witness.shaken(reference, columns, rng, 2, move=apart)
    pole = np.zeros(len(samples), bool)
    for t, m, b in zip(truth, moved, beside, strict=True):
        size = largest(t[None])
        noisy = (largest(m - t) > 0.1 * size) | (largest(b) < 0.01 * size)
        pole |= noisy & (size > least)
    pole = np.isin(samples, samples[pole])
    shifted = witness.shaken(reference, columns, rng, 8, move=witness.shift)
    for k, i in enumerate(pick):
        noise = SECOND * witness.spread(shifted[i], truth[i]).max(0)
        far = differs(c.hand[k], truth[i], noise)
        c.wrong[k] &= far & ~_column(pole, far)


# --- what the numbers say ------------------------------------------------------------------------


@dataclasses.dataclass
class Numbers:
    """Numerical derivatives at some of the differing elements of one gradient."""

    row: np.ndarray
    element: np.ndarray  # flat index
    value: np.ndarray  # central
    left: np.ndarray
    right: np.ndarray
    error: float
    # by hand, autodiff, numerically: the derivative along all tied elements at once
    together: tuple[float, float, float] | None = None

    def pick(self, of: np.ndarray) -> np.ndarray:
        """The elements asked about, out of an array with one leading axis for the rows."""
        return of.reshape(len(of), -1)[self.row, self.element]

    def kink(self, hand: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Where the one-sided derivatives differ and both witnesses lie between them.

        Autodiff may be nan there, as that of a length is at zero.
        """
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        scale = np.maximum(np.abs(low), np.abs(high))
        slack = 1e-5 * scale
        inside = [(low - slack <= g) & (g <= high + slack) for g in (hand, truth)]
        return (high - low > 1e-3 * scale) & inside[0] & (inside[1] | np.isnan(truth))

    def sides(self, hand: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """'hand', 'autodiff' or 'neither', element by element."""
        far = [
            np.nan_to_num(np.abs(self.value - g), nan=np.inf, posinf=np.inf) for g in (hand, truth)
        ]
        sizes = [np.where(np.isfinite(g), np.abs(g), 0) for g in (hand, truth)]
        scale = np.maximum(np.maximum(*sizes), np.abs(self.value))
        near = np.minimum(
            np.nan_to_num(np.abs(hand - truth), nan=np.inf) / 4, 1e3 * self.error * scale
        )
        names = np.where(far[0] < far[1], "hand", "autodiff")
        close = np.minimum(*far) <= np.maximum(near, self.error * scale) + TINY
        return np.where(close, names, "neither")


def ask(c: Comparison, problem: Problem, numerical: Numerical, k: int, variable: int) -> Numbers:
    """Numerical derivatives at elements at which gradient k differs.

    A few, unless these are all excused by kinks or by autodiff's fault: then many more, of every
    value that the variable has there and of every kind of autodiff's, finite or not.
    """
    at_row, *index = np.nonzero(c.wrong[k])
    element = np.ravel_multi_index(index, c.wrong[k].shape[1:]) if index else np.zeros_like(at_row)
    size = max(1, sum(v.value.size for v in problem.variables))
    many = int(max(4, min(256, 20_000_000 / (20 * size))))
    gap = np.nan_to_num(np.abs(c.hand[k] - c.truth[k])[(at_row, *index)], nan=np.inf)
    few = np.flatnonzero(at_row == at_row[0])
    few = few[np.argsort(-gap[few], kind="stable")[:3]]
    for everything in (False, True):
        chosen = _of_every_kind(c, k, variable, (at_row, *index), many) if everything else few
        numbers = _numbers(c, problem, numerical, variable, at_row[chosen], element[chosen])
        hand, truth = numbers.pick(c.hand[k]), numbers.pick(c.truth[k])
        with np.errstate(all="ignore"):
            if not (numbers.kink(hand, truth) | (numbers.sides(hand, truth) == "hand")).all():
                break
    return numbers


def _of_every_kind(c: Comparison, k: int, variable: int, where: tuple, most: int) -> np.ndarray:
    """Which of these elements to ask about: evenly spread, and before that one of each kind."""
    value, finite = c.rows.columns[variable][where], np.isfinite(c.truth[k][where])
    order = np.lexsort((np.real(value), finite))
    new = (np.diff(value[order], prepend=np.nan) != 0) | np.diff(finite[order], prepend=False)
    first = order[np.flatnonzero(new)]
    kinds = first[np.unique(np.linspace(0, len(first) - 1, most).astype(int))]
    evenly = np.unique(np.linspace(0, len(value) - 1, most).astype(int))
    return np.unique([*kinds, *evenly[: max(0, most - len(kinds))]])


def _numbers(c, problem, numerical, variable, at_row, element) -> Numbers:
    n = len(problem.variables)
    columns = c.rows.take(at_row)
    values, dys = columns[:n], columns[n:]
    directions = [np.zeros_like(v) for v in values]
    directions[variable].reshape(len(at_row), -1)[np.arange(len(at_row)), element] = 1.0
    central, error = numerical.along(values, directions)
    value = _against(dys, central)
    if np.iscomplexobj(values[variable]):  # by a + ib: ∂a - i ∂b, of what is real in ⟨dy, y⟩
        by_b = numerical.along(values, [1j * d if d.any() else d for d in directions])[0]
        value = np.real(value) - 1j * np.real(_against(dys, by_b))
    right, _ = numerical.one_sided(values, directions, +1)
    left, _ = numerical.one_sided(values, directions, -1)
    return Numbers(at_row, element, value, _against(dys, left), _against(dys, right), error)


def _against(dys: Sequence[np.ndarray], slopes: Sequence[np.ndarray]) -> np.ndarray:
    """⟨dy, slope⟩ of every row."""
    return sum(
        (dy * s).reshape(len(s), -1).sum(1) for dy, s in zip(dys, slopes, strict=True)
    ) + np.zeros(len(slopes[0]))


def settle(
    c: Comparison, problem: Problem, numerical: Numerical, k: int, variable: int, numbers: Numbers,
    stopped: bool = False,
) -> tuple[int, str]:  # fmt: skip
    """Forgive kinks, and elements where autodiff is the odd one; else say with whom numbers side.

    stopped: autodiff departs from the numbers because it is told to. Gives the number of kinks
    forgiven, and who is right: hand, autodiff, neither.
    """
    flat = numbers.pick(c.hand[k]), numbers.pick(c.truth[k])
    with np.errstate(all="ignore"):
        kink = numbers.kink(*flat)
        sides = numbers.sides(*flat)
    if kink.all():
        which = np.unique(numbers.row)[:16]
        numbers.together = _together(c, problem, numerical, k, variable, which)
        if numbers.together is not None:
            hand_sum, truth_sum, number = numbers.together
            closer = abs(truth_sum - number) < abs(hand_sum - number)
            return 0, "autodiff" if closer else "neither"
        elements = int(c.wrong[k].any(0).sum())
        c.forgive(k)
        return elements, ""
    smooth = sides[~kink]
    odd = (sides == "hand") & ~(stopped & np.isfinite(flat[1]))
    if odd[~kink].all():
        c.forgive(k)
        return 0, "hand"
    kinks = _forgive_some(c, k, variable, numbers, kink, odd)
    for who in ("autodiff", "hand"):
        if (smooth == who).mean() > 0.5:
            return kinks, who
    return kinks, "neither"


def _forgive_some(
    c: Comparison, k: int, variable: int, numbers: Numbers, kink: np.ndarray, by_hand: np.ndarray
) -> int:
    """What is excused beside what is wrong, and everything like it; the number of kinks.

    Alike is where the variable has the same value, and autodiff is finite or is not.
    """
    value, finite = c.rows.columns[variable], np.isfinite(c.truth[k])
    excused = kink | by_hand
    mine = [numbers.pick(of) for of in (value, finite)]
    which = np.zeros_like(c.wrong[k])
    for kind in (False, True):
        bad = mine[0][~excused & (mine[1] == kind)]
        good = np.setdiff1d(mine[0][excused & (mine[1] == kind)], bad)
        which |= np.isin(value, good) & (finite == kind)
    if not (c.wrong[k] & ~which).any():
        return 0
    elements = int((c.wrong[k] & which & np.isin(value, mine[0][kink])).any(0).sum())
    c.forgive(k, which)
    return elements


def _together(
    c: Comparison, problem: Problem, numerical: Numerical, k: int, variable: int, which: np.ndarray
) -> tuple[float, float, float] | None:
    """Whether hand is wrong in sum over the kinks, each alone being within the subdifferential.

    Moving all tied maxima together is smooth: there the derivative is one number, which a
    backward that gives every one of the ties the whole cotangent misses. All that differ are moved
    at once, and then those with one value, among which is the one that autodiff chose. Where what
    moves together is the sum of what moves alone, as at the two ends of a clip, nothing is tied.
    """
    n = len(problem.variables)
    moves = []
    for row in which:
        x, wrong = c.rows.columns[variable][row], c.wrong[k][row]
        moves += [(row, wrong), *((row, x == value) for value in np.unique(x[wrong])[:8])]
    which, together = (np.array(of) for of in zip(*moves, strict=True))

    def slope(which: np.ndarray, moved: np.ndarray, side: int) -> np.ndarray:
        columns = c.rows.take(which)
        directions = [np.zeros_like(v) for v in columns[:n]]
        directions[variable][moved] = 1.0
        return _against(columns[n:], numerical.one_sided(columns[:n], directions, side)[0])

    right, left = (slope(which, together, side) for side in (1, -1))
    hand, truth = (
        np.where(together, x[k][which], 0).reshape(len(which), -1) for x in (c.hand, c.truth)
    )
    scale = np.maximum(np.abs(hand).sum(1), np.abs(right))
    smooth = np.abs(right - left) <= 1e-5 * scale
    wrong = smooth & (np.abs(hand.sum(1) - right) > 1e-3 * scale)
    for move in np.flatnonzero(wrong):
        places = np.argwhere(together[move])[:TIED]
        alone = np.zeros((len(places), *together.shape[1:]), bool)
        alone[(np.arange(len(places)), *places.T)] = True
        each = slope(np.full(len(places), which[move]), alone, 1)
        if len(each) == TIED or abs(each.sum() - right[move]) > 1e-3 * scale[move]:
            sums = hand[move].sum(), truth[move].sum(), right[move]
            hand_sum, truth_sum, number = (float(np.real(s)) for s in sums)
            return hand_sum, truth_sum, number
    return None


def gaussian(rng: np.random.Generator, like: np.ndarray) -> np.ndarray:
    draw = rng.standard_normal(like.shape)
    return draw + 1j * rng.standard_normal(like.shape) if like.dtype.kind == "c" else draw


def reference_disagrees(
    c: Comparison, problem: Problem, numerical: Numerical, seed: int, sample: int = 0
) -> bool:
    """Whether autodiff of the reference departs from numerical derivatives of its forward."""
    n = len(problem.variables)
    rows = [i for i, of in enumerate(c.rows.samples) if of == sample]
    rows = rows[: 1 if problem.kind == "gradient" or problem.large else 2]
    columns = c.rows.take(rows)
    gradients = [g[rows] for g in c.everything[len(problem.cotangent_shapes) :]]
    rng = witness.seeded(seed, "directions")
    directions = [gaussian(rng, v) for v in columns[:n]]
    slopes, error = numerical.along(columns[:n], directions)
    products = [
        np.real(g * d).reshape(len(rows), -1) for g, d in zip(gradients, directions, strict=True)
    ]
    autodiff = sum(p.sum(1) for p in products)
    scale = sum(np.abs(p).sum(1) for p in products) + sum(
        np.abs(dy * s).reshape(len(rows), -1).sum(1)
        for dy, s in zip(columns[n:], slopes, strict=True)
    )

    offset = len(c.paths) - len(problem.verified)
    noise = TINY + sum(
        np.abs(c.noise[offset + k][rows] * directions[i]).reshape(len(rows), -1).sum(1)
        for k, i in enumerate(problem.verified)
    )

    def departs(numbers: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            far = ~(np.abs(numbers - autodiff) <= 1e3 * error * scale + noise)
        return far & np.isfinite(numbers)

    far = departs(np.real(_against(columns[n:], slopes)))
    if not far.any():
        return False
    left, right = (
        np.real(_against(columns[n:], numerical.one_sided(columns[:n], directions, side)[0]))
        for side in (-1, 1)
    )
    smooth = np.abs(right - left) <= 1e-4 * np.maximum(np.abs(left), np.abs(right))
    error = 1e-7
    scale = scale + sum(np.abs(np.nan_to_num(p)).sum(1) for p in products)
    return bool((far & smooth & departs(right)).any())


def quantity(
    c: Comparison, k: int, shape: tuple, dtype: str, numbers: Numbers | None = None,
    kinks: int = 0, siding: str = "",
) -> Quantity:  # fmt: skip
    """The verdict on one array, worst element first."""
    wrong = c.wrong[k]
    per_row = wrong.reshape(len(c.rows), -1).sum(1)
    convention = c.forgiven.get(k, np.zeros((), bool))
    vacuous = not _agrees_somewhere(*(np.where(convention, 0, x[k]) for x in (c.hand, c.truth)))
    if not wrong.any():
        lost = int(c.lost[k].any(0).sum())
        return Quantity(
            c.paths[k], shape, dtype, kinks=kinks, lost=lost, siding=siding, vacuous=vacuous
        )
    row = int(np.flatnonzero(per_row)[0])
    value = None
    with np.errstate(all="ignore"):
        gap = np.abs(c.hand[k][row] - c.truth[k][row])
        relative = np.where(wrong[row], gap / np.abs(c.truth[k][row]), -1)
        gap = np.where(wrong[row], np.where(np.isnan(gap), np.inf, gap), -1)
    flat = int(np.argmax(gap))
    if numbers is not None and (numbers.row == row).any():
        mine = np.flatnonzero(numbers.row == row)
        best = mine[np.argmax(gap.ravel()[numbers.element[mine]])]
        flat, value = int(numbers.element[best]), _scalar(numbers.value[best])
        if numbers.together is not None:  # alone, none of the tied elements has a derivative
            value = None
    index = tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()
    element = Element(index, _scalar(c.hand[k][row][index]), _scalar(c.truth[k][row][index]), value)
    return Quantity(
        c.paths[k], shape, dtype, wrong=int(per_row.max()), kinks=kinks, worst=element,
        deviation=float(np.nanmax(relative)), where=c.rows.labels[row], siding=siding,
        together=None if numbers is None else numbers.together,
    )  # fmt: skip


def _agrees_somewhere(hand: np.ndarray, truth: np.ndarray) -> bool:
    """Whether a row of the gradient that is not zero has its first digits right."""
    if not truth.size:
        return False
    for row in zip(hand, truth, strict=True):
        h, t = (np.where(np.isfinite(x), x, 0) for x in row)
        if np.abs(h - t).max() < 0.5 * np.abs(t).max():
            return True
    return False


def _scalar(x: np.ndarray) -> complex:
    return complex(x) if np.iscomplexobj(x) and complex(x).imag else float(np.real(x))
