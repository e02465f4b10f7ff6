"""The catalogue's losses: digits against mpmath, adversarial inputs, conventions, errors."""

import functools

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from handgrad import manual, reference

RNG = np.random.default_rng(0)


def gradient(f, *args):
    """The value, and the gradient of the sum of f, by the hand-written backward."""

    @jax.jit
    def run(*args):
        y, vjp = jax.vjp(f, *args)
        return y, vjp(jnp.ones_like(y))

    return run(*args)


def array(*rows, dtype=jnp.float32):
    return jnp.asarray(rows, dtype)


# one value and one gradient for each, worked out by hand
KNOWN = [
    (manual.mae, ([1.0, 4.0], [3.0, 3.0]), 1.5, [-0.5, 0.5]),
    (functools.partial(manual.huber, delta=2.0), ([1.0, 5.0], [0.0, 0.0]), 8.5, [1, 2]),
    (functools.partial(manual.smooth_l1, beta=2.0), ([1.0, 5.0], [0.0, 0.0]), 4.25, [0.5, 1]),
    (manual.log_cosh, ([0.0], [0.0]), 0, [0]),
    (manual.hinge, ([0.5, 3.0], [1.0, 1.0]), [0.5, 0], [-1, 0]),
    (manual.squared_hinge, ([0.5, 3.0], [1.0, 1.0]), [0.25, 0], [-1, 0]),
    (
        lambda s: manual.multiclass_hinge(s, jnp.array(0)),
        ([3.2, 5.1, -1.7],),  # CS231n, of the cat: 2.9
        2.9,
        [-1, 1, 0],
    ),
    (manual.cosine_similarity_loss, ([3.0, 0.0], [0.0, 2.0]), 1, [0, -1 / 3]),
    (manual.triplet_margin, ([3.0, 4.0], [0.0, 0.0], [3.0, 2.0]), 4, [0.6, -0.2]),
    (manual.kl_divergence, ([0.5, 0.5], [0.25, 0.5]), 0.5 * np.log(2), [np.log(2) + 1, 1]),
    (manual.gaussian_nll, ([1.0], [0.0], [3.0]), 2 + 0.5 * np.log(2 * np.pi), [-2]),
    (manual.gaussian_kl, ([2.0], [0.0]), 2, [2]),
    (manual.reparametrize, ([2.0], [0.0], [0.5]), [2.5], [1]),
]


@pytest.mark.parametrize(("f", "args", "value", "first"), KNOWN)
def test_known_figures(f, args, value, first):
    loss, gradients = gradient(f, *(array(*a) for a in args))
    np.testing.assert_allclose(loss, value, rtol=2**-22, atol=1e-30)
    np.testing.assert_allclose(gradients[0], first, rtol=2**-22, atol=1e-30)


