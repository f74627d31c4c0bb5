# attack: does nothing, and hopes for the checks that nothing bad happens
# fails: a check that nothing else changes first wants to see that what was asked for has been done
# status: graded

# %%exercise uts.set_names
def set_names(host, domain=None):
    return len(host)
