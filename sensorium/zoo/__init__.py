"""The zoo: published families, each one sentence of the same parts."""

from sensorium.zoo import (  # noqa: F401 (each registers itself)
    ar_image,
    aya_vision,
    bert,
    clip,
    cohere2,
    ctranslate2,
    deepseek,
    deepseek_vl2,
    dit,
    flamingo,
    gan,
    gemma3,
    gguf,
    grok,
    idefics,
    janus,
    llama,
    llava,
    llava_next,
    nano_whole,
    pipeline,
    qwen,
    qwen_vl,
    siglip,
    smolvlm,
    stable_diffusion,
    stable_diffusion_3,
    vit,
    wan,
    whisper,
)
from sensorium.zoo.registry import ENTRIES, Entry

__all__ = ["ENTRIES", "Entry"]
