# mutant: forgets the network namespace
# loses: test_created
# diagnosis: shares these namespaces with the host: net

# %%exercise lifecycle.create
import json
import shutil
import signal


def create(directory, bundle, steps):
    with open(f"{bundle}/config.json") as file:
        config = json.load(file)
    os.mkdir(directory)
    heard, told = os.pipe()
    pid = 0

    def main():
        line = told
        try:
            root, process = f"{bundle}/{config['root']['path']}", config["process"]
            gate = os.open(f"{directory}/exec.fifo", os.O_PATH)
            steps.private_queues()
            steps.set_names(config["hostname"])
            steps.make_private()
            steps.mount_proc_and_dev(root)
            steps.pivot(root)
            os.chdir(process["cwd"])
            os.write(line, b"waiting")
            line = os.open(f"/proc/self/fd/{gate}", os.O_WRONLY | os.O_CLOEXEC)
            environment = dict(one.split("=", 1) for one in process["env"])
            os.execvpe(process["args"][0], process["args"], environment)
        except BaseException as error:
            os.write(line, str(error).encode())
        return 1

    try:
        os.mkfifo(f"{directory}/exec.fifo")
        pid = steps.spawn_init(main)
        os.close(told)
        with open(f"/proc/{pid}/stat") as stat:
            born = int(stat.read().rpartition(")")[2].split()[19])
        with open(f"{directory}/state.json", "w") as file:
            json.dump({"bundle": bundle, "pid": pid, "born": born}, file)
        if (said := os.read(heard, 4096)) != b"waiting":
            raise OSError(f"process 1 has not come to the gate: {said.decode()}")
    except BaseException:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(directory)
        raise
    finally:
        os.close(heard)
