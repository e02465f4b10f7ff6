"""Cross entropy: X1 to X4, eq. 14.151–14.167 of the chapter, in both readings of its loss."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import activations, losses
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import (
    CHAPTER,
    FUNDAMENTALS,
    by_hand,
    one_hot,
    same,
    sigmoid,
    softmax,
    values,
)

ln = np.log
N = 4


def binary(p, c):
    """The chapter's loss, 14.151 read as the logistic loss of every class."""
    return -(c * jnp.log(p) + (1 - c) * jnp.log(1 - p)).sum()


def categorical(p, c):
    """The other reading of 14.151."""
    return -(c * jnp.log(p)).sum()


def binary_of_softmax(s, c):
    return binary(jax.nn.softmax(s), c)


def categorical_of_softmax(s, c):
    return categorical(jax.nn.softmax(s), c)


def claimed(number):
    return lambda: np.array(number)


AT = {"s": np.array([0.3, -1.2, 0.8, 0.1]), "c": np.eye(4)[2]}
SOFTMAX = {
    "p": lambda s: softmax(s),
    "dp": lambda p: entries(lambda k, i: p[k] * (same(k, i) - p[i]), len(p), len(p)),  # ∂p_k/∂s_i
    "dL": lambda p, c: -c / p + (1 - c) / (1 - p),
    "ratio": lambda p, c: (p - c) / (1 - p),  # t
}

