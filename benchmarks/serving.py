"""A TensorBoard under measurement: its answers, and the memory of all its processes."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Final

_PROGRAM: Final = """
import sys
from tensorboard import default, program
from tb_nanwatch.plugin.loader import NanWatchLoader
plugins = default.get_static_plugins()
tensorboard = program.TensorBoard(plugins=[*plugins, NanWatchLoader] if sys.argv[1] == "with" else plugins)
tensorboard.configure(argv=["tensorboard", *sys.argv[2:]])
tensorboard.main()
"""
_TIMEOUT_S: Final = 120.0


class TensorBoard:
    """A TensorBoard in a process of its own, with the plugin or without.

    Attributes:
        url: its address.
    """

    def __init__(self, logdir: Path, *, plugin: bool = True) -> None:
        """Start TensorBoard and wait until it listens."""
        which = "with" if plugin else "without"
        command = [sys.executable, "-c", _PROGRAM, which, f"--logdir={logdir}", "--port=0", "--host=127.0.0.1"]
        root = Path(__file__).parent.parent
        self._process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)
        stderr = self._process.stderr or iter(())
        self.url = next(found[0] for found in (re.search(r"http://\S+", line) for line in stderr) if found).rstrip("/")
        # A full pipe would stop the server.
        self._drain = threading.Thread(target=list, args=[stderr], daemon=True)
        self._drain.start()

    def get(self, route: str, **parameters: object) -> bytes:
        """Return the answer of a route of the plugin, unpacked."""
        query = urllib.parse.urlencode(parameters)
        # A browser requests it packed.
        request = urllib.request.Request(
            f"{self.url}/data/plugin/nanwatch/{route}?{query}", headers={"Accept-Encoding": "gzip"}
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            answer: bytes = response.read()
            is_packed = response.headers.get("Content-Encoding") == "gzip"
        return gzip.decompress(answer) if is_packed else answer

    def resident_bytes(self) -> int:
        """Return the resident memory of all its processes."""
        return sum(_resident(process) for process in _family(self._process.pid))

    def settle(self) -> None:
        """Wait until its memory stops growing: until it has read everything."""
        before, still = 0, 0
        until = time.monotonic() + _TIMEOUT_S
        while still < 5 and time.monotonic() < until:
            time.sleep(1)
            now = self.resident_bytes()
            before, still = now, still + 1 if abs(now - before) < 1_000_000 else 0

    def __enter__(self) -> TensorBoard:  # noqa: PYI034 - Self came with Python 3.11
        """Return the server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End TensorBoard, and its data server with it."""
        self._process.terminate()
        try:
            self._process.wait(_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._drain.join(_TIMEOUT_S)
        if self._process.stderr is not None:
            self._process.stderr.close()


def _family(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
    return [process, *(member for child in children for member in _family(int(child)))]


def _resident(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return 1024 * int((re.search(r"VmRSS:\s+(\d+)", status) or [0, 0])[1])
