"""What a net computes and what it is charged for: P1 (forward) and P3 (squared errors)."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import losses
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import (
    CHAPTER,
    FUNDAMENTALS,
    HILL,
    by_hand,
    same,
    sigmoid,
    values,
)
from handgrad.manual.networks import mlp

tanh = np.tanh


SQUARE = [[(3, 3), (3,)] for _ in range(4)]


def deep_net(params, x):
    """L hidden layers of tanh, in columns, as the document has them."""
    h = x
    for w, b in params[:-1]:
        h = jnp.tanh(w @ h + b)
    w, b = params[-1]
    return jax.nn.sigmoid(w @ h + b)


DERIVATIONS = [
    Derivation(
        "forward, L hidden layers",
        deep_net,
        sample={"params": SQUARE, "x": (3,)},
        let={
            "h1": lambda params, x: tanh(params[0][0] @ x + params[0][1]),
            "h2": lambda params, h1: tanh(params[1][0] @ h1 + params[1][1]),
            "h3": lambda params, h2: tanh(params[2][0] @ h2 + params[2][1]),
        },
        source=FUNDAMENTALS,
        claim="P1",
        ends_in=("networks.mlp",),
    )
    .line(r"a^{(2)} = W^{(2)}h^{(1)} + b^{(2)},\; h^{(2)} = g(a^{(2)})",
          lambda params, h1: entries(
              lambda i: tanh(sum(params[1][0][i, j] * h1[j] for j in range(3)) + params[1][1][i]),
              3),
          of=lambda params, h1: jnp.tanh(params[1][0] @ h1 + params[1][1]), source="3.4–3.5")
    .line(r"f(x) = o(a^{(L+1)}) = o(W^{(L+1)}h^{(k)} + b^{(k)})",
          lambda params, h1: sigmoid(params[3][0] @ h1 + params[0][1]), source="3.7, first line",
          wrong="the output layer sees the last hidden layer, h⁽ᴸ⁾, and adds its own bias, b⁽ᴸ⁺¹⁾; "
          "the index k is left over from 3.4 (here k = 1)")
    .line(r"f(x) = o(a^{(L+1)}) = o(W^{(L+1)}h^{(L)} + b^{(L+1)})",
          lambda params, h3: sigmoid(params[3][0] @ h3 + params[3][1]), source="3.6")
    .line(r"= o(W^{(4)}g(W^{(3)}g(W^{(2)}g(W^{(1)}x+b^{(1)})+b^{(2)})+b^{(3)})+b^{(4)})",
          lambda params, x: sigmoid(
              params[3][0] @ tanh(params[2][0] @ tanh(params[1][0] @ tanh(
                  params[0][0] @ x + params[0][1]) + params[1][1]) + params[2][1]) + params[3][1]),
          source="3.7, last line")
    .line(r"= \text{mlp, with } W^\top",
          lambda params, x: values(
              mlp, [(w.T, b) for w, b in params], x, output_activation="sigmoid"))
    .line(r"a^{(k+1)}_i = b^{(k)}_i + \sum_j W^{(k+1)}_{ij} h^{(k)}_j",
          lambda params, h1: params[0][1] + params[1][0] @ h1, source="3.20, recurrence",
          of=(after := lambda params, h1: params[1][0] @ h1 + params[1][1]),
          wrong="the bias is that of layer k+1, as the vector form on the next line has it")
    .line(r"a^{(k+1)}_i = b^{(k+1)}_i + \sum_j W^{(k+1)}_{ij} h^{(k)}_j",
          lambda params, h1: entries(
              lambda i: params[1][1][i] + sum(params[1][0][i, j] * h1[j] for j in range(3)), 3),
          of=after),
    Derivation(
        "½ Σ (ŷ − t)²",
        lambda y, t: 0.5 * ((y - t) ** 2).sum(),
        wrt="y",
        sample={"y": (3,), "t": (3,)},
        source=CHAPTER,
        claim="P3",
        ends_in=("losses.half_squared_error", "losses.mse"),
    )
    .line(r"\frac{\partial E}{\partial\hat y_o} = \tfrac12\sum_k 2(\hat y_k-t_k)\delta_{ko}",
          lambda y, t: entries(
              lambda o: 0.5 * sum(2 * (y[k] - t[k]) * same(k, o) for k in range(3)), 3),
          source="14.67")
    .line(r"= \hat y_o - t_o", lambda y, t: y - t)
    .line(r"= \text{half\_squared\_error, backwards}",
          lambda y, t: by_hand(losses.half_squared_error, y, t))
    .line(r"\text{MSE} = \tfrac12\sum_o(\hat y_o-t_o)^2", lambda y, t: 0.5 * ((y - t) ** 2).sum(),
          of=(mean := lambda y, t: ((y - t) ** 2).mean()), source="14.67, the name",
          wrong="half the sum is called the mean squared error; the mean over n outputs has 1/n")
    .line(r"\text{MSE} = \tfrac1n\sum_o(\hat y_o-t_o)^2",
          lambda y, t: sum((y[o] - t[o]) ** 2 for o in range(3)) / 3, of=mean)
    .line(r"= \text{mse}", lambda y, t: values(losses.mse, y, t)),
    Derivation(
        "Σ (y − t)², without the ½",
        lambda y, t: ((y - t) ** 2).sum(),
        wrt="y",
        sample={"y": (2,), "t": (2,)},
        source=HILL,
        claim="P3",
        ends_in=("losses.squared_error",),
    )
    .line(r"\frac{\partial C}{\partial y_i} = 2(y_i - t_i)",
          lambda y, t: entries(lambda i: 2 * (y[i] - t[i]), 2), source="Backpropagation, last "
          "layer")
    .line(r"= \text{squared\_error, backwards}", lambda y, t: by_hand(losses.squared_error, y, t)),
    Derivation(
        "the total loss",
        lambda y, t: ((y - t) ** 2).sum(),
        wrt="y",
        sample={"y": (4, 2), "t": (4, 2)},
        source=FUNDAMENTALS,
        claim="P3",
        ends_in=("losses.total_squared_error",),
    )
    .line(r"J = \sum_{n=1}^N l^{(n)}, \quad l^{(n)} = \lVert y^{(n)}-\hat y^{(n)}\rVert^2",
          lambda y, t: sum(((y[n] - t[n]) ** 2).sum() for n in range(4)), wrt=(),
          source="3.8, 3.10")
    .line(r"\frac{\partial J}{\partial y^{(n)}_m} = 2(y^{(n)}_m-\hat y^{(n)}_m)",
          lambda y, t: entries(lambda n, m: 2 * (y[n, m] - t[n, m]), 4, 2))
    .line(r"= \text{total\_squared\_error, backwards}",
          lambda y, t: by_hand(losses.total_squared_error, y, t)),
]  # fmt: skip
