"""The world of drawn scenes: answers are what was drawn, what is held out is never shown or asked for, and the judge knows a right answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import sensorium as sn
from sensorium.corpus.world import (
    COLOURS,
    HELD_PAIRS,
    HELD_WORDS,
    NUMBERS,
    PLACES,
    SHAPES,
    draw_scene,
    make_scene,
    questions,
    words_at,
)
from sensorium.corpus.world_events import Event, Worlds, event_questions, film, make_event, sound
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


def test_what_moves_is_what_the_film_says() -> None:
    """Only the thing of the answer changes its place, and the way that it goes is the answer's."""
    for seed in range(40):
        event = make_event(np.random.default_rng(seed))
        frames = film(event, 8, 96).astype(int)
        assert np.array_equal(frames[0], draw_event_start(event))
        changed = (np.abs(frames - frames[0]).sum(axis=3) > 60).any(axis=0)
        if event.motion == "round":
            continue
        rows, columns = np.nonzero(changed)
        thing = event.scene.things[event.mover]
        dx, dy = columns.mean() / 96 - thing.x, rows.mean() / 96 - thing.y
        found = max({"left": -dx, "right": dx, "up": -dy, "down": dy}.items(), key=lambda item: item[1])[0]
        asked = {question.kind: question for question in event_questions(event, "video")}
        assert asked["direction"].key == event.motion == found and asked["moves"].key == event.name


def draw_event_start(event: Event) -> np.ndarray:
    """Its scene, with the thing that will move in front."""
    things = [one for i, one in enumerate(event.scene.things) if i != event.mover] + [event.scene.things[event.mover]]
    return draw_scene(replace(event.scene, things=tuple(things)), 96).astype(int)


def test_what_is_heard_is_what_the_answers_say() -> None:
    """Notes are counted and their pitches measured in the samples themselves."""
    seen = set()
    for seed in range(60):
        event = make_event(np.random.default_rng(seed))
        samples = sound(event)
        assert samples.dtype == np.float32 and np.abs(samples).max() <= 1
        loud = np.abs(samples).reshape(-1, 100).max(axis=1) > 0.02
        starts = np.nonzero(np.diff(np.concatenate([[0], loud.astype(int)])) == 1)[0]
        asked = {question.kind: question for question in event_questions(event, "audio")}
        assert len(starts) == event.notes and asked["notes"].key == NUMBERS[event.notes]
        pitch = [np.abs(np.fft.rfft(samples[start * 100 : start * 100 + 4800], 48_000))[200:1000].argmax() + 200 for start in starts]
        base = [next((f for f in (p, p / 2, p / 3) if 150 < f < 700), p) for p in pitch]
        if event.notes > 1:
            seen.add(event.melody)
            assert asked["melody"].key == event.melody
            if event.melody == "level":
                assert max(base) - min(base) < 3
        else:
            assert "melody" not in asked
    assert seen == {"rising", "falling", "level"}


def test_worlds_are_samples_that_mix() -> None:
    sources = [Worlds(modality, 50, seed=3) for modality in ("image", "audio", "video")]
    for source, kind in zip(sources, ("image", "audio", "video"), strict=True):
        sample, again = source[7], source[7]
        assert [p.modality for p in sample.parts] == [kind, "text", "text"] and [p.target for p in sample.parts] == [False, False, True]
        assert torch.equal(sample.parts[0].value.source, again.parts[0].value.source) and sample.extra == again.extra
        assert sample.extra["kind"] and sample.extra["key"]
        with pytest.raises(IndexError):
            source[50]
    mixture = sn.Mixture(tuple(map(len, sources)), weights=(1, 1, 2))
    drawn = [mixture.place(k) for k in range(1024)]
    assert sum(which == 2 for which, _ in drawn) == 512
    held = Worlds("video", 40, held=True)
    events = [make_event(np.random.default_rng((0, True, 2, i)), held=True) for i in range(40)]
    assert all((t.shape, t.colour) in HELD_PAIRS for event in events for t in event.scene.things) and len(held) == 40
    with pytest.raises(sn.ConfigError, match="wanted a modality"):
        Worlds("smell")
