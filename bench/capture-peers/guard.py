"""Runs a server for as long as standard input is open, and ends it whatever became of whoever opened it.

    python guard.py COMMAND [ARGUMENT...]

Whoever starts this holds the other end of the pipe. When it closes it, or is interrupted, or killed, the pipe is at its
end: then the server and the processes it started are told to stop (SIGTERM), and killed if they do not within 30 seconds.
They are a process group of their own, and nothing else is touched. The exit code is that of the server.
"""

import os
import select
import signal
import subprocess
import sys
import time

PATIENCE = 30.0


def is_there(group, server):
    """Whether a process of the group is left."""
    server.poll()  # A process that has ended and was not waited for would still count.
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def tell(group, which):
    try:
        os.killpg(group, which)
    except ProcessLookupError:
        pass


def end(server):
    group = server.pid
    tell(group, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while is_there(group, server) and time.monotonic() < deadline:
        time.sleep(0.02)
    tell(group, signal.SIGKILL)


def main():
    # What is typed at the terminal reaches everybody; the pipe says when it is time.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=heed)
    while server.poll() is None:
        readable, _, _ = select.select([sys.stdin], [], [], 0.1)
        if readable and not os.read(sys.stdin.fileno(), 4096):
            break
    # Also where the server ended by itself: what it started may not have.
    end(server)
    return server.wait()


def heed():
    """What is ignored here is not to be ignored there."""
    for heeded in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(heeded, signal.SIG_DFL)


if __name__ == "__main__":
    code = main()
    sys.exit(code if code >= 0 else 128 - code)
