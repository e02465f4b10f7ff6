"""The interpreter against XLA: every rule, in float64, with its derivatives and the complex step.

One family of small functions is compiled at once, values, pullbacks and pushforwards together;
then each function is traced alone, interpreted, and compared element by element.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from handgrad.compare import primitives
from handgrad.compare.interpret import CONTROL, NotAnalytic, Program
from handgrad.compare.problem import Batched
from handgrad.compare.witness import STEP

EPS = 2.0**-52


@pytest.fixture(autouse=True)
def double():
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


class Probe:
    """A function with arguments; how close the two evaluations come, and what to leave out.

    ulps: allowed, of the element (`local`) or of the largest element of the result.
    differentiate: False where there is nothing to differentiate, or a kink lies at the inputs.
    analytic: False where the complex step has to refuse.
    """

    def __init__(
        self, name: str, function: Any, *args: Any, ulps: float = 16, local: bool = False,
        differentiate: bool = True, analytic: bool = True,
    ):  # fmt: skip
        self.name, self.function, self.ulps, self.local = name, function, ulps, local
        self.args = [np.asarray(a) if not hasattr(a, "dtype") else a for a in args]
        self.floats = [
            i
            for i, a in enumerate(self.args)
            if isinstance(a, np.ndarray) and a.dtype == np.float64
        ]
        self.differentiate = differentiate and bool(self.floats)
        self.analytic = analytic

    def flat(self, *args):
        """The outputs as a list."""
        return jax.tree.leaves(self.function(*args))

    def smooth(self, *floats):
        """The float64 outputs as a function of the float64 arguments."""
        args = list(self.args)
        for i, x in zip(self.floats, floats, strict=True):
            args[i] = x
        return [y for y in self.flat(*args) if y.dtype == jnp.float64]

    def pullback(self, *floats):
        y, pull = jax.vjp(self.smooth, *floats)
        return list(pull([wave(v) for v in y]))

    def pushforward(self, *floats):
        return jax.jvp(self.smooth, floats, tuple(wave(x) for x in floats))[1]


def wave(x):
    """A cotangent, or a direction, with entries of both signs and of unlike sizes."""
    return jnp.cos(1.7 * jnp.arange(x.size, dtype=jnp.float64)).reshape(x.shape)


def compiled(probes):
    """Values, pullbacks and pushforwards by XLA, in one program for all probes."""

    def everything(all_args):
        results = []
        for probe, args in zip(probes, all_args, strict=True):
            floats = [args[i] for i in probe.floats]
            results.append(
                (
                    probe.flat(*args),
                    probe.pullback(*floats) if probe.differentiate else [],
                    probe.pushforward(*floats) if probe.differentiate else [],
                )
            )
        return results

    run = jax.jit(everything, compiler_options={"xla_backend_optimization_level": 0})
    return run([p.args for p in probes])


def far(got, want, ulps, local):
    """Why the two differ, or an empty string."""
    if jax.dtypes.issubdtype(want.dtype, jax.dtypes.extended):
        got, want = jax.random.key_data(got), jax.random.key_data(want)
    got, want = np.asarray(got), np.asarray(want)
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{got.dtype}{got.shape} for {want.dtype}{want.shape}"
    if not want.size:
        return ""
    if not jnp.issubdtype(want.dtype, jnp.inexact):
        return "" if np.array_equal(got, want) else f"{got} for {want}"
    eps = float(jnp.finfo(want.dtype).eps)
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    got, want = got.astype(wide), want.astype(wide)
    with np.errstate(all="ignore"):
        size = np.abs(want)
        scale = size if local else np.where(np.isfinite(size), size, 0).max()
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        same |= np.abs(got - want) <= ulps * eps * scale + 1e-300
    return "" if same.all() else f"{got[~same][:4]} for {want[~same][:4]}"


def complex_step(probe):
    """The pushforward, and the value that came with it, by the complex step."""
    floats = [np.asarray(probe.args[i]) for i in probe.floats]
    moved = [x + 1j * STEP * np.asarray(wave(x)) for x in floats]
    outs = Program(probe.smooth, *floats)(*moved)
    slopes = [o.imag / STEP if o.dtype.kind == "c" else np.zeros(o.shape) for o in outs]
    return slopes, [np.real(o) for o in outs]


def examine(probes):
    """Every disagreement in a family, by name."""
    found = {}
    for probe, (values, pulled, pushed) in zip(probes, compiled(probes), strict=True):
        floats = [probe.args[i] for i in probe.floats]

        def differ(kind, got, wants, probe=probe):
            assert len(got) == len(wants)
            for k, (g, want) in enumerate(zip(got, wants, strict=True)):
                why = far(g, want, probe.ulps, probe.local)
                if why:
                    found[f"{probe.name}: {kind} {k}"] = why

        try:
            differ("value", Program(probe.flat, *probe.args)(*probe.args), values)
            if not probe.differentiate:
                continue
            differ("pullback", Program(probe.pullback, *floats)(*floats), pulled)
            slopes, beside = complex_step(probe)
        except NotAnalytic:
            if probe.analytic:
                found[f"{probe.name}: complex step"] = "refused"
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            found[f"{probe.name}: raised"] = f"{type(error).__name__}: {error}"
        else:
            differ("complex step", slopes, pushed)
            smooth = [v for v in values if v.dtype == np.float64]
            differ("value beside the complex step", beside, smooth)
    return found


# --- the table ------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


def between(low, high, *shape):
    return RNG.uniform(low, high, shape)


SPREAD = np.array([-3.1, -0.7, -1e-3, -1e-9, 1e-12, 2e-5, 0.3, 0.9, 1.2, 5.3])
UNIT = np.array([-0.97, -0.4, -1e-3, 1e-12, 1e-5, 0.2, 0.5, 0.93])
POSITIVE = np.array([1e-12, 1e-3, 0.2, 0.999, 1.0001, 1.7, 3.2, 41.0])
BEYOND = np.array([1.0001, 1.3, 2.0, 9.0, 1e5])

elementwise = functools.partial(Probe, local=True)


def unary():
    """XLA's own functions are good to a few units in the last place, not to half of one."""
    smooth = dict(
        neg=lax.neg, sin=lax.sin, cos=lax.cos, tan=lax.tan, sinh=lax.sinh,
        cosh=lax.cosh, atan=lax.atan, asinh=lax.asinh, exp=lax.exp, exp2=lax.exp2,
        expm1=lax.expm1, square=lax.square, logistic=lax.logistic, erf=lax.erf, erfc=lax.erfc,
        cbrt=lax.cbrt, abs=lax.abs,
    )  # fmt: skip
    if hasattr(lax, "one_minus_square"):  # from JAX 0.12 on
        smooth |= {"polynomial": lambda x: lax.polynomial(x, (1.0, 0.5, 0.25))}
        yield elementwise("one_minus_square", lax.one_minus_square, UNIT, ulps=64)
        yield elementwise("log2", lax.log2, POSITIVE, ulps=64)
    for name, function in smooth.items():
        yield elementwise(name, function, SPREAD, ulps=64)
    # 1 - tanh² and x² - 1 cancel: a unit in the last place of tanh(5.3) is 10⁴ of its slope
    yield elementwise("tanh", lax.tanh, SPREAD, ulps=1e5)
    yield elementwise("acosh", lax.acosh, BEYOND, ulps=1e5)
    for name, function in dict(asin=lax.asin, acos=lax.acos, atanh=lax.atanh).items():
        yield elementwise(name, function, UNIT, ulps=64)
    for name, function in dict(
        log=lax.log, sqrt=lax.sqrt, rsqrt=lax.rsqrt, log1p=lax.log1p
    ).items():
        yield elementwise(name, function, POSITIVE, ulps=64)
    # digamma crosses zero at 1.46 and lgamma at 1 and 2, where XLA's series lose digits
    yield Probe("lgamma", lax.lgamma, POSITIVE, ulps=1e3)
    yield Probe("digamma", lax.digamma, POSITIVE, ulps=1e3)
    # XLA's erf_inv is a polynomial of its own
    yield elementwise("erf_inv", lax.erf_inv, UNIT, ulps=1e3)
    yield elementwise("log1p of negatives", lax.log1p, -between(0.01, 0.9, 5), ulps=64)
    for power in (-17, -3, -1, 0, 1, 2, 3, 15, 16, 40):
        yield elementwise(
            f"integer_pow {power}",
            functools.partial(lax.integer_pow, y=power),
            np.array([-3.1, -0.7, 0.3, 1.2]),
            ulps=128,
        )
    for name, function in dict(
        sign=lax.sign, floor=lax.floor, ceil=lax.ceil, even=jnp.round, away=lax.round,
    ).items():  # fmt: skip
        yield elementwise(name, function, SPREAD)
    yield Probe("is_finite", lax.is_finite, np.array([1.0, np.inf, -np.inf, np.nan]))
    yield Probe("stop_gradient", lambda x: lax.stop_gradient(x) * x, SPREAD, analytic=True,
                differentiate=False)  # fmt: skip
    yield Probe("copy", jnp.array, SPREAD)


