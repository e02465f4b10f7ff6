"""The multilayer perceptron: worked numbers, the book's formulas in loops, every activation."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.compare.cases import load
from handgrad.manual.networks import ACTIVATIONS, LOSSES


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


def random_params(rng, *sizes):
    return [
        (jnp.asarray(rng.standard_normal((n, m)) / n**0.5), jnp.asarray(rng.standard_normal(m)))
        for n, m in itertools.pairwise(sizes)
    ]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_the_worked_numbers_of_a_three_layer_sigmoid_net():
    """ "Fundamentals of deep learning" (ch. 3), figure 3-13, printed to two decimals."""
    params = [
        (jnp.array([[1.0, -1.0], [-2.0, 1.0]]), jnp.array([1.0, 0.0])),
        (jnp.array([[2.0, -2.0], [-1.0, -1.0]]), jnp.array([0.0, 0.0])),
        (jnp.array([[3.0, -1.0], [-1.0, 4.0]]), jnp.array([-2.0, 2.0])),
    ]
    for x, printed in (([1.0, -1.0], [0.62, 0.83]), ([0.0, 0.0], [0.51, 0.85])):
        y = manual.mlp(params, jnp.array(x), activation="sigmoid", output_activation="sigmoid")
        np.testing.assert_allclose(y, printed, atol=0.005)


def test_the_worked_update_of_a_two_layer_sigmoid_net():
    """Tobias Hill, "Part 2: Gradient descent and backpropagation" (2018): one step with η = 0.1.

    The figures are those the net really has; five of the printed ones are off in the 4th digit.
    """
    config = {"activation": "sigmoid", "output_activation": "sigmoid", "loss": "squared_error"}
    with jax.enable_x64(True):
        params = [
            (jnp.array([[0.3, 0.2], [-0.4, 0.6]]), jnp.array([0.25, 0.45])),
            (jnp.array([[0.7, -0.3], [0.5, -0.1]]), jnp.array([0.15, 0.35])),
        ]
        x, target = jnp.array([2.0, 3.0]), jnp.array([1.0, 0.2])
        cost, (dparams, _, _) = manual.mlp_loss.value_and_gradient(params, x, target, **config)
        assert float(cost) == pytest.approx(0.19374977898811957, rel=1e-14)
        after = jax.tree.map(lambda p, g: p - 0.1 * g, params, dparams)
        y = manual.mlp(after, x, activation="sigmoid", output_activation="sigmoid")
        np.testing.assert_allclose(y, [0.7187729999291985, 0.5238074518609882], rtol=1e-14)
        cost_after = manual.mlp_loss(after, x, target, **config)
        assert float(cost_after) == pytest.approx(0.18393989144952877, rel=1e-14)


def test_cases_1_and_2_in_loops():
    """νₒ = (ŷₒ − tₒ)δ′(zₒ), ∂E/∂wⱼₒ = νₒyⱼ;  νⱼ = δ′(zⱼ)Σₒνₒwⱼₒ, ∂E/∂wᵢⱼ = νⱼxᵢ; biases ν."""
    rng = np.random.default_rng(0)
    (w1, b1), (w2, b2) = [
        (rng.normal(size=(3, 4)), rng.normal(size=4)),
        (rng.normal(size=(4, 2)), rng.normal(size=2)),
    ]
    x, t = rng.normal(size=3), rng.uniform(size=2)
    y = sigmoid(x @ w1 + b1)
    y_hat = sigmoid(y @ w2 + b2)
    nu_out, nu_hidden = np.zeros(2), np.zeros(4)
    dw1, dw2, dx = np.zeros((3, 4)), np.zeros((4, 2)), np.zeros(3)
    for o in range(2):
        nu_out[o] = (y_hat[o] - t[o]) * y_hat[o] * (1 - y_hat[o])
        for j in range(4):
            dw2[j, o] = nu_out[o] * y[j]
    for j in range(4):
        nu_hidden[j] = y[j] * (1 - y[j]) * sum(nu_out[o] * w2[j, o] for o in range(2))
        for i in range(3):
            dw1[i, j] = nu_hidden[j] * x[i]
            dx[i] += nu_hidden[j] * w1[i, j]
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, [(w1, b1), (w2, b2)])
        loss, (dparams, got_dx, dt) = manual.mlp_loss.value_and_gradient(
            params, x, t, activation="sigmoid", output_activation="sigmoid"
        )
    assert float(loss) == pytest.approx(0.5 * sum((y_hat - t) ** 2), rel=1e-13)
    expected = ([(dw1, nu_hidden), (dw2, nu_out)], dx, t - y_hat)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), (dparams, got_dx, dt), expected
    )


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_as_hidden_and_as_output(activation):
    """The whole gradient against autodiff of the reference, in float64, to 200 ulps."""
    rng = np.random.default_rng(6)
    with jax.enable_x64(True):
        args = random_params(rng, 3, 4, 4, 2), *map(jnp.asarray, rng.normal(size=(2, 5, 3)))
        args = (args[0], args[1], args[2][:, :2])
        config = {"activation": activation, "output_activation": activation}

        @jax.jit
        def run(*args):
            return [
                jax.grad(lambda *a, f=room.mlp_loss: f(*a, **config), argnums=(0, 1, 2))(*args)
                for room in (manual, reference)
            ]

        ours, autodiff = run(*args)
    # step, sign: two zero gradients agree too
    assert activation in ("step", "sign") or np.abs(ours[1]).max() > 1e-3
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=5e-14 * (1 + np.abs(b).max())),
        ours,
        autodiff,
    )


@pytest.mark.parametrize(
    ("output_activation", "loss"),
    [("sigmoid", "binary_cross_entropy"), ("softmax", "categorical_cross_entropy")],
)
def test_a_certain_output_has_the_gradient_of_its_logits(output_activation, loss):
    """ŷ − t where ŷ is rounded to 1, and 1/ŷ or 1/(1 − ŷ) would be infinite or have no digits."""
    z = jnp.array([[12.0, 0.0], [90.0, -90.0], [-30.0, 20.0], [200.0, -200.0]])
    for label in (0, 1):
        t = jnp.eye(2)[jnp.full(4, label)]
        value, (_, dz, _) = manual.mlp_loss.value_and_gradient(
            [(jnp.eye(2), None)], z, t, output_activation=output_activation, loss=loss
        )
        z64 = np.asarray(z, float)
        odds = z64 if output_activation == "sigmoid" else z64 - z64[:, ::-1]
        p, one_less = (1 / (1 + np.exp(-a)) for a in (odds, -odds))
        np.testing.assert_allclose(dz, np.where(t == 1, -one_less, p), rtol=1e-6, atol=1e-37)
        assert np.isfinite(value)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_and_reduction_over_one_layer(loss, reduction):
    rng = np.random.default_rng(2)
    output = {"binary_cross_entropy": "sigmoid", "categorical_cross_entropy": "softmax"}
    with jax.enable_x64(True):
        params = random_params(rng, 3, 4)
        x = jnp.asarray(rng.normal(size=(5, 3)))
        targets = jnp.asarray(rng.uniform(size=(5, 4)))
        if "integer" in loss:
            targets = jnp.asarray(rng.integers(0, 4, 5))
        config = {"loss": loss, "reduction": reduction}
        config["output_activation"] = output.get(loss, "identity")
        argnums = (0, 1) if "integer" in loss else (0, 1, 2)

        @jax.jit
        def run(*args):
            plain = jax.value_and_grad(lambda *a: reference.mlp_loss(*a, **config), argnums)
            return manual.mlp_loss.value_and_gradient(*args, **config), plain(*args)

        (value, (dparams, dx, dt)), (expected, gradient) = run(params, x, targets)
    assert float(value) == pytest.approx(float(expected), rel=1e-13)
    assert (dt is None) == ("integer" in loss)
    ours = (dparams, dx) if dt is None else (dparams, dx, dt)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14), ours, gradient
    )


def test_the_mean_is_the_total_over_the_number_of_terms():
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda p: p.astype(jnp.float32), random_params(rng, 3, 2))
    x, t = jnp.ones((8, 3)), jnp.ones((8, 2))
    total, of_total = manual.mlp_loss.value_and_gradient(params, x, t)
    mean, of_mean = manual.mlp_loss.value_and_gradient(params, x, t, reduction="mean")
    assert float(mean) == float(total) / 8  # 8 is a power of two: exactly
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b * 8), of_total, of_mean)


def test_value_and_gradient_is_what_grad_gives():
    """The direct call and jax.grad through the custom rule run the same code, biases or none."""
    rng = np.random.default_rng(4)
    params = jax.tree.map(lambda p: p.astype(jnp.float32), random_params(rng, 3, 4, 2))
    params[0] = (params[0][0], None)
    x, t = np.ones((5, 3)), np.zeros((5, 2))  # NumPy's float64 is taken in too
    value, gradient = manual.mlp_loss.value_and_gradient(params, x, t)
    expected = jax.value_and_grad(manual.mlp_loss, (0, 1, 2))(
        params, jnp.asarray(x), jnp.asarray(t)
    )
    assert value == expected[0]
    assert gradient[0][0][1] is None
    jax.tree.map(np.testing.assert_array_equal, gradient, expected[1])


def test_a_deep_net_in_bfloat16_has_bfloat16_gradients():
    params = manual.init_mlp((4, 8, 8, 8, 3), key=jax.random.key(0), dtype=jnp.bfloat16)
    x, labels = jnp.ones((6, 4), jnp.bfloat16), jnp.zeros(6, jnp.int32)
    config = {"activation": "gelu", "loss": "softmax_cross_entropy_with_integer_labels"}
    run = jax.jit(functools.partial(manual.mlp_loss.value_and_gradient, **config))
    loss, (dparams, dx, dlabels) = run(params, x, labels)
    assert {leaf.dtype for leaf in (loss, dx, *jax.tree.leaves(dparams))} == {jnp.dtype("bfloat16")}
    assert dlabels is None


LANGUAGE_MODELS = ["recurrent_lm_loss", "gpt_loss", "llama_loss"]


def language_model(name):
    """The arguments and the options of its first sample, in float64."""
    case = next(c for c in load() if c.function == name)
    return jax.tree.map(jnp.asarray, case.draw()), case.config


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_targets_that_are_ignored_are_not_in_the_mean(name):
    """Values and gradients are those of the plain model whose loss is 0 there, over the rest."""
    with jax.enable_x64(True):
        (*params, tokens, targets), config = language_model(name)
        ours = functools.partial(getattr(manual, name), **config)
        plain = functools.partial(getattr(reference, name), **config)
        ours, plain = (
            jax.jit(jax.value_and_grad(functools.partial(f, ignore_index=-100)))
            for f in (ours, plain)
        )
        every = jnp.ones_like(targets, bool)
        for kept in (every.at[0, 1:3].set(False).at[1, 0].set(False), every.at[1].set(False)):
            some = jnp.where(kept, targets, -100)
            found, expected = (f(*params, tokens, some) for f in (ours, plain))
            jax.tree.map(close, found, expected)
        # a text whose targets are all ignored leaves the mean over the other
        first = [jax.tree.map(lambda a: a[:1], rest) for rest in (*params[1:], tokens, targets)]
        jax.tree.map(close, found, ours(params[0], *first))
        value, gradient = ours(*params, tokens, jnp.full_like(targets, -100))
        assert jnp.isnan(value)
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
        # without the option they are no tokens
        without = functools.partial(getattr(manual, name), **config)
        assert jnp.isnan(jax.jit(without)(*params, tokens, some))
        with pytest.raises(ValueError, match=r"targets\[1, 0\] is -100; with a table .*ignore_ind"):
            without(*params, tokens, some)


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_target_to_ignore_is_a_whole_number(name):
    args, config = language_model(name)
    with pytest.raises(TypeError, match=f"^{name}: ignore_index is 0.5; it must be a whole number"):
        getattr(manual, name)(*args, ignore_index=0.5, **config)


def test_init_mlp_gives_glorot_layers():
    params = manual.init_mlp((300, 200, 10), key=jax.random.key(1))
    assert [(w.shape, b.shape) for w, b in params] == [((300, 200), (200,)), ((200, 10), (10,))]
    for w, b in params:
        bound = (6 / sum(w.shape)) ** 0.5
        assert not b.any()
        assert bound * 0.99 < jnp.abs(w).max() <= bound
    assert not jnp.array_equal(params[0][0][:10, :10], params[1][0][:10])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ([], "params must be a list of layers .w, b., one at least; it is a list of 0"),
        ({}, "params must be a list .*; it is a dict of 0"),
        (jnp.ones((4, 3)), r"params must be a list .*; it has shape \(4, 3\)"),
        (((jnp.ones((3, 2)), None),), "params must be a list .*; it is a tuple of 1"),
        ([[jnp.ones((3, 2)), None]], "layer 0 of params must be a tuple .w, b.; it is a list of 2"),
        ([(jnp.ones((3, 2)),)], "layer 0 of params must be .*; it is a tuple of 1"),
        (
            [(jnp.ones((3, 2)), None), (jnp.ones((3, 2)), None)],
            r"w of layer 1 of params has shape \(3, 2\), and its input has shape \(4, 2\)",
        ),
        ([(None, None)], "w of layer 0 of params is None"),
        (
            [(jnp.ones((3, 2)), jnp.ones(1))],
            r"b of layer 0 of params has shape \(1,\); .* an array of shape \(2,\), or None",
        ),
    ],
)
def test_params_that_do_not_fit_are_named(params, message):
    x = jnp.ones((4, 3))
    for name, f in (("mlp", manual.mlp), ("mlp_loss", lambda p, x: manual.mlp_loss(p, x, x))):
        with pytest.raises(ValueError, match=f"^{name}: {message}"):
            jax.eval_shape(lambda f=f: f(params, x))


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ((), ValueError, "init_mlp: sizes are .*; a net has an input and an output at least"),
        ((3,), ValueError, "init_mlp: sizes are .3,.; a net has an input and an output"),
        ((3, -1), ValueError, "init_mlp: size 1 is -1; it must be 1 or more"),
        ((0, 0), ValueError, "init_mlp: size 0 is 0"),
        ((3, 2.5), TypeError, "init_mlp: size 1 is 2.5; it must be a whole number"),
        (3, TypeError, "init_mlp: sizes are 3; they must be a tuple of whole numbers"),
    ],
)
def test_sizes_that_make_no_net_are_named(sizes, error, message):
    with pytest.raises(error, match=message):
        manual.init_mlp(sizes, key=jax.random.key(0))


def test_a_key_to_begin_with_is_one_key():
    with pytest.raises(TypeError, match=r"^init_mlp: key is 0; it must be a jax.random.key"):
        manual.init_mlp((3, 2), key=0)
    with pytest.raises(ValueError, match=r"^init_mlp: key has shape \(2,\); it must be one key"):
        manual.init_mlp((3, 2), key=jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"activation": "tahn"}, "activation is 'tahn' .did you mean 'tanh'..; it must be one of"),
        ({"output_activation": "sofmax"}, "output_activation is 'sofmax' .did you mean 'softmax'"),
        ({"loss": "mae"}, "loss is 'mae'.*; it must be one of: binary_cross_entropy, "),
        ({"reduction": "none"}, "reduction is 'none'; it must be one of: sum, mean"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(config, message):
    params = [(jnp.ones((3, 2)), None)]
    with pytest.raises(ValueError, match=message):
        manual.mlp_loss(params, jnp.ones((4, 3)), jnp.ones((4, 2)), **config)
