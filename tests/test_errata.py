"""The errata: each fails as printed, its correction holds, and the numbers are computed."""

import dataclasses

import pytest

from handgrad.compare.claims import examine_all
from handgrad.compare.errata import errata_table
from handgrad.manual.derivations import every

EXPECTED = {  # claim: places of the inventory's errata, as far as they are lines
    "X4": ["14.166–14.167", "14.152, 14.165", "14.165, with 14.151 read as −Σ cᵢ ln pᵢ"],
    "P12": ["3.17–3.18", "3.20, third line", "3.21"],
    "P1": ["3.7, first line"],
    "P8": [
        "section 3, δ for sigmoid",
        "section 3, after the gradient of W",
        "section 3, the example",
    ],
    "C1": ["figure 14.15, second output"],
    "P9": ["Sanity check"] * 5,
    "N6": ["3.3, after"],
    "G1": ["section 5.1, text"],
    "G2": ["section 5.2, heading"],
    "G4": ["section 6, step 2"],
    "O1": ["section 7, step 4", "section 7, step 5"],
    "O2": ["section 8, step 4", "section 8, step 8"],
    "O3": ["section 9, step 7", "section 9, step 8"],
    "N4": ["14.48"],
    "A5": ["Gradient descent, first sentence"],
}  # fmt: skip


@pytest.fixture(scope="module")
def reports():
    """Only those with an erratum are examined."""
    wanted = [any(line.wrong for line in d.lines) for d in every()]
    from handgrad.compare.derivation import DerivationReport, examine_derivation

    return tuple(
        examine_derivation(d) if has else DerivationReport(d.name, d.claim, d.source, 0, ())
        for d, has in zip(every(), wanted, strict=True)
    )


@pytest.fixture(scope="module")
def table(reports):
    return errata_table(reports=reports)


def test_every_erratum_is_confirmed(table):
    for row in table:
        assert row.confirmed, row
        assert row.correction, row
        assert all((row.why, row.place, row.document, row.printed)), row


@pytest.mark.parametrize("claim", EXPECTED)
def test_the_inventorys_errata_are_there(table, claim):
    places = [row.place for row in table if row.claim == claim]
    for place in EXPECTED[claim]:
        assert place in places
        places.remove(place)


def test_there_are_more_than_the_inventory_lists(table):
    assert len(table) == sum(line.wrong is not None for d in every() for line in d.lines)
    assert len(table) > 1.5 * sum(map(len, EXPECTED.values()))


def test_the_numbers_of_x4(table):
    (row,) = [row for row in table if row.place == "14.166–14.167"]
    assert row.printed == "∂L/∂sᵢ = pᵢ − cᵢ"
    assert row.numbers == (
        "printed: (0.27096, 0.0604593, -0.553263, 0.221843); "
        "true: (0.447236, 0.0812117, -0.875407, 0.346959)"
    )


def test_a_continued_line_is_given_its_left_hand_side(table):
    for row in table:
        assert not row.printed.startswith("="), row
        assert not row.correction.startswith("="), row


def test_the_numbers_are_computed_not_typed():
    """Another seed, other numbers, wherever the sample is drawn."""
    (place,) = [i for i, d in enumerate(every()) if d.name == "a batch in columns: the first layer"]

    def numbers(seed):
        from handgrad.compare.derivation import DerivationReport, examine_derivation

        reports = [DerivationReport(d.name, d.claim, d.source, seed, ()) for d in every()]
        reports[place] = examine_derivation(every()[place], seed)
        return [row.numbers for row in errata_table(reports=reports)]

    assert numbers(0) == numbers(0)
    assert all(a != b for a, b in zip(numbers(0), numbers(1), strict=True))


def test_an_erratum_whose_correction_fails_is_not_confirmed(reports):
    (place,) = [i for i, d in enumerate(every()) if d.name == "forward, 3×3 by 2×2"]
    spoilt = list(reports)
    lines = [dataclasses.replace(line, holds=False) for line in reports[place].lines]
    spoilt[place] = dataclasses.replace(reports[place], lines=tuple(lines))
    (row,) = [row for row in errata_table(reports=spoilt) if row.claim == "C1"]
    assert not row.confirmed


def test_the_table_examines_by_itself(monkeypatch):
    from handgrad.compare import errata

    few = [d for d in every() if d.claim == "G4"]
    monkeypatch.setattr(errata, "every", lambda: few)
    monkeypatch.setattr("handgrad.compare.claims.every", lambda: few)
    assert [row.claim for row in errata_table()] == ["G4", "G4"]
    assert examine_all()[0].ok
