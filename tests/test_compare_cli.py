"""The command, run for real: on what is built in, on files that come to grief, and on bad usage."""

import contextlib
import io
import json
import math
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from handgrad.compare import cli, console, errata, export, figures, reproduce, selection, suite
from handgrad.compare.figures import lag, sawtooth, width
from handgrad.compare.mistake import Mistake, nearest
from handgrad.compare.report import Accuracy
from handgrad.compare.suite import Item, Verdict

COMMAND = [sys.executable, "-P", "-m", "handgrad.compare.cli"]


def command(*words, cwd, **options):
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, check=False,
        **options,
    )  # fmt: skip


# --- a user's file, with everything that can go wrong in it --------------------------------------

FILE = """
import ctypes, time
import jax, jax.numpy as jnp, numpy as np
from handgrad.compare import backward_of, gradient_of
x = np.array([0.3, -1.2, 0.8])
print("imported")

def square(x):
    return jnp.sum(x**2)

@backward_of(jax.nn.softmax, x)
def right(x, dy):
    print("dy", dy.shape)
    p = jax.nn.softmax(x)
    return (p * (dy - jnp.sum(dy * p)),)

@backward_of(jax.nn.softmax, x)
def wrong(x, dy):
    return (jax.nn.softmax(x) * dy,)

@gradient_of(square, x)
def hangs(x):
    while True:
        time.sleep(0.01)

@gradient_of(square, x)
def crashes(x):
    ctypes.string_at(0)

@gradient_of(square, x)
def eats_memory(x):
    return np.ones(10**9)

@gradient_of(square, x)
def raises(x):
    return x.no_such_thing

@gradient_of(square, x)
def leaves(x):
    raise SystemExit(5)

@gradient_of(square, x)
def last(x):
    return 2 * x
"""
LINE = {name: i for i, name in enumerate(FILE.splitlines(), 1)}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran")
    (folder / "mine.py").write_text(FILE)
    result = command(
        "check", "mine.py", "--timeout", 6, "--memory", 6, "--json", "o.json", "--junit", "o.xml",
        cwd=folder,
    )  # fmt: skip
    return folder, result


STATUSES = {
    "right": "right",
    "wrong": "wrong",
    "hangs": "timeout",
    "crashes": "crashed",
    "eats_memory": "not compared",
    "raises": "not compared",
    "leaves": "raised",
    "last": "right",
}


def test_every_derivation_of_a_file_gets_its_verdict_in_order(ran):
    folder, result = ran
    assert result.returncode == 1
    assert result.stderr == "mine.py │ imported\n"
    titles = re.findall(r"^([✓✗]) mine\.py::(\w+)", result.stdout, re.MULTILINE)
    assert titles == [("✓" if s == "right" else "✗", name) for name, s in STATUSES.items()]
    found = json.loads((folder / "o.json").read_text())
    assert {c["function"]: c["status"] for c in found["cases"]} == STATUSES


def test_the_output_reads_well_in_a_pipe(ran):
    out = ran[1].stdout
    assert "\x1b" not in out
    assert "\r" not in out
    assert not [line for line in out.splitlines() if line != line.rstrip()]
    assert re.fullmatch(
        r"✗ 8 cases: 2 right, 1 wrong, 2 not compared, 1 crashed, 1 timed out, 1 failed · "
        r"2 gradients verified · seed 0 · \d+\.\d s",
        out.splitlines()[-1],
    )


def test_what_went_wrong_is_said_with_the_place(ran):
    folder, result = ran
    _, *parts = re.split(r"^[✓✗] mine\.py::(\w+)", result.stdout, flags=re.M)
    reports = dict(zip(parts[::2], parts[1::2], strict=True))
    assert "the gradient is wrong for x" in reports["wrong"]
    place = f"; it was at {folder / 'mine.py'}, line {{}}, in {{}}"
    at = place.format(LINE["        time.sleep(0.01)"], "hangs")
    assert f"the examination did not finish within 6 s{at}" in reports["hangs"]
    at = place.format(LINE["    ctypes.string_at(0)"], "crashes")
    assert f"the examination crashed its process (segmentation fault){at}" in reports["crashes"]
    assert "eats_memory raised MemoryError" in reports["eats_memory"]
    assert "raises raised AttributeError" in reports["raises"]
    assert "return x.no_such_thing" in reports["raises"]
    assert "the examination raised SystemExit: 5" in reports["leaves"]
    assert "handgrad" not in reports["leaves"].partition("reproduce")[0]
    assert "  it printed (every line once):\n  │ dy (3,)\n" in reports["right"]
    assert reports["right"].count("dy (3,)") == 1
    assert "it printed" not in reports["last"]
    assert "imported" not in result.stdout


