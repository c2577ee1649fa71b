"""Events: scenes of ``world`` in which one thing moves, and sounds as it does; film, sound and questions about both, with answers known exactly.

    seed -> Event: a scene, which of its things moves, how, and what it sounds like
    event -> frames of a film (each drawn as ``world`` draws a scene)
    event -> samples of its sound: so many notes, rising, falling or level, in the voice of the thing's shape
    event -> questions: what moves, which way, how often it sounds, how its notes go

    Worlds    any number of them as samples of the one format, for ``samples.Mixture`` to mix into any training
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from sensorium.corpus.world import NUMBERS, SHAPES, Question, Scene, draw_scene, make_scene, questions
from sensorium.types import Audio, ConfigError, Image, Sample, Text, Video, part

__all__ = ["Event", "event_questions", "film", "make_event", "MELODIES", "MOTIONS", "sound", "Worlds"]

MOTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "round": (0, 0)}
MELODIES = ("rising", "falling", "level")
_BEATS = (1, 4)  # fewest and most notes
_REACH = 0.28  # how far a thing goes, in shares of the side


@dataclass(frozen=True)
class Event:
    """A scene in which something happens.

    Args:
        scene: as it is at first.
        mover: index of the thing that moves.
        motion: one of ``MOTIONS``.
        notes: how often it sounds.
        melody: one of ``MELODIES``.
    """

    scene: Scene
    mover: int
    motion: str
    notes: int
    melody: str

    @property
    def name(self) -> str:
        """The thing that moves, in words."""
        thing = self.scene.things[self.mover]
        return f"{thing.colour} {thing.shape}"


def make_event(rng: np.random.Generator, held: bool = False) -> Event:
    """An event.

    Args:
        held: of shapes and colours that training never shows together; else of none of these.
    """
    while True:
        scene = replace(make_scene(rng, held), word=None)
        mover = int(rng.integers(len(scene.things)))
        alike = sum((one.shape, one.colour) == (scene.things[mover].shape, scene.things[mover].colour) for one in scene.things)
        if alike == 1:  # so that its name says which it is
            break
    notes = int(rng.integers(_BEATS[0], _BEATS[1] + 1))
    melody = str(rng.choice(MELODIES)) if notes > 1 else "level"
    return Event(scene, mover, str(rng.choice(tuple(MOTIONS))), notes, melody)


def film(event: Event, frames: int = 8, size: int = 64) -> np.ndarray:
    """The event as it is seen, (F, size, size, 3) uint8: the thing leaves its place and is back there after the last frame."""
    out = []
    for number in range(frames):
        turn = 2 * math.pi * number / frames
        across, down = MOTIONS[event.motion]
        if event.motion == "round":
            dx, dy = (_REACH / 2 * value for value in (math.sin(turn), math.cos(turn) - 1))
        else:
            far = _REACH * math.sin(turn / 2)
            dx, dy = across * far, down * far
        things = list(event.scene.things)
        things[event.mover] = replace(things[event.mover], x=things[event.mover].x + dx, y=things[event.mover].y + dy)
        things.append(things.pop(event.mover))  # in front of the others
        out.append(draw_scene(replace(event.scene, things=tuple(things)), size))
    return np.stack(out)


def sound(event: Event, rate_hz: int = 16_000, note_s: float = 0.3) -> np.ndarray:
    """The event as it is heard, float32 (T,) in -1..1: a pause of a third of a note after each.

    Every shape has a voice of its own: how strong each of its overtones is.
    """
    voice = np.random.default_rng(SHAPES.index(event.scene.things[event.mover].shape)).uniform(0.1, 1.0, 6) / np.arange(1, 7)
    step = {"rising": 1.25, "falling": 0.8, "level": 1.0}[event.melody]
    time_T = np.arange(int(note_s * rate_hz)) / rate_hz
    swell_T = np.minimum(1, np.minimum(time_T, note_s - time_T) / 0.02)
    rest, pieces = np.zeros(int(note_s * rate_hz / 3)), []
    for number in range(event.notes):
        base_hz = 330.0 * step**number
        tone_T = sum(strength * np.sin(2 * math.pi * base_hz * (k + 1) * time_T) for k, strength in enumerate(voice))
        pieces += [tone_T * swell_T / voice.sum() * 0.8, rest]
    return np.concatenate(pieces).astype(np.float32)


def _moves(event: Event) -> Question:
    return Question("moves", "What moves?", f"The {event.name} moves.", event.name)


def _direction(event: Event) -> Question:
    how = "goes round" if event.motion == "round" else f"goes {event.motion} and back"
    return Question("direction", f"Which way does the {event.name} go?", f"It {how}.", event.motion)


def _notes(event: Event) -> Question:
    number = NUMBERS[event.notes]
    return Question("notes", "How many notes do you hear?", f"I hear {number}.", number)


def _melody(event: Event) -> Question | None:
    return Question("melody", "Do the notes rise or fall?", f"They {'stay level' if event.melody == 'level' else event.melody[:-3]}.",
                    event.melody) if event.notes > 1 else None


_SEEN: tuple[Callable[[Event], Question | None], ...] = (_moves, _direction)
_HEARD: tuple[Callable[[Event], Question | None], ...] = (_notes, _melody)


def event_questions(event: Event, kind: str) -> list[Question]:
    """All questions that a film ("video") or a sound ("audio") of the event answers."""
    asked = [ask(event) for ask in (_SEEN if kind == "video" else _HEARD)]
    return [question for question in asked if question is not None]


@dataclass(frozen=True)
class Worlds:
    """Drawn and sounding worlds as samples: a medium, a question, and the answer to be learned. Sample ``i`` is always the same.

    Args:
        modality: "image", "audio" or "video".
        count: how many there are.
        seed: of all of them.
        held: of what training never shows, for measuring.
        size: of pictures and films, in pixels.
        frames: of a film.
    """

    modality: str = "image"
    count: int = 10_000
    seed: int = 0
    held: bool = False
    size: int = 64
    frames: int = 8

    def __post_init__(self) -> None:
        if self.modality not in ("image", "audio", "video") or self.count < 1:
            raise ConfigError(f"{self}: wanted a modality of image, audio, video and a count of 1 or more")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"sample {index} of {self.count}")
        rng = np.random.default_rng((self.seed, self.held, ("image", "audio", "video").index(self.modality), index))
        if self.modality == "image":
            scene = make_scene(rng, self.held)
            medium, asked = Image(_planes(draw_scene(scene, self.size))), questions(scene, rng, 1)[0]
        else:
            event = make_event(rng, self.held)
            some = event_questions(event, self.modality)
            asked = some[int(rng.integers(len(some)))]
            heard = self.modality == "audio"
            medium = Audio(torch.from_numpy(sound(event)), {}, 16_000) if heard else Video(_planes(film(event, self.frames, self.size)), {}, 8.0)
        return Sample((part(medium), part(Text(asked.text)), part(Text(asked.answer), target=True)), {"kind": asked.kind, "key": asked.key})


def _planes(pixels: np.ndarray) -> torch.Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) in 0..1."""
    return torch.from_numpy(pixels).movedim(-1, -3).float() / 255
