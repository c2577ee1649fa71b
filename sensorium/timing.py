"""Timing: when each word of a transcript was said, from where the model looked while it wrote the word.

    looks (heads, tokens, sources) -> standard scores -> median over time -> mean over heads -> cheapest monotone path -> word times

Letters: B batch, N heads, T tokens, S sources (20 ms each).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from sensorium.fuse import Watch
from sensorium.languages import CLOSERS, OPENERS, is_mark, pieces, spaceless
from sensorium.layers.cache import Cache
from sensorium.model import ModelNet
from sensorium.types import Batch

__all__ = ["by_character", "cheapest_path", "split_words", "Spoken", "time_words"]

SOURCE_S = 0.02
SMOOTH = 7  # sources of the median filter
LONGEST = 2.0  # times the median word: a word that a pause was counted into is cut to this


@dataclass(frozen=True)
class Spoken:
    """A word, its place in the window in seconds, and the mean probability of its tokens."""

    text: str
    start_s: float
    end_s: float
    probability: float


def time_words(
    model: ModelNet, features_BSD: torch.Tensor, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], end: int,
    lengths_s: Sequence[float], words: Sequence[Sequence[tuple[str, int]]],
) -> list[list[Spoken]]:
    """Times of the words of several windows.

    Args:
        features_BSD: what the model heard, a row for each window.
        prompts: tokens before the text, of one length for all, the last of them the mark for "no times".
        texts: text tokens.
        end: id that ends a text.
        lengths_s: how much of each window is sound; no word is said after that.
        words: (text, how many tokens) of each window's words; see :func:`split_words`.
    """
    rows = [[*prompt, *text, end] for prompt, text in zip(prompts, texts, strict=True)]
    token_BT = torch.full((len(rows), max(map(len, rows))), end)
    for row_T, row in zip(token_BT, rows, strict=True):
        row_T[: len(row)] = torch.tensor(row)
    cache, watch = Cache(), Watch(model.fuse["cross"], model.fuse["cross"].spec.timing or _upper_half(model))
    cache.memory = model.remember(features_BSD)
    state_BTD = model.read(Batch(token_BT=token_BT), cache, watch)
    out = []
    for index, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        first, count = len(prompt) - 1, len(text)  # the state at ``first`` writes the first word
        logits_TV = model.logits(state_BTD[index, first : first + count])
        probability_T = logits_TV.float().softmax(dim=-1).gather(1, torch.tensor(text)[:, None])[:, 0].tolist() if text else []
        sources = max(min(round(lengths_s[index] / SOURCE_S), features_BSD.shape[1]), 1)
        start_T = _token_times(watch.looks_BNTS[index, :, first : first + count + 1, :sources].float())
        out.append(_spoken(words[index], start_T, probability_T))
    return out


def _upper_half(model: ModelNet) -> list[tuple[int, int]]:
    """Where nobody says which heads follow time: all heads of the upper half of the layers."""
    spec = model.fuse["cross"].spec
    return [(layer, head) for layer in range(spec.layers // 2, spec.layers) for head in range(spec.heads)]


def _token_times(looks_NTS: torch.Tensor) -> np.ndarray:
    """When each token was said, and then when the last one ended, (T,) seconds."""
    looks_NTS = looks_NTS / looks_NTS.sum(dim=-1, keepdim=True)
    spread, mean = torch.std_mean(looks_NTS, dim=1, keepdim=True, correction=0)
    score_NTS = (looks_NTS - mean) / spread.clamp(min=1e-10)
    if score_NTS.shape[-1] > SMOOTH // 2:
        padded = F.pad(score_NTS, (SMOOTH // 2, SMOOTH // 2), mode="reflect")
        score_NTS = padded.unfold(-1, SMOOTH, 1).median(dim=-1).values
    token, source = cheapest_path(-score_NTS.mean(dim=0).double().numpy())
    arrives = np.concatenate([[True], np.diff(token) > 0])
    return source[arrives] * SOURCE_S


def cheapest_path(cost_TS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dynamic time warping: the path from the first corner to the last, by steps of one in T, in S or in both, of least total cost.

    Worked out a diagonal at a time; all places of one depend only on the two before it.
    """
    height, width = cost_TS.shape
    total = np.full((height + 1, width + 1), np.inf)
    came = np.zeros((height + 1, width + 1), dtype=np.int8)
    total[0, 0] = 0
    for diagonal in range(height + width - 1):
        row = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        column = diagonal - row
        before = np.stack([total[row, column], total[row, column + 1], total[row + 1, column]])  # both, T alone, S alone
        best = before.argmin(axis=0)
        came[row + 1, column + 1] = best
        total[row + 1, column + 1] = cost_TS[row, column] + before[best, np.arange(len(row))]
    row, column, path = height, width, []
    while row > 0 and column > 0:
        path.append((row - 1, column - 1))
        step = came[row, column]
        row, column = row - (step != 2), column - (step != 1)
    rows, columns = np.array(path[::-1]).T
    return rows, columns


