"""What layers can and cannot represent: N8 (XOR), N9 (approximation), N10 (depth)."""

import jax.numpy as jnp
import numpy as np

from handgrad.manual.derivation import Derivation
from handgrad.manual.derivations.notation import FUNDAMENTALS, by_hand, values
from handgrad.manual.networks import mlp

CORNERS = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
K = 4  # layers of the sawtooth


def sign(a):
    """The neuron of table 3-1: +1 at zero and above, −1 below."""
    return np.where(a >= 0, 1.0, -1.0)


def AND(p, q):
    """On ±1: one sign neuron, p + q − 1."""
    return sign(p + q - 1)


def OR(p, q):
    """On ±1: one sign neuron, p + q + 1."""
    return sign(p + q + 1)


def xor_net(x):
    """Two layers of sign neurons on inputs 0 and 1: ¬x₁ ∧ x₂ and x₁ ∧ ¬x₂, then or."""
    hidden = sign(x @ np.array([[-1.0, 1.0], [1.0, -1.0]]) - 0.5)
    return sign(hidden @ np.array([1.0, 1.0]) + 1)


def sawtooth(x):
    """The tent map 1 − |2x − 1| on [0, 1], K times."""
    for _ in range(K):
        x = 2 * jnp.maximum(x, 0) - 4 * jnp.maximum(x - 0.5, 0)
    return x


def sawtooth_params(depth):
    """The same as a relu net of width two, one layer a tent: for `mlp`."""
    first = np.array([[1.0, 1.0]]), np.array([0.0, -0.5])
    inner = np.array([[2.0, 2.0], [-4.0, -4.0]]), np.array([0.0, -0.5])
    last = np.array([[2.0], [-4.0]]), np.array([0.0])
    return [first, *[inner] * (depth - 1), last]


def tents(x):
    """The inputs of the K tents."""
    inputs = [x]
    for _ in range(K - 1):
        inputs.append(1 - np.abs(2 * inputs[-1] - 1))
    return inputs


def linear_net(params, x):
    (w1, b1), (w2, b2) = params
    return ((x * w1 + b1) @ w2 + b2)[0]


DERIVATIONS = [
    Derivation(
        "XOR with two layers of sign neurons",
        lambda x: jnp.where(x[:, 0] != x[:, 1], 1.0, -1.0),
        sample={"x": CORNERS},
        let={"a": lambda x: 2 * x[:, 0] - 1, "b": lambda x: 2 * x[:, 1] - 1},
        source=FUNDAMENTALS,
        claim="N8",
        ends_in=("networks.mlp",),
    )
    .line(r"\text{XOR}(x_1,x_2) = \text{OR}(\text{AND}(\bar x_1,x_2),\text{AND}(x_1,\bar x_2))",
          lambda a, b: np.where(((a < 0) & (b > 0)) | ((a > 0) & (b < 0)), 1.0, -1.0),
          source="3.1.2")
    .line(r"= \text{the same with a sign neuron for every AND and OR}",
          lambda a, b: OR(AND(-a, b), AND(a, -b)), source="figure 3-6")
    .line(r"= \sign(1+\sum_j\sign(\sum_i w_{ij}x_i-\tfrac12))", xor_net, source="figure 3-6")
    .line(r"= \text{mlp with sign}",
          lambda x: values(
              mlp,
              [(np.array([[-1.0, 1.0], [1.0, -1.0]]), np.array([-0.5, -0.5])),
               (np.array([[1.0], [1.0]]), np.array([1.0]))],
              x, activation="sign", output_activation="sign")[:, 0]),
    Derivation(
        "one neuron cannot: the sums over both diagonals agree",
        lambda w, b: (CORNERS[0] @ w + b) + (CORNERS[3] @ w + b),
        sample={"w": (2,), "b": ()},
        source=FUNDAMENTALS,
        claim="N8",
    )
    .line(r"a(0,0)+a(1,1) = w_1+w_2+2b", lambda w, b: w[0] + w[1] + 2 * b, source="figure 3-6(a)")
    .line(r"= a(0,1)+a(1,0), \text{ but XOR wants } <0 \text{ here and } \ge0 \text{ there}",
          lambda w, b: (w[1] + b) + (w[0] + b), source="figure 3-6(a)"),
    Derivation(
        "a net of linear neurons is one affine map",
        lambda params, x: linear_net(params, x),
        sample={"params": [[(5,), (5,)], [(5, 1), (1,)]], "x": ()},
        source=FUNDAMENTALS,
        claim="N9",
        ends_in=("networks.mlp",),
    )
    .line(r"W_2(W_1x+b_1)+b_2 = (W_2W_1)x + (W_2b_1+b_2)",
          lambda params, x: sum(params[0][0][j] * params[1][0][j, 0] for j in range(5)) * x
          + sum(params[0][1][j] * params[1][0][j, 0] for j in range(5)) + params[1][1][0],
          source="3.1.3")
    .line(r"= \text{mlp with identity}",
          lambda params, x: values(
              mlp, [(params[0][0][None], params[0][1]), tuple(params[1])], x[None, None],
              activation="identity")[0, 0])
    .line(r"f(1)-2f(0)+f(-1) = 2 \text{ reachable, as } x^2 \text{ has it}", lambda: 2.0,
          of=(bend := lambda params: linear_net(params, 1.0) - 2 * linear_net(params, 0.0)
              + linear_net(params, -1.0)),
          source="3.1.3, universal approximation",
          wrong="“at least one hidden layer with enough neurons” is not enough: the activation "
          "must not be a polynomial. With table 3-1's linear function no width bends the line, as "
          "x² is bent")
    .line(r"f(1)-2f(0)+f(-1) = 0 \text{ for linear neurons, whatever the width}",
          lambda params: linear_net(params, 1.0) - linear_net(params, 0.0)
          - (linear_net(params, 0.0) - linear_net(params, -1.0)), of=bend),
    Derivation(
        "the sawtooth: depth against width",
        sawtooth,
        wrt="x",
        sample={"x": lambda rng: rng.uniform(0.01, 0.99, 7)},
        source=FUNDAMENTALS,
        claim="N10",
        ends_in=("networks.mlp",),
    )
    .line(r"\text{tent}^{k}(x) = 1 - |2\,\text{frac}(2^{k-1}x) - 1|",
          lambda x: 1 - np.abs(2 * (2 ** (K - 1) * x % 1) - 1), wrt=(),
          source="3.1.4, compactness of depth")
    .line(r"= 2^k\text{relu}(x) + \sum_{i=1}^{2^k-1}(-1)^i\,2^{k+1}\text{relu}(x-i/2^k)"
          r" \text{ (one layer)}",
          lambda x: 2**K * np.maximum(x, 0) + sum(
              (-1) ** i * 2 ** (K + 1) * np.maximum(x - i / 2**K, 0) for i in range(1, 2**K)))
    .line(r"= \text{mlp with relu, width 2, depth } k",
          lambda x: values(mlp, sawtooth_params(K), x[:, None], activation="relu")[:, 0])
    .line(r"\frac{d}{dx}\text{tent}^k = \prod_l(2-4\,[x_l>\tfrac12])",
          lambda x: np.diag(np.prod([2 - 4 * (t > 0.5) for t in tents(x)], axis=0)))
    .line(r"= (-1)^{\lfloor 2^kx\rfloor}\,2^k",
          lambda x: np.diag((-1.0) ** np.floor(2**K * x) * 2**K))
    .line(r"= \text{mlp, backwards}",
          lambda x: np.diag(by_hand(
              mlp, sawtooth_params(K), x[:, None], wrt=1, activation="relu")[:, 0])),
]  # fmt: skip
