"""Other inputs of the same kind as those given: other sizes, scales, special values, ties.

What arguments have to satisfy is declared nowhere, so it is read off the sample: rows that sum to
one go on doing so, positive numbers stay positive, and sizes that are equal stay equal.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "Axes",
    "Domain",
    "Sizes",
    "draw",
    "is_array",
    "nudged",
    "resizings",
    "shrunk",
    "simpler",
    "smaller",
    "taken",
    "tamed",
]

SPECIAL = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 10.0, -10.0, 1e4, -1e4, 1e-8, 1e-30)
SCALES = (1e-30, 1e-8, 1e-3, 1.0, 10.0, 100.0, 1e4)
MULTIPLES = (2, 3, 4)  # of a size, as the gates of a recurrent net are
BY_ELEMENT = ("free", "positive", "negative", "unit interval", "bits", "signs")
Sizes = dict[int, int]  # sizes of the sample, and what becomes of them
Axes = dict[tuple[int, int], int]  # the same of single axes: (leaf, axis)


def is_array(leaf: Any) -> bool:
    """An array of numbers: no random key, no Python number."""
    return isinstance(leaf, np.ndarray | jax.Array) and not jnp.issubdtype(
        leaf.dtype, jax.dtypes.extended
    )


# --- values --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Domain:
    """What the entries of an argument have to satisfy."""

    kind: str
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, leaf: Any) -> "Domain":
        if not is_array(leaf) or not leaf.size:
            return cls("fixed")
        x = np.asarray(leaf)
        if x.dtype.kind in "iub":
            return cls("integers", int(x.min()), int(x.max()))
        if x.dtype.kind == "c" or not np.isfinite(x.astype(float)).all():
            return cls("fixed")
        x = x.astype(float)
        return cls(_kind(x), float(x.min()), float(x.max()))

    @classmethod
    def of_draws(cls, leaf: Any, *others: Any) -> "Domain":
        """Of what was drawn again and again: a sign that some do not have is owed to chance."""
        own = cls.of(leaf)
        alike = [np.asarray(x) for x in (leaf, *others) if np.shape(x) == np.shape(leaf)]
        whole = cls.of(np.stack(alike)) if own.others else own
        return whole if whole.kind == "free" else own

    def allows(self, value: float) -> bool:
        """Whether an entry may be this, whatever the others are."""
        match self.kind:
            case "free":
                return True
            case "positive":
                return value > 0
            case "negative":
                return value < 0
            case "unit interval":
                return 0 < value < 1 or value in (self.low, self.high)
            case "bits":
                return value in (0, 1)
            case "signs":
                return value in (-1, 1)
            case _:
                return False

    @property
    def others(self) -> tuple[float, ...]:
        """Entries that it may owe to chance to have none of, the simplest first."""
        if self.kind not in ("positive", "negative", "unit interval"):
            return ()
        return tuple(v for v in (0.0, 1.0, -1.0, 2.0) if not self.allows(v))

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Another array of this kind."""
        normal = rng.standard_normal(shape)
        match self.kind:
            case "integers":
                return rng.integers(int(self.low), int(self.high) + 1, shape)
            case "bits":
                return (rng.random(shape) < rng.choice([0.0, 0.5, 1.0])).astype(float)
            case "signs":
                return np.where(normal < 0, -1.0, 1.0)
            case "positive":
                return _positive(rng, normal)
            case "negative":
                return -_positive(rng, normal)
            case "unit interval":
                ends = [e for e in (0.0, 1.0) if self.allows(e)]
                special = rng.choice([0.5, 0.25, 1e-7, 1 - 1e-7, *ends], shape)
                return _mixed(rng, special, rng.uniform(0.01, 0.99, shape))
            case "one-hot":
                return np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
            case "probabilities":
                z = rng.choice([0.0, 0.1, 1.0, 10.0]) * normal
                p = np.exp(z - z.max(-1, keepdims=True))
                return p / p.sum(-1, keepdims=True)
            case "unit vectors":
                return normal / np.sqrt((normal**2).sum(-1, keepdims=True))
            case "symmetric" | "positive definite" if len({*shape[-2:]}) > 1:
                return normal  # at these sizes there is none
            case "symmetric":  # distances and weights of edges are not negative
                half = rng.choice(SCALES) * normal if self.low < 0 else _positive(rng, normal)
                return half + np.swapaxes(half, -1, -2)
            case "positive definite":
                half = normal if self.low < 0 else np.abs(normal)
                return half @ np.swapaxes(half, -1, -2) + 0.1 * np.eye(shape[-1])
            case _:
                return _anything(rng, normal)


