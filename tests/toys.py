"""Toy models and runs for tests: small, seeded, made in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import sensorium as sn
from sensorium.codecs.clips import FrameStack
from sensorium.zoo.nano import colours, toy_nano
from sensorium.zoo.nano_whole import FRAMES, SOUND, toy_whole_nano

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


def saved_whole_toy(folder: Path, seed: int = 7) -> Path:
    """A toy that reads and writes text, pictures, sounds and videos, saved with its codecs. It says "ho ho" to everything, and draws at random."""
    picture = sn.VisionCodec(size=32)
    codecs = sn.Codecs(image=picture, context=32, say="<say>", end="<end>", audio=sn.AudioCodec(frames=SOUND), voice=sn.VoiceCodec(rounds=4),
                       video=FrameStack(picture, frames=FRAMES, rate_hz=2.0))
    files = {"tokenizer.json": tokenizer().to_json().encode(), "codecs.json": codecs.to_json().encode()}
    model, generator = toy_whole_nano(tokenizer().vocab).build(seed=seed), torch.Generator().manual_seed(seed)
    for parameter in model.heads["image"].parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return sn.save(model, folder, files)
