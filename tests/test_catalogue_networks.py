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
    with pytest.raises(ValueError, match=r"its input has shape \(8, 9, 1\); they must be"):
        manual.lenet_loss(lenet, x[0], labels)


X = functools.partial(jnp.ones, dtype=jnp.float32)
W, B = X((6, 6)), X(6)
GPT = {"norm1": (B, B), "attention": (W, W, W, W, B, None, B, None), "norm2": (B, B),
       "up": (X((6, 5)), X(5)), "down": (X((5, 6)), None)}  # fmt: skip
V, S = X((8, 8)), X((8, 2))
LLAMA = {"norm1": X(8), "attention": (V, S, S, V), "norm2": X(8), "gate": X((8, 5)),
         "up": X((8, 5)), "down": X((5, 8))}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"norm1": B}, r"norm1 must be a tuple \(γ, β\); it has shape \(6,\)"),
        ({"norm2": [B, B]}, r"norm2 must be a tuple \(γ, β\); it is a list of 2"),
        ({"norm2": (B, X(1))}, r"β of norm2 has shape \(1,\); .* an array of shape \(6,\)"),
        ({"attention": (W,) * 4}, "attention must be a tuple .*, bo.; it is a tuple of 4"),
        ({"attention": [W] * 8}, "attention must be a tuple .*, bo.; it is a list of 8"),
        ({"attention": (W, W, W, X((6, 1)), *[None] * 4)}, r"wo has shape \(6, 1\); .*\(6, 6\)"),
        ({"attention": (W, X((5, 6)), W, W, *[None] * 4)}, r"wk has shape \(5, 6\); .*\(6, 6\)"),
        ({"attention": (W, W, W, W, X(1), *[None] * 3)}, r"bq has shape \(1,\); .*, or None"),
        ({"up": [W, B]}, r"up must be a tuple \(w, b\); it is a list of 2"),
        ({"up": (W, B, B)}, r"up must be a tuple \(w, b\); it is a tuple of 3"),
        ({"up": (B, B)}, r"w of up has shape \(6,\); it must be a matrix"),
        ({"down": (X((5, 1)), None)}, r"w of down has shape \(5, 1\); .* of shape \(5, 6\)"),
        ({"down": (X((5, 6)), X(1))}, r"b of down has shape \(1,\); .*\(6,\), or None"),
        ({"heads": 5}, r"wq has shape \(6, 6\); its columns must be a multiple of the 5 heads"),
        ({"heads": 2.0}, "heads is 2.0; it must be a whole number"),
        ({"x": X((4, 6))}, r"x has shape \(4, 6\); it must be \(batch, time, model\)"),
        ({"x": X((2, 0, 6))}, "x .* with at least one step of time"),
    ],
)
def test_what_does_not_fit_a_gpt_block_is_named(wrong, message):
    given = {"x": X((2, 4, 6)), "heads": 2, **GPT, **wrong}
    x, heads = given.pop("x"), given.pop("heads")
    with pytest.raises((ValueError, TypeError), match=f"^gpt_block: {message}"):
        jax.eval_shape(functools.partial(manual.gpt_block, heads=heads), given, x)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, r"wq has shape \(8, 8\); its columns must be a multiple of the 3 heads"),
        ({"heads": 16}, "wq .* a multiple of the 16 heads"),
        ({"heads": 0}, "heads is 0; it must be 1 or more"),
        ({"heads": -2}, "heads is -2; it must be 1 or more"),
        ({"heads": "2"}, "heads is '2'; it must be a whole number"),
        ({"heads": None}, "heads is None; it must be a whole number"),
        ({"heads": 8}, "wq has shape .*; its 8 heads are of width 1, and must be of an even one"),
        ({"attention": (X((8, 9)), S, S, V)}, r"wq has shape \(8, 9\); its columns"),
        ({"attention": (V, X((8, 3)), X((8, 3)), V)}, r"wk has shape \(8, 3\) and wv \(8, 3\)"),
        ({"attention": (V, S, X((8, 6)), V)}, r"wv has shape \(8, 6\); .* of shape \(8, 2\)"),
        ({"attention": (V, S, S, X((8, 1)))}, r"wo has shape \(8, 1\); .* of shape \(8, 8\)"),
        ({"attention": [V, S, S, V]}, r"attention must be a tuple .*; it is a list of 4"),
        ({"down": X((5, 1))}, r"down has shape \(5, 1\); .* of shape \(5, 8\)"),
        ({"gate": (X((8, 5)), X(5))}, "gate is a tuple of 2; it must be a matrix"),
        ({"norm1": (X(8),)}, r"norm1 is a tuple of 1; .* an array of shape \(8,\)"),
        ({"x": X((4, 8))}, r"x has shape \(4, 8\); it must be \(batch, time, model\)"),
    ],
)
def test_what_does_not_fit_a_llama_block_is_named(wrong, message):
    given = {"x": X((2, 4, 8)), "heads": 4, **LLAMA, **wrong}
    x, heads = given.pop("x"), given.pop("heads")
    with pytest.raises((ValueError, TypeError), match=f"^llama_block: {message}"):
        jax.eval_shape(functools.partial(manual.llama_block, heads=heads), given, x)


