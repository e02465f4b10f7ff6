"""What is no array of real numbers, where one must be, is refused by its argument's name."""

import fractions
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual
from handgrad.manual import op

rng = np.random.default_rng(0)


def some(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def net(*sizes):
    return [(some(n, m), some(m)) for n, m in itertools.pairwise(sizes)]


X, W, V = some(2, 3), some(3, 4), some(3)
SEQUENCE, LABELS = some(2, 3, 4), jnp.array([0, 1])
IMAGES = some(2, 6, 6, 2)
LENET = {"convolutions": [(some(3, 3, 2, 3), some(3))], "dense": net(12, 5, 3)}
FLAT = {"convolutions": [], "dense": net(72, 3)}
VAE = {"encoder": net(3, 4), "decoder": net(2, 3)}
NORM = (some(4), some(4))
GPT = {
    "norm1": NORM, "attention": (*(some(4, 4) for _ in range(4)), *(some(4) for _ in range(4))),
    "norm2": NORM, "up": (some(4, 6), some(6)), "down": (some(6, 4), some(4)),
}  # fmt: skip
LLAMA = {
    "norm1": some(4), "attention": tuple(some(4, 4) for _ in range(4)), "norm2": some(4),
    "gate": some(4, 6), "up": some(4, 6), "down": some(6, 4),
}  # fmt: skip
MODEL = {"table": some(6, 4), "positions": some(5, 4), "blocks": [], "norm": NORM}
TEXT = jnp.zeros((1, 2), int)

# the call, the argument, and something of the right shape for it
FLOATS = {
    "mlp": (lambda x: manual.mlp(net(3, 4, 2), x), "x", X),
    "mlp elu": (lambda x: manual.mlp(net(3, 4, 2), x, activation="elu"), "x", X),
    "mlp_loss": (lambda x: manual.mlp_loss(net(3, 4, 2), x, some(2, 2)), "x", X),
    "lenet_loss": (lambda x: manual.lenet_loss(LENET, x, LABELS), "x", IMAGES),
    "lenet_loss, flat": (lambda x: manual.lenet_loss(FLAT, x, LABELS), "x", IMAGES),
    "vae_loss": (lambda x: manual.vae_loss(VAE, x, some(2, 2)), "x", X),
    "tied_autoencoder": (lambda x: manual.tied_autoencoder(x, W, some(4), V), "x", X),
    "multi_head_attention": (
        lambda c: manual.multi_head_attention(SEQUENCE, c, *GPT["attention"][:4], heads=2),
        "context",
        SEQUENCE,
    ),
    "gpt_block": (lambda x: manual.gpt_block(GPT, x, heads=2), "x", SEQUENCE),
    "llama_block": (lambda x: manual.llama_block(LLAMA, x, heads=2), "x", SEQUENCE),
    "elu": (manual.elu, "x", X),
    "selu": (manual.selu, "x", X),
    "leaky_relu": (manual.leaky_relu, "x", X),
    "dropout": (functools.partial(manual.dropout, key=jax.random.key(0)), "x", X),
    "clip_by_norm": (functools.partial(manual.clip_by_norm, max_norm=1.0), "x", X),
    "embedding": (lambda table: manual.embedding(LABELS, table), "table", X),
}


@pytest.mark.parametrize("inside", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("name", FLOATS)
@jax.numpy_dtype_promotion("standard")
def test_integers_are_not_rounded_to_in_a_part_of_an_operation(name, dtype, inside):
    f, argument, x = FLOATS[name]
    inside(f)(x)
    where = f"^{name.split(',')[0].split()[0]}: {argument} is {dtype}"
    with pytest.raises(TypeError, match=f"{where}(; it must be of|, and must be) floating-point"):
        inside(f)(x.astype(dtype))


@jax.numpy_dtype_promotion("standard")
def test_integers_that_are_data_are_welcome():
    assert jnp.isfinite(manual.mlp_loss(net(3, 4, 2), X, jnp.ones((2, 2), int)))
    assert jnp.isfinite(manual.lenet_loss(LENET, IMAGES, LABELS.astype(jnp.uint8)))
    assert jnp.allclose(manual.tanh(jnp.array([1])), jnp.tanh(1.0))  # not rounded
    with pytest.raises(TypeError, match="elu: x is int32; it must be of floating-point numbers"):
        manual.elu(-1)


@jax.numpy_dtype_promotion("standard")
def test_an_operation_of_operations_names_its_own_argument():
    @op
    def halved(x, y):
        return manual.dropout.forward(x + 0 * y, key=jax.random.key(0))[0], None

    @op
    def through(x, y):
        return manual.affine.forward(y, W)[0] * 0.5, None

    with pytest.raises(TypeError, match=r"^through: y is int32; it must be of floating-point"):
        through(jnp.arange(2), jnp.ones((2, 3), int))
    with pytest.raises(TypeError, match=r"^halved: x is int32; it must be of floating-point"):
        halved(jnp.arange(3), jnp.arange(3))
    with pytest.raises(ValueError, match=r"^through: affine: x has shape \(2, 5\) and w"):
        through(V, some(2, 5))


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(
    ("given", "came"),
    [
        ("abc", "is a str"),
        ({1}, "is a set"),
        (np.array([[1, 2]], object), "is an array of object"),
        (np.array([["a", "b"]]), "is an array of <U1"),
        (["a"], "holds a str"),
        (jax.random.key(0), r"is a random key \(dtype key<fry>\)"),
        ([jax.random.key(0)], r"holds a random key \(dtype key<fry>\)"),
    ],
)
def test_what_holds_no_numbers_is_named(name, given, came):
    f, argument, _ = FLOATS[name]
    where = f"^{name.split(',')[0].split()[0]}: {argument} {came}; it must"
    for call in (f, jax.jit(lambda: f(given))):
        with pytest.raises(TypeError, match=where):
            call(*(() if call is not f else (given,)))


@pytest.mark.parametrize("inside", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda one: manual.affine([[1.0, 2.0]], W[:2] * one),
            "affine: x is a list; it must be",
        ),
        (lambda one: manual.mse(one * V, [1.0, 2.0, 3.0]), "mse: targets is a list"),
        (lambda one: manual.hinge(one * V, [1.0, 1.0, 1.0]), "hinge: labels is a list"),
        (lambda one: manual.gelu([one]), "gelu: x is a list"),
        (lambda one: manual.identity([one]), "identity: x is a list"),
        (lambda one: manual.identity(None), "identity: x is None; it must be an array"),
        (
            lambda one: manual.embedding(LABELS, [[one]]),
            "embedding: table is a list of 1",
        ),
        (lambda one: manual.mlp(net(2, 3), [[1.0, one]]), "mlp: x is a list"),
        (lambda one: manual.mlp_loss(net(3, 3), one * X, None), "mlp_loss: targets is None"),
        (lambda one: manual.lenet_loss(LENET, {"a": IMAGES}, LABELS), "lenet_loss: x is a dict"),
        (lambda one: manual.lenet_loss(LENET, IMAGES, {"a": 1.0}), "lenet_loss: labels is a dict"),
        (lambda one: manual.vae_loss(VAE, X, [one * X]), "vae_loss: noise is a list"),
        (lambda one: manual.gpt_block(GPT, {"a": 1.0}, heads=2), "gpt_block: x is a dict"),
        (
            lambda one: manual.llama_block(LLAMA, [one * SEQUENCE], heads=2),
            "llama_block: x is a list",
        ),
        (lambda one: manual.clip_by_norm(None, max_norm=1.0), "clip_by_norm: x is None"),
    ],
)
def test_a_tree_in_the_place_of_an_array_is_named(call, message, inside):
    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        inside(call)(1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: manual.rnn(SEQUENCE, some(2, 5), some(4, 5), some(5, 5), [0.0] * 5),
            r"rnn: b is a list of 5; with x of shape .* it must be \(5,\)",
        ),
        (
            lambda: manual.lstm(
                SEQUENCE, *[some(2, 1)] * 2, some(4, 4), some(1, 4), some(4), [[0.0]] * 3
            ),
            r"lstm: peepholes is a list of 3; with x of shape .* it must be \(3, 1\)",
        ),
        (
            lambda: manual.gru_reset_after(
                SEQUENCE, some(2, 1), some(4, 3), some(1, 3), some(3), [0.0]
            ),
            r"gru_reset_after: bn is a list of 1; with x of shape .* it must be \(1,\)",
        ),
        *(
            (
                lambda given=given: manual.gpt_loss(
                    MODEL | {"positions": given}, TEXT, TEXT, heads=2
                ),
                f"gpt_loss: positions {came}; with tokens of shape",
            )
            for given, came in (
                (None, "is None"),
                ((some(5, 4),), "is a tuple of 1"),
                ([[0.0] * 4] * 5, "is a list of 5"),
                (some(1, 4), r"have shape \(1, 4\)"),
            )
        ),
        (
            lambda: manual.mlp_loss(
                net(2, 3), some(4, 2), some(3, 3), output_activation="softmax",
                loss="categorical_cross_entropy",
            ),
            "mlp_loss: the loss, by the output of the net and the targets: softmax_cross_entropy: ",
        ),
        (
            lambda: manual.average_pool(SEQUENCE, window=2, stride=10**30),
            "average_pool: stride is 10+; it must be below 2⁶³",
        ),
        (
            lambda: manual.attention(X, X, X, scale=10**400),
            "attention: scale is 10+; it must be a number that a float holds",
        ),
        (
            lambda: manual.clip_by_value(X, low=0, high=10**30),
            "clip_by_value: high is 10+; no array can hold it",
        ),
        (
            lambda: manual.gpt_loss(MODEL, TEXT, TEXT, heads=0),
            "gpt_loss: heads is 0; it must be 1 or more",
        ),
        (lambda: manual.log_softmax(X[:, :0]), r"log_softmax: x has shape \(2, 0\); it must have"),
        (
            lambda: manual.info_nce(X[:0], X[:0]),
            r"info_nce: queries and keys have shape \(0, 3\); .* of one sample at least",
        ),
        *(
            (
                lambda f=f, labels=labels: getattr(manual, f)(jnp.ones((2, 0)), labels),
                rf"{f}: \w+ has shape \(2, 0\); there must be at least one class",
            )
            for f, labels in (
                ("softmax_cross_entropy", jnp.ones((2, 0))),
                ("kl_divergence_with_logits", jnp.ones((2, 0))),
                ("softmax_cross_entropy_with_integer_labels", LABELS),
                ("label_smoothing_cross_entropy", LABELS),
                ("multiclass_hinge", LABELS),
            )
        ),
        (
            lambda: manual.dropout(X, key=jax.random.split(jax.random.key(0), 3)),
            r"dropout: key has shape \(3,\); it must be one key: take jax.vmap",
        ),
        *(
            (
                lambda kind=kind: manual.sinusoidal_positions(X[:, :2], offset=kind("inf")),
                "sinusoidal_positions: offset is inf; it must be finite",
            )
            for kind in (float, np.float32)
        ),
    ],
)  # fmt: skip
def test_a_wrong_shape_or_size_is_a_value_error(call, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (
                lambda key=key: manual.dropout(X, key=key),
                f"dropout: key is {came}; it must be a jax",
            )
            for key, came in ((3, "3"), ("a", "'a'"), (jnp.ones(2), "an array of float32"))
        ),
        *(
            (
                lambda mask=mask: manual.attention(X, X, X, mask=mask),
                f"attention: mask is {mask!r}; it must be a boolean array",
            )
            for mask in ("causal", 10**30)
        ),
        *(
            (lambda f=f, option=option: f(option), message)
            for f, name in (
                (lambda eps: manual.layer_norm(X, eps=eps), "layer_norm: eps"),
                (lambda delta: manual.huber(X, X, delta=delta), "huber: delta"),
                (lambda s: manual.leaky_relu(X, negative_slope=s), "leaky_relu: negative_slope"),
                (lambda scale: manual.attention(X, X, X, scale=scale), "attention: scale"),
                (lambda rate: manual.dropout(X, key=jax.random.key(0), rate=rate), "dropout: rate"),
            )
            for option, message in (
                (np.True_, f"{name} is np.True_; it must be a number"),
                (jnp.array(True), f"{name} is .*; it must be a number"),
                (np.complex64(1 + 2j), rf"{name} is np.complex64\(1\+2j\); it must be a number"),
                (fractions.Fraction(1, 2), rf"{name} is Fraction\(1, 2\); it must be a number"),
            )
        ),
    ],
)
def test_an_option_of_the_wrong_kind_is_a_type_error(call, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        call()


@pytest.mark.parametrize(
    ("f", "option"),
    [
        (manual.leaky_relu, "negative_slope"),
        (manual.elu, "alpha"),
        (manual.l2_penalty, "strength"),
        (functools.partial(manual.multiclass_hinge, X, LABELS), "margin"),
        (functools.partial(manual.elbo, X, X, X, X), "beta"),
        (functools.partial(manual.binary_cross_entropy_with_logits, X, X), "pos_weight"),
    ],
)
def test_nan_is_no_option(f, option):
    args = () if isinstance(f, functools.partial) else (X,)
    with pytest.raises(ValueError, match=f": {option} is nan; it must be a number"):
        f(*args, **{option: float("nan")})


def test_options_that_are_numbers_of_some_size():
    with pytest.raises(ValueError, match=r"pos_weight is -1\.0; it must be 0 or more"):
        manual.binary_cross_entropy_with_logits(X, X, pos_weight=-1.0)
    assert jnp.abs(manual.layer_norm(X, eps=10**30)).max() < 1e-14
    assert jnp.isfinite(manual.attention(X, X, X, scale=10**20)).all()


@pytest.mark.parametrize("inside", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_array_is_no_name(inside):
    with pytest.raises(ValueError, match=r"^mlp: activation is .*; it must be one of: elu, gelu"):
        inside(lambda x: manual.mlp(net(3, 2), x, activation=np.ones(1)))(X)
    for option in ("output_activation", "loss"):
        with pytest.raises(ValueError, match=f"^mlp_loss: {option} is .*; it must be one of: "):
            inside(lambda x: manual.mlp_loss(net(3, 3), x, x, **{option: np.ones(1)}))(X)  # noqa: B023
    with pytest.raises(ValueError, match=r"^recurrence: cell is .*; it must be one of: tanh, relu"):
        inside(lambda x: manual.recurrence(x, (), (), cell=np.ones(1)))(SEQUENCE)
    with pytest.raises(ValueError, match=r"^rnn: activation is .*; it must be one of: tanh, relu"):
        inside(lambda x: manual.rnn(x, *[V] * 4, activation=np.ones(1)))(SEQUENCE)
