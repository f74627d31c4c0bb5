"""What users write of networks and ports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.network.errors import NetworkError
from minicontainer.network.wishes import Attachment, Port, read_attachment, read_ports


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(80)]),
        ("8080:80", [Port(80, 8080)]),
        ("8080:80/udp", [Port(80, 8080, protocol="udp")]),
        ("0.0.0.0:8080:80", [Port(80, 8080, "0.0.0.0")]),
        ("127.0.0.1::80", [Port(80)]),
        ("[::1]:8080:80", [Port(80, 8080, "::1")]),
        ("[0:0::1]:8080:80", [Port(80, 8080, "::1")]),
        ("8000-8002:80-82", [Port(80, 8000), Port(81, 8001), Port(82, 8002)]),
        ("80-81", [Port(80), Port(81)]),
        ("8000-8010:80", [Port(80, 8000, last=8010)]),
    ],
)
def test_a_published_port(text: str, ports: list[Port]) -> None:
    assert read_ports(text) == ports


@pytest.mark.parametrize(
    "text",
    ["", "x", "0", "65536", "80/", "80/sctp", "1:2:3:4", "81-80", "8000-8001:80-82", "1.2.3.4.5:80:80", "::1:80:80",
     "[::1:80", "-80", "80-", "1-65535", "8080:80:tcp", "٣", "1_0", " 80"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(NetworkError) as caught:
        read_ports(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    for read in (read_ports, read_attachment):
        try:
            read(text)
        except NetworkError as error:
            assert str(error)


def test_an_attachment() -> None:
    assert read_attachment("web") == Attachment("web")
    assert read_attachment("name=web,ip=10.0.0.5,alias=a,alias=b,mac-address=02:42:AC:11:00:02,ip6=FD00:0::1") == (
        Attachment("web", "10.0.0.5", "fd00::1", "02:42:ac:11:00:02", ("a", "b"))
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("web,", 'cannot understand ""'),
        ("web,ip", "cannot understand"),
        ("web,ip=", "cannot understand"),
        ("web,speed=1", "cannot understand"),
        ("web,ip=fd00::1", "no IPv4 address"),
        ("web,ip6=10.0.0.1", "no IPv6 address"),
        ("web,mac=02:42", "no MAC address"),
        ("web,mac=01:00:5e:00:00:01", "stands for several"),
        ("web,mac=00:00:00:00:00:00", "for none"),
        ("web,alias=a b", "cannot be a name"),
        ("web,interface=lo", "device's name"),
        ("web,interface=sixteen-letters-", "device's name"),
    ],
)
def test_what_cannot_be_one(text: str, reason: str) -> None:
    with pytest.raises(NetworkError, match=reason):
        read_attachment(text)
