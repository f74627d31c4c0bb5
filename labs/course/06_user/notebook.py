# %%
# %%exercise user.write_maps
def write_maps(pid, uids, gids):
    """Say who the ids inside the user namespace of process `pid` are outside."""
    # SOLUTION BEGIN
    if os.geteuid() != 0:
        with open(f"/proc/{pid}/setgroups", "w") as file:
            file.write("deny")
    for kind, lines in (("uid", uids), ("gid", gids)):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write("\n".join(f"{inside} {outside} {count}" for inside, outside, count in lines))
    # SOLUTION END


# %%
# %%exercise user.become_root
def become_root():
    """Take uid 0 and gid 0 of the user namespace that the caller is in."""
    # SOLUTION BEGIN
    with open("/proc/self/setgroups") as file:
        if file.read().strip() == "allow":
            os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    # SOLUTION END
