"""Sentences out of running text, as it arrives: where one ends, what of it can be said, which language it is in, and where a clause ends.

    pieces of text -> sentences() -> plain() -> language() -> a codec's words -> clauses()

English and Chinese marks; abbreviations, initials, decimals, ellipses and quotes do not end a sentence too early.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from sensorium.codecs.mandarin import HAN

__all__ = ["clauses", "language", "plain", "sentences"]

LONGEST = 600  # characters; what runs on longer is cut at its last clause or space
_CLOSERS = "\"'”’)\\]」』】》）"
_STOP = re.compile(rf"[.!?。！？…]+[{_CLOSERS}]*|\n+")
_NEVER_LAST = {"mr", "mrs", "ms", "prof", "gen", "col", "lt", "sgt", "capt", "rev", "hon", "gov", "sen", "rep", "vs", "approx", "dept", "mt", "ft",
               "e.g", "i.e", "cf", "al"}
_MONTHS = {"jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"}
_BEFORE_NUMBERS = {"no", "nos", "p", "pp", "fig", "figs", "vol", "vols", "ch", "sec", "eq", "art", "ca", "c", "est", "max", "min", "ext", "apt",
                   "ste", "v", "ver"}
_BEFORE_NAMES = {"dr", "st", "jr", "sr", "inc", "ltd", "corp", "co", "ave", "rd", "blvd", "ln", "ph.d", *_MONTHS}
_DAYS = {"mon", "tue", "tues", "wed", "thu", "thur", "thurs", "fri", "sat", "sun"}
_AFTER_HOURS = {*_DAYS, *_MONTHS, "est", "edt", "cst", "cdt", "mst", "pst", "pdt", "et", "ct", "pt", "gmt", "utc", "bst", "cet"}
_ABBREVIATIONS = {*_NEVER_LAST, *_BEFORE_NUMBERS, *_BEFORE_NAMES, *_DAYS, "a.m", "p.m"}
_INITIALS = re.compile(r"(?!I$)(?:[A-Z]\.)*[A-Z]")
# Words that begin sentences, and hardly ever a name.
_OPENER = re.compile("(?i:the|a|an|he|she|it|we|they|i|you|this|that|these|those|there|here|his|her|its|their|our|my|your|in|on|at|for|from|by|"
                     "with|to|of|as|but|and|or|so|yet|if|when|while|although|though|because|since|after|before|once|until|then|now|however|"
                     "moreover|meanwhile|today|yesterday|tomorrow|what|who|where|why|how|which|is|are|was|were|do|does|did|can|could|will|"
                     "would|not|no|yes|some|many|most|all|each|every|one|two|both|another|such|even|still|only|just|please|let|have|has|had)")
_BULLET = re.compile(r"\s*(?:[-*•#>]|\d+[.)])\s")
_CLAUSE = re.compile(rf"(?:[;，；：、—…]|(?<!\d)[,:]|[,:](?!\d))[{_CLOSERS}]*\s*|[.!?。！？]+[{_CLOSERS}]*\s+|\s+(?=[(（])|(?<=[)）])\s*")
_JOINERS = re.compile(r"\s+(?=(?:and|but|or|so|because|that|which|who|when|where|while|if|as|with|for|from|in|on|by|into|before|after|during)\s)")
_SPACE, _ANY = re.compile(r"\s+"), re.compile(r"(?s).")
_MARKUP = [(re.compile(pattern), made) for pattern, made in [
    (r"!?\[([^\]]*)\]\([^)]*\)", r"\1"), (r"^\s{0,3}#{1,6}\s+", ""), (r"^\s*[-*•>]+\s+", ""), (r"^\s*\d+[.)]\s+(?=\D)", ""),
    (r"(\*\*|__|~~)(.+?)\1", r"\2"), (r"(?<!\w)[*_](\S[^*_]*?)[*_](?!\w)", r"\1"), (r"`+", ""),
    (r"</?[A-Za-z][^<>]{0,80}>", " "), (r"^\s*([-=*_]\s?){3,}$", ""),
]]


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Sentences of a text that arrives in pieces, each as soon as its end is certain."""
    held = ""
    for piece in pieces:
        held += piece
        start = 0
        for end in _ends(held, closed=False):
            if held[start:end].strip():
                yield held[start:end].strip()
            start = end
        held = held[start:]
    start = 0
    for end in [*_ends(held, closed=True), len(held)]:
        if held[start:end].strip():
            yield held[start:end].strip()
        start = end


def _ends(text: str, closed: bool) -> Iterator[int]:
    """Places just after each sentence; `closed`: no more text will follow."""
    start = 0
    for match in _STOP.finditer(text):
        while match.end() - start > LONGEST:
            start = _cut(text, start)
            yield start
        if match.end() == len(text) and not closed:
            break
        verdict = _is_end(text, start, match, closed)
        if verdict is None:
            break
        if verdict:
            start = match.end()
            yield start
    while len(text) - start > LONGEST:
        start = _cut(text, start)
        yield start


