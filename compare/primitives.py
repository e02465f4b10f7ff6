"""What each JAX primitive means, in NumPy: the rules of `interpret.Program`.

A rule takes the operands and the primitive's parameters and gives the result. Complex operands
where real ones are expected are a complex step passing through: a rule is analytic in them, and
takes its decisions (comparisons, maxima) on the real parts.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special as special
from numpy.lib.stride_tricks import sliding_window_view


class Unsupported(Exception):
    """This rule does not cover these parameters; JAX is asked instead."""


RULES: dict[str, Callable] = {}

STEP = 1e-100  # of the complex step: its square vanishes beside any number

# Operations whose result is rounded; all others are exact.
ROUNDING = frozenset(
    """add sub mul div rem pow integer_pow exp exp2 log log2 log1p expm1 sqrt rsqrt cbrt sin
    cos tan sinh cosh tanh asin acos atan atan2 asinh acosh atanh logistic erf erfc erf_inv lgamma
    digamma square one_minus_square polynomial add_any reduce_sum reduce_prod cumsum cumprod
    cumlogsumexp dot_general conv_general_dilated reduce_window_sum reduce_precision
    triangular_solve cholesky scatter-add select_and_scatter_add convert_element_type""".split()
)

# Those of them whose result is exact if it is short, as are the operands: e⁻⁴⁰ - 1 is not -1.
ALGEBRAIC = frozenset(
    """add sub mul div integer_pow sqrt square add_any reduce_sum cumsum dot_general
    conv_general_dilated reduce_window_sum scatter-add select_and_scatter_add""".split()
)

# Kernels and Python that JAX calls: what they compute in is written in them.
FOREIGN = ("callback", "pallas_call", "ffi_call")

# Operations whose result is constant, but where it jumps; so are all of booleans and integers.
JUMPING = frozenset("floor ceil round sign".split())

# Operations that add up many terms, and which of their inputs the terms are made of.
SUMS = {
    "reduce_sum": (0,),
    "cumsum": (0,),
    "reduce_window_sum": (0,),
    "dot_general": (0, 1),
    "conv_general_dilated": (0, 1),
    "scatter-add": (0, 2),
    "select_and_scatter_add": (0,),
}


def added(eqn: Any, inputs: list, result: Any) -> Any:
    """The sum of the terms' absolute values, whose last digits a sum may lose; else the result."""
    terms = SUMS.get(eqn.primitive.name)
    if terms is None or not jnp.issubdtype(result.dtype, np.floating) or result.dtype.itemsize < 8:
        return result
    sizes = [np.abs(x) if k in terms else x for k, x in enumerate(inputs)]
    try:
        return RULES[eqn.primitive.name](*sizes, **eqn.params)
    except Unsupported:
        return result


def of_its_own(eqn: Any) -> np.dtype | None:
    """What JAX computes in by itself, or Python that it calls, if that is less than float64."""
    if eqn.primitive.name in RULES or not any(f in eqn.primitive.name for f in FOREIGN):
        return None
    dtypes = [v.aval.dtype for v in eqn.outvars]
    floats = [d for d in dtypes if jnp.issubdtype(d, np.floating) and d.itemsize < 8]
    return max(floats, key=eps, default=None)


def eps(dtype: np.dtype) -> float:
    return float(jnp.finfo(dtype).eps)


def rule(*names: str) -> Callable[[Callable], Callable]:
    def register(function: Callable) -> Callable:
        for name in names:
            RULES[name] = function
        return function

    return register


def decide(x: Any) -> Any:
    """The part of x that decisions are taken on."""
    return x.real if x.dtype.kind == "c" else x


def half(dtype: Any) -> bool:
    """float16, bfloat16 and the 8-bit kinds: NumPy computes them in float32."""
    return dtype.itemsize < 4 and jnp.issubdtype(dtype, np.floating)


def widened(function: Callable) -> Callable:
    """Compute narrow floats in float32; the interpreter rounds the result."""

    @functools.wraps(function)
    def wide(*xs: Any, **params: Any) -> Any:
        return function(*(x.astype(np.float32) if half(x.dtype) else x for x in xs), **params)

    return wide


