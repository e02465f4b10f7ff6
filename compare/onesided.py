"""What a derivation decides, where the inputs of a check come out on one side of it only.

A mask that hides nothing, a special case that never arises: what stands on the other side passes
unseen. Of a traced function its comparisons tell, of plain Python its conditions.
"""

import ast
import collections
import linecache
import os
import sys
import sysconfig
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend import core

from handgrad.compare.problem import Row
from handgrad.compare.source import Place, is_library, place

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
SHOWN = 3  # of them in a remark
STEPS = 20_000  # equations of a call, or lines of Python of all calls, up to which it is looked at
_HOUSE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "manual")
_INSTALLED = tuple(sysconfig.get_paths()[k] for k in ("stdlib", "purelib", "platlib"))


def onesided(row: Row, calls: Sequence[list[np.ndarray]]) -> list[str]:
    """In words, what comes out on one side in each of these calls; each is a list of values."""
    return _comparisons(row, calls) if row.untraceable is None else _conditions(row, calls)


def _comparisons(row: Row, calls: Sequence[list[np.ndarray]]) -> list[str]:
    written = {id(e): where for e in _of_inputs(row) if (where := _written(e)) is not None}
    if not written or sum(step.repeats for step in row.single.steps()) > STEPS:
        return []
    seen: dict[Place, set[bool]] = {where: set() for where in written.values()}

    def look(eqn: Any, inputs: list, results: list) -> list:
        where = written.get(id(eqn))
        if where is not None and len(seen[where]) < 2:
            seen[where].update(np.unique(results[0]).tolist())
        return results

    for values in calls:
        row.single(*values, after=look)
        if all(len(sides) == 2 for sides in seen.values()):
            return []
    one = [(where, sides) for where, sides in seen.items() if len(sides) == 1]
    one.sort(key=lambda found: (found[0].file, found[0].line))
    return [_words(where, *sides) for where, sides in one]


def _of_inputs(row: Row) -> Iterator[Any]:
    """The comparisons that depend on what the function is given, not on sizes alone."""

    def within(jaxpr: Any, given: set) -> Iterator[Any]:
        for eqn in jaxpr.eqns:
            if not any(isinstance(v, core.Var) and v in given for v in eqn.invars):
                continue
            given.update(eqn.outvars)
            if eqn.primitive.name in COMPARISONS:
                yield eqn
            for inner in core.jaxprs_in_params(eqn.params):
                yield from within(inner, set(inner.invars))

    jaxpr = row.single.jaxpr.jaxpr
    return within(jaxpr, set(jaxpr.invars))


def _written(eqn: Any) -> Place | None:
    """Where a comparison stands in the user's own code; None for what a library compares."""
    where = place(eqn)
    if where is None or where.file.startswith((_HOUSE, *_INSTALLED)):
        return None
    try:
        return where if isinstance(ast.parse(where.text, mode="eval").body, ast.Compare) else None
    except SyntaxError:
        return None


def _conditions(row: Row, calls: Sequence[list[np.ndarray]]) -> list[str]:
    """Of plain Python: an `if` is passed as often as its line runs, and taken as its body does."""
    if sys.gettrace() is not None:  # somebody's debugger
        return []
    ran: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    steps = 0

    def trace(frame: types.FrameType, event: str, arg: Any) -> Any:
        nonlocal steps
        file = frame.f_code.co_filename
        if event == "call" and (is_library(file) or file.startswith(_INSTALLED)):
            return None
        if event == "line":
            ran[file][frame.f_lineno] += 1
            steps += 1
            if steps > STEPS:
                sys.settrace(None)
        return trace

    for values in calls:
        sys.settrace(trace)
        try:
            row.one(values)
        finally:
            sys.settrace(None)
        if steps > STEPS:
            return []
    return [words for file, lines in ran.items() for words in _in_file(file, lines)]


def _in_file(file: str, ran: Mapping[int, int]) -> Iterator[str]:
    source = "".join(linecache.getlines(file))
    try:
        nodes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.If)]
    except SyntaxError:
        return
    for node in sorted(nodes, key=lambda n: n.lineno):
        passed, first = ran.get(node.lineno, 0), node.body[0]
        if not passed or first.lineno == node.lineno or not _decides(node):
            continue
        taken = ran.get(first.lineno, 0)
        if taken in (0, passed):
            where = Place(file, node.lineno, ast.get_source_segment(source, node.test) or "")
            yield _words(where, bool(taken))


def _decides(node: ast.If) -> bool:
    """Between values, not between options, and not whether to stop."""
    options = (ast.Is, ast.IsNot)
    chosen = [op for n in ast.walk(node.test) if isinstance(n, ast.Compare) for op in n.ops]
    return (
        bool(chosen)
        and not any(isinstance(op, options) for op in chosen)
        and not isinstance(node.body[0], ast.Raise | ast.Assert)
    )


def _words(where: Place, side: bool) -> str:
    return f"`{where.text}` ({where}) is always {str(side).lower()}"
