"""Engine: a request in, a reply out: codecs -> model -> generate or denoise -> codecs.

    embed     values -> points in the shared space
    respond   a whole reply
    stream    the same reply as it happens
    write_texts, draw_images, draw_videos   many prompts at once
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from sensorium.choices import settled
from sensorium.codecs.clips import FrameStack, load_video
from sensorium.codecs.text import StreamDecoder
from sensorium.constrain import Constraint
from sensorium.denoise import Change, Solver, draw, stream_draw
from sensorium.desk import Codecs, Desk, Value, codecs_of, warn_of_cuts
from sensorium.gan import Grow
from sensorium.generate import Sampling, Stops, continue_text, stream_text
from sensorium.heads_flow import FrameFlow
from sensorium.model import ModelNet
from sensorium.speak import join
from sensorium.studio import Changed, changed, pixels_of, prompted
from sensorium.types import MODALITIES, Audio, Batch, ConfigError, Delta, Image, Message, ModalityError, Reply, Request, Text, Video, user
from sensorium.voice import own_voice

__all__ = ["Codecs", "codecs_of", "constraints_of", "draw_images", "draw_videos", "embed", "QUESTIONS", "respond", "sampling_of",
           "stream", "tell", "write_texts"]

NAME = 16
"""Longest name of a thing given, in tokens."""
QUESTIONS = {"en": "What is this?", "zh": "这是什么？"}
"""Asks for the name of what is given, by its language."""
SETS_OFF = 0.9
"""How much of the way back to noise a still goes before it moves: less, and it hardly moves; more, and it is something else."""


@torch.inference_mode()
def embed(model: ModelNet, values: Sequence[Value | Sequence[Value]], codecs: Codecs | None = None, chunk: int = 128,
          truncate: bool | None = None) -> torch.Tensor:
    """Points of values in the model's shared space.

    Args:
        values: each a text, a picture, or (for models that embed through their decoder) a list of them read together.
        chunk: values read at once.
        truncate: what becomes of texts and sounds longer than the model reads. True: their ends are left out; None: the same, with a
            ``TruncationWarning``; False: refused.

    Returns:
        (N, O) float32, length one.

    Raises:
        MediaError, ModalityError: one of the values cannot be read; says which.
    """
    if "embed" not in model.spec.heads:
        raise ModalityError(f"the model has no shared space (no 'embed' head); it writes {', '.join(model.spec.writes)}")
    desk = Desk(model, codecs, cut=True)
    groups = [list(value) if isinstance(value, (list, tuple)) else [value] for value in values]
    points = _embed_towers(desk, groups, truncate) if desk.packer.embed is None else _embed_read(desk, groups, chunk, truncate)
    if truncate is None:
        warn_of_cuts(desk.cuts)
    return points


def _embed_read(desk: Desk, groups: list[list[Value]], chunk: int, truncate: bool | None) -> torch.Tensor:
    """Each group through the decoder."""
    model, out = desk.model, []
    for start in range(0, len(groups), chunk):
        segments = desk.each(groups[start : start + chunk], desk.segment, start + 1, len(groups), truncate)
        batch = desk.packer.pack(segments, alone=True)
        index = [r * batch.token_BT.shape[1] + s.embeds[-1] for r, s in enumerate(segments)]
        out.append(model.embedding(model.read(batch), torch.tensor(index)).float())
    return torch.cat(out) if out else torch.zeros(0, model.spec.heads["embed"].outside)


def _embed_towers(desk: Desk, groups: list[list[Value]], truncate: bool | None) -> torch.Tensor:
    """Each modality through its tower, back in the order given."""
    values = [Text(group[0]) if isinstance(group[0], str) else group[0] for group in groups]
    if any(len(group) != 1 for group in groups):
        raise ModalityError("this model embeds one value at a time; a list of several needs a model that embeds through its decoder")
    out: list[torch.Tensor | None] = [None] * len(values)
    for modality in MODALITIES:
        places = [i for i, value in enumerate(values) if value.modality == modality]
        batches = desk.tower_batches([values[i] for i in places], numbers=[i + 1 for i in places], total=len(values), truncate=truncate)
        for some, batch in batches:
            for i, row in zip(some, desk.model.tower(modality, batch).float(), strict=True):
                out[places[i]] = row
    return torch.stack(out)


def write_texts(model: ModelNet, prompts: Sequence[Sequence[Value] | Sequence[Message]], max_tokens: int = 32, codecs: Codecs | None = None,
                chunk: int = 64) -> list[str]:
    """Answer many prompts in text, greedily, ``chunk`` at a time; each is a list of values, or a conversation so far."""
    desk = Desk(model, codecs)
    _check_want(model, "text")
    out: list[str] = []
    for start in range(0, len(prompts), chunk):
        some = [list(prompt) if any(isinstance(value, Message) for value in prompt) else [user(*prompt)] for prompt in prompts[start : start + chunk]]
        segments = desk.each(some, lambda messages: desk.prompt(_told(desk, messages), "text"), start + 1, len(prompts))
        batch = desk.packer.pack(segments, alone=True)
        ids = continue_text(model, batch, Sampling(max_tokens=max_tokens, end=desk.ends))
        out += [desk.codecs.text.decode(row) for row in ids]
    warn_of_cuts(desk.cuts)
    return out


def _told(desk: Desk, messages: Sequence[Message]) -> list[Message]:
    """A conversation to be answered in text. Eyes that learned from stills tell of a video by one of its frames: that nearest to them all."""
    if not isinstance(desk.codecs.video, FrameStack) or "embed" not in desk.spec.heads:
        return list(messages)
    return [replace(message, parts=tuple(_telling(desk, value) if isinstance(value, Video) else value for value in message.parts))
            for message in messages]


def _telling(desk: Desk, video: Video) -> Image:
    """The frame that stands nearest to the whole video in the shared space."""
    film_FCHW = load_video(video, desk.codecs.video.frames)  # decoded once, for the whole and for each
    frames = [Image(frame) for frame in film_FCHW]
    whole_O, *each = embed(desk.model, [Video(film_FCHW, rate_hz=desk.codecs.video.rate_hz), *frames], desk.codecs)
    return frames[int((torch.stack(each) @ whole_O).argmax())]


def _in_words(desk: Desk, prompts: Sequence[Sequence[Value]]) -> list[list[Value]]:
    """Prompts of drawings with the name of each sound and video in its place: drawing is learned from words and pictures.

    It is asked for in every language; of the answers that one stands which is nearest to the thing in the shared space.
    """
    out = [list(prompt) for prompt in prompts]
    places = [(i, j) for i, prompt in enumerate(out) for j, value in enumerate(prompt) if isinstance(value, (Audio, Video))]
    if not places or not {"text", "embed"} <= set(desk.model.heads):
        return out
    things = [out[i][j] for i, j in places]
    names = [[name.replace("\ufffd", "").strip() for name in write_texts(desk.model, [[thing, question] for thing in things], NAME, desk.codecs)]
             for question in QUESTIONS.values()]
    thing_LO = embed(desk.model, things, desk.codecs)
    near_QL = torch.stack([(embed(desk.model, some, desk.codecs) * thing_LO).sum(dim=1) for some in names])
    for (i, j), language, *answers in zip(places, near_QL.argmax(dim=0).tolist(), *names, strict=True):
        out[i][j] = Text(answers[language])
    return out


def _drawable(desk: Desk, messages: Sequence[Message]) -> list[Message]:
    """A conversation to be answered by a drawing, as :func:`_in_words` says."""
    prompts = _in_words(desk, [message.parts for message in messages])
    return [replace(message, parts=tuple(parts)) for message, parts in zip(messages, prompts, strict=True)]


def draw_images(model: ModelNet, prompts: Sequence[Sequence[Value]], solver: Solver | None = None, codecs: Codecs | None = None,
                chunk: int = 32, best_of: int = 1) -> list[Image]:
    """Draw many prompts, ``chunk`` at a time; prompt i starts from the noise of seed + i whatever the chunk.

    Args:
        best_of: each is drawn so many times, and that one kept which the model itself finds nearest to its prompt in the shared space.
    """
    return _draw_many(model, prompts, "image", solver, codecs, chunk, best_of)


def draw_videos(model: ModelNet, prompts: Sequence[Sequence[Value]], solver: Solver | None = None, codecs: Codecs | None = None,
                chunk: int = 8, best_of: int = 1) -> list[Video]:
    """As :func:`draw_images`, moving; where a model's frames are drawn as its pictures are, the best still is set moving (see ``SETS_OFF``)."""
    return _draw_many(model, prompts, "video", solver, codecs, chunk, best_of)


