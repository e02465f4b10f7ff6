"""The examples do what their first lines say, and say what is wrong with what they are given."""

import importlib.util
import pathlib
import sys

import jax
import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


def example(name):
    """The module, anew for each test."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def digits():
    return example("train_digits")


@pytest.fixture
def run(digits, tmp_path, capsys, monkeypatch):
    """The exit code, standard output and standard error of `train_digits.py`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words):
        try:
            code = digits.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["batch", "minibatch", "stochastic"])
def test_the_default_training_agrees_with_autodiff_and_learns(digits, method):
    """Every loss within rounding of autodiff's, and at least 96 % of the test digits right."""
    plan, epochs = digits.METHODS[method], []
    curves = digits.train(
        digits.embedded(0), plan, plan.epochs_of_digits, [64], 0, lambda: epochs.append(1)
    )
    assert len(epochs) == plan.epochs_of_digits
    assert len(curves.hand) == len(curves.autodiff) >= plan.epochs_of_digits
    assert curves.departure < 1e-4
    assert curves.agree
    assert curves.hand[-1] < curves.hand[0]
    assert curves.accuracy >= 0.96


def test_the_command_shows_its_progress_and_saves_the_picture(run):
    code, out, err = run("--epochs", 2, "--hidden", 8)
    assert code == 0
    assert not err
    assert "1437 digits to train on, 360 to test; layers 64 → 8 → 10" in out
    assert out.count("2/2") == 3  # a bar for each descent
    assert out.count("✓") == 3
    assert "the curves are in train_digits.png" in out
    assert pathlib.Path("train_digits.png").read_bytes().startswith(PNG)


def test_a_gradient_that_is_wrong_by_a_ten_thousandth_is_found(digits, run, monkeypatch):
    def wrong(params, x, labels, right=digits.gradient_by_hand):
        loss, gradient = right(params, x, labels)
        return loss, jax.tree.map(lambda dw: 1.0001 * dw, gradient)

    monkeypatch.setattr(digits, "gradient_by_hand", wrong)
    code, out, err = run("--epochs", 3, "--method", "minibatch")
    assert code == 1
    assert "✗" in out
    assert "departs from autodiff's by more than rounding: mini-batch" in err


def test_the_gradient_by_hand_does_without_autodiff(digits, monkeypatch):
    """Only the twin may differentiate: the training by hand runs where JAX's derivatives raise."""
    for name in ("grad", "value_and_grad", "vjp"):
        monkeypatch.setattr(jax, name, None)
    params = digits.manual.init_mlp([4, 3, 10], key=jax.random.key(0))
    x, labels = np.ones((5, 4), np.float32), np.arange(5, dtype=np.int32)
    loss, slopes = digits.gradient_by_hand(params, x, labels)
    assert np.isfinite(loss)
    assert jax.tree.map(np.shape, slopes) == jax.tree.map(np.shape, params)


# --- what --mnist reads --------------------------------------------------------------------------


def arrays(**changes):
    """Images of two grey levels a class, easily told apart, and what is to be changed of them."""
    labels = np.tile(np.arange(10, dtype=np.uint8), 30)
    images = np.zeros((300, 28, 28), np.uint8)
    images[np.arange(300), labels] = 255  # row k for the digit k
    parts = {"x_train": images, "y_train": labels, "x_test": images[:50], "y_test": labels[:50]}
    return {name: array for name, array in (parts | changes).items() if array is not None}


def test_a_file_like_mnist_is_learnt(run, tmp_path):
    np.savez_compressed(tmp_path / "mnist.npz", **arrays())
    code, out, err = run("--mnist", "mnist.npz", "--method", "minibatch", "--out", "m.svg")
    assert (code, err) == (0, "")
    assert "300 MNIST to train on, 50 to test; layers 784 → 64 → 10" in out
    assert "100.00%" in out
    assert "<svg" in pathlib.Path("m.svg").read_text("utf-8")


