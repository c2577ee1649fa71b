"""Choices: a question that lets choose between things gets one of them for an answer.

    "Is this an animal or a vehicle?" -> the model's own answer: "It is a vehicle.", "It is a chair."
                                      -> for a yes or no, and where one of the two fits better than what it says: that one

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

_YES_OR_NO = re.compile(r"\s*(?:(?:yes|no|yeah|nope|both|neither)\b|是的|不是|不|没有|对)", re.IGNORECASE)
_IS = re.compile(r"(?:(?:it|this|that)(?: is|'s)|这是|是)\s*([^.,;。，；]{1,40})[.。]?", re.IGNORECASE)
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


def settled(desk: Desk, request: Request, deltas: Iterator[Delta]) -> Iterator[Delta]:
    """An answer as it is, unless it is no answer to a question that lets choose: then the best of the choices."""
    medium, choices = asked_of(request)
    if medium is None:
        yield from deltas
        return
    held = list(deltas)
    whole = held[-1].value.text.strip()
    own = _IS.fullmatch(whole)
    only_names = desk.codecs.template is None  # such a model says its own name of the thing, whatever it is asked
    if not named(whole, choices) and (only_names or own or _YES_OR_NO.match(whole) or not whole):
        rivals = (*choices, own[1]) if own and not only_names else choices
        points = scores(desk, medium, rivals)
        best = rivals[max(range(len(rivals)), key=points.__getitem__)]
        if best in choices:
            text = _ASKED[_language(choices)][1].format(best)
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
