"""What is to be compared: a candidate and a reference as functions of flat lists of arrays.

Floating-point leaves of the arguments are the variables. Everything else (integers, booleans,
random keys, strings, functions) is held constant, as Python sees it.
"""

import concurrent.futures
import dataclasses
import functools
import inspect
import itertools
import os
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import jaxpr_as_fun

from handgrad.compare.interpret import Program, walk
from handgrad.compare.laboratory import tracing
from handgrad.compare.primitives import eps, of_its_own
from handgrad.compare.report import Diagnosis

Kind = Literal["function", "backward", "gradient"]
COTANGENTS = ("dy", "g", "grad", "grad_output", "dout", "cotangent", "ct", "upstream")


class Trouble(Exception):
    """Something is wrong before any number is compared; the message is for the user."""

    def __init__(self, message: str, error: BaseException | None = None):
        super().__init__(message)
        self.error = error
        self.diagnoses: tuple[Diagnosis, ...] = ()  # what would mend it


@dataclasses.dataclass(frozen=True)
class Variable:
    """One floating-point array among the arguments."""

    path: str  # "x", "params[0]['w']"
    argument: int
    value: Any  # float64 (or complex128) NumPy
    given: Any  # as the user gave it
    run: Any  # as the user's functions run with it

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self.given) if hasattr(self.given, "dtype") else self.value.dtype


