"""The rooms are independent: no autodiff in manual/, and nobody looks into another room.

The syntax tree of every file is walked (`offences`), rather than its text searched, so that an
alias does not hide a derivative; and the operations are run with autodiff taken out of JAX.
"""

import ast
import importlib
import types
from pathlib import Path

import jax
import pytest
from jax._src.interpreters import ad

from handgrad import manual
from handgrad.compare.cases import load

ROOT = Path(__file__).parent.parent
FILES = {room: sorted((ROOT / room).rglob("*.py")) for room in ("manual", "reference", "compare")}

AUTODIFF = """
    grad value_and_grad vjp vjp3 jvp linearize linear_transpose jacobian jacfwd jacrev hessian
    fwd_and_bwd saved_input_vjp si_vjp custom_vjp custom_jvp custom_gradient custom_derivatives
    closure_convert jet lax.custom_root lax.custom_linear_solve lax.linear_solve_p
    numpy.linalg.lstsq_jvp scipy.optimize interpreters ad_checkpoint experimental extend
    example_libraries test_util _src api_util stages
""".split()
PACKAGES = (
    "jax",
    "numpy",
    "optax",
    "scipy",
)  # may be imported; of other packages only the standard
# of these names there is only one, on whatever object they are found; "grad" may be a field's name
ONLY_AUTODIFF = """
    value_and_grad vjp jvp linearize linear_transpose jacfwd jacrev custom_vjp custom_jvp
    custom_gradient
""".split()
BUILTINS = ("__import__", "eval", "exec", "compile", "globals", "locals", "vars", "breakpoint")
STANDARD = """
    __future__ abc collections collections.abc contextlib copy dataclasses difflib enum fractions
    functools heapq importlib inspect itertools math numbers operator re statistics string textwrap
    types typing warnings
""".split()


def forbidden_objects():
    """The autodiff functions themselves: whatever path they are reached by, they are these."""
    found = set()
    for name in AUTODIFF:
        value = jax
        for part in name.split("."):
            value = getattr(value, part, None)
        if callable(value):
            found.add(id(value))
    return found


FORBIDDEN = forbidden_objects()


def module(path):
    """The module of that dotted path, or None where the path names something else."""
    try:
        return importlib.import_module(path)
    except ImportError:
        return None


def reached(path):
    """The object of a dotted path, or None."""
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        value = module(".".join(parts[:cut]))
        if value is not None:
            for part in parts[cut:]:
                value = getattr(value, part, None)
            return value
    return None


