"""The rules of the architecture: a part imports only parts before it in ORDER, and the two sides stay separate.

For each rule there is also a package that breaks it.
"""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import tb_nanwatch

PACKAGE = Path(tb_nanwatch.__file__).parent
NAME = "tb_nanwatch"
ORDER = ("errors", "schema", "numerics", "diagnosis", "watch", "reading", "plugin", "printing", "cli")
FRONT_DOORS = ("__init__", "__main__")  # the package itself: may reach any part
TRAINING_SIDE = frozenset({"watch"})
VIEWING_SIDE = frozenset({"reading", "plugin", "printing", "cli"})
FRAMEWORKS = ("tensorflow", "keras", "tensorboard.compat.tf")
# Inside watch/, each part imports only parts before it.
WATCH_ORDER = (
    "boundary",
    "installed",
    "tf_internals",
    "graphs",
    "variables",
    "reachable",
    "owners",
    "naming",
    "row",
    "record",
    "guard",
    "replay",
    "drivers",
    "api",
)
INTERNALS = f"{NAME}.watch.tf_internals"  # the only module that may use private names of TensorFlow and Keras
PRIVATE_TENSORFLOW = ("tensorflow.python", "tensorflow.core", "tensorflow.compiler")
NAMED_TUPLE_METHODS = frozenset({"_replace", "_asdict", "_fields", "_make", "_getframe"})
ABSTRACT_BASES = frozenset({"Protocol", "ABC"})
VAGUE_NAMES = frozenset({"common", "helper", "helpers", "misc", "util", "utils"})
# An error has records as attributes. It imports their types only for the type checker.
FOR_ANNOTATIONS_ONLY = frozenset({("errors", "schema")})


@dataclass(frozen=True)
class Import:
    """One import: its module and line, the imported module, and whether only a type checker executes it."""

    importer: str
    imported: str
    line: int
    for_types_only: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def modules_of(package: Path) -> dict[str, Path]:
    """Map the dotted name of every module to its file; a folder has the file ``__init__.py``."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = (NAME, *path.relative_to(package).with_suffix("").parts)
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported_modules(node: ast.AST, *, importer: str, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules that a statement or call imports."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            package = importer if modules[importer].name == "__init__.py" else importer.rpartition(".")[0]
            above = package.rsplit(".", level - 1)[0] if level else ""
            base = ".".join(part for part in (above, module) if part)
            for alias in names:
                full = f"{base}.{alias.name}"
                yield full if full in modules or full in FRAMEWORKS or full == f"{NAME}.__version__" else base
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield name


def is_for_types_only(node: ast.AST) -> bool:
    """Return whether ``node`` is an ``if TYPE_CHECKING:`` block."""
    return isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_of(package: Path) -> list[Import]:
    """List every import in ``package``, at the top of a module or inside a function."""
    modules = modules_of(package)
    found = []
    for importer, path in modules.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        typed = {id(inner) for node in ast.walk(tree) if is_for_types_only(node) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            found += [
                Import(importer, imported, line=node.lineno, for_types_only=id(node) in typed)
                for imported in imported_modules(node, importer=importer, modules=modules)
            ]
    return found


def part_of(module: str) -> str:
    """Return the part of the package that a module belongs to; ``__init__`` for the package itself."""
    return module.split(".")[1] if "." in module else "__init__"


def is_ours(module: str) -> bool:
    return module == NAME or module.startswith(f"{NAME}.")


def inner_imports(package: Path) -> Iterator[tuple[Import, str, str]]:
    """Yield the imports between two parts, with the names of both; a front door may import anything."""
    for entry in imports_of(package):
        if is_ours(entry.imported) and entry.imported != f"{NAME}.__version__":
            importer, imported = part_of(entry.importer), part_of(entry.imported)
            if importer != imported and importer not in FRONT_DOORS:
                yield entry, importer, imported


def unknown_parts(package: Path) -> list[str]:
    """Return modules and folders that are not in ORDER."""
    return sorted({part_of(module) for module in modules_of(package)} - {*ORDER, *FRONT_DOORS})


def steps_up(package: Path) -> list[str]:
    """Return imports of a part that comes later in ORDER; the front doors of the package come last."""
    rank = {part: place for place, part in enumerate((*ORDER, *FRONT_DOORS))}
    return [
        str(entry)
        for entry, importer, imported in inner_imports(package)
        if rank[imported] > rank[importer]
        and not (entry.for_types_only and (importer, imported) in FOR_ANNOTATIONS_ONLY)
    ]


def side_crossings(package: Path) -> list[str]:
    """Return imports between the training side and the viewing side, which share only the event file."""
    return [
        str(entry)
        for entry, importer, imported in inner_imports(package)
        if (importer in TRAINING_SIDE and imported in VIEWING_SIDE)
        or (importer in VIEWING_SIDE and imported in TRAINING_SIDE)
    ]


def framework_imports(package: Path) -> list[str]:
    """Return imports of TensorFlow or Keras outside the training side, also inside functions."""
    return [
        str(entry)
        for entry in imports_of(package)
        if part_of(entry.importer) not in TRAINING_SIDE
        and any(f"{entry.imported}.".startswith(f"{framework}.") for framework in FRAMEWORKS)
    ]


def cycles(package: Path) -> list[str]:
    """Return the first cycle of modules that import each other at run time, also inside functions."""
    modules = modules_of(package)
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for entry in imports_of(package):
        if entry.imported in modules and not entry.for_types_only:
            graph[entry.importer].add(entry.imported)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def vague_names(package: Path) -> list[str]:
    """Return modules and folders with a name that does not describe their content."""
    return [module for module in modules_of(package) if VAGUE_NAMES & set(module.split("."))]


def internal_imports(package: Path) -> list[str]:
    """Imports of TensorFlow's private modules outside the one module for them."""
    return [
        str(entry)
        for entry in imports_of(package)
        if entry.importer != INTERNALS
        and f"{entry.imported}.".startswith(tuple(f"{name}." for name in PRIVATE_TENSORFLOW))
    ]


