"""Each relation is claimed where it holds in every element, and nowhere else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import examine
from handgrad.compare.diagnose import Evidence, diagnose, shape_mismatch


@pytest.fixture(autouse=True)
def defaults():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


DY = normal(5, seed=9)


def found(hand, truth, values=None, by_hand=None, by_autodiff=None, dy=DY, single=False):
    """What is said of one wrong gradient, or of several: [(kind, text)]."""
    hands, truths = (
        [np.asarray(a) for a in (v if isinstance(v, list) else [v])] for v in (hand, truth)
    )
    values = (
        [np.asarray(v) for v in values] if values else [normal(*g.shape, seed=5) for g in truths]
    )

    def linear(gradients):
        return lambda dys: [g * (dys[0].ravel()[0] / dy.ravel()[0]) for g in gradients]

    noise = [1e-13 * np.abs(g) for g in truths]
    with np.errstate(invalid="ignore"):
        wrong = [~(np.abs(h - g) <= n) for h, g, n in zip(hands, truths, noise, strict=True)]
    evidence = Evidence(
        known=(),
        names=["x", "w", "b"][: len(truths)], values=values, hand=hands, truth=truths, noise=noise,
        wrong=wrong, cotangents=[dy], by_hand=by_hand or linear(hands),
        by_autodiff=by_autodiff or linear(truths), single_precision=single,
    )  # fmt: skip
    return [(d.kind, d.text) for d in diagnose(evidence)]


def only(*args, **kwargs):
    (one,) = found(*args, **kwargs)
    return one


G = normal(3, 4)

# --- factors --------------------------------------------------------------------------------------


def test_sign():
    kind, text = only(-G, G)
    assert kind == "sign"
    assert text == "the gradient of x has the wrong sign"


@pytest.mark.parametrize(
    ("factor", "shape", "word"),
    [
        (2, (3, 5), "square"),
        (0.5, (3, 5), "½"),
        (2, (3, 4), "square"),  # rather than the square root of the 4, or half of it
        (0.5, (3, 4), "½"),
        (2, (2, 5), "square"),
        (7, (3, 7), "7, axis 1 of x: a sum taken for a mean"),
        (1 / 7, (3, 7), "1/N with N = 7, axis 1 of x: a mean taken for a sum"),
        (15, (3, 5), "15, the number of elements of x"),
        (6 / 7, (3, 7), "biased or unbiased"),
        (7 / 6, (3, 7), "biased or unbiased"),
        (7**0.5, (3, 7), "√N with N = 7"),
        (7**-0.5, (3, 7), "1/√N with N = 7"),
        (2 / 11, (3, 11), "2/N with N = 11"),
        (5, (3, 4), "5, axis 0 of dy"),
    ],
)
def test_factors_and_where_they_come_from(factor, shape, word):
    g = normal(*shape)
    kind, text = only(factor * g, g)
    assert kind == "factor"
    assert word in text


@pytest.mark.parametrize(
    ("factor", "text"),
    [
        (-3, "-3 times"),
        (1.25, "5/4 = 1.25 times"),
        (np.pi, "3.141592654 times"),
        (-0.5, "-1/2"),
        (1e-9, "1e-09"),
    ],
)
def test_factors_without_an_origin(factor, text):
    kind, said = only(factor * G, G)
    assert kind == "factor"
    assert text in said


def test_no_factor_if_one_element_has_another():
    h = 2 * G
    h[1, 1] *= 1 + 1e-9
    assert found(h, G) == []


def test_no_factor_beside_what_is_right_in_part():
    h = G.copy()
    h[0] *= 2
    assert [kind for kind, _ in found(h, G)] == ["slice"]


def test_complex_gradients():
    g = normal(3) + 1j * normal(3, seed=1)
    assert only(-g, g)[0] == "sign"
    assert only(2 * g, g)[0] == "factor"
    assert found(1j * g, g) == []


# --- cotangents -----------------------------------------------------------------------------------


def test_the_cotangent_ignored():
    jacobian = normal(5, 4)
    kind, text = only(
        jacobian.sum(0), DY @ jacobian, by_hand=lambda dys: [jacobian.sum(0)],
        by_autodiff=lambda dys: [dys[0] @ jacobian],
    )  # fmt: skip
    assert kind == "ignores-cotangent"
    assert "it is the one for dy = 1" in text


def test_the_cotangent_ignored_and_something_else():
    jacobian = normal(5, 4)
    kind, text = only(
        3 * jacobian.sum(0), DY @ jacobian, by_hand=lambda dys: [3 * jacobian.sum(0)],
        by_autodiff=lambda dys: [dys[0] @ jacobian],
    )  # fmt: skip
    assert kind == "ignores-cotangent"
    assert "dy = 1" not in text


@pytest.mark.parametrize("power", [2, 3])
def test_powers_of_the_cotangent(power):
    jacobian = normal(5, 4)
    kind, text = only(
        DY**power @ jacobian, DY @ jacobian, by_hand=lambda dys: [dys[0] ** power @ jacobian],
        by_autodiff=lambda dys: [dys[0] @ jacobian],
    )  # fmt: skip
    assert kind == "squares-cotangent"
    assert f"the power {power}" in text


def test_not_linear_in_the_cotangent():
    jacobian = normal(5, 4)
    kind, text = only(
        np.tanh(DY) @ jacobian, DY @ jacobian, by_hand=lambda dys: [np.tanh(dys[0]) @ jacobian],
        by_autodiff=lambda dys: [dys[0] @ jacobian],
    )  # fmt: skip
    assert kind == "nonlinear"
    assert "not linear in the cotangent" in text


def test_a_gradient_of_a_loss_has_no_cotangent_to_ignore():
    one = np.ones(())
    said = found(
        2 * G, G, by_hand=lambda dys: [2 * G], by_autodiff=lambda dys: [G * dys[0]], dy=one
    )
    assert [kind for kind, _ in said] == ["factor"]


# --- arrangements ---------------------------------------------------------------------------------


def test_transposed():
    g = normal(2, 3, 3)
    kind, text = only(g.swapaxes(1, 2), g)
    assert (kind, text) == ("transposed", "the gradient of x is transposed")
    h = g.swapaxes(1, 2).copy()
    h[0, 1, 2] += 1e-6
    assert found(h, g) == []


def test_swapped():
    w = normal(3, 4, seed=1)
    said = found([w, G], [G, w])
    assert [kind for kind, _ in said] == ["swapped", "swapped"]
    assert "is the one of w" in said[0][1]
    assert "is the one of x" in said[1][1]
    assert found([w, w], [G, w])[0][0] == "swapped"


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ((0,), "reversed along axis 0"),
        ((1,), "reversed along axis 1"),
        ((0, 1), "rotated by 180° in axes 0 and 1"),
    ],
)
def test_flipped(axes, words):
    kind, text = only(np.flip(G, axes), G)
    assert kind == "flipped"
    assert words in text


@pytest.mark.parametrize("step", [1, -1])
def test_shifted(step):
    g = normal(3, 6)
    kind, text = only(np.roll(g, step, 1), g)
    assert kind in ("shifted", "permuted")
    h = np.zeros_like(g)
    if step == 1:
        h[:, 1:] = g[:, :-1]
    else:
        h[:, :-1] = g[:, 1:]
    kind, text = only(h, g)
    assert kind == "shifted"
    assert "along axis 1" in text
    assert ("late" if step == 1 else "early") in text


def test_no_shift_of_zeros():
    g, h = np.zeros(5), np.zeros(5)
    g[4], h[0] = 1.0, 2.0
    assert "shifted" not in [kind for kind, _ in found(h, g)]


def test_blocks_in_another_order():
    g = normal(3, 8)
    i, f, c, o = np.split(g, 4, 1)
    kind, text = only(np.concatenate([f, i, c, o], 1), g)
    assert kind == "permuted"
    assert "4 blocks along axis 1" in text
    assert "[1, 0, 2, 3]" in text


def test_summed_or_averaged_over_an_axis():
    total = np.broadcast_to(G.sum(1, keepdims=True), G.shape)
    kind, text = only(total, G)
    assert kind == "reduced"
    assert "summed over axis 1" in text
    kind, text = only(total / 4, G)
    assert kind == "reduced"
    assert "averaged over axis 1" in text


# --- what is missing, not finite, or imprecise ----------------------------------------------------


def test_zero():
    kind, text = only(np.zeros_like(G), G)
    assert kind == "missing"
    assert "zero everywhere" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite(value):
    h = G.copy()
    h[1, 2] = value
    kind, text = only(h, G)
    assert kind == "nonfinite"
    assert f"has {'nan' if np.isnan(value) else 'inf'} in 1 of 12 elements" in text


def test_single_precision():
    kind, text = only(np.float64(np.float32(G)), G, single=True)
    assert kind == "precision"
    assert "lower precision than its inputs" in text
    assert found(np.float64(np.float32(G)), G, single=False) == []


def test_single_precision_does_not_excuse_a_large_deviation():
    assert found(G + 0.5 * normal(3, 4, seed=3), G, single=True) == []


# --- where ----------------------------------------------------------------------------------------


def spoilt(index, g=G):
    h = g.copy()
    h[index] += normal(*np.shape(h[index]), seed=4)
    return h


def test_one_element():
    kind, text = only(spoilt((1, 2)), G)
    assert kind == "element"
    assert "[1, 2]" in text


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (0, "in the first along axis 0 only"),
        (-1, "in the last along axis 0 only"),
        (1, "in number 1 along axis 0 only"),
        ((slice(None), 3), "in the last along axis 1 only"),
        (slice(1, None), "right in the first along axis 0 only"),
        ((slice(None), slice(None, -1)), "right in the last along axis 1 only"),
    ],
)
def test_slices(index, words):
    kind, text = only(spoilt(index), G)
    assert kind == "slice"
    assert words in text


def test_regions():
    x = np.array([[0.5, -1.0, 2.0, -0.1], [-3.0, 0.7, -0.2, 1.5], [0.3, 0.9, -0.8, 1.1]])
    for mask, words in (
        (x < 0, "only where x is negative"),
        (x > 0, "only where x is positive"),
        (np.abs(x) > 1, "only where |x| is above 1"),
        (np.abs(x) < 0.6, "only where |x| is below 0.7"),
    ):
        kind, text = only(spoilt(mask), G, values=[x])
        assert kind == "region"
        assert words in text


def test_no_slice_beside_which_much_is_right():
    """Of four wrong elements none lies in the last column; the others are not all wrong."""
    h = G.copy()
    for index in ((0, 0), (1, 1), (2, 2), (0, 2)):
        h[index] += 1 + abs(h[index])
    values = [np.where(h != G, 1.0, -1.0) * np.array([1.0, -1, 1, -1]) * normal(3, 4, seed=2)]
    assert "slice" not in [kind for kind, _ in found(h, G, values=values)]


def test_nothing_in_common():
    mask = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 1]], bool)
    x = np.where(mask, 1.0, -1.0) * np.where(normal(3, 4, seed=7) > 0, 1, -1)
    x[mask] *= np.linspace(0.1, 3, mask.sum())
    x[~mask] *= np.linspace(0.1, 3, (~mask).sum())
    assert found(spoilt(mask), G, values=[x]) == []


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("shape", [(3, 4), (3, 3), (5,), (2, 2), (2,), (1, 3), ()])
def test_nothing_is_claimed_of_unrelated_numbers(shape, seed):
    g, h = normal(*shape, seed=seed), normal(*shape, seed=seed + 1000)
    kinds = [kind for kind, _ in found(h, g)]
    # of a single number, any other is a multiple
    assert kinds in ([], ["factor"]) if np.size(g) == 1 else kinds == []


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_claimed_of_a_constant_added(seed):
    g = normal(4, 4, seed=seed)
    assert found(g + 0.3, g) == []


def test_right_gradients_are_passed_over():
    assert found([G, -G], [G, G])[0][0] == "sign"
    assert "of w" in found([G, -G], [G, G])[0][1]


# --- shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hand", "truth", "words"),
    [
        (G, G.sum(0), "sum it over axis 0"),
        (G, G.sum(0, keepdims=True), "sum it over axis 0"),
        (G, G.sum(), "sum it over axes 0 and 1"),
        (G[0, 0], np.full((3, 4), G[0, 0]), "broadcast it along axes 0 and 1"),
        (G[0], np.tile(G[0], (3, 1)), "broadcast it along axis 0"),
        (G[:, 0], np.tile(G[:, :1], (1, 4)), "broadcast it along axis 1"),
        (G[:, :1], np.tile(G[:, :1], (1, 4)), "broadcast it along axis 1"),
        (G.T, G, "transpose it"),
        (normal(2, 3, 4).transpose(2, 0, 1), normal(2, 3, 4), "transpose it by (1, 2, 0)"),
        (G.ravel(), G, "reshape it to [3, 4]"),
    ],
)
def test_shapes(hand, truth, words):
    assert words in shape_mismatch(hand, truth)


def test_shapes_without_a_hint():
    assert shape_mismatch(normal(3, 4, seed=2), normal(4)) == ""
    assert shape_mismatch(normal(7), normal(5)) == ""


def test_wide_arrays_are_not_searched_for_ever():
    assert isinstance(shape_mismatch(normal(*[2] * 9), normal(*[1] * 9)), str)


# --- end to end -----------------------------------------------------------------------------------


def standardize(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def standardize_backward(x, dy):
    """The mean of the cotangent left out."""
    centred = x - x.mean(-1, keepdims=True)
    rstd = 1 / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    y = centred * rstd
    return rstd * (dy - y * (dy * y).mean(-1, keepdims=True))


def layer(x, w, b):
    return jnp.tanh(x @ w + b)


def layer_backward(x, w, b, dy):
    d = dy * (1 - jnp.tanh(x @ w + b) ** 2)
    return d @ w.T, x.T @ d, d.sum(0)


LAYER = (normal(3, 5), normal(5, 2), normal(2))


def layer_case(candidate, *kinds):
    return candidate, layer, LAYER, set(kinds)


def square_case(candidate, *kinds, x=None):
    return candidate, jnp.square, (normal(4) if x is None else x,), set(kinds)


ALONE_BELOW_ZERO = np.array([[0.5, -1.0, 2.0], [-3.0, 0.7, -0.2], [0.3, 0.9, 0.8]])


@pytest.mark.parametrize(
    ("candidate", "reference", "args", "kinds"),
    [
        layer_case(lambda *a: [-g for g in layer_backward(*a)], "sign", "mend"),
        layer_case(lambda *a: [2 * g for g in layer_backward(*a)], "factor", "mend"),
        layer_case(lambda *a: layer_backward(*a[:3], a[3] ** 2), "squares-cotangent", "mend"),
        layer_case(lambda *a: layer_backward(*a[:3], 1 + 0 * a[3]), "ignores-cotangent", "mend"),
        layer_case(lambda *a: (0 * a[0], *layer_backward(*a)[1:]), "missing"),
        square_case(lambda x, dy: (2 * x * dy).at[2].multiply(1.7), "element", "mend"),
        square_case(lambda x, dy: (2 * x.astype(jnp.float32) * dy).astype(x.dtype), "precision"),
        square_case(
            lambda x, dy: jnp.where(x > 0, 2 * x * dy, x * dy * jnp.exp(x)),
            "mend",
            "region",
            x=ALONE_BELOW_ZERO,
        ),
        (standardize_backward, standardize, (normal(3, 4),), {"mend", "path"}),
    ],
)
def test_of_a_check(candidate, reference, args, kinds):
    report = examine(candidate, reference, *args, kind="backward")
    assert not report.ok
    said = {d.kind for d in report.diagnoses}
    assert said, str(report)
    assert said <= kinds, str(report)
    for d in report.diagnoses:
        assert f"→ {d.text}" in str(report)


def test_a_right_derivation_is_not_diagnosed():
    assert examine(layer_backward, layer, *LAYER, kind="backward").diagnoses == ()


def test_one_wrong_gradient_among_right_ones_is_the_one_diagnosed():
    def backward(x, w, b, dy):
        dx, dw, db = layer_backward(x, w, b, dy)
        return dx, -dw, db

    report = examine(backward, layer, *LAYER, kind="backward")
    assert [(d.kind, d.argument) for d in report.diagnoses] == [("sign", "w"), ("mend", "")]
    line = backward.__code__.co_firstlineno + 2
    assert f"diagnose.py:{line}: wrong sign: write `dw` for `-dw`" in report.diagnoses[1].text
    assert "the gradient is wrong for w; right for x, b" in str(report)