def _draw_many(model: ModelNet, prompts: Sequence[Sequence[Value]], want: str, solver: Solver | None, codecs: Codecs | None, chunk: int,
               best_of: int) -> list[Any]:
    desk = Desk(model, codecs)
    _check_want(model, want)
    solver, out = solver or Solver(), []
    for start in range(0, len(prompts), chunk):
        some = prompts[start : start + chunk]
        if "prompt" in model.fuse:
            batch = prompted(model, desk.codecs, [_words(prompt) for prompt in some], want)
        else:
            segments = desk.each(_in_words(desk, some), lambda prompt: desk.segment(prompt, want), start + 1, len(prompts))
            batch = desk.packer.pack(segments, alone=True)
        made = _best_drawn(desk, batch, replace(solver, seed=solver.seed + start), want, best_of)
        for number, one in enumerate(pixels_of(model, made), start=solver.seed + start):
            info = _made_by(model, seed=number, steps=solver.steps, guidance=solver.guidance, **({"best_of": best_of} if best_of > 1 else {}))
            out.append(replace(vars(desk.codecs)[want].decode(one), info=info))
    return out


def _made_by(model: ModelNet, **settings: Any) -> dict[str, Any]:
    """What is written beside what a model made."""
    return {"model": model.folder.name if model.folder else "built", **settings}


