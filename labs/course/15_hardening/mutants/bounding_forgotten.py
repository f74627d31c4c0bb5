# mutant: leaves the bounding set as it is, from which root gets everything back with its next program
# loses: test_sets, test_program, test_unknown
# diagnosis: bounding set still has|its bounding set is

# %%exercise capabilities.drop_capabilities
from minicontainer.linux.capabilities import (
    Capabilities,
    cap_ambient_clear_all,
    cap_ambient_raise,
    capget,
    capset,
    mask_of,
)


def drop_capabilities(bounding, effective, permitted, inheritable, ambient):
    may = mask_of(permitted) & capget().permitted
    passed_on = mask_of(inheritable) & capget().permitted
    capset(Capabilities(mask_of(effective) & may, may, passed_on))
    cap_ambient_clear_all()
    for number in range(41):
        if mask_of(ambient) & may & passed_on & 1 << number:
            cap_ambient_raise(number)
