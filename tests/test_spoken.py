"""Written cases and what is said of them (spoken_cases.tsv), counted by language; texts cut into sentences never tear such things."""

from __future__ import annotations

import importlib.util
import re

import pytest

from sensorium.codecs import english, mandarin
from sensorium.codecs.phonemes import phonemes
from sensorium.codecs.sentences import clauses, plain, sentences
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


CUTS = (  # sentences as they are cut, "|" between them
    "The U.S. Army came.|He lives in the U.S.|He works.",
    "J.R.R. Tolkien wrote.|W. A. Mozart did not.",
    "Apple Inc. Chairman Smith left Apple Inc.|The shop stayed.",
    "It is on Main St.|The shop is new.",
    "Dr. Smith lives on Elm Dr.|He said no.",
    "See pp. 12-15.|Fig. 3 shows No. 5.",
    "No.|I won't.",
    "At 5 p.m. EST we go.|At 5 p.m. Monday we come.|It is 5 p.m.|Now go.",
    "She has a Ph.D.|In 2020 she left.",
    "Mon. Nov. 30 is near.|Take vitamin C.|Is it good?",
    "v2.0.1 costs $3.50.|Python 3.11 is at 192.168.0.1.",
    "It is 3:05 p.m.|Bring 2 lb. of it.",
    "约3.5公里。|v2.0.1版，Dr. Smith来了。",
)


@pytest.mark.parametrize("marked", CUTS)
def test_sentences_are_cut_beside_abbreviations_and_numbers(marked: str) -> None:
    """However the text arrives."""
    wanted = marked.split("|")
    text = marked.replace("。|", "。").replace("|", " ")
    assert list(sentences([text])) == wanted
    assert all(list(sentences([text[:cut], text[cut:]])) == wanted for cut in range(len(text)))
    assert list(sentences(iter(text))) == wanted


def test_a_text_that_runs_on_is_not_cut_inside_a_number() -> None:
    """"12,345" and "10:30" hold marks of a clause, and no clause ends there."""
    for unit in ("12,345", "10:30"):
        text = "x" * 7 + f" about {unit}" * 60
        assert [part for part in sentences([text]) if part.endswith((",", ":"))] == []
        assert all(re.fullmatch(rf"(?:x+|about|{unit}|\s)*", part) for part in clauses(text, 100, len))


def test_initials_are_said_by_their_letters_and_acronyms_as_words() -> None:
    """espeak-ng 1.52 alone makes words of IQ, CO and AM."""
    pytest.importorskip("espeakng_loader")
    assert phonemes("IQ") == "ˌIkjˈu" and phonemes("the FBI") == "ðɪ ˌɛfbˌiˈI" and phonemes("NASA") == "nˈæsə" and phonemes("VIPs") == "vˌiˌIpˈiz"
    assert phonemes("nine AM.") == "nˈIn ˌAˈɛm." and phonemes(english.spoken("CO2")) == "sˌiˈO tˈu" and phonemes("who") == phonemes("WHO")


def test_units_in_one_character_are_said() -> None:
    """℃ and ㎡ are signs by their category, and are no emoji."""
    assert mandarin.spoken(plain("25℃，5㎡，3㎞😀")) == "二十五摄氏度，五平方米，三公里" and english.spoken(plain("25℃ or 77℉")) == (
        "twenty-five degrees Celsius or seventy-seven degrees Fahrenheit")


def test_a_british_voice_reads_dates_the_british_way() -> None:
    assert english.spoken("3/4/2026", "en-gb") == "the third of April, twenty twenty-six"
    assert english.spoken("3/4/2026") == "March fourth, twenty twenty-six" == english.spoken("4.3.2026")


def test_numbers_agree_with_num2words() -> None:
    """num2words 0.5.14, but for its "and" and commas."""
    num2words = pytest.importorskip("num2words").num2words
    for number in [*range(131), 200, 219, 999, 1000, 1001, 1100, 12_345, 100_000, 999_999, 10**6, 10**9 + 7]:
        assert english.cardinal(number) == num2words(number).replace(" and ", " ").replace(",", "")
        assert english.ordinal(number) == num2words(number, to="ordinal").replace(" and ", " ").replace(",", "")
    for year in (1066, 1492, 1776, 1900, 1999, 2010, 2026):
        assert english.year(year) == num2words(year, to="year").replace("-hundred", " hundred")
