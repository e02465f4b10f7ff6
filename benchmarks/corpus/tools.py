"""What the families are written with: the entry, the planted mistakes and the samples.

A wrong entry is a right backward with one edit of its source, so that the mistake has a line;
mistakes without a line (one element spoiled, the cotangent ignored, ...) are wrappers.
"""

import dataclasses
import inspect
import linecache
import textwrap
import zlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

MISTAKES = {
    "sign": "a term, or the whole, negated",
    "constant factor": "2, ½, N, 1/N, T, √d, the keep probability, ...",
    "transposed": "a matrix transposed, or not",
    "missing path": "one way from the argument to the output forgotten",
    "operand dropped": "a factor or a term left out",
    "wrong operand": "a neighbour of the same shape",
    "pre/post-activation": "the value before the nonlinearity for the one after it, or vice versa",
    "stale residual": "the derivative at another point",
    "wrong axis": "a sum over a wrong axis, or broadcast along one",
    "mean for sum": "or a sum for a mean",
    "shifted in time": "the step before or after",
    "permuted": "gates, heads or pairs in another order",
    "first or last step": "right but for the first or the last step",
    "cotangent ignored": "ones in its place",
    "cotangent squared": "used twice",
    "kernel not rotated": "correlation for convolution, or vice versa",
    "off by one": "an index shifted",
    "one element": "a single element off by a small relative error",
    "eps": "misplaced or missing",
    "variance bias": "n − 1 for n",
    "single precision": "float32 inside a float64 computation",
    "another argument": "the gradients of two arguments exchanged",
    "masked elements": "wrong only under (or only outside) a mask",
    "kink side": "the two sides of a kink exchanged",
    "approximation": "the derivative of a function that is nearly the same",
    "negative inputs": "wrong only there",
    "abs or sign": "forgotten",
    "threshold": "wrong only beyond a bound that few elements pass",
}
FORMS = {
    "form": "another algebraic form",
    "sample": "an odd size, or special values",
    "numpy": "written on NumPy arrays, not traceable",
    "kink convention": "0, ½ or 1 at a kink; a tie to the first or split",
    "simplex only": "right only because rows of an argument sum to 1",
    "ill-conditioned": "a right form that loses digits",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A backward pass `backward(*args, dy)` of `reference(*args)`, right or wrong at `args`.

    `line` is the mistake's line in the file `backward.__code__.co_filename`, which `linecache`
    knows. `rounding` bounds a right backward's distance from autodiff in float64, relative to
    the larger of the element and the RMS of its array.
    """

    name: str
    right: bool
    backward: Callable
    reference: Callable
    args: tuple
    category: str
    line: int | None = None
    note: str = ""
    rounding: float = 1e-12

    @property
    def function(self) -> str:
        return self.name.partition(":")[0]


class Function:
    """One function, and the backward passes written for it."""

    def __init__(self, name: str, reference: Callable, draw: Callable):
        self.name, self.reference, self.draw = name, reference, draw
        self.entries: list[Entry] = []
        self._samples: dict = {}

    def right(
        self, *forms, scales=(1.0,), category="form", sample="", draw=None, note="", rounding=1e-12
    ):
        """Right backward passes, each at every scale; `draw` replaces the function's sample."""
        if sample and category == "form":
            category = "sample"
        for form in forms:
            for scale in scales:
                size = f"×{scale:g}" if scale != 1 else ""
                label = ", ".join(filter(None, (_words(self.name, form), sample, size)))
                args = self._sample(draw or self.draw, scale)
                name = f"{self.name}: {label}"
                self.entries.append(
                    Entry(name, True, form, self.reference, args, category, None, note, rounding)
                )

    def wrong(self, form: Callable, *mistakes: tuple[str, ...]):
        """The right `form` with one edit for each mistake: (category, old, new[, old, new...])."""
        for category, *edit in mistakes:
            backward, line = edited(form, *edit)
            change = f"{edit[0].strip()} → {edit[1].strip() or 'nothing'}".replace("\n", " ")
            self._plant(
                backward, category, f"{category} in {_words(self.name, form)} [{change}]", line
            )

    def careless(self, form: Callable, *categories: str):
        """The right `form` with the cotangent ignored or squared, or in single precision."""
        for category in categories:
            label = f"{category} around {_words(self.name, form)}"
            self._plant(WRAPPERS[category](form), category, label)

    def spoiled(self, form: Callable, *places: tuple[int, int, float]):
        """The right `form` with one element off: (argument, flat index, relative error)."""
        for argument, index, relative in places:
            label = f"one element of argument {argument} off by {relative:g} in "
            backward = one_element(form, argument, index, relative)
            self._plant(backward, "one element", label + _words(self.name, form))

    def exchanged(self, form: Callable, i: int, j: int):
        """The right `form` with the gradients of arguments i and j exchanged."""

        def backward(*args):
            grads = list(form(*args))
            grads[i], grads[j] = grads[j], grads[i]
            return tuple(grads)

        label = f"gradients {i} and {j} exchanged in {_words(self.name, form)}"
        self._plant(backward, "another argument", label)

    def _plant(self, backward, category, label, line=None):
        args = self._sample(self.draw, 1.0)
        name = f"{self.name}: {label}"
        self.entries.append(Entry(name, False, backward, self.reference, args, category, line))

    def _sample(self, draw, scale):
        key = draw, scale
        if key not in self._samples:
            rng = np.random.default_rng(zlib.crc32(self.name.encode()))
            self._samples[key] = draw(rng, scale)
        return self._samples[key]


def edited(function: Callable, *edit: str) -> tuple[Callable, int]:
    """`function` with old → new in its source, and the line of the first change."""
    lines, first = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines))
    changes = list(zip(edit[::2], edit[1::2], strict=True))
    for old, _ in changes:
        if source.count(old) != 1:
            raise ValueError(f"{function.__name__} has {old!r} {source.count(old)} times, not once")
    old, new = edit[:2]
    same = sum(new.startswith(old[: i + 1]) for i in range(len(old)))  # characters in common
    same += len(old[same:]) - len(old[same:].lstrip())  # blanks are no change
    line = first + source[: source.index(old) + same].count("\n")
    for old, new in changes:
        source = source.replace(old, new)
    return rewritten(function, source, " → ".join(edit)), line


