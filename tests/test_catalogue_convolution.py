"""Convolution under any options, its transpose as such, sums in narrow dtypes, error texts."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import manual, reference


def draw(*shape, dtype=jnp.float64):
    return jnp.asarray(np.random.default_rng([*shape]).standard_normal(shape), dtype)


def check(name, x, kernel, **options):
    """Value and cotangents against autodiff of jax.lax's own."""
    f, g = (functools.partial(getattr(room, name), **options) for room in (manual, reference))
    dy = draw(*jax.eval_shape(f, x, kernel).shape)

    @jax.jit
    def run(x, kernel, dy):
        return [(y, *vjp(dy)) for y, vjp in (jax.vjp(h, x, kernel) for h in (f, g))]

    for a, b in zip(*run(x, kernel, dy), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * (1 + np.abs(b).max()))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    stride=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 3),
    input_dilation=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
)
def test_any_options_on_one_axis(stride, padding, dilation, input_dilation, groups):
    with jax.enable_x64(True):
        check(
            "conv",
            draw(2, 7, 4),
            draw(3, 4 // groups, 8),
            stride=stride,
            padding=(padding,),
            dilation=dilation,
            input_dilation=input_dilation,
            groups=groups,
        )


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    output_padding=st.integers(0, 2),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]),
)
def test_any_options_of_the_transpose_on_two_axes(
    stride, padding, output_padding, dilation, groups
):
    with jax.enable_x64(True):
        check(
            "conv_transpose",
            draw(2, 3, 4, 4),
            draw(3, 2, 3, 4),
            stride=stride,
            padding=padding,
            output_padding=min(output_padding, min(stride) - 1),
            dilation=dilation,
            groups=groups,
        )


@pytest.mark.parametrize("groups", [1, 2])
def test_the_transpose_is_the_transpose(groups):
    """⟨C u, x⟩ = ⟨u, Cᵀ x⟩ for every u and x: the same options, two stride remainders."""
    options = {"stride": 3, "padding": 1, "dilation": 2, "groups": groups}
    with jax.enable_x64(True):
        kernel = draw(3, 4 // groups, 6)
        for extra in (0, 2):
            x = draw(2, 4, 6)
            y = manual.conv_transpose(x, kernel, output_padding=extra, **options)
            u = draw(*y.shape)
            assert float((manual.conv(u, kernel, **options) * x).sum()) == pytest.approx(
                float((u * y).sum()), rel=1e-13
            )


def test_the_transpose_in_loops():
    """Copies of the kernel, laid down: exactly, in whole numbers."""
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 3, 2)).astype(np.float32)
    kernel = rng.integers(-4, 5, (3, 4, 2)).astype(np.float32)
    y = np.zeros((2, 2 * 2 + 3, 4), np.float32)
    for n, p, k, o, c in itertools.product(range(2), range(3), range(3), range(4), range(2)):
        y[n, 2 * p + k, o] += x[n, p, c] * kernel[k, o, c]
    np.testing.assert_array_equal(manual.conv_transpose(x, kernel, stride=2), y)
    np.testing.assert_array_equal(
        manual.conv_transpose(x, kernel, stride=2, padding=((2, 1),)), y[:, 2:-1]
    )


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_sums_are_accumulated_in_float32(name, dtype):
    """2¹² terms of one, over places and over channels: in bfloat16 a running sum stops at 256."""
    n = 2**12
    f = getattr(manual, name)
    _, vjp = jax.vjp(f, jnp.ones((1, n, 1), dtype), jnp.ones((1, 1, 1), dtype))
    assert float(vjp(jnp.ones((1, n, 1), dtype))[1][0, 0, 0]) == n
    assert float(f(jnp.ones((1, 1, n), dtype), jnp.ones((1, 1, n), dtype).reshape(
        (1, n, 1) if name == "conv" else (1, 1, n)))[0, 0, 0]) == n  # fmt: skip


def test_an_empty_batch_has_a_kernel_gradient_of_zero():
    for name in ("conv", "conv_transpose"):
        y, vjp = jax.vjp(getattr(manual, name), jnp.ones((0, 4, 2)), jnp.ones((3, 2, 2)))
        dx, dkernel = vjp(y)
        assert dx.shape == (0, 4, 2)
        assert not dkernel.any()


X, K = jnp.ones((1, 5, 4)), jnp.ones((3, 4, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: manual.conv(X[0], K),
            r"x must be \(batch, \*space, in\).*; it has shape \(5, 4\)",
        ),
        (
            lambda: manual.conv(X, K[0]),
            r"kernel must be \(\*window, in / groups, out\) with 1 wind",
        ),
        (
            lambda: manual.conv(X, K[:, :3]),
            r"x has 4 channels and kernel \(3, 2\) .in / groups, ou",
        ),
        (lambda: manual.conv(X, K, groups=0), "groups must be a positive number; got 0|x has 4"),
        (lambda: manual.conv(X, K, stride=0), "stride must be a positive number.*; got 0"),
        (
            lambda: manual.conv(X, K, stride=(1, 2)),
            r"stride must be .* each of the 1 axes; got \(1",
        ),
        (lambda: manual.conv(X, K, dilation=1.5), "dilation must be a positive number.*; got 1.5"),
        (lambda: manual.conv(X, K, input_dilation=0), "input_dilation must be a positive number"),
        (
            lambda: manual.conv(X, K, padding="same"),
            "padding must be a number from 0.*; got 'same'",
        ),
        (lambda: manual.conv(X, K, padding=-1), "padding must be a number from 0.*; got -1"),
        (lambda: manual.conv(X, K, padding=((1, 2, 3),)), "padding must be a number from 0"),
        (lambda: manual.conv(X[:, :2], K), r"the kernel covers \(3,\), more than the \(2,\) of x"),
        (lambda: manual.conv(X[:, :0], K, padding=2), r"the spatial axes of x are \(0,\)"),
        (
            lambda: manual.conv_transpose(X, K),
            r"conv_transpose: x has 4 channels and kernel \(4, 2",
        ),
        (lambda: manual.conv_transpose(X, jnp.ones((3, 2, 4)), groups=3), "multiple of groups=3"),
        (lambda: manual.conv_transpose(X, jnp.ones((3, 2, 4)), padding=4), r"the size \(-1,\)"),
        (
            lambda: manual.conv_transpose(X, jnp.ones((3, 2, 4)), output_padding=1),
            "less than stride",
        ),
        (
            lambda: manual.conv_transpose(X, jnp.ones((3, 2, 4)), output_padding=-1),
            "output_padding must be a number from 0",
        ),
        (
            lambda: manual.conv_transpose(X, jnp.ones((3, 4))),
            r"kernel must be \(\*window, out / gr",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)
