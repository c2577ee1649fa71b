"""Schedulers: a published scheduler_config.json as the path that its solver walks.

    class + settings -> which steps were trained, where a solver looks, and which one walks by default

Every class of diffusers is either in ``DIFFUSIONS`` or ``FLOWS``, or refused by name. Keys that the class does not take are not read, as there.

Source: diffusers 0.42.1 (Apache-2.0) for names and defaults; each is tested against it step for step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sensorium as sn
from sensorium.settings import NOTES, Keys, check_settings
from sensorium.types import ConfigError

__all__ = ["DIFFUSIONS", "diffusion_path", "FILE", "flow_path", "FLOWS"]

FILE = "scheduler/scheduler_config.json"
WORDS = {"epsilon": "noise", "v_prediction": "turn", "sample": "sample", "linear": "linear", "scaled_linear": "scaled", "squaredcos_cap_v2": "cosine",
         "sigmoid": "sigmoid", "leading": "leading", "trailing": "trailing", "linspace": "even"}
SPREADS = {"use_karras_sigmas": "karras", "use_exponential_sigmas": "exponential", "use_beta_sigmas": "beta"}
LEAST = 2.0**-24  # what solvers that divide by the signal take for none of it, there
HIGHEST = 0.9999989867210388  # 1 - 1e-6 in float32: where UniPC begins on a straight path, there

_BETAS = Keys(built=("num_train_timesteps", "beta_start", "beta_end", "trained_betas", "prediction_type", "timestep_spacing"),
              only={"beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2")},
              harmless={"steps_offset": "the published pipeline sets it to 1"})
_SPREAD = Keys(built=tuple(SPREADS))
_THRESHOLD = Keys(built=("thresholding", "dynamic_thresholding_ratio", "sample_max_value"))
_CLIP = Keys(harmless=dict.fromkeys(("clip_sample", "clip_sample_range"), "the published pipeline switches it off"))
_ZERO = Keys(built=("rescale_betas_zero_snr",))
_FLOW_OFF = Keys(only={"use_flow_sigmas": (False, None), "use_dynamic_shifting": (False, None), "final_sigmas_type": "zero"}, harmless=dict.fromkeys(
    ("flow_shift", "time_shift_type"), "for straight paths"))
_UNIPC = Keys(built=("solver_order",), only={"solver_type": "bh2", "predict_x0": True, "lower_order_final": True, "disable_corrector": ([],),
                                             "solver_p": None})
_DPM = Keys(only={"solver_order": (1, 2), "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"), "solver_type": "midpoint",
                  "use_lu_lambdas": (False, None), "lambda_min_clipped": (-math.inf, None), "variance_type": None},
            harmless=dict.fromkeys(("lower_order_final", "euler_at_final"), "a last step that ends without noise is of first order anyhow"))


@dataclass(frozen=True)
class Scheduler:
    """A class of diffusers.

    Args:
        solver: how it walks.
        keys: what it takes.
        defaults: of what it takes, where they are not those of all.
        zero: share of the clean medium's variance that it leaves at the last step, where there should be none.
        ratios: it counts noise as a ratio to the signal: its steps need not be whole, and it starts from its first stop's own noise.
        refused: prediction types that it does not take.
    """

    solver: str
    keys: Keys
    defaults: Mapping[str, Any] = field(default_factory=dict)
    zero: float = LEAST
    ratios: bool = False
    refused: tuple[str, ...] = ()


_DDIM = Scheduler("ddim", _BETAS | _THRESHOLD | _CLIP | _ZERO | Keys(built=("set_alpha_to_one",)),
                  {"timestep_spacing": "leading", "set_alpha_to_one": True}, zero=0.0)
_DDPM = Scheduler("ddpm", _BETAS | _THRESHOLD | _CLIP | _ZERO | Keys(only={
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"), "variance_type": ("fixed_small", "fixed_small_log")}),
    {"timestep_spacing": "leading"}, zero=0.0)
_HEUN = {"beta_start": 0.00085, "beta_end": 0.012}
DIFFUSIONS = {
    "DDIMScheduler": _DDIM, "DDIMParallelScheduler": _DDIM, "DDPMScheduler": _DDPM, "DDPMParallelScheduler": _DDPM,
    "PNDMScheduler": Scheduler("pndm", _BETAS | Keys(built=("set_alpha_to_one",), only={"skip_prk_steps": True, "timestep_spacing": "leading"}),
                               {"timestep_spacing": "leading", "set_alpha_to_one": False, "skip_prk_steps": False}, refused=("sample",)),
    "EulerDiscreteScheduler": Scheduler("euler", _BETAS | _SPREAD | _ZERO | Keys(
        built=("sigma_min", "sigma_max", "final_sigmas_type", "timestep_type"), only={"interpolation_type": "linear"}), ratios=True),
    "EulerAncestralDiscreteScheduler": Scheduler("ancestral", _BETAS | _ZERO, ratios=True, refused=("sample",)),
    "HeunDiscreteScheduler": Scheduler("heun", _BETAS | _SPREAD | _CLIP, _HEUN, ratios=True),
    "LMSDiscreteScheduler": Scheduler("lms", _BETAS | _SPREAD, ratios=True),
    "DPMSolverMultistepScheduler": Scheduler("dpm++", _BETAS | _SPREAD | _ZERO | _THRESHOLD | _FLOW_OFF | _DPM),
    "UniPCMultistepScheduler": Scheduler("unipc", _BETAS | _SPREAD | _ZERO | _THRESHOLD | _FLOW_OFF | _UNIPC | Keys(
        built=("sigma_min", "sigma_max"), only={"shift_terminal": None}))}
"""Of diffusion's paths, by class."""

