"""English money and units as they are read aloud: "$2bn" -> "two billion dollars", "9.8 m/s²" -> "nine point eight meters per second squared".

A unit is looked up, or put together: a base unit, its square or cube, and what it is per.
"""

from __future__ import annotations

import re

from sensorium.codecs.english_numbers import NUMBER, cardinal, decimal
from sensorium.codecs.rules import Rule, any_of

__all__ = ["MEASURES", "UNIT"]

_MONEY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "¥": ("yen", ""), "₹": ("rupee", "paisa"), "₩": ("won", ""),
          "₽": ("ruble", "kopeck"), "₺": ("Turkish lira", ""), "₫": ("dong", ""), "₪": ("shekel", ""), "฿": ("baht", ""), "₦": ("naira", ""),
          "₱": ("peso", ""), "₿": ("bitcoin", "")}
_COUNTRIES = {"US": "US", "U.S.": "US", "C": "Canadian", "CA": "Canadian", "A": "Australian", "AU": "Australian", "NZ": "New Zealand",
              "HK": "Hong Kong", "S": "Singapore", "NT": "Taiwan"}
_CODES = {"USD": ("US dollar", "cent"), "EUR": ("euro", "cent"), "GBP": ("pound", "penny"), "JPY": ("yen", ""), "CNY": ("yuan", ""),
          "RMB": ("yuan", ""), "CHF": ("Swiss franc", ""), "CAD": ("Canadian dollar", "cent"), "AUD": ("Australian dollar", "cent"),
          "HKD": ("Hong Kong dollar", "cent"), "INR": ("rupee", "paisa"), "KRW": ("won", ""), "SEK": ("Swedish krona", ""),
          "NOK": ("Norwegian krone", ""), "DKK": ("Danish krone", ""), "BTC": ("bitcoin", "")}
_SCALES = {"k": "thousand", "m": "million", "mm": "million", "mn": "million", "mln": "million", "mil": "million", "b": "billion", "bn": "billion",
           "bln": "billion", "t": "trillion", "tn": "trillion", "trn": "trillion"}
_MANY = {"penny": "pence", "paisa": "paise", "foot": "feet", "inch": "inches", "krona": "kronor", "krone": "kroner"}
_ALIKE = {"yen", "yuan", "won", "baht", "dong", "hertz", "lira"}  # their plural is themselves, also after kilo, mega, giga

_LONG = {"m": "meter", "g": "gram", "L": "liter", "l": "liter", "Hz": "hertz", "W": "watt", "V": "volt", "s": "second", "Wh": "watt hour",
         "Pa": "pascal", "B": "byte", "bit": "bit", "J": "joule", "cal": "calorie"}
_PREFIXES = {"k": "kilo", "c": "centi", "m": "milli", "µ": "micro", "n": "nano", "M": "mega", "G": "giga", "T": "tera"}
_MADE = {"m": "kcmµn", "g": "kmµn", "L": "cmµ", "l": "cmµ", "Hz": "kMGT", "W": "kmMG", "V": "kmM", "s": "mµn", "Wh": "kMG", "Pa": "kM", "B": "kMGT",
         "bit": "kMG", "J": "kM", "cal": "k"}
