"""espeak-ng's library, called in this process: text -> IPA phonemes, and text -> waveform.

The library and its data come inside the wheel `espeakng-loader`. It keeps one state for the whole process (one voice at a time, one
callback), so it is started once and every call holds one lock.

    phonemes("Hello there", "en-us")   -> "həlˈo^ʊ ðˈɛ^ɹ"      one clause without punctuation; ^ ties the letters of one phoneme
    waveform("Hello there", "en-us")   -> (T,) float32, rate()
"""

from __future__ import annotations

import ctypes
import re
import threading
from functools import lru_cache
from pathlib import Path

import torch

from sensorium.types import ConfigError, MediaError

__all__ = ["phonemes", "rate", "waveform"]

TIE = "^"
_LOCK = threading.RLock()
_SYNCHRONOUS, _DONT_EXIT, _UTF8, _IPA, _TIED = 2, 0x8000, 1, 0x02, 0x80
_RATE, _WORDS_A_MINUTE, _SLOWEST, _FASTEST = 1, 175, 80, 450
_FLAGS = re.compile(r"\([a-z][\w-]*\)")  # espeak-ng marks a change of language inside a text as "(en)"
_FILES = {"en-gb": "en"}  # voices are found by the name of their file
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class _Library:
    """The started library: its functions, its rate, and what it has spoken since the last `waveform`."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ConfigError("espeak-ng is not installed; it reads text aloud and gives its phonemes: pip install espeakng-loader") from error
        data = Path(espeakng_loader.get_data_path())
        try:
            self.calls = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise ConfigError(f"espeak-ng's library does not load on this machine ({error}); reinstall espeakng-loader") from error
        self.calls.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self.rate_hz = self.calls.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _DONT_EXIT)
        if self.rate_hz <= 0:  # the library keeps paths in 160 characters
            raise ConfigError(f"espeak-ng does not start with its data in {data} ({len(str(data))} characters; it takes at most 150)")
        self.spoken: list[bytes] = []
        self._keep = _CALLBACK(self._hear)  # ctypes does not keep callbacks alive
        self.calls.espeak_SetSynthCallback(self._keep)

    def _hear(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self.spoken.append(ctypes.string_at(samples, 2 * count))
        return 0

    def use(self, voice: str) -> None:
        """Make `voice` (a language of espeak-ng's) the current one."""
        if self.calls.espeak_SetVoiceByName(_FILES.get(voice, voice).encode()) != 0:
            raise ConfigError(f"espeak-ng has no voice {voice!r}; its voices are languages such as en-us, en-gb and cmn")


@lru_cache(maxsize=1)
def _library() -> _Library:
    return _Library()


def rate() -> int:
    """Samples a second of :func:`waveform`."""
    with _LOCK:
        return _library().rate_hz


def phonemes(text: str, voice: str = "en-us") -> str:
    """The IPA of a text; words stand apart by spaces, punctuation is not kept, the letters of one phoneme are tied by "^".

    Args:
        voice: a language of espeak-ng's: "en-us", "en-gb", "cmn", ...

    Raises:
        ConfigError: the wheel is not installed, or there is no such voice.
    """
    with _LOCK:
        library = _library()
        library.use(voice)
        buffer = ctypes.create_string_buffer(text.replace("\0", " ").encode())
        place = ctypes.c_void_p(ctypes.addressof(buffer))
        out = []
        while place.value:  # one clause a call; the library moves `place` on, and sets it to null at the end
            clause = library.calls.espeak_TextToPhonemes(ctypes.byref(place), _UTF8, _IPA | _TIED | ord(TIE) << 8)
            out.append((clause or b"").decode("utf-8", "ignore"))
    return " ".join(_FLAGS.sub("", " ".join(out)).split())


def waveform(text: str, voice: str = "en-us", speed: float = 1.0) -> torch.Tensor:
    """A text read aloud by espeak-ng's own voice: (T,) float32 in -1..1 at :func:`rate`.

    Args:
        speed: 1 is 175 words a minute.

    Raises:
        ConfigError: the wheel is not installed, or there is no such voice.
        MediaError: the library could not speak it.
    """
    words_a_minute = min(max(round(_WORDS_A_MINUTE * speed), _SLOWEST), _FASTEST)
    with _LOCK:
        library = _library()
        library.use(voice)
        library.calls.espeak_SetParameter(_RATE, words_a_minute, 0)
        library.spoken.clear()
        data = text.replace("\0", " ").encode()
        failed = library.calls.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None) or library.calls.espeak_Synchronize()
        spoken = bytearray().join(library.spoken)
        library.spoken.clear()
    if failed:
        raise MediaError(f"espeak-ng could not speak {text[:60]!r} (its error {failed})")
    if not spoken:
        return torch.zeros(0)
    return torch.frombuffer(spoken, dtype=torch.int16).float() / 32768
