"""The edits of a piece of source: what people write wrongly in one place of a derivation.

Where `mutations` changes what an equation computes, this changes what was written: axes, orders,
indices, parentheses, keyword arguments. An edit can be put in and taken back, so one syntax tree
serves them all.
"""

import ast
import contextlib
import copy
import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

from handgrad.compare.slips import SLIPS
from handgrad.compare.slips_of_calls import MODULES, Site, minus

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
        if self.likewise and isinstance(self.site.node, ast.stmt):
            later, sooner = _written(self.new), _written(self.site.node)
            return f"{self.cause}: write `{_short(sooner)}` before `{_short(later)}`"
        if isinstance(self.new, ast.If) and self.new.body[0] is self.site.node:
            first, more = map(_written, self.new.body)
            return f"{self.cause}: write `{_short(more)}` after `{_short(first)}`"
        shown = self._shown()
        old = _written(shown)
        with self.applied():
            new = _written(self.new if shown is self.site.node else shown)
        if isinstance(self.new, ast.Pass):
            return f"{self.cause}: leave out `{_short(old)}`"
        others = sorted({e.line for e in self.likewise} - {self.line})
        likewise = f", and likewise in line {', '.join(map(str, others))}" if others else ""
        return f"{self.cause}: write `{_short(new)}` for `{_short(old)}`{likewise}"

    def _shown(self) -> ast.AST:
        if self.likewise:
            inside = [p for p in self.site.parents if isinstance(p, ast.stmt)]
            return inside[-1] if inside else self.site.parents[0]
        shown = self.site.node
        for wider in reversed(self.site.parents):
            text = ast.unparse(shown)
            enough = isinstance(shown, ast.stmt) or (isinstance(shown, WHOLE) and len(text) > 2)
            if enough or not isinstance(wider, ast.expr | ast.keyword | ast.Slice | ast.stmt):
                break
            if isinstance(wider, ast.stmt) and len(ast.unparse(wider)) > LONGEST:
                break
            shown = wider
        return shown


def _written(node: ast.AST) -> str:
    """Its text; of a loop or a condition the first line, in which the difference is."""
    text = ast.unparse(node)
    return text.split("\n")[0] if isinstance(node, ast.For | ast.While | ast.If) else text


_OF_SUMS = {"a mean taken for a sum", "a sum taken for a mean"}
_UNLIKELY = {
    "wrong operation", "wrong function", "added where it is to be set", "another axis",
    "a condition too many", "an index too many", "the permutation for its inverse",
    "a sum left out", "axes in another order", "an index left out", "the whole not transposed",
    "the other part", "what was counted left out", "one element too many",
}  # fmt: skip
WHOLE = ast.BinOp | ast.UnaryOp | ast.Call | ast.Subscript | ast.Compare | ast.IfExp | ast.BoolOp


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
        if _documentation(site) or _ends_a_loop(site):
            continue
        for kind, offers in SLIPS:
            if isinstance(site.node, kind):
                for cause, new in offers(site):
                    yield Edit(cause, site, new)


def together(tree: ast.AST) -> Iterator[Edit]:
    """Slices of one statement dropped, or its sums made means; one expression edited wherever it
    stands in the function, or in one statement.
    """
    sliced: dict[int, list[Edit]] = {}
    reduced: dict[tuple, list[Edit]] = {}
    alike: dict[tuple, list[Edit]] = {}
    for edit in edits(tree):
        statement = _statement(edit)
        if edit.cause == "an index too many" and _slices(edit.site.node):
            sliced.setdefault(id(statement), []).append(edit)
        if edit.cause in _OF_SUMS:
            reduced.setdefault((id(statement), edit.cause), []).append(edit)
        if isinstance(edit.site.node, ast.expr) and statement is not None:
            key = edit.cause, ast.dump(edit.site.node), ast.dump(edit.new)
            alike.setdefault(key, []).append(edit)
    yield from _renamed(tree)
    yield from _turned(tree)
    yield from _negated(tree)
    yield from _statements(tree)
    yield from _pairs(tree)
    for group in sliced.values():
        if len(group) > 1:
            yield dataclasses.replace(group[0], cause="off by one", likewise=tuple(group[1:]))
    for group in reduced.values():
        if len(group) > 1:
            yield _as_one(group)
    for group in (some for every in alike.values() for some in _wherever(every)):
        apart = all(not set(_below(a)) & set(_above(b)) for a in group for b in group if a is not b)
        if len(group) > 1 and apart:
            yield _as_one(group)


