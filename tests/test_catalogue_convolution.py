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


def check(name, *args, **options):
    """Value and cotangents against autodiff of jax.lax's own."""
    f, g = (functools.partial(getattr(room, name), **options) for room in (manual, reference))
    dy = draw(*jax.eval_shape(f, *args).shape)

    @jax.jit
    def run(args, dy):
        return [(y, *vjp(dy)) for y, vjp in (jax.vjp(h, *args) for h in (f, g))]

    for a, b in zip(*run(args, dy), strict=True):
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


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    size=st.sampled_from([(5, 7), (7, 6), (8, 5)]),
    window=st.tuples(st.integers(1, 4), st.integers(1, 2)),
    stride=st.tuples(st.integers(2, 5), st.integers(1, 3)),
    dilation=st.tuples(st.just(1), st.integers(1, 3)),
    groups=st.sampled_from([1, 2]),
)
def test_any_named_padding_with_a_bias(name, padding, size, window, stride, dilation, groups):
    """As jax.lax names it: windows shorter than the stride, sizes that it does not divide."""
    channels = (4 // groups, 6) if name == "conv" else (6 // groups, 4)
    with jax.enable_x64(True):
        check(
            name,
            draw(1, *size, 4),
            draw(*window, *channels),
            draw(6),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )


def test_named_padding_known_figures():
    """The odd zero stands after, in the middle of nothing: as in TensorFlow."""
    x, kernel = jnp.arange(1.0, 5).reshape(1, 4, 1), jnp.array([1.0, 10.0]).reshape(2, 1, 1)
    for stride, figures in ((1, [21, 32, 43, 4]), (2, [21, 43]), (3, [21, 4])):
        y = manual.conv(x, kernel, stride=stride, padding="SAME")
        assert y.ravel().tolist() == figures
    assert manual.conv(x, kernel, padding="VALID").ravel().tolist() == [21, 32, 43]
    for padding, stride, figures in (
        ("SAME", 1, [1, 12, 23, 34]),
        ("VALID", 1, [1, 12, 23, 34, 40]),
        ("SAME", 3, [1, 10, 0, 2, 20, 0, 3, 30, 0, 4, 40, 0]),
        ("VALID", 3, [1, 10, 0, 2, 20, 0, 3, 30, 0, 4, 40, 0]),
    ):
        y = manual.conv_transpose(x, kernel, stride=stride, padding=padding)
        assert y.ravel().tolist() == figures


@pytest.mark.parametrize("padding", [1, "SAME", "VALID"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_transpose_is_the_transpose(groups, padding):
    """⟨C u, x⟩ = ⟨u, Cᵀ x⟩ for every u and x: the same options, two stride remainders."""
    options = {"stride": 3, "padding": padding, "dilation": 2, "groups": groups}
    with jax.enable_x64(True):
        kernel = draw(3, 4 // groups, 6)
        for extra in (0, 2) if padding == 1 else (0,):
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


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_bias_is_added_and_its_gradient_summed_in_float32(name, dtype):
    """1 + 2⁻¹¹ − 1 is 2⁻¹¹ where the sum is rounded once; and 2¹² terms of one are 2¹²."""
    n, f = 2**12, getattr(manual, name)
    x = jnp.asarray([1.0, 2**-11], dtype).reshape(1, 1, 2)
    kernel, b = jnp.ones((1, 2, 1) if name == "conv" else (1, 1, 2), dtype), -jnp.ones(1, dtype)
    assert float(f(x, kernel, b)[0, 0, 0]) == 2**-11
    y, vjp = jax.vjp(f, jnp.ones((2, n // 2, 1), dtype), jnp.ones((1, 1, 1), dtype), b)
    db = vjp(jnp.ones_like(y))[2]
    assert (db.dtype, db.tolist()) == (dtype, [n])


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_a_bias_of_another_dtype_and_under_transformations(name):
    """y has the dtype of x and b̄ that of b; checkpoint and shard_map change nothing."""
    f = functools.partial(getattr(manual, name), stride=2, padding="SAME")
    x, kernel, b = (
        draw(3, 2, 5, 4, dtype=jnp.bfloat16),
        draw(3, 4, 4, dtype=jnp.bfloat16),
        draw(4, dtype=jnp.float32),
    )
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    of = jax.sharding.PartitionSpec
    spread = jax.shard_map(f, mesh=mesh, in_specs=(of("i"), of(), of()), out_specs=of("i"))

    def run(f, x):
        return jax.jit(lambda *args: (f(*args), *jax.vjp(f, *args)[1](f(*args))))(x, kernel, b)

    y, dx, dkernel, db = alone = run(f, x[0])
    assert (y.dtype, dx.dtype, dkernel.dtype, db.dtype) == (*[jnp.bfloat16] * 3, jnp.float32)
    mapped = jax.vmap(functools.partial(run, jax.checkpoint(f)))(x)
    for a, m, s in zip(alone, mapped, run(spread, x[0]), strict=True):
        np.testing.assert_allclose(np.asarray(m[0], float), np.asarray(a, float), rtol=1e-2)
        np.testing.assert_array_equal(a, s)


def test_an_empty_batch_has_a_kernel_gradient_of_zero():
    for name in ("conv", "conv_transpose"):
        args = jnp.ones((0, 4, 2)), jnp.ones((3, 2, 2)), jnp.ones(2)
        y, vjp = jax.vjp(getattr(manual, name), *args)
        dx, dkernel, db = vjp(y)
        assert dx.shape == (0, 4, 2)
        assert not dkernel.any()
        assert not db.any()


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
@pytest.mark.parametrize(
    ("of_x", "of_kernel"),
    [
        (jnp.float32, jnp.bfloat16),
        (jnp.bfloat16, jnp.float32),
        (jnp.float16, jnp.bfloat16),
        (jnp.float32, jnp.float64),
        (jnp.float64, jnp.float32),
    ],
)
def test_of_two_dtypes_the_wider_is_computed_in(name, of_x, of_kernel):
    """As if both had come in float64, but for what y, ȳ and the cotangents are rounded to."""
    f = functools.partial(getattr(manual, name), stride=2, padding=1)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        x, kernel = draw(2, 5, 3, dtype=of_x), draw(3, 3, 3, dtype=of_kernel)
        y, vjp = jax.vjp(f, x, kernel)
        exact, exact_vjp = jax.vjp(f, x.astype(float), kernel.astype(float))
        for ours, truth in zip((y, *vjp(y)), (exact, *exact_vjp(y.astype(float))), strict=True):
            eps = float(max(jnp.finfo(ours.dtype).eps, jnp.finfo(jnp.float32).eps))
            atol = 2 * eps * np.abs(truth).max()
            np.testing.assert_allclose(np.asarray(ours, float), truth, rtol=0, atol=atol)
        assert (y.dtype, *(d.dtype for d in vjp(y))) == (of_x, of_x, of_kernel)


def test_options_that_are_numpy_integers():
    n = np.int64
    x, kernel, back = jnp.ones((1, 5, 4)), jnp.ones((3, 2, 4)), jnp.ones((3, 2, 4))
    for f, w, more in (
        (manual.conv, kernel, {"input_dilation": 1}),
        (manual.conv_transpose, back, {"output_padding": 1}),
    ):
        options = {"stride": 2, "padding": ((0, 1),), "dilation": 1, "groups": 2} | more
        same = {
            k: n(v) if isinstance(v, int) else tuple((n(a), n(b)) for a, b in v)
            for k, v in options.items()
        }
        np.testing.assert_array_equal(f(x, w, **same), f(x, w, **options))


X, K, KT = jnp.ones((1, 5, 4)), jnp.ones((3, 4, 2)), jnp.ones((3, 2, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: manual.conv(X[0], K),
            r"conv: x must be \(batch, \*space, in\).*; it has shape \(5, 4\)",
        ),
        (
            lambda: manual.conv(X, K[0]),
            r"conv: kernel must be \(\*window, in / groups, out\) with 1 wind",
        ),
        (
            lambda: manual.conv(X, K[:, :3]),
            r"conv: x has 4 channels and kernel \(3, 2\) .in / groups, ou",
        ),
        (lambda: manual.conv(X, K, groups=0), "conv: groups is 0; it must be 1 or more"),
        (lambda: manual.conv(X, K, stride=0), "conv: stride is 0; it must be 1 or more"),
        (
            lambda: manual.conv(X, K, stride=(1, 2)),
            r"conv: stride is \(1, 2\); it must be a number, or one for each of the 1 spatial axes",
        ),
        (lambda: manual.conv(X, K, input_dilation=0), "conv: input_dilation is 0; it must be 1"),
        (lambda: manual.conv(X, K, padding=-1), "conv: padding is -1; it must be 0 or more"),
        (
            lambda: manual.conv(X, K, padding=((1, 2, 3),)),
            r"conv: padding is \(\(1, 2, 3\),\); it must be a number, or for each of the 1 spatial",
        ),
        (
            lambda: manual.conv(X[:, :2], K),
            r"conv: the kernel covers \(3,\), more than the \(2,\) of x",
        ),
        *(
            (
                lambda f=f, k=k, said=said: f(X, k, padding=said),
                rf"^{f.__name__}: padding is '{said}'; it must be 'SAME', 'VALID', a number",
            )
            for f, k in ((manual.conv, K), (manual.conv_transpose, KT))
            for said in ("same", "FULL", "")
        ),
        (
            lambda: manual.conv(X, K, padding="SAME", input_dilation=2),
            "conv: padding is 'SAME' and input_dilation 2; for an input that is spread out it must",
        ),
        (
            lambda: manual.conv(X[:, :2], K, padding="VALID"),
            r"conv: the kernel covers \(3,\), more than the \(2,\) of x",
        ),
        (
            lambda: manual.conv_transpose(X, KT, padding="SAME", stride=2, output_padding=1),
            "conv_transpose: padding is 'SAME' and output_padding 1; it must be 0 where the paddin",
        ),
        *(
            (
                lambda f=f, k=k, b=b: f(X, k, b),
                rf"^{f.__name__}: b has shape \({b.shape[0]},.*\); with 2 output channels it must",
            )
            for f, k in ((manual.conv, K), (manual.conv_transpose, KT))
            for b in (jnp.ones(1), jnp.ones(4), jnp.ones((2, 1)))
        ),
        (
            lambda: manual.conv_transpose(X, KT, jnp.ones(2), groups=2),
            r"conv_transpose: b has shape \(2,\); with 4 output channels it must be \(4,\)",
        ),
        (lambda: manual.conv(X[:, :0], K, padding=2), r"none of them empty; .* \(1, 0, 4\)"),
        (lambda: manual.conv(X, K[:0]), r"conv: kernel must be .* no axis empty; .* \(0, 4, 2\)"),
        (lambda: manual.conv(X[..., :0], K[:, :0]), r"conv: kernel must be .* \(3, 0, 2\)"),
        (
            lambda: manual.conv_transpose(X, K),
            r"conv_transpose: x has 4 channels and kernel \(4, 2",
        ),
        (
            lambda: manual.conv_transpose(X[:, :0], KT),
            r"conv_transpose: x must be .* none of them empty; it has shape \(1, 0, 4\)",
        ),
        (
            lambda: manual.conv_transpose(X, KT[:, :0]),
            r"conv_transpose: kernel must be .* no axis empty; it has shape \(3, 0, 4\)",
        ),
        (lambda: manual.conv_transpose(X, KT, groups=0), "conv_transpose: groups is 0; it must be"),
        (lambda: manual.conv_transpose(X, KT, groups=3), "multiple of groups=3"),
        (lambda: manual.conv_transpose(X, KT, padding=4), r"the size \(-1,\)"),
        (lambda: manual.conv_transpose(X, KT, output_padding=1), "less than stride"),
        (
            lambda: manual.conv_transpose(X, KT, output_padding=-1),
            "conv_transpose: output_padding is -1; it must be 0 or more",
        ),
        (
            lambda: manual.conv_transpose(X, jnp.ones((3, 4))),
            r"conv_transpose: kernel must be \(\*window, out / gr",
        ),
    ],
)
def test_what_does_not_fit_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(call)


@pytest.mark.parametrize(
    ("option", "value", "came"),
    [
        ("dilation", 1.5, "1.5"),
        ("stride", None, "None"),
        ("stride", "2", "'2'"),
        ("padding", 1.0, "1.0"),
        ("padding", None, "None"),
        ("padding", ((0, 0.5),), "0.5"),
        ("groups", None, "None"),
    ],
)
def test_an_option_that_is_no_whole_number(option, value, came):
    for name, kernel in (("conv", K), ("conv_transpose", KT)):
        with pytest.raises(TypeError, match=f"{name}: {option} is {came}; it must be a whole numb"):
            jax.eval_shape(functools.partial(getattr(manual, name), **{option: value}), X, kernel)
