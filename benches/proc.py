"""What a process uses, from /proc."""

import os
import pathlib

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    """Processor seconds of a process, its threads included and its children not."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_bytes(pid, field):
    """A field of the process's status: VmRSS is what it holds, VmHWM the most it held. None once it has ended."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field)), None)
