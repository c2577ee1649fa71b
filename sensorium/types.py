"""What flows through a model: media, samples, requests, replies, packed batches, and the errors.

Axis letters, one meaning each in the whole project: B batch, T target length, S source length, D width, N heads, K kv heads, E head width, C
channels, H W pixels, F frames, P patches, Q queries, V vocabulary, X experts, M mel bins, A position axes, L rows of media, N also values of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch

__all__ = ["assistant", "Audio", "Batch", "CheckpointError", "ConfigError", "Delta", "Enter", "Features", "Image", "Layout", "Media", "MediaError",
           "Message", "MODALITIES", "ModalityError", "Part", "part", "Patches", "Reply", "Request", "Sample", "ShapeError", "Text", "user", "Video",
           "Written"]

MODALITIES = ("text", "image", "audio", "video")


class ConfigError(ValueError):
    """A spec, recipe or option does not make sense. Says what it got, what it wanted and what to do."""


class ShapeError(ValueError):
    """A tensor at a public door has the wrong shape or dtype."""


class ModalityError(ValueError):
    """A model was asked to read or write something it cannot."""


class CheckpointError(ValueError):
    """Weights on disk do not fit the spec, are torn, or are of a refused kind."""


class MediaError(ValueError):
    """A picture, sound, clip or text is missing, broken, or beyond a limit."""


@dataclass(frozen=True)
class Text:
    """A piece of text."""

    text: str
    modality = "text"
    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, eq=False)
class Media:
    """Something to look at or listen to: a path, encoded bytes, or decoded values.

    Args:
        source: path (str or Path), encoded bytes, or a tensor already decoded. Image: float CHW in 0..1.
        info: what made it (model, seed, settings); written beside the picture when it is saved.
    """

    source: str | Path | bytes | torch.Tensor
    info: dict[str, Any] = field(default_factory=dict)
    modality = ""

    def __repr__(self) -> str:
        shown = f"{len(self.source)} bytes" if isinstance(self.source, bytes) else self.source
        return f"{type(self).__name__}({tuple(shown.shape) if isinstance(shown, torch.Tensor) else shown})"


class Image(Media):
    """A still picture; see :class:`Media`. Decoded by ``codecs.vision``."""

    modality = "image"
    def save(self, path: str | Path) -> Path:
        """Write the picture to ``path`` (format by its ending) in one step: the old file or the whole new one, never half."""
        from sensorium.codecs.vision import save_image  # a convenience for readers of a Reply; types itself decodes nothing
        return save_image(self, path)


@dataclass(frozen=True, eq=False, repr=False)
class Audio(Media):
    """A sound; see :class:`Media`. Decoded by ``codecs.audio``.

    Args:
        source: path, encoded bytes, or a float32 mono tensor (T,) in -1..1.
        rate_hz: samples a second of a decoded tensor; files know their own.
        track: of a file with several, its number from 1 or its language; None is the one that the file flags, else the first.
    """

    rate_hz: int | None = None
    track: int | str | None = None
    modality = "audio"
    def save(self, path: str | Path) -> Path:
        """Write the sound to ``path``, as pictures are written."""
        from sensorium.codecs.audio import save_audio
        return save_audio(self, path)


@dataclass(frozen=True, eq=False, repr=False)
class Video(Media):
    """A moving picture; see :class:`Media`. Decoded by ``codecs.films``.

    Args:
        source: path, encoded bytes, or frames already decoded: float (F, C, H, W) in 0..1.
        rate_hz, durations_s: of decoded frames: how many a second, or else how long each is shown, in seconds; files know their own.
    """

    rate_hz: float | None = None
    durations_s: Sequence[float] | None = None
    modality = "video"
    def save(self, path: str | Path) -> Path:
        """Write the video to ``path``, as sounds are written."""
        from sensorium.codecs.clips import save_video
        return save_video(self, path)


@dataclass(frozen=True)
class Part:
    """One piece of a sample: a value, and whether the model reads it (context) or learns to write it (target)."""

    value: Text | Media
    target: bool = False
    role: str | None = None  # "assistant": an answer that is read and not learned

    @property
    def modality(self) -> str:
        return self.value.modality


@dataclass(frozen=True)
class Sample:
    """An ordered list of parts. Captioning, drawing, chat and editing differ only in which parts are targets."""

    parts: tuple[Part, ...]
    extra: dict[str, Any] = field(default_factory=dict)


def part(value: str | Text | Media, target: bool = False) -> Part:
    """Make a part; a plain string is text."""
    return Part(Text(value) if isinstance(value, str) else value, target)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    parts: tuple[Text | Media, ...]


def user(*values: str | Text | Media) -> Message:
    """A message from the person; plain strings are text."""
    return Message("user", tuple(part(value).value for value in values))


def assistant(*values: str | Text | Media) -> Message:
    """A message from the model; plain strings are text."""
    return Message("assistant", tuple(part(value).value for value in values))


@dataclass(frozen=True)
class Request:
    """What is given and what is wanted: the same for Python, the command line and HTTP.

    Args:
        messages: the conversation so far, the last one from the user.
        want: modalities to answer in, in order; what the model cannot write is refused by name.
        seed, max_tokens, temperature: of all chance (the same request and seed give the same reply); longest text, in tokens; 0 is greedy.
        top_k, top_p, min_p: choose among the k likeliest; the likeliest that hold this share; those at least this share of the likeliest.
        repetition, stop: what was said already is this much less likely (1 is off); texts that end the answer, and are not part of it.
        schema: JSON schema that a text answer keeps to.
        steps, guidance: denoising steps for a picture or video, and classifier-free guidance scale, where 1 is none.
        strength, mask: a given picture is changed, not only looked at: 0 leaves it, 1 draws it anew; where the mask is white, or everywhere.
        best_of: a picture or video is drawn so many times, and the one kept that the model finds nearest to the request.
        voice, speed: of a spoken answer; None is the default voice of the answer's language.
        language: of what is heard, as an ISO 639-1 code; None finds out.
    """

    messages: Sequence[Message]
    want: Sequence[str] = ("text",)
    seed: int = 0
    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    stop: Sequence[str] = ()
    schema: dict[str, Any] | None = None
    steps: int = 24
    guidance: float = 3.0
    strength: float | None = None
    mask: Image | None = None
    best_of: int = 1
    voice: str | None = None
    speed: float = 1.0
    language: str | None = None


@dataclass(frozen=True)
class Reply:
    """The answer: one part for each wanted modality, and how long each took in seconds."""

    parts: tuple[Text | Media, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    def _first(self, modality: str) -> Any:
        for value in self.parts:
            if value.modality == modality:
                return value
        had = [value.modality for value in self.parts]
        raise ModalityError(f"the reply holds {had}, not {modality!r}; ask for it with want=[{modality!r}]")

    @property
    def text(self) -> str:
        return self._first("text").text

    @property
    def image(self) -> Image:
        return self._first("image")

    @property
    def audio(self) -> Audio:
        return self._first("audio")

    @property
    def video(self) -> Video:
        return self._first("video")


@dataclass(frozen=True)
class Delta:
    """One event of a streamed reply.

    Args:
        kind: "text" (a piece of text), "audio" (a piece of sound), "step" (one denoising step), "part" (a finished part) or "note" (a sentence).
        value: the piece of text or sound, the preview (float CHW tensor or None), the finished part, or the sentence.
        done, total: progress of this part.
    """

    kind: str
    value: Any = None
    done: int = 0
    total: int = 0


@dataclass(frozen=True, eq=False)
class Patches:
    """Media at their own sizes: the patches of each, one medium after the other.

    Args:
        value_PN: float, the channels * frames * patch * patch values of each patch, in the order that the encoder wants.
        grid_L3: int64 frames, rows and columns of each medium, in patches; three plain numbers are one medium.
        join: neighbours on a side that the model joins into one feature.
        seconds: time between the frames of one medium; None for stills.
    """

    value_PN: torch.Tensor
    grid_L3: torch.Tensor
    join: int = 1
    seconds: float | None = None

    def __post_init__(self) -> None:
        grid_L3 = torch.as_tensor(self.grid_L3, dtype=torch.int64).reshape(-1, 3)
        object.__setattr__(self, "grid_L3", grid_L3)
        if self.value_PN.dim() != 2 or int(grid_L3.prod(dim=-1).sum()) != len(self.value_PN):
            raise ShapeError(f"patches of shape {tuple(self.value_PN.shape)} do not fill grids {grid_L3.tolist()}; wanted (P, N) with P their sum")

    @property
    def places(self) -> int:
        """Features that the model makes of them all."""
        return len(self.value_PN) // self.join**2

    @staticmethod
    def joined(patches: Sequence[Patches]) -> Patches:
        """Several as one."""
        return Patches(torch.cat([p.value_PN for p in patches]), torch.cat([p.grid_L3 for p in patches]), patches[0].join)


@dataclass(frozen=True)
class Features:
    """What an encoder gives: features (B, P, D); each row's last place (None: P - 1); which places are no padding (None: all); the whole, or None."""

    x_BPD: torch.Tensor
    last_B: torch.Tensor | None = None
    kept_BP: torch.Tensor | None = None
    whole_BD: torch.Tensor | None = None


