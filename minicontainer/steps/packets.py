"""Step 11, net_cls and net_prio: a mark on everything that a group sends, for packet filters and queues to act on.

Documentation/admin-guide/cgroup-v1/net_cls.rst, net_prio.rst. Only v1 has them. Where they are in no tree, v2 hosts
included, they can be mounted beside it (`group.create_group` does).
"""

from __future__ import annotations

import errno

from minicontainer.steps.group import Group, LimitUnavailable, control


def tag_packets(group: Group, class_id: int) -> None:
    """Mark the packets that the group's sockets send with a class, 0xAAAABBBB for ``AAAA:BBBB`` in tc(8).

    A filter sees it as ``meta cgroup`` (nft), ``-m cgroup --cgroup`` (iptables) or tc's cgroup classifier. A socket
    is marked when it is made, and again when its process enters the group. Raises LimitUnavailable.
    """
    _, directory = group["net_cls"]
    control(f"{directory}/net_cls.classid", class_id, "a class is a number from 0 to 0xFFFFFFFF, such as 0x00100001")


def prioritize_packets(group: Group, interface: str, priority: int) -> None:
    """Give what the group sends through a network device this priority (SO_PRIORITY in socket(7)), 0 the usual.

    The device is one of the *first* network namespace, in whichever one the caller or the sender are: the kernel looks
    nowhere else. So it is for groups that share the host's network. Raises LimitUnavailable: no such device.
    """
    _, directory = group["net_prio"]
    if len(interface.split()) != 1:
        raise LimitUnavailable(errno.EINVAL, f'"{interface}" cannot be a network device; see: ip link')
    control(f"{directory}/net_prio.ifpriomap", f"{interface} {priority}", "name a network device that ip link shows")
