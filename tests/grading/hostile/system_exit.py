# attack: SystemExit, which pytest and IPython treat apart from other exceptions
# fails: it ends at most a process of the sandbox, where pytest is not
# status: graded
# says: SystemExit

# %%exercise uts.set_names
def set_names(host, domain=None):
    raise SystemExit(0)
