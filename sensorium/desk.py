"""Desk: one model beside its codecs: values and conversations come in, batches that it can read go out.

    a list of values -> arrays -> segment                               models without a chat template, and what is embedded
    messages -> chat template -> ids, media between them -> segment     models with one

A model knows its codecs by the folder it was loaded from: ours say so in ``codecs.json``; published ones by their own files.

What is longer than a model reads is refused, or cut and told of (``TruncationWarning``): never cut without a word.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from sensorium.catalog import find
from sensorium.checkpoint import PUBLISHED, check_codec_settings, read_published
from sensorium.codecs.audio import AudioCodec, sound_length
from sensorium.codecs.chat import ChatTemplate
from sensorium.codecs.clips import FrameStack
from sensorium.codecs.text import LONGEST_TOKEN, Tokenizer
from sensorium.codecs.video import FramesCodec
from sensorium.codecs.vision import VisionCodec
from sensorium.data import Arrays, Packer, Segment
from sensorium.model import ModelNet
from sensorium.spec import Spec, from_dict
from sensorium.types import CheckpointError, ConfigError, Media, MediaError, Message, ModalityError, Patches, Text

__all__ = ["Codecs", "codecs_of", "Desk", "TruncationWarning", "Value", "warn_of_cuts"]

Value = str | Text | Media
_SPECS = ("image", "audio", "video", "voice")


@dataclass(frozen=True)
class Codecs:
    """How a model's raw values become arrays and back.

    Args:
        text: tokenizer, or None.
        image: picture codec, or None; it gives an array, or a list of what the picture becomes with the model's own texts between.
        audio: sound codec, or None.
        voice: codec of what it says, or None.
        towers: tokenizer of each text tower that reads what is to be drawn, for models that draw from a prompt and read nothing else.
        video: codec of moving pictures; None shows a model that reads pictures a few frames of them, evenly apart.
        context: longest text read, in tokens; with a template, of the whole conversation and the answer.
        say, end: names of the special tokens around an answer; None where the model has none.
        ends: further tokens of the vocabulary that end an answer.
        fill: id that pads a tower's texts to one length.
        start, stop: names of special tokens around a text; None where it has none.
        fixed: pad a tower's texts to ``context`` instead of the longest.
        template: how conversations are written; None: one value after the other.
        words: folder or catalog name of the model whose tokenizer this one shares; None has its own.
    """

    text: Tokenizer | None = None
    image: Spec | None = None
    audio: Spec | None = None
    context: int = 77
    say: str | None = None
    end: str | None = None
    ends: tuple[str, ...] = ()
    fill: int = 0
    start: str | None = None
    stop: str | None = None
    fixed: bool = False
    template: ChatTemplate | None = None
    words: str | None = None
    video: Spec | None = None
    voice: Spec | None = None
    towers: dict[str, Tokenizer] = field(default_factory=dict)

    def to_json(self) -> str:
        """For codecs.json; the tokenizer is a file of its own."""
        plain: dict[str, Any] = {k: v for k, v in vars(self).items() if k not in ("text", *_SPECS, "template", "towers")}
        made = {name: vars(self)[name].to_dict() for name in (*_SPECS, "template") if vars(self)[name] is not None}
        return json.dumps({**plain, "image": None, **made}, indent=1)

    @staticmethod
    def load(folder: str | Path) -> Codecs:
        """Read codecs.json and tokenizer.json of a model's folder, or what a published model's files say.

        Raises:
            CheckpointError: the files are missing or broken.
        """
        folder = Path(folder)
        if not (folder / "codecs.json").is_file():
            if (folder / "model.json").is_file():
                raise CheckpointError(f"{folder} has no codecs.json; give codecs=Codecs(...) to say how values become arrays")
            return _published(folder)
        data = json.loads((folder / "codecs.json").read_text(encoding="utf-8"))
        made = {name: from_dict(data.pop(name)) if data.get(name) else data.pop(name, None) for name in _SPECS}
        template = data.pop("template", None)
        tokenizer = folder / "tokenizer.json"
        text = Tokenizer.from_file(tokenizer) if tokenizer.is_file() else Codecs.load(find(data["words"])).text if data.get("words") else None
        return Codecs(**{**data, "ends": tuple(data.get("ends", ()))}, **made, template=ChatTemplate(**template) if template else None, text=text)


def _published(path: Path) -> Codecs:
    """What a published model's own files say."""
    files = read_published(path)
    layout = PUBLISHED.get(files.config.get("model_type", ""))
    check_codec_settings(files, layout)
    if files.tokenizer is None and layout is not None and not layout.spec(files.config).encoders:
        return Codecs(image=layout.image(files.config, files.pictures))
    towers = {name: Tokenizer.from_text(text, f"{name} of {path.name}") for name, text in files.towers_maker().items()}
    if towers:
        spec = PUBLISHED[files.config["_class_name"]].spec(files.config)
        picture = VisionCodec(size=_side(spec), fit="crop")
        return Codecs(towers=towers, image=picture, video=FrameStack(picture))
    if files.tokenizer is None:
        raise CheckpointError(f"{path} has no tokenizer; give codecs=Codecs(...) to say how values become arrays")
    text = Tokenizer.from_text(files.tokenizer, f"the tokenizer of {path.name}")
    special = {f"{name}_token": token for name, token in files.special.items()}
    template = ChatTemplate(files.template, special, _marks(files.config, text, files.template)) if files.template else None
    sizes = {**files.config.get("text_config", {}), **files.config}
    context = next((sizes[name] for name in ("max_position_embeddings", "max_target_positions") if name in sizes), 2048)
    context = min(context, files.settings.get("sentence_bert_config.json", {}).get("max_seq_length") or context)  # what was trained, not what fits
    said = [text.name(end) if isinstance(end, int) else end for end in files.ends]
    ends = [name for name in dict.fromkeys([template.end(text) if template else None, files.special.get("eos"), *said]) if name in text.specials]
    ends += [name for name in dict.fromkeys(said) if name and name not in ends and text.number(name) is not None]  # any token may end an answer
    start, stop = text.around
    fill = text.specials.get(files.special.get("pad", ""), 0)
    image = layout.image(files.config, files.pictures) if layout is not None and layout.image is not None and files.pictures else None
    video = layout.video(files.config, files.videos or files.pictures) if layout is not None and layout.video is not None and files.pictures else None
    return Codecs(text=text, context=context, end=ends[0] if ends and ends[0] in text.specials else None,
                  ends=tuple(ends[ends[0] in text.specials :]) if ends else (), fill=fill, start=start, stop=stop,
                  template=template, image=image, video=video)


