"""baselines: what nano stands beside. One half of it alone, at the same total size, on the same pictures, for the same time.

    sensorium train recipes/baselines.py --data corpus --kind clip --steps 5000      # reads, and shares one space; does not write
    sensorium train recipes/baselines.py --data corpus --kind dit --steps 5000       # draws from a name; does nothing else
    sensorium eval runs/clip-only/final --data corpus --json clip.json
    python recipes/baselines.py sensorium/weights/nano clip-only clip.json           # its figures beside nano's in the card
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import sensorium as sn
from nano import NanoData, evaluator, recipe
from pictures import SIZE
from sensorium.files import write_file
from sensorium.train import Run
from sensorium.types import ConfigError
from sensorium.zoo.nano import nano


def clip_only(vocab: int, size: int = SIZE) -> sn.Model:
    """nano without its writing half and its words; the same eyes, and the rest widened to its size."""
    full, width = nano(vocab, size), 424
    read = replace(full.decoder.read, width=width, heads=8, hidden=3 * width)
    return replace(
        full,
        encoders={"text": sn.Vocabulary(vocab, width), "image": full.encoders["image"]},
        align={"image": replace(full.align["image"], outside=width)}, fuse={"splice": sn.Splice(("image",))}, decoder=sn.Decoder(read),
        heads={"embed": sn.Unit(width, 256, token=1)}, objectives=full.objectives[:1])


def dit_only(vocab: int, size: int = SIZE) -> sn.Model:
    """nano without eyes, words of its own and a shared space: it draws what it read, and is widened to nano's size."""
    full, write = nano(vocab, size), 400
    return replace(
        full, encoders={"text": full.encoders["text"]}, align={},
        fuse={"condition": replace(full.fuse["condition"], width=write, state=None)},
        decoder=replace(full.decoder, write=replace(full.decoder.write, width=write, hidden=4 * write, adaln=write)),
        heads={"image": replace(full.heads["image"], width=write, condition=write)}, objectives=full.objectives[2:])


def run(kind: str = "clip", data: str = "corpus", steps: int = 5000, pictures: int = 128) -> Run:
    """One baseline.

    Args:
        kind: "clip" or "dit".
        steps: as many as fit in the time nano took.
    """
    folder = Path(data)
    if kind == "clip":
        train = NanoData(folder, pictures, drawn=0, names=False)
        return recipe("clip-only", clip_only(train.tokenizer.vocab), train, steps, evaluate=evaluator(train))
    if kind == "dit":
        train = NanoData(folder, pictures, drawn=pictures, reads=False)
        return recipe("dit-only", dit_only(train.tokenizer.vocab), train, steps)
    raise ConfigError(f"--kind got {kind!r}, wanted clip or dit")


def beside(shipped: Path, name: str, figures: Path) -> int:
    """Put a baseline's figures beside those of the shipped model with the same name, and say how many there were."""
    card = json.loads((shipped / "card.json").read_text(encoding="utf-8"))
    measured = {row["name"]: row["value"] for row in json.loads(figures.read_text(encoding="utf-8"))}
    both = [row for row in card["figures"] if row["name"] in measured]
    for row in both:
        row["beside"][name] = measured[row["name"]]
    write_file(shipped / "card.json", json.dumps(card, indent=1, ensure_ascii=False).encode())
    return len(both)


if __name__ == "__main__":
    print(beside(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])), "figures")