# --- elementwise --------------------------------------------------------------------------------

_UNARY = dict(
    neg=np.negative, sin=np.sin, cos=np.cos, tan=np.tan, tanh=np.tanh, sinh=np.sinh, cosh=np.cosh,
    asin=np.arcsin, acos=np.arccos, atan=np.arctan, asinh=np.arcsinh, acosh=np.arccosh,
    atanh=np.arctanh, exp=np.exp, exp2=np.exp2, log=np.log, log2=np.log2, expm1=np.expm1,
    sqrt=np.sqrt, square=np.square, not_=np.invert, is_finite=np.isfinite,
)  # fmt: skip
for _name, _ufunc in _UNARY.items():
    RULES[_name.rstrip("_")] = widened(lambda x, _f=_ufunc, **_: _f(x))

_BINARY = dict(
    add=np.add, sub=np.subtract, mul=np.multiply, add_any=np.add, and_=np.bitwise_and,
    or_=np.bitwise_or, xor=np.bitwise_xor,
)  # fmt: skip
for _name, _ufunc in _BINARY.items():
    RULES[_name.rstrip("_")] = widened(lambda x, y, _f=_ufunc, **_: _f(x, y))

for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    _compare = getattr(operator, _name)
    RULES[_name] = lambda x, y, _f=_compare, **_: _f(decide(x), decide(y))


@rule("div")
@widened
def _div(x, y, **_):
    if x.dtype.kind in "iu":  # towards zero, where NumPy's // goes down; all bits are 1 of x / 0
        return np.where(y == 0, ~np.zeros_like(x), (x - np.fmod(x, y)) // np.where(y == 0, 1, y))
    return np.divide(x, y)


@rule("one_minus_square")
@widened
def _one_minus_square(x, **_):
    return 1 - x * x if x.dtype.kind == "c" else (1 - x) * (1 + x)  # each keeps other digits


@rule("polynomial")
@widened
def _polynomial(x, *coefficients, **_):
    return functools.reduce(lambda p, c: p * x + c, reversed(coefficients))


@rule("rem")
@widened
def _rem(x, y, **_):
    if "c" in (x.dtype.kind, y.dtype.kind):
        return x - y * np.trunc(decide(x) / decide(y))
    if x.dtype.kind in "iu":
        return np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y)))
    return np.fmod(x, y)


@rule("pow")
@widened
def _pow(x, y, **_):
    return np.power(x, y)


@rule("integer_pow")
@widened
def _integer_pow(x, *, y, **_):
    power = functools.reduce(np.multiply, [x] * abs(y)) if 0 < abs(y) < 16 else x ** abs(y)
    return 1 / power if y < 0 else power


@rule("rsqrt")
@widened
def _rsqrt(x, **_):
    return 1 / np.sqrt(x)


@rule("cbrt")
@widened
def _cbrt(x, **_):
    if x.dtype.kind == "c":
        root = np.cbrt(x.real)
        return root + 1j * x.imag / (3 * root**2)
    return np.cbrt(x)


@rule("log1p")
@widened
def _log1p(x, **_):
    return _dual(np.log1p, lambda t: 1 / (1 + t), x)


@rule("logistic")
@widened
def _logistic(x, **_):
    e = np.exp(np.where(decide(x) < 0, x, -x))
    return np.where(decide(x) < 0, e, 1) / (1 + e)


@rule("erf")
@widened
def _erf(x, **_):
    return _dual(special.erf, lambda t: 2 / np.sqrt(np.pi) * np.exp(-t * t), x)


@rule("erfc")
@widened
def _erfc(x, **_):
    return _dual(special.erfc, lambda t: -2 / np.sqrt(np.pi) * np.exp(-t * t), x)


@rule("erf_inv")
@widened
def _erf_inv(x, **_):
    return _dual(special.erfinv, lambda t: np.sqrt(np.pi) / 2 * np.exp(special.erfinv(t) ** 2), x)


