"""Leases: each artifact has only one writer. A process that lost its lease while suspended can't write later."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from queue import Queue

import pytest

from vasevqa.artifacts.lease import Lease, LeaseHeld, Loss, bury, holder, revoke
from vasevqa.errors import TRANSIENT_ERRNOS, LeaseLost


def age(path: Path, seconds: float) -> None:
    """Set the lease's time back, as if the holder had not touched it for `seconds`."""
    stat = path.stat()
    os.utime(path, (stat.st_atime - seconds, stat.st_mtime - seconds))


def foreign(path: Path) -> None:
    """Pretend that the holder runs on another machine, where its process can't be checked."""
    path.write_text(path.read_text().replace('"boot": "', '"boot": "elsewhere-'))


def test_a_second_attempt_is_refused_while_the_first_attempt_runs(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path / "k.lease", "one")
    with pytest.raises(LeaseHeld) as refused:
        Lease.acquire(tmp_path / "k.lease", "two")
    assert refused.value.holder.attempt == "one"
    lease.release()
    Lease.acquire(tmp_path / "k.lease", "two").release()
    assert not (tmp_path / "k.lease").exists()


def test_a_dead_process_on_this_machine_holds_no_lease(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vasevqa.artifacts.lease import Lease;"
        " Lease.acquire(Path(sys.argv[1]), 'one')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "k.lease")], check=True)
    assert (tmp_path / "k.lease").exists()
    assert holder(tmp_path / "k.lease") is None
    Lease.acquire(tmp_path / "k.lease", "two").release()


def test_a_silent_holder_on_another_machine_is_replaced_only_after_the_ttl(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    Lease.acquire(path, "one")
    foreign(path)
    age(path, 20)
    with pytest.raises(LeaseHeld):
        Lease.acquire(path, "two", ttl=60)
    age(path, 100)
    second = Lease.acquire(path, "two", ttl=60)
    assert second.loss() is None


def test_a_late_writer_neither_refreshes_nor_removes_its_successors_lease(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    late = Lease.acquire(path, "late", ttl=0.06)
    foreign(path)
    # The file was rewritten in place, so `late` still holds the lease until the lease is stale.
    assert late.loss() is None
    age(path, 100)
    successor = Lease.acquire(path, "successor", ttl=60)
    before = path.stat().st_mtime_ns
    lost: Queue[Loss] = Queue()
    late.keep(on_lost=lost.put)
    assert lost.get(timeout=10).taken_over
    with pytest.raises(LeaseLost, match="to another attempt") as told:
        late.check()
    assert told.value.taken_over
    late.release()
    assert successor.loss() is None
    assert path.stat().st_mtime_ns == before


def test_only_one_of_many_processes_gets_a_stale_lease(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    Lease.acquire(path, "old")
    foreign(path)
    age(path, 1000)
    won: list[Lease] = []
    refused: list[LeaseHeld] = []
    barrier = threading.Barrier(8)

    def contend(number: int) -> None:
        barrier.wait()
        try:
            won.append(Lease.acquire(path, f"new-{number}", ttl=60))
        except LeaseHeld as held:
            refused.append(held)

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(refused) == 7
    assert won[0].loss() is None


def test_a_damaged_lease_file_expires_after_the_ttl(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    path.write_text("{broken")
    with pytest.raises(LeaseHeld):
        Lease.acquire(path, "two", ttl=60)
    age(path, 1000)
    assert Lease.acquire(path, "two", ttl=60).loss() is None


def test_only_the_lease_of_the_named_attempt_is_revoked(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    lease = Lease.acquire(path, "one")
    revoke(path, "another")
    assert lease.loss() is None
    revoke(path, "one")
    assert lease.loss() is not None


def test_a_process_suspended_longer_than_the_ttl_writes_nothing_afterwards(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from vasevqa.artifacts.output import StageOutput
        from vasevqa.artifacts.lease import Lease
        lease = Lease.acquire(Path(sys.argv[1]), "late", ttl=0.5)
        output = StageOutput(Path(sys.argv[2]), lease)
        output.write_text("result.txt", "first")
        print("ready", flush=True)
        sys.stdin.readline()
        output.write_text("result.txt", "late")
        """)
    lease, folder = tmp_path / "k.lease", tmp_path / "k.partial"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lease), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as late:
        assert late.stdout is not None
        assert late.stdout.readline() == "ready\n"
        late.send_signal(signal.SIGSTOP)
        age(lease, 100)
        successor = Lease.acquire(lease, "successor", ttl=0.5)
        (folder / "result.txt").write_text("successor")
        late.send_signal(signal.SIGCONT)
        _, errors = late.communicate("go\n")
    assert "LeaseLost" in errors
    assert late.returncode != 0
    assert (folder / "result.txt").read_text() == "successor"
    assert [path.name for path in folder.iterdir()] == ["result.txt"]
    assert successor.loss() is None


# In a cluster, a launcher has a new container or a new pod after a crash.


def test_a_restarted_container_knows_that_its_predecessor_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VASEVQA_POD_UID", "pod-1")
    path = tmp_path / "launcher.lease"
    Lease.acquire(path, "launcher-7")
    assert holder(path) is not None
    before = json.loads(path.read_text())
    path.write_text(json.dumps({**before, "namespace": "pid:[1]"}))
    assert holder(path) is None
    monkeypatch.setenv("VASEVQA_POD_UID", "pod-2")
    assert holder(path) is not None  # another pod can't know whether the holder still runs


def test_a_lease_is_taken_from_a_pod_that_no_longer_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASEVQA_POD_UID", "pod-1")
    path = tmp_path / "launcher.lease"
    Lease.acquire(path, "launcher-7")
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
    monkeypatch.setenv("VASEVQA_POD_UID", "pod-2")
    bury(path, lambda pod: False)
    assert holder(path) is not None
    bury(path, lambda pod: pod == "pod-1")
    assert holder(path) is None
    bury(path, lambda pod: True)  # there is no lease


def test_leases_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    Lease.acquire(path, "attempt")
    old = json.loads(path.read_text())
    del old["pod"]
    path.write_text(json.dumps(old))
    found = holder(path)
    assert found is not None
    assert found.attempt == "attempt"


def test_a_storage_error_does_not_end_the_heartbeat(tmp_path: Path) -> None:
    folder, away = tmp_path / "step", tmp_path / "away"
    lost: Queue[Loss] = Queue()
    lease = Lease.acquire(folder / "k.lease", "one", ttl=0.06)
    lease.keep(lost.put)
    folder.rename(away)
    folder.touch()  # each access to the lease now fails
    file = away / "k.lease"
    for _ in range(3):
        before = file.stat().st_mtime_ns
        while file.stat().st_mtime_ns == before:
            assert lost.empty()
            time.sleep(0.005)
    folder.unlink()
    away.rename(folder)
    assert lease.loss() is None
    revoke(folder / "k.lease", "one")
    assert lost.get(timeout=60).taken_over


@pytest.mark.parametrize("number", TRANSIENT_ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["stat", "utime"])
def test_a_lease_that_can_not_be_touched_stops_writing_after_half_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    now, fails = [1000.0], [True]
    lease = Lease.acquire(tmp_path / "k.lease", "one", ttl=60)
    real = {"stat": Path.stat, "utime": os.utime}[call]

    def failing(*given: object, **how: object) -> object:
        if fails[0]:
            raise OSError(number, os.strerror(number))
        return real(*given, **how)  # type: ignore[operator]

    monkeypatch.setattr(Path if call == "stat" else os, call, failing)
    monkeypatch.setattr("vasevqa.artifacts.lease.time.monotonic", lambda: lease._touched + now[0])
    now[0] = 20
    lease.check()
    now[0] = 31
    with pytest.raises(LeaseLost, match=r"could not touch .*k\.lease for 30 s .*check the volume") as lost:
        lease.check()
    assert (lost.value.exit_code, lost.value.taken_over) == (75, False)
    fails[0] = False
    lease.check()


def test_the_heartbeat_tells_a_long_silence_once_and_goes_on(tmp_path: Path) -> None:
    lost: Queue[Loss] = Queue()
    lease = Lease.acquire(tmp_path / "k.lease", "one", ttl=0.3)
    descriptor, lease._descriptor = lease._descriptor, -1  # every touch fails from now on
    beats, real = [0], lease.loss

    def counted() -> Loss | None:
        beats[0] += 1
        return real()

    lease.loss = counted  # type: ignore[method-assign]
    lease.keep(lost.put)
    loss = lost.get(timeout=60)
    assert not loss.taken_over
    assert "could not touch" in str(loss)
    before = beats[0]
    while beats[0] < before + 3:
        time.sleep(0.01)
    lease._descriptor = descriptor  # the storage works again
    age(tmp_path / "k.lease", 1000)
    old = (tmp_path / "k.lease").stat().st_mtime_ns
    while (tmp_path / "k.lease").stat().st_mtime_ns == old:
        time.sleep(0.01)
    assert real() is None
    assert lost.empty()
    lease.release()
    assert not (tmp_path / "k.lease").exists()


def test_a_lease_that_can_not_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="Input/output error"):
        patched.setattr(os, "write", full)
        Lease.acquire(tmp_path / "k.lease", "one")
    assert [path.name for path in tmp_path.iterdir()] == ["k.lease.lock"]
    Lease.acquire(tmp_path / "k.lease", "two").release()
