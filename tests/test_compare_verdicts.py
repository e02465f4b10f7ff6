"""Right derivations pass, wrong ones fail: small ones of many kinds, and the verdicts beside.

Every row is a pair of functions and inputs; the inputs are small, so that a row costs little more
than tracing. The rows are no part of benchmarks/corpus.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from handgrad import manual
from handgrad.compare import examine

RNG = np.random.default_rng(0)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


X, V = normal(3, 4), normal(5)
W, SQUARE = normal(4, 2), normal(3, 3)
DOUBLE = normal(6, dtype=np.float64)


@pytest.fixture(autouse=True)
def defaults():
    """A user's JAX as it comes; test_compare_bad_input is about other settings."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


# --- rows -----------------------------------------------------------------------------------------

RIGHT, WRONG = {}, {}


def backward(table, name, candidate, reference, *args, **options):
    assert name not in table
    table[name] = (candidate, reference, args, {"kind": "backward", **options})


def gradient(table, name, candidate, reference, *args, **options):
    backward(table, name, candidate, reference, *args, kind="gradient", **options)


right = functools.partial(backward, RIGHT)
wrong = functools.partial(backward, WRONG)
right_gradient = functools.partial(gradient, RIGHT)
wrong_gradient = functools.partial(gradient, WRONG)


# where an index is computed in floats, which a rounding error would move


def scaled(function, by):
    """Autodiff's cotangents, so many times."""

    def backward(*args):
        *xs, dy = args
        return tuple(by * g for g in jax.vjp(function, *xs)[1](dy))

    return backward


def picked(x, mask):
    return jnp.sort(x)[jnp.floor(mask.mean() * 5).astype(int)]


def nearest(x):
    return x[jnp.floor(jnp.asarray(PLACES) * 5).astype(int)]


PLACES = np.linspace(0, 1, 6, dtype=np.float32)[1:5]
MASK = np.array([1.0, 0, 1, 0, 1])
for by in (0, 1.001, 2):
    wrong(f"the median times {by}", scaled(jnp.median, by), jnp.median, V)
    wrong(f"the nanmedian times {by}", scaled(jnp.nanmedian, by), jnp.nanmedian, V)
for by in (0, 2):  # a mask stays as it is, and 3/5 times 5 is rounded
    wrong(f"picked times {by}", scaled(picked, by), picked, V, MASK, argnums=0)
wrong("the nearest", scaled(nearest, 1.001), nearest, V)
right("the median", scaled(jnp.median, 1), jnp.median, V)
right("picked", scaled(picked, 1), picked, V, MASK, argnums=0)


# one layer, in all the ways to get it wrong


def layer(x, w, b):
    return jnp.tanh(x @ w + b)


def layer_backward(x, w, b, dy, slope=lambda h: 1 - h * h):
    d = dy * slope(jnp.tanh(x @ w + b))
    return d @ w.T, x.T @ d, d.sum(0)


def spoilt(backward, place, spoil):
    """One of the cotangents of a right backward, spoilt."""

    def candidate(*args):
        cotangents = list(backward(*args))
        cotangents[place] = spoil(jnp.asarray(cotangents[place]))
        return tuple(cotangents)

    return candidate


LAYER = (X, W, np.zeros(2, np.float32))
right("layer", layer_backward, layer, *LAYER)
right("layer, another form of the slope", functools.partial(
    layer_backward, slope=lambda h: (1 - h) * (1 + h)), layer, *LAYER)  # fmt: skip
for name, place, spoil in (
    ("sign", 0, lambda g: -g),
    ("factor two", 1, lambda g: 2 * g),
    ("a mean for a sum", 2, lambda g: g / 3),
    ("nothing", 1, jnp.zeros_like),
    ("a billionth of one element", 1, lambda g: g.at[2, 1].multiply(1 + 1e-9)),
    ("less than a billionth", 1, lambda g: g.at[2, 1].multiply(1 - 3e-11)),
    ("a constant added", 0, lambda g: g + 1e-9),
    ("a row missing", 1, lambda g: g.at[0].set(0)),
    ("rows reversed", 0, lambda g: g[::-1]),
    ("rounded to bfloat16", 0, lambda g: g.astype(jnp.bfloat16).astype(g.dtype)),
    ("nan in one element", 0, lambda g: g.at[1, 1].set(jnp.nan)),
    ("inf in one element", 0, lambda g: g.at[1, 1].set(jnp.inf)),
    ("absolute value", 0, jnp.abs),
    ("clipped", 1, lambda g: jnp.clip(g, -0.1, 0.1)),
):
    wrong(f"layer: {name}", spoilt(layer_backward, place, spoil), layer, *LAYER)
