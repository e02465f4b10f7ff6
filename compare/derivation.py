"""Is every line of a derivation true, and which is the first that departs from the one before?

Each line is evaluated as it is written, on seeded random inputs in float64 on CPU, beside the
derivative that autodiff finds. A line holds if no entry deviates by more than 1000 times the
noise floor: how far line and derivative move when the inputs move by their last digit.
"""

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from handgrad.compare.derivation_report import DerivationReport, LineReport
from handgrad.compare.laboratory import laboratory
from handgrad.compare.latex import LatexError, to_text
from handgrad.manual import derivation as record
from handgrad.manual.quick import compiled

__all__ = [
    "Derivation",
    "DerivationMismatch",
    "DerivationReport",
    "LineReport",
    "declared",
    "examine_derivation",
]

SAMPLES = 3  # draws of the inputs
NUDGES = 2  # of every draw, by a unit in the last place or two, to measure the noise
MARGIN = 1000.0  # a deviation above MARGIN times the noise is a mistake
OWN_NOISE = 1e-12  # what a line may lose by rounding badly, relatively; times MARGIN it is 1e-9
TRUE_NOISE = 1e-9  # what the derivative itself may; more is no noise but a jump at this input
FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


class DerivationMismatch(AssertionError):
    """A line does not hold, or an erratum does; the message is the report."""


class Derivation(record.Derivation):
    __doc__ = f"""{record.Derivation.__doc__}
    Here with `examine` and `check`, which say what holds.
    """

    @functools.wraps(record.Derivation.__init__)
    def __init__(self, name: str, quantity: Callable[..., Any], **options: Any):
        super().__init__(name, quantity, **options)
        self.file = sys._getframe(1).f_code.co_filename  # in which it was declared
        _DECLARED.append(self)

    def examine(self, seed: int = 0) -> "DerivationReport":
        """The verdict on every line."""
        return examine_derivation(self, seed)

    def check(self, seed: int = 0) -> "DerivationReport":
        """`examine`, but a derivation that is not right raises `DerivationMismatch`."""
        report = self.examine(seed)
        if not report.ok:
            raise DerivationMismatch(str(report))
        return report


_DECLARED: list[Derivation] = []


def declared() -> tuple[Derivation, ...]:
    """Every `Derivation` made so far in this process, in order."""
    return tuple(_DECLARED)


def examine_derivation(derivation: record.Derivation, seed: int = 0) -> DerivationReport:
    """Judge every line of a derivation (of this class or of `manual.derivation`'s) by autodiff."""
    return judge(derivation, gather(derivation, seed))


# The evidence: for every sample a value and, in `nudged`, its values at the nudged inputs.


