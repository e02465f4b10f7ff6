"""Descent on data sets: D1, eq. 14.168–14.171 of the chapter, and what descent does not promise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual.derivation import Derivation
from handgrad.manual.derivations.notation import CHAPTER, FUNDAMENTALS, by_hand, compiled
from handgrad.manual.descent import batch_descent
from handgrad.manual.networks import mlp_loss

ETA = 0.05
SAMPLES, BATCH = 5, 2
NET = [[(3, 2), (2,)]]


def total(params, X, T):
    """E = Σᵢ Lᵢ of a one-layer tanh net, ½‖ŷ − t‖² a sample."""
    ((w, b),) = params
    return 0.5 * ((jnp.tanh(X @ w + b) - T) ** 2).sum()


def gradient_of(params, x, t):
    """∇L of one sample."""
    ((w, b),) = params
    y = np.tanh(x @ w + b)
    nu = (y - t) * (1 - y**2)
    return np.outer(x, nu), nu


def summed(params, X, T, samples, scale=1.0):
    parts = [gradient_of(params, X[n], T[n]) for n in samples]
    return [[scale * sum(part[k] for part in parts) for k in (0, 1)]]


def over_all_batches(params, X, T, size):
    """The mean of n/b Σ_{i∈B} ∇Lᵢ over every batch B of b samples."""
    batches = list(itertools.combinations(range(SAMPLES), size))
    grads = [summed(params, X, T, batch, SAMPLES / size) for batch in batches]
    return [[sum(g[0][k] for g in grads) / len(batches) for k in (0, 1)]]


def step(params, gradient, sign=-1.0):
    return jax.tree.map(lambda p, g: p + sign * ETA * g, params, gradient)


@compiled
def one_epoch(params, X, T):
    """The parameters after one step on all samples, by the hand-written loop."""
    layers = [tuple(layer) for layer in params]
    return batch_descent(
        mlp_loss, layers, X, T, learning_rate=ETA, epochs=1, output_activation="tanh"
    )[0]


def two_tanhs(theta, x):
    """A net of two hidden units without biases: v₁ tanh(w₁x) + v₂ tanh(w₂x)."""
    w1, w2, v1, v2 = theta
    return v1 * jnp.tanh(w1 * x) + v2 * jnp.tanh(w2 * x)


def fit(theta, best, x):
    """½ Σ (net(θ) − net(θ*))²: zero at θ* and wherever its hidden units are swapped."""
    return 0.5 * ((two_tanhs(theta, x) - two_tanhs(best, x)) ** 2).sum()


DERIVATIONS = [
    Derivation(
        "batch, stochastic and mini-batch gradients",
        total,
        wrt="params",
        sample={"params": NET, "X": (SAMPLES, 3), "T": (SAMPLES, 2)},
        source=CHAPTER,
        claim="D1",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"E = \sum_i L_i",
          lambda params, X, T: sum(
              0.5 * ((np.tanh(X[n] @ params[0][0] + params[0][1]) - T[n]) ** 2).sum()
              for n in range(SAMPLES)), wrt=(), source="14.168")
    .line(r"\nabla E = \sum_i\nabla L_i",
          lambda params, X, T: summed(params, X, T, range(SAMPLES)), source="14.171")
    .line(r"= \frac1{|\mathcal{B}|}\sum_{B\in\mathcal{B}}\frac nb\sum_{i\in B}\nabla L_i,\; b=2"
          r" \text{ (mini-batch, every batch)}",
          lambda params, X, T: over_all_batches(params, X, T, BATCH),
          source="mini-batch gradient descent")
    .line(r"= \frac1n\sum_i n\,\nabla L_i \text{ (stochastic, every sample)}",
          lambda params, X, T: over_all_batches(params, X, T, 1),
          source="stochastic gradient descent")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda params, X, T: by_hand(
              mlp_loss, [tuple(layer) for layer in params], X, T, output_activation="tanh")),
    Derivation(
        "the step",
        lambda params, X, T: (
            0.5 * sum((p**2).sum() for p in jax.tree.leaves(params)) - ETA * total(params, X, T)
        ),
        wrt="params",
        sample={"params": NET, "X": (SAMPLES, 3), "T": (SAMPLES, 2)},
        let={"gradient": lambda params, X, T: summed(params, X, T, range(SAMPLES))},
        source=CHAPTER,
        claim="D1",
        ends_in=("descent.batch_descent",),
    )
    .line(r"w \leftarrow w + \eta\sum_i\nabla L_i",
          lambda params, gradient: step(params, gradient, +1.0), source="summary, on SGD",
          wrong="“a step in the direction of the gradient” climbs; the step is against it, as "
          "14.171 has it")
    .line(r"w \leftarrow w - \eta\sum_i\nabla L_i", lambda params, gradient: step(params, gradient),
          source="14.171")
    .line(r"= \text{batch\_descent, one epoch}", one_epoch),
    Derivation(
        "descent may end in a saddle",
        lambda x, y, h: (x**2 - (y + h) ** 2) - (x**2 - y**2),
        sample={"start": np.array([1.0, 0.0]), "h": np.float64(0.5)},
        let={  # 200 steps of descent on x² − y², from the line y = 0
            "x": lambda start: start[0] * (1 - 2 * 0.1) ** 200,
            "y": lambda start: start[1] * (1 + 2 * 0.1) ** 200,
        },
        source=CHAPTER,
        claim="D1",
    )
    .line(r"f(x_\infty+h) - f(x_\infty) \ge 0 \text{ for small } h",
          lambda: 0.0, source="before “Cross entropy and its derivative”",
          wrong="descent is said to be sure of a local minimum; on f = x² − y², started at (1, "
          "0), it converges to the saddle (0, 0), where f(h e₂) − f(0) = −h²")
    .line(r"f(he_2) - f(0) = -h^2", lambda h: -(h**2))
    .line(r"\nabla f(x_\infty) = 0", lambda x, y: np.array([2 * x, -2 * y]),
          of=lambda: jnp.zeros(2), decimals=12),
    Derivation(
        "the loss of a net is not convex",
        lambda middle, best, x: fit(middle, best, x),
        sample={"best": np.array([2.0, -1.0, 1.5, 0.5]), "x": np.linspace(-1, 1, 7)},
        let={
            "swapped": lambda best: best[[1, 0, 3, 2]],
            "middle": lambda best, swapped: 0.5 * (best + swapped),
        },
        source=FUNDAMENTALS,
        claim="D1",
    )
    .line(r"J\left(\tfrac{\theta+\theta'}2\right) \le \tfrac12J(\theta)+\tfrac12J(\theta')",
          lambda best, swapped, x: 0.5 * float(fit(best, best, x)) + 0.5 * float(
              fit(swapped, best, x)),
          source="3.2.3, figure 3-16",
          wrong="a convex loss with one minimum is assumed “for simplicity”; no net with a hidden "
          "layer has one: swapping two hidden units gives a second minimum of the same J = 0, and "
          "J is higher between them")
    .line(r"J\left(\tfrac{\theta+\theta'}2\right) ="
          r" \tfrac12\sum_n\left(\hat y(\tfrac{\theta+\theta'}2) - t\right)^2 > 0",
          lambda middle, best, x: 0.5 * sum(
              (middle[2] * np.tanh(middle[0] * x[n]) + middle[3] * np.tanh(middle[1] * x[n])
               - best[2] * np.tanh(best[0] * x[n]) - best[3] * np.tanh(best[1] * x[n])) ** 2
              for n in range(7)))
    .line(r"J(\theta') = J(\theta) = 0",
          lambda swapped, best, x: 0.5 * sum(
              (swapped[2] * np.tanh(swapped[0] * x[n]) + swapped[3] * np.tanh(swapped[1] * x[n])
               - best[2] * np.tanh(best[0] * x[n]) - best[3] * np.tanh(best[1] * x[n])) ** 2
              for n in range(7)),
          of=lambda best, x: fit(best, best, x)),
]  # fmt: skip
