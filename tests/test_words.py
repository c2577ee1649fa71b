"""Words of the command line: which name files, which are said; and what a file is, told by what stands in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image as Pillow

import sensorium as sn
from sensorium.cli import look, models, talk
from sensorium.cli.words import file_of, named_in, there, value
from sensorium.files import nearest

from .films import film
from .toys import saved_toy


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a few files and folders."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "frog").mkdir()
    for name in ("frog.webp", "photos/cat.png", "cover.jpg"):
        Pillow.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "main.py").write_text("print('hello')\n")
    (tmp_path / "notes.txt").write_text("Buy milk.\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("word, near", [
    ("frog.avif", "frog.webp"), ("FROG.WEBP", "frog.webp"), ("nosuchfile.heic", "cover.jpg"), ("photos/cta.png", "photos/cat.png"),
    ("photo/cat.png", "photos/cat.png"), ("./photos/dog", None), ("photos/", None), ("photos/cats", "photos/cat.png"), ("src/main.py", None),
    ("mian.py", "main.py"), ("note.txt", "notes.txt"), ("report.pdf", "notes.txt"), ("my holiday photo.heic", None),
    ("Screenshot 2026-11-30 at 10.22.33.png", None),
    ("青蛙.png", None), ("/nosuchfolder/film.mp4", None), ("/nosuchfolder/film", None), ("../talk.m4a", None), ("~/nosuch/photo.jpg", None),
    ("C:\\photos\\cat.png", None), ("https://example.com/cat.png", None), ("clip.MP4", None), ("photos/my cat.jpeg", None),
])
def test_what_looks_like_a_file_and_is_none_is_refused_with_the_nearest_name(here: Path, word: str, near: str | None) -> None:
    with pytest.raises(sn.MediaError) as error:
        value(word)
    said = str(error.value)
    assert (Path(word).name if "\\" not in word else word) in said
    assert near is None or near in said.partition("wanted")[2], said


@pytest.mark.parametrize("word", [
    "What is 3.5/2?", "3.5/2", "2/3.5", "3/4/2026", "and/or?", "and/or", "AC/DC", "TCP/IP", "24/7", "km/h", "he/she", "w/o",
    "Who wrote main.py?", "e.g. this", "e.g.", "What is node.js", "node.js", "asp.net", "U.S.A.", "i.e.", "a.k.a", "frog", "frogs", "v1.2.3", "...",
    "What is the difference between .jpg and .png", "What program opens photo.heic", "Describe frog.webp", "Is it in /etc/hosts",
    "What is in frog.webp?",
    "Save it as cat.png.", "What does https://example.com/cat.png show?", "Draw a red apple", "I said: look!", "1/2 + 1/3 =", "yes/no", "C#",
    "$5.50",
    "法国的首都是哪里？", "画一只猫，保存为cat.png", "描述frog.webp", "他/她", "这是什么.png？", "3.5/2等于多少", "什么是node.js", "猫/狗", "3.14",
    "C:", "~",
    "a" * 5000, "two\nlines.png", " ", "😀", "Dr. Who", "no.", "mp3", "The file is main.py", "hello.", "www.example.com",
])
def test_what_is_said_stays_a_text(here: Path, word: str) -> None:
    assert value(word) == sn.Text(word)


def test_a_file_is_what_it_holds(here: Path) -> None:
    Pillow.new("RGB", (8, 8)).save(here / "cover.mp4", "PNG")
    (here / "cover").write_bytes((here / "cover.jpg").read_bytes())
    assert [value(word).modality for word in ("cover.mp4", "cover", "photos/cat.png", "./cover.jpg")] == ["image"] * 4
    assert value("notes.txt") == sn.Text("Buy milk.\n") and value("main.py") == sn.Text("print('hello')\n")
    (here / "bom.txt").write_text("hé", encoding="utf-16")
    assert value("bom.txt") == sn.Text("hé")
    for name, data, says in (("a.pdf", b"%PDF-1.7\n\xe2", "is a PDF"), ("a.docx", b"PK\x03\x04\x14\0", "is a ZIP"), ("old.txt",
    "né".encode("latin-1"), "UTF-8"),
                             ("drawing.svg", b"<svg xmlns='x'/>", "is an SVG"), ("page.png", b"<html>404</html>",
                             "is a text, and so not a picture"),
                             ("none.png", b"", "is empty")):
        (here / name).write_bytes(data)
        with pytest.raises(sn.MediaError, match=says):
            value(name)


def test_a_file_that_is_only_spoken_of_is_noticed(here: Path) -> None:
    assert named_in("What is in 'frog.webp', and in dog.png?") == ["frog.webp"]
    assert named_in("Who wrote main.py?") == named_in("frog.webp") == []


def test_an_option_names_the_nearest_file_or_folder(here: Path) -> None:
    assert there("--mask", Path("cover.jpg"), "a picture") == Path("cover.jpg")
    with pytest.raises(sn.ConfigError, match=r"--mask cover.png is missing; wanted a picture; the nearest name there is cover.jpg"):
        there("--mask", Path("cover.png"), "a picture")
    with pytest.raises(sn.ConfigError, match="--adapter frgo is missing; .* frog$"):
        there("--adapter", Path("frgo"), "a folder", folder=True)
    with pytest.raises(sn.ConfigError, match="--adapter notes.txt is no folder"):
        there("--adapter", Path("notes.txt"), "a folder", folder=True)


def test_the_nearest_name_mends_every_part_of_a_path(here: Path) -> None:
    assert nearest("fotos/cat.jpg") == Path("photos/cat.png")
    assert nearest(here / "photo" / "cat.gif") == here / "photos/cat.png"
    assert nearest("main.py/x") is None and nearest("photos/zzzzzzzz") is None and nearest("") is None
    assert file_of("photos") is None


def test_index_lists_and_counts_what_it_passes_over(here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture) -> None:
    toy = str(saved_toy(tmp_path_factory.mktemp("toy") / "toy"))
    for name in ("cover", "frog[1].mpo"):
        (here / name).write_bytes((here / "cover.jpg").read_bytes())
    (here / "torn.avif").write_bytes(b"\0\0\0\x1cftypavif")
    look.index(here, tmp_path_factory.mktemp("table") / "t", toy)
    said = capsys.readouterr()
    assert "5 new, 0 already known, 1 left out, 2 passed over; 5 pictures" in said.out
    assert "main.py: a text" in said.err and "notes.txt: a text" in said.err and "torn.avif" in said.err


def test_commands_refuse_by_name_what_they_cannot_take(here: Path) -> None:
    film(here / "silent.wav")
    film(here / "talk.png", sound="aac")
    for call, says in ((lambda: talk._check_heard(Path("silent.wav")), "silent.wav is an MP4 film without sound"),
                       (lambda: talk._check_heard(Path("frog.webp")), "frog.webp is a WEBP picture"),
                       (lambda: talk._check_heard(Path("notes.txt")), "notes.txt is a text"),
                       (lambda: talk._check_heard(Path("talk.wav")), "talk.wav is missing; .* talk.png"),
                       (lambda: talk._shown(Path("notes.txt")), "--image notes.txt is a text"), (lambda: talk._shown(Path("frgo.webp")), "frog.webp"),
                       (lambda: talk._words_of("frog.webp"), "frog.webp is a file of image"), (lambda: talk._words_of("nots.txt"), "notes.txt"),
                       (lambda: models._made_by(Path("main.py")), "main.py is a text")):
        with pytest.raises(ValueError, match=says):
            call()
    talk._check_heard(Path("talk.png"))
    assert talk._shown(Path("talk.png")).modality == "video" and talk._words_of("notes.txt") == "Buy milk.\n" and talk._words_of("Hi.") == "Hi."
    assert models._made_by(Path("talk.png")) == models._made_by(Path("frog.webp")) == {}
