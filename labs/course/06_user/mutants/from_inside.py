# mutant: writes from the wrong side: enters the namespace first, and has no rights over the ids outside
# loses: test_uid_map, test_gid_map, test_groups_stay
# diagnosis: that is the wrong side|no merit then

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    from minicontainer.linux import CLONE_NEWUSER, setns

    with open(f"/proc/{pid}/ns/user") as namespace:
        setns(namespace.fileno(), CLONE_NEWUSER)
    with open(f"/proc/{pid}/setgroups", "w") as file:
        file.write("allow" if len(uids) > 1 else "deny")
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
