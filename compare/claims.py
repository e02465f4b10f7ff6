"""What the source documents claim, and what verifies each claim: derivations and experiments."""

import dataclasses
import importlib
import json
from collections.abc import Callable, Container, Iterable
from importlib import resources
from types import ModuleType

from handgrad.compare.derivation import DerivationReport, examine_derivation
from handgrad.manual.derivations import every

__all__ = ["Claim", "Trace", "claims", "examine_all", "traceability", "uncovered"]

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the documents, as the inventory lists it."""

    id: str
    section: str
    title: str


@dataclasses.dataclass(frozen=True)
class Trace:
    """One row from a claim to the code that runs: what verifies it, and with what verdict."""

    claim: str
    title: str
    source: str
    derivation: str
    manual: str  # the operations that the last line runs
    reference: str  # their counterparts, differentiated by autodiff
    verdict: str
    ok: bool


def claims() -> tuple[Claim, ...]:
    """All claims of the inventory, from compare/claims.json."""
    text = resources.files("handgrad.compare").joinpath("claims.json").read_text("utf-8")
    return tuple(Claim(**row) for row in json.loads(text))


def examine_all(
    seed: int = 0, progress: Progress | None = None, names: Container[str] | None = None
) -> tuple[DerivationReport, ...]:
    """The verdict on every derivation of the documents: `handgrad check --sources`.

    progress(name, done, total) is called before each. names: as in "N3 sigmoid", if not all.
    """
    derivations = [d for d in every() if names is None or f"{d.claim} {d.name}" in names]
    reports = []
    for done, derivation in enumerate(derivations):
        if progress is not None:
            progress(f"{derivation.claim} {derivation.name}", done, len(derivations))
        reports.append(examine_derivation(derivation, seed))
    return tuple(reports)


def traceability(reports: Iterable[DerivationReport] | None = None) -> tuple[Trace, ...]:
    """Claim → source → derivation → manual function → reference function → verdict.

    reports: what `examine_all` returned, if the verdicts are wanted; without it nothing is run
    and the verdict is the number of lines, as it is for a derivation without a report.
    Experiments are listed with the file that runs them.
    """
    verdicts = {(r.claim, r.name): (_verdict(r), r.ok) for r in reports or ()}
    rows: dict[str, list[Trace]] = {claim.id: [] for claim in claims()}
    for derivation in every():
        count = f"{len(derivation.lines)} line{'s' * (len(derivation.lines) != 1)}"
        verdict, ok = verdicts.get((derivation.claim, derivation.name), (count, True))
        counterparts = [_counterpart(name) for name in derivation.ends_in]
        rows[derivation.claim].append(
            Trace(
                derivation.claim,
                "",
                derivation.source,
                derivation.name,
                ", ".join(derivation.ends_in),
                ", ".join(filter(None, counterparts)),
                verdict,
                ok,
            )
        )
    for name, module in _experiments().items():
        claim, _, what = (module.__doc__ or "").partition(": ")
        what = what.splitlines()[0].rstrip(".")
        rows[claim].append(
            Trace(claim, "", "", f"experiment: {what}", f"figures.{name}", "", "measured", True)
        )
    return tuple(
        dataclasses.replace(trace, title=claim.title)
        for claim in claims()
        for trace in rows[claim.id]
    )


def uncovered(rows: Iterable[Trace] | None = None) -> tuple[str, ...]:
    """The ids of claims that no right derivation, worked number or experiment verifies."""
    covered = {row.claim for row in (traceability() if rows is None else rows) if row.ok}
    return tuple(claim.id for claim in claims() if claim.id not in covered)


def _verdict(report: DerivationReport) -> str:
    wrong = sum(line.wrong is not None for line in report.lines)
    held = len(report.lines) - wrong
    if not report.ok:
        return report.problem or f"✗ line {report.departure or 'declared wrong, but right'}"
    errata = f", {wrong} wrong as printed" if wrong else ""
    return f"✓ {held} line{'s' * (held != 1)}{errata}"


def _counterpart(name: str) -> str:
    """The reference function of the same name; empty where the quantity itself is the reference."""
    topic, _, function = name.rpartition(".")
    try:
        module = importlib.import_module(f"handgrad.reference.{topic}")
    except ModuleNotFoundError:
        return ""
    return name if hasattr(module, function) else ""


def _experiments() -> dict[str, ModuleType]:
    return importlib.import_module("handgrad.compare.figures").experiments()
