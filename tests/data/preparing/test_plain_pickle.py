import builtins
import os
import pickle
import random
import time
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from dimgpt.data.preparing.plain_pickle import read_plain_pickle

PLAIN = {
    "name": "é",
    "size": {"train": 3_000_000_000, "val": 0},
    "multiplier": 0.3,
    "parts": [1, -1, 255, 256, 65_536, 1 << 40, -(1 << 40), True, None, "", []],
}


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return builtins.open, (str(self.path), "w")


def write(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_are_read(tmp_path, protocol):
    path = write(tmp_path / "a.pkl", PLAIN, protocol)
    assert read_plain_pickle(path) == PLAIN
    value = list(range(2500)), [PLAIN] * 0, {}, [[1, 2], []], ["é"]
    for each in value:
        assert read_plain_pickle(write(path, each, protocol)) == each


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("num_items", [0, 1, 999, 1000, 1001, 3500])
def test_a_list_of_any_length_is_read(tmp_path, num_items, protocol):
    items = [
        {"start": number * 7, "size": number % 5, "ids": [number]} for number in range(num_items)
    ]
    assert read_plain_pickle(write(tmp_path / "a.pkl", items, protocol)) == items


HOSTILE = {
    "reduce": lambda path: pickle.dumps([Attack(path)]),
    "reduce in protocol 0": lambda path: pickle.dumps(Attack(path), protocol=0),
    "global": lambda path: b"cos\nsystem\n(S'touch %s'\ntR." % os.fsencode(path),
    "stack global": lambda path: b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "instance": lambda path: b"(S'x'\nios\nsystem\n.",
    "object": lambda path: b"(cos\nsystem\nS'x'\no.",
    "build": lambda path: b"}}b.",
    "persistent": lambda path: b"Pa\n.",
    "extension": lambda path: b"\x82\x01.",
    "ordered dict": lambda path: pickle.dumps(OrderedDict(a=1)),
    "numpy": lambda path: pickle.dumps(np.arange(3)),
    "tuple": lambda path: pickle.dumps((1, 2)),
    "set": lambda path: pickle.dumps({1}),
    "bytes": lambda path: pickle.dumps(b"a"),
    "huge number": lambda path: pickle.dumps(1 << 100_000),
    "number of 65 bits": lambda path: pickle.dumps(1 << 64),
    "shared list": lambda path: pickle.dumps([[1]] * 3),
    "bomb": lambda path: b"]\x94" + b"(" + b"h\x00" * 9 + b"e.",
    "deep": lambda path: b"(" * 100_000 + b"e" * 100_000 + b".",
    "deep lists": lambda path: b"]" * 1_000_000 + b"a" * 999_999 + b".",
    "number as key": lambda path: pickle.dumps({1: 2}),
    "long string": lambda path: b"X\xff\xff\xff\x7fabc.",
    "bad text": lambda path: b"\x8c\x02\xff\xff.",
    "empty file": lambda path: b"",
    "only a stop": lambda path: b".",
    "pop of nothing": lambda path: b"a.",
    "mark of nothing": lambda path: b"e.",
    "open mark": lambda path: b"](K\x01.",
    "two values": lambda path: b"]].",
    "after its end": lambda path: pickle.dumps([1]) + b"]",
    "text": lambda path: b"<html>not found</html>",
    "list into a number": lambda path: b"K\x01(K\x02e.",
    "odd items": lambda path: b"}(\x8c\x01au.",
    "unknown memo": lambda path: b"]h\x05a.",
    "forged memo number": lambda path: b"\x80\x04]r\xff\xff\xff\x7f.",
    "memo number that text had": lambda path: b"]\x8c\x01aq\x00](q\x00h\x00e.",
    "forged length of a frame": lambda path: b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].",
    "forged length of a long text": lambda path: b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7fabc.",
    "forged length of bytes": lambda path: b"\x80\x05\x96" + b"\xff" * 7 + b"\x7fabc.",
    "forged length of a number": lambda path: b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "copy of the last value": lambda path: b"](](K\x01e2e.",
    "list into text": lambda path: b"\x8c\x01a(K\x01e.",
    "list as key": lambda path: b"}]K\x01s.",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_not_plain_is_refused_in_one_line_and_nothing_is_run(tmp_path, name):
    """Nor does it take memory: a forged length or number may ask for gigabytes."""
    witness = tmp_path / "witness"
    path = tmp_path / "a.pkl"
    path.write_bytes(HOSTILE[name](witness))
    started = time.monotonic()
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.pkl") as caught:
        read_plain_pickle(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 25
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert not witness.exists()
    assert time.monotonic() - started < 10


def test_the_byte_of_a_forbidden_instruction_is_named(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04]cos\nsystem\n.")
    with pytest.raises(ValueError, match=r"byte 3, instruction b'c'.*none was run"):
        read_plain_pickle(path)


def test_every_truncation_is_refused(tmp_path):
    content = pickle.dumps(PLAIN, protocol=4)
    path = tmp_path / "a.pkl"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"a\.pkl"):
            read_plain_pickle(path)


def test_random_damage_gives_plain_values_or_a_refusal(tmp_path):
    content = bytearray(pickle.dumps([PLAIN | {"parts": [1, 2]}] + [{"a": "b"}], protocol=4))
    path = tmp_path / "a.pkl"
    generator = random.Random(0)
    num_refused = 0
    for _ in range(400):
        damaged = bytearray(content)
        for _ in range(generator.randrange(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            read_plain_pickle(path)
        except ValueError:
            num_refused += 1
    assert num_refused > 130


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.pkl is missing"):
        read_plain_pickle(tmp_path / "a.pkl")
