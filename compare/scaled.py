"""The number that a value lacks as a factor, solved for, and what it is called in the source."""

import ast
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from handgrad.compare.looks import Looks

__all__ = ["lacking", "sizes", "spelled"]

LARGEST = 12  # of what is written as a fraction of whole numbers


def lacking(
    hand: Sequence[np.ndarray], more: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> float | None:
    """How many times the difference of `more` to what was derived by hand the truth is away.

    None where that is not one number, or none at all.
    """
    h, d, t = (np.concatenate([np.ravel(x) for x in of]) for of in (hand, more, truth))
    if not h.size or any(x.dtype.kind == "c" or not np.isfinite(x).all() for x in (h, d, t)):
        return None
    of_one, needed = d - h, t - h
    square = of_one @ of_one
    if not square:
        return None
    times = float(of_one @ needed / square)
    fits = np.allclose(needed, times * of_one, rtol=1e-7, atol=1e-9 * np.abs(needed).max())
    return times if fits and abs(times) > 1e-9 else None


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
