"""Small signed objects that say what is going on: runs, marks, notes.

Promise: writers never wait for each other; what a run or a prune must know of others stands in these. docs/format.md, Runs, marks, notes.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from opsd.errors import ObjectDamaged
from opsd.repository.format import Envelope, Kind, Map, decode_signed, encode_signed, pack_map, parsing, unpack_map
from opsd.repository.keys import Keyring
from opsd.repository.seal import NotAuthentic, box, open_box
from opsd.repository.settings import RepositorySettings
from opsd.repository.signing import SigningKey
from opsd.values import dataclass

RUN_BYTES: Final = 16
KIND_NAMES: Final = {Kind.SNAPSHOT: b"snapshot", Kind.MARK: b"mark", Kind.NOTE: b"note"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """A run or a copy has begun, is alive, or has ended without a manifest. `received`: the store's time, ns."""

    run: bytes
    writer: bytes
    kind: str
    event: str
    time: int
    received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What prune means to remove (`mark`), the open runs it saw after that, an announced `sweep`, or a `damaged` pack.

    `snapshots` are object names, `packs` SHA-256s, `runs` run ids.
    """

    name: str = ""
    mark: bytes
    event: str
    time: int
    received: int = 0
    snapshots: tuple[str, ...] = ()
    packs: tuple[bytes, ...] = ()
    runs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Sequence numbers that prune dropped, or a hold and its end. `snapshot` is a SHA-256."""

    name: str = ""
    event: str
    time: int
    sequences: tuple[tuple[bytes, int], ...] = ()
    snapshot: bytes = b""
    until: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """Signs and verifies the small objects of one repository, with a ring and its settings."""

    ring: Keyring
    settings: RepositorySettings

    def signer(self) -> SigningKey:
        """The maintainer's key, or the writer's.

        Raises:
            ValueError: this ring signs nothing; callers check before.
        """
        key = self.ring.maintainer or self.ring.writer
        if key is None:
            raise ValueError("no signing key")
        return key

    def _verify(self, identity: str) -> "Any":
        def verify(clear: Map, message: bytes, signature: bytes) -> bool:
            key = self.settings.signer(bytes(clear.get(identity, b"")))
            return (
                key is not None and clear.get("repository") == self.ring.repository and key.verify(message, signature)
            )

        return verify

    def _encode(self, kind: Kind, clear: Map, sealed: Map | None, key: SigningKey) -> bytes:
        content = (
            b"" if sealed is None else box(self.ring.index(), KIND_NAMES[kind], self.ring.repository, pack_map(sealed))
        )
        envelope = Envelope(clear=clear, sealed=content, sections=b"")
        return encode_signed(kind, envelope, self.ring.repository, key.sign)

    def _sealed(self, name: str, kind: Kind, content: bytes) -> Map:
        if not content:
            return {}
        try:
            value = unpack_map(name, open_box(self.ring.index(), KIND_NAMES[kind], self.ring.repository, content))
        except NotAuthentic as error:
            raise ObjectDamaged(name, "its sealed part was altered") from error
        return dict(value)

    def encode_run(self, event: RunEvent, key: SigningKey) -> bytes:
        """A run object's bytes, signed by the writer or maintainer."""
        clear = {
            "repository": self.ring.repository,
            "run": event.run,
            "writer": key.public().id,
            "kind": event.kind,
            "event": event.event,
            "time": event.time,
        }
        return self._encode(Kind.RUN, clear, None, key)

    def decode_run(self, name: str, content: bytes, received: int) -> RunEvent:
        """A run object.

        Raises:
            ObjectDamaged, NewerFormat.
        """
        clear = decode_signed(name, content, Kind.RUN, self.ring.repository, self._verify("writer")).clear
        with parsing(name):
            return RunEvent(
                run=bytes(clear["run"]),
                writer=bytes(clear["writer"]),
                kind=str(clear["kind"]),
                event=str(clear["event"]),
                time=int(clear["time"]),
                received=received,
            )

    def encode_mark(self, mark: Mark) -> bytes:
        """A mark object's bytes."""
        key = self.signer()
        clear = {
            "repository": self.ring.repository,
            "signer": key.public().id,
            "mark": mark.mark,
            "event": mark.event,
            "time": mark.time,
        }
        sealed = {"snapshots": list(mark.snapshots), "packs": list(mark.packs), "runs": list(mark.runs)}
        return self._encode(Kind.MARK, clear, sealed, key)

    def decode_mark(self, name: str, content: bytes, received: int) -> Mark:
        """A mark object.

        Raises:
            ObjectDamaged, NewerFormat.
        """
        envelope = decode_signed(name, content, Kind.MARK, self.ring.repository, self._verify("signer"))
        clear, sealed = envelope.clear, self._sealed(name, Kind.MARK, envelope.sealed)
        with parsing(name):
            return Mark(
                name=name,
                mark=bytes(clear["mark"]),
                event=str(clear["event"]),
                time=int(clear["time"]),
                received=received,
                snapshots=tuple(sealed.get("snapshots", ())),
                packs=tuple(sealed.get("packs", ())),
                runs=tuple(sealed.get("runs", ())),
            )

    def encode_note(self, note: Note) -> bytes:
        """A note object's bytes; what a hold says is sealed, what was dropped is in the clear."""
        key = self.signer()
        clear = {
            "repository": self.ring.repository,
            "signer": key.public().id,
            "event": note.event,
            "time": note.time,
            "sequences": [list(each) for each in note.sequences],
        }
        sealed = {"snapshot": note.snapshot, "until": note.until, "reason": note.reason} if note.snapshot else None
        return self._encode(Kind.NOTE, clear, sealed, key)

    def decode_note(self, name: str, content: bytes) -> Note:
        """A note object.

        Raises:
            ObjectDamaged, NewerFormat.
        """
        envelope = decode_signed(name, content, Kind.NOTE, self.ring.repository, self._verify("signer"))
        clear, sealed = envelope.clear, self._sealed(name, Kind.NOTE, envelope.sealed)
        with parsing(name):
            return Note(
                name=name,
                event=str(clear["event"]),
                time=int(clear["time"]),
                sequences=tuple((bytes(writer), int(number)) for writer, number in clear["sequences"]),
                snapshot=bytes(sealed.get("snapshot", b"")),
                until=sealed.get("until"),
                reason=str(sealed.get("reason", "")),
            )


def open_runs(events: Sequence[RunEvent], ended: set[bytes]) -> dict[bytes, RunEvent]:
    """Runs that began and neither ended nor have a manifest (`ended`), each with its last sign of life."""
    closed = ended | {event.run for event in events if event.event in ("ended", "failed")}
    last: dict[bytes, RunEvent] = {}
    for event in sorted(events, key=lambda each: each.time):
        if event.run not in closed:
            last[event.run] = event
    return last


def holds_in_force(notes: Iterable[Note], now: int) -> dict[bytes, Note]:
    """The hold of each snapshot (by SHA-256) that is held at `now` (ns UTC): the last word counts."""
    last: dict[bytes, Note] = {}
    for note in sorted(notes, key=lambda each: (each.time, each.name)):
        if note.event in ("hold", "release"):
            last[note.snapshot] = note
    return {
        key: note for key, note in last.items() if note.event == "hold" and (note.until is None or note.until > now)
    }