def rounding():
    """Halves, and the largest numbers that have a fraction."""
    x = np.array([-2.5, -1.5, -0.5, -0.0, 0.5, 1.5, 2.5, 0.49999999999999994, 2.0**52 + 1, 3e300])
    yield elementwise("round away from zero", lax.round, x, differentiate=False)
    yield elementwise("round half to even", jnp.round, x, differentiate=False)
    yield elementwise("floor", jnp.floor, x, differentiate=False)
    yield elementwise("ceil", jnp.ceil, x, differentiate=False)


def edges():
    """Values alone at the ends of the range: 0, inf and nan come out where XLA has them."""
    x = np.array([0.0, 1e-300, -1e-300, 1e4, -1e4, 600.0, -600.0, np.inf, -np.inf, np.nan])
    for name in (
        "neg sin cos tanh exp expm1 logistic erf erfc sqrt abs sign floor square log log1p atan "
        "asinh rsqrt exp2 cbrt is_finite sinh cosh"
    ).split():
        yield elementwise(name, getattr(lax, name), x, ulps=1e3, differentiate=False)
    a, b = (np.array(p) for p in zip(*itertools.product(x, x), strict=True))
    for name in "add sub mul div max min rem atan2 eq lt ge pow".split():
        yield elementwise(name, getattr(lax, name), a, b, ulps=64, differentiate=False)
    yield elementwise("clamp", lambda x: lax.clamp(-1.0, x, 1.0), x, differentiate=False)


def binary():
    x, y = np.repeat(SPREAD, 10), np.tile(SPREAD + 0.037, 10)
    for name in "add sub mul div max min atan2 rem".split():
        yield Probe(name, getattr(lax, name), x, y)
    yield elementwise("add_any", lambda x: jax.vjp(lambda t: t * t, x)[1](x)[0], x)
    yield elementwise("pow", lax.pow, np.abs(x), y, ulps=1e3)
    yield elementwise("pow of negatives by whole numbers", lambda x: x**3.0, SPREAD, ulps=64)
    yield elementwise("pow with an integer exponent", lax.pow, SPREAD, np.arange(10) - 4, ulps=1e3)
    for name in "eq ne lt le gt ge".split():
        yield Probe(name, getattr(lax, name), np.round(x), np.round(y))
    yield elementwise("clamp", lax.clamp, -np.ones(10) * 0.5, SPREAD, np.ones(10) * 0.8)
    yield elementwise("clamp by scalars", lambda x: lax.clamp(-0.5, x, 0.8), SPREAD)
    yield elementwise("nextafter", lax.nextafter, x, y, differentiate=False)
    yield elementwise("select", jnp.where, x > y, x, y)
    yield Probe("select by a scalar", lambda p, x, y: lax.select(p, x, y), np.array(True), x, y)
    yield Probe("select_n of three", lambda w, a, b, c: lax.select_n(w, a, b, c),
                np.arange(10, dtype=np.int32) % 3, SPREAD, SPREAD * 2, SPREAD * 3)  # fmt: skip
    yield Probe("select_n of forty", lambda w, x: lax.select_n(w, *[x * k for k in range(40)]),
                np.arange(0, 40, 4, dtype=np.int32), SPREAD)  # fmt: skip
    yield elementwise("reduce_precision", lambda x: lax.reduce_precision(x, 8, 7), SPREAD,
                      differentiate=False)  # fmt: skip
    yield elementwise("reduce_precision to single", lambda x: lax.reduce_precision(x, 8, 23),
                      SPREAD, differentiate=False)  # fmt: skip
    yield elementwise("reduce_precision to an odd kind", lambda x: lax.reduce_precision(x, 6, 9),
                      SPREAD, differentiate=False)  # fmt: skip


