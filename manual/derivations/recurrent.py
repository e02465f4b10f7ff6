"""Recurrent nets: R1 to R4, eq. 14.175–14.185 of the chapter, in columns as it has them."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import losses
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import (
    CHAPTER,
    by_hand,
    one_hot,
    same,
    softmax,
    values,
)
from handgrad.manual.recurrent import rnn

norm, tanh = np.linalg.norm, np.tanh
T, IN, H, OUT = 4, 2, 3, 3  # steps 0…3


def states(U, W, x):
    """All sₜ = tanh(U xₜ + W sₜ₋₁), with s₋₁ = 0."""
    s, kept = jnp.zeros(H), []
    for t in range(T):
        s = jnp.tanh(U @ x[t] + W @ s)
        kept.append(s)
    return jnp.stack(kept)


def errors(U, V, W, x, y):
    """Eₜ of every step: cross entropy of softmax(V sₜ)."""
    scores = states(U, W, x) @ V.T
    return -(y * jax.nn.log_softmax(scores)).sum(-1)


def last_error(U, V, W, x, y):
    return errors(U, V, W, x, y)[3]


def from_state(s, V, y):
    return -(y * jax.nn.log_softmax(V @ s)).sum()


def onward(s1, U, W, x):
    """s₃ out of s₁."""
    return jnp.tanh(U @ x[3] + W @ jnp.tanh(U @ x[2] + W @ s1))


def jacobian_product(steps, k):
    """∂s₃/∂s_k = ∏ ∂sⱼ/∂sⱼ₋₁, j from 3 down to k+1."""
    product = np.eye(H)
    for j in range(3, k, -1):
        product = product @ steps[j]
    return product


def over_time(steps, de3, immediate):
    """Σ_k ∂E₃/∂s₃ · ∂s₃/∂s_k · ∂⁺s_k/∂W, k = 0…3; immediate: (k, i, a, b)."""
    a, b = immediate.shape[2:]
    return sum(
        entries(
            lambda p, q, k=k: sum(
                de3[m] * jacobian_product(steps, k)[m, i] * immediate[k, i, p, q]
                for m in range(H)
                for i in range(H)
            ),
            a,
            b,
        )
        for k in range(T)
    )


def deltas(s, W, de3):
    """Backpropagation through time: δ_k = (Wᵀδ_{k+1}) ∘ (1 − s_k²), one vector a step."""
    delta, upstream = [], de3
    for k in range(T - 1, -1, -1):
        delta.insert(0, upstream * (1 - s[k] ** 2))
        upstream = W.T @ delta[0]
    return delta


def by_rnn(U, W, x, de3, wrt):
    """The hand-written net, which has samples in rows: (batch 1, time, ·)."""
    dh = np.zeros((1, T, H))
    dh[0, 3] = de3
    return by_hand(rnn, x[None], np.zeros((1, H)), U.T, W.T, np.zeros(H), dy=dh, wrt=wrt)


SAMPLE = {"U": (H, IN), "V": (OUT, H), "W": (H, H), "x": (T, IN), "y": one_hot(T, OUT)}
SIGNALS = {
    "s": lambda U, W, x: np.asarray(states(U, W, x)),
    "before": lambda s: np.concatenate([np.zeros((1, H)), s[:-1]]),  # sₜ₋₁
    "yhat": lambda s, V: softmax(s @ V.T),
    "s3": lambda s: s[3],
    "s1": lambda s: s[1],
    "y3": lambda y: y[3],
    "z3": lambda V, s3: V @ s3,
    "de3": lambda V, yhat, y: V.T @ (yhat[3] - y[3]),  # ∂E₃/∂s₃
    "steps": lambda s, W: [np.diag(1 - s[j] ** 2) @ W for j in range(T)],  # ∂sⱼ/∂sⱼ₋₁
    "plusW": lambda s, before: entries(
        lambda k, i, a, b: (1 - s[k, i] ** 2) * same(i, a) * before[k, b], T, H, H, H
    ),
    "plusU": lambda s, x: entries(
        lambda k, i, a, b: (1 - s[k, i] ** 2) * same(i, a) * x[k, b], T, H, H, IN
    ),
}

DERIVATIONS = [
    Derivation(
        "forward",
        lambda U, V, W, x, y: errors(U, V, W, x, y).sum(),
        sample=SAMPLE,
        let=SIGNALS,
        source=CHAPTER,
        claim="R1",
        ends_in=("recurrent.rnn", "losses.softmax_cross_entropy"),
    )
    .line(r"s_t = \tanh(Ux_t + Ws_{t-1})",
          lambda U, W, x, before: entries(
              lambda t, i: tanh(
                  sum(U[i, k] * x[t, k] for k in range(IN))
                  + sum(W[i, j] * before[t, j] for j in range(H))), T, H),
          of=states, source="14.175")
    .line(r"= \text{rnn}",
          lambda U, W, x: values(rnn, x[None], np.zeros((1, H)), U.T, W.T, np.zeros(H))[0])
    .line(r"\hat y_t = \text{softmax}(Vs_t)", lambda yhat: yhat,
          of=lambda s, V: jax.nn.softmax(s @ V.T), source="14.176")
    .line(r"E = \sum_t E_t = -\sum_t\sum_i y_{ti}\ln\hat y_{ti}",
          lambda yhat, y: -sum(
              y[t, i] * np.log(yhat[t, i]) for t in range(T) for i in range(OUT)),
          source="figure 14.16")
    .line(r"= \sum_t\text{softmax\_cross\_entropy}(Vs_t, y_t)",
          lambda s, V, y: values(losses.softmax_cross_entropy, s @ V.T, y).sum()),
    Derivation(
        "V depends on the present step only",
        last_error,
        wrt="V",
        sample=SAMPLE,
        let=SIGNALS,
        source=CHAPTER,
        claim="R2",
        ends_in=("losses.softmax_cross_entropy",),
    )
    .line(r"\frac{\partial E_3}{\partial V} = \frac{\partial E_3}{\partial\hat y_3}"
          r"\frac{\partial\hat y_3}{\partial z_3}\frac{\partial z_3}{\partial V}",
          lambda yhat, y, s: entries(
              lambda a, b: sum(
                  -y[3, k] / yhat[3, k] * yhat[3, k] * (same(k, m) - yhat[3, m])
                  * same(m, a) * s[3, b] for k in range(OUT) for m in range(OUT)), OUT, H),
          source="14.178")
    .line(r"= (\hat y_3-y_3)_a\,s_{3,b}",
          lambda yhat, y, s: entries(lambda a, b: (yhat[3, a] - y[3, a]) * s[3, b], OUT, H),
          source="14.178")
    .line(r"= (\hat y_3-y_3)\otimes s_3", lambda yhat, y, s: np.outer(yhat[3] - y[3], s[3]),
          source="14.178")
    .line(r"= \text{softmax\_cross\_entropy, backwards, times } s_3^\top",
          lambda z3, y3, s3: np.outer(by_hand(losses.softmax_cross_entropy, z3, y3), s3))
    .line(r"\frac{\partial E_3}{\partial z_3} = \hat y_3-y_3", lambda yhat, y: yhat[3] - y[3],
          of=lambda z3, y3: -(y3 * jax.nn.log_softmax(z3)).sum(), wrt="z3", source="14.178"),
    Derivation(
        "W reaches back through time",
        last_error,
        wrt="W",
        sample=SAMPLE,
        let=SIGNALS,
        source=CHAPTER,
        claim="R3",
        ends_in=("recurrent.rnn",),
    )
    .line(r"\frac{\partial E_3}{\partial W} = \frac{\partial E_3}{\partial s_3}"
          r"\frac{\partial s_3}{\partial s_2}\frac{\partial^+s_2}{\partial W_2}",
          lambda steps, de3, plusW: np.einsum(
              "m,mi,iab->ab", de3, jacobian_product(steps, 2), plusW[2]),
          source="14.180, text",
          wrong="“s₂ depends on W₂”: W has no index of time; it is one matrix, used at every "
          "step, and the term of one step alone is not its gradient")
    .line(r"\frac{\partial E_3}{\partial W} = \sum_{k=0}^3\frac{\partial E_3}{\partial\hat y_3}"
          r"\frac{\partial\hat y_3}{\partial s_3}\frac{\partial s_3}{\partial s_k}"
          r"\frac{\partial^+s_k}{\partial W}",
          lambda steps, de3, plusW: over_time(steps, de3, plusW), source="14.181")
    .line(r"= \sum_{k=0}^3\frac{\partial E_3}{\partial s_3}\left(\prod_{j=k+1}^3"
          r"\frac{\partial s_j}{\partial s_{j-1}}\right)\frac{\partial^+s_k}{\partial W}",
          lambda s, W, de3, before: sum(
              np.einsum("m,mi,i,b->ib", de3, np.linalg.multi_dot(
                  [np.eye(H), np.eye(H), *(np.diag(1 - s[j] ** 2) @ W for j in range(3, k, -1))]),
                  1 - s[k] ** 2, before[k]) for k in range(T)), source="14.185")
    .line(r"= \sum_k\delta_k s_{k-1}^\top,\; \delta_k = (W^\top\delta_{k+1})\circ(1-s_k^2)",
          lambda s, W, de3, before: sum(
              np.outer(d, b) for d, b in zip(deltas(s, W, de3), before, strict=True)),
          source="backpropagation through time")
    .line(r"= \text{rnn, backwards}",
          lambda U, W, x, de3: by_rnn(U, W, x, de3, 3).T),
    Derivation(
        "the factors of the sum over time",
        lambda s1, U, W, x: onward(s1, U, W, x),
        wrt="s1",
        sample=SAMPLE,
        let=SIGNALS | {"s2": lambda s: s[2], "carried": lambda before: before[3]},
        source=CHAPTER,
        claim="R3",
        ends_in=("recurrent.rnn",),
    )
    .line(r"\frac{\partial s_3}{\partial s_1} ="
          r" \frac{\partial s_3}{\partial s_2}\frac{\partial s_2}{\partial s_1}",
          lambda steps: entries(
              lambda i, j: sum(steps[3][i, m] * steps[2][m, j] for m in range(H)), H, H),
          source="14.184")
    .line(r"= \prod_{j=2}^3\text{diag}(1-s_j^2)\,W",
          lambda s, W: np.diag(1 - s[3] ** 2) @ W @ np.diag(1 - s[2] ** 2) @ W, source="14.184")
    .line(r"\frac{\partial s_j}{\partial s_{j-1}} = \text{diag}(1-s_j^2)\,W",
          lambda s, W: np.diag(1 - s[3] ** 2) @ W,
          of=lambda s2, U, W, x: jnp.tanh(U @ x[3] + W @ s2), wrt="s2", source="14.184")
    .line(r"\frac{\partial E_3}{\partial s_3} = V^\top(\hat y_3-y_3)", lambda de3: de3,
          of=lambda s3, V, y3: from_state(s3, V, y3), wrt="s3", source="14.181")
    .line(r"\frac{\partial^+s_3}{\partial W_{ab}} = (1-s_{3,i}^2)\,\delta_{ia}\,s_{2,b}",
          lambda plusW: plusW[3],
          of=lambda W, U, x, carried: jnp.tanh(U @ x[3] + W @ carried), wrt="W", source="14.181"),
    Derivation(
        "U in the same way",
        last_error,
        wrt="U",
        sample=SAMPLE,
        let=SIGNALS,
        source=CHAPTER,
        claim="R3",
        ends_in=("recurrent.rnn",),
    )
    .line(r"\frac{\partial E_3}{\partial U} = \sum_{k=0}^3\frac{\partial E_3}{\partial s_3}"
          r"\frac{\partial s_3}{\partial s_k}\frac{\partial^+s_k}{\partial U}",
          lambda steps, de3, plusU: over_time(steps, de3, plusU), source="14.181, for U")
    .line(r"= \sum_k\delta_k x_k^\top",
          lambda s, W, de3, x: sum(
              np.outer(d, xk) for d, xk in zip(deltas(s, W, de3), x, strict=True)))
    .line(r"= \text{rnn, backwards}", lambda U, W, x, de3: by_rnn(U, W, x, de3, 2).T),
    Derivation(
        "the product shrinks or grows like a power",
        lambda steps: jnp.linalg.norm(steps[3] @ steps[2] @ steps[1], 2),
        sample=SAMPLE | {"z": np.linspace(-8, 8, 1601)},
        let=SIGNALS
        | {
            "product": lambda steps: jacobian_product(steps, 0),
            "bound": lambda W: (norm(W, 2) * 1.0) ** 3,
        },
        source=CHAPTER,
        claim="R4",
        ends_in=("recurrent.rnn",),
    )
    .line(r"\left\lVert\prod_j\frac{\partial s_j}{\partial s_{j-1}}\right\rVert",
          lambda product: norm(product, 2), source="after 14.185")
    .line(r"\left\lVert\prod_{j=1}^t\frac{\partial s_j}{\partial s_{j-1}}\right\rVert \le"
          r" (\lVert W\rVert\max\tanh')^t", lambda bound: bound, source="after 14.185",
          of=lambda product, bound: jnp.maximum(jnp.linalg.norm(product, 2), bound))
    .line(r"\max_z\sigma'(z) = \tfrac14", lambda: 0.25,
          of=lambda z: (jax.nn.sigmoid(z) * (1 - jax.nn.sigmoid(z))).max(), source="after 14.185")
    .line(r"\max_z\tanh'(z) = 1", lambda: 1.0, of=lambda z: (1 - jnp.tanh(z) ** 2).max(),
          source="after 14.185"),
    Derivation(
        "truncated backpropagation through time",
        lambda W, U, V, x, y3, s1: from_state(
            jnp.tanh(U @ x[3] + W @ jnp.tanh(U @ x[2] + W @ s1)), V, y3),
        wrt="W",
        sample=SAMPLE,
        let=SIGNALS,
        source=CHAPTER,
        claim="R4",
        ends_in=("recurrent.rnn",),
    )
    .line(r"\sum_{k=2}^3\frac{\partial E_3}{\partial s_3}\frac{\partial s_3}{\partial s_k}"
          r"\frac{\partial^+s_k}{\partial W} \text{ with } s_1 \text{ held fixed}",
          lambda steps, de3, plusW: sum(
              np.einsum("m,mi,iab->ab", de3, jacobian_product(steps, k), plusW[k])
              for k in (2, 3)))
    .line(r"= \sum_{k=2}^3\delta_ks_{k-1}^\top",
          lambda s, W, de3, before: sum(
              np.outer(deltas(s, W, de3)[k], before[k]) for k in (2, 3)))
    .line(r"= \text{rnn, backwards, over the last two steps}",
          lambda U, W, x, de3, s1: by_hand(
              rnn, x[None, 2:], s1[None], U.T, W.T, np.zeros(H),
              dy=np.stack([np.zeros(H), de3])[None], wrt=3).T),
]  # fmt: skip
