"""Descent on data sets and hyper-gradients, by hand and by autodiff."""

import importlib.util
import itertools
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.manual import descent, hypergradients
from handgrad.manual.networks import init_mlp, mlp_loss
from handgrad.manual.optimizers import adam
from handgrad.reference import descent as autodiff_descent
from handgrad.reference import hypergradients as autodiff_hypergradients
from handgrad.reference import networks as reference_networks
from handgrad.reference import optimizers as reference_optimizers

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def promotion():
    """optax raises an integer to a real power, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def regression(samples=8):
    """A small net and a small data set, in float64."""
    params = init_mlp((3, 4, 2), key=jax.random.key(1), dtype=jnp.float64)
    x, t = (jnp.asarray(RNG.standard_normal((samples, n))) for n in (3, 2))
    return params, x, t


def close(actual, expected, rtol):
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-15)


def test_the_three_descents_agree_with_autodiff():
    key = jax.random.key(0)
    options = {
        "batch_descent": {"epochs": 30},
        "stochastic_descent": {"epochs": 3, "key": key},
        "minibatch_descent": {"epochs": 5, "batch_size": 3, "key": key},
    }
    with jax.enable_x64(True):
        params, x, t = regression()
        for name, how in options.items():
            how = how | {"learning_rate": 0.05, "activation": "sigmoid"}
            actual = getattr(descent, name)(mlp_loss, params, x, t, **how)
            expected = getattr(autodiff_descent, name)(
                reference_networks.mlp_loss, params, x, t, **how
            )
            close(actual, expected, rtol=1e-12)  # some 30 steps of some ten roundings
            steps = {"batch_descent": 30, "stochastic_descent": 24, "minibatch_descent": 10}
            assert actual[1].shape == (steps[name],)


def test_batch_descent_is_the_line_of_the_book():
    with jax.enable_x64(True):
        params, x, t = regression()
        loss, expected = None, params
        for _ in range(3):
            loss, (grads, *_) = mlp_loss.value_and_gradient(expected, x, t)
            expected = jax.tree.map(lambda w, g: w - 0.01 * g, expected, grads)
        actual, losses = descent.batch_descent(mlp_loss, params, x, t, learning_rate=0.01, epochs=3)
        close(actual, expected, rtol=1e-15)
        assert float(losses[-1]) == pytest.approx(float(loss), rel=1e-15)


def test_descend_takes_any_optimiser():
    with jax.enable_x64(True):
        params, x, t = regression()
        batches = descent.epochs_of_batches(8, 4, 5, key=jax.random.key(2))
        actual = descent.descend(mlp_loss, adam(0.01), params, (x, t), batches)
        expected = autodiff_descent.descend(
            reference_networks.mlp_loss, reference_optimizers.adam(0.01), params, (x, t), batches
        )
        close(actual, expected, rtol=1e-12)


def test_every_epoch_takes_every_sample_once():
    batches = np.asarray(descent.epochs_of_batches(10, 5, 4, key=jax.random.key(0)))
    assert batches.shape == (8, 5)
    for epoch in batches.reshape(4, 10):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(10))
    assert len({tuple(epoch) for epoch in batches.reshape(4, 10)}) == 4
    left_out = np.asarray(descent.epochs_of_batches(7, 3, 2, key=jax.random.key(0)))
    assert left_out.shape == (4, 3)
    assert all(len(set(epoch.ravel())) == 6 for epoch in left_out.reshape(2, 6))
    np.testing.assert_array_equal(
        left_out, autodiff_descent.epochs_of_batches(7, 3, 2, key=jax.random.key(0))
    )


def test_the_minibatch_gradient_is_unbiased_by_enumeration():
    """Over all C(8, b) batches: the mean is the full gradient, the spread falls as it must."""
    with jax.enable_x64(True):
        params, x, t = regression()

        @jax.jit
        @jax.vmap
        def gradients(rows):
            """That of the sum over the rows."""
            _, (grads, *_) = mlp_loss.value_and_gradient(params, x[rows], t[rows])
            return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads)])

        each = np.asarray(gradients(np.arange(8)[:, None]))
        full = {"sum": each.sum(0), "mean": each.mean(0)}
        np.testing.assert_allclose(gradients(np.arange(8)[None])[0], full["sum"], rtol=1e-12)
        spread = each.var(0)
        for size in (1, 3, 7):
            batches = np.array(list(itertools.combinations(range(8), size)))
            assert len(batches) == math.comb(8, size)
            sums = np.asarray(gradients(batches))
            means = sums / size
            scale = np.abs(means).max()
            np.testing.assert_allclose(means.mean(0), full["mean"], rtol=0, atol=1e-14 * scale)
            np.testing.assert_allclose(
                8 / size * sums.mean(0), full["sum"], rtol=0, atol=1e-13 * scale
            )
            # unscaled, as a sum over the batch, it is biased by size/samples
            assert not np.allclose(sums.mean(0), full["sum"])
            # drawn without replacement from a finite set: σ²/b (n − b)/(n − 1)
            np.testing.assert_allclose(
                means.var(0), spread / size * (8 - size) / 7, rtol=1e-10, atol=1e-28
            )


def test_bad_input():
    params, x, t = init_mlp((3, 2), key=jax.random.key(0)), jnp.ones((8, 3)), jnp.ones((8, 2))
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="batch_size is 9; it must be between 1 and the number"):
        descent.minibatch_descent(
            mlp_loss, params, x, t, learning_rate=0.1, epochs=1, batch_size=9, key=key
        )
    with pytest.raises(ValueError, match=r"the data have \[7, 8\] samples; all arrays must have"):
        descent.batch_descent(mlp_loss, params, x, t[:7], learning_rate=0.1, epochs=1)
    with pytest.raises(
        TypeError, match=r"epochs_of_batches: key is 0; it must be a jax.random.key"
    ):
        descent.minibatch_descent(
            mlp_loss, params, x, t, learning_rate=0.1, epochs=1, batch_size=2, key=0
        )
    whole = jax.tree.map(lambda a: a.astype(int), params)
    with pytest.raises(
        TypeError, match=r"the parameter \[0\]\[0\] is int32; it must be of floating"
    ):
        descent.batch_descent(mlp_loss, whole, x, t, learning_rate=0.1, epochs=1)


def test_rows_that_the_data_do_not_have():
    params, x, t = init_mlp((3, 2), key=jax.random.key(0)), jnp.ones((8, 3)), jnp.ones((8, 2))
    for rows, row in (([[0, 8]], "0, 1] is 8"), ([[0, 1], [-1, 0]], "1, 0] is -1")):
        with pytest.raises(ValueError, match=rf"descend: batches\[{row}; with data of 8 samples"):
            descent.descend(mlp_loss, adam(0.1), params, (x, t), jnp.array(rows))
    for rows in (jnp.zeros((2, 1)), jnp.zeros(2, int)):
        with pytest.raises(ValueError, match=r"descend: batches are .* must be integers \(steps"):
            descent.descend(mlp_loss, adam(0.1), params, (x, t), rows)

    @jax.jit  # where the rows are computed they are believed, and where they are constants known
    def descended(rows):
        return descent.descend(mlp_loss, adam(0.1), params, (x, t), rows)[1]

    assert descended(jnp.array([[0, 8]])).shape == (1,)
    with pytest.raises(ValueError, match=r"batches\[0, 0\] is 9;"):
        jax.jit(lambda: descended.__wrapped__(np.array([[9]])))()
    with pytest.raises(ValueError, match="epochs is -1; it must be 0 or more"):
        descent.batch_descent(mlp_loss, params, x, t, learning_rate=0.1, epochs=-1)


def test_descent_on_arrays_of_numpy():
    params = jax.tree.map(np.asarray, init_mlp((3, 2), key=jax.random.key(0)))
    x, t = np.ones((8, 3), np.float32), np.ones((8, 2), np.float32)
    rows = np.array([[0, 1], [2, 3]])
    found = descent.descend(mlp_loss, adam(0.1), params, (x, t), rows)
    given = jax.tree.map(jnp.asarray, (params, (x, t), rows))
    close(found, descent.descend(mlp_loss, adam(0.1), *given), 0)
    _, losses = descent.batch_descent(mlp_loss, params, x, t, learning_rate=0.01, epochs=2)
    assert losses[1] < losses[0]


@pytest.mark.parametrize("name", hypergradients.__all__)
def test_a_number_of_steps_is_a_whole_number(name):
    run = getattr(hypergradients, name)
    bowl = descent.quadratic(jnp.ones(2)), jnp.ones(2), 0.1
    with pytest.raises(TypeError, match=rf"{name}: steps is 1\.5; it must be a whole number"):
        run(*bowl, steps=1.5)
    with pytest.raises(ValueError, match=f"{name}: steps is -1; it must be 0 or more"):
        run(*bowl, steps=-1)
    value, gradient = run(*bowl, steps=0)
    assert (float(value), float(gradient)) == (1, 0)


# --- objectives and hyper-gradients ---------------------------------------------------------------


def objectives():
    """Both rooms' objectives, a start and a rate, in float64."""
    bowls = (room.quadratic(jnp.array([1.0, 3.0, 10.0])) for room in (descent, autodiff_descent))
    valleys = (room.rosenbrock() for room in (descent, autodiff_descent))
    return [(*bowls, [1.0, -2.0, 0.5], 0.05), (*valleys, [-1.2, 1.0], 1e-3)]


