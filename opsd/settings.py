"""The configuration: one strict YAML file (and conf.d), turned into each feature's own options.

Promise: every mistake at once, each with file, line, column and a suggestion; secrets stay references; nothing here reads or opens
what it names.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

import yaml

from opsd.errors import ConfigurationError
from opsd.retention.policy import DEFAULT_RULES, Rules
from opsd.sources.options import (
    CommandSource,
    FilesSource,
    Hook,
    Hooks,
    PostgresqlSource,
    SourceOptions,
    SourceSettings,
    SqliteSource,
)

DEFAULT_FILE: Final = Path("/etc/opsd/opsd.yaml")
DEFAULT_STATE: Final = Path("/var/lib/opsd")
_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*\Z")
_DURATION: Final = re.compile(r"(\d+)\s*(s|m|min|h|d|w)?\Z")
_SIZE: Final = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?\Z")
_SECONDS: Final = {None: 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES: Final = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEPTH: Final = 40

Secret = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A whole configuration with every default in place. `text` is what it was read from, for the snapshots."""

    repository: str
    state: Path = DEFAULT_STATE
    cache: Path = DEFAULT_STATE / "cache"
    timezone: str = "UTC"
    host: str = ""
    passphrase: Secret | None = None
    sources: tuple[SourceSettings, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    restore_hooks: Hooks = field(default_factory=Hooks)
    domains: tuple[str, ...] = ()
    retention: Rules = DEFAULT_RULES
    backup_at: str = "04:00"
    text: str = ""
    origin: Mapping[str, str] = field(default_factory=dict)

    @property
    def zone(self) -> ZoneInfo:
        """The site's time zone."""
        return ZoneInfo(self.timezone)


class _Mistakes:
    """All mistakes of a file, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, node: "Node", text: str) -> None:
        """Note a mistake at a node."""
        self.lines.append(f"{node.place()} {node.path + ': ' if node.path else ''}{text}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A YAML node with its path of keys and the file it stands in."""

    node: Any
    path: str
    file: str
    mistakes: _Mistakes

    def place(self) -> str:
        """`file:line:column`, counted from 1."""
        mark = self.node.start_mark
        return f"{self.file}:{mark.line + 1}:{mark.column + 1}"

    def wrong(self, text: str) -> None:
        """Note a mistake here."""
        self.mistakes.add(self, text)

    def _child(self, node: Any, name: str) -> "Node":
        path = f"{self.path}.{name}" if self.path else name
        return Node(node=node, path=path, file=self.file, mistakes=self.mistakes)

    @property
    def is_null(self) -> bool:
        """Whether it is empty or null."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == "tag:yaml.org,2002:null"

    def mapping(self) -> dict[str, "Node"]:
        """A mapping's values; a key given twice is a mistake."""
        if self.is_null:
            return {}
        if not isinstance(self.node, yaml.MappingNode):
            self.wrong("must be a mapping (key: value)")
            return {}
        found: dict[str, Node] = {}
        for key, value in self.node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._child(key, "?").wrong("a key must be a plain word")
                continue
            child = self._child(value, key.value)
            if key.value in found:
                self._child(key, key.value).wrong("is given twice")
            found[key.value] = child
        return found

    def keys(self, known: Sequence[str]) -> dict[str, "Node"]:
        """A mapping of which only these keys are known."""
        found = self.mapping()
        if isinstance(self.node, yaml.MappingNode):
            for key, _ in self.node.value:
                if isinstance(key, yaml.ScalarNode) and key.value not in known:
                    close = difflib.get_close_matches(key.value, known, n=1, cutoff=0.5)
                    hint = f"did you mean {close[0]}?" if close else "known: " + ", ".join(known)
                    self._child(key, key.value).wrong(f"unknown key, {hint}")
        return {key: each for key, each in found.items() if key in known}

    def items(self) -> list["Node"]:
        """A list's items."""
        if self.is_null:
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            self.wrong("must be a list, such as [a, b]")
            return []
        return [self._child(each, str(number)) for number, each in enumerate(self.node.value)]

    def text(self) -> str:
        """A text."""
        if not isinstance(self.node, yaml.ScalarNode) or self.is_null:
            self.wrong("must be a text")
            return ""
        if "\0" in self.node.value:
            self.wrong("must not hold a NUL")
        return str(self.node.value)

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(each.text() for each in self.items())

    def path_text(self) -> str:
        """An absolute path."""
        text = self.text()
        if text and not text.startswith("/"):
            self.wrong(f"must be an absolute path, such as /{text.lstrip('./')}")
        return text

    def number(self) -> int:
        """A whole number, 0 or more."""
        text = self.node.value if isinstance(self.node, yaml.ScalarNode) else ""
        if not re.fullmatch(r"\d{1,9}", text):
            self.wrong("must be a whole number, 0 or more")
            return 0
        return int(text)

    def flag(self) -> bool:
        """True or false."""
        text = self.node.value.lower() if isinstance(self.node, yaml.ScalarNode) else ""
        if text not in {"true", "false", "yes", "no", "on", "off"}:
            self.wrong("must be true or false")
        return text in {"true", "yes", "on"}

    def seconds(self) -> float:
        """A duration such as 30s, 5m, 4h, 30d."""
        match = _DURATION.match(self.text())
        if not match or len(match[1]) > 9:
            self.wrong("must be a duration such as 30s, 5m, 4h or 30d")
            return 0.0
        return float(int(match[1]) * _SECONDS[match[2]])

    def size(self) -> int:
        """A size such as 16KiB or 256MiB, in bytes."""
        match = _SIZE.match(self.text())
        if not match or len(match[1]) > 12:
            self.wrong("must be a size such as 16KiB or 256MiB")
            return 0
        return int(match[1]) * _BYTES[match[2]]

    def secret(self) -> Secret | None:
        """A reference to a secret: {file: P}, {env: N}, {credential: N} or {command: [..]}."""
        if isinstance(self.node, yaml.ScalarNode):
            self.wrong(
                "must be a reference, never the secret itself: {file: /path}, {env: NAME}, {credential: NAME} or {command: [..]}"
            )
            return None
        found = self.keys(("file", "env", "credential", "command"))
        if len(found) != 1:
            self.wrong("must have exactly one of file, env, credential, command")
            return None
        ((kind, each),) = found.items()
        return {kind: each.texts() if kind == "command" else each.path_text() if kind == "file" else each.text()}


def _options(node: Node, kind: type[Any], readers: Mapping[str, Callable[[Node], Any]], required: Sequence[str]) -> Any:
    """A feature's options from a mapping: each known key by its reader."""
    found = node.keys(tuple(readers))
    for key in required:
        if key not in found:
            node.wrong(f"{key} is missing")
    values = {key: readers[key](each) for key, each in found.items()}
    missing = [key for key in required if key not in values]
    return kind(**values, **dict.fromkeys(missing, ""))


def _paths(node: Node) -> tuple[str, ...]:
    items = node.items()
    if not items:
        node.wrong("must name at least one path")
    return tuple(each.path_text() for each in items)


def _program(node: Node) -> tuple[str, ...]:
    program = node.texts()
    if not program:
        node.wrong("must name a program and its arguments, such as [dump-mail, --all]")
    return program


def _one_of(*allowed: str) -> Callable[[Node], str]:
    def read(node: Node) -> str:
        text = node.text()
        if text not in allowed:
            node.wrong(f"must be one of {', '.join(allowed)}")
        return text

    return read


def _file_name(node: Node) -> str:
    text = node.text()
    if not text or "/" in text or text in {".", ".."}:
        node.wrong("must be a file name without '/'")
    return text


def _digest(node: Node) -> str:
    text = node.text()
    if text not in {"full", "off"} and not re.fullmatch(r"\d{1,2}(\.\d+)?%", text):
        node.wrong("must be full, off, or a share such as 10%")
    return text


_SOURCES: Final[dict[str, tuple[type[Any], dict[str, Callable[[Node], Any]], tuple[str, ...]]]] = {
    "files": (
        FilesSource,
        {
            "paths": _paths,
            "exclude": Node.texts,
            "include": Node.texts,
            "exclude_caches": Node.flag,
            "one_file_system": Node.flag,
            "page_map": Node.texts,
            "sqlite": Node.flag,
            "snapshot": _one_of("btrfs", "zfs", "lvm"),
        },
        ("paths",),
    ),
    "sqlite": (SqliteSource, {"path": Node.path_text, "page_bytes": Node.size}, ("path",)),
    "postgresql": (
        PostgresqlSource,
        {
            "host": Node.text,
            "port": Node.number,
            "user": Node.text,
            "password": Node.secret,
            "maintenance_database": Node.text,
            "databases": Node.texts,
            "exclude": Node.texts,
            "via": Node.texts,
            "digest": _digest,
            "parallel": Node.number,
            "parallel_bytes": Node.size,
        },
        (),
    ),
    "command": (CommandSource, {"run": _program, "name": _file_name, "timeout": Node.seconds}, ("run", "name")),
}


def _hook(node: Node) -> Hook:
    if isinstance(node.node, yaml.SequenceNode):
        return Hook(run=_program(node))
    hook: Hook = _options(node, Hook, {"run": _program, "timeout": Node.seconds}, ("run",))
    return hook


def _hooks(node: Node) -> Hooks:
    found = node.keys(("before", "after", "on_error"))
    return Hooks(**{key: tuple(_hook(each) for each in list_.items()) for key, list_ in found.items()})


def _source(node: Node) -> SourceSettings | None:
    label = node.path.rpartition("sources.")[2]
    if not _LABEL.match(label):
        node.wrong("a source's name is of a-z, 0-9, '-', '_' and '.', and begins with a letter or digit")
    found = node.keys((*_SOURCES, "hooks", "domain"))
    kinds = [kind for kind in _SOURCES if kind in found]
    if len(kinds) != 1:
        node.wrong(f"must be exactly one of {', '.join(_SOURCES)}")
        return None
    kind, readers, required = _SOURCES[kinds[0]]
    options: SourceOptions = _options(found[kinds[0]], kind, readers, required)
    return SourceSettings(
        label=label,
        options=options,
        hooks=_hooks(found["hooks"]) if "hooks" in found else Hooks(),
        domain=found["domain"].text() if "domain" in found else "default",
    )


def _sources(node: Node) -> tuple[SourceSettings, ...]:
    return tuple(source for each in node.mapping().values() if (source := _source(each)))


def _retention(node: Node) -> Rules:
    counts = ("keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")
    readers: dict[str, Callable[[Node], Any]] = dict.fromkeys(counts, Node.number)
    readers["keep_within"] = lambda each: timedelta(seconds=each.seconds())
    readers["keep_tags"] = Node.texts
    rules: Rules = _options(node, Rules, readers, ())
    try:
        rules.require_meaning()
    except ConfigurationError as error:
        node.wrong("; ".join(error.mistakes).replace("retention: ", ""))
    return rules


def _zone(node: Node) -> str:
    text = node.text()
    try:
        ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        close = difflib.get_close_matches(text, available_timezones(), n=1)
        node.wrong(f"no such time zone, {f'did you mean {close[0]}?' if close else 'such as Europe/Paris'}")
        return "UTC"
    return text


def _clock_time(node: Node) -> str:
    text = node.keys(("backup",)).get("backup")
    if text is None:
        return "04:00"
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text.text()):
        text.wrong('must be a time such as "04:00"')
    return text.text()


