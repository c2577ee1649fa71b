"""English dates, times of day and years as they are read aloud, by American or British habit."""

from __future__ import annotations

import re
from collections.abc import Callable

from sensorium.codecs.english_numbers import cardinal, ordinal, year
from sensorium.codecs.rules import Rule

__all__ = ["DATES", "MONTHS", "stop"]

_NAMES = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_DAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday", "Thurs": "Thursday",
         "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}
_SHORT = {name[:3]: name for name in _NAMES} | {"Sept": "September"}
MONTHS = "|".join(_NAMES)
_ANY = "|".join([*_NAMES, "Sept", *(name[:3] for name in _NAMES)])
_YEAR = r"1\d\d\d|20\d\d"
_CENTURY = 69  # two digits from here on are of the twentieth century, as POSIX reads them
_YEAR_BEFORE = (r"(?:in|since|of|by|until|till|before|after|from|to|year|around|circa|established|FY|AD|Q[1-4]|early|late|mid|summer|autumn|fall|"
                "winter|spring|" + MONTHS + r"|(?:st|nd|rd|th),?|\d,)")


def stop(match: re.Match) -> str:
    """The full stop of an abbreviation also ends the sentence when nothing follows."""
    return "." if match[0].endswith(".") and match.end() == len(match.string) else ""


def _on(day: int, month: int, number: int | None, british: bool) -> str:
    when = f", {year(number)}" if number is not None else ""
    return (f"the {ordinal(day)} of {_NAMES[month - 1]}" if british else f"{_NAMES[month - 1]} {ordinal(day)}") + when


def _whole_year(text: str) -> int:
    return int(text) if len(text) > 2 else int(text) + (1900 if int(text) >= _CENTURY else 2000)


def _numbers(british: bool, ordered: str) -> Callable[[re.Match], str]:
    """A date all in numbers; `ordered`: which number is what, of "dmy". Where months and days can only be the other way round, they are."""
    def made(match: re.Match) -> str:
        parts = dict(zip(ordered, match.groups()))
        day, month = int(parts["d"]), int(parts["m"])
        if month > 12 and ordered[0] != "y":
            day, month = month, day
        if not (1 <= month <= 12 and 1 <= day <= 31):
            return match[0]
        return _on(day, month, _whole_year(parts["y"]), british)

    return made


def _day_month(british: bool) -> Callable[[re.Match], str]:
    def made(match: re.Match) -> str:
        the, day, name, number = match.groups()
        if not 1 <= int(day) <= 31:
            return match[0]
        month = [each[:3] for each in _NAMES].index(name[:3]) + 1
        said = _on(int(day), month, int(number) if number else None, british or bool(the) or not number)
        return (the + said.removeprefix("the ") if the else said) + ("" if number else stop(match))

    return made


