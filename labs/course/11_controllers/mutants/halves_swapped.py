# mutant: puts AAAA:BBBB together the wrong way round
# loses: test_class
# diagnosis: its halves have changed places

# %%exercise packets.tag_packets
from minicontainer.linux.cgroups import write


def tag_packets(group, class_id):
    _, directory = group["net_cls"]
    write(f"{directory}/net_cls.classid", (class_id & 0xFFFF) << 16 | class_id >> 16)
