"""Toy models and runs for tests: small, seeded, made in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import sensorium as sn
from sensorium.zoo.nano import colours, toy_nano

SPECIALS = ("<pad>", "<embed>", "<say>", "<end>")
WORDS = ["red apple", "a dog", "blue sky", "红苹果", "小狗", "What is this?", "这是什么？", "Draw a house"]


def tokenizer() -> sn.Tokenizer:
    """A byte-level tokenizer of 300 ids."""
    return sn.Tokenizer.train(WORDS * 4, 300, SPECIALS)


def toy_batch(step: int, size: int = 32, count: int = 4) -> sn.Batch:
    """A batch of the any-to-any toy; a function of the step alone."""
    return colours(range(step * count, (step + 1) * count), size=size)


def toy_run(steps: int = 12, **changes: object) -> sn.Run:
    """A run of a few milliseconds a step."""
    run = sn.Run(name="toy", model=toy_nano(), batch=toy_batch, steps=steps, groups=(sn.Group(kind="muon", rate=1e-3),), ema=0.9,
                 validate_every=0, save_every=3)
    return replace(run, **changes)


def saved_toy(folder: Path, seed: int = 0) -> Path:
    """A toy model saved with its codecs."""
    codecs = sn.Codecs(image=sn.VisionCodec(size=32), context=32, say="<say>", end="<end>")
    files = {"tokenizer.json": tokenizer().to_json().encode(), "codecs.json": codecs.to_json().encode()}
    return sn.save(toy_nano(tokenizer().vocab).build(seed=seed), folder, files)
