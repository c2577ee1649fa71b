"""Readings of Chinese characters: words from jieba, sounds from pypinyin, and for characters of many sounds what their neighbours decide.

    characters -> jieba's words -> the parts that pypinyin's dictionary knows -> pinyin -> rules for what stands alone (得, 地, 长, 还, 行, ...)

Tones as in the dictionary; which tone is in use beside its neighbours is decided in `mandarin`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from sensorium.codecs.polyphones import ALONE, BESIDE, SPLIT, SURNAMES, WORDS
from sensorium.types import ConfigError

__all__ = ["read", "Read"]

_NAMED = re.compile(r"姓|\w(?:某|先生|女士|小姐|老师|教授|经理|主任|医生|同学|太太)")


@dataclass(frozen=True)
class Read:
    """Words of a run of Chinese characters, and of each character its syllable in pinyin with a tone digit (5 is neutral; "" if it has none)."""

    words: list[str]
    syllables: list[str]


@dataclass(frozen=True)
class _Tools:
    """What is loaded once: jieba's cut and its tag of a word ("v": verb), pypinyin's reading of words, and whether its dictionary has a word."""

    cut: Callable[[str], list[str]]
    tags: dict[str, str]
    pinyin: Callable[[list[str]], list[str]]
    known: Callable[[str], bool]


@lru_cache(maxsize=1)
def _tools() -> _Tools:
    """jieba's own cache file in the shared temporary folder is neither read nor written."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jieba's sources hold escapes that newer Pythons warn of
            import jieba
            from pypinyin import Style, lazy_pinyin
            from pypinyin.constants import PHRASES_DICT
    except ImportError as error:
        raise ConfigError(f"Chinese is read aloud with jieba and pypinyin ({error}): pip install jieba pypinyin") from error
    cutter = jieba.Tokenizer()
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    with cutter.get_dict_file() as file:
        tags = {parts[0]: parts[2] for line in file if len(parts := line.decode().split()) == 3}
    return _Tools(cutter.lcut, tags, lambda words: lazy_pinyin(words, style=Style.TONE3, neutral_tone_with_five=True), PHRASES_DICT.__contains__)


def _parts(word: str, known: Callable[[str], bool]) -> list[str]:
    """A word that the dictionary lacks as the fewest words that it has, and characters alone: 银行行长 -> 银行, 行长."""
    if len(word) == 1 or known(word):
        return [word]
    best: list[list[str]] = [[]]
    for end in range(1, len(word) + 1):
        ways = [[*best[start], word[start:end]] for start in range(end) if end - start == 1 or known(word[start:end])]
        best.append(min(ways, key=len))
    return best[-1]


def read(text: str) -> Read:
    """The words and syllables of a run of Chinese characters.

    Raises:
        ConfigError: jieba or pypinyin is not installed.
    """
    tools = _tools()
    words = tools.cut(text)
    parts = [part for word in words for part in _parts(word, lambda some: some in WORDS or some not in SPLIT and tools.known(some))]
    whole = {sum(map(len, words[: i + 1])): word for i, word in enumerate(words)}  # where each word ends
    said: list[str] = []
    for i, part in enumerate(parts):
        if part in WORDS:
            said += WORDS[part]
        elif len(part) == 1:
            before = whole.get(len(said), parts[i - 1] if i else "")
            said.append(_alone(text, len(said), before, "".join(parts[i + 1: i + 2]), tools))
        else:
            found = tools.pinyin([part])
            said += found if len(found) == len(part) else [tools.pinyin([letter])[0] for letter in part]
    return Read(words, [each if re.fullmatch(r"[a-zêü]+[1-5]", each) else "" for each in said])


def _alone(text: str, place: int, before: str, after: str, tools: _Tools) -> str:
    """The sound of a character that is a word of its own, between two words."""
    letter = text[place]
    if letter in SURNAMES and _NAMED.match(text, max(0, place - 1)):
        return SURNAMES[letter]
    for pattern, sound in BESIDE.get(letter, ()):
        if pattern.match(text, place):
            return sound
    if letter == "得" or letter == "地" and after:
        return _particle(letter, before, after, tools.tags)
    return ALONE.get(letter) or tools.pinyin([letter])[0]


def _particle(letter: str, before: str, after: str, tags: dict[str, str]) -> str:
    """得 and 地 between two words: neutral after what they describe; 我得去 is dei3, 得病 de2, 这块地 di4."""
    kinds = (tags.get(before) or tags.get(before[-1:], ""))[:1], (tags.get(after) or tags.get(after[:1], ""))[:1]
    if letter == "地":
        described = kinds[0] in set("adzibl") or before[-1:] in ("然", "般") or len(before) > 1 and before[0] == before[1]
        return "de5" if len(before) > 1 and described and kinds[1] in set("vdpa") else "di4"
    if before and kinds[0] in set("va") and (not after or kinds[1] in set("advzilm")):
        return "de5"
    return "dei3" if kinds[1] == "v" and kinds[0] in set("rdnt") and before else "de2"
