"""Constrained answers: whatever a model prefers, what comes out keeps to the schema; bad schemas are refused at once."""

from __future__ import annotations

import json
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sensorium as sn
from sensorium import constrain
from sensorium.constrain import Constraint
from sensorium.types import ConfigError

from . import chats

TOKENIZERS = {name: sn.Tokenizer.from_text(make().to_str()) for name, make in chats.TOKENIZERS.items()}
ENDS = {"bytes": [2], "legacy": [2], "first": [2]}


def written(schema: dict, seed: int, which: str = "bytes", most: int = 3000, longest: int = 40) -> str | None:
    """What a model that says anything at random writes; None where it was cut off."""
    tokenizer, generator = TOKENIZERS[which], torch.Generator().manual_seed(seed)
    constraint, ids = Constraint(schema, tokenizer, ENDS[which], longest), []
    while not constraint.done and len(ids) < most:
        score = constraint.mask(torch.randn(tokenizer.vocab + 5, generator=generator))
        assert torch.isinf(score[tokenizer.vocab :]).all()
        token = int(score.argmax())
        if token in ENDS[which]:
            assert constraint.whole
            return tokenizer.decode(ids)
        constraint.accept(token)
        ids.append(token)
    return tokenizer.decode(ids) if constraint.whole else None


ANIMAL = {"type": "object", "required": ["name", "legs", "kind", "weight", "tags"], "properties": {
    "name": {"type": "string"}, "legs": {"type": "integer", "minimum": 0, "maximum": 8}, "kind": {"enum": ["cat", "dog"]},
    "weight": {"type": "number"}, "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}}, "wild": {"type": "boolean"}}}


@pytest.mark.parametrize("which", TOKENIZERS)
def test_noise_becomes_what_the_schema_says(which: str) -> None:
    for seed in range(6):
        found = json.loads(written(ANIMAL, seed, which))
        assert set(found) - {"wild"} == set(ANIMAL["required"]) and found["kind"] in ("cat", "dog") and 0 <= found["legs"] <= 8
        assert isinstance(found["name"], str) and len(found["name"]) <= 40 and abs(found["weight"]) <= 1e12
        assert len(found["tags"]) <= 2 and all(len(tag) <= 5 for tag in found["tags"])


def test_nothing_rambles() -> None:
    """Every kind of value, drawn at random, comes to an end, with blanks only where json.dumps puts them."""
    for schema in ({"type": "number"}, {"type": "integer"}, {"type": "string"}, {"type": "array", "items": {"type": "number"}}, ANIMAL):
        for seed in range(5):
            text = written(schema, seed, most=400)
            assert text is not None, f"{schema} went on and on"
            json.loads(text)
    assert '", "legs": ' in written(ANIMAL, 0)


def test_a_bound_of_the_schema_wins_over_ours() -> None:
    assert len(json.loads(written({"type": "string", "minLength": 90}, 0))) >= 90
    assert len(json.loads(written({"type": "array", "minItems": 9, "items": {"const": 1}}, 0))) == 9
    joined = {"allOf": [{"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]},
                        {"type": "object", "properties": {"b": {"const": 2}}, "required": ["b"]}]}
    assert json.loads(written(joined, 1))["b"] == 2
    tree = {"$defs": {"t": {"type": "object", "properties": {"v": {"type": "integer"}, "l": {"$ref": "#/$defs/t"}}, "required": ["v"]}},
            "$ref": "#/$defs/t"}
    assert "v" in json.loads(written(tree, 3, most=4000))
    assert {type(json.loads(written({"type": ["string", "null"]}, seed))) for seed in range(20)} == {str, type(None)}
    assert json.loads(written({"oneOf": [{"const": "a"}, {"const": 3}]}, 2)) in ("a", 3)


@pytest.mark.parametrize("schema", [
    True, [], "string", {"type": "wibble"}, {"$ref": "#/nowhere"}, {"$ref": "http://example.com/schema"}, {"type": "string", "pattern": "("},
    {"not": {"type": "string"}}, {"type": "string", "format": "smell"}, {"allOf": [{"type": "string"}, {"type": "number"}]},
    {"type": "integer", "multipleOf": 999_983}, {"type": "number", "multipleOf": 12.34567}, {"type": "integer", "multipleOf": "many"},
    {"const": float("nan")}, {"const": {1, 2}}, {"description": "a" * 40_000}, {"type": "string", "multipleOf": True},
    {"type": "object", "properties": {"a": 3}}, {"type": "object", "properties": []}, {"type": 5}, {"items": {"type": ["string", "smell"]}},
], ids=lambda schema: str(schema)[:40])
def test_a_bad_schema_is_refused_at_once(schema: object) -> None:
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="schema"):
        Constraint(schema, TOKENIZERS["bytes"], [2])
    assert time.perf_counter() - start < 1


def test_deep_schemas_are_refused() -> None:
    schema: dict = {"type": "string"}
    for _ in range(70):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConfigError, match="levels deep"):
        Constraint(schema, TOKENIZERS["bytes"], [2])
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ConfigError, match="JSON form|characters"):
        Constraint(schema, TOKENIZERS["bytes"], [2])
    with pytest.raises(ConfigError, match="no end token"):
        Constraint({"type": "string"}, TOKENIZERS["bytes"], [])


