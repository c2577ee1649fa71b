"""The judge: a small classifier that says which concept a picture shows, trained apart from the models it judges.

Its own split, by the concept's id alone. A concept drawn in four styles or more keeps two pictures back:

    choice   sorted(styles)[h % n]              decides whether the judge may judge this concept
    check    sorted(styles)[(h + 1 + g % (n - 1)) % n]   shows how often it is right
    with n = len(styles), h = hash("sensorium-judge"), g = hash("sensorium-check")

Everything else is what it learns from. It judges ``KEPT`` concepts whose choice picture it names rightly among all concepts: first those
whose choice picture is in a hand that it has not seen draw them (no relative of the style among what it learned from), then the others,
each by the lead over the second name. Concepts that no model is trained on are left out, for nobody can draw them. The check pictures,
which decide nothing, then say how often it is right.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

import sensorium as sn
from sensorium.corpus.split import digest
from sensorium.evals.figures import ranks
from sensorium.types import ConfigError

__all__ = ["chosen", "Judge", "judge_split", "KEPT"]

KEPT = 520


def judge_split(concept: str, styles: Sequence[str]) -> tuple[str, str] | None:
    """The styles of the choice and the check picture; None for a concept drawn in fewer than four."""
    names = sorted(set(styles))
    if len(names) < 4:
        return None
    first = digest("sensorium-judge", concept) % len(names)
    second = (first + 1 + digest("sensorium-check", concept) % (len(names) - 1)) % len(names)
    return names[first], names[second]


def chosen(scores_LC: torch.Tensor, wanted_L: torch.Tensor, strange_L: torch.Tensor, kept: int = KEPT) -> torch.Tensor:
    """Which rows the rule keeps, as indices, the surest first.

    Args:
        scores_LC: of each choice picture for every concept.
        wanted_L: the concept each shows.
        strange_L: bool, whether it is in a hand not seen for its concept.
    """
    top = scores_LC.topk(2, dim=1)
    lead_L = top.values[:, 0] - top.values[:, 1]
    right_L = (top.indices[:, 0] == wanted_L) & (lead_L > 0)
    order = (lead_L + 2 * strange_L).masked_fill(~right_L, -1.0).argsort(descending=True, stable=True)  # a lead of cosines is at most 2
    return order[: min(kept, int(right_L.sum()))]


def _smaller(image_LCHW: torch.Tensor) -> torch.Tensor:
    """The same pictures at 87 % of their size on more white paper."""
    theta = torch.tensor([[1.15, 0.0, 0.0], [0.0, 1.15, 0.0]]).expand(len(image_LCHW), 2, 3)
    grid = F.affine_grid(theta, list(image_LCHW.shape), align_corners=False)
    return F.grid_sample(image_LCHW - 1, grid, align_corners=False) + 1


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
        """Normalised pictures -> cosine with every concept, the mean of two looks: as it is, and a little smaller; (L, concepts)."""
        label = self.model.tower("label", torch.arange(len(self.concepts))[:, None])
        return torch.cat([sum(self.model.tower("image", look) for look in (part, _smaller(part))) / 2 @ label.T for part in image_LCHW.split(chunk)])

    def ranks(self, image_LCHW: torch.Tensor, wanted: Sequence[str]) -> torch.Tensor:
        """Place of the wanted concept among the judged ones, 0 the first, (L,)."""
        place = {concept: i for i, concept in enumerate(self.judged)}
        number = {concept: i for i, concept in enumerate(self.concepts)}
        scores_LJ = self.scores(image_LCHW)[:, [number[concept] for concept in self.judged]]
        return ranks(scores_LJ, torch.tensor([place[concept] for concept in wanted]))
