"""Settings of published folders: every key is built, harmless, or refused by name."""

from __future__ import annotations

import pytest

import sensorium as sn
from sensorium.settings import Keys, check_settings, rows

KEYS = Keys(built=("width",), only={"act": "silu", "scale": 1 / 255, "bias": (False, None)}, harmless={"note": "a remark"},
            parts={"rope": Keys(built=("theta",)), "labels": Keys(parts={"*": Keys()})})


@pytest.mark.parametrize("settings", [
    {}, {"width": 3, "act": "silu", "scale": 0.00392156862745098, "bias": None, "note": [1], "rope": {"theta": 2.0}, "labels": {"0": "cat"}},
    {"rope": None}, {"else": None, "more": False, "other": {}, "some": [], "text": "", "none": 0.0}, {"rope": {"else": None}}])
def test_what_is_declared_or_says_nothing_passes(settings: dict) -> None:
    check_settings({"config.json": settings}, {"config.json": KEYS})


@pytest.mark.parametrize(("settings", "says"), [
    ({"act": "gelu"}, "sets act to 'gelu'; only 'silu' is built"), ({"act": None}, "act to None"), ({"scale": 1 / 256}, "scale to 0.0039"),
    ({"bias": True}, "bias to True; only False or None"), ({"bias": 0}, "bias to 0"), ({"other": 3}, "sets other to 3, which is not built"),
    ({"rope": {"theta": 1, "yarn": 4}}, "sets rope.yarn to 4"), ({"rope": "linear"}, "sets rope to 'linear'"),
    ({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}, "sets a to 1, which is not built;.*; and 1 more")])
def test_anything_else_is_refused_by_file_and_name(settings: dict, says: str) -> None:
    with pytest.raises(sn.ConfigError, match=f"config.json .*{says}"):
        check_settings({"config.json": settings}, {"config.json": KEYS})
    check_settings({"other.json": settings}, {"config.json": KEYS})  # a file that nobody declared


def test_of_two_declarations_the_later_counts() -> None:
    both = KEYS | Keys(built=("act",), harmless={"width": "unused"}, parts={"note": Keys()})
    assert both == Keys(("act",), {"scale": 1 / 255, "bias": (False, None)}, {"width": "unused"}, {**KEYS.parts, "note": Keys()})
    assert [what for *_, what in rows(both)][:2] == ["built", f"only {1 / 255!r}; else refused"]
