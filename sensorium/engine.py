"""Engine: a request in, a reply out: codecs -> model -> generate or denoise -> codecs.

    embed     values -> points in the shared space
    respond   a whole reply
    stream    the same reply as it happens
    write_texts, draw_images   many prompts at once

A model knows its codecs by the folder it was loaded from (``codecs.json``, ``tokenizer.json``); a model that was only built is
given them: ``engine.Codecs(image=VisionCodec(...), text=Tokenizer.from_file(...))``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakKeyDictionary

import torch

from sensorium.codecs.text import StreamDecoder, Tokenizer
from sensorium.codecs.vision import VisionCodec
from sensorium.data import Arrays, Packer, Segment
from sensorium.denoise import Solver, draw, stream_draw
from sensorium.generate import Sampling, continue_text, stream_text
from sensorium.model import ModelNet
from sensorium.spec import from_dict
from sensorium.types import MODALITIES, Batch, CheckpointError, ConfigError, Delta, Image, Media, ModalityError, Reply, Request, Text

__all__ = ["Codecs", "codecs_of", "draw_images", "embed", "respond", "stream", "write_texts"]

Value = str | Text | Media


@dataclass(frozen=True)
class Codecs:
    """How a model's raw values become arrays and back.

    Args:
        text: tokenizer, or None.
        image: picture codec, or None.
        context: longest text read, in tokens.
        say, end: names of the special tokens around an answer; None where the model has none.
        fill: id that pads a tower's texts to one length.
        start, stop: names of special tokens around a tower's text; None where it has none.
        fixed: pad a tower's texts to ``context`` instead of the longest.
    """

    text: Tokenizer | None = None
    image: VisionCodec | None = None
    context: int = 77
    say: str | None = None
    end: str | None = None
    fill: int = 0
    start: str | None = None
    stop: str | None = None
    fixed: bool = False

    def to_json(self) -> str:
        """For codecs.json; the tokenizer is a file of its own."""
        plain = {k: v for k, v in vars(self).items() if k not in ("text", "image")}
        return json.dumps({**plain, "image": self.image.to_dict() if self.image else None}, indent=1)

    @staticmethod
    def load(folder: str | Path) -> Codecs:
        """Read codecs.json and tokenizer.json of a model's folder."""
        folder = Path(folder)
        if not (folder / "codecs.json").is_file():
            raise CheckpointError(f"{folder} has no codecs.json; give codecs=Codecs(...) to say how values become arrays")
        data = json.loads((folder / "codecs.json").read_text(encoding="utf-8"))
        image = data.pop("image", None)
        tokenizer = folder / "tokenizer.json"
        return Codecs(**data, image=from_dict(image) if image else None, text=Tokenizer.from_file(tokenizer) if tokenizer.is_file() else None)


_KNOWN: WeakKeyDictionary[ModelNet, Codecs] = WeakKeyDictionary()


def codecs_of(model: ModelNet, codecs: Codecs | None = None) -> Codecs:
    """The codecs to use with a model: those given, or those of its folder."""
    if codecs is not None:
        return codecs
    if model.folder is None:
        raise ConfigError("this model was built, not loaded, so it has no codecs; give codecs=Codecs(image=..., text=...)")
    if model not in _KNOWN:
        _KNOWN[model] = Codecs.load(model.folder)
    return _KNOWN[model]


