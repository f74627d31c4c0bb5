# mutant: gives the kernel kilobytes where it wants bytes
# loses: test_rates
# diagnosis: rates are in bytes a second, not in kilobytes

# %%exercise io.limit_io
from minicontainer.linux.cgroups import write


def limit_io(group, device, **rates):
    version, directory = group["blkio"]
    for name, rate in rates.items():
        rate //= 1024
        if version == 2:
            what, unit = name.split("_")
            write(f"{directory}/io.max", f"{device} {what[0]}{unit}={rate or 'max'}")
        else:
            write(f"{directory}/blkio.throttle.{name}_device", f"{device} {rate}")
