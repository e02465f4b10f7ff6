"""What there is to verify: built-in cases, and what a user's file declares.

Everything is an `Item`, plain data that can be sent to a worker process, which finds behind it an
examination: a function of the seed and the input scale that gives a `Verdict`.
"""

import collections
import contextlib
import dataclasses
import functools
import importlib.util
import inspect
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from handgrad.compare import cases, declare
from handgrad.compare.report import Accuracy, Report
from handgrad.compare.workers import Outcome

if TYPE_CHECKING:
    from handgrad.compare.coverage import Coverage

__all__ = [
    "Contents",
    "Item",
    "Verdict",
    "built_in",
    "contents",
    "coverages",
    "examine",
    "measure",
    "missing",
    "numbered",
    "prepare",
    "sources",
    "undrawable",
    "verdict_of",
]


CASES, SOURCES = "cases", "sources"  # of what is built in: functions, textbook derivations


@dataclasses.dataclass(frozen=True)
class Item:
    """One thing to be verified."""

    id: str  # dense.affine[no bias], my_derivation.py::softmax_backward
    topic: str  # dense, my_derivation.py
    function: str  # affine, softmax_backward; what the last line of a derivation runs
    sample: str  # the inputs, in short
    origin: str = CASES  # or SOURCES, or the user's file it stands in


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found, as the command shows it and writes it to files."""

    status: str  # "right", "wrong", "not compared", or that of an `Outcome` without a value
    text: str
    verified: int = 0  # how many were found right, in units of
    unit: str = "gradient"  # or "line", "step"
    accuracy: tuple[Accuracy, ...] = ()
    by_default: tuple[Accuracy, ...] = ()
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    printed: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "right"

    @property
    def accurate(self) -> bool:
        return all(a.ok for a in self.accuracy)


Examination = Callable[[int, float, str | None], Verdict]  # of seed, input scale, platform
Measurement = Callable[[int, float], "Coverage"]  # how much the inputs exercise
Found = dict[str, tuple[Item, Examination, Measurement | None]]  # by id


def prepare() -> None:
    """What a worker does before its first item."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # workers share a GPU
    import handgrad.compare.check  # noqa: F401 (and with it JAX)


def missing(platform: str) -> str:
    """In a worker: why JAX cannot compute on this platform; empty where it can."""
    from handgrad.compare import devices

    try:
        devices.first(platform)
    except ValueError as error:
        return str(error)
    return ""


def examine(item: Item, seed: int, scale: float, platform: str | None = None) -> Verdict:
    """In a worker: the verdict on an item; `platform` as in `compare.examine`."""
    return _found(item)[1](seed, scale, platform)


def measure(item: Item, seed: int, scale: float) -> "Coverage":
    """In a worker: how much of a derivation its sample inputs exercise."""
    from handgrad.compare.coverage import Coverage

    measurement = _found(item)[2]
    if measurement is None:
        why = "it is verified line by line, or step by step, and not as one backward"
        return Coverage(item.id, 0, unavailable=why)
    return measurement(seed, scale)


def _found(item: Item) -> tuple[Item, Examination, Measurement | None]:
    with contextlib.redirect_stdout(io.StringIO()):  # `contents` has shown what a file prints
        match item.origin:
            case "cases":
                found = _in_cases()
            case "sources":
                found = _in_sources()
            case file:
                found = _in_file(file, item.topic)
    return found[item.id]


def coverages(found: Iterable[tuple[Item, Outcome]]) -> list["Coverage"]:
    """Of every function, all its sample inputs together; what came to grief says how."""
    from handgrad.compare.coverage import Coverage, together

    parts: dict[str, list[Coverage]] = {}
    for item, outcome in found:
        name = f"{item.topic}.{item.function}" if item.origin == CASES else item.id
        done = outcome.status == "done"
        part = outcome.value if done else Coverage(item.id, 0, unavailable=outcome.failure)
        parts.setdefault(name, []).append(part)
    return [together(name, of) for name, of in parts.items()]


def verdict_of(item: Item, outcome: Outcome) -> Verdict:
    """Of an item whose examination may have ended with a crash."""
    if outcome.status == "done":
        return dataclasses.replace(outcome.value, printed=outcome.printed)
    trace = "".join(f"\n  {line}" for line in outcome.traceback.splitlines())
    text = f"✗ {item.id}: not compared\n  the examination {outcome.failure}{trace}"
    if outcome.status == "timeout":
        text += "\n  give it smaller inputs, or more time with --timeout SECONDS"
    data = {"ok": False, "name": item.id, "problem": outcome.failure}
    return Verdict(outcome.status, text, data=data, printed=outcome.printed)


