"""What a check found: a frozen `Report`; the terminal, pytest, JSON and HTML are views of it."""

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Element:
    """One number as the three witnesses have it."""

    index: tuple[int, ...]
    hand: complex
    autodiff: complex
    numerical: complex | None = None

    @property
    def ratio(self) -> complex:
        """Hand over autodiff; nan where autodiff is zero."""
        return self.hand / self.autodiff if self.autodiff else float("nan")


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One array that was compared: an output, or the gradient with respect to one variable."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    wrong: int = 0  # elements that differ beyond the noise
    kinks: int = 0  # elements at a kink, where hand and autodiff take different conventions
    lost: int = 0  # elements that differ by no more than rounding amplified by cancellation
    worst: Element | None = None
    deviation: float = 0.0  # the largest |hand - autodiff| of one element, relative to it
    where: str = ""  # at which sample and cotangent the worst element was met
    siding: str = ""  # with whom the numerical derivative agrees: hand, autodiff, neither
    together: tuple[float, float, float] | None = None  # of tied elements: `Numbers.together`
    vacuous: bool = False  # zero, nan or inf everywhere on both sides: nothing was verified

    @property
    def ok(self) -> bool:
        return self.wrong == 0

    @property
    def size(self) -> int:
        n = 1
        for s in self.shape:
            n *= s
        return n


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What the deviation looks like: a kind such as `sign`, and a sentence."""

    kind: str
    argument: str
    text: str


_ONE = {"float64": 2.0**52, "float32": 2.0**23, "float16": 2.0**10, "bfloat16": 2.0**7}  # in ulps


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The error in the dtype and on the device of the run, against the float64 truth, in ulps.

    One ulp is the dtype's machine epsilon times the element or the array's root mean square,
    whichever is larger.
    """

    path: str
    dtype: str
    hand: float
    autodiff: float
    inherent: float = 0.0  # what half an ulp in the inputs makes of the exact gradient

    @property
    def of_nothing(self) -> bool:
        """Whether autodiff's own error is larger than the gradient: that is zero, but rounded."""
        return self.autodiff > _ONE.get(self.dtype, math.inf)

    @property
    def ok(self) -> bool:
        """No worse than twice autodiff's own error, or than twice what the inputs' rounding makes.

        8 ulps are allowed to anyone.
        """
        return self.hand <= max(2 * self.autodiff, 2 * self.inherent, 8.0)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One array by hand and by autodiff, in multiple precision."""

    path: str
    verdict: str  # "agree"; "constants": but for how these are rounded; "differ"
    difference: float = 0.0  # the largest |hand - autodiff| of one element, relative to it
    index: tuple[int, ...] = ()
    where: str = ""  # at which sample and cotangent
    inaccurate: int = 0  # elements that only float64 makes differ, by hand more than by autodiff


@dataclasses.dataclass(frozen=True)
class Exactness:
    """The derivation evaluated with as many digits as were asked for; see `check`."""

    digits: int
    rows: int = 0  # pairs of a sample and a cotangent
    agreements: tuple[Agreement, ...] = ()
    problem: str = ""  # why it could not be evaluated


@dataclasses.dataclass(frozen=True)
class Search:
    """Inputs like those given were tried, until one failed; see `check`."""

    trials: int
    shapes: int
    code: str = ""  # Python that reproduces the failure
    kept: tuple[str, ...] = ()  # what was not tried, though the reference is defined there

    def __str__(self) -> str:
        n = f"{self.trials} inputs of {self.shapes} shape{'s' * (self.shapes != 1)}"
        if not self.trials:
            return "not searched: no time was left"
        if not self.code:
            return "; ".join([f"searched {n}: it fails at none", *self.kept])
        lines = "".join(f"\n    {line}".rstrip(" ") for line in self.code.splitlines())
        return f"found by a search, the last of {n}; made as small as it went:\n{lines}\n"


@dataclasses.dataclass(frozen=True)
class Report:
    """The verdicts of one check. `str(report)` is the text to read."""

    name: str
    kind: str
    seed: int
    problem: str | None = None  # what stopped the comparison
    traceback: str | None = None  # the user's own, where a function raised
    outputs: tuple[Quantity, ...] = ()
    gradients: tuple[Quantity, ...] = ()
    diagnoses: tuple[Diagnosis, ...] = ()
    remarks: tuple[str, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()
    by_default: tuple[Accuracy, ...] = ()  # at the platform's own precision of matrix products
    device: str = ""
    rows: int = 0  # pairs of a sample and a cotangent
    exactness: Exactness | None = None  # where digits were asked for
    search: Search | None = None  # where other inputs were searched
    error: BaseException | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether the derivation is right. Accuracy is another verdict: `accurate`."""
        return self.problem is None and all(q.ok for q in (*self.outputs, *self.gradients))

    @property
    def accurate(self) -> bool | None:
        """Whether the code is accurate in its own dtype; None where that was not measured."""
        return all(a.ok for a in self.accuracy) if self.accuracy else None

    @property
    def verified(self) -> int:
        """How many gradients (one per variable) were found right."""
        return sum(q.ok and not q.vacuous for q in self.gradients) if self.problem is None else 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; what it has no number for (nan, inf, i) becomes a string."""
        plain = dataclasses.asdict(dataclasses.replace(self, error=None))
        del plain["error"]
        return _plain({**plain, "ok": self.ok, "accurate": self.accurate})

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        return "\n".join(_lines(self))


class GradientMismatch(AssertionError):
    """The derivation is wrong; `report` says where."""

    def __init__(self, report: Report):
        super().__init__(f"\n{report}")
        self.report = report

    def __reduce__(self) -> tuple:
        return GradientMismatch, (self.report,)


def _lines(report: Report) -> list[str]:
    lines = [f"{'✓' if report.ok else '✗'} {report.name}: {_verdict(report)}"]
    if report.problem:
        lines.append(f"  {report.problem}")
    if report.traceback:
        lines += ["", *("  " + line for line in report.traceback.rstrip().splitlines()), ""]
    for title, quantities in (("", report.outputs), ("gradient of ", report.gradients)):
        for q in quantities:
            if not q.ok:
                lines += _mismatch(title, q)
    for d in report.diagnoses:
        lines.append(f"  → {d.text}")
    for q in report.gradients:
        if q.ok and q.kinks:
            lines.append(f"  note: {_kinks(q)}")
    lines += [f"  note: {remark}" for remark in report.remarks]
    if report.exactness is not None:
        lines += _exactness(report.exactness, (*report.outputs, *report.gradients))
    if report.ok:
        lines += _accuracy(report)
    if report.search is not None:
        lines.append(f"  {report.search}")
    pairs = f", {report.rows} pairs of sample and cotangent" if report.rows else ""
    lines.append(f"  seed {report.seed}{pairs}")
    return lines


def _verdict(report: Report) -> str:
    if report.problem:
        return "not compared"
    bad_values = [q.path for q in report.outputs if not q.ok]
    bad = [q.path for q in report.gradients if not q.ok]
    if bad_values:
        return "the forward values differ from the reference's"
    if bad:
        good = [q.path for q in report.gradients if q.ok]
        right = f"; right for {', '.join(good)}" if good else ""
        return f"the gradient is wrong for {', '.join(bad)}{right}"
    shown = [q.path for q in report.gradients if not q.vacuous]
    rest = [q.path for q in report.gradients if q.vacuous]
    found = f"the derivation is right for {', '.join(shown)}" if shown else "no mistake was found"
    return f"{found}; nothing was verified for {', '.join(rest)}" if rest else found


def _mismatch(title: str, q: Quantity) -> list[str]:
    shape = "×".join(map(str, q.shape)) or "scalar"
    lines = [f"  {title}{q.path} ({shape}): {q.wrong} of {q.size} elements differ"]
    e = q.worst
    if e is not None:
        at = f"[{', '.join(map(str, e.index))}]" if e.index else "the scalar"
        lines[0] += f", worst at {at}, {q.where}"
        lines.append(f"    by hand     {_number(e.hand)}")
        witness = "autodiff " if title else "reference"
        lines.append(f"    {witness}   {_number(e.autodiff)}")
        if q.together is not None:
            hand, truth, numerical = (f"{x:.6g}" for x in q.together)
            lines.append(
                f"    tied elements, moved together: by hand {hand}, autodiff {truth}, "
                f"numerical {numerical}    sides with {q.siding}"
            )
        if e.numerical is not None:
            lines.append(f"    numerical   {_number(e.numerical)}    sides with {q.siding}")
        if e.autodiff:
            ratio = f"{_number(e.ratio)}  (by hand / {witness.rstrip()})"
            lines.append(f"    ratio       {ratio}")
    return lines


def _exactness(e: Exactness, quantities: tuple[Quantity, ...]) -> list[str]:
    head = f"  at {e.digits} digits"
    if e.problem:
        return [f"{head}: not evaluated; {e.problem}"]
    lines = []
    for a in e.agreements:
        if a.verdict == "differ":
            at = f" at [{', '.join(map(str, a.index))}]" if a.index else ""
            lines.append(f"{head} {a.path} differs by {a.difference:.0e} of itself{at}, {a.where}")
        elif a.inaccurate:
            size = next(q.size for q in quantities if q.path == a.path)
            lines.append(
                f"{head} {a.inaccurate} of {size} elements of {a.path}, wrong in float64, agree: "
                "right derivation, inaccurate code"
            )
    for verdict, words in (
        ("agree", "hand and autodiff agree"),
        ("constants", "but for rounded constants hand and autodiff agree"),
    ):
        alike = [a for a in e.agreements if a.verdict == verdict]
        if alike:
            worst = max(a.difference for a in alike)
            to = f"to {worst:.0e}" if worst else "in every digit"
            lines.append(f"{head} {words} {to}: {', '.join(a.path for a in alike)}")
    return lines


def _kinks(q: Quantity) -> str:
    n = f"{q.kinks} element{'s' * (q.kinks != 1)}"
    return (
        f"{q.path}: at {n} the function has a kink; by hand and autodiff take different "
        "conventions there, both between the one-sided derivatives"
    )


def _accuracy(report: Report) -> list[str]:
    if not report.accuracy:
        return []
    worst = max(report.accuracy, key=lambda a: (not a.ok, a.hand / max(a.autodiff, 1.0)))
    word = "accurate" if report.accurate else "LOSES DIGITS"
    lines = [
        f"  in {worst.dtype} on {report.device}: {word}; error {worst.hand:.3g} ulp in "
        f"{worst.path}, autodiff's own {worst.autodiff:.3g}{_inherent(worst)}"
    ]
    if report.by_default:
        worst = max(report.by_default, key=lambda a: a.hand)
        lines.append(
            f"  at {report.device}'s default precision of matrix products: error {worst.hand:.3g} "
            f"ulp in {worst.path}, autodiff's own {worst.autodiff:.3g}"
        )
    return lines


def _inherent(a: Accuracy) -> str:
    """Said where it is what allows the error."""
    if a.hand <= max(2 * a.autodiff, 8.0) or not a.inherent:
        return ""
    return f"; rounding the inputs makes {a.inherent:.3g}"


def _number(x: complex) -> str:
    x = complex(x)
    return f"{x.real: .12g}" if x.imag == 0 else f"{x:.9g}"


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {k: _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case complex() if value.imag:
            return str(value)
        case float() | complex():
            return float(value.real) if math.isfinite(value.real) else str(value.real)
        case _:
            return value
