"""A term or a line that was forgotten: one value, or a product of two, that is at hand there.

What is computed and never used comes first. With what factor it is to be added, one run tells.
"""

import ast
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from handgrad.compare.edits import Edit, sites
from handgrad.compare.looks import Looks, spreads
from handgrad.compare.scaled import spelled
from handgrad.compare.slips_of_calls import MODULES

__all__ = [
    "FORGOTTEN", "LINE", "adds", "fitting", "lines", "so_often", "terms", "unread", "weighted",
]  # fmt: skip

FORGOTTEN = "a forgotten term"
LINE = "a forgotten line"
AT_HAND = 60  # values of which products are made
_ALONE = ("{0}", "{0}[:, None]", "{0}[None]", "{0}[..., None]", "{0}.T", "{0}.sum()")
_PAIRS = (
    "{0} * {1}", "{0} @ {1}", "{1} @ {0}", "{0}.T @ {1}", "{1}.T @ {0}", "{0} @ {1}.T",
    "{1} @ {0}.T", "{0}[:, None] * {1}", "{1}[:, None] * {0}", "({0} * {1}).sum()",
)  # fmt: skip
_OF_ITSELF = (  # what a normalisation leaves, with 0 for what stands there and 1 for its output
    "{1} * ({0} * {1}).sum(-1, keepdims=True)", "{1} * ({0}).sum(-1, keepdims=True)",
    "({0}).sum(-1, keepdims=True)", "{1} * ({0} * {1}).sum(0)", "{1} * ({0}).sum(0)",
    "({0}).sum(0)",
)  # fmt: skip

_ON_ITS_WAY = ("{1} * {0}", "{1} @ {0}", "{0} @ {1}", "{1}.T @ {0}", "{0} @ {1}.T")
_HANDING = ast.Return | ast.Tuple
_WORD = re.compile(r"\w+")
_REDUCED = re.compile(r"\b(sum|mean)\(")

Shape = tuple[int, ...]
Made = tuple[int, Shape, str]  # the number of its stage, and what it is


def terms(tree: ast.AST, names: Sequence[str], looks: Looks) -> Iterator[tuple[int, Edit]]:
    """Sums with each, in the order of their likelihood, for the values that may be at fault.

    names: of the arrays that the function knows. With each the number of its stage.
    """
    loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and _is_read(n)}
    idle = [n for n in names if n not in loaded]
    held = {*names, *MODULES}
    others = [
        t for t, node in looks.fragments.items() if _names_in(node) <= held and t not in names
    ]
    parts = [t for t in others if isinstance(looks.fragments[t], ast.Subscript)]
    parts += [t for t in looks.attributes() if t.partition(".")[0] in held]
    texts = [t for t in dict.fromkeys([*names, *parts, *others]) if not looks.counts(t)]
    at_hand = [*unread(tree, idle, looks)]
    at_hand += [(t, shape) for t in texts for shape in _shape(t, looks)][:AT_HAND]
    suspects = {id(node) for node in looks.suspects}
    places = [s for s in sites(tree) if id(s.node) in suspects and id(s.node) in looks.of_node]
    made = [*_made(at_hand, idle, names)]
    for stage in range(1 + max((stage for stage, _, _ in made), default=0)):
        for site in places:
            here, own = looks.of_node[id(site.node)], ast.unparse(site.node)
            found = [text for when, shape, text in made if when == stage and spreads(shape, here)]
            handed_on = isinstance(site.node, ast.Name) and isinstance(site.parents[-1], _HANDING)
            if stage == 2 and here and not handed_on and not _subtracts(site.node, own):
                alike = [t for t, shape in at_hand if shape == here and t in (*names, *parts)]
                found += dict.fromkeys(f.format(own, t) for f in _OF_ITSELF for t in alike)
            for text in found:
                if text not in (own, f"({own})"):
                    total = ast.BinOp(site.node, ast.Add(), _expression(text))
                    yield stage, Edit(FORGOTTEN, site, total)


def _subtracts(node: ast.AST, text: str) -> bool:
    """Whether something is taken from it already, or it is a sum itself."""
    subtracted = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.Sub) for n in ast.walk(node))
    return subtracted or bool(_REDUCED.search(text))


def unread(tree: ast.AST, idle: list[str], looks: Looks) -> Iterator[tuple[str, Shape]]:
    """What is computed and never used has the shape of its value; and at what others are."""
    chosen = {n.slice.id for n in looks.fragments.values() if _by_name(n)}
    indices = {i: s for i in sorted(chosen) for s in looks.shapes.get(i, ()) if len(s) == 1}
    for node in ast.walk(tree):
        match node:
            case ast.Assign([ast.Name(name)], value) if name in idle and id(value) in looks.of_node:
                shape = looks.of_node[id(value)]
                yield name, shape
                for index, (n,) in indices.items() if shape else ():
                    yield f"{name}[{index}]", (n, *shape[1:])


