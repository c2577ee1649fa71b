"""The zoo: published families, each one sentence of the same parts."""

from sensorium.zoo import aya_vision, bert, clip, cohere2, ctranslate2, dit, flamingo, gemma3, gguf, llama, llava, nano, siglip, vit, whisper  # noqa: F401 (each registers itself)
from sensorium.zoo.registry import ENTRIES, Entry

__all__ = ["ENTRIES", "Entry"]
