"""docs/catalogue.md is what its data say, and the data name operations that there are."""

import importlib.util
import json
import pathlib

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"


@pytest.fixture
def catalogue():
    spec = importlib.util.spec_from_file_location("docs_catalogue", DOCS / "catalogue.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_script_writes(catalogue, capsys):
    assert catalogue.main(["--check"]) == 0, capsys.readouterr().err


def test_each_library_has_its_source(catalogue):
    text = catalogue.page()
    for library in json.loads((DOCS / "catalogue.json").read_text("utf-8"))["libraries"]:
        assert len(library["commit"]) == 40
        assert f"{library['repository']}/blob/{library['commit']}/{library['source']}" in text
        had = sum(bool(row["ours"]) for row in library["operations"])
        assert f"| {len(library['operations'])} | {had} |" in text


def test_a_page_that_is_out_of_date_is_found(catalogue, tmp_path, monkeypatch, capsys):
    page = tmp_path / "catalogue.md"
    monkeypatch.setattr(catalogue, "PAGE", page)
    assert catalogue.main(["--check"]) == 1
    assert catalogue.main([]) == 0
    assert catalogue.main(["--check"]) == 0
    page.write_text(page.read_text("utf-8").replace("`relu`", "`relu6`", 1), "utf-8")
    assert catalogue.main(["--check"]) == 1
    assert "catalogue.md is out of date" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"theirs": "ReLU", "ours": ["rellu"]}, "there is no operation 'rellu' here"),
        ({"theirs": "tanh", "ours": []}, "A has 'tanh' more than once"),
    ],
)
def test_data_that_cannot_be_right_are_named(catalogue, row, sentence):
    library = {"name": "A", "operations": [{"theirs": "tanh", "ours": ["tanh"]}, row]}
    with pytest.raises(ValueError, match=sentence):
        catalogue.check([library], ["tanh", "relu"])
