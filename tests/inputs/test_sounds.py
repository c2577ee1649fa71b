"""Sounds."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
import torch
from av.stream import Disposition

import sensorium as sn
from sensorium.codecs.audio import load_audio, sound_length, sound_track, stream_audio
from sensorium.codecs.channels import weights
from sensorium.types import MediaError

RATE = 48_000
HERTZ = {"FL": 300, "FR": 500, "FC": 700, "LFE": 60, "BL": 900, "BR": 1100, "SL": 1300, "SR": 1500, "BC": 1700}


def tone(hz: float, length_s: float = 1.0, rate_hz: int = RATE, level: float = 0.1) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(length_s * rate_hz)) / rate_hz)).astype(np.float32)


def level(x_T: torch.Tensor, hz: float, rate_hz: int = 16_000) -> float:
    """How loud a tone is, away from the ends."""
    x = x_T.numpy()[rate_hz // 10 : rate_hz // 10 + rate_hz // 2]
    turn = np.exp(-2j * np.pi * hz * np.arange(len(x)) / rate_hz)
    return 2 * abs(float(np.abs((x * turn).mean())))


def sounding(x_T: torch.Tensor) -> list[bool]:
    """Of each half second: it is loud."""
    return [float(x.abs().max()) > 0.02 for x in x_T.split(8_000)]


def gains(data: bytes, speakers: str) -> list[float]:
    """Share of each speaker, in the order of ``speakers``; each sounds a tone of its own at 0.1."""
    x_T = load_audio(data)
    return [round(level(x_T, HERTZ[name]) / 0.1, 2) for name in speakers.split()]


def by_soundfile(x: np.ndarray, kind: str = "WAV", coding: str = "PCM_16", rate_hz: int = RATE) -> bytes:
    """x: (T,) or (T, C)."""
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate_hz, format=kind, subtype=coding)
    return buffer.getvalue()


def by_ffmpeg(kind: str, coding: str, x_CT: np.ndarray, layout: str, rate_hz: int = RATE) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as out:
        track = out.add_stream(coding, rate=rate_hz, layout=layout)
        track.bit_rate = 12_200 if coding == "libopencore_amrnb" else 64_000 * len(track.layout.channels)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x_CT.T.reshape(1, -1)), format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
        for packet in [*track.encode(frame), *track.encode(None)]:
            out.mux(packet)
    return buffer.getvalue()


def film(tracks: Sequence[np.ndarray], flags: Sequence[int] = (), languages: Sequence[str] = (), late_s: float = 0.0, length_s: float = 1.0) -> bytes:
    """Matroska with a picture and sound tracks at 16 kHz; ``late_s`` is when the sound starts."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        picture = out.add_stream("mpeg4", rate=1, width=32, height=32, pix_fmt="yuv420p")
        streams = [out.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in tracks]
        for stream, flag in zip(streams, flags, strict=False):
            stream.disposition = Disposition(flag)
        for stream, language in zip(streams, languages, strict=False):
            stream.metadata["language"] = language
        for index in range(math.ceil(length_s)):
            still = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            still.pts = index
            out.mux(picture.encode(still))
        out.mux(picture.encode(None))
        for stream, x_T in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray((x_T * 32767).astype(np.int16)[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, int(late_s * 16_000)
            out.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()


# channels

FIVE_ONE = "FL FR FC LFE BL BR"
RIGHT = [0.21, 0.21, 0.29, 0.0, 0.15, 0.15]  # 1, 1, sqrt 2, 0, sqrt 1/2, sqrt 1/2 over their sum: ITU-R BS.775


def tones(speakers: str) -> np.ndarray:
    return np.stack([tone(HERTZ[name]) for name in speakers.split()])


@pytest.mark.parametrize(("kind", "coding", "order"), [
    ("WAV", "PCM_16", FIVE_ONE), ("WAVEX", "PCM_16", FIVE_ONE), ("RF64", "PCM_16", FIVE_ONE), ("W64", "PCM_16", FIVE_ONE),
    ("FLAC", "PCM_16", FIVE_ONE), ("AIFF", "PCM_16", FIVE_ONE), ("CAF", "PCM_16", FIVE_ONE), ("AU", "PCM_16", FIVE_ONE),
    ("OGG", "VORBIS", "FL FC FR BL BR LFE"), ("OGG", "OPUS", "FL FC FR BL BR LFE")])  # Vorbis I, 4.3.9; RFC 7845, 5.1.1.2
def test_six_channels_in_files_of_sound(kind: str, coding: str, order: str) -> None:
    """six channels in WAV, RF64, W64, FLAC, AIFF, CAF, AU, Ogg Vorbis or Ogg Opus: left, right, centre and the surrounds are mixed, whatever order
    the codec has them in; the low-frequency channel is left out."""
    assert gains(by_soundfile(tones(order).T, kind, coding), FIVE_ONE) == pytest.approx(RIGHT, abs=0.015)


@pytest.mark.parametrize(("kind", "coding", "layout"), [
    ("mp4", "aac", "5.1"), ("adts", "aac", "5.1"), ("webm", "libopus", "5.1"), ("ac3", "ac3", "5.1(side)"), ("matroska", "eac3", "5.1(side)"),
    ("mov", "pcm_s16le", "5.1"), ("mpegts", "ac3", "5.1(side)")])
def test_six_channels_in_films(kind: str, coding: str, layout: str) -> None:
    """six channels in MP4, ADTS, WebM, Matroska, MOV or MPEG-TS, as AAC, Opus, AC-3, E-AC-3 or PCM, 5.1 or 5.1(side): the same mix."""
    names = " ".join(channel.name for channel in av.AudioLayout(layout).channels)
    assert gains(by_ffmpeg(kind, coding, tones(names), layout), names) == pytest.approx(RIGHT, abs=0.015)


@pytest.mark.parametrize(("kind", "coding"), [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS")])
@pytest.mark.parametrize("order", ["FL FC FR", "FL FR BL BR", "FL FC FR BL BR", "FL FC FR SL SR BC LFE", "FL FC FR SL SR BL BR LFE"])
def test_other_counts_of_channels(kind: str, coding: str, order: str) -> None:
    """3, 4, 5, 7 or 8 channels in FLAC, Ogg Vorbis or Ogg Opus: mixed by the speakers that the format gives to that count."""
    if kind == "FLAC":  # RFC 9639, 9.1.3: in the order of WAV
        order = " ".join(sorted(order.split(), key=["FL", "FR", "FC", "LFE", "BL", "BR", "BC", "SL", "SR"].index))
    named = dict(zip(order.split(), weights(order.split()), strict=True))
    assert gains(by_soundfile(tones(order).T, kind, coding), order) == pytest.approx(list(named.values()), abs=0.02)


@pytest.mark.parametrize(("kind", "coding"), [("mp4", "aac"), ("webm", "libopus")])
def test_eight_channels_in_films(kind: str, coding: str) -> None:
    """7.1 in MP4 (AAC) or WebM (Opus): read, and mixed by its speakers."""
    names = "FL FR FC LFE BL BR SL SR"
    found = gains(by_ffmpeg(kind, coding, tones(names), "7.1"), names)
    assert found == pytest.approx([0.16, 0.16, 0.23, 0.0, 0.11, 0.11, 0.11, 0.11], abs=0.015)


@pytest.mark.parametrize("layout", ["stereo", "2.1", "3.0", "4.0", "quad", "quad(side)", "5.0", "5.1", "5.1(side)", "6.0", "6.0(front)", "hexagonal",
                                    "6.1", "6.1(back)", "7.0", "7.1", "7.1(wide)", "octagonal", "5.1.2", "7.1.2", "downmix"])
def test_the_mix_is_that_of_ffmpeg(layout: str) -> None:
    """any layout from stereo to 7.1.2: the shares are those of FFmpeg's own mix to mono, made to sum to one."""
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    theirs = []
    for index in range(len(names)):
        x_CT = np.zeros((len(names), 480), np.float32)
        x_CT[index] = 0.25
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(x_CT.T.reshape(1, -1)), format="flt", layout=layout)
        frame.sample_rate = RATE
        theirs.append(float(av.AudioResampler(format="flt", layout="mono").resample(frame)[0].to_ndarray()[0, 200]))
    assert weights(names) == pytest.approx(np.array(theirs) / sum(theirs), abs=1e-4)


def test_speakers_that_a_wav_names() -> None:
    """a WAV whose mask names front left, front right and low frequency: the third channel is left out."""
    data = bytearray(by_soundfile(tones("FL FR LFE").T, "WAVEX"))
    assert struct.unpack_from("<H", data, 20)[0] == 0xFFFE
    data[40:44] = struct.pack("<I", 0x1 | 0x2 | 0x8)  # SPEAKER_FRONT_LEFT, SPEAKER_FRONT_RIGHT, SPEAKER_LOW_FREQUENCY
    assert gains(bytes(data), "FL FR LFE") == pytest.approx([0.5, 0.5, 0.0], abs=0.01)


def test_channels_without_speakers() -> None:
    """five channels of a WAV that does not say what they are: an even mix."""
    assert gains(by_soundfile(tones("FL FR FC BL BR").T), "FL FR FC BL BR") == pytest.approx([0.2] * 5, abs=0.01)
    assert weights(["AMBI0", "AMBI1", "AMBI2", "AMBI3"]).tolist() == [1, 0, 0, 0]


# channels that cancel each other


def speechlike(length_s: float = 2.0, rate_hz: int = 16_000, seed: int = 0) -> np.ndarray:
    """Noise in syllables."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(length_s * rate_hz)) / rate_hz
    return (0.1 * rng.standard_normal(len(t)) * (1 + np.sin(2 * np.pi * 4 * t))).astype(np.float32)


@pytest.mark.parametrize("share", [-1.0, -0.95, -0.8])
def test_a_channel_turned_round(share: float) -> None:
    """stereo whose right channel is the left one turned round, or nearly: the left channel."""
    x = speechlike()
    found = load_audio(by_soundfile(np.stack([x, share * x], 1), coding="FLOAT", rate_hz=16_000))
    torch.testing.assert_close(found, torch.from_numpy(x), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("kind", "coding"), [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS")])
def test_a_channel_turned_round_and_coded(kind: str, coding: str) -> None:
    """the same as MP3 or Ogg Vorbis, which do not keep it exactly: as loud as the left channel."""
    x = tone(440, 2.0)
    assert level(load_audio(by_soundfile(np.stack([x, -x], 1), kind, coding)), 440) == pytest.approx(0.1, rel=0.05)


def test_channels_that_only_differ_are_mixed() -> None:
    """stereo of one voice left and another right, or with the right one quieter: their mean, as ever."""
    x, y = speechlike(), speechlike(seed=1)
    for left, right in ((x, y), (x, 0 * x), (x, 0.2 * x), (x, -0.5 * x)):
        found = load_audio(by_soundfile(np.stack([left, right], 1), coding="FLOAT", rate_hz=16_000))
        torch.testing.assert_close(found, torch.from_numpy((left + right) / 2), atol=1e-6, rtol=0)


def test_channels_that_begin_to_cancel() -> None:
    """stereo that is turned round from the second second on: the change does not click, pauses change nothing, and a stream is the whole."""
    x = tone(100, 4.0, 16_000, level=0.3)
    x[40_000:48_000] *= 1e-3
    turned = np.where(np.arange(len(x)) < 16_000, x, -x)
    data = by_soundfile(np.stack([x, turned], 1), coding="FLOAT", rate_hz=16_000)
    found = load_audio(data)
    apart = (found - torch.from_numpy(x)).abs() > 1e-6
    assert int(apart.sum()) < 160 and not apart[:16_000].any() and not apart[16_160:].any()  # but for the fade of 10 ms
    assert torch.equal(torch.cat(list(stream_audio(data, block_s=0.037))), found)
    mixed = load_audio(by_soundfile(np.stack([x, np.where(np.arange(len(x)) < 16_000, 0 * x, -x)], 1), coding="FLOAT", rate_hz=16_000))
    steepest = float(torch.from_numpy(x).diff().abs().max())
    assert float(mixed.diff().abs().max()) < steepest + 0.3 / 160  # no step but what the fade of 160 samples makes


# tracks

SPEECH, NOTHING = tone(440, 1.0, 16_000, level=0.5), np.zeros(16_000, np.float32)


def test_the_flagged_track() -> None:
    """a film whose second sound track has the default flag: the second."""
    assert level(load_audio(film([NOTHING, SPEECH], [0, Disposition.default])), 440) > 0.4
    assert level(load_audio(film([SPEECH, NOTHING], [Disposition.default, 0])), 440) > 0.4


def test_a_comment_is_not_the_films_sound() -> None:
    """a film whose first sound track is a comment, or tells the blind what is seen: the other."""
    for purpose in (Disposition.comment, Disposition.visual_impaired):
        assert level(load_audio(film([NOTHING, SPEECH], [purpose | Disposition.default, 0])), 440) > 0.4


@pytest.mark.parametrize("track", [2, "2", "de", "ger", "German", "de-CH"])
def test_a_track_that_is_named(track: int | str) -> None:
    """`Audio(film, track=2)`, or the track's language as a code or name: that track."""
    data = film([NOTHING, SPEECH], [Disposition.default, 0], ["eng", "ger"])
    assert level(load_audio(sn.Audio(data, track=track)), 440) > 0.4 and level(load_audio(data), 440) == 0


def test_the_tracks_are_told() -> None:
    """a film with several sound tracks: `transcribe` says which it reads, and the others."""
    data = film([NOTHING, SPEECH], [Disposition.comment, Disposition.default], ["eng", "ger"])
    assert sound_track(data) == "sound track 2 of 1 (eng, comment); 2 (ger, default)"
    assert sound_track(sn.Audio(data, track=1)).startswith("sound track 1 of") and sound_track(film([SPEECH])) == ""


def test_a_track_that_is_not_there() -> None:
    """a track that the film has not: refused with a list of those it has."""
    data = film([NOTHING, SPEECH], [Disposition.default, Disposition.comment], ["eng", "ger"])
    for track in (0, 3, "fr"):
        with pytest.raises(MediaError, match=r"it has 1 \(eng, default\); 2 \(ger, comment\); give one of the numbers"):
            load_audio(sn.Audio(data, track=track))
    with pytest.raises(MediaError, match="it has 1;"):
        load_audio(sn.Audio(by_soundfile(tone(440)), track=2))


# times


@pytest.mark.parametrize("late_s", [1.0, 650.0])
def test_sound_that_starts_late(late_s: float) -> None:
    """a film whose sound starts after its pictures, by a second or by eleven minutes: silence until then, so that times are the film's."""
    x_T = load_audio(film([SPEECH], late_s=late_s, length_s=late_s + 1))
    assert len(x_T) == pytest.approx((late_s + 1) * 16_000, abs=40)
    assert sounding(x_T) == [False] * int(2 * late_s) + [True, True] and sounding(x_T[int(late_s * 16_000) - 80 :])[0]


def test_rates_that_change() -> None:
    """MP3 or AAC whose rate changes on the way: both parts, at their own speed."""
    parts = [(rate_hz, tone(440, rate_hz=rate_hz)) for rate_hz in (48_000, 44_100)]
    for data in (b"".join(by_soundfile(x, "MP3", "MPEG_LAYER_III", rate_hz) for rate_hz, x in parts),
                 b"".join(by_ffmpeg("adts", "aac", x[None], "mono", rate_hz) for rate_hz, x in parts)):
        x_T = load_audio(data)
        assert len(x_T) == pytest.approx(32_000, abs=2_400)
        assert level(x_T[2_000:], 440) > 0.09 and level(x_T[18_500:], 440) > 0.09


def test_channels_that_change() -> None:
    """AC-3 that goes from stereo to 5.1 on the way, as broadcasts do: both parts, each mixed by its speakers."""
    two = by_ffmpeg("ac3", "ac3", np.stack([tone(300), tone(500)]), "stereo")
    x_T = load_audio(two + by_ffmpeg("ac3", "ac3", tones("FL FR FC LFE SL SR"), "5.1(side)"))
    assert [round(level(x_T[2_000:], hz) / 0.1, 1) for hz in (300, 500, 700)] == [0.5, 0.5, 0.0]
    assert [round(level(x_T[18_500:], hz) / 0.1, 1) for hz in (300, 500, 700)] == [0.2, 0.2, 0.3]


@pytest.mark.parametrize("coding", ["VORBIS", "OPUS"])
def test_chained_ogg(coding: str) -> None:
    """a recording of a radio station, several Ogg streams one after the other, also of other channels and rates: all of them."""
    parts = [tone(440), np.stack([tone(880)] * 2, 1), tones("FL FC FR BL BR LFE").T]
    data = b"".join(by_soundfile(x, "OGG", coding) for x in parts) + by_soundfile(tone(440, rate_hz=16_000), "OGG", coding, 16_000)
    x_T = load_audio(data)
    assert len(x_T) == pytest.approx(64_000, abs=100) and sound_length(data) == pytest.approx(4, abs=0.05)
    for second, hz, share in ((0, 440, 1), (1, 880, 1), (2, 300, 0.21), (3, 440, 1)):
        assert level(x_T[second * 16_000 :], hz) == pytest.approx(0.1 * share, abs=0.005)


def click(rate_hz: int = RATE, channels: int = 1) -> np.ndarray:
    """A short tone at half a second of one."""
    x = np.zeros(rate_hz, np.float32)
    x[rate_hz // 2 : rate_hz // 2 + rate_hz // 100] = tone(1000, 0.01, rate_hz, level=0.8)
    return np.repeat(x[:, None], channels, axis=1)


def where(data: bytes) -> tuple[float, float]:
    """Seconds to the click, and in all."""
    x_T = load_audio(data).abs()
    return int((x_T > 0.2 * x_T.max()).nonzero()[0]) / 16_000, len(x_T) / 16_000


@pytest.mark.parametrize(("kind", "coding"), [("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS"), ("OGG", "VORBIS")])
@pytest.mark.parametrize("channels", [1, 2])
def test_delays_of_coders(kind: str, coding: str, channels: int) -> None:
    """MP3 with a LAME tag, Ogg Opus, Ogg Vorbis: what the coder put before and after the sound is left out."""
    at_s, length_s = where(by_soundfile(click(channels=channels), kind, coding))
    assert at_s == pytest.approx(0.5, abs=0.001) and length_s == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize(("kind", "coding"), [("mp4", "aac"), ("ipod", "aac"), ("mov", "aac"), ("matroska", "aac"), ("webm", "libopus"),
                                             ("ipod", "alac")])
def test_delays_that_containers_tell(kind: str, coding: str) -> None:
    """M4A, MP4 or MOV with an edit list, Matroska or WebM with a codec delay: the sound starts where it started before it was coded."""
    at_s, length_s = where(by_ffmpeg(kind, coding, click().T, "mono"))
    assert at_s == pytest.approx(0.5, abs=0.001) and length_s == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_wav_that_was_never_finished(size: int, channels: int) -> None:
    """WAV whose header has a length of 0 or the greatest, as pipes and recorders that were cut off leave it: all that is there."""
    data = bytearray(by_soundfile(click(channels=channels)))
    data[40:44] = struct.pack("<I", size)
    assert where(bytes(data)) == (pytest.approx(0.5, abs=0.001), 1)


@pytest.mark.parametrize(("kind", "coding", "rate_hz"), [
    ("WAV", "PCM_U8", RATE), ("WAV", "PCM_24", RATE), ("WAV", "PCM_32", RATE), ("WAV", "DOUBLE", RATE), ("WAV", "ALAW", 8_000),
    ("WAV", "ULAW", 8_000), ("WAV", "IMA_ADPCM", RATE), ("WAV", "GSM610", 8_000), ("AIFF", "ALAW", 8_000), ("AIFF", "FLOAT", RATE),
    ("CAF", "ULAW", 8_000), ("AU", "ULAW", 8_000), ("NIST", "PCM_16", 16_000), ("VOC", "PCM_16", 44_100)])
def test_kinds_of_samples(kind: str, coding: str, rate_hz: int) -> None:
    """WAV of 8, 24 or 32 bits, float, A-law, mu-law, ADPCM or GSM; AIFF-C, CAF, AU, NIST Sphere, VOC: the sound."""
    at_s, length_s = where(by_soundfile(click(rate_hz)[:, 0], kind, coding, rate_hz))
    assert at_s == pytest.approx(0.5, abs=0.001) and length_s == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("kind", "coding", "rate_hz"), [
    ("amr", "libopencore_amrnb", 8_000), ("mp2", "mp2", RATE), ("wv", "wavpack", RATE), ("tta", "tta", RATE), ("w64", "pcm_s16le", RATE),
    ("asf", "wmav2", 44_100)])
def test_kinds_that_ffmpeg_decodes(kind: str, coding: str, rate_hz: int) -> None:
    """AMR, MP2, WavPack, TTA, W64, WMA: the sound, but for the coder's delay where the file does not tell it."""
    at_s, length_s = where(by_ffmpeg(kind, coding, click(rate_hz).T, "mono", rate_hz))
    assert at_s == pytest.approx(0.5, abs=0.05) and length_s == pytest.approx(1, abs=0.05)


def test_dsd() -> None:
    """DSF, one bit at 2.8 MHz: the sound."""
    count = 282_240 // 4
    wanted = 0.4 * np.sin(2 * np.pi * 440 * np.arange(count) / 2_822_400)
    bits = np.diff(np.floor(np.cumsum((wanted + 1) / 2)), prepend=0).astype(np.uint8)  # a sigma-delta modulator of first order
    body = np.packbits(bits, bitorder="little").tobytes()
    body += b"\x69" * (-len(body) % 4096)
    told = b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, 2_822_400, 1, count, 4096, 0)
    data = b"data" + struct.pack("<Q", 12 + len(body)) + body
    x_T = load_audio(b"DSD " + struct.pack("<QQQ", 28, 28 + len(told) + len(data), 0) + told + data)
    assert len(x_T) >= 400 and float(x_T[50:350].max()) == pytest.approx(0.4, abs=0.02)


def test_cover_art() -> None:
    """MP3 with a picture in its tag: the sound."""
    picture = b"\0image/jpeg\0\3\0\xff\xd8\xff\xe0" + b"\0" * 30
    tag = b"APIC" + struct.pack(">IH", len(picture), 0) + picture
    data = b"ID3\3\0\0" + bytes([0, 0, 0, len(tag)]) + tag + by_soundfile(click(), "MP3", "MPEG_LAYER_III")
    assert where(data) == (pytest.approx(0.5, abs=0.001), pytest.approx(1, abs=0.001))
