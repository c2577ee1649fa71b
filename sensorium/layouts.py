"""Layouts: how other tools write captions, questions and conversations, as the parts of the one format; and parts as a sample.

    {"messages": [{"role": "user", "content": "<image>What?"}, ...], "images": ["a.png"]}  -> turns -> media where they are marked -> parts -> Sample
    {"instruction": "...", "output": "..."}, {"image": "a.png", "text": "a dog"}, ...

What a layout does not use stays beside the parts, in ``extra``; nothing is dropped.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sensorium.files import CLAIMS
from sensorium.types import MODALITIES, Audio, Image, MediaError, Part, Sample, Text, Video

__all__ = ["as_parts", "ENDINGS", "inside", "medium", "parse_sample"]

_MEDIA = {"image": Image, "audio": Audio, "video": Video}
ENDINGS = {ending: modality for ending, modality in CLAIMS.items() if modality in _MEDIA}
"""Endings of files and names of columns -> the medium that they hold."""
_COLUMNS = {**ENDINGS, **{f"{name}{end}": name for name in _MEDIA for end in ("", "s")}}
_CAPTIONS = ("text", "caption", "txt", "transcription", "sentence", "label", "cls")
_ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user", **dict.fromkeys(("assistant", "gpt", "model"), "assistant")}
_TOOLS = ("tool", "function", "function_call", "observation", "ipython")
_MARK = re.compile(r"\n?<(image|video|audio)>\n?")
_WANTED = ('{"parts": [{"image": "a.png"}, {"text": "a dog", "target": true}]}, or messages, conversations, prompt and completion, instruction and '
           "output, question and answer, or a medium with its caption")


def parse_sample(data: Any, where: str, media: Callable[[str], Any]) -> Sample:
    """One sample from its JSON form.

    Args:
        data: {"parts": [{modality: value, "target": bool}, ...], ...}, or what :func:`as_parts` knows; other keys are kept in ``extra``.
        where: file and line, for errors.
        media: turns a medium's name into a path or bytes.

    Raises:
        MediaError: not the format; says where and what is wanted.
    """
    data = as_parts(data, where)
    if not isinstance(data, dict) or not isinstance(data.get("parts"), list) or not data["parts"]:
        keys = [str(key) for key, value in data.items() if value is not None] if isinstance(data, dict) and "parts" not in data else []
        got = f" but {', '.join(keys)[:80]}" if keys else ""
        raise MediaError(f"{where}: got no parts{got}; wanted {_WANTED}")
    parts = tuple(_part(item, f"{where}: part {number}", media) for number, item in enumerate(data["parts"]))
    return Sample(parts, {key: value for key, value in data.items() if key != "parts"})


def _part(item: Any, where: str, media: Callable[[str], Any]) -> Part:
    held = {key: value for key, value in item.items() if value is not None} if isinstance(item, dict) else {}
    names, target, role = [name for name in MODALITIES if name in held], held.get("target", False), held.get("role")
    if len(names) != 1 or not isinstance(target, bool) or (names[0] == "text" and not isinstance(held["text"], str)):
        raise MediaError(f"{where} is {str(item)[:80]}; wanted one of {MODALITIES} with its value, and target true or false")
    unknown = sorted(set(held) - {names[0], "target", "role"})
    if unknown or role not in (None, "user", "assistant") or (target and role == "user"):
        got = f"holds {unknown[0]!r}" if unknown else f"has the role {role!r}{' and is a target' if target else ''}"
        raise MediaError(f"{where} {got}, which is not built; wanted target, and role 'user', or 'assistant' for an answer that is only read")
    value = Text(held["text"]) if names[0] == "text" else _MEDIA[names[0]](medium(held[names[0]], where, media))
    return Part(value, target, role)


def medium(value: Any, where: str, media: Callable[[str], Any]) -> Any:
    """Path or bytes of a medium as it is written: a name, a data: or file: address, bytes, or {"bytes": ..., "path": ...}.

    Raises:
        MediaError: empty, elsewhere on the net, or none of these.
    """
    if isinstance(value, dict) and (value.keys() & {"bytes", "path"}):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str) and value.startswith("data:"):
        head, comma, body = value.partition(",")
        try:
            value = base64.b64decode(body, validate=True) if comma and head.endswith(";base64") else b""
        except binascii.Error as error:
            raise MediaError(f"{where}: a data: address is not base64 ({error}); write the file's bytes as base64") from error
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]+://", value, re.IGNORECASE):
        if not value.lower().startswith("file://"):
            raise MediaError(f"{where}: {value[:80]} is on the net, and nothing is fetched; download it and name the file")
        value = unquote(value[len("file://") :].removeprefix("localhost"))
    if isinstance(value, (str, bytes)) and value:
        return media(value) if isinstance(value, str) else value
    shown = "empty" if value is None or isinstance(value, (str, bytes)) else f"{str(value)[:60]}"
    raise MediaError(f"{where}: a medium is {shown}; wanted a file's name, its bytes, or {{'bytes': ..., 'path': ...}}")


def as_parts(data: Any, where: str) -> Any:
    """A sample as other tools write it in the one format; what is in it already, or in none, comes back as it is.

    Conversations are ``messages`` (role, content: a text, or a list as OpenAI and Qwen write) or ``conversations`` (from, value: ShareGPT, LLaVA),
    with their media in ``images``, ``videos``, ``audios``, each where <image>, <video>, <audio> or {"type": "image"} stands, or before the first
    question where nothing is marked. Other layouts are in ``_LAYOUTS``. An answer with a weight, loss or train of 0 is read, not learned.

    Raises:
        MediaError: marks and media do not match, tools, preferences, and whatever else cannot be learned; by name.
    """
    if not isinstance(data, dict) or "parts" in data:
        return data
    held = {key: value for key, value in data.items() if value is not None}  # what a table holds for a key that a row does not have
    if {"chosen", "rejected"} & set(held) or {"prompt", "completion", "label"} <= set(held):
        raise MediaError(f"{where}: holds good and bad answers, and good ones alone are learned; write them as prompt and completion alone")
    kind = next((keys for keys in _LAYOUTS if set(keys) <= set(held)), ())
    media: dict[str, list[Any]] = {}
    for key, value in held.items():
        modality = _COLUMNS.get(key)
        rows = value if isinstance(value, list) else [value]
        if modality is None or key in kind or value in ("", b"", []):
            continue
        if modality in media:
            raise MediaError(f"{where}: {key} and another key both hold {modality}; put all of it into one list")
        media[modality] = rows
    script, columns = _Script(where, media), [key for key in data if key in _COLUMNS]
    used = {*kind, *script.read(kind, held), *columns} if kind else script.caption(held, columns)
    if not used:
        return data
    extra = {key: value for key, value in held.items() if key not in used}
    if script.system and extra.get("system"):
        raise MediaError(f"{where}: system stands beside the messages and among them; keep one")
    return {**extra, **({"system": script.system} if script.system is not None else {}), **script.notes, "parts": script.parts()}


@dataclass
class _Script:
    """A conversation on its way to parts.

    Args:
        where: file and line, for errors.
        media: modality -> media of the sample, in order, that its texts mark.
    """

    where: str
    media: dict[str, list[Any]]
    system: str | None = None
    turns: list[tuple[str, list[dict[str, Any]], bool]] = field(default_factory=list)
    notes: dict[str, list[Any]] = field(default_factory=dict)

    def refuse(self, why: str) -> MediaError:
        """An error that says where."""
        return MediaError(f"{self.where}: {why}")

    def read(self, kind: tuple[str, ...], held: Mapping[str, Any]) -> set[str]:
        """Turns of a layout, and the further keys that it used."""
        return _LAYOUTS[kind](self, *(held[key] for key in kind), held)

    def messages(self, rows: Any, held: Mapping[str, Any], learn: bool = True) -> set[str]:
        """A list of messages; where it is not to be learned, its answers are only read."""
        if not isinstance(rows, list) or not rows:
            raise self.refuse(f"a conversation is {str(rows)[:60]!r}; wanted a list of messages, each with role and content")
        for number, row in enumerate(rows):
            self._message(row, f"message {number}", learn)
        return set()

    def _message(self, row: Any, name: str, learn: bool) -> None:
        row = {key: value for key, value in row.items() if value is not None} if isinstance(row, dict) else {}
        said, content = str(row.pop("role", row.pop("from", None))), row.pop("content", row.pop("value", None))
        if said in _TOOLS or any(row.get(key) for key in ("tool_calls", "function_call", "tool_call_id")):
            raise self.refuse(f"{name} uses tools, which are not learned; leave such samples out")
        thought = next((key for key in ("reasoning_content", "reasoning", "thinking") if row.get(key)), None)
        if said not in _ROLES or content is None or thought:
            got = f"holds {thought}, which no answer here has" if thought else f"has the role {said!r} and {'no' if content is None else 'a'} content"
            raise self.refuse(f"{name} {got}; wanted a role of {', '.join(_ROLES)} and a text or a list as its content")
        role, weights = _ROLES[said], [row.pop(key) for key in ("weight", "loss", "train") if key in row]
        if any(weight not in (0, 1) for weight in weights) or (role != "assistant" and any(weights)):
            raise self.refuse(f"{name}, of {said}, is to be learned with {weights[0]}; wanted 0 or 1, on answers alone")
        for key, value in row.items():
            self.notes.setdefault(f"message's {key}", []).append(value)
        pieces = self.text(content, role) if isinstance(content, str) else self._listed(content, name, role)
        if role != "user":
            if other := [key for piece in pieces for key in piece if key != "text"]:
                raise self.refuse(f"{name}, of {said}, holds {other[0]}; wanted text alone, and media in what the user says")
            pieces = [{"text": "".join(piece["text"] for piece in pieces)}]
        if role != "system":
            self.turns.append((role, pieces, role == "assistant" and learn and all(weights)))
        elif self.turns or self.system is not None:
            raise self.refuse(f"{name} is of {said}; wanted one such message, and as the first")
        else:
            self.system = pieces[0]["text"]

    def text(self, text: str, role: str = "user") -> list[dict[str, Any]]:
        """A text cut at its marks, which are None until media stand there; what marks no medium of the sample is text."""
        out, at = [], 0
        for found in _MARK.finditer(text):
            if found[1] in self.media or (found[1] == "image" and role == "user"):
                out += [{"text": text[at : found.start()]}, {found[1]: None}]
                at = found.end()
        return [piece for piece in [*out, {"text": text[at:]}] if piece != {"text": ""}] or [{"text": ""}]

    def _listed(self, content: Any, name: str, role: str) -> list[dict[str, Any]]:
        """A content given piece by piece."""
        out = []
        for item in content if isinstance(content, list) else [None]:
            if isinstance(item, str):
                out += self.text(item, role)
                continue
            item = {key: value for key, value in item.items() if value is not None} if isinstance(item, dict) else {}
            kind = str(item.pop("type", next((key for key in item if key.removesuffix("_url") in MODALITIES), None)))
            kind = {"input_text": "text", "output_text": "text", "input_image": "image"}.get(kind, kind)
            modality = kind.removesuffix("_url").removeprefix("input_")
            keys = [key for key in (kind, f"{modality}_url", modality, "url", "path", "base64") if key in item]
            value = item.pop(keys[0]) if keys else None
            if isinstance(value, dict) and "data" in value:  # {"data": base64, "format": "wav"}
                value = {"url": f"data:{modality}/{value.get('format')};base64,{value['data']}"}
            elif keys and keys[0] == "base64":
                value = f"data:{modality}/any;base64,{value}"
            if isinstance(value, dict) and "url" in value:
                item, value = {**item, **{key: word for key, word in value.items() if key != "url" and word is not None}}, value["url"]
            if modality not in MODALITIES or (modality == "text" and not isinstance(value, str)):
                raise self.refuse(f"{name} holds {kind!r} in its content; wanted text, image, audio or video")
            for key, word in item.items():
                self.notes.setdefault(f"message's {key}", []).append(word)
            out += self.text(value, role) if modality == "text" else [{modality: value}]
        return out or [{"text": ""}]

    def exchange(self, question: Any, answer: Any, learn: bool = True) -> None:
        """A question and its answer, both texts."""
        for value, role in ((question, "user"), (answer, "assistant")):
            if not isinstance(value, str):
                raise self.refuse(f"the {'question' if role == 'user' else 'answer'} is {str(value)[:60]!r}; wanted a text")
        self.turns += [("user", self.text(question), False), ("assistant", [{"text": answer}], learn)]

    def completed(self, prompt: Any, completion: Any, held: Mapping[str, Any]) -> set[str]:
        """TRL's prompt and completion, of which the completion alone is learned."""
        if isinstance(prompt, list) and isinstance(completion, list):
            self.messages(prompt, held, learn=False)
            return self.messages(completion, held)
        self.exchange(prompt, completion)
        return set()

    def instructed(self, instruction: Any, output: Any, held: Mapping[str, Any]) -> set[str]:
        """Alpaca's, with what LLaMA-Factory adds: the conversation so far."""
        history = held.get("history", [])
        if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
            raise self.refuse(f"history is {str(history)[:60]}; wanted a list of pairs, a question and its answer")
        for pair in history:
            self.exchange(*pair)
        given = held.get("input") or ""
        self.exchange(f"{instruction}\n{given}" if given and isinstance(instruction, str) else instruction, output)
        return {"input", "history"}

    def asked(self, question: Any, answer: Any, held: Mapping[str, Any]) -> set[str]:
        """A question, mostly about a medium, and its answer."""
        self.exchange(question, answer)
        return set()

    def caption(self, held: Mapping[str, Any], columns: list[str]) -> set[str]:
        """Media, and a text about them; the keys that were used, none where this is something else."""
        found = {key: str(held[key]) for key in _CAPTIONS if isinstance(held.get(key), (str, int))}
        if not found or not columns:
            return set()
        if not self.media:
            raise self.refuse(f"{', '.join(columns)} is empty, and nothing stands for it; leave the sample out")
        if len(set(found.values())) > 1:
            raise self.refuse(f"holds {' and '.join(found)}, and nothing says which is to be learned; keep one")
        if not all(value.strip() for value in found.values()):
            raise self.refuse(f"{next(iter(found))} is empty, so there is nothing to learn; leave the sample out")
        self.turns = [("user", [], False), ("assistant", [{"text": next(iter(found.values()))}], True)]
        return {*found, *columns}

    def parts(self) -> list[dict[str, Any]]:
        """The turns as parts, media in their places."""
        for modality in ("image", "video", "audio"):
            waiting = self.media.get(modality, [])
            marks = [piece for _, pieces, _ in self.turns for piece in pieces if modality in piece and piece[modality] is None]
            first = next((pieces for role, pieces, _ in self.turns if role == "user"), None)
            inline = any(modality in piece for _, pieces, _ in self.turns for piece in pieces)
            if waiting and not inline and first is not None:
                first[:0] = [{modality: value} for value in waiting]
            elif len(marks) != len(waiting):
                raise self.refuse(f"{len(marks)} marks <{modality}> stand for {len(waiting)} of {modality}s; wanted one each (parts have no marks)")
            else:
                for piece, value in zip(marks, waiting, strict=True):
                    piece[modality] = value
        return [{**piece, "target": learn} if role == "user" or learn else {**piece, "target": False, "role": "assistant"}
                for role, pieces, learn in self.turns for piece in pieces]


_LAYOUTS: dict[tuple[str, ...], Callable[..., set[str]]] = {
    ("messages",): _Script.messages, ("conversations",): _Script.messages, ("prompt", "completion"): _Script.completed,
    ("instruction", "output"): _Script.instructed, ("question", "answer"): _Script.asked}


def inside(folder: Path, name: str, where: str) -> Path:
    """The path of a file named in a file of samples; it may not leave that file's folder."""
    try:
        path = (folder.resolve() / name).resolve()
    except (OSError, ValueError) as error:
        raise MediaError(f"{where} names {name[:60]!r}, which no file can be called; name one beside the file of samples") from error
    if not path.is_relative_to(folder.resolve()):
        raise MediaError(f"{where} names {name!r}, which is outside its folder; keep media beside the file of samples")
    return path
