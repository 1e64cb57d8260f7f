"""Command line and environment: each option is read, and anything wrong is refused in one line."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.python.usage import UsageError

from envelope import __version__
from envelope.addresses import PortRange
from envelope.config import OPTIONS, Config
from envelope.config.checks import THIS_MACHINE, Machine
from envelope.config.listen import parse_listen
from envelope.config.options import parse
from envelope.config.subjects import Subject
from envelope.config.values import https_url, rate
from envelope.devices import Device
from envelope.twistd import Options

DEVICES = (
    Device(2, "eth0"), Device(3, "net1"), Device(4, "eth1", 5, "veth"),
    Device(5, "br0", 0, "bridge"), Device(6, "eth2", 7), Device(7, "upper"), Device(9, "w*n"),
)
# The device that a name means, alternative names included.
NAMES = {
    **{device.name: device for device in DEVICES},
    "the-cable-to-the-world": DEVICES[0], "cable1": DEVICES[2], "odd": DEVICES[-1],
}


def find_device(which: int | str) -> Device | None:
    if isinstance(which, str):
        return NAMES.get(which)
    return next((device for device in DEVICES if device.index == which), None)


MACHINE = Machine(find_device, {Path("/sbin/iptables")}.__contains__)
ENOUGH = ("--verify-key=/keys/one.pub", "--machine=mlab1.lga03", "--subject=ndt")
EXPECTED = Config(
    verify_key=(Path("/keys/one.pub"),), machine="mlab1.lga03", subject=(Subject("ndt"),)
)


def read(*argv: str, **environ: str) -> Config:
    return parse([*ENOUGH, *argv], environ, MACHINE)


def refusal(argv: list[str], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(UsageError) as caught:
        parse(argv, environ or {}, MACHINE)
    line = str(caught.value)
    assert line
    assert "\n" not in line
    return line


def test_defaults_are_read_from_the_text_that_help_shows() -> None:
    config = Config()
    assert config.listen == (parse_listen(":8880"),)
    assert config.allow == (PortRange("udp", 53, 53),)
    assert (config.timeout, config.drain, config.token_required) == (60.0, 0.0, True)
    assert (config.grant_port, config.cert, config.max_duration) == ((), None, None)


def test_key_machine_and_subject_are_enough() -> None:
    assert read() == EXPECTED


@pytest.mark.parametrize(
    ("argument", "changes"),
    [
        ("--listen=:4443", {"listen": (parse_listen(":4443"),)}),
        ("--issuer=me", {"issuer": "me"}),
        ("--timeout=10m", {"timeout": 600.0}),
        ("--max-duration=90", {"max_duration": 90.0}),
        ("--max-duration=10s", {"max_duration": 10.0}),
        ("--max-clients=5", {"max_clients": 5}),
        ("--monitoring-slots=2", {"monitoring_slots": 2}),
        ("--max-connections=50", {"max_connections": 50}),
        ("--max-connections-per-network=5", {"max_connections_per_network": 5}),
        ("--max-handshakes=20", {"max_handshakes": 20}),
        ("--request-timeout=3s", {"request_timeout": 3.0}),
        ("--max-header-bytes=8192", {"max_header_bytes": 8192}),
        ("--firewall=none", {"firewall": "none"}),
        ("--device=net1", {"device": "net1"}),
        ("--baseline=operator", {"baseline": "operator"}),
        ("--on-stop=keep", {"on_stop": "keep"}),
        ("--allow=none", {"allow": ()}),
        ("--grant-prefix4=24", {"grant_prefix4": 24}),
        ("--grant-prefix6=64", {"grant_prefix6": 64}),
        ("--grant-port=tcp/80-90", {"grant_port": (PortRange("tcp", 80, 90),)}),
        ("--proxy-port=443", {"proxy_port": (443,)}),
        ("--established=keep", {"established": "keep"}),
        ("--iptables=/sbin/iptables", {"iptables": Path("/sbin/iptables")}),
        ("--admin=none", {"admin": ()}),
        ("--admin=[::1]:9990", {"admin": (parse_listen("[::1]:9990"),)}),
        ("--status=none", {"status": ()}),
        ("--status=[::1]:8881", {"status": (parse_listen("[::1]:8881"),)}),
        ("--status-host=Door.Example.", {"status_host": ("door.example",)}),
        ("--drain=1m30s", {"drain": 90.0}),
        ("--log-format=text", {"log_format": "text"}),
        ("--token-required=false", {"token_required": False, "firewall": "none"}),
    ],
)
def test_each_option_is_read(argument: str, changes: dict[str, Any]) -> None:
    """From the command line and from the environment."""
    assert read(argument) == replace(EXPECTED, **changes)
    name, _, value = argument[2:].partition("=")
    variable = "ENVELOPE_" + name.upper().replace("-", "_")
    assert read(**{variable: value}) == replace(EXPECTED, **changes)


@pytest.mark.parametrize(("firewall", "lines"), [
    ("none", ["--idle ends no session: with --firewall=none nothing is counted"]), ("nftables", []),
])
def test_idle_without_a_firewall_is_warned_of(firewall: str, lines: list[str]) -> None:
    with capturedLogs() as events:
        assert read("--idle=1m", f"--firewall={firewall}").idle == 60.0
    assert [formatEvent(event) for event in events] == lines


def test_a_subject_may_have_ports() -> None:
    """In the environment, commas separate the subjects."""
    ports = (PortRange("tcp", 1, 2), PortRange("udp", 3, 3))
    found = Subject("ndt"), Subject("wehe", ports)
    assert read("--subject=wehe=tcp/1-2+udp/3").subject == found
    assert parse(ENOUGH[:2], {"ENVELOPE_SUBJECT": "ndt, wehe=tcp/1-2+udp/3"}, MACHINE
                 ).subject == found


@pytest.mark.parametrize("value", [
    "monitoring", "monitoring=tcp/1", "ndt=", "=tcp/1", "ndt=tcp", "ndt=tcp/1+", "ndt=tcp/1+igmp",
    "ndt=tcp/2-1", "ndt=tcp/1=tcp/2", "ndt =tcp/1",
])
def test_a_wrong_subject_is_refused(value: str) -> None:
    assert refusal([*ENOUGH, f"--subject={value}"]).startswith("--subject: ")
    line = refusal([*ENOUGH[:2]], {"ENVELOPE_SUBJECT": value})
    assert line.startswith("--subject (from ENVELOPE_SUBJECT): ")


def test_a_subject_is_given_once() -> None:
    """With all of its ports; the very same twice is one, as with every option."""
    assert len(read("--subject=a=tcp/1", "--subject=a=tcp/1").subject) == 2
    for second in ("a", "a=tcp/2"):
        assert refusal([*ENOUGH, "--subject=a=tcp/1", f"--subject={second}"]).startswith(
            "--subject: 'a' is given twice")


@pytest.mark.parametrize("word", ["true", "YES", "1", "True"])
def test_words_for_true(word: str) -> None:
    assert read(f"--token-required={word}").token_required


@pytest.mark.parametrize("word", ["false", "No", "0"])
def test_words_for_false(word: str) -> None:
    """No other option is needed then, and the firewall is not managed."""
    config = parse([f"--token-required={word}"], {}, MACHINE)
    assert (config.token_required, config.firewall) == (False, "none")


def test_several_times_replaces_the_default() -> None:
    allow = read("--allow=tcp/22", "--allow", "udp/53", "--allow=tcp/22").allow
    assert allow == (PortRange("tcp", 22, 22), PortRange("udp", 53, 53))


def test_commas_separate_in_the_environment_only() -> None:
    assert read(ENVELOPE_LISTEN=":1, [::1]:2").listen == (
        parse_listen(":1"), parse_listen("[::1]:2"))
    assert "--allow" in refusal([*ENOUGH, "--allow=tcp/1,tcp/2"])


def test_the_command_line_wins() -> None:
    assert read("--allow=tcp/1", ENVELOPE_ALLOW="tcp/2,tcp/3").allow == (PortRange("tcp", 1, 1),)
    assert read("--max-clients=1", "--max-clients=2", ENVELOPE_MAX_CLIENTS="x").max_clients == 2


@pytest.mark.parametrize("written", ["$CREDENTIALS_DIRECTORY/", "${CREDENTIALS_DIRECTORY}/"])
def test_paths_may_begin_with_the_folder_of_credentials(written: str) -> None:
    """In the environment and on the command line; elsewhere it is a name like any other."""
    folder = {"CREDENTIALS_DIRECTORY": "/run/credentials/envelope.service"}
    config = read(f"--cert={written}cert.pem", ENVELOPE_KEY=f"{written}key.pem", **folder)
    assert config.cert == Path("/run/credentials/envelope.service/cert.pem")
    assert config.key == Path("/run/credentials/envelope.service/key.pem")
    assert "CREDENTIALS_DIRECTORY is not set" in refusal([f"--jwks-ca={written}ca.pem"])
    url = "--verify-jwks-url=https://issuer.example/keys"
    other = read(url, f"--jwks-ca=/x/{written}ca.pem", **folder).jwks_ca
    assert other == Path(f"/x/{written}ca.pem")


def test_paths_outlive_a_change_of_directory() -> None:
    config = read("--cert=chain.pem", "--key=/etc/key.pem")
    assert config.cert == Path.cwd() / "chain.pem"
    assert config.key == Path("/etc/key.pem")


@pytest.mark.parametrize(
    "argument",
    [
        "--listen=8880", "--listen=:70000", "--listen=ftp:21x", "--cert=", "--issuer= ",
        "--token-required=maybe", "--timeout=0", "--timeout=soon", "--timeout=-1",
        "--timeout=inf", "--max-duration=0", "--max-duration=9999999999", "--max-clients=0",
        "--max-clients=1.5", "--max-clients=٣", "--monitoring-slots=-1", "--firewall=pf",
        "--device=../../etc", "--device=a b", "--device=..", "--device=eth+", "--device=-i",
        f"--device={127 * 'x'}", f"--device={128 * 'x'}", "--device=eth9",
        "--baseline=none", "--on-stop=burn",
        "--allow=22", "--allow=tcp/0", "--allow=icmp/1", "--allow=tcp/9-1", "--allow=",
        "--grant-prefix4=0", "--grant-prefix4=33", "--grant-prefix6=0", "--grant-prefix6=129",
        "--grant-port=none", "--proxy-port=0", "--proxy-port=65536", "--established=maybe",
        "--iptables=/nowhere/iptables", "--ip6tables=/", "--nft=/etc/passwd", "--admin=9990",
        "--status=8881", "--status-host=door.example:80", "--status-host=a b",
        "--status-host=[::1]",
        "--drain=forever", "--log-format=xml", "--tx-max-rate=fast", "--tx-max-rate=0",
        "--verify-jwks-url=http://example.org", "--key=a\0b",
    ],
)
def test_a_wrong_value_is_refused_by_name(argument: str) -> None:
    """The line begins with the option; a value from the environment names the variable as well."""
    name, _, value = argument.partition("=")
    assert refusal([*ENOUGH, argument]).startswith(f"{name}: ")
    variable = "ENVELOPE_" + name[2:].upper().replace("-", "_")
    if name not in ("--device", "--iptables", "--ip6tables", "--nft"):
        line = refusal(list(ENOUGH), {variable: value})
        assert line.startswith(f"{name} (from {variable}): ")


@pytest.mark.parametrize("option", ["device", "tx_device"])
def test_an_alternative_name_is_resolved_and_said(option: str) -> None:
    """However the option is given; the rules need the name that packets bear."""
    name = option.replace("_", "-")
    with capturedLogs() as events:
        config = parse(ENOUGH, {f"ENVELOPE_{option.upper()}": "the-cable-to-the-world"}, MACHINE)
        assert getattr(read(f"--{name}=net1"), option) == "net1"
    assert getattr(config, option) == "eth0"
    assert [formatEvent(event) for event in events] == [
        f"--{name}=the-cable-to-the-world is another name of eth0"]


@pytest.mark.parametrize(("name", "master"), [
    ("eth1", "the bridge br0, whose name its packets bear; say --device=br0"),
    ("cable1", "the bridge br0, whose name its packets bear; say --device=br0"),
    ("eth2", "upper, whose name its packets bear; say --device=upper"),
])
def test_a_device_that_is_part_of_another_is_refused(name: str, master: str) -> None:
    """Except where no rule of ours names it; and what it sends can be measured."""
    real = "eth1" if name == "cable1" else name
    assert refusal([*ENOUGH, f"--device={name}"]) == f"--device: {real} is part of {master}"
    assert read(f"--device={name}", "--baseline=operator").device == real
    assert read(f"--tx-device={name}").tx_device == real


def test_a_device_whose_name_no_rule_can_hold_is_refused() -> None:
    assert refusal([*ENOUGH, "--device=odd"]) == (
        "--device: 'odd' is another name of 'w*n', which a rule cannot hold: rename the device")


def test_a_kernel_that_shows_no_devices_is_an_error_in_one_line() -> None:
    def find(which: int | str) -> Device | None:
        raise OSError(1, "Operation not permitted")

    with pytest.raises(UsageError) as caught:
        parse(ENOUGH, {}, Machine(find, MACHINE.can_run))
    assert str(caught.value) == (
        "--device: the kernel does not show its network devices: Operation not permitted")


@pytest.mark.parametrize("option", ["machine", "subject", "issuer"])
@pytest.mark.parametrize(("value", "words"), [
    ("x ", "begins or ends with a blank: remove it"), (" x", "begins or ends with a blank"),
    ("x\r", "unprintable characters (such as a line end): remove them"), ("x\0", "unprintable"),
    ("x\ny", "unprintable"), ("x\t", "unprintable"), ("\u200bx", "unprintable"),
    ("x\u00a0", "unprintable"), ("\x1b[31mx", "unprintable"), (" ", "empty: give a name"),
    ('"x"', "remove the quotes"), ("'x'", "remove the quotes"), ('"x', "remove the quotes"),
])
def test_a_name_that_no_token_carries_is_refused(option: str, value: str, words: str) -> None:
    """What an environment file adds is said at the start; else it would refuse every token."""
    line = refusal([*ENOUGH, f"--{option}={value}"])
    assert line.startswith(f"--{option}: ")
    assert words in line
    assert line.isprintable()
    argv = [each for each in ENOUGH if not each.startswith(f"--{option}")]
    # Values of an option that may be given several times are separated by commas and blanks.
    if value == (value.strip() if option == "subject" else value.strip(" ")):
        variable = f"ENVELOPE_{option.upper()}"
        assert words in refusal(argv, {variable: value})


@pytest.mark.parametrize("value", ["mlab 1", "O'Neill", "a\"b", "ünïcode", "https://issuer/x"])
def test_a_name_may_have_anything_printable_inside(value: str) -> None:
    assert read(f"--machine={value}").machine == value


@pytest.mark.parametrize("variable", [
    "CERT", "KEY", "VERIFY_KEY", "VERIFY_JWKS_URL", "MAX_CLIENTS", "TIMEOUT", "FIREWALL", "DEVICE",
    "ALLOW", "LISTEN", "TX_MAX_RATE", "TOKEN_REQUIRED",
])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_around_any_value_are_named(variable: str, quote: str) -> None:
    """In the environment, where several values share one pair."""
    for value in ("1", "1,2"):
        line = refusal(list(ENOUGH)[1:], {
            "ENVELOPE_VERIFY_KEY": "/key", f"ENVELOPE_{variable}": f"{quote}{value}{quote}"})
        assert line.endswith("as files of environment variables keep them: remove the quotes")
        assert f"(from ENVELOPE_{variable})" in line


@pytest.mark.parametrize("end", ["\r", "\n", "\x1b[0m"])
def test_a_path_with_control_characters_is_refused(end: str) -> None:
    """A file of environment variables with the line ends of Windows."""
    line = refusal([*ENOUGH, f"--cert=/chain.pem{end}"])
    assert line.isprintable()
    assert "control characters (such as a line end)" in line


def test_a_rate_needs_a_device() -> None:
    both = read("--tx-device=net1", "--tx-max-rate=1.5G")
    assert (both.tx_device, both.tx_max_rate) == ("net1", 1.5e9)
    assert read("--tx-device=net1").tx_max_rate is None
    assert refusal([*ENOUGH, "--tx-max-rate=1G"]) == "--tx-max-rate needs --tx-device"
    line = refusal([*ENOUGH, "--tx-device=eth9"])
    assert line == "--tx-device: there is no network device 'eth9'"


def test_tokens_need_key_machine_and_subject() -> None:
    for left_out in ENOUGH:
        name = left_out.partition("=")[0]
        assert refusal([one for one in ENOUGH if one != left_out]).startswith(name)
    assert refusal([]).startswith("--verify-key is missing")


def test_certificate_and_key_come_together() -> None:
    assert refusal([*ENOUGH, "--cert=a"]) == "--cert needs --key as well"
    assert refusal([*ENOUGH, "--key=a"]) == "--key needs --cert as well"
    assert refusal([*ENOUGH, "--tls=modern"]) == "--tls needs --cert and --key"


def test_which_tls_is_spoken() -> None:
    pair = ("--cert=/a", "--key=/b")
    assert read(*pair).tls == "intermediate"
    assert read(*pair, "--tls=modern").tls == "modern"
    assert "none of intermediate, modern" in refusal([*ENOUGH, *pair, "--tls=old"])


def test_a_managed_firewall_needs_tokens() -> None:
    assert "--firewall=iptables" in refusal(["--token-required=false", "--firewall=iptables"])
    assert "--firewall" in refusal(["--token-required=no"], {"ENVELOPE_FIREWALL": "iptables"})
    assert parse(["--token-required=no", "--firewall=none"], {}, MACHINE).firewall == "none"


def test_none_cannot_be_combined_with_other_values() -> None:
    assert "none" in refusal([*ENOUGH, "--allow=none", "--allow=tcp/1"])
    assert "none" in refusal([*ENOUGH], {"ENVELOPE_ADMIN": ":1,none"})


def test_a_unix_socket_needs_haproxy_or_no_firewall() -> None:
    assert refusal([*ENOUGH, "--listen=unix:/run/door"]).startswith("--listen=unix:/run/door: ")
    (spec,) = read("--listen=unix:/run/door", "--firewall=none").listen
    assert not spec.clients_have_addresses
    (spec,) = read("--listen=haproxy:unix:/run/door").listen
    assert spec.clients_have_addresses


def test_the_device_matters_only_to_a_managed_firewall() -> None:
    assert refusal([*ENOUGH, "--device=eth9"]) == "--device: there is no network device 'eth9'"
    assert read("--device=eth9", "--firewall=none").device == "eth9"


def test_a_mistyped_variable_is_not_ignored() -> None:
    line = refusal(list(ENOUGH), {"ENVELOPE_MAX_CLIENT": "5"})
    assert "ENVELOPE_MAX_CLIENT " in line
    assert line.endswith("ENVELOPE_MAX_CLIENTS is")
    assert refusal(list(ENOUGH), {"ENVELOPE_XYZZY": "5"}).endswith("is not an option")


def test_variables_of_tests_and_of_kubernetes_are_ignored() -> None:
    """Kubernetes describes its Services in every pod's environment."""
    assert read(
        HOME="/root",
        ENVELOPE_TEST_SEED="1",
        ENVELOPE_SERVICE_HOST="10.0.0.1",
        ENVELOPE_SERVICE_PORT="8880",
        ENVELOPE_SERVICE_PORT_HTTPS="8880",
        ENVELOPE_PORT="tcp://10.0.0.1:8880",
        ENVELOPE_PORT_8880_TCP_ADDR="10.0.0.1",
        ENVELOPE_ADMIN_SERVICE_HOST="10.0.0.2",
    ) == EXPECTED
    assert "ENVELOPE_PORT" in refusal(list(ENOUGH), {"ENVELOPE_PORT": "8880"})


