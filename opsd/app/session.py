"""A session: settings in, an open store and repository out.

Promise: nothing is opened before it is needed, and all of it is closed at the end. Whoever only reads needs neither a configuration nor
a state folder: what opens the repository suffices.
"""

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from opsd.app.emptied import filled, foreign
from opsd.app.stores import StoreOpener, place_of
from opsd.backup.copy_state import CopyState, older_state, refuse_foreign
from opsd.backup.places import FolderPlace, StorePlace
from opsd.clock import Clock, SystemClock
from opsd.credentials import is_at_hand, resolve
from opsd.errors import ConfigurationError, KeyMissing, OpsdError, UsageError
from opsd.events import Recorder, Reporter
from opsd.repository.domains import SlotFolders, with_domains
from opsd.repository.kit import parse_kit
from opsd.repository.local import HostState
from opsd.repository.opening import Unlock, load_settings
from opsd.repository.reader import SnapshotReader
from opsd.repository.recipients import read_key_file
from opsd.repository.repository import Repository, Surroundings
from opsd.settings import DEFAULT_FILE, Settings, from_environment, load, with_passphrase
from opsd.storage.protocol import Store
from opsd.values import dataclass

Ask = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the command line says about where the repository is and how it opens. `copy`: read this one instead.

    `ask` reads a secret from the terminal; None where nobody is there to be asked.
    """

    configuration: str | None = None
    repository: str | None = None
    copy: str | None = None
    kit: bool = False
    kit_file: str | None = None
    key_file: str | None = None
    ask: Ask | None = None


def host_name() -> str:
    """What snapshots of this host are filed under where the configuration says nothing."""
    return socket.gethostname() or "localhost"


def slot_folders(settings: Settings) -> SlotFolders:
    """Where the slots of key domains stand outside of the repository: as configured, or in OPSD_SLOTS."""
    other = os.environ.get("OPSD_SLOTS")
    return SlotFolders(by_label=settings.slot_folders, other=Path(os.path.abspath(other)) if other else None)


def told_by_home(session: "Session", copy: Repository) -> Repository:
    """An open copy, its key domains as the repository's own settings have them: a copy hears last that one was destroyed."""
    place = copy.place
    if not session.settings.repository or len(place.settings.domains) == 1:
        return copy
    with suppress(OpsdError):  # Another host's copy, or the repository is not there: the copy's own word counts.
        settings = load_settings(session.home().store, place.ring, place.settings.number, Recorder())
        ring, closed = with_domains(place.store, place.ring, settings, slot_folders(session.settings))
        return Repository(replace(place, ring=ring, settings=settings, closed=closed), copy.around)
    return copy


def find_settings(configuration: str | None, repository: str | None = None) -> Settings:
    """The settings of -c, OPSD_CONFIG, the environment, or /etc/opsd, in this order; `repository` stands in for theirs.

    With a repository and no named file, /etc/opsd is not read: what is being rescued need not be this host's. A file that names no
    passphrase leaves that to OPSD_PASSPHRASE_FILE.

    Raises:
        ConfigurationError: there are none, or they have mistakes.
    """
    file = configuration or os.environ.get("OPSD_CONFIG")
    if file:
        settings = with_passphrase(load(file, host_name()), os.environ)
        return replace(settings, repository=os.path.abspath(repository)) if repository else settings
    environment = dict(os.environ)
    if repository:
        environment["OPSD_REPOSITORY"] = repository
    if environment.get("OPSD_REPOSITORY"):
        settings = from_environment(environment, host_name())
        return replace(settings, repository=os.path.abspath(settings.repository))
    if DEFAULT_FILE.exists():
        return with_passphrase(load(None, host_name()), os.environ)
    return from_environment(environment, host_name())


