"""A prune's turn: it says that it began, that it lives and how it ended, and goes on only while no other prune does.

Promise: two living prunes never work at once; one that was killed on this host is ended at once, on another after a day.
"""

import os
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from opsd.clock import DAY, SECOND, iso
from opsd.errors import IntegrityError, NewerFormat, PruneRefused, TryLater
from opsd.repository.format import Kind, name_for
from opsd.repository.repository import Repository
from opsd.repository.runs import RunEvent, open_runs
from opsd.repository.writer import remove_spooled
from opsd.retention.survey import ENDS

#: Clocks of host and store may differ by this much.
CLOCK_TOLERANCE: Final = 300 * SECOND
#: A prune of another host that showed no sign for so long (the store's time) is dead.
_SILENT: Final = DAY
_ALIVE_EVERY: Final = 6 * 3600 * SECOND


class Turn:
    """A context manager. `run` is the run's id, `store_now` the store's time of its beginning, ns UTC."""

    def __init__(self, repository: Repository) -> None:
        self.run = os.urandom(16)
        self.store_now = 0
        self._repository = repository
        self._place = repository.place
        self._clock = repository.around.clock
        self._key = self._place.signed.signer()
        self._last_sign = 0
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._exit.enter_context(self._repository.around.state.alive(self.run))
            name = self.say("begun")
            try:
                self._prove(name)
                self._end_others()
            except (IntegrityError, NewerFormat) as error:
                self.say("failed")
                raise PruneRefused(f"prune stops: {error}", hint=error.hint) from error
            except Exception:
                self.say("failed")
                raise
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.say("ended")
            elif issubclass(kind, (Exception, KeyboardInterrupt)):
                self.say("failed")
        except Exception as second:
            if error is None:
                raise
            error.add_note(f"and the prune could not be ended: {second}")
        finally:
            self._exit.__exit__(kind, error, trace)

    def say(self, event: str, run: bytes | None = None, kind: str = "prune") -> str:
        """Put a run object; returns its name."""
        now = self._clock.now()
        writer = self._key.public().id
        content = self._place.signed.encode_run(
            RunEvent(run=run or self.run, writer=writer, kind=kind, event=event, time=now), self._key
        )
        name = name_for(Kind.RUN, content, time=now)
        self._place.store.put(name, content)
        if run is None:
            self._last_sign = now
        return name

    def alive(self) -> None:
        """Call before each step that can't be undone: shows a sign of life now and then, and stops if another ended this prune.

        Raises:
            PruneRefused: it was ended; a machine that slept for a day must not go on with what it decided before.
        """
        if self._clock.now() - self._last_sign <= _ALIVE_EVERY:
            return
        if any(event.run == self.run and event.event in ENDS for _, event in self._place.run_events()):
            raise PruneRefused(
                "another prune ended this one, which showed no sign of life for a day", hint="run it again"
            )
        self.say("alive")

    def _prove(self, name: str) -> None:
        """What was just put is listed at once, at the time that this host's clock shows."""
        found = next((info for info in self._place.store.list("runs/") if info.name == name), None)
        if found is None:
            raise PruneRefused(
                "the store does not list what was just put", hint="prune only where listings are current"
            )
        self.store_now = found.modified
        difference = abs(found.modified - self._clock.now())
        if difference > CLOCK_TOLERANCE:
            raise PruneRefused(
                f"the clocks of this host and of the store differ by {difference // SECOND} s",
                hint="set them right (NTP), then prune again",
            )

    def _end_others(self) -> None:
        """Two that begin at once both see the other, and both stop."""
        events = [event for _, event in self._place.run_events() if event.kind == "prune" and event.run != self.run]
        unended = open_runs(events, set())
        for run, last in unended.items():
            if self._lives(run, last):
                began = min(event.received for event in events if event.run == run)
                raise TryLater(
                    f"another prune is at work, it began at {iso(began)}",
                    hint="wait for its end; one that was killed on another host is ended after a day",
                )
        for run in unended:
            remove_spooled(self._repository.spool() / run.hex())
            self.say("ended", run)

    def _lives(self, run: bytes, last: RunEvent) -> bool:
        """Of this host, as long as a process holds it; of another, as long as its last sign is younger than a day."""
        if last.writer == self._key.public().id:
            return self._repository.around.state.is_alive(run)
        return last.received > self.store_now - _SILENT
