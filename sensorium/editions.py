"""Editions: which file of a published folder counts where several lie side by side, as the libraries that write them have it.

    weights    one whole file, else the shards of its index       chat template   one order for text alone, another with pictures
    ends       every token that any file says an answer ends with  tokenizer.json  with the tokens that the files beside it add

Tensors are read when they are asked for; headers are checked against the file's size before that. Pickles are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sensorium.types import CheckpointError

__all__ = ["chat_template_of", "content_of", "ends_of", "LazyTensors", "pooling_of", "read_settings", "read_tensors", "sharded",
           "tokenizer_settings", "tokenizer_with_added"]

REFUSED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
WHOLE = ("model", "diffusion_pytorch_model")
"""Names that the libraries give a model's file."""
STEPS = ("Transformer", "Pooling", "Normalize")
POOLINGS = {"mean": "mean", "cls": "first"}
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.safetensors")
BESIDE = ("adapter_model", "consolidated", "original", "optimizer", "training_args")
"""Names of files that are no model, or the same one again."""


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


def content_of(word: Any) -> str:
    """The text of a token, which older files write as an object."""
    return word.get("content") if isinstance(word, dict) else word


def tokenizer_settings(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A tokenizer's settings: special_tokens_map.json counts before tokenizer_config.json, and is not read where that lists all added tokens.

    Args:
        found: settings files by name.

    Source: transformers 5.23.0, ``PreTrainedTokenizerBase._from_pretrained``.
    """
    config = found.get("tokenizer_config.json", {})
    return config if "added_tokens_decoder" in config else {**config, **found.get("special_tokens_map.json", {})}


def ends_of(found: dict[str, dict[str, Any]]) -> tuple[int | str, ...]:
    """Every token that any file says an answer ends with: ids, and texts."""
    ends: list[int | str] = []
    config = found.get("config.json", {})
    for settings in (config, config.get("text_config"), found.get("generation_config.json", {})):
        ids = settings.get("eos_token_id") if isinstance(settings, dict) else None
        ends += ids if isinstance(ids, list) else [ids]
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        ends.append(content_of(found.get(name, {}).get("eos_token")))
    return tuple(dict.fromkeys(end for end in ends if isinstance(end, int | str)))


def chat_template_of(path: Path, found: dict[str, dict[str, Any]], sees: bool) -> str | None:
    """The chat template that counts where several lie side by side: a model with pictures has another order than one of text alone.

    Source: transformers 5.23.0, ``ProcessorMixin.get_processor_dict`` and ``PreTrainedTokenizerBase._from_pretrained``.
    """
    jinja, others = path / "chat_template.jinja", sorted((path / "additional_chat_templates").glob("*.jinja"))
    files = {other.stem: other for other in others}
    said = [found.get("tokenizer_config.json", {}).get("chat_template")]
    if sees:
        older = read_settings(path / "chat_template.json").get("chat_template")
        if older and others:
            raise CheckpointError(f"{path.name} holds chat_template.json beside additional_chat_templates; delete the one that is out of date")
        said = [found.get("processor_config.json", {}).get("chat_template"), older, jinja, files.get("default"), *said]
    else:
        said = [files.get("default"), jinja, *said]
    named: list[str] = sorted(files)
    for one in said:
        if isinstance(one, Path) and one.is_file():
            return one.read_text(encoding="utf-8")
        if isinstance(one, list):
            one = {item.get("name"): item.get("template") for item in one if isinstance(item, dict)}
        named += one if isinstance(one, dict) else []
        text = one.get("default") if isinstance(one, dict) else one
        if isinstance(text, str) and text:
            return text
    if named:
        raise CheckpointError(f"{path.name} has the chat templates {', '.join(map(str, named))}, and none called default; save the one that "
                              "is wanted as chat_template.jinja")
    return None


def tokenizer_with_added(text: str, found: dict[str, dict[str, Any]], name: str) -> str:
    """A tokenizer.json with the tokens that the files beside it add.

    Source: transformers 5.23.0, ``PreTrainedTokenizerBase._from_pretrained``: tokenizer_config.json's ``added_tokens_decoder``, else
    added_tokens.json.
    """
    decoder = found.get("tokenizer_config.json", {}).get("added_tokens_decoder")
    older = {} if decoder else {number: {"content": token} for token, number in found.get("added_tokens.json", {}).items()}
    wanted = {int(number): token for number, token in (decoder or older).items() if isinstance(token, dict)}
    try:
        data = json.loads(text)
        flags = ("special", "lstrip", "rstrip", "single_word")
        have = {token["content"]: token for token in data["added_tokens"]}
        more = {token["content"]: number for number, token in sorted(wanted.items()) if token["content"] not in have or any(
            key in token and token[key] != have[token["content"]].get(key) for key in flags)}
        flagged = {token["content"]: {key: bool(token.get(key)) for key in flags} for token in wanted.values()}
        if not more:
            return text
        import tokenizers

        inner = tokenizers.Tokenizer.from_str(text)
        for content, number in more.items():
            inner.add_tokens([tokenizers.AddedToken(content, **flagged[content], normalized=False)])
            if inner.token_to_id(content) != number:
                raise CheckpointError(f"{name} says that {content!r} is token {number}, which tokenizer.json has no place for; fetch it again")
        return inner.to_str()
    except CheckpointError:
        raise
    except Exception:  # noqa: BLE001 (what is no tokenizer is refused where it is opened, by the library, which raises plain Exception)
        return text


def pooling_of(path: Path) -> dict[str, str]:
    """{"pooling": "mean" or "first"} of a folder of sentence-transformers: how the places of a text become one vector; {} of any other folder.

    Raises:
        CheckpointError: a step, or a way of pooling, that is not built.

    Source: sentence-transformers' modules.json, and the config.json of its Pooling.
    """
    if not (path / "modules.json").is_file():
        return {}
    try:
        steps = {step["type"].rpartition(".")[2]: step["path"] for step in json.loads((path / "modules.json").read_text(encoding="utf-8"))}
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path.name}/modules.json is no list of steps with a type and a path; fetch it again") from error
    if other := [step for step in steps if step not in STEPS]:
        raise CheckpointError(f"{path.name}/modules.json has the step {other[0]}; only {', '.join(STEPS)} are built")
    said = read_settings(path / str(steps["Pooling"]) / "config.json") if "Pooling" in steps else {}
    on = [key.removeprefix("pooling_mode_").partition("_token")[0] for key, value in said.items() if key.startswith("pooling_mode_") and value]
    ways = [said["pooling_mode"]] if isinstance(said.get("pooling_mode"), str) else on
    if len(ways) != 1 or ways[0] not in POOLINGS:
        raise CheckpointError(f"{path.name} pools by {' and '.join(ways) or 'nothing'}; only {' or '.join(POOLINGS)} is built")
    return {"pooling": POOLINGS[ways[0]]}


def sharded(folder: Path, given: Any = None) -> LazyTensors:
    """All tensors of a published folder: of one whole file before those of shards, and neither of copies nor of other editions.

    Args:
        given: the file that the settings name, which counts before all others.

    Source: transformers 5.23.0, ``_get_resolved_checkpoint_files``.
    """
    if given is not None:
        if not isinstance(given, str) or Path(given).name != given:
            raise CheckpointError(f"config.json sets transformers_weights to {given!r}; wanted the name of a file in {folder.name}")
        return _joined(folder, _shards(folder / given) if given.endswith(".json") else [given])
    for stem in WHOLE:
        if (folder / f"{stem}.safetensors").is_file():
            return _joined(folder, [f"{stem}.safetensors"])
        if (folder / f"{stem}.safetensors.index.json").is_file():
            return _joined(folder, _shards(folder / f"{stem}.safetensors.index.json"))
    indices = sorted(folder.glob("*.safetensors.index*.json"))
    names = sorted(path.name for path in folder.glob("*.safetensors") if not path.name.startswith(BESIDE))
    if indices:
        names = _shards(indices[0])
    elif not names:
        found = [path.name for path in folder.iterdir() if path.suffix in (*REFUSED, ".safetensors")]
        raise CheckpointError(f"{folder} has no safetensors of a model" + (
            f"; {found} may hold pickles, which are refused, or belong to something else" if found else ""))
    elif len(names) > 1 or _PART.fullmatch(names[0]):
        names = _complete(folder, names)
    return _joined(folder, names)


def _shards(index: Path) -> list[str]:
    """The files that an index names."""
    named = read_settings(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise CheckpointError(f"{index.name} has no weight_map of file names; fetch it again")
    names = sorted(set(named.values()))
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index.name} names files outside its folder; refused")
    return names


def _complete(folder: Path, names: list[str]) -> list[str]:
    """Several files without an index: the numbered parts of one model, and nothing else."""
    parts = [_PART.fullmatch(name) for name in names]
    if not all(parts) or len({(part[1], part[3]) for part in parts}) > 1:
        raise CheckpointError(f"{folder.name} holds {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}, and nothing says which of them is the "
                              "model; call it model.safetensors, or move the others away")
    stem, count = parts[0][1], int(parts[0][3])
    wanted = [f"{stem}-{number:05d}-of-{count:05d}.safetensors" for number in range(1, min(count, 1 << 16) + 1)]
    if absent := sorted(set(wanted) - set(names)):
        raise CheckpointError(f"{folder.name} lacks {absent[0]} ({len(absent)} of {len(wanted)} parts are missing); fetch it again")
    return wanted


def _joined(folder: Path, names: list[str]) -> LazyTensors:
    makers: dict[str, Callable[[], torch.Tensor]] = {}
    for name in names:
        makers.update(_open_tensors(_safe_path(folder / name)).makers)
    return LazyTensors(makers)
