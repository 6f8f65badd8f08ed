"""Do imports only point downward? Walks the import statements of every file, those inside functions too."""

import ast
import sys
from pathlib import Path

import pytest

import dasd

ROOT = Path(dasd.__file__).parent
# Lowest first. A file may import from its own layer and from those below it.
LAYERS = [
    {"own_files", "credit", "presets", "config", "files", "folders", "hub", "processes", "trained"},
    {"progress", "assets", "report", "prompts"},
    {"tasks", "teacher", "models", "model_fit", "adapters", "results", "cpu_layout"},
    {"data"},
    {"evaluation"},
    {"analysis"},
    {"training", "verl"},
    {"arms"},
    {"quickstart", "runs", "doctor", "merge", "study"},
    {"commands", "recipe_files"},
    {"cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downward(path):
    if path.name == "build.py" and part(path) == "assets":
        return  # a script, imported by nothing in the package
    for name in imports(path):
        if name.startswith("dasd."):
            other = name.split(".")[1]
            assert RANK[other] <= RANK[part(path)], f"{path.name} imports {name}"


def test_credit_imports_torch_only():
    allowed = {"torch", "dasd"} | set(sys.stdlib_module_names)
    for path in (ROOT / "credit").glob("*.py"):
        assert {name.split(".")[0] for name in imports(path)} <= allowed
        ours = {name for name in imports(path) if name.startswith("dasd")}
        assert all(name.startswith(("dasd.credit", "dasd.own_files")) for name in ours)


def test_whoever_loads_users_files_needs_the_standard_library_only():
    """It is loaded by workers, which have little memory, and by `credit`."""
    assert {name.split(".")[0] for name in imports(ROOT / "own_files.py")} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", ["report", "config", "files", "commands", "cli"])
def test_no_torch_without_need(name):
    """Neither torch nor TRL at the top of the files that must start fast."""
    files = [ROOT / f"{name}.py"] if (ROOT / f"{name}.py").exists() else list((ROOT / name).rglob("*.py"))
    for path in files:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {m.split(".")[0] for m in modules} & {"torch", "trl", "transformers", "datasets"}, path


def test_verl_is_imported_in_its_own_package_alone():
    theirs = {"verl", "ray", "tensordict", "transfer_queue", "omegaconf"}
    for path in FILES:
        assert part(path) == "verl" or not {name.split(".")[0] for name in imports(path)} & theirs, path
    assert any(name == "verl" for name in imports(ROOT / "verl" / "alignment.py"))


def test_evaluation_never_imports_training():
    for path in (ROOT / "evaluation").rglob("*.py"):
        assert not any(name.startswith("dasd.training") for name in imports(path)), path


def test_files_stay_short():
    long = {str(path.relative_to(ROOT)): lines for path in FILES if (lines := len(path.read_text().splitlines())) > 500}
    assert not long


def test_no_two_files_import_each_other():
    """Circles of files, through any number of steps, those inside functions too."""
    name_of = {path: "dasd." + ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}
    known = {name.removesuffix(".__init__"): name for name in name_of.values()}
    graph = {name_of[path]: {known[name] for name in imports(path) if name in known} for path in FILES}
    # `from dasd.x import y`, where y is a file, names that file: its package only stands for it.
    for path in FILES:
        for name in list(graph[name_of[path]]):
            if name.endswith("__init__") and any(
                name.removesuffix("__init__") in other for other in graph[name_of[path]] - {name}
            ):
                graph[name_of[path]].discard(name)
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                walk(other, (*above, name))
            done.add(name)

    for name in graph:
        walk(name, ())