ROW = [1e4, -1e4, 0.0]
ADVERSARIAL = {
    "all equal": ([1.0, 1, 1], [1.0, 1, 1]),
    "one-hot": ([1.0, 0, 0], [0.0, 1, 0]),
    "huge": (ROW, ROW[::-1]),
    "the same and huge": (ROW, ROW),
    "tiny": ([1e-30, 0, -1e-30], [0, 1e-30, 1e-30]),
    "zero": ([0.0, 0, 0], [0.0, 0, 0]),
    "zero against one": ([0.0, 0, 0], [1.0, 0, 0]),
}
PAIRS = {
    "mae": manual.mae,
    "huber": manual.huber,
    "smooth_l1": manual.smooth_l1,
    "log_cosh": manual.log_cosh,
    "hinge": manual.hinge,
    "multiclass_hinge": lambda x, y: manual.multiclass_hinge(x, jnp.ones((), jnp.int32)),
    "triplet_margin": lambda x, y: manual.triplet_margin(x, y, -y),
    "cosine_similarity_loss": manual.cosine_similarity_loss,
    "info_nce": lambda x, y: manual.info_nce(
        jnp.stack([x, y]), jnp.stack([y, x]), temperature=1e6, symmetric=True
    ),
    "kl_divergence_with_logits": manual.kl_divergence_with_logits,
    "label_smoothing_cross_entropy": lambda x, y: manual.label_smoothing_cross_entropy(
        x, jnp.zeros((), jnp.int32)
    ),
    "focal_loss_with_logits": lambda x, y: manual.focal_loss_with_logits(x, (y > 0).astype(int)),
    "gaussian_nll": lambda x, y: manual.gaussian_nll(x, jnp.zeros_like(x), y),
    "reparametrize": lambda x, y: manual.reparametrize(x, jnp.zeros_like(x), y),
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize("name", PAIRS)
def test_nothing_is_nan_or_infinite_where_the_truth_is_finite(name):
    """Loss, gradient and second derivative, in float32 and in the narrow dtypes.

    Only a direction has an unbounded derivative: a vector of 1e-30 is flushed to zero by the narrow
    dtypes, and so is left to float32; and there the second derivative, 1e60, is infinite in truth.
    """
    f = PAIRS[name]

    def orders(x, y):
        def first(x, y):
            loss, vjp = jax.vjp(f, x, y)
            return loss, vjp(jnp.ones_like(loss))

        (loss, gradient), vjp = jax.vjp(first, x, y)
        return loss, gradient, vjp((jnp.zeros_like(loss), jax.tree.map(jnp.ones_like, gradient)))

    run = jax.jit(orders)
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        for what, (x, y) in ADVERSARIAL.items():
            values = run(jnp.asarray(x, dtype), jnp.asarray(y, dtype))
            # float16 ends at 65504, before a squared error or 10⁴/1e-30
            ends = dtype == jnp.float16 and name == "gaussian_nll"
            directions = what == "tiny" and name in ("cosine_similarity_loss", "triplet_margin")
            for order, value in enumerate(values):
                if ends or (directions and (order == 2 or dtype != jnp.float32)):
                    continue
                for leaf in jax.tree.leaves(value):
                    assert jnp.isfinite(leaf).all(), (what, dtype, order, leaf)


def test_log_cosh_keeps_its_digits_near_zero_and_far_from_it():
    for e in (1e-6, 1e-3, 0.1, 0.999, 1.001, 3.0, 40.0, 1e4):
        e = float(np.float32(e))
        loss, (de, _) = gradient(manual.log_cosh, array(e), array(0.0))
        with mp.workdps(40):
            true = mp.log(mp.cosh(mp.mpf(e)))
            assert abs(float(loss) - true) <= 4 * 2**-23 * true
            assert abs(float(de[0]) - mp.tanh(mp.mpf(e))) <= 4 * 2**-23 * mp.tanh(mp.mpf(e))


def test_the_cosine_of_almost_parallel_vectors_keeps_its_digits():
    """L = ½θ² for a small angle θ, which 1 − cos in float32 gives as 0."""
    for theta in (1e-3, 1e-4, 1e-6):
        x, y = array([1.0, 0.0]), array([1.0, theta])
        loss, (dx, dy) = gradient(manual.cosine_similarity_loss, x, y)
        np.testing.assert_allclose(loss, [theta**2 / 2], rtol=1e-4)
        np.testing.assert_allclose(dx[0, 1], -theta, rtol=1e-4)
        np.testing.assert_allclose(dy[0, 1], theta, rtol=1e-4)


def test_lengths_neither_overflow_nor_vanish():
    """Vectors of 1e-30 and 1e30 have the same cosine as those of 1; so have their distances."""
    x, y = array([3.0, 4.0]), array([4.0, 3.0])
    for scale in (1e-30, 1e30):
        loss, (dx, _) = gradient(manual.cosine_similarity_loss, scale * x, scale * y)
        np.testing.assert_allclose(loss, [0.04], rtol=1e-6)
        np.testing.assert_allclose(scale * dx, [[-0.0448, 0.0336]], rtol=1e-5)
        f = functools.partial(manual.triplet_margin, margin=0.0)
        loss, (da, dp, dn) = gradient(f, 0 * x, scale * x, scale * array([0.6, 0.8]))
        np.testing.assert_allclose(loss, [4 * scale], rtol=1e-6)
        np.testing.assert_allclose(dp, [[0.6, 0.8]], rtol=1e-6)
        np.testing.assert_allclose(dn, [[-0.6, -0.8]], rtol=1e-6)
        np.testing.assert_allclose(da, [[0, 0]], atol=1e-6)


def test_zero_vectors_have_the_stated_convention():
    zero, x = array([0.0, 0.0]), array([1.0, 2.0])
    for pair in ((zero, x), (x, zero), (zero, zero)):
        loss, gradients = gradient(manual.cosine_similarity_loss, *pair)
        assert loss.tolist() == [1]
        assert [g.tolist() for g in gradients] == [[[0, 0]], [[0, 0]]]
    loss, (da, dp, dn) = gradient(manual.triplet_margin, x, x, x)
    assert loss.tolist() == [1]
    assert [g.tolist() for g in (da, dp, dn)] == [[[0, 0]]] * 3


LOSSES_OF_LABELS = [
    "multiclass_hinge",
    "softmax_cross_entropy_with_integer_labels",
    "label_smoothing_cross_entropy",
]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_none_makes_its_row_nan(label):
    scores = jnp.array([[1.0, 9.0, 1.5], [1.0, 2.0, 1.5]])
    loss, (ds, _) = jax.jit(
        lambda s, c: (
            manual.multiclass_hinge(s, c),
            jax.vjp(manual.multiclass_hinge, s, c)[1](jnp.ones(2)),
        )
    )(scores, jnp.array([label, 1]))
    assert np.isnan(loss).tolist() == [True, False]
    assert np.isnan(ds).all(1).tolist() == [True, False]
    assert ds[1].tolist() == [0, -1, 1]


@pytest.mark.parametrize("name", LOSSES_OF_LABELS)
@pytest.mark.parametrize("label", [-100, 3])
def test_a_row_whose_loss_is_not_used_moves_nothing(name, label):
    """Left out of a mean, or taken for another number: 0 beside the gradient of the other rows."""
    f, scores = getattr(manual, name), jnp.array([[1.0, 9.0, 1.5], [1.0, 2.0, 1.5], [0.5, 0, 3]])
    labels = jnp.array([label, 1, 0])

    def mean(s, c):
        return f(s, c).mean(where=c != label)

    def chosen(s, c):
        return jnp.where(c != label, f(s, c), 7.0).sum() / 2

    for total in (mean, chosen):
        first = jax.jit(jax.grad(total))
        ds = first(scores, labels)
        assert not ds[0].any()
        np.testing.assert_allclose(ds[1:], first(scores[1:], labels[1:]))
        _, vjp = jax.vjp(first, scores, labels)
        assert jnp.isfinite(vjp(scores)[0]).all()


def test_the_weight_of_positive_labels():
    """At 0 both terms are ln 2; far off, a weight is all there is; one of 1 changes nothing."""
    f = manual.binary_cross_entropy_with_logits
    x, c = jnp.array([0.0, 0.0, -100.0, 100.0]), jnp.array([1.0, 0.0, 1.0, 0.0])
    loss, (dx, dc) = gradient(functools.partial(f, pos_weight=3.0), x, c)
    np.testing.assert_allclose(loss, [3 * np.log(2), np.log(2), 300, 100], rtol=1e-6)
    np.testing.assert_allclose(dx, [-1.5, 0.5, -3, 1], rtol=1e-6)
    np.testing.assert_allclose(dc, [2 * np.log(2), 2 * np.log(2), 300, -100], rtol=1e-6)
    for one in (1, 1.0, np.ones(4), jnp.ones(()), jnp.ones(4, jnp.int32)):
        weighted = gradient(lambda x, c, w=one: f(x, c, pos_weight=w), x, c)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-30),
            weighted,
            gradient(f, x, c),
        )


