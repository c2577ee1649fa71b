"""Memory: what files hold now is what is found, whatever was replaced, moved or deleted since."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import sensorium as sn
from sensorium.memory import Memory, pictures_in

from .toys import saved_toy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sn.ModelNet:
    return sn.load(saved_toy(tmp_path_factory.mktemp("toy") / "toy"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures, in a folder whose name needs quoting."""
    folder = tmp_path / "it's"
    folder.mkdir()
    for number in range(6):
        draw(folder / f"{number}.png", number)
    return folder


def draw(path: Path, seed: int) -> Path:
    return sn.Image(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed))).save(path)


def names(memory: Memory, query: str | sn.Image = "a dog", count: int = 10) -> list[str]:
    return [item.path.name for item in memory.search(query, count)]


def test_as_many_are_found_as_are_asked_for(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    """Of six, the best three are deleted: three asked for are the other three, in their order."""
    memory = Memory(tmp_path / "table", model, "toy")
    memory.add(pictures_in(pictures))
    order = names(memory)
    for name in order[:3]:
        (pictures / name).unlink()
    assert names(memory, count=3) == order[3:] and names(memory, count=2) == order[3:5]


def test_a_replaced_file_is_one_row_of_its_new_content(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "table", model, "toy")
    memory.add(pictures_in(pictures))
    draw(pictures / "2.png", 20)
    report = Memory(tmp_path / "table", model, "toy").add(pictures_in(pictures))
    assert ([path.name for path in report.added], len(report.known)) == (["2.png"], 5)
    again = Memory(tmp_path / "table", model, "toy")
    assert len(again) == 6 and sorted(names(again)) == [f"{i}.png" for i in range(6)]
    assert again.search(sn.Image(pictures / "2.png"), 1)[0].score == pytest.approx(1.0, abs=1e-4)
    assert again.search(sn.Image(draw(tmp_path / "old.png", 2)), 1)[0].score < 0.9999
    draw(pictures / "2.png", 2)  # and back
    again.add([pictures / "2.png"])
    assert len(again) == 6 and again.search(sn.Image(tmp_path / "old.png"), 1)[0].path.name == "2.png"


def test_files_that_broke_moved_or_were_deleted_are_forgotten(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "table", model, "toy")
    memory.add(pictures_in(pictures))
    (pictures / "0.png").write_bytes(b"no picture any more")
    (pictures / "1.png").unlink()
    (pictures / "2.png").rename(pictures / "moved.png")
    shutil.copy(pictures / "3.png", pictures / "copy.png")
    report = memory.add([*pictures_in(pictures), pictures / "gone.png"])
    assert [path.name for path in report.added] == ["copy.png", "moved.png"] and {path.name for path, _ in report.refused} == {"0.png", "gone.png"}
    assert sorted(names(memory)) == ["3.png", "4.png", "5.png", "copy.png", "moved.png"] and len(memory) == 5


def test_pictures_of_other_folders_stay_remembered(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    """A folder that is not there now (a disk that is not mounted) keeps its rows."""
    memory = Memory(tmp_path / "table", model, "toy")
    memory.add(pictures_in(pictures))
    pictures.rename(tmp_path / "away")
    memory.add([draw(tmp_path / "other" / "9.png", 9)])
    assert len(memory) == 7 and names(memory) == ["9.png"]
    (tmp_path / "away").rename(pictures)
    assert len(names(memory)) == 7
