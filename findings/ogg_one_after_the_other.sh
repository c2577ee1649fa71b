#!/usr/bin/env bash
# Two Ogg Vorbis files one after the other are one valid Ogg file (a chained stream, RFC 3533), as recordings of radio stations are.
#
# Good guess:  libsndfile, which reads Ogg, gives all of it, or an error.
# What happens: it gives the first stream alone and says that this is the whole length; PyAV (FFmpeg) reads on where the second stream has the
#              settings of the first.
# soundfile 0.14.0 (libsndfile 1.2.2), PyAV 18.1.0, 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check soundfile==0.14.0 av==18.1.0 numpy==2.4.6 2>/dev/null
cat > "$folder/try.py" <<'PY'
import io

import av
import numpy as np
import soundfile

wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
streams = [io.BytesIO(), io.BytesIO()]
for stream in streams:
    soundfile.write(stream, wave, 48_000, format="OGG", subtype="VORBIS")
chained = bytearray(b"".join(stream.getvalue() for stream in streams))
assert chained[14:18] != streams[1].getvalue()[14:18], "each stream of a chain has a serial number of its own"
with soundfile.SoundFile(io.BytesIO(bytes(chained))) as file:
    by_libsndfile = len(file.read()) / 48_000
with av.open(io.BytesIO(bytes(chained))) as container:
    by_ffmpeg = sum(frame.samples for frame in container.decode(audio=0)) / 48_000
print("soundfile", soundfile.__version__, soundfile.__libsndfile_version__, "PyAV", av.__version__)
print(f"two seconds in two streams: libsndfile gives {by_libsndfile:.2f} s, FFmpeg {by_ffmpeg:.2f} s")
assert round(by_libsndfile, 2) == 1.0 and by_ffmpeg > 1.9, "it has changed"
PY
"$folder/venv/bin/python" "$folder/try.py"
