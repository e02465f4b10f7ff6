"""The decorators, and what is found in a file that uses them."""

import dataclasses
import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from handgrad import compare
from handgrad.compare import backward_of, declare, gradient_of, same_as, suite
from handgrad.compare.cases import normal
from handgrad.compare.mistake import Mistake
from handgrad.compare.targets import targets

X = np.array([0.3, -1.2, 0.8])


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    """What a test declares and imports is forgotten after it."""
    monkeypatch.setattr(declare, "_DECLARED", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    suite._in_file.cache_clear()


def softmax_backward(x, dy):
    p = jax.nn.softmax(x)
    return (p * (dy - jnp.sum(dy * p)),)


def test_a_decorator_returns_its_function_and_records_it():
    options = {"argnums": [0], "name": "mine"}
    assert backward_of(jax.nn.softmax, X, **options)(softmax_backward) is softmax_backward
    (declared,) = declare.declared()
    assert declared == declare.Declaration(
        softmax_backward, jax.nn.softmax, "backward", (X,), (0,), "mine", __file__
    )


def test_each_decorator_stands_for_its_check():
    backward_of(jax.nn.softmax, X)(softmax_backward)
    gradient_of(jnp.sum, X)(jnp.ones_like)
    same_as(jnp.tanh, X)(jnp.tanh)
    found = [(d.kind, d.name, d.argnums) for d in declare.declared()]
    assert found == [
        ("backward", "softmax_backward", None),
        ("gradient", "ones_like", None),
        ("function", "tanh", None),
    ]


def test_names_of_functions_without_one():
    same_as(jnp.tanh, X)(functools.partial(jnp.tanh))
    same_as(jnp.tanh, X)(jax.custom_vjp(jnp.tanh))

    class Callable:
        def __call__(self, x):
            return x

    same_as(jnp.tanh, X)(Callable())
    assert [d.name for d in declare.declared()] == ["tanh", "tanh", "Callable"]


def test_decorators_are_exported():
    assert compare.backward_of is backward_of
    assert {"backward_of", "gradient_of", "same_as"} <= set(compare.__all__) <= set(dir(compare))


def test_the_function_check_is_not_hidden_by_the_module_it_stands_in():
    program = (
        "import sys, handgrad.compare as compare; assert 'jax' not in sys.modules\n"
        "import handgrad.compare.check; from handgrad.compare import check\n"
        "assert check is compare.check is sys.modules['handgrad.compare.check'].check\n"
        "try: compare.chekc\n"
        "except AttributeError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "module 'handgrad.compare' has no attribute 'chekc'\n"


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        (
            lambda: backward_of(jax.nn.softmax),
            "backward_of has no sample inputs; give what the function is to be verified at: "
            "@backward_of(softmax, x, ...)",
        ),
        (
            lambda: same_as(X),
            f"the first argument of same_as is {X!r}; it must be the function that the "
            "derivation belongs to: @same_as(function, x, ...)",
        ),
        (
            lambda: gradient_of(jnp.sum, X)(X),
            f"gradient_of decorates a function, not {X!r}",
        ),
    ],
)
def test_mistakes_are_told_where_they_are_made(mistake, sentence):
    with pytest.raises(TypeError) as raised:
        mistake()
    assert str(raised.value) == sentence
    assert declare.declared() == ()


def test_a_decorator_without_parentheses_is_told_at_once():
    with pytest.raises(TypeError, match="backward_of has no sample inputs"):
        backward_of(softmax_backward)


# --- files ---------------------------------------------------------------------------------------

