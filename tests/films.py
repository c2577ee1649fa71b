"""Small films and sounds for tests: a grey picture of 32 x 32 that grows lighter, a quiet hum, or both, in any container."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def film(path: Path, form: str = "mp4", pictures: str | None = "mpeg4", sound: str | None = None, cover: bytes | None = None) -> Path:
    """Write ten frames at 25 a second with encoder ``pictures``, and 0.4 s of hum with encoder ``sound``; ``cover`` is a JPEG beside the sound."""
    with av.open(str(path), "w", format=form) as container:
        shown = container.add_stream(pictures, rate=25, width=32, height=32, pix_fmt="yuv420p") if pictures else None
        heard = container.add_stream(sound, rate=48_000, layout="mono") if sound else None
        if cover is not None:
            art = container.add_stream("mjpeg", rate=1, width=32, height=32, pix_fmt="yuvj420p")
            art.disposition = av.stream.Disposition.attached_pic
            packet = av.Packet(cover)
            packet.stream = art
        if shown is not None:
            for number in range(10):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * number, np.uint8), format="rgb24")
                container.mux(shown.encode(frame))
            container.mux(shown.encode())
        if heard is not None:
            hum = (0.1 * np.sin(np.arange(19_200) * 0.05)).astype(np.float32)[None]
            frame = av.AudioFrame.from_ndarray(hum, format="flt", layout="mono")
            frame.sample_rate = 48_000
            container.mux(heard.encode(frame))
            container.mux(heard.encode())
        if cover is not None:
            container.mux(packet)
    return path
