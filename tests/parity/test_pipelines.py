"""Published folders of parts beside diffusers and transformers: which file and which class counts, and what becomes of every setting."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import sensorium as sn
from sensorium.checkpoint import PUBLISHED
from sensorium.denoise import Solver, draw
from sensorium.settings import Keys
from sensorium.zoo.pipeline import read_pipeline

from .reference import shaken
from .test_stable_diffusion import EMPTY, PROMPTS, batch, reference, words
from .test_stable_diffusion_3 import reference as reference_3

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The library's pipeline, and a folder that it wrote."""
    torch.manual_seed(0)
    theirs, folder = reference(), tmp_path_factory.mktemp("pipeline") / "model"
    theirs.save_pretrained(folder)
    return theirs, folder


@pytest.fixture(scope="module")
def plain(saved: tuple[Any, Path]) -> sn.ModelNet:
    """What that folder is."""
    return sn.load(saved[1])


@pytest.fixture
def folder(saved: tuple[Any, Path], tmp_path: Path) -> Path:
    """A folder of one's own, to change."""
    return Path(shutil.copytree(saved[1], tmp_path / "model"))


def changed(folder: Path, file: str, **settings: Any) -> Path:
    """The folder with other settings in one of its files."""
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | settings))
    return folder


SCHEDULERS = {
    "pndm": (diffusers.PNDMScheduler, {"skip_prk_steps": True, "steps_offset": 1}),
    "zero": (diffusers.DDIMScheduler, {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
    "offset": (diffusers.DDIMScheduler, {}),  # the pipeline itself sets steps_offset to 1 and clip_sample to False
    "karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "half": (diffusers.DDIMScheduler, {"num_train_timesteps": 500})}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_folder_is_drawn_from_as_its_own_scheduler_does(folder: Path, kind: str) -> None:
    (make, options), noise = SCHEDULERS[kind], torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    make(**SCALED, **options).save_pretrained(folder / "scheduler")
    changed(folder, "model_index.json", scheduler=["diffusers", make.__name__])
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False, tokenizer=None)
    with torch.no_grad():
        source, empty = theirs.text_encoder(PROMPTS)[0], theirs.text_encoder(EMPTY)[0].expand(2, -1, -1)
        wanted = theirs(prompt_embeds=source, negative_prompt_embeds=empty, latents=noise, num_inference_steps=3, guidance_scale=5.0,
                        output_type="latent").images
    ours = draw(sn.load(folder), batch(), Solver(steps=3, guidance=5.0, interval=(0.0, 1.0)), noise_LCHW=noise)
    torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def spec_of(folder: Path) -> sn.Model:
    """What a folder's settings say, without its weights."""
    return sn.Pretrained(str(folder)).resolve()


def path_of(folder: Path) -> sn.Diffusion:
    return spec_of(folder).objectives[0].path


def test_the_class_that_the_index_names_counts(folder: Path) -> None:
    changed(folder, "scheduler/scheduler_config.json", _class_name="EulerDiscreteScheduler", use_karras_sigmas=True)
    assert path_of(folder).solver == "ddim" and path_of(folder).spread is None
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, tokenizer=None).scheduler
    assert isinstance(theirs, diffusers.DDIMScheduler)
    changed(folder, "model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    with pytest.raises(sn.ConfigError, match="'FlowMatchEulerDiscreteScheduler', which is not built for this model; built are DDIM"):
        sn.load(folder)


def test_recorded_defaults_are_not_settings(folder: Path) -> None:
    changed(folder, "scheduler/scheduler_config.json", timestep_spacing="trailing", _use_default_values=["timestep_spacing"])
    assert path_of(folder).spacing == "leading"
    assert diffusers.DDIMScheduler.from_pretrained(folder / "scheduler").config.timestep_spacing == "leading"


REFUSED = [
    ("unet/config.json", {"class_embed_type": "timestep"}), ("unet/config.json", {"addition_embed_type": "text_time"}),
    ("unet/config.json", {"time_cond_proj_dim": 256}), ("unet/config.json", {"only_cross_attention": True}),
    ("unet/config.json", {"dual_cross_attention": True}), ("unet/config.json", {"resnet_time_scale_shift": "scale_shift"}),
    ("unet/config.json", {"conv_in_kernel": 1}), ("unet/config.json", {"num_attention_heads": 4}), ("unet/config.json", {"sample_size": [8, 16]}),
    ("unet/config.json", {"block_out_channels": [8, 16]}), ("text_encoder/config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),
    ("unet/config.json", {"mid_block_type": None}), ("unet/config.json", {"attention_type": "gated"}), ("unet/config.json", {"in_channels": 9}),
    ("unet/config.json", {"layers_per_block": [2, 2, 2]}),
    ("unet/config.json", {"down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"]}),
    ("unet/config.json", {"up_block_types": ["UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"]}),
    ("unet/config.json", {"transformer_layers_per_block": [1, 1, 2]}), ("unet/config.json", {"unheard_of": 1}),
    ("vae/config.json", {"act_fn": "gelu"}), ("vae/config.json", {"use_post_quant_conv": False}), ("vae/config.json", {"out_channels": 4}),
    ("vae/config.json", {"up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"]}), ("text_encoder/config.json", {"unheard_of": 1}),
    ("model_index.json", {"vae": ["diffusers", "AutoencoderTiny"]}), ("model_index.json", {"text_encoder": ["transformers", "RobertaModel"]}),
    ("model_index.json", {"unet": [None, None]}), ("model_index.json", {"controlnet": ["diffusers", "ControlNetModel"]}),
    ("scheduler/scheduler_config.json", {"beta_schedule": "laplace"}), ("scheduler/scheduler_config.json", {"prediction_type": "flow_prediction"})]


@pytest.mark.parametrize(("file", "settings"), REFUSED, ids=lambda value: value if isinstance(value, str) else next(iter(value)))
def test_what_is_not_built_is_refused_by_file_and_name(folder: Path, file: str, settings: dict[str, Any]) -> None:
    with pytest.raises(sn.ConfigError, match=f"{file} .*{next(iter(settings))}"):
        sn.load(changed(folder, file, **settings))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Stable Diffusion 3."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("three") / "model"
    reference_3().save_pretrained(folder)
    return folder


REFUSED_3 = [
    ("transformer/config.json", {"qk_norm": "layer_norm"}), ("transformer/config.json", {"dual_attention_layers": [1]}),
    ("transformer/config.json", {"caption_projection_dim": 64}), ("transformer/config.json", {"in_channels": 8}),
    ("transformer/config.json", {"sample_size": [8, 8]}), ("transformer/config.json", {"unheard_of": 1}),
    ("text_encoder_3/config.json", {"feed_forward_proj": "relu"}), ("model_index.json", {"text_encoder_3": [None, None]}),
    ("scheduler/scheduler_config.json", {"invert_sigmas": True}), ("scheduler/scheduler_config.json", {"stochastic_sampling": True})]


@pytest.mark.parametrize(("file", "settings"), REFUSED_3, ids=lambda value: value if isinstance(value, str) else next(iter(value)))
def test_what_is_not_built_of_a_flow_is_refused_by_file_and_name(three: Path, tmp_path: Path, file: str, settings: dict[str, Any]) -> None:
    with pytest.raises(sn.ConfigError, match=f"{file} .*{next(iter(settings))}"):
        sn.load(changed(Path(shutil.copytree(three, tmp_path / "model")), file, **settings))


@pytest.mark.parametrize(("file", "settings"), [
    ("scheduler/scheduler_config.json", {"use_dynamic_shifting": True}), ("scheduler/scheduler_config.json", {"shift_terminal": 0.1}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 500}), ("vae/config.json", {"shift_factor": 0.5}),
    ("vae/config.json", {"scaling_factor": 0.5}), ("transformer/config.json", {"sample_size": 16}),
    ("text_encoder_2/config.json", {"hidden_act": "gelu"}),
    ("text_encoder_3/config.json", {"relative_attention_max_distance": 64}), ("text_encoder_3/config.json", {"layer_norm_epsilon": 1e-3})])
