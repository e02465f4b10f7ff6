"""A check as Python that can be run: imports, the arrays written out, the call."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.problem import name_of

__all__ = ["Spelled", "call", "literal", "spelled"]

CALLS = {"function": "check", "backward": "check_backward", "gradient": "check_gradient"}
UNNAMED = "your_function"
PUBLIC = {  # where a function is looked for before the module that it was made in
    "handgrad.manual": ("from handgrad import manual", "manual"),
    "handgrad.reference": ("from handgrad import reference", "reference"),
    "jax.nn": ("import jax", "jax.nn"),
    "jax.numpy": ("import jax.numpy as jnp", "jnp"),
    "jax.lax": ("from jax import lax", "lax"),
    "optax": ("import optax", "optax"),
}


class Spelled:
    """An expression, and the lines that have to stand before it."""

    def __init__(self, text: str, *needs: str):
        self.text, self.needs = text, needs

    def renamed(self, name: str) -> "Spelled":
        """With another name for a function that has none."""
        return Spelled(*(part.replace(UNNAMED, name) for part in (self.text, *self.needs)))


def call(kind: str, functions: tuple[Spelled, Spelled], args: tuple, **options: Any) -> str:
    """`check(candidate, reference, *args)` and all that it needs."""
    names = (UNNAMED if kind == "function" else f"your_{kind}"), "your_reference"
    functions = functions[0].renamed(names[0]), functions[1].renamed(names[1])
    arguments = [literal(arg) for arg in args]
    given = [Spelled(f"{name}={v!r}") for name, v in options.items() if v not in (None, 0)]
    parts = [*functions, *arguments, *given]
    needs = dict.fromkeys(line for part in parts for line in part.needs)
    needs[f"from handgrad.compare import {CALLS[kind]}"] = None
    imports = sorted(n for n in needs if n.startswith("import "))
    imports += sorted(n for n in needs if n.startswith("from "))
    others = [n for n in needs if n not in imports]
    inside = "".join(f"    {_indented(part.text)},\n" for part in parts)
    return "\n".join([*imports, *others, "", f"{CALLS[kind]}(\n{inside})"])


def spelled(function: Callable) -> Spelled:
    """How a function is called where it can be imported; else its name, and a word about it."""
    if isinstance(function, functools.partial):
        inner = spelled(function.func)
        values = [*map(literal, function.args)]
        named = {k: literal(v) for k, v in function.keywords.items()}
        texts = [
            inner.text,
            *(v.text for v in values),
            *(f"{k}={v.text}" for k, v in named.items()),
        ]
        needs = [n for part in (inner, *values, *named.values()) for n in part.needs]
        return Spelled(f"functools.partial({', '.join(texts)})", "import functools", *needs)
    name = name_of(function)
    for module, (line, prefix) in PUBLIC.items():
        if module in sys.modules and getattr(sys.modules[module], name, None) is function:
            return Spelled(f"{prefix}.{name}", line)
    module = getattr(function, "__module__", None) or ""
    found = getattr(sys.modules.get(module), name, None) is function
    if found and module != "__main__" and all(part.isidentifier() for part in module.split(".")):
        return Spelled(f"{module}.{name}", f"import {module}")
    name = name if name.isidentifier() else UNNAMED
    return Spelled(name, f"# {name}: the function that you gave to the check")


def literal(value: Any) -> Spelled:
    """A value as Python has it."""
    match value:
        case tuple() if hasattr(value, "_fields"):
            return _of([*map(literal, value)], f"{type(value).__name__}(", ")")
        case tuple():
            return _of([*map(literal, value)], "(", ",)" if len(value) == 1 else ")")
        case list():
            return _of([*map(literal, value)], "[", "]")
        case dict():
            parts = [(f"{k!r}: ", literal(v)) for k, v in value.items()]
            return _of([Spelled(k + v.text, *v.needs) for k, v in parts], "{", "}")
        case jax.Array() if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            data = literal(np.asarray(jax.random.key_data(value)))
            return Spelled(f"jax.random.wrap_key_data({data.text})", "import jax", *data.needs)
        case jax.Array() | np.ndarray() | np.generic():
            return _array(value)
        case _ if callable(value):
            return spelled(value)
        case _:
            return Spelled(repr(value))


def _of(parts: list[Spelled], opening: str, closing: str) -> Spelled:
    text = opening + ", ".join(p.text for p in parts) + closing
    return Spelled(text, *(n for p in parts for n in p.needs))


def _array(value: Any) -> Spelled:
    x = np.asarray(value)
    room, line = "np", "import numpy as np"
    if isinstance(value, jax.Array) or x.dtype.kind == "V":  # bfloat16 is none of NumPy's
        room, line = "jnp", "import jax.numpy as jnp"
    dtype = f", {room}.{x.dtype.name}" if x.dtype not in (np.float64, np.int64, np.bool_) else ""
    if room == "jnp" and not dtype:
        dtype = f", {room}.{x.dtype.name}"
    if not x.size:
        return Spelled(f"{room}.zeros({x.shape}{dtype})", line)
    wide = x.astype(float) if x.dtype.kind == "V" else x
    numbers = np.array2string(
        wide, separator=", ", floatmode="unique", threshold=sys.maxsize, max_line_width=90
    )
    return Spelled(f"{room}.array({numbers}{dtype})", line)


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")