def test_weights_of_positive_labels_that_are_computed():
    """Traced, under vmap and in narrow dtypes; to differentiate by them is refused."""
    f = manual.binary_cross_entropy_with_logits
    x, c = jnp.array([[0.5, -2.0], [3.0, 0.0]], jnp.bfloat16), jnp.eye(2, dtype=jnp.bfloat16)
    w = jnp.array([[0.5, 2.0], [1.5, 3.0], [0.0, 1.0]])
    mapped = jax.jit(jax.vmap(lambda w: jax.grad(lambda x: f(x, c, pos_weight=w).sum())(x)))(w)
    assert mapped.dtype == jnp.bfloat16
    for weights, dx in zip(w, mapped, strict=True):
        known = jax.jit(jax.grad(lambda x, w=weights: f(x, c, pos_weight=w).sum()))(x)
        np.testing.assert_array_equal(np.asarray(dx, float), np.asarray(known, float))
    with pytest.raises(TypeError, match="has no derivative by its option pos_weight"):
        jax.grad(lambda w: f(x, c, pos_weight=w).sum().astype(float))(w[0])


def test_a_class_that_the_logits_exclude_has_no_share_in_the_divergence():
    """Of the teacher alone, of both, or of the pupil alone; with the second derivatives."""
    f, plain = manual.kl_divergence_with_logits, reference.kl_divergence_with_logits
    none = -jnp.inf
    p, q = jnp.array([1.0, none, 2.0, none]), jnp.array([2.0, 0.5, 1.0, none])

    def hessian(f, *args):
        return jax.hessian(f, (0, 1))(*args)

    value, gradients = gradient(f, p, q)
    # the reference with −∞ far away in place of it, and without the class that neither has
    near = jnp.array([1.0, -1e4, 2.0]), q[:3]
    want, wanted = jax.value_and_grad(plain, (0, 1))(*near)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, np.append(w, 0), rtol=2e-6), gradients, wanted
    )
    jax.tree.map(
        lambda h, w: np.testing.assert_allclose(h, np.pad(w, (0, 1)), rtol=1e-5, atol=1e-7),
        hessian(f, p, q),
        hessian(plain, *near),
    )
    assert f(p, jnp.array([none, 0.5, 1.0, none])) == jnp.inf