def test_a_built_setting_of_a_flow_counts(three: Path, tmp_path: Path, file: str, settings: dict[str, Any]) -> None:
    assert spec_of(changed(Path(shutil.copytree(three, tmp_path / "model")), file, **settings)) != spec_of(three)


def known(keys: Keys) -> set[str]:
    return {*keys.built, *keys.only, *keys.harmless, *keys.parts}


CLASSES = {
    "StableDiffusionPipeline": {"unet/config.json": diffusers.UNet2DConditionModel, "vae/config.json": diffusers.AutoencoderKL,
                                "text_encoder/config.json": transformers.CLIPTextConfig, "model_index.json": diffusers.StableDiffusionPipeline},
    "StableDiffusion3Pipeline": {
        "transformer/config.json": diffusers.SD3Transformer2DModel, "vae/config.json": diffusers.AutoencoderKL,
        "text_encoder/config.json": transformers.CLIPTextConfig, "text_encoder_2/config.json": transformers.CLIPTextConfig,
        "text_encoder_3/config.json": transformers.T5Config, "model_index.json": diffusers.StableDiffusion3Pipeline},
    "WanPipeline": {"transformer/config.json": diffusers.WanTransformer3DModel, "vae/config.json": diffusers.AutoencoderKLWan,
                    "text_encoder/config.json": transformers.UMT5Config, "model_index.json": diffusers.WanPipeline},
    "DiTTransformer2DModel": {"config.json": diffusers.DiTTransformer2DModel}}


