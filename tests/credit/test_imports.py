"""Can the credit core be used alone? It may import torch, the standard library, itself, and what loads a user's file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dasd.credit

FOLDER = Path(dasd.credit.__file__).parent
CORE = sorted(FOLDER.rglob("*.py"))


def imported_modules(source, package):
    """Absolute names of every module imported anywhere in the source, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*parents, *([node.module] if node.module else [])])


def is_allowed(module):
    root = module.split(".")[0]
    own = module in ("dasd.credit", "dasd.own_files") or module.startswith("dasd.credit.")
    return root == "torch" or root in sys.stdlib_module_names or own


def test_the_walk_sees_every_form_of_import():
    source = (
        "import numpy as np\nfrom trl import x\nfrom ..config import y\nfrom . import signals\ndef f():\n    import dasd.cli"
    )
    found = list(imported_modules(source, "dasd.credit"))
    assert found == ["numpy", "trl", "dasd.config", "dasd.credit", "dasd.cli"]
    assert [is_allowed(module) for module in found] == [False, False, False, True, False]


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_credit_imports_torch_and_the_standard_library_only(path):
    package = ".".join(["dasd.credit", *path.parent.relative_to(FOLDER).parts])
    foreign = [module for module in imported_modules(path.read_text(), package) if not is_allowed(module)]
    assert foreign == []


def test_importing_the_package_root_adds_nothing_heavy():
    # importing dasd.credit runs dasd/__init__.py first
    heavy = {"torch", "numpy", "trl", "transformers", "datasets", "accelerate"}
    code = f"import sys, dasd; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_core_is_where_this_test_looks():
    assert {"direction.py", "methods.py", "signals.py"} <= {path.name for path in CORE}
