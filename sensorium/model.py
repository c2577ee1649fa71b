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

from sensorium.fuse import CrossMemory, Prompted, Watch
from sensorium.heads_flow import FrameFlow
from sensorium.joints import name_problems, width_problems
from sensorium.layers.adapters import Lora, add_adapter
from sensorium.layers.cache import Cache
from sensorium.layers.packed import PackedEmbedding, Packing, replace_layers
from sensorium.losses import loss_names, losses
from sensorium.spec import Spec
from sensorium.types import MODALITIES, Batch, Features, Layout, ModalityError, Patches, Written

__all__ = ["Model", "ModelNet"]


@dataclass(frozen=True, repr=False)
class Model(Spec):
    """A sentence of parts, as data.

    Args:
        encoders: modality -> encoder; or of classes, by any other name ("label" conditions what is written).
        align: modality -> how its features reach the decoder, or the shared space.
        fuse: name -> how they enter the decoder: any of "splice", "cross", "condition", "prompt".
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
        """The name of each objective's loss."""
        return loss_names(self.objectives)

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
            if modality not in MODALITIES:  # what an autoencoder learns from
                continue
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

    def prompts(self, batch: Batch) -> Prompted | None:
        """What the batch's prompts say (its media "text" and the like), and the empty one last; None where the decoder reads for itself."""
        if "prompt" not in self.fuse:
            return None
        said = self.fuse["prompt"](self.encoders, batch.media)
        return replace(said, x_RSD=self.align["text"](Features(said.x_RSD))) if "text" in self.align else said

    def write_codes(self, modality: str, code_LP: torch.Tensor, written: Written, cache: Cache, state_BTD: torch.Tensor | None = None,
                    done: int = 0, keep: bool = False) -> torch.Tensor:
        """Scores of picture codes, (L, P, V): of the first from the state of the token before the picture, of each other from the codes before it.

        Args:
            code_LP: int64 codes, row by row.
            cache: of :meth:`read`, one row for each item (``Cache.rows``).
            state_BTD: what was read; None: scores are of what follows each of ``code_LP`` alone.
            done: codes that the cache remembers already.
            keep: remember these too.
        """
        name, given = f"{modality}_codes", code_LP if state_BTD is None else code_LP[:, :-1]
        features = self.encoders[name](given)
        x_LPD = self.align[name](features) if name in self.align else features.x_BPD
        position = written.position_L[:, None] + done + torch.arange(given.shape[1], device=given.device)
        place = done + torch.arange(given.shape[1], device=given.device)
        axes = torch.stack([place // self.spec.heads[modality].side, place % self.spec.heads[modality].side], dim=-1).expand(len(given), -1, -1)
        layout = Layout(written.segment_L[:, None].expand_as(position), position, torch.zeros_like(position),
                        axes + 1 if len(self.spec.decoder.read.rope_axes) == 2 else None)
        states = self.decoder(x_LPD, layout, cache=cache, keep=keep)
        if state_BTD is not None:
            states = torch.cat([state_BTD.flatten(0, 1)[written.state_L][:, None], states], dim=1)
        return self.heads[modality](states)

    def imagine(self, noise_LZ: torch.Tensor) -> torch.Tensor:
        """Pictures from noise in one look, (L, Z) -> (L, C, H, W), for a decoder that grows them (``gan.Grow``)."""
        return self.heads["image"](self.decoder(noise_LZ))

    def condition(self, written: Written, t_L: torch.Tensor, state_LD: torch.Tensor | None, known_L: torch.Tensor,
                  whole_LW: torch.Tensor | None = None) -> torch.Tensor:
        """The vector that modulates the writing layers: the time and what is known."""
        label = None
        if "label" in self.encoders:
            label = self.encoders["label"](torch.where(known_L, written.label_L, -1)).x_BPD
        return self.fuse["condition"](t_L, state_LD, known_L, label, whole_LW)

    def write(
        self, modality: str, x_LCHW: torch.Tensor, t_L: torch.Tensor, written: Written, known_L: torch.Tensor,
        cache: Cache | None = None, state_LD: torch.Tensor | None = None, prompt: Prompted | None = None, frames: int = 0,
    ) -> torch.Tensor:
        """One look at noisy media: (L, C, H, W) in, the head's prediction out.

        Args:
            t_L: times, 0 noise to 1 clean.
            written: where each item belongs; its clean values are not looked at.
            known_L: bool; items that are False do without their context and condition.
            cache: of :meth:`read`, one row for each item (``Cache.rows``), or None when nothing was read.
            state_LD: joint embedding that conditions each item.
            prompt: of :meth:`prompts`.
            frames: items that are the frames of one video, and move together; 0: each is by itself.
        """
        head = self.heads[modality]
        if isinstance(head.spec, FrameFlow):
            index = torch.arange(len(x_LCHW), device=x_LCHW.device).repeat_interleave(head.spec.frames)
            pictures = self.write(head.spec.of, head.frames(x_LCHW), t_L[index], written.rows(index), known_L[index],
                                  cache and cache.rows(index), None if state_LD is None else state_LD[index], frames=head.spec.frames)
            return head(pictures)
        seen = None if prompt is None else prompt.rows(torch.where(known_L, written.row_L, len(prompt.x_RSD) - 1))
        condition = self.condition(written, t_L, state_LD, known_L, seen and seen.whole_RW)
        tokens = head.patches(x_LCHW.to(self.dtype))
        if seen is not None and "cross" in self.fuse:
            layout, memory = _grid_layout(head.grid(x_LCHW), len(tokens), tokens.device), self.remember(seen.x_RSD)
            states = self.decoder(tokens, layout, condition_BD=condition, writing=True, enter=self.fuse["cross"], memory=memory)
            return head(states, x_LCHW, condition)
        if seen is not None:
            return head(self.decoder(tokens, condition_BD=condition, writing=True, source_LSD=seen.x_RSD), x_LCHW, condition)
        enter = self.fuse["motion"] if frames else None
        if cache is None:
            return head(self.decoder(tokens, condition_BD=condition, writing=True, enter=enter, memory=frames), x_LCHW, condition)
        layout = _writing_layout(written, known_L, head.spec.side)
        states = self.decoder(tokens, layout, cache=cache, keep=False, writing=True, condition_BD=condition, enter=enter, memory=frames)
        return head(states, x_LCHW, condition)

    def losses(self, batch: Batch, generator: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Each objective's loss, unweighted, by name; :meth:`total` sums them.

        Args:
            generator: of noise and dropped conditions, on the CPU.
        """
        return losses(self, batch, generator)

    def total(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum."""
        weights = {name: objective.weight for name, objective in zip(self.spec.loss_names, self.spec.objectives, strict=True)}
        return sum(weights[name] * value for name, value in losses.items())


def _writing_layout(written: Written, known_L: torch.Tensor, side: int) -> Layout:
    """Patches of a written medium: one span after all that was read; -2 is a segment that nothing read belongs to."""
    places = side * side
    segment = torch.where(known_L, written.segment_L, -2)[:, None].expand(-1, places)
    position = written.position_L[:, None].expand(-1, places)
    grid = torch.arange(places, device=position.device)
    axes = torch.stack([torch.zeros_like(grid), grid // side, grid % side], dim=-1)
    return Layout(segment, position, torch.ones_like(position), position[..., None] + axes)


def _grid_layout(grid: tuple[int, int, int], count: int, device: torch.device) -> Layout:
    """Patches of ``count`` media by time, row and column; each medium is one span."""
    axes = torch.cartesian_prod(*(torch.arange(side, device=device) for side in grid)).expand(count, -1, -1)
    zero = torch.zeros_like(axes[..., 0])
    return Layout(zero, zero, zero, axes)
