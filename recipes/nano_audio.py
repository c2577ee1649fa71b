"""nano's ears: spoken names in English and Mandarin, heard by the model whose eyes and words are done.

    make corpus && python -m sensorium.corpus.spoken corpus        # once: pictures, names, and the names spoken
    sensorium train recipes/nano_audio.py --data corpus
    python recipes/nano_audio.py runs/nano-audio sensorium/weights/nano         # into the folder that ships

What is trained is the ears alone; nano's own weights stay as they are, so it sees, writes and draws as before. Every step takes utterances of
the training voices and lays each out beside its name:

    [sound] -> its phonemes, in order                                   CTC over what the ears give, before anything is gathered
    [sound] <embed> "What is this?" <embed> <say> its name <end>        next token; embedding of the sound
    [its name] <embed>                                                  embedding of the text, which the sound's is drawn to

The same word from another mouth sounds otherwise: every utterance is sped up or slowed down with its pitch, its frequencies are stretched apart from
that, it is coloured, buried in a little noise, and parts of its spectrogram are covered.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import sensorium as sn
from nano import EMBED, END, QUESTIONS, SAY, VOCAB, add_parts, codecs, embed_texts, in_epochs, recipe_over
from sensorium.catalog import WEIGHTS
from sensorium.codecs import english, mandarin
from sensorium.codecs.audio import AudioCodec, load_audio
from sensorium.codecs.phonemes import SYMBOLS, phonemes
from sensorium.codecs.waves import mel_filters
from sensorium.data import Segment
from sensorium.evals.figures import ranks
from sensorium.files import read_lines
from sensorium.train import Run
from sensorium.zoo.nano import nano
from sensorium.zoo.nano_whole import hearing

FRAMES = 256
PARTS = ("encoders.audio", "align.audio")
TRAINED = (*PARTS, "objectives.3", "objectives.4")  # with what is of use in training only
SYMBOL = {symbol: i for i, symbol in enumerate(sorted(symbol for symbol in SYMBOLS if symbol.isalpha() or symbol in "→↗↓↘"), start=1)}


@dataclass(frozen=True)
class Spoken:
    """Utterances in memory: int16 samples of each, and what it says."""

    wave: list[np.ndarray]
    rows: list[dict]

    @staticmethod
    @lru_cache(maxsize=4)
    def load(folder: Path, takes: tuple[str, ...]) -> Spoken:
        """The utterances of these takes, in the order of spoken.jsonl."""
        rows = [row for row in read_lines(folder / "spoken.jsonl") if row["take"] in takes]
        if not rows:
            raise sn.ConfigError(f"{folder}/spoken.jsonl lists none of the takes {', '.join(takes)}; speak them: python -m sensorium.corpus.spoken")
        waves = [(load_audio(sn.Audio(folder / row["parts"][0]["audio"])) * 32767).to(torch.int16).numpy() for row in rows]
        return Spoken(waves, rows)


def samples(wave_T: np.ndarray) -> torch.Tensor:
    """A stored sound as float (T,)."""
    return torch.from_numpy(wave_T.astype(np.float32) / 32767)


def stretched(wave_T: np.ndarray, rng: np.random.Generator, most: float = 0.14) -> torch.Tensor:
    """A sound faster and higher, or slower and lower, float (T,), after a little silence."""
    factor = float(np.exp(rng.uniform(-most, most)))
    place = np.arange(0, len(wave_T) - 1, factor)
    sound = np.interp(place, np.arange(len(wave_T)), wave_T.astype(np.float32) / 32767).astype(np.float32)
    silence = np.zeros(int(rng.integers(0, 3200)), dtype=np.float32)
    return torch.from_numpy(np.concatenate([silence, sound]))


def warped(mel_BMF: torch.Tensor, generator: torch.Generator, most: float = 0.13) -> torch.Tensor:
    """Spectrograms as longer or shorter throats would have made them: the frequency axis of each stretched by a factor of its own.

    Source: vocal tract length perturbation (Jaitly and Hinton, 2013), without its bend at the top.
    """
    count, mels, frames = mel_BMF.shape
    bins_hz = (mel_filters(mels, 16_000, 400) * torch.linspace(0, 8_000, 201)).sum(dim=1) / mel_filters(mels, 16_000, 400).sum(dim=1)
    factor = torch.exp((torch.rand(count, generator=generator) * 2 - 1) * most)
    wanted_hz = bins_hz * factor[:, None]
    place = torch.from_numpy(np.interp(wanted_hz.numpy(), bins_hz.numpy(), np.arange(mels))).float()
    low = place.floor().long().clamp(max=mels - 2)
    share = (place - low)[:, :, None]
    below, above = (mel_BMF.gather(1, (low + k)[:, :, None].expand(-1, -1, frames)) for k in (0, 1))
    return below + (above - below) * share


def coloured(mel_BMF: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Spectrograms as other rooms and microphones would have them, with covered stretches."""
    count, mels, frames = mel_BMF.shape
    bend = torch.randn(count, 1, 5, generator=generator) * 0.15
    out = mel_BMF + F.interpolate(bend, size=mels, mode="linear", align_corners=True).transpose(1, 2)
    floor = -1 + torch.rand(count, 1, 1, generator=generator) * 0.9  # a noise that hides what is softer
    out = torch.maximum(out, floor + 0.08 * torch.randn(out.shape, generator=generator))
    for axis, size, most in ((1, mels, 12), (1, mels, 12), (2, frames, 14), (2, frames, 14)):
        width = torch.rand(count, 1, generator=generator) * most
        start = torch.rand(count, 1, generator=generator) * (size - width)
        place = torch.arange(size)[None]
        covered = (place >= start) & (place < start + width)
        out = torch.where(covered.unsqueeze(2 if axis == 1 else 1), mel_BMF.amin(dim=(1, 2), keepdim=True), out)
    return out


