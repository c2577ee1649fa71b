"""Engine, memory and demo on a toy model: what is asked is answered, alone as in a crowd, and refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

import sensorium as sn
from sensorium.demo import make_demo
from sensorium.denoise import Solver
from sensorium.engine import codecs_of
from sensorium.memory import Memory, pictures_in

from .toys import saved_toy, toy_nano


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sn.ModelNet:
    return sn.load(saved_toy(tmp_path_factory.mktemp("toy") / "toy"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number, colour in enumerate(((0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9))):
        sn.Image(torch.tensor(colour)[:, None, None].expand(3, 40, 30)).save(folder / f"{number}.png")
    return folder


def test_embeddings_are_unit_vectors_and_do_not_depend_on_neighbours(model: sn.ModelNet, pictures: Path) -> None:
    values = [sn.Image(pictures / "0.png"), "a dog", [sn.Image(pictures / "1.png"), "red"], "a much longer text about nothing"]
    together = sn.embed(model, values)
    alone = torch.cat([sn.embed(model, [value]) for value in values])
    assert together.shape == (4, 24)
    assert torch.allclose(together.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[0], sn.embed(model, [sn.Image(pictures / "1.png")])[0], atol=1e-3)


def test_text_answers_are_the_same_alone_in_a_crowd_and_streamed(model: sn.ModelNet, pictures: Path) -> None:
    prompts = [[sn.Image(pictures / f"{i}.png"), "What is this?"] for i in range(3)] + [["a dog"]]
    crowd = sn.write_texts(model, prompts, max_tokens=6)
    for prompt, text in zip(prompts, crowd, strict=True):
        request = sn.Request([sn.user(*prompt)], max_tokens=6)
        assert sn.respond(model, request).text == text
        assert "".join(event.value for event in sn.stream(model, request) if event.kind == "text") == text


def test_a_drawing_depends_on_words_and_seed_and_on_nothing_else(model: sn.ModelNet) -> None:
    model.heads["image"].refine[-1].weight.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))  # fresh, it draws nothing
    model.heads["image"].modulate.weight.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))

    def drawn(text: str, seed: int) -> torch.Tensor:
        return sn.respond(model, sn.Request([sn.user(text)], want=["image"], seed=seed, steps=3)).image.source

    assert torch.equal(drawn("a dog", 1), drawn("a dog", 1))
    assert not torch.equal(drawn("a dog", 1), drawn("a dog", 2))
    assert not torch.equal(drawn("a dog", 1), drawn("red apple", 1))
    crowd = sn.draw_images(model, [["red apple"], ["a dog"]], Solver(steps=3, seed=0))
    assert torch.allclose(crowd[1].source, drawn("a dog", 1), atol=1e-5)


def test_drawing_streams_previews_and_the_file_says_what_made_it(model: sn.ModelNet, tmp_path: Path) -> None:
    events = list(sn.stream(model, sn.Request([sn.user("a dog")], want=["image", "text"], steps=4, seed=9)))
    assert [(e.kind, e.done, e.total) for e in events if e.kind == "step"] == [("step", 1, 4), ("step", 2, 4), ("step", 3, 4)]
    assert [e.value.modality for e in events if e.kind == "part"] == ["image", "text"]
    image = next(e.value for e in events if e.kind == "part")
    from sensorium.codecs.vision import load_image, read_info

    path = image.save(tmp_path / "dog.png")
    assert read_info(path)["seed"] == 9 and load_image(path).shape == (3, 32, 32)


def test_what_a_model_cannot_do_is_refused_by_name(model: sn.ModelNet) -> None:
    for request, says in (
        (sn.Request([sn.user("a dog")], want=["audio"]), "cannot write audio; it writes text, image"),
        (sn.Request([sn.user("a dog")], want=["smell"]), "'smell' is no modality"),
        (sn.Request([sn.user(sn.Audio("a.wav"))]), "given audio, but reads only text, image"),
    ):
        with pytest.raises(sn.ModalityError, match=says):
            sn.respond(model, request)
    with pytest.raises(sn.ConfigError, match="empty"):
        sn.respond(model, sn.Request([]))
    with pytest.raises(sn.ConfigError, match="built, not loaded"):
        sn.embed(toy_nano().build(), ["a dog"])
    with pytest.raises(sn.MediaError, match="at most 32"):
        sn.embed(model, ["word " * 500])


def test_a_model_loaded_again_reads_its_codecs_again(tmp_path: Path) -> None:
    first = sn.load(saved_toy(tmp_path / "toy"))
    assert codecs_of(first) is codecs_of(first) and codecs_of(first).context == 32
    codecs = tmp_path / "toy" / "codecs.json"
    codecs.write_text(codecs.read_text().replace('"context": 32', '"context": 9'))
    assert codecs_of(sn.load(tmp_path / "toy")).context == 9 and codecs_of(first).context == 32


def test_memory_adds_once_finds_and_survives(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"not a picture")
    memory = Memory(tmp_path / "table", model, "toy")
    first = memory.add(pictures_in(pictures))
    assert (len(first.added), len(first.known), len(first.refused)) == (3, 0, 1)
    again = Memory(tmp_path / "table", model, "toy")
    second = again.add(pictures_in(pictures))
    assert (len(second.added), len(second.known), len(again)) == (0, 3, 3)
    found = again.search(sn.Image(pictures / "2.png"), 2)
    assert found[0].path.name == "2.png" and found[0].score == pytest.approx(1.0, abs=1e-4)
    (pictures / "2.png").unlink()
    assert "2.png" not in [item.path.name for item in again.search("a dog", 3)]


def test_memory_refuses_another_models_table(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    Memory(tmp_path / "table", model, "toy").add(pictures_in(pictures))
    other = sn.load(saved_toy(tmp_path / "other", seed=1))
    with pytest.raises(sn.ConfigError, match="was made with toy-"):
        Memory(tmp_path / "table", other, "toy")
    with pytest.raises(sn.ConfigError, match="holds no pictures yet"):
        Memory(tmp_path / "empty", model, "toy").search("a dog")
    with pytest.raises(sn.MediaError, match="neither a folder nor a file"):
        pictures_in(tmp_path / "nowhere")


def test_the_demo_writes_one_page_that_needs_nothing_else(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    page = make_demo(tmp_path / "demo", model, "toy", Console(file=io.StringIO()), pictures).read_text(encoding="utf-8")
    assert page.count("<figure>") == 3 + 12 and page.count("data:image/png;base64,") == 3 + 12 + 7 * 3
    assert "http" not in page.replace("http-equiv", "")
