"""The losses against NumPy and mpmath: conventions, digits, labels of every kind, errors."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from handgrad import manual, reference

EPS = {jnp.float32: 2.0**-23, jnp.float64: 2.0**-52}


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def gradient(f, *args):
    """The value and the gradient of the sum of f, by the hand-written backward."""

    @jax.jit
    def run(*args):
        y, vjp = jax.vjp(f, *args)
        return y, vjp(jnp.ones_like(y))

    return run(*args)


def test_the_squared_errors_differ_by_their_factor():
    """½Σ for a sample, Σ for a sample, Σ over the batch, mean: factors 1, 2, 2 and 2/N exactly."""
    y, t = jnp.array([[1.0, 3.0], [0.0, -1.0], [2.0, 5.0]]), jnp.array([[0.0, 1], [4, 1], [2, 2]])
    error = np.array([[1.0, 2.0], [-4.0, -2.0], [0.0, 3.0]])
    expected = {
        "half_squared_error": ([2.5, 10, 4.5], 1),
        "squared_error": ([5.0, 20, 9], 2),
        "total_squared_error": (34.0, 2),
        "mse": (34 / 6, 2 / 6),
    }
    for name, (value, factor) in expected.items():
        loss, (dy, dt) = gradient(getattr(manual, name), y, t)
        np.testing.assert_allclose(loss, value, rtol=2**-23)
        np.testing.assert_allclose(dy, factor * error, rtol=2**-23)
        np.testing.assert_array_equal(dt, -dy)


def test_a_logit_of_minus_infinity_takes_its_class_out():
    """Of the loss, the gradient and the second derivative; a label that wants it costs infinity."""
    f = manual.softmax_cross_entropy
    s, c = jnp.array([1.0, -jnp.inf, 3.0]), jnp.array([0.25, 0.0, 0.75])
    without = jnp.array([0, 2])

    def all_of(s, c):
        return f(s, c), jax.grad(f)(s, c), jax.hessian(f)(s, c)

    (y, ds, hessian), expected = all_of(s, c), all_of(s[without], c[without])
    found = y, ds[without], hessian[without][:, without]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not ds[1]
    assert not hessian[1].any()
    assert f(s, jnp.array([0.0, 1.0, 0.0])) == jnp.inf


@pytest.mark.parametrize("name", ["half_squared_error", "squared_error", "mse"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_sums_are_accumulated_in_float32(name, dtype):
    n = 2**12
    y = jnp.ones((n,), dtype)
    value = {"half_squared_error": n / 2, "squared_error": n, "mse": 1}[name]
    loss, (dy, _) = gradient(getattr(manual, name), y, jnp.zeros_like(y))
    assert float(loss) == value
    assert float(dy[0]) == {"half_squared_error": 1, "squared_error": 2, "mse": 2 / n}[name]


def test_mse_of_many_float16_entries_keeps_its_gradient():
    """2/N has 7 of 11 bits in float16 here; with the cotangent 2¹² the product has them all."""
    y = jnp.zeros((3, 2**18), jnp.float16).at[0, 0].set(1)
    _, vjp = jax.vjp(manual.mse, y, jnp.zeros_like(y))
    assert vjp(jnp.float16(2**12))[0][0, 0] == jnp.float16(2.0**-5 / 3)


def sigma(x):
    return 1 / (1 + mp.exp(-x))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("label", [0.0, 1.0, 0.25])
def test_binary_cross_entropy_with_logits_keeps_every_digit(dtype, label):
    """For hard labels as far as σ reaches; a soft one subtracts (1 − c)σ(x) − cσ(−x) in earnest."""

    # the flags of the tests part the product and the sum of k ln 2 − x, of which e⁻ˣ is made
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    def as_users_do(x, labels):
        return gradient(manual.binary_cross_entropy_with_logits, x, labels)

    x = np.array([0, 1e-8, 0.1, 1, -1, 3, -17, 17, 40, -40, 80, -80, 700, -700, 1e4, -1e4])
    with jax.enable_x64(True), mp.workdps(60):
        x = jnp.asarray(x, dtype)
        loss, (dx, dc) = as_users_do(x, jnp.full_like(x, label))
        tiny = float(jnp.finfo(dtype).tiny)
        for x_i, loss_i, dx_i, dc_i in zip(
            *(np.asarray(a, float) for a in (x, loss, dx, dc)), strict=True
        ):
            p, q, c = sigma(mp.mpf(x_i)), sigma(-mp.mpf(x_i)), mp.mpf(label)
            true = -c * mp.log(p) - (1 - c) * mp.log(q) if abs(x_i) < 40 else None
            if true is None:  # ln(1 + tiny), by its series
                true = c * mp.log1p(mp.exp(-mp.mpf(x_i))) + (1 - c) * mp.log1p(mp.exp(mp.mpf(x_i)))
            assert abs(loss_i - true) <= 4 * EPS[dtype] * abs(true) + 4 * tiny
            noise = 3 * EPS[dtype] * ((1 - c) * p + c * q)
            assert abs(dx_i - ((1 - c) * p - c * q)) <= noise + 4 * tiny
            assert dc_i == -x_i


def test_binary_cross_entropy_agrees_with_its_logits_form():
    """L(σ(x), c) = L_logits(x, c), and its gradient times σ′ is that of the logits form."""
    with jax.enable_x64(True):
        x, c = jnp.linspace(-4.0, 4.0, 9), jnp.linspace(0.0, 1.0, 9)
        loss, (dx, dc) = gradient(manual.binary_cross_entropy_with_logits, x, c)
        p, pull = jax.vjp(manual.sigmoid, x)
        loss_p, (dp, dc_p) = gradient(manual.binary_cross_entropy, p, c)
        np.testing.assert_allclose(loss_p, loss, rtol=1e-13)
        np.testing.assert_allclose(pull(dp)[0], dx, rtol=1e-13, atol=1e-15)
        np.testing.assert_allclose(dc_p, dc, rtol=1e-13, atol=1e-15)


def test_at_the_ends_of_the_probabilities_a_term_of_weight_zero_is_absent():
    """0 ln 0 = 0; what the label excludes is infinite, and nothing is NaN."""
    p, c = jnp.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0]), jnp.array([0.0, 1.0, 1.0, 0.0, 0.5, 0.5])
    loss, (dp, dc) = gradient(manual.binary_cross_entropy, p, c)
    inf = np.inf
    assert loss.tolist() == [0, 0, inf, inf, inf, inf]
    assert dp.tolist() == [1, -1, -inf, inf, -inf, inf]
    assert dc.tolist() == [inf, -inf] * 3  # ln(1 − p) − ln p
    np.testing.assert_array_equal(loss, reference.binary_cross_entropy(p, c))

    p, c = jnp.array([0.0, 0.25, 0.75]), jnp.array([0.0, 1.0, 0.0])
    loss, (dp, dc) = gradient(manual.categorical_cross_entropy, p, c)
    assert float(loss) == pytest.approx(np.log(4), rel=2**-23)
    np.testing.assert_allclose(dp, [0, -4, 0], rtol=2**-23)
    np.testing.assert_allclose(dc, [np.inf, np.log(4), -np.log(0.75)], rtol=2**-22)
    assert reference.categorical_cross_entropy(p, c) == loss


def test_the_cross_entropies_agree_with_each_other():
    """Integer, one-hot, and probabilities over softmax: one loss, one gradient of the logits."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        logits = jnp.asarray(3 * rng.standard_normal((2, 3, 4)))
        labels = jnp.asarray(rng.integers(0, 4, (2, 3)))
        one_hot = jnp.eye(4)[labels]
        loss, (ds, _) = gradient(manual.softmax_cross_entropy, logits, one_hot)
        loss_int, (ds_int, _) = gradient(
            manual.softmax_cross_entropy_with_integer_labels, logits, labels
        )
        p, pull = jax.vjp(manual.softmax, logits)
        loss_p, (dp, _) = gradient(manual.categorical_cross_entropy, p, one_hot)
        np.testing.assert_allclose(loss_int, loss, rtol=1e-14)
        np.testing.assert_allclose(loss_p, loss, rtol=1e-13)
        np.testing.assert_allclose(ds_int, ds, rtol=1e-14)
        np.testing.assert_allclose(pull(dp)[0], ds, rtol=1e-12)
        np.testing.assert_allclose(ds, p - one_hot, rtol=0, atol=1e-15)


