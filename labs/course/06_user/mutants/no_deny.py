# mutant: has never heard of setgroups: works for root, who wrote and tried it
# loses: test_ordinary_user
# diagnosis: setgroups says allow: an ordinary user may write a gid map only after

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
