"""`copies:` and `pulls:` become places, and what can't be right about them is a mistake with its line."""

from pathlib import Path

import pytest
import yaml

from opsd.backup.limits import Limit
from opsd.backup.places import FolderPlace, S3Place, SftpPlace
from opsd.errors import ConfigurationError
from opsd.settings import Settings, load, shown
from opsd.settings.stated import CopySettings, PullSettings

LEAST = "repository: /r\nsources: {a: {sqlite: {path: /a}}}\n"
FACE = (
    LEAST
    + """\
copies: {disk: {folder: /mnt/b}, paris: {sftp: {host: h, port: 22, user: u, path: /p, key: {file: k}, known_hosts: /f}},
  cold: {s3: {endpoint: u, bucket: b, prefix: p, access_key: {env: A}, secret_key: {env: B}, object_lock_days: 35}}}
""".replace("{file: k}", "{file: /k}")
)
PULLER = """\
pulls: {web1: {from: {sftp: {host: h, user: u, path: p, key: {credential: K}, known_hosts: /f}}, to: {folder: /b/web1},
  limits: {"00:00-24:00": 2 GiB/s, "08:00-19:00": 20 Mbit/s, "22:30-06:00": 1 GiB/s}}}
"""


def loaded(folder: Path, text: str) -> Settings:
    path = folder / "opsd.yaml"
    path.write_text(text)
    return load(path)


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        loaded(folder, text)
    return [line.rpartition("opsd.yaml:")[2] for line in caught.value.mistakes]


def test_copies_of_every_kind_reach_their_places(tmp_path: Path) -> None:
    assert loaded(tmp_path, FACE).copies == (
        CopySettings(name="disk", place=FolderPlace(folder=Path("/mnt/b"))),
        CopySettings(
            name="paris",
            place=SftpPlace(host="h", user="u", path="/p", key={"file": "/k"}, known_hosts=Path("/f")),
        ),
        CopySettings(
            name="cold",
            place=S3Place(
                endpoint="u",
                bucket="b",
                prefix="p",
                access_key={"env": "A"},
                secret_key={"env": "B"},
                object_lock_days=35,
            ),
        ),
    )


def test_whoever_pulls_needs_neither_a_repository_nor_sources(tmp_path: Path) -> None:
    settings = loaded(tmp_path, PULLER)
    assert settings.repository == ""
    assert settings.sources == ()
    place = SftpPlace(host="h", user="u", path="p", key={"credential": "K"}, known_hosts=Path("/f"))
    limits = (
        Limit(begin=0, end=1440, rate=2 << 30),
        Limit(begin=480, end=1140, rate=2_500_000),
        Limit(begin=1350, end=360, rate=1 << 30),
    )
    pull = PullSettings(source=place, target=FolderPlace(folder=Path("/b/web1")), limits=limits)
    assert settings.pulls == {"web1": pull}


@pytest.mark.parametrize("text", [FACE, PULLER])
def test_what_is_shown_reads_back_as_the_same(tmp_path: Path, text: str) -> None:
    settings = loaded(tmp_path, text)
    again = loaded(tmp_path, yaml.safe_dump(dict(shown(settings))))
    assert sorted(map(str, again.copies)) == sorted(map(str, settings.copies))
    assert again.pulls == settings.pulls


WRONG = {
    "a kind misspelt": ("copies: {a: {sfpt: {}}}", "3:14 copies.a.sfpt: unknown key, did you mean sftp?"),
    "two kinds": ("copies: {a: {folder: /x, s3: {bucket: b}}}", "copies.a: only one of folder and s3 may stand here"),
    "a secret in the open": (
        "copies: {a: {s3: {bucket: b, secret_key: hunter2}}}",
        "copies.a.s3.secret_key: expected a reference",
    ),
    "no known hosts": (
        "copies: {a: {sftp: {host: h, user: u, path: p, key: {file: /k}}}}",
        "copies.a.sftp.known_hosts: this key is required",
    ),
    "a shell's home": (
        "copies: {a: {sftp: {host: h, user: u, path: ~/p, key: {file: /k}, known_hosts: /f}}}",
        "copies.a.sftp.path: no shell reads ~ there",
    ),
    "two copies in one far place": (
        "copies: {a: {s3: {bucket: b}}, b: {s3: {bucket: b, region: eu}}}",
        "copies.b: s3://b/ is the place of copies.a already",
    ),
    "a name that is no file's": ("copies: {../a: {folder: /x}}", "copies.../a: expected a name of a-z"),
    "no copy": ("copies: {}", "3:9 copies: at least one is required"),
    "hours of no day": ("copies: {a: {folder: /x, limits: {08-19: 1 MiB/s}}}", "expected hours, such as"),
    "a rate without unit": ('copies: {a: {folder: /x, limits: {"08:00-19:00": 20}}}', "expected a rate with its unit"),
    "a rate of nothing": (
        'copies: {a: {folder: /x, limits: {"08:00-19:00": 0 MiB/s}}}',
        "expected a rate with its unit",
    ),
    "a copy in the repository": (
        "copies: {a: {folder: /r/copy}}",
        "copies.a: /r/copy and the repository (/r) can't lie",
    ),
    "the repository in a copy": ("copies: {a: {folder: /}}", "copies.a: / and the repository (/r) can't lie"),
    "two copies in one folder": (
        "copies: {a: {folder: /x}, b: {folder: /x}}",
        "copies.b: /x and copies.a (/x) can't lie",
    ),
    "one name for two": (
        "copies: {a: {folder: /x}}\npulls: {a: {from: {folder: /y}, to: {folder: /z}}}",
        "pulls.a: copies.a has this name already",
    ),
    "a pull to nowhere": ("pulls: {a: {from: {folder: /y}}}", "pulls.a.to: this key is required"),
}


@pytest.mark.parametrize(("text", "mistake"), WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, mistake: str) -> None:
    found = mistakes(tmp_path, LEAST + text + "\n")
    assert any(mistake in line for line in found), found
    assert "hunter2" not in "".join(found)
