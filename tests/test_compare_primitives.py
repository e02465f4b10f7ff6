"""The rules of the interpreter against loops over shapes drawn at random; and the complex step."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import lax

from handgrad.compare.interpret import NotAnalytic, Program
from handgrad.compare.witness import STEP


@pytest.fixture(autouse=True)
def double():
    with (
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


# --- the complex step ---------------------------------------------------------------------------


@pytest.mark.sweep(4)
@pytest.mark.parametrize(
    "function",
    [
        jax.nn.softmax, jax.nn.gelu, jax.nn.selu, jax.nn.logsumexp, jax.nn.log_softmax, jax.nn.mish,
        jax.nn.hard_swish, jax.nn.standardize, jnp.linalg.norm, jnp.std, jnp.median, jnp.ptp,
        jnp.diff, jnp.cumsum, jnp.trace, jnp.tril, jnp.diag, jnp.kron, jnp.tile, jnp.repeat,
        jnp.flip, jnp.sinc, jnp.hypot, jnp.logaddexp, jnp.max, jnp.sort, jnp.outer,
        jnp.convolve, jnp.nan_to_num, jnp.sign, jnp.clip,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_common_functions_admit_the_complex_step(function):
    x = np.array([[1.3, -0.4, 0.8], [0.2, 2.1, -1.1], [0.7, -0.3, 0.5]])
    more = {
        "kron": [x[:1]], "tile": [(2, 1)], "repeat": [2], "hypot": [x.T + 3], "logaddexp": [x.T],
        "outer": [x[0]], "clip": [-1.0, 1.0], "convolve": [x[0]],
    }  # fmt: skip
    first = x.ravel() if function.__name__ == "convolve" else x

    def one(x):
        return function(x, *more.get(function.__name__, []))

    tangent = np.cos(np.arange(first.size)).reshape(first.shape)
    (y,) = Program(one, first)(first + 1j * STEP * tangent)
    want = jax.jvp(one, (jnp.asarray(first),), (jnp.asarray(tangent),))[1]
    np.testing.assert_allclose(np.imag(y) / STEP, want, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [np.float32, jnp.bfloat16, np.float16], ids=lambda k: k.__name__)
def test_complex_step_passes_through_a_narrower_float(kind):
    """A step of 1e-100 does not survive in single precision: it is carried along, or refused."""
    x = np.array([0.5, -1.25])
    program = Program(lambda x: jnp.sin(x.astype(kind)).astype(x.dtype), x)
    try:
        (y,) = program(x + 1j * STEP)
    except NotAnalytic:
        return
    # the value is rounded to the narrow float, and so is the slope
    np.testing.assert_allclose(np.imag(y) / STEP, np.cos(x), rtol=2 * float(jnp.finfo(kind).eps))


def test_complex_step_of_masked_scores():
    """-inf where a score is masked, multiplied and exponentiated: 0, not nan."""
    mask = np.array([True, False, True, True])

    def attend(x):
        return jax.nn.softmax(jnp.where(mask, x, -jnp.inf) * 0.5)

    x, tangent = np.array([0.3, 2.0, -1.0, 0.7]), np.array([1.0, 1.0, -0.5, 0.2])
    (y,) = Program(attend, x)(x + 1j * STEP * tangent)
    want = jax.jvp(attend, (jnp.asarray(x),), (jnp.asarray(tangent),))[1]
    np.testing.assert_allclose(np.imag(y) / STEP, want, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e150])
@pytest.mark.parametrize(
    "function",
    [jax.nn.sigmoid, jnp.tanh, jax.nn.softplus, jax.nn.silu, jax.nn.softmax, jax.nn.logsumexp],
    ids=lambda f: f.__name__,
)
def test_complex_step_of_saturated_functions(function, scale):
    x = np.array([-1.0, -0.5, 0.5, 1.0]) * scale
    (y,) = Program(function, x)(x + 1j * STEP)
    want = jax.jvp(function, (jnp.asarray(x),), (jnp.ones(4),))[1]
    np.testing.assert_allclose(np.imag(y) / STEP, want, rtol=1e-13, atol=1e-16)


# --- against loops, on shapes drawn at random -----------------------------------------------------

quick = hypothesis.settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)  # fmt: skip


def padded_by_loops(x, value, config):
    """Interior padding between the elements, then edges added or cut off."""
    for axis, (low, high, interior) in enumerate(config):
        rows = []
        for k, row in enumerate(np.moveaxis(x, axis, 0)):
            rows += [np.full_like(row, value)] * (interior if k else 0) + [row]
        blank = np.full_like(x.take([0], axis).squeeze(axis), value) if x.shape[axis] else None
        if blank is None:
            other = [n for a, n in enumerate(x.shape) if a != axis]
            blank = np.full(other, value)
        rows = [blank] * max(low, 0) + rows[max(-low, 0) :]
        rows = rows + [blank] * high if high >= 0 else rows[: len(rows) + high]
        kept = np.stack(rows) if rows else np.zeros((0, *blank.shape))
        x = np.moveaxis(kept, 0, axis)
    return x


@st.composite
def pads(draw):
    shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    config = []
    for n in shape:
        interior = draw(st.integers(0, 2))
        size = n + max(n - 1, 0) * interior
        low = draw(st.integers(-size, 3))
        config.append((low, draw(st.integers(-min(size + low, size), 3)), interior))
    return shape, config


@quick
@hypothesis.given(pads())
def test_pad(drawn):
    shape, config = drawn
    x = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    (y,) = Program(lambda x: lax.pad(x, -1.0, config), x)(x)
    np.testing.assert_array_equal(y, padded_by_loops(x, -1.0, config))


@st.composite
def axes(draw, most=2):
    """For each axis: size, window, stride, (low, high), dilation of the input, of the window."""
    chosen = []
    for _ in range(draw(st.integers(1, most))):
        size, base, inner = (draw(st.integers(1, k)) for k in (5, 3, 3))
        low, high = draw(st.integers(-1, 2)), draw(st.integers(0, 2))
        full = (size - 1) * base + 1 + low + high
        window = draw(st.integers(1, 3))
        hypothesis.assume(full >= (window - 1) * inner + 1)
        chosen.append((size, window, draw(st.integers(1, 3)), (low, high), base, inner))
    return [list(column) for column in zip(*chosen, strict=True)]


def windows_by_loops(x, value, window, stride, padding, base, inner):
    """(position, the elements of the window there) of an array without other axes."""
    x = padded_by_loops(x, value, [(*p, b - 1) for p, b in zip(padding, base, strict=True)])
    count = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(x.shape, window, inner, stride, strict=True)
    ]
    for place in np.ndindex(*count):
        corner = [p * s for p, s in zip(place, stride, strict=True)]
        taken = [
            range(c, c + (k - 1) * d + 1, d) for c, k, d in zip(corner, window, inner, strict=True)
        ]
        yield place, x[np.ix_(*taken)]


@quick
@hypothesis.given(axes(), st.sampled_from(["sum", "max", "min"]))
def test_reduce_window(drawn, name):
    size, window, stride, padding, base, inner = drawn
    start, op = dict(sum=(0.0, lax.add), max=(-np.inf, lax.max), min=(np.inf, lax.min))[name]
    x = np.random.default_rng(0).standard_normal(size)
    (y,) = Program(
        lambda x: lax.reduce_window(x, start, op, window, stride, padding, base, inner), x
    )(x)
    want = np.zeros(y.shape)
    for place, part in windows_by_loops(x, start, window, stride, padding, base, inner):
        want[place] = getattr(part, name)()
    np.testing.assert_allclose(y, want, rtol=1e-14, atol=1e-14)


@quick
@hypothesis.given(axes(), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.booleans())
def test_convolution(drawn, groups, inputs, outputs, of_batch):
    size, window, stride, padding, base, inner = drawn
    rng = np.random.default_rng(0)
    batch = 2 * groups if of_batch else 2
    channels = inputs if of_batch else inputs * groups
    x = rng.standard_normal((batch, channels, *size))
    w = rng.standard_normal((groups * outputs, inputs, *window))
    kwargs = {"batch_group_count" if of_batch else "feature_group_count": groups}
    (y,) = Program(
        lambda x, w: lax.conv_general_dilated(x, w, stride, padding, base, inner, **kwargs), x, w
    )(x, w)
    want = np.zeros(y.shape)
    for n, o in np.ndindex(*y.shape[:2]):
        group = o // outputs
        for c in range(inputs):
            row = group * y.shape[0] + n if of_batch else n
            image = x[row, c if of_batch else group * inputs + c]
            for place, part in windows_by_loops(image, 0.0, window, stride, padding, base, inner):
                want[(n, o, *place)] += (part * w[o, c]).sum()
    np.testing.assert_allclose(y, want, rtol=1e-13, atol=1e-13)


@st.composite
def indexings(draw):
    """Dimension numbers of a gather, drawn at random, with indices beyond the edges too."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    rank = len(shape)
    batching = sorted(draw(st.sets(st.integers(0, rank - 1), max_size=1)))
    free = [a for a in range(rank) if a not in batching]
    mapped = draw(st.permutations(free))[: draw(st.integers(0, len(free)))]
    collapsed = sorted(draw(st.sets(st.sampled_from(free)))) if free else []
    sizes = [
        1 if a in collapsed or a in batching else draw(st.integers(1, shape[a]))
        for a in range(rank)
    ]
    batch = draw(st.lists(st.integers(1, 3), min_size=len(batching), max_size=2))
    places = list(range(len(batching)))
    for a, place in zip(batching, places, strict=True):
        batch[place] = shape[a]
    kept = rank - len(collapsed) - len(batching)
    offsets = sorted(draw(st.permutations(range(len(batch) + kept)))[:kept])
    numbers = dict(
        offset_dims=tuple(offsets), collapsed_slice_dims=tuple(collapsed),
        start_index_map=tuple(mapped), operand_batching_dims=tuple(batching),
        start_indices_batching_dims=tuple(places),
    )  # fmt: skip
    indices = draw(
        st.lists(
            st.integers(-2, 5),
            min_size=int(np.prod(batch)) * len(mapped),
            max_size=int(np.prod(batch)) * len(mapped),
        )
    )
    mode = draw(st.sampled_from(["clip", "fill"]))
    return shape, sizes, numbers, np.array(indices, np.int32).reshape(*batch, len(mapped)), mode