@rule("lgamma")
@widened
def _lgamma(x, **_):
    return _dual(special.gammaln, special.digamma, x)


@rule("digamma")
@widened
def _digamma(x, **_):
    return _dual(special.digamma, lambda t: special.polygamma(1, t), x)


def _dual(function: Callable, slope: Callable, x: Any) -> Any:
    """A real special function on a complex step: f(re) + i im f′(re)."""
    if x.dtype.kind == "c":
        return function(x.real) + 1j * x.imag * slope(x.real)
    return function(x)


@rule("abs")
def _abs(x, **_):
    return np.where(decide(x) < 0, -x, x) if x.dtype.kind == "c" else np.abs(x)


@rule("sign")
@widened
def _sign(x, **_):
    return np.sign(decide(x))


@rule("atan2")
@widened
def _atan2(y, x, **_):
    if "c" in (y.dtype.kind, x.dtype.kind):
        slope = (y.imag * x.real - x.imag * y.real) / (x.real**2 + y.real**2)
        return np.arctan2(y.real, x.real) + 1j * slope
    return np.arctan2(y, x)


@rule("floor")
@widened
def _floor(x, **_):
    return np.floor(decide(x))


@rule("ceil")
@widened
def _ceil(x, **_):
    return np.ceil(decide(x))


@rule("round")
@widened
def _round(x, *, rounding_method, **_):
    x = decide(x)
    if int(rounding_method) == 1:
        return np.round(x)
    whole = np.trunc(x)
    return whole + np.copysign(np.abs(x - whole) >= 0.5, x)


@rule("max")
def _max(x, y, **_):
    return _pick(np.maximum, np.greater_equal, x, y)


@rule("min")
def _min(x, y, **_):
    return _pick(np.minimum, np.less_equal, x, y)


def _pick(real: Callable, wins: Callable, x: Any, y: Any) -> Any:
    if "c" in (x.dtype.kind, y.dtype.kind):
        return np.where(wins(decide(x), decide(y)), x, y)
    return real(x, y)


@rule("clamp")
def _clamp(low, x, high, **_):
    return _min(_max(x, low), high)


@rule("select_n")
def _select_n(which, *cases, **_):
    if len(cases) == 2:
        return np.where(which.astype(bool), cases[1], cases[0])
    return np.choose(which, cases)


@rule("convert_element_type")
def _convert(x, *, new_dtype, **_):
    if x.dtype.kind == "c":
        if not jnp.issubdtype(new_dtype, np.inexact):
            return x.real.astype(new_dtype)
        if np.dtype(new_dtype).itemsize > 4:
            return x
        small = STEP if np.abs(x.imag).max(initial=0) < 1e-30 else 1.0  # no float32 holds it
        real, imag = (v.astype(new_dtype).astype(float) for v in (x.real, x.imag / small))
        return real + 1j * small * imag
    if jnp.issubdtype(x.dtype, np.floating) and np.dtype(new_dtype).kind in "iu":
        bounds = np.iinfo(new_dtype)  # what is out of range saturates, nan is zero
        wide = np.trunc(np.nan_to_num(x.astype(np.float64), posinf=np.inf, neginf=-np.inf))
        inside = (wide > bounds.min) & (wide < bounds.max)
        whole = np.where(inside, wide, 0).astype(new_dtype)
        return np.where(inside, whole, np.where(wide > 0, bounds.max, bounds.min)).astype(new_dtype)
    return x.astype(new_dtype)


@rule("reduce_precision")
def _reduce_precision(x, *, exponent_bits, mantissa_bits, **_):
    kinds = {
        (8, 23): np.float32,
        (5, 10): np.float16,
        (11, 52): np.float64,
        (8, 7): jnp.bfloat16,
    }
    kind = kinds.get((exponent_bits, mantissa_bits))
    if kind is None or x.dtype.kind == "c":
        raise Unsupported
    return x.astype(kind).astype(x.dtype)


