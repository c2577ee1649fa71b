"""Losses: what each objective of a model needs of it and of a batch. A new objective is one entry of ``LOSSES``.

Letters: B batch, T length, N positions, L media, V vocabulary.

    batch -> the model reads it once -> each objective's loss, or None where the batch has nothing for it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from sensorium.gan import Adversarial
from sensorium.heads_codes import Codes
from sensorium.layers.cache import Cache
from sensorium.layers.experts import rebalance, watch_routing
from sensorium.objectives import Ahead, Balance, Classify, Contrastive, NextCode, NextToken
from sensorium.objectives_ctc import Ctc
from sensorium.objectives_denoise import Denoise, FlowMatching
from sensorium.objectives_pixels import Reconstruct
from sensorium.objectives_spell import Spell
from sensorium.objectives_voice import Speaking
from sensorium.spec import Spec
from sensorium.types import Batch

__all__ = ["loss_names", "LOSSES", "losses"]


@dataclass(eq=False)
class _Step:
    """A batch that has been read: states of its tokens, what was remembered of them, and what the routers chose."""

    model: Any
    batch: Batch
    generator: torch.Generator | None
    state: torch.Tensor | None
    cache: Cache | None
    routed: list[Any]
    encoded: dict[str, torch.Tensor]

    @cached_property
    def made(self) -> torch.Tensor:
        """As many pictures as the batch holds, made from noise; both players see the same."""
        real = self.batch.written["image"].value_LCHW
        noise = torch.randn(len(real), self.model.spec.decoder.noise, generator=self.generator)
        return self.model.imagine(noise.to(self.model.device, self.model.dtype))


def _contrastive(objective: Any, step: _Step) -> torch.Tensor | None:
    names = (objective.spec.first, objective.spec.second)
    if any(name not in step.batch.pairs for name in names):
        return None
    first, second = (_embedded(name, step) for name in names)
    with torch.autocast(first.device.type, enabled=False):  # in bfloat16 the scores of near pairs are equal, and it collapses
        return objective(first, second, step.batch.group_L)


def _embedded(name: str, step: _Step) -> torch.Tensor:
    value = step.batch.pairs[name]
    return step.model.embedding(step.state, value) if value.dim() == 1 else step.model.tower(name.partition("/")[0], value)


def _classify(objective: Any, step: _Step) -> torch.Tensor | None:
    if step.batch.class_L is None:
        return None
    return objective(step.model.classify(objective.spec.modality, step.batch.pairs[objective.spec.modality]), step.batch.class_L)


def _spell(objective: Any, step: _Step) -> torch.Tensor | None:
    modality, model = objective.spec.modality, step.model
    if modality not in step.batch.spelled:
        return None
    words = step.batch.spelled[modality]
    features_LPD = model.aligned(modality, step.batch.media[modality])
    with torch.autocast(model.device.type, enabled=False):
        return objective(features_LPD, model.encoders["text"].token.weight[words.id_V], words.word_LPK)


def _ctc(objective: Any, step: _Step) -> torch.Tensor | None:
    said_LU = step.batch.said.get(objective.spec.modality)
    if said_LU is None:
        return None
    with torch.autocast(said_LU.device.type, enabled=False):
        return objective(step.encoded[objective.spec.modality].float(), said_LU)


def _next_token(objective: Any, step: _Step) -> torch.Tensor | None:
    if step.batch.label_BT is None:
        return None
    here = step.batch.label_BT >= 0
    return objective(step.model.logits(step.state[here]), step.batch.label_BT[here])


def _ahead(objective: Any, step: _Step) -> torch.Tensor | None:
    """Of the word piece after the next, where the next one is labelled too and of the same sample."""
    batch, model = step.batch, step.model
    if batch.label_BT is None:
        return None
    segment_BT = batch.layout.segment_BT
    label_BT = torch.full_like(batch.label_BT, -100)
    label_BT[:, :-1] = torch.where(segment_BT[:, 1:] == segment_BT[:, :-1], batch.label_BT[:, 1:], -100)
    states = model.heads["ahead"](step.state, model.encoders["text"](batch.token_BT.roll(-1, 1)).x_BPD, batch.layout)
    here = (label_BT >= 0) & (batch.label_BT >= 0)
    return objective(model.logits(states[here]), label_BT[here])


def _balance(objective: Any, step: _Step) -> torch.Tensor | None:
    """Over every layer with experts; in training the routers' biases move too."""
    if not step.routed:
        return None
    batch = step.batch
    segment_N = batch.layout.segment_BT.flatten() if batch.layout else torch.zeros(batch.token_BT.numel(), dtype=torch.int64)
    kept_N = segment_N >= 0
    sample_N = segment_N[kept_N].unique(return_inverse=True)[1]
    if step.model.training and objective.spec.speed:
        rebalance(step.routed, kept_N, objective.spec.speed)
    return sum(objective(one.score_NX[kept_N], one.index_NK[kept_N], sample_N) for _, one in step.routed)


