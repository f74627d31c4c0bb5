# mutant: takes groups for users
# loses: test_gid_map, test_groups_stay, test_ordinary_user
# diagnosis: gid_map is the other map|setgroups was denied|gid_map of the process is empty|no merit then

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    if os.geteuid() != 0:
        with open(f"/proc/{pid}/setgroups", "w") as file:
            file.write("deny")
    for kind, lines in (("uid", uids), ("gid", uids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
