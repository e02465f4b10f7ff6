"""The edits of a piece of source: what people write wrongly in one place of a derivation.

Where `mutations` changes what an equation computes, this changes what was written: axes, orders,
indices, parentheses, keyword arguments. An edit can be put in and taken back, so one syntax tree
serves them all.
"""

import ast
import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from handgrad.compare.slips import SLIPS
from handgrad.compare.slips_of_calls import MODULES, Offers, Site

LONGEST = 90  # characters of an expression that is quoted whole


@dataclasses.dataclass(frozen=True)
class Edit:
    """One node for another, here and perhaps in the same way elsewhere."""

    cause: str  # "wrong axis"
    site: Site
    new: Any
    likewise: tuple["Edit", ...] = ()

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        every = (self, *self.likewise)
        for edit in every:
            new = ast.fix_missing_locations(ast.copy_location(edit.new, edit.site.node))
            edit.site.put(new)
        try:
            yield
        finally:
            for edit in reversed(every):
                edit.site.put(edit.site.node)

    @property
    def line(self) -> int:
        return self.site.node.lineno

    @property
    def likely(self) -> bool:
        return self.cause not in _UNLIKELY

    def words(self) -> str:
        """`write new for old`, in an expression large enough to be found."""
        shown = self._shown()
        old = ast.unparse(shown)
        with self.applied():
            new = ast.unparse(self.new if shown is self.site.node else shown)
        if isinstance(self.new, ast.Pass):
            return f"{self.cause}: leave out `{_short(old)}`"
        return f"{self.cause}: write `{_short(new)}` for `{_short(old)}`"

    def _shown(self) -> ast.AST:
        if self.likewise:
            inside = [p for p in self.site.parents if isinstance(p, ast.stmt)]
            return inside[-1] if inside else self.site.parents[0]
        shown = self.site.node
        for wider in reversed(self.site.parents):
            text = ast.unparse(shown)
            enough = isinstance(shown, ast.stmt) or (isinstance(shown, _WHOLE) and len(text) > 2)
            if enough or not isinstance(wider, ast.expr | ast.keyword | ast.Slice | ast.stmt):
                break
            if isinstance(wider, ast.stmt) and len(ast.unparse(wider)) > LONGEST:
                break
            shown = wider
        return shown


_UNLIKELY = {
    "wrong operation", "wrong function", "added where it is to be set", "another axis",
    "a condition too many", "an index too many", "overwritten where it is to be added to",
}  # fmt: skip
_WHOLE = (ast.BinOp, ast.UnaryOp, ast.Call, ast.Subscript, ast.Compare, ast.IfExp, ast.BoolOp)


