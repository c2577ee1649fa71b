"""The plain way to train nano: one padded sample a row, both experts over every token, one pass, a dense mask. The naive twin.

    row = [read tokens ... padding | patches being written]
    every layer: both experts work on all tokens, `where` keeps the right one, all tokens attend together

It gives the same losses as ModelNet.losses on the same batch (tests/test_plain.py), and is what bench/run.py races against.
"""

from __future__ import annotations

import torch

from sensorium.layers.attention import attend_naive
from sensorium.layers.masks import visible
from sensorium.model import ModelNet, _writing_layout
from sensorium.types import MODALITIES, Batch, Layout

__all__ = ["plain_losses"]


def plain_losses(model: ModelNet, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The three losses of an any-to-any model on a batch packed with ``alone=True``.

    Args:
        batch: one segment a row.
        generator: of times, noise and dropped conditions, drawn in the same order as ModelNet.losses draws them.
    """
    contrastive, next_token, flow = model.objectives
    x_BTD = model.encoders["text"](batch.token_BT).x_BPD
    pixels = model.aligned("image", batch.media["image"])
    x_BTD = x_BTD.masked_scatter((batch.media_BT == 1 + MODALITIES.index("image"))[..., None], pixels.flatten(0, 1))
    state_BTD = _joint(model, x_BTD, batch.layout, None, None, None)[0]
    embedding = {name: model.embedding(state_BTD, index) for name, index in batch.pairs.items()}
    here = batch.label_BT >= 0
    out = {
        "contrastive": contrastive(embedding["image"], embedding["text"], batch.group_L),
        "next_token": next_token(model.logits(state_BTD[here]), batch.label_BT[here]),
    }
    written = batch.written["image"]
    clean = written.value_LCHW.to(x_BTD.dtype)
    noisy = flow.corrupt(clean, generator)
    known = ~flow.dropped(len(clean), generator)
    head = model.heads["image"]
    condition = model.condition(written, noisy.t_L, model.embedding(state_BTD, written.state_L), known)
    rows = written.row_L
    layout = Layout(batch.layout.segment_BT[rows], batch.layout.position_BT[rows], batch.layout.span_BT[rows], batch.layout.axes_BTA[rows])
    writing = _writing_layout(written, known, head.spec.side)
    patches = _joint(model, x_BTD[rows], layout, head.patches(noisy.x_LCHW), writing, condition)[1]
    out["flow"] = flow(head(patches, noisy.x_LCHW, condition), noisy, clean, head.spec.predict).mean()
    return out


def _joint(model: ModelNet, read: torch.Tensor, layout: Layout, written: torch.Tensor | None, writing: Layout | None,
           condition: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All layers over read tokens and, after them, written ones; both experts see every token and ``where`` keeps one's work."""
    first, second = model.decoder.read, model.decoder.write
    tokens = read.shape[1]
    if written is None:
        mask, places, axes, is_read = visible(layout, layout, first.spec.rule), layout.position_BT, layout.axes_BTA, None
        x, y = read, None
    else:
        both = Layout(*[torch.cat([vars(layout)[k], vars(writing)[k]], 1) for k in ("segment_BT", "position_BT", "span_BT", "axes_BTA")])
        mask, places, axes = visible(both, both, first.spec.rule), both.position_BT, both.axes_BTA
        mask[:, :tokens, tokens:] = False
        mask = mask | torch.eye(mask.shape[1], dtype=torch.bool)
        is_read = (torch.arange(mask.shape[1]) < tokens)[None, :, None, None]
        x = torch.cat([read, read.new_zeros(len(read), written.shape[1], read.shape[2])], 1)
        y = torch.cat([written.new_zeros(len(read), tokens, written.shape[2]), written], 1)
    angles = first.rope.angles(places, axes)
    shared = second.shared(condition) if y is not None else None
    for one, two in zip(first.blocks, second.blocks, strict=True):
        qkv = one.first(x, None, angles)
        if y is not None:
            modulation = two.modulation(shared)
            qkv = tuple(torch.where(is_read, a, b) for a, b in zip(qkv, two.first(y, modulation, angles), strict=True))
        mixed = attend_naive(*qkv, mask)
        x = one.second(x, mixed, None)
        y = two.second(y, mixed, modulation) if y is not None else None
    return first.norm(x)[:, :tokens], None if y is None else second.norm(y)[:, tokens:]