def test_what_failed_comes_with_the_command_that_reproduces_it(ran):
    folder, result = ran
    commands = re.findall(r"^  reproduce: (.*)$", result.stdout, re.M)
    assert len(commands) == 6
    assert commands[0] == "handgrad check mine.py::wrong --seed 0 --timeout 6.0 --memory 6.0"
    again = command(*commands[0].split()[1:], cwd=folder)
    assert again.returncode == 1
    assert again.stdout.splitlines()[:4] == _report(result.stdout, "wrong")[:4]


def _report(out, name):
    lines = out.splitlines()
    return lines[next(i for i, line in enumerate(lines) if f"::{name}:" in line) :]


def test_junit_tells_failures_from_errors(ran):
    (suites,) = ElementTree.parse(ran[0] / "o.xml").getroot()
    assert suites.attrib == {
        "name": "mine.py", "tests": "8", "failures": "1", "errors": "5", "skipped": "0",
    }  # fmt: skip
    kinds = {case.get("name"): [child.tag for child in case] for case in suites}
    assert kinds["mine.py::wrong"] == ["failure"]
    assert kinds["mine.py::hangs"] == ["error"]
    assert kinds["mine.py::right"] == ["system-out"]
    assert kinds["mine.py::last"] == []


def test_one_derivation_of_a_file(ran):
    result = command("check", "mine.py::last", "-j", 1, cwd=ran[0])
    assert (result.returncode, result.stderr) == (0, "mine.py │ imported\n")
    assert "✓ 1 case: right · 1 gradient verified · seed 0" in result.stdout


def test_unusable_files_are_named_and_the_others_checked(tmp_path):
    (tmp_path / "good.py").write_text(FILE)
    (tmp_path / "empty.py").write_text("import math\n")
    (tmp_path / "bad.py").write_text("print('hello')\nundefined\n")
    (tmp_path / "dead.py").write_text("import os\nos._exit(4)\n")
    files = ["empty.py", "bad.py", "dead.py", "good.py::last"]
    result = command("check", "-j", 1, *files, cwd=tmp_path)
    assert result.returncode == 2
    assert "✓ good.py::last" in result.stdout
    assert result.stdout.count("✓") == 2
    assert result.stderr == (
        "handgrad: empty.py declares nothing to verify: put @backward_of(function, *inputs), "
        "@gradient_of or @same_as, from handgrad.compare, above a derivation\n"
        "bad.py │ hello\n"
        "handgrad: bad.py cannot be used: it raised NameError: name 'undefined' is not defined\n"
        "Traceback (most recent call last):\n"
        f'  File "{tmp_path}/bad.py", line 2, in <module>\n'
        "    undefined\n"
        "NameError: name 'undefined' is not defined\n\n"
        "handgrad: dead.py cannot be used: when it was imported it ended its process with exit "
        "code 4\n"
        "good.py │ imported\n"
    )


INTERRUPTED = """
import pathlib, time
import jax.numpy as jnp, numpy as np
from handgrad.compare import gradient_of
x = np.ones(2)

@gradient_of(lambda x: jnp.sum(x**2), x)
def done(x):
    return 2 * x

@gradient_of(lambda x: jnp.sum(x**2), x)
def endless(x):
    pathlib.Path("begun").touch()
    while True:
        time.sleep(0.01)
"""


