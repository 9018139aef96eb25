"""Secrets by reference: a configuration says where one is, never what it is.

Promise: a secret is read when `resolve` is called and kept nowhere; errors name the reference, never what it leads to, nor what a
program said about it.
"""

import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from opsd.errors import ConfigurationError
from opsd.values import dataclass

KINDS = ("file", "env", "credential", "command")

#: No passphrase or key is longer; reading stops here even on a device without an end.
LARGEST = 1 << 20

_ENCRYPTED = "etc/credstore.encrypted"
_CREDENTIAL = re.compile(r"[A-Za-z0-9_.-]{1,255}")


class Listener(Protocol):
    """What a `Reporter` has and is needed here."""

    def tell(self, text: str) -> None:
        """One line that a person would want to read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where references lead: the environment, the root that systemd's folders lie in, and a program's time in seconds."""

    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    root: Path = Path("/")
    timeout: float = 30.0


def described(reference: Mapping[str, Any]) -> str:
    """The reference as a configuration states it: `{file: /etc/opsd/passphrase}`."""
    parts = (f"{kind}: {value if isinstance(value, str) else _listed(value)}" for kind, value in reference.items())
    return "{" + ", ".join(parts) + "}"


def _listed(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list | tuple) else str(value)


def references(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every reference to a secret that stands in settings, however deep."""
    if is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            yield from references(getattr(value, each.name))
    elif isinstance(value, Mapping):
        only = next(iter(value.items())) if len(value) == 1 else ("", None)
        if only[0] in KINDS and isinstance(only[1], str | list | tuple):
            yield value
        else:
            for each in value.values():
                yield from references(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from references(each)


def resolve(
    reference: Mapping[str, Any], listener: Listener | None = None, surroundings: Surroundings | None = None
) -> bytes:
    """The secret that a reference leads to, without one newline at its end.

    Raises:
        ConfigurationError: it leads nowhere, or is no reference.
    """
    if len(reference) != 1 or next(iter(reference)) not in KINDS:
        raise _refused(reference, f"a reference has exactly one of {', '.join(KINDS)}")
    ((kind, value),) = reference.items()
    look = _Look(reference, listener, surroundings or Surroundings())
    sources: dict[str, Callable[[Any], bytes]] = {
        "file": look.file,
        "env": look.variable,
        "credential": look.credential,
        "command": look.command,
    }
    secret = sources[kind](value).removesuffix(b"\n")
    if not secret:
        raise _refused(reference, "it is empty")
    if len(secret) > LARGEST:
        raise _refused(reference, f"it is longer than {LARGEST} bytes")
    return secret


def _refused(reference: Mapping[str, Any], problem: str, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError((f"secret {described(reference)}: {problem}",), hint=hint)


def is_at_hand(reference: Mapping[str, Any], surroundings: Surroundings | None = None) -> bool:
    """Whether a reference may lead somewhere here: a credential that was not passed to this unit does not, but for root."""
    around = surroundings or Surroundings()
    name = reference.get("credential")
    if not isinstance(name, str):
        return True
    return bool(_plain_credential(name, around)) or (
        os.geteuid() == 0 and os.path.exists(around.root / _ENCRYPTED / name)
    )


def _plain_credential(name: str, around: Surroundings) -> Path | None:
    passed = around.environment.get("CREDENTIALS_DIRECTORY")
    folders = (
        *([Path(passed)] if passed else []),
        around.root / "run/credentials/@system",
        around.root / "etc/credstore",
    )
    return next((folder / name for folder in folders if os.path.exists(folder / name)), None)


@dataclass(frozen=True, slots=True)
class _Look:
    """One reference being followed."""

    reference: Mapping[str, Any]
    listener: Listener | None
    surroundings: Surroundings

    def _refused(self, problem: str, hint: str | None = None) -> ConfigurationError:
        return _refused(self.reference, problem, hint)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise self._refused("its value must be a text")
        return value

    def file(self, value: Any) -> bytes:
        """A file's content; others who may read it too are worth a line, not a failed night."""
        path = Path(self._text(value))
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                content = file.read(LARGEST + 2)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise self._refused(reason, f"see that {path} is there and that this user may read it") from error
        if mode & 0o077 and self.listener is not None:
            self.listener.tell(f"{path}: others may read this secret (mode {mode:04o}): run 'chmod 600 {path}'")
        return content

    def variable(self, value: Any) -> bytes:
        """A variable of the environment."""
        try:
            return os.fsencode(self.surroundings.environment[self._text(value)])
        except KeyError:
            raise self._refused("this variable is not set") from None

    def credential(self, value: Any) -> bytes:
        """A systemd credential: of this unit, of the system, or decrypted from the store (systemd.exec(5), systemd-creds(1))."""
        name = self._text(value)
        if not _CREDENTIAL.fullmatch(name) or name in {".", ".."}:
            raise self._refused("this is no credential's name")
        plain = _plain_credential(name, self.surroundings)
        if plain:
            return self._plain(plain)
        encrypted = self.surroundings.root / _ENCRYPTED / name
        if not os.path.exists(encrypted):
            hint = f"add LoadCredentialEncrypted={name} to the unit, or make {encrypted} with 'systemd-creds encrypt'"
            raise self._refused("this unit was passed no such credential, and the store has none", hint)
        return self._output(["systemd-creds", "decrypt", f"--name={name}", str(encrypted), "-"])

    def _plain(self, path: Path) -> bytes:
        """Systemd sets the modes of its folders, so only the content matters."""
        try:
            with path.open("rb") as file:
                return file.read(LARGEST + 2)
        except OSError as error:
            raise self._refused(f"{path}: {(error.strerror or str(error)).lower()}") from error

    def command(self, value: Any) -> bytes:
        """What a program prints."""
        if not isinstance(value, list | tuple) or not value:
            raise self._refused("a command is a list: a program and its arguments")
        return self._output([self._text(argument) for argument in value])

    def _output(self, arguments: list[str]) -> bytes:
        # What the program says on stderr might hold the secret, so nobody hears it.
        try:
            done = subprocess.run(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=self.surroundings.timeout,
                env=dict(self.surroundings.environment),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._refused(f"{arguments[0]} took longer than {self.surroundings.timeout:g} seconds") from None
        except OSError as error:
            raise self._refused(f"{arguments[0]}: {(error.strerror or str(error)).lower()}") from error
        if done.returncode:
            raise self._refused(f"{arguments[0]} exited with {done.returncode}", "run it by hand, as the same user")
        return done.stdout
