"""A sealed model of either bundled family whose files are not what they should be."""

from __future__ import annotations

import json
import re
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import guardkit_gpt2
import guardkit_mdlm
import numpy as np
import pytest

from guardkit import ArtefactError, ConfigError, GuardkitError, load_model
from guardkit.bounds import (
    MAX_CARD_BYTES,
    MAX_CARD_OPENING_BYTES,
    MAX_RECORD_BYTES,
    MAX_TENSORS_HEADER_BYTES,
    MIB,
)
from guardkit.cli.main import main
from guardkit.model import artefact
from guardkit.training.options import read_card

MODELS = {
    "mdlm": Path(guardkit_mdlm.__file__).parent / "models" / "spam",
    "gpt2": Path(guardkit_gpt2.__file__).parent / "models" / "safety",
}
ROOT = Path(__file__).parents[2]
LONG = "the weather is fine today and the rice is in the pot " * 30 + "you have won a free prize"


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return shutil.copytree(MODELS[request.param], tmp_path / request.param)


def edited(folder: Path, name: str, edit: Callable[[dict[str, Any]], None]) -> Path:
    record = json.loads((folder / name).read_text())
    edit(record)
    (folder / name).write_text(json.dumps(record))
    artefact.seal(folder)
    return folder


CUTS = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
PADS = {
    "strategy": {"Fixed": 10**8},
    "direction": "Right",
    "pad_to_multiple_of": 10**8,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}


@pytest.mark.parametrize("setting", [{"truncation": CUTS}, {"padding": PADS}])
def test_a_sealed_model_whose_tokenizer_cuts_or_pads_reads_texts_whole(
    model: Path, setting: dict[str, Any]
) -> None:
    before = load_model(model, device="cpu").score([LONG, "free"])
    changed = load_model(edited(model, "tokenizer.json", lambda t: t.update(setting)), device="cpu")
    after = changed.score([LONG, "free"])
    assert after.tokens_N.tolist() == before.tokens_N.tolist()
    assert after.tokens_N[0] > 300
    np.testing.assert_array_equal(after.logits_NC, before.logits_NC)
    assert not after.truncated_N.any()
    assert not after.errors


