"""Model: one sentence of parts. The only file that joins parts, checks their widths, and decides device and dtype.

Letters: B batch, T length, D width, L media, P patches, V vocabulary, C channels, H W pixels.

    encoders -> align -> fuse -> decoder -> heads -> objectives

    read    text and media through the decoder's reading expert; states come out, keys and values stay in the cache
    write   noisy media through the writing expert, looking back at the cache, conditioned on a state or a class
    tower   one modality straight to the shared space, without a decoder
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sensorium.fuse import CrossMemory, Watch
from sensorium.joints import name_problems, width_problems
from sensorium.layers.adapters import Lora, add_adapter
from sensorium.layers.cache import Cache
from sensorium.layers.experts import rebalance, watch_routing
from sensorium.layers.packed import PackedEmbedding, Packing, replace_layers
from sensorium.objectives import Ahead, Balance, Classify, Contrastive, FlowMatching, NextToken
from sensorium.objectives_spell import Spell
from sensorium.spec import Spec
from sensorium.types import MODALITIES, Batch, Features, Layout, ModalityError, Patches, Written

__all__ = ["Model", "ModelNet"]


@dataclass(frozen=True, repr=False)
class Model(Spec):
    """A sentence of parts, as data.

    Args:
        encoders: modality -> encoder; or of classes, by any other name ("label" conditions what is written).
        align: modality -> how its features reach the decoder, or the shared space.
        fuse: name -> how they enter the decoder: any of "splice", "cross", "condition".
        decoder: the transformer, or None for towers.
        heads: name -> head: "text" (Tokens), "embed" (Unit), "image" (Flow), "class" (Classes).
        objectives: what is minimised.
        packed: which layers are stored in few bits (``layers.packed.Packing``); None keeps all in floats.
        adapters: name -> small changes of linear layers (``layers.adapters.Lora``), over packed ones too.
        through: modality -> the one whose encoder and align it goes through ({"video": "image"}: one tower for stills and moving pictures).
    """

    encoders: dict[str, Spec] = field(default_factory=dict)
    align: dict[str, Spec] = field(default_factory=dict)
    fuse: dict[str, Spec] = field(default_factory=dict)
    decoder: Spec | None = None
    heads: dict[str, Spec] = field(default_factory=dict)
    objectives: tuple[Spec, ...] = ()
    packed: Packing | None = None
    adapters: dict[str, Lora] = field(default_factory=dict)
    through: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "objectives", tuple(self.objectives))
        super().__post_init__()

    def check(self) -> list[str]:
        return width_problems(self) + name_problems(self)

    @property
    def reads(self) -> tuple[str, ...]:
        """Modalities it takes in."""
        return tuple(name for name in MODALITIES if name in self.encoders or name in self.through)

    @property
    def writes(self) -> tuple[str, ...]:
        """Modalities it gives out, "embed" where it has a shared space, and "class" where it tells classes apart."""
        return tuple(name for name in (*MODALITIES, "embed", "class") if name in self.heads)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """The name of each objective's loss; a second contrastive or flow loss says between what, or of what, it is."""
        kinds = {Ahead: "ahead", Balance: "balance", Classify: "classify", Contrastive: "contrastive", NextToken: "next_token", FlowMatching: "flow",
                 Spell: "spell"}
        names: list[str] = []
        for objective in self.objectives:
            name = kinds[type(objective)]
            if name in names and isinstance(objective, Contrastive):
                name += f" {objective.first}-{objective.second}"
            elif name in names and isinstance(objective, FlowMatching):
                name += f" {objective.modality}"
            names.append(name)
        return tuple(names)

    def places(self, modality: str) -> int:
        """Tokens that one medium takes among the decoder's; 0 if it enters by cross-attention."""
        if "splice" not in self.fuse or modality not in self.fuse["splice"].modalities:
            return 0
        modality = self.through.get(modality, modality)
        patches = self.encoders[modality].resolve().patches
        return self.align[modality].resolve().places(patches) if modality in self.align else patches

    def owned(self) -> Model:
        """The same with what borrowed parts are in their place: a model that stands by itself."""
        parts = {name: {k: v.resolve() for k, v in vars(self)[name].items()} for name in ("encoders", "align", "fuse", "heads")}
        return replace(self, **parts, decoder=self.decoder and self.decoder.resolve())

    def build(self, seed: int = 0, device: str = "cpu", dtype: torch.dtype = torch.float32) -> ModelNet:
        """Make the module with weights drawn from ``seed``; on device "meta" it has shapes and no memory."""
        with torch.random.fork_rng(devices=[]), torch.device(device), _Shapes() if device == "meta" else nullcontext():
            torch.manual_seed(seed)
            return ModelNet(self).to(dtype)

    def describe(self) -> str:
        """The sentence, a line for each place."""
        lines = [f"encoders.{k}: {v.describe()}" for k, v in self.encoders.items()]
        lines += [f"align.{k}: {v.describe()}" for k, v in self.align.items()]
        lines += [f"fuse.{k}: {v.describe()}" for k, v in self.fuse.items()]
        lines += [f"decoder: {self.decoder.describe()}"] if self.decoder else []
        lines += [f"heads.{k}: {v.describe()}" for k, v in self.heads.items()]
        lines += [f"{k}: through encoders.{v}" for k, v in self.through.items()]
        lines += [f"objectives: {v.describe()}" for v in self.objectives]
        lines += [f"packed: {self.packed.describe()}"] if self.packed else []
        lines += [f"adapters.{k}: {v.describe()}" for k, v in self.adapters.items()]
        return "\n".join(lines)


