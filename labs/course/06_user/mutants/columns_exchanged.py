# mutant: writes the id outside first, as in Docker's -p and -v
# loses: test_uid_map, test_gid_map, test_groups_stay, test_ordinary_user
# diagnosis: columns exchanged|_map of the process is empty|setgroups was denied, and then a map was refused|no merit then

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    if os.geteuid() != 0:
        with open(f"/proc/{pid}/setgroups", "w") as file:
            file.write("deny")
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{outside} {inside} {count}" for inside, outside, count in lines))