def _words(prompt: Sequence[Value]) -> str:
    """A prompt's texts as one; what no such prompt can be is refused."""
    for value in prompt:
        if not isinstance(value, str) and value.modality != "text":
            raise ModalityError(f"the model draws from text alone, and was given {value.modality}")
    return " ".join(map(str, prompt))


def _best_drawn(desk: Desk, batch: Batch, solver: Solver, want: str, best_of: int, change: Change | None = None) -> torch.Tensor:
    """Of ``best_of`` drawings of each prompt, the one nearest to it in the shared space."""
    batch, best_of, change = _set_off(desk, batch, solver, want, best_of, change)
    asked_LO = _asked(desk, batch, want) if best_of > 1 else None
    best = draw(desk.model, batch, solver, want, change=change)
    if asked_LO is None:
        return best
    nearness_L = _nearness(desk, asked_LO, best, want)
    for number in range(1, best_of):
        again = draw(desk.model, batch, replace(solver, seed=solver.seed + 1_000_003 * number), want, change=change)
        near_L = _nearness(desk, asked_LO, again, want)
        better_L = (near_L > nearness_L).reshape(-1, *[1] * (best.dim() - 1))
        best, nearness_L = torch.where(better_L, again, best), torch.maximum(near_L, nearness_L)
    return best


def _set_off(desk: Desk, batch: Batch, solver: Solver, want: str, best_of: int, change: Change | None) -> tuple[Batch, int, Change | None]:
    """What drawing sets off from: a batch, how many tries are left to make, and how far back to noise the batch's values go first.

    Where frames are drawn as pictures are, each prompt's best still stands in the place of every frame; elsewhere all is as it came.
    """
    if not isinstance(desk.spec.heads[want], FrameFlow):
        return batch, best_of, change
    place, still = batch.written[want], desk.spec.heads[want].of
    stills = replace(batch, written={still: replace(place, value_LCHW=place.value_LCHW[:, :, 0])})
    made_LCHW = _best_drawn(desk, stills, solver, still, best_of)
    moving = replace(place, value_LCHW=made_LCHW[:, :, None].expand_as(place.value_LCHW))
    return replace(batch, written={want: moving}), 1, Change(SETS_OFF)


@torch.inference_mode()
def _asked(desk: Desk, batch: Batch, want: str) -> torch.Tensor:
    """Points of the prompts in the shared space, (L, O)."""
    model = desk.model
    if "embed" not in model.heads or want not in model.spec.reads:
        raise ModalityError(f"best_of needs a model with a shared space that reads {want} as well as it writes it; leave it out")
    return model.embedding(model.read(batch), batch.written[want].state_L)


