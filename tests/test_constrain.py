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


def written(schema: dict, seed: int, which: str = "bytes", most: int = 3000, longest: int = 40, tokens: int | None = None) -> str | None:
    """What a model that says anything at random writes; None where it was cut off."""
    tokenizer, generator = TOKENIZERS[which], torch.Generator().manual_seed(seed)
    constraint, ids = Constraint(schema, tokenizer, ENDS[which], longest, tokens), []
    most = most if tokens is None else tokens
    while not constraint.done and len(ids) < most:
        score = constraint.mask(torch.randn(tokenizer.vocab + 5, generator=generator))
        assert torch.isinf(score[tokenizer.vocab :]).all()
        token = int(score.argmax())
        if token in ENDS[which]:
            assert constraint.whole
            return tokenizer.decode(ids)
        token = constraint.accept(token)
        if token in ENDS[which]:
            break
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
    {"not": {"type": "string"}}, {"allOf": [{"type": "string"}, {"type": "number"}]},
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


NESTED = {"$defs": {"one": {"type": "object", "required": list("abc"), "properties": {key: {"type": "string", "minLength": 3} for key in "abc"}}},
          "type": "object", "required": ["rows", "kind", "code"], "properties": {
    "rows": {"type": "array", "items": {"$ref": "#/$defs/one"}}, "kind": {"enum": ["long enough", "x"]},
    "code": {"type": "string", "pattern": "^a*b[0-9]{4}$"}, "any": {}}}


@pytest.mark.parametrize("which", TOKENIZERS)
@pytest.mark.parametrize("schema", [ANIMAL, NESTED, {"type": "number"}, {"type": "string"}, {"type": "array", "items": ANIMAL}],
                         ids=["animal", "nested", "number", "string", "animals"])
def test_an_answer_is_whole_within_the_tokens_there_are(schema: dict, which: str) -> None:
    """From the least that will do up to plenty, noise never ends inside its JSON; with less, the number that it takes is said."""
    with pytest.raises(ConfigError, match=r"takes [\d,]+ tokens, and the answer may have 0; raise max_tokens") as error:
        Constraint(schema, TOKENIZERS[which], ENDS[which], 40, 0)
    least = int(str(error.value).split("takes ")[1].split()[0].replace(",", ""))
    for tokens in (least, least + 1, least + 7, least + 40, least + 300):
        for seed in range(3):
            json.loads(written(schema, seed, which, tokens=tokens))


@pytest.mark.parametrize("schema", [{"type": "number"}, {"type": "integer"}, {"anyOf": [{"type": "number"}, {"type": "string"}]},
                                    {"type": "string", "pattern": "^(ab)*$"}, {"type": "array", "items": {"type": "number"}}],
                         ids=["number", "integer", "either", "pattern", "numbers"])
def test_what_is_whole_already_is_left_so(schema: dict) -> None:
    """A number is whole after a digit, and not after its point: where nothing more fits, it ends."""
    for tokens in range(4, 16):
        for seed in range(12):
            text = written(schema, seed, tokens=tokens)
            assert text is not None and (json.loads(text) or True)
            assert len(TOKENIZERS["bytes"].encode(text)) <= tokens


def test_an_answer_far_from_its_end_is_closed_from_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way to the end that was known before a long text is not the one after it."""
    monkeypatch.setattr(constrain, "SLACK", 3)
    for seed in range(12):
        assert json.loads(written({"type": "array", "items": ANIMAL}, seed, tokens=120)) is not None


@pytest.mark.parametrize("name", ["path", "password", "binary", "regex", "json-pointer", "uri-reference", "ipvanyaddress", "smell", "int64"])
def test_a_format_is_a_remark(name: str) -> None:
    """JSON Schema 2020-12, 7.2.1; pydantic 2.14.3 writes these for Path, SecretStr, bytes, re.Pattern, IPvAnyAddress."""
    assert isinstance(json.loads(written({"type": "string", "format": name}, 0)), str)
    inside = {"type": "object", "properties": {"a": {"type": "integer", "format": name}}, "required": ["a"]}
    assert isinstance(json.loads(written(inside, 0))["a"], int)


def follows(schema: dict, text: str) -> bool:
    """Whether an answer to the schema may read so."""
    ids = TOKENIZERS["bytes"].encode(text)
    matcher = Constraint(schema, TOKENIZERS["bytes"], [2])._matcher
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def test_dates_are_days_that_exist() -> None:
    """By the Gregorian calendar; RFC 3339 has leap seconds and small letters, which few readers know (pydantic and datetime do not)."""
    for text, good in (("2024-02-29", True), ("2023-02-29", False), ("2000-02-29", True), ("1900-02-29", False), ("2026-11-31", False),
                       ("2026-11-30", True)):
        assert follows({"type": "string", "format": "date"}, f'"{text}"') == good
        assert follows({"type": "string", "format": "date-time"}, f'"{text}T23:59:59.25+01:00"') == good
    for time_of_day in ("T00:00:60Z", "t00:00:00Z", "T00:00:00z", "T24:00:00Z"):
        assert not follows({"type": "string", "format": "date-time"}, f'"2020-01-01{time_of_day}"')


def test_whole_numbers_past_what_floats_tell_apart() -> None:
    """The library holds bounds in float64: 2**53 + 1 becomes 2**53. What it cannot hold is bounded nearer, or refused."""
    big = 2**53
    assert follows({"type": "integer", "maximum": 2**63 - 1}, str(big)) and not follows({"type": "integer", "maximum": 2**63 - 1}, str(2**63))
    assert follows({"type": "integer", "minimum": -(2**63)}, "-5") and follows({"type": "number", "minimum": 0, "maximum": 1e300}, "1.5")
    assert not follows({"type": "integer", "minimum": 5}, "4") and not follows({"type": "integer", "exclusiveMinimum": 5}, "5")
    assert follows({"type": "integer", "minimum": 10**13}, str(10**13 + 1)) and not follows({"type": "integer", "minimum": 10**13}, str(10**13 - 1))
    assert follows({"type": "number", "minimum": 1e-9, "maximum": 2e-9}, "0.0000000015")
    for schema in ({"type": "integer", "minimum": big + 1}, {"const": big + 1}, {"enum": [1, {"a": [2**60]}]},
                   {"type": "integer", "maximum": -big - 2}):
        with pytest.raises(ConfigError, match="past 2\\^53"):
            Constraint(schema, TOKENIZERS["bytes"], [2])