wrong(
    "layer of float64: rounded to single precision",
    spoilt(layer_backward, 1, lambda g: g.astype(jnp.float32).astype(g.dtype)),
    layer,
    *(np.float64(a) for a in LAYER),
)
wrong(
    "layer: no slope", functools.partial(layer_backward, slope=lambda h: 1 + 0 * h), layer, *LAYER
)
wrong(
    "layer: the bias left out of the forward",
    lambda x, w, b, dy: layer_backward(x, w, 0 * b, dy),
    layer,
    *LAYER,
)
wrong("layer: dy squared", lambda x, w, b, dy: layer_backward(x, w, b, dy * dy), layer, *LAYER)
wrong(
    "layer: dy ignored",
    lambda x, w, b, dy: layer_backward(x, w, b, jnp.ones_like(dy)),
    layer,
    *LAYER,
)
wrong(
    "layer: dy by absolute value",
    lambda x, w, b, dy: layer_backward(x, w, b, jnp.abs(dy)),
    layer,
    *LAYER,
)
wrong(
    "layer: dy averaged",
    lambda x, w, b, dy: layer_backward(x, w, b, dy.mean() + 0 * dy),
    layer,
    *LAYER,
)
wrong(
    "square product: transposed",
    lambda x, w, dy: (dy @ w, x.T @ dy),
    jnp.matmul,
    SQUARE,
    SQUARE + 1,
)
wrong(
    "square product: swapped", lambda x, w, dy: (x.T @ dy, dy @ w.T), jnp.matmul, SQUARE, SQUARE + 1
)

# one element in a hundred thousand, and one that is small among large ones

LARGE = np.linspace(0.5, 2, 100_000)
right("cubes", lambda x, dy: 3 * x * x * dy, lambda x: x**3, LARGE)
wrong(
    "cubes: one in 100,000 off by a billionth",
    lambda x, dy: (3 * x * x * dy).at[77_777].multiply(1 + 1e-9),
    lambda x: x**3,
    LARGE,
)
SPREAD = np.array([1e-20, 1.0, 1e20, -3.0])
right("squares of unlike sizes", lambda x, dy: 2 * x * dy, jnp.square, SPREAD)
wrong(
    "squares: the small one off",
    lambda x, dy: (2 * x * dy).at[0].multiply(1 + 1e-8),
    jnp.square,
    SPREAD,
)
wrong("squares: the small one missing", lambda x, dy: (2 * x * dy).at[0].set(0), jnp.square, SPREAD)
wrong(
    "mean of many, each off",
    lambda x, dy: jnp.full_like(x, 1 + 2e-9) * dy / x.size,
    jnp.mean,
    LARGE,
)

# normalisations: paths through the mean and the variance


