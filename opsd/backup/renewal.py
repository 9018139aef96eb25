"""Lengthen the object locks of what must not go yet.

Promise: a lock only ever grows. As long as this is done each night, nothing that is named is ever locked for less than half of the days that
the configuration states. docs/decisions/0024.
"""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from opsd.clock import DAY
from opsd.errors import ObjectNotFound
from opsd.repository.local import replace_file
from opsd.storage.durable import private_folder
from opsd.storage.protocol import Bucket
from opsd.values import dataclass

_REQUESTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The locks of one copy: the bucket, the days that a lock lasts, and a file that remembers when all were looked at."""

    bucket: Bucket
    days: int
    file: Path

    def is_due(self, now: int) -> bool:
        """Whether a quarter of the days has passed since the last; of a file that is lost or broken, yes."""
        try:
            value = json.loads(self.file.read_text())
            last, days = int(value["renewed"]), int(value["days"])
        except (OSError, ValueError, KeyError, TypeError):
            return True
        return days != self.days or not 0 <= now - last < self.days * DAY // 4

    def renew(self, names: Iterable[str], now: int) -> int:
        """Lock what has less than three quarters of the days left for all of them again; how many objects that were.

        Raises:
            StorageError: the store refuses, or does not answer.
        """
        least, until = now + self.days * DAY * 3 // 4, now + self.days * DAY

        def one(name: str) -> bool:
            try:
                held = self.bucket.locked_until(name)
                if held is not None and held >= least:
                    return False
                self.bucket.retain(name, until)
            except ObjectNotFound:
                return False
            return True

        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="opsd-lock") as pool:
            renewed = sum(pool.map(one, names))
        private_folder(self.file.parent)
        replace_file(self.file, json.dumps({"renewed": now, "days": self.days}).encode())
        return renewed