def test_an_interrupt_prints_what_is_done(tmp_path):
    (tmp_path / "mine.py").write_text(INTERRUPTED)
    words = ["check", "mine.py", "-j", "1", "--json", "o.json"]
    process = subprocess.Popen(
        [*COMMAND, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    out, err = process.communicate()
    assert process.returncode == 130
    assert err == "handgrad: interrupted\n"
    assert "✓ mine.py::done: the derivation is right for x" in out
    assert out.splitlines()[-1].startswith("… 1 of 2 cases: right · 1 gradient verified · seed 0")
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["interrupted"] is True
    assert [c["function"] for c in found["cases"]] == ["done"]


# --- what is built in ----------------------------------------------------------------------------


def test_built_in_cases_in_a_table_the_same_with_any_number_of_workers(tmp_path):
    words = ["check", "-k", "dense.affine_*", "--seed", "5"]
    terminal, stderr = pty.openpty()
    with open(tmp_path / "out1", "w") as out, open(terminal, "rb", buffering=0) as screen:
        one = subprocess.Popen(
            [*COMMAND, *words, "-j", "1", "--json", "o1.json"],
            cwd=tmp_path, stdout=out, stderr=stderr,
        )  # fmt: skip
        os.close(stderr)
        bar = _all_of(screen)
        one.wait()
    two = command(*words, "-j", "2", "--json", "o2.json", cwd=tmp_path)
    assert (one.returncode, two.returncode) == (0, 0)
    *table, summary = two.stdout.splitlines()
    assert table[0].split()[:5] == ["topic", "functions", "cases", "derivations", "verified"]
    assert re.match(
        r"dense +1 +\d+ +✓ right +\d+ gradients +[\d.]+ ulp \([\d.]+\), in dense\.aff", table[1]
    )
    assert re.fullmatch(r"✓ \d+ cases: right · \d+ gradients verified · seed 5 · \d.* s", summary)
    assert (tmp_path / "out1").read_text().splitlines()[:-1] == table
    assert (tmp_path / "o1.json").read_text() == (tmp_path / "o2.json").read_text()
    assert two.stderr == ""
    assert b"dense.affine_absorbed" in bar  # stderr was a terminal: there was a progress bar


def test_without_a_terminal_the_progress_is_told_in_lines(monkeypatch, capsys):
    """In the log of a run that is stopped: how far it came, and what was not right."""
    monkeypatch.setattr(console, "EVERY", 0.02)
    with console.Bar(3) as bar:
        bar.begin("t.a")
        bar.end("t.a", False)
        bar.begin("t.b")
        time.sleep(0.3)
    out, err = capsys.readouterr()
    assert out == ""
    told = r"handgrad: 1 of 3 done in 0 s · not right: t\.a · at t\.b"
    assert re.fullmatch(told, err.splitlines()[-1])


def _all_of(screen):
    parts = []
    with contextlib.suppress(OSError):  # with which Linux says that nobody writes here any more
        while part := screen.read(4096):
            parts.append(part)
    return b"".join(parts)


def test_show(capsys):
    assert cli.main(["show", "dense.affine_absorbed"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dense.affine_absorbed(x, ")
    assert "Backward" in out
    assert "by hand (handgrad.manual)" in out
    assert "differentiated by autodiff (handgrad.reference)" in out
    assert "@op" in out
    assert "@affine_absorbed.backward" in out
    assert out.count("def affine_absorbed(") == 2
    assert "✓ right" in out


def test_every_built_in_function_can_be_shown():
    from handgrad.compare import show

    for item in {item.function: item for item in suite.built_in()}.values():
        page = show.page(item)
        by_hand, plain = page.sides.values()
        assert page.signature.startswith(f"{item.topic}.{item.function}(")
        assert f"@{item.function}.backward" in by_hand
        assert f"def {item.function}(" in plain
        assert '"""' not in by_hand + plain


def test_list_names_every_case_once_without_importing_jax():
    program = (
        "import sys; from handgrad.compare import cli; code = cli.main(['list']); "
        "assert not {'jax', 'jaxlib'} & sys.modules.keys(); sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    names = [line.split("   ")[0] for line in result.stdout.splitlines()[1:]]
    assert names == [item.id for item in suite.built_in()]
    assert len(set(names)) == len(names)


def test_list_in_markdown_has_one_row_a_topic():
    items = [
        Item("dense.affine", "dense", "affine", ""),
        Item("dense.affine[no bias]", "dense", "affine", ""),
        Item("losses.mse", "losses", "mse", ""),
    ]
    assert console.markdown_table(items).splitlines() == [
        "| topic | functions | cases |",
        "| --- | --- | ---: |",
        "| dense | `affine` | 2 |",
        "| losses | `mse` | 1 |",
    ]
    derivation = Item("neurons.N3 sigmoid", "neurons", "", "6 lines", suite.SOURCES)
    assert "| neurons | N3 sigmoid | 1 |" in console.markdown_table([derivation])


@pytest.mark.parametrize("words", [["--help"], ["-V"], ["--version"], ["check", "--help"], []])
def test_help_and_version_import_nothing_heavy(words):
    program = (
        "import sys; from handgrad.compare import cli\n"
        f"try:\n    code = cli.main({words})\nexcept SystemExit as end:\n    code = end.code\n"
        "assert not {'jax', 'numpy', 'rich'} & sys.modules.keys(), sys.modules.keys()\n"
        "sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    version = {"-V", "--version"} & set(words)
    assert result.stdout.startswith("handgrad 0." if version else "usage: handgrad")


def test_the_derivations_of_the_sources(capsys):
    assert cli.main(["list", "--sources", "-k", "neurons.N3 sigmoid"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["claim", "derivation", "source", "manual", "reference", "verdict"]
    assert re.match(r"N3 +sigmoid +.* activations.sigmoid +activations.sigmoid +✓ 6 lines$", row)
    assert cli.main(["check", "--sources", "-j", "1", "-k", "C1"]) == 0
    _, row, _, summary = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\w+ +1 +✓ right +4 lines", row)  # and one that is wrong as printed
    assert re.match(r"✓ 1 case: right · 4 lines verified · seed 0", summary)


def test_figures_are_saved_and_their_claims_told(tmp_path, monkeypatch, capsys):
    asked = {}

    def save_all(directory, progress, seed):
        asked.update(directory=directory, seed=seed)
        for done, name in enumerate(("xor", "width")):
            progress(name, done, 2)
        result = figures.Result("N8", "source", "a claim", asked["seed"] == 3, {"n": 1.0}, {})
        return {tmp_path / "xor.png": result}

    monkeypatch.setattr(figures, "save_all", save_all)
    assert cli.main(["figures", "some/folder", "--seed", "3"]) == 0
    assert asked == {"directory": "some/folder", "seed": 3}
    assert capsys.readouterr().out == f"✓ N8 a claim: n = 1\n  {tmp_path / 'xor.png'}\n"
    assert cli.main(["figures", "some/folder"]) == 1


@pytest.mark.parametrize("missing", ["matplotlib", "sklearn"])
def test_what_figures_lack_is_told_before_any_is_made(missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert cli.main(["figures", str(tmp_path / "made")]) == 2
    assert capsys.readouterr().err.endswith("not installed: pip install 'handgrad[examples]'\n")
    assert not (tmp_path / "made").exists()


def test_pictures_hide_nothing(monkeypatch):
    """Every axis has its label, no legend covers a tooth, and both LSTMs are to be seen."""
    drawn = []
    curves = {
        "sawtooth": sawtooth.run().curves,
        "width": {"fine": [0, 1], "target": [0, 1], "fits": {n: [0, 1] for n in width.WIDTHS},
                  "errors": np.ones(len(width.WIDTHS))},
        "lag": {"norms": {"LSTM": [1, 2], "LSTM, peepholes": [1, 2]}, "bound": [1, 2]},
    }  # fmt: skip
    for experiment in (sawtooth, width, lag):
        monkeypatch.setattr(experiment, "save", lambda figure, path: drawn.append(figure))
        name = experiment.__name__.rpartition(".")[2]
        experiment.draw(figures.Result("N", "s", "a claim", True, {}, curves[name]), "")
    assert all(ax.get_xlabel() and ax.get_ylabel() for figure in drawn for ax in figure.axes)
    teeth = drawn[0].axes[0]
    drawn[0].draw_without_rendering()
    box = teeth.get_legend().get_window_extent().transformed(teeth.transData.inverted())
    assert box.y0 > 1
    below, above = drawn[2].axes[0].lines[:2]
    assert below.get_linewidth() > 2 * above.get_linewidth()


def test_errata_are_told_by_document(monkeypatch, capsys):
    rows = [
        errata.Erratum("Document", "eq. 1", "x² = 2x", "no factor", "1; 2", "x² = x·x", "A1", True),
        errata.Erratum("Document", "", "y = 0", "by mistake", "0; 1", "", "A2", False),
    ]

    def table(seed, progress):
        progress("A1 square", 0, 1)
        return rows[: 2 - seed]

    monkeypatch.setattr(errata, "errata_table", table)
    assert cli.main(["errata"]) == 1
    assert capsys.readouterr().out == (
        "Document\n"
        "  ✓ eq. 1 [A1]\n"
        "      printed  x² = 2x\n"
        "      holds    x² = x·x\n"
        "      numbers  1; 2\n"
        "      because  no factor\n\n"
        "  ✗ no place given [A2]\n"
        "      printed  y = 0\n"
        "      holds    (no correction)\n"
        "      numbers  0; 1\n"
        "      because  by mistake\n\n\n"
        "2 errata, 1 confirmed by the numbers · seed 0\n"
    )
    assert cli.main(["errata", "--seed", "1"]) == 0


# --- wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["check", "nofile.py"],
            "there is no file nofile.py; the nearest is: myfile.py",
        ),
        (
            ["check", "myfile.py::"],
            "myfile.py:: names no function; without :: all of the file is meant",
        ),
        (
            ["check", "softmax"],
            "'softmax' is not a Python file; for built-in cases of that name: "
            "handgrad check -k softmax",
        ),
        (
            ["list", "softmax::x"],
            "'softmax' is not a Python file; for built-in cases of that name: "
            "handgrad list -k softmax",
        ),
        (["check", "::x"], "'::x' is not a Python file; give one, as in FILE.py::NAME"),
        (["check", ""], "'' is not a Python file; give one, as in FILE.py::NAME"),
        (
            ["chek", "-k", "softmax"],
            "there is no command 'chek'; the nearest is: check; handgrad --help shows them all",
        ),
        (["§"], "there is no command '§'; handgrad --help shows them all"),
        (["--seed", "3", "check"], "options stand after the command: handgrad check --seed ..."),
        (
            ["check", "--json", ""],
            "'' cannot be written; give the name of a file, or - for the standard output",
        ),
        (["check", "."], ". is a folder; give the files in it: ./*.py"),
        (
            ["check", "-k", "sofmax"],
            "no case has 'sofmax' in its name; the nearest are: softmax, log_softmax; "
            "handgrad list shows them all",
        ),
        (["list", "-k", "§"], "no case has '§' in its name; handgrad list shows them all"),
        (
            ["show", "affin"],
            "there is no function 'affin'; the nearest are: affine, dense.affine, affine_absorbed; "
            "handgrad list shows them all",
        ),
        (
            ["check", "myfile.py", "--sources"],
            "a FILE and --sources exclude each other; run the command twice",
        ),
        (
            ["check", "--json", "no/o.json"],
            "no/o.json cannot be written, since the folder {cwd}/no does not exist",
        ),
        (
            ["check", "--junit", "/proc/x"],
            "/proc/x cannot be written: No such file or directory",
        ),
        (
            ["figures", "myfile.py"],
            "the pictures cannot be saved in myfile.py: that is a file; name a folder to which "
            "files can be written, or a new one",
        ),
        (
            ["lower", "softplus"],
            "lower takes no names; for what has that in its name: handgrad lower -k softplus",
        ),
        (
            ["check", "--junit", "."],
            ". cannot be written, since it is a folder; give the name of a file",
        ),
    ],
)
def test_a_mistake_is_one_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "myfile.py").write_text("")
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"handgrad: {sentence.format(cwd=tmp_path)}\n")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["show", "adam"], "adam"),
        (["check", "-k", "Adam"], "Adam"),
        (["list", "-k", "optimizers.lion"], "optimizers.lion"),
        (["fuzz", "manual.optimizers.muon"], "optimizers.muon"),
    ],
)
def test_of_an_optimiser_it_is_said_what_checks_it(words, name, capsys):
    assert cli.main(words) == 2
    assert capsys.readouterr().err == (
        f"handgrad: {name!r} is in handgrad.manual.optimizers, and what is there is checked by "
        "check_optimizer, from handgrad.compare: README.md shows how, under Optimisers, and "
        "docs/optimizers.md has the conventions\n"
    )


def test_looking_whether_a_file_can_be_written_changes_nothing(tmp_path):
    (tmp_path / "old").write_text("kept")
    os.mkfifo(tmp_path / "pipe")  # which would wait for a reader
    for name in ("old", "new", "pipe"):
        cli._writable(str(tmp_path / name))
    assert (tmp_path / "old").read_text() == "kept"
    assert not (tmp_path / "new").exists()


def test_an_unknown_name_in_a_file(ran):
    result = command("check", "mine.py::rihgt", cwd=ran[0])
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "mine.py │ imported\n"
        "handgrad: mine.py declares no 'rihgt'; the nearest is: right; it declares: "
        f"{', '.join(STATUSES)}\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seed", "-1"], "argument --seed: '-1' is not a whole number from 0 on"),
        (["--seed", "1.5"], "argument --seed: '1.5' is not a whole number from 0 on"),
        (["-j", "0"], "argument -j/--jobs: '0' is not a whole number from 1 on"),
        (["--timeout", "0"], "argument --timeout: '0' is not a number above 0"),
        (["--scale", "nan"], "argument --scale: 'nan' is not a number above 0"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
    ],
)
def test_wrong_options(words, sentence, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["check", *words])
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {sentence}\n")


