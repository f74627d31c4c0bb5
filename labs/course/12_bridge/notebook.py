# %% [markdown]
# # Lab 12: networks of containers
#
# **You will learn** what docker0 and virbr0 are, how a cable gets into a container, what happens to a packet on its way
# out and back, and what `-p 8080:80` does.
#
# **You need** [veth(4)](https://man7.org/linux/man-pages/man4/veth.4.html),
# [ip-link(8)](https://man7.org/linux/man-pages/man8/ip-link.8.html),
# [rtnetlink(7)](https://man7.org/linux/man-pages/man7/rtnetlink.7.html),
# [nft(8)](https://man7.org/linux/man-pages/man8/nft.8.html): the parts on sets can wait; about two hours. From the
# labs before: a new network namespace holds a loopback that is switched off, and nothing else.
#
# Run the cells from the top, one after the other: Shift-Enter.

# %%
# %load_ext labs.notebook

# %% [markdown]
# ## What they all build
#
# Look at a machine with LXC, libvirt or Docker on it, and `ip link` shows a device that nobody has put into a slot:
#
# | who | its name | the host's address on it |
# |---|---|---|
# | LXC | `lxcbr0` | 10.0.3.1/24 |
# | libvirt | `virbr0` | 192.168.122.1/24 |
# | Docker | `docker0` | 172.17.0.1/16 |
# | this course | `minicontainer0` | 172.17.0.1/16, or the next that is free |
#
# The kernel does not know these names. For it, all four are devices of the kind **bridge**: a switch, as it stands
# under a desk, made of software. And what each container gets is a **veth**: two devices that are born together, each
# of which receives what the other one sends. A cable, then. One end is plugged into the switch, the other one is moved
# into the container's network namespace.
#
# This is a packet on such a network. The world for it is made anew, out of the course's own steps, and somebody listens
# on every device. Nothing of it touches your machine's network.

# %%
from labs.notebook import pictures

pictures.journey("beside")

# %% [markdown]
# Find out from the picture: is the bridge itself, `br0`, on the way? The host has an address on it. Did the host, as
# one who has addresses, take part?
#
# **Before you run the next cell, decide.** The container asks somebody outside, who is on a cable of the host's and has
# never heard of 172.17.0.0/16. On which devices will you see the packet now? Whom will the server take for the client,
# and how does the answer find back?

# %%
pictures.journey("out")

# %% [markdown]
# Three things have happened that a bridge does not do:
#
# 1. the host **forwarded**: what came in by `br0` and was for somebody else, left by `uplink`. Linux does that only if
#    `/proc/sys/net/ipv4/ip_forward` is 1, and then it is called a router;
# 2. it **masqueraded**: wrote its own address on the packet in the place of the container's. "Source NAT" in the
#    manuals, and `MASQUERADE` in Docker's rules;
# 3. it **remembered** that (connection tracking), and undid it for the answer, without a rule for that.
#
# LXC says `lxc.net.0.type = veth` and `lxc.net.0.link = lxcbr0`; Docker says `--network bridge`; the kernel says:
# `RTM_NEWLINK`, and a rule in the *postrouting* hook.
#
# ## By hand, without a container
#
# The messages to the kernel are those of rtnetlink(7), the ones that `ip` sends. In `minicontainer.linux.netlink` there
# is a class for them; here is what you will need of it:
#
# | `with Netlink() as kernel:` | like |
# |---|---|
# | `kernel.add_bridge(name, mtu)` | `ip link add NAME type bridge` |
# | `kernel.add_veth(name, peer, namespace)` | `ip link add NAME type veth peer name PEER netns …` |
# | `kernel.set_link(name, up=True)`, `master=NUMBER` | `ip link set NAME up`, `master BRIDGE` |
# | `kernel.index(name)` | the number in front of the name in `ip link` |
# | `kernel.add_address(name, "172.17.0.1/16")` | `ip address add … dev NAME` |
# | `kernel.add_route("default", gateway, name)` | `ip route add default via GATEWAY dev NAME` |
#
# `Netlink()` speaks to your own network namespace, `Netlink(pid=PID)` to that of a process. And `opened_namespace(pid)`
# gives you a namespace as a file descriptor, for `add_veth`.
#
# **Decide first:** which lines of the output will say "up"? Which device will be in the bridge?

