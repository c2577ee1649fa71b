"""Eval of nano's further senses: names heard and said, clips named, and names set moving.

    hearing     a name spoken by voices never heard -> the name, written; its pictures among all held-out ones
    saying      a name never spoken in training -> sound -> read back by Whisper; Kokoro's own of the same names beside it
    watching    a clip, none of which was ever read in training -> its name among all names, by embedding
    moving      a name -> a video -> the judge's opinion over its frames; how much it moves beside the real clips of the same things
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from rich.console import Console
from torch.nn import functional as F

import sensorium as sn
from sensorium.catalog import WEIGHTS, ready
from sensorium.codecs.clips import load_video
from sensorium.corpus.spoken import never_heard
from sensorium.evals.figures import Figure, commit, ranks, share
from sensorium.evals.judge import Judge
from sensorium.evals.motion import flow_energy
from sensorium.evals.nano import LANGUAGES, Points, draw_counted
from sensorium.evals.speech import Listener, own_ears, read_as
from sensorium.files import read_lines
from sensorium.named import best, open_model, open_voice
from sensorium.speak import KOKORO, Speaker, join
from sensorium.voice import own_voice

__all__ = ["evaluate_senses", "PARTS", "ratio"]

PARTS = ("hearing", "watching", "saying", "moving")
VIDEO_OF = 8  # stills drawn for each one that is set moving


def evaluate_senses(points: Points, name: str, only: Sequence[str] = PARTS) -> list[Figure]:
    """The figures of what a model reads and writes beside text and pictures; those of other models are none.

    Args:
        name: of the model.
        only: some of ``PARTS``.
    """
    model, figures = points.model, []
    if "embed" in model.heads and "text" in model.heads:
        figures += _hearing(points) if "audio" in model.spec.reads and "hearing" in only else []
        figures += _watching(points) if "video" in model.spec.reads and "watching" in only else []
    if "audio" in model.spec.writes and "saying" in only and _voices_at_hand(points.console):
        figures += _saying(points, name)
    if "video" in model.spec.writes and "moving" in only and (WEIGHTS / "judge" / "judge.json").is_file():
        figures += _moving(points, Judge.load(WEIGHTS / "judge"))
    return figures


def _hearing(points: Points) -> list[Figure]:
    """Sounds of the testing voices to names and to pictures."""
    model, held, console = points.model, points.held, points.console
    if not (held.folder / "spoken.jsonl").is_file():
        console.print(f"hearing is not measured: {held.folder} has no spoken.jsonl; make it: python -m sensorium.corpus.spoken {held.folder}")
        return []
    figures, number_P, found = [], held.wanted(points.rows), []
    for code, language, question, _ in LANGUAGES:
        rows = held.some([row for row in read_lines(held.folder / "spoken.jsonl") if row["take"] == "test" and row["language"] == code])
        sounds = [sn.Audio(held.folder / row["parts"][0]["audio"]) for row in rows]
        with console.status(f"hearing {len(rows)} names in {language}"):
            heard_LO = sn.embed(model, sounds)
            said = sn.write_texts(model, [[sound, question] for sound in sounds])
        place = ranks(heard_LO @ points.names[code].T, held.wanted(rows))
        right = torch.tensor([answer.strip() == row["parts"][1]["text"] for answer, row in zip(said, rows, strict=True)])
        known, count = torch.tensor([row["heard"] for row in rows]), len(held.concepts)
        figures.append(share(f"hearing a name in {language}, written, exact", right[known].tolist(), chance=1 / count))
        figures += [share(f"hearing a name in {language}, R@{k}", (place[known] < k).tolist(), chance=k / count) for k in (1, 5)]
        figures.append(share(f"hearing a name in {language} that was never spoken, R@5", (place[~known] < 5).tolist(), chance=5 / count))
        there, chance = known & torch.isin(held.wanted(rows), number_P), min(5 / len(points.rows), 1.0)
        first_L5 = number_P[(heard_LO[there] @ points.pictures.T).topk(min(5, len(points.rows))).indices]
        hits = (first_L5 == held.wanted(rows)[there][:, None]).any(dim=1).tolist()
        figures.append(share(f"finding by a spoken name in {language}, R@5", hits, chance=chance))
        found += hits
    return [*figures, share("finding by a spoken name in either language, R@5", found, chance=chance)]


def _saying(points: Points, name: str) -> list[Figure]:
    """Names that were never spoken in training, said by the model and by Kokoro, read back."""
    ears, figures, held = own_ears(open_model(best("hear"))), [], points.held
    concepts = [row for row in held.concepts.values() if never_heard(row["id"])]
    speakers, right = {"own": own_voice(points.model, name), "kokoro": open_voice()}, {"own": [], "kokoro": []}
    for code, language, *_ in LANGUAGES:
        said = held.some([row[code] for row in concepts])
        with points.console.status(f"saying {len(said)} names in {language}"):
            now = {who: _read_back(speaker, ears, said, code) for who, speaker in speakers.items()}
        figures.append(_said(f"in {language}", now))
        right = {who: right[who] + now[who] for who in speakers}
    return [*figures, _said("in either language", right)]


def _said(which: str, right: dict[str, list[bool]]) -> Figure:
    return share(f"saying a name {which} that it never heard, read back", right["own"], kokoro=sum(right["kokoro"]) / max(len(right["kokoro"]), 1))


def _read_back(speaker: Speaker, ears: Listener, names: Sequence[str], language: str) -> list[bool]:
    return [read_as(ears(join(speaker.speak(name)), language), language) == read_as(name, language) for name in names]


def _watching(points: Points) -> list[Figure]:
    """Clips to names."""
    held, rows = points.held, points.held.some(_clips(points))
    if not rows:
        return []
    with points.console.status(f"watching {len(rows)} clips"):
        seen = sn.embed(points.model, [sn.Video(held.folder / row["parts"][0]["video"]) for row in rows])
    place = {language: ranks(seen @ points.names[code].T, held.wanted(rows)) for code, language, *_ in LANGUAGES}
    return [share(f"naming a clip in {language}, R@{k}", (place[language] < k).tolist(), chance=k / len(held.concepts))
            for language in place for k in (1, 5)]


def _moving(points: Points, judge: Judge) -> list[Figure]:
    """Names to videos."""
    held, seed, console = points.held, points.held.seed, points.console
    concepts = held.some(judge.judged)
    made = draw_counted(points, sn.draw_videos, [[held.concepts[c]["en"]] for c in concepts], "setting names moving", VIDEO_OF)
    films = [load_video(video) for video in made]
    place = judge.film_ranks(films, concepts)
    figures = [share(f"moving pictures, recognised, top-{k}", (place < k).tolist(), seed, chance=k / len(judge.judged)) for k in (1, 5)]
    known = set(concepts)
    real = {row["concept"]: row for row in _clips(points) if row["concept"] in known}
    if not real:
        return figures
    with console.status(f"measuring how {len(real)} real clips move"):
        theirs = [_energy(load_video(sn.Video(held.folder / row["parts"][0]["video"]), len(films[0])), films[0].shape[-1]) for row in real.values()]
        ours = [flow_energy(films[concepts.index(concept)]) for concept in real]
    return [*figures, ratio("motion, as a share of the real clips'", ours, theirs, seed)]


def _energy(film_FCHW: torch.Tensor, side: int) -> float:
    """Of a film made as small as those that it is compared with."""
    return flow_energy(F.interpolate(film_FCHW, size=(side, side), mode="area"))


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], seed: int = 0) -> Figure:
    """Mean beside mean of the same items; the interval is that of 1,000 resamples."""
    both = np.array([ours, theirs])
    again = np.random.default_rng(seed).integers(both.shape[1], size=(1000, both.shape[1]))
    many = both[0][again].mean(axis=1) / both[1][again].mean(axis=1)
    return Figure(name, float(both[0].mean() / both[1].mean()), *(float(x) for x in np.quantile(many, (0.025, 0.975))), both.shape[1], seed, commit(),
                  {"real_median": float(np.median(both[1])), "own_median": float(np.median(both[0]))})


def _voices_at_hand(console: Console) -> bool:
    lacking = [name for name in (KOKORO, "whisper-base") if not ready(name)]
    if lacking:
        console.print(f"what it says is not measured without {' and '.join(lacking)}: sensorium pull {' '.join(lacking)}")
    return not lacking


def _clips(points: Points) -> list[dict]:
    held = points.held
    if not (held.folder / "clips.jsonl").is_file():
        points.console.print(f"clips are not measured: {held.folder} has none; get them: python -m sensorium.corpus.animated {held.folder}")
        return []
    return read_lines(held.folder / "clips.jsonl")
