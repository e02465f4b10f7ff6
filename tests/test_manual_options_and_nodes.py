"""Options given as arrays, messages with both shapes, and operations as nodes of a graph."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.manual import descent, graph, hypergradients
from handgrad.manual.graph import Node, gradients

RNG = np.random.default_rng(0)


def numbers(*shape, dtype=jnp.float32):
    return jnp.asarray(RNG.standard_normal(shape), dtype)


OF_HEADS = numbers(4, 4)


# --- an option may be an array of another dtype --------------------------------------------------


@pytest.mark.parametrize(
    ("f", "options"),
    [
        (manual.soft_threshold, {"threshold": 0.25}),
        (manual.clip_by_value, {"low": -0.5, "high": 0.75}),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("kind", [np.float32, jnp.float32, np.float64])
@jax.numpy_dtype_promotion("standard")
def test_the_result_has_the_dtype_of_the_argument_and_not_of_an_option(f, options, dtype, kind):
    x = numbers(3, 4, dtype=dtype)
    expected = f(x, **options)
    for way in (lambda f: f, jax.jit):
        found = way(f)(x, **{name: kind(value) for name, value in options.items()})
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)


def test_a_threshold_that_float16_cannot_hold():
    """Which float16 rounds to 0.3000488: an entry of that size is longer by what it is off by."""
    w = jnp.array([0.3, -0.3, 0.2, 1.0], jnp.float16)
    truth = manual.soft_threshold(w.astype(jnp.float32), threshold=0.3)
    found = manual.soft_threshold(w, threshold=0.3)
    np.testing.assert_array_equal(found, truth.astype(jnp.float16))


def test_the_axis_of_a_softmax_as_an_array():
    x = numbers(2, 3)
    found, expected = (
        jax.grad(lambda x, k=k: (manual.softmax(x, axis=k) ** 2).sum())(x)
        for k in (jnp.array(0), 0)
    )
    np.testing.assert_array_equal(found, expected)


GPT = {
    "norm1": (numbers(4), numbers(4)), "norm2": (numbers(4), numbers(4)),
    "attention": (*[numbers(4, 4)] * 4, *[numbers(4)] * 4),
    "up": (numbers(4, 6), numbers(6)), "down": (numbers(6, 4), numbers(4)),
}  # fmt: skip
LLAMA = {
    "norm1": numbers(4), "norm2": numbers(4), "attention": tuple([numbers(4, 4)] * 4),
    "gate": numbers(4, 6), "up": numbers(4, 6), "down": numbers(6, 4),
}  # fmt: skip
TEXT = jnp.array([[0, 1, 2]]), jnp.array([[1, 2, 3]])
TABLE, LABELS = numbers(5, 4), jnp.array([1, 2, 3])
BLOCKS = {
    "gpt_loss": {"positions": numbers(3, 4), "blocks": [GPT], "norm": GPT["norm1"]},
    "llama_loss": {"blocks": [LLAMA], "norm": LLAMA["norm1"], "head": numbers(4, 5)},
    "recurrent_lm_loss": {
        "layers": [(numbers(4, 3), numbers(3, 3), numbers(3))], "w": numbers(3, 5), "b": numbers(5)
    },
}  # fmt: skip


def model(name):
    """Of its table, which is the first of its parameters."""
    states = ([(jnp.ones((1, 3)),)],) if name == "recurrent_lm_loss" else ()
    cell = {"cell": "tanh"} if states else {"heads": 2}

    def loss(table, **config):
        params = {"table": table} | BLOCKS[name]
        return getattr(manual, name)(params, *states, *TEXT, **(cell | config))

    return loss


@pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    ("f", "x", "options"),
    [
        (manual.group_norm, numbers(2, 3, 4), {"groups": 2}),
        (
            lambda x, **heads: manual.multi_head_attention(x, x, *[OF_HEADS] * 4, **heads),
            numbers(2, 3, 4),
            {"heads": 2},
        ),
        (lambda x, heads: manual.gpt_block(GPT, x, heads=heads), numbers(2, 3, 4), {"heads": 2}),
        (model("gpt_loss"), TABLE, {"heads": 2}),
        (model("llama_loss"), TABLE, {"heads": 2}),
        *((model(name), TABLE, {"ignore_index": 2}) for name in BLOCKS),
        (
            lambda x, ignore_index: manual.linear_softmax_cross_entropy(
                x, TABLE.T, None, LABELS, ignore_index=ignore_index
            ),
            numbers(3, 4),
            {"ignore_index": 2},
        ),
    ],
    ids=[
        "group_norm", "multi_head_attention", "gpt_block", "gpt_loss", "llama_loss",
        *(f"ignored by {name}" for name in BLOCKS), "ignored by linear_softmax_cross_entropy",
    ],
)  # fmt: skip
def test_a_whole_number_may_be_an_array(f, x, options, way):
    def gradient(options):
        return way(jax.value_and_grad(lambda x: (f(x, **options) ** 2).sum()))(x)

    expected = gradient(options)
    for kind in (jnp.array, np.array, np.int64):
        found = gradient({name: kind(n) for name, n in options.items()})
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("kind", [np.int64, np.int32, jnp.array], ids=["int64", "int32", "array"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv", {"stride": 2, "padding": 1, "dilation": 2, "groups": 2}),
        ("conv_transpose", {"stride": 3, "padding": 1, "output_padding": 1, "groups": 2}),
        ("max_pool", {"window": 3, "stride": 2, "padding": 1}),
        ("average_pool", {"window": 2, "padding": 1}),
    ],
)
def test_both_rooms_take_whole_numbers_of_any_kind(name, options, kind):
    x = numbers(2, 9, 4), *([numbers(3, 2, 4)] if "conv" in name else [])
    expected = getattr(reference, name)(*x, **options)
    for room in (manual, reference):
        found = getattr(room, name)(*x, **{k: kind(n) for k, n in options.items()})
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_both_rooms_take_positions_in_a_tuple():
    x = numbers(3, 4)
    for room in (manual, reference):
        found = room.rotary(x, positions=(0, 1, 2))
        np.testing.assert_allclose(found, manual.rotary(x), rtol=1e-5, atol=1e-6)


LENET = {"convolutions": [(numbers(3, 3, 2, 4), numbers(4))], "dense": [(numbers(16, 5), None)]}


@pytest.mark.parametrize("room", [manual, reference], ids=["manual", "reference"])
def test_both_rooms_take_a_batch_of_nothing(room):
    def shape(f, *args, **config):
        return getattr(room, f)(*args, **config).shape

    assert shape("group_norm", numbers(0, 3, 4), groups=2) == (0, 3, 4)
    assert shape("llama_block", LLAMA, numbers(0, 3, 4), heads=2) == (0, 3, 4)
    none = jnp.zeros((0, 3), int)
    llama = {"table": TABLE} | BLOCKS["llama_loss"]
    assert shape("llama_loss", llama, none, none, heads=2) == ()
    assert shape("lenet_loss", LENET, numbers(0, 6, 6, 2), jnp.zeros(0, int)) == ()


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (jnp.array([1.0, -2.0, 3.0]), ValueError, "pos_weight is [ 1. -2.  3.]; none of it may"),
        (np.array([1.0, np.nan, 3.0]), ValueError, "none of it may be below 0"),
        (jnp.ones(3, complex), TypeError, "pos_weight is complex64; it must be of numbers"),
        (np.array(["a", "b", "c"]), TypeError, "pos_weight is <U1; it must be of numbers"),
        (jnp.ones(3, bool), TypeError, "pos_weight is bool; it must be of numbers"),
    ],
)
def test_weights_of_the_positive_labels_are_numbers_from_zero_on(weights, error, message):
    x = numbers(2, 3)
    with pytest.raises(error, match=re.escape(message)):
        manual.binary_cross_entropy_with_logits(x, x, pos_weight=weights)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_slopes_that_are_kept_in_float32_do_not_widen_the_result(dtype):
    """As with the weights of all other layers; with no promotion of dtypes either."""
    x, alpha = numbers(3, 4, dtype=dtype), numbers(4)
    y, vjp = jax.vjp(manual.prelu, x, alpha)
    assert y.dtype == dtype
    assert [d.dtype for d in vjp(y)] == [dtype, jnp.float32]
    wide, wide_vjp = jax.vjp(manual.prelu, x.astype(jnp.float32), alpha)
    np.testing.assert_array_equal(y, wide.astype(dtype))
    np.testing.assert_allclose(vjp(y)[1], wide_vjp(y.astype(jnp.float32))[1], rtol=1e-6)


HYPERGRADIENTS = [getattr(hypergradients, name) for name in hypergradients.__all__]


@pytest.mark.parametrize("f", HYPERGRADIENTS)
def test_a_learning_rate_is_one_number_and_takes_the_dtype_of_the_parameters(f):
    objective, start = descent.quadratic(jnp.array([1.0, 2.0])), jnp.ones(2)
    expected = f(objective, start, 0.1, steps=3)
    with jax.enable_x64(True):
        for rate in (np.float64(0.1), jnp.asarray(0.1, jnp.float64)):
            found = f(objective, start, rate, steps=3)
            assert [a.dtype for a in found] == [jnp.float32] * 2
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(ValueError, match=rf"{f.__name__}: learning_rate has shape \(2,\); it mu"):
        f(objective, start, jnp.array([0.1, 0.2]), steps=3)
    with pytest.raises(TypeError, match=f"{f.__name__}: params are int32, and must be floating"):
        f(objective, jnp.ones(2, int), 0.1, steps=3)


@pytest.mark.parametrize("size", [1.0, True, "2"])
def test_a_batch_size_is_a_whole_number(size):
    with pytest.raises(TypeError, match=f"epochs_of_batches: batch_size is {size!r}; it must be a"):
        descent.epochs_of_batches(4, size, 1, key=jax.random.key(0))


# --- what does not fit is named with the shapes of both ------------------------------------------


@pytest.mark.parametrize("f", [manual.conv, manual.conv_transpose])
@pytest.mark.parametrize(
    ("x", "kernel"),
    [((2, 5, 6, 4), (3, 2, 3, 7)), ((1, 2, 5, 6, 3), (3, 2, 3, 4)), ((5, 6, 3), (3, 2, 3, 4))],
)
def test_channels_and_axes_that_do_not_fit(f, x, kernel):
    with pytest.raises(ValueError, match=f"^{f.__name__}: ") as raised:
        f(jnp.zeros(x), jnp.zeros(kernel))
    assert str(x) in str(raised.value)
    assert str(kernel) in str(raised.value)


# --- an operation as a node ----------------------------------------------------------------------

X, W, B = numbers(3, 4), numbers(4, 4), numbers(4)
NODES = {
    "no bias": (manual.affine, {}, X, W),
    "no bias, in so many words": (manual.affine, {}, X, W, None),
    "a bias": (manual.affine, {}, X, W, B),
    "no slope": (manual.layer_norm, {}, X),
    "no slope, but a shift": (manual.layer_norm, {}, X, None, B),
    "no scores added": (manual.attention, {"causal": True}, X, W[:3], X),
    "a list of layers": (manual.mlp, {}, [(W, None), (W, B)], X),
    "integers": (manual.embedding, {}, np.array([1, 0, 1]), X),
}


@pytest.mark.parametrize("name", NODES)
def test_an_operation_is_a_node_whatever_is_left_out(name):
    operation, options, *args = NODES[name]
    leaves, tree = jax.tree.flatten(args)
    nodes = [*map(Node, leaves)]
    y = graph.apply(operation, *tree.unflatten(nodes), **options)
    weights = jnp.cos(jnp.arange(y.value.size, dtype=y.value.dtype)).reshape(y.value.shape)
    found = gradients(graph.total(y * weights), *nodes)

    def loss(leaves):
        return (weights * operation(*tree.unflatten(leaves), **options)).sum()

    expected = jax.grad(loss, allow_int=True)(leaves)
    for leaf, ours, autodiff in zip(leaves, found, expected, strict=True):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            np.testing.assert_allclose(ours, autodiff, rtol=1e-5, atol=1e-6)


def test_an_operation_of_two_results_is_no_node():
    h, gates = jnp.zeros((3, 1)), jnp.ones((1, 4))
    message = r"^apply: what lstm returns is a tuple of 2; it must be one array"
    with pytest.raises(TypeError, match=message):
        graph.apply(manual.lstm, X[:, :, None], h, h, gates, gates, gates[0], None)
