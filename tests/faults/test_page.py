"""The page against hostile texts, names and clients, in a real browser."""

import http.client
import time
from urllib.parse import urlsplit

import pytest
from browsing import answers, ask, wait_for

pytestmark = pytest.mark.slow
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> [a](http://b.c) $x$"
)


def request(address, method, path, body=b"", **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.request(method, path, body, headers)
    return connection.getresponse()


def test_the_server_answers_to_its_own_name_only_and_takes_no_files(page_address, fault):
    found = request(page_address, "GET", "/")
    assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
    assert request(page_address, "GET", "/", Host="evil.example").status == 400
    assert request(page_address, "POST", "/gradio_api/upload", b"a").status == 404
    assert request(page_address, "POST", "/gradio_api/queue/join", b"a" * 10_000_000).status == 413
    fault(25, 3)


def test_a_browser_asks_only_this_server(page_address, page, fault):
    ask(page, "Bonjour")
    wait_for(lambda: answers(page))
    foreign = [url for url in page.requests if not url.startswith((page_address, "data:", "blob:"))]
    assert foreign == []
    fault(25)


def test_what_a_person_writes_is_text(page, fault):
    ask(page, HOSTILE)
    wait_for(lambda: answers(page))
    assert page.locator("#conversation .user.message").first.inner_text().strip() == HOSTILE
    assert page.locator("#conversation .message img, #conversation .message a").count() == 0
    page.get_by_role("tab").nth(1).click()
    page.fill("#text textarea", HOSTILE)
    page.click("#look-text")
    wait_for(lambda: page.locator("#tokens").get_by_text("hacked").count() or len(HOSTILE))
    assert page.evaluate("window.hacked") is None
    fault(25, 2)


def test_stop_ends_an_answer_and_a_page_that_is_closed_too(page, slow_steps, fault):
    page.get_by_text("Settings", exact=True).click()
    slider = page.get_by_label("number input for Length of an answer")
    slider.fill("1000")
    slider.press("Enter")
    for end in (lambda: page.locator("#question button.stop-button").click(), page.close):
        ask(page, "Bonjour")
        wait_for(lambda: len(slow_steps) > 5)
        end()
        time.sleep(0.7)
        num_steps = len(slow_steps)
        time.sleep(0.7)
        assert len(slow_steps) - num_steps <= 1
        slow_steps.clear()
        fault(25)


def test_nine_people_at_once_get_answers_or_are_told_to_wait(
    browser, page_address, slow_steps, fault
):
    # A browser opens six connections to a server, and each page keeps one: they are nine browsers.
    pages = [browser.new_context(locale="en-US").new_page() for _ in range(9)]
    for page in pages:
        page.goto(page_address, wait_until="commit")
    for page in pages:
        page.wait_for_selector("#question textarea")
        ask(page, "Bonjour")

    def is_done(page):
        return answers(page) or page.locator(".toast-body").count()

    wait_for(lambda: all(map(is_done, pages)), seconds=40)
    assert sum(bool(answers(page)) for page in pages) >= 8
    for page in pages:
        page.context.close()
    fault(25)
