"""``guardkit policy``: check, test, fit and certify policy files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from guardkit.errors import UsageError
from guardkit.options import EXIT_MATCHED, DataOption, DeviceOption, PolicyFile

policy_app = typer.Typer(help="Check, test, fit and certify policy files.", no_args_is_help=True)


@policy_app.command("check", epilog="Example: guardkit policy check policies/default.yaml")
def policy_check(file: PolicyFile) -> None:
    """Report every mistake in a policy file; loads no model."""
    from guardkit.certificate import promises, read_certificates
    from guardkit.router import check_policy

    policy = check_policy(file)
    categories = ", ".join(policy.categories)
    members = ", ".join(policy.members) or "none"
    print(f"{file}: ok: {policy.name!r}; categories: {categories}; members: {members}")
    certificates = read_certificates(policy.path)
    for name in promises(policy):
        print(f"{name}: {certificates[name].summary()}")


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


@policy_app.command("certify", epilog="Example: guardkit policy certify policy.yaml")
def policy_certify(
    file: PolicyFile,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="Certify this category alone.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Try these benign texts in place of calibrated_on; writes no certificate.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Find the thresholds that keep `max_fpr`, on benign text that no member has seen.

    Writes NAME.certificates.json beside the policy NAME.yaml. Where the text holds positive
    examples, too, their recall is shown.
    """
    from guardkit import console
    from guardkit.certify import certify, write

    with console.progress() as progress:
        certified = certify(file, category=category, data=data, device=device, progress=progress)
    for result in certified:
        console.show_certified(result)
    if data is None:
        print(f"certified: {write(file, certified)}")
    else:
        print("nothing written: to certify on these texts, name them in the policy's calibrated_on")
