"""The experiments: each claim holds in what was measured, and each leaves a picture."""

import sys

import numpy as np
import pytest

from handgrad.compare import figures
from handgrad.compare.figures import sawtooth, truncation
from handgrad.compare.figures.operations import walked

MEASURED = {  # of every experiment the number that decides its claim, and what it must be
    "truncation": ("slope of central differences", 1.95, 2.05),
    "contraction": ("largest ratio of two errors, η = 0.5 · 2/λmax", 0.0, 0.95),
    "xor": ("errors of 4, 2-2-1", 0, 0),
    "width": ("largest error, width 32", 0, 0.1),
    "sawtooth": ("slopes at depth 8", 256, 256),
    "operations": ("backprop / forward, depth 16", 2, 3.5),
    "descent": ("accuracy, mini-batch", 0.95, 1),
    "lag": ("gradient at lag 50, tanh, ‖W‖ = 0.9", 0, 1e-3),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    told = []
    folder = tmp_path_factory.mktemp("pictures") / "new"
    results = figures.save_all(folder, progress=lambda *args: told.append(args))
    assert told == [(name, i, 8) for i, name in enumerate(figures.EXPERIMENTS)]
    return results


@pytest.mark.parametrize("name", figures.EXPERIMENTS)
def test_the_claim_holds_in_what_was_measured(saved, name):
    (result,) = [r for path, r in saved.items() if path.stem == name]
    assert result.holds, result
    assert str(result).startswith(f"✓ {result.claim} ")
    number, low, high = MEASURED[name]
    assert low <= result.measured[number] <= high


def test_every_experiment_leaves_a_picture(saved):
    assert [path.stem for path in saved] == list(figures.EXPERIMENTS)
    for path in saved:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_every_experiment_is_about_one_claim_and_says_so_first():
    for name, module in figures.experiments().items():
        claim, colon, what = (module.__doc__ or "").partition(": ")
        assert all((colon, claim.isalnum(), what)), name


def test_a_claim_that_fails_is_seen_to_fail(monkeypatch):
    """A forward difference for the central one: its slope is 1, and the experiment says no."""
    real = np.polyfit
    monkeypatch.setattr(np, "polyfit", lambda *args: np.minimum(real(*args), 1.0))
    result = truncation.run(0)
    assert not result.holds
    assert str(result).startswith("✗ A3")


def test_pieces_are_counted():
    x = np.linspace(0, 1, 65)
    assert [sawtooth.slopes(sawtooth.deep(x, k), x) for k in (1, 2, 3)] == [2, 4, 8]
    assert sawtooth.slopes(x, x) == 1


def test_paths_are_counted_by_walking_them():
    assert [walked(3, depth) for depth in (1, 2, 3)] == [3, 18, 81]


def test_the_seed_decides():
    assert truncation.run(1).measured == truncation.run(1).measured
    assert truncation.run(1).measured != truncation.run(2).measured


@pytest.mark.parametrize("missing", ["matplotlib", "sklearn"])
def test_without_a_library_it_is_said_what_to_install(missing, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'handgrad\[examples\]'"):
        figures.save_all(tmp_path / "none")
    assert not (tmp_path / "none").exists()
