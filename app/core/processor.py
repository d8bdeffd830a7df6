"""What this machine's processor can do, told without loading anything; only Linux tells."""

from __future__ import annotations

from pathlib import Path

_VNNI_FLAGS = {"avx512_vnni", "avx_vnni"}  # multiply 8-bit numbers and add up in 32 bits


def has_vnni() -> bool:
    """Say whether the processor has instructions for int8.

    Without them int8 is slow, and wrong where two products of full 8-bit numbers are added up in
    16 bits.
    """
    return bool(_VNNI_FLAGS & set(cpu_info("flags").split()))


def cpu_info(field: str) -> str:
    """Return a field of Linux's /proc/cpuinfo; empty on other systems."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