@pytest.mark.parametrize(
    ("words", "name"),
    [("errata foo", "handgrad errata"), ("list --json", "handgrad list"), ("-v list", "handgrad")],
)
def test_unknown_words_are_answered_with_the_usage_of_the_command(words, name, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words.split())
    err = capsys.readouterr().err
    assert err.startswith(f"usage: {name} [-h] ")
    assert re.search(rf"^{name}: error: unrecognized arguments: (foo|--json|-v)$", err, re.M)


def test_a_search_that_fails_at_the_samples_says_how_to_reproduce_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "import jax, numpy as np\nfrom handgrad.compare import backward_of\n\n"
        "@backward_of(jax.nn.softmax, np.ones(1))\n"
        "@backward_of(jax.nn.softmax, np.arange(3.0))\n"
        "def b(x, dy):\n    return jax.nn.softmax(x) * dy\n"
    )
    assert cli.main(["fuzz", "mine.py::b[1]", "--seed", "2"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("✗ mine.py::b[1]: the gradient is wrong for x")
    (line,) = re.findall(r"^  reproduce: (handgrad .*)$", out, re.M)
    assert line == "handgrad check 'mine.py::b[1]' --seed 2"
    result = command(*shlex.split(line)[1:], cwd=tmp_path)
    assert result.returncode == 1
    assert out.splitlines()[:6] == result.stdout.splitlines()[:6]


# --- the parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("affine", "dense.affine[no bias]", True),
        ("AFFINE", "dense.affine", True),
        ("dense.affine[no bias]", "dense.affine[no bias]", True),
        ("[no", "dense.affine[no bias]", True),
        ("[n]", "dense.affine[no bias]", False),
        ("dense*bias", "dense.affine[no bias]", True),
        ("d?nse", "dense.affine", True),
        ("bias*dense", "dense.affine[no bias]", False),
        ("softmax", "dense.affine", False),
    ],
)
def test_patterns(pattern, name, matches):
    assert selection._matches(pattern, name) is matches