def _kind(x: np.ndarray) -> str:
    rows = x.ndim > 0 and x.shape[-1] > 1
    two = bool(np.isin(x, (0, 1)).all() and x.any())
    if rows and (x >= 0).all() and np.allclose(x.sum(-1), 1, atol=1e-6):
        return "one-hot" if two else "probabilities"
    if x.size > 1 and (x == x.flat[0]).all():
        return "free"  # such as an array of ones: it tells nothing
    if two and x.size > 1:
        return "bits"
    if x.size > 1 and (np.abs(x) == 1).all() and x.min() < x.max():
        return "signs"
    if rows and np.allclose((x * x).sum(-1), 1, atol=1e-6):
        return "unit vectors"
    square = rows and x.ndim > 1 and x.shape[-2] == x.shape[-1]
    if square and x.any() and (x == np.swapaxes(x, -1, -2)).all():
        return "positive definite" if np.linalg.eigvalsh(x).min() > 0 else "symmetric"
    if (x < 0).all():
        return "negative"
    if (x >= 0).all() and x.any() and x.max() <= 1:
        return "unit interval"
    return "positive" if (x > 0).all() else "free"


def _mixed(rng: np.random.Generator, some: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.where(rng.random(some.shape) < rng.choice([0.0, 0.3, 1.0]), some, others)


def _positive(rng: np.random.Generator, normal: np.ndarray) -> np.ndarray:
    special = rng.choice([1.0, 2.0, 0.5, 10.0, 1e-8, 1e4], normal.shape)
    return _mixed(rng, special, rng.choice(SCALES[1:]) * np.exp(0.5 * normal))


def _anything(rng: np.random.Generator, normal: np.ndarray) -> np.ndarray:
    """Gaussian at some scale, special values in it, small integers, equal rows, a single one."""
    shape = normal.shape
    match rng.integers(7):
        case 0:
            return rng.choice(SCALES) * normal
        case 1 | 2:
            return rng.choice([1.0, 5.0]) * normal
        case 3:
            return _mixed(rng, rng.choice(SPECIAL, shape), rng.choice(SCALES) * normal)
        case 4:
            return rng.integers(-2, 3, shape).astype(float)  # ties
        case 5 if shape:
            axis = int(rng.integers(len(shape)))
            return np.broadcast_to(normal.take([0], axis), shape)
        case _:
            one = np.zeros(normal.size)
            one[rng.integers(one.size)] = rng.choice(SPECIAL)
            return one.reshape(shape)


def taken(leaf: Any, like: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of an argument, from its k-th on, in another shape; or others of its kind."""
    domain = Domain.of(leaf)
    if domain.kind in BY_ELEMENT:
        return np.resize(np.roll(np.asarray(leaf, like.dtype).ravel(), -k), like.shape)
    return like if domain.kind == "fixed" else domain.draw(rng, like.shape).astype(like.dtype)


def nudged(leaves: Sequence[Any], domains: Sequence[Domain], rng: np.random.Generator) -> list[Any]:
    """Every entry that may be moved a thousandth away: off kinks and ties."""

    def move(x: np.ndarray) -> np.ndarray:
        return x + 1e-3 * rng.uniform(-1, 1, x.shape) * np.where(x, x, 1)

    return _moved(leaves, domains, move)


def tamed(leaves: Sequence[Any], domains: Sequence[Domain]) -> list[Any]:
    """No entry above 8; zeros and ties stay."""
    return _moved(leaves, domains, lambda x: np.clip(x, -8, 8))


def _moved(leaves: Sequence[Any], domains: Sequence[Domain], move: Callable) -> list[Any]:
    return [
        cast(move(np.asarray(leaf)), leaf)
        if domain.kind in ("free", "positive", "negative")
        else leaf
        for leaf, domain in zip(leaves, domains, strict=True)
    ]


# --- sizes ---------------------------------------------------------------------------------------


def resizings(leaves: Sequence[Any], rng: np.random.Generator) -> Iterator[Sizes | Axes]:
    """Other sizes, without end: every one of them down to 1, some axes apart, then at random."""
    sizes = _sizes(leaves)
    for n in sizes:
        yield {n: 1}
    if len(sizes) > 1:
        yield dict.fromkeys(sizes, 1)
    yield from apart(leaves)
    while sizes:
        new: Sizes = {}
        for n in rng.permutation(sizes).tolist():
            if n not in new and (not new or rng.random() < 0.5):
                m = int(rng.choice([1, 2, n - 1, n + 1, n + 2]))
                choices = _together(n, m, sizes)
                new |= choices[int(rng.integers(len(choices)))]
        yield new


def grown(leaves: Sequence[Any]) -> Iterator[Sizes]:
    """Every size larger: all alone, with their multiples, doubled; then one after the other."""
    sizes = _sizes(leaves)
    larger = {n: n + 3 + k for k, n in enumerate(sizes)}
    yield larger
    for choice in (1, 2):
        new: Sizes = {}
        for n in sizes:
            if n not in new:
                new |= _together(n, larger[n], sizes)[-choice:][0]
        yield new
    yield {n: 2 * n for n in sizes}  # of chunks, as many again
    for n in sizes:
        yield {n: larger[n]}


def small(leaves: Sequence[Any]) -> Iterator[Sizes]:
    """Every size smaller, as different as they were: all alone, with their multiples; then each."""
    sizes = _sizes(leaves)
    tiny = {n: min(n, 2 + k) for k, n in enumerate(sizes)}
    yield tiny
    new: Sizes = {}
    for n in sizes:
        if n not in new:
            new |= {k: m for k, m in _together(n, tiny[n], sizes)[-1].items() if k not in new}
    yield new
    yield {n: max(2, n // 2) for n in sizes}
    for n in reversed(sizes):
        yield from ({n: m} for m in (2, n // 2) if 1 < m < n)


def apart(leaves: Sequence[Any]) -> Iterator[Axes]:
    """Axes of one size told apart, and those of size 1 made longer: the first axes, then each.

    Not each where there are integers: rows without a label may be taken, and mean nothing.
    """
    arrays = [(i, leaf) for i, leaf in enumerate(leaves) if is_array(leaf)]
    axes = [((i, a), n) for i, leaf in arrays for a, n in enumerate(leaf.shape)]
    sizes = [n for _, n in axes]
    like = [(axis, n) for axis, n in axes if n == 1 or (n and sizes.count(n) > 1)]
    for size in dict.fromkeys(n for _, n in like):
        first = [axis for axis, n in like if n == size and axis[1] == 0]
        if first:
            yield dict.fromkeys(first, size + 2)
    if all(np.issubdtype(np.asarray(leaf).dtype, np.floating) for _, leaf in arrays):
        for axis, n in like[:6]:
            yield {axis: n + 2}


def pairs_apart(leaves: Sequence[Any]) -> Iterator[Axes]:
    """As `apart`, then any two axes of one size together."""
    yield from apart(leaves)
    shapes = [(i, np.shape(leaf)) for i, leaf in enumerate(leaves) if is_array(leaf)]
    axes = [((i, a), n) for i, shape in shapes for a, n in enumerate(shape) if n > 1]
    for (one, n), (other, m) in itertools.combinations(axes, 2):
        if n == m:
            yield {one: n + 2, other: n + 2}


def unpinned(
    every: Iterable[Mapping[Any, int]], leaves: Sequence[Any], pinned: Collection[int]
) -> Iterator[dict[Any, int]]:
    """The `Sizes` or `Axes` that leave these lengths as they are, in so far as they change any."""
    seen: list[dict] = []
    for sizes in every:
        lengths = {key: key if isinstance(key, int) else _length(leaves, key) for key in sizes}
        kept = {key: m for key, m in sizes.items() if lengths[key] not in pinned}
        if kept not in seen and any(m != lengths[key] for key, m in kept.items()):
            seen.append(kept)
            yield kept


def _length(leaves: Sequence[Any], axis: tuple[int, int]) -> int:
    return np.shape(leaves[axis[0]])[axis[1]]


def smaller(leaves: Sequence[Any]) -> Iterator[tuple[Sizes, int]]:
    """Single sizes made smaller, the smallest first; and which of the entries to begin with."""
    sizes = _sizes(leaves)
    for n in reversed(sizes):
        for m in dict.fromkeys((1, 2, n // 2, n - 1)):
            for new in _together(n, m, sizes) if 1 <= m < n else ():
                for start in dict.fromkeys((0, n - m, *range(min(n - m, 8)))):
                    yield new, start


def _sizes(leaves: Sequence[Any]) -> list[int]:
    """What may change; a 1 may be there to be broadcast, and stays."""
    return sorted({n for leaf in leaves if is_array(leaf) for n in leaf.shape if n > 1})


def _together(n: int, m: int, sizes: Sequence[int]) -> list[Sizes]:
    """n becomes m: alone; with its multiples, such as gates; with n + 1, such as a bias's."""
    multiples = {k * n: k * m for k in MULTIPLES if k * n in sizes}
    one_more = {n + 1: m + 1} if n + 1 in sizes else {}
    return [{n: m}, *({n: m} | more for more in (multiples, one_more) if more)]


def draw(
    leaves: Sequence[Any], sizes: Mapping[Any, int], rng: np.random.Generator,
    domains: Sequence[Domain] | None = None,
) -> list[Any]:  # fmt: skip
    """Every leaf drawn anew, with other sizes; labels stay below the sizes that they were below.

    sizes: `Sizes`, or `Axes`. domains: those of the leaves, if it is not they that tell.
    """
    new = []
    for i, leaf in enumerate(leaves):
        domain = Domain.of(leaf) if domains is None else domains[i]
        if domain.kind == "fixed":
            new.append(leaf)
            continue
        if domain.kind == "integers":
            bounds = [m for n, m in sizes.items() if isinstance(n, int) and n > domain.high]
            domain = dataclasses.replace(domain, high=min([domain.high, *(b - 1 for b in bounds)]))
            domain = dataclasses.replace(domain, low=min(domain.low, domain.high))
        shape = tuple(sizes.get((i, a), sizes.get(n, n)) for a, n in enumerate(leaf.shape))
        new.append(cast(domain.draw(rng, shape), leaf))
    return new


def shrunk(leaves: Sequence[Any], sizes: Sizes, start: int) -> list[Any]:
    """The same entries with other sizes: a part of every axis, and of every block of a multiple."""
    (n, m), *_ = sizes.items()
    new = []
    for leaf in leaves:
        if is_array(leaf):
            x = np.asarray(leaf)
            for axis, size in enumerate(x.shape):
                if size not in sizes or size == 1:
                    continue
                index = [b * n + start + i for b in range(size // n) for i in range(m)]
                index += range(size - size % n, size) if size > n else []
                x = np.take(x, index, axis)
            leaf = cast(x, leaf)
        new.append(leaf)
    return new


# --- simpler values ------------------------------------------------------------------------------


def simpler(leaves: Sequence[Any], domains: Sequence[Domain]) -> Iterator[list[Any]]:
    """The same inputs with one of the variables simpler, the most so first."""
    places = [i for i, d in enumerate(domains) if d.kind in BY_ELEMENT]
    for value, i in itertools.product((0.0, 1.0), places):
        x = np.asarray(leaves[i])
        if domains[i].allows(value) and (x != value).any() and (x.all() or not value):
            yield replaced(leaves, i, np.full(x.shape, value))
    for i in places:  # all but one entry
        x = np.asarray(leaves[i])
        for flat in np.flatnonzero(x)[:50] if domains[i].allows(0.0) and (x != 0).sum() > 1 else ():
            yield replaced(leaves, i, np.where(np.arange(x.size).reshape(x.shape) == flat, x, 0.0))
    for i in places:
        x = np.asarray(leaves[i])
        for flat in range(min(x.size, 100)):
            old = float(x.flat[flat])
            for value in _simpler(old):
                if domains[i].allows(value) and value != old:
                    y = x.copy()
                    y.flat[flat] = value
                    yield replaced(leaves, i, y)


def _simpler(x: float) -> list[float]:
    if x in (0.0, 1.0):
        return [0.0]
    short = [float(f"{x:.{k}g}") for k in (1, 2)]
    steps = [float(math.trunc(x)), x / 2]
    steps += [x - math.copysign(1, x)] * (abs(x) <= 10)
    tried = [0.0, 1.0, -1.0, *steps, *short]
    size = len(repr(abs(x)))
    return [
        v
        for v in dict.fromkeys(tried)
        if abs(v) <= abs(x) * 1.5 and (len(repr(abs(v))), abs(v)) < (size, abs(x))
    ]


def replaced(leaves: Sequence[Any], i: int, value: np.ndarray) -> list[Any]:
    return [*leaves[:i], cast(value, leaves[i]), *leaves[i + 1 :]]


def cast(x: np.ndarray, like: Any) -> Any:
    """x as what the argument was: of NumPy or of JAX, in its dtype."""
    with np.errstate(all="ignore"):
        x = np.array(x).astype(like.dtype)
    return jnp.asarray(x) if isinstance(like, jax.Array) else x
