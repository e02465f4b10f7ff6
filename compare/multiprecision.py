"""Evaluate a traced JAX function with as many digits as are asked for.

The walk is that of `interpret.Program`; here are the numbers (mpmath's, in object arrays) and what
each primitive means for them. Integers, booleans and random bits stay as NumPy has them, and what
only moves numbers about is done by NumPy's rules. Nothing overflows: the exponents have no bound.
A constant written in float64, such as 0.1, is that float64 number, digit by digit.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from jax.extend.core import Jaxpr, jaxpr_as_fun, jaxprs_in_params

from handgrad.compare import primitives
from handgrad.compare.interpret import Program

__all__ = ["Exact", "Unsupported", "work"]

# These do the same to numbers of any kind.
AS_IN_NUMPY = frozenset(
    """add sub mul neg add_any square one_minus_square polynomial eq ne lt le gt ge select_n
    copy copy_p stop_gradient sharding_constraint pvary reduce_vary optimization_barrier
    broadcast_in_dim reshape squeeze expand_dims transpose rev tile concatenate stack unstack
    split slice dynamic_slice dynamic_update_slice pad reduce_sum reduce_prod argmax argmin cumsum
    cumprod sort top_k dot_general conv_general_dilated reduce_window_sum select_and_scatter_add
    gather scatter scatter-add scatter-sub scatter-mul""".split()
)
NUMBER: dict[str, Callable] = {}  # of one element, or of one of each operand
ARRAY: dict[str, Callable] = {}  # of whole arrays
BEYOND = 2**100  # no exponential of more has digits that matter, nor any that fit into memory


class Unsupported(Exception):
    """There is no rule for this primitive."""


class Exact(Program):
    """A traced function that is evaluated in decimal digits.

    `after` as in `Program`; what its `constant` is given, and gives, are mpmath's numbers.
    """

    def __init__(self, program: Program, like: Sequence[Any]):
        self.context = mpmath.mp.clone()  # a precision of its own
        self._lift = np.frompyfunc(self._number, 1, 1)
        self._functions: dict[str, np.ufunc] = {}
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in like]
        super().__init__(jaxpr_as_fun(program.jaxpr), *shapes)

    def evaluate(self, digits: int, *args: Any, after: Any = None) -> list:
        """The results for NumPy arrays, with so many digits."""
        self.context.dps = digits
        return self(*args, after=after)

    def _closed(self, closed: Any, args: Sequence, after: Any) -> list:
        args = [self._widen(x) if _is_array(x) else x for x in args]
        return [self._widen(y) for y in super()._closed(closed, args, after)]

    def _widen(self, x: Any) -> Any:
        """A floating-point dtype becomes `object`, an array of it one of mpmath's numbers."""
        if isinstance(x, np.dtype):
            return np.dtype(object) if jnp.issubdtype(x, np.inexact) else x
        if not _is_array(x) or x.dtype == object:
            return x
        if jnp.issubdtype(x.dtype, np.floating):
            x = x.astype(np.float64)
        return np.asarray(self._lift(x)) if x.dtype.kind in "fcO" else x

    def _number(self, x: Any) -> Any:
        return self.context.convert(x[()] if _is_array(x) else x)

    def _step(self, step: Any, inputs: list, after: Any) -> list:
        name = step.eqn.primitive.name
        many = any(_is_exact(x) and x.ndim for x in inputs)
        if step.draws and not many:
            avals = [v.aval.dtype for v in step.eqn.invars]
            plain = [
                x.astype(float).astype(d) if _is_exact(x) else x
                for x, d in zip(inputs, avals, strict=True)
            ]
            results = self._drawn(step.eqn, plain)
        elif step.control is not None:
            results = step.control(self, step.eqn, inputs, after)
        elif not any(map(_is_exact, inputs)):
            results = super()._step(step, inputs, after)
        else:
            result = self._rule(name)(*inputs, **step.params)
            results = result if step.eqn.primitive.multiple_results else [result]
        if any(map(_is_complex, step.eqn.invars)):
            results = [
                r if _is_complex(v) else REAL_PART(r)
                for r, v in zip(results, step.eqn.outvars, strict=True)
            ]
        return [self._result(r, d) for r, d in zip(results, step.dtypes, strict=True)]

    def _rule(self, name: str) -> Callable:
        if name in NUMBER:
            return lambda *xs, **params: self._function(name, len(xs), params)(*xs)
        if name in ARRAY:
            return lambda *xs, **params: ARRAY[name](self.context, *xs, **params)
        if name in AS_IN_NUMPY:
            return primitives.RULES[name]
        raise Unsupported(name)

    def _function(self, name: str, operands: int, params: dict) -> Callable:
        if name not in self._functions and not params:
            self._functions[name] = self._elementwise(name, operands, params)
        return self._functions.get(name) or self._elementwise(name, operands, params)

    def _elementwise(self, name: str, operands: int, params: dict) -> Any:
        context, rule = self.context, NUMBER[name]

        def real(*xs):
            try:
                y = rule(context, *xs, **params)
            except (ValueError, ZeroDivisionError):  # not defined there
                return context.nan
            out = isinstance(y, context.mpc) and not any(isinstance(x, context.mpc) for x in xs)
            return context.nan if out and name != "complex" else y

        return np.frompyfunc(real, operands, 1)

    def _result(self, x: Any, dtype: Any) -> Any:
        if not isinstance(dtype, np.dtype):  # a random key
            return x
        x = np.asarray(x)
        return self._widen(x if x.dtype == dtype else x.astype(dtype))


