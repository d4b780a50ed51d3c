"""``guardkit policy``: check, test, fit and certify policy files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardkit.cli.options import EXIT_MATCHED, DataOption, DeviceOption, PolicyFile
from guardkit.cli.terminal import say
from guardkit.errors import UsageError

policy_app = typer.Typer(help="Check, test, fit and certify policy files.", no_args_is_help=True)


@policy_app.command("check", epilog="Example: guardkit policy check policies/default.yaml")
def policy_check(file: PolicyFile) -> None:
    """Report every mistake in a policy file, and a backup not shown to help; loads no model."""
    from guardkit.policy.backup_record import unproven
    from guardkit.policy.certificate import promises, read_certificates
    from guardkit.policy.router import load_policy

    router = load_policy(file)
    policy = router.policy
    categories = ", ".join(policy.categories)
    members = ", ".join(policy.members) or "none"
    say(f"{file}: ok: {policy.name!r}; categories: {categories}; members: {members}")
    certificates = read_certificates(policy.path)
    for name in promises(policy):
        say(f"{name}: {certificates[name].summary()}")
    for line in (*unproven(policy, router.sources), *router.unrepeatable()):
        say(f"note: {line}")


@policy_app.command("test", epilog="Example: guardkit policy test policies/default.yaml")
def policy_test(
    file: PolicyFile,
    data: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="Labelled text to measure on, as `evaluate` takes it."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Default: test, or the only one there is.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Run the tests written in a policy file; exit with 1 if one fails.

    With --data, measure it on labelled text as well; the numbers never change the exit code.
    """
    from guardkit.cli import output, policy_output
    from guardkit.cli.progress import shown_progress
    from guardkit.data.examples import load_split
    from guardkit.evaluation.measure import evaluate_policy
    from guardkit.policy.router import load_policy

    router = load_policy(file, device=device)
    output.note_unproven(router)
    results = router.run_tests()
    if not results and data is None:
        raise UsageError(f"{file}: has no tests; add some under `tests:`, or give --data")
    failed = sum(not result.passed for result in results)
    if results:
        policy_output.show_cases(results)
        say(f"{len(results) - failed} of {len(results)} passed")
    if data is not None:
        name, examples = load_split(data, split)
        with shown_progress() as progress:
            report = evaluate_policy(router, examples, progress=progress)
        policy_output.show_measured(f"split {name!r} of {data}", report)
    if failed:
        raise typer.Exit(EXIT_MATCHED)


@policy_app.command(
    "diff", epilog="Example: guardkit policy diff old.yaml new.yaml --data prompts.jsonl"
)
def policy_diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A policy file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A policy file.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="CORPUS",
            help="A file as `guardkit classify` reads it; a label column says which changes are "
            "for the better.",
        ),
    ],
    show: Annotated[int, typer.Option(min=0, help="How many texts to show.")] = 20,
    json: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all of it there as JSON.")
    ] = None,
    fail_on_change: Annotated[
        bool, typer.Option("--fail-on-change", help="Exit with 1 if any text is treated otherwise.")
    ] = False,
    device: DeviceOption = "auto",
) -> None:
    """Show which texts two policies treat otherwise, which way, and by which route."""
    from guardkit.cli import policy_output
    from guardkit.cli.progress import shown_progress
    from guardkit.model import artefact
    from guardkit.tuning.compare import compare_policies, comparison_record

    if json is not None:
        _check_folder("--json", json)
    with shown_progress() as progress:
        comparison = compare_policies(old, new, data, device=device, progress=progress)
    policy_output.show_comparison(comparison, show)
    if json is not None:
        artefact.write_json(json, comparison_record(comparison, data))
    if fail_on_change and comparison.flips:
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
    from guardkit.cli import policy_output
    from guardkit.cli.progress import shown_progress
    from guardkit.data.examples import load_split
    from guardkit.tuning.stacking import fit_stacked_nodes, write_policy

    name, examples = load_split(data, split, default="validation")
    say(f"fitting on split {name!r} of {data}", err=True)
    with shown_progress() as progress:
        stacks = fit_stacked_nodes(
            file, examples, category=category, device=device, progress=progress
        )
    for stack in stacks:
        policy_output.show_stack(stack)
    if out is not None:
        write_policy(file, stacks, out)
        say(f"the policy is in {out}")


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
    from guardkit.cli import policy_output
    from guardkit.cli.progress import shown_progress
    from guardkit.tuning.certify import add_certificates, certify

    with shown_progress() as progress:
        certified = certify(file, category=category, data=data, device=device, progress=progress)
    for result in certified:
        policy_output.show_certified(result)
    if data is None:
        say(f"certified: {add_certificates(file, certified)}")
    else:
        say("nothing written: to certify on these texts, name them in the policy's calibrated_on")


@policy_app.command(
    "frontier", epilog="Example: guardkit policy frontier policy.yaml --data mail/ --out frontier"
)
def policy_frontier(
    file: PolicyFile,
    data: DataOption,
    split: Annotated[
        str | None, typer.Option(help="Default: validation, or the only one there is.")
    ] = None,
    category: Annotated[
        str | None, typer.Option(metavar="NAME", help="Needed where several have a cascade.")
    ] = None,
    max_fpr: Annotated[
        float, typer.Option(help="Share of the negatives that may be flagged.")
    ] = 0.01,
    max_ms: Annotated[
        float | None, typer.Option(help="Milliseconds per text that the chosen point may take.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write all points there, as JSON and as a picture."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the policy there, the chosen point filled in."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where scores are kept; default: ~/.cache.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Show what a cascade costs and catches under every choice of its settle bounds.

    Every member reads every labelled text once; scores are kept for the next time. Says whether
    the backup helps, and which bounds cost and miss the least.
    """
    from guardkit.cli import policy_output
    from guardkit.cli.progress import shown_progress
    from guardkit.data.examples import load_split
    from guardkit.files import write_atomically
    from guardkit.model import artefact
    from guardkit.model.score_cache import default_cache
    from guardkit.tuning.frontier import sweep_policy, write_policy
    from guardkit.tuning.frontier_svg import frontier_picture

    name, examples = load_split(data, split, default="validation")
    say(f"sweeping on split {name!r} of {data}", err=True)
    with shown_progress() as progress:
        frontier = sweep_policy(
            file,
            examples,
            category=category,
            max_fpr=max_fpr,
            max_ms=max_ms,
            cache=cache or default_cache(),
            device=device,
            progress=progress,
        )
    policy_output.show_frontier(frontier)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        artefact.write_json(out / "frontier.json", frontier.record())
        write_atomically(out / "frontier.svg", frontier_picture(frontier).encode())
        say(f"all points are in {out / 'frontier.json'}, a picture in {out / 'frontier.svg'}")
    if write is not None:
        notes = write_policy(frontier, write)
        say("\n".join([f"the policy is in {write}", *notes]))


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

    from guardkit.model import artefact
    from guardkit.policy import json_schema

    if out is None:
        say(json.dumps(json_schema.policy_schema(), indent=2))
        return
    _check_folder("--out", out)
    artefact.write_json(out, json_schema.policy_schema())
    say(f"the schema is in {out}; a policy beside it names it in a first line:")
    say(f"# yaml-language-server: $schema={out.name}")


def _check_folder(option: str, file: Path) -> None:
    if not file.parent.is_dir():
        raise UsageError(f"{option} {file}: no such folder")
