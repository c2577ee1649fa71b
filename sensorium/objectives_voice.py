"""Speaking: what a voice learns from a text's phonemes and its sound, with nobody telling it when which of them sounds.

Letters: L texts, U symbols, M mel bins, F frames, P places, N numbers of a place.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sensorium.heads_voice import VoiceNet, align, spread
from sensorium.objectives_denoise import FlowMatching
from sensorium.spec import Spec

__all__ = ["Speaking"]


@dataclass(frozen=True, repr=False)
class Speaking(Spec):
    """The means of the symbols where they sound, how long they do, and the flow from noise to the spectrum.

    Args:
        mean, std: of the flow's times, as in ``FlowMatching``.
        weight: in the sum of losses.

    Source: Matcha-TTS (2309.03199), section 2.
    """

    _: KW_ONLY
    mean: float = -0.4
    std: float = 0.9
    weight: float = 1.0

    def build(self) -> SpeakingNet:
        return SpeakingNet(self)


class SpeakingNet(nn.Module):
    """The module of :class:`Speaking`."""

    def __init__(self, spec: Speaking) -> None:
        super().__init__()
        self.spec = spec
        self.flow = FlowMatching("audio", mean=spec.mean, std=spec.std).build()

    def forward(self, voice: VoiceNet, said_LU: torch.Tensor, spectrum_LMF: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Mean over the texts.

        Args:
            said_LU: int64 symbols, filled up with 0.
            spectrum_LMF: log-mel, filled up with silence; F at least ``join`` times U.
        """
        clean_LPN = voice.places(spectrum_LMF)
        said = voice.read(said_LU)
        symbol_LP = align(said.mean_LUN, clean_LPN)
        mean_LPN, state_LPD = spread(said.mean_LUN, symbol_LP), spread(said.state_LUD, symbol_LP)
        count_LU = F.one_hot(symbol_LP, said_LU.shape[1]).sum(dim=1)
        # all but the silence at the end, whose length says nothing; that at the beginning counts
        inner_LU = torch.arange(said_LU.shape[1], device=said_LU.device) <= (said_LU > 0).sum(dim=1, keepdim=True)
        length = (said.log_LU - count_LU.log()).square()[inner_LU].mean()
        noisy = self.flow.corrupt(clean_LPN, generator)
        flow = self.flow(voice(noisy.x_LCHW, noisy.t_L, mean_LPN, state_LPD), noisy, clean_LPN, "sample").mean()
        return flow + (mean_LPN - clean_LPN).square().mean() + length
