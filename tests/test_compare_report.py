"""A report: frozen, plain text, plain data, and the same again from the same seed."""

import dataclasses
import functools
import json
import math
import os
import pickle
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import GradientMismatch, Report, check_backward, examine
from handgrad.compare.report import Accuracy, Diagnosis, Element, Quantity

X = np.linspace(-1, 2, 6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def defaults():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def right(x, dy):
    return 2 * x * dy


def wrong(x, dy):
    return 3 * x * dy


def crashing(x, dy):
    raise ValueError("of the user")


def complex_wrong(z, dy):
    return 2 * dy * z


def square_modulus(z):
    return jnp.real(z * jnp.conj(z))


EXAMINATIONS = {
    "right": lambda: examine(right, jnp.square, X, kind="backward"),
    "wrong": lambda: examine(wrong, jnp.square, X, kind="backward"),
    "crashing": lambda: examine(crashing, jnp.square, X, kind="backward"),
    "kinked": lambda: examine(lambda x, dy: dy * (x >= 0), jax.nn.relu, 0 * X, kind="backward"),
    "nan": lambda: examine(lambda x, dy: dy * x / x, lambda x: 1.0 * x, 0 * X, kind="backward"),
    "function": lambda: examine(jnp.sin, jnp.cos, X),
    "complex": lambda: examine(complex_wrong, square_modulus, X + 1j, kind="backward"),
    "scalar": lambda: examine(lambda x: 3 * x, lambda x: x * x, np.float64(2), kind="gradient"),
    "none": lambda: examine(lambda x, dy: None, jnp.square, X, kind="backward"),
}
NAMES = list(EXAMINATIONS)


@functools.cache
def examined(name):
    return EXAMINATIONS[name]()


@pytest.mark.parametrize("name", NAMES)
def test_truth_of_a_report(name):
    assert examined(name).ok == (name in ("right", "kinked"))
    assert bool(examined(name)) == examined(name).ok


@pytest.mark.parametrize("part", [Report, Quantity, Element, Diagnosis, Accuracy])
def test_frozen(part):
    assert dataclasses.is_dataclass(part)
    report = examined("wrong")
    instance = {
        Report: report, Quantity: report.gradients[0], Element: report.gradients[0].worst,
        Diagnosis: report.diagnoses[0], Accuracy: examined("right").accuracy[0],
    }[part]  # fmt: skip
    for field in dataclasses.fields(part):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, field.name, None)


@pytest.mark.parametrize("name", NAMES)
def test_collections_are_tuples(name):
    report = examined(name)
    for field in ("outputs", "gradients", "diagnoses", "remarks", "accuracy"):
        assert isinstance(getattr(report, field), tuple)
    assert isinstance(hash(report), int)


@pytest.mark.parametrize("name", NAMES)
def test_plain_data(name):
    """Strict JSON, without nan and inf, which other languages do not read."""
    report = examined(name)
    data = report.to_dict()
    again = json.loads(json.dumps(data, allow_nan=False))
    assert again == data
    assert data["ok"] == report.ok
    assert data["name"] == report.name
    assert data["seed"] == 0
    assert [q["path"] for q in data["gradients"]] == [q.path for q in report.gradients]
    assert "error" not in data


@pytest.mark.parametrize("name", NAMES)
def test_text(name):
    text = str(examined(name))
    lines = text.splitlines()
    assert lines[0][0] == ("✓" if examined(name).ok else "✗")
    assert examined(name).name in lines[0]
    assert "seed 0" in lines[-1]
    assert all(line == line.rstrip() for line in lines)
    assert "0x" not in text  # no addresses: the text is the same in another process
    assert "\x1b" not in text
    assert "ShapedArray" not in text
    assert "np.float64" not in text


def test_text_of_a_failure():
    text = str(examined("wrong"))
    for words in (
        "✗ wrong: the gradient is wrong for x",
        "gradient of x (2×3): 6 of 6 elements differ, worst at [",
        "by hand", "autodiff", "numerical", "sides with autodiff", "ratio        1.5",
        "→ the gradient of x is 3/2 = 1.5 times the right one",
    ):  # fmt: skip
        assert words in text, words


def test_text_of_a_scalar():
    text = str(examined("scalar"))
    assert "gradient of x (scalar): 1 of 1 elements differ" in text
    assert "by hand      6" in text
    assert "autodiff     4" in text


