"""Sample inputs of every built-in operation: one row a case, one file a topic.

A row alone gives the verification, the accuracy and the documentation of an operation:

    CASES = [
        Case("affine", normal(3, 5), normal(5, 4), normal(4)),
        Case("affine: no bias", normal(3, 5), normal(5, 4), None),
        Case("leaky_relu: steep", normal(3, 5), slope=0.3),
    ]

The first word names the function in `manual` and in `reference`, what follows ": " the sample;
positional arguments are arrays, trees of arrays or the specs below; keywords are configuration.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any, ParamSpec

import numpy as np

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True)
class Sample:
    """An array to be drawn: `draw(rng, scale)` gives it."""

    draw: Callable[[np.random.Generator, float], np.ndarray]


def _of_shape(specify: Callable[P, Sample]) -> Callable[P, Sample]:
    """Takes the shape as NumPy has it too: normal((3, 5))."""

    @functools.wraps(specify)
    def spread(*shape: Any, **options: Any) -> Sample:
        return specify(*(shape[0] if [tuple] == [*map(type, shape)] else shape), **options)

    return spread


@_of_shape
def normal(*shape: int, scale: float = 1.0, shift: float = 0.0) -> Sample:
    """Gaussian numbers; the examiner's input scale multiplies them."""
    return Sample(lambda rng, s: s * scale * rng.standard_normal(shape) + shift)


@_of_shape
def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Sample:
    """Numbers between `low` and `high`, whatever the input scale."""
    return Sample(lambda rng, s: rng.uniform(low, high, shape))


@_of_shape
def positive(*shape: int, scale: float = 1.0) -> Sample:
    """Positive numbers (log-normal), multiplied by the input scale."""
    return Sample(lambda rng, s: s * scale * np.exp(0.5 * rng.standard_normal(shape)))


@_of_shape
def probabilities(*shape: int) -> Sample:
    """Rows that sum to one, every entry inside (0, 1), whatever the input scale."""

    def draw(rng, s):
        p = rng.uniform(0.1, 1.0, shape)
        return p / p.sum(-1, keepdims=True)

    return Sample(draw)


@_of_shape
def one_hot(*shape: int) -> Sample:
    """Rows with a single one, as floats."""
    return Sample(lambda rng, s: np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])])


@_of_shape
def labels(*shape: int, classes: int) -> Sample:
    """Integers in [0, classes)."""
    return Sample(lambda rng, s: rng.integers(0, classes, shape).astype(np.int32))


class Case:
    """One function with one kind of sample input."""

    def __init__(self, name: str, *args: Any, **config: Any):
        self.function, _, self.label = name.partition(": ")
        self.args = args
        self.config = config
        self.topic = ""  # the file it stands in, filled in by `load`

    @property
    def id(self) -> str:
        """Such as `dense.affine[no bias]`; `handgrad check -k` selects by it."""
        return f"{self.topic}.{self.function}" + (f"[{self.label}]" if self.label else "")

    def draw(self, seed: int = 0, scale: float = 1.0) -> tuple:
        """The positional arguments, drawn anew from the seed (specs inside trees included)."""
        rng = np.random.default_rng([seed, *self.id.encode()])

        def fill(arg):
            match arg:
                case Sample():
                    return arg.draw(rng, scale)
                case tuple() if hasattr(arg, "_fields"):
                    return type(arg)(*map(fill, arg))
                case list() | tuple():
                    return type(arg)(map(fill, arg))
                case dict():
                    return {k: fill(a) for k, a in arg.items()}
                case _:
                    return arg

        return tuple(map(fill, self.args))

    def __repr__(self) -> str:
        return f"<case {self.id}>"


TOPICS = (
    "activations",
    "piecewise",
    "smooth",
    "gated",
    "dense",
    "losses",
    "regression",
    "margins",
    "divergences",
    "gaussian",
    "networks",
    "normalization",
    "dropout",
    "regularization",
    "clipping",
    "embedding",
    "convolution",
    "pooling",
    "recurrent",
    "attention",
    "blockwise_attention",
    "fused_losses",
    "sequences",
    "language_models",
    "autoencoders",
    "transformers",
    "image_models",
)


def load() -> list[Case]:
    """Every built-in case, by topic."""
    cases = []
    for topic in TOPICS:
        for case in importlib.import_module(f"handgrad.compare.cases.{topic}").CASES:
            case.topic = topic
            cases.append(case)
    return cases
