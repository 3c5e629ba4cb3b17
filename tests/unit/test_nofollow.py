"""Files and folders below a root are opened without following links, even while folders are swapped for links all the time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.nofollow import open_folder, read_file

TRIES = 1500


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file").write_bytes(b"inside")
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "file").write_bytes(b"outside")
    return root


@contextmanager
def opened(path: Path, root: Path) -> Iterator[int]:
    descriptor = open_folder(path, root=root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def swapped(folder: Path, out: Path) -> Iterator[None]:
    """`folder` is a link to `out` every other moment."""
    aside, link = folder.with_name("aside"), folder.with_name("link")
    link.symlink_to(out)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            folder.rename(aside)
            link.rename(folder)
            folder.rename(link)
            aside.rename(folder)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield
    finally:
        over.set()
        swapper.join()


def test_folders_and_files_below_the_root_are_opened(root: Path) -> None:
    for path in (root, root / "a", root / "a" / "b"):
        with opened(path, root) as descriptor:
            assert os.path.samestat(os.fstat(descriptor), path.stat())
    assert read_file(root / "a" / "b" / "file", root=root) == b"inside"


@pytest.mark.parametrize("place", ["a", "a/b", "a/b/file"])
def test_a_link_in_the_path_is_not_followed(root: Path, place: str) -> None:
    there = root / place
    there.rename(there.with_name("aside"))
    there.symlink_to(there.with_name("aside"))
    with pytest.raises(OSError):
        read_file(root / "a" / "b" / "file", root=root)


def test_a_named_pipe_does_not_block(root: Path) -> None:
    os.mkfifo(root / "a" / "pipe")
    assert read_file(root / "a" / "pipe", root=root) == b""


def test_a_failure_leaks_no_descriptor(root: Path) -> None:
    (root / "a" / "link").symlink_to(root)
    before = len(list(Path("/dev/fd").iterdir()))
    for name in ("nothing", "link/a", "b/file/x"):
        with pytest.raises(OSError):
            open_folder(root / "a" / name, root=root)
    assert len(list(Path("/dev/fd").iterdir())) == before


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which folder a descriptor is of")
def test_a_folder_swapped_for_a_link_never_leads_outside(root: Path, tmp_path: Path) -> None:
    found: set[str] = set()
    refused = 0
    with swapped(root / "a", tmp_path / "out"):
        for _ in range(TRIES):
            try:
                with opened(root / "a" / "b", root) as descriptor:
                    found.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
                assert read_file(root / "a" / "b" / "file", root=root) == b"inside"
            except OSError:
                refused += 1
    assert not [path for path in found if not path.startswith(str(root))], found
    assert found and refused  # both moments were hit
