"""Mends where they were meant: not in the reference, not by chance of the sizes, in classes."""

import dataclasses
import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import examine, mending


def normal(*shape, seed=0):
    return np.random.default_rng(seed + len(shape)).normal(size=shape)


def line_of(function):
    lines, first = inspect.getsourcelines(function)
    (place,) = (k for k, line in enumerate(lines) if "# !" in line)
    return first + place


def mends(hand, reference, *args, kind="backward", **options):
    report = examine(hand, reference, *args, kind=kind, **options)
    assert not report.ok
    return [d.text for d in report.diagnoses if ", and it is right" in d.text]


# --- what the reference runs too -----------------------------------------------------------------


def turned(x, angle):
    other = jnp.flip(x, -1) * jnp.array([[-1.0, 1.0]])
    return x * jnp.cos(angle) + other * jnp.sin(angle)


def turned_backward(x, angle, dy):
    y = turned(x, angle)
    return turned(dy, angle), (dy * jnp.flip(y, -1) * jnp.array([[-1.0, 1.0]])).sum()  # !


def test_the_code_of_the_reference_is_not_edited():
    """Its own sine negated would make this backward right, and the reference another function."""
    found = mends(turned_backward, turned, normal(4, 2), np.array(0.3))
    assert any(f":{line_of(turned_backward)}:" in text and "-angle" in text for text in found)
    of_turned = range(*(lambda s: (s[1], s[1] + len(s[0])))(inspect.getsourcelines(turned)))
    assert not any(f":{line}:" in text for text in found for line in of_turned)


def layer(x, w):
    z = x @ w
    h = jnp.tanh(z)
    return h.sum(-1), (x, z)  # !


def layer_alone(x, w):
    return layer(x, w)[0]


def layer_backward(x, w, dy):
    _, (x, h) = layer(x, w)
    dz = dy[:, None] * (1 - h**2)
    return dz @ w.T, x.T @ dz


def test_what_a_shared_forward_keeps_may_be_the_mistake():
    found = mends(layer_backward, layer_alone, normal(4, 3), normal(3, 5))
    assert any(f":{line_of(layer)}:" in text and "(x, h)" in text for text in found)


# --- by chance of the sizes ----------------------------------------------------------------------


def correlate(x, w):
    rows, columns = x.shape[0] - 1, x.shape[1] - 1
    return sum(w[i, j] * x[i : i + rows, j : j + columns] for i in (0, 1) for j in (0, 1))


def correlate_backward(x, w, dy):
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for i in range(dy.shape[0]):
        for j in range(dy.shape[1]):
            dw += x[i : i + 2, j : j + 2] * dy[j, i]  # !
            dx[i : i + 2, j : j + 2] += w * dy[i, j]
    return dx, dw


def test_of_two_mends_of_a_line_that_which_holds_for_images_that_are_not_square():
    found = mends(correlate_backward, correlate, normal(4, 4), normal(2, 2))
    assert found
    assert all("write `dy[i, j]` for `dy[j, i]`" in text for text in found)


def sampled(mean, log_var, bits, noise):
    z = mean + jnp.exp(0.5 * log_var) * noise
    return (z * bits).sum()


def sampled_gradient(mean, log_var, bits, noise):
    return bits * 1.0, bits * noise * np.exp(0.5 * log_var)  # !


def test_a_half_is_not_one_over_a_size_that_happens_to_be_two():
    """At other sizes the bits may not be all zero: with those nothing is told."""
    bits = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    args = normal(3, 2), normal(3, 2, seed=1), bits, normal(3, 2, seed=2)
    found = mends(sampled_gradient, sampled, *args, kind="gradient", argnums=(0, 1))
    assert found
    assert not any("shape" in text and "at these sizes" not in text for text in found)
    assert any("0.5" in text or "/ 2" in text for text in found)


def test_data_at_other_sizes_is_as_ordinary_as_the_given():
    bits, rates = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.array([0.5, 2.0, 3.0])
    for seed in range(12):
        drawn = mending._drawn([bits, rates], {2: 5, 3: 7}, np.random.default_rng(seed))
        assert [x.shape for x in drawn] == [(7, 5), (7,)]
        assert set(np.unique(drawn[0])) == {0, 1}
        assert (drawn[1] > 0.4).all()
        assert (drawn[1] < 3.1).all()


