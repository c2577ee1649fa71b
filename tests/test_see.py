"""The recipe of see: pictures are spelled as they are, conversations laid out as they will be asked, and the folder that ships stands on others."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sensorium as sn
from sensorium.catalog import find, ready
from sensorium.corpus.world import COLOURS, NUMBERS, SHAPES, make_scene
from sensorium.desk import Desk
from sensorium.evals.see import evaluate_seeing
from sensorium.layers.adapters import Lora
from sensorium.named import open_model
from sensorium.sentinels import modality_use
from sensorium.types import Batch, Features, assistant, user
from sensorium.zoo.llama import llama, llama_decoder

from .test_recipes import STYLES, write_corpus

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import see  # noqa: E402


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), STYLES, ("val",))


@pytest.fixture(scope="module")
def tokenizer() -> sn.Tokenizer:
    """Every word of the scenes is one token, as in SmolLM2's vocabulary."""
    words = [f" {word}" for word in (*COLOURS, *SHAPES, *NUMBERS, "top", "bottom", "left", "right", "middle", "thing")]
    return sn.Tokenizer.train(["".join(words)] * 50 + [f"thing {n}." for n in range(12)], 420, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])


def test_places_spell_names_numbers_and_things(corpus: Path, tokenizer: sn.Tokenizer) -> None:
    data = see.Spelling(corpus, 6, 8, tokenizer=tokenizer)
    batch = data.batch(3)
    words = batch.spelled["image"]

    def said(row: int, place: int) -> list[str]:
        return [tokenizer.decode([int(words.id_V[index])]).strip() for index in words.word_LPK[row, place].tolist() if index >= 0]

    rng = data.chance(3)
    _, drawn, scenes = data.pictures(3, rng)
    assert tuple(batch.media["image"].shape) == (14, 3, see.SIZE, see.SIZE) and tuple(words.word_LPK.shape[:2]) == (14, see.PLACES)
    for row, concept in enumerate(drawn):
        assert concept.names[0].replace(" ", "").startswith("".join(said(row, 0) + said(row, 1) + said(row, 2)).rstrip("."))
        assert (words.word_LPK[row, see.WHOLE :] < 0).all()
    for row, scene in enumerate(scenes, start=6):
        assert said(row, 0) == [NUMBERS[len(scene.things)]] and (words.word_LPK[row, 1 : see.WHOLE] < 0).all()
        at = {thing.cell: {thing.colour, thing.shape} for thing in scene.things}
        assert all(at.get(cell, {"."}) <= set(said(row, see.WHOLE + cell)) for cell in range(9))
    assert torch.equal(batch.media["image"], see.Spelling(corpus, 6, 8, tokenizer=tokenizer).batch(3).media["image"])


def test_what_is_spelled_right_is_counted(corpus: Path, tokenizer: sn.Tokenizer) -> None:
    data = see.Spelling(corpus, 4, 6, tokenizer=tokenizer, split="val", seed=1)
    table = torch.randn(tokenizer.vocab, 512, generator=torch.Generator().manual_seed(0))  # so wide that words are far apart
    batches = {len(batch.media["image"]): batch for batch in (data.batch(0),)}

    class Perfect:
        """Gives each place the sum of its words' own vectors."""

        encoders = {"text": sn.Vocabulary(tokenizer.vocab, 512).build()}
        objectives = [sn.Spell().build()]

        def aligned(self, modality: str, value: torch.Tensor) -> torch.Tensor:
            words = batches[len(value)].spelled[modality]
            real = words.word_LPK >= 0
            return (torch.nn.functional.normalize(table[words.id_V[words.word_LPK.clamp(min=0)]], dim=-1) * real[..., None]).sum(2)

    Perfect.encoders["text"].token.weight.data.copy_(table)
    assert data.right(Perfect(), 1) == {"names": 1.0, "things": 1.0, "empty": 1.0}
    batches[10] = Batch(spelled={"image": replace(batches[10].spelled["image"], word_LPK=batches[10].spelled["image"].word_LPK.roll(1, 0))})
    assert data.right(Perfect(), 1)["things"] < 0.5


