"""What is to be compared: a candidate and a reference as functions of flat lists of arrays.

Floating-point leaves of the arguments are the variables. Everything else (integers, booleans,
random keys, strings, functions) is held constant, as Python sees it.
"""

import dataclasses
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.compare.interpret import Program

Kind = Literal["function", "backward", "gradient"]


class Trouble(Exception):
    """Something is wrong before any number is compared; the message is for the user."""

    def __init__(self, message: str, error: BaseException | None = None):
        super().__init__(message)
        self.error = error


@dataclasses.dataclass(frozen=True)
class Variable:
    """One floating-point array among the arguments."""

    path: str  # "x", "params[0]['w']"
    argument: int
    value: Any  # float64 (or complex128) NumPy
    given: Any  # as the user gave it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self.given) if hasattr(self.given, "dtype") else self.value.dtype


class Problem:
    """A candidate derivation, the reference function and one set of arguments."""

    def __init__(
        self,
        candidate: Callable,
        reference: Callable,
        args: tuple,
        kind: Kind,
        argnums: Sequence[int] | None = None,
    ):
        self.candidate, self.reference, self.kind, self.args = candidate, reference, kind, args
        for role, function in (("candidate", candidate), ("reference", reference)):
            if not callable(function):
                raise TypeError(
                    f"the {role} must be a function; it is {describe(function)}. "
                    f"Call check(candidate, reference, *args)"
                )
        self.names = argument_names(reference, len(args))
        self.leaves, self.tree = jax.tree.flatten(args)
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(args)[0]]
        self.variables: list[Variable] = []
        self._places: list[int] = []
        for place, (path, leaf) in enumerate(zip(paths, self.leaves, strict=True)):
            if not is_inexact(leaf):
                continue
            number = path[0].idx
            value = np.asarray(leaf)
            wide = np.complex128 if value.dtype.kind == "c" else np.float64
            name = self.names[number] + jax.tree_util.keystr(path[1:])
            self.variables.append(Variable(name, number, value.astype(wide), leaf))
            self._places.append(place)
        if not self.variables:
            given = ", ".join(describe(a) for a in args) or "none at all"
            raise Trouble(
                f"no argument is a floating-point array, so there is no gradient to check "
                f"(the arguments are: {given}); give float inputs, such as np.ones(3)"
            )
        for v in self.variables:
            if np.isnan(v.value).any():
                raise Trouble(
                    f"the input {v.path!r} has nan at {first(np.isnan(v.value))}: "
                    "give inputs at which the function is defined"
                )
        one = isinstance(argnums, int)
        self.argnums = None if argnums is None else (argnums,) if one else tuple(argnums)
        for n in self.argnums or ():
            if not 0 <= n < len(args):
                raise ValueError(
                    f"argnums names argument {n}; there are {len(args)}, numbered from 0"
                )
        self.verified = [  # which variables the candidate differentiates; `select` may narrow it
            i
            for i, v in enumerate(self.variables)
            if self.argnums is None or v.argument in self.argnums
        ]
        self._examine_reference()

    # --- the reference ---

    def _examine_reference(self) -> None:
        """Trace the forward once, in the user's own precision: the structure of its output."""

        def forward(*values):
            return self.reference(*self.rebuild(values))

        self.run_values = [
            v.given if type(v.given) in (float, complex) else jnp.asarray(v.given)
            for v in self.variables
        ]
        try:
            y = jax.eval_shape(forward, *self.run_values)
        except Exception as error:
            raise Trouble(f"the reference {name_of(self.reference)} raised", error) from error
        leaves, self.output_tree = jax.tree.flatten(y)
        self.output_shapes = [(leaf.shape, leaf.dtype) for leaf in leaves]
        self.inexact_outputs = [
            i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.inexact)
        ]
        if not self.inexact_outputs:
            came = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves) or "nothing"
            raise Trouble(
                f"the reference {name_of(self.reference)} returns no floating-point array "
                f"(it returns {came}), so it has no gradient"
            )
        if self.kind == "gradient" and [shape for shape, _ in self.output_shapes] != [()]:
            came = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
            raise Trouble(
                f"the loss {name_of(self.reference)} must return one scalar; it returns {came}. "
                "For a function with an array output use check_backward(backward, reference, *args)"
            )
        self.cotangent_shapes = [self.output_shapes[i][0] for i in self.inexact_outputs]
        self.cotangent_dtypes = [self.output_shapes[i][1] for i in self.inexact_outputs]

    def forward(self, *values: Any) -> list:
        """The floating-point outputs of the reference."""
        y = jax.tree.leaves(self.reference(*self.rebuild(values)))
        return [jnp.asarray(y[i]) for i in self.inexact_outputs]

    def reference_row(self, *values: Any) -> list:
        """(*variables, *cotangents) -> outputs and the cotangents of the variables, by autodiff."""
        n = len(self.variables)
        y, pull = jax.vjp(self.forward, *values[:n])
        return [*y, *pull(list(values[n:]))]

    # --- the candidate ---

    def candidate_row(self, *values: Any) -> list:
        """(*variables, *cotangents) -> [outputs and] the cotangents of the variables, by hand."""
        n = len(self.variables)
        values, dys = values[:n], values[n:]
        if self.kind == "function":
            y, pull = jax.vjp(self._candidate_forward, *values)
            cotangents = pull(list(dys))
            return [*y, *(cotangents[i] for i in self.verified)]
        args = self.rebuild(values)
        result = (
            self.candidate(*args, self.cotangent(dys))
            if self.kind == "backward"
            else self.candidate(*args)
        )
        return self.select(result)

    def _candidate_forward(self, *values: Any) -> list:
        y, tree = jax.tree.flatten(self.candidate(*self.rebuild(values)))
        if tree != self.output_tree:
            raise Trouble(
                f"{name_of(self.candidate)} returns the structure {tree}; the reference returns "
                f"{self.output_tree}: return the same"
            )
        for i, (leaf, (shape, dtype)) in enumerate(zip(y, self.output_shapes, strict=True)):
            where = "" if len(y) == 1 else f" (part {i} of the output)"
            if jnp.shape(leaf) != shape:
                raise Trouble(
                    f"{name_of(self.candidate)} returns the shape {list(jnp.shape(leaf))}{where}; "
                    f"the reference returns {list(shape)}"
                )
            if jnp.issubdtype(dtype, jnp.inexact) != jnp.issubdtype(
                jnp.result_type(leaf), jnp.inexact
            ):
                raise Trouble(
                    f"{name_of(self.candidate)} returns {jnp.result_type(leaf)}{where}; "
                    f"the reference returns {dtype}"
                )
        return [jnp.asarray(y[i]) for i in self.inexact_outputs]

    def cotangent(self, dys: Sequence) -> Any:
        """The cotangent of the whole output; integer outputs get zeros without a dtype."""
        leaves: list[Any] = [np.zeros(s, jax.dtypes.float0) for s, _ in self.output_shapes]
        for i, dy in zip(self.inexact_outputs, dys, strict=True):
            leaves[i] = dy
        return jax.tree.unflatten(self.output_tree, leaves)

    def select(self, result: Any) -> list:
        """The cotangents of the variables out of what a hand-written backward returned."""
        chosen: list[Any] = [None] * len(self.variables)
        for number, cotangent in self._per_argument(result).items():
            wanted = [i for i, v in enumerate(self.variables) if v.argument == number]
            if not wanted or (self.argnums is not None and number not in self.argnums):
                continue
            structure = jax.tree.structure(self.args[number])
            leaves, tree = jax.tree.flatten(cotangent, is_leaf=lambda leaf: leaf is None)
            full = jax.tree.flatten(self.args[number], is_leaf=lambda leaf: leaf is None)
            if cotangent is None and all(type(self.variables[i].given) is float for i in wanted):
                continue  # a Python number such as eps: a constant to the derivation
            if tree != full[1]:
                if cotangent is None:
                    self._none(self.names[number], self.variables[wanted[0]])
                raise Trouble(
                    f"the cotangent of {self.names[number]!r} is {describe(cotangent)}; it must "
                    f"have the structure of the argument, {structure}"
                )
            order = iter(wanted)
            for leaf, given in zip(leaves, full[0], strict=True):
                if given is None or not is_inexact(given):
                    continue
                i = next(order)
                if leaf is None:
                    self._none(self.variables[i].path, self.variables[i])
                if not is_inexact(leaf) and not is_number(leaf):
                    raise Trouble(
                        f"the cotangent of {self.variables[i].path!r} is {describe(leaf)}; it must "
                        f"be a floating-point array of shape {list(self.variables[i].shape)}"
                    )
                chosen[i] = leaf
        self.verified = [i for i, c in enumerate(chosen) if c is not None]
        return [chosen[i] for i in self.verified]

    def _none(self, path: str, v: Variable) -> None:
        raise Trouble(
            f"the cotangent of {path!r} is None, where an array of shape {list(v.shape)} is due; "
            f"return the array, or, if {self.names[v.argument]!r} is not to be differentiated, say "
            f"which arguments are with argnums=(...)"
        )

    def _per_argument(self, result: Any) -> dict[int, Any]:
        """Argument number -> cotangent."""
        n = len(self.args)
        what = name_of(self.candidate)
        everything = range(n) if self.argnums is None else self.argnums
        if (
            isinstance(result, tuple | list)
            and len(result) == n
            and not (n == 1 and jax.tree.structure(result) == jax.tree.structure(self.args[0]))
        ):
            return dict(enumerate(result))
        if (
            isinstance(result, tuple | list)
            and len(result) == len(everything)
            and self.argnums is not None
        ):
            return dict(zip(everything, result, strict=True))
        if len(everything) == 1:  # a bare array or tree
            return {everything[0]: result}
        floats = sorted({v.argument for v in self.variables})
        if (self.kind == "gradient" and not isinstance(result, tuple | list)) or (
            self.kind == "gradient"
            and jax.tree.structure(result) == jax.tree.structure(self.args[floats[0]])
        ):
            return {floats[0]: result}  # jax.grad's own default: the first argument alone
        order = ", ".join(self.names[i] for i in everything)
        came = (
            f"{len(result)} cotangent{'s' * (len(result) != 1)}"
            if isinstance(result, tuple | list)
            else describe(result)
        )
        raise Trouble(
            f"{what} returned {came}; it must return a tuple of {len(everything)}, one cotangent "
            f"for each argument in order: {order} (None for integer arguments)"
        )

    # --- arguments ---

    def values(self) -> list[np.ndarray]:
        """The variables in float64, as given."""
        return [v.value for v in self.variables]

    def signature(self) -> tuple:
        """Shapes and dtypes of the variables and the value of every constant."""
        constants = tuple(
            _content(leaf) for place, leaf in enumerate(self.leaves) if place not in self._places
        )
        return tuple((v.shape, str(v.dtype)) for v in self.variables), constants

    def rounded_values(self) -> list[np.ndarray]:
        """The variables in float64, as the run's dtype rounds them."""
        return [
            np.asarray(r).astype(v.value.dtype)
            for r, v in zip(self.run_values, self.variables, strict=True)
        ]

    def rebuild(self, values: Sequence) -> tuple:
        """The arguments with these values of the variables."""
        leaves = [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in self.leaves]
        for place, value in zip(self._places, values, strict=True):
            leaves[place] = value
        return jax.tree.unflatten(self.tree, leaves)


