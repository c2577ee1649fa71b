"""Drawing beside diffusers: one look of a DiT and of a U-Net with the same weights, and what looking less often saves.

diffusers multiplies in bfloat16, ours as it does and in 8 bits; PSNR is against what diffusers gives.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from talk import in_turns, seconds

import sensorium as sn
from sensorium.denoise import Solver
from sensorium.layers.int8 import in_int8
from sensorium.types import Written

__all__ = ["DRAWING"]


def _shaken(model: Any) -> Any:
    """Weights at random, so that no layer is left out by being zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.02)
    return model.eval().to(torch.bfloat16)


def psnr(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Decibels, against the range of what is wanted."""
    error = (found.float() - wanted.float()).square().mean()
    return float(10 * torch.log10((wanted.float().max() - wanted.float().min()) ** 2 / error))


def _compared(model: sn.ModelNet, look: Callable[[sn.ModelNet], torch.Tensor], peer: Callable[[], torch.Tensor]) -> dict[str, float]:
    quick = in_int8(model)
    with torch.inference_mode():
        wanted = peer()
        agree = {f"{name}psnr_db": psnr(look(one), wanted) for name, one in (("", quick), ("bfloat16_", model))}
        works = {"ours": lambda: look(quick), "plain": lambda: look(model), "peer": peer}
        times = in_turns({name: lambda work=work: seconds(work) for name, work in works.items()}, 5)
    return {"ours_s": times["ours"], "bfloat16_s": times["plain"], "peer_s": times["peer"], "ratio": times["peer"] / times["ours"],
            "bfloat16_ratio": times["peer"] / times["plain"], **agree}


def dit_step() -> dict[str, float]:
    """DiT-XL/2 at 256 pixels, two pictures (with and without the class), one step."""
    import diffusers

    peer = _shaken(diffusers.DiTTransformer2DModel(num_attention_heads=16, attention_head_dim=72, in_channels=4, out_channels=8, num_layers=28,
                                                   sample_size=32, num_embeds_ada_norm=1000))
    first = peer.transformer_blocks[0].norm1.emb.state_dict()
    for block in peer.transformer_blocks:
        block.norm1.emb.load_state_dict(first)
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        model = sn.load(folder, dtype=torch.bfloat16)
    x, labels, none = torch.randn(2, 4, 32, 32, dtype=torch.bfloat16), torch.tensor([3, 7]), torch.full((2,), -1)
    written, known, steps = Written(x, none, none, none * 0, none, labels), torch.ones(2, dtype=torch.bool), torch.tensor([500, 500])
    return _compared(model, lambda one: one.write("image", x, steps / 1000, written, known),
                     lambda: peer(x, timestep=steps, class_labels=labels).sample)


def unet_step() -> dict[str, float]:
    """Stable Diffusion 1.5's U-Net at 512 pixels, two pictures (with and without the prompt), one step."""
    import diffusers

    from sensorium.fuse import Prompted
    from sensorium.zoo.stable_diffusion import _made, _there, stable_diffusion_15

    peer = _shaken(diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768))
    weights = peer.state_dict()
    model = stable_diffusion_15().build(dtype=torch.bfloat16).eval()
    own = {name: _there(name).removeprefix("unet.") for name in model.state_dict() if name.startswith(("decoder.", "fuse.", "heads.image."))}
    made = {name: weights[there] if _made(name) is None else _made(name)(weights[there]) for name, there in own.items()}
    model.load_state_dict(made, strict=False)
    x, source = torch.randn(2, 4, 64, 64, dtype=torch.bfloat16), torch.randn(2, 77, 768, dtype=torch.bfloat16)
    none, rows, steps = torch.full((2,), -1), torch.arange(2), torch.tensor([500, 500])
    written, known = Written(x, rows, none, none * 0, none, none), torch.ones(2, dtype=torch.bool)
    prompt = Prompted(torch.cat([source, source[:1]]))
    return _compared(model, lambda one: one.write("image", x, steps / 1000, written, known, prompt=prompt),
                     lambda: peer(x, steps, encoder_hidden_states=source).sample)


def looking_less(count: int = 8) -> dict[str, float]:
    """nano's drawings in 48 steps, asked at one in three, beside being asked at every one; PSNR of the final pictures."""
    from sensorium.catalog import find

    model, prompts = sn.load(find("nano")), [[f"Draw {what}"] for what in ("a red apple", "a dog", "a car", "a house", "the sun", "a tree", "a fish",
                                                                            "a cup")][:count]
    pictures: dict[str, torch.Tensor] = {}

    def drawn(name: str, solver: Solver) -> None:
        pictures[name] = torch.stack([image.source for image in sn.draw_images(model, prompts, solver)])

    times = in_turns({"whole": lambda: seconds(lambda: drawn("whole", Solver(steps=48))),
                      "less": lambda: seconds(lambda: drawn("less", Solver(steps=48, every=3, order=1)))}, 3)
    return {"ours_s": times["less"], "peer_s": times["whole"], "ratio": times["whole"] / times["less"],
            "psnr_db": psnr(pictures["less"], pictures["whole"])}


DRAWING = {"dit_step": dit_step, "unet_step": unet_step, "looking_less": looking_less}
