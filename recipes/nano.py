"""nano: one small model that reads and writes text and pictures, with one shared space.

    make corpus                                    # once: pictures, names, split, and published weights for the eyes
    sensorium train recipes/nano.py --data corpus
    sensorium eval runs/nano/final --data corpus --json figures.json
    python recipes/nano.py runs/nano figures.json sensorium/weights/nano      # the folder that ships: weights and card
    python recipes/nano.py figures.json sensorium/weights/nano                # only the figures on its card that were measured again

Every step takes pictures of the training split and lays each out twice:

    reading   [picture] <embed> "What is this?" <embed> <say> a name <end>      next token; embedding of the picture
    writing   [a name, keywords, a kind or a request] <embed> -> the picture    embedding of the text; flow, conditioned on it

The two embeddings are each other's positives in the contrastive objective. While it trains, every concept has a point of its own in the
shared space as well, to which its pictures and its names are drawn (:func:`with_concepts`); what ships is without these points.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import efficientnet
import sensorium as sn
from efficientnet import EYES
from pictures import SIZE, Concept, Stream, load_concepts, load_pictures, on_paper
from sensorium.catalog import WEIGHTS
from sensorium.checkpoint import read_tensors, write_tensors
from sensorium.corpus.kinds import KINDS
from sensorium.data import Segment
from sensorium.evals.figures import ranks
from sensorium.files import read_lines, write_file
from sensorium.spec import from_json
from sensorium.train import Group, Run
from sensorium.zoo.nano import nano

PICTURES_A_STEP = 112
CONCEPTS = Group(paths=("encoders.concept",), rate=2e-3, decay=0.0)
SPECIALS = ("<pad>", "<embed>", "<say>", "<end>")
PAD, EMBED, SAY, END = range(4)
VOCAB = 4096
# The picture drawn for a request that names no style: the first of these that the training split has.
DEFAULT_STYLES = ("twemoji", "fluent-flat", "noto", "emojione", "fluent-color", "noto-v1", "fluent-3d", "fxemoji", "streamline")
STYLE_WORDS = {
    "twemoji": ("plain", "简洁"), "noto": ("soft", "柔和"), "noto-v1": ("classic", "经典"), "emojione": ("bright", "明亮"),
    "fluent-flat": ("flat", "扁平"), "fluent-color": ("glossy", "光泽"), "fluent-3d": ("3D", "立体"), "fxemoji": ("round", "圆润"),
    "streamline": ("outlined", "线条"),
}
QUESTIONS = (("What is this?", "这是什么？"), ("What do you see?", "你看到了什么？"), ("Name it.", "说出它的名字。"))
REQUESTS = (("Draw {}", "画{}"), ("Draw a {}", "画一个{}"), ("Draw the {}", "画一下{}"), ("Draw a picture of {}.", "请画{}"), ("{}", "{}"))


def codecs(size: int = SIZE) -> sn.Codecs:
    """How raw values become arrays, beside the tokenizer."""
    return sn.Codecs(image=sn.VisionCodec(size=size, resample="lanczos"), context=64, say=SPECIALS[SAY], end=SPECIALS[END])


@dataclass(eq=False)
class NanoData:
    """Makes the batch of each step.

    Args:
        folder: the corpus.
        pictures_a_step: read, each with a text beside it.
        drawn: how many are drawn for these texts; where they are more than the texts, some are drawn twice from other noise.
        reads: whether pictures are read; if not, only the drawn ones are looked at.
        names: whether reading a picture ends with writing its name.
        seed: of order and chance.
        split: which pictures.
    """

    folder: Path
    pictures_a_step: int
    drawn: int
    reads: bool = True
    names: bool = True
    seed: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        if not (self.folder / "tokenizer.json").exists():
            train_tokenizer(self.folder)
        self.tokenizer = sn.Tokenizer.from_file(self.folder / "tokenizer.json")
        self.concepts = load_concepts(self.folder)
        self.pictures = load_pictures(self.folder, self.split)
        self.number = {c: i for i, c in enumerate(self.concepts)}
        self.stream = Stream(self.pictures, self.concepts, seed=self.seed)
        self.packer = sn.Packer(places={"image": (SIZE // 32) ** 2}, row=40, embed=EMBED, say=SAY, end=END, axes=True)
        self.default = {}
        for concept in self.concepts:
            for style in DEFAULT_STYLES:
                if (concept, style) in self.pictures.index:
                    self.default[concept] = self.pictures.index[concept, style]
                    break

    @lru_cache(maxsize=100_000)  # noqa: B019 (one object a run)
    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text."""
        return tuple(self.tokenizer.encode(text))

    def request(self, concept: Concept, style: str, rng: np.random.Generator) -> tuple[str, bool]:
        """A text that stands for a picture, and whether it names the style."""
        language = int(rng.random() < 0.4)
        chance = rng.random()
        if chance < 0.08 and concept.subgroup in KINDS:
            return str(rng.choice(KINDS[concept.subgroup][language])), False
        if chance < 0.2 and concept.keywords[language]:
            words = rng.permutation(np.array(concept.keywords[language], dtype=object))[: int(rng.integers(1, 4))]
            return ("，" if language else ", ").join(words), False
        name = concept.names[language]
        text = REQUESTS[int(rng.integers(len(REQUESTS)))][language].format(name) if rng.random() < 0.5 else name
        if rng.random() < 0.25:
            return (f"{text}，{STYLE_WORDS[style][1]}风格" if language else f"{text}, {STYLE_WORDS[style][0]} style"), True
        return text, False

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        rng = np.random.default_rng((self.seed, 7, step))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chosen = self.stream.places(step * self.pictures_a_step, self.pictures_a_step)
        count = len(chosen)
        times = np.bincount(np.resize(rng.permutation(count), self.drawn), minlength=count)
        reading = self._reading(chosen, rng, generator) if self.reads else []
        writing = [self._writing(index, rng, int(some)) for index, some in zip(chosen, times, strict=True)]
        if not self.reads:
            return self.packer.pack(writing)
        groups = [self.number[self.pictures.concept[i]] for i in chosen]
        batch = self.packer.pack(reading + writing, {"image": list(range(count)), "text": list(range(count, 2 * count))}, groups)
        return replace(batch, pairs={**batch.pairs, "concept": batch.group_L[:, None]})

    def _reading(self, chosen: list[int], rng: np.random.Generator, generator: torch.Generator) -> list[Segment]:
        """Pictures, changed, each with a question and its name."""
        out = []
        for index, picture in zip(chosen, self.stream.changed(chosen, generator), strict=True):
            parts, language = [sn.Arrays("image", picture)], int(rng.random() < 0.5)
            if self.names:
                question = QUESTIONS[int(rng.integers(len(QUESTIONS)))][language]
                name = self.concepts[self.pictures.concept[index]].names[language]
                parts += [sn.Arrays("text", self.ids(question)), sn.Arrays("text", self.ids(name), target=True)]
            out.append(self.packer.segment(parts))
        return out

    def _writing(self, index: int, rng: np.random.Generator, times: int) -> Segment:
        """A text that stands for a picture, and the picture to draw for it, so many times."""
        concept = self.concepts[self.pictures.concept[index]]
        text, styled = self.request(concept, self.pictures.style[index], rng)
        place = index if styled else self.default[concept.id]
        drawn = [sn.Arrays("image", picture, target=True) for picture in on_paper(self.pictures.image_LCHW[[place] * times])]
        return self.packer.segment([sn.Arrays("text", self.ids(text)), *drawn])


