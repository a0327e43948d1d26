"""What went wrong on the page once, in a real browser: typing that became verdicts, one study's images in another."""

from __future__ import annotations

from .analyzed import Analyzed, analyzed, analyzed_once  # noqa: F401
from .test_walk import browser, new_page, served, until  # noqa: F401


def test_typing_a_note_judges_nothing(browser, analyzed: Analyzed) -> None:  # noqa: F811
    changes: list[str] = []
    with served(analyzed.folder) as url:
        page = new_page(browser, url, [], [])
        page.on("request", lambda one: changes.append(one.url) if one.method == "PATCH" else None)
        page.goto(f"{url}/#/study/{analyzed.study}")
        until(page, "() => window.spicula && window.spicula.selected !== null")
        page.keyboard.press("d")
        page.get_by_test_id("edit-diameter").wait_for()
        page.keyboard.type("artifact")
        page.keyboard.press("Tab")
        page.keyboard.type("artifact")
        assert page.get_by_test_id("edit-note").input_value() == "artifact"
        assert page.get_by_test_id("edit-diameter").input_value().endswith("artifact")
        assert {one["state"] for one in page.evaluate("() => window.spicula.findings")} == {"proposed"}
        assert changes == []
        page.close()


def test_a_slow_study_does_not_come_into_the_next(browser, analyzed: Analyzed) -> None:  # noqa: F811
    held, troubles = [], []
    with served(analyzed.folder) as url:
        page = new_page(browser, url, [], troubles)
        before = f"/studies/{analyzed.before}/series/"
        page.route(
            lambda asked: before in asked and "/instances/" not in asked and asked.endswith("/metadata"),
            lambda route: held.append(route),
        )
        page.goto(f"{url}/#/study/{analyzed.before}")
        for _ in range(300):
            if held:
                break
            page.wait_for_timeout(200)
        assert held
        page.keyboard.press("g")
        page.get_by_test_id("study-row").first.wait_for()
        page.evaluate("uid => { location.hash = `#/study/${uid}`; }", analyzed.study)
        until(page, "uid => window.spicula.study === uid", analyzed.study)
        for route in held:
            route.continue_()
        until(page, "() => window.spicula.ready.volume !== null")
        page.wait_for_timeout(1500)
        shown = page.evaluate("() => Object.values(window.spicula.viewports).map(one => one.series)")
        assert shown == [analyzed.series] * 3
        assert troubles == []
        page.close()


def test_a_slice_that_fails_is_told_and_passed(browser, analyzed: Analyzed) -> None:  # noqa: F811
    asked: list[str] = []

    def answer(route) -> None:
        url = route.request.url
        if url not in asked:
            asked.append(url)
        # the one on the screen comes, one of its neighbors does not
        if asked.index(url) == 2:
            route.fulfill(status=500, body="")
        else:
            route.continue_()

    with served(analyzed.folder) as url:
        page = new_page(browser, url, [], [])
        page.route("**/frames/*", answer)
        page.goto(f"{url}/#/study/{analyzed.study}")
        until(page, "() => window.spicula && window.spicula.ready.volume !== null")
        alert = page.get_by_test_id("lacking")
        alert.wait_for()
        count = page.evaluate("() => window.spicula.images[1]")
        assert alert.inner_text().startswith(f"1 of {count} slices could not be loaded")
        start = page.evaluate("() => window.spicula.viewports.axial.at")
        axial = "at => window.spicula.viewports.axial.at === at"
        for key, times, there in (("ArrowDown", 4, start + 4), ("ArrowUp", 8, start - 4)):
            for _ in range(times):
                page.keyboard.press(key)
            until(page, axial, there)
        page.get_by_test_id("viewport-axial").hover()
        for _ in range(8):
            page.mouse.wheel(0, 100)
            page.wait_for_timeout(50)
        until(page, "at => window.spicula.viewports.axial.at >= at", start + 3)
        page.unroute("**/frames/*")
        page.evaluate(
            "() => document.querySelector('[data-testid=lacking-again]')?.click()"
        )  # it may have come by itself
        alert.wait_for(state="detached")
        page.close()