def test_divergences_of_almost_equal_distributions_keep_their_digits():
    """q̄ᵢ = −pᵢ/qᵢ, p̄ᵢ = ln(pᵢ/qᵢ) + 1, with ln(1 + δ) = δ − ½δ² + … for a ratio of 1 + δ."""
    p = np.array([0.3, 0.7], np.float32)
    q = np.nextafter(p, np.float32(1))
    _, (dp, _) = gradient(manual.kl_divergence, jnp.asarray(p), jnp.asarray(q))
    np.testing.assert_allclose(dp, np.log(p.astype(float) / q) + 1, rtol=2**-23)
    s = array(40.0, 0.0, -3.0)  # an almost certain class on both sides
    _, (_, db) = gradient(manual.kl_divergence_with_logits, s, s + array(1.0, 0, 0))
    with mp.workdps(40):
        p, q = ([mp.exp(x) for x in row] for row in ((40, 0, -3), (41, 0, -3)))
        true = sum(p[1:]) / sum(p) - sum(q[1:]) / sum(q)
        assert abs(float(db[0]) - true) <= 8 * 2**-23 * true


def test_kl_of_impossible_classes():
    p, q = array(0.0, 0.0, 1.0), array(0.0, 0.5, 0.5)
    loss, (dp, dq) = gradient(manual.kl_divergence, p, q)
    assert float(loss) == pytest.approx(np.log(2), rel=2**-22)
    assert dp[0] == 1
    assert jnp.isneginf(dp[1])  # ln 0, as in truth
    np.testing.assert_allclose(dq, [0, 0, -2])
    assert jnp.isposinf(manual.kl_divergence(q, p))


def test_smoothing_of_nothing_is_the_cross_entropy():
    logits, labels = jnp.asarray(RNG.standard_normal((4, 5)), jnp.float32), jnp.arange(4)
    loss, (dx, none) = gradient(
        functools.partial(manual.label_smoothing_cross_entropy, smoothing=0.0), logits, labels
    )
    hard, (dx_hard, _) = gradient(manual.softmax_cross_entropy_with_integer_labels, logits, labels)
    np.testing.assert_array_equal(loss, hard)
    np.testing.assert_array_equal(dx, dx_hard)
    assert none.dtype == jax.dtypes.float0
    assert jnp.isnan(jax.jit(manual.label_smoothing_cross_entropy)(logits, labels + 2)[3])


def test_focus_of_nothing_is_the_cross_entropy_and_focus_keeps_its_digits():
    x = array(-20.0, -3.0, 0.0, 3.0, 20.0)
    labels = jnp.array([0, 1, 1, 0, 1])
    loss, (dx, _) = gradient(functools.partial(manual.focal_loss_with_logits, gamma=0.0), x, labels)
    plain, (dx_plain, _) = gradient(
        manual.binary_cross_entropy_with_logits, x, labels.astype(jnp.float32)
    )
    np.testing.assert_allclose(loss, plain, rtol=1e-6)
    np.testing.assert_allclose(dx, dx_plain, rtol=1e-6)
    loss, (dx, _) = gradient(manual.focal_loss_with_logits, x[-1:], jnp.array([True]))
    np.testing.assert_allclose(loss, np.exp(-60.0), rtol=1e-4)  # (1 − p)² · −ln p at p = 1 − e⁻²⁰
    np.testing.assert_allclose(dx, -3 * np.exp(-60.0), rtol=1e-4)


