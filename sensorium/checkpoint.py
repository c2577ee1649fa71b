"""Checkpoints: spec + safetensors on disk and back; published layouts by explicit name maps; strict both ways.

    folder/model.json          the spec
    folder/weights.safetensors every tensor by its path in the model
    folder/weights-*.safetensors   further tensors, of parts that were added later
    folder/codecs.json, tokenizer.json, card.json   how raw values become arrays, and what the weights are

A published model's files are read by ``formats.read_published``; a :class:`Published` entry of the zoo says how its tensors become ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from sensorium.catalog import find
from sensorium.files import write_file
from sensorium.formats import LazyTensors, PublishedFiles, read_published, read_tensors
from sensorium.heads import Tokens
from sensorium.layers.packed import PackedMatrix, Packing
from sensorium.model import Model, ModelNet
from sensorium.settings import GENERATION, SPECIAL_TOKENS, TOKENIZER, Keys, check_settings
from sensorium.spec import Spec, from_json
from sensorium.types import CheckpointError, ConfigError

__all__ = ["check_codec_settings", "Coverage", "load", "Pretrained", "PUBLISHED", "Published", "read_published", "read_tensors", "Rule", "save",
           "write_tensors"]


@dataclass
class Coverage:
    """What became of every tensor when a checkpoint was read.

    Args:
        used: tensor in the file -> parameters it went into.
        ignored: tensors in the file that are known to be derived or unused, with the reason.
    """

    used: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{len(self.used)} tensors used, {len(self.ignored)} known and not needed"]
        return "\n".join(lines + [f"  {name}: {reason}" for name, reason in sorted(self.ignored.items())])


@dataclass(frozen=True)
class Rule:
    """How one parameter is made: from ``source`` tensors of the file, by ``make`` (None: the only one, as it is)."""

    source: tuple[str, ...]
    make: Callable[..., torch.Tensor] | None = None


@dataclass(frozen=True)
class Published:
    """A published family's layout.

    Args:
        spec: its config.json, with "tensor_names" that the files hold, -> our spec.
        rules: (spec, config) -> our parameter's path -> how it is made.
        ignored: name -> reason, or None if the tensor is not one to be ignored.
        rename: a tensor's name in any edition of the layout -> its name in the edition that ``rules`` speaks of.
        module: its name in that edition -> its name inside the library's own module, which is what PEFT's adapters say.
        image: (config, preprocessor_config.json) -> the codec of its pictures; None where it reads none, or is not known.
        video: (config, settings of its videos) -> the codec of its videos.
        equals: (spec, a tensor that is ignored) -> the tensor whose numbers it must hold, or these numbers; None where it is of no use here.
        head: the scores' matrix and the embeddings that it may be tied to, by the ends of their names in that edition.
        keys: settings file, by its path in the folder -> what becomes of its keys. Those of ``CODEC_FILES`` are checked where codecs are made.
    """

    spec: Callable[[dict[str, Any]], Model]
    rules: Callable[[Model, dict[str, Any]], dict[str, Rule]]
    ignored: Callable[[str], str | None] = lambda name: None
    rename: Callable[[str], str] = lambda name: name
    module: Callable[[str], str] = lambda name: name
    image: Callable[[dict[str, Any], dict[str, Any]], Spec] | None = None
    video: Callable[[dict[str, Any], dict[str, Any]], Spec] | None = None
    equals: Callable[[Model, str], str | torch.Tensor | None] = lambda spec, name: None
    head: tuple[str, str] = ("lm_head.weight", "model.embed_tokens.weight")
    keys: Mapping[str, Keys] = field(default_factory=dict)


CODEC_FILES = {"generation_config.json": GENERATION, "tokenizer_config.json": TOKENIZER, "special_tokens_map.json": SPECIAL_TOKENS}
"""Settings files that say nothing of the weights, and their keys where a family declares no others (those of ``VALUE_FILES`` have none in common)."""
VALUE_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "sentence_bert_config.json",
               "config_sentence_transformers.json")

PUBLISHED: dict[str, Published] = {}
"""config.json's ``model_type`` (or ``_class_name``) -> layout; the zoo fills it."""


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], info: dict[str, str] | None = None) -> None:
    """Write safetensors, all or nothing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary, metadata=info)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # the library leaves it to the owner alone
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def save(model: ModelNet, folder: str | Path, extra: dict[str, bytes] | None = None, dtype: torch.dtype | None = None,
         only: Collection[str] | None = None) -> Path:
    """Write a model so that :func:`load` reads it back.

    Args:
        extra: more files of the folder by name (tokenizer.json, codecs.json, card.json).
        dtype: store floating tensors in this format; None keeps them.
        only: names of the tensors to write; ``load`` finds the others where ``Pretrained`` parts bring them. None is all.
    """
    folder = Path(folder)
    state = {name: value for name, value in model.state_dict().items() if only is None or name in only}
    state = {name: value.to(dtype) if dtype and value.is_floating_point() else value for name, value in state.items()}
    write_tensors(folder / "weights.safetensors", state)
    for name, data in (extra or {}).items():
        write_file(folder / name, data)
    write_file(folder / "model.json", model.spec.to_json().encode())
    return folder


def load(folder: str | Path, dtype: torch.dtype = torch.float32, report: Coverage | None = None, packed: Packing | None = None) -> ModelNet:
    """Load a model from a folder: ours, or a published one in any of the known formats.

    Args:
        folder: holds model.json beside weights.safetensors, or a published model's files; or the one file that is such a model.
        report: filled with what became of every tensor.
        packed: layers to store in few bits, each packed as soon as it is read; None leaves the model as it was saved.

    Raises:
        CheckpointError: anything missing, unexpected, torn or of a wrong shape, by name.
    """
    folder = Path(folder)
    report = report if report is not None else Coverage()
    if (folder / "model.json").is_file():
        try:
            spec = from_json((folder / "model.json").read_text(encoding="utf-8"))
        except ConfigError as error:
            raise CheckpointError(f"{folder.name}/model.json: {error}") from error
        tensors = _own_tensors(folder)
        rules = {name: Rule((name,)) for name in spec.build(device="meta").state_dict()}
        ignored, equals = _nothing, lambda spec, name: None
    else:
        spec, rules, ignored, equals, tensors = _published(folder)
    if packed is not None and spec.packed != packed:
        if spec.packed is not None:
            raise ConfigError(f"{folder.name} was saved as {spec.packed}, not {packed}; load it without packed=, or pack its float weights")
        spec = replace(spec, packed=packed)
    if spec.packed is not None and dtype != torch.float32:
        raise ConfigError(f"{folder.name} is packed, and what stays in floats beside few bits is float32, not {dtype}; leave dtype out")
    try:
        model = spec.build(device="meta", dtype=dtype)
    except (ArithmeticError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"no model can be built of the sizes that {folder.name} says ({str(error)[:80]}); fetch it again") from error
    _fill(model, tensors, rules, ignored, report, dtype)
    _check_ignored(tensors, report, lambda name: equals(spec, name))
    model.folder, model.spec = folder, spec.owned()
    return model.eval()


def _own_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder of ours, from its one file or several."""
    tensors = read_tensors(folder / "weights.safetensors")
    for path in sorted(folder.glob("weights-*.safetensors")):
        more = read_tensors(path)
        if twice := sorted(set(tensors) & set(more)):
            raise CheckpointError(f"{path.name} holds {twice[0]}, which another file of {folder.name} holds too; remove one of them")
        tensors |= more
    return tensors