class Row:
    """One of the two sides as a function of flat float64 arrays: (*variables, *cotangents).

    Evaluated batched (traced under vmap) where that can be; else traced and called row by row;
    else, a function that JAX cannot trace (NumPy, branches on values), called as Python.
    """

    def __init__(self, function: Callable, like: Sequence[np.ndarray]):
        self.function, self.like = function, list(like)
        self.fingerprint: Any = None
        self.numerical: Any = None
        self.untraceable: str | None = None
        self.unbatchable: str | None = None
        try:
            self.single = Program(function, *self.like)
        except Trouble:
            raise
        except Exception as error:
            self.untraceable = self.unbatchable = summary(error)
            self.shapes = [np.shape(o) for o in self._called(self.like, error)]
            return
        self.shapes = [tuple(v.aval.shape) for v in self.single.jaxpr.jaxpr.outvars]
        try:
            self.batched = Batched(function, self.like)
        except Exception as error:
            self.unbatchable = summary(error)

    def _called(self, values: Sequence[np.ndarray], traced: BaseException | None = None) -> list:
        try:
            return [np.asarray(o) for o in self.function(*[v.copy() for v in values])]
        except Trouble:
            raise
        except Exception as error:
            raise Trouble("raised", error) from traced

    def rows(
        self, columns: Sequence[np.ndarray], noise: Callable[[int], Any] | None = None
    ) -> list[np.ndarray]:
        """Evaluate row by row; every array has a leading axis for the rows.

        noise(n) gives the `after=` for a batch of n rows.
        """
        if self.unbatchable is None:
            return self.batched(columns, noise)
        outs = [
            self.one([c[r] for c in columns], None if noise is None else noise(1))
            for r in range(len(columns[0]))
        ]
        return [np.stack(out) for out in zip(*outs, strict=True)]

    def one(self, values: Sequence[np.ndarray], after: Any = None) -> list[np.ndarray]:
        """Evaluate one row, without vmap."""
        if self.untraceable is None:
            return self.single(*values, after=after)
        with np.errstate(all="ignore"):
            return self._called(values)