def work(jaxpr: Jaxpr) -> float:
    """How many numbers are computed, products of matrices by their multiplications."""
    total = 0.0
    for eqn in jaxpr.eqns:
        size = sum(math.prod(_shape(v)) for v in eqn.outvars)
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            size *= math.prod(_shape(eqn.invars[0])[i] for i in contracted)
        if eqn.primitive.name == "conv_general_dilated":
            kernel = _shape(eqn.invars[1])
            size *= math.prod(kernel) // max(1, kernel[eqn.params["dimension_numbers"].rhs_spec[0]])
        total += size
        times = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        total += times * sum(work(inner) for inner in jaxprs_in_params(eqn.params))
    return total


def _shape(v: Any) -> tuple[int, ...]:
    return getattr(v.aval, "shape", ())


def _is_complex(v: Any) -> bool:
    return jnp.issubdtype(getattr(v.aval, "dtype", np.int32), np.complexfloating)


REAL_PART = np.frompyfunc(lambda x: x.real, 1, 1)


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray)


def _is_exact(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype == object


# --- numbers -------------------------------------------------------------------------------------


def number(*names: str) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        NUMBER.update(dict.fromkeys(names, function))
        return function

    return register


def _named(primitive: str, name: str) -> None:
    NUMBER[primitive] = lambda ctx, x, **_: getattr(ctx, name)(x)


for _name in "sin cos tan tanh asin acos atan asinh acosh atanh log1p sqrt erf erfc sign".split():
    _named(_name, _name)
for _name, _function in dict(log="ln", erf_inv="erfinv").items():
    _named(_name, _function)


@number("exp")
def _exp(ctx, x, **_):
    if abs(x) <= BEYOND or isinstance(x, ctx.mpc):
        return ctx.exp(x)
    return ctx.nan if x != x else ctx.inf if x > 0 else ctx.zero


@number("exp2")
def _exp2(ctx, x, **_):
    return _exp(ctx, x * ctx.ln2)


@number("expm1")
def _expm1(ctx, x, **_):
    return ctx.expm1(x) if abs(x) <= BEYOND else _exp(ctx, x) - 1


@number("sinh")
def _sinh(ctx, x, **_):
    return ctx.sinh(x) if abs(x) <= BEYOND else x * ctx.inf


@number("cosh")
def _cosh(ctx, x, **_):
    return ctx.cosh(x) if abs(x) <= BEYOND else abs(x) * ctx.inf


@number("logistic")
def _logistic(ctx, x, **_):
    e = _exp(ctx, -abs(x))
    return (e if x < 0 else 1) / (1 + e)


@number("div")
def _div(ctx, x, y, **_):
    return x / y if y != 0 else x * ctx.inf


@number("rem")
def _rem(ctx, x, y, **_):
    return x - y * _truncated(ctx, x / y)


@number("pow", "integer_pow")
def _pow(ctx, x, y, **_):
    if x == 0 and y < 0:
        return ctx.inf
    return ctx.power(x, ctx.convert(y))


@number("rsqrt")
def _rsqrt(ctx, x, **_):
    return _div(ctx, ctx.one, ctx.sqrt(x))


@number("cbrt")
def _cbrt(ctx, x, **_):
    return -ctx.cbrt(-x) if x < 0 else ctx.cbrt(x)


@number("lgamma")
def _lgamma(ctx, x, **_):
    return ctx.loggamma(x) if x > 0 else ctx.ln(abs(ctx.gamma(x)))


@number("digamma")
def _digamma(ctx, x, **_):
    return ctx.digamma(x)


@number("polygamma")
def _polygamma(ctx, order, x, **_):
    return ctx.psi(int(order), x)


@number("atan2")
def _atan2(ctx, y, x, **_):
    return ctx.atan2(y, x)


@number("abs")
def _abs(ctx, x, **_):
    return abs(x)


@number("max")
def _max(ctx, x, y, **_):
    return x if x != x or x > y else y


@number("min")
def _min(ctx, x, y, **_):
    return x if x != x or x < y else y


@number("clamp")
def _clamp(ctx, low, x, high, **_):
    return _min(ctx, _max(ctx, x, low), high)


def _truncated(ctx, x):
    return ctx.floor(x) if x > 0 else ctx.ceil(x)


@number("floor")
def _floor(ctx, x, **_):
    return ctx.floor(x)


@number("ceil")
def _ceil(ctx, x, **_):
    return ctx.ceil(x)


@number("round")
def _round(ctx, x, *, rounding_method, **_):
    if int(rounding_method) == 1:
        return ctx.nint(x)
    return ctx.sign(x) * ctx.floor(abs(x) + 0.5)


@number("is_finite")
def _is_finite(ctx, x, **_):
    return not (ctx.isinf(x) or ctx.isnan(x))


@number("reduce_precision")
def _reduce_precision(ctx, x, **_):
    return x


@number("real")
def _real(ctx, x, **_):
    return x.real


@number("imag")
def _imag(ctx, x, **_):
    return x.imag


@number("conj")
def _conj(ctx, x, **_):
    return x.conjugate()


@number("complex")
def _complex(ctx, x, y, **_):
    return ctx.mpc(x, y)


# --- arrays --------------------------------------------------------------------------------------


def array(name: str) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        ARRAY[name] = function
        return function

    return register


@array("convert_element_type")
def _convert(ctx, x, *, new_dtype, **_):
    kind = np.dtype(new_dtype).kind
    if kind == "O":
        return x
    if kind == "b":
        return x != 0
    bounds = np.iinfo(new_dtype)  # what is out of range saturates, nan is zero

    def whole(v):
        if v != v:
            return 0
        return int(_truncated(ctx, min(max(v, bounds.min), bounds.max)))

    return np.asarray(np.frompyfunc(whole, 1, 1)(x)).astype(new_dtype)


@array("bitcast_convert_type")
def _bits(ctx, x, *, new_dtype, **_):
    size = np.dtype(new_dtype).itemsize  # those of the float64 or float32 nearest to the number
    if size < 4:
        raise Unsupported("bitcast_convert_type of a narrow float")
    return x.astype(np.dtype(f"f{size}")).view(new_dtype)


def _extremes(name: str, wins: Callable, sign: int) -> None:
    """Reductions, running extremes and windows: where the one of two that `wins` is kept."""

    @array(f"reduce_{name}")
    def reduce(ctx, x, *, axes, **_):
        better = np.frompyfunc(lambda a, b: wins(ctx, a, b), 2, 1)
        for axis in sorted(axes, reverse=True):
            x = np.asarray(better.reduce(x, axis=axis, initial=sign * ctx.inf))
        return x

    @array(f"cum{name}")
    def running(ctx, x, *, axis, reverse, **_):
        better = np.frompyfunc(lambda a, b: wins(ctx, a, b), 2, 1)
        line = np.flip(x, axis) if reverse else x
        line = better.accumulate(line, axis=axis, dtype=object)
        return np.flip(line, axis) if reverse else line

    @array(f"reduce_window_{name}")
    def windows(
        ctx, x, *, window_dimensions, window_strides, padding, base_dilation, window_dilation, **_
    ):
        worst = np.asarray(sign * ctx.inf, object)
        config = [(low, high, d - 1) for (low, high), d in zip(padding, base_dilation, strict=True)]
        x = primitives.RULES["pad"](x, worst, padding_config=config)
        view = primitives._windows(x, window_dimensions, window_strides, window_dilation)
        return reduce(ctx, view, axes=range(x.ndim, 2 * x.ndim))


_extremes("max", _max, -1)
_extremes("min", _min, 1)


@array("cumlogsumexp")
def _cumlogsumexp(ctx, x, *, axis, reverse, **_):
    exp, log = np.frompyfunc(lambda v: _exp(ctx, v), 1, 1), np.frompyfunc(ctx.ln, 1, 1)
    return log(primitives.RULES["cumsum"](exp(x), axis=axis, reverse=reverse))


@array("gather")
def _gather(ctx, x, indices, *, fill_value, **params):
    fill_value = ctx.nan if fill_value is None else fill_value
    return primitives.RULES["gather"](x, indices, fill_value=fill_value, **params)
