# attack: is slow, but always a little faster than the deadline, with every cell and every call, to hold the class up
# fails: a submission has one account of time for all its checks, and its other checks are not run when it is used up
# status: graded|timeout

# %%exercise uts.set_names
import select

select.select([], [], [], 0.6)


def set_names(host, domain=None):
    select.select([], [], [], 0.6)
