"""A model's own voice: what its ``audio`` head draws of a text's phonemes, made sound, a clause at a time.

    words -> symbols -> how long each sounds -> noise -> spectrum, in a few looks -> samples
"""

from __future__ import annotations

import torch

from sensorium.denoise import Solver, walk
from sensorium.desk import Codecs, codecs_of
from sensorium.heads_voice import VoiceNet, spread
from sensorium.model import ModelNet
from sensorium.paths import Stop, Straight, apart
from sensorium.speak import Speaker, Voice
from sensorium.types import ConfigError, ModalityError

__all__ = ["draw_speech", "own_voice"]

LOOKS = 12
LONGEST = 100  # places of one symbol: two seconds


@torch.inference_mode()
def draw_speech(voice: VoiceNet, symbols: list[int], seed: int = 0, speed: float = 1.0, looks: int = LOOKS) -> torch.Tensor:
    """The log-mel spectrum of what is said, (M, F).

    Args:
        voice: of a model's ``heads.audio``.
        symbols: numbers of phonemes, with 0 at both ends.
        seed: of the noise.
        speed: 1 is the voice's own; 2 takes half the time.
        looks: steps from noise to the spectrum.
    """
    said = voice.read(torch.tensor([symbols]))
    count_U = (said.log_LU[0].exp() / speed).round().clamp(1, LONGEST).long()
    symbol_LP = torch.arange(len(symbols)).repeat_interleave(count_U)[None]
    mean_LPN, state_LPD = spread(said.mean_LUN, symbol_LP), spread(said.state_LUD, symbol_LP)

    def look(x_LPN: torch.Tensor, stop: Stop) -> tuple[torch.Tensor, torch.Tensor]:
        return apart(voice(x_LPN, torch.tensor([stop.time]), mean_LPN, state_LPD), x_LPN, stop, "sample")

    x_LPN = torch.randn(mean_LPN.shape, generator=torch.Generator().manual_seed(seed))
    *_, (_, made_LPN) = walk(look, Straight(), Solver(steps=looks), x_LPN)
    return voice.spectrum(made_LPN)[0]


class _Own:
    """A voice of a model of ours, as a ``Speaker`` needs it."""

    voices = (Voice("english", "en-us", "female"), Voice("mandarin", "zh", "female"))
    defaults = {"en": "english", "zh": "mandarin"}

    def __init__(self, model: ModelNet, codecs: Codecs, name: str, seed: int) -> None:
        self.net, self.codec, self.name, self.seed = model.heads["audio"], codecs.voice, name, seed
        self.about, self.rate_hz = f"{name}'s own voice, which knows short names in English and Mandarin", self.codec.rate_hz

    def measure(self, words: str, voice: Voice) -> int:
        """How many symbols; 0 if there is nothing but punctuation."""
        return self.codec.length(words)

    def prepare(self) -> None:
        """Nothing to do: it is there."""

    def say(self, words: str, voice: Voice, speed: float) -> torch.Tensor:
        """(T,) float32."""
        return self.codec.decode(draw_speech(self.net, self.codec.encode(words), self.seed, speed))


def own_voice(model: ModelNet, name: str = "built", codecs: Codecs | None = None, seed: int = 0) -> Speaker:
    """The speaker that a model is itself.

    Args:
        name: of the model.
        seed: of the noise that its sounds begin as.

    Raises:
        ModalityError: it writes no sound.
        ConfigError: no codec says how its texts become phonemes.
    """
    if "audio" not in model.spec.heads:
        raise ModalityError(f"{name} does not speak; it writes {', '.join(model.spec.writes)}. A voice: sensorium pull kokoro-82m")
    codecs = codecs_of(model, codecs)
    if codecs.voice is None:
        raise ConfigError("no codec for what it says; give codecs=Codecs(voice=VoiceCodec())")
    return Speaker(_Own(model, codecs, name, seed))
