"""Mandarin as it is read aloud: numbers become words, characters become syllables with their tones in use.

    spoken("2024年涨了15%")        -> "二零二四年涨了百分之十五"
    syllables("你好，不会")         -> [["ni2", "hao3"], ["bu2", "hui4"]]

Words come from jieba, readings from pypinyin; which tone a syllable takes beside its neighbours (third tones, 一, 不) is decided here.
"""

from __future__ import annotations

from sensorium.codecs.mandarin_numbers import HAN, RULES, cardinal, digits
from sensorium.codecs.readings import read
from sensorium.codecs.rules import compiled, rewrite

__all__ = ["cardinal", "digits", "HAN", "spoken", "syllables"]

_NUMERALS = set("零一二三四五六七八九十百千万亿点两")
_RULES = compiled(RULES)


def spoken(text: str) -> str:
    """Chinese text with its numbers, dates, money and units in characters; punctuation stays."""
    return rewrite(text, _RULES, {"№": "No.", "µ": "μ"})


def syllables(text: str) -> list[list[str]]:
    """Words of a run of Chinese characters, each a list of syllables in pinyin with the tone in use as a digit (5 is neutral).

    Args:
        text: Chinese characters alone.

    Raises:
        ConfigError: jieba or pypinyin is not installed.
    """
    found = read(text)
    words, flat = found.words, list(found.syllables)
    ends = [sum(map(len, words[: i + 1])) for i in range(len(words))]
    _third_tones(flat, words, ends)
    _one_and_not(flat, text)
    return [kept for word, end in zip(words, ends) if (kept := [said for said in flat[end - len(word): end] if said])]


def _third_tones(flat: list[str], words: list[str], ends: list[int]) -> None:
    """A third tone before a third tone is said as a second one: inside words first, then between a word and the next."""
    for word, end in zip(words, ends):
        for i in range(end - len(word), end - 1):
            if flat[i].endswith("3") and flat[i + 1].endswith("3"):
                flat[i] = flat[i][:-1] + "2"
    for end in ends[:-1]:
        if flat[end - 1].endswith("3") and flat[end].endswith("3"):
            flat[end - 1] = flat[end - 1][:-1] + "2"


def _one_and_not(flat: list[str], text: str) -> None:
    """不 rises before a falling tone; 一 rises before a falling tone and falls before the others, except in numbers and at the end."""
    for i, letter in enumerate(text):
        before, after = text[i - 1: i], text[i + 1: i + 2]
        tone = flat[i + 1][-1:] if after else ""
        if letter in "一不" and before and before == after and before not in _NUMERALS:
            flat[i] = ("yi" if letter == "一" else "bu") + "5"  # 看一看, 是不是
        elif letter == "不":
            flat[i] = "bu2" if tone == "4" else "bu4"
        elif letter == "一":
            counted = not tone or before in _NUMERALS | {"第"} or after in set("零一二三四五六七八九") | {"点", "月", "号", "日"}
            flat[i] = "yi1" if counted else "yi2" if tone in "45" else "yi4"
