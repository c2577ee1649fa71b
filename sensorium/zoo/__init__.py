"""The zoo: published families, each one sentence of the same parts."""

from sensorium.zoo import bert, clip, ctranslate2, dit, flamingo, gguf, llama, llava, nano, siglip, whisper  # noqa: F401 (each registers itself)
from sensorium.zoo.registry import ENTRIES, Entry

__all__ = ["ENTRIES", "Entry"]
