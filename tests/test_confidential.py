"""What counts as confidential, and how it is masked."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from vasevqa import confidential
from vasevqa.confidential import Masker, add_secrets, is_confidential
from vasevqa.text import filtered_output

ENVIRON = {
    "WANDB_API_KEY": "key-of-mine-1",
    "DATABASE": "postgres://me:data%20of-mine@host/vases",
    "HTTPS_PROXY": "http://me:proxy-of/mine@proxy.example:3128",
    "MUSEUM": "named-of-mine",
    "VASEVQA_SECRETS": "MUSEUM,OTHER",
    "QUOTED_TOKEN": 'a "quoted" \\ of-mine',
    "PEM_SECRET": "first-line-of-mine\nsecond-line-of-mine",
    "SHORT_TOKEN": "on",
    "PLACE": "Athens in Greece",
    "SOME_KEY": str(Path(__file__)),
}


@pytest.mark.parametrize(
    "text",
    [
        "the key is key-of-mine-1.",
        "connect to postgres://me:data%20of-mine@host/vases failed",
        "the password 'data of-mine' is wrong",
        "ProxyError: http://me:proxy-of/mine@proxy.example:3128",
        "named-of-mine",
        json.dumps({"text": 'a "quoted" \\ of-mine'}),
        repr('a "quoted" \\ of-mine'),
        "<p>a &quot;quoted&quot; \\ of-mine</p>",
        "second-line-of-mine",
        "GET https://someone:a-password-of-mine@example.org/x",
        "Authorization: Bearer hf_of-mineABCDEFGHIJKLMNOP",
        "key sk-proj-of-mine-ABCDEFGHIJKLMNOPQRSTUVWX",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIof+mine/AAAA==\n-----END RSA PRIVATE KEY-----",
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.of-mine-signature",
    ],
)
def test_confidential_values_are_masked_in_any_spelling(text: str) -> None:
    masked = Masker(ENVIRON)(text)
    assert "***" in masked
    for part in ("of-mine", "of mine", "of/mine", "of+mine", "ABCDEFGH", "eyJ"):
        assert part not in masked


@pytest.mark.parametrize(
    "text",
    [
        "Athens in Greece",
        "on and off",
        str(Path(__file__)),
        "ssh://git@example.org/vases",
        "https://example.org/a@b:c",
        "a task-force of museums and a sk-attic-red-figure-amphora-0001.jpg",
        "me@example.org: 7@8",
    ],
)
def test_other_texts_stay_unchanged(text: str) -> None:
    assert Masker(ENVIRON)(text) == text


def test_json_values_are_masked_inside() -> None:
    value = {"text": ["key-of-mine-1", 3, None], "key-of-mine-1": {"a": "x named-of-mine"}}
    assert Masker(ENVIRON).within(value) == {"text": ["***", 3, None], "key-of-mine-1": {"a": "x ***"}}


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AZURE_STORAGE_CONNECTION_STRING",
        "GOOGLE_CREDENTIALS",
        "SENTRY_DSN",
        "SLACK_WEBHOOK_URL",
        "SESSION_COOKIE",
        "TLS_PRIVATE_KEY",
        "MY_SECRETS",
        "DB_PASSWORDS",
        "HTTP_AUTHORIZATION",
        "WANDB_JWT",
        "db_creds",
    ],
)
def test_names_of_confidential_variables(name: str) -> None:
    assert is_confidential(name, "any value")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "/work"),
        ("MAX_TOKENS", "512"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/key.json"),
        ("SSH_AUTH_SOCK", "/tmp/agent"),
        ("MONKEY", "1"),
        ("HTTP_PROXY", "http://proxy:3128"),
    ],
)
def test_names_of_other_variables(name: str, value: str) -> None:
    assert not is_confidential(name, value)


def test_what_a_process_prints_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "value-of-mine")
    out, errors = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)
    with filtered_output(Masker(os.environ)):
        print("one value-of-mine", "two", flush=True)
        print("three value-of-mine", file=sys.stderr)
        sys.stdout.writelines(["a\n", "value-of-mine\n"])
    print("after")
    assert out.getvalue() == "one *** two\na\n***\nafter\n"
    assert errors.getvalue() == "three ***\n"


def test_a_file_of_secrets_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"MY_THING": "value-of-mine"}))
    monkeypatch.delenv("MY_THING", raising=False)
    monkeypatch.setenv("VASEVQA_SECRETS", "OTHER")
    for _ in range(2):  # the container may be started again
        monkeypatch.setenv("VASEVQA_SECRET_FILE", str(path))
        add_secrets()
        assert os.environ["MY_THING"] == "value-of-mine"
        assert not path.exists()
    assert Masker(os.environ)("value-of-mine") == "***"
    monkeypatch.delenv("MY_THING")


def test_a_long_line_costs_no_more_than_its_length() -> None:
    """Each of these lines would take hours if the patterns tried all ways to divide it."""
    for text in ("eyJaaaaaaaaaa-" * 20_000, "://" + "a:" * 300_000, "-----BEGIN A PRIVATE KEY-----" * 10_000):
        assert len(Masker(ENVIRON)(text)) > 0
    assert confidential.TOKEN.search("sk-" + "a-" * 100_000) is None
