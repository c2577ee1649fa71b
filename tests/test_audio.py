"""Sounds: decoded rightly whatever their kind, rate and channels; bad ones refused in words; log-mel as the published extractor makes it."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sensorium as sn
from sensorium.codecs.audio import AudioCodec, load_audio, read_sound_info, sound_length, stream_audio
from sensorium.codecs.waves import log_mel, mel_filters, resample
from sensorium.types import ConfigError, MediaError

RATE = 16_000


def sine(hz: float = 440.0, rate_hz: int = RATE, length_s: float = 1.0, level: float = 0.5) -> torch.Tensor:
    return (level * torch.sin(2 * math.pi * hz * torch.arange(int(rate_hz * length_s), dtype=torch.float64) / rate_hz)).float()


def wav(x: torch.Tensor | np.ndarray, rate_hz: int = RATE, kind: str = "WAV", coding: str = "PCM_16") -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.asarray(x), rate_hz, format=kind, subtype=coding)
    return buffer.getvalue()


def encoded(kind: str, coding: str, x: torch.Tensor, rate_hz: int = 48_000, layout: str = "mono", film: bool = False) -> bytes:
    """Through FFmpeg: what soundfile does not write."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as out:
        picture = out.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p") if film else None
        track = out.add_stream(coding, rate=rate_hz, layout=layout)
        if picture is not None:
            for packet in [*picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))), *picture.encode(None)]:
                out.mux(packet)
        count = len(av.AudioLayout(layout).channels)
        frame = av.AudioFrame.from_ndarray(np.repeat(x.numpy()[None], count, axis=0), format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        for packet in [*track.encode(frame), *track.encode(None)]:
            out.mux(packet)
    return buffer.getvalue()


def loudest_hz(x: torch.Tensor, rate_hz: int = RATE) -> float:
    power = torch.fft.rfft(x * torch.hann_window(len(x))).abs()
    return float(power.argmax()) * rate_hz / len(x)


@pytest.mark.parametrize(("kind", "coding"), [
    ("WAV", "PCM_16"), ("WAV", "PCM_U8"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAVEX", "PCM_32"),
    ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("RF64", "PCM_16"), ("CAF", "ALAC_16"),
    ("MP3", "MPEG_LAYER_III"), ("W64", "PCM_16")])
def test_kinds_that_soundfile_writes(kind: str, coding: str) -> None:
    x = load_audio(wav(sine(), kind=kind, coding=coding))
    assert abs(len(x) - RATE) <= 160 and abs(loudest_hz(x[2000:14000]) - 440) < 2 and 0.45 < float(x[2000:14000].max()) < 0.56


@pytest.mark.parametrize(("kind", "coding", "film"), [
    ("mp4", "aac", False), ("ipod", "aac", False), ("webm", "libopus", False), ("adts", "aac", False), ("avi", "pcm_s16le", False),
    ("mov", "pcm_s16le", False), ("mp4", "aac", True), ("matroska", "libopus", True), ("mpegts", "aac", False)])
def test_kinds_that_ffmpeg_reads(kind: str, coding: str, film: bool) -> None:
    data = encoded(kind, coding, sine(rate_hz=48_000), film=film)
    x = load_audio(sn.Video(data) if film else data)
    assert abs(len(x) - RATE) <= 900 and abs(loudest_hz(x[2000:14000]) - 440) < 3


def test_content_counts_not_the_ending(tmp_path: Path) -> None:
    for name, data in (("a.mp3", wav(sine())), ("b.raw", wav(sine(), kind="FLAC")), ("c", encoded("mp4", "aac", sine(rate_hz=48_000)))):
        (tmp_path / name).write_bytes(data)
        assert abs(loudest_hz(load_audio(tmp_path / name)[2000:14000]) - 440) < 3
        assert abs(sound_length(tmp_path / name) - 1) < 0.06


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_channels_become_one(channels: int) -> None:
    x = load_audio(wav(sine()[:, None].repeat(1, channels).numpy(), coding="FLOAT"))
    torch.testing.assert_close(x, sine(), atol=1e-6, rtol=0)


def test_surround_keeps_the_voice_and_drops_the_rumble() -> None:
    x = np.zeros((RATE, 6), np.float32)
    x[:, 3] = sine(50)  # the low-frequency channel
    assert float(load_audio(wav(x, coding="FLOAT")).abs().max()) == 0
    x[:, 2] = sine(300)  # the centre, where people speak
    assert float(load_audio(wav(x, coding="FLOAT")).abs().max()) > 0.1
    found = load_audio(encoded("mp4", "aac", sine(rate_hz=48_000), layout="5.1"))
    assert abs(loudest_hz(found[2000:14000]) - 440) < 3


@pytest.mark.parametrize(("source_hz", "target_hz"), [(8_000, 16_000), (11_025, 16_000), (22_050, 16_000), (44_100, 16_000), (48_000, 16_000),
                                                      (96_000, 16_000), (16_000, 24_000), (24_000, 44_100), (192_000, 16_000)])
def test_sines_stay_sines_at_other_rates(source_hz: int, target_hz: int) -> None:
    for share in (0.05, 0.4):
        hz = share * min(source_hz, target_hz)
        found = resample(sine(hz, source_hz), source_hz, target_hz)
        edge = target_hz // 50
        assert len(found) == target_hz
        torch.testing.assert_close(found[edge:-edge], sine(hz, target_hz)[edge:-edge], atol=5e-5, rtol=0)


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    assert float(resample(sine(9_000, 48_000), 48_000, 16_000)[400:-400].abs().max()) < 1e-4
    odd = resample(sine(440, 44_099), 44_099, 16_000)
    assert len(odd) == 16_000 and abs(loudest_hz(odd) - 440) < 1
    x = sine()
    assert torch.equal(resample(x, RATE, RATE), x)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([8_000, 22_050, 44_100, 48_000, 16_000]), st.floats(0.01, 1.5))
def test_a_stream_is_the_whole(rate_hz: int, block_s: float) -> None:
    x = torch.randn(rate_hz * 2 + 17, generator=torch.Generator().manual_seed(rate_hz)) * 0.1
    audio = sn.Audio(x, rate_hz=rate_hz)
    blocks = list(stream_audio(audio, RATE, block_s))
    assert {len(block) for block in blocks[:-1]} <= {max(int(block_s * RATE), 1)}
    assert torch.equal(torch.cat(blocks), load_audio(audio))


def lying_header() -> bytes:
    data = bytearray(wav(sine()))
    data[40:44] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(data)


def no_rate(rate_hz: int) -> bytes:
    data = bytearray(wav(sine()))
    data[24:28] = struct.pack("<I", rate_hz)
    return bytes(data)


def no_channels(channels: int) -> bytes:
    data = bytearray(wav(sine()))
    data[22:24] = struct.pack("<H", channels)
    return bytes(data)


def changed(x: torch.Tensor, at: int, value: float) -> bytes:
    x = x.clone()
    x[at] = value
    return wav(x, coding="FLOAT")


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "nothing": (lambda: b"", "empty"),
    "text": (lambda: b"I am a letter to you, not a sound. " * 9, "not a sound"),
    "zeros": (lambda: b"\0" * 5000, "not a sound"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + b"\0" * 200, "not a sound"),
    "a zip": (lambda: b"PK\x03\x04" + b"\0" * 300, "not a sound"),
    "random bytes": (lambda: np.random.default_rng(0).bytes(3000), "not a sound|no samples"),
    "a riff head alone": (lambda: wav(sine())[:12], "not a sound"),
    "half a riff head": (lambda: wav(sine())[:30], "not a sound|no samples"),
    "a head without samples": (lambda: wav(sine()[:0]), "no samples"),
    "a flac head alone": (lambda: wav(sine(), kind="FLAC")[:42], "not a sound|no samples|broken"),
    "an ogg page alone": (lambda: wav(sine(), kind="OGG", coding="VORBIS")[:58], "not a sound"),
    "an mp4 without its index": (lambda: encoded("mp4", "aac", sine(rate_hz=48_000))[:4000], "not a sound"),
    "half of a flac": (lambda: wav(torch.randn(RATE * 4).clamp(-1, 1), kind="FLAC")[:9000] + b"\xff" * 50_000, "broken|not a sound"),
    "not a number": (lambda: changed(sine(), 77, math.nan), "not numbers"),
    "infinity": (lambda: changed(sine(), 77, math.inf), "not numbers"),
    "samples of 16 bits as floats": (lambda: wav(sine() * 32768, coding="FLOAT"), "full scale"),
    "1 Hz": (lambda: no_rate(1), "samples a second|not a sound"),
    "0 Hz": (lambda: no_rate(0), "samples a second|not a sound"),
    "4 GHz": (lambda: no_rate(4_000_000_000), "samples a second|not a sound"),
    "0 channels": (lambda: no_channels(0), "channels|not a sound|broken"),
    "1,000 channels": (lambda: no_channels(1000), "channels|not a sound"),
    "a missing file": (lambda: "/no/such/sound.wav", "missing"),
    "a folder": (lambda: str(Path(__file__).parent), "a folder"),
    "a name with a zero byte": (lambda: "a\0b.wav", "missing|cannot be read"),
    "an address": (lambda: "http://127.0.0.1:9/a.wav", "missing"),
    "a playlist": (lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "not a sound"),
    "a list of files": (lambda: b"ffconcat version 1.0\nfile '/etc/passwd'\n", "not a sound"),
    "a session description": (lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\n", "not a sound"),
    "a film without sound": (lambda: silent_film(), "no sound"),
    "a number": (lambda: 7, "wanted a path"),
    "a tensor of two rows": (lambda: sn.Audio(torch.zeros(2, 9), rate_hz=RATE), "wanted float"),
    "whole numbers": (lambda: sn.Audio(torch.zeros(900, dtype=torch.int16), rate_hz=RATE), "wanted float"),
    "a tensor without a rate": (lambda: sn.Audio(torch.zeros(900)), "rate_hz"),
    "an empty tensor": (lambda: sn.Audio(torch.zeros(0), rate_hz=RATE), "no samples"),
    "a tensor that is not a number": (lambda: sn.Audio(torch.full((900,), math.nan), rate_hz=RATE), "not numbers"),
    "a tensor at 3 Hz": (lambda: sn.Audio(torch.zeros(900), rate_hz=3), "samples a second"),
}


def silent_film() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        track = out.add_stream("mpeg4", rate=10, width=32, height=32, pix_fmt="yuv420p")
        for packet in [*track.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))), *track.encode(None)]:
            out.mux(packet)
    return buffer.getvalue()


