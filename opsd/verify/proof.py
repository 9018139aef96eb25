"""Prove every object of a store by its name, as whoever holds no key can.

Promise: every byte of every chosen object is read once, or its store asked for its checksum, which is told apart; what is damaged is
named, and nothing is changed.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

from opsd.errors import ObjectDamaged, ObjectNotFound
from opsd.events import Reporter, Total
from opsd.repository.format import digest_of
from opsd.repository.proof import problem_of, window
from opsd.storage.protocol import Bucket, ObjectInfo, Store
from opsd.verify.advice import advice
from opsd.verify.check import CheckReport, Problem

_THREADS: Final = 2
_REQUESTS: Final = 8
#: What is no problem of the object.
_GONE: Final = "gone"
_UNKNOWN: Final = "unknown"
NO_SNAPSHOT: Final = "the copy holds no snapshot, so nothing can be restored from it: run 'opsd copy' once there is one"
_BY_NAME: Final = "all objects were compared with their names, but not whether a snapshot lacks one"
NO_KEY: Final = f"no key is at hand: {_BY_NAME}"
UNOPENED: Final = f"it can't be opened: {_BY_NAME}"


def prove_objects(store: Store, reporter: Reporter) -> CheckReport:
    """Read everything.

    Raises:
        StorageError: the store can't be read.
    """
    infos = sorted(store.list(""), key=lambda info: info.name)
    return replace(prove_some(store, infos, infos, reporter), notices=(NO_KEY,))


def prove_some(
    store: Store, listed: Sequence[ObjectInfo], chosen: Sequence[ObjectInfo], reporter: Reporter
) -> CheckReport:
    """Read the chosen ones of what is listed.

    Raises:
        StorageError: the store can't be read.
    """
    reporter.stage("objects", Total(files=len(chosen), size=sum(info.size for info in chosen)))
    local = threading.local()

    def prove(info: ObjectInfo) -> str | None:
        if not hasattr(local, "buffer"):
            local.buffer = window()
        try:
            return problem_of(store, info, local.buffer)
        except ObjectNotFound:
            return _GONE
        finally:
            reporter.advance(files=1, size=info.size)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-prove") as pool:
        found = {
            info: problem for info, problem in zip(chosen, pool.map(prove, chosen), strict=True) if problem != _GONE
        }
    read = frozenset(info.name for info, problem in found.items() if problem is None)
    return replace(
        _report(listed, found),
        read=read,
        packs_read=sum(info.name.startswith("packs/") for info in found),
        bytes_read=sum(info.size for info in found),
    )


def vouched_objects(
    bucket: Bucket, listed: Sequence[ObjectInfo], chosen: Sequence[ObjectInfo], reporter: Reporter
) -> CheckReport:
    """Ask the store for its own checksums of the chosen ones; nothing is read.

    Raises:
        StorageError: it does not answer.
    """
    reporter.stage("checksums", Total(files=len(chosen)))

    def vouch(info: ObjectInfo) -> str | None:
        try:
            told = bucket.checksum(info.name)
            right = told is None or told == digest_of(info.name)
        except ObjectNotFound:
            return _GONE
        except ObjectDamaged as error:
            return error.problem
        finally:
            reporter.advance(files=1)
        return _UNKNOWN if told is None else None if right else "the store's checksum of it is of other bytes"

    with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="opsd-vouch") as pool:
        found = {
            info: problem for info, problem in zip(chosen, pool.map(vouch, chosen), strict=True) if problem != _GONE
        }
    unknown = sum(problem == _UNKNOWN for problem in found.values())
    notice = (
        f"the store has no SHA-256 of {unknown} objects: only reading them (verify: read) tells whether they are whole"
    )
    return replace(
        _report(listed, {info: problem for info, problem in found.items() if problem != _UNKNOWN}),
        notices=(notice,) if unknown else (),
        vouched=frozenset(info.name for info, problem in found.items() if problem is None),
    )


def _report(listed: Sequence[ObjectInfo], found: Mapping[ObjectInfo, str | None]) -> CheckReport:
    packs = [info for info in listed if info.name.startswith("packs/")]
    return CheckReport(
        problems=tuple(
            Problem(object=info.name, problem=problem, hint=advice(info.name))
            for info, problem in found.items()
            if problem
        ),
        notices=(),
        snapshots=sum(info.name.startswith("snapshots/") for info in listed),
        packs=len(packs),
        packs_read=0,
        bytes_read=0,
        bytes_stored=sum(info.size for info in packs),
        decoded=False,
    )
