"""Regularisation and dropout: G1 to G7, sections 4–6 of the blog and the chapter's summary."""

import itertools

import jax.numpy as jnp
import numpy as np

from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import BLOG, CHAPTER, by_hand, positive, values
from handgrad.manual.dropout import dropout
from handgrad.manual.embedding import embedding
from handgrad.manual.networks import mlp
from handgrad.manual.normalization import batch_norm, batch_norm_inference
from handgrad.manual.regularization import elastic_net, l1_penalty, l2_penalty, soft_threshold

LAM, ETA, TAU, KEEP, EPS = 0.3, 0.1, 0.4, 0.6, 1e-5
N, F = 5, 3  # samples and features of a batch
KEY = np.array([0, 7], np.uint32)  # the raw data of a random key


def mean_over_masks(x, scale):
    """The expectation of scale · m ∘ x over all masks m, every mask with its probability."""
    total = np.zeros_like(x)
    for mask in itertools.product((0.0, 1.0), repeat=len(x)):
        kept = sum(mask)
        probability = KEEP**kept * (1 - KEEP) ** (len(x) - kept)
        total += probability * scale * np.array(mask) * x
    return total


def dropped(x, dy=None, rate=1 - KEEP):
    """The op's output, or with dy its backward, under the key."""
    y, residuals = dropout.forward(jnp.asarray(x), key=KEY, rate=rate)
    if dy is None:
        return np.asarray(y)
    return np.asarray(dropout.pullback(residuals, jnp.asarray(dy), key=KEY, rate=rate)[0])


def normalised(x, gamma, beta):
    mean = x.mean(0)
    return gamma * (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(0) + EPS) + beta


BATCH = {
    "mean": lambda x: x.mean(0),
    "var": lambda x: x.var(0),
    "sigma": lambda var: np.sqrt(var + EPS),
    "xhat": lambda x, mean, sigma: (x - mean) / sigma,
    "g": lambda dy, gamma: dy * gamma,
    "dvar": lambda g, x, mean, sigma: (g * (x - mean)).sum(0) * -0.5 / sigma**3,
    "dmean": lambda g, sigma, dvar, x, mean: -g.sum(0) / sigma + dvar * (-2 * (x - mean)).mean(0),
}


def residual_net(x, w1, w2):
    h = x + jnp.tanh(x @ w1)
    return h + jnp.tanh(h @ w2)


def through(x, w, dy):
    """The cotangent of x in x + tanh(x w), by the hand-written layer."""
    return dy + by_hand(mlp, [(w, None)], x, dy=dy, wrt=1, output_activation="tanh")


