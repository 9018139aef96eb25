"""The rules of the house, as pure functions over source trees: each yields its violations as lines for people.

A module is read once, by its syntax tree. A place that needs more than a budget says why: `# budget: why` on the line of its
`def` or `class`, or anywhere in a module for the module's length.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

#: Top to bottom; a line imports only lines below it, names side by side never each other.
LAYERS = (
    ("cli",),
    ("daemon",),
    ("app",),
    ("settings",),
    ("verify", "monitor"),
    ("backup", "restore", "retention"),
    ("repository", "sources"),
    ("storage",),
    ("credentials", "process", "events", "schedule", "control"),
    ("errors", "clock"),
    ("model",),
    ("values",),
)
RANKS = {name: len(LAYERS) - number for number, names in enumerate(LAYERS) for name in names}

FUNCTION_LINES = 40
MODULE_LINES = 400
PUBLIC_METHODS = 12
PARAMETERS = 5
COMPLEXITY = 8

WALL_CLOCK = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime", "clock_gettime", "clock_gettime_ns"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}

#: Modules outside opsd.repository that may import `cryptography`, and why.
CRYPTOGRAPHY_ALLOWED: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One file: its dotted name, its text and its syntax tree."""

    name: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The first name below the package: `storage` of `opsd.storage.folder`; empty for the package itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    def line(self, number: int) -> str:
        return self.text.splitlines()[number - 1]

    def functions(self) -> Iterator[Function]:
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def classes(self) -> Iterator[ast.ClassDef]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def at(self, node: ast.stmt | ast.expr, what: str) -> str:
        return f"{self.name}:{node.lineno}: {what}"


def read(root: Path, package: str) -> list[Module]:
    """Read all modules of a package or folder below `root`, in order."""
    modules = []
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        modules.append(Module(name=name, text=text, tree=ast.parse(text)))
    return modules


def imports(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Yield each imported name in full: `from opsd.storage import folder` gives `opsd.storage.folder`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{node.module or ''}.{alias.name}") for alias in node.names)


def wrong_directions(modules: Iterable[Module]) -> Iterator[str]:
    """Yield imports that point up or sideways, and rooms that the order does not know."""
    for module in modules:
        if not module.room or module.room == "__main__":
            continue
        if module.room not in RANKS:
            yield f"{module.name}: no such room in the order"
            continue
        for node, target in imports(module):
            package, _, rest = target.partition(".")
            room = rest.partition(".")[0]
            if package != "opsd" or room in {"", module.room}:
                continue
            if RANKS.get(room, len(LAYERS) + 1) >= RANKS[module.room]:
                yield module.at(node, f"{module.room} may not import {room}")


def relative_imports(modules: Iterable[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield module.at(node, "relative import")


def missing_docstrings(modules: Iterable[Module]) -> Iterator[str]:
    for module in modules:
        if not ast.get_docstring(module.tree):
            yield f"{module.name}: no docstring that tells purpose and promise"


def _exempt(module: Module, node: Function | ast.ClassDef) -> bool:
    """Whether the lines of the signature carry a reason."""
    return any(re.search(r"# budget: \S", module.line(n)) for n in range(node.lineno, node.body[0].lineno + 1))


def _parameters(function: Function) -> int:
    """Count parameters, but self and cls."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    extra = (arguments.vararg is not None) + (arguments.kwarg is not None)
    return sum(argument.arg not in {"self", "cls"} for argument in named) + extra


_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)


def _own_nodes(function: Function) -> Iterator[ast.AST]:
    """Walk a function without those defined in it: they have budgets of their own."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (*Function.__args__, ast.ClassDef)):
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def complexity(function: Function) -> int:
    """Count the ways through a function by its statements; expressions (boolean, conditional, comprehensions) are free."""
    nodes = list(_own_nodes(function))
    cases = sum(
        len(node.cases) - any(_catches_all(case) for case in node.cases)
        for node in nodes
        if isinstance(node, ast.Match)
    )
    return 1 + sum(isinstance(node, _BRANCHES) for node in nodes) + cases


def _catches_all(case: ast.match_case) -> bool:
    return isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None


def _function_excess(function: Function) -> Iterator[str]:
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if lines > FUNCTION_LINES:
        yield f"{function.name} has {lines} lines, of {FUNCTION_LINES}"
    if _parameters(function) > PARAMETERS:
        yield f"{function.name} has {_parameters(function)} parameters, of {PARAMETERS}"
    if complexity(function) > COMPLEXITY:
        yield f"{function.name} has complexity {complexity(function)}, of {COMPLEXITY}"


def _class_excess(node: ast.ClassDef) -> Iterator[str]:
    public = [item for item in node.body if isinstance(item, Function) and not item.name.startswith("_")]
    if len(public) > PUBLIC_METHODS:
        yield f"{node.name} has {len(public)} public methods, of {PUBLIC_METHODS}"


def broken_budgets(modules: Iterable[Module]) -> Iterator[str]:
    for module in modules:
        length = len(module.text.splitlines())
        if length > MODULE_LINES and not re.search(r"^# budget: \S", module.text, re.MULTILINE):
            yield f"{module.name}: {length} lines, of {MODULE_LINES}"
        for function in module.functions():
            if not _exempt(module, function):
                yield from (module.at(function, excess) for excess in _function_excess(function))
        for node in module.classes():
            if not _exempt(module, node):
                yield from (module.at(node, excess) for excess in _class_excess(node))


def prints(modules: Iterable[Module]) -> Iterator[str]:
    """Yield what writes to the terminal below `cli`."""
    for module in modules:
        if module.room in {"cli", "__main__"}:
            continue
        for node in ast.walk(module.tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in {"print", "input", "click.echo", "sys.stdout.write", "sys.stderr.write"}:
                yield module.at(node, f"{called} below cli")  # type: ignore[arg-type] # it is a Call, so an expression


def wall_clock_readings(modules: Iterable[Module]) -> Iterator[str]:
    """Yield what asks for the time of day other than through `opsd.clock`; monotonic time is free to all."""
    for module in modules:
        if module.name == "opsd.clock":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute):
                holder = ast.unparse(node.value).rpartition(".")[2]
                if node.attr in WALL_CLOCK.get(holder, ()):
                    yield module.at(node, f"{holder}.{node.attr} outside opsd.clock")
        for statement, target in imports(module):
            holder, _, name = target.partition(".")
            if holder == "time" and name in WALL_CLOCK["time"]:
                yield module.at(statement, f"{target} outside opsd.clock")


def stray_cryptography(modules: Iterable[Module], allowed: Iterable[str]) -> Iterator[str]:
    """Yield imports of `cryptography` outside `opsd.repository`: nothing else touches keys."""
    allowed = set(allowed)
    for module in modules:
        if module.room == "repository" or module.name in allowed:
            continue
        for node, target in imports(module):
            if target.partition(".")[0] == "cryptography":
                yield module.at(node, "imports cryptography outside opsd.repository")


_NAME = re.compile(r"test_[a-z0-9_]+$")


def poor_test_names(modules: Iterable[Module]) -> Iterator[str]:
    """Yield tests whose name is no sentence: three words or more, in lower case."""
    for module in modules:
        for function in module.functions():
            name = function.name
            if name.startswith("test") and (not _NAME.match(name) or name.count("_") < 3):
                yield module.at(function, f"{name} is no sentence about behaviour")


def sleeps(modules: Iterable[Module]) -> Iterator[str]:
    """Yield tests that wait for time to pass."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}:
                yield module.at(node, "sleeps")