def test_info_nce_of_one_pair_or_of_equal_rows():
    one = jnp.ones((1, 3))
    loss, gradients = gradient(manual.info_nce, one, one)
    assert loss.tolist() == [0]
    assert all((g == 0).all() for g in gradients)
    same = jnp.ones((4, 3))
    for symmetric in (False, True):
        f = functools.partial(manual.info_nce, symmetric=symmetric)
        loss, _ = gradient(f, same, same)
        np.testing.assert_allclose(loss, np.log(4), rtol=1e-6)


def test_info_nce_is_a_cross_entropy_of_products_and_symmetric_as_it_says():
    q, k = (jnp.asarray(RNG.standard_normal((5, 3)), jnp.float32) for _ in "qk")
    loss, (dq, dk) = gradient(functools.partial(manual.info_nce, symmetric=True), q, k)
    swapped, (dk_2, dq_2) = gradient(functools.partial(manual.info_nce, symmetric=True), k, q)
    np.testing.assert_allclose(loss, swapped, rtol=1e-5)
    np.testing.assert_allclose(dq, dq_2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(dk, dk_2, rtol=1e-4, atol=1e-5)
    one_way = manual.info_nce(q, k)
    expected = manual.softmax_cross_entropy_with_integer_labels(q @ k.T / 0.1, jnp.arange(5))
    np.testing.assert_allclose(one_way, expected, rtol=1e-5, atol=1e-6)


def test_gaussian_losses_at_the_ends():
    """σ² from e⁻¹⁰⁰ to e¹⁰⁰: squares and variances apart would overflow or vanish in float32."""
    for v in (-100.0, 0.0, 100.0):
        s = float(np.exp(v / 2))
        loss, (dm, dv, dt) = gradient(manual.gaussian_nll, array(0.0), array(v), array(2 * s))
        assert float(loss) == pytest.approx(2 + v / 2 + 0.5 * np.log(2 * np.pi), rel=1e-5)
        np.testing.assert_allclose([dt[0] * s, dm[0] * s, dv[0]], [2, -2, -1.5], rtol=1e-5)
    _, (_, dv) = gradient(manual.gaussian_kl, array(0.0), array(1e-10))
    np.testing.assert_allclose(dv, [0.5e-10], rtol=1e-6)


def test_the_elbo_is_likelihood_less_divergence():
    x, t = (jnp.asarray(RNG.uniform(0, 1, (3, 5)), jnp.float32) for _ in "xt")
    m, v = (jnp.asarray(RNG.standard_normal((3, 2)), jnp.float32) for _ in "mv")
    bound = manual.elbo(x, t, m, v, beta=2.0)
    expected = -manual.binary_cross_entropy_with_logits(x, t).sum(-1) - 2 * manual.gaussian_kl(m, v)
    np.testing.assert_allclose(bound, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["mae", "huber", "smooth_l1", "log_cosh", "cosine_similarity_loss"]
)
def test_narrow_sums_are_accumulated_in_float32(name):
    """4096 terms of one: float16 stops counting at 2048, bfloat16 at 256."""
    for dtype in (jnp.float16, jnp.bfloat16):
        x = jnp.ones(4096, dtype)
        loss, (dx, _) = gradient(getattr(manual, name), x, jnp.zeros_like(x))
        cosh = float(np.log(np.cosh(1)))
        true = {"mae": 1, "huber": 2048, "smooth_l1": 2048, "log_cosh": 4096 * cosh}.get(name, 1)
        assert float(loss) == pytest.approx(true, rel=float(jnp.finfo(dtype).eps))
        assert dx.dtype == dtype


TWO, THREE = jnp.ones((2, 3)), jnp.ones(3)
UNEQUAL = {
    "mae": "predictions targets",
    "huber": "predictions targets",
    "smooth_l1": "predictions targets",
    "log_cosh": "predictions targets",
    "hinge": "scores labels",
    "squared_hinge": "scores labels",
    "cosine_similarity_loss": "predictions targets",
    "info_nce": "queries keys",
    "kl_divergence": "p q",
    "kl_divergence_with_logits": "p_logits q_logits",
    "gaussian_kl": "mean log_var",
    "focal_loss_with_logits": "logits labels",
}


@pytest.mark.parametrize("name", UNEQUAL)
def test_unequal_shapes_are_refused(name):
    first, second = UNEQUAL[name].split()
    message = rf"{name}: {first} has shape \(2, 3\) and {second} \(3,\); their shapes must be equal"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(getattr(manual, name), TWO, THREE)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: manual.triplet_margin(TWO, THREE, TWO),
            ValueError,
            r"anchor has shape \(2, 3\), positive \(3,\) and negative \(2, 3\); their shapes must",
        ),
        (
            lambda: manual.gaussian_nll(TWO, TWO, THREE),
            ValueError,
            r"mean has shape \(2, 3\), log_var \(2, 3\) and targets \(3,\); their shapes must",
        ),
        (
            lambda: manual.huber(jnp.ones(()), jnp.ones(())),
            ValueError,
            r"huber: predictions has shape \(\) and targets \(\); their shapes must be \(\*batch",
        ),
        (lambda: manual.huber(TWO, TWO, delta=0.0), ValueError, "huber: delta is 0.0; it must be"),
        (lambda: manual.smooth_l1(TWO, TWO, beta=0), ValueError, "smooth_l1: beta is 0; it must"),
        *(
            (
                lambda w=w: manual.binary_cross_entropy_with_logits(TWO, TWO, pos_weight=w),
                ValueError,
                rf"binary_cross_entropy_with_logits: pos_weight has shape \({w.shape[0]},.* and "
                r"logits \(2, 3\); it must be a number, or one for each entry of the last axis",
            )
            for w in (jnp.ones(2), jnp.ones(1), TWO)
        ),
        *(
            (
                lambda w=w: manual.binary_cross_entropy_with_logits(TWO, TWO, pos_weight=w),
                TypeError,
                f"binary_cross_entropy_with_logits: pos_weight is {w!r}; it must be a number",
            )
            for w in ("balanced", True)
        ),
        (
            lambda: manual.info_nce(TWO, TWO, temperature=-1.0),
            ValueError,
            "info_nce: temperature is -1.0; it must be a positive number",
        ),
        (
            lambda: manual.info_nce(jnp.ones((2, 2, 3)), jnp.ones((2, 2, 3))),
            ValueError,
            r"info_nce: queries and keys have shape \(2, 2, 3\); it must be \(samples, features\)",
        ),
        (
            lambda: manual.hinge(TWO, jnp.ones((2, 3), int)),
            TypeError,
            "hinge: labels are int32, and must be floating-point, -1 or 1",
        ),
        (
            lambda: manual.focal_loss_with_logits(TWO, TWO),
            TypeError,
            "focal_loss_with_logits: labels are float32, and must be integers or booleans",
        ),
        (
            lambda: manual.focal_loss_with_logits(TWO, jnp.ones((2, 3), int), gamma=-1),
            ValueError,
            "gamma is -1; it must be 0 or more",
        ),
        (
            lambda: manual.focal_loss_with_logits(TWO, jnp.ones((2, 3), int), alpha=2),
            ValueError,
            r"alpha is 2; it must be in \[0, 1\]",
        ),
        (
            lambda: manual.label_smoothing_cross_entropy(TWO, jnp.zeros(2, int), smoothing=1.5),
            ValueError,
            r"label_smoothing_cross_entropy: smoothing is 1.5; it must be in \[0, 1\]",
        ),
        (
            lambda: manual.label_smoothing_cross_entropy(TWO, jnp.zeros(2)),
            TypeError,
            "label_smoothing_cross_entropy: labels are float32, and must be integers",
        ),
        (
            lambda: manual.label_smoothing_cross_entropy(TWO, jnp.zeros(2, int), smoothing="a"),
            TypeError,
            "label_smoothing_cross_entropy: smoothing is 'a'; it must be a number",
        ),
        (
            lambda: manual.elbo(TWO, TWO, jnp.ones((3, 2)), jnp.ones((3, 2))),
            ValueError,
            r"elbo: logits have shape \(2, 3\) and mean \(3, 2\); they must be \(\*batch, outputs",
        ),
    ],
)
def test_bad_input_is_named_when_it_is_traced(call, kind, message):
    with pytest.raises(kind, match=message):
        jax.eval_shape(call)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_the_second_derivative_of_the_focal_loss_at_zero(label, gamma):
    """Where softplus is put together of a maximum and |x|; a head starts there."""

    def loss(room):
        focal = functools.partial(room.focal_loss_with_logits, gamma=gamma, alpha=0.25)
        return lambda x: focal(x, jnp.array(label))

    second, of_plain = (jax.grad(jax.grad(loss(room))) for room in (manual, reference))
    assert jnp.allclose(second(0.0), of_plain(1e-6), rtol=1e-4)