def _version(node: Node) -> int:
    number = node.number()
    if number != 1:
        node.wrong("this opsd knows version 1")
    return number


_TOP: Final[dict[str, Callable[[Node], Any]]] = {
    "version": _version,
    "timezone": _zone,
    "repository": Node.path_text,
    "state": lambda node: Path(node.path_text() or "/"),
    "cache": lambda node: Path(node.path_text() or "/"),
    "passphrase": Node.secret,
    "host": Node.text,
    "sources": _sources,
    "hooks": _hooks,
    "restore_hooks": _hooks,
    "key_domains": lambda node: tuple(node.texts()),
    "retention": _retention,
    "schedule": _clock_time,
}
_FIELDS: Final = {"key_domains": "domains", "schedule": "backup_at"}


def _compose(name: str, text: str, mistakes: _Mistakes) -> Node | None:
    """A file's node tree, or None with the mistake noted."""
    try:
        _guard(text)
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else f"{name}:1:1"
        mistakes.lines.append(f"{where} {error.problem or error.context or 'this is no YAML'}")
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mistakes.lines.append(f"{name}:1:1 {str(error).splitlines()[0]}")
        return None
    if node is None:
        mistakes.lines.append(f"{name}:1:1 the file is empty")
        return None
    return Node(node=node, path="", file=name, mistakes=mistakes)