def standardize(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def standardize_backward(x, dy, means=True, variance=True, unbiased=False):
    n = x.shape[-1]
    centred = x - x.mean(-1, keepdims=True)
    square = (centred**2).sum(-1, keepdims=True) / (n - unbiased)
    rstd = 1 / jnp.sqrt(square + 1e-5)
    y = centred * rstd
    dx = dy
    if means:
        dx = dx - dy.mean(-1, keepdims=True)
    if variance:
        dx = dx - y * (dy * y).mean(-1, keepdims=True)
    return dx * rstd


right("standardize", standardize_backward, standardize, X)
right("standardize a single column", standardize_backward, standardize, normal(3, 1))
right("standardize, far from zero", standardize_backward, standardize, X + 1000)
wrong("standardize: mean", functools.partial(standardize_backward, means=False), standardize, X)
wrong(
    "standardize: variance", functools.partial(standardize_backward, variance=False), standardize, X
)
wrong(
    "standardize: unbiased", functools.partial(standardize_backward, unbiased=True), standardize, X
)
right("unit length", lambda x, dy: (dy - x * (x @ dy) / (x @ x)) / jnp.sqrt(x @ x),
      lambda x: x / jnp.linalg.norm(x), V)  # fmt: skip
wrong("unit length: y for x", lambda x, dy: (dy - x * (x @ dy)) / jnp.sqrt(x @ x),
      lambda x: x / jnp.linalg.norm(x), V)  # fmt: skip

# softmax and its family, where a cotangent of ones sees nothing


def softmax_backward(x, dy):
    p = jax.nn.softmax(x)
    return p * (dy - (p * dy).sum(-1, keepdims=True))


right("softmax", softmax_backward, jax.nn.softmax, X)
right("softmax, saturated", softmax_backward, jax.nn.softmax, 100 * X)
right("softmax at ten thousand", softmax_backward, jax.nn.softmax, 1e4 * X)
right("softmax of one", softmax_backward, jax.nn.softmax, normal(3, 1))
wrong(
    "softmax: diagonal only",
    lambda x, dy: jax.nn.softmax(x) * (1 - jax.nn.softmax(x)) * dy,
    jax.nn.softmax,
    X,
)
wrong("softmax: zero", lambda x, dy: 0 * x, jax.nn.softmax, X)
wrong(
    "softmax: mean for sum",
    lambda x, dy: jax.nn.softmax(x) * (dy - (jax.nn.softmax(x) * dy).mean(-1, keepdims=True)),
    jax.nn.softmax,
    X,
)
LABELS = np.array([0, 3, 1])


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))


def cross_entropy_gradient(logits, labels, count=3):
    return (jax.nn.softmax(logits) - jax.nn.one_hot(labels, 4)) / count, None


right_gradient("cross entropy", cross_entropy_gradient, cross_entropy, X, LABELS)
right_gradient("cross entropy, confident", cross_entropy_gradient, cross_entropy, 60 * X, LABELS)
right_gradient(
    "the first argument alone",
    lambda x, y: cross_entropy_gradient(x, y)[0],
    cross_entropy,
    X,
    LABELS,
)
wrong_gradient(
    "cross entropy: sum",
    functools.partial(cross_entropy_gradient, count=1),
    cross_entropy,
    X,
    LABELS,
)
wrong_gradient("cross entropy: one-hot of another axis", lambda x, y: (
    (jax.nn.softmax(x, 0) - jax.nn.one_hot(y, 4)) / 3, None), cross_entropy, X, LABELS)  # fmt: skip
right(
    "log-sum-exp",
    lambda x, dy: dy[:, None] * jax.nn.softmax(x),
    lambda x: jax.nn.logsumexp(x, 1),
    X,
)
MASK = np.where(np.eye(3, 4) > 0, -np.inf, 0).astype(np.float32)
right("softmax with -inf masked", lambda x, dy: softmax_backward(x + MASK, dy),
      lambda x: jax.nn.softmax(x + MASK), X)  # fmt: skip

# indices, order, windows

TABLE, ROWS = normal(5, 2), np.array([0, 3, 3, 1])
right(
    "rows of a table",
    lambda t, i, dy: (jnp.zeros_like(t).at[i].add(dy), None),
    lambda t, i: t[i],
    TABLE,
    ROWS,
)
wrong("rows of a table: overwritten", lambda t, i, dy: (jnp.zeros_like(t).at[i].set(dy), None),
      lambda t, i: t[i], TABLE, ROWS)  # fmt: skip
right("cumulative sum", lambda x, dy: jnp.cumsum(dy[::-1])[::-1], jnp.cumsum, V)
wrong("cumulative sum: not reversed", lambda x, dy: jnp.cumsum(dy), jnp.cumsum, V)
right("sort", lambda x, dy: jnp.zeros_like(x).at[jnp.argsort(x)].set(dy), jnp.sort, V)
wrong(
    "sort: inverse order",
    lambda x, dy: dy[jnp.argsort(x)],
    jnp.sort,
    np.array([0.3, 2.0, -1.0, 0.7]),
)
KERNEL = normal(3)
valid = functools.partial(jnp.convolve, mode="valid")
right(
    "convolution",
    lambda x, k, dy: (
        jnp.convolve(dy, k[::-1]),
        jnp.stack([(x[2 - i : 5 - i] * dy).sum() for i in range(3)]),
    ),
    valid,
    V,
    KERNEL,
)
wrong(
    "convolution: kernel not turned",
    lambda x, k, dy: (
        jnp.convolve(dy, k),
        jnp.stack([(x[2 - i : 5 - i] * dy).sum() for i in range(3)]),
    ),
    valid,
    V,
    KERNEL,
)
wrong("difference: shifted", lambda x, dy: jnp.pad(dy, (0, 1)) - jnp.pad(dy, (1, 0)), jnp.diff, V)
right("difference", lambda x, dy: jnp.pad(dy, (1, 0)) - jnp.pad(dy, (0, 1)), jnp.diff, V)

