"""What a derivation is: a quantity, and the ordered lines that claim its derivative. Plain data."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

__all__ = ["Derivation", "Line", "entries"]


@dataclasses.dataclass(frozen=True)
class Line:
    """One equation: its LaTeX, the code that evaluates it as written, and what it should equal.

    It should equal the derivative of `of` with respect to `wrt`, one name after the other: () is
    the value itself, ("w",) the Jacobian, ("w", "w") the Hessian. A line with `wrong` is printed
    in its source and wrong, for the reason given; the next line without is its correction.
    """

    latex: str
    function: Callable[..., Any]
    of: Callable[..., Any]
    wrt: tuple[str, ...]
    source: str = ""
    wrong: str | None = None
    decimals: int | None = None

    @property
    def target(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        """Lines with the same target are joined by equals signs."""
        return self.of, self.wrt


class Derivation:
    """A quantity to be differentiated, and the lines that lead to its derivative.

    `sample` names the inputs: a tuple is the shape of normal random numbers, a callable draws
    from a `numpy.random.Generator`, a list or dict is a tree of these, anything else a constant.
    `let` names what is computed of them, in order. Quantity, definitions and lines are functions
    whose parameters are these names, so a line reads as it stands on the page:

        Derivation("delta rule", loss, wrt="w", sample={"w": (3, 2), "x": (3,), "t": (2,)},
                   let={"y": lambda w, x: np.tanh(x @ w)}) \\
            .line(r"(y_o - t_o)(1 - y_o^2)\\,x_i",
                  lambda x, y, t: entries(lambda i, o: (y[o] - t[o]) * (1 - y[o]**2) * x[i], 3, 2))

    `source` is the document, a line's `source` the place in it; `claim` and `ends_in` (the
    operations that the last line runs, such as "dense.affine") serve the table of what is verified.
    """

    def __init__(
        self,
        name: str,
        quantity: Callable[..., Any],
        *,
        sample: Mapping[str, Any],
        wrt: str | tuple[str, ...] = (),
        let: Mapping[str, Callable[..., Any]] | None = None,
        source: str = "",
        claim: str = "",
        ends_in: tuple[str, ...] = (),
    ):
        self.name = name
        self.quantity = quantity
        self.sample = dict(sample)
        self.wrt = _names(wrt)
        self.let = dict(let or {})
        self.source = source
        self.claim = claim
        self.ends_in = ends_in
        self.lines: tuple[Line, ...] = ()

    def line(
        self,
        latex: str,
        function: Callable[..., Any],
        *,
        source: str = "",
        of: Callable[..., Any] | None = None,
        wrt: str | tuple[str, ...] | None = None,
        wrong: str | None = None,
        decimals: int | None = None,
    ) -> Self:
        """Add a line; returns the derivation, so that lines chain.

        A line is a claim about the quantity; one that starts with = goes on from the line before.
        of, wrt: what this line is a derivative of, and with respect to what, when it is not the
        quantity itself: an intermediate ν = ∂E/∂z is `of=` the rest of the network, `wrt="z"`.
        wrong: the line is an erratum, and must fail; say why.
        decimals: the line is a number printed to so many decimals.
        """
        about, names = self.quantity, self.wrt
        if of is not None or wrt is not None:
            about, names = of or self.quantity, _names(wrt or ())
        elif self.lines and latex.lstrip().startswith("="):
            about, names = self.lines[-1].target
        self.lines += (Line(latex, function, about, names, source, wrong, decimals),)
        return self

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """One set of inputs."""
        return {name: _draw(spec, rng) for name, spec in self.sample.items()}

    def symbols(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs and everything that `let` defines of them."""
        known = dict(inputs)
        for name, definition in self.let.items():
            known[name] = call(definition, known)
        return known

    def __repr__(self) -> str:
        return f"<derivation {self.name}: {len(self.lines)} lines>"


def call(function: Callable[..., Any], symbols: Mapping[str, Any]) -> Any:
    """The function of the symbols that its parameters name."""
    return function(**{name: symbols[name] for name in parameters(function, symbols)})


def parameters(function: Callable[..., Any], symbols: Mapping[str, Any]) -> list[str]:
    """The symbols that the function asks for; a name that is no symbol is an error."""
    wanted = []
    for p in inspect.signature(function).parameters.values():
        if p.name in symbols:
            wanted.append(p.name)
        elif p.default is p.empty:
            raise NameError(
                f"it asks for {p.name!r}, which is neither in sample nor in let; "
                f"there are: {', '.join(symbols)}"
            )
    return wanted


def entries(formula: Callable[..., Any], *sizes: int) -> np.ndarray:
    """The array whose entry at [i, j, …] is formula(i, j, …): an index formula as it is written."""
    indices = itertools.product(*map(range, sizes))
    return np.array([formula(*index) for index in indices], np.float64).reshape(sizes)


def _names(wrt: str | tuple[str, ...]) -> tuple[str, ...]:
    return (wrt,) if isinstance(wrt, str) else tuple(wrt)


def _draw(spec: Any, rng: np.random.Generator) -> Any:
    match spec:
        case tuple():
            return rng.standard_normal(spec)
        case list():
            return [_draw(part, rng) for part in spec]
        case dict():
            return {name: _draw(part, rng) for name, part in spec.items()}
        case _ if callable(spec):
            return spec(rng)
        case _:
            return np.asarray(spec)
