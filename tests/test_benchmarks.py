"""The benchmarks measure what they say; their figures are not held against anything."""

import functools
import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from handgrad.compare import cases

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bench(monkeypatch):
    return script("check_speed", monkeypatch)


def case_of(name):
    return next(case for case in cases.load() if case.id == name)


@pytest.mark.parametrize(
    ("name", "leaf", "index"), [("dense.affine", 1, (4, 2)), ("networks.mlp", 2, (1, 0))]
)
def test_one_element_is_wrong_by_a_billionth(bench, name, leaf, index):
    case = case_of(name)
    with jax.enable_x64(True):
        args = jax.tree.map(jax.numpy.asarray, case.draw())
        dy = jax.numpy.ones_like(getattr(bench.manual, case.function)(*args, **case.config))
        right, wrong = (
            [np.asarray(x) for x in jax.tree.leaves(backward(*args, dy))]
            for backward in (bench.backward_of(case), bench.backward_of(case, leaf, index))
        )
    for k, (a, b) in enumerate(zip(right, wrong, strict=True)):
        differing = np.argwhere(a != b).tolist()
        assert differing == ([list(index)] if k == leaf else [])
    assert wrong[leaf][index] / right[leaf][index] - 1 == pytest.approx(1e-9, rel=1e-6)


@pytest.mark.parametrize("name", ["attention.attention", "normalization.layer_norm[no scale]"])
def test_a_cotangent_for_each_argument_that_is_given(bench, name):
    case = case_of(name)
    args = jax.tree.map(jax.numpy.asarray, case.draw())
    y = getattr(bench.manual, case.function)(*args, **case.config)
    assert len(bench.backward_of(case)(*args, jax.numpy.ones_like(y))) == len(args)


