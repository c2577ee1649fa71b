"""House rules: import order, bans, sizes, quiet imports, documented names, docs in step."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "sensorium"
_spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

FILES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py")
NAMES = {p: str(p.relative_to(PACKAGE).with_suffix("")) for p in FILES}
LAZY = {("types", "codecs/vision"), ("types", "codecs/audio"), ("types", "codecs/clips")}  # Image.save and Audio.save, conveniences inside a method
DOORS = ("data", "desk", "engine", "choices", "pauses", "hear", "speak", "chat", "constrain", "film_questions",
         "route")  # where raw values come in and go out
OUTER = ("zoo", "corpus", "memory", "evals", "page", "demo_talk", "demo", "cli")


def imports(path: Path) -> set[str]:
    """Our own modules that a file imports, anywhere in it, as names of the tree."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules += [f"{node.module}.{alias.name}" for alias in node.names]
        for module in modules:
            name = module.removeprefix("sensorium.").replace(".", "/")
            if module.startswith("sensorium.") and (PACKAGE / f"{name}.py").exists():
                found.add(name)
    return found


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_a_file_imports_only_what_stands_above_it(path: Path) -> None:
    name = NAMES[path]
    assert name in build.TREE, f"sensorium/{name}.py is not in the tree; add it to TREE in docs/build.py where its imports allow"
    place = build.TREE.index(name)
    for other in imports(path) - {name}:
        if (name, other) not in LAZY:
            assert build.TREE.index(other) < place, f"{name} imports {other}, which stands below it in docs/map.md; move one of them"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_rooms_stay_apart(path: Path) -> None:
    name, used = NAMES[path], imports(path)
    siblings = {"encoders", "align", "fuse", "decoder", "heads"}
    if name in siblings:
        assert not used & siblings, f"{name} imports {used & siblings}; parts are joined in model.py alone"
    if name == "objectives":
        assert used <= {"types", "spec"}, f"objectives imports {used}; it sees tensors only"
    if name in build.CORE:
        assert not {u for u in used if u.split("/")[0] in OUTER}, f"{name} is core and imports an outer room: {used}"
        codecs = {u for u in used if u.startswith("codecs/")}
        allowed = name in DOORS or name.startswith("codecs/") or all((name, codec) in LAZY for codec in codecs)
        assert allowed or not codecs, f"{name} imports {codecs}; only {', '.join(DOORS)} touch codecs"
    if name.split("/")[0] not in ("zoo", "cli", "evals"):
        assert not {u for u in used if u.startswith("zoo/")}, f"{name} imports the zoo; only cli, evals, recipes and tests do"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= 400, f"{NAMES[path]} has {lines} lines, wanted at most 400; find the missing noun"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{NAMES[path]}.{node.name} has {length} lines, wanted at most 60"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_public_names_are_listed_sorted_and_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{NAMES[path]} has no docstring; its first line becomes the map"
    listed = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and n.targets[0].id == "__all__"
                   if isinstance(n.targets[0], ast.Name)), None) if NAMES[path] in build.CORE else None
    if listed is not None:
        assert listed == sorted(listed, key=str.lower), f"__all__ of {NAMES[path]} is not sorted: {sorted(listed, key=str.lower)}"
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node in tree.body and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{NAMES[path]}.{node.name} is public and has no docstring"


@pytest.mark.parametrize("path", FILES, ids=NAMES.get)
def test_habits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and NAMES[path] in build.CORE:
            assert node.func.id not in ("hasattr", "getattr"), f"{NAMES[path]}:{node.lineno} probes a type with {node.func.id}; use a field"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            call = f"{node.func.value.id}.{node.func.attr}"
            tensors_only = any(word.arg == "weights_only" and ast.unparse(word.value) == "True" for word in node.keywords)
            assert call not in ("pickle.load", "pickle.loads") and (call != "torch.load" or tensors_only), (
                f"{NAMES[path]}:{node.lineno} calls {call}; pickles run code")
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name):
            line = text.splitlines()[node.lineno - 1]
            assert node.type.id != "Exception" or "noqa: BLE001 (" in line, f"{NAMES[path]}:{node.lineno} catches everything; name what can go wrong"


def test_importing_does_nothing() -> None:
    code = (
        "import builtins, os, socket, sys\n"
        "def no(*a, **k): raise SystemExit('import opened a connection')\n"
        "socket.socket.connect = no\n"
        "import torch; threads = torch.get_num_threads(); state = torch.get_rng_state()\n"
        "import sensorium\n"
        "assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state), 'import changed torch'\n"
        "heavy = {'transformers', 'diffusers', 'lancedb', 'pyarrow', 'matplotlib', 'typer', 'resvg_py', 'pi_heif', 'pylibjxl'} & set(sys.modules)\n"
        "assert not heavy, f'import sensorium imports {heavy}'\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_docs_are_in_step() -> None:
    done = subprocess.run([sys.executable, "docs/build.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").glob("*.md")]), ids=lambda p: p.name)
def test_python_in_the_docs_runs(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, f"{page.name}:\n{block}\n{done.stderr}"
