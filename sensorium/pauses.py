"""Pauses: where somebody speaks in a recording, so that silence is neither worked on nor written down.

    samples -> 32 ms pieces, each with the end of the one before -> how likely it is speech -> spans of speech

Letters: T samples, N pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sensorium import catalog
from sensorium.spec import Spec
from sensorium.types import CheckpointError, ConfigError

__all__ = ["find_speech", "open_finder", "Pauses", "RATE_HZ", "Span", "SpeechFinder", "STEP"]

RATE_HZ = 16_000
STEP = 512
"""Samples of one piece."""
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
    """

    threshold: float = 0.5
    leave: float = 0.35
    min_speech_s: float = 0.1
    min_silence_s: float = 0.3
    pad_s: float = 0.2

    def check(self) -> list[str]:
        problems = [] if 0 < self.leave <= self.threshold < 1 else [f"leave {self.leave} and threshold {self.threshold}, wanted 0 < leave <= threshold < 1"]
        if min(self.min_speech_s, self.min_silence_s, self.pad_s) < 0:
            problems.append("a length in seconds is negative; wanted 0 or more")
        return problems


class SpeechFinder:
    """Silero's voice detector over a stream of samples.

    Args:
        path: model.onnx.

    Raises:
        CheckpointError: not that model.
    """

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 (the library's errors have no other parent)
            raise CheckpointError(f"{path} is not an ONNX model that can be read ({str(error)[:80]}); fetch silero-vad again") from error
        inputs = {value.name for value in self._session.get_inputs()}
        if inputs != {"input", "state", "sr"}:
            raise CheckpointError(f"{path} has the inputs {sorted(inputs)}, wanted input, sr and state; fetch silero-vad again")
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


def find_speech(blocks: Iterable[torch.Tensor], finder: SpeechFinder, pauses: Pauses | None = None) -> Iterator[Span]:
    """Spans of speech in a stream of float (T,) blocks at 16 kHz, each as soon as it has ended."""
    spans = SpanMaker(pauses or Pauses())
    finder.restart()
    samples = 0
    for block in blocks:
        samples += len(block)
        yield from spans.push(finder.push(block))
    yield from spans.push(finder.push(torch.zeros(-samples % STEP)))
    yield from spans.finish(samples / RATE_HZ)


class SpanMaker:
    """Probabilities in, padded spans out. A span comes out when the next one has begun, for they may share the pause between them."""

    def __init__(self, pauses: Pauses) -> None:
        self.pauses = pauses
        self.place = 0  # pieces heard
        self.start: int | None = None  # where the speech going on began
        self.quiet: int | None = None  # where it may have ended
        self.last: tuple[int, int] | None = None  # ended, not yet given out
        self._from_s = 0.0  # nothing before this is given out again

    @property
    def since_s(self) -> float:
        """Samples from here on may still be part of a span; older ones are not."""
        places = [place for place in (self.place, self.start, self.last and self.last[0]) if place is not None]
        return max(min(places) * STEP / RATE_HZ - self.pauses.pad_s, 0.0)

    def push(self, probability_N: np.ndarray) -> list[Span]:
        """The spans that these pieces end."""
        out = []
        for probability in probability_N.tolist():
            if probability >= self.pauses.threshold:
                self.quiet = None
                if self.start is None:
                    self.start = self.place
            elif self.start is not None and probability < self.pauses.leave:
                self.quiet = self.place if self.quiet is None else self.quiet
                if (self.place - self.quiet) * STEP >= self.pauses.min_silence_s * RATE_HZ:
                    out += self._end(self.quiet)
            self.place += 1
        if self.last is not None and self.start is None and self._seconds(self.place - self.last[1]) > 2 * self.pauses.pad_s:
            out.append(self._padded(self._seconds(self.last[1]) + self.pauses.pad_s))
        return out

    def finish(self, end_s: float) -> list[Span]:
        """The rest, at the end of the recording."""
        out = [] if self.start is None else self._end(self.place if self.quiet is None else self.quiet)
        if self.last is not None:
            out.append(self._padded(min(self._seconds(self.last[1]) + self.pauses.pad_s, end_s)))
        return out

    def _seconds(self, pieces: int) -> float:
        return pieces * STEP / RATE_HZ

    def _end(self, place: int) -> list[Span]:
        """The speech going on ends at ``place``; gives out the span before it."""
        start, self.start, self.quiet = self.start, None, None
        if (place - start) * STEP < self.pauses.min_speech_s * RATE_HZ:
            return []
        out = []
        if self.last is not None:
            between = self._seconds(start - self.last[1])
            out.append(self._padded(self._seconds(self.last[1]) + min(self.pauses.pad_s, between / 2)))
        self.last = (start, place)
        return out

    def _padded(self, end_s: float) -> Span:
        span = (max(self._seconds(self.last[0]) - self.pauses.pad_s, self._from_s), end_s)
        self._from_s, self.last = end_s, None
        return span
