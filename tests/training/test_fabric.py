import pytest

from edgead.errors import InputError
from edgead.training.fabric import FabricConfig, create_fabric


@pytest.mark.parametrize(
    ("config", "precision", "value", "option"),
    [
        (FabricConfig("gpu"), None, "'gpu'", "--accelerator auto or cpu or cuda"),
        (FabricConfig("cpu", devices=0), None, "0 devices", "--devices"),
        (FabricConfig("cpu", nodes=0), None, "0 machines", "--nodes"),
        (FabricConfig("cpu"), "8-bit", "'8-bit'", "--training-precision 32-true or 16-mixed"),
        (FabricConfig("cpu"), "16-mixed", "16-mixed", "--training-precision 32-true or bf16-mixed"),
    ],
)
def test_devices_that_do_not_exist_are_refused(config, precision, value, option):
    with pytest.raises(InputError) as caught:
        create_fabric(config, precision)
    assert value in caught.value.what
    assert option in caught.value.hint


def test_a_missing_gpu_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError) as caught:
        create_fabric(FabricConfig("cuda"), None)
    assert "--accelerator cuda" in caught.value.what
    assert "edgead doctor" in caught.value.hint


def test_an_error_of_fabric_is_one_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(InputError) as caught:
        create_fabric(FabricConfig("cuda", devices=3), "32-true")
    assert "3 x cuda" in caught.value.what
    assert "32-true" in caught.value.what
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_a_cpu_trains_in_single_precision_by_default():
    assert create_fabric(FabricConfig("cpu"), None)[1] == "32-true"
    assert create_fabric(FabricConfig("cpu"), "bf16-mixed")[1] == "bf16-mixed"
