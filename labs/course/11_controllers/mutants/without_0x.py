# mutant: writes hexadecimal digits without 0x
# loses: test_class
# diagnosis: hexadecimal digits were taken for decimal ones

# %%exercise packets.tag_packets
from minicontainer.linux.cgroups import write


def tag_packets(group, class_id):
    _, directory = group["net_cls"]
    write(f"{directory}/net_cls.classid", f"{class_id:x}")
