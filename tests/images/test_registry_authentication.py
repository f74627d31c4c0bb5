"""Who we are to a registry: the token dance, passwords where docker and podman keep them, helpers."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minicontainer.images.authentication import HUB_KEY, Authorizer, Login, find_login, forget_login, save_login
from minicontainer.images.content import ContentStore
from minicontainer.images.errors import ImageError
from minicontainer.images.references import parse_reference
from minicontainer.images.transfer import pull
from tests.images.registry_server import OddRegistry, forget, status
from tests.images.test_registry import Clients, pulled, small

STUDENT = {"auth": base64.b64encode(b"student:secret").decode()}


def docker(home: Path, settings: object) -> Path:
    """Write docker's file."""
    file = home / ".docker/config.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(settings))
    return file


def helper(home: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential helper that is found in PATH."""
    place = home / "bin"
    place.mkdir(exist_ok=True)
    program = place / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_a_password_from_docker_s_file(
    odd: OddRegistry, store: ContentStore, clients: Clients, home: Path, auth: str
) -> None:
    odd.auth = auth
    odd.add("box", small(), "1")
    with pytest.raises(ImageError, match=rf"minicontainer login {odd.name}"):
        pulled(odd, store, clients)
    docker(home, {"auths": {odd.name: STUDENT}})
    pulled(odd, store, clients)
    assert len(odd.asked("GET", "token")) == (2 if auth == "token" else 0), "one token does for the whole pull"
    docker(home, {"auths": {odd.name: {"username": "student", "password": "wrong"}}})
    with pytest.raises(ImageError, match=r"refuses the password of student|not allowed to"):
        pulled(odd, store, clients)


def test_a_public_repository_gives_a_token_to_anybody(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.auth, odd.anonymous = "token", True
    odd.add("box", small(), "1")
    pulled(odd, store, clients)
    [asked] = odd.asked("GET", "token")
    assert (
        asked.query == {"service": ["odd"], "scope": ["repository:box:pull"]} and "authorization" not in asked.headers
    )


def test_a_token_that_ends_in_the_middle_of_a_pull(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.auth, odd.anonymous = "token", True
    image = small()
    odd.add("box", image, "1")
    odd.fault(forget, f"blobs/{image.layers[0]}")
    pulled(odd, store, clients, parallel=1)
    assert len(odd.asked("GET", "token")) == 2


def test_threads_that_are_refused_at_once_ask_for_one_token(odd: OddRegistry, clients: Clients) -> None:
    odd.auth, odd.anonymous = "token", True
    odd.add("box", small(), "1")
    [registry] = clients(odd.name)
    together = threading.Barrier(8)

    def ask() -> None:
        together.wait(10)
        registry.has_blob("box", f"sha256:{'0' * 64}")

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(odd.asked("GET", "token")) == 1


def test_a_busy_realm_is_asked_again(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.auth, odd.anonymous = "token", True
    odd.add("box", small(), "1")
    odd.fault(status(503), "token")
    pulled(odd, store, clients)
    odd.tokens.clear()
    odd.fault(status(200, body=b'{"no": "token"}'), "token")
    with pytest.raises(ImageError, match=r"sends us to http://127.0.0.1:\d+/token for a token, which gives none"):
        pulled(odd, store, clients)


def test_a_password_goes_to_no_realm_over_less_than_https() -> None:
    sent = list[str]()

    def fetch(method: str, url: str, headers: object, body: object) -> tuple[int, bytes]:
        sent.append(url)
        return 200, b'{"token": "t"}'

    secure = Authorizer("a.example", fetch, lambda: Login("student", "secret"))
    for realm in ("http://evil.example/token", "file:///etc/passwd", ""):
        with pytest.raises(ImageError, match=r"which is no https address"):
            secure.answer([f'Bearer realm="{realm}"'], ["repository:a:pull"], "")
    assert not sent
    assert secure.answer(
        ['Basic realm="x", Bearer realm="https://b.example/t?a=b",service="s"'], ["repository:a:pull"], ""
    )
    assert sent == ["https://b.example/t?a=b&service=s&scope=repository%3Aa%3Apull"]
    assert secure.value(["repository:a:pull"]) == "Bearer t" and secure.value(["repository:b:pull"]) == ""


def test_an_identity_token_buys_others() -> None:
    asked = list[tuple[str, str, bytes]]()

    def fetch(method: str, url: str, headers: object, body: bytes) -> tuple[int, bytes]:
        asked.append((method, url, body))
        return 200, b'{"access_token": "bought"}'

    authorizer = Authorizer("a.example", fetch, lambda: Login(identity_token="id"))
    assert authorizer.answer(['Bearer realm="https://b.example/t",service="s"'], ["repository:a:pull"], "")
    assert authorizer.value(["repository:a:pull"]) == "Bearer bought"
    [(method, url, body)] = asked
    assert (method, url) == ("POST", "https://b.example/t")
    assert (
        b"grant_type=refresh_token" in body and b"refresh_token=id" in body and b"scope=repository%3Aa%3Apull" in body
    )


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", "Negotiate", "Bearer realm=", '"', "=,=,", 'Digest realm="a"', "Bearer " * 5000]
)
def test_odd_challenges_are_refused_in_words(challenge: str) -> None:
    authorizer = Authorizer("a.example", lambda *_: (200, b"{}"), lambda: Login("student", "secret"))
    try:
        assert not authorizer.answer([challenge], ["repository:a:pull"], "")
    except ImageError as error:
        assert "a.example wants our password sent to" in str(error)


def test_where_passwords_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docker(
        home, {"auths": {"a.example": STUDENT, HUB_KEY: STUDENT, "https://b.example/v2/": STUDENT, "empty.example": {}}}
    )
    for name in ("a.example", "docker.io", "b.example"):
        assert find_login(name) == Login("student", "secret"), name
    assert find_login("c.example") is None and find_login("empty.example") is None
    podman = home / ".config/containers/auth.json"
    podman.parent.mkdir(parents=True)
    podman.write_text(json.dumps({"auths": {
        "c.example": {"auth": base64.b64encode(b"all:1").decode()},
        "c.example/team/app": {"auth": base64.b64encode(b"app:2").decode()},
        "c.example/team": {"auth": base64.b64encode(b"team:3:4").decode()},
    }}))  # fmt: skip
    assert find_login("c.example", "other/app") == Login("all", "1")
    assert find_login("c.example", "team/app") == Login("app", "2")
    assert find_login("c.example", "team/web") == Login("team", "3:4")
    named = home / "named.json"
    named.write_text(json.dumps({"auths": {"c.example": {"auth": base64.b64encode(b"named:5").decode()}}}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(named))
    assert find_login("c.example") == Login("named", "5")
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "elsewhere"))
    assert find_login("a.example") is None


@pytest.mark.parametrize(("text", "said"), [
    ("{", "not JSON"), ("[]", "is not as docker or podman write it"), ('{"auths": []}', "is not as docker or podman"),
    ('{"auths": {"a.example": {"auth": "?"}}}', "an entry is not base64"),
    ('{"credsStore": "../../bin/sh"}', "is no name of a program"), ('{"credsStore": "nowhere"}', "which is not in PATH"),
])  # fmt: skip
def test_files_that_cannot_be_read(home: Path, text: str, said: str) -> None:
    docker(home, {}).write_text(text)
    with pytest.raises(ImageError, match=said):
        find_login("a.example")


def test_helpers_are_asked_as_docker_asks_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = home / "kept"
    helper(home, "test", f"""
        case $1 in
        get) read -r url; test -f {kept} && grep -q "$url" {kept} && cat {kept} && exit
             echo credentials not found in native keychain; exit 1;;
        store) cat >{kept};;
        erase) rm {kept};;
        esac""", monkeypatch)  # fmt: skip
    file = docker(home, {"credHelpers": {"a.example": "test"}, "other": 1})
    assert find_login("a.example") is None
    assert save_login("a.example", Login("student", "secret")) == "the helper docker-credential-test"
    assert json.loads(kept.read_text()) == {"ServerURL": "a.example", "Username": "student", "Secret": "secret"}
    assert json.loads(file.read_text()) == {
        "credHelpers": {"a.example": "test"},
        "other": 1,
        "auths": {"a.example": {}},
    }
    assert find_login("a.example") == Login("student", "secret") and find_login("b.example") is None
    assert forget_login("a.example") and not kept.exists() and not forget_login("a.example")
    kept.write_text(json.dumps({"ServerURL": "a.example", "Username": "<token>", "Secret": "id"}))
    assert find_login("a.example") == Login(identity_token="id")
    helper(home, "test", "echo the keyring is locked; exit 1", monkeypatch)
    with pytest.raises(ImageError, match=r"docker-credential-test get: the keyring is locked"):
        find_login("a.example")
    helper(home, "test", "echo nonsense", monkeypatch)
    with pytest.raises(ImageError, match=r"its answer is not as docker's helpers'"):
        find_login("a.example")


def test_passwords_are_for_nobody_else_s_eyes(home: Path) -> None:
    assert not forget_login("a.example")
    assert save_login("a.example", Login("student", "secret")) == str(home / ".docker/config.json")
    file = home / ".docker/config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    save_login("docker.io", Login("other", "x:y"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert find_login("a.example") == Login("student", "secret") and find_login("docker.io") == Login("other", "x:y")
    assert HUB_KEY in json.loads(file.read_text())["auths"]
    assert forget_login("a.example") and find_login("a.example") is None and find_login("docker.io")
    assert [path.name for path in file.parent.iterdir()] == ["config.json"]


def test_a_password_is_not_in_what_is_printed_of_a_login() -> None:
    assert "secret" not in f"{Login('student', 'secret')} {Login('student', 'secret')!r}"


def test_no_pull_without_who_may(odd: OddRegistry, store: ContentStore, clients: Clients) -> None:
    odd.auth = "basic"
    with pytest.raises(
        ImageError, match=r"cannot get box:1 from .*we are nobody there, log in with: minicontainer login"
    ):
        pulled(odd, store, clients)
    with pytest.raises(ImageError, match=r"authentication required; we are not allowed to"):
        pull(parse_reference(f"{odd.name}/box:1"), store, clients(odd.name, login=Login("student", "wrong")))


@given(st.lists(st.text(max_size=200), max_size=3))
@example(["Bearer " + "a=" * 20_000, 'Bearer realm="' + "\\" * 20_000])
def test_any_challenge_is_answered_or_refused_in_words(challenges: list[str]) -> None:
    authorizer = Authorizer("a.example", lambda *_: (200, b"{}"), lambda: Login("student", "secret"))
    with contextlib.suppress(ImageError):
        authorizer.answer(challenges, ["repository:a:pull"], "")
    assert authorizer.value(["repository:a:pull"]) in ("", Login("student", "secret").basic)
