"""What several operations share to keep their digits.

float32 inside, eˣ and eˣ − 1, Σ eˣ in two parts, √Σ x², the gradient of a matrix, σ, and the slopes
of σ and tanh out of their arguments.
"""

import functools
import math
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

__all__ = [
    "Normaliser",
    "alone",
    "as_index",
    "at_least",
    "at_most",
    "exp",
    "exp_quotient",
    "expm1",
    "from_peak",
    "inexact",
    "length",
    "length_in_units",
    "log_probabilities",
    "logistic",
    "logistic_parts",
    "magnitude",
    "normalise",
    "outer",
    "over",
    "probabilities",
    "probabilities_and_rest",
    "rounded",
    "tanh_and_slope",
    "wide",
    "widen",
]

_SHIFT = 1.5 * 2**23 + 127  # the last digit of such a number is of ones
_SERIES = (
    1.979028075e-4, 1.394469902e-3, 8.333497348e-3, 4.166629443e-2, 0.1666666587, 0.5000000068, 1, 1
)  # fmt: skip

Normaliser: TypeAlias = tuple[jax.Array, jax.Array]


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The dtype to accumulate in: float32 for what is narrower, JAX's float for integers."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"{dtype} came, and the operation is one of real numbers")
    if not jnp.issubdtype(dtype, jnp.floating):
        return jnp.dtype(jnp.result_type(float))
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def widen(x: jax.Array) -> jax.Array:
    """x in the dtype to accumulate in; as it is, weak if it was a number, if it has that."""
    dtype = wide(x.dtype)
    return x if x.dtype == dtype else x.astype(dtype)


