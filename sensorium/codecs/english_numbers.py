"""English numbers in words: cardinals, ordinals, decimals, fractions, years, Roman numerals, and digits one by one or in pairs."""

from __future__ import annotations

import re

__all__ = ["cardinal", "decimal", "digits", "fraction", "NUMBER", "ordinal", "paired", "roman", "ROMAN", "year"]

NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
ROMAN = r"(?=[MDCLXVI])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ("", " thousand", " million", " billion", " trillion", " quadrillion", " quintillion")
_IRREGULAR = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth", "twelve": "twelfth"}
_PARTS = {2: "half", 4: "quarter"}
_COMMON = {25, 32, 50, 64, 100, 1000}  # bottoms of fractions beyond twenty; others are rather a page of pages or a score
_LETTERS = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


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
    """A year in words: 1984 -> "nineteen eighty-four", 1066 -> "ten sixty-six", 2005 -> "two thousand five"."""
    high, low = divmod(number, 100)
    if not 1010 <= number <= 2099 or high == 20 and low < 10:
        return cardinal(number)
    return paired(number)


def paired(number: int) -> str:
    """As houses, rooms, flights and airliners are called: 221 -> "two twenty-one", 1600 -> "sixteen hundred", 305 -> "three oh five"."""
    high, low = divmod(number, 100)
    if not high or high > 99 or high % 10 == 0 and low == 0:
        return cardinal(number) if number < 10_000 else digits(str(number))
    return f"{cardinal(high)} " + ("hundred" if low == 0 else f"oh {_ONES[low]}" if low < 10 else cardinal(low))


def decimal(text: str) -> str:
    """A number as it is written, with commas and a point: "1,234.5" -> "one thousand two hundred thirty-four point five"."""
    whole, _, rest = text.replace(",", "").partition(".")
    return cardinal(int(whole or 0)) + (f" point {digits(rest)}" if rest else "")


def fraction(top: int, bottom: int) -> str:
    """"3/4" -> "three quarters"; what is no fraction: "10/10" -> "ten out of ten", "15/26" -> "fifteen slash twenty-six"."""
    if top == bottom:
        return f"{cardinal(top)} out of {cardinal(bottom)}"
    if not (1 < bottom <= 20 or bottom in _COMMON) or not 0 < top < bottom:
        return f"{cardinal(top)} slash {cardinal(bottom)}"
    part = _PARTS.get(bottom) or ordinal(bottom).removeprefix("one ")
    return f"{cardinal(top)} {part if top == 1 else 'halves' if part == 'half' else part + 's'}"


def roman(text: str) -> int:
    """The value of a Roman numeral: "XIV" -> 14."""
    values = [_LETTERS[letter] for letter in text]
    return sum(-value if value < max(values[i:]) else value for i, value in enumerate(values))
