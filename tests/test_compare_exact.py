"""Multiple precision: every primitive's rule, and the verdicts that it decides."""

import builtins
import functools
import json

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from jax import lax

from handgrad import manual, reference
from handgrad.compare import GradientMismatch, cases, check_backward, check_gradient, examine
from handgrad.compare import check as check_function
from handgrad.compare.examination import Examination
from handgrad.compare.interpret import Program
from handgrad.compare.multiprecision import Exact, Unsupported, work

X = np.array([[0.3, -1.2, 2.0], [-0.7, 0.25, 1.1]])
P = np.array([0.1, 0.4, 0.9, 1.7])
U = np.array([-0.9, -0.3, 0.2, 0.8])
SQUARE = np.array([[2.0, 0.3, 0.1], [0.4, 1.5, -0.2], [0.0, 0.7, 3.0]])
IMAGE = np.linspace(-1, 1, 50).reshape(1, 5, 5, 2) ** 3
KERNEL = np.linspace(1, -2, 24).reshape(2, 2, 2, 3)


@pytest.fixture(autouse=True)
def double():
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


@pytest.fixture(autouse=True)
def _not_run(monkeypatch):
    """The accuracy in the run's dtype has tests of its own; without it nothing is compiled."""
    monkeypatch.setattr(Examination, "_start", lambda *_: None)


def both(function, *args, digits=30):
    """A function with its pullback, in float64 and in many digits."""

    def row(*values):
        floats = [i for i, v in enumerate(values) if jnp.issubdtype(v.dtype, jnp.inexact)]

        def smooth(*some):
            full = list(values)
            for i, v in zip(floats, some, strict=True):
                full[i] = v
            return function(*full)

        y = jax.tree.leaves(function(*values))
        inexact = all(jnp.issubdtype(v.dtype, jnp.inexact) for v in y)
        if not floats or not inexact:
            return y
        y, pull = jax.vjp(smooth, *(values[i] for i in floats))
        return [
            *jax.tree.leaves(y),
            *pull(jax.tree.map(lambda v: jnp.cos(jnp.ones_like(v)) * v + 1, y)),
        ]

    program = Program(row, *args)
    exact = Exact(program, args)
    return program(*args), exact.evaluate(digits, *args)


# --- the rules ------------------------------------------------------------------------------------

ELEMENTWISE = {
    "neg": U, "sin": U, "cos": U, "tan": U, "tanh": U, "sinh": U, "cosh": U, "asin": U, "acos": U,
    "atan": U, "asinh": U, "acosh": P + 1, "atanh": U, "exp": U, "exp2": U, "log": P, "log1p": U,
    "expm1": U, "sqrt": P, "rsqrt": P, "cbrt": U, "square": U, "logistic": U, "erf": U, "erfc": U,
    "erf_inv": U, "lgamma": P, "digamma": P, "abs": U, "sign": U, "floor": 3 * U, "ceil": 3 * U,
    "round": 3 * U, "is_finite": U, "stop_gradient": U,
}  # fmt: skip

