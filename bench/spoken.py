"""Text read aloud beside libraries of text normalization: the share of tests/spoken_cases.tsv that each says as conventions have it.

None of the libraries is a dependency; those at hand are counted: WeTextProcessing 1.2.0 (English and Chinese grammars on pynini 2.1.7),
nemo_text_processing 1.2.0 (English), cn2an 0.5.24 (Chinese numbers), num2words 0.5.14 (English numbers; where they stand is found by plain patterns),
and for readings pypinyin's own words and sandhi, and g2pM 0.1.2.5. Run through bench/run.py.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import tempfile
from collections.abc import Callable

from tests.spoken import Case, cases, ours

Say = Callable[[str], str]
_ENGLISH = ("en-us", "en-gb")


def _share(rows: list[Case], said: Callable[[Case], str]) -> float:
    return sum(case.right(said(case)) for case in rows) / len(rows)


def _rates(languages: tuple[str, ...], peers: dict[str, tuple[str, Callable[[], Say]]]) -> dict[str, float]:
    """Our share of all rows and of those held out, and of each library at hand that of all rows. `peers`: name -> its module, how to open it."""
    logging.disable(logging.WARNING)  # the grammars report every file they open
    rows = cases(*languages)
    out = {"rows": len(rows), "ours": _share(rows, ours), "ours_held_out": _share([case for case in rows if case.held], ours)}
    for name, (module, opened) in peers.items():
        if importlib.util.find_spec(module):
            say = opened()
            out[name] = _share(rows, lambda case, say=say: say(case.written))
    logging.disable(logging.NOTSET)
    return out


def _wetext(language: str) -> Callable[[], Say]:
    def opened() -> Say:
        if language == "zh":
            from tn.chinese.normalizer import Normalizer

            return Normalizer(remove_erhua=False).normalize
        from tn.english.normalizer import Normalizer

        return Normalizer().normalize

    return opened


def _nemo() -> Say:
    from nemo_text_processing.text_normalization.normalize import Normalizer

    normalizer = Normalizer(input_case="cased", lang="en", cache_dir=tempfile.mkdtemp())  # compiles its grammars: half a minute
    return lambda text: normalizer.normalize(text, verbose=False)


def _num2words() -> Say:
    from num2words import num2words

    def money(match: re.Match) -> str:
        return num2words(match[2].replace(",", ""), to="currency", currency={"$": "USD", "€": "EUR", "£": "GBP"}[match[1]])

    rules = [(r"([$€£])(\d[\d,]*(?:\.\d\d)?)\b", money), (r"\b(\d+)(?:st|nd|rd|th)\b", lambda m: num2words(int(m[1]), to="ordinal")),
             (r"(?<![\d.,$])(1[1-9]\d\d|20\d\d)(?![\d.,])", lambda m: num2words(int(m[1]), to="year")),
             (r"\d[\d,]*(?:\.\d+)?", lambda m: num2words(m[0].replace(",", "").rstrip(".")))]

    def say(text: str) -> str:
        for pattern, made in rules:
            text = re.sub(pattern, made, text)
        return text

    return say


def _cn2an() -> Say:
    import cn2an

    def say(text: str) -> str:
        try:
            return cn2an.transform(text, "an2cn")
        except ValueError:  # what it cannot read
            return text

    return say


def _pypinyin() -> Say:
    from pypinyin import Style, lazy_pinyin

    return lambda text: " ".join(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True, tone_sandhi=True))


def _g2pm() -> Say:
    from g2pM import G2pM

    reader = G2pM()
    return lambda text: " ".join(reader(text, tone=True, char_split=True)).replace("u:", "v")


def spoken_english() -> dict[str, float]:
    """English text as it is read aloud, share of written cases: ours, and the libraries at hand."""
    return _rates(_ENGLISH, {"wetext": ("tn", _wetext("en")), "nemo": ("nemo_text_processing", _nemo), "num2words": ("num2words", _num2words)})


def spoken_chinese() -> dict[str, float]:
    """Chinese text as it is read aloud, share of written cases: ours, and the libraries at hand."""
    return _rates(("zh",), {"wetext": ("tn", _wetext("zh")), "cn2an": ("cn2an", _cn2an)})


def spoken_pinyin() -> dict[str, float]:
    """Readings of Chinese characters with their tones in use, share of written cases: ours, and the libraries at hand."""
    return _rates(("pinyin",), {"pypinyin": ("pypinyin", _pypinyin), "g2pm": ("g2pM", _g2pm)})


SPOKEN = {"spoken_english": spoken_english, "spoken_chinese": spoken_chinese, "spoken_pinyin": spoken_pinyin}
