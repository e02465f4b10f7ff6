"""What the expressions of a derivation were in one run, and what each makes a difference to."""

import ast
import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from handgrad.compare.edits import WHOLE, sites
from handgrad.compare.slips_of_calls import MODULES, Site

__all__ = ["Looks", "Told", "observe", "spreads"]

_ATTRIBUTE = re.compile(r"[^\W\d]\w*\.(?!(?:T|mT|shape|size|ndim|dtype|at|real|imag)$)[^\W\d]\w*")
LONGEST = 40  # characters of an expression that is brought in from elsewhere
FEW = 6  # elements of a value that are looked at one by one: each may be of another gradient


@dataclasses.dataclass
class Looks:
    """What the expressions of some functions were in one run, and what each makes a difference to.

    shapes, ranges, fragments: by the text of an expression. complex, idle: nodes, by their id.
    groups: the texts of what is a tuple or the like. suspects: the nodes, of those looked at, that
    alone may be at fault, if one is; partly: those that may be with others.
    """

    of_node: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    shapes: dict[str, set[tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    fragments: dict[str, Any] = dataclasses.field(default_factory=dict)
    groups: set[str] = dataclasses.field(default_factory=set)
    complex: set[int] = dataclasses.field(default_factory=set)
    idle: set[int] = dataclasses.field(default_factory=set)
    suspects: list[Any] = dataclasses.field(default_factory=list)
    partly: list[Any] = dataclasses.field(default_factory=list)
    numbers: list[float] = dataclasses.field(default_factory=list)  # of the reference
    slopes: list[str] = dataclasses.field(default_factory=list)  # of what it calls, at some v
    looked_at: list[Any] = dataclasses.field(default_factory=list)
    complete: bool = True  # whether there was time to look at every value

    def fits(self, site: Site, text: str, alike: bool) -> bool:
        """Whether it has the very shape, or one that makes the shape of the whole no larger.

        What is added to something larger may be as large.
        """
        mine, theirs = self.of_node.get(id(site.node)), self.shapes.get(text)
        match site.parent:
            case ast.BinOp(op=ast.Add() | ast.Sub()) if mine is not None and not alike:
                mine = self.of_node.get(id(site.parent), mine)
        if mine is None or theirs is None:
            return True
        return mine in theirs if alike else any(spreads(shape, mine) for shape in theirs)

    def of_some(self) -> "Looks":
        """The same, where what may be at fault for some of what is wrong is as good as for all."""
        idle = self.idle - {id(node) for node in self.partly}
        suspects = [*self.suspects, *self.partly]
        return dataclasses.replace(self, idle=idle, suspects=suspects, partly=[])

    def within(self, text: str, least: float, most: float) -> bool:
        """Whether its values are, as far as is known."""
        lowest, highest = self.ranges.get(text, (least, most))
        return least <= lowest and highest <= most

    def counts(self, name: str) -> bool:
        """Whether it is one whole number, as a size is."""
        least, most = self.ranges.get(name, (0.5, 0.5))
        return least == most and least % 1 == 0 and self.shapes.get(name) == {()}

    def attributes(self) -> list[str]:
        """The arrays that objects hold, as `cache.p`."""
        return [text for text in self.shapes if _ATTRIBUTE.fullmatch(text)]

    def may_mend(self, site: Site) -> bool:
        """Not what makes a difference to a gradient that is right, or none to one that is wrong."""
        return not any(id(node) in self.idle for node in (*site.parents, site.node))


def spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    """Whether an array of the one shape goes together with one of the other, and adds no axis."""
    try:
        return np.broadcast_shapes(shape, over) == over
    except ValueError:
        return False


Told = Callable[[list, bool], bool | None]
Run = Callable[[Callable[[int, Any], Any]], list | None]


def observe(tree: ast.AST, run: Run, told: Told, seconds: float, into: Looks) -> None:
    """Note what every expression of a function is, and which of its values may be at fault.

    run: puts the function, which calls the one it is given as `__noted__`, to work. told: whether
    another value somewhere, with these results, changes what is wrong and nothing else; None if
    only some of what is wrong. What is put in a part of an array may be put in the wrong part: any
    element that is wrong is enough of it.
    """
    places = [site for site in sites(tree) if _has_value(site)]
    nodes = [site.node for site in places]
    texts = [ast.unparse(node) for node in nodes]
    moving: set[int] = set()
    masks: set[int] = set()

    def noted(k: int, value: Any) -> Any:
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if kind or type(value) in (int, float):
            shape = tuple(np.shape(value))
            into.of_node[id(nodes[k])] = shape
            into.shapes.setdefault(texts[k], set()).add(shape)
            if kind == "c":
                into.complex.add(id(nodes[k]))
            if kind in ("f", "c") or (kind == "b" and shape):
                moving.add(k)
            if kind == "b":
                masks.add(k)
            if (kind == "f" or type(value) in (int, float)) and np.size(value):
                least, most = into.ranges.get(texts[k], (np.inf, -np.inf))
                extremes = float(np.min(value)), float(np.max(value))
                into.ranges[texts[k]] = min(least, extremes[0]), max(most, extremes[1])
        if isinstance(value, tuple | list | dict):
            into.groups.add(texts[k])
        if isinstance(nodes[k], ast.Name) and isinstance(
            held := getattr(value, "__dict__", 0), dict
        ):
            for name, part in held.items():
                if getattr(getattr(part, "dtype", None), "kind", "") == "f":
                    into.shapes.setdefault(f"{texts[k]}.{name}", set()).add(tuple(np.shape(part)))
        match places[k].parent, value:
            case ast.Assign([ast.Tuple(targets)]), tuple():
                for target, part in zip(targets, value, strict=False):
                    if isinstance(target, ast.Name) and hasattr(part, "shape"):
                        into.shapes.setdefault(target.id, set()).add(tuple(np.shape(part)))
        return value

    def moved(k: int, element: int | None = None) -> Callable[[int, Any], Any]:
        rng = np.random.default_rng(k)

        def noted(which: int, value: Any) -> Any:
            if which != k or getattr(getattr(value, "dtype", None), "kind", "") not in ("f", "c"):
                return ~value if which == k in masks else value
            other = value * (1 + 1e-3 * rng.standard_normal(value.shape)) + 1e-3
            if element is None:
                return other
            here = np.arange(value.size).reshape(value.shape) == element
            return here * other + (1 - here) * value

        return noted

    for k, site in reversed([*enumerate(places)]):
        call = ast.Call(ast.Name("__noted__", ast.Load()), [ast.Constant(k), site.node], [])
        site.put(ast.fix_missing_locations(ast.copy_location(call, site.node)))
    try:
        run(noted)
        until = time.thread_time() + seconds
        roots = [  # but what is called for its effect
            k
            for k in _roots(places, moving, into.of_node)
            if not isinstance(places[k].parent, ast.Expr)
        ]
        for k in roots:
            if time.thread_time() > until:
                into.complete = False
                break
            into.looked_at.append(nodes[k])
            results = run(moved(k))
            if results is None:
                continue
            if tells := told(results, _put_in_a_part(places[k])):
                into.suspects.append(nodes[k])
            elif k not in masks:  # elements that make no difference now may be wrong
                into.idle.add(id(nodes[k]))
            if tells is None:
                into.partly.append(nodes[k])
        for k in roots:
            size = math.prod(into.of_node[id(nodes[k])])
            for element in range(size) if id(nodes[k]) in into.idle and 1 < size <= FEW else ():
                if time.thread_time() > until:
                    break
                results = run(moved(k, element))
                if results is not None and told(results, False):
                    into.idle.discard(id(nodes[k]))
                    into.suspects.append(nodes[k])
                    break
    finally:
        for site in places:
            site.put(site.node)
    for node, text in zip(nodes, texts, strict=True):
        if isinstance(node, WHOLE) and len(text) <= LONGEST and id(node) in into.of_node:
            into.fragments.setdefault(text, node)
    _indexed(into)


def _put_in_a_part(site: Site) -> bool:
    """Whether it is what a statement puts in some elements of an array, or adds to them."""
    for node in reversed(site.parents):
        match node:
            case ast.Assign([ast.Subscript()]) | ast.AugAssign(ast.Subscript()):
                return True
            case ast.stmt():
                return False
    return False


def _indexed(looks: Looks) -> None:
    """Names with an axis more, turned, or indexed as others are: what else may be lacking."""
    parts = [node for node in looks.fragments.values() if isinstance(node, ast.Subscript)]
    simple = {ast.unparse(node.slice) for node in parts if isinstance(node.slice, ast.Name)}
    ends = {ast.unparse(node.slice) for node in parts if _is_constant(node.slice)}
    for node in parts if ends else ():
        for index in ends if ast.unparse(node.value) in looks.groups - {*looks.shapes} else ():
            text = f"{ast.unparse(node.value)}[{index}]"
            looks.fragments.setdefault(text, ast.parse(text, mode="eval").body)
    for node in parts:  # the step before, and the next
        match node.slice:
            case ast.Name(i) | ast.BinOp(ast.Name(i), ast.Add() | ast.Sub(), ast.Constant(1)):
                for index in (i, f"{i} - 1", f"{i} + 1"):
                    text = f"{ast.unparse(node.value)}[{index}]"
                    looks.fragments.setdefault(text, ast.parse(text, mode="eval").body)
    for name, shapes in [*looks.shapes.items()]:
        for index in simple if name.isidentifier() and any(shapes) else ():
            text = f"{name}[{index}]"
            looks.fragments.setdefault(text, ast.parse(text, mode="eval").body)
        for form in ("v[:, None]", "v[..., None]", "v[None]", "v.T"):
            found = set()
            for shape in shapes if name.isidentifier() else ():
                if shape and (form != "v.T" or len(shape) > 1):
                    found.add(eval(form, {"v": np.broadcast_to(0.0, shape)}).shape)
            if found:
                text = form.replace("v", name)
                looks.shapes.setdefault(text, set()).update(found)
                looks.fragments.setdefault(text, ast.parse(text, mode="eval").body)


def _is_constant(index: ast.expr) -> bool:
    return isinstance(index.operand if isinstance(index, ast.UnaryOp) else index, ast.Constant)


def _roots(places: Sequence[Site], moving: set[int], known: Mapping[int, Any]) -> list[int]:
    """Of every statement its values: those that are part of no other, as of a tuple or a list."""
    return [
        k
        for k, site in enumerate(places)
        if k in moving
        and not any(id(parent) in known for parent in site.parents[_statement(site) :])
    ]


def _statement(site: Site) -> int:
    return max(k for k, p in enumerate(site.parents) if isinstance(p, ast.stmt | ast.Lambda))


def _has_value(site: Site) -> bool:
    called = isinstance(site.parent, ast.Call) and site.field == "func"
    module = isinstance(site.node, ast.Name) and site.node.id in MODULES
    if called or module or not isinstance(site.node, ast.Name | ast.Attribute | WHOLE):
        return False
    return isinstance(getattr(site.node, "ctx", ast.Load()), ast.Load)
