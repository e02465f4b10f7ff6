"""Backpropagation in matrices: P7 (section 2.4 of the ten questions), P8 (the blog's batches)."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import dense
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import BLOG, QUESTIONS, by_hand, same, sigmoid
from handgrad.manual.networks import mlp_loss

NI, NJ, NK = 4, 3, 2  # input, hidden and output units
SIZES = {"W": (NI, NJ), "bH": (NJ,), "M": (NJ, NK), "b": (NK,), "x": (NI,), "t": (NK,)}


def half(o, t):
    return 0.5 * ((o - t) ** 2).sum()


def linear_net(W, bH, M, b, x, t):
    return half((x @ W + bH) @ M + b, t)


def active_net(W, bH, M, b, x, t):
    return half(jnp.tanh(x @ W + bH) @ M + b, t)


LINEAR = {
    "H": lambda W, bH, x: x @ W + bH,
    "out": lambda M, b, H: H @ M + b,
    "eO": lambda out, t: out - t,
    "eH": lambda M, eO: M @ eO,
    "dO": lambda H: entries(lambda k, j, m: H[j] * same(k, m), NK, NJ, NK),
}
ACTIVE = {
    "H": lambda W, bH, x: x @ W + bH,
    "f": lambda H: np.tanh(H),
    "slope": lambda f: 1 - f**2,
    "eO": lambda f, M, b, t: f @ M + b - t,
    "eH": lambda M, eO, slope: (M @ eO) * slope,
}


def network(W, bH, M, b, x, t, layer, **config):
    layers = [(W, bH), (M, b)]
    return by_hand(mlp_loss, layers, x, t, **config)[layer][0]


# The blog: samples in columns, σ everywhere, L = Σ (ŷ − y)²


def squares(a, y):
    return ((a - y) ** 2).sum()


def batch_loss(W1, b1, W2, b2, X, Y):
    a1 = jax.nn.sigmoid(W1.T @ X + b1[:, None])
    return squares(jax.nn.sigmoid(W2.T @ a1 + b2[:, None]), Y)


BATCH = {"W1": (2, 3), "b1": (3,), "W2": (3, 2), "b2": (2,), "X": (2, 5), "Y": (2, 5)}
SIGNALS = {
    "z1": lambda W1, b1, X: W1.T @ X + b1[:, None],
    "a1": lambda z1: sigmoid(z1),
    "z2": lambda W2, b2, a1: W2.T @ a1 + b2[:, None],
    "a2": lambda z2: sigmoid(z2),
    "delta": lambda a2, Y: 2 * (a2 - Y) * a2 * (1 - a2),
    "da1": lambda W2, delta: W2 @ delta,
    "slope": lambda a1: a1 * (1 - a1),
}


def by_batch(W1, b1, W2, b2, X, Y):
    """The gradients by the hand-written network, which has samples in rows."""
    return by_hand(mlp_loss, [(W1, b1), (W2, b2)], X.T, Y.T, activation="sigmoid",
                   output_activation="sigmoid", loss="squared_error")  # fmt: skip


DERIVATIONS = [
    Derivation(
        "definition 2.4: tensors of order two, three and four",
        lambda M, B: M @ B,
        wrt="M",
        sample={"M": (3, 4), "B": (4,), "X": (4, 2)},
        source=QUESTIONS,
        claim="P7",
    )
    .line(r"a_i = \sum_k m_{ik} B_k", lambda M, B: entries(
        lambda i: sum(M[i, k] * B[k] for k in range(4)), 3), wrt=(), source="definition 2.4")
    .line(r"\frac{\partial a_i}{\partial m_{jk}} = \delta_{ij}B_k \text{ (order 3)}",
          lambda B: entries(lambda i, j, k: same(i, j) * B[k], 3, 3, 4), source="definition 2.4")
    .line(r"\frac{\partial a_i}{\partial B_k} = m_{ik} \text{ (order 2)}", lambda M: M, wrt="B",
          source="definition 2.4, after")
    .line(r"\frac{\partial(MX)_{ij}}{\partial m_{kl}} = \delta_{ik}X_{lj} \text{ (order 4)}",
          lambda X: entries(lambda i, j, k, m: same(i, k) * X[m, j], 3, 2, 3, 4),
          of=lambda M, X: M @ X, wrt="M", source="definition 2.4, after"),
    Derivation(
        "no activation: the weights M to the output",
        linear_net,
        wrt="M",
        sample=SIZES,
        let=LINEAR,
        source=QUESTIONS,
        claim="P7",
        ends_in=("dense.affine",),
    )
    .line(r"O_k = \sum_j H_j M_{jk} + b_k",
          lambda H, M, b: entries(lambda k: sum(H[j] * M[j, k] for j in range(NJ)) + b[k], NK),
          of=(output := lambda H, M, b: H @ M + b), source="third and fourth equation")
    .line(r"= M^\top H + b", lambda H, M, b: M.T @ H + b, source="fourth equation")
    .line(r"e_O = \frac{\partial L}{\partial O}", lambda eO: eO, of=lambda out, t: half(out, t),
          wrt="out", source="the error of the output layer")
    .line(r"\frac{\partial O_k}{\partial M_{jl}} = H_j\delta_{kl}", lambda dO: dO,
          of=output, wrt="M", source="2.4, third-order tensor")
    .line(r"\frac{\partial O_k}{\partial\omega_{ij}} = H_j",
          lambda H: entries(lambda k, i, j: H[j], NK, NI, NJ),
          of=(to_w := lambda W, bH, M, b, x: (x @ W + bH) @ M + b), wrt="W",
          source="text below the fourth matrix",
          wrong="ω_ij is printed where ω_jk is meant: ω_ij leads from the input to the hidden "
          "layer, and O_k depends on it through x_i and M_jk")
    .line(r"\frac{\partial O_k}{\partial\omega_{ij}} = I_i M_{jk}",
          lambda x, M: entries(lambda k, i, j: x[i] * M[j, k], NK, NI, NJ), of=to_w, wrt="W")
    .line(r"\frac{\partial L}{\partial M_{jl}} ="
          r" \sum_k\frac{\partial L}{\partial O_k}\frac{\partial O_k}{\partial M_{jl}}",
          lambda eO, dO: entries(
              lambda j, m: sum(eO[k] * dO[k, j, m] for k in range(NK)), NJ, NK),
          source="chain rule, 2.17")
    .line(r"= H_j\,e_{O,l}", lambda H, eO: entries(lambda j, k: H[j] * eO[k], NJ, NK),
          source="the matrix of all ω_jk")
    .line(r"= H e_O^\top", lambda H, eO: np.outer(H, eO))
    .line(r"= \text{affine, backwards}",
          lambda H, M, b, eO: by_hand(dense.affine, H[None], M, b, dy=eO[None], wrt=1)),
    Derivation(
        "no activation: the error of the hidden layer, and W",
        linear_net,
        wrt="W",
        sample=SIZES,
        let=LINEAR,
        source=QUESTIONS,
        claim="P7",
        ends_in=("dense.affine", "networks.mlp_loss"),
    )
    .line(r"\frac{\partial O_k}{\partial H_j} = M_{jk}", lambda M: M.T,
          of=lambda H, M, b: H @ M + b, wrt="H", source="2.26, second factor")
    .line(r"e_H = \frac{\partial L}{\partial H_j} = \sum_k M_{jk}\,e_{O,k}",
          lambda M, eO: entries(lambda j: sum(M[j, k] * eO[k] for k in range(NK)), NJ),
          of=lambda H, M, b, t: half(H @ M + b, t), wrt="H", source="the error of the hidden layer")
    .line(r"= M e_O", lambda eH: eH)
    .line(r"\frac{\partial L}{\partial W_{ij}} = I_i\sum_k M_{jk}\,e_{O,k}",
          lambda x, M, eO: entries(
              lambda i, j: x[i] * sum(M[j, k] * eO[k] for k in range(NK)), NI, NJ), source="2.26")
    .line(r"= I\,e_H^\top", lambda x, eH: np.outer(x, eH), source="2.26, result")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W, bH, M, b, x, t: network(W, bH, M, b, x, t, 0, activation="identity")),
    Derivation(
        "with an activation f in the hidden layer",
        active_net,
        wrt="W",
        sample=SIZES,
        let=ACTIVE,
        source=QUESTIONS,
        claim="P7",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"e_H = \left(\sum_k M_{jk}\,e_{O,k}\right)f'(H_j)",
          lambda M, eO, slope: entries(
              lambda j: sum(M[j, k] * eO[k] for k in range(NK)) * slope[j], NJ),
          of=lambda H, M, b, t: half(jnp.tanh(H) @ M + b, t), wrt="H", source="last equation")
    .line(r"= (M e_O)\circ f'(H)", lambda eH: eH, source="last equation")
    .line(r"\frac{\partial L}{\partial W} = I\,e_H^\top", lambda x, eH: np.outer(x, eH))
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W, bH, M, b, x, t: network(W, bH, M, b, x, t, 0))
    .line(r"\frac{\partial L}{\partial M} = f(H)\,e_O^\top", lambda f, eO: np.outer(f, eO), wrt="M")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W, bH, M, b, x, t: network(W, bH, M, b, x, t, 1)),
    Derivation(
        "a slope below one need not shrink the error",
        lambda M, e: jnp.linalg.norm(0.25 * M @ e) / jnp.linalg.norm(e),
        sample={"M": 8 * np.eye(3), "e": (3,)},
        source=QUESTIONS,
        claim="P7",
    )
    .line(r"\frac{\lVert f'\circ Me\rVert}{\lVert e\rVert} < 1 \text{ since } f' < 1",
          lambda M, e: min(np.linalg.norm(0.25 * M @ e) / np.linalg.norm(e), 1.0),
          source="last paragraph",
          wrong="f′ < 1 is not true of relu (1 on z > 0) or of tanh at 0, and does not suffice: "
          "the error is multiplied by M too (here f′ = ¼, sigmoid's largest, and M = 8 I)")
    .line(r"\frac{\lVert f'\circ Me\rVert}{\lVert e\rVert} = \tfrac14\cdot 8 = 2", lambda: 2.0),
    Derivation(
        "a batch in columns: the errors δ",
        batch_loss,
        wrt="W2",
        sample=BATCH,
        let=SIGNALS,
        source=BLOG,
        claim="P8",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\delta_k = \frac{\partial L}{\partial z_k} = (a_k-y_k)\,a_k(1-a_k)",
          lambda a2, Y: (a2 - Y) * a2 * (1 - a2), source="section 3, δ for sigmoid",
          of=(from_z := lambda z2, Y: squares(jax.nn.sigmoid(z2), Y)), wrt="z2",
          wrong="L = (ŷ − y)² is printed without a ½, so its derivative has the factor 2")
    .line(r"\delta_k = \frac{\partial L}{\partial z_k} = 2(a_k-y_k)\,a_k(1-a_k)",
          lambda delta: delta, of=from_z, wrt="z2")
    .line(r"\delta_k = \frac{\partial L}{\partial a_k} \text{ if } z_k>0 \text{ else } 0"
          r" \text{ (relu)}",
          lambda z2, Y: np.where(z2 > 0, 2 * (np.maximum(z2, 0) - Y), 0.0),
          of=lambda z2, Y: squares(jnp.maximum(z2, 0), Y), wrt="z2", source="section 3, δ for relu")
    .line(r"\frac{\partial L}{\partial W_{ij}} = \sum_n\delta_j^{(n)} a_i^{(n)}",
          lambda delta, a1: entries(
              lambda i, j: sum(delta[j, n] * a1[i, n] for n in range(5)), 3, 2))
    .line(r"= a\,\delta^\top", lambda delta, a1: a1 @ delta.T)
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W1, b1, W2, b2, X, Y: by_batch(W1, b1, W2, b2, X, Y)[1][0]),
    Derivation(
        "a batch in columns: the first layer",
        batch_loss,
        wrt="W1",
        sample=BATCH,
        let=SIGNALS,
        source=BLOG,
        claim="P8",
        ends_in=("networks.mlp_loss",),
    )
    .line(r"\frac{\partial L}{\partial a_j^{l+1}} = \sum_k\delta_{jk}^{l+1}",
          lambda delta: np.tile(delta.sum(0), (3, 1)), source="section 3, after the gradient of W",
          of=(from_a := lambda a1, W2, b2, Y: squares(
              jax.nn.sigmoid(W2.T @ a1 + b2[:, None]), Y)), wrt="a1",
          wrong="the weights are missing: unit j reaches the error δ_k of the next layer through "
          "w_jk")
    .line(r"\frac{\partial L}{\partial a_j^{l+1}} = \sum_k w_{jk}\,\delta_k^{l+1}",
          lambda W2, delta: entries(
              lambda j, n: sum(W2[j, k] * delta[k, n] for k in range(2)), 3, 5),
          of=from_a, wrt="a1")
    .line(r"\frac{\partial a_j}{\partial z_j} = \sigma'(z_j)",
          lambda slope: slope, of=lambda z1: jax.nn.sigmoid(z1).sum(), wrt="z1", source="section 3")
    .line(r"\frac{\partial L}{\partial W_{ij}} = \frac{\partial L}{\partial a_j}"
          r"\sigma'(z_j)\,x_i, \quad z_j = \sigma(w^\top x+b_j)",
          lambda da1, a1, X: entries(
              lambda i, j: sum(
                  da1[j, n] * sigmoid(a1[j, n]) * (1 - sigmoid(a1[j, n])) * X[i, n]
                  for n in range(5)), 2, 3),
          source="section 3, note on z",
          wrong="z is declared to be σ(wᵀx + b), the activation's output, and then used as its "
          "input: σ′ must be taken at wᵀx + b")
    .line(r"\frac{\partial L}{\partial W_{ij}} = \sum_n\frac{\partial L}{\partial a_j^{(n)}}"
          r"\sigma'(z_j^{(n)})\,x_i^{(n)}, \quad z_j = w^\top x+b_j",
          lambda da1, slope, X: entries(
              lambda i, j: sum(da1[j, n] * slope[j, n] * X[i, n] for n in range(5)), 2, 3))
    .line(r"= X\,(W_2\delta\circ\sigma'(z))^\top",
          lambda da1, slope, X: X @ (da1 * slope).T)
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W1, b1, W2, b2, X, Y: by_batch(W1, b1, W2, b2, X, Y)[0][0])
    .line(r"\frac{\partial L}{\partial b_j} = \sum_n\frac{\partial L}{\partial a_j^{(n)}}"
          r"\sigma'(z_j^{(n)})",
          lambda da1, slope: entries(
              lambda j: sum(da1[j, n] * slope[j, n] for n in range(5)), 3), wrt="b1",
          source="section 3, bias")
    .line(r"= \text{mlp\_loss, backwards}",
          lambda W1, b1, W2, b2, X, Y: by_batch(W1, b1, W2, b2, X, Y)[0][1]),
    Derivation(
        "the shapes of the two-layer net",
        lambda W1, b1, W2, b2: jnp.asarray(float(sum(p.size for p in (W1, b1, W2, b2)))),
        sample={name: BATCH[name] for name in ("W1", "b1", "W2", "b2")},
        source=BLOG,
        claim="P8",
    )
    .line(r"\text{parameters of } W_1\in\mathbb{R}^{2\times3}, W_2\in\mathbb{R}^{3\times3},"
          r" W_3\in\mathbb{R}^{3\times2}",
          lambda: float(2 * 3 + 3 + 3 * 3 + 3 + 3 * 2 + 2), source="section 3, the example",
          wrong="three weight matrices are a 2-3-3-2 net; the two-layer 2-3-2 net of the text has "
          "two")
    .line(r"\text{parameters of } W_1\in\mathbb{R}^{2\times3}, W_2\in\mathbb{R}^{3\times2}",
          lambda: float(2 * 3 + 3 + 3 * 2 + 2)),
]  # fmt: skip
