"""Constrain: an answer that keeps to a JSON schema, by allowing at each step only the tokens that can still lead to one.

    schema -> checked, made tight -> a grammar over the tokenizer's tokens (llguidance) -> a mask a step

Small models ramble where a schema lets them: in blanks, in long strings, in digits without end. What a schema leaves open is therefore
bounded here, and blanks stand only where ``json.dumps`` puts them; every answer still keeps to the schema as it was given. ``oneOf`` is
read as ``anyOf``. A ``format`` that is not known is a remark, as JSON Schema (2020-12, 7.2.1) has it.

An answer of at most so many tokens is whole within them: a token after which the shortest known end would not fit is replaced by the next one
of that end.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
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
EXACT = 2**53  # the grammar library holds bounds in float64, which tells whole numbers apart up to here
REACH = 10**12  # of a number that the schema does not bound
TRIES = 8  # ways to an end that are looked for: the first straight, the rest by chance, for patterns in which the straight one runs in circles
SLACK = 200  # tokens: with more than these to spare, a piece of a string or of a number is not checked
_DATE = ("(?:(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
         "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29))")
_KNOWN_FORMATS = {"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"}
_PATTERNS = {  # what the library knows too loosely (days that do not exist, a second 60, small letters), and what it does not know
    "date": f"^{_DATE}$", "date-time": f"^{_DATE}T[^:]+:[0-9]{{2}}:[0-5][0-9](?:\\.[0-9]{{1,6}})?(?:Z|[+-].+)$",
    "base64": "^(?:[A-Za-z0-9+/]{4}){1,64}$", "base64url": "^(?:[A-Za-z0-9_-]{4}){1,64}$", "byte": "^(?:[A-Za-z0-9+/]{4}){1,64}$",
    **{f"uuid{n}": f"^[0-9a-f]{{8}}-[0-9a-f]{{4}}-{n}[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}$" for n in range(1, 9)}}
ABOUT_STRINGS = {"maxLength", "pattern", "format", "enum", "const"}
ABOUT_KEYS = {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref", "enum", "const"}


class Constraint:
    """What may come next in one answer.

    Args:
        schema: JSON schema, as a dict.
        tokenizer: of the model.
        end: ids that end an answer.
        longest: characters of a string that the schema does not bound; lists are bounded to a sixteenth of it.
        tokens: most tokens of the answer, its end token not among them; None: as many as it takes.

    Raises:
        ConfigError: the schema is broken, too large, asks for what cannot be guaranteed, or for more than ``tokens`` hold.
    """

    def __init__(self, schema: dict[str, Any], tokenizer: Tokenizer, end: Sequence[int], longest: int = 400, tokens: int | None = None) -> None:
        text = _checked(schema)
        if not end:
            raise ConfigError("the model has no end token, so an answer to a schema cannot end; use a chat model")
        grammars, matcher = _compiled(schema, text, tokenizer, tuple(end), longest)
        self._matcher, self._closing, self._ends, self._left = matcher.deep_copy(), grammars.closing, tuple(end), tokens
        self._way: list[int] | None = None  # tokens that end the answer from here
        if tokens is not None:
            way = self._closing.way(self._matcher, tokens)
            if way is None:
                least = self._closing.way(self._matcher, LARGEST)
                needs = f"{len(least):,}" if least is not None else "more"
                raise ConfigError(f"the schema's shortest answer found takes {needs} tokens, and the answer may have {tokens:,}; raise max_tokens, "
                                  "or ask for less")
            self._way, self._needs = way, len(way)

    def mask(self, logits_V: torch.Tensor) -> torch.Tensor:
        """The scores with -inf for what cannot come next."""
        import numpy as np

        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        self._check()
        allowed = torch.zeros(logits_V.shape[-1], dtype=torch.bool)
        known = min(len(bits), len(allowed))
        allowed[:known] = torch.from_numpy(bits[:known].astype(bool))
        return logits_V.masked_fill(~allowed.to(logits_V.device), float("-inf"))

    def accept(self, token: int) -> int:
        """Take note of the token that was chosen, or of another where after that one the answer could not end in time; returns it.

        Where the answer is whole and nothing else fits, that is an end token, which ends it.
        """
        if self._left is not None:
            token = self._in_time(token)
        if token not in self._ends:
            self._matcher.consume_token(token)
            self._check()
        return token

    def _in_time(self, token: int) -> int:
        self._left -= 1
        if self._left - self._needs > SLACK and not self._closing.opens(token):
            self._way = None  # the one known is of an earlier place
            return token
        after = self._matcher.deep_copy()
        after.consume_token(token)
        way = self._closing.way(after, self._left)
        if way is None:
            now = self._closing.way(self._matcher, self._left + 1) if self._way is None else self._way
            if now is None:
                raise ConfigError("the answer cannot be ended by its schema within its tokens; raise max_tokens, or bound the schema's patterns")
            token, *way = now or [self._ends[0]]
        self._way, self._needs = way, len(way)
        return token

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


class _Closing:
    """Short ends of answers: which tokens bring what was begun to its end.

    Args:
        inner: the tokenizer as the library knows it.
    """

    def __init__(self, inner: Any) -> None:
        import numpy as np

        pieces = [inner.decode_bytes([token]) for token in range(inner.vocab_size)]
        self._lengths = np.array([len(piece) for piece in pieces])
        by_piece = {piece: token for token, piece in reversed(list(enumerate(pieces)))}
        self._first = [by_piece[piece] for piece in (b"}", b"]", b'"', b"0", b"1") if piece in by_piece]
        self._quote, self._letter = by_piece.get(b'"'), by_piece.get(b"z")  # no value begins with z: where it may stand is inside a text
        self._opening = [any(mark in piece for mark in b'{[",:') for piece in pieces]

    def opens(self, token: int) -> bool:
        """Whether a token may begin something that has to be ended."""
        return token >= len(self._opening) or self._opening[token]

    def way(self, matcher: Any, most: int) -> list[int] | None:
        """At most ``most`` tokens that end the answer, or None where none are found. The matcher stays as it is."""
        import numpy as np

        for number in range(TRIES):
            chance = np.random.default_rng(number) if number else None
            way = self._walked(matcher.deep_copy(), most, chance)
            if way is not None:
                return way
        return None

    def _walked(self, matcher: Any, most: int, chance: Any) -> list[int] | None:
        import numpy as np

        way: list[int] = []
        while not matcher.is_accepting():
            tokens = matcher.compute_ff_tokens()  # where only one text can follow
            if not tokens:
                allowed = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
                index = np.flatnonzero(allowed[: len(self._lengths)])
                if matcher.is_error() or not len(index):
                    return None
                inside = self._letter is not None and self._quote is not None and allowed[self._letter] and allowed[self._quote]
                closing = self._quote if inside else next((token for token in self._first if allowed[token]), None)
                free = int(index[self._lengths[index].argmax()]) if chance is None else int(chance.choice(index))
                tokens = [free if closing is None else closing]
            way += tokens
            if len(way) > most or not matcher.consume_tokens(tokens):
                return None
        return way


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


def _tight(node: Any, longest: int | None, closed: bool = True) -> Any:
    """The same schema as the library can hold to it, with bounds where it has none.

    Args:
        longest: characters of a string; None: only what has to be is changed.
        closed: an object may refuse keys which its schema does not name.
    """
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
        elif key in ("const", "enum") and _past(value):
            raise ConfigError(f"the schema's {key} holds a whole number past 2^53, which is not told apart from its neighbours; use a text")
    kinds = node.get("type", "object" if "properties" in node else ())
    kinds = {kinds} if isinstance(kinds, str) else {kind for kind in kinds if isinstance(kind, str)} if isinstance(kinds, list) else set()
    if isinstance(out.get("format"), str):
        out = _formatted(out)
    if {"integer", "number"} & kinds and not {"enum", "const"} & set(node):
        out = _bounded(out, whole="number" not in kinds, fill=longest is not None)
    if longest is None:
        return out
    if "string" in kinds and not ABOUT_STRINGS & set(out):
        out["maxLength"] = max(longest, _count(node, "minLength"))
    if "array" in kinds and "maxItems" not in node:
        out["maxItems"] = max(longest // 16, _count(node, "minItems"), 1)
    if "object" in kinds and closed and "properties" in node and not ABOUT_KEYS & set(node):
        out["additionalProperties"] = False
    return out


def _formatted(node: dict[str, Any]) -> dict[str, Any]:
    """A node whose format the library knows, or a pattern in its place; one that is not known is a remark."""
    out = dict(node)
    name = out.pop("format")
    if name in _KNOWN_FORMATS:
        out["format"] = name
    if "pattern" not in node and name in _PATTERNS:
        out["pattern"] = _PATTERNS[name]
    return out


def _bounded(node: dict[str, Any], whole: bool, fill: bool) -> dict[str, Any]:
    """A number with no bound past where the library tells numbers apart; with ``fill``, with both bounds.

    Raises:
        ConfigError: all that is allowed lies there.
    """
    given = {key: node[key] for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
             if isinstance(node.get(key), (int, float)) and not isinstance(node[key], bool)}
    step = 1 if whole else 0
    low = max((bound + step * (key[0] == "e") for key, bound in given.items() if key.lower().endswith("minimum")), default=None)
    high = min((bound - step * (key[0] == "e") for key, bound in given.items() if key.lower().endswith("maximum")), default=None)
    least = max(min(-REACH, (high or 0) - REACH) if low is None else low, -EXACT)
    most = min(max(REACH, (low or 0) + REACH) if high is None else high, EXACT)
    if low is not None and low > EXACT or high is not None and high < -EXACT:
        raise ConfigError(f"the schema asks for a number of {f'at least {low}' if least > EXACT else f'at most {high}'}, and past 2^53 numbers are "
                          "not told apart; ask for a string of digits")
    fill = fill and "multipleOf" not in node  # bounds multiply the states of its grammar
    out = dict(node)
    if fill and low is None or low is not None and low < least:
        out["minimum"] = least
        out.pop("exclusiveMinimum", None)
    if fill and high is None or high is not None and high > most:
        out["maximum"] = most
        out.pop("exclusiveMaximum", None)
    if fill and not whole and most - least >= 1:
        out["multipleOf"] = 1e-6
    return out


def _past(value: Any) -> bool:
    """Whether a plain value holds a whole number that the library would round."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, int) and abs(value) > EXACT or any(map(_past, inner))


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

    @cached_property
    def closing(self) -> _Closing:
        """Ways to an end, over this tokenizer."""
        return _Closing(self.inner)

    def compile(self, schema: dict[str, Any]) -> tuple[Any, str]:
        """A matcher for the schema, and what is wrong with it."""
        import llguidance

        options = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": ", "coerce_one_of": True}
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        matcher = llguidance.LLMatcher(self.inner, grammar, log_level=0, limits=llguidance.LLParserLimits(verbose_errors=False))
        return matcher, matcher.get_error()


_KNOWN: WeakKeyDictionary[Tokenizer, dict[tuple[int, ...], _Grammars]] = WeakKeyDictionary()


def _compiled(schema: dict[str, Any], text: str, tokenizer: Tokenizer, end: tuple[int, ...], longest: int) -> tuple[_Grammars, Any]:
    """The tokenizer's grammars, and that of a schema, remembered; where the tight one contradicts itself (parts joined by allOf), the least one."""
    by_end = _KNOWN.setdefault(tokenizer, {})
    if end not in by_end:
        by_end[end] = _Grammars(tokenizer, end)
    grammars, key = by_end[end], (text, longest)
    if key not in grammars.kept:
        matcher, problem = grammars.compile(_tight(schema, longest))
        if problem:
            matcher, problem = grammars.compile(_tight(schema, None))
        if problem:
            raise ConfigError(f"the schema cannot be used ({problem.splitlines()[0][:200]}); mend or simplify it")
        grammars.kept[key] = matcher
        while len(grammars.kept) > KEPT:
            grammars.kept.popitem(last=False)
    grammars.kept.move_to_end(key)
    return grammars, grammars.kept[key]