_CALLS = {"function": "check", "backward": "check_backward", "gradient": "check_gradient"}


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
        self.candidate, self.reference, self.args = candidate, reference, args
        self.kind: Kind = kind
        self.traced: Any = None  # the reference's forward as a closed jaxpr
        self.beside: Sequence | None = None  # leaves of other arguments at which all is right
        for role, function in (("candidate", candidate), ("reference", reference)):
            if not callable(function):
                raise TypeError(
                    f"the {role} must be a function; it is {describe(function)}. "
                    f"Call {_CALLS[kind]}(candidate, reference, *args)"
                )
        self.names = argument_names(reference, len(args))
        one = isinstance(argnums, int)
        self.argnums = None if argnums is None else (argnums,) if one else tuple(argnums)
        for n in self.argnums or ():
            if not hasattr(n, "__index__"):
                raise TypeError(
                    f"argnums names the argument {n!r}; it takes numbers, counted from 0, such as "
                    "argnums=(0, 2)"
                )
            if not 0 <= n < len(args):
                raise ValueError(
                    f"argnums names argument {n}; there are {len(args)}, numbered from 0"
                )
        self.leaves, self.tree = jax.tree.flatten(args)
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(args)[0]]
        self.variables: list[Variable] = []
        self._places: list[int] = []
        for place, (path, leaf) in enumerate(zip(paths, self.leaves, strict=True)):
            if not is_inexact(leaf):
                continue
            number = path[0].idx
            name = self.names[number] + jax.tree_util.keystr(path[1:])
            leaf = self.leaves[place] = _accepted(leaf, name)
            value = np.asarray(leaf)
            wide = np.complex128 if value.dtype.kind == "c" else np.float64
            run = leaf if type(leaf) in (float, complex) else jnp.asarray(leaf)
            self.variables.append(Variable(name, number, value.astype(wide), leaf, run))
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
        self._hold_numbers(lambda v: self.argnums is not None and v.argument not in self.argnums)
        self.verified = [  # which variables the candidate differentiates; `select` may narrow it
            i
            for i, v in enumerate(self.variables)
            if self.argnums is None or v.argument in self.argnums
        ]
        if not self.verified:
            named = ", ".join(repr(self.names[n]) for n in self.argnums or ())
            raise Trouble(
                f"argnums names {named or 'no argument'}, which holds no floating-point array (an "
                "int, a bool or the like has no gradient); name the arguments that do"
            )
        self._examine_reference()

    def _hold_numbers(self, which: Callable[[Variable], bool]) -> None:
        """Let Python numbers such as eps be constants, as Python sees them, and no variables."""
        kept = [not (type(v.given) in (float, complex) and which(v)) for v in self.variables]
        if any(kept):
            self.variables = list(itertools.compress(self.variables, kept))
            self._places = list(itertools.compress(self._places, kept))

    @property
    def large(self) -> bool:
        """Whether one sample holds so many numbers that few samples tell as much as many."""
        return sum(v.value.size for v in self.variables) > 16_000

    @functools.cached_property
    def widened(self) -> frozenset:
        """The floats that are float64 in the laboratory: no narrower than the variables given.

        A function that asks for float32 while its inputs are float32 or less loses nothing. What
        is narrower than the run, and the reference asks for itself, is no part of the derivation
        either: whether both lose the same digits there, accuracy tells.
        """
        eps = max(float(jnp.finfo(v.dtype).eps) for v in self.variables)
        run = max(float(jnp.finfo(jnp.result_type(v.run)).eps) for v in self.variables)
        asked = {getattr(v.aval, "dtype", None) for e in walk(self.traced.jaxpr) for v in e.outvars}
        return frozenset(
            np.dtype(d)
            for d in (jnp.float32, jnp.float16, jnp.bfloat16)
            if (e := float(jnp.finfo(d).eps)) <= eps or (e > run and np.dtype(d) in asked)
        )

    # --- the reference ---

    def _examine_reference(self) -> None:
        """Trace the forward once, in the user's own precision: what it is, and what it returns."""

        self._as_jax: dict[int, jax.Array] = {}

        def forward(*values):
            y = self.reference(*self.rebuild(values, self._as_jax))
            for leaf in jax.tree.leaves(y):
                if not isinstance(leaf, bool) and not is_number(leaf) and not _is_array(leaf):
                    raise Trouble(
                        f"the reference {name_of(self.reference)} returns {describe(y)}; it must "
                        f"return NumPy or JAX arrays, and a {type(leaf).__name__} is none"
                    )
            return y

        def trace() -> Any:
            with tracing():
                self.traced, shapes = jax.make_jaxpr(
                    lambda *values: forward(*values), return_shape=True
                )(*self.run_values)
            return shapes

        what = f"the reference {name_of(self.reference)}"
        try:
            try:
                try:
                    self.output = y = trace()
                except jax.errors.TracerArrayConversionError:  # labels indexed by what is traced
                    self._as_jax = {
                        place: jnp.asarray(leaf)
                        for place, leaf in enumerate(self.leaves)
                        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "iub"
                    }
                    self.output = y = trace()
            except jax.errors.JAXTypeError:  # it may branch on a number
                before = len(self.variables)
                self._hold_numbers(lambda v: self.argnums is None)
                if len(self.variables) == before:
                    raise
                self.verified = list(range(len(self.variables)))
                self.output = y = trace()
        except Trouble:
            raise
        except Exception as error:
            if not isinstance(error, jax.errors.JAXTypeError) and not _for_tensors(error):
                if self._swapped():
                    error.args = (
                        f"{error}; the derivation comes first and the function second: "
                        "check_backward(backward, function, *args)",
                    )
                raise Trouble(f"{what} raised", error) from error
            raise Trouble(
                f"{what} cannot be traced by JAX, so it has no autodiff ({summary(error)}); write "
                "it with jax.numpy, and with jnp.where or lax.cond for what depends on values"
            ) from error
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
        y = jax.tree.leaves(self.reference(*self.rebuild(values, self._as_jax)))
        return [jnp.asarray(y[i]) for i in self.inexact_outputs]

    def reference_row(self, *values: Any) -> list:
        """(*variables, *cotangents) -> outputs and the cotangents of the variables, by autodiff."""
        n = len(self.variables)
        y, pull = jax.vjp(self.forward, *values[:n])
        return [*y, *pull(_like(values[n:], y))]

    def reference_gradients(self, *values: Any) -> list:
        """The cotangents of the variables alone, by autodiff: less to compile."""
        return self.reference_row(*values)[len(self.cotangent_shapes) :]

    # --- the candidate ---

    def candidate_row(self, *values: Any) -> list:
        """(*variables, *cotangents) -> [outputs and] the cotangents of the variables, by hand."""
        n = len(self.variables)
        values, dys = values[:n], values[n:]
        if self.kind == "function":
            y, pull = jax.vjp(self.candidate_forward, *values)
            cotangents = pull(_like(dys, y))
            return [*y, *(cotangents[i] for i in self.verified)]
        args = self.rebuild(values)
        if self.kind == "backward":
            args = *args, self.cotangent(dys)
        try:
            result = self.candidate(*args)
        except (TypeError, ValueError, AttributeError) as error:
            traced = any(isinstance(v, Tracer) for v in values)
            if not traced:  # what cannot be traced is called again, with numbers
                hint = self._call(args) or self._order() or self._structure_of_dy()
                if hint and error.args and hint not in str(error):  # the user's own says more
                    first, *rest = str(error).splitlines() or [""]
                    error.args = ("\n".join([f"{first}; {hint}", *rest]),)
            raise
        return self.select(result)

    def candidate_by_rules(self, *values: Any) -> list:
        """As `candidate_row` for a custom_vjp, whose rules are called as they stand."""
        n = len(self.variables)
        rule: Any = self.candidate
        args = self.rebuild(values[:n])
        y, residuals = rule.fwd(*args)
        held = rule.nondiff_argnums
        given = iter(rule.bwd(*(args[k] for k in held), residuals, self.cotangent(values[n:])))
        y = jax.tree.leaves(y)
        cotangents = tuple(None if k in held else next(given) for k in range(len(args)))
        return [*(y[i] for i in self.inexact_outputs), *self.select(cotangents)]

    def _call(self, args: tuple) -> str:
        """A hint where the candidate does not take so many arguments."""
        if _takes(self.candidate, len(args)) is not False:
            return ""
        due = ", ".join([*self.names, *["dy"] * (self.kind == "backward")])
        return f"a {self.kind} is called as f({due})"

    def _swapped(self) -> bool:
        """Whether the reference takes a cotangent, and the backward none."""
        n = len(self.args)
        takes = [_takes(f, k) for f in (self.candidate, self.reference) for k in (n, n + 1)]
        return self.kind == "backward" and takes[:2] != [False, True] and takes[2:] == [False, True]

    def _order(self) -> str:
        """A hint where the cotangent is taken first."""
        if self.kind != "backward":
            return ""
        name = argument_names(self.candidate, 1)[0]
        if name not in COTANGENTS or name == self.names[0]:
            return ""
        due = ", ".join([*self.names, name])
        return f"its first parameter is {name}, and a backward is called as f({due}): {name} last"

    def _structure_of_dy(self) -> str:
        """A hint where dy is no array."""
        if self.kind != "backward" or isinstance(self.output, jax.ShapeDtypeStruct):
            return ""
        return f"dy is {outline(self.output)}, as the reference's output is"

    def candidate_forward(self, *values: Any) -> list:
        """The floating-point outputs of the candidate, a function."""
        result = self.candidate(*self.rebuild(values))
        y, tree = jax.tree.flatten(result)
        if tree != self.output_tree:
            raise Trouble(
                f"{name_of(self.candidate)} returns {outline(result)}; the reference returns "
                f"{outline(self.output)}: return the same structure"
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
            cotangent = _array_of(cotangent, self.args[number])
            leaves, tree = jax.tree.flatten(cotangent, is_leaf=lambda leaf: leaf is None)
            full = jax.tree.flatten(self.args[number], is_leaf=lambda leaf: leaf is None)
            if cotangent is None and all(type(self.variables[i].given) is float for i in wanted):
                continue  # a Python number such as eps: a constant to the derivation
            if tree != full[1]:
                if cotangent is None:
                    self._none(self.names[number], self.variables[wanted[0]])
                listed = isinstance(self.args[number], list) and hasattr(cotangent, "shape")
                hint = ": is the argument meant to be an array? Pass np.array(…)" if listed else ""
                if not hint and isinstance(cotangent, tuple) and (of := self._structure_of_dy()):
                    hint = f": {of}"
                hint = hint or self._with_the_loss(result)
                raise Trouble(
                    f"the {self.word} of {self.names[number]!r} is {outline(cotangent)}; it must "
                    f"have the structure of the argument, {outline(self.args[number])}{hint}"
                )
            order = iter(wanted)
            for leaf, given in zip(leaves, full[0], strict=True):
                if given is None or not is_inexact(given):
                    continue
                i = next(order)
                if leaf is None:
                    self._none(self.variables[i].path, self.variables[i])
                if not is_inexact(leaf) and not is_number(leaf):
                    v = self.variables[i]
                    raise Trouble(
                        f"the {self.word} of {v.path!r} is {describe(leaf)}; it must be a "
                        f"floating-point array of NumPy or JAX, of shape {list(v.shape)}"
                    )
                chosen[i] = leaf
        self.verified = [i for i, c in enumerate(chosen) if c is not None]
        return [chosen[i] for i in self.verified]

    def _none(self, path: str, v: Variable) -> None:
        raise Trouble(
            f"the {self.word} of {path!r} is None, where an array of shape {list(v.shape)} is due; "
            f"return the array, or, if {self.names[v.argument]!r} is not to be differentiated, say "
            f"which arguments are with argnums=(...)"
        )

    def _per_argument(self, result: Any) -> dict[int, Any]:
        """Argument number -> cotangent."""
        n = len(self.args)
        what = name_of(self.candidate)
        everything = range(n) if self.argnums is None else self.argnums
        listed = isinstance(result, tuple | list)
        alone = listed and self._is_alone(result, everything)
        if listed and not alone and len(result) in (len(everything), n):
            given = everything if len(result) == len(everything) else range(n)
            return dict(zip(given, result, strict=True))
        if isinstance(result, dict) and (named := self._by_name(result)):
            return named
        if len(everything) == 1:  # a bare array or tree
            self._too_many(result, everything[0])
            return {everything[0]: result}
        floats = sorted({v.argument for v in self.variables})
        if (self.kind == "gradient" and not isinstance(result, tuple | list)) or (
            self.kind == "gradient"
            and jax.tree.structure(result) == jax.tree.structure(self.args[floats[0]])
        ):
            return {floats[0]: result}  # jax.grad's own default: the first argument alone
        own = {v.argument for v in self.variables if type(v.given) is float}
        for due in (floats, [i for i in floats if i not in own]):  # without None for the others
            alike = [jax.tree.structure(self.args[i]) for i in due]
            several = result if listed else [result]
            if self.argnums is None and [*map(jax.tree.structure, several)] == alike:
                return dict(zip(due, several, strict=True))
        order = ", ".join(self.names[i] for i in everything)
        came = (
            f"{len(result)} {self.word}{'s' * (len(result) != 1)}"
            if isinstance(result, tuple | list)
            else describe(result)
        )
        raise Trouble(
            f"{what} returned {came}; it must return a tuple of {len(everything)}, one {self.word} "
            f"for each argument in order: {order} (None for integer arguments), or argnums= must "
            f"say of which arguments they are{self._with_the_loss(result)}"
        )

    def _is_alone(self, result: tuple | list, everything: Sequence[int]) -> bool:
        """Whether it is the cotangent of one argument, itself a list or a tuple."""
        form = jax.tree.structure
        if len(everything) == 1:
            return form(result) == form(self.args[everything[0]])
        first = min(v.argument for v in self.variables)
        if self.kind != "gradient" or form(result) != form(self.args[first]):
            return False
        pairs = zip(result, self.args, strict=False)
        one_of_each = all(r is None or form(r) == form(a) for r, a in pairs)
        return self.argnums is None and not (len(result) == len(self.args) and one_of_each)

    def _too_many(self, result: Any, number: int) -> None:
        """Several cotangents for an array."""
        several = self.kind == "backward" and isinstance(result, tuple) and len(result) > 1
        arrays = (*result, self.args[number]) if several else ()
        if arrays and all(_is_array(a) for a in arrays) and not self._structure_of_dy():
            name = self.names[number]
            named = "" if self.argnums is None else " that argnums names"
            raise Trouble(
                f"{name_of(self.candidate)} returned {len(result)} cotangents for the 1 argument"
                f"{named}, {name!r}; return one cotangent for each argument, in a tuple of 1"
            )

    @property
    def word(self) -> str:
        return "gradient" if self.kind == "gradient" else "cotangent"

    def _with_the_loss(self, result: Any) -> str:
        """A hint for those who return both, as `jax.value_and_grad` does."""
        match result:
            case (loss, tuple() | list() | dict()) if self.kind == "gradient" and not np.ndim(loss):
                return ": the loss and its gradients? Return the gradients alone"
        return ""

    def _by_name(self, result: dict) -> dict[int, Any] | None:
        """Of a dictionary with the arguments' names as keys, or these after a d: {"dw": …}."""
        if any(isinstance(arg, dict) and set(arg) == set(result) for arg in self.args):
            return None
        numbers = {name: i for i, name in enumerate(self.names)}
        numbers = {"d" + name: i for name, i in numbers.items()} | numbers
        if not result or not all(key in numbers for key in result):
            return None
        named = {numbers[key]: value for key, value in result.items()}
        due = self.argnums or sorted({v.argument for v in self.variables})
        lacking = [self.names[i] for i in due if i not in named]
        if lacking:
            raise Trouble(
                f"{name_of(self.candidate)} returned a dict without {', '.join(lacking)}; it must "
                f"have a cotangent for each argument, or be a tuple of {len(self.args)} of them in "
                "order, or argnums= must say of which arguments they are"
            )
        return named

    # --- arguments ---

    @property
    def run_values(self) -> list:
        """The variables as the user's functions run with them."""
        return [v.run for v in self.variables]

    def values(self) -> list[np.ndarray]:
        """The variables in float64, as given."""
        return [v.value for v in self.variables]

    def signature(self) -> tuple:
        """Shapes and dtypes of the variables and the value of every constant."""
        constants = tuple(
            _content(leaf) for place, leaf in enumerate(self.leaves) if place not in self._places
        )
        return tuple((v.shape, str(v.dtype)) for v in self.variables), constants

    def rebuild(self, values: Sequence, instead: Mapping[int, Any] | None = None) -> tuple:
        """The arguments with these values of the variables, and other leaves instead of some."""
        leaves = [leaf.copy() if isinstance(leaf, np.ndarray) else leaf for leaf in self.leaves]
        for place, leaf in (instead or {}).items():
            leaves[place] = leaf
        for place, value in zip(self._places, values, strict=True):
            leaves[place] = value
        return jax.tree.unflatten(self.tree, leaves)


def _array_of(cotangent: Any, argument: Any) -> Any:
    """A list of numbers for an array, as a loop over its entries makes one."""
    numbers = (
        isinstance(cotangent, list)
        and _is_array(argument)
        and argument.shape[:1] == (len(cotangent),)
    )
    if not numbers or not all(is_inexact(c) and np.shape(c) == () for c in cotangent):
        return cotangent
    return (jnp if any(isinstance(c, jax.Array) for c in cotangent) else np).stack(cotangent)


class Row:
    """One of the two sides as a function of flat float64 arrays: (*variables, *cotangents).

    Evaluated batched (traced under vmap) where that can be; else traced and called row by row;
    else, a function that JAX cannot trace (NumPy, branches on values), called as Python.
    """

    def __init__(
        self, function: Callable, like: Sequence[np.ndarray], widened: Iterable = (), rows: int = 16
    ):
        self.function, self.like = function, list(like)
        self.fingerprint: Any = None
        self.numerical: Any = None
        self.plain: Program | None = None  # of the candidate, called without its derivative
        self.composes = False  # found to agree under vmap and inside a larger function
        self.forward: Program | None = None  # of the reference, traced without its derivative
        self.untraceable: str | None = None
        self.unbatchable: str | None = None
        try:
            self.single = Program(function, *self.like, widened=widened)
        except Trouble:
            raise
        except Exception as error:
            self.untraceable = self.unbatchable = summary(error)
            self.shapes = [np.shape(o) for o in self._called(self.like, error)]
            return
        self.shapes = [tuple(v.aval.shape) for v in self.single.jaxpr.jaxpr.outvars]
        try:
            self.batched = Batched(self.single, self.like, rows)
        except Exception as error:
            self.unbatchable = summary(error)

    def as_arrays(self, values: Sequence[np.ndarray]) -> tuple[list, list[int]]:
        """What plain Python makes of NumPy arrays, and which of these it has changed itself."""
        given = [v.copy() for v in values]
        with np.errstate(all="ignore"):
            results = [np.array(o) for o in self.function(*given)]
        pairs = enumerate(zip(given, values, strict=True))
        return results, [i for i, (g, v) in pairs if not np.array_equal(g, v, equal_nan=True)]

    def _called(self, values: Sequence[np.ndarray], traced: BaseException | None = None) -> list:
        try:
            return self.as_arrays(values)[0]
        except Trouble:
            raise
        except Exception as error:
            raise Trouble("raised", error) from traced

    @property
    def calls_back(self) -> bool:
        """Whether Python is called from inside: what it does cannot be seen."""
        return any("callback" in eqn.primitive.name for eqn in self.single.equations())

    @functools.cached_property
    def foreign(self) -> str:
        """The narrow float that a kernel or Python returns which is called from inside, or ''."""
        equations = [] if self.untraceable else self.single.equations()
        narrow = [dtype for eqn in equations if (dtype := of_its_own(eqn)) is not None]
        return str(max(narrow, key=eps, default=""))

    @functools.cached_property
    def narrow(self) -> bool:
        """Whether a float64 computation passes through a narrower float; unknown is yes."""
        return self.untraceable is not None or self.single.narrow() > 0

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
    """A traced function of rows, under vmap for a fixed number of them.

    No more than fit a processor's cache: small arrays again and again are faster than large ones.
    Of what is scanned along, only a step has to fit.
    """

    def __init__(self, single: Program, like: Sequence[np.ndarray], rows: int):
        steps = max((e.params.get("length", 1) for e in single.equations()), default=1)
        most = min(16, max(1, 40_000 * min(steps, 50) // max(1, sum(x.size for x in like))))
        self.size = -(-rows // -(-rows // most))
        stacked = [np.broadcast_to(x, (self.size, *x.shape)) for x in like]
        function = jax.vmap(jaxpr_as_fun(single.jaxpr))  # cheaper than the function traced again
        self.program = Program(function, *stacked, widened=single.widened, single=single.single)

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


def _like(dys: Sequence, outputs: Sequence) -> list:
    """The cotangents in the dtypes of the outputs they belong to."""
    return [jnp.asarray(dy, y.dtype) for dy, y in zip(dys, outputs, strict=True)]


def _accepted(leaf: Any, name: str) -> Any:
    """A floating-point argument as JAX takes it."""
    if not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    if isinstance(leaf, np.ma.MaskedArray):
        raise Trouble(
            f"the argument {name!r} is a masked array, which JAX does not take; "
            "give .filled(value), and the mask as an argument of its own"
        )
    if leaf.dtype.itemsize > (16 if leaf.dtype.kind == "c" else 8):
        raise Trouble(
            f"the argument {name!r} is {leaf.dtype}, which JAX does not have; "
            "give .astype(np.float64)"
        )
    return leaf.astype(leaf.dtype.newbyteorder("="), copy=False)


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


def _takes(function: Callable, n: int) -> bool | None:
    """Whether it can be called with so many arguments; a builtin does not tell."""
    try:
        inspect.signature(function).bind(*[None] * n)
    except TypeError:
        return False
    except ValueError:
        return None
    return True


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
        _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.number)
    )


def _is_array(leaf: Any) -> bool:
    """Of NumPy or JAX: what torch calls a dtype, NumPy does not know."""
    return hasattr(getattr(leaf, "dtype", None), "kind") or isinstance(leaf, jax.Array)


def _for_tensors(error: BaseException) -> bool:
    """Whether another library was given what JAX traces with: torch, which takes its own tensors.

    A misspelt attribute, say, is the user's mistake, and no sign of that.
    """
    text = str(error)
    return "Tracer" in text and ("must be Tensor" in text or "__dlpack" in text)


def describe(value: Any) -> str:
    """`float32[3, 4]`, `None`, `a list of 2`, `'text'`."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    if value is None or isinstance(value, str | int | float | complex):
        return repr(value)
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def outline(value: Any) -> str:
    """`describe`, and what a tuple, list or dictionary holds."""
    match value:
        case dict():
            inside = ", ".join(f"{k!r}: {outline(v)}" for k, v in value.items())
        case tuple() | list():
            inside = ", ".join(map(outline, value))
        case _:
            return describe(value)
    inside = inside if len(inside) <= 120 else inside[:119] + "…"
    return f"{describe(value)} ({inside})" if inside else describe(value)


def first(where: np.ndarray) -> str:
    """The index of the first True, as text."""
    index = np.unravel_index(int(np.argmax(where)), where.shape)
    return str([int(i) for i in index])


def user_traceback(error: BaseException) -> str:
    """The traceback without the frames of JAX, of threads, and of this package."""
    others = tuple(
        os.path.dirname(os.path.abspath(str(file)))
        for file in (__file__, jax.__file__, concurrent.futures.__file__)
    )
    told = traceback.TracebackException.from_exception(error)
    told.stack[:] = [f for f in told.stack if not f.filename.startswith(others)]
    told.__cause__ = told.__context__ = None
    told.__notes__ = None
    return "".join(told.format())
