"""FFmpeg: containers of films and sounds, opened through PyAV, so that none of them opens another file or an address.

    file -> one of the formats that are known, no protocols -> container -> its tracks of pictures that are more than a cover
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from sensorium.types import ConfigError, MediaError

__all__ = ["FILMS", "open_container", "picture_tracks", "SOUNDS"]

FILMS = "matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,ogg,avi,asf,flv,mpegts,mpeg,mpegvideo,gif"
SOUNDS = f"{FILMS},wav,w64,flac,mp3,aac,aiff,amr,amrnb,amrwb,caf,au,ac3,eac3,ape,wv,tta,loas,adx,dsf"


def open_container(name: str, file: Any, stack: ExitStack, formats: str = FILMS) -> Any:
    """PyAV's container of an open file, read from its beginning.

    Args:
        name: of the file, for errors.
        stack: closes the container.
        formats: that may be in it, as FFmpeg names them. A playlist is none, and without protocols could open nothing.

    Raises:
        ConfigError: PyAV is not installed.
        MediaError: it is of no such format, or broken.
    """
    try:
        import av
    except ImportError as error:
        raise ConfigError("films and many sounds are decoded by PyAV, which is not installed; run: pip install 'sensorium[speech]'") from error
    options = {"format_whitelist": formats, "protocol_whitelist": "none"}
    try:
        file.seek(0)
        return stack.enter_context(av.open(file, mode="r", options=options, metadata_errors="ignore"))
    except (av.FFmpegError, ValueError, OSError, MemoryError) as error:
        kind, examples = ("video", "mp4, webm, mov, avi, gif") if formats == FILMS else ("sound", "wav, flac, ogg, mp3, m4a, webm")
        raise MediaError(f"{name} is not a {kind} that can be read ({str(error)[:80]}); wanted {examples} or the like") from error


def picture_tracks(container: Any) -> list[Any]:
    """Tracks of pictures; a cover is none."""
    from av.stream import Disposition

    return [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
