"""Flamingo: a frozen language model looks at pictures through gated layers set between its own.

    pixels -> picture tower -> perceiver: 64 learned queries -\\
                                                               tanh-gated cross-attention before decoder layers
    ids -> vocabulary ----------------------------------------> causal decoder -> next token

A token sees the latest picture before it. What differs from the paper at full size: the tower is a vision transformer of NFNet-F6's size
(430M, 438M published), and the decoder turns its queries and keys (rotary positions) where Chinchilla adds a learned projection of relative
places, which takes the 1.4B decoder to 1.27B and the 70B one to 64.7B. The paper gives its sizes rounded.

Source: 2204.14198, section 2 and appendix A.1; no weights were published. IDEFICS (``zoo/idefics.py``) is what others trained by it.
"""

from __future__ import annotations

import sensorium as sn
from sensorium.spec import Spec
from sensorium.zoo.llava import chats
from sensorium.zoo.registry import Entry, register

__all__ = ["flamingo", "flamingo_3b", "flamingo_80b"]


def flamingo(image: Spec, resample: sn.Resample | sn.Project, decoder: sn.Decoder, vocab: int, every: int, heads: int,
             head_width: int | None = None) -> sn.Model:
    """A picture tower, a perceiver (or a projection, where features are few), a decoder, and a gated layer before each ``every`` decoder layers."""
    return sn.Model(
        encoders={"text": sn.Vocabulary(vocab, decoder.width), "image": image},
        align={"image": resample},
        fuse={"cross": sn.CrossAttend("image", width=decoder.width, source=resample.outside, layers=decoder.depth, every=every,
                                      heads=heads, head_width=head_width, gate="tanh")},
        decoder=decoder,
        heads={"text": sn.Tokens(decoder.width, vocab, tied=True)},
        objectives=(sn.NextToken(),))


def _chinchilla(width: int, depth: int, heads: int) -> sn.Decoder:
    return sn.Decoder(sn.Stack(width=width, depth=depth, heads=heads, bias=False, norm="rms", rope_theta=1e4, rule="causal"))


def _seen(decoder: sn.Decoder, every: int) -> sn.Model:
    return flamingo(sn.VisionEncoder(size=320, patch=32, width=1536, depth=15, heads=16, first=False, act="gelu"),
                    sn.Resample(1536, 1536, queries=64, depth=6, heads=16, head_width=96), decoder, 32_000, every, decoder.read.heads, 128)


def flamingo_3b() -> sn.Model:
    """Flamingo-3B: Chinchilla-1.4B with a gated layer before every layer."""
    return _seen(_chinchilla(2048, 24, 16), 1)


def flamingo_80b() -> sn.Model:
    """Flamingo-80B: Chinchilla-70B with a gated layer before every seventh layer."""
    return _seen(_chinchilla(8192, 80, 64), 7)


def _toy() -> sn.Model:
    return flamingo(sn.VisionEncoder(size=16, patch=8, width=24, depth=1, heads=2, first=False, act="gelu"),
                    sn.Resample(24, 20, queries=3, depth=2, heads=2, head_width=8), _chinchilla(32, 4, 4), 60, 2, 4)


register(Entry(name="flamingo", full=flamingo_3b, toy=_toy, batch=lambda samples, alone=False: chats(samples, alone, places=0),
               parameters=3_200_000_000, rounded=0.06, source="Flamingo-3B, 2204.14198, table 5; no published weights"))
register(Entry(name="flamingo_80b", full=flamingo_80b, toy=_toy, batch=lambda samples, alone=False: chats(samples, alone, places=0),
               parameters=80_000_000_000, rounded=0.09, source="Flamingo-80B, 2204.14198, table 5; no published weights"))
