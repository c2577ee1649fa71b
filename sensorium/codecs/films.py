"""Films: the pictures of video files by FFmpeg, upright, undistorted and in time; and frames of any kind of video.

    file -> packets: when each picture is shown, and where decoding can begin -> the pictures that are wanted, and no more decoded than that takes

Packets are read twice: once for their times alone, as what a file says of itself may be wrong, and once for pictures. Of what lies between a
picture that was wanted and the key picture before the next one nothing is decoded. Memory grows with the length of a film by its times alone.

Letters: F frames, C channels, H W pixels.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import accumulate
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps

from sensorium.codecs.ffmpeg import open_container, picture_tracks
from sensorium.codecs.frames import TURNS, WHITE, Frames, read_animation
from sensorium.codecs.pictures import MAX_BYTES, MAX_PIXELS, MAX_SIDE, on_paper, rgb
from sensorium.codecs.vision import VisionCodec
from sensorium.files import open_file
from sensorium.types import Image, MediaError, Video

__all__ = ["read_frames"]

STREAMS = ("mpegts", "mpeg")  # that are joined by writing one behind the other
LEAD_S = 0.1  # sound may begin so much before the picture only because its coding has a run-up
SEEN_THROUGH = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders of these leave transparency out
# Signs of a display matrix's a, b, c, d, where x' = a x + c y and y' = b x + d y, and the EXIF orientation that means the same.
MATRICES = {(-1, 0, 0, 1): 2, (-1, 0, 0, -1): 3, (1, 0, 0, -1): 4, (0, 1, 1, 0): 5, (0, 1, -1, 0): 6, (0, -1, -1, 0): 7, (0, -1, 1, 0): 8}


def read_frames(video: Video, stack: ExitStack) -> Frames:
    """What a video shows, and when.

    Args:
        stack: closes the file.

    Raises:
        MediaError: missing, broken, not a video, or too large.
    """
    source = video.source
    if isinstance(source, torch.Tensor):
        return _given(video, source)
    name = "the video" if isinstance(source, bytes) else str(source)[:200]
    file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open_file(source, "a video file"))
    start, size = file.read(12), file.seek(0, 2)
    animated = start[:8] == b"\x89PNG\r\n\x1a\n" or (start[:4] == b"RIFF" and start[8:] == b"WEBP") or (start[:4] == b"GIF8" and size <= MAX_BYTES)
    if animated or start[4:] in (b"ftypavif", b"ftypavis"):
        return read_animation(source)
    return _Film.read(name, file).frames()


def _given(video: Video, x_FCHW: torch.Tensor) -> Frames:
    """Frames already decoded."""
    if x_FCHW.dim() != 4 or x_FCHW.shape[1] != 3 or not len(x_FCHW) or not x_FCHW.is_floating_point():
        raise MediaError(f"a decoded video has shape {tuple(x_FCHW.shape)} and type {x_FCHW.dtype}, wanted float (F, 3, H, W) in 0..1")
    still = VisionCodec(1)

    def pictures(wanted: Sequence[int]) -> Iterator[Pillow.Image]:
        return (still.opened(Image(x_FCHW[index])) for index in wanted)

    if video.durations_s is not None:
        if len(video.durations_s) != len(x_FCHW) or not all(0 < last_s < float("inf") for last_s in video.durations_s):
            raise MediaError(f"a decoded video of {len(x_FCHW)} frames came with {len(video.durations_s)} durations; wanted one above 0 for each")
        *starts_s, length_s = accumulate(map(float, video.durations_s), initial=0.0)
        return Frames.timed(starts_s, length_s, [len(x_FCHW) / length_s], 1e-6, pictures)
    if not video.rate_hz or video.rate_hz <= 0:
        raise MediaError(f"a decoded video came with {video.rate_hz} frames a second; give Video(tensor, rate_hz=...)")
    rate_hz = float(video.rate_hz)
    return Frames([index / rate_hz for index in range(len(x_FCHW))], len(x_FCHW) / rate_hz, rate_hz, pictures)


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    last: int
    key: bool
    hidden: bool  # decoded for the sake of others; an edit list cuts it away


@dataclass(frozen=True, eq=False)
class _Film:
    """A file's pictures; stamps are times in ticks of its own clock.

    Args:
        stamps: of the pictures that are shown, ascending.
        keys: numbers and stamps of the packets that decoding can begin at, ascending.
        counted: a picture is known by its place among the stamps, as those that come out of the decoder are made up.
        begin_s: of the whole file, sound and all, by its clock.
        ends_s: of the last picture, likeliest first, or of the file, by its clock.
        sure: the first of them is of the picture, not of the sound.
        rates_hz: that the file says it has.
        aspect: width of a pixel over its height.
    """

    name: str
    file: Any
    stamps: list[int]
    keys: list[tuple[int, int]]
    counted: bool
    tick: Fraction
    begin_s: float
    ends_s: list[float]
    sure: bool
    rates_hz: list[float]
    aspect: Fraction

    @staticmethod
    def read(name: str, file: Any) -> _Film:
        """All but the pictures."""
        with ExitStack() as stack:
            container, track = _opened(name, file, stack)
            packets = [_Packet(p.pts, p.dts, p.duration or 0, p.is_keyframe, p.is_discard) for p in _packets(name, container, track) if p.size]
            counted = container.format.name == "avi" or any(p.pts is None and p.dts is not None for p in packets)
            stamped = [(number, p.dts if counted else p.pts, p) for number, p in enumerate(packets)]
            keys = [(number, stamp) for number, stamp, p in stamped if p.key and stamp is not None]
            first = keys[0][0] if keys else 0  # what comes before cannot be decoded
            lasts = {stamp: p.last for number, stamp, p in stamped if number >= first and stamp is not None and not p.hidden}
            if not lasts:
                raise MediaError(f"{name} has no pictures in it; wanted a video")
            begin_s, end, tick = (container.start_time or 0) / 1e6, max(lasts), track.time_base
            own_s = [float((track.start_time + track.duration) * tick)] if track.duration and track.start_time is not None else []
            file_s = [container.duration / 1e6, begin_s + container.duration / 1e6] if container.duration else []
            last_s, alone = [float((end + lasts[end]) * tick)], len(container.streams) == 1
            ends_s = [*own_s, *file_s, *last_s] if alone else [*own_s, *last_s, *file_s]
            return _Film(name, file, sorted(lasts), keys, counted, tick, begin_s, ends_s, alone or bool(own_s),
                         [float(rate) for rate in (track.average_rate, track.guessed_rate) if rate], track.sample_aspect_ratio or Fraction(1))

    def frames(self) -> Frames:
        """What is shown when: the clock may begin anywhere, and the first picture later than the sound."""
        first_s, last_s = (float(stamp * self.tick) for stamp in (self.stamps[0], self.stamps[-1]))
        measured_hz = [(len(self.stamps) - 1) / (last_s - first_s)] if len(self.stamps) > 1 else []
        step_s = 1 / (*measured_hz, *self.rates_hz, 10.0)[0]
        end_s = next((end_s for end_s in self.ends_s if end_s > last_s), last_s + step_s)
        late_s = first_s - max(self.begin_s, 0.0)
        zero_s = first_s - (late_s if late_s >= max(step_s, LEAD_S) else 0.0)
        starts_s = [stamp * self.tick.numerator / self.tick.denominator - zero_s for stamp in self.stamps]
        rates_hz = [*self.rates_hz, *measured_hz] if measured_hz else []
        return Frames.timed(starts_s, end_s - zero_s, rates_hz, float(self.tick), self.pictures, self.sure)

    def pictures(self, wanted: Sequence[int]) -> Iterator[Pillow.Image]:
        """The frames with these indexes, ascending, all of the size of the first."""
        stamps, jumps, size = [self.stamps[index] for index in wanted], not self.counted, None
        seen, done = self._seen(stamps, jumps), 0
        while done < len(stamps):
            try:
                stamp, frame = next(seen, (None, None))
                whole = stamp == stamps[done] and not frame.is_corrupt
            except MediaError:
                if not jumps:
                    raise
                whole = False
            if jumps and not whole:  # not all that is marked as a key picture is one: the rest from the beginning, then
                seen.close()
                jumps, seen = False, self._seen(stamps[done:], False)
                continue
            if frame is None:
                raise MediaError(f"of {self.name} no frame could be read; get a whole copy")
            picture, done = _picture(self.name, frame, self.aspect), done + 1
            size = size or picture.size
            yield picture if picture.size == size else ImageOps.pad(picture, size, Pillow.Resampling.BICUBIC, WHITE)

    def _seen(self, stamps: Sequence[int], jumps: bool) -> Iterator[tuple[int, Any]]:
        """The latest decoded frame at each of these stamps, with its own.

        Args:
            jumps: nothing is decoded between a frame and the key picture before the next one.
        """
        left, held, count, begin = deque(stamps), None, 0, self._key(stamps[0] if jumps else self.stamps[0])
        with ExitStack() as stack:
            container, track = _opened(self.name, self.file, stack)
            decoder = _decoder(track)
            for number, packet in enumerate(_packets(self.name, container, track)):
                if number < begin:
                    continue
                for frame in _guarded(self.name, partial(decoder.decode, packet if packet.size else None)):
                    stamp, count = self.stamps[min(count, len(self.stamps) - 1)] if self.counted else frame.pts, count + 1
                    while held and left and stamp is not None and stamp > left[0]:
                        yield held
                        left.popleft()
                    held = held if stamp is None else (stamp, frame)
                if not left:
                    return
                if jumps and self._key(left[0]) > number + 1:
                    begin, held = self._key(left[0]), None
                    decoder.flush_buffers()
            while held and left:
                yield held
                left.popleft()

    def _key(self, stamp: int) -> int:
        """Number of the packet that decoding begins at for a picture."""
        return self.keys[max(bisect_right(self.keys, stamp, key=itemgetter(1)) - 1, 0)][0] if self.keys else 0


def _opened(name: str, file: Any, stack: ExitStack) -> tuple[Any, Any]:
    """Container and picture track."""
    from av.stream import Disposition

    container = open_container(name, file, stack)
    tracks = picture_tracks(container)
    if not tracks:
        covers = "no pictures in it but a cover" if container.streams.video else "no pictures in it"
        raise MediaError(f"{name} has {covers}; wanted a video")
    track = max(tracks, key=lambda track: (bool(track.disposition & Disposition.default), track.frames != 1))  # beside a sequence may be a still
    if track.codec_context is None:
        raise MediaError(f"{name} has its pictures in a coding that is not known; convert it to mp4 (H.264)")
    _check_size(name, track.width, track.height)
    return container, track


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise MediaError(f"{name} is {width} x {height} pixels, wanted at most {MAX_PIXELS / 1e6:.0f} million and {MAX_SIDE} a side")


def _packets(name: str, container: Any, track: Any) -> Iterator[Any]:
    """Packets of a track, an empty one at the end. Where one stream was joined to another its clock goes on."""
    packets, shift, end = container.demux(track), 0, None
    while (packet := _guarded(name, partial(next, packets, None))) is not None:
        if packet.dts is not None and container.format.name in STREAMS:
            if end is not None and packet.dts + shift < end - (packet.duration or 0):
                shift = end - packet.dts
            packet.dts += shift
            packet.pts = None if packet.pts is None else packet.pts + shift
            end = packet.dts + (packet.duration or 0)
        yield packet


def _decoder(track: Any) -> Any:
    import av

    if track.metadata.get("alpha_mode") == "1" and track.codec_context.name in SEEN_THROUGH:
        return av.CodecContext.create(SEEN_THROUGH[track.codec_context.name], "r")
    track.thread_type = "AUTO"
    return track.codec_context


def _picture(name: str, frame: Any, aspect: Fraction) -> Pillow.Image:
    """A decoded frame on paper, its pixels made square by more of them, turned and mirrored as the file says."""
    width, height = frame.width, frame.height
    width, height = (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))
    _check_size(name, width, height)
    stretched = {} if (width, height) == (frame.width, frame.height) else {"width": width, "height": height, "interpolation": "BICUBIC"}
    if any(component.is_alpha for component in frame.format.components):
        seen = _guarded(name, partial(frame.reformat, format="rgba", **stretched))
        picture = on_paper(rgb(Pillow.fromarray(seen.to_ndarray())), WHITE)
    else:
        picture = _guarded(name, partial(frame.to_image, **stretched))
    matrix = next((np.frombuffer(bytes(data), np.int32) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return picture
    a, b, _, c, d = matrix[:5].tolist()
    straight = max(abs(a), abs(d)) >= max(abs(b), abs(c))
    turn = MATRICES.get(tuple(int(np.sign(value)) for value in ((a, 0, 0, d) if straight else (0, b, c, 0))))
    return picture.transpose(TURNS[turn]) if turn else picture


def _guarded(name: str, step: Callable[[], Any]) -> Any:
    import av

    try:
        return step()
    except (av.FFmpegError, ValueError, OSError, MemoryError, IndexError) as error:  # PyAV knows no tracks that turn up on the way
        raise MediaError(f"{name} is broken ({str(error)[:80]}); get a whole copy") from error
