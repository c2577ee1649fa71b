"""Encoders: arrays or token ids in, features (B, P, D) out.

Letters: B batch, C channels, H W pixels, P patches, T length, M mel bins, F frames, D width.

    VisionEncoder    pixels -> patches -> transformer          CLIP, SigLIP, LLaVA, Flamingo
    MobileEncoder    pixels -> light convolutions              EfficientNet-Lite, nano
    AudioEncoder     log-mel -> convolutions -> transformer    Whisper
    TextEncoder      ids -> embeddings + places -> transformer CLIP, SigLIP, BERT
    Vocabulary       ids -> embeddings                         what a decoder reads
    LabelEncoder     class -> one embedding                    DiT
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.convolutions import InvertedNet
from sensorium.layers.masks import key_mask
from sensorium.layers.positions import sinusoids
from sensorium.layers.stack import Stack
from sensorium.spec import Spec
from sensorium.types import Features, ShapeError

__all__ = ["AudioEncoder", "LabelEncoder", "MobileEncoder", "TextEncoder", "VisionEncoder", "Vocabulary"]


@dataclass(frozen=True, repr=False)
class VisionEncoder(Spec):
    """A vision transformer.

    Args:
        size, patch: pixels on a side of the picture and of a patch.
        width, depth, heads, hidden, act, eps: of the transformer; hidden None is 4 D.
        channels: of the picture.
        first: put a learned class token before the patches.
        only_first: give the class token alone; the last layer is worked out for nothing else.
        patch_bias: bias of the patch projection.
        pre_norm: normalise before the first block (CLIP).
        final_norm: normalise after the last block; LLaVA reads an inner layer and has none.
        cropped: ``patch`` need not divide ``size``: what is left over on the right and below is not looked at (SigLIP So400m at 384).

    Source: ViT (2010.11929); CLIP (2103.00020); SigLIP (2303.15343).
    """

    _: KW_ONLY
    size: int
    patch: int
    width: int
    depth: int
    heads: int
    hidden: int | None = None
    act: str = "quick_gelu"
    eps: float = 1e-5
    channels: int = 3
    first: bool = True
    only_first: bool = False
    patch_bias: bool = False
    pre_norm: bool = True
    final_norm: bool = True
    cropped: bool = False

    @property
    def places(self) -> int:
        """Positions inside: the patches, and the class token."""
        return (self.size // self.patch) ** 2 + int(self.first)

    @property
    def patches(self) -> int:
        """Positions in the output."""
        return 1 if self.only_first else self.places

    @property
    def stack(self) -> Stack:
        """The transformer inside."""
        return Stack(self.width, self.depth, self.heads, hidden=self.hidden, act=self.act, eps=self.eps, final_norm=self.final_norm)

    def check(self) -> list[str]:
        fits = self.size % self.patch == 0 or self.cropped and self.size > self.patch
        problems = [] if fits else [f"size {self.size} does not divide into patches of {self.patch}"]
        return problems + (["only_first wants a class token; set first=True"] if self.only_first and not self.first else [])

    def build(self) -> VisionEncoderNet:
        return VisionEncoderNet(self)


class VisionEncoderNet(nn.Module):
    """The module of :class:`VisionEncoder`."""

    def __init__(self, spec: VisionEncoder) -> None:
        super().__init__()
        self.spec = spec
        self.patch = nn.Conv2d(spec.channels, spec.width, spec.patch, spec.patch, bias=spec.patch_bias)
        self.first = nn.Parameter(torch.randn(spec.width) * spec.width**-0.5) if spec.first else None
        self.position = nn.Parameter(torch.randn(spec.places, spec.width) * spec.width**-0.5)
        self.pre_norm = nn.LayerNorm(spec.width, eps=spec.eps) if spec.pre_norm else nn.Identity()
        self.stack = spec.stack.build()

    def forward(self, image_BCHW: torch.Tensor) -> Features:
        """Encode pictures of the spec's size."""
        wanted = (self.spec.channels, self.spec.size, self.spec.size)
        _check_pixels(image_BCHW, wanted)
        x_BPD = self.patch(image_BCHW).flatten(2).transpose(1, 2)
        if self.first is not None:
            x_BPD = torch.cat([self.first.expand(len(x_BPD), 1, -1), x_BPD], dim=1)
        return Features(self.stack(self.pre_norm(x_BPD + self.position), targets=1 if self.spec.only_first else None))


