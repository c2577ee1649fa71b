"""Native: pictures and videos at their own sizes, as patches with coordinates.

    picture -> nearest size of whole groups of patches, within limits of pixels -> patches
    video   -> frames at an even rate -> the same size each -> patches, a few frames long -> patches, with times

Patches stand frame by frame, in groups of neighbours that the model joins, each group row by row; the groups row by row too. What a place
of the decoder stands for has coordinates: its time, and its row and column among the groups.

Letters: F frames, C channels, H W pixels, P patches, N values of a patch.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow

from sensorium.codecs.vision import MAX_PIXELS, MAX_SIDE, RESAMPLE, VisionCodec, read_animation
from sensorium.data import Arrays
from sensorium.files import hint
from sensorium.spec import Spec
from sensorium.types import ConfigError, Image, MediaError, Patches, Video

__all__ = ["ClipCodec", "from_config", "NativeCodec", "patched", "read_frames"]

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
SLIMMEST = 200  # a picture's longer side over its shorter
CONTAINERS = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,ogg,avi,asf,flv,mpegts,mpeg,gif"


def patched(x_FCHW: torch.Tensor, patch: int, join: int, frames: int) -> torch.Tensor:
    """Frames -> (P, N): patches of ``frames`` frames in joined groups, each patch channel by channel; the last frame fills up the last patch."""
    x_FCHW = torch.cat([x_FCHW, x_FCHW[-1:].expand(-len(x_FCHW) % frames, -1, -1, -1)])
    length, channels, height, width = x_FCHW.shape
    rows, columns = height // patch // join, width // patch // join
    x = x_FCHW.reshape(length // frames, frames, channels, rows, join, patch, columns, join, patch)
    return x.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, channels * frames * patch * patch)


@dataclass(frozen=True, repr=False)
class NativeCodec(Spec):
    """A picture at about its own size.

    Args:
        patch: pixels on a side of a patch.
        join: patches on a side that become one feature; sides are multiples of ``patch`` times this.
        frames: frames that a patch is long; a still is repeated.
        least, most: pixels of a picture; smaller and larger ones are resized, in their own shape as far as that goes.
        mean, std: of the normalisation (value - mean) / std, for values 0..1.
        resample: how it is resized; see ``codecs.vision``.

    Source: Qwen2-VL (2409.12191), section 2.1.
    """

    _: KW_ONLY
    patch: int = 14
    join: int = 2
    frames: int = 2
    least: int = 56 * 56
    most: int = 28 * 28 * 1280
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resample: str = "bicubic"

    def check(self) -> list[str]:
        problems = [] if self.resample in RESAMPLE else [f"resample {self.resample!r} is not known; use one of {', '.join(RESAMPLE)}"]
        return problems + ([] if 0 < self.least <= self.most else [f"least is {self.least} and most {self.most}, wanted 0 < least <= most"])

    @property
    def _still(self) -> VisionCodec:
        return VisionCodec(self.patch, mean=self.mean, std=self.std, resample=self.resample)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture is resized to.

        Raises:
            MediaError: it is a mere line.
        """
        if max(width, height) > SLIMMEST * min(width, height):
            raise MediaError(f"a picture is {width} x {height} pixels, wanted one side at most {SLIMMEST} times the other; cut it into pieces")
        step, area = self.patch * self.join, width * height
        wide, high = (round(side / step) * step for side in (width, height))
        if wide * high > self.most:
            shrink = math.sqrt(area / self.most)
            return tuple(max(step, math.floor(side / shrink / step) * step) for side in (width, height))
        if wide * high < self.least:
            grow = math.sqrt(self.least / area)
            return tuple(math.ceil(side * grow / step) * step for side in (width, height))
        return wide, high

    def array(self, picture: Pillow.Image) -> torch.Tensor:
        """A picture -> float32 (3, H, W), resized and normalised."""
        return self._still.array(picture.resize(self.size(*picture.size), RESAMPLE[self.resample]))

    def encode(self, image: Image) -> Arrays:
        """A picture -> its patches, and coordinates of what is made of them."""
        return self.arrays("image", self.array(self._still.opened(image))[None])

    def arrays(self, modality: str, x_FCHW: torch.Tensor, seconds: float | None = None, beats: float = 1.0) -> Arrays:
        """Resized, normalised frames -> patches and coordinates.

        Args:
            seconds: between one patch and the next in time.
            beats: how far their coordinates are apart.
        """
        value_PN = patched(x_FCHW, self.patch, self.join, self.frames)
        rows, columns = (side // self.patch for side in x_FCHW.shape[2:])
        length = len(value_PN) // (rows * columns)
        grid = (length, rows // self.join, columns // self.join)
        time, row, column = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
        axes = torch.stack([(time.float() * beats).long(), row, column], dim=-1).reshape(-1, 3)
        return Arrays(modality, Patches(value_PN, (length, rows, columns), self.join, seconds), axes=axes, after=max(grid[1:]))


@dataclass(frozen=True, repr=False)
class ClipCodec(Spec):
    """A video: frames at an even rate, all of one size, in patches that are a few frames long.

    Args:
        frame: how one frame is resized and cut into patches.
        rate_hz: frames a second that are looked at, if the video has as many.
        least, most: frames that are looked at.
        beats_hz: how far the coordinates of what is a second apart are apart.

    Source: Qwen2.5-VL (2502.13923), section 2.1.2: coordinates are of time, whatever the rate.
    """

    frame: NativeCodec = field(default_factory=NativeCodec)
    _: KW_ONLY
    rate_hz: float = 2.0
    least: int = 4
    most: int = 768
    beats_hz: float = 2.0

    def check(self) -> list[str]:
        good = self.rate_hz > 0 and 1 <= self.least <= self.most
        return [] if good else [f"rate_hz is {self.rate_hz}, least {self.least} and most {self.most}; wanted rate_hz > 0 and 1 <= least <= most"]

    def chosen(self, count: int, rate_hz: float) -> list[int]:
        """Which of ``count`` frames are looked at, evenly apart."""
        long = self.frame.frames
        if count < long:
            return list(range(count))
        most = min(self.most, count) // long * long
        number = max(int(min(max(count / rate_hz * self.rate_hz, self.least), most, count) // long * long), long)
        return torch.arange(0, count, count / number).int().tolist()[:number]

    def encode(self, video: Video) -> Arrays:
        """A video -> its patches, and coordinates of what is made of them, times among them."""
        with ExitStack() as stack:
            frames, count, rate_hz = read_frames(video, stack)
            wanted = set(self.chosen(count, rate_hz))
            seen = itertools.islice(enumerate(frames), max(wanted) + 1)
            pictures = [self.frame.array(picture) for index, picture in seen if index in wanted]
        if not pictures or len({picture.shape for picture in pictures}) > 1:
            raise MediaError(f"of a video {len(pictures)} frames could be read, of sizes {sorted({tuple(p.shape[1:]) for p in pictures})}; "
                             "wanted some, all of one size")
        seconds = self.frame.frames / (len(wanted) / count * rate_hz)
        beats = float(torch.tensor(seconds, dtype=torch.float32) * self.beats_hz)
        return self.frame.arrays("video", torch.stack(pictures), seconds, beats)


def read_frames(video: Video, stack: ExitStack) -> tuple[Iterator[Pillow.Image], int, float]:
    """Pictures of a video one by one, how many there are, and how many a second.

    Args:
        stack: closes the file.

    Raises:
        MediaError: missing, broken, not a video, or too large.
    """
    source = video.source
    if isinstance(source, torch.Tensor):
        if source.dim() != 4 or source.shape[1] != 3 or not len(source) or not source.is_floating_point():
            raise MediaError(f"a decoded video has shape {tuple(source.shape)} and type {source.dtype}, wanted float (F, 3, H, W) in 0..1")
        if not video.rate_hz or video.rate_hz <= 0:
            raise MediaError(f"a decoded video came with {video.rate_hz} frames a second; give Video(tensor, rate_hz=...)")
        still = VisionCodec(1)
        return (still.opened(Image(frame)) for frame in source), len(source), float(video.rate_hz)
    name = "the video" if isinstance(source, bytes) else str(source)[:200]
    file = io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(_file(source))
    start = file.read(12)
    file.seek(0)
    if start[:8] == b"\x89PNG\r\n\x1a\n" or (start[:4] == b"RIFF" and start[8:] == b"WEBP"):
        return read_animation(file.read() if isinstance(source, bytes) else source)
    count, rate = _counted(name, file)
    file.seek(0)
    return _decoded(name, file, stack), count, float(rate)


def _file(path: str | Path) -> Any:
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:
        raise MediaError(f"{str(path)[:200]!r} cannot be read ({str(error)[:80]}); wanted a video file{hint(path)}") from error


def _opened(name: str, file: Any, stack: ExitStack) -> tuple[Any, Any]:
    """Container and picture track. The empty list of protocols keeps a playlist from opening other files or addresses."""
    try:
        import av
    except ImportError as error:
        raise ConfigError("videos are decoded by PyAV, which is not installed; run: pip install 'sensorium[speech]'") from error
    try:
        options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
        container = stack.enter_context(av.open(file, mode="r", options=options, metadata_errors="ignore"))
    except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
        raise MediaError(f"{name} is not a video that can be read ({str(error)[:80]}); wanted mp4, webm, mov, avi, gif or the like") from error
    track = next(iter(container.streams.video), None)
    if track is None or not track.average_rate:
        raise MediaError(f"{name} has no pictures in it; wanted a video")
    if track.width * track.height > MAX_PIXELS or max(track.width, track.height) > MAX_SIDE:
        raise MediaError(f"{name} is {track.width} x {track.height} pixels, wanted at most {MAX_PIXELS / 1e6:.0f} million and {MAX_SIDE} a side")
    return container, track


def _counted(name: str, file: Any) -> tuple[int, Fraction]:
    """Frames, and how many a second; packets are counted, as what a file says of itself may be wrong."""
    with ExitStack() as stack:
        container, track = _opened(name, file, stack)
        count = _guarded(name, lambda: sum(1 for packet in container.demux(track) if packet.size))
        if not count:
            raise MediaError(f"{name} has no pictures in it; wanted a video")
        return count, track.average_rate


def _decoded(name: str, file: Any, stack: ExitStack) -> Iterator[Pillow.Image]:
    container, track = _opened(name, file, stack)
    track.thread_type = "AUTO"
    frames = container.decode(track)
    while (frame := _guarded(name, lambda: next(frames, None))) is not None:
        yield _guarded(name, frame.to_image)


def _guarded(name: str, step: Any) -> Any:
    import av

    try:
        return step()
    except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
        raise MediaError(f"{name} is broken ({str(error)[:80]}); get a whole copy") from error


def from_config(settings: dict[str, Any], beats_hz: float = 2.0, videos: dict[str, Any] | None = None) -> tuple[NativeCodec, ClipCodec]:
    """The codecs of pictures and of videos that a published preprocessor_config.json describes.

    Args:
        beats_hz: the model's ``tokens_per_second``.
        videos: video_preprocessor_config.json, where there is one; None: as pictures.

    Raises:
        ConfigError: a setting that is not built.
    """
    videos = videos or settings
    rate = videos.get("fps") or 2.0
    return _codec(settings), ClipCodec(_codec(videos), rate_hz=rate, least=videos.get("min_frames", 4), most=videos.get("max_frames", 768),
                                       beats_hz=beats_hz)


def _codec(settings: dict[str, Any]) -> NativeCodec:
    for name in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if settings.get(name) is False:
            raise ConfigError(f"the picture settings say {name} = false; only true is built")
    if abs(settings.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9 or settings.get("resample", 3) != 3:
        raise ConfigError("the picture settings have another rescale_factor than 1 / 255 or another resample than 3 (bicubic)")
    size = settings.get("size") or {}
    least, most = (settings.get(f"{name}_pixels") or size.get(edge) or default
                   for name, edge, default in (("min", "shortest_edge", 56 * 56), ("max", "longest_edge", 28 * 28 * 1280)))
    return NativeCodec(patch=settings.get("patch_size", 14), join=settings.get("merge_size", 2), frames=settings.get("temporal_patch_size", 2),
                       least=least, most=most, mean=tuple(settings.get("image_mean", MEAN)), std=tuple(settings.get("image_std", STD)))