def integers():
    signs = np.array([-7, -6, -1, 0, 1, 5, 7, 2**31 - 1, -(2**31)], np.int32)
    a, b = (np.array(p, np.int32) for p in zip(*itertools.product(signs, signs), strict=True))
    for name in "add sub mul div rem max min bitwise_and bitwise_or bitwise_xor lt".split():
        yield Probe(name, getattr(lax, name), a, b)
    yield Probe("floor_divide", jnp.floor_divide, a[b != 0], b[b != 0])
    yield Probe("mod", jnp.mod, a[b != 0], b[b != 0])
    bytes_ = np.arange(0, 256, 15, dtype=np.uint8)
    yield Probe("unsigned div", lax.div, bytes_, np.flip(bytes_))
    yield Probe("unsigned rem", lax.rem, bytes_, np.flip(bytes_))
    yield Probe("unsigned sub", lax.sub, bytes_, np.flip(bytes_))
    for name in "neg sign abs bitwise_not population_count clz".split():
        yield Probe(name, getattr(lax, name), signs)
    yield Probe("not of booleans", lax.bitwise_not, np.array([True, False]))
    yield Probe("integer_pow", lambda x: lax.integer_pow(x, 3), signs)
    small = np.arange(5, dtype=np.int32)
    for name in "shift_left shift_right_arithmetic shift_right_logical".split():
        yield Probe(name, getattr(lax, name), signs[:5], small)
    yield Probe("clamp", lambda x: lax.clamp(np.int32(-3), x, np.int32(4)), signs)
    table = np.arange(-6, 6, dtype=np.int32).reshape(3, 4)
    for name in "sum prod max min argmax argmin cumsum cumprod sort all any".split():
        function = getattr(jnp, name)
        yield Probe(f"{name} of integers", lambda x, f=function: f(x, axis=1), table)
    yield Probe(
        "sum of bytes wraps", lambda x: jnp.sum(x, dtype=np.int8), table.astype(np.int8) * 40
    )
    yield Probe("reduce_xor", lambda x: lax.reduce_xor(x, (0,)), table)
    yield Probe("bitwise reductions", lambda x: (lax.reduce_and(x, (1,)), lax.reduce_or(x, (1,))),
                table)  # fmt: skip
    yield Probe(
        "bytes into a wider product",
        lambda x: lax.dot_general(
            x, x.T, (((1,), (0,)), ((), ())), preferred_element_type=np.int32
        ),
        table.astype(np.int8) * 20,
    )
    yield Probe("top_k of unsigned", lambda x: lax.top_k(x, 3), bytes_)
    yield Probe("top_k of the least integer", lambda x: lax.top_k(x, 3), signs)
    numbers = np.array([-2.7, -0.5, 0.0, 0.5, 2.7, 254.6])
    for kind in (np.int32, np.int64, np.uint8, np.bool_, np.float32, np.float16):
        yield Probe(f"to {kind.__name__}", lambda x, k=kind: lax.convert_element_type(x, k),
                    np.abs(numbers) if kind is np.uint8 else numbers)  # fmt: skip
    yield Probe("to an integer out of range", lambda x: x.astype(np.int32),
                np.array([3e9, -3e9, np.inf, np.nan]))  # fmt: skip


