"""How well the project speaks: spoken sentences are read back by its own ears and compared with what was written.

    texts -> speaker -> sound -> listener -> both sides normalised -> word or character error rate

Also how soon the first sound comes, how fast speech is made, and whether the pieces of sound join without a jump.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sensorium.codecs import english, mandarin
from sensorium.evals.figures import Figure, commit
from sensorium.speak import Speaker, join
from sensorium.types import Audio

__all__ = ["errors", "evaluate_speech", "jump", "rate_figure", "Spoken", "texts", "words_of"]

VOICES = {"en": ("af_heart", "am_michael", "bf_emma", "bm_george"), "zh": ("zf_xiaoxiao", "zm_yunxi")}
_PLAIN = {"mr": "mister", "mrs": "missis", "ms": "miz", "dr": "doctor", "ok": "okay", "vs": "versus", "cannot": "can not", "won't": "will not",
          "can't": "can not", "shan't": "shall not", "let's": "let us", "grey": "gray", "colour": "color", "metres": "meters", "metre": "meter",
          "neighbours": "neighbors", "neighbour": "neighbor", "percent": "per cent", "email": "e mail", "goodbye": "good bye"}
_SHORT = [(r"n't\b", " not"), (r"'re\b", " are"), (r"'ll\b", " will"), (r"'ve\b", " have"), (r"'m\b", " am"), (r"'d\b", " would"),
          (r"\b(it|that|what|where|who|how|there|here|he|she)'s\b", r"\1 is")]


@dataclass(frozen=True)
class Spoken:
    """One sentence spoken and read back.

    Args:
        language, voice: "en" or "zh", and who spoke.
        text, heard: what was written, and what the listener wrote.
        wrong, of: edits between the two after normalisation, and words (characters in Chinese) of the text.
        first_s, took_s, length_s: seconds to the first sound, to all of it, and of sound.
        jump: largest step between neighbouring samples at a join.
    """

    language: str
    voice: str
    text: str
    heard: str
    wrong: int
    of: int
    first_s: float
    took_s: float
    length_s: float
    jump: float


def texts(language: str) -> list[str]:
    """The sentences of the test, "en" or "zh", written for it."""
    name = {"en": "english.txt", "zh": "chinese.txt"}[language]
    return (Path(__file__).parent / "texts" / name).read_text(encoding="utf-8").split("\n")[:-1]


def words_of(text: str, language: str) -> list[str]:
    """What is compared, the same for both sides: words without case, marks and short forms, numbers in words; in Chinese, simplified
    characters, numbers in characters."""
    if language == "zh":
        text = mandarin.spoken(text.translate(_SIMPLE)).lower().replace("两", "二")
        return re.findall(rf"[{mandarin.HAN}]|[a-z]+", text)
    text = re.sub(r"[^\w\s']", " ", english.spoken(text)).lower()
    text = " ".join(_PLAIN.get(word, word) for word in text.split())
    for pattern, made in _SHORT:
        text = re.sub(pattern, made, text)
    return text.replace("'", "").split()


def errors(wanted: Sequence[str], got: Sequence[str]) -> int:
    """The fewest words put in, left out or changed that lead from one to the other (Levenshtein)."""
    row = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]


def jump(pieces: Sequence[Audio]) -> float:
    """The largest step between neighbouring samples within 2 ms of a join."""
    whole, steps, place = join(pieces).source, [0.0], 0
    near = round(0.002 * pieces[0].rate_hz)
    for piece in pieces[:-1]:
        place += piece.source.numel()
        steps.append(float(whole[max(place - near, 0): place + near].diff().abs().max()))
    return max(steps)


def rate_figure(name: str, wrong: Sequence[int], of: Sequence[int], seed: int = 0, **beside: float) -> Figure:
    """An error rate over sentences: all errors over all words, with the 95 % interval of 1,000 draws of the sentences with replacement."""
    wrong_n, of_n = torch.tensor(wrong, dtype=torch.float64), torch.tensor(of, dtype=torch.float64)
    draw = torch.randint(len(wrong), (1000, len(wrong)), generator=torch.Generator().manual_seed(seed))
    drawn = wrong_n[draw].sum(dim=1) / of_n[draw].sum(dim=1)
    low, high = (float(value) for value in drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)))
    return Figure(name, float(wrong_n.sum() / of_n.sum()), low, high, len(wrong), seed, commit(), beside)


def _speak(speaker: Speaker, read: Callable[[Audio, str], str], text: str, language: str, voice: str) -> Spoken:
    start, pieces, first_s = time.perf_counter(), [], 0.0
    for piece in speaker.speak(text, voice):
        first_s = first_s or time.perf_counter() - start
        pieces.append(piece)
    took_s, whole = time.perf_counter() - start, join(pieces)
    heard = read(whole, language)
    wanted = words_of(text, language)
    return Spoken(language, voice, text, heard, errors(wanted, words_of(heard, language)), len(wanted), first_s, took_s,
                  whole.source.numel() / whole.rate_hz, jump(pieces))


def evaluate_speech(speaker: Speaker, read: Callable[[Audio, str], str], voices: dict[str, Sequence[str]] | None = None, seed: int = 0,
                    watch: Callable[[Spoken], None] | None = None) -> tuple[list[Figure], list[Spoken]]:
    """Every sentence is spoken by one of the voices of its language, in turn, and read back.

    Args:
        read: sound, language -> text; the listener.
        voices: language -> names; None takes four English and two Chinese ones.
        watch: told of each sentence.

    Returns:
        Figures (error rate of each language, with each voice's beside it) and the sentences behind them.
    """
    voices = voices or VOICES
    list(speaker.speak("Ready.", voices["en"][0]))  # the model loads before the clock starts
    done: list[Spoken] = []
    for language, names in voices.items():
        for i, text in enumerate(texts(language)):
            done.append(_speak(speaker, read, text, language, names[i % len(names)]))
            if watch:
                watch(done[-1])
    figures = []
    for language, kind in (("en", "word error rate, English"), ("zh", "character error rate, Chinese")):
        mine = [one for one in done if one.language == language]
        by = {name: [one for one in mine if one.voice == name] for name in voices.get(language, ())}
        beside = {name: sum(s.wrong for s in some) / sum(s.of for s in some) for name, some in by.items() if some}
        figures += [rate_figure(kind, [s.wrong for s in mine], [s.of for s in mine], seed, **beside)] if mine else []
    return figures, done


_SIMPLE = str.maketrans({})
