"""What the inputs of a check decide on one side only is said, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from handgrad.compare import check_backward, check_gradient, examine

MIXED, POSITIVE = np.array([1.0, -2.0, 3.0]), np.array([1.0, 2.0, 3.0])


def plain(x):
    return jnp.where(x > 0, x, 0.5 * x)


def masked(x, dy):
    return (dy * (0.5 + 0.5 * (x > 0).astype(dy.dtype)),)


def chosen(x, dy):
    return (jnp.where(x >= 0, dy, 0.5 * dy),)


def in_numpy(x, dy):
    dx = np.empty_like(x)
    for i in range(len(x)):
        if x[i] > 0:
            dx[i] = dy[i]
        else:
            dx[i] = 0.5 * dy[i]
    return (dx,)


def without_else(x, dy):
    dx = dy.copy()
    for i, value in enumerate(np.asarray(x)):
        if value <= 0:
            dx[i] *= 0.5
    return (dx,)


def in_a_loop(x, dy):
    def one(_, each):
        return None, lax.cond(each[0] > 0, lambda d: d, lambda d: 0.5 * d, each[1])

    return (lax.scan(one, None, (x, dy))[1],)


def one_sided(report):
    return [remark for remark in report.remarks if "is always" in remark]


ALL = {
    masked: ("x > 0", "true"), chosen: ("x >= 0", "true"), in_a_loop: ("each[0] > 0", "true"),
    in_numpy: ("x[i] > 0", "true"), without_else: ("value <= 0", "false"),
}  # fmt: skip


@pytest.mark.parametrize("backward", ALL)
def test_the_side_that_no_input_takes_is_named(backward):
    text, side = ALL[backward]
    (remark,) = one_sided(check_backward(backward, plain, POSITIVE))
    assert f"`{text}` (test_compare_onesided.py:" in remark
    assert f"is always {side}: what it decides otherwise was not verified" in remark


@pytest.mark.parametrize("backward", ALL)
def test_with_inputs_on_both_sides_nothing_is_said(backward):
    assert not one_sided(check_backward(backward, plain, MIXED))


def test_the_line_is_that_of_the_comparison():
    (remark,) = one_sided(check_backward(masked, plain, POSITIVE))
    assert f".py:{masked.__code__.co_firstlineno + 1})" in remark


def test_a_mistake_on_the_other_side_passes_with_the_remark_and_fails_on_both():
    def wrong(x, dy):
        return (jnp.where(x > 0, dy, -dy),)

    assert one_sided(check_backward(wrong, plain, POSITIVE))
    assert not examine(wrong, plain, MIXED, kind="backward").ok


def test_of_a_wrong_derivation_it_is_not_said():
    assert not one_sided(examine(lambda x, dy: -dy * (x > 0), plain, POSITIVE, kind="backward"))


def test_what_sizes_labels_options_and_libraries_decide_is_not_meant():
    def reference(x, scale):
        return jax.nn.log_softmax(x)[0] * scale

    def backward(x, scale, dy, reduction="sum"):
        if x.ndim != 1:
            raise ValueError(x.shape)
        if reduction == "mean":
            dy = dy / len(x)
        first = jnp.arange(len(x)) >= 0  # of sizes alone
        p = jax.nn.softmax(x)
        dx = jnp.where(first, scale * dy * (jnp.zeros(len(x)).at[0].set(1.0) - p), 0)
        return dx, dy * jax.nn.log_softmax(x)[0]

    assert not one_sided(check_backward(backward, reference, MIXED, 2.0))


def test_of_many_the_first_three_are_named():
    def backward(x, dy):
        for bound in (-1, -2):
            dy = jnp.where(x > bound, dy, 0)
        for least in (-3,):
            dy = jnp.where(x > least, dy, 0)
        dy = jnp.where(x < 100, dy, 0)
        return (jnp.where(x < 200, dy, 0),)

    (remark,) = one_sided(check_backward(backward, lambda x: 1.0 * x, POSITIVE))
    assert remark.count("is always true") == 3
    assert "and 1 more: what it decides" in remark


def test_what_the_reference_decides_counts_where_the_derivation_decides_nothing():
    def huber(x):
        return jnp.where(jnp.abs(x) < 20, x * x / 2, 20 * jnp.abs(x) - 200).sum()

    (remark,) = one_sided(check_gradient(lambda x: x, huber, MIXED))
    assert "`jnp.abs(x) < 20` (test_compare_onesided.py:" in remark
    assert not one_sided(check_gradient(lambda x: jnp.clip(x, -20, 20), huber, 10 * MIXED))
