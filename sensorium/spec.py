"""Spec: a part of a model as plain, frozen data that prints, compares, saves as JSON, and builds into a module.

A spec is declared as a frozen dataclass; naming it a subclass of :class:`Spec` registers it, so that ``from_dict`` finds it.
``spec.build()`` makes the ``torch.nn.Module``; nothing has weights before that.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, ClassVar

from torch import nn

from sensorium.types import ConfigError

__all__ = ["from_dict", "from_json", "Spec"]


@dataclass(frozen=True)
class Spec:
    """A part as data. Subclasses are frozen dataclasses and implement ``build``.

    ``check`` returns a list of problems; all of them are raised in one :class:`ConfigError` when the spec is made.
    """

    registry: ClassVar[dict[str, type[Spec]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        known = Spec.registry.get(cls.__name__)
        if known is not None and known.__module__ != cls.__module__:
            raise ConfigError(f"two specs are named {cls.__name__}: {known.__module__} and {cls.__module__}; rename one")
        Spec.registry[cls.__name__] = cls

    def __post_init__(self) -> None:
        problems = self.check()
        if problems:
            raise ConfigError(f"{type(self).__name__}: " + "; ".join(problems))

    def check(self) -> list[str]:
        """Problems with the values, each a sentence saying what was given and what is wanted."""
        return []

    def build(self) -> nn.Module:
        """Make the module. Weights are drawn from torch's current random state; ``Model.build`` seeds it."""
        raise NotImplementedError(f"{type(self).__name__} does not build")

    def resolve(self) -> Spec:
        """The spec that says the sizes: this one, or the one behind a name (``Pretrained``)."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form: {"spec": class name, field: value, ...}, only the fields that differ from their defaults."""
        out: dict[str, Any] = {"spec": type(self).__name__}
        for f in fields(self):
            value = vars(self)[f.name]
            default = f.default if f.default is not MISSING else f.default_factory() if f.default_factory is not MISSING else MISSING
            if default is MISSING or value != default:
                out[f.name] = _plain(value)
        return out

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def describe(self) -> str:
        """One line: the name and what differs from the defaults."""
        return repr(self)

    def __repr__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self._shown().items())
        return f"{type(self).__name__}({inner})"

    def _shown(self) -> dict[str, Any]:
        return {key: vars(self)[key] for key in self.to_dict() if key != "spec"}


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.to_dict()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise ConfigError(f"a spec holds {type(value).__name__}, which has no JSON form; use numbers, text, lists and specs")


def from_dict(data: Any) -> Any:
    """Rebuild a spec from ``to_dict``'s form.

    Raises:
        ConfigError: an unknown spec or field, named with its path.
    """
    return _restore(data, "spec")


def from_json(text: str) -> Any:
    """Rebuild a spec from ``to_json``'s form."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the spec is not JSON: {error}; write it with Spec.to_json()") from error
    return from_dict(data)


def _restore(data: Any, path: str) -> Any:
    if isinstance(data, list):
        return tuple(_restore(item, f"{path}[{i}]") for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    if "spec" not in data:
        return {key: _restore(item, f"{path}.{key}") for key, item in data.items()}
    name = data["spec"]
    cls = Spec.registry.get(name) if isinstance(name, str) else None
    if cls is None or not is_dataclass(cls):
        raise ConfigError(f"{path} names the part {name!r}, which is not known; known: {', '.join(sorted(Spec.registry))}")
    names = {f.name for f in fields(cls)}
    unknown = sorted(set(data) - names - {"spec"})
    if unknown:
        raise ConfigError(f"{path} ({name}) has unknown fields {unknown}; it knows {sorted(names)}")
    try:
        return cls(**{key: _restore(item, f"{path}.{key}") for key, item in data.items() if key != "spec"})
    except TypeError as error:
        raise ConfigError(f"{path} ({name}): {error}") from error
