"""Watch how it stands, tick by tick: the figures for Prometheus, and the people who must know.

Promise: figures are worked out anew when something has changed, and else once a minute, never on a scrape; no listener waits for a
repository, a mail server or a client.
"""

from collections.abc import Mapping
from typing import Final

import structlog

from opsd.app.alerting import Alerting
from opsd.app.planning import besides_of, observed_of
from opsd.app.version import version
from opsd.clock import SECOND, Clock
from opsd.daemon.keeper import Look, Trouble
from opsd.daemon.metrics_server import MetricsServer
from opsd.daemon.service import Listener
from opsd.errors import ConfigurationError
from opsd.events import Total, Warning
from opsd.monitor.health import judge
from opsd.monitor.metrics import Exposition, Service, View
from opsd.monitor.observed import Observed
from opsd.monitor.problems import Problem, Severity
from opsd.settings import Settings
from opsd.settings.schedule import OFF

_EVERY: Final = 60 * SECOND
#: Without a tick for so long the machine slept, or its clock jumped.
_ASLEEP: Final = 300 * SECOND
_REFUSED: Final = "configuration.invalid"
log = structlog.get_logger()


class Watch(Listener):
    """Tells machines and people; `metrics.listen` and `alerts` say whom, also after a reload."""

    def __init__(self, clock: Clock, configuration: str | None) -> None:
        self._clock = clock
        self._configuration = configuration
        self._exposition = Exposition()
        self._server: MetricsServer | None = None
        self._listen = OFF
        self._alerting: Alerting | None = None
        self._observed: Observed | None = None
        self._problems: tuple[Problem, ...] = ()
        self._since: dict[str, int] = {}
        self._changed = True
        self._shown = 0
        self._ticked = 0
        self._is_owed = False
        self._tried = 0
        self._loaded = 0

    def start(self, settings: Settings) -> None:
        """Listen where the configuration says; where that can't be done, it is told, and tried again each minute."""
        if settings.metrics.listen != self._listen:
            self._close()
            self._listen = settings.metrics.listen
            self._serve()
        if self._alerting:
            self._alerting.close()
        self._alerting = Alerting(settings, LogReporter(), self._configuration)
        self._loaded = self._tried = self._clock.now()
        self._shown = 0

    def tick(self, look: Look) -> None:
        """Tell it as it stands now."""
        is_time = abs(look.now - self._shown) >= _EVERY
        if self._server is None and abs(look.now - self._tried) >= _EVERY:
            self._tried = look.now
            self._serve()
        self._changed = self._changed or look.changed
        is_time = is_time or self._changed
        if is_time:
            self._tell(look)
            self._changed, self._shown, self._is_owed = False, look.now, True
        # The first tick after a start or a sleep sees what that left behind, and starts what is due: what of it lasts is told by the next.
        is_awake = 0 <= look.now - self._ticked <= _ASLEEP
        self._ticked = look.now
        if self._alerting and is_awake and (self._is_owed or self._alerting.is_due(look.now)):
            self._is_owed = False
            self._alerting.observe(self._problems, look.now)
            self._alerting.deliver(look.now)

    def _tell(self, look: Look) -> None:
        if self._changed:  # Of hundreds of sources it is long.
            self._observed = observed_of(look.state)
        health = judge(look.plan, look.past, self._observed, look.now, besides_of(look.state, look.now))
        own = self._own(look.trouble, look.now)
        unreached = self._alerting.problems() if self._alerting else []
        self._problems = tuple({each.key: each for each in (*health.problems, *own, *unreached)}.values())
        self._exposition.show(
            View(
                now=look.now,
                service=Service(version=version(), reloaded=_REFUSED not in look.trouble, reload_time=self._loaded),
                plan=look.plan,
                past=look.past,
                counts=look.state.counts(),
                observed=self._observed,
                paused_until=health.pause.until if health.pause else 0,
                is_overdue=health.is_overdue,
                problems=self._problems,
            )
        )

    def _own(self, trouble: Mapping[str, Trouble], now: int) -> list[Problem]:
        self._since = {key: self._since.get(key, now) for key in trouble}
        return [
            Problem(key=key, severity=Severity.CRITICAL, title=each.text, next_step=each.hint, since=self._since[key])
            for key, each in trouble.items()
        ]

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
        """Answer no more, tell nobody more."""
        self._close()
        if self._alerting:
            self._alerting.close()

    def _close(self) -> None:
        if self._server:
            self._server.stop()
        self._server = None


class LogReporter:
    """Passes on to the log what features say."""

    def stage(self, name: str, total: Total | None = None) -> None:
        """Nothing here has stages."""

    def advance(self, *, files: int = 0, size: int = 0) -> None:
        """Nor progress."""

    def warn(self, warning: Warning) -> None:
        """Log it."""
        log.warning(warning.problem, subject=warning.subject, hint=warning.hint)

    def tell(self, text: str) -> None:
        """Log it."""
        log.info(text)
