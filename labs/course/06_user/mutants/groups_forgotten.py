# mutant: maps users, and forgets groups
# loses: test_gid_map, test_groups_stay, test_ordinary_user
# diagnosis: there is no gid map, and|nothing was written to /proc/PID/gid_map|no merit then

# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    with open(f"/proc/{pid}/uid_map", "w") as file:
        file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in uids))