def test_a_conversation_is_learned_as_it_will_be_asked(corpus: Path, tokenizer: sn.Tokenizer) -> None:
    data = see.Talking(corpus, 3, 3, tokenizer=tokenizer)
    base = llama(llama_decoder(32, 1, 4, 48), tokenizer.vocab, tied=True)
    codecs = sn.Codecs(text=tokenizer, image=sn.VisionCodec(size=see.SIZE), context=1024, end="<|im_end|>", template=see.TEMPLATE)
    desk = Desk(see.see(base).build(seed=0), codecs)
    turns = data.asking(make_scene(np.random.default_rng(0)), np.random.default_rng(0))[:2]
    picture = sn.Image(torch.rand(3, see.SIZE, see.SIZE))
    learned = data.conversation(codecs.image.encode(picture), turns)
    asked = desk.prompt([user(picture, turns[0][0]), assistant(turns[0][1]), user(turns[1][0])], "text")
    assert learned.token[: len(asked)] == asked.token and learned.media[: len(asked)] == asked.media
    assert len(asked.inputs) == 1 and asked.media.count(1 + 1) + asked.media.count(1) >= see.PLACES
    assert tokenizer.decode([label for label in learned.label if label >= 0]) == "".join(answer for _, answer in turns)
    batch = data.batch(0)
    assert len(batch.media["image"]) == 6 and (batch.label_BT == data.end).sum() >= 6


def test_the_folder_that_ships_holds_what_was_learned_alone(corpus: Path, tokenizer: sn.Tokenizer, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stages for a step each over a toy language model; the shipped folder borrows that and nano's eyes, and answers."""
    base = llama(llama_decoder(32, 2, 4, 48), tokenizer.vocab, tied=True)
    codecs = sn.Codecs(text=tokenizer, context=256, end="<|im_end|>", template=see.TEMPLATE)
    saved = sn.save(base.build(seed=1), tmp_path / "base", {"tokenizer.json": tokenizer.to_json().encode(), "codecs.json": codecs.to_json().encode()})
    monkeypatch.setattr(see, "BASE", str(saved))
    spec = see.see(base)
    monkeypatch.setattr(see, "see", lambda: spec)
    sn.fit(replace(see.run(str(corpus), "words", steps=1, drawings=2, scenes=2), validation=()), tmp_path / "words")
    answers = see.run(str(corpus), "answers", eyes=str(tmp_path / "words" / "final"), steps=1, drawings=2, scenes=2, rank=2)
    sn.fit(replace(answers, validate_every=1), tmp_path / "answers")
    see.finish(tmp_path / "words", tmp_path / "answers", tmp_path / "see")
    model = sn.load(tmp_path / "see")
    own = {name for name in sn.checkpoint.read_tensors(tmp_path / "see" / "weights.safetensors")}
    assert all(name.startswith(("align.image.", "encoders.image.looks.1.")) or ".adapters.see." in name for name in own) and own
    assert torch.equal(model.encoders["text"].token.weight, sn.load(saved).encoders["text"].token.weight)
    nano = sn.load(see.WEIGHTS / "nano").encoders["image"].state_dict()
    assert all(torch.equal(value, nano[name]) for name, value in model.encoders["image"].looks[0].state_dict().items())
    assert isinstance(sn.write_texts(model, [[sn.Image(torch.rand(3, 90, 60)), "What is this?"]], max_tokens=4)[0], str)
    assert json.loads((tmp_path / "see" / "card.json").read_text())["training"]["answers"] == "1 steps"
    assert model.spec.adapters == {"see": Lora(rank=2, alpha=4.0)}


@pytest.mark.slow
@pytest.mark.skipif(not ready("see"), reason="see is not at hand: sensorium pull see")
def test_the_alarm_is_silent_about_see_and_rings_when_its_pixels_are_dropped(corpus: Path) -> None:
    data = see.Talking(corpus, 1, 8, split="val", seed=1)
    model, batches = sn.load(find("see")), [data.batch(0)]
    assert modality_use(model, batches).ignored() == []

    def dark(module: torch.nn.Module, given: tuple[torch.Tensor], features: Features) -> Features:
        return Features(torch.zeros_like(features.x_BPD))

    model.encoders["image"].register_forward_hook(dark)
    assert modality_use(model, batches).ignored() == ["image"]


@pytest.mark.slow
@pytest.mark.skipif(not ready("see"), reason="see is not at hand: sensorium pull see")
def test_see_answers_about_scenes_it_has_never_seen() -> None:
    def answer(asked: list[tuple[sn.Image, str]]) -> list[str]:
        return sn.write_texts(open_model("see"), [list(pair) for pair in asked], max_tokens=16)

    figures, _ = evaluate_seeing(answer, None, count=60, kinds=("colour", "position"))
    assert all(figure.low > 2 * figure.beside["commonest_answer"] and figure.low > 2 * figure.beside["blanked"] for figure in figures)
