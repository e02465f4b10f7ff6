"""The witnesses: what neighbouring samples keep, numerical derivatives and their error, floors."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from handgrad.compare import witness
from handgrad.compare.problem import Problem, Row
from handgrad.compare.witness import EPS, Numerical


@pytest.fixture(autouse=True)
def double():
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


def rng(seed=0):
    return np.random.default_rng(seed)


def near(x):
    """A few neighbours of x."""
    x = np.asarray(x, np.float64)
    return [witness.vary(x, rng(seed)) for seed in range(5)]


# --- neighbouring samples -------------------------------------------------------------------------

finite = st.floats(-1e30, 1e30, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-30)
arrays = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4), elements=finite
)
quick = hypothesis.settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)  # fmt: skip


@quick
@hypothesis.given(arrays, st.integers(0, 99))
def test_neighbours_keep_shape_signs_and_zeros(x, seed):
    y = witness.vary(x, rng(seed))
    assert y.shape == x.shape
    assert y.dtype == x.dtype
    assert np.isfinite(y).all()
    if x.any():
        np.testing.assert_array_equal(np.sign(y), np.sign(x))
        if np.abs(x).max() <= 1:
            assert np.abs(y).max() <= 1 + 4 * EPS
    assert np.abs(y).max(initial=0) <= 1.5 * np.abs(x).max(initial=0) + 1


def test_neighbours_differ_from_the_sample_and_from_each_other():
    x = rng().normal(size=(3, 4))
    first, second, *_ = near(x)
    assert (first != x).all()
    assert (first != second).all()


def test_a_leaf_of_zeros_becomes_small_numbers():
    for y in near(np.zeros((2, 3))):
        assert y.all()
        assert np.abs(y).max() < 1


@pytest.mark.parametrize(
    "mask",
    [
        [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]],
        [0.0, 2.5, 2.5, 0.0],  # dropout's, divided by what is kept
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],  # one-hot
        [0.0, 1.0],  # one label of two classes
        [[0.0, -1e9], [0.0, 0.0]],  # added to scores
    ],
)
def test_masks_and_one_hot_rows_stay(mask):
    for y in near(mask):
        np.testing.assert_array_equal(y, mask)


def test_signs_of_a_margin_stay_signs():
    """Labels of a margin loss: their square is one, and derivations rest on it."""
    labels = [1.0, -1.0, -1.0, 1.0, 1.0]
    for y in near(labels):
        np.testing.assert_array_equal(y, labels)


def test_a_leaf_of_ones_is_varied():
    """A scale at its initial value: what multiplies it would not be seen otherwise."""
    for y in near(np.ones((2, 3))):
        assert (y != 1).all()


def test_probabilities_stay_probabilities():
    p = rng().dirichlet(np.ones(4), (2, 3))
    for y in near(p):
        np.testing.assert_allclose(y.sum(-1), 1, rtol=4 * EPS)
        assert (y > 0).all()
        assert (y != p).all()


def test_unit_vectors_stay_unit_vectors():
    x = rng().normal(size=(3, 4))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    for y in near(x):
        np.testing.assert_allclose(np.linalg.norm(y, axis=-1), 1, rtol=4 * EPS)


def test_symmetric_definite_matrices_stay_so():
    a = rng().normal(size=(2, 4, 4))
    spd = a @ a.swapaxes(-1, -2) + 1e-3 * np.eye(4)
    for y in near(spd):
        np.testing.assert_allclose(y, y.swapaxes(-1, -2), rtol=4 * EPS)
        assert (np.linalg.eigvalsh(y) > 0).all()


def test_triangles_stay_triangles():
    for y in near(np.tril(rng().normal(size=(3, 3)))):
        assert not np.triu(y, 1).any()


def test_infinities_stay():
    x = np.array([[0.5, -np.inf], [-2.0, 0.3]])
    for y in near(x):
        assert y[0, 1] == -np.inf
        assert np.isfinite(y[y != -np.inf]).all()


def test_complex_numbers_are_varied_in_size():
    x = rng().normal(size=3) + 1j * rng().normal(size=3)
    y = witness.vary(x, rng())
    assert y.dtype == x.dtype
    assert (y != x).all()


@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16])
def test_polish_mends_sums_and_lengths(kind):
    """In the narrow dtype rows sum to one only to its own epsilon."""
    p = rng().dirichlet(np.ones(5), 3).astype(np.float32)
    u = p / np.linalg.norm(p, axis=-1, keepdims=True)
    slack = 5 * float(jnp.finfo(np.float32).eps)
    for x, size in ((p, lambda x: x.sum(-1)), (u, lambda x: np.linalg.norm(x, axis=-1))):
        y = witness.polish(x.astype(np.float64))
        np.testing.assert_allclose(size(y), 1, rtol=4 * EPS)
        np.testing.assert_allclose(y, x, rtol=slack)


def test_polish_leaves_everything_else():
    x = rng().normal(size=(3, 4))
    np.testing.assert_array_equal(witness.polish(x), x)
    for x in (np.zeros((2, 0)), np.array(1.0), np.array([1.0]), np.array([np.inf, 1.0])):
        np.testing.assert_array_equal(witness.polish(x), x)


@quick
@hypothesis.given(arrays)
def test_tamed_is_of_scale_one_or_as_it_was(x):
    y = witness.tame(x)
    if (y != x).any():
        assert np.sqrt(np.mean(y**2)) == pytest.approx(1)
        np.testing.assert_array_equal(np.sign(y), np.sign(x))
    else:
        rms = np.sqrt(np.mean(x**2)) if x.size else 0
        assert rms <= 8


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e4, 1e30])
def test_tame_brings_odd_scales_to_one(scale):
    x = rng().normal(size=(3, 4))
    np.testing.assert_allclose(witness.tame(scale * x), x / np.sqrt(np.mean(x**2)), rtol=4 * EPS)


def test_tame_leaves_wide_one_hot_rows():
    x = np.eye(1000)[[3, 7]]
    np.testing.assert_array_equal(witness.tame(x), x)


def test_tame_keeps_infinities():
    y = witness.tame(np.array([100.0, -np.inf, -50.0]))
    assert y[1] == -np.inf
    assert np.abs(y[[0, 2]]).max() < 8


# --- a unit or two in the last place --------------------------------------------------------------


@quick
@hypothesis.given(arrays, st.integers(0, 2**62))
def test_jiggled_by_a_unit_or_two(x, salt):
    y = witness.jiggle(x, np.uint64(salt))
    ulps = np.abs(y - x) / np.spacing(np.abs(x))
    counts = (np.abs(x) < 1000) & (x == np.round(x))  # labels, masks: they stay
    assert (ulps[~counts] >= 0.5).all()
    assert (ulps[counts & (x != 0)] == 0).all()
    assert (ulps <= 4).all()  # relative 2 eps is up to four units just below a power of two
    assert not y[x == 0].any()


def test_jiggled_alike_where_alike():
    x = np.array([2.5, -2.5, 3.5, 2.5, -3.5])
    y = witness.jiggle(x, np.uint64(5))
    assert y[0] == y[3] == -y[1]
    assert y[2] == -y[4]


def test_jiggle_draws_both_signs_and_depends_on_the_salt():
    x = rng().normal(size=1000)
    first, second = (witness.jiggle(x, np.uint64(salt)) for salt in (1, 2))
    for y in (first, second):
        assert 400 < (np.abs(y) > np.abs(x)).sum() < 600
    assert 0.15 < (first == second).mean() < 0.35  # four steps to choose from


# --- numerical derivatives ------------------------------------------------------------------------


def numerical(function, *args, method="complex step"):
    found = Numerical(Problem(function, function, args, "function"))
    found.method = method
    return found


def along(function, x, direction=None, method="complex step"):
    """One derivative of a function of one array, with the method's stated error."""
    x = np.asarray(x, np.float64)
    direction = np.ones_like(x) if direction is None else np.asarray(direction)
    found = numerical(function, x, method=method)
    (slope,), error = found.along([x[None]], [direction[None]])
    return slope[0], error, found.method