@rule("copy", "copy_p", "stop_gradient", "sharding_constraint", "pvary", "reduce_vary")
def _same(x, **_):
    return x


@rule("optimization_barrier")
def _barrier(*xs, **_):
    return xs


# --- shape --------------------------------------------------------------------------------------


@rule("broadcast_in_dim")
def _broadcast_in_dim(x, *dynamic, shape, broadcast_dimensions, **_):
    if dynamic:
        raise Unsupported
    expanded = [1] * len(shape)
    for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
        expanded[axis] = size
    return np.broadcast_to(x.reshape(expanded), shape)


@rule("reshape")
def _reshape(x, *dynamic, new_sizes, dimensions=None, **_):
    if dynamic:
        raise Unsupported
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


@rule("squeeze")
def _squeeze(x, *, dimensions, **_):
    return np.squeeze(x, tuple(dimensions))


@rule("expand_dims")
def _expand_dims(x, *, dimensions, **_):
    return np.expand_dims(x, tuple(dimensions))


@rule("transpose")
def _transpose(x, *, permutation, **_):
    return x.transpose(permutation)


@rule("rev")
def _rev(x, *, dimensions, **_):
    return np.flip(x, tuple(dimensions))


@rule("tile")
def _tile(x, *, reps, **_):
    return np.tile(x, reps)


@rule("concatenate")
def _concatenate(*xs, dimension, **_):
    return np.concatenate(xs, dimension)


@rule("stack")
def _stack(*xs, axis, **_):
    return np.stack(xs, axis)


@rule("unstack")
def _unstack(x, *, axis, **_):
    return [np.take(x, i, axis) for i in range(x.shape[axis])]


@rule("split")
def _split(x, *, sizes, axis, **_):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


@rule("slice")
def _slice(x, *, start_indices, limit_indices, strides, **_):
    strides = strides or (1,) * x.ndim
    return x[tuple(map(slice, start_indices, limit_indices, strides))]


@rule("dynamic_slice")
def _dynamic_slice(x, *starts, slice_sizes, **_):
    return x[_window(x, starts, slice_sizes)]


@rule("dynamic_update_slice")
def _dynamic_update_slice(x, update, *starts, **_):
    out = x.astype(np.result_type(x, update))
    out[_window(x, starts, update.shape)] = update
    return out


def _window(x: Any, starts: Any, sizes: Any) -> tuple:
    begin = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, sizes, strict=True)]
    return tuple(slice(b, b + k) for b, k in zip(begin, sizes, strict=True))


@rule("pad")
def _pad(x, value, *, padding_config, **_):
    out = x
    for axis, (low, high, interior) in enumerate(padding_config):
        n = out.shape[axis]
        size = n + max(n - 1, 0) * interior + low + high
        wide = list(out.shape)
        wide[axis] = size
        padded = np.full(wide, value, np.result_type(out, value))
        places = low + np.arange(n) * (interior + 1)
        keep = (places >= 0) & (places < size)
        into: list[Any] = [slice(None)] * out.ndim
        source: list[Any] = [slice(None)] * out.ndim
        into[axis], source[axis] = places[keep], np.flatnonzero(keep)
        padded[tuple(into)] = out[tuple(source)]
        out = padded
    return out


@rule("iota")
def _iota(*dynamic, dtype, shape, dimension, **_):
    if dynamic:
        raise Unsupported
    line = np.arange(shape[dimension]).astype(dtype)
    return np.broadcast_to(
        np.expand_dims(line, [a for a in range(len(shape)) if a != dimension]), shape
    )


# --- reductions ---------------------------------------------------------------------------------


@rule("reduce_sum")
@widened
def _reduce_sum(x, *, axes, **_):
    return x.sum(tuple(axes))


@rule("reduce_prod")
@widened
def _reduce_prod(x, *, axes, **_):
    return x.prod(tuple(axes))


@rule("reduce_max")
def _reduce_max(x, *, axes, **_):
    return _extreme(np.max, np.argmax, -np.inf, x, tuple(axes))


