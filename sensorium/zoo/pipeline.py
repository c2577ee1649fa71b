"""Pipelines: a published folder of parts, each in a folder of its own, read as one model.

    model_index.json   which parts there are      unet/config.json + safetensors, vae/..., text_encoder/..., scheduler/scheduler_config.json

A part's settings stand under its name in the config, and its tensors begin with it: "unet.conv_in.weight".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sensorium.formats import FORMATS, Format, LazyTensors, PublishedFiles, read_settings, sharded
from sensorium.types import CheckpointError

__all__ = ["clip_tokenizer", "read_pipeline"]


def read_pipeline(path: Path) -> PublishedFiles:
    """All parts of the folder that have settings; those without tensors (schedulers, tokenizers) give settings alone."""
    index = read_settings(path / "model_index.json")
    config: dict[str, Any] = {"_class_name": index.get("_class_name")}
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    for name in sorted(name for name, made in index.items() if isinstance(made, list) and (path / name).is_dir()):
        settings = read_settings(path / name / "config.json") or read_settings(path / name / "scheduler_config.json")
        if settings:
            config[name] = settings
        if (path / name / "config.json").is_file():
            makers |= {f"{name}.{tensor}": make for tensor, make in sharded(path / name).makers.items()}
    return PublishedFiles(config, LazyTensors(makers), towers_maker=partial(_tokenizers, path))


def _tokenizers(path: Path) -> dict[str, str]:
    """tokenizer -> the tower "text", tokenizer_2 -> "text_2", ...

    Raises:
        CheckpointError: one of a kind that cannot be rebuilt.
    """
    found = {}
    for folder in sorted(folder for folder in path.glob("tokenizer*") if folder.is_dir()):
        if (folder / "tokenizer.json").is_file():
            made = (folder / "tokenizer.json").read_text(encoding="utf-8")
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            made = clip_tokenizer(folder)
        else:
            raise CheckpointError(f"{path.name}/{folder.name} has neither tokenizer.json nor vocab.json with merges.txt; fetch it again")
        found[folder.name.replace("tokenizer", "text")] = made
    return found


def clip_tokenizer(folder: Path) -> str:
    """CLIP's tokenizer as a tokenizer.json, from the two older files: byte-level BPE in lower case, whose words end in </w>.

    Source: CLIP (2103.00020), section 2.4.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    said = {**read_settings(folder / "special_tokens_map.json"), **read_settings(folder / "tokenizer_config.json")}
    first, last, other = (word.get("content") if isinstance(word, dict) else word for word in (
        said.get("bos_token", "<|startoftext|>"), said.get("eos_token", "<|endoftext|>"), said.get("unk_token", "<|endoftext|>")))
    try:
        inner = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"), continuing_subword_prefix="",
                                               end_of_word_suffix="</w>", unk_token=other, fuse_unk=False))
    except Exception as error:  # noqa: BLE001 (the library raises nothing narrower)
        raise CheckpointError(f"{folder.name} holds no tokenizer that can be read ({str(error)[:80]}); fetch it again") from error
    inner.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    inner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(False)])
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([first, last])
    inner.post_processor = processors.RobertaProcessing((last, inner.token_to_id(last)), (first, inner.token_to_id(first)), False, False)
    return inner.to_str()


def _claims(path: Path) -> bool:
    return (path / "model_index.json").is_file()


FORMATS["pipeline"] = Format(_claims, read_pipeline)