def offences(source, room="manual", *, may_define_rules=False):
    """What the source must not do, as sentences with their line; an empty list where it is clean.

    `room` is the folder it stands in: for "reference" autodiff is none of its business either,
    but it is only held to keeping out of the other rooms, as everything is.
    """
    tree = ast.parse(source)
    aliases, found = {}, []

    def offend(node, what):
        found.append(f"line {node.lineno}: {what}")

    def imported(node, path):
        top = path.split(".")[0]
        others = {
            "manual": ("reference", "compare"),
            "reference": ("manual", "compare"),
            "compare": (),
        }[room]
        if path == "handgrad":
            offend(node, "imports handgrad as a whole, and with it every room")
        elif top == "handgrad" and path.split(".")[1] in others:
            offend(node, f"imports {path}, which is another room")
        elif room == "manual" and top not in ("handgrad", *PACKAGES) and path not in STANDARD:
            offend(node, f"imports {path}, which is not known to be free of autodiff")
        elif room == "manual":
            judge(node, path)

    def judge(node, path):
        """A name or attribute that leads to autodiff, by its path or by what it is."""
        top, *rest = path.split(".")
        if top != "jax":
            return
        if may_define_rules and path == "jax.custom_vjp":
            return
        names = [n for n in AUTODIFF if path == f"jax.{n}" or path.startswith(f"jax.{n}.")]
        if names or id(reached(path)) in FORBIDDEN:
            offend(node, f"reaches autodiff by {path}")
        elif any(part.startswith("_") for part in rest):
            offend(node, f"looks inside JAX by {path}")

    def dotted(node):
        """The path of a chain of attributes that starts at an imported name, or None."""
        if isinstance(node, ast.Name):
            return aliases.get(node.id)
        if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
            return f"{base}.{node.attr}"
        return None

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                imported(node, name.name)
                bound = name.name if name.asname else name.name.split(".")[0]
                aliases[name.asname or bound] = bound
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                offend(node, "imports relatively")
                continue
            if node.module == "importlib" and room == "manual":
                offend(node, "imports from importlib; its use could not be followed")
            for name in node.names:
                path = f"{node.module}.{name.name}"
                star = name.name == "*"
                if star and node.module.split(".")[0] != "handgrad":
                    offend(node, f"imports * from {node.module}")
                # in `from a import b`, b is a module of its own or an attribute of a
                whole = star or (node.module != "handgrad" and module(path) is None)
                imported(node, node.module if whole else path)
                if room == "manual" and whole and not star:
                    judge(node, path)
                aliases[name.asname or name.name] = path
    if room != "manual":
        return found

    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}

    def own_submodule(node):
        """importlib.import_module(f"{__name__}.…") and nothing else of importlib."""
        call = parents.get(parents.get(node))
        return (
            isinstance(call, ast.Call)
            and ast.unparse(call.func) == "importlib.import_module"
            and len(call.args) == 1
            and isinstance(call.args[0], ast.JoinedStr)
            and ast.unparse(call.args[0]).startswith(("f'{__name__}.", 'f"{__name__}.'))
        )

    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in BUILTINS and node.id not in aliases:
            offend(node, f"uses {node.id}, behind which anything may hide")
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "getattr":
            for name in node.args[1:2]:
                if isinstance(name, ast.Constant) and name.value in AUTODIFF:
                    offend(node, f"gets the attribute {name.value}")
        if not isinstance(node, ast.Name | ast.Attribute):
            continue
        path = dotted(node)
        if path is None:
            if isinstance(node, ast.Attribute) and node.attr in ONLY_AUTODIFF:
                offend(node, f"uses {node.attr}, wherever it comes from")
            continue
        if isinstance(node, ast.Attribute):
            judge(node, path)
        if path == "importlib" and not own_submodule(node):
            offend(node, "uses importlib beyond its own submodules")
        value = reached(path) if path.split(".")[0] == "jax" else None
        as_base = isinstance(parents.get(node), ast.Attribute)
        if isinstance(value, types.ModuleType) and not as_base:
            offend(node, f"hands the module {path} around, so that its use cannot be followed")
    return found


