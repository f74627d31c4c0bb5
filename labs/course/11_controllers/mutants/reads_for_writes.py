# mutant: limits reading where writing is meant, and the other way round
# loses: test_rates, test_rates_apart
# diagnosis: and became (read|write)_|only .* was asked for|is not what it was|was to be lifted

# %%exercise io.limit_io
from minicontainer.linux.cgroups import write


def limit_io(group, device, **rates):
    version, directory = group["blkio"]
    for name, rate in rates.items():
        name = name.replace("read", "-").replace("write", "read").replace("-", "write")
        if version == 2:
            what, unit = name.split("_")
            write(f"{directory}/io.max", f"{device} {what[0]}{unit}={rate or 'max'}")
        else:
            write(f"{directory}/blkio.throttle.{name}_device", f"{device} {rate}")
