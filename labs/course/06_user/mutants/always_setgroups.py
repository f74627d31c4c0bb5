# mutant: drops its groups without asking whether it may: EPERM in every rootless container
# loses: test_groups_denied
# diagnosis: says deny, as it does in every container of an ordinary user

# %%exercise user.become_root
def become_root():
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
