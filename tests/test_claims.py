"""Coverage is counted: every claim of the inventory is verified by something that runs."""

import importlib
import json

import pytest

from handgrad.compare import claims as module
from handgrad.compare.claims import Claim, claims, examine_all, traceability, uncovered
from handgrad.compare.derivation import DerivationReport, LineReport
from handgrad.manual.derivations import every


def report(derivation, ok=True):
    """A verdict without the examination, which tests/test_derivations.py does."""
    lines = tuple(
        LineReport(
            number, line.latex, line.source, line.wrong, None,
            holds=line.wrong is None and (ok or number > 1), departs=not ok and number == 1,
        )
        for number, line in enumerate(derivation.lines, 1)
    )  # fmt: skip
    return DerivationReport(derivation.name, derivation.claim, derivation.source, 0, lines)


def test_the_inventory_has_57_claims():
    ids = [claim.id for claim in claims()]
    assert len(ids) == len(set(ids)) == 57
    for letter, count in {"A": 9, "N": 10, "P": 13, "X": 4, "D": 1, "C": 3, "R": 4, "G": 7}.items():
        assert [i for i in ids if i[0] == letter] == [f"{letter}{n + 1}" for n in range(count)]
    assert all(claim.title and claim.section for claim in claims())


def test_every_claim_is_verified():
    assert uncovered() == ()


def test_nothing_is_verified_that_is_not_claimed():
    ids = {claim.id for claim in claims()}
    assert {derivation.claim for derivation in every()} <= ids


def test_a_claim_without_verification_is_found(monkeypatch):
    monkeypatch.setattr(module, "every", lambda: [d for d in every() if d.claim != "P13"])
    assert uncovered() == ("P13",)


def test_a_derivation_that_is_wrong_verifies_nothing():
    reports = [report(d, ok=d.claim != "X3") for d in every()]
    rows = traceability(reports)
    assert uncovered(rows) == ("X3",)
    (row,) = [row for row in rows if row.claim == "X3"]
    assert (row.verdict, row.ok) == ("✗ line 1", False)


def test_the_table_leads_from_the_claim_to_the_code():
    rows = traceability(report(d) for d in every())
    (row,) = [row for row in rows if row.claim == "N3"]
    assert (row.title, row.derivation) == ("sigmoid", "sigmoid")
    assert row.manual == row.reference == "activations.sigmoid"
    assert row.verdict == "✓ 6 lines"
    (row,) = [row for row in rows if row.claim == "C1"]
    assert row.verdict == "✓ 4 lines, 1 wrong as printed"
    assert [row.manual for row in rows if row.claim == "R4"][-1] == "figures.lag"
    order = [claim.id for claim in claims()]
    assert [row.claim for row in rows] == sorted((r.claim for r in rows), key=order.index)


@pytest.mark.parametrize(
    "name", sorted({name for derivation in every() for name in derivation.ends_in})
)
def test_what_a_derivation_ends_in_exists_in_both_rooms(name):
    topic, _, function = name.rpartition(".")
    assert callable(getattr(importlib.import_module(f"handgrad.manual.{topic}"), function))
    if topic not in ("graph", "second_order"):  # of these the plain function is the counterpart
        assert callable(getattr(importlib.import_module(f"handgrad.reference.{topic}"), function))


def test_progress_is_told(monkeypatch):
    monkeypatch.setattr(module, "every", lambda: every()[:2])
    told = []
    reports = examine_all(progress=lambda *args: told.append(args))
    assert told == [("A1 dot product", 0, 2), ("A1 gradient of the cosine", 1, 2)]
    assert [r.ok for r in reports] == [True, True]


def test_the_claims_are_data():
    text = (importlib.resources.files("handgrad.compare") / "claims.json").read_text("utf-8")
    assert [Claim(**row) for row in json.loads(text)] == list(claims())
