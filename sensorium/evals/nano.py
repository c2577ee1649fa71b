"""Eval of nano: naming, writing, finding and drawing on pictures held out of its training.

    naming    a known concept in an unseen style -> its name among all names, by embedding     test split
    writing   the same picture -> the name, written, letter for letter                         test split
    finding   a name -> its picture; "something to eat" -> five pictures of that kind          test split
    unseen    a concept no drawing of which was seen -> its name among all names               unseen split
    drawing   a name -> a picture, or the best of eight by its own eyes -> the judge's opinion   the judge's concepts that were trained on
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

import sensorium as sn
from sensorium.catalog import WEIGHTS
from sensorium.corpus.folder import concepts_of
from sensorium.corpus.kinds import KINDS
from sensorium.denoise import Solver
from sensorium.evals.figures import Figure, ranks, share
from sensorium.evals.judge import Judge
from sensorium.files import read_lines

__all__ = ["draw_counted", "evaluate", "Held", "PARTS", "Points"]

BEST_OF = 8
_AT_ONCE = 8  # drawings made together, and between two steps of the bar
PARTS = ("naming", "unseen", "writing", "drawing")
LANGUAGES = (("en", "English", "What is this?", "Draw {}"), ("zh", "Chinese", "这是什么？", "画{}"))


@dataclass
class Held:
    """The held-out part of a corpus.

    Args:
        folder: the corpus.
        limit: at most this many items a figure, chosen by ``seed``; None is all.
        seed: of drawings too.
    """

    folder: Path
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self.concepts = {row["id"]: row for row in concepts_of(self.folder)}
        self.number = {concept: i for i, concept in enumerate(self.concepts)}

    def names(self, language: str) -> list[str]:
        """All names, in the order of the concepts."""
        return [row[language] for row in self.concepts.values()]

    def rows(self, split: str) -> list[dict]:
        """The pictures of a split."""
        return self.some(read_lines(self.folder / f"{split}.jsonl"))

    def some(self, items: list[Any]) -> list[Any]:
        """Of these at most ``limit``, in their order."""
        if self.limit is None or len(items) <= self.limit:
            return items
        return [items[i] for i in sorted(np.random.default_rng(self.seed).permutation(len(items))[: self.limit])]

    def picture(self, row: dict) -> sn.Image:
        """The picture of a row."""
        return sn.Image(self.folder / row["parts"][0]["image"])

    def wanted(self, rows: list[dict]) -> torch.Tensor:
        """Number of each row's concept, (L,)."""
        return torch.tensor([self.number[row["concept"]] for row in rows])


@dataclass(eq=False)
class Points:
    """Where a model puts the names and the held-out pictures of a corpus in its shared space; each is worked out once, when first asked for.

    Args:
        console: where progress is shown.
    """

    model: sn.ModelNet
    held: Held
    console: Console

    @cached_property
    def names(self) -> dict[str, torch.Tensor]:
        """Language -> (C, O), of all names."""
        with self.console.status("reading all names"):
            return {code: sn.embed(self.model, self.held.names(code)) for code, *_ in LANGUAGES}

    @cached_property
    def rows(self) -> list[dict]:
        """The pictures of the test split."""
        return self.held.rows("test")

    @cached_property
    def pictures(self) -> torch.Tensor:
        """(L, O), of ``rows``."""
        with self.console.status(f"looking at {len(self.rows)} pictures in styles not seen for their concepts"):
            return sn.embed(self.model, [self.held.picture(row) for row in self.rows])


def evaluate(points: Points, judge: Path | None = None, only: Sequence[str] = PARTS) -> list[Figure]:
    """The figures of one model; what it cannot do (a model that only embeds, one that only draws) is left out.

    Args:
        judge: folder of the judge; None is the packaged one.
        only: some of ``PARTS``.
    """
    model, figures = points.model, []
    if "embed" in model.heads and "image" in model.encoders:
        figures += _naming(points) if "naming" in only else []
        figures += _unseen(points) if "unseen" in only else []
    if "text" in model.heads and "writing" in only:
        figures += _writing(points)
    judge, draws = judge or WEIGHTS / "judge", "image" in model.heads and "drawing" in only
    if draws and (judge / "judge.json").is_file():
        figures += _drawing(points, Judge.load(judge))
    elif draws:
        points.console.print("drawing is not measured: no judge is packaged; train one with recipes/judge.py")
    return figures


def _naming(points: Points) -> list[Figure]:
    """Pictures to names, and names to pictures."""
    held, names, rows, seen, figures = points.held, points.names, points.rows, points.pictures, []
    with points.console.status("looking for each picture's nearest among those of the training, pixel by pixel"):
        nearest = _nearest_pixels(held, rows)
    wanted, count = held.wanted(rows), len(held.concepts)
    related = torch.tensor([row["relative"] for row in rows])
    for code, language, *_ in LANGUAGES:
        place = ranks(seen @ names[code].T, wanted)
        for k in (1, 5):
            figures.append(share(f"naming in {language}, R@{k}", (place < k).tolist(), chance=k / count,
                                 nearest_in_pixels=float((nearest < k).float().mean())))
        for title, some in (("a related style was seen", related), ("no related style", ~related)):
            figures.append(share(f"naming in {language}, R@1, {title}", (place[some] < 1).tolist(), chance=1 / count,
                                 nearest_in_pixels=float((nearest[some] < 1).float().mean())))
        place = ranks(names[code][wanted] @ seen.T, torch.arange(len(rows)))
        figures.append(share(f"finding by a name in {language}, R@5", (place < 5).tolist(), chance=min(5 / len(rows), 1.0)))
    return figures + _kinds(points, [held.concepts[row["concept"]]["subgroup"] for row in rows])


