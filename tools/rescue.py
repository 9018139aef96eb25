#!/usr/bin/env python3
"""Read a repository of opsd's format 1 without opsd. Written from docs/format.md alone: read both side by side.

    rescue.py [--kit] REPOSITORY list
    rescue.py [--kit] REPOSITORY restore SNAPSHOT DIR      (SNAPSHOT: an id, the beginning of one, or "latest")

REPOSITORY is a folder; bring others home first. OPSD_PASSPHRASE_FILE or OPSD_KIT_FILE names the file with the key, else
you are asked. Needs Linux, Python 3.11 and `pip install 'cryptography>=48' zstandard blake3`.
Promise: nothing is written that was not authenticated, nothing outside DIR. What is damaged is named and costs only
itself. Exit code: 0 all is back, 1 something could not be done, 2 wrong usage, 4 something stored is damaged.
"""

import hashlib
import os
import re
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from getpass import getpass
from hmac import digest
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from zstandard import ZstdDecompressor, ZstdError

__all__ = ["main"]
NUMBERS = dict(zip(range(0xCA, 0xD4), (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True))
SIZED = {0xC4: (">B", bytes), 0xC5: (">H", bytes), 0xC6: (">I", bytes), 0xD9: (">B", str), 0xDA: (">H", str)}
SIZED |= {0xDB: (">I", str), 0xDC: (">H", list), 0xDD: (">I", list), 0xDE: (">H", dict), 0xDF: (">I", dict)}
SPECIAL = {4: 0o010600, 5: 0o140600, 6: 0o020600, 7: 0o060600}  # types of entries as mknod(2) wants them
DAMAGE = (ValueError, LookupError, TypeError, RecursionError, struct.error, ZstdError, InvalidTag, InvalidSignature)
hmac = partial(digest, digest="sha256")
printable = partial(re.sub, r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", "?")
codes = [0]  # the exit codes of what went wrong so far


class Refused(Exception):
    """What can't be done: a wrong key, a newer format, no such snapshot."""


def need(holds: object, text: str, error: type[Exception] = ValueError) -> None:
    if not holds:
        raise error(text)


@contextmanager
def naming(name: str | bytes) -> Iterator[None]:
    """Tell what goes wrong inside under this name, and go on."""
    try:
        yield
    except (Refused, OSError, *DAMAGE) as error:
        codes.append(4 if isinstance(error, DAMAGE) else 1)
        text = getattr(error, "strerror", None) or str(error) or "a seal or signature does not hold"
        print(printable(f"rescue: {os.fsdecode(name)}: {'damaged: ' * (codes[-1] == 4)}{text}"), file=sys.stderr)
        if getattr(error, "errno", None) == 28:  # no space left: the rest would fare no better
            sys.exit(1)


class Cursor(BytesIO):
    """Bytes read from left to right, never past their end."""

    def take(self, length: int) -> bytes:
        content = self.read(length)
        need(len(content) == length, "it ends too early")
        return content

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def sized(self) -> bytes:
        return self.take(self.unpack("<I")[0])

    def value(self) -> Any:
        """One MessagePack value: no extension types, no key twice."""
        tag = self.take(1)[0]
        if tag < 0x80 or tag >= 0xE0:
            return tag if tag < 0x80 else tag - 256
        if tag in (0xC0, 0xC2, 0xC3):
            return None if tag == 0xC0 else tag == 0xC3
        if tag in NUMBERS:
            return self.unpack(NUMBERS[tag])[0]
        shape: type = dict if tag < 0x90 else list if tag < 0xA0 else str if tag < 0xC0 else SIZED[tag][1]
        length = self.unpack(SIZED[tag][0])[0] if tag >= 0xC0 else tag & (31 if shape is str else 15)
        if shape in (bytes, str):
            return self.take(length) if shape is bytes else self.take(length).decode()
        if shape is list:
            return [self.value() for _ in range(length)]
        pairs = {self.value(): self.value() for _ in range(length)}
        need(len(pairs) == length, "a MessagePack map has one key twice")
        return pairs


def decode(content: bytes) -> Any:
    cursor = Cursor(content)
    value = cursor.value()
    need(not cursor.read(), "bytes follow the MessagePack value")
    return value


def read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return Cursor(file.read(length)).take(length)


def read_kit(text: bytes) -> bytes | None:
    """Kit secret (16) and binding (12) of a recovery kit; None if it is none, or mistyped."""
    letters = re.sub(r"[\s-]", "", text.decode(errors="replace")).upper().translate(str.maketrans("ILO", "110"))
    if not re.fullmatch("[0-9A-HJKMNP-TV-Z]{48}", letters):
        return None
    kit = int(letters.translate(str.maketrans("JKMNPQRSTVWXYZ", "IJKLMNOPQRSTUV")), 32).to_bytes(30, "big")
    return kit[:28] if hashlib.sha256(kit[:28]).digest()[:2] == kit[28:] else None


class Repository:
    """A repository, opened: its snapshots and their contents."""

    def __init__(self, folder: str) -> None:
        asked = "--kit" in sys.argv or "OPSD_KIT_FILE" in os.environ
        file = os.environ.get("OPSD_KIT_FILE" if asked else "OPSD_PASSPHRASE_FILE")
        text = Path(file).read_bytes().removesuffix(b"\n") if file else getpass("Passphrase or kit: ").encode()
        self.folder, self.passphrase, self.kit = Path(folder), text, read_kit(text)
        need(self.kit or not asked, "that is no recovery kit; is a letter or digit wrong?", Refused)
        secrets: Any = max(self.objects("keys", 2, self.open_slot), key=len, default={})
        need("index_key" in secrets, "no key slot here opens with this passphrase or kit", Refused)
        self.id, self.index_key, self.id_key = secrets["repository"], secrets["index_key"], secrets.get("id_key", b"")
        self.pairs = {pair["id"]: pair for domain in secrets.get("domains", ()) for pair in domain["keys"]}
        self.owner = secrets["owner_public"]
        binding = hashlib.sha256(b"opsd kit 1\0" + self.id + self.owner["ed25519"] + self.owner["mldsa65"]).digest()
        need(not self.kit or self.kit[16:] == binding[:12], "the kit belongs to another repository", Refused)
        # Earlier settings count too: snapshots of a writer whom the newest no longer name may still stand.
        settings = self.objects("settings", 1, lambda _, content: self.read_signed("settings", content)[0])
        self.writers = {writer["id"]: writer["key"] for clear in settings for writer in clear["writers"]}
        self.snapshots = sorted(self.objects("snapshots", 6, self.read_snapshot), key=lambda row: row["started"])
        self.session_key, self.frame = lru_cache(256)(self.open_session_key), lru_cache(8)(self.open_frame)
        self.frames: dict[tuple[bytes, int], list[tuple[Path, tuple[Any, ...], bytes]]] = {}

    def objects(self, place: str, kind: int, read: Callable[[Path, bytes], Any]) -> list[Any]:
        """What `read` makes of every object of a kind, given its bytes; of a pack, which is read in parts, its header."""
        found = []
        for path in sorted((self.folder / place).glob("**/*")):
            with naming(f"{place}/{path.name}"):
                if re.fullmatch(r"(\S+-)?[0-9a-f]{64}", path.name):
                    content = read_at(path, 0, 8) if kind == 4 else path.read_bytes()
                    matches = kind == 4 or hashlib.sha256(content).hexdigest() == path.name[-64:]
                    need(matches, "its bytes do not match its name")
                    need(content[:5] == b"OPSD" + bytes([kind]), "it begins unlike its name promises")
                    need(content[5:8] == b"\1\1\0", "written by a newer opsd, take its rescue.py", Refused)
                    found.append(read(path, content))
        return found

    def open_slot(self, _: Path, content: bytes) -> dict[str, Any]:
        cursor = Cursor(content)
        header, raw, nonce, sealed = cursor.take(8), cursor.sized(), cursor.take(12), cursor.read()
        clear = decode(raw)
        if clear["kind"] != ("kit" if self.kit else "passphrase"):
            return {}
        if self.kit:
            key = hmac(clear["salt"], b"opsd kit 1" + self.kit[:16])
        else:
            salt, *work = (clear["argon2"][name] for name in ("salt", "iterations", "lanes", "memory_kib"))
            key = Argon2id.derive(
                Argon2id(salt=salt, length=32, iterations=work[0], lanes=work[1], memory_cost=work[2]), self.passphrase
            )
        try:
            return dict(decode(AESGCM(key).decrypt(nonce, sealed, b"opsd slot 1\0" + header + raw)))
        except InvalidTag:  # another key's, most likely
            return {}

    def unbox(self, key: bytes, kind: bytes, box: bytes) -> bytes:
        label, mac = b"opsd " + kind + b" 1", box[:32]
        plain = AESGCM(hmac(key, label + mac)).decrypt(box[32:44], box[44:], label + b"\0" + self.id)
        need(blake3(kind + b"\0" + plain, key=hmac(key, b"opsd mac 1")).digest() == mac, "its code does not hold")
        return plain

    def read_signed(self, kind: str, content: bytes) -> tuple[dict[str, Any], bytes, bytes]:
        signature, cursor = content[-3373:], Cursor(content[8:-3373])
        raw, sealed, sections = cursor.sized(), cursor.sized(), cursor.sized()
        clear: dict[str, Any] = decode(raw)
        signer = self.owner if kind == "settings" else self.writers[clear["writer"]]
        message = b"opsd " + kind.encode() + b" 1\0" + self.id + content[:-3373]
        ed25519.Ed25519PublicKey.from_public_bytes(signer["ed25519"]).verify(signature[:64], message)
        mldsa.MLDSA65PublicKey.from_public_bytes(signer["mldsa65"]).verify(signature[64:], message)
        need(clear["repository"] == self.id and not cursor.read(), "another repository's, or longer than it should be")
        need(not clear.get("requires"), f"it requires {clear.get('requires')}: take a newer rescue.py", Refused)
        return clear, sealed, sections

    def read_snapshot(self, path: Path, content: bytes) -> dict[str, Any]:
        clear, sealed, sections = self.read_signed("snapshot", content)
        summary = decode(self.unbox(self.index_key, b"snapshot", sealed))
        return clear | summary | {"id": path.name[-64:], "sections": sections}

    def open_session_key(self, sealed: bytes) -> bytes:
        domain, pair, _ = struct.unpack_from("<I8sH", sealed)
        need(pair in self.pairs, f"this key does not open key domain {domain}", Refused)
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(self.pairs[pair]["mlkem768"])
        curve = x25519.X25519PrivateKey.from_private_bytes(self.pairs[pair]["x25519"])
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        info = b"opsd session key 1\0" + self.id + sealed[:4]
        return suite.decrypt(sealed[14:], hpke.MLKEM768X25519PrivateKey(lattice, curve), info)

    def read_footer(self, pack: Path, _: bytes) -> None:
        """Learn the pack's frames: (pack, row of the footer, rows of the blobs), by birth id and number."""
        end = pack.stat().st_size - 4
        length = int.from_bytes(read_at(pack, end, 4), "little")
        cursor = Cursor(self.unbox(self.index_key, b"footer", read_at(pack, end - length, length)))
        for _ in range(cursor.unpack("<I")[0]):
            row = cursor.unpack("<16sHBBIHQIII")
            self.frames.setdefault(row[:2], []).append((pack, row, cursor.take(36 * row[-1])))

    def open_frame(self, pack: Path, row: tuple[Any, ...], blobs: bytes) -> dict[bytes, bytes]:
        """The blobs of a frame by the first half of their ids. Their ids make the frame's id, and that makes its key."""
        _, _, kind, method, domain, place, offset, stored, plain, _ = row
        number, root = struct.pack("<I", domain), self.id_key if domain else self.index_key
        ids, lengths = zip(*struct.iter_unpack("<32sI", blobs), strict=True)
        frame_id = blake3(b"".join(ids), key=hmac(root, b"opsd frame id 1" + number)).digest()
        # A session key takes 1182 bytes: domain, id of the key pair, length, and HPKE's 1120 + 32 + 16.
        base = self.session_key(read_at(pack, 26 + 1182 * place, 1182)) if domain else self.index_key
        data = b"opsd frame 1\0" + self.id + struct.pack("<IBBBI", domain, 1, kind, method, plain)
        sealed = read_at(pack, offset, stored)
        body = AESGCM(hmac(base, b"opsd frame 1" + frame_id)).decrypt(sealed[32:44], sealed[44:], data)
        if method == 1:
            body = ZstdDecompressor().stream_reader(body).read(plain + 1)  # in no case more
        need(method < 2 and len(body) == plain == sum(lengths), "a frame is not as its footer says")
        cursor, key = Cursor(body), hmac(root, b"opsd blob id 1" + number)
        found = {blob_id: cursor.take(length) for blob_id, length in zip(ids, lengths, strict=True)}
        right = all(blake3(content, key=key).digest() == blob_id for blob_id, content in found.items())
        need(right and sealed[:32] == frame_id, "a blob or frame is not what its id says")
        return {blob_id[:16]: content for blob_id, content in found.items()}

    def blob(self, blob_id: bytes, birth: bytes, number: int) -> bytes:
        """A blob by its id or the first half of it: from the frame at its address, else from any that has it."""
        problem = "no pack holds it"
        for frame in chain(self.frames.get((birth, number >> 16), ()), chain.from_iterable(self.frames.values())):
            if blob_id in frame[2]:
                try:
                    return self.frame(*frame)[blob_id[:16]]
                except (OSError, *DAMAGE) as error:
                    problem = f"in pack {frame[0].name[:16]}: {str(error) or 'a seal does not hold'}"
        raise ValueError(f"blob {blob_id.hex()[:16]}: {problem}")

    def blobs(self, content: Any) -> Iterator[bytes]:
        depth, references = content if isinstance(content, list) else (0, content or b"")
        for blob_id, _, birth, number in struct.iter_unpack("<32sI16sI", references):
            blob = self.blob(blob_id, birth, number)
            yield from self.blobs([depth - 1, blob]) if depth else (blob,)

    def pieces(self, size: int, content: Any, more: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
        """Which bytes stand where in a file; the rest are holes."""
        at, left, blobs = 0, b"", self.blobs(content)
        for page_bytes, births, pages in map(decode, self.blobs(more.get("pages"))):
            for blob_id, place, number in struct.iter_unpack("<16sHI", pages):
                if place != 0xFFFF:  # else it is a page of zero bytes
                    yield at, self.blob(blob_id, births[16 * place : 16 * place + 16], number)
                at = min(at + page_bytes, size)
        for start, length in more.get("extents", [[at, size - at]]):
            at, end = start, start + length
            while at < end and (left := left or next(blobs, b"")):
                yield at, left[: end - at]
                at, left = min(at + len(left), end), left[end - at :]
            need(at == end, "its content is shorter than it should be")
        need(not left and not next(blobs, b""), "its content is longer than it should be")

    def entries(self, snapshot: dict[str, Any]) -> Iterator[tuple[bytes, bytes, list[Any]]]:
        """Label of the source, path of the folder and entry of everything that a snapshot holds."""
        cursor = Cursor(snapshot["sections"])
        for _ in range(cursor.unpack("<H")[0]):
            sealed, box = cursor.take(1182), cursor.sized()
            with naming("the sources of one key domain"):
                for source in decode(self.unbox(self.session_key(sealed), b"manifest", box))["sources"]:
                    with naming(f"source {source['label']}"):
                        for first, name, content, *_ in decode(b"".join(self.blobs(source["listing"]))):
                            with naming(b"what is listed from " + first + b", " + name + b" on"):
                                for folder, entries in decode(b"".join(self.blobs(content)))["folders"]:
                                    yield from ((source["label"].encode(), folder, entry) for entry in entries)

    def restore(self, wanted: str, target: Path) -> None:
        """Symlinks come after all else, so that nothing goes through one; then what folders are like, inner ones first."""
        newest = [row for row in self.snapshots if row["complete"] and row["job"] == "all"] or self.snapshots
        found = newest[-1:] if wanted == "latest" else [row for row in self.snapshots if row["id"].startswith(wanted)]
        need(len(found) == 1, f"{len(found)} snapshots fit {wanted!r}, see 'list'", Refused)
        target.mkdir(parents=True, exist_ok=True)
        need(not any(target.iterdir()), f"{target} is not empty", Refused)
        os.umask(0o077)
        self.objects("packs", 4, self.read_footer)
        links, later = dict[Any, bytes](), list[tuple[bytes, list[Any]]]()
        for label, folder, entry in self.entries(found[0]):
            parts = [label, *filter(None, folder.split(b"/")), entry[0]]
            path, kind, link = b"/".join([os.fsencode(target), *parts]), entry[1], (label, (entry[8] or {}).get("link"))
            with naming(path):
                need(not {b"", b".", b".."} & set(parts) and b"/" not in label + entry[0], "its name leads elsewhere")
                os.makedirs(path if kind == 2 else os.path.dirname(path), exist_ok=True)
                if kind in (2, 3):
                    later.append((path, entry))
                elif link in links:
                    os.link(links[link], path)
                else:
                    self.write(path, entry)
                    describe(path, entry)
                    links.update({link: path} if link[1] else {})
        for path, entry in sorted(later[::-1], key=lambda row: -row[1][1]):
            with naming(path):
                if entry[1] == 3:
                    os.symlink(entry[8]["target"], path)
                describe(path, entry)

    def write(self, path: bytes, entry: list[Any]) -> None:
        _, kind, _, _, _, _, size, content, more = entry
        if kind != 1:
            return os.mknod(path, SPECIAL[kind], os.makedev(*(more or {}).get("device", (0, 0))))
        with open(path, "xb") as file:
            try:
                for at, piece in self.pieces(size, content, more or {}):
                    file.seek(at)
                    file.write(piece)
                file.truncate(size)
            except BaseException:
                os.unlink(path)  # half a file would look like a whole one
                raise


def describe(path: bytes, entry: list[Any]) -> None:
    """Give back owner, attributes, mode and times, in the order in which none undoes another."""
    _, kind, mode, uid, gid, mtime, _, _, more = entry
    if os.geteuid() == 0:
        os.chown(path, uid, gid, follow_symlinks=False)
    for name, value in (more or {}).get("xattrs", {}).items():
        with naming(path + b": attribute " + name):
            os.setxattr(path, name, value, follow_symlinks=False)
    if kind != 3:
        os.chmod(path, mode & (0o7777 if os.geteuid() == 0 else 0o1777))
    os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


def main() -> int:
    with naming("stopped"):
        match [word for word in sys.argv[1:] if word != "--kit"]:
            case [folder, "list"]:
                for row in Repository(folder).snapshots:
                    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(row["started"] // 10**9))
                    labels, complete = (
                        ",".join(source["label"] for source in row["sources"]),
                        "complete" if row["complete"] else "incomplete",
                    )
                    print(
                        printable(
                            f"{row['id'][:16]}  {when}  {row['host']}  {row['job']}  {complete}  {labels}  {row['bytes']} bytes"
                        )
                    )
            case [folder, "restore", snapshot, target]:
                Repository(folder).restore(snapshot, Path(target))
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
