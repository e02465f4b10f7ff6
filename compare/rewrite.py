"""A derivation written a little differently: its source edited in one place, and run.

The changes of equations in `mutations` are cheap, but some mistakes are none of a single equation:
a sum over another axis, a loop that starts late, a parenthesis. These are edits of the source. The
user's functions stay as they are: an edited one is a new function with the same globals, the same
closure and the same defaults.
"""

import ast
import contextlib
import copy
import dataclasses
import dis
import functools
import heapq
import inspect
import linecache
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np

from handgrad.compare.edits import Edit, edits, together
from handgrad.compare.laboratory import with_rules
from handgrad.compare.looks import Looks, Told, observe
from handgrad.compare.patience import a_round
from handgrad.compare.source import Place, is_library
from handgrad.compare.substitutions import NAMED, SIMPLE, scaled, substitutions, values
from handgrad.compare.terms import adds, lines, terms

Kind = Literal["likely", "unlikely", "simple", "forgotten", "named", "missing", "further"]
Names = Callable[[dict[str, Any]], dict[str, Any]]  # the globals to run with, for a function's own
Build = Callable[[Any, Names], Any]  # a whole candidate of a function in it
OUTSIDE = 12  # numbers and arrays of the module
DEPTH = 2  # functions that a derivation calls, and those that these call


_STAGES = {
    "simple": range(SIMPLE + 1),
    "named": range(SIMPLE + 1, NAMED + 1),
    "further": range(NAMED + 1, sys.maxsize),
}


def _same(names: dict[str, Any]) -> dict[str, Any]:
    return names