@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        (
            "gpt_loss",
            {"blocks": (GPT,)},
            "blocks must be a list of what gpt_block takes; it is a",
        ),
        ("gpt_loss", {"blocks": GPT}, "blocks must be a list .*; it is a dict of 5"),
        ("gpt_loss", {"norm": [B, B]}, r"norm must be a tuple \(γ, β\); it is a list of 2"),
        ("gpt_loss", {"norm": (B, X(1))}, r"β of norm has shape \(1,\); with a table of shape"),
        ("gpt_loss", {"table": B}, r"table has shape \(6,\); it must be a matrix"),
        ("llama_loss", {"blocks": LLAMA}, "blocks must be a list .*; it is a dict of 6"),
        ("llama_loss", {"head": X((8, 7))}, r"head has shape \(8, 7\); .*shape \(8, 5\)"),
        ("llama_loss", {"norm": (X(8),)}, "norm is a tuple of 1; with a table of shape"),
        ("lenet_loss", {"convolutions": ()}, "convolutions must be a list .*; it is a tuple of 0"),
        ("lenet_loss", {"convolutions": [W]}, r"convolution 0 must be a tuple \(kernel, b\); it h"),
        ("lenet_loss", {"convolutions": [[W, B]]}, "convolution 0 must be .*; it is a list of 2"),
        (
            "lenet_loss",
            {"convolutions": [(X((2, 2, 1, 2)), X(1))]},
            r"b of convolution 0 has shape \(1,\); with a kernel of .* an array of shape \(2,\)",
        ),
        (
            "lenet_loss",
            {"dense": [(W, B)]},
            r"w of layer 0 of dense has shape \(6, 6\), and",
        ),
        ("recurrent_lm_loss", {"table": X((4, 3))}, r"w has shape \(4, 5\); .* shape \(4, 4\)"),
        ("recurrent_lm_loss", {"b": X(1)}, r"b has shape \(1,\); .* shape \(5,\), or None"),
        (
            "recurrent_lm_loss",
            {"layers": [(W, W, B)]},
            r"stacked: layer 0: recurrence: wx has shape \(6, 6\)",
        ),
        ("recurrent_lm_loss", {"layers": ()}, "layers must be a list .*; it is a tuple of 0"),
        ("vae_loss", {"encoder": [(B, B)]}, r"w of layer 0 of encoder has shape \(6,\)"),
        (
            "vae_loss",
            {"decoder": [(X((3, 6)), None)]},
            r"w of layer 0 of decoder has shape",
        ),
    ],
)
def test_what_does_not_fit_a_network_is_named(name, wrong, message):
    make, config = NETWORKS[name]
    params, *rest = make()
    with pytest.raises(ValueError, match=f"^{name}: {message}"):
        jax.eval_shape(functools.partial(getattr(manual, name), **config), params | wrong, *rest)


def test_arguments_in_the_place_of_others_are_named():
    params, states, tokens, targets = language_model()
    f = manual.recurrent_lm_loss
    for args, message in (
        ((tokens, states, targets), "tokens is a list of 1, and must be an array of integers"),
        ((states, tokens, states), "targets is a list of 1, and must be an array of integers"),
        (
            (states, tokens, targets.astype(jnp.float32)),
            "targets are float32, and must be integers",
        ),
    ):
        with pytest.raises(TypeError, match=f"^recurrent_lm_loss: {message}"):
            jax.eval_shape(f, params, *args)
    with pytest.raises(ValueError, match=r"^recurrent_lm_loss: states must be a list"):
        jax.eval_shape(f, params, tokens, tokens, targets)
    vae, x, noise = autoencoder()
    with pytest.raises(ValueError, match=r"noise \(\) and what the encoder gives \(3, 4\)"):
        jax.eval_shape(manual.vae_loss, vae, x, noise[0, 0])


@pytest.mark.parametrize("name", ["gpt_block", "llama_block", *NETWORKS])
def test_an_empty_batch_moves_nothing(name):
    """A mean over nothing is NaN, as that of `jnp.mean`, and its gradient 0."""
    make, config = NETWORKS[name] if name in NETWORKS else from_cases(name)
    params, *rest = make()
    rest = jax.tree.map(lambda a: a[:0], rest)
    f = functools.partial(getattr(manual, name), **config)

    @jax.jit
    def run(params):
        y, vjp = jax.vjp(lambda params: f(params, *rest), params)
        return y, vjp(jnp.ones_like(y))[0]

    y, gradient = run(params)
    if name.endswith("block"):
        assert y.shape == rest[0].shape
    else:
        assert np.isnan(y)
    jax.tree.map(lambda g, p: np.testing.assert_array_equal(g, jnp.zeros_like(p)), gradient, params)


def test_heads_may_be_an_integer_of_numpy():
    for name in ("gpt_block", "llama_block"):
        make, config = from_cases(name)
        params, x = make()
        config = {"heads": np.int64(config["heads"])}
        f = functools.partial(getattr(manual, name), **config)
        assert jax.eval_shape(jax.grad(lambda x, f=f, p=params: f(p, x).sum()), x).shape == x.shape


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
