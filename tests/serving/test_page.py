"""The page, in a real browser: what it shows, and what it refuses."""

import time

import pytest
from browsing import answers, ask, wait_for

pytestmark = pytest.mark.slow


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


def test_an_empty_question_and_an_unknown_model_are_refused_in_words(page):
    ask(page, "   ")
    wait_for(lambda: page.locator(".toast-body").count())
    assert "There is no text yet" in page.locator(".toast-body").inner_text()