@rule("reduce_min")
def _reduce_min(x, *, axes, **_):
    return _extreme(np.min, np.argmin, np.inf, x, tuple(axes))


def _extreme(real: Callable, where: Callable, empty: float, x: Any, axes: tuple) -> Any:
    if x.dtype.kind != "c":
        return real(x, axes, initial=_worst(x.dtype, empty))
    kept = [a for a in range(x.ndim) if a not in axes]
    flat = x.transpose(*kept, *axes).reshape([x.shape[a] for a in kept] + [-1])
    return np.take_along_axis(flat, where(flat.real, -1)[..., None], -1)[..., 0]


def _worst(dtype: Any, start: float) -> Any:
    """The start of a reduction, -inf or inf, as far as integers and booleans have it."""
    if not np.isinf(start) or jnp.issubdtype(dtype, np.inexact):
        return start
    if dtype.kind == "b":
        return start > 0
    return np.iinfo(dtype).min if start < 0 else np.iinfo(dtype).max


@rule("reduce_and")
def _reduce_and(x, *, axes, **_):
    return np.bitwise_and.reduce(x, tuple(axes))


@rule("reduce_or")
def _reduce_or(x, *, axes, **_):
    return np.bitwise_or.reduce(x, tuple(axes))


@rule("argmax")
def _argmax(x, *, axes, **_):
    return np.argmax(decide(x), axes[0])


@rule("argmin")
def _argmin(x, *, axes, **_):
    return np.argmin(decide(x), axes[0])


def _cumulative(accumulate: Callable) -> Callable:
    @widened
    def run(x, *, axis, reverse, **_):
        if not reverse:
            return accumulate(x, axis)
        return np.flip(accumulate(np.flip(x, axis), axis), axis)

    return run


RULES["cumsum"] = _cumulative(np.cumsum)
RULES["cumprod"] = _cumulative(np.cumprod)


@rule("cummax")
def _cummax(x, *, axis, reverse, **_):
    if x.dtype.kind == "c":
        raise Unsupported
    return _cumulative(np.maximum.accumulate)(x, axis=axis, reverse=reverse)


@rule("cummin")
def _cummin(x, *, axis, reverse, **_):
    if x.dtype.kind == "c":
        raise Unsupported
    return _cumulative(np.minimum.accumulate)(x, axis=axis, reverse=reverse)


@rule("sort")
def _sort(*xs, dimension, num_keys, **_):
    if num_keys != 1:
        raise Unsupported
    order = np.argsort(decide(xs[0]), axis=dimension, kind="stable")
    return [np.take_along_axis(x, order, dimension) for x in xs]


@rule("top_k")
def _top_k(x, *, k, operand=None, axis=-1, **_):
    backwards = np.argsort(np.flip(decide(x), axis), axis=axis, kind="stable")  # ties: the first
    order = x.shape[axis] - 1 - np.flip(backwards, axis)
    best = np.take(order, np.arange(k), axis)
    return [np.take_along_axis(x, best, axis), best]


# --- products -----------------------------------------------------------------------------------


@rule("dot_general")
@widened
def _dot_general(a, b, *, dimension_numbers, preferred_element_type=None, **_):
    kept = preferred_element_type and np.dtype(preferred_element_type)
    if kept and kept.itemsize > max(a.dtype.itemsize, b.dtype.itemsize):
        a, b = a.astype(kept), b.astype(kept)
    (ca, cb), (ba, bb) = dimension_numbers
    fa = [i for i in range(a.ndim) if i not in (*ca, *ba)]
    fb = [j for j in range(b.ndim) if j not in (*cb, *bb)]
    batch, rows, columns = ([x.shape[i] for i in axes] for x, axes in ((a, ba), (a, fa), (b, fb)))
    inner = [a.shape[i] for i in ca]
    left = a.transpose((*ba, *fa, *ca)).reshape((*batch, math.prod(rows), math.prod(inner)))
    right = b.transpose((*bb, *cb, *fb)).reshape((*batch, math.prod(inner), math.prod(columns)))
    return np.matmul(left, right).reshape((*batch, *rows, *columns))


