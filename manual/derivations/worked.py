"""Worked numbers: P2 (figure 3-13) and P9 (Hill's two steps), every printed digit recomputed."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual.derivation import Derivation
from handgrad.manual.derivations.notation import FUNDAMENTALS, HILL, by_hand, sigmoid, values
from handgrad.manual.networks import mlp, mlp_loss

FIGURE_3_13 = {
    "weights": [
        np.array([[1.0, -2.0], [-1.0, 1.0]]),
        np.array([[2.0, -1.0], [-2.0, -1.0]]),
        np.array([[3.0, -1.0], [-1.0, 4.0]]),
    ],
    "biases": [np.array([1.0, 0.0]), np.array([0.0, 0.0]), np.array([-2.0, 2.0])],
}
PRINTED_3_13 = {  # input: the outputs of the layers, as far as printed
    (1.0, -1.0): [(0.98, 0.12), (0.86, 0.11), (0.62, 0.83)],
    (0.0, 0.0): [None, None, (0.51, 0.85)],
}

# Hill's example: w₁…w₄ into the hidden layer, w₅…w₈ into the output; the exact values to 1e-12
HILL_NET = {
    "w": np.array([[0.3, 0.2], [-0.4, 0.6]]),  # columns: h₁, h₂
    "b": np.array([0.25, 0.45]),
    "v": np.array([[0.7, -0.3], [0.5, -0.1]]),  # columns: o₁, o₂
    "c": np.array([0.15, 0.35]),
    "x": np.array([2.0, 3.0]),
    "t": np.array([1.0, 0.2]),
}
ETA = 0.1
EXACT = {
    "h": (0.41338242108267, 0.934010990508781),
    "y": (0.712257432295742, 0.533097573871501),
    "cost": 0.19374977898811957,
    "y after": (0.7187729999291985, 0.5238074518609882),
    "cost after": 0.18393989144952877,
}
PRINTED = {
    "y": (0.712257432295742, 0.533358751),
    "cost": 0.1988811957,
    "y after": (0.719269360605, 0.54666),
    "cost after": 0.18118540884,
}


def layers(weights, biases, x):
    """All three layers' outputs."""
    outputs = []
    for w, b in zip(weights, biases, strict=True):
        x = jax.nn.sigmoid(w @ x + b)
        outputs.append(x)
    return jnp.stack(outputs)


def output(k):
    """Layer k's output."""

    def of(weights, biases, x):
        return layers(weights, biases, x)[k]

    return of


def layer(k):
    """The neurons of layer k of figure 3-13, sum by sum."""

    def line(weights, biases, x):
        for w, b in list(zip(weights, biases, strict=True))[: k + 1]:
            x = np.array([sigmoid(sum(w[i, j] * x[j] for j in range(2)) + b[i]) for i in range(2)])
        return x

    return line


def figure(x):
    """The printed numbers of one input of figure 3-13, beside what the layers give."""
    derivation = Derivation(
        f"figure 3-13, input {x}",
        layers,
        sample=FIGURE_3_13 | {"x": np.array(x)},
        source=FUNDAMENTALS,
        claim="P2",
        ends_in=("networks.mlp",),
    )
    for k, numbers in enumerate(PRINTED_3_13[x]):
        name = r"f" if k == 2 else rf"h^{{({k + 1})}}"
        derivation.line(rf"{name} = \sigma(W^{{({k + 1})}}h^{{({k})}} + b^{{({k + 1})}})", layer(k),
                        of=output(k), source="3.2.1")  # fmt: skip
        if numbers:
            derivation.line(f"= {numbers}", lambda numbers=numbers: np.array(numbers), decimals=2)
    return derivation.line(
        r"f = \text{mlp, with } W^\top",
        lambda weights, biases, x: values(
            mlp,
            [(w.T, b) for w, b in zip(weights, biases, strict=True)],
            x,
            activation="sigmoid",
            output_activation="sigmoid",
        ),
        of=output(2),
    )


def outputs(w, b, v, c, x):
    return jax.nn.sigmoid(jax.nn.sigmoid(x @ w + b) @ v + c)


def cost(w, b, v, c, x, t):
    return ((outputs(w, b, v, c, x) - t) ** 2).sum()


def stepped(w, b, v, c, x, t):
    """½‖θ‖² − ηC, whose gradient is the parameters after one step of descent."""
    return 0.5 * sum((p**2).sum() for p in (w, b, v, c)) - ETA * cost(w, b, v, c, x, t)