def _cut(text: str, start: int) -> int:
    """A place to cut a text that has run on: after its last clause, else its last space, else anywhere."""
    part = text[start: start + LONGEST]
    marks = [match.end() for match in _CLAUSE.finditer(part) if match.end() > LONGEST // 4]
    space = part.rfind(" ")
    return start + (marks[-1] if marks else space if space > LONGEST // 4 else LONGEST)


def _is_end(text: str, start: int, match: re.Match, closed: bool) -> bool | None:
    """Whether a sentence ends with this mark; None if what follows is needed to tell."""
    mark, rest = match[0], text[match.end(): match.end() + 80]
    if mark[0] == "\n":
        short = match.start() - (text.rfind("\n", 0, match.start()) + 1) < 60
        return len(mark) > 1 or short or bool(_BULLET.match(rest)) or (None if not rest and not closed else False)
    if mark[0] in "。！？":
        return True
    if rest and not rest[0].isspace() and not re.match(f"[{HAN}]", rest[0]):
        return False
    following = rest.lstrip()
    if not following:
        return True if closed else None
    if following[0].islower():
        return False
    if mark[0] == "…":
        return rest[0].isspace()
    if mark[0] != "." or mark.startswith(".."):
        return True
    word = re.search(rf"[^\s，、；：（{HAN}]*$", text[start: match.start()][-40:])[0].lstrip("\"'“‘(")
    if word.isdecimal() and not text[start: match.start()].strip()[: -len(word)]:
        return False  # the number of an item in a list
    if not (word.lower() in _ABBREVIATIONS or _INITIALS.fullmatch(word)):
        return True
    follower = re.match(r"[\"'“‘(]*([\w']+)(.?)", following)
    if follower and not follower[2] and not closed and len(rest) < 80:
        return None
    return _ends_after(word, follower[1] if follower else "", follower[2] if follower else "")


def _ends_after(word: str, following: str, mark: str) -> bool:
    """Whether a sentence can end with the full stop of `word`, before the word `following` and the mark after that."""
    short, begins = word.lower(), bool(_OPENER.fullmatch(following)) and not (len(following) == 1 and mark == ".")
    if short in _NEVER_LAST:
        return False
    if following[:1].isdecimal() and short in _BEFORE_NUMBERS | _MONTHS | _DAYS:
        return False
    if short in _DAYS:
        return following.lower()[:3] not in _MONTHS
    if short in ("a.m", "p.m"):
        return following.lower() not in _AFTER_HOURS and following.lower()[:3] not in _DAYS | _MONTHS
    return begins or not (short in _BEFORE_NAMES or bool(_INITIALS.fullmatch(word)))


def plain(text: str) -> str:
    """What can be said of a sentence: without markup, emoji, control characters and full-width forms."""
    for pattern, made in _MARKUP:
        text = pattern.sub(made, text)
    text = "".join(" " if letter.isspace() else letter for letter in text if letter.isspace() or _said(letter))
    text = re.sub(r"[Ａ-Ｚａ-ｚ０-９％＄＋＝]", lambda m: unicodedata.normalize("NFKC", m[0]), text)
    return re.sub(r"\s+", " ", text).strip()


def _said(letter: str) -> bool:
    kind = unicodedata.category(letter)
    if kind[0] in "LMNPZ":
        return not 0xFE00 <= ord(letter) <= 0xFE0F
    return kind in ("Sc", "Sm") or letter in "°^`~|©®™℃℉№" or "㎀" <= letter <= "㏟"  # the last are units in one character, such as ㎡


def language(text: str) -> str:
    """"zh" if a text holds at least as many Chinese characters as words in Latin letters (and any at all), else "en"."""
    han = len(re.findall(f"[{HAN}]", text))
    return "zh" if han and han >= len(re.findall(r"[A-Za-z]+", text)) else "en"


def clauses(text: str, longest: int, measure: Callable[[str], int], first: int | None = None) -> Iterator[str]:
    """A sentence in pieces of at most `longest` by `measure`, cut where a voice would pause anyway.

    Args:
        first: the most for the first piece, so that it can be heard early; a clause just over it is left whole.
    """
    limit, early = first or longest, first is not None
    while text:
        if measure(text) <= limit * (1.5 if early else 1):
            yield text
            return
        end = _last(_CLAUSE, text, limit, measure, limit / 4) or _last(_JOINERS, text, limit, measure, limit / 4)
        if not end and early:  # no good place near enough: the next good one, rather than a bad one
            limit, early = longest, False
            after = sorted(match.end() for pattern in (_CLAUSE, _JOINERS) for match in pattern.finditer(text) if match.end() < len(text))
            end = next((place for place in after if first < measure(text[:place]) <= longest and measure(text[place:]) > first / 2), 0)
            if not end:
                continue
        end = end or _last(_SPACE, text, limit, measure) or _last(_ANY, text, limit, measure) or 1
        yield text[:end].strip()
        text, limit, early = text[end:].strip(), longest, False


def _last(pattern: re.Pattern, text: str, limit: int, measure: Callable[[str], int], least: float = 0) -> int:
    """The last place to cut that leaves between `least` and `limit` before it; 0 if there is none."""
    ends = [match.end() for match in pattern.finditer(text) if 0 < match.end() < len(text)]
    count = bisect.bisect_right(ends, limit, key=lambda end: measure(text[:end]))
    return ends[count - 1] if count and measure(text[: ends[count - 1]]) >= least else 0