KNOWN = {
    "square": (lambda x: x * x, lambda x: 2 * x),
    "cube": (lambda x: x**3, lambda x: 3 * x**2),
    "sin": (jnp.sin, np.cos),
    "exp": (jnp.exp, np.exp),
    "tanh": (jnp.tanh, lambda x: 1 / np.cosh(x) ** 2),
    "sigmoid": (jax.nn.sigmoid, lambda x: 0.25 / np.cosh(x / 2) ** 2),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x**2),
    "log": (lambda x: jnp.log(jnp.abs(x)), lambda x: 1 / x),
    "linear": (lambda x: 3 * x + 2, lambda x: 3 + 0 * x),
    "constant": (lambda x: 0 * x + 2, lambda x: 0 * x),
    "root": (lambda x: jnp.sqrt(jnp.abs(x)), lambda x: np.sign(x) / (2 * np.sqrt(np.abs(x)))),
}


@pytest.mark.parametrize("method", ["complex step", "Ridders"])
@pytest.mark.parametrize("name", KNOWN)
def test_known_derivatives_within_the_stated_error(name, method):
    function, slope = KNOWN[name]
    for x in (np.array([0.3, -1.2, 2.5]), np.array([0.011]), np.array([-7.0])):
        found, error, used = along(function, x, method=method)
        assert used == method
        # differences of a sum of unlike elements are good to the largest of them
        scale = np.abs(slope(x)).max() + np.abs(function(x)).max() / np.abs(x).max()
        assert np.abs(found - slope(x)).max() <= error * scale, (x, found, slope(x))


