"""Training: resuming is exact to the bit, whatever kills the run; schedules, groups, alarms and the use of modalities."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import sensorium as sn
from sensorium.checkpoint import read_tensors
from sensorium.optim import Muon, orthogonal
from sensorium.sentinels import Sentinels, modality_use
from sensorium.train import fit, schedule

from .toys import toy_batch, toy_nano, toy_run

QUIET = Console(file=io.StringIO())
CHILD = "from tests.toys import toy_run; from sensorium.train import fit; import sys, torch; torch.set_num_threads(1); " \
        "fit(toy_run(steps=int(sys.argv[2]), save_every=int(sys.argv[3])), sys.argv[1]); print('finished')"


def newest(folder: Path) -> Path:
    return sorted(folder.glob("step-*"))[-1]


def same_state(one: Path, other: Path) -> list[str]:
    """Names of the tensors and facts that differ between two checkpoints."""
    different = []
    for name in ("weights", "average", "optimizer"):
        first, second = read_tensors(one / f"{name}.safetensors"), read_tensors(other / f"{name}.safetensors")
        different += sorted(set(first) ^ set(second))
        different += [f"{name}/{key}" for key in first if key in second and not torch.equal(first[key], second[key])]
    first, second = (json.loads((path / "state.json").read_text()) for path in (one, other))
    return different + [key for key in ("step", "seed", "random") if first[key] != second[key]]


def killed_run(folder: Path, steps: int, save_every: int, kills: int, seed: int) -> int:
    """Run in child processes that are killed at random moments until ``kills`` have hit; then let it finish. Returns the kills."""
    rng, hits = random.Random(seed), 0
    command = [sys.executable, "-c", CHILD, str(folder), str(steps), str(save_every)]
    root = Path(__file__).parent.parent
    while True:
        child = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if hits < kills:
            wait_for_activity(folder, child)
            time.sleep(rng.random() * 0.4)
        if hits < kills and child.poll() is None:
            os.kill(child.pid, signal.SIGKILL)
            child.communicate()
            hits += 1
            continue
        output = child.communicate()[0]
        if b"finished" in output:
            return hits
        assert child.returncode == 0, output


def wait_for_activity(folder: Path, child: subprocess.Popen) -> None:
    """Until this child has begun to train, so that kills do not only hit the import."""
    before = (folder / "log.jsonl").stat().st_size if (folder / "log.jsonl").exists() else -1
    marks = {path.name for path in folder.glob("*step-*")}
    while child.poll() is None:
        now = (folder / "log.jsonl").stat().st_size if (folder / "log.jsonl").exists() else -1
        if now != before or {path.name for path in folder.glob("*step-*")} != marks:
            return
        time.sleep(0.002)


def test_a_killed_run_ends_as_one_that_was_never_killed(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    fit(toy_run(steps=12, save_every=2), tmp_path / "whole", console=QUIET)
    hits = killed_run(tmp_path / "killed", 12, 2, kills=2, seed=1)
    assert hits >= 1
    assert same_state(newest(tmp_path / "whole"), newest(tmp_path / "killed")) == []


@pytest.mark.slow
def test_fifty_kills_change_nothing(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    fit(toy_run(steps=400, save_every=1), tmp_path / "whole", console=QUIET)
    assert killed_run(tmp_path / "killed", 400, 1, kills=50, seed=2) >= 50
    assert same_state(newest(tmp_path / "whole"), newest(tmp_path / "killed")) == []


def test_stopping_and_going_on_is_exact_and_a_torn_checkpoint_is_ignored(tmp_path: Path) -> None:
    fit(toy_run(), tmp_path / "whole", console=QUIET)
    fit(toy_run(), tmp_path / "parts", steps=5, console=QUIET)
    torn = tmp_path / "parts" / ".step-00000099.part"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    fit(toy_run(), tmp_path / "parts", console=QUIET)
    assert same_state(newest(tmp_path / "whole"), newest(tmp_path / "parts")) == []
    assert not torn.exists()
    assert sn.load(tmp_path / "parts" / "final").spec == toy_nano()


def test_another_recipe_does_not_take_over_a_folder(tmp_path: Path) -> None:
    fit(toy_run(steps=3), tmp_path, console=QUIET)
    other = replace(toy_run(steps=3), model=toy_nano(vocab=301))
    with pytest.raises(sn.CheckpointError, match="different model"):
        fit(other, tmp_path, console=QUIET)


def test_schedule_rises_holds_and_falls() -> None:
    shares = [schedule(step, 100, 0.1, 0.2) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == 1.0 and shares[79] == 1.0
    assert shares[90] == pytest.approx(0.5) and shares[99] == pytest.approx(0.05)


def test_the_loss_falls_and_frozen_parts_stay(tmp_path: Path) -> None:
    groups = (sn.Group(paths=("encoders.image",), rate=0.0), sn.Group(rate=3e-3, kind="muon"))
    run = toy_run(steps=40, groups=groups, ema=0.0)
    before = run.model.build(seed=run.seed).state_dict()
    model = fit(run, tmp_path, console=QUIET)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoders.image"))
    assert not torch.equal(before["decoder.read.blocks.0.mlp.up.weight"], after["decoder.read.blocks.0.mlp.up.weight"])
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["next_token"] < rows[0]["next_token"]


def test_every_parameter_needs_a_group(tmp_path: Path) -> None:
    with pytest.raises(sn.ConfigError, match="no group trains"):
        fit(toy_run(groups=(sn.Group(paths=("decoder",)),)), tmp_path, console=QUIET)


def test_orthogonal_brings_singular_values_near_one() -> None:
    matrix = torch.randn(3, 20, 50, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.5 and values.max() < 1.4
    assert torch.allclose(orthogonal(matrix.transpose(1, 2)), orthogonal(matrix).transpose(1, 2), atol=1e-5)


def test_muon_in_one_batch_equals_muon_one_by_one() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(8, 5, generator=generator) for _ in range(3)]
    slopes = [torch.randn(8, 5, generator=generator) for _ in range(3)]
    together = [torch.nn.Parameter(x.clone()) for x in start]
    apart = [torch.nn.Parameter(x.clone()) for x in start]
    for group in (together, apart):
        for parameter, slope in zip(group, slopes, strict=True):
            parameter.grad = slope.clone()
    Muon(together, lr=0.1).step()
    for parameter in apart:
        Muon([parameter], lr=0.1).step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, apart, strict=True))


class _Deaf(sn.ModelNet):
    """A model whose pixels are dropped on purpose."""

    def aligned(self, modality: str, value: torch.Tensor) -> torch.Tensor:
        return super().aligned(modality, torch.zeros_like(value) if modality == "image" else value)


def test_the_alarm_for_an_ignored_modality(tmp_path: Path) -> None:
    model = fit(toy_run(steps=60, groups=(sn.Group(rate=3e-3, kind="muon"),), ema=0.0), tmp_path, console=QUIET).eval()
    batches = (toy_batch(1000), toy_batch(1001))
    healthy = modality_use(model, batches)
    assert healthy.ignored() == []
    assert healthy.rises["image/shuffle"]["contrastive"] > 0
    marked = replace(batches[0], pairs={**batches[0].pairs, "concept": torch.zeros(4, 1, dtype=torch.int64)})
    assert modality_use(model, [marked]).rises.keys() == healthy.rises.keys(), "classes are no modality"
    deaf = _Deaf(model.spec)
    deaf.load_state_dict(model.state_dict())
    use = modality_use(deaf.eval(), batches)
    assert use.ignored() == ["image"]
    text = io.StringIO()
    sentinels = Sentinels(toy_run(), Console(file=text))
    sentinels.judge(use)
    assert "ignores it" in text.getvalue() and "without image" in text.getvalue()


def test_alarms_for_broken_and_flat_losses() -> None:
    text = io.StringIO()
    sentinels = Sentinels(toy_run(), Console(file=text, width=200))
    sentinels.watch(0, {"next_token": float("nan")}, 1.0)
    sentinels.watch(1, {"flow": 0.0}, 1.0)
    flat = Sentinels(toy_run(), Console(file=text, width=200))
    level = {"contrastive": float(torch.log(torch.tensor(4.0))), "next_token": float(torch.log(torch.tensor(300.0)))}
    for step in range(100):
        flat.watch(step, level, 1.0)
    flat.check_end(toy_batch(0), end=3)
    assert set(sentinels.raised) == {"broken/next_token", "zero/flow"}
    assert set(flat.raised) == {"flat/contrastive", "flat/next_token"}
    flat.check_end(toy_batch(0), end=299)
    assert "end" in flat.raised and "never stop" in text.getvalue()


def test_mixed_precision_keeps_the_losses() -> None:
    """In bfloat16 matrices the losses stay those of float32 within its rounding; the contrastive one must not be rounded at all."""
    model, batch = toy_nano().build(seed=2), toy_batch(3, count=16)
    with torch.no_grad():
        plain = model.losses(batch, torch.Generator().manual_seed(0))
        with torch.autocast("cpu", torch.bfloat16):
            mixed = model.losses(batch, torch.Generator().manual_seed(0))
    for name, value in plain.items():
        assert mixed[name].dtype == torch.float32
        assert float(mixed[name]) == pytest.approx(float(value), rel=0.02), name
