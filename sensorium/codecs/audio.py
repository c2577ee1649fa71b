"""Audio codec: sound files to samples and back, and the log-mel picture that speech models look at.

    file -> its kind told by its first bytes -> decoded a block at a time -> one channel -> resampled -> samples
    samples -> short-time spectrum -> mel bins -> logarithm -> (M, F)
    samples -> file, whole or not at all

Letters: C channels, T samples, M mel bins, F frames, B batch.
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

from sensorium.codecs.waves import RATES_HZ, Resampler, check_rate, log_mel
from sensorium.files import hint, read_note, write_file
from sensorium.spec import Spec
from sensorium.types import Audio, Media, MediaError

__all__ = ["AudioCodec", "load_audio", "read_sound_info", "save_audio", "sound_length", "stream_audio"]

CHANNELS = 64
LOUDEST = 16.0  # a float file may go past 1; past this it was never scaled
CHUNK = 1 << 16  # samples decoded at a time
GAP_S = (0.2, 600.0)  # a recorder that stops in silence leaves holes in the time stamps; holes of this length are filled
BAD_PACKETS = 50
ENDINGS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", "MPEG_LAYER_III")}
MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"riff", b"caff")  # not mp3: its decoder there prints what it dislikes
CONTAINERS = ("matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,ogg,wav,w64,flac,mp3,aac,aiff,avi,asf,flv,mpegts,mpeg,amr,amrnb,amrwb,caf,au,ac3,eac3,"
              "ape,wv,tta,loas,adx")
SURROUND = {6: (1.0, 1.0, 1.414, 0.0, 0.707, 0.707), 8: (1.0, 1.0, 1.414, 0.0, 0.707, 0.707, 0.707, 0.707)}  # left right centre low, rest

Source = Audio | Media | str | Path | bytes | torch.Tensor


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
        sound = _open(audio, stack)
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
        return _open(audio, stack).length_s


def _too_long(name: str, limit_s: float) -> MediaError:
    return MediaError(f"{name} is longer than {limit_s:,.0f} s, which is as much as is read at once; cut it, or stream it")


@dataclass
class _Sound:
    """An opened sound: pieces are float32 (C, T) arrays."""

    name: str
    rate_hz: int
    pieces: Iterator[np.ndarray]
    length_s: float = 0.0


def _resampled(sound: _Sound, rate_hz: int) -> Iterator[torch.Tensor]:
    """One channel at the wanted rate, checked for sense."""
    samples = 0
    resampler = Resampler(sound.rate_hz, rate_hz)
    for piece in sound.pieces:
        mono = torch.from_numpy(_mono(piece))
        samples += len(mono)
        if not torch.isfinite(mono).all():
            raise MediaError(f"{sound.name} holds samples that are not numbers; record or export it again")
        if len(mono) and float(mono.abs().max()) > LOUDEST:
            raise MediaError(f"{sound.name} holds samples of {float(mono.abs().max()):.3g}, wanted -1..1; divide them by their full scale")
        yield resampler.push(mono)
    if not samples:
        raise MediaError(f"{sound.name} has no samples; wanted a sound")
    yield resampler.finish()


def _mono(piece_CT: np.ndarray) -> np.ndarray:
    channels = len(piece_CT)
    if channels == 1:
        return np.ascontiguousarray(piece_CT[0], dtype=np.float32)
    weight = np.array(SURROUND.get(channels, [1.0] * channels), dtype=np.float32)
    return (weight / weight.sum()) @ piece_CT


def _open(audio: Source, stack: ExitStack) -> _Sound:
    """Open by content, whatever the name says; ``stack`` closes it."""
    rate_hz = audio.rate_hz if isinstance(audio, Audio) else None
    source = audio.source if isinstance(audio, Media) else audio
    if isinstance(source, torch.Tensor):
        return _from_tensor(source, rate_hz)
    if not isinstance(source, (bytes, str, Path)):
        raise MediaError(f"a sound was given as {type(source).__name__}; wanted a path, bytes, or Audio(tensor, rate_hz=...)")
    if isinstance(source, bytes):
        name, file = "the sound", io.BytesIO(source)
    else:
        name, file = str(source)[:200], stack.enter_context(_file(Path(source)))
    head = file.read(16)
    file.seek(0)
    if not head:
        raise MediaError(f"{name} is empty; wanted a sound")
    sound = None
    if head.startswith(MAGIC):
        sound = _by_soundfile(name, file, stack)
    if sound is None:
        file.seek(0)
        sound = _by_av(name, file, stack)
    check_rate(sound.rate_hz, f"{name}'s rate")
    return sound


def _file(path: Path) -> Any:
    try:
        if not path.is_file():
            raise MediaError(f"{str(path)[:200]} is {'a folder' if path.is_dir() else 'missing'}; wanted a sound file{hint(path)}")
        return open(path, "rb")
    except (OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{str(path)[:200]!r} cannot be read ({str(error)[:80]}); wanted a sound file") from error


def _from_tensor(x_T: torch.Tensor, rate_hz: int | None) -> _Sound:
    if x_T.dim() != 1 or not x_T.is_floating_point():
        raise MediaError(f"a decoded sound has shape {tuple(x_T.shape)} and type {x_T.dtype}, wanted float (T,) in -1..1; "
                         "mix it down, or divide it by its full scale")
    if rate_hz is None:
        raise MediaError("a decoded sound came without its rate; give Audio(tensor, rate_hz=...)")
    check_rate(rate_hz, "the sound's rate")
    array = x_T.detach().cpu().float().numpy()
    return _Sound("the sound", rate_hz, (array[None, at : at + CHUNK] for at in range(0, len(array), CHUNK)), len(array) / rate_hz)


def _by_soundfile(name: str, file: Any, stack: ExitStack) -> _Sound | None:
    """Through libsndfile; None if it does not know this kind."""
    import soundfile

    try:
        opened = stack.enter_context(soundfile.SoundFile(_Nameless(file)))
    except (soundfile.SoundFileError, TypeError, RuntimeError):
        return None
    _check_channels(name, opened.channels)

    def pieces() -> Iterator[np.ndarray]:
        while True:
            try:
                block = opened.read(CHUNK, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise MediaError(f"{name} is broken {opened.tell() / opened.samplerate:.1f} s in ({str(error)[:80]}); get a whole copy") from error
            if not len(block):
                return
            yield block.T

    known = 0 < opened.frames < 1 << 48  # some kinds cannot say
    return _Sound(name, opened.samplerate, pieces(), opened.frames / max(opened.samplerate, 1) if known else 0.0)


class _Nameless:
    """A file without its name, so that nothing is told by its ending."""

    def __init__(self, file: Any) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell
        self.readinto = file.readinto

    def write(self, data: bytes) -> int:
        raise OSError("read only")


def _check_channels(name: str, channels: int) -> None:
    if not 1 <= channels <= CHANNELS:
        raise MediaError(f"{name} has {channels} channels, wanted 1 to {CHANNELS}; mix it down first")


def _by_av(name: str, file: Any, stack: ExitStack) -> _Sound:
    """Through FFmpeg's libraries: everything else, and the sound of films.

    The list of containers and the empty list of protocols keep a playlist from opening other files or addresses.
    """
    import av

    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
        container = stack.enter_context(av.open(file, mode="r", options=options, metadata_errors="ignore"))
        track = next(iter(container.streams.audio), None)
        if track is None:
            raise MediaError(f"{name} has no sound in it; wanted a sound, or a film with one")
        track.thread_type = "AUTO"
        frames = _frames(name, container, track)
        first = next(frames, None)
    except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{name} is not a sound that can be read ({str(error)[:80]}); wanted wav, flac, ogg, mp3, m4a, webm or the like") from error
    if first is None:
        raise MediaError(f"{name} has no samples; wanted a sound")
    rate = first.sample_rate
    _check_channels(name, len(first.layout.channels))
    start = (container.start_time or 0) / 1_000_000

    def pieces() -> Iterator[np.ndarray]:
        done = 0
        for frame in itertools.chain([first], frames):
            if frame.sample_rate != rate:
                raise MediaError(f"{name} changes its rate from {rate} to {frame.sample_rate} on the way; convert it first")
            array = _planar(frame)
            gap_s = 0.0 if frame.time is None else frame.time - start - done / rate
            if GAP_S[0] < gap_s < GAP_S[1]:
                yield np.zeros((len(array), int(gap_s * rate)), dtype=np.float32)
                done += int(gap_s * rate)
            done += array.shape[1]
            yield array

    length = 0.0 if container.duration is None else container.duration / 1_000_000
    return _Sound(name, rate, pieces(), length)


def _frames(name: str, container: Any, track: Any) -> Iterator[Any]:
    """Decoded frames; a packet that cannot be decoded is passed over, many are not."""
    import av

    bad = 0
    packets = container.demux(track)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except (av.FFmpegError, ValueError, OSError) as error:
            bad += 1
            if bad > BAD_PACKETS or not isinstance(error, av.InvalidDataError):
                raise MediaError(f"{name} is broken ({str(error)[:80]}); get a whole copy") from error


def _planar(frame: Any) -> np.ndarray:
    """A decoded frame as float32 (C, T)."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(frame.layout.channels)).T
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 128 - 1
    scale = {np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}.get(array.dtype, 1.0)
    return array.astype(np.float32) * np.float32(scale)


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
        sound = _open(audio, stack)
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