@rule("conv_general_dilated")
@widened
def _conv(
    x, w, *, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
    feature_group_count, batch_group_count, **_,
):  # fmt: skip
    lhs, rhs, out = dimension_numbers
    x, w = x.transpose(lhs), w.transpose(rhs)  # (batch, in, *space), (out, in/groups, *window)
    x = _dilate_and_pad(x, [(0, 0)] * 2 + list(padding), [1, 1, *lhs_dilation], 0)
    view = _windows(x, [1, 1, *w.shape[2:]], [1, 1, *window_strides], [1, 1, *rhs_dilation])
    view = view.reshape(view.shape[: x.ndim] + w.shape[2:])  # (batch, in, *out_space, *window)
    n = w.ndim - 2
    space, window = "defgh"[:n], "opqrs"[:n]

    def contract(part, kernel):
        return np.einsum(f"ab{space}{window},cb{window}->ac{space}", part, kernel, optimize=True)

    if batch_group_count > 1:
        parts = zip(
            np.split(view, batch_group_count, 0), np.split(w, batch_group_count, 0), strict=True
        )
    else:
        parts = zip(
            np.split(view, feature_group_count, 1), np.split(w, feature_group_count, 0), strict=True
        )
    y = np.concatenate([contract(*part) for part in parts], 1)
    return y.transpose(np.argsort(out))


def _dilate_and_pad(x: Any, padding: Any, dilation: Any, value: Any) -> Any:
    config = [(low, high, d - 1) for (low, high), d in zip(padding, dilation, strict=True)]
    return _pad(x, np.asarray(value, x.dtype), padding_config=config)