@dataclasses.dataclass(frozen=True)
class Written:
    """A Python function with its source, and what makes a whole candidate of another like it."""

    function: Any  # types.FunctionType
    tree: ast.Module  # as parsed, in the lines of its file
    definition: ast.FunctionDef | ast.Lambda
    build: "Build"
    beside: tuple[str, ...] = ()  # names outside that the reference knows

    def look(
        self,
        run: Callable[[Any], Any],
        told: Told,
        seconds: float,
        looks: Looks,
        names: Names = _same,
    ) -> None:
        """Note what its expressions are when `run` puts the candidate to work."""

        def noting(note: Callable) -> Any:
            return run(self.compiled(lambda held: {**names(held), "__noted__": note}))

        observe(self.definition, noting, told, seconds, looks)

    def places(self, nodes: list[Any]) -> list[Place]:
        """The lines of those nodes that are its own."""
        inside = {id(node) for node in ast.walk(self.definition)}
        return [self.at(node.lineno) for node in nodes if id(node) in inside]

    def at(self, line: int) -> Place:
        file = self.function.__code__.co_filename
        return Place(file, line, linecache.getline(file, line).strip())

    def edits(self, kind: Kind, looks: Looks | None = None) -> Iterator["Rewrite"]:
        """`likely`, `unlikely`, a `simple` sign, number or square, a `forgotten` line or value that
        nothing reads, another name or one more factor that is `named`, a `missing` term, or
        `further`: other factors and terms.

        First those of what may be at fault, as it looks; of the further ones these alone.
        """
        looks = looks or Looks()
        if kind in ("forgotten", "missing"):
            every = (f(self.definition, self._names(), looks) for f in (terms, lines))
            for stage, edit in heapq.merge(*every, key=lambda found: found[0]):
                if stage > 0 and kind == "forgotten":
                    return
                if (stage > 0) == (kind == "missing"):
                    yield Rewrite(self, edit, stage)
            return
        if kind in _STAGES:
            own = self.function.__code__.co_names, self.function.__globals__
            called = (n for known in own for n in ("jnp", "np", "numpy") if n in known)
            numpy = next(called, "jnp")
            for stage, edit in substitutions(self.definition, self._outer(), looks, numpy):
                if stage >= _STAGES[kind].stop:
                    return
                if stage in _STAGES[kind]:
                    yield Rewrite(self, edit, stage)
            return
        found = [e for e in edits(self.definition) if e.likely == (kind == "likely")]
        if kind == "unlikely":
            found += together(self.definition)
        for idle in (False, True):
            for edit in found:
                if looks.may_mend(edit.site) is not idle:
                    yield Rewrite(self, edit, int(idle))

    def scaled(self, trial: "Rewrite", factor: float, looks: Looks) -> Iterator["Rewrite"]:
        """What is doubled there times the factor: by a size or a number that has a name, if any."""
        held = self.function.__globals__
        numbers = {
            name: float(held[name])
            for name in self._outer()
            if isinstance(held[name], int | float) and not isinstance(held[name], bool)
        }
        for edit in scaled(self.definition, numbers, looks, trial.edit, factor):
            yield Rewrite(self, edit, trial.stage)

    def unread(self, looks: Looks) -> list[tuple[str, Place]]:
        """The names that get a value which nothing reads, sizes apart, and where."""
        names = [n for n in ast.walk(self.definition) if isinstance(n, ast.Name)]
        read = {n.id for n in names if isinstance(n.ctx, ast.Load)}
        return [
            (name, self.at(node.lineno))
            for node in ast.walk(self.definition)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
            for name in [node.targets[0].id]
            if name not in read and not name.startswith("_")
            if not looks.counts(ast.unparse(node.value))
        ]

    def slopes(self) -> list[str]:
        """Functions of one argument that it calls, or that are called like derivatives, at a v."""
        held = self.function.__globals__
        own = [held.get(name) for name in _global_names(self.function.__code__)]
        named = [f for name, f in held.items() if _DERIVATIVE.search(name)]
        return [
            f"{f.__name__}(v)"
            for f in dict.fromkeys(f for f in (*own, *named) if isinstance(f, types.FunctionType))
            if f.__module__ == self.function.__module__
            and f is not self.function
            and f.__code__.co_argcount == 1
            and held.get(f.__name__) is f
        ]

    @functools.cached_property
    def _own(self) -> tuple[list, list]:
        return _loops_and_sums([self.tree])

    def _names(self) -> list[str]:
        return values(self.definition, self._outer())

    def _outer(self) -> tuple[str, ...]:
        """Numbers and arrays outside that it names, or the reference: eps, a slope, edges."""
        held, of = self.function.__globals__, int | float | np.ndarray | jax.Array
        names = dict.fromkeys([*self.function.__code__.co_names, *self.beside])
        found = [n for n in names if not n.startswith("_") and isinstance(held.get(n), of)]
        return tuple(found[:OUTSIDE])

    def compiled(self, names: Names = _same, new: Sequence[ast.AST] = ()) -> Callable:
        """The candidate with the tree as it now is; SyntaxError where Python does not take it.

        new: what is in it that was not.
        """
        return self.build(self.made(names, new), names)

    def made(self, names: Names = _same, new: Sequence[ast.AST] = ()) -> types.FunctionType:
        """The function alone, with the tree as it now is."""
        name = self.function.__code__.co_name
        loops, added = (a + b for a, b in zip(self._own, _loops_and_sums(new), strict=True))
        with _counted(loops, added):
            module = compile(self.tree, self.function.__code__.co_filename, "exec")
        code = _code_of(module, name)
        f = self.function
        cells = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
        if any(v not in cells for v in code.co_freevars):
            raise SyntaxError("a name of an enclosing function that was not one")
        closure = tuple(cells[v] for v in code.co_freevars)
        made = types.FunctionType(code, names(f.__globals__), f.__name__, f.__defaults__, closure)
        made.__kwdefaults__ = f.__kwdefaults__
        return made


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """One edit of one function."""

    written: Written
    edit: Edit
    stage: int = 0  # what is likelier has a lower one

    def candidate(self, names: Names = _same) -> Callable:
        with self.edit.applied():
            every = (self.edit, *self.edit.likewise)
            return self.written.compiled(names, [edit.new for edit in every])

    def of(self, other: "Written") -> Callable:
        """Not the candidate but another whole, which runs the same function, with the edit."""
        with self.edit.applied():
            every = (self.edit, *self.edit.likewise)
            return other.build(self.written.made(_same, [edit.new for edit in every]), _same)

    @property
    def place(self) -> Place:
        return self.written.at(self.edit.line)

    @property
    def doubles(self) -> bool:
        """Whether it is twice what stood there."""
        match self.edit.new:
            case ast.BinOp(ast.Constant(2), ast.Mult(), node):
                return node is self.edit.site.node
        return False

    @property
    def adds(self) -> bool:
        """Whether it adds something of which it is not known how often."""
        return adds(self.edit)

    @property
    def telling(self) -> bool:
        """Whether it is more than a number, which may be met by chance."""

        def number(node: ast.AST) -> bool:
            match node:
                case ast.Constant() | ast.BinOp(ast.Constant()) | ast.BinOp(right=ast.Constant()):
                    return True
            return False

        match self.edit.new:
            case ast.BinOp(right=ast.BinOp(right=ast.BinOp(ast.Constant()))):  # + v * (1 / 12)
                return False
        return not number(self.edit.site.node) and not number(self.edit.new)

    @property
    def words(self) -> str:
        return self.edit.words()

    @property
    def returns(self) -> bool:
        """Whether it is of what a function returns: what was wrong before comes out right there."""
        return self.stage > 0 and any(isinstance(p, ast.Return) for p in self.edit.site.parents)

    @property
    def forward(self) -> bool:
        """Whether the forward is changed for the sake of the backward: it may be right."""
        return bool(_FORWARD.search(self.written.function.__name__))


