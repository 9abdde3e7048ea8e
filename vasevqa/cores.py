"""Count the processor cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def available_cores(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """Return the number of cores that this process may use, at least 1.

    A container can often run on all cores of its machine, but only for a share of the time. This quota is set by
    `docker run --cpus` or by a CPU limit in Kubernetes. If there were more threads than the quota allows, they would
    only wait for each other. `groups` is the folder where the control groups are mounted, and `own` is the file that
    names this process's groups.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affinity, *(math.ceil(quota) for quota in _quotas(groups, own))]))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yield the quota in cores of each control group that this process belongs to."""
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2) if line.count(":") >= 2 else ("", "", "/")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = groups / controllers if controllers and (groups / controllers).is_dir() else groups
        # Inside a container, the name may be the one outside. The container's own group is then at the top.
        folder = top.joinpath(*Path(name).parts[1:])
        for level in [top, *(inner for inner in [folder, *folder.parents] if inner != top and top in inner.parents)]:
            quota = _quota(level)
            if quota is not None:
                yield quota


def _quota(folder: Path) -> float | None:
    """Return the quota of one control group in cores; None if the group has none.

    The group may be of version 1 or 2 of Linux's control groups.
    """
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota != "max" and int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
