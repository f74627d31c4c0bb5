# attack: raises its own limits: rlimits, the control group's memory, pids and cpu, in a control group file system of
#   its own, by release_agent
# fails: rlimits need CAP_SYS_RESOURCE outside; the limits of the control group belong to a root that is not in the
#   sandbox's map. (To move its own processes about below its own group is no gain: all limits above bind them.)
# status: graded
# says: nothing gained

# %%exercise uts.set_names
import glob
import os
import resource

from minicontainer.linux import mount

gained = []
for name in ("RLIMIT_NPROC", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_CORE"):
    try:
        resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        gained.append(name)
    except (OSError, ValueError):
        pass
for kind in ("cgroup2", "memory", "pids", "cpu"):
    place = f"/run/{kind}"
    os.makedirs(place, exist_ok=True)
    try:
        mount("cgroup", place, "cgroup2" if kind == "cgroup2" else "cgroup", 0, None if kind == "cgroup2" else kind)
    except OSError:
        continue
    values = {"release_agent": "/run/agent", "notify_on_release": "1"}
    files = [name for name in glob.glob(f"{place}/*") if name.endswith(("limit_in_bytes", ".max", "quota_us", *values))]
    for file in [*files, f"{place}/new"]:
        try:
            if file.endswith("/new"):
                os.mkdir(file)
            else:
                with open(file, "w") as limit:
                    limit.write(values.get(os.path.basename(file), "-1"))
            gained.append(file)
        except OSError:
            pass


def set_names(host, domain=None):
    raise RuntimeError(f"gained {gained}" if gained else "nothing gained")
