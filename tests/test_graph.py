"""The flow graph against autodiff: random graphs, every kind of node, nodes used many times."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad.manual import graph, losses, networks
from handgrad.manual.graph import Node, gradients

SHAPES = [(3, 3), (1, 3), (3, 1), (3,), ()]  # every pair broadcasts

# name: (node kind, the same in plain JAX, how many operands); all are smooth and bounded inputs
# stay bounded, so that a random graph neither overflows nor sits on a kink
KINDS = {
    "add": (graph.add, lambda a, b: a + b, 2),
    "subtract": (graph.subtract, lambda a, b: a - b, 2),
    "multiply": (lambda a, b: graph.tanh(a) * b, lambda a, b: jnp.tanh(a) * b, 2),
    "divide": (
        lambda a, b: a / (1.5 + graph.tanh(b)),
        lambda a, b: a / (1.5 + jnp.tanh(b)),
        2,
    ),
    "matmul": (
        lambda a, b: graph.tanh(square(a) @ square(b)),
        lambda a, b: jnp.tanh(square(a) @ square(b)),
        2,
    ),
    "negate": (graph.negate, lambda a: -a, 1),
    "tanh": (graph.tanh, jnp.tanh, 1),
    "exp": (lambda a: graph.exp(graph.tanh(a)), lambda a: jnp.exp(jnp.tanh(a)), 1),
    "log": (lambda a: graph.log(a * a + 1.0), lambda a: jnp.log(a * a + 1.0), 1),
    "power": (lambda a: (a * a + 1.0) ** -1.5, lambda a: (a * a + 1.0) ** -1.5, 1),
    "transpose": (lambda a: graph.transpose(square(a)), lambda a: square(a).T, 1),
    "total": (graph.total, jnp.sum, 1),
    "mean": (graph.mean, jnp.mean, 1),
    "reshape": (
        lambda a: graph.reshape(graph.reshape(square(a), shape=(9, 1)) * 2.0, shape=(3, 3)),
        lambda a: square(a) * 2.0,
        1,
    ),
}


def square(a):
    """A node or an array broadcast to (3, 3)."""
    return a * np.ones((3, 3))


@st.composite
def recipes(draw):
    """Leaves' shapes, and nodes as (kind, operands): each operand any earlier node, often again."""
    leaves = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    nodes = []
    for i in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(sorted(KINDS)))
        last = len(leaves) + i - 1
        operand = st.one_of(st.integers(0, last), st.just(last), st.just(0))
        nodes.append((kind, draw(st.tuples(*[operand] * KINDS[kind][2]))))
    return leaves, nodes, draw(st.integers(0, 2**16))


def build(nodes, values, by_graph):
    """The sum of everything that the recipe makes, so that every node has a path to the output."""
    values = list(values)
    for kind, operands in nodes:
        function = KINDS[kind][0 if by_graph else 1]
        values.append(function(*(values[i] for i in operands)))
    total, add = (graph.total, graph.add) if by_graph else (jnp.sum, jnp.add)
    result = total(values[-1])
    for value in values[:-1]:
        result = add(result, total(value))
    return result


@settings(max_examples=40, deadline=None)
@given(recipes())
def test_random_graphs_have_autodiffs_gradients(recipe):
    leaves, nodes, seed = recipe
    rng = np.random.default_rng(seed)
    with (
        jax.enable_x64(True),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        values = [rng.standard_normal(shape) for shape in leaves]
        inputs = [Node(value) for value in values]
        ours = gradients(build(nodes, inputs, True), *inputs)
        theirs = jax.jit(jax.grad(lambda v: build(nodes, v, False)))(values)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        # some 50 roundings of a relative 1e-16 on paths that may cancel against each other
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11 * (1 + np.abs(b).max()))


def numbers(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), jnp.float32)


def test_a_node_used_many_times_gets_the_sum():
    x = Node(numbers(3))
    y = x * x * x + x - x
    (dx,) = gradients(graph.total(y), x)
    np.testing.assert_allclose(dx, 3 * x.value**2, rtol=1e-6)


def test_a_chain_of_thousands_is_no_recursion():
    x = y = Node(jnp.float32(1.0))
    for _ in range(3000):
        y = y + 0.0
    assert gradients(y, x)[0] == 1.0


def test_doubling_costs_one_visit_a_node():
    """2⁴⁰ paths, 40 nodes: the rule of each is called once."""
    x = y = Node(jnp.float32(1.0))
    for _ in range(40):
        y = y + y
    assert gradients(y, x)[0] == 2.0**40


def test_what_the_output_does_not_depend_on_gets_zeros():
    x, y = Node(numbers(2)), Node(numbers(3))
    assert gradients(graph.total(x), y)[0].tolist() == [0, 0, 0]


def test_only_a_scalar_has_a_gradient():
    x = Node(numbers(2))
    with pytest.raises(ValueError, match=r"the output has shape \(2,\): reduce it with total"):
        gradients(x + x, x)


def test_arrays_on_the_left_of_an_operator():
    x = Node(numbers(2, 2))
    array = np.full((2, 2), 2.0, np.float32)
    for node in (array + x, array - x, array * x, array / x, array @ x, 2.0 * x, 1.0 - x):
        assert isinstance(node, Node)


