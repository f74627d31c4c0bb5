# attack: leaves with the cell already, by an exception that is not even an Exception
# fails: whatever a cell raises is the answer to whoever calls its function
# status: graded
# says: the cell failed: KeyboardInterrupt

# %%exercise uts.set_names
def set_names(host, domain=None):
    return host


raise KeyboardInterrupt
