"""A client of an S3 server, and what its errors mean.

Promise: one request is tried once; whether to try again is decided in one place, `RetryingStore`. botocore adds and checks
no checksums on its own: what is sent is checked by the SHA-256 or MD5 that the store sends along.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Any

import boto3
import botocore.session
from botocore import exceptions as faults
from botocore.config import Config
from botocore.handlers import add_expect_header
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError

from opsd.errors import MAKE_ROOM, ObjectNotFound, StorageError, StoreFull, StoreReadOnly, StoreUnavailable
from opsd.values import dataclass

#: Reads boto3's description of S3 once for all clients: a tenth of a second each.
_LOADER = create_loader()

_FULL = frozenset({"QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"})
_REFUSED = frozenset({"AccessDenied", "AllAccessDisabled", "MethodNotAllowed", "Forbidden", "403"})
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}
)
#: What botocore raises when a connection breaks or does not come about.
_BREAKS = (
    faults.ConnectionError,
    faults.HTTPClientError,
    faults.IncompleteReadError,
    faults.ResponseStreamingError,
)
#: What may pass, besides every status of 500 and more: busy servers, conflicts, and bytes that were altered on their way.
_PASSES = frozenset({
    "SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "TooManyRequests", "429", "OperationAborted",
    "ConditionalRequestConflict", "BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",
})  # fmt: skip
_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion"})


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """A place in a bucket, and how to get there. `timeout` in seconds: how long a server may say nothing.

    Without an `endpoint`, AWS's own for the region. Without keys, those that boto3 finds (such as an instance's role).
    `object_lock_days`: how long each object, from its put on, can be neither deleted nor replaced by anybody.
    `storage_class` is for packs only: all else is small and read often.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str = "us-east-1"
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    object_lock_days: int | None = None
    storage_class: str | None = None
    connections: int = 4
    timeout: float = 60.0

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.start}" + (f" at {self.endpoint}" if self.endpoint else "")

    @property
    def start(self) -> str:
        """What every key begins with: the prefix as a folder, or nothing."""
        folder = self.prefix.strip("/")
        return f"{folder}/" if folder else ""


def make_client(options: S3Options) -> Any:
    """boto3's client; usable from several threads."""
    core = botocore.session.get_session()
    core.register_component("data_loader", _LOADER)
    keys = {"aws_access_key_id": options.access_key, "aws_secret_access_key": options.secret_key}
    session = boto3.session.Session(**keys, region_name=options.region, botocore_session=core)
    config = Config(
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=options.timeout,
        read_timeout=options.timeout,
        max_pool_connections=options.connections,
        tcp_keepalive=True,
        # A server of one's own seldom has a name for each bucket.
        s3={"addressing_style": "path" if options.endpoint else "auto"},
    )
    client = session.client("s3", endpoint_url=options.endpoint, config=config)
    # "Expect: 100-continue" costs a round trip a put, and botocore reads for ever where a connection is cut within the answer
    # to it (`AWSConnection._consume_headers`, 1.44).
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return client


def status(error: faults.ClientError) -> int:
    """The HTTP status of an answer."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def whole(listing: dict[str, Any]) -> dict[str, Any]:
    """A page of a listing, if it is one: every page says whether another follows.

    Raises:
        KeyError: botocore takes an answer that was cut before its first byte for a page without objects.
    """
    if "IsTruncated" not in listing:
        raise KeyError("IsTruncated")
    return listing


@contextmanager
def explained(action: str, options: S3Options, name: str | None = None) -> Iterator[None]:
    """Turn what botocore raises into the StorageError that it is; `name` is the object that is asked for."""
    try:
        yield
    except faults.ClientError as error:
        raise _answered(error, action, options, name) from error
    except _BREAKS as error:
        text = f"can't {action} in {options}: {str(error).lower()}"
        raise StoreUnavailable(text, hint="see whether the endpoint is right and answers") from error
    except (KeyError, ValueError, ResponseParserError) as error:
        # http.client takes an answer that was cut within its header for one with fewer headers.
        raise StoreUnavailable(f"can't {action} in {options}: the answer was cut off ({error})") from error
    except faults.BotoCoreError as error:
        text = f"can't {action} in {options}: {str(error).lower()}"
        raise StorageError(text, hint="see endpoint, region and keys of this copy in the configuration") from error


def _answered(error: faults.ClientError, action: str, options: S3Options, name: str | None) -> StorageError:
    """Which StorageError an answer is."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    said = str(error.response.get("Error", {}).get("Message") or code).lower()
    text = f"can't {action} in {options}: {said}"
    if code == "NoSuchBucket":
        return StorageError(f"there is no bucket {options.bucket}", hint="make it, or see endpoint and bucket's name")
    if code in _ABSENT and name is not None:
        return ObjectNotFound(name)
    if code in _FULL or status(error) == 507:
        return StoreFull(text, hint=f"raise the quota, or {MAKE_ROOM}")
    if code in _CREDENTIALS:
        return StorageError(text, hint="see access_key and secret_key")
    if code == "RequestTimeTooSkewed":
        return StorageError(text, hint="the clock of this machine or of the server is off: see 'timedatectl'")
    # A 404 that does not say what is missing was cut off.
    if code in _PASSES or status(error) >= 500 or status(error) == 404:
        return StoreUnavailable(text, hint="see whether the server is up and not overloaded")
    if code in _REFUSED or status(error) == 403:
        return StoreReadOnly(text, hint="see the policy of the bucket and of this key, and object lock")
    return StorageError(text)