def test_a_function_is_named_with_or_without_its_topic():
    items = selection.named("affine")
    assert {item.function for item in items} == {"affine"}
    assert selection.named("dense.affine") == selection.named("manual.affine") == items
    assert selection.named("dense.affine[no bias]") == items
    with pytest.raises(Mistake, match=r"there is no function 'losses\.affine'"):
        selection.named("losses.affine")


def test_nearest_names_are_offered_once_or_not_at_all():
    assert nearest("tahn", ["tanh", "tanh", "sin"]) == "; the nearest is: tanh"
    assert nearest("zzz", ["tanh"]) == ""


def test_functions_without_a_name_are_told_apart():
    unnamed = reproduce.spelled(lambda x: x), reproduce.spelled(lambda x: 2 * x)
    code = reproduce.call("backward", unnamed, (np.ones(2),), seed=0)
    assert "    your_backward,\n    your_reference,\n" in code
    assert "# your_reference: the function that you gave to the check\n" in code
    code = reproduce.call("function", unnamed, (np.ones(2),), seed=0)
    assert "    your_function,\n    your_reference,\n" in code


def test_plain_data():
    data = {
        "array": np.array([1.0, np.nan, -np.inf]),
        "scalar": np.float32(0.5),
        "integer": np.int64(3),
        "bool": np.bool_(True),
        "complex": 1 + 2j,
        "real": 2 + 0j,
        3: (math.inf, None, "text", {1}),
        "other": slice(None),
    }
    assert export.plain(data) == {
        "array": [1.0, "nan", "-inf"],
        "scalar": 0.5,
        "integer": 3,
        "bool": True,
        "complex": "(1+2j)",
        "real": 2.0,
        "3": ["inf", None, "text", [1]],
        "other": "slice(None, None, None)",
    }
    json.dumps(export.plain(data), allow_nan=False)


