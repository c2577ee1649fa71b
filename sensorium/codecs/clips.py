"""Clips: moving pictures to files, with what made them, and animated pictures as videos.

    .mp4 .webm        through PyAV; what made them stands in the comment of the file
    .webp .gif .png   animated, through Pillow; what made them stands in the first picture, as it does in stills

Letters: F frames, C channels, H W pixels.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from PIL import ImageOps

from sensorium.codecs.ffmpeg import open_container
from sensorium.codecs.films import read_frames
from sensorium.codecs.frames import Frames
from sensorium.codecs.media import kind_of
from sensorium.codecs.vision import note_options, read_info
from sensorium.data import Arrays
from sensorium.files import open_file, read_note, write_file
from sensorium.spec import Spec
from sensorium.types import ConfigError, Image, MediaError, Video

__all__ = ["FrameStack", "load_video", "read_video_info", "save_video"]

TICK = Fraction(1, 90_000)  # of the times of uneven frames in films
SMPTE_170M, LIMITED = 6, 1  # the colours that RGB is converted to, said so that no player has to guess them
LONGEST_MS = {".webp": 2**24 - 1, ".gif": 655_350, ".png": 65_535_000}  # that a frame can be shown for
CODINGS = {".mp4": "libx264", ".webm": "libvpx-vp9"}
ANIMATED = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}


def load_video(video: Video, frames: int | None = None, limit: int = 2_000) -> torch.Tensor:
    """Frames of a video, float (F, 3, H, W) in 0..1.

    Args:
        frames: how many, what is shown in the middle of so many equal stretches of time; None is each frame once, however long it is shown.
        limit: longest video taken whole, in frames.

    Raises:
        MediaError: missing, broken, not a video, or too long.
    """
    with ExitStack() as stack:
        shown = read_frames(video, stack)
        if frames is None:
            return _planes(_whole(shown, limit))
        count, _ = shown.steps()
        return _planes(shown.looks([int((i + 0.5) * count / frames) for i in range(frames)]))


def _whole(shown: Frames, limit: int = 2_000) -> Iterator[Pillow.Image]:
    if len(shown) > limit:
        raise MediaError(f"the video has {len(shown):,} frames, wanted at most {limit:,}; cut it")
    return shown.pictures(range(len(shown)))


def _planes(pictures: Iterable[Pillow.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255 for picture in pictures])


def save_video(video: Video, path: str | Path) -> Path:
    """Write a video in the format of the path's ending, whole or not at all; ``video.info`` is written with it.

    It lasts as long as it did, and each frame is shown when it was, to the nearest of what the format tells apart: 10 ms in .gif, 1 ms in the
    others. Frames that would share one of these moments are left out but for the last.

    Raises:
        MediaError: an ending that is not known, or a place that cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in CODINGS and ending not in ANIMATED:
        raise MediaError(f"{path.name!r} ends in {path.suffix!r}, wanted one of {', '.join([*CODINGS, *ANIMATED])}; choose another name")
    with ExitStack() as stack:
        shown = read_frames(video, stack)
        pixels = [np.array(picture) for picture in _whole(shown)]
    times_s = [0.0, *shown.starts_s[1:], shown.length_s]  # the first is shown from the beginning
    made = _coded(pixels, times_s, shown.rate_hz, ending, video.info) if ending in CODINGS else _animated(pixels, times_s, ending, video.info)
    return write_file(path, made)


