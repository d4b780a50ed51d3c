"""``guardkit policy``: check, test and fit policy files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from guardkit.errors import UsageError
from guardkit.options import EXIT_MATCHED, DataOption, DeviceOption, PolicyFile

policy_app = typer.Typer(help="Check, test and fit policy files.", no_args_is_help=True)


@policy_app.command("check", epilog="Example: guardkit policy check policies/default.yaml")
def policy_check(file: PolicyFile) -> None:
    """Report every mistake in a policy file; loads no model."""
    from guardkit.router import check_policy

    policy = check_policy(file)
    categories = ", ".join(policy.categories)
    members = ", ".join(policy.members) or "none"
    print(f"{file}: ok: {policy.name!r}; categories: {categories}; members: {members}")


@policy_app.command("test", epilog="Example: guardkit policy test policies/default.yaml")
def policy_test(file: PolicyFile, device: DeviceOption = "auto") -> None:
    """Run the tests written in a policy file; exit with 1 if one fails."""
    from guardkit import console
    from guardkit.router import load_policy

    results = load_policy(file, device=device).run_tests()
    if not results:
        raise UsageError(f"{file}: has no tests; add some under `tests:`")
    console.show_cases(results)
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} of {len(results)} passed")
    if failed:
        raise typer.Exit(EXIT_MATCHED)


@policy_app.command(
    "stack", epilog="Example: guardkit policy stack policy.yaml --data mail/ --out fitted.yaml"
)
def policy_stack(
    file: PolicyFile,
    data: DataOption,
    split: Annotated[
        str | None, typer.Option(help="Default: validation, or the only one there is.")
    ] = None,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="Fit this category alone.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the policy there, weights filled in."),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Fit the weights of `how: stacked` on labelled text that no member was trained on.

    Shows what the combination is worth beside its parts; without --out, also what to write
    into the policy.
    """
    from guardkit import console
    from guardkit.data import load_split
    from guardkit.stack import fit_policy, write_policy

    name, examples = load_split(data, split, default="validation")
    print(f"fitting on split {name!r} of {data}", file=sys.stderr)
    with console.progress() as progress:
        stacks = fit_policy(file, examples, category=category, device=device, progress=progress)
    for stack in stacks:
        console.show_stack(stack)
    if out is not None:
        write_policy(file, stacks, out)
        print(f"the policy is in {out}")


@policy_app.command(
    "schema", epilog="Example: guardkit policy schema --out policies/policy.schema.json"
)
def policy_schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Default: standard output.")
    ] = None,
) -> None:
    """Give the JSON Schema of a policy file, by which editors complete and check one."""
    import json

    from guardkit import artefact, schema

    if out is None:
        print(json.dumps(schema.policy_schema(), indent=2))
        return
    _check_folder("--out", out)
    artefact.write_json(out, schema.policy_schema())
    print(f"the schema is in {out}; a policy beside it names it in a first line:")
    print(f"# yaml-language-server: $schema={out.name}")


def _check_folder(option: str, file: Path) -> None:
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: no such folder")