_BASE = {prefix + short: _PREFIXES[prefix] + _LONG[short] for short, prefixes in _MADE.items() for prefix in prefixes}
_BASE |= {short: _LONG[short] for short in ("m", "g", "L", "W", "V", "Wh", "J", "Hz")}
_BASE |= {
    "KB": "kilobyte", "PB": "petabyte", "KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte", "TiB": "tebibyte", "mAh": "milliampere hour",
    "mA": "milliampere", "hPa": "hectopascal", "dB": "decibel", "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree",
    "lb": "pound", "lbs": "pound",
    "oz": "ounce", "ft": "foot", "yd": "yard", "mi": "mile", "gal": "gallon", "tbsp": "tablespoon", "tsp": "teaspoon", "hr": "hour", "hrs": "hour",
    "h": "hour", "min": "minute", "mins": "minute", "sec": "second", "secs": "second", "sq ft": "square foot", "sq m": "square meter",
    "sq km": "square kilometer", "sq mi": "square mile", "cu ft": "cubic foot", "px": "pixel", "ct": "cent", "ha": "hectare", "mph": "mile per hour",
    "kph": "kilometer per hour", "kmh": "kilometer per hour", "mpg": "mile per gallon", "fps": "frame per second", "bpm": "beat per minute",
    "rpm": "revolution per minute", "dpi": "dot per inch", "ppm": "part per million", "kbps": "kilobit per second", "Kbps": "kilobit per second",
    "Mbps": "megabit per second", "Gbps": "gigabit per second",
}
_PER = {**_BASE, "s": "second", "h": "hour", "day": "day", "year": "year", "month": "month", "week": "week", "person": "person", "l": "liter"}
_POWERS = {"²": "square ", "³": "cubic ", "^2": "square ", "^3": "cubic ", "": ""}


_AMOUNT = rf"(?:{NUMBER}(?:\.\d+)?|\.\d+)"
_SIGN = rf"(?:\b({any_of(_COUNTRIES)}))?([{''.join(_MONEY)}])"
_SCALE = rf"(?:\s?(hundred|thousand|million|billion|trillion|(?i:{any_of(_SCALES)}))(?![\w&]|-[a-zA-Z]))?"
UNIT = rf"(?:{any_of(_BASE)})(?:[²³]|\^[23])?(?:/(?:{any_of(_PER)})(?:[²³]|\^[23])?)?(?![\w°²]|'s)"
_UNIT_PARTS = re.compile(rf"({any_of(_BASE)})([²³]|\^[23]|)(?:/({any_of(_PER)})([²³]|\^[23]|))?")
_NO_NOUN = r"(?:and|or|to|per|a|an|for|in|at|on|from|each|every|more|less|is|was|as|of|if|when|by|with|off|but|than|over|under)\b"


def _many(unit: str, one: bool) -> str:
    """The unit after its number: "foot" -> "feet", "degree Celsius" -> "degrees Celsius", "mile per hour" -> "miles per hour"."""
    if one:
        return unit
    head, per, rest = unit.partition(" per ")
    if head.startswith("degree"):
        return unit.replace("degree", "degrees", 1)
    lead, gap, last = head.rpartition(" ")
    last = last if last in _ALIKE or last.endswith("hertz") else _MANY.get(last, last + "s")
    return lead + gap + last + per + rest


def _of_a_noun(match: re.Match) -> bool:
    """Whether an amount stands between an article and a noun: a $20 bill, a 60 W bulb."""
    before, after = match.string[: match.start()], match.string[match.end():]
    return bool(re.search(r"\b(?:an?|another)\s$", before, re.I) and re.match(rf"[ -](?!{_NO_NOUN})[a-z]", after))


def _said(amount: str, scale: str | None, units: tuple[str, str], single: bool) -> str:
    unit, part = units
    if scale:
        return f"{decimal(amount)} {_SCALES.get(scale.lower(), scale)} {_many(unit, single)}"
    whole, _, cents = amount.replace(",", "").partition(".")
    if not part or len(cents) != 2:
        return f"{decimal(amount)} {_many(unit, single or amount == '1')}"
    said = [f"{cardinal(int(whole))} {_many(unit, single or whole == '1')}"] if int(whole or 0) or not int(cents) else []
    said += [f"{cardinal(int(cents))} {_many(part, single or int(cents) == 1)}"] if int(cents) else []
    return " and ".join(said)


def _units(country: str | None, sign: str) -> tuple[str, str]:
    unit, part = _MONEY[sign]
    return (f"{_COUNTRIES[country]} {unit}" if country else unit), part


def _money(match: re.Match) -> str:
    return _said(match[3], match[4], _units(match[1], match[2]), _of_a_noun(match))


