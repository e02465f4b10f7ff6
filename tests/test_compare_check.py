"""How a check is used, and what it says beside right and wrong (of that: test_compare_verdicts)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas

from handgrad.compare import GradientMismatch, check, check_backward, check_gradient, examine
from handgrad.compare.examination import Examination
from handgrad.compare.report import Accuracy

RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


X, V = normal(3, 4), normal(5)
W, SQUARE = normal(4, 2), normal(3, 3)
DOUBLE = normal(6, dtype=np.float64)


@pytest.fixture(autouse=True)
def defaults():
    """A user's JAX as it comes; test_compare_bad_input is about other settings."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def kinds(report):
    return [d.kind for d in report.diagnoses]


def layer(x, w, b):
    return jnp.tanh(x @ w + b)


def layer_backward(x, w, b, dy, slope=lambda h: 1 - h * h):
    d = dy * slope(jnp.tanh(x @ w + b))
    return d @ w.T, x.T @ d, d.sum(0)


LAYER = (X, W, np.zeros(2, np.float32))
AT = np.array([0.0, 1.0, -1.0, 0.0, 2.5])


def spoilt(backward, place, spoil):
    """One of the cotangents of a right backward, spoilt."""

    def candidate(*args):
        cotangents = list(backward(*args))
        cotangents[place] = spoil(jnp.asarray(cotangents[place]))
        return tuple(cotangents)

    return candidate


def branching_backward(x, dy):
    if x[0] > 0:
        return 2 * x * dy
    return 2 * dy * x


# --- functions with a derivative of their own -----------------------------------------------------


def with_vjp(primal, forward, backward):
    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function


def plain(x, w):
    return jnp.sin(x @ w)


def plain_forward(x, w):
    return plain(x, w), (x, w)


def plain_backward(saved, dy):
    x, w = saved
    d = dy * jnp.cos(x @ w)
    return d @ w.T, x.T @ d


def test_a_function_is_checked_in_values_and_gradients():
    report = check(with_vjp(plain, plain_forward, plain_backward), plain, X, W)
    assert [q.path for q in report.outputs] == ["output"]
    assert [q.path for q in report.gradients] == ["x", "w"]
    assert report.verified == 2


def test_a_wrong_value_is_not_a_wrong_gradient():
    def slightly_off(x, w):
        return plain(x, w) * (1 + 1e-9)

    off = with_vjp(slightly_off, lambda x, w: (slightly_off(x, w), (x, w)), plain_backward)
    report = examine(off, plain, X, W)
    assert not report.ok
    assert [q.ok for q in (*report.outputs, *report.gradients)] == [False, True, True]
    assert "the forward values differ" in str(report)
    assert "    reference  " in str(report)
    assert "autodiff" not in str(report).split("→")[0]


def test_the_value_without_differentiation_is_compared_too():
    """A custom_vjp holds the forward twice; only grad uses the second."""
    off = with_vjp(lambda x, w: 2 * plain(x, w), plain_forward, plain_backward)
    report = examine(off, plain, X, W)
    assert not report.ok
    assert "output" in str(report)


def test_a_forward_rule_with_other_values_than_the_function_is_told_from_a_wrong_function():
    off = with_vjp(plain, lambda x, w: (2 * plain(x, w), (x, w)), plain_backward)
    report = examine(off, plain, X, W)
    assert not report.ok
    assert "another when it is only called than when it is differentiated" in report.problem


def test_a_function_without_a_derivative_of_its_own_is_remarked():
    report = examine(lambda x: x**3, lambda x: x * x * x, V)
    assert report.ok
    assert any(r.startswith("no derivative by hand") for r in report.remarks)
    own = with_vjp(plain, plain_forward, plain_backward)
    assert not check(own, plain, X, W).remarks
    wrong = examine(lambda x: x**3 + x, lambda x: x * x * x, V)
    assert not wrong.ok


