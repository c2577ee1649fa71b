"""The world of drawn scenes: answers are what was drawn, what is held out is never shown or asked for, and the judge knows a right answer."""

from __future__ import annotations

import numpy as np
import pytest

from sensorium.corpus.world import COLOURS, HELD_PAIRS, HELD_WORDS, PLACES, SHAPES, draw_scene, make_scene, questions, words_at
from sensorium.evals.see import Asked, judge, scenes


def test_training_never_shows_or_asks_for_what_is_held_out() -> None:
    rng, words = np.random.default_rng(0), set()
    for _ in range(400):
        scene = make_scene(rng)
        assert not {(thing.shape, thing.colour) for thing in scene.things} & HELD_PAIRS and scene.word not in HELD_WORDS
        words |= {question.text for question in questions(scene, rng, 5)}
    assert not [pair for pair in HELD_PAIRS if f"{pair[1]} {pair[0]}" in " ".join(words)]
    for _ in range(200):
        held = make_scene(rng, held=True)
        assert {(thing.shape, thing.colour) for thing in held.things} <= HELD_PAIRS and (held.word is None or held.word in HELD_WORDS)
    assert len(HELD_PAIRS) == 2 * len(SHAPES)


def test_a_scene_shows_its_colours_where_it_says() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        scene = make_scene(rng)
        picture = draw_scene(scene, 128)
        again = draw_scene(scene, 128)
        assert picture.shape == (128, 128, 3) and (picture == again).all()
        for thing in scene.things:
            reach = round(thing.radius * 128)
            y, x = round(thing.y * 128), round(thing.x * 128)
            near = picture[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].reshape(-1, 3).astype(int)
            assert np.abs(near - np.array(COLOURS[thing.colour])).sum(1).min() < 12, thing
            assert (thing.cell % 3, thing.cell // 3) == (int(thing.x * 3), int(thing.y * 3))


@pytest.mark.parametrize("kind", ["presence", "colour", "shape", "count", "position", "side", "word"])
def test_the_judge_takes_right_answers_and_no_others(kind: str) -> None:
    rng, right = np.random.default_rng(2), {}
    for _ in range(60):
        scene = make_scene(rng, held=True)
        for question in questions(scene, rng, 1, (kind,)):
            right.setdefault(question.key, question)
    for question in right.values():
        asked = [Asked(kind, None, question.text, (other.key,)) for other in right.values()]
        assert [judge(one, question.answer) for one in asked] == [one.keys == (question.key,) for one in asked], question
        assert not judge(Asked(kind, None, question.text, (question.key,)), "I do not know.")
    assert [item.text for item in scenes(kind, 20, seed=3)] == [item.text for item in scenes(kind, 20, seed=3)]


def test_names_are_judged_without_articles() -> None:
    asked = Asked("name", None, "What is this?", ("flag: Germany",))
    assert judge(asked, "This is the flag of Germany.") and not judge(asked, "This is the flag of Ghana.")
    assert judge(Asked("name", None, "", ("dog", "dog face")), "This is a dog face.")
    assert not judge(Asked("name", None, "", ("dog",)), "This is a cat.")


def test_the_words_at_a_cell_say_what_stands_there_and_where() -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        scene = make_scene(rng)
        words = words_at(scene)
        assert len(words) == 9 and sum(map(bool, words)) == len(scene.things)
        for thing in scene.things:
            colour, shape, *where = words[thing.cell]
            assert (colour, shape) == (thing.colour, thing.shape) and " ".join(where) == PLACES[thing.cell].split("the ")[1]


def test_odd_things_show_and_name_only_what_has_a_name() -> None:
    rng, names = np.random.default_rng(6), []
    for _ in range(80):
        scene = make_scene(rng, odd=1.0)
        assert draw_scene(scene, 64).std() > 0 and all((thing.shape in SHAPES) != (thing.colour in COLOURS) for thing in scene.things)
        names += [words for words in words_at(scene) if words]
    assert {words[0] for words in names} == set(SHAPES) | set(COLOURS) and not {words[1] for words in names} & (set(SHAPES) | set(COLOURS))
