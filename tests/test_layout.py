"""The layout of the code: one direction of imports between packages, and short modules and functions."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
PATHS = sorted((ROOT / "vasevqa").glob("**/*.py"))
HEAVY = {"torch", "torchvision", "swift", "transformers", "numpy", "sklearn", "matplotlib", "kubernetes", "docker"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PATHS}


@functools.lru_cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield every imported module, also imports in functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def layers() -> list[set[str]]:
    """Return the contract's layers, from top to bottom."""
    [contract] = [contract for contract in LINTER["contracts"] if contract["type"] == "layers"]
    assert contract["exhaustive"]
    assert contract["containers"] == ["vasevqa"]
    assert ":" not in "".join(contract["layers"]), "siblings separated by ':' may import each other"
    return [{name.strip(" ()") for name in layer.split("|")} for layer in contract["layers"]]


def test_packages_import_only_from_the_layers_below() -> None:
    floor = {name: number for number, layer in enumerate(layers()) for name in layer}
    wrong = []
    for module, path in MODULES.items():
        package = module.split(".")[1] if "." in module else ""
        for target in imported(tree_of(path)):
            if not target.startswith("vasevqa."):
                continue
            other = target.split(".")[1]
            # The package `vasevqa` itself contains only the version.
            if package and other not in ("__version__", package) and floor[package] >= floor[other]:
                wrong.append(f"{module} -> {target}")
    assert wrong == []
    assert {module.split(".")[1] for module in MODULES if "." in module} <= set(floor)


def test_no_modules_import_each_other_in_a_cycle() -> None:
    graph = {
        module: {target for target in imported(tree_of(path)) if target in MODULES} - {module, "vasevqa"}
        for module, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # CycleError names the cycle


def test_imports_for_type_checkers_follow_the_same_directions() -> None:
    assert LINTER["exclude_type_checking_imports"] is False
    assert not [contract for contract in LINTER["contracts"] if "unmatched_ignore_imports_alerting" in contract]


def test_stage_modules_load_no_large_library() -> None:
    for path in (ROOT / "vasevqa/stages").glob("*.py"):
        top = [node for node in tree_of(path).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name.split(".")[0] for node in top for name in imported(ast.Module([node], []))}
        assert not names & HEAVY, path.name


ABSENT = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"numpy", "torch", "torchvision", "scipy", "sklearn", "matplotlib", "swift"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_a_launcher_needs_no_scientific_packages() -> None:
    """The launcher's image has no such packages, so commands, backends, transfers and the report must not need them."""
    parts = ("cli", "pipeline", "backends", "transfer", "report", "runtime", "stages", "starting", "review")
    names = [
        name for name in MODULES if name.split(".")[1:2] and name.split(".")[1] in parts and "__main__" not in name
    ]
    result = subprocess.run([sys.executable, "-c", ABSENT, *names], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


def test_modules_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PATHS}
    assert [name for name, lines in lengths.items() if lines > 400] == []
    assert sum(lines > 250 for lines in lengths.values()) < len(lengths) / 5


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in PATHS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def test_each_long_line_has_its_own_mark() -> None:
    assert "E501" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["ignore"]
    marked = [path.name for path in PATHS if "noqa: E501" in path.read_text()]
    assert len(marked) <= 5


def test_the_stage_object_is_at_the_end_of_its_module() -> None:
    for path in (ROOT / "vasevqa/stages").glob("*.py"):
        last = tree_of(path).body[-1] if tree_of(path).body else None
        if path.name not in ("__init__.py", "clip_menu.py"):
            assert isinstance(last, ast.Assign), path.name
            assert ast.unparse(last.targets[0]) == "STAGE", path.name


READERS = {  # modules that read and check a format of another program, an older version or a user
    "vasevqa.artifacts.contents": "artifact.json, also of older versions",
    "vasevqa.backends.checks": "findings that a pod printed",
    "vasevqa.backends.local.backend": "the supervisor's record of a process",
    "vasevqa.curation.classifier": "a PyTorch checkpoint",
    "vasevqa.curation.classifier_training": "the state of an interrupted training",
    "vasevqa.curation.clip": "configurations of CLIP models",
    "vasevqa.dataset.json_texts": "JSON of annotations",
    "vasevqa.dataset.workbooks": "Parquet of annotations",
    "vasevqa.model_formats": "configurations of models in whatever form",
    "vasevqa.models": "configurations of Hugging Face models",
    "vasevqa.pipeline.plan": "artifact.json",
    "vasevqa.pipeline.recipe": "a recipe, and its JSON schema",
    "vasevqa.report.costs": "the event log",
    "vasevqa.report.quality": "any JSON file of an artifact",
    "vasevqa.sample.dataset": "the marker of a sample",
    "vasevqa.training.checkpoints": "ms-swift's trainer_state.json",
    "vasevqa.transfer.connection": "what the other end of a transfer says",
    "vasevqa.yaml_files": "YAML files that users write",
}


def untyped(path: Path) -> list[str]:
    """Yield functions with a dictionary from names to any values in their signature."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            kinds = [argument.annotation for argument in arguments if argument.annotation] + [node.returns]
            texts = [ast.unparse(kind) for kind in kinds if kind]
            if any(word in text for text in texts for word in ("dict[str, Any]", "Mapping[str, Any]")):
                found.append(node.name)
    return found


def test_only_readers_of_files_have_untyped_dictionaries_in_their_signatures() -> None:
    found = {name: untyped(path) for name, path in MODULES.items() if untyped(path)}
    assert {name: functions for name, functions in found.items() if name not in READERS} == {}
    assert sorted(READERS) == sorted(found)  # each module in the list needs its entry
