"""Who may see whom, as data: a boolean tensor made from where tokens stand.

Letters: B batch, T target length, S source length.

    rule       a token sees, inside its own segment
    causal     itself and everything before it
    mixed      the same, and all of its own media span
    full       everything

A window narrows what lies before: the token itself and the ``window`` - 1 places before it. A media span stays whole.
"""

from __future__ import annotations

import torch

from sensorium.types import ConfigError, Layout

__all__ = ["key_mask", "visible"]

RULES = ("causal", "mixed", "full")


def visible(target: Layout, source: Layout, rule: str, window: int | None = None) -> torch.Tensor:
    """The mask of ``target`` tokens over ``source`` tokens.

    Padding sees itself alone, so that every row of the softmax has something to sum over and nothing becomes NaN.

    Args:
        window: places of its own sample that a token sees, the last being itself; None is all. Not for "full".

    Returns:
        allowed_BTS: bool, True where the target may look.
    """
    same = target.segment_BT[:, :, None] == source.segment_BT[:, None, :]
    if rule == "full":
        return same
    if rule not in RULES:
        raise ConfigError(f"mask rule {rule!r} is not known; use one of {RULES}")
    before = target.position_BT[:, :, None] >= source.position_BT[:, None, :]
    if window is not None:
        before = before & (target.position_BT[:, :, None] < source.position_BT[:, None, :] + window)
    if rule == "mixed":
        target_span, source_span = target.span_BT[:, :, None], source.span_BT[:, None, :]
        before = before | ((target_span == source_span) & (target_span > 0))
    return same & before


def key_mask(kept_BS: torch.Tensor) -> torch.Tensor:
    """(B, 1, S) mask that hides padded sources from every target; a row with nothing kept sees everything."""
    kept = kept_BS.bool()
    return (kept | ~kept.any(dim=-1, keepdim=True))[:, None, :]
