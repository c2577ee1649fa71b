"""Learning from examples in the prompt: games hold what they say, held-out ones nothing that was trained, and the eval tells a learner from none."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as tree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

import sensorium as sn
from sensorium import chart
from sensorium.corpus.fewshot import HELD_RULE, RULES, WORDS, deal, guess, held_pair
from sensorium.corpus.world import COLOURS
from sensorium.desk import Desk
from sensorium.evals.fewshot import conversation, evaluate_shots, shots_chart
from sensorium.types import Message

from .test_cli import one_line_error, sensorium

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import fewshot  # noqa: E402


def test_a_game_is_sorted_by_its_rule_and_shows_it() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        game = deal(rng)
        assert game.rule != HELD_RULE and not held_pair(game.rule, game.values)
        assert set(game.words) == set(WORDS) and len(game.cards) == len(game.pictures) == 9
        for index, card in enumerate(game.cards):
            value = vars(card)[game.rule]
            assert game.word(index) == game.words[game.values.index(value)]
            near = np.abs(game.pictures[index].astype(int) - COLOURS[card.colour]).sum(-1) < 30
            rows, columns = near.nonzero()
            place = [round((at.mean() / 64 - 0.26) / 0.24) for at in (rows, columns)]
            wanted = [RULES["row"].index(card.row), RULES["column"].index(card.column)]
            assert near.any() and (place == wanted or card.shape == "moon")  # the moon's ink lies at one side of its place


def test_what_is_held_out_is_a_fifth_and_never_dealt_to_training() -> None:
    rng = np.random.default_rng(1)
    held = [deal(rng, 1, held=True) for _ in range(60)]
    assert all(held_pair(game.rule, game.values) for game in held)
    assert {game.rule for game in held} <= set(RULES) - {HELD_RULE, "size"} and deal(rng, 1, True, HELD_RULE).rule == HELD_RULE


def test_easier_games_have_heaps_of_like_cards_and_training_begins_with_them() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        game = deal(rng, 8, alike=1.0)
        assert len(set(game.cards)) <= 2 and len({game.word(i) for i in range(9) if game.cards[i] == game.cards[0]}) == 1
    games = fewshot.Games(ease=100)
    assert [games.alike(step) for step in (0, 25, 100, 500)] == [1.0, 1.0, 0.0, 0.0] and 0.4 < games.alike(65) < 0.6
    assert fewshot.Games().alike(0) == 0.0


def test_the_untrained_model_finds_like_cards_alike() -> None:
    model = fewshot.few_shot().build(seed=0)
    fewshot.look(model)
    attention = model.decoder.read.blocks[0].attention
    assert torch.equal(attention.key.weight, attention.query.weight)


def test_seeing_all_one_is_right_half_the_time_without_examples_and_nearly_always_with_eight() -> None:
    rng = np.random.default_rng(2)
    games = [deal(rng) for _ in range(150)]
    share = [float(np.mean([guess(game, shots) for game in games])) for shots in (0, 1, 2, 4, 8)]
    assert share[0] == 0.5 and share[-1] > 0.95 and share == sorted(share)


def test_training_lays_a_game_out_as_the_prompt_it_is_asked_with() -> None:
    model, games = fewshot.few_shot(width=32, depth=2).build(seed=0), fewshot.Games(2)
    game = deal(np.random.default_rng(3))
    learned, asked = games.segment(game), Desk(model, games.codecs).prompt(conversation(game, 8), "text")
    assert learned.token[: len(asked)] == asked.token and learned.sees[: len(asked)] == asked.sees
    assert [m.role for m in conversation(game, 2)] == ["user", "assistant"] * 2 + ["user"]
    words = [games.codecs.text.decode([label for label in learned.label if label >= 0])]
    assert words == ["".join(game.word(index) for index in range(9))]
    assert torch.equal(games.batch(5).token_BT, fewshot.Games(2).batch(5).token_BT)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few steps' training."""
    folder = tmp_path_factory.mktemp("fewshot")
    sn.fit(fewshot.run(steps=3, games=2, shots=2), folder)
    return folder / "final"


def test_eyes_stay_frozen_and_the_folder_answers(trained: Path) -> None:
    eyes = sn.load(fewshot.WEIGHTS / "nano").encoders["image"].state_dict()
    model = sn.load(trained)
    assert all(torch.equal(value, eyes[name].bfloat16().float()) for name, value in model.encoders["image"].state_dict().items())
    figures = evaluate_shots(lambda prompts: sn.write_texts(model, prompts, max_tokens=8), count=4, shots=(0, 2))
    assert len(figures) == 4 and all(figure.n == 4 for figure in figures)


def _copies(prompts: Sequence[Sequence[Message]]) -> list[str]:
    """Says what the latest example's answer was, or yes."""
    return [p[-2].parts[0].text if len(p) > 1 else "yes" for p in prompts]


def test_the_eval_tells_chance_from_learning_and_is_drawn() -> None:
    figures = evaluate_shots(_copies, count=200, shots=(0, 1, 2))
    assert all(figure.low <= 0.6 and figure.high >= 0.4 for figure in figures)
    drawn = tree.fromstring(shots_chart(figures))
    words = "".join(drawn.itertext())
    assert "known rules, new pairs" in words and f"a rule never trained ({HELD_RULE})" in words and "chance" in words
    bars = tree.fromstring(chart.bars("eval", [("a < b", 0.5, 0.4, 0.6, {"by_chance": 0.1})]))
    assert "a < b" in "".join(bars.itertext()) and "by chance 10.0%" in "".join(bars.itertext())


def test_examples_come_from_a_file_of_samples(trained: Path, tmp_path: Path) -> None:
    game = deal(np.random.default_rng(4), 2)
    for index, picture in enumerate(game.pictures):
        Pillow.fromarray(picture).save(tmp_path / f"{index}.png")
    rows = [{"parts": [{"image": f"{index}.png"}, {"text": "?"}, {"text": game.word(index), "target": True}]} for index in range(2)]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    words = ["ask", tmp_path / "2.png", "?", "--model", trained, "--max-tokens", 4, "--shots"]
    done = sensorium(*words, tmp_path / "shots.jsonl")
    assert done.returncode == 0, done.stderr
    (tmp_path / "bad.jsonl").write_text('{"parts": [{"text": "no answer"}]}', encoding="utf-8")
    assert "bad.jsonl, sample 1: nothing is a target" in one_line_error(sensorium(*words, tmp_path / "bad.jsonl"))