A, B, C = (Item(f"t.{name}", "t", name, "3") for name in "abc")
EXACT = Accuracy("x", "float32", 1.0, 0.5)
LOSSY = Accuracy("w", "float32", 99.0, 0.5)


def test_xml_survives_whatever_a_test_prints():
    verdict = Verdict(
        "crashed", "✗ a\n  \x1b[31m\x00", data={"problem": "\x07 <&>"}, printed="\x08"
    )
    root = ElementTree.fromstring(export.as_junit({A: verdict}, 1.0))
    error = root.find("./testsuite/testcase/error")
    assert error is not None
    assert error.get("message") == "� <&>"
    assert error.text == "✗ a\n  �[31m�"


def test_accuracy_is_a_verdict_of_its_own(capsys):
    right = Verdict("right", "✓ a", 1, accuracy=(EXACT,))
    lossy = Verdict("right", "✓ b", 1, accuracy=(EXACT, LOSSY))
    assert (lossy.ok, lossy.accurate) == (True, False)
    out = console.output()
    out.print(console.case_table({A: right, B: lossy}))
    out.print(console.inaccuracy(B, lossy))
    out.print(console.summary({A: right, B: lossy}, 2, "seed 0"))
    _, row, line, summary = capsys.readouterr().out.splitlines()
    assert row.split("   ")[-1] == "1 lose digits; 99 ulp (0.5), in t.b"
    assert line == (
        "! t.b: right, but its code loses digits in float32: 99 ulp in the gradient of w, "
        "autodiff's own 0.5"
    )
    assert summary == "✓ 2 cases: right · 2 gradients verified · seed 0"