def private_names(package: Path) -> list[str]:
    """Uses in ``watch/`` of a private attribute that no module of ``watch/`` defines: it belongs to another library."""
    trees = {
        module: ast.parse(path.read_text(encoding="utf-8"))
        for module, path in modules_of(package).items()
        if part_of(module) in TRAINING_SIDE and module != INTERNALS
    }
    uses = [
        (module, node)
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr)
    ]
    own = {node.attr for _, node in uses if ast.unparse(node.value) in {"self", "cls"}}
    own |= {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return [
        f"{module}:{node.lineno} uses {node.attr}"
        for module, node in uses
        if node.attr not in own | NAMED_TUPLE_METHODS
    ]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def watch_part_of(module: str) -> str | None:
    """Name the part of ``watch/`` that a module belongs to; ``None`` for any other module and for watch/__init__.py."""
    names = module.split(".")
    return names[2] if len(names) > 2 and names[1] == "watch" else None


def watch_steps_up(package: Path) -> list[str]:
    """Imports inside ``watch/`` of a part that comes later in its order, or that has no place in it."""
    rank = {part: place for place, part in enumerate(WATCH_ORDER)}
    found = []
    for entry in imports_of(package):
        importer, imported = watch_part_of(entry.importer), watch_part_of(entry.imported)
        if importer is None or imported is None or entry.for_types_only:
            continue
        if importer != imported and rank.get(imported, len(rank)) > rank.get(importer, -1):
            found.append(str(entry))
    return found


def concrete_bases(package: Path) -> list[str]:
    """Classes that inherit from a class of the package which is neither abstract nor an error."""
    trees = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in modules_of(package).items()}
    classes = {
        (module, node.name): [ast.unparse(base).partition("[")[0] for base in node.bases]
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }

    def origin(module: str, name: str) -> tuple[str, str]:
        imported = (node for node in ast.walk(trees[module]) if isinstance(node, ast.ImportFrom))
        names = {
            alias.asname or alias.name: (node.module or "", alias.name) for node in imported for alias in node.names
        }
        return names.get(name, (module, name))

    def is_error(key: tuple[str, str]) -> bool:
        bases = classes.get(key)
        if bases is None:
            return key[1].endswith(("Error", "Exception", "Warning"))
        return any(is_error(origin(key[0], base)) for base in bases)

    return [
        f"{module}.{name} inherits from {base}"
        for (module, name), bases in classes.items()
        for base in bases
        if (key := origin(module, base)) in classes and not is_error(key) and not ABSTRACT_BASES & set(classes[key])
    ]


