"""A good policy file, and every mistake that one can hold."""

from __future__ import annotations

GOOD = """\
version: 1
name: test
mode: enforce
plugins: [audit]
members:
  specialist: {plugin: fake, model: models/specialist}
  backup: {plugin: fake, model: builtin:injection}
categories:
  injection:
    positive: [injection]
    prevalence: 0.01
    decide:
      cascade:
        - pattern: {re2: "ignore all", on: raw}
        - member: specialist
          settle: {below: 0.02, above: 0.98}
        - combine:
            how: weighted
            of:
              - member: specialist
              - member: backup
            weights: [1, 2]
            quorum: 1
    flag_at: {probability: 0.5}
    action: block
    on_error: closed
tests:
  - {text: hello, expect: {injection: allow}}
"""

#: name -> (a line of GOOD, what stands there instead, [(line, field, words of the message)])
#: Every problem is listed: one more or one less fails.
BROKEN: dict[str, tuple[str, str, list[tuple[int, str, str]]]] = {
    # what the schema says
    "unknown key": ("mode: enforce", "mood: enforce", [(3, "mood", "did you mean 'mode'?")]),
    "unknown key, known ones listed": (
        "name: test",
        "name: test\ntitle: x",
        [
            (
                3,
                "title",
                "known: categories, max_characters, members, mode, name, plugins, tests",
            )
        ],
    ),
    "abstaining at no bound": (
        "action: block",
        "action: block\n    abstain_if: {member: specialist}",
        [(26, "categories.injection.abstain_if.novelty_p_below", "required")],
    ),
    "abstaining by a member there is not": (
        "action: block",
        "action: block\n    abstain_if: {member: specialst, novelty_p_below: 0.1}",
        [(26, "categories.injection.abstain_if.member", "did you mean 'specialist'?")],
    ),
    "abstaining by a member without novelty": (
        "action: block",
        "action: block\n    abstain_if: {member: backup, novelty_p_below: 0.1}",
        [
            (
                26,
                "categories.injection.abstain_if.novelty_p_below",
                "injection: has no novelty.json, so it gives no novelty p-value; "
                "`guardkit calibrate` fits one",
            )
        ],
    ),
    "abstaining at a bound no text can reach": (
        "action: block",
        "action: block\n    abstain_if: {member: specialist, novelty_p_below: 0.001}",
        [
            (
                26,
                "categories.injection.abstain_if.novelty_p_below",
                "p-value never falls to 0.001: 19 calibration texts let a bound be 0.05 or more; "
                "one of 0.001 takes 3,996 texts",
            )
        ],
    ),
    "abstaining for sure": (
        "action: block",
        "action: block\n    abstain_if: {member: specialist, novelty_p_below: 1}",
        [(26, "categories.injection.abstain_if.novelty_p_below", "less than 1")],
    ),
    "handing on at a bound no text can reach": (
        "- member: specialist\n          settle",
        "- member: specialist\n          escalate_if: {novelty_p_below: 0.04}\n          settle",
        [
            (
                16,
                "categories.injection.decide.cascade[1].escalate_if.novelty_p_below",
                "one of 0.04 takes 24 texts",
            )
        ],
    ),
    "handing on outside a cascade": (
        "- member: specialist\n              - member: backup",
        "- {member: specialist, escalate_if: {novelty_p_below: 0.1}}\n"
        "              - member: backup",
        [(20, "categories.injection.decide.cascade[2].combine.of[0].escalate_if", "only a stage")],
    ),
    "a last stage that hands on": (
        "        - combine:\n            how: weighted\n            of:\n"
        "              - member: specialist\n              - member: backup\n"
        "            weights: [1, 2]\n            quorum: 1\n",
        "        - combine: {how: any, of: [{member: backup}]}\n"
        "          settle: {below: 0.1, above: 0.9}\n"
        "        - {member: specialist, escalate_if: {novelty_p_below: 0.1}}\n",
        [(19, "categories.injection.decide.cascade[3].escalate_if", "last stage has nobody")],
    ),
    "a combination that hands on": (
        "- member: specialist\n          settle",
        "- combine: {how: any, of: [{member: backup}]}\n"
        "          escalate_if: {novelty_p_below: 0.1}\n          settle",
        [(16, "categories.injection.decide.cascade[1].escalate_if", "known: combine, settle")],
    ),
    "unknown key in a stage": (
        "- member: specialist\n          settle",
        "- member: specialist\n          timeout_ms: 5\n          settle",
        [
            (
                16,
                "categories.injection.decide.cascade[1].timeout_ms",
                "known: escalate_if, member, settle",
            )
        ],
    ),
    "unknown key in a combine": (
        "quorum: 1",
        "quorom: 1",
        [(23, "categories.injection.decide.cascade[2].combine.quorom", "did you mean 'quorum'?")],
    ),
    "unknown key in settle": (
        "settle: {below: 0.02, above: 0.98}",
        "settle: {below: 0.02, over: 0.98}",
        [
            (16, "categories.injection.decide.cascade[1].settle.above", "required"),
            (16, "categories.injection.decide.cascade[1].settle.over", "Known: above, below"),
        ],
    ),
    "no version": ("version: 1\n", "", [(1, "version", "required")]),
    "another version": ("version: 1", "version: 2", [(1, "version", "got 2")]),
    "version by word": ("version: 1", "version: true", [(1, "version", "got True")]),
    "name of a number": ("name: test", "name: 12", [(2, "name", "put it in quotes")]),
    "no name": ("name: test", "name: ''", [(2, "name", "at least 1 character")]),
    "mode by a 1.1 habit": ("mode: enforce", "mode: off", [(3, "mode", "got 'off'")]),
    "probability as a time": (
        "flag_at: {probability: 0.5}",
        "flag_at: {probability: 12:30:45}",
        [(24, "categories.injection.flag_at.probability", "got '12:30:45'")],
    ),
    "probability in quotes": (
        "flag_at: {probability: 0.5}",
        "flag_at: {probability: '0.5'}",
        [(24, "categories.injection.flag_at.probability", "valid number")],
    ),
    "probability of one": (
        "flag_at: {probability: 0.5}",
        "flag_at: {probability: 1}",
        [(24, "categories.injection.flag_at.probability", "less than 1")],
    ),
    "probability without end": (
        "flag_at: {probability: 0.5}",
        "flag_at: {probability: 1e999}",
        [(24, "categories.injection.flag_at.probability", "finite")],
    ),
    "a bare probability": (
        "flag_at: {probability: 0.5}",
        "flag_at: 0.5",
        [(24, "categories.injection.flag_at", "must be a mapping")],
    ),
    "a promise half made": (
        "flag_at: {probability: 0.5}",
        "flag_at: {max_fpr: 0.01}",
        [
            (24, "categories.injection.flag_at.confidence", "required"),
            (24, "categories.injection.flag_at.calibrated_on", "required"),
        ],
    ),
    "a promise of something else": (
        "flag_at: {probability: 0.5}",
        "flag_at:\n      max_fpr: 1\n      confidence: 95%\n      calibrated_on: b.jsonl?size=3\n"
        "      calibrate_on: b.jsonl",
        [
            (25, "categories.injection.flag_at.max_fpr", "less than 1"),
            (26, "categories.injection.flag_at.confidence", "valid number"),
            (27, "categories.injection.flag_at.calibrated_on", "unknown option 'size'"),
            (28, "categories.injection.flag_at.calibrate_on", "did you mean 'calibrated_on'?"),
        ],
    ),
    "a promise and a probability": (
        "flag_at: {probability: 0.5}",
        "flag_at: {probability: 0.5, max_fpr: 0.01, confidence: 0.95, calibrated_on: b.jsonl}",
        [(24, "categories.injection.flag_at", "needs either probability, or max_fpr")],
    ),
    "a threshold of no form": (
        "flag_at: {probability: 0.5}",
        "flag_at: {score: 0.5}",
        [(24, "categories.injection.flag_at", "calibrated_on, got score")],
    ),
    "a promise without a certificate": (
        "flag_at: {probability: 0.5}",
        "flag_at: {max_fpr: 0.01, confidence: 0.95, calibrated_on: b.jsonl}",
        [(24, "categories.injection.flag_at", "`guardkit policy certify policy.yaml` finds")],
    ),
    "no threshold": (
        "    flag_at: {probability: 0.5}\n",
        "",
        [(9, "categories.injection.flag_at", "required")],
    ),
    "no action": (
        "    action: block\n",
        "",
        [(9, "categories.injection.action", "required")],
    ),
    "an action there is not": (
        "action: block",
        "action: allow",
        [(25, "categories.injection.action", "'flag' or 'block', got 'allow'")],
    ),
    "on_error by a 1.1 habit": (
        "on_error: closed",
        "on_error: no",
        [(26, "categories.injection.on_error", "'closed' or 'open', got 'no'")],
    ),
    "prevalence of none": (
        "prevalence: 0.01",
        "prevalence: 0",
        [(11, "categories.injection.prevalence", "greater than 0")],
    ),
    "empty positive": (
        "positive: [injection]",
        "positive: []",
        [(10, "categories.injection.positive", "at least 1 item")],
    ),
    "positive by itself": (
        "positive: [injection]",
        "positive: injection",
        [(10, "categories.injection.positive", "valid list")],
    ),
    "empty parts": (
        "of:\n              - member: specialist\n              - member: backup\n",
        "of: []\n",
        [
            (19, "categories.injection.decide.cascade[2].combine.of", "at least 1 item"),
            (7, "members.backup", "no category uses this member"),
        ],
    ),
    "a bad name": (
        "  injection:\n",
        "  in jection:\n",
        [
            (9, "categories.'in jection'", "letters, digits"),
            (28, "tests[0].expect.injection", "unknown category 'injection'"),
        ],
    ),
    "a name of 65 letters": (
        "  injection:\n",
        f"  {'i' * 65}:\n",
        [
            (9, f"categories.{'i' * 65}", "must be 1 to 64 letters"),
            (28, "tests[0].expect.injection", "unknown category 'injection'"),
        ],
    ),
    "a title of 201 letters": (
        "name: test",
        f"name: {'t' * 201}",
        [(2, "name", "at most 200 characters")],
    ),
    "a node of no kind": (
        "- member: backup",
        "- memer: backup",
        [(21, "categories.injection.decide.cascade[2].combine.of[1]", "exactly one of")],
    ),
    "a node of two kinds": (
        "- member: backup",
        "- {member: backup, cascade: [{member: backup}]}",
        [(21, "categories.injection.decide.cascade[2].combine.of[1]", "got member, cascade")],
    ),
    "a node that is a word": (
        "- member: backup",
        "- backup",
        [(21, "categories.injection.decide.cascade[2].combine.of[1]", "exactly one of")],
    ),
    "weight below zero": (
        "weights: [1, 2]",
        "weights: [1, -2]",
        [(22, "categories.injection.decide.cascade[2].combine.weights[1]", "greater than 0")],
    ),
    "weights all zero": (
        "weights: [1, 2]",
        "weights: [0, 0]",
        [
            (22, "categories.injection.decide.cascade[2].combine.weights[0]", "greater than 0"),
            (22, "categories.injection.decide.cascade[2].combine.weights[1]", "greater than 0"),
        ],
    ),
    "bound over one": (
        "settle: {below: 0.02, above: 0.98}",
        "settle: {below: 0.02, above: 98}",
        [(16, "categories.injection.decide.cascade[1].settle.above", "less than or equal to 1")],
    ),
    "a form of the text there is not": (
        "on: raw",
        "on: lower",
        [(14, "categories.injection.decide.cascade[0].pattern.on", "got 'lower'")],
    ),
    "a test of nothing": (
        "expect: {injection: allow}",
        "expect: {}",
        [(28, "tests[0].expect", "at least 1 item")],
    ),
    # what only the whole says
    "unknown member": (
        "- member: backup",
        "- member: backpu",
        [
            (21, "categories.injection.decide.cascade[2].combine.of[1].member", "'backup'?"),
            (7, "members.backup", "no category uses this member"),
        ],
    ),
    "unused member": (
        "members:\n",
        "members:\n  spare: {plugin: fake, model: models/specialist}\n",
        [(6, "members.spare", "no category uses this member")],
    ),
    "unknown plugin": (
        "backup: {plugin: fake,",
        "backup: {plugin: fkae,",
        [(7, "members.backup.plugin", "no classifier family is called 'fkae'; available: fake")],
    ),
    "broken plugin": (
        "backup: {plugin: fake,",
        "backup: {plugin: sick,",
        [(7, "members.backup.plugin", "cannot be used: ImportError: no module named torch")],
    ),
    "unknown audit plugin": (
        "plugins: [audit]",
        "plugins: [\n  adit]",
        [(5, "plugins[0]", "did you mean 'audit'?")],
    ),
    "broken audit plugin": (
        "plugins: [audit]",
        "plugins: [sick]",
        [(4, "plugins[0]", "no module")],
    ),
    "a plugin with nothing to enable": (
        "plugins: [audit]",
        "plugins: [fake]",
        [(4, "plugins[0]", "no `decided` hook")],
    ),
    "no model folder": (
        "model: models/specialist",
        "model: models/absent",
        [
            (
                6,
                "members.specialist.model",
                "models/absent: not a guardkit model: no such folder; "
                "`guardkit train --plugin fake --data DATA --out /",
            )
        ],
    ),
    "no model in the folder": (
        "model: models/specialist",
        "model: models",
        [(6, "members.specialist.model", "it has no config.json")],
    ),
    "no such bundled model": (
        "model: builtin:injection",
        "model: builtin:toxicity",
        [(7, "members.backup.model", "no such bundled model; bundled: builtin:fake/injection")],
    ),
    "another family's model": (
        "model: models/specialist",
        "model: models/foreign",
        [(6, "members.specialist.model", "made by plugin 'other', not 'fake'")],
    ),
    "uncalibrated model": (
        "model: models/specialist",
        "model: models/uncalibrated",
        [(6, "members.specialist.model", "`guardkit train` fits one")],
    ),
    "a model nobody could have": (
        "model: models/specialist",
        'model: "models/\\0"',
        [(6, "members.specialist.model", "null")],
    ),
    "a model name too long": (
        "model: models/specialist",
        f"model: {'x' * 5000}",
        [(6, "members.specialist.model", "File name too long")],
    ),
    "a model of no user": (
        "model: models/specialist",
        "model: ~nobody-of-that-name/m",
        [(6, "members.specialist.model", "home directory")],
    ),
    "a label no member has": (
        "positive: [injection]",
        "positive:\n      - injection\n      - jailbreak",
        [
            (12, "categories.injection.positive[1]", "member 'specialist' has no label"),
            (12, "categories.injection.positive[1]", "'backup' has no label 'jailbreak'; its lab"),
        ],
    ),
    "positive covers everything": (
        "positive: [injection]",
        "positive: [injection, benign]",
        [
            (10, "categories.injection.positive", "covers every label of member 'backup'"),
            (10, "categories.injection.positive", "covers every label of member 'specialist'"),
        ],
    ),
    "a label twice": (
        "positive: [injection]",
        "positive: [injection, injection]",
        [(10, "categories.injection.positive[1]", "listed twice")],
    ),
    "a role twice": (
        "positive: [injection]",
        "positive: [injection]\n    roles: [tool, user, tool]",
        [(11, "categories.injection.roles[2]", "listed twice")],
    ),
    "no positive": (
        "    positive: [injection]\n",
        "",
        [(9, "categories.injection.positive", "required")],
    ),
    "bounds the wrong way round": (
        "settle: {below: 0.02, above: 0.98}",
        "settle: {below: 0.98, above: 0.02}",
        [(16, "categories.injection.decide.cascade[1].settle", "below (0.98) must not be above")],
    ),
    "a threshold beyond the bounds": (
        "flag_at: {probability: 0.5}",
        "flag_at: {probability: 0.995}",
        [(16, "categories.injection.decide.cascade[1].settle", "flag_at (0.995) must lie between")],
    ),
    "a threshold below the bounds": (
        "flag_at: {probability: 0.5}",
        "flag_at: {probability: 0.01}",
        [(16, "categories.injection.decide.cascade[1].settle", "flag_at (0.01) must lie between")],
    ),
    "unreachable stage": (
        "          settle: {below: 0.02, above: 0.98}\n",
        "",
        [(16, "categories.injection.decide.cascade[2]", "unreachable: stage [1] has no `settle`")],
    ),
    "bounds left empty": (
        "settle: {below: 0.02, above: 0.98}",
        "settle:",
        [(17, "categories.injection.decide.cascade[2]", "unreachable")],
    ),
    "settle outside a cascade": (
        "- member: backup",
        "- {member: backup, settle: {below: 0.1, above: 0.9}}",
        [(21, "categories.injection.decide.cascade[2].combine.of[1].settle", "only a stage")],
    ),
    "unknown combiner": (
        "how: weighted",
        "how: wieghted",
        [
            (18, "categories.injection.decide.cascade[2].combine.how", "did you mean 'weighted'?"),
            (22, "categories.injection.decide.cascade[2].combine.weights", "only `how: weighted`"),
        ],
    ),
    "weights without a use": (
        "how: weighted",
        "how: any",
        [(22, "categories.injection.decide.cascade[2].combine.weights", "only `how: weighted`")],
    ),
    "stacked, not fitted yet": (
        "how: weighted\n            of:\n              - member: specialist\n"
        "              - member: backup\n            weights: [1, 2]\n",
        "how: stacked\n            of:\n              - member: specialist\n"
        "              - member: backup\n",
        [
            (
                18,
                "categories.injection.decide.cascade[2].combine.how",
                "no weights yet; `guardkit policy stack` fits them",
            )
        ],
    ),
    "a bias without a use": (
        "quorum: 1",
        "bias: 0.5",
        [(23, "categories.injection.decide.cascade[2].combine.bias", "only `how: stacked`")],
    ),
    "a bias that is no number": (
        "quorum: 1",
        "bias: much",
        [
            (23, "categories.injection.decide.cascade[2].combine.bias", "valid number"),
            (23, "categories.injection.decide.cascade[2].combine.bias", "only `how: stacked`"),
        ],
    ),
    "too many weights": (
        "weights: [1, 2]",
        "weights: [1, 2, 3]",
        [(22, "categories.injection.decide.cascade[2].combine.weights", "3 weights for 2 parts")],
    ),
    "a quorum of more than all": (
        "quorum: 1",
        "quorum: 3",
        [(23, "categories.injection.decide.cascade[2].combine.quorum", "must be 1 to 2")],
    ),
    "a quorum of none": (
        "quorum: 1",
        "quorum: 0",
        [(23, "categories.injection.decide.cascade[2].combine.quorum", "greater than or equal")],
    ),
    "a pattern in a sum": (
        "- member: backup",
        "- combine: {how: any, of: [{member: backup}, {pattern: {re2: x}}]}",
        [
            (
                21,
                "categories.injection.decide.cascade[2].combine.of[1].combine.of[1].pattern",
                "cannot stand under `how: weighted`",
            )
        ],
    ),
    "a pattern re2 refuses": (
        're2: "ignore all"',
        're2: "(a)\\\\1"',
        [(14, "categories.injection.decide.cascade[0].pattern.re2", "not a pattern re2 takes")],
    ),
    "a test of no category": (
        "expect: {injection: allow}",
        "expect: {injektion: allow}",
        [(28, "tests[0].expect.injektion", "did you mean 'injection'?")],
    ),
    "a test that can never pass": (
        "expect: {injection: allow}",
        "expect: {injection: flag}",
        [(28, "tests[0].expect.injection", "gives allow or block, never flag")],
    ),
    "a test of an action there is not": (
        "expect: {injection: allow}",
        "expect: {injection: pass}",
        [(28, "tests[0].expect.injection", "'allow', 'flag', 'abstain' or 'block'")],
    ),
    # what the YAML reader says, beside the rest
    "alias": (
        "flag_at: {probability: 0.5}",
        "flag_at: *somewhere",
        [(24, "categories.injection.flag_at", "aliases")],
    ),
    "alias for a node": (
        "- member: backup",
        "- *backup",
        [(21, "categories.injection.decide.cascade[2].combine.of[1]", "aliases")],
    ),
    "tag": ("name: test", "name: !!python/name:os.system x", [(2, "name", "tags")]),
    "duplicate key": (
        "action: block",
        "action: block\n    action: flag",
        [(26, "categories.injection.action", "duplicate key; first on line 25")],
    ),
    "not YAML": ("name: test", "name: test: more", [(2, "", "not YAML")]),
    "two files in one": ("tests:\n", "---\ntests:\n", [(27, "", "second document")]),
}

#: Files that are none, or mean harm.
HOSTILE = {
    "50 MB": b"a" * (50 << 20),
    "aliases that multiply": b"a: &a [x, x]\n" + b"".join(
        b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 121)
    ),
    "code in a tag": b"version: !!python/object/apply:os.system [true]\n",
    "depth": b"[" * 100_000,
}  # fmt: skip