def adds(edit: Edit) -> bool:
    """Whether it adds something of which it is not known how often."""
    match edit.new:
        case ast.If(body=[_, ast.AugAssign(op=ast.Add())]):
            return edit.cause == LINE
    return edit.cause == FORGOTTEN


def so_often(edit: Edit, factor: float) -> Edit:
    """What this edit adds, so often."""
    number, new = ast.Constant(factor), edit.new
    if edit.cause == LINE:
        first, second = new.body
        product = ast.BinOp(number, ast.Mult(), second.value)
        return Edit(LINE, edit.site, _both(first, ast.AugAssign(second.target, second.op, product)))
    product = ast.BinOp(number, ast.Mult(), new.right)
    return Edit(edit.cause, edit.site, ast.BinOp(new.left, ast.Add(), product))


def weighted(edit: Edit, factor: float, known: dict[str, float]) -> Iterator[Edit]:
    """The term that this edit adds, times the factor, as it may be written."""
    site = edit.site
    if edit.cause == LINE:
        first, second = edit.new.body
        for each in _times(second.value, abs(factor), known):
            op = ast.Add() if factor > 0 else ast.Sub()
            yield Edit(LINE, site, _both(first, ast.AugAssign(second.target, op, each)))
        return
    op = ast.Add() if factor > 0 else ast.Sub()
    for each in _times(edit.new.right, abs(factor), known):
        yield Edit(FORGOTTEN, site, ast.BinOp(site.node, op, each))


def _times(term: Any, factor: float, known: dict[str, float]) -> Iterator[Any]:
    yield from [term] if np.isclose(factor, 1, rtol=1e-7) else spelled(term, factor, known)


def _made(
    at_hand: list[tuple[str, Shape]], idle: list[str], names: Sequence[str]
) -> Iterator[Made]:
    """First what nothing reads, alone and times something; then names, their products, others."""
    for (a, x), form in itertools.product(at_hand, _ALONE):
        for text, shape in fitting(form, (a,), (x,)):
            yield 0 if a in idle else 1 if text in names else 3, shape, text
    for ((a, x), (b, y)), form in itertools.product(itertools.combinations(at_hand, 2), _PAIRS):
        for text, shape in fitting(form, (a, b), (x, y)):
            stage = 0 if {a, b} & {*idle} else 2 if {a, b} <= {*names} else 3
            yield stage, shape, text


def fitting(form: str, texts: tuple[str, ...], shapes: tuple[Shape, ...]) -> Iterator[tuple]:
    """What it gives, if these shapes go together in it."""
    known = _SHAPES.setdefault((form, shapes), _result(form, shapes))
    if known is not None:
        bare = [t if t.isidentifier() else f"({t})" for t in texts]
        made = form.format(*bare)
        if ".T).T" not in made:
            yield made, known


def _result(form: str, shapes: tuple[Shape, ...]) -> Shape | None:
    if "T" in form and any(len(shape) < 2 for shape in shapes):
        return None
    if form == _PAIRS[-1] and shapes[0] != shapes[1]:
        return None
    if form.endswith(".sum()") and not any(shapes):  # of numbers it is the number
        return None
    held = {f"v{k}": np.broadcast_to(0.0, shape) for k, shape in enumerate(shapes)}
    try:
        return np.shape(eval(form.format(*held), held))
    except (ValueError, IndexError):
        return None


_SHAPES: dict[tuple[str, tuple[Shape, ...]], Shape | None] = {}


def _shape(text: str, looks: Looks) -> list[Shape]:
    """Its shape, where it has one; a sum that begins with 0 has that of what it is later."""
    shapes = looks.shapes.get(text, set())
    shapes = shapes - {()} if len(shapes) == 2 else shapes
    return [*shapes] if len(shapes) == 1 else []


def _by_name(node: Any) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Name)


def _is_read(node: ast.Name | ast.Subscript | ast.Attribute) -> bool:
    return isinstance(node.ctx, ast.Load)


def _names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def _expression(text: str) -> Any:
    return ast.parse(text, mode="eval").body


# --- whole lines ---------------------------------------------------------------------------------