def shapes():
    x = normal(3, 4)
    yield Probe("broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (3, 2, 4), (0, 2)), x)
    yield Probe(
        "broadcast from size one", lambda x: lax.broadcast_in_dim(x, (3, 5), (0, 1)), x[:, :1]
    )
    yield Probe("reshape", lambda x: lax.reshape(x, (2, 6)), x)
    yield Probe("reshape and transpose", lambda x: lax.reshape(x, (2, 6), (1, 0)), x)
    yield Probe("squeeze", lambda x: lax.squeeze(x, (0, 2)), normal(1, 3, 1, 2))
    yield Probe("expand_dims", lambda x: lax.expand_dims(x, (0, 2)), x)
    yield Probe("transpose", lambda x: lax.transpose(x, (2, 0, 1)), normal(2, 3, 4))
    yield Probe("rev", lambda x: lax.rev(x, (0, 1)), x)
    yield Probe("concatenate", lambda x, y: lax.concatenate([x, y, x], 1), x, normal(3, 2))
    yield Probe("stack", lambda x, y: jnp.stack([x, y], 1), x, x + 1)
    yield Probe("unstack", lambda x: jnp.unstack(x, axis=1)[1:3], x)
    yield Probe("split", lambda x: lax.split(x, (1, 2, 1), 1), x)
    yield Probe("slice", lambda x: lax.slice(x, (0, 1), (3, 4), (2, 1)), x)
    yield Probe("slice without strides", lambda x: lax.slice(x, (1, 1), (3, 3)), x)
    yield Probe("tile", lambda x: jnp.tile(x, (2, 1, 2)), x)
    yield Probe("iota", lambda x: x * lax.broadcasted_iota(jnp.float64, (3, 4), 1), x)
    yield Probe("iota of bfloat16", lambda x: lax.iota(jnp.bfloat16, 9), x, differentiate=False)
    for start in ((0, 1), (2, 3), (-5, 1), (100, -100)):
        i = [np.int32(s) for s in start]
        yield Probe(
            f"dynamic_slice {start}", lambda x, i, j: lax.dynamic_slice(x, (i, j), (2, 2)), x, *i
        )
        yield Probe(
            f"dynamic_update_slice {start}",
            lambda x, u, i, j: lax.dynamic_update_slice(x, u, (i, j)), x, normal(2, 2), *i,
        )  # fmt: skip
    yield Probe("negative index", lambda x: x[-1, -2] * x[:, -1], x)
    yield Probe("roll", lambda x: jnp.roll(x, (1, -2), (0, 1)), x)
    for config in (
        [(1, 2, 0), (0, 0, 1)], [(-1, 0, 0), (0, -2, 0)], [(-1, 1, 2), (2, -3, 1)],
        [(-4, 5, 0), (0, 0, 0)], [(-2, -1, 1), (1, 0, 3)],
    ):  # fmt: skip
        yield Probe(f"pad {config}", lambda x, v, c=config: lax.pad(x, v, c), x, np.array(0.5))
    yield Probe("optimization_barrier", lambda x, y: lax.optimization_barrier((x, y)), x, x * 2)


def reductions():
    x = normal(2, 3, 4)
    for name in "sum prod max min".split():
        reduce = getattr(jnp, name)
        for axes in ((0,), (1, 2), (0, 2), (0, 1, 2)):
            yield Probe(f"{name} over {axes}", lambda x, f=reduce, a=axes: f(x, axis=a), x)
    for name, function in dict(argmax=jnp.argmax, argmin=jnp.argmin).items():
        yield Probe(name, lambda x, f=function: f(x, axis=1), x)
        yield Probe(f"{name} of ties", lambda x, f=function: f(x, axis=0), np.ones((3, 2)))
        yield Probe(f"{name} with nan", lambda x, f=function: f(x),
                    np.array([1.0, np.nan, 3.0]))  # fmt: skip
    for name in "cumsum cumprod cummax cummin cumlogsumexp".split():
        cumulate = getattr(lax, name)
        # the complex step has no say in what follows the largest so far: XLA is asked
        for reverse in (False, True):
            yield Probe(f"{name} reverse={reverse}",
                        lambda x, f=cumulate, r=reverse: f(x, axis=1, reverse=r), x,
                        analytic=name in ("cumsum", "cumprod"))  # fmt: skip
    yield Probe("sort", lambda x: jnp.sort(x, axis=0), x)
    yield Probe("sort with nan", jnp.sort, np.array([3.0, np.nan, -1.0]), differentiate=False)
    yield Probe("sort descending", lambda x: jnp.sort(x, descending=True), x)
    yield Probe("argsort of ties", jnp.argsort, np.array([1.0, 0.0, 1.0, 0.0, 1.0]))
    yield Probe("sort several", lambda x, y: lax.sort((x, y), dimension=1, num_keys=1), x, x + 1)
    yield Probe("sort by two keys", lambda x, y: lax.sort((x, y), dimension=1, num_keys=2),
                np.round(x), normal(2, 3, 4), analytic=False)  # fmt: skip
    yield Probe("sort stably", lambda x, y: lax.sort((x, y), num_keys=1),
                np.array([1.0, 0.0, 1.0, 0.0]), normal(4), differentiate=False)  # fmt: skip
    yield Probe("top_k", lambda x: lax.top_k(x, 2), x)
    yield Probe("top_k of ties", lambda x: lax.top_k(x, 3), np.array([1.0, 2.0, 2.0, 1.0, 2.0]))
    yield Probe("median", lambda x: jnp.median(x, axis=1), x, analytic=False)
    yield Probe("logsumexp", lambda x: jax.nn.logsumexp(x, axis=1), x)
    yield Probe("variance", lambda x: jnp.var(x, axis=(0, 2)), x)
    yield Probe("norm", lambda x: jnp.linalg.norm(x, axis=1), x)
    yield Probe("any and all", lambda x: (jnp.any(x > 0, 0), jnp.all(x > -1, 1)), x)
    yield Probe(
        "general reduction",
        lambda x: lax.reduce(x, 0.0, lambda a, b: jnp.hypot(a, b), (1,)),
        x,
        differentiate=False,
    )


def dots():
    x, y = normal(2, 3, 4), normal(2, 4, 5)
    yield Probe("matrix", jnp.matmul, x[0], y[0])
    yield Probe("batch", jnp.matmul, x, y)
    yield Probe("vector", jnp.dot, x[0, 0], y[0, :, 0])
    yield Probe("outer", lambda a, b: lax.dot_general(a, b, (((), ()), ((), ()))), x[0], y[0])
    yield Probe("batch axes in the middle",
                lambda a, b: lax.dot_general(a, b, (((2,), (0,)), ((1,), (2,)))),
                normal(2, 3, 4), normal(4, 5, 3))  # fmt: skip
    yield Probe("two batch axes, two contracted",
                lambda a, b: lax.dot_general(a, b, (((0, 3), (2, 1)), ((1, 2), (3, 0)))),
                normal(2, 3, 4, 5), normal(4, 5, 2, 3))  # fmt: skip
    yield Probe("einsum", lambda a, b: jnp.einsum("bij,bjk,bik->b", a, b, jnp.matmul(a, b)), x, y)
    yield Probe("tensordot", lambda a, b: jnp.tensordot(a, b, ((0, 2), (0, 1))), x, y)
    yield Probe("nothing to contract", lambda a, b: a @ b, np.zeros((2, 0)), np.zeros((0, 3)))
    yield Probe("integers by floats", lambda a, b: a @ b, np.arange(12).reshape(3, 4), y[0])


def convolutions():
    x = normal(2, 5, 6, 4)
    flat = ("NHWC", "HWIO", "NHWC")
    conv = functools.partial(lax.conv_general_dilated, dimension_numbers=flat)
    grouped = functools.partial(conv, feature_group_count=2)
    w6 = normal(2, 3, 2, 6)
    yield Probe("groups", lambda x, w: grouped(x, w, (1, 1), "VALID"), x, w6)
    yield Probe("strides, padding", lambda x, w: grouped(x, w, (2, 1), [(1, 2), (0, 3)]), x, w6)
    yield Probe("negative padding", lambda x, w: grouped(x, w, (1, 1), [(-1, 1), (0, -1)]), x, w6)
    yield Probe(
        "kernel dilation", lambda x, w: grouped(x, w, (1, 2), "SAME", rhs_dilation=(2, 2)), x, w6
    )
    yield Probe("input dilation", lambda x, w: grouped(
        x, w, (1, 1), [(1, 1), (2, 0)], lhs_dilation=(2, 3)), x, w6)  # fmt: skip
    yield Probe(
        "everything",
        lambda x, w: grouped(
            x, w, (2, 3), [(2, 1), (0, 2)], lhs_dilation=(3, 2), rhs_dilation=(2, 1)
        ),
        x,
        w6,
    )
    yield Probe("batch groups", lambda x, w: conv(
        x, w, (1, 1), "VALID", batch_group_count=2), x, normal(2, 2, 4, 6))  # fmt: skip
    yield Probe("depthwise", lambda x, w: conv(
        x, w, (1, 1), "SAME", feature_group_count=4), x, normal(2, 2, 1, 8))  # fmt: skip
    yield Probe("other layouts", lambda x, w: lax.conv_general_dilated(
        x, w, (1, 2), "SAME", dimension_numbers=("CNHW", "OIHW", "HWNC")),
        normal(3, 2, 5, 6), normal(4, 3, 2, 2))  # fmt: skip
    yield Probe("one axis", lambda x, w: lax.conv_general_dilated(
        x, w, (2,), "VALID"), normal(2, 3, 7), normal(4, 3, 2))  # fmt: skip
    yield Probe("three axes", lambda x, w: lax.conv_general_dilated(
        x, w, (1, 1, 2), "SAME"), normal(1, 2, 3, 2, 4), normal(2, 2, 2, 1, 2))  # fmt: skip
    yield Probe("no axis", lambda x, w: lax.conv_general_dilated(x, w, (), ()),
                normal(3, 2), normal(4, 2))  # fmt: skip
    yield Probe("transposed", lambda x, w: lax.conv_transpose(
        x, w, (2, 2), "SAME", dimension_numbers=flat), x, normal(3, 3, 4, 2))  # fmt: skip
    yield Probe("kernel beyond the input", lambda x, w: conv(x, w, (1, 1), "VALID"),
                normal(1, 2, 2, 1), normal(3, 3, 1, 1))  # fmt: skip


def windows():
    x = normal(2, 6, 5)
    for name, start, op in (
        ("sum", 0.0, lax.add),
        ("max", -np.inf, lax.max),
        ("min", np.inf, lax.min),
    ):
        reduce = functools.partial(lax.reduce_window, init_value=start, computation=op)
        yield Probe(
            f"{name}, strides",
            lambda x, f=reduce: f(
                x, window_dimensions=(1, 2, 3), window_strides=(1, 2, 1), padding="VALID"
            ),
            x,
        )
        yield Probe(f"{name}, overlap and padding", lambda x, f=reduce: f(
            x, window_dimensions=(1, 3, 3), window_strides=(1, 2, 2),
            padding=((0, 0), (1, 2), (2, 0))), x)  # fmt: skip
    yield Probe(
        "sum, dilations",
        lambda x: lax.reduce_window(
            x, 0.0, lax.add, (1, 2, 2), (1, 1, 2), ((0, 0), (1, 0), (0, 3)), (1, 2, 1), (2, 2, 1)
        ),
        x,
    )
    yield Probe("max, window dilation", lambda x: lax.reduce_window(
        x, -np.inf, lax.max, (1, 2, 2), (1, 1, 2), "SAME", window_dilation=(1, 2, 1)), x,
        differentiate=False)  # fmt: skip
    yield Probe(
        "max of integers",
        lambda x: lax.reduce_window(x, np.int32(-(2**31)), lax.max, (1, 2, 2), (1, 2, 2), "VALID"),
        (x * 9).astype(np.int32),
    )
    yield Probe("general, product", lambda x: lax.reduce_window(
        x, 1.0, lax.mul, (1, 2, 2), (1, 2, 2), "VALID"), x, differentiate=False)  # fmt: skip
    yield Probe("window beyond the input", lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 7, 1), (1, 1, 1), "VALID"), x)  # fmt: skip
    yield Probe("max of ties, gradient", _pool_gradient, np.ones((1, 4, 4)), normal(1, 2, 2),
                differentiate=False)  # fmt: skip
    yield Probe("second derivative of max pooling",
                lambda x, d: jax.jvp(lambda t: _pool_gradient(t, d), (x,), (x,))[1],
                normal(1, 4, 4), normal(1, 2, 2), differentiate=False)  # fmt: skip
    yield Probe("sum of narrow floats", lambda x: lax.reduce_window(
        x.astype(np.float32), np.float32(0), lax.add, (1, 2, 2), (1, 1, 1), "VALID"), x,
        differentiate=False)  # fmt: skip


