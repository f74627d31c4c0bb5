# mutant: gives up setgroups for root too, because the example did
# loses: test_groups_stay
# diagnosis: says deny, though whoever wrote the maps had CAP_SETGID

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    with open(f"/proc/{pid}/setgroups", "w") as file:
        file.write("deny")
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
