"""Which snapshots need what is damaged in a source, told by who can read manifests.

Promise: a snapshot that may need it is never said not to.
"""

from collections.abc import Collection

from opsd.backup.copy_run import Needs
from opsd.errors import IntegrityError, NewerFormat
from opsd.repository.format import digest_of
from opsd.repository.repository import Repository
from opsd.repository.run import frames_of


def needs_of(repository: Repository) -> Needs:
    """How to tell, with the keys of an open repository."""

    def may_need(manifest: str, missing: Collection[str]) -> bool:
        if any(name.startswith("wal/") for name in missing):
            return True
        try:
            births = frames_of(repository, repository.manifest(repository.place.store.stat(manifest))).births()
            catalog = repository.catalog()
        except (IntegrityError, NewerFormat):
            return True
        lost = {digest_of(name) for name in missing}
        holders = [{row.digest for row in catalog.objects.get(birth, ())} for birth in births]
        return any(not found or found & lost for found in holders)

    return may_need
