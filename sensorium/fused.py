"""Fused: readers, what decoding talks to: tokens in, scores of the next token out, and all that was read is remembered.

Letters: B rows, T new tokens, S sources, K kv heads, E head width, N watched heads, V vocabulary, D width.

    open_reader(model) -> Fused   one call into the C++ kernels a step, keys and values in a cache of fixed size
                       -> Plain   model.read and a growing Cache, for every model and machine
"""

from __future__ import annotations

import ctypes
from typing import Protocol

import torch
from torch import nn

from sensorium.fuse import CrossMemory, Watch
from sensorium.layers import kernels
from sensorium.layers.adapters import adapted_layers
from sensorium.layers.cache import Cache
from sensorium.layers.packed import PackedLinear
from sensorium.layers.stack import Stack
from sensorium.model import ModelNet
from sensorium.types import Batch, ConfigError, Layout, ShapeError

__all__ = ["Fused", "open_reader", "Plain", "Reader", "why_plain"]

_SERVED = ("width", "depth", "heads", "kv_heads", "head_width", "hidden", "act", "gated", "bias", "attention_bias", "key_bias",
           "attention_out_bias", "norm", "eps", "mlp_eps", "norm_affine", "rope_theta", "rope_scaling", "rule")
_ACTS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "quick_gelu": 3, "relu": 4}  # ``Act`` of kernels.h


class Reader(Protocol):
    """What decoding talks to.

    Attributes:
        length: places remembered, of the longest row.
        looks_BNTS: what the watched heads of the cross-attention gave each source at the last ``extend``; None unless asked for.
    """

    @property
    def length(self) -> int: ...

    @property
    def looks_BNTS(self) -> torch.Tensor | None: ...

    def extend(self, token_BT: torch.Tensor, length_B: torch.Tensor | None = None) -> torch.Tensor:
        """Read on: scores (B, V), float32, of what follows each row's last real token.

        Args:
            token_BT: int64, one row each, padded on the right.
            length_B: real tokens of each row; None: all. A row of length 0 stays as it is, and its scores are 0.

        Raises:
            ShapeError: other than (rows, T), or ids that the model does not know.
            ConfigError: more places than there is room for.
        """

    def rewind(self, length: int) -> int:
        """Forget everything after the first ``length`` places of every row.

        Returns:
            What is still remembered of each row that had as many: ``length``, or 0 where the model's layers have windows and have forgotten
            what they would see next; then all is to be read again.
        """


def open_reader(model: ModelNet, rows: int = 1, room: int = 2048, memory: torch.Tensor | None = None, looks: bool = False) -> Reader:
    """A reader of ``model``: the fast one where :func:`why_plain` finds nothing against it.

    Args:
        rows: texts read side by side.
        room: most places of a row; a vocabulary of learned places may have fewer.
        memory: aligned features (rows, S, D) that cross-attention looks at.
        looks: keep what the heads that ``CrossAttend.timing`` names look at.

    Raises:
        ConfigError: the model reads no text, or the arguments do not fit it.
    """
    if "text" not in model.encoders or "text" not in model.heads or model.decoder is None:
        raise ConfigError(f"the model writes {', '.join(model.spec.writes)}; a reader wants one that reads and writes text with a decoder")
    if rows < 1 or room < 1:
        raise ConfigError(f"a reader got rows={rows} and room={room}, wanted 1 or more of each")
    if memory is not None and ("cross" not in model.fuse or memory.dim() != 3 or len(memory) != rows):
        raise ConfigError(f"a reader of {rows} rows got memory {tuple(memory.shape)}; wanted ({rows}, S, D), and a model with fuse['cross']")
    if looks and memory is None:
        raise ConfigError("looks are of cross-attention; give memory too")
    room = min(room, model.encoders["text"].spec.places or room)
    kind = Plain if why_plain(model) else Fused
    with torch.inference_mode():
        return kind(model, rows, room, None if memory is None else model.remember(memory), looks)