class _Shapes(TorchFunctionMode):
    """Draws and scales no weights where there is no memory for them: torch would load its compiler first, which takes a second."""

    _drawing = frozenset(f for f in vars(nn.init).values() if callable(f))

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func in self._drawing:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        if func is torch.Tensor.mul and isinstance(args[1], float) and args[0].is_floating_point():
            return args[0]
        return (torch.empty if func is torch.randn else func)(*args, **kwargs)


class ModelNet(nn.Module):
    """The module of :class:`Model`."""

    def __init__(self, spec: Model) -> None:
        super().__init__()
        self.spec = spec
        self.folder: Path | None = None  # where it was loaded from
        self.encoders = nn.ModuleDict({k: v.build() for k, v in spec.encoders.items()})
        self.align = nn.ModuleDict({k: v.build() for k, v in spec.align.items()})
        self.fuse = nn.ModuleDict({k: v.build() for k, v in spec.fuse.items()})
        self.decoder = spec.decoder.build() if spec.decoder else None
        self.heads = nn.ModuleDict({k: v.build() for k, v in spec.heads.items()})
        self.objectives = nn.ModuleList(v.build() for v in spec.objectives)
        if spec.packed is not None:
            replace_layers(self, spec.packed)
        for name, lora in spec.adapters.items():
            add_adapter(self, name, lora)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' number format."""
        return next(self.parameters()).dtype

    def aligned(self, modality: str, value: torch.Tensor | Patches) -> torch.Tensor:
        """Encode and align: pixels or ids -> (L, P, D); media at their own sizes -> (1, P, D), all in one."""
        modality = self.spec.through.get(modality, modality)
        if modality not in self.encoders:
            raise ModalityError(f"the model was given {modality}, but reads only {', '.join(self.spec.reads)}")
        if isinstance(value, Patches):
            value = replace(value, value_PN=value.value_PN.to(self.dtype))
        elif value.is_floating_point():
            value = value.to(self.dtype)
        features: Features = self.encoders[modality](value)
        return self.align[modality](features) if modality in self.align else features.x_BPD

    def tower(self, modality: str, value: torch.Tensor) -> torch.Tensor:
        """Straight to the shared space: pixels or ids -> unit vectors (L, O)."""
        if "embed" not in self.heads:
            raise ModalityError(f"the model has no shared space (no 'embed' head); it writes {', '.join(self.spec.writes)}")
        return self.heads["embed"](self.aligned(modality, value)[:, 0])

    def classify(self, modality: str, value: torch.Tensor) -> torch.Tensor:
        """Scores of each class, (L, classes), float32, of pixels or ids."""
        if "class" not in self.heads:
            raise ModalityError(f"the model tells no classes apart (no 'class' head); it writes {', '.join(self.spec.writes)}")
        return self.heads["class"](self.aligned(modality, value)[:, 0])

    def read(self, batch: Batch, cache: Cache | None = None, watch: Watch | None = None) -> torch.Tensor:
        """States of every token, (B, T, D); remembered in ``cache`` if given.

        Args:
            watch: keeps what cross-attention looked at.
        """
        start = cache.length if cache is not None else 0
        x_BTD = self.encoders["text"](batch.token_BT, batch.layout.position_BT if batch.layout else start).x_BPD
        memory = cache.memory.after(x_BTD.shape[1]) if cache is not None and cache.memory is not None else None
        for modality, value in batch.media.items():
            features_LPD = self.aligned(modality, value)
            if "cross" in self.fuse:
                memory = self.remember(features_LPD, batch.sees_BT)
            else:
                here_BT = batch.media_BT == 1 + MODALITIES.index(modality)
                x_BTD = self.fuse["splice"](x_BTD, here_BT, features_LPD, batch.pick.get(modality))
        if cache is not None:
            cache.memory = memory
        enter = watch or (self.fuse["cross"] if "cross" in self.fuse else None)
        return self.decoder(x_BTD, batch.layout, cache=cache, enter=enter, memory=memory)

    def shown(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch for a ``fused.Reader``: ids (B, T), below 0 where spliced media stand, and the aligned features (N, D) that these mean."""
        token_BT, found = batch.token_BT.clone(), []
        for modality, value in batch.media.items():
            found.append(self.fuse["splice"].chosen(self.aligned(modality, value), batch.pick.get(modality)))
            here_BT, before = batch.media_BT == 1 + MODALITIES.index(modality), sum(map(len, found[:-1]))
            token_BT[here_BT] = -1 - before - torch.arange(len(found[-1]), device=token_BT.device)
        return token_BT, torch.cat(found)

    def remember(self, features_LPD: torch.Tensor, sees_BT: torch.Tensor | None = None) -> CrossMemory:
        """What cross-attention looks at, from aligned features: for ``Cache.memory``, to read several prompts of the same media.

        Args:
            sees_BT: int64 medium that each token sees; None: row i sees medium i.
        """
        if sees_BT is None:
            sees_BT = torch.arange(len(features_LPD), device=features_LPD.device)[:, None]
        return self.fuse["cross"].remember(features_LPD, sees_BT)

    def logits(self, state_ND: torch.Tensor) -> torch.Tensor:
        """Scores over the vocabulary, float32, for states of any leading shape."""
        if not self.spec.heads["text"].tied:
            return self.heads["text"](state_ND, None)
        token = self.encoders["text"].token
        if isinstance(token, PackedEmbedding):
            return self.heads["text"].bent(token.multiply(state_ND))
        return self.heads["text"](state_ND, token.weight)

    def embedding(self, state_BTD: torch.Tensor, index_L: torch.Tensor) -> torch.Tensor:
        """Unit vectors (L, O) of the states at flat places ``index_L``."""
        return self.heads["embed"](state_BTD.flatten(0, 1)[index_L])

    def condition(self, written: Written, t_L: torch.Tensor, state_LD: torch.Tensor | None, known_L: torch.Tensor) -> torch.Tensor:
        """The vector that modulates the writing layers: the time and what is known."""
        label = None
        if "label" in self.encoders:
            label = self.encoders["label"](torch.where(known_L, written.label_L, -1)).x_BPD
        return self.fuse["condition"](t_L, state_LD, known_L, label)

    def write(
        self, modality: str, x_LCHW: torch.Tensor, t_L: torch.Tensor, written: Written, known_L: torch.Tensor,
        cache: Cache | None = None, state_LD: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """One look at noisy media: (L, C, H, W) in, the head's prediction out.

        Args:
            t_L: times, 0 noise to 1 clean.
            written: where each item belongs; its clean values are not looked at.
            known_L: bool; items that are False do without their context and condition.
            cache: of :meth:`read`, one row for each item (``Cache.rows``), or None when nothing was read.
            state_LD: joint embedding that conditions each item.
        """
        head = self.heads[modality]
        condition = self.condition(written, t_L, state_LD, known_L)
        tokens = head.patches(x_LCHW.to(self.dtype))
        if cache is None:
            return head(self.decoder(tokens, condition_BD=condition, writing=True), x_LCHW, condition)
        layout = _writing_layout(written, known_L, head.spec.side)
        states = self.decoder(tokens, layout, cache=cache, keep=False, writing=True, condition_BD=condition)
        return head(states, x_LCHW, condition)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Each objective's loss, unweighted, by name; :meth:`total` sums them.

        Args:
            generator: of noise and dropped conditions, on the CPU.
        """
        cache = Cache() if batch.written and batch.token_BT is not None else None
        with watch_routing(self) as routed:
            state = self.read(batch, cache) if batch.token_BT is not None else None
        out: dict[str, torch.Tensor] = {}
        for name, objective in zip(self.spec.loss_names, self.objectives, strict=True):
            spec = objective.spec
            if isinstance(spec, Contrastive) and spec.first in batch.pairs and spec.second in batch.pairs:
                first, second = (self._pair(part, batch, state) for part in (spec.first, spec.second))
                with torch.autocast(first.device.type, enabled=False):  # in bfloat16 the scores of near pairs are equal, and it collapses
                    out[name] = objective(first, second, batch.group_L)
            elif isinstance(spec, Classify) and batch.class_L is not None:
                out[name] = objective(self.classify(spec.modality, batch.pairs[spec.modality]), batch.class_L)
            elif isinstance(spec, Spell) and spec.modality in batch.spelled:
                out[name] = self._spell_loss(objective, batch)
            elif isinstance(spec, NextToken) and batch.label_BT is not None:
                here = batch.label_BT >= 0
                out[name] = objective(self.logits(state[here]), batch.label_BT[here])
            elif isinstance(spec, Ahead) and batch.label_BT is not None:
                out[name] = self._ahead_loss(objective, batch, state)
            elif isinstance(spec, Balance) and routed:
                out[name] = self._balance_loss(objective, batch, routed)
            elif isinstance(spec, FlowMatching) and spec.modality in batch.written:
                out[name] = self._flow_loss(objective, batch.written[spec.modality], cache, state, generator)
        return out

    def total(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum."""
        weights = {name: objective.weight for name, objective in zip(self.spec.loss_names, self.spec.objectives, strict=True)}
        return sum(weights[name] * value for name, value in losses.items())

    def _pair(self, name: str, batch: Batch, state: torch.Tensor | None) -> torch.Tensor:
        value = batch.pairs[name]
        if value.dim() == 1:
            return self.embedding(state, value)
        return self.tower(name.partition("/")[0], value)

    def _spell_loss(self, objective: Any, batch: Batch) -> torch.Tensor:
        modality = objective.spec.modality
        words = batch.spelled[modality]
        features_LPD = self.aligned(modality, batch.media[modality])
        with torch.autocast(self.device.type, enabled=False):
            return objective(features_LPD, self.encoders["text"].token.weight[words.id_V], words.word_LPK)

    def _ahead_loss(self, objective: Any, batch: Batch, state_BTD: torch.Tensor) -> torch.Tensor:
        """Of the word piece after the next, where the next one is labelled too and of the same sample."""
        segment_BT = batch.layout.segment_BT
        label_BT = torch.full_like(batch.label_BT, -100)
        label_BT[:, :-1] = torch.where(segment_BT[:, 1:] == segment_BT[:, :-1], batch.label_BT[:, 1:], -100)
        states = self.heads["ahead"](state_BTD, self.encoders["text"](batch.token_BT.roll(-1, 1)).x_BPD, batch.layout)
        here = (label_BT >= 0) & (batch.label_BT >= 0)
        return objective(self.logits(states[here]), label_BT[here])

    def _balance_loss(self, objective: Any, batch: Batch, routed: list[Any]) -> torch.Tensor:
        """Over every layer with experts; in training the routers' biases move too."""
        segment_N = batch.layout.segment_BT.flatten() if batch.layout else torch.zeros(batch.token_BT.numel(), dtype=torch.int64)
        kept_N = segment_N >= 0
        sample_N = segment_N[kept_N].unique(return_inverse=True)[1]
        if self.training and objective.spec.speed:
            rebalance(routed, kept_N, objective.spec.speed)
        return sum(objective(one.score_NX[kept_N], one.index_NK[kept_N], sample_N) for _, one in routed)

    def _flow_loss(self, objective: Any, written: Written, cache: Cache | None, state: Any, generator: Any) -> torch.Tensor:
        clean = written.value_LCHW.to(self.dtype)
        noisy = objective.corrupt(clean, generator)
        known = ~objective.dropped(len(clean), generator).to(clean.device)
        joint = None
        if state is not None and "embed" in self.heads:
            known = known & (written.state_L >= 0)
            joint = self.embedding(state, written.state_L.clamp(min=0))
        rows = cache.rows(written.row_L.clamp(min=0)) if cache is not None else None
        prediction = self.write(objective.spec.modality, noisy.x_LCHW, noisy.t_L, written, known, rows, joint)
        head = self.spec.heads[objective.spec.modality]
        return objective(prediction[:, : head.channels], noisy, clean, head.predict).mean()


def _writing_layout(written: Written, known_L: torch.Tensor, side: int) -> Layout:
    """Patches of a written medium: one span after all that was read; -2 is a segment that nothing read belongs to."""
    places = side * side
    segment = torch.where(known_L, written.segment_L, -2)[:, None].expand(-1, places)
    position = written.position_L[:, None].expand(-1, places)
    grid = torch.arange(places, device=position.device)
    axes = torch.stack([torch.zeros_like(grid), grid // side, grid % side], dim=-1)
    return Layout(segment, position, torch.ones_like(position), position[..., None] + axes)
