"""Two optimisers in step: parameters and state compared after every one of many steps."""

import dataclasses
import functools
import sys
from typing import Any

import jax
import numpy as np

from handgrad.compare.trajectory import (
    Pairs,
    Run,
    check_recorded,
    frozen_by_tracing,
    rounded,
    steps_at_once,
)

__all__ = [
    "DeclaredOptimizer",
    "Departure",
    "OptimizerMismatch",
    "OptimizerReport",
    "Verdict",
    "check_optimizer",
    "declare_optimizer",
    "declared",
    "examine_optimizer",
]

TOLERANCE = 1e-12  # float64: some 10⁴ roundings of one step's size, in a thousand steps
MARGIN = 16  # float32: two codes that round otherwise may err by so many times more or less


@dataclasses.dataclass(frozen=True)
class Departure:
    """One entry of one leaf, at one step, where the two optimisers differ by more than allowed."""

    step: int
    what: str  # "params", or the name of the state's field
    path: str
    index: tuple[int, ...]
    manual: float
    reference: float
    relative: float
    allowed: float

    def __str__(self) -> str:
        entry = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        pair = [f"{x:.12g}" for x in (self.manual, self.reference)]
        if pair[0] == pair[1]:
            pair = [f"{x:.17g}" for x in (self.manual, self.reference)]
        return (
            f"step {self.step}: {self.what}{self.path}{entry} is {pair[0]}, the reference has "
            f"{pair[1]} (relative departure {self.relative:.2g}, allowed {self.allowed:.2g})"
        )


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What one precision says.

    In float64, `worst` is the largest relative departure from the reference. In float32 it is
    the largest distance from the float64 reference, and `noise` that of the reference's own
    float32 run. `departures` holds, for each leaf that departs at the first step where any does,
    its worst entry: the state's leaves first, then the parameters'.
    """

    dtype: str
    worst: float
    worst_leaf: str
    noise: float | None
    departures: tuple[Departure, ...]

    @property
    def ok(self) -> bool:
        return not self.departures


@dataclasses.dataclass(frozen=True)
class OptimizerReport:
    """How far two optimisers went together; print it."""

    name: str
    steps: int
    float64: Verdict
    float32: Verdict
    compared: tuple[str, ...]
    only_manual: tuple[str, ...]
    only_reference: tuple[str, ...]
    alarms: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.float64.ok and self.float32.ok and not self.alarms

    def __str__(self) -> str:
        mark, where = ("✓", "in step") if self.ok else ("✗", "not in step")
        lines = [f"{mark} {self.name}: {where} with its reference, {self.steps} steps"]
        words = (self.float64, "right", "wrong"), (self.float32, "accurate", "inaccurate")
        for verdict, good, bad in words:
            own = "" if verdict.noise is None else f", the reference's own {verdict.noise:.1e}"
            lines.append(
                f"  in {verdict.dtype}: {good if verdict.ok else bad}; departure "
                f"{verdict.worst:.1e} in {verdict.worst_leaf}{own}"
            )
            lines += [f"    {departure}" for departure in verdict.departures]
        lines.append(f"  compared: {', '.join(self.compared)}")
        if self.only_manual:
            lines.append(f"  without counterpart: {', '.join(self.only_manual)}")
        if self.only_reference:
            lines.append(f"  only in the reference: {', '.join(self.only_reference)}")
        lines += [f"  ✗ {alarm}" for alarm in self.alarms]
        return "\n".join(lines)


class OptimizerMismatch(AssertionError):
    """The optimiser departs from its reference; `report` says where."""

    def __init__(self, report: OptimizerReport):
        super().__init__(str(report))
        self.report = report


def check_optimizer(
    manual: Any, reference: Any, params: Any, gradients: Any, **options: Any
) -> OptimizerReport:
    """As `examine_optimizer`, but raises unless the report is ok. The options are the same:

    `steps`, `free`, `tolerance`, `fields` and `name`. What is raised is an `OptimizerMismatch`,
    with the report in it.
    """
    report = examine_optimizer(manual, reference, params, gradients, **options)
    if not report.ok:
        raise OptimizerMismatch(report)
    return report


def examine_optimizer(
    manual: Any,
    reference: Any,
    params: Any,
    gradients: Any,
    *,
    steps: int = 1000,
    free: bool = False,
    tolerance: float = TOLERANCE,
    fields: dict[str, str] | None = None,
    name: str = "optimizer",
) -> OptimizerReport:
    """Run two optimisers side by side from the same parameters and compare every step.

    manual, reference: pairs with `init(params)` and `update(grads, state, params)`, which returns
        what is to be added to the parameters, and the state. The manual one may be NumPy code, or
        keep what it needs in an object of its own: it is then run as plain Python.
    params: a tree of floating-point arrays.
    gradients: a tree like `params` with a leading axis of steps; or a function of the parameters,
        which is asked at the reference's, and both optimisers are given the answer.
    free: ask the function at each optimiser's own parameters instead. What the objective makes
        of a rounding is then part of the departure: near an unstable step it grows without end.
    steps: how many, for a function; a recorded tree is run to its end.
    fields: names of the manual state's fields that have another name in the reference's, such as
        {"average": "mu"}. Equal names match by themselves, wherever they stand in the state; so
        do t or step with count, m with mu and v with nu.

    In float64 an entry may depart by `tolerance` times the largest magnitude that the reference
    has had there so far, the start included: an entry that passes through zero is judged by
    where it came from, and a small one is not hidden by its neighbours. In float32 the distance
    from the float64 reference may be MARGIN times that of the reference's own float32 run, or
    that many roundings. Both runs start from the same numbers, rounded to float32.
    """
    params = jax.tree.map(rounded, params)
    if not callable(gradients):
        gradients = jax.tree.map(rounded, gradients)
        steps = check_recorded(params, gradients)
        if free:
            raise ValueError("free needs gradients that are a function of the parameters")
    compare = functools.partial(
        _examined, manual, reference, params, gradients, steps, tolerance, name, free, fields or {}
    )
    try:
        report = compare(plain=False)
    except Exception:  # NumPy, or what JAX cannot trace for another reason
        return compare(plain=True)
    if report.float64.ok or not frozen_by_tracing(manual, params):
        return report
    return compare(plain=True)


def _examined(
    manual, reference, params, gradients, steps, tolerance, name, free, fields, plain
) -> OptimizerReport:
    pairs = Pairs(manual, reference, params, fields, plain)
    leaves = [
        _Leaf(label, 0.0 if exact else tolerance, exact)
        for label, exact in zip(pairs.labels, pairs.exact, strict=True)
    ]
    runs = [
        Run(manual, reference, pairs, params, gradients, free, dtype, plain)
        for dtype in (np.float64, np.float32)
    ]
    chunk = steps_at_once(params, steps)
    for done in range(0, steps, chunk):
        (manual64, truth), (manual32, reference32) = (
            run.advance(done, min(done + chunk, steps)) for run in runs
        )
        for leaf, *values in zip(leaves, manual64, truth, manual32, reference32, strict=True):
            leaf.add(done, *values)
    still = [leaf.label for leaf in leaves[pairs.states :] if not leaf.moved]
    alarms = [f"{label} never moves: nothing is verified there" for label in still]
    lost = [leaf for leaf in leaves if leaf.lost is not None]
    if lost:
        first = min(lost, key=lambda leaf: leaf.lost or 0)
        alarms.append(
            f"the reference is not finite from step {first.lost} on ({first.label}): nothing is "
            f"verified there"
        )
    return OptimizerReport(
        name=name,
        steps=steps,
        float64=_verdict("float64", leaves, None),
        float32=_verdict("float32", leaves, max((leaf.noise for leaf in leaves), default=0.0)),
        compared=tuple(pairs.labels),
        only_manual=pairs.only_manual,
        only_reference=pairs.only_reference,
        alarms=tuple(alarms),
    )


# --- what a file declares -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DeclaredOptimizer:
    """An optimiser that a file declared; `examine(seed)` compares it with its reference."""

    name: str
    file: str  # in which it was declared
    manual: Any
    reference: Any
    params: Any
    gradients: Any
    options: dict[str, Any]

    def examine(self, seed: int = 0) -> OptimizerReport:
        """The report on the declared sample, or on one that is drawn from the seed."""
        params, gradients = self.params, self.gradients
        rng = np.random.default_rng(seed)
        if params is None:
            params = sample_params(rng)
        if gradients is None:
            gradients = sample_gradients(rng, params)
        return examine_optimizer(
            self.manual, self.reference, params, gradients, name=self.name, **self.options
        )


_declared: list[DeclaredOptimizer] = []


def declare_optimizer(
    manual: Any,
    reference: Any,
    *,
    params: Any = None,
    gradients: Any = None,
    name: str | None = None,
    **options: Any,
) -> Any:
    """Let `handgrad check FILE.py` find your optimiser. Returns `manual`.

        declare_optimizer(my_adam(1e-3), optax.adam(1e-3))

    params, gradients: as for `examine_optimizer`; without them samples are drawn. options: the
    rest of its keywords (steps, tolerance, fields).
    """
    file = sys._getframe(1).f_code.co_filename
    called = name or getattr(manual.update, "__qualname__", "optimizer").partition(".")[0]
    _declared.append(DeclaredOptimizer(called, file, manual, reference, params, gradients, options))
    return manual


def declared() -> list[DeclaredOptimizer]:
    """All that was declared so far, in order."""
    return list(_declared)


def sample_params(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A wide and a tall matrix, a tensor, a vector and a number."""
    shapes = {"wide": (3, 5), "tall": (6, 2), "tensor": (2, 3, 2), "vector": (5,), "number": ()}
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def sample_gradients(rng: np.random.Generator, params: Any, steps: int = 1000) -> Any:
    """Noise about a turning drift, every entry of its own size (1e-3 … 1e3); one step of zeros."""

    def record(p):
        time = np.arange(steps).reshape(steps, *[1] * np.ndim(p))
        size = 10 ** rng.uniform(-3, 3, np.shape(p))
        drift = np.cos(0.01 * time + rng.uniform(0, 6, np.shape(p)))
        noise = rng.standard_normal((steps, *np.shape(p)))
        return size * (drift + noise) * (time != steps // 2)

    return jax.tree.map(record, params)


# --- the verdict ----------------------------------------------------------------------------------


def _relative(ours: np.ndarray, theirs: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """|ours − theirs| / scale; equal entries (NaN and NaN too) are 0, any other non-number ∞."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        relative = np.abs(ours - theirs) / scale
    relative = np.where(np.isnan(relative), np.inf, relative)
    return np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, relative)


class _Leaf:
    """What the steps so far say of one leaf."""

    def __init__(self, label: str, tolerance: float, exact: bool):
        self.label = label
        self.tolerance = tolerance
        self.exact = exact
        self.scale: Any = 0.0  # the largest magnitude of each entry of the reference so far
        self.noise = 0.0  # how far the reference's own float32 run was off so far, at worst
        self.moved = False
        self.lost: int | None = None  # the step from which the reference is not finite
        self.worst = {"float64": 0.0, "float32": 0.0}
        self.first: dict[str, Departure] = {}

    def add(self, done, manual64, truth, manual32, reference32):
        """Trajectories that begin with the values after `done` steps."""
        scale = np.maximum(np.maximum.accumulate(np.abs(truth)), self.scale)[1:]
        self.moved |= bool((truth[1:] != truth[:1]).any())
        manual64, truth, manual32, reference32 = (
            values[1:] for values in (manual64, truth, manual32, reference32)
        )
        if not truth.size:
            return
        self.scale = scale[-1]
        finite = np.isfinite(truth).reshape(len(truth), -1).all(1)
        if self.lost is None and not finite.all():
            self.lost = done + int(finite.argmin()) + 1
        noise = _peaks(_relative(reference32, truth, scale))
        noise = np.maximum(np.maximum.accumulate(noise), self.noise)
        self.noise = float(noise[-1])
        allowed32 = MARGIN * np.maximum(noise, np.finfo(np.float32).eps)
        self._judge("float64", done, manual64, truth, scale, np.full(len(truth), self.tolerance))
        self._judge("float32", done, manual32, truth, scale, 0 * noise if self.exact else allowed32)

    def _judge(self, dtype, done, ours, theirs, scale, allowed):
        relative = _relative(ours, theirs, scale)
        peaks = _peaks(relative)
        self.worst[dtype] = max(self.worst[dtype], float(peaks.max()))
        beyond = peaks > allowed
        if dtype in self.first or not beyond.any():
            return
        row = int(beyond.argmax())
        index = np.unravel_index(int(relative[row].argmax()), relative.shape[1:])
        what, bracket, path = self.label.partition("[")
        self.first[dtype] = Departure(
            step=done + row + 1,
            what=what,
            path=bracket + path,
            index=tuple(int(i) for i in index),
            manual=float(ours[row][index]),
            reference=float(theirs[row][index]),
            relative=float(peaks[row]),
            allowed=float(allowed[row]),
        )


def _peaks(relative: np.ndarray) -> np.ndarray:
    return relative.reshape(len(relative), -1).max(1)


def _verdict(dtype: str, leaves: list[_Leaf], noise: float | None) -> Verdict:
    first = [leaf.first[dtype] for leaf in leaves if dtype in leaf.first]
    step = min((departure.step for departure in first), default=0)
    worst = max(leaves, key=lambda leaf: leaf.worst[dtype])
    departures = tuple(departure for departure in first if departure.step == step)
    return Verdict(dtype, worst.worst[dtype], worst.label, noise, departures)
