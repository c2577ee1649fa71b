"""LLaVA against transformers: scores, loss, gradients, generation, from its own saved folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import sensorium as sn

from .reference import assert_same_generation, assert_same_gradients, assert_same_scores, saved, shaken, tensors

IMAGE, END = 59, 3


def reference(kv_heads: int = 2, tower: str = "CLIP", words: str = "Llama", **changes: Any) -> Any:
    vision = getattr(transformers, f"{tower}VisionConfig")(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2,
                                                           image_size=16, patch_size=8)
    text = getattr(transformers, f"{words}Config")(**{**dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=kv_heads, vocab_size=60,
        rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=END, pad_token_id=0), **changes})
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, image_seq_length=4,
                                      vision_feature_select_strategy="default" if tower == "CLIP" else "full")
    return shaken(transformers.LlavaForConditionalGeneration(config))


def samples() -> list[list[sn.Arrays]]:
    generator = torch.Generator().manual_seed(3)
    out = []
    for before, question, answer in (([1], [20, 21, 22], [30, 31, 32, 33]), ([1, 12], [25], [40, 41])):
        picture = torch.randn(3, 16, 16, generator=generator)
        out.append([sn.Arrays("text", before), sn.Arrays("image", picture), sn.Arrays("text", question), sn.Arrays("text", answer, target=True)])
    return out


def their_inputs(parts: list[sn.Arrays], answer: bool = True) -> dict[str, torch.Tensor]:
    ids, labels = [], []
    for part in parts:
        if part.target and not answer:
            continue
        more = [IMAGE] * 4 if part.modality == "image" else [*part.value, *([END] if part.target else [])]
        ids += more
        labels += more if part.target else [-100] * len(more)
    picture = next(part.value for part in parts if part.modality == "image")
    ids = torch.tensor([ids])
    out = {"input_ids": ids, "pixel_values": picture[None], "attention_mask": torch.ones_like(ids)}
    return out | ({"labels": torch.tensor([labels])} if answer else {})


PACKER = sn.Packer(places={"image": 4}, row=64, end=END)


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_forward_and_backward(kv_heads: int, tmp_path: Path) -> None:
    theirs = reference(kv_heads)
    report = sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert set(report.ignored.values()) == {"behind the picture layer that is read"}
    batch = PACKER.pack([PACKER.segment(parts) for parts in samples()])  # both samples share a row
    assert len(batch.token_BT) == 1
    assert_same_scores(model, theirs, batch, [their_inputs(parts) for parts in samples()])
    assert_same_gradients(model, theirs, tmp_path / "gradients")


@pytest.mark.parametrize(("tower", "words", "changes"), [
    ("Siglip", "Llama", {}), ("Siglip", "Qwen2", {}), ("CLIP", "Mistral", {"sliding_window": 4}), ("CLIP", "Mistral", {"sliding_window": None}),
    ("CLIP", "Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1})])
def test_other_towers_and_other_words(tower: str, words: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """A SigLIP tower (all of its patches, GELU by tanh), and the language models that LLaVAs are published with."""
    theirs = reference(tower=tower, words=words, **changes)
    model = sn.load(saved(theirs, tmp_path / "model"))
    batch = PACKER.pack([PACKER.segment(parts) for parts in samples()])
    assert_same_scores(model, theirs, batch, [their_inputs(parts) for parts in samples()])
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_generation(tmp_path: Path) -> None:
    assert_same_generation(reference(), tmp_path, PACKER, samples(), their_inputs, END)


def test_other_editions_of_the_layout_load(tmp_path: Path) -> None:
    """The same tensors under the names that other versions of the library have written."""
    from safetensors.torch import save_file

    folder = saved(reference(), tmp_path / "now")
    model, stored = sn.load(folder), tensors(folder)
    wrapped = {n.replace("vision_tower.", "vision_tower.vision_model."): v for n, v in stored.items()}
    flat = {n.replace("language_model.model.", "model.language_model.").replace("language_model.lm_head", "lm_head"): v for n, v in stored.items()}
    for number, edition in enumerate((wrapped, {n if n.startswith(("model.", "lm_head")) else f"model.{n}": v for n, v in flat.items()})):
        other = tmp_path / f"edition{number}"
        other.mkdir()
        (other / "config.json").write_bytes((folder / "config.json").read_bytes())
        save_file(edition, other / "model.safetensors")
        for name, value in sn.load(other).state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name


def test_scaled_rotary_positions_are_refused(tmp_path: Path) -> None:
    folder = saved(reference(), tmp_path)
    text = (folder / "config.json").read_text().replace('"rope_type": "default"', '"rope_type": "yarn"')
    (folder / "config.json").write_text(text)
    with pytest.raises(sn.ConfigError, match="yarn"):
        sn.load(folder)
