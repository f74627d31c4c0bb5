# mutant: becomes root and keeps whatever groups it was in
# loses: test_groups
# diagnosis: still in the groups \d+ \d+

# %%exercise user.become_root
def become_root():
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