def _nearness(desk: Desk, asked_LO: torch.Tensor, drawn: torch.Tensor, want: str) -> torch.Tensor:
    """Cosine of each drawing with what was asked for, (L,)."""
    codec = vars(desk.codecs)[want]
    return (embed(desk.model, [codec.decode(one) for one in drawn], desk.codecs).to(asked_LO) * asked_LO).sum(dim=-1)


def respond(model: ModelNet, request: Request, codecs: Codecs | None = None) -> Reply:
    """Answer a request.

    Raises:
        ModalityError: something given cannot be read, or something wanted cannot be written; refused before any work.
    """
    parts, seconds, start = [], {}, time.perf_counter()
    for delta in stream(model, request, codecs):
        if delta.kind == "part":
            parts.append(delta.value)
            seconds[delta.value.modality] = time.perf_counter() - start
            start = time.perf_counter()
    return Reply(tuple(parts), seconds)


def stream(model: ModelNet, request: Request, codecs: Codecs | None = None) -> Iterator[Delta]:
    """The same as :func:`respond`, as it happens: pieces of text, denoising steps with previews, finished parts."""
    for want in request.want:
        _check_want(model, want)
    if isinstance(model.spec.decoder, Grow):
        yield _imagined(model, request, codecs)
        return
    desk = Desk(model, codecs)
    if not any(message.parts for message in request.messages):
        raise ConfigError("the request is empty; give it a text or a picture")
    change = None
    if request.strength is not None:
        request, change = changing(desk, request)
    for want in request.want:
        if want == "audio":
            yield _spoken(desk, request)
            continue
        if "prompt" in model.fuse:
            batch = prompted(model, desk.codecs, [_words([value for message in request.messages for value in message.parts])], want)
        else:
            messages = _told(desk, request.messages) if want == "text" else _drawable(desk, request.messages)
            batch = desk.packer.pack([desk.prompt(messages, want)], alone=True)
            warn_of_cuts(desk.cuts)
        yield from settled(desk, request, _text(desk, batch, request)) if want == "text" else _drawn(desk, batch, request, want, change)


def _check_want(model: ModelNet, want: str) -> None:
    can = [name for name in model.spec.writes if name != "embed"]
    if want not in MODALITIES:
        raise ModalityError(f"{want!r} is no modality; wanted one of {', '.join(MODALITIES)}")
    if want not in can:
        raise ModalityError(f"the model cannot write {want}; it writes {', '.join(can) or 'nothing, it only embeds'}")


def sampling_of(desk: Desk, request: Request, length: int) -> Sampling:
    """How a request's text is chosen, after a prompt of ``length`` tokens: a model with a template writes no further than its context."""
    room = desk.codecs.context - length if desk.codecs.template else request.max_tokens
    return Sampling(max_tokens=min(request.max_tokens, room), temperature=request.temperature, top_k=request.top_k, top_p=request.top_p,
                    min_p=request.min_p, repetition=request.repetition, end=desk.ends, seed=request.seed)


def constraints_of(desk: Desk, request: Request, sampling: Sampling) -> list[Constraint]:
    """What keeps a request's text to its schema, if it has one, and whole within the tokens there are; a string may take half of the longest answer.

    Raises:
        ConfigError: as ``Constraint``.
    """
    if request.schema is None:
        return []
    return [Constraint(request.schema, desk.codecs.text, desk.ends, max(2 * request.max_tokens, 16), sampling.max_tokens)]


def tell(desk: Desk, tokens: Iterable[torch.Tensor], request: Request, constraints: Sequence[Constraint] = ()) -> Iterator[Delta]:
    """Chosen tokens as pieces of text, and the whole at the end.

    What keeps to a schema ends where the schema does: texts that should stop it are not looked for in it, and a note says so.
    """
    decoder, stops, pieces, done = StreamDecoder(desk.codecs.text), Stops(request.stop), [], 0
    stops = Stops(()) if constraints else stops
    for done, token_B in enumerate(tokens, start=1):
        pieces.append(stops.push(decoder.push(int(token_B[0]))))
        if pieces[-1]:
            yield Delta("text", pieces[-1], done, request.max_tokens)
        if stops.found:
            break
    if not stops.found:
        pieces.append(stops.push(decoder.finish()) + stops.finish())
        if pieces[-1]:
            yield Delta("text", pieces[-1], done, request.max_tokens)
    whole = "".join(pieces)
    passed = [text for text in request.stop if constraints and text in whole]
    if passed:
        yield Delta("note", f"the answer holds {passed[0]!r}, which should stop it, and went on to the end of its schema")
    yield Delta("part", Text(whole), done, done)


