"""What an experiment measured."""

import dataclasses
from pathlib import Path
from typing import Any

__all__ = ["Result", "axes", "save"]


@dataclasses.dataclass(frozen=True)
class Result:
    """A claim of the documents, whether it holds, and the numbers that say so."""

    claim: str  # its id in the inventory
    source: str
    statement: str  # in words
    holds: bool
    measured: dict[str, float]
    curves: dict[str, Any]  # what the picture shows

    def __str__(self) -> str:
        numbers = "; ".join(f"{name} = {value:.4g}" for name, value in self.measured.items())
        return f"{'✓' if self.holds else '✗'} {self.claim} {self.statement}: {numbers}"


def axes(result: Result, *, count: int = 1, **labels: Any) -> tuple[Any, Any]:
    """A figure under the claim's statement, and its axes (a list if more than one)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * count, 4.0), layout="constrained")
    made = figure.subplots(1, count)
    figure.suptitle(f"{result.claim}: {result.statement}", fontsize=9)
    for ax in [made] if count == 1 else made:
        ax.set(**labels)
        ax.grid(alpha=0.3)
    return figure, made


def save(figure: Any, path: str | Path) -> None:
    """Write the picture; nothing of matplotlib's global state is touched."""
    figure.savefig(path, dpi=110)
