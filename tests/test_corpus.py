"""The corpus builder: downloads, names, drawings, split, and a whole build from tiny packages. No network beyond this machine."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sensorium import fetch
from sensorium.corpus import build as builder
from sensorium.corpus import clipart, describe, sources, split
from sensorium.corpus.draw import IconSet, draw_svg, icon_svg, open_picture, square
from sensorium.corpus.emoji import concept_id
from sensorium.corpus.names import RENAMED, NameBook, compact
from sensorium.corpus.sources import Package, Style
from sensorium.types import ConfigError, MediaError

from .web import serve

pytest.importorskip("resvg_py")
IDS = [f"{number:x}" for number in range(0x1F300, 0x1F700)]
ALL_STYLES = [style.name for style in sources.STYLES]
DOCS = Path(__file__).parent.parent / "docs" / "data.md"


# ---------------------------------------------------------------- downloads


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    with serve() as made:
        yield made


CONTENT = bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def _url(server: http.server.ThreadingHTTPServer) -> str:
    server.files["/a.tgz"] = CONTENT
    return f"http://127.0.0.1:{server.server_port}/a.tgz"


def test_fetch_goes_on_after_a_cut_connection(server, tmp_path):
    url, path = _url(server), tmp_path / "deep" / "a.tgz"
    server.cut = 1000
    with pytest.raises(MediaError, match="after 1000 of 16384 bytes"):
        fetch.fetch(url, path, SHA256)
    assert not path.exists() and path.with_name("a.tgz.part").stat().st_size == 1000
    server.cut = None
    progress: list[tuple[int, int]] = []
    assert fetch.fetch(url, path, SHA256, lambda *step: progress.append(step)) == path
    assert path.read_bytes() == CONTENT and server.asked == ["", "bytes=1000-"] and progress[-1] == (len(CONTENT), len(CONTENT))
    assert not path.with_name("a.tgz.part").exists()
    fetch.fetch(url, path, SHA256)
    assert len(server.asked) == 2, "a file that is there is not asked for again"


def test_fetch_starts_over_when_the_server_does_not_continue(server, tmp_path):
    url, path = _url(server), tmp_path / "a.tgz"
    path.with_name("a.tgz.part").write_bytes(b"x" * 500)
    server.ranges = False
    assert fetch.fetch(url, path, SHA256).read_bytes() == CONTENT


def test_fetch_takes_a_whole_part_file(server, tmp_path):
    url, path = _url(server), tmp_path / "a.tgz"
    path.with_name("a.tgz.part").write_bytes(CONTENT)
    assert fetch.fetch(url, path, SHA256).read_bytes() == CONTENT


def test_fetch_refuses_wrong_bytes(server, tmp_path):
    url, path = _url(server), tmp_path / "a.tgz"
    with pytest.raises(MediaError, match="got sha256 .* wanted 0000"):
        fetch.fetch(url, path, "0" * 64)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"by hand, but wrong")
    with pytest.raises(MediaError, match="remove it"):
        fetch.fetch(url, path, SHA256)
    assert path.is_file(), "a file put there by hand is not removed behind its owner's back"


def test_fetch_says_what_to_do_when_there_is_nothing(server, tmp_path):
    with pytest.raises(MediaError, match="by hand"):
        fetch.fetch(f"http://127.0.0.1:{server.server_port}/none.tgz", tmp_path / "none.tgz", SHA256)


def test_package_addresses():
    package = Package("@scope/name", "1.2.3", SHA256, "MIT", "", "")
    assert package.url("https://registry.example/") == "https://registry.example/@scope/name/-/name-1.2.3.tgz"
    assert package.file_name == "scope-name-1.2.3.tgz"
    assert fetch.npm_registry({"NPM_CONFIG_REGISTRY": "http://a", "PATH": ""}) == "http://a"
    assert fetch.npm_registry({"PATH": ""}) == fetch.NPM_DEFAULT


def test_pinned_table_is_whole():
    for package in (*sources.PACKAGES.values(), sources.CLIPART):
        assert len(package.sha256) == 64 and package.attribution and package.takes
        assert package.licence in ("MIT", "Apache-2.0", "CC-BY-4.0", "public domain"), package
    assert {style.package for style in sources.STYLES} == set(sources.PACKAGES) - {"emojibase"}
    assert len(set(ALL_STYLES)) == len(ALL_STYLES)
    with pytest.raises(ConfigError, match="wanted 'characters'"):
        Style("a", "a", "a", "guess")


# ---------------------------------------------------------------- split


def test_split_holds_out_exactly_one_style():
    for concept in IDS:
        made = split.split_concept(concept, ALL_STYLES)
        assert made == split.split_concept(concept, reversed(ALL_STYLES)), "order must not matter"
        if split.is_unseen(concept):
            assert set(made.values()) == {"unseen"} and split.held_style(concept, ALL_STYLES) is None
        else:
            held = [style for style, name in made.items() if name != "train"]
            assert held == [split.held_style(concept, ALL_STYLES)] and made[held[0]] in ("val", "test")


def test_split_with_one_style_holds_out_nothing():
    seen = next(concept for concept in IDS if not split.is_unseen(concept))
    assert split.split_concept(seen, ["noto"]) == {"noto": "train"}
    assert split.split_concept(seen, []) == {}


def test_split_shares_and_fixed_points():
    unseen = sum(map(split.is_unseen, IDS)) / len(IDS)
    made = [name for concept in IDS for name in split.split_concept(concept, ALL_STYLES).values()]
    assert 0.04 < unseen < 0.09 and 0.25 < made.count("val") / (made.count("val") + made.count("test")) < 0.42
    # the rule of the documentation, computed here by hand
    number = int(hashlib.sha256(b"sensorium-style:1f34e").hexdigest(), 16)
    assert split.held_style("1f34e", ALL_STYLES) == sorted(ALL_STYLES)[number % len(ALL_STYLES)]
    assert split.is_unseen("1f34e") == (int(hashlib.sha256(b"sensorium-unseen:1f34e").hexdigest(), 16) % 16 == 0)
    assert {split.clipart_split(concept) for concept in IDS} == {"train", "test"}


def test_relatives():
    families = {"a1": "a", "a2": "a", "b": "b"}
    assert split.relatives({"a1": "test", "a2": "train", "b": "train"}, families) == {"a1": True, "a2": False, "b": False}
    assert split.relatives({"a1": "unseen", "a2": "unseen"}, families) == {"a1": False, "a2": False}
    with pytest.raises(ConfigError, match="have no family"):
        split.relatives({"c": "train"}, families)


# ---------------------------------------------------------------- names and drawings


def test_concept_id():
    assert [concept_id(points) for points in ("0023-FE0F-20E3", "1F34E", "00A9")] == ["23-20e3", "1f34e", "a9"]
    with pytest.raises(MediaError, match="hex code points"):
        concept_id("apple")


def test_name_book():
    book = NameBook([[("red-apple", "1")], [("Red Apple", "2"), ("pear", "3"), ("Pear!", "4"), ("flag: Åland Islands", "5")]])
    assert book.find("RedApple") == "1", "a surer level wins"
    assert book.find("pear") is None, "two claims decide nothing"
    assert book.find("flag-for-flag-aland-islands") == "5"
    assert book.find("nothing") is None
    assert book.find("turkey", "streamline") == "1f1f9-1f1f7" and book.find("turkey", "noto-v1") is None
    assert book.find("pistol", "fxemoji") is None and compact("Piñata") == "pinata"
    assert all(concept_id(concept) == concept for names in RENAMED.values() for concept in names.values())


ICONS = IconSet("tiny", {"icons": {
    "left": {"body": '<path fill="#f00" d="M0 0h4v8H0z"/>', "width": 8, "height": 8},
    "wide": {"body": '<path fill="#00f" d="M0 0h16v8H0z"/>', "width": 16, "height": 8},
    "nothing": {"body": "", "width": 8, "height": 8},
}, "aliases": {"right": {"parent": "left", "hFlip": True}, "top": {"parent": "left", "rotate": 1}, "loop": {"parent": "loop"}}})


def _alpha(name: str, x: int, y: int, size: int = 16) -> int:
    return draw_svg(icon_svg(ICONS, name, size), name).convert("RGBA").getpixel((x, y))[3]


def test_icons_are_fitted_and_aliases_turned():
    assert _alpha("left", 2, 8) == 255 and _alpha("left", 13, 8) == 0
    assert _alpha("right", 2, 8) == 0 and _alpha("right", 13, 8) == 255
    assert _alpha("top", 8, 2) == 255 and _alpha("top", 8, 13) == 0
    assert _alpha("wide", 8, 1) == 0 and _alpha("wide", 8, 8) == 255 and _alpha("wide", 0, 8) == 255
    with pytest.raises(MediaError, match="no drawing 'loop'"):
        icon_svg(ICONS, "loop", 16)
    with pytest.raises(MediaError, match="draws nothing"):
        draw_svg(icon_svg(ICONS, "nothing", 16), "nothing")
    with pytest.raises(MediaError, match="cannot be drawn"):
        draw_svg("<svg", "broken")


def test_square_keeps_shape_and_transparency():
    made = square(Image.new("RGB", (40, 10), "red"), 20)
    assert made.size == (20, 20) and made.mode == "RGBA" and made.getchannel("A").getbbox() == (0, 7, 20, 12)
    with pytest.raises(MediaError, match="not a readable picture"):
        open_picture(b"nonsense", "here")


# ---------------------------------------------------------------- clip art


def test_titles():
    assert [clipart.plain_title(text) for text in ("Truck1", "Sail 12", "AK47", "Boeing 747")] == ["Truck", "Sail", "AK47", "Boeing 747"]


def _png(path: Path, colour: tuple[int, int, int], title: str, artist: str = "Ann Ode", size: int = 40) -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Title", title)
    info.add_text("Author", artist)
    picture = Image.new("RGBA", (100, 100), (0, 0, 0, 0))
    picture.paste((*colour, 255), (10, 20, 10 + size, 20 + size))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, pnginfo=info)


def _clipart_folder(folder: Path) -> Path:
    for number in range(8):
        _png(folder / "animals" / f"cat_ann_{number:02d}.png", (number, 0, 0), "Various Cliparts")
    _png(folder / "animals" / "d.png", (9, 9, 9), "Big_Dog 2")
    _png(folder / "animals" / "same_again.png", (9, 9, 9), "Big_Dog 2")
    _png(folder / "signs_and_symbols" / "flags" / "x.png", (10, 9, 9), "france", "me [a@b.example]")
    _png(folder / "computer" / "icons" / "x.png", (11, 9, 9), "icon")
    _png(folder / "unsorted" / "gatto.png", (12, 9, 9), "gatto", "Yves Guillou")
    _png(folder / "unsorted" / "dot.png", (13, 9, 9), "a dot", size=3)
    return folder


def test_clip_art_titles_and_what_is_left_out(tmp_path):
    found = clipart.read_clipart(_clipart_folder(tmp_path))
    assert [picture.title for picture in found] == ["cat"] * 8 + ["Big Dog", "flag: france", "a dot"]
    assert found[8].keywords == ("animals",) and found[9].artist == "me" and len({picture.id for picture in found}) == len(found)
    assert clipart.draw(found[8], 16).getchannel("A").getextrema() == (255, 255), "cropped to what is visible"
    with pytest.raises(MediaError, match="nothing is visible"):
        clipart.draw(found[-1], 16)
    with pytest.raises(MediaError, match="holds no clip art"):
        clipart.read_clipart(tmp_path / "empty")


def test_clip_art_package_is_checked(tmp_path, monkeypatch):
    (tmp_path / sources.CLIPART.file_name).write_bytes(b"not it")
    with pytest.raises(MediaError, match="got sha256"):
        clipart.fetch_clipart(tmp_path)
    monkeypatch.setattr(clipart.shutil, "which", lambda name: None)
    (tmp_path / sources.CLIPART.file_name).unlink()
    with pytest.raises(ConfigError, match="--sources emoji"):
        clipart.fetch_clipart(tmp_path)


# ---------------------------------------------------------------- a whole build


def _tarball(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _tiny_packages() -> dict[str, bytes]:
    """Eight concepts A..H, drawn by two SVG packages (one joined by name) and one of pictures."""
    codes, letters = [f"{0x1F300 + n:X}" for n in range(8)], "ABCDEFGH"
    data = [{"label": f"thing {x}", "hexcode": f"{c}-FE0F", "emoji": chr(int(c, 16)), "tags": ["t"], "group": 0, "subgroup": 1}
            for c, x in zip(codes, letters, strict=True)]
    chinese = [{**entry, "label": f"东西{x}", "tags": ["词"]} for entry, x in zip(data, letters, strict=True)]
    icons = {f"thing-{x.lower()}": {"body": f'<circle cx="8" cy="8" r="{n + 1}"/>'} for n, x in enumerate(letters)}
    groups = {"groups": {"0": "things"}, "subgroups": {"1": "round"}}
    picture = io.BytesIO()
    Image.new("RGBA", (32, 32), "green").save(picture, "WEBP")

    def dump(value: object) -> bytes:
        return json.dumps(value).encode()

    return {
        "emojibase": _tarball({"en/data.json": dump(data), "zh/data.json": dump(chinese), "meta/groups.json": dump(groups),
                               "en/shortcodes/cldr.json": dump({code: "x" for code in codes})}),
        "mapped": _tarball({"icons.json": dump({"icons": icons, "width": 16, "height": 16}),
                            "chars.json": dump({code.lower(): name for code, name in zip(codes, icons, strict=True)})}),
        "named": _tarball({"icons.json": dump({"icons": {**icons, "thing-b-2": icons["thing-a"]}, "width": 16, "height": 16}),
                           "chars.json": dump({})}),
        "files": _tarball({f"assets/{codes[n].lower()}-fe0f.webp": picture.getvalue() if n else b"broken" for n in range(6)}),
    }


@pytest.fixture
def tiny(server, monkeypatch, tmp_path):
    """The builder on tiny packages from a local registry; gives the server."""
    made = {}
    for name, content in _tiny_packages().items():
        made[name] = Package(f"@tiny/{name}", "1.0.0", hashlib.sha256(content).hexdigest(), "MIT", "me", "all")
        server.files[made[name].url("")] = content
    styles = (Style("mapped", "mapped", "hand", "characters"), Style("named", "named", "hand", "names"),
              Style("files", "files", "other", "files"))
    folder = _clipart_folder(tmp_path / "art")
    monkeypatch.setattr(builder, "PACKAGES", made)
    monkeypatch.setattr(builder, "STYLES", styles)
    monkeypatch.setattr(builder.clipart, "fetch_clipart", lambda downloads: folder)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{server.server_port}")
    return server


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_build(tiny, tmp_path):
    out = tmp_path / "corpus"
    manifest = builder.build(out, size=16, quiet=True)
    emoji = manifest["sources"]["emoji"]
    assert {name: made["pictures"] for name, made in emoji["styles"].items()} == {"mapped": 8, "named": 8, "files": 5}
    assert len(emoji["refused"]) == 1 and "files/1f300" in emoji["refused"][0]
    concepts = _rows(out / "concepts.jsonl")
    assert concepts[0] == {"id": "1f300", "char": "🌀", "en": "thing A", "zh": "东西A", "keywords_en": ["t"], "keywords_zh": ["词"],
                           "group": "things", "subgroup": "round", "styles": ["mapped", "named"]}
    rows = [row for name in split.SPLITS for row in _rows(out / f"{name}.jsonl")]
    assert len(rows) == 21 == sum(emoji["samples"].values()) and len({row["id"] for row in rows}) == 21
    for concept in concepts:
        mine = {row["style"]: row["split"] for row in rows if row["concept"] == concept["id"]}
        assert mine == split.split_concept(concept["id"], concept["styles"])
    for row in rows + _rows(out / "clipart.jsonl"):
        with Image.open(out / row["parts"][0]["image"]) as picture:
            assert picture.size == (16, 16) and picture.mode == "RGBA"
        assert row["parts"][1]["target"] is True and row["split"] in split.SPLITS
    text = list(builder.tokenizer_text(out))
    assert {"thing A", "东西H", "词", "cat", "animals"} <= set(text)
    before = _tree(out)
    assert builder.build(out, size=16, quiet=True) == manifest and _tree(out) == before
    assert builder.build(out, size=16, sources=("clipart",), quiet=True)["sources"]["emoji"] == emoji


def test_build_survives_a_kill_at_every_picture(tiny, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    builder.build(whole, size=16, sources=("emoji",), quiet=True)
    save, count = Image.Image.save, 0

    def killed(self, target, *arguments, **options):
        nonlocal count
        count += 1
        if count % 4 == 0:
            Path(target).write_bytes(b"half")
            raise KeyboardInterrupt
        save(self, target, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", killed)
    for _ in range(20):
        try:
            builder.build(broken, size=16, sources=("emoji",), quiet=True)
            break
        except KeyboardInterrupt:
            assert not (broken / "train.jsonl").exists()
            for path in broken.rglob("*.png"):
                Image.open(path).load()
    else:
        pytest.fail("never finished")
    monkeypatch.undo()
    finished = {name: content for name, content in _tree(broken).items() if not name.endswith(".part")}
    assert finished == _tree(whole)


def test_build_draws_only_what_is_missing(tiny, tmp_path, monkeypatch):
    out = tmp_path / "corpus"
    builder.build(out, size=16, limit=2, sources=("emoji",), quiet=True)
    assert len(_rows(out / "concepts.jsonl")) == 2
    drawn = []
    save = builder.save_png
    monkeypatch.setattr(builder, "save_png", lambda picture, path: (drawn.append(path.stem), save(picture, path)))
    asked = len(tiny.asked)
    builder.build(out, size=16, sources=("emoji",), quiet=True)
    assert len(drawn) == 21 - 5 and "1f300" not in drawn and len(tiny.asked) == asked


def test_build_refuses_nonsense(tiny, tmp_path):
    out = tmp_path / "corpus"
    builder.build(out, size=16, limit=1, sources=("emoji",), quiet=True)
    with pytest.raises(ConfigError, match="Build into another folder"):
        builder.build(out, size=32, sources=("emoji",), quiet=True)
    for options in ({"sources": ("photos",)}, {"sources": ()}, {"size": 2}, {"limit": 0}):
        with pytest.raises(ConfigError, match="wanted sources from"):
            builder.build(out, quiet=True, **options)
    with pytest.raises(ConfigError, match="sensorium.corpus.build"):
        list(builder.tokenizer_text(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="Build into another folder"):
        builder.main([str(out), "--sources", "emoji", "--size", "32"])


# ---------------------------------------------------------------- documentation


def test_documented_sources_are_the_pinned_ones():
    text = DOCS.read_text(encoding="utf-8")
    assert describe.package_table() in text, "run: python -m sensorium.corpus.describe FOLDER docs/data.md"


def test_documented_counts_add_up():
    text = DOCS.read_text(encoding="utf-8").split("<!-- table: styles -->")[1].split("<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]
    assert [row[0] for row in rows] == [*ALL_STYLES, "all"]
    assert [row[1] for row in rows[:-1]] == [style.family for style in sources.STYLES]
    numbers = [[int(cell) for cell in row[3:]] for row in rows]
    assert [sum(column) for column in zip(*numbers[:-1], strict=True)] == numbers[-1]
    assert all(row[0] == sum(row[1:]) for row in numbers)


def test_fill_refuses_an_unknown_table():
    made = describe.fill("a\n<!-- table: x -->\nold\n<!-- end -->\n", {"x": "new\n"})
    assert made == "a\n<!-- table: x -->\nnew\n<!-- end -->\n"
    with pytest.raises(ConfigError, match=r"tables \['y'\]"):
        describe.fill("<!-- table: y -->\n<!-- end -->", {"x": ""})