def test_the_objectives_by_hand():
    with jax.enable_x64(True):
        for ours, theirs, start, _ in objectives():
            w, v = (jnp.asarray(RNG.standard_normal(len(start))) for _ in range(2))
            assert float(ours.value(w)) == pytest.approx(float(theirs.value(w)), rel=1e-14)
            np.testing.assert_allclose(ours.gradient(w), theirs.gradient(w), rtol=1e-12)
            np.testing.assert_allclose(ours.hvp(w, v), theirs.hvp(w, v), rtol=1e-12)


@pytest.mark.parametrize("name", hypergradients.__all__)
def test_hypergradients_agree_with_autodiff_through_the_loop(name):
    with jax.enable_x64(True):
        for ours, theirs, start, rate in objectives():
            actual, expected = (
                jax.jit(
                    lambda w, room=room, f=f, eta=rate: getattr(room, name)(f, w, eta, steps=10)
                )(jnp.array(start))
                for room, f in ((hypergradients, ours), (autodiff_hypergradients, theirs))
            )
            np.testing.assert_allclose(actual, expected, rtol=1e-12)  # some 400 roundings


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_both_modes_and_a_numerical_derivative_agree(name):
    """A third witness, and many steps: central differences of the loss itself."""
    with jax.enable_x64(True):
        forward, reverse = (
            jax.jit(
                lambda rate, mode=mode: getattr(hypergradients, f"{name}_hypergradient_{mode}")(
                    descent.rosenbrock(), jnp.array([-1.2, 1.0]), rate, steps=200
                )
            )
            for mode in ("forward", "reverse")
        )
        (loss, by_forward), (_, by_reverse) = forward(1e-3), reverse(1e-3)
        assert float(by_forward) == pytest.approx(float(by_reverse), rel=1e-11)
        h = 1e-8
        slope = (forward(1e-3 + h)[0] - forward(1e-3 - h)[0]) / (2 * h)
        # truncation h² f‴/6 and rounding ε f/h, both near 1e-6 here
        assert float(slope) == pytest.approx(float(by_forward), rel=1e-5)
        assert np.isfinite(float(loss))


