"""The page, in a real browser: what it shows, what it refuses, and what it never does."""

import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from served import serving

pytest.importorskip("gradio", reason="gradio is not installed")

from dimgpt.config import SamplingConfig  # noqa: E402
from dimgpt.generation import engine as engines  # noqa: E402
from dimgpt.presets import get_preset  # noqa: E402
from dimgpt.serving.model_shelf import ModelShelf  # noqa: E402
from dimgpt.serving.page import create_page  # noqa: E402
from dimgpt.weights.store import load_model, load_tokenizer, save_model  # noqa: E402

pytestmark = pytest.mark.slow
CHROMIUM = Path("/usr/bin/chromium")
SAMPLING = SamplingConfig(temperature=1.0, max_new_tokens=12, seed=1)
HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> [a](http://b.c) $x$"
)


@pytest.fixture(scope="module")
def address(model, tokenizer, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name in ("petit", "petit-chat"):
        save_model(model, root / name, tokenizer)
    shelf = ModelShelf(root, lambda path: (load_model(path), load_tokenizer(path)))
    page = create_page(
        shelf, get_preset("demo"), SAMPLING, passages=lambda *_: [], first="petit-chat"
    )
    with serving(page) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not there")
    with playwright.sync_playwright() as library:
        browser = library.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_context(locale="en-US").new_page()
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    page.wait_for_selector("#question textarea")
    yield page
    page.close()


def ask(page, question):
    page.fill("#question textarea", question)
    page.keyboard.press("Enter")


def answers(page, chatbot="conversation"):
    return page.locator(f"#{chatbot} .bot.message").all_inner_texts()


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def slow_steps(monkeypatch):
    """Let each step of the engine take a while, and count them."""
    steps, original = [], engines._last_logits

    def slow(*arguments):
        steps.append(1)
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(engines, "_last_logits", slow)
    return steps


def request(address, method, path, body=b"", **headers):
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.request(method, path, body, headers)
    return connection.getresponse()


def test_the_server_answers_to_its_own_name_only_and_takes_no_files(address):
    found = request(address, "GET", "/")
    assert "frame-ancestors 'none'" in found.headers["content-security-policy"]
    assert request(address, "GET", "/", Host="evil.example").status == 400
    assert request(address, "POST", "/gradio_api/upload", b"a").status == 404
    assert request(address, "POST", "/gradio_api/queue/join", b"a" * 10_000_000).status == 413


def test_a_browser_asks_only_this_server(address, page):
    ask(page, "Bonjour")
    wait_for(lambda: answers(page))
    foreign = [url for url in page.requests if not url.startswith((address, "data:", "blob:"))]
    assert foreign == []


def test_what_a_person_writes_is_text(page):
    ask(page, HOSTILE)
    wait_for(lambda: answers(page))
    assert page.locator("#conversation .user.message").first.inner_text().strip() == HOSTILE
    assert page.locator("#conversation .message img, #conversation .message a").count() == 0
    page.get_by_role("tab").nth(1).click()
    page.fill("#text textarea", HOSTILE)
    page.click("#look-text")
    wait_for(lambda: page.locator("#tokens").get_by_text("hacked").count() or len(HOSTILE))
    assert page.evaluate("window.hacked") is None


def test_two_models_answer_side_by_side_and_an_answer_is_written_again(page):
    page.get_by_label("Second model").first.click()
    page.get_by_role("option", name="petit", exact=True).click()
    page.wait_for_selector("#second_conversation")
    ask(page, "Bonjour")
    wait_for(lambda: answers(page) and answers(page, "second_conversation"))
    time.sleep(0.5)
    assert answers(page) == answers(page, "second_conversation")  # the same weights and seed
    before = answers(page)
    page.locator("#conversation").get_by_label("Retry").click()
    time.sleep(1)
    wait_for(lambda: answers(page) == before)


def test_stop_ends_an_answer_and_a_page_that_is_closed_too(browser, address, page, slow_steps):
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


def test_a_text_is_looked_into(page):
    page.get_by_role("tab").nth(1).click()
    page.fill("#text textarea", "la lune et le soleil")
    page.click("#look-text")
    wait_for(lambda: page.locator("#attention img").count())
    wait_for(lambda: "la" in page.locator("#tokens").inner_text())
    assert "training texts of this model are not in" in page.locator("#passages").inner_text()
    page.locator("#tokens .textspan, #tokens span.token").nth(2).click()
    wait_for(lambda: "→" in page.locator("#alternatives").inner_text())
    assert len(page.locator("#layers").inner_text().splitlines()) > 3


def test_nine_people_at_once_get_answers_or_are_told_to_wait(browser, address, slow_steps):
    # A browser opens six connections to a server, and each page keeps one: they are nine browsers.
    pages = [browser.new_context(locale="en-US").new_page() for _ in range(9)]
    for page in pages:
        page.goto(address, wait_until="commit")
    for page in pages:
        page.wait_for_selector("#question textarea")
        ask(page, "Bonjour")

    def is_done(page):
        return answers(page) or page.locator(".toast-body").count()

    wait_for(lambda: all(map(is_done, pages)), seconds=40)
    assert sum(bool(answers(page)) for page in pages) >= 8
    for page in pages:
        page.context.close()


def test_an_empty_question_and_an_unknown_model_are_refused_in_words(page):
    ask(page, "   ")
    wait_for(lambda: page.locator(".toast-body").count())
    assert "There is no text yet" in page.locator(".toast-body").inner_text()
