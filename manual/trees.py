"""The parameters of a network come as a tree of named parts; a part that is missing is named."""

from typing import Any

__all__ = ["parts"]


def parts(where: str, given: Any, *names: str) -> list:
    """The entries of a dictionary that must have these keys and no others, in this order."""
    if not isinstance(given, dict) or set(given) != set(names):
        came = f"the keys {', '.join(map(str, given))}" if isinstance(given, dict) else type(given)
        raise ValueError(f"{where} must be a dictionary of {', '.join(names)}; there came {came}")
    return [given[name] for name in names]