class Enter(Protocol):
    """What lets features into a decoder: asked before each layer (Flamingo's gates) and in its middle, after attention (Whisper's)."""

    def enter(self, x_BTD: torch.Tensor, layer: int, memory: Any, middle: bool) -> torch.Tensor: ...


@dataclass
class Layout:
    """Where each token stands: the facts a mask is made of.

    Args:
        segment_BT: int64 sample number inside the row; attention never crosses it. -1 is padding.
        position_BT: int64 place in the sample, growing; a causal token sees the same and smaller places.
        span_BT: int64, 0 for causal tokens, a positive number shared by one media span (full attention inside).
        axes_BTA: int64 coordinates for multi-axis rotary positions, or None for ``position_BT`` on every axis.
    """

    segment_BT: torch.Tensor
    position_BT: torch.Tensor
    span_BT: torch.Tensor
    axes_BTA: torch.Tensor | None = None


@dataclass
class Written:
    """Media to be written: each item is denoised by itself, reading its own sample's earlier tokens.

    Args:
        value_LCHW: float32 clean values, normalised.
        row_L, segment_L: int64 row of the batch that holds the sample, -1 when nothing is read; and segment in that row.
        position_L: int64 place in the sample.
        state_L: int64 flat index (b * T + t) of the token whose final state conditions the item; -1 for none.
        label_L: int64 class, for models conditioned on a class; -1 for none.
    """

    value_LCHW: torch.Tensor
    row_L: torch.Tensor
    segment_L: torch.Tensor
    position_L: torch.Tensor
    state_L: torch.Tensor
    label_L: torch.Tensor

    def rows(self, index_L: torch.Tensor) -> Written:
        """Items ``index_L``, in that order."""
        return Written(*(vars(self)[f.name][index_L] for f in fields(self)))


