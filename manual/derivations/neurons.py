"""Neurons and activations: N1 to N7."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import activations, dense
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import (
    CHAPTER,
    FUNDAMENTALS,
    by_hand,
    positive,
    sigmoid,
)

exp, norm, tanh = np.exp, np.linalg.norm, np.tanh


def neuron(w, b, x):
    return jnp.tanh(x @ w + b)


def layer(x, w, b):
    """One neuron as a layer of one: (1, 1)."""
    return x[None], w[:, None], b[None]


def on_the_plane(w, b, rng_point):
    """The point of the plane wᵀx + b = 0 that lies at rng_point + s w."""
    return rng_point - (w @ rng_point + b) / (w @ w) * w


DERIVATIONS = [
    Derivation(
        "a neuron and its gradient",
        neuron,
        wrt="w",
        sample={"w": (4,), "b": (), "x": (4,)},
        let={
            "a": lambda w, b, x: w @ x + b,
            "slope": lambda a: 1 - tanh(a) ** 2,
            "x0": lambda x: np.append(1.0, x),
            "w0": lambda w, b: np.append(b, w),
        },
        source=FUNDAMENTALS,
        claim="N1",
        ends_in=("dense.affine", "activations.tanh"),
    )
    .line(r"a(x) = b + \sum_{i=1}^D w_i x_i",
          lambda w, b, x: b + sum(w[i] * x[i] for i in range(4)),
          of=lambda w, b, x: jnp.dot(w, x) + b, source="3.1")
    .line(r"= w^\top x + b", lambda w, b, x: w.T @ x + b, source="3.1")
    .line(r"h(x) = g(a(x))", lambda a: tanh(a), of=neuron, source="3.2")
    .line(r"\frac{\partial h}{\partial w_i} = g'(a)\,x_i",
          lambda slope, x: entries(lambda i: slope * x[i], 4))
    .line(
        r"= \text{affine and tanh, backwards}",
        lambda w, b, x, a: by_hand(
            dense.affine, *layer(x, w, b), dy=by_hand(activations.tanh, a[None, None]), wrt=1
        )[:, 0],
    )
    .line(r"\frac{\partial h}{\partial b} = g'(a)", lambda slope: slope, wrt="b"),
    Derivation(
        "the bias absorbed by x₀ = 1, w₀ = b",
        lambda w0, x0: jnp.tanh(w0 @ x0),
        wrt="w0",
        sample={"w": (3,), "b": (), "x": (3,)},
        let={
            "x0": lambda x: np.append(1.0, x),
            "w0": lambda w, b: np.append(b, w),
            "slope": lambda w, b, x: 1 - tanh(w @ x + b) ** 2,
        },
        source=CHAPTER,
        claim="N1",
        ends_in=("dense.affine_absorbed",),
    )
    .line(r"b + \sum_{i\ge 1} w_i x_i = \sum_{i\ge 0} w_i x_i",
          lambda w0, x0: sum(w0[i] * x0[i] for i in range(4)),
          of=lambda w, b, x: b + w @ x, source="14.58–14.59")
    .line(r"\frac{\partial h}{\partial w_i} = g'(a)\,x_i,\; i\ge 0",
          lambda slope, x0: entries(lambda i: slope * x0[i], 4))
    .line(r"= \left(\frac{\partial h}{\partial b}, \frac{\partial h}{\partial w}\right)",
          lambda slope, x: np.append(slope, slope * x)),
    Derivation(
        "the derivatives of the six activations",
        lambda z: z,
        wrt="z",
        sample={"z": ()},
        source=FUNDAMENTALS,
        claim="N2",
        ends_in=tuple(f"activations.{n}" for n in "identity step sign sigmoid tanh relu".split()),
    )
    .line(r"a' = 1", lambda: 1.0, source="table 3-1")
    .line(r"= \text{identity, backwards}", lambda z: by_hand(activations.identity, z))
    .line(r"\operatorname{step}'(a) = 0 \text{ where } a \ne 0", lambda: 0.0,
          of=lambda z: jnp.where(z >= 0, 1.0, 0.0), wrt="z", source="table 3-1")
    .line(r"= \text{step, backwards}", lambda z: by_hand(activations.step, z))
    .line(r"\sign'(a) = 0 \text{ where } a \ne 0", lambda: 0.0,
          of=lambda z: jnp.where(z >= 0, 1.0, -1.0), wrt="z", source="table 3-1")
    .line(r"= \text{sign, backwards}", lambda z: by_hand(activations.sign, z))
    .line(r"\sigma'(a) = \sigma(a)(1-\sigma(a))", lambda z: sigmoid(z) * (1 - sigmoid(z)),
          of=lambda z: 1 / (1 + jnp.exp(-z)), wrt="z", source="table 3-1")
    .line(r"= \text{sigmoid, backwards}", lambda z: by_hand(activations.sigmoid, z))
    .line(r"\tanh'(a) = 1 - \tanh^2 a", lambda z: 1 - tanh(z) ** 2,
          of=lambda z: (jnp.exp(z) - jnp.exp(-z)) / (jnp.exp(z) + jnp.exp(-z)), wrt="z",
          source="table 3-1")
    .line(r"= \text{tanh, backwards}", lambda z: by_hand(activations.tanh, z))
    .line(r"\operatorname{relu}'(a) = 1 \text{ for } a > 0, \text{ else } 0",
          lambda z: 1.0 if z > 0 else 0.0,
          of=lambda z: jnp.where(z >= 0, z, 0.0), wrt="z", source="table 3-1")
    .line(r"= \text{relu, backwards}", lambda z: by_hand(activations.relu, z)),
    Derivation(
        "sigmoid",
        lambda z: 1 / (1 + jnp.exp(-z)),
        wrt="z",
        sample={"z": ()},
        source=CHAPTER,
        claim="N3",
        ends_in=("activations.sigmoid",),
    )
    .line(r"\frac{d}{dz}(1+e^{-z})^{-1} = (1+e^{-z})^{-2}\,e^{-z}",
          lambda z: (1 + exp(-z)) ** -2 * exp(-z), source="14.45")
    .line(r"= \frac{e^{-z}}{1+e^{-z}}\cdot\frac{1}{1+e^{-z}}",
          lambda z: exp(-z) / (1 + exp(-z)) * (1 / (1 + exp(-z))), source="14.45")
    .line(r"= \frac{(e^{-z}+1)-1}{1+e^{-z}}\,\sigma(z)",
          lambda z: ((exp(-z) + 1) - 1) / (1 + exp(-z)) * sigmoid(z), source="14.45")
    .line(r"= \left(\frac{1+e^{-z}}{1+e^{-z}} - \frac{1}{1+e^{-z}}\right)\sigma(z)",
          lambda z: ((1 + exp(-z)) / (1 + exp(-z)) - 1 / (1 + exp(-z))) * sigmoid(z),
          source="14.45")
    .line(r"= (1-\sigma(z))\,\sigma(z)", lambda z: (1 - sigmoid(z)) * sigmoid(z),
          source="14.47; “Fundamentals of deep learning” (ch. 3), 3.3.1, left to the reader")
    .line(r"= \text{sigmoid, backwards}", lambda z: by_hand(activations.sigmoid, z)),
    Derivation(
        "tanh",
        lambda z: (jnp.exp(z) - jnp.exp(-z)) / (jnp.exp(z) + jnp.exp(-z)),
        wrt="z",
        sample={"z": ()},
        source=CHAPTER,
        claim="N4",
        ends_in=("activations.tanh",),
    )
    .line(r"\text{arctan}(z) = \arctan z", lambda z: np.arctan(z), wrt=(), source="14.48",
          wrong="the function (eᶻ − e⁻ᶻ)/(eᶻ + e⁻ᶻ) is called “arctan” once; it is tanh")
    .line(r"\tanh z = \frac{e^z-e^{-z}}{e^z+e^{-z}}", lambda z: tanh(z), wrt=(), source="14.48")
    .line(r"(e^z)' = e^z", lambda z: exp(z), of=lambda z: jnp.exp(z), wrt="z", source="14.49")
    .line(r"(e^{-z})' = -e^{-z}", lambda z: -exp(-z), of=lambda z: jnp.exp(-z), wrt="z",
          source="14.50")
    .line(
        r"\tanh'(z) = \frac{(e^z+e^{-z})(e^z+e^{-z}) - (e^z-e^{-z})(e^z-e^{-z})}{(e^z+e^{-z})^2}",
        lambda z: (
            (exp(z) + exp(-z)) * (exp(z) + exp(-z)) - (exp(z) - exp(-z)) * (exp(z) - exp(-z))
        ) / (exp(z) + exp(-z)) ** 2,
        source="14.51",
    )
    .line(r"= 1 - \frac{(e^z-e^{-z})^2}{(e^z+e^{-z})^2}",
          lambda z: 1 - (exp(z) - exp(-z)) ** 2 / (exp(z) + exp(-z)) ** 2, source="14.51")
    .line(r"= 1 - \tanh^2 z", lambda z: 1 - tanh(z) ** 2, source="14.53")
    .line(r"= \text{tanh, backwards}", lambda z: by_hand(activations.tanh, z))
    .line(r"\tanh z = 2\sigma(2z) - 1", lambda z: 2 * sigmoid(2 * z) - 1, wrt=()),
    Derivation(
        "relu, and its kink",
        jax.nn.relu,
        wrt="x",
        sample={"x": (6,), "h": positive()},
        source=CHAPTER,
        claim="N5",
        ends_in=("activations.relu",),
    )
    .line(r"g'(z) = 1 \text{ if } z>0,\; 0 \text{ if } z<0",
          lambda x: np.diag(np.where(x > 0, 1.0, 0.0)), source="14.55")
    .line(r"= \text{relu, backwards}", lambda x: np.diag(by_hand(activations.relu, x)))
    .line(r"\frac{g(0+h)-g(0)}{h} = 1", lambda: 1.0, source="14.55, after",
          of=lambda h: (jax.nn.relu(0 + h) - jax.nn.relu(0.0)) / h)
    .line(r"\frac{g(0)-g(0-h)}{h} = 0", lambda: 0.0, source="14.55, after",
          of=lambda h: (jax.nn.relu(0.0) - jax.nn.relu(0 - h)) / h)
    .line(r"0 \le g'(0) \le 1: \text{ any convention lies between the one-sided slopes}",
          lambda h: np.clip(by_hand(activations.relu, 0 * h), 0, 1),
          of=lambda h: jax.nn.relu(0 * h), wrt="h"),
    Derivation(
        "tanh is not smoother than sigmoid",
        lambda: jnp.asarray(4.0),
        sample={"z": np.linspace(-3, 3, 601)},
        source="“Backpropagation and optimisers” (blog, AI & the art of programming)",
        claim="N2",
    )
    .line(
        r"\frac{\max\tanh'}{\max\sigma'} \le 1",
        lambda: 1.0,
        source="section 2.2",
        wrong="“tanh changes more smoothly with its input than sigmoid”: tanh z = 2σ(2z) − 1 is a "
        "sigmoid squeezed by two and stretched by two, so it changes faster",
    )
    .line(r"\frac{\max\tanh'}{\max\sigma'} = 4",
          lambda z: (1 - tanh(z) ** 2).max() / (sigmoid(z) * (1 - sigmoid(z))).max()),
    Derivation(
        "the boundary of a sign neuron",
        lambda w, b, x: w @ x + b,
        wrt="x",
        sample={"w": np.array([3.0, 4.0]), "b": np.float64(-2.5), "p": (2,), "q": (2,)},
        let={
            "x": lambda w, b, p: on_the_plane(w, b, p),
            "x2": lambda w, b, q: on_the_plane(w, b, q),
        },
        source=FUNDAMENTALS,
        claim="N6",
    )
    .line(r"w^\top(x_1-x_2) = 0", lambda w, x, x2: w @ (x - x2),
          of=lambda w, b, x, x2: (w @ x + b) - (w @ x2 + b), source="3.3")
    .line(r"\frac{\partial}{\partial x}(w^\top x+b) = w: \text{ the normal}", lambda w: w,
          source="3.3")
    .line(r"\min_x\lVert x\rVert = \frac{b}{\lVert w\rVert}", lambda w, b: b / norm(w),
          of=(distance := lambda w, x: jnp.abs(w @ x) / jnp.sqrt(w @ w)), source="3.3, after",
          wrong="a distance is not negative: b/‖w‖ is the signed one, with b < 0 it comes out "
          "below zero")
    .line(r"\min_x\lVert x\rVert = \frac{|b|}{\lVert w\rVert}", lambda w, b: abs(b) / norm(w),
          of=distance),
    Derivation(
        "logistic neuron",
        lambda w, b, x, y: -(
            y * jnp.log(1 / (1 + jnp.exp(-(w @ x + b))))
            + (1 - y) * jnp.log(1 - 1 / (1 + jnp.exp(-(w @ x + b))))
        ),
        wrt="w",
        sample={"w": (3,), "b": (), "x": (3,), "y": lambda rng: float(rng.integers(2))},
        let={"p": lambda w, b, x: sigmoid(w @ x + b)},
        source=FUNDAMENTALS,
        claim="N7",
        ends_in=("losses.binary_cross_entropy_with_logits", "dense.affine"),
    )
    .line(r"\frac{\partial L}{\partial w_i} ="
          r" \left(-\frac{y}{p}+\frac{1-y}{1-p}\right)\frac{\partial p}{\partial w_i}",
          lambda p, y, x: entries(
              lambda i: (-y / p + (1 - y) / (1 - p)) * p * (1 - p) * x[i], 3),
          source="3.1.2")
    .line(r"= \frac{p-y}{p(1-p)}\,p(1-p)\,x_i",
          lambda p, y, x: entries(lambda i: (p - y) / (p * (1 - p)) * (p * (1 - p)) * x[i], 3))
    .line(r"= (\sigma(w^\top x+b) - y)\,x", lambda w, b, x, y: (sigmoid(w @ x + b) - y) * x)
    .line(r"P(y=1|x) \ge \tfrac12 \Leftrightarrow w^\top x + b \ge 0",
          lambda w, b, x: 1.0 if w @ x + b >= 0 else 0.0,
          of=lambda p: jnp.where(p >= 0.5, 1.0, 0.0), source="3.1.2"),
]  # fmt: skip
