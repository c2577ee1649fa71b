"""Tracks: a sound file, or a film with sound, opened: told by its first bytes, one track chosen, decoded piece by piece.

    file -> libsndfile (one or two channels) or FFmpeg (all else) -> the track meant -> pieces that know their rate and their speakers

Letters: C channels, T samples.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sensorium.codecs.channels import speakers_of
from sensorium.codecs.ffmpeg import SOUNDS, open_container
from sensorium.codecs.waves import check_rate
from sensorium.files import open_file
from sensorium.languages import code_of
from sensorium.types import Audio, Media, MediaError

__all__ = ["open_sound", "Piece", "Sound", "Source"]

CHANNELS = 64
CHUNK = 1 << 16  # samples decoded at a time
GAP_S = (0.2, 600.0)  # a recorder that stops in silence leaves holes in the time stamps; holes of this length are filled
LATE_S = 21_600.0  # longer ones too, up to this, if the file says that it lasts so long: the sound of a film may start late
BAD_PACKETS = 50
PLANES = 8  # of a frame with as many, PyAV 18.1.0 counts one plane too much: it is taken interleaved
MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"riff", b"caff", b"NIST_1A",
         b"Creative Voice")  # not mp3: its decoder there prints what it dislikes
ASIDE = ("comment", "visual_impaired", "hearing_impaired", "karaoke", "clean_effects", "descriptions", "lyrics")
"""What a track is for, where it is not the film's own sound."""

Source = Audio | Media | str | Path | bytes | torch.Tensor


@dataclass(frozen=True)
class Piece:
    """Decoded samples: float32 (C, T), samples a second, and the channels' speakers as FFmpeg names them."""

    x_CT: np.ndarray
    rate_hz: int
    speakers: tuple[str, ...]


@dataclass(frozen=True)
class Sound:
    """An opened sound; rate_hz is that of its beginning, length_s is 0 where it does not say, chosen says which of several tracks it is."""

    name: str
    rate_hz: int
    pieces: Iterator[Piece]
    length_s: float = 0.0
    chosen: str = ""


def open_sound(audio: Source, stack: ExitStack) -> Sound:
    """Open by content, whatever the name says.

    Args:
        audio: path, encoded bytes, an Audio or Video of either, or an Audio of a float (T,) tensor with its rate.
        stack: closes it.

    Raises:
        MediaError: missing, empty, not a sound, without the track asked for, or of an absurd rate.
    """
    rate_hz, track = (audio.rate_hz, audio.track) if isinstance(audio, Audio) else (None, None)
    source = audio.source if isinstance(audio, Media) else audio
    if isinstance(source, torch.Tensor):
        return _from_tensor(source, rate_hz)
    if not isinstance(source, (bytes, str, Path)):
        raise MediaError(f"a sound was given as {type(source).__name__}; wanted a path, bytes, or Audio(tensor, rate_hz=...)")
    if isinstance(source, bytes):
        name, file = "the sound", io.BytesIO(source)
    else:
        name, file = str(source)[:200], stack.enter_context(open_file(source, "a sound file"))
    head = file.read(16)
    if not head:
        raise MediaError(f"{name} is empty; wanted a sound")
    links = _links(file) if head.startswith(b"OggS") else []
    if len(links) < 2:
        sound = _by_content(name, file, head, stack, track)
    else:
        sounds = [_by_content(f"{name}, part {number} of {len(links)},", link, head, stack, track) for number, link in enumerate(links, 1)]
        pieces = itertools.chain.from_iterable(one.pieces for one in sounds)
        sound = replace(sounds[0], name=name, pieces=pieces, length_s=sum(one.length_s for one in sounds))
    check_rate(sound.rate_hz, f"{name}'s rate")
    return sound


def _by_content(name: str, file: Any, head: bytes, stack: ExitStack, track: int | str | None) -> Sound:
    file.seek(0)
    sound = _by_soundfile(name, file, stack) if head.startswith(MAGIC) and track is None else None
    if sound is None:
        file.seek(0)
        sound = _by_av(name, file, stack, track)
    return sound