@pytest.mark.parametrize(("kind", "file"), [(kind, file) for kind, files in CLASSES.items() for file in files])
def test_every_setting_of_the_library_s_class_is_declared(kind: str, file: str) -> None:
    made = CLASSES[kind][file]
    wanted = set(made().to_dict()) if issubclass(made, transformers.PreTrainedConfig) else set(inspect.signature(made.__init__).parameters) - {"self"}
    keys = known(PUBLISHED[kind].keys[file])
    assert not wanted - keys, "in no class"
    common = known(sn.settings.CONFIG) | known(sn.settings.NOTES)
    older = {"n_positions", "output_past", "requires_safety_checker", "safety_checker", "feature_extractor", "image_encoder", "scalable_attention",
             "scale_decoder_outputs", "decoder_start_token_id", "boundary_ratio"}
    assert not keys - wanted - common - older, "declared, and nothing there takes it"


COUNTS = {  # another value of each key that is said to be built, where the tensors allow one
    "unet/config.json": {"sample_size": 16, "attention_head_dim": 4, "norm_num_groups": 2, "norm_eps": 1e-3},
    "vae/config.json": {"norm_num_groups": 2, "scaling_factor": 0.5},
    "text_encoder/config.json": {"num_attention_heads": 4, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3},
    "scheduler/scheduler_config.json": {"beta_end": 0.02, "num_train_timesteps": 500, "set_alpha_to_one": True}}
