"""What is written into a container's /etc about names."""

from __future__ import annotations

import pytest

from minicontainer.network.errors import NetworkError
from minicontainer.network.files import hosts_file, read_added, resolv_conf
from minicontainer.network.store import Endpoint, Network

BRIDGE = Network("bridge", "1", subnets=("172.17.0.0/16",), gateways=("172.17.0.1",))
BOTH = Network("both", "2", subnets=("10.7.0.0/24", "fd00:7::/64"), gateways=("10.7.0.1", "fd00:7::1"))
CARD = Network("card", "3", driver="macvlan", subnets=("10.8.0.0/24",), gateways=("",))


def end(network: Network, *addresses: str) -> tuple[Endpoint, Network]:
    return Endpoint("c1", "web", network.name, "eth0", addresses, names=("web", "c1", "www")), network


ONE = end(BRIDGE, "172.17.0.2/16")
TWO = end(BOTH, "10.7.0.2/24", "fd00:7::2/64")
THREE = end(CARD, "10.8.0.2/24")

HOST = (
    "# ours\nnameserver 127.0.0.53\nnameserver 10.0.0.53\ndomain old\nsearch corp example.com\noptions ndots:2 edns0\n"
)


def test_hosts() -> None:
    assert hosts_file("web", None, [ONE], ["db:10.0.0.9"]) == (
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::\tip6-localnet\n"
        "ff00::\tip6-mcastprefix\n"
        "ff02::1\tip6-allnodes\n"
        "ff02::2\tip6-allrouters\n"
        "10.0.0.9\tdb\n"
        "172.17.0.1\thost.containers.internal host.docker.internal\n"
        "172.17.0.2\tweb c1 www\n"
    )


def test_hosts_of_several_networks() -> None:
    text = hosts_file("h", "example.com", [TWO, ONE], ["up:host-gateway", "six:[fd00::9]"])
    for line in ("10.7.0.1\tup", "fd00::9\tsix", "10.7.0.2\th.example.com h web c1 www",
                 "fd00:7::2\th.example.com h web c1 www", "172.17.0.2\th.example.com h web c1 www"):  # fmt: skip
        assert f"\n{line}\n" in text


def test_where_the_host_has_no_address() -> None:
    assert "host.containers" not in hosts_file("h", None, [THREE])
    with pytest.raises(NetworkError, match="on no bridge"):
        hosts_file("h", None, [THREE], ["up:host-gateway"])


def test_resolv_conf_asks_our_server() -> None:
    asked = "nameserver 172.17.0.1\nsearch corp example.com\noptions ndots:2 edns0\n"
    assert resolv_conf([ONE], HOST) == asked
    assert resolv_conf([ONE, TWO], HOST, dns=["10.0.0.1"]) == asked  # which asks that one
    assert resolv_conf([THREE, ONE], HOST) == asked
    assert resolv_conf([ONE], "") == "nameserver 172.17.0.1\n"


def test_resolv_conf_where_there_is_none_of_ours() -> None:
    assert resolv_conf([THREE], HOST).startswith("nameserver 10.0.0.53\nsearch")
    assert resolv_conf([THREE], HOST, dns=["10.0.0.1", "10.0.0.2"], search=["a"], options=["rotate"]) == (
        "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch a\noptions rotate\n"
    )


def test_a_dot_searches_nowhere() -> None:
    assert "search" not in resolv_conf([ONE], HOST, search=["."])


@pytest.mark.parametrize("text", ["db", "db:", ":10.0.0.1", "a b:10.0.0.1", "db:10.0.0", "db:example", "a\n:1.2.3.4"])
def test_what_cannot_be_added(text: str) -> None:
    with pytest.raises(NetworkError):
        read_added(text)
