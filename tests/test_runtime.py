import pytest
import torch

from dimgpt import runtime as runtime_module
from dimgpt.runtime import (
    Runtime,
    available_memory,
    choose_runtime,
    describe_machine,
    join_processes,
    peak_flops,
)
from dimgpt.workers import num_cores

CPU = Runtime(device=torch.device("cpu"), precision="fp32")


def test_auto_takes_cuda_before_apple_before_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_runtime("fp32").device.type == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_runtime("fp32").device.type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_runtime("fp32").device.type == "cuda"


@pytest.mark.parametrize("name", ["banana", "", "meta", "cpu:x", "cuda:-1"])
def test_a_device_of_no_known_kind_is_refused(name):
    with pytest.raises(ValueError, match="choose auto, cuda, mps or cpu"):
        choose_runtime("fp32", name)


@pytest.mark.parametrize("name", ["cuda", "cuda:3", "mps", "cpu:1"])
def test_a_device_that_is_not_there_is_refused(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="choose auto or cpu"):
        choose_runtime("fp32", name)


@pytest.mark.parametrize(
    ("computes_bf16", "expected"), [(True, "bf16"), (False, "fp16")], ids=["new", "old"]
)
def test_an_older_card_trains_in_half_precision_with_loss_scaling(
    computes_bf16, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: computes_bf16)
    runtime = choose_runtime("auto", "cuda")
    assert runtime.precision == expected
    assert runtime.needs_loss_scaling == (expected == "fp16")


@pytest.mark.parametrize(("is_fast", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_cpu_computes_in_bf16_only_where_it_has_the_instructions(is_fast, expected, monkeypatch):
    monkeypatch.setattr(runtime_module, "_cpu_multiplies_bf16", lambda: is_fast)
    assert choose_runtime("auto", "cpu").precision == expected


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match="precision is 'fp16'"):
        choose_runtime("fp16", "cpu")


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_matrix_products_run_in_the_precision(precision, expected):
    matrix = torch.ones(2, 2)
    with choose_runtime(precision, "cpu").autocast():
        assert (matrix @ matrix).dtype == expected


def test_tf32_is_for_cards_that_have_it(monkeypatch):
    with pytest.raises(ValueError, match="precision is 'tf32': CPU .* choose fp32 or auto"):
        choose_runtime("tf32", "cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    for capability, is_refused in (((7, 5), True), ((8, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        if is_refused:
            with pytest.raises(ValueError, match="tf32"):
                choose_runtime("tf32", "cuda")
        else:
            assert choose_runtime("tf32", "cuda").autocast() is not None


@pytest.mark.parametrize(
    ("precision", "inside"), [("tf32", "high"), ("fp32", "highest"), ("bf16", "medium")]
)
def test_the_products_of_float32_are_rounded_inside_the_block_only(precision, inside):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        runtime = Runtime(device=torch.device("cuda"), precision=precision)
        with runtime.matmul_precision():
            assert torch.get_float32_matmul_precision() == inside
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.slow
def test_the_data_sheet_counts_before_a_measurement(monkeypatch):
    card = Runtime(device=torch.device("cuda"), precision="bf16")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    assert peak_flops(card) == 312e12
    assert peak_flops(Runtime(device=torch.device("cuda"), precision="tf32")) == 156e12
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA L40S")
    assert peak_flops(card) == 362e12
    assert 1e8 < peak_flops(CPU) < 1e15


def test_memory_is_that_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 10))
    assert available_memory(Runtime(device=torch.device("cuda"), precision="bf16")) == 5
    assert available_memory(CPU) > 2**20


def test_the_machine_is_described_in_words():
    rows = describe_machine(CPU)
    assert rows["precision"] == "fp32"
    assert rows["cores"] == str(num_cores())
    assert all(rows.values())


def test_a_process_that_nobody_started_with_others_is_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_processes("fp32", "cpu") as runtime:
        assert (runtime.rank, runtime.num_processes, runtime.is_first) == (0, 1, True)
        assert not torch.distributed.is_initialized()


def test_several_processes_are_refused_one_device(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="each of 2 processes"), join_processes("fp32", "cpu:0"):
        pass