def _kinds(points: Points, subgroups: list[str], first: int = 5) -> list[Figure]:
    """Of the first pictures found for a kind, how many are of it; kinds with fewer pictures than that are not asked for."""
    figures = []
    for number, (_, language, *_) in enumerate(LANGUAGES):
        kinds: dict[str, set[str]] = {}
        for subgroup, words in KINDS.items():
            for word in words[number]:
                kinds.setdefault(word, set()).add(subgroup)
        right = {word: torch.tensor([subgroup in some for subgroup in subgroups]) for word, some in kinds.items()}
        asked = [word for word in kinds if right[word].sum() >= first][: points.held.limit]
        if not asked:
            continue
        of_it = torch.stack([right[word] for word in asked])
        found = (sn.embed(points.model, asked) @ points.pictures.T).topk(first).indices
        figures.append(share(f"finding by a kind in {language}, of the first {first}", of_it.gather(1, found).flatten().tolist(),
                             chance=float(of_it.float().mean())))
    return figures


def _unseen(points: Points) -> list[Figure]:
    held, names = points.held, points.names
    rows = held.rows("unseen")
    with points.console.status(f"looking at {len(rows)} pictures of concepts never seen"):
        seen = sn.embed(points.model, [held.picture(row) for row in rows])
    return [share(f"concepts never seen, in {language}, R@10", (ranks(seen @ names[code].T, held.wanted(rows)) < 10).tolist(),
                  chance=10 / len(held.concepts)) for code, language, *_ in LANGUAGES]


def _writing(points: Points) -> list[Figure]:
    held, rows, figures = points.held, points.rows, []
    for code, language, question, _ in LANGUAGES:
        with points.console.status(f"writing {len(rows)} names in {language}"):
            said = sn.write_texts(points.model, [[held.picture(row), question] for row in rows])
        hits = [answer.strip() == held.concepts[row["concept"]][code] for answer, row in zip(said, rows, strict=True)]
        figures.append(share(f"writing the name in {language}, exact", hits, chance=1 / len(held.concepts)))
    return figures


def _drawing(points: Points, judge: Judge) -> list[Figure]:
    model, held, seed = points.model, points.held, points.held.seed
    concepts = judge.judged[: held.limit]
    known = set(concepts)
    real = [row for row in points.rows if row["concept"] in known]
    prompts, places = [[LANGUAGES[0][3].format(held.concepts[c]["en"])] for c in concepts], {}
    chooses = (1, BEST_OF) if "image" in model.spec.reads and "embed" in model.heads else (1,)
    for best_of in chooses:
        drawn = draw_counted(points, sn.draw_images, prompts, "drawing names" + (f", the best of {best_of} each" if best_of > 1 else ""), best_of)
        places["drawing, recognised" if best_of == 1 else f"drawing, the best of {best_of} by its own eyes, recognised"] = judge.ranks(
            judge.codec.encode_all(drawn), concepts)
    looked = judge.ranks(judge.codec.encode_all([held.picture(row) for row in real]), [row["concept"] for row in real]) if real else torch.ones(1)
    return [share(f"{name}, top-{k}", (place < k).tolist(), seed, chance=k / len(judge.judged), real_pictures=float((looked < k).float().mean()))
            for name, place in places.items() for k in (1, 5)]


def draw_counted(points: Points, draw: Callable[..., list[Any]], prompts: Sequence[Sequence[Any]], label: str, best_of: int) -> list[Any]:
    """What ``draw`` (``sn.draw_images``, ``sn.draw_videos``) makes of all prompts, with a bar that says how long it still takes."""
    made = []
    for start in track(range(0, len(prompts), _AT_ONCE), label, console=points.console, transient=True):
        made += draw(points.model, prompts[start : start + _AT_ONCE], Solver(seed=points.held.seed + start), chunk=_AT_ONCE, best_of=best_of)
    return made


def _nearest_pixels(held: Held, rows: list[dict], side: int = 24) -> torch.Tensor:
    """Rank of the right concept when each picture is named by its nearest training pictures, pixel by pixel."""
    codec = sn.VisionCodec(size=side, resample="box")
    known = read_lines(held.folder / "train.jsonl")
    table = codec.encode_all([held.picture(row) for row in known]).flatten(1)
    seen = codec.encode_all([held.picture(row) for row in rows]).flatten(1)
    owner, out = held.wanted(known), []
    for part, wanted in zip(seen.split(128), held.wanted(rows).split(128), strict=True):
        score = torch.full((len(part), len(held.concepts)), -torch.inf)
        score.scatter_reduce_(1, owner.expand(len(part), -1), -torch.cdist(part, table), "amax")
        own = score.gather(1, wanted[:, None])
        out.append(torch.where(own[:, 0].isinf(), len(held.concepts), (score > own).sum(dim=1)))
    return torch.cat(out)