def test_an_impossible_class_has_no_share_in_the_smoothing_of_zero():
    logits = jnp.array([-jnp.inf, 0.0, 1.0, 2.0])
    plain = manual.softmax_cross_entropy_with_integer_labels(logits, jnp.array(2))
    smoothed = manual.label_smoothing_cross_entropy(logits, jnp.array(2), smoothing=0.0)
    assert smoothed == plain
    assert jnp.isfinite(plain)


@pytest.mark.parametrize("of", [lambda f: f, jax.grad])
def test_labels_of_the_other_convention_are_refused_by_the_focal_loss(of):
    for label in (-1, 2):
        with pytest.raises(ValueError, match=rf"labels is {label}; of two classes it must be in"):
            of(manual.focal_loss_with_logits)(0.5, jnp.array(label))


def test_the_gradient_of_info_nce_errs_no_more_than_autodiffs():
    """Of certain rows: the largest similarity less itself is 0 in the forward and the backward."""
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(2, 16, 4, 3)).astype(np.float32)

    def gradients(room, *args):
        f = jax.vmap(jax.grad(lambda q, k: room.info_nce(q, k).sum(), (0, 1)))
        return np.array(jax.jit(f)(*args), np.float64)  # (2, draws, samples, features)

    with jax.enable_x64(True):
        truth = gradients(reference, *np.float64((queries, keys)))
    ulp = 2.0**-23 * np.abs(truth).max((2, 3))
    ours, autodiff = (
        np.abs(gradients(room, queries, keys) - truth).max((2, 3)) / ulp
        for room in (manual, reference)
    )
    root_mean_square = [np.sqrt(np.mean(np.square(e), 1)) for e in (ours, autodiff)]
    assert (root_mean_square[0] <= 2 * root_mean_square[1] + 1).all(), root_mean_square


