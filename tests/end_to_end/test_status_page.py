"""The status page in a real browser, over a real service and its rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.end_to_end.credentialfiles import sign
from tests.end_to_end.watched import Watched, watched
from tests.support.browser import browser, node_file
from tests.support.polling import wait_until

pytestmark = pytest.mark.kernel

PATIENCE = 15.0


class Viewer:
    """The page, open in a browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: object) -> Any:
        """What a script in the page returns; it has the page's own functions."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """The visible text of the first element that matches."""
        found: str = self.run("return document.querySelector(arguments[0]).innerText", selector)
        return " ".join(found.split())

    def rows(self) -> list[list[str]]:
        """The cells of the sessions."""
        found: list[list[str]] = self.run(
            "return [...document.querySelectorAll('#sessions tbody tr')].map("
            "row => [...row.cells].map(cell => cell.textContent.trim()))")
        return found

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until `condition` holds of the page, which tells of nothing by itself."""
        wait_until(condition, lambda: f"{what}: {self.text('body')[:800]}")

    def width(self, pixels: int) -> None:
        """Give the page this width."""
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": pixels < 500,
        })

    def prefer(self, scheme: str) -> None:
        """Let the operator prefer the light or the dark scheme."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": "prefers-color-scheme", "value": scheme}],
        })

    def complaints(self) -> list[str]:
        """What axe finds to be serious, and what the console says."""
        self.run(f"if (!window.axe) {{ {node_file('axe-core/axe.min.js').read_text()} }}")
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(result => done(result.violations))")
        return [
            f"{each['id']}: {each['nodes'][0]['html']} {each['nodes'][0]['failureSummary']}"
            for each in found if each["impact"] in ("serious", "critical")
        ] + [str(line) for line in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    options = ("--max-clients=1100", "--tx-device=lo", "--tx-max-rate=900M", "--log-claim=site",
               "--log-claim=metro", "--status-host=door.example")
    with watched(tmp_path_factory.mktemp("service"), options) as running:
        yield running


def test_status_tells_who_is_let_in(service: Watched) -> None:
    before = service.status()
    assert before["sessions"] == []
    token = sign(service.key, 120, site="lga03", metro=[1], jti="one")
    assert service.ask("203.0.113.7", token=token) == 101
    told = service.status()
    (session,) = told["sessions"]
    assert (session["address"], session["network"]) == ("203.0.113.7", "203.0.113.7/32")
    assert (session["subject"], session["claims"]) == ("ndt", {"site": "lga03"})
    assert 118 < session["until"] - told["now"] <= 120
    assert session["since"] <= told["now"]
    assert told["slots"] == {"used": 1, "total": 1100}
    assert told["rules"]["wanted"] == told["rules"]["held"]
    grant = "nft add element inet envelope grants4 { 203.0.113.7 }"
    assert {*told["rules"]["held"]} - {*before["rules"]["held"]} == {grant}
    assert [key["kid"] for key in told["keys"]] == ["test"]
    assert told["certificate"]["names"] == ["203.0.113.1"]
    assert told["options"]["status-host"] == ["door.example"]
    assert token not in json.dumps(told)
    service.leave()
    service.service.until("ended after")
    assert service.status()["sessions"] == []


def test_both_sites_over_the_network(service: Watched) -> None:
    for path in ("/metrics", "/livez", "/readyz", "/health"):
        assert service.get(path)[0] == service.get(path, Watched.admin)[0] == 200
    for path in ("/", "/status", "/status/stream"):
        assert service.get(path, Watched.admin)[0] == 404
    page = service.get("/")
    assert page[0] == 200
    assert service.get("/", host="door.example") == service.get("/", host="localhost:1") == page
    assert service.get("/", host="evil.example")[0] == 421
    assert service.get("/livez", host="evil.example")[0] == 421
    assert service.get("/livez", Watched.admin, host="any.example")[0] == 200


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser() as driver:
        yield driver


@pytest.fixture
def page(service: Watched, window: Any) -> Iterator[Viewer]:
    """The page, freshly loaded; afterwards every client has left."""
    viewer = Viewer(window)
    viewer.width(1280)
    viewer.prefer("light")
    window.get(f"http://{service.page}/")
    viewer.until(lambda: viewer.text("#state") == "Ready", "the first event")
    yield viewer
    service.leave()
    viewer.until(lambda: not viewer.rows(), "every client has left")


def test_sessions_come_and_go_while_it_is_open(service: Watched, page: Viewer) -> None:
    assert page.text("#no-sessions") == "Nobody is let in now."
    assert service.ask("203.0.113.7", lasts=300) == 101
    assert service.ask("2001:db8::7", lasts=90) == 101
    page.until(lambda: len(page.rows()) == 2, "two sessions")
    first, second = page.rows()
    assert [first[1], second[1]] == ["203.0.113.7", "2001:db8::7"]
    assert first[0].startswith(("4:5", "5:00"))
    assert second[0].startswith(("1:2", "1:30"))
    assert page.text("#slots") == "2"
    assert page.text(".tiles").startswith("Slots 2 of 1,100 in use Rules")
    before = page.rows()[0][0]
    page.until(lambda: page.rows()[0][0] != before, "the countdown goes on")
    service.leave(1)
    page.until(lambda: [row[1] for row in page.rows()] == ["2001:db8::7"], "the first has left")


def test_the_countdown_goes_by_the_services_clock(service: Watched, page: Viewer) -> None:
    """The browser's may be wrong."""
    page.run("Date.now = () => 0")
    assert service.ask("203.0.113.7", lasts=200) == 101
    page.until(page.rows, "a session")
    assert page.rows()[0][0].startswith(("3:1", "3:20"))


HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def test_a_hostile_claim_is_shown_as_text(service: Watched, page: Viewer) -> None:
    """A token's issuer writes what it likes into a claim."""
    assert service.ask("203.0.113.7", site=HOSTILE, metro=7) == 101
    page.until(page.rows, "a session")
    assert page.text("#sessions .claims") == f"site {HOSTILE} metro 7"
    assert page.run("return document.querySelectorAll('#sessions img').length") == 0
    assert "owned" not in page.driver.title
    page.width(768)
    assert page.run("return document.querySelector('#sessions tbody tr').offsetHeight") < 120


def test_refusals_grants_and_the_rate_have_charts_and_tables(
    service: Watched, page: Viewer
) -> None:
    for _ in range(3):
        assert service.ask("203.0.113.7", lasts=-5) == 401
    assert service.ask("203.0.113.7") == 101
    page.until(lambda: "expired" in page.text("#refusals .legend"), "a sample")
    for chart, words in (("refusals", "expired"), ("grants", "p95"), ("rate", "--tx-max-rate")):
        assert words in page.text(f"#{chart} .legend")
        assert words in page.run(
            "return document.querySelector(arguments[0]).ariaLabel", f"#{chart} .plot")
        page.run("document.querySelector(arguments[0]).open = true", f"#{chart} details")
        page.until(lambda chart=chart: page.text(f"#{chart} tbody"), "a table")
        assert words in page.text(f"#{chart} thead")
        assert page.run("return document.querySelector(arguments[0]).rows.length",
                        f"#{chart} table") == 121
        drawn = page.run(
            "const canvas = document.querySelector(arguments[0]);"
            "const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, "
            "canvas.height); return data.some(value => value)", f"#{chart} canvas")
        assert drawn, chart
    assert int(page.text("#refused")) >= 3


def test_rules_are_held_missing_or_stray_in_words(service: Watched, page: Viewer) -> None:
    assert service.ask("203.0.113.7") == 101
    page.until(page.rows, "a session")
    page.run("document.querySelector('#rules-all').open = true")
    grant = "held nft add element inet envelope grants4 { 203.0.113.7 }"
    page.until(lambda: grant in page.text("#rules-list"), "the grant")
    assert "none missing, no strays" in page.text("#rules-words")
    page.run("close(); status_.rules.held = [...status_.rules.held.slice(1), 'one of others'];"
             "draw(status_)")
    missing = service.status()["rules"]["wanted"][0]
    assert page.text("#rules-wrong") == f"missing {missing} stray one of others"
    assert "1 missing, 1 stray" in page.text("#rules-words")
    assert "1 missing, 1 stray" in page.text("#rules-more")
    page.run("open()")
    page.until(lambda: not page.text("#rules-wrong"), "the next event")