def test_hypergradients_of_a_tree_and_of_gradients_that_are_zero():
    """√v̂ has no derivative at 0: an entry without gradients counts as constant."""
    tree = descent.Objective(
        value=lambda p: 0.5 * jnp.sum(p["a"] ** 2) + 0.0 * jnp.sum(p["b"]),
        gradient=lambda p: {"a": p["a"], "b": jnp.zeros_like(p["b"])},
        hvp=lambda p, v: {"a": v["a"], "b": jnp.zeros_like(v["b"])},
    )
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.ones(3)}
    for mode in ("forward", "reverse"):
        adam_mode = getattr(hypergradients, f"adam_hypergradient_{mode}")
        loss, slope = adam_mode(tree, params, 0.01, steps=5)
        assert np.isfinite([loss, slope]).all()
        assert slope < 0
        sgd_mode = getattr(hypergradients, f"sgd_hypergradient_{mode}")
        # on ½‖a‖²: a_K = (1 − η)^K a₀, so dL/dη = −K (1 − η)^(2K−1) ‖a₀‖²
        _, slope = sgd_mode(tree, params, 0.1, steps=5)
        assert float(slope) == pytest.approx(-5 * 0.9**9 * 5, rel=1e-6)
    with pytest.raises(ValueError, match=r"b2 is 1\.0; it must lie in \[0, 1\)"):
        hypergradients.adam_hypergradient_forward(tree, params, 0.01, steps=1, b2=1.0)


# --- the picture ----------------------------------------------------------------------------------


def test_the_picture_of_the_three_descents(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    file = pathlib.Path(__file__).parents[1] / "examples" / "descent.py"
    spec = importlib.util.spec_from_file_location("examples_descent", file)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    curves = {}
    draw = example.draw
    monkeypatch.setattr(example, "draw", lambda c, path: (curves.update(c), draw(c, path)))
    picture = tmp_path / "descent.png"
    assert example.main(["--out", str(picture), "--samples", "96", "--epochs", "6"]) == 0
    assert picture.stat().st_size > 10_000
    assert capsys.readouterr().out.startswith("batch            6 steps  final loss ")
    # smooth against noisy: how often the loss of the next step is larger
    rises = {name: (np.diff(curve.seen) > 0).mean() for name, curve in curves.items()}
    assert rises["batch"] == 0
    assert rises["batch"] < rises["mini-batch"] < rises["stochastic"]
    for curve in curves.values():
        assert curve.full[-1] < curve.full[0]
    with pytest.raises(SystemExit):
        example.main(["--out", "descent.txt"])
