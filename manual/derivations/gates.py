"""The remedies that R4 names: relu, LSTM (with peepholes), GRU, and clipping, line by line."""

import jax
import jax.numpy as jnp
import numpy as np

from handgrad.manual import optimizers
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import CHAPTER, by_hand, positive, sigmoid
from handgrad.manual.recurrent import gru, lstm, rnn

tanh = np.tanh
H = 3


def lstm_step(a, c0, p, dh, dc):
    """dh·h + dc·c of one step; a: the arguments of the gates without the peepholes, (4, H)."""
    i, f, g = jax.nn.sigmoid(a[0] + p[0] * c0), jax.nn.sigmoid(a[1] + p[1] * c0), jnp.tanh(a[2])
    c = f * c0 + i * g
    return (dh * jax.nn.sigmoid(a[3] + p[2] * c) * jnp.tanh(c) + dc * c).sum()


def lstm_op(a, c0, p, dh, dc, wrt):
    """The same by the hand-written op, with the gates' arguments as its bias."""
    zeros = np.zeros((1, H))
    args = np.zeros((1, 1, 1)), zeros, c0[None], np.zeros((1, 4 * H)), np.zeros((H, 4 * H))
    return by_hand(lstm, *args, a.ravel(), p, dy=(dh[None, None], dc[None, None]), wrt=wrt)


LSTM = {
    "i": lambda a, p, c0: sigmoid(a[0] + p[0] * c0),
    "f": lambda a, p, c0: sigmoid(a[1] + p[1] * c0),
    "g": lambda a: tanh(a[2]),
    "c": lambda i, f, g, c0: f * c0 + i * g,
    "o": lambda a, p, c: sigmoid(a[3] + p[2] * c),
    "do": lambda dh, c, o: dh * tanh(c) * o * (1 - o),
    "cbar": lambda dc, dh, o, c, do, p: dc + dh * o * (1 - tanh(c) ** 2) + do * p[2],
}


def gru_step(h0, a, Ur, Uz, Un, dh):
    """dh·h of one step, in rows; a: the inputs' share of the arguments, (3, H)."""
    r, z = jax.nn.sigmoid(a[0] + h0 @ Ur), jax.nn.sigmoid(a[1] + h0 @ Uz)
    n = jnp.tanh(a[2] + (r * h0) @ Un)
    return (dh * (z * h0 + (1 - z) * n)).sum()


GRU = {
    "r": lambda h0, a, Ur: sigmoid(a[0] + h0 @ Ur),
    "z": lambda h0, a, Uz: sigmoid(a[1] + h0 @ Uz),
    "n": lambda h0, a, r, Un: tanh(a[2] + (r * h0) @ Un),
    "dn": lambda dh, z, n: dh * (1 - z) * (1 - n**2),
    "dz": lambda dh, h0, n, z: dh * (h0 - n) * z * (1 - z),
    "q": lambda dn, Un: Un @ dn,
    "dr": lambda q, h0, r: q * h0 * r * (1 - r),
}


def gru_op(h0, a, Ur, Uz, Un, dh, wrt):
    args = np.zeros((1, 1, 1)), h0[None], np.zeros((1, 3 * H)), np.concatenate([Ur, Uz, Un], 1)
    return by_hand(gru, *args, a.ravel(), dy=dh[None, None], wrt=wrt)


def clipped(transformation, tree):
    """The hand-written transformation applied to a gradient."""
    tree = jax.tree.map(jnp.asarray, tree)
    return transformation.update(tree, transformation.init(tree))[0]


