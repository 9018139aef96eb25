"""Find out what an S3 server really does, rather than what the manual of S3 says: several ignore what they do not know.

Promise: only objects below `tmp/`, which never show, are written, and removed again.
"""

import io
import secrets
from typing import Any

from botocore.exceptions import ClientError

from opsd.storage.protocol import Capabilities
from opsd.storage.s3_body import Body
from opsd.storage.s3_client import S3Options, explained, status, whole
from opsd.values import dataclass

_BYTES = b"what opsd asks a store first"
_OTHERS = b"what opsd asks a store next."


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the server did. `conditional`: a put with If-None-Match stored nothing over what was there.

    `sha256`, `md5`: bytes of another sum were refused.
    """

    conditional: bool
    sha256: bool
    md5: bool
    lists_at_once: bool

    @property
    def capabilities(self) -> Capabilities:
        """The same, as every store tells it."""
        return Capabilities(
            conditional_put=self.conditional,
            checked_put=self.sha256 or self.md5,
            lists_at_once=self.lists_at_once,
        )


def _sum(content: bytes, kind: str) -> str:
    return Body(io.BytesIO(content)).sum_in_header(kind)


def probe(client: Any, options: S3Options) -> Behaviour:
    """Put, put again, put with wrong sums, list; raises StorageError if even a plain put is refused."""
    place = f"{options.start}tmp/probe-{secrets.token_hex(8)}"
    first, altered = f"{place}-first", f"{place}-altered"
    with explained("probe", options):
        client.put_object(Bucket=options.bucket, Key=first, Body=_BYTES, ChecksumSHA256=_sum(_BYTES, "sha256"))
        try:
            listed = client.list_objects_v2(Bucket=options.bucket, Prefix=first)
            return Behaviour(
                conditional=_refuses(client, options, first, _OTHERS, IfNoneMatch="*"),
                sha256=_refuses(client, options, altered, _BYTES, ChecksumSHA256=_sum(_OTHERS, "sha256")),
                md5=_refuses(client, options, altered, _BYTES, ContentMD5=_sum(_OTHERS, "md5")),
                lists_at_once=any(entry["Key"] == first for entry in whole(listed).get("Contents", ())),
            )
        finally:
            for key in (first, altered):
                client.delete_object(Bucket=options.bucket, Key=key)


def _refuses(client: Any, options: S3Options, key: str, body: bytes, **more: str) -> bool:
    """Whether a put that must not come true is refused as one that never will."""
    try:
        client.put_object(Bucket=options.bucket, Key=key, Body=body, **more)
    except ClientError as error:
        if status(error) not in {400, 412}:
            raise
        return True
    return False
