"""A configuration becomes Settings, or a list of all its mistakes, and never anything else."""

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from opsd.credentials import KINDS
from opsd.errors import ConfigurationError
from opsd.retention.policy import DEFAULT_RULES, Rules
from opsd.settings import default_paths, example, flattened, from_environment, load, shown
from opsd.settings.model import KeyDomain, Settings, system_zone
from opsd.settings.schedule import Schedule
from opsd.settings.values import REFERENCES
from opsd.sources.options import CommandSource, FilesSource, Hook, Hooks, PostgresqlSource, SqliteSource

FACE = """\
version: 1
timezone: Europe/Paris
repository: /var/backups/opsd                # its own root: packs/, snapshots/ stand directly in it
state: /var/lib/opsd
passphrase: {file: /etc/opsd/passphrase}     # optional; or {credential: N}, {env: N}, {command: [..]}
sources:
  www:  {files: {paths: [/srv/www, /etc], exclude: ["*.tmp", "/srv/www/cache/"]}}
  crm:  {sqlite: {path: /var/lib/crm/crm.db}}
  shop: {postgresql: {host: /var/run/postgresql, databases: ["*"], exclude: ["scratch_*"]}}
  mail: {command: {run: [dump-mail, --all], name: mail.mbox}}
retention: {keep_daily: 30, keep_monthly: 12}
"""

LEAST = "repository: /r\nsources: {a: {sqlite: {path: /a}}}\n"

Load = Callable[[str], Settings]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads a text as opsd.yaml in the working folder."""
    monkeypatch.chdir(tmp_path)

    def load_text(text: str) -> Settings:
        Path("opsd.yaml").write_text(text)
        return load("opsd.yaml")

    return load_text


@pytest.fixture
def mistakes(loaded: Load) -> Callable[[str], list[str]]:
    def of(text: str) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            loaded(text)
        return [line.removeprefix("opsd.yaml:") for line in caught.value.mistakes]

    return of


def test_the_published_face_is_accepted_as_it_stands(loaded: Load) -> None:
    settings = loaded(FACE)
    assert settings.repository == "/var/backups/opsd"
    assert settings.cache == Path("/var/lib/opsd/cache")
    assert settings.passphrase == {"file": "/etc/opsd/passphrase"}
    assert settings.retention == Rules(keep_daily=30, keep_monthly=12)
    assert settings.text == FACE
    assert str(settings.zone) == "Europe/Paris"
    assert {source.label: source.options for source in settings.sources} == {
        "www": FilesSource(paths=("/srv/www", "/etc"), exclude=("*.tmp", "/srv/www/cache/")),
        "crm": SqliteSource(path="/var/lib/crm/crm.db"),
        "shop": PostgresqlSource(host="/var/run/postgresql", databases=("*",), exclude=("scratch_*",)),
        "mail": CommandSource(run=("dump-mail", "--all"), name="mail.mbox"),
    }


def test_all_but_the_repository_and_one_source_has_a_default(loaded: Load) -> None:
    settings = loaded(LEAST)
    assert settings.host == os.uname().nodename
    assert settings.timezone == "UTC"
    assert settings.state == Path("/var/lib/opsd")
    assert settings.cache == Path("/var/lib/opsd/cache")
    assert settings.passphrase is None
    assert settings.retention == DEFAULT_RULES
    assert settings.schedule == Schedule(backup="04:00")
    assert settings.domains == ()


def test_the_cache_follows_the_state_folder(loaded: Load) -> None:
    assert loaded("state: /s\n" + LEAST).cache == Path("/s/cache")
    assert loaded("state: /s\ncache: /c\n" + LEAST).cache == Path("/c")


EVERYTHING = """\
repository: /r
host: web1.example.org
schedule: {backup: 03:30}
key_domains: {staff: {}}
hooks: {before: [{run: [a, "b c", 5, no]}], on_error: [{run: [x], timeout: 90s}]}
restore_hooks: {after: [{run: [y], timeout: 1h}]}
retention: {keep_last: 3, keep_within: 48h, keep_hourly: 1, keep_weekly: 5, keep_yearly: 7, keep_tags: [release]}
sources:
  p:
    postgresql:
      {port: 5433, user: backup, password: {command: [pass, pg]}, maintenance_database: template1, via: [docker, exec, db],
       digest: 2.5%, parallel: 4, parallel_bytes: 1GiB}
    domain: staff
    hooks: {after: [{run: [z], timeout: 1.5s}]}
  s: {sqlite: {path: /s.db, page_bytes: 8KiB}}
  f: {files: {paths: [/], include: [x], exclude_caches: false, one_file_system: true, page_map: ["*.img"], sqlite: false,
      snapshot: zfs}}
  c: {command: {run: [dump], name: "a b", timeout: 2d}}
