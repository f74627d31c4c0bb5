# mutant: takes 0 for nothing to do
# loses: test_rates_apart
# diagnosis: was to be lifted with 0

# %%exercise io.limit_io
from minicontainer.linux.cgroups import write


def limit_io(group, device, **rates):
    version, directory = group["blkio"]
    for name, rate in rates.items():
        if not rate:
            continue
        if version == 2:
            what, unit = name.split("_")
            write(f"{directory}/io.max", f"{device} {what[0]}{unit}={rate or 'max'}")
        else:
            write(f"{directory}/blkio.throttle.{name}_device", f"{device} {rate}")
