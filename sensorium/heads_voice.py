"""Voice: a head that reads phonemes aloud: how long each of them sounds, what it sounds like on average, and by flow the spectrum itself.

Letters: L texts, U symbols, P places (of ``join`` spectra each), N numbers of a place, D width.

    symbols -> stack -> states, means, lengths                          (L, U, D), (L, U, N), (L, U)
    each symbol's state and mean at as many places as it sounds         (L, P, D), (L, P, N)
    with noise beside them -> stack -> what is clean                    (L, P, N)

Symbol 0 is silence; it begins and ends every text, and fills up shorter texts of a batch, whose sounds end in as much silence. So nothing is masked.

Sources: Grad-TTS (2105.06337) and Matcha-TTS (2309.03199); the alignment is searched for as in Glow-TTS (2005.11129).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn

from sensorium.layers.positions import sinusoids
from sensorium.layers.stack import Stack
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["align", "Said", "spread", "Voice", "VoiceNet"]

_TIMES = 64


@dataclass(frozen=True, repr=False)
class Voice(Spec):
    """Phonemes in, log-mel spectra out.

    Args:
        inside: D.
        reads, writes: layers over the symbols, and over the places.
        heads: of both stacks.
        symbols: how many there are, with 0, silence.
        mels: bins of a spectrum.
        join: spectra to a place.
        near: symbols or places that a first small convolution joins.
        scale: spectra are multiplied by this on the way in, to noise's size.
    """

    inside: int
    _: KW_ONLY
    reads: int = 3
    writes: int = 4
    heads: int = 4
    symbols: int = 178
    mels: int = 80
    join: int = 2
    near: int = 5
    scale: float = 2.0

    @property
    def numbers(self) -> int:
        """N."""
        return self.mels * self.join

    def check(self) -> list[str]:
        return [] if self.near % 2 else [f"near is {self.near}, wanted an odd number"]

    def build(self) -> VoiceNet:
        return VoiceNet(self)


@dataclass
class Said:
    """What the symbols are read as: state (L, U, D), mean (L, U, N), and the natural logarithm of how many places each takes, (L, U)."""

    state_LUD: torch.Tensor
    mean_LUN: torch.Tensor
    log_LU: torch.Tensor


class _Near(nn.Module):
    """Each place beside its neighbours, added."""

    def __init__(self, width: int, near: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, near, padding=near // 2, groups=width)

    def forward(self, x_LTD: torch.Tensor) -> torch.Tensor:
        return x_LTD + self.mix(x_LTD.transpose(1, 2)).transpose(1, 2)


class VoiceNet(nn.Module):
    """The module of :class:`Voice`: ``read`` the symbols, then look at noisy spectra as often as the solver asks."""

    def __init__(self, spec: Voice) -> None:
        super().__init__()
        self.spec, width = spec, spec.inside
        stack = dict(hidden=4 * width, norm="rms", bias=False, qk_norm=True, rope_theta=1e4, rule="full")
        self.symbol = nn.Embedding(spec.symbols, width)
        self.reader = nn.Sequential(_Near(width, spec.near), Stack(width, spec.reads, spec.heads, **stack).build())
        self.mean = nn.Linear(width, spec.numbers)
        self.length = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
        self.inside = nn.Linear(2 * spec.numbers, width)
        self.state = nn.Linear(width, width)
        self.time = nn.Sequential(nn.Linear(_TIMES, width), nn.SiLU(), nn.Linear(width, width))
        self.writer = nn.Sequential(_Near(width, spec.near), Stack(width, spec.writes, spec.heads, **stack).build())
        self.out = nn.Linear(width, spec.numbers)

    def read(self, said_LU: torch.Tensor) -> Said:
        """Phonemes as numbers, int64 (L, U)."""
        if said_LU.dim() != 2 or said_LU.shape[1] == 0:
            raise ShapeError(f"the voice got symbols {tuple(said_LU.shape)}, wanted (L, U), U at least 1")
        state = self.reader(self.symbol(said_LU))
        return Said(state, self.mean(state), self.length(state.detach()).squeeze(-1))

    def forward(self, noisy_LPN: torch.Tensor, t_L: torch.Tensor, mean_LPN: torch.Tensor, state_LPD: torch.Tensor) -> torch.Tensor:
        """One look: noisy spectra (L, P, N) at times ``t_L`` (0 noise, 1 clean), with what is said at each place -> the clean ones."""
        time_LD = self.time(sinusoids(t_L.float() * 1000, _TIMES).to(noisy_LPN.dtype))
        x_LPD = self.inside(torch.cat([noisy_LPN, mean_LPN], dim=-1)) + self.state(state_LPD) + time_LD[:, None]
        return mean_LPN + self.out(self.writer(x_LPD))

    def places(self, spectrum_LMF: torch.Tensor) -> torch.Tensor:
        """Spectra (L, M, F), F a multiple of ``join`` -> (L, P, N)."""
        return spectrum_LMF.transpose(1, 2).unflatten(1, (-1, self.spec.join)).flatten(2) * self.spec.scale

    def spectrum(self, place_LPN: torch.Tensor) -> torch.Tensor:
        """(L, P, N) -> (L, M, F)."""
        return place_LPN.unflatten(2, (self.spec.join, self.spec.mels)).flatten(1, 2).transpose(1, 2) / self.spec.scale


def spread(x_LUD: torch.Tensor, symbol_LP: torch.Tensor) -> torch.Tensor:
    """What belongs to each place's symbol, (L, P, D)."""
    return x_LUD.gather(1, symbol_LP[..., None].expand(-1, -1, x_LUD.shape[-1]))


@torch.no_grad()
def align(mean_LUN: torch.Tensor, place_LPN: torch.Tensor) -> torch.Tensor:
    """Which symbol sounds at each place, int64 (L, P): the cheapest way from the first to the last that leaves none out and never goes back.

    The cost of a place is its squared distance from the symbol's mean.

    Raises:
        ShapeError: fewer places than symbols.
    """
    count, symbols, places = len(mean_LUN), mean_LUN.shape[1], place_LPN.shape[1]
    if places < symbols:
        raise ShapeError(f"{symbols} symbols do not fit in {places} places; give longer sounds, or fill them up with silence")
    cost_PLU = torch.cdist(place_LPN.float(), mean_LUN.float()).square().transpose(0, 1).cpu()
    best_LU = torch.full((count, symbols), torch.inf)
    best_LU[:, 0] = cost_PLU[0, :, 0]
    stayed_PLU = torch.ones(places, count, symbols, dtype=torch.bool)
    for place in range(1, places):
        came_LU = torch.nn.functional.pad(best_LU[:, :-1], (1, 0), value=torch.inf)
        stayed_PLU[place] = best_LU <= came_LU
        best_LU = torch.minimum(best_LU, came_LU) + cost_PLU[place]
    symbol_LP, at_L = torch.empty(count, places, dtype=torch.int64), torch.full((count,), symbols - 1)
    for place in range(places - 1, -1, -1):
        symbol_LP[:, place] = at_L
        at_L = (at_L - (~stayed_PLU[place].gather(1, at_L[:, None])[:, 0]).long()).clamp(min=0)
    return symbol_LP.to(mean_LUN.device)
