"""Clips: moving pictures to files, with what made them, and animated pictures as videos.

    .mp4 .webm        through PyAV; what made them stands in the comment of the file
    .webp .gif .png   animated, through Pillow; what made them stands in the first picture, as it does in stills

Letters: F frames, C channels, H W pixels.
"""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from sensorium.codecs.media import kind_of
from sensorium.codecs.native import read_frames
from sensorium.codecs.vision import note_options, read_info
from sensorium.data import Arrays
from sensorium.files import read_note, write_file
from sensorium.spec import Spec
from sensorium.types import ConfigError, Image, MediaError, Video

__all__ = ["FrameStack", "load_video", "read_video_info", "save_video"]

CODINGS = {".mp4": "libx264", ".webm": "libvpx-vp9"}
ANIMATED = {".webp": "WEBP", ".gif": "GIF", ".png": "PNG"}


def load_video(video: Video, frames: int | None = None, limit: int = 2_000) -> torch.Tensor:
    """Frames of a video, evenly apart, float (F, 3, H, W) in 0..1.

    Args:
        frames: how many; None is all of them.
        limit: longest video taken whole, in frames.

    Raises:
        MediaError: missing, broken, not a video, or too long.
    """
    with ExitStack() as stack:
        pictures, count, _ = read_frames(video, stack)
        if frames is None and count > limit:
            raise MediaError(f"the video has {count:,} frames, wanted at most {limit:,}; cut it")
        wanted = [int((i + 0.5) * count / frames) for i in range(frames)] if frames else list(range(count))
        kept: dict[int, torch.Tensor] = {}
        for number, picture in enumerate(pictures):
            if number in wanted:
                kept[number] = torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1).float() / 255
            if number >= wanted[-1]:
                break
    if not kept:
        raise MediaError("of the video no frame could be read; get a whole copy")
    last = max(kept)
    return torch.stack([kept.get(number, kept[last]) for number in wanted])


def save_video(video: Video, path: str | Path) -> Path:
    """Write a video in the format of the path's ending, whole or not at all; ``video.info`` is written with it.

    Raises:
        MediaError: an ending that is not known, or a place that cannot be written.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in CODINGS and ending not in ANIMATED:
        raise MediaError(f"{path.name!r} ends in {path.suffix!r}, wanted one of {', '.join([*CODINGS, *ANIMATED])}; choose another name")
    with ExitStack() as stack:
        _, _, rate_hz = read_frames(video, stack)
    pixels_FHWC = (load_video(video) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    made = _coded(pixels_FHWC, rate_hz, ending, video.info) if ending in CODINGS else _animated(pixels_FHWC, rate_hz, ending, video.info)
    return write_file(path, made)


def _coded(pixels_FHWC: np.ndarray, rate_hz: float, ending: str, info: dict[str, Any]) -> bytes:
    try:
        import av
    except ImportError as error:
        raise ConfigError("videos are written by PyAV, which is not installed; run: pip install 'sensorium[speech]', or use .webp") from error
    buffer = io.BytesIO()
    _, height, width, _ = pixels_FHWC.shape
    pixels_FHWC = np.pad(pixels_FHWC, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")  # colours are kept for pairs of pixels
    with av.open(buffer, "w", format=ending[1:]) as container:
        container.metadata["comment"] = json.dumps(info)
        track = container.add_stream(CODINGS[ending], rate=Fraction(rate_hz).limit_denominator(1000))
        track.height, track.width = pixels_FHWC.shape[1:3]
        track.pix_fmt = "yuv420p"
        track.options = {"crf": "18"}
        for pixels_HWC in pixels_FHWC:
            container.mux(track.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HWC), format="rgb24")))
        container.mux(track.encode())
    return buffer.getvalue()


def _animated(pixels_FHWC: np.ndarray, rate_hz: float, ending: str, info: dict[str, Any]) -> bytes:
    pictures, buffer = [Pillow.fromarray(pixels) for pixels in pixels_FHWC], io.BytesIO()
    options = note_options(ANIMATED[ending], info) | ({"lossless": True} if ending == ".webp" else {})
    pictures[0].save(buffer, ANIMATED[ending], save_all=True, append_images=pictures[1:], duration=max(round(1000 / rate_hz), 1), loop=0, **options)
    return buffer.getvalue()


def read_video_info(path: str | Path) -> dict[str, Any]:
    """What made a video, as :func:`save_video` wrote it; {} if it says nothing."""
    if kind_of(path).name in ANIMATED.values():
        return read_info(path)
    try:
        import av

        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            note = {key.lower(): value for key, value in container.metadata.items()}.get("comment", "")
    except ImportError as error:
        raise ConfigError("videos are read by PyAV, which is not installed; run: pip install 'sensorium[speech]'") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path} is not a video that can be read ({str(error)[:80]})") from error
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
