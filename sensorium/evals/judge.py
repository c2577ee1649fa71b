"""The judge: a small classifier that says which concept a picture shows, trained apart from the models it judges.

Its own split, by the concept's id alone. A concept drawn in four styles or more keeps two pictures back:

    choice   sorted(styles)[h % n]              decides whether the judge may judge this concept
    check    sorted(styles)[(h + 1 + g % (n - 1)) % n]   shows how often it is right
    with n = len(styles), h = hash("sensorium-judge"), g = hash("sensorium-check")

Everything else is what it learns from. It judges the ``KEPT`` concepts whose choice picture it names rightly among all concepts and with
the largest lead over the second; the check pictures, looked at by nobody before, then say how often it is right about those.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import sensorium as sn
from sensorium.corpus.split import digest
from sensorium.evals.figures import ranks
from sensorium.types import ConfigError

__all__ = ["chosen", "Judge", "judge_split", "KEPT"]

KEPT = 600


def judge_split(concept: str, styles: Sequence[str]) -> tuple[str, str] | None:
    """The styles of the choice and the check picture; None for a concept drawn in fewer than four."""
    names = sorted(set(styles))
    if len(names) < 4:
        return None
    first = digest("sensorium-judge", concept) % len(names)
    second = (first + 1 + digest("sensorium-check", concept) % (len(names) - 1)) % len(names)
    return names[first], names[second]


def chosen(scores_LC: torch.Tensor, wanted_L: torch.Tensor, kept: int = KEPT) -> torch.Tensor:
    """Which rows the rule keeps, as indices in order of their lead.

    Args:
        scores_LC: of each choice picture for every concept.
        wanted_L: the concept each shows.
    """
    top = scores_LC.topk(2, dim=1)
    lead_L = torch.where(top.indices[:, 0] == wanted_L, top.values[:, 0] - top.values[:, 1], -1.0)
    order = lead_L.argsort(descending=True, stable=True)
    return order[: min(kept, int((lead_L > 0).sum()))]


@dataclass
class Judge:
    """A trained judge.

    Args:
        model: picture tower and one embedding a concept, in one space.
        codec: how pictures become arrays.
        concepts: ids, in the order of the embeddings.
        judged: ids it may judge.
    """

    model: sn.ModelNet
    codec: sn.VisionCodec
    concepts: list[str]
    judged: list[str]

    @classmethod
    def load(cls, folder: str | Path) -> Judge:
        """Read a saved judge.

        Raises:
            ConfigError: the folder holds no judge.
        """
        path = Path(folder) / "judge.json"
        if not path.is_file():
            raise ConfigError(f"{folder} holds no judge (judge.json is missing); train one with recipes/judge.py")
        about = json.loads(path.read_text(encoding="utf-8"))
        return cls(sn.load(folder), sn.Codecs.load(folder).image, about["concepts"], about["judged"])

    @torch.inference_mode()
    def scores(self, image_LCHW: torch.Tensor, chunk: int = 256) -> torch.Tensor:
        """Normalised pictures -> cosine with every concept, (L, concepts)."""
        label = self.model.tower("label", torch.arange(len(self.concepts))[:, None])
        return torch.cat([self.model.tower("image", part) @ label.T for part in image_LCHW.split(chunk)])

    def ranks(self, image_LCHW: torch.Tensor, wanted: Sequence[str]) -> torch.Tensor:
        """Place of the wanted concept among the judged ones, 0 the first, (L,)."""
        place = {concept: i for i, concept in enumerate(self.judged)}
        number = {concept: i for i, concept in enumerate(self.concepts)}
        scores_LJ = self.scores(image_LCHW)[:, [number[concept] for concept in self.judged]]
        return ranks(scores_LJ, torch.tensor([place[concept] for concept in wanted]))
