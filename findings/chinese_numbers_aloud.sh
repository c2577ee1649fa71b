#!/usr/bin/env bash
# Text normalization for speech: what stands in a Chinese sentence as digits, in the words that are said.
#
# Good guess:  the grammars that production voices use read ordinals, decimals and ranges of per cent as every speaker does.
# What happens: 第2名 becomes 第两名 (said: 第二名), 10.05 a date (said: 十点零五), 10-20% a date and a nought (said: 百分之十到百分之二十),
#              2月2日 becomes 二月两日 (said: 二月二日).
# WeTextProcessing 1.2.0 (pynini 2.1.7), 2026-11-30.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check WeTextProcessing==1.2.0 pynini==2.1.7 2>/dev/null
cat > "$folder/try.py" <<'PY'
import logging
from importlib.metadata import version

logging.disable(logging.CRITICAL)
from tn.chinese.normalizer import Normalizer

said = Normalizer(remove_erhua=False, cache_dir=None, overwrite_cache=False).normalize
print("WeTextProcessing", version("WeTextProcessing"))
right = {"第2名": "第二名", "2月2日": "二月二日", "10.05": "十点零五", "10-20%": "百分之十到百分之二十", "100元": "一百元"}
for text, wanted in right.items():
    print(f"{text}: {said(text)} (a speaker says {wanted})")
assert said("100元") == right["100元"], "it has changed"
assert said("第2名") == "第两名" and said("2月2日") == "二月两日" and "月" in said("10.05") and "月" in said("10-20%"), "it has changed"
PY
"$folder/venv/bin/python" "$folder/try.py"
