"""nano: natively any-to-any; text and pictures in, text and pictures out, one shared space.

    picture -> pyramid -> merge 2x2 -\\
                                      splice -> reading expert -> next token, embedding
    text -> vocabulary --------------/              | keys, values, embedding
    noise -> patches -----------------------> writing expert -> picture
"""

from __future__ import annotations

import sensorium as sn

__all__ = ["nano"]


def nano(vocab: int = 4096, size: int = 64) -> sn.Model:
    """The shipped model.

    Args:
        vocab: of its tokenizer.
        size: pixels on a side, a multiple of 32.

    Source: experts by modality as in Mixture-of-Transformers (2411.04996) and BAGEL (2505.14683); text and pictures in one sequence as
    in Transfusion (2408.11039); drawing conditioned on the joint embedding as in unCLIP (2204.06125); samples predicted from large
    patches as in JiT (2511.13720).
    """
    shared = dict(depth=6, heads=4, head_width=64, norm="rms", bias=False, qk_norm=True, rope_theta=1e4, rope_axes=(8, 12, 12),
                  rule="mixed", act="gelu_tanh")
    read, write, joint = 256, 320, 256
    return sn.Model(
        encoders={"text": sn.Vocabulary(vocab, read), "image": sn.PyramidEncoder(size=size)},
        align={"image": sn.Merge(256, read, size=2)},
        fuse={"splice": sn.Splice(("image",)), "condition": sn.Condition(write, state=joint)},
        decoder=sn.Decoder(sn.Stack(width=read, hidden=2 * read, **shared),
                           sn.Stack(width=write, hidden=4 * write, adaln=write, adaln_shared=True, final_norm=False, **shared)),
        heads={"text": sn.Tokens(read, vocab, tied=True), "embed": sn.Unit(read, joint, token=1),
               "image": sn.Flow(write, size=size, patch=16, condition=write, bottleneck=128, refine=12)},
        objectives=(sn.Contrastive("image", "text", temperature=0.07), sn.NextToken(weight=0.5), sn.FlowMatching(mean=-0.4, std=0.9)))