def _nothing(name: str) -> str | None:
    return None


def _published(path: Path) -> tuple[Model, dict[str, Rule], Callable[[str], str | None], Callable[..., str | torch.Tensor | None], LazyTensors]:
    files = read_published(path)
    kind = files.config.get("model_type") or files.config.get("_class_name")
    if kind not in PUBLISHED:
        raise CheckpointError(f"{path.name} is of kind {kind!r}; known kinds: {', '.join(sorted(PUBLISHED))}")
    entry = PUBLISHED[kind]
    check_settings(files.settings, {file: keys for file, keys in entry.keys.items() if file not in (*CODEC_FILES, *VALUE_FILES)})
    config = {**files.config, "tensor_names": frozenset(files.tensors)}
    tensors = LazyTensors({entry.rename(name): maker for name, maker in files.tensors.makers.items()})
    try:
        _check_depth(files.config, len(files.tensors))
        spec = entry.spec(config)
        if _has_own_head(spec, entry.head, tensors):
            spec = entry.spec(_untied(config))
        rules = entry.rules(spec, files.config)
    except (ArithmeticError, AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"the settings of {path.name}, of kind {kind!r}, lack or misuse {error}") from error
    return spec, rules, entry.ignored, entry.equals, tensors


def _has_own_head(spec: Model, names: tuple[str, str], tensors: LazyTensors) -> bool:
    """Whether a model that is said to score by its embeddings is stored with other scores, which then count. Scores alone are the embeddings."""
    head = spec.heads.get("text")
    stored = next((name for name in tensors if name.endswith(names[0])), None)
    if stored is None or not isinstance(head, Tokens) or not head.tied:
        return False
    embeddings = stored.removesuffix(names[0]) + names[1]
    if embeddings not in tensors:
        tensors.makers = {embeddings if name == stored else name: maker for name, maker in tensors.makers.items()}
        return False
    return not torch.equal(tensors[stored], tensors[embeddings])