class _Link:
    """A stretch of a file as a file: one of the Ogg streams that a recording of a radio station has one after the other."""

    def __init__(self, file: Any, start: int, end: int) -> None:
        self._file, self._start, self._length, self._place = file, start, end - start, 0

    def seek(self, place: int, whence: int = 0) -> int:
        self._place = max(place + (0, self._place, self._length)[whence], 0)
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, count: int = -1) -> bytes:
        left = max(self._length - self._place, 0)
        self._file.seek(self._start + self._place)
        data = self._file.read(left if count < 0 else min(count, left))
        self._place += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _links(file: Any) -> list[_Link]:
    """The streams of a chained Ogg file, of which libsndfile 1.2.2 reads the first and FFmpeg 8.0 those that are like it.

    A page that begins a stream, after one that does not, begins a link. Source: RFC 3533, sections 4 and 6.
    """
    starts, place, inside = [0], 0, False
    file.seek(0)
    while (page := file.read(27)).startswith(b"OggS") and len(page) == 27:
        begins = bool(page[5] & 2)
        if begins and inside:
            starts.append(place)
        inside = not begins
        place += 27 + page[26] + sum(file.read(page[26]))
        file.seek(place)
    end = file.seek(0, 2)
    return [_Link(file, start, after) for start, after in zip(starts, [*starts[1:], end], strict=True)]


def _from_tensor(x_T: torch.Tensor, rate_hz: int | None) -> Sound:
    if x_T.dim() != 1 or not x_T.is_floating_point():
        raise MediaError(f"a decoded sound has shape {tuple(x_T.shape)} and type {x_T.dtype}, wanted float (T,) in -1..1; "
                         "mix it down, or divide it by its full scale")
    if rate_hz is None:
        raise MediaError("a decoded sound came without its rate; give Audio(tensor, rate_hz=...)")
    check_rate(rate_hz, "the sound's rate")
    array = x_T.detach().cpu().float().numpy()
    pieces = (Piece(array[None, at : at + CHUNK], rate_hz, speakers_of(1)) for at in range(0, len(array), CHUNK))
    return Sound("the sound", rate_hz, pieces, len(array) / rate_hz)