def test_false_alarms_are_counted_and_named(bench, monkeypatch, capsys):
    def examine(item, seed, scale):
        right = item.topic != "dense" or scale != 1
        return bench.suite.Verdict("right" if right else "wrong", "")

    monkeypatch.setattr(bench.suite, "examine", examine)
    assert bench.main(["--only", "alarms", "--samples", "400"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {line.split(" | ")[0]: line.split(" | ")[1] for line in lines if "false" in line}
    counted = [int(cell.split()[2].rstrip("(")) for cell in found.values()]
    assert sum(counted) == 400
    tiny, middle, large = found.values()
    assert (tiny[0], large[0]) == ("0", "0")
    assert "dense.affine" in middle
    assert not middle.startswith("0 ")


def test_a_planted_error_that_nobody_finds_is_missed(bench, monkeypatch, capsys):
    class Blind:
        ok, gradients = True, ()

    monkeypatch.setattr(bench, "examine", lambda *args, **options: Blind)
    case = case_of("dense.affine")
    monkeypatch.setattr(bench.cases, "load", lambda: [case])
    assert bench.main(["--only", "planted"]) == 0
    out = capsys.readouterr().out
    assert "| 0 of 3 (dense.affine, gradient 0 at [" in out
    assert "found wrong | 0 |" in out


def test_the_layers_are_new_each_time(bench):
    """New functions and shapes: nothing that a check remembers can serve the next."""
    for layer in bench.LAYERS:
        (_, *old, small), (_, *new, large) = (
            layer(more, np.random.default_rng(0)) for more in (0, 1)
        )
        assert not set(map(id, old)) & set(map(id, new))
        shapes = [[np.shape(leaf) for leaf in jax.tree.leaves(args)] for args in (small, large)]
        assert shapes[0] != shapes[1]


def test_the_time_of_a_wrong_verdict_is_not_given(bench):
    how, backward, plain, args = bench.layer_norm(0, np.random.default_rng(0))
    assert bench.seconds(lambda: bench.examine(backward, plain, *args, **how)) > 0
    with pytest.raises(SystemExit, match="the gradient is wrong for x"):
        bench.seconds(
            lambda: bench.examine(
                lambda *args: (2 * backward(*args)[0], *backward(*args)[1:]), plain, *args, **how
            )
        )


def test_an_error_between_the_one_sided_derivatives_is_no_miss(bench, monkeypatch, capsys):
    case = case_of("activations.leaky_relu[kink]")
    monkeypatch.setattr(bench.cases, "load", lambda: [case])
    monkeypatch.setattr(bench.np, "argwhere", lambda gradient: [[1]])  # where x is 0
    assert bench.main(["--only", "planted"]) == 0
    out = capsys.readouterr().out
    assert "caught | 0 of 0 |" in out
    assert "convention | 1 (activations.leaky_relu[kink], gradient 0 at [1]) |" in out


def test_every_operation_is_timed_against_the_same_function(monkeypatch):
    operations = script("operations", monkeypatch)
    rows = operations.rows()
    timed = {row.name.split(",")[0] for row in rows}
    assert timed == {case.function for case in cases.load()} - {"recurrence"}  # rnn, lstm, gru
    for row in rows:
        args = jax.eval_shape(lambda row=row: row.draw(0))
        hand, auto = (jax.eval_shape(f, *args) for f in (row.hand, row.auto))
        shapes = [[x.shape for x in jax.tree.leaves(side)] for side in (hand, auto)]
        assert shapes[0] == shapes[1], row.name


def test_a_row_says_how_the_two_compare(monkeypatch, capsys):
    operations = script("operations", monkeypatch)
    assert operations.main(["-k", "relu6", "--rounds", "1", "--processes", "1"]) == 0
    (line,) = [r for r in capsys.readouterr().out.splitlines() if r.startswith("| relu6")]
    _, name, ours, autodiff, ratio, *_ = [cell.strip() for cell in line.split("|")]
    assert name == "relu6, 1024×1024"
    # both are rounded to 0.01 of about 0.3 ms
    assert float(autodiff) / float(ours) == pytest.approx(float(ratio[:-1]), abs=0.05)


def test_a_bound_is_that_of_the_median_of_the_processes(monkeypatch):
    operations = script("operations", monkeypatch)

    def cells(ratios, memory):
        same = {"ours": 1e-3, "autodiff": 2e-3, "temporary": 3e6, "least": 1.5}
        same |= {"of_autodiff": 4e6, "memory": memory}
        line = operations.line("lstm", [same | {"ratio": ratio} for ratio in ratios])
        _, name, _, _, ratio, between, *_, kept, _ = [cell.strip() for cell in line.split("|")]
        return name, ratio, between, kept

    assert cells([1.4, 1.6, 1.5], 0.75) == ("lstm", "1.50×", "1.40–1.60", "yes")
    assert cells([1.4, 1.7, 1.49], 0.75) == ("lstm", "1.49×", "1.40–1.70", "**no**")
    assert cells([1.4, 1.6, 1.5], 0.74) == ("lstm", "1.50×", "1.40–1.60", "**no**")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux binds to a core")
def test_one_process_more_has_one_core(monkeypatch, capsys):
    operations = script("operations", monkeypatch)
    cores = functools.partial(os.sched_getaffinity, 0)
    with operations.process(None, one_core=True) as one, operations.process(None) as free:
        assert (len(one.apply(cores)), free.apply(cores)) == (1, cores())

    def sweep(names, rounds, platform, one_core):
        figures = dict.fromkeys(["ours", "autodiff", "temporary", "of_autodiff", "least"], 1.0)
        return [figures | {"memory": None, "ratio": 5.0 if one_core else 2.0} for _ in names]

    monkeypatch.setattr(operations, "sweep", sweep)
    assert operations.main(["-k", "relu6"]) == 0
    (line,) = [r for r in capsys.readouterr().out.splitlines() if r.startswith("| relu6")]
    assert [cell.strip() for cell in line.split("|")][4:7] == ["2.00×", "2.00–2.00", "5.00×"]


@pytest.mark.parametrize(
    ("environment", "words", "error"),
    [
        ({"JAX_PLATFORMS": "nowhere"}, [], "there is no such platform here: "),
        ({}, ["--platform", "nowhere"], "there is no nowhere platform here: "),
    ],
)
def test_only_the_processes_that_measure_take_a_device(environment, words, error):
    """Another would keep its memory from them; here it would end with a traceback."""
    result = subprocess.run(
        [sys.executable, FOLDER / "operations.py", "-k", "relu6", *words],
        env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert f"operations.py: error: {error}" in result.stderr
    assert "Traceback" not in result.stderr