def _windows(x: Any, window: Any, strides: Any, dilation: Any) -> Any:
    """Every window of x as trailing axes: (*positions, *window)."""
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if any(r > n for r, n in zip(reach, x.shape, strict=True)):  # no window fits
        fits = (max(0, (n - r) // s + 1) for n, r, s in zip(x.shape, reach, strides, strict=True))
        return np.zeros((*fits, *window), x.dtype)
    view = sliding_window_view(x, reach)
    steps = tuple(slice(None, None, s) for s in strides)
    return view[steps + tuple(slice(None, None, d) for d in dilation)]


def _window_reduction(name: str, reduce: Callable, start: float) -> None:
    @rule(name)
    @widened
    def run(x, *, window_dimensions, window_strides, padding, base_dilation, window_dilation, **_):
        x = _dilate_and_pad(x, padding, base_dilation, _worst(x.dtype, start))
        view = _windows(x, window_dimensions, window_strides, window_dilation)
        return reduce(view, axes=tuple(range(x.ndim, 2 * x.ndim)))


_window_reduction("reduce_window_sum", _reduce_sum, 0)
_window_reduction("reduce_window_max", _reduce_max, -np.inf)
_window_reduction("reduce_window_min", _reduce_min, np.inf)


@rule("select_and_scatter_add")
def _select_and_scatter_add(
    source, operand, *, select_prim, window_dimensions, window_strides, padding
):
    worst = -np.inf if select_prim.name == "ge" else np.inf
    if select_prim.name not in ("ge", "le"):
        raise Unsupported
    none = (1,) * operand.ndim
    places = np.arange(operand.size).reshape(operand.shape)
    view = _windows(
        _dilate_and_pad(operand, padding, none, worst), window_dimensions, window_strides, none
    )
    where = _windows(
        _dilate_and_pad(places, padding, none, -1), window_dimensions, window_strides, none
    )
    view, where = view.reshape(source.size, -1), where.reshape(source.size, -1)
    best = (np.argmax if worst < 0 else np.argmin)(decide(view), -1)
    out = np.zeros(operand.size, source.dtype)
    np.add.at(out, np.take_along_axis(where, best[:, None], -1)[:, 0], source.ravel())
    return out.reshape(operand.shape)


# --- indexing -----------------------------------------------------------------------------------


@rule("gather")
def _gather(x, indices, *, dimension_numbers, slice_sizes, mode, fill_value, **_):
    d = dimension_numbers
    dropped = (*d.collapsed_slice_dims, *d.operand_batching_dims)
    window = [n for axis, n in enumerate(slice_sizes) if axis not in dropped]
    index, valid = _indices(
        x.shape, indices, d.start_index_map, dropped, slice_sizes, mode,
        d.operand_batching_dims, d.start_indices_batching_dims,
    )  # fmt: skip
    if mode.name == "PROMISE_IN_BOUNDS":  # where it is broken, XLA clamps
        valid = None
    y = np.asarray(x[index])  # (*batch, *window)
    if valid is not None:
        if fill_value is None:
            fill_value = np.nan if x.dtype.kind in "fc" else np.iinfo(x.dtype).min
            fill_value = np.iinfo(x.dtype).max if x.dtype.kind == "u" else fill_value
        y = np.where(valid, y, np.asarray(fill_value, x.dtype))
    batch = [axis for axis in range(y.ndim) if axis not in d.offset_dims]
    return y.transpose(np.argsort([*batch, *d.offset_dims])) if window else y


def _scatter(name: str, write: Callable) -> None:
    @rule(name)
    def run(x, indices, updates, *, dimension_numbers, mode, update_jaxpr=None, **_):
        d = dimension_numbers
        if name == "scatter" and update_jaxpr is not None and update_jaxpr.eqns:
            raise Unsupported  # x.at[i].apply(function)
        dropped = (*d.inserted_window_dims, *d.operand_batching_dims)
        kept = [axis for axis in range(x.ndim) if axis not in dropped]
        sizes = [1] * x.ndim
        for axis, update_axis in zip(kept, d.update_window_dims, strict=True):
            sizes[axis] = updates.shape[update_axis]
        index, valid = _indices(
            x.shape, indices, d.scatter_dims_to_operand_dims, dropped, sizes, mode,
            d.operand_batching_dims, d.scatter_indices_batching_dims,
        )  # fmt: skip
        batch = [axis for axis in range(updates.ndim) if axis not in d.update_window_dims]
        values = updates.transpose(*batch, *d.update_window_dims)
        if valid is not None:
            keep = np.broadcast_to(valid, values.shape)
            index = tuple(np.broadcast_to(i, values.shape)[keep] for i in index)
            values = values[keep]
        out = x.astype(np.result_type(x, updates))
        write(out, index, values)
        return out


_scatter("scatter", lambda out, index, values: out.__setitem__(index, values))
_scatter("scatter-add", np.add.at)
_scatter("scatter-sub", np.subtract.at)
_scatter("scatter-mul", np.multiply.at)


def _indices(shape, indices, starts, dropped, sizes, mode, batching, indices_batching):
    """For every axis of the operand its index at (*batch, *window), and which are in range."""
    kept = [axis for axis in range(len(shape)) if axis not in dropped]
    batch = indices.shape[:-1]
    rank = len(batch) + len(kept)
    first = {axis: indices[..., k] for k, axis in enumerate(starts)}
    for axis, place in zip(batching, indices_batching, strict=True):
        line = np.arange(shape[axis]).reshape([-1 if i == place else 1 for i in range(len(batch))])
        first[axis] = np.broadcast_to(line, batch)
    clip, valid, index = mode.name == "CLIP", None, []
    for axis, (n, size) in enumerate(zip(shape, sizes, strict=True)):
        start = np.asarray(first.get(axis, np.zeros(batch, int))).astype(np.int64)
        inside = np.clip(start, 0, max(n - size, 0))
        if not clip:
            fits = (start == inside).reshape(batch + (1,) * len(kept))
            valid = fits if valid is None else valid & fits
        place = inside.reshape(batch + (1,) * len(kept))
        if axis in kept:
            offset = [1] * rank
            offset[len(batch) + kept.index(axis)] = size
            place = place + np.arange(size).reshape(offset)
        index.append(place)
    if valid is not None and valid.all():
        valid = None
    return tuple(index), valid