"""


def test_every_key_reaches_its_place(loaded: Load) -> None:
    settings = loaded(EVERYTHING)
    p, s, f, c = settings.sources
    assert settings.host == "web1.example.org"
    assert settings.schedule.backup == "03:30"
    assert settings.key_domains == {"staff": KeyDomain()}
    assert settings.slot_folders == {}
    assert settings.hooks == Hooks(
        before=(Hook(run=("a", "b c", "5", "no"), timeout=300.0),), on_error=(Hook(run=("x",), timeout=90.0),)
    )
    assert settings.restore_hooks == Hooks(after=(Hook(run=("y",), timeout=3600.0),))
    assert settings.retention == Rules(
        keep_last=3,
        keep_within=timedelta(hours=48),
        keep_hourly=1,
        keep_weekly=5,
        keep_yearly=7,
        keep_tags=("release",),
    )
    assert p.options == PostgresqlSource(
        port=5433,
        user="backup",
        password={"command": ("pass", "pg")},
        maintenance_database="template1",
        via=("docker", "exec", "db"),
        digest="2.5%",
        parallel=4,
        parallel_bytes=1 << 30,
    )
    assert (p.domain, p.hooks) == ("staff", Hooks(after=(Hook(run=("z",), timeout=1.5),)))
    assert s.options == SqliteSource(path="/s.db", page_bytes=8192)
    assert f.options == FilesSource(
        paths=("/",),
        include=("x",),
        exclude_caches=False,
        one_file_system=True,
        page_map=("*.img",),
        sqlite=False,
        snapshot="zfs",
    )
    assert c.options == CommandSource(run=("dump",), name="a b", timeout=172_800.0)


@pytest.mark.parametrize("text", [FACE, LEAST, EVERYTHING])
def test_what_is_shown_reads_back_as_the_same_settings(loaded: Load, text: str) -> None:
    settings = loaded(text)
    assert loaded(yaml.safe_dump(dict(shown(settings)))) == replace(
        settings, sources=tuple(sorted(settings.sources, key=lambda source: source.label))
    )


def test_what_is_shown_holds_references_and_says_where_each_key_was_set(loaded: Load) -> None:
    settings = loaded(FACE)
    where = {key: origin for key, (_, origin) in flattened(settings).items()}
    assert shown(settings)["passphrase"] == {"file": "/etc/opsd/passphrase"}
    assert where["passphrase"] == "opsd.yaml:5"
    assert where["sources.www.files.exclude"] == "opsd.yaml:7"
    assert where["retention.keep_monthly"] == "opsd.yaml:11"
    assert where["retention.keep_weekly"] == where["cache"] == "default"


RETENTION = LEAST + "retention:\n"

WRONG = {
    "an unknown key": (RETENTION + "  keep_dayly: 30\n", "4:3 retention.keep_dayly: unknown key, did you mean keep_daily?"),
    "a section that is none": (LEAST + "reports: {}\n", "3:1 reports: unknown key"),
    "no repository": ("sources: {a: {sqlite: {path: /a}}}\n", "1:1 repository: this key is required"),
    "no sources": ("repository: /r\n", "1:1 sources: this key is required"),
    "no source": ("repository: /r\nsources: {}\n", "2:10 sources: at least one is required"),
    "another version": ("version: 2\n" + LEAST, "1:10 version: expected the number 1"),
    "a zone misspelt": ("timezone: Europe/Pari\n" + LEAST, "1:11 timezone: no time zone of that name, did you mean Europe/Paris?"),
    "a zone out of its folder": ("timezone: ../passwd\n" + LEAST, "1:11 timezone: no time zone of that name"),
    "a folder of zones": ("timezone: Europe\n" + LEAST, "1:11 timezone: no time zone of that name"),
    "a relative path": ("state: var\n" + LEAST, "1:8 state: expected an absolute path, found var"),
    "a path upwards": ("state: /a/../b\n" + LEAST, "1:8 state: a path can't go through .."),
    "a NUL": ('state: "/a\\0b"\n' + LEAST, "1:8 state: a NUL can't stand in a text"),
    "an empty text": ('state: ""\n' + LEAST, "1:8 state: expected a text, found an empty one"),
    "no value": ("state:\n" + LEAST, "1:7 state: expected an absolute path, found nothing"),
    "a list for a text": ("state: [a]\n" + LEAST, "1:8 state: expected an absolute path, found a list"),
    "a mapping for a text": ("state: {a: b}\n" + LEAST, "1:8 state: expected an absolute path, found a mapping"),
    "a text for a list": (LEAST + "hooks: {before: x}\n", "3:17 hooks.before: expected a list such as [a, b], found a single value"),
    "a text for a mapping": (LEAST + "hooks: x\n", "3:8 hooks: expected a mapping such as {key: value}, found a single value"),
    "a host with a blank": ("host: a b\n" + LEAST, "1:7 host: expected a host's name"),
    "a quoted number": (RETENTION + "  keep_last: '3'\n", "4:14 retention.keep_last: expected a whole number from 0 to 100000, without quotes"),
    "a negative number": (RETENTION + "  keep_last: -3\n", "4:14 retention.keep_last: expected a whole number"),
    "a span without unit": (RETENTION + "  keep_within: 48\n", "4:16 retention.keep_within: expected a duration with its unit"),
    "rules that keep nothing": (RETENTION + "  {keep_daily: 0}\n", "4:3 retention: no rule keeps anything"),
    "two times of a week": (
        LEAST + 'schedule: {drill: "Sun 06:00, Wed 06:00"}\n',
        '3:19 schedule.drill: expected a time such as "04:00"',
    ),
    "an hour too late": (LEAST + 'schedule: {backup: "24:00"}\n', '3:20 schedule.backup: expected a time such as "04:00"'),
    "an unknown domain": (
        "repository: /r\nkey_domains: {staff: {}}\nsources:\n  a:\n    sqlite: {path: /a}\n    domain: staf\n",
        "6:5 sources.a.domain: no such key domain, did you mean staff?",
    ),
    "the default domain once more": (
        LEAST + "key_domains: {default: {}}\n", "3:15 key_domains.default: there is always a domain of this name",
    ),
    "slots in the repository": (
        LEAST + "key_domains: {a: {slots: /r/slots}}\n", "3:19 key_domains.a.slots: /r/slots lies in the repository",
    ),
    "slots in a copy": (
        LEAST + "copies: {b: {folder: /b}}\nkey_domains: {a: {slots: /b}}\n", "4:19 key_domains.a.slots: /b lies in copy b",
    ),
    "slots in the cache": (
        LEAST + "cache: /c\nkey_domains: {a: {slots: /c/a}}\n", "4:19 key_domains.a.slots: /c/a lies in cache",
    ),
    "a state in the repository": ("state: /r/state\n" + LEAST, "1:1 state: /r/state lies in the repository"),
    "a cache in the repository": ("cache: /r\n" + LEAST, "1:1 cache: /r lies in the repository"),
    "a scratch in a copy": (
        LEAST + "copies: {b: {folder: /b}}\ndrill: {scratch: /b/scratch}\n",
        "4:9 drill.scratch: /b/scratch lies in copy b",
    ),
    "a default in a pulled copy": (
        "pulls: {a: {from: {folder: /a}, to: {folder: /var/lib}}}\n", "1:1 state: /var/lib/opsd lies in copy a"
    ),
    "a source in scratch": (
        "repository: /r\nsources: {a: {files: {paths: [/srv/www]}}}\ndrill: {scratch: /srv}\n",
        "3:9 drill.scratch: /srv/www of source a lies in it",
    ),
    "a default in the repository": (LEAST.replace("/r", "/var/lib"), "1:1 state: /var/lib/opsd lies in the repository"),
    "a default cache as repository": (LEAST.replace("/r", "/var/lib/opsd/cache"), "1:1 cache: /var/lib/opsd/cache lies in"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_told_with_line_column_and_what_to_do(mistakes: Callable[[str], list[str]], name: str) -> None:
    text, mistake = WRONG[name]
    assert any(line.startswith(mistake) for line in mistakes(text)), mistakes(text)


def of_source(text: str) -> str:
    return f"repository: /r\nsources:\n  {text}\n"


WRONG_SOURCES = {
    "a: {}": "3:6 sources.a: one of files, sqlite, postgresql, command is required",
    "a: {sqlite: {path: /a}, command: {run: [x], name: y}}": "3:27 sources.a: only one of sqlite and command may stand here",
    "a: {sqllite: {path: /a}}": "3:7 sources.a.sqllite: unknown key, did you mean sqlite?",
    "a: {sqlite: {}}": "3:15 sources.a.sqlite.path: this key is required",
    "a: {sqlite: {path: /a, page_bytes: 5KiB}}": "3:38 sources.a.sqlite.page_bytes: expected 0B, or a power of two",
    "a: {files: {paths: []}}": "3:22 sources.a.files.paths: at least one is required",
    "a: {files: {paths: [/a, b]}}": "3:27 sources.a.files.paths[1]: expected an absolute path, found b",
    "a: {files: {paths: [/a], sqlite: yes}}": "3:36 sources.a.files.sqlite: expected true or false",
    "a: {files: {paths: [/a], snapshot: btrf}}": "3:38 sources.a.files.snapshot: expected one of btrfs, zfs, lvm, did you mean btrfs?",
    "a: {command: {run: [], name: x}}": "3:22 sources.a.command.run: at least one is required",
    "a: {command: {run: [x], name: ../x}}": "3:33 sources.a.command.name: expected a file's name without /",
    "a: {command: {run: [x], name: ..}}": "3:33 sources.a.command.name: expected a file's name without /",
    "a: {postgresql: {port: 0}}": "3:26 sources.a.postgresql.port: expected a whole number from 1 to 65535",
    "a: {postgresql: {digest: some}}": "3:28 sources.a.postgresql.digest: expected full, off, or a share",
    "a: {postgresql: {parallel_bytes: 1MB}}": "3:36 sources.a.postgresql.parallel_bytes: expected a size with its unit",
    "a: {sqlite: {path: /a}, hooks: {before: [{timeout: 5m}]}}": "3:44 sources.a.hooks.before[0].run: this key is required",
    ".a: {sqlite: {path: /a}}": "3:3 sources..a: expected a name of a-z",
    "A/B: {sqlite: {path: /a}}": "3:3 sources.A/B: expected a name of a-z",
}


@pytest.mark.parametrize("text", WRONG_SOURCES)
def test_a_mistake_in_a_source_names_the_source(mistakes: Callable[[str], list[str]], text: str) -> None:
    (line,) = mistakes(of_source(text))
    assert line.startswith(WRONG_SOURCES[text])


def test_all_mistakes_are_told_at_once_in_order(mistakes: Callable[[str], list[str]]) -> None:
    found = mistakes("version: 9\nretention: {keep: 1}\nsources: {a: {files: {paths: [x, y]}}}\nhost: []\n")
    places = [line.split()[0] for line in found]
    assert places == ["1:1", "1:10", "2:13", "3:31", "3:34", "4:7"], found


@pytest.mark.parametrize(
    "value", ["hunter2", "{hunter2: x}", "{file: hunter2}", "[hunter2]", "{hunter2}", "{env: '', file: hunter2}"]
)
@pytest.mark.parametrize("key", ["passphrase: {}", "sources: {{a: {{postgresql: {{password: {}}}}}}}"])
def test_a_secret_in_the_file_is_refused_and_what_stands_there_is_seldom_repeated(
    mistakes: Callable[[str], list[str]], key: str, value: str
) -> None:
    found = mistakes("repository: /r\n" + key.format(value) + "\n")
    assert any("passphrase" in line or "password" in line for line in found)
    if value != "{file: hunter2}":
        assert not any("hunter2" in line for line in found)


def test_every_kind_of_reference_that_can_be_followed_can_be_written_and_no_other() -> None:
    assert tuple(REFERENCES) == KINDS


def test_files_of_a_folder_join_and_mistakes_name_each(tmp_path: Path) -> None:
    main = tmp_path / "opsd.yaml"
    main.write_text(LEAST)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/20-b.yml").write_text("sources: {b: {files: {paths: [/b]}}}\n")
    (tmp_path / "conf.d/10-c.yaml").write_text("sources: {c: {files: {paths: [/c]}}, b: {files: {paths: [/d]}}}\n")
    for name in ("note.txt", ".hidden.yaml", ".#20-b.yaml", "old.yaml~"):
        (tmp_path / "conf.d" / name).write_text("not YAML: [")
    settings = load(default_paths(main))
    assert [source.label for source in settings.sources] == ["a", "c", "b"]
    assert settings.sources[2].options == FilesSource(paths=("/d", "/b"))
    assert "[/d]" in settings.text
    assert "[/b]" in settings.text
    first, second = f"{tmp_path}/conf.d/10-c.yaml:1", f"{tmp_path}/conf.d/20-b.yml:1"
    assert flattened(settings)["sources.b.files.paths"] == (["/d", "/b"], f"{first}, {second}")
    (tmp_path / "conf.d/30.yaml").write_text("repository: /elsewhere\nx: 1\n")
    with pytest.raises(ConfigurationError) as caught:
        load(default_paths(main))
    assert caught.value.mistakes == (
        f"{tmp_path}/conf.d/30.yaml:1:1 repository: set twice, first at {main}:1:1",
        f"{tmp_path}/conf.d/30.yaml:2:1 x: unknown key, known are "
        + caught.value.mistakes[1].partition("known are ")[2],
    )


def test_a_file_that_can_not_be_read_is_named_with_the_ways_to_name_one(tmp_path: Path) -> None:
    for path, reason in {tmp_path / "absent": "no such file or directory", tmp_path: "is a directory"}.items():
        with pytest.raises(ConfigurationError, match=f"{path}: {reason}") as caught:
            load([path])
        assert "OPSD_CONFIG" in str(caught.value.hint)
    with pytest.raises(ConfigurationError):
        load("a\0b")


def test_of_several_files_each_with_broken_syntax_all_are_told(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.yaml", "b.yaml")]
    for path in paths:
        path.write_text("a: [\n")
    with pytest.raises(ConfigurationError) as caught:
        load(paths)
    assert [line.split(":")[0] for line in caught.value.mistakes] == [str(path) for path in paths]


def test_the_host_given_by_the_caller_yields_to_the_file(loaded: Load, tmp_path: Path) -> None:
    loaded(LEAST)
    assert load(tmp_path / "opsd.yaml", "caller").host == "caller"
    loaded("host: mine\n" + LEAST)
    assert load(tmp_path / "opsd.yaml", "caller").host == "mine"


def test_without_a_file_three_variables_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"OPSD_REPOSITORY": "r", "OPSD_PASSPHRASE_FILE": "/p", "OPSD_STATE": "/s"}
    settings = from_environment(environment, "web1")
    assert settings.repository == str(tmp_path / "r")
    assert settings.passphrase == {"file": "/p"}
    assert (settings.state, settings.cache) == (Path("/s"), Path("/s/cache"))
    assert (settings.sources, settings.host) == ((), "web1")
    assert flattened(settings)["state"] == ("/s", "OPSD_STATE")


def test_the_repository_alone_is_enough_and_nothing_is_not() -> None:
    settings = from_environment({"OPSD_REPOSITORY": "/r"})
    assert (settings.passphrase, settings.state) == (None, Path("/var/lib/opsd"))
    with pytest.raises(ConfigurationError, match="there is no configuration") as caught:
        from_environment({})
    assert "OPSD_REPOSITORY" in str(caught.value.hint)


@pytest.mark.parametrize(
    "zone, expected",
    [("Asia/Tokyo", "Asia/Tokyo"), (":Asia/Tokyo", "Asia/Tokyo"), ("Mars/X", "UTC"), ("CET-1CEST", "UTC")],
)
def test_the_systems_zone_is_one_that_exists(zone: str, expected: str) -> None:
    assert system_zone({"TZ": zone}) == expected


FORM = re.compile(r"opsd\.yaml:[1-9][0-9]*:[1-9][0-9]* \S.*: .")
ODD = ["", "\t", "  ", ":", "-", "[", "]", "{", "}", '"', "'", "&a", "*a", "!x", "#", "|", ">", "%", "@", "\0", "\x85", "é", "\ufeff", "~", "<<: *a"]  # fmt: skip
TOKENS = [
    "null",
    "-1",
    "0",
    "1e9",
    "true",
    "[]",
    "{}",
    "[[]]",
    "{a: b}",
    '"\\0"',
    '"\\ud800"',
    "99999999999999999999",
    "/",
    "Europe",
    "0x1",
]


def mistakes_in(loaded: Load, text: str) -> tuple[str, ...] | None:
    """The mistakes, or None if there are none; any other error is the test's."""
    try:
        loaded(text)
    except ConfigurationError as error:
        return error.mistakes
    return None