FUNCTIONS = {
    "lgamma below zero": (lax.lgamma, U),
    "integer_pow": (lambda x: x**3 + lax.integer_pow(x, -2), U),
    "pow": (lambda x, y: lax.pow(x, y), P, U),
    "pow of an integer": (lambda x: lax.pow(x, 3), U),
    "rem": (lax.rem, 3 * U, P),
    "atan2": (jnp.arctan2, U, P),
    "maximum": (jnp.maximum, U, P - 0.5),
    "minimum": (jnp.minimum, U, P - 0.5),
    "clip": (lambda x: lax.clamp(-0.5, x, 0.5), U),
    "to even": (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), np.array([0.5, 1.5])),
    "where": (lambda x: jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), x), U),
    "select_n": (lambda x: lax.select_n(jnp.array([0, 2, 1, 0]), x, 2 * x, -x), U),
    "to an integer and back": (lambda x: x * (3 * x).astype(int).astype(float), U),
    "to a boolean": (lambda x: x * (x.astype(bool)), U),
    "saturated": (lambda x: (1e6 * x).astype(jnp.int8), U),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 11, 52), U),
    "sum": (lambda x: (x.sum(0), x.sum(), x.mean(1)), X),
    "prod": (lambda x: x.prod(1), X),
    "max": (lambda x: (x.max(1), x.min(), jnp.max(x[:, :0], 1, initial=-1.0)), X),
    "var": (lambda x: x.var(0), X),
    "logsumexp": (lambda x: jax.nn.logsumexp(x, 1), X),
    "cumsum": (lambda x: jnp.cumsum(x, 1), X),
    "cumprod": (lambda x: jnp.cumprod(x, 0), X),
    "cummax": (lambda x: (lax.cummax(x, 1), lax.cummin(x, 0, reverse=True)), X),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, 1), X),
    "sort": (lambda x: jnp.sort(x, 1), X),
    "top_k": (lambda x: lax.top_k(x, 2)[0], X),
    "argmax": (lambda x: (jnp.argmax(x, 1), jnp.argmin(x)), X),
    "shapes": (lambda x: jnp.flip(x.T.reshape(2, 3)[:, None], 0).squeeze(1)[:, ::2], X),
    "concatenate": (lambda x: jnp.stack([jnp.concatenate([x, 2 * x], 0), x.repeat(2, 0)]), X),
    "split": (lambda x: jnp.split(x, 3, 1)[1], X),
    "tile": (lambda x: jnp.tile(x, (2, 1)), X),
    "pad": (lambda x: lax.pad(x, 0.1, [(1, 0, 1), (-1, 2, 0)]), X),
    "iota": (lambda x: x * jnp.arange(3.0), X),
    "dynamic_slice": (lambda x: lax.dynamic_slice(x, (1, 1), (1, 2)), X),
    "dynamic_update": (lambda x: lax.dynamic_update_slice(x, x[:1, :2] ** 2, (1, 1)), X),
    "gather": (lambda x: x[jnp.array([1, 0, 1]), jnp.array([0, 2, 0])], X),
    "gather, filled": (lambda x: x.at[jnp.array([0, 5])].get(mode="fill", fill_value=0.0), X),
    "scatter": (lambda x: x.at[0, 1].set(x[1, 2] ** 2).at[1].add(3.0).at[0].multiply(2.0), X),
    "one_hot": (lambda x: x * jax.nn.one_hot(jnp.array([0, 2]), 3), X),
    "matmul": (lambda x, w: x @ w, X, SQUARE),
    "einsum": (lambda x, w: jnp.einsum("bi,bj,ij->b", x, x, w), X, SQUARE),
    "conv": (
        lambda x, w: lax.conv_general_dilated(
            x, w, (2, 1), [(1, 0), (0, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        IMAGE,
        KERNEL,
    ),
    "max_pool": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"),
        IMAGE,
    ),
    "sum_pool": (
        lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "SAME"), IMAGE
    ),
    "scan": (lambda x, w: lax.scan(lambda h, r: (jnp.tanh(h @ w + r), h), x[0], x), X, SQUARE),
    "scan, reversed": (lambda x: lax.scan(lambda h, r: (h * r, h), x[0], x, reverse=True)[1], X),
    "map": (lambda x: lax.map(jnp.sin, x), X),
    "cond": (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.exp, x), U),
    "switch": (lambda x, i: lax.switch(i, [jnp.sin, jnp.exp, jnp.cos], x), U, np.array(2)),
    "while": (lambda x: lax.while_loop(lambda v: v[0] < 9, lambda v: 2 * v, x), P),
    "while, by rows": (
        jax.vmap(lambda x: lax.while_loop(lambda v: v < 9, lambda v: 2 * v, x)), P
    ),
    "fori": (lambda x: lax.fori_loop(0, 3, lambda i, v: v * (v + i), x), U),
    "checkpoint": (jax.checkpoint(lambda x: jnp.sin(jnp.exp(x))), U),
    "jit": (jax.jit(lambda x: jnp.sin(x) * 0.1), U),
    "custom_jvp": (jax.nn.relu6, 9 * U),
    "custom_vjp": (manual.tanh, U),
    "random": (lambda x: x * jax.random.uniform(jax.random.key(1), (4,)), U),
    "complex": (lambda x: jnp.abs(jnp.exp(lax.complex(x, 2 * x)) * 3j) + jnp.real(x * 1j), U),
}  # fmt: skip