def test_markup_in_a_text_stays_text(service: Watched, page: Viewer) -> None:
    """Whatever the service tells; it comes from tokens, certificates and other programs."""
    hostile = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>"
    told = service.status()
    told |= {"warnings": [hostile], "reasons": [hostile]}
    told["rules"] = {"wanted": [hostile], "held": []}
    told["keys"] = [{"kid": hostile, "alg": hostile, "source": hostile, "since": 0}]
    told["certificate"] = {"names": [hostile], "not_before": 0, "not_after": 9e9, "since": 0}
    told["options"] |= {"machine": hostile}
    told["sessions"] = [{
        "id": hostile, "address": hostile, "network": hostile, "subject": hostile, "since": 0,
        "until": 9e9, "packets": 1, "bytes": 1, "claims": {hostile: hostile},
    }]
    told["history"]["refusals"] = {hostile: [1]}
    page.run("close(); status_ = JSON.parse(arguments[0]); draw(status_)", json.dumps(told))
    assert page.run("return document.querySelectorAll('main img, main script').length") == 0
    for selector in ("#notice-list", "#rules-wrong", "#keys", "#cert", "#machine", ".claim",
                     "#sessions", "#refusals .legend"):
        assert hostile in page.text(selector)
    assert hostile in page.run("return at('options').textContent")
    assert "owned" not in page.driver.title.split("·")[0]
    page.run("drawSessions([]); open()")


def test_nothing_can_be_put_into_the_page_as_markup(page: Viewer) -> None:
    refused = page.run(
        "try { document.body.innerHTML = '<b>x</b>'; return 'done' } catch (e) { return e.name }")
    assert refused == "TypeError"
    page.driver.get_log("browser")


def test_a_lost_service_is_said_and_its_return_noticed(service: Watched, page: Viewer) -> None:
    service.stop()
    try:
        page.until(lambda: page.text("#state") == "Connection lost", "the loss")
        assert page.text("#lost").startswith("Connection lost. What is below is from ")
    finally:
        service.start()
    page.until(lambda: page.text("#state") == "Ready", "the return")
    assert page.run("return document.querySelector('#lost').hidden")
    page.driver.get_log("browser")


def test_the_stream_is_closed_while_the_page_is_hidden(service: Watched, page: Viewer) -> None:
    hide = "Object.defineProperty(document, 'hidden', {value: arguments[0], configurable: true});" \
        "document.dispatchEvent(new Event('visibilitychange'))"
    page.run(hide, True)
    assert page.run("return source === undefined")
    assert service.ask("203.0.113.7") == 101
    assert not page.rows()
    page.run(hide, False)
    page.until(page.rows, "a session")


def test_a_thousand_sessions(service: Watched, page: Viewer) -> None:
    """The rows of those that stay are kept, and nothing is put into the table again."""
    assert service.ask("203.0.113.7") == 101
    page.until(page.rows, "a session")
    changes = page.run(
        "close(); const [one] = status_.sessions; status_.sessions = Array.from({length: 1000},"
        "(_, number) => ({...one, id: `s${number}`, address: `2001:db8::${number}`}));"
        "const seen = new MutationObserver(() => {});"
        "seen.observe(document.querySelector('#sessions'), {childList: true, subtree: true});"
        "return [1, 2].map(() => { draw(status_); return seen.takeRecords().length })")
    assert len(page.rows()) == 1000
    page.run("draw({...status_, slots: {used: 1000, total: 1100}})")
    assert page.text(".tiles").startswith("Slots 1,000 of 1,100 in use")
    assert changes[0] >= 1000
    assert changes[1] == 0
    page.run("open()")
    page.until(lambda: len(page.rows()) == 1, "the next event")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_it_is_accessible_and_fits(
    service: Watched, page: Viewer, scheme: str, width: int
) -> None:
    """Every part is shown: sessions, a table, all rules, a warning."""
    page.width(width)
    page.prefer(scheme)
    assert service.ask("2001:db8:1234:5678:9abc:def0:1234:5678", site="lga03") == 101
    page.until(page.rows, "a session")
    page.run("document.querySelectorAll('details').forEach(each => each.open = true);"
             "status_.warnings.push('a warning'); status_.reasons.push('a reason');"
             "status_.rules.held.push('a stray'); status_.rules.wanted.push('missing');"
             "close(); draw(status_)")
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert page.complaints() == []
    page.run("open()")


def test_the_keyboard_reaches_everything(page: Viewer) -> None:
    """Links, details and what scrolls, in the order of the page; the focus is seen."""
    from selenium.webdriver.common.keys import Keys

    reached = []
    body = page.driver.find_element("tag name", "body")
    for _ in range(12):
        body.send_keys(Keys.TAB)
        reached.append(page.run(
            "const at = document.activeElement;"
            "return [at.tagName, at.textContent.trim(), getComputedStyle(at).outlineStyle]"))
    names = [name for name, _, _ in reached]
    assert names.count("SUMMARY") >= 5
    assert names.count("A") >= 4
    assert {outline for name, _, outline in reached if name in ("SUMMARY", "A")} == {"solid"}