@pytest.mark.parametrize("method", ["complex step", "Ridders"])
@pytest.mark.parametrize("scale", [1e-2, 1e2, 1e4, 1e8])
def test_scale_of_the_input_is_followed(scale, method):
    x = scale * np.array([1.3, -0.4])
    found, error, _ = along(lambda x: jnp.log1p((x / scale) ** 2), x, [1.0, 0.0], method)
    want = 2 * x[0] / scale**2 / (1 + (x[0] / scale) ** 2)
    assert found[0] == pytest.approx(want, rel=error)


@pytest.mark.parametrize("scale", [1e-30, 1e-100, 1e100])
def test_complex_step_at_the_ends_of_the_range(scale):
    x = scale * np.array([1.3, -0.4])
    found, error, _ = along(lambda x: 3 * x + jnp.abs(x), x)
    np.testing.assert_allclose(found, [4, 2], rtol=error)


def test_directions_of_several_arguments():
    def function(x, p):
        return x @ p["w"], jnp.sum(p["b"] * x)

    x, w, b = rng().normal(size=(3, 2)), rng().normal(size=(2, 4)), rng().normal(size=2)
    d = [rng(1).normal(size=v.shape) for v in (b, w, x)]
    found = numerical(function, x, {"b": b, "w": w})
    order = [x, b, w]
    directions = [d[2], d[0], d[1]]
    slopes, error = found.along([v[None] for v in order], [v[None] for v in directions])
    want = (d[2] @ w + x @ d[1], (d[0] * x + b * d[2]).sum())
    for got, due in zip(slopes, want, strict=True):
        np.testing.assert_allclose(got[0], due, rtol=error)


def test_rows_are_independent():
    x = rng().normal(size=(20, 3))  # more rows than one batch
    d = rng(1).normal(size=(20, 3))
    found = numerical(jnp.sin, x[0])
    (slopes,), error = found.along([x], [d])
    np.testing.assert_allclose(slopes, np.cos(x) * d, rtol=error)


