"""Step 11, block devices: how fast a group may read and write a disk. blkio on v1, io on v2.

Documentation/admin-guide/cgroup-v1/blkio-controller.rst; cgroup-v2.rst, "IO". On v1 only what reaches the device in the
process's own name is counted: reads, and writes with O_DIRECT. What lies in the page cache is written later by the
kernel, in nobody's name; v2 remembers whose pages they were.
"""

from __future__ import annotations

import errno
import os

from minicontainer.steps.group import Group, LimitUnavailable, control

RATES = {
    "read_bps": ("blkio.throttle.read_bps_device", "rbps"),
    "write_bps": ("blkio.throttle.write_bps_device", "wbps"),
    "read_iops": ("blkio.throttle.read_iops_device", "riops"),
    "write_iops": ("blkio.throttle.write_iops_device", "wiops"),
}
"""Our name → the file of v1, the key in v2's io.max."""


def limit_io(group: Group, device: str, **rates: int) -> None:
    """Hold the group to these rates on a device, ``8:0`` (major:minor of a whole disk).

    `rates`: read_bps and write_bps, bytes a second; read_iops and write_iops, operations a second. 0 lifts one.
    Raises LimitUnavailable: ENODEV (no such disk, or a partition of one), EINVAL.
    """
    version, directory = group["blkio"]
    advice = "give a whole disk (not a partition), as lsblk shows them, and a positive rate"
    for name, rate in rates.items():
        file, key = RATES[name]
        if version == 2:
            control(f"{directory}/io.max", f"{device} {key}={rate or 'max'}", advice)
        else:
            control(f"{directory}/{file}", f"{device} {rate}", advice)


def weigh_io(group: Group, weight: int) -> None:
    """Let the group have its disks in proportion to `weight`, 10 to 1000, where a scheduler knows of weights.

    That is BFQ (``blkio.bfq.weight``, ``io.bfq.weight``) or, on v2, iocost (``io.weight``, 1 to 10000). Raises
    LimitUnavailable: this kernel has neither.
    """
    version, directory = group["blkio"]
    if not 10 <= weight <= 1000:
        raise LimitUnavailable(errno.EINVAL, f"it cannot have an I/O weight of {weight}: give it 10 to 1000")
    candidates = {
        1: (("blkio.bfq.weight", weight), ("blkio.weight", weight)),
        2: (("io.bfq.weight", weight), ("io.weight", 1 + (weight - 10) * 9999 // 990)),
    }[version]
    there = [(file, value) for file, value in candidates if os.path.exists(f"{directory}/{file}")]
    if not there:
        raise LimitUnavailable(
            errno.ENODEV, f"no {' or '.join(file for file, _ in candidates)} in {directory}: no I/O scheduler of this "
            f"kernel weighs groups; there are --device-read-bps and its like"
        )  # fmt: skip
    for file, value in there:
        control(f"{directory}/{file}", value)
