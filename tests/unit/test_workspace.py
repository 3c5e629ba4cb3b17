"""The workspace: nothing that a client names leads outside it, and its projects and applications are found."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.errors import AppNotFound, OperatorError, OutsideWorkspace, ProjectNotFound
from jobs.recipes.workspace import Workspace, copy_workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    root.mkdir()
    return root


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("relative", [".", "a", "a/b/c", "./a", "a//b", "a/./b", "-x", "..a", "a..", "…/é", "a b"])
def test_a_path_inside_is_returned_resolved(root: Path, relative: str) -> None:
    assert Workspace(root).path(relative) == (root / relative).resolve()


@pytest.mark.parametrize("relative", ["", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "a\0b", "\0", "\ud800", "a/\udcff"])
def test_a_path_outside_is_refused(root: Path, relative: str) -> None:
    with pytest.raises(OutsideWorkspace) as caught:
        Workspace(root).path(relative, pointer="#/params/x")
    assert [violation.pointer for violation in caught.value.violations] == ["#/params/x"]


def test_a_link_within_the_workspace_is_followed(root: Path) -> None:
    put(root / "real" / "file")
    (root / "link").symlink_to("real")
    assert Workspace(root).path("link/file") == root.resolve() / "real" / "file"


@pytest.mark.parametrize("relative", ["out", "out/x", "out/not/there/yet", "dangling", "chain/x"])
def test_a_link_that_leads_out_is_refused(root: Path, relative: str) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "out").symlink_to(outside)
    (root / "dangling").symlink_to(root.parent / "not there")
    (root / "chain").symlink_to("out")
    with pytest.raises(OutsideWorkspace):
        Workspace(root).path(relative)


def test_a_loop_of_links_leads_to_no_file(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    with suppress(OutsideWorkspace):  # Python 3.13 gives it as it stands, older ones refuse to resolve it
        assert not Workspace(root).path("loop/x").exists()


def test_a_sibling_folder_with_the_same_prefix_is_outside(root: Path) -> None:
    (root.parent / "workspace-2").mkdir()
    (root / "link").symlink_to(root.parent / "workspace-2")
    with pytest.raises(OutsideWorkspace):
        Workspace(root).path("link")


def test_a_path_is_relative_to_its_base(root: Path) -> None:
    workspace = Workspace(root)
    (root / "sub").mkdir()
    (root / "sub" / "up").symlink_to("../..")
    assert workspace.path("x", base=workspace.root / "sub") == workspace.root / "sub" / "x"
    with pytest.raises(OutsideWorkspace):
        workspace.path("up", base=workspace.root / "sub")


def test_the_workspace_may_itself_be_a_link(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    assert Workspace(link).path("a") == root.resolve() / "a"


@pytest.mark.parametrize(("name", "says"), [("nowhere", "does not exist"), ("file", "is not a folder")])
def test_an_invalid_workspace_is_one_clear_line(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatorError, match=says) as caught:
        Workspace(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_projects_are_applications_extensions_and_checkouts(root: Path) -> None:
    put(root / "source/apps/my.editor.kit")
    put(root / "source/extensions/my.panel/config/extension.toml")
    put(root / "team/repo.sh")
    put(root / "docs/readme")  # a folder without repo.sh is none
    put(root / "source/apps/notes.txt")
    put(root / ".hidden/repo.sh")
    workspace = Workspace(root)
    assert workspace.projects() == ["my.editor", "my.panel", "team"]
    assert workspace.project("my.editor") == workspace.root / "source/apps/my.editor.kit"
    assert workspace.project("my.panel") == workspace.root / "source/extensions/my.panel"
    assert workspace.project("team") == workspace.root / "team"
    assert workspace.checkout("team") == workspace.root / "team"
    assert workspace.checkout("my.editor") == workspace.checkout(None) == workspace.root


def test_an_empty_workspace_has_no_projects(root: Path) -> None:
    assert Workspace(root).projects() == []


@pytest.mark.parametrize("name", ["nowhere", "", ".", "..", "-x", "../workspace", "a/b", "a\0", ".hidden", "\ud800", "x" * 5000])
def test_an_unknown_project_is_not_found(root: Path, name: str) -> None:
    put(root / ".hidden/repo.sh")
    put(root / "a/b/repo.sh")
    with pytest.raises(ProjectNotFound) as caught:
        Workspace(root).project(name)
    assert [violation.pointer for violation in caught.value.violations] == ["#/params/project"]


def test_a_link_out_of_the_workspace_is_no_project(root: Path) -> None:
    outside = root.parent / "outside"
    put(outside / "repo.sh")
    (root / "source/extensions").mkdir(parents=True)
    (root / "source/extensions/evil").symlink_to(outside)
    (root / "evil").symlink_to(outside)
    workspace = Workspace(root)
    assert workspace.projects() == []
    assert not workspace.has_project("evil")


def test_applications_are_found_in_their_project_only(root: Path) -> None:
    put(root / "source/apps/editor.kit")
    put(root / "source/apps/editor_streaming.kit")
    put(root / "source/apps/editor/tools/helper.kit")
    put(root / "source/apps/other.kit")
    put(root / "team/repo.sh")
    put(root / "team/source/apps/theirs.kit")
    workspace = Workspace(root)
    for app in ("editor.kit", "editor_streaming.kit", "helper.kit"):
        assert workspace.app(app, project="editor").name == app
        assert workspace.app(app).name == app
    assert workspace.app("theirs.kit", project="team") == workspace.root / "team/source/apps/theirs.kit"
    for app, project in [("other.kit", "editor"), ("theirs.kit", None), ("editor.kit", "team"), ("nope.kit", None), ("editor", None)]:
        with pytest.raises(AppNotFound):
            workspace.app(app, project=project)
    with pytest.raises(ProjectNotFound):
        workspace.app("editor.kit", project="nope")


def test_the_shipped_workspace_is_copied_once_and_whole(tmp_path: Path) -> None:
    target = tmp_path / "data" / "workspace"
    assert copy_workspace(target)
    assert os.access(target / "repo.sh", os.X_OK)
    assert (target / "templates/templates.toml").is_file()
    (target / "README.md").write_text("mine", encoding="utf-8")
    assert not copy_workspace(target)
    assert (target / "README.md").read_text(encoding="utf-8") == "mine"
    assert [path.name for path in target.parent.iterdir()] == ["workspace"]
    assert not [path for path in target.rglob("*") if path.name == "__pycache__" or path.name.startswith(".")]
