"""How well a language model keeps its knowledge in few bits: surprise at a fixed text against the same weights in float32, and its speed.

    text -> ids -> windows of one length -> nats a token, and from them perplexity; a question -> its answer -> tokens a second

The text is the first chapter of Lewis Carroll's "Alice's Adventures in Wonderland" (1865, public domain), in ``texts/alice.txt``.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import sensorium as sn
from sensorium.evals.figures import Figure, Z, commit
from sensorium.fused import open_reader
from sensorium.generate import Sampling, stream_ids
from sensorium.types import ConfigError

__all__ = ["evaluate_language", "surprise", "TEXT", "tokens_a_second"]

TEXT = Path(__file__).parent / "texts" / "alice.txt"
FIRST = 16  # places of a window that are read and not judged: without a beginning, everybody is surprised


@torch.inference_mode()
def surprise(model: sn.ModelNet, ids: list[int], window: int = 256) -> torch.Tensor:
    """Nats a token, (N,) float64: every token once, after those before it in its window.

    Each window begins with the last tokens of the one before, which are read and not judged again. The tokens go through what decoding
    goes through, one step each, so that a packed model is judged with all the rounding that its answers have.
    """
    if len(ids) <= FIRST or window <= FIRST:
        raise ConfigError(f"{len(ids)} tokens in windows of {window} were given; more than {FIRST} of each are needed")
    reader, out = open_reader(model, room=window), []
    for start in range(0, len(ids) - FIRST, window - FIRST):
        reader.rewind(0)
        score_V = reader.extend(torch.tensor([ids[start : start + FIRST]]))[0]
        for token in ids[start + FIRST : start + window]:
            out.append(F.cross_entropy(score_V.double(), torch.tensor(token)))
            score_V = reader.extend(torch.tensor([[token]]))[0]
    return torch.stack(out)


def tokens_a_second(model: sn.ModelNet, prompt: list[int], tokens: int = 64, times: int = 5) -> float:
    """Median speed of answering one prompt greedily; reading the prompt is not counted."""
    found = []
    for _ in range(times):
        reader = open_reader(model, room=len(prompt) + tokens)
        stream = stream_ids(reader, torch.tensor([prompt]), Sampling(max_tokens=tokens))
        next(stream)
        start = time.perf_counter()
        count = sum(1 for _ in stream)
        found.append(count / (time.perf_counter() - start))
    return sorted(found)[len(found) // 2]


def evaluate_language(packed: sn.ModelNet, exact: sn.ModelNet, codecs: sn.Codecs, tokens: int | None = None) -> list[Figure]:
    """How much larger the packed model's perplexity is, as a share; and both perplexities beside it.

    Args:
        packed: in few bits.
        exact: the same weights in float32.
        codecs: of both.
        tokens: look at the first so many of the text; None: all.
    """
    ids = codecs.text.encode(TEXT.read_text(encoding="utf-8"))[:tokens]
    ours, theirs = surprise(packed, ids), surprise(exact, ids)
    more = ours - theirs
    spread = Z * float(more.std()) / math.sqrt(len(more))
    low, value, high = (math.expm1(float(more.mean()) + shift) for shift in (-spread, 0.0, spread))
    beside = {"perplexity packed": math.exp(float(ours.mean())), "perplexity float32": math.exp(float(theirs.mean()))}
    return [Figure("perplexity above float32", value, low, high, len(more), 0, commit(), beside)]
