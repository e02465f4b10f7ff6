"""What a wrong gradient looks like: relations between it and the right one.

A relation is claimed only if it explains the whole deviation to within the noise.
"""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np

from handgrad.compare.patience import patience
from handgrad.compare.report import Diagnosis

# Kinds that say where the deviation is, not what it is.
DIGITS = 1e-9  # what a constant is off by that was written with too few of them, at most
CHANCE = 100  # a bound between wrong and right is one that as many other orders would not show
SECONDS = 2.0  # of a loop that is asked about one relation
VAGUE = frozenset({"region", "slice", "element", "nonlinear", "near", "point"})


@dataclasses.dataclass(frozen=True)
class Larger:
    """The same derivation with larger arrays."""

    arrays: Sequence[tuple[str, np.ndarray]]
    hand: Sequence[np.ndarray]
    truth: Sequence[np.ndarray]

    def ratio(self, i: int) -> float | None:
        """The size of the one number by which gradient i is off there, if it is one."""
        h, g = self.hand[i], self.truth[i]
        square = np.vdot(g, g).real
        r = np.vdot(g, h).real / square if square and np.isfinite(h).all() else 0.0
        alike = r and np.allclose(h, r * g, rtol=1e-7, atol=1e-9 * np.abs(g).max())
        return abs(float(r)) if alike else None


@dataclasses.dataclass(frozen=True)
class Evidence:
    """One pair of sample and cotangent at which the derivation is wrong."""

    names: Sequence[str]  # of the gradients, as those below
    values: Sequence[np.ndarray]  # the variables they belong to
    hand: Sequence[np.ndarray]
    truth: Sequence[np.ndarray]
    noise: Sequence[np.ndarray]  # what a deviation may be and still be rounding
    wrong: Sequence[np.ndarray]  # which elements differ
    cotangents: Sequence[np.ndarray]
    by_hand: Callable[..., list]  # other cotangents, same sample -> gradients
    by_autodiff: Callable[..., list]
    known: Sequence[tuple[str, np.ndarray]]  # what else there is to multiply by
    single_precision: bool  # the candidate computes in float32 or less somewhere
    elsewhere: Callable[[int, np.ndarray], list] | None = None  # autodiff's, another value for one
    scalars: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by name: eps, a slope
    larger: Callable[[], Larger | None] = lambda: None

    @property
    def arrays(self) -> list[tuple[str, np.ndarray]]:
        """All that is given, by name."""
        variables = zip(self.names, self.values, strict=True)
        return [*variables, *self.known, *(("dy", c) for c in self.cotangents)]

    def same(self, i: int, a: np.ndarray, b: np.ndarray) -> bool:
        """Whether a and b agree to the noise of gradient i."""
        if a.shape != b.shape:
            return False
        with np.errstate(all="ignore"):
            close = np.abs(a - b) <= np.maximum(self.noise[i], 1e-11 * np.abs(b))
        return bool(close.all()) and bool(np.abs(b).max(initial=0) > 0)


def diagnose(evidence: Evidence) -> list[Diagnosis]:
    """At most one relation a gradient, the simplest first; then what the wrong elements share."""
    found = []
    for i, name in enumerate(evidence.names):
        if not evidence.wrong[i].any():
            continue
        for relation in RELATIONS:
            result = None
            with contextlib.suppress(TimeoutError), patience(SECONDS):
                result = relation(evidence, i)
            if result is not None:
                found.append(Diagnosis(result[0], name, f"the gradient of {name} {result[1]}"))
                break
    return found


def _not_finite(e: Evidence, i: int):
    bad = ~np.isfinite(e.hand[i])
    if bad.any() and np.isfinite(e.truth[i]).all():
        what = "nan" if np.isnan(e.hand[i]).any() else "inf"
        return "nonfinite", (
            f"has {what} in {bad.sum()} of {bad.size} elements, where the true one is finite: "
            "look for 0/0, inf - inf or an overflowing exp"
        )


