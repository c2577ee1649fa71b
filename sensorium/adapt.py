"""Adapt: small trained changes of a model that itself stays as it is: made, switched, merged, and saved as PEFT saves them.

    adapt(model, Lora(...))    the same weights, shared and frozen, with an adapter to train beside them
    switch                     which adapters are on, and how strongly; nothing is loaded for it
    merged, without            models without adapters: changed as they change it, or as it was
    save_adapter, load_adapter a folder of adapter_config.json and adapter_model.safetensors

In a folder, layers have the names that the model's published layout gives them, so that ``peft`` puts the adapter onto the published model
and adapters that ``peft`` trained come here. A model of our own has no other names than its own, and ``peft`` puts it onto a ModelNet.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sensorium.checkpoint import PUBLISHED, Rule, read_published, read_tensors, write_tensors
from sensorium.files import write_file
from sensorium.layers.adapters import Layer, Lora, adapted_layers, add_adapter, linear_layers, patterns_of, remove_adapter, sizes
from sensorium.layers.packed import PackedLinear
from sensorium.model import ModelNet
from sensorium.types import CheckpointError, ConfigError

__all__ = ["adapt", "adapter_base", "check_savable", "free_name", "is_adapter", "load_adapter", "Lora", "merged", "Merging",
           "save_adapter", "switch", "without"]

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_PARTS = {"lora_A": "down", "lora_B": "up", "lora_magnitude_vector": "magnitude"}
_TENSOR = re.compile(r"(?:base_model\.model\.)?(.+)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.weight)?")
_HARMLESS = {"auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode",
             "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha", "lora_dropout", "lora_ga_config",
             "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type", "use_dora",
             "use_rslora"}
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # beginnings that leave the model's own weights alone


def adapt(model: ModelNet, lora: Lora, name: str = "default", seed: int = 0) -> ModelNet:
    """A model like this one with one more adapter, which changes nothing yet; all other weights are shared with it, and frozen.

    Args:
        seed: of the adapter's first weights.

    Raises:
        ConfigError: the name is taken, or a pattern fits no linear layer.
    """
    if name in model.spec.adapters:
        raise ConfigError(f"the model already has an adapter {name!r}; give this one another name, or take that off with adapt.without")
    out = _copied(model).requires_grad_(False)
    with torch.random.fork_rng(devices=[]), torch.device(model.device):
        torch.manual_seed(seed)
        add_adapter(out, name, lora)
    out.spec = replace(model.spec, adapters={**model.spec.adapters, name: lora})
    return out.train(model.training)


def _copied(model: ModelNet) -> ModelNet:
    """Other modules around the same numbers."""
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})


def switch(model: ModelNet, on: str | Mapping[str, float] | None = None) -> None:
    """Choose which adapters of a model are on; all others are off. One that was just made or loaded is on.

    A conversation that goes on remembers what it read with the adapters of then: begin another.

    Args:
        on: the name of one, or names and what to multiply each one's change by (1.0 is as it was trained); None: the bare model.

    Raises:
        ConfigError: the model has no such adapter.
    """
    wanted = {on: 1.0} if isinstance(on, str) else dict(on or {})
    unknown = sorted(set(wanted) - set(model.spec.adapters))
    if unknown:
        raise ConfigError(f"the model has no adapter {unknown[0]!r}; it has {', '.join(model.spec.adapters) or 'none'}")
    for _, _, adapters in adapted_layers(model):
        adapters.strength.update({name: wanted.get(name, 0.0) for name in adapters.strength})


def without(model: ModelNet, *names: str) -> ModelNet:
    """A model like this one without these adapters (none named: without any); the rest is shared with it."""
    names = names or tuple(model.spec.adapters)
    out = _copied(model)
    for name in names:
        if name not in model.spec.adapters:
            raise ConfigError(f"the model has no adapter {name!r}; it has {', '.join(model.spec.adapters) or 'none'}")
        remove_adapter(out, name)
    out.spec = replace(model.spec, adapters={name: lora for name, lora in model.spec.adapters.items() if name not in names})
    return out


@dataclass
class Merging:
    """What became of every layer when adapters were merged.

    Args:
        layers: how many were changed.
        rounding: of those in few bits, path -> how far the matrix packed again is from the exact sum, as a share of the sum's norm and as a
            share of the change's. Over 1 in the second, rounding moves the layer further than what it learned.
    """

    layers: int = 0
    rounding: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        said = f"{self.layers} layers merged"
        if not self.rounding:
            return said
        weight, change = (sum(column) / len(self.rounding) for column in zip(*self.rounding.values(), strict=True))
        return (f"{said}, {len(self.rounding)} of them packed again: rounding is {weight:.1%} of their weights and {change:.2f} times what was "
                f"learned; to lose less, merge into the float model and pack that in 8 bits")


def merged(model: ModelNet, report: Merging | None = None) -> ModelNet:
    """A plain model that does what this one does with the adapters that are on.

    Packed layers are unpacked, changed, and packed again, which rounds them once more.

    Args:
        report: filled with what that costs.
    """
    report = report if report is not None else Merging()
    out = without(model)
    for path, layer, adapters in adapted_layers(model):
        if not any(adapters.strength.values()):
            continue
        bare, target = layer.weight.detach(), out.get_submodule(path)
        weight = adapters.weight(bare)
        report.layers += 1
        if isinstance(target, PackedLinear):
            target.fill(weight)
            lost, change = (target.weight - weight).norm(), (weight - bare).norm()
            report.rounding[path] = (float(lost / weight.norm()), float(lost / change.clamp(min=1e-30)))
        else:
            target.weight = nn.Parameter(weight.to(bare.dtype), requires_grad=layer.weight.requires_grad)
    return out


@dataclass(frozen=True)
class _Names:
    """What layers are called in an adapter's files: by the rules of the model's published layout, or as they are."""

    rules: dict[str, Rule] | None = None
    rename: Callable[[str], str] = str
    module: Callable[[str], str] = str

    @staticmethod
    def of(model: ModelNet) -> _Names:
        if model.folder is None or (model.folder / "model.json").is_file():
            return _Names()
        config = read_published(model.folder).config
        entry = PUBLISHED[config.get("model_type") or config.get("_class_name")]
        return _Names(entry.rules(model.spec, config), entry.rename, entry.module)

    def theirs(self, path: str, layer: Layer) -> tuple[str, torch.Tensor | None]:
        """The name of our layer, and which of its rows ours are, in our order; None where they are the same."""
        if self.rules is None:
            return path, None
        rule = self.rules.get(f"{path}.weight")
        order = None if rule is None or rule.make is None else _row_order(rule.make, *sizes(layer))
        if rule is None or len(rule.source) != 1 or (rule.make is not None and order is None):
            made = ", ".join(rule.source) if rule else "nothing"
            raise ConfigError(f"{path} is made of {made}, which the published model has in another form, so its adapter cannot be saved for it; "
                              "leave it out of Lora(paths=...)")
        return self.module(rule.source[0]).removesuffix(".weight"), order

    def ours(self) -> Callable[[str], str | None]:
        """Tells the path of the layer of a name; None where there is none."""
        if self.rules is None:
            return str
        known = {rule.source[0]: path.removesuffix(".weight") for path, rule in self.rules.items() if len(rule.source) == 1}
        return lambda name: known.get(self.rename(f"{name}.weight"))


def _row_order(make: Callable[..., torch.Tensor], rows: int, columns: int) -> torch.Tensor | None:
    """Which row of the published matrix each of ours is, where another order of rows is all that sets them apart; else None."""
    numbers = torch.arange(rows * columns, dtype=torch.int32).view(rows, columns)
    try:
        made = make(numbers)
    except (RuntimeError, IndexError):  # made of something that is no such matrix
        return None
    if made.shape != numbers.shape or torch.equal(made, numbers):
        return None
    order = (made[:, 0] // columns).long()
    return order if torch.equal(numbers[order], made) and len(order.unique()) == rows else None


def save_adapter(model: ModelNet, folder: str | Path, name: str | None = None, base: str | None = None) -> Path:
    """Write one adapter as PEFT does.

    Args:
        name: which; None is the only one.
        base: what ``peft`` shall load beneath it: a name on the hub or a folder; None is the folder that the model was loaded from.

    Raises:
        ConfigError: no such adapter, or one of a layer that has no place in the published layout.
    """
    if name is None and len(model.spec.adapters) == 1:
        (name,) = model.spec.adapters
    if name not in model.spec.adapters:
        raise ConfigError(f"the model has no adapter {name!r} to save; it has {', '.join(model.spec.adapters) or 'none'}; say which by name=")
    lora, names, folder = model.spec.adapters[name], _Names.of(model), Path(folder)
    nets = {path: adapters.get_submodule(name) for path, _, adapters in adapted_layers(model) if name in adapters.strength}
    theirs = {path: names.theirs(path, model.get_submodule(path)) for path in nets}
    modules = {path: name for path, (name, _) in theirs.items()}
    tensors = {f"base_model.model.{modules[path]}.{part}{'' if ours == 'magnitude' else '.weight'}":
               _ordered(net.get_parameter(ours), None if theirs[path][1] is None else theirs[path][1].argsort(), ours)
               for path, net in nets.items() for part, ours in _PARTS.items() if ours != "magnitude" or lora.dora}
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM" if names.rules is not None and "text" in model.spec.heads else None,
        "base_model_name_or_path": base or (str(model.folder) if model.folder else None), "r": lora.rank, "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout, "use_dora": lora.dora, "use_rslora": lora.rslora, "target_modules": _targets(model, modules, names),
        "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "modules_to_save": None, "inference_mode": True,
        "auto_mapping": {"base_model_class": "ModelNet", "parent_library": "sensorium"} if names.rules is None else None}
    write_tensors(folder / TENSORS, tensors, {"format": "pt"})
    write_file(folder / CONFIG, json.dumps(config, indent=1).encode())
    return folder


def _ordered(value: torch.Tensor, order: torch.Tensor | None, part: str) -> torch.Tensor:
    """An adapter's tensor with the layer's rows in another order; ``down`` has none of them."""
    return value if order is None or part == "down" else value.detach()[order.to(value.device)]


def _targets(model: ModelNet, modules: dict[str, str], names: _Names) -> list[str]:
    """PEFT's list of layers: the ends of their names where these say exactly the same, else the whole names."""
    ends = {name.rpartition(".")[2] for name in modules.values()}
    if names.rules is None or set(model.encoders) != {"text"}:
        return sorted(modules.values())
    others = {source.removesuffix(".weight") for path, rule in names.rules.items() for source in rule.source if path.endswith(".weight")}
    return sorted(modules.values() if any(name.rpartition(".")[2] in ends for name in others - set(modules.values())) else ends)


