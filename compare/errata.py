"""What the source documents print and should not have: a table, computed when it is printed.

Every row is a line of `manual.derivations` that is declared wrong, beside the next line that
holds; the numbers are those of the examination, none is typed in.
"""

import dataclasses
from collections.abc import Iterable

from handgrad.compare.claims import Progress, examine_all
from handgrad.compare.derivation import DerivationReport, LineReport
from handgrad.manual.derivation import Derivation
from handgrad.manual.derivations import every

__all__ = ["Erratum", "errata_table"]

FEW = 4  # entries shown in full


@dataclasses.dataclass(frozen=True)
class Erratum:
    """One line that is wrong as printed, and what holds in its place."""

    document: str
    place: str
    printed: str
    why: str
    numbers: str
    correction: str
    claim: str
    confirmed: bool  # the printed line fails and the correction holds


def errata_table(
    seed: int = 0,
    reports: Iterable[DerivationReport] | None = None,
    progress: Progress | None = None,
) -> tuple[Erratum, ...]:
    """All errata, by document; reports: what `examine_all` returned, if it has run already."""
    examined = examine_all(seed, progress) if reports is None else reports
    rows = [
        row
        for derivation, report in zip(every(), examined, strict=True)
        if report.problem is None
        for row in _of(derivation, report)
    ]
    return tuple(sorted(rows, key=lambda row: row.document))


def _of(derivation: Derivation, report: DerivationReport) -> Iterable[Erratum]:
    texts = _whole([line.text for line in report.lines])
    for i, line in enumerate(report.lines):
        if line.wrong is None:
            continue
        target = derivation.lines[i].target
        right = next(
            (
                k
                for k in range(i + 1, len(report.lines))
                if report.lines[k].wrong is None and derivation.lines[k].target == target
            ),
            None,
        )
        yield Erratum(
            document=report.source,
            place=line.source,
            printed=texts[i],
            why=line.wrong,
            numbers=_numbers(line),
            correction="" if right is None else texts[right],
            claim=report.claim,
            confirmed=line.ok and right is not None and report.lines[right].ok,
        )


def _whole(texts: list[str]) -> list[str]:
    """With the left-hand side repeated where a line starts with =."""
    left, whole = "", []
    for text in texts:
        if text.startswith("="):
            whole.append(f"{left} {text}".strip())
        else:
            left = text.split(" = ")[0] if " = " in text else ""
            whole.append(text)
    return whole


def _numbers(line: LineReport) -> str:
    printed, true = line.shown
    if 0 < len(printed) <= FEW and printed != true:
        return f"printed: {_list(printed)}; true: {_list(true)}"
    where = f" at {line.where}" if line.where else ""
    return f"printed: {line.value:.6g}; true: {line.truth:.6g}{where}"


def _list(values: tuple[float, ...]) -> str:
    numbers = ", ".join(f"{value:.6g}" for value in values)
    return numbers if len(values) == 1 else f"({numbers})"
