"""Speaking: text, whole or as it is written, becomes sound a sentence at a time.

    text or pieces of text -> sentences -> words as read aloud -> clauses -> Kokoro (or espeak-ng) -> trimmed, levelled Audio

Kokoro runs through onnxruntime when its folder is at hand; otherwise espeak-ng speaks, and the speaker's name and `about` say so.
Pieces of sound begin and end in silence, so they can be played one after the other or joined end to end.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sensorium import catalog
from sensorium.codecs import english, espeak, mandarin
from sensorium.codecs.phonemes import MOST, ids, phonemes, sounding
from sensorium.codecs.sentences import clauses, language, plain, sentences
from sensorium.types import Audio, CheckpointError, ConfigError, MediaError

__all__ = ["join", "open_speaker", "Speaker", "Voice"]

KOKORO = "kokoro-82m"
SLOWEST, FASTEST = 0.5, 2.0
LONG, FIRST = 300, 37  # phonemes in one go: of any piece, and of the first one, which somebody waits for
_LANGUAGES = {"a": "en-us", "b": "en-gb", "z": "zh"}  # the first letter of a voice's name
_DEFAULTS = {"en": "af_heart", "zh": "zf_xiaoxiao"}
_PAUSES_S = {".!?。！？": 0.45, "…—": 0.3, ",;:，；：、)）": 0.16}  # silence after a piece, by its last mark
_JOINED_S = 0.05  # between pieces of one clause
_LEVEL, _LOUDEST = 0.1, 0.95  # root mean square of what is spoken, and the largest sample
_LOADING = threading.Lock()
_TYPES = {"tensor(int64)": np.dtype(np.int64), "tensor(int32)": np.dtype(np.int32), "tensor(float)": np.dtype(np.float32),
          "tensor(float16)": np.dtype(np.float16), "tensor(double)": np.dtype(np.float64)}
_FRAME_S, _QUIET, _LEAD_S, _TAIL_S = 0.01, 0.02, 0.03, 0.06


@dataclass(frozen=True)
class Voice:
    """A voice by name, the language it was trained on ("en-us", "en-gb" or "zh"), and "female" or "male" ("" if unknown)."""

    name: str
    language: str
    gender: str = ""


class _Engine(Protocol):
    """What turns words into sound."""

    name: str
    about: str
    voices: tuple[Voice, ...]
    defaults: dict[str, str]
    rate_hz: int

    def measure(self, words: str, voice: Voice) -> int: ...

    def say(self, words: str, voice: Voice, speed: float) -> torch.Tensor: ...

    def prepare(self) -> None: ...


class Speaker:
    """Something that reads text aloud; made by :func:`open_speaker`.

    `name` is "kokoro-82m" or "espeak-ng"; `about` says in a sentence which it is and why; `voices` are those it has by name, `rate_hz`
    its rate.
    """

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self.name, self.about, self.rate_hz = engine.name, engine.about, engine.rate_hz
        self.voices = {voice.name: voice for voice in engine.voices}

    def __repr__(self) -> str:
        return f"Speaker({self.name}, {len(self.voices)} voices)"

    def voice(self, name: str) -> Voice:
        """A voice by its name.

        Raises:
            ConfigError: there is none; names near ones.
        """
        if name not in self.voices:
            near = difflib.get_close_matches(name.lower(), self.voices, n=4, cutoff=0.4) or list(self.voices)[:8]
            raise ConfigError(f"no voice {name!r}; near it: {', '.join(near)} ({len(self.voices)} in all). This is {self.about}")
        return self.voices[name]

    def speak(self, text: str, voice: str | None = None, speed: float = 1.0) -> Iterator[Audio]:
        """Read a text aloud; see :meth:`speak_stream`."""
        return self.speak_stream([text], voice, speed)

    def speak_stream(self, pieces: Iterable[str], voice: str | None = None, speed: float = 1.0) -> Iterator[Audio]:
        """Read aloud a text that arrives in pieces, each sentence as soon as it is whole.

        Args:
            voice: one of `voices`; None takes the default voice of each sentence's language.
            speed: 0.5 to 2; 1 is the voice's own.

        Returns:
            Pieces of sound in order: a sentence, or a clause of a long one. Each ends in the silence that belongs after it; its
            `info` holds speaker, voice, speed and text.

        Raises:
            ConfigError: no such voice, or a speed out of range.
            MediaError: nothing in the text can be said (raised while the result is read).
        """
        chosen = self.voice(voice) if voice is not None else None
        if not SLOWEST <= speed <= FASTEST:
            raise ConfigError(f"speed {speed} is out of range; take {SLOWEST} to {FASTEST}, 1 is the voice's own")
        return self._speak(pieces, chosen, speed)

    def _speak(self, pieces: Iterable[str], chosen: Voice | None, speed: float) -> Iterator[Audio]:
        loading = threading.Thread(target=self._engine.prepare)  # while the first sentence is being written
        loading.start()
        try:
            yield from self._said(pieces, chosen, speed)
        finally:
            loading.join()  # a process that ends under a library which is still loading is aborted

    def _said(self, pieces: Iterable[str], chosen: Voice | None, speed: float) -> Iterator[Audio]:
        first, seen = True, ""
        for sentence in sentences(pieces):
            seen = seen or sentence
            said = plain(sentence)
            tongue = language(said)
            voice = chosen or self.voice(self._engine.defaults[tongue])
            words = mandarin.spoken(said) if tongue == "zh" else english.spoken(said, "en-gb" if voice.language == "en-gb" else "en-us")
            for clause in clauses(words, LONG, lambda part, voice=voice: self._engine.measure(part, voice), FIRST if first else None):
                wave = self._engine.say(clause, voice, speed) if self._engine.measure(clause, voice) else torch.zeros(0)
                wave = _settle(wave, self.rate_hz, _pause_s(clause) / speed)
                if wave.numel():
                    first = False
                    yield Audio(wave, {"speaker": self.name, "voice": voice.name, "speed": speed, "text": clause}, self.rate_hz)
        if first:
            raise MediaError(f"there is nothing to say in {seen[:60]!r}; give it words in English or Chinese, or numbers")


class _Kokoro:
    """Kokoro 1.0 through onnxruntime: phonemes and a voice's style in, 24 kHz out."""

    name, rate_hz = KOKORO, 24_000
    defaults = _DEFAULTS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = "Kokoro 82M, a natural voice in English and Mandarin (Apache-2.0)"
        names = sorted(path.stem for path in (folder / "voices").glob("*.bin"))
        self.voices = tuple(Voice(name, _LANGUAGES[name[0]], "female" if name[1:2] == "f" else "male")
                            for name in names if name[0] in _LANGUAGES)
        if not (folder / "model.onnx").is_file() or not self.voices:
            raise ConfigError(f"{folder} holds no Kokoro: wanted model.onnx and voices/NAME.bin; get them with: sensorium pull {KOKORO}")
        have = {voice.name for voice in self.voices}
        self.defaults = {tongue: name if name in have else self._of(tongue) for tongue, name in _DEFAULTS.items()}

    def _of(self, tongue: str) -> str:
        return next((voice.name for voice in self.voices if voice.language.startswith(tongue)), self.voices[0].name)

    def _phonemes(self, words: str, voice: Voice) -> str:
        return phonemes(words, "en-gb" if voice.language == "en-gb" else "en-us")

    def measure(self, words: str, voice: Voice) -> int:
        """How many phonemes; 0 if there is nothing but punctuation."""
        return sounding(self._phonemes(words, voice))

    def prepare(self) -> None:
        """Load the model, once in this process; what is wrong with it is said when it speaks."""
        with contextlib.suppress(ConfigError, CheckpointError):
            _open_session(self.folder / "model.onnx", torch.get_num_threads())

    def say(self, words: str, voice: Voice, speed: float) -> torch.Tensor:
        """(T,) float32 as the model gives it."""
        number = ids(self._phonemes(words, voice))[:MOST]
        session, inputs = _open_session(self.folder / "model.onnx", torch.get_num_threads())
        style = _style(self.folder / "voices" / f"{voice.name}.bin")
        given = (np.array([[0, *number, 0]]), style[len(number) - 1], np.array([speed]))
        values = {name: value.astype(kind) for (name, kind), value in zip(inputs.items(), given, strict=True)}
        if float(values["speed"][0]) != np.float32(speed):
            raise ConfigError(f"this Kokoro takes whole speeds alone, and was given {speed}; take 1 or 2, or fetch another: sensorium pull {KOKORO}")
        return torch.from_numpy(np.asarray(session.run(None, values)[0], dtype=np.float32).reshape(-1).copy())