def test_crosshairs_move_by_keys_and_leave(browser, analyzed: Analyzed) -> None:  # noqa: F811
    with served(analyzed.folder) as url:
        page = new_page(browser, url, [], [])
        page.goto(f"{url}/#/study/{analyzed.study}")
        until(page, "() => window.spicula && window.spicula.ready.volume !== null")
        page.locator("[data-testid=viewport-axial] .pixels").focus()
        page.keyboard.press("f")
        page.keyboard.press("ArrowRight")
        cross = page.get_by_test_id("crosshairs-axial")
        cross.wait_for()
        page.keyboard.press("Escape")
        cross.wait_for(state="detached")
        page.get_by_test_id("exports-button").click()
        page.keyboard.press("Escape")
        page.get_by_test_id("exports-menu").wait_for(state="detached")
        focused = page.evaluate("() => document.activeElement.dataset.testid")
        assert focused == "exports-button"
        page.close()


def test_a_note_survives_the_end_of_a_session(browser, analyzed: Analyzed) -> None:  # noqa: F811
    with served(analyzed.folder) as url:
        page = new_page(browser, url, [], [])
        page.goto(f"{url}/#/study/{analyzed.study}")
        until(page, "() => window.spicula && window.spicula.ready.volume !== null")
        who = page.evaluate("async () => (await fetch('api/me')).text()")
        page.route("**/api/findings/*", lambda route: route.fulfill(status=401, json={"error": "log in"}), times=1)
        page.route("**/api/login", lambda route: route.fulfill(body=who, content_type="application/json"))
        page.keyboard.press("d")
        page.get_by_test_id("edit-note").fill("near the pleura")
        page.get_by_test_id("edit-save").click()
        page.get_by_test_id("login-form").wait_for()
        assert page.evaluate("() => document.activeElement.dataset.testid") == "login-name"
        assert not page.get_by_test_id("viewport-axial").is_visible()
        page.get_by_test_id("login-submit").focus()
        page.keyboard.press("x")
        page.get_by_test_id("login-name").fill("ada")
        page.get_by_test_id("login-password").fill("a password")
        page.get_by_test_id("login-submit").click()
        page.get_by_test_id("viewport-axial").wait_for()
        assert page.get_by_test_id("edit-note").input_value() == "near the pleura"
        page.get_by_test_id("edit-save").click()
        page.get_by_test_id("edit-form").wait_for(state="detached")
        (finding,) = page.evaluate("() => window.spicula.findings.filter(one => one.note !== '')")
        # noted, neither accepted by that nor rejected by the x
        assert (finding["note"], finding["state"]) == ("near the pleura", "proposed")
        page.close()


def test_what_is_typed_of_a_finding_stays_while_another_is_looked_at(browser, analyzed: Analyzed) -> None:  # noqa: F811
    with served(analyzed.folder) as url:
        page = new_page(browser, url, [], [])
        page.goto(f"{url}/#/study/{analyzed.study}")
        until(page, "() => window.spicula && window.spicula.ready.volume !== null")
        assert page.evaluate("() => window.spicula.findings.length") > 1
        page.keyboard.press("d")
        page.get_by_test_id("edit-note").fill("near the pleura")
        rows = page.get_by_test_id("finding-row")
        rows.nth(1).click()
        page.get_by_test_id("edit-form").wait_for()
        assert page.get_by_test_id("edit-note").input_value() == ""
        rows.nth(0).click()
        until(page, "() => document.querySelector('[data-testid=edit-note]').value === 'near the pleura'")
        page.keyboard.press("Escape")  # given up
        page.get_by_test_id("edit-form").wait_for(state="detached")
        page.keyboard.press("d")
        assert page.get_by_test_id("edit-note").input_value() == ""
        page.close()


def test_an_admin_reads_the_log(browser, analyzed: Analyzed) -> None:  # noqa: F811
    troubles: list[str] = []
    with served(analyzed.folder) as url:
        page = new_page(browser, url, [], troubles)
        page.goto(f"{url}/#/study/{analyzed.study}")
        until(page, "() => window.spicula && window.spicula.ready.volume !== null")
        page.get_by_test_id("audit-button").click()
        row = page.get_by_test_id("audit-row").filter(has_text="study.open").first
        row.wait_for()
        assert analyzed.study in row.inner_text()
        assert "desk" in row.inner_text()
        page.close()
    assert troubles == []
