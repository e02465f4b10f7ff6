"""Convolution: C1 (figure 14.15), C2 (its exercise) and C3 (the general form)."""

import itertools

import jax.numpy as jnp
import numpy as np
from jax import lax

from handgrad.manual.convolution import conv
from handgrad.manual.derivation import Derivation, entries
from handgrad.manual.derivations.notation import CHAPTER, by_hand, values


def valid(X, W):
    """The 2-D cross-correlation of one image with one kernel."""
    return lax.conv_general_dilated(X[None, None], W[None, None], (1, 1), "VALID")[0, 0]


def image(a):
    """(h, w) as a batch of one with one channel."""
    return a[None, :, :, None]


def kernel(a):
    return a[:, :, None, None]


def rotated_full(G, W):
    """The zero-padded G correlated with W turned by 180°."""
    padded = np.pad(G, 1)
    turned = W[::-1, ::-1]
    return entries(
        lambda i, j: sum(padded[i + a, j + b] * turned[a, b] for a in (0, 1) for b in (0, 1)), 3, 3
    )


def nine(G, W):
    """The nine entries of ∂L/∂X, each with the outputs that it reaches."""
    (g11, g12), (g21, g22) = G
    (w11, w12), (w21, w22) = W
    return np.array([
        [g11 * w11, g11 * w12 + g12 * w11, g12 * w12],
        [g11 * w21 + g21 * w11, g11 * w22 + g12 * w21 + g21 * w12 + g22 * w11,
         g12 * w22 + g22 * w12],
        [g21 * w21, g21 * w22 + g22 * w21, g22 * w22],
    ])  # fmt: skip


def four(G, X):
    """The four entries of ∂L/∂W: every weight reaches every output."""
    g11, g12, g21, g22 = G.ravel()
    return np.array([
        [g11 * X[0, 0] + g12 * X[0, 1] + g21 * X[1, 0] + g22 * X[1, 1],
         g11 * X[0, 1] + g12 * X[0, 2] + g21 * X[1, 1] + g22 * X[1, 2]],
        [g11 * X[1, 0] + g12 * X[1, 1] + g21 * X[2, 0] + g22 * X[2, 1],
         g11 * X[1, 1] + g12 * X[1, 2] + g21 * X[2, 1] + g22 * X[2, 2]],
    ])  # fmt: skip


# C3: any number of axes, batch, channels, stride, padding, dilation, groups