def test_soft_labels_need_not_add_up_to_one():
    """s̄ᵢ = pᵢ Σc − cᵢ and c̄ᵢ = −ln pᵢ, in loops."""
    rng = np.random.default_rng(1)
    s, c, dy = rng.standard_normal((2, 5)), rng.standard_normal((2, 5)), rng.standard_normal(2)
    with jax.enable_x64(True):
        loss, vjp = jax.vjp(manual.softmax_cross_entropy, jnp.asarray(s), jnp.asarray(c))
        ds, dc = vjp(jnp.asarray(dy))
    for n in range(2):
        p = np.exp(s[n]) / sum(np.exp(s[n]))
        np.testing.assert_allclose(loss[n], -sum(c[n] * np.log(p)), rtol=1e-13)
        for i in range(5):
            np.testing.assert_allclose(ds[n, i], dy[n] * (p[i] * sum(c[n]) - c[n, i]), rtol=1e-12)
            np.testing.assert_allclose(dc[n, i], -dy[n] * np.log(p[i]), rtol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("integer", [True, False])
def test_an_almost_certain_class_keeps_its_digits(dtype, integer):
    """Loss ln(1 + r), gradient −r/(1 + r) with r = e⁻⁴⁰ + e⁻⁴³: not the 0 of p − 1 with p = 1."""
    with jax.enable_x64(True), mp.workdps(60):
        logits = jnp.asarray([[40.0, 0.0, -3.0]], dtype)
        if integer:
            f, labels = manual.softmax_cross_entropy_with_integer_labels, jnp.array([0])
        else:
            f, labels = manual.softmax_cross_entropy, jnp.asarray([[1.0, 0.0, 0.0]], dtype)
        loss, (ds, _) = gradient(f, logits, labels)
        r = mp.exp(-40) + mp.exp(-43)
        for got, true in zip(
            (loss[0], *ds[0]), (mp.log1p(r), -r, mp.exp(-40), mp.exp(-43)), strict=True
        ):
            assert abs(float(got) - true) <= 4 * EPS[dtype] * abs(true)
        plain = jax.grad(lambda s: reference.softmax_cross_entropy(s, labels).sum())
        assert integer or float(plain(logits)[0, 0]) == 0


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
def test_logits_of_ten_thousand_are_no_difficulty(dtype):
    with jax.enable_x64(True):
        logits = jnp.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype)
        top = float(logits[0, 0])  # 1e4 as the dtype rounds it
        labels = jnp.array([1, 2])
        for name, c in (
            ("softmax_cross_entropy_with_integer_labels", labels),
            ("softmax_cross_entropy", jnp.eye(3, dtype=dtype)[labels]),
        ):
            loss, (ds, _) = gradient(getattr(manual, name), logits, c)
            expected = np.array([2 * top, np.log(2)])
            np.testing.assert_allclose(
                np.asarray(loss, float), expected, rtol=float(jnp.finfo(dtype).eps)
            )
            assert ds.tolist() == [[1, -1, 0], [0, 0.5, -0.5]]


