"""The accuracy on a platform of one's choice, at the highest and at the default precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad.compare import accuracy, console, devices
from handgrad.compare.check import examine
from handgrad.compare.cli import main
from handgrad.compare.report import Accuracy
from handgrad.compare.suite import Item, Verdict

RNG = np.random.default_rng(0)
X, W = RNG.standard_normal((4, 5)), RNG.standard_normal((5, 3))


def product(x, w):
    return x @ w


@jax.custom_vjp
def coarse(x, w):
    """As on a platform whose products keep 8 bits unless the highest precision is asked for."""
    return product(x, w)


def rounded(x):
    if jax.config.jax_default_matmul_precision == "highest":
        return x
    return x.astype(jnp.bfloat16).astype(x.dtype)


coarse.defvjp(
    lambda x, w: (product(x, w), (x, w)),
    lambda kept, dy: (rounded(dy @ kept[1].T), rounded(kept[0].T @ dy)),
)


def test_the_highest_precision_decides_and_the_default_stands_beside_it():
    report = examine(coarse, product, X, W, platform="cpu")
    assert report.ok
    assert report.accurate
    assert report.device == "cpu"
    assert max(a.hand for a in report.accuracy) < 8
    assert min(a.hand for a in report.by_default) > 1e3
    text = str(report)
    assert "in float32 on cpu: accurate" in text
    assert "at cpu's default precision of matrix products: error" in text
    assert len(report.to_dict()["by_default"]) == 2


def test_without_a_platform_the_settings_of_the_user_decide():
    report = examine(coarse, product, X, W)
    assert report.ok
    assert not report.accurate
    assert report.by_default == ()
    assert "default precision" not in str(report)


def test_the_code_runs_on_the_device_with_both_precisions(monkeypatch):
    seen = []

    def run(settings, *rest, right=accuracy._run):
        seen.append((settings[jax.default_device], settings[jax.default_matmul_precision]))
        return right(settings, *rest)

    monkeypatch.setattr(accuracy, "_run", run)
    assert examine(product, product, X, W, platform="cpu").ok
    cpu = jax.local_devices(backend="cpu")[0]
    assert sorted(seen, key=str) == sorted([(cpu, "highest")] * 2 + [(cpu, None)] * 2, key=str)


def absent():
    here = {d.platform for d in jax.local_devices()} | {"cpu"}
    return next(name for name in ("tpu", "gpu") if name not in here)


def test_a_platform_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ValueError, match=f"JAX finds no {absent()} here, only: .*cpu; pip install"):
        examine(product, product, X, W, platform=absent())
    with pytest.raises(ValueError, match="the platform is 'cuda'; it must be one of: cpu, gpu, tp"):
        devices.first("cuda")


def test_the_command_ends_with_2_where_the_platform_is_not_there(capsys):
    name = absent()
    assert main(["check", "--platform", name, "-k", "activations.relu"]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert f"--platform {name} is not to be had: JAX finds no {name} here, only: " in err
    assert err.count("\n") == 1


def test_the_command_shows_both_precisions_and_how_to_reproduce_it(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from handgrad.compare import backward_of\n"
        "from handgrad.compare.cases import normal\n"
        "@backward_of(lambda x, w: x @ w, normal(2, 3), normal(3, 4))\n"
        "def right(x, w, dy):\n    return dy @ w.T, x.T @ dy\n"
        "@backward_of(lambda x, w: x @ w, normal(2, 3), normal(3, 4))\n"
        "def wrong(x, w, dy):\n    return dy @ w.T, 2 * x.T @ dy\n"
    )
    assert main(["check", "mine.py", "--platform", "cpu", "-j", "1"]) == 1
    out = capsys.readouterr().out
    assert "at cpu's default precision of matrix products: error" in out
    assert "reproduce: handgrad check mine.py::wrong --seed 0 --platform cpu" in out


def test_the_table_has_a_column_for_the_default_precision(capsys):
    item = Item("dense.affine", "dense", "affine", "3×5")
    small, large = Accuracy("x", "float32", 1.0, 1.0), Accuracy("x", "float32", 4096.0, 4000.0)
    verdict = Verdict("right", "✓", 1, accuracy=(small,), by_default=(small, large))
    console.output().print(console.case_table({item: verdict}))
    out = capsys.readouterr().out
    assert "at the platform's default precision" in out
    assert "4.1e+03 ulp (4e+03)" in out