@pytest.mark.parametrize(
    "argv", [["--no-such-option"], ["--machine"], ["start"], ["--listen", ":1", "extra"]]
)
def test_arguments_that_are_not_options_are_refused(argv: list[str]) -> None:
    refusal(argv)


PORTS = st.builds(
    lambda protocol, ends: PortRange(protocol, min(ends), max(ends)),
    st.sampled_from(["tcp", "udp"]),
    st.tuples(st.integers(1, 65535), st.integers(1, 65535)),
)
WRITTEN = st.fixed_dictionaries(
    {},
    optional={
        "listen": st.lists(st.integers(0, 65535).map(":{}".format), min_size=1),
        "issuer": st.from_regex(r"[a-z0-9.:/-]+", fullmatch=True),
        "timeout": st.integers(1, 10_000).map("{}s".format),
        "max-duration": st.integers(1, 500).map("{}m".format),
        "max-clients": st.integers(1, 1000).map(str),
        "monitoring-slots": st.integers(0, 1000).map(str),
        "device": st.sampled_from(["eth0", "net1"]),
        "baseline": st.sampled_from(["service", "operator"]),
        "allow": st.just(["none"]) | st.lists(PORTS.map(str), min_size=1),
        "grant-port": st.lists(PORTS.map(str), min_size=1),
        "proxy-port": st.lists(st.integers(1, 65535).map(str), min_size=1),
        "established": st.sampled_from(["cut", "keep"]),
        "drain": st.integers(0, 100).map(str),
    },
)


