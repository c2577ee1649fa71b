"""see: SmolLM2 looks at pictures through nano's eyes and answers in sentences.

    picture -+-> at 64 pixels: nano's eyes, which know things     -> 4 places -\\
             +-> at 96: small eyes, which know what stands where -> 9 places -+-> MLP ---\\
                                                                                         SmolLM2, with adapters -> next token
    question -> ids -> vocabulary -------------------------------------------------------/

Small eyes and MLP learn first to spell: each place is brought near the vocabulary's vectors of the words that it shows (``Spell``), without the
decoder. The decoder then learns to speak about them.

Source: eyes and words joined as in LLaVA (2304.08485); weights trained by recipes/see.py.
"""

from __future__ import annotations

from dataclasses import replace

import sensorium as sn
from sensorium.zoo.llama import smollm2_135m

__all__ = ["see", "spelling"]

SMALL = ((3, 24, 1, 2, 3), (4, 40, 2, 2, 3), (4, 80, 2, 2, 3), (4, 128, 2, 2, 3))
"""Stages of the small eyes, a fourth of the work of EfficientNet-Lite0's."""


def see(base: sn.Model | None = None, eyes: sn.Looks | None = None, hidden: int = 1024) -> sn.Model:
    """The model, without adapters.

    Args:
        base: the language model; None is SmolLM2 135M.
        eyes: None are nano's at 64 pixels and small ones at 96.
        hidden: width inside the connector.
    """
    base = base or smollm2_135m()
    eyes = eyes or sn.Looks(size=128, looks=(sn.MobileEncoder(size=64), sn.MobileEncoder(size=96, stem=24, stages=SMALL)))
    connector = sn.Project(eyes.width, base.decoder.width, hidden=hidden, bias=True, norm=True, slots=eyes.patches)
    return replace(base, encoders={**base.encoders, "image": eyes}, fuse={"splice": sn.Splice(("image",))}, align={"image": connector})


def spelling(model: sn.Model) -> sn.Model:
    """Eyes, connector and vocabulary of a model that sees, before the decoder comes to them."""
    return sn.Model(encoders=model.encoders, align=model.align, objectives=(sn.Spell("image"),))
