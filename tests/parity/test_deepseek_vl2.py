"""DeepSeek-VL2 against a restatement: scores, loss, gradients, generation and prepared inputs.

The reference library has no such model. Its tower, its projector and how views become rows are said again here, loop by loop, from the paper
and the published program; the language models are the reference library's (the smallest, with plain attention, is the one inside its
DeepSeek-OCR-2). Tensors are saved under the published names.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image as Pillow
from PIL import ImageOps
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import sensorium as sn
from sensorium.generate import Sampling, continue_text
from sensorium.layers.experts import active
from sensorium.zoo.deepseek_vl2 import GRIDS, deepseek_vl2_base, deepseek_vl2_small, deepseek_vl2_tiny

from .reference import CLOSE, assert_same_gradients, assert_same_scores, saved, shaken, tensors

IMAGE, END, SIZE, PATCH, WIDTH = 59, 3, 13, 4, 24  # three patches a side, and a pixel that nobody looks at
SIDE = 2
PACKER = sn.Packer(places={"image": SIDE**2}, row=192, end=END)
SHARED = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4,
              n_shared_experts=2, num_experts_per_tok=2, moe_intermediate_size=12, first_k_dense_replace=1, vocab_size=60)
LATENT = dict(kv_lora_rank=12, q_lora_rank=None, qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6)
PLAIN = dict(kv_lora_rank=None, q_lora_rank=None, qk_nope_head_dim=0, qk_rope_head_dim=0, v_head_dim=0, use_mla=False)
KINDS = {"tiny": {**SHARED, **PLAIN}, "small": {**SHARED, **LATENT},
         "base": {**SHARED, **LATENT, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True, "n_group": 1, "topk_group": 1,
                  "routed_scaling_factor": 2.0}}


def language(kind: str) -> Any:
    common = {key: value for key, value in KINDS[kind].items() if key not in ("use_mla", "topk_method", "scoring_func")}
    if kind == "tiny":
        from transformers.models.deepseek_ocr2.modeling_deepseek_ocr2 import DeepseekOcr2TextConfig, DeepseekOcr2TextModel

        layers = ["dense"] + ["sparse"] * (SHARED["num_hidden_layers"] - 1)
        return DeepseekOcr2TextModel(DeepseekOcr2TextConfig(**{k: v for k, v in common.items() if k not in PLAIN}, mlp_layer_types=layers))
    name = {"small": "V2", "base": "V3"}[kind]
    return getattr(transformers, f"Deepseek{name}Model")(getattr(transformers, f"Deepseek{name}Config")(**common))


class Layer(nn.Module):
    """A layer of the tower, as its file names it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(WIDTH, 3 * WIDTH), "proj": nn.Linear(WIDTH, WIDTH)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(WIDTH, 40), "fc2": nn.Linear(40, WIDTH)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.attn["qkv"](self.norm1(x)).chunk(3, dim=-1)
        heads = []
        for at in range(0, WIDTH, WIDTH // 2):
            q, k, v = (part[..., at : at + WIDTH // 2] for part in (query, key, value))
            heads.append((q @ k.transpose(1, 2) / (WIDTH // 2) ** 0.5).softmax(dim=-1) @ v)
        x = x + self.attn["proj"](torch.cat(heads, dim=-1))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x)), approximate="tanh"))


class Restated(nn.Module):
    """The whole model, each picture by itself."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        side = SIZE // PATCH
        self.vision = nn.ModuleDict({"patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, WIDTH, PATCH, PATCH)}),
                                     "blocks": nn.ModuleList(Layer() for _ in range(2)), "norm": nn.LayerNorm(WIDTH, eps=1e-6)})
        self.vision.register_parameter("pos_embed", nn.Parameter(torch.zeros(1, side * side, WIDTH)))
        self.projector = nn.ModuleDict({"layers": nn.Sequential(nn.Linear(4 * WIDTH, 32), nn.GELU(), nn.Linear(32, 32))})
        self.image_newline, self.view_seperator = nn.Parameter(torch.zeros(32)), nn.Parameter(torch.zeros(32))
        self.language, self.lm_head = language(kind), nn.Linear(32, 60, bias=False)

    def tile(self, pixels: torch.Tensor) -> torch.Tensor:
        """One tile -> (SIDE, SIDE, 32)."""
        side = SIZE // PATCH
        x = self.vision["patch_embed"]["proj"](pixels[None]).flatten(2).transpose(1, 2) + self.vision.pos_embed
        for block in self.vision["blocks"]:
            x = block(x)
        x = self.vision["norm"](x)[0].reshape(side, side, WIDTH)
        rows = []
        for r in range(0, side, 2):
            row = []
            for c in range(0, side, 2):
                four = [x[r + i, c + j] if r + i < side and c + j < side else torch.zeros(WIDTH) for i in (0, 1) for j in (0, 1)]
                row.append(self.projector["layers"](torch.stack(four, dim=1).flatten()))  # channel by channel
            rows.append(torch.stack(row))
        return torch.stack(rows)

    def views(self, pixels: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
        """The whole and its tiles -> what stands among the words."""
        whole, *tiles = [self.tile(one) for one in pixels]
        out = [torch.cat([line, self.image_newline[None]]) for line in whole] + [self.view_seperator[None]]
        for r in range(rows):
            for line in range(SIDE):
                out += [tiles[r * columns + c][line] for c in range(columns)] + [self.image_newline[None]]
        return torch.cat(out)

    def forward(self, input_ids: torch.Tensor, pixels: list[torch.Tensor], grids: list[tuple[int, int]], labels: torch.Tensor | None = None) -> Any:
        x = self.language.embed_tokens(input_ids)
        found = torch.cat([self.views(one, *grid) for one, grid in zip(pixels, grids, strict=True)])
        x = x.masked_scatter((input_ids == IMAGE)[..., None], found)
        logits = self.lm_head(self.language(inputs_embeds=x).last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits[0, :-1], labels[0, 1:])
        return SimpleNamespace(logits=logits, loss=loss)

    def save_pretrained(self, folder: Path) -> None:
        """Under the published names."""
        folder.mkdir(parents=True, exist_ok=True)
        self.language.save_pretrained(folder / "language")
        stored = {}
        for name, value in tensors(folder / "language").items():
            name = f"language.model.{name.removeprefix('model.')}"
            for x, one in enumerate(value if name.endswith(("experts.gate_up_proj", "experts.down_proj")) else ()):  # all experts in one
                parts = zip(("gate", "up"), one.chunk(2), strict=True) if "gate_up" in name else [("down", one)]
                stored |= {f"{name.rpartition('.')[0]}.{x}.{part}_proj.weight": matrix for part, matrix in parts}
            stored |= {} if name.endswith(("experts.gate_up_proj", "experts.down_proj")) else {name: value}
        stored |= {n: v.detach() for n, v in self.state_dict().items() if not n.startswith(("language.", "lm_head."))}
        stored |= {"language.lm_head.weight": self.lm_head.weight.detach(), "vision.attn_pool.latent": torch.zeros(1, 1, WIDTH)}
        save_file({name: value.contiguous() for name, value in stored.items()}, folder / "model.safetensors")
        config = {"model_type": "deepseek_vl_v2", "tile_tag": "2D", "global_view_pos": "head", "language_config": KINDS[self.kind],
                  "vision_config": {"image_size": SIZE, "patch_size": PATCH, "width": WIDTH, "layers": 2, "heads": 2, "mlp_ratio": 40 / WIDTH + 1e-9},
                  "projector_config": {"input_dim": WIDTH, "n_embed": 32, "projector_type": "downsample_mlp_gelu"},
                  "candidate_resolutions": [[SIZE, SIZE], [2 * SIZE, SIZE], [SIZE, 2 * SIZE], [2 * SIZE, 2 * SIZE]]}
        (folder / "config.json").write_text(json.dumps(config))


def reference(kind: str) -> Restated:
    model = shaken(Restated(kind))
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


CODEC = sn.ViewsCodec(sn.VisionCodec(size=SIZE, background=(127, 127, 127)), ((SIZE, SIZE), (SIZE, 2 * SIZE), (2 * SIZE, SIZE)), SIDE)
SAMPLES = [([1, 9], [(20, 50), (40, 20)], [25, 26], [40, 41]), ([1], [(13, 13)], [20, 21, 22], [30, 31, 32, 33])]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def seen(shape: tuple[int, int]) -> sn.Arrays:
    return CODEC.encode(sn.Image(torch.from_numpy(picture(*shape)).permute(2, 0, 1).float() / 255))


def parts_of(sample: tuple, answer: bool = True) -> list[sn.Arrays]:
    before, shapes, ask, said = sample
    parts = [sn.Arrays("text", before), *map(seen, shapes), sn.Arrays("text", ask)]
    return parts + ([sn.Arrays("text", said, target=True)] if answer else [])


def their_inputs(sample: tuple, answer: bool = True) -> dict[str, Any]:
    before, shapes, ask, said = sample
    arrays, grids = [seen(shape) for shape in shapes], [(1, 2) if w > 1.5 * h else (2, 1) if h > 1.5 * w else (1, 1) for h, w in shapes]
    ids = [*before, *[IMAGE] * sum(len(one.pick) for one in arrays), *ask]
    labels = [-100] * len(ids) + [*said, END]
    out = {"input_ids": torch.tensor([ids + ([*said, END] if answer else [])]), "pixels": [one.value for one in arrays], "grids": grids}
    return out | ({"labels": torch.tensor([labels])} if answer else {})


@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward(kind: str, tmp_path: Path) -> None:
    theirs, report = reference(kind), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert set(report.ignored.values()) == {"behind the patches that are read"}
    batch = PACKER.pack([PACKER.segment(parts_of(sample)) for sample in SAMPLES])  # both samples share a row
    assert len(batch.token_BT) == 1 and len(batch.media["image"]) == 8
    assert_same_scores(model, theirs, batch, [their_inputs(sample) for sample in SAMPLES])
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_generation(tmp_path: Path) -> None:
    theirs = reference("small")
    model = sn.load(saved(theirs, tmp_path))
    ours = continue_text(model, PACKER.pack([PACKER.segment(parts_of(s, False)) for s in SAMPLES], alone=True), Sampling(max_tokens=8, end=END))
    for sample, ids in zip(SAMPLES, ours, strict=True):
        given, wanted = their_inputs(sample, answer=False), []
        with torch.no_grad():
            while len(wanted) < 8 and END not in wanted:
                wanted.append(int(theirs(**given).logits[0, -1].argmax()))
                given["input_ids"] = torch.cat([given["input_ids"], torch.tensor([wanted[-1:]])], dim=1)
        assert ids == [i for i in wanted if i != END]


@pytest.mark.parametrize("size", [(20, 50), (40, 20), (30, 31), (7, 90), (13, 13), (200, 201)])
def test_prepared_inputs(size: tuple[int, int]) -> None:
    """The whole padded to a square, the tiles of the padded grid, and how many places they take, as the published program has them."""
    values = picture(*size)
    best, most, least = None, 0, float("inf")
    for high, wide in CODEC.grids:
        scale = min(wide / size[1], high / size[0])
        kept = min(int(size[1] * scale) * int(size[0] * scale), size[0] * size[1])
        if kept > most or kept == most and wide * high - kept < least:
            best, most, least = (high, wide), kept, wide * high - kept
    whole, spread = (ImageOps.pad(Pillow.fromarray(values), sides, color=(127, 127, 127)) for sides in ((SIZE, SIZE), best[::-1]))
    tiles = [whole] + [spread.crop((x, y, x + SIZE, y + SIZE)) for y in range(0, best[0], SIZE) for x in range(0, best[1], SIZE)]
    wanted = torch.stack([(torch.from_numpy(np.array(tile)).permute(2, 0, 1) / 255 - 0.5) / 0.5 for tile in tiles])
    ours = seen(size)
    torch.testing.assert_close(ours.value, wanted, **CLOSE)
    assert len(ours.pick) == SIDE * (SIDE + 1) + 1 + best[0] // SIZE * SIDE * (best[1] // SIZE * SIDE + 1)


@pytest.mark.parametrize("make, billions, remembered", [(deepseek_vl2_tiny, 1.0, 30_720), (deepseek_vl2_small, 2.8, 15_552),
                                                        (deepseek_vl2_base, 4.5, 17_280)])
def test_the_published_size_uses_what_the_paper_says(make: Any, billions: float, remembered: int) -> None:
    """Parameters that a token uses, without the table of embeddings; numbers that a cache keeps of it; places of a picture."""
    model = make().build(device="meta")
    assert abs((active(model) - model.encoders["text"].token.weight.numel()) / 1e9 - billions) < 0.1
    assert model.spec.decoder.read.remembered == remembered
    codec = sn.ViewsCodec(sn.VisionCodec(size=384), GRIDS)
    assert model.spec.places("image") == 196 and len(codec.encode(sn.Image(torch.rand(3, 300, 800))).pick) == 210 + 1 + 14 * 43
    assert sn.from_json(codec.to_json()) == codec
