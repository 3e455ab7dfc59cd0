"""Child processes: output, failure, and that nothing is left behind however a command is left."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from srgpt import process
from srgpt.errors import SrgptError
from srgpt.process import CommandError, capture, end_group, group_alive, run, spawn, start

PY = sys.executable

# Writes its own pid and its child's to the file, then both sleep. "own" puts the child into a group of its
# own, "deaf" makes both ignore SIGTERM.
FAMILY = """
import os, signal, subprocess, sys, time
modes = sys.argv[2].split(",")
if "deaf" in modes: signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import time; time.sleep(300)"
if "deaf" in modes: code = "import signal; signal.signal(15, signal.SIG_IGN); " + code
child = subprocess.Popen([sys.executable, "-c", code], start_new_session="own" in modes)
with open(sys.argv[1] + ".tmp", "w") as f: f.write(f"{os.getpid()} {child.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
print("ready", flush=True)
time.sleep(300)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def pids(file: Path) -> list[int]:
    until(file.exists)
    return [int(p) for p in file.read_text().split()]


def family(file: Path, modes: str = "plain") -> list[str]:
    return [PY, "-c", FAMILY, str(file), modes]


def test_output_comes_line_by_line_from_both_streams() -> None:
    lines: list[str] = []
    code = "import sys; print('1', flush=True); print('2', file=sys.stderr, flush=True); print('3', end='')"
    run([PY, "-c", code], on_line=lines.append)
    assert lines == ["1", "2", "3"]


def test_lines_arrive_while_the_command_runs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = f"""
import os, time
print('first', flush=True)
while not os.path.exists({str(go)!r}): time.sleep(.01)
print('last')
"""
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        go.touch()  # the command only ends because its first line was seen

    run([PY, "-c", code], on_line=on_line)
    assert lines == ["first", "last"]


def test_output_that_is_not_utf8_is_decoded_with_replacement() -> None:
    lines: list[str] = []
    code = r"import sys; sys.stdout.buffer.write(b'caf\xc3\xa9 \xff\r50%\r100%\n')"
    run([PY, "-c", code], on_line=lines.append)
    assert lines == ["café \ufffd", "50%", "100%"]


def test_an_endless_line_is_passed_on_in_pieces() -> None:
    lines: list[str] = []
    run([PY, "-c", "print('x' * 300_000)"], on_line=lines.append)
    assert sum(map(len, lines)) == 300_000
    assert len(lines) > 1


def test_failure_carries_code_and_last_lines() -> None:
    code = "import sys; [print(i) for i in range(100)]; sys.exit(3)"
    with pytest.raises(CommandError, match="ended with exit code 3") as caught:
        run([PY, "-c", code], on_line=lambda _: None, tail=5)
    assert caught.value.code == 3
    assert caught.value.lines == ["95", "96", "97", "98", "99"]
    assert str(caught.value).endswith("  | 98\n  | 99")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_failure_by_signal_names_it() -> None:
    with pytest.raises(CommandError, match="was ended by SIGKILL"):
        run([PY, "-c", "import os; os.kill(os.getpid(), 9)"])


def test_missing_program() -> None:
    with pytest.raises(SrgptError, match="cannot start `no-such-program`: No such file or directory"):
        run(["no-such-program"])
    assert capture(["no-such-program"]) is None


def test_environment_and_folder(tmp_path: Path) -> None:
    lines: list[str] = []
    code = "import os; print(os.environ['SRGPT_TEST']); print(os.getcwd())"
    run([PY, "-c", code], cwd=tmp_path, env={"SRGPT_TEST": "yes"}, on_line=lines.append)
    assert lines == ["yes", str(tmp_path)]


def test_capture() -> None:
    assert capture([PY, "-c", "print(' x ')"]) == "x"
    assert capture([PY, "-c", "raise SystemExit(1)"]) is None
    assert capture([PY, "-c", "import time; time.sleep(60)"], timeout=0.2) is None


@pytest.mark.parametrize("modes", ["plain", "own"])
def test_an_error_while_reading_ends_the_whole_family(tmp_path: Path, modes: str) -> None:
    def fail(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="ready"):
        run(family(tmp_path / "pids", modes), on_line=fail)
    assert not any(running(p) for p in pids(tmp_path / "pids"))


def test_who_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    with start(family(tmp_path / "pids", "deaf,own"), pipe=True) as command:
        assert command.stdout is not None
        command.stdout.readline()
        end_group(command.pid, command, grace=0.3)
        assert not any(running(p) for p in pids(tmp_path / "pids"))


def test_background_processes_do_not_hold_the_caller(tmp_path: Path) -> None:
    # the leader ends at once, its child keeps the pipe open
    code = "import subprocess; print(subprocess.Popen(['sleep', '300']).pid)"
    lines: list[str] = []
    run([PY, "-c", code], on_line=lines.append)
    until(lambda: not running(int(lines[0])))


def test_an_error_in_a_thread_ends_the_family(tmp_path: Path) -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            run(family(tmp_path / "pids"), on_line=lambda _: 1 / 0)
        except ZeroDivisionError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)
    assert len(caught) == 1
    assert not any(running(p) for p in pids(tmp_path / "pids"))


