"""Counts the faults that were injected, and shows them as the table that `make faults` prints."""

from collections import Counter

import pytest
from browsing import browser, page, page_address
from fault_rows import ROWS
from served import address, model, slow_steps, tokenizer, written
from toy_training import config, make_trainer, one_thread

__all__ = ["address", "browser", "model", "page", "page_address", "slow_steps", "tokenizer"]
__all__ += ["config", "make_trainer", "one_thread", "written"]


@pytest.fixture
def fault(record_property):
    """Return a function that counts injections of a row whose outcome was the expected one."""

    def count(row, number=1):
        record_property("fault", [row, number])

    return count


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """Show the table below everything that pytest shows; a process of `pytest -n` shows nothing."""
    result = yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        show_table(reporter)
    return result


def show_table(reporter):
    reached = Counter()
    for report in reporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "fault":
                reached[value[0]] += value[1]
    if not reached:
        return
    reporter.section("faults")
    for row, (name, number) in ROWS.items():
        sign = "ok" if reached[row] >= number else "MISSING"
        reporter.write_line(f"{row:3} {name:72} {reached[row]:4} of {number:4} {sign}")
    num_whole = sum(reached[row] >= number for row, (_, number) in ROWS.items())
    reporter.write_line(f"faults: {num_whole} of {len(ROWS)} rows")
