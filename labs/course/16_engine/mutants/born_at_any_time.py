# mutant: does not look when the process with this number was born
# loses: test_bystander
# diagnosis: kill has killed that one

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
    if fields[0] not in "ZX":
        found["status"] = "created" if os.path.exists(f"{directory}/exec.fifo") else "running"
        found["pid"] = known["pid"]
    return found
