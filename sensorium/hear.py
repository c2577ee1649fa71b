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
from sensorium.model import ModelNet
from sensorium.pauses import RATE_HZ, open_finder
from sensorium.timing import NO_SPACES, Spoken, by_character, split_words, time_words
from sensorium.types import Audio, CheckpointError, ConfigError, ModalityError, Video
from sensorium.windows import Window, cut_windows

__all__ = ["Heard", "Hearing", "languages", "listen", "transcribe", "Word"]

ROWS = 8  # windows written down together
MISSED_S = 2.0  # speech after the last time in a window that is listened to once more
PLACES = 448  # tokens that the published models have places for
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
    """A segment of speech, in seconds of the recording; ``language`` as an ISO 639-1 code."""

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
        language: spoken first; "" if nobody spoke.
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
    return Hearing(name, segments[0].language if segments else "", "".join(segment.text for segment in segments).strip(), segments)


@torch.inference_mode()
def listen(model: ModelNet, audio: Audio | Video | str | Path | bytes, language: str | None = None, translate: bool = False,
           words: bool = False, watch: Watcher | None = None, settings: Settings | None = None,
           skip_silence: bool = True) -> Iterator[Heard]:
    """Write down what is said, segment by segment as it becomes known; memory does not grow with the recording.

    Args:
        model: Whisper (an audio encoder, and a decoder that reads it by cross-attention).
        audio: path, encoded bytes, or an Audio; a Video's sound track.
        language: ISO 639-1 code; None finds out from the first speech.
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
    ear.check(language, translate)
    finder = open_finder() if skip_silence else None
    ask = replace(settings or Settings(), vouched=finder is not None)
    total_s = sound_length(audio)
    windows = cut_windows(stream_audio(audio, RATE_HZ), finder, longest_s=ear.codec.frames / 100)
    batch: list[Window] = []
    rows = 1  # the first window alone: the first words come soon, and they say which language it is

    def work() -> Iterator[Heard]:
        nonlocal language
        for segments in ear.hear(model, batch, language, translate, words, ask):
            for heard in segments:
                language = language or heard.language
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

    def check(self, language: str | None, translate: bool) -> None:
        known = self.marks.languages
        if language is not None and language not in (known or ("en",)):
            raise ConfigError(f"language {language!r} is not one that the model hears; wanted one of {', '.join(known or ('en',))}")
        if translate and not known:
            raise ConfigError("the model hears English only and translates nothing; use a multilingual one")

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
            kept = [row for row, found in enumerate(written) if not found.silent(settings)]
            spoken: dict[int, list[list[Spoken]]] = self._words(model, features_BSD, todo, written, kept, translate) if words else {}
            later = []
            for row in kept:
                index, window = todo[row]
                parts = _parts(written[row].tokens, self.marks, window.length_s)
                out[index] += self._segments(parts, window, written[row].language, spoken.get(row))
                reached_s = parts[-1].end_s if parts else window.length_s
                if 0 < reached_s < window.length_s - MISSED_S and not steady((rest := window.after(reached_s)).x_T):
                    later.append((index, rest))
            todo = later
        return out

    def _segments(self, parts: Sequence[_Part], window: Window, language: str, spoken: list[list[Spoken]] | None) -> Iterator[Heard]:
        for place, part in enumerate(parts):
            text = self.tokenizer.decode(part.tokens)
            if not text.strip():
                continue
            start_s, end_s = window.time(part.start_s, late=True), window.time(part.end_s)
            words = tuple(
                Word(round(window.time(word.start_s, late=True), 3), round(window.time(word.end_s), 3), word.text, round(word.probability, 4))
                for word in spoken[place]) if spoken is not None else ()
            if words:
                start_s, end_s = words[0].start_s, max(words[-1].end_s, words[0].start_s)
            yield Heard(round(start_s, 3), round(max(end_s, start_s), 3), text, words, language)

    def _words(self, model: ModelNet, features_BSD: torch.Tensor, todo: Sequence[tuple[int, Window]], written: Sequence[Written],
               kept: Sequence[int], translate: bool) -> dict[int, list[list[Spoken]]]:
        """Words of each part of each kept row."""
        decode, marks = self.tokenizer.decode, self.marks
        parts = {row: _parts(written[row].tokens, marks, todo[row][1].length_s) for row in kept}
        kept = [row for row in kept if parts[row]]
        if not kept:
            return {}
        split = {row: [split_words(part.tokens, decode, "en" if translate else written[row].language) for part in parts[row]] for row in kept}
        found = time_words(
            model, features_BSD[kept], [[marks.start, *marks.prompt(written[row].language, translate), marks.no_times] for row in kept],
            [[token for part in parts[row] for token in part.tokens] for row in kept], marks.end,
            [todo[row][1].length_s for row in kept], [[word for words in split[row] for word in words] for row in kept])
        out = {}
        for row, spoken in zip(kept, found, strict=True):
            each = iter(spoken)
            out[row] = [[next(each) for _ in words] for words in split[row]]
            if written[row].language in NO_SPACES and not translate:
                out[row] = [by_character(words) for words in out[row]]
        return out


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