def _guard(text: str) -> None:
    """Refuse what could blow up: aliases that repeat a node, and absurd depth."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "aliases (*name) are not used here", _mark(event))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise yaml.MarkedYAMLError(None, None, "nested too deeply", _mark(event))


def _mark(event: yaml.Event) -> Any:
    """Where an event stands; the C parser has a type of its own for that."""
    return event.start_mark


def parse(files: Sequence[tuple[str, str]], default_host: str) -> Settings:
    """Settings from (name, text) of each file; in later ones lists of sources append, and a key set twice is a mistake.

    Raises:
        ConfigurationError: with every mistake.
    """
    mistakes = _Mistakes()
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, text in files:
        node = _compose(name, text, mistakes)
        for key, each in (node.keys(tuple(_TOP)) if node else {}).items():
            value = _TOP[key](each)
            if key == "sources":
                taken = {source.label for source in values.get("sources", ())}
                for source in value:
                    if source.label in taken:
                        each.wrong(f"source {source.label} is set twice")
                value = (*values.get("sources", ()), *value)
            elif key in values:
                each.wrong(f"is set twice, first at {origin[key]}")
            values[key] = value
            origin.setdefault(key, each.place())
    if "repository" not in values and not mistakes.lines:
        mistakes.lines.append(f"{files[0][0]}:1:1 repository is missing")
    domains = {"default", *values.get("key_domains", ())}
    for source in values.get("sources", ()):
        if source.domain not in domains:
            mistakes.lines.append(
                f"{origin['sources']} sources.{source.label}.domain: no key domain {source.domain}; name it in key_domains"
            )
    if mistakes.lines:
        raise ConfigurationError(tuple(mistakes.lines), hint="'opsd config generate' prints an example with every key")
    values.pop("version", None)
    chosen = {_FIELDS.get(key, key): value for key, value in values.items()}
    chosen.setdefault("host", default_host)
    chosen.setdefault("cache", chosen.get("state", DEFAULT_STATE) / "cache")
    return Settings(**chosen, text="\n".join(text for _, text in files), origin=origin)


def load(file: str | None, default_host: str) -> Settings:
    """Settings from a file, or from /etc/opsd/opsd.yaml and conf.d.

    Raises:
        ConfigurationError: a file is missing, can't be read, or has mistakes.
    """
    if file is not None:
        return parse([(file, _read(Path(file)))], default_host)
    folder = DEFAULT_FILE.parent / "conf.d"
    more = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    return parse([(str(path), _read(path)) for path in (DEFAULT_FILE, *more)], default_host)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(
            (f"{path}: {reason}",), hint="name a configuration with -c FILE or OPSD_CONFIG, or set OPSD_REPOSITORY"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError((f"{path}:1:1 is no UTF-8 text",)) from error


def from_environment(environment: Mapping[str, str], default_host: str) -> Settings:
    """Settings where there is no file: OPSD_REPOSITORY, OPSD_PASSPHRASE_FILE, OPSD_STATE.

    Raises:
        ConfigurationError: there is no repository either.
    """
    repository = environment.get("OPSD_REPOSITORY")
    if not repository:
        raise ConfigurationError(
            (f"there is no configuration: neither {DEFAULT_FILE} nor OPSD_REPOSITORY",),
            hint="name a file with -c FILE or OPSD_CONFIG, or set OPSD_REPOSITORY, OPSD_PASSPHRASE_FILE and OPSD_STATE",
        )
    state = Path(environment.get("OPSD_STATE") or DEFAULT_STATE)
    file = environment.get("OPSD_PASSPHRASE_FILE")
    return Settings(
        repository=repository,
        state=state,
        cache=state / "cache",
        host=default_host,
        timezone=_system_zone(environment),
        passphrase={"file": file} if file else None,
    )


def _system_zone(environment: Mapping[str, str]) -> str:
    """The machine's zone: TZ, or what /etc/localtime leads to."""
    name = environment.get("TZ", "").removeprefix(":")
    if not name:
        name = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return "UTC"
    return name or "UTC"