RULES = (
    unknown_parts,
    steps_up,
    side_crossings,
    framework_imports,
    cycles,
    vague_names,
    watch_steps_up,
    internal_imports,
    private_names,
    concrete_bases,
)
Rule = Callable[[Path], list[str]]


@pytest.mark.parametrize("rule", RULES)
def test_the_package_obeys_the_rule(rule: Rule) -> None:
    assert rule(PACKAGE) == []


def plant(root: Path, files: dict[str, str]) -> Path:
    package = root / NAME
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


BROKEN = [
    (unknown_parts, {"extras.py": ""}, ["extras"]),
    (
        steps_up,
        {"schema/stats.py": "from tb_nanwatch import numerics\n", "numerics/__init__.py": ""},
        ["tb_nanwatch.schema.stats:1 imports tb_nanwatch.numerics"],
    ),
    (
        steps_up,
        {"schema/__init__.py": "def later():\n    import tb_nanwatch.cli\n", "cli.py": ""},
        ["tb_nanwatch.schema:2 imports tb_nanwatch.cli"],
    ),
    (
        steps_up,
        {"schema/__init__.py": "from ..numerics.norms import l2\n", "numerics/norms.py": ""},
        ["tb_nanwatch.schema:1 imports tb_nanwatch.numerics.norms"],
    ),
    (steps_up, {"cli.py": "from tb_nanwatch import Watch\n"}, ["tb_nanwatch.cli:1 imports tb_nanwatch"]),
    (
        steps_up,
        {"errors.py": "from tb_nanwatch.schema import records\n", "schema/records.py": ""},
        ["tb_nanwatch.errors:1 imports tb_nanwatch.schema.records"],
    ),
    (
        steps_up,
        {"schema/__init__.py": "if TYPE_CHECKING:\n    import tb_nanwatch.watch\n", "watch/__init__.py": ""},
        ["tb_nanwatch.schema:2 imports tb_nanwatch.watch"],
    ),
    (
        side_crossings,
        {"watch/__init__.py": "", "reading/__init__.py": "import tb_nanwatch.watch\n"},
        ["tb_nanwatch.reading:1 imports tb_nanwatch.watch"],
    ),
    (
        side_crossings,
        {"watch/__init__.py": "from tb_nanwatch.cli import main\n", "cli.py": ""},
        ["tb_nanwatch.watch:1 imports tb_nanwatch.cli"],
    ),
    (
        framework_imports,
        {"reading/__init__.py": "def read():\n    import tensorflow as tf\n"},
        ["tb_nanwatch.reading:2 imports tensorflow"],
    ),
    (
        framework_imports,
        {"plugin/__init__.py": "from keras.callbacks import Callback\n"},
        ["tb_nanwatch.plugin:1 imports keras.callbacks"],
    ),
    (
        framework_imports,
        {"cli.py": "from tensorboard.compat import tf\n"},
        ["tb_nanwatch.cli:1 imports tensorboard.compat.tf"],
    ),
    (
        framework_imports,
        {"__init__.py": "import importlib\ntf = importlib.import_module('tensorflow')\n"},
        ["tb_nanwatch:2 imports tensorflow"],
    ),
    (
        cycles,
        {
            "schema/__init__.py": "",
            "schema/a.py": "import tb_nanwatch.schema.b\n",
            "schema/b.py": "def later():\n    from tb_nanwatch.schema import a\n",
        },
        ["tb_nanwatch.schema.a -> tb_nanwatch.schema.b -> tb_nanwatch.schema.a"],
    ),
    (vague_names, {"watch/__init__.py": "", "watch/utils.py": ""}, ["tb_nanwatch.watch.utils"]),
    (
        watch_steps_up,
        {
            "watch/__init__.py": "",
            "watch/guard/state.py": "",
            "watch/row/cells.py": "from tb_nanwatch.watch.guard import state\n",
        },
        ["tb_nanwatch.watch.row.cells:1 imports tb_nanwatch.watch.guard.state"],
    ),
    (
        watch_steps_up,
        {"watch/variables.py": "def later():\n    import tb_nanwatch.watch.api\n", "watch/api.py": ""},
        ["tb_nanwatch.watch.variables:2 imports tb_nanwatch.watch.api"],
    ),
    (
        watch_steps_up,
        {"watch/variables.py": "import tb_nanwatch.watch.extra\n", "watch/extra.py": ""},
        ["tb_nanwatch.watch.variables:1 imports tb_nanwatch.watch.extra"],
    ),
    (
        concrete_bases,
        {
            "watch/ring.py": "class Ring:\n    pass\n",
            "watch/host.py": "from tb_nanwatch.watch.ring import Ring\nclass HostRing(Ring):\n    pass\n",
        },
        ["tb_nanwatch.watch.host.HostRing inherits from Ring"],
    ),
    (
        internal_imports,
        {
            "watch/tf_internals.py": "from tensorflow.python.eager import context\n",
            "watch/row/cells.py": "from tensorflow.python.eager import context\n",
        },
        ["tb_nanwatch.watch.row.cells:1 imports tensorflow.python.eager"],
    ),
    (
        internal_imports,
        {"watch/guard/guard.py": "def later():\n    import tensorflow.core.framework.attr_value_pb2\n"},
        ["tb_nanwatch.watch.guard.guard:2 imports tensorflow.core.framework.attr_value_pb2"],
    ),
    (
        private_names,
        {
            "watch/tf_internals.py": "def set_input(op, tensor):\n    op._update_input(0, tensor)\n",
            "watch/guard/guard.py": "def hold(op, until):\n    op._add_control_input(until)\n",
        },
        ["tb_nanwatch.watch.guard.guard:2 uses _add_control_input"],
    ),
]


