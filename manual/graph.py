"""A flow graph with reverse mode: forward in order, then back from the output, seeded with one.

    x, w = Node(jnp.ones((4, 3))), Node(jnp.ones((3, 2)))
    loss = total(tanh(x @ w) ** 2)
    dx, dw = gradients(loss, x, w)

Every kind of node is one function that returns its value and its rule: the cotangents of its
parents, given its own. The rules know nothing of each other; `gradients` alone knows the chain
rule, ∂p/∂a = Σᵢ ∂p/∂qᵢ · ∂qᵢ/∂a over all qᵢ that use a.
Source: "Fundamentals of deep learning" (ch. 3), figures 3-19 to 3-22 and eq. 3.19; "The Math Behind
Deep Learning" (ch. 14), figure 14.14.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from handgrad.manual.op import Op
from handgrad.manual.shapes import number
from handgrad.manual.trees import found

__all__ = [
    "Node",
    "add",
    "apply",
    "divide",
    "exp",
    "gradients",
    "log",
    "matmul",
    "maximum",
    "mean",
    "multiply",
    "negate",
    "power",
    "reshape",
    "subtract",
    "tanh",
    "total",
    "transpose",
]


class Node:
    """A value in the graph, its parents, and the rule that sends its cotangent to them."""

    __array_ufunc__ = None  # an array on the left of an operator leaves it to the node

    def __init__(self, value: Any, parents: tuple["Node", ...] = (), rule: Any = None):
        self.value = jnp.asarray(value)
        self.parents = parents
        self.rule = rule

    def __add__(self, other: Any) -> "Node":
        return add(self, other)

    def __radd__(self, other: Any) -> "Node":
        return add(other, self)

    def __sub__(self, other: Any) -> "Node":
        return subtract(self, other)

    def __rsub__(self, other: Any) -> "Node":
        return subtract(other, self)

    def __mul__(self, other: Any) -> "Node":
        return multiply(self, other)

    def __rmul__(self, other: Any) -> "Node":
        return multiply(other, self)

    def __truediv__(self, other: Any) -> "Node":
        return divide(self, other)

    def __rtruediv__(self, other: Any) -> "Node":
        return divide(other, self)

    def __matmul__(self, other: Any) -> "Node":
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> "Node":
        return matmul(other, self)

    def __pow__(self, n: float) -> "Node":
        return power(self, n=n)

    def __neg__(self) -> "Node":
        return negate(self)


def gradients(output: Node, *nodes: Node) -> tuple[Any, ...]:
    """∂output/∂node for each of the nodes; the output must be a scalar.

    A node with several children gets the sum of what they send, a node that the output does not
    depend on gets zeros.
    """
    for what, node in (("output", output), *((f"node {k}", n) for k, n in enumerate(nodes))):
        if not isinstance(node, Node):
            raise TypeError(f"gradients: {what} {found(node)}; it must be a Node")
    if output.value.shape != ():
        raise ValueError(
            f"only a scalar has a gradient; the output has shape {output.value.shape}: "
            "reduce it with total or mean"
        )
    cotangent = {output: jnp.ones_like(output.value)}
    for node in reversed(list(_topological(output))):
        if not node.parents:
            continue
        for parent, sent in zip(node.parents, node.rule(cotangent[node]), strict=True):
            if sent is None:  # integers
                continue
            sent = _summed(sent, parent.value.shape)
            cotangent[parent] = cotangent[parent] + sent if parent in cotangent else sent
    return tuple(cotangent.get(node, jnp.zeros_like(node.value)) for node in nodes)


def _topological(output: Node) -> Iterator[Node]:
    """Every ancestor once, parents before children; without recursion, so a chain may be long."""
    seen: set[Node] = set()
    stack = [(output, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in node.parents)


def _summed(x: Any, shape: tuple[int, ...]) -> Any:
    """What broadcasting copied, the chain rule adds up."""
    x = x.sum(range(x.ndim - len(shape)))
    stretched = [axis for axis, size in enumerate(shape) if size == 1 and x.shape[axis] != 1]
    return x.sum(stretched, keepdims=True)


def _kind(function: Callable[..., tuple]) -> Callable[..., Node]:
    """A node kind out of `function(*values, **config) -> (value, rule)`."""

    @functools.wraps(function)
    def build(*args: Any, **config: Any) -> Node:
        parents = tuple(arg if isinstance(arg, Node) else Node(arg) for arg in args)
        value, rule = function(*(parent.value for parent in parents), **config)
        return Node(value, parents, rule)

    return build


def _broadcasting(function: Callable[..., tuple]) -> Callable[..., Node]:
    """A kind of two operands of different shapes: the smaller is given leading axes of size 1."""

    @functools.wraps(function)
    def aligned(a: Any, b: Any) -> tuple:
        axes = max(a.ndim, b.ndim)
        shapes = [(1,) * (axes - x.ndim) + x.shape for x in (a, b)]
        if any(n != m and 1 not in (n, m) for n, m in zip(*shapes, strict=True)):
            raise ValueError(
                f"{function.__name__}: a has shape {a.shape} and b {b.shape}; each axis, counted "
                "from the last, must be as long in both, or of size one"
            )
        return function(a.reshape(shapes[0]), b.reshape(shapes[1]))

    return _kind(aligned)


@_broadcasting
def add(a, b):
    """a + b; both are sent the cotangent as it is."""
    return a + b, lambda dy: (dy, dy)


@_broadcasting
def subtract(a, b):
    """a − b."""
    return a - b, lambda dy: (dy, -dy)


@_kind
def negate(a):
    """−a."""
    return -a, lambda dy: (-dy,)


@_broadcasting
def multiply(a, b):
    """a ∘ b; each is sent the cotangent times the other."""
    return a * b, lambda dy: (dy * b, dy * a)


@_broadcasting
def divide(a, b):
    """a / b: (f/g)′ = f′/g − f g′/g²."""
    y = a / b
    return y, lambda dy: (dy / b, -dy * y / b)


@_kind
def power(a, *, n):
    """aⁿ with a number n: (fⁿ)′ = n fⁿ⁻¹ f′, and n = −1 is (1/f)′ = −f′/f²."""
    number("power", n=n)

    def rule(dy):
        if not isinstance(n, Tracer) and n == 0:  # a constant, where a is 0 too
            return (jnp.zeros_like(dy),)
        return (dy * n * a ** (n - 1),)

    return a**n, rule


@_kind
def exp(a):
    """eᵃ."""
    y = jnp.exp(a)
    return y, lambda dy: (dy * y,)


@_kind
def log(a):
    """ln a."""
    return jnp.log(a), lambda dy: (dy / a,)


@_kind
def tanh(a):
    """tanh a: 1 − tanh² a."""
    y = jnp.tanh(a)
    return y, lambda dy: (dy * (1 - y * y),)


@_broadcasting
def maximum(a, b):
    """The larger of the two; a tie belongs to b (with b = 0: relu, whose slope at 0 is 0)."""
    first = a > b
    return jnp.maximum(a, b), lambda dy: (jnp.where(first, dy, 0), jnp.where(first, 0, dy))


@_kind
def matmul(a, b):
    """A B for matrices, or stacks of them: Ā = Ȳ Bᵀ, B̄ = Aᵀ Ȳ."""
    if min(a.ndim, b.ndim) < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"matmul: a has shape {a.shape} and b {b.shape}; they must be (*batch, n, m) and "
            "(*batch, m, k): reshape a vector to a matrix of one row or column"
        )
    return a @ b, lambda dy: (dy @ b.mT, a.mT @ dy)


@_kind
def transpose(a):
    """Aᵀ."""
    return a.T, lambda dy: (dy.T,)


@_kind
def reshape(a, *, shape):
    """The same entries in another shape."""
    try:
        y = a.reshape(shape)
    except TypeError:
        raise ValueError(
            f"reshape: shape is {shape!r} and a has shape {a.shape}; it must be of whole numbers "
            f"whose product is {a.size}, of which one may be -1"
        ) from None
    return y, lambda dy: (dy.reshape(a.shape),)


@_kind
def total(a):
    """Σ a: every entry is sent the cotangent."""
    return a.sum(), lambda dy: (_everywhere(dy, a),)


@_kind
def mean(a):
    """Σ a / n."""
    return a.mean(), lambda dy: (_everywhere(dy / a.size, a),)


def _everywhere(dy, a):
    """One number for every entry of a, in its dtype, unless that would round it to integers."""
    dy = jnp.broadcast_to(dy, a.shape)
    return dy.astype(a.dtype) if jnp.issubdtype(a.dtype, jnp.inexact) else dy


def apply(operation: Op, *args: Any, **config: Any) -> Node:
    """Any operation of `manual` that returns one array, as a node: its pullback is its rule.

    args: as the operation takes them, some perhaps left out or None; nodes may stand in a tree too.
    """
    leaves, tree = jax.tree.flatten(args)

    @_kind
    def build(*values):
        y, residuals = operation.forward(*tree.unflatten(values), **config)
        if isinstance(y, list | tuple | dict):
            raise TypeError(
                f"apply: what {operation.__name__} returns {found(y)}; it must be one array"
            )
        return y, lambda dy: _of_leaves(tree, operation.pullback(residuals, dy, **config))

    return build(*leaves)


def _of_leaves(tree: Any, cotangents: tuple) -> list:
    """One cotangent for each leaf of the arguments given; None for integers."""
    sent = []
    for arg, cotangent in zip(tree.children(), cotangents, strict=False):  # the rest was left out
        none = cotangent is None
        sent += [None] * arg.num_leaves if none else arg.flatten_up_to(cotangent)
    return sent
