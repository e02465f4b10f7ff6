"""`op`: one differentiable JAX function out of a forward and a backward written by hand."""

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, Generic, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from handgrad.manual.layout import as_laid_out, layout_of, settled
from handgrad.manual.mesh import axes_of, fitted, spread
from handgrad.manual.shapes import as_float, number

P = ParamSpec("P")


class Op(Generic[P]):
    """A function with a hand-written derivative; make one with `op`.

    Called, it is an ordinary JAX function of its positional arguments, usable under `jit`,
    `vmap`, `grad`, `jax.checkpoint` and again under `grad` (the backward is plain JAX code).
    It is a function of real numbers: complex ones are refused, with a TypeError.
    Like every `jax.custom_vjp` it has a reverse-mode rule only: `jax.jvp` raises, while
    forward-over-reverse (`jax.hessian`, `jax.jvp` of `jax.grad`) works.

    `forward(*args, **config)` returns (output, residuals), `pullback(residuals, dy, **config)`
    the cotangents, one for each positional argument: both are the plain hand-written code, out
    of which a larger backward can be written by hand.
    """

    __name__: str
    __qualname__: str

    def __init__(self, forward: Callable[P, Any]):
        functools.update_wrapper(self, forward)

        @functools.wraps(forward)
        def checked(*args: P.args, **config: P.kwargs) -> Any:
            return self._sound(args, forward(*args, **config))

        self.forward = checked
        self.signature = inspect.signature(forward)
        parameters = self.signature.parameters.values()
        for p in parameters:
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                raise TypeError(
                    f"op {self.__name__}: {p} is not possible, since every argument needs a name; "
                    "give each array its own positional argument, or one that is a list of arrays"
                )
        self.positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        self._keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        self._backward: Callable[..., tuple] | None = None
        self._wants: frozenset[str] = frozenset()
        self._call = jax.custom_vjp(self._primal, nondiff_argnums=(0, 1))
        self._call.defvjp(self._fwd, self._bwd)

    def backward(self, function: Callable[..., tuple]) -> Callable[..., tuple]:
        """Register `function(residuals, dy)` as the hand-written backward (a decorator).

        It may also take, by name, any keyword-only argument of the forward.
        """
        if self._backward is not None:
            raise TypeError(f"{self.__name__} already has a backward; an op has exactly one")
        wants = frozenset(
            p.name
            for p in inspect.signature(function).parameters.values()
            if p.kind is p.KEYWORD_ONLY
        )
        self._reject_unknown("the backward of " + self.__name__, wants)
        self._backward, self._wants = function, wants
        return function

    def pullback(self, residuals: Any, dy: Any, **config: Any) -> tuple:
        """The cotangents of the positional arguments, by the hand-written backward.

        dy: the cotangent of the output; of a scalar it may be a number. Give the keyword
        arguments that the forward was given.
        """
        if self._backward is None:
            raise TypeError(
                f"{self.__name__} has no backward yet: write one under @{self.__name__}.backward"
            )
        self._reject_unknown(f"{self.__name__}.pullback", config)
        known = self._keywords | config
        wanted = {name: known[name] for name in self._wants}
        for name, value in wanted.items():
            if value is inspect.Parameter.empty:
                raise TypeError(
                    f"{self.__name__}.pullback needs {name}=, as it was given to the forward"
                )
        if isinstance(dy, int | float):  # of a scalar, usually 1
            dy = jnp.asarray(float(dy))
        return self._backward(residuals, dy, **wanted)

    def value_and_gradient(self, *args: Any, **config: Any) -> tuple[Any, tuple]:
        """The scalar output and its gradient, by hand: one entry for each positional argument.

        The gradient has its argument's tree, shapes and dtypes; `None` where there is none.
        """
        bound = self._bind(args, config)
        options = self._options(bound.kwargs)
        primals = jax.tree.map(lambda a: a if _is_known(a) else jnp.asarray(a), bound.args)

        def by_hand(primals: tuple, options: dict) -> tuple[Any, tuple]:
            y, residuals = self._run(primals, options)
            if jnp.shape(y) != ():
                raise ValueError(
                    f"{self.__name__} returned shape {jnp.shape(y)}, and only a scalar has a "
                    "gradient; give pullback a cotangent of that shape"
                )
            return y, self.pullback(residuals, jnp.ones_like(y), **options)

        y, cotangents = settled(by_hand, primals, options)
        return y, _Shapes.of(primals).fit(self, cotangents)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        bound = self._bind(args, kwargs)
        options = bound.kwargs
        traced = {name: self._still(name, v) for name, v in options.items() if _holds_arrays(v)}
        for name, value in options.items():
            if name not in traced and not _hashable(value):
                raise TypeError(
                    f"{self.__name__}'s {name} is the {type(value).__name__} {value!r}; a keyword "
                    "argument must be an array or hashable: give a tuple instead of a list"
                )
        options = self._options(options)
        static = tuple((name, v) for name, v in options.items() if name not in traced)
        known, others = _Known.apart(traced, bound.args)

        def call(leaves: dict, others: list) -> Any:
            return self._call(static, known.of(leaves), *others)

        return settled(call, known.leaves, others)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __reduce__(self) -> str:
        return self.__qualname__  # a copy, and a pickle, is the op itself

    def __repr__(self) -> str:
        return f"<op {self.__name__}{self.signature}>"

    def _bind(self, args: tuple, kwargs: dict) -> inspect.BoundArguments:
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            takes = f"{self.__name__}{self.signature}"
            raise TypeError(f"{self.__name__}: {error}; it takes {takes}") from None
        bound.apply_defaults()
        for name, arg in zip(self.positional, bound.args, strict=True):
            for leaf in jax.tree.leaves(arg):
                if (came := _no_numbers(leaf)) is not None:
                    must = ("is", "be an array") if leaf is arg else ("holds", "hold arrays")
                    raise TypeError(
                        f"{self.__name__}: {name} {must[0]} {came}; it must {must[1]} of numbers"
                    )
        return bound

    def _primal(self, static: tuple, known: "_Known", *others: Any) -> Any:
        traced, args = known.together(others)
        return self._run(args, dict(static) | traced)[0]

    def _fwd(self, static: tuple, known: "_Known", *others: Any) -> tuple:
        traced, args = known.together(others)
        y, residuals = self._run(args, dict(static) | traced)
        return y, (residuals, known.of_options(others), _Shapes.of(args))

    def _bwd(self, static: tuple, known: "_Known", saved: tuple, dy: Any) -> tuple:
        residuals, others, shapes = saved
        options = dict(static) | known.options(others)

        def pullback(residuals: Any, dy: Any, options: dict) -> tuple:
            return self.pullback(residuals, dy, **options)

        return known.without(shapes.fit(self, settled(pullback, residuals, dy, options)))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        """What has a number as its default is a number, what has a truth value is one."""
        options = dict(given)
        for name, default in self._keywords.items():
            value = options[name]
            if isinstance(default, bool) and not isinstance(value, bool | np.bool_):
                raise TypeError(f"{self.__name__}: {name} is {value!r}; it must be True or False")
            if isinstance(default, float):
                number(self.__name__, **{name: value})
                options[name] = as_float(value)
        return options

    def _still(self, name: str, option: Any) -> Any:
        """An option that is being computed; to differentiate by it is refused."""

        def leaf(x):
            return _undifferentiated(self.__name__, name, x) if _is_traced_float(x) else x

        return jax.tree.map(leaf, option)

    def _run(self, args: tuple, config: dict) -> tuple[Any, Any]:
        self._reject_complex_numbers(args)
        try:
            args = jax.tree.map(lambda a: jnp.asarray(a) if isinstance(a, int | float) else a, args)
            args = spread(args, config)
            return self.forward(*args, **config)  # pyright: ignore[reportCallIssue]
        except Exception as error:
            said = self._said(error, args, config)
            if said is None:
                raise
            raise said from error

    def _sound(self, args: tuple, result: Any) -> tuple[Any, Any]:
        """What the forward returned, also to a larger operation, which is no more rounded by it."""
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"the forward of {self.__name__} returned a {type(result).__name__}; "
                "it must return a pair: the output and the residuals its backward needs"
            )
        self._reject_integers(args, result[0])
        return result

    def _said(self, error: Exception, args: tuple, config: dict) -> Exception | None:
        """The error of the forward in the names of this operation; None if it is, or cannot be."""
        text, given = str(error), tuple(zip(self.positional, args, strict=True))
        if text.startswith((f"{self.__name__}: ", "the forward of ")):
            return None
        leaf = getattr(error, "leaf", None)  # that of `_rounded`, in a part of this operation
        if leaf is not None or "does not accept dtype" in text:
            own = [(n, a) for n, arg in given for a in jax.tree.leaves(arg) if _is_integer(a)]
            if own:
                return _rounded(self.__name__, *next((o for o in own if o[1] is leaf), own[0]))
        if isinstance(error, OverflowError):
            for name, value in (*given, *config.items()):
                if isinstance(value, int) and abs(value) >= 2**31:
                    return ValueError(f"{self.__name__}: {name} is {value}; no array can hold it")
        if not isinstance(error, ValueError):
            for name, arg in given:
                if _is_none(arg) or isinstance(arg, list | tuple | dict):
                    kind = type(arg).__name__
                    if f"'{kind}'" in text or (arg is not None and _of_a_tree(error)):
                        came = "None" if arg is None else f"a {kind}"
                        return TypeError(f"{self.__name__}: {name} is {came}; it must be an array")
        if type(error) in (TypeError, ValueError):
            return type(error)(f"{self.__name__}: {text}")
        return None

    def _reject_complex_numbers(self, args: tuple) -> None:
        """Most derivatives of real numbers are wrong for them, without a word."""
        for name, arg in zip(self.positional, args, strict=True):
            for leaf in jax.tree.leaves(arg):
                if isinstance(leaf, complex | np.complexfloating) or (
                    jnp.issubdtype(getattr(leaf, "dtype", np.float32), jnp.complexfloating)
                ):
                    raise TypeError(
                        f"{self.__name__}: {name} is {jnp.result_type(leaf)}; an op is a function "
                        "of real numbers (take jax.custom_vjp for one of complex numbers)"
                    )

    def _reject_integers(self, args: tuple, y: Any) -> None:
        """An output in the integers of an argument would be rounded to them, without a word."""
        if not all(map(_is_integer, jax.tree.leaves(y))):
            return
        for name, arg in zip(self.positional, args, strict=False):
            for leaf in filter(_is_integer, jax.tree.leaves(arg)):
                raise _rounded(self.__name__, name, leaf)

    def _reject_unknown(self, where: str, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._keywords:
                known = ", ".join(self._keywords) or "none"
                raise TypeError(
                    f"{where} takes {name}=, but the keyword arguments of the forward are: {known}"
                )


def op(forward: Callable[P, Any]) -> Op[P]:
    """Make a differentiable function of `forward(*args, **config) -> (output, residuals)`.

    Positional arguments are arrays or trees of arrays; keyword-only arguments are configuration:
    hashable and static, or arrays that carry no derivative (a random key, a mask): to
    differentiate by one raises TypeError. One whose default is a float or a bool must be one
    number, or True or False.
    Register the backward with `@name.backward`: `(residuals, dy) -> (cotangent, ...)`, one
    for each positional argument in order, `None` for one that has no derivative (integers) or
    was left out. A floating-point cotangent is cast to its argument's dtype.

        @op
        def sigmoid(x):
            s = jax.nn.sigmoid(x)
            return s, s

        @sigmoid.backward
        def _(s, dy):
            return (dy * s * (1 - s),)
    """
    return Op(forward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _undifferentiated(operation: str, option: str, x: jax.Array) -> jax.Array:
    return x


def _refuse(operation: str, option: str, *_: Any) -> Any:
    raise TypeError(
        f"{operation} has no derivative by its option {option}, which is computed here from what "
        "is differentiated: compute with it outside of the operation, or take "
        f"jax.lax.stop_gradient({option}) where none is wanted"
    )


_undifferentiated.defvjp(_refuse, _refuse)


def _is_known(x: Any) -> bool:
    """Whole numbers that are there now: they have no derivative, and their range can be told."""
    return isinstance(x, np.ndarray | jax.Array) and not isinstance(x, Tracer) and _is_integer(x)


def _is_traced_float(x: Any) -> bool:
    return isinstance(x, Tracer) and jnp.issubdtype(x.dtype, jnp.floating)


def _holds_arrays(value: Any) -> bool:
    return any(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(value))


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _rounded(operation: str, name: str, leaf: Any) -> TypeError:
    """The error of an argument that is, or holds, these integers, with them."""
    dtype = jnp.result_type(leaf)
    error = TypeError(f"{operation}: {name} is {dtype}; it must be of floating-point numbers")
    error.leaf = leaf  # pyright: ignore[reportAttributeAccessIssue]
    return error


def _is_integer(leaf: Any) -> bool:
    return not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def _no_numbers(leaf: Any) -> str | None:
    """What a leaf is that is no array of numbers and none of Python's numbers."""
    if isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind in "OSUMm":
        return f"an array of {leaf.dtype}"
    if isinstance(leaf, jax.Array) and not isinstance(leaf.dtype, np.dtype):
        return f"a random key (dtype {leaf.dtype})"
    known = isinstance(leaf, int | float | complex) or hasattr(leaf, "dtype")
    return None if known or hasattr(leaf, "__jax_array__") else f"a {type(leaf).__name__}"


def _of_a_tree(error: Exception) -> bool:
    """JAX says so of a list where an array is due."""
    told = "Cannot determine dtype of", "Only integer scalar arrays", "Cannot interpret value of"
    return isinstance(error, jax.errors.TracerArrayConversionError) or any(
        each in str(error) for each in told
    )


class _Known:
    """What of the options and arguments is known: as an argument of custom_vjp it were traced."""

    def __init__(self, leaves: dict[int, Any], options: Any, args: Any):
        self.leaves, self._options, self._args = leaves, options, args

    @classmethod
    def apart(cls, options: dict, args: tuple) -> tuple["_Known", list]:
        """The options that are known, and the integers among the arguments; and all others."""
        given, of_options = jax.tree.flatten(options)
        numbers, of_args = jax.tree.flatten(args)
        known = {k: o for k, o in enumerate(given) if not isinstance(o, Tracer)}
        known |= {k: n for k, n in enumerate(numbers, len(given)) if _is_known(n)}
        others = [x for k, x in enumerate(given + numbers) if k not in known]
        return cls(known, of_options, of_args), others

    def of(self, leaves: dict[int, Any]) -> "_Known":
        return _Known(leaves, self._options, self._args)

    def together(self, others: Iterable) -> tuple[dict, tuple]:
        """All options and arguments, by what is not known of them."""
        number = self._options.num_leaves
        leaves = self._filled(number + self._args.num_leaves, others)
        return self._options.unflatten(leaves[:number]), self._args.unflatten(leaves[number:])

    def options(self, others: Iterable) -> dict:
        """All options, by those of the others that are options: the backward keeps no more."""
        return self._options.unflatten(self._filled(self._options.num_leaves, others))

    def of_options(self, others: Iterable) -> list:
        number = self._options.num_leaves
        return [*others][: number - sum(k < number for k in self.leaves)]

    def _filled(self, number: int, others: Iterable) -> list:
        rest = iter(others)
        return [self.leaves[k] if k in self.leaves else next(rest) for k in range(number)]

    def without(self, cotangents: tuple) -> tuple:
        """The cotangents of all others, None for those of options, which have none."""
        leaves = [None] * self._options.num_leaves
        for arg, cotangent in zip(self._args.children(), cotangents, strict=True):
            none = cotangent is None
            leaves += [None] * arg.num_leaves if none else arg.flatten_up_to(cotangent)
        return tuple(leaf for k, leaf in enumerate(leaves) if k not in self.leaves)


class _Shapes:
    """Shapes, dtypes and layouts of the positional arguments: static, so no array is kept."""

    def __init__(self, structures: tuple):
        self.structures = structures

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shapes) and self.structures == other.structures

    def __hash__(self) -> int:
        return hash(self.structures)

    @classmethod
    def of(cls, args: tuple) -> "_Shapes":
        def describe(arg):
            leaves, tree = jax.tree.flatten(arg, is_leaf=_is_none)
            return tree, tuple(
                None
                if leaf is None
                else (jnp.shape(leaf), jnp.result_type(leaf), axes_of(leaf), layout_of(leaf))
                for leaf in leaves
            )

        return cls(tuple(describe(arg) for arg in args))

    def fit(self, op: Op, cotangents: Any) -> tuple:
        """The cotangents in their arguments' dtypes; a wrong number, tree or shape is named."""
        name = op.__name__
        if not isinstance(cotangents, tuple) or len(cotangents) != len(self.structures):
            came = (
                f"a tuple of {len(cotangents)}"
                if isinstance(cotangents, tuple)
                else f"a {type(cotangents).__name__}"
            )
            raise TypeError(
                f"the backward of {name} returned {came}; it must return a tuple of "
                f"{len(self.structures)}, one cotangent for each positional argument: "
                f"{', '.join(op.positional)}"
            )
        return tuple(
            self._fit(f"{name}'s {arg}", cotangent, *structure)
            for arg, cotangent, structure in zip(
                op.positional, cotangents, self.structures, strict=True
            )
        )

    @staticmethod
    def _fit(where: str, cotangent: Any, tree: Any, avals: tuple) -> Any:
        if cotangent is None and not any(_differentiable(aval) for aval in avals):
            return None
        leaves, got = jax.tree.flatten(cotangent, is_leaf=_is_none)
        if got != tree:
            raise TypeError(f"the cotangent of {where} is the tree {got}; it must be {tree}")
        found = []
        for leaf, aval in zip(leaves, avals, strict=True):
            if aval is None:  # no array was given here, such as a bias left out
                found.append(None)
                continue
            shape, dtype, axes, layout = aval
            if not _differentiable(aval):
                found.append(np.zeros(shape, jax.dtypes.float0))
                continue
            if leaf is None:
                raise TypeError(
                    f"the cotangent of {where} is None; only integers and booleans have none: "
                    f"return an array of shape {shape} and dtype {dtype}, zeros if need be"
                )
            if jnp.shape(leaf) != shape:
                raise ValueError(
                    f"the cotangent of {where} has shape {jnp.shape(leaf)}; it must be {shape}"
                )
            leaf = as_laid_out(leaf, layout)
            leaf = fitted(leaf, axes)  # the sum over a mesh before the rounding to a narrow dtype
            found.append(leaf if jnp.result_type(leaf) == dtype else jnp.asarray(leaf, dtype))
        return jax.tree.unflatten(tree, found)


def _differentiable(aval: tuple | None) -> bool:
    return aval is not None and jnp.issubdtype(aval[1], jnp.inexact)


jax.tree_util.register_pytree_node(
    _Shapes, lambda shapes: ((), shapes.structures), lambda structures, _: _Shapes(structures)
)
