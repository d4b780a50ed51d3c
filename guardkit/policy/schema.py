"""What a policy can say: frozen models, one class for each thing in the file.

``guardkit.policy.check`` reads and checks one; ``guardkit.policy.router`` decides by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PrivateAttr, Tag

from guardkit.bounds import MAX_CHARACTERS
from guardkit.errors import UsageError
from guardkit.log_odds import logit
from guardkit.types import Action, Role
from guardkit.yamlfile import Place

# Marks the parts of pydantic's error locations that name a node's kind and are not in the file.
KIND_TAG = "\0"

# {0,63} in the pattern would take 15 ms to compile: \w is all the letters there are
Name = Annotated[str, Field(pattern=r"^\w[\w./-]*$", max_length=64)]
Probability = Annotated[float, Field(gt=0, lt=1)]  # 0 and 1 have no finite log-odds
Bound = Annotated[float, Field(ge=0, le=1)]  # at 0 or 1 nothing is settled on that side


#: The roles that a category judges unless it names its own: not what the operator writes.
JUDGED_ROLES: tuple[Role, ...] = ("user", "assistant", "tool")


OnMemberDown = Literal["stop", "on_error", "next"]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        defer_build=True,  # each would build all below it anew, 30 ms at every start
    )


class Member(_Frozen):
    """A classifier the policy may use. Nothing loads until a text needs it."""

    plugin: str = Field(description="the classifier family, as `guardkit plugins` lists it")
    model: str | None = Field(
        default=None,
        min_length=1,
        description="an artefact folder, relative to the policy file, or builtin:NAME; left out "
        "where the plugin's members need none",
    )
    scorer: str | None = Field(
        default=None,
        min_length=1,
        description="how it scores, where its family offers several ways; its own where left out",
    )
    options: dict[str, Any] | None = Field(
        default=None,
        description="what its plugin has to know beside the model",
    )
    timeout_ms: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="a call of a member that is asked elsewhere has failed after it"
    )
    cache: str | None = Field(
        default=None,
        min_length=1,
        description="a file, relative to the policy file, that keeps what it answered",
    )
    on_member_down: OnMemberDown = Field(
        default="on_error",
        description="when the member itself is gone: stop the run; its texts have failed; or go on "
        "to what else there is, as if the member were not in the file",
    )


class Settle(_Frozen):
    """When a stage's answer is final: at or below ``below``, or at or above ``above``."""

    below: Bound = Field(description="calibrated probability; 0: never settles as clear")
    above: Bound = Field(description="calibrated probability; 1: never settles as positive")


class _Node(_Frozen):
    settle: Settle | None = Field(default=None, description="only on the stages of a cascade")


class EscalateIf(_Frozen):
    """When a stage hands a text on, however sure it is."""

    novelty_p_below: Probability = Field(
        description="the member's novelty p-value: at or below, unlike its training data"
    )


class AbstainIf(_Frozen):
    """When a text that would be allowed is not: abstain."""

    member: str = Field(description="whose novelty; it is asked about what would be allowed")
    novelty_p_below: Probability = Field(
        description="the member's novelty p-value: at or below, unlike its training data"
    )


class MemberNode(_Node):
    """One classifier's calibrated log-odds of the positive labels."""

    member: str
    escalate_if: EscalateIf | None = Field(
        default=None, description="only on the stages of a cascade, and not on its last"
    )


class Pattern(_Frozen):
    """A regular expression (google-re2: linear time), searched anywhere in the text."""

    re2: str = Field(min_length=1)
    on: Literal["raw", "canonical"] = Field(
        default="raw",
        description="raw: the text as it came; canonical: what hides letters undone, accents off",
    )


class PatternNode(_Node):
    """+inf where the pattern matches; no opinion where it does not."""

    pattern: Pattern


class CascadeNode(_Node):
    """Stages in order: each text takes the value of the first that settles it."""

    cascade: list[AnyNode] = Field(min_length=1)


class Combine(_Frozen):
    """Several opinions made into one."""

    how: str = Field(description="any, all, weighted, product, stacked, or a plugin's combiner")
    of: list[AnyNode] = Field(min_length=1)
    weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="one per part; `how: weighted`: equal where left out; `how: stacked`: fitted",
    )
    bias: float | None = Field(
        default=None, description="for `how: stacked`: added to the log-odds; 0 where left out"
    )
    quorum: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="go on without failed parts while this many remain"
    )


