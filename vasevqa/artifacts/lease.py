"""One writer per artifact: a lease file that names the attempt and that its holder keeps fresh.

The holder keeps the lease file open and touches it through that descriptor. After a takeover the name belongs to
another inode, so a late former holder can neither refresh nor remove its successor's lease.
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

from vasevqa.errors import LeaseLost

DEFAULT_TTL = 60.0  # seconds without a touch after which a holder on another machine counts as dead


def lease_ttl() -> float:
    """Return the seconds after which an untouched lease is stale (VASEVQA_LEASE_TTL)."""
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
    """Return when process `pid` started (clock ticks since boot), or None if it isn't running here."""
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
        """Return a Holder for the current process, which works on `attempt`."""
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
        """True if the holder was a process of this machine that has ended; False if it runs or can't be known.

        In the same pod, another boot id or process namespace belongs to a container that was restarted as this one.
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
    lock = path.with_name(path.name + ".lock")
    with FileLock(lock, mode=0o666):  # stage and launcher may have different uids, and both must be able to lock it
        # Use the volume's clock: both times that are compared then come from the same file server.
        os.utime(lock)
        yield lock


def holder(path: Path, ttl: float | None = None) -> Holder | None:
    """Return the current holder of the lease at `path`; None if it is free or stale."""
    found = _read(path)
    if found is None or found.dead():
        return None
    try:
        with _guard(path) as lock:
            age = lock.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return None if age > (lease_ttl() if ttl is None else ttl) else found


def revoke(path: Path, attempt: str) -> None:
    """Remove the lease of `attempt`, which the caller knows to have ended."""
    with _guard(path):
        found = _read(path)
        if found is not None and found.attempt == attempt:
            path.unlink(missing_ok=True)


def bury(path: Path, gone: Callable[[str], bool]) -> None:
    """Remove the lease of a holder in a pod that has ended; `gone` tells so from the pod's UID."""
    found = _read(path)
    if (
        found is not None
        and found.pod
        and not found.dead()
        and found.pod != os.environ.get("VASEVQA_POD_UID")
        and gone(found.pod)
    ):
        with _guard(path):
            if _read(path) == found:
                path.unlink(missing_ok=True)


class Lease:
    """The right to write one artifact. Use `Lease.acquire`, then `check` before each write and `release` at the end."""

    def __init__(self, path: Path, me: Holder, descriptor: int, ttl: float) -> None:
        self.path = path
        self.me = me
        self.ttl = ttl
        self._descriptor = descriptor
        self._inode = os.fstat(descriptor).st_ino
        self._stop = threading.Event()

    @classmethod
    def acquire(cls, path: Path, attempt: str, ttl: float | None = None) -> Lease:
        """Take the lease if it is free, stale, or held by a dead process; raise LeaseHeld otherwise."""
        ttl = lease_ttl() if ttl is None else ttl
        with _guard(path) as lock:
            found = _read(path)
            if found is not None and not found.dead() and lock.stat().st_mtime - path.stat().st_mtime <= ttl:
                raise LeaseHeld(found)
            me = Holder.this_process(attempt)
            fresh = path.with_name(f"{path.name}.{me.token}")
            descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
            os.write(descriptor, json.dumps(asdict(me)).encode())
            os.replace(fresh, path)
        return cls(path, me, descriptor, ttl)

    @classmethod
    def wait(cls, path: Path, attempt: str, seconds: float, ttl: float | None = None) -> Lease:
        """Like `acquire`, but wait up to `seconds` for the holder to finish or to be found dead."""
        end = time.monotonic() + seconds
        while True:
            try:
                return cls.acquire(path, attempt, ttl)
            except LeaseHeld:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)

    def held(self) -> bool:
        """True while nobody has taken over this lease. One stat call."""
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raise LeaseLost if another attempt owns the artifact now."""
        if not self.held():
            raise LeaseLost(
                f"Attempt {self.me.attempt} lost its lease on {self.path.stem} to another attempt and stopped writing;"
                " no action is needed."
            )

    def keep(self, on_lost: Callable[[], None]) -> None:
        """Touch the lease from a thread until `release`; call `on_lost` once if it was taken over."""

        def beat() -> None:
            while not self._stop.wait(self.ttl / 6):
                with contextlib.suppress(OSError):
                    os.utime(self._descriptor)
                if not self.held():
                    on_lost()
                    return

        threading.Thread(target=beat, name="lease", daemon=True).start()

    def release(self) -> None:
        """Give the lease back if it is still ours."""
        self._stop.set()
        with contextlib.suppress(OSError), _guard(self.path):
            if self.held():
                self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.close(self._descriptor)
