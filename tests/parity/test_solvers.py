"""Every solver against diffusers' scheduler of that name: fifty steps, each compared, from the same noise and with the same fresh noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch

from sensorium.denoise import Solver, legs_of, walk
from sensorium.paths import Diffusion, Path, Stop, Straight, apart

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers, of numpy
SHAPE = (2, 4, 8, 8)
TRAINED = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def model(x: torch.Tensor, step: float) -> torch.Tensor:
    """Something smooth that depends on the picture and on the step, about as large as noise."""
    turned = x.roll(1, dims=-1) * 0.3 + x * 0.6
    return torch.sin(turned + step / 300) + 0.2 * turned


def ours(path: Path, solver: Solver, predict: str, noise: torch.Tensor, told: Callable[[Stop], float]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    fresh = lambda: torch.randn(SHAPE, generator=generator)  # noqa: E731
    look = lambda x, stop: apart(model(x, told(stop)), x, stop, predict)  # noqa: E731
    return [x for _, x in walk(look, path, solver, noise * path.start(legs_of(path, solver)[0][0]), fresh, predict=predict)]


def theirs(scheduler: Any, noise: torch.Tensor, sign: float = 1.0) -> list[torch.Tensor]:
    """Each step, brought to signal^2 + level^2 = 1 where the scheduler keeps pictures larger."""
    generator = torch.Generator().manual_seed(9)
    scheduler.set_timesteps(50)
    x, out = noise * scheduler.init_noise_sigma if hasattr(scheduler, "init_noise_sigma") else noise, []
    extra = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
    large = "Euler" in type(scheduler).__name__ and "Flow" not in type(scheduler).__name__
    for index, step in enumerate(scheduler.timesteps):
        given = scheduler.scale_model_input(x, step) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(sign * model(given, float(step)), step, x, **extra).prev_sample
        out.append(x / (scheduler.sigmas[index + 1] ** 2 + 1) ** 0.5 if large else x)
    return out


DIFFUSIONS = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}), "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}),
    "euler": (diffusers.EulerDiscreteScheduler, {"timestep_spacing": "leading"}),
    "ancestral": (diffusers.EulerAncestralDiscreteScheduler, {"timestep_spacing": "leading"}),
    "dpm++": (diffusers.DPMSolverMultistepScheduler, {"timestep_spacing": "leading"})}


@pytest.mark.parametrize("kind", DIFFUSIONS)
@pytest.mark.parametrize(("mine", "other"), [("noise", "epsilon"), ("turn", "v_prediction")])
def test_a_diffusion_is_walked_step_for_step(kind: str, mine: str, other: str) -> None:
    make, options = DIFFUSIONS[kind]
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    wanted = theirs(make(**TRAINED, **options, prediction_type=other, steps_offset=1), noise)
    path = Diffusion(first=0.00085, last=0.012, curve="scaled", offset=1)
    found = ours(path, Solver(kind, steps=50), mine, noise, lambda stop: stop.time * 1000)
    for step, (a, b) in enumerate(zip(found, wanted, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()), msg=lambda m, step=step: f"step {step}: {m}")


@pytest.mark.parametrize(("curve", "schedule"), [("linear", "linear"), ("scaled", "scaled_linear"), ("cosine", "squaredcos_cap_v2")])
def test_curves_and_trailing_steps(curve: str, schedule: str) -> None:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    scheduler = diffusers.DDIMScheduler(**(TRAINED | {"beta_schedule": schedule}), clip_sample=False, timestep_spacing="trailing",
                                        set_alpha_to_one=False, prediction_type="sample")
    path = Diffusion(first=0.00085, last=0.012, curve=curve, spacing="trailing", ends="first")
    found = ours(path, Solver("ddim", steps=50), "sample", noise, lambda stop: stop.time * 1000)
    for a, b in zip(found, theirs(scheduler, noise), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def test_trailing_euler_starts_from_its_own_level() -> None:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    scheduler = diffusers.EulerAncestralDiscreteScheduler(**TRAINED, timestep_spacing="trailing")
    path = Diffusion(first=0.00085, last=0.012, curve="scaled", spacing="trailing", own=True)
    scheduler.set_timesteps(1)
    x = noise * scheduler.init_noise_sigma
    wanted = scheduler.step(model(scheduler.scale_model_input(x, scheduler.timesteps[0]), 999.0), scheduler.timesteps[0], x).prev_sample
    (found,) = ours(path, Solver("ancestral", steps=1), "noise", noise, lambda stop: stop.time * 1000)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("kind", ["euler", "heun"])
def test_a_straight_path_is_walked_step_for_step(kind: str, shift: float) -> None:
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    make = diffusers.FlowMatchEulerDiscreteScheduler if kind == "euler" else diffusers.FlowMatchHeunDiscreteScheduler
    scheduler = make(shift=shift)
    wanted = theirs(scheduler, noise, sign=-1.0)  # there the velocity points to the noise
    wanted = wanted if kind == "euler" else [*wanted[1::2], wanted[-1]]  # two looks a step, one at the end
    least = shift * 1e-3 / (1 + (shift - 1) * 1e-3)  # their last stop is shifted twice
    path = Straight(shift=shift, least=least, told="noise")
    found = ours(path, Solver(kind, steps=50), "velocity", noise, lambda stop: stop.time * 1000)
    for step, (a, b) in enumerate(zip(found, wanted, strict=True)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()), msg=lambda m, step=step: f"step {step}: {m}")
