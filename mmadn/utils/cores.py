import os


def available_cores() -> int:
    """How many processor cores this process may run on, which in a container are fewer than the host has."""
    if hasattr(os, 'sched_getaffinity'):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
