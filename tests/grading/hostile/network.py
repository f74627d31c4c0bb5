# attack: talks to the world and to the host: a public address, 127.0.0.1, abstract Unix sockets, packets, and DNS
# fails: its network namespace has one device, "lo" of its own; abstract sockets belong to a network namespace too
# status: graded
# says: nothing reached

# %%exercise uts.set_names
import socket

reached = []


def attempt(what, family, kind, address):
    try:
        with socket.socket(family, kind) as end:
            end.settimeout(0.2)
            end.connect(address)
            end.send(b"the adversary was here")
            reached.append(what)
    except OSError:
        pass


attempt("the world", socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80))
attempt("the world's names", socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53))
attempt("the world, IPv6", socket.AF_INET6, socket.SOCK_DGRAM, ("2001:db8::1", 53))
attempt("the host's 127.0.0.1", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int("@port@")))
attempt("an abstract socket", socket.AF_UNIX, socket.SOCK_STREAM, "\0@abstract@")
attempt("a socket of the host's", socket.AF_UNIX, socket.SOCK_STREAM, "@marker@/socket")
with open("/proc/net/dev") as devices:
    others = [line.split(":")[0].strip() for line in devices if ":" in line and "lo:" not in line]
reached += [
    name
    for name in others
    if name not in ("sit0", "ip6tnl0", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0")
]


def set_names(host, domain=None):
    raise RuntimeError(f"reached {reached}" if reached else "nothing reached")
