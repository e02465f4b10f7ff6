"""The distribution: all of the three rooms is in it, and it works away from the repository."""

import ast
import importlib.metadata
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import tomllib
import venv
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("manual", "reference", "compare")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
VERSION = PROJECT["project"]["version"]

USE = """
    import pathlib, sys
    import numpy as np
    from handgrad import compare, manual, reference

    rooms = [pathlib.Path(room.__file__).parent for room in (compare, manual, reference)]
    print(compare.check(manual.sigmoid, reference.sigmoid, np.array([0.3, -1.2], np.float32)))
    print(*rooms, *[(room / "py.typed").is_file() for room in rooms], sep="\\n")
"""


def files_of_the_rooms(root: pathlib.Path) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for room in ROOMS
        for path in (root / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def run(*words: str | pathlib.Path, cwd: pathlib.Path) -> str:
    """What a command prints; its complaints are in the failure if it fails."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "COV_"))}
    done = subprocess.run(
        words, cwd=cwd, env=clean, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what is packaged, since setuptools leaves its build folder beside it."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for room in ROOMS:
        shutil.copytree(ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def environment(tmp_path):
    """A new environment with links to the installed dependencies, but to no installed handgrad."""
    venv.create(tmp_path / "environment", with_pip=False)
    python = next((tmp_path / "environment").glob("*/python"))
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in pathlib.Path(installed).iterdir():
            link = purelib(python) / entry.name
            ours = entry.name.startswith(("handgrad", "__editable__"))
            if not ours and entry.suffix != ".pth" and not link.exists():
                link.symlink_to(entry)
    return python


def purelib(python: pathlib.Path) -> pathlib.Path:
    base = {"base": str(python.parents[1])}
    return pathlib.Path(sysconfig.get_path("purelib", "venv", base))


def install(python: pathlib.Path, *what: str | pathlib.Path) -> None:
    pip = (sys.executable, "-m", "pip", "--python", python, "install")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--ignore-installed")
    run(*pip, *options, *what, cwd=python.parent)


def test_the_wheel_holds_every_file_of_the_three_rooms_and_nothing_else(wheel, source):
    names = zipfile.ZipFile(wheel).namelist()
    packaged = {n.removeprefix("handgrad/") for n in names if n.startswith("handgrad/")}
    assert packaged == files_of_the_rooms(source), (
        "a folder is missing in `packages`, or a kind of file in `package-data`, in pyproject.toml"
    )
    assert {n.split("/")[0] for n in names} == {"handgrad", f"handgrad-{VERSION}.dist-info"}
    assert any(n.endswith("licenses/LICENSE") for n in names)


@pytest.mark.parametrize("editable", [False, True], ids=["wheel", "editable"])
def test_it_works_from_another_folder(editable, wheel, source, environment, tmp_path):
    install(environment, *(["--editable", source] if editable else [wheel]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "reference.py").write_text("raise SystemExit('a file of the user was imported')")
    (elsewhere / "use.py").write_text(textwrap.dedent(USE), "utf-8")

    verdict, *rest = run(environment, "-W", "error", "use.py", cwd=elsewhere).splitlines()
    assert verdict == "✓ sigmoid: the derivation is right for x"
    home = source if editable else purelib(environment) / "handgrad"
    assert rest[-6:-3] == [str(home / room) for room in ("compare", "manual", "reference")]
    assert rest[-3:] == ["True"] * 3  # py.typed

    version = run(environment.parent / "handgrad", "--version", cwd=elsewhere)
    assert version.startswith(f"handgrad {VERSION}")


# --- what is declared ----------------------------------------------------------------------------

DISTRIBUTION = {"sklearn": "scikit-learn", "_pytest": "pytest"}
OWN = {"handgrad", "corpus", "sizes", "tasks_of_a_test"}  # the last is written by a test
OWN |= {path.stem for folder in ("tests", "examples") for path in (ROOT / folder).glob("*.py")}


def declared(*extras: str) -> set[str]:
    """The distributions that installing handgrad[extras] names."""
    optional = PROJECT["project"]["optional-dependencies"]
    lists = [PROJECT["project"]["dependencies"], *(optional[extra] for extra in extras)]
    found = set()
    for requirement in itertools.chain(*lists):
        name, inner = re.fullmatch(r"([\w.-]+)(?:\[(.*)\])?.*", requirement).groups()
        found |= declared(*inner.split(",")) if name == "handgrad" else {name}
    return found


def imported(folder: str) -> dict[str, str]:
    """The distributions whose modules are imported there, and one file that does."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Import():
                    names = [alias.name for alias in node.names]
                case ast.ImportFrom(level=0, module=str(module)):
                    names = [module]
                case _:
                    continue
            for name in (n.split(".")[0] for n in names):
                if name not in sys.stdlib_module_names and name not in OWN:
                    found[DISTRIBUTION.get(name, name)] = str(path.relative_to(ROOT))
    return found


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("manual", []),
        ("reference", []),
        ("compare", ["plots", "test"]),  # imported where they are used: plots, the plugin
        ("examples", ["examples", "models"]),
        ("tests", ["test", "peers"]),
        ("benchmarks", ["test", "peers"]),
    ],
)
def test_what_is_imported_is_declared(folder, extras):
    undeclared = {k: v for k, v in imported(folder).items() if k not in declared(*extras)}
    assert not undeclared, f"not among the dependencies in pyproject.toml: {undeclared}"


def test_the_oldest_python_is_the_same_everywhere():
    versions = [
        c.rpartition(" ")[2]
        for c in PROJECT["project"]["classifiers"]
        if re.search(r":: 3\.\d+$", c)
    ]
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{versions[0].replace('.', '')}"
    assert PROJECT["tool"]["pyright"]["pythonVersion"] == versions[0]


def test_the_installed_version_is_that_of_the_project():
    assert importlib.metadata.version("handgrad") == VERSION


# --- make ----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("target", "command"),
    [("check", "handgrad check -j 2"), ("test", "pytest -n 2"), ("lint", "ruff check .")],
)
def test_make_on_a_fresh_clone_first_makes_the_environment(target, command, tmp_path):
    fresh = tmp_path / "venv"
    lines = run("make", "--dry-run", f"VENV={fresh}", target, cwd=ROOT).splitlines()
    positions = [
        next(i for i, line in enumerate(lines) if part in line)
        for part in ("-m venv", "-m pip install", command)
    ]
    assert positions == sorted(positions)

    (fresh / "bin").mkdir(parents=True)
    (fresh / ".ready").touch()
    again = run("make", "--dry-run", f"VENV={fresh}", target, cwd=ROOT)
    assert command in again
    assert "pip install" not in again


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_names_a_python_that_is_too_old(tmp_path):
    old = tmp_path / "old-python"
    old.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 9); '
        'sys.version = \'3.9.18 (main)\'; exec(sys.argv[1])" "$2"\n'
    )
    old.chmod(0o755)
    done = subprocess.run(
        ["make", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}", "check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert f"handgrad needs Python 3.11 or newer, and {old} is 3.9.18; give another" in done.stderr
