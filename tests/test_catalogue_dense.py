"""The bilinear and the tied layer, and positions: figures, invariants, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference

RNG = np.random.default_rng(0)


def array(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.standard_normal(shape), dtype)


@pytest.mark.parametrize("out", [2, 3, 5])  # fewer than in1: not by the pairs of the inputs
def test_bilinear_is_what_its_sum_says(out):
    x1, x2, w, b = array(2, 3), array(2, 4), array(3, 4, out), array(out)
    expected = np.einsum("ni,ijo,nj->no", x1, w, x2) + np.asarray(b)
    np.testing.assert_allclose(manual.bilinear(x1, x2, w, b), expected, rtol=1e-5, atol=1e-5)
    swapped = manual.bilinear(x2, x1, jnp.swapaxes(w, 0, 1), b)
    np.testing.assert_allclose(manual.bilinear(x1, x2, w, b), swapped, rtol=1e-5, atol=1e-5)


def test_the_tied_weight_has_the_sum_of_the_gradients_of_its_two_uses():
    x, w, b, c = array(3, 4), array(4, 2), array(2), array(4)
    dy = array(3, 4)

    def untied(x, w, v, b, c):
        return manual.affine(manual.tanh(manual.affine(x, w, b)), v, c)

    _, vjp = jax.vjp(manual.tied_autoencoder, x, w, b, c)
    _, vjp_untied = jax.vjp(untied, x, w, w.T, b, c)
    dx, dw, db, dc = vjp(dy)
    dx_, dw_, dv_, db_, dc_ = vjp_untied(dy)
    for got, expected in ((dx, dx_), (dw, dw_ + dv_.T), (db, db_), (dc, dc_)):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_sums_are_accumulated_in_float32(dtype):
    one = functools.partial(jnp.ones, dtype=dtype)
    for in1 in (1, 2):
        args = one((4096, in1)), one((4096, 1)), one((in1, 1, 1)), one(1)
        _, vjp = jax.vjp(manual.bilinear, *args)
        _, _, dw, db = vjp(one((4096, 1)))
        assert (float(dw[0, 0, 0]), float(db[0])) == (4096, 4096)
    _, vjp = jax.vjp(manual.learned_positions, one((4096, 1, 2)), one((3, 2)))
    _, dtable = vjp(one((4096, 1, 2)))
    assert dtable.tolist() == [[4096, 4096], [0, 0], [0, 0]]
    assert dtable.dtype == dtype


@pytest.mark.parametrize(("batch", "in1"), [(0, 3), (0, 1), (2, 0)])
def test_bilinear_of_nothing_has_gradients_of_zero(batch, in1):
    args = jnp.ones((batch, in1)), jnp.ones((batch, 4)), jnp.ones((in1, 4, 2)), jnp.ones(2)
    y, vjp = jax.vjp(manual.bilinear, *args)
    cotangents = vjp(y)
    assert [d.shape for d in cotangents] == [a.shape for a in args]
    assert not any(d.any() for d in cotangents[:3])
    assert cotangents[3].tolist() == [batch, batch]


def test_positions_at_known_places():
    y = manual.sinusoidal_positions(jnp.zeros((3, 4)))
    t = np.arange(3)
    expected = np.stack([np.sin(t), np.cos(t), np.sin(t / 100), np.cos(t / 100)], -1)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-7)
    late = manual.sinusoidal_positions(jnp.zeros((1, 4)), offset=2)
    np.testing.assert_array_equal(late[0], y[2])
    far = manual.sinusoidal_positions(jnp.zeros((1, 4)), offset=1_000_003, base=7.0)
    np.testing.assert_allclose(far[0, 2], np.sin(1_000_003 / 7**0.5), rtol=1e-6)  # 2⁻²⁴ · 10⁶ off


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotations(interleaved):
    """Lengths stay; the product of two rotated vectors depends on their distance alone."""
    f = functools.partial(manual.rotary, interleaved=interleaved)
    q, k = (jnp.tile(array(1, 6), (8, 1)) for _ in "qk")
    np.testing.assert_allclose(jnp.square(f(q)).sum(-1), jnp.square(q).sum(-1), rtol=1e-5)
    scores = np.asarray(f(q) @ f(k).T)
    for distance in range(-3, 4):
        diagonal = np.diagonal(scores, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(f(q)[0], q[0])


@pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_rotary_turns_back_by_the_angles_that_it_turned_by(way):
    """Known positions are computed with in float64, also within jit, and in the backward."""
    x, t = jnp.asarray(RNG.standard_normal((3, 8)), jnp.float32), np.array([0, 100_003, 10**6])
    f = functools.partial(manual.rotary, positions=t)
    y, back = way(lambda x: (f(x), jax.vjp(f, x)[1](f(x))[0]))(x)
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-6)
    with jax.enable_x64(True):
        exact = reference.rotary(jnp.asarray(np.asarray(x, float)), positions=t)
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-6)


def test_rotary_takes_positions_known_or_traced():
    x, t = array(2, 3, 4), np.array([5, 0, 9], np.int32)
    known = manual.rotary(x, positions=t)
    traced = jax.jit(lambda x, t: manual.rotary(x, positions=t))(x, jnp.asarray(t))
    np.testing.assert_allclose(known, traced, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(known, manual.rotary(x, positions=(5, 0, 9)), rtol=1e-5, atol=1e-6)
    y, vjp = jax.vjp(functools.partial(manual.rotary, positions=t), x)
    np.testing.assert_allclose(vjp(y)[0], x, rtol=1e-5, atol=1e-6)  # back by the same angles


def test_the_two_layouts_of_pairs_are_one_permutation_apart():
    x = array(5, 6)
    order = np.array([0, 2, 4, 1, 3, 5])
    halves = manual.rotary(x[:, order])
    np.testing.assert_allclose(halves, manual.rotary(x, interleaved=True)[:, order], rtol=1e-6)


X = jnp.ones((2, 3, 4))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: manual.bilinear(jnp.ones((2, 3)), jnp.ones((2, 4)), jnp.ones((3, 5, 1))),
            ValueError,
            r"bilinear: x1 has shape \(2, 3\), x2 \(2, 4\), w \(3, 5, 1\) and b None; they must be",
        ),
        (
            lambda: manual.bilinear(jnp.ones((2, 3)), jnp.ones((1, 3)), jnp.ones((3, 3, 1))),
            ValueError,
            r"x2 \(1, 3\), .* must be \(\*batch, in1\), \(\*batch, in2\), \(in1, in2, out\)",
        ),
        (
            lambda: manual.bilinear(jnp.ones(3), jnp.ones(3), jnp.ones((3, 3, 2)), jnp.ones(1)),
            ValueError,
            r"and b \(1,\); they must be",
        ),
        (
            lambda: manual.tied_autoencoder(X, jnp.ones((4, 2)), jnp.ones(1), jnp.ones(4)),
            ValueError,
            r"b has shape \(1,\) and c \(4,\); with w of shape \(4, 2\) they must be \(2,\) and",
        ),
        (
            lambda: manual.tied_autoencoder(X, jnp.ones((3, 2)), jnp.ones(2), jnp.ones(3)),
            ValueError,
            r"tied_autoencoder: x has shape \(2, 3, 4\) and w \(3, 2\); they must be",
        ),
        (
            lambda: manual.learned_positions(X, jnp.ones((2, 4))),
            ValueError,
            r"table has shape \(2, 4\) and x \(2, 3, 4\); table must be \(rows, 4\) with at least",
        ),
        (
            lambda: manual.learned_positions(X, jnp.ones((3, 1))),
            ValueError,
            r"table has shape \(3, 1\) and x \(2, 3, 4\)",
        ),
        (
            lambda: manual.sinusoidal_positions(jnp.ones((2, 3))),
            ValueError,
            r"sinusoidal_positions: x has shape \(2, 3\); .* \(\*batch, time, features\), features",
        ),
        (lambda: manual.rotary(jnp.ones(4)), ValueError, r"rotary: x has shape \(4,\); it must be"),
        (
            lambda: manual.rotary(X, positions=jnp.arange(2)),
            ValueError,
            r"positions have shape \(2,\) and x \(2, 3, 4\); positions must be \(3,\)",
        ),
        (
            lambda: manual.embedding(jnp.ones(3), X[0]),
            TypeError,
            "embedding: indices are float32, and must be integers",
        ),
        (
            lambda: manual.embedding(jnp.ones(3, int), X),
            ValueError,
            r"embedding: table has shape \(2, 3, 4\); it must be \(rows, features\), with at least",
        ),
        (
            lambda: manual.embedding(jnp.ones(3, int), jnp.ones((0, 4))),
            ValueError,
            r"embedding: table has shape \(0, 4\)",
        ),
        (
            lambda: manual.sinusoidal_positions(X, base=-1.0),
            ValueError,
            "sinusoidal_positions: base is -1.0; it must be a positive number",
        ),
        (
            lambda: manual.sinusoidal_positions(X, offset=np.arange(3)),
            ValueError,
            r"sinusoidal_positions: offset has shape \(3,\); it must be a number",
        ),
        (lambda: manual.rotary(X, base=0.0), ValueError, "rotary: base is 0.0; it must be a posit"),
        (
            lambda: manual.rotary(X, positions=jnp.ones(3)),
            TypeError,
            "rotary: positions are float32, and must be integers",
        ),
    ],
)
def test_bad_input_is_named_when_it_is_traced(call, kind, message):
    with pytest.raises(kind, match=message):
        jax.eval_shape(call)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.uint16, jnp.int32, jnp.uint32])
def test_indices_of_every_width_find_their_rows(dtype):
    """A table may have more rows than the dtype of the indices has numbers."""
    table = jnp.arange(70_000.0)[:, None]
    indices = jnp.array([100, 5, min(jnp.iinfo(dtype).max, 80_000)], dtype)
    traced = jax.jit(manual.embedding)  # not known to be out of range
    y, vjp = jax.vjp(lambda table: traced(indices, table), table)
    rows = np.minimum(np.asarray(indices, int), 69_999)
    np.testing.assert_array_equal(y[:, 0], rows)
    np.testing.assert_array_equal(np.flatnonzero(vjp(jnp.ones_like(y))[0]), np.sort(rows))
