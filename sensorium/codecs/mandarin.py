"""Mandarin as it is read aloud: numbers become words, characters become syllables with their tones in use.

    spoken("2024年涨了15%")        -> "二零二四年涨了百分之十五"
    syllables("你好，不会")         -> [["ni2", "hao3"], ["bu2", "hui4"]]

Words come from jieba, readings from pypinyin; which tone a syllable takes beside its neighbours (third tones, 一, 不) is decided here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache

from sensorium.types import ConfigError

__all__ = ["cardinal", "digits", "HAN", "spoken", "syllables"]

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_DIGITS = "零一二三四五六七八九"
_NUMERALS = set(_DIGITS + "十百千万亿点两")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_MONEY = {"¥": "元", "￥": "元", "$": "美元", "€": "欧元", "£": "英镑"}
_UNITS = {"km/h": "公里每小时", "km²": "平方公里", "m²": "平方米", "m/s": "米每秒", "km": "公里", "cm": "厘米", "mm": "毫米", "m": "米", "kg": "公斤",
          "mg": "毫克", "g": "克", "ml": "毫升", "mL": "毫升", "L": "升", "℃": "摄氏度", "°C": "摄氏度", "°": "度", "kW": "千瓦"}
_MEASURES = "个只条本位天次张件家间座辆把杯块碗瓶双层篇首份部台名句头匹棵朵颗支根场遍种样周岁点口滴段项排队批群桌道门斤米里升元分秒倍万千亿"
_SIGNS = {"+": "加", "=": "等于", "×": "乘以", "÷": "除以", "&": "和", "%": "百分号", "@": "艾特", "<": "小于", ">": "大于", "≈": "约等于", "~": "到",
          "#": "井号", "*": "", "_": " ", "`": "", "|": "，", "^": "", "\\": "", "°": "度"}


def digits(text: str) -> str:
    """Digits one by one: "2024" -> "二零二四"."""
    return "".join(_DIGITS[int(digit)] for digit in text if digit.isdecimal())


def _group(number: int) -> str:
    """1..9999 in characters, zeros inside it said once."""
    out, gap = "", False
    for place, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // place % 10
        if digit:
            out += ("零" if gap and out else "") + _DIGITS[digit] + name
        gap = not digit
    return out


def cardinal(number: int) -> str:
    """A whole number in characters; from 10^16 on its digits one by one."""
    if number < 0:
        return "负" + cardinal(-number)
    if number == 0 or number >= 10**16:
        return digits(str(number))
    out, rest, gap = "", number, False
    for place, name in ((10**12, "万亿"), (10**8, "亿"), (10**4, "万"), (1, "")):
        group, rest = divmod(rest, place)
        if group:
            out += ("零" if out and (gap or group < 1000) else "") + _group(group) + name
        gap = not group
    out = re.sub("^一十", "十", out)
    return re.sub("(?:^|(?<=零))二(?=[千万亿])", "两", out)


def _value(text: str) -> str:
    whole, _, rest = text.replace(",", "").partition(".")
    if not rest and (len(whole) >= 8 and "," not in text and (whole[-3:] != "000" or len(whole) == 11) or len(whole) > 1 and whole[0] == "0"):
        return digits(whole)
    return cardinal(int(whole or 0)) + (f"点{digits(rest)}" if rest else "")


def _date(match: re.Match) -> str:
    return f"{digits(match[1])}年{cardinal(int(match[2]))}月{cardinal(int(match[3]))}日"


def _time(match: re.Match) -> str:
    hour, minute = int(match[1]), int(match[2])
    said = "两" if hour == 2 else cardinal(hour)
    return f"{said}点" + (f"零{cardinal(minute)}分" if 0 < minute < 10 else f"{cardinal(minute)}分" if minute else "整")


_RULES: list[tuple[re.Pattern, str | Callable[[re.Match], str]]] = [(re.compile(pattern), made) for pattern, made in [
    (r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)", _date),
    (r"(?<!\d)([12]\d{3})(?=年)", lambda m: digits(m[1])),
    (r"(?<!\d)([01]?\d|2[0-3])[:：]([0-5]\d)(?!\d)", _time),
    (rf"({_NUMBER})\s?%", lambda m: f"百分之{_value(m[1])}"),
    (r"(?<![\d/])(\d{1,4})/(\d{1,4})(?![\d/])", lambda m: f"{cardinal(int(m[2]))}分之{cardinal(int(m[1]))}"),
    (r"(?<![A-Za-z\d.之])-(?=\d)", "负"),
    (rf"([{''.join(_MONEY)}])\s?({_NUMBER})([万亿]?)", lambda m: f"{_value(m[2])}{m[3]}{_MONEY[m[1]]}"),
    (rf"(?<![A-Za-z\d.])({_NUMBER})\s?({'|'.join(sorted(map(re.escape, _UNITS), key=len, reverse=True))})(?![A-Za-z°²])",
     lambda m: ("两" if m[1] == "2" else _value(m[1])) + _UNITS[m[2]]),
    (r"(?<=[\d之零一二三四五六七八九十百千万])\s?[-–—~～]\s?(?=\d|百分之)", "到"),
    (rf"(?<![\d.,])2(?=[{_MEASURES}])", "两"),
    (_NUMBER, lambda m: _value(m[0])),
    (f"[{re.escape(''.join(_SIGNS))}]", lambda m: _SIGNS[m[0]]),
]]


def spoken(text: str) -> str:
    """Chinese text with its numbers, dates, money and units in characters; punctuation stays."""
    for pattern, made in _RULES:
        text = pattern.sub(made, text)
    return text.strip()


@lru_cache(maxsize=1)
def _tools() -> tuple[Callable, Callable]:
    """jieba's cut and pypinyin's reading, loaded once. jieba's own cache file in the shared temporary folder is neither read nor written."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jieba's sources hold escapes that newer Pythons warn of
            import jieba
            from pypinyin import Style, lazy_pinyin
    except ImportError as error:
        raise ConfigError(f"Chinese is read aloud with jieba and pypinyin ({error}): pip install jieba pypinyin") from error
    cutter = jieba.Tokenizer()
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    return cutter.lcut, lambda words: lazy_pinyin(words, style=Style.TONE3, neutral_tone_with_five=True)


def syllables(text: str) -> list[list[str]]:
    """Words of a run of Chinese characters, each a list of syllables in pinyin with the tone in use as a digit (5 is neutral).

    Args:
        text: Chinese characters alone.

    Raises:
        ConfigError: jieba or pypinyin is not installed.
    """
    cut, read = _tools()
    words = cut(text)
    flat = [said if re.fullmatch(r"[a-zêü]+[1-5]", said) else "" for said in read(words)]
    if len(flat) != len(text):  # a reading of more than one character: fall back to one character at a time
        flat = [read([letter])[0] for letter in text]
    flat = [said if re.fullmatch(r"[a-zêü]+[1-5]", said) else "" for said in flat]
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
            counted = not tone or before in _NUMERALS | {"第"} or after in set(_DIGITS) | {"点", "月", "号", "日"}
            flat[i] = "yi1" if counted else "yi2" if tone in "45" else "yi4"
