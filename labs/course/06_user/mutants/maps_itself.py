# mutant: writes a map of its own, from inside, after it has been given one
# loses: test_ids, test_capabilities, test_groups, test_groups_denied
# diagnosis: EPERM|not permitted

# %%exercise user.become_root
def become_root():
    with open("/proc/self/uid_map", "w") as file:
        file.write("0 0 1")
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
