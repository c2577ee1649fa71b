"""Written cases with their spoken forms (spoken_cases.tsv): what tests and the bench beside libraries of text normalization count.

Each row: language (en-us, en-gb, zh; pinyin: the syllables of Chinese characters), kind, what is written, and what may be said, "|" between
forms that conventions allow. The forms were written from the conventions (US English, with or without "and"; 普通话: 两 before counting words, 幺 in
telephone numbers, years digit by digit) before any program was asked. Every third row was held out while the rules were written; the rows of
the kind "sentences" came last, and what they showed was mended after they had been counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sensorium.codecs import english, mandarin
from sensorium.codecs.sentences import plain

_SPELLINGS = {"metre": "meter", "litre": "liter", "per cent": "percent", "missis": "missus"}


@dataclass(frozen=True)
class Case:
    """One row; `held`: among the third that rules are not tuned on."""

    language: str
    kind: str
    written: str
    forms: tuple[str, ...]
    held: bool

    def right(self, said: str) -> bool:
        """Whether this is one of the forms, but for case, punctuation, hyphens and the "and" of numbers and money."""
        return heard(said, self.language) in {heard(form, self.language) for form in self.forms}


def cases(*languages: str) -> list[Case]:
    """The rows of these languages."""
    lines = Path(__file__).with_name("spoken_cases.tsv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines]
    return [Case(language, kind, written, tuple(forms.split("|")), i % 3 == 2)
            for i, (language, kind, written, forms) in enumerate(rows) if language in languages]


def heard(text: str, language: str) -> str:
    """What two ways of writing the same sounds have in common."""
    text = text.lower()
    if language == "zh":
        return re.sub(rf"[^{mandarin.HAN}a-z0-9]", "", text).replace("〇", "零").replace("至", "到")
    if language == "pinyin":
        return " ".join(text.split())
    text = re.sub(r"[-–—]", " ", re.sub(r"[.,;:!?\"“”()]|(?<=[a-z])['’](?=clock|[a-z]?\b)", "", text))
    for old, new in _SPELLINGS.items():
        text = text.replace(old, new)
    text = re.sub(r"\b(hundred|thousand|million|billion|dollars?|pounds?|euros?|minutes?) and\b", r"\1", " ".join(text.split()))
    return re.sub(r"\b(?:[a-z] )+[a-z]\b", lambda m: m[0].replace(" ", ""), text)


def ours(case: Case) -> str:
    """What the project says, by the way that text goes before it is spoken."""
    if case.language == "zh":
        return mandarin.spoken(plain(case.written))
    if case.language == "pinyin":
        return " ".join(said for word in mandarin.syllables(case.written) for said in word)
    return english.spoken(plain(case.written), case.language)
