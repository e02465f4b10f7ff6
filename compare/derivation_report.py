"""What is said of a derivation: a verdict on every line, and the whole as it is printed."""

import dataclasses

import numpy as np

from handgrad.compare.latex import LatexError, to_text

__all__ = ["DerivationReport", "LineReport"]


@dataclasses.dataclass(frozen=True)
class LineReport:
    """The verdict on one line: where it deviates most from autodiff, and whether that matters."""

    number: int
    latex: str
    source: str
    wrong: str | None  # why it is an erratum, if it is one
    problem: str | None  # why it could not be judged
    holds: bool = False  # equals the derivative on every sample
    departs: bool = False  # from the line before it (the first: from the derivative)
    vacuous: bool = False  # the derivative is zero on every sample
    deviation: float = float("nan")
    where: str = ""
    value: float = float("nan")
    truth: float = float("nan")
    shown: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())  # both, on the worst sample

    @property
    def ok(self) -> bool:
        """A line must hold; an erratum must not."""
        return self.problem is None and self.holds == (self.wrong is None)

    @property
    def text(self) -> str:
        """The equation in Unicode."""
        try:
            return to_text(self.latex)
        except LatexError:
            return self.latex

    @property
    def remark(self) -> str:
        """What there is to say beyond the mark; empty if nothing."""
        off = (
            f"{self.value:.6g}, autodiff {self.truth:.6g}{' at ' if self.where else ''}{self.where}"
        )
        if self.problem:
            return self.problem
        if self.wrong and self.holds:
            return f"declared wrong ({self.wrong}), but it holds"
        if self.wrong:
            return f"wrong as printed, as declared: {self.wrong} ({off})"
        if not self.holds:
            return off
        return "only that it is zero is verified" if self.vacuous else ""


@dataclasses.dataclass(frozen=True)
class DerivationReport:
    """The verdict on a derivation; printed, it shows every line."""

    name: str
    claim: str
    source: str
    seed: int
    lines: tuple[LineReport, ...]
    problem: str | None = None  # why nothing could be judged

    @property
    def ok(self) -> bool:
        return self.problem is None and all(line.ok for line in self.lines)

    @property
    def departure(self) -> int | None:
        """The number of the first line that departs from the line before it."""
        return next((line.number for line in self.lines if line.departs), None)

    def __str__(self) -> str:
        title = f"{self.claim} {self.name}".strip()
        head = f"{'✓' if self.ok else '✗'} {title}" + (f"   [{self.source}]" if self.source else "")
        if self.problem:
            return f"{head}\n  {self.problem}"
        width = max((len(line.text) for line in self.lines), default=0)
        rows = [head]
        for line in self.lines:
            mark = "✓" if line.holds else "✗"
            deviation = "" if np.isnan(line.deviation) else f"{line.deviation:.1e}"
            row = f"  {line.number:>2} {mark} {line.text:<{width}}  {deviation:>7}  {line.source}"
            rows.append(row.rstrip())
            if line.remark:
                rows.append(f"       {line.remark}")
        if self.departure is not None:
            rows.append(f"  line {self.departure} is the first that departs from the one before it")
        return "\n".join(rows)
