"""The judge: two small classifiers that say which concept a picture shows, trained apart from the models they judge.

One sees a picture at 64 pixels, one at 96: what they know of photographs they learned at 224. Their opinions are added.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

import sensorium as sn
from sensorium.corpus.split import digest
from sensorium.evals.figures import ranks
from sensorium.files import write_file
from sensorium.types import ConfigError

__all__ = ["chosen", "enlarged", "Judge", "judge_split", "KEPT"]

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


def enlarged(image_LCHW: torch.Tensor, size: int) -> torch.Tensor:
    """The same pictures at ``size`` pixels on a side."""
    if image_LCHW.shape[-1] == size:
        return image_LCHW
    return F.interpolate(image_LCHW, size=(size, size), mode="bilinear", align_corners=False)


def _smaller(image_LCHW: torch.Tensor) -> torch.Tensor:
    """The same pictures at 87 % of their size on more white paper."""
    theta = torch.tensor([[1.15, 0.0, 0.0], [0.0, 1.15, 0.0]]).expand(len(image_LCHW), 2, 3)
    grid = F.affine_grid(theta, list(image_LCHW.shape), align_corners=False)
    return F.grid_sample(image_LCHW - 1, grid, align_corners=False) + 1


@dataclass
class Judge:
    """A trained judge.

    Args:
        models: each a picture tower and one embedding a concept, in one space.
        codec: how pictures become arrays; each model enlarges them to the size it sees.
        concepts: ids, in the order of the embeddings.
        judged: ids it may judge.
    """

    models: Sequence[sn.ModelNet]
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
        folders = [path.parent / name for name in about["models"]]
        return cls([sn.load(one) for one in folders], sn.Codecs.load(folders[0]).image, about["concepts"], about["judged"])

    def save(self, folder: str | Path, files: Mapping[str, bytes]) -> None:
        """Write a folder that :meth:`load` reads, with further ``files``; each model in a folder named by the size that it sees."""
        names = [str(model.spec.encoders["image"].size) for model in self.models]
        for name, model in zip(names, self.models, strict=True):
            sn.save(model, Path(folder) / name, {"codecs.json": sn.Codecs(image=self.codec).to_json().encode()}, dtype=torch.bfloat16)
        about = {"models": names, "concepts": self.concepts, "judged": self.judged}
        for name, data in {**files, "judge.json": json.dumps(about).encode()}.items():
            write_file(Path(folder) / name, data)

    @torch.inference_mode()
    def scores(self, image_LCHW: torch.Tensor, chunk: int = 256) -> torch.Tensor:
        """Normalised pictures -> cosine with every concept, (L, concepts): the mean of every model's two looks, at each as it is and smaller."""
        return sum(self._opinion(model, image_LCHW, chunk) for model in self.models) / len(self.models)

    def _opinion(self, model: sn.ModelNet, image_LCHW: torch.Tensor, chunk: int) -> torch.Tensor:
        size = model.spec.encoders["image"].size
        label = model.tower("label", torch.arange(len(self.concepts))[:, None])
        out = []
        for part in image_LCHW.split(chunk):
            looks = [model.tower("image", enlarged(look, size)) for look in (part, _smaller(part))]
            out.append(sum(looks) / 2 @ label.T)
        return torch.cat(out)

    def ranks(self, image_LCHW: torch.Tensor, wanted: Sequence[str]) -> torch.Tensor:
        """Place of the wanted concept among the judged ones, 0 the first, (L,)."""
        return self.placed(self.scores(image_LCHW), wanted)

    def film_ranks(self, films: Sequence[torch.Tensor], wanted: Sequence[str]) -> torch.Tensor:
        """The same of films, each (F, 3, H, W) in 0..1: by the mean of its frames' scores."""
        scores = [self.scores(self.codec.encode_all([sn.Image(frame) for frame in film])).mean(dim=0) for film in films]
        return self.placed(torch.stack(scores), wanted)

    def placed(self, scores_LC: torch.Tensor, wanted: Sequence[str]) -> torch.Tensor:
        """The same, of scores for every concept."""
        place = {concept: i for i, concept in enumerate(self.judged)}
        number = {concept: i for i, concept in enumerate(self.concepts)}
        scores_LJ = scores_LC[:, [number[concept] for concept in self.judged]]
        return ranks(scores_LJ, torch.tensor([place[concept] for concept in wanted]))
