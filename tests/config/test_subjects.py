"""Subjects and the services that they are let in to."""

from __future__ import annotations

import pytest

from envelope.addresses import PortRange
from envelope.config import Config
from envelope.config.subjects import Service, Subject, service_for, service_numbers

NDT, WEHE = PortRange("tcp", 443, 443), PortRange("tcp", 55555, 55557)
GRANTED = PortRange("udp", 5000, 5010)


@pytest.mark.parametrize(("subjects", "services"), [
    ((), (Service("", (GRANTED,)),)),
    ((Subject("ndt"),), (Service("ndt", (GRANTED,)),)),
    ((Subject("ndt", (NDT,)),), (Service("ndt", (NDT,)),)),
    ((Subject("ndt", (NDT,)), Subject("wehe", (WEHE, NDT)), Subject("other")), (
        Service("ndt", (NDT,)), Service("wehe", (WEHE, NDT)), Service("other", (GRANTED,)),
        Service("monitoring", (NDT, WEHE, GRANTED)),
    )),
])
def test_each_subject_has_a_service(subjects, services) -> None:
    """Several have one more: monitoring's, with the ports of all."""
    assert Config(subject=subjects, grant_port=(GRANTED,)).services == services


def test_monitoring_opens_everything_if_one_subject_does() -> None:
    config = Config(subject=(Subject("ndt", (NDT,)), Subject("all")))
    assert config.services[2] == Service("monitoring")


@pytest.mark.parametrize(("names", "subject", "number"), [
    ((), "anything", 0), ((), None, 0), ((), "monitoring", 0),
    (("ndt",), "ndt", 0), (("ndt",), "monitoring", 0), (("ndt",), "wehe", None),
    (("ndt",), None, None),
    (("ndt", "wehe"), "ndt", 0), (("ndt", "wehe"), "wehe", 1), (("ndt", "wehe"), "monitoring", 2),
    (("ndt", "wehe"), "", None),
])
def test_a_token_is_let_in_to_the_service_of_its_subject(names, subject, number) -> None:
    """And to the only one, whatever it says, where no subject is asked for."""
    numbers = service_numbers(tuple(map(Subject, names)))
    assert service_for(numbers, subject) == number
