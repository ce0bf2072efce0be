"""Libraries preloaded into a node's process, which intercept its disk calls (disk.c) and its clock (clock.c)."""

import shutil
import struct
from pathlib import Path

from chaos.disks import Damage
from chaos.testbed.host import Unavailable, tool

_SOURCES = tuple(Path(__file__).with_name(name) for name in ("disk.c", "clock.c"))
_SECONDS = struct.Struct("=q")


def c_compiler() -> str:
    """Returns the path of a C compiler. Raises Unavailable if there is none."""
    found = shutil.which("gcc") or shutil.which("cc")
    if found is None:
        raise Unavailable("no C compiler, which is to build the libraries in front of disks and clocks")
    return found


class Injector:
    """Both libraries, compiled into ``directory``, and the files that control them. Raises Unavailable without a compiler."""

    def __init__(self, directory: Path) -> None:
        compiler = c_compiler()
        self._directory = directory
        self._libraries = [directory / f"{source.stem}.so" for source in _SOURCES]
        for source, library in zip(_SOURCES, self._libraries, strict=True):
            tool(compiler, "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(source), "-ldl", "-lpthread")

    def variables(self, node: str) -> dict[str, str]:
        """Returns the environment variables for the node's process."""
        clock = self._clock(node)
        if not clock.exists():
            clock.write_bytes(_SECONDS.pack(0))
        preloaded = ":".join(map(str, self._libraries))
        return {"LD_PRELOAD": preloaded, "CHAOS_DISK": str(self._control(node)), "CHAOS_CLOCK": str(clock)}

    def slow_syncs(self, node: str, milliseconds: int) -> Damage:
        return self._tell(node, f"slow {milliseconds}", f"each of its syncs takes {milliseconds} ms longer")

    def fail_syncs(self, node: str) -> Damage:
        return self._tell(node, "fail", "its syncs fail")

    def jump(self, node: str, seconds: int) -> Damage:
        self._set_clock(node, seconds)
        way = "ahead" if seconds > 0 else "back"
        return Damage(f"its clock jumps {abs(seconds)} s {way}", lambda: self._set_clock(node, 0))

    def _set_clock(self, node: str, seconds: int) -> None:
        clock = self._clock(node)
        with clock.open("r+b", buffering=0) as file:  # written in place, since the node's process has the file mapped
            file.write(_SECONDS.pack(seconds))

    def _tell(self, node: str, order: str, words: str) -> Damage:
        control = self._control(node)
        fresh = control.with_suffix(".new")
        fresh.write_text(order)
        fresh.replace(control)
        return Damage(words, lambda: control.unlink(missing_ok=True))

    def _control(self, node: str) -> Path:
        return self._directory / f"{node}.disk"

    def _clock(self, node: str) -> Path:
        return self._directory / f"{node}.clock"
