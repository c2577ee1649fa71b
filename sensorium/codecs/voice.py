"""Voice codec: words to the symbols that a voice reads, and the spectrum that it draws to samples.

    words -> phonemes (English through espeak-ng, Mandarin through pinyin) -> numbers, silence (0) around them
    log-mel -> power at each frequency, nowhere below 0 -> phases that fit one another -> samples

Letters: M mel bins, K frequencies, F frames, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sensorium.codecs.phonemes import ids, phonemes, sounding
from sensorium.codecs.waves import mel_filters
from sensorium.spec import Spec
from sensorium.types import MediaError

__all__ = ["VoiceCodec", "wave_of"]


@dataclass(frozen=True, repr=False)
class VoiceCodec(Spec):
    """How a voice's texts become numbers, and its spectra samples; the spectra are those that ``AudioCodec`` makes.

    Args:
        rate_hz, mels, window, hop: of the spectra.
        rounds: of the search for phases.
    """

    rate_hz: int = 16_000
    mels: int = 80
    window: int = 400
    hop: int = 160
    rounds: int = 60

    def encode(self, words: str) -> list[int]:
        """Words as they are read aloud -> symbols, with silence at both ends.

        Raises:
            MediaError: there is nothing in them to say.
        """
        said = phonemes(words)
        if not sounding(said):
            raise MediaError(f"there is nothing to say in {words[:60]!r}; give it words in English or Chinese, or numbers")
        return [0, *ids(said), 0]

    def length(self, words: str) -> int:
        """How many symbols words have; 0 if there is nothing but punctuation."""
        return sounding(phonemes(words))

    def decode(self, mel_MF: torch.Tensor) -> torch.Tensor:
        """A log-mel spectrum as ``waves.log_mel`` makes it -> samples (T,), T = F * hop, peak 0.9."""
        return wave_of(mel_MF, self.rate_hz, self.window, self.hop, self.rounds)


def wave_of(mel_MF: torch.Tensor, rate_hz: int = 16_000, window: int = 400, hop: int = 160, rounds: int = 60, momentum: float = 0.99) -> torch.Tensor:
    """Samples whose log-mel spectrum is about the one given.

    Args:
        mel_MF: float32, as ``waves.log_mel`` makes it.
        rate_hz, window, hop: of the spectrum.
        rounds: how often the phases are made to fit; the first are drawn from a fixed seed.
        momentum: how far a round goes on in the direction of the last.

    Source: D. Griffin and J. Lim (1984), the faster form of N. Perraudin et al. (2013); powers by multiplicative updates, D. Lee and H. Seung (2001).
    """
    filters_MK = mel_filters(len(mel_MF), rate_hz, window)
    power_MF = 10 ** (mel_MF.float() * 4 - 4)
    power_KF = filters_MK.T @ power_MF
    for _ in range(40):
        power_KF = power_KF * (filters_MK.T @ power_MF) / (filters_MK.T @ (filters_MK @ power_KF)).clamp(min=1e-12)
    size_KF = torch.cat([power_KF, power_KF[:, -1:]], dim=1).sqrt()  # one more frame, as the short-time spectrum has it
    shape, hann = dict(n_fft=window, hop_length=hop), torch.hann_window(window)
    turn_KF = torch.exp(2j * torch.pi * torch.rand(size_KF.shape, generator=torch.Generator().manual_seed(0)))
    before_KF = torch.zeros_like(turn_KF)
    for _ in range(rounds):
        wave_T = torch.istft(size_KF * turn_KF, **shape, window=hann)
        fitted_KF = torch.stft(wave_T, **shape, window=hann, center=True, pad_mode="reflect", return_complex=True)
        ahead_KF = fitted_KF + momentum * (fitted_KF - before_KF)
        turn_KF, before_KF = ahead_KF / ahead_KF.abs().clamp(min=1e-12), fitted_KF
    wave_T = torch.istft(size_KF * turn_KF, **shape, window=hann)
    return wave_T * (0.9 / wave_T.abs().max().clamp(min=1e-6))
