"""English as it is read aloud: numbers, dates, money, units, abbreviations and links become words.

    spoken("Dr. Lee paid $3.50 on 2024-03-15.")   -> "Doctor Lee paid three dollars and fifty cents on March fifteenth, twenty twenty-four."

Each rule is a pattern and what it becomes; the order matters (money before decimals before whole numbers).
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["cardinal", "digits", "link", "ordinal", "spoken", "year"]

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ("", " thousand", " million", " billion", " trillion", " quadrillion", " quintillion")
_IRREGULAR = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth"}
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]
_MONEY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "¥": ("yen", ""), "₹": ("rupee", "paisa")}
_MANY = {"penny": "pence", "yen": "yen", "foot": "feet", "inch": "inches", "hertz": "hertz", "kilohertz": "kilohertz",
         "megahertz": "megahertz", "gigahertz": "gigahertz", "degree Celsius": "degrees Celsius", "degree Fahrenheit": "degrees Fahrenheit",
         "degree": "degrees", "mile per hour": "miles per hour", "kilometer per hour": "kilometers per hour",
         "meter per second": "meters per second", "square meter": "square meters", "square kilometer": "square kilometers"}
_UNITS = {
    "km/h": "kilometer per hour", "kph": "kilometer per hour", "mph": "mile per hour", "m/s": "meter per second", "km²": "square kilometer",
    "m²": "square meter", "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "nm": "nanometer", "kg": "kilogram", "mg": "milligram",
    "g": "gram", "lb": "pound", "lbs": "pound", "oz": "ounce", "ft": "foot", "ml": "milliliter", "mL": "milliliter", "L": "liter",
    "ms": "millisecond", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "Hz": "hertz", "KB": "kilobyte", "MB": "megabyte",
    "GB": "gigabyte", "TB": "terabyte", "kW": "kilowatt", "kWh": "kilowatt hour", "m": "meter", "°C": "degree Celsius",
    "°F": "degree Fahrenheit", "°": "degree",
}
_SHORT = {
    "Mr": "Mister", "Mrs": "Missis", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Sr": "Senior", "Jr": "Junior", "St": "Saint",
    "Gen": "General", "Col": "Colonel", "Lt": "Lieutenant", "Sgt": "Sergeant", "Capt": "Captain", "Rev": "Reverend", "Gov": "Governor",
    "Sen": "Senator", "Rep": "Representative", "vs": "versus", "approx": "approximately", "dept": "department", "Inc": "Incorporated",
    "Ltd": "Limited", "Corp": "Corporation", "Ave": "Avenue", "Blvd": "Boulevard", "Mt": "Mount", "Fig": "Figure", "Vol": "Volume",
    "Jan": "January", "Feb": "February", "Aug": "August", "Sept": "September", "Sep": "September", "Oct": "October", "Nov": "November",
    "Dec": "December",
}
_SIGNS = {"&": " and ", "%": " percent", "+": " plus ", "=": " equals ", "@": " at ", "×": " times ", "÷": " divided by ", "±": " plus or minus ",
          "≈": " about ", "≤": " at most ", "≥": " at least ", "<": " less than ", ">": " greater than ", "²": " squared", "³": " cubed",
          "½": " one half", "¼": " one quarter", "¾": " three quarters", "°": " degrees", "©": "", "®": "", "™": "", "→": ", ",
          "_": " ", "~": " about ", "^": " to the power of ", "#": " number ", "\\": " ", "|": ", ", "*": " ", "`": " "}
_IN_LINKS = {".": " dot ", "/": " slash ", "-": " dash ", "_": " underscore ", "@": " at ", ":": " colon ", "~": " tilde ", "+": " plus "}
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
_FRACTIONS = {2: "half", 4: "quarter"}


def digits(text: str) -> str:
    """Digits one by one: "007" -> "zero zero seven"."""
    return " ".join(_ONES[int(digit)] for digit in text if digit.isdecimal())


def cardinal(number: int) -> str:
    """A whole number in words; beyond 10^21 its digits one by one."""
    if number < 0:
        return "minus " + cardinal(-number)
    if number < 20:
        return _ONES[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_ONES[number % 10]}" if number % 10 else "")
    if number < 1000:
        return f"{_ONES[number // 100]} hundred" + (f" {cardinal(number % 100)}" if number % 100 else "")
    if number >= 10**21:
        return digits(str(number))
    groups, scale = [], 0
    while number:
        number, group = divmod(number, 1000)
        if group:
            groups.append(cardinal(group) + _SCALES[scale])
        scale += 1
    return " ".join(reversed(groups))


def ordinal(number: int) -> str:
    """A place in an order in words: 21 -> "twenty-first"."""
    head, last = re.fullmatch(r"(.*?)([a-z]+)", cardinal(number)).groups()
    return head + (_IRREGULAR.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th"))


def year(number: int) -> str:
    """A year in words: 1984 -> "nineteen eighty-four", 2005 -> "two thousand five"."""
    high, low = divmod(number, 100)
    if not 1100 <= number <= 2099 or high == 20 and low < 10:
        return cardinal(number)
    return f"{cardinal(high)} " + ("hundred" if low == 0 else f"oh {_ONES[low]}" if low < 10 else cardinal(low))


def link(text: str) -> str:
    """A web or mail address in words, without its scheme and what follows "?" or "#"."""
    text = re.split(r"[?#]", re.sub(r"^(?:https?://)?(?:www\.)?", "", text), maxsplit=1)[0].rstrip("/")
    return "".join(_IN_LINKS.get(letter, letter) for letter in text)


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _many(unit: str, one: bool) -> str:
    return unit if one else _MANY.get(unit, unit + "s")


def _decimal(text: str) -> str:
    whole, _, rest = text.replace(",", "").partition(".")
    return cardinal(int(whole or 0)) + (f" point {digits(rest)}" if rest else "")


def _money(match: re.Match) -> str:
    unit, part = _MONEY[match[1]]
    amount, scale = match[2], match[3]
    if scale:
        return f"{_decimal(amount)} {scale} {_many(unit, False)}"
    whole, _, cents = amount.partition(".")
    if not part or len(cents) != 2:
        return f"{_decimal(amount)} {_many(unit, amount == '1')}"
    said = [f"{cardinal(_whole(whole))} {_many(unit, whole == '1')}"] if _whole(whole) or not int(cents) else []
    said += [f"{cardinal(int(cents))} {_many(part, int(cents) == 1)}"] if int(cents) else []
    return " and ".join(said)


def _stop(match: re.Match) -> str:
    """The full stop of an abbreviation also ends the sentence when nothing follows."""
    return "." if match[0].endswith(".") and match.end() == len(match.string) else ""


def _time(match: re.Match) -> str:
    hour, minute, half = int(match[1]), int(match[2]), match[3]
    said = cardinal(hour) + (f" oh {_ONES[minute]}" if 0 < minute < 10 else f" {cardinal(minute)}" if minute else "")
    if half:
        return f"{said} {half.upper()}M" + _stop(match)
    return said if minute else said + (" o'clock" if 0 < hour <= 12 else " hundred")


def _date(match: re.Match) -> str:
    number, month, day = int(match[1]), int(match[2]), int(match[3])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(number)}"


def _unit(match: re.Match) -> str:
    return f"{_decimal(match[1])} {_many(_UNITS[match[2]], match[1] == '1')}"


def _fraction(match: re.Match) -> str:
    top, bottom = int(match[1]), int(match[2])
    if not 1 < bottom <= 20 or not 0 < top < bottom:
        return f"{cardinal(top)} slash {cardinal(bottom)}"
    return f"{cardinal(top)} {_many(_FRACTIONS.get(bottom) or ordinal(bottom), top == 1)}".replace("halfs", "halves")


def _range(match: re.Match) -> str:
    parts = re.split(r"\s?[–-]\s?", match[0])
    if len(parts) == 2 and len(parts[1]) <= 4 and parts[1][0] != "0" and int(parts[0]) < int(parts[1]):
        return " to ".join(year(int(part)) if len(part) == 4 else cardinal(int(part)) for part in parts)
    return ", ".join(digits(part) for part in parts)  # a telephone number


def _plain(match: re.Match) -> str:
    text = match[0]
    if "," not in text and (len(text) > 7 and text[-3:] != "000" or len(text) > 1 and text[0] == "0"):
        return digits(text)
    return cardinal(_whole(text))


_YEAR_BEFORE = (r"(?:in|since|of|by|until|till|before|after|from|to|year|around|early|late|mid|summer|autumn|fall|winter|spring|"
                + "|".join(_MONTHS) + r"|January|(?:st|nd|rd|th),?|\d,)")
_RULES: list[tuple[re.Pattern, str | Callable[[re.Match], str]]] = [(re.compile(pattern), made) for pattern, made in [
    (r"(?:https?://|www\.)[^\s<>\"]*[\w/]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.\w+|\b[\w-]+(?:\.[\w-]+)*\.(?:com|org|net|edu|gov|io|ai|dev|cn)\b(?:/[\w./-]*\w)?",
     lambda m: link(m[0])),
    (r"\be\.g\.,?", "for example,"), (r"\bi\.e\.,?", "that is,"), (r"\betc\.", "et cetera."), (r"\bet al\.", "et al"),
    (r"\bSt\.(?=\s*(?:$|[,;.]|[a-z]))", "Street"),
    (r"\bNo\.\s?(?=\d)", "number "),
    (r"\b(" + "|".join(_SHORT) + r")\.", lambda m: _SHORT[m[1]]),
    (r"\b(\d{4})-(\d{1,2})-(\d{1,2})\b", _date),
    (r"\b([01]?\d|2[0-3]):([0-5]\d)(?:\s?([AaPp])\.?[Mm]\b\.?)?", _time),
    (r"\b(\d{1,2})\s?([AaPp])\.?[Mm]\b\.?", lambda m: f"{cardinal(int(m[1]))} {m[2].upper()}M" + _stop(m)),
    (r"(?<![\w.])-(?=\d)", "minus "),
    (rf"([{''.join(_MONEY)}])\s?({_NUMBER}(?:\.\d+)?)(?:\s?(hundred|thousand|million|billion|trillion)\b)?", _money),
    (rf"(?<![\w.])({_NUMBER}(?:\.\d+)?)\s?({'|'.join(sorted(map(re.escape, _UNITS), key=len, reverse=True))})(?![\w°²])", _unit),
    (r"\b(1[1-9]|20)(\d0)s\b", lambda m: re.sub("y$", "ie", year(int(m[1] + m[2]))) + "s"),
    (r"(?<!\w)['’](\d0)s\b", lambda m: cardinal(int(m[1]))[:-1] + "ies"),
    (rf"\b({_NUMBER})(?:st|nd|rd|th)\b", lambda m: ordinal(_whole(m[1]))),
    (rf"\b({'|'.join(_MONTHS)}) (\d{{1,2}})\b(?!:)", lambda m: f"{m[1]} {ordinal(int(m[2]))}"),
    (r"(?<![\w.,-])\d+(?:\s?[–-]\s?\d+)+\b(?![.,]\d)", _range),
    (rf"(?i:(?<=\b)({_YEAR_BEFORE} ))(1[1-9]\d\d|20\d\d)\b(?![,.]?\d)", lambda m: m[1] + year(int(m[2]))),
    (r"\b(1[1-9]\d\d|20\d\d)\b(?![,.]?\d)(?! (?:[a-z]|percent))(?! ?%)", lambda m: year(int(m[1]))),
    (r"\b(\d{1,3})/(\d{1,3})\b(?!/)", _fraction),
    (r"\b\d+(?:\.\d+){2,}\b", lambda m: " point ".join(cardinal(int(part)) for part in m[0].split("."))),
    (rf"(?<![\w.])(?:{_NUMBER})?\.\d+\b", lambda m: _decimal(m[0])),
    (r"(?<=\d)(?=[A-Za-z])|(?<=[A-Za-z])(?=\d)", " "),
    (r"\band/or\b", "and or"),
    (_NUMBER, _plain),
    (r"(?<=[A-Za-z])/(?=[A-Za-z])", " or "),
    (r"\b((?:[A-Za-z]\.){2,})", lambda m: m[1].replace(".", "").upper() + _stop(m)),
    (r"(?<=[a-z] )A(?= [a-z])", "eh"),
    (f"[{re.escape(''.join(_SIGNS))}]", lambda m: _SIGNS[m[0]]),
    (r"[–—]|\s--\s", " — "),
    (r"\s+", " "),
]]


def spoken(text: str) -> str:
    """English text with everything that is not a word written as it is read aloud; punctuation stays."""
    text = text.replace("’", "'").replace("‘", "'")
    for pattern, made in _RULES:
        text = pattern.sub(made, text)
    return text.strip()
