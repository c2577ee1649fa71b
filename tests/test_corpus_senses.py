"""The corpus's sounds and clips: splits that leak nothing, mixtures of voices, clips made smaller, work that is taken up where it stopped."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import sensorium as sn
from sensorium.codecs.clips import load_video
from sensorium.corpus import animated, spoken
from sensorium.corpus.split import is_unseen
from sensorium.files import read_lines

VOICES = [f"{kind}_{name}" for kind, count in (("af", 11), ("am", 9), ("bf", 4), ("bm", 4), ("zf", 4), ("zm", 4)) for name in "abcdefghijk"[:count]]
ROWS = [{"id": f"{0x1F300 + number:x}", "en": f"thing {number}", "zh": f"东西{number}"} for number in range(400)]


def test_no_voice_and_no_name_is_on_both_sides() -> None:
    splits = spoken.voice_splits(VOICES)
    everyone = [name for tongue in splits.values() for names in tongue.values() for name in names]
    assert sorted(everyone) == sorted(VOICES) and len(set(everyone)) == len(everyone)
    assert {kind: len(splits["en"][kind]) for kind in ("test", "val")} == {"test": 4, "val": 2} and len(splits["zh"]["test"]) == 2
    testing = {name for tongue in splits.values() for name in tongue["test"]}
    said = list(spoken.utterances(ROWS, VOICES))
    assert {one.take for one in said} == set(spoken.TAKES)
    for one in said:
        assert (one.voice in testing) == (one.take == "test")
        assert one.take == "test" or not spoken.never_heard(one.concept)
    unheard = {row["id"] for row in ROWS if spoken.never_heard(row["id"])}
    assert 0.1 < len(unheard) / len(ROWS) < 0.2
    assert unheard == {one.concept for one in said if one.take == "test"} & unheard
    assert len({one.path for one in said}) == len(said), "two utterances share a file"


def test_a_take_is_everything_once_in_both_languages() -> None:
    said = [one for one in spoken.utterances(ROWS, VOICES, ["mix0"])]
    heard = [row for row in ROWS if not spoken.never_heard(row["id"])]
    assert len(said) == 2 * len(heard) and {one.speed for one in said} <= {round(0.85 + 0.35 * i / 35, 2) for i in range(36)}
    assert len({one.voice for one in said}) > 80  # of 96 mixtures


def test_a_mixture_lies_between_two_training_voices(tmp_path: Path) -> None:
    (tmp_path / "kokoro" / "voices").mkdir(parents=True)
    (tmp_path / "kokoro" / "model.onnx").write_bytes(b"model")
    for number, name in enumerate(VOICES):
        np.full(4, number, np.float32).tofile(tmp_path / "kokoro" / "voices" / f"{name}.bin")
    mixed = spoken.mix_voices(tmp_path / "kokoro", tmp_path / "mixed")
    numbers = {VOICES[i]: i for i in range(len(VOICES))}
    for tongue, kind in (("en", "af"), ("zh", "zf")):
        train = [numbers[name] for name in spoken.voice_splits(VOICES)[tongue]["train"]]
        found = [float(np.fromfile(path, np.float32)[0]) for path in sorted((mixed / "voices").glob(f"{kind}_mix*.bin"))]
        assert len(found) == 48 and min(train) < min(found) and max(found) < max(train) and len(set(found)) > 40
    assert (mixed / "model.onnx").read_bytes() == b"model"


def test_what_cannot_be_spoken_is_refused_first(tmp_path: Path) -> None:
    with pytest.raises(sn.ConfigError, match="holds no concepts.jsonl"):
        spoken.record(tmp_path)
    (tmp_path / "concepts.jsonl").write_text(json.dumps(ROWS[0]), encoding="utf-8")
    with pytest.raises(sn.ConfigError, match="takes \\['song'\\] are not known"):
        spoken.record(tmp_path, ["song"])


def clip(frames: int, size: int = 20) -> bytes:
    """An animated WebP of a square that moves to the right."""
    pictures = []
    for number in range(frames):
        picture = Pillow.new("RGBA", (size, size), (0, 0, 0, 0))
        picture.paste((255, 0, 0, 255), (number % (size - 4), 4, number % (size - 4) + 4, 8))
        pictures.append(picture)
    out = io.BytesIO()
    pictures[0].save(out, "WEBP", save_all=True, append_images=pictures[1:], duration=40, lossless=True)
    return out.getvalue()


def test_a_clip_keeps_its_pace_with_fewer_frames() -> None:
    small = animated.shrink(clip(12), 16, 6, "a clip")
    picture = Pillow.open(io.BytesIO(small))
    picture.load()
    assert (picture.n_frames, picture.size, picture.info["duration"]) == (6, (16, 16), 80)
    assert animated.shrink(clip(1), 16, 6, "a still") is None
    with pytest.raises(sn.MediaError, match="not a moving picture"):
        animated.shrink(b"RIFF....", 16, 6, "rubbish")


def test_clips_are_listed_with_their_split_and_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sensorium.corpus.emoji import concept_id

    rows = [row for row in ROWS if concept_id(row["id"]) == row["id"]][:6]
    (tmp_path / "concepts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "downloads").mkdir()
    package = animated.CLIPS[0]
    with tarfile.open(tmp_path / "downloads" / package.file_name, "w:gz") as tar:
        for number, row in enumerate(rows):
            content = clip(4 if number else 1)  # the first is a still
            member = tarfile.TarInfo(f"package/assets/{row['id']}.webp")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setattr(animated, "CLIPS", (package,))
    monkeypatch.setattr(animated, "fetch_package", lambda package, folder, registry, watch: folder / package.file_name)
    assert animated.take_clips(tmp_path, size=16, frames=4, quiet=True) == 5
    (tmp_path / "clips" / f"{rows[2]['id']}.webp").unlink()
    kept = (tmp_path / "clips" / f"{rows[1]['id']}.webp").stat().st_mtime_ns
    assert animated.take_clips(tmp_path, size=16, frames=4, quiet=True) == 5
    assert (tmp_path / "clips" / f"{rows[1]['id']}.webp").stat().st_mtime_ns == kept, "what was there is made again"
    for row in read_lines(tmp_path / "clips.jsonl"):
        assert row["split"] == animated.clip_split(row["concept"]) == ("unseen" if is_unseen(row["concept"]) else row["split"])
        assert load_video(sn.Video(tmp_path / row["parts"][0]["video"])).shape == (4, 3, 16, 16)


def test_the_clip_split_has_its_shares() -> None:
    counts = {name: sum(animated.clip_split(row["id"]) == name for row in ROWS) for name in ("unseen", "test", "train")}
    rest = counts["test"] + counts["train"]
    assert counts["unseen"] == sum(is_unseen(row["id"]) for row in ROWS) and 0.5 < counts["test"] / rest < 0.7
