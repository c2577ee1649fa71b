"""Films and animations."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import sensorium as sn
from sensorium.codecs.clips import load_video
from sensorium.codecs.films import read_frames

RED, GREEN, BLUE, WHITE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (128, 128, 128)
PURE = (RED, GREEN, BLUE, WHITE)
UNEVEN_MS = [0, *range(8000, 10000, 40)]  # 51 frames: one that is held for eight seconds, then 25 a second
TELL = dict(before="{frames} of {length}:", mark=" {time}")


def plain(colours: Iterable[Sequence[int] | int], width: int = 64, height: int = 64) -> list[np.ndarray]:
    """Frames of one colour each."""
    return [np.full((height, width, 3), colour, np.uint8) for colour in colours]


def quarters(width: int, height: int) -> np.ndarray:
    """Red and green above blue and white."""
    out = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(PURE):
        top, left = number // 2 * height // 2, number % 2 * width // 2
        out[top : top + height // 2, left : left + width // 2] = colour
    return out


def film(frames: Sequence[np.ndarray], kind: str = "mp4", coding: str = "libx264", rate: int = 10, times: Sequence[int] | None = None,
         tick: Fraction | None = None, pixels: str = "yuv420p", turn: tuple[int, bool, bool] | None = None, sound_s: float = 0,
         **settings: Any) -> bytes:
    """A film by FFmpeg, with silence beside it if asked for; ``settings`` are of the coder."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        track = container.add_stream(coding, rate=rate)
        track.height, track.width = frames[0].shape[:2]
        track.pix_fmt, track.options = pixels, {"libx264": {"crf": "12"}, "libvpx": {"auto-alt-ref": "0"}}.get(coding, {})
        for name, value in settings.items():
            setattr(track.codec_context, name, value)
        if turn:
            track.set_display_rotation(*turn)
        silence = container.add_stream("aac", rate=16_000, layout="mono") if sound_s else None
        for number, x in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(x, format="rgb24" if x.shape[2] == 3 else "rgba")
            if times is not None:
                frame.pts, frame.time_base = times[number], tick
            container.mux(track.encode(frame))
        container.mux(track.encode())
        for number in range(round(sound_s * 16_000) // 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * number
            container.mux(silence.encode(frame))
        container.mux(silence.encode() if silence else [])
    return file.getvalue()


def cut(content: bytes, seconds: float, kind: str = "mp4", first: int = 0, turn: int | None = None) -> bytes:
    """The same packets from the ``first`` on, ``seconds`` later, in another file: nothing is encoded anew."""
    file = io.BytesIO()
    with av.open(io.BytesIO(content)) as given, av.open(file, "w", format=kind) as container:
        track = container.add_stream_from_template(given.streams.video[0])
        if turn:
            track.set_display_rotation(turn)
        for packet in [packet for packet in given.demux(video=0) if packet.size][first:]:
            packet.pts, packet.dts = (stamp + int(seconds / packet.time_base) for stamp in (packet.pts, packet.dts))
            packet.stream = track
            container.mux(packet)
    return file.getvalue()


def animation(frames: Sequence[Any], kind: str, duration: Any, **options: Any) -> bytes:
    """An animated picture by Pillow, of arrays or pictures."""
    first, *rest = (x if isinstance(x, Pillow.Image) else Pillow.fromarray(x) for x in frames)
    file = io.BytesIO()
    first.save(file, kind, save_all=True, append_images=rest, duration=duration, **({"lossless": True} if kind == "WEBP" else {}), **options)
    return file.getvalue()


def gif(*frames: tuple[tuple[int, int, int, int], int, int, int], seen_through: int | None = None) -> bytes:
    """A GIF of 16 x 16 pixels: for each frame a box, the colour that fills it (of ``PURE``), hundredths of a second, and how it is disposed of."""
    out = b"GIF89a" + struct.pack("<HHBBB", 16, 16, 0xF1, 0, 0) + bytes(value for colour in PURE for value in colour)
    for (left, top, width, height), colour, delay, disposal in frames:
        bits, size = 0, 0
        for code in [code for _ in range(width * height) for code in (4, colour)] + [5]:  # a clear code before each: no dictionary is built
            bits, size = bits | code << size, size + 3
        data = bits.to_bytes(size // 8 + 1, "little")
        blocks = b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
        out += b"\x21\xf9\x04" + struct.pack("<BHBB", disposal << 2 | (seen_through is not None), delay, seen_through or 0, 0)
        out += b"\x2c" + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02" + blocks + b"\0"
    return out + b"\x3b"


def read(source: Any) -> tuple[list[float], float, float | None, list[Pillow.Image]]:
    """When the frames begin, how long they last together, how many there are a second if they are even, and the frames."""
    with ExitStack() as stack:
        frames = read_frames(source if isinstance(source, sn.Video) else sn.Video(source), stack)
        return list(frames.starts_s), frames.length_s, frames.rate_hz, list(frames.pictures(range(len(frames))))


def colours(picture: Pillow.Image) -> list[tuple[int, int, int]]:
    """Which of the pure colours the quarters of a picture have."""
    (width, height), out = picture.size, []
    for high, wide in ((1, 1), (1, 3), (3, 1), (3, 3)):
        seen = picture.getpixel((width * wide // 4, height * high // 4))
        out.append(min((*PURE, GREY), key=lambda colour: sum(abs(a - b) for a, b in zip(colour, seen, strict=True))))
    return out


def lights(pictures: Iterable[Pillow.Image]) -> list[int]:
    return [round(float(np.asarray(picture).mean())) for picture in pictures]


def told(source: Any, most: int = 8) -> list[tuple[str, int]]:
    """Each time that a model is told, and how light the frame is that stands behind it."""
    codec = sn.FramesCodec(sn.VisionCodec(8, mean=(0.0,) * 3, std=(1.0,) * 3), most=most, mark="{time}")
    made = codec.encode(source if isinstance(source, sn.Video) else sn.Video(source))
    return [(time, round(float(x.mean()) * 255)) for time, x in zip(made[::2], made[1::2], strict=True)]


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_the_rate_of_an_animation(kind: str) -> None:
    """An animated WebP, PNG or GIF of frames of 40 ms: 25 frames a second."""
    starts_s, length_s, rate_hz, pictures = read(animation(plain(PURE, 32, 32), kind, 40))
    assert (rate_hz, length_s) == (25.0, 0.16) and starts_s == pytest.approx([0, 0.04, 0.08, 0.12])
    assert [picture.getpixel((3, 3)) for picture in pictures] == list(PURE)


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF"])
def test_frames_of_an_animation_that_are_held(kind: str) -> None:
    """An animation of frames of 900, 100, 100 and 100 ms: is looked at by time, three times out of four at the first."""
    content = animation(plain(PURE, 32, 32), kind, [900, 100, 100, 100])
    starts_s, length_s, rate_hz, _ = read(content)
    assert starts_s == pytest.approx([0, 0.9, 1.0, 1.1]) and length_s == pytest.approx(1.2) and rate_hz is None
    assert load_video(sn.Video(content), 4)[:, :, 0, 0].tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]]  # at 0.15, 0.45, 0.75 and 1.05 s
    assert len(load_video(sn.Video(content))) == 4


def test_an_animated_avif() -> None:
    """An animated AVIF of frames of 100, 200 and 300 ms: they begin at 0, 0.1 and 0.3 s."""
    starts_s, length_s, _, pictures = read(animation(plain((RED, GREEN, BLUE), 32, 32), "AVIF", [100, 200, 300]))
    assert (starts_s, length_s) == (pytest.approx([0, 0.1, 0.3]), pytest.approx(0.6)) and [colours(x)[0] for x in pictures] == [RED, GREEN, BLUE]


def test_a_gif_without_times() -> None:
    """A GIF whose frames have no time, or 10 ms all of them: 100 ms each, as in browsers; beside others only those of no time."""
    whole, corner = (0, 0, 16, 16), (0, 0, 8, 8)
    for delay in (0, 1):
        assert read(gif((whole, 0, delay, 1), (corner, 1, delay, 1)))[1:3] == (0.2, 10.0)
    assert read(gif((whole, 0, 50, 1), (corner, 1, 0, 1), (whole, 2, 1, 1)))[:2] == (pytest.approx([0, 0.5, 0.6]), pytest.approx(0.61))


def test_a_gif_of_parts() -> None:
    """A GIF of parts that stay, are cleared, or give way to what was before: as FFmpeg puts them together, on white paper."""
    whole, corner, other = (0, 0, 16, 16), (0, 0, 8, 8), (8, 8, 8, 8)
    stays = read(gif((whole, 0, 10, 1), (corner, 1, 10, 1), (other, 2, 10, 1)))[3]
    assert [colours(picture) for picture in stays] == [[RED] * 4, [GREEN, RED, RED, RED], [GREEN, RED, RED, BLUE]]
    back = read(gif((whole, 0, 10, 1), (corner, 1, 10, 3), (other, 2, 10, 1)))[3]
    assert colours(back[2]) == [RED, RED, RED, BLUE]
    clear = read(gif((whole, 0, 10, 2), (corner, 1, 10, 2), (other, 2, 10, 1), seen_through=3))[3]
    assert [colours(picture) for picture in clear] == [[RED] * 4, [GREEN, WHITE, WHITE, WHITE], [WHITE, WHITE, WHITE, BLUE]]


def test_a_png_with_a_picture_for_old_programs() -> None:
    """An animated PNG with a default image outside the animation: that image is no frame."""
    content = animation(plain((RED, GREEN, BLUE), 32, 32), "PNG", [100, 200], default_image=True)
    starts_s, length_s, _, pictures = read(content)
    assert (starts_s, length_s) == ([0, 0.1], pytest.approx(0.3)) and [colours(x)[0] for x in pictures] == [GREEN, BLUE]


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_an_animation_that_can_be_seen_through(kind: str) -> None:
    """An animation that is transparent, or half: on white paper."""
    frames = [Pillow.new("RGBA", (32, 32), colour) for colour in ((0, 255, 0, 255), (255, 0, 0, 128), (0, 0, 255, 0))]
    assert [x.getpixel((9, 9)) for x in read(animation(frames, kind, 100))[3]] == [GREEN, (255, 127, 127), WHITE]


@pytest.mark.parametrize("kind", ["WEBP", "PNG"])
def test_a_turned_animation(kind: str) -> None:
    """An animation with an EXIF orientation: every frame stands upright."""
    exif = Pillow.Exif()
    exif[0x0112] = 6
    content = animation([quarters(64, 32), quarters(64, 32)[::-1]], kind, 100, exif=exif.tobytes())
    assert [(x.size, colours(x)) for x in read(content)[3]] == [((32, 64), [BLUE, RED, WHITE, GREEN]), ((32, 64), [RED, BLUE, GREEN, WHITE])]


@pytest.mark.parametrize(("kind", "coding"), [("matroska", "libx264"), ("webm", "libvpx-vp9"), ("mp4", "libx264"), ("mov", "mpeg4"),
                                              ("mpegts", "libx264"), ("flv", "libx264"), ("asf", "mpeg4"), ("avi", "mpeg4")])
def test_uneven_frames(kind: str, coding: str) -> None:
    """A film whose frames are unevenly apart (Matroska, WebM, MP4, MOV, TS, FLV, ASF, AVI): each has the time that its file says; the last, too."""
    content = film(plain(range(20, 224, 4)), kind, coding, rate=25, times=UNEVEN_MS, tick=Fraction(1, 1000))
    starts_s, length_s, rate_hz, pictures = read(content)
    assert starts_s == pytest.approx([time / 1000 for time in UNEVEN_MS], abs=0.002)
    assert length_s == pytest.approx(10.0, abs=0.002) and rate_hz is None
    assert lights(pictures) == pytest.approx(list(range(20, 224, 4)), abs=4)
    seen = told(content, most=5)
    assert [time for time, _ in seen] == ["00:01", "00:03", "00:05", "00:07", "00:09"]
    assert [light for _, light in seen] == pytest.approx([20] * 4 + [20 + 4 * 26], abs=5)  # at 9 s the 26th after the first
    made = sn.FramesCodec(sn.VisionCodec(8), **TELL).encode(sn.Video(content))
    assert made[0].startswith("8 of 0:00:10:")


def test_a_film_is_what_is_shown() -> None:
    """A frame that is held, and the same frame repeated: looks, times and patches are the same."""
    lasting = [2.0, 0.25, 0.5, 0.25]
    held = sn.Video(torch.tensor([0.1, 0.4, 0.7, 1.0])[:, None, None, None].expand(4, 3, 32, 32), durations_s=lasting)
    repeated = sn.Video(torch.tensor([0.1] * 8 + [0.4] + [0.7] * 2 + [1.0])[:, None, None, None].expand(12, 3, 32, 32), rate_hz=4.0)
    assert told(held) == told(repeated) and len(told(held)) == 3
    assert torch.equal(load_video(held, 7), load_video(repeated, 7))
    one, two = (sn.ClipCodec(sn.NativeCodec(patch=4, least=64, most=4096)).encode(video) for video in (held, repeated))
    assert torch.equal(one.value.value_PN, two.value.value_PN) and torch.equal(one.axes, two.axes) and one.value.seconds == two.value.seconds


def test_a_last_frame_that_is_held(tmp_path: Path) -> None:
    """A film or an animation that ends with a frame that is held: its length, too."""
    video = sn.Video(torch.eye(3)[:, :, None, None].expand(3, 3, 16, 16), durations_s=[0.1, 0.1, 0.8])
    for ending in ("mp4", "webm", "webp", "gif", "png"):
        starts_s, length_s, _, _ = read(video.save(tmp_path / f"a.{ending}"))
        assert starts_s == pytest.approx([0, 0.1, 0.2]) and length_s == pytest.approx(1.0), ending


@pytest.mark.parametrize("way", ["upright", "mirrored"])
def test_turned_films(way: str) -> None:
    """A film that its file turns or mirrors: stands as a player shows it."""
    for kind, coding in (("mp4", "libx264"), ("webm", "libvpx-vp9")):
        seen = {}
        for turn in ((0, 90, 180, -90) if way == "upright" else (0, 90)):
            for mirrored in ((False, False),) if way == "upright" else ((True, False), (False, True)):
                picture = read(film([quarters(64, 32)] * 2, kind, coding, turn=(turn, *mirrored)))[3][0]
                seen[turn, *mirrored] = picture.size, "".join("RGBW"[PURE.index(colour)] for colour in colours(picture))
        wide, high = (64, 32), (32, 64)  # counterclockwise, then mirrored, by av_display_rotation_set and av_display_matrix_flip
        assert seen == ({(0, False, False): (wide, "RGBW"), (90, False, False): (high, "GWRB"), (180, False, False): (wide, "WBGR"),
                         (-90, False, False): (high, "BRWG")} if way == "upright" else
                        {(0, True, False): (wide, "GRWB"), (0, False, True): (wide, "BWRG"), (90, True, False): (high, "WGBR"),
                         (90, False, True): (high, "RBGW")})


def test_a_film_that_is_turned_afterwards() -> None:
    """A film whose rotation is set without encoding it anew: 96 x 64 becomes 64 x 96, and what was on the right stands on top."""
    content = film([np.concatenate(plain([RED], 48, 64) + plain([BLUE], 48, 64), axis=1)] * 3)
    picture = read(cut(content, 0, turn=90))[3][0]
    assert picture.size == (64, 96) and colours(picture) == [BLUE, BLUE, RED, RED]
    picture = read(cut(content, 0, turn=180))[3][0]
    assert picture.size == (96, 64) and colours(picture) == [BLUE, RED, BLUE, RED]


@pytest.mark.parametrize(("kind", "coding"), [("mp4", "libx264"), ("mpegts", "libx264"), ("avi", "mpeg4")])
def test_pixels_that_are_not_square(kind: str, coding: str) -> None:
    """A film with pixels wider or higher than a square: 720 x 576 at 16:15 becomes 768 x 576, at 15:16 it becomes 720 x 614."""
    frame = quarters(720, 576)
    for aspect, size in ((Fraction(16, 15), (768, 576)), (Fraction(15, 16), (720, 614))):
        picture = read(film([frame], kind, coding, sample_aspect_ratio=aspect))[3][0]
        assert picture.size == size and colours(picture) == list(PURE)


@pytest.mark.parametrize("later", [0, 2])
def test_a_film_cut_without_encoding(later: int) -> None:
    """A film cut with stream copy, from the middle of what hangs on one key frame: only what its edit list shows is seen, and counts."""
    content = cut(film(plain(range(20, 220, 5)), max_b_frames=later), -2.5)
    starts_s, length_s, rate_hz, pictures = read(content)
    assert (len(pictures), length_s, rate_hz) == (15, 1.5, 10.0) and starts_s[0] == 0
    assert lights(pictures) == pytest.approx(range(145, 220, 5), abs=2)
    four = (load_video(sn.Video(content), 4).mean(dim=(1, 2, 3)) * 255).tolist()
    assert four == pytest.approx([150, 170, 190, 210], abs=2)  # frames 1, 5, 9 and 13 of 15


def test_a_film_of_two_pieces() -> None:
    """A film whose edit list shows two pieces of what was taken: these, one after the other."""
    content = film(plain(range(20, 220, 5)), max_b_frames=0, gop_size=10)
    at = content.index(b"elst") - 4
    old = int.from_bytes(content[at : at + 4], "big")
    new = struct.pack(">I4sII", 40, b"elst", 0, 2) + struct.pack(">iiIiiI", 1000, 0, 0x10000, 500, 10_240 * 3, 0x10000)  # 0..1 s and 3..3.5 s
    content = bytearray(content[:at] + new + content[at + old :])
    for box in (b"moov", b"trak", b"edts"):
        place = content.index(box) - 4
        content[place : place + 4] = (int.from_bytes(content[place : place + 4], "big") + 40 - old).to_bytes(4, "big")
    _, length_s, rate_hz, pictures = read(bytes(content))
    assert (length_s, rate_hz) == (1.5, 10.0) and lights(pictures) == pytest.approx([*range(20, 70, 5), *range(170, 195, 5)], abs=2)


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mpegts", "mov"])
def test_a_film_whose_clock_begins_later(kind: str) -> None:
    """A film without sound whose clock does not begin at 0: it begins at 0."""
    starts_s, length_s, rate_hz, pictures = read(cut(film(plain(range(20, 120, 5))), 0.5, kind))
    assert (starts_s[0], length_s, rate_hz) == (0, 2.0, 10.0) and lights(pictures) == pytest.approx(range(20, 120, 5), abs=2)


@pytest.mark.parametrize("kind", ["mp4", "matroska", "mpegts"])
def test_a_picture_later_than_the_sound(kind: str) -> None:
    """A film whose picture begins half a second after its sound: its times count from the sound; in step with it, from 0."""
    frames = plain(range(20, 120, 5))
    starts_s, length_s, rate_hz, _ = read(film(frames, kind, times=range(5, 25), tick=Fraction(1, 10), sound_s=2.5))
    assert starts_s[0] == pytest.approx(0.5, abs=0.07) and length_s == pytest.approx(2.5, abs=0.07) and rate_hz is None
    starts_s, length_s, rate_hz, _ = read(film(frames, kind, sound_s=4))
    assert (starts_s[0], length_s, rate_hz) == (0, 2.0, 10.0)


@pytest.mark.parametrize("kind", ["mpegts", "matroska"])
def test_a_film_that_begins_between_key_frames(kind: str) -> None:
    """A recording that begins between two key frames: what cannot be decoded is no frame; the times stay."""
    starts_s, length_s, _, pictures = read(cut(film(plain(range(20, 220, 5)), gop_size=20, max_b_frames=0), 0, kind, first=5))
    assert len(pictures) == 20 and lights(pictures) == pytest.approx(range(120, 220, 5), abs=2)
    assert (starts_s[0], length_s) == (pytest.approx(1.5), pytest.approx(3.5))


def test_recordings_one_behind_the_other() -> None:
    """Two TS recordings in one file: the second goes on where the first ends, and is given the size of the first."""
    one, two = (film(plain(light, width, 64), "mpegts") for light, width in ((range(20, 70, 5), 64), (range(120, 170, 5), 64)))
    _, length_s, rate_hz, pictures = read(one + two)
    assert (length_s, rate_hz) == (2.0, 10.0) and lights(pictures) == pytest.approx([*range(20, 70, 5), *range(120, 170, 5)], abs=3)


def test_a_film_that_changes_its_size() -> None:
    """A film whose pictures change their size on the way: all have the size of the first, undistorted, on white paper."""
    pictures = read(film(plain([100] * 5), "mpegts") + film(plain([100] * 5, 128, 64), "mpegts"))[3]
    assert {picture.size for picture in pictures} == {(64, 64)} and lights(pictures)[0] == pytest.approx(100, abs=2)
    assert pictures[-1].getpixel((32, 32))[0] == pytest.approx(100, abs=3) and pictures[-1].getpixel((32, 8)) == WHITE


@pytest.mark.parametrize(("kind", "coding", "later"), [("avi", "libx264", 2), ("avi", "mpeg4", 2), ("mp4", "libx264", 2), ("mpeg", "mpeg2video", 2),
                                                       ("mpegts", "mpeg2video", 2), ("flv", "libx264", 2), ("ogg", "libvpx", 0)])
def test_frames_in_another_order(kind: str, coding: str, later: int) -> None:
    """Films with B-frames (AVI, MP4, MPEG, TS, FLV): frames come in the order in which they are shown, from 0 on."""
    starts_s, length_s, rate_hz, pictures = read(film(plain(range(20, 180, 8)), kind, coding, rate=25, max_b_frames=later))
    assert starts_s == pytest.approx([number / 25 for number in range(20)]) and (length_s, rate_hz) == (0.8, 25.0)
    assert lights(pictures) == pytest.approx(range(20, 180, 8), abs=7)


def test_an_avi_that_lost_frames() -> None:
    """An AVI file with frames that were dropped: the frame before is held."""
    times = [0, 1, 2, 3, 5, 6, 9]
    starts_s, length_s, _, pictures = read(film(plain(range(20, 160, 20)), "avi", "mpeg4", rate=25, times=times, tick=Fraction(1, 25)))
    assert starts_s == pytest.approx([time / 25 for time in times]) and length_s == pytest.approx(0.4) and len(pictures) == 7


@pytest.mark.parametrize(("kind", "coding", "pixels"), [("webm", "libvpx-vp9", "yuva420p"), ("webm", "libvpx", "yuva420p"), ("mov", "png", "rgba"),
                                                        ("mov", "qtrle", "argb")])
def test_a_film_that_can_be_seen_through(kind: str, coding: str, pixels: str) -> None:
    """A film with transparency (VP8 and VP9 in WebM, PNG and Animation in MOV): on white paper."""
    frame = np.zeros((64, 64, 4), np.uint8)
    frame[:, :32] = (255, 0, 0, 255)
    _, length_s, _, pictures = read(film([frame] * 3, kind, coding, pixels=pixels, **({"bit_rate": 400_000} if kind == "webm" else {})))
    assert length_s == pytest.approx(0.3) and [colours(picture) for picture in pictures] == [[RED, WHITE, RED, WHITE]] * 3


@pytest.mark.parametrize(("matrix", "full", "pixels"), [("ITU709", 1, "yuv420p"), ("ITU709", 2, "yuvj420p"), ("ITU709", 1, "yuv420p10le"),
                                                        ("SMPTE170M", 1, "yuv420p"), ("BT2020", 1, "yuv420p10le")])
def test_colours_of_a_film(matrix: str, full: int, pixels: str) -> None:
    """A film in BT.709, BT.601 or BT.2020, in full or limited range, of 8 or 10 bits: the colours that it was made of."""
    file, number = io.BytesIO(), {"ITU709": 1, "SMPTE170M": 6, "BT2020": 9}[matrix]
    with av.open(file, "w", format="mp4") as container:
        track = container.add_stream("libx264", rate=10)
        track.width, track.height, track.pix_fmt, track.options = 1280, 720, pixels, {"crf": "1", "preset": "ultrafast"}
        track.codec_context.colorspace, track.codec_context.color_range = number, full
        frame = av.VideoFrame.from_ndarray(np.full((720, 1280, 3), (200, 150, 30), np.uint8), format="rgb24")
        container.mux([*track.encode(frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=full)), *track.encode()])
    assert read(file.getvalue())[3][0].getpixel((640, 360)) == pytest.approx((200, 150, 30), abs=4)


def test_which_of_two_pictures() -> None:
    """A file with two picture tracks: the one that is flagged as default."""
    from av.stream import Disposition

    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        tracks = [container.add_stream("libx264", rate=10) for _ in range(2)]
        for track, disposition in zip(tracks, (Disposition.comment, Disposition.default), strict=True):
            track.width = track.height = 64
            track.pix_fmt, track.disposition = "yuv420p", disposition
        for light, track in zip((60, 160), tracks, strict=True):
            container.mux([*track.encode(av.VideoFrame.from_ndarray(plain([light])[0], format="rgb24")), *track.encode()])
    assert lights(read(file.getvalue())[3]) == pytest.approx([160], abs=2)


def test_a_cover_is_no_film() -> None:
    """A sound with a cover: is not a video, and says so."""
    from av.stream import Disposition

    file, still = io.BytesIO(), io.BytesIO()
    Pillow.new("RGB", (64, 64), RED).save(still, "JPEG")
    with av.open(file, "w", format="mp4") as container:
        silence, cover = container.add_stream("aac", rate=16_000, layout="mono"), container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt, cover.disposition = "yuvj420p", Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        packet = av.Packet(still.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = cover, 0, 0, Fraction(1, 1)
        container.mux([*silence.encode(frame), *silence.encode(), packet])
    with pytest.raises(sn.MediaError, match="no pictures in it but a cover"):
        read(file.getvalue())


@pytest.mark.parametrize("ending", ["webp", "png", "gif", "mp4", "webm"])
def test_what_is_written_lasts_as_long(ending: str, tmp_path: Path) -> None:
    """Eight frames at 8/3 a second, six of them alike, written in any format and from there in any other: 3 s, 2.25 of them of the first."""
    values = torch.zeros(8, 3, 16, 16)
    values[:6, 0] = values[6, 1] = values[7, 2] = 1
    made = sn.Video(values, rate_hz=8 / 3).save(tmp_path / f"a.{ending}")
    again = [sn.Video(made).save(tmp_path / f"b.{other}") for other in ("mp4", "webm", "webp", "gif", "png")]
    for path in (made, *again):
        starts_s, length_s, _, pictures = read(path)
        assert length_s == pytest.approx(3.0, abs=0.001), path
        first = {colours(x)[0]: start_s for start_s, x in zip(reversed(starts_s), reversed(pictures), strict=True)}
        assert first == pytest.approx({RED: 0, GREEN: 2.25, BLUE: 2.625}, abs=0.006), path


@pytest.mark.parametrize("ending", ["webp", "png", "gif", "mp4", "webm"])
def test_nothing_moves(ending: str, tmp_path: Path) -> None:
    """Eight frames at 8/3 a second that are all alike, written in any format: they last 3 s."""
    assert read(sn.Video(torch.full((8, 3, 16, 16), 0.5), rate_hz=8 / 3).save(tmp_path / f"a.{ending}"))[1] == pytest.approx(3.0)


@pytest.mark.parametrize(("rate_hz", "kept"), [(60, 60), (24, 60), (30_000 / 1001, 60), (7, 60), (120, 25)])
def test_rates_that_a_format_cannot_tell(rate_hz: float, kept: int, tmp_path: Path) -> None:
    """Sixty frames at 60, 24, 29.97 or 7 a second in formats that count in 10 or 1 ms: roundings do not add up; of 120 a second GIF gets 50."""
    video = sn.Video(torch.linspace(0, 1, 60)[:, None, None, None].expand(60, 3, 16, 16), rate_hz=rate_hz)
    for ending, tick_ms in (("gif", 10), ("webp", 1), ("png", 1)):
        picture = Pillow.open(io.BytesIO(video.save(tmp_path / f"a.{ending}").read_bytes()))
        lasts_ms = []
        for number in range(picture.n_frames):
            picture.seek(number)
            picture.load()
            lasts_ms.append(picture.info["duration"])
        assert len(lasts_ms) == (kept if ending == "gif" else 60) and sum(lasts_ms) == pytest.approx(60_000 / rate_hz, abs=tick_ms / 2 + 1e-6)
        assert max(lasts_ms) - min(lasts_ms) <= tick_ms and read(tmp_path / f"a.{ending}")[1] == pytest.approx(60 / rate_hz, abs=0.0051)