_FORWARD = re.compile("forward|fwd|__call__|__init__")
_DERIVATIVE = re.compile("prime|deriv|slope|grad|^d_|_d$")
_FITTED: Any = ast.parse(f"__import__({__name__!r}, fromlist=['fitted']).fitted", mode="eval").body
_ROUND = ast.parse(f"__import__({a_round.__module__!r}, fromlist=['a_round']).a_round()").body


def _loops_and_sums(trees: Sequence[ast.AST]) -> tuple[list, list]:
    nodes = [n for tree in trees for n in ast.walk(tree)]
    loops = [n for n in nodes if isinstance(n, ast.While | ast.For)]
    return loops, [n for n in nodes if isinstance(n, ast.Call) and _at(n)]


@contextlib.contextmanager
def _counted(loops: list, added: list) -> Iterator[None]:
    loops, added = (list({id(n): n for n in nodes}.values()) for nodes in (loops, added))
    for loop in loops:
        loop.body[:0] = _ROUND
    for call in added:
        what = ast.Call(_FITTED, call.args[:3], [])
        call.args[2] = ast.fix_missing_locations(ast.copy_location(what, call))
    try:
        yield
    finally:
        for loop in loops:
            del loop.body[:1]
        for call in added:
            call.args[2] = call.args[2].args[2]  # pyright: ignore[reportAttributeAccessIssue]


def _at(call: ast.Call) -> bool:
    """np.add.at(array, index, value)."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "at" and len(call.args) == 3


def fitted(array: Any, index: Any, value: Any) -> Any:
    """What is added there, in the shape of that: NumPy dies of one that does not fit."""
    return np.broadcast_to(value, np.shape(array[index]))


def scalars(function: Any) -> dict[str, float]:
    """The numbers that a function, or the rules of a custom_vjp, take from outside, by name."""
    found: dict[str, float] = {}
    for each in (function, *(getattr(function, rule, None) for rule in ("fun", "fwd", "bwd"))):
        if isinstance(each, types.FunctionType):
            code = each.__code__
            cells = zip(code.co_freevars, map(contents, each.__closure__ or ()), strict=True)
            held = {n: each.__globals__.get(n) for n in code.co_names} | dict(cells)
            found |= {n: float(x) for n, x in held.items() if isinstance(x, int | float) and x > 0}
    return {n: x for n, x in found.items() if x not in (1, 2, 0.5)}


def pinned(candidate: Callable) -> set[int]:
    """The whole numbers that a candidate takes from outside: an array may have to be so long."""
    functions = [w.function for w in written(candidate)]
    held = [f.__globals__.get(name) for f in functions for name in _global_names(f.__code__)]
    held += [contents(cell) for f in functions for cell in f.__closure__ or ()]
    return {x for x in held if type(x) is int}


def written(candidate: Callable, reference: Callable | None = None) -> list[Written]:
    """The functions of a candidate whose source is at hand; itself first, then what it calls."""
    found: list[Written] = []
    beside = tuple(_named_by(reference))
    seen: set[types.CodeType] = set()
    for function, build in _functions(candidate, 0):
        if function.__code__ not in seen:
            seen.add(function.__code__)
            parsed = _parse(function)
            if parsed is not None:
                found.append(Written(function, *parsed, build, beside))
    return found


Found = Iterator[tuple[types.FunctionType, Build]]


def _functions(candidate: Any, depth: int) -> Found:
    """Every function of the user's, and what puts another in its place."""
    match candidate:
        case types.FunctionType() if not is_library(candidate.__code__.co_filename):
            yield candidate, lambda new, names: new
            if depth < DEPTH:
                yield from _called(candidate, depth)
        case functools.partial(func=inner, args=args, keywords=keywords):
            yield from _inside(inner, depth, lambda f, _: functools.partial(f, *args, **keywords))
        case types.MethodType(__func__=inner, __self__=owner):
            yield from _inside(inner, depth, lambda f, _: types.MethodType(f, owner))
            for function, build in _methods(type(owner), inner.__module__, depth + 1):
                yield (
                    function,
                    lambda new, names, build=build: types.MethodType(
                        inner, _as(build(new, names), owner)
                    ),
                )
        case jax.custom_vjp():
            yield from _rules(candidate, depth)
        case _ if hasattr(candidate, "pullback") and hasattr(candidate, "forward"):
            yield from _operation(candidate, depth)
        case _ if isinstance(
            inner := getattr(candidate, "__wrapped__", None), types.FunctionType | jax.custom_vjp
        ):
            yield from _functions(inner, depth)


