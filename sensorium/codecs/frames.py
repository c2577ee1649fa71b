"""Frames: which picture of a video is shown when; and those of animated pictures.

    source -> when each frame begins, and when the last one ends -> steps, equal in time -> the picture that is shown at each

A frame that is held and one that is repeated are the same video: what is looked at goes by time, never by counting frames.

Letters: F frames.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageSequence
from PIL.Image import Transpose

from sensorium.codecs.pictures import BOMBS, BROKEN, MAX_PIXELS, on_paper, open_picture, profile_of, read_bytes, read_head, rgb
from sensorium.types import MediaError

__all__ = ["frame_durations", "Frames", "read_animation", "TURNS", "WHITE"]

WHITE = (255, 255, 255)
SHORTEST_S = 1e-3  # of a step: times are given in thousandths of a second, or finer
TURNS = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
         6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}  # what sets a picture of each EXIF orientation upright
ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class Frames:
    """What a video shows, and when: known before it is decoded.

    Args:
        starts_s: when each frame begins, ascending, in seconds from the beginning of the video; the first is shown before it begins, too.
        length_s: when the last one ends.
        rate_hz: frames a second, where they are evenly apart; None: they are not.
        pictures: decodes the frames with these indexes, which ascend and may repeat, one at a time: upright RGB, all of one size.
    """

    starts_s: Sequence[float]
    length_s: float
    rate_hz: float | None
    pictures: Callable[[Sequence[int]], Iterator[Pillow.Image]]

    def __len__(self) -> int:
        return len(self.starts_s)

    @staticmethod
    def timed(starts_s: Sequence[float], length_s: float, rates_hz: Sequence[float], tick_s: float,
              pictures: Callable[[Sequence[int]], Iterator[Pillow.Image]], sure: bool = True) -> Frames:
        """Frames at the first of these rates that their times are in step with, but for what those were rounded by; else uneven ones.

        Args:
            tick_s: what times are rounded to.
            sure: the length is known; a last frame that is held makes them uneven.
        """
        for rate_hz in rates_hz:
            within_s, longest_s = min(tick_s * 1.001, 0.4 / rate_hz), (len(starts_s) + 0.5) / rate_hz if sure else math.inf
            if length_s <= longest_s and all(abs(start_s - index / rate_hz) <= within_s for index, start_s in enumerate(starts_s)):
                return Frames(starts_s, len(starts_s) / rate_hz, rate_hz, pictures)
        return Frames(starts_s, length_s, None, pictures)

    def steps(self) -> tuple[int, float]:
        """Equal steps of time, as short as the shortest frames, and how many a second: of even frames, the frames themselves."""
        if self.rate_hz:
            return len(self), self.rate_hz
        lasts_s = [max(end - start, SHORTEST_S) for start, end in pairwise([*self.starts_s, self.length_s])]
        short = [last_s for last_s in lasts_s if last_s < 1.5 * min(lasts_s)]  # those that are one step, each rounded its own way
        count = max(round(self.length_s * len(short) / sum(short)), len(self))
        return count, count / self.length_s

    def shown(self, steps: Sequence[int]) -> list[int]:
        """Which frame is shown in the middle of each step."""
        if self.rate_hz:
            return list(steps)
        _, rate_hz = self.steps()
        return [max(bisect_right(self.starts_s, (step + 0.5) / rate_hz) - 1, 0) for step in steps]

    def looks(self, steps: Sequence[int]) -> Iterator[Pillow.Image]:
        """The picture that is shown at each step, ascending ones."""
        return self.pictures(self.shown(steps))


def frame_durations(picture: Pillow.Image) -> list[float]:
    """How long each frame of an animated picture is shown, in milliseconds; 0 for one that is no part of the animation, 100 where it is not said.

    Raises:
        OSError, ValueError and the like: broken.
    """
    lasts_ms = []
    for frame in ImageSequence.Iterator(picture):
        frame.load()  # WebP and AVIF know a frame's duration after it is decoded, not before
        lasts_ms.append(float(frame.info.get("duration") or 0))
    hurried = picture.format == "GIF" and max(lasts_ms) <= 10  # as browsers read it: no time is given
    lasts_ms = [100.0 if hurried or not last_ms else last_ms for last_ms in lasts_ms]
    return [0.0, *lasts_ms[1:]] if len(lasts_ms) > 1 and picture.info.get("default_image") else lasts_ms


def read_animation(source: str | Path | bytes) -> Frames:
    """Frames of an animated picture (WebP, PNG, GIF, AVIF) on white paper; a still is one frame.

    Raises:
        MediaError: as :func:`~sensorium.codecs.vision.load_image`.
    """
    name, data = read_bytes(source)
    open_picture(data, MAX_PIXELS // 4)  # the first frame, with all that is checked of a picture
    try:
        picture = read_head(name, data)
        profile = profile_of(picture, data)
        lasts_ms = frame_durations(picture)
        turn = TURNS.get(picture.getexif().get(ORIENTATION, 1))
    except (*BROKEN, *BOMBS) as error:
        raise MediaError(f"{name} is broken or cut short; get a whole copy") from error
    places = [number for number, last_ms in enumerate(lasts_ms) if last_ms]

    def pictures(wanted: Sequence[int]) -> Iterator[Pillow.Image]:
        for number in (places[index] for index in wanted):
            try:
                picture.seek(number)
                frame = on_paper(rgb(picture, profile), WHITE)
                yield frame.transpose(turn) if turn is not None else frame
            except BROKEN as error:
                raise MediaError(f"{name} is broken or cut short at frame {number}; get a whole copy") from error

    *starts_ms, length_ms = accumulate((last_ms for last_ms in lasts_ms if last_ms), initial=0.0)
    starts_s = [start_ms / 1000 for start_ms in starts_ms]
    return Frames.timed(starts_s, length_ms / 1000, [1000 * len(places) / length_ms], 0.01 if picture.format == "GIF" else 0.001, pictures)