FILE = """
import jax, jax.numpy as jnp, numpy as np
from handgrad.compare import backward_of, gradient_of, same_as
from handgrad.compare.cases import normal
import neighbour

x = np.array([0.3, -1.2, 0.8])

@backward_of(jax.nn.softmax, normal(4, 3), name="rows")
@backward_of(jax.nn.softmax, x)
@backward_of(jax.nn.softmax, np.ones(1))
def softmax_backward(x, dy):
    p = jax.nn.softmax(x)
    return (p * (dy - (dy * p).sum(-1, keepdims=True)),)

@gradient_of(lambda x, *, k: jnp.sum(x**2), x)
def no_such_argument(x):
    return 2 * x
"""
NEIGHBOUR = """
import jax.numpy as jnp
from handgrad.compare import gradient_of
@gradient_of(jnp.sum, [1.0])
def of_the_neighbour(x): return x
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "neighbour.py").write_text(NEIGHBOUR)
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    yield str(path)
    sys.modules.pop("neighbour", None)


def test_a_file_gives_its_own_declarations_in_order(file):
    contents = suite.contents(file, "mine.py")
    assert not contents.problem
    assert [(item.id, item.function, item.sample) for item in contents.items] == [
        ("mine.py::softmax_backward[1]", "softmax_backward", "1"),
        ("mine.py::softmax_backward[2]", "softmax_backward", "3"),
        ("mine.py::rows", "rows", "4×3"),
        ("mine.py::no_such_argument", "no_such_argument", "3"),
    ]
    assert all(item.topic == "mine.py" and item.origin == file for item in contents.items)


def test_what_a_file_imports_belongs_to_the_file_it_stands_in(file):
    neighbour = file.replace("mine.py", "neighbour.py")
    suite.contents(file, "mine.py")  # which has imported it
    items = suite.contents(neighbour, "neighbour.py").items
    assert [item.id for item in items] == ["neighbour.py::of_the_neighbour"]


def test_a_declaration_is_examined_with_its_options(file):
    *items, bad = suite.contents(file, "mine.py").items
    verdicts = [suite.examine(item, seed=3, scale=1.0) for item in items]
    assert [v.status for v in verdicts] == ["right"] * 3
    assert verdicts[2].text.startswith("✓ mine.py::rows: the derivation is right")
    assert verdicts[2].verified == 1
    assert verdicts[2].data["seed"] == 3
    assert suite.examine(bad, 0, 1.0).status == "not compared"


def test_drawn_inputs_depend_on_seed_and_scale_and_on_nothing_else(file):
    def inputs(seed, scale):
        drawn = []

        def spy(x, dy):
            drawn.append(np.asarray(x).copy())
            return (dy,)

        backward_of(lambda x: x, normal(2, 2))(spy)
        declaration = dataclasses.replace(declare.declared()[-1], file=file)
        _, examination, _ = suite.REGISTRIES["declare"](declaration, "spied", file)
        examination(seed, scale)
        return next(x for x in drawn if x.dtype == np.float64)

    assert (inputs(0, 1.0) == inputs(0, 1.0)).all()
    assert (inputs(0, 1.0) != inputs(1, 1.0)).all()
    np.testing.assert_array_equal(inputs(0, 4.0), 4 * inputs(0, 1.0))


@pytest.mark.parametrize(
    ("text", "problem", "traceback"),
    [
        (
            "import numpy",
            "f.py declares nothing to verify: put @backward_of(function, *inputs), @gradient_of "
            "or @same_as, from handgrad.compare, above a derivation",
            "",
        ),
        (
            "def g():\n    return 1 / 0\ng()\n",
            "f.py cannot be used: it raised ZeroDivisionError: division by zero",
            "return 1 / 0",
        ),
        (
            "def f(:\n",
            "f.py cannot be used: it raised SyntaxError: invalid syntax (f.py, line 1)",
            "def f(:",
        ),
        (
            "from handgrad.compare import backward_of\nbackward_of(3, 4)\n",
            "f.py cannot be used: it raised TypeError: the first argument of backward_of is 3; it "
            "must be the function that the derivation belongs to: @backward_of(function, x, ...)",
            "backward_of(3, 4)",
        ),
        ("import sys; sys.exit(2)", "f.py cannot be used: it raised SystemExit: 2", "sys.exit(2)"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path, text, problem, traceback):
    path = tmp_path / "f.py"
    path.write_text(text)
    contents = suite.contents(str(path), "f.py")
    assert (contents.items, contents.problem) == ((), problem)
    assert traceback in contents.traceback
    assert "handgrad/compare" not in contents.traceback
    assert "main/compare" not in contents.traceback


KEYS = """
import jax, jax.numpy as jnp
from handgrad.compare import backward_of
from handgrad.compare.cases import normal

def kept(x, key):
    return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0.0)

@backward_of(kept, normal(3), jax.random.key(0))
def dropped(x, key, dy):
    return kept(dy, key), None

@backward_of(kept, normal(3), jax.random.key(0))
def wrong(x, key, dy):
    return dy, None

@backward_of(jnp.square, normal("three"))
def never_drawn(x, dy):
    return 2 * x * dy
"""


def test_a_key_is_an_input_and_inputs_that_cannot_be_drawn_fail_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.py").write_text(KEYS)
    contents = suite.contents(str(tmp_path / "f.py"), "f.py")
    assert not contents.problem
    one, two, bad = contents.items
    assert one.sample == "3, key<fry> scalar"
    assert [suite.examine(item, 0, 1.0).status for item in (one, two)] == ["right", "wrong"]
    verdict = suite.examine(bad, 0, 1.0)
    assert verdict.status == "not compared"
    said = "its sample inputs cannot be drawn: TypeError: 'str' object cannot be interpreted as"
    assert verdict.text.startswith(f"✗ f.py::never_drawn: not compared\n  {said}")
    assert verdict.data["problem"].endswith("; a shape is written normal(3, 4)")
    assert [t.id for t in targets("f.py::dropped", 0)] == ["f.py::dropped"]
    with pytest.raises(Mistake, match=f"f.py::never_drawn: {said}"):
        targets("f.py", 0)


OTHERS = """
import jax.numpy as jnp, optax
from handgrad.compare.derivation import Derivation
from handgrad.compare.optimizer import declare_optimizer

(Derivation("square", lambda x: jnp.sum(x**2), wrt="x", sample={"x": (3,)})
    .line("2x", lambda x: 2 * x))
(Derivation("cube", lambda x: jnp.sum(x**3), wrt="x", sample={"x": (3,)})
    .line("2x", lambda x: 2 * x).line("3x^2", lambda x: 3 * x**2))
declare_optimizer(optax.sgd(0.1), optax.sgd(0.1), name="sgd")
declare_optimizer(optax.sgd(0.2), optax.sgd(0.1), name="other rate")
"""


def test_derivations_and_optimizers_of_a_file_are_found_too(tmp_path):
    path = tmp_path / "f.py"
    path.write_text(OTHERS)
    items = suite.contents(str(path), "f.py").items
    verdicts = {item.function: suite.examine(item, 0, 1.0) for item in items}
    assert {name: v.status for name, v in verdicts.items()} == {
        "square": "right", "cube": "wrong", "sgd": "right", "other rate": "wrong",
    }  # fmt: skip
    assert verdicts["square"].verified == 1
    assert verdicts["cube"].text.startswith("✗ cube")
    assert verdicts["sgd"].text.startswith("✓ sgd: in step")
    assert verdicts["other rate"].text.startswith("✗ other rate: not in step")
    assert [item.sample for item in items[:2]] == ["1 line", "2 lines"]