def by_network(w, b, v, c, x, t):
    """(w̄, b̄), (v̄, c̄) by the hand-written network."""
    return by_hand(mlp_loss, [(w, b), (v, c)], x, t, activation="sigmoid",
                   output_activation="sigmoid", loss="squared_error")  # fmt: skip


SIGNALS = {
    "h": lambda w, b, x: sigmoid(x @ w + b),
    "y": lambda h, v, c: sigmoid(h @ v + c),
    "fo": lambda y, t: 2 * (y - t) * y * (1 - y),  # ∂C/∂oₖ · ∂oₖ/∂iₖ, reused below
    "fh": lambda h, v, fo: (
        h * (1 - h) * np.array([sum(v[j, k] * fo[k] for k in (0, 1)) for j in (0, 1)])
    ),
    "w2": lambda w, x, fh: w - ETA * np.outer(x, fh),
    "b2": lambda b, fh: b - ETA * fh,
    "v2": lambda v, h, fo: v - ETA * np.outer(h, fo),
    "c2": lambda c, fo: c - ETA * fo,
}  # fmt: skip


def constant(numbers):
    return lambda: np.array(numbers)


DERIVATIONS = [
    figure((1.0, -1.0)),
    figure((0.0, 0.0)),
    Derivation(
        "the first pass",
        outputs,
        sample=HILL_NET | {"printed": np.array(PRINTED["y"])},
        let=SIGNALS,
        source=HILL,
        claim="P9",
    )
    .line(r"h = \sigma(0.3\cdot 2-0.4\cdot 3+0.25),\; \sigma(0.2\cdot 2+0.6\cdot 3+0.45)",
          lambda: sigmoid(np.array([0.3 * 2 - 0.4 * 3 + 0.25, 0.2 * 2 + 0.6 * 3 + 0.45])),
          of=lambda w, b, x: jax.nn.sigmoid(x @ w + b), source="An example")
    .line(f"= {EXACT['h']}", constant(EXACT["h"]), decimals=12)
    .line(f"y = {PRINTED['y']}", constant(PRINTED["y"]), source="Sanity check", decimals=9,
          wrong="the second output is not what the printed net gives for x = (2, 3)")
    .line(r"y = \sigma(0.7h_1+0.5h_2+0.15),\; \sigma(-0.3h_1-0.1h_2+0.35)",
          lambda h: sigmoid(np.array([0.7 * h[0] + 0.5 * h[1] + 0.15,
                                      -0.3 * h[0] - 0.1 * h[1] + 0.35])))
    .line(f"= {EXACT['y']}", constant(EXACT["y"]), decimals=12)
    .line(f"C = {PRINTED['cost']}", constant(PRINTED["cost"]), of=cost, source="Sanity check",
          decimals=9, wrong="not the cost of the net for x = (2, 3)")
    .line(r"C = (y_1-1)^2 + (y_2-0.2)^2", lambda y: (y[0] - 1) ** 2 + (y[1] - 0.2) ** 2, of=cost)
    .line(f"= {EXACT['cost']}", constant(EXACT["cost"]), decimals=12)
    .line(f"\\lVert{PRINTED['y']}-t\\rVert^2 = {PRINTED['cost']}", constant(PRINTED["cost"]),
          of=(its_own := lambda printed, t: ((printed - t) ** 2).sum()), decimals=9,
          source="Sanity check", wrong="nor is it the cost of the outputs printed above it")
    .line(f"\\lVert{PRINTED['y']}-t\\rVert^2 = (o_1-t_1)^2 + (o_2-t_2)^2",
          lambda printed, t: sum((printed[k] - t[k]) ** 2 for k in (0, 1)), of=its_own),
    Derivation(
        "the derivatives by the last layer, w₅ to w₈",
        cost,
        wrt="v",
        sample=HILL_NET,
        let=SIGNALS | {"i": lambda h, v, c: h @ v + c},
        source=HILL,
        claim="P9",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial C}{\partial o_k} = 2(o_k-t_k)", lambda y, t: 2 * (y - t),
          of=lambda y, t: ((y - t) ** 2).sum(), wrt="y", source="An example, first factor")
    .line(r"\frac{\partial C}{\partial i_k} = 2(o_k-t_k)\,o_k(1-o_k)", lambda fo: fo,
          of=lambda i, t: ((jax.nn.sigmoid(i) - t) ** 2).sum(), wrt="i",
          source="An example, second factor")
    .line(r"\frac{\partial C}{\partial w_{jk}} = 2(o_k-t_k)\,o_k(1-o_k)\,h_j",
          lambda y, t, h: np.array(
              [[2 * (y[k] - t[k]) * y[k] * (1 - y[k]) * h[j] for k in (0, 1)] for j in (0, 1)]),
          source="An example: w₅, and the rest, left to the reader")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w, b, v, c, x, t: by_network(w, b, v, c, x, t)[1][0])
    .line(r"\frac{\partial C}{\partial b_k} = 2(o_k-t_k)\,o_k(1-o_k)\cdot 1", lambda fo: fo,
          wrt="c", source="“Hey, wait… the biases!?”")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w, b, v, c, x, t: by_network(w, b, v, c, x, t)[1][1]),
    Derivation(
        "the derivatives by the hidden layer, w₁ to w₄",
        cost,
        wrt="w",
        sample=HILL_NET,
        let=SIGNALS,
        source=HILL,
        claim="P9",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial C}{\partial h_j} = \sum_k\frac{\partial C}{\partial i_k}w_{jk}",
          lambda fo, v: np.array([sum(fo[k] * v[j, k] for k in (0, 1)) for j in (0, 1)]),
          of=lambda h, v, c, t: ((jax.nn.sigmoid(h @ v + c) - t) ** 2).sum(), wrt="h",
          source="Hidden layers")
    .line(r"\frac{\partial C}{\partial w_{ij}} = \left(\sum_k\frac{\partial C}{\partial i_k}"
          r"w_{jk}\right)h_j(1-h_j)\,x_i",
          lambda fo, v, h, x: np.array(
              [[sum(fo[k] * v[j, k] for k in (0, 1)) * h[j] * (1 - h[j]) * x[i] for j in (0, 1)]
               for i in (0, 1)]),
          source="An example: w₁, and the rest, left to the reader")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w, b, v, c, x, t: by_network(w, b, v, c, x, t)[0][0])
    .line(r"\frac{\partial C}{\partial b_j} = \left(\sum_k\frac{\partial C}{\partial i_k}"
          r"w_{jk}\right)h_j(1-h_j)", lambda fh: fh, wrt="b", source="“Hey, wait… the biases!?”")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w, b, v, c, x, t: by_network(w, b, v, c, x, t)[0][1]),
    Derivation(
        "the second pass, after one step with η = 0.1",
        stepped,
        wrt="w",
        sample=HILL_NET,
        let=SIGNALS,
        source=HILL,
        claim="P9",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"w^+ = w - \eta\nabla_w C", lambda w2: w2, source="Gradient descent")
    .line(r"= w - \eta\cdot\text{mlp\_loss, backwards}",
          lambda w, b, v, c, x, t: w - ETA * by_network(w, b, v, c, x, t)[0][0])
    .line(r"b^+ = b - \eta\nabla_b C", lambda b2: b2, wrt="b", source="Gradient descent")
    .line(r"v^+ = v - \eta\nabla_v C", lambda v2: v2, wrt="v", source="Gradient descent")
    .line(r"c^+ = c - \eta\nabla_c C", lambda c2: c2, wrt="c", source="Gradient descent")
    .line(f"y^+ = {PRINTED['y after']}", constant(PRINTED["y after"]), source="Sanity check",
          of=(again := lambda w2, b2, v2, c2, x: outputs(w2, b2, v2, c2, x)), decimals=5,
          wrong="not the outputs after one step; by the printed numbers the second one would even "
          "have moved away from its target, 0.2, against the sentence below them")
    .line(r"y^+ = \sigma(\sigma(xw^++b^+)v^++c^+)",
          lambda w2, b2, v2, c2, x: sigmoid(sigmoid(x @ w2 + b2) @ v2 + c2), of=again)
    .line(f"= {EXACT['y after']}", constant(EXACT["y after"]), decimals=12)
    .line(f"C^+ = {PRINTED['cost after']}", constant(PRINTED["cost after"]), decimals=9,
          of=(later := lambda w2, b2, v2, c2, x, t: cost(w2, b2, v2, c2, x, t)),
          source="Sanity check", wrong="not the cost after one step")
    .line(r"C^+ = \sum_k (y^+_k - t_k)^2",
          lambda w2, b2, v2, c2, x, t: (
              (sigmoid(sigmoid(x @ w2 + b2) @ v2 + c2) - t) ** 2).sum(), of=later)
    .line(f"= {EXACT['cost after']}", constant(EXACT["cost after"]), decimals=12),
]  # fmt: skip