@given(WRITTEN)
def test_command_line_and_environment_mean_the_same(written: dict[str, str | list[str]]) -> None:
    argv, environ = list(ENOUGH), {}
    for name, value in written.items():
        values = value if isinstance(value, list) else [value]
        argv += [f"--{name}={one}" for one in values]
        environ["ENVELOPE_" + name.upper().replace("-", "_")] = ",".join(values)
    assert parse(argv, {}, MACHINE) == parse(ENOUGH, environ, MACHINE)


@given(st.lists(st.text(max_size=20), max_size=4))
def test_random_arguments_raise_nothing_but_usage_error(words: list[str]) -> None:
    """`--help` and `--version` raise SystemExit."""
    with suppress(UsageError, SystemExit):
        parse([*ENOUGH, *words], {}, MACHINE)


@pytest.mark.process
@pytest.mark.parametrize("argv", [["--max-clients=0"], ["--nonsense\nline"], ["--machine"], ["x"]])
def test_twistd_gets_one_line_and_status_1(
    argv: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        Options({}, MACHINE).parseOptions(argv)
    out, err = capfd.readouterr()
    assert caught.value.code == 1
    assert out == ""
    assert err.startswith("envelope: ")
    assert err.count("\n") == 1


def test_twistd_gets_the_config() -> None:
    options = Options({"ENVELOPE_MAX_CLIENTS": "3"}, MACHINE)
    options.parseOptions(list(ENOUGH))
    assert options.config == replace(EXPECTED, max_clients=3)


def test_help_shows_every_option_once_in_groups_and_names_the_environment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        Options({}, MACHINE).parseOptions(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert caught.value.code == 0
    for option in OPTIONS:
        assert text.count(f" --{option.name}= ") == 1
        assert option.help in text
    headings = [option.heading for option in OPTIONS if option.heading]
    assert len(headings) == 5
    assert sorted(headings, key=text.index) == headings
    assert "ENVELOPE_MAX_CLIENTS=5" in text
    assert "May be given several times. [default: udp/53]" in text


def test_version_is_envelopes_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Options({}, MACHINE).parseOptions(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"envelope {__version__}\n"


def test_this_machine_knows_its_devices_and_programs(tmp_path: Path) -> None:
    loopback = THIS_MACHINE.find_device("lo")
    assert loopback is not None
    assert (loopback.index, loopback.name) == (1, "lo")
    assert THIS_MACHINE.find_device("no-such-device") is None
    assert THIS_MACHINE.can_run(Path("/bin/sh"))
    assert not THIS_MACHINE.can_run(tmp_path)
    assert not THIS_MACHINE.can_run(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "bits"), [("9600", 9600), ("64k", 64e3), ("800M", 8e8), ("1.5G", 1.5e9)]
)
def test_rates_are_read_with_their_multiples(text: str, bits: float) -> None:
    assert rate(text) == bits


@pytest.mark.parametrize(
    "url",
    [
        "https:///jwks", "https://[::1/jwks", "file:///etc/jwks", "http://keys.example/",
        "keys.example/jwks", "https://keys..example/", "https://-keys.example/", "https://%41/",
        "https://[fe80::1%25eth0]/", "https://[::1]x/", "https://keys.example:/",
        "https://keys.example:0/", "https://keys.example:65536/", "https://keys.example/a b",
        "https://k\u00e9ys.example/", "https://keys.example/\x7f", f"https://{'a' * 64}.example/",
        "https://me@keys.example/", "https://me:hush@keys.example/", "https://keys.example/#one",
    ],
)
def test_only_https_urls_without_credentials_are_read(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(that is not an http|a user name|a frag)") as why:
        https_url(url)
    assert "hush" not in str(why.value)


@pytest.mark.parametrize(
    "url",
    ["https://keys.example", "https://keys.example:8443/jwks?a=b", "https://[2001:db8::1]:1/",
     "https://192.0.2.1/", "HTTPS://Keys.Example/a%20b"],
)
def test_an_https_url_is_kept_as_written(url: str) -> None:
    assert https_url(f" {url} ") == url
