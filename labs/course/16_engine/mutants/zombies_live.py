# mutant: takes a zombie for a living process
# loses: test_state, test_deleted
# diagnosis: is a zombie|has not stopped

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
    if int(fields[19]) == known["born"]:
        found["status"] = "created" if os.path.exists(f"{directory}/exec.fifo") else "running"
        found["pid"] = known["pid"]
    return found
