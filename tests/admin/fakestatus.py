"""What a service tells its operators, as a test decides."""

from __future__ import annotations


class FakeStatus:
    """Stands for `envelope.admin.status.Status`; `made` counts its objects.

    `told` are the reasons of `/readyz`, `full` those that `/health` has besides. `broken`: asking
    for anything fails.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.full: list[str] = []
        self.broken = False
        self.sessions = 0
        self.made = 0

    def reasons(self) -> list[str]:
        if self.broken:
            raise RuntimeError("a secret detail")
        return self.told

    def reasons_for_balancers(self) -> list[str]:
        return self.reasons() + self.full

    def warnings(self) -> list[str]:
        return []

    async def read(self) -> dict[str, object]:
        return self.as_object()

    def as_object(self) -> dict[str, object]:
        self.reasons()
        self.made += 1
        return {"now": 1.5, "uptime": 0.5, "sessions": self.sessions, "text": "one\ntwo"}
