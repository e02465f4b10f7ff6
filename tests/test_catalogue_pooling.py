"""Pooling: against loops over windows, ties, options drawn by hypothesis, errors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handgrad import manual

MAX, MEAN = manual.max_pool, manual.average_pool


def by_loops(x, dy, windows, strides, pads, maximum, count_include_pad=True):
    """Value and cotangent of one image (*space, channels), place by place."""
    space = x.shape[:-1]
    outs = [
        (n + low + high - w) // s + 1
        for n, w, s, (low, high) in zip(space, windows, strides, pads, strict=True)
    ]
    y, dx = np.zeros((*outs, x.shape[-1])), np.zeros(x.shape)
    for p in np.ndindex(*outs):
        ranges = [
            range(max(k * s - low, 0), min(k * s - low + w, n))
            for k, s, w, (low, _), n in zip(p, strides, windows, pads, space, strict=True)
        ]
        inside = list(itertools.product(*ranges))
        count = np.prod(windows) if count_include_pad else len(inside)
        for c in range(x.shape[-1]):
            entries = [x[(*q, c)] for q in inside]
            if maximum:
                first = int(np.argmax(entries))
                y[(*p, c)] = entries[first]
                dx[(*inside[first], c)] += dy[(*p, c)] if dy is not None else 0
            else:
                y[(*p, c)] = sum(entries) / count
                for q in inside:
                    dx[(*q, c)] += dy[(*p, c)] / count if dy is not None else 0
    return y, dx


@st.composite
def poolings(draw):
    space = draw(st.integers(1, 3))
    windows = draw(st.tuples(*[st.integers(1, 3)] * space))
    strides = draw(st.tuples(*[st.integers(1, 3)] * space))
    pads = tuple((draw(st.integers(0, w - 1)), draw(st.integers(0, w - 1))) for w in windows)
    sizes = tuple(
        draw(st.integers(max(1, w - sum(p)), 4)) for w, p in zip(windows, pads, strict=True)
    )
    return sizes, windows, strides, pads, draw(st.booleans()), draw(st.booleans())


def pulled(f, x, dy):
    """The value and the cotangent of x, compiled as one."""

    @jax.jit
    def run(x, dy):
        y, vjp = jax.vjp(f, x)
        return y, vjp(dy)[0]

    return run(x, dy)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(poolings())
def test_any_window_stride_and_padding(options):
    """Integers as entries, many of them equal, so that ties are met; float64."""
    sizes, windows, strides, pads, maximum, include = options
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (2, *sizes, 2)).astype(float)
    count = {} if maximum else {"count_include_pad": include}
    f = functools.partial(
        MAX if maximum else MEAN, window=windows, stride=strides, padding=pads, **count
    )
    with jax.enable_x64(True):
        dy = rng.standard_normal(jax.eval_shape(f, x).shape)
        y, dx = pulled(f, jnp.asarray(x), jnp.asarray(dy))
    for n in range(2):
        y_n, dx_n = by_loops(x[n], dy[n], windows, strides, pads, maximum, include)
        np.testing.assert_allclose(y[n], y_n, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(dx[n], dx_n, rtol=1e-13, atol=1e-14)


def test_known_figures():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert MAX(x, window=2)[0, ..., 0].tolist() == [[5, 7], [13, 15]]
    assert MEAN(x, window=2)[0, ..., 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert MEAN(x, window=2, padding=1)[0, 0, :, 0].tolist() == [0, 0.75, 0.75]
    inside = MEAN(x, window=2, padding=1, count_include_pad=False)
    assert inside[0, 0, :, 0].tolist() == [0, 1.5, 3]
    assert manual.global_average_pool(x).tolist() == [[7.5]]
    assert manual.global_max_pool(x).tolist() == [[15]]


def test_of_equal_entries_the_first_takes_the_whole_cotangent():
    x = jnp.ones((1, 2, 3, 1))
    for f in (functools.partial(MAX, window=(2, 3)), manual.global_max_pool):
        shape = (1, 1, 1, 1) if f is not manual.global_max_pool else (1, 1)
        _, dx = pulled(f, x, jnp.full(shape, 5.0))
        assert dx[0, ..., 0].tolist() == [[5, 0, 0], [0, 0, 0]]


def test_overlapping_windows_add_up():
    x = jnp.array([0.0, 9.0, 0.0]).reshape(1, 3, 1)
    dy = jnp.array([1.0, 2.0]).reshape(1, 2, 1)
    _, dx = pulled(functools.partial(MAX, window=2, stride=1), x, dy)
    assert dx.ravel().tolist() == [0, 3, 0]


def test_padding_is_never_the_largest():
    x = -jnp.ones((1, 2, 2, 1))
    f = functools.partial(MAX, window=2, stride=1, padding=1)
    y, dx = pulled(f, x, jnp.ones((1, 3, 3, 1)))
    assert (y == -1).all()
    assert float(dx.sum()) == y.size


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 1, 1), (3, 2, 2), (130, 65, 129)])
def test_where_all_is_minus_infinity_the_first_inside_takes_the_cotangent(window, stride, padding):
    """The padding beside it is as small, and has nothing to take it to."""
    x = np.full((1, 5, 4, 1), -np.inf, np.float32)
    options = [(window,) * 2, (stride,) * 2, ((padding,) * 2,) * 2]
    f = functools.partial(MAX, window=window, stride=stride, padding=padding)
    dy = np.random.default_rng(0).standard_normal(jax.eval_shape(f, x).shape)
    y, dx = pulled(f, jnp.asarray(x), jnp.asarray(dy, jnp.float32))
    y_loops, dx_loops = by_loops(x[0], dy[0], *options, True)
    np.testing.assert_array_equal(y[0], y_loops)
    np.testing.assert_allclose(dx[0], dx_loops, rtol=1e-5, atol=1e-6)


def test_options_that_are_numpy_integers():
    for f in (MAX, MEAN):
        y = f(IMAGE, window=np.int64(2), stride=np.int32(1), padding=(np.int64(1), (0, np.int8(1))))
        np.testing.assert_array_equal(y, f(IMAGE, window=2, stride=1, padding=(1, (0, 1))))


def test_extremes():
    """±10⁴ in float16, NaN, an empty batch; a large mean is accumulated in float32."""
    x = jnp.array([1e4, -1e4, 6e4, 0.0], jnp.float16).reshape(1, 4, 1)
    assert MAX(x, window=2).ravel().tolist() == [1e4, 6e4]
    assert (
        float(manual.global_average_pool(jnp.full((1, 64, 64, 1), 6e4, jnp.float16))[0, 0]) == 6e4
    )
    assert float(MEAN(jnp.full((1, 64, 1), 6e4, jnp.float16), window=64)[0, 0, 0]) == 6e4
    assert jnp.isnan(MAX(x.at[0, 1].set(jnp.nan), window=2)).ravel().tolist() == [True, False]
    assert MAX(jnp.ones((0, 4, 4, 2)), window=2).shape == (0, 2, 2, 2)
    empty = jnp.ones((0, 4, 4, 2))
    for f in (functools.partial(MAX, window=2), functools.partial(MEAN, window=2)):
        y, vjp = jax.vjp(f, empty)
        assert vjp(y)[0].shape == empty.shape


def test_max_pool_keeps_a_byte_an_output_and_axis():
    _, vjp = jax.vjp(functools.partial(MAX, window=2), jnp.ones((1, 8, 8, 4)))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(vjp)) == 8 * 4 * 4 + 4 * 4 * 4


IMAGE = jnp.ones((2, 4, 5, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: MAX(jnp.ones((2, 3)), window=2),
            r"max_pool: x has shape \(2, 3\); it must be \(batch, \*space, channels\) with one to",
        ),
        (lambda: MAX(IMAGE, window=0), "max_pool: window is 0; it must be 1 or more"),
        (lambda: MEAN(IMAGE, window=(2, 2, 2)), r"window is \(2, 2, 2\); .* each of the 2 spatial"),
        (lambda: MAX(IMAGE, window=2, stride=(1, 0)), "max_pool: stride is 0; it must be 1 or"),
        (
            lambda: MAX(IMAGE, window=2, padding=2),
            "max_pool: padding is 2; it must be less than the windo",
        ),
        (lambda: MEAN(IMAGE, window=2, padding=-1), "average_pool: padding is -1; it must be 0 or"),
        (lambda: MEAN(IMAGE, window=2, padding=((0, 0),)), r"padding is \(\(0, 0\),\); it must be"),
        (
            lambda: MAX(IMAGE, window=5),
            r"x has shape \(2, 4, 5, 3\); with padding \(0, 0\) axis 1 must have room for the",
        ),
        (
            lambda: manual.global_average_pool(jnp.ones((2, 3))),
            r"global_average_pool: x has shape \(2, 3\); it must be \(batch, \*space, channels\)",
        ),
        (
            lambda: manual.global_max_pool(jnp.ones((2, 0, 3))),
            r"global_max_pool: x has shape \(2, 0, 3\); .* at least one place",
        ),
    ],
)
def test_bad_input_is_named_when_it_is_traced(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)


@pytest.mark.parametrize(
    ("option", "value", "came"),
    [
        ("window", 2.0, "2.0"),
        ("window", None, "None"),
        ("window", "22", "'22'"),
        ("window", (2.0, 2), "2.0"),
        ("stride", (2, 0.5), "0.5"),
        ("padding", None, "None"),
        ("padding", ((0, 0.5), (0, 0)), "0.5"),
    ],
)
def test_an_option_that_is_no_whole_number(option, value, came):
    for f in (MAX, MEAN):
        with pytest.raises(TypeError, match=f"_pool: {option} is {came}; it must be a whole numb"):
            jax.eval_shape(functools.partial(f, **{"window": 2, option: value}), IMAGE)
