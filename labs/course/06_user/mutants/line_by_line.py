# mutant: writes line after line, each by a write of its own
# loses: test_uid_map, test_gid_map, test_groups_stay
# diagnosis: has the first line only, .* once, by one write\(2\)|_map of the process is empty|no merit then

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    if os.geteuid() != 0:
        with open(f"/proc/{pid}/setgroups", "w") as file:
            file.write("deny")
    for kind, lines in (("uid", uids), ("gid", gids)):
        for inside, outside, count in lines:
            with open(f"/proc/{pid}/{kind}_map", "w") as file:
                file.write(f"{inside} {outside} {count}\n")