def _pool(x):
    return lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2), (1, 2, 2), "VALID")


def _pool_gradient(x, d):
    return jax.vjp(_pool, x)[1](d)[0]


def gathers():
    x = normal(5, 4)
    indices = np.array([0, 4, 2, 2, -1, -5, 7, -9])
    once = np.array([2, 1, 7, -9])  # no place twice, clipped or not: what is written last is open
    for mode in ("clip", "fill", "wrap"):
        yield Probe(f"take {mode}", lambda x, i, m=mode: jnp.take(x, i, axis=0, mode=m), x, indices)
    for mode in ("clip", "drop"):
        yield Probe(f"at set {mode}", lambda x, i, u, m=mode: x.at[i].set(u, mode=m),
                    x, once, normal(4, 4))  # fmt: skip
        for update in ("add", "mul", "min", "max", "subtract", "power"):
            yield Probe(f"at {update} {mode}",
                        lambda x, i, u, m=mode, f=update: getattr(x.at[i], f)(u, mode=m),
                        np.abs(x) if update == "power" else x,
                        indices if update in ("add", "subtract") else once,
                        normal(8 if update in ("add", "subtract") else 4, 4),
                        analytic=update not in ("min", "max"),
                        differentiate=update not in ("mul", "power"))  # fmt: skip
    yield Probe(
        "fill value", lambda x, i: jnp.take(x, i, axis=0, mode="fill", fill_value=7.0), x, indices
    )
    yield Probe("fill of integers", lambda x, i: jnp.take(x, i, mode="fill"), np.arange(5), indices)
    yield Probe("fill of unsigned", lambda x, i: jnp.take(x, i, mode="fill"),
                np.arange(5, dtype=np.uint8), indices)  # fmt: skip
    yield Probe("fill of booleans", lambda x, i: jnp.take(x, i, mode="fill"),
                np.array([True, False, False]), indices)  # fmt: skip
    yield Probe("promised", lambda x, i: x.at[i].get(mode="promise_in_bounds"), x, indices[:4])
    yield Probe("two index arrays", lambda x, i, j: x[i, j], x, indices[:4], np.array([0, 3, 1, 1]))
    yield Probe("index arrays around a slice", lambda x, i, j: x[i, :, j], normal(3, 2, 4),
                np.array([[0, 2]]), np.array([[1], [3]]))  # fmt: skip
    yield Probe("new axis", lambda x, i: x[:, None, i], x, np.array([[3, 0], [1, 1]]))
    yield Probe("column", lambda x, i: x[:, i], x, np.array([3, 0, 0]))
    yield Probe(
        "take_along_axis", lambda x, i: jnp.take_along_axis(x, i, 1), x, indices[:5, None] % 4
    )
    batched = normal(3, 5, 2)
    rows = np.array([[0, 4], [2, 2], [9, -3]])
    yield Probe("batching", jax.vmap(lambda x, i: x[i]), batched, rows)
    yield Probe(
        "batching of scatter",
        jax.vmap(lambda x, i, u: x.at[i].add(u)),
        batched,
        rows,
        normal(3, 2, 2),
    )
    yield Probe("batching of slices",
                jax.vmap(lambda x, i: lax.dynamic_slice(x, (i, jnp.int32(0)), (2, 2))),
                batched, np.array([0, 9, -3], np.int32))  # fmt: skip
    yield Probe("batching of updates",
                jax.vmap(lambda x, u, i: lax.dynamic_update_slice(x, u, (i, jnp.int32(1)))),
                batched, normal(3, 2, 1), np.array([0, 9, 3], np.int32))  # fmt: skip
    yield Probe("batching twice", jax.vmap(jax.vmap(lambda x, i: x[i])), normal(2, 3, 4),
                np.array([[0, 1, 2], [3, 3, 0]]))  # fmt: skip
    yield Probe("apply", lambda x, i: x.at[i].apply(jnp.sin), x, np.array([0, 3]),
                differentiate=False)  # fmt: skip
    yield Probe("embedding", lambda t, i: t[i].sum(0), x, np.array([[1, 1], [1, 2]]))
    yield Probe("one_hot", lambda i: jax.nn.one_hot(i, 4, dtype=np.float64), np.array([0, 3, 5]))
    yield Probe("scatter slices", lambda x, u: x.at[1:3, ::2].set(u), x, normal(2, 2))
    yield Probe(
        "segment_sum", lambda x, s: jax.ops.segment_sum(x, s, 3), x, np.array([0, 2, 2, 0, 5])
    )


