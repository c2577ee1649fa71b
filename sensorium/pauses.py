"""Pauses: where somebody speaks in a recording, so that silence is neither worked on nor written down.

    samples -> 32 ms pieces, each with the end of the one before -> how likely it is speech -> spans of speech

Letters: T samples, N pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium import catalog
from sensorium.spec import Spec
from sensorium.types import CheckpointError, ConfigError

__all__ = ["find_quiet", "find_speech", "loudness", "open_finder", "Pauses", "RATE_HZ", "Span", "SpanMaker", "SpeechFinder", "STEP"]

RATE_HZ = 16_000
STEP = 512
"""Samples of one piece."""
_PIECE_S = STEP / RATE_HZ
_SMOOTH = 7  # pieces over which a quiet place is quiet, a fifth of a second
SILENT = 1e-8  # mean square below which nothing sounds, 80 dB below full scale
QUIET = 1e-3  # of the power of the loudest pieces
BEFORE = 64  # samples of the piece before that the model also sees

Span = tuple[float, float]
"""Start and end in seconds."""


@dataclass(frozen=True, repr=False)
class Pauses(Spec):
    """When speech begins and ends.

    Args:
        threshold: speech begins at this probability.
        leave: and ends below this one; lower, so that a weak syllable does not end it.
        min_speech_s: a shorter sound is no speech (a click, a cough).
        min_silence_s: a shorter pause does not end the speech.
        pad_s: what is kept around speech; a first consonant is soft.
        longest_s: longer speech is cut at the quietest place of its last third.
    """

    threshold: float = 0.5
    leave: float = 0.35
    min_speech_s: float = 0.1
    min_silence_s: float = 0.3
    pad_s: float = 0.4
    longest_s: float = 29.0

    def check(self) -> list[str]:
        good = 0 < self.leave <= self.threshold < 1
        problems = [] if good else [f"leave {self.leave} and threshold {self.threshold}, wanted 0 < leave <= threshold < 1"]
        if min(self.min_speech_s, self.min_silence_s, self.pad_s) < 0 or self.longest_s < 1:
            problems.append("a length in seconds is negative, or the longest below 1 s; wanted more")
        return problems


class SpeechFinder:
    """Silero's voice detector over a stream of samples.

    Args:
        path: model.onnx.

    Raises:
        CheckpointError: not that model.
    """

    def __init__(self, path: Path) -> None:
        self._session = _session(path)
        self._rate = np.array(RATE_HZ, dtype=np.int64)
        self.restart()

    def restart(self) -> None:
        """Forget what was heard."""
        self._state = np.zeros((2, 1, 128), dtype=np.float32)
        self._heard = np.zeros(BEFORE, dtype=np.float32)  # the last samples of the piece before, and those that make no whole piece yet

    def push(self, x_T: torch.Tensor) -> np.ndarray:
        """Float samples at 16 kHz -> probabilities (N,) of the pieces they complete."""
        samples = np.concatenate([self._heard, x_T.numpy()])
        pieces = (len(samples) - BEFORE) // STEP
        out = np.empty(pieces, dtype=np.float32)
        for index in range(pieces):
            given = {"input": samples[None, index * STEP : (index + 1) * STEP + BEFORE], "state": self._state, "sr": self._rate}
            found, self._state = self._session.run(None, given)
            out[index] = found[0, 0]
        self._heard = samples[pieces * STEP :]
        return out


@lru_cache(maxsize=1)
def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 (the library's errors have no other parent)
        raise CheckpointError(f"{path} is not an ONNX model that can be read ({str(error)[:80]}); fetch silero-vad again") from error
    inputs = {value.name for value in session.get_inputs()}
    if inputs != {"input", "state", "sr"}:
        raise CheckpointError(f"{path} has the inputs {sorted(inputs)}, wanted input, sr and state; fetch silero-vad again")
    return session


def open_finder(folder: Path | None = None) -> SpeechFinder | None:
    """The voice detector, or None if its weights are not at hand (then nothing can be skipped).

    Args:
        folder: holds model.onnx; None is the catalog's.
    """
    if folder is None:
        if not catalog.ready("silero-vad"):
            return None
        folder = catalog.place("silero-vad")
    if not (folder / "model.onnx").is_file():
        raise ConfigError(f"{folder} has no model.onnx; run `sensorium pull silero-vad`, or give its folder")
    return SpeechFinder(folder / "model.onnx")


def loudness(x_T: torch.Tensor) -> np.ndarray:
    """Mean square of each whole piece, (N,)."""
    return x_T[: len(x_T) // STEP * STEP].reshape(-1, STEP).square().mean(dim=1).numpy()


def find_quiet(x_T: torch.Tensor, shortest_s: float = 1.0) -> list[Span]:
    """Where float (T,) samples at 16 kHz are quiet for long: 30 dB below the loudest twentieth. No detector is needed, but a quiet room."""
    level_N = loudness(x_T)
    if not len(level_N):
        return []
    quiet_N = np.concatenate([[False], level_N <= np.quantile(level_N, 0.95) * QUIET, [False]])
    edges = np.flatnonzero(quiet_N[1:] != quiet_N[:-1]) * _PIECE_S
    return [(float(start), float(end)) for start, end in edges.reshape(-1, 2) if end - start >= shortest_s]


def find_speech(blocks: Iterable[torch.Tensor], finder: SpeechFinder | None, pauses: Pauses | None = None) -> Iterator[Span]:
    """Spans of speech in a stream of float (T,) blocks at 16 kHz, each as soon as it has ended.

    Args:
        finder: None takes everything that sounds for speech, so that the spans are mostly cuts at quiet places.
    """
    spans = SpanMaker(finder, pauses or Pauses())
    for block in blocks:
        yield from spans.push(block)
    yield from spans.finish()


class SpanMaker:
    """Samples in, padded spans out. A span comes out when it is known how much of the pause after it belongs to the next one.

        speech        ____#########____###___________________########################...
        spans         __[-##########--####--]______________[-##########]...        at the longest, cut where it is quietest
    """

    def __init__(self, finder: SpeechFinder | None, pauses: Pauses) -> None:
        self._finder, self._pauses = finder, pauses
        if finder is not None:
            finder.restart()
        self._rest = torch.zeros(0)  # samples that make no whole piece yet
        self._place = self._samples = 0  # pieces and samples heard
        self._start: int | None = None  # where the speech going on began
        self._quiet: int | None = None  # where it may have ended
        self._last: tuple[int, int] | None = None  # ended, not yet given out
        self._from_s = 0.0  # nothing before this is given out again
        self._levels: deque[float] = deque(maxlen=max(int(pauses.longest_s / 3 / _PIECE_S), 1))  # of the newest third of the longest speech

    @property
    def since_s(self) -> float:
        """Samples from here on may still be part of a span; older ones are not."""
        places = [place for place in (self._place, self._start, self._last and self._last[0]) if place is not None]
        return max(min(places) * _PIECE_S - self._pauses.pad_s, 0.0)

    def push(self, x_T: torch.Tensor) -> list[Span]:
        """The spans that these samples decide."""
        self._samples += len(x_T)
        whole = torch.cat([self._rest, x_T])
        self._rest = whole[len(whole) // STEP * STEP :].clone()
        levels = loudness(whole)
        probabilities = (levels > SILENT).astype(np.float32) if self._finder is None else self._finder.push(x_T)
        out: list[Span] = []
        for probability, level in zip(probabilities.tolist(), levels.tolist(), strict=True):
            out += self._step(probability, level)
        if self._last is not None and self._start is None and (self._place - self._last[1]) * _PIECE_S > 2 * self._pauses.pad_s:
            out.append(self._padded(self._last[1] * _PIECE_S + self._pauses.pad_s))
        return out

    def finish(self) -> list[Span]:
        """The rest, at the end of the recording."""
        end_s = self._samples / RATE_HZ
        out = self.push(torch.zeros(-self._samples % STEP))
        if self._start is not None:
            out += self._end(self._place if self._quiet is None else self._quiet, short=True)
        if self._last is not None:
            out.append(self._padded(self._last[1] * _PIECE_S + self._pauses.pad_s))
        return [(start, min(end, end_s)) for start, end in out if start < end_s]

    def _step(self, probability: float, level: float) -> list[Span]:
        out = []
        self._levels.append(level)
        if probability >= self._pauses.threshold:
            self._quiet = None
            if self._start is None:
                self._start = self._place
        elif self._start is not None and probability < self._pauses.leave:
            self._quiet = self._place if self._quiet is None else self._quiet
            if (self._place - self._quiet) * _PIECE_S >= self._pauses.min_silence_s:
                out = self._end(self._quiet)
        self._place += 1
        if self._start is not None and (self._place - self._start) * _PIECE_S >= self._pauses.longest_s:
            level_N = np.convolve(np.array(self._levels), np.ones(_SMOOTH) / _SMOOTH, mode="valid")
            cut = self._place - len(self._levels) + int(level_N.argmin()) + _SMOOTH // 2
            out = out + self._end(cut)
            self._start = cut
        return out

    def _end(self, place: int, short: bool = False) -> list[Span]:
        """The speech going on ends at ``place``; gives out the span before it."""
        start, self._start, self._quiet = self._start, None, None
        if (place - start) * _PIECE_S < self._pauses.min_speech_s and not (short and self._finder is None):
            return []
        out = []
        if self._last is not None:
            between_s = (start - self._last[1]) * _PIECE_S
            out.append(self._padded(self._last[1] * _PIECE_S + min(self._pauses.pad_s, between_s / 2)))
        self._last = (start, place)
        return out

    def _padded(self, end_s: float) -> Span:
        span = (max(self._last[0] * _PIECE_S - self._pauses.pad_s, self._from_s), end_s)
        self._from_s, self._last = end_s, None
        return span