_SHIFT = Keys(built=("num_train_timesteps", "shift"))
_OFF = {name: (False, None) for name in SPREADS}
FLOWS = {
    "FlowMatchEulerDiscreteScheduler": Scheduler("euler", _SHIFT | _SPREAD | Keys(
        built=("use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "shift_terminal", "time_shift_type"),
        only={"invert_sigmas": (False, None), "stochastic_sampling": (False, None)})),
    "FlowMatchHeunDiscreteScheduler": Scheduler("heun", _SHIFT),
    "UniPCMultistepScheduler": Scheduler("unipc", _UNIPC | Keys(
        built=("num_train_timesteps", "flow_shift", "shift_terminal"),
        only={"use_flow_sigmas": True, "prediction_type": "flow_prediction", "final_sigmas_type": "zero", "thresholding": (False, None),
              "use_dynamic_shifting": (False, None), **_OFF},
        harmless=dict.fromkeys(("beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr", "timestep_spacing",
                                "steps_offset", "dynamic_thresholding_ratio", "sample_max_value", "sigma_min", "sigma_max", "time_shift_type"),
                               "for diffusion's paths")), {"use_flow_sigmas": False, "prediction_type": "epsilon"})}
"""Of straight paths, by class."""

_OTHERS = ("original_inference_steps", "timestep_scaling", "algorithm_type", "tau_func", "predictor_order", "corrector_order", "s_noise", "rho",
           "sigma_data", "sigma_schedule", "snr_shift_scale")
_EVERY = {key for one in (*DIFFUSIONS.values(), *FLOWS.values()) for key in (*one.keys.built, *one.keys.only, *one.keys.harmless)} | {*_OTHERS}
_ASIDE = NOTES | Keys(harmless=dict.fromkeys(sorted(_EVERY), "of other classes of schedulers"))


def _read(config: Mapping[str, Any], classes: Mapping[str, Scheduler], of: str) -> tuple[Scheduler, dict[str, Any]]:
    """The class, and its settings with the library's defaults; what it does not take is left out.

    Raises:
        ConfigError: the class or a setting is not built.
    """
    name = config.get("_class_name")
    if name not in classes:
        raise ConfigError(f"{FILE} names the class {name!r}, which is not built for {of}; built are {', '.join(classes)}: save the folder with one "
                          "of them (its from_config takes this file's settings)")
    one = classes[name]
    missing = {key: value for key, value in one.defaults.items() if key not in config}
    check_settings({FILE: {**missing, **config}}, {FILE: _ASIDE | one.keys})
    taken = {key: value for key, value in config.items() if key in (*one.keys.built, *one.keys.only)}
    return one, {"num_train_timesteps": 1000, **one.defaults, **taken}


def _spread(c: Mapping[str, Any]) -> str | None:
    chosen = [spread for key, spread in SPREADS.items() if c.get(key)]
    if len(chosen) > 1:
        raise ConfigError(f"{FILE} sets {' and '.join(key for key in SPREADS if c.get(key))}; only one of them can be true")
    return chosen[0] if chosen else None


def diffusion_path(config: Mapping[str, Any]) -> tuple[sn.Diffusion, str]:
    """The path of a diffusion, and what its model predicts.

    Raises:
        ConfigError: the class or a setting is not built.
    """
    one, c = _read(config, DIFFUSIONS, "this model")
    c = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "prediction_type": "epsilon", "timestep_spacing": "linspace",
         "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0, "solver_order": 2} | c
    for key, known in (("prediction_type", ("epsilon", "v_prediction", "sample")), ("timestep_spacing", ("leading", "trailing", "linspace"))):
        if c[key] not in known or c[key] in one.refused:
            raise ConfigError(f"{FILE} sets {key} to {c[key]!r}; {config['_class_name']} takes {', '.join(w for w in known if w not in one.refused)}")
    if c.get("timestep_type", "discrete") != "discrete" and c["prediction_type"] == "v_prediction":
        raise ConfigError(f"{FILE} sets timestep_type to {c['timestep_type']!r}, which is not built with v_prediction; only 'discrete' is")
    spread, first = _spread(c), c.get("final_sigmas_type", "zero") == "sigma_min" or c.get("set_alpha_to_one") is False
    if c["beta_schedule"] == "squaredcos_cap_v2" and spread == "karras" and one.solver == "dpm++":
        raise ConfigError(f"{FILE} sets use_karras_sigmas with beta_schedule 'squaredcos_cap_v2', which is not built for {config['_class_name']}; "
                          "take UniPCMultistepScheduler")
    zero = one.zero if c.get("rescale_betas_zero_snr") else None
    if zero == 0 and c["prediction_type"] == "epsilon" and c["timestep_spacing"] != "leading":
        raise ConfigError(f"{FILE} sets rescale_betas_zero_snr with prediction_type 'epsilon': where there is no signal, the noise says nothing of "
                          "the picture; wanted 'v_prediction' or 'sample'")
    solver = "dpm++sde" if c.get("algorithm_type") == "sde-dpmsolver++" else one.solver
    return sn.Diffusion(
        c["num_train_timesteps"], c["beta_start"], c["beta_end"], WORDS[c["beta_schedule"]], WORDS[c["timestep_spacing"]], offset=1,
        ends="first" if first else "clean", own=one.ratios and c["timestep_spacing"] != "leading", trained=tuple(c.get("trained_betas") or ()),
        zero=zero, spread=spread, lowest=c.get("sigma_min"), highest=c.get("sigma_max"), whole=not one.ratios,
        quantile=(c["dynamic_thresholding_ratio"], c["sample_max_value"]) if c.get("thresholding") else None,
        solver=solver, order=c["solver_order"]), WORDS[c["prediction_type"]]


def flow_path(config: Mapping[str, Any], of: str, patches: int | None = None) -> sn.Straight:
    """The straight path of a flow.

    Args:
        of: whose path it is, for errors.
        patches: of a picture, which shift it where the scheduler says so; None: they are not told to the scheduler.

    Raises:
        ConfigError: the class or a setting is not built.
    """
    one, c = _read(config, FLOWS, of)
    steps, shift = c["num_train_timesteps"], c.get("flow_shift" if one.solver == "unipc" else "shift", 1.0)
    if one.solver == "unipc":
        return sn.Straight(shift, 1 / steps, "noise", beyond=True, terminal=c.get("shift_terminal") or None, highest=HIGHEST, whole=steps,
                           solver="unipc", order=c.get("solver_order", 2))
    least = 1 / steps
    if c.get("use_dynamic_shifting"):
        if patches is None:
            raise ConfigError(f"{FILE} sets use_dynamic_shifting, but {of} does not tell a scheduler how large its pictures are; set shift instead")
        shift = _dynamic_shift(c, patches)
    else:
        least = shift * least / (1 + (shift - 1) * least)  # theirs is shifted here, and once more with all stops
    return sn.Straight(shift, least, "noise", spread=_spread(c), terminal=c.get("shift_terminal") or None, solver=one.solver)


def _dynamic_shift(c: Mapping[str, Any], patches: int) -> float:
    """The shift for a picture of so many patches: a line through two sizes; or, "exponential", the exponential of it."""
    c = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096, "time_shift_type": "exponential"} | c
    slope = (c["max_shift"] - c["base_shift"]) / (c["max_image_seq_len"] - c["base_image_seq_len"])
    line = c["base_shift"] + slope * (patches - c["base_image_seq_len"])
    if c["time_shift_type"] not in ("exponential", "linear"):
        raise ConfigError(f"{FILE} sets time_shift_type to {c['time_shift_type']!r}; wanted 'exponential' or 'linear'")
    return math.exp(line) if c["time_shift_type"] == "exponential" else line
