"""Everything that wants a GPU, in one command that may be called again until it is done.

    python benchmarks/gpu/run.py --out OUT --minutes 9.5

check, peaks, plan, train (two stages), score, speed, seeds: each is done once; a call goes on
where the one before it stopped, and ends before its minutes are over. Reads what prepare.py
wrote; works in --state on the local disk; leaves in OUT, after every stage and at its end,
results.json and the weights in parts of 15 MiB.

Not called queue.py: beside a script of that name torch would import it for Python's own queue.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Modules of the wheels that prepare.py fetched.
BROUGHT = ("lazy_loader", "msgspec", "pydantic")


def main() -> int:
    started = time.monotonic()
    arguments = _arguments()
    state: Path = arguments.state
    state.mkdir(parents=True, exist_ok=True)
    _install(arguments.data / "wheels", state / "site")
    # in the place of this folder, whose modules are those of benchmarks.gpu
    sys.path[:1] = [str(ROOT), str(ROOT / "plugins" / "mdlm")]

    from benchmarks.gpu.sizes import FULL, SMOKE
    from benchmarks.gpu.stages import Queue

    size = SMOKE if arguments.smoke else FULL
    queue = Queue(
        size.changed(
            options=dict(pair.split("=", 1) for pair in arguments.set),
            pretrain_minutes=arguments.pretrain_minutes,
            joint_minutes=arguments.joint_minutes,
        ),
        data=arguments.data, out=arguments.out, state=state, restart=arguments.restart,
        deadline=started + 60 * arguments.minutes, device=arguments.device,
    )  # fmt: skip
    return queue.run()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=HERE / "data", help="the folder that prepare.py wrote")
    add("--out", type=Path, required=True, help="what is to be taken home")
    add("--state", type=Path, default=Path(tempfile.gettempdir()) / "guardkit-gpu",
        help="on the local disk; must survive between calls")  # fmt: skip
    add("--minutes", type=float, default=9.5, help="this call ends before they are over")
    add("--pretrain-minutes", type=float, help="of the first training stage")
    add("--joint-minutes", type=float, help="of the second")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="an option of mdlm")
    add("--restart", type=Path, metavar="OUT", help="go on from what a lost machine left in OUT")
    add("--smoke", action="store_true", help="all of it in miniature, on a CPU too")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args()


def _install(wheels: Path, site: Path) -> None:
    """Put the packages that this machine lacks where this process finds them."""
    files = sorted(wheels.glob("*.whl")) if wheels.is_dir() else []
    lacking = any(importlib.util.find_spec(name) is None for name in BROUGHT)
    if lacking and files and not site.is_dir():
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
             "--no-compile", "--target", str(site), *map(str, files)],
            check=True,
        )  # fmt: skip
    if lacking:
        sys.path.insert(0, str(site))


if __name__ == "__main__":
    sys.exit(main())
