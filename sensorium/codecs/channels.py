"""Channels: several to one, by where their speakers stand; where they cancel each other, one of them is taken.

    (C, T) -> weights by the speakers' names -> blocks of a tenth of a second -> the mix, or a channel where the mix all but vanishes -> (T,)

Letters: C channels, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["Downmix", "speakers_of", "weights"]

FRONT = ("FL", "FR", "FLC", "FRC", "TFL", "TFR", "DL", "DR", "BIL", "BIR")
LOW = ("LFE", "LFE2")
PLAIN = {1: ("FC",), 2: ("FL", "FR"), 6: ("FL", "FR", "FC", "LFE", "BL", "BR"), 8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR")}
BLOCK_S = 0.1  # one decision
FADE_S = 0.01  # of the change from one to the other, so that nothing clicks
VANISHES = 0.03  # of the power that the channels would have if they were independent: 15 dB less
QUIET = 1e-3  # of the loudest power so far: a block this quiet decides nothing
FORGETS = 0.99  # a block: the loudest power halves in 7 s


def speakers_of(channels: int) -> tuple[str, ...]:
    """The usual speakers of a file that does not name them: those of WAV and FLAC; of other counts than 1, 2, 6 and 8 nothing is known."""
    return PLAIN.get(channels, ("NONE",) * channels)


def weights(speakers: Sequence[str]) -> np.ndarray:
    """Share of each channel in the mix, float32 (C,), summing to one.

    Args:
        speakers: names as FFmpeg has them: FL, FR, FC, LFE, BL, BR, SL, SR ...; NONE where nothing is known.

    The centre, where people speak, counts 3 dB more than the front, what stands behind or beside 3 dB less, and the low-frequency channel
    not at all. Of an ambisonic sound only the channel without a direction counts. Unknown channels count evenly.

    Source: ITU-R BS.775-4, table 2, twice (to stereo, to mono).
    """
    def weight(name: str) -> float:
        if name.startswith("AMBI"):
            return float(name == "AMBI0")
        if name in LOW:
            return 0.0
        return 2**0.5 if name == "FC" else 1.0 if name in FRONT or name == "NONE" else 0.5**0.5

    weight_C = np.array([weight(name) for name in speakers], dtype=np.float32)
    if not weight_C.any():
        weight_C[:] = 1.0
    return weight_C / weight_C.sum()


class Downmix:
    """Mixes a stream down: what is pushed in pieces comes out as if it had been pushed whole.

    Where the mix has almost nothing of the channels' power, they cancel each other (a recording with one of two channels turned round),
    and the loudest of them is given instead.
    """

    def __init__(self, speakers: Sequence[str], rate_hz: int) -> None:
        self._weight_C = weights(speakers)
        self._block, self._fade = max(int(rate_hz * BLOCK_S), 1), max(int(rate_hz * FADE_S), 1)
        self._waiting = np.zeros((len(speakers), 0), dtype=np.float32)
        self._loudest = 0.0
        self._taken: int | None = None  # a channel; None is the mix
        self._decided = False

    def push(self, x_CT: np.ndarray) -> np.ndarray:
        """The mix of the whole blocks so far, (T,)."""
        if (self._weight_C > 0).sum() == 1:
            return np.array(x_CT[int(self._weight_C.argmax())], dtype=np.float32)
        x_CT = np.concatenate([self._waiting, x_CT], axis=1)
        whole = x_CT.shape[1] // self._block * self._block
        self._waiting = x_CT[:, whole:].copy()
        blocks = [self._mix(x_CT[:, at : at + self._block]) for at in range(0, whole, self._block)]
        return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)

    def finish(self) -> np.ndarray:
        """The rest."""
        rest_CT, self._waiting = self._waiting, self._waiting[:, :0]
        return self._mix(rest_CT) if rest_CT.shape[1] else np.zeros(0, dtype=np.float32)

    def _mix(self, x_CT: np.ndarray) -> np.ndarray:
        before, mix_T = self._taken, self._weight_C @ x_CT
        power_C = self._weight_C**2 * (x_CT.astype(np.float64) ** 2).mean(axis=1)
        power = float(power_C.sum())
        self._loudest = max(self._loudest * FORGETS, power)
        if power > QUIET * self._loudest:  # false too where samples are not numbers, which is refused later
            vanishes = float((mix_T.astype(np.float64) ** 2).mean()) < VANISHES * power
            self._taken = (int(power_C.argmax()) if before is None else before) if vanishes else None
            if not self._decided:
                before, self._decided = self._taken, True
        now_T = self._of(self._taken, x_CT, mix_T)
        if before != self._taken:
            then_T, count = self._of(before, x_CT, mix_T), min(self._fade, len(now_T))
            rise_T = np.arange(1, count + 1, dtype=np.float32) / count
            now_T[:count] = now_T[:count] * rise_T + then_T[:count] * (1 - rise_T)
        return now_T

    @staticmethod
    def _of(taken: int | None, x_CT: np.ndarray, mix_T: np.ndarray) -> np.ndarray:
        return mix_T.copy() if taken is None else x_CT[taken].copy()