def _statement(edit: Edit) -> ast.AST | None:
    return next((p for p in reversed(edit.site.parents) if isinstance(p, ast.stmt)), None)


def _wherever(group: list[Edit]) -> list[list[Edit]]:
    """All of them; and those of each statement, where there are several."""
    within: dict[int, list[Edit]] = {}
    for edit in group:
        within.setdefault(id(_statement(edit)), []).append(edit)
    return [group, *(within.values() if len(within) > 1 else ())]


def _renamed(tree: ast.AST) -> Iterator[Edit]:
    """Two names, or two numbers, exchanged wherever they stand in one value."""
    for places in _by_value(tree).values():
        for a, b in itertools.combinations(places, 2):
            first, second = places[a][0].node, places[b][0].node
            if type(first) is not type(second):
                continue
            exchanged = [
                *(Edit("order exchanged", site, copy.copy(second)) for site in places[a]),
                *(Edit("order exchanged", site, copy.copy(first)) for site in places[b]),
            ]
            yield _as_one(exchanged)


def _statements(tree: ast.AST) -> Iterator[Edit]:
    """Two assignments, one after the other, in the other order, where one reads what one sets."""
    assigned = [s for s in sites(tree) if isinstance(s.node, ast.Assign | ast.AugAssign)]
    for one, two in itertools.pairwise(assigned):
        beside = one.parent is two.parent and one.field == two.field
        if beside and two.index == (one.index or 0) + 1 and (_reads(one, two) or _reads(two, one)):
            first, second = copy.deepcopy(one.node), copy.deepcopy(two.node)
            cause = "order exchanged"
            yield _as_one([Edit(cause, two, first), Edit(cause, one, second)])


def _reads(one: Site, two: Site) -> bool:
    """Whether one reads a name that two sets."""
    names = [
        {n.id for n in ast.walk(s.node) if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}
        for s, kind in ((one, ast.Load), (two, ast.Store))
    ]
    return bool(names[0] & names[1])


def _turned(tree: ast.AST) -> Iterator[Edit]:
    """A matrix transposed, or no longer, wherever it stands in one value."""
    for places in _by_value(tree).values():
        for alike in places.values():
            if len(alike) > 1 and isinstance(alike[0].node, ast.Name):
                edits = []
                for site in alike:
                    if isinstance(site.parent, ast.Attribute) and site.parent.attr in ("T", "mT"):
                        above = Site(site.parent, site.parents[:-1], *_where(site))
                        edits.append(Edit("transposed", above, site.node))
                    else:
                        turned = ast.Attribute(site.node, "T", ast.Load())
                        edits.append(Edit("transposed", site, turned))
                yield _as_one(edits)


def _negated(tree: ast.AST) -> Iterator[Edit]:
    """Everything that is returned, with the other sign."""
    for node in ast.walk(tree):
        match node:
            case ast.Return(ast.Tuple() as several):
                above = [s for s in sites(tree) if s.parent is several]
                every = [s for s in above if not isinstance(s.node, ast.Constant)]
                if len(every) > 1:
                    yield _as_one([Edit("wrong sign", s, _minus(s.node)) for s in every])


def _minus(node: Any) -> Any:
    match node:
        case ast.UnaryOp(ast.USub(), operand):
            return operand
    return minus(node)