def _denoise(objective: Any, step: _Step) -> torch.Tensor | None:
    modality, model = objective.spec.modality, step.model
    if modality not in step.batch.written:
        return None
    written = step.batch.written[modality]
    clean = written.value_LCHW.to(model.dtype)
    noisy = objective.corrupt(clean, step.generator)
    known = ~objective.dropped(len(clean), step.generator).to(clean.device)
    joint = None
    if step.state is not None and "embed" in model.heads:
        known = known & (written.state_L >= 0)
        joint = model.embedding(step.state, written.state_L.clamp(min=0))
    rows = step.cache.rows(written.row_L.clamp(min=0)) if step.cache is not None else None
    prediction = model.write(modality, noisy.x_LCHW, noisy.t_L, written, known, rows, joint, model.prompts(step.batch))
    head = model.spec.heads[modality]
    return objective(prediction[:, : head.channels], noisy, clean, head.predict).mean()


def _next_code(objective: Any, step: _Step) -> torch.Tensor | None:
    modality = objective.spec.modality
    if modality not in step.batch.written:
        return None
    written = step.batch.written[modality]
    code_LP = written.value_LCHW.flatten(1)
    return objective(step.model.write_codes(modality, code_LP, written, step.cache.rows(written.row_L), step.state), code_LP)


def _reconstruct(objective: Any, step: _Step) -> torch.Tensor | None:
    """Through the latents, or through the nearest patterns, whose gradient goes straight to the latents."""
    pixels, model = step.batch.media.get("pixels"), step.model
    if pixels is None:
        return None
    pixels, net = pixels.to(model.dtype), model.encoders["pixels"]
    mean, spread = net.moments(pixels)
    if not isinstance(model.spec.heads.get(objective.spec.modality), Codes):
        z = objective.draw(mean, spread, step.generator)
        return objective(pixels, model.heads["pixels"](net.scaled(z)), mean, spread, None)
    codes = model.heads[objective.spec.modality]
    code_LP = codes.nearest(mean)
    pattern = codes.table(code_LP).transpose(1, 2).unflatten(2, mean.shape[2:])
    through = mean + (codes.latents(code_LP) - mean).detach()
    return objective(pixels, model.heads["pixels"](through), mean, None, pattern)


def _adversarial(objective: Any, step: _Step) -> torch.Tensor | None:
    if "image" not in step.batch.written:
        return None
    return objective(step.model.heads["critic"], step.batch.written["image"].value_LCHW.to(step.model.dtype), step.made)


def _speaking(objective: Any, step: _Step) -> torch.Tensor | None:
    if "speech" not in step.batch.said:
        return None
    return objective(step.model.heads["audio"], step.batch.said["speech"], step.batch.media["speech"].to(step.model.dtype), step.generator)


LOSSES: dict[type[Spec], tuple[str, Callable[[Any, _Step], torch.Tensor | None]]] = {
    Contrastive: ("contrastive", _contrastive), Classify: ("classify", _classify), Spell: ("spell", _spell), Ctc: ("ctc", _ctc),
    NextToken: ("next_token", _next_token),
    NextCode: ("next_code", _next_code), Ahead: ("ahead", _ahead), Balance: ("balance", _balance),
    FlowMatching: ("flow", _denoise), Denoise: ("denoise", _denoise),
    Reconstruct: ("reconstruct", _reconstruct), Speaking: ("speaking", _speaking), Adversarial: ("adversarial", _adversarial)}
"""Objective -> its loss's name, and how it is worked out."""


def loss_names(objectives: Sequence[Spec]) -> tuple[str, ...]:
    """The name of each objective's loss; a second one of a kind says between what, or of what, or whose it is."""
    names: list[str] = []
    for objective in objectives:
        name = LOSSES[type(objective)][0]
        if isinstance(objective, Adversarial):
            name = objective.player
        elif name in names and isinstance(objective, Contrastive):
            name += f" {objective.first}-{objective.second}"
        elif name in names and isinstance(objective, FlowMatching | Denoise):
            name += f" {objective.modality}"
        names.append(name)
    return tuple(names)


@contextmanager
def _watch_encoders(model: Any, names: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """While open, the features that these encoders give are kept."""
    found: dict[str, torch.Tensor] = {}
    handles = [model.encoders[name].register_forward_hook(lambda net, given, made, name=name: found.update({name: made.x_BPD}))
               for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def losses(model: Any, batch: Batch, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
    """Each objective's loss, unweighted, by name.

    Args:
        generator: of noise and dropped conditions, on the CPU.
    """
    cache = Cache() if batch.written and batch.token_BT is not None else None
    heard = [objective.spec.modality for objective in model.objectives if isinstance(objective.spec, Ctc)]
    with watch_routing(model) as routed, _watch_encoders(model, heard) as encoded:
        state = model.read(batch, cache) if batch.token_BT is not None else None
    step = _Step(model, batch, generator, state, cache, routed, encoded)
    values = ((name, LOSSES[type(objective.spec)][1](objective, step))
              for name, objective in zip(model.spec.loss_names, model.objectives, strict=True))
    return {name: value for name, value in values if value is not None}
