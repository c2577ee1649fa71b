"""judge: classifiers of pictures, trained apart, that say what a drawing shows.

    sensorium train recipes/judge.py --data corpus --folder runs/judge-64
    sensorium train recipes/judge.py --data corpus --folder runs/judge-96 --eyes 96 --steps 1700
    python recipes/judge.py corpus sensorium/weights/judge runs/judge-64 runs/judge-96     # choose its concepts, check it, write it out

Eyes that know photographs (recipes/efficientnet.py) and one embedding a concept meet in one space. Its split is its own
(sensorium/evals/judge.py): it learns from real pictures that nano has never seen, and never sees a drawing of nano's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import efficientnet
import sensorium as sn
from efficientnet import EYES
from pictures import SIZE, Pictures, Stream, load_concepts, load_pictures, on_paper
from sensorium.corpus.sources import STYLES
from sensorium.corpus.split import is_unseen
from sensorium.evals.figures import Figure, share
from sensorium.evals.judge import Judge, chosen, enlarged, judge_split
from sensorium.train import Group, Run

SPLITS = ("train", "val", "test", "unseen")


def judge(classes: int, size: int = SIZE) -> sn.Model:
    """The model: 4M parameters."""
    return sn.Model(
        encoders={"image": sn.MobileEncoder(size=size), "label": sn.LabelEncoder(classes, 256)},
        align={"image": sn.Project(1280, 256, pool="mean")},
        heads={"embed": sn.Unit()},
        objectives=(sn.Contrastive("image", "label", temperature=0.07),))


def parts(folder: Path) -> tuple[Pictures, Pictures, Pictures]:
    """What it learns from, the choice pictures and the check pictures."""
    every = [load_pictures(folder, split) for split in SPLITS]
    image = torch.cat([p.image_LCHW for p in every])
    concept, style = [c for p in every for c in p.concept], [s for p in every for s in p.style]
    styles: dict[str, list[str]] = {}
    for c, s in zip(concept, style, strict=True):
        styles.setdefault(c, []).append(s)
    kept = {c: judge_split(c, some) for c, some in styles.items()}
    role = [kept[c].index(s) + 1 if kept[c] and s in kept[c] else 0 for c, s in zip(concept, style, strict=True)]

    def some(wanted: int) -> Pictures:
        index = [i for i, r in enumerate(role) if r == wanted]
        return Pictures(image[index], [concept[i] for i in index], [style[i] for i in index])

    return some(0), some(1), some(2)


@dataclass(eq=False)
class JudgeData:
    """Makes the batch of each step: changed pictures beside their concepts."""

    stream: Stream
    number: dict[str, int]
    count: int
    eyes: int = SIZE

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        generator = torch.Generator().manual_seed(int(np.random.default_rng((self.stream.seed, 11, step)).integers(2**62)))
        index = self.stream.places(step * self.count, self.count)
        label = torch.tensor([self.number[self.stream.pictures.concept[i]] for i in index])
        image = enlarged(self.stream.changed(index, generator), self.eyes)
        return sn.Batch(pairs={"image": image, "label": label[:, None]}, group_L=label, samples=len(index))


def run(data: str = "corpus", steps: int = 3400, pictures: int = 128, eyes: int = SIZE) -> Run:
    """The run behind each half of the shipped judge; ``eyes`` is the size in pixels that it sees."""
    folder = Path(data)
    concepts = load_concepts(folder)
    number = {c: i for i, c in enumerate(concepts)}
    codec = sn.VisionCodec(size=SIZE, resample="lanczos")
    learn, choice, _ = parts(folder)
    image, wanted = on_paper(choice.image_LCHW), torch.tensor([number[c] for c in choice.concept])

    def evaluate(model: sn.ModelNet) -> dict[str, float]:
        found = Judge([model], codec, list(number), []).scores(image).argmax(1)
        return {"choice_right": float((found == wanted).float().mean())}

    return Run(name="judge", model=judge(len(number), eyes), batch=JudgeData(Stream(learn, concepts), number, pictures, eyes).batch,
               steps=steps, groups=(replace(EYES, rate=6e-4), Group(rate=2e-3, decay=0.05)), warmup=0.05, cooldown=0.6, ema=0.99, clip=2.0,
               validate_every=200, save_every=200,
               start=efficientnet.start(folder / "downloads"), evaluate=evaluate,
               files={"codecs.json": sn.Codecs(image=codec).to_json().encode()})


def finish(data: Path, out: Path, trained: Sequence[Path]) -> list[Figure]:
    """Choose the concepts it may judge, measure it on the check pictures, and write the folder that ships."""
    concepts = list(load_concepts(data))
    number = {c: i for i, c in enumerate(concepts)}
    learn, choice, check = parts(data)
    some = Judge([sn.load(folder / "final") for folder in trained], sn.Codecs.load(trained[0] / "final").image, concepts, concepts)
    drawn = [i for i, c in enumerate(choice.concept) if not is_unseen(c)]
    family = {style.name: style.family for style in STYLES}
    hands = {(c, family[s]) for c, s in zip(learn.concept, learn.style, strict=True)}
    strange = torch.tensor([(choice.concept[i], family[choice.style[i]]) not in hands for i in drawn])
    kept = chosen(some.scores(on_paper(choice.image_LCHW[drawn])), torch.tensor([number[choice.concept[i]] for i in drawn]), strange)
    judged = [choice.concept[drawn[i]] for i in kept.tolist()]
    some.judged = judged
    known = set(judged)
    rows = [i for i, c in enumerate(check.concept) if c in known]
    rank = some.ranks(on_paper(check.image_LCHW[rows]), [check.concept[i] for i in rows])
    figures = [share(f"right about real pictures never seen, top-{k}", (rank < k).tolist(), chance=k / len(judged)) for k in (1, 5)]
    card = {"name": "judge", "data": "docs/data.md; its own split, see sensorium/evals/judge.py", "licence": "Apache-2.0",
            "figures": [vars(figure) for figure in figures]}
    some.save(out, {"card.json": json.dumps(card, indent=1).encode()})
    return figures


if __name__ == "__main__":
    from rich.console import Console

    from sensorium.evals.figures import show

    data, out, *trained = map(Path, sys.argv[1:])
    show(finish(data, out, trained), Console())
