import pytest

from edgead.errors import InputError
from edgead.training.fabric import FabricConfig, create_fabric


@pytest.mark.parametrize(
    ("machine", "precision", "words"),
    [
        (FabricConfig("gpu"), None, "unknown accelerator 'gpu'"),
        (FabricConfig("cpu", devices=0), None, "0 devices on 1 machines"),
        (FabricConfig("cpu", nodes=0), None, "1 devices on 0 machines"),
        (
            FabricConfig("cpu"),
            "8-bit",
            "unknown training precision '8-bit': give --training-precision 32-true or",
        ),
        (FabricConfig("cpu"), "16-mixed", "a CPU does not train in 16-mixed"),
    ],
)
def test_a_machine_that_is_not_there(fabric_config, precision, words):
    with pytest.raises(InputError, match=words):
        create_fabric(fabric_config, precision)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="PyTorch finds no CUDA device here"):
        create_fabric(FabricConfig("cuda"), None)


def test_what_fabric_refuses_is_one_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError, match="cannot train on 3 x cuda in 32-true: "):
        create_fabric(FabricConfig("cuda", devices=3), "32-true")


def test_a_cpu_trains_in_single_precision_unless_told():
    assert create_fabric(FabricConfig("cpu"), None)[1] == "32-true"
    assert create_fabric(FabricConfig("cpu"), "bf16-mixed")[1] == "bf16-mixed"
