"""The templates of a workspace, and the playback file that makes a project from one.

Reads `templates/templates.toml` and the collections that it names. Of URLs, it follows only `file://` inside the workspace. It never raises
for what it cannot read, because jobs may write these files: each such place is described in `problems`, and the rest is used.

An entry's `class` decides its kind: `ApplicationTemplate` is an `application`, `SetupExtensionTemplate` a `setup_extension`. Only templates
with a variable for the name (`application_name`, `extension_name`) create projects; layers and set-up extensions are parts of others.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import OutsideWorkspace, TemplateNotFound
from jobs.model import Json
from jobs.nofollow import read_file
from jobs.recipes.workspace import Workspace

INDEX = "templates/templates.toml"
PARTS = frozenset({"application_layer", "setup_extension"})
"""Kinds of templates that are parts of others and create no project on their own."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # as in openapi/jobs.yaml
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_ROOT_URL = "file://${root}/"


@dataclass(frozen=True)
class Template:
    """One template. `source` is the file that declares it, relative to the workspace; `path` is relative to the folder of `source`."""

    name: str
    title: str
    kind: str
    path: str
    source: str
    variables: Mapping[str, str]
    parts: tuple[str, ...] = ()
    """Names of the extension templates that every project made from this one needs."""
    description: str | None = None

    @property
    def subject(self) -> str | None:
        """The prefix of the variables for the project's name: `application` or `extension`. None when the template has none."""
        return next((word for word in ("application", "extension") if f"{word}_name" in self.variables or self.kind.endswith(word)), None)

    @property
    def creatable(self) -> bool:
        return self.kind not in PARTS and self.subject is not None


@dataclass(frozen=True)
class TemplateCatalog:
    """All templates of a workspace by name, and descriptions of what could not be read."""

    templates: Mapping[str, Template] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    def get(self, name: str, *, pointer: str | None = "#/params/template") -> Template:
        """Raises TemplateNotFound."""
        try:
            return self.templates[name]
        except KeyError:
            raise TemplateNotFound(name, pointer=pointer) from None

    def list(self) -> list[Template]:
        return sorted(self.templates.values(), key=lambda template: template.name)


def load_templates(workspace_root: Path) -> TemplateCatalog:
    """The templates of a workspace; none when `templates/templates.toml` is missing. Raises OperatorError when the workspace is."""
    workspace = Workspace(workspace_root)
    if not (workspace.root / INDEX).exists():
        return TemplateCatalog()
    reader = _Reader(workspace)
    reader.read(INDEX, trail=())
    return TemplateCatalog(templates=reader.templates, problems=tuple(reader.problems))


def playback(template: Template, *, name: str, display_name: str | None = None, version: str | None = None) -> str:
    """The playback file with which `repo.sh template replay` creates project `name`, as TOML.

    It has a table named after the template with all its variables, and below it a table for each extension that it needs. These are
    named as Kit's own wizard does: `NAME_setup_extension` for `kit_service_setup` of `kit_service`. A missing `display_name` is made from
    `name`.
    """
    title = display_name or _title(name)
    chosen_version = version or template.variables.get("version") or "0.1.0"
    subject = template.subject or "application"
    variables = {**template.variables, f"{subject}_name": name, f"{subject}_display_name": title, "version": chosen_version}
    lines = [*_table((template.name,), variables)]
    for part in template.parts:
        own = {
            "extension_name": part_name(template, part=part, name=name),
            "extension_display_name": f"{title} {_title(_suffix(template, part=part))}",
            "version": chosen_version,
        }
        lines += ["", *_table((template.name, "extensions", part), own)]
    return "\n".join(lines) + "\n"


def part_name(template: Template, *, part: str, name: str) -> str:
    """The name of the extension that project `name` gets from `part` of `template`."""
    return f"{name}_{_suffix(template, part=part)}_extension"


