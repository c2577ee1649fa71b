"""Pictures by next-code prediction: a class, then one code after another, row by row, by a plain Llama decoder (LlamaGen).

    class -> its vector --\\
    codes -> vocabulary ---> Llama decoder, turned by row and column -> next code         codes -> autoencoder -> pixels

Source: 2406.06525; weights FoundationVision/LlamaGen (MIT). Here the class stands at row and column 0, the codes from 1 on; there it is not turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

import sensorium as sn
from sensorium.types import Batch, Layout, Written
from sensorium.zoo.registry import Entry, register

__all__ = ["ar_image", "llamagen_b"]


def ar_image(classes: int, stack: sn.Stack, codes: sn.Codes, widths: tuple[int, ...], inner: int, blocks: int = 2, groups: int = 32) -> sn.Model:
    """A class-conditional writer of codes, and their autoencoder.

    Args:
        classes: one more stands for none, which guidance leads away from.
        stack: the decoder's; its rotary positions have two axes.
        widths, inner, blocks, groups: of the autoencoder.
    """
    sizes = dict(latents=codes.pattern, blocks=blocks, groups=groups, scale=1.0, looks=True, inner=inner, spread=False)
    return sn.Model(
        encoders={"text": sn.Vocabulary(classes + 1, stack.width), "image_codes": sn.Vocabulary(codes.codes, stack.width),
                  "pixels": sn.Compress(widths, **sizes)},
        decoder=sn.Decoder(stack),
        heads={"image": codes, "pixels": sn.Expand(widths, **sizes)},
        objectives=(sn.NextCode(), sn.Reconstruct()))


def _stack(width: int, depth: int, heads: int, hidden: int) -> sn.Stack:
    turned = width // heads // 4
    return sn.Stack(width, depth, heads, hidden=hidden, act="silu", gated=True, bias=False, norm="rms", rope_theta=1e4, rope_axes=(turned, turned),
                    rope_restart=True, rule="causal")


def llamagen_b() -> sn.Model:
    """LlamaGen-B for 256 pixels: 111M parameters, and 72M of autoencoder."""
    codes = sn.Codes(768, codes=16_384, pattern=8, side=16, hidden=None, blank=1000)
    return ar_image(1000, _stack(768, 12, 12, 2048), codes, (128, 128, 256, 256, 512), 256)


def _toy() -> sn.Model:
    return ar_image(10, _stack(32, 2, 4, 48), sn.Codes(32, codes=20, pattern=4, side=4, hidden=None, blank=10), (8, 8), 8, blocks=1, groups=4)


def labelled(classes: Sequence[int], codes_LHW: torch.Tensor) -> Batch:
    """A batch of classes and their pictures' codes, (L, H, W)."""
    token, rows = torch.tensor(classes)[:, None], torch.arange(len(classes))
    zero = torch.zeros_like(token)
    written = Written(codes_LHW[:, None], rows, rows, rows * 0 + 1, rows, torch.full_like(rows, -1))
    layout = Layout(rows[:, None], zero, zero, torch.zeros(len(classes), 1, 2, dtype=torch.int64))
    return Batch(token_BT=token, media_BT=zero, layout=layout, written={"image": written}, samples=len(classes))


def _drawn(samples: Sequence[int], alone: bool = False) -> Batch:
    """A toy batch; sample ``i`` is always the same."""
    codes = torch.stack([torch.randint(0, 20, (4, 4), generator=torch.Generator().manual_seed(number)) for number in samples])
    pixels = torch.stack([torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(200 + number)) * 2 - 1 for number in samples])
    return replace(labelled([number % 10 for number in samples], codes), media={"pixels": pixels})


register(Entry(name="ar_image", full=llamagen_b, toy=_toy, batch=_drawn, parameters=183_000_000, rounded=0.02,
               source="LlamaGen-B, 2406.06525, tables 1 and 3; FoundationVision/LlamaGen, MIT"))
