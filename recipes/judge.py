"""judge: a classifier of pictures, trained apart, that says what a drawing shows.

    sensorium train recipes/judge.py --data corpus
    python recipes/judge.py corpus runs/judge sensorium/weights/judge     # choose its concepts, check it, write it out

A picture tower and one embedding a concept meet in one space. Its split is its own (sensorium/evals/judge.py): it sees pictures that nano
has never seen, and shares no weight with it.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import nano
import sensorium as sn
from sensorium.evals.figures import Figure, share
from sensorium.evals.judge import Judge, chosen, judge_split
from sensorium.train import Group, Run

SPLITS = ("train", "val", "test", "unseen")


def judge(classes: int, size: int = nano.SIZE) -> sn.Model:
    """The model: 3M parameters."""
    return sn.Model(
        encoders={"image": sn.PyramidEncoder(size=size), "label": sn.LabelEncoder(classes, 256)},
        align={"image": sn.Project(256, 256, pool="mean")},
        heads={"embed": sn.Unit()},
        objectives=(sn.Contrastive("image", "label", temperature=0.07),))


def parts(folder: Path) -> tuple[nano.Pictures, nano.Pictures, nano.Pictures]:
    """What it learns from, the choice pictures and the check pictures."""
    every = [nano.load_pictures(folder, split) for split in SPLITS]
    image = torch.cat([p.image_LCHW for p in every])
    concept, style = [c for p in every for c in p.concept], [s for p in every for s in p.style]
    styles: dict[str, list[str]] = {}
    for c, s in zip(concept, style, strict=True):
        styles.setdefault(c, []).append(s)
    kept = {c: judge_split(c, some) for c, some in styles.items()}
    role = [kept[c].index(s) + 1 if kept[c] and s in kept[c] else 0 for c, s in zip(concept, style, strict=True)]

    def some(wanted: int) -> nano.Pictures:
        index = [i for i, r in enumerate(role) if r == wanted]
        return nano.Pictures(image[index], [concept[i] for i in index], [style[i] for i in index])

    return some(0), some(1), some(2)


@dataclass(eq=False)
class JudgeData:
    """Makes the batch of each step: changed pictures beside their concepts."""

    pictures: nano.Pictures
    number: dict[str, int]
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        self.mixture = sn.Mixture((len(self.pictures),), seed=self.seed)

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        generator = torch.Generator().manual_seed(int(np.random.default_rng((self.seed, 11, step)).integers(2**62)))
        index = [self.mixture.place(step * self.count + i)[1] for i in range(self.count)]
        label = torch.tensor([self.number[self.pictures.concept[i]] for i in index])
        image = nano.augment(self.pictures.image_LCHW[index], generator)
        return sn.Batch(pairs={"image": image, "label": label[:, None]}, group_L=label, samples=len(index))


def run(data: str = "corpus", steps: int = 3000, cooldown: float = 0.5, pictures: int = 256) -> Run:
    """The run behind the shipped judge."""
    folder = Path(data)
    number = {c: i for i, c in enumerate(nano.load_concepts(folder))}
    learn, choice, _ = parts(folder)
    image, wanted = nano.on_paper(choice.image_LCHW), torch.tensor([number[c] for c in choice.concept])

    @torch.no_grad()
    def evaluate(model: sn.ModelNet) -> dict[str, float]:
        label = model.tower("label", torch.arange(len(number))[:, None])
        found = torch.cat([(model.tower("image", some) @ label.T).argmax(1) for some in image.split(256)])
        return {"choice_right": float((found == wanted).float().mean())}

    return Run(name="judge", model=judge(len(number)), batch=JudgeData(learn, number, pictures).batch, steps=steps, warmup=0.02,
               cooldown=cooldown, groups=(Group(rate=2e-3, decay=0.05),), ema=0.998, clip=2.0, mixed=True, validate_every=250, save_every=250,
               evaluate=evaluate, files={"codecs.json": sn.Codecs(image=sn.VisionCodec(size=nano.SIZE, resample="lanczos")).to_json().encode()})


def finish(data: Path, trained: Path, out: Path) -> list[Figure]:
    """Choose the concepts it may judge, measure it on the check pictures, and write the folder that ships."""
    concepts = list(nano.load_concepts(data))
    number = {c: i for i, c in enumerate(concepts)}
    _, choice, check = parts(data)
    model = sn.load(trained / "final")
    some = Judge(model, sn.Codecs.load(trained / "final").image, concepts, concepts)
    kept = chosen(some.scores(nano.on_paper(choice.image_LCHW)), torch.tensor([number[c] for c in choice.concept]))
    judged = [choice.concept[i] for i in kept.tolist()]
    some.judged = judged
    known = set(judged)
    rows = [i for i, c in enumerate(check.concept) if c in known]
    rank = some.ranks(nano.on_paper(check.image_LCHW[rows]), [check.concept[i] for i in rows])
    figures = [share(f"right about real pictures never seen, top-{k}", (rank < k).tolist(), chance=k / len(judged)) for k in (1, 5)]
    about = {"concepts": concepts, "judged": judged}
    card = {"name": "judge", "data": "docs/data.md; its own split, see sensorium/evals/judge.py", "licence": "Apache-2.0",
            "figures": [vars(figure) for figure in figures]}
    files = {"codecs.json": (trained / "final" / "codecs.json").read_bytes(), "judge.json": json.dumps(about).encode(),
             "card.json": json.dumps(card, indent=1).encode()}
    sn.save(model, out, files, dtype=torch.bfloat16)
    return figures


if __name__ == "__main__":
    from rich.console import Console

    from sensorium.evals.figures import show

    show(finish(*map(Path, sys.argv[1:4])), Console())
