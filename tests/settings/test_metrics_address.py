"""Where the metrics may be listened to: this machine alone."""

import pytest

from opsd.settings.schedule import METRICS
from opsd.settings.shapes import Value


def convert(content: str) -> object:
    value = METRICS.keys["listen"].shape
    assert isinstance(value, Value)
    return value.convert(content)


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:9797", "127.0.0.5:1", "localhost:9797", "[::1]:9797", "unix:/run/opsd/metrics.sock", "off"]
)
def test_loopback_and_sockets_are_addresses(listen: str) -> None:
    assert convert(listen) == listen


@pytest.mark.parametrize("listen", ["0.0.0.0:9797", "[::]:9797", "10.0.0.1:9797", "db1.example.com:9797"])
def test_an_address_that_others_reach_is_refused_with_the_way_out(listen: str) -> None:
    with pytest.raises(ValueError, match="behind a proxy with TLS"):
        convert(listen)


@pytest.mark.parametrize("listen", ["9797", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "unix:run/x", ""])
def test_what_is_no_address_is_refused_with_examples(listen: str) -> None:
    with pytest.raises(ValueError, match=r"such as 127\.0\.0\.1:9797"):
        convert(listen)
