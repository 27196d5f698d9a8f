"""What the benchmark ran on: a figure without it says nothing."""

import os
import pathlib
import platform
import re


def load():
    """Average number of programs that ran or wanted to: 1, 5 and 15 minutes."""
    return [float(part) for part in pathlib.Path("/proc/loadavg").read_text().split()[:3]]


def describe():
    """Cores, their model, the kernel, and the load before the benchmark adds its own."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return {
        "cores": os.cpu_count(),
        "model": model.group(1) if model else "unknown",
        "kernel": platform.release(),
        "load": load(),
    }
