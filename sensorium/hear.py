"""Hear: speech to text, with times, for recordings of any length.

    sound -> 16 kHz blocks -> speech found, silence left out -> windows -> log-mel -> encoder -> eight windows written down together
          -> segments with the recording's own times (-> words) -> Heard, one after another

Letters: B batch, T samples, S source length, D width, M mel bins, F frames.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from sensorium.codecs.audio import AudioCodec, sound_length, stream_audio
from sensorium.codecs.text import Tokenizer
from sensorium.dictation import STEP_S, Marks, Settings, Written, read_marks, write_down
from sensorium.fused import open_reader
from sensorium.languages import code_of, likely
from sensorium.model import ModelNet
from sensorium.pauses import RATE_HZ, open_finder
from sensorium.timing import Spoken, by_character, split_words, time_words
from sensorium.types import Audio, CheckpointError, ConfigError, ModalityError, Video
from sensorium.windows import Window, cut_windows

__all__ = ["Heard", "Hearing", "joined", "languages", "listen", "main_language", "transcribe", "Word"]

ROWS = 8  # windows written down together
MISSED_S = 2.0  # speech after the last time in a window that is listened to once more
PLACES = 448  # tokens that the published models have places for
SENTENCE_ENDS = tuple(".。!！?？…")
STEADY_DB = 4.5  # white noise changes by 3.6 in 50 ms pieces, speech in as loud a noise by 9

Watcher = Callable[[float, float], None]


@dataclass(frozen=True)
class Word:
    """A word and when it was said, in seconds of the recording."""

    start_s: float
    end_s: float
    text: str
    probability: float


@dataclass(frozen=True)
class Heard:
    """A segment of speech, in seconds of the recording; ``language`` as the model's code, mostly ISO 639-1."""

    start_s: float
    end_s: float
    text: str
    words: tuple[Word, ...] = ()
    language: str = ""


@dataclass(frozen=True)
class Hearing:
    """A transcript.

    Args:
        name: of the recording.
        language: spoken longest; "" if nobody spoke.
        text: all of it.
        segments: in order.
    """

    name: str
    language: str
    text: str
    segments: tuple[Heard, ...]


def transcribe(model: ModelNet, audio: Audio | Video | str | Path | bytes, language: str | None = None, translate: bool = False,
               words: bool = False, watch: Watcher | None = None, settings: Settings | None = None, skip_silence: bool = True) -> Hearing:
    """A whole transcript; see :func:`listen`."""
    segments = tuple(listen(model, audio, language, translate, words, watch, settings, skip_silence))
    source = audio.source if isinstance(audio, (Audio, Video)) else audio
    name = Path(source).name if isinstance(source, (str, Path)) else "sound"
    return Hearing(name, main_language(segments), joined(segments), segments)


def joined(segments: Sequence[Heard]) -> str:
    """All of the text on one line. Segments bring their own blanks, but where another language begins there may be none."""
    out, before = "", None
    for heard in segments:
        apart = before is not None and (heard.text[:1].isspace() or before.text[-1:].isspace() or heard.language != before.language)
        out, before = out + (" " if apart else "") + " ".join(heard.text.split()), heard
    return out.strip()


def main_language(segments: Sequence[Heard]) -> str:
    """The language that is spoken longest; "" if nobody speaks."""
    length_s: dict[str, float] = {}
    for heard in segments:
        length_s[heard.language] = length_s.get(heard.language, 0.0) + heard.end_s - heard.start_s
    return max(length_s, key=length_s.__getitem__, default="")


@torch.inference_mode()
def listen(model: ModelNet, audio: Audio | Video | str | Path | bytes, language: str | None = None, translate: bool = False,
           words: bool = False, watch: Watcher | None = None, settings: Settings | None = None,
           skip_silence: bool = True) -> Iterator[Heard]:
    """Write down what is said, segment by segment as it becomes known; memory does not grow with the recording.

    Args:
        model: Whisper (an audio encoder, and a decoder that reads it by cross-attention).
        audio: path, encoded bytes, or an Audio; a Video's sound track.
        language: code or English name; None finds out, window by window.
        translate: into English.
        words: also when each word was said.
        watch: called with the seconds done and the seconds in all (0 if unknown).
        settings: thresholds of the text.
        skip_silence: find speech first, if the voice detector's weights are at hand.

    Raises:
        MediaError: not a sound that can be read.
        ModalityError: the model does not hear.
        ConfigError: a language or task that the model does not know.
    """
    ear = _ear(model)
    language = ear.check(language, translate)
    finder = open_finder() if skip_silence else None
    ask = replace(settings or Settings(), vouched=finder is not None)
    total_s = sound_length(audio)
    windows = cut_windows(stream_audio(audio, RATE_HZ), finder, longest_s=ear.codec.frames / 100)
    batch: list[Window] = []
    rows = 1  # the first window alone: the first words come soon, and they say which language it is

    def work() -> Iterator[Heard]:
        nonlocal ask
        for segments in ear.hear(model, batch, language, translate, words, ask):
            for heard in segments:
                ask = replace(ask, usual=heard.language)
                yield heard
        if watch is not None:
            watch(batch[-1].end_s, total_s)

    for window in windows:
        if steady(window.x_T):
            continue
        batch.append(window)
        if len(batch) >= rows:
            yield from work()
            batch, rows = [], ROWS
    if batch:
        yield from work()
    if watch is not None:
        watch(total_s, total_s)