# linear algebra

WELL = SQUARE + 3 * np.eye(3, dtype=np.float32)


def inverse_backward(a, dy):
    y = jnp.linalg.inv(a)
    return -y.T @ dy @ y.T


right("inverse", inverse_backward, jnp.linalg.inv, WELL)
wrong(
    "inverse: not transposed",
    lambda a, dy: -jnp.linalg.inv(a) @ dy @ jnp.linalg.inv(a),
    jnp.linalg.inv,
    WELL,
)
right_gradient(
    "quadratic form",
    lambda x, a: ((a + a.T) @ x, jnp.outer(x, x)),
    lambda x, a: x @ a @ x,
    V[:3],
    SQUARE,
)
wrong_gradient("quadratic form: as if symmetric", lambda x, a: (2 * a @ x, jnp.outer(x, x)),
               lambda x, a: x @ a @ x, V[:3], SQUARE)  # fmt: skip

# recurrence


def rnn(w, h, xs):
    return lax.scan(lambda h, x: (jnp.tanh(w @ h + x),) * 2, h, xs)[1]


def rnn_backward(w, h0, xs, dys, forget=False):
    hs = [h0, *rnn(w, h0, xs)]
    dw, dh, dxs = jnp.zeros_like(w), jnp.zeros_like(h0), []
    for t in reversed(range(len(xs))):
        d = (dys[t] + dh) * (1 - hs[t + 1] ** 2)
        dw, dh = dw + jnp.outer(d, hs[t]), w.T @ d
        if forget and t == 1:
            dh = 0 * dh
        dxs.append(d)
    return dw, dh, jnp.stack(dxs[::-1])


RECURRENT = (SQUARE, np.zeros(3, np.float32), normal(4, 3))
right("recurrence", rnn_backward, rnn, *RECURRENT)
wrong(
    "recurrence: cut in the middle", functools.partial(rnn_backward, forget=True), rnn, *RECURRENT
)

# kinks and steps

AT = np.array([0.0, 1.0, -1.0, 0.0, 2.5])
for at_zero in (0.0, 0.25, 1.0):
    right(f"relu with {at_zero} at 0",
          lambda x, dy, c=at_zero: dy * jnp.where(x == 0, c, x > 0), jax.nn.relu, AT)  # fmt: skip
for at_zero in (-0.01, 1.01, -1.0, 2.0):
    wrong(f"relu with {at_zero} at 0",
          lambda x, dy, c=at_zero: dy * jnp.where(x == 0, c, x > 0), jax.nn.relu, AT)  # fmt: skip
for at_zero in (-1.0, 0.0, 0.3, 1.0):
    right(f"absolute value with {at_zero} at 0",
          lambda x, dy, c=at_zero: dy * jnp.where(x == 0, c, jnp.sign(x)), jnp.abs, AT)  # fmt: skip
