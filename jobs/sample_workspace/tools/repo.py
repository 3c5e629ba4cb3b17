"""The command line of this workspace: reads the arguments and calls the part that does the work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import launching
import scaffold
from layout import Refused, Workspace


def main(arguments: Sequence[str]) -> int:
    workspace = Workspace(Path(__file__).resolve().parents[1])
    try:
        return _run(_parser().parse_args(_split(arguments)[0]), extra=_split(arguments)[1], workspace=workspace)
    except Refused as refused:
        print(f"error: {refused}", flush=True)
        return 1


def _run(options: argparse.Namespace, *, extra: Sequence[str], workspace: Workspace) -> int:
    if extra and options.tool != "launch":
        raise Refused(f"{options.tool} takes no arguments after --")
    if options.tool == "build":
        import building  # parsers, compiler and all: half of the time that the other tools take

        return building.build(workspace, configs=_configs(options), target=options.target, clean=options.clean, rebuild=options.rebuild)
    if options.tool == "launch":
        launching.launch(workspace, name=options.name, configs=_configs(options, default=("release", "debug")), arguments=extra)
    if options.action == "replay":
        return scaffold.replay(workspace, file=options.file)
    return scaffold.show(workspace)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="repo.sh", description="Creates, builds and launches the projects of this workspace.", allow_abbrev=False
    )
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")

    template = tools.add_parser("template", help="list templates, or make a project from one")
    actions = template.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list the templates")
    replay = actions.add_parser("replay", help="make what a playback file describes")
    replay.add_argument("file", type=Path, metavar="FILE")

    build = tools.add_parser("build", help="build everything, or one project", allow_abbrev=False)
    _add_configs(build)
    build.add_argument("-c", "--clean", action="store_true", help="remove what earlier builds left, and stop")
    build.add_argument("-x", "--rebuild", action="store_true", help="remove what earlier builds left, then build")
    build.add_argument("-t", "--target", metavar="PROJECT", help="only this application or extension")

    launch = tools.add_parser("launch", help="run a built application", allow_abbrev=False)
    _add_configs(launch)
    launch.add_argument("-n", "--name", required=True, metavar="APP", help="the application's file name, such as my_company.my_editor.kit")
    return parser


def _add_configs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-r", "--release", action="store_true", help="the release configuration")
    parser.add_argument("-d", "--debug", action="store_true", help="the debug configuration")


def _configs(options: argparse.Namespace, *, default: tuple[str, ...] = ("release",)) -> tuple[str, ...]:
    chosen = tuple(config for config in ("release", "debug") if getattr(options, config))
    return chosen or default


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What stands after the first `--` belongs to the application, whatever it looks like."""
    if "--" not in arguments:
        return arguments, ()
    place = list(arguments).index("--")
    return arguments[:place], arguments[place + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
