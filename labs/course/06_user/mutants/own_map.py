# mutant: writes the map of itself, whose namespace has one
# loses: test_uid_map, test_gid_map, test_groups_stay, test_ordinary_user
# diagnosis: /proc/self is the one who writes|no merit then|setgroups was denied

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    if os.geteuid() != 0:
        with open(f"/proc/{pid}/setgroups", "w") as file:
            file.write("deny")
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/self/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