def test_an_integer_label_outside_the_classes_is_loud():
    """NaN in the loss and in the gradient of its row alone; never another class's gradient."""
    logits = jnp.arange(12.0).reshape(4, 3)
    labels = jnp.array([0, 3, -1, 2])
    loss, (ds, dlabels) = gradient(manual.softmax_cross_entropy_with_integer_labels, logits, labels)
    assert jnp.isnan(loss).tolist() == [False, True, True, False]
    assert jnp.isnan(ds).all(-1).tolist() == [False, True, True, False]
    assert jnp.isnan(ds).any(-1).tolist() == [False, True, True, False]
    assert dlabels.dtype == jax.dtypes.float0


BY_LABEL = {
    "softmax_cross_entropy_with_integer_labels": (jnp.arange(12.0).reshape(4, 3), [1, -100, 2, 3]),
    "label_smoothing_cross_entropy": (jnp.arange(12.0).reshape(4, 3), [1, -100, 2, 3]),
    "focal_loss_with_logits": (jnp.arange(4.0), [1, -100, 0, 2]),
}
LEFT_OUT = {
    "mask": lambda losses, used: jnp.where(used, losses, 0).sum(),
    "mean": lambda losses, used: losses.mean(where=used),
    "weights": lambda losses, used: (losses * used.astype(losses.dtype)).sum(),
}


