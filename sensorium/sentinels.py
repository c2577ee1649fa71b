"""Alarms a training raises by itself, and the test whether a model uses what it is given.

    collapse        contrastive loss pinned at ln(batch)
    learns nothing  cross-entropy flat at ln(vocabulary)
    broken          a loss that is exactly 0, or not a number
    never stops     no target text ends with the end token
    ignored         a loss does not rise when an input modality is blanked or shuffled
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich.console import Console

from sensorium.model import ModelNet
from sensorium.types import MODALITIES, Batch, Patches, Written

__all__ = ["modality_use", "ModalityUse", "Sentinels"]


@dataclass(frozen=True)
class ModalityUse:
    """How much each loss rises when a modality is taken away.

    Args:
        losses: name -> loss as it is.
        rises: "modality/way" -> loss name -> rise; ways are "blank" (zeros) and "shuffle" (another sample's).
    """

    losses: dict[str, float]
    rises: dict[str, dict[str, float]]

    def __str__(self) -> str:
        first = "  ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        rest = "".join(f"\n  without {way}: " + "  ".join(f"{n} {v:+.4f}" for n, v in rise.items()) for way, rise in self.rises.items())
        return first + rest

    def ignored(self, least: float = 0.005) -> list[str]:
        """Modalities that no loss misses, by either way, in relative terms."""
        out = []
        for modality in sorted({way.split("/")[0] for way in self.rises}):
            best = max((rise / max(abs(self.losses[name]), 1e-6) for way, rises in self.rises.items()
                        if way.startswith(modality + "/") for name, rise in rises.items()), default=0.0)
            if best < least:
                out.append(modality)
        return out


def _without(batch: Batch, modality: str, way: str) -> Batch:
    """The batch with one modality's inputs blanked, or given to other samples."""
    if modality in batch.media:
        value = batch.media[modality]
        raw = value.value_PN if isinstance(value, Patches) else value
        changed = torch.zeros_like(raw) if way == "blank" else raw.roll(1 if raw is value else len(raw) // 2, 0)
        batch = replace(batch, media={**batch.media, modality: changed if raw is value else replace(value, value_PN=changed)})
    if modality == "text" and batch.token_BT is not None and way == "blank":
        context = (batch.media_BT == 0) & (batch.label_BT < 0)
        batch = replace(batch, token_BT=torch.where(context & (batch.token_BT > 3), 0, batch.token_BT))
    if modality == "text" and way == "shuffle":
        batch = replace(batch, written={name: _rolled(item) for name, item in batch.written.items()})
    pair = batch.pairs.get(modality)
    if pair is not None and pair.dim() > 1:
        changed = torch.zeros_like(pair) if way == "blank" else pair.roll(1, 0)
        batch = replace(batch, pairs={**batch.pairs, modality: changed})
    return batch


def _rolled(item: Written) -> Written:
    """Each item to be written reads another item's context."""
    return replace(item, value_LCHW=item.value_LCHW.roll(1, 0), label_L=item.label_L.roll(-1, 0))


@torch.no_grad()
def modality_use(model: ModelNet, batches: Sequence[Batch], seed: int = 0) -> ModalityUse:
    """Losses on ``batches``, and how they rise without each modality, with the same noise throughout."""
    given = {m for b in batches for m in (*b.media, *b.pairs)} | {"text" for b in batches if b.token_BT is not None}
    modalities = [m for m in MODALITIES if m in given]  # classes are no modality

    def mean(change: Any) -> dict[str, float]:
        rows = [model.losses(change(b), torch.Generator().manual_seed(seed + i)) for i, b in enumerate(batches)]
        return {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]}

    losses = mean(lambda b: b)
    rises = {}
    for modality in modalities:
        for way in ("blank", "shuffle"):
            changed = mean(lambda b, m=modality, w=way: _without(b, m, w))
            rises[f"{modality}/{way}"] = {name: changed[name] - value for name, value in losses.items()}
    return ModalityUse(losses, rises)


class Sentinels:
    """Watches a run and says, once each, what looks wrong."""

    def __init__(self, run: Any, console: Console) -> None:
        self.run, self.console = run, console
        self.raised: dict[str, int] = {}
        self._recent: dict[str, list[float]] = {}
        self._pairs = 0
        self._checked_end = False

    def raise_alarm(self, name: str, step: int, sentence: str) -> None:
        """Print an alarm the first time it is raised."""
        if name not in self.raised:
            self.raised[name] = step
            self.console.print(f"[bold red]ALARM[/] at step {step}: {sentence}", highlight=False)

    def watch(self, step: int, losses: dict[str, float], norm: float) -> None:
        """Look at one step's losses."""
        for name, value in losses.items():
            if not math.isfinite(value) or not math.isfinite(norm):
                self.raise_alarm(f"broken/{name}", step, f"{name} loss is {value}, gradient norm {norm}; lower the rate or look at the data")
            elif value == 0.0:
                self.raise_alarm(f"zero/{name}", step, f"{name} loss is exactly 0; are there any labels?")
            recent = self._recent.setdefault(name, [])
            recent.append(value)
            del recent[:-100]
        if step and step % 100 == 99:
            self._flat(step)

    def _flat(self, step: int) -> None:
        batch = self.run.batch(step)
        pair = next(iter(batch.pairs.values()), None)
        if pair is not None and "contrastive" in self._recent:
            self._pinned("contrastive", step, math.log(len(pair)), "ln(batch): every pair looks alike (collapse)")
        if "next_token" in self._recent:
            vocab = self.run.model.heads["text"].vocab
            self._pinned("next_token", step, math.log(vocab), "ln(vocabulary): nothing is learned")

    def _pinned(self, name: str, step: int, level: float, meaning: str) -> None:
        recent = self._recent[name]
        mean = sum(recent) / len(recent)
        if abs(mean - level) < 0.02 * level:
            self.raise_alarm(f"flat/{name}", step, f"{name} loss has stayed at {mean:.3f}, which is {meaning}; check pairs, rate and masks")

    def check_end(self, batch: Batch, end: int) -> None:
        """The end token must be among the labels, or answers never stop."""
        if batch.label_BT is not None and (batch.label_BT >= 0).any() and not (batch.label_BT == end).any():
            self.raise_alarm("end", 0, f"no target text ends with the end token ({end}); answers would never stop")

    def judge(self, use: ModalityUse) -> None:
        """Look at a validation."""
        for modality in use.ignored():
            self.raise_alarm(f"ignored/{modality}", -1, f"no loss rises without {modality}: the model ignores it")
