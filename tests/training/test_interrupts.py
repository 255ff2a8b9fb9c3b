import os
import signal
import threading

import pytest

from dimgpt.training.interrupts import catch_interrupts

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_remembered_and_raises_nothing(number):
    before = signal.getsignal(number)
    with catch_interrupts() as interrupt:
        assert interrupt.signal is None
        signal.raise_signal(number)
        assert interrupt.signal == number
    assert signal.getsignal(number) is before


@pytest.fixture
def default_handler():
    """Raise on Ctrl-C, even where the shell that began the tests ignores it (`make test &`)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_handler")
def test_a_second_interrupt_does_what_it_did_before():
    with pytest.raises(KeyboardInterrupt), catch_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_old_handlers_are_back_after_an_error():
    before = [signal.getsignal(number) for number in SIGNALS]
    with pytest.raises(ZeroDivisionError), catch_interrupts():
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_handler_that_python_did_not_set_becomes_the_default(monkeypatch):
    before = {number: signal.getsignal(number) for number in SIGNALS}
    real = signal.signal

    def foreign(number, handler):
        real(number, handler)  # raises for a handler of None, as the real one does

    monkeypatch.setattr(signal, "signal", foreign)
    with catch_interrupts():
        pass
    after = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in before.items():
        real(number, handler)
    assert after == [signal.SIG_DFL, signal.SIG_DFL]


def test_outside_the_main_thread_nothing_is_caught_and_nothing_breaks():
    seen = []

    def work():
        with catch_interrupts() as interrupt:
            seen.append((interrupt.signal, os.getpid()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, os.getpid())]