def test_a_table_counts_what_went_wrong(capsys):
    found = {
        A: Verdict("right", "✓", 2, accuracy=(EXACT,)),
        B: Verdict("wrong", "✗"),
        C: Verdict("timeout", "✗"),
    }
    console.output().print(console.case_table(found))
    row = re.split("   +", capsys.readouterr().out.splitlines()[1])
    assert row == [
        "t", "3", "3", "✗ 1 right, 1 wrong, 1 timed out", "2 gradients", "1 ulp (0.5), in t.a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (99, ["topic functions cases derivations verified accuracy: worst error, autodiff's own "
              "there", "t 1 1 ✓ right 2 gradients 1 ulp (0.5), in t.a"]),
        (60, ["accuracy: worst error, autodiff's own", "topic derivations there",
              "t ✓ right 1 ulp (0.5), in t.a"]),
        (30, ["t", "derivations: ✓ right", "accuracy: worst error,", "autodiff's own there: 1 ulp",
              "(0.5), in t.a"]),
    ],
)  # fmt: skip
def test_a_narrow_table_leaves_out_numbers_and_breaks_no_word(width, lines):
    terminal = Console(width=width, record=True, file=io.StringIO(), soft_wrap=True)
    terminal.print(console.case_table({A: Verdict("right", "✓", 2, accuracy=(EXACT,))}))
    printed = terminal.export_text().splitlines()
    assert [" ".join(line.split()) for line in printed] == lines
    assert max(map(len, printed)) <= width


