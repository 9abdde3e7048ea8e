"""One writer an artifact, whoever wakes up late."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from vasevqa.artifacts.lease import Lease, LeaseHeld, bury, holder, revoke
from vasevqa.errors import LeaseLost


def age(path: Path, seconds: float) -> None:
    """Make the lease look as if its holder had been silent for `seconds`."""
    stat = path.stat()
    os.utime(path, (stat.st_atime - seconds, stat.st_mtime - seconds))


def foreign(path: Path) -> None:
    """Pretend that the holder runs on another machine, where its process can't be looked at."""
    path.write_text(path.read_text().replace('"boot": "', '"boot": "elsewhere-'))


def test_a_second_attempt_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    lease = Lease.acquire(tmp_path / "k.lease", "one")
    with pytest.raises(LeaseHeld) as refused:
        Lease.acquire(tmp_path / "k.lease", "two")
    assert refused.value.holder.attempt == "one"
    lease.release()
    Lease.acquire(tmp_path / "k.lease", "two").release()
    assert not (tmp_path / "k.lease").exists()


def test_a_dead_process_of_this_machine_holds_nothing(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from vasevqa.artifacts.lease import Lease;"
        " Lease.acquire(Path(sys.argv[1]), 'one')"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "k.lease")], check=True)
    assert (tmp_path / "k.lease").exists()
    assert holder(tmp_path / "k.lease") is None
    Lease.acquire(tmp_path / "k.lease", "two").release()


def test_a_silent_holder_elsewhere_is_replaced_after_its_time_only(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    Lease.acquire(path, "one")
    foreign(path)
    age(path, 20)
    with pytest.raises(LeaseHeld):
        Lease.acquire(path, "two", ttl=60)
    age(path, 100)
    second = Lease.acquire(path, "two", ttl=60)
    assert second.held()


def test_a_late_writer_neither_refreshes_nor_removes_its_successors_lease(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    late = Lease.acquire(path, "late", ttl=0.06)
    foreign(path)
    # The file was rewritten in place, so `late` still holds it until it goes stale.
    assert late.held()
    age(path, 100)
    successor = Lease.acquire(path, "successor", ttl=60)
    before = path.stat().st_mtime_ns
    lost = threading.Event()
    late.keep(on_lost=lost.set)
    assert lost.wait(10)
    with pytest.raises(LeaseLost):
        late.check()
    late.release()
    assert successor.held()
    assert path.stat().st_mtime_ns == before


def test_of_many_that_find_a_stale_lease_one_gets_it(tmp_path: Path) -> None:
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
    assert won[0].held()


def test_a_damaged_lease_file_expires_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    path.write_text("{broken")
    with pytest.raises(LeaseHeld):
        Lease.acquire(path, "two", ttl=60)
    age(path, 1000)
    assert Lease.acquire(path, "two", ttl=60).held()


def test_revoking_needs_the_right_attempt(tmp_path: Path) -> None:
    path = tmp_path / "k.lease"
    lease = Lease.acquire(path, "one")
    revoke(path, "another")
    assert lease.held()
    revoke(path, "one")
    assert not lease.held()


def test_a_process_stopped_past_its_time_writes_nothing_after_it_wakes(tmp_path: Path) -> None:
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
    assert successor.held()


# In a cluster: a launcher's container, or its pod, is another one after a crash.


def test_a_restarted_container_knows_its_predecessor_to_be_dead(
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
    assert holder(path) is not None  # it may live: another pod can't know


def test_a_lease_is_taken_from_a_pod_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VASEVQA_POD_UID", "pod-1")
    path = tmp_path / "launcher.lease"
    Lease.acquire(path, "launcher-7")
    path.write_text(json.dumps({**json.loads(path.read_text()), "host": "elsewhere"}))
    monkeypatch.setenv("VASEVQA_POD_UID", "pod-2")
    bury(path, lambda pod: False)
    assert holder(path) is not None
    bury(path, lambda pod: pod == "pod-1")
    assert holder(path) is None
    bury(path, lambda pod: True)  # nothing there


def test_leases_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.lease"
    Lease.acquire(path, "attempt")
    old = json.loads(path.read_text())
    del old["pod"]
    path.write_text(json.dumps(old))
    found = holder(path)
    assert found is not None
    assert found.attempt == "attempt"
