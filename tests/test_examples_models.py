"""A Flax and an Equinox model with parts by hand: same loss, same gradients as with their own."""

import contextlib
import importlib
import pathlib
import runpy
import sys

import jax
import jax.numpy as jnp
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "examples"


@pytest.fixture(params=["flax", "equinox"], scope="module")
def module(request):
    """The example, and what it gives with the library's own parts."""
    name = request.param
    pytest.importorskip(name, reason=f"{name} is not installed: pip install handgrad[models]")
    with pytest.MonkeyPatch.context() as patch, as_users_have_it():
        patch.syspath_prepend(str(FOLDER))
        example = importlib.import_module(f"{name}_model")
        yield example, example.loss_and_gradients(by_hand=False)
    sys.modules.pop(f"{name}_model", None)


@contextlib.contextmanager
def as_users_have_it():
    """These libraries let JAX promote ranks."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def model(module, monkeypatch):
    """The example; the library's own parts are not run again."""
    example, theirs = module
    right = example.loss_and_gradients
    monkeypatch.setattr(
        example, "loss_and_gradients", lambda *, by_hand: right(by_hand=True) if by_hand else theirs
    )
    with as_users_have_it():
        yield example


def test_loss_and_gradients_are_the_same(model, capsys):
    assert model.main() == 0
    out = capsys.readouterr().out
    assert out.startswith("loss ")
    assert "gradients differ by" in out


@pytest.mark.parametrize("part", ["gelu", "layer_norm", "attention"])
def test_each_part_by_hand_is_used_and_its_gradient_matters(model, monkeypatch, part, capsys):
    """With a planted mistake of one in a hundred in what goes back through it."""
    right = getattr(model.manual, part)

    def wrong(x, *rest, **config):
        x = x + 1e-2 * (x - jax.lax.stop_gradient(x))  # the same value, another derivative
        return right(x, *rest, **config)

    monkeypatch.setattr(model.manual, part, wrong)
    assert model.main() == 1
    assert "gradients differ by" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["flax", "equinox"])
def test_without_the_library_it_is_said_what_to_install(name, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / f"{name}_model.py"))
    assert stop.value.code == 2
    said = f"{name}_model.py needs {name.title()}: pip install 'handgrad[models]'\n"
    assert capsys.readouterr().err == said


def test_trees_that_differ_are_told_apart(model):
    one, other = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([1.0, 2.5])}
    assert model.departure(one, one) == 0
    assert model.departure(one, other) == pytest.approx(0.2)
