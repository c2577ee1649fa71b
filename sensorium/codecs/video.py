"""Video as pictures: a few frames, evenly apart, each through the codec of pictures, with their times in the text between them.

    video -> what is shown in the middle of equal stretches of it -> before, "<time 1>", frame, "<time 2>", frame, ..., after

Frames are looked at as they are decoded, one at a time: memory grows with the length of the video by the times of its frames alone. Reading
ends behind the last frame that is wanted.

Letters: F frames.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch

from sensorium.codecs.english import cardinal
from sensorium.codecs.films import read_frames
from sensorium.spec import Spec
from sensorium.types import Image, MediaError, Video

__all__ = ["FramesCodec"]

ROUNDING_S = 1e-6  # of sums of times: 7.9999999 s are eight


@dataclass(frozen=True, repr=False)
class FramesCodec(Spec):
    """Frames of a video for a model that reads pictures.

    Args:
        image: codec of a frame.
        most: frames that are looked at.
        rate_hz: no more frames a second than this.
        longest_s: longer videos are refused, by what they say of themselves, before they are decoded.
        before, after: texts around the frames; {frames} is how many they are, {words} the same in English words, {length} H:MM:SS.
        mark: text before each frame; {time} is its time as MM:SS.

    Source: frames as pictures: LLaVA-NeXT-Interleave (2407.07895), section 3; times as texts: SmolVLM (2504.05299), section 3.
    """

    image: Spec
    _: KW_ONLY
    most: int = 8
    rate_hz: float = 1.0
    longest_s: float = 3_600.0
    before: str = ""
    mark: str = ""
    after: str = ""

    def check(self) -> list[str]:
        good = self.most >= 1 and self.rate_hz > 0 and self.longest_s > 0
        return [] if good else [f"most is {self.most}, rate_hz {self.rate_hz} and longest_s {self.longest_s}; wanted all above 0"]

    def chosen(self, count: int, rate_hz: float) -> list[int]:
        """Which of ``count`` steps of time are looked at: the middle ones of equal stretches; of a video of even frames they are its frames."""
        number = max(1, min(self.most, count, math.ceil(count / rate_hz * self.rate_hz)))
        return [int((stretch + 0.5) * count / number) for stretch in range(number)]

    def encode(self, video: Video) -> list[Any]:
        """A video -> texts, and what the codec of pictures makes of each frame, as they follow each other.

        Raises:
            MediaError: missing, broken, not a video, too large, or too long.
        """
        frames: list[tuple[float, list[Any]]] = []
        with ExitStack() as stack:
            shown = read_frames(video, stack)
            if shown.length_s > self.longest_s:
                raise MediaError(f"the video lasts {shown.length_s:,.0f} s, wanted at most {self.longest_s:,.0f}; cut it")
            count, rate_hz = shown.steps()
            wanted = self.chosen(count, rate_hz)
            for step, picture in zip(wanted, shown.looks(wanted), strict=True):
                made = self.image.encode(Image(torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255))
                frames.append((step / rate_hz + ROUNDING_S, made if isinstance(made, list) else [made]))
        length = int(shown.length_s + ROUNDING_S)
        about = {"frames": len(frames), "words": cardinal(len(frames)), "length": f"{length // 3600}:{length // 60 % 60:02d}:{length % 60:02d}"}
        out: list[Any] = [self.before.format(**about)]
        for seconds, made in frames:
            out += [self.mark.format(time=f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"), *made]
        return _merged([*out, self.after.format(**about)])


def _merged(pieces: list[Any]) -> list[Any]:
    """Texts that follow each other as one, and empty ones left out: a tokenizer may join what stands side by side."""
    out: list[Any] = []
    for piece in pieces:
        if isinstance(piece, str) and out and isinstance(out[-1], str):
            out[-1] += piece
        elif not isinstance(piece, str) or piece:
            out.append(piece)
    return out