class _Espeak:
    """espeak-ng's own voice: clear, robotic, tiny."""

    name = "espeak-ng"
    voices = (Voice("en-us", "en-us"), Voice("en-gb", "en-gb"), Voice("cmn", "zh"))
    defaults = {"en": "en-us", "zh": "cmn"}

    def __init__(self, why: str) -> None:
        self.about = f"espeak-ng, a plain voice, because {why}"
        self.rate_hz = espeak.rate()

    def measure(self, words: str, voice: Voice) -> int:
        """How many letters; 0 if there is nothing but punctuation."""
        return len(words) if any(letter.isalnum() for letter in words) else 0

    def prepare(self) -> None:
        """Nothing to do: it is small, and already open."""

    def say(self, words: str, voice: Voice, speed: float) -> torch.Tensor:
        """(T,) float32."""
        return espeak.waveform(words, voice.name, speed)


def open_speaker(folder: str | Path | None = None) -> Speaker:
    """The best speaker at hand: Kokoro if its weights and onnxruntime are here, else espeak-ng; its name says which.

    Args:
        folder: of Kokoro's model.onnx and voices/; None asks the catalog.

    Raises:
        ConfigError: the folder given holds no Kokoro; or neither Kokoro nor espeak-ng is at hand.
    """
    if folder is not None:
        return Speaker(_Kokoro(Path(folder)))
    if not catalog.ready(KOKORO):
        return Speaker(_Espeak(f"{KOKORO} is not at hand; get it with: sensorium pull {KOKORO}"))
    if importlib.util.find_spec("onnxruntime") is None:
        return Speaker(_Espeak(f"{KOKORO} needs onnxruntime; get it with: pip install onnxruntime"))
    return Speaker(_Kokoro(catalog.find(KOKORO)))


