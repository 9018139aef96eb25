#!/usr/bin/env python3
"""Read a repository of opsd's format 1 without opsd. Written from docs/format.md alone: read both side by side.

    rescue.py [--kit] REPOSITORY list | restore SNAPSHOT DIR      (SNAPSHOT: an id, the beginning of one, or "latest")

REPOSITORY is a folder. The key is in the file that OPSD_PASSPHRASE_FILE or OPSD_KIT_FILE names, else you are asked;
OPSD_SLOTS may name a folder with more key slots. Needs Linux, Python 3.11, cryptography 48, zstandard, blake3.
Promise: nothing is written that was not authenticated, nothing outside DIR; what is damaged is named and costs only
itself; a file that breaks off stays as NAME.part. Exits with 0 all is well, 1 something failed, 2 wrong usage, 4 damage.
"""

import hashlib
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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

__all__: list[str] = []
FORMS = "....BHI...fdBHIQbhiq.....BHIHIHI"  # MessagePack from 0xc0 on: how struct writes numbers and lengths
DAMAGE = (ValueError, LookupError, TypeError, RecursionError, struct.error, ZstdError, InvalidTag, InvalidSignature)
HPKE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
hmac, codes = partial(digest, digest="sha256"), [0]  # codes: exit codes of what went wrong so far


def need(holds: object, text: str, error: type[Exception] = ValueError) -> None:
    if not holds:
        raise error(text)


@contextmanager
def naming(name: str | bytes) -> Iterator[None]:  # tells what goes wrong inside under this name, and goes on
    try:
        yield
    except (RuntimeError, OSError, EOFError, *DAMAGE) as error:
        codes.append(4 if isinstance(error, DAMAGE) else 1)
        text = getattr(error, "strerror", None) or str(error) or "a seal or signature does not hold"
        print("rescue:", repr(f"{os.fsdecode(name)}: {'damaged: ' * (codes[-1] // 4)}{text}")[1:-1], file=sys.stderr)


class Cursor(BytesIO):  # bytes read from left to right, never past their end
    def take(self, length: int) -> bytes:
        content = self.read(length)
        need(len(content) == length, "it ends too early")
        return content

    def unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def sized(self) -> bytes:
        return self.take(self.unpack("<I")[0])

    def value(self) -> Any:
        tag = self.take(1)[0]
        if tag < 0x80 or tag >= 0xE0 or tag in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}.get(tag, tag if tag < 0x80 else tag - 256)
        length = self.unpack(">" + FORMS[tag - 0xC0])[0] if tag >= 0xC0 else tag & (15 if tag < 0xA0 else 31)
        if 0xC4 <= tag <= 0xD3:
            return self.take(length) if tag <= 0xC6 else length
        if 0xA0 <= tag <= 0xDB:
            return self.take(length).decode()
        if 0x90 <= tag <= 0xDD:
            return [self.value() for _ in range(length)]
        pairs = {self.value(): self.value() for _ in range(length)}
        need(len(pairs) == length, "a MessagePack map has one key twice")
        return pairs

    def only(self) -> Any:
        value = self.value()
        need(not self.read(), "bytes follow the MessagePack value")
        return value


def read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return Cursor(os.pread(file.fileno(), length, offset)).take(length)


def read_kit(text: bytes) -> bytes:  # kit secret (16) and binding (12); empty if it is none, or mistyped
    letters = text.decode(errors="replace").upper().translate(str.maketrans("ILO", "110", "- \t\r\n"))
    kit = bytes(30)
    if len(letters) == 48 and set(letters) <= {*"0123456789ABCDEFGHJKMNPQRSTVWXYZ"}:  # int() ends its digits at V
        kit = int(letters.translate(str.maketrans("JKMNPQRSTVWXYZ", "IJKLMNOPQRSTUV")), 32).to_bytes(30, "big")
    return kit[:28] if hashlib.sha256(kit[:28]).digest()[:2] == kit[28:] else b""


