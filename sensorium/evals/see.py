"""Eval of a model that answers questions about pictures: drawn things in unseen styles, and scenes of pairs that training never shows.

    naming    a known concept in an unseen style -> "This is a dog."          test split; right if the name, or Unicode's name of it, is said
    kind      a concept no drawing of which was seen -> "It is an animal."    unseen split
    scenes    presence, colour, shape, count, position, side, word            the world's held-out pairs and words

Each beside the same questions with the picture blanked, and beside the share of the commonest answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sensorium.corpus.kinds import KINDS
from sensorium.corpus.names import compact
from sensorium.corpus.world import COLOURS, NUMBERS, PLACES, SHAPES, draw_scene, make_scene, questions
from sensorium.evals.figures import Figure, share
from sensorium.evals.nano import Held
from sensorium.types import Image

__all__ = ["Asked", "Answer", "BLANK", "drawn_things", "evaluate_seeing", "judge", "scenes"]

Answer = Callable[[Sequence[tuple[Image, str]]], list[str]]
"""Pictures with a question each -> what is answered."""
BLANK = Image(torch.full((3, 128, 128), 0.5))
_KEYS = {"presence": ("yes", "no"), "colour": tuple(COLOURS), "shape": SHAPES, "count": NUMBERS, "position": PLACES,
         "side": ("left", "right", "above", "below")}
KIND = "What kind of thing is it?"
NAME = "What is this?"


@dataclass(frozen=True)
class Asked:
    """One question about one picture; ``keys`` are the words of which one makes an answer right."""

    kind: str
    picture: Image
    text: str
    keys: tuple[str, ...]


def scenes(kind: str, count: int, seed: int = 0, size: int = 128) -> list[Asked]:
    """Questions of one kind about held-out scenes, a scene each; each number is counted as often."""
    rng, out = np.random.default_rng((seed, 13, sorted((*_KEYS, "word")).index(kind))), []
    while len(out) < count:
        scene = make_scene(rng, held=True)
        made = questions(scene, rng, 1, (kind,))
        if made and (kind != "count" or made[0].key == NUMBERS[1 + len(out) % 5]):
            pixels = torch.from_numpy(draw_scene(scene, size)).permute(2, 0, 1).float() / 255
            out.append(Asked(kind, Image(pixels), made[0].text, (made[0].key,)))
    return out


def drawn_things(held: Held) -> list[Asked]:
    """The names of known concepts in unseen styles, and the kinds of unseen concepts."""
    out = []
    for row in held.rows("test"):
        concept = held.concepts[row["concept"]]
        out.append(Asked("name", held.picture(row), NAME, tuple(dict.fromkeys((concept["en"], *_unicode(concept["char"]))))))
    for row in held.rows("unseen"):
        kinds = KINDS.get(held.concepts[row["concept"]]["subgroup"])
        if kinds:
            out.append(Asked("kind", held.picture(row), KIND, kinds[0][:1]))
    return out


def _unicode(char: str) -> list[str]:
    """Unicode's own name of a single character."""
    plain = char.replace("\ufe0f", "")
    return [unicodedata.name(plain).lower()] if len(plain) == 1 and unicodedata.name(plain, "") else []


def judge(asked: Asked, answer: str) -> bool:
    """Whether the right word is said, and none of its rivals."""
    if asked.kind in _KEYS:
        rivals = "|".join(sorted(_KEYS[asked.kind], key=len, reverse=True))
        said = re.findall(rf"\b(?:{rivals})\b", answer.lower())
        return set(said[:1] if asked.kind in ("presence", "side") else said) == set(asked.keys)
    if asked.kind == "word":
        return re.findall(r"[A-Z]+(?=\")", answer) == list(asked.keys)
    said = re.sub(r"^(this|it) is (an? |the )?|\.$", "", answer.strip().lower())
    wanted = [re.sub(r"^(an? |the )", "", key.lower()) for key in asked.keys]
    wanted += [f"flag of {key[6:]}" for key in wanted if key.startswith("flag: ")]
    wanted += [key.replace(": ", " with ", 1) for key in wanted if ": " in key]
    return compact(said) in {compact(key) for key in wanted}


_TITLES = {
    "name": "names the subject, unseen style", "kind": "says the kind, unseen concept", "presence": "scenes: yes or no",
    "colour": "scenes: colour", "shape": "scenes: shape", "count": "scenes: count to five", "position": "scenes: where, of nine places",
    "side": "scenes: which side", "word": "scenes: the word written"}


def evaluate_seeing(answer: Answer, held: Held | None, count: int = 1000, seed: int = 0, kinds: Sequence[str] = tuple(_TITLES),
                    watch: Callable[[str], None] | None = None) -> tuple[list[Figure], list[tuple[Asked, str]]]:
    """All figures, and every question with its answer.

    Args:
        answer: the model.
        held: of the corpus; None leaves drawn things out.
        count: questions of each kind about scenes.
        seed: of the scenes.
        kinds: which.
        watch: told what is being asked.
    """
    drawn = drawn_things(held) if held is not None else []
    figures, said = [], []
    for kind in kinds:
        items = [item for item in drawn if item.kind == kind] if kind in ("name", "kind") else scenes(kind, count, seed)
        if not items:
            continue
        if watch is not None:
            watch(f"{len(items):,} questions: {_TITLES[kind]}")
        answers = answer([(item.picture, item.text) for item in items])
        blind = answer([(BLANK, item.text) for item in items])
        commonest = Counter(item.keys for item in items).most_common(1)[0][1] / len(items)
        figures.append(share(_TITLES[kind], [judge(*pair) for pair in zip(items, answers, strict=True)], seed, commonest_answer=commonest,
                             blanked=sum(judge(*pair) for pair in zip(items, blind, strict=True)) / len(items)))
        said += list(zip(items, answers, strict=True))
    return figures, said