@pytest.mark.parametrize("name", REFUSED)
def test_bad_sounds_are_refused_in_words(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, words = REFUSED[name]
    with pytest.raises(MediaError, match=words) as caught:
        load_audio(make())
    assert ";" in str(caught.value), "an error says what to do"
    assert capfd.readouterr().err == "", "a library complained past us"


def test_odd_sounds_that_can_be_read() -> None:
    torch.testing.assert_close(load_audio(lying_header()), sine(), atol=1e-4, rtol=0)
    torch.testing.assert_close(load_audio(wav(sine())[: 44 + RATE]), sine()[: RATE // 2], atol=1e-4, rtol=0)  # cut short: what is there
    assert len(load_audio(wav(sine()[:1]))) == 1
    assert float(load_audio(wav(sine() * 3, coding="FLOAT")).max()) > 1.4, "a float file may go past 1"
    assert len(load_audio(b"ID3\x03\0\0\0\0\0\x0a" + b"\0" * 10 + wav(sine(), kind="MP3", coding="MPEG_LAYER_III"))) > 15_000


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"), ("mp4", "aac"), ("webm", "libopus")]),
       st.integers(0, 2**32), st.booleans())
def test_damaged_sounds_never_crash(kind: tuple[str, str], seed: int, cut: bool) -> None:
    data = bytearray(_whole(kind))
    rng = np.random.default_rng(seed)
    if cut:
        data = data[: int(rng.integers(len(data)))]
    for _ in range(int(rng.integers(1, 12))):
        if data:
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
    try:
        found = load_audio(bytes(data), limit_s=60)
    except MediaError:
        return
    assert found.dim() == 1 and torch.isfinite(found).all()


def _whole(kind: tuple[str, str], made: dict[tuple[str, str], bytes] = {}) -> bytes:  # noqa: B006 (made once)
    if kind not in made:
        made[kind] = wav(sine(), kind=kind[0], coding=kind[1]) if kind[0].isupper() else encoded(*kind, sine(rate_hz=48_000))
    return made[kind]


def test_long_sounds_are_refused_whole_and_streamed_in_blocks(tmp_path: Path) -> None:
    path = tmp_path / "long.ogg"
    with soundfile.SoundFile(path, "w", samplerate=8_000, channels=1, format="OGG", subtype="OPUS") as out:
        for _ in range(8):
            out.write(np.zeros(8_000 * 30, np.float32))
    assert path.stat().st_size < 250_000 and abs(sound_length(path) - 240) < 1
    with pytest.raises(MediaError, match="cut it, or stream it"):
        load_audio(path, limit_s=239)
    sizes = [len(block) for block in stream_audio(path, RATE, block_s=10)]
    assert max(sizes) == 10 * RATE and abs(sum(sizes) - 240 * RATE) < RATE
    first = next(stream_audio(path, RATE, block_s=1))
    assert len(first) == RATE


def test_holes_in_the_time_stamps_are_silence() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as out:
        track = out.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for start_s in (0, 3):
            frame = av.AudioFrame.from_ndarray((sine() * 32767).short().numpy()[None], format="s16", layout="mono")
            frame.sample_rate, frame.pts = RATE, start_s * RATE
            out.mux(track.encode(frame))
        out.mux(track.encode(None))
    x = load_audio(buffer.getvalue())
    assert abs(len(x) - 4 * RATE) < 50 and float(x[RATE + 100 : 3 * RATE - 100].abs().max()) == 0 and float(x[3 * RATE + 100 :].max()) > 0.4


@pytest.mark.parametrize("length_s", [0.5, 7.3, 31.0])
def test_log_mel_is_that_of_the_published_extractor(length_s: float) -> None:
    import transformers

    x = torch.randn(int(length_s * RATE), generator=torch.Generator().manual_seed(3)) * 0.1 + sine(300, length_s=length_s)
    theirs = transformers.WhisperFeatureExtractor()(x.numpy(), sampling_rate=RATE, return_tensors="np")["input_features"][0]
    found = AudioCodec().encode(sn.Audio(x, rate_hz=RATE))
    torch.testing.assert_close(found, torch.as_tensor(theirs), atol=1e-4, rtol=0)
    both = AudioCodec().encode_samples([x, x[: RATE // 4]])
    torch.testing.assert_close(both[0], found, atol=1e-6, rtol=0)


def test_mel_filters_and_frames() -> None:
    import transformers

    for mels in (80, 128):
        theirs = transformers.WhisperFeatureExtractor(feature_size=mels).mel_filters
        torch.testing.assert_close(mel_filters(mels, RATE, 400), torch.as_tensor(theirs.T, dtype=torch.float32), atol=1e-6, rtol=0)
    assert log_mel(torch.zeros(RATE)).shape == (80, 100)
    assert AudioCodec(frames=200, mels=40).encode(sn.Audio(sine(length_s=5), rate_hz=RATE)).shape == (40, 200)
    with pytest.raises(ConfigError, match="mels"):
        AudioCodec(mels=0)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3", ".WAV"])
def test_saved_sounds_come_back(tmp_path: Path, ending: str) -> None:
    path = sn.Audio(sine(rate_hz=24_000), rate_hz=24_000).save(tmp_path / "new" / f"a{ending}")
    found = load_audio(path, 24_000)
    assert abs(len(found) - 24_000) < 100 and abs(loudest_hz(found[3000:21000], 24_000) - 440) < 2
    again = sn.Audio(path).save(tmp_path / "b.wav")
    assert soundfile.info(str(again)).samplerate == 24_000
    assert [file.name for file in (tmp_path / "new").iterdir()] == [f"a{ending}"]


def test_sounds_that_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="wanted one of"):
        sn.Audio(sine(), rate_hz=RATE).save(tmp_path / "a.xyz")
    with pytest.raises(MediaError, match="cannot hold"):
        sn.Audio(sine(rate_hz=96_000), rate_hz=96_000).save(tmp_path / "a.mp3")
    with pytest.raises(MediaError, match="no samples"):
        sn.Audio(torch.zeros(0), rate_hz=RATE).save(tmp_path / "a.wav")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3"])
def test_a_sound_says_what_made_it(tmp_path: Path, ending: str) -> None:
    info = {"speaker": "kokoro", "voice": "af_heart", "text": "Hello, 世界"}
    path = sn.Audio(torch.sin(torch.arange(24_000) / 20) * 0.3, info, 24_000).save(tmp_path / f"said{ending}")
    assert read_sound_info(path) == info
    plain = sn.Audio(torch.zeros(4_000), {}, 16_000).save(tmp_path / f"plain{ending}")
    assert read_sound_info(plain) == {}