class _Desk:
    """One model with its codecs and packer: turns values into batches."""

    def __init__(self, model: ModelNet, codecs: Codecs | None) -> None:
        self.model, self.spec = model, model.spec
        self.codecs = codecs_of(model, codecs)
        head = self.spec.heads.get("embed")
        media = [m for m in self.spec.reads if m != "text"]
        special = {name: self._special(name) for name in ("say", "end")}
        rope_axes = self.spec.decoder is not None and len(self.spec.decoder.read.rope_axes) > 1
        self.packer = Packer(places={m: self.spec.places(m) for m in media} if self.spec.decoder else {}, row=4096,
                             embed=head.token if head else None, axes=rope_axes, **special)

    def _special(self, name: str) -> int | None:
        token = vars(self.codecs)[name]
        return self.codecs.text.special(token) if token and self.codecs.text else None

    def arrays(self, value: Value) -> Arrays:
        """A value through its codec.

        Raises:
            ModalityError: the model does not read it.
        """
        value = Text(value) if isinstance(value, str) else value
        if value.modality not in self.spec.reads:
            raise ModalityError(f"the model was given {value.modality}, but reads only {', '.join(self.spec.reads)}")
        codec = vars(self.codecs).get(value.modality)
        if codec is None:
            raise ConfigError(f"no codec for {value.modality}; give codecs=Codecs({value.modality}=...)")
        if value.modality == "text":
            return Arrays("text", self.codecs.text.encode(value.text, limit=self.codecs.context))
        return Arrays(value.modality, codec.encode(value))

    def segment(self, values: Sequence[Value], want: str | None = None) -> Segment:
        """Values laid out, ready to be answered in ``want``."""
        parts = [self.arrays(value) for value in values]
        if want == "image":
            head = self.spec.heads["image"]
            parts.append(Arrays("image", torch.zeros(head.channels, head.size, head.size), target=True))
        return self.packer.segment(parts, answer=want == "text")

    def tower_batch(self, values: Sequence[Value]) -> torch.Tensor:
        """Values of one modality, stacked for a tower."""
        arrays = [self.arrays(value) for value in values]
        if arrays[0].modality != "text":
            return torch.stack([item.value for item in arrays])
        around = [[self.codecs.text.special(name)] if name else [] for name in (self.codecs.start, self.codecs.stop)]
        room = self.codecs.context - len(around[0]) - len(around[1])
        rows = [around[0] + list(item.value)[:room] + around[1] for item in arrays]
        length = self.codecs.context if self.codecs.fixed else max(map(len, rows))
        return torch.tensor([row + [self.codecs.fill] * (length - len(row)) for row in rows])


@torch.inference_mode()
def embed(model: ModelNet, values: Sequence[Value | Sequence[Value]], codecs: Codecs | None = None, chunk: int = 128) -> torch.Tensor:
    """Points of values in the model's shared space.

    Args:
        values: each a text, a picture, or (for models that embed through their decoder) a list of them read together.

    Returns:
        (N, O) float32, length one.
    """
    if "embed" not in model.spec.heads:
        raise ModalityError(f"the model has no shared space (no 'embed' head); it writes {', '.join(model.spec.writes)}")
    desk = _Desk(model, codecs)
    groups = [list(value) if isinstance(value, (list, tuple)) else [value] for value in values]
    out: list[torch.Tensor] = []
    if desk.packer.embed is None:
        return _embed_towers(desk, groups)
    for start in range(0, len(groups), chunk):
        segments = [desk.segment(group) for group in groups[start : start + chunk]]
        batch = desk.packer.pack(segments, alone=True)
        index = [r * batch.token_BT.shape[1] + s.embeds[-1] for r, s in enumerate(segments)]
        out.append(model.embedding(model.read(batch), torch.tensor(index)).float())
    return torch.cat(out) if out else torch.zeros(0, model.spec.heads["embed"].outside)


def _embed_towers(desk: _Desk, groups: list[list[Value]]) -> torch.Tensor:
    """Each modality through its tower, back in the order given."""
    values = [Text(group[0]) if isinstance(group[0], str) else group[0] for group in groups]
    if any(len(group) != 1 for group in groups):
        raise ModalityError("this model embeds one value at a time; a list of several needs a model that embeds through its decoder")
    out: list[torch.Tensor | None] = [None] * len(values)
    for modality in MODALITIES:
        places = [i for i, value in enumerate(values) if value.modality == modality]
        for start in range(0, len(places), 64):
            some = places[start : start + 64]
            for i, row in zip(some, desk.model.tower(modality, desk.tower_batch([values[i] for i in some])).float(), strict=True):
                out[i] = row
    return torch.stack(out)


