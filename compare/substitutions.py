"""What an expression may lack, or hold in the place of another: names, factors, terms, slopes.

These are the edits that bring in what does not stand in the expression itself. There are very many;
what the expressions were in one run, their shapes above all, tells which of them may be meant.
"""

import ast
import dataclasses
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from handgrad.compare.edits import WHOLE, Edit, sites
from handgrad.compare.slips_of_calls import MODULES, Offers, Site

__all__ = ["Looks", "observe", "substitutions"]

LONGEST = 40  # characters of an expression that is brought in from elsewhere


@dataclasses.dataclass
class Looks:
    """What the expressions of some functions were in one run, and what each makes a difference to.

    shapes, fragments: by the text of an expression. complex, idle: nodes, by their id.
    """

    of_node: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    shapes: dict[str, set[tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    fragments: dict[str, Any] = dataclasses.field(default_factory=dict)
    complex: set[int] = dataclasses.field(default_factory=set)
    idle: set[int] = dataclasses.field(default_factory=set)

    def fits(self, site: Site, text: str, alike: bool) -> bool:
        """Whether it has the very shape, or one that makes the shape of the whole no larger."""
        mine, theirs = self.of_node.get(id(site.node)), self.shapes.get(text)
        if mine is None or theirs is None:
            return True
        return mine in theirs if alike else any(_spreads(shape, mine) for shape in theirs)

    def may_mend(self, site: Site) -> bool:
        """Not what makes a difference to a gradient that is right, or none to one that is wrong."""
        return not any(id(node) in self.idle for node in (*site.parents, site.node))


def _spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, over) == over
    except ValueError:
        return False


Run = Callable[[Callable[[int, Any], Any]], list | None]


def observe(
    tree: ast.AST, run: Run, told: Callable[[list], bool], seconds: float, into: Looks
) -> None:
    """Note what every expression of a function is, and which of its values may be at fault.

    run: puts the function, which calls the one it is given as `__noted__`, to work. told: whether
    another value somewhere, with these results, changes what is wrong and nothing else.
    """
    places = [site for site in sites(tree) if _has_value(site)]
    nodes = [site.node for site in places]
    texts = [ast.unparse(node) for node in nodes]
    floating: set[int] = set()

    def noted(k: int, value: Any) -> Any:
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if kind or type(value) in (int, float):
            shape = tuple(np.shape(value))
            into.of_node[id(nodes[k])] = shape
            into.shapes.setdefault(texts[k], set()).add(shape)
            if kind == "c":
                into.complex.add(id(nodes[k]))
            if kind in "fc" and kind:
                floating.add(k)
        return value

    def moved(k: int, rng: np.random.Generator) -> Callable[[int, Any], Any]:
        def noted(which: int, value: Any) -> Any:
            if which != k or not hasattr(value, "dtype") or value.dtype.kind not in "fc":
                return value
            return value * (1 + 1e-3 * rng.standard_normal(value.shape)) + 1e-3

        return noted

    for k, site in reversed([*enumerate(places)]):
        call = ast.Call(ast.Name("__noted__", ast.Load()), [ast.Constant(k), site.node], [])
        site.put(ast.fix_missing_locations(ast.copy_location(call, site.node)))
    try:
        run(noted)
        until = time.thread_time() + seconds
        for k in _roots(places):
            if time.thread_time() > until:
                break
            if k in floating:
                results = run(moved(k, np.random.default_rng(k)))
                if results is not None and not told(results):
                    into.idle.add(id(nodes[k]))
    finally:
        for site in places:
            site.put(site.node)
    for node, text in zip(nodes, texts, strict=True):
        if isinstance(node, WHOLE) and len(text) <= LONGEST and id(node) in into.of_node:
            into.fragments.setdefault(text, node)


def _roots(places: Sequence[Site]) -> list[int]:
    """Of every statement its values: those that are part of no other, tuples apart."""
    mine = {id(site.node) for site in places}
    return [
        k
        for k, site in enumerate(places)
        if not any(id(parent) in mine for parent in site.parents[_statement(site) :])
    ]


def _statement(site: Site) -> int:
    return max(k for k, p in enumerate(site.parents) if isinstance(p, ast.stmt | ast.Lambda))


def _has_value(site: Site) -> bool:
    called = isinstance(site.parent, ast.Call) and site.field == "func"
    module = isinstance(site.node, ast.Name) and site.node.id in MODULES
    if called or module or not isinstance(site.node, ast.Name | ast.Attribute | WHOLE):
        return False
    return isinstance(getattr(site.node, "ctx", ast.Load()), ast.Load)


def substitutions(
    tree: ast.FunctionDef, outer: tuple[str, ...] = (), looks: Looks | None = None
) -> Iterator[Edit]:
    """Another name for a name, a factor or a term that is missing; what fits by its shape first."""
    looks = looks or Looks()
    containers = _containers(tree)
    known: list[tuple[Site, list[str], list[str]]] = []  # with the names and expressions at hand
    for site in sites(tree):
        inside = [p for p in site.parents if isinstance(p, ast.FunctionDef)]
        names = list(dict.fromkeys(n for f in reversed(inside) for n in _values(f, outer)))
        if not _known(site, names) or not looks.may_mend(site):
            continue
        if isinstance(site.node, ast.Name) and site.node.id in containers:
            known.append((site, [n for n in names if n in containers - _filled(site)], []))
            continue
        names = [n for n in names if n not in containers]
        here = [t for t, node in looks.fragments.items() if _free(node) <= {*names, *MODULES}]
        known.append((site, names, here))
    for fitting in (True, False):
        for offers, alike in _BY_NAME:
            for site, names, _ in known:
                chosen = [n for n in names if looks.fits(site, n, alike) is fitting]
                for cause, new in offers(site, chosen):
                    yield Edit(cause, site, new)
        if not fitting:
            return
        for site, _, _ in known:
            if id(site.node) in looks.complex and not isinstance(site.node, ast.Constant):
                yield Edit("not conjugated", site, _call("jnp.conj", site.node))
        for offers, alike in _BY_TEXT:
            for site, _, texts in known:
                for cause, new in offers(site, [t for t in texts if looks.fits(site, t, alike)]):
                    yield Edit(cause, site, new)


def _containers(tree: ast.AST) -> set[str]:
    """The names of lists and dictionaries: what is put into one is no container, least of all it.

    One that holds itself has no end: neither NumPy nor JAX survives it.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=False)  # *some, last = 1, 2, 3
                found |= {t.id for t, v in pairs if isinstance(t, ast.Name) and _contains(v)}
    return found


def _contains(value: ast.AST) -> bool:
    if isinstance(value, ast.BinOp):  # [None] * steps
        return _contains(value.left) or _contains(value.right)
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in ("list", "dict", "defaultdict")
    return isinstance(value, ast.List | ast.Dict | ast.ListComp | ast.DictComp)


def _filled(site: Site) -> set[str]:
    """The containers that the statement of this site puts something into."""
    names = set()
    for node in site.parents:
        targets = node.targets if isinstance(node, ast.Assign) else []
        bases = [t.value for t in targets if isinstance(t, ast.Subscript | ast.Attribute)]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            bases.append(node.func.value)  # .append, .insert, .update
        names |= {n.id for base in bases for n in ast.walk(base) if isinstance(n, ast.Name)}
    return names


def _known(site: Site, values: list[str]) -> bool:
    node = site.node
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Load) and node.id in values
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float) and isinstance(site.parent, ast.BinOp)
    return isinstance(node, WHOLE)


def _free(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _expression(text: str) -> Any:
    return ast.parse(text, mode="eval").body


def _call(function: str, value: Any) -> ast.Call:
    return ast.Call(_expression(function), [value], [])


def _other_names(site: Site, values: Sequence[str]) -> Offers:
    if isinstance(site.node, ast.Name):
        for name in values:
            if name != site.node.id:
                yield "wrong operand", _expression(name)


def _for_numbers(site: Site, values: Sequence[str]) -> Offers:
    if isinstance(site.node, ast.Constant) and isinstance(site.parent.op, ast.Add | ast.Sub):
        for name in values:
            yield "wrong operand", _expression(name)


def _factors(site: Site, values: Sequence[str]) -> Offers:
    if _arithmetic(site):
        for text in values:
            yield "a factor left out", ast.BinOp(_expression(text), ast.Mult(), site.node)
            if not isinstance(site.node, ast.Name):
                yield "a factor too many", ast.BinOp(site.node, ast.Div(), _expression(text))


def _terms(site: Site, values: Sequence[str]) -> Offers:
    if _arithmetic(site) and not isinstance(site.node, ast.Name):
        for text in values:
            yield "a term left out", ast.BinOp(site.node, ast.Add(), _expression(text))
            yield "a term left out", ast.BinOp(site.node, ast.Sub(), _expression(text))
    elif _arithmetic(site):
        for text in values:
            if text != site.node.id:
                yield "a term left out", ast.BinOp(_expression(text), ast.Add(), site.node)


def _slopes(site: Site, values: Sequence[str]) -> Offers:
    if not _arithmetic(site):
        return
    for form in _SLOPES if isinstance(site.node, ast.Name) else _SLOPES[:5]:
        for name in values:
            if not isinstance(site.node, ast.Name) or name != site.node.id:
                slope = _expression(form.replace("v", name))
                yield "a factor left out", ast.BinOp(site.node, ast.Mult(), slope)
    match site.node:
        case ast.BinOp(ast.Constant(1), ast.Sub(), _):
            for name in values:
                product = ast.BinOp(_expression(name), ast.Mult(), site.node)
                whole = ast.BinOp(ast.Constant(1), ast.Add(), product)
                yield "the slope of the sigmoid for that of silu", whole


def _matrices(site: Site, values: Sequence[str]) -> Offers:
    if not _arithmetic(site):
        return
    for name in values:
        for text in (name, f"{name}.T"):
            yield "a factor left out", ast.BinOp(_expression(text), ast.MatMult(), site.node)
            yield "a factor left out", ast.BinOp(site.node, ast.MatMult(), _expression(text))
        column = _expression(f"{name}[:, None]")
        yield "a factor left out", ast.BinOp(column, ast.Mult(), site.node)
        for form in ("jnp.where(v > 0, e, -1e30)", "jnp.where(v > 0, e, 0.0)"):
            if _MASK.search(name):
                masked = _expression(form.replace("v", name))
                masked.args[1] = site.node
                yield "a mask left out", masked
    if isinstance(site.node, ast.Name):
        whole = ast.BinOp(site.node, ast.Add(), ast.Attribute(site.node, "T", ast.Load()))
        yield "not symmetrised", ast.BinOp(whole, ast.Div(), ast.Constant(2))


def _other_expressions(site: Site, values: Sequence[str]) -> Offers:
    own = ast.unparse(site.node)
    for text in values:
        if text != own and not isinstance(site.node, ast.Constant):
            yield "wrong operand", _expression(text)


# Those that need the very shape of what stands there, and those that may spread over it.
_BY_NAME: tuple[tuple[Callable[[Site, Sequence[str]], Offers], bool], ...] = (
    (_other_names, True), (_factors, False), (_terms, False), (_slopes, False),
    (_for_numbers, False), (_matrices, False),
)  # fmt: skip
_BY_TEXT: tuple[tuple[Callable[[Site, Sequence[str]], Offers], bool], ...] = (
    (_factors, False), (_other_expressions, True), (_terms, True),
)  # fmt: skip


# What the chain rule leaves behind a nonlinearity.
_MASK = re.compile("mask|keep|kept|valid|allow|causal|seen|drop")
_SLOPES = (
    "(1 - v)", "(1 - v**2)", "(v * (1 - v))", "(v > 0)", "v.sum(-1, keepdims=True)",
    "(v > 0)[:, None]", "jnp.sign(v)",
)  # fmt: skip


def _values(tree: ast.FunctionDef, outer: tuple[str, ...]) -> list[str]:
    """The arguments and local variables, those of inner functions apart; numbers from outside."""
    inner: set[str] = set()
    found = [a.arg for a in ast.walk(tree.args) if isinstance(a, ast.arg)]
    waiting: list[ast.AST] = list(reversed(tree.body))
    while waiting:
        node = waiting.pop()
        match node:
            case ast.FunctionDef(name):
                inner.add(name)
                continue
            case ast.arg(name) | ast.Name(name, ast.Store()):
                found.append(name)
        waiting += reversed([*ast.iter_child_nodes(node)])
    return [n for n in dict.fromkeys([*found, *outer]) if n not in inner]


def _arithmetic(site: Site) -> bool:
    """A value, not an index, a test or an argument that says how."""
    inside = (ast.Subscript, ast.Compare, ast.keyword, ast.For)
    return not any(isinstance(p, inside) for p in site.parents[-3:])
