"""The page of one built-in function: signature, mathematics, and the code of both rooms."""

import ast
import dataclasses
import importlib
import inspect
import textwrap
from types import ModuleType
from typing import Any

from handgrad.compare.suite import Item

__all__ = ["Page", "page"]


@dataclasses.dataclass(frozen=True)
class Page:
    signature: str
    mathematics: str
    sides: dict[str, str]  # title -> code


def page(item: Item) -> Page:
    """Of the function that an item verifies."""
    rooms = [importlib.import_module(f"handgrad.{room}") for room in ("manual", "reference")]
    by_hand, plain = (getattr(room, item.function) for room in rooms)
    return Page(
        f"{item.topic}.{item.function}{inspect.signature(by_hand)}",
        inspect.getdoc(by_hand) or "It has no docstring.",
        {
            "by hand (handgrad.manual)": source(by_hand, item.function),
            "differentiated by autodiff (handgrad.reference)": source(plain, item.function),
        },
    )


def source(function: Any, name: str) -> str:
    """The code of a function and of the backward registered with it, without its docstring."""
    module = inspect.getmodule(inspect.unwrap(function))
    if module is None:
        return f"# {name} is not written in Python"
    lines = inspect.getsource(module).splitlines()
    blocks = [_block(node, lines) for node in _defining(module, name)]
    return "\n\n".join(blocks) or f"# {name} is made in {module.__name__}"


def _defining(module: ModuleType, name: str) -> list[ast.stmt]:
    """The top-level statements that define `name`, or are decorated with `@name.backward`."""
    found: list[ast.stmt] = []
    for node in ast.parse(inspect.getsource(module)).body:
        match node:
            case ast.FunctionDef():
                owners = {ast.unparse(d).partition(".")[0] for d in node.decorator_list}
                if node.name == name or name in owners:
                    found.append(node)
            case ast.Assign(targets=[ast.Name(id=target)]) if target == name:
                found.append(node)
    return found


def _block(node: ast.stmt, lines: list[str]) -> str:
    assert node.end_lineno is not None
    first = node.lineno
    if isinstance(node, ast.FunctionDef):
        first = min([first, *(d.lineno for d in node.decorator_list)])
    kept = range(first, node.end_lineno + 1)
    if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
        doc = node.body[0]
        assert doc.end_lineno is not None
        kept = [n for n in kept if not doc.lineno <= n <= doc.end_lineno]
    return textwrap.dedent("\n".join(lines[n - 1] for n in kept))