def summary(error: BaseException) -> str:
    """The first line of an error's message."""
    return f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"


class Batched:
    """A function of rows, traced once under vmap for a fixed number of them."""

    def __init__(self, function: Callable, like: Sequence[np.ndarray]):
        self.size = int(min(16, max(1, 1_000_000 // max(1, sum(x.size for x in like)))))
        stacked = [np.broadcast_to(x, (self.size, *x.shape)) for x in like]
        self.program = Program(jax.vmap(function), *stacked)

    def __call__(
        self, columns: Sequence[np.ndarray], noise: Callable[[int], Any] | None = None
    ) -> list[np.ndarray]:
        """Evaluate any number of rows, `size` at a time; the last batch is filled up."""
        rows, parts = len(columns[0]), []
        for start in range(0, rows, self.size):
            part = [c[start : start + self.size] for c in columns]
            missing = self.size - len(part[0])
            if missing:
                part = [np.concatenate([p, np.repeat(p[-1:], missing, 0)]) for p in part]
            results = self.program(*part, after=None if noise is None else noise(self.size))
            parts.append([y[: self.size - missing] for y in results])
        return [np.concatenate(part) for part in zip(*parts, strict=True)]


# --- words ---------------------------------------------------------------------------------------


def name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


def argument_names(function: Callable, n: int) -> list[str]:
    """The parameter names of a function; `argument 2` where it does not say."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][
        :n
    ]
    return names + [f"argument {i}" for i in range(len(names), n)]


def _content(leaf: Any) -> Any:
    """A hashable value for a constant argument."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        return np.shape(leaf), str(leaf.dtype), np.asarray(leaf).tobytes()
    return repr(leaf)


def is_inexact(leaf: Any) -> bool:
    if isinstance(leaf, float | complex):
        return True
    dtype = getattr(leaf, "dtype", None)
    return (
        dtype is not None
        and getattr(dtype, "kind", "O") != "O"
        and jnp.issubdtype(dtype, jnp.inexact)
    )


def is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float | complex | np.number) or (
        getattr(leaf, "dtype", None) is not None and jnp.issubdtype(leaf.dtype, jnp.number)
    )


def describe(value: Any) -> str:
    """`float32[3, 4]`, `None`, `a list of 2`, `'text'`."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    if value is None or isinstance(value, str | int | float | complex):
        return repr(value)
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def first(where: np.ndarray) -> str:
    """The index of the first True, as text."""
    index = np.unravel_index(int(np.argmax(where)), where.shape)
    return str([int(i) for i in index])


def user_traceback(error: BaseException) -> str:
    """The traceback without the frames of JAX and of this package."""
    ours = os.path.dirname(os.path.abspath(__file__))
    jax_home = os.path.dirname(os.path.abspath(str(jax.__file__)))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((ours, jax_home))]
    lines = traceback.format_list(theirs)
    return "".join(
        ["Traceback (most recent call last):\n", *lines, f"{type(error).__name__}: {error}\n"]
    )
