"""English as it is read aloud: numbers, dates, money, units, abbreviations and links become words.

    spoken("Dr. Lee paid $3.50 on 2024-03-15.")   -> "Doctor Lee paid three dollars and fifty cents on March fifteenth, twenty twenty-four."

Each rule is a pattern and what it becomes; the order matters (names with signs before the signs, telephone numbers and dates before ranges, money
before decimals before whole numbers).
"""

from __future__ import annotations

import re
import unicodedata

from sensorium.codecs.english_dates import DATES
from sensorium.codecs.english_measures import MEASURES, UNIT
from sensorium.codecs.english_names import NAMES
from sensorium.codecs.english_numbers import NUMBER, cardinal, decimal, digits, fraction, ordinal, year
from sensorium.codecs.rules import Rule, compiled, rewrite
from sensorium.types import ConfigError

__all__ = ["cardinal", "digits", "ordinal", "spoken", "year"]

_SIGNS = {
    "&": " and ", "%": " percent", "‰": " per mille", "+": " plus ", "=": " equals ", "@": " at ", "×": " times ", "÷": " divided by ",
    "±": " plus or minus ", "≈": " about ", "≤": " at most ", "≥": " at least ", "≠": " is not equal to ", "<": " less than ", ">": " greater than ",
    "√": " the square root of ", "∛": " the cube root of ", "∞": " infinity ", "π": " pi ", "°": " degrees ", "§": " section ", "©": "", "®": "",
    "™": "", "→": ", ", "_": " ", "~": " about ", "^": " to the power of ", "#": " number ", "\\": " ", "|": ", ", "*": " ", "`": " ", "−": " minus ",
}
_ROUND = {1: "tens", 2: "hundreds", 3: "thousands", 6: "millions"}
_SUPERS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ"
_PER = {"s": "second", "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "yr": "year", "mo": "month", "wk": "week",
        **{name: name for name in ("hour", "day", "week", "month", "year", "person")}}
_TERM = r"(?:\d+(?:\.\d+)?[a-z]?[²³]?|\b[A-Za-z][²³]?)"
_OPERATORS = {"-": " minus ", "−": " minus ", "/": " divided by ", "*": " times "}


def _sum(match: re.Match) -> str:
    """Inside an equation a hyphen is a minus and a slash divides."""
    return re.sub(r"(?<=[\w²³])\s?([-−*/])\s?(?=\w)", lambda m: _OPERATORS[m[1]], match[0])


def _power(match: re.Match) -> str:
    raised = match[0].strip("^ ()") if match[0][0] == "^" else unicodedata.normalize("NFKC", match[0])
    raised = raised.replace("−", "-").replace("+", "")
    return {"2": " squared", "3": " cubed"}.get(raised) or " to the power of " + (cardinal(int(raised)) if raised[-1:].isdecimal() else raised)


def _range(match: re.Match) -> str:
    parts = re.split(r"\s?[–-]\s?", match[0])
    if len(parts) == 2 and len(parts[1]) <= 4 and parts[1][0] != "0":
        low, high = map(int, parts)
        if low < high or len(parts[0]) <= 2:  # also 3-2, a score, and 9-5, hours
            return " to ".join(year(int(part)) if len(part) == 4 else cardinal(int(part)) for part in parts)
    return ", ".join(digits(part) for part in parts)  # a telephone number


def _mixed(match: re.Match) -> str:
    part = fraction(int(match[2]), int(match[3]))
    return f"{cardinal(int(match[1]))} and {'a half' if part == 'one half' else part}"


def _goes_on(match: re.Match) -> bool:
    return match.string[match.end(): match.end() + 1].isalpha()


def _plain(match: re.Match) -> str:
    text = match[0]
    if "," not in text and (len(text) > 7 and text[-3:] != "000" or len(text) > 1 and text[0] == "0"):
        return digits(text)
    return cardinal(int(text.replace(",", "")))


def _vulgar(match: re.Match) -> str:
    return (match[1] + " " if match[1] else "") + unicodedata.normalize("NFKC", match[2]).replace("⁄", "/")