class General:
    """One setting of the general convolution, and its three sums written out."""

    def __init__(self, x, k, stride, padding, dilation, groups):
        self.x, self.k = x, k
        self.config = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
        self.space = len(x) - 2
        self.per_group = k[-1] // groups
        self.out = [
            (n + 2 * padding - dilation * (w - 1) - 1) // stride + 1
            for n, w in zip(x[1:-1], k[:-2], strict=True)
        ]

    def quantity(self, x, k):
        space = "DHW"[-self.space :]
        return lax.conv_general_dilated(
            x,
            k,
            (self.config["stride"],) * self.space,
            [(self.config["padding"], self.config["padding"])] * self.space,
            rhs_dilation=(self.config["dilation"],) * self.space,
            dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
            feature_group_count=self.config["groups"],
        )

    def loss(self, x, k, g):
        return (self.quantity(x, k) * g).sum()

    def terms(self):
        """(output, input, weight) indices of every product in the sum, zeros left out."""
        stride, padding, dilation = (self.config[n] for n in ("stride", "padding", "dilation"))
        ranges = [range(n) for n in (self.x[0], *self.out, *self.k)]
        for n, *rest in itertools.product(*ranges):
            p, taps = rest[: self.space], rest[self.space : -2]
            c, o = rest[-2:]
            q = [stride * pi + dilation * ki - padding for pi, ki in zip(p, taps, strict=True)]
            if all(0 <= qi < size for qi, size in zip(q, self.x[1:-1], strict=True)):
                channel = o // self.per_group * self.k[-2] + c
                yield (n, *p, o), (n, *q, channel), (*taps, c, o)

    def forward_sum(self, x, k):
        y = np.zeros((self.x[0], *self.out, self.k[-1]))
        for at_y, at_x, at_k in self.terms():
            y[at_y] += x[at_x] * k[at_k]
        return y

    def input_sum(self, g, k):
        dx = np.zeros(self.x)
        for at_y, at_x, at_k in self.terms():
            dx[at_x] += g[at_y] * k[at_k]
        return dx

    def kernel_sum(self, g, x):
        dk = np.zeros(self.k)
        for at_y, at_x, at_k in self.terms():
            dk[at_k] += g[at_y] * x[at_x]
        return dk

    def derivation(self, name):
        return (
            Derivation(
                f"general convolution, {name}",
                self.loss,
                wrt="x",
                sample={"x": self.x, "k": self.k, "g": (self.x[0], *self.out, self.k[-1])},
                source=CHAPTER,
                claim="C3",
                ends_in=("convolution.conv",),
            )
            .line(r"y_{npo} = \sum_{k,c}x_{n,\,sp+dk-l,\,c}\,W_{kco}", self.forward_sum,
                  of=self.quantity, source="left as an exercise")
            .line(r"= \text{conv}", lambda x, k: values(conv, x, k, **self.config))
            .line(r"\frac{\partial L}{\partial x_{nqc}} ="
                  r" \sum_{p,k:\,sp+dk-l=q}\sum_o\bar y_{npo}W_{kco}", self.input_sum)
            .line(r"= \text{conv, backwards}",
                  lambda x, k, g: by_hand(conv, x, k, dy=g, **self.config))
            .line(r"\frac{\partial L}{\partial W_{kco}} ="
                  r" \sum_{n,p}\bar y_{npo}\,x_{n,\,sp+dk-l,\,c}", self.kernel_sum, wrt="k")
            .line(r"= \text{conv, backwards}",
                  lambda x, k, g: by_hand(conv, x, k, dy=g, wrt=1, **self.config))
        )  # fmt: skip


def transposed(x, k, g):
    """Σ g · y with y[n, 2p + k, c] = Σ x[n, p, o] W[k, c, o]."""
    spread = lax.conv_general_dilated(
        x,
        jnp.swapaxes(k[::-1], 1, 2),
        (1,),
        [(2, 2)],
        lhs_dilation=(2,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
    return (spread * g).sum()


def average_pool(x, g):
    """Windows of two by two, side by side, on (1, 4, 6, 2)."""
    sums = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return (sums / 4 * g).sum()


def max_pool(x, g):
    """Overlapping windows of three, one step apart, on (1, 6, 2)."""
    return (lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 1), (1, 1, 1), "VALID") * g).sum()


def max_pool_sum(x, g):
    """Every window sends its cotangent to the place of its maximum."""
    dx = np.zeros(x.shape)
    for p, c in itertools.product(range(g.shape[1]), range(g.shape[2])):
        dx[0, p + int(np.argmax(x[0, p : p + 3, c])), c] += g[0, p, c]
    return dx


