"""References: the grammar that docker, podman and skopeo share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.images.errors import ImageError
from minicontainer.images.references import is_digest, parse_reference

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("me/web", "docker.io/me/web:latest", "me/web:latest"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/me/web", "docker.io/me/web:latest", "me/web:latest"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("10.0.0.1:80/a/b/c:v1_2-3.4", "10.0.0.1:80/a/b/c:v1_2-3.4", "10.0.0.1:80/a/b/c:v1_2-3.4"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}", f"debian@{DIGEST}"),
        (f"ghcr.io/a/b:1@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}", f"ghcr.io/a/b:1@{DIGEST}"),
        ("a__b/c---d.e_f", "docker.io/a__b/c---d.e_f:latest", "a__b/c---d.e_f:latest"),
        ("library/a.b/c", "docker.io/library/a.b/c:latest", "library/a.b/c:latest"),
        ("docker.io/localhost/x", "docker.io/localhost/x:latest", "docker.io/localhost/x:latest"),
    ],
)
def test_names_as_people_write_them(text: str, canonical: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)
    assert parse_reference(canonical) == parse_reference(familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a b", "Debian", "a/../b", "../a", "/a", "a/", "a//b", "a:", ":a", "a:b:c", "a___b", "a-.b", "-a", "a-", ".a",
        "a:.b", "a:-b", f"a:{'t' * 129}", "a@", "a@sha256:abc", f"a@{DIGEST.upper()}", "a@sha256:../../etc/passwd", "a@md5:" + "a" * 32,
        "host:99999/x", "host:0/x", "ho st/x:1", "-host.de/x", "[::1/x", "[x]/y", "x:\x1b[31m", "ä", "a\nb", "a\0", "a" * 64, "x/" * 200 + "y",
        "http://registry.example/x",
    ],
)  # fmt: skip
def test_odd_characters_are_refused_in_one_clear_line(text: str) -> None:
    with pytest.raises(ImageError) as raised:
        parse_reference(text)
    said = str(raised.value)
    assert "cannot be an image" in said and said.isprintable() and len(said) < 600


@given(st.text(alphabet="abzAZ019._-:/@[]sha256 \n", max_size=90) | st.text(max_size=40))
def test_whatever_is_read_means_the_same_when_it_is_written_and_read_again(text: str) -> None:
    try:
        reference = parse_reference(text)
    except ImageError as error:
        assert str(error).isprintable()
    else:
        assert parse_reference(reference.canonical) == parse_reference(reference.familiar) == reference
        assert ".." not in reference.canonical.split("/")


@pytest.mark.parametrize("text", ["sha256:" + "A" * 64, "sha256:" + "a" * 63, "sha256:" + "a" * 65, "sha1:" + "a" * 40,
                                  "sha256:/" + "a" * 63, "sha256:" + "a" * 64 + "\n", "sha384:" + "a" * 96, "a" * 64])  # fmt: skip
def test_what_is_no_digest(text: str) -> None:
    assert not is_digest(text)


def test_what_is_a_digest() -> None:
    assert is_digest(DIGEST) and is_digest("sha512:" + "0" * 128)