@pytest.mark.parametrize(("rule", "files", "found"), BROKEN)
def test_a_rule_reports_the_package_that_breaks_it(
    rule: Rule, files: dict[str, str], found: list[str], tmp_path: Path
) -> None:
    assert rule(plant(tmp_path, files)) == found


def test_every_rule_has_a_package_that_breaks_it() -> None:
    assert {rule for rule, _, _ in BROKEN} == set(RULES)


VALID = {
    "__main__.py": "from tb_nanwatch.cli import main\n",
    "errors.py": "if TYPE_CHECKING:\n    from tb_nanwatch.schema.records import Alert\n",
    "schema/__init__.py": "",
    "schema/records.py": "import tb_nanwatch.errors\n",
    "watch/__init__.py": "import tensorflow as tf\nfrom tb_nanwatch import __version__\n",
    "watch/row/cells.py": "class Cell(Protocol[T]):\n    pass\nclass Loss(Cell):\n    pass\n",
    "watch/guard/guard.py": "class Guard:\n    def copy(self, other):\n        self._ring = other._ring._replace()\n",
    "watch/api.py": "from tb_nanwatch.watch.guard import guard\n",
    "reading/__init__.py": "from tensorboard.compat.tensorflow_stub.io import gfile\n",
    "cli.py": "def main():\n    from tb_nanwatch.reading import anything\n",
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_accepts_a_valid_package(rule: Rule, tmp_path: Path) -> None:
    assert rule(plant(tmp_path, VALID)) == []


VIEWING_MODULES = ("tb_nanwatch", "tb_nanwatch.plugin.loader", "tb_nanwatch.reading", "tb_nanwatch.cli")


@pytest.mark.parametrize("module", VIEWING_MODULES)
def test_importing_the_viewing_side_does_not_import_tensorflow(module: str) -> None:
    program = f"import sys, {module}; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
