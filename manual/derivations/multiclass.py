"""P12: backpropagation for a classifier, in columns, eq. 3.11–3.27 of the fundamentals."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import losses
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import (
    FUNDAMENTALS,
    by_hand,
    one_hot,
    sigmoid,
    softmax,
)
from handgrad.manual.networks import mlp_loss

M = 3  # classes, and units in every layer, so that a wrong index still fits
ALPHA = 0.1
SIZES = {f"W{k}": (M, M) for k in (1, 2, 3)} | {f"b{k}": (M,) for k in (1, 2, 3)}


def output_loss(a, c):
    """−log y_c with y = softmax(a)."""
    return -jnp.log(jax.nn.softmax(a) @ c)


def hidden_loss(h, W, b, c):
    return output_loss(W @ h + b, c)


def loss(W1, b1, W2, b2, W3, b3, x, c):
    h = jax.nn.sigmoid(W2 @ jax.nn.sigmoid(W1 @ x + b1) + b2)
    return output_loss(W3 @ h + b3, c)


def from_h1(h1, W2, b2, W3, b3, c):
    return output_loss(W3 @ jax.nn.sigmoid(W2 @ h1 + b2) + b3, c)


def from_a1(a1, W2, b2, W3, b3, c):
    return from_h1(jax.nn.sigmoid(a1), W2, b2, W3, b3, c)


SIGNALS = {
    "a1": lambda W1, b1, x: W1 @ x + b1,
    "h1": lambda a1: sigmoid(a1),
    "a2": lambda W2, b2, h1: W2 @ h1 + b2,
    "h2": lambda a2: sigmoid(a2),
    "a3": lambda W3, b3, h2: W3 @ h2 + b3,
    "y": lambda a3: softmax(a3),
    "da3": lambda y, c: -(c - y),
    "dh2": lambda W3, da3: W3.T @ da3,
    "da2": lambda dh2, h2: dh2 * h2 * (1 - h2),
    "dh1": lambda W2, da2: W2.T @ da2,
    "da1": lambda dh1, h1: dh1 * h1 * (1 - h1),
}


def by_network(W1, b1, W2, b2, W3, b3, x, c):
    layers = [(W1.T, b1), (W2.T, b2), (W3.T, b3)]
    return by_hand(mlp_loss, layers, x, c, activation="sigmoid", loss="softmax_cross_entropy")


DERIVATIONS = [
    Derivation(
        "at the output: y",
        lambda y, c: -jnp.log(y @ c),
        wrt="y",
        sample={"s": (M,), "c": one_hot(M)},
        let={"y": lambda s: softmax(s)},
        source=FUNDAMENTALS,
        claim="P12",
        ends_in=("losses.categorical_cross_entropy",),
    )
    .line(r"\frac{\partial}{\partial y_m}[-\log y_c] = -\frac{1_{(c=m)}}{y_c}",
          lambda y, c: entries(lambda m: -float(m == c.argmax()) / y[c.argmax()], M),
          source="3.15")
    .line(r"= -\frac1{y_c}e(c)", lambda y, c: -c / (y @ c), source="3.16")
    .line(r"= \text{categorical\_cross\_entropy, backwards}",
          lambda y, c: by_hand(losses.categorical_cross_entropy, y, c)),
    Derivation(
        "at the output: a, for sigmoids and for softmax",
        output_loss,
        wrt="a",
        sample={"a": (M,), "c": one_hot(M)},
        let={"s": lambda a: sigmoid(a), "y": lambda a: softmax(a)},
        source=FUNDAMENTALS,
        claim="P12",
        ends_in=("losses.softmax_cross_entropy",),
    )
    .line(r"\frac{\partial}{\partial a_m}[-\log y_c] = -(1_{(c=m)}-y_m), \; y=\sigma(a)",
          lambda c, s: entries(lambda m: -(c[m] - s[m]), M), source="3.17–3.18",
          of=(with_sigmoids := lambda a, c: -jnp.log(jax.nn.sigmoid(a) @ c)), wrt="a",
          wrong="for the sigmoids it assumes, y_c depends on a_c alone: every other component is "
          "zero; the formula is softmax's")
    .line(r"\frac{\partial}{\partial a_m}[-\log y_c] = -1_{(c=m)}(1-y_m), \; y=\sigma(a)",
          lambda c, s: entries(lambda m: -float(c[m]) * (1 - s[m]), M), of=with_sigmoids, wrt="a")
    .line(r"\frac{\partial}{\partial a_m}[-\log y_c] = -(1_{(c=m)}-y_m), \; y=\text{softmax}(a)",
          lambda c, y: entries(lambda m: -(float(m == c.argmax()) - y[m]), M), source="3.17")
    .line(r"= -(e(c)-y)", lambda c, y: -(c - y), source="3.18")
    .line(r"= \text{softmax\_cross\_entropy, backwards}",
          lambda a, c: by_hand(losses.softmax_cross_entropy, a, c)),
    Derivation(
        "hidden layers: output h and input a",
        loss,
        wrt="b1",
        sample=SIZES | {"x": (M,), "c": one_hot(M)},
        let=SIGNALS,
        source=FUNDAMENTALS,
        claim="P12",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial l}{\partial h^{(L)}_j} ="
          r" \sum_i\frac{\partial l}{\partial a^{(L+1)}_i}W^{(L+1)}_{ij}",
          lambda W3, da3: entries(lambda j: sum(da3[i] * W3[i, j] for i in range(M)), M),
          of=lambda h2, W3, b3, c: hidden_loss(h2, W3, b3, c), wrt="h2", source="3.20")
    .line(r"\frac{\partial l}{\partial h^{(k)}_j} = (W^{(k+1)}_{\cdot,j})^\top\nabla_{a^{(L+1)}}l",
          lambda W2, da3: entries(lambda j: W2[:, j] @ da3, M), of=from_h1, wrt="h1",
          source="3.20, third line",
          wrong="the gradient needed is that of the next layer, k+1; L+1 is the output layer (here "
          "k = 1, L = 2)")
    .line(r"\nabla_{h^{(k)}}l = (W^{(k+1)})^\top\nabla_{a^{(L+1)}}l",
          lambda W2, da3: W2.T @ da3, of=from_h1, wrt="h1", source="3.21",
          wrong="again L+1 where k+1 must stand")
    .line(r"\frac{\partial l}{\partial h^{(k)}_j} ="
          r" \sum_i\frac{\partial l}{\partial a^{(k+1)}_i}W^{(k+1)}_{ij}",
          lambda W2, da2: entries(lambda j: sum(da2[i] * W2[i, j] for i in range(M)), M),
          of=from_h1, wrt="h1", source="3.20, second line")
    .line(r"= (W^{(k+1)})^\top\nabla_{a^{(k+1)}}l", lambda dh1: dh1)
    .line(r"\frac{\partial l}{\partial a^{(k)}_j} ="
          r" \frac{\partial l}{\partial h^{(k)}_j}\,g'(a^{(k)}_j)",
          lambda dh1, a1: entries(lambda j: dh1[j] * sigmoid(a1[j]) * (1 - sigmoid(a1[j])), M),
          of=from_a1, wrt="a1", source="3.22")
    .line(r"= (\nabla_{h^{(k)}}l)^\top\nabla_{a^{(k)}}h^{(k)}",
          lambda dh1, h1: dh1.T @ np.diag(h1 * (1 - h1)), source="3.23")
    .line(r"= \nabla_{h^{(k)}}l\odot g'(a^{(k)})", lambda da1: da1, source="3.23")
    .line(r"\frac{\partial l}{\partial b^{(k)}_i} = \frac{\partial l}{\partial a^{(k)}_i}",
          lambda da1: entries(lambda i: da1[i], M), source="3.26")
    .line(r"= \nabla_{a^{(k)}}l", lambda da1: da1, source="3.27")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W1, b1, W2, b2, W3, b3, x, c: by_network(W1, b1, W2, b2, W3, b3, x, c)[0][1]),
    Derivation(
        "the weights, and the step",
        loss,
        wrt="W2",
        sample=SIZES | {"x": (M,), "c": one_hot(M)},
        let=SIGNALS,
        source=FUNDAMENTALS,
        claim="P12",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial l}{\partial W^{(k)}_{ij}} ="
          r" \frac{\partial l}{\partial a^{(k)}_i}h^{(k-1)}_j",
          lambda da2, h1: entries(lambda i, j: da2[i] * h1[j], M, M), source="3.24")
    .line(r"= \nabla_{a^{(k)}}l\,h^{(k-1)\top}", lambda da2, h1: np.outer(da2, h1), source="3.25")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W1, b1, W2, b2, W3, b3, x, c: by_network(W1, b1, W2, b2, W3, b3, x, c)[1][0].T)
    .line(r"\theta_{t+1} = \theta_t - \alpha\nabla_\theta J(\theta_t)",
          lambda W2, da2, h1: W2 - ALPHA * np.outer(da2, h1), source="3.11–3.12",
          of=lambda W1, b1, W2, b2, W3, b3, x, c: (
              0.5 * (W2**2).sum() - ALPHA * loss(W1, b1, W2, b2, W3, b3, x, c)), wrt="W2"),
]  # fmt: skip