def why_plain(model: ModelNet) -> str | None:
    """Why a model decodes through the plain path, or None where the kernels serve it."""
    if kernels.library() is None or model.device.type != "cpu":
        return kernels.state() if kernels.library() is None else f"the weights are on {model.device}"
    net, head, cross = model.decoder.read, model.heads["text"], model.fuse["cross"] if "cross" in model.fuse else None
    parts = [net.blocks, model.encoders["text"].token, *([cross] if cross else []), *([] if head.out is None else [head.out])]
    if any(any(adapters.strength.values()) for _, _, adapters in adapted_layers(model)):
        return "it has adapters that are on; adapt.merged makes a model without"
    if any(isinstance(layer, (nn.Linear, nn.Embedding)) for part in parts for layer in part.modules()):
        return "its weights are in floats; load it with packed="
    stack, plain = net.spec, Stack(width=32, depth=0, heads=1)
    unlike = [name for name, value in vars(stack).items() if name not in _SERVED and value != vars(plain)[name]]
    unlike += ["scaled embeddings"] * (model.encoders["text"].spec.scale != 1)
    unlike += ["scaled or capped scores"] * (head.spec.scale != 1 or head.spec.cap is not None)
    unlike += [f"fuse {name}" for name in model.fuse if name not in ("cross", "splice")] + (["a full mask"] if stack.rule == "full" else [])
    if cross and (cross.spec.gate is not None or cross.spec.place != "middle" or cross.spec.every != 1):
        unlike.append("cross-attention that is gated or not in the middle of every layer")
    if unlike:
        return f"its decoder has {', '.join(unlike)}"
    attentions = [stack.block.attention] + ([cross.layers["0"].attention.spec] if cross else [])
    widths = {stack.width, stack.block.mlp.hidden} | {attention.head * attention.heads for attention in attentions}
    if any(attention.head % 16 for attention in attentions) or any(width % 32 for width in widths):
        return f"its widths are {sorted(widths)} and those of its heads {[a.head for a in attentions]}, wanted multiples of 32 and of 16"
    return None


class _Rows:
    """What both readers share: how long each row is, and the checks at the door."""

    def __init__(self, model: ModelNet, rows: int, room: int) -> None:
        self._model, self._room = model, room
        self._vocab = model.encoders["text"].spec.size
        self._length_B = torch.zeros(rows, dtype=torch.int64)
        self._given_ND: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """Places remembered, of the longest row."""
        return int(self._length_B.max())

    def _grown(self, token_BT: torch.Tensor, length_B: torch.Tensor | None) -> torch.Tensor:
        """Each row's length after these tokens."""
        rows, size = len(self._length_B), self._vocab
        if token_BT.dim() != 2 or len(token_BT) != rows or not token_BT.numel() or token_BT.dtype != torch.int64:
            raise ShapeError(f"a reader got tokens {tuple(token_BT.shape)} of {token_BT.dtype}, wanted ({rows}, T) of int64")
        least = 0 if self._given_ND is None else -len(self._given_ND)
        if int(token_BT.min()) < least or int(token_BT.max()) >= size:
            raise ShapeError(f"a reader got ids from {int(token_BT.min())} to {int(token_BT.max())}, wanted {least} to {size - 1}")
        if length_B is not None and (length_B.shape != (rows,) or not bool(((length_B >= 0) & (length_B <= token_BT.shape[1])).all())):
            raise ShapeError(f"a reader got length_B {length_B.tolist()}, wanted {rows} numbers from 0 to T = {token_BT.shape[1]}")
        grown = self._length_B + (token_BT.shape[1] if length_B is None else length_B)
        if int(grown.max()) > self._room:
            raise ConfigError(f"a text of {int(grown.max())} tokens was given to a reader with room for {self._room}; "
                              "open it with more room, or shorten the text")
        return grown

    def _shortened(self, length: int) -> torch.Tensor:
        if not 0 <= length <= self.length:
            raise ConfigError(f"rewind got {length}, wanted 0 to the {self.length} places remembered")
        return self._length_B.clamp(max=length)