def of_loops(name):
    return name.startswith("while")


@pytest.mark.parametrize("name", [*ELEMENTWISE, *FUNCTIONS])
def test_a_rule_means_what_it_means_in_numpy(name):
    if name in ELEMENTWISE:
        lone = {"round": lambda x: lax.round(x), "stop_gradient": lax.stop_gradient}
        function, args = lone.get(name, getattr(lax, name, None)), (ELEMENTWISE[name],)
    else:
        function, *args = FUNCTIONS[name]
    if of_loops(name):  # which has no pullback
        args, inner = [*args, np.array(0)], function
        function = lambda *a: (inner(*a[:-1]), a[-1])  # noqa: E731
    plain, exact = both(function, *args)
    for a, b in zip(plain, exact, strict=True):
        kind = complex if a.dtype.kind == "c" else float
        assert b.shape == a.shape
        assert (b.dtype == object) == (a.dtype.kind in "fc")
        # what float64 loses in some ten operations, 16 ulps
        np.testing.assert_allclose(b.astype(kind), a.astype(kind), rtol=16 * 2.0**-52, atol=1e-15)


IDENTITIES = {
    "sin² + cos²": (lambda x: jnp.sin(x) ** 2 + jnp.cos(x) ** 2 - 1, U),
    "log exp": (lambda x: jnp.log(jnp.exp(x)) - x, U),
    "erf + erfc": (lambda x: lax.erf(x) + lax.erfc(x) - 1, U),
    "erf erf_inv": (lambda x: lax.erf(lax.erf_inv(x)) - x, U),
    "sqrt": (lambda x: x * lax.rsqrt(x) ** 2 - 1, P),
    "tanh": (lambda x: jnp.tanh(x) - jnp.sinh(x) / jnp.cosh(x), U),
    "logistic": (lambda x: lax.logistic(x) + lax.logistic(-x) - 1, 1e4 * U),
    "lgamma": (lambda x: lax.lgamma(x + 1) - lax.lgamma(x) - jnp.log(x), P),
    "digamma": (lambda x: lax.digamma(x + 1) - lax.digamma(x) - 1 / x, P),
    "log1p expm1": (lambda x: jnp.log1p(jnp.expm1(x)) - x, 1e-30 * P),
    "softmax": (lambda x: jax.nn.softmax(x, 1).sum(1) - 1, 1e4 * X),
    "cumulative": (lambda x: lax.cumlogsumexp(x, 1)[:, -1] - jax.nn.logsumexp(x, 1), X),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_every_digit_is_right(name):
    function, x = IDENTITIES[name]
    (result,) = Exact(Program(lambda x: [function(x)], x), [x]).evaluate(60, x)
    assert max(abs(v) for v in result) < 1e-56  # 60 digits of numbers up to 1e3


def test_what_is_not_defined_is_nan_and_what_has_no_bound_is_inf():
    def rows(x):
        zero = jnp.zeros_like(x)
        return [
            lax.log(-x), lax.sqrt(-x), lax.rsqrt(-x), lax.asin(3 + x), lax.pow(-x, x / 3),
            zero / zero, x / zero, -x / zero, lax.rsqrt(zero), lax.integer_pow(zero, -1),
            lax.pow(zero, -x), lax.exp(1e300 * x), -lax.log(zero), lax.exp(-1e300 * x),
            lax.max(x, x / zero * 0),
        ]  # fmt: skip

    one = np.array(1.0)
    results = [float(v[()]) for v in Exact(Program(rows, one), [one]).evaluate(50, one)]
    nan, inf = np.nan, np.inf
    expected = [nan] * 6 + [inf, -inf, inf, inf, inf, inf, inf, 0.0, nan]
    np.testing.assert_array_equal(results, expected)


def test_nothing_overflows_or_underflows():
    x = np.array([1e4, -1e4])
    (y,) = Exact(Program(lambda x: [jnp.exp(x) / (1 + jnp.exp(x))], x), [x]).evaluate(50, x)
    assert y[0] == 1
    assert mpmath.log10(y[1]) == pytest.approx(-1e4 / np.log(10))


def test_a_constant_is_the_float64_number():
    x = np.array(1.0)
    (y,) = Exact(Program(lambda x: [x * 0.1], x), [x]).evaluate(60, x)
    assert y[()] == mpmath.mpf(0.1)
    assert 10 * y[()] != 1


def test_no_precision_is_left_behind():
    before = mpmath.mp.dps
    assert examine(manual.tanh, reference.tanh, U, digits=70).ok
    assert mpmath.mp.dps == before


def test_a_primitive_without_a_rule_is_named():
    with pytest.raises(Unsupported, match="cholesky"):
        both(lambda x: jnp.linalg.cholesky(x + x.T), SQUARE)


def test_work_counts_multiplications_and_the_steps_of_a_scan():
    def of(function, *args):
        return work(Program(function, *args).jaxpr.jaxpr)

    assert of(lambda x, w: [x @ w], X, SQUARE) == 2 * 3 * 3
    assert of(lambda x: [lax.scan(lambda h, r: (h * r, None), x[0], x)[0]], X) >= 2 * 3


# --- every operation ------------------------------------------------------------------------------

ROWS = {case.function: case for case in reversed(cases.load())}


@pytest.mark.sweep(6)
@pytest.mark.parametrize("name", ROWS)
def test_every_operation_is_right_in_fifty_digits(name):
    case = ROWS[name]
    sides = [functools.partial(getattr(room, name), **case.config) for room in (manual, reference)]
    report = examine(*sides, *case.draw(), digits=50)
    assert report.ok, report
    found = report.exactness
    assert not found.problem
    assert {a.verdict for a in found.agreements} <= {"agree", "constants"}
    assert len(found.agreements) == len(report.outputs) + len(report.gradients)


# --- the verdicts ---------------------------------------------------------------------------------


def softmax_backward(x, dy):
    y = jax.nn.softmax(x)
    return (y * (dy - (dy * y).sum(-1, keepdims=True)),)


def test_a_right_derivation():
    report = check_backward(softmax_backward, jax.nn.softmax, X, digits=50)
    (a,) = report.exactness.agreements
    assert a.verdict == "agree"
    assert a.difference < 1e-48  # fifty digits, two of them lost in the sum
    assert report.exactness.rows == 3  # a cotangent for every sample
    assert f"at 50 digits hand and autodiff agree to {a.difference:.0e}: x" in str(report)


def test_equal_in_every_digit():
    report = check_gradient(lambda x: 2 * x, lambda x: (x**2).sum(), X, digits=30)
    assert report.exactness.agreements[0].difference == 0
    assert "at 30 digits hand and autodiff agree in every digit: x" in str(report)


def test_without_digits_nothing_is_said():
    report = check_backward(softmax_backward, jax.nn.softmax, X)
    assert report.exactness is None
    assert "digits" not in str(report)


def test_a_wrong_derivation_and_where():
    def wrong(x, dy):
        (dx,) = softmax_backward(x, dy)
        return (dx.at[1, 2].multiply(1.002),)

    report = examine(wrong, jax.nn.softmax, X, kind="backward", digits=50)
    (a,) = report.exactness.agreements
    assert not report.ok
    assert a.verdict == "differ"
    assert a.index == (1, 2)
    assert a.difference == pytest.approx(0.002 / 1.002)
    assert "at 50 digits x differs by 2e-03 of itself at [1, 2], your inputs, " in str(report)
    with pytest.raises(GradientMismatch, match="at 50 digits x differs"):
        check_backward(wrong, jax.nn.softmax, X, digits=50)


def test_it_stands_in_the_json():
    report = examine(softmax_backward, jax.nn.softmax, X, kind="backward", digits=50)
    found = json.loads(json.dumps(report.to_dict()))["exactness"]
    assert found["digits"] == 50
    assert found["agreements"][0]["verdict"] == "agree"
    assert found["agreements"][0]["path"] == "x"


def test_inaccurate_code_is_no_wrong_derivation():
    def overflows(x, dy):
        return (dy * jnp.exp(x) / (1 + jnp.exp(x)),)  # inf / inf beyond 710

    x = np.array([1.0, 800.0])
    arguments = (overflows, jax.nn.softplus, x)
    assert not examine(*arguments, kind="backward").ok
    report = examine(*arguments, kind="backward", digits=50)
    assert report.ok
    assert report.exactness.agreements[0].inaccurate == 1
    assert (
        "at 50 digits 1 of 2 elements of x, wrong in float64, agree: right derivation, "
        "inaccurate code"
    ) in str(report)


def test_what_float64_cannot_see_is_found():
    def saturated(x, dy):
        s = jax.nn.sigmoid(x)
        return (dy * jnp.where(x < -40, s, s * (1 - s)),)  # by exp(x) too large there

    x = np.array([-60.0, 0.5])
    assert examine(saturated, jax.nn.sigmoid, x, kind="backward").ok
    report = examine(saturated, jax.nn.sigmoid, x, kind="backward", digits=50)
    assert not report.ok
    (a,) = report.exactness.agreements
    assert a.index == (0,)
    assert a.difference == pytest.approx(np.exp(-60))
    assert not report.diagnoses  # there is nothing in float64 to explain


def test_cancellation_of_more_digits_than_asked_for():
    def backward(x, dy):
        return (dy * (1 - jnp.tanh(x) ** 2),)  # 1e-87 at 100

    def sure(x):
        return jnp.where(jnp.abs(x) < 1e3, jnp.tanh(x), jnp.tanh(x))

    x = np.array([100.0, 1.0, -300.0])
    report = examine(backward, sure, x, kind="backward", digits=20)
    assert report.ok
    assert report.exactness.agreements[0].verdict == "agree"


def loss(x):
    return jnp.sum(x**2) / 3


def test_a_constant_that_an_index_is_computed_of_excuses_nothing():
    def low(x):
        return jnp.sort(x)[jnp.floor(0.1 * jnp.full((), 10.0)).astype(int)]

    report = examine(lambda x, dy: jnp.zeros_like(x), low, P, kind="backward", digits=30)
    assert report.exactness.agreements[0].verdict == "differ"
    assert not report.ok


@pytest.mark.parametrize(("factor", "verdict"), [(2 / 3, "constants"), (0.6666666666667, "differ")])
def test_a_rounded_constant_is_no_mistake_and_a_mistaken_one_is(factor, verdict):
    report = examine(lambda x: x * factor, loss, X, kind="gradient", digits=50)
    assert report.exactness.agreements[0].verdict == verdict
    assert report.ok == (verdict == "constants")
    if report.ok:
        assert "at 50 digits but for rounded constants hand and autodiff agree to " in str(report)


def test_the_same_constant_on_both_sides_excuses_nothing():
    def f(x):
        return jnp.sum(x**2) * 0.1

    report = examine(lambda x: 2 * x * 0.1 + 2.0**-60 * x, f, X, kind="gradient", digits=50)
    assert [a.verdict for a in report.exactness.agreements] == ["differ"]
    assert examine(lambda x: 2 * x * 0.1, f, X, kind="gradient", digits=50).ok


def test_a_convention_at_a_kink_stays_one():
    def backward(x, dy):
        return (dy * (x >= 0),)

    report = examine(backward, jax.nn.relu, np.array([-1.0, 0.0, 2.0]), kind="backward", digits=50)
    assert report.ok
    assert report.gradients[0].kinks == 1
    assert report.exactness.agreements[0].verdict == "agree"


def test_a_function_whose_values_are_wrong():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x) + 1e-25

    f.defvjp(lambda x: (f(x), x), lambda x, dy: (dy * jnp.cos(x),))
    report = examine(f, jnp.sin, X, digits=40)
    assert not report.ok
    assert [a.verdict for a in report.exactness.agreements] == ["differ", "agree"]
    with pytest.raises(GradientMismatch):
        check_function(f, jnp.sin, X, digits=40)