def split_words(tokens: Sequence[int], decode: Callable[[list[int]], str]) -> list[tuple[str, int]]:
    """Text tokens as words: (text, how many tokens); all of them together are the text.

    A word begins at a blank, or at every whole character of a script without blanks, whatever the language of the rest; punctuation stays
    with the word it leans on.
    """
    whole: list[tuple[str, int]] = []
    held: list[int] = []
    for token in tokens:  # a character's bytes may be spread over several tokens
        held.append(token)
        text = decode(held)
        if "\ufffd" not in text:
            whole.append((text, len(held)))
            held = []
    if held:
        whole.append((decode(held), len(held)))
    words: list[tuple[str, int]] = []
    for text, count in whole:
        bare, last = text.strip(), words[-1][0].strip() if words else ""
        lone = bool(bare) and all(letter in string.punctuation or letter in CLOSERS for letter in bare)
        opens = bool(last) and all(letter in OPENERS for letter in last)
        leans = bool(bare) and all(letter in CLOSERS for letter in bare) and not text.startswith(" ")
        apart = text.startswith(" ") or lone or ((spaceless(bare[:1]) or spaceless(last[-1:])) and not is_mark(bare[:1]))
        if words and (leans or (opens and not text.startswith(" ")) or not apart):
            words[-1] = (words[-1][0] + text, words[-1][1] + count)
        else:
            words.append((text, count))
    return words


def by_character(spoken: Sequence[Spoken]) -> list[Spoken]:
    """Characters of scripts without blanks as words of their own: a word's time is shared evenly, punctuation stays with what it follows."""
    out = []
    for word in spoken:
        letters = pieces(word.text)
        step = (word.end_s - word.start_s) / max(len(letters), 1)
        out += [Spoken(letter, word.start_s + step * i, word.start_s + step * (i + 1), word.probability) for i, letter in enumerate(letters)]
    return out


def _spoken(words: Sequence[tuple[str, int]], start_T: np.ndarray, probability_T: Sequence[float]) -> list[Spoken]:
    out, at = [], 0
    for text, count in words:
        start, end = float(start_T[at]), float(start_T[at + count])
        out.append(Spoken(text, start, end, sum(probability_T[at : at + count]) / count))
        at += count
    lengths = sorted(word.end_s - word.start_s for word in out if word.end_s > word.start_s)
    if not lengths:
        return out
    longest = LONGEST * min(lengths[len(lengths) // 2], 0.7)
    for index, word in enumerate(out):
        if word.end_s - word.start_s <= longest:
            continue
        if word.text.strip().endswith(tuple(".。!！?？")) or (index + 1 == len(out)):  # the pause follows
            out[index] = Spoken(word.text, word.start_s, word.start_s + longest, word.probability)
        elif index == 0 or out[index - 1].text.strip().endswith(tuple(".。!！?？,，")):  # the pause goes before
            out[index] = Spoken(word.text, word.end_s - longest, word.end_s, word.probability)
    return out
