"""nano's voice: names said aloud in English and Mandarin by the model that sees and hears them.

    make corpus && python -m sensorium.corpus.spoken corpus --takes own         # once: pictures, names, and the names in the voice to be learned
    sensorium train recipes/nano_voice.py --data corpus
    python recipes/nano_voice.py runs/nano-voice sensorium/weights/nano         # into the folder that ships

What is trained is the voice alone. Every step takes utterances of one English and one Mandarin voice beside the phonemes of what they say; when each
phoneme sounds is found on the way. One in seven concepts is never said, and one in twenty of the others is kept to choose settings by.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import sensorium as sn
from nano import VOCAB, add_parts, codecs, in_epochs, recipe_over
from nano_audio import Spoken, samples
from sensorium.codecs import english, mandarin
from sensorium.codecs.waves import log_mel
from sensorium.corpus.split import digest
from sensorium.train import Run
from sensorium.zoo.nano import nano
from sensorium.zoo.nano_whole import speaking

PARTS = ("heads.audio",)


@dataclass(eq=False)
class VoiceData:
    """Makes the batch of each step.

    Args:
        folder: the corpus.
        sounds: a step's utterances.
        held: whether they are of the concepts kept to choose settings by, or of the others.
        seed: of the order.
    """

    folder: Path
    sounds: int
    held: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        spoken, self.codec = Spoken.load(self.folder, ("own",)), sn.VoiceCodec()
        self.said, self.spectrum = [], []
        for wave, row in zip(spoken.wave, spoken.rows, strict=True):
            if (digest("sensorium-voice-val", row["concept"]) % 20 == 0) == self.held:
                self.said.append(self.symbols(row["parts"][1]["text"], row["language"]))
                self.spectrum.append(log_mel(samples(wave), self.codec.rate_hz, self.codec.mels, self.codec.window, self.codec.hop).half())

    def symbols(self, name: str, language: str) -> tuple[int, ...]:
        """What is read of a name."""
        return tuple(self.codec.encode(mandarin.spoken(name) if language == "zh" else english.spoken(name)))

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        chosen = in_epochs(self.seed, len(self.said), step * self.sounds, self.sounds)
        return voice_batch([self.said[i] for i in chosen], [self.spectrum[i].float() for i in chosen])


def voice_batch(said: list[tuple[int, ...]], spectrum: list[torch.Tensor], join: int = 2) -> sn.Batch:
    """Symbols and spectra (M, F), both filled up with silence: as long that every row has a place for each of its symbols."""
    most = max(map(len, said))
    frames = max(-(-one.shape[1] // join) + most - len(some) for some, one in zip(said, spectrum, strict=True)) * join
    filled = [torch.cat([one, one.min().expand(len(one), frames - one.shape[1])], dim=1) for one in spectrum]
    symbols = torch.tensor([[*some, *[0] * (most - len(some))] for some in said])
    return sn.Batch(media={"speech": torch.stack(filled)}, said={"speech": symbols}, samples=len(said))


def run(data: str = "corpus", steps: int = 4000, sounds: int = 32, rate: float = 2e-3, further: bool = False) -> Run:
    """The run behind the shipped voice; ``further`` goes on from what is packaged of it."""
    train, held = VoiceData(Path(data), sounds), VoiceData(Path(data), 96, held=True, seed=1)
    model = speaking(nano(VOCAB))
    return recipe_over("nano-voice", model, PARTS, replace(codecs(), voice=sn.VoiceCodec()), rate, further, batch=train.batch, steps=steps, clip=1.0,
                       validation=(held.batch(0),) if held.said else (), validate_every=250, save_every=250)


if __name__ == "__main__":
    add_parts("voice", Path(sys.argv[1]), Path(sys.argv[2]), PARTS, speaking, "audio: names in English and Chinese, said by one voice each")
