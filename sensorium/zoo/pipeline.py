"""Pipelines: a published folder of parts, each in a folder of its own, read as one model.

    model_index.json   which parts there are      unet/config.json + safetensors, vae/..., text_encoder/..., scheduler/scheduler_config.json

A part's settings stand under its name in the config, and its tensors begin with it: "unet.conv_in.weight". A tokenizer's are the ids of its marks,
and how long its texts are. Which file counts where there are several is what diffusers (0.42.1) and transformers (5.23.0) do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sensorium.editions import content_of, tokenizer_settings
from sensorium.formats import FORMATS, Format, LazyTensors, PublishedFiles, read_settings, sharded
from sensorium.settings import NOTES, SPECIAL_TOKENS, TOKENIZER, Keys
from sensorium.types import CheckpointError

__all__ = ["ASIDE", "clip_tokenizer", "needed", "part", "read_pipeline", "words_keys"]

ASIDE = {"safety_checker": "pictures are not looked through for what may offend", "feature_extractor": "of the safety checker",
         "image_encoder": "of adapters that are prompted with pictures", "requires_safety_checker": "see safety_checker"}
"""What model_index.json may name beside a model's own parts, and why it is not read."""
MARKS = {"bos": "<|startoftext|>", "eos": "<|endoftext|>", "pad": "<|endoftext|>"}  # of CLIP, where no file says it
SETTINGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "special_tokens_map.json")


def part(*classes: str, library: str = "diffusers") -> tuple[Any, ...]:
    """What model_index.json may say of a part that is of one of these classes."""
    return tuple([library, name] for name in classes)


def words_keys(*names: str) -> dict[str, Keys]:
    """Declarations of the files of tokenizers."""
    marks = NOTES | TOKENIZER | Keys(built=("model_max_length",), harmless={"extra_ids": "tokenizer.json has them"})
    return {f"{name}/{file}": keys for name in names for file, keys in (
        ("tokenizer_config.json", marks), ("special_tokens_map.json", SPECIAL_TOKENS))}


def needed(config: dict[str, Any], *parts: str) -> None:
    """Refuse a folder that lacks the settings of one of these parts.

    Raises:
        CheckpointError: by name.
    """
    if missing := [name for name in parts if name not in config]:
        raise CheckpointError(f"the folder has no settings of {', '.join(missing)}, or model_index.json does not name them; wanted "
                              f"{', '.join(parts)}, each in a folder of its own: fetch it again")


def read_pipeline(path: Path) -> PublishedFiles:
    """All parts of the folder that have settings; those without tensors (schedulers, tokenizers) give settings alone.

    Raises:
        CheckpointError: a file is missing or torn.
    """
    index = read_settings(path / "model_index.json")
    if not isinstance(index.get("_class_name"), str):
        raise CheckpointError(f"{path.name}/model_index.json names the class {index.get('_class_name')!r}, wanted one of diffusers' pipelines")
    config: dict[str, Any] = {"_class_name": index["_class_name"]}
    found: dict[str, dict[str, Any]] = {"model_index.json": index}
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    parts = {name: made for name, made in index.items() if isinstance(made, list) and any(made) and name not in ASIDE and (path / name).is_dir()}
    for name, (library, kind) in sorted(parts.items()):
        read = {file: _plain(read_settings(path / name / file)) for file in SETTINGS if (path / name / file).is_file()}
        found |= {f"{name}/{file}": settings for file, settings in read.items()}
        if name.startswith("tokenizer"):
            config[name] = _marks(path / name, read)
        elif read:
            config[name] = {**next(iter(read.values())), "_class_name": kind}  # the index's class counts, whatever the file says
        if "config.json" in read:
            makers |= {f"{name}.{tensor}": make for tensor, make in _weights(path / name, library).makers.items()}
    towers = [name for name in parts if name.startswith("tokenizer")]
    return PublishedFiles(config, LazyTensors(makers), towers_maker=partial(_tokenizers, path, towers), settings=found)


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without those that only record the defaults of the library that wrote them."""
    return {key: value for key, value in settings.items() if key not in (*settings.get("_use_default_values", ()), "_use_default_values")}


def _weights(folder: Path, library: str) -> LazyTensors:
    """The tensors of a part: diffusers reads the shards where there is an index, transformers the whole file where there is one."""
    index = "diffusion_pytorch_model.safetensors.index.json"
    return sharded(folder, index if library != "transformers" and (folder / index).is_file() else None)


def _marks(folder: Path, read: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Ids of the marks "bos", "eos" and "pad" as far as the vocabulary has them, and "length" of a text in tokens, if it is said."""
    said = tokenizer_settings(read)
    ids = _vocabulary(folder)
    found = {name: ids[word] for name, default in MARKS.items() if (word := content_of(said.get(f"{name}_token", default))) in ids}
    length = said.get("model_max_length")
    return found | ({"length": length} if isinstance(length, int) and length < 1_000_000 else {})  # a huge one is written where none is known


def _vocabulary(folder: Path) -> dict[str, int]:
    """Word -> id."""
    try:
        if not (folder / "tokenizer.json").is_file():
            return read_settings(folder / "vocab.json")
        data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        words = data["model"]["vocab"]
        ids = words if isinstance(words, dict) else {word: number for number, (word, _) in enumerate(words)}
        return {**ids, **{token["content"]: token["id"] for token in data.get("added_tokens", ())}}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder.parent.name}/{folder.name}/tokenizer.json is not a tokenizer ({str(error)[:60]}); fetch it again") from error


def _tokenizers(path: Path, names: list[str]) -> dict[str, str]:
    """tokenizer -> the tower "text", tokenizer_2 -> "text_2", ...

    Raises:
        CheckpointError: one of a kind that cannot be rebuilt.
    """
    found = {}
    for folder in (path / name for name in sorted(names)):
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

    said = tokenizer_settings({name: read_settings(folder / name) for name in ("tokenizer_config.json", "special_tokens_map.json")})
    first, last, other = (content_of(said.get(f"{name}_token", default)) for name, default in (
        ("bos", MARKS["bos"]), ("eos", MARKS["eos"]), ("unk", MARKS["eos"])))
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
