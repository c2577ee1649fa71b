"""fewshot: a small Flamingo that learns to learn from the examples in its prompt.

    sensorium train recipes/fewshot.py                                              # a quarter of an hour on a laptop, no data to fetch
    sensorium eval runs/fewshot/final --json shots.json --plot shots.svg

Every sample is one game (sensorium/corpus/fewshot.py), laid out as a conversation:

    ba or tu? [card] Which? ba <end> [card] Which? tu <end> ... [card] Which? ba <end>

The eyes are nano's, frozen, as Flamingo freezes its own; what looks at them through gated cross-attention is trained from nothing. A token sees
the latest card only: to compare it with earlier ones, words have to carry what their card looked like.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

import sensorium as sn
from sensorium.catalog import WEIGHTS
from sensorium.codecs.chat import ChatTemplate
from sensorium.corpus.fewshot import QUESTION, SIZE, Episode, deal
from sensorium.data import Segment
from sensorium.train import Group, Run
from sensorium.zoo.flamingo import flamingo

TEMPLATE = ChatTemplate("{% for message in messages %}{{ message.content }}{% if message.role == 'assistant' %}<end>{% endif %}{% endfor %}")


def few_shot(vocab: int = 4096, width: int = 192, depth: int = 4) -> sn.Model:
    """The model: nano's eyes, and a gated layer before the first of a few decoder layers, so that the others can compare what was seen."""
    eyes, heads = sn.MobileEncoder(size=SIZE), width // 32
    decoder = sn.Decoder(sn.Stack(width=width, depth=depth, heads=heads, bias=False, norm="rms", rope_theta=1e4, rule="causal"))
    return flamingo(eyes, sn.Project(eyes.width, width, norm=True), decoder, vocab, every=depth, heads=heads)


def codecs() -> sn.Codecs:
    """nano's tokenizer and picture codec, and a conversation's layout."""
    text = sn.Tokenizer.from_file(WEIGHTS / "nano" / "tokenizer.json")
    return sn.Codecs(text=text, image=sn.VisionCodec(size=SIZE, resample="lanczos"), context=512, end="<end>", template=TEMPLATE)


@dataclass(eq=False)
class Games:
    """Makes the batch of each step.

    Args:
        count: games a step.
        shots: examples in each; every answer is learned, so that all numbers of examples up to this are.
        seed: of chance.
        held: games of pairs that training never uses.
        plain, alike: shares of the easier games of ``deal``. Without them nothing is learned but the words on offer: looking pays only once
            examples are compared, and comparing only once cards are looked at.
    """

    count: int = 32
    shots: int = 8
    seed: int = 0
    held: bool = False
    plain: float = 0.0
    alike: float = 0.0

    @cached_property
    def codecs(self) -> sn.Codecs:
        return codecs()

    @cached_property
    def packer(self) -> sn.Packer:
        return sn.Packer(places={"image": 0}, row=512, end=self.codecs.text.special("<end>"))

    @lru_cache(maxsize=20_000)  # noqa: B019 (one object a run)
    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text."""
        return tuple(self.codecs.text.encode(text))

    def segment(self, game: Episode) -> Segment:
        """A game as the conversation that ``Desk`` would lay out, every answer to be learned."""
        parts = [sn.Arrays("text", self.ids(game.lead + "\n"))]
        for index in range(len(game.cards)):
            parts += [sn.Arrays("image", self.codecs.image.encode(game.image(index))), sn.Arrays("text", self.ids(f"\n{QUESTION}")),
                      sn.Arrays("text", self.ids(game.word(index)), target=True)]
        return self.packer.segment(parts)

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        rng = np.random.default_rng((self.seed, 17, step))
        kinds = rng.random(self.count)
        games = [deal(rng, self.shots, self.held, plain=bool(kind < self.plain), alike=bool(self.plain <= kind < self.plain + self.alike))
                 for kind in kinds]
        return self.packer.pack([self.segment(game) for game in games], alone=True)


def look(model: sn.ModelNet) -> None:
    """Give the model nano's eyes, and open its gate: there is no trained language model here that it would harm."""
    model.encoders["image"].load_state_dict(sn.load(WEIGHTS / "nano").encoders["image"].state_dict())
    with torch.no_grad():
        for layer in model.fuse["cross"].layers.values():
            layer.gate.fill_(1.0)
            layer.mlp_gate.fill_(1.0)


def run(steps: int = 1400, games: int = 32, shots: int = 8, rate: float = 1e-3, seed: int = 0) -> Run:
    """The run.

    Args:
        steps, games: games in each step.
        shots: examples in each game.
        rate: peak learning rate.
        seed: of weights and games.
    """
    made = Games(games, shots, seed, plain=0.25, alike=0.35)
    words = (WEIGHTS / "nano" / "tokenizer.json").read_bytes()
    return Run(name="fewshot", model=few_shot(), batch=made.batch, steps=steps, groups=(Group(paths=("encoders.image",), rate=0), Group(rate=rate)),
               clip=1.0, mixed=True, ema=0.995, seed=seed, warmup=0.03, cooldown=0.4, validation=(Games(64, shots, seed + 1, held=True).batch(0),),
               validate_every=500, save_every=100, end=made.packer.end, start=look,
               files={"codecs.json": made.codecs.to_json().encode(), "tokenizer.json": words})