def test_float32_inside_is_inaccurate_code():
    def backward(x, dy):
        return ((dy * jnp.cos(x).astype(jnp.float32)).astype(x.dtype),)

    assert not examine(backward, jnp.sin, X, kind="backward").ok
    assert examine(backward, jnp.sin, X, kind="backward", digits=50).ok


# --- where it is not to be had --------------------------------------------------------------------


@pytest.mark.parametrize("digits", [19, 1001, 50.0, True, "50"])
def test_digits_have_bounds(digits):
    text = r"digits is .*; it must be a whole number from 20 \(float64 has 16\) to 1000"
    with pytest.raises(ValueError, match=text):
        examine(manual.tanh, reference.tanh, X, digits=digits)


def test_without_mpmath(monkeypatch):
    whole = builtins.__import__

    def without(name, *rest, **named):
        if name == "mpmath":
            raise ModuleNotFoundError("No module named 'mpmath'", name="mpmath")
        return whole(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"digits=50 needs mpmath: pip install 'handgrad"):
        examine(manual.tanh, reference.tanh, X, digits=50)


def test_sizes_are_too_large():
    w = np.ones((200, 200))
    report = examine(
        lambda w: 2 * w @ w @ w, lambda w: jnp.sum(w @ w), w, kind="gradient", digits=50
    )
    assert "at 50 digits: not evaluated; that would take " in str(report)
    assert "give smaller inputs" in report.exactness.problem


