"""What is kept of a drill: one file a drill, in the state folder.

Promise: written whole and synced, never changed; without the folder a drill is no different, only not remembered.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from opsd.errors import OpsdError, SnapshotUnknown, StorageError
from opsd.repository.local import replace_file
from opsd.storage.durable import private_folder
from opsd.values import dataclass
from opsd.verify.expectations import Deviation, Verdict

if TYPE_CHECKING:  # Whoever only reads records needs nothing of what a drill does.
    from opsd.verify.checks import CheckResult
    from opsd.verify.drill_report import DrillReport

_NAME: Final = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{9}Z-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRecord:
    """A drill as it is kept and shown; times in ns UTC, spans in seconds, 0 or empty where it ended before.

    `copy` is empty for the repository itself. `key`: kit, kit file, key file, drill key or passphrase. `error`: what ended it early.
    """

    id: str
    began: int
    ended: int
    verdict: str
    exit_code: int
    who: str
    host: str
    version: str
    copy: str
    place: str
    key: str
    seeded: bool
    snapshot: str = ""
    snapshot_time: int = 0
    newest: str = ""
    newest_time: int = 0
    pieces: int = 0
    recovery_time: float = 0.0
    recovery_point: float = 0.0
    targets: Mapping[str, float | None]
    stages: Sequence[Sequence[Any]] = ()
    sources: Sequence[Mapping[str, Any]] = ()
    deviations: Sequence[Mapping[str, Any]] = ()
    deviation_count: int = 0
    checks: Sequence[Mapping[str, Any]] = ()
    faults: Sequence[Mapping[str, Any]] = ()
    notices: Sequence[str] = ()
    error: Mapping[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """All of it."""
        return (self.ended - self.began) / 1e9

    @property
    def by_kit(self) -> bool:
        """Whether a person used the recovery kit."""
        return self.key in {"kit", "kit file"}

    @property
    def missed(self) -> list[str]:
        """Seeded faults that were not found."""
        return [f"{each['kind']} in {each['source']}: {each['subject']}" for each in self.faults if not each["found"]]


def of_report(report: "DrillReport") -> dict[str, Any]:
    """The fields of a record that a report fills."""
    return {
        "verdict": str(report.verdict),
        "exit_code": report.verdict.exit_code,
        "snapshot": report.snapshot.id,
        "snapshot_time": report.snapshot.started,
        "newest": report.newest.id,
        "newest_time": report.newest.started,
        "pieces": report.piece_count,
        "recovery_time": round(report.recovery_time, 3),
        "recovery_point": round(report.recovery_point, 3),
        "stages": [[name, round(seconds, 3)] for name, seconds in report.stages],
        "sources": [asdict(source) for source in report.sources.values()],
        "deviations": [_deviation(each) for each in report.deviations],
        "deviation_count": report.count,
        "checks": [_check(each) for each in report.checks],
        "faults": [{**asdict(fault), "found": found} for fault, found in report.faults],
    }


def of_error(error: OpsdError) -> dict[str, Any]:
    """The fields of one that ended early."""
    verdict = Verdict.RED if error.exit_code == Verdict.RED.exit_code else Verdict.FAILED
    told = {"kind": type(error).__name__, "text": str(error), "hint": error.hint, "exit_code": error.exit_code}
    return {"verdict": str(verdict), "exit_code": error.exit_code, "error": told}


def _deviation(deviation: Deviation) -> dict[str, Any]:
    return {**asdict(deviation), "severity": str(deviation.severity)}


def _check(result: "CheckResult") -> dict[str, Any]:
    return {
        "name": result.check.name,
        "passed": result.deviation is None,
        "seconds": round(result.seconds, 3),
        "problem": result.deviation.problem if result.deviation else None,
    }


class DrillRecords:
    """All that a state folder remembers."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "drills"

    def write(self, record: DrillRecord) -> None:
        """Keep a record.

        Raises:
            StorageError: it can't be written.
        """
        try:
            private_folder(self._folder)
            replace_file(self._folder / f"{record.id}.json", json.dumps(asdict(record), indent=1).encode())
        except OSError as error:
            raise StorageError(
                f"the drill can't be remembered in {self._folder}: {(error.strerror or str(error)).lower()}",
                hint="run as the user that owns it, or set state: in the configuration",
            ) from error

    def read(self) -> list[DrillRecord]:
        """All of them, oldest first.

        Raises:
            StorageError: one can't be read.
        """
        try:
            names = sorted(
                path for path in self._folder.iterdir() if _NAME.fullmatch(path.stem) and path.suffix == ".json"
            )
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [_read(path) for path in names]

    def find(self, text: str) -> DrillRecord:
        """The record of an id, of the beginning of one or of its last part, or `latest`.

        Raises:
            SnapshotUnknown: there is none, or several.
        """
        known = self.read()
        found = known[-1:] if text == "latest" else [each for each in known if _fits(each, text)]
        if len(found) != 1:
            what = f"{len(found)} drills fit {text}" if found else f"no drill {text}"
            raise SnapshotUnknown(what, hint="'opsd drill list' lists them")
        return found[0]


def _fits(record: DrillRecord, text: str) -> bool:
    return record.id.startswith(text) or record.id.rpartition("-")[2].startswith(text)


def _read(path: Path) -> DrillRecord:
    try:
        value = json.loads(path.read_bytes())
        return DrillRecord(**{name: value[name] for name in DrillRecord.__dataclass_fields__ if name in value})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"the record of a drill can't be read: {path}", hint="move it away") from error