def test_what_is_not_analytic_is_taken_by_differences():
    spd = np.array([[2.0, 0.3], [0.3, 1.0]])
    found, error, method = along(lambda a: jnp.linalg.cholesky(a)[1, 0], spd, [[1.0, 0], [0, 0]])
    assert method == "Ridders"
    assert found == pytest.approx(-0.3 / 2 / 2**1.5, rel=error)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jnp.abs(jnp.fft.fft(x))[1],
        lambda x: jnp.real((x[0] + 1j) * (x[1] - 2j)) * x[2],
        lambda x: jnp.sum(jnp.sin(x.astype(jnp.float32))).astype(jnp.float64),
        lambda x: jax.lax.bitcast_convert_type(x, jnp.int64)[0] * 0.0 + x[1] ** 2,
    ],
    ids=["fourier", "complex numbers", "float32", "bits"],
)
def test_no_derivative_is_lost_in_other_number_kinds(function):
    """A complex step must not be taken for a complex number, nor underflow in a narrow float."""
    x, direction = np.array([0.25, 0.5, 1.0]), np.array([1.0, -1.0, 0.5])
    want = jax.jvp(function, (jnp.asarray(x),), (jnp.asarray(direction),))[1]
    found, _, _ = along(function, x, direction)
    # by differences in float32 at worst: 1e-7 over a step of 1e-2
    assert found == pytest.approx(float(want), rel=1e-4)


def test_complex_arguments_are_taken_by_differences():
    z = np.array([0.3 + 0.4j, -1.0 + 0.2j])
    found = Numerical(Problem(jnp.abs, jnp.abs, (z,), "function"))
    assert found.method == "Ridders"
    d = np.array([1.0 - 1j, 0.5j])
    (slope,), error = found.along([z[None]], [d[None]])
    want = (np.conj(z) * d).real / np.abs(z)
    np.testing.assert_allclose(np.real(slope[0]), want, rtol=10 * error)


KINKS = {
    # function, at, slope on the left, on the right
    "relu": (jax.nn.relu, 0.0, 0.0, 1.0),
    "abs": (jnp.abs, 0.0, -1.0, 1.0),
    "leaky": (lambda x: jax.nn.leaky_relu(x, 0.1), 0.0, 0.1, 1.0),
    "clip below": (lambda x: jnp.clip(x, -1, 1), -1.0, 0.0, 1.0),
    "clip above": (lambda x: jnp.clip(x, -1, 1), 1.0, 1.0, 0.0),
    "elu": (lambda x: jax.nn.elu(x, 2.0), 0.0, 2.0, 1.0),
    "maximum": (lambda x: jnp.maximum(x, 3.0), 3.0, 0.0, 1.0),
    "hinge": (lambda x: jnp.maximum(0, 1 - x), 1.0, -1.0, 0.0),
    "huber is smooth": (
        lambda x: jnp.where(jnp.abs(x) < 1, x * x / 2, jnp.abs(x) - 0.5),
        1.0,
        1.0,
        1.0,
    ),
    "kinked slope": (lambda x: jnp.abs(x) ** 3 + 2 * x, 0.0, 2.0, 2.0),
    "curved": (lambda x: jnp.where(x > 0, jnp.expm1(x), jnp.sin(3 * x)), 0.0, 3.0, 1.0),
}


@pytest.mark.parametrize("name", KINKS)
def test_one_sided_derivatives(name):
    function, at, left, right = KINKS[name]
    found = numerical(function, np.array(at))
    x, d = [np.array([at])], [np.array([1.0])]
    for side, due in ((-1, left), (+1, right)):
        (slope,), error = found.one_sided(x, d, side)
        assert slope[0] == pytest.approx(due, rel=10 * error, abs=1e-7), side


def test_one_sided_derivatives_of_a_maximum_with_ties():
    x = np.array([[1.0, 2.0, 2.0, 0.0]] * 4)
    found = numerical(jnp.max, x[0])
    (right,), _ = found.one_sided([x], [np.eye(4)], +1)
    (left,), _ = found.one_sided([x], [np.eye(4)], -1)
    np.testing.assert_allclose(right, [0, 1, 1, 0], atol=1e-7)
    np.testing.assert_allclose(left, [0, 0, 0, 0], atol=1e-7)


def test_one_sided_derivatives_beside_a_large_number():
    """The function's own rounding is that of 2500², and the steps must be long beside it."""
    x, d = np.array([0.0, -2499.5]), np.array([[1.0, 0.0]])
    found = numerical(lambda x: jnp.abs(x).sum() + 0.5 * (x * x).sum(), x)
    for side in (-1, +1):
        (slope,), _ = found.one_sided([x[None]], [d], side)
        assert slope[0] == pytest.approx(side, abs=1e-6)


# --- floors ---------------------------------------------------------------------------------------


def measured(function, *args, rounding=None, times=6):
    """The floor of one result of a function, relative to it."""
    args = [np.asarray(a, np.float64) for a in args]
    row = Row(lambda *xs: [function(*xs)], args)
    columns = [a[None] for a in args]
    base = row.rows(columns)
    (floor,) = witness.floors(row, columns, base, rng(), times, rounding)
    assert floor.shape == base[0].shape
    return floor[0], base[0][0]


def test_floor_of_a_well_conditioned_function_is_a_few_units():
    x = rng().normal(size=50) + 3
    floor, y = measured(lambda x: x * x, x)
    assert (floor <= 8 * EPS * np.abs(y)).all()
    assert (floor >= EPS * np.abs(y)).all()


def test_floor_grows_with_the_condition():
    x = np.array([1.0 + 1e-8, 1.0 + 1e-4, 2.0])
    floor, y = measured(lambda x: x - 1.0, x)
    relative = floor / np.abs(y)
    assert 1e-9 < relative[0] < 1e-7
    assert 1e-13 < relative[1] < 1e-11
    assert relative[2] < 1e-15


def test_floor_sees_cancellation_inside_only_with_rounding():
    """The inputs' own units move nothing here, those of the sum do: 1e8 has one of 1.5e-8."""
    x = np.array([0.5, 0.25])

    def function(x):
        return (1e8 + 0 * x + 1 / 3) - 1e8

    still, _ = measured(function, x)
    assert not still.any()
    moved, _ = measured(function, x, rounding=True)
    assert (moved > 1e-9).all()
    assert (moved < 1e-6).all()


def test_two_operations_err_independently_of_equal_results_too():
    """Else ln σ(x) − ln σ(−x) near x = 0 has no floor, though nothing of it is known there."""
    floor, _ = measured(lambda x: jnp.exp(x) - jnp.exp(x), [0.3, 1.1], rounding=False)
    assert (floor >= EPS).all()


@pytest.mark.parametrize(
    "add_up",
    [
        lambda x: x.sum(),
        lambda x: jnp.cumsum(x)[-1],
        lambda x: x @ jnp.ones(4),
        lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (4,), (1,), "valid")[0],
        lambda x: jnp.convolve(x, jnp.ones(4), "valid")[0],
        lambda x: jnp.zeros(2).at[jnp.zeros(4, int)].add(x)[0],
    ],
    ids=["sum", "cumsum", "product", "window", "convolution", "scatter"],
)
def test_a_sum_errs_by_the_digits_of_its_terms(add_up):
    """1 − 1 + 1e-8 in another order is 1e-8 ± 1e-16, though 1 and −1 move together."""
    floor, _ = measured(add_up, [1.0, 1e-8, -1.0, 0.0], rounding=False)
    assert 1e-16 < floor < 1e-14
    still, _ = measured(add_up, [1.0, 0.0, -1.0, 0.0], rounding=False)
    assert not still.any()


def test_an_iteration_to_a_fixed_point_comes_to_rest_when_its_operations_err():
    def iterated(x):
        return jax.lax.while_loop(
            lambda s: jnp.max(jnp.abs(s[0] - s[1])) > 0,
            lambda s: (jnp.cos(0.5 * s[0] + x), s[0]),
            (x, x + 1),
        )[0]

    floor, y = measured(iterated, [0.3, 0.7], rounding=False)
    assert (floor < 1e-14 * np.abs(y)).all()


def test_floor_takes_the_operations_own_precision_or_float64s():
    x = np.array([0.3, 0.7, 1.3])

    def function(x):
        return jnp.sin(x.astype(jnp.float32)).astype(x.dtype)

    own, y = measured(function, x, rounding=True)
    double, _ = measured(function, x, rounding=False)
    assert (own > 1e-8 * np.abs(y)).any()
    assert (own < 1e-6 * np.abs(y)).all()
    # one float32 unit at most, where the input falls on the other side of a half
    assert (double <= 2.0**-22 * np.abs(y)).all()


