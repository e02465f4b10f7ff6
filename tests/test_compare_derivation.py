"""`Derivation` judges every line, names the first that departs, and survives bad input."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare.derivation import (
    Derivation,
    DerivationMismatch,
    declared,
    examine_derivation,
)
from handgrad.manual import derivation as record
from handgrad.manual.derivation import entries


def loss(w, x, t):
    return 0.5 * ((jnp.tanh(x @ w) - t) ** 2).sum()


SAMPLE = {"w": (3, 2), "x": (3,), "t": (2,)}
LET = {"y": lambda w, x: np.tanh(x @ w), "nu": lambda y, t: (y - t) * (1 - y**2)}
LINES = (
    (
        r"\frac{\partial E}{\partial w_{io}} = (y_o-t_o)(1-y_o^2)\,x_i",
        lambda x, y, t: entries(lambda i, o: (y[o] - t[o]) * (1 - y[o] ** 2) * x[i], 3, 2),
    ),
    (r"= \nu_o\,x_i", lambda x, nu: entries(lambda i, o: nu[o] * x[i], 3, 2)),
    (r"= x\,\nu^\top", lambda x, nu: np.outer(x, nu)),
)


def start(**options):
    return Derivation("delta rule", loss, **{"wrt": "w", "sample": SAMPLE, "let": LET, **options})


def derivation(*replaced, **options):
    """The delta rule, some lines (by number) replaced."""
    made = start(**options)
    for number, (latex, function) in enumerate(LINES, 1):
        made.line(latex, dict(replaced).get(number, function))
    return made


def only(function, latex="x", **options):
    """One line, about the delta rule."""
    return start().line(latex, function, **options).examine()


def test_a_right_derivation():
    report = derivation().check()
    assert report.ok
    assert report.departure is None
    assert [line.holds for line in report.lines] == [True] * 3
    assert max(line.deviation for line in report.lines) < 1e-14


def test_the_report_as_it_is_printed():
    wrong = derivation(
        (2, lambda x, nu: entries(lambda i, o: -nu[o] * x[i], 3, 2)), source="school"
    )
    worst = wrong.examine().lines[1]
    assert str(wrong.examine()).splitlines() == [
        "✗ delta rule   [school]",
        "   1 ✓ ∂E/∂wᵢₒ = (yₒ−tₒ)(1−yₒ²) xᵢ  " + f"{wrong.examine().lines[0].deviation:.1e}",
        f"   2 ✗ = νₒ xᵢ                      {worst.deviation:.1e}",
        f"       {worst.value:.6g}, autodiff {worst.truth:.6g} at {worst.where}",
        "   3 ✓ = x νᵀ                       " + f"{wrong.examine().lines[2].deviation:.1e}",
        "  line 2 is the first that departs from the one before it",
    ]


SLIPS = {
    "sign": lambda f: lambda *a: -f(*a),
    "factor": lambda f: lambda *a: 2 * f(*a),
    "index": lambda f: lambda *a: np.roll(f(*a), 1, axis=0),
    "dropped entry": lambda f: lambda *a: f(*a) * (np.arange(6).reshape(3, 2) != 3),
    "one part in 10⁹ of one entry": lambda f: (
        lambda *a: f(*a) * (1 + 1e-9 * (np.arange(6).reshape(3, 2) == 3))
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_slip_is_reported_at_its_line(number, slip):
    function = LINES[number - 1][1]
    changed = SLIPS[slip](function)

    def line(x, y, t, nu):
        return changed(*(x, y, t) if number == 1 else (x, nu))

    report = derivation((number, line)).examine()
    assert not report.ok
    assert report.departure == number
    assert [i for i, row in enumerate(report.lines, 1) if not row.holds] == [number]


def test_a_slip_that_is_carried_on_departs_where_it_was_made():
    carried = {n: (lambda x, nu: np.outer(x, 3 * nu)) for n in (2, 3)}
    report = derivation(*carried.items()).examine()
    assert [line.holds for line in report.lines] == [True, False, False]
    assert report.departure == 2
    assert not report.lines[2].departs


def test_an_intermediate_is_a_derivative_of_the_rest():
    rest = lambda z, t: 0.5 * ((jnp.tanh(z) - t) ** 2).sum()  # noqa: E731
    made = start(let={**LET, "z": lambda w, x: x @ w})
    made.line(r"\nu = \frac{\partial E}{\partial z}", lambda nu: nu, of=rest, wrt="z")
    made.line(r"= (y-t)\circ(1-y^2)", lambda y, t: (y - t) * (1 - y**2))
    assert made.check().ok
    assert made.lines[0].target == made.lines[1].target == (rest, ("z",))


def test_values_jacobians_hessians_and_trees():
    made = Derivation(
        "cube", lambda p: (p["a"] ** 3).sum() + p["b"], sample={"p": {"a": (2,), "b": ()}}
    )
    made.line("f", lambda p: sum(p["a"] ** 3) + p["b"])
    made.line("f'", lambda p: {"a": 3 * p["a"] ** 2, "b": 1.0}, wrt="p")
    assert made.check().ok
    second = Derivation("cube", lambda a: (a**3).sum(), wrt=("a", "a"), sample={"a": (2,)})
    assert second.line("f''", lambda a: np.diag(6 * a)).check().ok
    vector = Derivation("square", lambda a: a**2, wrt="a", sample={"a": (3,)})
    assert vector.line("J", lambda a: np.diag(2 * a)).check().ok


def test_an_erratum_must_fail():
    made = start()
    made.line(r"\nu x", lambda x, y, t: np.outer(x, y - t), wrong="the slope is missing")
    made.line(r"\nu x", lambda x, nu: np.outer(x, nu))
    report = made.check()
    assert report.ok
    assert not report.lines[0].holds
    assert not report.lines[0].departs
    assert "wrong as printed, as declared: the slope is missing" in str(report)


def test_an_erratum_that_holds_is_an_error():
    report = only(lambda x, nu: np.outer(x, nu), wrong="it is not")
    assert not report.ok
    assert report.lines[0].remark == "declared wrong (it is not), but it holds"


def test_printed_decimals():
    made = Derivation("π", lambda: jnp.asarray(np.pi), sample={})
    made.line("3.14", lambda: 3.14, decimals=2)
    made.line("3.142", lambda: 3.142, decimals=3)
    made.line("3.15", lambda: 3.15, decimals=2, wrong="misprint")
    made.line("3.141", lambda: 3.141, decimals=3, wrong="cut off, not rounded")
    assert made.check().ok


def test_rounding_is_no_mistake_and_a_mistake_is_no_rounding():
    """A quotient of differences loses six digits; single precision is not excused."""

    def quotient(slip):
        made = Derivation("quotient", lambda x: 2 * x + 1e-6, sample={"x": ()})
        return made.line("q", lambda x: ((x + 1e-6) ** 2 - x**2) / 1e-6 + slip).examine()

    assert 1e-12 < quotient(0.0).lines[0].deviation < 1e-8
    assert quotient(0.0).ok
    assert not quotient(1e-6).ok
    assert not only(lambda x, nu: np.outer(x, nu).astype(np.float32)).ok


def test_noise_of_ones_own_excuses_little():
    """A line, or a derivative, that jumps at the last digit of its input is no rounding."""

    def line(noise):
        made = Derivation("noisy", lambda x: 2.0 * x, sample={"x": ()})
        return made.line("2x", lambda x: 2 * x + noise * np.sin(1e17 * x)).examine()

    assert line(1e-13).ok
    assert not line(1e-7).ok
    jump = Derivation("jump", lambda x: jnp.where(x == 1.0, 1.0, 3.0), sample={"x": np.ones(2)})
    assert not jump.line("2", lambda: 2 * np.ones(2)).examine().ok


def test_a_derivative_that_is_zero_everywhere_is_remarked():
    made = Derivation("step", lambda x: jnp.where(x > 0, 1.0, 0.0), wrt="x", sample={"x": ()})
    report = made.line("0", lambda: 0.0).check()
    assert report.lines[0].vacuous
    assert report.lines[0].remark == "only that it is zero is verified"


def test_a_list_of_numbers_is_an_array():
    nested = only(lambda x, nu: [[nu[o] * x[i] for o in range(2)] for i in range(3)])
    assert nested.ok
    assert not only(lambda x, nu: [[nu[o] * x[i] for o in range(2)] for i in range(2)]).ok


def test_the_same_seed_gives_the_same_report():
    made = derivation((2, lambda x, nu: 2 * np.outer(x, nu)))
    assert str(made.examine(3)) == str(made.examine(3))
    assert made.examine(3).lines[1].deviation != made.examine(4).lines[1].deviation
    assert made.examine(3).seed == 3


def test_samples_are_shapes_draws_trees_and_constants():
    made = Derivation(
        "draw",
        lambda a: a.sum(),
        sample={"a": (2,), "b": lambda rng: rng.integers(3), "c": [(1,), 2.0], "d": np.ones(3)},
    )
    drawn = made.draw(np.random.default_rng(0))
    assert drawn["a"].shape == (2,)
    assert drawn["b"] in (0, 1, 2)
    assert drawn["c"][0].shape == (1,)
    assert drawn["c"][1] == 2.0
    assert drawn["d"].tolist() == [1, 1, 1]


# --- bad input: one clear sentence that names the derivation and the line ------------------------


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (
            lambda x, nu: np.outer(nu, x),
            "has shape (2, 3); the derivative has shape (3, 2); it is transposed",
        ),
        (lambda nu: nu, "has shape (2,); the derivative has shape (3, 2)"),
        (lambda nu: (nu, nu), "has the leaves [(2,), (2,)]; the derivative has [(3, 2)]"),
        (lambda x: 1 / 0, "raised ZeroDivisionError: division by zero"),
        (lambda x: x[7], "raised IndexError: index 7 is out of bounds for axis 0 with size 3"),
        (lambda x: undefined, "raised NameError: name 'undefined' is not defined"),  # noqa: F821
        (
            lambda z: z,
            "raised NameError: it asks for 'z', which is neither in sample nor in let; "
            "there are: w, x, t, y, nu",
        ),
    ],
)
def test_a_line_that_cannot_be_judged(function, sentence):
    report = derivation((2, function)).examine()
    assert report.lines[1].problem == f"derivation 'delta rule', line 2 {sentence}"
    assert not report.ok
    assert report.departure == 2
    assert report.lines[0].ok
    assert report.lines[2].ok
    assert sentence in str(report)


def test_an_erratum_that_raises_has_not_been_shown_to_fail():
    assert not only(lambda x: 1 / 0, wrong="it is").ok


def test_latex_that_does_not_parse():
    report = only(lambda x, nu: np.outer(x, nu), latex=r"\frac{x}")
    assert report.lines[0].problem == (
        r"derivation 'delta rule', line 1 has LaTeX that does not parse: \frac has no denominator"
    )
    assert r"\frac{x}" in str(report)


def test_a_derivation_without_lines():
    report = start().examine()
    assert report.problem == (
        "derivation 'delta rule' has no lines: add one with .line(latex, function)"
    )
    assert not report.ok
    with pytest.raises(DerivationMismatch, match="has no lines"):
        start().check()


def test_a_quantity_that_raises():
    made = Derivation("bad", lambda x: jnp.dot(x, jnp.ones(7)), wrt="x", sample={"x": (3,)})
    report = made.line("1", lambda: np.ones(3)).examine()
    assert report.problem is not None
    assert report.problem.startswith("derivation 'bad': the quantity raised TypeError: ")


def test_a_sub_function_that_raises_spoils_its_own_lines_only():
    made = derivation()
    made.line("1", lambda x: x, of=lambda x: jnp.dot(x, jnp.ones(7)), wrt="x")
    report = made.examine()
    assert [line.ok for line in report.lines] == [True, True, True, False]
    assert report.lines[3].problem is not None
    assert "line 4 is compared with a derivative that raised TypeError" in report.lines[3].problem


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"wrt": "q"}, "NameError: wrt names 'q', which is neither in sample nor in let"),
        ({"let": {"y": lambda q: q}}, "or a definition in let: NameError: it asks for 'q'"),
        ({"sample": {"w": (3, 2), "x": (3,)}}, "NameError: it asks for 't'"),
    ],
)
def test_symbols_that_do_not_exist(options, sentence):
    report = start(**options).line("1", lambda: np.ones(3)).examine()
    assert report.problem is not None
    assert sentence in report.problem
    assert "derivation 'delta rule'" in report.problem


def test_a_derivative_that_is_not_finite():
    made = Derivation("root", lambda x: jnp.sqrt(x - x), wrt="x", sample={"x": ()})
    report = made.line("0", lambda: 0.0).examine()
    assert report.lines[0].problem is not None
    assert "autodiff finds to be NaN or infinite" in report.lines[0].problem


def test_a_line_that_is_not_finite_deviates():
    report = only(lambda x, nu: np.outer(x, nu) * np.nan)
    assert not report.ok
    assert report.lines[0].deviation == np.inf


# --- what surrounds it ---------------------------------------------------------------------------


def test_check_raises_the_report():
    wrong = derivation((1, lambda x, nu: 2 * np.outer(x, nu)))
    with pytest.raises(DerivationMismatch) as error:
        wrong.check()
    assert isinstance(error.value, AssertionError)
    assert str(error.value) == str(wrong.examine())


def test_reports_are_frozen_and_plain():
    report = derivation().examine()
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.seed = 1  # type: ignore[misc]
    assert json.loads(json.dumps(dataclasses.asdict(report)))["lines"][0]["number"] == 1


def test_the_configuration_is_left_as_it_was():
    derivation().examine()
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == jnp.float32


def test_every_derivation_is_declared_with_its_file():
    before = len(declared())
    made = derivation()
    assert declared()[before:] == (made,)
    assert made.file == __file__


def test_plain_records_are_examined_too_and_not_declared():
    before = len(declared())
    plain = record.Derivation("square", lambda x: x**2, wrt="x", sample={"x": ()})
    assert examine_derivation(plain.line("2x", lambda x: 2 * x)).ok
    assert len(declared()) == before