def _side(spec: Any) -> int:
    """Pixels on a side of what is drawn through an autoencoder."""
    head = spec.heads.get("image") or spec.heads["video"]
    return (vars(head).get("size") or head.height) * spec.encoders["pixels"].shrinks


def _marks(config: dict[str, Any], text: Tokenizer, template: str) -> dict[str, str]:
    """Modality -> the token that stands for a medium in a published model's conversations: the one that its settings name, or the plain one where
    the template writes that (and the published program then puts the other in its place)."""
    names = {number: name for name, number in text.added.items()}
    numbers = {m: config.get(f"{m}_token_id", config.get(f"{m}_token_index")) for m in ("image", "audio", "video")}
    marks = {modality: names[number] for modality, number in numbers.items() if number in names}
    return {modality: f"<{modality}>" if name not in template and f"<{modality}>" in template else name for modality, name in marks.items()}


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


class TruncationWarning(UserWarning):
    """Some of what was given is longer than the model reads, and its end was left out."""


def warn_of_cuts(cuts: Sequence[str], stacklevel: int = 3) -> None:
    """Warn of what was cut, if anything was: the first of it, and how much more there is."""
    if cuts:
        more = f", and {len(cuts) - 1} more" if len(cuts) > 1 else ""
        warnings.warn(f"{cuts[0]}{more}; the rest was left out", TruncationWarning, stacklevel=stacklevel)


