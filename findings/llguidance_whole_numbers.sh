#!/usr/bin/env bash
# A grammar made of a JSON schema holds whole numbers past 2^53 in float64.
#
# Good guess:  {"const": 9007199254740993} lets 9007199254740993 through and nothing else, and "minimum"/"maximum" hold for 64-bit ids.
# What happens: the constant becomes ...992, which is let through, and ...993 itself is not; bounds are rounded alike, so that a number just
#              below the minimum is let through, and a range of the largest 64-bit numbers lets nothing through or is not built at all.
#              A "date" may be the 29th of February of any year.
# llguidance 1.9.1 (tokenizers 0.23.3), 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check llguidance==1.9.1 tokenizers==0.23.3 2>/dev/null
cat > "$folder/try.py" <<'PY'
import json
from importlib.metadata import version

import llguidance
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

letters = {letter: number for number, letter in enumerate(["<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
inner.add_special_tokens(["<end>"])
tokenizer = llguidance.LLTokenizer(inner.to_str(), eos_token=[0])


def may_be(schema: dict, text: str) -> bool | str:
    """Whether an answer to the schema may read so, or the words with which it is not built."""
    matcher = llguidance.LLMatcher(tokenizer, llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    if matcher.is_error():
        return matcher.get_error().splitlines()[0][:60]
    ids = inner.encode(text).ids
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


print("llguidance", version("llguidance"))
seen = []
for schema, texts in (
    ({"const": 9007199254740993}, ("9007199254740993", "9007199254740992")),
    ({"type": "integer", "minimum": 9007199254740993}, ("9007199254740992",)),
    ({"type": "integer", "maximum": 18446744073709551615}, ("18446744073709551615",)),
    ({"type": "integer", "minimum": -9223372036854775808}, ("-9223372036854775808",)),
    ({"type": "string", "format": "date"}, ('"2023-02-29"', '"2023-02-30"')),
):
    for text in texts:
        seen.append(may_be(schema, text))
        print(json.dumps(schema), "->", text, seen[-1])
assert seen[:4] == [False, True, True, False] and "integer range" in seen[4] and seen[5:] == [True, False], "it has changed"
PY
"$folder/venv/bin/python" "$folder/try.py"
