"""fewshot: a small Flamingo that learns to learn from the examples in its prompt.

    sensorium train recipes/fewshot.py                                              # a quarter of an hour on a laptop, no data to fetch
    sensorium eval runs/fewshot/final --json shots.json --plot shots.svg

Every sample is one game (sensorium/corpus/fewshot.py), laid out as a conversation:

    [card] ? yes <end> [card] ? no <end> ... [card] ? yes <end>

The eyes are nano's, frozen, as Flamingo freezes its own; what looks at them through gated cross-attention is trained from nothing. A token sees
the latest card only: to compare it with earlier ones, words have to carry what their card looked like.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch

import sensorium as sn
from sensorium.catalog import WEIGHTS
from sensorium.codecs.chat import ChatTemplate
from sensorium.corpus.fewshot import QUESTION, SIZE, Episode, deal
from sensorium.data import Segment
from sensorium.layers.attention import AttentionNet
from sensorium.train import Group, Run
from sensorium.zoo.flamingo import flamingo

TEMPLATE = ChatTemplate("{% for message in messages %}{{ message.content }}{% if message.role == 'assistant' %}<end>{% endif %}{% endfor %}")


def few_shot(vocab: int = 4096, width: int = 192, depth: int = 4) -> sn.Model:
    """The model: nano's eyes, and a gated layer before the first of a few decoder layers, so that the others can compare what was seen."""
    eyes, heads = sn.MobileEncoder(size=SIZE), width // 32
    decoder = sn.Decoder(sn.Stack(width=width, depth=depth, heads=heads, bias=False, norm="rms", rope_theta=1e4, rule="causal"))
    model = flamingo(eyes, sn.Project(eyes.width, width, norm=True), decoder, vocab, every=depth, heads=heads)
    words = sn.Vocabulary(vocab, width, std=0.1)  # of the size of what is seen, so that neither drowns the other
    return replace(model, encoders={**model.encoders, "text": words})


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
        ease: in the first quarter of so many steps all cards of a heap are alike, which from there on is true of fewer and fewer of their marks;
            without it nothing is ever learned but that half the answers are yes.
    """

    count: int = 32
    shots: int = 8
    seed: int = 0
    held: bool = False
    ease: int = 0

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
        parts: list[sn.Arrays] = []
        for index in range(len(game.cards)):
            parts += [sn.Arrays("image", self.codecs.image.encode(game.image(index))), sn.Arrays("text", self.ids(f"\n{QUESTION}")),
                      sn.Arrays("text", self.ids(game.word(index)), target=True)]
        return self.packer.segment(parts)

    def alike(self, step: int) -> float:
        """Share of the marks that all cards of a heap have in common, at a step."""
        return min(max(4 / 3 * (1 - step / self.ease), 0.0), 1.0) if self.ease else 0.0

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        rng = np.random.default_rng((self.seed, 17, step))
        games = [deal(rng, self.shots, self.held, alike=self.alike(step)) for _ in range(self.count)]
        return self.packer.pack([self.segment(game) for game in games], alone=True)

    @torch.no_grad()
    def right(self, model: sn.ModelNet) -> dict[str, float]:
        """Share of games whose last word begins right: as they are, and with heaps of one card."""
        out = {}
        for name, kind in (("games", self), ("alike", replace(self, ease=1))):
            batch = kind.batch(0)
            begins_BT = (batch.label_BT >= 0) & (batch.label_BT.roll(1, dims=1) < 0)
            last_B = (begins_BT * torch.arange(begins_BT.shape[1])).argmax(1)[:, None]
            said_BT = model.logits(model.read(batch)).argmax(-1)
            out[name] = float((said_BT.gather(1, last_B) == batch.label_BT.gather(1, last_B)).float().mean())
        return out


def look(model: sn.ModelNet) -> None:
    """Give the model nano's eyes, open its gates (there is no trained language model here that they would harm), and let each head ask as it
    offers, so that what looks alike is found from the first step (2305.09828, section 3)."""
    model.encoders["image"].load_state_dict(sn.load(WEIGHTS / "nano").encoders["image"].state_dict())
    with torch.no_grad():
        for layer in model.fuse["cross"].layers.values():
            layer.gate.fill_(1.0)
            layer.mlp_gate.fill_(1.0)
        for attention in model.decoder.modules():
            if isinstance(attention, AttentionNet):
                attention.key.weight.copy_(attention.query.weight)


def run(steps: int = 1400, games: int = 32, shots: int = 8, rate: float = 1e-3, seed: int = 0) -> Run:
    """The run.

    Args:
        steps, games: games in each step.
        shots: examples in each game.
        rate: peak learning rate.
        seed: of weights and games.
    """
    made, held = Games(games, shots, seed, ease=steps * 2 // 3), Games(128, shots, seed + 1, held=True)
    words = (WEIGHTS / "nano" / "tokenizer.json").read_bytes()
    return Run(name="fewshot", model=few_shot(), batch=made.batch, steps=steps, groups=(Group(paths=("encoders.image",), rate=0), Group(rate=rate)),
               clip=1.0, mixed=True, ema=0.995, seed=seed, warmup=0.03, cooldown=0.4, validation=(held.batch(0),),
               validate_every=200, evaluate=held.right, save_every=100, end=made.packer.end, start=look,
               files={"codecs.json": made.codecs.to_json().encode(), "tokenizer.json": words})