def _coded(pixels: Sequence[np.ndarray], times_s: Sequence[float], rate_hz: float | None, ending: str, info: dict[str, Any]) -> bytes:
    """A film.

    Args:
        pixels: of each frame, uint8 (H, W, C).
        times_s: when each begins, and when the last ends.
        rate_hz: of even frames.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError("videos are written by PyAV, which is not installed; run: pip install 'sensorium[speech]', or use .webp") from error
    buffer, (height, width, _) = io.BytesIO(), pixels[0].shape
    odd = ((0, height % 2), (0, width % 2), (0, 0))  # colours are kept for pairs of pixels
    even = rate_hz is not None and rate_hz >= 1
    rate = max(Fraction(rate_hz or len(pixels) / times_s[-1]).limit_denominator(1001), Fraction(1, 1001))
    tick = 1 / rate if even else TICK
    frames = dict(enumerate(pixels)) if even else _at(pixels, times_s, float(tick))
    lasts = {begin: end - begin for begin, end in pairwise([*frames, len(pixels) if even else round(times_s[-1] / tick)])}
    with av.open(buffer, "w", format=ending[1:]) as container:
        container.metadata["comment"] = json.dumps(info)
        track = container.add_stream(CODINGS[ending], rate=rate)
        track.height, track.width = height + height % 2, width + width % 2
        track.pix_fmt, track.options = "yuv420p", {"crf": "18"}
        coder = track.codec_context
        coder.time_base, coder.colorspace, coder.color_range = tick, SMPTE_170M, LIMITED
        if not even:
            coder.max_b_frames = 0  # .mp4 holds the durations of frames as they are decoded: in the order in which they are shown, then
        for begin, pixels_HWC in [*frames.items(), (None, None)]:
            frame = None
            if begin is not None:
                frame = av.VideoFrame.from_ndarray(np.pad(pixels_HWC, odd, mode="edge"), format="rgb24")
                frame.pts, frame.time_base = begin, tick
            for packet in track.encode(frame):
                packet.duration = lasts[packet.pts]
                container.mux(packet)
    return buffer.getvalue()


def _at(pixels: Sequence[np.ndarray], times_s: Sequence[float], tick_s: float) -> dict[int, np.ndarray]:
    """Frames by the ticks that they begin at: each time is rounded by itself, so that the roundings do not add up. The last that share one stays."""
    end = max(round(times_s[-1] / tick_s), 1)
    return {min(round(time_s / tick_s), end - 1): x for time_s, x in zip(times_s, pixels, strict=False)}


def _animated(pixels: Sequence[np.ndarray], times_s: Sequence[float], ending: str, info: dict[str, Any]) -> bytes:
    """An animated picture; as :func:`_coded`. Frames that are alike are one that is held, as these formats have it anyway."""
    tick_ms = 1 if ending != ".gif" else 10 if times_s[-1] * 100 > len(pixels) else 20  # a GIF of 10 ms throughout is taken to tell no times
    frames = _at(pixels, times_s, tick_ms / 1000)
    for begin, (last, x) in zip([*frames][1:], pairwise([*frames.values()]), strict=True):
        if np.array_equal(last, x):
            del frames[begin]
    end = max(round(times_s[-1] * 1000 / tick_ms), 1)
    lasts_ms = [(end - begin) * tick_ms for begin, end in pairwise([*frames, end])]
    if max(lasts_ms) > LONGEST_MS[ending]:
        raise MediaError(f"a frame is shown for {max(lasts_ms) / 1000:,.0f} s, in {ending} at most {LONGEST_MS[ending] / 1000:,.0f}; use .mp4")
    pictures, buffer = [Pillow.fromarray(x) for x in frames.values()], io.BytesIO()
    options = note_options(ANIMATED[ending], info) | ({"lossless": True} if ending == ".webp" else {})
    still = len(pictures) == 1 and ending != ".gif"  # of one picture Pillow makes a still, which has no duration: it gets two
    if still and ending == ".png":
        half_ms = lasts_ms[0] // 2
        pictures, lasts_ms, options["blend"] = pictures * 2, [lasts_ms[0] - half_ms, half_ms], [0, 1]  # two ways to lay them on: not joined
    elif still:
        pictures, lasts_ms = [*pictures, ImageOps.invert(pictures[0])], [*lasts_ms, 1]
    pictures[0].save(buffer, ANIMATED[ending], save_all=True, append_images=pictures[1:], duration=lasts_ms, loop=0, **options)
    return _but_last(buffer.getvalue()) if still and ending == ".webp" else buffer.getvalue()


def _but_last(webp: bytes) -> bytes:
    """An animated WebP without its last frame."""
    chunks, at = [], 12
    while at < len(webp):
        size = int.from_bytes(webp[at + 4 : at + 8], "little")
        chunks.append(webp[at : at + 8 + size + size % 2])
        at += len(chunks[-1])
    del chunks[max(number for number, chunk in enumerate(chunks) if chunk[:4] == b"ANMF")]
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def read_video_info(path: str | Path) -> dict[str, Any]:
    """What made a video, as :func:`save_video` wrote it; {} if it says nothing."""
    if kind_of(path).name in ANIMATED.values():
        return read_info(path)
    with ExitStack() as stack:
        container = open_container(str(path), stack.enter_context(open_file(path, "a video file")), stack)
        note = {key.lower(): value for key, value in container.metadata.items()}.get("comment", "")
    return read_note(note)


@dataclass(frozen=True, repr=False)
class FrameStack(Spec):
    """A video as a few of its frames, evenly apart, each through the codec of pictures; and frames that were written as a video.

    Args:
        image: codec of a frame.
        frames: F.
        side: places on a side that the model gives a frame.
        rate_hz: frames a second of what is written.
    """

    image: Spec
    _: KW_ONLY
    frames: int = 8
    side: int = 2
    rate_hz: float = 8 / 3

    def encode(self, video: Video) -> Arrays:
        """A video -> (F, C, H, W), with the times, rows and columns of its places.

        Raises:
            MediaError: missing, broken, or not a video.
        """
        frames = [self.image.encode(Image(frame)) for frame in load_video(video, self.frames)]
        side = torch.arange(self.side)
        axes = torch.cartesian_prod(torch.arange(self.frames), side, side)
        return Arrays("video", torch.stack(frames), axes=axes, after=2 * self.side)

    def decode(self, x_CFHW: torch.Tensor, info: dict[str, Any] | None = None) -> Video:
        """Normalised (C, F, H, W) -> a video."""
        frames = [self.image.decode(frame).source for frame in x_CFHW.transpose(0, 1)]
        return Video(torch.stack(frames), info or {}, self.rate_hz)