def _inside(inner: Any, depth: int, around: Build) -> Found:
    """The functions in something that `around` puts another of into the whole."""
    for function, build in _functions(inner, depth):
        yield function, lambda new, names, build=build: around(build(new, names), names)


def _rules(candidate: Any, depth: int) -> Found:
    """Those of a custom_vjp: the backward first."""
    for name in ("bwd", "fwd"):
        rule = getattr(candidate, name, None)

        def anew(new: Callable, names: Names, name=name) -> Any:
            rules = {r: _renamed(getattr(candidate, r), names) for r in ("fwd", "bwd")}
            return with_rules(candidate, **(rules | {name: new}))

        if rule is not None:
            yield from _inside(rule, depth, anew)


def _operation(candidate: Any, depth: int) -> Found:
    """The backward of an operation with `forward` and `backward`, as `handgrad.manual` has them."""
    rule = getattr(candidate, "_backward", None)

    def anew(new: Callable, _: Names) -> Any:
        other = type(candidate)(candidate.forward)
        other.backward(new)
        return other

    if rule is not None:
        yield from _inside(rule, depth, anew)


def _called(function: types.FunctionType, depth: int) -> Found:
    """What it closes over, and what of its own file it calls."""
    code, cells = function.__code__, function.__closure__ or ()
    for k, cell in enumerate(cells):
        if callable(contents(cell)):

            def closed(new: Any, names: Names, k=k) -> Any:
                closure = (*cells[:k], types.CellType(new), *cells[k + 1 :])
                return _like(function, closure, names(function.__globals__))

            yield from _inside(contents(cell), depth + 1, closed)
    for name in _global_names(code):
        called = function.__globals__.get(name)

        def named(new: Any, names: Names, name=name) -> Any:
            return _like(function, cells, {**names(function.__globals__), name: new})

        wrapped = isinstance(called, jax.custom_vjp) or hasattr(called, "__wrapped__")
        if wrapped or isinstance(called, types.FunctionType):
            yield from _inside(called, depth + 1, named)
        elif isinstance(called, types.ModuleType):
            for attribute in code.co_names:
                inner = vars(called).get(attribute)

                def of_module(
                    new: Any, names: Names, named=named, held=called, attribute=attribute
                ) -> Any:
                    return named(types.SimpleNamespace(**{**vars(held), attribute: new}), names)

                if isinstance(inner, types.FunctionType):
                    yield from _inside(inner, depth + 1, of_module)
        elif called is not None:
            held = called if isinstance(called, type) else type(called)

            def of_class(new: Any, names: Names, named=named, called=called) -> Any:
                return named(new if isinstance(called, type) else _as(new, called), names)

            for method, build in _methods(held, function.__module__, depth + 1):
                yield (
                    method,
                    lambda new, names, build=build, put=of_class: put(build(new, names), names),
                )


