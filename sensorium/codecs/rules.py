"""Rules that rewrite a text one after the other, as both languages use them to say what is not written in words.

    clean: character -> characters; then each rule: pattern -> what stands in its place
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable

__all__ = ["any_of", "Compiled", "compiled", "IPV4", "rewrite", "Rule"]

Rule = tuple[str, str | Callable[[re.Match], str]]
"""A pattern, and a template or a function that makes what replaces it."""
Compiled = list[tuple[re.Pattern, str | Callable[[re.Match], str]]]

_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
IPV4 = rf"{_BYTE}(?:\.{_BYTE}){{3}}"
_SIGNS = {"㎡": "m²", "㎥": "m³", "㎢": "km²", "º": "°", **{chr(0x2080 + i): str(i) for i in range(10)}}  # as few ways to write a thing as can be
_JOINED = re.compile("[℃℉㎀-㏟Ⅰ-ⅿ]")  # units and numerals in one character


def any_of(names: Iterable[str]) -> str:
    """A pattern for any of some words, the longest first."""
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))


def compiled(rules: Iterable[Rule]) -> Compiled:
    """Rules ready to be used."""
    return [(re.compile(pattern), made) for pattern, made in rules]


def rewrite(text: str, rules: Compiled, signs: dict[str, str]) -> str:
    """A text after all rules, in their order.

    Args:
        signs: characters that one language writes otherwise, before the rules.
    """
    text = _JOINED.sub(lambda m: unicodedata.normalize("NFKC", m[0]), text.translate(str.maketrans({**_SIGNS, **signs})))
    for pattern, made in rules:
        text = pattern.sub(made, text)
    return text.strip()
