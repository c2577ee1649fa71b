"""Questions: which language one is written in, whether it asks for what is seen or said, and between which things it lets choose.

    script -> language; Latin letters -> the language whose small words stand in the text; nothing that tells -> None
"""

from __future__ import annotations

import re
from collections import Counter

from sensorium.languages import name_of, script_of, usual

__all__ = ["choices_of", "foreign", "side_of", "written_in"]

_LETTERS = {"ru": (("uk", "іїєґ"),), "ar": (("fa", "پچژگ"),)}
_SMALL_WORDS = {language: frozenset(words.split()) for language, words in {
    "en": "the a an is are was were what who where when why which how do does did of in on to and or for with this that it i you he she they we "
          "my your can could would should will mean means say name tell me there not from by at as be has have many much please about between "
          "no ten two one red so if then than here may might must shall had been being only also any all some such same other more most just like "
          "very too well out up down over under again both each few own off him her his its our their them us who whose go get got make see use per "
          "come met war den sin son fast kind file plus van era",
    "de": "der die das ein eine einen ist sind war was wer wo wann warum wie welche welcher welches und oder nicht von für mit auf im den dem des zu "
          "ich du er sie wir ihr es kann heißt bitte viele auch bei nach über gibt hat haben wird",
    "fr": "le la les un une des est sont était que quel quelle quels quelles qui où quand pourquoi comment et ou pas du de pour avec dans sur ce "
          "cette je tu il elle nous vous c'est qu'est-ce combien au aux en plus ne",
    "es": "el la los las un una es son era qué quién dónde cuándo cómo cuál cuánto cuántos por para con en de del y no que se lo este esta yo tú hay "
          "está muy más",
    "it": "il lo la gli le un una è sono era che cosa chi dove quando perché come quale quanto quanti di del della e non per con nel questo questa "
          "io c'è più",
    "pt": "o a os as um uma é são era que quem onde quando como qual quanto quantos por para com em de do da no na e não se este esta eu você mais",
    "nl": "de het een is zijn was wat wie waar wanneer waarom hoe welke en of niet van voor met op in dit dat ik jij hij zij wij er veel",
    "pl": "jest są był co kto gdzie kiedy dlaczego jak jaki jaka jakie który i nie z na do w się to ten ta czy ile",
    "tr": "bir bu ne kim nerede nasıl neden kaç ve değil için ile mi mı mu mü var yok hangi çok",
    "vi": "là gì ai ở đâu khi nào tại sao như thế và không của cho với trong này đó có bao nhiêu một những các",
    "id": "apa siapa di mana kapan mengapa bagaimana yang dan tidak dari untuk dengan ini itu adalah berapa ada ke",
    "sv": "är var vad vem när varför hur vilken och eller inte av för med på i den det en ett jag du han hon vi finns som"}.items()}
_ONLY_THERE = {"es": "¿¡ñ", "de": "ß", "vi": "ơưđặậệộốớờựữảẻỏủỉỷạ", "tr": "ğış", "pl": "łąęśźż"}
_CHINESE_WORDS = re.compile(r"什么|哪|谁|怎|多少|几|吗|呢|的|是|请|把|了|为何|有|区别|意思")


def written_in(text: str) -> str | None:
    """The language of a text, as an ISO 639-1 code; None if nothing tells, as of numbers, names and single words.

    A word of another script inside a sentence leaves the sentence's language: "What does 你好 mean?" is English, "Python是什么？" Chinese.
    """
    runs = Counter(script for script, _ in _runs(text))
    latin = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", "".join(letter if _script(letter) in ("LATIN", None) else " " for letter in text))
    english = sum(word.lower() in _SMALL_WORDS["en"] for word in latin)
    if not runs:
        begin = {match[1] for match in re.finditer(r"(?:^|[.?!…¿¡:])[\s\"'“„«(]*([^\W\d_]+)", text)}
        small = {word.replace("’", "'").lower() for word in latin if word[0].islower() or word in begin}  # not the "La" of "La Paz"
        return _by_words(text, small)
    first = next(letter for letter in text if letter.isalpha())
    around = english and _script(first) == "LATIN" and len(latin) >= 2 * sum(runs.values())
    if around and english > len(_CHINESE_WORDS.findall(text)):
        return "en"
    kana = runs["HIRAGANA"] + runs["KATAKANA"]
    script = "HIRAGANA" if kana and set(runs) <= {"HIRAGANA", "KATAKANA", "CJK"} else max(runs, key=runs.__getitem__)
    if script == "CJK" and not _CHINESE_WORDS.search(text) and len(latin) > len(re.findall(r"[一-鿿]", text)):
        return "en" if english else None  # a name in Chinese characters among English words
    language = usual(script)
    return next((other for other, letters in _LETTERS.get(language, ()) if set(letters) & set(text.lower())), language)


def foreign(model: str, only: str | None, written: str | None) -> str:
    """That a model does not know the language of a question; "" if it does, or nothing is known of either.

    Args:
        model: its name.
        only: the languages it knows, with a blank between; None is many.
        written: language of the question.
    """
    if only is None or written is None or written in only.split():
        return ""
    known = " and ".join(name_of(code) for code in only.split())
    return f"the question is in {name_of(written)}, and {model} knows {known}"


