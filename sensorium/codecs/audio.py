"""Audio codec: sound files to samples and back, and the log-mel picture that speech models look at.

    file -> pieces of its channels (tracks) -> one channel (channels) -> resampled (waves) -> samples
    samples -> short-time spectrum -> mel bins -> logarithm -> (M, F)
    samples -> file, whole or not at all

Letters: T samples, M mel bins, F frames, B batch.
"""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.codecs.channels import Downmix
from sensorium.codecs.tracks import Piece, Sound, Source, open_sound
from sensorium.codecs.waves import RATES_HZ, Resampler, check_rate, log_mel
from sensorium.files import read_note, write_file
from sensorium.spec import Spec
from sensorium.types import Audio, MediaError

__all__ = ["AudioCodec", "load_audio", "read_sound_info", "save_audio", "sound_length", "sound_track", "stream_audio"]

LOUDEST = 16.0  # a float file may go past 1; past this it was never scaled
ENDINGS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", "MPEG_LAYER_III")}


def load_audio(audio: Source, rate_hz: int = 16_000, limit_s: float = 3_600.0) -> torch.Tensor:
    """Decode a whole sound.

    Args:
        audio: path, encoded bytes, an Audio of either (or a Video with sound), or an Audio of a float (T,) tensor with its rate.
        rate_hz: samples a second wanted.
        limit_s: longer sounds are refused as soon as that is known; an hour at 16 kHz is 230 MB.

    Returns:
        float32 (T,), about -1..1.

    Raises:
        MediaError: missing, empty, broken, not a sound, of an absurd rate, not finite, or too long.
    """
    return torch.cat(list(stream_audio(audio, rate_hz, limit_s=limit_s)))


def stream_audio(audio: Source, rate_hz: int = 16_000, block_s: float = 30.0, limit_s: float = math.inf) -> Iterator[torch.Tensor]:
    """Decode a sound of any length in bounded memory: the same samples as :func:`load_audio`, ``block_s`` seconds at a time.

    Args:
        audio, rate_hz, limit_s: as in :func:`load_audio`.
        block_s: length of each block but the last.

    Yields:
        float32 (T,).
    """
    check_rate(rate_hz, "the rate asked for")
    size, left = max(int(block_s * rate_hz), 1), limit_s * rate_hz
    with ExitStack() as stack:
        sound = open_sound(audio, stack)
        if sound.length_s > limit_s:
            raise _too_long(sound.name, limit_s)
        waiting: list[torch.Tensor] = []
        count = 0
        for piece in _resampled(sound, rate_hz):
            waiting.append(piece)
            count, left = count + len(piece), left - len(piece)
            if left < 0:
                raise _too_long(sound.name, limit_s)
            while count >= size:
                whole = torch.cat(waiting)
                yield whole[:size].clone()
                waiting, count = [whole[size:]], count - size
        if count:
            yield torch.cat(waiting)


def sound_length(audio: Source) -> float:
    """Seconds that a sound says it lasts; 0 if it does not say.

    Raises:
        MediaError: not a sound.
    """
    with ExitStack() as stack:
        return open_sound(audio, stack).length_s


def sound_track(audio: Source) -> str:
    """Which sound track is read, and which others there are, in words; "" if there is one only.

    Raises:
        MediaError: not a sound, or without the track asked for.
    """
    with ExitStack() as stack:
        return open_sound(audio, stack).chosen


def _too_long(name: str, limit_s: float) -> MediaError:
    return MediaError(f"{name} is longer than {limit_s:,.0f} s, which is as much as is read at once; cut it, or stream it")


def _resampled(sound: Sound, rate_hz: int) -> Iterator[torch.Tensor]:
    """One channel at the wanted rate, checked for sense."""
    samples, resampler, source_hz = 0, Resampler(sound.rate_hz, rate_hz), sound.rate_hz
    for mono_T, mono_hz in _mixed(sound.pieces):
        mono = torch.from_numpy(mono_T)
        samples += len(mono)
        if not torch.isfinite(mono).all():
            raise MediaError(f"{sound.name} holds samples that are not numbers; record or export it again")
        if len(mono) and float(mono.abs().max()) > LOUDEST:
            raise MediaError(f"{sound.name} holds samples of {float(mono.abs().max()):.3g}, wanted -1..1; divide them by their full scale")
        if mono_hz != source_hz:
            yield resampler.finish()
            resampler, source_hz = Resampler(mono_hz, rate_hz), mono_hz
        yield resampler.push(mono)
    if not samples:
        raise MediaError(f"{sound.name} has no samples; wanted a sound")
    yield resampler.finish()