def train_tokenizer(folder: Path, vocab: int = VOCAB) -> None:
    """Byte-level BPE over every name, keyword, question and request in both languages."""
    texts = [w for pair in (*QUESTIONS, *REQUESTS) for w in pair] * 20
    for concept in load_concepts(folder).values():
        texts += [*concept.names] * 3 + [*concept.keywords[0], *concept.keywords[1]]
    tokenizer = sn.Tokenizer.train(texts, vocab, SPECIALS)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")


@torch.no_grad()
def embed_texts(model: sn.ModelNet, data: NanoData, texts: list[str], chunk: int = 512) -> torch.Tensor:
    """Unit vectors (L, O) of texts."""
    out = []
    for start in range(0, len(texts), chunk):
        segments = [data.packer.segment([sn.Arrays("text", data.ids(text))]) for text in texts[start : start + chunk]]
        batch = data.packer.pack(segments, {"text": list(range(len(segments)))})
        out.append(model.embedding(model.read(batch), batch.pairs["text"]))
    return torch.cat(out)


@torch.no_grad()
def embed_pictures(model: sn.ModelNet, data: NanoData, image_LCHW: torch.Tensor, chunk: int = 256) -> torch.Tensor:
    """Unit vectors (L, O) of normalised pictures."""
    out = []
    for start in range(0, len(image_LCHW), chunk):
        segments = [data.packer.segment([sn.Arrays("image", picture)]) for picture in image_LCHW[start : start + chunk]]
        batch = data.packer.pack(segments, {"image": list(range(len(segments)))})
        out.append(model.embedding(model.read(batch), batch.pairs["image"]))
    return torch.cat(out)


def over_nano(spec: sn.Model, parts: tuple[str, ...], further: bool = False) -> sn.ModelNet:
    """nano as it is packaged, with parts on top; parameters whose paths begin with one of ``parts`` are trained, and no others.

    Args:
        further: the parts start as they are packaged too, instead of fresh.
    """
    model = spec.build(seed=0)
    packaged = sn.load(WEIGHTS / "nano").state_dict()
    model.load_state_dict({name: value for name, value in packaged.items() if further or not name.startswith(parts)}, strict=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(parts))
    return model


