"""Prove every object of a store by its name, as whoever holds no key can.

Promise: every byte of every listed object is read once; what is damaged is named, and nothing is changed.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from opsd.errors import ObjectNotFound
from opsd.events import Reporter, Total
from opsd.repository.proof import problem_of, window
from opsd.storage.protocol import ObjectInfo, Store
from opsd.verify.advice import advice
from opsd.verify.check import CheckReport, Problem

_THREADS: Final = 2
NO_KEY: Final = "no key is at hand: all objects were compared with their names, but not whether a snapshot lacks one"


def prove_objects(store: Store, reporter: Reporter) -> CheckReport:
    """Read everything.

    Raises:
        StorageError: the store can't be read.
    """
    infos = sorted(store.list(""), key=lambda info: info.name)
    reporter.stage("objects", Total(files=len(infos), size=sum(info.size for info in infos)))
    local = threading.local()

    def prove(info: ObjectInfo) -> Problem | None:
        if not hasattr(local, "buffer"):
            local.buffer = window()
        try:
            problem = problem_of(store, info, local.buffer)
        except ObjectNotFound:
            return None
        finally:
            reporter.advance(files=1, size=info.size)
        return Problem(object=info.name, problem=problem, hint=advice(info.name)) if problem else None

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="opsd-prove") as pool:
        problems = tuple(each for each in pool.map(prove, infos) if each)
    packs = [info for info in infos if info.name.startswith("packs/")]
    return CheckReport(
        problems=problems,
        notices=(NO_KEY,),
        snapshots=sum(info.name.startswith("snapshots/") for info in infos),
        packs=len(packs),
        packs_read=len(packs),
        bytes_read=sum(info.size for info in infos),
        bytes_stored=sum(info.size for info in packs),
        decoded=False,
    )
