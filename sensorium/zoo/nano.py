"""nano's core: text and pictures in, text and pictures out, one shared space; what else it reads and writes grows on it (``nano_whole``).

    picture -> convolutions -> project -\\
                                         splice -> reading expert -> next token, embedding
    text -> vocabulary -----------------/              | keys, values, embedding
    noise -> patches --------------------------> writing expert -> picture
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

import sensorium as sn
from sensorium.types import Batch

__all__ = ["colour", "colours", "nano", "toy_nano"]


def nano(vocab: int = 4096, size: int = 64) -> sn.Model:
    """The shipped model.

    Args:
        vocab: of its tokenizer.
        size: pixels on a side, a multiple of 32.

    Source: experts by modality as in Mixture-of-Transformers (2411.04996) and BAGEL (2505.14683); text and pictures in one sequence as
    in Transfusion (2408.11039); drawing conditioned on the joint embedding as in unCLIP (2204.06125); samples predicted from large
    patches as in JiT (2511.13720). Its eyes are EfficientNet-Lite0's and may start from its published weights.
    """
    shared = dict(depth=6, heads=4, head_width=64, norm="rms", bias=False, qk_norm=True, rope_theta=1e4, rope_axes=(8, 12, 12),
                  rule="mixed", act="gelu_tanh")
    read, write, joint = 256, 320, 256
    return sn.Model(
        encoders={"text": sn.Vocabulary(vocab, read), "image": sn.MobileEncoder(size=size)},
        align={"image": sn.Project(1280, read)},
        fuse={"splice": sn.Splice(("image",)), "condition": sn.Condition(write, state=joint)},
        decoder=sn.Decoder(sn.Stack(width=read, hidden=2 * read, **shared),
                           sn.Stack(width=write, hidden=4 * write, adaln=write, adaln_shared=True, final_norm=False, **shared)),
        heads={"text": sn.Tokens(read, vocab, tied=True), "embed": sn.Unit(read, joint, token=1),
               "image": sn.Flow(write, size=size, patch=16, condition=write, bottleneck=128, refine=12)},
        objectives=(sn.Contrastive("image", "text", temperature=0.07), sn.NextToken(weight=1.5), sn.FlowMatching(mean=-0.4, std=0.9)))


TOY_STAGES = ((1, 8, 1, 1, 3), (2, 12, 1, 2, 3), (2, 12, 2, 2, 5), (2, 16, 1, 2, 3))


def toy_nano(vocab: int = 300, size: int = 32) -> sn.Model:
    """The same sentence at toy size."""
    full = nano(vocab=vocab, size=size)
    small = dict(depth=2, heads=2, head_width=16, rope_axes=(2, 3, 3))
    read, write = replace(full.decoder.read, width=32, hidden=48, **small), replace(full.decoder.write, width=40, hidden=56, adaln=40, **small)
    return replace(
        full,
        encoders={"text": sn.Vocabulary(vocab, 32), "image": sn.MobileEncoder(size=size, stem=8, stages=TOY_STAGES, width=24)},
        align={"image": sn.Project(24, 32)},
        fuse={"splice": sn.Splice(("image",)), "condition": sn.Condition(40, state=24, frequencies=32)},
        decoder=sn.Decoder(read, write),
        heads={"text": sn.Tokens(32, vocab, tied=True), "embed": sn.Unit(32, 24, token=1),
               "image": sn.Flow(40, size=size, patch=8, condition=40, bottleneck=16, refine=4)})


def colour(number: int, size: int = 32) -> tuple[torch.Tensor, list[int]]:
    """A flat picture (3, H, W), and its colour in three toy ids."""
    colour = torch.rand(3, generator=torch.Generator().manual_seed(number))
    return (colour[:, None, None].expand(3, size, size) * 2 - 1).contiguous(), [10 + int(value * 20) for value in colour]


def colours(samples: Sequence[int], alone: bool = False, size: int = 32) -> Batch:
    """A toy batch of flat pictures with the colour's name, read and written; sample ``i`` is always the same colour."""
    packer = sn.Packer(places={"image": 4}, row=32, embed=1, say=2, end=3, axes=True)
    reading, writing = [], []
    for number in samples:
        picture, name = colour(number, size)
        reading.append(packer.segment([sn.Arrays("image", picture), sn.Arrays("text", [5, 6]), sn.Arrays("text", name, target=True)]))
        writing.append(packer.segment([sn.Arrays("text", name), sn.Arrays("image", picture, target=True)]))
    count = len(reading)
    pairs = {"image": list(range(count)), "text": list(range(count, 2 * count))}
    return packer.pack(reading + writing, pairs, list(samples), alone=alone)
