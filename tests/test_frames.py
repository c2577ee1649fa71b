"""Frames: equal steps of time, short cuts between key pictures, what is written of uneven frames, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

import sensorium as sn
from sensorium.codecs import films
from sensorium.codecs.clips import load_video
from sensorium.codecs.frames import Frames

from .inputs.test_films import film, plain, read


def frames(*starts_s: float, length_s: float, rate_hz: float | None = None) -> Frames:
    return Frames.timed(starts_s, length_s, [rate_hz] if rate_hz else [], 0.001, lambda wanted: iter(()))


def test_steps_are_as_short_as_the_shortest_frames() -> None:
    even = frames(0, 0.5, 1.0, length_s=1.5, rate_hz=2.0)
    assert even.steps() == (3, 2.0) and even.shown([0, 2]) == [0, 2]
    held = frames(0, 2.25, 2.625, length_s=3.0)
    assert held.steps() == (8, 8 / 3) and held.shown(range(8)) == [0] * 6 + [1, 2]
    rounded = frames(0, 0.25, 0.292, 0.333, 0.375, length_s=0.417)  # 24 a second, the first six times as long, in whole milliseconds
    assert rounded.steps()[0] == 10 and rounded.shown(range(10)) == [0] * 6 + [1, 2, 3, 4]
    late = frames(1.0, 1.5, length_s=2.0)
    assert late.steps() == (4, 2.0) and late.shown(range(4)) == [0, 0, 0, 1]


def test_times_are_even_but_for_their_rounding() -> None:
    assert frames(0, 0.033, 0.067, 0.1, length_s=0.133, rate_hz=30.0).rate_hz == 30.0
    assert frames(0, 0.033, 0.067, 0.103, length_s=0.133, rate_hz=30.0).rate_hz is None
    assert frames(0, 0.033, 0.067, 0.1, length_s=0.5, rate_hz=30.0).rate_hz is None, "the last is held"
    coarse = Frames.timed([0, 1, 2, 4], 5, [1.0], 1.0, lambda wanted: iter(()))
    assert coarse.rate_hz is None, "a clock as slow as the frames rounds nothing"


@pytest.mark.parametrize(("kind", "coding", "settings"), [
    ("mp4", "libx264", dict(max_b_frames=2)), ("matroska", "libx264", {}), ("mpegts", "libx264", dict(max_b_frames=2)), ("webm", "libvpx-vp9", {}),
    ("mpegts", "mpeg2video", dict(max_b_frames=2, bit_rate=2_000_000)), ("avi", "mpeg4", dict(max_b_frames=2))])
def test_short_cuts_show_the_same(kind: str, coding: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A few frames of many: bit for bit those of decoding everything, without decoding it."""
    content, packets = film(plain(range(20, 220, 4)), kind, coding, rate=25, gop_size=8, **settings), []
    whole = [np.asarray(picture) for picture in read(content)[3]]
    assert len(whole) == 50
    opened = films._decoder

    class Counting:
        def __init__(self, track: Any) -> None:
            self.decoder = opened(track)
            self.flush_buffers = self.decoder.flush_buffers

        def decode(self, packet: Any) -> Any:
            packets.append(packet)
            return self.decoder.decode(packet)

    monkeypatch.setattr(films, "_decoder", Counting)
    read_film = films._Film.read("the film", io.BytesIO(content))
    for wanted in ([0], [49], [3, 30], [7, 8, 9, 31, 48], [20, 20, 45], range(50)):
        packets.clear()
        seen = [np.asarray(picture) for picture in read_film.pictures(wanted)]
        assert all(np.array_equal(whole[index], x) for index, x in zip(wanted, seen, strict=True))
        assert len(packets) < 45 or kind == "avi" or len(wanted) == 50 or wanted == [49]
    packets.clear()
    list(read_film.pictures([3, 44]))
    assert len(packets) < 30 or kind == "avi"


@pytest.mark.parametrize(("kind", "coding"), [("matroska", "libx264"), ("webm", "libvpx-vp9")])
def test_key_pictures_that_are_none(kind: str, coding: str) -> None:
    """Packets that are wrongly marked as keys: what cannot be decoded from them is decoded from the beginning."""
    content = film(plain(range(20, 220, 4)), kind, coding, gop_size=200)
    right = films._Film.read("the film", io.BytesIO(content))
    assert len(right.keys) == 1
    wrong = replace(right, keys=list(enumerate(right.stamps)))
    for one, other in zip(right.pictures([5, 21, 37]), wrong.pictures([5, 21, 37]), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_uneven_frames_that_are_decoded(tmp_path: Path) -> None:
    x = torch.eye(3)[:, :, None, None].expand(3, 3, 16, 16)
    video = sn.Video(x, durations_s=[2.25, 0.375, 0.375])
    starts_s, length_s, rate_hz, _ = read(video)
    assert (starts_s, length_s, rate_hz) == ([0, 2.25, 2.625], 3.0, None)
    assert load_video(video, 4)[:, :, 0, 0].tolist() == [[1, 0, 0]] * 3 + [[0, 0, 1]]  # at 0.375, 1.125, 1.875 and 2.625 s
    assert read(sn.Video(x, durations_s=[0.5] * 3))[2] == 2.0
    for durations_s in ([1.0], [1.0, 0.0, 1.0], [1.0, float("nan"), 1.0]):
        with pytest.raises(sn.MediaError, match="wanted one above 0 for each"):
            read(sn.Video(x, durations_s=durations_s))
    with pytest.raises(sn.MediaError, match="700 s, in .gif at most 655; use .mp4"):
        sn.Video(x, durations_s=[700, 1, 1]).save(tmp_path / "a.gif")
    assert not (tmp_path / "a.gif").exists()
    assert read(sn.Video(x, durations_s=[700, 1, 1]).save(tmp_path / "a.png"))[:2] == ([0, 700, 701], 702)
    for ending in ("mp4", "webm", "webp", "png"):
        assert read(sn.Video(x, rate_hz=1 / 3000).save(tmp_path / f"b.{ending}"))[:2] == ([0, 3000, 6000], pytest.approx(9000)), ending


def test_a_written_film_says_which_colours_it_has(tmp_path: Path) -> None:
    """BT.601 in limited range, as RGB is converted to: a player has not to guess it from the size."""
    for ending in ("mp4", "webm"):
        with av.open(str(sn.Video(torch.rand(2, 3, 16, 16), rate_hz=5.0).save(tmp_path / f"a.{ending}"))) as container:
            frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (6, 1), ending


def test_a_coding_that_nobody_knows() -> None:
    content = film(plain([9, 99])).replace(b"avc1", b"xxxx")
    with pytest.raises(sn.MediaError, match="in a coding that is not known"):
        read(content)