def _time(match: re.Match) -> str:
    hour, minute, second, half = int(match[1]), int(match[2]), match[3], match[4]
    said = cardinal(hour) + (f" {_minute(minute)}" if minute else "")
    if second and not half:
        counts = {"hour": hour, "minute": minute, "second": int(second)}
        hours, minutes, seconds = (f"{cardinal(count)} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
        return f"{hours} {minutes} and {seconds}"
    if second:
        said += f" and {cardinal(int(second))} seconds"
    if half:
        return f"{said} {half.upper()}M" + stop(match)
    return said if minute else said + (" o'clock" if 0 < hour <= 12 else " hundred")


def _minute(minute: int) -> str:
    return f"oh {cardinal(minute)}" if minute < 10 else cardinal(minute)


def _several(number: int) -> str:
    """18 -> "eighteens", 6 -> "sixes", 20 -> "twenties"."""
    said = cardinal(number)
    return said[:-1] + "ies" if said.endswith("y") else said + ("es" if said.endswith("x") else "s")


def _tens(text: str) -> str:
    return cardinal(int(text))[:-1] + "ies"


def _hundreds(hour: str, minute: str) -> str:
    """Military time: "0800" -> "zero eight hundred"."""
    return ("zero " if hour[0] == "0" else "") + f"{cardinal(int(hour))} {'hundred' if minute == '00' else _minute(int(minute))}"


_BOOKS = ("Genesis|Exodus|Leviticus|Numbers|Deuteronomy|Joshua|Judges|Ruth|Samuel|Kings|Chronicles|Job|Psalms?|Proverbs|Ecclesiastes|Isaiah|Jeremiah|"
          "Ezekiel|Daniel|Hosea|Joel|Amos|Micah|Matthew|Mark|Luke|John|Acts|Romans|Corinthians|Galatians|Ephesians|Philippians|Colossians|"
          "Thessalonians|Timothy|Titus|Hebrews|James|Peter|Jude|Revelation|Quran")
_HALF = r"([AaPp])\.?[Mm]\b\.?"
_SLASHED = r"(?<![\w/.-])(\d{1,2})([/-])(\d{1,2})\2(\d{4}|\d\d)(?![\w/]|-\d|\.\d)"


def _slashed(british: bool) -> Callable[[re.Match], str]:
    made = _numbers(british, "dmy" if british else "mdy")
    whole = re.compile(r"(\d+)[/-](\d+)[/-](\d+)")
    return lambda match: match[0] if match[2] == "-" and len(match[4]) == 2 else made(whole.fullmatch(match[0]))


def _dates(british: bool) -> list[tuple[str, Callable[[re.Match], str]]]:
    """Dates in numbers, and those that begin with the day."""
    return [
        (r"\b(\d{4})([-/.])(?:\d{1,2})\2(?:\d{1,2})\b(?:T(?=\d\d:))?",
         lambda m: _numbers(british, "ymd")(re.match(r"(\d+).(\d+).(\d+)", m[0])) + (" " if m[0][-1] == "T" else "")),
        (r"(?<![\w.])(\d{1,2})\.(\d{1,2})\.(\d{4})\b(?!\.\d)", _numbers(british, "dmy")),
        (_SLASHED, _slashed(british)),
        (rf"\b([Tt]he )?(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_ANY})\b\.?(?:,? ({_YEAR})\b)?", _day_month(british)),
    ]


DATES: dict[str, list[Rule]] = {
    "month first": _dates(False),
    "day first": _dates(True),
    "dates": [
        (rf"\b(Sept|{'|'.join(_SHORT)})\.?(?=\s\d)", lambda m: _SHORT[m[1]]),
        (rf"\b(Sept|{'|'.join(_SHORT)})\.", lambda m: _SHORT[m[1]] if m[1] not in ("Mar", "May", "Jun") else m[0]),
        (rf"\b({_ANY})\.?\s?[–-]\s?({_ANY})\b\.?", lambda m: f"{_SHORT[m[1][:3]]} to {_SHORT[m[2][:3]]}"),
        (rf"\b({'|'.join(_DAYS)})\.?\s?[–-]\s?({'|'.join(_DAYS)})\b\.?", lambda m: f"{_DAYS[m[1]]} to {_DAYS[m[2]]}"),
        (rf"\b({'|'.join(_DAYS)})\.?(?=,? (?:{_ANY}|\d))", lambda m: _DAYS[m[1]]),
        (rf"\b((?:on|by|until|from|this|next|last|every) )({'|'.join(_DAYS)})\.", lambda m: m[1] + _DAYS[m[2]] + stop(m)),
        (rf"(?<=\d)\s?–\s?(?=(?:{_ANY})\b)", " to "),
        (rf"\b({_BOOKS}) (\d+):(\d+)\b", r"\1 \2 \3"),
        (r"\b([01]\d|2[0-3])([0-5]\d) (?=hours\b|hrs\b)", lambda m: _hundreds(m[1], m[2]) + " "),
        (rf"\b({MONTHS}) (\d{{1,2}})(?:st|nd|rd|th)?\s?[–-]\s?(\d{{1,2}})(?:st|nd|rd|th)?\b(?![:\d])",
         lambda m: f"{m[1]} {ordinal(int(m[2]))} to {ordinal(int(m[3]))}"),
        (r"(?i)((?:ratio|odds|score|scale|aspect)s?(?: \w+)? )(\d+):(\d+)\b", r"\1\2 to \3"),
        (rf"(:\d\d(?:\s?{_HALF})?|\d\s?{_HALF})\s?[–—-]\s?(?=\d)", r"\1 to "),
        (r"\b(\d{1,2})\s?[–-]\s?(?=\d{1,2}(?::\d\d)?\s?[AaPp]\.?[Mm]\b)", r"\1 to "),
        (rf"\b([01]?\d|2[0-3]|24(?=:00)):([0-5]\d)(?::([0-5]\d))?(?![\d:]\d|\d)(?:\s?{_HALF})?", _time),
        (rf"\b(\d{{1,2}})\s?{_HALF}", lambda m: f"{cardinal(int(m[1]))} {m[2].upper()}M" + stop(m)),
    ],
    "years": [
        (r"\b(1\d|20)(\d0)s\b", lambda m: re.sub("y$", "ie", year(int(m[1] + m[2]))) + "s"),
        (r"(?<!\w)'(\d0)s\b", lambda m: _tens(m[1])),
        (r"(?i)\b((?:the|his|her|my|our|your|their|early|late|mid)[ -])([2-9]0)s\b", lambda m: m[1] + _tens(m[2])),
        (r"(?<!\w)'(\d\d)\b(?!')", lambda m: _minute(int(m[1]))),
        (r"(?<![\w.,])(?<!takes )(?<!took )(?<!every )(?<!within )(?<!after )(?<!for )(?<!in )(\d{1,3})s\b", lambda m: _several(int(m[1]))),
        (rf"\b({MONTHS}) (\d{{1,2}})\b(?!:)", lambda m: f"{m[1]} {ordinal(int(m[2]))}"),
    ],
    "bare years": [
        (r"\b(1\d|20)(\d\d)[–-](\d\d)\b(?![–-])",
         lambda m: f"{year(int(m[1] + m[2]))} to {_minute(int(m[3]))}" if int(m[2]) < int(m[3]) else m[0]),
        (r"\b((?:the|a|its|our|his|her|their|this) )(19\d\d|20(?!00)\d\d)(?= [a-z]+\b)(?! (?:[a-z]+s|people|men|women|children)\b)",
         lambda m: m[1] + year(int(m[2]))),
        (rf"(?i:(?<=\b)({_YEAR_BEFORE} ?))\b({_YEAR})\b(?![,.]?\d)", lambda m: m[1] + year(int(m[2]))),
        (r"\bFY(?=20\d\d\b)", "FY "),
        (r"\b(1[1-9]\d\d|20\d\d)\b(?![,.]?\d)(?! (?:[a-z]|percent))(?! ?%)", lambda m: year(int(m[1]))),
    ],
}
