"""Written cases and what is said of them (spoken_cases.tsv), counted by language; texts cut into sentences never tear such things."""

from __future__ import annotations

import importlib.util

import pytest

from tests.spoken import cases, ours

chinese = pytest.mark.skipif(importlib.util.find_spec("pypinyin") is None, reason="wants pypinyin and jieba")


@pytest.mark.parametrize("languages", [("en-us", "en-gb"), ("zh",), pytest.param(("pinyin",), marks=chinese)], ids=str)
def test_written_cases_are_said_as_conventions_have_it(languages: tuple[str, ...]) -> None:
    """At least 97 % of all, and of those that were held out while the rules were written."""
    rows = cases(*languages)
    wrong = {case: said for case in rows if not case.right(said := ours(case))}
    for case, said in wrong.items():
        print(f"{case.language} {case.kind}: {case.written!r} -> {said!r}, wanted {' | '.join(case.forms)!r}")
    held = [case for case in rows if case.held]
    assert len(rows) >= 120 and 1 - len(wrong) / len(rows) >= 0.97
    assert 1 - sum(case.held for case in wrong) / len(held) >= 0.97
