"""The README's examples run."""

import doctest
import pathlib

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_examples_of_the_readme():
    found = doctest.testfile(str(README), module_relative=False)
    assert found.attempted >= 4
    assert found.failed == 0
