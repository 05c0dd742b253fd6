"""docs/runtime.md and docs/runner.md name the options that exist, all of them and no others."""

import argparse
import importlib
import re
from pathlib import Path

from cnisandbox import errors
from cnisandbox.cli import execute, net

PAGE = Path(__file__).parents[2] / "docs" / "runtime.md"
RUNNER = PAGE.with_name("runner.md")
OPTION = re.compile(r"`(--[a-z-]+)")


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    """Every long option of a parser and its subcommands, but for --help."""
    found = set()
    for action in parser._actions:
        found |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*(options_of(parser) for parser in action.choices.values()))
    return found - {"--help"}


def test_every_option_is_documented_and_every_documented_option_exists() -> None:
    existing = set()
    for name in ("net", "install", "uninstall", "doctor"):
        parser = argparse.ArgumentParser()
        importlib.import_module(f"cnisandbox.cli.{name}").configure(parser)
        existing |= options_of(parser)
    documented = set(OPTION.findall(PAGE.read_text())) | set(
        re.findall(r"cnisandbox install (--[a-z-]+)", PAGE.read_text())
    )
    assert documented == existing


def test_every_verb_is_documented() -> None:
    parser = argparse.ArgumentParser()
    net.configure(parser)
    verbs = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert set(verbs.choices) == set(re.findall(r"^\| `([a-z]+)` \|", PAGE.read_text(), re.MULTILINE))


def test_every_option_of_the_runner_is_documented_and_every_documented_option_exists() -> None:
    existing = set(execute._OPTIONS)
    for name in ("wrap", "unwrap", "log"):
        parser = argparse.ArgumentParser()
        importlib.import_module(f"cnisandbox.cli.{name}").configure(parser)
        existing |= options_of(parser)
    assert set(OPTION.findall(RUNNER.read_text())) == existing


def test_every_code_of_the_runner_is_an_error_of_ours() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+)", RUNNER.read_text(), re.MULTILINE)}
    assert documented <= {each.code for each in vars(errors).values() if isinstance(each, type)}
    assert documented >= {102, 103, 104, 106}
