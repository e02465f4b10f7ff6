"""The witnesses: autodiff in float64, its measured noise floor, and numerical derivatives."""

import contextlib
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from handgrad.compare import primitives
from handgrad.compare.interpret import NotAnalytic, Program
from handgrad.compare.primitives import STEP
from handgrad.compare.problem import Batched, Problem, Row

EPS, SINGLE = 2.0**-52, 2.0**-24
NOTHING = 64 * EPS  # of the largest of an array, what is a rounding error of 0
UNITS = np.array([-2.0, -1.0, 1.0, 2.0])
STRIDE = 0x9E3779B97F4A7C15  # from the salt of one operation to that of the next


# --- samples ------------------------------------------------------------------------------------


def vary(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another value near x that keeps what x may have to satisfy.

    Signs and zeros stay; masks, one-hot rows and labels ±1 stay as they are; rows that sum to
    one, unit vectors, symmetric matrices and numbers in [-1, 1] stay so. A leaf of zeros (a bias,
    an initial state) becomes small random numbers, so that what multiplies it is seen.
    """
    if x.dtype.kind == "c":
        return x * (1 + 0.3 * rng.standard_normal(x.shape))
    factor = np.exp(rng.uniform(-0.3, 0.3, x.shape))
    finite = x[np.isfinite(x)]
    if not x.size or not finite.size:
        return x
    if not finite.any():
        return x + 0.1 * rng.standard_normal(x.shape)
    if x.size > 2 and np.isin(x, [0, finite[np.argmax(np.abs(finite))]]).all() and (x == 0).any():
        return x  # a mask
    if x.size > 1 and (np.abs(x) == 1).all() and x.min() < 0 < x.max():
        return x  # labels
    if x.ndim and x.shape[-1] > 1:
        total, square = x.sum(-1, keepdims=True), (x * x).sum(-1, keepdims=True)
        y = x * factor
        if (finite >= 0).all() and np.allclose(total, 1, atol=1e-6):
            return y / y.sum(-1, keepdims=True)
        if np.allclose(square, 1, atol=1e-6):
            return y / np.sqrt((y * y).sum(-1, keepdims=True))
    if x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1 and np.allclose(x, np.swapaxes(x, -1, -2)):
        scale = np.exp(rng.uniform(-0.2, 0.2, x.shape[:-1]))
        return x * scale[..., :, None] * scale[..., None, :]
    if np.abs(finite).max() <= 1:
        return x * np.exp(rng.uniform(-0.4, -0.01, x.shape))
    return x * factor


def polish(x: np.ndarray) -> np.ndarray:
    """x with rows that sum to one, or have unit length, doing so in float64 as well.

    Given in float32 they do only to 1e-7, and a derivation may rest on it.
    """
    if x.dtype.kind == "f" and x.ndim and x.shape[-1] > 1 and np.isfinite(x).all():
        total, square = x.sum(-1, keepdims=True), (x * x).sum(-1, keepdims=True)
        if (x >= 0).all() and np.allclose(total, 1, atol=1e-6):
            return x / total
        if np.allclose(square, 1, atol=1e-6):
            return x / np.sqrt(square)
    return x


def tame(x: np.ndarray) -> np.ndarray:
    """x at scale one, where gradients are neither saturated nor lost in rounding."""
    finite = np.abs(x[np.isfinite(x)])
    rms = np.sqrt(np.mean(finite**2)) if finite.size else 0.0
    return x / rms if rms > 8 or (0 < rms < 1 / 64 and finite.max() < 0.1) else x


def jiggle(x: np.ndarray, salt: np.ndarray | np.uint64, eps: float = EPS) -> np.ndarray:
    """x moved by one or two units in the last place; equal numbers stay equal, small integers stay.

    So ties, symmetries and kinks at which the inputs lie are kept, and masks, labels and counts
    are what they were to a function that asks whether they are 1.
    """
    return np.where(_counts(x), x, x * units(x, salt, 1 + eps * UNITS))


def _counts(x: np.ndarray) -> np.ndarray:
    return (np.abs(x) < 1000) & (x == np.round(x))


def shift(x: np.ndarray, salt: np.ndarray | np.uint64) -> np.ndarray:
    """x moved by a unit or two in the last place of its row's largest number; else as `jiggle`."""
    largest = np.abs(x).reshape(len(x), -1).max(1, initial=0).reshape(-1, *[1] * (x.ndim - 1))
    return np.where(_counts(x), x, x + largest * units(x, salt, EPS * UNITS))


def units(x: np.ndarray, salt: np.ndarray | np.uint64, of: np.ndarray = UNITS) -> np.ndarray:
    """One of four numbers for each of x, at random: a change of so many epsilons never rounds away.

    Equal numbers get the same.
    """
    return np.take(of, (_hash(x, salt) >> np.uint64(62)).view(np.int64))


def _hash(x: np.ndarray, salt: np.ndarray | np.uint64) -> np.ndarray:
    """Pseudo-random 64-bit numbers that depend on |x| and the salt alone."""
    bits = np.array(np.abs(x), np.float64).view(np.uint64) + np.zeros_like(salt)
    high = np.empty_like(bits)
    with np.errstate(over="ignore"):
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            bits += salt
            np.right_shift(bits, np.uint64(shift), out=high)
            bits ^= high
            bits *= np.uint64(factor)
    return bits


def seeded(seed: int, *words: object) -> np.random.Generator:
    return np.random.default_rng([seed, *(zlib.crc32(str(w).encode()) for w in words)])


# --- Monte Carlo arithmetic ---------------------------------------------------------------------


class Fixed:
    """An `after=` for `Program`: knows what does not vary with the inputs, but in jumps.

    That is computed as it is, and only moved where it meets what does vary: an index that is
    computed in floats is no other one for a rounding error.
    """

    rounds_by = EPS  # an operation that rounds

    def __init__(self):
        self.fixed: dict[int, tuple[Any, float]] = {}  # by id: an array, and how far it is known

    def __call__(self, eqn, inputs, results):
        name = eqn.primitive.name
        if name in primitives.JUMPING:
            self._fix(results, 0.0)
        if all(map(self._is_fixed, inputs)):
            known = [self._eps(x) for x in inputs]
            for r in results:
                rounded = name in primitives.ROUNDING and not np.all(_exact(eqn, inputs, r))
                self._fix([r], max([self.rounds_by * rounded, *known]))
        return results

    def constant(self, x):
        self._fix([x], 0.0)
        return x

    def part(self, whole, piece):
        if id(whole) in self.fixed:
            self._fix([piece], self.fixed[id(whole)][1])
        return piece

    def operands(self, eqn, inputs):
        """What is fixed, beside what is not, is moved as far as it is not known."""
        if eqn.primitive.name in primitives.JUMPING or all(map(self._is_fixed, inputs)):
            return inputs
        return [self.moved(x) if id(x) in self.fixed else x for x in inputs]

    def moved(self, x: Any) -> Any:
        raise NotImplementedError

    def _fix(self, results, eps):
        for r in results:  # held, so that no other array has its id
            if not self._is_fixed(r):
                self.fixed[id(r)] = r, eps

    def _is_fixed(self, x) -> bool:
        varies = x.dtype == object or jnp.issubdtype(x.dtype, np.inexact)
        return not varies or id(x) in self.fixed

    def _eps(self, x) -> float:
        return max(self.fixed.get(id(x), (x, 0.0))[1], SINGLE / 2 * bool(singles(x).any()))


class Rounding(Fixed):
    """An `after=` for `Program`: a random relative error behind every operation that rounds.

    `own=False` always takes float64's 2⁻⁵², so that a derivation which computes in a lower
    precision than its inputs is not excused by the noise it makes itself. `rows`: the length of
    the leading axis, along which the errors are independent.
    """

    rounds = 100  # of a while loop: with errors for ever, what iterates might not come to rest

    def __init__(self, rng: np.random.Generator, own: bool, rows: int):
        super().__init__()
        self.salts, self.own = rng.integers(2**63, size=rows).astype(np.uint64), own
        self.operations: dict[tuple[int, ...], int] = {}
        self.calls: tuple[int, ...] = ()  # in which the operation is made

    @contextlib.contextmanager
    def within(self, eqn):
        """One function that is called twice, with equal numbers too, errs independently."""
        self.calls, before = (*self.calls, id(eqn)), self.calls
        try:
            yield
        finally:
            self.calls = before

    def __call__(self, eqn, inputs, results):
        super().__call__(eqn, inputs, results)
        name = eqn.primitive.name
        if all(map(self._is_fixed, inputs)):
            return results
        dtype = primitives.of_its_own(eqn)
        own = 0.0 if dtype is None else primitives.eps(dtype)
        if name not in primitives.ROUNDING and not own:
            return results
        if name == "convert_element_type" and not self._narrows(inputs, results):
            return results
        # two operations err independently, of equal results too
        number = self.operations.setdefault((*self.calls, id(eqn)), len(self.operations))
        salts = self.salts + np.uint64(number * STRIDE % 2**64)
        return [
            self._perturb(r, salts, primitives.added(eqn, inputs, r), _exact(eqn, inputs, r), own)
            for r in results
        ]

    def moved(self, x):
        """A float32 number that is not a short binary one is known to 24 bits only.

        What is next to nothing beside the others of its array, as cos π/2, is not known at all.
        """
        if not isinstance(x, np.ndarray) or not jnp.issubdtype(x.dtype, np.floating):
            return x
        eps = self.fixed[id(x)][1]
        exact = x.astype(np.float64)
        long = np.where(singles(exact), max(eps, SINGLE / 2), eps)
        size = np.abs(exact)
        long = np.where(size < NOTHING * min(1.0, size.max(initial=0)), 1.0, long)
        if not long.any():
            return x
        return np.where(long > 0, exact * (1 + long * units(exact, self.salts[0])), exact)

    @staticmethod
    def _narrows(inputs, results) -> bool:
        source, result = inputs[0].dtype, results[0].dtype
        return jnp.issubdtype(source, np.floating) and result.itemsize < source.itemsize

    def _perturb(self, x, salts, size, exact, least):
        """By epsilons of x, or of the sizes of what was added up to it; zeros stay."""
        if not isinstance(x, np.ndarray) or not jnp.issubdtype(x.dtype, np.inexact):
            return x
        eps = max(EPS, least, float(jnp.finfo(x.dtype).eps) if self.own else 0.0)
        rows = len(salts)
        by_row = x.ndim > 0 and x.shape[0] == rows > 1
        salt = salts.reshape(-1, *[1] * (x.ndim - 1)) if by_row else salts[0]
        if size is x:
            moved = (x * units(x, salt, 1 + eps * UNITS)).astype(x.dtype)
        else:
            with np.errstate(all="ignore"):
                moved = np.where(x == 0, x, x + size * units(x, salt, eps * UNITS)).astype(x.dtype)
        return np.where(exact, x, moved) if np.any(exact) else moved


def singles(x: np.ndarray) -> np.ndarray:
    """Which of x are float32 numbers, and no short binary ones."""
    if not isinstance(x, np.ndarray) or not jnp.issubdtype(x.dtype, np.floating):
        return np.zeros((), bool)
    exact = x.astype(np.float64)
    with np.errstate(over="ignore"):
        single = (exact.astype(np.float32) == exact) & (exact != 0)
    return single & (np.frexp(exact)[0] * 2.0**16 % 1 != 0)


def _short(x: np.ndarray) -> np.ndarray:
    """Which of x have so few binary places that what is computed of two of them is exact."""
    return (np.abs(x) < 4096) & (x * 4096 == np.round(x * 4096))


def _exact(eqn, inputs, result) -> Any:
    """Where nothing was rounded: in float64, all operands and the result are short."""
    if result.dtype != np.float64 or eqn.primitive.name not in primitives.ALGEBRAIC:
        return False
    if not (short := _short(result)).any():
        return False
    floats = [_short(x) for x in inputs if jnp.issubdtype(x.dtype, np.inexact)]
    if all(x.shape in ((), result.shape) for x in inputs):
        return functools.reduce(np.logical_and, floats, short)
    return short & all(x.all() for x in floats)


# --- truth and its floor ------------------------------------------------------------------------


def spread(samples: np.ndarray, base: np.ndarray) -> np.ndarray:
    """How far the samples are from base; what is not finite tells nothing."""
    with np.errstate(all="ignore"):
        distance = np.abs(samples - base)
    return np.where(np.isfinite(distance), distance, 0)


def floors(
    row: Row, columns: Sequence[np.ndarray], base: Sequence[np.ndarray], rng: np.random.Generator,
    times: int, rounding: bool | None = None,
) -> list[np.ndarray]:  # fmt: skip
    """How far each result moves when the inputs are moved by a unit or two in the last place.

    With `rounding`, every operation too: by its own dtype's epsilon (True) or float64's (False).
    """
    moved = shaken(row, columns, rng, times, rounding)
    return [spread(m, b).max(0, initial=0) for m, b in zip(moved, base, strict=True)]


def rounding_of_numpy(
    row: Row, columns: Sequence[np.ndarray], base: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """How far NumPy code is, row by row, from itself in long double; 0 where it knows no such.

    An error of rounding shrinks there, and one of the derivation does not.
    """
    found = [np.zeros(b.shape) for b in base]
    wide = [c.astype(np.clongdouble if c.dtype.kind == "c" else np.longdouble) for c in columns]
    for r in range(len(columns[0])):
        with np.errstate(all="ignore"):
            try:
                results = row.function(*[w[r].copy() for w in wide])
                for f, b, y in zip(found, base, results, strict=True):
                    f[r] = np.nan_to_num(np.abs(b[r] - np.asarray(y)).astype(np.float64))
            except Exception:  # what LAPACK and JAX do not know
                return [np.zeros(b.shape) for b in base]
    return found


def shaken(
    row: Row, columns: Sequence[np.ndarray], rng: np.random.Generator, times: int,
    rounding: bool | None = None, move: Callable = jiggle,
) -> list[np.ndarray]:  # fmt: skip
    """The results at inputs moved so many times, along one more axis in front; see `floors`."""
    rows = len(columns[0])
    salts = rng.integers(2**63, size=times * rows).astype(np.uint64)
    moved = [
        move(np.tile(c, (times,) + (1,) * (c.ndim - 1)), salts.reshape(-1, *[1] * (c.ndim - 1)))
        for c in columns
    ]
    noise = None if rounding is None else functools.partial(Rounding, rng, rounding)
    results = row.rows(moved, noise)
    return [r.reshape(times, rows, *r.shape[1:]) for r in results]


# --- the numerical derivative -------------------------------------------------------------------


class Numerical:
    """Derivatives of the reference's forward without any differentiation rule."""

    def __init__(self, problem: Problem, forward: Program | None = None):
        values = problem.values()
        forward = forward or Program(problem.forward, *values, widened=problem.widened)
        self.program = Batched(forward, values, 16)
        self.method = "complex step" if self._analytic() else "Ridders"
        narrow = self.program.program.narrow()
        self.error = max(1e-10, 64 * narrow) if narrow else 1e-10

    def _analytic(self) -> bool:
        """Whether an imaginary part comes through; complex numbers are not told from a step."""
        return not any(
            eqn.primitive.name in ("fft", "bitcast_convert_type", "reduce_precision")
            or jnp.issubdtype(getattr(v.aval, "dtype", np.int32), np.complexfloating)
            for eqn in self.program.program.equations()
            for v in (*eqn.invars, *eqn.outvars)
        )

    def along(
        self, values: Sequence[np.ndarray], directions: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], float]:
        """J·direction for every output; leading axis on all; and the method's relative error."""
        if self.method == "complex step":
            try:
                with np.errstate(all="ignore"):
                    moved = [v + 1j * STEP * d for v, d in zip(values, directions, strict=True)]
                outs = self.program(moved)
                slopes = [
                    np.imag(o) / STEP if o.dtype.kind == "c" else np.zeros(o.shape) for o in outs
                ]
                return slopes, self.error
            except NotAnalytic:
                self.method = "Ridders"
        right, e1 = self.one_sided(values, directions, 0)
        return right, e1

    def one_sided(
        self, values: Sequence[np.ndarray], directions: Sequence[np.ndarray], side: int
    ) -> tuple[list[np.ndarray], float]:
        """The derivative by differences: `side` +1 or -1, or 0 for central; extrapolated."""
        size = np.sqrt(sum((np.abs(d) ** 2).reshape(len(d), -1).sum(1) for d in directions))
        reach = [
            np.where(d != 0, np.maximum(np.abs(v), 1e-3 * _at_least_one(v)), 0).reshape(len(v), -1)
            for v, d in zip(values, directions, strict=True)
        ]
        step = 0.02 * np.concatenate(reach, 1).max(1, initial=0) / np.maximum(size, 1e-300)
        shrink, levels = (1.6, 12) if side == 0 else (2.0, 9)
        tables: list[list[np.ndarray]] = []
        base = self.program(values) if side else []
        for k in range(levels):
            h = step / shrink**k
            ahead = self._at(values, directions, h * (side or 1))
            behind = base if side else self._at(values, directions, -h)
            width = h * (side or 2)
            tables.append(
                [
                    (a - b) / width.reshape(-1, *[1] * (a.ndim - 1))
                    for a, b in zip(ahead, behind, strict=True)
                ]
            )
        ratio = shrink**2 if side == 0 else shrink
        factors = [ratio ** (i + 1) for i in range(levels)]
        slopes = [_extrapolate([t[i] for t in tables], factors) for i in range(len(tables[0]))]
        return slopes, max(1e-7, self.error)

    def _at(self, values, directions, h) -> list[np.ndarray]:
        moved = [
            v + h.reshape(-1, *[1] * (v.ndim - 1)) * d
            for v, d in zip(values, directions, strict=True)
        ]
        return self.program(moved)


def _at_least_one(v: np.ndarray) -> np.ndarray:
    """The largest number of each row, by which a function's rounding beside a zero is judged."""
    largest = np.abs(v).reshape(len(v), -1).max(1, initial=1)
    return largest.reshape(-1, *[1] * (v.ndim - 1))


def _extrapolate(estimates: list[np.ndarray], factors: list[float]) -> np.ndarray:
    """Ridders: the Neville tableau's entry with the smallest error estimate, element by element."""
    best = estimates[0]
    error = np.full(best.shape, np.inf)
    previous = [estimates[0]]
    with np.errstate(all="ignore"):
        for estimate in estimates[1:]:
            row = [estimate]
            for j, old in enumerate(previous):
                f = factors[j]
                row.append((row[j] * f - old) / (f - 1))
                guess = np.maximum(np.abs(row[-1] - row[j]), np.abs(row[-1] - old))
                better = guess < error
                best, error = np.where(better, row[-1], best), np.where(better, guess, error)
            previous = row
    return best