class Desk:
    """One model with its codecs and packer: turns values into batches.

    Args:
        model: a built or loaded model.
        codecs: None takes those of its folder.
        cut: texts longer than the model reads are cut, as sounds are, rather than refused; ``cuts`` says which were.
    """

    def __init__(self, model: ModelNet, codecs: Codecs | None = None, cut: bool = False) -> None:
        self.model, self.spec, self.cut = model, model.spec, cut
        self.cuts: list[str] = []
        self.codecs = codecs_of(model, codecs)
        head = self.spec.heads.get("embed")
        media = [m for m in self.spec.reads if m != "text"]
        special = {name: self._special(name) for name in ("say", "end")}
        reads = self.spec.decoder is not None and "prompt" not in self.spec.fuse
        rope_axes = reads and len(self.spec.decoder.read.rope_axes) > 1
        self.packer = Packer(places={m: self.spec.places(m) for m in media} if self.spec.decoder else {}, row=max(4096, self.codecs.context),
                             embed=head.token if head else None, axes=rope_axes, **special)

    def _special(self, name: str) -> int | None:
        token = vars(self.codecs)[name]
        return self.codecs.text.special(token) if token and self.codecs.text else None

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """Every id that ends an answer."""
        if self.codecs.text is None:
            return ()
        ends = {name: self.codecs.text.number(name) for name in (self.codecs.end, *self.codecs.ends) if name}
        if lost := [name for name, number in ends.items() if number is None]:
            raise ConfigError(f"the tokenizer has no token {lost[0]!r}, which is said to end an answer")
        return tuple(ends.values())

    def arrays(self, value: Value) -> list[Arrays]:
        """A value through its codec: a medium may come as several, with text between them.

        Raises:
            ModalityError: the model does not read it.
        """
        value = Text(value) if isinstance(value, str) else value
        modality = value.modality
        if modality == "video" and modality not in self.spec.reads and "image" in self.packer.places:
            modality = "image"  # as a few of its frames
        if modality not in self.spec.reads:
            raise ModalityError(f"the model was given {value.modality}, but reads only {', '.join(self.spec.reads)}")
        codec = vars(self.codecs).get(value.modality)
        if codec is None and modality != value.modality and self.codecs.image is not None:
            codec = FramesCodec(self.codecs.image)
        if codec is None:
            raise ConfigError(f"no codec for {value.modality}; give codecs=Codecs({value.modality}=...)")
        if value.modality == "text":
            return [Arrays("text", self._ids(value.text))]
        if isinstance(codec, AudioCodec) and (length_s := sound_length(value)) > codec.frames / 100 + 0.05:
            self.cuts.append(f"a sound of {length_s:.1f} s is given, and the model hears the first {codec.frames / 100:.4g} s")
        made = codec.encode(value)
        return [self._array(modality, piece) for piece in (made if isinstance(made, list) else [made])]

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """Ids that a tower's texts stand between."""
        if self.packer.embed is not None or self.codecs.text is None:
            return [], []
        first, last = ([self.codecs.text.special(name)] if name else [] for name in (self.codecs.start, self.codecs.stop))
        return first, last

    def _ids(self, text: str) -> list[int]:
        """Ids of a text, as many as the model reads."""
        if not self.cut:
            return self.codecs.text.encode(text, limit=self.codecs.context)
        room = self.codecs.context - sum(map(len, self._around))
        ids = self.codecs.text.encode(text[: (room + 1) * LONGEST_TOKEN])
        if len(ids) > room:
            self.cuts.append(f"a text of {len(text):,} characters is given, and the model reads {room} tokens")
        return ids[:room]

    @contextmanager
    def item(self, number: int, total: int, truncate: bool | None = None) -> Iterator[None]:
        """The reading of one item of several: what is wrong with it, or cut of it, is said with its number.

        Args:
            number, total: of the item, from 1, and of them all.
            truncate: False refuses what is longer than the model reads.

        Raises:
            MediaError, ModalityError: as reading it does.
        """
        before = len(self.cuts)
        which = f"item {number} of {total}: " if total > 1 else ""
        try:
            yield
            if truncate is False and len(self.cuts) > before:
                raise MediaError(f"{self.cuts[before]}; shorten it, or let it be cut (truncate=True)")
        except (MediaError, ModalityError) as error:
            raise (type(error)(f"{which}{error}") if which else error) from error
        self.cuts[before:] = [which + cut for cut in self.cuts[before:]]

    def each(self, items: Iterable[Any], read: Callable[[Any], Any], first: int, total: int, truncate: bool | None = None) -> list[Any]:
        """What ``read`` makes of each item, as :meth:`item` says; ``first`` is the number of the first."""
        out = []
        for number, one in enumerate(items, first):
            with self.item(number, total, truncate):
                out.append(read(one))
        return out

    def _array(self, modality: str, piece: Arrays | Patches | torch.Tensor | str) -> Arrays:
        """What a codec gave; a plain text is of the model's own, and may name special tokens."""
        if isinstance(piece, Arrays):
            return piece
        if isinstance(piece, str):
            return Arrays("text", self.codecs.text.encode(piece, special=True, first=False))
        return Arrays(modality, piece)

    def segment(self, values: Sequence[Value], want: str | None = None) -> Segment:
        """Values laid out one after the other, ready to be answered in ``want``."""
        parts = [item for value in values for item in self.arrays(value)]
        if self.codecs.start and want == "text":
            parts.insert(0, Arrays("text", [self.codecs.text.special(self.codecs.start)]))
        if want in ("image", "video"):
            head = self.spec.heads[want]
            length = () if want == "image" else (head.frames,)
            parts.append(Arrays(want, torch.zeros(head.channels, *length, head.size, head.size), target=True))
        return self.packer.segment(parts, answer=want == "text")

    def prompt(self, messages: Sequence[Message], want: str) -> Segment:
        """A conversation laid out by the model's template, if it has one, ready to be answered in ``want``.

        Raises:
            MediaError: with a template, longer than the model's context.
        """
        if self.codecs.template is None or want != "text":
            return self.segment([value for message in messages for value in message.parts], want)
        pieces = self.codecs.template.pieces(self.codecs.text, messages)
        laid = [self.arrays(piece) if isinstance(piece, Media) else [Arrays("text", piece)] for piece in pieces]
        segment = self.packer.segment([item for items in laid for item in items])
        if len(segment) >= self.codecs.context:
            raise MediaError(f"the conversation takes {len(segment):,} tokens, and the model reads {self.codecs.context:,} with its answer; "
                             "shorten it or leave out the oldest messages")
        return segment

    def lesson(self, messages: Sequence[Message], answer: str) -> Segment:
        """A conversation laid out as :meth:`prompt` does, and the answer that is to be learned."""
        return self.packer.answered(self.prompt(messages, "text"), self.codecs.text.encode(answer))

    def tower_batches(self, values: Sequence[Value], items: int = 64, places: int = 4096, spare: float = 0.1, numbers: Sequence[int] = (),
                      total: int = 1, truncate: bool | None = None) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Values of one modality, stacked for a tower: which they are, and their batch. Texts go by length, so that little is padding.

        Args:
            items: pictures or sounds in a batch.
            places: most ids in a batch of texts; a longer text goes alone.
            spare: largest share of a batch that may be padding.
            numbers, total, truncate: of the values among all items, as :meth:`item` takes them.
        """
        def array(index: int) -> Any:
            with self.item(numbers[index] if numbers else index + 1, total, truncate):
                return self.arrays(values[index])[0].value

        media = [value for value in values if isinstance(value, Media)]
        for start in range(0, len(media), items):
            some = list(range(start, min(start + items, len(media))))
            yield some, torch.stack([array(index) for index in some])
        if media or not values:
            return
        rows = [[*self._around[0], *array(index), *self._around[1]] for index in range(len(values))]
        waiting = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        while waiting:
            length = self.codecs.context if self.codecs.fixed else max(1, len(rows[waiting[0]]))
            count, real = 0, 0
            for i in waiting:
                real += len(rows[i])
                full = length * (count + 1)
                if count and (full > places or (not self.codecs.fixed and full - real > spare * full)):
                    break
                count += 1
            some, waiting = waiting[:count], waiting[count:]
            yield some, torch.tensor([rows[i] + [self.codecs.fill] * (length - len(rows[i])) for i in some])