def test_what_was_verified_is_counted_in_its_own_units(capsys):
    found = {A: Verdict("right", "✓", 2, "line"), B: Verdict("right", "✓", 1)}
    console.output().print(console.summary(found, 2, "seed 0"))
    out = capsys.readouterr().out
    assert out == "✓ 2 cases: right · 2 lines, 1 gradient verified · seed 0\n"
    console.output().print(console.summary({A: found[A]}, 2, "seed 0"))
    assert capsys.readouterr().out == "… 1 of 2 cases: right · 2 lines verified · seed 0\n"
    console.output().print(console.summary({}, 2, "seed 0"))
    assert capsys.readouterr().out == "… 0 of 2 cases: nothing done · nothing verified · seed 0\n"


def test_two_pieces_of_code_stand_side_by_side_where_they_fit(capsys):
    out = console.output()
    console.code(out, {"left": "a = 1\nb = 2", "right": "c = 3"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["left", "right"], ["a", "=", "1", "c", "=", "3"], ["b", "=", "2"],
    ]  # fmt: skip
    console.code(out, {"left": "a" * 150, "right": "b" * 150})
    lines = capsys.readouterr().out.splitlines()
    assert [line.strip()[:5] for line in lines] == ["left", "aaaaa", "", "right", "bbbbb", ""]


# --- coverage ------------------------------------------------------------------------------------

COVERED = """
import jax, jax.numpy as jnp, numpy as np
from handgrad.compare import backward_of
both, positive = np.array([0.5, -2.0, 1.5]), np.array([0.5, 2.0, 1.5])

def leaky(x):
    return jnp.where(x > 0, x, 0.1 * x)

@backward_of(leaky, both)
def exercised(x, dy):
    return jnp.where(x > 0, dy, 0.1 * dy)

@backward_of(leaky, positive)
def weak(x, dy):
    return jnp.where(x > 0, dy, 0.1 * dy)

@backward_of(leaky, both)
def hidden(x, dy):
    return np.where(np.asarray(x) > 0, dy, 0.1 * dy)
"""


@pytest.fixture(scope="module")
def covered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("covered")
    (folder / "some.py").write_text(COVERED)
    return folder


def test_coverage_of_every_function_with_the_lines_no_input_reaches(covered):
    done = command("check", "some.py", "--coverage", "--json", "out.json", cwd=covered)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"some\.py::exercised +100% +(\d+) of \1\n", done.stdout)
    assert re.search(r"some\.py::weak +\d+(\.\d)?% ", done.stdout)
    assert re.search(r"some\.py::hidden +not available", done.stdout)
    line = COVERED.splitlines().index("def weak(x, dy):") + 2
    assert f"  not verified by these inputs  some.py:{line}: " in done.stdout
    assert "! some.py::hidden: coverage not available: JAX cannot trace it" in done.stdout
    written = json.loads((covered / "out.json").read_text())
    names = [c["name"] for c in written["coverage"]]
    assert names == ["some.py::exercised", "some.py::weak", "some.py::hidden"]
    assert written["coverage"][1]["survived"][0]["place"] == f"some.py:{line}"
    assert written["ok"]


@pytest.mark.parametrize(
    ("name", "least", "code"), [("exercised", 100, 0), ("weak", 100, 1), ("hidden", 1, 1)]
)
def test_a_coverage_that_is_too_small_fails(covered, name, least, code):
    done = command("check", f"some.py::{name}", "--coverage-min", least, cwd=covered)
    assert done.returncode == code, done.stdout + done.stderr
    said = f"✗ the coverage of some.py::{name} is less than {least}%" in done.stdout
    assert said == bool(code)


@pytest.mark.parametrize("least", ["101", "-1", "much"])
def test_a_percentage_is_one(covered, least):
    done = command("check", "some.py", "--coverage-min", least, cwd=covered)
    assert done.returncode == 2
    assert f"{least!r} is not a percentage from 0 to 100" in done.stderr


def test_without_being_asked_for_nothing_is_measured(covered):
    done = command("check", "some.py::exercised", cwd=covered)
    assert "coverage" not in done.stdout
