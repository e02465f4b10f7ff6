"""The trainings of train_cnn.py and train_language_model.py: by hand, beside a twin by autodiff."""

import io
import pathlib
import sys

import jax
import numpy as np
import pytest
from rich.console import Console

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def examples(monkeypatch):
    """Where `import train_cnn` finds it, as `python examples/train_cnn.py` does."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("twins", "train_cnn", "train_language_model"):
        sys.modules.pop(name, None)


@pytest.fixture
def cnn(examples):
    import train_cnn

    return train_cnn


@pytest.fixture
def lm(examples):
    import train_language_model

    return train_language_model


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """The exit code, standard output and standard error of an example."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(module, *words):
        try:
            code = module.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


def test_the_cnn_agrees_with_autodiff_and_learns(cnn, run):
    """Three passes: every loss within rounding of autodiff's, and two of three digits right."""
    code, out, err = run(cnn, "--epochs", 3)
    assert (code, err) == (0, "")
    assert "1437 digits to train on, 360 to test" in out
    assert "132/132" in out
    row = next(line for line in out.splitlines() if "│ convolutional" in line)
    steps, first, last, right, departure, _ = (cell.strip() for cell in row.split("│")[2:-1])
    assert steps == "132"
    assert float(last) < 0.6 * float(first)
    assert float(right.rstrip("%")) > 66
    assert "✓" in departure
    assert float(departure.split()[0]) < 1e-4
    assert pathlib.Path("train_cnn.png").read_bytes().startswith(PNG)


def test_the_language_models_agree_with_autodiff_and_learn(lm, run):
    words = "--steps 20 --batch 4 --time 16 --width 16".split()
    code, out, err = run(lm, *words, "--out", "curves.svg")
    assert (code, err) == (0, "")
    for name in ("lstm", "transformer"):
        row = next(line for line in out.splitlines() if f"│ {name}" in line)
        steps, first, last, bits, departure, _ = (cell.strip() for cell in row.split("│")[2:-1])
        assert steps == "20"
        assert float(last) < float(first) - 0.5
        assert float(bits) == pytest.approx(float(last) / np.log(2), abs=0.01)
        assert "✓" in departure
    assert "<svg" in pathlib.Path("curves.svg").read_text("utf-8")


def test_a_gradient_that_is_wrong_by_a_thousandth_is_found(lm, run, monkeypatch):
    model = lm.MODELS["lstm"]

    def wrong(params, tokens, targets):
        loss, gradient = model.by_hand(params, tokens, targets)
        return loss, gradient | {"w": gradient["w"] + 1e-3 * gradient["w"][::-1]}

    monkeypatch.setitem(lm.MODELS, "lstm", model._replace(by_hand=wrong))
    code, out, err = run(lm, *"--model lstm --steps 10 --batch 4 --time 16 --width 16".split())
    assert code == 1
    assert "✗" in out
    assert "by hand and by autodiff part by more than rounding: lstm" in err


def test_the_gradients_by_hand_do_without_autodiff(cnn, lm, monkeypatch):
    """Only the twins may differentiate: by hand it runs where JAX's derivatives raise."""
    key = jax.random.key(0)
    images, labels = np.ones((2, 10, 10, 1), np.float32), np.arange(2, dtype=np.int32)
    tokens = np.arange(6, dtype=np.int32).reshape(2, 3)
    calls = [(cnn.gradient_by_hand, cnn.first_weights((2, 3), 4, key), images, labels)]
    calls += [(m.by_hand, m.first_weights(8, 3, key), tokens, tokens) for m in lm.MODELS.values()]
    for name in ("grad", "value_and_grad", "vjp"):
        monkeypatch.setattr(jax, name, None)
    for gradient, params, *batch in calls:
        loss, slopes = jax.jit(gradient)(params, *batch)
        assert np.isfinite(loss)
        assert jax.tree.map(np.shape, slopes) == jax.tree.map(np.shape, params)


def test_the_tables_fit_into_80_columns(lm):
    losses = np.linspace(1.0, 0.5, 100)
    results = {"convolutional": lm.twins.Curves(losses, losses, losses + 1e-9, None)}
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(lm.twins.table(results, {"convolutional": {"test accuracy": "98.89%"}}))
    text = console.export_text()
    assert "…" not in text
    assert "│ convolutional │   100 │ 1.0000 │ 0.5" in text
    assert "0.0e+00 ✓" in text


def test_the_text_is_that_of_the_repository(lm):
    source = lm.text()
    assert bytes(source[:10]) == b"# handgrad"
    assert b"def affine(" in bytes(source)
    ((tokens, targets),) = lm.batches(source, 1, 2, 5, seed=0)
    assert tokens.shape == targets.shape == (2, 5)
    np.testing.assert_array_equal(tokens[:, 1:], targets[:, :-1])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--out curves.pgn", "curves.pgn must end in .png, .svg, .pdf"),
        ("--out nowhere/curves.png", "there is no folder nowhere"),
        ("--steps 0", "'0' is not a whole number from 1 on"),
        ("--seed -3", "'-3' is not a whole number from 0"),
        ("--model gru", "invalid choice: 'gru'"),
        ("--width 30", "--width is 30; it must be a multiple of 4"),
        ("--time 99999999", "--time is 99999999, and the text has"),
    ],
)
def test_words_that_make_no_sense_are_named_before_training(lm, run, words, sentence):
    code, out, err = run(lm, *words.split())
    assert (code, out) == (2, "")
    assert sentence in err
