"""Toy models and runs for tests: small, seeded, made in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import sensorium as sn
from sensorium.zoo.nano import nano

SPECIALS = ("<pad>", "<embed>", "<say>", "<end>")
WORDS = ["red apple", "a dog", "blue sky", "红苹果", "小狗", "What is this?", "这是什么？", "Draw a house"]


def tokenizer() -> sn.Tokenizer:
    """A byte-level tokenizer of 300 ids."""
    return sn.Tokenizer.train(WORDS * 4, 300, SPECIALS)


def toy_nano(vocab: int = 300, size: int = 32) -> sn.Model:
    """The any-to-any sentence at toy size."""
    full = nano(vocab=vocab, size=size)
    small = dict(depth=2, heads=2, head_width=16, rope_axes=(2, 3, 3))
    read, write = replace(full.decoder.read, width=32, hidden=48, **small), replace(full.decoder.write, width=40, hidden=56, adaln=40, **small)
    return replace(
        full,
        encoders={"text": sn.Vocabulary(vocab, 32), "image": sn.PyramidEncoder(size=size, widths=(8, 16, 24), blocks=(1, 1, 1))},
        align={"image": sn.Merge(24, 32, size=2)},
        fuse={"splice": sn.Splice(("image",)), "condition": sn.Condition(40, state=24, frequencies=32)},
        decoder=sn.Decoder(read, write),
        heads={"text": sn.Tokens(32, vocab, tied=True), "embed": sn.Unit(32, 24, token=1),
               "image": sn.Flow(40, size=size, patch=8, condition=40, bottleneck=16)})


def toy_batch(step: int, size: int = 32, count: int = 4) -> sn.Batch:
    """Pictures of flat colour with the name of the colour: reading and writing segments, paired."""
    generator = torch.Generator().manual_seed(step)
    packer = sn.Packer(places={"image": 4}, row=32, embed=1, say=2, end=3, axes=True)
    reading, writing = [], []
    for _ in range(count):
        colour = torch.rand(3, generator=generator)
        picture = (colour[:, None, None].expand(3, size, size) * 2 - 1).contiguous()
        name = [10 + int(value * 20) for value in colour]
        reading.append(packer.segment([sn.Arrays("image", picture), sn.Arrays("text", [5, 6]), sn.Arrays("text", name, target=True)]))
        writing.append(packer.segment([sn.Arrays("text", name), sn.Arrays("image", picture, target=True)]))
    return packer.pack(reading + writing, {"image": list(range(count)), "text": list(range(count, 2 * count))}, list(range(count)))


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