def inexact(x: jax.Array) -> jax.Array:
    """x as it is, or integers as floating-point numbers: of unsigned ones −x would be positive."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else widen(x)


def as_index(x: jax.Array) -> jax.Array:
    """Integers as they are, or as int32: int8 cannot hold the number of 128 classes."""
    return x if x.dtype.itemsize > 2 else x.astype(jnp.int32)


def outer(x: jax.Array, dy: jax.Array) -> jax.Array:
    """Σ xᵀ ȳ over all axes but the last: (..., in), (..., out) -> (in, out), in `wide`."""
    # as one product of matrices: a contraction over several axes transposes both of them first
    x, dy = (a.reshape(math.prod(a.shape[:-1]), a.shape[-1]) for a in (x, dy))
    return jnp.matmul(x.T, dy, preferred_element_type=wide(x.dtype))


def normalise(x: jax.Array, axis: int = -1) -> Normaliser:
    """Σⱼ eˣʲ = eˣᵐ(1 + r) with m the largest entry and r = Σ_{j≠m} e^{xⱼ−xₘ}: (xₘ, r).

    x: any shape. Returns two arrays of x's shape with `axis` of size one, accumulated in float32
    at least. Nothing overflows, and an r that is small beside 1 keeps its digits: by them the
    log-probability of an almost certain class, and its distance to 1, are not rounded to zero.
    They cost a second sum, which is made only where some total is near 1.
    """
    x = widen(x)
    peak = x.max(axis, keepdims=True)
    total = jnp.exp(x - peak).sum(axis, keepdims=True)
    near = total < 1.5  # so nothing is tied
    rest = lax.cond(near.any(), _others(axis), _as_it_is, x, peak, total)
    return peak, jnp.where(near, rest, total - 1)


@functools.cache  # one function an axis: a branch that is new is compiled anew, outside of `jit`
def _others(axis):
    def others(x, peak, _total):
        e = jnp.exp(x - peak)  # 1 at m, to a rounding where x is a product: it is not rounded here
        return (e * jnp.floor(1.75 - e)).sum(axis, keepdims=True)  # 0 at m: no other is above ½

    return others


def _as_it_is(_x, _peak, total):
    return total


def log_probabilities(x: jax.Array, normaliser: Normaliser) -> jax.Array:
    """ln p = (x − xₘ) − ln(1 + r), p = softmax x."""
    return from_peak(x, normaliser) - jnp.log1p(normaliser[1])


def from_peak(x: jax.Array, normaliser: Normaliser) -> jax.Array:
    """x − xₘ, 0 at the largest also where x is a product."""
    # without the barrier XLA writes down the sum's x − xₘ
    return rounded(x) - lax.optimization_barrier(normaliser[0])


def probabilities(x: jax.Array, normaliser: Normaliser) -> jax.Array:
    """p = softmax x = e^{x−xₘ}/(1 + r)."""
    return probabilities_and_rest(x, normaliser)[0]


def probabilities_and_rest(x: jax.Array, normaliser: Normaliser) -> tuple[jax.Array, jax.Array]:
    """p and 1 − p = (r + (1 − e^{x−xₘ}))/(1 + r), with all the digits of both."""
    peak, rest = normaliser
    e = jnp.exp(widen(x) - peak)
    # of entries without a rival, r < ½, one is above ½: m, where 1 − e is of the rounding of xₘ
    certain = e > jnp.where(rest < 0.5, 0.5, jnp.inf)
    return e / (1 + rest), (rest + jnp.where(certain, 0, 1 - e)) / (1 + rest)


def at_most(x: jax.Array, bound: float | jax.Array) -> jax.Array:
    """min(x, bound), for a sum: XLA takes it in as it goes; what `where` chose it writes down."""
    return jnp.minimum(x, alone(jnp.asarray(bound, x.dtype)))


def at_least(x: jax.Array, bound: float | jax.Array) -> jax.Array:
    """max(x, bound), for a sum, as `at_most`."""
    return jnp.maximum(x, alone(jnp.asarray(bound, x.dtype)))


def alone(number: jax.Array) -> jax.Array:
    """A number for a sum, not seen to be one that others have too: XLA would write down for all of
    them an array of it.
    """
    return lax.optimization_barrier(number)


def rounded(x: jax.Array) -> jax.Array:
    """x in the dtype to accumulate in, a product rounded to it: a − xₘ is then 0 at the largest.

    Within one kernel XLA takes the product a = c z and the difference a − xₘ in one step, with one
    rounding; only a choice between them parts them.
    """
    x = widen(x)
    return jnp.where(x <= jnp.inf, x, jnp.nan)


def exp(x: jax.Array) -> jax.Array:
    """eˣ = 2ᵏ eᶠ in float32, with k the integer nearest to x / ln 2 and f = x − k ln 2; else JAX's.

    The polynomial of eᶠ has the least largest relative error for |f| ≤ ½ ln 2: 5e-11, and 1e-8 its
    derivative's. It is off by an ulp (8 above 2.4e38, where k is one less), as XLA's own on the CPU
    is, and takes two thirds of its time; XLA makes it anew for each result that needs it, where
    its own is written down and read. What is summed up next is left to XLA's, with the sum.
    """
    if x.dtype != jnp.float32:
        return jnp.exp(x)
    x = jnp.where(x < -88, -88, x)  # 2ᵏ is 0 from here on
    k = _nearest(x * (1 / math.log(2)))
    k = jnp.where(k > 127, 127, k)
    f = x - k * 0.693359375 + k * 2.12194440e-4  # ln 2 in two parts: k times the first is exact
    p = jnp.full_like(f, _SERIES[0])
    for c in _SERIES[1:]:
        p = p * f + c
    return p * _power_of_two(k)


def exp_quotient(x: jax.Array, rate: float = 1, doublings: int = 0) -> tuple[jax.Array, jax.Array]:
    """n and d of 2ᵐ e⁻ᶜˣ = n / d, c the rate and m the doublings: a quotient of it divides once.

    For x ≥ 0 nothing overflows, and all its derivatives have their digits.
    """
    h, f, power = _quotient_parts(x, rate, doublings)
    return (h + f) * power, h - f


@functools.partial(jax.jit, static_argnames=("rate", "doublings"), inline=True)
def _quotient_parts(x, rate, doublings=0):
    """h, f and 2ᵐ⁻ᵏ of 2ᵐ e⁻ᶜˣ = 2ᵐ⁻ᵏ (h + f) / (h − f).

    In float32 k is the integer nearest to cx / ln 2, f = k ln 2 / c − x, and h(f) = f coth ½cf =
    (2 + a(cf)² + b(cf)⁴) / c; a and b give a small largest relative error: 1e-9, and 2e-8 the
    derivative's. Compiled, f is one step of a processor, of one rounding; by itself k ln 2 / c has
    its own, which is k ulps of the result: so this is compiled outside of `jit` too.
    """
    if x.dtype != jnp.float32:
        return jnp.ones_like(x), jnp.zeros_like(x), 2**doublings * jnp.exp(-rate * x)
    zero, huge = ((88 + math.log(2) * m) / rate for m in (doublings, -doublings))
    x = jnp.where(x > zero, zero, x)  # 2ᵐ⁻ᵏ is 0 from here on,
    x = jnp.where(x < -huge, -huge, x)  # and about the largest number here
    k = _nearest(x * (rate / math.log(2)))
    f = k * (math.log(2) / rate) - x
    square = f * f
    h = 2 / rate + square * (0.16666595 * rate - 0.00276367 * rate**3 * square)
    return h, f, _power_of_two(doublings - k)


def _nearest(x):
    return lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN)


def _power_of_two(k):
    """2ᵏ in float32, of whole k from -127, where it is 0."""
    bits = lax.bitcast_convert_type(k + _SHIFT, jnp.int32)  # the exponent of 2ᵏ is k + 127
    return lax.bitcast_convert_type(bits << 23, jnp.float32)


def expm1(v: jax.Array) -> jax.Array:
    """eᵛ − 1 = v (1 + v/2! + v²/3! + …), the series where |v| is small.

    XLA's own on the CPU is off by up to 5 ulp, this by 2, and takes longer.
    """
    x = widen(v)
    large = jnp.abs(x) > 0.5
    small = jnp.where(large, 0, x)  # jnp.clip would halve the slope at ½
    terms = 8 if x.dtype.itemsize == 4 else 15  # the next is below a fifth of an ulp
    series = jnp.full_like(small, 1 / math.factorial(terms))
    for k in range(terms - 1, 0, -1):
        series = series * small + 1 / math.factorial(k)
    return jnp.where(large, exp(x) - 1, small * series).astype(v.dtype)


def magnitude(x: jax.Array) -> jax.Array:
    """|x|, of which JAX takes the slope at 0 to be 1: here it is 0, as that of sign x."""
    size = jnp.abs(x)
    return jnp.where(x == 0, lax.stop_gradient(size), size)  # XLA makes of it |x|, as it was


def logistic(x: jax.Array) -> jax.Array:
    """σ(x) = 1 / (1 + e⁻ˣ), with all its digits, where its slope is not needed."""
    w, n, d = logistic_parts(x)
    return w / (n + d)


def logistic_parts(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """w, n and d of σ(x) = w / (n + d) and σ′(x) = n d / (n + d)², all with all their digits.

    n / d is e^{−|x|}, and w is n, or d where x ≥ 0. What is made of σ and σ′ is one quotient, and
    its division another than that of `logistic`, or both would wait for each other.
    """
    n, d = exp_quotient(jnp.abs(x))  # JAX's |x| has the slope 1 at 0, as the branch
    return jnp.where(x < 0, n, d), n, d


def tanh_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """tanh x = (1 − e) / (1 + e) with e = e⁻²ˣ, and its slope 4e / (1 + e)², with e = e^{−2|x|}.

    1 − e is h(1 − 2⁻ᵏ) − f(1 + 2⁻ᵏ) over h − f, which has the digits of a small x, and the slope
    has those of a small e.
    """
    n, d = exp_quotient(jnp.abs(x), 2, doublings=2)
    root = 0.25 * n + d
    slope = n * d / (root * root)
    if x.dtype != jnp.float32:
        return jnp.tanh(x), slope
    h, f, power = _quotient_parts(x, 2)
    return (h * (1 - power) - f * (1 + power)) / (h * (1 + power) - f * (1 - power)), slope


def length(x: jax.Array, axis: int | tuple[int, ...] = -1) -> jax.Array:
    """‖x‖ = √Σ x² along `axis`, which stays, of size one; in float32 at least.

    Where a sum of squares may overflow or vanish in float32, the squares are those of x over a
    power of two near its largest entry, which is exact: a vector of 1e-30 has its length. Zero has
    the derivative 0. A length above the largest float is infinite; `length_in_units` holds it too.
    """
    size, unit = length_in_units(x, axis)
    return size * unit


def length_in_units(x, axis: int | tuple[int, ...] | None = -1) -> tuple[jax.Array, jax.Array]:
    """‖x‖ as `length` has it, over a unit, and the unit: 1, or a large power of two for so long a
    vector that 1 / ‖x‖, if not ‖x‖, is outside of the range of the dtype.

    With `axis` None it is that of all entries of all arrays in x, a tree: two numbers.
    """
    leaves = jax.tree.map(widen, jax.tree.leaves(x))
    dtype = max((leaf.dtype for leaf in leaves), key=lambda d: d.itemsize)
    leaves = [leaf.astype(dtype) for leaf in leaves]
    squares = _squares(leaves, axis)
    fit = (squares > 1e-24) & (squares < 1e36)  # 1e-38 on, the least square, is lost beside 1e-24
    plain = jnp.sqrt(jnp.where(fit, squares, 1)), jnp.ones_like(squares)
    careful = lax.cond(fit.all(), _plain, _scaled(axis), leaves, plain)
    return jax.tree.map(lambda a, b: jnp.where(fit, a, b), plain, careful)


def _squares(leaves, axis):
    sums = (jnp.square(x).sum(axis, keepdims=axis is not None) for x in leaves)
    return functools.reduce(jnp.add, sums)


def _plain(_leaves, plain):
    return plain


@functools.cache
def _scaled(axis):
    def scaled(leaves, _plain):
        large = _large(leaves[0].dtype)
        sizes = (jnp.abs(x).max(axis, keepdims=axis is not None, initial=0) for x in leaves)
        power = _power_of_two_below(functools.reduce(jnp.maximum, sizes))
        unit = jnp.where(power < large, jnp.ones_like(power), large)
        scale = jnp.minimum(power, large)  # its reciprocal is not subnormal
        squares = _squares([x / scale for x in leaves], axis)
        root = jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares)))
        return scale / unit * root, unit

    return scaled


def over(x: jax.Array, size: jax.Array, unit: jax.Array | None = None) -> jax.Array:
    """x / (size · unit), and 0 where the size is 0: the direction of x, if that is its length."""
    if unit is None:
        large = _large(size.dtype)
        unit = jnp.where(size > large, large, jnp.ones_like(size))
        size = size / unit
    # one division a vector; two factors, since 1 / (size · unit) may be subnormal, which is zero
    return widen(x) * (1 / unit) * (1 / jnp.where(size == 0, jnp.inf, size))


def _large(dtype: jnp.dtype) -> float:
    """A power of two so far below the largest number that sums of squares of the rest have room."""
    return 2.0 ** (jnp.finfo(dtype).maxexp - 28)


def _power_of_two_below(x: jax.Array) -> jax.Array:
    """2^⌊log₂ x⌋, read off the exponent's bits (so it has no derivative); 1 for 0."""
    integer, bits = (jnp.uint32, 0x7F800000) if x.dtype.itemsize == 4 else (jnp.uint64, 0x7FF << 52)
    power = lax.bitcast_convert_type(
        lax.bitcast_convert_type(x, integer) & jnp.array(bits, integer), x.dtype
    )
    return jnp.where(power == 0, 1, power)
