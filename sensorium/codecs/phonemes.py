"""Text -> the phonemes that Kokoro 1.0 reads: English (American and British) and Mandarin, also mixed in one sentence.

    "Hello, 世界!" -> language runs -> espeak-ng's IPA / pinyin -> Kokoro's symbols "həlˈO, ʂɨ↘ʨje↘!" -> ids 50 83 54 ...

Kokoro learned one letter for each diphthong (A I O Q W Y) and arrows for the Mandarin tones (→ ↗ ↓ ↘).
"""

from __future__ import annotations

import re
from functools import lru_cache

from sensorium.codecs import espeak, mandarin
from sensorium.codecs.mandarin import HAN
from sensorium.types import ConfigError

__all__ = ["ids", "MOST", "phonemes", "sounding", "SYMBOLS"]

MOST = 510  # phonemes in one go: the model's 512 places less one at each end

# Symbol -> id, from the config.json published with Kokoro-82M: runs of neighbouring ids.
SYMBOLS: dict[str, int] = {symbol: first + i for first, run in {
    1: ';:,.!?', 9: '—…"()“” \u0303ʣʥʦʨᵝꭧAI', 31: "O", 33: "Q", 35: "ST", 39: "W", 41: "Yᵊabcdef", 50: "hijklmnopqrstuvwxyzɑɐɒæ", 75: "βɔɕç",
    80: "ɖðʤə", 85: "ɚɛɜ", 90: "ɟ", 92: "ɡ", 99: "ɥ", 101: "ɨɪʝ", 110: "ɯɰŋɳɲɴø", 118: "ɸθœ", 123: "ɹ", 125: "ɾɻ", 128: "ʁɽʂʃʈʧ", 135: "ʊʋ",
    138: "ʌɣɤ", 142: "χʎ", 147: "ʒʔ", 156: "ˈˌː", 162: "ʰ", 164: "ʲ", 169: "↓", 171: "→↗↘", 177: "ᵻ"}.items() for i, symbol in enumerate(run)}

# espeak-ng's IPA -> Kokoro's symbols, in order; "^" ties the letters of one phoneme.
_BOTH = [("ʔˌn\u0329", "tn"), ("ʔn\u0329", "tn"), ("a^ɪ", "I"), ("a^ʊ", "W"), ("d^ʒ", "ʤ"), ("e^ɪ", "A"), ("t^ʃ", "ʧ"), ("ɔ^ɪ", "Y"), ("ə^l", "ᵊl"),
         ("ʲO", "jO"), ("ʲə", "jə"), ("ʲ", ""), ("r", "ɹ"), ("x", "k"), ("ç", "k"), ("ɬ", "l"), ("\u0303", ""), ("n\u0329", "ᵊn"), ("l\u0329", "ᵊl"),
         ("m\u0329", "ᵊm"), ("\u0329", "")]
_ENGLISH = {
    "en-us": [*_BOTH, ("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪ^ə", "iə"), ("ɚ", "əɹ"), ("e", "A"), ("o", "ɔ"), ("ɾ", "T"), ("ʔ", "t"),
              ("ː", ""), ("^", "")],
    "en-gb": [*_BOTH, ("e^ə", "ɛː"), ("i^ə", "ɪə"), ("iə", "ɪə"), ("ə^ʊ", "Q"), ("ɚ", "ə"), ("o", "ɔ"), ("ɾ", "T"), ("ʔ", "t"), ("^", "")],
}

# Initials that espeak-ng 1.52 takes for words, though people say their letters.
_SPELLED = re.compile(r"\b(?:NGO|VIP|IQ|EQ|EP|AV|AR|ER|ICU|IPO|IMF|ETF|ESG|EPA|SEO|UX|AWS|ATV|OTC|ACL|ALS|NYC|COO|CLI|IDE|ASR|VAE|CO|UPS|USPS|AKA|"
                      r"GOP|ROI|AED|IOU|OCD|UAE|UAV|EIN|IEP|OEM|EMT|ESL|RIP|(?<=[a-z] )AM|(?<=the )WHO)\b")

_INITIALS = dict(re.findall(
    r"(\S+)=(\S+)", "b=p c=ʦʰ ch=ꭧʰ d=t f=f g=k h=x j=ʨ k=kʰ l=l m=m n=n p=pʰ q=ʨʰ r=ɻ s=s sh=ʂ t=tʰ x=ɕ z=ʦ zh=ꭧ"))
_FINALS = dict(re.findall(  # 0: where the tone stands
    r"(\S+)=(\S+)",
    "a=a0 ai=ai0 an=a0n ang=a0ŋ ao=au0 e=ɤ0 ei=ei0 en=ə0n eng=ə0ŋ i=i0 ia=ja0 ian=jɛ0n iang=ja0ŋ iao=jau0 ie=je0 in=i0n iou=jou0 ing=i0ŋ "
    "iong=jʊ0ŋ ong=ʊ0ŋ ou=ou0 u=u0 uei=wei0 ua=wa0 uai=wai0 uan=wa0n uen=wə0n uang=wa0ŋ ueng=wə0ŋ uo=wo0 o=wo0 v=y0 ve=ɥe0 van=ɥɛ0n vn=y0n"))
