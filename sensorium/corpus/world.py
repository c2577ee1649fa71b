"""World: scenes drawn by code, with questions whose answers are known exactly.

    seed -> Scene: one to five things, each a shape with a colour, a size and a place on a 3 x 3 grid, perhaps a written word
    scene -> picture (Pillow, drawn at twice the size)
    scene -> questions: is there, what colour, what shape, how many, where, which side, what is written, describe

Some pairs of shape and colour, and some words, are held out: training never shows them, measuring asks for nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["COLOURS", "draw_scene", "HELD_PAIRS", "KINDS_ASKED", "make_scene", "PLACES", "Question", "questions", "Scene", "SHAPES", "Thing",
           "words_at"]

COLOURS = {"red": (220, 38, 38), "orange": (245, 140, 20), "yellow": (250, 215, 40), "green": (40, 160, 70), "blue": (40, 90, 220),
           "purple": (130, 60, 180), "pink": (245, 130, 180), "brown": (120, 75, 40), "black": (25, 25, 25), "grey": (140, 140, 140)}
PAPERS = {"white": (255, 255, 255), "cream": (250, 240, 215), "pale blue": (215, 232, 250), "pale green": (220, 242, 220),
          "silver": (205, 208, 212), "night": (30, 34, 60)}
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "moon", "arrow")
PLACES = ("at the top left", "at the top", "at the top right", "on the left", "in the middle", "on the right", "at the bottom left",
          "at the bottom", "at the bottom right")
NUMBERS = ("no", "one", "two", "three", "four", "five")
BLOB = "blob"
"""A shape of no name, another each time."""
HELD_PAIRS = frozenset((SHAPES[i], tuple(COLOURS)[(3 * i + k) % 10]) for i in range(10) for k in (0, 5))
"""Shape and colour never shown together in training: two colours of each shape."""
WORDS = ("SUN", "CAT", "BUS", "TEA", "RUN", "BOX", "FISH", "OPEN", "STOP", "MILK", "BOOK", "EXIT", "TAXI", "HOME", "LAKE", "ROSE", "GOLD", "KING",
         "BREAD", "HOTEL", "PIANO", "RIVER", "TRAIN", "CLOUD", "HAPPY", "MUSIC", "PIZZA", "QUEEN", "TIGER", "WATER", "SCHOOL", "GARDEN")
HELD_WORDS = ("DOG", "SALE", "BANK", "LEMON", "HOUSE", "MARKET")


@dataclass(frozen=True)
class Thing:
    """One thing of a scene.

    Args:
        shape, colour: one of ``SHAPES``, ``COLOURS``.
        large: or small.
        cell: place on the grid, row by row, 0..8.
        x, y: centre, in shares of the side.
        radius: in shares of the side.
        angle: radians that it is turned.
    """

    shape: str
    colour: str
    large: bool
    cell: int
    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Scene:
    """Things on paper of one colour, perhaps with a word written at the bottom."""

    things: tuple[Thing, ...]
    paper: str
    word: str | None = None


@dataclass(frozen=True)
class Question:
    """A question of one kind, the answer in a sentence, and the one word or phrase in it that is judged."""

    kind: str
    text: str
    answer: str
    key: str


def make_scene(rng: np.random.Generator, held: bool = False, odd: float = 0.0) -> Scene:
    """A scene.

    Args:
        held: every thing is a pair of shape and colour that training never shows, and so is the word; else none is.
        odd: share of the things whose colour or shape has no name (``"#7fb2a0"``, ``BLOB``), so that colour and shape are learned apart.
    """
    paper = str(rng.choice(tuple(PAPERS)))
    word = str(rng.choice(HELD_WORDS if held else WORDS)) if rng.random() < 0.15 else None
    cells = rng.permutation(6 if word else 9)  # the word takes the lowest row
    pairs = [(s, c) for s in SHAPES for c in COLOURS if ((s, c) in HELD_PAIRS) == held and _shows(c, paper)]
    count, things = int(rng.integers(1, 6)), []
    favourite = pairs[int(rng.integers(len(pairs)))]
    repeats = rng.random() < 0.5  # several of one shape, so that counting asks for more than the number of things
    for cell in cells[:count].tolist():
        same = [pair for pair in pairs if pair[0] == favourite[0]] if repeats and rng.random() < 0.7 else pairs
        shape, colour = same[int(rng.integers(len(same)))]
        large = bool(rng.random() < 0.5)
        radius = float(rng.uniform(0.125, 0.15) if large else rng.uniform(0.075, 0.095))
        x, y = ((cell % 3) * 2 + 1) / 6 + rng.uniform(-0.03, 0.03), ((cell // 3) * 2 + 1) / 6 + rng.uniform(-0.03, 0.03)
        if rng.random() < odd:
            shape, colour = (shape, _nameless(rng, paper)) if rng.random() < 0.6 else (BLOB, colour)
        things.append(Thing(shape, colour, large, cell, float(x), float(y), radius, float(rng.uniform(-0.25, 0.25))))
    return Scene(tuple(things), paper, word)


def _shows(colour: str, paper: str) -> bool:
    """Whether a colour stands out on the paper."""
    return math.dist(_ink(colour), PAPERS[paper]) > 110


def _nameless(rng: np.random.Generator, paper: str) -> str:
    """A colour that stands out and is far from every one with a name."""
    while True:
        colour = "#" + "".join(f"{value:02x}" for value in rng.integers(0, 256, 3))
        if _shows(colour, paper) and min(math.dist(_ink(colour), named) for named in COLOURS.values()) > 60:
            return colour


def _ink(colour: str) -> tuple[int, int, int]:
    return COLOURS[colour] if colour in COLOURS else (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))


def draw_scene(scene: Scene, size: int = 128) -> np.ndarray:
    """The picture, (size, size, 3) uint8."""
    side = 2 * size
    picture = Image.new("RGB", (side, side), PAPERS[scene.paper])
    pen = ImageDraw.Draw(picture)
    for thing in scene.things:
        _draw(pen, thing, side, PAPERS[scene.paper])
    if scene.word:
        ink = (240, 240, 240) if scene.paper == "night" else (20, 20, 20)
        pen.text((side / 2, side * 5 / 6), scene.word, fill=ink, font=_font(round(side * 0.2)), anchor="mm")
    return np.array(picture.resize((size, size), Image.Resampling.BOX))


def words_at(scene: Scene) -> list[tuple[str, ...]]:
    """What stands at each of the nine cells, row by row: colour and shape, as far as they have names, and where that is ("top", "left", or
    "middle"); () where nothing stands."""
    out: list[tuple[str, ...]] = [()] * 9
    for thing in scene.things:
        where = [word for word in (("top", "", "bottom")[thing.cell // 3], ("left", "", "right")[thing.cell % 3]) if word] or ["middle"]
        out[thing.cell] = (*(word for word in (thing.colour, thing.shape) if word in COLOURS or word in SHAPES), *where)
    return out


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


_OUTLINES: dict[str, Sequence[tuple[float, float]]] = {
    "square": ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    "triangle": ((0, -1), (0.95, 0.8), (-0.95, 0.8)),
    "diamond": ((0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)),
    "cross": ((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3),
              (-0.3, -0.3)),
    "arrow": ((-1, -0.3), (0.1, -0.3), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.3), (-1, 0.3)),
    "star": tuple((r * math.sin(i * math.pi / 5), -r * math.cos(i * math.pi / 5)) for i in range(10) for r in [(1.1, 0.45)[i % 2]]),
    "heart": tuple((16 * math.sin(t) ** 3 / 16, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 15)
                   for t in (i * math.pi / 24 for i in range(48))),
}


def _draw(pen: ImageDraw.ImageDraw, thing: Thing, side: int, paper: tuple[int, int, int]) -> None:
    x, y, r, ink = thing.x * side, thing.y * side, thing.radius * side, _ink(thing.colour)

    def disc(dx: float, dy: float, radius: float, fill: tuple[int, int, int]) -> None:
        pen.ellipse((x + dx * r - radius * r, y + dy * r - radius * r, x + dx * r + radius * r, y + dy * r + radius * r), fill=fill)

    if thing.shape == BLOB:  # five to nine corners at distances that follow from where it is
        chance = np.random.default_rng(int(thing.x * 1e6) ^ int(thing.y * 1e9))
        corners = np.sort(chance.random(int(chance.integers(5, 10)))) * 2 * math.pi
        far = chance.uniform(0.5, 1.05, len(corners)) * r
        pen.polygon([(x + d * math.sin(t), y + d * math.cos(t)) for t, d in zip(corners.tolist(), far.tolist(), strict=True)], fill=ink)
        return
    if thing.shape in _OUTLINES:
        cos, sin = math.cos(thing.angle) * r, math.sin(thing.angle) * r
        pen.polygon([(x + px * cos - py * sin, y + px * sin + py * cos) for px, py in _OUTLINES[thing.shape]], fill=ink)
        return
    disc(0, 0, 1, ink)
    if thing.shape == "ring":
        disc(0, 0, 0.55, paper)
    elif thing.shape == "moon":
        disc(0.5 * math.cos(thing.angle), 0.5 * math.sin(thing.angle), 0.85, paper)


def _a(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _presence(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Half of the answers are yes; the others ask for a shape or a colour that is there, with a partner that is not."""
    have = {(t.shape, t.colour) for t in scene.things}
    shape, colour = sorted(have)[int(rng.integers(len(have)))]
    if rng.random() < 0.5:
        held = (shape, colour) in HELD_PAIRS  # what is never shown is never asked for either, or "no" would be learned of it
        other = [(s, c) for s in SHAPES for c in COLOURS
                 if (s, c) not in have and (s == shape) != (c == colour) and ((s, c) in HELD_PAIRS) == held]
        if not other:
            return None
        shape, colour = other[int(rng.integers(len(other)))]
    there = (shape, colour) in have
    return Question("presence", f"Is there {_a(f'{colour} {shape}')}?", "Yes, there is." if there else "No, there is not.", "yes" if there else "no")


