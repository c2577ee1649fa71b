"""Choices: a question that lets choose between things gets one of them for an answer.

    "Is this an animal or a vehicle?" -> the model's own answer, if it names one of the two
                                      -> else the one of them that the model finds nearest to what is given

A model with a shared space compares there; any other by how likely it finds "This is an animal." and "This is a vehicle." as answers to
"What is this?", a question that models of pictures are trained on, which those with choices are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

from sensorium.codecs.questions import choices_of
from sensorium.desk import Desk
from sensorium.types import Delta, Media, Message, Request, Text, user

__all__ = ["asked_of", "named", "scores", "settled"]

_ASKED = {"en": ("What is this?", "This is {}."), "zh": ("这是什么？", "这是{}。")}


def asked_of(request: Request) -> tuple[Media | None, tuple[str, ...]]:
    """The one picture, sound or video of a request and the choices that its last words leave; (None, ()) if it is no such request."""
    media = [value for message in request.messages for value in message.parts if isinstance(value, Media)]
    words = [value.text for value in request.messages[-1].parts if isinstance(value, Text)]
    choices = choices_of(words[-1]) if len(media) == 1 and words and request.schema is None else ()
    return (media[0], choices) if choices else (None, ())


def named(answer: str, choices: tuple[str, ...]) -> list[str]:
    """Which of the choices an answer names, with or without their articles."""
    plain = {choice: re.sub(r"^(?:an?|the|it|some)\s+|的$", "", choice, flags=re.IGNORECASE) for choice in choices}
    return [choice for choice, word in plain.items() if re.search(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])", answer, re.IGNORECASE)]


def settled(desk: Desk, deltas: Iterator[Delta], medium: Media, choices: tuple[str, ...]) -> Iterator[Delta]:
    """An answer as it is if it names any of the choices, else the best of them."""
    held = list(deltas)
    whole = held[-1].value.text
    if not named(whole, choices):
        points = scores(desk, medium, choices)
        text = _ASKED[_language(choices)][1].format(choices[max(range(len(choices)), key=points.__getitem__)])
        held = [Delta("text", text, 1, 1), Delta("part", Text(text), 1, 1)]
    yield from held


def _language(choices: tuple[str, ...]) -> str:
    return "zh" if re.search(r"[一-鿿]", "".join(choices)) else "en"


@torch.inference_mode()
def scores(desk: Desk, medium: Media, choices: tuple[str, ...]) -> list[float]:
    """How well each choice fits a medium: the cosine in the shared space, or the log-probability of the sentence that says it."""
    if "embed" in desk.spec.heads and desk.packer.embed is not None:
        segments = [desk.segment([value]) for value in (medium, *choices)]
        batch = desk.packer.pack(segments, alone=True)
        index = [row * batch.token_BT.shape[1] + segment.embeds[-1] for row, segment in enumerate(segments)]
        point_LD = desk.model.embedding(desk.model.read(batch), torch.tensor(index)).float()
        return (point_LD[1:] @ point_LD[0]).tolist()
    question, sentence = _ASKED[_language(choices)]
    message = Message("user", (medium, *user(question).parts))
    batch = desk.packer.pack([desk.lesson([message], sentence.format(choice)) for choice in choices], alone=True)
    state_BTD, out = desk.model.read(batch), []
    for state_TD, label_T in zip(state_BTD, batch.label_BT, strict=True):
        kept = label_T >= 0
        chance_UV = desk.model.logits(state_TD[kept]).float().log_softmax(dim=-1)
        out.append(float(chance_UV.gather(1, label_T[kept][:, None]).sum()))
    return out
