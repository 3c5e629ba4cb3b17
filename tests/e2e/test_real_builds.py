"""Builds that nobody here wrote, as operator tasks: libuv with CMake and Ninja, and a Python source package with Meson and Cython.

Both come from the registry. Each is built twice at the same time, in folders that are equal but for a name of the same length: by hand
and as a job. What the tool writes must be the same, stream by stream and byte by byte.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.server import RunningServer, start_server

SDISTS = {"uvloop": "0.23.0", "cysignals": "1.12.4"}
"""uvloop carries the sources of libuv, which is in C and built by CMake."""
BACKENDS = ("pip==25.*", "setuptools==80.*", "cython==3.1.*", "meson==1.8.*", "meson-python==0.18.*", "ninja==1.13.*", "build==1.3.*")
BIN = Path(sys.executable).parent
HAND, JOBS = "hand", "jobs"

pytestmark = [
    pytest.mark.builds,
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc) on this machine"),
    pytest.mark.timeout(180),  # it downloads, and compiles twice
]


@dataclass(frozen=True)
class Build:
    """A tool and what it is to say: `argv` runs in `folder`, and makes `product`."""

    folder: str
    argv: list[str]
    product: str


class Yard:
    """A workspace with the sources, twice, and the tools."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tools = root / "tools"
        self.workspace = root / "workspace"
        self.environment = {"PATH": f"{self.tools}/bin:{BIN}:/usr/local/bin:/usr/bin:/bin", "UV_CACHE_DIR": str(root / "cache")}
        wanted = ["-DCMAKE_BUILD_TYPE=Debug", "-DBUILD_TESTING=OFF", "-DLIBUV_BUILD_SHARED=OFF"]
        self.cmake = [str(BIN / "cmake"), "-G", "Ninja", "-S", ".", "-B", "build", *wanted]
        self.libuv = Build("libuv", [str(BIN / "cmake"), "--build", "build", "--parallel", "1"], "build/libuv.a")
        uv = [str(BIN / "uv"), "build", "--wheel", "--no-build-isolation", "--python", str(self.tools / "bin" / "python")]
        options = ["setup-args=-Dbuildtype=debug", "compile-args=-j1", "build-dir=build"]
        self.cysignals = Build(
            "cysignals", [*uv, "-o", "dist", *(part for option in options for part in ("-C", option)), "."], "dist/cysignals-*.whl"
        )

    def fetch(self) -> None:
        self._run(BIN / "uv", "venv", "--python", sys.executable, self.tools)
        self._run(BIN / "uv", "pip", "install", "--python", self.tools / "bin" / "python", *BACKENDS)
        wanted = [f"{name}=={version}" for name, version in SDISTS.items()]
        download = ("download", "--no-build-isolation", "--no-deps", "--no-binary", ":all:", "--dest", self.root / "sdists")
        self._run(self.tools / "bin" / "python", "-m", "pip", *download, *wanted)
        sources = {"libuv": "uvloop-{uvloop}/vendor/libuv", "cysignals": "cysignals-{cysignals}"}
        for archive in (self.root / "sdists").iterdir():
            with tarfile.open(archive) as opened:
                opened.extractall(self.root / "unpacked", filter="data")
        for side in (HAND, JOBS):
            for name, source in sources.items():
                shutil.copytree(self.root / "unpacked" / source.format(**SDISTS), self.workspace / side / name)

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run([*map(str, command)], env={**os.environ, **self.environment}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def by_hand(self, folder: str, argv: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(argv, cwd=self.workspace / HAND / folder, env=self.environment, capture_output=True, check=False)

    def tasks(self) -> str:
        """The tasks file: JSON's strings and lists of them are TOML's too."""
        environment = ", ".join(f'{name} = "{value}"' for name, value in self.environment.items())
        tasks = {"configure_libuv": ("libuv", self.cmake)} | {b.folder: (b.folder, b.argv) for b in (self.libuv, self.cysignals)}
        return "\n".join(
            f'[tasks.{name}]\ntitle = "{name}"\nargv = {argv}\ncwd = "{JOBS}/{folder}"\npty = false\nenv = {{ {environment} }}\n'
            for name, (folder, argv) in tasks.items()
        )


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Yard:
    yard = Yard(tmp_path_factory.mktemp("yard"))
    yard.fetch()
    return yard


@pytest.fixture(scope="module")
def builder(yard: Yard) -> Iterator[RunningServer]:
    tasks = yard.root / "tasks.toml"
    tasks.write_text(yard.tasks())
    with start_server(yard.root / "server", tasks=tasks, workspace=yard.workspace, slots=1) as server:
        yield server


def check(server: RunningServer, yard: Yard, build: Build) -> list[str]:
    """Build on both sides and compare; gives the lines of the log."""
    with server.connect() as events, ThreadPoolExecutor(1) as pool:
        by_hand = pool.submit(yard.by_hand, build.folder, build.argv)
        job_id = server.run(build.folder)
        events.subscribe(job_id)
        complete = events.wait("complete", job_id, seconds=150)
        hand = by_hand.result()
        assert (complete["status"], hand.returncode) == ("completed", 0), server.raw_log(job_id)
        for stream, written in (("stdout", hand.stdout), ("stderr", hand.stderr)):
            answer = server.call("GET", f"/jobs/{job_id}/log", params={"stream": stream}, headers={"Accept": "text/plain"})
            assert answer.content == written.replace(f"/{HAND}/".encode(), f"/{JOBS}/".encode())
        percents = [payload["percent"] for payload in events.of("progress", job_id) if payload["percent"] is not None]
        rising = sorted(set(percents))
        assert percents == sorted(percents)
        assert len(rising) >= 5, percents
        assert rising[0] < 50 and rising[-1] == 100
        for side in (HAND, JOBS):
            assert list((yard.workspace / side / build.folder).glob(build.product)), side
        return events.lines(job_id)


def test_libuv_with_cmake_and_ninja(builder: RunningServer, yard: Yard) -> None:
    assert yard.by_hand("libuv", yard.cmake).returncode == 0
    configured = builder.run("configure_libuv")
    assert builder.wait(configured, seconds=60)["status"] == "completed", builder.raw_log(configured)
    lines = check(builder, yard, yard.libuv)
    assert sum(line.startswith("[") and "Building C object" in line for line in lines) >= 30


def test_a_python_source_package_with_meson(builder: RunningServer, yard: Yard) -> None:
    lines = check(builder, yard, yard.cysignals)
    assert any("Compiling Cython source" in line for line in lines)
    assert lines[-1].startswith("Successfully built")