@dataclass
class Spelled:
    """The words that each place of a medium should read as, before any decoder looks at it.

    Args:
        id_V: int64 ids of the vocabulary, among which the words are told apart.
        word_LPK: int64, which of ``id_V`` the K words of each place are; -100 for none.
    """

    id_V: torch.Tensor
    word_LPK: torch.Tensor


@dataclass
class Batch:
    """Packed rows of interleaved samples. Rows are independent; within a row, segments are.

    Args:
        token_BT: int64 text ids; 0 where a place is not text.
        media_BT: int64, 0 text, 1 + the index in ``MODALITIES`` where a media feature is spliced in.
        layout: where each token stands.
        label_BT: int64 id to predict at this place (already shifted); -100 for none.
        media: modality -> encoder input stacked over L (media, or the tiles they are cut into), in row-major order of their spans.
        pick: modality -> int64 which of all aligned features stands at each of its places, -1 - k the k-th of ``Splice``; none: each, in order.
        sees_BT: int64 index into ``media`` of the latest medium at or before each token, per row; -1 for none.
        written: modality -> what is to be written.
        pairs: modality, or a view of it ("text/answer") -> tower input (LCHW pixels or LT ids), or int64 flat indices of the tokens whose
            state is the embedding; entry i of each modality belongs together.
        group_L: int64 identity of each pair; equal identities are never negatives of each other.
        class_L: int64 class of each item of ``pairs``, for models that tell classes apart.
        spelled: modality -> words that the places of its ``media`` should read as.
        said: modality -> int64 (L, U) phonemes that its ``media`` say, in order, filled up with 0.
        next_B: int64 coordinate of what follows each row, where ``layout`` has coordinates.
        samples: how many samples are packed here.
    """

    token_BT: torch.Tensor | None = None
    media_BT: torch.Tensor | None = None
    layout: Layout | None = None
    label_BT: torch.Tensor | None = None
    media: dict[str, torch.Tensor | Patches] = field(default_factory=dict)
    pick: dict[str, torch.Tensor] = field(default_factory=dict)
    sees_BT: torch.Tensor | None = None
    written: dict[str, Written] = field(default_factory=dict)
    pairs: dict[str, torch.Tensor] = field(default_factory=dict)
    group_L: torch.Tensor | None = None
    class_L: torch.Tensor | None = None
    spelled: dict[str, Spelled] = field(default_factory=dict)
    said: dict[str, torch.Tensor] = field(default_factory=dict)
    next_B: torch.Tensor | None = None
    samples: int = 0

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return _move(self, device)


def _move(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (Batch, Layout, Patches, Spelled, Written)):
        return replace(value, **{f.name: _move(vars(value)[f.name], device) for f in fields(value)})
    return {key: _move(item, device) for key, item in value.items()} if isinstance(value, dict) else value
