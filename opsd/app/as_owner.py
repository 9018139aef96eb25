"""Go on as the user who owns the state folder, who runs the nights: root sees more than they will.

Promise: what only root can decrypt is handed on as systemd does it, in a private folder that goes at the end.
"""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from opsd.credentials import resolve
from opsd.errors import ConfigurationError

#: What the units give: reading every file, and becoming the owner of an SQLite database.
_CAPABILITIES: Final = "+dac_read_search,+setuid,+setgid"


def owner_of(state: Path) -> pwd.struct_passwd | None:
    """The user to become: None where this is no root, or root's own state."""
    if os.geteuid() != 0 or not state.is_dir() or not (owner := state.stat().st_uid):
        return None
    try:
        return pwd.getpwuid(owner)
    except KeyError:
        return None


def command_as(account: pwd.struct_passwd | None, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]] | None:
    """The arguments and the environment that run opsd as that user (None: as this one), or None where setpriv(1) is not there."""
    command, environment = [sys.executable, "-P", "-m", "opsd", *arguments], dict(os.environ)
    if account is None:
        return command, environment
    program = shutil.which("setpriv")
    if program is None:
        return None
    who = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups"]
    rights = [f"--inh-caps=-all,{_CAPABILITIES}", f"--ambient-caps=-all,{_CAPABILITIES}"]
    own = {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    return [program, *who, *rights, "--", *command], environment | own


def run_as(account: pwd.struct_passwd, arguments: Sequence[str], references: Iterable[Mapping[str, Any]]) -> int | None:
    """Run opsd with these arguments as that user; its exit code, or None where that can't be done."""
    found = command_as(account, arguments)
    if found is None:
        return None
    command, environment = found
    with _handed_on(account, references) as folder:
        process = subprocess.Popen(command, env={**environment, "CREDENTIALS_DIRECTORY": folder})
        try:
            return process.wait()
        except KeyboardInterrupt:
            # It ends as it would have alone: a drill stops its server.
            process.terminate()
            process.wait()
            raise


@contextmanager
def _handed_on(account: pwd.struct_passwd, references: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A folder with the credentials that can be had; one that can't is told by whoever asks for it."""
    with tempfile.TemporaryDirectory(prefix="opsd-credentials-", dir="/run") as folder:
        for name in {str(each["credential"]) for each in references if "credential" in each}:
            with suppress(ConfigurationError):
                secret = resolve({"credential": name})
                path = Path(folder, name)
                path.touch(mode=0o400)
                path.write_bytes(secret)
                os.chown(path, account.pw_uid, account.pw_gid)
        os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder
