"""Routes: the cheapest way from what is given to what is wanted, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sensorium as sn
from sensorium.hear import Heard, Hearing
from sensorium.route import Skill, _chain, answer, plan, routes_of, skills_with, stream_answer

from .films import film
from .toys import saved_toy


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


@pytest.mark.parametrize("reads", (["audio", "text"], ["text", "audio"]))
def test_a_text_is_not_spoken_to_a_model_that_reads_it(reads: list[str]) -> None:
    assert _chain({"text"}, reads, [skill("free-mouth", "speak", "text", "audio", converts=True, cost=0)]) == []


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


MANY = replace(skill("polyglot", "think", "text", "text", cost=9000), only=None)
MIND = replace(THINK, only="en")
EYE = skill("eye", "see", "video", "text", also="text", cost=17)
LOOKER = replace(skill("looker", "look", "video text", "text", cost=140), heeds=True)
HEARER = [HEAR, MIND]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sn.Video]:
    folder = tmp_path_factory.mktemp("films")
    return {"silent": sn.Video(film(folder / "silent.mp4")), "talking": sn.Video(film(folder / "talking.mp4", sound="aac"))}


def verbs(skills: list[Skill], *given: sn.Video | str) -> list[str]:
    return [f"{' '.join(step.reads)} {step.skill.verb}" for step in routes_of(sn.Request([sn.user(*given)]), skills)[0].steps]


def test_of_a_film_that_is_read_which_is_asked_for(films: dict[str, sn.Video]) -> None:
    """Frames for what is seen, the sound for what is said, both where the question does not tell and a model takes both."""
    skills, film = [EYE, LOOKER, *HEARER], films["talking"]
    assert verbs(skills, film, "What colour is the screen?") == verbs(skills, film, "Is it red?") == ["text video look"]
    assert verbs(skills, film, "What is said?") == verbs(skills, film, "Who is speaking?") == ["audio hear", "text think"]
    assert verbs(skills, film, "What happens?") == ["audio hear", "text video look"]
    assert verbs(skills, film) == ["audio hear", "text think"]
    assert verbs([EYE, *HEARER], film, "What happens?") == ["text video see"]
    assert verbs(HEARER, film, "What happens?") == ["audio hear", "text think"]


def test_what_is_left_out_of_a_film_is_said(films: dict[str, sn.Video]) -> None:
    def notes(skills: list[Skill], film: sn.Video, *words: str) -> str:
        return " ".join(routes_of(sn.Request([sn.user(film, *words)]), skills)[0].notes)

    assert notes([EYE, LOOKER, *HEARER], films["talking"], "What happens?") == notes([EYE], films["silent"], "What happens?") == ""
    assert "talking.mp4 is looked at and not listened to" in notes([EYE, *HEARER], films["talking"], "What happens?")
    assert "talking.mp4 is listened to and not looked at" in notes(HEARER, films["talking"], "What happens?")
    assert "silent.mp4 has no sound" in notes([EYE, *HEARER], films["silent"], "What is said?")


def test_a_silent_film_asks_for_no_sound(films: dict[str, sn.Video]) -> None:
    assert verbs([EYE, *HEARER], films["silent"]) == ["video see"]
    assert verbs([EYE, *HEARER], films["silent"], "What is said?") == ["text video see"]
    with pytest.raises(sn.ModalityError, match="from text . video to text"):
        verbs(HEARER, films["silent"], "What is this?")
    with pytest.raises(sn.ModalityError, match="from text . video to text"):
        verbs(HEARER, films["talking"], "What colour is it?")


def test_a_model_of_another_language_does_not_answer_unless_it_is_named() -> None:
    """"中国的首都是哪里？" asked of a model of English."""
    request = sn.Request([sn.user("中国的首都是哪里？")])
    with pytest.raises(sn.ModalityError, match="in Chinese, and mind knows English.* --model mind to be answered all the same"):
        routes_of(request, [MIND])
    assert routes_of(request, [MIND, MANY])[0].answer.skill is MANY
    assert routes_of(sn.Request([sn.user("What is 你好?")]), [MIND, MANY])[0].answer.skill is MIND
    (way,) = routes_of(request, [replace(MIND, named=True)])
    assert way.answer.skill.model == "mind" and way.notes == ("the question is in Chinese, and mind knows English: its answer may make no sense",)
    for words in ("한국의 수도는?", "Was ist die Hauptstadt von Peru?", "日本の首都はどこですか"):
        with pytest.raises(sn.ModalityError, match="and mind knows English"):
            routes_of(sn.Request([sn.user(words)]), [MIND])
    assert routes_of(sn.Request([sn.user("3.5/2")]), [MIND])[0].notes == ()
    with pytest.raises(sn.ModalityError, match="in Korean, and eye knows English and Chinese"):
        routes_of(sn.Request([sn.user("빨간 사과를 그려 주세요")], want=["image"]), [replace(DRAW, only="en zh")])
    assert routes_of(sn.Request([sn.user("画一个红苹果")], want=["image"]), [replace(DRAW, only="en zh")])[0].notes == ()


def test_while_the_language_is_not_known_models_of_many_languages_come_first() -> None:
    assert plan(["audio"], "text", [HEAR, MIND, MANY]).answer.skill is MANY
    assert plan(["audio"], "text", [HEAR, MIND]).answer.skill is MIND
    two = replace(SEE, only="en zh")
    assert plan(["image", "audio"], "text", [HEAR, two, LOOK]).answer.skill is two


def test_what_was_asked_aloud_in_another_language_is_not_answered_either(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Hearing("a", "zh", "你好吗？", (Heard(0.0, 1.0, "你好吗？", language="zh"),))
    monkeypatch.setattr("sensorium.route.transcribe", lambda *given, **named: heard)
    monkeypatch.setattr("sensorium.route.open_model", lambda *given: None)
    with pytest.raises(sn.ModalityError, match="in Chinese, and mind knows English"):
        list(stream_answer(sn.Request([sn.user(sn.Audio(torch.zeros(1600), rate_hz=16_000))]), [HEAR, MIND]))


def test_a_film_in_which_nobody_speaks_is_looked_at(films: dict[str, sn.Video], monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    asked: list[sn.Request] = []

    def answered(model: object, request: sn.Request) -> list[sn.Delta]:
        asked.append(request)
        return [sn.Delta("part", sn.Text("A frog."))]

    monkeypatch.setattr("sensorium.route.transcribe", lambda *given, **named: Hearing("a", "", "", ()))
    monkeypatch.setattr("sensorium.route.open_model", lambda *given: None)
    monkeypatch.setattr("sensorium.engine.stream", answered)
    list(stream_answer(sn.Request([sn.user(films["talking"], "What is it?")]), [EYE, LOOKER, *HEARER], note=said.append))
    list(stream_answer(sn.Request([sn.user(films["talking"])]), [EYE, *HEARER], note=said.append))
    assert [[part.modality for part in request.messages[0].parts] for request in asked] == [["video", "text"], ["video"]]
    assert said == ["nobody speaks in the film; its frames are looked at"] * 2
    with pytest.raises(sn.ModalityError, match="no speech was heard"):
        list(stream_answer(sn.Request([sn.user(films["talking"], "What is said?")]), [EYE, *HEARER]))


def test_what_is_said_in_a_film_stands_beside_its_frames(films: dict[str, sn.Video], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[sn.Request] = []
    toy = sn.load(saved_toy(tmp_path / "toy"))
    heard = Hearing("a", "en", "a dog", (Heard(0.0, 1.0, "a dog", language="en"),))
    monkeypatch.setattr("sensorium.route.transcribe", lambda *given, **named: heard)
    monkeypatch.setattr("sensorium.route.open_model", lambda *given: toy)
    monkeypatch.setattr("sensorium.engine.stream", lambda model, request: asked.append(request) or [sn.Delta("part", sn.Text("A frog."))])
    list(stream_answer(sn.Request([sn.user(films["talking"], "What happens?")]), [LOOKER, *HEARER]))
    assert [str(part) for part in asked[0].messages[0].parts[1:]] == ['In the video is said: "a dog"', "What happens?"]


def test_a_saved_model_of_pictures_looks_at_films(tmp_path: Path, films: dict[str, sn.Video]) -> None:
    folder = str(saved_toy(tmp_path / "toy"))
    skills = [one for one in skills_with(folder) if not one.converts]
    assert verbs(skills, films["silent"], "What is this?") == ["text video see"]
    reply = answer(sn.Request([sn.user(films["silent"], "What is this?")], max_tokens=2), skills)
    assert isinstance(reply.text, str)
