# mutant: kills what has not stopped
# loses: test_deleted
# diagnosis: its process 1 is dead

# %%exercise lifecycle.delete
import shutil


def delete(directory):
    if state(directory)["status"] != "stopped":
        kill(directory, 9)
    shutil.rmtree(directory)
