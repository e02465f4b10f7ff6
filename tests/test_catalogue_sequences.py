"""Padded, reversed, layered and truncated recurrent nets: any lengths, and what each must equal."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import manual, reference
from handgrad.manual import cells, through_time

GATES = {"tanh": 1, "relu": 1, "lstm": 4, "gru": 3, "gru_reset_after": 3}


def net(cell, batch=3, time=4, features=2, hidden=3, dtype=jnp.float64):
    """x, state, weights."""
    rng = np.random.default_rng(0)
    gates = GATES[cell] * hidden
    states = [(batch, hidden)] * (2 if cell == "lstm" else 1)
    weights = [(features, gates), (hidden, gates), (gates,)]
    weights += [(hidden,)] if cell == "gru_reset_after" else []

    def draw(shape):
        return jnp.asarray(rng.standard_normal(shape), dtype)

    return draw((batch, time, features)), tuple(map(draw, states)), tuple(map(draw, weights))


def gradients(f, *args):
    """Value and cotangents, by a cotangent of the value itself plus one."""

    @jax.jit
    def run(*args):
        y, vjp = jax.vjp(f, *args)
        return y, vjp(jax.tree.map(lambda leaf: leaf + 1, y))

    return run(*args)


@functools.cache
def both(cell, reverse):
    """The gradients by hand and by autodiff as one compiled function of the lengths too."""

    @jax.jit
    def run(lengths, *args):
        config = {"cell": cell, "lengths": lengths, "reverse": reverse}
        return [
            gradients(functools.partial(room.recurrence, **config), *args)
            for room in (manual, reference)
        ]

    return run


def close(ours, theirs, tolerance=1e-13):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=0, atol=tolerance * (1 + np.abs(b).max(initial=0))
        ),
        ours,
        theirs,
    )


@pytest.mark.parametrize(("cell", "reverse"), [*zip(GATES, [False, True] * 3, strict=False)])
@settings(max_examples=10, deadline=None, derandomize=True)
@given(lengths=st.tuples(*[st.integers(0, 4)] * 3))
def test_any_lengths_in_either_direction(cell, reverse, lengths):
    with jax.enable_x64(True):
        args = net(cell)
        ours, theirs = both(cell, reverse)(jnp.array(lengths), *args)
        close(ours, theirs)
        (h, end), (dx, _, _) = ours
        for row, length in enumerate(lengths):
            assert not np.asarray(h)[row, length:].any()
            assert not np.asarray(dx)[row, length:].any()
            if length == 0:  # a sequence of nothing leaves its state as it was
                np.testing.assert_array_equal(end[0][row], args[1][0][row])


@pytest.mark.parametrize("cell", GATES)
def test_a_padded_sequence_is_the_short_one(cell):
    """Whatever stands in the padding, infinities too."""
    x, state, weights = net(cell, dtype=jnp.float32)
    padded = x.at[:, 2:].set(jnp.asarray([jnp.inf, 1e30], jnp.float32))
    short = gradients(functools.partial(manual.recurrence, cell=cell), x[:, :2], state, weights)
    f = functools.partial(manual.recurrence, cell=cell, lengths=(2, 2, 2))
    (h, end), vjp = jax.vjp(lambda *a: f(padded.at[:, :2].set(x[:, :2]), *a), state, weights)
    close((h[:, :2], end), short[0], 1e-6)
    cotangent = (jnp.pad(short[0][0] + 1, [(0, 0), (0, 2), (0, 0)]), tuple(e + 1 for e in end))
    dstate, dweights = vjp(cotangent)
    close(dstate, short[1][1], 1e-5)
    # the padding itself is multiplied by a δ of zero: keep infinities out of it for the weights
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in (*dstate, dweights[1], dweights[2]))


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
def test_without_options_it_is_the_plain_net(cell):
    x, state, weights = net(cell, dtype=jnp.float32)
    (h, end), _ = manual.recurrence.forward(x, state, weights, cell=cell)
    plain = {
        "tanh": lambda: manual.rnn(x, *state, *weights),
        "lstm": lambda: manual.lstm(x, *state, *weights, None)[0],
        "gru": lambda: manual.gru(x, *state, *weights),
    }[cell]()
    np.testing.assert_allclose(h, plain, atol=1e-6)
    np.testing.assert_array_equal(end[0], h[:, -1])


def test_two_calls_in_a_row_are_one():
    """The final state of one is the initial state of the next, for values and gradients."""
    with jax.enable_x64(True):
        x, state, weights = net("lstm", time=5)

        def in_two(x, state, weights):
            first, state = manual.recurrence(x[:, :2], state, weights)
            second, state = manual.recurrence(x[:, 2:], state, weights)
            return jnp.concatenate([first, second], 1), state

        close(gradients(in_two, x, state, weights), gradients(manual.recurrence, x, state, weights))


@pytest.mark.sweep(3)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("truncate", [1, 2, 7])
def test_truncation_is_a_state_handed_over_as_a_constant(truncate, reverse):
    with jax.enable_x64(True):
        x, state, weights = net("gru", time=5)

        def in_blocks(x, state, weights):
            outputs = []
            x = x[:, ::-1] if reverse else x
            for start in range(0, 5, truncate):
                state = jax.lax.stop_gradient(state) if start else state
                h, state = manual.recurrence(
                    x[:, start : start + truncate], state, weights, cell="gru"
                )
                outputs.append(h)
            h = jnp.concatenate(outputs, 1)
            return h[:, ::-1] if reverse else h, state

        f = functools.partial(manual.recurrence, cell="gru", truncate=truncate, reverse=reverse)
        close(gradients(f, x, state, weights), gradients(in_blocks, x, state, weights))


@pytest.mark.parametrize(("cell", "reverse"), [("lstm", False), ("gru", True)])
@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize("columns", [1, 6, 9])
def test_blocks_of_steps_are_one_sequence(columns, cell, reverse, monkeypatch):
    """Of three samples and five steps: five blocks, two and a step, one and two steps."""
    config = {"cell": cell, "lengths": (5, 0, 3), "reverse": reverse, "truncate": 2}
    with jax.enable_x64(True):
        args = net(cell, time=5)
        deltas_of_a_sample = args[2][0].shape[1]
        monkeypatch.setattr(through_time, "_DELTAS", columns * deltas_of_a_sample)
        ours, theirs = (
            gradients(functools.partial(room.recurrence, **config), *args)
            for room in (manual, reference)
        )
    close(ours, theirs)


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_reset_after"])
def test_the_gates_of_a_large_net_are_one_product(cell, monkeypatch, anew):
    def products():
        loss = jax.grad(lambda *args: manual.recurrence(*args, cell=cell)[0].sum())
        return str(jax.make_jaxpr(loss)(*args)).count("dot_general")

    with jax.enable_x64(True):
        args = net(cell)
        gate_by_gate = products()
        monkeypatch.setattr(cells, "_SMALL", 2)
        anew()
        assert products() < gate_by_gate
        ours, theirs = (
            gradients(functools.partial(room.recurrence, cell=cell), *args)
            for room in (manual, reference)
        )
    close(ours, theirs)


def test_long_sequences_of_many_samples():
    """In blocks as they come: none is left out or done twice."""
    for reverse in (False, True):
        config = {"cell": "tanh", "reverse": reverse}
        with jax.enable_x64(True):
            args = net("tanh", batch=2**16, time=7, hidden=4)  # blocks of two steps, one of one
            ours, theirs = (
                gradients(functools.partial(room.recurrence, **config), *args)
                for room in (manual, reference)
            )
        close(ours, theirs)


def test_both_directions_see_the_whole_sequence():
    """The first h depends on the last x by the net backwards, and not beyond the length."""
    x, state, weights = net("tanh", dtype=jnp.float32)
    f = functools.partial(manual.bidirectional, cell="tanh", lengths=(4, 4, 2))
    dx = jax.grad(lambda x: f(x, (state, state), (weights, weights))[0][:, 0].sum())(x)
    assert dx[:2, 3].any()
    assert dx[2, 1].any()
    assert not dx[2, 2:].any()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("cell", GATES)
def test_narrow_dtypes_stay(cell, dtype):
    y, cotangents = gradients(
        functools.partial(manual.recurrence, cell=cell, lengths=(4, 0, 2)), *net(cell, dtype=dtype)
    )
    for leaf in jax.tree.leaves((y, cotangents)):
        assert leaf.dtype == dtype
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


@pytest.mark.parametrize("cell", GATES)
def test_huge_inputs_saturate_and_give_finite_gradients(cell):
    x, state, weights = net(cell, dtype=jnp.float32)
    scale = 1.0 if cell == "relu" else 1e4
    y, cotangents = gradients(
        functools.partial(manual.recurrence, cell=cell), scale * x, state, weights
    )
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((y, cotangents)))


NETS = {
    "rnn": (manual.rnn, "tanh"),
    "lstm": (lambda x, h, c, *weights: manual.lstm(x, h, c, *weights, None), "lstm"),
    "gru": (manual.gru, "gru"),
    "gru_reset_after": (manual.gru_reset_after, "gru_reset_after"),
    "recurrence": (functools.partial(manual.recurrence, lengths=(4, 0, 2), truncate=3), "lstm"),
    "bidirectional": (manual.bidirectional, "lstm"),
    "stacked": (functools.partial(manual.stacked, both_ways=True), "lstm"),
}


def arguments(name, **sizes):
    x, state, weights = net(NETS[name][1], **sizes)
    return {
        "recurrence": (x, state, weights),
        "bidirectional": (x, (state, state), (weights, weights)),
        "stacked": (x, [(state, state)], [(weights, weights)]),
    }.get(name, (x, *state, *weights))


@pytest.mark.parametrize(("name", "wide"), [*zip(NETS, [0, -1] * 4, strict=False)])
def test_of_two_dtypes_the_wider_is_computed_in(name, wide):
    """x or the last argument in float64, the rest in float32: as in float64, rounded at the end."""
    f, _ = NETS[name]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        args = list(jax.tree.map(jnp.float32, arguments(name)))
        args[wide] = jax.tree.map(jnp.float64, args[wide])
        y, cotangents = gradients(f, *args)
        in_wide, vjp = jax.vjp(f, *jax.tree.map(jnp.float64, args))
        close(y, in_wide, 1e-7)
        truth = vjp(jax.tree.map(lambda leaf: jnp.float64(leaf + 1), y))
        close(list(cotangents), list(truth), 1e-7)
    assert jax.tree.map(jnp.result_type, list(cotangents)) == jax.tree.map(jnp.result_type, args)


@pytest.mark.parametrize("name", NETS)
def test_a_net_of_no_hidden_units(name):
    f, _ = NETS[name]
    args = arguments(name, hidden=0, dtype=jnp.float32)
    _, (dx, *others) = gradients(f, *args)
    assert dx.shape == args[0].shape
    assert not dx.any()
    assert not jax.tree.leaves(others)[0].size


def test_an_empty_batch_of_lengths():
    (h, _), (_, _, dweights) = gradients(
        functools.partial(manual.recurrence, lengths=()),
        *arguments("recurrence", batch=0, dtype=jnp.float32),
    )
    assert h.shape == (0, 4, 3)
    assert not any(d.any() for d in dweights)


def test_a_truncation_that_is_a_numpy_integer():
    args = arguments("recurrence", dtype=jnp.float32)
    ours, same = (
        gradients(functools.partial(manual.recurrence, truncate=n), *args) for n in (np.int64(2), 2)
    )
    jax.tree.map(np.testing.assert_array_equal, ours, same)


X, STATE, WEIGHTS = net("gru", dtype=jnp.float32)
PAIRS = (STATE, STATE), (WEIGHTS, WEIGHTS)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS, cell="gur"),
            ValueError,
            "cell is 'gur'; it must be one of: tanh, relu, lstm, gru, gru_reset_after",
        ),
        (
            lambda: manual.recurrence(X[0], STATE, WEIGHTS, cell="gru"),
            ValueError,
            r"x has shape \(4, 2\); it must be \(batch, time, in\)",
        ),
        (
            lambda: manual.recurrence(X[:, :0], STATE, WEIGHTS, cell="gru"),
            ValueError,
            r"x has shape \(3, 0, 2\); .* at least one step of time",
        ),
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS),
            ValueError,
            r"state must be a tuple \(h, c\) for the cell 'lstm'; a tuple came, of 1",
        ),
        (
            lambda: manual.recurrence(X, STATE[0], WEIGHTS, cell="gru"),
            ValueError,
            r"state must be a tuple \(h\) for the cell 'gru'",
        ),
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS, cell="gru_reset_after"),
            ValueError,
            r"weights must be a tuple \(wx, wh, b, bn\)",
        ),
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS, cell="tanh"),
            ValueError,
            r"wx has shape \(2, 9\); .* 3 hidden units of the cell 'tanh' it must be \(2, 3\)",
        ),
        (
            lambda: manual.recurrence(X[:2], STATE, WEIGHTS, cell="gru"),
            ValueError,
            r"h has shape \(3, 3\); with x of shape \(2, 4, 2\) .* must be \(2, 3\)",
        ),
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS, cell="gru", lengths=(1, 2)),
            ValueError,
            r"lengths have shape \(2,\); they must be \(3,\)",
        ),
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS, cell="gru", lengths=(1, 2, 5)),
            ValueError,
            r"lengths\[2\] is 5; with padded sequences of length 4 it must be in \[0, 5\)",
        ),
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS, cell="gru", truncate=0),
            ValueError,
            "recurrence: truncate is 0; it must be 1 or more",
        ),
        (
            lambda: manual.recurrence(X, STATE, WEIGHTS, cell="gru", truncate=2.0),
            TypeError,
            r"recurrence: truncate is 2\.0; it must be a whole number",
        ),
        (
            lambda: manual.recurrence(X, (STATE[0][0, 0],), WEIGHTS, cell="gru"),
            ValueError,
            r"recurrence: h has shape \(\); it must be \(batch, hidden\), with x of shape",
        ),
        (
            lambda: manual.recurrence(X, list(STATE), WEIGHTS, cell="gru"),
            ValueError,
            r"state must be a tuple \(h\) for the cell 'gru'; a list came, of 1",
        ),
        (
            lambda: manual.recurrence(X, STATE, list(WEIGHTS), cell="gru"),
            ValueError,
            r"weights must be a tuple \(wx, wh, b\) for the cell 'gru'; a list came, of 3",
        ),
        (
            lambda: manual.stacked(X, [STATE] * 2, [WEIGHTS] * 2, cell="gru"),
            ValueError,
            r"^stacked: layer 1: recurrence: wx has shape \(2, 9\); .* it must be \(3, 9\)",
        ),
        (
            lambda: manual.bidirectional(X, PAIRS[0], (WEIGHTS, WEIGHTS[:2]), cell="gru"),
            ValueError,
            "^bidirectional: the net backwards: recurrence: weights must be a tuple",
        ),
        (
            lambda: manual.bidirectional(X, list(PAIRS[0]), PAIRS[1], cell="gru"),
            ValueError,
            "bidirectional: states must be a pair, .*; a list of 2 came",
        ),
        (
            lambda: manual.bidirectional.forward(X, None, PAIRS[1], cell="gru"),
            ValueError,
            "bidirectional: states must be a pair, .*; a NoneType came",
        ),
        (
            lambda: manual.stacked(X, (STATE,), (WEIGHTS,), cell="gru"),
            ValueError,
            "stacked: states and weights must be lists .*; there came a tuple of states and a tup",
        ),
        (
            lambda: manual.gru(X, STATE[0][:2], *WEIGHTS),
            ValueError,
            r"gru: h0 has shape \(2, 3\); with x of shape \(3, 4, 2\) .* must be \(3, 3\)",
        ),
        (
            lambda: manual.gru_reset_after(X, STATE[0][0], *WEIGHTS, STATE[0][0]),
            ValueError,
            r"gru_reset_after: h0 has shape \(3,\); it must be \(batch, hidden\), with x of",
        ),
        (
            lambda: manual.bidirectional(X, STATE, WEIGHTS, cell="gru"),
            ValueError,
            "bidirectional: states must be a pair",
        ),
        (
            lambda: manual.stacked(X, PAIRS[0], PAIRS[1], cell="gru"),
            ValueError,
            "stacked: states and weights must be lists of at least one layer",
        ),
        (
            lambda: manual.stacked(X, [STATE], [], cell="gru"),
            ValueError,
            "came 1 states and 0 weig",
        ),
        (
            lambda: manual.gru_reset_after(X, *STATE, *WEIGHTS, X),
            ValueError,
            r"bn has shape \(3, 4, 2\); .* it must be \(3,\)",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        jax.eval_shape(call)
