"""see: a language model learns to look. First the eyes and the connector, on a short decoder; then the connector and adapters, on the whole one.

    sensorium pull smollm2-135m-instruct && make corpus
    sensorium train recipes/see.py --data corpus --stage eyes
    sensorium train recipes/see.py --data corpus --stage answers
    sensorium eval runs/see/final --data corpus --json figures.json
    python recipes/see.py runs/see figures.json sensorium/weights/see        # the folder that ships: weights and card

Every step takes drawn pictures of the training split and scenes of a world drawn by code, with several questions about each:

    <user> [whole, four quarters] question <end> <assistant> answer <end> <user> question <end> <assistant> answer <end> ...

laid out as SmolLM2's own template does, without its system message.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch

import sensorium as sn
from pictures import Concept, Stream, load_concepts, load_pictures, on_paper
from sensorium.catalog import WEIGHTS, find
from sensorium.checkpoint import read_tensors, write_tensors
from sensorium.codecs.chat import ChatTemplate
from sensorium.corpus.kinds import KINDS
from sensorium.corpus.world import draw_scene, make_scene, questions
from sensorium.data import Segment
from sensorium.files import read_lines, write_file
from sensorium.layers.adapters import Lora
from sensorium.train import Group, Run
from sensorium.zoo.see import see, short_see

SIZE = 128
BASE = "smollm2-135m-instruct"
NAMING = ("What is this?", "What is in this picture?", "What do you see?", "What does the picture show?", "What is in the picture?")
KIND = ("What kind of thing is it?", "What kind of thing is this?")
TEMPLATE = ChatTemplate("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
                        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
MASS = ("food", "sushi", "bread", "bacon", "money", "rice", "luggage", "scissors", "glasses", "jeans", "shorts", "fog", "fire")


def named(concept: Concept) -> str:
    """The name in a phrase: "a dog", "the flag of Germany"."""
    name = concept.names[0]
    if name.startswith("flag: "):
        return f"the flag of {name[6:]}"
    if ":" in name:
        head, tail = name.split(": ", 1)
        return f"a {head} with {tail}"
    head = re.split(" with | of | in | and ", name)[0].split()[-1].lower()
    if name in MASS or (head.endswith("s") and not head.endswith(("ss", "us", "is"))) or (name[0].isupper() and "button" not in name):
        return name
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


@dataclass(eq=False)
class SeeData:
    """Makes the batch of each step.

    Args:
        folder: the corpus.
        drawings, scenes: pictures a step.
        asked: questions about each.
        told: share of the scenes that are described in full as well: what teaches the eyes most, a picture.
        seed: of order and chance.
        split: which pictures; scenes of "val" are of other seeds.
    """

    folder: Path
    drawings: int = 12
    scenes: int = 12
    asked: int = 5
    told: float = 0.8
    seed: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        self.tokenizer = sn.Codecs.load(find(BASE)).text
        self.concepts = load_concepts(self.folder)
        self.stream = Stream(load_pictures(self.folder, self.split, SIZE), self.concepts, seed=self.seed)
        self.end = self.tokenizer.special("<|im_end|>")
        self.packer = sn.Packer(places={"image": short_see().places("image")}, row=512, end=self.end)

    @cached_property
    def kin(self) -> dict[str, list[Concept]]:
        """Concepts of each kind."""
        out: dict[str, list[Concept]] = {}
        for concept in self.concepts.values():
            out.setdefault(concept.subgroup, []).append(concept)
        return out

    @lru_cache(maxsize=200_000)  # noqa: B019 (one object a run)
    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids; names of special tokens are those tokens."""
        return tuple(self.tokenizer.encode(text, special=True))

    def conversation(self, picture: torch.Tensor, turns: Sequence[tuple[str, str]]) -> Segment:
        """One picture and what is said about it, as the chat template lays it out."""
        parts = [sn.Arrays("text", self.ids("<|im_start|>user\n")), sn.Arrays("image", picture)]
        before = "\n"
        for question, answer in turns:
            parts.append(sn.Arrays("text", self.ids(f"{before}{question}<|im_end|>\n<|im_start|>assistant\n")))
            parts.append(sn.Arrays("text", self.ids(answer), target=True))
            before = "\n<|im_start|>user\n"
        return self.packer.segment(parts)

    def about(self, concept: Concept, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions about a drawn picture: its name always, and whether it is this or that, what kind of thing, words for it."""
        turns = [(str(rng.choice(NAMING)), f"This is {named(concept)}.")]
        for right in (True, False):
            if rng.random() < 0.6:
                other = self.kin[concept.subgroup] if rng.random() < 0.6 else list(self.concepts.values())
                asked = concept if right else other[int(rng.integers(len(other)))]
                turns.append((f"Is this {named(asked)}?", "Yes, it is." if asked.id == concept.id else "No, it is not."))
        if concept.subgroup in KINDS and rng.random() < 0.5:
            turns.append((str(rng.choice(KIND)), f"It is {KINDS[concept.subgroup][0][0]}."))
        if len(concept.keywords[0]) >= 3 and rng.random() < 0.25:
            turns.append(("Give three words for it.", ", ".join(concept.keywords[0][:3]).capitalize() + "."))
        return [turns[i] for i in rng.permutation(len(turns))][: self.asked]

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        rng = np.random.default_rng((self.seed, 11, step))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = self.stream.places(step * self.drawings, self.drawings)
        shown = self.stream.changed(chosen, generator) if self.split == "train" else on_paper(self.stream.pictures.image_LCHW[chosen])
        segments = [self.conversation(picture, self.about(self.concepts[self.stream.pictures.concept[index]], rng))
                    for index, picture in zip(chosen, shown, strict=True)]
        scenes = [make_scene(rng, held=self.split != "train") for _ in range(self.scenes)]
        drawn = torch.from_numpy(np.stack([draw_scene(scene, SIZE) for scene in scenes])).permute(0, 3, 1, 2).float() / 127.5 - 1
        light = torch.rand(len(scenes), 1, 1, 1, generator=generator) * 0.2 + 0.9 if self.split == "train" else 1.0
        for scene, picture in zip(scenes, ((drawn + 1) * light - 1).clamp(-1, 1), strict=True):
            told = bool(rng.random() < self.told)
            asked = questions(scene, rng, self.asked - told) + (questions(scene, rng, 1, ("describe",)) if told else [])
            turns = {asked[i].text: asked[i].answer for i in rng.permutation(len(asked))}
            segments.append(self.conversation(picture, list(turns.items())))
        return self.packer.pack(segments)


def fresh(spec: sn.Model, seen: str | Path, connector: bool) -> sn.ModelNet:
    """The model with SmolLM2's weights, and the eyes (and the connector) of the model in folder ``seen``."""
    model, base, lent = spec.build(seed=0), sn.load(find(BASE)).state_dict(), sn.load(seen).state_dict()
    wanted = model.state_dict()
    found = {name: value for name, value in base.items() if name in wanted}
    found |= {name: value for name, value in lent.items() if name.startswith(("encoders.image.", "align.image.") if connector else "encoders.image.")}
    model.load_state_dict(found, strict=False)
    return model


def run(data: str = "corpus", stage: str = "eyes", eyes: str = "", steps: int = 0, drawings: int = 12, scenes: int = 12, depth: int = 4,
        rank: int = 16, rate: float = 1e-3) -> Run:
    """The run of a stage.

    Args:
        data: the corpus.
        stage: "eyes", then "answers".
        eyes: model whose eyes (and, for "answers", connector) are begun with; nothing takes nano's, or runs/see-eyes/final.
        steps: 0 takes the stage's own number.
        drawings, scenes: pictures a step.
        depth: layers of the short decoder.
        rank: of the adapters.
        rate: peak learning rate of the connector.
    """
    if stage not in ("eyes", "answers"):
        raise sn.ConfigError(f"stage {stage!r}: wanted 'eyes' or 'answers'")
    train, held = SeeData(Path(data), drawings, scenes), SeeData(Path(data), 24, 24, seed=1, split="val")
    common = dict(batch=train.batch, mixed=True, clip=1.0, validation=(held.batch(0),), end=train.end, warmup=0.02, cooldown=0.5,
                  validate_every=250)
    looks = (Group(paths=("encoders.image",), rate=rate / 5, decay=0.02), Group(paths=("align",), rate=rate))
    if stage == "eyes":
        spec, seen = short_see(depth), eyes or WEIGHTS / "nano"
        groups = (Group(paths=("encoders.text",), rate=0), *looks, Group(paths=("decoder",), rate=rate / 3))
        return Run(name="see-eyes", model=spec, base=lambda: fresh(spec, seen, False), steps=steps or 3000, groups=groups, ema=0.998,
                   save_every=100, **common)
    spec = replace(see(), adapters={"see": Lora(rank=rank, alpha=2.0 * rank)})
    groups = (Group(paths=("*.adapters.*",), rate=rate / 3, decay=0.0), *looks, Group(rate=0))
    return Run(name="see", model=spec, base=lambda: fresh(spec, eyes or "runs/see-eyes/final", True), steps=steps or 2000, groups=groups, ema=0.995,
               save_every=50, **common)


def finish(trained: Path, figures: Path, out: Path) -> None:
    """Write the folder that ships: what was trained, where the rest is borrowed, and a card with data, licences, curves, figures and limits."""
    log, history = read_lines(trained / "log.jsonl"), json.loads((trained / "history.json").read_text(encoding="utf-8"))
    spec = sn.from_json((trained / "final" / "model.json").read_text(encoding="utf-8"))
    tensors = read_tensors(trained / "final" / "weights.safetensors")
    lent = {part: sn.Pretrained(BASE, part=part) for part in ("encoders.text", "decoder")}
    spec = replace(spec, encoders={**spec.encoders, "text": lent["encoders.text"]}, decoder=lent["decoder"])
    codecs = sn.Codecs(image=sn.VisionCodec(size=SIZE, resample="lanczos"), words=BASE, context=1024, end="<|im_end|>", template=TEMPLATE)
    card = {
        "name": "see", "licence": "Apache-2.0 for the weights; the pictures' credits are in docs/data.md and must be passed on",
        "reads": ["text (English)", "image"], "writes": ["text"],
        "data": "10,197 emoji pictures in nine art styles under MIT, Apache-2.0 and CC-BY-4.0 (docs/data.md), and scenes drawn by "
                "sensorium/corpus/world.py, with questions whose answers are known",
        "starts from": "SmolLM2-135M-Instruct (Apache-2.0), borrowed and not part of these weights; nano's eyes (Apache-2.0)",
        "training": {"recipe": "recipes/see.py", "steps": log[-1]["step"], "pictures a step": 24},
        "limits": "Knows emoji-like drawings and scenes of flat shapes; of photographs it says what they look most like.",
        "figures": json.loads(figures.read_text(encoding="utf-8")),
        "curves": {"loss": log[:: max(len(log) // 60, 1)],
                   "validation": [{"step": row["step"], "loss": row["validation"], "without": row["modality_use"]} for row in history]}}
    write_file(out / "model.json", spec.to_json().encode())
    write_file(out / "codecs.json", codecs.to_json().encode())
    write_file(out / "card.json", json.dumps(card, indent=1, ensure_ascii=False).encode())
    write_tensors(out / "weights.safetensors", {name: value.to(torch.bfloat16) for name, value in tensors.items()})


if __name__ == "__main__":
    finish(*map(Path, sys.argv[1:4]))
