# mutant: does not let the examiner help: it opens the files itself, those of v1
# loses: test_only_these_devices, test_access, test_type_and_numbers, test_new_rules
# diagnosis: write\(\) of minicontainer\.linux\.cgroups|No such file

# %%exercise devices.allow_devices
def allow_devices(group, rules):
    _, directory = group["devices"]
    with open(f"{directory}/devices.deny", "r+") as deny:
        deny.write("a")
    for kind, major, minor, access in rules:
        numbers = ":".join("*" if number is None else str(number) for number in (major, minor))
        with open(f"{directory}/devices.allow", "r+") as allow:
            allow.write(f"{kind} {numbers} {access}")