def test_nan_equal_to_nan_verifies_nothing():
    norm = jnp.linalg.norm
    report = examine(lambda x, dy: dy * x / norm(x), norm, np.zeros(3), kind="backward")
    assert report.ok  # at inputs nearby
    assert "is nan in 3 of 3 elements: nothing was verified there" in str(report)
    assert not examine(lambda x, dy: dy * x / norm(x) ** 2, norm, np.zeros(3), kind="backward").ok
    report = examine(root_backward, jnp.sqrt, np.array([0.0, 2.0]), kind="backward")
    assert report.ok
    assert "is inf in 1 of 2 elements" in str(report)
    assert report.accurate  # in the other one
    assert not examine(lambda x, dy: dy / x, jnp.sqrt, np.array([0.0, 2.0]), kind="backward").ok


def root_backward(x, dy):
    return dy / (2 * jnp.sqrt(x))


def test_nan_everywhere_is_not_compared():
    report = examine(root_backward, jnp.sqrt, np.zeros(2), kind="backward")
    assert not report.ok
    assert "every gradient is nan or inf in every element" in report.problem
    assert report.verified == 0


@pytest.mark.parametrize("dtype", [None, jnp.float32])
def test_accuracy_is_not_measured_where_other_numbers_are_drawn(dtype):
    def noisy(x, key):
        return x * jax.random.normal(key, x.shape, dtype)

    def noisy_backward(x, key, dy):
        return dy * jax.random.normal(key, x.shape, dtype), None

    args = np.ones(8, np.float32), jax.random.PRNGKey(0)
    report = examine(noisy_backward, noisy, *args, kind="backward")
    assert report.ok
    assert bool(report.accuracy) == (dtype is not None)
    said = any("random numbers differ between dtypes" in r for r in report.remarks)
    assert said == (dtype is None)


def test_ties_are_shown_moved_together():
    def whole(x, dy):
        return jnp.where(x == x.max(), dy, 0.0)

    report = examine(whole, jnp.max, np.array([1.0, 1, 1, 0]), kind="backward")
    assert not report.ok
    (q,) = report.gradients
    assert q.worst.numerical is None
    hand, truth, number = q.together
    assert hand == pytest.approx(3 * number)
    assert truth == pytest.approx(number)
    assert kinds(report) == ["tie"]
    assert "tied elements, moved together: by hand -2.13" in str(report)

    def shared(x, dy):
        return whole(x, dy) / (x == x.max()).sum()

    assert examine(shared, jnp.max, np.array([1.0, 1, 1, 0]), kind="backward").ok


def test_a_wrong_backward_of_a_function():
    off = with_vjp(plain, plain_forward, lambda s, dy: [2 * g for g in plain_backward(s, dy)])
    with pytest.raises(GradientMismatch, match="the gradient is wrong for x, w") as caught:
        check(off, plain, X, W)
    assert [q.ok for q in caught.value.report.outputs] == [True]


def test_a_second_output_and_an_integer_one():
    def function(x):
        return {"max": jnp.max(x), "place": jnp.argmax(x), "all": x * x}

    right = with_vjp(
        function,
        lambda x: (function(x), x),
        lambda x, dy: (2 * x * dy["all"] + dy["max"] * jax.nn.one_hot(jnp.argmax(x), x.size),),
    )
    report = check(right, function, V)
    assert [q.path for q in report.outputs] == ["output 0", "output 1"]
    half = with_vjp(function, lambda x: (function(x), x), lambda x, dy: (2 * x * dy["all"],))
    assert not examine(half, function, V).ok


def test_a_rule_for_vmap_that_is_wrong():
    @jax.custom_batching.custom_vmap
    def cube(x):
        return x**3

    @cube.def_vmap
    def _(size, batched, x):
        return 1.5 * x**3, True

    report = examine(lambda x, dy: 3 * cube(x) / x * dy, lambda x: x**3, V, kind="backward")
    assert not report.ok
    assert "under vmap" in report.problem


