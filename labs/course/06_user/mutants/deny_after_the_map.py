# mutant: gives up setgroups after the maps: too late, the gid map is refused
# loses: test_ordinary_user
# diagnosis: the kernel refused the gid map \(user.write_maps: Operation not permitted .* The deny has to come before the map

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
    if os.geteuid() != 0:
        with open(f"/proc/{pid}/setgroups", "w") as file:
            file.write("deny")
