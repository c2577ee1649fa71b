"""Route: from what is given to what is wanted, through the models at hand.

    question.wav --hear--> text --answer--> text --speak--> answer.wav
    question.wav --hear--> text --draw--> picture          picture --name--> text --speak--> sound

A skill either converts (the same words in another form: hear, speak) or answers (see, look, think, draw). A route is one answer, with the
conversions before it that make what is given readable and those after it that make it what is wanted. Of all routes that is taken whose
answering model is made for most of what is given (a question about a picture before a picture alone), and of these the one whose models have
the fewest parameters: that is what has to be read from memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sensorium import engine
from sensorium.captions import plain
from sensorium.catalog import CATALOG, Entry, find, ready
from sensorium.codecs.sentences import language as tongue
from sensorium.hear import listen
from sensorium.named import open_model, open_voice
from sensorium.speak import join
from sensorium.types import MODALITIES, Audio, ConfigError, Delta, Media, Message, ModalityError, Reply, Request, Text

__all__ = ["answer", "plan", "Route", "routes_of", "Skill", "skills_at_hand", "skills_with", "Step", "stream_answer"]


@dataclass(frozen=True)
class Skill:
    """One thing a model can do.

    Args:
        model: its name.
        verb: "hear", "speak", "see", "look", "think", "draw", "animate" or "say".
        needs: modalities that must be given.
        writes: the modality that comes out.
        also: modalities that may be given besides.
        converts: the same content in another form; otherwise it answers.
        cost: parameters, in millions.
        only: the one language it knows; None is several.
        adapter: folder of an adapter that the model wears.
    """

    model: str
    verb: str
    needs: frozenset[str]
    writes: str
    also: frozenset[str] = frozenset()
    converts: bool = False
    cost: float = 0.0
    only: str | None = None
    adapter: str | None = None

    def __str__(self) -> str:
        return f"{' + '.join(sorted(self.needs))} -> {self.writes} ({self.verb}, {self.model})"


@dataclass(frozen=True)
class Step:
    """A skill at its place in a route, and which of the given modalities it reads there."""

    skill: Skill
    reads: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' + '.join(self.reads)} --{self.skill.verb} ({self.skill.model})--> {self.skill.writes}"


@dataclass(frozen=True)
class Route:
    """Conversions, one answer, conversions."""

    before: tuple[Step, ...]
    answer: Step
    after: tuple[Step, ...]

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


# What each kind of model can do: (verb, needs, writes, also, converts).
_KINDS = {
    "see": (("see", {"image"}, "text", {"text"}, False), ("draw", {"text"}, "image", set(), False),
            ("see", {"video"}, "text", {"text"}, False), ("animate", {"text"}, "video", set(), False)),
    "look": (("look", {"image", "text"}, "text", set(), False),),
    "think": (("think", {"text"}, "text", set(), False),),
    "hear": (("hear", {"audio"}, "text", set(), True),),
    "speak": (("speak", {"text"}, "audio", set(), True),),
}
_ESPEAK = Skill("espeak-ng", "speak", frozenset({"text"}), "audio", converts=True)


def _skills(entry: Entry) -> list[Skill]:
    return [Skill(entry.name, verb, frozenset(needs), writes, frozenset(also), converts, entry.parameters / 1e6,
                  entry.only) for verb, needs, writes, also, converts in _KINDS.get(entry.kind, ())]


def skills_at_hand() -> list[Skill]:
    """What the ready models of the catalog can do; espeak-ng speaks where nothing better does."""
    skills = [skill for entry in CATALOG.values() if ready(entry.name) for skill in _skills(entry)]
    return skills if any(skill.verb == "speak" for skill in skills) else [*skills, _ESPEAK]


def skills_with(model: str, adapter: str | None = None) -> list[Skill]:
    """What is at hand, but only ``model`` (a name or a folder) answers.

    Args:
        adapter: folder of an adapter that it wears.

    Raises:
        ConfigError: not at hand, or it does not answer.
    """
    entry = CATALOG.get(model)
    if entry is not None:
        find(model)
        own = _skills_of(model) if entry.kind in ("see", "imagine") else _skills(entry)
    else:
        own = _skills_of(model)
    own = [replace(skill, adapter=adapter, only=None) for skill in own if not skill.converts]
    if not own:
        raise ConfigError(f"{model} does not answer, it is of kind {entry.kind if entry else 'embed'}; "
                          "name a model that sees or thinks, or leave --model out")
    return [*own, *(skill for skill in skills_at_hand() if skill.converts)]


def _skills_of(folder: str) -> list[Skill]:
    """Skills of a saved model, told from its sentence."""
    spec = open_model(folder).spec
    media = frozenset(spec.reads) - {"text"}
    skills = [Skill(folder, "see" if media else "think", frozenset({"text"}), "text", media)] if "text" in spec.writes else []
    skills += [Skill(folder, "see", frozenset({modality}), "text", frozenset(spec.reads)) for modality in sorted(media) if "text" in spec.writes]
    drawn = [(verb, writes) for verb, writes in (("draw", "image"), ("animate", "video"), ("say", "audio")) if writes in spec.writes]
    given = spec.reads or ("text",)  # what makes pictures from noise alone is not told of what
    return skills + [Skill(folder, verb, frozenset({one}), writes, frozenset(spec.reads)) for verb, writes in drawn for one in given]


def routes_of(request: Request, skills: Sequence[Skill] | None = None) -> list[Route]:
    """The way to each modality that a request wants.

    Raises:
        ConfigError: the request is empty.
        ModalityError: as :func:`plan`.
    """
    given = [value for message in request.messages for value in message.parts]
    if not given:
        raise ConfigError("the request is empty; give it a text, a picture or a sound")
    if request.strength is not None:  # whoever draws may be given the picture that is to be changed
        skills = [replace(skill, also=skill.also | {"image"}) if skill.writes == "image" else skill for skill in skills or skills_at_hand()]
    words = " ".join(value.text for value in given if isinstance(value, Text))
    written = tongue(words) if words.strip() else request.language
    return [plan([value.modality for value in given], want, skills, request.language, written) for want in request.want]


def plan(given: Sequence[str], want: str, skills: Sequence[Skill] | None = None, language: str | None = None, written: str | None = None) -> Route:
    """The best route.

    Args:
        given: modalities of the request.
        want: the modality to answer in.
        skills: to choose from; None is everything at hand.
        language: of what is heard; while it is not known, only models of several languages listen.
        written: language of the question; while it is not known, only models of several languages answer.

    Raises:
        ModalityError: no route; says what is missing, and which models of the catalog would bring it.
    """
    if want not in MODALITIES:
        raise ModalityError(f"{want!r} is no modality; wanted one of {', '.join(MODALITIES)}")
    at_hand = skills_at_hand() if skills is None else list(skills)
    chosen = [skill for skill in at_hand if skill.only in (None, language if skill.converts else written)]
    found = _best(set(given), want, chosen)
    if found is not None:
        return found
    what = f"from {' + '.join(sorted(set(given))) or 'nothing'} to {want}"
    others = [skill for entry in CATALOG.values() for skill in _skills(entry) if skill.converts or skills is None]
    more = _best(set(given), want, [*at_hand, *others])
    if more is not None:
        have = {skill.model for skill in chosen}
        missing = [step.skill.model for step in more.steps if step.skill.model not in have]
        raise ModalityError(f"nothing at hand leads {what}; get {', '.join(missing)}: sensorium pull {' '.join(missing)}")
    raise ModalityError(f"nothing leads {what}; at hand: {'; '.join(map(str, chosen)) or 'no model'}")


def _best(given: set[str], want: str, skills: list[Skill]) -> Route | None:
    converters = [skill for skill in skills if skill.converts]
    routes = [route for skill in skills if not skill.converts and (route := _through(skill, given, want, converters))]
    return min(routes, key=lambda route: route.rank, default=None)


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
    ways: dict[str, tuple[float, list[Step]]] = {modality: (0.0, []) for modality in start}
    for _ in MODALITIES:  # as many rounds as modalities: the longest chain without a circle
        for skill in converters:
            (source,) = skill.needs
            if source in ways:
                cost, steps = ways[source]
                if skill.writes not in ways or cost + skill.cost < ways[skill.writes][0]:
                    ways[skill.writes] = (cost + skill.cost, [*steps, Step(skill, (source,))])
    there = [ways[modality] for modality in goal if modality in ways]
    return min(there, key=lambda way: way[0])[1] if there else None


@dataclass
class _Work:
    """One request on its way: what was heard and answered is worked out once, however many modalities are wanted."""

    request: Request
    note: Callable[[str], None]
    heard: dict[int, str] = field(default_factory=dict)
    said: dict[str, Text | Media] = field(default_factory=dict)

    def hear(self, audio: Audio, step: Step) -> str:
        """The words of a sound."""
        if id(audio) not in self.heard:
            pieces = list(listen(open_model(step.skill.model), audio, language=self.request.language))
            text = plain(pieces)
            if not text:
                raise ModalityError(f"no speech was heard in {audio!r}; give a recording of someone speaking")
            self.heard[id(audio)] = text
            self.note(f"heard: {text}")
        return self.heard[id(audio)]

    def readable(self, route: Route) -> Request:
        """The request with every sound that the answering model does not read replaced by its words."""
        hearing = next((step for step in route.before if step.skill.verb == "hear"), None)

        def turned(value: Text | Media) -> Text | Media:
            return Text(self.hear(value, hearing)) if hearing and isinstance(value, Audio) else value

        messages = [Message(m.role, tuple(turned(value) for value in m.parts)) for m in self.request.messages]
        return replace(self.request, messages=messages, want=(route.answer.skill.writes,))

    def answer(self, route: Route) -> Iterator[Delta]:
        """The answer in the form its model writes, as it comes; remembered for the next wanted modality."""
        skill = route.answer.skill
        key = f"{skill.model}.{skill.verb}"
        if key in self.said:
            return
        for delta in engine.stream(open_model(skill.model, skill.adapter), self.readable(route)):
            if delta.kind == "part":
                self.said[key] = delta.value
            else:
                yield delta

    def result(self, route: Route) -> Text | Media:
        return self.said[f"{route.answer.skill.model}.{route.answer.skill.verb}"]

    def spoken(self, route: Route, step: Step) -> Iterator[Delta]:
        """The answer aloud, sentence by sentence while it is still being written."""
        speaker = open_voice(None if step.skill is _ESPEAK else step.skill.model)
        deltas: list[Delta] = []

        def words() -> Iterator[str]:
            fresh = False
            for delta in self.answer(route):
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
        note: told what was heard on the way.

    Raises:
        ModalityError: a wanted modality cannot be reached; refused before any work.
    """
    routes = routes_of(request, skills)
    work = _Work(request, note)
    for route in routes:
        if route.after:
            (step,) = route.after
            yield from work.spoken(route, step)
        else:
            yield from work.answer(route)
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
