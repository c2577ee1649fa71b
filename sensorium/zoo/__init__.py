"""The zoo: published families, each one sentence of the same parts."""

from sensorium.zoo import (  # noqa: F401 (each registers itself)
    aya_vision,
    bert,
    clip,
    cohere2,
    ctranslate2,
    deepseek,
    deepseek_vl2,
    dit,
    flamingo,
    gemma3,
    gguf,
    grok,
    idefics,
    llama,
    llava,
    llava_next,
    nano,
    qwen,
    qwen_vl,
    siglip,
    smolvlm,
    vit,
    whisper,
)
from sensorium.zoo.registry import ENTRIES, Entry

__all__ = ["ENTRIES", "Entry"]
