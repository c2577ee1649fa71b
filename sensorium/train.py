"""Training: one loop for every model. Batches are a function of the step, so a run that was killed goes on as if it never was.

    batch(step) -> losses -> gradients, clipped -> optimizers -> average of the weights -> now and then: validate, save

A run is plain Python: a recipe returns a :class:`Run`, ``fit`` does the rest.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from sensorium.adapt import save_adapter
from sensorium.checkpoint import read_tensors, save, write_tensors
from sensorium.files import write_file
from sensorium.layers.packed import PackedMatrix
from sensorium.model import Model, ModelNet
from sensorium.optim import Muon, native_bfloat16
from sensorium.sentinels import Sentinels, modality_use
from sensorium.types import Batch, CheckpointError, ConfigError

__all__ = ["fit", "Group", "Run", "schedule"]


@dataclass(frozen=True)
class Group:
    """Parameters trained alike: those whose path fits one of ``paths`` (the first group that matches has them).

    Args:
        paths: beginnings of parameter paths; "" matches everything. With a ``*`` it is a pattern of the whole path: "*.adapters.*".
        rate: peak learning rate; 0 freezes.
        kind: "adamw", or "muon" for the matrices (embeddings, heads, vectors and convolutions stay with AdamW at ``rate_rest``).
        rate_rest: AdamW's rate for what Muon does not take.
        decay: weight decay of matrices.
        betas: of AdamW.
    """

    paths: tuple[str, ...] = ("",)
    rate: float = 1e-3
    kind: str = "adamw"
    rate_rest: float = 1e-3
    decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)

    def fits(self, name: str) -> bool:
        """Whether a parameter belongs here."""
        return any(fnmatchcase(name, path) if "*" in path else name.startswith(path) for path in self.paths)


@dataclass(frozen=True)
class Run:
    """All there is to a training run.

    Args:
        name: of the run and its folder.
        model: the spec, or weights to start from.
        batch: step -> batch; the same step gives the same batch.
        steps: how many.
        groups: parameter groups.
        warmup, cooldown: shares of the steps in which the rate rises from 0 and falls to 0 (linearly).
        clip: largest gradient norm.
        mixed: multiply matrices in bfloat16 where the processor has units for it; weights and sums stay float32.
        ema: decay of the averaged weights; 0 keeps none.
        seed: of weights, noise and order.
        validation: batches whose loss is watched.
        validate_every, save_every: steps.
        evaluate: averaged model -> figures, called at each validation.
        end: id of the token that ends a target text, looked for among the labels before step 0.
        files: more files saved beside the weights (tokenizer, codecs).
        start: changes the fresh model before step 0 (loads earlier weights).
        base: makes the fresh model, of spec ``model``, with the weights that are not trained; the same whenever it is asked. Checkpoints and
            the final folder then hold only what is trained (adapters: as ``adapt.save_adapter`` writes them). None is ``model.build``.
    """

    name: str
    model: Model
    batch: Callable[[int], Batch]
    steps: int
    groups: tuple[Group, ...] = (Group(),)
    warmup: float = 0.02
    cooldown: float = 0.4
    clip: float = 1.0
    mixed: bool = False
    ema: float = 0.999
    seed: int = 0
    validation: tuple[Batch, ...] = ()
    validate_every: int = 500
    save_every: int = 200
    evaluate: Callable[[ModelNet], dict[str, float]] | None = None
    end: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    start: Callable[[ModelNet], None] | None = None
    base: Callable[[], ModelNet] | None = None


def schedule(step: int, steps: int, warmup: float, cooldown: float) -> float:
    """Share of the peak rate at a step: up, level, down to 0."""
    rise, fall = max(round(steps * warmup), 1), max(round(steps * cooldown), 1)
    return max(min((step + 1) / rise, (steps - step) / fall, 1.0), 0.0)


class _State:
    """Everything that changes while training: weights, their average, optimizers, the step."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.step = 0
        torch.manual_seed(run.seed)  # recipes that draw from the global generator repeat too; it is saved with the rest
        self.model = (run.base() if run.base is not None else run.model.build(seed=run.seed)).train()
        if self.model.spec != run.model:
            raise ConfigError(f"Run.base makes {self.model.spec!r:.200}, and Run.model says {run.model!r:.200}; make them equal")
        if run.start is not None:
            run.start(self.model)
        self.mixed = run.mixed and native_bfloat16(self.model.device)
        self.optimizers = _optimizers(self.model, run.groups)
        self.trained = {n: p for n, p in self.model.named_parameters() if p.requires_grad or run.base is None}
        self.average = {name: p.detach().clone() for name, p in self.trained.items()} if run.ema else {}
        self.history: list[dict[str, Any]] = []

    def averaged(self) -> ModelNet:
        """A copy of the model with the averaged weights; what is not averaged is shared with it."""
        shared: dict[int, Any] = {id(p): p for p in self.model.parameters()} | {id(b): b for b in self.model.buffers()}
        trained = {id(self.trained[name]): nn.Parameter(value.clone()) for name, value in self.average.items()}
        return copy.deepcopy(self.model, shared | trained).eval()

    def kept(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of the model, by name: all of it, or without what ``Run.base`` makes again."""
        state, fixed = self.model.state_dict(), {n for n, p in self.model.named_parameters() if n not in self.trained}
        if self.run.base is not None:
            fixed |= {f"{path}.{part}" for path, m in self.model.named_modules() if isinstance(m, PackedMatrix) for part in m.PARTS}
        return {name: value for name, value in state.items() if name not in fixed}

    def frozen(self) -> str:
        """A short sum of the weights that checkpoints do not hold, to tell another base from this one."""
        kept, sum_ = self.kept(), hashlib.sha256()
        for name, value in self.model.state_dict().items():
            if name not in kept:
                some = value.flatten()[:: max(value.numel() // 256, 1)].cpu().contiguous()
                sum_.update(f"{name} {tuple(value.shape)}".encode() + some.view(torch.uint8).numpy().tobytes())
        return sum_.hexdigest()

    def save(self, folder: Path) -> None:
        """Write a checkpoint folder in one step: it appears whole or not at all; then forget all but the last two."""
        name = f"step-{self.step:08d}"
        temporary, final = folder / f".{name}.part", folder / name
        shutil.rmtree(temporary, ignore_errors=True)
        save(self.model, temporary, self.run.files, only=self.kept())
        if self.average:
            write_tensors(temporary / "average.safetensors", self.average)
        write_tensors(temporary / "optimizer.safetensors", self._optimizer_tensors())
        state = {"step": self.step, "seed": self.run.seed, "history": self.history, "random": torch.get_rng_state().tolist(), "base": self.frozen()}
        write_file(temporary / "state.json", json.dumps(state).encode())
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        for old in sorted(folder.glob("step-*"))[:-2]:
            shutil.rmtree(old)

    def finish(self, model: ModelNet, folder: Path) -> None:
        """Write what the run is for: a model to load, or adapters."""
        if self.run.base is None:
            save(model, folder, self.run.files, dtype=torch.bfloat16)
        elif not all(".adapters." in name for name in self.trained):
            save(model, folder, self.run.files, only=self.kept())
        else:
            for name in (names := [n for n in model.spec.adapters if any(f".adapters.{n}." in path for path in self.trained)]):
                save_adapter(model, folder / name if len(names) > 1 else folder, name)

    def resume(self, folder: Path) -> bool:
        """Go on from the newest checkpoint; False when there is none."""
        for torn in folder.glob(".step-*.part"):
            shutil.rmtree(torn, ignore_errors=True)
        found = sorted(folder.glob("step-*"))
        if not found:
            return False
        newest = found[-1]
        saved = json.loads((newest / "model.json").read_text(encoding="utf-8"))
        if saved != self.run.model.to_dict():
            raise CheckpointError(f"{newest} holds a different model than the recipe; use another folder, or --fresh to start over")
        state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        if state.get("base", self.frozen()) != self.frozen():
            raise CheckpointError(f"{newest} was trained over other weights than Run.base makes; give it those, or --fresh to start over")
        tensors = read_tensors(newest / "weights.safetensors")
        if set(tensors) != set(self.kept()):
            raise CheckpointError(f"{newest} holds {len(tensors)} tensors, and the run trains {len(self.kept())}; --fresh starts over")
        self.model.load_state_dict(tensors, strict=False)
        if self.average:
            self.average = read_tensors(newest / "average.safetensors")
        self._load_optimizers(read_tensors(newest / "optimizer.safetensors"))
        self.step, self.history = state["step"], state["history"]
        torch.set_rng_state(torch.tensor(state["random"], dtype=torch.uint8))
        return True

    def _named(self) -> dict[int, str]:
        return {id(p): name for name, p in self.model.named_parameters()}

    def _optimizer_tensors(self) -> dict[str, torch.Tensor]:
        names, out = self._named(), {}
        for number, optimizer in enumerate(self.optimizers):
            for parameter, values in optimizer.state.items():
                for key, value in values.items():
                    out[f"{number}/{names[id(parameter)]}/{key}"] = torch.as_tensor(value)
        return out

    def _load_optimizers(self, tensors: dict[str, torch.Tensor]) -> None:
        parameters = dict(self.model.named_parameters())
        for key, value in tensors.items():
            number, name, slot = key.split("/")
            self.optimizers[int(number)].state[parameters[name]][slot] = value


def _optimizers(model: ModelNet, groups: tuple[Group, ...]) -> list[torch.optim.Optimizer]:
    """AdamW for everything, Muon for matrices of groups that ask for it. Each group keeps its peak rate as "peak"."""
    adam: list[dict[str, Any]] = []
    muon: list[dict[str, Any]] = []
    taken: set[str] = set()
    for group in groups:
        mine = {n: p for n, p in model.named_parameters() if n not in taken and group.fits(n) and p.requires_grad}
        taken |= set(mine)
        if group.rate == 0:
            for parameter in mine.values():
                parameter.requires_grad_(False)
            continue
        inner = [p for n, p in mine.items() if group.kind == "muon" and p.dim() == 2 and not n.startswith(("encoders.text", "heads.text"))]
        chosen = {id(p) for p in inner}
        rest = [p for p in mine.values() if id(p) not in chosen]
        rate = group.rate_rest if group.kind == "muon" else group.rate
        if inner:
            muon.append({"params": inner, "lr": group.rate, "peak": group.rate, "weight_decay": group.decay})
        for decay, wide in ((group.decay, True), (0.0, False)):
            some = [p for p in rest if (p.dim() > 1) == wide]
            if some:
                adam.append({"params": some, "lr": rate, "peak": rate, "weight_decay": decay, "betas": group.betas})
    left = [n for n, p in model.named_parameters() if n not in taken and p.requires_grad]
    if left:
        raise ConfigError(f"no group trains {left[:3]}{'...' if len(left) > 3 else ''}; add Group(paths=('',))")
    out: list[torch.optim.Optimizer] = []
    if adam:
        out.append(torch.optim.AdamW(adam, eps=1e-8))
    if muon:
        out.append(Muon(muon))
    return out


def fit(run: Run, folder: str | Path, steps: int | None = None, console: Console | None = None, fresh: bool = False,
        watch: Callable[[int, dict[str, float]], None] | None = None) -> ModelNet:
    """Train, or go on training, and return the averaged model.

    Args:
        run: what to do.
        folder: checkpoints, log and the final model go here; an interrupted run in it is continued.
        steps: stop after this many more steps (the run can be continued).
        fresh: throw an earlier run in the folder away.
        watch: told the step and its losses after each; the console then shows alarms and validations alone.

    Raises:
        CheckpointError: the folder holds a run of another model.
    """
    folder, console = Path(folder), console or Console(stderr=True)
    if fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    state = _State(run)
    if state.resume(folder):
        console.print(f"going on from step {state.step} in {folder}")
    last = run.steps if steps is None else min(run.steps, state.step + steps)
    sentinels = Sentinels(run, console)
    if run.end is not None:
        sentinels.check_end(run.batch(state.step), run.end)
    clock, seen, since = time.monotonic(), 0, state.step
    while state.step < last:
        batch = run.batch(state.step)
        losses, norm = _step(state, batch)
        seen += batch.samples
        sentinels.watch(state.step, losses, norm)
        state.step += 1
        if state.step % 20 == 0 or state.step == last:
            spent = time.monotonic() - clock
            left = (run.steps - state.step) * spent / max(state.step - since, 1)
            _log(folder, None if watch else console, state, losses, norm, seen / spent, left)
        if watch is not None:
            watch(state.step, losses)
        if run.validate_every and (state.step % run.validate_every == 0 or state.step == last):
            _validate(state, folder, console, sentinels)
        if state.step % run.save_every == 0 or state.step == last:
            state.save(folder)
    model = state.averaged() if state.average else state.model.eval()
    if state.step >= run.steps:
        state.finish(model, folder / "final")
    return model


def _step(state: _State, batch: Batch) -> tuple[dict[str, float], float]:
    """One update; returns the losses and the gradient's norm before clipping."""
    run = state.run
    share = schedule(state.step, run.steps, run.warmup, run.cooldown)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        optimizer.zero_grad(set_to_none=True)
    with torch.autocast(state.model.device.type, torch.bfloat16, enabled=state.mixed):
        losses = state.model.losses(batch, torch.Generator().manual_seed(run.seed * 1_000_003 + state.step))
        total = state.model.total(losses)
    total.backward()
    norm = float(torch.nn.utils.clip_grad_norm_(state.model.parameters(), run.clip))
    for optimizer in state.optimizers:
        optimizer.step()
    if state.average:
        decay = min(run.ema, (state.step + 1) / (state.step + 10))
        torch._foreach_lerp_(list(state.average.values()), [state.trained[n].detach() for n in state.average], 1 - decay)
    return {name: float(value.detach()) for name, value in losses.items()}, norm


def _log(folder: Path, console: Console | None, state: _State, losses: dict[str, float], norm: float, rate: float, left: float) -> None:
    row = {"step": state.step, **{k: round(v, 5) for k, v in losses.items()}, "norm": round(norm, 4), "samples_per_s": round(rate, 2)}
    with open(folder / "log.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    if console is None:
        return
    shown = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
    clock = f"{int(left // 3600)}:{int(left % 3600 // 60):02d}:{int(left % 60):02d}" if math.isfinite(left) else "?"
    console.print(f"step {state.step}/{state.run.steps}  {shown}  norm {norm:.2f}  {rate:.1f} samples/s  {clock} left", highlight=False)


@torch.no_grad()
def _validate(state: _State, folder: Path, console: Console, sentinels: Sentinels) -> None:
    """Loss on held-out batches, how much each modality matters, and the recipe's own figures."""
    model = state.averaged() if state.average else state.model
    model.eval()
    row: dict[str, Any] = {"step": state.step}
    if state.run.validation:
        use = modality_use(model, state.run.validation, state.run.seed)
        row["validation"], row["modality_use"] = use.losses, use.rises
        console.print(f"[bold]validation[/] at {state.step}: {use}", highlight=False)
        sentinels.judge(use)
    if state.run.evaluate is not None:
        row["figures"] = state.run.evaluate(model)
        console.print("  ".join(f"{k} {v:.4f}" for k, v in row["figures"].items()), highlight=False)
    state.history.append(row)
    write_file(folder / "history.json", json.dumps(state.history, indent=1).encode())
    state.model.train()

