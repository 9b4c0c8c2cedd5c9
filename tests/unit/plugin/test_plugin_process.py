"""What a plugin does to the agent's process: signals, hanging, forks, output, threads."""

import subprocess
import sys

AGENT = """
import os, signal, sys, time
from krie.plugin.isolation import Isolation
faults = []
isolation = Isolation(lambda fault: faults.append(fault.error))
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCONT):
    signal.signal(number, lambda *_: None)
isolation.watch.start()

def call(function, hook="krie_decided"):
    return isolation.call("bad", hook, "failed", function)

def handlers():
    return [signal.getsignal(number).__name__ for number in (signal.SIGTERM, signal.SIGALRM)]
"""


def in_an_agent(code: str) -> list[str]:
    """What code says that calls a plugin's functions as an agent does, in a process of its own."""
    done = subprocess.run([sys.executable, "-I", "-c", AGENT + code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_handler_of_signals_is_put_back() -> None:
    said = in_an_agent(
        "call(lambda: [signal.signal(each, signal.SIG_IGN) for each in (signal.SIGTERM, signal.SIGALRM)])\n"
        "print(faults, *handlers())"
    )
    assert said == [
        "['MisbehavedError: it changed how SIGTERM is handled, which was put back'] <lambda> _interrupt",
    ]


def test_who_hangs_is_interrupted() -> None:
    said = in_an_agent(
        "import krie.plugin.watch\n"
        "krie.plugin.watch._INTERRUPTED_AFTER_S['krie_decided'] = 0.5\n"
        "def stubborn():\n"
        "    while True:\n"
        "        try:\n"
        "            time.sleep(100)\n"
        "        except Exception:\n"
        "            pass\n"
        "print(call(stubborn), faults)\n"
        "def busy():\n"
        "    while True: pass\n"
        "print(call(busy), len(faults))"
    )
    assert said[0].startswith("failed ['OverdueError: it was interrupted after ")
    assert said[1] == "failed 1"


def test_a_forked_process_does_not_go_on_as_an_agent() -> None:
    said = in_an_agent(
        "tgid = os.getpid()\n"
        "child = call(os.fork)\n"
        "print('returned', flush=True)\n"
        "status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "print(child > 0, os.getpid() == tgid, status, faults, flush=True)\n"
        "def fork_and_raise():\n"
        "    if not os.fork(): raise ValueError\n"
        "call(fork_and_raise)\n"
        "print('returned', flush=True)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]), faults)\n"
    )
    assert said == ["returned", "True True 1 []", "returned", "1 []"]


OUTPUT = """
import os
from krie.agent.main import _own_output
journal = _own_output()
print("a plugin", flush=True)
os.system("echo its shell")
os.close(1)
os.system("echo what it starts then")
os.write(journal, b"a line\\n")
"""


def test_what_a_plugin_prints_or_closes_is_not_the_journals_output() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", OUTPUT], capture_output=True, text=True, check=True)
    assert done.stdout == "a line\n"
    assert done.stderr.startswith("a plugin\nits shell\n")


THREAD = """
import runpy, sys, threading, time
threading.Thread(target=time.sleep, args=(10_000,)).start()
sys.argv = ["krie-agent", "--config=none"]
runpy.run_module("krie.agent", run_name="__main__")
"""


def test_threads_of_a_plugin_are_not_waited_for() -> None:
    done = subprocess.run([sys.executable, "-I", "-c", THREAD], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "krie: none: cannot be read: No such file or directory\n")
