import io
import sys

import pytest
from tqdm import tqdm

from dimgpt.display import progress
from dimgpt.display.progress import LogLines, progress_stream


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose last entry is what the clock shows."""
    times = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: times[-1])
    return times


def test_of_a_bar_a_log_gets_a_plain_line_every_30_seconds(clock):
    log = io.StringIO()
    lines = LogLines(log)
    bar = tqdm(total=100, file=lines, mininterval=0, miniters=1)
    for _ in range(100):  # 3 seconds each
        clock.append(clock[-1] + 3)
        bar.update()
    bar.close()
    text = log.getvalue()
    assert "\r" not in text
    assert 10 <= len(text.splitlines()) <= 13
    assert "100/100" in text.splitlines()[-1]


def test_a_line_that_ends_is_written_at_once(clock):
    log = io.StringIO()
    lines = LogLines(log)
    lines.write("one\ntwo")
    lines.write(" and more\n")
    for text in ("\rsteps: 1", "\rsteps: 2", "\n"):
        lines.write(text)
        lines.flush()
    assert log.getvalue() == "one\ntwo and more\nsteps: 2\n"


def test_a_program_that_starts_notebooks_is_none_itself(monkeypatch):
    from ipykernel.iostream import OutStream

    assert isinstance(progress_stream(), LogLines)
    in_notebook = OutStream.__new__(OutStream)
    monkeypatch.setattr(OutStream, "isatty", lambda _: False)
    monkeypatch.setattr(sys, "stderr", in_notebook)
    assert progress_stream() is in_notebook


def test_a_terminal_gets_the_bar_itself(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert progress_stream() is sys.stderr
