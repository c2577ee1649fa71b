"""see: a language model learns to look. First the eyes and the connector learn to spell; then the connector and adapters learn to speak.

    sensorium pull smollm2-135m-instruct && make corpus
    sensorium train recipes/see.py --data corpus --stage words
    sensorium train recipes/see.py --data corpus --stage answers
    python recipes/see.py runs/see-words runs/see sensorium/weights/see                  # the folder that ships
    sensorium eval see --data corpus --json figures.json
    python recipes/see.py runs/see-words runs/see sensorium/weights/see figures.json     # with its figures

Every step takes drawn pictures of the training split and scenes of a world drawn by code. While words are learned, each place of a picture is
brought near the vocabulary's vectors of what it shows, without the decoder, which makes a picture cheap. Then, with several questions about each:

    <user> [whole, grid] question <end> <assistant> answer <end> <user> question <end> <assistant> answer <end> ...

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

import efficientnet
import sensorium as sn
from pictures import Concept, Stream, load_concepts, load_pictures, on_paper
from sensorium.catalog import WEIGHTS, find
from sensorium.checkpoint import read_tensors, write_tensors
from sensorium.codecs.chat import ChatTemplate
from sensorium.corpus.kinds import KINDS
from sensorium.corpus.world import COLOURS, NUMBERS, SHAPES, Scene, draw_scene, make_scene, questions, words_at
from sensorium.data import Segment
from sensorium.files import read_lines, write_file
from sensorium.layers.adapters import Lora
from sensorium.train import Group, Run
from sensorium.types import Spelled
from sensorium.zoo.see import see, spelling

EYES = see().encoders["image"]
SIZE, PLACES = EYES.size, see().places("image")
WHOLE = EYES.looks[0].patches  # places of the first look; the grid follows
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
class Shown:
    """What each step shows: drawn pictures of a split, and scenes of the world.

    Args:
        folder: the corpus.
        drawings, scenes: pictures a step.
        seed: of order and chance.
        split: which pictures; scenes of "val" are of pairs and words that training never shows.
        odd: share of things in training scenes whose colour or shape has no name.
        tokenizer: None is SmolLM2's.
    """

    folder: Path
    drawings: int
    scenes: int
    seed: int = 0
    split: str = "train"
    odd: float = 0.0
    tokenizer: sn.Tokenizer | None = None

    def __post_init__(self) -> None:
        self.tokenizer = self.tokenizer or sn.Codecs.load(find(BASE)).text
        self.concepts = load_concepts(self.folder)
        self.stream = Stream(load_pictures(self.folder, self.split, SIZE), self.concepts, seed=self.seed)

    def chance(self, step: int) -> np.random.Generator:
        """Of a step: a function of the seed and the step alone."""
        return np.random.default_rng((self.seed, 11, step))

    def pictures(self, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, list[Concept], list[Scene]]:
        """Pictures (L, 3, H, W), first the drawings, then the scenes; what the drawings show; the scenes."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = self.stream.places(step * self.drawings, self.drawings)
        shown = self.stream.changed(chosen, generator) if self.split == "train" else on_paper(self.stream.pictures.image_LCHW[chosen])
        scenes = [make_scene(rng, held=self.split != "train", odd=self.odd) for _ in range(self.scenes)]
        drawn = torch.from_numpy(np.stack([draw_scene(scene, SIZE) for scene in scenes])).permute(0, 3, 1, 2).float() / 127.5 - 1
        light = torch.rand(len(scenes), 1, 1, 1, generator=generator) * 0.2 + 0.9 if self.split == "train" else 1.0
        lit = ((drawn + 1) * light - 1).clamp(-1, 1)
        return torch.cat([shown, lit]), [self.concepts[self.stream.pictures.concept[index]] for index in chosen], scenes

    @lru_cache(maxsize=200_000)  # noqa: B019 (one object a run)
    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids; names of special tokens are those tokens."""
        return tuple(self.tokenizer.encode(text, special=True))


@dataclass(eq=False)
class Spelling(Shown):
    """Batches of pictures and the words of their places: the first four spell a drawing's name or a scene's number of things, the nine of the
    grid say what stands there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = {token for concept in self.concepts.values() for token in self.name(concept)}
        words = {self.ids(f" {word}")[0] for word in (*COLOURS, *SHAPES, *NUMBERS, "top", "bottom", "left", "right", "middle")}
        self.id_V = torch.tensor(sorted(names | words))
        self.index = {token: index for index, token in enumerate(self.id_V.tolist())}

    def name(self, concept: Concept) -> list[int]:
        """The first four tokens of a name, filled up with full stops."""
        return [*self.ids(f" {concept.names[0]}")[:WHOLE], *self.ids(".") * WHOLE][:WHOLE]

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step."""
        shown, drawn, scenes = self.pictures(step, self.chance(step))
        word_LPK = torch.full((len(shown), PLACES, 4), -100, dtype=torch.int64)
        for row, concept in enumerate(drawn):
            word_LPK[row, :WHOLE, 0] = torch.tensor([self.index[token] for token in self.name(concept)])
        (nothing,) = self.ids(".")
        for row, scene in enumerate(scenes, start=len(drawn)):
            word_LPK[row, 0, 0] = self.index[self.ids(f" {NUMBERS[len(scene.things)]}")[0]]
            for place, words in enumerate(words_at(scene), start=WHOLE):
                said = [self.index[self.ids(f" {word}")[0]] for word in words] or [self.index[nothing]]
                word_LPK[row, place, : len(said)] = torch.tensor(said)
        return sn.Batch(media={"image": shown}, spelled={"image": Spelled(self.id_V, word_LPK)}, samples=len(shown))

    @torch.no_grad()
    def right(self, model: sn.ModelNet, steps: int = 4) -> dict[str, float]:
        """Shares of drawings whose name is spelled, of things in scenes whose words are the likeliest, and of empty places that are said to be."""
        names, things, empty = [], [], []
        for step in range(steps):
            batch = self.batch(step)
            features_LPD = model.aligned("image", batch.media["image"])
            score_LPV = model.objectives[0].scores(features_LPD, model.encoders["text"].token.weight[self.id_V])
            word_LPK = batch.spelled["image"].word_LPK
            names += (score_LPV[: self.drawings, :WHOLE].argmax(-1) == word_LPK[: self.drawings, :WHOLE, 0]).all(1).tolist()
            found, wanted = score_LPV[self.drawings :, WHOLE:].topk(4, dim=-1).indices.flatten(0, 1), word_LPK[self.drawings :, WHOLE:].flatten(0, 1)
            for best, words in zip(found.tolist(), wanted.tolist(), strict=True):
                said = {word for word in words if word >= 0}
                things += [set(best[: len(said)]) == said] if len(said) > 1 else []
                empty += [best[0] in said] if len(said) == 1 else []
        return {"names": sum(names) / len(names), "things": sum(things) / len(things), "empty": sum(empty) / len(empty)}


@dataclass(eq=False)
class Talking(Shown):
    """Batches of pictures and conversations about them.

    Args:
        asked: questions about a scene.
        more: questions about a drawing beside its name.
        told: share of the scenes that are described in full as well.
    """

    asked: int = 5
    more: int = 1
    told: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        self.end = self.tokenizer.special("<|im_end|>")
        self.packer = sn.Packer(places={"image": PLACES}, row=512, end=self.end)

    @cached_property
    def kin(self) -> dict[str, list[Concept]]:
        """Concepts of each kind."""
        out: dict[str, list[Concept]] = {}
        for concept in self.concepts.values():
            out.setdefault(concept.subgroup, []).append(concept)
        return out

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
        turns = []
        for right in (True, False):
            if rng.random() < 0.6:
                other = self.kin[concept.subgroup] if rng.random() < 0.6 else list(self.concepts.values())
                asked = concept if right else other[int(rng.integers(len(other)))]
                turns.append((f"Is this {named(asked)}?", "Yes, it is." if asked.id == concept.id else "No, it is not."))
        if concept.subgroup in KINDS and rng.random() < 0.5:
            turns.append((str(rng.choice(KIND)), f"It is {KINDS[concept.subgroup][0][0]}."))
        if len(concept.keywords[0]) >= 3 and rng.random() < 0.25:
            turns.append(("Give three words for it.", ", ".join(concept.keywords[0][:3]).capitalize() + "."))
        turns = [turns[i] for i in rng.permutation(len(turns))][: self.more]
        turns.insert(int(rng.integers(len(turns) + 1)), (str(rng.choice(NAMING)), f"This is {named(concept)}."))
        return turns

    def asking(self, scene: Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions about a scene."""
        told = bool(rng.random() < self.told)
        asked = questions(scene, rng, self.asked - told) + (questions(scene, rng, 1, ("describe",)) if told else [])
        return list({asked[i].text: asked[i].answer for i in rng.permutation(len(asked))}.items())

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step."""
        rng = self.chance(step)
        shown, drawn, scenes = self.pictures(step, rng)
        turns = [*(self.about(concept, rng) for concept in drawn), *(self.asking(scene, rng) for scene in scenes)]
        return self.packer.pack([self.conversation(*pair) for pair in zip(shown, turns, strict=True)])


def fresh(spec: sn.Model, seen: str | Path, data: str) -> sn.ModelNet:
    """The model with SmolLM2's weights, nano's eyes, and what folder ``seen`` holds of eyes and connector ("efficientnet": published eyes)."""
    model, base, lent = spec.build(seed=0), sn.load(find(BASE)).state_dict(), dict(read_tensors(WEIGHTS / "nano" / "weights.safetensors"))
    if seen == "efficientnet":
        lent = {f"encoders.image.body.{name}": value for name, value in efficientnet.body(efficientnet.read(Path(data) / "downloads")).items()}
    else:
        lent |= read_tensors(Path(seen) / "weights.safetensors")
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    looks = {name.replace("image.body", "image.looks.0.body"): value.float() for name, value in lent.items()
             if name.startswith(("encoders.image.", "align.image."))}
    model.load_state_dict({name: value for name, value in {**base, **looks}.items() if value.shape == wanted.get(name)}, strict=False)
    return model


def run(data: str = "corpus", stage: str = "words", eyes: str = "", steps: int = 0, drawings: int = 0, scenes: int = 0, rank: int = 16,
        rate: float = 1e-3) -> Run:
    """The run of a stage.

    Args:
        data: the corpus.
        stage: "words", then "answers".
        eyes: folder of the model whose eyes (and connector, if it has one) are begun with, or "efficientnet" for published ones; nothing takes
            nano's, or runs/see-words/final.
        steps, drawings, scenes: of the run, and pictures a step; 0 takes the stage's own numbers.
        rank: of the adapters.
        rate: peak learning rate of the connector.
    """
    common = dict(mixed=True, clip=1.0, warmup=0.02, cooldown=0.5, save_every=50)
    if stage == "words":
        train, held = Spelling(Path(data), drawings or 64, scenes or 64, odd=0.6), Spelling(Path(data), 64, 64, seed=1, split="val")
        spec = spelling(see())
        groups = (Group(paths=("encoders.text", "encoders.image.looks.0"), rate=0), Group(rate=rate, decay=0.05))
        return Run(name="see-words", model=spec, base=lambda: fresh(spec, eyes or WEIGHTS / "nano", data), batch=train.batch, steps=steps or 1800,
                   groups=groups, ema=0.998, validation=(held.batch(0),), validate_every=250, evaluate=held.right, **common)
    if stage != "answers":
        raise sn.ConfigError(f"stage {stage!r}: wanted 'words' or 'answers'")
    learned, asked = Talking(Path(data), drawings or 24, scenes or 12), Talking(Path(data), 24, 24, seed=1, split="val")
    spec = replace(see(), adapters={"see": Lora(rank=rank, alpha=2.0 * rank)})
    groups = (Group(paths=("encoders",), rate=0), Group(paths=("*.adapters.*",), rate=rate, decay=0.0), Group(paths=("align",), rate=rate / 5),
              Group(rate=0))
    return Run(name="see", model=spec, base=lambda: fresh(spec, eyes or "runs/see-words/final", data), batch=learned.batch, steps=steps or 1200,
               groups=groups, ema=0.99, validation=(asked.batch(0),), validate_every=200, end=learned.end, **common)


def finish(words: Path, trained: Path, out: Path, figures: Path | None = None) -> None:
    """Write the folder that ships: what was trained, where the rest is borrowed, and a card with data, licences, curves, figures and limits."""
    log, history = read_lines(trained / "log.jsonl"), json.loads((trained / "history.json").read_text(encoding="utf-8"))
    spec = sn.from_json((trained / "final" / "model.json").read_text(encoding="utf-8"))
    learned, spoken = (read_tensors(folder / "final" / "weights.safetensors") for folder in (words, trained))
    tensors = {**{name: value for name, value in learned.items() if name.startswith("encoders.image.looks.1.")}, **spoken}
    text, decoder = (sn.Pretrained(BASE, part=part) for part in ("encoders.text", "decoder"))
    eyes = sn.Looks(size=SIZE, looks=(sn.Pretrained("nano", part="encoders.image"), *spec.encoders["image"].looks[1:]))
    spec = replace(spec, encoders={**spec.encoders, "text": text, "image": eyes}, decoder=decoder)
    picture = sn.VisionCodec(size=SIZE, resample="lanczos")
    film = sn.FramesCodec(picture, most=1)  # of scenes in a film, one frame gets 42 of 48 right, two 39, four 35: it learned from one picture
    codecs = sn.Codecs(image=picture, video=film, words=BASE, context=1024, end="<|im_end|>", template=TEMPLATE)
    spelled = json.loads((words / "history.json").read_text(encoding="utf-8"))
    card = {
        "name": "see", "licence": "Apache-2.0 for the weights; the pictures' credits are in docs/data.md and must be passed on",
        "reads": ["text (English)", "image"], "writes": ["text"],
        "data": "10,197 emoji pictures in nine art styles under MIT, Apache-2.0 and CC-BY-4.0 (docs/data.md), and scenes drawn by "
                "sensorium/corpus/world.py, with questions whose answers are known",
        "starts from": "SmolLM2-135M-Instruct and nano's eyes (both Apache-2.0), borrowed and not part of these weights",
        "training": {"recipe": "recipes/see.py", "words": f"{spelled[-1]['step']} steps", "answers": f"{log[-1]['step']} steps"},
        "limits": "Knows emoji-like drawings and scenes of flat shapes; of photographs it says what they look most like.",
        "figures": json.loads(figures.read_text(encoding="utf-8")) if figures else [],
        "curves": {"loss": log[:: max(len(log) // 60, 1)],
                   "spelled": [{"step": row["step"], **row["figures"]} for row in spelled],
                   "validation": [{"step": row["step"], "loss": row["validation"], "without": row["modality_use"]} for row in history]}}
    write_file(out / "model.json", spec.to_json().encode())
    write_file(out / "codecs.json", codecs.to_json().encode())
    write_file(out / "card.json", json.dumps(card, indent=1, ensure_ascii=False).encode())
    write_tensors(out / "weights.safetensors", {name: value.to(torch.bfloat16) for name, value in tensors.items()})


if __name__ == "__main__":
    finish(*map(Path, sys.argv[1:]))