@pytest.mark.parametrize("schema", [
    {"type": "string", "pattern": "(a+)+b"}, {"type": "string", "pattern": "(a{1000}){1000}"}, {"type": "string", "pattern": "^(a?){200}a{200}$"},
    {"type": "string", "pattern": "(.|a){0,500}b(.|a){0,500}"}, {"type": "string", "pattern": "(.*a){20}.*"},
    {"type": "array", "minItems": 10**6, "maxItems": 10**9}, {"type": "string", "minLength": 10**9},
    {"allOf": [{"anyOf": [{"type": "object", "properties": {f"p{i}": {"const": j}}} for j in range(10)]} for i in range(6)]},
    {"enum": [f"value {i}" * 3 for i in range(800)]}, {"type": "object", "properties": {f"key{i}": {"type": "string"} for i in range(900)}},
], ids=lambda schema: str(schema)[:40])
def test_a_hard_schema_takes_no_second(schema: dict) -> None:
    """Compiled and followed for 20 tokens, or refused, in a second all together."""
    start = time.perf_counter()
    try:
        written(schema, 0, most=20)
    except ConfigError as error:
        assert "schema" in str(error)
    assert time.perf_counter() - start < 1


def test_compiled_grammars_are_remembered_and_forgotten() -> None:
    tokenizer = sn.Tokenizer.from_text(TOKENIZERS["bytes"].to_json())
    for number in range(constrain.KEPT + 20):
        Constraint({"const": number}, tokenizer, [2])
    kept = constrain._KNOWN[tokenizer][(2,)].kept
    assert len(kept) == constrain.KEPT
    matcher = kept[next(reversed(kept))]
    first, second = Constraint({"const": constrain.KEPT + 19}, tokenizer, [2]), Constraint({"const": constrain.KEPT + 19}, tokenizer, [2])
    assert kept[next(reversed(kept))] is matcher
    first.accept(tokenizer.encode("8")[0])
    assert first._matcher is not second._matcher and not second.whole
    with pytest.raises(ConfigError, match="cannot be followed"):
        second.accept(tokenizer.encode("x")[0])


VALUES = st.recursive(st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5) | st.sampled_from(["string", "object", "#", "integer"]),
                      lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                          st.sampled_from(["type", "properties", "items", "anyOf", "allOf", "$ref", "$defs", "enum", "minLength", "maxItems",
                                           "multipleOf", "required", "pattern", "additionalProperties", "a"]), inner, max_size=4), max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_any_json_is_a_schema_or_a_config_error(schema: object) -> None:
    try:
        constraint = Constraint(schema, TOKENIZERS["bytes"], [2])
        constraint.mask(torch.zeros(400))
    except ConfigError:
        pass
