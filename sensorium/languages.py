"""Languages: the codes and names that people and files give, as one code; and where a line of any script may break.

    "zh-CN", "chi", "Chinese" -> "zh"
    "He said 你好。" -> "He", " said", " 你", "好。"
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

__all__ = ["cells", "CLOSERS", "code_of", "is_mark", "likely", "name_of", "OPENERS", "pieces", "script_of", "spaceless", "usual"]

OPENERS = "\"'“‘¿([{-«「『（《"
CLOSERS = "\"'”’.。,，、!！?？:：;；)]}»」』）》…"
_NOT_FIRST = "ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ"  # of a line; they lengthen or shorten the sound before them

# Code that speech models use; its ISO 639-2 codes (T, then B where another); its English names.
_KNOWN = """
en eng english|zh zho chi cmn chinese mandarin|de deu ger german|es spa spanish castilian|ru rus russian|ko kor korean|fr fra fre french
ja jpn japanese|pt por portuguese|tr tur turkish|pl pol polish|ca cat catalan valencian|nl nld dut dutch flemish|ar ara arabic|sv swe swedish
it ita italian|id ind indonesian|hi hin hindi|fi fin finnish|vi vie vietnamese|he heb iw hebrew|uk ukr ukrainian|el ell gre greek
ms msa may malay|cs ces cze czech|ro ron rum romanian moldavian moldovan|da dan danish|hu hun hungarian|ta tam tamil|no nor nob nb norwegian
th tha thai|ur urd urdu|hr hrv croatian|bg bul bulgarian|lt lit lithuanian|la lat latin|mi mri mao maori|ml mal malayalam|cy cym wel welsh
sk slk slo slovak|te tel telugu|fa fas per persian farsi|lv lav latvian|bn ben bengali|sr srp serbian|az aze azerbaijani|sl slv slovenian
kn kan kannada|et est estonian|mk mkd mac macedonian|br bre breton|eu eus baq basque|is isl ice icelandic|hy hye arm armenian|ne nep nepali
mn mon mongolian|bs bos bosnian|kk kaz kazakh|sq sqi alb albanian|sw swa swahili|gl glg galician|mr mar marathi|pa pan punjabi panjabi
si sin sinhala sinhalese|km khm khmer|sn sna shona|yo yor yoruba|so som somali|af afr afrikaans|oc oci occitan|ka kat geo georgian
be bel belarusian|tg tgk tajik|sd snd sindhi|gu guj gujarati|am amh amharic|yi yid yiddish|lo lao|uz uzb uzbek|fo fao faroese
ht hat haitian|ps pus pashto pushto|tk tuk turkmen|nn nno nynorsk|mt mlt maltese|sa san sanskrit|lb ltz luxembourgish letzeburgesch
my mya bur myanmar burmese|bo bod tib tibetan|tl tgl fil tagalog filipino|mg mlg malagasy|as asm assamese|tt tat tatar|haw hawaiian
ln lin lingala|ha hau hausa|ba bak bashkir|jw jv jav javanese|su sun sundanese|yue cantonese
"""
_LINES = [words.split() for words in _KNOWN.strip().replace("\n", "|").split("|")]
_CODES = {name: words[0] for words in _LINES for name in words}
_NAMES = {words[0]: next((word for word in words if len(word) > 3), words[-1]).capitalize() for words in _LINES}

# Scripts by their names in Unicode, and the languages written in each, the likeliest first; all others are written in Latin letters.
_WRITTEN = {
    "CJK": "zh ja yue", "HIRAGANA": "ja", "KATAKANA": "ja", "BOPOMOFO": "zh", "HANGUL": "ko", "THAI": "th", "LAO": "lo", "MYANMAR": "my",
    "KHMER": "km", "TIBETAN": "bo", "CYRILLIC": "ru uk bg mk sr be kk mn tg tt ba", "GREEK": "el", "ARABIC": "ar fa ur ps sd", "HEBREW": "he yi",
    "DEVANAGARI": "hi mr ne sa", "TAMIL": "ta", "TELUGU": "te", "KANNADA": "kn", "MALAYALAM": "ml", "BENGALI": "bn as", "GURMUKHI": "pa",
    "GUJARATI": "gu", "SINHALA": "si", "ARMENIAN": "hy", "GEORGIAN": "ka", "ETHIOPIC": "am"}
_SPACELESS = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "THAI", "LAO", "MYANMAR", "KHMER", "TIBETAN")
_OTHERS = frozenset(code for script, codes in _WRITTEN.items() for code in codes.split() if code != "sr")


def cells(text: str) -> int:
    """Width of a text in columns: a wide character (Chinese, Japanese, Korean) takes two, a combining mark none."""
    return sum(0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def code_of(name: str) -> str:
    """A language's code from a code of ISO 639 or BCP 47 or its English name; what is not known comes back as it is."""
    lower = name.strip().lower()
    first = lower.replace("_", "-").split("-")[0]
    return _CODES.get(lower) or _CODES.get(first) or name


def name_of(code: str) -> str:
    """A language's English name; what is not known comes back as it is."""
    return _NAMES.get(code, code)


def script_of(letter: str) -> str:
    """The script of a letter or of a sign on it, "LATIN" or "CJK", as Unicode names it; "" of what belongs to no script."""
    if not (letter.isalpha() or is_mark(letter)):
        return ""
    return re.split("[ -]", re.sub("^(?:HALF|FULL)WIDTH ", "", unicodedata.name(letter, "")), maxsplit=1)[0]


def usual(script: str) -> str | None:
    """The language that is written in a script, of several the one most written; None of Latin letters and scripts that are not known."""
    return _WRITTEN[script].split()[0] if script in _WRITTEN else None


def is_mark(letter: str) -> bool:
    """A sign above, below or beside the letter before it."""
    return bool(letter) and unicodedata.category(letter).startswith("M")


def likely(text: str, languages: Iterable[str]) -> str:
    """The first of some languages, likeliest first, that is written in the letters that most of a text has; "" if none is."""
    counts = Counter(script for letter in text if (script := script_of(letter)))
    if "HIRAGANA" in counts:  # Japanese, which also has the other two
        counts["HIRAGANA"] += counts.pop("CJK", 0) + counts.pop("KATAKANA", 0)
    most = max(counts, key=counts.__getitem__, default="")
    written = _WRITTEN.get(most, "").split()
    return next((code for code in languages if (code in written if written else code not in _OTHERS)), "")


def pieces(text: str) -> list[str]:
    """Words with the blanks before them, and characters of scripts without blanks, punctuation with what it leans on; a line may break between
    any two. All of them together are the text."""
    out: list[str] = []
    for letter in text:
        last = out[-1][-1] if out else ""
        apart = spaceless(letter) or spaceless(last) or (last in CLOSERS and cells(last) == 2)
        leans = letter in CLOSERS or letter in _NOT_FIRST or is_mark(letter) or last in OPENERS
        if not out or not last.isspace() and (letter.isspace() or apart and not leans):
            out.append(letter)
        else:
            out[-1] += letter
    if len(out) > 1 and out[-1].isspace():
        out[-2:] = ["".join(out[-2:])]
    return out


def spaceless(letter: str) -> bool:
    """The letter is of a script that puts no blanks between words."""
    return letter > "\u0dff" and script_of(letter) in _SPACELESS
