"""Fuse: how aligned features enter the decoder.

Letters: B batch, T length, S source length, D width, N heads, E head width, L media, P patches.

    Splice        features take places of their own among the tokens (LLaVA, nano)
    CrossAttend   layers between or inside the decoder's own look at the features (Flamingo; Whisper)
    Condition     one vector modulates every layer (DiT, and nano while it draws)
    Prompt        all of a text's features are looked at while a picture is drawn (Stable Diffusion)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import nn

from sensorium.layers.attention import Attention, attend
from sensorium.layers.blocks import MLP
from sensorium.layers.norms import Norm
from sensorium.layers.positions import sinusoids
from sensorium.spec import Spec
from sensorium.types import ShapeError

__all__ = ["Condition", "CrossAttend", "CrossMemory", "Prompt", "Prompted", "Splice", "Watch"]


@dataclass(frozen=True, repr=False)
class Splice(Spec):
    """Features of the named modalities stand among the text tokens, each at a place of its own.

    Args:
        modalities: what is spliced in.
        own: learned vectors of its own, which a medium's places may pick beside its features (the end of a row of tiles).
        width: D of those vectors.
    """

    modalities: tuple[str, ...] = ("image",)
    own: int = 0
    width: int | None = None

    def check(self) -> list[str]:
        return [f"own={self.own} learned vectors want a width; set width to the decoder's"] if self.own and not self.width else []

    def build(self) -> SpliceNet:
        return SpliceNet(self)


class SpliceNet(nn.Module):
    """The module of :class:`Splice`."""

    def __init__(self, spec: Splice) -> None:
        super().__init__()
        self.spec = spec
        self.own = nn.Parameter(torch.randn(spec.own, spec.width) * spec.width**-0.5) if spec.own else None

    def forward(self, x_BTD: torch.Tensor, here_BT: torch.Tensor, features_LPD: torch.Tensor, pick_N: torch.Tensor | None = None) -> torch.Tensor:
        """Put the features, in order, where ``here_BT`` is True; ``pick_N``: see :meth:`chosen`."""
        flat = self.chosen(features_LPD, pick_N)
        places = int(here_BT.sum())
        if places != len(flat):
            raise ShapeError(f"splice got {len(flat)} features for {places} places; the batch and the encoder disagree")
        return x_BTD.masked_scatter(here_BT[..., None], flat.to(x_BTD.dtype))

    def chosen(self, features_LPD: torch.Tensor, pick_N: torch.Tensor | None = None) -> torch.Tensor:
        """The features that take places, (N, D).

        Args:
            pick_N: int64 which of the flattened features stands at each place; -1 - k is the k-th learned vector. None: all.
        """
        flat = features_LPD.reshape(-1, features_LPD.shape[-1])
        if pick_N is None:
            return flat
        if int(pick_N.min()) < -self.spec.own or int(pick_N.max()) >= len(flat):
            raise ShapeError(f"splice got picks from {int(pick_N.min())} to {int(pick_N.max())}, wanted -{self.spec.own} to {len(flat) - 1}")
        index_N = torch.where(pick_N < 0, len(flat) - 1 - pick_N, pick_N)
        return (flat if self.own is None else torch.cat([flat, self.own.to(flat.dtype)]))[index_N]


@dataclass(frozen=True)
class CrossMemory:
    """What cross-attention looks at, worked out once for a prompt and all that follows it.

    Args:
        layers: decoder layer -> keys and values of its sources, (B, S, N, E) each.
        mask_BTS: bool, who may see what; None is everyone everything.
    """

    layers: dict[int, tuple[torch.Tensor, torch.Tensor]]
    mask_BTS: torch.Tensor | None = None

    def after(self, length: int) -> CrossMemory:
        """For ``length`` tokens that follow: they see what the last one saw."""
        if self.mask_BTS is None:
            return self
        return CrossMemory(self.layers, self.mask_BTS[:, -1:].expand(-1, length, -1))

    def rows(self, index_L: torch.Tensor) -> CrossMemory:
        """Rows ``index_L`` of this memory, in that order."""
        layers = {layer: (key[index_L], value[index_L]) for layer, (key, value) in self.layers.items()}
        return CrossMemory(layers, None if self.mask_BTS is None else self.mask_BTS[index_L])


@dataclass(frozen=True, repr=False)
class CrossAttend(Spec):
    """Cross-attention layers beside every ``every``-th decoder layer; a token sees the latest medium before it.

    Args:
        modality: whose features are looked at.
        width, source: widths of decoder and features.
        layers: depth of the decoder.
        every: one cross-attention layer at each ``every`` decoder layers.
        place: "before" the decoder layer, with an MLP of its own (Flamingo); or in its "middle", between its attention and its MLP (Whisper).
        heads, head_width, hidden, act, gated: sizes, and what the MLP is; see ``layers.blocks.MLP``.
        bias, key_bias: of the attention; key_bias None is as ``bias``.
        qk_norm: of the attention; True is RMS.
        gate: "tanh" starts closed, so that a frozen language model is unharmed at the start; None adds plainly.
        gates: one gate for all channels ("one"), or one for each ("each").
        norm, eps: kind of norm.
        timing: (layer, head) of the heads whose looks follow time, from which the times of words are read.

    Source: Flamingo (2204.14198), section 2.2 and figure 4; Whisper (2212.04356), figure 1.
    """

    modality: str
    _: KW_ONLY
    width: int
    source: int
    layers: int
    every: int = 1
    place: str = "before"
    heads: int = 8
    head_width: int | None = None
    hidden: int | None = None
    act: str = "gelu"
    bias: bool = False
    key_bias: bool | None = None
    gate: str | None = "tanh"
    eps: float = 1e-5
    timing: tuple[tuple[int, int], ...] = ()
    norm: str = "layer"
    gated: bool = False
    qk_norm: bool | str = False
    gates: str = "one"

    def check(self) -> list[str]:
        problems = [] if self.gate in (None, "tanh") else [f"gate {self.gate!r} is not known; use 'tanh' or None"]
        problems += [] if self.gates in ("one", "each") else [f"gates {self.gates!r} is not known; use 'one' or 'each'"]
        problems += [] if self.place in ("before", "middle") else [f"place {self.place!r} is not known; use 'before' or 'middle'"]
        lost = [(layer, head) for layer, head in self.timing if not (0 <= layer < self.layers and 0 <= head < self.heads)]
        return problems + ([f"timing names (layer, head) {lost} of {self.layers} layers of {self.heads} heads"] if lost else [])

    def build(self) -> CrossAttendNet:
        return CrossAttendNet(self)


class _CrossLayer(nn.Module):
    """One cross-attention layer, perhaps gated, perhaps with an MLP of its own."""

    def __init__(self, spec: CrossAttend) -> None:
        super().__init__()
        norm = Norm(spec.width, kind=spec.norm, eps=spec.eps)
        self.norm = norm.build()
        self.attention = Attention(spec.width, spec.heads, head_width=spec.head_width, source_width=spec.source, bias=spec.bias,
                                   key_bias=spec.key_bias, qk_norm=spec.qk_norm, qk_eps=spec.eps if spec.qk_norm else 1e-6).build()
        gated, alone, gates = spec.gate is not None, spec.place == "before", spec.width if spec.gates == "each" else 1
        self.mlp_norm = norm.build() if alone else None
        self.mlp = MLP(spec.width, spec.hidden or 4 * spec.width, act=spec.act, gated=spec.gated, bias=False).build() if alone else None
        self.gate = nn.Parameter(torch.zeros(gates)) if gated else None
        self.mlp_gate = nn.Parameter(torch.zeros(gates)) if gated and alone else None

    def forward(self, x_BTD: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask_BTS: torch.Tensor | None) -> torch.Tensor:
        query = self.attention.ask(self.norm(x_BTD))
        if mask_BTS is None:
            found = self.attention.finish(attend(query, key, value))
        else:
            sees_BT1 = mask_BTS.any(dim=-1, keepdim=True)  # a token with nothing to see gets nothing, not an average
            found = self.attention.finish(attend(query, key, value, mask_BTS | ~sees_BT1)) * sees_BT1
        return self.alone(x_BTD + (found if self.gate is None else found * self.gate.tanh()))

    def alone(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """What a token has with nothing to see, and every token after its look: the layer's own MLP, if there is one."""
        if self.mlp is None:
            return x_BTD
        more = self.mlp(self.mlp_norm(x_BTD))
        return x_BTD + (more if self.mlp_gate is None else more * self.mlp_gate.tanh())

    def looks(self, x_BTD: torch.Tensor, key: torch.Tensor, heads: Sequence[int]) -> torch.Tensor:
        """How much each of ``heads`` looks at each source, (B, len(heads), T, S); masks are left out."""
        query, key = self.attention.ask(self.norm(x_BTD))[:, :, heads], key[:, :, heads]
        return (torch.einsum("btne,bsne->bnts", query, key) * query.shape[-1] ** -0.5).softmax(dim=-1)