def test_no_rule():
    report = examine(
        lambda x: 2 * x, lambda x: jnp.sum(jnp.fft.fft(x).real ** 2), U, kind="gradient", digits=50
    )
    assert report.exactness.problem == "there is no rule for the primitive fft"
    assert not report.exactness.agreements


def test_a_candidate_that_jax_cannot_trace():
    def backward(x, dy):
        return (np.asarray(dy) * np.cos(np.asarray(x)),)

    report = examine(backward, jnp.sin, X, kind="backward", digits=50)
    assert report.ok
    assert report.exactness.problem == "JAX cannot trace backward"


def test_a_constant_that_a_part_gives_back_is_one():
    """What a nested program returns as it was written, 1/10 in float64, is moved as others are."""

    @jax.custom_vjp
    def tenth(x):
        return x / 10

    share = jax.jit(lambda x: (2 * x, 0.1))

    def forward(x):
        return tenth(x), share(x)[1]

    tenth.defvjp(forward, lambda kept, dy: (kept * dy,))
    report = check_function(tenth, lambda x: x / 10, np.array([1.0, 2.0, 3.0]), digits=50)
    assert report.ok, report
    assert [a.verdict for a in report.exactness.agreements] == ["agree", "constants"]


def test_what_is_computed_of_short_numbers_is_no_rounded_constant():
    """ln 2 by the program has fifty digits, as a literal sixteen: the two may not move as one."""
    two = float(np.log(2))

    def by_hand(x):
        return x - two

    def plain(x):
        return x - jnp.log(jnp.asarray(2.0, x.dtype))

    report = examine(by_hand, plain, np.array([3.0, 5.0]), digits=50)
    assert report.ok, report
    assert report.exactness.agreements[0].verdict == "constants"
