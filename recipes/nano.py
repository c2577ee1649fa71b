"""nano: one small model that reads and writes text and pictures, with one shared space.

    python -m sensorium.corpus.build corpus        # once: pictures, names, split
    sensorium train recipes/nano.py --data corpus
    sensorium eval runs/nano/final --data corpus --json figures.json
    python recipes/nano.py runs/nano figures.json sensorium/weights/nano      # the folder that ships: weights and card

Every step takes pictures of the training split and lays each out twice:

    reading   [picture] <embed> "What is this?" <embed> <say> a name <end>      next token; embedding of the picture
    writing   [a name, keywords or a request] <embed> -> the picture           embedding of the text; flow, conditioned on it

The two embeddings are each other's positives in the contrastive objective.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pillow
from torch.nn import functional as F

import sensorium as sn
from sensorium.train import Group, Run
from sensorium.zoo.nano import nano

SIZE = 64
SPECIALS = ("<pad>", "<embed>", "<say>", "<end>")
PAD, EMBED, SAY, END = range(4)
# The picture drawn for a request that names no style: the first of these that the training split has.
DEFAULT_STYLES = ("twemoji", "fluent-flat", "noto", "emojione", "fluent-color", "noto-v1", "fluent-3d", "fxemoji", "streamline")
STYLE_WORDS = {
    "twemoji": ("plain", "简洁"), "noto": ("soft", "柔和"), "noto-v1": ("classic", "经典"), "emojione": ("bright", "明亮"),
    "fluent-flat": ("flat", "扁平"), "fluent-color": ("glossy", "光泽"), "fluent-3d": ("3D", "立体"), "fxemoji": ("round", "圆润"),
    "streamline": ("outlined", "线条"),
}
QUESTIONS = (("What is this?", "这是什么？"), ("What do you see?", "你看到了什么？"), ("Name it.", "说出它的名字。"))
REQUESTS = (("Draw {}", "画{}"), ("Draw a {}", "画一个{}"), ("Draw a picture of {}.", "请画{}"), ("{}", "{}"))


def codecs(size: int = SIZE) -> sn.Codecs:
    """How raw values become arrays, beside the tokenizer."""
    return sn.Codecs(image=sn.VisionCodec(size=size, resample="lanczos"), context=64, say=SPECIALS[SAY], end=SPECIALS[END])


@dataclass(frozen=True)
class Concept:
    """One thing with its names."""

    id: str
    names: tuple[str, str]
    keywords: tuple[tuple[str, ...], tuple[str, ...]]
    group: str


@dataclass
class Pictures:
    """A split held in memory: uint8 RGBA pictures with their concept and style."""

    image_LCHW: torch.Tensor
    concept: list[str]
    style: list[str]
    index: dict[tuple[str, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.index = {(c, s): i for i, (c, s) in enumerate(zip(self.concept, self.style, strict=True))}

    def __len__(self) -> int:
        return len(self.concept)


def load_concepts(folder: Path) -> dict[str, Concept]:
    """All concepts by id, in the corpus's order."""
    out = {}
    for line in (folder / "concepts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        out[row["id"]] = Concept(row["id"], (row["en"], row["zh"]), (tuple(row["keywords_en"]), tuple(row["keywords_zh"])), row["group"])
    return out


def load_pictures(folder: Path, split: str, size: int = SIZE) -> Pictures:
    """Decode a split once; kept beside the corpus as an array."""
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]
    cache = folder / f"{split}-{size}.npy"
    if not cache.exists():
        pictures = np.stack([_decode(folder / row["parts"][0]["image"], size) for row in rows])
        temporary = cache.with_suffix(".part.npy")
        np.save(temporary, pictures)
        temporary.replace(cache)
    return Pictures(torch.from_numpy(np.load(cache)), [row["concept"] for row in rows], [row["style"] for row in rows])


