"""The environment that Triton runs in: its binary, its libraries and its Python stub.

Without a container the binary comes from the wheel ``nvidia-pytriton``, in a virtual environment of its own:
the wheel needs numpy 1, and the stub that runs Python models must match that environment's Python exactly.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from srgpt.errors import SrgptError
from srgpt.process import capture

_PROBE = (
    "import json,sys,sysconfig as s;v=s.get_config_var;"
    "print(json.dumps({'version':'%d.%d'%sys.version_info[:2],'site':s.get_path('purelib'),"
    "'libdir':v('LIBDIR') or '','multiarch':v('MULTIARCH') or '','soname':v('INSTSONAME') or '',"
    "'base':sys.base_prefix}))"
)


@dataclass(frozen=True)
class TritonEnvironment:
    """A virtual environment that holds the wheel ``nvidia-pytriton``."""

    venv: Path
    tritonserver: Path
    """The folder of the wheel with ``bin``, ``backends`` and ``python_backend_stubs``."""
    stub: Path
    library_path: str
    """For ``LD_LIBRARY_PATH``: the wheel's bundled libraries and the folder of libpython."""

    @property
    def binary(self) -> Path:
        """The server's executable."""
        return self.tritonserver / "bin" / "tritonserver"

    def variables(self) -> dict[str, str]:
        """Return the server's environment variables; the stub finds its packages through ``PATH`` only."""
        return {
            "LD_LIBRARY_PATH": self.library_path,
            "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            "VIRTUAL_ENV": str(self.venv),
            "PYTHONPATH": "",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def backend_directory(self, folder: Path) -> Path:
        """Fill ``folder`` with the Python backend beside the stub that fits this environment; return it."""
        target = folder / "python"
        target.mkdir(parents=True, exist_ok=True)
        sources = [p for p in (self.tritonserver / "backends" / "python").iterdir() if p.is_file()]
        for source in [*sources, self.stub]:
            link = target / source.name
            link.unlink(missing_ok=True)
            link.symlink_to(source)
        return folder


def find(venv: Path) -> TritonEnvironment:
    """Look into ``venv``; raise :class:`SrgptError` that says what is missing and how to get it."""
    venv = venv.absolute()
    python = venv / "bin" / "python"
    probe = capture([str(python), "-c", _PROBE]) if python.exists() else None
    if probe is None:
        raise SrgptError(
            f"{venv}: no Triton environment here. Make it with `make triton`, or set serve.venv."
        )
    facts = json.loads(probe)
    server = Path(facts["site"]) / "pytriton" / "tritonserver"
    if not (server / "bin" / "tritonserver").exists():
        raise SrgptError(f"{venv}: nvidia-pytriton is not installed in it. Make it again with `make triton`.")
    stub = server / "python_backend_stubs" / facts["version"] / "triton_python_backend_stub"
    if not stub.exists():
        known = ", ".join(sorted(p.name for p in stub.parents[1].iterdir()))
        raise SrgptError(f"{venv}: Triton has no stub for Python {facts['version']}, only for {known}.")
    libraries = Path(facts["site"]) / "nvidia_pytriton.libs"
    return TritonEnvironment(venv, server, stub, f"{libraries}{os.pathsep}{_libpython(venv, facts)}")


def _libpython(venv: Path, facts: dict[str, str]) -> Path:
    folders = [Path(facts["libdir"]), Path(facts["libdir"]) / facts["multiarch"], Path(facts["base"]) / "lib"]
    for folder in folders:
        if facts["soname"].startswith("libpython") and (folder / facts["soname"]).exists():
            return folder
    raise SrgptError(
        f"{venv}: its Python {facts['version']} has no shared libpython (looked in "
        f"{', '.join(map(str, folders))}), which Triton's Python stub needs. Install one (Debian: "
        f"libpython{facts['version']}), or make the environment from a Python built with --enable-shared."
    )
