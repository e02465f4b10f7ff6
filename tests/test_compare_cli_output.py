"""Where the command writes: reports for programs to the standard output, words beside them."""

import contextlib
import io
import json
import threading
import types
from xml.etree import ElementTree

import pytest
from rich.console import Console

from handgrad.compare import cli, console, patience, suite
from handgrad.compare.report import Accuracy

CHECK = ["check", "-k", "activations.identity", "-j", "1"]


def test_json_for_a_pipe(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*CHECK, "--json", "-"]) == 0
    out, err = capfdbinary.readouterr()
    assert {case["function"] for case in json.loads(out)["cases"]} == {"identity"}
    assert "2 cases: right" in err.decode()
    assert not list(tmp_path.iterdir())


def test_junit_for_a_pipe(tmp_path, monkeypatch, capfdbinary):
    monkeypatch.chdir(tmp_path)
    assert cli.main([*CHECK, "--junit", "-", "--json", "o.json"]) == 0
    out, err = capfdbinary.readouterr()
    assert len(list(ElementTree.fromstring(out.decode()).iter("testcase"))) == 2
    assert "2 cases: right" in err.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["o.json"]


def test_a_closed_output_is_no_mistake(monkeypatch):
    monkeypatch.setattr("sys.stdout", None)  # handgrad list >&-
    assert cli.main(["list"]) == 0


def test_both_cannot_have_it(capsys):
    assert cli.main([*CHECK, "--junit", "-", "--json", "-"]) == 2
    assert capsys.readouterr().err == (
        "handgrad: --json - and --junit - cannot share the standard output; name a file\n"
    )


@pytest.mark.parametrize("name", ["check", "list", "lower"])
def test_no_pattern_is_not_every_pattern(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main([name, "-k", ""])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(
        "-k: '' is no PATTERN; give a part of a name, such as softmax, or leave -k out for all\n"
    )


def test_ctrl_c_is_heard_where_it_was_swallowed(monkeypatch):
    """JAX asks Python, at times, in a place where an exception goes no further."""
    monkeypatch.setattr(patience, "_INTERRUPTED", threading.Event())
    bar = console.Bar(2)
    bar.begin("one")
    with contextlib.suppress(KeyboardInterrupt):
        patience.interrupt()
    for step in (lambda: bar.begin("two"), lambda: bar.advance("two", 1)):
        with pytest.raises(KeyboardInterrupt):
            step()
    assert cli.main(["list", "-k", "identity"]) == 130


@pytest.mark.parametrize("width", [40, 80])
def test_how_far_it_is_can_be_read_on_a_narrow_terminal(width):
    screen = io.StringIO()
    bar = console.Bar(497)
    bar._progress.live.console = Console(file=screen, width=width, force_terminal=True)
    bar.begin("normalization.layer_norm[two batch axes]")
    bar.begin("normalization.layer_norm[one sample]")
    bar._progress.live.console.print(bar._progress.get_renderable())
    (line,) = screen.getvalue().splitlines()
    assert "0/497" in line
    assert "0:00:00" in line
    assert "normal" in line
    assert "…" in line


def test_a_gradient_that_is_zero_but_rounded_is_no_headline():
    sound = Accuracy("w", "float32", 2.0, 1.5)
    zero = Accuracy("bk", "float32", 1.1e16, 6e15)
    assert zero.of_nothing
    assert not sound.of_nothing
    item = suite.built_in()[0]
    verdict = types.SimpleNamespace(accuracy=(zero, sound), accurate=True)
    assert "2 ulp (1.5)" in str(console._worst({item: verdict}))  # pyright: ignore


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", "--sources", "-k", "nosuch"], "handgrad list --sources shows them all"),
        (["show", "good.py::f"], "good.py::f is no function of handgrad"),
        (["fuzz", "."], ". is a folder; name a file of it"),
    ],
)
def test_where_to_look(words, said, capsys):
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
