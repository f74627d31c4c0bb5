# mutant: lifts whatever is not named
# loses: test_rates_apart
# diagnosis: a rate that is not named is left alone

# %%exercise io.limit_io
from minicontainer.linux.cgroups import write


def limit_io(group, device, **rates):
    version, directory = group["blkio"]
    nothing = dict.fromkeys(("read_bps", "write_bps", "read_iops", "write_iops"), 0)
    for name, rate in {**nothing, **rates}.items():
        if version == 2:
            what, unit = name.split("_")
            write(f"{directory}/io.max", f"{device} {what[0]}{unit}={rate or 'max'}")
        else:
            write(f"{directory}/blkio.throttle.{name}_device", f"{device} {rate}")
