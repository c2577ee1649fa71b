"""Checkpoints: strict both ways, never a pickle, never half a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import sensorium as sn
from sensorium.files import write_file
from sensorium.types import CheckpointError, MediaError
from sensorium.zoo import ENTRIES

from .parity.test_dit import reference as dit_reference
from .parity.test_llava import reference as llava_reference
from .parity.test_towers import clip, siglip


def changed(folder: Path, change: object) -> None:
    (path,) = folder.glob("*.safetensors")
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("make", [clip, siglip, llava_reference, dit_reference])
def test_published_folders_load_strictly(make: object, tmp_path: Path) -> None:
    reference = make()
    reference.save_pretrained(tmp_path / "whole")
    names = list(load_file(next((tmp_path / "whole").glob("*.safetensors"))))
    report = sn.Coverage()
    sn.load(tmp_path / "whole", report=report)
    assert set(report.used) | set(report.ignored) == set(names) and not set(report.used) & set(report.ignored)
    for name in [n for n in names if n in report.used][:: max(len(report.used) // 4, 1)]:
        reference.save_pretrained(tmp_path / "less")
        changed(tmp_path / "less", lambda tensors, name=name: tensors.pop(name))
        with pytest.raises(CheckpointError, match=f"missing tensor {name}"):
            sn.load(tmp_path / "less")
    reference.save_pretrained(tmp_path / "more")
    changed(tmp_path / "more", lambda tensors: tensors.update(surprise=torch.zeros(2)))
    with pytest.raises(CheckpointError, match="unexpected tensor surprise"):
        sn.load(tmp_path / "more")
    reference.save_pretrained(tmp_path / "wrong")
    changed(tmp_path / "wrong", lambda tensors: tensors.update({names[0]: torch.zeros(3, 3, 3, 7)}))
    with pytest.raises(CheckpointError, match="wanted"):
        sn.load(tmp_path / "wrong")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return sn.save(ENTRIES["clip"].toy().build(seed=1), tmp_path / "clip")


def test_our_own_folders_load_strictly(folder: Path) -> None:
    changed(folder, lambda tensors: tensors.pop("align.image.map.weight"))
    with pytest.raises(CheckpointError, match=r"missing tensor align\.image\.map\.weight"):
        sn.load(folder)
    changed(folder, lambda tensors: tensors.update(surprise=torch.zeros(2)))
    with pytest.raises(CheckpointError, match="unexpected tensor surprise"):
        sn.load(folder)


def test_all_problems_come_in_one_error(folder: Path) -> None:
    changed(folder, lambda tensors: [tensors.pop(name) for name in list(tensors)[:12]])
    with pytest.raises(CheckpointError, match="and 4 more"):
        sn.load(folder)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "gone"])
def test_a_torn_file_is_named(folder: Path, damage: str) -> None:
    path = folder / "weights.safetensors"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": path.read_bytes()[:500], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        sn.load(folder)


def test_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="pickle"):
        sn.load(tmp_path)


@pytest.mark.parametrize(("content", "says"), [("{", "not JSON"), ('{"model_type": "clap"}', "known kinds"),
                                               ('{"model_type": "clip", "text_config": 3}', "clip"), ("[]", "wanted an object")])
def test_a_wrong_config_is_named(tmp_path: Path, content: str, says: str) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(content)
    with pytest.raises((CheckpointError, sn.ConfigError), match=says):
        sn.load(tmp_path)


def test_an_index_may_not_leave_its_folder(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "sharded"
    clip().save_pretrained(place)
    (place / "model.safetensors").unlink()  # beside a whole model its index is not looked at
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../clip/weights.safetensors"}}))
    with pytest.raises(CheckpointError, match="outside"):
        sn.load(place)


def test_sharded_folders_load(tmp_path: Path) -> None:
    reference = clip()
    reference.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    reference.save_pretrained(tmp_path / "one")
    one, shards = sn.load(tmp_path / "one").state_dict(), sn.load(tmp_path / "shards").state_dict()
    assert all(torch.equal(one[name], shards[name]) for name in one)


def test_parts_can_be_borrowed(folder: Path) -> None:
    whole = sn.load(folder)
    frozen = sn.Model(encoders={"image": sn.Pretrained(str(folder), part="encoders.image", frozen=True), "text": whole.spec.encoders["text"]},
                      align=whole.spec.align, heads=whole.spec.heads, objectives=whole.spec.objectives)
    model = frozen.build(seed=9)
    for name, value in whole.encoders["image"].state_dict().items():
        assert torch.equal(model.encoders["image"].state_dict()[name], value)
    assert not any(p.requires_grad for p in model.encoders["image"].parameters())
    assert all(p.requires_grad for p in model.encoders["text"].parameters())
    assert sn.from_json(frozen.to_json()) == frozen
    with torch.no_grad():
        model.encoders["text"].token.weight.add_(1)
    small = sn.save(model, folder / "small", only=[name for name in model.state_dict() if not name.startswith("encoders.image.")])
    again = sn.load(small)  # the lender brings what the file does not hold, and the model stands by itself
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert again.spec == whole.spec and sn.load(sn.save(again, folder / "own")).spec == whole.spec


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = write_file(tmp_path / "new" / "file.txt", b"one")
    assert path.read_bytes() == b"one"
    (tmp_path / "plain").write_text("a file where a folder should be")
    with pytest.raises(MediaError, match="choose another place"):
        write_file(tmp_path / "plain" / "file.txt", b"two")
    with pytest.raises(TypeError):
        write_file(path, "not bytes")
    assert path.read_bytes() == b"one" and [p.name for p in path.parent.iterdir()] == ["file.txt"]
