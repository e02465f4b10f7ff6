"""The parameters of a network come as a tree of named parts; what does not fit in it is named."""

from typing import Any

__all__ = ["arrays", "entries", "fit", "found", "listed", "matrix", "parts"]


def arrays(name: str, **given: Any) -> None:
    """None of them is missing or a tree, as the parameters beside them may be."""
    for argument, array in given.items():
        if array is None or isinstance(array, list | tuple | dict):
            came = "None" if array is None else f"a {type(array).__name__}"
            raise TypeError(f"{name}: {argument} is {came}; it must be an array")


def parts(where: str, given: Any, *names: str) -> list:
    """The entries of a dictionary that must have these keys and no others, in this order."""
    if not isinstance(given, dict) or set(given) != set(names):
        came = f"; it {found(given)}"
        if isinstance(given, dict):
            came = f"; there came the keys {', '.join(map(str, given))}"
        raise ValueError(f"{where} must be a dictionary of {', '.join(names)}{came}")
    return [given[name] for name in names]


def listed(where: str, given: Any, of: str, *, least: int = 0) -> list:
    if not isinstance(given, list) or len(given) < least:
        some = ", one at least" if least else ""
        raise ValueError(f"{where} must be a list of {of}{some}; it {found(given)}")
    return given


def entries(where: str, given: Any, *names: str) -> tuple:
    """A tuple of so many; its gradient comes as one too."""
    if not isinstance(given, tuple) or len(given) != len(names):
        raise ValueError(f"{where} must be a tuple ({', '.join(names)}); it {found(given)}")
    return given


def fit(name: str, beside: str, needed: dict[str, tuple], *, or_none: bool = False) -> None:
    """Every argument, which comes with the shape needed of it, is an array of that shape."""
    for argument, (given, shape) in needed.items():
        if getattr(given, "shape", None) != shape and not (or_none and given is None):
            raise ValueError(
                f"{name}: {argument} {found(given)}; with {beside} it must be an array of shape "
                f"{shape}" + (", or None" if or_none else "")
            )


def matrix(name: str, argument: str, w: Any) -> tuple[int, int]:
    """Its rows and its columns."""
    if getattr(w, "ndim", None) != 2:
        raise ValueError(f"{name}: {argument} {found(w)}; it must be a matrix")
    return w.shape


def found(given: Any) -> str:
    """What came, for a message: "has shape (2, 3)" or "is a tuple of 2"."""
    if hasattr(given, "shape"):
        return f"has shape {given.shape}"
    number = f" of {len(given)}" if isinstance(given, list | tuple | dict) else ""
    return "is None" if given is None else f"is a {type(given).__name__}{number}"