@pytest.mark.parametrize("kind", ["int64", "float32"])
def test_images_of_other_types_are_the_same_digits(digits, tmp_path, kind):
    images = arrays()["x_train"]
    other = images.astype(kind) / (np.float32(255) if kind == "float32" else 1)
    for name, x in (("bytes", images), ("other", other.astype(kind))):
        np.savez(tmp_path / f"{name}.npz", **arrays(x_train=x))
    as_bytes, as_other = (digits.mnist(str(tmp_path / f"{n}.npz")) for n in ("bytes", "other"))
    np.testing.assert_array_equal(as_bytes.x_train, as_other.x_train)
    assert as_other.x_train.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"y_train": None, "x_test": None}, "has no y_train, x_test; it must hold the arrays"),
        ({"y_train": np.zeros(299, int)}, "x_train has shape (300, 28, 28) and y_train (299,)"),
        ({"x_test": np.zeros((50, 20, 28))}, "784 pixels and those of x_test 560"),
        ({"x_train": np.zeros((300, 0))}, "they must be (samples, height, width)"),
        ({"y_train": np.full(300, 10)}, "y_train must hold whole numbers from 0 to 9"),
        ({"y_test": np.zeros(50)}, "y_test must hold whole numbers from 0 to 9"),
        ({"x_train": np.full((300, 28, 28), 7.0)}, "from 0 to 255, or fractions between 0 and 1"),
        ({"x_train": np.full((300, 28, 28), 256)}, "from 0 to 255, or fractions between 0 and 1"),
        ({"x_train": np.full((300, 784), np.nan)}, "from 0 to 255, or fractions between 0 and 1"),
        ({"x_train": np.full((300, 784), "1")}, "from 0 to 255, or fractions between 0 and 1"),
        ({"x_train": np.full((300, 784), None)}, "cannot be read as an .npz file of arrays"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(run, tmp_path, changes, sentence):
    np.savez(tmp_path / "bad.npz", **arrays(**changes))
    code, out, err = run("--mnist", "bad.npz")
    assert (code, out) == (2, "")
    assert err.startswith("train_digits.py: bad.npz")
    assert sentence in err
    assert err.count("\n") == 1  # one sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "there is no file bad.npz"),
        (b"", "bad.npz is not an .npz file"),
        (b"x_train = 5", "bad.npz is not an .npz file"),
    ],
)
def test_what_is_no_such_file_is_named(run, tmp_path, content, sentence):
    if content is not None:
        (tmp_path / "bad.npz").write_bytes(content)
    code, _, err = run("--mnist", "bad.npz")
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "curves.pgn"], "--out is curves.pgn; it must end in .png, .svg, .pdf"),
        (["--out", "nowhere/curves.png"], "there is no folder nowhere"),
        (["--epochs", "0"], "'0' is not a whole number from 1 on"),
        (["--seed", "-3"], "'-3' is not a whole number from 0"),
        (["--hidden", "many"], "'many' is not a whole number from 1 on"),
        (["--method", "adam"], "invalid choice: 'adam'"),
    ],
)
def test_words_that_make_no_sense_are_named_before_training(run, words, sentence):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert sentence in err


# --- what is not installed -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "missing", "libraries"),
    [
        ("descent", "--out x.png", "matplotlib sklearn", "matplotlib and scikit-learn"),
        ("train_digits", "", "sklearn", "scikit-learn"),
        ("train_digits", "--mnist mnist.npz", "matplotlib sklearn", "matplotlib"),
        ("train_cnn", "", "matplotlib sklearn", "matplotlib and scikit-learn"),
        ("train_language_model", "", "matplotlib sklearn", "matplotlib"),
    ],
)
def test_a_library_that_is_missing_is_named_before_any_work(
    name, words, missing, libraries, monkeypatch, capsys
):
    for module in missing.split():
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as stop:
        example(name).main(words.split())
    assert stop.value.code == 2
    said = f"{name}.py needs {libraries}: pip install 'handgrad[examples]'\n"
    assert capsys.readouterr() == ("", said)


# --- descent.py: what it draws is in test_descent.py ---------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "x.abc"], "it must end in .png, .svg or .pdf"),
        (["--out", "nowhere/x.png"], "there is no folder nowhere"),
        (["--out", "x.png", "--samples", "1798"], "--samples must lie in 1 … 1797"),
        (["--out", "x.png", "--epochs", "0"], "--epochs be at least 1"),
    ],
)
def test_words_that_make_no_sense_to_descent_are_named(words, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        example("descent").main(words)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
