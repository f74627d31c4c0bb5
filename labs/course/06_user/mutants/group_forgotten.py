# mutant: takes uid 0, and stays in its old group
# loses: test_ids, test_groups_denied
# diagnosis: its gid has not changed|has not become root where setgroups is denied

# %%exercise user.become_root
def become_root():
    with open("/proc/self/setgroups") as file:
        if file.read().strip() == "allow":
            os.setgroups([])
    os.setresuid(0, 0, 0)
