# mutant: removes the state, and leaves the directory
# loses: test_deleted
# diagnosis: its directory is still there

# %%exercise lifecycle.delete
def delete(directory):
    if state(directory)["status"] != "stopped":
        raise ValueError(f"{directory} has not stopped")
    os.unlink(f"{directory}/state.json")
