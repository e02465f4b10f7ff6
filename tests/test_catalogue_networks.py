"""Whole networks: one call for the loss and all gradients, and training with these alone."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.compare.cases import load


def language_model(cell="lstm", characters=5, hidden=4, gates=4, dtype=jnp.float32):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(0.5 * rng.standard_normal(shape), dtype)

    layer = draw(3, gates * hidden), draw(hidden, gates * hidden), draw(gates * hidden)
    params = {
        "table": draw(characters, 3),
        "layers": [layer],
        "w": draw(hidden, characters),
        "b": draw(characters),
    }
    state = (jnp.zeros((2, hidden), dtype),) * (2 if cell == "lstm" else 1)
    text = jnp.asarray(rng.integers(0, characters, (2, 7)))
    return params, [state], text[:, :-1], text[:, 1:]


def autoencoder(dtype=jnp.float32):
    rng = np.random.default_rng(1)

    def layers(*sizes):
        return [
            (jnp.asarray(rng.standard_normal((n, m)) / n**0.5, dtype), jnp.zeros(m, dtype))
            for n, m in itertools.pairwise(sizes)
        ]

    params = {"encoder": layers(6, 5, 4), "decoder": layers(2, 5, 6)}
    return params, *(jnp.asarray(a, dtype) for a in (rng.random((3, 6)), rng.random((3, 2))))


def from_cases(name):
    """The parameters of a sample of `compare.cases` as arrays, each block twice."""
    case = next(c for c in load() if c.function == name)

    def make(dtype=jnp.float32):
        args = case.draw(3)
        if "blocks" in args[0]:
            args[0]["blocks"] *= 2

        def leaf(a):
            return jnp.asarray(a, dtype if a.dtype == np.float64 else None)

        return jax.tree.map(leaf, args)

    return make, case.config


NETWORKS = {
    "recurrent_lm_loss": (language_model, {}),
    "vae_loss": (autoencoder, {}),
    **{name: from_cases(name) for name in ("gpt_loss", "llama_loss", "lenet_loss")},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_training_by_hand_is_training_by_autodiff(name):
    """Twenty steps of gradient descent: the same losses within rounding, and they fall."""
    with jax.enable_x64(True):
        make, config = NETWORKS[name]
        params, *rest = make(dtype=jnp.float64)
        by_hand = functools.partial(getattr(manual, name).value_and_gradient, **config)
        plain = functools.partial(getattr(reference, name), **config)

        @jax.jit
        def train(params):
            def step(both, _):
                ours, theirs = both
                loss, (gradient, *_) = by_hand(ours, *rest)
                expected, autodiff = jax.value_and_grad(plain)(theirs, *rest)
                ours = jax.tree.map(lambda p, g: p - 0.1 * g, ours, gradient)
                theirs = jax.tree.map(lambda p, g: p - 0.1 * g, theirs, autodiff)
                return (ours, theirs), (loss, expected)

            return jax.lax.scan(step, (params, params), None, 20)[1]

        losses, expected = map(np.asarray, train(params))
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    assert losses[-1] < 0.98 * losses[0]


@pytest.mark.sweep(3)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_have_the_dtype_of_the_parameters(name, dtype):
    make, config = NETWORKS[name]
    by_hand = functools.partial(getattr(manual, name).value_and_gradient, **config)
    loss, gradients = jax.jit(by_hand)(*make(dtype=dtype))
    for leaf in jax.tree.leaves((loss, gradients)):
        assert leaf.dtype == dtype
        assert np.isfinite(np.asarray(leaf, np.float32)).all()


def test_a_character_that_does_not_occur_has_no_gradient():
    params, states, tokens, targets = language_model()
    _, (gradient, *_) = jax.jit(manual.recurrent_lm_loss.value_and_gradient)(
        params, states, jnp.minimum(tokens, 3), targets
    )
    assert not gradient["table"][4].any()
    assert gradient["table"][:4].any(1).all()


@pytest.mark.parametrize("part", ["table", "layers", "w", "b"])
def test_a_missing_part_is_named(part):
    params, *rest = language_model()
    del params[part]
    expected = "params must be a dictionary of table, layers, w, b; there came the keys"
    with pytest.raises(ValueError, match=expected):
        manual.recurrent_lm_loss(params, *rest)
    vae, *rest = autoencoder()
    with pytest.raises(ValueError, match="a dictionary of encoder, decoder; there came the keys"):
        manual.vae_loss(vae | {"middle": []}, *rest)


def test_what_does_not_fit_is_named():
    params, states, tokens, targets = language_model()
    call = functools.partial(manual.recurrent_lm_loss, params, states)
    with pytest.raises(TypeError, match="tokens are float32, and must be integers"):
        call(tokens.astype(jnp.float32), targets)
    with pytest.raises(ValueError, match=r"tokens have shape \(2, 6\) and targets \(2, 5\); both"):
        call(tokens, targets[:, 1:])
    with pytest.raises(ValueError, match=r"\(batch, time\) with at least one step of time"):
        call(tokens[:, :0], targets[:, :0])
    vae, x, noise = autoencoder()
    with pytest.raises(ValueError, match=r"noise \(3, 1\) and what the encoder gives \(3, 4\)"):
        manual.vae_loss(vae, x, noise[:, :1])


@pytest.mark.parametrize(
    ("name", "part", "expected"),
    [
        ("gpt_loss", "positions", "gpt_loss: params must be a dictionary of table, positions, blo"),
        (
            "llama_loss",
            "head",
            "llama_loss: params must be a dictionary of table, blocks, norm, head",
        ),
        ("lenet_loss", "dense", "lenet_loss: params must be a dictionary of convolutions, dense"),
    ],
)
def test_a_missing_part_of_the_other_networks_is_named(name, part, expected):
    make, config = NETWORKS[name]
    params, *rest = make()
    del params[part]
    with pytest.raises(ValueError, match=expected):
        getattr(manual, name)(params, *rest, **config)


def test_parts_of_transformers_and_cnns_that_do_not_fit_are_named():
    params, tokens, targets = NETWORKS["gpt_loss"][0]()
    short = params | {"positions": params["positions"][:3]}
    with pytest.raises(ValueError, match=r"positions have shape \(3, 6\); .* at least \(4, 6\)"):
        manual.gpt_loss(short, tokens, targets, heads=2)
    with pytest.raises(ValueError, match="columns must be a multiple of the 5 heads"):
        manual.gpt_loss(params, tokens, targets, heads=5)
    del params["blocks"][0]["up"]
    with pytest.raises(ValueError, match="gpt_block: params must be a dictionary of norm1, att"):
        manual.gpt_loss(params, tokens, targets, heads=2)
    llama, *text = NETWORKS["llama_loss"][0]()
    llama["blocks"][0]["attention"] = llama["blocks"][0]["attention"][:3]
    with pytest.raises(
        ValueError, match=r"llama_block: attention must be a tuple \(wq, wk, wv, wo\)"
    ):
        manual.llama_loss(llama, *text, heads=4)
    lenet, x, labels = NETWORKS["lenet_loss"][0]()
    kernel, b = lenet["convolutions"][0]
    lenet["convolutions"][0] = kernel, b[:1]
    with pytest.raises(ValueError, match=r"lenet_loss: b has shape \(1,\); it must be \(2,\)"):
        manual.lenet_loss(lenet, x, labels)
    with pytest.raises(ValueError, match=r"x must be \(batch, \*space, in\)|kernel must be"):
        manual.lenet_loss(lenet, x[0], labels)


def test_the_attention_of_the_blocks_does_not_see_the_future():
    """The gradient of the first place's output reaches the first place alone."""
    for name in ("gpt_block", "llama_block"):
        make, config = from_cases(name)
        params, x = make()
        f = getattr(manual, name)
        dx = jax.jit(jax.grad(lambda x, f=f, p=params, c=config: f(p, x, **c)[:, 0].sum()))(x)
        assert dx[:, 0].any()
        assert not dx[:, 1:].any()


def test_a_table_used_twice_has_the_gradient_of_both_uses():
    params, tokens, targets = NETWORKS["gpt_loss"][0]()
    by_hand = functools.partial(manual.gpt_loss.value_and_gradient, heads=2)
    _, (gradient, *_) = jax.jit(by_hand)(params, jnp.zeros_like(tokens), targets)
    assert gradient["table"].any(1).all()  # not only row 0: the others are possible outputs
