"""The catalogue's activations: every digit against mpmath, kinks, extremes, errors."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from handgrad import manual

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
POINTS = (0, 1e-30, 1e-8, 1e-3, 0.1, 0.5, 1, 1.1924, 2, 5, 10, 17, 20, 40, 80, 88, 700, 745, 1e4)
GRID = np.array([sign * x for x in POINTS for sign in (1, -1)])


def exp(x):
    return mp.exp(x)


def root(x):
    return mp.sqrt(x * x + 4)


# name: (f, f′), for mpmath at 60 digits
TRUTH = {
    "mish": (
        lambda x: x * mp.tanh(mp.log1p(exp(x))),
        lambda x: (
            mp.tanh(mp.log1p(exp(x))) + x * mp.sech(mp.log1p(exp(x))) ** 2 * exp(x) / (1 + exp(x))
        ),
    ),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "squareplus": (lambda x: (x + root(x)) / 2, lambda x: (1 + x / root(x)) / 2),
    "celu": (
        lambda x: x if x > 0 else mp.expm1(x),
        lambda x: mp.mpf(1) if x > 0 else exp(x),
    ),
}
ELEMENTWISE = (*TRUTH, "hard_sigmoid", "hard_swish", "hard_tanh", "relu6")


def slope(f):
    return lambda x: jax.vjp(f, x)[1](jnp.ones_like(x))[0]


@pytest.mark.parametrize("name", TRUTH)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_value_and_slope_keep_every_digit(name, dtype):
    """Within 6 ulps, and an ulp of one near mish's minimum, where its slope is a difference.

    Below the smallest normal number XLA flushes to zero, and a product with x magnifies that.
    """
    f = getattr(manual, name)
    with jax.enable_x64(True), mp.workdps(60):
        x = jnp.asarray(GRID, dtype)
        got = np.asarray(jax.jit(lambda x: (f(x), slope(f)(x)))(x), float)
        eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
        for order, values in enumerate(got):
            for x_i, y_i in zip(np.asarray(x, float), values, strict=True):
                true = TRUTH[name][order](mp.mpf(x_i))
                near_minimum = eps if name == "mish" and order and -2 < x_i < -0.5 else 0
                allowed = eps * 6 * abs(true) + near_minimum + 8 * tiny * (1 + abs(x_i))
                assert abs(y_i - true) <= allowed, (x_i, y_i, mp.nstr(true, 17))


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_is_finite_at_any_size(dtype):
    """Values, first and second derivatives, up to a thousandth of the largest number."""
    with jax.enable_x64(True):
        top = float(jnp.finfo(dtype).max)
        xs = [s * x for x in (0, 1e-30, 3, 30, 300, 1e4, 1e13, 1e30, top / 1e3) for s in (1, -1)]
        x = jnp.asarray([x for x in xs if abs(x) < top], dtype)
        ones = jnp.ones_like(x)
        fs = {name: getattr(manual, name) for name in ELEMENTWISE}
        fs["prelu"] = lambda x: manual.prelu(x, jnp.asarray(0.25, dtype))
        fs["swiglu"] = lambda x: manual.swiglu(x, ones)
        fs["geglu"] = lambda x: manual.geglu(x, ones)
        fs["glu"] = lambda x: manual.glu(jnp.concatenate([ones, x]))
        fs["log_sum_exp"] = lambda x: manual.log_sum_exp(jnp.stack([x, -x]), axis=0)

        def orders(f):
            return f(x), slope(f)(x), slope(slope(f))(x)

        for name, values in jax.jit(lambda: {n: orders(f) for n, f in fs.items()})().items():
            for order, value in enumerate(values):
                assert value.dtype == dtype
                assert jnp.isfinite(value).all(), (name, order, value)


def test_at_kinks_the_stated_convention_holds():
    def at(name, x):
        return float(jax.grad(getattr(manual, name))(jnp.asarray(x)))

    assert (at("relu6", 0.0), at("relu6", 6.0)) == (0, 0)
    assert (at("hard_tanh", -1.0), at("hard_tanh", 1.0)) == (1, 1)
    assert (at("hard_sigmoid", -3.0), at("hard_sigmoid", 3.0)) == (0, 0)
    assert (at("hard_swish", -3.0), at("hard_swish", 3.0)) == (0, 1)
    assert float(jax.grad(manual.prelu)(jnp.zeros(()), jnp.asarray(0.25))) == 1


def test_known_figures():
    x = jnp.array([-4.0, -3.0, -1.5, 0.0, 1.5, 3.0, 7.0])
    assert manual.relu6(x).tolist() == [0, 0, 0, 0, 1.5, 3, 6]
    assert manual.hard_sigmoid(x).tolist() == [0, 0, 0.25, 0.5, 0.75, 1, 1]
    assert manual.hard_swish(x).tolist() == [0, 0, -0.375, 0, 1.125, 3, 7]
    assert manual.prelu(x, jnp.asarray(0.5)).tolist() == [-2, -1.5, -0.75, 0, 1.5, 3, 7]
    assert float(manual.squareplus(jnp.asarray(0.0))) == 1
    assert manual.glu(jnp.array([2.0, -3, 0, 0])).tolist() == [1, -1.5]
    assert float(manual.log_sum_exp(jnp.zeros(8))) == pytest.approx(np.log(8), rel=2**-23)


def test_prelu_accumulates_its_slope_in_float32():
    """A sum of 4096 halves: float16 would stop at 1024, bfloat16 at 128."""
    x = jnp.full((4096, 1), -0.5)
    for dtype in (jnp.float16, jnp.bfloat16):
        _, vjp = jax.vjp(manual.prelu, x.astype(dtype), jnp.asarray([0.25], dtype))
        dx, dalpha = vjp(jnp.ones(x.shape, dtype))
        assert (dx.dtype, dalpha.dtype) == (dtype, dtype)
        assert float(dalpha[0]) == -2048


def test_nan_stays_nan():
    nan = jnp.array(jnp.nan)
    for name in ELEMENTWISE:
        assert jnp.isnan(getattr(manual, name)(nan)), name
    assert jnp.isnan(manual.prelu(nan, jnp.asarray(0.5)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: manual.prelu(jnp.ones((2, 3)), jnp.ones(1)),
            r"prelu: alpha has shape \(1,\) and x \(2, 3\); alpha must be a scalar, or \(channels,",
        ),
        (
            lambda: manual.glu(jnp.ones((2, 3))),
            r"glu: x has shape \(2, 3\); it must have an even number of features along axis -1",
        ),
        (
            lambda: manual.glu(jnp.ones(4), axis=1),
            r"glu: x has shape \(4,\); it must have an even number of features along axis 1",
        ),
        (
            lambda: manual.swiglu(jnp.ones((2, 3)), jnp.ones(3)),
            r"swiglu: gate has shape \(2, 3\) and value \(3,\); their shapes must be equal",
        ),
        (
            lambda: manual.geglu(jnp.ones((2, 3)), jnp.ones((2, 1))),
            r"geglu: gate has shape \(2, 3\) and value \(2, 1\); their shapes must be equal",
        ),
        (
            lambda: manual.log_sum_exp(jnp.ones((2, 0))),
            r"log_sum_exp: x has shape \(2, 0\); it must have at least one entry along axis -1",
        ),
        (
            lambda: manual.log_sum_exp(jnp.ones(2), axis=1),
            r"log_sum_exp: x has shape \(2,\); it must have at least one entry along axis 1",
        ),
        (lambda: manual.squareplus(jnp.ones(2), b=0), "squareplus: b is 0; it must be a positive"),
        (lambda: manual.celu(jnp.ones(2), alpha=-1.0), "celu: alpha is -1.0; it must be a positiv"),
    ],
)
def test_bad_input_is_named_when_it_is_traced(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)


def test_the_gated_units_keep_no_more_than_their_arguments():
    """Neither the activation nor its slope stands in memory between forward and backward."""
    x = jnp.ones((2, 4))
    for f in (manual.swiglu, functools.partial(manual.geglu, approximate=False)):
        _, vjp = jax.vjp(f, x, x)
        assert len(jax.tree.leaves(vjp)) == 2


@pytest.mark.parametrize(
    ("x", "y", "slopes"),
    [
        ([-np.inf, -np.inf], -np.inf, [np.nan, np.nan]),
        ([np.inf, 0.0, 1.0], np.inf, [np.nan, 0.0, 0.0]),
        ([-np.inf, 0.0], 0.0, [0.0, 1.0]),
    ],
)
def test_log_sum_exp_of_infinities(x, y, slopes):
    x = jnp.array(x)
    assert manual.log_sum_exp(x) == y
    np.testing.assert_array_equal(jax.grad(manual.log_sum_exp)(x), slopes)


@pytest.mark.parametrize("name", ["softplus", "log_sigmoid"])
def test_the_plain_forward_has_the_slope_of_a_half_at_zero(name):
    """Other backwards are made of it, and differentiated again."""
    f = getattr(manual, name).forward
    for zero in (0.0, -0.0):
        assert jax.grad(lambda x: f(x)[0])(zero) == 0.5


@pytest.mark.parametrize("axis", [None, "1", 1.0, True])
@pytest.mark.parametrize("name", ["log_sum_exp", "glu", "l2_normalize"])
def test_an_axis_is_a_whole_number(name, axis):
    with pytest.raises(TypeError, match=f"{name}: axis is {axis!r}; it must be a whole number"):
        getattr(manual, name)(jnp.ones((2, 4)), axis=axis)
