"""Formats: what a published model's files hold, under one set of names whatever their format.

    folder with config.json + safetensors (one file, or shards with an index)   read here
    GGUF, CTranslate2                                                           each a :class:`Format` that the zoo adds

Tensors are read when they are asked for; headers are checked against the file's size before that. Pickles are refused.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sensorium.types import CheckpointError

__all__ = ["Format", "FORMATS", "indexed", "LazyTensors", "opened", "PublishedFiles", "read_published", "read_settings", "read_tensors", "sharded",
           "Walker"]

SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json",
            "processor_config.json", "video_preprocessor_config.json")
REFUSED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


class LazyTensors(Mapping[str, torch.Tensor]):
    """Tensors by name, each made when it is asked for, so that a large file never stands in memory whole.

    Args:
        makers: name -> what makes the tensor.
    """

    def __init__(self, makers: Mapping[str, Callable[[], torch.Tensor]]) -> None:
        self.makers = makers

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.makers[name]()

    def __contains__(self, name: object) -> bool:
        return name in self.makers

    def __iter__(self) -> Iterator[str]:
        return iter(self.makers)

    def __len__(self) -> int:
        return len(self.makers)


@dataclass(frozen=True)
class PublishedFiles:
    """What a published model's files hold, under one set of names whatever their format.

    Args:
        config: settings, as config.json (and generation_config.json) name them.
        tensors: by name; read when asked for.
        tokenizer_maker: gives the text of tokenizer.json, or None where there is no tokenizer.
        template: chat template in Jinja's language, or None.
        special: "bos", "eos", "pad", "unk", "cls", "sep", "mask" -> the token's text, as far as they are known.
        pictures: how pictures become arrays, as preprocessor_config.json names it; {} if it is not said.
        videos: the same of videos, where they have settings of their own.
        towers_maker: gives the text of tokenizer.json for each text tower that reads a prompt, by the tower's name.
        settings: each settings file as it stands, by its path in the folder ("config.json", "unet/config.json"), to be held against the keys that
            the family declares.
    """

    config: dict[str, Any]
    tensors: LazyTensors
    tokenizer_maker: Callable[[], str | None] = lambda: None
    template: str | None = None
    special: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, Any] = field(default_factory=dict)
    videos: dict[str, Any] = field(default_factory=dict)
    towers_maker: Callable[[], dict[str, str]] = dict
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tokenizer(self) -> str | None:
        """The text of tokenizer.json, or None.

        Raises:
            CheckpointError: there is one of a kind that cannot be rebuilt.
        """
        return self.tokenizer_maker()


@dataclass(frozen=True)
class Format:
    """A file format of published models: which path (a file or a folder) is one, and how it is read."""

    claims: Callable[[Path], bool]
    read: Callable[[Path], PublishedFiles]


FORMATS: dict[str, Format] = {}
"""Formats besides config.json + safetensors, by name; the zoo fills it."""


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors.

    Raises:
        CheckpointError: not a whole safetensors file.
    """
    return dict(_open_tensors(_safe_path(Path(path))))


def _safe_path(path: Path) -> Path:
    """The path, if a file is there and it is not of a kind that can run code."""
    if path.suffix in REFUSED:
        raise CheckpointError(f"{path.name} may hold a pickle, which can run code; wanted safetensors")
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; wanted a safetensors file")
    return path