def _pairs(tree: ast.AST) -> Iterator[Edit]:
    """The halves of an axis for its pairs: x[: n // 2], x[n // 2 :] for x[0::2], x[1::2]."""
    by_statement: dict[int, list[Edit]] = {}
    for site in sites(tree):
        match site.node:
            case ast.Slice(None, ast.BinOp(n, ast.FloorDiv(), ast.Constant(2)), None):
                new = ast.Slice(ast.Constant(0), n, ast.Constant(2))
            case ast.Slice(ast.BinOp(_, ast.FloorDiv(), ast.Constant(2)), upper, None):
                new = ast.Slice(ast.Constant(1), upper, ast.Constant(2))
            case ast.Slice(None | ast.Constant(0), ast.expr() as n, ast.Constant(2)):
                new = ast.Slice(None, ast.BinOp(n, ast.FloorDiv(), ast.Constant(2)))
            case ast.Slice(ast.Constant(1), ast.expr() as n, ast.Constant(2)):
                new = ast.Slice(ast.BinOp(n, ast.FloorDiv(), ast.Constant(2)), n)
            case _:
                continue
        statement = next(p for p in reversed(site.parents) if isinstance(p, ast.stmt))
        pairs = isinstance(site.node.step, ast.Constant)
        cause = "pairs taken for halves" if pairs else "halves taken for pairs"
        by_statement.setdefault(id(statement), []).append(Edit(cause, site, new))
    for edits in by_statement.values():
        if len(edits) > 1:
            yield _as_one(edits)


def _as_one(edits: list[Edit]) -> Edit:
    return dataclasses.replace(edits[0], likewise=tuple(edits[1:]))


def _where(site: Site) -> tuple[str, int | None]:
    """How the parent of a site hangs on what is above it."""
    above = site.parents[-2]
    for field, value in ast.iter_fields(above):
        if value is site.parent:
            return field, None
        if isinstance(value, list) and any(v is site.parent for v in value):
            return field, next(i for i, v in enumerate(value) if v is site.parent)
    raise ValueError("not in the tree")


def _by_value(tree: ast.AST) -> dict[int, dict[str, list[Site]]]:
    """The names and numbers in every value, tuples apart, and where they stand."""
    found: dict[int, dict[str, list[Site]]] = {}
    for site in sites(tree):
        match site.node:
            case ast.Name(name, ast.Load()):
                chosen = name not in MODULES and not _is_called(site)
            case ast.Constant(value):
                chosen = type(value) in (int, float)
            case _:
                chosen = False
        if chosen:
            within = [*site.parents, site.node]
            while not isinstance(within[0], ast.expr) or isinstance(within[0], ast.Tuple):
                within = within[1:]
            found.setdefault(id(within[0]), {}).setdefault(ast.unparse(site.node), []).append(site)
    return found


def _is_called(site: Site) -> bool:
    return isinstance(site.parent, ast.Call) and site.field == "func"


def _slices(node: ast.Subscript) -> bool:
    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    return any(isinstance(p, ast.Slice) for p in parts)


def _below(edit: Edit) -> list[int]:
    return [id(n) for n in ast.walk(edit.site.node)]


def _above(edit: Edit) -> list[int]:
    return [*map(id, edit.site.parents), id(edit.site.node)]


def _ends_a_loop(site: Site) -> bool:
    """The condition of a while loop, and what it compares: edited, it may never end."""
    loops = [p for p in site.parents if isinstance(p, ast.While)]
    counted = {n.id for w in loops for n in ast.walk(w.test) if isinstance(n, ast.Name)}
    statement = next((p for p in reversed(site.parents) if isinstance(p, ast.stmt)), None)
    told = [site.node] if statement in loops or statement is None else [statement]
    names = {n.id for part in told for n in ast.walk(part) if isinstance(n, ast.Name)}
    return bool(loops) and (statement in loops or bool(names & counted))


def _documentation(site: Site) -> bool:
    return isinstance(site.node, ast.Expr | ast.Constant) and any(
        isinstance(p, ast.Expr) for p in (*site.parents, site.node)
    )
