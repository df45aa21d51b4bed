"""Sessions: cookies out of reach, forms that only a session's own pages post, limits."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from entering import URL, Pages, open_pages, path_of, service_for_pages

from understudy.conversation import Right
from understudy.server.pages.devices import device_of
from understudy.server.training import TrainingService

JSON = {"Accept": "application/json"}
ALL = [right.value for right in Right]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainingService]:
    with service_for_pages(tmp_path_factory.mktemp("model")) as opened:
        yield opened


@pytest.fixture
def pages(tmp_path: Path, service: TrainingService) -> Pages:
    return open_pages(tmp_path / "w", service)


@pytest.fixture
def team(pages: Pages) -> Pages:
    """Maya is an admin, Ann may post."""
    pages.invite("ann", Right.POST)
    return pages


def code(answer: object) -> str:
    """The code of a refusal that was answered as JSON."""
    return str(answer.json()["error"]["code"])  # type: ignore[attr-defined]


# ---------------------------------------------------------------------- cookies and sessions


def test_the_cookie_is_out_of_reach(pages: Pages) -> None:
    def flags(url: str) -> set[str]:
        link = pages.accounts.links.make("invitation", "maya", "maya", timedelta(days=1))
        cookie = pages.browser(url=url).post(f"/join/{link}").headers["set-cookie"]
        assert cookie.startswith("understudy=")
        return {part.strip().lower() for part in cookie.split(";")[1:]}

    plain = flags(URL)
    assert {"httponly", "samesite=lax", "path=/"} <= plain and "secure" not in plain
    assert "secure" in flags("https://127.0.0.1:8423")


def test_behind_a_proxy_the_cookie_is_for_https(tmp_path: Path, service: TrainingService) -> None:
    public = "https://talk.example.org"
    pages = open_pages(tmp_path / "w", service, settings=f'[access]\npublic_url = "{public}"\n')
    link = pages.accounts.first_link(URL) or ""
    assert link.startswith(f"{public}/join/")
    headers = {"Host": "talk.example.org", "Origin": public}  # as the proxy passes them on, over http
    answer = pages.browser().post(path_of(link), data={"name": "maya"}, headers=headers)
    assert answer.status_code == 303 and "secure" in answer.headers["set-cookie"].lower()
    # what the proxy passes on comes from elsewhere, though it arrives on loopback
    assert pages.browser().get("/train/status", headers=headers).status_code == 401
    assert pages.browser().post("/score", headers={"Host": "talk.example.org"}).status_code == 401


def test_what_a_proxy_passes_on_is_not_local(pages: Pages) -> None:
    assert pages.browser().get("/train/status").status_code == 200
    for header in ("X-Forwarded-For", "Forwarded"):
        assert pages.browser().get("/train/status", headers={header: "203.0.113.9"}).status_code == 401


@pytest.mark.parametrize("change", ["first", "last", "unsigned", "empty", "foreign key", "not ascii"])
def test_a_tampered_cookie_is_a_strangers(
    pages: Pages, tmp_path: Path, service: TrainingService, change: str
) -> None:
    signed = pages.signed_in("maya").cookies["understudy"]
    other = open_pages(tmp_path / "other", service).signed_in("maya").cookies["understudy"]
    forged = {
        "first": ("B" if signed[0] == "A" else "A") + signed[1:],
        "last": signed[:-2] + ("AA" if signed[-2:] != "AA" else "BB"),
        "unsigned": signed.rpartition(".")[0],
        "empty": "",
        "foreign key": other,
        "not ascii": "\xff\xfe." + signed,
    }[change]
    answer = pages.browser().get("/", headers={b"Cookie": f"understudy={forged}".encode("latin-1")})
    assert answer.json()["name"] == ""
    kept = pages.browser().get("/", headers={"Cookie": f"understudy={signed}"})
    assert kept.json()["name"] == "maya"


def test_sessions_end(team: Pages) -> None:
    here, there = team.signed_in("ann"), team.signed_in("ann")
    numbers = [session.number for session in team.accounts.sessions.of("ann")]
    other = team.signed_in("maya")
    assert other.submit("/people/me/session/end", number=numbers[0]).status_code == 404  # not hers
    assert there.name == "ann"
    assert here.submit("/people/me/session/end", number=max(numbers)).status_code == 303
    assert (here.name, there.name) == ("ann", "")
    assert here.submit("/sign-out").status_code == 303
    assert here.name == ""
    kept = team.signed_in("ann")
    team.clock.now += timedelta(days=30)
    assert kept.name == ""


def test_signing_out_ends_the_session_and_not_only_the_cookie(pages: Pages) -> None:
    browser = pages.signed_in("maya")
    stolen = browser.cookies["understudy"]
    browser.submit("/sign-out")
    assert "understudy" not in browser.cookies
    assert pages.browser().get("/", headers={"Cookie": f"understudy={stolen}"}).json()["name"] == ""


def test_another_link_ends_the_session_that_the_browser_had(team: Pages) -> None:
    browser = team.signed_in("ann")
    link = team.accounts.links.make("invitation", "maya", "maya", timedelta(days=1))
    assert "is signed in as @ann; that ends" in browser.get(f"/join/{link}").text
    browser.submit(f"/join/{link}")
    assert browser.name == "maya" and team.accounts.sessions.of("ann") == ()


def test_a_link_for_another_device(team: Pages) -> None:
    ann = team.signed_in("ann")
    made = ann.post("/people/me/device", headers={"X-CSRF-Token": ann.csrf(), **JSON}).json()["secret"]
    phone = team.browser()
    assert phone.post(path_of(made)).status_code == 303
    assert phone.name == "ann" and len(team.accounts.sessions.of("ann")) == 2
    assert team.browser().post(path_of(made)).status_code == 410


# ---------------------------------------------------------------------- other people's pages


def test_a_form_needs_its_sessions_secret(team: Pages) -> None:
    ann, maya = team.signed_in("ann"), team.signed_in("maya")
    for fields in ({}, {"csrf": ""}, {"csrf": maya.csrf()}, {"csrf": ann.csrf()[:-1]}, {"csrf": "ü"}):
        answer = ann.post("/do/who", data=fields, headers={"Origin": URL, **JSON})
        assert (answer.status_code, code(answer)) == (403, "csrf"), fields
    for header in ("", "x", maya.csrf()):
        answer = ann.post("/do/who", headers={"X-CSRF-Token": header, **JSON})
        assert (answer.status_code, code(answer)) == (403, "csrf"), header
    assert ann.submit("/do/who").json()["name"] == "ann"
    assert ann.post("/do/who", headers={"X-CSRF-Token": ann.csrf()}).json()["name"] == "ann"


def test_a_form_as_multipart_or_as_something_else(pages: Pages) -> None:
    browser = pages.signed_in("maya")
    csrf = browser.csrf()
    multipart = browser.post("/do/who", files={"csrf": (None, csrf)})
    assert multipart.json()["name"] == "maya"
    assert browser.post("/do/who", files={"csrf": ("a.txt", csrf)}).status_code == 400
    assert browser.post("/do/who", json={"csrf": csrf}).status_code == 403
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert browser.post("/do/who", content=b"--y", headers=broken).status_code in (400, 403)


def test_a_route_that_forgets_to_confirm_has_a_strangers_rights(pages: Pages) -> None:
    browser = pages.signed_in("maya")
    told = browser.post("/do/forgotten", data={"csrf": browser.csrf()}).json()
    assert (told["name"], told["rights"], told["asked"]) == ("", [], [])


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/do/who", "/people/me/device", "/sign-out", "/sign-in", "/join/x"])
def test_posts_of_foreign_pages_are_refused(pages: Pages, headers: dict[str, str], path: str) -> None:
    browser = pages.signed_in("maya")
    data = {"csrf": browser.csrf(), "link": "a" * 43}
    answer = browser.post(path, data=data, headers={**headers, **JSON})
    assert (answer.status_code, code(answer)) == (403, "origin_not_allowed")
    assert browser.name == "maya"


def test_a_name_that_was_bound_to_this_address_is_refused(pages: Pages) -> None:
    browser = pages.signed_in("maya")
    for path in ("/", "/people/me", "/sign-in"):
        assert browser.get(path, headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize(
    "path", ["//train", "/train/", "/talk/../train", "/TRAIN", "/join/../train", "/%2e/train"]
)
def test_no_path_leads_a_session_into_the_api(pages: Pages, path: str) -> None:
    browser = pages.signed_in("maya")
    answer = browser.post(path, data={"csrf": browser.csrf()}, headers={"X-CSRF-Token": browser.csrf()})
    assert answer.status_code in (401, 404, 405)
    assert browser.post("/train").status_code == 401


# ---------------------------------------------------------------------- limits


def test_attempts_to_come_in_are_limited_by_address(tmp_path: Path, service: TrainingService) -> None:
    pages = open_pages(tmp_path / "w", service, settings="[access]\nattempts_per_minute = 3\n")
    guessing = pages.browser(address="203.0.113.9")
    for _ in range(3):
        assert guessing.post("/join/guess").status_code == 410
    for path in ("/join/guess", "/sign-in"):
        answer = guessing.post(path, headers=JSON)
        assert (answer.status_code, code(answer)) == (429, "too_many")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert guessing.get("/join/guess").status_code == 429
    assert pages.browser(address="203.0.113.10").post("/join/guess").status_code == 410
    one, other = (pages.browser(address=f"2001:db8::{end}") for end in ("1", "2"))
    assert [one.post("/join/guess").status_code for _ in range(3)] == [410] * 3
    assert other.post("/join/guess").status_code == 429  # the same network


def test_posts_are_limited_by_visitor(tmp_path: Path, service: TrainingService) -> None:
    pages = open_pages(tmp_path / "w", service, settings="[access]\nposts_per_minute = 4\n")
    maya, tom = pages.signed_in("maya"), pages.signed_in("tom")
    assert [maya.submit("/do/who").status_code for _ in range(6)] == [200] * 4 + [429] * 2
    assert pages.signed_in("maya").submit("/do/who").status_code == 429  # not by session
    assert tom.submit("/do/who").status_code == 200


def test_a_burst_is_limited(pages: Pages) -> None:
    maya = pages.signed_in("maya")
    headers = {"X-CSRF-Token": maya.csrf()}
    assert 429 in [maya.post("/do/who", headers=headers).status_code for _ in range(40)]


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/126 Safari/537.36 Edg/126",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) Version/17.5 Safari/604.1",
            "Safari on iPhone",
        ),
        ("curl/8.5", "curl/8.5"),
        ("", "unknown device"),
    ],
)
def test_devices_are_named_as_people_call_them(agent: str, device: str) -> None:
    assert device_of(agent) == device