@dataclass(eq=False)
class HearData:
    """Makes the batch of each step.

    Args:
        folder: the corpus.
        sounds: a step's utterances.
        takes: which.
        seed: of order and chance.
        changed: whether sounds are changed on the way.
    """

    folder: Path
    sounds: int
    takes: tuple[str, ...]
    seed: int = 0
    changed: bool = True

    def __post_init__(self) -> None:
        self.spoken = Spoken.load(self.folder, self.takes)
        self.tokenizer = sn.Tokenizer.from_file(WEIGHTS / "nano" / "tokenizer.json")
        self.packer = sn.Packer(places={"audio": 4}, row=40, embed=EMBED, say=SAY, end=END, axes=True)
        self.codec = AudioCodec(frames=FRAMES)

    @cached_property
    def number(self) -> dict[str, int]:
        """Each concept's place among all."""
        return {row["id"]: i for i, row in enumerate(read_lines(self.folder / "concepts.jsonl"))}

    @lru_cache(maxsize=100_000)  # noqa: B019 (one object a run)
    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of a text."""
        return tuple(self.tokenizer.encode(text))

    @lru_cache(maxsize=100_000)  # noqa: B019
    def said(self, text: str, language: str) -> tuple[int, ...]:
        """The phonemes of a name, as numbers."""
        words = mandarin.spoken(text) if language == "zh" else english.spoken(text)
        return tuple(SYMBOL[symbol] for symbol in phonemes(words) if symbol in SYMBOL)

    def batch(self, step: int) -> sn.Batch:
        """Batch of a step: a function of the seed and the step alone."""
        rng = np.random.default_rng((self.seed, 7, step))
        chosen = in_epochs(self.seed, len(self.spoken.rows), step * self.sounds, self.sounds)
        if self.changed:
            sounds = [stretched(self.spoken.wave[i], rng) for i in chosen]
        else:
            sounds = [samples(self.spoken.wave[i]) for i in chosen]
        mel_BMF = self.codec.encode_samples(sounds)
        if self.changed:
            generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
            mel_BMF = coloured(warped(mel_BMF, generator), generator)
        rows = [self.spoken.rows[i] for i in chosen]
        questions = [QUESTIONS[int(rng.integers(len(QUESTIONS)))][row["language"] == "zh"] for row in rows]
        return self.layout(mel_BMF, rows, questions)

    def layout(self, mel_BMF: torch.Tensor, rows: Sequence[dict], questions: Sequence[str]) -> sn.Batch:
        """Sounds with a question and their name, and the names by themselves."""
        names = [self.ids(row["parts"][1]["text"]) for row in rows]
        heard = [self.packer.segment([sn.Arrays("audio", mel), sn.Arrays("text", self.ids(question)), sn.Arrays("text", name, target=True)])
                 for mel, question, name in zip(mel_BMF, questions, names, strict=True)]
        told: list[Segment] = [self.packer.segment([sn.Arrays("text", name)]) for name in names]
        count = len(rows)
        pairs = {"audio": list(range(count)), "text": list(range(count, 2 * count))}
        batch = self.packer.pack(heard + told, pairs, [self.number[row["concept"]] for row in rows])
        said = [torch.tensor(self.said(rows[i]["parts"][1]["text"], rows[i]["language"])) for i in batch.pairs["audio"].argsort().tolist()]
        return replace(batch, said={"audio": torch.nn.utils.rnn.pad_sequence(said, batch_first=True)})


@torch.no_grad()
def embed_sounds(model: sn.ModelNet, data: HearData, mel_LMF: torch.Tensor, chunk: int = 128) -> torch.Tensor:
    """Unit vectors (L, O) of spectrograms."""
    out = []
    for part in mel_LMF.split(chunk):
        batch = data.packer.pack([data.packer.segment([sn.Arrays("audio", mel)]) for mel in part], {"audio": list(range(len(part)))})
        out.append(model.embedding(model.read(batch), batch.pairs["audio"]))
    return torch.cat(out)


def evaluator(data: HearData):
    """Naming held-out voices' utterances among all names, by embedding, and in words."""
    rows = data.spoken.rows
    mel = data.codec.encode_samples([samples(wave) for wave in data.spoken.wave])
    concepts = read_lines(data.folder / "concepts.jsonl")
    wanted = torch.tensor([data.number[row["concept"]] for row in rows])

    @torch.no_grad()
    def evaluate(model: sn.ModelNet) -> dict[str, float]:
        heard = embed_sounds(model, data, mel)
        out = {}
        for language in ("en", "zh"):
            place = ranks(heard @ embed_texts(model, data, [row[language] for row in concepts]).T, wanted)
            for known in (True, False):
                mine = torch.tensor([row["language"] == language and row["heard"] == known for row in rows])
                if mine.any():
                    out |= {f"{language}{'' if known else '_unheard'}_r{k}": float((place[mine] < k).float().mean()) for k in (1, 5)}
        return out

    return evaluate


def run(data: str = "corpus", steps: int = 2400, sounds: int = 96, takes: str = "mix0 own each0 each1", rate: float = 2e-3,
        further: bool = False) -> Run:
    """The run behind the shipped ears; ``further`` goes on from what is packaged of them."""
    train = HearData(Path(data), sounds, tuple(takes.split()))
    held = HearData(Path(data), 96, ("test",), seed=1, changed=False)
    model = hearing(nano(VOCAB), frames=FRAMES)
    model = replace(model, objectives=(*model.objectives, sn.Ctc(width=model.encoders["audio"].width, symbols=len(SYMBOL) + 1)))
    return recipe_over("nano-audio", model, TRAINED, codecs_with_ears(), rate, further, batch=train.batch, steps=steps, clip=2.0,
                       validation=(held.batch(0),), validate_every=200, save_every=100, evaluate=evaluator(held), end=END)


def codecs_with_ears() -> sn.Codecs:
    """nano's codecs, and that of sounds."""
    return replace(codecs(), audio=AudioCodec(frames=FRAMES))


if __name__ == "__main__":
    add_parts("audio", Path(sys.argv[1]), Path(sys.argv[2]), PARTS, hearing, "audio: names in English and Chinese, spoken")