def _untied(config: dict[str, Any]) -> dict[str, Any]:
    """The settings with scores of their own."""
    parts = {key: {**part, "tie_word_embeddings": False} for key, part in config.items() if isinstance(part, dict) and "vocab_size" in part}
    return {**config, **parts, "tie_word_embeddings": False}


def _check_ignored(tensors: LazyTensors | dict[str, torch.Tensor], report: Coverage, equals: Callable[[str], str | torch.Tensor | None]) -> None:
    """Refuse a stored tensor that something else would quietly stand for.

    Raises:
        CheckpointError: its numbers are others, by name.
    """
    for name, reason in report.ignored.items():
        wanted = equals(name)
        stored = tensors[name] if wanted is not None or name.endswith("position_ids") else None
        if stored is None:
            continue
        if isinstance(wanted, str):
            same = wanted in tensors and torch.equal(stored, tensors[wanted])
        else:
            wanted = torch.arange(stored.numel()).reshape(stored.shape) if wanted is None else wanted
            rounding = torch.finfo(stored.dtype).eps if stored.is_floating_point() else 0.0
            slack = max(2 * rounding, 1e-3) * float(wanted.abs().max())
            same = stored.shape == wanted.shape and torch.allclose(stored.double(), wanted.double(), rtol=0, atol=slack)
        if not same:
            raise CheckpointError(f"{name} is stored with other numbers than it would have here ({reason}); a model that was changed there "
                                  "is not built")


def check_codec_settings(files: PublishedFiles, layout: Published | None) -> None:
    """Refuse settings of texts, answers and pictures that are not built.

    Raises:
        ConfigError: by file and key.
    """
    declared = {**CODEC_FILES, **(layout.keys if layout is not None else {})}
    check_settings(files.settings, {file: keys for file, keys in declared.items() if file in (*CODEC_FILES, *VALUE_FILES)})


def _check_depth(config: dict[str, Any], tensors: int) -> None:
    """A model has fewer layers than tensors; a file that says otherwise is not built to find out."""
    for key, value in config.items():
        if isinstance(value, dict):
            _check_depth(value, tensors)
        elif key.endswith("layers") and key != "max_window_layers" and isinstance(value, int) and value > tensors:  # that one is a place
            raise CheckpointError(f"the settings say {key} = {value:,}, but there are {tensors} tensors; fetch the model again")