class Session:
    """One use of one repository; a context manager."""

    def __init__(self, access: Access, reporter: Reporter, clock: Clock | None = None) -> None:
        """Find the settings.

        Raises:
            ConfigurationError: there are none, or they have mistakes.
        """
        self.access = access
        self.reporter = reporter
        self.clock = clock or SystemClock()
        self.settings = find_settings(access.configuration, access.repository)
        self._exit = ExitStack()
        self._store: Store | None = None
        self._scratch: Path | None = None
        #: Whether a copy that was read shows an older state of itself, or can't show that it does not: what is done is done with a warning.
        self.is_doubtful = False
        self.opener = StoreOpener(scratch=self.scratch, reporter=reporter, clock=self.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.__exit__(kind, error, trace)

    @property
    def store(self) -> Store:
        """The store of the repository, or of the copy that is read instead.

        Raises:
            StorageError: it is not there. ConfigurationError: this host has none of its own.
        """
        if self._store is None:
            self._store = self._exit.enter_context(self.opener.opened(self._place()))
        return self._store

    def _place(self) -> StorePlace:
        if self.access.copy:
            return place_of(self.settings, self.access.copy)
        if not self.settings.repository:
            raise ConfigurationError(
                ("this configuration has no repository of its own, only pulls",),
                hint="read a copy with --from NAME, or fill them all with 'opsd copy'",
            )
        return FolderPlace(folder=Path(self.settings.repository))

    def home(self) -> "Session":
        """The session itself, or one of the repository where it reads a copy."""
        if self.access.copy is None:
            return self
        return self._exit.enter_context(Session(replace(self.access, copy=None), self.reporter, self.clock))

    def scratch(self) -> Path:
        """A folder that goes when the session ends."""
        if self._scratch is None:
            self._scratch = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="opsd-")))
        return self._scratch

    def has_state(self) -> bool:
        """Whether the state folder is there and may be used."""
        return self.settings.state.is_dir() and os.access(self.settings.state, os.R_OK | os.W_OK | os.X_OK)

    def surroundings(self, *, writer: bool) -> Surroundings:
        """Where the engine runs. Whoever only reads gets a state of its own where there is none."""
        own = writer or self.has_state()
        copy = self.access.copy
        cache = self.settings.cache if own else self.scratch() / "cache"
        return Surroundings(
            state=HostState(
                self.settings.state if own else self.scratch() / "state", seen=f"copies/{copy}" if copy else "seen"
            ),
            cache=cache / "copies" / copy if copy else cache,
            clock=self.clock,
            reporter=self.reporter,
            host=self.settings.host,
        )

    def can_unlock(self) -> bool:
        """Whether something opens the repository as a reader without anybody being asked."""
        access, passphrase = self.access, self.settings.passphrase
        known = passphrase is not None and is_at_hand(passphrase)
        return bool(known or access.kit or access.kit_file or access.key_file or self._kit_file())

    def unlock(self) -> Unlock:
        """What opens the repository: the kit or key that was named, else the passphrase."""
        slots = slot_folders(self.settings)
        if self.access.key_file:
            return Unlock(recipient=read_key_file(Path(self.access.key_file)), slots=slots)
        if self.access.kit or self._kit_file():
            return Unlock(kit=parse_kit(self._kit_text()), slots=slots)
        return Unlock(passphrase=self._passphrase, slots=slots)

    def _kit_file(self) -> str | None:
        """The file with the kit; the one of the environment only where no passphrase is configured, or the kit is asked for."""
        wanted = self.access.kit or self.settings.passphrase is None
        return self.access.kit_file or (os.environ.get("OPSD_KIT_FILE") if wanted else None)

    def _kit_text(self) -> str:
        file = self._kit_file()
        if file:
            return Path(file).read_text(encoding="utf-8", errors="replace")
        if self.access.ask is None:
            raise KeyMissing(
                "nobody is here to type the recovery kit", hint="give it as a file: --kit-file FILE or OPSD_KIT_FILE"
            )
        return self.access.ask("Recovery kit, twelve groups of four")

    def _passphrase(self) -> bytes:
        if self.settings.passphrase is not None:
            return resolve(self.settings.passphrase, self.reporter)
        if self.access.ask is None:
            raise KeyMissing(
                "the passphrase is needed and not at hand",
                hint="set passphrase: in the configuration or OPSD_PASSPHRASE_FILE, or use the recovery kit (--kit)",
            )
        return self.access.ask("Passphrase of the repository").encode()

    def configured_passphrase(self) -> bytes:
        """The configured passphrase; empty if there is none."""
        return resolve(self.settings.passphrase, self.reporter) if self.settings.passphrase else b""

    def new_passphrase(self, question: str) -> bytes:
        """A passphrase that is asked for twice; empty if that was the answer.

        Raises:
            KeyMissing: nobody is there. UsageError: the answers differ.
        """
        if self.access.ask is None:
            raise KeyMissing(
                "there is no terminal to ask for the passphrase",
                hint="set OPSD_PASSPHRASE_FILE, or passphrase: in the configuration",
            )
        first = self.access.ask(question)
        if first and self.access.ask("The same again") != first:
            raise UsageError("the two passphrases differ", hint="try again")
        return first.encode()

    def open(self, *, reader: bool = False, writer: bool = False) -> Repository:
        """The repository, with the keys that the task needs.

        Raises:
            NotARepository, KeyRefused, KeyMissing, IntegrityError, NewerFormat, StorageError.
        """
        # What is named on the command line need not be what this host's state folder knows.
        with nullcontext() if self.access.repository else filled(self.settings, self.access.copy):
            repository = Repository.open(
                self.store, self.surroundings(writer=writer), self.unlock(), reader=reader, writer=writer
            )
        if repository.enrolled:
            self._record_enrolment(repository)
        if self.access.copy:
            repository = told_by_home(self, repository)
        if self.access.copy and self.has_state():
            state, held = CopyState(self.settings.state, self.access.copy), repository.place.ring.repository
            refuse_foreign(held, state.read().repository, self.access.copy)
            warning = older_state(repository, state) or foreign(self.settings, self.access.copy, held)
            if warning:
                self.is_doubtful = True
                self.reporter.warn(warning)
        return repository

    def _record_enrolment(self, repository: Repository) -> None:
        from opsd.app.recording import recorded  # noqa: PLC0415 - once in the life of a host, and it needs this module

        ring = repository.place.ring
        with recorded(self, "key-enrol", writer=ring.writer.public().id.hex() if ring.writer else None):
            pass

    def own_folders(self) -> frozenset[bytes]:
        """Folders that are opsd's own and never part of a source: repository, copies, state, cache, slots, a drill's scratch."""
        settings = self.settings
        places = [each.place for each in settings.copies] + [each.target for each in settings.pulls.values()]
        slots = slot_folders(settings)
        own = [settings.state, settings.cache, *slots.by_label.values(), *([slots.other] if slots.other else [])]
        own += [each.folder for each in places if isinstance(each, FolderPlace)]
        own += [Path(settings.repository)] if settings.repository else []
        own += [settings.drill.scratch] if settings.drill.scratch else []
        return frozenset(os.fsencode(os.path.abspath(path)) for path in own)

    def snapshot(self, text: str, before: int | None = None) -> SnapshotReader:
        """A snapshot by its id, the beginning of it, or `latest`, as its readers see it.

        Raises:
            SnapshotUnknown: there is none, or several.
        """
        repository = self.open(reader=True)
        return repository.reader(repository.find(text, before))
