"""Where in the user's source an equation of a jaxpr was written."""

import dataclasses
import linecache
import os
from typing import Any

import jax

_LIBRARIES = tuple(
    os.path.dirname(os.path.abspath(module_file)) + os.sep
    for module_file in (str(jax.__file__), __file__)
)
_HOUSE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OP = os.path.join(_HOUSE, "manual", "op.py")  # the decorator, in which nobody derives anything


@dataclasses.dataclass(frozen=True)
class Place:
    """An expression in a file: its line and its text."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        file = self.file if self.file.startswith("<") else os.path.basename(self.file)
        return f"{file}:{self.line}"

    @property
    def name(self) -> str:
        """The variable that the expression is assigned to on its line, else the expression."""
        line = linecache.getline(self.file, self.line).strip()
        left, equals, right = line.partition(" = ")
        assigned = equals and left.isidentifier() and right.partition("  #")[0] == self.text
        return left if assigned else self.text


def is_library(file: str) -> bool:
    """Whether it is JAX's, the harness's own or Python's, and not the user's."""
    return file == _OP or file.startswith((*_LIBRARIES, "<frozen"))


def place(eqn: Any) -> Place | None:
    """The innermost expression outside JAX that made this equation; None where unknown."""
    trace = getattr(eqn.source_info, "traceback", None)
    if trace is None:
        return None
    for code, last in zip(*trace.raw_frames(), strict=True):
        if is_library(code.co_filename):
            continue
        positions = list(code.co_positions())
        line, end, column, stop = positions[min(last // 2, len(positions) - 1)]
        line = line or code.co_firstlineno
        return Place(code.co_filename, line, _text(code.co_filename, line, end, column, stop))
    return None


def frames(eqn: Any) -> tuple:
    """The places in the code, libraries' too, from which an equation was made."""
    trace = getattr(eqn.source_info, "traceback", None)
    return () if trace is None else tuple(zip(*trace.raw_frames(), strict=True))


def _text(file: str, line: int, end: int | None, column: int | None, stop: int | None) -> str:
    """The source between two positions on one line, else the whole first line."""
    source = linecache.getline(file, line)
    if end == line and column is not None and stop is not None:
        return source.encode()[column:stop].decode(errors="replace").strip()
    return source.strip()
