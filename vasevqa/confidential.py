"""Recognize confidential values, such as tokens and passwords, and mask them in text.

Logs, events and reports show a mask instead of a confidential value.
"""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

# Tokens of the hubs that models are downloaded from. Only a stage that may reach a hub gets them.
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "MODELSCOPE_API_TOKEN")
SECRET_FILE = "VASEVQA_SECRET_FILE"  # noqa: S105 - a variable with the path of a file for `add_secrets`
NAMED = "VASEVQA_SECRETS"  # a variable with the names of further confidential variables, separated by commas
MASK = "***"
SHORTEST = 6  # characters; a shorter value is not masked, because it may be a part of other words

# These words mark a secret only at the end of a name: HF_TOKEN_PATH, for example, is not a secret.
_NAME = re.compile(
    r"(TOKEN|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASES?|PASSCODE|API_?KEYS?|(ACCESS|PRIVATE|SECRET|SIGNING|LICENSE)_?KEY"
    r"|ACCESS_?KEY_?ID|JWT|COOKIES?|BEARER|WEBHOOK(_URL)?|CONNECTION_?STRING"
    r"|(^|_)(PASS|PAT|PWD|PW|KEY|AUTH|AUTHORIZATION|CREDS|DSN|OTP|PSK|SAS))$",
    re.IGNORECASE,
)
_FILE_OR_VALUE = re.compile(r"(CREDENTIALS?|KEYTAB)$", re.IGNORECASE)  # such a variable often holds a path
_NO_SECRETS = {"PWD", "OLDPWD"}  # the shell's working folder
# Tokens with a known prefix: GitHub, GitLab, Hugging Face, OpenAI, npm, PyPI, Docker, Google, AWS, Slack, JSON web
# tokens, and private keys in PEM.
TOKEN = re.compile(
    r"\b(?:(?:gh[pousr]_|github_pat_|glpat-|glrt-|hf_|npm_|pypi-|dckr_pat_|ya29\.)[A-Za-z0-9_-]{16,}"
    r"|sk-[A-Za-z0-9_-]{0,200}[A-Za-z0-9]{20}[A-Za-z0-9_-]*"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}\b|AIza[0-9A-Za-z_-]{35}|xox[abeprs]-[\w-]{10,}"
    r"|eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]+)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[\s\\nrA-Za-z0-9+/=]*-----END [A-Z ]*PRIVATE KEY-----)?"
)
_USER_INFO = re.compile(r"(?<=://)[^/?#\s@\"'<>]+(?=@)")  # the user, or user:password, in a URL


def has_password(name: str, value: str) -> bool:
    """Return True if the variable's value is a URL that contains a user name or password."""
    return "@" in value if name.upper().endswith("_PROXY") else re.search(r"://[^/?#\s]*@", value) is not None


def is_confidential(name: str, value: str) -> bool:
    """Return True if the variable looks like a password, token or key, by its name or its value."""
    if name.upper() not in _NO_SECRETS and (_NAME.search(name) or name in HUB_TOKENS):
        return True
    if _FILE_OR_VALUE.search(name) and not value.startswith(("/", "~")):
        return True
    return TOKEN.search(value) is not None or has_password(name, value)


def confidential_values(environ: Mapping[str, str]) -> set[str]:
    """Return the confidential values in an environment, and the passwords in these values."""
    named = {name.strip() for name in environ.get(NAMED, "").split(",")}
    values: set[str] = set()
    for name, value in environ.items():
        if name != NAMED and (name in named or is_confidential(name, value)):
            values |= {value, *_passwords(name, value)}
    return {value for value in values if len(value) >= SHORTEST and not _is_path(value)}


def _is_path(value: str) -> bool:
    return value.startswith("/") and os.path.exists(value)  # noqa: PTH110 - Path.exists raises for a long name


def _passwords(name: str, value: str) -> Iterator[str]:
    if not has_password(name, value):
        return
    user_info = value.rpartition("@")[0].rpartition("://")[2]
    yield user_info
    password = user_info.partition(":")[2]
    yield from (password, unquote(password))


class Masker:
    """Replaces confidential values in texts.

    `environ` is the environment that holds the values. `named` are the names of further confidential variables.
    """

    def __init__(self, environ: Mapping[str, str], named: Iterable[str] = ()) -> None:
        written: set[str] = set()
        for value in confidential_values({**environ, NAMED: ",".join([environ.get(NAMED, ""), *named])}):
            written |= {value, json.dumps(value)[1:-1], quote(value, safe=""), html.escape(value), repr(value)[1:-1]}
            written |= {line for line in value.splitlines() if len(line) >= SHORTEST}
        longest_first = sorted(written, key=lambda value: (-len(value), value))
        self._values = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """Return `text` with a mask in place of each confidential value, each token, and each password in a URL."""
        if self._values is not None:
            text = self._values.sub(MASK, text)
        return _USER_INFO.sub(lambda found: MASK if ":" in found[0] else found[0], TOKEN.sub(MASK, text))

    def within(self, value: Any) -> Any:
        """Return a copy of the JSON value `value` in which all texts are masked, but not the keys of objects."""
        if isinstance(value, str):
            return self(value)
        if isinstance(value, Mapping):
            return {key: self.within(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.within(inner) for inner in value]
        return value


def add_secrets() -> None:
    """Read confidential variables from a file into this process's environment, and delete the file.

    The environment variable VASEVQA_SECRET_FILE holds the path of the file. A launcher writes the file for one
    container, so that the engine doesn't know the values. If there is no file, do nothing.
    """
    path = Path(os.environ.pop(SECRET_FILE, ""))
    try:
        variables: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
    except (FileNotFoundError, IsADirectoryError):
        return
    os.environ.update(variables)
    os.environ[NAMED] = ",".join([*filter(None, [os.environ.get(NAMED)]), *variables])