class CrossAttendNet(nn.Module):
    """The module of :class:`CrossAttend`; what the decoder calls between its layers (``types.Enter``)."""

    def __init__(self, spec: CrossAttend) -> None:
        super().__init__()
        self.spec = spec
        self.layers = nn.ModuleDict({str(i): _CrossLayer(spec) for i in range(0, spec.layers, spec.every)})

    def remember(self, features_LPD: torch.Tensor, sees_BT: torch.Tensor) -> CrossMemory:
        """Keys and values of every layer, for rows of tokens that see media.

        Args:
            features_LPD: of all media, in the order in which the rows see them.
            sees_BT: int64 medium that each token sees, -1 for none.
        """
        media, patches = features_LPD.shape[:2]
        first_B = torch.where(sees_BT >= 0, sees_BT, media).amin(dim=1)
        most = max(int((sees_BT.amax(dim=1) - first_B).max()) + 1, 1)
        medium_BM = first_B[:, None] + torch.arange(most, device=first_B.device)
        source_BSD = features_LPD[medium_BM.clamp(max=media - 1)].flatten(1, 2)
        mask_BTM = sees_BT[:, :, None] == medium_BM[:, None, :]
        mask_BTS = None if bool(mask_BTM.all()) else mask_BTM.repeat_interleave(patches, dim=-1)
        return CrossMemory({int(layer): net.attention.offer(source_BSD) for layer, net in self.layers.items()}, mask_BTS)

    def acts(self, layer: int, middle: bool) -> bool:
        """Whether features enter here."""
        return layer % self.spec.every == 0 and middle == (self.spec.place == "middle")

    def enter(self, x_BTD: torch.Tensor, layer: int, memory: CrossMemory | None, middle: bool) -> torch.Tensor:
        """Let the features in, if this is the place for it; without any, a text reads as it does beside others that have some."""
        if not self.acts(layer, middle):
            return x_BTD
        net = self.layers[str(layer)]
        return net.alone(x_BTD) if memory is None else net(x_BTD, *memory.layers[layer], memory.mask_BTS)


