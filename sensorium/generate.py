"""Generate: text, one token at a time, for many prompts at once.

Letters: B batch, T length, V vocabulary.

    prompts (one a row) -> read once, remembered -> choose a token -> read it -> ... until the end token
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sensorium.layers.cache import Cache
from sensorium.model import ModelNet
from sensorium.types import Batch, ConfigError, Layout

__all__ = ["choose", "continue_text", "Sampling", "stream_text"]


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Args:
        max_tokens: longest continuation.
        temperature: 0 takes the likeliest; higher is more varied.
        top_k: choose among the k likeliest; 0 is all.
        top_p: choose among the likeliest that hold this share of the probability.
        end: id that ends a text; None runs to ``max_tokens``.
        seed: of the choices.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    end: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(f"{self}: wanted max_tokens >= 1, temperature >= 0, top_k >= 0 and top_p in (0, 1]")


def choose(logits_BV: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """One id a row, (B,)."""
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    score = logits_BV.float() / sampling.temperature
    if sampling.top_k:
        least = score.topk(min(sampling.top_k, score.shape[-1]), dim=-1).values[:, -1:]
        score = score.masked_fill(score < least, float("-inf"))
    if sampling.top_p < 1:
        order = score.sort(dim=-1, descending=True)
        share = order.values.softmax(-1)
        late = share.cumsum(-1) - share >= sampling.top_p  # the one that crosses the line stays
        score = score.masked_fill(torch.zeros_like(late).scatter(-1, order.indices, late), float("-inf"))
    return torch.multinomial(score.softmax(-1), 1, generator=generator)[:, 0]


@torch.inference_mode()
def stream_text(model: ModelNet, batch: Batch, sampling: Sampling) -> Iterator[torch.Tensor]:
    """Continue each row; yields the next id of every row, (B,), -1 where a row has ended.

    Args:
        batch: one prompt a row (``Packer.pack(..., alone=True)``), padded on the right, or rows of equal length without a layout.
    """
    cache = Cache()
    generator = torch.Generator().manual_seed(sampling.seed)
    state_BTD = model.read(batch, cache)
    rows = torch.arange(len(state_BTD))
    if batch.layout is None:
        length_B = torch.full((len(rows),), batch.token_BT.shape[1])
        segment_B1 = torch.zeros(len(rows), 1, dtype=torch.int64)
    else:
        length_B = (batch.layout.segment_BT >= 0).sum(dim=1)
        segment_B1 = batch.layout.segment_BT[:, :1]
    axes = batch.layout is not None and batch.layout.axes_BTA is not None
    last_BD = state_BTD[rows, length_B - 1]
    alive = torch.ones(len(rows), dtype=torch.bool)
    for count in range(sampling.max_tokens):
        token_B = choose(model.logits(last_BD), sampling, generator)
        if sampling.end is not None:
            alive &= token_B != sampling.end
        if not alive.any():
            return
        yield torch.where(alive, token_B, -1)
        if count + 1 == sampling.max_tokens:
            return
        position = (length_B + count)[:, None]
        layout = Layout(segment_B1, position, torch.zeros_like(position), position[..., None].expand(-1, -1, 3) if axes else None)
        step = Batch(token_BT=token_B[:, None], media_BT=torch.zeros_like(position), layout=layout)
        last_BD = model.read(step, cache)[:, -1]


def continue_text(model: ModelNet, batch: Batch, sampling: Sampling) -> list[list[int]]:
    """Continue each row to its end; returns the new ids of each row without the end token."""
    out: list[list[int]] = [[] for _ in range(len(batch.token_BT))]
    for token_B in stream_text(model, batch, sampling):
        for ids, token in zip(out, token_B.tolist(), strict=True):
            if token >= 0:
                ids.append(token)
    return out