def _by_soundfile(name: str, file: Any, stack: ExitStack) -> Sound | None:
    """Through libsndfile; None if it does not know this kind, or where the order of the channels would be a guess.

    libsndfile 1.2.2 gives more than two channels in the order of the codec (Vorbis: left, centre, right ...) and does not say which it is.
    """
    import soundfile

    try:
        opened = stack.enter_context(soundfile.SoundFile(_Nameless(file)))
    except (soundfile.SoundFileError, TypeError, RuntimeError):
        return None
    _check_channels(name, opened.channels)
    if opened.channels > 2 or not opened.frames:  # a recorder that was cut off leaves a length of 0, which FFmpeg passes over
        return None

    def pieces() -> Iterator[Piece]:
        while True:
            try:
                block = opened.read(CHUNK, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                raise MediaError(f"{name} is broken {opened.tell() / opened.samplerate:.1f} s in ({str(error)[:80]}); get a whole copy") from error
            if not len(block):
                return
            yield Piece(block.T, opened.samplerate, speakers_of(opened.channels))

    known = 0 < opened.frames < 1 << 48  # some kinds cannot say
    return Sound(name, opened.samplerate, pieces(), opened.frames / max(opened.samplerate, 1) if known else 0.0)


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


def _by_av(name: str, file: Any, stack: ExitStack, wanted: int | str | None) -> Sound:
    """Through FFmpeg's libraries: everything else, and the sound of films."""
    container = open_container(name, file, stack, SOUNDS)
    import av

    try:
        tracks = list(container.streams.audio)
        track = _choose(name, tracks, wanted)
        track.thread_type = "AUTO"
        frames = _frames(name, container, track)
        first = next(frames, None)
    except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{name} is not a sound that can be read ({str(error)[:80]}); wanted wav, flac, ogg, mp3, m4a, webm or the like") from error
    if first is None:
        raise MediaError(f"{name} has no samples; wanted a sound")
    length_s = 0.0 if container.duration is None else container.duration / 1_000_000
    start_s = (container.start_time or 0) / 1_000_000
    codec = track.codec_context.name
    pieces = _pieces(name, itertools.chain([first], frames), start_s, max(GAP_S[1], min(length_s, LATE_S)), codec)
    chosen = f"sound track {tracks.index(track) + 1} of {_listed(tracks)}" if len(tracks) > 1 else ""
    return Sound(name, first.sample_rate, pieces, length_s, chosen)


def _choose(name: str, tracks: list[Any], wanted: int | str | None) -> Any:
    """The track asked for, by number from 1 or by language; else the one that the file flags, and of several the first."""
    if not tracks:
        raise MediaError(f"{name} has no sound in it; wanted a sound, or a film with one")

    def rank(track: Any) -> tuple[bool, bool]:
        purposes = track.disposition
        aside = any(purpose in ASIDE for purpose in (flag.name for flag in type(purposes) if flag in purposes))
        return aside, type(purposes).default not in purposes

    ranked = sorted((track for track in tracks if track.codec_context is not None), key=rank) or tracks
    if wanted is None:
        return ranked[0]
    if isinstance(wanted, int) or wanted.isdecimal():
        if 1 <= int(wanted) <= len(tracks):
            return tracks[int(wanted) - 1]
    else:
        found = [track for track in ranked if code_of(track.language or "") == code_of(wanted)]
        if found:
            return found[0]
    raise MediaError(f"{name} has no sound track {wanted!r}; it has {_listed(tracks)}; give one of the numbers, or a language")


def _listed(tracks: list[Any]) -> str:
    """The tracks in words: number, language, title, and what they are for."""
    def words(track: Any) -> str:
        flags = [flag.name.replace("_", " ") for flag in type(track.disposition) if flag in track.disposition]
        said = [track.language or "", track.metadata.get("title", "")[:40], *flags]
        return ", ".join(word for word in said if word)

    return "; ".join(f"{number} ({words(track)})" if words(track) else str(number) for number, track in enumerate(tracks, 1))


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


def _pieces(name: str, frames: Iterator[Any], start_s: float, longest_s: float, codec: str) -> Iterator[Piece]:
    """Frames as pieces; a hole in the time stamps, also one before the first, is silence."""
    done_s = 0.0
    for frame in frames:
        rate_hz = frame.sample_rate
        _check_channels(name, len(frame.layout.channels))
        check_rate(rate_hz, f"{name}'s rate")
        speakers = tuple(channel.name for channel in frame.layout.channels)
        if set(speakers) == {"NONE"} and codec != "opus":  # Opus leaves them unnamed on purpose
            speakers = speakers_of(len(speakers))
        gap_s = 0.0 if frame.time is None else frame.time - start_s - done_s
        if GAP_S[0] < gap_s < longest_s:
            left = int(gap_s * rate_hz)
            done_s += left / rate_hz
            for at in range(0, left, CHUNK):
                yield Piece(np.zeros((len(speakers), min(CHUNK, left - at)), dtype=np.float32), rate_hz, speakers)
        done_s += frame.samples / rate_hz
        yield Piece(_planar(frame, len(speakers)), rate_hz, speakers)


def _planar(frame: Any, channels: int) -> np.ndarray:
    """A decoded frame as float32 (C, T)."""
    if frame.format.is_planar and channels >= PLANES:
        import av

        array = np.concatenate([part.to_ndarray() for part in av.AudioResampler(format=frame.format.packed.name).resample(frame)], axis=1)
    else:
        array = frame.to_ndarray()
    if len(array) != channels:
        array = array.reshape(-1, channels).T
    if array.dtype == np.uint8:
        return array.astype(np.float32) / 128 - 1
    scale = {np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31}.get(array.dtype, 1.0)
    return array.astype(np.float32) * np.float32(scale)
