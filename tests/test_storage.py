"""Errors of the storage that may pass: tried again, told in one sentence, never blamed on the content."""

from __future__ import annotations

import errno
import socket
import ssl
import urllib.error
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import requests

from vasevqa.errors import (
    STORAGE_ERRNOS,
    TRANSIENT_ERRNOS,
    GpuMemoryError,
    HostMemoryError,
    StorageError,
    TransientStorageError,
    VaseError,
    storage_error,
)
from vasevqa.storage import PAUSES, patiently, refuse_failed


class Ill:
    """A file that fails a number of times."""

    def __init__(self, number: int, times: int) -> None:
        self.number, self.times, self.calls = number, times, 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise OSError(self.number, "it failed", "/x/y.jpg")
        return "content"


@pytest.mark.parametrize("number", TRANSIENT_ERRNOS, ids=errno.errorcode.get)
def test_what_may_pass_is_tried_for_about_two_seconds(number: int) -> None:
    slept: list[float] = []
    ill = Ill(number, len(PAUSES))
    assert patiently(ill, "/x/y.jpg", sleep=slept.append) == "content"
    assert slept == list(PAUSES)
    assert 1 < sum(slept) < 2.5
    with pytest.raises(TransientStorageError, match=r"^Could not read /x/y\.jpg: [^:]*\(E[A-Z]+\); another") as told:
        patiently(Ill(number, 99), "/x/y.jpg", sleep=slept.append)
    assert errno.errorcode[number] in str(told.value)
    assert (told.value.exit_code, told.value.retry) == (75, True)


@pytest.mark.parametrize("number", STORAGE_ERRNOS, ids=errno.errorcode.get)
def test_what_a_restart_can_not_mend_is_told_at_once(number: int) -> None:
    ill = Ill(number, 99)
    with pytest.raises(StorageError, match=r"^Could not read /x/y\.jpg: ") as told:
        patiently(ill, "/x/y.jpg")
    assert (told.value.exit_code, ill.calls) == (74, 1)


def test_a_call_without_memory_is_tried_again_and_then_told_as_memory() -> None:
    slept: list[float] = []
    assert patiently(Ill(errno.ENOMEM, 2), "/x/y.jpg", sleep=slept.append) == "content"
    with pytest.raises(HostMemoryError, match=r"^Could not read /x/y\.jpg: .*\(ENOMEM\); lower the batch size") as told:
        patiently(Ill(errno.ENOMEM, 99), "/x/y.jpg", sleep=slept.append)
    assert told.value.exit_code == 71
    assert slept == [*PAUSES[:2], *PAUSES]


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(FileNotFoundError):
        patiently(Ill(errno.ENOENT, 99), "/x/y.jpg")
    assert storage_error(ValueError("no image"), "read") is None
    assert storage_error(OSError("image file is truncated (5 bytes not processed)"), "read") is None


def test_a_wrapped_error_is_found() -> None:
    def raised(error: Exception, cause: Exception | None = None, hidden: Exception | None = None) -> Exception:
        try:
            try:
                raise hidden or KeyError("x")
            except Exception:
                raise error from cause
        except Exception as found:
            return found

    low = OSError(errno.ESTALE, "Stale file handle", "/x/model.safetensors")
    for error in (
        raised(ValueError("damaged"), cause=low),
        raised(ValueError("damaged"), hidden=low),
        raised(ValueError("I/O error: Stale file handle (os error 116)")),
        raised(OSError("[Errno 116] Error reading bytes from file")),
    ):
        assert "(ESTALE)" in str(storage_error(error, "read", "/x"))


def test_a_hub_that_is_slow_is_no_storage() -> None:
    away = RuntimeError("the hub did not answer")
    away.__cause__ = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    assert storage_error(away, "read") is None
    away.__cause__ = TimeoutError(errno.ETIMEDOUT, "Connection timed out", "/x")
    assert storage_error(away, "read") is not None


def _connected() -> None:
    socket.socket().makefile("rb").read(1)  # the socket is not connected


def _certified() -> None:
    raise ssl.SSLCertVerificationError(errno.EPERM, "certificate verify failed")


def _broken_off() -> None:
    raise ssl.SSLError(errno.EIO, "A failure in the SSL library occurred")


def _opened() -> None:
    raise urllib.error.URLError(TimeoutError(errno.ETIMEDOUT, "Connection timed out"))


def _requested() -> None:
    try:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
    except TimeoutError as low:
        raise requests.ConnectionError("Failed to establish a new connection: [Errno 110] timed out") from low


def _downloaded() -> None:
    try:
        try:
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        except TimeoutError as low:
            raise httpx.ConnectTimeout("timed out") from low
    except httpx.ConnectTimeout as cause:
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files") from cause


@pytest.mark.parametrize("fails", [_connected, _certified, _broken_off, _opened, _requested, _downloaded])
@pytest.mark.parametrize("path", [None, Path("openai/clip-vit-base-patch32")])
def test_an_error_of_a_connection_is_no_error_of_the_storage(fails: Callable[[], None], path: Path | None) -> None:
    with pytest.raises(OSError) as raised:
        fails()
    assert storage_error(raised.value, "read or write", path) is None


def test_a_file_that_fails_during_a_download_is_an_error_of_the_storage() -> None:
    for low in (OSError(errno.ETIMEDOUT, "Connection timed out", "/cache/model"), OSError(errno.EIO, "I/O error")):
        wrapped = httpx.ReadError("the download failed")
        wrapped.__cause__ = low
        assert isinstance(storage_error(wrapped, "read or write"), TransientStorageError)


def test_a_library_that_hides_the_cause_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"x")
    refuse_failed(ValueError("damaged"), tmp_path)
    refuse_failed(ValueError("damaged"), tmp_path / "missing")

    def ill(path: Path, *given: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "open", ill)
    with pytest.raises(TransientStorageError, match=r"model\.safetensors: "):
        refuse_failed(ValueError("damaged"), tmp_path)


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (MemoryError(), HostMemoryError, "lower the batch size or the workers, or raise the step's memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), HostMemoryError, "raise the step's memory"),
        (
            RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"),
            HostMemoryError,
            "raise the step's memory",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), HostMemoryError, "raise the step's memory"),
        (ValueError("I/O error: Cannot allocate memory (os error 12)"), HostMemoryError, "raise the step's memory"),
        (RuntimeError("CUDA error: out of memory"), GpuMemoryError, "lower the batch size, or use a larger GPU"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_memory_that_runs_out_is_not_blamed_on_the_content(
    tmp_path: Path, error: Exception, kind: type[VaseError], advice: str, wrapped: bool
) -> None:
    raised = ValueError("the model can't be read") if wrapped else error
    raised.__cause__ = error if wrapped else None
    with pytest.raises(kind, match=f"{tmp_path}[^\\n]*; [^\\n]*{advice}[^.]*\\.$") as told:
        refuse_failed(raised, tmp_path)
    assert type(told.value) is kind
