"""Templates of a workspace, and the playback files made from them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import OperatorError, TemplateNotFound
from jobs.recipes.templates import Template, TemplateCatalog, load_templates, playback
from jobs.recipes.workspace import SHIPPED

INDEX = """
[templates."core"]
class = "LocalTemplateCollection"
url = "file://${root}/templates/core_templates.toml"

[templates."gone"]
class = "LocalTemplateCollection"
url = "file://${root}/templates/gone.toml"
"""

CORE = """
[templates."small_editor"]
class = "ApplicationTemplate"
name = "Small editor"
url = "."
subpath = "apps/small_editor/small_editor.kit"
variables.application_name = "my_company.my_editor"
variables.application_display_name = "My Editor"
variables.version = "0.1.0"

[templates."kit_service"]
class = "ApplicationTemplate"
name = "Kit Service"
subpath = "apps/kit_service/kit_service.kit"
variables.application_name = "my_company.my_service"
variables.application_display_name = "My Service"
variables.version = "0.1.0"

[[templates."kit_service".extensions]]
template = "kit_service_setup"

[templates."kit_service_setup"]
class = "SetupExtensionTemplate"
name = "Service Setup"
variables.extension_name = "my_company.my_service_setup_extension"
variables.version = "0.1.0"

[templates."streaming"]
class = "ApplicationLayerTemplate"
name = "Streaming"
variables.version = "0.1.0"

[templates."binding"]
class = "BindingExtensionTemplate"
name = "Binding"
variables.extension_name = "my_company.my_binding"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "templates").mkdir()
    return tmp_path


def write(root: Path, **files: str) -> TemplateCatalog:
    for name, text in files.items():
        (root / "templates" / f"{name}.toml").write_text(text, encoding="utf-8")
    return load_templates(root)


def test_templates_of_collections_are_listed_and_a_missing_one_is_reported(root: Path) -> None:
    catalog = write(root, templates=INDEX, core_templates=CORE)
    assert [(template.name, template.kind, template.creatable) for template in catalog.list()] == [
        ("binding", "binding_extension", True),
        ("kit_service", "application", True),
        ("kit_service_setup", "setup_extension", False),
        ("small_editor", "application", True),
        ("streaming", "application_layer", False),
    ]
    assert catalog.problems == ("templates/gone.toml: does not exist",)
    editor = catalog.get("small_editor")
    assert (editor.title, editor.path, editor.source) == (
        "Small editor",
        "apps/small_editor/small_editor.kit",
        "templates/core_templates.toml",
    )
    assert editor.variables == {
        "application_name": "my_company.my_editor",
        "application_display_name": "My Editor",
        "version": "0.1.0",
    }


def test_an_unknown_template_is_not_found(root: Path) -> None:
    with pytest.raises(TemplateNotFound) as caught:
        write(root, templates=CORE).get("nope")
    assert [violation.pointer for violation in caught.value.violations] == ["#/params/template"]


def test_a_workspace_without_templates_has_none(tmp_path: Path) -> None:
    assert load_templates(tmp_path) == TemplateCatalog()


def test_a_missing_workspace_is_an_operator_error(tmp_path: Path) -> None:
    with pytest.raises(OperatorError):
        load_templates(tmp_path / "nowhere")


def collection(url: str, *, kind: str = "LocalTemplateCollection") -> str:
    return f'[templates."more"]\nclass = "{kind}"\nurl = "{url}"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[templates", "templates/templates.toml: is not TOML"),
        (collection("https://example.com/templates.toml"), "only a LocalTemplateCollection"),
        (collection("file:///etc/passwd"), "only a LocalTemplateCollection"),
        (collection("file://${root}/../outside.toml"), "../outside.toml: lies outside the workspace"),
        (collection("file://${root}/templates/link.toml"), "templates/link.toml: lies outside the workspace"),
        (collection("file://${root}/templates"), "templates: cannot be read"),
        (collection("file://${root}/templates/more.toml", kind="GitTemplateCollection"), "only a LocalTemplateCollection"),
        ('[templates."a b"]\nclass = "ApplicationTemplate"\n', "an invalid name"),
        ('[templates."a"]\nname = "A"\n', "has no class"),
        ('[templates]\na = "b"\n', "has no class"),
    ],
)
def test_an_unreadable_template_is_reported_and_the_rest_is_listed(root: Path, text: str, problem: str) -> None:
    (root.parent / "outside.toml").write_text(CORE, encoding="utf-8")
    (root / "templates" / "link.toml").symlink_to(root.parent / "outside.toml")
    good = '\n[templates."good"]\nclass = "ExtensionTemplate"\n'
    catalog = write(root, templates=text + (good if "[templates\n" not in f"{text}\n" else ""))
    assert len(catalog.problems) == 1
    assert problem in catalog.problems[0]
    assert [template.name for template in catalog.list()] == ([] if "not TOML" in problem else ["good"])