# %%
# %%apart
from labs.notebook.network import devices
from minicontainer.linux.netlink import Netlink, opened_namespace

with Netlink() as kernel, opened_namespace(os.getpid()) as here:
    kernel.add_bridge("br0")
    kernel.add_veth("left", "right", here)
    kernel.set_link("left", master=kernel.index("br0"), up=True)
    kernel.add_address("br0", "10.0.0.1/24")
devices()

# %% [markdown]
# A cell under `%%apart` is root of namespaces of its own, a network namespace among them: what you break in there,
# nobody misses. `ip` and `nft` work in there too, if you have them: `os.system("ip -d link")`.
#
# ## Exercise 1: `create_bridge`
#
# ```
# create_bridge(name: str, addresses: Sequence[str], mtu: int | None = None) -> None
# ```
#
# Make a bridge, give the host these `addresses` on it (`"172.17.0.1/16"`: the number after the slash says how much of
# the address is the network's), and switch it on.


# %%
# %%exercise bridge.create_bridge
from minicontainer.linux.netlink import Netlink


def create_bridge(name, addresses, mtu=None):
    """Make a bridge, give the host these addresses on it, and switch it on."""
    # SOLUTION BEGIN
    with Netlink() as kernel:
        kernel.add_bridge(name, mtu)
        for address in addresses:
            kernel.add_address(name, address)
        kernel.set_link(name, up=True)
    # SOLUTION END


# %%
# %%apart
from labs.notebook.network import devices

create_bridge("mine0", ["10.0.0.1/24"])
devices()

# %% [markdown]
# ## Exercise 2: `connect`
#
# ```
# connect(pid: int, bridge: str, interface: str, addresses: Sequence[str], gateways: Sequence[str] = (), *,
#         host_interface: str | None = None, mac: str | None = None, mtu: int | None = None) -> str
# ```
#
# Lay a cable from the bridge into the network namespace of process `pid`. Over there the end is called `interface`, has
# the `addresses` and is switched on, and whatever is for nobody on the bridge goes to the `gateways`: a default route.
# Here the end is called `host_interface` (make a name up if there is none: at most 15 letters, and nobody else's), is
# plugged into the bridge, and is switched on *too*. Return its name.
#
# - A route by a gateway can be made only when the device is up and has an address from which the gateway is a neighbour.
# - `add_veth` can have the other end be born where it belongs, with `mac` and `mtu`.


# %%
# %%exercise bridge.connect
from minicontainer.linux.netlink import Netlink, opened_namespace


def connect(pid, bridge, interface, addresses, gateways=(), *, host_interface=None, mac=None, mtu=None):
    """Lay a cable from the bridge into the network namespace of process `pid`; return the name of its end here."""
    # SOLUTION BEGIN
    host_interface = host_interface or f"mc{os.urandom(4).hex()}"
    with Netlink() as here, Netlink(pid=pid) as there, opened_namespace(pid) as namespace:
        here.add_veth(host_interface, interface, namespace, mtu=mtu, mac=mac)
        here.set_link(host_interface, master=here.index(bridge), up=True)
        for address in addresses:
            there.add_address(interface, address)
        there.set_link(interface, up=True)
        for gateway in gateways:
            there.add_route("default", gateway, interface)
    return host_interface
    # SOLUTION END


# %% [markdown]
# `place()` is a process with a network namespace of its own that does nothing: a container, as far as networks are
# concerned.

# %%
# %%apart
from labs.notebook.network import asks, devices, place

create_bridge("mine0", ["10.0.0.1/24"])
with place() as first, place() as second:
    connect(first, "mine0", "eth0", ["10.0.0.2/24"], ["10.0.0.1"])
    connect(second, "mine0", "eth0", ["10.0.0.3/24"], ["10.0.0.1"])
    devices(first)
    print()
    devices()
    print()
    asks(first, "10.0.0.3", 80, second, 80)  # the first asks the second, at port 80
    asks(first, "10.0.0.1", 80, None, 80)  # and the host, which is we
    asks(first, "192.0.2.2", 80, None, 80)  # and somebody outside

