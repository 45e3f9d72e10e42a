"""Clock rate and power of the processor, where Linux tells them."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
POWER = Path("/sys/class/powercap")
"""Counters of energy of Intel and AMD processors (RAPL). Most systems let only root read them."""


def clock_mhz() -> float | None:
    """Return the mean clock rate of the cores in MHz; None if the machine does not tell."""
    rates_khz = []
    for file in CPUS.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"):
        with suppress(OSError, ValueError):
            rates_khz.append(int(file.read_text()))
    return sum(rates_khz) / len(rates_khz) / 1e3 if rates_khz else None


class PowerMeter:
    """Mean power of the processor packages since it was made."""

    def __init__(self) -> None:
        self._start_s, self._start_uj = time.monotonic(), _energies_uj()

    def power_w(self) -> float | None:
        """Return the mean power in watts; None if the machine does not tell, or a counter began anew."""
        taken_s, end_uj = time.monotonic() - self._start_s, _energies_uj()
        used_uj = [end_uj[name] - start for name, start in self._start_uj.items() if name in end_uj]
        if not used_uj or min(used_uj) < 0 or taken_s <= 0:
            return None
        return sum(used_uj) / 1e6 / taken_s


def _energies_uj() -> dict[str, int]:
    """Energy counter of each processor package in microjoules."""
    found = {}
    # A name with one colon is a package; a part of it has two, and counts in the package.
    for folder in POWER.glob("*-rapl:[0-9]*"):
        if folder.name.count(":") == 1:
            with suppress(OSError, ValueError):
                found[folder.name] = int((folder / "energy_uj").read_text())
    return found
