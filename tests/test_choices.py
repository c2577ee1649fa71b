"""Questions that let choose: one of the choices is the answer, by what the packaged models find nearest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import sensorium as sn
from sensorium.catalog import ready
from sensorium.choices import asked_of, named, settled
from sensorium.desk import Desk
from sensorium.named import open_model

from . import chats

PICTURES = Path(__file__).parent.parent / "examples" / "pictures"
PICTURE = sn.Image(torch.zeros(3, 8, 8))
ASKED = (("frog", "Is this an animal or a vehicle?", "an animal"), ("rocket", "Is this an animal or a vehicle?", "a vehicle"),
         ("umbrella", "Is this an umbrella or a lamp?", "an umbrella"), ("hamburger", "Is it food or a person?", "food"),
         ("owl", "Is it a fish, a bird or a car?", "a bird"), ("house", "Is this a building or a vehicle?", "a building"))


def said(model: str, asked: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """What is answered, beside what is right."""
    return [(sn.respond(open_model(model), sn.Request([sn.user(sn.Image(PICTURES / f"{name}.png"), question)], max_tokens=16)).text, right)
            for name, question, right in asked]


@pytest.mark.skipif(not ready("see"), reason="see is not at hand: sensorium pull see")
def test_see_answers_with_one_of_the_choices() -> None:
    """It says "No, it is not." of its own to the first; the likeliest of "This is ..." is right."""
    for text, right in said("see", ASKED[:4]):
        assert named(text, (right,)), (text, right)


def test_nano_answers_with_one_of_the_choices_in_its_languages() -> None:
    """By nearness in its space; of such questions about the examples 27 of 31 are right, in English as in Chinese."""
    asked = (*ASKED, ("frog", "是动物还是车？", "动物"), ("rocket", "这是动物还是车？", "车"), ("owl", "图片里是鸟还是鱼？", "鸟"))
    for text, right in said("nano", asked):
        assert named(text, (right,)), (text, right)
    assert said("nano", asked[-3:])[0][0] == "这是动物。"


def test_other_questions_are_answered_freely() -> None:
    assert said("nano", [("frog", "What is this?", ""), ("frog", "这是什么？", "")]) == [("frog", ""), ("青蛙", "")]


def test_an_answer_is_left_as_it_is() -> None:
    """Where it names a choice, and where it says something else than yes or no."""
    model, codecs = chats.speaker()
    desk = Desk(model, codecs)
    request = sn.Request([sn.user(PICTURE, "Is this a frog or a dog?")])
    for text in ("No, it is a Frog.", "Something green sits there."):
        deltas = [sn.Delta("text", text[:-1]), sn.Delta("text", "."), sn.Delta("part", sn.Text(text))]
        assert list(settled(desk, request, iter(deltas))) == deltas


def test_choices_are_named_with_or_without_their_articles() -> None:
    assert named("It is red.", ("red", "blue")) == ["red"] and named("It is tired.", ("red", "blue")) == []
    assert named("红色", ("红色的", "蓝色的")) == ["红色的"]
    assert named("a dog and a cat", ("a cat", "a dog")) == ["a cat", "a dog"]


def test_what_asks_for_a_choice() -> None:
    choice = "Is this a cat or a dog?"
    assert asked_of(sn.Request([sn.user(PICTURE, choice)])) == (PICTURE, ("a cat", "a dog"))
    assert asked_of(sn.Request([sn.user(PICTURE, "What is this?"), sn.assistant("A cat."), sn.user(choice)])) == (PICTURE, ("a cat", "a dog"))
    for request in (sn.Request([sn.user(choice)]), sn.Request([sn.user(PICTURE, PICTURE, choice)]), sn.Request([sn.user(PICTURE)]),
                    sn.Request([sn.user(PICTURE, "What is this?")]), sn.Request([sn.user(PICTURE, choice)], schema={"type": "string"})):
        assert asked_of(request) == (None, ())
