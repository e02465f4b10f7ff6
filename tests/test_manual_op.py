"""The `op` decorator: under every transformation, with every kind of argument, and its errors."""

import copy
import functools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import manual, reference
from handgrad.compare.cases import load
from handgrad.manual import Op, op

DTYPES = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)


@pytest.fixture(autouse=True)
def strict():
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@op
def cube(x, *, factor=1.0):
    """factor · x³."""
    return factor * x**3, x


@cube.backward
def _(x, dy, *, factor):
    return (dy * factor * 3 * x**2,)


@op
def multiply(x, y):
    """x ∘ y."""
    return x * y, (x, y)


@multiply.backward
def _(residuals, dy):
    x, y = residuals
    return dy * y, dy * x


@op
def pick(x, index, *, mask, temperature):
    """The entry `index` of temperature · x where the mask lets it through."""
    return temperature * jnp.where(mask, x, 0)[index], (x, index)


@pick.backward
def _(residuals, dy, *, mask, temperature):
    x, index = residuals
    return jnp.where(mask, jnp.zeros_like(x).at[index].set(dy * temperature), 0), None


@op
def tree_sum(tree, scale=None):
    """scale · the sum over all leaves; the tree may hold integers and None."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    total = sum(leaf.sum() for leaf in leaves)
    return (total if scale is None else scale * total), (tree, scale, total)


@tree_sum.backward
def _(residuals, dy):
    tree, scale, total = residuals
    seed = dy if scale is None else scale * dy

    def cotangent(leaf):
        if leaf is None or not jnp.issubdtype(leaf.dtype, jnp.floating):
            return None
        return jnp.full_like(leaf, seed)

    dtree = jax.tree.map(cotangent, tree, is_leaf=lambda leaf: leaf is None)
    return dtree, None if scale is None else total * dy


X = jnp.array([0.5, -1.0, 2.0])


def test_it_is_an_ordinary_function():
    assert isinstance(cube, Op)
    np.testing.assert_array_equal(cube(X), X**3)
    np.testing.assert_array_equal(cube(x=X, factor=2.0), 2 * X**3)
    assert cube.__doc__ == "factor · x³."
    assert cube.__name__ == "cube"
    assert repr(cube) == "<op cube(x, *, factor=1.0)>"


@pytest.mark.parametrize(
    "transform",
    [
        lambda f: f,
        jax.jit,
        jax.checkpoint,
        jax.vmap,
        lambda f: jax.jit(jax.vmap(jax.checkpoint(f))),
        lambda f: lambda x: jax.lax.map(f, x),
        lambda f: lambda x: jax.lax.scan(lambda carry, x: (carry, f(x)), None, x)[1],
    ],
)
def test_the_hand_written_derivative_is_used_under_every_transformation(transform):
    """The backward is wrong on purpose (9 for 3), so that only it can give these numbers."""

    @op
    def odd(x):
        return x**3, x

    @odd.backward
    def _(x, dy):
        return (dy * 9 * x**2,)

    y, vjp = jax.vjp(transform(odd), X)
    np.testing.assert_array_equal(y, X**3)
    np.testing.assert_array_equal(vjp(jnp.ones_like(X))[0], 9 * X**2)
    gradient = jax.jit(jax.vmap(jax.grad(odd)))(X)
    np.testing.assert_array_equal(gradient, 9 * X**2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_output_and_cotangent_have_the_arguments_dtype(dtype):
    with jax.enable_x64(True):
        x = X.astype(dtype)
        y, vjp = jax.vjp(cube, x)
        assert y.dtype == dtype
        assert vjp(jnp.ones_like(y))[0].dtype == dtype


def test_a_cotangent_computed_in_float32_is_cast_back():
    @op
    def wide_inside(x):
        return (x.astype(jnp.float32) ** 2).astype(x.dtype), x

    @wide_inside.backward
    def _(x, dy):
        return (2 * x.astype(jnp.float32) * dy.astype(jnp.float32),)

    assert jax.grad(wide_inside)(jnp.bfloat16(1.5)).dtype == jnp.bfloat16


def test_second_and_mixed_orders():
    """6x by reverse over reverse and by forward over reverse; ∂²(xy)/∂x∂y = 1."""
    assert float(jax.grad(jax.grad(cube))(2.0)) == 12
    assert float(jax.grad(jax.grad(jax.grad(cube)))(2.0)) == 6
    np.testing.assert_array_equal(jax.hessian(lambda x: cube(x).sum())(X), jnp.diag(6 * X))
    assert float(jax.grad(jax.grad(multiply, 0), 1)(2.0, 5.0)) == 1
    _, tangent = jax.jvp(jax.grad(cube), (2.0,), (1.0,))
    assert float(tangent) == 12


def test_forward_mode_alone_is_refused():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(cube, (2.0,), (1.0,))


def test_static_and_array_keyword_arguments():
    """A Python number is static, an array is traced: a new array value does not retrace."""
    traces = []

    @op
    def counted(x, *, scale, power=2):
        traces.append(power)
        return scale * x**power, (x, scale)

    @counted.backward
    def _(residuals, dy, *, power):
        x, scale = residuals
        return (dy * scale * power * x ** (power - 1),)

    f = jax.jit(
        jax.grad(lambda x, scale, power: counted(x, scale=scale, power=power)), static_argnums=2
    )
    assert float(f(3.0, jnp.float32(2), 2)) == 12
    assert float(f(3.0, jnp.float32(5), 2)) == 30
    assert traces == [2]
    assert float(f(3.0, jnp.float32(5), 3)) == 135
    assert traces == [2, 3]


def test_keyword_arrays_and_integer_arguments_carry_no_derivative():
    mask, key = jnp.array([True, False, True]), jax.random.key(0)
    f = functools.partial(pick, mask=mask, temperature=jnp.float32(2))
    assert float(f(X, 2)) == 4
    assert jax.grad(f)(X, jnp.int32(2)).tolist() == [0, 0, 2]
    assert jax.grad(f)(X, jnp.int32(1)).tolist() == [0, 0, 0]
    _, vjp = jax.vjp(f, X, jnp.int32(0))
    dx, dindex = vjp(jnp.float32(1))
    assert dx.tolist() == [2, 0, 0]
    assert dindex.dtype == jax.dtypes.float0
    batch = jax.vmap(jax.grad(f), (0, 0))(jnp.stack([X, X]), jnp.array([0, 2]))
    assert batch.tolist() == [[2, 0, 0], [0, 0, 2]]
    masks = jnp.array([[True] * 3, [False] * 3])
    by_mask = jax.vmap(lambda m: jax.grad(lambda x: pick(x, 0, mask=m, temperature=1.0))(X))
    assert by_mask(masks).tolist() == [[1, 0, 0], [0, 0, 0]]

    @op
    def noisy(x, *, key):
        mask = jax.random.bernoulli(key, 0.5, x.shape)
        return jnp.where(mask, x, 0), ()

    @noisy.backward
    def _(_residuals, dy, *, key):
        return (jnp.where(jax.random.bernoulli(key, 0.5, dy.shape), dy, 0),)

    kept = noisy(jnp.ones(64), key=key)
    np.testing.assert_array_equal(jax.grad(lambda x: noisy(x, key=key).sum())(jnp.ones(64)), kept)


def test_a_tuple_of_arrays_is_a_traced_keyword():
    @op
    def weighted(x, *, weights):
        return weights[0] * x + weights[1], ()

    @weighted.backward
    def _(_residuals, dy, *, weights):
        return (dy * weights[0],)

    weights = (jnp.float32(3), jnp.float32(4))
    assert float(jax.jit(jax.grad(lambda x: weighted(x, weights=weights)))(2.0)) == 3


def test_trees_with_integers_and_none_inside():
    tree = {"w": X, "n": jnp.arange(3), "b": None, "list": [(X, None)]}
    (dtree, dscale) = jax.grad(tree_sum, (0, 1), allow_int=True)(tree, jnp.float32(2))
    assert dtree["w"].tolist() == dtree["list"][0][0].tolist() == [2, 2, 2]
    assert dtree["n"].dtype == jax.dtypes.float0
    assert dtree["b"] is None
    assert dtree["list"][0][1] is None
    assert float(dscale) == 3
    dtree = jax.jit(jax.grad(tree_sum, allow_int=True))(tree)  # and the scale left out
    assert dtree["w"].tolist() == [1, 1, 1]


def test_inside_a_larger_model_the_rest_is_left_to_autodiff():
    def model(params, x, multiply=multiply, cube=cube):
        hidden = jnp.tanh(x @ params["w"])
        return jnp.sum(jnp.sin(cube(multiply(hidden, params["g"]), factor=0.3)))

    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(rng.normal(size=(3, 4))), "g": jnp.asarray(rng.normal(size=4))}
        x = jnp.asarray(rng.normal(size=3))
        ours = jax.jit(jax.grad(model, (0, 1)))(params, x)
        plain = functools.partial(
            model, multiply=lambda x, y: x * y, cube=lambda x, factor: factor * x**3
        )
        autodiff = jax.jit(jax.grad(plain, (0, 1)))(params, x)
    # the same real numbers by different roundings: a few ulps
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14), ours, autodiff)


def test_forward_and_pullback_are_the_plain_functions():
    y, residuals = cube.forward(X, factor=2.0)
    np.testing.assert_array_equal(y, 2 * X**3)
    (dx,) = cube.pullback(residuals, jnp.ones_like(X), factor=2.0)
    np.testing.assert_array_equal(dx, 6 * X**2)
    (dx,) = cube.pullback(residuals, jnp.ones_like(X))  # the default
    np.testing.assert_array_equal(dx, 3 * X**2)


def test_value_and_gradient_by_hand():
    y, (dx,) = cube.value_and_gradient(2.0, factor=10.0)
    assert (float(y), float(dx)) == (80, 120)
    tree = {"n": np.arange(3), "w": np.ones(2)}  # NumPy's float64 too
    y, (dtree, dscale) = tree_sum.value_and_gradient(tree)
    assert (float(y), dtree["w"].tolist(), dscale) == (2, [1, 1], None)
    assert dtree["n"].dtype == jax.dtypes.float0
    with pytest.raises(ValueError, match=r"cube returned shape \(3,\), and only a scalar has"):
        cube.value_and_gradient(X)


def test_empty_arrays():
    empty = jnp.zeros((0, 3))
    assert jax.vjp(multiply, empty, empty)[1](empty)[0].shape == (0, 3)


def test_as_a_method():
    class Layer:
        @op
        def scaled(self, x):
            return self["a"] * x, (self, x)

        @scaled.backward
        def _(residuals, dy):
            self, x = residuals
            return {"a": dy * x}, dy * self["a"]

    assert isinstance(Layer.scaled, Op)
    assert float(jax.grad(Layer.scaled, 1)({"a": 3.0}, 2.0)) == 3
    bound = Layer.scaled.__get__({"a": 3.0})
    assert float(jax.grad(bound)(2.0)) == 3


def test_copies_and_pickles_are_the_op_itself():
    assert copy.deepcopy(cube) is cube
    assert pickle.loads(pickle.dumps(cube)) is cube


def broken(backward):
    """An op of two arguments with the given backward."""

    @op
    def pair(x, y):
        return x * y, (x, y)

    pair.backward(backward)
    return pair


@pytest.mark.parametrize(
    ("backward", "error", "message"),
    [
        (
            lambda residuals, dy: (dy,),
            TypeError,
            "the backward of pair returned a tuple of 1; it must return a tuple of 2, one "
            "cotangent for each positional argument: x, y",
        ),
        (
            lambda residuals, dy: (dy, dy, dy),
            TypeError,
            "the backward of pair returned a tuple of 3; it must return a tuple of 2",
        ),
        (
            lambda residuals, dy: jnp.stack([dy, dy]),
            TypeError,
            "the backward of pair returned a .*; it must return a tuple of 2",
        ),
        (
            lambda residuals, dy: [dy, dy],
            TypeError,
            "the backward of pair returned a list; it must return a tuple of 2",
        ),
        (
            lambda residuals, dy: (dy, dy.sum()),
            ValueError,
            r"the cotangent of pair's y has shape \(\); it must be \(3,\)",
        ),
        (
            lambda residuals, dy: ((dy, dy), dy),
            TypeError,
            r"the cotangent of pair's x is the tree PyTreeDef\(\(\*, \*\)\); it must be PyTreeDef",
        ),
    ],
)
def test_a_wrong_number_tree_or_shape_of_cotangents_is_named(backward, error, message):
    with pytest.raises(error, match=message):
        jax.vjp(broken(backward), X, X)[1](X)
    with pytest.raises(error, match=message):
        jax.jit(jax.grad(lambda x, y: broken(backward)(x, y).sum()))(X, X)


def test_none_for_a_floating_point_argument_says_what_to_return():
    message = (
        r"the cotangent of pair's y is None; only integers and booleans have none: "
        r"return an array of shape \(3,\) and dtype float32, zeros if need be"
    )
    with pytest.raises(TypeError, match=message):
        jax.vjp(broken(lambda residuals, dy: (dy, None)), X, X)[1](X)


def test_no_backward_and_two_backwards():
    @op
    def lonely(x):
        return x, ()

    assert float(lonely(2.0)) == 2
    with pytest.raises(TypeError, match=r"lonely has no backward yet: write one under @lonely\.b"):
        jax.grad(lonely)(2.0)

    def backward(_residuals, dy):
        return (dy,)

    lonely.backward(backward)
    with pytest.raises(TypeError, match="lonely already has a backward; an op has exactly one"):
        lonely.backward(backward)


def test_a_forward_that_forgets_its_residuals():
    @op
    def hasty(x):
        return 2 * x

    with pytest.raises(
        TypeError, match=r"the forward of hasty returned a .*; it must return a pair"
    ):
        hasty(X[:2])


def test_star_arguments_are_refused():
    with pytest.raises(TypeError, match=r"op many: \*arrays is not possible"):

        @op
        def many(*arrays):
            return arrays[0], ()


def test_unknown_and_forgotten_keywords():
    with pytest.raises(
        TypeError, match=r"cube\.pullback takes factr=, but the keyword .* the forward are: factor"
    ):
        cube.pullback(X, X, factr=2.0)
    with pytest.raises(TypeError, match="cube: got an unexpected keyword argument 'factr'; it tak"):
        cube(X, factr=2.0)
    with pytest.raises(
        TypeError, match=r"pick\.pullback needs (mask|temperature)=, as it was given"
    ):
        pick.pullback((X, 0), X)

    @op
    def plain(x):
        return x, ()

    with pytest.raises(
        TypeError, match=r"the backward of plain takes slope=, but the keyword .* are: none"
    ):

        @plain.backward
        def _(_residuals, dy, *, slope):
            return (slope * dy,)


@pytest.mark.parametrize("call", [lambda f: f, lambda f: f.value_and_gradient])
def test_a_wrong_call_names_the_operation(call):
    for args, options, message in (
        ((X, 2.0), {}, r"cube: too many positional arguments; it takes cube\(x, \*, factor=1\.0\)"),
        ((), {}, "cube: missing a required argument: 'x'; it takes"),
        ((X,), {"slope": 2.0}, "cube: got an unexpected keyword argument 'slope'; it takes"),
    ):
        with pytest.raises(TypeError, match=message):
            call(cube)(*args, **options)
    with pytest.raises(TypeError, match=r"max_pool: missing a required .*'window'; it takes "):
        call(manual.max_pool)(jnp.ones((1, 4, 2)))


@pytest.mark.parametrize("given", [True, "a", None])
def test_value_and_gradient_checks_the_options_too(given):
    for call in (cube, cube.value_and_gradient):
        with pytest.raises(TypeError, match=f"cube: factor is {given!r}; it must be a number"):
            call(2.0, factor=given)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "log_sum_exp"])
@pytest.mark.parametrize("axis", [True, None, (0, 1), 1.0, "a", 2, -3])
def test_an_axis_that_there_is_not(name, axis):
    x = jnp.ones((2, 3))
    error = ValueError if axis in (2, -3) else TypeError
    with pytest.raises(error, match=f"{name}: .*axis.* {re.escape(repr(axis))}"):
        getattr(manual, name)(x, axis=axis)
    with pytest.raises(ValueError, match=rf"{name}: .*x has shape \(\); .* at least one"):
        getattr(manual, name)(jnp.ones(()), axis=-1)


def test_an_unhashable_keyword_is_named():
    with pytest.raises(TypeError, match=r"cube's factor is the list \[1, 2\]; a keyword argument"):
        cube(X, factor=[1, 2])


@pytest.mark.parametrize("inside", [lambda f: f, jax.jit, jax.checkpoint])
def test_an_option_is_not_differentiated_in_silence(inside):
    def loss(x, factor):
        return cube(x, factor=factor).sum()

    with pytest.raises(TypeError, match="cube has no derivative by its option factor"):
        jax.grad(inside(loss), argnums=1)(X, 2.0)
    with pytest.raises(TypeError, match="cube has no derivative by its option factor"):
        jax.grad(lambda x: inside(loss)(x, x.sum()))(X)
    # computed, and not what is differentiated: all is well
    assert jnp.array_equal(jax.grad(inside(loss))(X, 2.0), jax.grad(loss)(X, 2.0))
    stopped = jax.grad(lambda x: inside(loss)(x, jax.lax.stop_gradient(x.sum())))(X)
    assert jnp.allclose(stopped, jax.grad(loss)(X, X.sum()))
    assert jax.vmap(inside(loss), (None, 0))(X, jnp.ones(3)).shape == (3,)


@pytest.mark.parametrize("of", [np.int32, np.uint8, bool])
@jax.numpy_dtype_promotion("standard")
def test_integers_are_refused_where_the_result_would_be_rounded_to_them(of):
    x = jnp.array([[1, 2], [3, 5]]).astype(of)
    for f in (manual.silu, manual.softsign, manual.identity, manual.l1_penalty):
        with pytest.raises(TypeError, match=f"{f.__name__}: . is {np.dtype(of)}; it must be of fl"):
            jax.eval_shape(f, x)
    with pytest.raises(TypeError, match="affine: x is"):
        manual.affine(x, jnp.ones((2, 3)))
    with pytest.raises(TypeError, match="clip_by_global_norm: tree is"):
        manual.clip_by_global_norm([x], max_norm=1.0)
    assert jnp.allclose(manual.mse(x.astype(float) + 0.5, x), 0.25)  # as targets they are welcome


def test_python_numbers_are_arrays():
    assert manual.mse(1.0, 3.0) == 4
    assert jnp.allclose(jax.grad(manual.sigmoid)(0.5), jax.grad(jax.nn.sigmoid)(0.5))
    (scaled,) = manual.clip_by_global_norm([3.0], max_norm=1.0)
    assert jnp.allclose(scaled, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: manual.gelu(None), "gelu: x is None; it must be an array"),
        (lambda: manual.silu([1.0, 2.0]), "silu: x is a list; it must be an array"),
        (
            lambda: manual.gelu(X.astype(complex)),
            "gelu: x is complex64; an op is a function of real",
        ),
        (lambda: manual.tanh(1j), "tanh: x is complex"),
        (lambda: manual.affine(X, X[:, None].astype(complex)), "affine: w is complex64"),
        (lambda: manual.l1_penalty({"a": [X.astype(complex)]}), "l1_penalty: w is complex64"),
        (lambda: manual.mse(X, [1.0, 2.0, 3.0]), "mse: targets is a list; it must be an array"),
    ],
)
def test_what_is_no_array_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_what_is_left_out_is_not_blamed_for_another_argument():
    h, w = jnp.ones((2, 3)), jnp.ones((3, 12))
    with pytest.raises(ValueError, match="lstm: wx has shape"):
        manual.lstm(jnp.ones((2, 4, 5)), h, h, w, w, jnp.ones(12), None)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"approximate": "none"}, TypeError, "gelu: approximate is 'none'; it must be True or Fal"),
        ({"approximate": 1}, TypeError, "gelu: approximate is 1"),
        ({"alpha": None}, TypeError, "elu: alpha is None; it must be a number"),
        ({"alpha": "1"}, TypeError, "elu: alpha is '1'; it must be a number"),
        ({"alpha": 1j}, TypeError, "elu: alpha is 1j; it must be a number"),
        ({"alpha": True}, TypeError, "elu: alpha is True; it must be a number"),
        ({"alpha": jnp.ones((3, 1))}, ValueError, r"elu: alpha has shape \(3, 1\)"),
        ({"b": np.float32(-1)}, ValueError, "squareplus: b is -1.0; it must be a positive number"),
        ({"b": jnp.zeros(())}, ValueError, "squareplus: b is 0.0"),
        ({"b": float("nan")}, ValueError, "squareplus: b is nan"),
    ],
)
def test_an_option_that_is_not_what_its_default_is(options, error, message):
    (name,) = options
    f = {"approximate": manual.gelu, "alpha": manual.elu, "b": manual.squareplus}[name]
    with pytest.raises(error, match=message):
        f(X, **options)


@pytest.mark.parametrize(
    "name", ["l2_penalty", "l1_penalty", "elastic_net", "total_squared_error", "mse", "mae"]
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_cotangent_of_a_scalar_may_be_a_number(name, dtype):
    op = getattr(manual, name)
    x = jnp.asarray([1.0, -2.0, 0.5], dtype)
    args = (x,) if "penalty" in name or name == "elastic_net" else (x, 2 * x)
    y, kept = op.forward(*args)
    of_number, of_array = op.pullback(kept, 2), op.pullback(kept, jnp.asarray(2, y.dtype))
    for a, b in zip(of_number, of_array, strict=True):
        assert jnp.array_equal(a.astype(dtype), b)


def first_case(name):
    """Its arguments, in float32 but for the integers, and its options."""
    case = next(case for case in load() if case.function == name)
    floats = {"f": jnp.float32}
    return jax.tree.map(
        lambda a: jnp.asarray(a, floats.get(np.asarray(a).dtype.kind)), case.draw()
    ), case.config


@pytest.mark.parametrize("name", sorted({case.function for case in load()}))
def test_a_call_outside_of_jit_is_compiled_once(name):
    """A scan or a cond whose function is a new one is compiled at every call, and kept."""
    f, (args, config), found = getattr(manual, name), first_case(name), []

    def run():
        y, kept = f.forward(*args, **config)
        return f(*args, **config), f.pullback(kept, y, **config)

    def listen(event, _seconds, **_of):
        if "backend_compile" in event:
            found.append(event)

    run()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not found


LABELS = jnp.arange(64) % 7
OF_PRODUCTS = {
    "log_softmax": (),
    "log_sum_exp": (),
    "softmax": (),
    "softmax_cross_entropy": (jax.nn.one_hot(LABELS, 7),),
    "softmax_cross_entropy_with_integer_labels": (LABELS,),
    "label_smoothing_cross_entropy": (LABELS,),
    "kl_divergence_with_logits": (jnp.zeros((64, 7)),),
    "multiclass_hinge": (LABELS,),
    "l2_normalize": (),
}


@pytest.mark.parametrize("way", ["jit", "vmap"])
@pytest.mark.parametrize("name", OF_PRODUCTS)
def test_an_argument_that_is_a_product_made_beside_it(name, way):
    """A compiler makes x − xₘ of x = c z without rounding x: e^{x−xₘ} at m is then not quite 1."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(64, 7)) * 3, jnp.float32)
    dy = jnp.asarray(np.random.default_rng(1).normal(size=(64, 7)), jnp.float32)

    def of_row(f, z, dy, *others, scale=1.0):
        y, vjp = jax.vjp(lambda x: f(x, *others), scale * z)
        return y, vjp(dy if y.ndim == dy.ndim else dy[..., 0])[0]

    scale = np.float32(1 / 0.3)
    ours = functools.partial(of_row, getattr(manual, name), scale=scale)
    found = jax.jit(jax.vmap(ours) if way == "vmap" else ours)(z, dy, *OF_PRODUCTS[name])
    with jax.enable_x64(True):
        x, dy, *others = (
            np.asarray(a, float if a.dtype == jnp.float32 else "int32")
            for a in (scale * z, dy, *OF_PRODUCTS[name])
        )
        expected = of_row(getattr(reference, name), jnp.asarray(x), jnp.asarray(dy), *others)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("way", [lambda f: f, jax.vmap], ids=["jit", "vmap"])
def test_a_small_loss_of_a_product_made_beside_it_keeps_its_digits(way):
    z = jnp.asarray(np.random.default_rng(0).normal(size=(64, 7)) * 3, jnp.float32)
    scale, labels = np.float32(1 / 0.3), z.argmax(-1)
    loss = manual.softmax_cross_entropy_with_integer_labels
    found = jax.jit(way(lambda z, c: loss(scale * z, c)))(z, labels)
    with jax.enable_x64(True):
        x = jnp.asarray(np.asarray(scale * z), float)
        others = jnp.where(jax.nn.one_hot(labels, 7), -jnp.inf, x)
        expected = jnp.log1p(jnp.exp(others - x.max(-1, keepdims=True)).sum(-1))
    np.testing.assert_allclose(found, expected, rtol=2e-5)
