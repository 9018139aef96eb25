"""Keep the figures for Prometheus true, tick by tick, and answer for them.

Promise: they are worked out anew when something has changed, and else once a minute, never on a scrape.
"""

from typing import Final

import structlog

from opsd.app.metering import view_of
from opsd.app.version import version
from opsd.clock import SECOND, Clock
from opsd.daemon.keeper import Look
from opsd.daemon.metrics_server import MetricsServer
from opsd.daemon.service import Listener
from opsd.errors import ConfigurationError
from opsd.monitor.metrics import Exposition, Service
from opsd.settings import Settings
from opsd.settings.schedule import OFF

_EVERY: Final = 60 * SECOND
_REFUSED: Final = "configuration.invalid"
log = structlog.get_logger()


class Metrics(Listener):
    """The metrics of the daemon; `metrics.listen` says where, also after a reload."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._exposition = Exposition()
        self._server: MetricsServer | None = None
        self._listen = OFF
        self._shown = 0
        self._loaded = 0

    def start(self, settings: Settings) -> None:
        """Listen where the configuration says; where that can't be done, it is told, and tried again each minute."""
        if settings.metrics.listen != self._listen:
            self.stop()
            self._listen = settings.metrics.listen
            self._serve()
        self._loaded, self._shown = self._clock.now(), 0

    def tick(self, look: Look) -> None:
        """Tell it as it stands now."""
        is_time = abs(look.now - self._shown) >= _EVERY
        if is_time and self._server is None:
            self._serve()
        if look.changed or is_time:
            service = Service(version=version(), reloaded=_REFUSED not in look.trouble, reload_time=self._loaded)
            self._exposition.show(view_of(look.plan, look.past, look.state, look.now, service))
            self._shown = look.now

    def _serve(self) -> None:
        if self._listen == OFF:
            return
        server = MetricsServer(self._listen, self._exposition.text)
        try:
            server.start()
        except ConfigurationError as error:  # No reason to end: a missed night is worse.
            log.error(str(error), hint=error.hint)  # noqa: TRY400 - a traceback tells nobody anything
        else:
            self._server = server

    def is_alive(self) -> bool:
        """Whether it still answers."""
        return self._server is None or self._server.is_alive()

    def stop(self) -> None:
        """Answer no more."""
        if self._server:
            self._server.stop()
        self._server = None
