"""What a run of `handgrad check` found, as JSON and as JUnit XML."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from handgrad.compare.suite import Item, Verdict

if TYPE_CHECKING:
    from handgrad.compare.coverage import Coverage

__all__ = ["as_json", "as_junit"]


def as_json(
    found: Mapping[Item, Verdict], *, seed: int, scale: float, interrupted: bool = False,
    coverage: Sequence["Coverage"] = (),
) -> str:  # fmt: skip
    """Everything that every report says; no times, so the same run gives the same text."""
    cases = [
        {
            "id": item.id,
            "topic": item.topic,
            "function": item.function,
            "status": verdict.status,
            "gradients_verified": verdict.verified,
            "accurate": verdict.accurate if verdict.accuracy else None,
            "printed": verdict.printed,
            "report": verdict.data,
        }
        for item, verdict in found.items()
    ]
    whole = {
        "handgrad": version("handgrad"),
        "jax": version("jax"),
        "seed": seed,
        "scale": scale,
        "interrupted": interrupted,
        "ok": all(verdict.ok for verdict in found.values()),
        "cases": cases,
    }
    if coverage:
        whole["coverage"] = [c.to_dict() for c in coverage]
    return json.dumps(plain(whole), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Arrays and their scalars as lists and numbers; what JSON cannot say (nan, inf) as strings."""
    match value:
        case dict():
            return {str(k): plain(v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(v) for v in value]
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case complex():
            return plain(value.real) if value.imag == 0 else str(value)
        case _ if hasattr(value, "tolist"):
            return plain(value.tolist())
        case _:
            return str(value)


def as_junit(found: Mapping[Item, Verdict], seconds: float) -> str:
    """A test suite for each topic; wrong is a failure, what could not be compared an error."""
    root = ElementTree.Element("testsuites", name="handgrad", time=f"{seconds:.3f}")
    topics = dict.fromkeys(item.topic for item in found)
    for topic in topics:
        mine = {item: verdict for item, verdict in found.items() if item.topic == topic}
        wrong = sum(verdict.status == "wrong" for verdict in mine.values())
        errors = sum(not verdict.ok for verdict in mine.values()) - wrong
        suite = ElementTree.SubElement(
            root, "testsuite", name=topic, tests=str(len(mine)), failures=str(wrong),
            errors=str(errors), skipped="0",
        )  # fmt: skip
        for item, verdict in mine.items():
            case = ElementTree.SubElement(suite, "testcase", classname=topic, name=item.id)
            if not verdict.ok:
                tag = "failure" if verdict.status == "wrong" else "error"
                sentence = verdict.data.get("problem") or verdict.text.partition("\n")[0]
                why = ElementTree.SubElement(case, tag, type=verdict.status, message=_xml(sentence))
                why.text = _xml(verdict.text)
            if verdict.printed:
                ElementTree.SubElement(case, "system-out").text = _xml(verdict.printed)
    ElementTree.indent(root)
    return ElementTree.tostring(root, "unicode", xml_declaration=False) + "\n"


def _xml(text: str) -> str:
    """Without the control characters that XML forbids."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "�", text)
