"""Do the operations compile where there is no such device? Forward and backward, by `jax.export`.

The compiler's input, StableHLO, is made for any platform from any machine. What no platform has
(a primitive without a rule there) and what no module may carry (a call back into this process)
shows here, on the laptop, and not on the accelerator.
"""

import dataclasses
import functools
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from handgrad.compare.cases import Case, load
from handgrad.compare.mistake import Mistake
from handgrad.compare.problem import summary
from handgrad.compare.selection import matching

__all__ = ["PLATFORMS", "Direction", "Lowered", "lower", "lower_case", "platforms_of", "rows"]

PLATFORMS = ("tpu", "cuda", "rocm", "cpu")
ANY_GPU = "cuda,rocm"


@dataclasses.dataclass(frozen=True)
class Direction:
    """The forward or the backward of one sample, as one module for all platforms that have it."""

    platforms: tuple[str, ...]  # asked for
    size: int = 0  # bytes of StableHLO
    custom_calls: tuple[str, ...] = ()
    failures: tuple[tuple[str, str], ...] = ()  # (platform, why it cannot be lowered for it)

    @property
    def ok(self) -> bool:
        return not self.failures


@dataclasses.dataclass(frozen=True)
class Lowered:
    """One operation with one kind of sample input."""

    id: str
    forward: Direction
    backward: Direction

    @property
    def ok(self) -> bool:
        return self.forward.ok and self.backward.ok

    @property
    def custom_calls(self) -> tuple[str, ...]:
        return tuple(sorted({*self.forward.custom_calls, *self.backward.custom_calls}))

    @property
    def reasons(self) -> str:
        """Such as `tpu, backward: NotImplementedError: ...`; of equal reasons the places."""
        places: dict[str, list[str]] = {}
        for name, direction in (("forward", self.forward), ("backward", self.backward)):
            for platform, reason in direction.failures:
                places.setdefault(reason, []).append(f"{platform} {name}")
        return "; ".join(f"{', '.join(where)}: {reason}" for reason, where in places.items())


def platforms_of(text: str) -> tuple[str, ...]:
    """Of `tpu,gpu`, each once; a Mistake for one that JAX cannot export for."""
    words = (ANY_GPU if word.strip() == "gpu" else word for word in text.split(","))
    names = tuple(dict.fromkeys(filter(None, (w.strip() for w in ",".join(words).split(",")))))
    unknown = [name for name in names if name not in PLATFORMS]
    if unknown or not names:
        what = f"{', '.join(unknown)} cannot be lowered for" if unknown else "no platform is named"
        raise Mistake(f"{what}; --platform takes any of {','.join(PLATFORMS)}, with commas between")
    return names


def rows(pattern: str | None = None, every: bool = False) -> list[Case]:
    """The first case of each operation, or every one: the same code is lowered, at other sizes."""
    chosen = matching(pattern, load())
    first = {case.function: case for case in reversed(chosen)}
    return chosen if every else list(first.values())[::-1]


def lower_case(case: Case, platforms: Sequence[str]) -> Lowered:
    """The built-in operation that a case is of, by hand, with the shapes of its sample."""
    from handgrad import manual

    function = functools.partial(getattr(manual, case.function), **case.config)
    return lower(function, case.draw(), platforms, case.id)


def lower(
    function: Callable, args: Sequence[Any], platforms: Sequence[str] = PLATFORMS, name: str = ""
) -> Lowered:
    """Both directions of `function(*args)` on these platforms; floats are float32.

    The backward is that of `jax.vjp`, with what it needs of the forward: what a training step runs.
    """
    shapes = jax.tree.map(_shape, tuple(args))

    def forward(*args):
        return function(*args)

    def backward(args, dy):
        return [x for x in jax.tree.leaves(jax.vjp(function, *args)[1](dy)) if _is_number(x)]

    there = _lowered(forward, shapes, tuple(platforms))
    try:
        dy = jax.eval_shape(forward, *shapes)
    except Exception:  # the forward raised it too, and has it as its reason
        return Lowered(name, there, there)
    return Lowered(name, there, _lowered(backward, (shapes, dy), tuple(platforms)))


def _lowered(function: Callable, shapes: tuple, platforms: tuple[str, ...]) -> Direction:
    """One module for all platforms; only where that fails, one by one to see which fail."""
    try:
        return _measured(function, shapes, platforms)
    except Exception as error:  # the rule of a primitive may raise anything
        if len(platforms) == 1:
            return Direction(platforms, failures=((platforms[0], summary(error)),))
    alone = [_lowered(function, shapes, (platform,)) for platform in platforms]
    failures = tuple(failure for direction in alone for failure in direction.failures)
    calls = {call for direction in alone for call in direction.custom_calls}
    size = sum(direction.size for direction in alone)
    return Direction(platforms, size, tuple(sorted(calls)), failures)


def _measured(function: Callable, shapes: tuple, platforms: tuple[str, ...]) -> Direction:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = jax.export.export(jax.jit(function), platforms=platforms)(*shapes)
    calls = re.findall(r"stablehlo\.custom_call @([\w.$]+)", exported.mlir_module())
    return Direction(platforms, len(exported.mlir_module_serialized), tuple(sorted(set(calls))))


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    leaf = np.asarray(leaf)
    floating = np.issubdtype(leaf.dtype, np.floating)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32 if floating else leaf.dtype)


def _is_number(x: Any) -> bool:
    return x.dtype != jax.dtypes.float0
