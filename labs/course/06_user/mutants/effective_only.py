# mutant: changes the effective ids only, and can go back
# loses: test_ids
# diagnosis: not all are \d+: a process that has changed one

# %%exercise user.become_root
def become_root():
    with open("/proc/self/setgroups") as file:
        if file.read().strip() == "allow":
            os.setgroups([])
    os.setegid(0)
    os.seteuid(0)
