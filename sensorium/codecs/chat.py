"""Chat template: messages -> the text a chat model was trained on -> ids, with what people typed kept apart from what the template says.

    messages -> typed special tokens quoted, media a mark each -> the template, in its sandbox -> split at marks -> ids

A template writes a model's special tokens as text among the words of the conversation. Here the words are marked first: a name of a
special token inside them is quoted, and becomes ordinary text again when the whole is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from sensorium.codecs.sandbox import Sandbox
from sensorium.codecs.text import QUOTE, Tokenizer
from sensorium.types import CheckpointError, ConfigError, Media, Message, assistant, user

__all__ = ["ChatTemplate", "ROLES"]

ROLES = ("system", "user", "assistant")
MEDIUM = "\ufdd1"  # stands for a picture or a sound inside a message; another of the code points for a program's own use
_PROBE = "sensoriumprobe"


@dataclass(frozen=True)
class ChatTemplate:
    """How a model's conversations are written.

    Args:
        source: the template, in jinja2's language.
        special: names that it uses for special tokens, e.g. {"bos_token": "<s>"}.
        media: modality -> the token that it writes for a medium of a message given part by part.
    """

    source: str
    special: dict[str, str] = field(default_factory=dict)
    media: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that gives the template again."""
        return {"source": self.source, "special": self.special, "media": self.media}

    def render(self, messages: Sequence[Message], answer: bool = True) -> str:
        """The conversation as one text.

        Args:
            messages: with their texts as they shall stand there.
            answer: finish with what comes before an answer.

        Raises:
            ConfigError: a role that is not known.
            CheckpointError: the template refuses the messages, or does what it should not.
        """
        return self._sandbox.render(self._values([(message.role, self._content(message)) for message in messages], answer))

    def pieces(self, tokenizer: Tokenizer, messages: Sequence[Message], answer: bool = True) -> list[list[int] | Media]:
        """The conversation as ids, interrupted by its media: each stands where it stood in its message."""
        guard = self._guard(tokenizer)
        said = []
        for message in messages:
            # a model may have marked its own thoughts, and templates look for that
            typed = tokenizer.guarding(self.media.values()) if message.role == "assistant" else guard
            said.append((message.role, self._content(message, typed)))
        text = self._sandbox.render(self._values(said, answer))
        waiting = [part for message in messages for part in message.parts if isinstance(part, Media)]
        count, out, at = len(waiting), [], 0
        marks = {MEDIUM: None} if not self._by_part else {name: modality for modality, name in self.media.items()}
        found = list(re.finditer(f"(?<!{QUOTE})(?:{'|'.join(map(re.escape, marks))})", text)) if marks else []
        if len(found) != count:
            raise CheckpointError(f"the chat template shows {len(found)} of {count} pictures or sounds; give them in another turn")
        for match in found:
            medium = next((part for part in waiting if marks[match.group()] in (None, self._kind(part))), None)
            if medium is None:
                raise CheckpointError(f"the chat template shows {match.group()} more often than it was given {marks[match.group()]}")
            waiting.remove(medium)
            out += [guard.encode(text[at : match.start()], special=True, first=at == 0), medium]
            at = match.end()
        out.append(guard.encode(text[at:], special=True, first=at == 0))
        return [piece for piece in out if isinstance(piece, Media) or piece]

    def ids(self, tokenizer: Tokenizer, messages: Sequence[Message], answer: bool = True) -> list[int]:
        """The same for a conversation in text alone."""
        pieces = self.pieces(tokenizer, messages, answer)
        if any(isinstance(piece, Media) for piece in pieces):
            raise ConfigError("the conversation holds media; use ChatTemplate.pieces")
        return pieces[0] if pieces else []

    def end(self, tokenizer: Tokenizer) -> str | None:
        """Name of the special token that follows an answer; None where there is none."""
        names = "|".join(re.escape(name) for name in sorted(self._guard(tokenizer).specials, key=len, reverse=True))
        found = re.match(rf"\s*({names})", self._sample.rpartition(_PROBE)[2]) if names else None
        return found[1] if found else None

    @cached_property
    def _sandbox(self) -> Sandbox:
        return Sandbox(self.source)

    @cached_property
    def _guards(self) -> WeakKeyDictionary[Tokenizer, Tokenizer]:
        return WeakKeyDictionary()

    @cached_property
    def _sample(self) -> str:
        """A question and its answer, to see what the template puts around them."""
        try:
            return self.render([user(_PROBE), assistant(_PROBE)], answer=False)
        except CheckpointError:
            return ""

    @cached_property
    def _by_part(self) -> bool:
        """Whether a message's content is a list of parts for this template, and not one text."""
        if "type" not in self.source:
            return False
        try:
            shown = self._sandbox.render(self._values([("user", [{"type": "text", "text": _PROBE}])], False))
        except CheckpointError:
            return False
        return _PROBE in shown and "'text'" not in shown

    def _guard(self, tokenizer: Tokenizer) -> Tokenizer:
        """The tokenizer with every token special that this template writes: some models' turns are marked by tokens not called special."""
        if tokenizer not in self._guards:
            shown = self.source + self._sample + "".join(self.media.values())
            self._guards[tokenizer] = tokenizer.guarding(name for name in tokenizer.added if name.strip() and name in shown)
        return self._guards[tokenizer]

    def _kind(self, medium: Media) -> str:
        """What the template calls a medium: a video is a picture to a model that knows no videos."""
        return "image" if medium.modality == "video" and "video" not in self.media else medium.modality

    def _content(self, message: Message, typed: Tokenizer | None = None) -> str | list[dict[str, str]]:
        """A message's parts as the template reads them, special tokens' names quoted: one by one, or as one text, a line each, media a mark."""
        parts = [part if isinstance(part, Media) else part.text.replace(MEDIUM, "\ufffd") for part in message.parts]
        if self._by_part:
            texts = [part if typed is None or isinstance(part, Media) else typed.quoted(part) for part in parts]
            return [{"type": self._kind(part)} if isinstance(part, Media) else {"type": "text", "text": part} for part in texts]
        text = "\n".join(MEDIUM if isinstance(part, Media) else part for part in parts)
        return text if typed is None else typed.quoted(text)

    def _values(self, said: list[tuple[str, Any]], answer: bool) -> dict[str, Any]:
        unknown = sorted({role for role, _ in said} - set(ROLES))
        if unknown:
            raise ConfigError(f"a message has the role {unknown[0]!r}, wanted one of {', '.join(ROLES)}")
        messages = [{"role": role, "content": content} for role, content in said]
        return {**self.special, "messages": messages, "add_generation_prompt": answer, "tools": None, "documents": None}

