"""The number that a value lacks as a factor, solved for, and what it is called in the source."""

import ast
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from handgrad.compare.looks import Looks

__all__ = ["lacking", "recurring", "sizes", "spelled"]

LARGEST = 12  # of what is written as a fraction of whole numbers
LIKE = 0.9  # the least cosine of a change with the one that is needed, for it to be tried again
STEPS = 8  # of a secant


def lacking(
    hand: Sequence[np.ndarray], more: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> float | None:
    """How many times the difference of `more` to what was derived by hand the truth is away.

    None where that is not one number, or none at all.
    """
    changes = _changes(hand, more, truth)
    if changes is None:
        return None
    of_one, needed = changes
    times = float(of_one @ needed / (of_one @ of_one))
    return times if _alike(needed, times * of_one) and abs(times) > 1e-9 else None


def recurring(
    hand: Sequence[np.ndarray], more: Sequence[np.ndarray], truth: Sequence[np.ndarray],
    results: Callable[[float], list | None],
) -> float | None:  # fmt: skip
    """The same where `results`, of a factor, are not linear in it: found by secants."""
    changes = _changes(hand, more, truth)
    if changes is None:
        return None
    of_one, needed = changes
    square = of_one @ of_one
    if (of_one @ needed) ** 2 < LIKE**2 * square * (needed @ needed):
        return None
    before, last, at_last = 0.0, 1.0, 1.0
    at_before, goal = 0.0, float(of_one @ needed / square)
    for _ in range(STEPS):
        if at_last == at_before:
            return None
        before, last = last, last + (goal - at_last) * (last - before) / (at_last - at_before)
        made = results(last)
        found = None if made is None else _changes(hand, made, truth)
        if found is None:
            return None
        at_before, at_last = at_last, float(of_one @ found[0] / square)
        if _alike(needed, found[0]):
            return last
    return None


def _changes(
    hand: Sequence[np.ndarray], more: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """What is changed, and what is to be; None where nothing is, or something is no number."""
    h, m, t = (np.concatenate([np.ravel(x) for x in of]) for of in (hand, more, truth))
    if not h.size or any(x.dtype.kind == "c" or not np.isfinite(x).all() for x in (h, m, t)):
        return None
    return (m - h, t - h) if (m != h).any() and (m - h) @ (m - h) else None


def _alike(needed: np.ndarray, made: np.ndarray) -> bool:
    return np.allclose(needed, made, rtol=1e-7, atol=1e-9 * np.abs(needed).max())


def sizes(tree: ast.AST, names: Sequence[str], looks: Looks) -> dict[str, float]:
    """Numbers that have a name: scalars, lengths of axes, what these were unpacked to."""
    found: dict[str, float] = {}
    for name in names:
        least, most = looks.ranges.get(name, (0, 1))
        if least == most and () in looks.shapes.get(name, ()):
            found[name] = float(least)
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Tuple(targets)], ast.Attribute(ast.Name(array), "shape")):
                for shape in looks.shapes.get(array, set()):
                    if len(shape) == len(targets):
                        for target, n in zip(targets, shape, strict=True):
                            if isinstance(target, ast.Name):
                                found[target.id] = float(n)
    for name in names:
        shapes = looks.shapes.get(name, set())
        if len(shapes) == 1:
            (shape,) = shapes
            found |= {f"{name}.shape[{i}]": float(n) for i, n in enumerate(shape)}
            if len(shape) > 1:
                found[f"{name}.size"] = float(math.prod(shape))
    return found


def spelled(node: Any, factor: float, known: dict[str, float]) -> Iterator[ast.BinOp]:
    """The node times the factor: by what has that number, by two such, by whole numbers."""
    pairs = [
        (f"({a} * {b})", x * y)
        for (a, x), (b, y) in itertools.combinations(known.items(), 2)
        if x != 1 and y != 1
    ]
    less_one = [(f"({a} - 1)", x - 1) for a, x in known.items() if x > 2]
    roots = [(f"{a} ** 0.5", x**0.5) for a, x in known.items() if x > 1]
    for text, value in (*known.items(), *less_one, *roots, *pairs):
        if _close(factor * value, 1):
            yield ast.BinOp(node, ast.Div(), _expression(text))
        elif _close(factor, value) and value != 1:
            yield ast.BinOp(node, ast.Mult(), _expression(text))
    fraction = Fraction(factor).limit_denominator(LARGEST)
    if _close(factor, float(fraction)) and 1 < max(abs(fraction.numerator), 2) <= LARGEST:
        by = f"({fraction})" if fraction.denominator > 1 else str(fraction)
        yield ast.BinOp(node, ast.Mult(), _expression(by))


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-7)


def _expression(text: str) -> Any:
    return ast.parse(text, mode="eval").body