def control():
    x, w = normal(3), normal(3, 3) / 2

    @jax.custom_vjp
    def doubled(x):
        return jnp.sin(x)

    doubled.defvjp(lambda x: (jnp.sin(x), x), lambda x, d: (2 * d * jnp.cos(x),))

    @jax.custom_jvp
    def tripled(x):
        return jnp.sin(x)

    tripled.defjvp(lambda x, t: (jnp.sin(*x), 3 * t[0] * jnp.cos(*x)))

    def step(h, row):
        h = jnp.tanh(w @ h + row)
        return h, (h * row, row.sum())

    rows = normal(4, 3)
    recurrent = functools.partial(Probe, ulps=64)  # rounding errors are carried along
    yield recurrent("scan", lambda h, r: lax.scan(step, h, r), x, rows)
    yield recurrent(
        "scan in reverse", lambda h, r: lax.scan(step, h, r, reverse=True), x, rows, ulps=64
    )
    yield recurrent("scan unrolled", lambda h, r: lax.scan(step, h, r, unroll=2), x, rows)
    yield recurrent("scan of nothing", lambda h, r: lax.scan(step, h, r), x, rows[:0])
    yield recurrent(
        "scan without rows", lambda h: lax.scan(lambda c, _: (c * h, c), h, None, 3)[1], x
    )
    yield recurrent("scan of integers", lambda h: lax.scan(
        lambda c, i: (c + i * h, None), h, jnp.arange(3))[0], x)  # fmt: skip
    yield recurrent("scan in scan", lambda h, r: lax.scan(
        lambda c, row: lax.scan(step, c, jnp.stack([row, -row])), h, r), x, rows)  # fmt: skip
    yield recurrent(
        "fori_loop", lambda h: lax.fori_loop(0, 4, lambda i, c: jnp.sin(c) * i + h, h), x
    )
    # reverse mode has no rule for a while loop
    yield Probe(
        "while",
        lambda h: lax.while_loop(
            lambda c: c.sum() < 50, lambda c: c * 1.5 + jnp.abs(h), jnp.abs(h)
        ),
        x,
        differentiate=False,
    )
    yield Probe("while under vmap", jax.vmap(lambda n: lax.while_loop(
        lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 1.5), (jnp.int32(0), n * 1.0))),
        np.array([1, 5, 3]))  # fmt: skip
    for k in (-1, 0, 1, 2, 5):
        yield Probe(f"switch {k}", lambda i, h: lax.switch(
            i, [jnp.sin, jnp.cos, lambda t: t * jnp.sum(t)], h), np.int32(k), x)  # fmt: skip
    yield Probe("cond", lambda h: lax.cond(h[0] > h[1], jnp.sin, jnp.exp, h), x)
    yield Probe("cond under vmap", jax.vmap(lambda h: lax.cond(h > 0, jnp.sin, jnp.exp, h)), x)
    yield Probe("jit", jax.jit(lambda h: jax.jit(jnp.sin)(h) * 2), x)
    yield Probe("jit with a constant inside", jax.jit(lambda h: h @ jnp.asarray(w)), x)
    yield Probe("checkpoint", jax.checkpoint(lambda h: jnp.sin(jnp.cos(h) @ w)), x)
    yield Probe("custom_jvp", lambda h: tripled(h).sum(), x, differentiate=False)
    yield Probe("custom_vjp", lambda h: doubled(h).sum(), x, differentiate=False)
    yield Probe("its gradient", jax.grad(lambda h: doubled(h).sum()), x, differentiate=False)
    yield Probe("the other's", jax.grad(lambda h: tripled(h).sum()), x, differentiate=False)
    yield Probe(
        "softplus, relu, silu, gelu",
        lambda h: [
            f(h) for f in (jax.nn.softplus, jax.nn.relu, jax.nn.silu, jax.nn.gelu, jax.nn.elu)
        ],
        x,
    )
    yield Probe("unused results", lambda h: lax.scan(step, h, rows)[1][1], x)
    yield Probe("a constant result", lambda h: (jnp.float64(3.0), h), x)
    yield Probe("an argument twice", lambda h: (h, h), x)