def _open_tensors(path: Path) -> LazyTensors:
    """The tensors of a safetensors file, whose header is checked against its size before anything is read."""
    try:
        file = safe_open(path, framework="pt")
        return LazyTensors({name: partial(file.get_tensor, name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} is not a whole safetensors file ({str(error)[:80]}); fetch it again") from error


class Walker:
    """Walks the header of a binary file, and refuses to step past the file's end.

    Args:
        path: the file.
        kind: what it should be, for errors.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self.name, self.kind, self.at = path.name, kind, 0
        try:
            with open(path, "rb") as file:
                self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); wanted a {kind} file") from error

    def refuse(self, what: str) -> CheckpointError:
        """The error that says what is wrong with the file."""
        return CheckpointError(f"{self.name} is not a whole {self.kind} file: {what}; fetch it again")

    def take(self, size: int, what: str) -> int:
        """Step over ``size`` bytes; where they began."""
        if size > len(self.bytes) - self.at:
            raise self.refuse(f"{what} takes {size:,} bytes at {self.at:,}, but the file has {len(self.bytes):,}")
        self.at += size
        return self.at - size

    def number(self, form: str, what: str) -> Any:
        """A number in the ``struct`` module's form ``form``, little end first."""
        return struct.unpack_from(f"<{form}", self.bytes, self.take(struct.calcsize(f"<{form}"), what))[0]

    def count(self, form: str, what: str, most: int) -> int:
        """A number of things to come, of which there are ``most`` at most."""
        count = self.number(form, f"the number of {what}")
        if count > most:
            raise self.refuse(f"it says it has {count:,} {what}, wanted at most {most:,}")
        return count


def read_published(path: str | Path) -> PublishedFiles:
    """What a published model's files hold: settings, tensors (read when asked for), tokenizer and chat template.

    Args:
        path: a folder, or the one file that is a model.

    Raises:
        CheckpointError: of no known format, torn, or refused.
    """
    path = Path(path)
    found = next((form for form in FORMATS.values() if form.claims(path)), None)
    if found is not None:
        return found.read(path)
    if not (path / "config.json").is_file():
        known = ", ".join(["safetensors", *FORMATS])
        raise CheckpointError(f"{path} has neither model.json nor config.json; give the folder of a saved model (known formats: {known})")
    config = {**read_settings(path / "generation_config.json"), **read_settings(path / "config.json")}
    words = {**read_settings(path / "special_tokens_map.json"), **read_settings(path / "tokenizer_config.json")}
    template, tokenizer = words.get("chat_template"), path / "tokenizer.json"
    if isinstance(template, list):
        template = next((item["template"] for item in template if item.get("name") == "default"), None)
    if (path / "chat_template.jinja").is_file():
        template = (path / "chat_template.jinja").read_text(encoding="utf-8")
    special = {name: words[f"{name}_token"] for name in ("bos", "eos", "pad", "unk", "cls", "sep", "mask") if words.get(f"{name}_token")}
    return PublishedFiles(config, sharded(path), lambda: tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None, template,
                          {name: word["content"] if isinstance(word, dict) else word for name, word in special.items()},
                          *(read_settings(path / f"{name}preprocessor_config.json")
                            or read_settings(path / "processor_config.json").get(f"{part}_processor", {})
                            for name, part in (("", "image"), ("video_", "video"))),
                          settings={name: read_settings(path / name) for name in SETTINGS if (path / name).is_file()})


def read_settings(path: Path) -> dict[str, Any]:
    """A JSON file of a published folder; {} where there is none."""
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path.parent.name}/{path.name} is not JSON; fetch it again") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path.parent.name}/{path.name} holds {type(settings).__name__}, wanted an object of settings")
    return settings


def sharded(folder: Path) -> LazyTensors:
    """All tensors of a published folder, from one file or from the shards its index names."""
    index = next(iter(sorted(folder.glob("*.safetensors.index.json"))), None)
    names = indexed(index) if index is not None else sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        found = [path.name for path in folder.iterdir() if path.suffix in REFUSED]
        raise CheckpointError(f"{folder} has no safetensors" + (f"; {found} may hold pickles and are refused" if found else ""))
    return opened(folder, names)


def indexed(index: Path) -> list[str]:
    """The names of the shards that an index names."""
    named = read_settings(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise CheckpointError(f"{index.name} has no weight_map of file names; fetch it again")
    names = sorted(set(named.values()))
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index.name} names files outside its folder; refused")
    return names


def opened(folder: Path, names: Sequence[str]) -> LazyTensors:
    """All tensors of these safetensors files of a folder."""
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    for name in names:
        makers.update(_open_tensors(_safe_path(folder / name)).makers)
    return LazyTensors(makers)