def test_exact_results_have_no_floor():
    x = rng().normal(size=(3, 4))
    floor, _ = measured(jnp.sign, x, rounding=True)
    assert not floor.any()
    floor, _ = measured(lambda x: jnp.argsort(x, axis=1).astype(x.dtype), x, rounding=True)
    assert not floor.any()


@pytest.mark.parametrize(
    "function",
    [
        lambda x: jax.grad(jnp.median)(x),  # of five: the index is 0.5 · (5.0 - 1.0), made by jit
        lambda x: jax.grad(jnp.nanmedian)(x),
        lambda x: x[jnp.floor(jnp.arange(4) * 0.1 * 10).astype(int)],
        lambda x: x[jnp.floor(jnp.asarray(np.float32([0.2, 0.3])) * 10.0).astype(int)],
        lambda x: jax.lax.map(lambda t: x[jnp.floor(t * 0.1 * 10).astype(int)], jnp.arange(4.0)),
        lambda x: x[jnp.floor(0.25 * jnp.ones_like(x).at[4].set(x[4]).sum()).astype(int)],
    ],
    ids=["median", "nanmedian", "index", "float32", "scan", "exact"],
)
def test_an_index_that_is_computed_in_floats_does_not_jump(function):
    floor, y = measured(function, [0.3, -1.2, 0.7, 0.1, 0.0], rounding=False)
    assert (floor <= 8 * EPS * np.abs(y)).all()


def test_a_constant_is_known_as_far_as_it_was_computed_or_given():
    given = np.float32(0.7978846)
    floor, y = measured(lambda x: x * (3.0 * jnp.asarray(given)), [0.3], rounding=False)
    assert 1e-8 < floor / y < 1e-6
    floor, y = measured(lambda x: (x + jnp.exp(0.1 * jnp.float64(3))) - x, [1.0], rounding=False)
    assert EPS < floor / y < 16 * EPS
    floor, _ = measured(lambda x: x - jnp.sqrt(jnp.full_like(x, 4.0)), [2.0], rounding=False)
    assert floor == 0


def test_what_is_saturated_is_not_exact():
    floor, _ = measured(lambda x: jnp.expm1(x) + 1, [-40.0], rounding=False)
    assert floor >= EPS / 2


def test_ties_are_not_torn_by_the_floor():
    """At a tie the maximum's gradient would jump if equal inputs were moved apart."""
    x = np.array([1.0, 2.0, 2.0, 2.0])
    floor, y = measured(lambda x: jax.grad(jnp.max)(x), x, rounding=True)
    np.testing.assert_allclose(y, [0, 1 / 3, 1 / 3, 1 / 3])
    assert (floor <= 8 * EPS).all()


def test_symmetry_is_not_torn_by_the_floor():
    x = np.array([1.5, -1.5])
    floor, y = measured(lambda x: jnp.abs(x[0] + x[1]) + jax.nn.relu(x[0] + x[1]), x)
    assert y == 0
    assert floor == 0


def test_rows_have_their_own_rounding_errors():
    """The floor of the same row many times over is not many times the same number."""
    x = np.full((16, 3), 0.3)
    row = Row(lambda x: [jnp.exp(jnp.sin(x) * 3)], [x[0]])
    base = row.rows([x])
    floor = witness.floors(row, [x], base, rng(), 1, True)[0]
    assert len({tuple(f) for f in floor}) > 3


def test_floor_of_what_is_not_finite_is_zero():
    with np.errstate(all="ignore"):
        floor = witness.spread(np.array([np.inf, np.nan, 1.5]), np.array([np.inf, 1.0, 1.0]))
    np.testing.assert_array_equal(floor, [0, 0, 0.5])


def test_the_same_seed_draws_the_same():
    a, b, c = (witness.seeded(*s).random(3) for s in ((1, "x"), (1, "x"), (1, "y")))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all()
    assert (witness.seeded(2, "x").random(3) != a).all()