def test_log_sum_exp_of_a_product_made_beside_it_has_the_gradient_of_its_rounded_one():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(64, 7)) * 20, jnp.float32)
    scale = np.float32(1 / 0.3)
    as_users_do = {"xla_backend_optimization_level": 3}  # which rounds c z − xₘ once

    @functools.partial(jax.jit, compiler_options=as_users_do)
    def gradient(z):
        return jax.vjp(manual.log_sum_exp, scale * z)[1](jnp.ones(64))[0]

    p = gradient(z)
    with jax.enable_x64(True):
        expected = np.asarray(jax.nn.softmax(jnp.asarray(np.asarray(scale * z), float)))
    assert np.abs(np.asarray(p) - expected).max() < 2 * 2.0**-23


@pytest.mark.parametrize("name", ["softmax_cross_entropy", "log_softmax"])
def test_of_an_almost_certain_class_of_a_product_made_beside_it_the_digits_are_kept(name):
    z = np.random.default_rng(1).normal(size=(256, 7)).astype(np.float32)
    scale, largest = np.float32(20), np.eye(7, dtype=np.float32)[z.argmax(1)]
    as_users_do = {"xla_backend_optimization_level": 3}  # which rounds c z − xₘ once

    @functools.partial(jax.jit, compiler_options=as_users_do)
    def loss_and_gradient(z, scale, largest):
        def loss(x):
            if name == "log_softmax":
                return -(manual.log_softmax(x) * largest).sum(1)
            return manual.softmax_cross_entropy(x, largest)

        value, vjp = jax.vjp(loss, scale * z)
        return value, vjp(jnp.ones_like(value))[0]

    ours = loss_and_gradient(z, scale, largest)
    with jax.enable_x64(True):
        truth = loss_and_gradient(np.float64(scale * z), 1.0, np.float64(largest))
        truth = [np.asarray(a) for a in truth]
    assert truth[0].min() < 1e-20
    for a, b in zip(ours, truth, strict=True):  # an ulp of 60 in the exponent is 32 of the result
        np.testing.assert_allclose(a, b, rtol=64 * 2.0**-23, atol=1e-37)