def algebra():
    """Primitives without a rule are compiled one by one; there the complex step refuses."""
    a = normal(3, 3) / 4 + 2 * np.eye(3)
    spd = a @ a.T
    refused = functools.partial(Probe, ulps=1e3, analytic=False)
    yield refused("cholesky", jnp.linalg.cholesky, spd)
    yield refused("triangular_solve", functools.partial(
        jax.scipy.linalg.solve_triangular, lower=True), np.tril(a), normal(3))  # fmt: skip
    yield refused("solve", jnp.linalg.solve, a, normal(3))
    yield refused("complex", lambda x, y: jnp.abs(lax.complex(x, y)), normal(4), normal(4))
    yield refused("fft", lambda x: jnp.abs(jnp.fft.fft(x))[1:3], normal(6))
    yield refused("to complex numbers", lambda x: jnp.abs(x + 2j), normal(6))
    yield refused("bessel", jax.scipy.special.i0e, SPREAD)


def random():
    """Keys are arrays that NumPy does not know; they are sliced, chosen and carried along."""
    threefry, key = jax.random.key(3), jax.random.key(3, impl="rbg")  # the latter compiles faster

    def both(k, x):
        k1, k2 = jax.random.split(k)
        return x * jax.random.uniform(k1, x.shape) + jax.random.uniform(k2, x.shape)

    yield Probe("both halves of a key", both, threefry, normal(4))
    yield Probe("dropout", lambda k, x: jnp.where(
        jax.random.bernoulli(k, 0.5, x.shape), x / 0.5, 0), threefry, normal(6))  # fmt: skip
    yield Probe("fold in", lambda k: jax.random.bits(jax.random.fold_in(k, 5), (2,)), key)
    yield Probe(
        "split and scan",
        lambda k: lax.scan(
            lambda c, i: (jax.random.split(c)[0], jax.random.bits(c, ())), k, jnp.arange(3)
        )[1],
        key,
    )
    yield Probe("keys as rows", lambda k: lax.scan(
        lambda c, i: (c, jax.random.bits(i, ())), 0, jax.random.split(k, 3))[1], key)  # fmt: skip
    yield Probe("keys carried along", lambda k: lax.scan(lambda c, i: (c, c), k, None, 2)[1], key)
    yield Probe("keys chosen", lambda k: jax.random.bits(
        jnp.where(jnp.bool_(True), k, jax.random.fold_in(k, 1)), (2,)), key)  # fmt: skip


def small():
    """Empty arrays, axes of size one, scalars."""
    none, row = np.zeros((0, 3)), normal(1, 3)
    for function in (jnp.sum, jnp.prod):
        name = function.__name__
        yield Probe(f"{name} of nothing", lambda x, f=function: f(x, axis=0), none)
    yield Probe("max of nothing", lambda x: lax.reduce_max(x, (0,)), none, differentiate=False)
    yield Probe("min of nothing", lambda x: lax.reduce_min(x, (0,)), none, differentiate=False)
    yield Probe("max of no integers", lambda x: lax.reduce_max(x, (0,)), np.zeros((0, 3), np.int32))
    yield Probe("min of no bfloat16", lambda x: lax.reduce_min(x, (0,)),
                none.astype(jnp.bfloat16))  # fmt: skip
    yield Probe("elementwise on nothing", lambda x: jnp.sin(x) * 2, none)
    yield Probe("product with nothing", lambda x, y: x.T @ y, none, np.zeros((0, 2)))
    yield Probe("sort nothing", jnp.sort, none)
    yield Probe("cumsum of nothing", lambda x: jnp.cumsum(x, 0), none)
    yield Probe("concatenate nothing", lambda x, y: jnp.concatenate([x, y]), none, row)
    yield Probe("take nothing", lambda x, i: x[i], row, np.zeros(0, np.int32))
    yield Probe("put nothing", lambda x, i, u: x.at[i].add(u), row, np.zeros(0, np.int32), none)
    yield Probe("pad nothing", lambda x: jnp.pad(x, ((1, 1), (0, 0))), none)
    yield Probe("softmax of one", lambda x: jax.nn.softmax(x, axis=0), row)
    yield Probe("variance of one", lambda x: jnp.var(x, axis=0), row)
    yield Probe("scalars", lambda x, y: x * jnp.sin(y) - y / x, np.array(0.3), np.array(-2.0))
    yield Probe("convolve nothing", lambda x, w: lax.conv_general_dilated(x, w, (1,), "VALID"),
                np.zeros((0, 1, 4)), normal(1, 1, 2))  # fmt: skip


def narrow():
    """Narrow floats inside: rounded as XLA rounds them, in sums to within a few of their ulps."""
    x, y = normal(4, 6), normal(4, 6)
    for kind in (np.float32, jnp.bfloat16, np.float16):
        name = jnp.dtype(kind).name

        def through(function, kind=kind):
            return lambda *xs: function(*(x.astype(kind) for x in xs))

        for op in (jnp.add, jnp.multiply, jnp.divide, jnp.subtract, jnp.maximum, jnp.where):
            f = (lambda a, b: jnp.where(a > b, a, b)) if op is jnp.where else op
            yield elementwise(
                f"{op.__name__} in {name}", through(f), x, y, ulps=1, differentiate=False
            )
        for op in (
            jnp.exp,
            jnp.tanh,
            jnp.sqrt,
            jax.nn.sigmoid,
            lax.erf,
            lax.floor,
            jnp.sin,
            lax.rsqrt,
        ):
            yield elementwise(
                f"{op.__name__} in {name}", through(op), np.abs(x), ulps=4, differentiate=False
            )
        for op in (jnp.max, jnp.argmax, jnp.sort, jnp.cumsum, jnp.sum, jnp.mean, jnp.var, jnp.prod):
            yield Probe(
                f"{op.__name__} in {name}",
                through(lambda a, f=op: f(a, axis=1)),
                x,
                ulps=16,
                differentiate=False,
            )
        yield Probe(
            f"matmul in {name}", through(lambda a, b: a @ b.T), x, y, ulps=16, differentiate=False
        )
        yield Probe(f"softmax in {name}", through(jax.nn.softmax), x, ulps=16, differentiate=False)
        yield Probe(
            f"pad and gather in {name}",
            through(lambda a: jnp.pad(a, 1)[np.array([0, 9]), 1:]),
            x,
            differentiate=False,
        )
        yield Probe(f"scatter in {name}", through(lambda a: a.at[np.array([0, 1, 2])].add(a[0])), x,
                    ulps=4, differentiate=False)  # fmt: skip
        yield Probe(f"max pooling in {name}", through(lambda a: lax.reduce_window(
            a, jnp.asarray(-jnp.inf, a.dtype), lax.max, (2, 2), (2, 2), "SAME")), x,
            differentiate=False)  # fmt: skip
        yield Probe(f"sums of windows in {name}", through(lambda a: lax.reduce_window(
            a, jnp.asarray(0, a.dtype), lax.add, (2, 2), (1, 1), "SAME")), x, ulps=16,
            differentiate=False)  # fmt: skip
    yield Probe("products of bfloat16 kept in float32", lambda a, b: lax.dot_general(
        a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), (((1,), (1,)), ((), ())),
        preferred_element_type=np.float32), x, y, differentiate=False)  # fmt: skip
    yield Probe("products of float32 kept in float64", lambda a, b: lax.dot_general(
        a.astype(np.float32), b.astype(np.float32), (((1,), (1,)), ((), ())),
        preferred_element_type=np.float64), x, y, differentiate=False)  # fmt: skip
    yield Probe("back and forth", lambda a: a.astype(np.float32).astype(np.float64), x,
                differentiate=False)  # fmt: skip