def mutated(lines: list[str], chance: random.Random) -> str:
    lines = lines.copy()
    for _ in range(chance.choice([1, 1, 1, 3])):
        place = chance.randrange(len(lines))
        line = lines[place]
        column = chance.randrange(len(line) + 1)
        lines[place : place + 1] = chance.choice(
            [
                [],
                [line, line],
                [line[:column] + chance.choice(ODD) + line[column:]],
                [line[:column] + line[column + chance.randrange(1, 6) :]],
                [" " * chance.randrange(1, 5) + line],
                [line.lstrip()],
                [re.sub(r": .*", lambda _: ": " + chance.choice(TOKENS), line)],
                [re.sub(r"[\w/.-]+", lambda _: chance.choice(TOKENS), line, count=chance.randrange(1, 4))],
                [chance.choice(lines)],
                [line.replace("#", "", 1)],
            ]
        ) or [""]
    return "\n".join(lines)


@pytest.mark.parametrize("text", [FACE, EVERYTHING, "example"], ids=["face", "everything", "example"])
def test_three_hundred_mutations_give_settings_or_mistakes_in_their_form(loaded: Load, text: str) -> None:
    lines = (example() if text == "example" else text).splitlines()
    outcomes = {"settings": 0, "mistakes": 0}
    for seed in range(300):
        changed = mutated(lines, random.Random(seed))
        found = mistakes_in(loaded, changed)
        outcomes["settings" if found is None else "mistakes"] += 1
        assert found != ()
        assert [line for line in found or () if not FORM.match(line)] == []
    assert min(outcomes.values()) > 10, outcomes


def replaced(value: Any, put: Any) -> list[Any]:
    """Copies of a tree, each with one of its nodes replaced."""
    if isinstance(value, dict):
        return [{**value, key: each} for key in value for each in [put, *replaced(value[key], put)]]
    if isinstance(value, list):
        return [
            [*value[:n], each, *value[n + 1 :]] for n in range(len(value)) for each in [put, *replaced(value[n], put)]
        ]
    return []


@pytest.mark.parametrize("put", [None, -1, 0, 2.5, True, "", "x", [], {}, [[]], {"x": 1}, [None], "a\nb"], ids=repr)
def test_an_odd_value_at_any_place_gives_settings_or_mistakes(loaded: Load, put: Any) -> None:
    trees = replaced(yaml.safe_load(FACE), put)
    assert len(trees) > 30
    for tree in trees:
        found = mistakes_in(loaded, yaml.safe_dump(tree))
        assert [line for line in found or () if not FORM.match(line)] == []


def test_importing_settings_is_fast_and_loads_no_heavy_library() -> None:
    program = "import sys, opsd.settings; print(*sorted({'boto3', 'paramiko', 'cryptography', 'psycopg', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