DERIVATIONS = [
    Derivation(
        "forward, 3×3 by 2×2",
        valid,
        sample={"X": (3, 3), "W": (2, 2)},
        source=CHAPTER,
        claim="C1",
        ends_in=("convolution.conv",),
    )
    .line(r"H_{12} = W_{11}X_{12}+W_{12}X_{13}+W_{21}X_{21}+W_{22}X_{23}",
          lambda X, W: (
              W[0, 0] * X[0, 1] + W[0, 1] * X[0, 2] + W[1, 0] * X[1, 0] + W[1, 1] * X[1, 2]),
          of=(second := lambda X, W: valid(X, W)[0, 1]), source="figure 14.15, second output",
          wrong="W21X21 must be W21X22: the window has moved one column to the right")
    .line(r"H_{12} = W_{11}X_{12}+W_{12}X_{13}+W_{21}X_{22}+W_{22}X_{23}",
          lambda X, W: (
              W[0, 0] * X[0, 1] + W[0, 1] * X[0, 2] + W[1, 0] * X[1, 1] + W[1, 1] * X[1, 2]),
          of=second)
    .line(r"H_{11} = W_{11}X_{11}+W_{12}X_{12}+W_{21}X_{21}+W_{22}X_{22}, \dots",
          lambda X, W: np.array([
              [W[0, 0] * X[0, 0] + W[0, 1] * X[0, 1] + W[1, 0] * X[1, 0] + W[1, 1] * X[1, 1],
               W[0, 0] * X[0, 1] + W[0, 1] * X[0, 2] + W[1, 0] * X[1, 1] + W[1, 1] * X[1, 2]],
              [W[0, 0] * X[1, 0] + W[0, 1] * X[1, 1] + W[1, 0] * X[2, 0] + W[1, 1] * X[2, 1],
               W[0, 0] * X[1, 1] + W[0, 1] * X[1, 2] + W[1, 0] * X[2, 1] + W[1, 1] * X[2, 2]]]),
          source="figure 14.15")
    .line(r"= \sum_{a,b}W_{ab}X_{i+a-1,\,j+b-1}",
          lambda X, W: entries(
              lambda i, j: sum(W[a, b] * X[i + a, j + b] for a in (0, 1) for b in (0, 1)), 2, 2))
    .line(r"= \text{conv}", lambda X, W: values(conv, image(X), kernel(W))[0, :, :, 0]),
    Derivation(
        "backward, 3×3 by 2×2, the weights",
        lambda X, W, G: (valid(X, W) * G).sum(),
        wrt="W",
        sample={"X": (3, 3), "W": (2, 2), "G": (2, 2)},
        source=CHAPTER,
        claim="C2",
        ends_in=("convolution.conv",),
    )
    .line(r"\frac{\partial L}{\partial W_{11}} ="
          r" \bar H_{11}X_{11}+\bar H_{12}X_{12}+\bar H_{21}X_{21}+\bar H_{22}X_{22}, \dots", four,
          source="14.173, exercise")
    .line(r"= \sum_{i,j}\bar H_{ij}X_{i+a-1,\,j+b-1}",
          lambda G, X: entries(
              lambda a, b: sum(G[i, j] * X[i + a, j + b] for i in (0, 1) for j in (0, 1)), 2, 2))
    .line(r"= X\star\bar H", lambda G, X: values(conv, image(X), kernel(G))[0, :, :, 0])
    .line(r"= \text{conv, backwards}",
          lambda X, W, G: by_hand(conv, image(X), kernel(W), dy=image(G), wrt=1)[:, :, 0, 0]),
    Derivation(
        "backward, 3×3 by 2×2, the input",
        lambda X, W, G: (valid(X, W) * G).sum(),
        wrt="X",
        sample={"X": (3, 3), "W": (2, 2), "G": (2, 2)},
        source=CHAPTER,
        claim="C2",
        ends_in=("convolution.conv",),
    )
    .line(r"\frac{\partial L}{\partial X_{11}} = \bar H_{11}W_{11},\;"
          r" \frac{\partial L}{\partial X_{22}} ="
          r" \bar H_{11}W_{22}+\bar H_{12}W_{21}+\bar H_{21}W_{12}+\bar H_{22}W_{11}, \dots", nine,
          source="14.174, exercise")
    .line(r"= \sum_{a,b}\bar H_{i-a+1,\,j-b+1}W_{ab}",
          lambda G, W: entries(
              lambda i, j: sum(
                  G[i - a, j - b] * W[a, b] for a in (0, 1) for b in (0, 1)
                  if 0 <= i - a < 2 and 0 <= j - b < 2), 3, 3))
    .line(r"= \text{pad}(\bar H)\star\text{rot}_{180}W", rotated_full)
    .line(r"= \text{conv, backwards}",
          lambda X, W, G: by_hand(conv, image(X), kernel(W), dy=image(G))[0, :, :, 0]),
    General((2, 7, 2), (3, 2, 3), 2, 2, 2, 1).derivation("one axis, dilated"),
    General((2, 4, 5, 4), (2, 3, 2, 4), 2, 1, 1, 2).derivation("two axes, in two groups"),
    General((1, 3, 4, 3, 2), (2, 2, 2, 1, 2), 1, 1, 2, 2).derivation("three axes, depthwise"),
    Derivation(
        "transposed convolution, stride 2",
        transposed,
        wrt="x",
        sample={"x": (2, 3, 4), "k": (3, 2, 4), "g": (2, 7, 2)},
        source=CHAPTER,
        claim="C3",
        ends_in=("convolution.conv",),
    )
    .line(r"L = \sum_{n,p,k,c,o}\bar y_{n,\,2p+k,\,c}\,x_{npo}W_{kco}",
          lambda x, k, g: sum(
              g[n, 2 * p + t, c] * x[n, p, o] * k[t, c, o]
              for n in range(2) for p in range(3) for t in range(3)
              for c in range(2) for o in range(4)), wrt=(), source="left as an exercise")
    .line(r"\frac{\partial L}{\partial x_{npo}} = \sum_{k,c}\bar y_{n,\,2p+k,\,c}W_{kco}",
          lambda k, g: entries(
              lambda n, p, o: sum(
                  g[n, 2 * p + t, c] * k[t, c, o] for t in range(3) for c in range(2)), 2, 3, 4))
    .line(r"= \bar y\star W \text{ with stride } 2: \text{ conv itself}",
          lambda k, g: values(conv, g, k, stride=2))
    .line(r"\frac{\partial L}{\partial W_{kco}} = \sum_{n,p}\bar y_{n,\,2p+k,\,c}\,x_{npo}",
          lambda x, g: entries(
              lambda t, c, o: sum(
                  g[n, 2 * p + t, c] * x[n, p, o] for n in range(2) for p in range(3)), 3, 2, 4),
          wrt="k")
    .line(r"= \text{conv, backwards}",
          lambda x, k, g: by_hand(conv, g, k, dy=x, wrt=1, stride=2)),
    Derivation(
        "average pooling",
        average_pool,
        wrt="x",
        sample={"x": (1, 4, 6, 2), "g": (1, 2, 3, 2)},
        source=CHAPTER,
        claim="C3",
        ends_in=("convolution.conv",),
    )
    .line(r"\frac{\partial L}{\partial x_{ijc}} ="
          r" \tfrac14\bar y_{\lfloor i/2\rfloor\lfloor j/2\rfloor c}",
          lambda g: entries(
              lambda n, i, j, c: g[n, i // 2, j // 2, c] / 4, 1, 4, 6, 2),
          source="left as an exercise")
    .line(r"= \text{conv by a constant kernel of } \tfrac14, \text{ backwards}",
          lambda x, g: by_hand(
              conv, x, np.full((2, 2, 1, 2), 0.25), dy=g, stride=2, groups=2)),
    Derivation(
        "max pooling, overlapping windows",
        max_pool,
        wrt="x",
        sample={"x": (1, 6, 2), "g": (1, 4, 2)},
        source=CHAPTER,
        claim="C3",
    )
    .line(r"\frac{\partial L}{\partial x_{qc}} ="
          r" \sum_{p:\,q\in\text{window } p}\bar y_{pc}\,[q = \argmax_{r\in\text{window }"
          r" p}x_{rc}]",
          max_pool_sum, source="left as an exercise")
    .line(r"= \sum_p\bar y_p\circ[x = y_p]",
          lambda x, g: sum(
              np.pad((x[:, p : p + 3] == x[:, p : p + 3].max(1, keepdims=True)) * g[:, p : p + 1],
                     ((0, 0), (p, 3 - p), (0, 0))) for p in range(4))),
]  # fmt: skip
