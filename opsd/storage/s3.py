"""A store in a bucket of an S3 server.

Promise: an object is one put with its checksum, on condition that there is none of that name; never a multipart upload. What the
server does not do of that, a probe before the first put finds out, and the store makes up for it: it looks before, and
reads back after. An answer that never came is settled by the next try, which finds the object there and compares.
"""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from botocore.exceptions import ClientError

from opsd.clock import Clock
from opsd.errors import ObjectNotFound, StorageError, StoreUnavailable
from opsd.storage.folder import FOLDERS, Content
from opsd.storage.names import RESERVED, checked, is_part
from opsd.storage.protocol import Capabilities, ObjectInfo
from opsd.storage.s3_body import Body, opened
from opsd.storage.s3_client import S3Options, explained, make_client, status, whole
from opsd.storage.s3_probe import Behaviour, probe

Result = TypeVar("Result")

#: How much is read at a time into the caller's buffer.
_BLOCK = 1 << 20


class S3Store:
    """The store below a prefix of an existing bucket; close it, or use it as a context, when done. For several threads.

    Nothing is asked of the server before the first operation; what it does is probed then, unless `found` tells.
    """

    def __init__(self, options: S3Options, clock: Clock, found: Behaviour | None = None) -> None:
        self._options = options
        self.connections = options.connections
        self._clock = clock
        self._client: Any = make_client(options)
        self._prefix = options.start
        self._lock = threading.Lock()
        self._looks = [threading.Lock() for _ in range(64)]
        self._found = found

    @classmethod
    def create(cls, options: S3Options, clock: Clock) -> "S3Store":
        """See that the bucket can be used as it is meant to be; may be repeated.

        Raises StorageError where the prefix holds something else, or objects can't be locked as wanted.
        """
        store = cls(options, clock)
        try:
            store._refuse_foreign()
            store._check_lock()
        except BaseException:
            store.close()
            raise
        return store

    def _refuse_foreign(self) -> None:
        with explained("list", self._options):
            found = whole(self._client.list_objects_v2(Bucket=self._options.bucket, Prefix=self._prefix, Delimiter="/"))
        folders = [entry["Prefix"] for entry in found.get("CommonPrefixes", ())]
        files = [entry["Key"] for entry in found.get("Contents", ())]
        present = {key[len(self._prefix) :].rstrip("/") for key in (*folders, *files)} - {""}
        if present and not present & set(FOLDERS):
            raise StorageError(f"{self._options} holds something else", hint="name an empty prefix")

    def _check_lock(self) -> None:
        if self._options.object_lock_days is None:
            return
        hint = "object lock is switched on when a bucket is made: make another, or leave out object_lock_days"
        lacking = StorageError(f"bucket {self._options.bucket} has no object lock", hint=hint)
        with explained("look at the object lock", self._options):
            try:
                found = self._client.get_object_lock_configuration(Bucket=self._options.bucket)
            except ClientError as error:
                if status(error) != 404:
                    raise
                raise lacking from error
            if found["ObjectLockConfiguration"].get("ObjectLockEnabled") != "Enabled":
                raise lacking

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def capabilities(self) -> Capabilities:
        """What the server really does; it is probed once."""
        return self._behaviour().capabilities

    def _behaviour(self) -> Behaviour:
        with self._lock:
            if self._found is None:
                self._found = probe(self._client, self._options)
            return self._found

    def _at(self, name: str) -> dict[str, str]:
        """Where an object is, as each request wants it."""
        return {"Bucket": self._options.bucket, "Key": self._prefix + checked(name)}

    def put(self, name: str, content: Content, *, replace: bool = False) -> None:
        """Store an object durably; a Path is copied."""
        checked(name)
        conditional = self._behaviour().conditional
        with opened(name, content) as body, explained(f"store {name}", self._options):
            if replace:
                self._send(name, body)
            elif conditional:
                self._send_new(name, body)
            else:
                # Two threads that look at once would both put, and a reader may see the second put half done.
                with self._looks[hash(name) % len(self._looks)]:
                    if not self._is_there(name, body):
                        self._send(name, body)

    def _send_new(self, name: str, body: Body) -> None:
        try:
            self._send(name, body, IfNoneMatch="*")
        except ClientError as error:
            if status(error) != 412:
                raise
            if not self._is_there(name, body):
                raise StoreUnavailable(f"{name} was deleted while it was stored in {self._options}") from error

    def _send(self, name: str, body: Body, **conditions: str) -> None:
        behaviour = self._behaviour()
        terms = {**self._terms(name), **_sums(body, behaviour), **conditions}
        self._client.put_object(**self._at(name), Body=body.file, ContentLength=body.size, **terms)
        if not behaviour.capabilities.checked_put and self._digest(name) != body.sum("sha256"):
            # Nobody may take it for the object, and the next try puts it again.
            self._client.delete_object(**self._at(name))
            raise StoreUnavailable(f"{name} came back from {self._options} other than it was sent")

    def _terms(self, name: str) -> dict[str, Any]:
        """On what terms an object is kept."""
        terms: dict[str, Any] = {}
        if self._options.storage_class and name.startswith("packs/"):
            terms["StorageClass"] = self._options.storage_class
        if (until := self._locked_until()) is not None:
            terms |= {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        return terms

    def _locked_until(self) -> datetime | None:
        days = self._options.object_lock_days
        return None if days is None else _date(self._clock.now()) + timedelta(days=days)

    def _is_there(self, name: str, body: Body) -> bool:
        """Whether the object is stored already; one of another length, or other bytes if those are unproved, is damaged."""
        try:
            present = self.stat(name).size
        except ObjectNotFound:
            return False
        problem = None
        if present != body.size:
            problem = f"it has {present} bytes, not {body.size}"
        elif not self._behaviour().capabilities.checked_put and self._digest(name) != body.sum("sha256"):
            problem = "its bytes are others"
        if problem:
            raise StorageError(f"{name} is damaged: {problem}", hint="run 'opsd check --repair'")
        if (until := self._locked_until()) is not None:
            self._retain(name, until)
        return True

    def _digest(self, name: str) -> bytes:
        """The SHA-256 of what the server gives back."""

        def digested(answer: Any) -> bytes:
            digest = hashlib.sha256()
            while block := answer["Body"].read(_BLOCK):
                digest.update(block)
            return digest.digest()

        return self._get(name, (0, None), digested) or b""

    def retain(self, name: str, until: int) -> None:
        """Lock an object until then, in ns UTC, or for longer if it was to be already."""
        self.stat(name)
        with explained(f"lock {name}", self._options):
            self._retain(name, _date(until))

    def locked_until(self, name: str) -> int | None:
        """When the lock of an object's newest version ends, in ns UTC."""
        held = self._head(name).get("ObjectLockRetainUntilDate")
        return None if held is None else int(held.timestamp()) * 10**9

    def checksum(self, name: str) -> bytes | None:
        """The SHA-256 that the server took of an object when it was put, if it keeps one."""
        told = self._head(name, ChecksumMode="ENABLED").get("ChecksumSHA256")
        # Of an object put in parts it is a sum of sums, which says so.
        return base64.b64decode(told) if told and "-" not in told else None

    def _head(self, name: str, **more: str) -> dict[str, Any]:
        """What the server tells of an object; HEAD has no body to tell why there is none."""
        with explained(f"look at {name}", self._options, name):
            try:
                answer: dict[str, Any] = self._client.head_object(**self._at(name), **more)
            except ClientError as error:
                if status(error) == 404:
                    self.stat(name)
                raise
        int(answer["ContentLength"])
        return answer

    def _retain(self, name: str, until: datetime) -> None:
        held = self._client.head_object(**self._at(name)).get("ObjectLockRetainUntilDate")
        if held is None or held < until:
            terms = {"Mode": "COMPLIANCE", "RetainUntilDate": until}
            self._client.put_object_retention(**self._at(name), Retention=terms)

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of an object."""
        if length == 0:
            self.stat(name)
            return b""

        def all_of(answer: Any) -> bytes:
            content: bytes = answer["Body"].read()
            return content

        return self._get(name, (offset, length), all_of) or b""

    def read_into(self, name: str, offset: int, buffer: memoryview) -> int:
        """Fill the buffer."""
        if not buffer:
            self.stat(name)
            return 0

        def fill(answer: Any) -> int:
            done = 0
            # The last call, at the end, is when botocore compares the length.
            while got := answer["Body"].readinto(buffer[done : done + _BLOCK] or bytearray(1)):
                done += got
            return done

        return self._get(name, (offset, len(buffer)), fill) or 0

    def _get(self, name: str, part: tuple[int, int | None], use: Callable[[Any], Result]) -> Result | None:
        """What `use` makes of the answer; None where the part begins behind the object's end.

        Without a length in the answer nobody would notice that it was cut off: that is no answer.
        """
        place, offset = self._at(name), part[0]
        ranged = _range(*part)
        with explained(f"read {name}", self._options, name):
            try:
                answer = self._client.get_object(**place, **ranged)
            except ClientError as error:
                if status(error) != 416:
                    raise
                return None
            with closing(answer["Body"]):
                int(answer["ContentLength"])
                if ranged and not answer["ContentRange"].startswith(f"bytes {offset}-"):
                    raise StoreUnavailable(f"{self._options} sent another part of {name} than it was asked for")
                return use(answer)

    def stat(self, name: str) -> ObjectInfo:
        """Size and time of an object: those of a read of its first byte, which unlike HEAD shows whether it was cut off."""

        def seen(answer: Any) -> ObjectInfo:
            answer["Body"].read()
            return _info(name, int(answer["ContentRange"].rpartition("/")[2]), answer["LastModified"])

        return self._get(name, (0, 1), seen) or self._stat_empty(name)

    def _stat_empty(self, name: str) -> ObjectInfo:
        with explained(f"look at {name}", self._options, name):
            return _info(name, 0, self._client.head_object(**self._at(name))["LastModified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects under the prefix, a thousand a request."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._options.bucket, Prefix=self._prefix + prefix
        )
        with explained("list", self._options):
            for page in pages:
                for entry in whole(page).get("Contents", ()):
                    name = entry["Key"][len(self._prefix) :]
                    parts = name.split("/")
                    if all(map(is_part, parts)) and parts[0] not in RESERVED:
                        yield _info(name, entry["Size"], entry["LastModified"])

    def delete(self, name: str) -> None:
        """Remove an object; where versions are kept, hide it."""
        place = self._at(name)
        with explained(f"delete {name}", self._options):
            self._client.delete_object(**place)


def _sums(body: Body, behaviour: Behaviour) -> dict[str, Any]:
    """The sum that the server checks; a hash costs as much time as sending, so no other is made."""
    if behaviour.md5 and not behaviour.sha256:
        return {"ContentMD5": body.sum_in_header("md5")}
    return {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": body.sum_in_header("sha256")}


def _range(offset: int, length: int | None) -> dict[str, str]:
    if offset == 0 and length is None:
        return {}
    return {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"}


def _date(moment: int) -> datetime:
    return datetime.fromtimestamp(moment // 10**9, UTC)


def _info(name: str, size: int, modified: datetime) -> ObjectInfo:
    # A listing may tell milliseconds where HEAD tells seconds.
    return ObjectInfo(name=name, size=size, modified=int(modified.timestamp()) * 10**9)
