# mutant: returns after the first of the rates
# loses: test_rates
# diagnosis: has no limit for it: each rate has a (file|key) of its own

# %%exercise io.limit_io
from minicontainer.linux.cgroups import write


def limit_io(group, device, **rates):
    version, directory = group["blkio"]
    for name, rate in rates.items():
        if version == 2:
            what, unit = name.split("_")
            write(f"{directory}/io.max", f"{device} {what[0]}{unit}={rate or 'max'}")
        else:
            write(f"{directory}/blkio.throttle.{name}_device", f"{device} {rate}")
        return
