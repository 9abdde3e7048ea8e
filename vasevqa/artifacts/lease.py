"""A lease file, which allows only one writer per artifact.

The file names the attempt that holds the lease. The holder keeps the file open, and touches the file regularly through
the file descriptor. After a takeover, the file name belongs to another inode. So a former holder can neither touch nor
remove the lease of the new holder.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from vasevqa.errors import LeaseLost, StorageError, TransientStorageError
from vasevqa.storage import patiently

DEFAULT_TTL = 60.0  # seconds without a touch after which a holder on another machine is considered dead


def lease_ttl() -> float:
    """Return the age in seconds at which an untouched lease is stale (VASEVQA_LEASE_TTL)."""
    return float(os.environ.get("VASEVQA_LEASE_TTL", DEFAULT_TTL))


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    # Containers on one machine share the boot id but not the process ids.
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """Return the start time of process `pid` in clock ticks since boot, or None if the process isn't running here."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


@dataclass(frozen=True)
class Holder:
    """The holder of a lease."""

    attempt: str
    host: str
    pid: int
    token: str
    boot: str
    namespace: str
    started: str
    pod: str = ""  # UID of the process's Kubernetes pod, if known (VASEVQA_POD_UID)

    @classmethod
    def this_process(cls, attempt: str) -> Holder:
        """Return the Holder for the current process. `attempt` is the attempt that the process works on."""
        pid = os.getpid()
        started = process_start(pid) or ""
        return cls(
            attempt,
            socket.gethostname(),
            pid,
            os.urandom(8).hex(),
            _boot_id(),
            _pid_namespace(),
            started,
            os.environ.get("VASEVQA_POD_UID", ""),
        )

    def dead(self) -> bool:
        """Return True if the holder has certainly ended. Return False if the holder runs, or if this is unknown.

        Only a holder on this machine or in this pod can be checked. If a holder in the same pod has another boot id or
        process namespace, the holder ran in an earlier container, which has ended.
        """
        if (
            self.pod
            and self.pod == os.environ.get("VASEVQA_POD_UID")
            and (self.boot, self.namespace) != (_boot_id(), _pid_namespace())
        ):
            return True
        if (self.boot, self.namespace, self.host) != (_boot_id(), _pid_namespace(), socket.gethostname()):
            return False
        return process_start(self.pid) != self.started


class LeaseHeld(Exception):
    """Another process holds the lease."""

    def __init__(self, holder: Holder) -> None:
        super().__init__(f"attempt {holder.attempt} on {holder.host}")
        self.holder = holder


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Holder("unknown", "", 0, "", "", "", "")


@contextlib.contextmanager
def _guard(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(path.name + ".lock")
    lock = FileLock(file, mode=0o666)  # stage and launcher may have different uids, and both must be able to lock it
    patiently(lock.acquire, file, "lock")
    try:
        # Touch the lock file, so that both compared times come from the clock of the file server.
        os.utime(file)
        yield file
    finally:
        patiently(lock.release, file, "unlock")


def holder(path: Path, ttl: float | None = None) -> Holder | None:
    """Return the current holder of the lease at `path`; None if the lease is free or stale."""
    current = _read(path)
    if current is None or current.dead():
        return None
    try:
        with _guard(path) as lock:
            age = lock.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return None if age > (lease_ttl() if ttl is None else ttl) else current


def revoke(path: Path, attempt: str) -> None:
    """Remove the lease of `attempt`. The caller must know that the attempt has ended."""
    with _guard(path):
        current = _read(path)
        if current is not None and current.attempt == attempt:
            path.unlink(missing_ok=True)


def bury(path: Path, gone: Callable[[str], bool]) -> None:
    """Remove the lease if the holder's pod has ended. `gone(uid)` returns True if the pod with this UID has ended."""
    current = _read(path)
    if (
        current is not None
        and current.pod
        and not current.dead()
        and current.pod != os.environ.get("VASEVQA_POD_UID")
        and gone(current.pod)
    ):
        with _guard(path):
            if _read(path) == current:
                path.unlink(missing_ok=True)


def _write(path: Path, me: Holder) -> int:
    """Write a lease of `me` to `path`, and return the open file descriptor."""
    fresh = path.with_name(f"{path.name}.{me.token}")
    descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, json.dumps(asdict(me)).encode())
        os.replace(fresh, path)
    except BaseException:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise
    return descriptor


