"""Generate: text, one token at a time, for many prompts at once.

Letters: B batch, T length, V vocabulary.

    prompts (one a row) -> read once, remembered -> choose a token -> read it -> ... until an end token
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sensorium.constrain import Constraint
from sensorium.fused import Reader, open_reader, why_plain
from sensorium.layers.cache import Cache
from sensorium.model import ModelNet
from sensorium.types import Batch, ConfigError, Layout

__all__ = ["choose", "continue_text", "Sampling", "Stops", "stream_ids", "stream_text"]

LIKELY = 256  # candidates looked at first where few usually hold the share that top_p asks for


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen.

    Args:
        max_tokens: longest continuation.
        temperature: 0 takes the likeliest; higher is more varied.
        top_k: choose among the k likeliest; 0 is all.
        top_p: choose among the likeliest that hold this share of the probability.
        min_p: choose among those at least this share as likely as the likeliest.
        repetition: scores of tokens that stand in the prompt or the answer already are divided by this (multiplied below 0); 1 is off.
        end: ids that end a text (one, or several); None runs to ``max_tokens``.
        seed: of the choices; row i has its own stream, from seed + i. A tuple gives each row's.

    Source: top_p 1904.09751, min_p 2407.01082, repetition 1909.05858; in the order in which transformers applies them.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition: float = 1.0
    end: int | tuple[int, ...] | None = None
    seed: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        good = self.max_tokens >= 1 and 0 <= self.temperature < float("inf") and self.top_k >= 0 and 0 < self.top_p <= 1
        if not (good and 0 <= self.min_p <= 1 and 0 < self.repetition < float("inf")):
            raise ConfigError(f"{self}: wanted max_tokens >= 1, temperature >= 0, top_k >= 0, top_p in (0, 1], min_p in [0, 1] and repetition > 0")

    @property
    def ends(self) -> tuple[int, ...]:
        """All ids that end a text."""
        return () if self.end is None else self.end if isinstance(self.end, tuple) else (self.end,)

    def generators(self, rows: int) -> list[torch.Generator]:
        """A stream of random numbers a row, which does not depend on the others."""
        seeds = self.seed if isinstance(self.seed, tuple) else range(self.seed, self.seed + rows)
        if len(seeds) != rows:
            raise ConfigError(f"{len(seeds)} seeds were given for {rows} rows; give one a row, or one number")
        return [torch.Generator().manual_seed(seed) for seed in seeds]


def choose(logits_BV: torch.Tensor, sampling: Sampling, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """One id a row, (B,)."""
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    score_BV = logits_BV.float() / sampling.temperature
    return torch.stack([_draw(score_V, sampling, generator) for score_V, generator in zip(score_BV, generators, strict=True)])


def _draw(score_V: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> torch.Tensor:
    """One row's choice: a random point on the line of its candidates' probabilities, the likeliest first.

    One random number is used whatever the candidates, and what is left out stands at the line's end or nowhere.
    """
    whole = len(score_V)
    index = None
    if sampling.top_k:
        score_V, index = score_V.topk(min(sampling.top_k, whole))
    share_V = score_V.softmax(-1)
    if sampling.top_p < 1:
        count = min(LIKELY, len(share_V))
        share, order = share_V.topk(count)
        if share.sum() < sampling.top_p:
            share, order = share_V.sort(descending=True)
        kept = share.cumsum(-1) - share < sampling.top_p  # the one that crosses the line stays
        share_V, order = share[kept], order[kept]
        index = order if index is None else index[order]
    share_V = share_V.masked_fill(share_V < sampling.min_p * share_V.max(), 0).double().cumsum(-1)
    point = torch.rand((), generator=generator, dtype=torch.float64) * share_V[-1]
    found = torch.searchsorted(share_V, point, right=True).clamp(max=len(share_V) - 1)
    return found if index is None else index[found]


class _Placed:
    """A reader of one batch with media, spans or several position axes: through the model as it stands."""

    looks_BNTS = None

    def __init__(self, model: ModelNet, batch: Batch) -> None:
        self.model, self.batch, self.cache = model, batch, Cache()

    @property
    def length(self) -> int:
        return self.cache.length

    def extend(self, token_BT: torch.Tensor, length_B: torch.Tensor | None = None) -> torch.Tensor:
        if self.batch is not None:
            state_BTD = self.model.read(self.batch, self.cache)
            layout, axes_B, self.batch = self.batch.layout, self.batch.next_B, None
            self.next_B = (layout.segment_BT >= 0).sum(dim=1)
            self.segment_B1, self.axes = layout.segment_BT[:, :1], layout.axes_BTA is not None
            self.ahead_B = torch.zeros_like(self.next_B) if axes_B is None else axes_B - self.next_B  # of coordinates, where media take few
            return self.model.logits(state_BTD[torch.arange(len(state_BTD)), self.next_B - 1])
        position = self.next_B[:, None]
        axes = (position + self.ahead_B[:, None])[..., None].expand(-1, -1, 3) if self.axes else None
        layout = Layout(self.segment_B1, position, torch.zeros_like(position), axes)
        self.next_B = self.next_B + 1
        return self.model.logits(self.model.read(Batch(token_BT=token_BT, media_BT=torch.zeros_like(position), layout=layout), self.cache)[:, -1])

    def rewind(self, length: int) -> int:
        raise ConfigError("what was read with media cannot be forgotten in part; read it again")


@torch.inference_mode()
def stream_ids(reader: Reader, token_BT: torch.Tensor, sampling: Sampling, length_B: torch.Tensor | None = None,
               constraints: Sequence[Constraint] = (), said_BT: torch.Tensor | None = None) -> Iterator[torch.Tensor]:
    """Read on and continue; yields the next id of every row, (B,), -1 where a row has ended.

    Args:
        reader: with what was read before.
        token_BT: what to read first, at least one token a row.
        length_B: tokens of each row, the rest of it padding; None: all.
        constraints: one a row, or none at all.
        said_BT: ids that count as said for ``sampling.repetition``, -1 for none; None: those of ``token_BT``.
    """
    logits_BV = reader.extend(token_BT, length_B)
    ends, generators = torch.tensor(sampling.ends, dtype=torch.int64), sampling.generators(len(token_BT))
    said_BV = _said(_real(token_BT, length_B) if said_BT is None else said_BT, logits_BV.shape[-1]) if sampling.repetition != 1 else None
    alive_B = torch.ones(len(token_BT), dtype=torch.bool)
    for count in range(sampling.max_tokens):
        if said_BV is not None:
            less_BV = torch.where(logits_BV < 0, logits_BV * sampling.repetition, logits_BV / sampling.repetition)
            logits_BV = torch.where(said_BV, less_BV, logits_BV)
        if constraints:
            logits_BV = torch.stack([c.mask(row) if on else row for c, row, on in zip(constraints, logits_BV, alive_B.tolist(), strict=True)])
        token_B = choose(logits_BV, sampling, generators)
        for row, constraint in enumerate(constraints):
            if alive_B[row] and int(token_B[row]) not in sampling.ends:
                token_B[row] = constraint.accept(int(token_B[row]))
        alive_B &= ~torch.isin(token_B, ends)
        if not alive_B.any():
            return
        ended = [constraint.done for constraint, on in zip(constraints, alive_B.tolist(), strict=False) if on]
        if said_BV is not None:
            said_BV[torch.arange(len(token_B)), token_B] = True
        yield torch.where(alive_B, token_B, -1)
        if count + 1 == sampling.max_tokens or ended and all(ended):
            return
        logits_BV = reader.extend(token_B[:, None], None if alive_B.all() else alive_B.long())


def _real(token_BT: torch.Tensor, length_B: torch.Tensor | None) -> torch.Tensor:
    """The ids with -1 for padding."""
    if length_B is None:
        return token_BT
    return token_BT.where(torch.arange(token_BT.shape[1]) < length_B[:, None], -1)


def _said(said_BT: torch.Tensor, vocab: int) -> torch.Tensor:
    """Which ids stand in each row, (B, V) bool."""
    said_BV = torch.zeros(len(said_BT), vocab + 1, dtype=torch.bool)
    return said_BV.scatter(1, said_BT.where(said_BT >= 0, vocab), True)[:, :vocab]


def stream_text(model: ModelNet, batch: Batch, sampling: Sampling, constraints: Sequence[Constraint] = ()) -> Iterator[torch.Tensor]:
    """Continue each row; yields the next id of every row, (B,), -1 where a row has ended.

    Args:
        batch: one prompt a row (``Packer.pack(..., alone=True)``), padded on the right, or rows of equal length without a layout.
        constraints: one a row, or none at all.
    """
    layout = batch.layout
    length_B = None if layout is None else (layout.segment_BT >= 0).sum(dim=1)
    said_BT = _real(batch.token_BT, length_B)
    token_BT, room = batch.token_BT, batch.token_BT.shape[1] + sampling.max_tokens
    in_order = layout is None or layout.axes_BTA is None and (model.decoder.read.spec.rule == "causal" or not bool((layout.span_BT > 0).any()))
    spliced = batch.media and in_order and "splice" in model.fuse and why_plain(model) is None
    if not in_order or batch.media and not spliced:
        reader: Reader = _Placed(model, batch)
    else:
        reader = open_reader(model, rows=len(token_BT), room=room)
    if spliced:
        token_BT, features_ND = model.shown(batch)
        reader.show(features_ND)
    said_BT = said_BT.where(batch.media_BT == 0, -1) if batch.media else said_BT
    return stream_ids(reader, token_BT, sampling, length_B, constraints, said_BT)


def continue_text(model: ModelNet, batch: Batch, sampling: Sampling) -> list[list[int]]:
    """Continue each row to its end; returns the new ids of each row without the end token."""
    out: list[list[int]] = [[] for _ in range(len(batch.token_BT))]
    for token_B in stream_text(model, batch, sampling):
        for ids, token in zip(out, token_B.tolist(), strict=True):
            if token >= 0:
                ids.append(token)
    return out


class Stops:
    """Texts that end an answer: what might be the beginning of one is held back until it is known to be none.

    Args:
        texts: that end it; none of them is given out.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        if isinstance(texts, str) or not all(isinstance(text, str) and text for text in texts):
            raise ConfigError(f"stop={texts!r}: wanted a list of texts, none of them empty")
        self.texts = tuple(texts)
        self.found = False
        self._held = ""

    def push(self, piece: str) -> str:
        """What can be given out now; nothing once a text was found."""
        if self.found:
            return ""
        held = self._held + piece
        places = [(held.find(text) + len(text), held.find(text)) for text in self.texts if text in held]
        if places:
            self.found, self._held = True, ""
            return held[: min(places)[1]]  # the one that was whole first, however the pieces were cut
        keep = max((size for text in self.texts for size in range(1, min(len(text), len(held) + 1)) if held.endswith(text[:size])), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def finish(self) -> str:
        """What was held back, when the answer ends otherwise."""
        held, self._held = self._held, ""
        return held