wrong(
    "absolute value with 1.5 at 0",
    lambda x, dy: dy * jnp.where(x == 0, 1.5, jnp.sign(x)),
    jnp.abs,
    AT,
)
wrong("relu: right at the kinks only", lambda x, dy: dy * (x == 0) * 0.5, jax.nn.relu, AT)
wrong(
    "relu: a kink at the wrong place",
    lambda x, dy: dy * (x > 1e-6),
    jax.nn.relu,
    np.array([1e-7, 0.5, -1.0]),
)
TIES = np.array([1.0, 3.0, 3.0, 0.0])
right(
    "maximum: the first of the ties",
    lambda x, dy: dy * jax.nn.one_hot(jnp.argmax(x), 4),
    jnp.max,
    TIES,
)
right(
    "maximum: the last of the ties",
    lambda x, dy: dy * jax.nn.one_hot(3 - jnp.argmax(x[::-1]), 4),
    jnp.max,
    TIES,
)
right(
    "maximum: shared by the ties",
    lambda x, dy: dy * (x == x.max()) / (x == x.max()).sum(),
    jnp.max,
    TIES,
)
wrong("maximum: all of it to each tie", lambda x, dy: dy * (x == x.max()), jnp.max, TIES)
wrong("maximum: none of it to the ties", lambda x, dy: 0 * x, jnp.max, TIES)
wrong("maximum: negative to a tie", lambda x, dy: dy * jnp.array([0, -0.5, 1.5, 0]), jnp.max, TIES)
right("pooled maximum, first", lambda x, dy: (jax.nn.one_hot(x.argmax(1), 2) * dy[:, None]),
      lambda x: x.max(1), np.array([[1.0, 1.0], [0.0, 2.0], [3.0, -1.0]]))  # fmt: skip
right("clip, half at the edges", lambda x, dy: dy * jnp.where(jnp.abs(x) == 1, 0.5, jnp.abs(x) < 1),
      lambda x: jnp.clip(x, -1, 1), AT)  # fmt: skip
right("step", lambda x, dy: 0 * dy, lambda x: jnp.where(x > 0, 1.0, 0.0) * jnp.ones_like(x), AT)
right("round", lambda x, dy: 0 * dy, jnp.round, V)
wrong("round: straight through", lambda x, dy: dy, jnp.round, V)
wrong("sign: straight through", lambda x, dy: dy * (jnp.abs(x) < 1), jnp.sign, V)
right(
    "absolute value under a square root",
    lambda x, dy: dy * jnp.sign(x),
    lambda x: jnp.sqrt(x * x),
    V,
)

# the square root at 0 and other places where autodiff has nan


def safe_root(x):
    return jnp.where(x > 0, jnp.sqrt(x), 0.0)


def safe_root_backward(x, dy):
    return jnp.where(x > 0, dy / (2 * jnp.sqrt(jnp.where(x > 0, x, 1.0))), 0.0)


right(
    "nan of autodiff through where",
    safe_root_backward,
    safe_root,
    np.array([-1.0, 4.0, 0.25, -2.0]),
)
wrong(
    "nan of autodiff, and wrong elsewhere",
    lambda x, dy: 2 * safe_root_backward(x, dy),
    safe_root,
    np.array([-1.0, 4.0, 0.25, -2.0]),
)
wrong(
    "nan of autodiff, and wrong there",
    lambda x, dy: safe_root_backward(x, dy) + dy * (x < 0),
    safe_root,
    np.array([-1.0, 4.0, 0.25, -2.0]),
)
wrong("nan by hand through where", lambda x, dy: jnp.where(x > 0, dy, 0 * dy) / (2 * jnp.sqrt(x)),
      lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0),
      np.array([-1.0, 4.0, 0.25]))  # fmt: skip

# ways to write and to call


def numpy_backward(x, w, b, dy):
    d = np.asarray(dy) * (1 - np.tanh(x @ w + b) ** 2)
    return d @ np.transpose(w), np.transpose(x) @ d, d.sum(0)


def loops_backward(x, dy):
    dx = np.zeros(x.shape)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            dx[i, j] = 2 * float(x[i, j]) * float(dy[i, j])
    return dx


def branching_backward(x, dy):
    if x[0] > 0:
        return 2 * x * dy
    return 2 * dy * x


right("NumPy", numpy_backward, layer, *LAYER)
right("NumPy loops", loops_backward, jnp.square, X)
right("a branch on values", branching_backward, jnp.square, V)
right("a branch on values at kinks", lambda x, dy: np.array(
    [d if v >= 0 else 0 * d for v, d in zip(x, dy, strict=True)]), jax.nn.relu, AT)  # fmt: skip
