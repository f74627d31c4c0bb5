# mutant: takes a process with this number for process 1, dead or alive
# loses: test_state, test_bystander, test_deleted
# diagnosis: is a zombie|kill has killed that one|has not stopped

# %%exercise lifecycle.state
import json


def state(directory):
    with open(f"{directory}/state.json") as file:
        known = json.load(file)
    found = {"ociVersion": "1.2.0", "id": os.path.basename(directory), "status": "stopped", "bundle": known["bundle"]}
    try:
        with open(f"/proc/{known['pid']}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return found
    if fields:
        found["status"] = "created" if os.path.exists(f"{directory}/exec.fifo") else "running"
        found["pid"] = known["pid"]
    return found
