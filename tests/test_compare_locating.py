"""Where a mistake is, and what was meant, in the ways in which people write: loops, classes, rules.

The line that is wrong ends in `# !`; the report has to name it, and what should stand there.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import eager, examine
from handgrad.compare.interpret import Program
from handgrad.compare.source import place

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


def line_of(*functions):
    """The number of the line that ends in `# !`, in the first function that has one."""
    for function in functions:
        lines, start = inspect.getsourcelines(function)
        for k, line in enumerate(lines):
            if line.rstrip().endswith("# !"):
                return start + k
    raise ValueError("no line is marked")


# --- loops ---------------------------------------------------------------------------------------


def waves(x, s, u):
    return (s * jnp.sin(x)).sum() + (u * x).sum()


def waves_gradient(x, s, u):
    d = np.empty_like(x)
    for i in range(len(x)):
        d[i] = np.cos(x[i]) + u[i]  # !
    return d


def deep(ws, x):
    for w in ws:
        x = jnp.tanh(w @ x)
    return x.sum()


def deep_gradient(ws, x):
    acts = [x]
    for w in ws:
        acts.append(np.tanh(np.dot(w, acts[-1])))
    d, gradients = np.ones_like(x), [None] * len(ws)
    for k in range(1, len(ws) + 1):
        dz = d * (1 - acts[-k] ** 2)
        gradients[-k] = np.outer(dz, acts[-k])  # !
        d = np.dot(ws[-k].T, dz)
    return gradients


def chain(x, ws):
    for w in ws:
        x = jnp.tanh(w @ x)
    return x.sum()


def chain_gradient(x, ws):
    tape = []
    for w in ws:
        x = np.tanh(np.dot(w, x))
        tape.append((w, x))
    g = np.ones_like(x)
    for w, y in tape:  # !
        g = np.dot(w.T, g * (1 - y**2))
    return g


def bowl(x):
    return (x**2 + jnp.cos(x)).sum()


def bowl_gradient(x):
    left, d = list(range(len(x))), np.zeros_like(x)
    while left:
        i = left.pop()
        d[i] = np.sin(x[i]) + 2 * x[i]  # !
    return d


# --- indices -------------------------------------------------------------------------------------

IDS = np.array([1, 1, 3, 0])


def rows_backward(table, ids, dy):
    d = np.zeros_like(table)
    d[ids] += dy  # !
    return d, None


def cross_entropy(x, y):
    return -jax.nn.log_softmax(x)[jnp.arange(len(y)), y].sum()


def cross_entropy_gradient(x, y):
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    p[:, y] -= 1  # !
    return p


SOURCES, TARGETS = np.array([0, 1, 2, 2, 0]), np.array([1, 2, 0, 1, 2])


def graph(x):
    return jax.ops.segment_sum(jnp.tanh(x)[SOURCES], TARGETS, 3)


def graph_backward(x, dy):
    d = dy[SOURCES] * (1 - jnp.tanh(x)[SOURCES] ** 2)  # !
    return (jnp.zeros_like(x).at[SOURCES].add(d),)


# --- slopes, signs, what is left out -------------------------------------------------------------


def logistic(w, x, y):
    z = x @ w
    return (jnp.logaddexp(0, z) - y * z).sum()


def logistic_gradient(w, x, y):
    a = 1 / (1 + np.exp(-np.dot(x, w)))
    dz = (a - y) * a * (1 - a)  # !
    return x.T @ dz


def tanh_backward(x, dy):
    h = np.tanh(x)
    return (dy * h * (1 - h),)  # !


def silu_backward(x, dy):
    s = jax.nn.sigmoid(x)
    return (dy * s * (1 - s),)  # !


def silu_by_parts(x, dy):
    s = 1 / (1 + np.exp(-x))
    return (dy * s * (1 + (1 - s)),)  # !


def softmax_backward(x, dy):
    p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
    return (p * dy * (1 - p),)  # !


def spectrum(x, k):
    return jnp.fft.irfft(jnp.fft.rfft(x) * jnp.fft.rfft(k), 8)


def spectrum_backward(x, k, dy):
    d = jnp.fft.rfft(dy)
    dx = jnp.fft.irfft(d * jnp.fft.rfft(k), 8)  # !
    return dx, jnp.fft.irfft(d * jnp.conj(jnp.fft.rfft(x)), 8)


def rotary(x, c, s):
    a, b = x[:, 0::2], x[:, 1::2]
    return jnp.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)


def rotary_backward(x, c, s, dy):
    n = x.shape[1]
    a, b = dy[:, : n // 2], dy[:, n // 2 :]  # !
    dx = jnp.stack([a * c + b * s, b * c - a * s], -1).reshape(x.shape)
    return dx, None, None


def trace_of(a):
    return jnp.trace(a) ** 2


def trace_gradient(a):
    return 2 * a.sum() * np.eye(len(a))  # !


# --- classes -------------------------------------------------------------------------------------


class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y) ** 2  # !


def by_a_class(x, dy):
    layer = Tanh()
    layer.forward(x)
    return (layer.backward(dy),)


LAYER = Tanh()


def by_an_object(x, dy):
    LAYER.forward(x)
    return (LAYER.backward(dy),)


# --- a custom_vjp --------------------------------------------------------------------------------


def rms(x, skip, g):
    h = x + skip
    return h * jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-5) * g, h


@jax.custom_vjp
def rms_norm(x, skip, g):
    return rms(x, skip, g)


def rms_forward(x, skip, g):
    h = x + skip
    r = jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-5)
    return (h * r * g, h), (h, r, g)


def rms_backward(residuals, cotangents):
    h, r, g = residuals
    dy, dh = cotangents
    m = dy * g
    dx = r * m - r**3 * h * jnp.mean(dy * h, -1, keepdims=True) + dh  # !
    return dx, dx, jnp.sum(dy * h * r, 0, keepdims=True)


rms_norm.defvjp(rms_forward, rms_backward)


def decayed(x):
    def step(h, v):
        h = 0.9**2 * h + v
        return h, h

    return jax.lax.scan(step, jnp.zeros(x.shape[1]), x)[1]


@jax.custom_vjp
def decay(x):
    return decayed(x)


def decay_backward(_, dy):
    def step(dh, d):
        dh = dh + d  # !
        return dh, dh

    return (jax.lax.scan(step, jnp.zeros(dy.shape[1]), dy, reverse=True)[1],)


decay.defvjp(lambda x: (decayed(x), None), decay_backward)

X = normal(3, 4)
FOUND = [
    (waves_gradient, waves, (normal(4), normal(4), normal(4)), "s[i]", {"argnums": [0]}),
    (deep_gradient, deep, ([normal(3, 3) for _ in range(3)], normal(3)), "acts[-k - 1]",
     {"argnums": [0]}),
    (chain_gradient, chain, (normal(3), normal(3, 3, 3)), "reversed(list(tape))",
     {"argnums": [0]}),
    (bowl_gradient, bowl, (normal(4),), "2 * x[i] - np.sin(x[i])", {}),
    (rows_backward, lambda t, i: t[i], (normal(5, 2), IDS), "np.add.at(d, ids, dy)",
     {"kind": "backward"}),
    (cross_entropy_gradient, cross_entropy, (normal(4, 5), IDS), "p[np.arange(len(y)), y]",
     {"argnums": [0]}),
    (graph_backward, graph, (normal(3, 2),), "dy[TARGETS]", {"kind": "backward"}),
    (logistic_gradient, logistic, (normal(3), normal(5, 3), np.array([1.0, 0, 1, 1, 0])),
     "write `a - y`", {"argnums": [0]}),
    (tanh_backward, jnp.tanh, (normal(4),), "1 - h ** 2", {"kind": "backward"}),
    (silu_backward, jax.nn.silu, (normal(4),), "1 + x * (1 - s)", {"kind": "backward"}),
    (silu_by_parts, jax.nn.silu, (normal(4),), "x * (1 - s)", {"kind": "backward"}),
    (softmax_backward, jax.nn.softmax, (X,), "element by element", {"kind": "backward"}),
    (spectrum_backward, spectrum, (normal(8), normal(8)), "jnp.conj(", {"kind": "backward"}),
    (rotary_backward, rotary, (normal(3, 6), normal(3, 3), normal(3, 3)), "halves taken for pairs",
     {"kind": "backward", "argnums": [0]}),
    (trace_gradient, trace_of, (normal(3, 3),), "a.trace()", {}),
    (by_a_class, jnp.tanh, (normal(4),), "1 - self.y ** 2", {"kind": "backward"}),
    (by_an_object, jnp.tanh, (normal(4),), "1 - self.y ** 2", {"kind": "backward"}),
    (rms_norm, rms, (X, normal(3, 4), normal(1, 4)), "m * h", {"kind": "function"}),
]  # fmt: skip


@pytest.mark.parametrize(("candidate", "reference", "args", "words", "options"), FOUND)
def test_the_line_and_what_was_meant(candidate, reference, args, words, options):
    report = examine(candidate, reference, *args, **({"kind": "gradient"} | options))
    assert not report.ok
    written = [candidate, Tanh.backward] if candidate is not rms_norm else [rms_backward]
    here = f"test_compare_locating.py:{line_of(*written)}: "
    mends = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert any(m.startswith(here) and words in m for m in mends), str(report)


def test_a_rule_of_a_custom_vjp_is_known_by_its_lines():
    x = normal(4, 2)
    program = Program(lambda x, dy: jax.vjp(decay, x)[1](dy), x, x)
    lines = {where.line for where in map(place, program.equations()) if where}
    assert line_of(decay_backward) in lines
    first = examine(decay, decayed, x).diagnoses[0]
    assert f"test_compare_locating.py:{line_of(decay_backward)}" in first.text


# --- what holds at the given numbers, or at the given sizes, alone --------------------------------


def mse(w, x, y):
    return ((x @ w - y) ** 2).mean()


def mse_gradient(w, x, y):
    r = np.dot(x, w) - y
    return 2 * np.dot(x.T, r)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_mend_that_holds_at_this_size_alone_is_none(n):
    report = examine(mse_gradient, mse, normal(3), normal(n, 3), normal(n), kind="gradient",
                     argnums=[0])  # fmt: skip
    (mend,) = [d.text for d in report.diagnoses if d.kind == "mend"]
    assert "a sum taken for a mean" in mend
    assert ".shape[0]" in mend


def test_what_a_search_finds_is_mended_for_the_given_inputs_too():
    report = examine(lambda x, dy: (np.ones_like(x) * dy / 4,), jnp.mean, normal(4),
                     kind="backward", search=True)  # fmt: skip
    assert not report.ok
    assert all(d.kind != "mend" for d in report.diagnoses), str(report)


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [float, int, np.float32])
def test_labels_that_are_compared_are_labels(kind):
    def loss(a, y):
        return jnp.where(y == 1, a**2, jnp.exp(-a)).sum()

    def gradient(factor):
        return lambda a, y: jnp.where(y == 1, factor * a, -jnp.exp(-a))

    a, y = normal(6), np.array([1, 0, 1, 0, 1, 0]).astype(kind)
    options = {"kind": "gradient", "argnums": [0]}
    assert examine(gradient(2.0), loss, a, y, **options).ok
    report = examine(gradient(4.0), loss, a, y, **options)
    assert not report.ok
    assert report.gradients[0].wrong == 3


# --- where no mend is known ----------------------------------------------------------------------


def two_branches(a, b):
    return jnp.tanh(a) * jnp.exp(jnp.sin(b)) + jnp.cos(a * a) + jnp.sin(b) ** 3


def two_branches_backward(a, b, dy):
    t = jnp.tanh(a)
    s = jnp.sin(b)
    e = jnp.exp(s)
    da = dy * (1 - t**2) * e
    da = da - dy * jnp.sin(a * a) * 2 * a
    ds = dy * t * e
    ds = ds + dy * 3 * s**2
    db = ds * (0.3 * b + 0.2 * b**3)  # !
    return da, db


def test_where_the_mistake_shows():
    report = examine(two_branches_backward, two_branches, normal(4), normal(4), kind="backward")
    (found,) = [d for d in report.diagnoses if d.kind == "place"]
    here = line_of(two_branches_backward)
    assert found.text.startswith(f"test_compare_locating.py:{here - 2}-{here + 1}: look here first")


@pytest.mark.parametrize("loop", ["scan", "fori_loop"])
def test_a_loop_whose_carry_would_grow_is_not_run(loop):
    """Each round of such an edit would make the array several times as large."""
    lax = eager.Names()({"jax": jax})["jax"].lax
    start = np.ones((2, 2)).view(eager.Array)

    def grow(x):
        return x[:, None] + x

    runs = {
        "scan": lambda: lax.scan(lambda x, _: (grow(x), None), start, None, length=9),
        "fori_loop": lambda: lax.fori_loop(0, 9, lambda _, x: grow(x), start),
    }
    with pytest.raises(TypeError, match="the carry had the shapes"):
        runs[loop]()
