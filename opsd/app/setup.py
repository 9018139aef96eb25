"""From a bare host to a proven first restore: find, propose, write, make the repository, take a sample, restore and compare it.

Promise: a configuration that has sources is never written over; secrets are files of mode 0600; whatever is made belongs to the user who
runs the nights, and the sample is taken and restored as that user.
"""

import errno
import json
import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from opsd.app.as_owner import command_as
from opsd.app.proposal import Answers, configuration, mariadb_source, sample, sftp_of, text_of
from opsd.app.recording import recorded
from opsd.app.session import Access, Session
from opsd.app.setup_postgresql import Joined, join, labels
from opsd.errors import ConfigurationError, StorageError
from opsd.events import Reporter
from opsd.process import run, said
from opsd.settings import Settings, default_paths
from opsd.settings.loading import DEFAULT_FILE, parsed
from opsd.sources.coverage import Uncovered, uncovered
from opsd.sources.discovery import Discovery, Found, Kind, holds_more, listening_ports
from opsd.values import dataclass
from opsd.verify.doctor_units import installed

#: Who runs the nights where the package made that user.
SERVICE_USER: Final = "opsd"
_PASSPHRASE_BYTES: Final = 24
_MAIL_PORT: Final = 25
#: sd_booted(3).
_SYSTEMD: Final = Path("/run/systemd/system")
_SYSTEMD_SECONDS: Final = 60.0
_DAEMON: Final = "opsd-daemon.service"
_AS_ROOT: Final = "run it as root; or, for what you may read yourself, with -c FILE, OPSD_REPOSITORY and OPSD_STATE"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: By these a repository is known.
_REPOSITORY: Final = frozenset({"settings", "keys", "packs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be written, and what a person must still do by hand."""

    text: str
    sample: str
    labels: tuple[str, ...]
    todo: tuple[str, ...]
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How the first sample came back; `verdict` as a drill's, `exit_code` 0 where all of it did. Sizes in bytes, spans in seconds."""

    exit_code: int
    verdict: str
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    databases: int = 0
    problems: tuple[str, ...] = ()


def service_account() -> pwd.struct_passwd | None:
    """The user who will run the nights: the package's, where root sets it up; None for whoever runs this."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return None


def refuse_configured(file: Path) -> None:
    """Refuse where there is a configuration already, or a repository's keys would be lost by a second setup.

    Raises:
        ConfigurationError: a file has sources, or can't be understood.
    """
    try:
        for path in (file, *_beside(file)):
            _refuse_sources(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError((f"{error.filename}: {reason}",), hint=_AS_ROOT) from error


def _refuse_sources(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    try:
        found = yaml.safe_load(content)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parsed({str(path): content})
        raise ConfigurationError((f"{path} can't be understood",), hint="mend it, or move it away") from error
    if isinstance(found, dict) and any(found.get(key) for key in ("sources", "pulls")):
        hint = "'opsd doctor' tests it; to begin anew, move it away, or name another with -c FILE"
        raise ConfigurationError((f"{path} has sources: nothing was changed",), hint=hint)


def _beside(file: Path) -> tuple[Path, ...]:
    """The files that are read with a configuration as one."""
    return default_paths()[1:] if file == DEFAULT_FILE else ()


def refuse_full(folder: str) -> None:
    """Refuse a place for a repository, or a copy, that holds something.

    Raises:
        ConfigurationError: it does, or can't be looked at.
    """
    try:
        names = set(os.listdir(folder)) - {"lost+found"}
    except FileNotFoundError:
        return
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = _AS_ROOT if isinstance(error, PermissionError) else "choose another place"
        raise ConfigurationError((f"{folder}: {reason}",), hint=hint) from error
    if names >= _REPOSITORY:
        hint = "choose an absent or empty folder; to go on with it, name it in a configuration of your own: opsd config generate"
        raise ConfigurationError((f"{folder} holds a repository already",), hint=hint)
    if names:
        raise ConfigurationError((f"{folder} holds something already",), hint="choose an absent or empty folder")


class Setup:
    """One setup, whose steps follow each other: `plan`, `write`, `initialise`, `prove`."""

    def __init__(
        self, answers: Answers, discovery: Discovery, reporter: Reporter, beside: Iterable[Path] | None = None
    ) -> None:
        """Begin; files `beside` the configuration are read with it as one."""
        self.answers = answers
        self._beside = tuple(_beside(answers.file) if beside is None else beside)
        self.account = service_account()
        self._discovery = discovery
        self.reporter = reporter

    def plan(self) -> Plan:
        """What to write; makes the role in each PostgreSQL server that runs.

        Raises:
            ConfigurationError: nothing was found that could be a source, or what stands in conf.d does not go with it.
        """
        found = [each for each in self._discovery.found if each.kind is not Kind.FOLDER or _is_readable(each.place)]
        servers = [each for each in found if each.kind is Kind.POSTGRESQL and each.runs and each.place]
        joined = [self._join(server, label) for server, label in zip(servers, labels(servers), strict=True)]
        sources = {each.label: {"postgresql": each.options} for each in joined}
        sources |= {} if self.account else mariadb_source(found)
        proposed = configuration(self.answers, found, sources)
        if not proposed["sources"]:
            raise ConfigurationError(
                ("nothing was found to back up",), hint="write the configuration by hand: opsd config generate"
            )
        text = text_of(proposed)
        self._settings(text.encode())
        small = sample(
            proposed, found, {each.label: each.smallest for each in joined if each.smallest and not each.todo}
        )
        return Plan(
            text=text,
            sample=text_of(small),
            labels=tuple(small["sources"]),
            todo=tuple(filter(None, (*(each.todo for each in joined), self._copy_todo(), self._contact_todo()))),
            roles=tuple(each.label for each in joined if each.made),
        )

    def _join(self, server: Found, label: str) -> Joined:
        self.reporter.stage(f"ask {server}")
        secret = self.answers.file.parent / f"{label}.password"
        joined = join(server, label, self.account, secret)
        if joined.password is not None:
            self._write_secret(secret, joined.password)
        return joined

    def _copy_todo(self) -> str | None:
        """What is to be done for a copy on a server: nobody's host key is trusted unseen."""
        place = sftp_of(self.answers.copy)
        if place is None:
            return None
        key, hosts = self.answers.login_key, self.answers.known_hosts
        return (
            f"ssh-keyscan {place['host']} >> {hosts} (compare it), and put {key}.pub into {place['user']}'s authorized_keys there; "
            "then 'opsd copy'"
        )

    def _contact_todo(self) -> str | None:
        contact = self.answers.contact
        if not contact or "://" in contact or _MAIL_PORT in listening_ports():
            return None
        return f"no mail server listens on this host: name another way to {contact} under alerts: (docs/alerts.md), then 'opsd alerts test'"

    def write(self, plan: Plan) -> None:
        """Write passphrase and configuration.

        Raises:
            StorageError: they can't be written.
        """
        if not self.answers.passphrase.exists():
            self._write_secret(self.answers.passphrase, secrets.token_urlsafe(_PASSPHRASE_BYTES))
        if sftp_of(self.answers.copy):
            self._make_login()
        # Whom the nights run as may read it, and write it no more than others.
        self._write_file(self.answers.file, plan.text, mode=0o640 if self.account else 0o600)
        if self.account:
            os.chown(self.answers.file, 0, self.account.pw_gid)

    def _make_login(self) -> None:
        key = self.answers.login_key
        if not key.exists() and shutil.which("ssh-keygen"):
            run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"opsd@{os.uname().nodename}", "-f", str(key)],
                timeout=60,
            )
        self.answers.known_hosts.touch(mode=0o644)
        for path in (key, self.answers.known_hosts):
            self._give(path)

    def _write_secret(self, path: Path, secret: str) -> None:
        self._write_file(path, f"{secret}\n", mode=0o600)
        self._give(path)

    def _write_file(self, path: Path, text: str, *, mode: int) -> None:
        """Replace a file whole; what stood there stays beside it."""
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            with open(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w", encoding="utf-8"
            ) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                path.replace(path.with_name(f"{path.name}.before-setup"))
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            hint = f"make room there: df -h {path.parent}" if error.errno in _FULL else _AS_ROOT
            raise StorageError(
                f"{path} can't be written: {(error.strerror or str(error)).lower()}", hint=hint
            ) from error

    def _give(self, path: Path) -> None:
        if self.account and path.exists():
            # Not through a symlink: whoever owns the folder could aim at any file.
            os.chown(path, self.account.pw_uid, self.account.pw_gid, follow_symlinks=False)

    def initialise(self) -> dict[str, Any]:
        """Make the folders and the repository; what 'opsd init' answers: the repository's id, and its recovery kit.

        Raises:
            StorageError: a folder can't be made, or 'opsd init' failed.
        """
        self.reporter.stage("make the repository")
        try:
            for folder in (Path(self.answers.repository), self.answers.state, *self._local_copy()):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._give(folder)
            return self._opsd(self.answers.file, "init")
        except BaseException as error:
            # Or the next setup would find a configuration with sources, and do nothing.
            self.answers.file.unlink(missing_ok=True)
            if isinstance(error, OSError):
                text = f"{error.filename}: {(error.strerror or str(error)).lower()}"
                raise StorageError(text, hint="run as root, or set OPSD_REPOSITORY and OPSD_STATE") from error
            raise

    def _local_copy(self) -> list[Path]:
        copy = self.answers.copy
        return [Path(copy)] if copy and not sftp_of(copy) else []

    def start_nights(self) -> str | None:
        """Where systemd runs and our units are there: let them have what the configuration names, and start the daemon.

        What a person must do instead where that fails; None where all is well, or there are no units.
        """
        if not self.account or self.answers.file != DEFAULT_FILE or not _SYSTEMD.is_dir() or installed() is None:
            return None
        self.reporter.stage("start the daemon")
        own, _ = command_as(None, ["config", "units", "--write"]) or ([], {})
        # Without a configuration it has failed often enough to be given up.
        for step in (
            own,
            *(["systemctl", *words] for words in (("daemon-reload",), ("reset-failed", _DAEMON), ("restart", _DAEMON))),
        ):
            done = run(step, timeout=_SYSTEMD_SECONDS)
            if done.status:
                return f"opsd config units --write && systemctl daemon-reload && systemctl restart {_DAEMON}{said(done.error_text)}"
        return None

    def remember(self, *, kit_confirmed: bool) -> None:
        """Write into the ledger that it was set up, and whether somebody has shown to hold the kit."""
        with Session(Access(configuration=str(self.answers.file)), self.reporter) as session:
            with recorded(session, "setup", kit_confirmed=kit_confirmed):
                pass
            for path in (session.settings.state, *session.settings.state.rglob("*")):
                self._give(path)

    def prove(self, plan: Plan) -> Sample:
        """Take a sample of every source, restore it in full, compare it with what was recorded.

        Raises:
            StorageError: opsd could not be run.
        """
        with self._sample_file(plan.sample) as file:
            self.reporter.stage("take a sample")
            chosen = [word for label in plan.labels for word in ("--source", label)]
            taken = self._opsd(file, "backup", *chosen)
            problems = tuple(f"{each['source']}: {each['text']}" for each in taken["failures"])
            if not any(source["outcome"] != "failed" for source in taken["snapshot"]["sources"]):
                return Sample(exit_code=1, verdict="failed", problems=problems)
            self.reporter.stage("restore the sample, and compare it")
            drilled = self._opsd(file, "drill")
        problems += tuple(f"{each['source']}: {each['subject']} {each['problem']}" for each in drilled["deviations"])
        if drilled["error"]:
            problems += (str(drilled["error"]["text"]),)
        return Sample(
            exit_code=1 if taken["failures"] else int(drilled["exit_code"]),
            verdict=str(drilled["verdict"]),
            files=sum(each["files"] for each in drilled["sources"]),
            bytes=sum(each["size"] for each in drilled["sources"]),
            databases=sum(each["databases"] for each in drilled["sources"]),
            seconds=float(drilled["seconds"]),
            problems=problems,
        )

    @contextmanager
    def _sample_file(self, text: str) -> Iterator[Path]:
        """The configuration of the sample, which goes at the end."""
        with tempfile.TemporaryDirectory(prefix="opsd-setup-") as folder:
            path = Path(folder, "sample.yaml")
            path.write_text(text, encoding="utf-8")
            self._give(path)
            self._give(Path(folder))
            yield path

    def _opsd(self, file: Path, *arguments: str) -> dict[str, Any]:
        """What a command of ours answers, as the user who runs the nights."""
        found = command_as(self.account, ["-c", str(file), *arguments, "--json"])
        if found is None:
            raise StorageError(f"can't become {SERVICE_USER}: setpriv is not there", hint="apt install util-linux")
        command, environment = found
        done = run(command, timeout=0, environment=environment)
        try:
            answer: dict[str, Any] = json.loads(done.output)
        except ValueError as error:
            raise StorageError(f"'opsd {arguments[0]}' failed{said(done.error_text)}") from error
        if set(answer) == {"error"}:
            raise StorageError(str(answer["error"]["text"]), hint=answer["error"]["hint"])
        return answer

    def left_out(self) -> tuple[Uncovered, ...]:
        """What was found and the configuration does not take."""
        settings = self._settings(self.answers.file.read_bytes())
        own = [str(path) for path in (self.answers.repository, *self._local_copy())]
        found = self._discovery.found
        return uncovered(
            settings.sources, (each for each in found if each.kind is not Kind.MOUNT or holds_more(each.place, own))
        )

    def _settings(self, text: bytes) -> Settings:
        """The configuration as the nights will read it."""
        return parsed({str(self.answers.file): text} | {str(path): path.read_bytes() for path in self._beside})


def _is_readable(folder: str) -> bool:
    """Whether the nights may list it: as the user opsd they may read everything."""
    return os.access(folder, os.R_OK | os.X_OK)