def _text(desk: Desk, batch: Batch, request: Request) -> Iterator[Delta]:
    sampling = sampling_of(desk, request, batch.token_BT.shape[1])
    constraints = constraints_of(desk, request, sampling)
    tokens = stream_text(desk.model, batch, sampling, constraints)
    return tell(desk, tokens, request, constraints)


def changing(desk: Desk, request: Request) -> tuple[Request, Changed]:
    """A request to change a picture: the words that are drawn over it, and the picture.

    A model that names pictures draws the name it gives and then what is asked: a crown and "3D style" are "crown, 3D style".

    Raises:
        ConfigError: not exactly one picture.
    """
    given = [value for message in request.messages for value in message.parts]
    pictures = [value for value in given if value.modality == "image"]
    if len(pictures) != 1:
        raise ConfigError(f"strength changes one picture, and the request has {len(pictures)}; give one picture and what it shall become")
    words = [value.text for value in given if value.modality == "text"]
    if "image" in desk.spec.reads and "text" in desk.spec.heads:
        ask = replace(request, messages=[user(pictures[0])], want=("text",), strength=None, max_tokens=NAME)
        words.insert(0, respond(desk.model, ask, desk.codecs).text.strip())
    change = changed(desk.model, desk.codecs.image, pictures[0], request.strength, request.mask)
    return replace(request, messages=[user(", ".join(words))]), change


def _spoken(desk: Desk, request: Request) -> Delta:
    """A text said aloud; with media, what the model says of them."""
    given = [value for message in request.messages for value in message.parts]
    text = " ".join(value.text for value in given if value.modality == "text")
    if any(value.modality != "text" for value in given):
        text = respond(desk.model, replace(request, want=("text",)), desk.codecs).text
    info = _made_by(desk.model, seed=request.seed)
    sound = join(own_voice(desk.model, info["model"], desk.codecs, request.seed).speak(text))
    return Delta("part", replace(sound, info={**sound.info, **info}), 1, 1)


@torch.inference_mode()
def _imagined(model: ModelNet, request: Request, codecs: Codecs | None) -> Delta:
    """A picture from noise alone; what was said is not looked at."""
    noise = torch.randn(1, model.spec.decoder.noise, generator=torch.Generator().manual_seed(request.seed))
    picture = codecs_of(model, codecs).image.decode(model.imagine(noise)[0])
    return Delta("part", replace(picture, info=_made_by(model, seed=request.seed)), 1, 1)


def _drawn(desk: Desk, batch: Batch, request: Request, want: str, changed: Changed | None) -> Iterator[Delta]:
    """A picture or a video step by step, with previews; of several tries only the best comes whole."""
    change = None
    if changed is not None and want == "image":
        batch.written[want].value_LCHW, change = changed.clean_LCHW, changed.change
    solver = Solver(steps=request.steps, guidance=request.guidance, seed=request.seed)
    info = _made_by(desk.model, seed=request.seed, steps=request.steps, guidance=request.guidance)
    info |= ({"strength": request.strength} if change else {}) | ({"best_of": request.best_of} if request.best_of > 1 else {})
    codec = vars(desk.codecs)[want]
    batch, tries, change = _set_off(desk, batch, solver, want, request.best_of, change)
    if tries > 1:
        made = _best_drawn(desk, batch, solver, want, tries, change)
    else:
        for done, made in enumerate(stream_draw(desk.model, batch, solver, want, change=change), start=1):
            if done < solver.steps:  # a preview; of latents none, which would take longer than the step
                yield Delta("step", None if "pixels" in desk.model.heads else codec.decode(made[0]), done, solver.steps)
    yield Delta("part", replace(codec.decode(pixels_of(desk.model, made)[0]), info=info), solver.steps, solver.steps)
