"""Spoken names: every concept's name read aloud in English and Mandarin by many voices, with a split over voices and over names.

    python -m sensorium.corpus.spoken FOLDER [--takes mix0 test own ...] [--workers 2]

    concepts.jsonl -> Kokoro, voices mixed or single -> FOLDER/speech/TAKE/LANGUAGE/ID.flac -> FOLDER/spoken.jsonl

The split, written down before any training (``h`` as in ``split``):

    voices   of each kind (language and gender), in the order of h("sensorium-voice", name): the first is for testing; of kinds with more than
             four, the second is for choosing settings; the others are for training
    names    h("sensorium-heard", concept) % 7 == 0: never spoken in training, by any voice

    take     spoken by                                                         concepts
    own      the voice nano speaks with                                        all but those never spoken in training
    mix0..   a mixture of two training voices, of 48 for each language         the same
    each0..  one of the training voices                                        the same
    val      the voices kept for choosing settings                             one in twenty of the same
    test     the voices kept for testing                                       two in five of the same, and those never spoken in training

A mixture's style is the weighted mean of two voices' styles, so one pass over the names is heard from dozens of voices; but each lies between
others, and a voice that is new need not: so the single ones are heard too.
Every file appears in one step; a second call does only what is missing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sensorium import catalog
from sensorium.codecs.waves import resample
from sensorium.corpus.folder import concepts_of, counting
from sensorium.corpus.split import digest
from sensorium.files import write_file, write_lines
from sensorium.speak import KOKORO, Speaker, join, open_speaker
from sensorium.types import ConfigError, MediaError

__all__ = ["never_heard", "OWN", "RATE_HZ", "record", "TAKES", "Utterance", "utterances", "voice_splits"]

RATE_HZ = 16_000
TAKES = ("mix0", "test", "own", "each0", "val", "mix1", "each1")
OWN = {"en": "af_heart", "zh": "zf_xiaoxiao"}
_KINDS = {"en": ("af", "am", "bf", "bm"), "zh": ("zf", "zm")}
_MIXTURES = 48
_SLOWEST, _FASTEST = 0.85, 1.2


@dataclass(frozen=True)
class Utterance:
    """One name read aloud once.

    Args:
        take: one of ``TAKES``.
        language: "en" or "zh".
        concept: id.
        text: what is said.
        voice: of the speaker, or a mixture's name.
        speed: 1 is the voice's own.
    """

    take: str
    language: str
    concept: str
    text: str
    voice: str
    speed: float

    @property
    def path(self) -> str:
        """Where it lies in the corpus's folder."""
        return f"speech/{self.take}/{self.language}/{self.concept}.flac"


def never_heard(concept: str) -> bool:
    """Whether this concept's name is never spoken in training (one in seven)."""
    return digest("sensorium-heard", concept) % 7 == 0


