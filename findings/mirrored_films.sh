#!/usr/bin/env bash
# A film may say that it is shown as in a mirror (display matrix -1 0 0 1), as front cameras write it.
#
# Good guess:  PyAV's frame.rotation is 0 for a mirror image, or it says nothing; turning by it never harms.
# What happens: a mirror image has rotation -180, so that whoever turns by it sets the picture upside down; an image mirrored from top to
#              bottom (1 0 0 -1) has rotation 0. Only the frame's side data (DISPLAYMATRIX) tells a mirror from a turn.
# PyAV 18.1.0, 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check av==18.1.0 numpy==2.4.6 2>/dev/null
cat > "$folder/try.py" <<'PY'
import io
import struct

import av
import numpy as np

ONE = 1 << 16


def film(matrix: tuple[int, int, int, int]) -> bytes:
    """Eight frames of H.264 in MP4, the matrix of the track's header (tkhd, ISO/IEC 14496-12, 8.3.2) set to a, b, c, d."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        track = out.add_stream("libx264", rate=8)
        track.width, track.height, track.pix_fmt = 64, 32, "yuv420p"
        for _ in range(8):
            out.mux(track.encode(av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), format="rgb24")))
        out.mux(track.encode(None))
    data = bytearray(buffer.getvalue())
    a, b, c, d = (number * ONE for number in matrix)
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix stands 40 bytes behind the name
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(data)


print("PyAV", av.__version__)
seen = {}
for name, matrix in {"as it lies": (1, 0, 0, 1), "turned by 180": (-1, 0, 0, -1), "mirrored left to right": (-1, 0, 0, 1),
                     "mirrored top to bottom": (1, 0, 0, -1)}.items():
    with av.open(io.BytesIO(film(matrix))) as container:
        frame = next(container.decode(video=0))
        seen[name] = frame.rotation
        print(f"{name}: rotation {frame.rotation}, side data {[str(item.type).split('.')[-1] for item in frame.side_data]}")
assert abs(seen["turned by 180"]) == 180 and abs(seen["mirrored left to right"]) == 180, "it has changed"
assert seen["as it lies"] == 0 and seen["mirrored top to bottom"] == 0, "it has changed"
PY
"$folder/venv/bin/python" "$folder/try.py"