_ALONE = {"er": "ɚ0", "o": "ɔ0", "io": "jɔ0", "ê": "ɛ0", "m": "m0", "n": "n0", "ng": "ŋ0", "hm": "hm0", "hng": "hŋ0"}
_TONES = {"1": "→", "2": "↗", "3": "↓", "4": "↘", "5": ""}

_MARKS = str.maketrans({
    "，": ", ", "、": ", ", "。": ". ", "．": ". ", "！": "! ", "：": ": ", "；": "; ", "？": "? ", "（": " (", "）": ") ", "《": " “", "》": "” ",
    "「": " “", "」": "” ", "『": " “", "』": "” ", "【": " “", "】": "” ", "[": "(", "]": ")", "{": "(", "}": ")", "–": "—", "«": "“", "»": "”"})
_RUN = re.compile(rf"([{HAN}]+)|([;:,.!?—…\"()“”]+)|([^{HAN};:,.!?—…\"()“”]+)")


def phonemes(text: str, accent: str = "en-us") -> str:
    """The phonemes of a text in words, in Kokoro's symbols; punctuation stays.

    Args:
        text: already as it is read aloud (see `english.spoken` and `mandarin.spoken`).
        accent: of its English, "en-us" or "en-gb".

    Raises:
        ConfigError: no such accent; or espeak-ng, jieba or pypinyin is not installed.
    """
    if accent not in _ENGLISH:
        raise ConfigError(f"no accent {accent!r}; take one of {', '.join(_ENGLISH)}")
    out = ""
    for han, mark, other in _RUN.findall(text.translate(_MARKS)):
        if mark:
            out = out.rstrip(" ") + mark if mark[0] not in "(“\"—" else out + mark
        else:
            said = _chinese(han) if han else _english(other, accent)
            gap = bool(out) and out[-1] not in " (“" and (han or other[0].isspace() or out[-1] not in "\"”)")
            out += (" " if gap and said else "") + said + (" " if other[-1:].isspace() else "")
    return re.sub(r" +", " ", "".join(symbol for symbol in out if symbol in SYMBOLS)).strip()


def sounding(said: str) -> int:
    """How many phonemes; 0 if there is nothing but punctuation."""
    return len(said) if any(symbol.isalpha() for symbol in said) else 0


def ids(said: str) -> list[int]:
    """Phonemes as the model's ids, without the zero that stands at each end."""
    return [SYMBOLS[symbol] for symbol in said if symbol in SYMBOLS]


@lru_cache(maxsize=4096)
def _english(text: str, accent: str) -> str:
    parts = re.split(r"\b([A-Z]{2,})'?s\b", text)  # espeak-ng drops the ending of CPUs and NASA's
    said = [_words(part, accent) for part in parts]
    for i in range(1, len(parts), 2):
        said[i] += "s" if said[i][-1:] in set("ptkfθ") else "ᵻz" if said[i][-1:] in set("szʃʒʧʤ") else "z"
    return " ".join(filter(None, said))


def _words(text: str, accent: str) -> str:
    text = _SPELLED.sub(lambda m: ".".join(m[0]) + ".", text)  # with its full stops espeak-ng says the letters
    out = espeak.phonemes(text, accent) if text.strip() else ""
    for old, new in _ENGLISH[accent]:
        out = out.replace(old, new)
    out = re.sub(r"(?<!\S)I(?=[mdlv]?(?:\s|$))", "ˌI", out)  # without a stress the word "I" is swallowed
    return re.sub(r"(?<=\S)ɐ|ɐ(?=\S)", "ə", out)  # the article alone keeps its own letter


@lru_cache(maxsize=4096)
def _chinese(text: str) -> str:
    return " ".join("".join(map(syllable, word)) for word in mandarin.syllables(text))


@lru_cache(maxsize=2048)
def syllable(pinyin: str) -> str:
    """One syllable of pinyin with its tone as a digit in Kokoro's symbols: "zhong1" -> "ꭧʊ→ŋ"."""
    from pypinyin.contrib.tone_convert import to_finals, to_initials

    name, tone = pinyin[:-1], _TONES[pinyin[-1]]
    if name in _ALONE:
        return _ALONE[name].replace("0", tone)
    initial, final = to_initials(name, strict=True), to_finals(name, strict=True, v_to_u=False)
    if final == "i" and initial in ("zh", "ch", "sh", "r", "z", "c", "s"):
        return _INITIALS[initial] + "ɨ" + tone
    return _INITIALS.get(initial, "") + _FINALS.get(final, "").replace("0", tone)