def lines(tree: ast.AST, names: Sequence[str], looks: Looks) -> Iterator[tuple[int, Edit]]:
    """What else a line adds to, and what a loop hands on: one line more, behind one that is there.

    Of a pair of bodies each is pushed, of two matrices each is decayed; a cotangent that is carried
    is multiplied on its way.
    """
    changed = [s for s in sites(tree) if isinstance(s.node, ast.AugAssign)]
    targets = dict.fromkeys(t for node in _stored(tree) for t in _targets(node, _indices(tree)))
    for site in changed:
        summed, own = isinstance(site.node.op, ast.Add | ast.Sub), ast.unparse(site.node.target)
        for text in targets:
            if text != own:
                op = ast.Add() if summed else site.node.op
                yield 0, Edit(LINE, site, _both(site.node, _changing(text, op, site.node.value)))
        if summed:
            for text, value in _likewise(own, ast.unparse(site.node.value), tree):
                line = _changing(text, ast.Add(), _expression(value))
                yield 0, Edit(LINE, site, _both(site.node, line))
    for site in sites(tree):
        if isinstance(site.node, ast.stmt) and _last_of_a_loop(site):
            for carried in _carried(site.parent, tree):
                for value in _handed_on(carried, names, looks):
                    more = ast.Assign([ast.Name(carried, ast.Store())], _expression(value))
                    yield 0, Edit(LINE, site, _both(site.node, more))


def _likewise(target: str, value: str, tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Other targets, and the value with its names changed as the target's: W2 with dW2 for dW1."""
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Name | ast.Subscript | ast.Attribute)]
    words = {word for n in nodes for word in _WORD.findall(ast.unparse(n))}
    for other in dict.fromkeys(ast.unparse(n) for n in nodes if not _is_read(n)):
        pairs = zip(_WORD.findall(target), _WORD.findall(other), strict=False)
        apart = [pair for pair in pairs if pair[0] != pair[1]]
        if len(apart) != 1 or _WORD.sub("", target) != _WORD.sub("", other):
            continue
        old, new = apart[0]
        while old and new and old[0] == new[0]:
            old, new = old[1:], new[1:]

        def renamed(found: re.Match, old=old, new=new) -> str:
            other = found[0].removesuffix(old) + new
            return other if found[0].endswith(old) and other in words else found[0]

        changed = _WORD.sub(renamed, value) if old else value
        if changed != value:
            yield other, changed


def _handed_on(carried: str, names: Sequence[str], looks: Looks) -> Iterator[str]:
    for shape in _shape(carried, looks):
        for name in names:
            for other in _shape(name, looks) if name != carried else ():
                if other == shape:
                    yield name
                for form in _ON_ITS_WAY:
                    for text, result in fitting(form, (carried, name), (shape, other)):
                        if result == shape:
                            yield text


def _both(first: ast.stmt, second: ast.stmt) -> ast.If:
    return ast.If(ast.Constant(True), [first, ast.fix_missing_locations(second)], [])


def _changing(target: str, op: ast.operator, value: ast.expr) -> ast.AugAssign:
    (whole,) = ast.parse(f"{target} += 0").body
    assert isinstance(whole, ast.AugAssign)
    return ast.AugAssign(whole.target, op, value)


def _stored(tree: ast.AST) -> Iterator[ast.expr]:
    """What is added to, and the elements that are given a value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign):
            yield node.target
        elif isinstance(node, ast.Assign):
            yield from (t for t in node.targets if isinstance(t, ast.Subscript))


def _indices(tree: ast.AST) -> list[str]:
    """What loops run over, and the elements that others are indexed by: i, y[i]."""
    loops = [n for n in ast.walk(tree) if isinstance(n, ast.For)]
    found = [n.id for loop in loops for n in ast.walk(loop.target) if isinstance(n, ast.Name)]
    inside = [n.slice for n in ast.walk(tree) if isinstance(n, ast.Subscript)]
    return [*found, *(ast.unparse(s) for s in inside if isinstance(s, ast.Subscript))]


def _targets(target: ast.expr, indices: Sequence[str]) -> Iterator[str]:
    """It, and it at the other indices."""
    yield ast.unparse(target)
    if isinstance(target, ast.Subscript):
        parts = target.slice.elts if isinstance(target.slice, ast.Tuple) else [target.slice]
        texts = [ast.unparse(part) for part in parts]
        for k, part in enumerate(parts):
            for index in indices if isinstance(part, ast.Name | ast.Subscript) else ():
                at = ", ".join([*texts[:k], index, *texts[k + 1 :]])
                yield f"{ast.unparse(target.value)}[{at}]"


def _last_of_a_loop(site: Any) -> bool:
    loop = site.parent
    return isinstance(loop, ast.For) and site.field == "body" and site.node is loop.body[-1]


def _carried(loop: ast.For, tree: ast.AST) -> list[str]:
    """The names that the loop reads before it gives them a value anew, if it does; in this order.

    They have one from before it. What it fills, element by element, it does not hand on.
    """
    filled = {
        n.id
        for node in ast.walk(loop)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
        for n in ast.walk(node.value)
        if isinstance(n, ast.Name)
    }
    stored, found = {*filled}, []
    for statement in loop.body:
        names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        found += [n.id for n in names if _is_read(n) and n.id not in stored]
        stored |= {n.id for n in names if isinstance(n.ctx, ast.Store)}
    given = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and not _is_read(n)}
    return [n for n in dict.fromkeys(found) if n in given]
