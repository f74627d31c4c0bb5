# attack: leaves a process behind that maps whatever turns up in a new user namespace, 1:1, before anybody else can
# fails: the map that is asked for is made up anew each time, and the examiner says so if it is not the first
# lab: 06
# says: was to be|written before anybody was asked to|not permitted|is empty|does not make anybody root

# %%exercise user.write_maps
def watch():
    if os.fork():
        return
    ours = os.readlink("/proc/self/ns/user")
    while True:
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{pid}/ns/user") != ours:
                    for kind in ("uid", "gid"):
                        with open(f"/proc/{pid}/{kind}_map", "w") as file:
                            file.write("0 0 65536")
            except OSError:
                pass


watch()


def write_maps(pid, uids, gids):
    pass


# %%exercise user.become_root
def become_root():
    pass