@dataclass(frozen=True)
class Loss:
    """Why `attempt` no longer holds its lease: another attempt took it over, or the storage failed.

    After a failure of the storage, `error` is the error message, and `seconds` is how long the lease could not be
    touched. After a takeover, `error` is empty.
    """

    attempt: str
    path: Path
    seconds: float = 0.0
    error: str = ""

    @property
    def taken_over(self) -> bool:
        """True if another attempt has the lease now, or if a launcher has revoked the lease."""
        return not self.error

    def __str__(self) -> str:
        start = f"Attempt {self.attempt} lost its lease on {self.path.parent.name}/{self.path.stem}"
        if self.taken_over:
            return f"{start} to another attempt and stopped writing; no action is needed."
        return (
            f"{start}, because it could not touch {self.path} for {self.seconds:g} s ({self.error}), and stopped"
            " writing; check the volume or its server."
        )


def _said(error: OSError) -> str:
    return error.strerror or type(error).__name__


class Lease:
    """The right to write one artifact.

    Take a lease with `Lease.acquire`, call `check` before each write, and call `release` at the end.
    """

    def __init__(self, path: Path, me: Holder, descriptor: int, ttl: float) -> None:
        self.path = path
        self.me = me
        self.ttl = ttl
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino
        self._stop = threading.Event()
        self._touched = time.monotonic()

    @classmethod
    def acquire(cls, path: Path, attempt: str, ttl: float | None = None) -> Lease:
        """Take the lease if it is free, stale, or held by a dead process. Raise LeaseHeld otherwise."""
        ttl = lease_ttl() if ttl is None else ttl
        with _guard(path) as lock:
            current = _read(path)
            if current is not None and not current.dead() and lock.stat().st_mtime - path.stat().st_mtime <= ttl:
                raise LeaseHeld(current)
            me = Holder.this_process(attempt)
            return cls(path, me, _write(path, me), ttl)

    @classmethod
    def wait(cls, path: Path, attempt: str, seconds: float, ttl: float | None = None) -> Lease:
        """Take the lease like `acquire`, but wait up to `seconds` for the present holder to finish or to die."""
        end = time.monotonic() + seconds
        while True:
            try:
                return cls.acquire(path, attempt, ttl)
            except LeaseHeld:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def loss(self) -> Loss | None:
        """Return why this process no longer holds the lease, or None while it holds the lease.

        The check needs one stat call, and sometimes touches the lease. A single storage error doesn't end the
        lease: the lease counts as lost only after it could not be touched for half its TTL. Another process can take
        it over only after the whole TTL. If the storage works again, this process holds the lease again, unless another
        attempt has taken it over.
        """
        untouched, problem = time.monotonic() - self._touched, ""
        try:
            if self.path.stat().st_ino != self._inode:
                return Loss(self.me.attempt, self.path)
        except FileNotFoundError:
            return Loss(self.me.attempt, self.path)
        except OSError as error:
            problem = _said(error)
        silent = untouched > self.ttl / 2
        # After so long, a touch proves nothing without a stat result: the descriptor may belong to a replaced file.
        if untouched > self.ttl / 8 and not (silent and problem):
            problem = self._touch()
        return Loss(self.me.attempt, self.path, self.ttl / 2, problem) if silent and problem else None

    def _touch(self) -> str:
        """Touch the lease. Return the storage's error, or '' if there was none."""
        now = time.monotonic()
        try:
            os.utime(self._descriptor)
        except OSError as error:
            return _said(error)
        self._touched = now
        return ""

    def check(self) -> None:
        """Raise LeaseLost if this process no longer holds the lease (see `loss`)."""
        loss = self.loss()
        if loss is not None:
            raise LeaseLost(str(loss), loss.taken_over)

    def keep(self, on_lost: Callable[[Loss], None]) -> None:
        """Touch the lease from a thread until `release`, or until another attempt has taken over the lease.

        When the lease is lost, the thread calls `on_lost` once. If a storage error caused the loss, the thread still
        tries to touch the lease after this call.
        """

        def beat() -> None:
            told = False
            while not self._stop.wait(self.ttl / 6):
                loss = self.loss()
                if loss is not None and not told:
                    told = True
                    on_lost(loss)
                if loss is not None and loss.taken_over:
                    return

        threading.Thread(target=beat, name="lease", daemon=True).start()

    def give_up(self) -> None:
        """Stop holding the lease, but keep its file. This is for a lease whose folder was renamed or removed."""
        self._stop.set()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def release(self) -> None:
        """Remove the lease file if this process still holds the lease."""
        self._stop.set()
        with contextlib.suppress(OSError, StorageError, TransientStorageError), _guard(self.path):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