HARMLESS = {
    "unet/config.json": {"upcast_attention": True, "dropout": 0.5, "addition_embed_type_num_heads": 3, "use_linear_projection": True},
    "vae/config.json": {"force_upcast": False, "sample_size": 99, "latents_mean": [1.0] * 4, "latents_std": [2.0] * 4, "shift_factor": 0.5},
    "text_encoder/config.json": {"projection_dim": 3, "attention_dropout": 0.5, "pad_token_id": 7},
    "scheduler/scheduler_config.json": {"clip_sample": True, "clip_sample_range": 2.0, "steps_offset": 0},
    "model_index.json": {"requires_safety_checker": True, "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}}


@pytest.mark.parametrize(("file", "key"), [(file, key) for file, several in COUNTS.items() for key in several])
def test_a_built_setting_counts(plain: sn.ModelNet, folder: Path, file: str, key: str) -> None:
    assert spec_of(changed(folder, file, **{key: COUNTS[file][key]})) != plain.spec


def test_harmless_settings_change_nothing(plain: sn.ModelNet, folder: Path) -> None:
    for file, settings in HARMLESS.items():
        changed(folder, file, **settings)
    assert spec_of(folder) == plain.spec


def test_early_editions_draw_64_latents_a_side(folder: Path) -> None:
    assert spec_of(changed(folder, "unet/config.json", _diffusers_version="0.6.0")).heads["image"].size == 64
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, tokenizer=None)
    assert theirs.unet.config.sample_size == 64
    assert spec_of(changed(folder, "unet/config.json", _diffusers_version="0.9.0")).heads["image"].size == 8


def halves(folder: Path, stem: str) -> None:
    """A part's whole file also in two shards, where every number is 0.5."""
    whole = {name: torch.full_like(value, 0.5) for name, value in load_file(folder / f"{stem}.safetensors").items()}
    names = sorted(whole)
    where = {name: f"{stem}-0000{1 + (name > names[len(names) // 2])}-of-00002.safetensors" for name in names}
    for file in set(where.values()):
        save_file({name: whole[name] for name in names if where[name] == file}, folder / file, metadata={"format": "pt"})
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))


def test_shards_count_in_one_library_and_the_whole_file_in_the_other(folder: Path) -> None:
    halves(folder / "unet", "diffusion_pytorch_model")
    halves(folder / "text_encoder", "model")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    text = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder")
    ours = sn.load(folder)
    assert bool((unet.conv_in.weight == 0.5).all()) and torch.equal(ours.heads["image"].inside.weight, unet.conv_in.weight)
    theirs = dict(text.named_parameters())
    assert not bool((ours.encoders["text"].token.weight == 0.5).any())
    assert any(torch.equal(ours.encoders["text"].token.weight, value) for value in theirs.values())


def test_variants_pickles_and_strays_beside_the_weights_are_not_read(plain: sn.ModelNet, folder: Path) -> None:
    """As stable-diffusion-v1-5 is published: half-precision and other editions beside, pickles, single files of the whole, a safety checker."""
    for part, stem in (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")):
        numbers = {name: value * 0 for name, value in load_file(folder / part / f"{stem}.safetensors").items()}
        for variant in ("fp16", "non_ema", "z"):
            save_file(numbers, folder / part / f"{stem}.{variant}.safetensors")
        (folder / part / f"{stem}.bin").write_bytes(b"")
    save_file({"a": torch.zeros(1)}, folder / "v1-5-pruned.safetensors")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"")
    changed(folder, "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    changed(folder, "safety_checker/config.json", model_type="clip")
    save_file({"concept_embeds": torch.zeros(1)}, folder / "safety_checker" / "model.safetensors")
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in sn.load(folder).state_dict().items())


def test_early_names_of_the_autoencoder_are_read(saved: tuple[Any, Path], plain: sn.ModelNet, folder: Path) -> None:
    """As stable-diffusion-v1-5 is published; diffusers renames them on loading."""
    file, early = folder / "vae" / "diffusion_pytorch_model.safetensors", {}
    for name, value in load_file(file).items():
        for new, old in ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn.")):
            name = name.replace(new, old)
        early[name] = value
    assert sum("proj_attn" in name for name in early) == 4
    save_file(early, file, metadata={"format": "pt"})
    theirs = diffusers.AutoencoderKL.from_pretrained(folder / "vae").state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in saved[0].vae.state_dict().items())
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in sn.load(folder).state_dict().items())