# %% [markdown]
# ## Exercise 3: `masquerade`
#
# ```
# masquerade(bridge: str, subnets: Sequence[str]) -> None
# ```
#
# Let what the bridge's `subnets` (`"172.17.0.0/16"`) send to elsewhere go out with the host's own address. That is a
# setting of the kernel and a rule of the packet filter. The filter has its own language, the one of nft(8), and it is
# spoken to with
#
# ```
# from minicontainer.linux.nftables import run as nft
# nft("add table inet mine")
# ```
#
# A call may hold several lines; they are one transaction, so the kernel takes all of them or none. You need a *table*
# (yours: the host may have others, and they are nobody's to touch), in it a *chain*, which is what is asked at a *hook*
# of the packet's way, and in that a *rule* for each subnet:
#
# ```
# add chain inet mine postrouting { type nat hook postrouting priority 100; }
# add rule inet mine postrouting ip saddr SUBNET oifname != "BRIDGE" masquerade
# ```
#
# Read the rule aloud: what comes from the subnet (`saddr`: source address), and leaves by a device (`oifname`: output
# interface) that is not the bridge. What if you left out the first condition? And the second one?


# %%
# %%exercise nat.masquerade
from minicontainer.linux.nftables import run as nft


def masquerade(bridge, subnets):
    """Let what the bridge's subnets send to elsewhere go out with the host's own address."""
    # SOLUTION BEGIN
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    nft("""
        add table inet lab12
        add chain inet lab12 postrouting { type nat hook postrouting priority 100; }
    """)
    for subnet in subnets:
        nft(f'add rule inet lab12 postrouting ip saddr {subnet} oifname != "{bridge}" masquerade')
    # SOLUTION END


# %% [markdown]
# The first picture again, of **your** functions this time.

# %%
pictures.journey("out", mine=True)

# %% [markdown]
# ## Exercise 4: `publish`
#
# ```
# publish(bridge: str, ports: Sequence[tuple[str, str, int, str, int]]) -> None
# ```
#
# Each port is a protocol (`"tcp"` or `"udp"`), an address and a port of the host, and an address and a port of a
# container: `("tcp", "127.0.0.1", 8080, "172.17.0.2", 80)` is what Docker's `-p 127.0.0.1:8080:80` asks for. An address
# `""` or `"0.0.0.0"` means every address of the host. **Before you look, decide:** which of the two addresses of the
# packet has to be translated now, and at which devices will you see it?

# %%
pictures.journey("in")

# %% [markdown]
# The *destination*, and before the kernel has decided where the packet goes: `hook prerouting`, priority -100.
#
# ```
# add rule inet mine CHAIN tcp dport 8080 dnat ip to 172.17.0.2:80
# ```
#
# But not everything with this port is meant! The container may want to ask *somebody else's* port 8080. It is meant if
# the address is one of the host's own: `fib daddr type local`. A rule can also `jump` to another chain, one without a
# hook, so that a condition for all of them stands in one place.
#
# And the host itself? What it sends comes in by no device, so no prerouting; its hook is `output` (priority -100, type
# nat, the same rules). To 127.0.0.1 there are two hurdles more:

# %%
pictures.journey("loopback")

# %% [markdown]
# - A packet *from* 127.0.0.1 does not leave the machine, and if it were let out, the container would answer to its own
#   127.0.0.1. So it is masqueraded on its way to the bridge: `ip saddr 127.0.0.0/8 oifname "BRIDGE" masquerade`.
# - The kernel takes 127.0.0.1 on any device but `lo` for a forgery, unless
#   `/proc/sys/net/ipv4/conf/BRIDGE/route_localnet` is 1.


# %%
# %%exercise nat.publish
from minicontainer.linux.nftables import run as nft


