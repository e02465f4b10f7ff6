"""The activations against mpmath at 60 digits: every digit, saturation, kinks, higher orders."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.manual.numerics import exp, expm1, length

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)

POINTS = (0, 1e-8, 1e-3, 0.1, 0.5, 1, 1.278, 2, 5, 10, 17, 20, 40, 80, 88, 100, 700, 745, 1e4)
GRID = np.array([sign * x for x in POINTS for sign in (1, -1)])
RANDOM = np.random.default_rng(0).uniform(-1, 1, 60) * np.repeat([1, 10, 100], 20)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def sigma(x):
    return 1 / (1 + mp.exp(-x))


def sigma1(x):
    return sigma(x) * sigma(-x)


def sigma2(x):
    return sigma1(x) * (sigma(-x) - sigma(x))


def cdf(x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


def pdf(x):
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


A, C = mp.mpf("0.044715"), 2 * mp.sqrt(2 / mp.pi)
SCALE = mp.mpf("1.0507009873554804934193349852946")
ALPHA = mp.mpf("1.6732632423543772848170429916717")


def v(x):
    return C * (x + A * x**3)


def v1(x):
    return C * (1 + 3 * A * x**2)


# name: (f, f′, f″), the last only to know how much a derivative moves with its input
TRUTH = {
    "sigmoid": (sigma, sigma1, sigma2),
    "tanh": (mp.tanh, lambda x: 4 * sigma1(2 * x), lambda x: 8 * sigma2(2 * x)),
    "softplus": (lambda x: mp.log1p(mp.exp(x)), sigma, sigma1),
    "log_sigmoid": (
        lambda x: -mp.log1p(mp.exp(-x)),
        lambda x: sigma(-x),
        lambda x: -sigma1(x),
    ),
    "silu": (
        lambda x: x * sigma(x),
        lambda x: sigma(x) + x * sigma1(x),
        lambda x: 2 * sigma1(x) + x * sigma2(x),
    ),
    "elu": (
        lambda x: x if x > 0 else mp.expm1(x),
        lambda x: mp.mpf(1) if x > 0 else mp.exp(x),
        lambda x: mp.mpf(0) if x > 0 else mp.exp(x),
    ),
    "selu": (
        lambda x: SCALE * (x if x > 0 else ALPHA * mp.expm1(x)),
        lambda x: SCALE * (mp.mpf(1) if x > 0 else ALPHA * mp.exp(x)),
        lambda x: mp.mpf(0) if x > 0 else SCALE * ALPHA * mp.exp(x),
    ),
    "gelu": (
        lambda x: x * sigma(v(x)),
        lambda x: sigma(v(x)) + x * sigma1(v(x)) * v1(x),
        lambda x: (2 * v1(x) + 6 * C * A * x * x) * sigma1(v(x)) + x * sigma2(v(x)) * v1(x) ** 2,
    ),
    "gelu exact": (
        lambda x: x * cdf(x),
        lambda x: cdf(x) + x * pdf(x),
        lambda x: (2 - x * x) * pdf(x),
    ),
}


def named(name, room=manual):
    config = {"approximate": False} if name == "gelu exact" else {}
    return functools.partial(getattr(room, name.split()[0]), **config)


def derivative(f):
    return lambda x: jax.vjp(f, x)[1](jnp.ones_like(x))[0]


@pytest.mark.parametrize("name", TRUTH)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_value_and_derivative_keep_every_digit(name, dtype):
    """Within 4 ulps of the truth, a rounding for each step, and what an ulp of x moves.

    Below the smallest normal number XLA flushes to zero, and a product with x magnifies that by
    |x|: so far the error is absolute. The last term allows for x² or x³ rounded inside an
    exponential (gelu's tails); it is what any function suffers from the rounding of its input.
    """
    with jax.enable_x64(True), mp.workdps(60):
        x = jnp.asarray(np.concatenate([GRID, RANDOM]), dtype)
        f = named(name)
        got = jax.jit(lambda x: (f(x), derivative(f)(x)))(x)
        eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
        for order in (0, 1):
            for x_i, y_i in zip(np.asarray(x, float), np.asarray(got[order], float), strict=True):
                point, true = mp.mpf(x_i), TRUTH[name][order](mp.mpf(x_i))
                moved = abs(point * TRUTH[name][order + 1](point))
                allowed = eps * (4 * abs(true) + moved) + 8 * tiny * (1 + abs(point))
                assert abs(y_i - true) <= allowed, (x_i, y_i, mp.nstr(true, 17))


@pytest.mark.parametrize(
    ("formula", "name", "x"),
    [
        (lambda x: jax.nn.sigmoid(x) * (1 - jax.nn.sigmoid(x)), "sigmoid", 20.0),
        (lambda x: 1 - jnp.tanh(x) ** 2, "tanh", 10.0),
        (lambda x: (1 - jnp.tanh(x)) * (1 + jnp.tanh(x)), "tanh", 10.0),
        (lambda x: jnp.expm1(x) + 1, "elu", -20.0),
        (lambda x: 1 - jax.nn.sigmoid(x), "log_sigmoid", 17.0),
        (derivative(named("gelu", reference)), "gelu", -6.0),
    ],
)
def test_the_formulas_passed_over_lose_all_digits_where_the_docstrings_say(formula, name, x):
    with mp.workdps(60):
        true = TRUTH[name][1](mp.mpf(x))
        x = jnp.float32(x)
        assert abs(float(formula(x)) - true) >= true / 2 or float(formula(x)) == 0
        assert abs(float(derivative(named(name))(x)) - true) <= 1e-5 * abs(true)


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_is_finite_up_to_the_largest_number(dtype):
    """Values, first and second derivatives, from zero to the largest number of the dtype."""
    with jax.enable_x64(True):
        top = float(jnp.finfo(dtype).max)
        xs = [s * x for x in (0, 1, 30, 300, 1e4, 1e13, 0.9 * top) for s in (1, -1) if x < top]
        x = jnp.asarray(xs, dtype)
        fs = {name: named(name) for name in (*TRUTH, "identity", "step", "sign", "relu")}
        fs["leaky_relu"] = manual.leaky_relu

        def orders(f):
            return f(x), derivative(f)(x), derivative(derivative(f))(x)

        for name, values in jax.jit(lambda: {n: orders(f) for n, f in fs.items()})().items():
            for order, value in enumerate(values):
                assert value.dtype == dtype
                # λx exceeds the largest number only where its true value does
                where = jnp.abs(x) < 0.95 * top / 1.06
                assert jnp.isfinite(value[where]).all(), (name, order, value)


def test_at_kinks_the_stated_convention_holds():
    zero = jnp.zeros(())
    slopes = {
        name: float(jax.grad(functools.partial(getattr(manual, name), **config))(zero))
        for name, config in {
            "relu": {},
            "step": {},
            "sign": {},
            "leaky_relu": {"negative_slope": 0.3},
            "elu": {"alpha": 1.5},
        }.items()
    }
    assert slopes == {"relu": 0, "step": 0, "sign": 0, "leaky_relu": 1, "elu": 1.5}
    assert float(jax.grad(manual.selu)(zero)) == pytest.approx(float(SCALE * ALPHA), rel=2**-23)


def test_the_two_valued_neurons():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0])
    assert manual.step(x).tolist() == [0, 1, 1, 1]
    assert manual.sign(x).tolist() == [-1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint32, jnp.int32])
@pytest.mark.parametrize("room", [manual, reference], ids=["manual", "reference"])
@jax.numpy_dtype_promotion("standard")
def test_unsigned_integers_do_not_wrap_around(room, dtype):
    x = np.array([0, 1, 2, 100])
    expected = np.log1p(np.exp(-x))
    np.testing.assert_allclose(room.softplus(jnp.asarray(x, dtype)), x + expected, rtol=1e-6)
    found = room.log_sigmoid(jnp.asarray(x, dtype))
    np.testing.assert_allclose(found, -expected, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_slopes_of_squareplus_at_both_infinities(dtype):
    with jax.enable_x64(True):
        x = jnp.array([-jnp.inf, jnp.inf, jnp.nan], dtype)
        low, high, none = derivative(manual.squareplus)(x)
        assert (low, high, jnp.isnan(none)) == (0, 1, True)


def test_the_slope_of_tanh_goes_down_to_the_least_normal_number():
    x = np.concatenate([np.linspace(0, 44.1, 10_001), [45, 100, 1e4, 1e30, np.inf]])
    x = np.concatenate([x, -x]).astype(np.float32)
    e = np.exp(-2 * np.abs(x.astype(float)))
    true = 4 * e / (1 + e) ** 2
    slope = derivative(manual.tanh)(x)
    # by a program that rounds k ln 2 before it takes x off it, as that of the tests does
    np.testing.assert_allclose(slope, np.where(true > 1.9e-38, true, 0), rtol=5e-6, atol=0)


def test_nan_stays_nan():
    nan = jnp.array(jnp.nan)
    for name in (*TRUTH, "identity", "relu", "leaky_relu"):
        assert jnp.isnan(named(name)(nan)), name


@pytest.mark.parametrize("name", TRUTH)
def test_higher_derivatives_are_those_of_the_formula(name):
    """To third order, at smooth points, 0 among them (for elu and selu left of it)."""
    points = (-2.3, -0.4) if "elu" in name and "gelu" not in name else (-2.3, -0.4, 0.0, 1.7)
    with jax.enable_x64(True), mp.workdps(60):
        third = jax.jit(jax.vmap(jax.grad(jax.grad(jax.grad(named(name))))))
        for x, got in zip(points, third(jnp.array(points)), strict=True):
            true = mp.diff(TRUTH[name][0], mp.mpf(x), 3)
            assert float(got) == pytest.approx(float(true), rel=1e-13, abs=1e-15)


def probabilities(row):
    """p, and 1 − p as the sum of the others."""
    e = [mp.exp(mp.mpf(float(x))) for x in row]
    return [x / sum(e) for x in e], [sum(e[:i] + e[i + 1 :]) / sum(e) for i in range(len(e))]


ROWS = np.array(
    [
        [40, 0, -3],
        [-700, 60, 2],
        [0.1, 0.2, 0.3],
        [5, 4.5, -80],
        [0, 0, 0],
        [1e4, 9990, -1e4],
        [17, 0, 0],
        *(np.random.default_rng(1).standard_normal((15, 3)) * np.repeat([[0.1], [3], [30]], 5, 0)),
    ]
)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_keep_every_digit_of_value_and_jacobian(name, dtype):
    """Also those of 1 − p where p rounds to 1.

    Within 4 ulps, and the rounding of x − max in e^{x−max}: an ulp times the spread of the row.
    """
    with jax.enable_x64(True), mp.workdps(60):
        x = jnp.asarray(ROWS, dtype)
        f = getattr(manual, name)
        y, jacobian = np.asarray(f(x), float), np.asarray(jax.vmap(jax.jacrev(f))(x), float)
        eps, tiny = float(jnp.finfo(dtype).eps), float(jnp.finfo(dtype).tiny)
        for row, y_row, j_row in zip(np.asarray(x, float), y, jacobian, strict=True):
            p, q = probabilities(row)
            ulps = 4 + np.ptp(row)

            def close(got, true, ulps=ulps):
                return abs(got - true) <= eps * ulps * abs(true) + 8 * tiny

            for i in range(3):
                log_p = -mp.log1p(q[i] / p[i]) if q[i] < p[i] else mp.log(p[i])
                assert close(y_row[i], p[i] if name == "softmax" else log_p), (row, i)
                for j in range(3):
                    weight = p[i] if name == "softmax" else 1
                    true = weight * (q[i] if i == j else -p[j])
                    assert close(j_row[i, j], true), (row, i, j)


COTANGENTS = {
    "any": np.random.default_rng(3).standard_normal(ROWS.shape),
    "of the largest": np.eye(3)[ROWS.argmax(-1)],
}


@pytest.mark.parametrize("cotangent", COTANGENTS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_an_almost_certain_row_changes_nothing_in_the_others(name, cotangent):
    """It is what makes a second sum, and another form of the backward, worth their time."""
    x, dy = (jnp.asarray(a, jnp.float32) for a in (ROWS, COTANGENTS[cotangent]))

    p, q = (np.array(each, float) for each in zip(*map(probabilities, ROWS), strict=True))
    others = np.abs(dy).sum(-1, keepdims=True) - np.abs(dy)
    terms = p * (q * np.abs(dy) + others) if name == "softmax" else q * np.abs(dy) + p * others

    def gradient(x, dy):
        return jax.vjp(getattr(manual, name), x)[1](dy)[0]

    together = np.asarray(gradient(x, dy), float)
    by_rows = [gradient(x[k : k + 1], dy[k : k + 1])[0] for k in range(len(ROWS))]
    for alone in (jax.vmap(gradient)(x, dy), jnp.stack(by_rows)):
        assert (np.abs(together - np.asarray(alone, float)) <= 2e-5 * terms + 1e-37).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_lengths_of_any_size_stand_side_by_side(dtype):
    with jax.enable_x64(True):
        huge = float(jnp.finfo(dtype).max) ** 0.75
        rows = np.array([[3, 4, 0], [0, 0, 0], [3e-30, 4e-30, 0], [3, 4, 1e-30]])
        rows = jnp.asarray([*rows, rows[0] * huge, rows[0] / huge], dtype)
        expected = np.array([5, 0, 5e-30, 5, 5 * huge, 5 / huge])
        for got in (length(rows), jax.vmap(length)(rows), jnp.stack([length(r) for r in rows])):
            np.testing.assert_allclose(got[:, 0], expected, rtol=4 * float(jnp.finfo(dtype).eps))
        slopes = jax.vmap(jax.grad(lambda x: length(x)[0]))(rows)
        directions = np.where(expected[:, None] == 0, 0, [[0.6, 0.8, 0]])
        np.testing.assert_allclose(slopes, directions, rtol=1e-6, atol=1e-30)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmaxes_are_blind_to_a_shift(name):
    """Neither the logits' nor, for softmax, the cotangents' constant part matters, at any size."""
    x = jnp.array([[0.5, -1.0, 8.0], [1.0, 1.5, 0.25]])
    f = getattr(manual, name)
    np.testing.assert_array_equal(f(x), f(x + 1024))  # exact sums: the shift is a power of two
    _, vjp = jax.vjp(f, x)
    if name == "softmax":
        np.testing.assert_allclose(vjp(jnp.ones_like(x))[0], 0, atol=2**-23)


def test_softmax_with_a_large_constant_in_the_cotangent_keeps_the_small_part():
    """A row almost certain, its cotangent 10⁴ plus the part that matters."""
    x, part = jnp.array([12.0, 0.0, 1.0]), jnp.array([0.0, 1.0, -3.0])
    _, vjp = jax.vjp(manual.softmax, x)
    np.testing.assert_allclose(vjp(part + 1e4)[0], vjp(part)[0], rtol=2e-6)


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_the_softmaxes_work_along_any_axis(axis):
    x = np.random.default_rng(2).standard_normal((4, 3, 2)).astype(np.float32)
    for name in ("softmax", "log_softmax"):
        f = getattr(manual, name)
        moved = np.moveaxis(np.asarray(f(jnp.moveaxis(x, axis, -1))), -1, axis)
        np.testing.assert_allclose(f(x, axis=axis), moved, rtol=1e-6)


def test_exp_has_its_digits_up_to_both_ends_of_float32():
    """About an ulp up to 2.4e38 and 9 above, as its docstring has it; JAX's own in float64."""
    top = 127.5 * np.log(2)
    for least, most, ulps in ((-87.336, top, 1.2), (-1, 1, 1.2), (top, 88.7228, 9)):
        x = np.linspace(least, most, 200_001).astype(np.float32)
        true = np.exp(x.astype(float))
        off = np.abs(np.asarray(jax.jit(exp)(x), float) - true)
        assert (off <= ulps * np.spacing(true.astype(np.float32))).all()
    ends = jnp.array([0.0, -0.0, jnp.inf, -jnp.inf, 88.73, 1e30, -88.1, -104.0, -1e30])
    np.testing.assert_array_equal(exp(ends), [1, 1, jnp.inf, 0, jnp.inf, jnp.inf, 0, 0, 0])
    assert jnp.isnan(exp(jnp.array([jnp.nan, -jnp.nan]))).all()
    with jax.enable_x64(True):
        x = jnp.linspace(-700.0, 700.0, 1001)
        np.testing.assert_array_equal(exp(x), jnp.exp(x))


def test_exp_is_its_own_derivative_twice():
    points = jnp.concatenate([jnp.linspace(-87.0, 88.0, 1001), jnp.array([-jnp.inf, -1e9, -200.0])])
    for derivative, rtol in ((jax.grad(exp), 4e-7), (jax.grad(jax.grad(exp)), 1.5e-6)):
        np.testing.assert_allclose(
            jax.vmap(derivative)(points), np.exp(np.asarray(points, float)), rtol=rtol, atol=2e-36
        )


def test_expm1_has_its_digits_in_both_precisions():
    """2 ulp, as its docstring has it, and no nan at infinity or in the second derivative there."""
    grid = np.concatenate([np.linspace(-30, 30, 20_001), np.linspace(-0.7, 0.7, 20_001)])
    for dtype, ulps in ((np.float32, 2), (np.float64, 2.5)):
        v = grid.astype(dtype)
        with jax.enable_x64(dtype is np.float64):
            found = np.asarray(expm1(jnp.asarray(v)), np.longdouble)
        true = np.expm1(v.astype(np.longdouble))
        assert (np.abs(found - true) <= ulps * np.spacing(np.abs(true).astype(dtype))).all()
    ends = jnp.array([-jnp.inf, jnp.inf, 0.0])
    np.testing.assert_array_equal(expm1(ends), [-1, jnp.inf, 0])
    second = jax.vmap(jax.grad(jax.grad(expm1)))
    points = jnp.array([-jnp.inf, -1.0, -0.3, 0.0, 0.3, 1.0])
    np.testing.assert_allclose(second(points), jnp.exp(points), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2])
@pytest.mark.parametrize("name", ["gelu", "softmax", "log_softmax", "mish", "silu", "tanh"])
def test_in_float8_it_is_rounded_once(name, dtype):
    """Of e4m3fn the largest number is 448, and there is no infinity: a maximum from −∞ is NaN."""
    f = getattr(manual, name)
    x = jnp.array([-2, -0.5, 0, 0.5, 2], dtype)
    exact = f(x.astype(jnp.float32))
    y, pull = jax.vjp(f, x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y.astype(jnp.float32), exact.astype(dtype).astype(jnp.float32))
    dx = pull(jnp.ones_like(y))[0].astype(jnp.float32)
    (expected,) = jax.vjp(f, x.astype(jnp.float32))[1](jnp.ones_like(exact))
    # of float8 an eighth or a quarter is one step, and y itself is rounded to it
    np.testing.assert_allclose(dx, expected, rtol=0.25, atol=0.25)