def test_no_tokenizer_is_made_but_by_what_reads_texts_whole() -> None:
    makes = re.compile(r"\bTokenizer\.from_|\bTokenizer\(models|backend_tokenizer|_gpt2\(\*")
    for path in [*ROOT.glob("guardkit/**/*.py"), *ROOT.glob("plugins/**/guardkit_*/**/*.py")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if makes.search(line) and "read_whole(" not in line:
                # these two functions hand what they make to ``read_whole`` further down
                made_here = {"bpe.py": "Tokenizer(models.BPE())", "tokenizer.py": "BPE.from_file("}
                assert made_here.get(path.name, "\0") in line, f"{path}:{number}: {line}"


def _deep(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        network = config["network"]
        if "gpt2" in network:
            network["gpt2"]["n_layer"] = 10**7
        else:
            network["shape"]["n_blocks"] = 10**7

    edited(folder, "config.json", edit)


def _wide(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        network = config["network"]
        if "gpt2" in network:
            network["gpt2"] |= {"n_embd": 10**5, "n_head": 1}
        else:
            network["shape"] |= {"hidden_dim": 10**5, "n_heads": 1}

    edited(folder, "config.json", edit)


def _many_words(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        network = config["network"]
        network.get("gpt2", network.get("shape"))["vocab_size"] = 4 * 10**6

    edited(folder, "config.json", edit)


def _long_positions(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        network = config["network"]
        if "gpt2" in network:
            network["gpt2"]["n_positions"] = 10**8
        else:
            network["shape"]["ngrams"], network["shape"]["ngram_terms"] = 3, 2**29

    edited(folder, "config.json", edit)


def _many_tensors(folder: Path) -> None:
    one = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"t{i}": one for i in range(100_000)}).encode()
    _tensors(folder, header)


def _tensors(folder: Path, header: bytes) -> None:
    (folder / artefact.WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    artefact_seal_unchecked(folder)


def _large_card(folder: Path) -> None:
    (folder / artefact.CARD).write_bytes(b"# x\n" * MIB)
    artefact_seal_unchecked(folder)


def _large_config(folder: Path) -> None:
    config = json.loads((folder / artefact.CONFIG).read_text())
    config["training"] = {"notes": "x" * 17 * MIB}
    (folder / artefact.CONFIG).write_text(json.dumps(config))
    artefact_seal_unchecked(folder)


def _large_sums(folder: Path) -> None:
    (folder / artefact.SUMS).write_bytes(b"0" * 64 + b"  x\n" * 4 * MIB)


def _large_tokenizer(folder: Path) -> None:
    with (folder / "tokenizer.json").open("ab") as file:
        file.truncate(65 * MIB)
    artefact_seal_unchecked(folder)


def artefact_seal_unchecked(folder: Path) -> None:
    """Write the sums that somebody else's program would write."""
    names = sorted(p.name for p in folder.iterdir() if p.name != artefact.SUMS)
    lines = [f"{artefact._sha256(folder / name)}  {name}\n" for name in names]
    (folder / artefact.SUMS).write_text("".join(lines))


OVERSIZED = {
    "deep": (_deep, "256"),
    "wide": (_wide, "ask for [0-9,]+ weights or more"),
    "many words": (_many_words, "ask for [0-9,]+ weights or more"),
    "positions or runs": (_long_positions, "ask for [0-9,]+ weights or more"),
    "tensors": (_many_tensors, f"at most {MAX_TENSORS_HEADER_BYTES:,}"),
    "card": (_large_card, f"at most {MAX_CARD_BYTES:,}"),
    "config": (_large_config, f"at most {MAX_RECORD_BYTES:,}"),
    "sums": (_large_sums, f"at most {MAX_RECORD_BYTES:,}"),
    "tokenizer": (_large_tokenizer, "at most 67,108,864"),
}


@pytest.mark.parametrize("name", OVERSIZED)
def test_an_oversized_model_is_refused_at_once_with_the_limit_named(model: Path, name: str) -> None:
    load_model(model, device="cpu")  # imports what is needed
    change, limit = OVERSIZED[name]
    change(model)
    memory, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ArtefactError, match=limit) as refused:
        load_model(model, device="cpu")
    assert time.monotonic() - begun < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 * 1024
    assert "\n" not in str(refused.value)
    assert str(model) in str(refused.value)


def _cut_weights(folder: Path) -> None:
    data = (folder / artefact.WEIGHTS).read_bytes()
    (folder / artefact.WEIGHTS).write_bytes(data[: len(data) // 2])


def _no_tensor(folder: Path) -> None:
    header = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (folder / artefact.WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def _no_calibration(folder: Path) -> None:
    (folder / artefact.CALIBRATION).write_text('{"labels": 1}')


def _other_sizes(folder: Path) -> None:
    def edit(config: dict[str, Any]) -> None:
        network = config["network"]
        network.get("gpt2", network.get("shape"))["vocab_size"] = 300

    edited(folder, "config.json", edit)


def _not_hashed(folder: Path) -> None:
    (folder / artefact.CARD).write_text("another")


DAMAGED = [
    _cut_weights,
    _no_tensor,
    _no_tokenizer,
    _no_calibration,
    _other_sizes,
    _deep,
    _large_card,
]


@pytest.mark.parametrize("damage", [*DAMAGED, _not_hashed])
def test_a_damaged_model_gives_the_same_one_line_alone_and_under_a_policy(
    model: Path,
    damage: Callable[[Path], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(model)
    if damage is not _not_hashed:
        artefact_seal_unchecked(model)
    label = json.loads((model / artefact.CONFIG).read_text())["labels"][-1]
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nname: p\n"
        f"members: {{m: {{plugin: {model.name}, model: {model}}}}}\n"
        f"categories: {{c: {{positive: [{label}], decide: {{member: m}}, "
        "flag_at: {probability: 0.5}, action: block}}\n"
    )
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    said = []
    for how in (["--model", str(model)], ["--policy", str(tmp_path / "policy.yaml")]):
        code = main(["classify", str(tmp_path / "in.jsonl"), "--device", "cpu", *how])
        shown = capsys.readouterr()
        assert shown.out == ""
        said.append((code, shown.err))
    assert said[0] == said[1]
    code, line = said[0]
    assert code in (2, 3)
    assert line.startswith(f"error: {model}")
    assert line.count("\n") == 1


@pytest.mark.parametrize("family", MODELS)
def test_cuda_where_there_is_none_is_one_line(
    family: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    args = ["--model", str(MODELS[family]), "--device", "cuda"]
    for command in (["classify", str(tmp_path / "in.jsonl")], ["explain", "hello"]):
        assert main([*command, *args]) == 2
        expected = "error: device 'cuda': torch sees no CUDA device; use 'cpu' or 'auto'\n"
        assert capsys.readouterr().err == expected


def test_every_family_names_its_model_in_what_it_refuses(model: Path) -> None:
    _no_tokenizer(model)
    artefact.seal(model)
    with pytest.raises(GuardkitError, match=f"plugin '{model.name}' cannot load it"):
        load_model(model, device="cpu")


def test_a_card_of_many_kilobytes_is_shown_within_seconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(MODELS["mdlm"], tmp_path / "m")
    (model / artefact.CARD).write_text("[x](http://e) **a** `b` | c |\n" * 30_000)
    artefact.seal(model)
    begun = time.process_time()
    assert main(["models", "show", str(model)]) == 0
    assert time.process_time() - begun < 5
    assert "[x](http://e) **a**" in capsys.readouterr().out


def test_a_card_to_open_with_is_measured_before_training(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_bytes(b"x" * (MAX_CARD_OPENING_BYTES + 1))
    with pytest.raises(ConfigError, match=f"at most {MAX_CARD_OPENING_BYTES:,}"):
        read_card(card)
