"""Manifests: a snapshot's one object, total in itself, in three parts for three circles of readers.

Promise: the manifest alone names all that a full restore needs; nothing in the parts that every role can open names a path, a
table or a customer. docs/format.md, Snapshots.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from opsd.errors import KeyMissing, ObjectDamaged
from opsd.model import Content, Outcome, RootSummary, SnapshotSummary, SourceSummary, SourceTree
from opsd.repository.format import (
    Envelope,
    Kind,
    Map,
    check_requires,
    decode_signed,
    digest_of,
    encode_signed,
    pack_map,
    parsing,
    time_of,
    unpack_map,
)
from opsd.repository.keys import DEFAULT_DOMAIN, Keyring
from opsd.repository.packs import SealedSession
from opsd.repository.references import as_content
from opsd.repository.seal import NotAuthentic, box, keyed_hash, open_box, subkey
from opsd.repository.settings import RepositorySettings
from opsd.values import dataclass

_SECTION: Final = struct.Struct("<I8sH")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What the readers of one key domain see, still sealed."""

    session: SealedSession
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPart:
    """What a section says. `about`: contents of configuration, rescue script and package list, and opsd's version."""

    trees: tuple[SourceTree, ...]
    about: Mapping[str, Any] = field(default_factory=dict)


#: The number of the newest entry of the writer's ledger, and that entry's hash.
LedgerHead = tuple[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A snapshot's manifest, verified. `references` are frame records, `hunks` a content of more of them.

    `ledger`: where the writer's ledger stood when the run began; needs no key to be read.
    """

    summary: SnapshotSummary
    next_due: int | None = None
    seen: tuple[bytes, ...] = ()
    references: bytes = b""
    hunks: Content | None = None
    page_maps: Mapping[bytes, Content] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    ledger: LedgerHead | None = None


def page_map_key(index_key: bytes, label: str, path: bytes) -> bytes:
    """16 bytes by which a writer finds the page map of a file."""
    return keyed_hash(subkey(index_key, b"opsd page map path 1"), label.encode() + b"\0" + path)[:16]


def encode_section(ring: Keyring, session_key: bytes, session: SealedSession, part: ReaderPart) -> Section:
    """Seal what readers of the session's domain may see."""
    trees = [
        {
            "label": tree.label,
            "kind": tree.kind,
            "roots": list(tree.roots),
            "listing": tree.listing,
            "facts": dict(tree.facts),
        }
        for tree in part.trees
    ]
    value: Map = {"sources": trees}
    if part.about:
        value["about"] = dict(part.about)
    return Section(session=session, content=box(session_key, b"manifest", ring.repository, pack_map(value)))


def open_section(ring: Keyring, name: str, section: Section) -> ReaderPart | None:
    """What a section says, or None if this ring is not among its readers.

    Raises:
        ObjectDamaged: it was altered.
    """
    session = section.session
    with parsing(name, "its part for readers"):
        try:
            key = ring.open_session(session.domain, session.pair, session.sealed)
            if key is None:
                return None
            value = unpack_map(name, open_box(key, b"manifest", ring.repository, section.content))
        except NotAuthentic as error:
            raise ObjectDamaged(name, "its part for readers was altered") from error
        return ReaderPart(trees=tuple(_tree(each) for each in value["sources"]), about=value.get("about", {}))


def _tree(value: Map) -> SourceTree:
    listing = as_content(value["listing"])
    if listing is None:
        raise ValueError(value)
    return SourceTree(
        label=str(value["label"]),
        kind=str(value["kind"]),
        roots=tuple(bytes(root) for root in value["roots"]),
        listing=listing,
        facts=value["facts"],
    )


def _encode_sections(sections: Sequence[Section]) -> bytes:
    parts = [struct.pack("<H", len(sections))]
    for section in sections:
        session = section.session
        parts += [_SECTION.pack(session.domain, session.pair, len(session.sealed)), session.sealed]
        parts += [struct.pack("<I", len(section.content)), section.content]
    return b"".join(parts)


def _decode_sections(name: str, content: bytes) -> tuple[Section, ...]:
    sections = []
    try:
        (count,) = struct.unpack_from("<H", content)
        place = 2
        for _ in range(count):
            domain, pair, length = _SECTION.unpack_from(content, place)
            place += _SECTION.size + length
            sealed = content[place - length : place]
            (length,) = struct.unpack_from("<I", content, place)
            place += 4 + length
            session = SealedSession(domain, pair, sealed)
            sections.append(Section(session=session, content=content[place - length : place]))
    except struct.error as error:
        raise ObjectDamaged(name, "its parts can't be parsed") from error
    if place != len(content):
        raise ObjectDamaged(name, "its parts do not fill it")
    return tuple(sections)


def _encode_source(source: SourceSummary) -> Map:
    value = {key: getattr(source, key) for key in SourceSummary.__slots__}
    roots = [[root.key, root.files, root.bytes, root.mount] for root in source.roots]
    return value | {"outcome": str(source.outcome), "roots": roots}


def encode_manifest(manifest: Manifest, ring: Keyring) -> bytes:
    """The signed bytes; the ring must hold the writer's key."""
    if ring.writer is None:
        raise KeyMissing("the writer's key is not on this machine", hint="run 'opsd key enrol' with the passphrase")
    summary = manifest.summary
    clear = {
        "repository": ring.repository,
        "writer": summary.writer,
        "run": summary.run,
        "sequence": summary.sequence,
        "complete": summary.complete,
        "next_due": manifest.next_due,
        "seen": list(manifest.seen),
        "requires": [],
    }
    if manifest.ledger:
        clear["ledger"] = list(manifest.ledger)
    sealed = {
        key: getattr(summary, key)
        for key in ("host", "job", "zone", "started", "ended", "version", "bytes", "added_bytes", "files")
    }
    sealed["tags"] = list(summary.tags)
    sealed["sources"] = [_encode_source(source) for source in summary.sources]
    sealed["references"] = {"inline": manifest.references, "hunks": manifest.hunks}
    sealed["page_maps"] = dict(manifest.page_maps)
    envelope = Envelope(
        clear=clear,
        sealed=box(ring.index(), b"snapshot", ring.repository, pack_map(sealed)),
        sections=_encode_sections(manifest.sections),
    )
    return encode_signed(Kind.SNAPSHOT, envelope, ring.repository, ring.writer.sign)


def _decode_source(value: Map) -> SourceSummary:
    return SourceSummary(
        label=str(value["label"]),
        kind=str(value["kind"]),
        outcome=Outcome(value["outcome"]),
        files=int(value["files"]),
        folders=int(value["folders"]),
        bytes=int(value["bytes"]),
        added_bytes=int(value["added_bytes"]),
        warnings=int(value["warnings"]),
        domain=int(value.get("domain", DEFAULT_DOMAIN)),
        roots=tuple(
            RootSummary(key=bytes(key), files=int(files), bytes=int(size), mount=bool(mount))
            for key, files, size, mount in value.get("roots", ())
        ),
    )


def _summary(name: str, received: int, clear: Map, sealed: Map) -> SnapshotSummary:
    return SnapshotSummary(
        id=digest_of(name).hex(),
        name=name,
        writer=bytes(clear["writer"]),
        run=bytes(clear["run"]),
        sequence=int(clear["sequence"]),
        started=int(sealed["started"]),
        ended=int(sealed["ended"]),
        received=received,
        zone=str(sealed["zone"]),
        host=str(sealed["host"]),
        job=str(sealed["job"]),
        tags=tuple(sealed["tags"]),
        complete=bool(clear["complete"]),
        sources=tuple(_decode_source(source) for source in sealed["sources"]),
        files=int(sealed["files"]),
        bytes=int(sealed["bytes"]),
        added_bytes=int(sealed["added_bytes"]),
        version=str(sealed["version"]),
    )


def decode_manifest(name: str, content: bytes, received: int, ring: Keyring, settings: RepositorySettings) -> Manifest:
    """A manifest whose name, signature and second part hold; its sections stay sealed.

    Raises:
        ObjectDamaged, NewerFormat.
    """

    def verify(clear: Map, message: bytes, signature: bytes) -> bool:
        key = settings.signer(bytes(clear.get("writer", b"")))
        return key is not None and clear.get("repository") == ring.repository and key.verify(message, signature)

    envelope = decode_signed(name, content, Kind.SNAPSHOT, ring.repository, verify)
    check_requires(name, list(envelope.clear.get("requires", ())))
    try:
        sealed = unpack_map(name, open_box(ring.index(), b"snapshot", ring.repository, envelope.sealed))
    except NotAuthentic as error:
        raise ObjectDamaged(name, "its second part was altered") from error
    with parsing(name):
        references = sealed["references"]
        if int(sealed["started"]) != time_of(name):
            raise ObjectDamaged(name, "its name has another time than it was taken at")
        return Manifest(
            summary=_summary(name, received, envelope.clear, sealed),
            next_due=envelope.clear["next_due"],
            seen=tuple(bytes(each) for each in envelope.clear["seen"]),
            references=bytes(references["inline"]),
            hunks=as_content(references["hunks"]),
            page_maps={bytes(key): found for key, each in sealed["page_maps"].items() if (found := as_content(each))},
            sections=_decode_sections(name, envelope.sections),
            ledger=ledger_head(envelope.clear),
        )


def ledger_head(clear: Map) -> LedgerHead | None:
    """What the clear part says of the writer's ledger; None in older manifests.

    Raises:
        KeyError, TypeError, ValueError: it can't be parsed.
    """
    if clear.get("ledger") is None:
        return None
    number, digest = clear["ledger"]
    return int(number), bytes(digest)