def test_collections_in_a_circle_are_reported(root: Path) -> None:
    catalog = write(
        root,
        templates=collection("file://${root}/templates/a.toml"),
        a=collection("file://${root}/templates/b.toml") + CORE,
        b=collection("file://${root}/templates/../templates/a.toml".replace("../templates/", "./")),
    )
    assert catalog.problems == ("templates/./a.toml: collections refer to each other in a circle",)
    assert "small_editor" in catalog.templates


def test_a_collection_named_twice_is_read_once(root: Path) -> None:
    twice = collection("file://${root}/templates/core.toml")
    catalog = write(root, templates=twice + twice.replace('"more"', '"again"'), core=CORE)
    assert catalog.problems == ()


def test_the_first_of_two_templates_with_one_name_counts(root: Path) -> None:
    second = '[templates."small_editor"]\nclass = "ExtensionTemplate"\n'
    catalog = write(root, templates=INDEX.replace("gone", "second"), core_templates=CORE, second=second)
    assert catalog.get("small_editor").kind == "application"
    assert catalog.problems == ("templates/second.toml: template 'small_editor': is already declared in templates/core_templates.toml",)


def test_the_shipped_templates_are_complete() -> None:
    catalog = load_templates(SHIPPED)
    assert catalog.problems == ()
    assert {template.name for template in catalog.list() if template.creatable} == {"small_editor", "small_service", "panel_extension"}
    for template in catalog.list():
        assert (SHIPPED / template.source).parent.joinpath(template.path).exists(), template.path
        for part in template.parts:
            assert not catalog.get(part).creatable


def test_a_playback_file_has_the_variables_of_the_template(root: Path) -> None:
    editor = write(root, templates=CORE).get("small_editor")
    made = tomllib.loads(playback(editor, name="acme.paint_box", display_name="Paint", version="2.0.0"))
    assert made == {
        "small_editor": {"application_name": "acme.paint_box", "application_display_name": "Paint", "version": "2.0.0"},
    }


def test_absent_values_are_derived_from_name_and_template(root: Path) -> None:
    made = tomllib.loads(playback(write(root, templates=CORE).get("small_editor"), name="acme.paint_box"))
    assert made["small_editor"]["application_display_name"] == "Paint Box"
    assert made["small_editor"]["version"] == "0.1.0"


def test_an_extension_fills_in_extension_variables(root: Path) -> None:
    made = tomllib.loads(playback(write(root, templates=CORE).get("binding"), name="acme.b", display_name="B", version="1.0.0"))
    assert made == {"binding": {"extension_name": "acme.b", "extension_display_name": "B", "version": "1.0.0"}}


def test_extensions_that_a_template_needs_get_tables_of_their_own(root: Path) -> None:
    """The shape of the files that Kit's `template new --generate-playback` writes."""
    made = tomllib.loads(playback(write(root, templates=CORE).get("kit_service"), name="acme.api", display_name="API", version="1.0.0"))
    assert made["kit_service"].pop("extensions") == {
        "kit_service_setup": {
            "extension_name": "acme.api_setup_extension",
            "extension_display_name": "API Setup",
            "version": "1.0.0",
        }
    }
    assert made == {"kit_service": {"application_name": "acme.api", "application_display_name": "API", "version": "1.0.0"}}


text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(name=text, title=text, version=text, template=text, variable=text, value=st.text(max_size=5))
def test_any_text_survives_the_playback_file(name: str, title: str, version: str, template: str, variable: str, value: str) -> None:
    variables = {"application_name": "", f"x{variable}": value}
    entry = Template(template, "", "application", "", "", variables)
    made = tomllib.loads(playback(entry, name=name, display_name=title, version=version))
    assert made == {
        template: {
            "application_name": name,
            f"x{variable}": value,
            "application_display_name": title,
            "version": version,
        }
    }
