"""Waves: samples to other rates, and to the log-mel picture that speech models look at.

Letters: T samples, M mel bins, F frames, B batch.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch

from sensorium.types import MediaError

__all__ = ["check_rate", "log_mel", "mel_filters", "RATES_HZ", "resample", "Resampler"]

RATES_HZ = (1_000, 768_000)
"""The least and the greatest rate that is taken for one."""
PHASES = 640  # resampling filters kept; a millionth more or less at an odd rate is not worth a larger table


def check_rate(rate_hz: int, what: str) -> None:
    """Refuse a rate that nobody records at; ``what`` begins the sentence."""
    if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
        raise MediaError(f"{what} is {rate_hz:,} samples a second, wanted {RATES_HZ[0]:,} to {RATES_HZ[1]:,}; convert it first")


class Resampler:
    """Windowed-sinc resampling of a stream: what is pushed in pieces comes out as if it had been pushed whole.

    Output n stands at input time n * down / up. Each of the ``up`` phases has a filter of its own; a row of the product below
    makes ``up`` outputs from one stretch of input, and the next row starts ``down`` inputs later:

        input   |---reach---|------ down ------|---reach---|
        outputs             0 1 2 ...     up-1
    """

    def __init__(self, source_hz: int, target_hz: int) -> None:
        ratio = Fraction(source_hz, target_hz).limit_denominator(PHASES)
        self.down, self.up = ratio.numerator, ratio.denominator
        self.same = self.down == self.up
        self.bank, self.reach = _bank(self.up, self.down)
        self.waiting = torch.zeros(self.reach)
        self.pushed = self.made = 0

    def push(self, x_T: torch.Tensor) -> torch.Tensor:
        """The outputs that the input so far decides."""
        self.pushed += len(x_T)
        if self.same:
            return x_T
        self.waiting = torch.cat([self.waiting, x_T])
        width = len(self.bank)
        rows = (len(self.waiting) - width) // self.down + 1
        if rows < 1:
            return x_T[:0]
        out = (self.waiting.unfold(0, width, self.down)[:rows] @ self.bank).flatten()
        self.waiting = self.waiting[rows * self.down :].clone()
        self.made += len(out)
        return out

    def finish(self) -> torch.Tensor:
        """The rest, as if silence followed."""
        if self.same:
            return torch.zeros(0)
        total, pushed, made = math.ceil(self.pushed * self.up / self.down), self.pushed, self.made
        rest = self.push(torch.zeros(len(self.bank) + self.down))
        self.pushed = pushed
        return rest[: max(total - made, 0)]


@lru_cache(maxsize=8)
def _bank(up: int, down: int, zeros: int = 24) -> tuple[torch.Tensor, int]:
    """Filters (reach + down + reach, up) and the reach: a sinc cut at the lower of the two Nyquist rates under a Kaiser window."""
    cut = min(1.0, up / down) * 0.97
    reach = math.ceil(zeros / cut)
    place = torch.arange(-reach, down + reach, dtype=torch.float64)[:, None] - torch.arange(up, dtype=torch.float64) * down / up
    inside = (1 - (place / reach) ** 2).clamp(min=0)
    window = torch.where(place.abs() < reach, torch.special.i0(9.0 * inside.sqrt()) / torch.special.i0(torch.tensor(9.0)), 0.0)
    return (cut * torch.sinc(cut * place) * window).float(), reach


def resample(x_T: torch.Tensor, source_hz: int, target_hz: int) -> torch.Tensor:
    """Change the rate of float (T,) samples; equal rates give them back as they are."""
    check_rate(source_hz, "the rate given")
    check_rate(target_hz, "the rate asked for")
    resampler = Resampler(source_hz, target_hz)
    return torch.cat([resampler.push(x_T.float()), resampler.finish()])


@lru_cache(maxsize=8)
def mel_filters(mels: int, rate_hz: int, size: int) -> torch.Tensor:
    """Triangular filters (M, size // 2 + 1), each of area one, even on a scale that is linear to 1 kHz and logarithmic above.

    Source: M. Slaney, Auditory Toolbox (1998).
    """
    step, bend = 200 / 3, 1_000.0
    turn, growth = bend / step, math.log(6.4) / 27
    top_hz = rate_hz / 2
    top = top_hz / step if top_hz < bend else turn + math.log(top_hz / bend) / growth
    mel = torch.linspace(0, top, mels + 2, dtype=torch.float64)
    edge_hz = torch.where(mel < turn, mel * step, bend * torch.exp(growth * (mel - turn)))
    bin_hz = torch.linspace(0, top_hz, size // 2 + 1, dtype=torch.float64)
    low, middle, high = edge_hz[:-2, None], edge_hz[1:-1, None], edge_hz[2:, None]
    rise, fall = (bin_hz - low) / (middle - low), (high - bin_hz) / (high - middle)
    return (torch.minimum(rise, fall).clamp(min=0) * 2 / (high - low)).float()


def log_mel(x_BT: torch.Tensor, rate_hz: int = 16_000, mels: int = 80, window: int = 400, hop: int = 160) -> torch.Tensor:
    """Log-mel spectrum as Whisper sees it: eight decades below each sound's loudest point, scaled to about -1..1.

    Args:
        x_BT: float (B, T) or (T,); T at least ``window``.

    Returns:
        float32 (B, M, F) or (M, F), F = T // hop.

    Source: Whisper (2212.04356), section 2.2.
    """
    spectrum = torch.stft(x_BT, window, hop, window=torch.hann_window(window), center=True, pad_mode="reflect", return_complex=True)
    power = spectrum[..., :-1].abs().square()
    level = (mel_filters(mels, rate_hz, window) @ power).clamp(min=1e-10).log10()
    loudest = level.amax(dim=(-2, -1), keepdim=True)
    return (torch.maximum(level, loudest - 8) + 4) / 4
