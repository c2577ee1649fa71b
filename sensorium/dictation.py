"""Dictation: what a Whisper model writes about windows of speech, many at a time, under the rules it was trained with.

    features (B, S, D) -> start -> which language, is it speech at all -> task -> token, token, ... -> end
                                                                          a row that went wrong is tried again, more loosely

Letters: B batch, T length, S source length, D width, V vocabulary.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sensorium.types import ConfigError

__all__ = ["Marks", "read_marks", "Rules", "Settings", "write_down", "Written"]

STEP_S = 0.02
"""Seconds between two time tokens."""


@dataclass(frozen=True)
class Marks:
    """Ids of the tokens that are not text.

    Args:
        start, end: of what is written.
        transcribe, translate: the task; None in models of one language, which do without.
        no_speech: its likelihood at the start says that there is nothing to write.
        no_times: written instead of times; the id after it is 0.00 s, the next 0.02 s, and so on.
        languages: ISO 639-1 code -> id; empty in models of one language.
        never: ids that are not written: symbols that nobody says, and marks.
        not_first: ids that are not written first: the lone blank, and the end.
    """

    start: int
    end: int
    no_speech: int
    no_times: int
    transcribe: int | None = None
    translate: int | None = None
    languages: dict[str, int] = field(default_factory=dict)
    never: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()

    @property
    def times(self) -> int:
        """The id of 0.00 s."""
        return self.no_times + 1

    def prompt(self, language: str | None, translate: bool) -> list[int]:
        """What follows ``start``."""
        if not self.languages:
            return []
        return [self.languages[language], self.translate if translate else self.transcribe]


def read_marks(specials: dict[str, int], config: dict[str, Any]) -> Marks:
    """Find the marks of a tokenizer.

    Args:
        specials: special tokens by name.
        config: the published settings: ``suppress_ids`` and ``suppress_ids_begin``, or ``suppress_tokens`` and ``begin_suppress_tokens``.

    Files of English-only models name languages too, which the model has no use for.
    """
    def find(*names: str) -> int:
        for name in names:
            if name in specials:
                return specials[name]
        raise ConfigError(f"the tokenizer has no {names[0]}; wanted the tokenizer of a Whisper model")

    start, end, no_times = find("<|startoftranscript|>"), find("<|endoftext|>"), find("<|notimestamps|>")
    no_speech = find("<|nospeech|>", "<|nocaptions|>")
    transcribe, translate = find("<|transcribe|>"), find("<|translate|>")
    never = config.get("suppress_ids") or config.get("suppress_tokens") or []
    not_first = config.get("suppress_ids_begin") or config.get("begin_suppress_tokens") or [end]
    marks = range(end + 1, no_times + 1)  # everything between the end and the times
    many = end != ENGLISH_END
    languages = {name[2:-2]: token for name, token in specials.items() if start < token < min(transcribe, translate)} if many else {}
    return Marks(start, end, no_speech, no_times, transcribe if many else None, translate if many else None, languages,
                 tuple(sorted({token for token in never if token != end} | set(marks))), tuple(not_first))


ENGLISH_END = 50_256
"""The end's id in English-only models; it is the first after the byte pairs, of which the multilingual models have one more."""


@dataclass(frozen=True)
class Settings:
    """How much is asked of a transcript.

    Args:
        temperatures: tried in turn until the text is sound; 0 takes the likeliest token.
        repetitive: text that packs better than this many times is a loop.
        unsure: mean log probability of a token below which the text is doubted.
        silence: probability of "no speech" above which a doubted text is dropped.
        vouched: a voice detector found speech in what is given.
        unheard: without one, probability of "no speech" above which any text is dropped. Noise and music gave 0.56 and more, speech under
            twice as loud a noise 0.34 and less.
        longest: tokens of one window.
        first_s: the first words begin no later than this.
        seed: of the choices above temperature 0.
        usual: language of what was heard before.
        another: probability above which a window is in another one; what is short or sung is easily taken for any.

    Source: Whisper (2212.04356), section 4.5.
    """

    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    repetitive: float = 2.4
    unsure: float = -1.0
    silence: float = 0.6
    vouched: bool = False
    unheard: float = 0.45
    longest: int = 224
    first_s: float = 1.0
    seed: int = 0
    usual: str | None = None
    another: float = 0.9


