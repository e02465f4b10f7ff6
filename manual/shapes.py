"""What several operations ask of their arguments; the errors say what came and what must hold."""

import contextlib
import math
import operator
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.manual import trees

__all__ = [
    "as_float",
    "floating",
    "indices_below",
    "inside",
    "is_less",
    "known",
    "number",
    "one_of",
    "per_feature",
    "positive",
    "random_key",
    "same_shapes",
    "some_classes",
    "whole",
    "within",
]


def same_shapes(name: str, *, least: int = 0, **arrays: Any) -> None:
    """All arrays have one shape, of `least` axes at least: (*batch, features) for 1."""
    trees.arrays(name, **arrays)
    shapes = {argument: jnp.shape(array) for argument, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"{name}: {_listing(shapes.items())}; their shapes must be equal, since broadcasting "
            "here is nearly always a mistake"
        )
    if min(map(len, shapes.values())) < least:
        form = "(*batch, features)" if least == 1 else f"of {least} axes or more"
        raise ValueError(f"{name}: {_listing(shapes.items())}; their shapes must be {form}")


def some_classes(name: str, **array: Any) -> None:
    """The last axis of the one array is not empty."""
    ((argument, given),) = array.items()
    if not jnp.shape(given)[-1]:
        raise ValueError(
            f"{name}: {argument} has shape {jnp.shape(given)}; there must be at least one class"
        )


def one_of(name: str, known: Iterable[str], **option: Any) -> None:
    """The one option is a string among those known."""
    ((called, value),) = option.items()
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}: {called} is {value!r}; it must be one of: {', '.join(known)}")


def is_less(size: Any, other: Any) -> bool:
    """Whether one size is less than another; not, where it depends on what a symbolic one is."""
    try:
        return bool(size < other)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def known(array: Any) -> np.ndarray | None:
    """The numbers of an array that can be read now: it is not traced, nor on other machines."""
    if isinstance(array, Tracer) or not getattr(array, "is_fully_addressable", True):
        return None
    return np.asarray(array)


def indices_below(
    name: str, bound: int, of: str, hint: str = "", *, ignored: int | None = None, **array: Any
) -> None:
    """The integers of the one array, where they are known, lie in [0, bound), or are `ignored`."""
    ((argument, given),) = array.items()
    if (numbers := known(given)) is None:
        return
    beyond = (numbers < 0) | (numbers >= bound)
    beyond &= True if ignored is None else numbers != ignored
    if beyond.any():
        where = tuple(map(int, np.argwhere(beyond)[0]))
        entry = f"{argument}{list(where)}" if where else argument
        needed = f"{of} it must be in [0, {bound}){hint}"
        raise ValueError(f"{name}: {entry} is {numbers[where]}; {needed}")


def _listing(shapes: Iterable[tuple[str, tuple]]) -> str:
    (first, shape), *others = shapes
    said = [f"{first} has shape {shape}", *(f"{other} {shape}" for other, shape in others)]
    return " and ".join(filter(None, [", ".join(said[:-1]), said[-1]]))


def per_feature(
    name: str, x: Any, *, least: int = 1, array: str = "x", form: str = "", **vectors: Any
) -> None:
    """x has `least` axes or more, and each vector as many entries as the last of them."""
    shape = jnp.shape(x)
    form = form or {1: "(*batch, features)", 2: "(batch, *space, features)"}.get(
        least, "(batch, *space, features) with at least one axis of space"
    )
    if len(shape) < least:
        raise ValueError(f"{name}: {array} has shape {shape}; it must be {form}")
    for argument, vector in vectors.items():
        if jnp.shape(vector) != shape[-1:]:
            raise ValueError(
                f"{name}: {argument} has shape {jnp.shape(vector)} and {array} {shape}; with "
                f"{array} of {form}, {argument} must be {shape[-1:]}"
            )


@contextlib.contextmanager
def inside(place: str) -> Iterator[None]:
    """What does not fit in a part of a larger operation is said to be there."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if type(error) not in (TypeError, ValueError):
            raise
        raise type(error)(f"{place}: {error}") from error


def floating(name: str, hint: str = "", **arrays: jax.Array) -> None:
    """All arrays hold floating-point numbers."""
    for argument, array in arrays.items():
        dtype = jnp.result_type(array)
        if not jnp.issubdtype(dtype, jnp.floating):
            verb = "are" if argument.endswith("s") else "is"
            raise TypeError(f"{name}: {argument} {verb} {dtype}, and must be floating-point{hint}")


def number(name: str, **options: Any) -> None:
    """All options are real numbers, Python's or of arrays of shape (); no NaN, if that is known."""
    for option, value in options.items():
        dtype = getattr(value, "dtype", None)
        if dtype is None:
            real = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            real = jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
        if not real:
            raise TypeError(f"{name}: {option} is {value!r}; it must be a number")
        if jnp.shape(value) != ():
            raise ValueError(f"{name}: {option} has shape {jnp.shape(value)}; it must be a number")
        if isinstance(value, int) and abs(value) >= 2**1024:
            raise ValueError(f"{name}: {option} is {value}; it must be a number that a float holds")
        if not isinstance(value, jax.Array) and value != value:
            raise ValueError(f"{name}: {option} is {value}; it must be a number")


def as_float(option: Any) -> Any:
    """A whole number that 32 bits may not hold as one that they do; anything else as it is."""
    return float(option) if isinstance(option, int) and abs(option) >= 2**31 else option


def positive(name: str, **options: Any) -> None:
    """All options are positive numbers (where they are known: a traced one is believed)."""
    number(name, **options)
    for option, value in options.items():
        if (n := known(value)) is not None and not n > 0:
            raise ValueError(f"{name}: {option} is {value}; it must be a positive number")


def within(name: str, least: float, most: float = math.inf, **options: Any) -> None:
    """All options are numbers from `least` to `most` (where they are known)."""
    number(name, **options)
    needed = f"{least} or more" if most == math.inf else f"in [{least}, {most}]"
    for option, value in options.items():
        if (n := known(value)) is not None and not least <= n <= most:
            raise ValueError(f"{name}: {option} is {value}; it must be {needed}")


def random_key(name: str, key: Any) -> None:
    """One key, of `jax.random.key` or of `jax.random.PRNGKey`."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and (dtype != jnp.uint32 or shape == ()):  # those of jax.random.PRNGKey
        came = f"an array of {dtype}" if dtype is not None else repr(key)
        raise TypeError(f"{name}: key is {came}; it must be a jax.random.key")
    if len(shape) != (0 if typed else 1):
        raise ValueError(f"{name}: key has shape {shape}; it must be one key: take jax.vmap")


def whole(name: str, *, least: float = 1, **option: Any) -> int:
    """The one option as an int: a whole number of `least` or more."""
    ((called, value),) = option.items()
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: {called} is {value!r}; it must be a whole number")
    try:
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {called} is {value!r}; it must be a whole number") from None
    if n < least:
        raise ValueError(f"{name}: {called} is {n}; it must be {least} or more")
    if n >= 2**63 and least >= 0:  # a size, a step or a number of something
        raise ValueError(f"{name}: {called} is {n}; it must be below 2⁶³")
    return n
