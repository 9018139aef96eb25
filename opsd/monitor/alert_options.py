"""What a site may say about alerts; the configuration is parsed into these.

Promise: frozen values. An address may hold a password or a token, so whatever shows one uses `address_text`.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from opsd.credentials import Listener, described, resolve
from opsd.errors import ConfigurationError
from opsd.values import dataclass

#: A URL, or a reference to a secret that is one.
Address = str | Mapping[str, Any]

#: RFC 3986, section 3.1; what follows is the affair of the service.
URL: Final = r"[A-Za-z0-9][A-Za-z0-9+.-]*://\S+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """A person, or a group of them, and every way to reach them; all are used."""

    name: str
    urls: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """The section `alerts`. `repeat`: seconds between two reminders. `pings`: the URL that each job pings."""

    repeat: float = 900.0
    contacts: tuple[Contact, ...] = ()
    pings: Mapping[str, Address] = field(default_factory=dict)


def address_text(address: Address) -> str:
    """How an address is shown: a reference as it stands, of a URL only the scheme, since any other part may be a secret."""
    return f"{address.partition('://')[0]}://…" if isinstance(address, str) else described(address)


def url_of(address: Address, listener: Listener | None = None) -> str:
    """The URL itself.

    Raises:
        ConfigurationError: a reference leads nowhere, or to something else.
    """
    if isinstance(address, str):
        return address
    url = resolve(address, listener).decode(errors="replace").strip()
    if not re.fullmatch(URL, url):
        raise ConfigurationError((f"secret {described(address)}: it is no URL, such as mailto://…",))
    return url