def test_a_part_without_settings_is_named(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(sn.CheckpointError, match="no settings of scheduler"):
        sn.load(folder)


def test_the_only_variant_is_read_and_of_several_none(folder: Path) -> None:
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_name("diffusion_pytorch_model.fp16.safetensors"))
    sn.load(folder)
    shutil.copy(whole.with_name("diffusion_pytorch_model.fp16.safetensors"), whole.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    with pytest.raises(sn.CheckpointError, match="fp16.*non_ema.*nothing says which"):
        sn.load(folder)


OLD = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "model_max_length": 8}
TOKENS = {
    "neither": (OLD, None), "config": ({**OLD, "pad_token": "a"}, None), "map": (OLD, {"pad_token": "a"}),
    "both": ({**OLD, "pad_token": "<|endoftext|>"}, {"pad_token": "a"}),  # as stable-diffusion-2-1 is published, with "!"
    "newer": ({**OLD, "pad_token": "<|endoftext|>", "added_tokens_decoder": {"49": {"content": "<|endoftext|>", "special": True}}},
              {"pad_token": "a"}),
    "wide": ({**OLD, "pad_token": {"__type": "AddedToken", "content": "b"}}, None), "shorter": ({**OLD, "model_max_length": 6}, None)}


@pytest.mark.parametrize("kind", TOKENS)
def test_prompts_are_filled_up_with_the_tokenizer_s_padding(folder: Path, kind: str) -> None:
    config, marks = TOKENS[kind]
    words(folder / "tokenizer")
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))
    if marks:
        (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(marks))
    theirs = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    wanted = theirs("", padding="max_length", max_length=theirs.model_max_length).input_ids
    changed(folder, "model_index.json", tokenizer=["transformers", "CLIPTokenizer"])
    assert list(spec_of(folder).fuse["prompt"].empty["text"]) == wanted
    if kind == "both":
        row = sn.studio.prompted(sn.load(folder), sn.Codecs.load(folder), ["g"], "image").media["text"][0].tolist()
        assert row == theirs("g", padding="max_length", max_length=theirs.model_max_length).input_ids


def test_parts_that_are_null_are_not_read(folder: Path) -> None:
    words(folder / "tokenizer")
    assert not read_pipeline(folder).towers_maker()
    with pytest.raises(sn.CheckpointError, match="model_index.json names the class None"):
        read_pipeline(changed(folder, "model_index.json", _class_name=None))


def test_a_video_model_in_two_stages_is_refused(tmp_path: Path) -> None:
    """Wan 2.2: a second transformer for the last steps."""
    index = {"_class_name": "WanPipeline", **dict.fromkeys(("transformer", "transformer_2"), ["diffusers", "WanTransformer3DModel"]),
             "vae": ["diffusers", "AutoencoderKLWan"], "text_encoder": ["transformers", "UMT5EncoderModel"], "boundary_ratio": 0.9}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(sn.ConfigError, match=r"model_index.json sets transformer_2 .*; model_index.json sets boundary_ratio to 0.9; only None"):
        sn.load(tmp_path)


def test_a_published_dit_names_an_older_class(tmp_path: Path) -> None:
    """facebook/DiT-XL-2-256 says Transformer2DModel, which diffusers reads as its DiT."""
    theirs = shaken(diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=8, num_layers=1, sample_size=8, num_embeds_ada_norm=10))
    theirs.save_pretrained(tmp_path)
    newer = spec_of(tmp_path)
    assert sn.load(changed(tmp_path, "config.json", _class_name="Transformer2DModel")).spec == newer
    assert type(diffusers.Transformer2DModel.from_pretrained(tmp_path)) is diffusers.DiTTransformer2DModel
    with pytest.raises(sn.ConfigError, match="norm_type to 'layer_norm'"):
        sn.load(changed(tmp_path, "config.json", norm_type="layer_norm"))