def _zero(e: Evidence, i: int):
    tiny = np.maximum(e.noise[i], 1e-12 * np.abs(e.truth[i]).max(initial=0))
    if (np.abs(e.hand[i]) <= tiny).all() and (np.abs(e.truth[i]) > tiny).any():
        return "missing", "is zero everywhere: the path through it is missing"


def _cotangent(e: Evidence, i: int):
    if not np.isfinite(e.truth[i]).all():
        return None
    if len(e.cotangents) == 1 and e.cotangents[0].ndim == 0 and e.cotangents[0] == 1:
        return None
    doubled = e.by_hand([2 * dy for dy in e.cotangents])[i]
    if e.same(i, doubled, e.hand[i]):
        ones = e.by_autodiff([np.ones_like(dy) for dy in e.cotangents])[i]
        where = ": it is the one for dy = 1" if e.same(i, e.hand[i], ones) else ""
        return "ignores-cotangent", f"ignores the cotangent dy{where}; multiply by dy (chain rule)"
    for which, dy in enumerate(e.cotangents if len(e.cotangents) > 1 else ()):
        without = [0 * d if k == which else d for k, d in enumerate(e.cotangents)]
        if dy.any() and e.same(i, e.hand[i], e.by_autodiff(without)[i]):
            return "ignores-cotangent", f"ignores dy[{which}], the cotangent of output {which}"
    if not e.same(i, doubled, 2 * e.hand[i]):
        for power in (2, 3):
            if e.same(i, e.hand[i], e.by_autodiff([dy**power for dy in e.cotangents])[i]):
                return (
                    "squares-cotangent",
                    f"takes dy to the power {power}; it must be linear in dy",
                )
        if np.isfinite(doubled).all():
            return "nonlinear", "is not linear in the cotangent: twice dy does not give twice it"


def _factor(e: Evidence, i: int):
    h, g = e.hand[i], e.truth[i]
    norm = np.vdot(g, g).real
    if norm == 0 or not np.isfinite(h).all():
        return None
    ratio = complex(np.vdot(g, h) / norm)
    if (
        abs(ratio) < 1e-12
        or abs(ratio - 1) < 1e-7
        or abs(ratio.imag) > 1e-9 * abs(ratio)
        or not e.same(i, h / ratio.real, g)
    ):
        return None
    r = ratio.real
    if abs(r + 1) < 1e-9:
        return "sign", "has the wrong sign"
    origin = _origin(e, abs(r), i)
    for text, total in () if origin else _totals(e):
        if abs(r - total) < 1e-9 * abs(r):
            return "operand", f"is the right one times {text}: divide by it"
        if abs(r * total - 1) < 1e-9:
            return "operand", f"is the right one over {text}: do not divide by it"
    return "factor", f"is {_number(r)} times the right one{origin}"


def _totals(e: Evidence) -> Iterator[tuple[str, float]]:
    """What weights and masks are divided by."""
    for name, value in [*zip(e.names, e.values, strict=True), *e.known]:
        if value.size > 1 and value.dtype.kind in "fib":
            yield f"{name}.sum()", float(value.sum())
            yield f"{name}.mean()", float(value.mean())


def _conjugate(e: Evidence, i: int):
    if not np.iscomplexobj(e.hand[i]) or not np.isfinite(e.truth[i]).all():
        return None
    if e.same(i, np.conj(e.by_hand([np.conj(dy) for dy in e.cotangents])[i]), e.truth[i]):
        return "conjugate", (
            "is the complex conjugate: that of a real L by a + ib is ∂L/∂a - i ∂L/∂b in JAX, and "
            "with a plus in PyTorch; take jnp.conj of dy and of what is returned"
        )


def _origin(e: Evidence, r: float, i: int) -> str:
    """A guess at where a constant factor comes from, which holds at other sizes too."""
    guesses = _guesses(e.arrays, e.scalars, r)
    larger = e.larger() if guesses else None
    ratio = None if larger is None else larger.ratio(i)
    if larger is not None and ratio is not None:
        known = {key for key, _ in _guesses(larger.arrays, e.scalars, ratio)}
        guesses = [guess for guess in guesses if guess[0] in known]
    elif [key for key, _ in guesses[:1]] == ["2"] and len(guesses) > 1:
        two, size = (text for _, text in guesses[:2])
        return f" ({two[:-1]}, or {size.split(':')[0]}?)"
    return f" ({guesses[0][1]})" if guesses else ""