def _script(letter: str) -> str | None:
    """LATIN, or the script of a language that is known; None for what belongs to every script."""
    script = script_of(letter) if letter.isalpha() else ""
    return script if script == "LATIN" or usual(script) else None


def _runs(text: str) -> list[tuple[str, str]]:
    """Stretches in other scripts than Latin, each with its script; Latin letters end one, blanks do not."""
    out: list[tuple[str, str]] = []
    before = None
    for letter in text:
        script = _script(letter)
        if script is not None and script != "LATIN":
            if script == before:
                out[-1] = script, out[-1][1] + letter
            else:
                out.append((script, letter))
        before = script or before
    return out


def _by_words(text: str, words: set[str]) -> str | None:
    """A language in Latin letters: the one with most small words that English lacks, by at least two and more than English has that it lacks."""
    english, found = words & _SMALL_WORDS["en"], {}
    for language, small in _SMALL_WORDS.items():
        own = len((words & small) - _SMALL_WORDS["en"]) + 2 * any(letter in _ONLY_THERE.get(language, "") for letter in text.lower())
        if own >= 2 and own > len(english - small):
            found[language] = own, len(words & small)
    return max(found, key=found.__getitem__) if found else "en" if english else None


_SAID = re.compile(
    r"\b(?:say|says|said|saying|speak|speaks|spoken|speaking|speech|talk|talks|talking|tells?|told|hear|heard|hears|hearing|listen|sounds?|noise|"
    r"voices?|music|song|sing|sings|singing|sung|lyrics|words?|mention|mentions|mentioned|transcribe|transcript|transcription|conversation|"
    r"dialogue|audio|discuss|discussed|language)\b|说|讲|听|声音|唱|歌|音乐|话|台词|转写|提到|谈|语言|念", re.IGNORECASE)
_SEEN = re.compile(
    r"\b(?:see|sees|seen|look|looks|looking|watch|shows?|showing|shown|visible|appears?|colou?rs?|screen|pictures?|image|frames?|scene|background|"
    r"wear|wears|wearing|shapes?|objects?|animals?|hold|holding|standing|sitting|faces?|hair|clothes|bright|dark|left|right|move|moves|moving|"
    r"written|text|red|green|blue|yellow|black|white|orange|purple|pink|brown|gr[ea]y)\b|"
    r"看|颜色|画面|屏幕|显示|出现|穿|形状|背景|图|场景|长什么样|红|绿|蓝|黄|黑|白|字", re.IGNORECASE)


def side_of(question: str) -> str | None:
    """"seen" or "said": what of a film a question asks for; None if it does not tell, or asks for both."""
    seen, said = bool(_SEEN.search(question)), bool(_SAID.search(question))
    return None if seen == said else "seen" if seen else "said"


_CHOICE = re.compile(
    r"^\s*(?:(?:is|are|was|were|do you think|would you say)\s+(?:this|it|that|these|those|they|he|she)"
    r"(?:\s+(?:is|one|thing|picture|image|photo|animal|object))?|what is (?:this|it|that)\s*[:,–-]|which (?:is it|one)\s*[:,–-])?"
    r"\s*(?:either\s+|more\s+)?(.+?)\s*\?\s*$", re.IGNORECASE)
_CHINESE_CHOICE = re.compile(
    r"^(?:请问)?(?:这|它|那|此)?(?:个|张|幅)?(?:图片?|照片|画|东西|视频)?(?:里面?|中|上)?(?:的)?(?:是|算)?([^是]+?)还是(.+?)(?:呢|啊)?[？?。]*$")
_NO_THING = re.compile(
    r"^(?:not|no|something else|neither|none|both|other|anything|别的|其他|不是|都不是)\b|"
    r"^(?:is|are|am|was|were|do|does|did|has|have|had|can|could|will|would|should|shall|may|might|must|what|who|whom|whose|where|when|why|how|which|"
    r"i|we|they|you|please|tell|say|show|give|write|explain|describe)\b|^[我你他她它们您]{1,2}$|[吗，,]", re.IGNORECASE)
_LONGEST_THING = 4  # words of what can be chosen; more are a sentence of their own


def choices_of(question: str) -> tuple[str, ...]:
    """The things between which a question lets choose: "Is this a cat or a dog?" gives ("a cat", "a dog"), "是猫还是狗？" ("猫", "狗").

    () for every other question; "Is there a cat or a dog?" is answered with yes or no.
    """
    found = _CHINESE_CHOICE.match(question.strip())
    if found:
        things = [*re.split(r"[、，,]", found[1]), re.sub(r"^是", "", found[2])]
    else:
        found = _CHOICE.match(question)
        if not found or not re.search(r"\s+or\s+", found[1]) or len(found[1]) > 120:
            return ()
        things = re.split(r"\s*,\s*(?:or\s+)?|\s+or\s+", found[1])
    things = [thing.strip(" \"'“”") for thing in things]
    if any(len(thing.split()) > _LONGEST_THING for thing in things):
        return ()
    return tuple(things) if len(things) > 1 and all(things) and not any(_NO_THING.search(thing) for thing in things) else ()