class Repository:
    def __init__(self, folder: str) -> None:
        variable = "OPSD_KIT_FILE" if "OPSD_KIT_FILE" in os.environ or "--kit" in sys.argv else "OPSD_PASSPHRASE_FILE"
        file, slots = os.environ.get(variable), os.environ.get("OPSD_SLOTS")
        text = Path(file).read_bytes().removesuffix(b"\n") if file else getpass("Passphrase or kit: ").encode()
        self.folder, self.passphrase, self.kit, self.frames = Path(folder), text, read_kit(text), dict[Any, list[Any]]()
        need(self.kit or "KIT" not in variable, "that is no recovery kit; is a letter or digit wrong?", RuntimeError)
        self.pairs: dict[bytes, Any] = {}
        self.keys: Any = max(self.objects("keys", 2, self.open_slot), key=len, default=dict[str, Any]())
        need("index_key" in self.keys, "no key slot here opens with this passphrase or kit", RuntimeError)
        self.id, self.owner, self.index_key = self.keys["repository"], self.keys["owner_public"], self.keys["index_key"]
        binding = hashlib.sha256(b"opsd kit 1\0" + self.id + self.owner["ed25519"] + self.owner["mldsa65"]).digest()
        need(not self.kit or self.kit[16:] == binding[:12], "the kit belongs to another repository", RuntimeError)
        signed = list(self.objects("settings", 1, self.read_signed))  # earlier ones too: what they allowed may stand
        self.writers = {writer["id"]: writer["key"] for clear in signed for writer in clear["writers"]}
        self.named = {(row["number"], key["id"]) for clear in signed for row in clear["domains"] for key in row["keys"]}
        self.learn(self.keys)
        for place in ["keys", os.path.abspath(slots)] if slots else ["keys"]:
            list(self.objects(place, 2, lambda path, content: self.learn(self.open_slot(path, content))))
        self.snapshots = sorted(self.objects("snapshots", 6, self.read_signed), key=lambda row: row["started"])
        self.session_key, self.frame = lru_cache(256)(self.open_session_key), lru_cache(8)(self.open_frame)

    def objects(self, place: str, kind: int, read: Callable[[Path, bytes], Any]) -> Iterator[Any]:  # what `read` makes
        for path in sorted((self.folder / place).glob("**/*" + 64 * "[0-9a-f]")):
            with naming(f"{place}/{path.name}"):
                content = read_at(path, 0, 8) if kind == 4 else path.read_bytes()  # a pack is read in parts
                need(kind == 4 or hashlib.sha256(content).hexdigest() == path.name[-64:], "it does not match its name")
                need(content[:8] == b"OPSD" + bytes([kind, 1, 1, 0]), "written by a newer opsd", RuntimeError)
                yield read(path, content)

    def open_slot(self, _: Path, content: bytes) -> dict[str, Any]:
        cursor = Cursor(content)
        header, raw, sealed = cursor.take(8), cursor.sized(), cursor.read()
        clear, data, key = Cursor(raw).only(), b"opsd slot 1\0" + header + raw, os.urandom(32)  # which opens nothing
        if pair := self.pairs.get(clear.get("recipient")):
            return dict(Cursor(HPKE.decrypt(sealed, pair, data)).only())
        if clear["kind"] == "kit" and self.kit:
            key = hmac(clear["salt"], b"opsd kit 1" + self.kit[:16])
        elif clear["kind"] == "passphrase" and not self.kit and not self.pairs:
            cost = {name.replace("memory_kib", "memory_cost"): value for name, value in clear["argon2"].items()}
            key = Argon2id(length=32, **cost).derive(self.passphrase)
        with suppress(InvalidTag):  # another key's, most likely
            return dict(Cursor(AESGCM(key).decrypt(sealed[:12], sealed[12:], data)).only())
        return {}

    def learn(self, secrets: dict[str, Any]) -> None:  # pairs of key domains count only if the settings name them
        for number, pair in ((row["number"], pair) for row in secrets.get("domains", ()) for pair in row["keys"]):
            lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(pair["mlkem768"])
            curve = x25519.X25519PrivateKey.from_private_bytes(pair["x25519"])
            public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
            if (number, name := hashlib.sha256(public).digest()[:8]) in self.named:
                self.pairs[name] = hpke.MLKEM768X25519PrivateKey(lattice, curve)

    def unbox(self, key: bytes, kind: bytes, box: bytes) -> bytes:
        label, mac = b"opsd " + kind + b" 1", box[:32]
        plain = AESGCM(hmac(key, label + mac)).decrypt(box[32:44], box[44:], label + b"\0" + self.id)
        need(blake3(kind + b"\0" + plain, key=hmac(key, b"opsd mac 1")).digest() == mac, "its code does not hold")
        return plain

    def read_signed(self, path: Path, content: bytes) -> dict[str, Any]:  # settings or a snapshot
        kind, cursor = {1: b"settings", 6: b"snapshot"}[content[4]], Cursor(content[8:-3373])
        clear, sealed, sections = Cursor(cursor.sized()).only(), cursor.sized(), cursor.sized()
        signer: Any = self.owner if kind == b"settings" else self.writers.get(clear["writer"])
        need(signer, "the settings do not name its writer")
        message = b"opsd " + kind + b" 1\0" + self.id + content[:-3373]
        ed25519.Ed25519PublicKey.from_public_bytes(signer["ed25519"]).verify(content[-3373:-3309], message)
        mldsa.MLDSA65PublicKey.from_public_bytes(signer["mldsa65"]).verify(content[-3309:], message)
        need(clear["repository"] == self.id and not cursor.read(), "another repository's, or longer than it should be")
        need(not clear["requires"], f"it requires {clear['requires']}: take a newer rescue.py", RuntimeError)
        summary = Cursor(self.unbox(self.index_key, kind, sealed)).only() if sealed else {}
        return dict(clear | summary | {"id": path.name[-64:], "sections": sections})

    def open_session_key(self, sealed: bytes) -> bytes:
        need(sealed[4:12] in self.pairs, "no key here opens this key domain; is OPSD_SLOTS right?", RuntimeError)
        return HPKE.decrypt(sealed[14:], self.pairs[sealed[4:12]], b"opsd session key 1\0" + self.id + sealed[:4])

    def read_footer(self, pack: Path, _header: bytes) -> None:  # learn its frames, by birth id and number
        length = int.from_bytes(read_at(pack, (end := pack.stat().st_size - 4), 4), "little")
        cursor = Cursor(self.unbox(self.index_key, b"footer", read_at(pack, end - length, length)))
        for row in (cursor.unpack("<16sHBBIHQIII") for _ in range(cursor.unpack("<I")[0])):
            self.frames.setdefault(row[:2], []).append((pack, row, cursor.take(36 * row[-1])))

    def open_frame(self, pack: Path, row: tuple[Any, ...], blobs: bytes) -> dict[bytes, bytes]:  # by half a blob's id
        _, _, kind, method, domain, place, offset, stored, plain, _ = row
        number, root = struct.pack("<I", domain), self.keys.get("id_key") if domain else self.index_key
        ids, sealed = b"".join(each[0] for each in struct.iter_unpack("<32sI", blobs)), read_at(pack, offset, stored)
        frame_id = blake3(ids, key=hmac(root, b"opsd frame id 1" + number)).digest()  # which makes the frame's key
        base = self.session_key(read_at(pack, 26 + 1182 * place, 1182)) if domain else self.index_key  # 14 + 1168
        data = b"opsd frame 1\0" + self.id + struct.pack("<IBBBI", domain, 1, kind, method, plain)
        body = AESGCM(hmac(base, b"opsd frame 1" + frame_id)).decrypt(sealed[32:44], sealed[44:], data)
        body = ZstdDecompressor().stream_reader(body).read(plain + 1) if method == 1 else body  # in no case more
        need(method < 2 and len(body) == plain and sealed[:32] == frame_id, "a frame is not as its footer says")
        cursor, key, found = Cursor(body), hmac(root, b"opsd blob id 1" + number), dict[bytes, bytes]()
        for blob_id, size in struct.iter_unpack("<32sI", blobs):
            found[blob_id[:16]] = blob = cursor.take(size)
            need(blake3(blob, key=key).digest() == blob_id, "a blob is not what its id says")
        return found

    def blob(self, blob_id: bytes, birth: bytes, number: int) -> bytes:  # from its address, or wherever its id stands
        for frame in chain(self.frames.get((birth, number >> 16), ()), chain.from_iterable(self.frames.values())):
            if blob_id in frame[2]:
                with suppress(OSError, *DAMAGE):
                    return self.frame(*frame)[blob_id[:16]]
        raise ValueError(f"no pack holds blob {blob_id.hex()[:16]} undamaged")

    def blobs(self, content: Any) -> Iterator[bytes]:
        depth, references = content if isinstance(content, list) else (0, content or b"")
        for blob in (self.blob(row[0], row[2], row[3]) for row in struct.iter_unpack("<32sI16sI", references)):
            yield from self.blobs([depth - 1, blob]) if depth else (blob,)

    def pieces(self, size: int, content: Any, more: dict[str, Any]) -> Iterator[tuple[int, bytes]]:
        at, left, blobs = 0, b"", self.blobs(content)  # what is not given here is a hole
        for page_bytes, births, pages in (Cursor(hunk).only() for hunk in self.blobs(more.get("pages"))):
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

    def entries(self, snapshot: dict[str, Any]) -> Iterator[tuple[bytes, bytes, list[Any]]]:  # label, folder, entry
        cursor = Cursor(snapshot["sections"])
        for _ in range(cursor.unpack("<H")[0]):
            sealed, box = cursor.take(1182), cursor.sized()
            with naming("the sources of one key domain"):
                for source in Cursor(self.unbox(self.session_key(sealed), b"manifest", box)).only()["sources"]:
                    with naming(f"source {source['label']}"):
                        for first, name, content, *_ in Cursor(b"".join(self.blobs(source["listing"]))).only():
                            with naming(b"what is listed from " + first + b", " + name + b" on"):
                                for folder, entries in Cursor(b"".join(self.blobs(content))).only()["folders"]:
                                    yield from ((source["label"].encode(), folder, entry) for entry in entries)

    def restore(self, wanted: str, target: Path) -> None:  # symlinks after all else: nothing goes through one
        newest = [row for row in self.snapshots if row["complete"] and row["job"] == "all"] or self.snapshots
        found = newest[-1:] if wanted == "latest" else [row for row in self.snapshots if row["id"].startswith(wanted)]
        need(len(found) == 1, f"{len(found)} snapshots fit {wanted!r}, see 'list'", RuntimeError)
        target.mkdir(parents=True, exist_ok=True)
        need(not any(target.iterdir()), f"{target} is not empty", RuntimeError)
        os.umask(0o077)
        list(self.objects("packs", 4, self.read_footer))
        self.links, later = dict[Any, bytes](), list[tuple[bytes, list[Any], Any]]()
        for label, folder, entry in self.entries(found[0]):
            parts = [label, *filter(None, folder.split(b"/")), entry[0]]
            path, kind, link = b"/".join([os.fsencode(target), *parts]), entry[1], (label, (entry[8] or {}).get("link"))
            with naming(path):
                need(not {b"", b".", b".."} & set(parts) and b"/" not in label + entry[0], "its name leads elsewhere")
                os.makedirs(path if kind == 2 else os.path.dirname(path), exist_ok=True)
                later.append((path, entry, link)) if kind in (2, 3) else self.make(path, entry, link)
        for path, entry, link in sorted(later, key=lambda row: (-row[1][1], -len(row[0]))):  # then folders, inner first
            with naming(path):
                self.make(path, entry, link)

    def make(self, path: bytes, entry: list[Any], link: Any) -> None:  # owner to times: so that none undoes another
        _, kind, mode, uid, gid, mtime, size, content, more = entry
        more, root, part = more or {}, os.geteuid() == 0, path[: len(os.path.dirname(path)) + 251] + b".part"
        if link in self.links:
            os.link(self.links[link], path, follow_symlinks=False)
        elif kind == 1:
            with open(part, "xb") as file:  # what breaks off stays under this name
                for at, piece in self.pieces(size, content, more):
                    file.seek(at)
                    file.write(piece)
                file.truncate(size)
            os.rename(part, path)
        elif kind == 3:
            os.symlink(more["target"], path)
        elif kind != 2:
            os.mknod(path, (0o010600, 0o140600, 0o020600, 0o060600)[kind - 4], os.makedev(*more.get("device", (0, 0))))
        os.chown(path, *((uid, gid) if root else (-1, -1)), follow_symlinks=False)
        for name, value in more.get("xattrs", {}).items():
            with naming(path + b": attribute " + name):
                os.setxattr(path, name, value, follow_symlinks=False)
        if kind != 3:
            os.chmod(path, mode & (0o7777 if root else 0o1777))
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)
        self.links |= {link: path} if link[1] else {}


if __name__ == "__main__":
    with naming("stopped"):
        match [word for word in sys.argv[1:] if word != "--kit"]:
            case [folder, "list"]:
                for row in Repository(folder).snapshots:
                    when, labels = time.gmtime(row["started"] // 10**9), [source["label"] for source in row["sources"]]
                    line = f"{row['id'][:16]}  {time.strftime('%FT%TZ', when)}  {row['host']}  {row['job']}"
                    line += f"  {'complete' if row['complete'] else 'incomplete'}  {','.join(labels)}  {row['bytes']}"
                    print(repr(line)[1:-1])
            case [folder, "restore", snapshot, target]:
                Repository(folder).restore(snapshot, Path(target))
            case _:
                codes.append(2)
                print(__doc__, file=sys.stderr)
    sys.exit(max(codes))
