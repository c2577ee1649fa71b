"""Route: from what is given to what is wanted, through the models at hand.

    question.wav --hear--> text --answer--> text --speak--> answer.wav
    question.wav --hear--> text --draw--> picture          picture --name--> text --speak--> sound

A skill either converts (the same words in another form: hear, speak) or answers (see, look, think, draw). A route is one answer, with the
conversions before it that make what is given readable and those after it that make it what is wanted. Of all routes that is taken whose
answering model is made for most of what is given (a question about a picture before a picture alone), and of these the one whose models have
the fewest parameters: that is what has to be read from memory. Who does not know the question's language does not answer, unless it is named.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sensorium import engine
from sensorium.captions import plain
from sensorium.catalog import CATALOG
from sensorium.codecs.questions import foreign, side_of, written_in
from sensorium.codecs.sentences import language as tongue
from sensorium.desk import codecs_of
from sensorium.film_questions import Take, takes
from sensorium.hear import Hearing, transcribe
from sensorium.languages import name_of
from sensorium.named import open_model, open_voice
from sensorium.skills import ESPEAK, Skill, entry_skills, skills_at_hand, skills_with
from sensorium.speak import join
from sensorium.types import MODALITIES, Audio, ConfigError, Delta, Media, Message, ModalityError, Reply, Request, Text

__all__ = ["answer", "plan", "Route", "routes_of", "Skill", "skills_at_hand", "skills_with", "Step", "stream_answer"]


@dataclass(frozen=True)
class Step:
    """A skill at its place in a route, and which of the given modalities it reads there."""

    skill: Skill
    reads: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' + '.join(self.reads)} --{self.skill.verb} ({self.skill.model})--> {self.skill.writes}"


@dataclass(frozen=True)
class Route:
    """Conversions, one answer, conversions; and what somebody should know of it."""

    before: tuple[Step, ...]
    answer: Step
    after: tuple[Step, ...]
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        return (*self.before, self.answer, *self.after)

    @property
    def cost(self) -> tuple[float, int]:
        """Parameters in millions, then steps."""
        return sum(step.skill.cost for step in self.steps), len(self.steps)

    @property
    def rank(self) -> tuple[int, float, int]:
        """The least is the best: how little the answer is made for what is given, then what it costs."""
        return -len(self.answer.skill.needs), *self.cost

    def __str__(self) -> str:
        return "\n".join(f"{number}. {step}" for number, step in enumerate(self.steps, start=1))


def routes_of(request: Request, skills: Sequence[Skill] | None = None) -> list[Route]:
    """The way to each modality that a request wants.

    Raises:
        ConfigError: the request is empty.
        ModalityError: as :func:`plan`.
    """
    return [way for _, way in _ways(request, skills)]


def _ways(request: Request, skills: Sequence[Skill] | None = None, written: str | None = None, silent: bool = False) -> list[tuple[Take, Route]]:
    """To each wanted modality, how films are taken and the way from there.

    Args:
        written: language of the question; None finds out from its words.
        silent: nobody speaks in the films.
    """
    given = [value for message in request.messages for value in message.parts]
    if not given:
        raise ConfigError("the request is empty; give it a text, a picture or a sound")
    if request.strength is not None:  # whoever draws may be given the picture that is to be changed
        skills = skills_at_hand() if skills is None else skills
        skills = [replace(skill, also=skill.also | {"image"}) if skill.writes == "image" else skill for skill in skills]
    last = " ".join(value.text for value in request.messages[-1].parts if isinstance(value, Text))
    words = last if last.strip() else " ".join(value.text for value in given if isinstance(value, Text))
    asked = bool(words.strip())
    if written is None:
        written = written_in(words) or tongue(words) if asked else request.language
    found = takes(request, side_of(words) if asked else None, asked)
    if silent:
        found = [replace(take, note="nobody speaks in the film; its frames are looked at") for take in found if not take.listens] or found
    return [_way(found, want, skills, request.language, written) for want in request.want]


def _way(found: Sequence[Take], want: str, skills: Sequence[Skill] | None, language: str | None, written: str | None) -> tuple[Take, Route]:
    """The first way of taking films that a route leads from. What is said in a film stands beside its frames as words, for models that heed it."""
    refusals: list[ModalityError] = []
    for take in found:
        some = skills
        if take.tracks:
            some = [skill for skill in (skills_at_hand() if skills is None else skills) if skill.heeds or skill.converts]
        try:
            way = plan(take.given, want, some, language, written)
        except ModalityError as error:
            refusals += [] if take.tracks else [error]
            continue
        skill = way.answer.skill
        if not (take.tracks and "audio" in way.answer.reads):
            strange = foreign(skill.model, skill.only, written)
            return take, replace(way, notes=tuple(note for note in (take.note, strange and f"{strange}: its answer may make no sense") if note))
    raise refusals[0] if refusals else ModalityError(f"nothing leads from {' + '.join(sorted(set(found[0].given)))} to {want}")


def plan(given: Sequence[str], want: str, skills: Sequence[Skill] | None = None, language: str | None = None, written: str | None = None) -> Route:
    """The best route.

    Args:
        given: modalities of the request.
        want: the modality to answer in.
        skills: to choose from; None is everything at hand.
        language: of what is heard; while it is not known, only models of several languages listen.
        written: language of the question; while it is not known, models of many languages come first.

    Raises:
        ModalityError: no route; says what is missing, and which models of the catalog would bring it.
    """
    if want not in MODALITIES:
        raise ModalityError(f"{want!r} is no modality; wanted one of {', '.join(MODALITIES)}")
    at_hand = skills_at_hand() if skills is None else list(skills)

    def may(skill: Skill) -> bool:
        return skill.named or (skill.knows(language) if skill.converts else written is None or skill.knows(written))

    chosen = [skill for skill in at_hand if may(skill)]
    found = _best(set(given), want, chosen, wide=written is None)
    if found is not None:
        return found
    what = f"from {' + '.join(sorted(set(given))) or 'nothing'} to {want}"
    others = [skill for entry in CATALOG.values() for skill in entry_skills(entry) if may(skill) and (skill.converts or skills is None)]
    more = _best(set(given), want, [*chosen, *others])
    if more is not None:
        have = {skill.model for skill in chosen}
        missing = [step.skill.model for step in more.steps if step.skill.model not in have]
        raise ModalityError(f"nothing at hand leads {what}{_in(written)}; get {', '.join(missing)}: sensorium pull {' '.join(missing)}")
    stranger = _best(set(given), want, at_hand)
    if stranger is not None and written is not None and not may(stranger.answer.skill):
        model = stranger.answer.skill.model
        raise ModalityError(f"{foreign(model, stranger.answer.skill.only, written)}; no other model at hand or in the catalog leads {what}"
                            f"{_in(written)}: name the folder of one that does with --model, or --model {model} to be answered all the same")
    raise ModalityError(f"nothing leads {what}; at hand: {'; '.join(map(str, chosen)) or 'no model'}")


def _in(language: str | None) -> str:
    return f" in {name_of(language)}" if language not in (None, "en") else ""


def _best(given: set[str], want: str, skills: list[Skill], wide: bool = False) -> Route | None:
    """The best route, or None; of ``wide`` ones, the answers of models of many languages come first."""
    converters = [skill for skill in skills if skill.converts]
    routes = [route for skill in skills if not skill.converts and (route := _through(skill, given, want, converters))]
    return min(routes, key=lambda route: (-route.answer.skill.languages if wide else 0, route.rank), default=None)


def _through(answer: Skill, given: set[str], want: str, converters: list[Skill]) -> Route | None:
    """The cheapest route whose answer is ``answer``, or None."""
    reads = answer.needs | answer.also
    before: list[Step] = []
    have = set()
    for modality in sorted(given):
        chain = _chain({modality}, reads, converters)
        if chain is None:
            return None
        before += [step for step in chain if step not in before]
        have.add(chain[-1].skill.writes if chain else modality)
    after = _chain({answer.writes}, frozenset({want}), converters)
    if after is None or not answer.needs <= have:
        return None
    return Route(tuple(before), Step(answer, tuple(sorted(have))), tuple(after))


def _chain(start: set[str], goal: frozenset[str] | set[str], converters: list[Skill]) -> list[Step] | None:
    """Cheapest conversions from a modality of ``start`` to one of ``goal``; [] if it is there already."""
    ways: dict[str, tuple[float, list[Step]]] = {modality: (0.0, []) for modality in sorted(start)}
    for _ in MODALITIES:  # as many rounds as modalities: the longest chain without a circle
        for skill in converters:
            (source,) = skill.needs
            if source in ways:
                cost, steps = ways[source]
                if skill.writes not in ways or cost + skill.cost < ways[skill.writes][0]:
                    ways[skill.writes] = (cost + skill.cost, [*steps, Step(skill, (source,))])
    there = [ways[modality] for modality in goal if modality in ways]
    return min(there, key=lambda way: (way[0], len(way[1])))[1] if there else None  # of two that cost nothing, the one without a detour


@dataclass
class _Work:
    """One request on its way: what was heard and answered is worked out once, however many modalities are wanted."""

    request: Request
    note: Callable[[str], None]
    heard: dict[Any, Hearing] = field(default_factory=dict)
    said: dict[str, Text | Media] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def hear(self, audio: Audio, step: Step) -> Hearing:
        """What is said in a sound."""
        key = (str(audio.source) if isinstance(audio.source, (str, Path)) else id(audio.source), audio.track)
        if key not in self.heard:
            self.heard[key] = transcribe(open_model(step.skill.model), audio, language=self.request.language)
            text = plain(self.heard[key].segments)
            if text:
                self.note(f"heard: {text}")
        return self.heard[key]

    def remark(self, text: str) -> None:
        """Say something once."""
        if text not in self.remarks:
            self.remarks.append(text)
            self.note(text)

    def words(self, audio: Audio, step: Step) -> str:
        """The words of a sound that is to hold some."""
        text = plain(self.hear(audio, step).segments)
        if not text:
            raise ModalityError(f"no speech was heard in {audio!r}; give a recording of someone speaking")
        return text

    def listened(self, take: Take, route: Route) -> dict[str, Any] | None:
        """What only listening tells and asks for another route: that nobody speaks in the films, or that the answering model does not know the
        language in which the question was spoken."""
        step = next((step for step in route.before if step.skill.verb == "hear"), None)
        if step is None:
            return None
        sounds = [value for message in take.request.messages for value in message.parts if isinstance(value, Audio)]
        heard = [self.hear(sound, step) for sound in sounds]
        if (take.tracks or take.note) and not any(hearing.segments for hearing in heard):
            return {"silent": True} if take.listens else None
        asked = any(isinstance(value, Text) for message in take.request.messages for value in message.parts)
        spoken = next((hearing.language for hearing in heard if hearing.language), None)
        skill = route.answer.skill
        return {"written": spoken} if spoken and not asked and not skill.named and not skill.knows(spoken) else None

    def readable(self, take: Take, route: Route) -> Request:
        """The request with every sound that the answering model does not read replaced by its words."""
        hearing = next((step for step in route.before if step.skill.verb == "hear"), None)

        def turned(value: Text | Media) -> Text | Media:
            if hearing is None or not isinstance(value, Audio):
                return value
            if all(value is not track for track in take.tracks):
                return Text(self.words(value, hearing))
            return Text(f'In the video is said: "{self.fitting(plain(self.hear(value, hearing).segments), route.answer.skill)}"')

        messages = [Message(m.role, tuple(turned(value) for value in m.parts)) for m in take.request.messages]
        return replace(take.request, messages=messages, want=(route.answer.skill.writes,))

    def fitting(self, words: str, skill: Skill) -> str:
        """As much of what is said in a film as leaves half of a model's context to the frames, the question and the answer."""
        codecs = codecs_of(open_model(skill.model, skill.adapter))
        ids = codecs.text.encode(words)
        if len(ids) <= codecs.context // 2:
            return words
        self.remark(f"{skill.model} reads the first {codecs.context // 2:,} of the {len(ids):,} tokens that are said; ask what is said to have all "
                    "of it read")
        return codecs.text.decode(list(ids)[: codecs.context // 2])

    def answer(self, take: Take, route: Route) -> Iterator[Delta]:
        """The answer in the form its model writes, as it comes; remembered for the next wanted modality."""
        skill = route.answer.skill
        key = f"{skill.model}.{skill.verb}"
        if key in self.said:
            return
        for delta in engine.stream(open_model(skill.model, skill.adapter), self.readable(take, route)):
            if delta.kind == "part":
                self.said[key] = delta.value
            else:
                yield delta

    def result(self, route: Route) -> Text | Media:
        return self.said[f"{route.answer.skill.model}.{route.answer.skill.verb}"]

    def spoken(self, take: Take, route: Route, step: Step) -> Iterator[Delta]:
        """The answer aloud, sentence by sentence while it is still being written."""
        speaker = open_voice(None if step.skill is ESPEAK else step.skill.model)
        deltas: list[Delta] = []

        def words() -> Iterator[str]:
            fresh = False
            for delta in self.answer(take, route):
                fresh = True
                deltas.append(delta)
                if delta.kind == "text":
                    yield delta.value
            if not fresh:
                yield str(self.result(route))

        whole: list[Audio] = []
        for sound in speaker.speak_stream(words(), voice=self.request.voice, speed=self.request.speed):
            yield from deltas
            deltas.clear()
            whole.append(sound)
            yield Delta("audio", sound, len(whole))
        yield from deltas
        yield Delta("part", join(whole))


def stream_answer(request: Request, skills: Sequence[Skill] | None = None, note: Callable[[str], None] = lambda text: None) -> Iterator[Delta]:
    """Answer a request through whatever models it takes, as it happens.

    Args:
        skills: to choose from; None is everything at hand.
        note: told what was heard on the way, and what somebody should know of it.

    Raises:
        ModalityError: a wanted modality cannot be reached; refused before any work.
    """
    ways, work = _ways(request, skills), _Work(request, note)
    again = work.listened(*ways[0])
    for take, route in _ways(request, skills, **again) if again else ways:
        for said in route.notes:
            work.remark(said)
        if route.after:
            (step,) = route.after
            yield from work.spoken(take, route, step)
        else:
            yield from work.answer(take, route)
            yield Delta("part", work.result(route))


def answer(request: Request, skills: Sequence[Skill] | None = None) -> Reply:
    """The whole reply of :func:`stream_answer`."""
    parts, seconds, start = [], {}, time.perf_counter()
    for delta in stream_answer(request, skills):
        if delta.kind == "part":
            parts.append(delta.value)
            seconds[delta.value.modality] = time.perf_counter() - start
            start = time.perf_counter()
    return Reply(tuple(parts), seconds)
