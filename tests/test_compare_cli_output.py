"""Where the command writes: reports for programs to the standard output, words beside them."""

import json
from xml.etree import ElementTree

import pytest

from handgrad.compare import cli

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
