"""Few-shot: what is asked for can only be learned from the examples in the prompt.

    [card] ? yes  [card] ? no  ...  [card] ? -> yes or no

Somebody says yes to some cards and no to others, by a rule that is not told: two shapes, colours, papers, sizes, columns or rows. All else on a
card, and which of the two is a yes, is chance. Without an example one can only guess; each one rules some explanations out.

Held out: a share of the pairs within each rule (red against blue), and one rule altogether.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch

from sensorium.corpus.world import COLOURS, SHAPES, Scene, Thing, draw_scene
from sensorium.types import Image, Part, Sample, part

__all__ = ["Card", "deal", "Episode", "guess", "held_pair", "HELD_RULE", "QUESTION", "RULES", "WORDS"]

RULES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES, "colour": tuple(COLOURS), "paper": ("white", "cream", "pale blue", "pale green"), "size": ("small", "large"),
    "column": ("left", "middle", "right"), "row": ("top", "middle", "bottom")}
"""Rule -> the values that a card can have; every colour stands out on every paper."""
HELD_RULE = "row"
QUESTION = "?"
SIZE = 64
_CENTRES = (0.26, 0.5, 0.74)
_RADII = {"small": (0.1, 0.12), "large": (0.19, 0.21)}
WORDS = ("yes", "no")


@dataclass(frozen=True)
class Card:
    """One thing on paper: a value for each rule."""

    shape: str
    colour: str
    paper: str
    size: str
    column: str
    row: str

    def picture(self, rng: np.random.Generator, side: int = SIZE) -> np.ndarray:
        """(side, side, 3) uint8; ``rng`` moves, sizes and turns it a little."""
        column, row = RULES["column"].index(self.column), RULES["row"].index(self.row)
        x, y = (_CENTRES[i] + float(rng.uniform(-0.02, 0.02)) for i in (column, row))
        thing = Thing(self.shape, self.colour, self.size == "large", 3 * row + column, x, y, float(rng.uniform(*_RADII[self.size])),
                      float(rng.uniform(-0.2, 0.2)))
        return draw_scene(Scene((thing,), self.paper), side)


@dataclass(frozen=True, eq=False)
class Episode:
    """One game.

    Args:
        rule: which of ``RULES`` the cards are sorted by.
        values: the two that occur.
        words: what is said to either value.
        cards, pictures: in order; the last one is asked about.
    """

    rule: str
    values: tuple[str, str]
    words: tuple[str, str]
    cards: tuple[Card, ...]
    pictures: tuple[np.ndarray, ...]

    def word(self, index: int) -> str:
        """The right word for a card."""
        return self.words[self.values.index(vars(self.cards[index])[self.rule])]

    def image(self, index: int) -> Image:
        """A card's picture."""
        return Image(torch.from_numpy(self.pictures[index]).permute(2, 0, 1).float() / 255)

    def sample(self, shots: int) -> Sample:
        """The last ``shots`` examples and the question, in the one format; every answer is a target."""
        first = len(self.cards) - 1 - shots
        parts: list[Part] = []
        for index in range(first, len(self.cards)):
            parts += [part(self.image(index)), part(QUESTION), part(self.word(index), target=True)]
        return Sample(tuple(parts))


def held_pair(rule: str, pair: Sequence[str]) -> bool:
    """Whether training never sets one of these values against the other."""
    pairs = _pairs(rule)
    return rule == HELD_RULE or (len(pairs) > 1 and pairs.index(tuple(sorted(pair, key=RULES[rule].index))) % 5 == 2)


@lru_cache(maxsize=16)
def _pairs(rule: str) -> tuple[tuple[str, str], ...]:
    return tuple(combinations(RULES[rule], 2))


def deal(rng: np.random.Generator, shots: int = 8, held: bool = False, rule: str | None = None, alike: float = 0.0) -> Episode:
    """A game with ``shots`` examples.

    Args:
        held: of a pair that training never uses.
        rule: None draws one that training uses.
        alike: share of the other rules' values that go with the heap as well; with 1, all cards of a heap are alike: easier games, to learn by.
    """
    able = [r for r in RULES if r != HELD_RULE and any(held_pair(r, pair) == held for pair in _pairs(r))]
    rule = rule or able[int(rng.integers(len(able)))]
    pairs = [pair for pair in _pairs(rule) if held_pair(rule, pair) == held]
    values = pairs[int(rng.integers(len(pairs)))]
    values = values if rng.random() < 0.5 else values[::-1]
    heaps = rng.integers(2, size=shots + 1).tolist()
    fixed = {rule, *(name for name in RULES if rng.random() < alike)}
    heads = [{name: value for name, value in vars(_card(rng, rule, value)).items() if name in fixed} for value in values]
    cards = tuple(Card(**{**vars(_card(rng, rule, values[heap])), **heads[heap]}) for heap in heaps)
    words = WORDS if rng.random() < 0.5 else WORDS[::-1]
    return Episode(rule, values, words, cards, tuple(card.picture(rng) for card in cards))


def _card(rng: np.random.Generator, rule: str, value: str) -> Card:
    return Card(**{**{name: str(rng.choice(some)) for name, some in RULES.items()}, rule: value})


def guess(episode: Episode, shots: int, rules: Sequence[str] = tuple(RULES)) -> float:
    """How often somebody who sees every value, knows the rules and forgets nothing is right: 1, 0, or 0.5 for a tie.

    An explanation (a rule, and which value goes by which word) that fits all examples is believed as much as it makes the cards likely: under
    it the rule's values are one of two, and not of all.
    """
    belief = dict.fromkeys(episode.words, 0.0)
    known = range(len(episode.cards) - 1 - shots, len(episode.cards) - 1)
    words = [*(episode.word(index) for index in known), ""]
    for rule in rules:
        values = [vars(episode.cards[index])[rule] for index in (*known, len(episode.cards) - 1)]
        for pair in _pairs(rule):
            for first, second in (episode.words, episode.words[::-1]):
                says = dict(zip(pair, (first, second), strict=True))
                if all(value in says and word in ("", says[value]) for value, word in zip(values, words, strict=True)):
                    belief[says[values[-1]]] += (len(RULES[rule]) / 2) ** len(values) / len(_pairs(rule))
    right, wrong = belief[episode.word(-1)], sum(belief.values()) - belief[episode.word(-1)]
    return 0.5 if abs(right - wrong) < 1e-12 * max(right, wrong, 1e-300) else float(right > wrong)