class Watch:
    """Cross-attention that also keeps what chosen heads looked at (``types.Enter``).

    Args:
        cross: the cross-attention that is watched.
        heads: (layer, head) of each; None are the spec's ``timing``.
    """

    def __init__(self, cross: CrossAttendNet, heads: Sequence[tuple[int, int]] | None = None) -> None:
        self._cross = cross
        self._heads = tuple(cross.spec.timing if heads is None else heads)
        self._seen: dict[tuple[int, int], torch.Tensor] = {}

    def enter(self, x_BTD: torch.Tensor, layer: int, memory: CrossMemory | None, middle: bool) -> torch.Tensor:
        """Look, then let the features in."""
        chosen = [head for where, head in self._heads if where == layer]
        if chosen and memory is not None and self._cross.acts(layer, middle):
            looks = self._cross.layers[str(layer)].looks(x_BTD, memory.layers[layer][0], chosen)
            self._seen.update({(layer, head): looks[:, i] for i, head in enumerate(chosen)})
        return self._cross.enter(x_BTD, layer, memory, middle)

    @property
    def looks_BNTS(self) -> torch.Tensor:
        """What each chosen head gave each source, in the order of ``heads``; each sums to one over S."""
        return torch.stack([self._seen[head] for head in self._heads], dim=1)


@dataclass(frozen=True, repr=False)
class Condition(Spec):
    """A vector for adaLN: the time of the noise, plus what is known about the picture.

    Args:
        width: of the condition.
        state: width of the joint embedding that conditions, or None.
        label: width of a class embedding that conditions, or None; added as it is.
        whole: width of the vector of a whole prompt that conditions, or None.
        frequencies, shift: sinusoids of the time; see ``layers.positions.sinusoids``.
        scale: times 0..1 are multiplied by this before the sinusoids (published DiTs count 1000 steps).
        detach: the picture's loss does not bend the joint embedding.

    Source: DiT (2212.09748), section 3.2; conditioning on a joint embedding: unCLIP (2204.06125).
    """

    width: int
    _: KW_ONLY
    state: int | None = None
    label: int | None = None
    whole: int | None = None
    frequencies: int = 256
    shift: int = 0
    scale: float = 1000.0
    detach: bool = True

    def check(self) -> list[str]:
        if self.label is not None and self.label != self.width:
            return [f"label width {self.label} is added to the condition; wanted {self.width}"]
        return []

    def build(self) -> ConditionNet:
        return ConditionNet(self)


