"""One process of `benchmarks.stores`: copy all packs to or from a store, several at a time, as a command of opsd does.

Imports nothing but opsd, and minds garbage as the command line does: what else a process holds costs it time.
"""

import gc
import queue
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from opsd.clock import SystemClock

TRANSFERS = 4
#: The largest pack, in bytes.
_BUFFER = 32 << 20


def _s3(port: int, access_key: str, secret_key: str) -> Any:
    from opsd.storage.s3 import S3Store  # noqa: PLC0415 - only what is used is imported, as in a command
    from opsd.storage.s3_client import S3Options  # noqa: PLC0415

    endpoint = f"http://127.0.0.1:{port}"
    options = S3Options(bucket="bucket", endpoint=endpoint, access_key=access_key, secret_key=secret_key)
    return S3Store(options, SystemClock())


def _sftp(port: int, path: str, key: str, known_hosts: str) -> Any:
    from opsd.storage.sftp import SftpStore  # noqa: PLC0415 - as above
    from opsd.storage.sftp_session import SftpOptions  # noqa: PLC0415

    options = SftpOptions(
        host="127.0.0.1",
        port=port,
        user="root",
        path=path,
        key=Path(key),
        known_hosts=Path(known_hosts),
        connections=TRANSFERS,
    )
    return SftpStore(options)


def main(kind: str, way: str, port: str, folder: str, *where: str) -> None:
    """Copy the packs of `folder`/source to the store, or the store's to `folder`/restored."""
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    for path in Path(folder, "source").iterdir():
        names.put(path.name)
    store = (_sftp if kind == "sftp" else _s3)(int(port), *where)

    def taken() -> str | None:
        try:
            return names.get_nowait()
        except queue.Empty:
            return None

    def work() -> None:
        buffer = memoryview(bytearray(_BUFFER if way == "get" else 0))
        while (name := taken()) is not None:
            if way == "put":
                store.put(f"packs/{name}", Path(folder, "source", name))
            else:
                length = store.read_into(f"packs/{name}", 0, buffer)
                Path(folder, "restored", name).write_bytes(buffer[:length])

    with closing(store), ThreadPoolExecutor(TRANSFERS) as pool:
        for done in [pool.submit(work) for _ in range(TRANSFERS)]:
            done.result()


if __name__ == "__main__":
    gc.set_threshold(10_000)
    gc.freeze()
    main(*sys.argv[1:])
