"""Clock rate and power from folders like those of Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgead.benchmark import machine


def test_rates_are_averaged_and_only_packages_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "CPUS", tmp_path / "cpu")
    monkeypatch.setattr(machine, "POWER", tmp_path / "power")
    assert machine.clock_mhz() is None
    assert machine.PowerMeter().power_w() is None
    for number, rate_khz in enumerate((2_000_000, 3_000_000)):
        folder = tmp_path / "cpu" / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(f"{rate_khz}\n")
    assert machine.clock_mhz() == 2500.0
    package, core = (tmp_path / "power" / name for name in ("intel-rapl:0", "intel-rapl:0:0"))
    for folder in (package, core):
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text("1000000\n")
    times_s = iter((100.0, 104.0, 200.0, 201.0))
    monkeypatch.setattr(machine.time, "monotonic", lambda: next(times_s))
    meter = machine.PowerMeter()
    (package / "energy_uj").write_text("61000000\n")
    (core / "energy_uj").write_text("31000000\n")
    # 60 J in 4 s.
    assert meter.power_w() == 15.0
    meter = machine.PowerMeter()
    (package / "energy_uj").write_text("5\n")
    # The counter began anew.
    assert meter.power_w() is None