def _verdict(report: Report) -> Verdict:
    status = "not compared" if report.problem else "right" if report.ok else "wrong"
    return Verdict(
        status,
        str(report),
        report.verified,
        accuracy=report.accuracy,
        by_default=report.by_default,
        data=report.to_dict(),
    )


# --- built in ------------------------------------------------------------------------------------


def built_in() -> list[Item]:
    """Every built-in item; JAX is not imported."""
    return [item for item, *_ in _in_cases().values()]


@functools.cache
def _in_cases() -> Found:
    found: Found = {}
    for case in cases.load():
        item = Item(case.id, case.topic, case.function, _sample(case))
        if item.id in found:
            raise ValueError(f"two cases are named {case.id!r}; give each a label of its own")
        examination = functools.partial(_examine_case, case)
        found[item.id] = item, examination, functools.partial(_measure_case, case)
    return found


def _examine_case(case: cases.Case, seed: int, scale: float, platform: str | None) -> Verdict:
    from handgrad.compare.check import examine

    args = case.draw(seed, scale)
    return _verdict(examine(*_sides(case), *args, seed=seed, name=case.id, platform=platform))


def _measure_case(case: cases.Case, seed: int, scale: float) -> "Coverage":
    from handgrad.compare.coverage import coverage

    return coverage(*_sides(case), *case.draw(seed, scale), seed=seed, name=case.id)


def _sides(case: cases.Case) -> tuple[Callable, Callable]:
    from handgrad import manual, reference

    hand, plain = (getattr(room, case.function) for room in (manual, reference))
    if case.config:
        hand, plain = (functools.partial(side, **case.config) for side in (hand, plain))
    return hand, plain


def _sample(case: cases.Case) -> str:
    config = [f"{name}={_short(value)}" for name, value in case.config.items()]
    return ", ".join([*map(_short, case.draw()), *config])


def _short(value: Any) -> str:
    """3×5 for an array of floats, int32 8 for others; the numbers of the scale do not matter."""
    match value:
        case list() | tuple() if not hasattr(value, "_fields"):
            return f"[{', '.join(map(_short, value))}]"
        case dict():
            return f"{{{', '.join(f'{k}: {_short(v)}' for k, v in value.items())}}}"
        case _ if hasattr(value, "shape") and hasattr(value, "dtype"):
            kind = "" if getattr(value.dtype, "kind", "") == "f" else f"{value.dtype} "  # or a key
            return kind + ("×".join(map(str, value.shape)) or "scalar")
        case _ if callable(value):
            return getattr(value, "__name__", type(value).__name__)
        case _:
            return repr(value)


# --- the textbook derivations --------------------------------------------------------------------


def sources() -> list[Item]:
    """In a worker: every derivation of the source documents."""
    return [item for item, *_ in _in_sources().values()]


@functools.cache
def _in_sources() -> Found:
    from handgrad.manual import derivations

    found: Found = {}
    for topic in derivations.TOPICS:
        module = importlib.import_module(f"handgrad.manual.derivations.{topic}")
        for d in module.DERIVATIONS:
            name = f"{topic}.{f'{d.claim} {d.name}'.strip()}"
            item = Item(name, topic, ", ".join(d.ends_in), f"{_lines(d)}, {d.source}", SOURCES)
            if item.id in found:
                raise ValueError(f"two derivations are named {item.id!r}; rename one")
            found[item.id] = item, functools.partial(_examine_derivation, d), None
    return found


def _examine_derivation(d: Any, seed: int, scale: float, platform: str | None = None) -> Verdict:
    from handgrad.compare.derivation import examine_derivation

    report = examine_derivation(d, seed)
    status = "not compared" if report.problem else "right" if report.ok else "wrong"
    held = sum(line.ok and line.holds for line in report.lines)  # errata are right to fail
    data = dataclasses.asdict(report) | {"ok": report.ok}
    return Verdict(status, str(report), held, "line", data=data)


def _lines(d: Any) -> str:
    return f"{len(d.lines)} line{'s' * (len(d.lines) != 1)}"


# --- a user's file -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file declares, or a sentence that says why it cannot be used."""

    items: tuple[Item, ...] = ()
    problem: str = ""
    traceback: str = ""
    printed: str = ""


