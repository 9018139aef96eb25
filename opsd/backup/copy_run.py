"""The run of a copy, in its target: it tells a prune there that something is being filled.

Promise: begun before the target is listed, alive once a day at the least, ended at the end; one that was killed is ended by the next of
this host, and what ended days ago is forgotten. Whoever holds no key signs nothing, and so says nothing: docs/decisions/0022.
"""

import os
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Final, Self

from opsd.clock import DAY, SECOND, Clock
from opsd.errors import ObjectDamaged, ObjectNotFound, StorageError
from opsd.repository.format import Kind, name_for
from opsd.repository.local import HostState
from opsd.repository.runs import RUN_BYTES, RunEvent, Signed, open_runs
from opsd.storage.protocol import Store
from opsd.values import dataclass

_ALIVE_EVERY: Final = 6 * 3600 * SECOND
#: What ended is kept as long as a mark waits.
_KEPT: Final = 3 * DAY
_ENDS: Final = ("ended", "failed")


#: Whether the snapshot of a manifest's name may need one of these objects.
Needs = Callable[[str, Collection[str]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyKeys:
    """What a host that holds keys can do: sign runs, read marks, and tell what a manifest needs. `state` shows which runs live."""

    signed: Signed
    state: HostState
    needs: Needs


class CopyRun:
    """A context manager; without keys it does nothing."""

    def __init__(self, target: Store, keys: CopyKeys | None, clock: Clock) -> None:
        self._target = target
        self._keys = keys
        self._clock = clock
        self._id = os.urandom(RUN_BYTES)
        self._exit = ExitStack()
        self._last_sign = 0

    def __enter__(self) -> Self:
        if self._keys is None:
            return self
        try:
            self._exit.enter_context(self._keys.state.alive(self._id))
            self._tidy(self._keys)
            self._say(self._keys, "begun")
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._keys and (kind is None or issubclass(kind, (Exception, KeyboardInterrupt))):
                self._say(self._keys, "ended" if kind is None else "failed")
        except Exception as second:
            if error is None:
                raise
            error.add_note(f"and the copy's run could not be ended: {second}")
        finally:
            self._exit.__exit__(kind, error, trace)

    def alive(self) -> None:
        """Show a sign of life if the last is old; cheap, call it often."""
        if self._keys and self._clock.now() - self._last_sign > _ALIVE_EVERY:
            self._say(self._keys, "alive")

    def _say(self, keys: CopyKeys, event: str, run: bytes | None = None) -> None:
        now = self._clock.now()
        key = keys.signed.signer()
        told = RunEvent(run=run or self._id, writer=key.public().id, kind="copy", event=event, time=now)
        content = keys.signed.encode_run(told, key)
        self._target.put(name_for(Kind.RUN, content, time=now), content)
        self._last_sign = now

    def _tidy(self, keys: CopyKeys) -> None:
        """End this host's copies that no process holds any more, and forget those that ended long ago."""
        own = keys.signed.signer().public().id
        told: dict[str, RunEvent] = {}
        for info in self._target.list("runs/"):
            try:
                event = keys.signed.decode_run(info.name, self._target.read(info.name), info.modified)
            except (ObjectDamaged, ObjectNotFound):
                continue  # Whoever checks the copy names it.
            if event.kind == "copy" and event.writer == own:
                told[info.name] = event
        unended = open_runs(list(told.values()), set())
        for run in unended:
            if not keys.state.is_alive(run):
                self._say(keys, "ended", run)
        self._forget({name: event for name, event in told.items() if event.run not in unended})

    def _forget(self, ended: Mapping[str, RunEvent]) -> None:
        """Remove the objects of runs that ended days ago, the end itself last, so that none seems open again.

        Where a mark stands, that is for the prune that swept or will sweep it, whose note may name the run.
        """
        last: dict[bytes, int] = {}
        for event in ended.values():
            last[event.run] = max(event.time, event.received, last.get(event.run, 0))
        before = self._clock.now() - _KEPT
        names = [name for name, event in ended.items() if last[event.run] < before]
        if not names or any(True for _ in self._target.list("marks/")):
            return
        with suppress(StorageError):  # Whoever may only add leaves them to a prune on the server itself.
            for name in sorted(names, key=lambda each: ended[each].event in _ENDS):
                self._target.delete(name)