def test_an_error_raised_into_a_waiting_thread_ends_the_family(tmp_path: Path) -> None:
    import ctypes

    caught: list[BaseException] = []

    def work() -> None:
        try:
            run(family(tmp_path / "pids"), on_line=lambda _: None)
        except TimeoutError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    found = pids(tmp_path / "pids")
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    raise_in(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeoutError))
    thread.join(30)
    assert len(caught) == 1
    assert not any(running(p) for p in found)


RUNNER = """
import sys
from srgpt.process import run
run(sys.argv[1:], on_line=print)
"""


@pytest.mark.parametrize(
    ("number", "modes"),
    [
        (signal.SIGTERM, "plain"),
        (signal.SIGTERM, "own"),
        (signal.SIGINT, "plain"),
        (signal.SIGINT, "own"),
        (signal.SIGKILL, "plain"),
    ],
)
def test_a_signal_to_the_starter_ends_the_family(tmp_path: Path, number: signal.Signals, modes: str) -> None:
    command = [PY, "-c", RUNNER, *family(tmp_path / "pids", modes)]
    starter = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    found = pids(tmp_path / "pids")
    starter.send_signal(number)
    assert starter.wait(30) in (-number, 1, 130)
    until(lambda: not any(running(p) for p in found))


def test_nested_runs_end_from_the_outermost_even_when_it_is_killed(tmp_path: Path) -> None:
    # as a flow that runs dvc that runs a stage that runs torchrun
    nested = [PY, "-c", RUNNER, PY, "-c", RUNNER, *family(tmp_path / "pids")]
    starter = subprocess.Popen([PY, "-c", RUNNER, *nested])
    found = pids(tmp_path / "pids")
    starter.kill()
    starter.wait(30)
    until(lambda: not any(running(p) for p in found))


def test_sigterm_keeps_its_effect_and_finally_blocks_run(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from srgpt.process import run
try:
    run(sys.argv[1:], on_line=print)
finally:
    Path({str(tmp_path / "finally")!r}).touch()
"""
    starter = subprocess.Popen([PY, "-c", code, *family(tmp_path / "pids")])
    pids(tmp_path / "pids")
    starter.terminate()
    assert starter.wait(30) == -signal.SIGTERM
    assert not (tmp_path / "finally").exists()  # the default effect of SIGTERM, once the children are gone


def test_someone_elses_handler_stays() -> None:
    def handler(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with start([PY, "-c", "pass"]):
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handler_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    run([PY, "-c", "pass"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_service_outlives_its_starter(tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from srgpt.process import spawn
pid = spawn(["sh", "-c", "echo hello; exec sleep 300"], log=Path(sys.argv[1]))
print(pid, flush=True)
time.sleep(300)
"""
    log = tmp_path / "logs" / "service.log"
    service = 0

    def stop(line: str) -> None:
        nonlocal service
        service = int(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([PY, "-c", code, str(log)], on_line=stop)
    assert running(service)
    until(lambda: log.read_text() == "hello\n")
    end_group(service)
    assert not running(service)


def test_ending_what_has_ended_is_quiet() -> None:
    with start([PY, "-c", "pass"]) as command:
        command.wait()
        assert not group_alive(command.pid)
        end_group(command.pid, command)
        end_group(command.pid)


def test_no_descriptors_leak() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        run([PY, "-c", "print(1)"], on_line=lambda _: None)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_spawn_of_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(SrgptError, match="cannot start `no-such-program`"):
        spawn(["no-such-program"], log=tmp_path / "log")


def test_without_proc_groups_still_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_processes", lambda: None)
    with start(family(tmp_path / "pids")):
        found = pids(tmp_path / "pids")
    until(lambda: not any(running(p) for p in found))