def check_savable(model: ModelNet, lora: Lora) -> None:
    """See, before an adapter is trained, that it can be saved.

    Raises:
        ConfigError: a layer that the published layout has in another form; by its path.
    """
    names = _Names.of(model)
    for path, layer in linear_layers(model).items():
        if any(fnmatchcase(path, pattern) for pattern in lora.paths):
            names.theirs(path, layer)


def free_name(model: ModelNet, wanted: str = "default") -> str:
    """A name that no adapter of the model has: the one wanted, or that with a number."""
    return next(name for name in (wanted, *(f"{wanted}-{number}" for number in range(2, 99))) if name not in model.spec.adapters)


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter."""
    return (Path(folder) / CONFIG).is_file()


def adapter_base(folder: str | Path) -> str | None:
    """The name or folder of the model that an adapter was made for, as far as it says."""
    return _settings(Path(folder)).get("base_model_name_or_path")


def load_adapter(model: ModelNet, folder: str | Path, name: str | None = None) -> ModelNet:
    """A model like this one with the adapter of a folder, that ``peft`` or :func:`save_adapter` wrote, switched on.

    Args:
        name: what to call it here; None is the folder's name.

    Raises:
        CheckpointError: pickled, torn, or not for this model; every tensor must have its place.
        ConfigError: an adapter of a kind that is not built.
    """
    folder = Path(folder)
    config = _settings(folder)
    name = name or re.sub(r"[^A-Za-z0-9_-]", "_", folder.resolve().name)
    if not (folder / TENSORS).is_file() and (folder / "adapter_model.bin").is_file():
        raise CheckpointError(f"{folder.name}/adapter_model.bin is a pickle, which can run code; wanted {TENSORS}: save the adapter again with "
                              "peft's save_pretrained, which writes it")
    names = _Names.of(model)
    nets, problems = _placed(read_tensors(folder / TENSORS), names)
    rank, layers, orders = config["r"], linear_layers(model), {}
    for path, parts in nets.items():
        if path not in layers:
            problems.append(f"it changes {path}, which is no linear layer here")
            continue
        try:
            orders[path] = names.theirs(path, layers[path])[1]
        except ConfigError as error:
            problems.append(str(error))
        rows, columns = sizes(layers[path])
        wanted = {"down": (rank, columns), "up": (rows, rank)} | ({"magnitude": (rows,)} if config.get("use_dora") else {})
        given = {part: tuple(value.shape) for part, value in parts.items()}
        problems += [f"{path} has {part} {given.get(part, 'missing')}, wanted {wanted.get(part, 'none')}"
                     for part in _PARTS.values() if given.get(part) != wanted.get(part)]
    if problems or not nets:
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
        base = config.get("base_model_name_or_path") or "an unnamed model"
        raise CheckpointError(f"the adapter {folder.name}, of rank {rank} and made for {base}, does not fit this model: "
                              f"{shown or 'it holds no tensors'}; load it onto the model it was made for")
    lora = Lora(rank=rank, alpha=config.get("lora_alpha", 8), paths=patterns_of(nets, layers), dropout=config.get("lora_dropout", 0.0),
                dora=bool(config.get("use_dora")), rslora=bool(config.get("use_rslora")))
    out = adapt(model, lora, name)
    for path, parts in nets.items():
        out.get_submodule(f"{path}.adapters.{name}").load_state_dict({part: _ordered(value, orders[path], part) for part, value in parts.items()})
    return out


def _placed(tensors: Mapping[str, torch.Tensor], names: _Names) -> tuple[dict[str, dict[str, torch.Tensor]], list[str]]:
    """Tensors by our layers and parts; and what has no place."""
    nets: dict[str, dict[str, torch.Tensor]] = {}
    problems, place = [], names.ours()
    for name, value in tensors.items():
        found = _TENSOR.fullmatch(name)
        path = place(found[1]) if found else None
        if found is None:
            problems.append(f"it holds {name}, wanted only lora_A, lora_B and lora_magnitude_vector")
        elif path is None:
            problems.append(f"it changes {found[1]}, which this model has not, or in another form")
        else:
            nets.setdefault(path, {})[_PARTS[found[2]]] = value
    return nets, list(dict.fromkeys(problems))


def _settings(folder: Path) -> dict[str, Any]:
    """adapter_config.json, if it is of a kind that is built."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {CONFIG}; give the folder of an adapter, that peft or save_adapter wrote")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{folder.name}/{CONFIG} is not JSON; fetch the adapter again") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or not isinstance(config.get("r"), int):
        kind = config.get("peft_type") if isinstance(config, dict) else type(config).__name__
        raise ConfigError(f"{folder.name}/{CONFIG} is of kind {kind!r} with rank {config.get('r') if isinstance(config, dict) else None!r}; wanted "
                          "'LORA' (with or without use_dora, use_rslora) and a whole number")
    if config.get("init_lora_weights") not in _STARTS:
        raise ConfigError(f"{folder.name}/{CONFIG}: it began as {config['init_lora_weights']!r}, which changes the model's own weights too; save it "
                          "with peft's path_initial_model_for_weight_conversion, which makes it a plain adapter")
    unbuilt = [key for key, value in config.items() if key not in _HARMLESS and value and (key, value) != ("bias", "none")]
    if unbuilt:
        raise ConfigError(f"{folder.name}/{CONFIG} sets {unbuilt[0]} to {str(config[unbuilt[0]])[:80]}; only adapters without it are built")
    return config