def _money_range(match: re.Match) -> str:
    """"$5-10", "$5-$10m": the unit is said once, at the end."""
    country, sign, low, low_scale, other, high, scale = match.groups()
    if other and other != sign or not other and low_scale:
        return match[0]
    first = f"{decimal(low)} {_SCALES.get(low_scale.lower(), low_scale)}" if low_scale else decimal(low)
    return f"{first} to {_said(high, scale, _units(country, sign), _of_a_noun(match))}"


def _unit(match: re.Match) -> str:
    name, power, per, per_power = _UNIT_PARTS.fullmatch(match[2]).groups()
    unit = _POWERS[power] + _BASE[name]
    if per:
        squared = {"": "", "²": " squared", "^2": " squared"}.get(per_power)
        unit += f" per {_PER[per]}{squared}" if squared is not None and per in ("s", "") else f" per {_POWERS[per_power or '']}{_PER[per]}"
    return f"{decimal(match[1])} {_many(unit, match[1] == '1' or _of_a_noun(match))}"


def _bare_unit(match: re.Match) -> str:
    return _unit(re.match("(0) (.*)", f"0 {match[0]}")).removeprefix("zero ")


MEASURES: list[Rule] = [
    (rf"{_SIGN}\s?({_AMOUNT}){_SCALE}\s?[-–—]\s?([{''.join(_MONEY)}])?({_AMOUNT}){_SCALE}", _money_range),
    (rf"{_SIGN}\s?({_AMOUNT}){_SCALE}", _money),
    (rf"(?<![\w.])({_AMOUNT}){_SCALE}\s?([{''.join(_MONEY)}])(?!\s?\d)", lambda m: _said(m[1], m[2], _MONEY[m[3]], False)),
    (rf"\b({any_of(_CODES)})\s?({_AMOUNT}){_SCALE}", lambda m: _said(m[2], m[3], _CODES[m[1]], False)),
    (rf"(?<![\w.])({_AMOUNT}){_SCALE}\s?({any_of(_CODES)})\b", lambda m: _said(m[1], m[2], _CODES[m[3]], False)),
    (rf"(?<![\w.])({_AMOUNT})\s?¢", lambda m: f"{decimal(m[1])} {_many('cent', m[1] == '1')}"),
    (rf"(?<![\w.])({NUMBER}(?:\.\d+)?)\s?(bn|mn|tn)\b", lambda m: f"{decimal(m[1])} {_SCALES[m[2]]}"),
    (rf"((?<=\d)\d|[1-9])(\s?(?:{UNIT})?)\s?x\s?(?=\d)", r"\1\2 by "),
    (r"(?<![\w.])(\d+)'\s?(\d+)(?:\"|'')", lambda m: f"{cardinal(int(m[1]))} foot {cardinal(int(m[2]))}"),
    (r"(?<![\w.])(\d+\s?ft\.?,?\s?)(\d+(?:\.\d+)?)\s?in\b\.?", lambda m: f"{m[1]}{decimal(m[2])} {_many('inch', m[2] == '1')}"),
    (r"\b(\d+)\s?h\s?(\d{1,2})\s?(?:m|min)?\b", r"\1 h \2 min"), (r"\b(\d+)\s?m\s?(\d{1,2})\s?s\b", r"\1 min \2 sec"),
    (r"\b(\d+(?:\.\d+)?)m(?= (?:users|people|views|followers|copies|downloads|subscribers|jobs|homes|tons|tonnes|barrels|years|shares)\b)",
     lambda m: f"{decimal(m[1])} million"),
    (rf"(?<![\w.])(?<!\w-)({NUMBER}(?:\.\d+)?)(?:\s|-(?=[a-zA-Z]))?({UNIT})", _unit),
    (r"(?<![\w.])(\d*\.\d+|\d+(?=\ss\b))\s?(s)(?!\w)", lambda m: f"{decimal(m[1])} {_many('second', m[1] == '1')}"),
    (r"(?<![\w/])(?:km/h|m/s²?|[kMGT]B/s|[kMG]bit/s|mg/kg|mg/L|g/L|kg/m³)(?![\w/])", _bare_unit),
]