class _Reader:
    """Collects templates from files that refer to each other."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._seen: set[Path] = set()
        self.templates: dict[str, Template] = {}
        self.problems: list[str] = []

    def read(self, source: str, *, trail: tuple[Path, ...]) -> None:
        """Reads `source` (relative to the workspace) and the collections that it names. `trail` lists the files that led to it."""
        try:
            path = self._workspace.path(source)
            if path in trail:
                self.problems.append(f"{source}: collections refer to each other in a circle")
                return
            if path in self._seen:
                return
            self._seen.add(path)
            entries = tomllib.loads(read_file(path, root=self._workspace.root).decode("utf-8")).get("templates", {})
        except OutsideWorkspace:
            self.problems.append(f"{source}: lies outside the workspace")
        except FileNotFoundError:
            self.problems.append(f"{source}: does not exist")
        except OSError as error:
            self.problems.append(f"{source}: cannot be read ({error.strerror})")
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError and TOMLDecodeError are ValueErrors
            self.problems.append(f"{source}: is not TOML ({error})")
        else:
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                self._entry(str(name), entry, source=source, trail=(*trail, path))

    def _entry(self, name: str, entry: Json, *, source: str, trail: tuple[Path, ...]) -> None:
        place = f"{source}: template {name!r}"
        if not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
            self.problems.append(f"{place}: has no class")
        elif entry["class"].endswith("Collection"):
            self._collection(entry, place=place, trail=trail)
        elif not _NAME.fullmatch(name):
            self.problems.append(f"{place}: has an invalid name (at most 100 letters, digits, '_', '-' and '.')")
        elif name in self.templates:
            self.problems.append(f"{place}: is already declared in {self.templates[name].source}")
        else:
            self.templates[name] = _template(name, entry, source=source)

    def _collection(self, entry: Mapping[str, Json], *, place: str, trail: tuple[Path, ...]) -> None:
        url = entry.get("url")
        if entry["class"] != "LocalTemplateCollection" or not isinstance(url, str) or not url.startswith(_ROOT_URL):
            self.problems.append(f"{place}: only a LocalTemplateCollection with a url that begins with {_ROOT_URL} is read")
            return
        self.read(url.removeprefix(_ROOT_URL), trail=trail)


def _template(name: str, entry: Mapping[str, Json], *, source: str) -> Template:
    variables = entry.get("variables")
    return Template(
        name=name,
        title=str(entry.get("name", name)),
        kind=_kind(entry["class"]),
        path=str(entry.get("subpath", "")),
        source=source,
        variables={key: str(value) for key, value in variables.items()} if isinstance(variables, dict) else {},
        parts=tuple(_parts(entry.get("extensions"))),
        description=str(entry["description"]) if "description" in entry else None,
    )


def _kind(class_name: str) -> str:
    """`SetupExtensionTemplate` is a `setup_extension`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name.removesuffix("Template")).lower()


def _parts(declared: Json) -> Iterator[str]:
    """`[[templates.X.extensions]]` is a list of tables; Kit's manual also shows a single one."""
    for part in declared if isinstance(declared, list) else [declared]:
        if isinstance(part, dict) and isinstance(part.get("template"), str):
            yield part["template"]


def _suffix(template: Template, *, part: str) -> str:
    return part.removeprefix(f"{template.name}_")


def _title(name: str) -> str:
    """`my_company.small_editor` is a `Small Editor`."""
    words = re.split(r"[_.-]+", name.rstrip("._-").rsplit(".", 1)[-1])
    return " ".join(word[:1].upper() + word[1:] for word in words if word) or name


def _table(keys: tuple[str, ...], values: Mapping[str, str]) -> list[str]:
    head = ".".join(key if _BARE_KEY.fullmatch(key) else _quoted(key) for key in keys)
    return [f"[{head}]", *(f"{key if _BARE_KEY.fullmatch(key) else _quoted(key)} = {_quoted(value)}" for key, value in values.items())]


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's escapes, and DEL, which JSON leaves alone."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