def test_maximum_is_relu_with_slope_zero_at_the_kink():
    x = Node(jnp.array([-1.0, 0.0, 2.0]))
    (dx,) = gradients(graph.total(graph.maximum(x, 0.0)), x)
    assert dx.tolist() == [0, 0, 1]


def test_reshape_sends_the_shape_back():
    x = Node(numbers(2, 3))
    (dx,) = gradients(graph.total(graph.reshape(x, shape=(6,)) * jnp.arange(6.0)), x)
    assert dx.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_any_operation_can_be_a_node():
    """`apply`: the pullback of an op is its rule; integers have no cotangent."""
    logits, labels = Node(numbers(4, 3)), jnp.array([0, 2, 1, 1])
    loss = graph.total(
        graph.apply(losses.softmax_cross_entropy_with_integer_labels, logits, labels)
    )
    (dx,) = gradients(loss, logits)
    p = jax.nn.softmax(logits.value)
    np.testing.assert_allclose(dx, p - jax.nn.one_hot(labels, 3), atol=1e-6)


def test_a_network_in_the_graph_agrees_with_the_network_by_hand():
    x, t, w, b = numbers(4, 3), numbers(4, 2), numbers(3, 2), numbers(2)
    nodes = [Node(w), Node(b)]
    error = graph.tanh(x @ nodes[0] + nodes[1]) - t
    ours = gradients(0.5 * graph.total(error * error), *nodes)
    (theirs,), *_ = networks.mlp_loss.value_and_gradient([(w, b)], x, t, output_activation="tanh")[
        1
    ]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_it_compiles():
    run = jax.jit(lambda x: gradients(graph.total(graph.tanh(n := Node(x)) * n), n)[0])
    assert run(numbers(3)).shape == (3,)


@pytest.mark.parametrize(
    ("a", "b"),
    [((2, 3, 4), (2, 4, 5)), ((3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((1, 3, 4), (2, 4, 1))],
)
def test_stacks_of_matrices(a, b):
    a, b = numbers(*a), numbers(*b)
    with jax.numpy_rank_promotion("allow"):
        nodes = Node(a), Node(b)
        ours = gradients(graph.total(graph.tanh(nodes[0] @ nodes[1])), *nodes)
        theirs = jax.grad(lambda a, b: jnp.tanh(a @ b).sum(), (0, 1))(a, b)
    for got, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3, 2)), ((2, 3), (3,)), ((3,), (3,)), ((), (3, 2)), ((2, 3), (2, 3))]
)
def test_a_product_of_what_are_no_matrices_is_refused(a, b):
    message = f"matmul: a has shape {a} and b {b}; they must be (*batch, n, m)"
    with pytest.raises(ValueError, match=re.escape(message)):
        Node(jnp.ones(a)) @ Node(jnp.ones(b))


@pytest.mark.parametrize("n", [0, 0.0, np.float32(0)])
def test_a_power_of_zero_is_a_constant(n):
    x = Node(jnp.array([0.0, 2.0, jnp.inf]))
    (dx,) = gradients(graph.total(x**n), x)
    assert dx.tolist() == [0, 0, 0]


def test_an_exponent_is_a_number():
    with pytest.raises(TypeError, match=r"power: n is .*Node.*; it must be a number"):
        Node(jnp.ones(2)) ** Node(2.0)


@pytest.mark.parametrize(("reduce", "slope"), [(graph.total, 0.5), (graph.mean, 0.125)])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float16])
@jax.numpy_dtype_promotion("standard")
def test_the_slope_of_a_sum_is_not_rounded_to_integers(reduce, slope, dtype):
    x = Node(jnp.arange(4, dtype=dtype))
    (dx,) = gradients(reduce(x) * 0.5, x)
    assert dx.tolist() == [slope] * 4
    assert dx.dtype == (dtype if dtype == jnp.float16 else jnp.float32)


@pytest.mark.parametrize("kind", ["add", "subtract", "multiply", "divide", "maximum"])
def test_shapes_that_are_not_broadcast_are_named(kind):
    with pytest.raises(ValueError, match=rf"^{kind}: a has shape \(2, 3\) and b \(2,\); each axis"):
        getattr(graph, kind)(Node(numbers(2, 3)), numbers(2))


@pytest.mark.parametrize("shape", [(4,), (-1, -1), (2.0, 3), "a", None])
def test_a_shape_of_other_entries_is_named(shape):
    message = f"reshape: shape is {shape!r} and a has shape (2, 3); it must be of whole numbers"
    with pytest.raises(ValueError, match=f"^{re.escape(message)} whose product is 6"):
        graph.reshape(Node(numbers(2, 3)), shape=shape)


def test_what_is_no_node_has_no_gradient():
    x = Node(numbers())
    with pytest.raises(TypeError, match=r"^gradients: output is a float; it must be a Node"):
        gradients(3.0)
    with pytest.raises(TypeError, match=r"^gradients: node 1 has shape \(\); it must be a Node"):
        gradients(x, x, x.value)
