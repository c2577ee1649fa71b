"""Routes: the cheapest way from what is given to what is wanted, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sensorium as sn
from sensorium.route import Skill, plan, routes_of


def skill(model: str, verb: str, needs: str, writes: str, also: str = "", converts: bool = False, cost: float = 1.0) -> Skill:
    return Skill(model, verb, frozenset(needs.split()), writes, frozenset(also.split()), converts, cost)


HEAR = skill("ear", "hear", "audio", "text", converts=True, cost=70)
SMALL_EAR = skill("small-ear", "hear", "audio", "text", converts=True, cost=40)
SPEAK = skill("mouth", "speak", "text", "audio", converts=True, cost=80)
SEE = skill("eye", "see", "image", "text", also="text", cost=17)
DRAW = skill("eye", "draw", "text", "image", cost=17)
THINK = skill("mind", "think", "text", "text", cost=135)
BIG = skill("big-mind", "think", "text", "text", cost=1700)
LOOK = replace(skill("looker", "look", "image text", "text", cost=140), only="en")
ALL = [HEAR, SPEAK, SEE, DRAW, THINK, BIG]


@pytest.mark.parametrize("given, want, verbs", [
    (["text"], "text", ["think"]),
    (["audio"], "text", ["hear", "think"]),
    (["audio"], "audio", ["hear", "think", "speak"]),
    (["text"], "audio", ["think", "speak"]),
    (["text"], "image", ["draw"]),
    (["audio"], "image", ["hear", "draw"]),
    (["image"], "text", ["see"]),
    (["image", "text"], "text", ["see"]),
    (["image", "audio"], "text", ["hear", "see"]),
    (["image"], "audio", ["see", "speak"]),
    (["image", "audio"], "audio", ["hear", "see", "speak"]),
])
def test_every_way(given: list[str], want: str, verbs: list[str]) -> None:
    assert [step.skill.verb for step in plan(given, want, ALL).steps] == verbs


def test_the_cheapest_models_are_taken() -> None:
    route = plan(["audio"], "text", [BIG, HEAR, THINK, SMALL_EAR])
    assert [step.skill.model for step in route.steps] == ["small-ear", "mind"]
    assert route.cost == (175, 2)


def test_a_route_shows_its_steps() -> None:
    assert str(plan(["image", "audio"], "audio", ALL)).splitlines() == [
        "1. audio --hear (ear)--> text", "2. image + text --see (eye)--> text", "3. text --speak (mouth)--> audio"]


@pytest.mark.parametrize("given, want, skills", [
    (["text"], "video", ALL), (["video"], "text", ALL), (["audio"], "text", [SEE, THINK]),
    (["text"], "audio", [THINK]), (["text"], "text", [SEE, HEAR]),
    (["text"], "text", []),
])
def test_what_cannot_be_reached_is_refused_by_name(given: list[str], want: str, skills: list[Skill]) -> None:
    with pytest.raises(sn.ModalityError, match=f"from {given[0]} to {want}"):
        plan(given, want, skills)


def test_an_unknown_modality_is_refused() -> None:
    with pytest.raises(sn.ModalityError, match="'smell' is no modality"):
        plan(["text"], "smell", ALL)


def test_what_could_be_pulled_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path))
    with pytest.raises(sn.ModalityError, match="sensorium pull"):
        plan(["audio"], "text")
    assert [step.skill.model for step in plan(["image"], "text").steps] == ["nano"]


def test_a_model_of_one_language_listens_when_the_language_is_told() -> None:
    english = skill("english-ear", "hear", "audio", "text", converts=True, cost=10)
    english = Skill(**{**vars(english), "only": "en"})
    assert plan(["audio"], "text", [HEAR, english, THINK]).steps[0].skill is HEAR
    assert plan(["audio"], "text", [HEAR, english, THINK], "en").steps[0].skill is english
    assert plan(["audio"], "text", [HEAR, english, THINK], "zh").steps[0].skill is HEAR


@pytest.mark.parametrize("words, verb", [(["What is this?"], "look"), (["这是什么？"], "see"), ([], "see")])
def test_a_question_about_a_picture_goes_to_the_model_made_for_it_in_its_language(words: list[str], verb: str) -> None:
    picture = sn.Image(torch.zeros(3, 8, 8))
    (way,) = routes_of(sn.Request([sn.user(picture, *words)]), [*ALL, LOOK])
    assert [step.skill.verb for step in way.steps] == [verb]


def test_a_spoken_question_about_a_picture_goes_there_when_its_language_is_told() -> None:
    request = sn.Request([sn.user(sn.Image(torch.zeros(3, 8, 8)), sn.Audio(torch.zeros(1600)))])
    assert [step.skill.verb for step in routes_of(request, [*ALL, LOOK])[0].steps] == ["hear", "see"]
    assert [step.skill.verb for step in routes_of(replace(request, language="en"), [*ALL, LOOK])[0].steps] == ["hear", "look"]