def join(pieces: Iterable[Audio]) -> Audio:
    """Pieces of one speaker's sound end to end.

    Raises:
        MediaError: there are none, or their rates differ.
    """
    pieces = list(pieces)
    rates = {piece.rate_hz for piece in pieces}
    if len(rates) != 1:
        raise MediaError(f"cannot join {len(pieces)} pieces of sound with rates {sorted(rates, key=str)}; join pieces of one speaker")
    info: dict[str, Any] = pieces[0].info | {"text": " ".join(piece.info.get("text", "") for piece in pieces)}
    return Audio(torch.cat([piece.source for piece in pieces]), info, rates.pop())


@lru_cache(maxsize=2)
def _session(path: Path, threads: int) -> tuple[Any, dict[str, np.dtype]]:
    """The loaded model, and the types of its inputs by name in the order phonemes, style, speed.

    The first one's name differs between exports, and so do types: some take the speed as int32.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("Kokoro runs through onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads that spin starve whoever writes the text
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (the library's errors have no other parent)
        raise CheckpointError(f"{path} is not an ONNX model that can be read ({str(error)[:80]}); fetch it again: sensorium pull {KOKORO}") from error
    types = {value.name: _TYPES.get(value.type) for value in session.get_inputs()}
    if len(types) != 3 or list(types)[1:] != ["style", "speed"] or None in types.values():
        inputs = ", ".join(f"{value.name} ({value.type})" for value in session.get_inputs())
        raise CheckpointError(f"{path} has the inputs {inputs}, wanted phonemes, style and speed in numbers; fetch it again: sensorium pull {KOKORO}")
    return session, types


def _open_session(path: Path, threads: int) -> tuple[Any, dict[str, np.dtype]]:
    with _LOADING:
        return _session(path, threads)


@lru_cache(maxsize=64)
def _style(path: Path) -> np.ndarray:
    """A voice: (510, 1, 256) float32, a style for each number of phonemes."""
    values = np.fromfile(path, dtype=np.float32)
    if values.size != MOST * 256 or not np.isfinite(values).all():
        raise ConfigError(f"{path} is not a voice: wanted {MOST} x 256 float32 numbers, got {values.size}; sensorium pull {KOKORO}")
    return values.reshape(MOST, 1, 256)


def _pause_s(text: str) -> float:
    last = text.rstrip("\"'”’」』》) ")[-1:] or " "
    return next((pause for marks, pause in _PAUSES_S.items() if last in marks), _JOINED_S)


def _settle(wave: torch.Tensor, rate_hz: int, pause_s: float) -> torch.Tensor:
    """Silence at the ends trimmed, edges faded to nothing, levelled, and followed by its pause; empty if it is silent throughout."""
    frame = round(_FRAME_S * rate_hz)
    if wave.numel() < 2 * frame:
        return torch.zeros(0)
    power = wave[: wave.numel() // frame * frame].reshape(-1, frame).square().mean(dim=1).sqrt()
    loud = (power > max(_QUIET * float(power.max()), 1e-4)).nonzero().flatten()
    if not loud.numel():
        return torch.zeros(0)
    start = max(int(loud[0]) * frame - round(_LEAD_S * rate_hz), 0)
    end = min((int(loud[-1]) + 1) * frame + round(_TAIL_S * rate_hz), wave.numel())
    level = float(power[loud].square().mean().sqrt())
    wave = wave[start:end] * min(max(_LEVEL / level, 0.5), 2.0)
    wave = wave * min(1.0, _LOUDEST / float(wave.abs().max()))
    ramp = torch.linspace(0, 1, min(frame, wave.numel() // 2))
    wave[: ramp.numel()] *= ramp
    wave[-ramp.numel():] *= ramp.flip(0)
    return torch.cat([wave, torch.zeros(round(pause_s * rate_hz))])