def rewritten(function: Callable, source: str, change: str) -> Callable:
    """`function` with another source, of as many lines before it in a file of its own."""
    _, first = inspect.getsourcelines(function)
    source = "\n" * (first - 1) + source  # the lines keep their numbers
    filename = f"<{function.__module__}.{function.__name__}: {change}>".replace("\n", " ")
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    scope: dict = {}
    exec(compile(source, filename, "exec"), function.__globals__, scope)
    return scope[function.__name__]


def ignores_cotangent(form):
    def backward(*args):
        return form(*args[:-1], jnp.ones_like(args[-1]))

    return backward


def squares_cotangent(form):
    def backward(*args):
        return form(*args[:-1], args[-1] ** 2)

    return backward


def in_single_precision(form):
    def narrow(a):
        return jnp.asarray(a, jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) else a

    def backward(*args):
        grads = form(*map(narrow, args))
        return tuple(g if g is None else g.astype(args[-1].dtype) for g in grads)

    return backward


def one_element(form, argument, index, relative):
    def backward(*args):
        grads = list(form(*args))
        g = jnp.asarray(grads[argument])
        grads[argument] = g.ravel().at[index].multiply(1 + relative).reshape(g.shape)
        return tuple(grads)

    return backward


WRAPPERS = {
    "cotangent ignored": ignores_cotangent,
    "cotangent squared": squares_cotangent,
    "single precision": in_single_precision,
}


def normal(*scaled: tuple[int, ...], fixed: tuple[tuple[int, ...], ...] = ()) -> Callable:
    """Gaussian arrays of these shapes; the scale multiplies the first ones, not the fixed."""

    def draw(rng, scale):
        first = tuple(scale * rng.standard_normal(shape) for shape in scaled)
        return first + tuple(rng.standard_normal(shape) for shape in fixed)

    return draw


def probabilities(rng, *shape: int) -> np.ndarray:
    """Rows inside (0, 1) that sum to 1."""
    p = rng.uniform(0.1, 1.0, shape)
    return p / p.sum(-1, keepdims=True)


def one_hot(rng, *shape: int) -> np.ndarray:
    """Rows with a single one."""
    return np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]


def labels(rng, *shape: int, classes: int) -> np.ndarray:
    """Integers in [0, classes)."""
    return rng.integers(0, classes, shape).astype(np.int32)


def _words(name: str, form: Callable) -> str:
    return form.__name__.removeprefix(name + "_").replace("_", " ")
