# mutant: takes every device for a character device
# loses: test_type_and_numbers
# diagnosis: the kind, b or c, is a part of the rule

# %%exercise devices.allow_devices
from minicontainer.linux.bpf import (
    BPF_CGROUP_DEVICE,
    BPF_PROG_TYPE_CGROUP_DEVICE,
    bitwise_and,
    copy,
    jump_unless_equal,
    jump_unless_same,
    leave,
    load32,
    move,
    prog_attach,
    prog_detach,
    prog_load,
    prog_query,
    shift_right,
)
from minicontainer.linux.cgroups import write


def attach(directory, program):
    group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    before = prog_query(group, BPF_CGROUP_DEVICE)
    prog_attach(group, prog_load(BPF_PROG_TYPE_CGROUP_DEVICE, program), BPF_CGROUP_DEVICE)
    for old in before:
        prog_detach(group, old, BPF_CGROUP_DEVICE)


def allow_devices(group, rules):
    version, directory = group["devices"]
    if version == 1:
        write(f"{directory}/devices.deny", "a")
        for _, major, minor, access in rules:
            numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
            write(f"{directory}/devices.allow", f"c {numbers} {access}")
        return
    program = [load32(2, 1, 0), bitwise_and(2, 0xFFFF), load32(3, 1, 0), shift_right(3, 16)]
    program += [load32(4, 1, 4), load32(5, 1, 8)]
    for _, major, minor, access in rules:
        rule = [move(0, 1), leave()]
        if minor is not None:
            rule.insert(0, jump_unless_equal(5, minor, len(rule)))
        if major is not None:
            rule.insert(0, jump_unless_equal(4, major, len(rule)))
        mask = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
        rule[:0] = [copy(6, 3), bitwise_and(6, mask), jump_unless_same(6, 3, len(rule))]
        program += rule
    attach(directory, [*program, move(0, 0), leave()])
