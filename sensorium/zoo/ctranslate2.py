"""CTranslate2: faster-whisper's file format, read as a published Whisper: ``model.bin`` (version 6), config.json, tokenizer.json.

    version, kind, revision | variables (name, sizes, number format, bytes), one after the other | aliases (name, of which variable)

Queries, keys and values stand in one matrix there and in three here; int8 matrices (a scale for each row) are turned back into floats.

Source: github.com/OpenNMT/CTranslate2, python/ctranslate2/specs/model_spec.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sensorium.formats import FORMATS, Format, LazyTensors, PublishedFiles, Walker, read_settings
from sensorium.settings import Keys
from sensorium.types import CheckpointError

__all__ = ["FILE", "KEYS", "read_ctranslate2"]

NUMBERS = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)
BUILT = {"decoder/pre_norm": 1, "decoder/activation": 3, "decoder/alibi": 0, "decoder/scale_embeddings": 0, "decoder/start_from_zero_embedding": 0}

FILE = "config.json (of CTranslate2)"
KEYS = Keys(built=("suppress_ids", "suppress_ids_begin", "alignment_heads"), harmless={"lang_ids": "the tokenizer says it"})
"""What the converter writes, under names of its own."""

NAMES = {"encoder/conv1": "model.encoder.conv1", "encoder/conv2": "model.encoder.conv2", "encoder/layer_norm": "model.encoder.layer_norm",
         "decoder/layer_norm": "model.decoder.layer_norm", "decoder/embeddings": "model.decoder.embed_tokens", "decoder/projection": "proj_out",
         "encoder/position_encodings": "model.encoder.embed_positions", "decoder/position_encodings": "model.decoder.embed_positions"}
LAYER = {"self_attention/layer_norm": ("self_attn_layer_norm",), "self_attention/linear_1": ("self_attn.out_proj",),
         "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
         "attention/layer_norm": ("encoder_attn_layer_norm",), "attention/linear_0": ("encoder_attn.q_proj",),
         "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"), "attention/linear_2": ("encoder_attn.out_proj",),
         "ffn/layer_norm": ("final_layer_norm",), "ffn/linear_0": ("fc1",), "ffn/linear_1": ("fc2",)}
LAST = {"gamma": "weight", "beta": "bias", "encodings": "weight"}


@dataclass(frozen=True)
class _Variable:
    """Where a variable lies."""

    file: Walker
    shape: tuple[int, ...]
    kind: torch.dtype
    start: int

    def read(self) -> torch.Tensor:
        size = math.prod(self.shape) * self.kind.itemsize
        return torch.frombuffer(bytearray(self.file.bytes[self.start : self.start + size]), dtype=self.kind).reshape(self.shape)


def _text(file: Walker, what: str) -> str:
    size = file.number("H", what)
    start = file.take(size, what)
    return file.bytes[start : start + size].rstrip(b"\0").decode("utf-8", "replace")


def _walk(file: Walker) -> dict[str, _Variable]:
    """Where the variables lie."""
    if (version := file.number("I", "the version")) != 6:
        raise file.refuse(f"version {version}, wanted 6")
    if (kind := _text(file, "the kind")) != "WhisperSpec":
        raise CheckpointError(f"{file.name} holds a {kind!r}; only 'WhisperSpec' is read")
    file.number("I", "the revision")
    variables: dict[str, _Variable] = {}
    for _ in range(file.count("I", "variables", 1 << 16)):
        name = _text(file, "a variable's name")
        shape = tuple(file.number("I", name) for _ in range(file.count("B", f"axes of {name}", 4)))
        kind, size = file.number("B", name), file.number("I", name)
        if kind >= len(NUMBERS) or math.prod(shape) * NUMBERS[kind].itemsize != size or not size:
            raise file.refuse(f"{name} has sizes {shape} in number format {kind}, which do not make {size:,} bytes")
        variables[name] = _Variable(file, shape, NUMBERS[kind], file.take(size, name))
    for _ in range(file.count("I", "aliases", 1 << 16)):  # equal variables are written once: a tied head, two biases of zeros
        alias, name = _text(file, "an alias"), _text(file, "an alias")
        if name not in variables or alias in variables:
            raise file.refuse(f"the alias {alias!r:.60} is of {name!r:.60}, which is not there, or has a variable of its own")
        if not (alias.startswith("decoder/projection/") and name.startswith("decoder/embeddings/")):  # a tied head
            variables[alias] = variables[name]
    if file.at != len(file.bytes):
        raise file.refuse(f"{len(file.bytes) - file.at:,} bytes follow its end")
    return variables


def _floats(stored: _Variable, scale: _Variable | None, parts: int, part: int) -> torch.Tensor:
    """Rows of one of ``parts`` matrices that stand in one variable."""
    value = stored.read().chunk(parts)[part]
    if scale is None:
        return value
    return value.float() / scale.read().float().chunk(parts)[part].reshape(-1, *[1] * (value.dim() - 1))


def _makers(file: Walker, variables: dict[str, _Variable]) -> dict[str, Callable[[], torch.Tensor]]:
    """Published name -> what makes the tensor."""
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    for name, stored in variables.items():
        if not stored.shape or name.endswith("_scale"):
            continue
        scale = variables.get(f"{name}_scale")
        if not stored.kind.is_floating_point and (stored.kind != torch.int8 or scale is None or scale.shape[:1] != stored.shape[:1]):
            raise CheckpointError(f"{file.name} holds {name} as {stored.kind} without a scale for each row; only floats and int8 are read")
        whole, _, last = name.rpartition("/")
        found = re.fullmatch(r"(encoder|decoder)/layer_(\d+)/(.+)", whole)
        parts = LAYER.get(found.group(3)) if found else (NAMES[whole],) if whole in NAMES else None
        before = f"model.{found.group(1)}.layers.{found.group(2)}." if found else ""
        for i, part in enumerate(parts or ()):
            makers[f"{before}{part}.{LAST.get(last, last)}"] = partial(_floats, stored, scale, len(parts), i)
        if parts is None:
            makers[name] = stored.read  # no published name: whoever uses the tensors will say so
    return makers


def _config(file: Walker, variables: dict[str, _Variable]) -> dict[str, Any]:
    """The settings as config.json would name them, from the sizes of the variables."""
    numbers = {name: stored.read().item() for name, stored in variables.items() if not stored.shape}
    other = [f"{name} = {numbers[name]}" for name, wanted in BUILT.items() if numbers.get(name, wanted) != wanted]
    if other:
        raise CheckpointError(f"{file.name} has {', '.join(other)}, wanted {BUILT}; it is not read")
    try:
        vocab, width = variables["decoder/embeddings/weight"].shape
        config = {"model_type": "whisper", "vocab_size": vocab, "d_model": width, "num_mel_bins": variables["encoder/conv1/weight"].shape[1],
                  "max_source_positions": variables["encoder/position_encodings/encodings"].shape[0],
                  "max_target_positions": variables["decoder/position_encodings/encodings"].shape[0]}
        for side in ("encoder", "decoder"):
            config |= {f"{side}_layers": sum(re.fullmatch(rf"{side}/layer_\d+/ffn/linear_0/weight", name) is not None for name in variables),
                       f"{side}_attention_heads": numbers[f"{side}/num_heads"],
                       f"{side}_ffn_dim": variables[f"{side}/layer_0/ffn/linear_0/weight"].shape[0]}
    except (KeyError, IndexError, ValueError) as error:
        raise file.refuse(f"it lacks {error}") from error
    return config


def read_ctranslate2(folder: Path) -> PublishedFiles:
    """Read a folder with ``model.bin``; the other files are what transformers calls them, or CTranslate2.

    Raises:
        CheckpointError: torn, lying about its sizes, or of a kind that is not read.
    """
    file = Walker(folder / "model.bin", "CTranslate2")
    variables = _walk(file)
    said = read_settings(folder / "config.json")
    theirs = {"suppress_tokens": said.get("suppress_ids", []), "begin_suppress_tokens": said.get("suppress_ids_begin", [])}
    tokenizer = folder / "tokenizer.json"
    return PublishedFiles({**theirs, **said, **_config(file, variables)}, LazyTensors(_makers(file, variables)),
                          lambda: tokenizer.read_text(encoding="utf-8") if tokenizer.is_file() else None, None, {"eos": "<|endoftext|>"},
                          settings={FILE: said, "preprocessor_config.json": read_settings(folder / "preprocessor_config.json")})


def _claims(path: Path) -> bool:
    """Whether a folder's model.bin begins as CTranslate2 writes it: a version, and the length of a name that ends in "Spec"."""
    try:
        with open(path / "model.bin", "rb") as file:
            start = file.read(64)
    except OSError:
        return False
    return re.match(rb".\0\0\0.\0\w+Spec\0", start, re.DOTALL) is not None


FORMATS["CTranslate2"] = Format(_claims, read_ctranslate2)
