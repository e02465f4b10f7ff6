"""Two mistakes or three at once, each in a line of its own: every one is found, with its words.

No single change mends such a derivation; each of those that are found makes some gradient right
that was not, and all of them every gradient.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import examine

NAMES = "x t w1 b1 w2 b2".split()
SHAPES = (4, 3), (4, 2), (3, 5), (5,), (5, 2), (2,)

# the right line, and the mistake in it; each makes other gradients wrong
SLIPS = {
    "loss": ("dy = 2 * (y - t) / n", "dy = (y - t) / n"),
    "mean": ("dw2 = h.T @ dy", "dw2 = h.T @ dy / n"),
    "sign": ("db2 = dy.sum(0)", "db2 = -dy.sum(0)"),
    "slope": ("dz = dh * (1 - h ** 2)", "dz = dh * (1 - h)"),
    "operand": ("dw1 = x.T @ dz", "dw1 = x.T @ dh"),
    "scale": ("db1 = dz.sum(0)", "db1 = dz.sum(0) / 7"),
    "target": ("dt = -dy", "dt = dy"),
}
RIGHT = """
def backward(x, t, w1, b1, w2, b2):
    h = jnp.tanh(x @ w1 + b1)
    y = h @ w2 + b2
    n = len(x)
    dy = 2 * (y - t) / n
    dt = -dy
    dw2 = h.T @ dy
    db2 = dy.sum(0)
    dh = dy @ w2.T
    dz = dh * (1 - h ** 2)
    dw1 = x.T @ dz
    db1 = dz.sum(0)
    return dz @ w1.T, dt, dw1, db1, dw2, db2
"""
# the same backward of one sample after another, and of objects that keep what they need
LOOP = """
def backward(x, t, w1, b1, w2, b2):
    h = np.tanh(x @ w1 + b1)
    y = h @ w2 + b2
    dw1, db1 = np.zeros_like(w1), np.zeros_like(b1)
    dw2, db2 = np.zeros_like(w2), np.zeros_like(b2)
    dx, dt = np.zeros_like(x), np.zeros_like(t)
    for i in range(len(x)):
        dy = 2 * (y[i] - t[i]) / len(x)
        dt[i] = -dy
        dw2 += np.outer(h[i], dy)
        db2 = dy
        dz = (w2 @ dy) * (1 - h[i])
        dw1 += np.outer(x[i], dz)
        db1 += dz
        dx[i] = w1 @ dz
    return dx, dt, dw1, db1, dw2, db2
"""
LAYERS = """
class Dense:
    def __init__(self, w, b):
        self.w, self.b = w, b

    def forward(self, x):
        self.x = x
        return x @ self.w + self.b

    def backward(self, dy):
        self.dw, self.db = self.x.T @ dy / len(dy), dy.sum(0)
        return dy @ self.w.T


def tanh_backward(h, dh):
    return dh * (1 + h ** 2)


def backward(x, t, w1, b1, w2, b2):
    first, second = Dense(w1, b1), Dense(w2, b2)
    h = np.tanh(first.forward(x))
    dy = 2 * (second.forward(h) - t) / len(x)
    dx = first.backward(tanh_backward(h, second.backward(dy)))
    return dx, -dy, first.dw, first.db, second.dw, second.db
"""


def loss(x, t, w1, b1, w2, b2):
    y = jnp.tanh(x @ w1 + b1) @ w2 + b2
    return ((y - t) ** 2).sum() / len(x)


@pytest.fixture(autouse=True)
def defaults():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture
def told(tmp_path):
    """What is said of the derivation of a source: the lines, and the words of each mend."""

    def told(source):
        file = tmp_path / "derived.py"
        file.write_text(source)
        names = {"jnp": jnp, "np": np, "__name__": "derived"}
        exec(compile(source, str(file), "exec"), names)
        rng = np.random.default_rng(0)
        args = [rng.standard_normal(shape) for shape in SHAPES]
        report = examine(names["backward"], loss, *args, kind="gradient", argnums=tuple(range(6)))
        assert not report.ok
        mends = [d.text for d in report.diagnoses if d.kind == "mend"]
        return {int(m.split("derived.py:")[1].split(":")[0]): m for m in mends}

    return told


def wrong(*slips):
    """The backward with these mistakes, and the lines that they are in."""
    source, lines = RIGHT, set()
    for slip in slips:
        right, mistaken = SLIPS[slip]
        assert right in source
        lines.add(source[: source.index(right)].count("\n") + 1)
        source = source.replace(right, mistaken)
    return source, lines


@pytest.mark.sweep(4)
@pytest.mark.parametrize("slips", [*itertools.combinations(SLIPS, 2)], ids="-".join)
def test_two_mistakes_are_found_in_their_lines(told, slips):
    source, lines = wrong(*slips)
    found = told(source)
    assert len(found) == 2
    assert all(text.endswith("and it is right with the other change") for text in found.values())
    # half the slope of a square may as well be mended by half the size that it is divided by
    assert lines - set(found) <= ({6} if "loss" in slips else set())


def test_three_mistakes_are_found_in_their_lines(told):
    source, lines = wrong("mean", "sign", "slope")
    found = told(source)
    assert set(found) == lines
    assert all(text.endswith("it is right with the other changes") for text in found.values())
    assert "write `h.T @ dy` for `h.T @ dy / n`" in found[min(lines)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (LOOP, {"write `db2 += dy` for `db2 = dy`", "write `h[i] ** 2` for `h[i]`"}),
        (LAYERS, {"write `self.x.T @ dy` for `self.x.T @ dy / len(dy)`", "wrong sign: write `1 -"}),
    ],
    ids=["a loop of NumPy", "in two functions"],
)
def test_of_code_as_students_write_it(told, source, words):
    found = told(source).values()
    assert len(found) == 2
    assert all(any(w in text for text in found) for w in words)


@pytest.mark.parametrize("slip", SLIPS)
def test_a_single_mistake_needs_one_change(told, slip):
    source, _ = wrong(slip)
    assert len(told(source)) == 1