def languages(model: ModelNet) -> tuple[str, ...]:
    """Codes of the languages that the model hears."""
    return tuple(_ear(model).marks.languages) or ("en",)


def steady(x_T: torch.Tensor) -> bool:
    """Silence, or a sound as even as a machine's: nobody speaks like that.

    The loudness of 50 ms pieces, between its tenth and its ninetieth percentile, in each of three bands.
    """
    piece = RATE_HZ // 20
    if len(x_T) < 10 * piece:
        return float(x_T.abs().max()) < 1e-4 if len(x_T) else True
    if float(x_T.abs().max()) < 1e-4:
        return True
    power_NF = torch.fft.rfft(x_T[: len(x_T) // piece * piece].reshape(-1, piece) * torch.hann_window(piece)).abs().square()
    band_hz = ((100, 500), (500, 1500), (1500, 4000))
    step_hz = RATE_HZ / piece
    level_NB = torch.stack([power_NF[:, round(low / step_hz) : round(high / step_hz)].sum(dim=1) for low, high in band_hz], dim=1)
    level_NB = 10 * level_NB.clamp(min=float(level_NB.max()) * 1e-5).log10()
    low_B, high_B = level_NB.quantile(torch.tensor([0.1, 0.9]), dim=0)
    return bool((high_B - low_B).max() < STEADY_DB)


class _Ear:
    """What a model needs to hear: its codec, tokenizer and marks, and its encoder in the quickest numbers."""

    def __init__(self, model: ModelNet) -> None:
        if "audio" not in model.encoders or "cross" not in model.fuse or "text" not in model.heads:
            raise ModalityError(f"the model reads {', '.join(model.spec.reads)} and does not write down speech; use a Whisper model")
        if model.folder is None or not (model.folder / "tokenizer.json").is_file():
            raise CheckpointError("this model has no tokenizer.json beside it; load it from its folder")
        spec = model.spec.encoders["audio"].resolve()
        self.tokenizer = Tokenizer.from_file(model.folder / "tokenizer.json")
        self.codec = AudioCodec(mels=spec.mels, frames=spec.frames)
        self.marks = read_marks(self.tokenizer.specials, _config(model.folder))
        self.encoder = _quick(model)

    def check(self, language: str | None, translate: bool) -> str | None:
        """The language as the model calls it."""
        known = self.marks.languages
        code = language if language is None or language in known else code_of(language)
        if code is not None and code not in (known or ("en",)):
            raise ConfigError(f"language {language!r} is not one that the model hears; wanted one of {', '.join(known or ('en',))}")
        if translate and not known:
            raise ConfigError("the model hears English only and translates nothing; use a multilingual one")
        return code

    def encode(self, model: ModelNet, windows: Sequence[Window]) -> torch.Tensor:
        """Features (B, S, D). One window after another: what one needs stays in the processor's caches, what eight need does not."""
        weight = next(self.encoder.parameters())
        mels = (self.codec.encode_samples([window.x_T]).to(weight.device, weight.dtype) for window in windows)
        return torch.cat([self.encoder(mel_BMF).x_BPD.to(model.dtype) for mel_BMF in mels])

    def hear(self, model: ModelNet, windows: Sequence[Window], language: str | None, translate: bool, words: bool, settings: Settings,
             ) -> list[list[Heard]]:
        """Segments of each window. What a window leaves unsaid at its end is listened to again, alone."""
        out: list[list[Heard]] = [[] for _ in windows]
        todo = list(enumerate(windows))
        while todo:
            features_BSD = self.encode(model, [window for _, window in todo])
            written = write_down(lambda x: open_reader(model, rows=len(x), room=PLACES, memory=x), features_BSD, self.marks,
                                 self.tokenizer.decode, language, translate, settings)
            kept = {row: _parts(found.tokens, self.marks, todo[row][1].length_s) for row, found in enumerate(written) if not found.silent(settings)}
            timed = {row: parts for row, parts in kept.items()
                     if words and parts or any(todo[row][1].crossed(part.start_s, part.end_s) for part in parts)}
            spoken = self._words(model, features_BSD, todo, written, timed, translate) if timed else {}
            later = []
            for row, parts in kept.items():
                index, window = todo[row]
                tongues = (written[row].language,) if translate else written[row].languages
                out[index] += self._segments(parts, window, tongues or (written[row].language,), spoken.get(row), words)
                reached_s = parts[-1].end_s if parts else window.length_s
                if 0 < reached_s < window.length_s - MISSED_S and not steady((rest := window.after(reached_s)).x_T):
                    later.append((index, rest))
            todo = later
        return out

    def _segments(self, parts: Sequence[_Part], window: Window, tongues: Sequence[str], spoken: list[list[Spoken]] | None, words: bool,
                  ) -> Iterator[Heard]:
        for place, part in enumerate(parts):
            for start_s, end_s, text, said in self._apart(part, window, spoken[place] if spoken is not None else []):
                if not text.strip():
                    continue
                start_s, end_s = _times(window, start_s, end_s)
                timed = tuple(Word(*_times(window, word.start_s, word.end_s), word.text, round(word.probability, 4)) for word in said if words)
                if timed:
                    start_s, end_s = timed[0].start_s, max(timed[-1].end_s, timed[0].start_s)
                yield Heard(start_s, end_s, text, timed, likely(text, tongues) or tongues[0])

    def _apart(self, part: _Part, window: Window, spoken: list[Spoken]) -> Iterator[tuple[float, float, str, list[Spoken]]]:
        """A segment in the pieces that the pauses within it leave: start and end in the window, text, words."""
        pauses = window.crossed(part.start_s, part.end_s)
        if not spoken or not pauses:
            yield part.start_s, part.end_s, self.tokenizer.decode(part.tokens), spoken
            return
        groups: list[list[Spoken]] = [[] for _ in range(len(pauses) + 1)]
        for word in spoken:
            groups[sum(word.start_s + word.end_s > start_s + end_s for start_s, end_s in pauses)].append(word)
        for before, after in zip(groups, groups[1:], strict=False):
            _to_sentence(before, after)
        starts, ends = [part.start_s, *(end_s for _, end_s in pauses)], [*(start_s for start_s, _ in pauses), part.end_s]
        for start_s, end_s, group in zip(starts, ends, groups, strict=True):
            if group:
                yield start_s, end_s, "".join(word.text for word in group), group

    def _words(self, model: ModelNet, features_BSD: torch.Tensor, todo: Sequence[tuple[int, Window]], written: Sequence[Written],
               timed: dict[int, list[_Part]], translate: bool) -> dict[int, list[list[Spoken]]]:
        """Words of each part of some rows."""
        decode, marks, rows = self.tokenizer.decode, self.marks, list(timed)
        split = {row: [split_words(part.tokens, decode) for part in parts] for row, parts in timed.items()}
        found = time_words(
            model, features_BSD[rows], [[marks.start, *marks.prompt(written[row].language, translate), marks.no_times] for row in rows],
            [[token for part in timed[row] for token in part.tokens] for row in rows], marks.end,
            [todo[row][1].length_s for row in rows], [[word for words in split[row] for word in words] for row in rows])
        out = {}
        for row, spoken in zip(rows, found, strict=True):
            each = iter(spoken)
            out[row] = [by_character([next(each) for _ in words]) for words in split[row]]
        return out


def _to_sentence(before: list[Spoken], after: list[Spoken]) -> None:
    """Words' times are a word off at times: where the one beside a pause ends a sentence, the pause stands there."""
    def ends(word: Spoken) -> bool:
        return word.text.strip().endswith(SENTENCE_ENDS)

    if before and after and not ends(before[-1]):
        if len(before) > 1 and ends(before[-2]):
            after.insert(0, before.pop())
        elif len(after) > 1 and ends(after[0]):
            before.append(after.pop(0))


def _times(window: Window, start_s: float, end_s: float) -> tuple[float, float]:
    """The recording's times of two places in a window, out of its pauses."""
    start_s, end_s = window.spoken(start_s, end_s)
    start_s = round(window.time(start_s, late=True), 3)
    return start_s, max(round(window.time(end_s), 3), start_s)


@dataclass(frozen=True)
class _Part:
    """A segment as it was written: seconds in the window, and text tokens."""

    start_s: float
    end_s: float
    tokens: list[int]


def _parts(tokens: Sequence[int], marks: Marks, length_s: float) -> list[_Part]:
    """Cut what was written at its times. Text without an end, the last, ends with the window."""
    out, start_s, text = [], 0.0, []
    for token in tokens:
        if token < marks.times:
            text.append(token)
            continue
        time_s = min((token - marks.times) * STEP_S, length_s)
        if text:
            out.append(_Part(start_s, time_s, text))
        start_s, text = time_s, []
    return out + ([_Part(start_s, length_s, text)] if text else [])


def _config(folder: Path) -> dict[str, Any]:
    """The published settings that lie beside the weights."""
    config: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            try:
                config |= json.loads((folder / name).read_text(encoding="utf-8"))
            except (UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
                raise CheckpointError(f"{folder.name}/{name} is not an object of settings; fetch it again") from error
    return config


def _quick(model: ModelNet) -> torch.nn.Module:
    """The audio encoder: a copy in bfloat16 where the processor multiplies these natively, else the model's own."""
    encoder = model.encoders["audio"]
    able = torch.cpu.get_capabilities()
    if model.device.type == "cpu" and model.dtype == torch.float32 and (able.get("avx512_bf16") or able.get("amx_bf16")):
        return copy.deepcopy(encoder).to(torch.bfloat16)
    return encoder


_EARS: WeakKeyDictionary[ModelNet, _Ear] = WeakKeyDictionary()


def _ear(model: ModelNet) -> _Ear:
    if model not in _EARS:
        _EARS[model] = _Ear(model)
    return _EARS[model]
