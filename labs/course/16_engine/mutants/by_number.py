# mutant: signals a number, whoever has it by now
# loses: test_bystander
# diagnosis: kill has killed that one

# %%exercise lifecycle.kill
import json
import signal


def kill(directory, number=signal.SIGTERM):
    with open(f"{directory}/state.json") as file:
        os.kill(json.load(file)["pid"], number)
