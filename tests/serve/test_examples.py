"""What stands in ``examples/serve`` and ``examples/litellm`` fits the server that it starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.main import get_command

from guardkit.cli.main import app
from guardkit.policy.micro_batching import Limits
from tests.support.serving import Served, serving

ROOT = Path(__file__).parents[2]
SERVE = ROOT / "examples" / "serve"
CONTAINERFILE = (SERVE / "Containerfile").read_text("utf-8")


def yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text("utf-8"))


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.M))
    return [(word, rest) for word, _, rest in (x.partition(" ") for x in joined.splitlines())]


def options() -> set[str]:
    serve: Any = get_command(app)
    return {name for own in serve.commands["serve"].params for name in own.opts}


def test_the_image_is_made_of_what_is_there_and_runs_as_nobody() -> None:
    found = instructions()
    assert found[0][0] == "FROM"
    known = {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    assert {word for word, _ in found} == known
    copied = [path for word, rest in found if word == "COPY" for path in rest.split()[:-1]]
    assert [path for path in copied if not (ROOT / path).exists()] == []
    assert dict(found)["USER"] == "65534:65534"
    assert [word for word, _ in found].index("USER") > [word for word, _ in found].index("RUN")
    given = re.findall(r'"([^"]+)"', dict(found)["ENTRYPOINT"])
    assert given[:2] == ["guardkit", "serve"]
    assert {x for x in given if x.startswith("--")} <= options()


def test_what_the_image_installs_is_what_the_project_needs() -> None:
    assert '-c constraints.txt ".[serve]"' in CONTAINERFILE
    included = (ROOT / "pyproject.toml").read_text("utf-8")
    for needed in ("README.md", "LICENSE", "guardkit", "plugins", "policies"):
        assert needed in CONTAINERFILE
        assert needed in included


def test_the_composed_services_write_nothing_and_gain_nothing() -> None:
    services = yaml(SERVE / "compose.yaml")["services"]
    own = services["guardkit"]
    assert own["read_only"]
    assert own["cap_drop"] == ["ALL"]
    assert own["security_opt"] == ["no-new-privileges:true"]
    assert (SERVE / own["build"]["context"]).resolve() == ROOT
    assert (ROOT / own["build"]["dockerfile"]).is_file()
    assert {x for x in own["command"] if x.startswith("--")} <= options()
    for service in services.values():
        assert service["read_only"]
        for ports in service["ports"]:
            assert ports.startswith("127.0.0.1:"), "of this machine alone, until someone decides"
        for volume in service.get("volumes", ()):
            source, _, mode = volume.split(":")
            assert (SERVE / source).exists()
            assert mode == "ro"


def test_prometheus_asks_the_service_by_its_name() -> None:
    (job,) = yaml(SERVE / "prometheus.yaml")["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in yaml(SERVE / "compose.yaml")["services"]
    assert f"EXPOSE {port}" in CONTAINERFILE


def test_every_model_behind_litellm_is_guarded_and_nothing_fails_open() -> None:
    (guard,) = yaml(ROOT / "examples" / "litellm" / "config.yaml")["guardrails"]
    told = guard["litellm_params"]
    assert told["guardrail"] == "generic_guardrail_api"
    assert told["mode"] == ["pre_call", "post_call"]
    assert told["default_on"] is True
    assert told["unreachable_fallback"] == "fail_closed"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


def test_the_page_of_the_docs_names_every_metric_and_every_path(served: Served) -> None:
    page = (ROOT / "docs" / "serve.md").read_text("utf-8")
    metrics = served.get("/metrics").body.decode()
    families = set(re.findall(r"^# HELP (\w+)", metrics, flags=re.M))
    named = set(re.findall(r"guardkit_[a-z_]+", page))
    assert named == {family for family in families if not family.startswith("process_")}
    assert "process_resident_memory_bytes" in families
    paths = served.get("/openapi.json").json["paths"]
    assert [path for path in paths if f"{path}`" not in page] == []


def test_the_page_of_the_docs_gives_the_limits_that_there_are() -> None:
    from guardkit.serve import bodies, gate, protocol, run, settings

    page = (ROOT / "docs" / "serve.md").read_text("utf-8")
    assert f"up to {bodies.MAX_INPUTS:,} texts or records" in page
    assert f"At most {bodies.MAX_TEXTS:,} texts are judged" in page
    assert f"({settings.KEY_CHARACTERS} characters or more" in page
    assert f"within {1000 * Limits().wait_s:.0f} ms is judged together" in page
    assert Limits().queue_characters == 4_000_000
    assert "about four million characters" in page
    assert gate.BODIES_BYTES == 64 * 2**20
    assert gate.BODY_S == protocol.HEADERS_S == 10
    assert "and 10 s to arrive" in page
    assert protocol.HEADERS_BYTES == 32 * 1024
    assert run.KEEP_ALIVE_S == 5
    assert settings.Settings().hung_s == 60
