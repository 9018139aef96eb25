"""The document of the format and the engine say the same: every test vector of docs/format.md."""

from pathlib import Path

import pytest

from opsd.monitor.ledger import Entry, Who
from opsd.repository.frames import FrameKeys
from opsd.repository.keys import Keyring, argon2_key
from opsd.repository.kit import Kit, binding_of, parse_kit
from opsd.repository.manifest import page_map_key
from opsd.repository.packs import padded
from opsd.repository.seal import box, keyed_hash, open_box, seal, unseal
from opsd.repository.signing import SigningKey

DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
KEY, REPOSITORY, INDEX_KEY = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
OWNER = SigningKey(ed25519=b"\1" * 32, mldsa65=b"\2" * 32).public()
ENTRY = Entry(
    number=1,
    time="2026-11-24T04:00:00.000000+00:00",
    who=Who(login="alice", uid=1000, terminal=True),
    host="wéb1",
    action="backup",
    outcome="done",
    exit_code=0,
    details={"files": 1},
    version="1.0",
)


@pytest.fixture(scope="module")
def vectors() -> dict[str, str]:
    """The table at the document's end."""
    rows = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text().partition("## Test vectors")[2].splitlines()]
    return {row[0]: row[1].strip("`") for row in rows if len(row) == 2 and row[1].startswith("`")}


def test_every_vector_of_the_document_is_what_the_engine_computes(vectors: dict[str, str]) -> None:
    ring = Keyring(repository=REPOSITORY, owner_public=OWNER, id_key=KEY, index_key=INDEX_KEY)
    keys = FrameKeys.of(ring, 1, b"\3" * 32)
    blob = keyed_hash(ring.blob_key(1), b"hello")
    frame = keys.frame_id(blob)
    context = keys.context(1, 0, 5)
    parameters = {"salt": bytes(16), "memory_kib": 65536, "iterations": 3, "lanes": 4}
    found = {
        "seal": seal(KEY, b"context", b"hello").hex(),
        "box": box(KEY, b"index", REPOSITORY, b"hello").hex(),
        "blob id, domain 1": blob.hex(),
        "blob id, domain 0": keyed_hash(ring.blob_key(0), b"hello").hex(),
        "frame id": frame.hex(),
        "frame key": keys.encryption_key(frame).hex(),
        "frame context": context.hex(),
        "frame, raw": (frame + seal(keys.encryption_key(frame), context, b"hello")).hex(),
        "owner ed25519": OWNER.ed25519.hex(),
        "owner key id": OWNER.id.hex(),
        "page map path hash": page_map_key(INDEX_KEY, "www", b"/srv/disk.img").hex(),
        "passphrase key": argon2_key(b"correct horse", parameters).hex(),
        "kit": Kit(secret=bytes(range(16)), binding=binding_of(REPOSITORY, OWNER)).text(),
        "ledger entry": ENTRY.hash,
        "padded 1000, 1000000, 33554433": " ".join(str(padded(each)) for each in (1000, 1_000_000, 33_554_433)),
    }
    assert found == vectors


def test_what_is_sealed_opens_again(vectors: dict[str, str]) -> None:
    assert unseal(KEY, b"context", bytes.fromhex(vectors["seal"])) == b"hello"
    assert open_box(KEY, b"index", REPOSITORY, bytes.fromhex(vectors["box"])) == b"hello"


def test_a_kit_is_read_as_people_type(vectors: dict[str, str]) -> None:
    assert parse_kit(vectors["kit"].lower().replace("-", " ").replace("0", "o").replace("1", "l")).secret == bytes(
        range(16)
    )