class Plain(_Rows):
    """A :class:`Reader` of any model, through ``model.read``. Opened by :func:`open_reader`."""

    def __init__(self, model: ModelNet, rows: int, room: int, memory: CrossMemory | None, looks: bool) -> None:
        super().__init__(model, rows, room)
        self._cache = Cache()
        self._cache.memory = memory
        self._watch = Watch(model.fuse["cross"]) if looks else None

    @property
    def looks_BNTS(self) -> torch.Tensor | None:
        """See :class:`Reader`."""
        return None if self._watch is None else self._watch.looks_BNTS

    @torch.inference_mode()
    def extend(self, token_BT: torch.Tensor, length_B: torch.Tensor | None = None) -> torch.Tensor:
        """See :class:`Reader`."""
        grown = self._grown(token_BT, length_B)
        position = self._length_B[:, None] + torch.arange(token_BT.shape[1])
        real = position < grown[:, None]
        position, zero = position.where(real, 0), torch.zeros_like(position)
        layout = Layout(zero.where(real, -1), position, zero)
        state_BTD = self._model.read(Batch(token_BT=token_BT, media_BT=zero, layout=layout).to(self._model.device), self._cache, self._watch)
        last = (grown - self._length_B - 1).clamp(min=0)
        logits = self._model.logits(state_BTD[torch.arange(len(last)), last]).cpu() * (grown > self._length_B)[:, None]
        self._length_B = grown
        return logits

    def rewind(self, length: int) -> int:
        """See :class:`Reader`."""
        shortened = self._shortened(length)
        held = self._cache.cut(length)
        self._length_B = shortened.clamp(max=held)
        return held


class _Norm(ctypes.Structure):
    _fields_ = [("scale", ctypes.c_void_p), ("shift", ctypes.c_void_p), ("rms", ctypes.c_int64), ("eps", ctypes.c_double)]


class _Layer(ctypes.Structure):
    _fields_ = [("attention_norm", _Norm), *((name, kernels.CLinear) for name in ("query", "key", "value", "out")),
                ("keys", ctypes.c_void_p), ("values", ctypes.c_void_p),
                ("cross_norm", _Norm), ("cross_query", kernels.CLinear), ("cross_out", kernels.CLinear),
                ("cross_keys", ctypes.c_void_p), ("cross_values", ctypes.c_void_p),
                ("mlp_norm", _Norm), *((name, kernels.CLinear) for name in ("gate", "up", "down"))]


class _Net(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_int64) for name in ("width", "depth", "heads", "kv_heads", "head", "hidden", "act", "room",
                                                       "cross_heads", "cross_head", "sources")),
                ("layers", ctypes.POINTER(_Layer)), ("table", kernels.CLinear), ("scores", kernels.CLinear),
                *((name, ctypes.c_void_p) for name in ("places", "cosine", "sine")), ("norm", _Norm)]


class _Tokens(ctypes.Structure):
    _fields_ = [("count", ctypes.c_int64), ("rows", ctypes.c_int64),
                *((name, ctypes.c_void_p) for name in ("id", "row", "place", "given", "last", "logits", "watched", "looks"))]