@dataclasses.dataclass(frozen=True)
class Reading:
    """One line or one derivative on one sample: its leaves, and how far a nudge moves them."""

    leaves: tuple[np.ndarray, ...]
    spread: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was computed: the derivatives by autodiff, and the lines. A string is a problem."""

    seed: int
    truths: dict[tuple, list[Reading] | str]
    lines: list[list[Reading] | str]
    points: list[list[dict[str, Any]]]
    problem: str | None = None


def gather(derivation: record.Derivation, seed: int) -> Evidence:
    """Evaluate all lines and, by autodiff, all that they claim to equal."""
    if not derivation.lines:
        problem = (
            f"derivation {derivation.name!r} has no lines: add one with .line(latex, function)"
        )
        return Evidence(seed, {}, [], [], problem)
    with _float64():
        try:
            points = _points(derivation, seed)
        except FAULTS as error:
            problem = f"derivation {derivation.name!r}: the sample or a definition in let: "
            return Evidence(seed, {}, [], [], problem + _sentence(error))
        truths = _truths(derivation, points)
        lines = [read(line.function, points) for line in derivation.lines]
    whole = truths.get((derivation.quantity, derivation.wrt))
    if isinstance(whole, str):
        return Evidence(seed, {}, [], [], f"derivation {derivation.name!r}: the quantity {whole}")
    return Evidence(seed, truths, lines, points)


@contextlib.contextmanager
def _float64() -> Iterator[None]:
    """The laboratory at its most lenient: a formula is no kernel."""
    with laboratory(), jax.numpy_rank_promotion("allow"):
        yield


def read(function: Callable[..., Any], points: list[list[dict[str, Any]]]) -> list[Reading] | str:
    """The function of the symbols at every point; a string says why there is none."""
    try:
        return [
            _reading([_array(record.call(function, symbols)) for symbols in nudged])
            for nudged in points
        ]
    except FAULTS as error:
        return "raised " + _sentence(error)


def _array(value: Any) -> Any:
    """A (nested) list of numbers is an array, as it stands on paper; other lists are trees."""
    return np.array(value) if isinstance(value, list) and _numbers(value) else value


def _numbers(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_numbers, value))
    return not isinstance(value, tuple | dict) and np.ndim(value) == 0


def _points(derivation: record.Derivation, seed: int) -> list[list[dict[str, Any]]]:
    """For every sample the symbols at the drawn inputs, then at the nudged ones."""
    points = []
    for sample in range(SAMPLES):
        rng = np.random.default_rng([seed, sample, *derivation.name.encode()])
        inputs = derivation.draw(rng)
        nudge = functools.partial(_nudge, rng=rng)
        nudged = [jax.tree.map(nudge, inputs) for _ in range(NUDGES)]
        points.append([derivation.symbols(each) for each in (inputs, *nudged)])
    return points


def _nudge(x: Any, *, rng: np.random.Generator) -> Any:
    x = np.asarray(x)
    if not np.issubdtype(x.dtype, np.floating):
        return x
    return x * (1 + np.finfo(x.dtype).eps * rng.choice([-2.0, -1.0, 1.0, 2.0], x.shape))


def _truths(derivation: record.Derivation, points: list) -> dict[tuple, list[Reading] | str]:
    """The derivatives that the lines claim, compiled together: one program a derivation."""
    targets = dict.fromkeys(line.target for line in derivation.lines)
    problems: dict[tuple, list[Reading] | str] = {}
    symbols = points[0][0]
    for target in targets:
        try:
            record.parameters(target[0], symbols)
            if missing := [name for name in target[1] if name not in symbols]:
                raise NameError(f"wrt names {missing[0]!r}, which is neither in sample nor in let")
        except FAULTS as error:
            problems[target] = "raised " + _sentence(error)
    sound = [target for target in targets if target not in problems]
    try:
        return problems | dict(zip(sound, _differentiated(sound, points), strict=True))
    except FAULTS:  # one of them: find out which
        for target in sound:
            try:
                problems[target] = _differentiated([target], points)[0]
            except FAULTS as error:
                problems[target] = "raised " + _sentence(error)
        return problems


def _differentiated(targets: list[tuple], points: list) -> list[list[Reading]]:
    names = {
        name
        for function, wrt in targets
        for name in (*record.parameters(function, points[0][0]), *wrt)
    }

    def derivatives(symbols):
        return [_derivative(function, wrt)(symbols) for function, wrt in targets]

    program = compiled(derivatives)
    needed = [[{n: symbols[n] for n in names} for symbols in nudged] for nudged in points]
    results = [[program(symbols) for symbols in nudged] for nudged in needed]
    return [
        [_reading([each[i] for each in nudged]) for nudged in results] for i in range(len(targets))
    ]


def _derivative(function: Callable[..., Any], wrt: tuple[str, ...]) -> Callable[[dict], Any]:
    """The Jacobian of a function of named symbols, with respect to one name after the other."""
    if not wrt:
        return lambda symbols: record.call(function, symbols)
    *before, last = wrt
    inner = _derivative(function, tuple(before))

    def jacobian(symbols: dict) -> Any:
        return jax.jacobian(lambda value: inner({**symbols, last: value}))(symbols[last])

    return jacobian


def _reading(values: list[Any]) -> Reading:
    """Of the values at a point and its nudges."""
    first, *nudged = [
        [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(value)] for value in values
    ]
    spread = []
    for i, leaf in enumerate(first):
        moved = [np.max(np.abs(n[i] - leaf), initial=0.0) for n in nudged]
        spread.append(float(np.nan_to_num(max(moved, default=0.0))))
    return Reading(tuple(first), tuple(spread))


def _sentence(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


# The verdict.


def judge(derivation: record.Derivation, evidence: Evidence) -> DerivationReport:
    """Compare every line with its derivative, and with the line before it."""
    reports: list[LineReport] = []
    before: tuple[tuple, list[Reading]] | None = None
    for number, (line, read) in enumerate(zip(derivation.lines, evidence.lines, strict=False), 1):
        truth = evidence.truths[line.target]
        about: dict[str, Any] = dict(
            number=number, latex=line.latex, source=line.source, wrong=line.wrong
        )
        problem = _problem(line, read, truth)
        if problem is not None:
            sentence = f"derivation {derivation.name!r}, line {number} {problem}"
            reports.append(LineReport(**about, problem=sentence, departs=line.wrong is None))
            continue
        assert not isinstance(read, str)
        assert not isinstance(truth, str)
        holds, facts = _compare(read, truth, line.decimals)
        departs = False
        if line.wrong is None:
            same = before is not None and before[0] == line.target
            previous = before[1] if same and before is not None else truth
            departs = not _compare(read, previous, line.decimals)[0]
            if line.decimals is None:  # what is rounded is no measure for the next line
                before = line.target, read
        reports.append(LineReport(**about, problem=None, holds=holds, departs=departs, **facts))
    return DerivationReport(
        derivation.name,
        derivation.claim,
        derivation.source,
        evidence.seed,
        tuple(reports),
        evidence.problem,
    )


def _problem(
    line: record.Line, read: list[Reading] | str, truth: list[Reading] | str
) -> str | None:
    """Why a line cannot be compared, to follow on its name; None if it can."""
    try:
        to_text(line.latex)
    except LatexError as error:
        return f"has LaTeX that does not parse: {error}"
    if isinstance(read, str):
        return read
    if isinstance(truth, str):
        return f"is compared with a derivative that {truth}"
    if not all(np.isfinite(leaf).all() for reading in truth for leaf in reading.leaves):
        return "is compared with a derivative that autodiff finds to be NaN or infinite"
    got = [leaf.shape for leaf in read[0].leaves]
    due = [leaf.shape for leaf in truth[0].leaves]
    if got == due:
        return None
    if len(got) == len(due) == 1:
        hint = "; it is transposed" if got[0] == due[0][::-1] else ""
        return f"has shape {got[0]}; the derivative has shape {due[0]}{hint}"
    return f"has the leaves {got}; the derivative has {due}"


def _compare(
    read: list[Reading], truth: list[Reading], decimals: int | None
) -> tuple[bool, dict[str, Any]]:
    """Whether they agree on all samples, and where they deviate most.

    The noise is that of the noisiest sample: few nudges may by chance all round the same way.
    """
    holds, worst = True, (-1.0, "", np.nan, np.nan, 0)
    own, theirs = (np.max([r.spread for r in readings], 0) for readings in (read, truth))
    for sample, (a, b) in enumerate(zip(read, truth, strict=True)):
        for leaf, (x, y) in enumerate(zip(a.leaves, b.leaves, strict=True)):
            tolerance = _tolerance(x, y, own[leaf], theirs[leaf], decimals)
            gap = np.where(np.isfinite(x), np.abs(x - y), np.inf)
            holds &= bool((gap <= tolerance).all())
            if gap.size and gap.max() > worst[0]:
                at = np.unravel_index(int(gap.argmax()), gap.shape)
                place = str([int(i) for i in at]) if at else ""
                if len(a.leaves) > 1:
                    place = f"leaf {leaf}{place}"
                where = ", ".join(filter(None, [place, f"sample {sample}"]))
                worst = float(gap[at]), where, float(x[at]), float(y[at]), sample
    deviation, where, value, due, sample = worst
    return holds, dict(
        deviation=max(deviation, 0.0),
        where=where,
        value=value,
        truth=due,
        vacuous=not any(leaf.any() for reading in truth for leaf in reading.leaves),
        shown=(_flat(read[sample]), _flat(truth[sample])),
    )


def _tolerance(
    x: np.ndarray, y: np.ndarray, own: float, theirs: float, decimals: int | None
) -> float:
    if decimals is not None:
        return 0.5 * 10.0**-decimals * (1 + 1e-9)  # printed numbers are rounded
    size = float(np.sqrt(np.mean(np.square(y)))) if y.size else 0.0
    scale = max(size, 1.0)
    return MARGIN * max(
        size * np.finfo(np.float64).eps,
        min(theirs, TRUE_NOISE * scale),
        min(own, OWN_NOISE * scale),
    )


def _flat(reading: Reading) -> tuple[float, ...]:
    return tuple(itertools.chain.from_iterable(leaf.ravel().tolist() for leaf in reading.leaves))