def _alone(scene: Scene) -> list[Thing]:
    """Things whose shape no other has."""
    return [t for t in scene.things if sum(o.shape == t.shape for o in scene.things) == 1]


def _colour(scene: Scene, rng: np.random.Generator) -> Question | None:
    some = _alone(scene)
    if not some:
        return None
    thing = some[int(rng.integers(len(some)))]
    return Question("colour", f"What colour is the {thing.shape}?", f"The {thing.shape} is {thing.colour}.", thing.colour)


def _shape(scene: Scene, rng: np.random.Generator) -> Question | None:
    some = [t for t in scene.things if sum(o.colour == t.colour for o in scene.things) == 1]
    if not some:
        return None
    thing = some[int(rng.integers(len(some)))]
    return Question("shape", f"What shape is {thing.colour}?", f"It is {_a(thing.shape)}.", thing.shape)


def _count(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Of all things or of one shape."""
    if rng.random() < 0.4:
        number = NUMBERS[len(scene.things)]
        return Question("count", "How many things are there?", f"There {'is' if number == 'one' else 'are'} {number}.", number)
    shape = scene.things[int(rng.integers(len(scene.things)))].shape
    number = NUMBERS[sum(t.shape == shape for t in scene.things)]
    return Question("count", f"How many {shape}{'es' if shape == 'cross' else 's'} are there?",
                    f"There {'is' if number == 'one' else 'are'} {number}.", number)


def _position(scene: Scene, rng: np.random.Generator) -> Question | None:
    some = _alone(scene)
    if not some:
        return None
    thing = some[int(rng.integers(len(some)))]
    return Question("position", f"Where is the {thing.shape}?", f"The {thing.shape} is {PLACES[thing.cell]}.", PLACES[thing.cell])


def _side(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Which of two things is further left or higher; told apart by at least a column or a row."""
    some = _alone(scene)
    pairs = [(a, b) for a in some for b in some if a.shape != b.shape and (a.cell % 3 != b.cell % 3 or a.cell // 3 != b.cell // 3)]
    if not pairs:
        return None
    a, b = pairs[int(rng.integers(len(pairs)))]
    across = a.cell % 3 != b.cell % 3 and (a.cell // 3 == b.cell // 3 or rng.random() < 0.5)
    if across:
        key = "left" if a.cell % 3 < b.cell % 3 else "right"
        return Question("side", f"Is the {a.shape} left or right of the {b.shape}?", f"It is {key} of the {b.shape}.", key)
    key = "above" if a.cell // 3 < b.cell // 3 else "below"
    return Question("side", f"Is the {a.shape} above or below the {b.shape}?", f"It is {key} the {b.shape}.", key)


def _word(scene: Scene, rng: np.random.Generator) -> Question | None:
    return None if scene.word is None else Question("word", "What is written there?", f'It says "{scene.word}".', scene.word)


def _describe(scene: Scene, rng: np.random.Generator) -> Question | None:
    things = sorted(scene.things, key=lambda t: t.cell)
    parts = [f"{_a(f'{t.colour} {t.shape}')} {PLACES[t.cell]}" for t in things]
    text = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" and {parts[-1]}"
    return Question("describe", "Describe the picture.", f"There is {text}.", text)


_ASK: dict[str, Callable[[Scene, np.random.Generator], Question | None]] = {
    "presence": _presence, "colour": _colour, "shape": _shape, "count": _count, "position": _position, "side": _side, "word": _word,
    "describe": _describe}
KINDS_ASKED = tuple(_ASK)
_SHARES = {"presence": 0.27, "colour": 0.08, "shape": 0.12, "count": 0.3, "position": 0.12, "side": 0.08, "word": 0.0, "describe": 0.03}


def questions(scene: Scene, rng: np.random.Generator, count: int, kinds: Sequence[str] = ()) -> list[Question]:
    """Different questions about a scene, of these kinds; fewer than ``count`` where the scene answers no more. None named: of every kind,
    and always what is written."""
    names = tuple(kinds) or tuple(_SHARES)
    weights = np.array([_SHARES[name] if not kinds else 1.0 for name in names])
    out: dict[str, Question] = {}
    if not kinds and scene.word:
        made = _word(scene, rng)
        out[made.text] = made
    for _ in range(6 * count):
        if len(out) >= count:
            break
        made = _ASK[names[int(rng.choice(len(names), p=weights / weights.sum()))]](scene, rng)
        if made is not None:
            out.setdefault(made.text, made)
    return list(out.values())