def contents(path: str, shown: str) -> Contents:
    """In a worker: run a file and see what it declares. `shown` is the path as the user gave it."""
    from handgrad.compare.problem import summary, user_traceback

    try:
        found = _in_file(path, shown)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        syntax = isinstance(error, SyntaxError)
        trace = "".join(traceback.format_exception_only(error)) if syntax else user_traceback(error)
        problem = f"{shown} cannot be used: it raised {summary(error)}"
        return Contents(problem=problem, traceback=trace)
    if not found:
        return Contents(
            problem=f"{shown} declares nothing to verify: put @backward_of(function, *inputs), "
            "@gradient_of or @same_as, from handgrad.compare, above a derivation"
        )
    return Contents(tuple(item for item, *_ in found.values()))


@functools.cache
def _in_file(path: str, shown: str) -> Found:
    before = {registry: len(_declared(registry)) for registry in REGISTRIES}
    _run_file(path)
    declared = [
        (d, adapt)
        for registry, adapt in REGISTRIES.items()
        for d in _declared(registry)[before[registry] :]
        if _file_of(d) == path
    ]
    found: Found = {}
    names = numbered([d.name for d, _ in declared])
    for (d, adapt), name in zip(declared, names, strict=True):
        sample, *runs = adapt(d, f"{shown}::{name}", path)
        item = Item(f"{shown}::{name}", shown, d.name, sample, path)
        found[item.id] = item, *runs
    return found


def _declared(registry: str) -> Sequence[Any]:
    """Everything declared so far in this process with the means of one module."""
    module = sys.modules.get(f"handgrad.compare.{registry}")
    return () if module is None else module.declared()


def _file_of(declared: Any) -> str:
    """The file in which something was declared: not all that it imports is its own."""
    if hasattr(declared, "file"):
        return declared.file
    functions = [*(line.function for line in declared.lines), declared.quantity]
    codes = [getattr(inspect.unwrap(f), "__code__", None) for f in functions]
    return next((code.co_filename for code in codes if code is not None), "")


def _run_file(path: str) -> None:
    """Run a file as `python FILE` does, but under its path as the name."""
    spec = importlib.util.spec_from_file_location(path, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path] = module
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with open(path, "rb") as file:
        exec(compile(file.read(), path, "exec"), module.__dict__)


def numbered(names: Sequence[str]) -> list[str]:
    """Number what is declared more than once under a name: f[1], f[2]."""
    so_far: collections.Counter[str] = collections.Counter()
    result = []
    for name in names:
        so_far[name] += 1
        result.append(name if names.count(name) == 1 else f"{name}[{so_far[name]}]")
    return result


# --- what can be declared: a sample in words, and an examination ---------------------------------


Adapted = tuple[str, Examination, Measurement | None]


def undrawable(error: Exception) -> str:
    shape = "; a shape is written normal(3, 4)" * isinstance(error, TypeError)
    return f"its sample inputs cannot be drawn: {type(error).__name__}: {error}{shape}"


def _a_function(d: declare.Declaration, name: str, path: str) -> Adapted:
    case = cases.Case(d.name, *d.args)
    case.topic = os.path.basename(path)
    options: dict[str, Any] = {"kind": d.kind, "argnums": d.argnums, "name": name}

    def examination(seed: int, scale: float, platform: str | None = None) -> Verdict:
        from handgrad.compare.check import examine

        try:
            args = case.draw(seed, scale)
        except Exception as error:
            why = undrawable(error)
            data = {"ok": False, "name": name, "problem": why}
            return Verdict("not compared", f"✗ {name}: not compared\n  {why}", data=data)
        return _verdict(
            examine(d.candidate, d.reference, *args, seed=seed, platform=platform, **options)
        )

    def measurement(seed: int, scale: float) -> "Coverage":
        from handgrad.compare.coverage import coverage

        args = case.draw(seed, scale)
        return coverage(d.candidate, d.reference, *args, seed=seed, **options)

    try:
        sample = _sample(case)
    except Exception as error:  # this case is to fail, and not the file
        sample = undrawable(error)
    return sample, examination, measurement


def _a_derivation(d: Any, name: str, path: str) -> Adapted:
    return _lines(d), functools.partial(_examine_derivation, d), None


def _an_optimizer(d: Any, name: str, path: str) -> Adapted:
    def examination(seed: int, scale: float, platform: str | None) -> Verdict:
        report = d.examine(seed)
        return Verdict(
            "right" if report.ok else "wrong",
            str(report),
            report.steps if report.ok else 0,
            "step",
            data=dataclasses.asdict(report) | {"ok": report.ok},
        )

    sample = "parameters and gradients of its own" if d.params is not None else "drawn"
    return sample, examination, None


REGISTRIES = {"declare": _a_function, "derivation": _a_derivation, "optimizer": _an_optimizer}
