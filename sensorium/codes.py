"""Codes, one after the other: a decoder writes a picture as it writes words.

Letters: L pictures, P places, V codes.

    prompt, read -> scores of the first code -> choose -> read it -> scores of the next -> ... -> pixels
    guidance: scores with the prompt, away from scores without it

Source: 2012.09841; guidance of codes 2203.13131, section 3.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from sensorium.generate import Sampling, choose
from sensorium.layers.cache import Cache
from sensorium.model import ModelNet
from sensorium.types import Batch

__all__ = ["draw_codes", "stream_codes"]


@torch.inference_mode()
def stream_codes(model: ModelNet, batch: Batch, sampling: Sampling, guidance: float = 5.0, modality: str = "image") -> Iterator[torch.Tensor]:
    """As :func:`draw_codes`, a code of every picture at a time: yields (L,)."""
    written, head = batch.written[modality], model.spec.heads[modality]
    generators = sampling.generators(len(written.row_L))
    prompts, scores = [batch], []
    if guidance != 1.0 and head.blank is not None:
        said = torch.isin(batch.token_BT, torch.tensor(head.kept, device=batch.token_BT.device))
        prompts.append(replace(batch, token_BT=torch.where(said, batch.token_BT, head.blank)))
    caches = []
    for prompt in prompts:
        cache = Cache()
        state_BTD = model.read(prompt, cache)
        caches.append(cache.rows(written.row_L))
        scores.append(model.heads[modality](state_BTD.flatten(0, 1)[written.state_L][:, None])[:, 0])
    for done in range(head.side**2):
        score_LV = scores[0] if len(scores) == 1 else scores[1] + guidance * (scores[0] - scores[1])
        code_L = choose(score_LV, sampling, generators)
        yield code_L
        if done + 1 < head.side**2:
            scores = [model.write_codes(modality, code_L[:, None], written, cache, done=done, keep=True)[:, 0] for cache in caches]


def draw_codes(model: ModelNet, batch: Batch, sampling: Sampling | None = None, guidance: float = 5.0, modality: str = "image") -> torch.Tensor:
    """Write the batch's pictures as codes.

    Args:
        batch: prompts and, in ``written``, where pictures follow them; the values there are not looked at.
        sampling: how codes are chosen; its length and ends say nothing here.
        guidance: 1 is none; higher follows the prompt more.

    Returns:
        int64 (L, P), row by row; ``model.heads[modality].latents`` and ``model.heads["pixels"]`` make pixels of them.
    """
    return torch.stack(list(stream_codes(model, batch, sampling or Sampling(temperature=1.0), guidance, modality)), dim=1)
