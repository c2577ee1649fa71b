"""Questions about films: a film has frames and sound, and a request about one needs the one, the other, or both.

    "What colour is the car?" -> its frames        "What does she say?" -> its sound        "What happens?" -> both, if a model reads both
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sensorium.codecs.media import kind_of
from sensorium.types import Audio, Media, Message, Request, Text, Video

__all__ = ["Take", "takes"]


@dataclass(frozen=True)
class Take:
    """A request with each film of sound as its frames, its sound, or both.

    Args:
        tracks: sounds that stand beside their films' frames.
        listens: films are heard.
        note: what of them is left out, for the person.
    """

    request: Request
    tracks: tuple[Audio, ...] = ()
    listens: bool = False
    note: str = ""

    @property
    def given(self) -> list[str]:
        """Modalities of the request."""
        return [value.modality for message in self.request.messages for value in message.parts]


def takes(request: Request, side: str | None, asked: bool) -> list[Take]:
    """The ways to take the films of a request, best first; of a request without films of sound, the request.

    Args:
        side: "seen" or "said", what is asked for; None if the question does not tell.
        asked: there is a question in words; otherwise what is said in a film is taken for one.
    """
    given = [value for message in request.messages for value in message.parts if isinstance(value, Video)]
    films = [value for value in given if _sounds(value)]
    if not films:
        mute = side == "said" and given and all(value.modality != "audio" for message in request.messages for value in message.parts)
        return [Take(request, note=f"{_names(given)} has no sound; what is seen is all there is" if mute else "")]
    sounds = {id(film): Audio(film.source) for film in films}
    name = _names(films)

    def made(value: Text | Media, frames: bool, sound: bool) -> list[Text | Media]:
        return [*([value] if frames else []), *([sounds[id(value)]] if sound else [])] if id(value) in sounds else [value]

    def take(frames: bool, sound: bool, note: str = "") -> Take:
        messages = [Message(m.role, tuple(part for value in m.parts for part in made(value, frames, sound))) for m in request.messages]
        return Take(replace(request, messages=messages), tuple(sounds.values()) if frames and sound else (), sound, note)

    if side is not None:
        return [take(side == "seen", side == "said")]
    seen = take(True, False, f"{name} is looked at and not listened to; ask what is said in it to have it heard")
    heard = take(False, True, f"{name} is listened to and not looked at; ask what is seen in it to have it looked at")
    return [take(True, True), seen, heard] if asked else [heard, seen]


def _names(films: Sequence[Video]) -> str:
    return ", ".join(Path(film.source).name if isinstance(film.source, (str, Path)) else "the film" for film in films)


def _sounds(film: Video) -> bool:
    """Whether anything can be heard in a film."""
    return isinstance(film.source, (str, Path, bytes)) and kind_of(film.source).sound
