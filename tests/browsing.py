"""The page behind a server, and a browser that looks at it, for the tests of `dimgpt.serving`.

`conftest.py` of `serving/` and of `faults/` import the fixtures.
"""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from served import SAMPLING, serving

from dimgpt.weights.store import load_model, load_tokenizer, save_model

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def page_address(model, tokenizer, tmp_path_factory):
    pytest.importorskip("gradio", reason="gradio is not installed")
    from dimgpt.presets import get_preset
    from dimgpt.serving.model_shelf import ModelShelf
    from dimgpt.serving.page import create_page

    root = tmp_path_factory.mktemp("models")
    for name in ("petit", "petit-chat"):
        save_model(model, root / name, tokenizer)
    shelf = ModelShelf(root, lambda path: (load_model(path), load_tokenizer(path)))
    page = create_page(
        shelf,
        get_preset("demo"),
        replace(SAMPLING, seed=1),
        passages=lambda *_: [],
        first="petit-chat",
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
def page(browser, page_address):
    page = browser.new_context(locale="en-US").new_page()
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(page_address)
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
