"""The split rule, written down before any training: which picture is for training, for tuning, for testing.

Deterministic by sha256 of the concept's id; no random numbers, no order. ``h(salt, id) = int(sha256(salt + ":" + id))``.

    unseen   a concept with  h("sensorium-unseen", id) % 16 == 0: none of its pictures is ever trained on
    held     of every other concept with two styles or more, exactly one style is held out:
             sorted(styles)[h("sensorium-style", id) % len(styles)]
    val      the held picture if  h("sensorium-val", id) % 3 == 0   (for choosing settings)
    test     the held picture otherwise                             (for reporting)
    train    every other picture

So ``test`` asks for a known concept drawn in a way not seen for it, ``unseen`` for a concept never seen in any drawing. Some styles are by
the same hand (one *family*); a row of ``val`` and ``test`` says in ``relative`` whether its family drew the same concept in training.
Clip art has no concepts: a picture is ``test`` if ``h("sensorium-clipart", id) % 10 == 0``, else ``train``.

Words are not held out: retrieval is among all names, so a tokenizer may read the names of unseen concepts too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from sensorium.types import ConfigError

__all__ = ["clipart_split", "digest", "held_style", "is_unseen", "relatives", "split_concept", "SPLITS"]

SPLITS = ("train", "val", "test", "unseen")


def digest(salt: str, name: str) -> int:
    """``h`` of the rule: the sha256 of salt and name as an integer."""
    return int(hashlib.sha256(f"{salt}:{name}".encode()).hexdigest(), 16)


def is_unseen(concept: str) -> bool:
    """Whether no picture of this concept is ever trained on (one in sixteen)."""
    return digest("sensorium-unseen", concept) % 16 == 0


def held_style(concept: str, styles: Iterable[str]) -> str | None:
    """The one style of this concept that is held out; None for an unseen concept or one drawn in a single style.

    Args:
        concept: id.
        styles: the styles that draw it, in any order.
    """
    names = sorted(set(styles))
    if is_unseen(concept) or len(names) < 2:
        return None
    return names[digest("sensorium-style", concept) % len(names)]


def split_concept(concept: str, styles: Iterable[str]) -> dict[str, str]:
    """The split of each picture of one concept: {style: one of ``SPLITS``}, styles sorted."""
    names = sorted(set(styles))
    if is_unseen(concept):
        return dict.fromkeys(names, "unseen")
    held = held_style(concept, names)
    held_out = "val" if digest("sensorium-val", concept) % 3 == 0 else "test"
    return {name: held_out if name == held else "train" for name in names}


def relatives(splits: Mapping[str, str], families: Mapping[str, str]) -> dict[str, bool]:
    """For each picture of one concept, whether another style of its family has this concept in training.

    Args:
        splits: {style: split} of one concept, from :func:`split_concept`.
        families: {style: family}.

    Raises:
        ConfigError: a style without a family.
    """
    missing = sorted(set(splits) - set(families))
    if missing:
        raise ConfigError(f"styles {missing} have no family; add them to STYLES in sensorium/corpus/sources.py")
    return {
        style: any(other != style and families[other] == families[style] and split == "train" for other, split in splits.items())
        for style in splits
    }


def clipart_split(picture: str) -> str:
    """``test`` for one clip art picture in ten, else ``train``."""
    return "test" if digest("sensorium-clipart", picture) % 10 == 0 else "train"
