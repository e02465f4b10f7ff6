"""The arrays that a derivation can reach without being given them, as they were.

Of a module, a closure, an object or what these hold. An edit of the derivation may write into them,
and they are the user's own.
"""

import functools
import types
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from handgrad.compare.rewrite import contents
from handgrad.compare.source import is_library

__all__ = ["Kept"]

DEEP = 4  # objects in objects
MANY = 2000  # objects that are looked at
SMALL = 2**20  # bytes of all arrays that are put back after every edit
LARGE = 2**28  # and of all that are in the end


class Kept:
    """What some functions and objects can reach, with a copy."""

    def __init__(self, *roots: Any):
        found = sorted(_arrays(roots), key=lambda a: a.nbytes)
        sizes = np.cumsum([a.nbytes for a in found])
        self._copies = [
            (array, array.copy(), size < SMALL)
            for array, size in zip(found, sizes, strict=True)
            if size < LARGE
        ]

    def restore(self, large: bool = False) -> None:
        """Put back what was there; in large arrays too, or only in those that cost no time."""
        for array, copy, small in self._copies:
            if small or large:
                np.copyto(array, copy)


def _arrays(roots: tuple) -> Iterator[np.ndarray]:
    seen: set[int] = set()
    waiting = [(root, 0) for root in roots]
    while waiting and len(seen) < MANY:
        held, depth = waiting.pop(0)
        if id(held) in seen:
            continue
        seen.add(id(held))
        if isinstance(held, np.ndarray):
            if held.flags.writeable and not held.dtype.hasobject:
                yield held
        elif depth < DEEP:
            waiting += [(inner, depth + 1) for inner in _inside(held)]


def _inside(held: Any) -> list:
    match held:
        case dict():
            return [*held.values()]
        case list() | tuple():
            return [*held]
        case types.FunctionType() if not is_library(held.__code__.co_filename):
            cells = [contents(c) for c in held.__closure__ or ()]
            return [*cells, *(held.__defaults__ or ()), *_named(held)]
        case types.MethodType():
            return [held.__self__, held.__func__]
        case functools.partial():
            return [held.func, *held.args, *held.keywords.values()]
        case jax.custom_vjp():
            return [held.fun, held.fwd, held.bwd]
        case types.ModuleType() | types.FunctionType() | types.BuiltinFunctionType() | jax.Array():
            return []
        case type():
            return [] if held.__module__ == "builtins" else [*vars(held).values()]
    return [*getattr(held, "__dict__", {}).values()]


def _named(function: types.FunctionType) -> list:
    """Of its module: arrays, which may be taken for others, and what it calls by name."""
    held = function.__globals__
    names = dict.fromkeys(function.__code__.co_names)
    arrays = [v for v in held.values() if isinstance(v, np.ndarray)]
    return [*(held[n] for n in names if n in held), *arrays]
