"""The affine layers against loops written from the formulas, index by index."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def whole(rng, *shape):
    """Small whole numbers: every product and sum below is exact, so that equality is asked for."""
    return rng.integers(-4, 5, shape).astype(np.float32)


@pytest.mark.parametrize("bias", [True, False])
def test_affine_and_its_cotangents_are_the_sums_of_the_book(bias):
    """yₙⱼ = Σᵢ xₙᵢwᵢⱼ + bⱼ;  x̄ₙᵢ = Σⱼ ȳₙⱼwᵢⱼ,  w̄ᵢⱼ = Σₙ xₙᵢȳₙⱼ,  b̄ⱼ = Σₙ ȳₙⱼ: exactly."""
    rng = np.random.default_rng(0)
    x, w, b, dy = whole(rng, 3, 5), whole(rng, 5, 4), whole(rng, 4), whole(rng, 3, 4)
    y, dx, dw, db = np.zeros((3, 4)), np.zeros((3, 5)), np.zeros((5, 4)), np.zeros(4)
    if bias:
        y += b
    for n, i, j in itertools.product(range(3), range(5), range(4)):
        y[n, j] += x[n, i] * w[i, j]
        dx[n, i] += dy[n, j] * w[i, j]
        dw[i, j] += x[n, i] * dy[n, j]
    for n, j in itertools.product(range(3), range(4)):
        db[j] += dy[n, j]
    got, vjp = jax.vjp(manual.affine, x, w, b if bias else None)
    np.testing.assert_array_equal(got, y)
    for cotangent, expected in zip(
        vjp(jnp.asarray(dy)), (dx, dw, db if bias else None), strict=True
    ):
        if expected is None:
            assert cotangent is None
        else:
            np.testing.assert_array_equal(cotangent, expected)


def test_batch_axes_are_one_flat_batch():
    rng = np.random.default_rng(1)
    x, w, b, dy = whole(rng, 2, 3, 5), whole(rng, 5, 4), whole(rng, 4), whole(rng, 2, 3, 4)
    y, vjp = jax.vjp(manual.affine, x, w, b)
    flat, flat_vjp = jax.vjp(manual.affine, x.reshape(6, 5), w, b)
    np.testing.assert_array_equal(y.reshape(6, 4), flat)
    dx, dw, db = vjp(jnp.asarray(dy))
    flat_dx, flat_dw, flat_db = flat_vjp(jnp.asarray(dy.reshape(6, 4)))
    np.testing.assert_array_equal(dx.reshape(6, 5), flat_dx)
    np.testing.assert_array_equal(dw, flat_dw)
    np.testing.assert_array_equal(db, flat_db)


def test_one_sample_needs_no_batch_axis():
    rng = np.random.default_rng(2)
    x, w, dy = whole(rng, 5), whole(rng, 5, 4), whole(rng, 4)
    y, vjp = jax.vjp(manual.affine, x, w)
    np.testing.assert_array_equal(y, x @ w)
    dx, dw, db = (*vjp(jnp.asarray(dy)), None)
    np.testing.assert_array_equal(dx, w @ dy)
    np.testing.assert_array_equal(dw, np.outer(x, dy))
    assert db is None


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (1, 1)])
def test_the_absorbed_bias_has_the_gradients_of_the_separate_one(batch):
    """y = (1, x)·w with b in the first row of w: the same y, x̄, w̄ and b̄ as affine, exactly."""
    rng = np.random.default_rng(3)
    x, w, b, dy = whole(rng, *batch, 5), whole(rng, 5, 4), whole(rng, 4), whole(rng, *batch, 4)
    y, vjp = jax.vjp(manual.affine, x, w, b)
    absorbed, absorbed_vjp = jax.vjp(manual.affine_absorbed, x, np.concatenate([b[None], w]))
    np.testing.assert_array_equal(absorbed, y)
    dx, dw, db = vjp(jnp.asarray(dy))
    dx_absorbed, dw_absorbed = absorbed_vjp(jnp.asarray(dy))
    np.testing.assert_array_equal(dx_absorbed, dx)
    np.testing.assert_array_equal(dw_absorbed, np.concatenate([db[None], dw]))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_sums_are_accumulated_in_float32(dtype):
    """2¹² terms of one: in bfloat16 a running sum stops at 256, in float16 at 2048."""
    n = 2**12
    ones = jnp.ones((n, 1), dtype)
    w, b = jnp.ones((1, 1), dtype), jnp.zeros((1,), dtype)
    _, vjp = jax.vjp(manual.affine, ones, w, b)
    _, dw, db = vjp(jnp.ones((n, 1), dtype))
    assert (float(dw[0, 0]), float(db[0])) == (n, n)
    assert float(manual.affine(ones.T, ones)[0, 0]) == n
    _, vjp = jax.vjp(manual.affine, jnp.ones((1, 1), dtype), ones.T)
    assert float(vjp(jnp.ones((1, n), dtype))[0][0, 0]) == n
    _, vjp = jax.vjp(manual.affine_absorbed, ones, jnp.ones((2, 1), dtype))
    assert vjp(jnp.ones((n, 1), dtype))[1].ravel().tolist() == [n, n]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ((3, 5), (4, 2)),
            r"affine: x has shape \(3, 5\) and w \(4, 2\); "
            r"they must be \(\*batch, in\) and \(in, out\)",
        ),
        (((3, 5), (5,)), r"affine: x has shape \(3, 5\) and w \(5,\)"),
        (((), (5, 2)), r"affine: x has shape \(\) and w \(5, 2\)"),
        (
            ((3, 5), (5, 4), (5,)),
            r"affine: b has shape \(5,\), but w of shape \(5, 4\) has 4 outputs; b must be \(4,\)",
        ),
        (((3, 5), (5, 4), (1, 4)), r"affine: b has shape \(1, 4\)"),
    ],
)
def test_affine_names_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        manual.affine(*map(jnp.ones, arguments))


@pytest.mark.parametrize("shape", [(5, 4), (6,), ()])
def test_affine_absorbed_names_what_does_not_fit(shape):
    with pytest.raises(ValueError, match=r"they must be \(\*batch, in\) and \(1 \+ in, out\)"):
        manual.affine_absorbed(jnp.ones((3, 5)), jnp.ones(shape))