@dataclass
class Written:
    """What was written about one window.

    Args:
        tokens: text and time tokens, without the end.
        language: code of the language that it was written under; "en" in English-only models.
        languages: all that it may be, likeliest first.
        no_speech: probability that nobody speaks.
        mean: mean log probability of a token.
        packs: how many times smaller its text packs.
        temperature: at which it was written.
        looping: it was stopped because it repeated itself.
    """

    tokens: list[int]
    language: str
    no_speech: float
    mean: float = 0.0
    packs: float = 0.0
    temperature: float = 0.0
    looping: bool = False
    languages: tuple[str, ...] = ()

    def silent(self, settings: Settings) -> bool:
        """Nobody speaks."""
        if not settings.vouched and self.no_speech > settings.unheard:
            return True
        return self.no_speech > settings.silence and self.mean < settings.unsure

    def sound(self, settings: Settings) -> bool:
        """Nothing speaks against it, or nobody spoke; trying again would not help."""
        return self.silent(settings) or (not self.looping and self.packs <= settings.repetitive and self.mean >= settings.unsure)


class Rules:
    """Which tokens may come next.

    Times come in pairs, <start> text <end>, never backwards; the first is within ``first_s``; where all times together are likelier than
    the likeliest word, a time is due.
    """

    def __init__(self, marks: Marks, vocab: int, first_s: float = 1.0) -> None:
        self.marks = marks
        self.never = torch.tensor([token for token in marks.never if token < vocab])
        self.not_first = torch.tensor([*marks.not_first])
        self.latest_first = marks.times + round(first_s / STEP_S)

    def apply(self, logits_BV: torch.Tensor, written: Sequence[Sequence[int]]) -> torch.Tensor:
        """Forbid, in place.

        Args:
            logits_BV: float32 scores of the next token.
            written: tokens of each row so far, after the prompt.
        """
        times, never = self.marks.times, float("-inf")
        logits_BV[:, self.never] = never
        for row, tokens in zip(logits_BV, written, strict=True):
            if not tokens:
                row[:times] = never
                row[self.latest_first + 1 :] = never
                continue
            stamps = [token for token in tokens if token >= times]
            last = tokens[-1] >= times
            if last and (len(tokens) < 2 or tokens[-2] >= times):
                row[times:] = never  # a pair is whole, or the first start stands: text follows
            elif last:
                row[: self.marks.end] = never  # text has ended: the end, or the next start
            if stamps:
                row[times : stamps[-1] + (0 if last and tokens[-2:-1] and tokens[-2] < times else 1)] = never
        due = logits_BV[:, times:].logsumexp(dim=1) > logits_BV[:, :times].amax(dim=1)
        logits_BV[due, :times] = never
        return logits_BV


def write_down(
    open_reader: Callable[[torch.Tensor], Any], features_BSD: torch.Tensor, marks: Marks, decode: Callable[[list[int]], str],
    language: str | None = None, translate: bool = False, settings: Settings | None = None,
) -> list[Written]:
    """Write down windows.

    Args:
        open_reader: features (B, S, D) -> a fresh ``fused.Reader`` over them.
        features_BSD: of the encoder.
        marks: ids that are not text.
        decode: ids -> text.
        language: of what is said; None finds out for each row.
        translate: into English.
        settings: thresholds.

    Returns:
        One for each row; ``silent`` ones have nothing to say.
    """
    settings = settings or Settings()
    best: list[Written | None] = [None] * len(features_BSD)
    left = list(range(len(features_BSD)))
    for turn, temperature in enumerate(settings.temperatures):
        generator = torch.Generator().manual_seed(settings.seed + turn)
        rows = _Rows(open_reader(features_BSD[left]), marks, settings, len(left))
        for index, found in zip(left, rows.run(language, translate, temperature, generator), strict=True):
            text = [token for token in found.tokens if token < marks.end]
            found.packs = _packs(decode(text))
            found.looping |= not settings.vouched and _nothing_else(text)
            if best[index] is None or _rank(found, settings) > _rank(best[index], settings):
                best[index] = found
        left = [index for index in left if not best[index].sound(settings)]
        if not left:
            break
    for written in best:
        if not written.sound(settings):  # nothing helped: what was vouched for is kept as it is, but once
            written.tokens = _without_loop(written.tokens, marks) if settings.vouched else []
    return best