def _mixed(pieces: Iterator[Piece]) -> Iterator[tuple[np.ndarray, int]]:
    """One channel (T,) and its rate; both the rate and the channels may change on the way."""
    for (speakers, rate_hz), alike in itertools.groupby(pieces, lambda piece: (piece.speakers, piece.rate_hz)):
        downmix = Downmix(speakers, rate_hz)
        for piece in alike:
            yield downmix.push(piece.x_CT), rate_hz
        yield downmix.finish(), rate_hz


@dataclass(frozen=True, repr=False)
class AudioCodec(Spec):
    """Sounds to log-mel arrays of one length.

    Args:
        rate_hz: samples a second.
        mels: M, mel bins.
        frames: F, ten milliseconds each; a shorter sound is followed by silence, a longer one is cut.
    """

    rate_hz: int = 16_000
    mels: int = 80
    frames: int = 3_000

    def check(self) -> list[str]:
        problems = [] if RATES_HZ[0] <= self.rate_hz <= RATES_HZ[1] else [f"rate_hz is {self.rate_hz}, wanted {RATES_HZ[0]} to {RATES_HZ[1]}"]
        return problems + ([] if self.mels > 0 and self.frames > 2 else [f"mels {self.mels} and frames {self.frames}, wanted more than 0 and 2"])

    @property
    def hop(self) -> int:
        """Samples a frame."""
        return self.rate_hz // 100

    @property
    def samples(self) -> int:
        """Samples of the whole array."""
        return self.frames * self.hop

    def encode(self, audio: Source) -> torch.Tensor:
        """A sound -> float32 (M, F)."""
        pieces, left = [], self.samples
        for block in stream_audio(audio, self.rate_hz, block_s=self.frames / 100):
            pieces.append(block[:left])
            left -= len(pieces[-1])
            if not left:
                break
        return self.encode_samples([torch.cat(pieces)])[0]

    def encode_samples(self, sounds: Sequence[torch.Tensor]) -> torch.Tensor:
        """Decoded samples (T,) at ``rate_hz`` each -> float32 (B, M, F)."""
        x_BT = torch.zeros(len(sounds), self.samples)
        for row, sound in zip(x_BT, sounds, strict=True):
            length = min(len(sound), self.samples)
            row[:length] = sound[:length]
        return log_mel(x_BT, self.rate_hz, self.mels, window=self.rate_hz // 40, hop=self.hop)


def save_audio(audio: Audio, path: str | Path) -> Path:
    """Write a sound in the format of the path's ending, whole or not at all; ``audio.info`` is written with it.

    Raises:
        MediaError: an ending that is not known, a sound that cannot be decoded, or a place that cannot be written.
    """
    import soundfile

    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise MediaError(f"{path.name!r} ends in {path.suffix!r}, wanted one of {', '.join(ENDINGS)}; choose another name")
    kind, coding = ENDINGS[path.suffix.lower()]
    with ExitStack() as stack:
        sound = open_sound(audio, stack)
        rate_hz, x_T = sound.rate_hz, torch.cat(list(_resampled(sound, sound.rate_hz)))
    buffer = io.BytesIO()
    try:
        with soundfile.SoundFile(buffer, "w", rate_hz, 1, coding, format=kind) as file:
            file.comment = json.dumps(audio.info)  # plain ASCII: not every format says which letters it holds
            file.write(x_T.clamp(-1, 1).numpy())
    except (soundfile.SoundFileError, ValueError) as error:
        raise MediaError(f"{path.name!r} cannot hold a sound of {rate_hz} samples a second ({str(error)[:80]}); use .wav or .flac") from error
    return write_file(path, buffer.getvalue())


def read_sound_info(path: str | Path) -> dict[str, Any]:
    """What made a sound, as :func:`save_audio` wrote it; {} if it says nothing."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            return read_note(file.comment)
    except (soundfile.SoundFileError, OSError) as error:
        raise MediaError(f"{path} is not a sound that can be read; wanted {', '.join(ENDINGS)}") from error
