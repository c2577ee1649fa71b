"""Eval of learning from examples in the prompt: games whose values or rule were never trained, with 0, 1, 2, 4 and 8 examples.

The same games at every number of examples, so that what rises is what the examples give. Beside each figure: chance, the same examples with
their answers shuffled among them, and how often somebody who sees everything and forgets nothing is right (``corpus.fewshot.guess``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sensorium.chart import Point, lines
from sensorium.corpus.fewshot import HELD_RULE, RULES, Episode, deal, guess
from sensorium.evals.figures import Figure, share
from sensorium.lessons import lessons_of
from sensorium.types import Message, assistant

__all__ = ["conversation", "evaluate_shots", "SHOTS", "shots_chart"]

SHOTS = (0, 1, 2, 4, 8)
Answer = Callable[[Sequence[Sequence[Message]]], list[str]]
"""Conversations -> what is answered."""


def conversation(game: Episode, shots: int, rng: np.random.Generator | None = None) -> list[Message]:
    """The prompt with so many examples; with ``rng``, their answers are shuffled among them."""
    messages, _ = lessons_of(game.sample(shots), f"a game of {game.rule}")[-1]
    if rng is None:
        return messages
    order = iter(rng.permutation(shots).tolist())
    said = [message.parts[0] for message in messages[1::2]]
    return [assistant(said[next(order)]) if message.role == "assistant" else message for message in messages]


def evaluate_shots(answer: Answer, count: int = 1000, seed: int = 0, shots: Sequence[int] = SHOTS,
                   watch: Callable[[str], None] | None = None) -> list[Figure]:
    """Accuracy by number of examples: for rules that were trained, with pairs that were not, and for a rule that never was.

    Args:
        answer: the model.
        count: games a figure.
        seed: of the games.
        watch: told what is being asked.
    """
    figures = []
    trained = [rule for rule in RULES if rule != HELD_RULE]
    for title, rule, rules in (("known rules, new pairs", None, trained), (f"a rule never trained ({HELD_RULE})", HELD_RULE, list(RULES))):
        rng = np.random.default_rng((seed, 19, rule is None))
        games = [deal(rng, max(shots), held=True, rule=rule) for _ in range(count)]
        wanted = [game.word(-1) for game in games]
        for number in shots:
            if watch is not None:
                watch(f"{count:,} games with {number} examples: {title}")
            said = answer([conversation(game, number) for game in games])
            torn = answer([conversation(game, number, rng) for game in games]) if number > 1 else said
            figures.append(share(f"{title}, {number} shots", [s.strip() == w for s, w in zip(said, wanted, strict=True)], seed, chance=0.5,
                                 answers_shuffled=sum(s.strip() == w for s, w in zip(torn, wanted, strict=True)) / count,
                                 seeing_all=float(np.mean([guess(game, number, rules) for game in games]))))
    return figures


def shots_chart(figures: Sequence[Figure]) -> str:
    """The figures of :func:`evaluate_shots` as lines over the number of examples, as SVG."""
    drawn: dict[str, list[Point]] = {}
    for figure in figures:
        title, _, number = figure.name.removesuffix(" shots").rpartition(", ")
        best = figure.beside["seeing_all"]
        drawn.setdefault(title, []).append((int(number), figure.value, figure.low, figure.high))
        drawn.setdefault(f"{title}: seeing all, forgetting nothing", []).append((int(number), best, best, best))
    drawn = {name: drawn[name] for name in sorted(drawn, key=lambda name: ":" in name)}
    chance = [(point[0], 0.5, 0.5, 0.5) for point in next(iter(drawn.values()))]
    return lines("Right answers by number of examples in the prompt", "examples", {**drawn, "chance": chance},
                 dashed=[*(name for name in drawn if ":" in name), "chance"])
