"""Put marks, and the note of open runs that belongs to each.

Promise: the note is listed after the mark is durable, so it knows every run that may still rely on what the mark names.
"""

from opsd.repository.format import Kind, name_for
from opsd.repository.repository import Repository
from opsd.repository.runs import Mark, open_runs


def put_mark(repository: Repository, mark: Mark) -> None:
    """Put a mark, its note or its announcement."""
    content = repository.place.signed.encode_mark(mark)
    repository.place.store.put(name_for(Kind.MARK, content, time=mark.time), content)


def note_open_runs(repository: Repository, mark: bytes, own: bytes) -> None:
    """List open runs, then manifests, and note the runs under that mark; `own` is the run that asks.

    Raises:
        ObjectDamaged, NewerFormat: something can't be read; the mark then stays without a note, and is not swept.
    """
    place = repository.place
    events = [event for _, event in place.run_events()]
    infos = list(place.store.list("snapshots/"))
    finished = {repository.manifest(info).summary.run for info in infos}
    runs = tuple(sorted(run for run in open_runs(events, finished) if run != own))
    put_mark(repository, Mark(mark=mark, event="open_runs", time=repository.around.clock.now(), runs=runs))
