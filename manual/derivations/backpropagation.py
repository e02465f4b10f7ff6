"""Backpropagation index by index: P4 to P6, eq. 14.83–14.150 of the chapter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import (
    CHAPTER,
    by_hand,
    compiled,
    same,
    sigmoid,
)
from handgrad.manual.graph import Node, gradients
from handgrad.manual.networks import mlp_loss

tanh = np.tanh
ETA = 0.1
NI, NJ, NO = 3, 2, 2  # units in the input, hidden and output layer


# Case 1: one layer of sigmoids, E = ½ Σ (ŷ − t)²


def error(w, b, y, t):
    return 0.5 * ((jax.nn.sigmoid(y @ w + b) - t) ** 2).sum()


CASE_1 = {
    "z": lambda w, b, y: y @ w + b,
    "yhat": lambda z: sigmoid(z),
    "slope": lambda yhat: yhat * (1 - yhat),  # δ′(zₒ)
    "dz": lambda y: entries(lambda k, j, o: y[j] * same(k, o), 3, NJ, 3),  # ∂z_k/∂w_jo
    "dyhat": lambda slope, dz: entries(lambda k, j, o: slope[k] * dz[k, j, o], 3, NJ, 3),
    "nu": lambda yhat, t, slope: (yhat - t) * slope,
}

# Case 2: two layers of sigmoids


def deep_error(w1, b1, w2, b2, x, t):
    return error(w2, b2, jax.nn.sigmoid(x @ w1 + b1), t)


CASE_2 = {
    "zj": lambda w1, b1, x: x @ w1 + b1,
    "y": lambda zj: sigmoid(zj),
    "zo": lambda w2, b2, y: y @ w2 + b2,
    "yhat": lambda zo: sigmoid(zo),
    "sj": lambda y: y * (1 - y),  # δ′(zⱼ)
    "so": lambda yhat: yhat * (1 - yhat),  # δ′(zₒ)
    "nuo": lambda yhat, t, so: (yhat - t) * so,
    "nuj": lambda sj, nuo, w2: entries(
        lambda j: sj[j] * sum(nuo[o] * w2[j, o] for o in range(NO)), NJ
    ),
    "dzj": lambda x: entries(lambda k, i, j: x[i] * same(k, j), NJ, NI, NJ),  # ∂z_k/∂w_ij
    "dyj": lambda sj, dzj: entries(lambda k, i, j: sj[k] * dzj[k, i, j], NJ, NI, NJ),
    "dzo": lambda w2, dyj: entries(lambda o, i, j: w2[j, o] * dyj[j, i, j], NO, NI, NJ),
    "dyo": lambda so, dzo: entries(lambda o, i, j: so[o] * dzo[o, i, j], NO, NI, NJ),
}
DEEP = {"w1": (NI, NJ), "b1": (NJ,), "w2": (NJ, NO), "b2": (NO,), "x": (NI,), "t": (NO,)}
NET = {"activation": "sigmoid", "output_activation": "sigmoid", "loss": "half_squared_error"}


def by_mlp(params, x, t, **config):
    """The gradient of all parameters, by the hand-written network."""
    return by_hand(mlp_loss, params, x, t, **config)


# P6: any depth, any δ, any E: four layers of silu, E = Σ (ŷ − t)²

WIDTHS = (2, 3, 2, 3, 2)
LAYERS = [[(n, m), (m,)] for n, m in itertools.pairwise(WIDTHS)]


def any_error(params, x, t):
    y = x
    for w, b in params:
        y = jax.nn.silu(y @ w + b)
    return ((y - t) ** 2).sum()


def forward(params, x):
    """All z and all y, the input first among the y."""
    z, y = [], [x]
    for w, b in params:
        z.append(y[-1] @ w + b)
        y.append(z[-1] * sigmoid(z[-1]))
    return z, y


def silu_slope(z):
    return sigmoid(z) * (1 + z * (1 - sigmoid(z)))


def five_steps(params, x, t):
    z, y = forward(params, x)  # 1. the feed-forward signals
    upstream = 2 * (y[-1] - t)  # 2. the output error
    grads = []
    for (w, _), zl, below in zip(params[::-1], z[::-1], y[-2::-1], strict=True):
        nu = silu_slope(zl) * upstream  # 3. the error signal, backpropagated
        grads.append([np.outer(below, nu), nu])  # 4. ν⁽ˡ⁾ y⁽ˡ⁻¹⁾
        upstream = w @ nu
    return grads[::-1]


def by_sums(params, x, t):
    """The same with every sum written out."""
    z, y = forward(params, x)
    nu = [entries(lambda o: 2 * (y[-1][o] - t[o]) * silu_slope(z[-1][o]), 2)]
    for (w, _), zl in zip(params[:0:-1], z[-2::-1], strict=True):
        after = nu[0]
        sums = [sum(w[j, o] * after[o] for o in range(len(after))) for j in range(len(zl))]
        nu.insert(0, np.array([silu_slope(zl[j]) * sums[j] for j in range(len(zl))]))
    return [
        [entries(lambda i, j, n=n, b=below: n[j] * b[i], len(below), len(n)), n]
        for n, below in zip(nu, y, strict=False)
    ]


DERIVATIONS = [
    Derivation(
        "case 1, hidden to output: weights",
        error,
        wrt="w",
        sample={"w": (NJ, 3), "b": (3,), "y": (NJ,), "t": (3,)},
        let=CASE_1,
        source=CHAPTER,
        claim="P4",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial E}{\partial w_{jo}} ="
          r" \tfrac12\sum_k 2(\hat y_k-t_k)\frac{\partial(\hat y_k-t_k)}{\partial w_{jo}}",
          lambda yhat, t, dyhat: entries(
              lambda j, o: 0.5 * sum(2 * (yhat[k] - t[k]) * dyhat[k, j, o] for k in range(3)),
              NJ, 3),
          source="14.83")
    .line(r"= (\hat y_j-t_j)\frac{\partial(\hat y_j-t_j)}{\partial w_{jo}}",
          lambda yhat, t, dyhat: entries(
              lambda j, o: (yhat[j] - t[j]) * dyhat[j, j, o], NJ, 3), source="14.83, after",
          wrong="“the only term that is not zero is that of the j dimension”: w_jo feeds output "
          "o, so the term that survives is o; j counts the hidden units")
    .line(r"= (\hat y_o-t_o)\frac{\partial(\hat y_o-t_o)}{\partial w_{jo}}",
          lambda yhat, t, dyhat: entries(
              lambda j, o: (yhat[o] - t[o]) * (dyhat[o, j, o] - 0), NJ, 3), source="14.83")
    .line(r"= (\hat y_o-t_o)\frac{\partial\hat y_o}{\partial w_{jo}}",
          lambda yhat, t, dyhat: entries(
              lambda j, o: (yhat[o] - t[o]) * dyhat[o, j, o], NJ, 3), source="14.87")
    .line(r"= (\hat y_o-t_o)\,\delta'(z_o)\frac{\partial z_o}{\partial w_{jo}}",
          lambda yhat, t, slope, dz: entries(
              lambda j, o: (yhat[o] - t[o]) * slope[o] * dz[o, j, o], NJ, 3), source="14.89")
    .line(r"= (\hat y_o-t_o)\,\delta'(z_o)\,y_j",
          lambda yhat, t, slope, y: entries(
              lambda j, o: (yhat[o] - t[o]) * slope[o] * y[j], NJ, 3), source="14.93")
    .line(r"= \nu_o\,y_j", lambda nu, y: entries(lambda j, o: nu[o] * y[j], NJ, 3), source="14.99")
    .line(r"= y\,\nu^\top", lambda nu, y: np.outer(y, nu))
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w, b, y, t: by_mlp([(w, b)], y, t, **NET)[0][0]),
    Derivation(
        "case 1: what the lines are made of",
        error,
        wrt="b",
        sample={"w": (NJ, 3), "b": (3,), "y": (NJ,), "t": (3,)},
        let=CASE_1,
        source=CHAPTER,
        claim="P4",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"z_o = \sum_j w_{jo}y_j + b_o",
          lambda w, b, y: entries(lambda o: sum(w[j, o] * y[j] for j in range(NJ)) + b[o], 3),
          of=(scores := lambda w, b, y: y @ w + b), source="14.90")
    .line(r"\frac{\partial z_k}{\partial w_{jo}} = y_j\,\delta_{ko}", lambda dz: dz,
          of=scores, wrt="w", source="14.92")
    .line(r"\frac{\partial\hat y_k}{\partial w_{jo}} = \delta'(z_k)\,y_j\,\delta_{ko}",
          lambda dyhat: dyhat, of=lambda w, b, y: jax.nn.sigmoid(y @ w + b), wrt="w",
          source="14.88")
    .line(r"\frac{\partial t_k}{\partial w_{jo}} = 0", lambda: np.zeros((3, NJ, 3)),
          of=lambda w, t: t + 0 * w.sum(), wrt="w", source="14.84")
    .line(r"\nu_o = \frac{\partial E}{\partial z_o} = (\hat y_o-t_o)\,\delta'(z_o)",
          lambda nu: nu, of=lambda z, t: 0.5 * ((jax.nn.sigmoid(z) - t) ** 2).sum(), wrt="z",
          source="14.98")
    .line(r"\frac{\partial E}{\partial b_o} = \nu_o", lambda nu: nu, source="14.101–14.102")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w, b, y, t: by_mlp([(w, b)], y, t, **NET)[0][1])
    .line(r"w_{jo} + \Delta w_{jo} = w_{jo} - \eta\,\nu_o\,y_j",
          lambda w, nu, y: entries(lambda j, o: w[j, o] - ETA * nu[o] * y[j], NJ, 3),
          of=lambda w, b, y, t: 0.5 * (w**2).sum() - ETA * error(w, b, y, t), wrt="w",
          source="14.100"),
    Derivation(
        "case 2, hidden to hidden: weights",
        deep_error,
        wrt="w1",
        sample=DEEP,
        let=CASE_2,
        source=CHAPTER,
        claim="P5",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial E}{\partial w_{ij}} ="
          r" \sum_o(\hat y_o-t_o)\frac{\partial\hat y_o}{\partial w_{ij}}",
          lambda yhat, t, dyo: entries(
              lambda i, j: sum((yhat[o] - t[o]) * dyo[o, i, j] for o in range(NO)), NI, NJ),
          source="14.103")
    .line(r"= \sum_o(\hat y_o-t_o)\,\delta'(z_o)\frac{\partial z_o}{\partial w_{ij}}",
          lambda yhat, t, so, dzo: entries(
              lambda i, j: sum((yhat[o] - t[o]) * so[o] * dzo[o, i, j] for o in range(NO)), NI, NJ),
          source="14.105")
    .line(r"= \sum_o\nu_o\,w_{jo}\frac{\partial y_j}{\partial w_{ij}}",
          lambda nuo, w2, dyj: entries(
              lambda i, j: sum(nuo[o] * w2[j, o] * dyj[j, i, j] for o in range(NO)), NI, NJ),
          source="14.109–14.115")
    .line(r"= \sum_o\nu_o\,w_{jo}\,\delta'(z_j)\frac{\partial z_j}{\partial w_{ij}}",
          lambda nuo, w2, sj, dzj: entries(
              lambda i, j: sum(nuo[o] * w2[j, o] * sj[j] * dzj[j, i, j] for o in range(NO)),
              NI, NJ),
          source="14.116–14.118")
    .line(r"= y_i\,\delta'(z_j)\sum_o\nu_o w_{jo}",
          lambda x, sj, nuo, w2: entries(
              lambda i, j: x[i] * sj[j] * sum(nuo[o] * w2[j, o] for o in range(NO)), NI, NJ),
          source="14.119–14.124")
    .line(r"= \nu_j\,y_i", lambda nuj, x: entries(lambda i, j: nuj[j] * x[i], NI, NJ),
          source="14.132")
    .line(r"= y\,\left(\delta'(z)\circ W\nu\right)^\top",
          lambda x, sj, w2, nuo: np.outer(x, sj * (w2 @ nuo)))
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w1, b1, w2, b2, x, t: by_mlp([(w1, b1), (w2, b2)], x, t, **NET)[0][0]),
    Derivation(
        "case 2: what the lines are made of, and the bias (exercise)",
        deep_error,
        wrt="b1",
        sample=DEEP,
        let=CASE_2,
        source=CHAPTER,
        claim="P5",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial z_o}{\partial w_{ij}} = w_{jo}\frac{\partial y_j}{\partial w_{ij}}",
          lambda dzo: dzo, of=lambda w1, b1, w2, b2, x: jax.nn.sigmoid(x @ w1 + b1) @ w2 + b2,
          wrt="w1", source="14.107–14.113")
    .line(r"\frac{\partial z_o}{\partial y_j} = w_{jo}", lambda w2: w2.T,
          of=lambda y, w2, b2: y @ w2 + b2, wrt="y", source="14.113")
    .line(r"\frac{\partial y_j}{\partial w_{ij}} = \delta'(z_j)\frac{\partial z_j}{\partial"
          r" w_{ij}}",
          lambda dyj: dyj, of=lambda w1, b1, x: jax.nn.sigmoid(x @ w1 + b1), wrt="w1",
          source="14.116")
    .line(r"\nu_j = \frac{\partial E}{\partial z_j} = \delta'(z_j)\sum_o\nu_o w_{jo}",
          lambda nuj: nuj, of=lambda zj, w2, b2, t: error(w2, b2, jax.nn.sigmoid(zj), t), wrt="zj",
          source="14.131")
    .line(r"\frac{\partial E}{\partial b_j} = \delta'(z_j)\sum_o\nu_o w_{jo}",
          lambda sj, nuo, w2: entries(
              lambda j: sum(nuo[o] * w2[j, o] for o in range(NO)) * sj[j], NJ),
          source="14.142, exercise")
    .line(r"= \nu_j", lambda nuj: nuj, source="14.142")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda w1, b1, w2, b2, x, t: by_mlp([(w1, b1), (w2, b2)], x, t, **NET)[0][1])
    .line(r"\frac{\partial E}{\partial b_{output}} = \nu_j", lambda nuj: nuj, wrt="b2",
          source="14.142, the text",
          wrong="νⱼ is said to be the gradient of the output layer's bias; it is the hidden "
          "layer's")
    .line(r"\frac{\partial E}{\partial b_{output}} = \nu_o", lambda nuo: nuo, wrt="b2")
    .line(r"w_{ij} + \Delta w_{ij} = w_{ij} - \eta\,\nu_j\,y_i",
          lambda w1, nuj, x: entries(lambda i, j: w1[i, j] - ETA * nuj[j] * x[i], NI, NJ),
          of=lambda w1, b1, w2, b2, x, t: (
              0.5 * (w1**2).sum() - ETA * deep_error(w1, b1, w2, b2, x, t)),
          wrt="w1", source="14.143–14.144"),
    Derivation(
        "any layer, any activation, any error: the five steps",
        any_error,
        wrt="params",
        sample={"params": LAYERS, "x": (2,), "t": (2,)},
        source=CHAPTER,
        claim="P6",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial E}{\partial w^{(l)}_{ij}} = \nu^{(l)}_j y^{(l-1)}_i,\;"
          r" \nu^{(l)}_j = \delta'(z^{(l)}_j)\sum_o\nu^{(l+1)}_o w^{(l+1)}_{jo}",
          by_sums, source="14.133–14.135")
    .line(r"= y^{(l-1)}\nu^{(l)\top},\; \nu^{(l)} = \delta'(z^{(l)})\circ W^{(l+1)}\nu^{(l+1)}",
          five_steps, source="14.147")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda params, x, t: by_mlp(
              [tuple(layer) for layer in params], x, t, activation="silu",
              output_activation="silu", loss="squared_error")),
    Derivation(
        "one node: local gradient times upstream gradient",
        lambda x, y: jnp.sin(x**2 * y),
        wrt="x",
        sample={"x": (), "y": ()},
        let={"z": lambda x, y: x**2 * y, "upstream": lambda z: np.cos(z)},
        source=CHAPTER,
        claim="P6",
        ends_in=("graph.gradients",),
    )
    .line(r"\frac{\partial L}{\partial z}", lambda upstream: upstream,
          of=lambda z: jnp.sin(z), wrt="z", source="14.139")
    .line(r"\frac{\partial L}{\partial x} = \frac{\partial L}{\partial z}\frac{\partial"
          r" z}{\partial x}",
          lambda upstream, x, y: upstream * 2 * x * y, source="figure 14.14")
    .line(r"= \text{the flow graph's rule for } x^2y, \text{ seeded with } \partial L/\partial z",
          compiled(lambda upstream, x, y: gradients((n := Node(x)) ** 2 * y * upstream, n)[0]))
    .line(r"\frac{\partial L}{\partial y} = \frac{\partial L}{\partial z}\frac{\partial"
          r" z}{\partial y}",
          lambda upstream, x: upstream * x**2, wrt="y", source="figure 14.14"),
]  # fmt: skip
