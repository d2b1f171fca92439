"""The page of concepts: each stands, by the field's own term, in the file that it names."""

import re

import pytest

from tests.support.processes import ROOT

PAGE = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| (transformer/\S+) \|$", PAGE, re.MULTILINE)


def test_there_are_concepts_enough() -> None:
    assert len(ROWS) >= 60 and len({concept for concept, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("concept", "path"), ROWS, ids=[concept for concept, _ in ROWS])
def test_a_concept_stands_in_its_file(concept: str, path: str) -> None:
    text = " ".join((ROOT / path).read_text(encoding="utf-8").split()).lower()
    assert re.search(rf"\b{re.escape(concept.lower())}", text)
