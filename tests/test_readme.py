"""The README's examples run, and what it quotes is what the commands print."""

import difflib
import doctest
import importlib.util
import pathlib
import re

import pytest

from handgrad.compare import suite

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"


class ToRounding(doctest.OutputChecker):
    """Numbers below 1e-10 are rounding, and another machine rounds otherwise."""

    def check_output(self, want, got, optionflags):
        want, got = (re.sub(r"\b[\d.]+e-[1-9]\d\b", "rounding", text) for text in (want, got))
        return super().check_output(want, got, optionflags)


@pytest.fixture
def page():
    """The script docs/readme.py, which renews what the README quotes."""
    spec = importlib.util.spec_from_file_location("docs_readme", ROOT / "docs" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_examples_of_the_readme():
    text = README.read_text("utf-8")
    examples = doctest.DocTestParser().get_doctest(text, {}, "README.md", str(README), 0)
    runner = doctest.DocTestRunner(ToRounding())
    failed, attempted = runner.run(examples)
    assert attempted >= 20
    assert failed == 0


def test_a_report_that_differs_by_more_than_rounding_is_another():
    checker = ToRounding()
    assert checker.check_output("1 ✓ line  1.1e-16\n", "1 ✓ line  2.2e-15\n", 0)
    assert not checker.check_output("1 ✓ line  1.1e-16\n", "1 ✓ line  2.2e-05\n", 0)
    assert not checker.check_output("1 ✓ line  1.1e-16\n", "1 ✗ line  1.1e-16\n", 0)


def test_what_the_readme_quotes_is_what_the_commands_print(page):
    """Save for seconds, the device and its rounding."""
    text = README.read_text("utf-8")
    commands = [m["shown"] or m["hidden"] for m in page.BLOCKS.finditer(text)]
    assert "handgrad check examples/my_derivation.py" in commands
    assert "handgrad list --markdown" in commands
    old, new = (page.comparable(t).splitlines() for t in (text, page.renewed(text)))
    difference = "\n".join(difflib.unified_diff(old, new, "README.md", "now", lineterm=""))
    assert not difference, f"run python docs/readme.py:\n{difference}"


def test_the_derivations_are_counted():
    (count,) = re.findall(r"\b(\d+) derivations\b", README.read_text("utf-8"))
    assert int(count) == len(suite.sources())


def test_a_readme_that_is_out_of_date_is_found(page, monkeypatch):
    """A planted change in a number, in a row of the table, in a command's verdict."""
    monkeypatch.setattr(page, "output", lambda command: f"{command} says ✗ 8\n· 3.2 s\n")
    right = (
        "# A\n\n```console\n$ handgrad check a.py\nhandgrad check a.py says ✗ 8\n· 9.1 s\n```\n\n"
        "<!-- handgrad list -->\n\nhandgrad list says ✗ 8\n· 3.0 s\n\nmore\n"
    )
    assert page.comparable(page.renewed(right)) == page.comparable(right)
    for wrong in (right.replace("✗ 8", "✗ 9", 1), right.replace("list says ✗", "list says ✓")):
        assert page.comparable(page.renewed(wrong)) != page.comparable(wrong)


def test_what_differs_between_devices_is_left_out(page):
    line = "  in float32 on {}: accurate; error {} ulp in x, autodiff's own {}\n"
    one, other = line.format("cpu", "1.6", "1.91"), line.format("gpu", "2.25", "3")
    assert page.comparable(one) == page.comparable(other)
    assert page.comparable(one) != page.comparable(one.replace("accurate", "inaccurate"))
    assert page.comparable(one) != page.comparable(one.replace("x", "y"))