def _global_names(code: types.CodeType) -> list[str]:
    """Those that it looks up outside of itself; an attribute may have the name of a function."""
    found = [i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"]
    for inner in code.co_consts:  # what a comprehension or a function within calls
        found += _global_names(inner) if isinstance(inner, types.CodeType) else []
    return [*dict.fromkeys(found)]


def _named_by(function: Any) -> Iterator[str]:
    """The names outside of a function, and of those of its module that it calls."""
    waiting, seen = [getattr(function, "__wrapped__", function)], set()
    while waiting:
        of = waiting.pop(0)
        if isinstance(of, types.FunctionType) and of not in seen:
            seen.add(of)
            names = _global_names(of.__code__)
            yield from names
            called = (of.__globals__.get(name) for name in names)
            waiting += [f for f in called if getattr(f, "__module__", "") == of.__module__]


def _methods(owner: type, module: str, depth: int) -> Found:
    """Those of a class of the same file, and what puts another in: a class that derives from it.

    All its methods know the new class by the name of the old one: they make objects of it.
    """
    if owner.__module__ != module or depth > DEPTH:
        return
    for name, method in vars(owner).items():
        held = method.__func__ if isinstance(method, staticmethod | classmethod) else method
        if isinstance(held, types.FunctionType):

            def derived(new: Any, names: Names, name=name) -> Any:
                kind = type(owner)(owner.__name__, (owner,), {})
                for other, old in vars(owner).items():
                    wrapped = isinstance(old, staticmethod | classmethod)
                    f = old.__func__ if wrapped else old
                    if isinstance(f, types.FunctionType):
                        f = new if other == name else f
                        known = {**names(f.__globals__), owner.__name__: kind}
                        anew = _like(f, f.__closure__ or (), known)
                        setattr(kind, other, type(old)(anew) if wrapped else anew)
                return kind

            yield held, derived


def _as(kind: type, held: Any) -> Any:
    """A copy of an object that is of another class."""
    other = copy.copy(held)
    other.__class__ = kind
    return other


def _like(f: types.FunctionType, closure: tuple, names: dict) -> types.FunctionType:
    new = types.FunctionType(f.__code__, names, f.__name__, f.__defaults__, closure)
    new.__kwdefaults__ = f.__kwdefaults__
    return new


def _renamed(rule: Any, names: Names) -> Any:
    if names is _same or not isinstance(rule, types.FunctionType):
        return rule
    return _like(rule, rule.__closure__ or (), names(rule.__globals__))


def contents(cell: types.CellType) -> Any:
    """What a closure holds; None for a name that has no value yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _parse(function: types.FunctionType) -> tuple[ast.Module, Any] | None:
    """A module that holds nothing but the function, its lines as in the file; None without source.

    Names of enclosing functions are bound around it, so that the compiler sees where they live.
    """
    code = function.__code__
    lines = linecache.getlines(code.co_filename, function.__globals__)[code.co_firstlineno - 1 :]
    try:
        block = inspect.getblock(lines)
        tree = ast.parse(textwrap.dedent("".join(block)))
    except (SyntaxError, IndexError, IndentationError):
        return None
    named = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.FunctionDef | ast.Lambda) and _name(n) == code.co_name
    ]
    if not named or (code.co_name == "<lambda>" and len(named) > 1):
        return None
    definition = named[0]
    if isinstance(definition, ast.FunctionDef):
        definition.decorator_list = []
        body: list[ast.stmt] = [definition]
    else:
        body = [ast.Expr(definition)]
    if code.co_freevars:
        body = [
            *(ast.Assign([ast.Name(v, ast.Store())], ast.Constant(None)) for v in code.co_freevars),
            *body,
        ]
        nothing = ast.arguments([], [], None, [], [], None, [])
        body = [ast.FunctionDef("around", nothing, body, [])]
    module = ast.fix_missing_locations(ast.Module(body, []))
    return ast.increment_lineno(module, code.co_firstlineno - 1), definition


def _name(node: Any) -> str:
    return getattr(node, "name", "<lambda>")


def _code_of(code: types.CodeType, name: str) -> types.CodeType:
    """The function of this name in a compiled module."""
    for held in code.co_consts:
        if isinstance(held, types.CodeType):
            if held.co_name == name:
                return held
            if held.co_name == "around":
                return _code_of(held, name)
    raise SyntaxError(f"no function {name}")
