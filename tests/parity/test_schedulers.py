"""Published schedulers against diffusers: every class is built or refused by name; those built step as theirs do, from their own settings files."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.configuration_utils import FrozenDict

import sensorium as sn
from sensorium.denoise import Solver, legs_of, walk
from sensorium.paths import Path as Way
from sensorium.paths import Stop, apart
from sensorium.zoo.schedulers import DIFFUSIONS, FILE, FLOWS, diffusion_path, flow_path

from .test_solvers import SHAPE, model

pytestmark = [pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NOISE = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
BUILT = {**DIFFUSIONS, **FLOWS}


def taken(name: str) -> set[str]:
    """What a class takes; read from its source, for one of them is only there beside another library."""
    path = Path(inspect.getsourcefile(diffusers.DDIMScheduler)).with_name("scheduling_lms_discrete.py")
    if name != "LMSDiscreteScheduler":
        return set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self"}
    kind = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name)
    start = next(node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return {argument.arg for argument in start.args.args} - {"self"}


def theirs(name: str, config: dict[str, Any], steps: int, sign: float = 1.0, **extra: Any) -> tuple[list[torch.Tensor], list[float]]:
    """Each step, brought to signal^2 + level^2 = 1 where the scheduler keeps pictures larger; and what the model was told."""
    scheduler, generator, told, out = getattr(diffusers, name)(**config), torch.Generator().manual_seed(9), [], []
    pipeline = {key: value for key, value in (("steps_offset", 1), ("clip_sample", False)) if key in scheduler.config}  # as the pipeline sets them
    scheduler._internal_dict = FrozenDict({**scheduler.config, **pipeline})
    scheduler.set_timesteps(steps, **extra)
    flow, large = "Flow" in name, name.startswith(("Euler", "Heun"))
    x = NOISE if flow else NOISE * scheduler.init_noise_sigma
    more = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for index, step in enumerate(scheduler.timesteps):
        told.append(float(step))
        given = x if flow else scheduler.scale_model_input(x, step)
        x = scheduler.step(sign * model(given, float(step)), step, x, **more).prev_sample
        out.append(x / (scheduler.sigmas[index + 1] ** 2 + 1) ** 0.5 if large else x)
    twice = [*out[1::2], out[-1]] if "Heun" in name else out[1:] if "PNDM" in name and steps > 1 else out
    return twice, told


def ours(path: Way, predict: str, steps: int, trained: int = 1000) -> tuple[list[torch.Tensor], list[float]]:
    told, solver, generator = [], Solver(steps=steps), torch.Generator().manual_seed(9)

    def look(x: torch.Tensor, stop: Stop) -> tuple[torch.Tensor, torch.Tensor]:
        told.append(stop.time * trained)
        return apart(model(x, stop.time * trained), x, stop, predict)

    start = NOISE * path.start(legs_of(path, solver)[0][0])
    return [x for _, x in walk(look, path, solver, start, lambda: torch.randn(SHAPE, generator=generator), predict=predict)], told


def same(found: tuple[list[torch.Tensor], list[float]], wanted: tuple[list[torch.Tensor], list[float]], close: float = 1e-4) -> None:
    """Every step; theirs is worked out in float32."""
    assert found[1] == pytest.approx(wanted[1], abs=1e-2)
    for step, (a, b) in enumerate(zip(found[0], wanted[0], strict=True)):
        torch.testing.assert_close(a, b, rtol=0, atol=close * float(b.abs().max()), msg=lambda m, step=step: f"step {step}: {m}")


SPACED = [{"timestep_spacing": spacing} for spacing in ("leading", "trailing", "linspace")]
TURNED = [{**one, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True} for one in SPACED]
SPREAD = [{**one, "use_karras_sigmas": True} for one in SPACED] + [{"use_exponential_sigmas": True}]
LIMITS = [{"thresholding": True, "sample_max_value": 1.5}, {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 3.0}]
CURVES = [{"beta_schedule": "linear"}, {"beta_schedule": "squaredcos_cap_v2"}, {"trained_betas": torch.linspace(0.001, 0.02, 1000).tolist()},
          {"num_train_timesteps": 500}]
CASES = {
    "DDIMScheduler": [{}, *SPACED, *TURNED, *LIMITS, *CURVES, {"set_alpha_to_one": False}, {"prediction_type": "sample"}],
    "DDIMParallelScheduler": [{}, TURNED[1]],
    "DDPMScheduler": [{}, *SPACED, *TURNED, *LIMITS, {"beta_schedule": "sigmoid"}, {"variance_type": "fixed_small_log"}],
    "DDPMParallelScheduler": [{}, TURNED[1]],
    "PNDMScheduler": [{"skip_prk_steps": True, **one} for one in (*CURVES, {"set_alpha_to_one": True}, {"prediction_type": "v_prediction"})],
    "EulerDiscreteScheduler": [{}, *SPACED, *TURNED, *SPREAD, *CURVES, {"final_sigmas_type": "sigma_min"},
                               {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}],
    "EulerAncestralDiscreteScheduler": [{}, *SPACED, *TURNED],
    "HeunDiscreteScheduler": [{}, *SPACED, *SPREAD, {"prediction_type": "v_prediction"}],
    "DPMSolverMultistepScheduler": [{}, *SPACED, *TURNED, *SPREAD[:3], *LIMITS, {"solver_order": 1}, {"algorithm_type": "sde-dpmsolver++"},
                                    {"beta_schedule": "squaredcos_cap_v2"}],
    "UniPCMultistepScheduler": [{}, *SPACED, *TURNED, *SPREAD[:3], *LIMITS, {"solver_order": 1}, {"solver_order": 3},
                                {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 10.0}]}


@pytest.mark.parametrize(("name", "options"), [(name, options) for name, several in CASES.items() for options in several],
                         ids=lambda value: value if isinstance(value, str) else "-".join(f"{k}={str(v)[:12]}" for k, v in value.items()) or "as is")
def test_a_scheduler_of_a_diffusion_steps_as_theirs(name: str, options: dict[str, Any]) -> None:
    config = SCALED | options
    path, predict = diffusion_path({"_class_name": name, **config})
    # theirs counts noise as a ratio to the signal in float32, up to 4096, and down to 0.006 for one step of the cosine: up to 3e-4 in five steps
    rough = options.get("rescale_betas_zero_snr") or options.get("beta_schedule") == "squaredcos_cap_v2"
    close = 5e-4 if name.startswith("Euler") and rough else 1e-4
    for steps in (1, 7, 24) if "rescale_betas_zero_snr" not in options else (7, 24):
        same(ours(path, predict, steps, path.steps), theirs(name, config, steps), close)


@pytest.mark.parametrize("name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler"])
def test_exponential_levels_of_multistep_solvers(name: str) -> None:
    """Their first step is told as 998 where rounding in float32 falls below 999, which is what its level stands at."""
    config = {"_class_name": name, **SCALED, "use_exponential_sigmas": True}
    path, predict = diffusion_path(config)
    (found, told), (wanted, theirs_told) = ours(path, predict, 24), theirs(name, SCALED | {"use_exponential_sigmas": True}, 24)
    assert told[1:] == pytest.approx(theirs_told[1:]) and told[0] - theirs_told[0] in (0, 1)
    torch.testing.assert_close(found[-1], wanted[-1], rtol=0, atol=2e-3 * float(wanted[-1].abs().max()))


FLOW_CASES = [("FlowMatchEulerDiscreteScheduler", options) for options in (
    {}, {"shift": 3.0}, {"shift": 3.0, "use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"shift": 3.0, "shift_terminal": 0.1},
    {"shift": 2.0, "num_train_timesteps": 500}, {"use_dynamic_shifting": True, "shift": 3.0}, {
        "use_dynamic_shifting": True, "base_shift": 0.6, "max_shift": 1.3, "base_image_seq_len": 100, "max_image_seq_len": 2000,
        "time_shift_type": "linear"})]
FLOW_CASES += [("FlowMatchHeunDiscreteScheduler", {"shift": 3.0})]
FLOW_CASES += [("UniPCMultistepScheduler", {"use_flow_sigmas": True, "prediction_type": "flow_prediction", **options}) for options in (
    {}, {"flow_shift": 5.0}, {"flow_shift": 3.0, "solver_order": 1}, {"flow_shift": 3.0, "solver_order": 3},
    {"flow_shift": 5.0, "num_train_timesteps": 500}, {"flow_shift": 5.0, "shift_terminal": 0.1})]


@pytest.mark.parametrize(("name", "options"), FLOW_CASES)
def test_a_scheduler_of_a_flow_steps_as_theirs(name: str, options: dict[str, Any]) -> None:
    path, extra = flow_path({"_class_name": name, **options}, "Stable Diffusion 3", patches=1024), {}
    if options.get("use_dynamic_shifting"):
        from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

        named = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15} | options
        extra = {"mu": calculate_shift(1024, *(named[key] for key in ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")))}
    trained = options.get("num_train_timesteps", 1000)
    for steps in (2, 7, 24):
        same(ours(path, "velocity", steps, trained), theirs(name, options, steps, -1.0, **extra), 1e-5)


RECORDED = {  # the first four numbers of the last step of 24, and the told steps 0, 1, 12, as diffusers 0.42.1 gives them beside scipy 1.17.1
    ("LMSDiscreteScheduler", ""): ([0.22839, 6.98501, -12.89031, 0.22319], [999.0, 955.565, 477.783]),
    ("LMSDiscreteScheduler", "use_karras_sigmas"): ([0.21887, 6.59444, -12.93161, 0.0921], [999.0, 968.445, 388.416]),
    ("EulerDiscreteScheduler", "use_beta_sigmas"): ([-0.39378, 6.29645, -13.35191, -0.28317], [999.0, 997.353, 862.354]),
    ("FlowMatchEulerDiscreteScheduler", "use_beta_sigmas"): ([0.6131, 1.054, -0.06735, 0.80568], [1000.0, 990.137, 474.59]),}


@pytest.mark.parametrize("case", RECORDED)
def test_what_needs_another_library_there(case: tuple[str, str]) -> None:
    (name, option), (numbers, steps) = case, RECORDED[case]
    config = {"_class_name": name, **({"shift": 3.0} if "Flow" in name else SCALED), **({option: True} if option else {})}
    path, predict = (flow_path(config, "this"), "velocity") if "Flow" in name else diffusion_path(config)
    found, told = ours(path, predict, 24)
    assert found[-1].flatten()[:4].tolist() == pytest.approx(numbers, abs=1e-4)
    assert [told[i] for i in (0, 1, 12)] == pytest.approx(steps, abs=1e-2)


def test_the_numbers_that_were_wrong() -> None:
    """Zero signal at the last step, from behind; and levels evenly apart in their seventh roots (diffusers 0.42.1)."""
    path, _ = diffusion_path({"_class_name": "DDIMScheduler", **SCALED, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
                              "prediction_type": "v_prediction"})
    stops = path.stops(5)
    assert stops[1].time == pytest.approx(0.799) and stops[1].signal**2 == pytest.approx(0.0179, abs=1e-4) and stops[0].signal == 0
    path, _ = diffusion_path({"_class_name": "EulerDiscreteScheduler", **SCALED, "use_karras_sigmas": True, "timestep_spacing": "leading"})
    assert [stop.time * 1000 for stop in path.stops(5)[:3]] == pytest.approx([801, 565.83, 248.59], abs=1e-2)


def test_every_class_is_built_or_refused_by_name() -> None:
    names = {name for name in dir(diffusers.schedulers) if name.endswith("Scheduler") and not name.startswith("Flax")}
    assert len(names) > 35 and set(BUILT) <= names
    for name in names - set(DIFFUSIONS):
        with pytest.raises(sn.ConfigError, match=rf"{FILE} names the class '{name}', which is not built for this.*DDIMScheduler, "):
            diffusion_path({"_class_name": name})
    for name in names - set(FLOWS):
        with pytest.raises(sn.ConfigError, match=f"'{name}', which is not built for Wan; built are FlowMatchEuler.*save the folder with one"):
            flow_path({"_class_name": name}, "Wan")


@pytest.mark.parametrize(("classes", "name"), [(classes, name) for classes in (DIFFUSIONS, FLOWS) for name in classes])
def test_every_setting_of_a_class_is_declared_and_no_other(classes: dict[str, Any], name: str) -> None:
    keys = classes[name].keys
    assert {*keys.built, *keys.only, *keys.harmless} == taken(name)


ON = {"sigma_min": {"use_karras_sigmas": True}, "sigma_max": {"use_karras_sigmas": True}, "dynamic_thresholding_ratio": {"thresholding": True},
      "sample_max_value": {"thresholding": True}, **dict.fromkeys(
          ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type"), {"use_dynamic_shifting": True}),
      "timestep_type": {"prediction_type": "v_prediction"}}
OTHER = {"num_train_timesteps": 900, "beta_start": 0.001, "beta_end": 0.013, "trained_betas": [0.01] * 1000, "prediction_type": "v_prediction",
         "timestep_spacing": "trailing", "thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.0, "sigma_min": 0.2,
         "sigma_max": 9.0, "final_sigmas_type": "sigma_min", "timestep_type": "continuous", "solver_order": 1, "shift": 2.0, "flow_shift": 2.0,
         "shift_terminal": 0.1, "base_shift": 0.6, "max_shift": 1.2, "base_image_seq_len": 300, "max_image_seq_len": 4000,
         "time_shift_type": "linear"}


@pytest.mark.parametrize(("classes", "name"), [(classes, name) for classes in (DIFFUSIONS, FLOWS) for name in classes])
def test_a_built_setting_counts_and_a_harmless_one_does_not(classes: dict[str, Any], name: str) -> None:
    one, flow = classes[name], classes is FLOWS
    whole = {"_class_name": name, **({"skip_prk_steps": True} if "PNDM" in name else {}), **(
        {"use_flow_sigmas": True, "prediction_type": "flow_prediction"} if flow and "UniPC" in name else {})}

    def path(config: dict[str, Any]) -> Any:
        return (flow_path(config, "this", 1024), config.get("num_train_timesteps")) if flow else diffusion_path(config)

    for key in one.keys.built:
        base = whole | ON.get(key, {})
        value = OTHER.get(key, not one.defaults.get(key, False))
        try:
            assert path(base | {key: value}) != path(base), f"{key} changes nothing"
        except sn.ConfigError as error:
            assert key in str(error)  # noqa: PT017 (some values are refused)
    for key in one.keys.harmless:
        assert path(whole | {key: OTHER.get(key, True)}) == path(whole)
    for key, wanted in one.keys.only.items():
        with pytest.raises(sn.ConfigError, match=f"{FILE} sets {key} to 'else'; "):
            path(whole | {key: "else"})
        assert path({**whole, key: wanted[0] if isinstance(wanted, tuple) else wanted})


@pytest.mark.parametrize(("config", "says"), [
    ({"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, "where there is no signal"),
    ({"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "use_exponential_sigmas": True}, "only one of them"),
    ({"_class_name": "EulerDiscreteScheduler", "unheard_of": 3}, "sets unheard_of to 3"),
    ({"_class_name": "EulerDiscreteScheduler", "prediction_type": "flow_prediction"}, "takes epsilon, v_prediction, sample"),
    ({"_class_name": "EulerDiscreteScheduler", "trained_betas": [0.1]}, "trained has 1 shares for 1000 steps"),
    ({"_class_name": "PNDMScheduler"}, "skip_prk_steps to False"), ({}, "names the class None")])
def test_what_cannot_be_walked_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(sn.ConfigError, match=says):
        diffusion_path(config)


def test_settings_of_other_classes_are_not_read_as_there() -> None:
    config = {"_class_name": "PNDMScheduler", **SCALED, "skip_prk_steps": True}
    assert diffusion_path({**config, "use_karras_sigmas": True, "thresholding": True, "solver_order": 3}) == diffusion_path(config)


def test_a_flow_without_a_size_cannot_be_shifted_by_it() -> None:
    with pytest.raises(sn.ConfigError, match="use_dynamic_shifting, but Wan"):
        flow_path({"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}, "Wan")
