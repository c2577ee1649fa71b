"""Objectives: what is minimised. They see tensors and nothing else.

Letters: L pairs or media, N positions, D width, V vocabulary.

    Contrastive    two views of one thing are close, of different things far (softmax or sigmoid form)
    NextToken      the next word piece
    NextCode       the next code of a picture
    Ahead          the word piece after the next
    Balance        experts are used alike
    Classify       the class of a medium
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Ahead", "Balance", "Classify", "Contrastive", "contrastive_plain", "NextCode", "NextToken"]

MAX_LOG_SCALE = math.log(100.0)


@dataclass(frozen=True, repr=False)
class Contrastive(Spec):
    """Pull pairs together and push others apart.

    Args:
        first, second: the two modalities; what follows a slash tells two views of one modality apart: "text", "text/answer".
        form: "softmax" (CLIP) or "sigmoid" (SigLIP: every pair is its own yes or no).
        temperature: logits start at cosine / temperature; learned.
        bias: first value of the sigmoid form's learned bias; at -10 nearly all pairs start as "no".
        chunk: rows of the score matrix held at once; memory is chunk * L, not L * L.
        weight: in the sum of losses.

    Source: CLIP (2103.00020); SigLIP (2303.15343), algorithm 1.
    """

    first: str
    second: str
    _: KW_ONLY
    form: str = "softmax"
    temperature: float = 0.07
    bias: float = -10.0
    chunk: int = 1024
    weight: float = 1.0

    def check(self) -> list[str]:
        problems = [] if self.form in ("softmax", "sigmoid") else [f"form {self.form!r} is not known; use 'softmax' or 'sigmoid'"]
        if self.temperature <= 0:
            problems.append(f"temperature is {self.temperature}, wanted more than 0")
        return problems

    def build(self) -> ContrastiveNet:
        return ContrastiveNet(self)


class ContrastiveNet(nn.Module):
    """The module of :class:`Contrastive`; it learns the temperature and, in the sigmoid form, the bias."""

    def __init__(self, spec: Contrastive) -> None:
        super().__init__()
        self.spec = spec
        self.log_scale = nn.Parameter(torch.tensor(-math.log(spec.temperature)))
        self.bias = nn.Parameter(torch.tensor(spec.bias)) if spec.form == "sigmoid" else None

    @property
    def scale(self) -> torch.Tensor:
        """What cosines are multiplied by: at most 100 in the softmax form, as in CLIP; SigLIP has no limit."""
        log = self.log_scale.clamp(max=MAX_LOG_SCALE) if self.spec.form == "softmax" else self.log_scale
        return log.exp()

    def forward(self, first_LD: torch.Tensor, second_LD: torch.Tensor, group_L: torch.Tensor | None = None) -> torch.Tensor:
        """Mean loss over the pairs.

        Args:
            first_LD, second_LD: unit vectors; row i of each belong together.
            group_L: int64; rows of equal identity are not each other's negatives.
        """
        if first_LD.shape != second_LD.shape or first_LD.dim() != 2:
            raise ShapeError(f"contrastive got {tuple(first_LD.shape)} and {tuple(second_LD.shape)}, wanted two equal (L, D)")
        bias = self.bias if self.bias is not None else first_LD.new_zeros(())
        softmax = self.spec.form == "softmax"
        return _Chunked.apply(first_LD, second_LD, self.scale, bias, group_L, softmax, self.spec.chunk)


def contrastive_plain(
    first_LD: torch.Tensor, second_LD: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor,
    group_L: torch.Tensor | None = None, softmax: bool = True,
) -> torch.Tensor:
    """The naive twin of the chunked loss: the whole score matrix at once."""
    score = first_LD @ second_LD.T * scale + bias
    here = torch.eye(len(score), dtype=torch.bool, device=score.device)
    hidden = torch.zeros_like(here) if group_L is None else (group_L[:, None] == group_L[None, :]) & ~here
    if softmax:
        score = score.masked_fill(hidden, float("-inf"))
        label = torch.arange(len(score), device=score.device)
        return (F.cross_entropy(score, label) + F.cross_entropy(score.T, label)) / 2
    sign = here.to(score.dtype) * 2 - 1
    return -(F.logsigmoid(sign * score) * ~hidden).sum() / len(score)


class _Chunked(torch.autograd.Function):
    """The contrastive losses a strip of rows at a time; backward makes each strip again."""

    @staticmethod
    def forward(ctx: Any, first, second, scale, bias, group, softmax, chunk):  # noqa: ANN001
        rows, columns = first.new_empty(len(first)), first.new_full((len(first),), float("-inf"))
        total = first.new_zeros(())
        for start, score, hidden in _strips(first, second, scale, bias, group, chunk):
            stop = start + len(score)
            diagonal = score.diagonal(start)
            if softmax:
                score = score.masked_fill(hidden, float("-inf"))
                rows[start:stop] = score.logsumexp(1)
                columns = torch.logaddexp(columns, score.logsumexp(0))
                total = total - diagonal.sum()
            else:
                everyone = F.logsigmoid(-score).masked_fill(hidden, 0.0).sum()
                total = total - everyone - (F.logsigmoid(diagonal) - F.logsigmoid(-diagonal)).sum()
        if softmax:
            total = total + (rows.sum() + columns.sum()) / 2
        ctx.save_for_backward(first, second, scale, bias, rows, columns)
        ctx.rest = (group, softmax, chunk)
        return total / len(first)

    @staticmethod
    def backward(ctx: Any, grad):  # noqa: ANN001
        first, second, scale, bias, rows, columns = ctx.saved_tensors
        group, softmax, chunk = ctx.rest
        grad = grad / len(first)
        grad_first, grad_second = torch.empty_like(first), torch.zeros_like(second)
        grad_scale, grad_bias = torch.zeros_like(scale), torch.zeros_like(bias)
        for start, score, hidden in _strips(first, second, scale, bias, group, chunk):
            stop = start + len(score)
            if softmax:
                slope = ((score - rows[start:stop, None]).exp() + (score - columns).exp()).div_(2).masked_fill_(hidden, 0.0)
                slope.diagonal(start).sub_(1.0)
            else:
                slope = score.sigmoid().masked_fill_(hidden, 0.0)
                slope.diagonal(start).sub_(1.0)
            slope.mul_(grad)
            strip = first[start:stop]
            product = slope @ second
            grad_first[start:stop] = product * scale
            grad_second.addmm_(slope.T, strip)
            grad_scale += (product * strip).sum()
            grad_bias += slope.sum()
        return grad_first, grad_second * scale, grad_scale, grad_bias, None, None, None


def _strips(first, second, scale, bias, group, chunk):  # noqa: ANN001, ANN202
    """Yield (start, scores, which scores do not count) for strips of ``chunk`` rows."""
    for start in range(0, len(first), chunk):
        score = torch.addmm(bias.expand(1), first[start : start + chunk] * scale, second.T)
        if group is None:
            hidden = torch.zeros((), dtype=torch.bool, device=score.device)
        else:
            hidden = group[start : start + chunk, None] == group[None, :]
            hidden.diagonal(start).fill_(False)
        yield start, score, hidden


@dataclass(frozen=True, repr=False)
class NextToken(Spec):
    """Cross-entropy of the next word piece, averaged over the labelled positions.

    Args:
        modality: whose tokens; "text".
        weight: in the sum of losses.
    """

    modality: str = "text"
    _: KW_ONLY
    weight: float = 1.0

    def build(self) -> NextTokenNet:
        return NextTokenNet(self)


class NextTokenNet(nn.Module):
    """The module of :class:`NextToken`."""

    def __init__(self, spec: NextToken) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, logits_NV: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
        """Mean over N labelled positions; zero (with a gradient) when there are none."""
        if len(label_N) == 0:
            return logits_NV.sum() * 0.0
        return F.cross_entropy(logits_NV.float(), label_N)


@dataclass(frozen=True, repr=False)
class NextCode(Spec):
    """Every code of a picture from those before it, row by row, and from what was read.

    Args:
        modality: what is written.
        weight: in the sum of losses.

    Source: 2012.09841; LlamaGen 2406.06525, section 2.2.
    """

    modality: str = "image"
    _: KW_ONLY
    weight: float = 1.0

    def build(self) -> NextCodeNet:
        return NextCodeNet(self)


class NextCodeNet(nn.Module):
    """The module of :class:`NextCode`."""

    def __init__(self, spec: NextCode) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, score_LPV: torch.Tensor, code_LP: torch.Tensor) -> torch.Tensor:
        """Mean over all places."""
        return F.cross_entropy(score_LPV.flatten(0, 1).float(), code_LP.flatten())


@dataclass(frozen=True, repr=False)
class Classify(Spec):
    """Cross-entropy of the class.

    Args:
        modality: what is told apart.
        weight: in the sum of losses.
    """

    modality: str = "image"
    _: KW_ONLY
    weight: float = 1.0

    def build(self) -> ClassifyNet:
        return ClassifyNet(self)


class ClassifyNet(nn.Module):
    """The module of :class:`Classify`."""

    def __init__(self, spec: Classify) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, score_LV: torch.Tensor, class_L: torch.Tensor) -> torch.Tensor:
        """Mean over L media, of scores for each of V classes."""
        return F.cross_entropy(score_LV, class_L)


@dataclass(frozen=True, repr=False)
class Ahead(Spec):
    """Cross-entropy of the word piece after the next, which the "ahead" head guesses.

    Args:
        weight: in the sum of losses.

    Source: DeepSeek-V3 (2412.19437), section 2.2, with one module.
    """

    _: KW_ONLY
    weight: float = 0.3

    def build(self) -> NextTokenNet:
        return NextTokenNet(self)


@dataclass(frozen=True, repr=False)
class Balance(Spec):
    """Experts are used alike within each sample: the share of its tokens that an expert got, times its mean score, summed over experts; 1 where
    all are alike, and more where not. Summed over the layers.

    Args:
        weight: in the sum of losses.
        speed: by how much the routers' biases move at each step of training, against what was loaded too much; 0: not at all.

    Source: DeepSeek-V2 (2405.04434), equations 23 to 25; for sigmoid scores, and the biases: DeepSeek-V3 (2412.19437), section 2.1.2.
    """

    _: KW_ONLY
    weight: float = 0.003
    speed: float = 0.0

    def build(self) -> BalanceNet:
        return BalanceNet(self)


class BalanceNet(nn.Module):
    """The module of :class:`Balance`."""

    def __init__(self, spec: Balance) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, score_NX: torch.Tensor, index_NK: torch.Tensor, sample_N: torch.Tensor) -> torch.Tensor:
        """One layer's loss, the mean over samples.

        Args:
            score_NX: the routers' scores, of any sum.
            index_NK: int64 experts chosen.
            sample_N: int64 sample of each token, counted from 0.
        """
        samples, experts = int(sample_N.max()) + 1, score_NX.shape[1]
        count_S1 = torch.zeros(samples, 1, dtype=score_NX.dtype, device=score_NX.device).index_add(0, sample_N, torch.ones_like(score_NX[:, :1]))
        chosen_NX = torch.zeros_like(score_NX).scatter(1, index_NK, 1.0)
        loads, means = (torch.zeros(samples, experts, dtype=score_NX.dtype, device=score_NX.device).index_add(0, sample_N, x) / count_S1
                        for x in (chosen_NX, score_NX / score_NX.sum(dim=-1, keepdim=True)))
        return (loads * means).sum(dim=-1).mean() * experts / index_NK.shape[1]