def _guesses(
    arrays: Sequence[tuple[str, np.ndarray]], scalars: Mapping[str, float], r: float
) -> list[tuple[str, str]]:
    """The numbers and sizes at hand, 2, ½, square roots that are r: what each is, and in words."""
    found = []
    for text, value in _combined(scalars):
        if abs(r - value) < 1e-9 * r:
            found.append((text, f"{text}: once too often?"))
        if abs(r * value - 1) < 1e-9:
            found.append((f"1/{text}", f"1/{text}: left out?"))
    if abs(r - 2) < 1e-9:
        found.append(("2", "2: the derivative of a square, or a half left out?"))
    if abs(r - 0.5) < 1e-9:
        found.append(("1/2", "½: the derivative of a square is twice its root?"))
    for what, n in _sizes(arrays):
        for form, value, ending in (
            ("{}", n, ": a sum taken for a mean?"),
            ("1/{}", 1 / n, ": a mean taken for a sum?"),
            ("√{}", math.sqrt(n), ""),
            ("1/√{}", 1 / math.sqrt(n), ""),
            ("2/{}", 2 / n, ""),
            ("{}/2", n / 2, ""),
            ("({0}−1)/{0}", (n - 1) / n, ": biased or unbiased variance?"),
            ("{0}/({0}−1)", n / (n - 1), ": biased or unbiased variance?"),
        ):
            if abs(r - value) < 1e-9 * value:
                whose = f"N = {n}, {what}"
                text = form.format("N")
                found.append(
                    (form + what, f"{whose if text == 'N' else f'{text} with {whose}'}{ending}")
                )
    return found


def _sizes(arrays: Sequence[tuple[str, np.ndarray]]) -> Iterator[tuple[str, int]]:
    """The lengths of axes, the numbers of elements, and of those along two axes."""
    for name, array in arrays:
        for axis, n in enumerate(array.shape):
            if n > 1:
                yield f"axis {axis} of {name}", n
        if array.size > 1 and array.ndim != 1:
            yield f"the number of elements of {name}", array.size
    for name, array in arrays:
        pairs = itertools.combinations(range(array.ndim), 2)
        for a, b in sorted(pairs, key=lambda pair: (pair[1] - pair[0], -pair[0])):  # space first
            if array.ndim > 2 and array.shape[a] > 1 and array.shape[b] > 1:
                yield f"axes {a} and {b} of {name} together", array.shape[a] * array.shape[b]


