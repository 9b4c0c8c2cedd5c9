"""A process in a user namespace whose users others gave it: Python code that processes of tests begin with."""

CONTAINED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)

class Contained:
    # `inside` runs in a child, in a user namespace whose users are these, once go() is called. `become`: who makes it.
    def __init__(self, inside, users, become=lambda: None):
        (ready, tell), (wait, self._go) = os.pipe(), os.pipe()
        self.tgid = os.fork()
        if not self.tgid:
            become()
            libc.prctl(4, 1, 0, 0, 0)                       # PR_SET_DUMPABLE: or it could not be given its users
            self._unshare(tell)
            os.read(wait, 1)
            inside()
            os._exit(0)
        self.made = os.read(ready, 1) == b"y"               # or whoever it was cannot make one
        if self.made:
            self._give(users)

    def _unshare(self, tell):
        refused = libc.unshare(0x10000000)                  # CLONE_NEWUSER
        os.write(tell, b"n" if refused else b"y")
        if refused:
            os._exit(9)

    def _give(self, users):
        try:
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/{self.tgid}/{name}", "w") as file:
                    file.write(users)
        except OSError:
            self.end()
            raise

    def go(self):
        os.write(self._go, b"x")
        return self.status()

    def end(self):
        os.kill(self.tgid, 9)
        return self.status()

    def status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.tgid, 0)[1])
"""
"""Wants root, who may give others' namespaces their users."""
