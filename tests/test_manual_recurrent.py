"""Recurrent nets near saturation, where 1 − h² has no digits left, and bad names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from handgrad import manual, reference
from handgrad.compare.cases import load

CASES = {case.id: case for case in load() if case.topic == "recurrent" and not case.config}


def rows_of_jacobian(f):
    """Every gradient with a one-hot cotangent: (cotangents, arguments joined), jitted."""

    @jax.jit
    def run(*args):
        y, vjp = jax.vjp(f, *args)
        flat, unravel = ravel_pytree(y)
        rows = jax.vmap(lambda dy: vjp(unravel(dy)))(jnp.eye(flat.size, dtype=flat.dtype))
        return [row.reshape(flat.size, -1) for row in jax.tree.leaves(rows)]

    return run


def in_ulps(found, truth):
    """The error of each gradient in float32 ulps of its element, or its root mean square."""
    with np.errstate(under="ignore"):
        scale = np.maximum(np.abs(truth), np.sqrt((truth**2).mean(-1, keepdims=True)))
    kept = scale > 1e-30  # below, float32 underflows on the way
    return np.where(kept, np.abs(found - truth) / np.where(kept, scale, 1) / 2.0**-23, 0).max(-1)


def errors(f, args, movements=32):
    """Of the float32 gradients, and of exact ones where the inputs are half an ulp aside."""
    narrow = [None if a is None else np.float32(a) for a in args]
    found = rows_of_jacobian(f)(*narrow)
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        exact = rows_of_jacobian(f)
        wide = [None if a is None else np.float64(a) for a in narrow]
        truth = [np.asarray(t) for t in exact(*wide)]
        moved = [
            exact(*[a if a is None else a * (1 + nudge(rng, a)) for a in wide])
            for _ in range(movements)
        ]
    ours = [in_ulps(np.float64(a), t) for a, t in zip(found, truth, strict=True)]
    moves = [[in_ulps(np.asarray(a), t) for a, t in zip(m, truth, strict=True)] for m in moved]
    return np.stack(ours), np.max(moves, 0)


def nudge(rng, a):
    return rng.uniform(-1, 1, a.shape) * 2.0**-24


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_gradients_through_saturated_units_keep_their_digits(case):
    """The error is little more than what half an ulp in the inputs would lead to."""
    found, moved = errors(getattr(manual, case.function), case.draw(0, scale=2.0))
    assert (found <= 4 * moved + 8).all()


def test_autodiff_loses_them():
    """So the test above has inputs that tell: 1 − h² out of a rounded h does not pass it."""
    found, moved = errors(reference.rnn, CASES["recurrent.rnn"].draw(0, scale=2.0))
    assert (found > 1000 * (4 * moved + 8)).any()


def test_an_unknown_activation_is_named():
    args = CASES["recurrent.rnn"].draw(0)
    with pytest.raises(ValueError, match="rnn: activation is 'tahn'; it must be one of: tanh"):
        manual.rnn(*args, activation="tahn")


@pytest.mark.parametrize(
    ("argument", "shape", "message"),
    [
        ("x", (3, 4), r"x has shape \(3, 4\); it must be \(batch, time, in\)"),
        ("x", (2, 0, 4), "x has shape .* at least one step of time"),
        ("h0", (), r"h0 has shape \(\); it must be \(batch, hidden\), with x of shape \(2, 3, 4\)"),
        ("c0", (1, 5), r"c0 has shape \(1, 5\); .* it must be \(2, 5\)"),
        ("c0", (), r"c0 has shape \(\); .* it must be \(2, 5\)"),
        ("wx", (3, 20), r"wx has shape \(3, 20\); .* it must be \(4, 20\)"),
        ("wh", (5, 16), r"wh has shape \(5, 16\); .* it must be \(5, 20\)"),
        ("b", (1,), r"b has shape \(1,\); .* it must be \(20,\)"),
        ("peepholes", (3, 1), r"peepholes has shape \(3, 1\); .* it must be \(3, 5\)"),
    ],
)
def test_an_lstm_of_shapes_that_do_not_fit(argument, shape, message):
    """None is broadcast, and the argument is named."""
    shapes = {"x": (2, 3, 4), "h0": (2, 5), "c0": (2, 5), "wx": (4, 20), "wh": (5, 20)}
    shapes |= {"b": (20,), "peepholes": (3, 5), argument: shape}
    with pytest.raises(ValueError, match=f"lstm: {message}"):
        manual.lstm(**{name: jnp.ones(of) for name, of in shapes.items()})


def test_a_first_state_that_does_not_fit_is_named_as_it_was_given():
    args = [jnp.ones(of) for of in ((2, 3, 4), (1, 5), (4, 5), (5, 5), (5,))]
    with pytest.raises(ValueError, match=r"rnn: h0 has shape \(1, 5\); .* it must be \(2, 5\)"):
        jax.eval_shape(manual.rnn, *args)


@pytest.mark.parametrize("beyond", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "gru", "gru_reset_after"])
@pytest.mark.parametrize("room", [manual, reference], ids=["manual", "reference"])
def test_what_follows_the_end_of_a_sequence_does_not_matter(room, cell, beyond):
    rng = np.random.default_rng(0)
    gates = {"lstm": 4, "gru": 3, "gru_reset_after": 3}.get(cell, 1)
    shapes = [(2, 3 * gates), (3, 3 * gates), (3 * gates,), (3,)]
    weights = [rng.standard_normal(s) for s in shapes[: 4 if cell == "gru_reset_after" else 3]]
    weights = tuple(jnp.asarray(w, jnp.float32) for w in weights)
    state = (jnp.ones((3, 3)),) * (2 if cell == "lstm" else 1)
    x, lengths = jnp.asarray(rng.standard_normal((3, 4, 2)), jnp.float32), jnp.array([2, 4, 0])
    past = (jnp.arange(4)[None] >= lengths[:, None])[..., None]
    past = jnp.broadcast_to(past, x.shape)

    for reverse in (False, True):

        @jax.jit
        def run(x, state, weights, reverse=reverse):
            def total(*args):
                h, end = room.recurrence(*args, cell=cell, lengths=lengths, reverse=reverse)
                return (h**2).sum() + sum((s**2).sum() for s in end)

            return jax.value_and_grad(total, (0, 1, 2))(x, state, weights)

        found = run(jnp.where(past, beyond, x), state, weights)
        expected = run(jnp.where(past, 0, x), state, weights)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
        assert not found[1][0][past].any()