wrong("NumPy: half", lambda *args: tuple(0.5 * g for g in numpy_backward(*args)), layer, *LAYER)
wrong(
    "NumPy: one element",
    lambda x, dy: loops_backward(x, dy) * (1 + 1e-9 * (np.arange(12) == 5)).reshape(3, 4),
    jnp.square,
    X,
)
wrong(
    "a branch on values: the other branch",
    lambda x, dy: 2 * x * dy if x[0] > 100 else x * dy,
    jnp.square,
    V,
)
right(
    "NumPy in single precision arguments only", lambda x, dy: np.multiply(2 * x, dy), jnp.square, X
)
wrong(
    "NumPy in single precision",
    lambda x, dy: 2 * np.float32(x) * np.float32(dy),
    jnp.square,
    X.astype(float),
)

PARAMS = {"out": [W, np.zeros(2, np.float32)], "skip": None, "count": np.int32(3)}


def tree(params, x):
    w, b = params["out"]
    return {"y": x @ w + b, "size": (jnp.sum(x**2) * params["count"],)}


def tree_backward(params, x, dy, swap=False):
    d, s = dy["y"], dy["size"][0]
    dx = d @ params["out"][0].T + 2 * x * s * params["count"]
    dw, db = x.T @ d, d.sum(0)
    return {"out": [0.5 * dw if swap else dw, db], "skip": None, "count": None}, dx


right("trees", tree_backward, tree, PARAMS, X)
wrong("trees: one leaf", functools.partial(tree_backward, swap=True), tree, PARAMS, X)
right(
    "two outputs",
    lambda x, dy: dy[0] * jnp.cos(x) - dy[1] * jnp.sin(x),
    lambda x: (jnp.sin(x), jnp.cos(x)),
    V,
)
wrong(
    "two outputs: the second dropped",
    lambda x, dy: dy[0] * jnp.cos(x),
    lambda x: (jnp.sin(x), jnp.cos(x)),
    V,
)
wrong("two outputs: exchanged", lambda x, dy: dy[1] * jnp.cos(x) - dy[0] * jnp.sin(x),
      lambda x: (jnp.sin(x), jnp.cos(x)), V)  # fmt: skip
right("an integer output beside", lambda x, dy: jnp.zeros_like(x).at[jnp.argmax(x)].set(dy[0]),
      lambda x: (jnp.max(x), jnp.argmax(x)), V)  # fmt: skip
right("one of two arguments", lambda x, w, dy: (dy * w, None), jnp.multiply, V, V + 2, argnums=(0,))
right("the second of two arguments", lambda x, w, dy: dy * x, jnp.multiply, V, V + 2, argnums=(1,))
wrong(
    "the second of two arguments, wrong",
    lambda x, w, dy: dy * w,
    jnp.multiply,
    V,
    V + 2,
    argnums=(1,),
)
right("a scalar", lambda x, dy: dy * jnp.cos(x), jnp.sin, np.float32(0.3))
right("a Python number", lambda x, dy: dy * jnp.cos(x), jnp.sin, 0.3)
right("arrays of JAX", lambda x, dy: dy * jnp.cos(x), jnp.sin, jnp.arange(3.0))
right(
    "an axis of size one", lambda x, b, dy: (dy, dy.sum(1, keepdims=True)), jnp.add, X, normal(3, 1)
)
right("an empty array", lambda x, dy: 2 * x * dy, jnp.square, np.zeros((0, 3)))
SCALES = np.array([0.1, 0.2, 0.3, 0.7])  # float64, and no binary fraction
right("a constant of NumPy closed over", lambda x, dy: SCALES * dy, lambda x: SCALES * x, X)
KEY = jax.random.key(0)


def dropout(key, x):
    k1, k2 = jax.random.split(key)
    return x * jax.random.bernoulli(k1, 0.5, x.shape) * jax.random.uniform(k2, x.shape)


right(
    "a random key as an argument",
    lambda key, x, dy: (None, dropout(key, jnp.ones_like(x)) * dy),
    dropout,
    KEY,
    X,
)
wrong(
    "another mask in the backward",
    lambda key, x, dy: (None, dropout(jax.random.fold_in(key, 1), jnp.ones_like(x)) * dy),
    dropout,
    KEY,
    X,
)

# complex numbers, in JAX's convention: the cotangent is not conjugated

