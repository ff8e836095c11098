"""The layout that docs/architecture.md describes: one stage, one file, one name everywhere."""

import ast
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from prefect import Task

import flows.nightly
import flows.promote
from tasks import nightly, promotion

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("model_code", "infra", "tasks", "flows")
MOST_MODULES = 20  # nineteen stages and their records
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
STAGES = (
    "find days", "validate", "find leaders", "features", "feature table", "split", "baseline",
    "train", "export", "choose model", "attribute", "build engine", "find champion", "benchmark",
    "gate", "register", "record requests", "stage candidate", "announce",
)  # fmt: skip
STEPS = (
    "open promotion", "show evidence", "decide", "infra validation", "shadow", "canary", "swap",
    "record",
)  # fmt: skip


def defined(package: object) -> dict[str, list[str]]:
    """Prefect names of the tasks that each module of a package defines."""
    path, name = package.__path__, package.__name__  # type: ignore[attr-defined]
    found: dict[str, list[str]] = {}
    for entry in pkgutil.iter_modules(path):
        module = importlib.import_module(f"{name}.{entry.name}")
        own = [
            thing
            for thing in vars(module).values()
            if isinstance(thing, Task) and thing.fn.__module__ == module.__name__
        ]
        assert all(thing.fn.__name__ == thing.name.replace(" ", "_") for thing in own), own
        found[entry.name] = [thing.name for thing in own]
    return found


@pytest.mark.parametrize(("package", "names"), [(nightly, STAGES), (promotion, STEPS)])
def test_each_stage_has_a_file_a_function_and_a_task_of_its_name(
    package: object, names: tuple[str, ...]
) -> None:
    found = defined(package)
    assert {name.replace(" ", "_"): [name] for name in names} == {
        module: tasks for module, tasks in found.items() if tasks
    }


@pytest.mark.parametrize(("folder", "names"), [("nightly", STAGES), ("promotion", STEPS)])
def test_the_tables_of_the_architecture_page_name_each_file(
    folder: str, names: tuple[str, ...]
) -> None:
    rows = re.findall(rf"^\| ([a-z ]+?) \|.*`tasks/{folder}/(\w+)\.py`", ARCHITECTURE, re.MULTILINE)
    assert rows == [(name, name.replace(" ", "_")) for name in names]


def diagram(text: str) -> str:
    """A page's or docstring's box drawing, its line breaks and lines gone."""
    drawn = [line for line in text.splitlines() if "─" in line or "│" in line]
    return re.sub(r"[^a-z]+", " ", " ".join(drawn))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (flows.nightly.__doc__, STAGES),
        (ARCHITECTURE, STAGES),
        ((ROOT / "README.md").read_text(), STAGES),
        (flows.promote.__doc__, STEPS),
    ],
    ids=["flows/nightly.py", "architecture.md", "README.md", "flows/promote.py"],
)
def test_diagrams_name_every_stage(text: str, names: tuple[str, ...]) -> None:
    drawn = diagram(text)
    assert [name for name in names if name not in drawn] == []


def test_no_package_is_a_drawer() -> None:
    sizes = {
        str(folder.relative_to(ROOT)): len(list(folder.glob("[!_]*.py")))
        for package in PACKAGES
        for folder in (ROOT / package, *(ROOT / package).rglob("*/"))
    }
    assert sizes["tasks/nightly"] > 0
    assert {name: size for name, size in sizes.items() if size > MOST_MODULES} == {}


def test_tests_mirror_the_code() -> None:
    folders = {
        folder.relative_to(ROOT / "tests")
        for package in PACKAGES
        for folder in (ROOT / "tests" / package).rglob("*/")
        if list(folder.glob("test_*.py"))
    }
    assert len(folders) > 10
    assert [str(folder) for folder in folders if not (ROOT / folder).is_dir()] == []


def test_modules_named_in_strings_exist() -> None:
    """`python -m` commands, monkeypatch paths, entry points: no type checker sees them."""
    pattern = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.[a-z_]\w*)+")
    missing = []
    for path in sorted(ROOT.glob("[mitf]*/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                whole = pattern.fullmatch(node.value)
                if whole and not resolves(whole[0]):
                    missing.append(f"{path.relative_to(ROOT)}: {node.value}")
    assert missing == []


def resolves(dotted: str) -> bool:
    """Whether it names a module, or an attribute of one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        base = ROOT.joinpath(*parts[:count])
        if base.with_suffix(".py").is_file() or (base / "__init__.py").is_file():
            if count == len(parts):
                return True
            thing: object = importlib.import_module(".".join(parts[:count]))
            for name in parts[count:]:
                if not hasattr(thing, name):
                    return False
                thing = getattr(thing, name)
            return True
    return False
