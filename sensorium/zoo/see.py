"""see: SmolLM2 looks at pictures through nano's eyes and answers in sentences.

    picture -> the whole and its four quarters, 64 pixels each -> eyes -> MLP -> 20 places -\\
                                                                                            SmolLM2, with adapters -> next token
    question -> ids -> vocabulary ---------------------------------------------------------/

Source: eyes and words joined as in LLaVA (2304.08485), quarters beside the whole as in LLaVA-NeXT; weights trained by recipes/see.py.
"""

from __future__ import annotations

from dataclasses import replace

import sensorium as sn
from sensorium.zoo.llama import smollm2_135m

__all__ = ["see", "short_see"]


def see(base: sn.Model | None = None, eyes: sn.MobileEncoder | None = None, hidden: int = 1024) -> sn.Model:
    """The model, without adapters.

    Args:
        base: the language model; None is SmolLM2 135M.
        eyes: None are nano's, for a picture of 128 pixels.
        hidden: width inside the connector.
    """
    base, eyes = base or smollm2_135m(), eyes or sn.MobileEncoder(size=128, tile=64)
    return replace(base, encoders={**base.encoders, "image": eyes}, fuse={"splice": sn.Splice(("image",))},
                   align={"image": sn.Project(eyes.width, base.decoder.width, hidden=hidden, bias=True, norm=True)})


def short_see(depth: int = 4) -> sn.Model:
    """The same with the first layers of the decoder alone: enough for the eyes to learn what is asked of them, at a sixth of the work."""
    base = smollm2_135m()
    return see(replace(base, decoder=replace(base.decoder, read=replace(base.decoder.read, depth=depth))))