def _decode(path: Path, size: int) -> np.ndarray:
    with Pillow.open(path) as picture:
        small = picture.convert("RGBa").resize((size, size), Pillow.Resampling.LANCZOS).convert("RGBA")
    return np.asarray(small).transpose(2, 0, 1)


def on_paper(image_LCHW: torch.Tensor, paper_LC: torch.Tensor | float = 1.0) -> torch.Tensor:
    """uint8 RGBA -> float RGB in -1..1 on a background (0..1)."""
    rgb, alpha = image_LCHW[:, :3].float() / 255, image_LCHW[:, 3:].float() / 255
    paper = paper_LC[:, :, None, None] if isinstance(paper_LC, torch.Tensor) else paper_LC
    return (rgb * alpha + paper * (1 - alpha)) * 2 - 1


def augment(image_LCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Move, turn, scale and recolour pictures and change their paper, so that only what they show stays."""
    count = len(image_LCHW)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    paper = torch.where(uniform(0, 1, 1) < 0.5, torch.ones(count, 3), uniform(0, 1, 3))
    x = on_paper(image_LCHW, paper)
    angle, scale = uniform(-0.25, 0.25), uniform(0.85, 1.35)
    stretch = uniform(0.9, 1.1)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    shift = uniform(-0.15, 0.15, 2)
    theta = torch.stack([torch.stack([cos * stretch, -sin, shift[:, 0]], 1), torch.stack([sin, cos / stretch, shift[:, 1]], 1)], 1)
    grid = F.affine_grid(theta, [count, 3, *image_LCHW.shape[2:]], align_corners=False)
    x = F.grid_sample(x - paper[:, :, None, None] * 2 + 1, grid, align_corners=False) + paper[:, :, None, None] * 2 - 1
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(0.2, 1.6, 1, 1, 1)
    mix = torch.eye(3) + (torch.rand(count, 3, 3, generator=generator) - 0.5) * 0.3
    x = torch.einsum("lij,ljhw->lihw", mix, x) * uniform(0.7, 1.2, 1, 1, 1) + uniform(-0.15, 0.15, 1, 1, 1)
    return x.clamp(-1, 1)


@dataclass(eq=False)
class NanoData:
    """Makes the batch of each step."""

    folder: Path
    size: int
    pictures_a_step: int
    seed: int = 0
    draws: int = 1

    def __post_init__(self) -> None:
        self.tokenizer = sn.Tokenizer.from_file(self.folder / "tokenizer.json")
        self.concepts = load_concepts(self.folder)
        self.pictures = load_pictures(self.folder, "train", self.size)
        ids = list(self.concepts)
        self.number = {c: i for i, c in enumerate(ids)}
        self.mixture = sn.Mixture((len(self.pictures),), seed=self.seed)
        self.packer = sn.Packer(places={"image": (self.size // 32) ** 2}, row=40, embed=EMBED, say=SAY, end=END, axes=True)
        self.default = {}
        for concept in ids:
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
        if rng.random() < 0.12 and concept.keywords[language]:
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
        chosen = [self.mixture.place(step * self.pictures_a_step + i)[1] for i in range(self.pictures_a_step)]
        seen = augment(self.pictures.image_LCHW[chosen], generator)
        reading, writing, drawn = [], [], []
        for number, index in enumerate(chosen):
            concept, style = self.concepts[self.pictures.concept[index]], self.pictures.style[index]
            language = int(rng.random() < 0.5)
            question = QUESTIONS[int(rng.integers(len(QUESTIONS)))][language]
            reading.append(self.packer.segment([
                sn.Arrays("image", seen[number]), sn.Arrays("text", self.ids(question)),
                sn.Arrays("text", self.ids(concept.names[language]), target=True)]))
            text, styled = self.request(concept, style, rng)
            writing.append(text)
            drawn.append(index if styled else self.default[concept.id])
        clean = on_paper(self.pictures.image_LCHW[drawn])
        segments = reading + [
            self.packer.segment([sn.Arrays("text", self.ids(text)), *[sn.Arrays("image", picture, target=True)] * self.draws])
            for text, picture in zip(writing, clean, strict=True)]
        count = len(chosen)
        groups = [self.number[self.pictures.concept[i]] for i in chosen]
        return self.packer.pack(segments, {"image": list(range(count)), "text": list(range(count, 2 * count))}, groups)


def train_tokenizer(folder: Path, vocab: int = 4096) -> None:
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


def evaluator(data: NanoData, split: str = "val"):
    """Naming a held-out picture among all names, by embedding."""
    pictures = load_pictures(data.folder, split, data.size)
    image = on_paper(pictures.image_LCHW)
    wanted = torch.tensor([data.number[c] for c in pictures.concept])

    def evaluate(model: sn.ModelNet) -> dict[str, float]:
        seen, out = embed_pictures(model, data, image), {}
        for language, name in ((0, "en"), (1, "zh")):
            names = embed_texts(model, data, [c.names[language] for c in data.concepts.values()])
            rank = (seen @ names.T).argsort(dim=1, descending=True)
            hit = rank == wanted[:, None]
            out[f"{name}_r1"], out[f"{name}_r5"] = float(hit[:, :1].any(1).float().mean()), float(hit[:, :5].any(1).float().mean())
        return out

    return evaluate


def run(data: str = "corpus", steps: int = 20_000, cooldown: float = 0.2, pictures: int = 128, draws: int = 2) -> Run:
    """The run behind the shipped weights."""
    folder = Path(data)
    if not (folder / "tokenizer.json").exists():
        train_tokenizer(folder)
    train = NanoData(folder, SIZE, pictures, draws=draws)
    held = NanoData(folder, SIZE, 64, seed=1)
    held.pictures = load_pictures(folder, "val", SIZE)
    held.mixture = sn.Mixture((len(held.pictures),), seed=1)
    held.default = {c: i for i, c in enumerate(held.pictures.concept)}
    return Run(
        name="nano", model=nano(train.tokenizer.vocab), batch=train.batch, steps=steps, cooldown=cooldown, warmup=0.0,
        groups=(Group(kind="muon", rate=3e-3, rate_rest=1e-3, decay=0.02),), ema=0.996, clip=2.0, mixed=True,
        validation=(held.batch(0),), validate_every=250, save_every=100, evaluate=evaluator(train), end=END,
        files={"tokenizer.json": (folder / "tokenizer.json").read_bytes(), "codecs.json": codecs().to_json().encode()})


def finish(trained: Path, figures: Path, out: Path) -> None:
    """Write the folder that ships: the final weights, and a card with data, licences, curves, figures and limits."""
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    history = json.loads((trained / "history.json").read_text(encoding="utf-8"))
    card = {
        "name": "nano", "licence": "Apache-2.0 for the weights; the pictures' credits are in docs/data.md and must be passed on",
        "reads": ["text (English, Chinese)", "image"], "writes": ["text", "image (64 pixels)", "embed"],
        "data": "10,197 emoji pictures in nine art styles under MIT, Apache-2.0 and CC-BY-4.0, with English and Chinese names: docs/data.md",
        "training": {"recipe": "recipes/nano.py", "steps": log[-1]["step"], "pictures a step": 128},
        "limits": "Knows emoji-like drawings of 1,949 concepts on plain paper; photographs, scenes, counting and free text are beyond it.",
        "figures": json.loads(figures.read_text(encoding="utf-8")),
        "curves": {"loss": log[:: max(len(log) // 60, 1)], "validation": [{"step": row["step"], **row["figures"]} for row in history]}}
    files = {name: (trained / "final" / name).read_bytes() for name in ("tokenizer.json", "codecs.json")}
    files["card.json"] = json.dumps(card, indent=1, ensure_ascii=False).encode()
    sn.save(sn.load(trained / "final"), out, files, dtype=torch.bfloat16)


if __name__ == "__main__":
    finish(*map(Path, sys.argv[1:4]))
