"""The two sites for operators, over plain HTTP.

`--admin` has metrics and health, and nothing that shows who is let in. `--status` has the same, and
all that shows addresses: the status page, its object and its stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial

from prometheus_client import CollectorRegistry
from twisted.internet.interfaces import IReactorTime

from envelope.admin.answers import JSON, PROMETHEUS, Answer, View, readiness
from envelope.admin.hosts import is_own
from envelope.admin.httpsite import Pages, Site
from envelope.admin.page import HEADERS, page_views
from envelope.admin.status import Status
from envelope.admin.stream import StatusStream
from envelope.metrics import as_text


def admin_site(
    registry: CollectorRegistry, status: Status, reactor: IReactorTime | None = None
) -> Site:
    """The site of `--admin`; `reactor` runs the timeouts, None is the global one."""
    return Site(Pages(_common(registry, status), {}), reactor)


def status_site(
    registry: CollectorRegistry, status: Status, hosts: Iterable[str], reactor: IReactorTime
) -> Site:
    """The site of `--status`; `hosts` are the names of `--status-host`."""
    stream = StatusStream(status.as_object, reactor)
    status.when_sessions_change(stream.changed)
    views: dict[str, View] = {
        **_common(registry, status),
        **page_views(),
        "/status": partial(_status_answer, status),
    }
    own = frozenset(host.lower() for host in hosts)
    return Site(
        Pages(views, {"/status/stream": stream.stream}, HEADERS, partial(is_own, names=own)),
        reactor,
    )


async def _status_answer(status: Status) -> Answer:
    return Answer(json.dumps(await status.read()).encode() + b"\n", content_type=JSON)


def _common(registry: CollectorRegistry, status: Status) -> dict[str, View]:
    return {
        "/metrics": lambda: Answer(as_text(registry), content_type=PROMETHEUS),
        "/livez": lambda: Answer(b"ok\n"),
        "/readyz": lambda: readiness(status.reasons(), status.warnings()),
        "/health": lambda: readiness(status.reasons_for_balancers(), status.warnings()),
    }