def test_what_cannot_be_batched_is_still_checked():
    """A callback is called row by row."""

    def cosine(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.pure_callback(np.cos, shape, x)

    report = check_backward(lambda x, dy: dy * cosine(x), jnp.sin, V)
    assert report.ok
    assert any("vmap" in remark for remark in report.remarks)
    assert not examine(lambda x, dy: 2 * dy * cosine(x), jnp.sin, V, kind="backward").ok


def in_python(function, x):
    host = functools.partial(_host, function)
    like = jax.ShapeDtypeStruct(x.shape, np.float32)
    return jax.pure_callback(host, like, x, vmap_method="expand_dims")


def _host(function, x):
    return function(np.asarray(x)).astype(np.float32)


def in_a_kernel(function, x):
    def kernel(given, out):
        out[...] = function(given[...])

    like = jax.ShapeDtypeStruct(x.shape, np.float32)
    return pallas.pallas_call(kernel, out_shape=like, interpret=True)(x)


@pytest.mark.parametrize(
    ("run", "sin", "cos"), [(in_python, np.sin, np.cos), (in_a_kernel, jnp.sin, jnp.cos)]
)
def test_what_is_float32_whatever_it_is_given_is_compared_in_that(run, sin, cos):
    def sine(factor):
        function = jax.custom_vjp(functools.partial(run, sin))
        forward = functools.partial(run, sin)
        function.defvjp(lambda x: (forward(x), x), lambda x, dy: (factor * dy * run(cos, x),))
        return function

    report = examine(sine(1), jnp.sin, V)
    assert report.ok, str(report)
    assert any("returns float32, whatever it is given" in r for r in report.remarks)
    assert not any("inside a larger" in r for r in report.remarks)
    assert not examine(sine(1.001), jnp.sin, V).ok


def fixed_point(a, b):
    """h = tanh(a h + b), reached in a while loop."""

    def closer(state):
        h, _ = state
        return jnp.tanh(a @ h + b), h

    def open_(state):
        h, last = state
        return jnp.max(jnp.abs(h - last)) > 0

    return lax.while_loop(open_, closer, (jnp.tanh(b), b))[0]


def fixed_point_backward(a, b, dy):
    h = fixed_point(a, b)
    slope = 1 - h * h
    u = jnp.linalg.solve(jnp.eye(len(b), dtype=b.dtype) - a.T * slope, dy)
    return jnp.outer(slope * u, h), slope * u


def unrolled(a, b):
    return lax.fori_loop(0, 60, lambda _, h: jnp.tanh(a @ h + b), jnp.tanh(b))


def test_a_loop_of_unknown_length_in_the_candidate():
    """The implicit derivative of a fixed point: under vmap each row has its own number of steps."""
    a, b = 0.1 * SQUARE.astype(float), V[:3].astype(float)
    assert check_backward(fixed_point_backward, unrolled, a, b).ok
    assert not examine(
        lambda a, b, dy: spoilt(fixed_point_backward, 1, lambda g: 1.01 * g)(a, b, dy),
        unrolled, a, b, kind="backward",
    ).ok  # fmt: skip


# --- two verdicts ---------------------------------------------------------------------------------


def accuracy(report):
    return {a.path: a for a in report.accuracy}


def test_right_derivation_with_digits_lost():
    """exp(x) / (1 + exp(x)) is the slope of softplus, and inf / inf in float32 from x = 89."""
    x = np.array([100.0, 3.0], np.float32)
    report = check_backward(lambda x, dy: dy * jnp.exp(x) / (1 + jnp.exp(x)), jax.nn.softplus, x)
    assert report.ok
    assert report.accurate is False
    assert accuracy(report)["x"].hand == np.inf
    assert accuracy(report)["x"].autodiff < 2
    assert "LOSES DIGITS" in str(report)


def test_right_and_accurate():
    report = check_backward(lambda x, dy: dy * jax.nn.sigmoid(x), jax.nn.softplus, V)
    assert report.accurate is True
    assert accuracy(report)["x"].dtype == "float32"
    assert accuracy(report)["x"].hand < 4
    assert report.device == "cpu"


def test_cancellation_is_an_accuracy_matter():
    x = np.float32(1e-3) * V
    report = check_backward(lambda x, dy: dy * ((1 + x) ** 2 - 1 - x * x), jnp.square, x)
    assert report.ok
    assert report.accurate is False
    assert accuracy(report)["x"].hand > 100


def test_digits_lost_by_chance_at_one_input_are_not_the_codes():
    def unlucky(x, dy):
        return dy * jnp.cos(x) * jnp.where(x == np.float32(0.7), 1 + 2.0**-19, 1)

    report = check_backward(unlucky, jnp.sin, np.float32([0.7, 1.1]))
    assert report.accurate
    assert accuracy(report)["x"].hand < 4


@pytest.mark.parametrize(
    ("nearby", "ok"), [((1, 20, 20, 20), False), ((1, 1, 20, 20), False), ((1, 1, 1, 20), True)]
)
def test_digits_are_lost_where_most_inputs_nearby_lose_them(nearby, ok):
    """The median decides, not the luckiest."""
    given, *others = (Accuracy("x", "float32", float(e), 1.0) for e in (20, *nearby))
    typical = Examination._typical(given, [*others, Accuracy("w", "float32", 0.0, 0.0)])
    assert typical.ok is ok


def test_a_wrong_derivation_is_not_called_accurate_or_inaccurate_in_its_text():
    report = examine(lambda x, dy: 2 * dy, jnp.sin, V, kind="backward")
    assert not report.ok
    assert "ulp" not in str(report)


@pytest.mark.parametrize("kind", [np.float16, jnp.bfloat16], ids=["float16", "bfloat16"])
def test_accuracy_is_that_of_the_users_dtype(kind):
    report = check_backward(lambda x, dy: dy * jnp.cos(x), jnp.sin, V.astype(kind))
    assert report.accurate
    assert accuracy(report)["x"].dtype == jnp.dtype(kind).name
    assert report.gradients[0].dtype == jnp.dtype(kind).name


def test_an_overflow_in_half_precision_is_an_accuracy_matter():
    """300² is beyond float16; the reference takes the largest element out first."""

    def norm(x):
        largest = lax.stop_gradient(jnp.max(jnp.abs(x)))
        return largest * jnp.sqrt(jnp.sum((x / largest) ** 2))

    x = np.array([300.0, -200.0, 50.0], np.float16)
    report = examine(lambda x, dy: dy * x / jnp.sqrt(jnp.sum(x * x)), norm, x, kind="backward")
    assert report.ok
    assert report.accurate is False


def test_a_lower_precision_than_the_inputs_is_not_excused_as_rounding():
    report = examine(
        lambda x, dy: (2 * x.astype(jnp.bfloat16) * dy.astype(jnp.bfloat16)).astype(x.dtype),
        jnp.square, X, kind="backward",
    )  # fmt: skip
    assert not report.ok
    assert "precision" in kinds(report)


def test_the_inputs_own_precision_is_no_lower_precision():
    """A cast to float32 is nothing to somebody whose arrays are float32."""

    def backward(x, dy):
        return (2 * x.astype(jnp.float32) * dy.astype(jnp.float32)).astype(x.dtype)

    for x in (X, X.astype(jnp.bfloat16)):
        report = examine(backward, jnp.square, x, kind="backward")
        assert report.ok, str(report)


# --- what is said ---------------------------------------------------------------------------------


def test_siding_with_autodiff():
    report = examine(lambda x, dy: -jnp.cos(x) * dy, jnp.sin, V, kind="backward")
    (q,) = report.gradients
    assert q.siding == "autodiff"
    assert q.wrong == 5
    assert q.worst.ratio == pytest.approx(-1)
    assert q.worst.numerical == pytest.approx(q.worst.autodiff, rel=1e-9)
    assert "by hand" in str(report)
    assert "sides with autodiff" in str(report)


def wrong_reference(x):
    """sin with a derivative of its own, which is wrong."""
    f = with_vjp(jnp.sin, lambda x: (jnp.sin(x), x), lambda x, dy: (2 * jnp.cos(x) * dy,))
    return f(x)


def test_siding_with_the_hand_when_the_reference_is_wrong():
    report = check_backward(lambda x, dy: jnp.cos(x) * dy, wrong_reference, V)
    assert report.gradients[0].siding == "hand"
    assert any("autodiff of the reference is the odd one out" in r for r in report.remarks)


def test_siding_with_neither():
    report = examine(lambda x, dy: 3 * jnp.cos(x) * dy, wrong_reference, V, kind="backward")
    assert not report.ok
    assert report.gradients[0].siding == "neither"


def test_both_wrong_alike_is_remarked():
    report = check_backward(lambda x, dy: 2 * jnp.cos(x) * dy, wrong_reference, V)
    assert any("departs from autodiff and from the derivation alike" in r for r in report.remarks)


def test_kinks_are_counted_and_said():
    report = check_backward(lambda x, dy: dy * (x >= 0), jax.nn.relu, AT)
    assert report.gradients[0].kinks == 2
    assert "at 2 elements the function has a kink" in str(report)
    assert check_backward(lambda x, dy: dy * (x > 0), jax.nn.relu, AT).gradients[0].kinks == 0


@pytest.mark.parametrize("size", [50, 1000, 5000])
def test_a_mistake_among_many_kinks_or_faults_of_autodiff(size):
    """Only what is like an element that was asked about is excused."""
    x = np.zeros(size)
    x[5:8] = 1.0, -2.0, 9.0  # relu6 is flat above 6
    report = examine(lambda x, dy: dy * (x >= 0), jax.nn.relu6, x, kind="backward")
    assert not report.ok
    assert report.gradients[0].wrong == 1
    assert report.gradients[0].worst.index == (7,)

    def root(x):  # autodiff is nan where x < 0
        return jnp.where(x > 0, jnp.sqrt(jnp.minimum(x, 4.0)), 0.0)

    def root_backward(x, dy):
        return dy * jnp.where(x > 0, 0.5 / jnp.sqrt(jnp.where(x > 0, x, 1)), 0)

    x = -np.abs(np.random.default_rng(0).normal(size=size)) - 0.1
    x[size // 3] = 1.0
    check_backward(root_backward, root, x)
    x[size // 2] = 7.0
    report = examine(root_backward, root, x, kind="backward")
    assert not report.ok
    assert report.gradients[0].worst.index == (size // 2,)


def test_a_kink_beside_a_mistake_hides_nothing():
    def backward(p, t, dy):
        d = dy * jnp.sign(p - t)
        return d, d

    p, t = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.0, 4.0])
    report = examine(backward, lambda p, t: jnp.abs(p - t), p, t, kind="backward")
    assert [d.text for d in report.diagnoses] == ["the gradient of t has the wrong sign"]


def test_a_convention_where_autodiff_is_nan():
    """A length has no derivative at zero; most take 0, of which nan says nothing."""

    def backward(x, dy):
        length = jnp.sqrt((x**2).sum(1, keepdims=True))
        return dy[:, None] * x / jnp.where(length == 0, 1, length)

    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    check_backward(backward, lambda x: jnp.sqrt((x**2).sum(1)), x)


def pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID")


def of_the_first(x):
    pairs = x.reshape(-1, 2)
    return jnp.take_along_axis(pairs, pairs.argmax(1)[:, None], 1)[:, 0]


@pytest.mark.parametrize("reference", [pool, of_the_first, lambda x: x.reshape(-1, 2).max(1)])
def test_ties_share_one_cotangent(reference):
    """Also where autodiff gives it to one of them, which is then right in that element."""
    x = np.array([0.0, 0.0, 1.0, 2.0, 3.0, 3.0])

    def backward(x, dy, share):
        pairs = x.reshape(-1, 2)
        most = pairs == pairs.max(1, keepdims=True)
        return (dy[:, None] * share(most)).ravel()

    for right in (
        lambda most: most / most.sum(1, keepdims=True),
        lambda most: most & (jnp.cumsum(most, 1) == 1),
        lambda most: most & (jnp.cumsum(most[:, ::-1], 1)[:, ::-1] == 1),
    ):
        check_backward(functools.partial(backward, share=right), reference, x)
    for wrong in (lambda most: most, lambda most: most & (most.sum(1, keepdims=True) == 1)):
        report = examine(functools.partial(backward, share=wrong), reference, x, kind="backward")
        assert not report.ok
        assert "tie" in kinds(report)


def test_a_factor_is_one_at_other_inputs_too():
    """The path through log t is left out: at one input that is a factor, and means nothing."""
    report = examine(
        lambda x, t, dy: (dy * t * jnp.cos(x), (dy * jnp.sin(x)).sum()),
        lambda x, t: t * jnp.sin(x) + jnp.log(t), V, np.array(1.7), kind="backward",
    )  # fmt: skip
    assert not report.ok
    assert "factor" not in kinds(report)
    assert "path" in kinds(report)


def test_the_convention_of_pytorch_for_complex_numbers():
    z = np.array([1.0 - 2j, 0.5 + 1j])
    for report in (
        examine(lambda z: (2 * z,), lambda z: (jnp.abs(z) ** 2).sum(), z, kind="gradient"),
        examine(lambda z, dy: (2 * jnp.conj(z) * dy,), lambda z: z * z, z, kind="backward"),
    ):
        assert report.gradients[0].siding == "autodiff"
        assert kinds(report) == ["conjugate"]
    check_gradient(lambda z: (2 * jnp.conj(z),), lambda z: (jnp.abs(z) ** 2).sum(), z)
    check_backward(lambda z, dy: 2 * z * dy, lambda z: z * z, z)


def test_a_mistake_beside_a_narrow_product_that_the_reference_has_too():
    """The derivative of GELU with a 1 for a 3: 2 % off, where bfloat16 is 0.4 % off."""

    def product(x, w):
        return (x.astype(jnp.bfloat16) @ w.astype(jnp.bfloat16)).astype(x.dtype)

    def backward(x, w, dy, factor):
        a, c = product(x, w), np.sqrt(2 / np.pi)
        t = jnp.tanh(c * (a + 0.044715 * a**3))
        slope = 0.5 * (1 + t) + 0.5 * a * (1 - t**2) * c * (1 + factor * 0.044715 * a**2)
        da = (dy * slope).astype(jnp.bfloat16)
        dx, dw = da @ w.astype(jnp.bfloat16).T, x.astype(jnp.bfloat16).T @ da
        return dx.astype(x.dtype), dw.astype(x.dtype)

    reports = [
        examine(
            functools.partial(backward, factor=factor), lambda x, w: jax.nn.gelu(product(x, w)),
            X, W, kind="backward",
        )
        for factor in (3, 1)
    ]  # fmt: skip
    assert [report.ok for report in reports] == [True, False]
    assert reports[0].accurate


def test_vacuity_is_said():
    report = check_backward(lambda x, w, dy: (2 * x * dy, 0 * w), lambda x, w: x * x, V, V)
    assert report.ok
    assert report.gradients[1].vacuous
    assert report.verified == 1
    assert "the derivation is right for x; nothing was verified for w" in str(report)


def test_an_empty_array_verifies_nothing():
    report = check_backward(lambda x, dy: 2 * x * dy, jnp.square, np.zeros((0, 3)))
    assert report.ok
    assert report.verified == 0
    assert "nothing was verified for x: it has no elements" in str(report)


def test_a_bias_of_zero_hides_nothing():
    """At b = 0 the two agree; next to it they do not."""
    report = examine(
        lambda x, b, dy: (dy, dy + 1e-3 * dy * b), lambda x, b: x + b, V, 0 * V, kind="backward"
    )
    assert not report.ok
    assert "it agrees at your inputs" in str(report)


def test_the_worst_element_is_named():
    report = examine(
        lambda x, dy: (2 * x * dy).at[1, 2].multiply(3), jnp.square, X, kind="backward"
    )
    (q,) = report.gradients
    assert q.wrong == 1
    assert q.worst.index == (1, 2)
    assert q.worst.ratio == pytest.approx(3)
    assert q.deviation == pytest.approx(2)
    assert "worst at [1, 2]" in str(report)


def test_numpy_and_branches_are_remarked():
    report = check_backward(branching_backward, jnp.square, V)
    assert any("JAX cannot trace" in r for r in report.remarks)
    assert report.accurate is None


def test_names():
    assert check_backward(layer_backward, layer, *LAYER).name == "layer_backward"
    assert check_backward(layer_backward, layer, *LAYER, name="mine").name == "mine"
    half = functools.partial(layer_backward, slope=lambda h: 1 - h * h)
    assert check_backward(half, layer, *LAYER).name == "layer_backward"


def test_check_gradient_is_check_gradient():
    report = check_gradient(lambda x: 2 * x, lambda x: jnp.sum(x * x), V)
    assert report.kind == "gradient"
    assert bool(report)
    with pytest.raises(AssertionError, match="has the wrong sign"):
        check_gradient(lambda x: -2 * x, lambda x: jnp.sum(x * x), V)


# --- as one works in a notebook -------------------------------------------------------------------

FACTOR = 2.0


def scaled(x):
    return FACTOR * jnp.asarray(x) ** 2


def test_a_changed_global_is_seen(monkeypatch):
    def backward(x, dy):
        return 4 * x * dy

    assert check_backward(backward, scaled, V)
    assert check_backward(backward, scaled, V)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert not examine(backward, scaled, V, kind="backward")
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    assert examine(backward, scaled, V, kind="backward")


def test_a_changed_global_of_the_candidate_is_seen(monkeypatch):
    def backward(x, dy):
        return 2 * FACTOR * x * dy

    monkeypatch.setitem(globals(), "FACTOR", 1.0)
    assert examine(backward, jnp.square, V, kind="backward")
    monkeypatch.setitem(globals(), "FACTOR", 1 + 1e-9)
    assert not examine(backward, jnp.square, V, kind="backward")


def test_an_array_changed_in_place_is_seen():
    table = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    start = table.copy()

    def backward(x, dy):
        return jnp.asarray(start) * dy

    def reference(x):
        return jnp.asarray(table) * x

    assert examine(backward, reference, V, kind="backward")
    table[2] = 7.0
    assert not examine(backward, reference, V, kind="backward")


def test_a_changed_attribute_is_seen():
    class Layer:
        slope = 2.0

        def __call__(self, x):
            return self.slope * x * x

        def backward(self, x, dy):
            return 4.0 * x * dy

    layer = Layer()
    assert check_backward(layer.backward, layer, V)
    layer.slope = 3.0
    assert not examine(layer.backward, layer, V, kind="backward")


def test_a_changed_constant_argument_is_seen():
    def power(x, n):
        return x**n

    def backward(x, n, dy):
        return n * x ** (n - 1) * dy, None

    for n in (2, 3, 2):
        assert check_backward(backward, power, V, n)
    assert not examine(lambda x, n, dy: (2 * x * dy, None), power, V, 3, kind="backward")


def test_redefined_functions_do_not_meet():
    def make(factor):
        def backward(x, dy):
            return factor * x * dy

        return backward

    verdicts = [examine(make(f), jnp.square, V, kind="backward").ok for f in (2.0, 3.0, 2.0)]
    assert verdicts == [True, False, True]


def test_jitted_vmapped_and_partial_functions():
    def backward(x, dy, *, factor):
        return factor * x * dy

    double = functools.partial(backward, factor=2.0)
    for candidate in (double, jax.jit(double), jax.vmap(double), jax.checkpoint(double)):
        assert check_backward(candidate, jax.jit(jnp.square), V).ok
    triple = functools.partial(backward, factor=3.0)
    for candidate in (triple, jax.jit(triple), jax.vmap(triple)):
        assert not examine(candidate, jax.jit(jnp.square), V, kind="backward").ok


def test_a_list_of_numbers_is_a_tree_of_numbers():
    """As everywhere in JAX; an array is what was meant, and that is said."""

    def function(x):
        return jnp.sum(jnp.asarray(x) ** 2)

    report = examine(lambda x: 2 * jnp.asarray(x), function, [1.0, 2.0, 3.0], kind="gradient")
    assert not report.ok
    assert "array" in report.problem
    assert "PyTreeDef" not in report.problem
    assert check_gradient(lambda x: [2 * v for v in x], function, [1.0, 2.0, 3.0])


def test_python_numbers_beside_arrays_are_constants_unless_differentiated():
    """Of x and a number, a derivation usually means x."""

    def leaky(x, slope):
        if slope < 0:
            raise ValueError("slope")
        return jnp.where(x > 0, x, slope * x)

    assert check_backward(
        lambda x, slope, dy: (jnp.where(x > 0, dy, slope * dy), None), leaky, V, 0.1, argnums=(0,)
    )


def test_both_derivatives_of_a_python_number():
    assert check_backward(
        lambda x, s, dy: (s * dy, jnp.sum(x * dy)), lambda x, s: x * s, V, 0.5
    ).verified == 2  # fmt: skip


def test_the_same_seed_the_same_report_and_another_seed_other_numbers():
    def backward(x, dy):
        return 2.1 * x * dy

    first, again, other = (
        examine(backward, jnp.square, V, kind="backward", seed=s) for s in (1, 1, 2)
    )
    assert first == again
    assert str(first) == str(again)
    assert first.gradients[0].worst.hand != other.gradients[0].worst.hand
    assert first.seed == 1
    assert "seed 1" in str(first)


# --- where nothing can be told --------------------------------------------------------------------


def test_noise_of_its_own_does_not_excuse_everything():
    """A deviation of the size of the gradient is no lost digit, however the candidate jumps."""
    report = examine(
        lambda x, dy: 2 * x * dy * (1 + jnp.sin(1e15 * x)),
        jnp.square,
        V.astype(float),
        kind="backward",
    )
    assert not report.ok, str(report)


def test_instability_does_not_excuse_a_factor():
    report = examine(
        lambda x, dy: 4 * ((1e16 + x) - 1e16) * dy, jnp.square, V.astype(float), kind="backward"
    )
    assert not report.ok, str(report)


def test_a_reference_that_is_all_noise_verifies_nothing():
    """sin(1e15 x) turns over within a unit in the last place of x; zero is not its derivative."""
    report = examine(
        lambda x, dy: 0 * x, lambda x: jnp.sin(1e15 * x), V.astype(float), kind="backward"
    )
    assert report.verified == 0
    assert not report.ok or any("nothing was verified" in r for r in report.remarks)


def test_a_sample_closed_over_is_no_argument():
    """Agrees at the sample, and depends on nothing."""
    sample = V.astype(float)
    report = examine(lambda x, dy: 2 * sample * dy, jnp.square, sample, kind="backward")
    assert not report.ok
    assert any("it agrees at your inputs" in r for r in report.remarks)


def test_argnums_out_of_order():
    """jax.grad gives the gradients in the order of argnums."""

    def loss(x, w):
        return jnp.sum(x * w * w)

    for order in ((0, 1), (1, 0), (1,)):
        report = examine(jax.grad(loss, order), loss, V, V + 1, kind="gradient", argnums=order)
        assert report.ok, (order, str(report))


def test_a_dtype_written_out_in_the_users_code():
    """A carry of float32 meets float64 in the check: it passes, or it is said what to write."""

    def last(xs):
        return lax.scan(lambda h, x: (jnp.tanh(h + x), None), jnp.zeros((), jnp.float32), xs)[0]

    def backward(xs, dy):
        hs = [jnp.zeros((), xs.dtype)]
        for x in xs:
            hs.append(jnp.tanh(hs[-1] + x))
        grads = []
        for h in hs[:0:-1]:
            dy = dy * (1 - h * h)
            grads.append(dy)
        return jnp.stack(grads[::-1])

    report = examine(backward, last, V, kind="backward")
    if not report.ok:
        assert "reference" in report.problem
        assert "last" in report.problem
        assert "float64" in report.problem


# --- of which argument it is ---------------------------------------------------------------------


def chain(ws, x):
    return (ws[1] @ jnp.tanh(ws[0] @ x)).sum()


def of_the_weights(ws, x):
    h = jnp.tanh(ws[0] @ x)
    return [jnp.outer(ws[1].sum(0) * (1 - h**2), x), jnp.outer(jnp.ones(3), h)]


@pytest.mark.parametrize("argnums", [None, [0]])
def test_a_list_of_as_many_as_there_are_arguments_is_the_gradient_of_the_first(argnums):
    rng = np.random.default_rng(0)
    args = [rng.normal(size=(3, 3)) for _ in range(2)], rng.normal(size=3)
    report = examine(of_the_weights, chain, *args, kind="gradient", argnums=argnums)
    assert [q.path for q in report.gradients] == ["ws[0]", "ws[1]"]
    assert report.ok
