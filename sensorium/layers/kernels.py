"""Kernels: the C++ beside this file, compiled for this processor on first use, kept in the cache folder, and loaded.

Without g++ there are none; every caller has a twin in torch and uses it instead.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import uuid
from pathlib import Path

import torch

__all__ = ["attend", "CLinear", "library", "pointer", "state"]

_FLAGS = ("-O3", "-march=native", "-std=c++20", "-fno-strict-aliasing", "-fopenmp", "-shared", "-fPIC", "-w")


class CLinear(ctypes.Structure):
    """``Linear`` of kernels.h: a matrix in few bits. ``bits`` 0 is none."""

    _fields_ = [("bits", ctypes.c_int64), ("rows", ctypes.c_int64), ("groups", ctypes.c_int64), ("codes", ctypes.c_void_p),
                ("scale", ctypes.c_void_p), ("low", ctypes.c_void_p), ("bias", ctypes.c_void_p)]


class _CAttention(ctypes.Structure):
    """``Attention`` of kernels_attention.cpp: sizes, and the strides of query, key, value and out."""

    _fields_ = [("sizes", ctypes.c_int64 * 6), ("strides", ctypes.c_int64 * 12)]


def attend(query_BTNE: torch.Tensor, key_BSKE: torch.Tensor, value_BSKE: torch.Tensor, scale: float) -> torch.Tensor | None:
    """Softmax attention without a mask or a gradient, (B, T, N, E); None where no kernel takes these, or there is no memory for it."""
    kernels, given, width = library(), (query_BTNE, key_BSKE, value_BSKE), query_BTNE.shape[-1]
    if kernels is None or not 0 < width <= kernels.sensorium_attention_width() or value_BSKE.shape != key_BSKE.shape:
        return None
    if any(x.device.type != "cpu" or x.dtype != torch.bfloat16 or x.stride(-1) != 1 or not x.numel() for x in given):
        return None
    out_BTNE = torch.empty(query_BTNE.shape, dtype=query_BTNE.dtype)
    shape = _CAttention((*query_BTNE.shape[:2], key_BSKE.shape[1], query_BTNE.shape[2], key_BSKE.shape[2], width),
                        tuple(stride for x in (*given, out_BTNE) for stride in x.stride()[:3]))
    done = kernels.sensorium_attend(ctypes.byref(shape), *(x.data_ptr() for x in (*given, out_BTNE)), scale, torch.get_num_threads())
    return out_BTNE if done else None


def pointer(tensor: torch.Tensor | None) -> int | None:
    """Where a tensor's numbers begin; the caller keeps the tensor alive."""
    return None if tensor is None else tensor.data_ptr()


def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be made; :func:`state` says why."""
    return _made()[0]


def state() -> str:
    """One line for people: whether the kernels are in use, or what is missing."""
    return _made()[1]


@functools.cache
def _made() -> tuple[ctypes.CDLL | None, str]:
    compiler = shutil.which(os.environ.get("CXX") or "g++")
    if compiler is None:
        return None, "no fast kernels: there is no g++; install it for faster decoding"
    sources = sorted(Path(__file__).parent.glob("kernels*.h")) + sorted(Path(__file__).parent.glob("kernels*.cpp"))
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    key = "\0".join([*(path.read_text(encoding="utf-8") for path in sources), version, _processor(), *_FLAGS])
    home = Path(os.environ.get("SENSORIUM_HOME") or Path.home() / ".cache" / "sensorium")
    path = home / "kernels" / f"{hashlib.sha256(key.encode()).hexdigest()}.so"
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            _compile(compiler, [str(p) for p in sources if p.suffix == ".cpp"], path)
        return _declared(ctypes.CDLL(str(path))), f"fast kernels: {path}"
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"no fast kernels: {compiler} or loading its work failed ({str(error)[:200]})"


def _compile(compiler: str, sources: list[str], path: Path) -> None:
    """Compile to ``path`` in one step: whoever looks finds nothing or the whole file."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.so")
    try:
        subprocess.run([compiler, *_FLAGS, "-o", str(temporary), *sources], capture_output=True, check=True, timeout=300)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _processor() -> str:
    """What tells this processor's instructions from another's; a cache folder may be shared between machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    return platform.machine() + next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _declared(kernels: ctypes.CDLL) -> ctypes.CDLL:
    word, place, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    kernels.sensorium_linear.argtypes = [ctypes.POINTER(CLinear), place, word, word, place, number]
    kernels.sensorium_pack.argtypes = [place, word, word, word, place, place, place, number]
    kernels.sensorium_decode.argtypes = [place, place, number]
    kernels.sensorium_round_rows.argtypes = [place, word, word, place, place, place, number]
    for kernel in (kernels.sensorium_linear, kernels.sensorium_pack, kernels.sensorium_decode, kernels.sensorium_round_rows):
        kernel.restype = None
    kernels.sensorium_attention_width.restype = word
    kernels.sensorium_attend.argtypes = [ctypes.POINTER(_CAttention), place, place, place, place, ctypes.c_float, number]
    return kernels