class CombineNode(_Node):
    """The parts' values, merged by ``how``."""

    combine: Combine


#: The keys that say what a node is; each node has exactly one of them.
KINDS: Mapping[str, type[_Node]] = {
    "member": MemberNode,
    "cascade": CascadeNode,
    "combine": CombineNode,
    "pattern": PatternNode,
}


def kind_of(node: Any) -> str | None:
    """Return the tag of ``node``'s kind (a mapping, or a model); None unless it has just one."""
    keys = node.model_fields_set if isinstance(node, _Node) else node
    kinds = [kind for kind in KINDS if isinstance(keys, dict | set) and kind in keys]
    return KIND_TAG + kinds[0] if len(kinds) == 1 else None


AnyNode: TypeAlias = Annotated[
    Annotated[MemberNode, Tag(KIND_TAG + "member")]
    | Annotated[CascadeNode, Tag(KIND_TAG + "cascade")]
    | Annotated[CombineNode, Tag(KIND_TAG + "combine")]
    | Annotated[PatternNode, Tag(KIND_TAG + "pattern")],
    Discriminator(
        kind_of,
        custom_error_type="node",
        custom_error_message=f"needs exactly one of the keys {', '.join(KINDS)}",
    ),
]


class AtProbability(_Frozen):
    """A category is flagged where its calibrated probability is above this."""

    probability: Probability


class AtMaxFpr(_Frozen):
    """A category is flagged above the threshold that its certificate holds: the loosest that, with
    this confidence, flags no more than this share of all benign texts."""

    max_fpr: Probability = Field(
        description="the largest share of benign texts that may be flagged"
    )
    confidence: Probability = Field(description="how sure that must be, such as 0.95")
    calibrated_on: str = Field(
        min_length=1,
        description="benign texts, a data spec; relative paths start at the policy file's folder",
    )


#: The two ways to say where a category is flagged, by the key that each must have.
FLAG_FORMS: Mapping[str, type[AtProbability | AtMaxFpr]] = {
    "probability": AtProbability,
    "max_fpr": AtMaxFpr,
}


def _flag_form_of(value: Any) -> str | None:
    """Return the tag of the one form whose keys ``value`` has (a mapping, or a model), or None."""
    keys = value.model_fields_set if isinstance(value, _Frozen) else value
    if not isinstance(keys, dict | set):
        return KIND_TAG + "probability"  # whose check says that it must be a mapping
    forms = [form for form, model in FLAG_FORMS.items() if set(keys) & set(model.model_fields)]
    return KIND_TAG + forms[0] if len(forms) == 1 else None


FlagAt: TypeAlias = Annotated[
    Annotated[AtProbability, Tag(KIND_TAG + "probability")]
    | Annotated[AtMaxFpr, Tag(KIND_TAG + "max_fpr")],
    Discriminator(
        _flag_form_of,
        custom_error_type="flag_at",
        custom_error_message="needs either probability, or max_fpr with confidence and "
        "calibrated_on",
    ),
]


class Threshold(_Frozen):
    """What a category is flagged above, in log-odds and as a probability."""

    log_odds: float
    probability: float


class Category(_Frozen):
    """One thing to look for, and what to do where it is found."""

    positive: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list, min_length=1, description="the members' labels that count"
    )
    prevalence: Probability | None = Field(
        default=None,
        description="expected share of positives; moves log-odds from the calibration's prior",
    )
    roles: list[Role] = Field(
        default_factory=lambda: list(JUDGED_ROLES),
        min_length=1,
        description="whose words in a conversation it judges: all but system and developer where "
        "left out; a text without a role is always judged",
    )
    decide: AnyNode
    flag_at: FlagAt
    abstain_if: AbstainIf | None = Field(default=None, description="turns allow into abstain")
    action: Literal["flag", "block"]
    on_error: Literal["closed", "open"] = Field(
        default="closed",
        description="what a text that could not be judged gets: the action, or allow",
    )
    on_truncated: Literal["closed", "open"] | None = Field(
        default=None,
        description="what a text gets that was not read to its end and would be allowed: the "
        "action, or allow; as on_error where left out",
    )

    _certified: Threshold | None = PrivateAttr(None)

    def judges(self, role: Role | None) -> bool:
        """Whether it judges a text of this role; one of no known role it always does."""
        return role is None or role in self.roles

    def asks(self, member: str) -> bool:
        """Whether it may ask ``member`` what a text is."""
        nodes = (node for _, node in walk(self.decide))
        return any(isinstance(node, MemberNode) and node.member == member for node in nodes)

    @property
    def closed_where_truncated(self) -> bool:
        """Whether a text that was not read to its end gets the action."""
        return (self.on_truncated or self.on_error) == "closed"

    @property
    def threshold(self) -> Threshold:
        """What it is flagged above: as written, or as certified. Raises UsageError where
        ``flag_at`` asks for a certificate and none was applied."""
        if isinstance(self.flag_at, AtProbability):
            p = self.flag_at.probability
            return Threshold(log_odds=logit(p), probability=p)
        if self._certified is None:
            raise UsageError(
                f"flag_at: max_fpr {self.flag_at.max_fpr} has no certificate yet, so there is no "
                "threshold to decide by; `guardkit policy certify` makes one"
            )
        return self._certified