@dataclass(frozen=True, repr=False)
class MobileEncoder(Spec):
    """A light convolutional network of inverted residuals; the sizes given are those of EfficientNet-Lite0.

    Args:
        size: pixels on a side.
        stem: channels after the first convolution, which halves the picture.
        stages: (expansion, width, blocks, stride of the first block, kernel) of each.
        width: channels after the last convolution.

    Source: EfficientNet (1905.11946), table 1; the Lite variants keep stem and last convolution at their first size.
    """

    _: KW_ONLY
    size: int
    stem: int = 32
    stages: tuple[tuple[int, int, int, int, int], ...] = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
    width: int = 1280
    channels: int = 3

    @property
    def patches(self) -> int:
        """Positions in the output."""
        side = -(-self.size // 2)
        for *_, stride, _ in self.stages:
            side = -(-side // stride)
        return side**2

    def build(self) -> MobileEncoderNet:
        return MobileEncoderNet(self)


class MobileEncoderNet(nn.Module):
    """The module of :class:`MobileEncoder`."""

    def __init__(self, spec: MobileEncoder) -> None:
        super().__init__()
        self.spec = spec
        self.body = InvertedNet(spec.channels, spec.stem, spec.stages, spec.width)

    def forward(self, image_BCHW: torch.Tensor) -> Features:
        """Encode pictures of the spec's size."""
        _check_pixels(image_BCHW, (self.spec.channels, self.spec.size, self.spec.size))
        return Features(self.body(image_BCHW))


@dataclass(frozen=True, repr=False)
class AudioEncoder(Spec):
    """A transformer over the spectrogram of a sound: two convolutions that thin the frames out, and fixed sinusoids as places.

    Args:
        mels: M, mel bins of a frame.
        frames: longest sound; Whisper's is 3,000 frames, a hundred a second.
        width, depth, heads, hidden: of the transformer; keys have no bias.
        strides: of the two convolutions; Whisper halves the frames once.

    Source: Whisper (2212.04356), section 2.2.
    """

    _: KW_ONLY
    mels: int = 80
    frames: int = 3000
    width: int
    depth: int
    heads: int
    hidden: int | None = None
    strides: tuple[int, int] = (1, 2)

    @property
    def thinning(self) -> int:
        """Frames for each position in the output."""
        return self.strides[0] * self.strides[1]

    @property
    def patches(self) -> int:
        """Positions in the output."""
        return self.frames // self.thinning

    @property
    def stack(self) -> Stack:
        """The transformer inside."""
        return Stack(self.width, self.depth, self.heads, hidden=self.hidden, key_bias=False)

    def check(self) -> list[str]:
        odd = self.frames % self.thinning or self.width % 2
        return [f"frames {self.frames} are divided by {self.thinning} and width {self.width} by 2; wanted multiples of these"] if odd else []

    def build(self) -> AudioEncoderNet:
        return AudioEncoderNet(self)


class AudioEncoderNet(nn.Module):
    """The module of :class:`AudioEncoder`."""

    def __init__(self, spec: AudioEncoder) -> None:
        super().__init__()
        self.spec = spec
        self.first = nn.Conv1d(spec.mels, spec.width, 3, stride=spec.strides[0], padding=1)
        self.second = nn.Conv1d(spec.width, spec.width, 3, stride=spec.strides[1], padding=1)
        self.stack = spec.stack.build()

    def forward(self, mel_BMF: torch.Tensor) -> Features:
        """Encode log-mel spectrograms of the spec's number of frames, or fewer."""
        shape = tuple(mel_BMF.shape)
        if len(shape) != 3 or shape[1] != self.spec.mels or not 0 < shape[2] <= self.spec.frames or shape[2] % self.spec.thinning:
            raise ShapeError(f"the audio encoder got {shape}, wanted (B, {self.spec.mels}, F) with F a multiple of {self.spec.thinning} and at "
                             f"most {self.spec.frames}; cut the sound into pieces")
        x_BPD = F.gelu(self.second(F.gelu(self.first(mel_BMF)))).transpose(1, 2)
        cosine, sine = sinusoids(torch.arange(x_BPD.shape[1], device=x_BPD.device), self.spec.width, shift=1).chunk(2, dim=-1)
        return Features(self.stack(x_BPD + torch.cat([sine, cosine], dim=-1).to(x_BPD.dtype)))


@dataclass(frozen=True, repr=False)
class TextEncoder(Spec):
    """A text transformer with learned places.

    Args:
        vocab, context: ids known and longest text.
        width, depth, heads, hidden, act, eps: of the transformer.
        causal: each token sees only what came before (CLIP).
        end: id whose first occurrence is the last token (CLIP); None takes the last place (SigLIP).
        pad: id that fills short texts up and that nobody sees (BERT); None: padding is seen, or stands behind the end.
        kinds: learned kinds of text, of which the first is added to every token (BERT's token types).
        post_norm: normalise the embeddings, and after each half of a layer instead of before (BERT).
        early: features are what the last layer reads, as it reads it, instead of what it gives.
        whole: width of a vector of the whole text: the end token's state after all layers, through a linear one.
    """

    _: KW_ONLY
    vocab: int
    context: int
    width: int
    depth: int
    heads: int
    hidden: int | None = None
    act: str = "quick_gelu"
    eps: float = 1e-5
    causal: bool = True
    end: int | None = None
    pad: int | None = None
    kinds: int = 0
    post_norm: bool = False
    early: bool = False
    whole: int | None = None

    @property
    def stack(self) -> Stack:
        """The transformer inside."""
        return Stack(self.width, self.depth, self.heads, hidden=self.hidden, act=self.act, eps=self.eps,
                     rule="causal" if self.causal else "full", post_norm=self.post_norm, final_norm=not self.post_norm)

    def check(self) -> list[str]:
        return ["pad hides padding from everyone, which causal=True has no need of; set one of them"] if self.causal and self.pad is not None else []

    def build(self) -> TextEncoderNet:
        return TextEncoderNet(self)


class TextEncoderNet(nn.Module):
    """The module of :class:`TextEncoder`."""

    def __init__(self, spec: TextEncoder) -> None:
        super().__init__()
        self.spec = spec
        self.token = nn.Embedding(spec.vocab, spec.width)
        self.position = nn.Parameter(torch.randn(spec.context, spec.width) * 0.01)
        nn.init.normal_(self.token.weight, std=0.02)
        self.kind = nn.Parameter(torch.randn(spec.kinds, spec.width) * 0.01) if spec.kinds else None
        self.norm = nn.LayerNorm(spec.width, eps=spec.eps) if spec.post_norm else nn.Identity()
        self.stack = spec.stack.build()
        self.whole = nn.Linear(spec.width, spec.whole, bias=False) if spec.whole else None

    def forward(self, token_BT: torch.Tensor) -> Features:
        """Encode ids, padded on the right (what stands after the end token is never seen by it)."""
        _check_tokens(token_BT, self.spec.context)
        x_BTD = self.token(token_BT) + self.position[: token_BT.shape[1]]
        if self.kind is not None:
            x_BTD = x_BTD + self.kind[0]
        kept_BT = None if self.spec.pad is None else token_BT != self.spec.pad
        mask_BTS = None if kept_BT is None or bool(kept_BT.all()) else key_mask(kept_BT)
        before = _Before(self.spec.depth - 1) if self.spec.early else None
        x_BTD = self.stack(self.norm(x_BTD), mask_BTS=mask_BTS, enter=before)
        last_B = None if self.spec.end is None else (token_BT == self.spec.end).int().argmax(dim=-1)
        whole_BD = None
        if self.whole is not None:
            whole_BD = self.whole(x_BTD[:, -1] if last_B is None else x_BTD[torch.arange(len(last_B), device=last_B.device), last_B])
        return Features(x_BTD if before is None else before.x_BTD, last_B, kept_BT, whole_BD)


class _Before:
    """Keeps what a layer of a stack reads (``types.Enter``)."""

    def __init__(self, layer: int) -> None:
        self.layer, self.x_BTD = layer, torch.empty(0)

    def enter(self, x_BTD: torch.Tensor, layer: int, memory: Any, middle: bool) -> torch.Tensor:
        """Let it pass."""
        if layer == self.layer and not middle:
            self.x_BTD = x_BTD
        return x_BTD


@dataclass(frozen=True, repr=False)
class Vocabulary(Spec):
    """Token embeddings, as a decoder reads them.

    Args:
        size: ids known.
        width: D.
        std: of the initial weights.
        places: learned places, added to the embeddings; None has none (rotary decoders).
        scale: what the embeddings are multiplied by.
    """

    size: int
    width: int
    std: float = 0.02
    places: int | None = None
    scale: float = 1.0

    def build(self) -> VocabularyNet:
        return VocabularyNet(self)


class VocabularyNet(nn.Module):
    """The module of :class:`Vocabulary`."""

    def __init__(self, spec: Vocabulary) -> None:
        super().__init__()
        self.spec = spec
        self.token = nn.Embedding(spec.size, spec.width)
        nn.init.normal_(self.token.weight, std=spec.std)
        self.position = nn.Parameter(torch.randn(spec.places, spec.width) * spec.std) if spec.places else None

    def forward(self, token_BT: torch.Tensor, position: torch.Tensor | int = 0) -> Features:
        """(B, T) ids -> features; ``position``: the place of each id, (B, T), or of the first."""
        x_BTD = self.token(token_BT) if self.spec.scale == 1 else self.token(token_BT) * self.spec.scale
        if self.position is None:
            return Features(x_BTD)
        if isinstance(position, int):
            position = torch.arange(position, position + token_BT.shape[1], device=token_BT.device)
        if int(position.max()) >= self.spec.places:
            raise ShapeError(f"a text reaches place {int(position.max())}, but the vocabulary has {self.spec.places} places; shorten it")
        return Features(x_BTD + self.position[position])


@dataclass(frozen=True, repr=False)
class LabelEncoder(Spec):
    """One embedding a class, and one more for "no class", which guidance subtracts.

    Args:
        classes: numbered from 0; -1 is "no class".
        width: D.
    """

    classes: int
    width: int

    def build(self) -> LabelEncoderNet:
        return LabelEncoderNet(self)


class LabelEncoderNet(nn.Module):
    """The module of :class:`LabelEncoder`."""

    def __init__(self, spec: LabelEncoder) -> None:
        super().__init__()
        self.spec = spec
        self.label = nn.Embedding(spec.classes + 1, spec.width)
        nn.init.normal_(self.label.weight, std=0.02)

    def forward(self, label_B: torch.Tensor) -> Features:
        """(B,) or (B, 1) classes -> features (B, 1, D)."""
        index = torch.where(label_B < 0, self.spec.classes, label_B)
        return Features(self.label(index.reshape(-1, 1)))


def _check_pixels(image_BCHW: torch.Tensor, wanted: tuple[int, int, int]) -> None:
    if image_BCHW.dim() != 4 or tuple(image_BCHW.shape[1:]) != wanted:
        raise ShapeError(f"the image encoder got {tuple(image_BCHW.shape)}, wanted (B, {', '.join(map(str, wanted))}); "
                         "encode pictures with the model's own codec")


def _check_tokens(token_BT: torch.Tensor, context: int) -> None:
    if token_BT.dim() != 2 or token_BT.shape[1] > context:
        raise ShapeError(f"the text encoder got {tuple(token_BT.shape)}, wanted (B, T) with T <= {context}; shorten the text")