FAMILIES = dict(
    unary=unary, rounding=rounding, edges=edges, binary=binary, integers=integers, shapes=shapes,
    reductions=reductions, dots=dots, convolutions=convolutions, windows=windows, gathers=gathers,
    control=control, algebra=algebra, random=random, small=small, narrow=narrow,
)  # fmt: skip


START = RNG.bit_generator.state


def probes(family):
    """The probes of a family, with the same numbers whatever was drawn before."""
    RNG.bit_generator.state = START
    return list(FAMILIES[family]())


@pytest.mark.parametrize("family", FAMILIES)
def test_interpreted_as_compiled(family):
    assert examine(probes(family)) == {}


# --- what the table leaves out --------------------------------------------------------------------

# Names that JAX 0.10 gives to no primitive that could be traced here, or to none at all.
OTHER_VERSIONS = {
    "debug_callback", "debug_print",  # print, and compute nothing
    "pjit", "core_call", "closed_call", "remat", "remat2", "checkpoint", "custom_lin", "copy_p",
    "expand_dims", "sharding_constraint", "pvary", "reduce_vary", "stop_gradient",
    "log2", "one_minus_square", "polynomial",  # JAX 0.12
}  # fmt: skip


def test_every_rule_is_in_the_table():
    met = set()
    for family in FAMILIES:
        for probe in probes(family):
            met |= {e.primitive.name for e in Program(probe.flat, *probe.args).equations()}
            if probe.differentiate:
                floats = [probe.args[i] for i in probe.floats]
                pulled = Program(probe.pullback, *floats)
                met |= {e.primitive.name for e in pulled.equations()}
    rules = {*primitives.RULES, *CONTROL}
    assert rules - met - OTHER_VERSIONS == set()


def test_nothing_of_a_constant_is_kept_for_xla():
    """JAX keeps the first form of a NumPy constant as long as a jaxpr holds it.

    With x64 on that is float64; a program kept beyond the context must not hold it, or the
    function that closes over the constant can no longer be compiled in float32.
    """
    constant = np.full(3, 0.1)

    def function(x):
        return constant * x * x

    kept = Program(function, np.ones((2, 3)))
    with jax.enable_x64(False):
        y = jax.jit(lambda x: function(x))(np.ones((2, 3), np.float32))
    assert y.dtype == np.float32
    (wide,) = kept(np.ones((2, 3)))
    np.testing.assert_array_equal(wide, np.full((2, 3), 0.1))


def test_arguments_are_not_written_to():
    x = normal(3, 3)
    before = x.copy()

    def function(x):
        x = x.at[0].set(1.0)
        x = lax.dynamic_update_slice(x, x[:1, :1] * 2, (1, 1))
        return jnp.sort(x, axis=0).at[1].add(x[2])

    program = Program(function, x)
    first, second = program(x)[0], program(x)[0]
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, second)


def test_random_numbers_are_kept_apart_by_the_constants_beside_them():
    """Two functions that read alike, and hold unlike arrays."""
    key = jax.random.key(0)

    def noise(scale):
        return jax.jit(lambda k: jnp.asarray(scale) * jax.random.uniform(k, scale.shape))

    one = np.array([1.0, 2.0, 3.0])
    (first,), (second,) = (Program(noise(s), key)(key) for s in (one, 10 * one))
    np.testing.assert_allclose(second, 10 * first)


def test_a_changed_result_that_numpy_makes_a_scalar():
    """As a search for a factor does; what follows adds to it in place."""
    program = Program(lambda x: (2 * x).at[...].add(x), jnp.array(3.0))
    values = program.values(np.float64(3.0))
    number = next(i for i, s in enumerate(program.steps()) if s.eqn.primitive.name == "mul")
    (total,) = program.resume(values, {number: lambda inputs, results, known: [results[0] * 10]})
    assert total == 63.0


def test_a_changed_loop_that_would_not_end_is_stopped():
    program = Program(lambda x: jax.lax.while_loop(lambda s: s < 10, lambda s: s + x, x), 1.0)
    values = program.values(1.0)
    endless = {x: np.zeros(()) for x in program.jaxpr.jaxpr.invars}
    (stopped,) = program.resume(values, {}, given=endless)
    assert stopped == 0
    assert program(1.0) == [10.0]


def test_a_loop_that_comes_back_to_what_it_was_is_stopped():
    program = Program(lambda x: jax.lax.while_loop(lambda s: s != 0.1, lambda s: -s, x), 0.1)
    assert program(0.5) in ([0.5], [-0.5])
    count = Program(lambda x: jax.lax.while_loop(lambda s: s < 1000, lambda s: s + 1, x), 1.0)
    assert count(0.0) == [1000.0]


@pytest.mark.parametrize(("long", "rows"), [(False, 1), (True, 16)])
def test_of_what_a_loop_scans_many_rows_are_run_at_once(long, rows):
    def total(x):
        def add(carry, row):
            return carry + row, None

        return [lax.scan(add, jnp.zeros(8), x)[0] if long else x.sum(0)]

    x = np.random.default_rng(0).normal(size=(3, 5000, 8))
    batched = Batched(Program(total, x[0]), [x[0]], 16)
    assert batched.size == rows
    np.testing.assert_allclose(batched([x])[0], x.sum(1), rtol=1e-12)