def publish(bridge, ports):
    """Have what comes for these ports of the host go to those of containers."""
    # SOLUTION BEGIN
    with open(f"/proc/sys/net/ipv4/conf/{bridge}/route_localnet", "w") as file:
        file.write("1")
    commands = f"""
        add table inet lab12
        add chain inet lab12 published
        add chain inet lab12 prerouting {{ type nat hook prerouting priority -100; }}
        add chain inet lab12 output {{ type nat hook output priority -100; }}
        add chain inet lab12 postrouting {{ type nat hook postrouting priority 100; }}
        add rule inet lab12 prerouting fib daddr type local jump published
        add rule inet lab12 output fib daddr type local jump published
        add rule inet lab12 postrouting ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    """
    for protocol, address, port, to, to_port in ports:
        where = "" if address in ("", "0.0.0.0") else f"ip daddr {address}"
        commands += f"add rule inet lab12 published {where} {protocol} dport {port} dnat ip to {to}:{to_port}\n"
    nft(commands)
    # SOLUTION END


# %%
pictures.journey("in", mine=True)

# %%
pictures.journey("loopback", mine=True)

# %% [markdown]
# What you have made is a list of rules that anybody can read:

# %%
# %%apart
from labs.notebook.network import place

create_bridge("mine0", ["10.0.0.1/24"])
with place() as first:
    connect(first, "mine0", "eth0", ["10.0.0.2/24"], ["10.0.0.1"])
    masquerade("mine0", ["10.0.0.0/24"])
    publish("mine0", [("tcp", "", 8080, "10.0.0.2", 80)])
    os.system("nft list ruleset || echo there is no nft here: apt install nftables")

# %% [markdown]
# ## What does the kernel think?
#
# The checks ask it for devices, addresses and routes. Then they send packets of their own: out, in, around, and where
# none should get through.

# %%
# %check 12

# %% [markdown]
# The same from a shell (save the notebook first):
#
# ```
# labs check 12 --subject notebooks/12-bridge.ipynb
# ```
#
# ## What to take away
#
# | LXC says | Docker says | the kernel says |
# |---|---|---|
# | `lxcbr0` | `docker0`, `--network bridge` | a device of the kind bridge |
# | `lxc.net.0.type = veth` | (always) | two devices, one in another network namespace |
# | `lxc.net.0.ipv4.gateway` | `--gateway` | a default route in that namespace |
# | `LXC_DHCP_RANGE`, `iptables -t nat … MASQUERADE` in lxc-net | `MASQUERADE` in `-t nat POSTROUTING` | ip_forward; a rule at the hook postrouting; connection tracking |
# | (iptables by hand) | `-p 8080:80` | a rule at the hooks prerouting and output |
#
# - A bridge passes on frames by MAC address, and asks no rule. What is for elsewhere goes to the host's address on it,
#   and there it is the host, as a router, who has it.
# - Translating is decided once, with a connection's first packet. The rest follows what is remembered.
# - A rule says what it is *for*. Every condition that you leave out is somebody else's packet.
#
# ## Going further
#
# 1. The course's own are `minicontainer/steps/bridge.py` and `nat.py`. There the rules never change, only *sets* do.
#    What does that save when the two hundredth container comes, and what when it goes?
# 2. Somebody on the same cable as your host sends a packet for 127.0.0.1, port 8080, to its MAC address (moby issue
#    45610). Which of your rules does it meet? And a container that sends to 127.0.0.1 by its gateway, now that
#    route_localnet is 1 (CVE-2020-8558)? The chain `martians` in the course's rules is for the second; which rule is for
#    the first?
# 3. A client of a published UDP port keeps asking, and the port is given to another container. To which of the two does
#    its next packet go, and why? (`unpublish` in `nat.py`.)
# 4. Two bridges: can a container of the one reach a container of the other, with your rules? Docker says no. Make it so.
# 5. `sysctl net.bridge.bridge-nf-call-iptables` is 1 on many hosts: then rules see frames that a bridge passes on. What
#    does that do to your masquerade, if you leave `oifname != …` out?
