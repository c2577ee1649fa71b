"""Skills: what each model at hand can do, as data: what must be given, what comes out, in which languages, at what cost.

    catalog entry -> its kind's skills        folder -> what its sentence of parts reads and writes
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from sensorium.catalog import CATALOG, Entry, find, ready
from sensorium.desk import codecs_of
from sensorium.named import open_model
from sensorium.types import ConfigError

__all__ = ["entry_skills", "ESPEAK", "Skill", "skills_at_hand", "skills_with"]


@dataclass(frozen=True)
class Skill:
    """One thing a model can do.

    Args:
        model: its name.
        verb: "hear", "speak", "see", "look", "think", "draw", "animate" or "say".
        needs: modalities that must be given.
        writes: the modality that comes out.
        also: modalities that may be given besides.
        converts: the same content in another form; otherwise it answers.
        cost: parameters, in millions.
        only: the languages it knows, with a blank between; None is many.
        adapter: folder of an adapter that the model wears.
        named: somebody named it: it answers in whatever language it is asked.
        heeds: what is said in a film may stand beside its frames: it reads texts of any length, not only short questions.
    """

    model: str
    verb: str
    needs: frozenset[str]
    writes: str
    also: frozenset[str] = frozenset()
    converts: bool = False
    cost: float = 0.0
    only: str | None = None
    adapter: str | None = None
    named: bool = False
    heeds: bool = False

    def knows(self, language: str | None) -> bool:
        """Whether it knows a language; of None, whether it knows many."""
        return self.only is None or language is not None and language in self.only.split()

    @property
    def languages(self) -> float:
        """How many it knows."""
        return math.inf if self.only is None else len(self.only.split())

    def __str__(self) -> str:
        return f"{' + '.join(sorted(self.needs))} -> {self.writes} ({self.verb}, {self.model})"


# What each kind of model can do: (verb, needs, writes, also, converts).
_KINDS = {
    "see": (("see", {"image"}, "text", {"text"}, False), ("draw", {"text"}, "image", set(), False),
            ("see", {"video"}, "text", {"text"}, False), ("animate", {"text"}, "video", set(), False)),
    "look": (("look", {"image", "text"}, "text", set(), False), ("look", {"video", "text"}, "text", set(), False)),
    "think": (("think", {"text"}, "text", set(), False),),
    "hear": (("hear", {"audio"}, "text", set(), True),),
    "speak": (("speak", {"text"}, "audio", set(), True),),
}
_HEEDING = ("look", "think")
ESPEAK = Skill("espeak-ng", "speak", frozenset({"text"}), "audio", converts=True)


def entry_skills(entry: Entry) -> list[Skill]:
    """What a model of the catalog can do."""
    return [Skill(entry.name, verb, frozenset(needs), writes, frozenset(also), converts, entry.parameters / 1e6,
                  entry.only, heeds=entry.kind in _HEEDING) for verb, needs, writes, also, converts in _KINDS.get(entry.kind, ())]


def skills_at_hand() -> list[Skill]:
    """What the ready models of the catalog can do; espeak-ng speaks where nothing better does."""
    skills = [skill for entry in CATALOG.values() if ready(entry.name) for skill in entry_skills(entry)]
    return skills if any(skill.verb == "speak" for skill in skills) else [*skills, ESPEAK]


def skills_with(model: str, adapter: str | None = None) -> list[Skill]:
    """What is at hand, but only ``model`` (a name or a folder) answers.

    Args:
        adapter: folder of an adapter that it wears.

    Raises:
        ConfigError: not at hand, or it does not answer.
    """
    entry = CATALOG.get(model)
    if entry is not None:
        find(model)
        own = _skills_of(model) if entry.kind in ("see", "imagine") else entry_skills(entry)
    else:
        own = _skills_of(model)
    only = entry.only if entry is not None and adapter is None else None  # an adapter may have taught it another language
    own = [replace(skill, adapter=adapter, only=only, named=True) for skill in own if not skill.converts]
    if not own:
        raise ConfigError(f"{model} does not answer, it is of kind {entry.kind if entry else 'embed'}; "
                          "name a model that sees or thinks, or leave --model out")
    return [*own, *(skill for skill in skills_at_hand() if skill.converts)]


def _skills_of(folder: str) -> list[Skill]:
    """Skills of a saved model, told from its sentence."""
    model = open_model(folder)
    spec = model.spec
    reads = frozenset(spec.reads) | ({"video"} if "image" in spec.reads and spec.decoder is not None else set())  # as some of its frames
    media = reads - {"text"}
    skills = [Skill(folder, "see" if media else "think", frozenset({"text"}), "text", media)] if "text" in spec.writes else []
    skills += [Skill(folder, "see", frozenset({one}), "text", reads) for one in sorted(media) if "text" in spec.writes]
    if "text" in spec.writes and codecs_of(model).template is not None:
        skills = [replace(skill, heeds=True) for skill in skills]
    drawn = [(verb, writes) for verb, writes in (("draw", "image"), ("animate", "video"), ("say", "audio")) if writes in spec.writes]
    given = spec.reads or ("text",)  # what makes pictures from noise alone is not told of what
    return skills + [Skill(folder, verb, frozenset({one}), writes, frozenset(spec.reads)) for verb, writes in drawn for one in given]