@quick
@hypothesis.given(indexings())
def test_gather_and_its_scatter(drawn):
    """Gather element by element from its definition; scatter-add is its transpose."""
    shape, sizes, numbers, indices, mode = drawn
    x = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    numbered = lax.GatherDimensionNumbers(**numbers)

    def gather(x):
        return lax.gather(x, indices, numbered, tuple(sizes), mode=mode, fill_value=-7.0)

    (y,) = Program(gather, x)(x)
    dropped = {*numbers["collapsed_slice_dims"], *numbers["operand_batching_dims"]}
    kept = [a for a in range(len(shape)) if a not in dropped]
    offsets = numbers["offset_dims"]
    batch_axes = [a for a in range(y.ndim) if a not in offsets]
    want, counts = np.zeros(y.shape), np.zeros(x.shape)
    for place in np.ndindex(*y.shape):
        row = tuple(place[a] for a in batch_axes)
        start = np.zeros(len(shape), int)
        for k, a in enumerate(numbers["start_index_map"]):
            start[a] = indices[(*row, k)]
        for a, b in zip(
            numbers["operand_batching_dims"], numbers["start_indices_batching_dims"], strict=True
        ):
            start[a] = row[b]
        clipped = np.clip(start, 0, np.subtract(shape, sizes))
        inside = mode == "clip" or (start == clipped).all()
        for a, o in zip(kept, offsets, strict=True):
            clipped[a] += place[o]
        want[place] = x[tuple(clipped)] if inside else -7.0
        counts[tuple(clipped)] += inside
    np.testing.assert_array_equal(y, want)
    (pulled,) = Program(lambda x: jax.vjp(gather, x)[1](jnp.ones(y.shape))[0], x)(x)
    np.testing.assert_array_equal(pulled, counts)
