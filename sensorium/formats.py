"""Formats: what a published model's files hold, under one set of names whatever their format.

    folder with config.json + safetensors (one file, or shards with an index)   read here
    GGUF, CTranslate2                                                           each a :class:`Format` that the zoo adds

Which file of a folder counts where several lie side by side is said in ``editions``.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sensorium.editions import (
    LazyTensors,
    chat_template_of,
    content_of,
    ends_of,
    pooling_of,
    read_settings,
    read_tensors,
    sharded,
    tokenizer_settings,
    tokenizer_with_added,
)
from sensorium.quantized import unscaled
from sensorium.types import CheckpointError

__all__ = ["Format", "FORMATS", "LazyTensors", "PublishedFiles", "read_published", "read_settings", "read_tensors", "sharded", "Walker"]

SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json",
            "processor_config.json", "video_preprocessor_config.json", "added_tokens.json", "sentence_bert_config.json",
            "config_sentence_transformers.json")


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
        ends: every token that any file says an answer ends with: an id, or its text.
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
    ends: tuple[int | str, ...] = ()

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
    form = next((form for form in FORMATS.values() if form.claims(path)), None)
    if form is not None and not _stray(path):
        return form.read(path)
    if not (path / "config.json").is_file():
        known = ", ".join(["safetensors", *sorted(FORMATS)])
        raise CheckpointError(f"{path} has neither model.json nor config.json; give the folder of a saved model (known formats: {known})")
    found = {name: read_settings(path / name) for name in SETTINGS if (path / name).is_file()}
    config = {**found.get("generation_config.json", {}), **found["config.json"], **pooling_of(path)}
    nested, tokenizer = found.get("processor_config.json", {}), path / "tokenizer.json"
    pictures, videos = (nested.get(f"{part}_processor") or found.get(name, {}) for part, name in (
        ("image", "preprocessor_config.json"), ("video", "video_preprocessor_config.json")))
    sees = "vision_config" in config or bool(nested or pictures or videos)
    return PublishedFiles(
        config, LazyTensors(unscaled(sharded(path, config.get("transformers_weights")).makers, config)),
        lambda: tokenizer_with_added(tokenizer.read_text(encoding="utf-8"), found, path.name) if tokenizer.is_file() else None,
        chat_template_of(path, found, sees), _named(tokenizer_settings(found)),
        pictures or ({key: value for key, value in nested.items() if key != "chat_template"} if "image_mean" in nested else {}), videos,
        settings=found, ends=ends_of(found))


def _named(words: dict[str, Any]) -> dict[str, str]:
    """The tokens that have a name, those of a model's own too: a chat template may write any of them."""
    more = [words.get(key) for key in ("extra_special_tokens", "model_specific_special_tokens")]
    every = {**{key: token for part in more if isinstance(part, dict) for key, token in part.items()}, **words}
    texts = {key.removesuffix("_token"): content_of(token) for key, token in every.items() if key.endswith("_token") and token}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _stray(path: Path) -> bool:
    """Whether a folder is one of settings and safetensors all the same: another edition of the model lies beside them."""
    whole = (path / f"model.safetensors{end}" for end in ("", ".index.json"))
    return (path / "config.json").is_file() and any(file.is_file() for file in whole) and "model_type" in read_settings(path / "config.json")