def voice_splits(names: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """{language: {"train", "val", "test": voices}} of voices by name, such as "af_heart"."""
    out = {}
    for tongue, kinds in _KINDS.items():
        splits: dict[str, list[str]] = {"train": [], "val": [], "test": []}
        for kind in kinds:
            order = sorted((name for name in names if name.startswith(f"{kind}_")), key=lambda name: digest("sensorium-voice", name))
            val = 1 if len(order) > 4 else 0
            splits["test"] += order[:1]
            splits["val"] += order[1 : 1 + val]
            splits["train"] += order[1 + val :]
        out[tongue] = splits
    return out


def utterances(rows: Sequence[dict[str, str]], voices: Sequence[str], takes: Sequence[str] = TAKES) -> Iterator[Utterance]:
    """Everything that is spoken, take by take.

    Args:
        rows: of concepts.jsonl: id, en, zh.
        voices: all there are.
        takes: which.
    """
    splits = voice_splits(voices)
    for take in takes:
        for row in rows:
            for tongue, split in splits.items():
                chance = digest(f"sensorium-{take}", f"{tongue}:{row['id']}")
                heard, text = not never_heard(row["id"]), row[tongue]
                if take == "test" and (not heard or chance % 5 < 2):
                    yield Utterance(take, tongue, row["id"], text, split["test"][chance // 5 % len(split["test"])], 1.0)
                elif take == "val" and heard and split["val"] and chance % 20 == 0:
                    yield Utterance(take, tongue, row["id"], text, split["val"][chance // 20 % len(split["val"])], 1.0)
                elif take == "own" and heard:
                    yield Utterance(take, tongue, row["id"], text, OWN[tongue], 1.0)
                elif take.startswith(("mix", "each")) and heard:
                    speed = round(_SLOWEST + (_FASTEST - _SLOWEST) * (chance // 1000 % 36) / 35, 2)
                    mixed, single = f"{_KINDS[tongue][0]}_mix{chance % _MIXTURES:02d}", split["train"][chance % len(split["train"])]
                    yield Utterance(take, tongue, row["id"], text, mixed if take.startswith("mix") else single, speed)


def mix_voices(kokoro: Path, out: Path) -> Path:
    """A folder like Kokoro's whose voices are its own and the mixtures, ``_MIXTURES`` for each language; the model is linked, not copied."""
    (out / "voices").mkdir(parents=True, exist_ok=True)
    if not (out / "model.onnx").exists():
        (out / "model.onnx").symlink_to((kokoro / "model.onnx").resolve())
    single = {path.stem: path for path in sorted((kokoro / "voices").glob("*.bin"))}
    for tongue, splits in voice_splits(list(single)).items():
        for number in range(_MIXTURES):
            rng = np.random.default_rng([digest("sensorium-mixture", tongue) % 2**32, number])
            one, other = rng.choice(splits["train"], 2, replace=False)
            share = float(rng.uniform(0.2, 0.8))
            mixed = share * np.fromfile(single[one], np.float32) + (1 - share) * np.fromfile(single[other], np.float32)
            write_file(out / "voices" / f"{_KINDS[tongue][0]}_mix{number:02d}.bin", mixed.astype(np.float32).tobytes())
        for name in (*splits["train"], *splits["val"], *splits["test"]):
            write_file(out / "voices" / f"{name}.bin", single[name].read_bytes())
    return out


_speaker: dict[str, Speaker] = {}


def _say(job: tuple[str, str, Utterance]) -> str:
    """One utterance to its file; gives what is wrong with it, or nothing."""
    import soundfile

    kokoro, folder, said = job
    if kokoro not in _speaker:
        torch.set_num_threads(1)
        _speaker[kokoro] = open_speaker(kokoro)
    path = Path(folder) / said.path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        sound = join(_speaker[kokoro].speak(said.text, said.voice, said.speed))
    except MediaError as error:
        return str(error)
    part = path.with_suffix(f".{os.getpid()}.part")
    soundfile.write(part, resample(sound.source, sound.rate_hz, RATE_HZ).numpy(), RATE_HZ, format="FLAC", subtype="PCM_16")
    os.replace(part, path)
    return ""


def record(folder: str | Path, takes: Sequence[str] = TAKES, workers: int = 2, kokoro: str | Path | None = None, limit: int | None = None,
           quiet: bool = False) -> int:
    """Have the names spoken, or finish it, and list what is there in spoken.jsonl.

    Args:
        folder: a corpus with concepts.jsonl.
        takes: which; what other calls spoke stays listed.
        workers: processes, each on one thread; about one core-hour for 5,000 names.
        kokoro: folder of its weights; None asks the catalog.
        limit: only the first so many concepts.
        quiet: no progress bar.

    Returns:
        How many utterances are listed.

    Raises:
        ConfigError: no corpus there, an unknown take, or no Kokoro.
    """
    folder = Path(folder)
    rows = concepts_of(folder)[:limit]
    if unknown := sorted(set(takes) - set(TAKES)):
        raise ConfigError(f"takes {unknown} are not known; wanted some of {', '.join(TAKES)}")
    mixed = mix_voices(Path(kokoro) if kokoro else catalog.find(KOKORO), folder / "speech" / "kokoro")
    voices = [path.stem for path in sorted((mixed / "voices").glob("*.bin")) if "_mix" not in path.stem]
    missing = [(str(mixed), str(folder), said) for said in utterances(rows, voices, takes) if not (folder / said.path).is_file()]
    refused = []
    with counting(quiet) as progress, ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for wrong in progress.track(pool.map(_say, missing, chunksize=8), total=len(missing), description="speak"):
            refused += [wrong] if wrong else []
    listed = write_lines(folder / "spoken.jsonl", ({
        "parts": [{"audio": said.path}, {"text": said.text, "target": True}], "id": said.path.split("/", 1)[1][: -len(".flac")], "take": said.take,
        "language": said.language, "concept": said.concept, "voice": said.voice, "heard": not never_heard(said.concept)}
        for said in utterances(rows, voices) if (folder / said.path).is_file()))
    if refused:
        print(f"{len(refused)} not spoken, first: {refused[0]}")
    return listed


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sensorium.corpus.spoken", description="Have the corpus's names spoken.")
    parser.add_argument("folder", type=Path, help="of the corpus")
    parser.add_argument("--takes", nargs="+", choices=TAKES, default=TAKES, help="which (all)")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--kokoro", type=Path, default=None, help="folder of its weights (the catalog's)")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many concepts")
    options = parser.parse_args(arguments)
    try:
        print(f"{record(options.folder, options.takes, options.workers, options.kokoro, options.limit)} utterances")
    except (ConfigError, MediaError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