DERIVATIONS = [
    Derivation(
        "categorical cross entropy",
        categorical,
        wrt="p",
        sample={"z": (N,), "c": one_hot(N), "P": (3, N), "C": one_hot(3, N)},
        let={"p": lambda z: softmax(z), "Q": lambda P: softmax(P)},
        source=FUNDAMENTALS,
        claim="X1",
        ends_in=("losses.categorical_cross_entropy",),
    )
    .line(r"l = -\sum_m c_m\log p_m", lambda p, c: -sum(c[m] * ln(p[m]) for m in range(N)),
          wrt=(), source="3.9")
    .line(r"= -\log p_c", lambda p, c: -ln(p[c.argmax()]), source="3.14")
    .line(r"J = -\sum_n\sum_m c^{(n)}_m\log p^{(n)}_m",
          lambda Q, C: -sum(C[n, m] * ln(Q[n, m]) for n in range(3) for m in range(N)),
          of=lambda Q, C: -(C * jnp.log(Q)).sum(), source="3.13")
    .line(r"= -\sum_n\log p^{(n)}_c",
          lambda Q, C: -sum(ln(Q[n, C[n].argmax()]) for n in range(3)), source="3.14")
    .line(r"= \sum_n\text{categorical\_cross\_entropy}",
          lambda Q, C: values(losses.categorical_cross_entropy, Q, C).sum())
    .line(r"\frac{\partial l}{\partial p_i} = -\frac{c_i}{p_i}",
          lambda p, c: entries(lambda i: -c[i] / p[i], N), source="3.15")
    .line(r"= \text{categorical\_cross\_entropy, backwards}",
          lambda p, c: by_hand(losses.categorical_cross_entropy, p, c)),
    Derivation(
        "logistic loss of every class",
        binary,
        wrt="p",
        sample={"z": (N,), "c": one_hot(N)},
        let={"p": lambda z: softmax(z)},
        source=CHAPTER,
        claim="X2",
        ends_in=("losses.binary_cross_entropy",),
    )
    .line(r"L = -\sum_i\left[c_i\ln p_i + (1-c_i)\ln(1-p_i)\right]",
          lambda p, c: -sum(c[i] * ln(p[i]) + (1 - c[i]) * ln(1 - p[i]) for i in range(N)),
          wrt=(), source="14.151")
    .line(r"\frac{\partial L}{\partial p_i} = -\left[c_i\frac{\partial\ln p_i}{\partial p_i} +"
          r" (1-c_i)\frac{\partial\ln(1-p_i)}{\partial(1-p_i)}\frac{\partial(1-p_i)}{\partial p_i}"
          r"\right]",
          lambda p, c: entries(lambda i: -(c[i] / p[i] + (1 - c[i]) / (1 - p[i]) * -1), N),
          source="14.154–14.156")
    .line(r"= -\frac{c_i}{p_i} + \frac{1-c_i}{1-p_i}",
          lambda p, c: entries(lambda i: -c[i] / p[i] + (1 - c[i]) / (1 - p[i]), N),
          source="14.158")
    .line(r"= \text{binary\_cross\_entropy, backwards}",
          lambda p, c: by_hand(losses.binary_cross_entropy, p, c)),
    Derivation(
        "Jacobian of softmax",
        lambda s: jnp.exp(s) / jnp.exp(s).sum(),
        wrt="s",
        sample={"s": (N,)},
        let={"p": lambda s: softmax(s), "e": lambda s: np.exp(s), "S": lambda e: e.sum()},
        source=CHAPTER,
        claim="X3",
        ends_in=("activations.softmax",),
    )
    .line(r"p_i = \frac{e^{s_i}}{\sum_k e^{s_k}}",
          lambda s: entries(lambda i: np.exp(s[i]) / sum(np.exp(s[k]) for k in range(N)), N),
          wrt=(), source="14.160")
    .line(r"\frac{\partial p_i}{\partial s_i} = \frac{e^{s_i}S-e^{s_i}e^{s_i}}{S^2},\;"
          r" \frac{\partial p_i}{\partial s_j} = \frac{0\cdot S-e^{s_i}e^{s_j}}{S^2},\;"
          r" S = \sum_k e^{s_k}",
          lambda e, S: entries(lambda i, j: (same(i, j) * e[i] * S - e[i] * e[j]) / S**2, N, N),
          source="14.161–14.162")
    .line(r"= p_i(1-p_i) \text{ and } -p_ip_j",
          lambda p: entries(lambda i, j: p[i] * (1 - p[i]) if i == j else -p[i] * p[j], N, N),
          source="14.161–14.162")
    .line(r"= p_i(\delta_{ij}-p_j)",
          lambda p: entries(lambda i, j: p[i] * (same(i, j) - p[j]), N, N), source="14.164")
    .line(r"= \text{diag}(p) - pp^\top", lambda p: np.diag(p) - np.outer(p, p))
    .line(r"= \text{softmax, backwards, for every unit cotangent}",
          lambda s: np.stack([by_hand(activations.softmax, s, dy=row) for row in np.eye(N)])),
    Derivation(
        "the logistic loss over a softmax, at s = (0.3, −1.2, 0.8, 0.1), c = e₃",
        binary_of_softmax,
        wrt="s",
        sample=AT,
        let=SOFTMAX,
        source=CHAPTER,
        claim="X4",
        ends_in=("losses.binary_cross_entropy", "activations.softmax"),
    )
    .line(r"\frac{\partial L}{\partial s_i} ="
          r" \frac{\partial L}{\partial p_i}\frac{\partial p_i}{\partial s_i}",
          lambda dL, dp: entries(lambda i: dL[i] * dp[i, i], N), source="14.152, 14.165",
          wrong="“all components but one vanish”: every p_k depends on s_i through the "
          "normaliser, so the sum over k must stay")
    .line(r"= p_i - c_i", lambda p, c: p - c, source="14.166–14.167",
          wrong="right for the categorical loss over a softmax and for this loss over independent "
          "sigmoids, but not for this loss over a softmax")
    .line(r"= (0.27095996, 0.06045934, -0.55326255, 0.22184325)",
          claimed([0.27095996, 0.06045934, -0.55326255, 0.22184325]), decimals=8,
          source="14.167, in numbers", wrong="p − c at this point")
    .line(r"\frac{\partial L}{\partial s_i} ="
          r" \sum_k\frac{\partial L}{\partial p_k}\frac{\partial p_k}{\partial s_i}",
          lambda dL, dp: entries(lambda i: sum(dL[k] * dp[k, i] for k in range(N)), N))
    .line(r"= t_i - p_i\sum_k t_k, \quad t_i = \frac{p_i-c_i}{1-p_i}",
          lambda ratio, p: entries(
              lambda i: ratio[i] - p[i] * sum(ratio[k] for k in range(N)), N))
    .line(r"= (0.44723621, 0.08121171, -0.87540707, 0.34695915)",
          claimed([0.44723621, 0.08121171, -0.87540707, 0.34695915]), decimals=8)
    .line(r"= \text{softmax after binary\_cross\_entropy, backwards}",
          lambda s, p, c: by_hand(
              activations.softmax, s, dy=by_hand(losses.binary_cross_entropy, p, c))),
    Derivation(
        "the logistic loss over a softmax of two classes",
        binary_of_softmax,
        wrt="s",
        sample={"s": (2,), "c": one_hot(2)},
        let={"p": lambda s: softmax(s)},
        source=CHAPTER,
        claim="X4",
    )
    .line(r"\frac{\partial L}{\partial s_i} = p_i - c_i", lambda p, c: p - c, source="14.167",
          wrong="for two classes it is off by a factor of exactly 2: both components say the same")
    .line(r"\frac{\partial L}{\partial s_i} = 2(p_i-c_i)", lambda p, c: 2 * (p - c)),
    Derivation(
        "the categorical loss over a softmax",
        categorical_of_softmax,
        wrt="s",
        sample={"s": (N,), "c": one_hot(N)},
        let=SOFTMAX | {"dL": lambda p, c: -c / p},
        source=CHAPTER,
        claim="X4",
        ends_in=("losses.softmax_cross_entropy",),
    )
    .line(r"\frac{\partial L}{\partial s_i} = \frac{\partial L}{\partial p_i}"
          r"\frac{\partial p_i}{\partial s_i} = -c_i(1-p_i)",
          lambda dL, dp: entries(lambda i: dL[i] * dp[i, i], N),
          source="14.165, with 14.151 read as −Σ cᵢ ln pᵢ",
          wrong="in this reading the result p − c is right, but not the step: one component alone "
          "gives −cᵢ(1 − pᵢ), zero for every wrong class")
    .line(r"\frac{\partial L}{\partial s_i} ="
          r" \sum_k\frac{\partial L}{\partial p_k}\frac{\partial p_k}{\partial s_i}",
          lambda dL, dp: entries(lambda i: sum(dL[k] * dp[k, i] for k in range(N)), N))
    .line(r"= -\sum_k\frac{c_k}{p_k}p_k(\delta_{ki}-p_i)",
          lambda p, c: entries(
              lambda i: -sum(c[k] / p[k] * p[k] * (same(k, i) - p[i]) for k in range(N)), N))
    .line(r"= -c_i + p_i\sum_k c_k",
          lambda p, c: entries(lambda i: -c[i] + p[i] * sum(c[k] for k in range(N)), N))
    .line(r"= p_i - c_i", lambda p, c: p - c, source="14.167")
    .line(r"= \text{softmax\_cross\_entropy, backwards}",
          lambda s, c: by_hand(losses.softmax_cross_entropy, s, c)),
    Derivation(
        "the logistic loss over independent sigmoids",
        lambda s, c: binary(1 / (1 + jnp.exp(-s)), c),
        wrt="s",
        sample={"s": (N,), "c": one_hot(N)},
        let={"p": lambda s: sigmoid(s)},
        source=CHAPTER,
        claim="X4",
        ends_in=("losses.binary_cross_entropy_with_logits",),
    )
    .line(r"\frac{\partial L}{\partial s_i} ="
          r" \left(-\frac{c_i}{p_i}+\frac{1-c_i}{1-p_i}\right)p_i(1-p_i)",
          lambda p, c: entries(
              lambda i: (-c[i] / p[i] + (1 - c[i]) / (1 - p[i])) * p[i] * (1 - p[i]), N))
    .line(r"= p_i - c_i", lambda p, c: p - c, source="14.167")
    .line(r"= \text{binary\_cross\_entropy\_with\_logits, backwards}",
          lambda s, c: by_hand(losses.binary_cross_entropy_with_logits, s, c)),
]  # fmt: skip