class PolicyCase(_Frozen):
    """A text and what the policy must do with it."""

    text: str
    expect: dict[str, Action] = Field(min_length=1, description="category to action")


class Policy(_Frozen):
    """A policy file, checked."""

    version: Annotated[int, Field(ge=1, le=1)]
    name: str = Field(min_length=1, max_length=200)
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce", description="shadow: decide and record, but always allow"
    )
    max_characters: Annotated[int, Field(ge=1)] = Field(
        default=MAX_CHARACTERS,
        description="characters of a text, with its other readings, that a model is given; a text "
        "of more is truncated",
    )
    plugins: list[str] = Field(
        default_factory=list, description="plugins whose `decided` hook sees this policy's work"
    )
    members: dict[Name, Member] = Field(default_factory=dict)
    categories: dict[Name, Category] = Field(min_length=1)
    tests: list[PolicyCase] = Field(default_factory=list)

    _path: Path = PrivateAttr(Path())
    _hash: str = PrivateAttr("")

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self._path

    @property
    def hash(self) -> str:
        """SHA-256 of the file, and of its certificates where it needs any; hexadecimal."""
        return self._hash

    def refuse_unknown_category(self, name: str | None, path: Path) -> None:
        """Raise UsageError, which calls the file ``path``, where there is no category ``name``."""
        if name is not None and name not in self.categories:
            known = ", ".join(self.categories)
            raise UsageError(f"{path}: no category {name!r}; there are {known}")

    @property
    def novelty_members(self) -> set[str]:
        """The members whose novelty decides something."""
        members = {c.abstain_if.member for c in self.categories.values() if c.abstain_if}
        pending: list[AnyNode] = [c.decide for c in self.categories.values()]
        while pending:
            match pending.pop():
                case MemberNode(member=name, escalate_if=EscalateIf()):
                    members.add(name)
                case CascadeNode(cascade=parts) | CombineNode(combine=Combine(of=parts)):
                    pending += parts
        return members


def policies_dir() -> Path:
    """Return the folder of the policies that come with guardkit, in a wheel or a checkout."""
    here = Path(__file__).parents[1]
    bundled = here / "policies"
    return bundled if bundled.is_dir() else here.parent / "policies"


def node_name(node: AnyNode) -> str:
    """Return how decisions name ``node``: ``specialist``, ``any(specialist, backup)``."""
    match node:
        case MemberNode():
            return node.member
        case PatternNode():
            re2 = node.pattern.re2
            return f"pattern({re2 if len(re2) <= 40 else re2[:37] + '...'})"
        case CascadeNode():
            return f"cascade({', '.join(map(node_name, node.cascade))})"
        case CombineNode():
            return f"{node.combine.how}({', '.join(map(node_name, node.combine.of))})"


def walk(node: AnyNode, place: Place = ()) -> Iterator[tuple[Place, AnyNode]]:
    """Yield ``node``, whose place in the file is ``place``, and all nodes below it with theirs."""
    yield place, node
    match node:
        case CascadeNode():
            parts, below = node.cascade, (*place, "cascade")
        case CombineNode():
            parts, below = node.combine.of, (*place, "combine", "of")
        case _:
            return
    for i, part in enumerate(parts):
        yield from walk(part, (*below, i))