@pytest.mark.parametrize("how", LEFT_OUT)
@pytest.mark.parametrize("name", BY_LABEL)
def test_a_label_that_is_none_has_no_gradient_where_its_loss_is_left_out(name, how):
    """The other rows have the gradient that they have alone; a label that is used stays loud."""
    logits, labels = BY_LABEL[name][0], jnp.array(BY_LABEL[name][1])

    @jax.jit
    def run(logits, labels, used):
        def total(logits):
            return LEFT_OUT[how](getattr(manual, name)(logits, labels), used)

        return jax.value_and_grad(total)(logits), jax.hessian(total)(logits)

    used = jnp.array([True, False, True, False])
    (value, gradient), hessian = run(logits, labels, used)
    (expected, wanted), _ = run(logits[::2], labels[::2], used[::2])
    if how != "weights":  # 0 NaN is NaN, but to a compiler that makes a mask of such a factor
        np.testing.assert_allclose(value, expected, rtol=2**-22)
    np.testing.assert_allclose(gradient[::2], wanted, rtol=2**-22)
    assert not gradient[1::2].any()
    assert jnp.isfinite(hessian).all()
    assert jnp.isnan(run(logits, labels, ~used)[0][1][1::2]).all()


IGNORED = jnp.array([[4, -100, 0, 2], [-100, -100, -100, -100]])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_rows_that_are_ignored_are_as_if_they_were_not_there(reduction):
    """In the fused loss, for any blocks, in bfloat16 too; their x has the gradient 0."""
    rng = np.random.default_rng(0)
    x, w, b = (jnp.asarray(rng.standard_normal(s)) for s in ((2, 4, 3), (3, 5), (5,)))
    loss = manual.linear_softmax_cross_entropy
    kept = IGNORED != -100
    for dtype, digits in ((jnp.float32, 2**-20), (jnp.bfloat16, 2**-7)):
        params = [a.astype(dtype) for a in (x, w, b)]
        short = params[0][kept], *params[1:], IGNORED[kept]
        expected, (dx, dw, db, _) = loss.value_and_gradient(*short, reduction=reduction)
        for block in (1, 3, 256):
            value, gradient = loss.value_and_gradient(
                *params, IGNORED, reduction=reduction, block=block, ignore_index=-100
            )
            close = functools.partial(np.testing.assert_allclose, rtol=digits, atol=digits)
            jax.tree.map(
                lambda a, b, close=close: close(*(np.asarray(c, np.float32) for c in (a, b))),
                (value, gradient[0][kept], *gradient[1:3]),
                (expected, dx, dw, db),
            )
            assert not gradient[0][~kept].any()
            assert {a.dtype for a in (value, *gradient[:3])} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_batch_of_ignored_rows_moves_nothing(reduction):
    x, w, b = jnp.ones((4, 3)), jnp.ones((3, 5)), jnp.ones(5)
    value, gradient = manual.linear_softmax_cross_entropy.value_and_gradient(
        x, w, b, jnp.full(4, 2), reduction=reduction, ignore_index=2
    )
    assert jnp.isnan(value) if reduction == "mean" else value == 0
    assert not any(g.any() for g in gradient[:3])