class Fused(_Rows):
    """A :class:`Reader` through the kernels: a whole step is one call. Opened by :func:`open_reader`.

    Activations are rounded to 12 bits for each group of 32 before each matrix, keys and values are kept in float16, all else is float32.
    What a row gives does not depend on the rows beside it, nor on how its tokens are cut into steps: it is the same to the last bit.
    """

    def __init__(self, model: ModelNet, rows: int, room: int, memory: CrossMemory | None, looks: bool) -> None:
        super().__init__(model, rows, room)
        self._kept: list[torch.Tensor] = []  # what the structures below point to
        self._seen: torch.Tensor | None = None
        self._heads = model.fuse["cross"].spec.timing if looks else ()
        stack, vocabulary, head = model.decoder.read, model.encoders["text"], model.heads["text"]
        attention, padded = stack.spec.block.attention, -(-room // 16) * 16
        shape = (stack.spec.depth, rows, attention.kv_heads or attention.heads, padded, attention.head)
        self._caches = torch.empty(2, *shape, dtype=torch.float16)
        self._layers = (_Layer * stack.spec.depth)(*(self._layer(index) for index in range(stack.spec.depth)))
        cosine, sine = stack.rope.angles(torch.arange(room)[None]) if stack.rope else (None, None)
        self._net = _Net(
            stack.spec.width, stack.spec.depth, attention.heads, shape[2], attention.head, stack.spec.block.mlp.hidden,
            _ACTS[stack.spec.act], padded, layers=self._layers, table=vocabulary.token.described(),
            scores=self._linear(head.out) if head.out is not None else vocabulary.token.described(), norm=self._norm(stack.norm),
            places=self._float(vocabulary.position), cosine=self._float(cosine), sine=self._float(sine))
        if memory is not None:
            self._remember(memory, looks)

    @property
    def looks_BNTS(self) -> torch.Tensor | None:
        """See :class:`Reader`."""
        return self._seen

    @torch.inference_mode()
    def extend(self, token_BT: torch.Tensor, length_B: torch.Tensor | None = None) -> torch.Tensor:
        """See :class:`Reader`."""
        grown = self._grown(token_BT, length_B)
        rows, time = token_BT.shape
        row_BT, step_BT = torch.arange(rows)[:, None].expand(rows, time), torch.arange(time).expand(rows, time)
        real_BT = step_BT < (grown - self._length_B)[:, None]
        place_BT = self._length_B[:, None] + step_BT
        token, row, place = (x[real_BT] for x in (token_BT, row_BT, place_BT))
        last = torch.where(grown > self._length_B, (grown - self._length_B).cumsum(0) - 1, -1)
        logits = torch.zeros(rows, self._vocab)
        looks = torch.empty(len(self._heads), len(token), self._net.sources) if self._heads else None
        watched = self._watched if self._heads else None
        step = _Tokens(len(token), rows, *map(kernels.pointer, (token, row, place, self._given_ND, last, logits, watched, looks)))
        kernels.library().sensorium_decode(ctypes.byref(self._net), ctypes.byref(step), torch.get_num_threads())
        self._length_B = grown
        if looks is not None:
            self._seen = torch.zeros(rows, len(self._heads), time, self._net.sources)
            self._seen[row, :, step_BT[real_BT]] = looks.transpose(0, 1)
        return logits

    def show(self, features_ND: torch.Tensor) -> None:
        """Aligned features of media, float (N, D), that ids below 0 stand for from now on: -1 is the first of them."""
        width = self._model.decoder.spec.width
        if features_ND.dim() != 2 or features_ND.shape[1] != width:
            raise ShapeError(f"a reader was shown {tuple(features_ND.shape)}, wanted (N, {width}) aligned features")
        self._given_ND = features_ND.detach().float().contiguous()

    def rewind(self, length: int) -> int:
        """See :class:`Reader`."""
        self._length_B = self._shortened(length)
        return length

    def _layer(self, index: int) -> _Layer:
        """One layer as the kernels read it."""
        block = self._model.decoder.read.blocks[index]
        attention, mlp = block.attention, block.mlp
        layer = _Layer(
            attention_norm=self._norm(block.attention_norm), query=self._linear(attention.query), key=self._linear(attention.key),
            value=self._linear(attention.value), out=self._linear(attention.out), keys=self._caches[0, index].data_ptr(),
            values=self._caches[1, index].data_ptr(), mlp_norm=self._norm(block.mlp_norm), up=self._linear(mlp.up), down=self._linear(mlp.down))
        if mlp.gate is not None:
            layer.gate = self._linear(mlp.gate)
        return layer

    def _remember(self, memory: CrossMemory, looks: bool) -> None:
        """Keys and values of the cross-attention, as the kernels read them."""
        cross = self._model.fuse["cross"]
        first = memory.layers[0][0]
        self._net.sources, self._net.cross_heads, self._net.cross_head = first.shape[1:]
        for index, layer in enumerate(self._layers):
            net, pair = cross.layers[str(index)], memory.layers[index]
            layer.cross_norm, layer.cross_query, layer.cross_out = (
                self._norm(net.norm), self._linear(net.attention.query), self._linear(net.attention.out))
            key, value = (nn.functional.pad(x.transpose(1, 2).half(), (0, 0, 0, -x.shape[1] % 16)) for x in pair)  # B, K, S, E
            key = key.unflatten(2, (-1, 16)).transpose(-1, -2)
            layer.cross_keys, layer.cross_values = self._keep(key.contiguous()), self._keep(value.contiguous())
        if looks:
            self._watched = torch.full((len(self._layers), first.shape[2]), -1)
            for number, (layer, head) in enumerate(self._heads):
                self._watched[layer, head] = number

    def _linear(self, layer: PackedLinear) -> kernels.CLinear:
        bias = None if layer.bias is None else layer.bias.detach().float().contiguous()
        self._keep(bias)
        return layer.described(bias)

    def _norm(self, norm: nn.Module) -> _Norm:
        shift = norm.bias if isinstance(norm, nn.LayerNorm) else None
        return _Norm(self._float(norm.weight), self._float(shift), isinstance(norm, nn.RMSNorm), norm.eps)

    def _float(self, tensor: torch.Tensor | None) -> int | None:
        return None if tensor is None else self._keep(tensor.detach().float().contiguous())

    def _keep(self, tensor: torch.Tensor | None) -> int | None:
        if tensor is not None:
            self._kept.append(tensor)
        return kernels.pointer(tensor)
