"""Declare, in a file of one's own, which function a derivation belongs to and where to verify it.

    @backward_of(softmax, np.array([0.3, -1.2, 0.8]))
    def softmax_backward(x, dy): ...

The function is left as it is; `handgrad check FILE.py` verifies everything that a file declares.
Decorators stack: one more declares one more set of sample inputs.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

__all__ = ["Declaration", "backward_of", "declared", "gradient_of", "same_as"]

F = TypeVar("F", bound=Callable[..., Any])
Kind = Literal["function", "backward", "gradient"]  # as `examine` knows them


@dataclasses.dataclass(frozen=True)
class Declaration:
    """A derivation, the function it belongs to, and sample inputs."""

    candidate: Callable[..., Any]
    reference: Callable[..., Any]
    kind: Kind
    args: tuple[Any, ...]
    argnums: tuple[int, ...] | None
    name: str
    file: str  # in which it was declared


_DECLARED: list[Declaration] = []


def declared() -> tuple[Declaration, ...]:
    """Everything declared so far in this process, in order."""
    return tuple(_DECLARED)


def backward_of(
    reference: Callable[..., Any],
    *args: Any,
    argnums: Sequence[int] | None = None,
    name: str | None = None,
) -> Callable[[F], F]:
    """This is the hand-derived `backward(*args, dy)` of `reference`; see `check_backward`.

    args: sample inputs, arrays or trees of arrays, or what `handgrad.compare.cases` draws anew
    from the seed: `normal(3, 5)`, `positive(4)`, `labels(8, classes=10)`.
    argnums: the arguments to be differentiated (default: all that hold floats).
    name: what the reports call it (default: the name of the function).
    """
    return _declare("backward_of", "backward", reference, args, argnums, name)


def gradient_of(
    loss: Callable[..., Any],
    *args: Any,
    argnums: Sequence[int] | None = None,
    name: str | None = None,
) -> Callable[[F], F]:
    """This is the hand-derived `gradient(*args)` of the scalar `loss`; see `check_gradient`.

    The arguments are those of `backward_of`.
    """
    return _declare("gradient_of", "gradient", loss, args, argnums, name)


def same_as(
    reference: Callable[..., Any],
    *args: Any,
    argnums: Sequence[int] | None = None,
    name: str | None = None,
) -> Callable[[F], F]:
    """This function, with its own derivative (a `custom_vjp`, a kernel), is `reference`.

    Values and gradients are compared; see `check`. The arguments are those of `backward_of`.
    """
    return _declare("same_as", "function", reference, args, argnums, name)


def _declare(
    decorator: str,
    kind: Kind,
    reference: Any,
    args: tuple[Any, ...],
    argnums: Sequence[int] | None,
    name: str | None,
) -> Callable[[F], F]:
    if not callable(reference):
        raise TypeError(
            f"the first argument of {decorator} is {reference!r}; it must be the function that the "
            f"derivation belongs to: @{decorator}(function, x, ...)"
        )
    if not args:
        raise TypeError(
            f"{decorator} has no sample inputs; give what the function is to be verified at: "
            f"@{decorator}({_name(reference)}, x, ...)"
        )
    file = sys._getframe(2).f_code.co_filename

    def register(candidate: F) -> F:
        if not callable(candidate):
            raise TypeError(f"{decorator} decorates a function, not {candidate!r}")
        numbers = None if argnums is None else tuple(argnums)
        _DECLARED.append(
            Declaration(candidate, reference, kind, args, numbers, name or _name(candidate), file)
        )
        return candidate

    return register


def _name(function: Any) -> str:
    inner = getattr(function, "func", function)  # of a functools.partial
    return getattr(inner, "__name__", None) or type(function).__name__
