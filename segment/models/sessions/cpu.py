"""What Linux says of this machine's CPU."""

from pathlib import Path


def cpu_facts() -> dict[str, str]:
    """Return the fields of the first CPU in /proc/cpuinfo by name; on other systems none."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.partition(":")[::2] for line in lines.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, value in fields.items()}


def sums_saturate() -> bool:
    """Whether runtimes add products of uint8 and int8 in 16 bits on this CPU, an x86 one without VNNI: not exactly."""
    flags = cpu_flags()
    return bool(flags) and not flags & {"avx512_vnni", "avx_vnni"}


def cpu_flags() -> frozenset[str]:
    """Return the names of the instruction sets of an x86 CPU, such as `avx512_vnni`; elsewhere none."""
    return frozenset(cpu_facts().get("flags", "").split())
