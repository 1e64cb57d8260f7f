"""What deploy/kubernetes makes: by Kubernetes' schemas, and by our own options."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from envelope.config import OPTIONS, Config
from envelope.config.checks import Machine
from envelope.config.options import parse
from envelope.devices import Device
from tests.support.environment import leave_out, need

ROOT = Path(__file__).parent.parent
FOLDERS = ("deploy/kubernetes/base", "deploy/kubernetes/examples/field")
MACHINE = Machine(lambda name: Device(2, str(name)), lambda _: True)

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def built() -> dict[str, list[dict[str, Any]]]:
    """The objects of each folder, after they were compared with the schemas."""
    found = {}
    for folder in FOLDERS:
        done = subprocess.run([sys.executable, "tools/check-kubernetes", folder], cwd=ROOT,
                              capture_output=True, text=True, check=False, timeout=120)
        if done.returncode == 2:
            missing = need if "--prepare" in done.stderr else leave_out
            missing(done.stderr.strip())
        assert (done.stderr, done.returncode) == ("", 0)
        found[folder] = json.loads(done.stdout)
    return found


@pytest.fixture(params=FOLDERS)
def objects(request: pytest.FixtureRequest, built: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By kind; each kind is there once."""
    by_kind = {each["kind"]: each for each in built[request.param]}
    assert len(by_kind) == len(built[request.param])
    return by_kind


def pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return objects["DaemonSet"]["spec"]["template"]["spec"]


def guard(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (container,) = pod(objects)["initContainers"]
    return container


def config(objects: dict[str, dict[str, Any]]) -> Config:
    """What the service would make of arguments and environment."""
    container = guard(objects)
    environ = dict(objects["ConfigMap"]["data"])
    assert container["envFrom"] == [
        {"configMapRef": {"name": objects["ConfigMap"]["metadata"]["name"]}}]
    environ |= {each["name"]: each.get("value", "node-1") for each in container["env"]}
    assert environ.keys() <= {option.variable for option in OPTIONS}
    return parse(container.get("args", []), environ, MACHINE)


def test_the_guard_is_up_before_the_server(objects: dict[str, dict[str, Any]]) -> None:
    """As a sidecar whose startup probe asks whether the rules hold."""
    container = guard(objects)
    assert container["restartPolicy"] == "Always"
    assert container["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert [each["name"] for each in pod(objects)["containers"]] == ["measurement"]


def test_options_are_what_the_service_reads(objects: dict[str, dict[str, Any]]) -> None:
    settings = config(objects)
    mounted = {each["name"]: Path(each["mountPath"]) for each in guard(objects)["volumeMounts"]}
    assert settings.machine == "node-1"
    assert settings.cert is not None
    assert settings.cert.parent == mounted["envelope-certs"]
    assert {path.parent for path in settings.verify_key} == {mounted["envelope-verify"]}
    assert not any("subPath" in each for each in guard(objects)["volumeMounts"])


def test_probes_are_answered_over_both_families(objects: dict[str, dict[str, Any]]) -> None:
    ports = {each["name"]: each["containerPort"] for each in guard(objects)["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        port = ports[guard(objects)[probe]["httpGet"]["port"]]
        assert f":{port}" in [str(spec) for spec in config(objects).admin]


def test_probes_pass_the_rules_of_the_pods_own_device_alone(
    objects: dict[str, dict[str, Any]]
) -> None:
    """The kubelet comes over eth0; on a second device the port stays shut."""
    (admin,) = [each["containerPort"] for each in guard(objects)["ports"]]
    settings = config(objects)
    opened = any(each.covers("tcp", admin) for each in settings.allow)
    assert opened == (settings.device == "eth0")


def test_it_has_one_capability_and_writes_nothing(objects: dict[str, dict[str, Any]]) -> None:
    context = guard(objects)["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert (context["runAsUser"], context["allowPrivilegeEscalation"]) == (0, False)
    assert context["readOnlyRootFilesystem"] is True


def test_a_pod_has_longer_to_stop_than_the_drain_takes(objects: dict[str, dict[str, Any]]) -> None:
    assert pod(objects)["terminationGracePeriodSeconds"] >= config(objects).drain + 60


def test_resources_are_those_that_the_page_derives_from_measurements(
    objects: dict[str, dict[str, Any]]
) -> None:
    resources = guard(objects)["resources"]
    page = (ROOT / "docs/kubernetes.md").read_text()
    sizes = {"request": resources["requests"]["memory"], "limit": resources["limits"]["memory"]}
    for name, size in sizes.items():
        assert f"{name} {size.removesuffix('Mi')} MiB" in page.replace(f"{name} is ", f"{name} ")
    assert resources["limits"].keys() == {"memory"}


def test_metrics_are_for_the_monitoring_alone(objects: dict[str, dict[str, Any]]) -> None:
    policy = objects["NetworkPolicy"]["spec"]
    labels = objects["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (admin,) = [each["containerPort"] for each in guard(objects)["ports"]
                if each["name"] == "envelope-admin"]
    everyone, some = policy["ingress"]
    assert "from" not in everyone
    assert not any(each["port"] <= admin <= each["endPort"] for each in everyone["ports"]
                   if each["protocol"] == "TCP")
    assert [each["port"] for each in some["ports"]] == [admin]
    assert some["from"]


def test_the_fields_own_shape(built: dict[str, list[dict[str, Any]]]) -> None:
    objects = {each["kind"]: each for each in built["deploy/kubernetes/examples/field"]}
    settings = config(objects)
    assert (settings.device, settings.max_clients, settings.timeout) == ("net1", 5, 600)
    assert [str(spec) for spec in settings.listen] == [":4443"]
    assert "tcp:8000:interface=127.0.0.1" in [str(spec) for spec in settings.admin]
    monitor = objects["PodMonitor"]["spec"]
    labels = objects["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert {each["port"] for each in monitor["podMetricsEndpoints"]} <= {
        each["name"] for each in guard(objects)["ports"]}