@pytest.mark.parametrize(
    ("label", "dtype"),
    [
        (2**32 + 1, "int64"), (1 - 2**32, "int64"), (-1, "int64"), (2**63 + 1, "uint64"),
        (2**32 - 1, "uint32"), (200, "uint8"), (-1, "int8"),
    ],
)  # fmt: skip
def test_a_label_that_32_bits_cannot_hold_is_no_class(label, dtype):
    """Cut to an int32, 2³² + 1 is 1, and 2³² − 1 a row of padding; to be ignored it may be."""
    with jax.enable_x64(True):
        x, w, labels = jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.array([1, label], dtype)
        fused = functools.partial(manual.linear_softmax_cross_entropy, x, w, None)
        plain = functools.partial(manual.softmax_cross_entropy_with_integer_labels, x @ w)
        assert jnp.isnan(jax.jit(fused)(labels))
        assert jnp.isnan(jax.jit(plain)(labels)[1])
        for known in (fused, plain):
            with pytest.raises(ValueError, match=rf"labels\[1\] is {label}; with .* in \[0, 4\)"):
                known(labels)
        np.testing.assert_allclose(fused(labels, ignore_index=label), np.log(4), rtol=1e-15)


@pytest.mark.parametrize(
    ("ignored", "error", "message"),
    [
        (-100.0, TypeError, "ignore_index is -100.0; it must be a whole number"),
        (True, TypeError, "ignore_index is True; it must be a whole number"),
        (
            -100, ValueError,
            "ignore_index is -100, and labels are uint8; it must be one of their numbers, 0 to 255",
        ),
    ],
)  # fmt: skip
def test_a_label_to_ignore_is_one_that_labels_can_hold(ignored, error, message):
    x, w, labels = jnp.ones((4, 3)), jnp.ones((3, 5)), jnp.zeros(4, jnp.uint8)
    with pytest.raises(error, match=f"^linear_softmax_cross_entropy: {message}"):
        manual.linear_softmax_cross_entropy(x, w, None, labels, ignore_index=ignored)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int32])
def test_integer_labels_of_any_width(dtype):
    """As many classes as an int8 can just not count."""
    logits = jnp.zeros((1, 128))
    loss, (ds, _) = gradient(
        manual.softmax_cross_entropy_with_integer_labels, logits, jnp.array([127], dtype)
    )
    assert float(loss[0]) == pytest.approx(np.log(128), rel=2**-22)
    assert float(ds[0, 127]) == pytest.approx(1 / 128 - 1, rel=2**-22)
    assert float(ds[0, 0]) == pytest.approx(1 / 128, rel=2**-22)


PAIRS = {
    "half_squared_error": ("predictions", "targets"),
    "squared_error": ("predictions", "targets"),
    "total_squared_error": ("predictions", "targets"),
    "mse": ("predictions", "targets"),
    "binary_cross_entropy": ("probabilities", "labels"),
    "binary_cross_entropy_with_logits": ("logits", "labels"),
    "categorical_cross_entropy": ("probabilities", "labels"),
    "softmax_cross_entropy": ("logits", "labels"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_unequal_shapes_are_refused(name):
    """(3, 1) against (3,) would broadcast to (3, 3) and give a wrong gradient without a word."""
    first, second = PAIRS[name]
    message = rf"{name}: {first} has shape \(3, 1\) and {second} \(3,\); their shapes must be"
    with pytest.raises(ValueError, match=message):
        getattr(manual, name)(jnp.ones((3, 1)), jnp.ones(3))


def test_labels_of_the_wrong_kind_are_sent_to_the_other_function():
    logits = jnp.ones((2, 3))
    with pytest.raises(TypeError, match="labels are int32, and must be floating-point weights"):
        manual.softmax_cross_entropy(logits, jnp.ones((2, 3), jnp.int32))
    integer = manual.softmax_cross_entropy_with_integer_labels
    with pytest.raises(TypeError, match="labels are float32, and must be integers; softmax_cross"):
        integer(logits, jnp.ones(2))
    with pytest.raises(
        ValueError, match=r"logits have shape \(2, 3\) and labels \(3,\); they must"
    ):
        integer(logits, jnp.ones(3, jnp.int32))