# --- what a loop fills, and where ----------------------------------------------------------------


def policy(logits, rewards):
    returns = jnp.cumsum(rewards[::-1])[::-1]
    return (jnp.log(1 / (1 + jnp.exp(-logits))) * returns).sum()


def policy_gradient(logits, rewards):
    returns, run = np.zeros_like(rewards), 0.0
    for t in reversed(range(len(rewards))):
        run = rewards[t] + run
        returns[t] = run
    return rewards * (1 - 1 / (1 + np.exp(-logits)))  # !


def test_an_array_that_a_loop_fills_is_not_handed_on():
    found = mends(policy_gradient, policy, normal(5), normal(5, seed=3), kind="gradient", argnums=0)
    assert any(f":{line_of(policy_gradient)}:" in text for text in found)
    assert not any("returns = rewards" in text for text in found)


def penalised(t):
    return (t[1:] ** 2).sum() + jnp.sin(t).sum()


def penalised_gradient(t):
    g = np.cos(t)
    g[:-1] += 2 * t[1:]  # !
    return g


def gathered(x):
    return x[jnp.array([0, 1, 1, 2])] ** 2


def gathered_backward(x, dy):
    i, dx = np.array([0, 1, 1, 2]), np.zeros_like(x)
    dx[i] = 2 * x[i] * dy  # !
    return dx


def convolved(x, k):
    return jnp.fft.ifft(jnp.fft.fft(x) * jnp.fft.fft(k)).real


def convolved_backward(x, k, dy):
    fx, fk, fy = np.fft.fft(x), np.fft.fft(k), np.fft.fft(dy)
    dx = np.fft.ifft(fy * np.conj(fk)).real
    return dx, np.fft.fft(fy * np.conj(fx)).real  # !


class Softplus:
    @classmethod
    def backward(cls, z, dy):
        return dy * (1 + np.exp(-z))  # !


def softplus_backward(z, dy):
    return Softplus.backward(z, dy)


def softplus(z):
    return jnp.log1p(jnp.exp(z))


@dataclasses.dataclass
class Gate:
    g: np.ndarray
    b: np.ndarray

    def forward(self, x):
        self.x, self.t = x, np.tanh(x)

    def backward(self, dy):
        self.dg, self.db = (dy * self.t).sum(0), (dy * self.x).sum(0)
        return dy * (self.b * (1 - self.t**2) + self.b)  # !


def gate_backward(x, g, b, dy):
    gate = Gate(g, b)
    gate.forward(x)
    return gate.backward(dy), gate.dg, gate.db


def gate(x, g, b):
    return g[None] * jnp.tanh(x) + b[None] * x


@pytest.mark.parametrize(
    ("hand", "reference", "args", "kind", "wrong", "mended"),
    [
        (penalised_gradient, penalised, (normal(5),), "gradient", penalised_gradient, "`g[1:]`"),
        (gathered_backward, gathered, (normal(4),), "backward", gathered_backward, "np.add.at(dx"),
        (
            convolved_backward, convolved, (normal(7), normal(7, seed=1)), "backward",
            convolved_backward, "np.fft.ifft(fy * np.conj(fx))",
        ),
        (
            softplus_backward, softplus, (normal(4, 3),), "backward",
            Softplus.backward, "dy / (1 + np.exp(-z))",
        ),
        (
            gate_backward, gate, (normal(5, 3), normal(3), normal(3, seed=1)), "backward",
            Gate.backward, "self.g * (1 - self.t ** 2)",
        ),
    ],
)  # fmt: skip
def test_the_line_and_its_mend(hand, reference, args, kind, wrong, mended):
    found = mends(hand, reference, *args, kind=kind)
    assert any(f":{line_of(wrong)}:" in text and mended in text for text in found), found


class Tanh:
    def forward(self, x):
        self.y = np.tanh(x)
        return self.y

    def backward(self, dy):
        return dy * (1 - self.y)  # !


def by_an_object(x, dy):
    layer = Tanh()
    layer.forward(x)
    return (layer.backward(dy),)


def test_the_backward_comes_before_the_forward_that_would_do_as_well():
    first, *_ = mends(by_an_object, jnp.tanh, normal(4, 3))
    assert f":{line_of(Tanh.backward)}: " in first
    assert "1 - self.y ** 2" in first