def _short(text: str) -> str:
    text = " ".join(text.split())
    text = text.replace("+ -", "- ").replace("- -", "+ ")  # as one writes it
    text = re.sub(r"(?<![\w)\]])--(?=\d)", "", text)
    text = re.sub(r" ([-+]) (\d+) (?!\1)[-+] \2\b(?! ?[*/@.])", "", text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def sites(tree: ast.AST) -> Iterator[Site]:
    """Every expression and statement inside a function, in the order of the source."""

    def below(node: ast.AST, parents: tuple[ast.AST, ...]) -> Iterator[Site]:
        for field, value in ast.iter_fields(node):
            if field in _UNTOUCHED:
                continue
            for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(child, ast.expr | ast.stmt | ast.keyword):
                    yield Site(child, (*parents, node), field, index)
                if isinstance(child, ast.AST):
                    yield from below(child, (*parents, node))

    return below(tree, ())


_UNTOUCHED = {"decorator_list", "returns", "annotation", "type_params", "ctx", "op", "ops"}


def edits(tree: ast.AST) -> Iterator[Edit]:
    """The likely ones: nothing is brought in that does not stand in the expression itself."""
    for site in sites(tree):
        if _documentation(site) or any(isinstance(p, ast.While) for p in site.parents):
            continue  # a loop that is edited may never end
        for kind, offers in SLIPS:
            if isinstance(site.node, kind):
                for cause, new in offers(site):
                    yield Edit(cause, site, new)


def together(tree: ast.AST) -> Iterator[Edit]:
    """Slices of one statement dropped together; one expression edited wherever it stands."""
    sliced: dict[int, list[Edit]] = {}
    alike: dict[tuple, list[Edit]] = {}
    for edit in edits(tree):
        statement = next((p for p in reversed(edit.site.parents) if isinstance(p, ast.stmt)), None)
        if edit.cause == "an index too many" and _slices(edit.site.node):
            sliced.setdefault(id(statement), []).append(edit)
        if isinstance(edit.site.node, ast.expr) and statement is not None:
            key = edit.cause, ast.dump(edit.site.node), ast.dump(edit.new)
            alike.setdefault(key, []).append(edit)
    yield from _renamed(tree)
    for group in sliced.values():
        if len(group) > 1:
            yield dataclasses.replace(group[0], cause="off by one", likewise=tuple(group[1:]))
    for group in alike.values():
        apart = all(not set(_below(a)) & set(_above(b)) for a in group for b in group if a is not b)
        if len(group) > 1 and apart:
            yield dataclasses.replace(group[0], likewise=tuple(group[1:]))


def _renamed(tree: ast.AST) -> Iterator[Edit]:
    """Two names exchanged wherever they stand in one value."""
    named: dict[int, dict[str, list[Site]]] = {}
    for site in sites(tree):
        node = site.node
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        if node.id not in MODULES and not _is_called(site):
            within = [*site.parents, node]
            while not isinstance(within[0], ast.expr) or isinstance(within[0], ast.Tuple):
                within = within[1:]
            named.setdefault(id(within[0]), {}).setdefault(node.id, []).append(site)
    for places in named.values():
        for a, b in itertools.combinations(places, 2):
            renamed = [
                Edit("order exchanged", site, ast.Name(new, ast.Load()))
                for old, new in ((a, b), (b, a))
                for site in places[old]
            ]
            yield dataclasses.replace(renamed[0], likewise=tuple(renamed[1:]))


def _is_called(site: Site) -> bool:
    return isinstance(site.parent, ast.Call) and site.field == "func"


def _slices(node: ast.Subscript) -> bool:
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return any(isinstance(p, ast.Slice) for p in parts)


def _below(edit: Edit) -> list[int]:
    return [id(n) for n in ast.walk(edit.site.node)]


def _above(edit: Edit) -> list[int]:
    return [*map(id, edit.site.parents), id(edit.site.node)]


def substitutions(tree: ast.FunctionDef, outer: tuple[str, ...] = ()) -> Iterator[Edit]:
    """The others: another name for a name, a factor or a term that an expression lacks."""
    everywhere = [site for site in sites(tree) if _known(site, _values(tree, outer))]
    containers = _containers(tree)
    for offers in (_other_names, _factors, _terms, _slopes, _matrices):
        for site in everywhere:
            inside = [p for p in site.parents if isinstance(p, ast.FunctionDef)]
            names = _values(inside[-1] if inside else tree, outer)
            if isinstance(site.node, ast.Name) and site.node.id in containers:
                names = [n for n in names if n in containers - _filled(site)]
            else:
                names = [n for n in names if n not in containers]
            for cause, new in offers(site, names):
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
    return isinstance(node, _WHOLE)


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _other_names(site: Site, values: list[str]) -> Offers:
    if isinstance(site.node, ast.Name):
        for name in values:
            if name != site.node.id:
                yield "wrong operand", _name(name)


def _factors(site: Site, values: list[str]) -> Offers:
    if _arithmetic(site):
        for name in values:
            yield "a factor left out", ast.BinOp(_name(name), ast.Mult(), site.node)
            if not isinstance(site.node, ast.Name):
                yield "a factor too many", ast.BinOp(site.node, ast.Div(), _name(name))


def _terms(site: Site, values: list[str]) -> Offers:
    if _arithmetic(site) and not isinstance(site.node, ast.Name):
        for name in values:
            yield "a term left out", ast.BinOp(site.node, ast.Add(), _name(name))
            yield "a term left out", ast.BinOp(site.node, ast.Sub(), _name(name))
    elif _arithmetic(site):
        for name in values:
            if name != site.node.id:
                yield "a term left out", ast.BinOp(_name(name), ast.Add(), site.node)


def _slopes(site: Site, values: list[str]) -> Offers:
    if not _arithmetic(site):
        return
    for form in _SLOPES if isinstance(site.node, ast.Name) else _SLOPES[:5]:
        for name in values:
            if not isinstance(site.node, ast.Name) or name != site.node.id:
                slope = ast.parse(form.replace("v", name), mode="eval").body
                yield "a factor left out", ast.BinOp(site.node, ast.Mult(), slope)


def _matrices(site: Site, values: list[str]) -> Offers:
    if not _arithmetic(site):
        return
    for name in values:
        other = _name(name)
        for factor in (other, ast.Attribute(other, "T", ast.Load())):
            yield "a factor left out", ast.BinOp(factor, ast.MatMult(), site.node)
            yield "a factor left out", ast.BinOp(site.node, ast.MatMult(), factor)
        column = ast.parse(f"{name}[:, None]", mode="eval").body
        yield "a factor left out", ast.BinOp(column, ast.Mult(), site.node)
        for form in ("jnp.where(v > 0, e, -1e30)", "jnp.where(v > 0, e, 0.0)"):
            if _MASK.search(name):
                masked: Any = ast.parse(form.replace("v", name), mode="eval").body
                masked.args[1] = site.node
                yield "a mask left out", masked
    if isinstance(site.node, ast.Name):
        whole = ast.BinOp(site.node, ast.Add(), ast.Attribute(site.node, "T", ast.Load()))
        yield "not symmetrised", ast.BinOp(whole, ast.Div(), ast.Constant(2))


# What the chain rule leaves behind a nonlinearity.
_MASK = re.compile("mask|keep|kept|valid|allow|causal|seen|drop")
_SLOPES = (
    "(1 - v)", "(1 - v**2)", "(v * (1 - v))", "(v > 0)", "v.sum(-1, keepdims=True)",
    "(v > 0)[:, None]", "jnp.sign(v)",
)  # fmt: skip


def _values(tree: ast.FunctionDef, outer: tuple[str, ...]) -> list[str]:
    """The arguments and local variables, inner functions apart; and numbers from outside."""
    inner = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    arguments = [a.arg for n in ast.walk(tree) if isinstance(n, ast.arguments) for a in n.args]
    stored = [
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]
    return [n for n in dict.fromkeys([*arguments, *stored, *outer]) if n not in inner]


def _documentation(site: Site) -> bool:
    return isinstance(site.node, ast.Expr | ast.Constant) and any(
        isinstance(p, ast.Expr) for p in (*site.parents, site.node)
    )


def _arithmetic(site: Site) -> bool:
    """A value, not an index, a test or an argument that says how."""
    inside = (ast.Subscript, ast.Compare, ast.keyword, ast.For)
    return not any(isinstance(p, inside) for p in site.parents[-3:])