class ConditionNet(nn.Module):
    """The module of :class:`Condition`."""

    def __init__(self, spec: Condition) -> None:
        super().__init__()
        self.spec = spec
        self.time = MLP(spec.frequencies, spec.width, act="silu", out=spec.width).build()
        self.state = MLP(spec.state, spec.width, act="silu", out=spec.width).build() if spec.state else None
        self.nothing = nn.Parameter(torch.randn(spec.state)) if spec.state else None
        self.whole = MLP(spec.whole, spec.width, act="silu", out=spec.width).build() if spec.whole else None

    def forward(
        self, t_L: torch.Tensor, state_LD: torch.Tensor | None = None, known_L: torch.Tensor | None = None,
        label_L1D: torch.Tensor | None = None, whole_LW: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(L,) times and what is known -> (L, width). Rows whose ``known_L`` is False get the learned "nothing"."""
        time = sinusoids(t_L * self.spec.scale, self.spec.frequencies, shift=self.spec.shift).to(self.time.up.weight.dtype)
        out = self.time(time)
        if self.state is not None:
            state = state_LD.detach() if self.spec.detach else state_LD
            state = state * self.spec.state**0.5  # a unit vector's entries are small; give them variance one
            out = out + self.state(torch.where(known_L[:, None], state, self.nothing))
        if label_L1D is not None:
            out = out + label_L1D[:, 0]
        return out if self.whole is None else out + self.whole(whole_LW)


@dataclass(frozen=True)
class Prompted:
    """What prompts say to a decoder that only looks at them: features (R, S, D) of R prompts, and perhaps a vector of each, (R, W)."""

    x_RSD: torch.Tensor
    whole_RW: torch.Tensor | None = None

    def rows(self, index_L: torch.Tensor) -> Prompted:
        """Of chosen prompts."""
        return Prompted(self.x_RSD[index_L], None if self.whole_RW is None else self.whole_RW[index_L])


@dataclass(frozen=True, repr=False)
class Prompt(Spec):
    """What text towers read is looked at by every layer that writes.

    Args:
        empty: tower -> ids of the text that says nothing, which guidance leads away from.
        blank: features of padding are zeros.
        beside: towers whose features of a token stand in one row, filled up with zeros to ``width``; the others' tokens follow theirs. Their
            vectors of the whole, side by side, condition what is written.
        width: of the features, where towers of several widths are joined.
    """

    empty: dict[str, tuple[int, ...]]
    _: KW_ONLY
    beside: tuple[str, ...] = ()
    width: int | None = None
    blank: bool = False

    def build(self) -> PromptNet:
        return PromptNet(self)


class PromptNet(nn.Module):
    """The module of :class:`Prompt`."""

    def __init__(self, spec: Prompt) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, towers: Mapping[str, nn.Module], token_RT: Mapping[str, torch.Tensor]) -> Prompted:
        """Ids of R prompts for each tower -> what they say, R + 1 rows: the empty prompt's last."""
        read = {}
        for name, empty in self.spec.empty.items():
            if token_RT[name].shape[1] != len(empty):
                raise ShapeError(f"prompts have {token_RT[name].shape[1]} tokens for encoders.{name}, wanted {len(empty)}, as the empty one has")
            read[name] = towers[name](torch.cat([token_RT[name], token_RT[name].new_tensor([empty])]))
            if self.spec.blank and read[name].kept_BP is not None:
                read[name] = replace(read[name], x_BPD=read[name].x_BPD * read[name].kept_BP[..., None])
        if not self.spec.beside:
            return Prompted(torch.cat([features.x_BPD for features in read.values()], dim=1))
        wide = torch.cat([read[name].x_BPD for name in self.spec.beside], dim=-1)
        wide = nn.functional.pad(wide, (0, self.spec.width - wide.shape[-1]))
        rest = [features.x_BPD for name, features in read.items() if name not in self.spec.beside]
        return Prompted(torch.cat([wide, *rest], dim=1), torch.cat([read[name].whole_BD for name in self.spec.beside], dim=-1))
