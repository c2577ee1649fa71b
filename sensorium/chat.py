"""Chat: a conversation that goes on: what was read is remembered from turn to turn, and what was said can be kept in a file.

    say -> history as ids by the chat template -> what the reader knows already is skipped -> the rest is read -> the answer streams

A model without a chat template, or a message with pictures or sounds, is answered by the engine, which reads everything again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import torch

from sensorium.desk import Codecs, Desk, Value
from sensorium.engine import constraints_of, sampling_of, stream, tell
from sensorium.files import read_lines, write_file
from sensorium.fused import Reader, open_reader
from sensorium.generate import stream_ids
from sensorium.model import ModelNet
from sensorium.types import MODALITIES, Audio, ConfigError, Delta, Image, Media, MediaError, Message, Request, Text, Video, assistant, user

__all__ = ["Chat"]

_MEDIA = {kind.modality: kind for kind in (Image, Audio, Video)}


class Chat:
    """A conversation with one model.

    Args:
        model: what answers.
        codecs: None takes those of the model's folder.
        system: what the model is told before everything; None leaves it to the template.
        settings: how answers are chosen; its messages are not looked at. None is 512 tokens, greedily.
        room: most tokens remembered, of the conversation and the answer; the model's context if that is less.
    """

    def __init__(self, model: ModelNet, codecs: Codecs | None = None, system: str | None = None, settings: Request | None = None,
                 room: int = 2048) -> None:
        self.desk = Desk(model, codecs)
        self.settings = settings or Request([], max_tokens=512)
        self.room = min(room, self.desk.codecs.context) if self.desk.codecs.template else room
        self.messages: list[Message] = [Message("system", (Text(system),))] if system else []
        self.dropped = 0  # messages from the beginning that the model no longer sees
        self.read = 0  # tokens read for the last answer, beyond those remembered
        self._reader: Reader | None = None
        self._known: list[int] = []  # what the reader holds
        self._stopped = False

    def say(self, *values: Value) -> Iterator[Delta]:
        """Say something; the answer comes in pieces of text, then whole as a part.

        A message that leaves no room for the oldest ones is answered without them, and a "note" says so first. If nobody waits for the
        end of an answer, what was given out of it is what was said.

        Raises:
            MediaError: too long to be answered.
        """
        if not values:
            raise ConfigError("nothing was said; give a text or a picture")
        self.messages.append(user(*values))
        self._stopped, said, whole, dropped = False, [], False, self.dropped
        try:
            with closing(self._answer()) as deltas:
                for delta in deltas:
                    if delta.kind == "text":
                        said.append(delta.value)
                    yield delta
            whole = True
        except ValueError:  # every error of ours; the message is taken back, so that it can be said better
            said, self.dropped = [], dropped
            raise
        finally:
            if whole or said:
                self.messages.append(assistant("".join(said)))
            else:
                self.messages.pop()

    def stop(self) -> None:
        """End the answer that is being given; from any thread."""
        self._stopped = True

    def save(self, path: str | Path) -> Path:
        """Write the conversation, a line of JSON a message.

        Raises:
            MediaError: a picture or sound that is not a file.
        """
        lines = [json.dumps({"role": message.role, "parts": [_plain(part) for part in message.parts]}, ensure_ascii=False)
                 for message in self.messages]
        return write_file(path, ("\n".join(lines) + "\n").encode())

    def load(self, path: str | Path) -> None:
        """Go on with a saved conversation instead of this one.

        Raises:
            MediaError: missing, or not a conversation.
        """
        try:
            messages = [Message(str(row["role"]), tuple(_value(part) for part in row["parts"])) for row in read_lines(path)]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MediaError(f"{str(path)[:200]!r} holds no conversation ({type(error).__name__}: {str(error)[:80]}); "
                             "give a file that Chat.save wrote") from error
        self.messages, self.dropped = messages, 0

    def _answer(self) -> Iterator[Delta]:
        """The deltas of the answer to the last message."""
        if self.desk.codecs.template is None or any(isinstance(part, Media) for message in self.messages for part in message.parts):
            request = replace(self.settings, messages=self.messages)
            yield from takewhile(lambda delta: not self._stopped, stream(self.desk.model, request, self.desk.codecs))
            return
        before = self.dropped
        ids = self._fitting()
        if self.dropped > before:
            yield Delta("note", f"the conversation is longer than {self.room:,} tokens; its oldest {self.dropped} messages are no longer seen")
        yield from self._continue(ids)

    def _fitting(self) -> list[int]:
        """The conversation as ids, without the oldest turns if there is no room for them.

        Once there is none, half of the room is cleared: what follows a dropped turn must be read again, and not at every turn.
        """
        ids = self._ids()
        wanted = min(self.settings.max_tokens, self.room // 2)
        if len(ids) + wanted <= self.room:
            return ids
        first = sum(message.role == "system" for message in self.messages[:1])
        turns = [place for place, message in enumerate(self.messages) if message.role == "user" and place > first + self.dropped]
        for place in turns:
            self.dropped = place - first
            ids = self._ids()
            if len(ids) + min(wanted, self.room // 4) <= self.room // 2 or place == turns[-1]:
                break
        if len(ids) >= self.room:
            raise MediaError(f"the message takes {len(ids):,} tokens with what stands around it, and there is room for {self.room:,} with the "
                             "answer; shorten it")
        return ids

    def _ids(self) -> list[int]:
        first = sum(message.role == "system" for message in self.messages[:1])
        seen = self.messages[:first] + self.messages[first + self.dropped :]
        return self.desk.codecs.template.ids(self.desk.codecs.text, seen)

    def _continue(self, ids: list[int]) -> Iterator[Delta]:
        """Read what is new in ``ids``, and answer."""
        if self._reader is None:
            self._reader = open_reader(self.desk.model, room=self.room)
        same = next((place for place, (a, b) in enumerate(zip(self._known, ids)) if a != b), min(len(self._known), len(ids)))
        same = min(same, len(ids) - 1)  # the last is read again, for its scores
        same = self._reader.rewind(same)
        self.read, self._known = len(ids) - same, ids[:same]
        request, written = replace(self.settings, max_tokens=min(self.settings.max_tokens, self.room - len(ids))), list(ids)
        sampling = sampling_of(self.desk, request, len(ids))
        constraints = constraints_of(self.desk, request, sampling)
        tokens = stream_ids(self._reader, torch.tensor([ids[same:]]), sampling, None, constraints, torch.tensor([ids]))
        try:
            yield from tell(self.desk, self._noted(tokens, written), request, constraints)
        finally:
            self._known = written[: self._reader.length]

    def _noted(self, tokens: Iterator[torch.Tensor], written: list[int]) -> Iterator[torch.Tensor]:
        """Chosen tokens as they come, until the answer is stopped; each is written down."""
        for token_B in tokens:
            written.append(int(token_B[0]))
            yield token_B
            if self._stopped:
                return


def _plain(part: Text | Media) -> dict[str, str]:
    if isinstance(part, Text):
        return {"text": part.text}
    if not isinstance(part.source, (str, Path)):
        raise MediaError(f"{part!r} is not a file, so the conversation cannot be saved with it; save it first and say its path")
    return {part.modality: str(part.source)}


def _value(part: dict[str, str]) -> Text | Media:
    (modality, value), = part.items()
    if modality not in MODALITIES or not isinstance(value, str):
        raise ValueError(f"a part is {str(part)[:60]}, wanted one of {', '.join(MODALITIES)} and its text or path")
    return Text(value) if modality == "text" else _MEDIA[modality](value)
