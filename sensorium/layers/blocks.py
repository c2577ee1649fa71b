"""MLPs and the transformer block: pre-norm, post-norm, or modulated by a condition (adaLN).

Letters: B batch, T length, D width, N heads, E head width.

    x -> norm -> attention -> + -> norm -> MLP -> +        pre-norm
    x -> attention -> + -> norm -> MLP -> + -> norm        post-norm
    x -> norm -> attention -> norm -> + -> ... -> norm -> + sandwich: what each half found is normalised before it is added
    x -> norm -> (attention + MLP) -> +                    parallel: both halves read the same
    x -> norm * (1 + scale) + shift -> ... * gate -> +     adaLN: shift, scale and gate come from the condition
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.layers.norms import Norm
from sensorium.spec import Spec

__all__ = ["ACTIVATIONS", "Block", "BlockNet", "MLP", "MLPNet"]


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU by a logistic, as CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """GELU by a tanh, as SigLIP and DiT were trained with."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "silu": F.silu, "relu": F.relu}


@dataclass(frozen=True, repr=False)
class MLP(Spec):
    """Two linear layers around an activation; gated multiplies by a second projection (SwiGLU and kin, 2002.05202).

    Args:
        width: D in, and out unless ``out``.
        hidden: width between.
        act: one of ``ACTIVATIONS``.
        out: width out; None is ``width``.
    """

    width: int
    hidden: int
    act: str = "gelu"
    gated: bool = False
    bias: bool = True
    out: int | None = None

    def check(self) -> list[str]:
        return [] if self.act in ACTIVATIONS else [f"act {self.act!r} is not known; use one of {sorted(ACTIVATIONS)}"]

    def build(self) -> MLPNet:
        return MLPNet(self)


class MLPNet(nn.Module):
    """The module of :class:`MLP`."""

    def __init__(self, spec: MLP) -> None:
        super().__init__()
        self.act = ACTIVATIONS[spec.act]
        self.up = nn.Linear(spec.width, spec.hidden, bias=spec.bias)
        self.gate = nn.Linear(spec.width, spec.hidden, bias=spec.bias) if spec.gated else None
        self.down = nn.Linear(spec.hidden, spec.out or spec.width, bias=spec.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape ending in the width."""
        if self.gate is None:
            return self.down(self.act(self.up(x)))
        return self.down(self.act(self.gate(x)) * self.up(x))


@dataclass(frozen=True, repr=False)
class Block(Spec):
    """One transformer layer: attention, then an MLP, each after a norm and added back (or added back and then normalised).

    Args:
        attention, mlp: the parts, an ``Attention`` or ``LatentAttention`` and an ``MLP`` or ``Experts``; their widths are the block's.
        norm: before both, and before attention alone if ``mlp_norm`` is given.
        adaln: None, or the width of the condition that modulates both halves (adaLN-Zero, 2212.09748, section 3.2).
        adaln_shared: the six modulation vectors are made once for all layers and given to the block, which adds its own
            learned table (2310.00426, section 2.3); saves most of adaLN's parameters.
        post_norm: normalise after adding, as the first transformers did (1706.03762, BERT).
        sandwich: normalise also what each half found, before it is added (Gemma 2, 2408.00118, section 2).
        parallel: the MLP reads what attention reads, through the same norm (GPT-J, PaLM 2204.02311, section 2; Cohere).
    """

    attention: Spec
    mlp: Spec
    norm: Norm
    adaln: int | None = None
    adaln_shared: bool = False
    mlp_norm: Norm | None = None
    post_norm: bool = False
    sandwich: bool = False
    parallel: bool = False

    def check(self) -> list[str]:
        widths = {self.attention.width, self.mlp.width, self.norm.width}
        problems = [] if len(widths) == 1 else [f"widths of attention, mlp and norm differ: {sorted(widths)}; make them equal"]
        problems += ["adaln modulates what comes out of a norm; set post_norm=False"] if self.adaln and self.post_norm else []
        problems += ["sandwich normalises before each half; set post_norm=False"] if self.sandwich and self.post_norm else []
        if self.parallel and (self.adaln or self.post_norm or self.mlp_norm is not None):
            problems.append("parallel has one norm for both halves; leave out adaln, post_norm and mlp_norm")
        return problems

    def build(self) -> BlockNet:
        return BlockNet(self)


class BlockNet(nn.Module):
    """The module of :class:`Block`, in two halves so that the caller can put a cache between them."""

    def __init__(self, spec: Block) -> None:
        super().__init__()
        self.spec = spec
        width = spec.attention.width
        self.attention_norm = spec.norm.build()
        self.attention = spec.attention.build()
        self.mlp_norm = None if spec.parallel else (spec.mlp_norm or spec.norm).build()
        self.attention_after, self.mlp_after = (spec.norm.build() if spec.sandwich else nn.Identity() for _ in range(2))
        self.mlp = spec.mlp.build()
        self.modulate = None
        self.table = None
        if spec.adaln is not None and not spec.adaln_shared:
            self.modulate = nn.Linear(spec.adaln, 6 * width)
            nn.init.zeros_(self.modulate.weight)
            nn.init.zeros_(self.modulate.bias)
        elif spec.adaln is not None:
            self.table = nn.Parameter(torch.zeros(6, width))

    def modulation(self, condition_BD: torch.Tensor | None) -> list[torch.Tensor] | None:
        """Shift, scale and gate for both halves, (B, 1, D) each; None for a plain block.

        With ``adaln_shared`` the condition is already (B, 6 D).
        """
        if self.modulate is not None:
            six = self.modulate(F.silu(condition_BD))
        elif self.table is not None:
            six = condition_BD + self.table.flatten()
        else:
            return None
        return list(six[:, None].chunk(6, dim=-1))

    def first(self, x_BTD: torch.Tensor, modulation: list[torch.Tensor] | None, angles: object) -> tuple[torch.Tensor, ...]:
        """Query, key and value of the attention half."""
        h = x_BTD if self.spec.post_norm else self.attention_norm(x_BTD)
        if modulation is not None:
            h = h * (1 + modulation[1]) + modulation[0]
        return self.attention.project(h, angles=angles)

    def second(self, x_BTD: torch.Tensor, mixed_BTNE: torch.Tensor, modulation: list[torch.Tensor] | None,
               between: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
        """Add what attention found, then the MLP; ``between`` stands between the two."""
        found = self.attention_after(self.attention.finish(mixed_BTNE))
        read_BTD = self.attention_norm(x_BTD) if self.spec.parallel else None
        x_BTD = x_BTD + (found if modulation is None else modulation[2] * found)
        if self.spec.post_norm:
            x_BTD = self.attention_norm(x_BTD)
        if between is not None:
            x_BTD = between(x_BTD)
        if self.spec.post_norm:
            return self.mlp_norm(x_BTD + self.mlp(x_BTD))
        if modulation is None:
            return x_BTD + self.mlp_after(self.mlp(self.mlp_norm(x_BTD) if read_BTD is None else read_BTD))
        h = self.mlp_norm(x_BTD) * (1 + modulation[4]) + modulation[3]
        return x_BTD + modulation[5] * self.mlp_after(self.mlp(h))
