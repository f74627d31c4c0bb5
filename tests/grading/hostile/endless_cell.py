# attack: an endless loop at the top level of the cell, before there is any function
# fails: cells are run by the performer, in the sandbox, within the same deadline
# status: timeout
# says: endless loop

# %%exercise uts.set_names
while True:
    pass


def set_names(host, domain=None):
    return host