def recipe_over(name: str, model: sn.Model, trained: tuple[str, ...], codecs: sn.Codecs, rate: float, further: bool = False,
                **more: Any) -> Run:
    """The run of parts over nano: all else is frozen, and not in its checkpoints.

    Args:
        trained: beginnings of the paths of what is trained.
        further: from the parts that are packaged, instead of from fresh ones.
        more: of ``Run``.
    """
    packaged = json.loads((WEIGHTS / "nano" / "card.json").read_text(encoding="utf-8")).get("parts", {})
    before = packaged.get(name.removeprefix("nano-"), {}).get("steps", 0) if further else 0
    files = {"codecs.json": codecs.to_json().encode(), "tokenizer.json": (WEIGHTS / "nano" / "tokenizer.json").read_bytes(),
             "card.json": json.dumps({"steps_before": before}).encode()}
    return Run(name=name, model=model, warmup=0.03, cooldown=0.4, ema=0.996, mixed=True, base=lambda: over_nano(model, trained, further),
               groups=(Group(paths=trained, kind="muon", rate=rate, rate_rest=1e-3, decay=0.02), Group(rate=0.0)), files=files, **more)


def add_parts(name: str, trained: Path, out: Path, parts: tuple[str, ...], grow: Callable[[sn.Model], sn.Model], what: str) -> None:
    """Put what a run over nano taught into the folder that ships: its weights as a file of their own, its sentence, codecs and card grown by it.

    Args:
        name: of the file, ``weights-NAME.safetensors``.
        trained: the run's folder.
        out: the folder that ships.
        parts: beginnings of the paths of what was trained.
        grow: nano's sentence -> the one with these parts.
        what: for the card: what it reads or writes by them.
    """
    learned, spec = (from_json((folder / "model.json").read_text(encoding="utf-8")) for folder in (trained / "final", out))
    base = nano(VOCAB)
    own = [one for one in grow(base).objectives if one not in base.objectives]
    spec = spec if all(one in spec.objectives for one in own) else grow(spec)
    moved = {f"{path}.": f"{path}." for path in parts}
    moved |= {f"objectives.{learned.objectives.index(one)}.": f"objectives.{spec.objectives.index(one)}." for one in own}
    kept = {new + key.removeprefix(old): value.to(torch.bfloat16)
            for key, value in read_tensors(trained / "final" / "weights.safetensors").items() for old, new in moved.items() if key.startswith(old)}
    mine, theirs = (json.loads((folder / "codecs.json").read_text(encoding="utf-8")) for folder in (out, trained / "final"))
    card, log = json.loads((out / "card.json").read_text(encoding="utf-8")), read_lines(trained / "log.jsonl")
    history, before = json.loads((trained / "history.json").read_text(encoding="utf-8")), trained / "final" / "card.json"
    steps = json.loads(before.read_text(encoding="utf-8"))["steps_before"] if before.is_file() else 0
    for way, names in (("reads", spec.reads), ("writes", spec.writes)):
        card[way] += [modality for modality in names if not any(said.startswith(modality) for said in card[way])]
    card["parts"] = {**card.get("parts", {}), name: {
        "what": what, "recipe": f"recipes/nano_{name}.py", "steps": steps + log[-1]["step"], "loss": log[:: max(len(log) // 60, 1)],
        "validation": [{"step": row["step"], **row["validation"], **row.get("figures", {})} for row in history]}}
    write_tensors(out / f"weights-{name}.safetensors", kept)
    for file, data in (("codecs.json", {**mine, **theirs}), ("card.json", card)):
        write_file(out / file, json.dumps(data, indent=1, ensure_ascii=False).encode())
    write_file(out / "model.json", spec.to_json().encode())


def in_epochs(seed: int, count: int, start: int, many: int) -> list[int]:
    """Items ``start`` to ``start + many`` of an endless row in which each of ``count`` comes once an epoch, in an order of its own."""
    out: list[int] = []
    while len(out) < many:
        epoch, at = divmod(start + len(out), count)
        out += np.random.default_rng((seed, 3, epoch)).permutation(count)[at : at + many - len(out)].tolist()
    return out


def evaluator(data: NanoData, split: str = "val"):
    """Naming a held-out picture among all names, by embedding."""
    pictures = load_pictures(data.folder, split)
    image = on_paper(pictures.image_LCHW)
    wanted = torch.tensor([data.number[c] for c in pictures.concept])

    def evaluate(model: sn.ModelNet) -> dict[str, float]:
        seen, out = embed_pictures(model, data, image), {}
        for language, name in ((0, "en"), (1, "zh")):
            names = embed_texts(model, data, [c.names[language] for c in data.concepts.values()])
            place = ranks(seen @ names.T, wanted)
            out |= {f"{name}_r{k}": float((place < k).float().mean()) for k in (1, 5)}
        return out

    return evaluate


def with_concepts(model: sn.Model, concepts: int) -> sn.Model:
    """The model with one more point in the shared space for each concept, learned: pictures and names find it before they find each other.

    Source: learned proxies (1703.07464), here among those of the batch only.
    """
    marks = sn.LabelEncoder(concepts, model.heads["embed"].inside)
    pull = tuple(sn.Contrastive(modality, "concept", temperature=0.07) for modality in ("image", "text"))
    return replace(model, encoders={**model.encoders, "concept": marks}, objectives=(*model.objectives, *pull))


def without_concepts(model: sn.ModelNet) -> sn.ModelNet:
    """What ships: the same weights without the concepts' points and their objectives, which come last."""
    kept = tuple(o for o in model.spec.objectives if not (isinstance(o, sn.Contrastive) and o.second == "concept"))
    spec = replace(model.spec, encoders={k: v for k, v in model.spec.encoders.items() if k != "concept"}, objectives=kept)
    out, weights = spec.build(device="meta"), model.state_dict()
    out.load_state_dict({name: weights[name] for name in out.state_dict()}, assign=True)
    return out


def recipe(name: str, model: sn.Model, data: NanoData, steps: int, evaluate: Callable[[sn.ModelNet], dict[str, float]] | None = None) -> Run:
    """The run of nano and of what it is compared with: they differ in the model and in what a batch holds."""
    model = with_concepts(model, len(data.concepts)) if data.reads else model
    held = replace(data, pictures_a_step=64, drawn=min(data.drawn, 64), seed=1, split="val")
    return Run(
        name=name, model=model, batch=data.batch, steps=steps, cooldown=0.3, warmup=0.03,
        groups=(*((EYES, CONCEPTS) if data.reads else ()), Group(kind="muon", rate=3e-3, rate_rest=1e-3, decay=0.02)),
        ema=0.996, clip=2.0, mixed=True,
        start=efficientnet.start(data.folder / "downloads") if data.reads else None,
        validation=(held.batch(0),), validate_every=250, save_every=100, evaluate=evaluate, end=END,
        files={"tokenizer.json": (data.folder / "tokenizer.json").read_bytes(), "codecs.json": codecs().to_json().encode()})


def run(data: str = "corpus", steps: int = 5000, pictures: int = PICTURES_A_STEP, drawn: int = 160) -> Run:
    """The run behind the shipped weights."""
    train = NanoData(Path(data), pictures, drawn)
    return recipe("nano", nano(train.tokenizer.vocab), train, steps, evaluator(train))


def finish(trained: Path, figures: Path, out: Path) -> None:
    """Write the folder that ships: the final weights, and a card with data, licences, curves, figures and limits."""
    log = read_lines(trained / "log.jsonl")
    history = json.loads((trained / "history.json").read_text(encoding="utf-8"))
    card = {
        "name": "nano", "licence": "Apache-2.0 for the weights; the pictures' credits are in docs/data.md and must be passed on",
        "reads": ["text (English, Chinese)", "image"], "writes": ["text", "image (64 pixels)", "embed"],
        "data": "10,197 emoji pictures in nine art styles under MIT, Apache-2.0 and CC-BY-4.0, with English and Chinese names: docs/data.md",
        "starts from": "EfficientNet-Lite0 for the eyes (Apache-2.0, trained on ImageNet-1k by its authors); all else from nothing",
        "training": {"recipe": "recipes/nano.py", "steps": log[-1]["step"], "pictures a step": PICTURES_A_STEP},
        "limits": "Knows emoji-like drawings of 1,949 concepts on plain paper; photographs, scenes, counting and free text are beyond it.",
        "figures": json.loads(figures.read_text(encoding="utf-8")),
        "curves": {"loss": log[:: max(len(log) // 60, 1)], "validation": [{"step": row["step"], **row["figures"]} for row in history]}}
    files = {name: (trained / "final" / name).read_bytes() for name in ("tokenizer.json", "codecs.json")}
    files["card.json"] = json.dumps(card, indent=1, ensure_ascii=False).encode()
    sn.save(without_concepts(sn.load(trained / "final")), out, files, dtype=torch.bfloat16)


def report(figures: Path, out: Path) -> None:
    """Put newly measured figures on the card of the folder that ships, each in the place of that of its name; the others stay."""
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    named = {row["name"]: row for row in [*card["figures"], *json.loads(figures.read_text(encoding="utf-8"))]}
    card["figures"] = list(named.values())
    write_file(out / "card.json", json.dumps(card, indent=1, ensure_ascii=False).encode())


if __name__ == "__main__":
    (finish if len(sys.argv) == 4 else report)(*map(Path, sys.argv[1:]))
