# %%
# %%exercise ipc.private_queues
def private_queues() -> None:
    """Give the calling process an IPC namespace of its own."""
    # SOLUTION BEGIN
    unshare(CLONE_NEWIPC)
    # SOLUTION END