DERIVATIONS = [
    Derivation(
        "L2, and weight decay",
        lambda w: 0.5 * LAM * (w**2).sum(),
        wrt="w",
        sample={"w": (2, 3), "a": (2, 3)},
        source=BLOG,
        claim="G1",
        ends_in=("regularization.l2_penalty",),
    )
    .line(r"R(W) = \lambda\lVert W\rVert_2^2", lambda w: LAM * (w**2).sum(), wrt=(),
          source="section 5.1, text",
          wrong="the same section's formula has ½λ, and section 5.3 has β‖W‖²: with ½ the "
          "gradient is λW, without it 2λW; here the formula's ½λ is kept")
    .line(r"R(W) = \frac\lambda2\sum_{ij}W_{ij}^2",
          lambda w: 0.5 * LAM * sum(w[i, j] ** 2 for i in range(2) for j in range(3)), wrt=(),
          source="section 5.1, formula")
    .line(r"\frac{\partial R}{\partial W_{ij}} = \lambda W_{ij}",
          lambda w: entries(lambda i, j: LAM * w[i, j], 2, 3))
    .line(r"= \text{l2\_penalty, backwards}", lambda w: by_hand(l2_penalty, w, strength=LAM))
    .line(r"W - \eta\nabla(L+R) = (1-\eta\lambda)W - \eta\nabla L: \text{ weight decay}",
          lambda w, a: (1 - ETA * LAM) * w - ETA * a,
          of=lambda w, a: 0.5 * (w**2).sum() - ETA * ((a * w).sum() + 0.5 * LAM * (w**2).sum()),
          wrt="w", source="section 5.1"),
    Derivation(
        "weight decay is no remedy for vanishing gradients",
        lambda w, shrink: (
            jnp.linalg.norm(jnp.linalg.matrix_power(shrink * w, 8), 2)
            / jnp.linalg.norm(jnp.linalg.matrix_power(w, 8), 2)
        ),
        sample={"w": (3, 3), "shrink": np.float64((1 - ETA * LAM) ** 20)},
        source=BLOG,
        claim="G1",
    )
    .line(r"\frac{\lVert\prod_{l=1}^8cW\rVert}{\lVert\prod_{l=1}^8W\rVert} \ge 1,\;"
          r" c = (1-\eta\lambda)^{20}", lambda: 1.0, source="section 4, remedy 4",
          wrong="regularisation is listed as a remedy for vanishing gradients; it shrinks W, and "
          "the factor that an error meets in every layer with it (here after 20 steps of decay)")
    .line(r"\frac{\lVert\prod_{l=1}^8cW\rVert}{\lVert\prod_{l=1}^8W\rVert} = c^8",
          lambda shrink: shrink**8),
    Derivation(
        "L1, and the soft threshold",
        lambda w: LAM * jnp.abs(w).sum(),
        wrt="w",
        sample={"w": (6,)},
        source=BLOG,
        claim="G2",
        ends_in=("regularization.l1_penalty", "regularization.soft_threshold"),
    )
    .line(r"\frac{\partial R}{\partial W_i} = \lambda\sign W_i",
          lambda w: entries(lambda i: LAM * np.sign(w[i]), 6), source="section 5.2")
    .line(r"= \text{l1\_penalty, backwards}", lambda w: by_hand(l1_penalty, w, strength=LAM))
    .line(r"\arg\min_v\tfrac12\lVert v-w\rVert^2+\tau\lVert v\rVert_1 ="
          r" \text{clip}(w,-\tau,\tau)", lambda w: np.clip(w, -TAU, TAU),
          of=(prox := lambda w: jnp.where(w > TAU, w - TAU, jnp.where(w < -TAU, w + TAU, 0))),
          source="section 5.2, heading",
          wrong="L1 is called “weight clipping”, which is another operation: clipping bounds the "
          "large weights and leaves the small ones, the proximal step of L1 does the opposite")
    .line(r"\arg\min_v\tfrac12\lVert v-w\rVert^2+\tau\lVert v\rVert_1 ="
          r" \sign(w)\max(|w|-\tau, 0)",
          lambda w: entries(lambda i: np.sign(w[i]) * max(abs(w[i]) - TAU, 0), 6), of=prox)
    .line(r"= w - \text{clip}(w,-\tau,\tau): \text{ the optimality condition}",
          lambda w: w - np.clip(w, -TAU, TAU))
    .line(r"= \text{soft\_threshold}", lambda w: values(soft_threshold, w, threshold=TAU))
    .line(r"\frac{\partial}{\partial w} = [\,|w|>\tau\,]",
          lambda w: np.diag(np.abs(w) > TAU), of=prox, wrt="w")
    .line(r"= \text{soft\_threshold, backwards}",
          lambda w: np.diag(by_hand(soft_threshold, w, threshold=TAU))),
    Derivation(
        "L1 and L2 together",
        lambda w: 0.2 * jnp.abs(w).sum() + 0.7 * (w**2).sum(),
        wrt="w",
        sample={"w": (5,)},
        source=BLOG,
        claim="G3",
        ends_in=("regularization.elastic_net",),
    )
    .line(r"\frac{\partial}{\partial W_i}(\alpha\lVert W\rVert_1+\beta\lVert W\rVert_2^2) ="
          r" \alpha\sign W_i + 2\beta W_i",
          lambda w: entries(lambda i: 0.2 * np.sign(w[i]) + 2 * 0.7 * w[i], 5),
          source="section 5.3")
    .line(r"= \text{elastic\_net, backwards}", lambda w: by_hand(elastic_net, w, l1=0.2, l2=0.7)),
    Derivation(
        "dropout: the expectation",
        lambda x: 1.0 * x,
        sample={"x": (5,)},
        source=BLOG,
        claim="G4",
        ends_in=("dropout.dropout",),
    )
    .line(r"\mathbb{E}[m\circ x] = x", lambda x: mean_over_masks(x, 1.0), source="section 6, step "
          "2",
          wrong="the values are set to 0 and the rest left as they are: the expectation is the "
          "keep probability (here 0.6) times x, so training and test see different sizes")
    .line(r"\mathbb{E}[m\circ x/\text{keep}] = x", lambda x: mean_over_masks(x, 1 / KEEP))
    .line(r"P(\text{all } 20 \text{ units dropped}) = 1", lambda: 1.0, source="section 6, step 4",
          of=(every := lambda: jnp.asarray(1 - KEEP) ** 20),
          wrong="“the iteration ends when all units have failed”: it never would; an iteration "
          "ends after its one update, with about the share 1 − keep of the units dropped")
    .line(r"P(\text{all } 20 \text{ units dropped}) = (1-\text{keep})^{20}",
          lambda: np.prod([1 - KEEP] * 20), of=every),
    Derivation(
        "dropout: backward",
        lambda x, m, dy: (m * x / KEEP * dy).sum(),
        wrt="x",
        sample={"x": (6,), "dy": (6,), "u": lambda rng: rng.uniform(size=6)},
        let={"m": lambda x: (dropped(np.ones_like(x)) > 0).astype(float)},
        source=BLOG,
        claim="G4",
        ends_in=("dropout.dropout",),
    )
    .line(r"y = m\circ x/\text{keep}", lambda x: dropped(x),
          of=lambda x, m: m * x / KEEP, source="section 6")
    .line(r"\bar x_i = m_i\bar y_i/\text{keep}: \text{ the same mask}",
          lambda m, dy: entries(lambda i: m[i] * dy[i] / KEEP, 6))
    .line(r"= \text{dropout, backwards}", lambda x, dy: dropped(x, dy)),
    Derivation(
        "batch normalisation: through the mean and the variance",
        lambda x, gamma, beta, dy: (normalised(x, gamma, beta) * dy).sum(),
        wrt="x",
        sample={"x": (N, F), "gamma": (F,), "beta": (F,), "dy": (N, F)},
        let=BATCH,
        source=CHAPTER,
        claim="G5",
        ends_in=("normalization.batch_norm",),
    )
    .line(r"\bar v = \sum_n g_n(x_n-\mu)\cdot(-\tfrac12)(v+\epsilon)^{-3/2}", lambda dvar: dvar,
          of=lambda var, x, mean, g: ((x - mean) / jnp.sqrt(var + EPS) * g).sum(), wrt="var",
          source="summary")
    .line(r"\bar\mu = -\sum_n\frac{g_n}{\sigma} + \bar v\,\frac{\sum_n-2(x_n-\mu)}{N}",
          lambda dmean: dmean,
          of=lambda mean, x, g: (
              (x - mean) / jnp.sqrt(((x - mean) ** 2).mean(0) + EPS) * g).sum(), wrt="mean")
    .line(r"\bar x_n = \frac{g_n}{\sigma} + \bar v\,\frac{2(x_n-\mu)}N + \frac{\bar\mu}N",
          lambda g, sigma, dvar, x, mean, dmean: entries(
              lambda n, f: g[n, f] / sigma[f] + dvar[f] * 2 * (x[n, f] - mean[f]) / N
              + dmean[f] / N, N, F))
    .line(r"= \frac1\sigma\left(g_n - \frac1N\sum_m g_m -"
          r" \hat x_n\frac1N\sum_m g_m\hat x_m\right)",
          lambda g, sigma, xhat: (g - g.mean(0) - xhat * (g * xhat).mean(0)) / sigma)
    .line(r"= \text{batch\_norm, backwards}",
          lambda x, gamma, beta, dy: by_hand(
              batch_norm, x, gamma, beta, dy=(dy, np.zeros(F), np.zeros(F))))
    .line(r"\bar\gamma = \sum_n\bar y_n\hat x_n",
          lambda dy, xhat: entries(lambda f: sum(dy[n, f] * xhat[n, f] for n in range(N)), F),
          wrt="gamma")
    .line(r"= \text{batch\_norm, backwards}",
          lambda x, gamma, beta, dy: by_hand(
              batch_norm, x, gamma, beta, dy=(dy, np.zeros(F), np.zeros(F)), wrt=1))
    .line(r"\bar\beta = \sum_n\bar y_n",
          lambda dy: entries(lambda f: sum(dy[n, f] for n in range(N)), F), wrt="beta"),
    Derivation(
        "batch normalisation: running statistics",
        lambda x, gamma, beta, running, spread, dy: (
            (gamma * (x - running) / jnp.sqrt(spread + EPS) + beta) * dy
        ).sum(),
        wrt="x",
        sample={
            "x": (N, F), "gamma": (F,), "beta": (F,), "dy": (N, F), "running": (F,),
            "spread": positive(F),
        },
        source=CHAPTER,
        claim="G5",
        ends_in=("normalization.batch_norm_inference",),
    )
    .line(r"m_3 = \rho^3m_0 + (1-\rho)\sum_{t=1}^3\rho^{3-t}\mu_t",
          lambda x, running: 0.9**3 * running
          + 0.1 * sum(0.9 ** (3 - t) * x[t] for t in (1, 2, 3)),
          of=lambda x, running: 0.9 * (
              0.9 * (0.9 * running + 0.1 * x[1]) + 0.1 * x[2]) + 0.1 * x[3], source="summary")
    .line(r"\bar x_n = \gamma\bar y_n/\sqrt{v+\epsilon}: \text{ nothing through the statistics}",
          lambda gamma, dy, spread: gamma * dy / np.sqrt(spread + EPS))
    .line(r"= \text{batch\_norm\_inference, backwards}",
          lambda x, gamma, beta, running, spread, dy: by_hand(
              batch_norm_inference, x, gamma, beta, running, spread, dy=dy)),
    Derivation(
        "residual connection",
        lambda x, w1, w2, dy: residual_net(x, w1, w2) @ dy,
        wrt="x",
        sample={"x": (F,), "w1": (F, F), "w2": (F, F), "dy": (F,)},
        let={
            "h": lambda x, w1: x + np.tanh(x @ w1),
            "J1": lambda x, w1: (1 - np.tanh(x @ w1) ** 2)[:, None] * w1.T,
            "J2": lambda h, w2: (1 - np.tanh(h @ w2) ** 2)[:, None] * w2.T,
        },
        source=CHAPTER,
        claim="G6",
        ends_in=("networks.mlp",),
    )
    .line(r"\frac{\partial F}{\partial x} = J", lambda J1: J1,
          of=lambda x, w1: jnp.tanh(x @ w1), wrt="x", source="summary")
    .line(r"\bar x = (I+J_1)^\top(I+J_2)^\top\bar y",
          lambda J1, J2, dy: (np.eye(F) + J1).T @ (np.eye(F) + J2).T @ dy)
    .line(r"= \bar y + J_1^\top\bar y + J_2^\top\bar y + J_1^\top J_2^\top\bar y:"
          r" \text{ one path through no layer}",
          lambda J1, J2, dy: dy + J1.T @ dy + J2.T @ dy + J1.T @ J2.T @ dy)
    .line(r"= \text{mlp, backwards, and } +\bar y, \text{ twice}",
          lambda x, h, w1, w2, dy: through(x, w1, through(h, w2, dy))),
    Derivation(
        "embedding",
        lambda table, dy: (table[jnp.array([2, 0, 2, 2, 3])] * dy).sum(),
        wrt="table",
        sample={"table": (4, 3), "dy": (5, 3)},
        let={"index": lambda: np.array([2, 0, 2, 2, 3])},
        source=CHAPTER,
        claim="G7",
        ends_in=("embedding.embedding",),
    )
    .line(r"y_n = \text{table}_{i_n} = \sum_r[r=i_n]\,\text{table}_r",
          lambda table, index: np.eye(4)[index] @ table,
          of=lambda table: table[jnp.array([2, 0, 2, 2, 3])], source="summary")
    .line(r"\frac{\partial L}{\partial\text{table}_r} = \sum_{n:\,i_n=r}\bar y_n",
          lambda dy, index: entries(
              lambda r, f: sum(dy[n, f] for n in range(5) if index[n] == r), 4, 3))
    .line(r"= \text{embedding, backwards}",
          lambda table, dy, index: by_hand(embedding, index, table, dy=dy, wrt=1)),
]  # fmt: skip
