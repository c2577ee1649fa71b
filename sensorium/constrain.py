"""Constrain: an answer that keeps to a JSON schema, by allowing at each step only the tokens that can still lead to one.

    schema -> checked, made tight -> a grammar over the tokenizer's tokens (llguidance) -> a mask a step

Small models ramble where a schema lets them: in blanks, in long strings, in digits without end. What a schema leaves open is therefore
bounded here, and blanks stand only where ``json.dumps`` puts them; every answer still keeps to the schema as it was given. ``oneOf`` is
read as ``anyOf``.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch

from sensorium.codecs.text import Tokenizer
from sensorium.types import ConfigError

__all__ = ["Constraint"]

LARGEST = 2**15  # characters of a schema
DEEPEST = 64  # levels of a schema
MULTIPLES = 10_000  # digits of all multipleOf together: a state each, and 10**6 of them take ten seconds to work out
KEPT = 64  # compiled grammars remembered for one tokenizer
ABOUT_STRINGS = {"maxLength", "pattern", "format", "enum", "const"}
ABOUT_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "const"}
ABOUT_KEYS = {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref", "enum", "const"}


class Constraint:
    """What may come next in one answer.

    Args:
        schema: JSON schema, as a dict.
        tokenizer: of the model.
        end: ids that end an answer.
        longest: characters of a string that the schema does not bound; lists are bounded to a sixteenth of it.

    Raises:
        ConfigError: the schema is broken, too large, or asks for what cannot be guaranteed.
    """

    def __init__(self, schema: dict[str, Any], tokenizer: Tokenizer, end: Sequence[int], longest: int = 400) -> None:
        text = _checked(schema)
        if not end:
            raise ConfigError("the model has no end token, so an answer to a schema cannot end; use a chat model")
        self._matcher = _compiled(schema, text, tokenizer, tuple(end), longest).deep_copy()

    def mask(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The scores with -inf for what cannot come next."""
        import numpy as np

        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        self._check()
        allowed = torch.zeros(logits_V.shape[-1], dtype=torch.bool)
        known = min(len(bits), len(allowed))
        allowed[:known] = torch.from_numpy(bits[:known].astype(bool))
        return logits_V.masked_fill(~allowed.to(logits_V.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Take note of the token that was chosen."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def done(self) -> bool:
        """Nothing can follow."""
        return self._matcher.is_stopped()

    @property
    def whole(self) -> bool:
        """What was accepted so far keeps to the schema as it stands."""
        return self._matcher.is_accepting()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ConfigError(f"the schema cannot be followed ({self._matcher.get_error()[:200]}); make it simpler")


def _checked(schema: dict[str, Any]) -> str:
    """The schema as text, if it is of a size to be worked with."""
    if not isinstance(schema, dict):
        raise ConfigError(f"a schema is an object such as {{'type': 'object'}}, not {type(schema).__name__}")
    try:
        text = json.dumps(schema, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"the schema has no JSON form ({str(error)[:80]}); use plain dicts, lists, texts and numbers") from error
    if len(text) > LARGEST:
        raise ConfigError(f"the schema has {len(text):,} characters, wanted at most {LARGEST:,}; make it smaller")
    states, level = 0, [schema]
    for _ in range(DEEPEST):
        states += sum(_digits(node["multipleOf"]) for node in level if isinstance(node, dict) and "multipleOf" in node)
        level = [child for node in level if isinstance(node, (dict, list)) for child in (node.values() if isinstance(node, dict) else node)]
    if level:
        raise ConfigError(f"the schema is more than {DEEPEST} levels deep; make it flatter")
    if states > MULTIPLES:
        raise ConfigError(f"the schema's multipleOf come to {states:,}, wanted at most {MULTIPLES:,} together; use fewer or rounder ones")
    return text


def _digits(multiple: Any) -> int:
    """The significant digits of a number as one integer: 0.25 -> 25."""
    if isinstance(multiple, bool) or not isinstance(multiple, (int, float)):
        raise ConfigError(f"the schema has a multipleOf of {str(multiple)[:40]!r}, wanted a number")
    digits = f"{multiple:.15g}".split("e")[0].replace(".", "").strip("-0")
    return int(digits or 0)


def _tight(node: Any, longest: int, closed: bool = True) -> Any:
    """The same schema with bounds where it has none; ``closed`` says that an object may refuse keys which its schema does not name."""
    if not isinstance(node, dict):
        return node
    out = dict(node)
    for key, value in node.items():
        if key in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            out[key] = {name: _tight(inner, longest) for name, inner in value.items()}
        elif key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
            out[key] = [_tight(inner, longest, closed=closed and key != "allOf") for inner in value]
        elif key in ("items", "additionalProperties"):
            out[key] = _tight(value, longest)
    kinds = node.get("type", "object" if "properties" in node else ())
    kinds = {kinds} if isinstance(kinds, str) else {kind for kind in kinds if isinstance(kind, str)} if isinstance(kinds, list) else set()
    if "string" in kinds and not ABOUT_STRINGS & set(node):
        out["maxLength"] = max(longest, _count(node, "minLength"))
    if "array" in kinds and "maxItems" not in node:
        out["maxItems"] = max(longest // 16, _count(node, "minItems"), 1)
    if {"integer", "number"} & kinds and not ABOUT_NUMBERS & set(node):
        out |= {"minimum": -(10**12), "maximum": 10**12} | ({"multipleOf": 1e-6} if "number" in kinds else {})
    if "object" in kinds and closed and "properties" in node and not ABOUT_KEYS & set(node):
        out["additionalProperties"] = False
    return out


def _count(node: dict[str, Any], name: str) -> int:
    value = node.get(name, 0)
    return value if isinstance(value, int) else 0


class _Grammars:
    """One tokenizer as the library knows it, and the grammars compiled over it."""

    def __init__(self, tokenizer: Tokenizer, end: tuple[int, ...]) -> None:
        try:
            import llguidance
        except ImportError as error:
            raise ConfigError("answers to a schema want the llguidance library; pip install 'sensorium[chat]'") from error
        self.inner = llguidance.LLTokenizer(tokenizer.to_json(), eos_token=list(end), slices=llguidance.LLTokenizer.json_slices())
        self.kept: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def compile(self, schema: dict[str, Any]) -> tuple[Any, str]:
        """A matcher for the schema, and what is wrong with it."""
        import llguidance

        options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "coerce_one_of": True}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        matcher = llguidance.LLMatcher(self.inner, grammar, log_level=0, limits=llguidance.LLParserLimits(verbose_errors=False))
        return matcher, matcher.get_error()


_KNOWN: WeakKeyDictionary[Tokenizer, dict[tuple[int, ...], _Grammars]] = WeakKeyDictionary()


def _compiled(schema: dict[str, Any], text: str, tokenizer: Tokenizer, end: tuple[int, ...], longest: int) -> Any:
    """The grammar of a schema, remembered; where the tight one contradicts itself (parts joined by allOf), that of the schema as given."""
    by_end = _KNOWN.setdefault(tokenizer, {})
    if end not in by_end:
        by_end[end] = _Grammars(tokenizer, end)
    grammars, key = by_end[end], (text, longest)
    if key not in grammars.kept:
        matcher, problem = grammars.compile(_tight(schema, longest))
        if problem:
            matcher, problem = grammars.compile(schema)
        if problem:
            raise ConfigError(f"the schema cannot be used ({problem.splitlines()[0][:200]}); mend or simplify it")
        grammars.kept[key] = matcher
        while len(grammars.kept) > KEPT:
            grammars.kept.popitem(last=False)
    grammars.kept.move_to_end(key)
    return grammars.kept[key]
