"""Every recipe at a tiny setting: its loss curve is the one that is kept, and a run that was cut goes on bit by bit as if it never was.

    python -m tests.test_golden      write golden.json anew, after a change that is meant to change a curve
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image as Pillow
from rich.console import Console

import sensorium as sn
from sensorium.checkpoint import read_tensors

from .test_recipes import STYLES, write_corpus

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import fewshot  # noqa: E402
import gan  # noqa: E402
import judge  # noqa: E402
import nano_video  # noqa: E402
import nano_voice  # noqa: E402
import see  # noqa: E402

import baselines  # noqa: E402
import nano  # noqa: E402
import nano_audio  # noqa: E402

GOLDEN, STEPS = Path(__file__).parent / "golden.json", 4
TINY: dict[str, Callable[[str], sn.Run]] = {
    "clip-only": lambda data: replace(baselines.run("clip", data, STEPS, pictures=4), start=None),
    "dit-only": lambda data: baselines.run("dit", data, STEPS, pictures=4),
    "fewshot": lambda data: replace(fewshot.run(STEPS, games=2, shots=2), start=None),
    "gan": lambda data: gan.run(data, STEPS, pictures=6, width=8),
    "judge": lambda data: replace(judge.run(data, STEPS, pictures=6), start=None),
    "nano": lambda data: replace(nano.run(data, STEPS, pictures=4, drawn=4), start=None),
    "nano-audio": lambda data: nano_audio.run(data, STEPS, sounds=4, takes="mix0 own"),
    "nano-video": lambda data: nano_video.run(data, STEPS, clips=1, stills=1),
    "nano-voice": lambda data: nano_voice.run(data, STEPS, sounds=4),
    "see": lambda data: replace(see.run(data, "words", steps=STEPS, drawings=2, scenes=2), start=None),
}
NEEDS = {"see": "smollm2-135m-instruct"}


def write_senses(folder: Path) -> Path:
    """A corpus with sounds and clips beside its pictures."""
    write_corpus(folder, (*STYLES, "fluent-3d"), ("val", "test", "unseen"))
    concepts = [json.loads(line) for line in (folder / "concepts.jsonl").read_text(encoding="utf-8").splitlines()]
    rng, spoken, clips = np.random.default_rng(0), [], []
    for number, row in enumerate(concepts):
        for take in ("own", "mix0", "test"):
            name = f"speech/{take}/en/{row['id']}.flac"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            time = np.arange(14_000 + 700 * (number % 5)) / 16_000
            soundfile.write(folder / name, 0.3 * np.sin(2 * math.pi * (200 + 40 * number) * time) + 0.01 * rng.standard_normal(len(time)), 16_000)
            spoken.append({"parts": [{"audio": name}, {"text": row["en"], "target": True}], "take": take, "language": "en", "concept": row["id"],
                           "voice": "af_a", "heard": True})
        frames = [Pillow.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(4)]
        (folder / "clips").mkdir(exist_ok=True)
        frames[0].save(folder / "clips" / f"{row['id']}.webp", save_all=True, append_images=frames[1:], duration=100, lossless=True)
        clips.append({"parts": [{"video": f"clips/{row['id']}.webp"}], "concept": row["id"], "split": ("train", "test")[number % 2]})
    for name, rows in (("spoken", spoken), ("clips", clips)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def curve(run: sn.Run, folder: Path, cuts: tuple[int, ...] = ()) -> list[float]:
    """The sum of a run's losses at each step; it is cut after so many steps, each time begun anew from what lies in the folder."""
    found: list[float] = []
    run = replace(run, validation=(), validate_every=0, evaluate=None)
    for steps in (*cuts, None):
        sn.fit(run, folder, steps=steps, console=Console(quiet=True), watch=lambda step, losses: found.append(sum(losses.values())))
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_senses(tmp_path_factory.mktemp("corpus"))


@pytest.mark.parametrize("name", TINY)
def test_a_recipe_keeps_its_curve_and_goes_on_where_it_was(name: str, corpus: Path, tmp_path: Path) -> None:
    if name in NEEDS and not sn.catalog.ready(NEEDS[name]):
        pytest.skip(f"needs {NEEDS[name]}")
    whole = curve(TINY[name](str(corpus)), tmp_path / "whole")
    cut = curve(TINY[name](str(corpus)), tmp_path / "cut", cuts=(2,))
    assert cut == whole, "a run that was cut went another way"
    one, other = (read_tensors(tmp_path / which / f"step-{STEPS:08d}" / "weights.safetensors") for which in ("whole", "cut"))
    assert all(torch.equal(value, other[key]) for key, value in one.items()) and set(one) == set(other)
    assert whole == pytest.approx(json.loads(GOLDEN.read_text(encoding="utf-8"))[name], rel=0.03)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        data = write_senses(Path(place) / "corpus")
        ready = [name for name in TINY if name not in NEEDS or sn.catalog.ready(NEEDS[name])]
        curves = {name: [round(value, 4) for value in curve(TINY[name](str(data)), Path(place) / name)] for name in ready}
    GOLDEN.write_text(json.dumps(curves, indent=1) + "\n", encoding="utf-8")