@pytest.mark.parametrize("file", FILES["manual"], ids=lambda f: str(f.relative_to(ROOT)))
def test_nothing_in_manual_calls_autodiff(file):
    # op.py alone tells JAX about the rules that are written by hand
    found = offences(file.read_text(), may_define_rules=file == ROOT / "manual" / "op.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("file", FILES["reference"], ids=lambda f: str(f.relative_to(ROOT)))
def test_reference_knows_no_other_room(file):
    found = offences(file.read_text(), room="reference")
    assert not found, "\n".join(found)


def test_the_walk_finds_the_files():
    assert ROOT / "manual" / "activations.py" in FILES["manual"]
    assert ROOT / "reference" / "losses.py" in FILES["reference"]


def test_only_op_tells_jax_about_rules():
    source = (ROOT / "manual" / "op.py").read_text()
    assert {line.split(": ")[1] for line in offences(source)} == {
        "reaches autodiff by jax.custom_vjp"
    }


@pytest.mark.parametrize(
    "planted",
    [
        "import jax\njax.grad(f)",
        "import jax as j\ndef g(x):\n    return j.vjp(f, x)",
        "import jax\ng = jax.value_and_grad",
        "from jax import grad",
        "from jax import jacfwd as numpy",
        "def late():\n    from jax import hessian as h\n    return h",
        "import jax\nd = jax\nd.grad(f)",
        "import jax\n(d := jax).grad(f)",
        "import jax\ndef f(x, j=jax):\n    return j.grad",
        "import jax\nfor j in (jax,):\n    j.jvp(f)",
        "import jax\ngetattr(jax, 'gr' + 'ad')(f)",
        "import jax\nfrom operator import attrgetter\nattrgetter('grad')(jax)",
        "import jax\njax.__dict__['grad']",
        "import jax\nvars(jax)['grad']",
        "import sys\nsys.modules['jax'].grad",
        "__import__('jax').grad",
        "import importlib\nimportlib.import_module('jax').grad",
        "import importlib\nload = importlib.import_module",
        "from importlib import import_module\nimport_module('jax').grad",
        "eval('jax.grad')",
        "exec('import jax')",
        "import builtins\nbuiltins.eval('1')",
        "import jax\njax.linearize(f, 1.0)",
        "import jax\njax.linear_transpose(f, 1.0)",
        "import jax\n@jax.custom_jvp\ndef f(x): ...",
        "import jax\n@jax.custom_vjp\ndef f(x): ...",
        "import jax\njax.custom_gradient(f)",
        "from jax.custom_derivatives import custom_jvp",
        "import jax.experimental.jet",
        "from jax.experimental import jet",
        "from jax.example_libraries import stax",
        "from jax import experimental",
        "import jax.test_util",
        "from jax.interpreters import ad",
        "import jax.interpreters.ad as numpy",
        "from jax._src.api import grad",
        "from jax._src import api",
        "import jax._src.api as a",
        "import jax\njax._src.api.grad(f)",
        "from jax.extend import core",
        "from jax import *",
        "from jax.numpy import *",
        "import jax.numpy as jnp\nuse(jnp)",
        "import jax\njax.scipy.optimize.minimize(f, x)",
        "from jax.scipy.optimize import minimize",
        "from jax import lax\nlax.custom_root(f, x, g, h)",
        "import inspect\nimport jax.numpy as jnp\ninspect.getmodule(jnp.ones).vjp(f)",
        "getattr(thing, 'grad')(f)",
        "import torch",
        "import tensorflow as tf",
        "import autograd.numpy as np",
        "from flax import nnx",
        "import chex",
        "from handgrad.reference import sigmoid",
        "import handgrad.reference.activations",
        "from handgrad import reference",
        "from handgrad import reference as manual",
        "from handgrad.compare.check import check",
        "import handgrad",
        "from . import activations",
        "from .activations import tanh",
    ],
)
def test_planted_offenders_are_found(planted):
    assert offences(planted)


@pytest.mark.parametrize(
    "innocent",
    [
        "import jax\nimport jax.numpy as jnp\ny = jax.nn.sigmoid(jnp.ones(3))",
        "from jax import lax\ny = lax.logistic(1.0)",
        "from jax.scipy.special import xlogy",
        "import jax\nf = jax.jit(jax.vmap(jax.checkpoint(g)))",
        "import jax\ndef f(x: jax.Array) -> jax.Array: ...",
        "class Node:\n    grad = 0\n\ndef f(node):\n    node.grad += 1",
        "grad = 3",
        "from handgrad.manual.op import op",
        "from handgrad.manual import activations\ng = getattr(activations, 'tanh')",
        "import importlib\nm = importlib.import_module(f'{__name__}.topic')",
        "text = 'jax.grad(f) is not called'",
    ],
)
def test_innocent_code_is_not_accused(innocent):
    assert not offences(innocent)


@pytest.mark.parametrize(
    ("room", "planted"),
    [
        ("reference", "from handgrad.manual import tanh"),
        ("reference", "from handgrad import manual"),
        ("reference", "import handgrad.manual.op"),
        ("reference", "from handgrad.compare.cases import Case"),
        ("reference", "import handgrad"),
    ],
)
def test_visits_to_other_rooms_are_found(room, planted):
    assert offences(planted, room)
    assert not offences("import jax\njax.grad(f)", room)


@pytest.fixture
def no_autodiff(monkeypatch):
    """JAX without a derivative: both traces that autodiff works by refuse to start."""

    def refuse(*args, **kwargs):
        raise AssertionError("autodiff was called")

    jax.clear_caches()  # or a cached trace of an inner jit might hide it
    monkeypatch.setattr(ad.JVPTrace, "__init__", refuse)
    monkeypatch.setattr(ad.LinearizeTrace, "__init__", refuse)


@pytest.mark.parametrize(
    "derive",
    [
        lambda f: jax.grad(f)(1.0),
        lambda f: jax.vjp(f, 1.0),
        lambda f: jax.jvp(f, (1.0,), (1.0,)),
        lambda f: jax.linearize(f, 1.0),
        lambda f: jax.make_jaxpr(jax.jit(jax.jacrev(f)))(1.0),
    ],
)
def test_jax_without_autodiff_is_really_without(no_autodiff, derive):
    with pytest.raises(AssertionError, match="autodiff was called"):
        derive(lambda x: x * x)


def test_every_forward_and_backward_runs_in_a_jax_without_autodiff(no_autodiff):
    for case in load():
        op = getattr(manual, case.function)
        if not isinstance(op, manual.Op):
            continue

        def both(*args, op=op, config=case.config):
            y, residuals = op.forward(*args, **config)
            return op.pullback(residuals, y, **config)

        jax.make_jaxpr(both)(*jax.tree.map(jax.numpy.asarray, case.draw()))