Z = (normal(4) + 1j * normal(4)).astype(np.complex64)
right("squared modulus", lambda z, dy: 2 * dy * jnp.conj(z), lambda z: jnp.real(z * jnp.conj(z)), Z)
right("complex product", lambda z, w, dy: (dy * w, dy * z), jnp.multiply, Z, Z + 1)
wrong(
    "squared modulus: not conjugated",
    lambda z, dy: 2 * dy * z,
    lambda z: jnp.real(z * jnp.conj(z)),
    Z,
)
wrong(
    "complex product: conjugated",
    lambda z, w, dy: (dy * jnp.conj(w), dy * z),
    jnp.multiply,
    Z,
    Z + 1,
)


def spectrum(x):
    return jnp.abs(jnp.fft.rfft(x)) ** 2


def spectrum_backward(x, dy):
    return 2 * x.size * jnp.fft.irfft(jnp.fft.rfft(x) * dy * jnp.array([1, 0.5, 0.5, 1]), x.size)


right("power spectrum", spectrum_backward, spectrum, DOUBLE)
wrong("power spectrum: zero", lambda x, dy: 0 * x, spectrum, DOUBLE)
wrong("power spectrum: half", lambda x, dy: spectrum_backward(x, dy) / 2, spectrum, DOUBLE)
wrong(
    "complex numbers inside: zero", lambda x, dy: 0 * x, lambda x: jnp.real((x + 1j) * (x - 2j)), V
)

# dtypes and scales

for kind in (jnp.bfloat16, np.float16):
    word = jnp.dtype(kind).name
    right(f"{word} input", lambda x, dy: dy * (1 - jnp.tanh(x) ** 2), jnp.tanh, V.astype(kind))
    wrong(
        f"{word} input, off",
        lambda x, dy: 1.0001 * dy * (1 - jnp.tanh(x) ** 2),
        jnp.tanh,
        V.astype(kind),
    )


def single_inside(x):
    return jnp.sin(x.astype(jnp.float32)).astype(x.dtype)


def half_inside(x):
    return jnp.sin(x.astype(jnp.bfloat16)).astype(x.dtype)


right("single precision inside the reference", lambda x, dy: jnp.cos(x) * dy, single_inside, X)
right(
    "single precision inside both",
    lambda x, dy: (jnp.cos(x.astype(jnp.float32)) * dy).astype(x.dtype),
    single_inside,
    X,
)
for factor in (0.0, 1.001, 1.5, -1.0):
    wrong(f"single precision inside the reference, {factor} times",
          lambda x, dy, f=factor: f * jnp.cos(x) * dy, single_inside, X)  # fmt: skip
for factor in (0.0, 1.5, -1.0):
    wrong(f"bfloat16 inside the reference, {factor} times",
          lambda x, dy, f=factor: f * jnp.cos(x) * dy, half_inside, X)  # fmt: skip
wrong(
    "single precision inside, of float64",
    lambda x, dy: (2 * x.astype(jnp.float32) * dy).astype(x.dtype),
    jnp.square,
    DOUBLE,
)
wrong(
    "bfloat16 inside, of float32",
    lambda x, dy: (2 * x.astype(jnp.bfloat16) * dy).astype(x.dtype),
    jnp.square,
    X,
)
for scale in (1e-30, 1e4):
    right(
        f"sigmoid at {scale}",
        lambda x, dy: dy * jax.nn.sigmoid(x) * jax.nn.sigmoid(-x),
        jax.nn.sigmoid,
        scale * V,
    )
    right(f"softplus at {scale}", lambda x, dy: dy * jax.nn.sigmoid(x), jax.nn.softplus, scale * V)
    wrong(
        f"softplus at {scale}: sign of x",
        lambda x, dy: dy * jax.nn.sigmoid(-x),
        jax.nn.softplus,
        scale * V,
    )
    right(
        f"cubes at {scale}",
        lambda x, dy: 3 * x * x * dy,
        lambda x: x * x * x,
        scale * V.astype(np.float64),
    )
    wrong(
        f"cubes at {scale}: off",
        lambda x, dy: 3.000001 * x * x * dy,
        lambda x: x * x * x,
        scale * V.astype(np.float64),
    )

# right, but badly conditioned

right("variance by the mean of squares", lambda x, dy: dy * 2 * (x - x.mean()) / x.size,
      lambda x: (x * x).mean() - x.mean() ** 2, 1e3 + V)  # fmt: skip
