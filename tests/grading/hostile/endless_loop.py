# attack: an endless loop in the function, so that the grader waits for ever
# fails: every request has a deadline; after it the sandbox is killed from outside, and the other checks are spared
#   the wait
# status: timeout
# says: endless loop

# %%exercise uts.set_names
def set_names(host, domain=None):
    while True:
        pass