DERIVATIONS = [
    Derivation(
        "a step of the LSTM, with peepholes",
        lstm_step,
        wrt="a",
        sample={"a": (4, H), "c0": (H,), "p": (3, H), "dh": (H,), "dc": (H,)},
        let=LSTM,
        source=CHAPTER,
        claim="R4",
        ends_in=("recurrent.lstm",),
    )
    .line(r"\bar c_t = \bar c_t^{\text{later}} + \bar h_t\circ o\circ(1-\tanh^2c_t) +"
          r" \delta_o\circ p_o", lambda cbar: cbar,
          of=lambda c, a, p, dh, dc: (
              dh * jax.nn.sigmoid(a[3] + p[2] * c) * jnp.tanh(c) + dc * c).sum(), wrt="c",
          source="remedies named after 14.185")
    .line(r"\delta = (\bar c_t\circ g\circ i(1-i),\; \bar c_t\circ c_{t-1}\circ f(1-f),\;"
          r" \bar c_t\circ i\circ(1-g^2),\; \bar h_t\circ\tanh c_t\circ o(1-o))",
          lambda i, f, g, c0, cbar, do: np.stack([
              cbar * g * i * (1 - i), cbar * c0 * f * (1 - f), cbar * i * (1 - g**2), do]))
    .line(r"= \text{lstm, backwards}",
          lambda a, c0, p, dh, dc: lstm_op(a, c0, p, dh, dc, 5).reshape(4, H))
    .line(r"\bar c_{t-1} = \bar c_t\circ f + \delta_i\circ p_i + \delta_f\circ p_f",
          lambda i, f, g, c0, cbar, p: (
              cbar * f + cbar * g * i * (1 - i) * p[0] + cbar * c0 * f * (1 - f) * p[1]),
          wrt="c0")
    .line(r"= \text{lstm, backwards}",
          lambda a, c0, p, dh, dc: lstm_op(a, c0, p, dh, dc, 2)[0])
    .line(r"\bar p = (\delta_i\circ c_{t-1},\; \delta_f\circ c_{t-1},\; \delta_o\circ c_t)",
          lambda i, f, g, c0, c, cbar, do: np.stack([
              cbar * g * i * (1 - i) * c0, cbar * c0 * f * (1 - f) * c0, do * c]), wrt="p")
    .line(r"= \text{lstm, backwards}", lambda a, c0, p, dh, dc: lstm_op(a, c0, p, dh, dc, 6)),
    Derivation(
        "the cell's own path is a product of forget gates",
        lambda c0, f, ig: ((c0 * f[0] + ig[0]) * f[1] + ig[1]) * f[2] + ig[2],
        wrt="c0",
        sample={"c0": (H,), "f": positive(3, H), "ig": (3, H)},
        source=CHAPTER,
        claim="R4",
    )
    .line(r"\frac{\partial c_t}{\partial c_0} = \prod_j\text{diag}(f_j): \text{ no } W, \text{ no }"
          r" \tanh'", lambda f: np.diag(f[0] * f[1] * f[2]), source="remedies named after 14.185"),
    Derivation(
        "a step of the GRU",
        gru_step,
        wrt="h0",
        sample={"h0": (H,), "a": (3, H), "Ur": (H, H), "Uz": (H, H), "Un": (H, H), "dh": (H,)},
        let=GRU,
        source=CHAPTER,
        claim="R4",
        ends_in=("recurrent.gru",),
    )
    .line(r"\delta = (q\circ h_{t-1}\circ r(1-r),\; \bar h\circ(h_{t-1}-n)\circ z(1-z),\;"
          r" \bar h\circ(1-z)\circ(1-n^2)),\; q = U_n\delta_n",
          lambda dr, dz, dn: np.stack([dr, dz, dn]), wrt="a", source="remedies named after 14.185")
    .line(r"= \text{gru, backwards}",
          lambda h0, a, Ur, Uz, Un, dh: gru_op(h0, a, Ur, Uz, Un, dh, 4).reshape(3, H))
    .line(r"\bar h_{t-1} = \bar h\circ z + q\circ r + U_r\delta_r + U_z\delta_z",
          lambda dh, z, q, r, Ur, Uz, dr, dz: entries(
              lambda i: dh[i] * z[i] + q[i] * r[i]
              + sum(Ur[i, j] * dr[j] + Uz[i, j] * dz[j] for j in range(H)), H))
    .line(r"= \text{gru, backwards}",
          lambda h0, a, Ur, Uz, Un, dh: gru_op(h0, a, Ur, Uz, Un, dh, 1)[0])
    .line(r"\bar U_n = (r\circ h_{t-1})\,\delta_n^\top",
          lambda r, h0, dn: np.outer(r * h0, dn), wrt="Un")
    .line(r"= \text{gru, backwards}",
          lambda h0, a, Ur, Uz, Un, dh: gru_op(h0, a, Ur, Uz, Un, dh, 3)[:, 2 * H :]),
    Derivation(
        "relu instead of tanh",
        lambda s, U, W, x: jnp.maximum(U @ x + W @ s, 0),
        wrt="s",
        sample={"s": (H,), "U": (H, 2), "W": (H, H), "x": (2,)},
        source=CHAPTER,
        claim="R4",
        ends_in=("recurrent.rnn",),
    )
    .line(r"\frac{\partial s_j}{\partial s_{j-1}} = \text{diag}[s_j>0]\,W",
          lambda s, U, W, x: entries(
              lambda i, j: float(U[i] @ x + W[i] @ s > 0) * W[i, j], H, H),
          source="after 14.185")
    .line(r"= \text{rnn with relu, backwards, for every unit cotangent}",
          lambda s, U, W, x: np.stack([
              by_hand(rnn, x[None, None], s[None], U.T, W.T, np.zeros(H), dy=e[None, None], wrt=1,
                      activation="relu")[0] for e in np.eye(H)])),
    Derivation(
        "gradient clipping by value, norm and global norm",
        lambda g: jnp.clip(g["a"], -0.5, 0.5),
        sample={"g": {"a": (3, 2), "b": (4,)}},
        let={
            "size": lambda g: np.sqrt((g["a"] ** 2).sum() + (g["b"] ** 2).sum()),
        },
        source=CHAPTER,
        claim="R4",
        ends_in=("optimizers.clip_by_value", "optimizers.clip_by_norm",
                 "optimizers.clip_by_global_norm"),
    )
    .line(r"g_i \leftarrow \min(\max(g_i,-c),c)",
          lambda g: entries(lambda i, j: min(max(g["a"][i, j], -0.5), 0.5), 3, 2),
          source="after 14.185")
    .line(r"= \text{clip\_by\_value}",
          lambda g: clipped(optimizers.clip_by_value(0.5), g)["a"])
    .line(r"g \leftarrow g\,\min(1, c/\lVert g\rVert)",
          lambda g: jax.tree.map(lambda x: x * min(1, 0.7 / np.linalg.norm(x)), g),
          of=lambda g: jax.tree.map(
              lambda x: jnp.where((x**2).sum() > 0.49, 0.7 * x / jnp.sqrt((x**2).sum()), x), g),
          source="after 14.185")
    .line(r"= \text{clip\_by\_norm}", lambda g: clipped(optimizers.clip_by_norm(0.7), g))
    .line(r"g \leftarrow g\,\min(1, c/\lVert g\rVert), \text{ one norm over all leaves}",
          lambda g, size: jax.tree.map(lambda x: x * min(1, 0.7 / size), g),
          of=lambda g: jax.tree.map(
              lambda x: 0.7 * x / jnp.maximum(
                  0.7, jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(g)))), g),
          source="after 14.185")
    .line(r"= \text{clip\_by\_global\_norm}",
          lambda g: clipped(optimizers.clip_by_global_norm(0.7), g)),
]  # fmt: skip
