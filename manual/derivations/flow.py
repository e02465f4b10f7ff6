"""Paths and graphs, P10 and P11; and second derivatives, P13."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import graph
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import (
    CHAPTER,
    FUNDAMENTALS,
    HILL,
    QUESTIONS,
    by_hand,
    compiled,
)
from handgrad.manual.graph import Node, gradients
from handgrad.manual.networks import mlp
from handgrad.manual.second_order import mlp_hessian, mlp_hessian_vector_product

WIDTH, DEPTH = 3, 4
CHAIN = [(WIDTH, WIDTH)] * DEPTH


def narrow(ws, x):
    for w in ws:
        x = jnp.tanh(x @ w)
    return x.sum()


def slopes(ws, x):
    """1 − y² of every layer."""
    kept = []
    for w in ws:
        x = np.tanh(x @ w)
        kept.append(1 - x**2)
    return kept


def over_all_paths(ws, slopes):
    """Σ over every path of units, of the product along it: widthᵈᵉᵖᵗʰ terms an entry."""

    def along(i, path):
        product, before = 1.0, i
        for w, slope, unit in zip(ws, slopes, path, strict=True):
            product *= w[before, unit] * slope[unit]
            before = unit
        return product

    paths = list(itertools.product(range(WIDTH), repeat=DEPTH))
    return entries(lambda i: sum(along(i, path) for path in paths), WIDTH)


def reusing(ws, slopes):
    """One vector ν a layer, each made of the next: depth · width² terms in all."""
    upstream = np.ones(WIDTH)
    for w, slope in zip(ws[::-1], slopes[::-1], strict=True):
        nu = slope * upstream
        upstream = entries(lambda i, w=w, nu=nu: sum(w[i, j] * nu[j] for j in range(WIDTH)), WIDTH)
    return upstream


def dag(a, b):
    """s and t are used several times; a reaches the output by four paths."""
    s = a * b
    t = jnp.exp(s) + a
    u = s * t
    return u * jnp.tanh(t) + s


@compiled
def dag_by_graph(a, b):
    a, b = Node(a), Node(b)
    s = a * b
    t = graph.exp(s) + a
    u = s * t
    return gradients(u * graph.tanh(t) + s, a)[0]


# P13: a 2-3-2 net with tanh, ½ Σ (ŷ − t)²

NET = [[(2, 3), (3,)], [(3, 2), (2,)]]


def loss(params, x, t):
    (w1, b1), (w2, b2) = params
    return 0.5 * ((jnp.tanh(x @ w1 + b1) @ w2 + b2 - t) ** 2).sum()


def loss_of(flat, x, t):
    w1, b1, w2, b2 = jnp.split(flat, [6, 9, 15])
    return loss([(w1.reshape(2, 3), b1), (w2.reshape(3, 2), b2)], x, t)


def as_layers(flat):
    w1, b1, w2, b2 = jnp.split(jnp.asarray(flat), [6, 9, 15])
    return [(w1.reshape(2, 3), b1), (w2.reshape(3, 2), b2)]


@compiled
def hessian(flat, x, t):
    return mlp_hessian(as_layers(flat), x, t)


@compiled
def product(flat, x, t, v):
    parts = mlp_hessian_vector_product(as_layers(flat), as_layers(v), x, t)
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(parts)])


def hessian_by_formula(flat, x, t):
    r"""Second derivatives of the hidden weights, all sums written out, one sample a time."""
    w1, b1, w2, b2 = np.split(flat, [6, 9, 15])
    w1, w2 = w1.reshape(2, 3), w2.reshape(3, 2)
    y = np.tanh(x @ w1 + b1)
    e = y @ w2 + b2 - t
    d1, d2 = 1 - y**2, -2 * y * (1 - y**2)

    def entry(i, j, k, m):  # ∂²E/∂w_ij ∂w_kl
        gauss_newton = sum(
            w2[j, o] * d1[n, j] * x[n, i] * w2[m, o] * d1[n, m] * x[n, k]
            for n in range(len(x))
            for o in range(2)
        )
        curvature = sum(
            e[n, o] * w2[j, o] * d2[n, j] * x[n, i] * x[n, k] * float(j == m)
            for n in range(len(x))
            for o in range(2)
        )
        return gauss_newton + curvature

    return entries(entry, 2, 3, 2, 3)


DERIVATIONS = [
    Derivation(
        "all paths against reused errors",
        narrow,
        wrt="x",
        sample={"ws": CHAIN, "x": (WIDTH,)},
        let={"slopes": slopes},
        source=HILL,
        claim="P10",
        ends_in=("networks.mlp",),
    )
    .line(r"\frac{\partial y}{\partial x_i} = \sum_{\text{paths}}\prod_l w^{(l)}\delta'(z^{(l)})",
          over_all_paths, source="Hidden layers")
    .line(r"= \sum_j w^{(1)}_{ij}\nu^{(1)}_j,\; \nu^{(l)}_j = \delta'(z_j)"
          r"\sum_o w^{(l+1)}_{jo}\nu^{(l+1)}_o", reusing, source="Hidden layers: dynamic "
          "programming")
    .line(r"= \text{mlp, backwards}",
          lambda ws, x: by_hand(
              mlp, [(w, None) for w in ws], x, wrt=1, output_activation="tanh")),
    Derivation(
        "one path, two paths, n paths",
        lambda a: jnp.sin(jnp.exp(a)),
        wrt="a",
        sample={"a": (), "c": (5,)},
        source=FUNDAMENTALS,
        claim="P11",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{\partial p}{\partial a} = \frac{\partial p}{\partial q}\frac{\partial"
          r" q}{\partial a}",
          lambda a: np.cos(np.exp(a)) * np.exp(a), source="figure 3-19")
    .line(r"\frac{\partial p}{\partial a} = \frac{\partial p}{\partial q_1}"
          r"\frac{\partial q_1}{\partial a} + \frac{\partial p}{\partial q_2}"
          r"\frac{\partial q_2}{\partial a}",
          lambda a: a**3 * np.exp(a) + np.exp(a) * 3 * a**2,
          of=lambda a: jnp.exp(a) * a**3, wrt="a", source="figure 3-20")
    .line(r"= \text{the flow graph's reverse pass}",
          compiled(lambda a: gradients(graph.exp(n := Node(a)) * n**3, n)[0]))
    .line(r"\frac{\partial p}{\partial a} = \sum_i\frac{\partial p}{\partial q_i}"
          r"\frac{\partial q_i}{\partial a}",
          lambda a, c: sum(2 * np.tanh(c[i] * a) * c[i] * (1 - np.tanh(c[i] * a) ** 2)
                           for i in range(5)),
          of=lambda a, c: (jnp.tanh(c * a) ** 2).sum(), wrt="a", source="3.19, figure 3-21")
    .line(r"= \text{the flow graph's reverse pass}",
          compiled(lambda a, c: gradients(graph.total(graph.tanh(c * (n := Node(a))) ** 2), n)[0])),
    Derivation(
        "a general graph, nodes used many times",
        dag,
        wrt="a",
        sample={"a": (), "b": ()},
        let={
            "s": lambda a, b: a * b,
            "t": lambda s, a: np.exp(s) + a,
            "u": lambda s, t: s * t,
            "du": lambda t: np.tanh(t),
            "dt": lambda u, t, s, du: u * (1 - np.tanh(t) ** 2) + du * s,
            "ds": lambda s, t, du, dt: 1 + du * t + dt * np.exp(s),
        },
        source=FUNDAMENTALS,
        claim="P11",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{\partial p}{\partial t} = \frac{\partial p}{\partial t}\Big|_u +"
          r" \frac{\partial p}{\partial u}\frac{\partial u}{\partial t}", lambda dt: dt,
          of=lambda s, t: s * t * jnp.tanh(t) + s, wrt="t", source="figure 3-22")
    .line(r"\frac{\partial p}{\partial s} = 1 + \frac{\partial p}{\partial u}t +"
          r" \frac{\partial p}{\partial t}e^s", lambda ds: ds,
          of=lambda s, a: s * (jnp.exp(s) + a) * jnp.tanh(jnp.exp(s) + a) + s, wrt="s",
          source="figure 3-22")
    .line(r"\frac{\partial p}{\partial a} = \frac{\partial p}{\partial s}b +"
          r" \frac{\partial p}{\partial t}", lambda ds, dt, b: ds * b + dt, source="figure 3-22")
    .line(r"= \text{the sum over the paths } a\to s,\; a\to t,\; a\to s\to t",
          lambda a, b, s, t, u: (
              b * (1 + t * np.tanh(t))  # through s, and through s and u
              + b * np.exp(s) * (u * (1 - np.tanh(t) ** 2) + s * np.tanh(t))  # through s and t
              + 1 * (u * (1 - np.tanh(t) ** 2) + s * np.tanh(t))))  # through t
    .line(r"= \text{the flow graph's reverse pass}", dag_by_graph),
    Derivation(
        "a rule for every shape: tensors in the graph",
        lambda x, w, b: (jnp.tanh(x @ w + b) ** 2).mean(),
        wrt="w",
        sample={"x": (4, 3), "w": (3, 2), "b": (2,)},
        let={"y": lambda x, w, b: np.tanh(x @ w + b)},
        source=CHAPTER,
        claim="P11",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{\partial p}{\partial w_{ij}} = \frac1{8}\sum_n 2y_{nj}(1-y_{nj}^2)\,x_{ni}",
          lambda x, y: entries(
              lambda i, j: sum(2 * y[n, j] * (1 - y[n, j] ** 2) * x[n, i] for n in range(4)) / 8,
              3, 2),
          source="summary: nodes take and give tensors")
    .line(r"= \text{the flow graph's reverse pass}",
          compiled(lambda x, w, b: gradients(
              graph.mean(graph.tanh(x @ (n := Node(w)) + b) ** 2), n)[0])),
    Derivation(
        "the Hessian of the hidden weights, sum by sum",
        lambda w1, b1, w2, b2, x, t: loss([(w1, b1), (w2, b2)], x, t),
        wrt=("w1", "w1"),
        sample={"w1": (2, 3), "b1": (3,), "w2": (3, 2), "b2": (2,), "x": (3, 2), "t": (3, 2)},
        let={"flat": lambda w1, b1, w2, b2: np.concatenate(
            [p.ravel() for p in (w1, b1, w2, b2)])},
        source=QUESTIONS,
        claim="P13",
        ends_in=("second_order.mlp_hessian",),
    )
    .line(r"\frac{\partial^2E}{\partial w_{ij}\partial w_{kl}} = \sum_{n,o}"
          r"\frac{\partial\hat y_o}{\partial w_{ij}}\frac{\partial\hat y_o}{\partial w_{kl}} +"
          r" (\hat y_o-t_o)\frac{\partial^2\hat y_o}{\partial w_{ij}\partial w_{kl}}",
          hessian_by_formula, source="step (2): the Hessian")
    .line(r"= \text{mlp\_hessian, its first block}",
          lambda flat, x, t: hessian(flat, x, t)[:6, :6].reshape(2, 3, 2, 3)),
    Derivation(
        "the Hessian and its product with a vector",
        loss_of,
        wrt=("flat", "flat"),
        sample={"flat": (17,), "v": (17,), "x": (3, 2), "t": (3, 2), "s": np.float64(0)},
        source=QUESTIONS,
        claim="P13",
        ends_in=("second_order.mlp_hessian", "second_order.mlp_hessian_vector_product"),
    )
    .line(r"\nabla^2 J = \text{mlp\_hessian}",
          lambda flat, x, t: hessian(flat, x, t),
          source="step (2): the Hessian")
    .line(r"\nabla^2 J\,v = \text{mlp\_hessian}\cdot v",
          lambda flat, x, t, v: hessian(flat, x, t) @ v,
          of=lambda flat, v, s, x, t: loss_of(flat + s * v, x, t), wrt=("s", "flat"))
    .line(r"= \mathcal{R}\{\nabla J\} = \text{mlp\_hessian\_vector\_product}",
          product)
    .line(r"v^\top\nabla^2 J\,v = \frac{d^2}{ds^2}J(\theta+sv)",
          lambda flat, x, t, v: v @ product(flat, x, t, v),
          of=lambda flat, v, s, x, t: loss_of(flat + s * v, x, t), wrt=("s", "s")),
]  # fmt: skip