def _rank(written: Written, settings: Settings) -> tuple[bool, bool, float]:
    return written.sound(settings), not written.looping and written.packs <= settings.repetitive, written.mean


def _packs(text: str) -> float:
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


class _Rows:
    """Windows being written down together."""

    def __init__(self, reader: Any, marks: Marks, settings: Settings, count: int) -> None:
        self.reader, self.marks, self.settings, self.count = reader, marks, settings, count

    def run(self, language: str | None, translate: bool, temperature: float, generator: torch.Generator) -> list[Written]:
        marks = self.marks
        logits_BV = self.reader.extend(torch.full((self.count, 1), marks.start))
        no_speech = logits_BV.float().softmax(dim=-1)[:, marks.no_speech].tolist()
        likely = self._languages(logits_BV, language)
        prompt = torch.tensor([marks.prompt(codes[0], translate) for codes in likely], dtype=torch.int64)
        if prompt.shape[1]:
            logits_BV = self.reader.extend(prompt)
        rules = Rules(marks, logits_BV.shape[1], self.settings.first_s)
        out = [Written([], codes[0], silence, temperature=temperature, languages=codes) for codes, silence in zip(likely, no_speech, strict=True)]
        total, alive = torch.zeros(self.count), [True] * self.count
        for _ in range(self.settings.longest):
            logits_BV = rules.apply(logits_BV.float(), [written.tokens for written in out])
            if temperature:
                token_B = torch.multinomial((logits_BV / temperature).softmax(dim=-1), 1, generator=generator)[:, 0]
            else:
                token_B = logits_BV.argmax(dim=-1)
            gain_B = logits_BV.gather(1, token_B[:, None])[:, 0] - logits_BV.logsumexp(dim=-1)
            for index, (token, written) in enumerate(zip(token_B.tolist(), out, strict=True)):
                if not alive[index]:
                    continue
                total[index] += gain_B[index]
                if token != marks.end:
                    written.tokens.append(token)
                    written.looping = _loops(written.tokens, marks)
                alive[index] = token != marks.end and not written.looping
            if not any(alive):
                break
            logits_BV = self.reader.extend(token_B[:, None])
        for written, value in zip(out, total.tolist(), strict=True):
            written.mean = value / (len(written.tokens) + 1)
        return out

    def _languages(self, logits_BV: torch.Tensor, language: str | None) -> list[tuple[str, ...]]:
        """Of each row, the likeliest first."""
        if not self.marks.languages or language is not None:
            return [(language or "en",)] * self.count
        codes = list(self.marks.languages)
        share_BK = logits_BV[:, [self.marks.languages[code] for code in codes]].float().softmax(dim=-1)
        if self.settings.usual in codes:
            share_BK[share_BK.amax(dim=-1) <= self.settings.another, codes.index(self.settings.usual)] = 1.0
        return [tuple(codes[index] for index in order) for order in share_BK.argsort(dim=-1, descending=True, stable=True).tolist()]


REPEATS, REPEATED = 5, 12


def _loops(tokens: list[int], marks: Marks) -> bool:
    """The last tokens are one phrase said ``REPEATS`` times over, and long enough for nobody to have said that."""
    return _loop(tokens, marks) is not None


def _loop(tokens: list[int], marks: Marks) -> tuple[int, int] | None:
    """Where a loop at the end begins, among all tokens, and how many text tokens its phrase has."""
    place = [index for index, token in enumerate(tokens) if token < marks.end]
    text = [tokens[index] for index in place]
    for size in range(1, len(text) // REPEATS + 1):
        repeats = max(REPEATS, -(-REPEATED // size))
        if len(text) >= size * repeats and text[-size * repeats :] == text[-size:] * repeats:
            return place[-size * repeats], size
    return None


def _nothing_else(text: list[int]) -> bool:
    """All of the text is one phrase said ``REPEATS`` times or more: what is written of noise."""
    return any(len(text) % size == 0 and text[:size] * (len(text) // size) == text for size in range(1, len(text) // REPEATS + 1))


def _without_loop(tokens: list[int], marks: Marks) -> list[int]:
    """A loop at the end is kept once."""
    found = _loop(tokens, marks)
    if found is None:
        return tokens
    start, size = found
    place = [index for index in range(start, len(tokens)) if tokens[index] < marks.end]
    return tokens[: place[size - 1] + 1]
