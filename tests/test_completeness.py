"""Every operation has its counterpart, its sample inputs and its page: one name in three rooms."""

import importlib
import inspect
import pkgutil
import re

import pytest

import handgrad.manual
from handgrad import manual, reference
from handgrad.compare.cases import TOPICS, load


def missing(name, op, counterpart, cases):
    """What an operation lacks, as sentences; an empty list where nothing is wanting."""
    found = []
    if counterpart is None:
        found.append(f"reference has no {name}")
    elif inspect.signature(counterpart) != inspect.signature(op):
        found.append(
            f"the signatures differ: manual {inspect.signature(op)}, "
            f"reference {inspect.signature(counterpart)}"
        )
    if not any(case.function == name for case in cases):
        found.append(f"compare/cases has no case of {name}")
    try:
        op.pullback(None, None, unknown_keyword=None)
    except TypeError as error:
        if "no backward" in str(error):
            found.append(f"{name} has no backward")
    doc = inspect.getdoc(op) or ""
    for argument in op.signature.parameters:
        if not re.search(rf"\b{argument}\b", doc):
            found.append(f"the docstring does not speak of {argument}")
    for word, pattern in {
        "the shape of the result": r"Returns",
        "shapes": r"shape|\([\w*+ ]+(, ?[\w*+ ]+)*,?\)|scalar",
        "the backward formula": r"Backward[^:]*:",
        "what it raises": r"Raises|[Ii]ntegers",
        "a source": r"Source: ",
    }.items():
        if not re.search(pattern, doc):
            found.append(f"the docstring does not give {word}")
    return found


def ops():
    return {name: op for name, op in vars(manual).items() if isinstance(op, manual.Op)}


@pytest.mark.parametrize("name", ops())
def test_every_operation_is_complete(name):
    found = missing(name, ops()[name], getattr(reference, name, None), load())
    assert not found, "\n".join(found)


def test_every_operation_is_public_under_its_own_name():
    """Each op of each file is in its file's __all__, and `manual` has it under that name."""
    for info in pkgutil.iter_modules(handgrad.manual.__path__):
        module = importlib.import_module(f"handgrad.manual.{info.name}")
        for name, op in vars(module).items():
            if isinstance(op, manual.Op) and op.__module__ == module.__name__:
                assert op.__name__ == name
                assert name in module.__all__
                assert getattr(manual, name, None) is op, f"manual does not export {name}"


def test_every_case_is_of_a_function_of_both_rooms_and_has_its_own_id():
    cases = load()
    assert len({case.id for case in cases}) == len(cases)
    for case in cases:
        assert callable(getattr(manual, case.function)), case.id
        assert callable(getattr(reference, case.function)), case.id


@pytest.mark.parametrize("topic", TOPICS)
def test_rooms_have_the_same_names(topic):
    """A reference function that no operation answers to would never be used."""
    by_hand, plain = (
        importlib.import_module(f"handgrad.{room}.{topic}") for room in ("manual", "reference")
    )
    assert by_hand.__all__ == sorted(by_hand.__all__)
    # What is no operation has no derivative and needs no counterpart: the first weights of a net.
    operations = [name for name in by_hand.__all__ if isinstance(vars(by_hand)[name], manual.Op)]
    assert operations == plain.__all__


def test_every_file_of_the_reference_with_operations_is_a_topic():
    """Each file is verified as cases, save those that have tests of their own."""
    apart = {"descent", "hypergradients", "optimizers", "schedules"}
    files = {info.name for info in pkgutil.iter_modules(reference.__path__)}
    assert files - apart == set(TOPICS)


@manual.op
def square(x, *, factor=1.0):
    """y = factor · x².

    x: any shape. Returns the same shape.
    Backward: x̄ = 2 factor ȳ ∘ x.
    Raises TypeError for integers.
    Source: school.
    """
    return factor * x * x, x


class Row:
    function = "square"


def test_a_complete_operation_is_found_complete():
    square_with_backward = manual.Op(square.forward)
    square_with_backward.backward(lambda x, dy: (2 * x * dy,))
    assert missing("square", square_with_backward, lambda x, *, factor=1.0: x, [Row]) == []


@pytest.mark.parametrize(
    ("counterpart", "cases", "expected"),
    [
        (None, [Row], "reference has no square"),
        (lambda x: x, [Row], "the signatures differ"),
        (lambda x, *, factor=2.0: x, [Row], "the signatures differ"),
        (lambda x, *, factor=1.0: x, [], "no case of square"),
        (lambda x, *, factor=1.0: x, [Row], "square has no backward"),
    ],
)
def test_what_is_wanting_is_named(counterpart, cases, expected):
    assert any(expected in sentence for sentence in missing("square", square, counterpart, cases))


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        ("x: any shape. ", "shapes"),
        ("Returns the same shape.", "the shape of the result"),
        ("Backward", "the backward formula"),
        ("Raises TypeError for integers.", "what it raises"),
        ("Source", "a source"),
        ("factor", "speak of factor"),
    ],
)
def test_a_thin_docstring_is_named(cut, expected):
    thin = manual.Op(square.forward)
    thin.__doc__ = (square.__doc__ or "").replace(cut, "")
    if expected == "shapes":
        thin.__doc__ = thin.__doc__.replace("shape", "size")
    assert any(expected in sentence for sentence in missing("square", thin, None, []))