def _combined(scalars: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    yield from scalars.items()
    for (a, x), (b, y) in itertools.permutations(scalars.items(), 2):
        yield f"{a}/{b}", x / y
        if a < b:
            yield f"{a} {b}", x * y


def _number(r: float) -> str:
    fraction = Fraction(r).limit_denominator(10_000)
    if fraction and abs(float(fraction) / r - 1) < 1e-10 and fraction.denominator > 1:
        return f"{fraction} = {r:.6g}"
    return f"{r:.10g}"


def _transposed(e: Evidence, i: int):
    h, g = e.hand[i], e.truth[i]
    if h.ndim >= 2 and h.shape[-1] == h.shape[-2] and e.same(i, np.swapaxes(h, -1, -2), g):
        return "transposed", "is transposed"


def _swapped(e: Evidence, i: int):
    for j, name in enumerate(e.names):
        if j != i and e.same(i, e.hand[i], e.truth[j]):
            return "swapped", f"is the one of {name}: cotangents returned in the wrong order?"


def _multiple(e: Evidence, i: int):
    """Right but for a factor that is at hand, such as a mask."""
    h, g = e.hand[i], e.truth[i]
    for name, value in [*zip(e.names, e.values, strict=True), *e.known]:
        if value.size < 2 or value.dtype.kind not in "fib":
            continue
        v = value.astype(float)
        while v.ndim < h.ndim and v.shape == h.shape[: v.ndim]:
            v = v[..., None]
        if v.ndim > h.ndim or any(a not in (1, b) for a, b in _trailing(v, h)):
            continue
        with np.errstate(all="ignore"):
            if e.same(i, h * v, g):
                return "operand", f"is the right one without the factor {name}: multiply by it"
            if (v != 0).all() and e.same(i, h / v, g):
                return "operand", f"is the right one times {name}: do not multiply by it"


def _flipped(e: Evidence, i: int):
    h, g = e.hand[i], e.truth[i]
    axes = [a for a in range(h.ndim) if h.shape[a] > 1]
    for k in range(1, min(len(axes), 4) + 1):
        for some in itertools.combinations(axes, k):
            if e.same(i, np.flip(h, some), g):
                turn = "rotated by 180° in" if k == 2 else "reversed along"
                return "flipped", f"is {turn} {_axes(some)}"


def _shifted(e: Evidence, i: int):
    h, g = e.hand[i], e.truth[i]
    for axis in range(h.ndim):
        if h.shape[axis] < 3:
            continue
        for step, word in ((1, "late"), (-1, "early")):
            a = np.moveaxis(h, axis, 0)
            b = np.moveaxis(g, axis, 0)
            noise = np.moveaxis(e.noise[i], axis, 0)
            a, b, noise = (a[1:], b[:-1], noise[:-1]) if step == 1 else (a[:-1], b[1:], noise[1:])
            if (np.abs(a - b) <= np.maximum(noise, 1e-9 * np.abs(b))).all() and b.any():
                return "shifted", f"comes one step too {word} along axis {axis}"


def _permuted(e: Evidence, i: int):
    h, g = e.hand[i], e.truth[i]
    for axis in range(h.ndim - 1, -1, -1):
        for blocks in (2, 3, 4):
            if h.shape[axis] % blocks or h.shape[axis] < blocks:
                continue
            parts = np.split(h, blocks, axis)
            for order in itertools.permutations(range(blocks)):
                if order == tuple(range(blocks)):
                    continue
                if e.same(i, np.concatenate([parts[k] for k in order], axis), g):
                    return "permuted", (
                        f"has its {blocks} blocks along axis {axis} in another order: block k of "
                        f"the right one is block {list(order)}[k] of yours (gates?)"
                    )


def _reduced(e: Evidence, i: int):
    """Summed where it should not be: constant along an axis, with the right sum there."""
    h, g = e.hand[i], e.truth[i]
    for axis in range(h.ndim):
        n = h.shape[axis]
        if n < 2 or (h != np.take(h, [0], axis)).any():
            continue
        total = np.broadcast_to(g.sum(axis, keepdims=True), g.shape)
        for value, word in ((total, "summed"), (total / n, "averaged")):
            if e.same(i, h, value):
                return "reduced", f"is {word} over axis {axis}, where each element has its own"


def _slight(e: Evidence, i: int) -> bool:
    """Whether so little is wrong that what is nearly the truth would do for an explanation."""
    return bool(np.abs(e.hand[i] - e.truth[i]).max() < 1e-7 * np.abs(e.truth[i]).max(initial=0))


def _of_another_cotangent(e: Evidence, i: int):
    """Right for the cotangent without its first or last part, or moved: the map is linear in it."""
    if _slight(e, i):
        return None
    for which, dy in enumerate(e.cotangents):
        name = "dy" if len(e.cotangents) == 1 else f"dy[{which}]"
        for axis in range(dy.ndim):
            n = dy.shape[axis]
            if n < 2:
                continue
            for kind, words, moved in _moved(dy, axis):
                dys = [moved if k == which else d for k, d in enumerate(e.cotangents)]
                if e.same(i, e.hand[i], e.by_autodiff(dys)[i]):
                    return kind, f"{words} along axis {axis} of {name}"


def _moved(dy: np.ndarray, axis: int) -> Iterator[tuple[str, str, np.ndarray]]:
    n = dy.shape[axis]
    at = np.arange(n).reshape([-1 if a == axis else 1 for a in range(dy.ndim)])
    for k, word in ((0, "the first"), (n - 1, "the last")):
        yield "partial", f"leaves out {word}", np.where(at == k, 0, dy)
        if n > 2:
            yield "partial", f"counts {word} alone", np.where(at == k, dy, 0)
    if n > 2:
        for step, word in ((1, "late"), (-1, "early")):
            rolled = np.roll(dy, step, axis)
            edge = 0 if step == 1 else n - 1
            words = f"takes the cotangent one step too {word}"
            yield "shifted", words, rolled
            yield "shifted", words, np.where(at == edge, 0, rolled)
        yield "flipped", "takes the cotangent in reverse", np.flip(dy, axis)


def _at_another_point(e: Evidence, i: int):
    """Autodiff's where an argument has another value: a stale residual, or what came after it."""
    if e.elsewhere is None or _slight(e, i):
        return None
    for j, (name, value) in enumerate(zip(e.names, e.values, strict=True)):
        if value.dtype.kind != "f":
            continue
        for words, function in _POINTS.items():
            with np.errstate(all="ignore"):
                other = function(value)
            if not np.isfinite(other).all() or (other == value).all():
                continue
            if not e.same(i, e.hand[i], e.elsewhere(j, other)[i]):
                continue
            near = other * (1 + 0.01 * np.cos(np.arange(other.size)).reshape(other.shape))
            if not e.same(i, e.hand[i], e.elsewhere(j, near)[i]):  # so it is that very point
                return "point", (
                    f"is the right one at another point, {words.format(name)} for {name}: "
                    "a stale residual, or the value before or after a nonlinearity?"
                )


_POINTS: dict[str, Callable] = {
    "tanh({})": np.tanh,
    "the logistic of {}": lambda x: 1 / (1 + np.exp(-x)),
    "exp({})": np.exp,
    "log({})": np.log,
    "the positive part of {}": lambda x: np.maximum(x, 0),
    "|{}|": np.abs,
    "-{}": np.negative,
    "2 {}": lambda x: 2 * x,
    "{} / 2": lambda x: x / 2,
    "{}**2": np.square,
    "{} moved one step along its first axis": lambda x: np.roll(x, 1, 0) if x.ndim else x,
    "{} moved back one step along its first axis": lambda x: np.roll(x, -1, 0) if x.ndim else x,
    "{} with its last two axes exchanged": lambda x: (
        np.swapaxes(x, -1, -2) if x.ndim > 1 and x.shape[-1] == x.shape[-2] else x
    ),
}


def _single(e: Evidence, i: int):
    h, g = e.hand[i], e.truth[i]
    scale = max(np.abs(g).max(initial=0), 1e-300)
    if e.single_precision and np.abs(h - g).max() < 1e-2 * scale:
        return "precision", (
            f"is right to {np.abs(h - g).max() / scale:.0e} only: the derivation computes in a "
            "lower precision than its inputs (look for float32, bfloat16 or .astype)"
        )


def _where(e: Evidence, i: int):
    """What the wrong elements have in common."""
    wrong, x = e.wrong[i], e.values[i]
    if _off(e, i) < DIGITS:  # some of it may be below the noise, and yet far above that of the rest
        gap = np.abs(e.hand[i] - e.truth[i])
        wrong = gap > gap.max(initial=0) / 100
    if wrong.all() or wrong.size < 2:
        return None
    if wrong.sum() == 1:
        index = [int(k) for k in np.argwhere(wrong)[0]]
        return "element", f"is wrong in the one element {index} only"
    for axis in range(wrong.ndim):
        others = tuple(a for a in range(wrong.ndim) if a != axis)
        lines = np.flatnonzero(wrong.any(others))
        n = wrong.shape[axis]
        if len(lines) == 1 and n > 1:
            place = {0: "the first", n - 1: "the last"}.get(int(lines[0]), f"number {lines[0]}")
            return "slice", f"is wrong in {place} along axis {axis} only"
        if n > 2 and len(lines) == n - 1 and np.take(wrong, lines, axis).mean() > 0.8:
            missing = int(next(iter(set(range(n)) - set(lines.tolist()))))
            if missing in (0, n - 1):
                place = "first" if missing == 0 else "last"
                return "slice", f"is right in the {place} along axis {axis} only"
    told = 2**wrong.size >= CHANCE
    if x.shape == wrong.shape and x.dtype.kind == "f" and told:
        for mask, text in ((x < 0, "negative"), (x > 0, "positive"), (x == 0, "zero")):
            if (
                mask.any()
                and not mask.all()
                and not (wrong & ~mask).any()
                and wrong[mask].mean() > 0.8
            ):
                return "region", f"is wrong only where {e.names[i]} is {text}"
        if math.comb(wrong.size, int(wrong.sum())) < CHANCE:
            return None
        low, high = np.abs(x[~wrong]).max(initial=0), np.abs(x[wrong]).min()
        if low < high:
            return "region", f"is wrong only where |{e.names[i]}| is above {low:.3g}"
        low, high = np.abs(x[wrong]).max(), np.abs(x[~wrong]).min()
        if low < high:
            return "region", f"is wrong only where |{e.names[i]}| is below {high:.3g}"


def _off(e: Evidence, i: int) -> float:
    """The largest deviation, of the largest element."""
    with np.errstate(all="ignore"):
        off = np.abs(e.hand[i] - e.truth[i]).max(initial=0) / np.abs(e.truth[i]).max(initial=0)
    return float(np.nan_to_num(off, nan=np.inf))


def _near(e: Evidence, i: int):
    off = _off(e, i)
    if e.hand[i].size < 2 or not 0 < off < 0.05 or DIGITS < off < 1e-7:  # as single precision is
        return None
    why = "the derivative of an approximation, a constant that is slightly off, or eps misplaced?"
    if off < DIGITS:
        why = "a constant written with too few digits?"
    return "near", f"is nearly right, to {off:.1g} of its largest element: {why}"


RELATIONS: tuple[Callable, ...] = (
    _not_finite, _zero, _conjugate, _cotangent, _factor, _transposed, _swapped, _multiple,
    _flipped, _permuted, _shifted, _reduced, _single, _of_another_cotangent, _at_another_point,
    _where, _near,
)  # fmt: skip


def _trailing(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(a.shape[::-1], b.shape[::-1], strict=False)


def shape_mismatch(hand: np.ndarray, truth: np.ndarray) -> str:
    """What would bring a gradient of the wrong shape into the right one, as far as can be seen."""

    def close(a: np.ndarray) -> bool:
        return a.shape == truth.shape and bool(np.allclose(a, truth, rtol=1e-8, atol=1e-12))

    for axes in _subsets(hand.ndim):
        for keep in (False, True):
            if close(hand.sum(axes, keepdims=keep)):
                return f": sum it over {_axes(axes)} (the argument was broadcast along it)"
    for axes in itertools.combinations(range(truth.ndim), max(truth.ndim - hand.ndim, 0)):
        column = np.expand_dims(hand, axes)
        lost = [k for k, n in enumerate(column.shape[: truth.ndim]) if n == 1 < truth.shape[k]]
        wide = np.tile(column, [truth.shape[k] if k in lost else 1 for k in range(column.ndim)])
        if lost and close(wide):
            return f": broadcast it along {_axes(lost)} (the argument was added up along it)"
    if hand.ndim == truth.ndim:
        for order in itertools.permutations(range(hand.ndim)):
            if hand.ndim <= 4 and close(hand.transpose(order)):
                return ": transpose it" if hand.ndim == 2 else f": transpose it by {order}"
    if hand.size == truth.size and close(hand.reshape(truth.shape)):
        return f": reshape it to {list(truth.shape)}"
    return ""


def _subsets(ndim: int) -> Iterator[tuple[int, ...]]:
    for k in range(1, min(ndim, 5) + 1):
        yield from itertools.combinations(range(ndim), k)


def _axes(axes: Sequence[int]) -> str:
    return f"axis {axes[0]}" if len(axes) == 1 else "axes " + " and ".join(map(str, axes))
