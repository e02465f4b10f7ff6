"""The fused last layer and loss: any blocks, certain classes, labels that are none, memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.manual import fused_losses

loss = manual.linear_softmax_cross_entropy


def sample(rows=7, features=3, classes=5, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s) for s in ((rows, features), (features, classes), (classes,))]
    return *(jnp.asarray(a, dtype) for a in arrays), jnp.asarray(rng.integers(0, classes, rows))


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(("classes", "columns"), [(5, 1), (5, 2), (6, 3), (5, 4), (2500, None)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_size_of_the_blocks_does_not_matter(reduction, classes, columns, monkeypatch):
    """Of the rows, and of the columns: one, several, and a last one that overlaps or does not."""
    monkeypatch.setattr(fused_losses, "_COLUMNS", columns or fused_losses._COLUMNS)
    with jax.enable_x64(True):
        *params, labels = sample(classes=classes, dtype=jnp.float64)
        expected = jax.value_and_grad(
            lambda *p: reference.linear_softmax_cross_entropy(*p, labels, reduction=reduction),
            (0, 1, 2),
        )(*params)
        for block in (1, 3, 7, 100):
            y, (*gradient, none) = loss.value_and_gradient(
                *params, labels, reduction=reduction, block=block
            )
            assert none is None
            for a, b in zip((y, *gradient), (expected[0], *expected[1]), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


def test_an_almost_certain_class_keeps_its_digits():
    """s = (40, 0, 0), label 0: L = ln(1 + 2r), b̄ = (−2r, r, r), r = e⁻⁴⁰; 1 − p leaves nothing."""
    x, w, b = jnp.ones((1, 1)), jnp.asarray([[40.0, 0.0, 0.0]]), jnp.zeros(3)
    y, (_, _, db, _) = loss.value_and_gradient(x, w, b, jnp.zeros(1, jnp.int32))
    r = np.exp(-40.0)
    assert float(y) == pytest.approx(2 * r, rel=1e-6)
    np.testing.assert_allclose(db, [-2 * r, r, r], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_extreme_logits_give_finite_gradients(dtype):
    """±1e4: a certain hit, and a certain miss whose loss is 2e4."""
    x = jnp.asarray([[1.0], [-1.0]], dtype)
    w = jnp.asarray([[1e4, -1e4]], dtype)
    y, (dx, dw, _, _) = loss.value_and_gradient(x, w, None, jnp.zeros(2, jnp.int8), reduction="sum")
    assert float(y) == pytest.approx(2e4, rel=1e-2)
    assert {a.dtype for a in (y, dx, dw)} == {jnp.dtype(dtype)}
    np.testing.assert_array_equal(np.asarray(dw, np.float32), [[1, -1]])  # only the miss
    np.testing.assert_array_equal(np.asarray(dx, np.float32)[0], [0])


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_none_gives_nan(label):
    x, w, b, labels = sample()
    traced = jax.jit(functools.partial(loss.value_and_gradient, block=2))
    y, (dx, dw, _, _) = traced(x, w, b, labels.at[2].set(label))
    assert np.isnan(y)
    assert np.isnan(dx[2]).all()
    assert np.isfinite(np.delete(dx, 2, 0)).all()  # the other rows have their own gradient
    assert np.isnan(dw).any()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_empty_batch_moves_nothing(reduction):
    x, w, b, labels = sample(rows=0)
    y, (dx, dw, db, _) = loss.value_and_gradient(x, w, b, labels, reduction=reduction)
    assert np.isnan(y) if reduction == "mean" else y == 0
    assert dx.shape == (0, 3)
    assert not dw.any()
    assert not db.any()


def test_more_rows_need_no_more_logits():
    """Temporary bytes do not grow by the (rows, classes) logits."""

    def temporary(rows):
        shapes = (rows, 8), (8, 4096), (4096,)
        x, w, b = (jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)
        labels = jax.ShapeDtypeStruct((rows,), jnp.int32)
        f = functools.partial(loss.value_and_gradient, block=32)
        return jax.jit(f).lower(x, w, b, labels).compile().memory_analysis().temp_size_in_bytes

    logits = 4 * 4096 * (1024 - 128)
    assert temporary(1024) - temporary(128) < 0.02 * logits


X, W, B, C = jnp.ones((4, 3)), jnp.ones((3, 5)), jnp.ones(5), jnp.ones(4, jnp.int32)


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        ((X, W.T, B, C), {}, ValueError, r"x has shape \(4, 3\) and w \(5, 3\); they must be"),
        ((X, W, X, C), {}, ValueError, r"b has shape \(4, 3\); it must be \(5,\), or None"),
        ((X, W, B, X), {}, TypeError, "labels are float32, and must be integers"),
        ((X, W, B, C[:2]), {}, ValueError, r"labels have shape \(2,\); they must be \(4,\)"),
        ((X, W, B, C), {"reduction": "none"}, ValueError, "reduction is 'none'; it must be one"),
        ((X, W, B, C), {"block": 0}, ValueError, "block is 0; it must be 1 or more"),
    ],
)
def test_what_does_not_fit_is_named(args, options, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(functools.partial(loss, **options), *args)


def test_the_second_derivative_of_one_input_feature_is_finite_however_the_logits_are_rounded():
    """A product of one term may be rounded with the bias in the logits and not in their maximum."""
    draw = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, w, b = (jnp.asarray(draw.normal(size=s)) for s in ((64, 2, 1), (64, 1, 5), (64, 5)))

        def second(room):
            def one(x, w, b):
                return room.linear_softmax_cross_entropy(x, w, b, jnp.zeros(2, int))

            return np.asarray(jax.jit(jax.vmap(jax.hessian(one, 2)))(x, w, b))

        np.testing.assert_allclose(second(manual), second(reference), atol=1e-12)