_MATHS: list[Rule] = [
    (r"(?:(\d)\s?)?([¼-¾⅐-⅞])", _vulgar),
    (rf"(?<![\w/.-]){_TERM}(?:\s?[-−+*/×÷]\s?{_TERM})*\s?=\s?{_TERM}(?:\s?[-−+*/×÷]\s?{_TERM})*(?![\w/])", _sum),
    (r"(?<=\d)\s?\*\s?(?=\d)", " times "),
    (r"\b(\d+(?:\.\d+)?)(?:e|E(?=[+-])|(?<=\.\d)E)([+-]?\d{1,3})\b", lambda m: f"{decimal(m[1])} times ten to the power of {cardinal(int(m[2]))}"),
    (r"(\d\.\d+)/(\d+)\b", lambda m: f"{m[1]} out of {m[2]}"),
    (r"\bT-(?=\d)", "T minus "), (r"\b1(0|00|,?000|,?000,?000)s\b(?= of\b)", lambda m: _ROUND[m[1].count("0")]),
    (r"\b(\d+)x\b(?!\s?[=+*/^<>≤≥-])", r"\1 times"),
]
_POWERS: list[Rule] = [(r"(?<=[\w)])\s?\^\s?(?:\(?[-−]?\d+\)?|[a-z]\b)", _power), (f"[{_SUPERS}]+", _power)]

_LATER: list[Rule] = [
    (rf"(?<![\w.,-])({NUMBER}(?:\.\d+)?%?)\s?[–-]\s?(?={NUMBER}(?:\.\d+)?\s?(?:{UNIT}|%)|\d+\.\d)", r"\1 to "),
    (r"(?<![\w.])-(?=[$€£¥₹]?\.?\d)", "minus "),
    *MEASURES,
    *_POWERS,
    *DATES["years"],
    (rf"\b({NUMBER})(?:st|nd|rd|th)\b", lambda m: ordinal(int(m[1].replace(",", "")))),
    *DATES["bare years"][:1],
    (r"(?<![\w.,-])\d+(?:\s?[–-]\s?\d+)+\b(?![.,]\d)", _range),
    *DATES["bare years"][1:],
    (r"\b(\d)/(\d)(?= time\b)", lambda m: f"{cardinal(int(m[1]))} {cardinal(int(m[2]))}"),
    (r"(?<![/\d.])(\d+)[ -](\d{1,2})/(\d{1,3})\b(?!/)", _mixed),
    (r"\b(\d{1,3})/(\d{1,4})\b(?!/)", lambda m: fraction(int(m[1]), int(m[2]))),
    (r"(?<![\w.])\d+(?:\.\d+){2,}", lambda m: " point ".join(cardinal(int(part)) for part in m[0].split(".")) + " " * _goes_on(m)),
    (r"\b(\d+):(\d+)\b", r"\1 to \2"),
    (rf"(?<![\w.])(?:{NUMBER})?\.\d+\b", lambda m: decimal(m[0])),
    (r"(?<=\d)(?=[A-Za-z])|(?<=[A-Za-z])(?=\d)", " "),
    (NUMBER, _plain),
    (rf"(?<=[a-z])/({'|'.join(_PER)})\b", lambda m: f" per {_PER[m[1]]}"),
    (r"\b((?:dollar|euro|pound|cent|rupee|franc)s?|yen|yuan|won)/(?=[A-Za-z])", r"\1 per "),
    (r"(?<=[A-Z])/(?=[A-Z])", " "),
    (r"(?<=[A-Za-z])/(?=[A-Za-z])", " or "),
    (r"(?<=[a-z] )A(?= [a-z])", "eh"),
    (r"\bA\s?[–-]\s?Z\b", "A to Z"),
    (f"[{re.escape(''.join(_SIGNS))}]", lambda m: _SIGNS[m[0]]),
    (r"[–—]|\s--\s", " — "),
    (r"\s+", " "),
    (r"\s+([.,;:!?])(?=\s|$)", r"\1"),
]


_RULES = {accent: compiled([*NAMES, *DATES[order], *DATES["dates"], *_MATHS, *_LATER])
          for accent, order in (("en-us", "month first"), ("en-gb", "day first"))}
_CLEAN = {"’": "'", "‘": "'", "″": '"', "′": "'", "μ": "µ", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "‑": "-", "№": "No. "}


def spoken(text: str, accent: str = "en-us") -> str:
    """English text with everything that is not a word written as it is read aloud; punctuation stays.

    Args:
        accent: "en-us", where 3/4/2026 is a day in March, or "en-gb", where it is one in April.

    Raises:
        ConfigError: another accent.
    """
    if accent not in _RULES:
        raise ConfigError(f"English is read aloud with the accent {' or '.join(_RULES)}, not {accent!r}")
    return rewrite(text, _RULES[accent], _CLEAN)