right(
    "slope of tanh from exponentials",
    lambda x, dy: dy * 4 / (jnp.exp(x) + jnp.exp(-x)) ** 2,
    jnp.tanh,
    3 * V,
)
right(
    "one minus the cosine",
    lambda x, dy: 2 * dy * jnp.sin(x / 2) * jnp.cos(x / 2),
    lambda x: 1 - jnp.cos(x),
    1e-3 * V,
)
right(
    "difference of logarithms",
    lambda x, dy: dy / (x * (x + 1)) * -1,
    lambda x: jnp.log((x + 1) / x),
    1e4 + V,
)
# stopped gradients and straight-through estimators agree with autodiff, not with the numbers

right(
    "a stopped path", lambda x, dy: dy * jnp.exp(x), lambda x: x * lax.stop_gradient(jnp.exp(x)), V
)
wrong("a stopped path, wrong", lambda x, dy: dy * x, lambda x: x * lax.stop_gradient(jnp.exp(x)), V)
wrong(
    "a stop forgotten",
    lambda x, dy: 2 * dy * x * jnp.exp(x**2),
    lambda x: jnp.exp(x * lax.stop_gradient(x)),
    V,
)
wrong(
    "straight through, cut off",
    lambda x, dy: dy * (jnp.abs(x) <= 1),
    lambda x: x + lax.stop_gradient(jnp.sign(x) - x),
    3 * V,
)
right("straight through", lambda x, dy: dy, lambda x: x + lax.stop_gradient(jnp.round(x) - x), V)


@jax.custom_vjp
def reversal(x):
    return x


@jax.custom_jvp
def spike(x):
    return (x > 0).astype(x.dtype)


reversal.defvjp(lambda x: (x, None), lambda _, dy: (-dy / 2,))
spike.defjvp(lambda at, dx: (spike(*at), dx[0] / (1 + jnp.abs(at[0])) ** 2))

# and so do derivatives of its own around an identity or a step
right("reversed", lambda x, dy: -dy / 2 * jnp.exp(x), lambda x: jnp.exp(reversal(x)), V)
wrong("a reversal forgotten", lambda x, dy: dy * jnp.exp(x), lambda x: jnp.exp(reversal(x)), V)
right("surrogate", lambda x, dy: dy * 2 / (1 + jnp.abs(x)) ** 2, lambda x: 2 * spike(x), V)
wrong("a surrogate forgotten", lambda x, dy: 0 * dy * x, lambda x: 2 * spike(x), V)

# labels +1 and -1, whose square is one
SIGNS = np.array([1.0, -1.0, -1.0, 1.0])
right_gradient(
    "squared margin",
    lambda z, y: (z - y, None),
    lambda z, y: jnp.sum((1 - y * z) ** 2) / 2,
    V[:4].astype(float),
    SIGNS,
    argnums=(0,),
)


# Here the numerical derivative is not autodiff's, and that is remarked.
SUSPECTED = {
    *("a stopped path", "straight through", "reversed", "surrogate"),
    "nan of autodiff through where",
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", RIGHT)
def test_right(name):
    candidate, reference, args, options = RIGHT[name]
    report = examine(candidate, reference, *args, **options)
    assert report.ok, str(report)
    suspected = any("stop_gradient" in r or "odd one out" in r for r in report.remarks)
    assert suspected == (name in SUSPECTED), report.remarks


@pytest.mark.sweep(4)
@pytest.mark.parametrize("name", WRONG)
def test_wrong(name):
    candidate, reference, args, options = WRONG[name]
    report = examine(candidate, reference, *args, **options)
    assert not report.ok, str(report)
    assert report.problem is None, str(report)
    assert any(q.wrong for q in report.gradients)


# --- a function that is called twice -------------------------------------------------------------


def divergence(a, b):
    p, q = jax.nn.log_softmax(a), jax.nn.log_softmax(b)
    return (jnp.exp(p) * (p - q)).sum()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_roundings_of_two_calls_do_not_cancel(seed):
    """Of two almost certain predictions log_softmax rounds both to 0, the derivation neither."""
    a, b = np.random.default_rng(seed).normal(size=(2, 4)) * 100
    b[a.argmax()] = b.max() + 20 + a.max() / 10
    assert 0 < manual.kl_divergence_with_logits(a, b) < 1e-6
    report = examine(manual.kl_divergence_with_logits, divergence, a, b)
    assert report.ok, str(report)
