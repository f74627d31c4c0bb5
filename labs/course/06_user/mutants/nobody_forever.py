# mutant: trusts the map: it says that root is somebody, so is it not root now?
# loses: test_ids, test_capabilities, test_groups, test_groups_denied
# diagnosis: does not make anybody root|leaves them to uid 0 only|not become root

# %%exercise user.become_root
def become_root():
    with open("/proc/self/setgroups") as file:
        if file.read().strip() == "allow":
            os.setgroups([])
    os.setresgid(0, 0, 0)