def _fill(model: nn.Module, tensors: Mapping[str, torch.Tensor], rules: dict[str, Rule], ignored: Callable[[str], str | None],
          report: Coverage, dtype: torch.dtype) -> None:
    """Put every tensor in its place; all problems in one error."""
    packs = {f"{path}.weight": layer for path, layer in model.named_modules() if isinstance(layer, PackedMatrix) and f"{path}.weight" in rules}
    stored = {f"{name.removesuffix('weight')}{part}" for name in packs for part in PackedMatrix.PARTS}
    wanted = {name: place for name, place in model.state_dict().items() if name not in stored}
    wanted |= {name: torch.empty(layer.rows, layer.columns, device="meta") for name, layer in packs.items()}
    problems, ready = [], {}
    for name, place in wanted.items():
        rule = rules.get(name)
        if rule is None:
            problems.append(f"no rule makes {name}")
            continue
        missing = [source for source in rule.source if source not in tensors]
        if missing and not place.is_meta:
            continue  # a Pretrained part has brought it
        if missing:
            problems.append(f"missing tensor {', '.join(missing)} (for {name})")
            continue
        values = [tensors[source] for source in rule.source]
        try:
            value = values[0] if rule.make is None else rule.make(*values)
        except (RuntimeError, IndexError) as error:
            shapes = ", ".join(f"{source} {tuple(v.shape)}" for source, v in zip(rule.source, values, strict=True))
            problems.append(f"{name} cannot be made of {shapes} ({str(error)[:60]}), wanted {tuple(place.shape)}")
            continue
        if tuple(value.shape) != tuple(place.shape):
            problems.append(f"{rule.source[0]} has shape {tuple(value.shape)}, wanted {tuple(place.shape)} for {name}")
            continue
        if value.is_floating_point() != place.is_floating_point() or not (value.is_floating_point() or value.dtype == place.dtype):
            problems.append(f"{rule.source[0]} holds {value.dtype}, wanted {place.dtype} for {name}")
            continue
        if name in packs:
            ready |= {f"{name.removesuffix('weight')}{part}": x for part, x in packs[name].packed(value).items()}
        else:
            ready[name] = value.to(dtype) if value.is_floating_point() else value
        for source in rule.source:
            report.used[source] = (*report.used.get(source, ()), name)
    for name in tensors:
        if name in report.used:
            continue
        reason = ignored(name)
        if reason is None:
            problems.append(f"unexpected tensor {name}")
        else:
            report.ignored[name] = reason
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"the weights do not fit the model: {shown}")
    model.load_state_dict(ready, assign=True, strict=False)  # all that is wanted and not ready is there already
    for module in model.modules():  # buffers that are computed, not stored, were made on the meta device
        for name, buffer in list(module.named_buffers(recurse=False)):
            if buffer.is_meta:
                module.register_buffer(name, type(module)(module.spec).get_buffer(name), persistent=False)


@dataclass(frozen=True, repr=False)
class Pretrained(Spec):
    """A part borrowed from a saved model, with its weights.

    Args:
        folder: of the saved model (ours or published), or a name of the catalog.
        part: path inside it, e.g. "encoders.image" or "decoder"; "" is the whole.
        frozen: its weights are not trained.
    """

    folder: str
    _: KW_ONLY
    part: str = ""
    frozen: bool = False

    def resolve(self) -> Spec:
        folder = find(self.folder)
        if (folder / "model.json").is_file():
            spec: Any = from_json((folder / "model.json").read_text(encoding="utf-8"))
        else:
            spec = _published(folder)[0]
        for step in self.part.split(".") if self.part else []:
            spec = spec[step] if isinstance(spec, dict) else vars(spec)[step]
        return spec

    def build(self) -> nn.Module:
        with torch.device("cpu"):
            module = load(find(self.folder)).get_submodule(self.part)
        return module.requires_grad_(not self.frozen).train()