def test_text_of_complex_numbers():
    assert "j" in next(line for line in str(examined("complex")).splitlines() if "by hand" in line)


def test_text_of_an_exception():
    text = str(examined("crashing"))
    assert "✗ crashing: not compared" in text
    assert "crashing raised ValueError: of the user" in text
    assert 'raise ValueError("of the user")' in text


def test_ratio_of_an_element():
    assert Element((0,), 6.0, 3.0).ratio == 2
    assert math.isnan(Element((0,), 6.0, 0.0).ratio)
    assert Element((0,), 2j, 1j).ratio == 2


def test_size_of_a_quantity():
    assert Quantity("x", (2, 3), "float32").size == 6
    assert Quantity("x", (), "float32").size == 1
    assert Quantity("x", (2, 0), "float32").size == 0


@pytest.mark.parametrize(
    ("hand", "autodiff", "ok"),
    [
        (0, 0, True),
        (8, 0, True),
        (8.1, 0, False),
        (100, 50, True),
        (101, 50, False),
        (np.inf, 1, False),
        (np.inf, np.inf, True),
        (np.nan, 1, False),
    ],
)
def test_what_counts_as_accurate(hand, autodiff, ok):
    assert Accuracy("x", "float32", hand, autodiff).ok is ok


def test_accuracy_is_another_verdict():
    lossy = Accuracy("x", "float32", np.inf, 1.0)
    good, bad = Quantity("x", (), "float32"), Quantity("x", (), "float32", wrong=1)
    assert Report("f", "backward", 0, gradients=(good,), accuracy=(lossy,)).ok
    assert Report("f", "backward", 0, gradients=(good,), accuracy=(lossy,)).accurate is False
    assert not Report("f", "backward", 0, gradients=(bad,), accuracy=()).ok
    assert Report("f", "backward", 0, gradients=(bad,)).accurate is None


def test_verified_counts_what_was_found_right():
    quantities = (
        Quantity("x", (2,), "float32"),
        Quantity("w", (2,), "float32", wrong=1),
        Quantity("b", (2,), "float32", vacuous=True),
    )
    assert Report("f", "backward", 0, gradients=quantities).verified == 1
    assert Report("f", "backward", 0, gradients=quantities, problem="stopped").verified == 0


def test_a_mismatch_can_be_sent_between_processes():
    """As pytest-xdist and process pools do."""
    error = GradientMismatch(examined("wrong"))
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.report == examined("wrong")


@pytest.mark.parametrize("name", NAMES)
def test_reports_can_be_sent_between_processes(name):
    again = pickle.loads(pickle.dumps(examined(name)))
    assert str(again) == str(examined(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_again(name):
    again = EXAMINATIONS[name]()
    assert str(again) == str(examined(name))
    assert json.dumps(again.to_dict()) == json.dumps(examined(name).to_dict())


def test_what_ran_before_does_not_matter():
    """Neither the cache of traces nor other checks change a report."""
    for _ in range(2):
        examine(right, jnp.square, X + 1, kind="backward", seed=7)
        assert str(examine(wrong, jnp.square, X, kind="backward")) == str(examined("wrong"))


SCRIPT = """
import jax, jax.numpy as jnp, numpy as np
from handgrad.compare import examine

def standardize(x):
    c = x - x.mean(-1, keepdims=True)
    return c / jnp.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)

def backward(x, dy):
    c = x - x.mean(-1, keepdims=True)
    r = 1 / jnp.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)
    return r * (dy - c * r * (dy * c * r).mean(-1, keepdims=True))

x = np.sin(np.arange(12.0, dtype=np.float32)).reshape(3, 4)
print(examine(backward, standardize, x, kind="backward", seed=5))
print(examine(lambda x, dy: dy * (x >= 0), jax.nn.relu, 0 * x, kind="backward", seed=5))
"""


def test_another_process_says_the_same(tmp_path, capsys):
    """With other hashes, other addresses and an empty cache."""
    script = tmp_path / "derivation.py"
    script.write_text(SCRIPT)
    runpy.run_path(str(script))
    here = capsys.readouterr().out
    there = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "2"},
    ).stdout
    assert here == there
    assert "✗ backward" in here
    assert "seed 5" in here


def test_raised_and_returned_are_the_same():
    with pytest.raises(GradientMismatch) as caught:
        check_backward(wrong, jnp.square, X)
    assert caught.value.report == examine(wrong, jnp.square, X, kind="backward")