def write_texts(model: ModelNet, prompts: Sequence[Sequence[Value]], max_tokens: int = 32, codecs: Codecs | None = None,
                chunk: int = 64) -> list[str]:
    """Answer many prompts in text, greedily, ``chunk`` at a time."""
    desk = _Desk(model, codecs)
    _check_want(model, "text")
    out: list[str] = []
    for start in range(0, len(prompts), chunk):
        batch = desk.packer.pack([desk.segment(p, "text") for p in prompts[start : start + chunk]], alone=True)
        ids = continue_text(model, batch, Sampling(max_tokens=max_tokens, end=desk.packer.end))
        out += [desk.codecs.text.decode(row) for row in ids]
    return out


def draw_images(model: ModelNet, prompts: Sequence[Sequence[Value]], solver: Solver | None = None, codecs: Codecs | None = None,
                chunk: int = 32) -> list[Image]:
    """Draw many prompts, ``chunk`` at a time; prompt i starts from the noise of seed + i whatever the chunk."""
    desk = _Desk(model, codecs)
    _check_want(model, "image")
    solver = solver or Solver()
    out: list[Image] = []
    for start in range(0, len(prompts), chunk):
        some = prompts[start : start + chunk]
        batch = desk.packer.pack([desk.segment(p, "image") for p in some], alone=True)
        pictures = draw(model, batch, replace(solver, seed=solver.seed + start))
        out += [desk.codecs.image.decode(picture) for picture in pictures]
    return out


def respond(model: ModelNet, request: Request, codecs: Codecs | None = None) -> Reply:
    """Answer a request.

    Raises:
        ModalityError: something given cannot be read, or something wanted cannot be written; refused before any work.
    """
    parts, seconds, start = [], {}, time.perf_counter()
    for delta in stream(model, request, codecs):
        if delta.kind == "part":
            parts.append(delta.value)
            seconds[delta.value.modality] = time.perf_counter() - start
            start = time.perf_counter()
    return Reply(tuple(parts), seconds)


def stream(model: ModelNet, request: Request, codecs: Codecs | None = None) -> Iterator[Delta]:
    """The same as :func:`respond`, as it happens: pieces of text, denoising steps with previews, finished parts."""
    for want in request.want:
        _check_want(model, want)
    desk = _Desk(model, codecs)
    values = [value for message in request.messages for value in message.parts]
    if not values:
        raise ConfigError("the request is empty; give it a text or a picture")
    for want in request.want:
        batch = desk.packer.pack([desk.segment(values, want)], alone=True)
        yield from _text(desk, batch, request) if want == "text" else _image(desk, batch, request)


def _check_want(model: ModelNet, want: str) -> None:
    can = [name for name in model.spec.writes if name != "embed"]
    if want not in MODALITIES:
        raise ModalityError(f"{want!r} is no modality; wanted one of {', '.join(MODALITIES)}")
    if want not in can:
        raise ModalityError(f"the model cannot write {want}; it writes {', '.join(can) or 'nothing, it only embeds'}")


def _text(desk: _Desk, batch: Batch, request: Request) -> Iterator[Delta]:
    sampling = Sampling(max_tokens=request.max_tokens, temperature=request.temperature, end=desk.packer.end, seed=request.seed)
    decoder, pieces = StreamDecoder(desk.codecs.text), []
    for done, token_B in enumerate(stream_text(desk.model, batch, sampling)):
        piece = decoder.push(int(token_B[0]))
        pieces.append(piece)
        if piece:
            yield Delta("text", piece, done + 1, request.max_tokens)
    rest = decoder.finish()
    if rest:
        yield Delta("text", rest, len(pieces), request.max_tokens)
    yield Delta("part", Text("".join(pieces) + rest), len(pieces), len(pieces))


def _image(desk: _Desk, batch: Batch, request: Request) -> Iterator[Delta]:
    solver = Solver(steps=request.steps, guidance=request.guidance, seed=request.seed)
    for done, picture in enumerate(stream_draw(desk.model, batch, solver), start=1):
        made = desk.codecs.image.decode(picture[0])
        if done < solver.steps:
            yield Delta("step", made, done, solver.steps)
    name = desk.model.folder.name if desk.model.folder else "built"
    info = {"model": name, "seed": request.seed, "steps": request.steps, "guidance": request.guidance}
    yield Delta("part", Image(made.source, info), solver.steps, solver.steps)
