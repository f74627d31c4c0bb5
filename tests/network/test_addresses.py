"""Addresses and subnets: held against Python's own `ipaddress`."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.network.addresses import (
    canonical,
    free_address,
    free_subnet,
    local_subnet,
    mac_of,
    read_address,
    read_subnet,
)
from minicontainer.network.errors import NetworkError

networks = st.one_of(st.ip_addresses(v=4).flatmap(lambda a: st.integers(0, 32).map(lambda p: (a, p))),
                     st.ip_addresses(v=6).flatmap(lambda a: st.integers(0, 128).map(lambda p: (a, p))))  # fmt: skip


@given(networks, st.ip_addresses())
def test_a_subnet_is_what_python_takes_it_for(made_of: tuple[object, int], address: object) -> None:
    theirs = ipaddress.ip_network(f"{made_of[0]}/{made_of[1]}", strict=False)
    ours = read_subnet(f"{made_of[0]}/{made_of[1]}", exact=False)
    assert ipaddress.ip_network(str(ours)) == theirs
    assert (str(address) in ours) == (address in theirs)
    assert ipaddress.ip_address(canonical(str(address))) == address


@given(networks, networks)
def test_two_overlap_where_python_says_so(one: tuple[object, int], other: tuple[object, int]) -> None:
    theirs = [ipaddress.ip_network(f"{address}/{prefix}", strict=False) for address, prefix in (one, other)]
    ours = [read_subnet(str(network)) for network in theirs]
    assert ours[0].overlaps(ours[1]) == (theirs[0].version == theirs[1].version and theirs[0].overlaps(theirs[1]))


@given(st.sets(st.integers(0, 15)), st.integers(0, 15))
def test_a_free_address_is_free_and_usable(taken: set[int], last: int) -> None:
    subnet = read_subnet("10.9.8.0/28")
    owned = {f"10.9.8.{number}" for number in taken}
    found = free_address(subnet, None, owned.__contains__, f"10.9.8.{last}")
    everybody = {f"10.9.8.{number}" for number in range(1, 15)} - owned
    assert (found is None) == (not everybody)
    assert found is None or found in everybody


def test_addresses_go_round() -> None:
    """What has just become free is given last."""
    subnet, given_out, last = read_subnet("10.9.8.0/29"), [], None
    for _ in range(12):
        last = free_address(subnet, None, {"10.9.8.1"}.__contains__, last)
        given_out.append(last)
    assert given_out == [f"10.9.8.{number}" for number in (2, 3, 4, 5, 6)] * 2 + ["10.9.8.2", "10.9.8.3"]


def test_a_range_is_kept_to() -> None:
    subnet, part = read_subnet("10.9.0.0/16"), read_subnet("10.9.8.4/30")
    assert free_address(subnet, part, set().__contains__) == "10.9.8.4"
    assert free_address(subnet, part, {f"10.9.8.{n}" for n in range(4, 8)}.__contains__) is None


def test_the_first_free_subnet_is_dockers() -> None:
    assert str(free_subnet([])) == "172.17.0.0/16"
    assert str(free_subnet([read_subnet("172.17.9.0/24"), read_subnet("172.18.0.0/15")])) == "172.20.0.0/16"
    assert str(free_subnet([read_subnet("172.16.0.0/12")])) == "192.168.0.0/20"
    with pytest.raises(NetworkError, match="--subnet"):
        free_subnet([read_subnet("172.16.0.0/12"), read_subnet("192.168.0.0/16")])


def test_a_local_subnet_is_one_of_rfc_4193() -> None:
    subnet = local_subnet(b"abcde")
    assert ipaddress.ip_network(str(subnet)).subnet_of(ipaddress.ip_network("fd00::/8")) and subnet.prefix == 64
    assert subnet.gateway() == str(ipaddress.ip_network(str(subnet))[1])


def test_a_mac_address_is_locally_administered_and_nobody_elses() -> None:
    assert mac_of("172.17.0.2") == "02:42:ac:11:00:02"


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.4 ", "fd00:::1", "x", "256.1.1.1", "1.2.3.4\0", "٣.1.1.1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(NetworkError, match="is no address"):
        read_address(text)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/x", "fd00::/129", "10.0.0.0/٣"])
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(NetworkError, match="is no subnet"):
        read_subnet(text)


def test_bits_behind_the_prefix_are_a_mistake_that_is_explained() -> None:
    with pytest.raises(NetworkError, match=r"did you mean 10\.1\.0\.0/16\?"):
        read_subnet("10.1.2.3/16")
