"""``python -m bench``: measure everything beside peers and write ``bench/RESULTS.md``; ``--short`` only shows that it works."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import uvloop

from bench.downloads import measure_downloads
from bench.gateway import measure_gateway
from bench.kept_results import Results
from bench.large_jobs import measure_large_jobs
from bench.operator_api import measure_operator_api
from bench.policy_check import measure_policy_check
from bench.profiles import FULL, SHORT, Profile
from bench.report import HERE, PARTS, write_report
from bench.revocation import measure_revocation
from bench.several_processes import measure_several_processes
from bench.uptane import measure_uptane
from bench.virtual_fleet import measure_virtual_fleet


async def measure(profile: Profile, out: Path, *, only: str | None = None) -> Path:
    """Run the benchmarks and write the report into ``out``; its path."""
    with tempfile.TemporaryDirectory(prefix="overair-bench-") as folder:
        work = Path(folder)
        results = Results(profile=profile.name)
        if only in (None, "operator"):
            results.operator = await measure_operator_api(profile, work)
        if only in (None, "gateway"):
            results.gateway = await measure_gateway(profile, work)
        if only in (None, "downloads"):
            results.downloads = await measure_downloads(profile, work)
        if only in (None, "large_jobs"):
            results.large_jobs = await measure_large_jobs(profile, work)
        if only in (None, "uptane"):
            results.uptane = await measure_uptane(profile, work)
        if only in (None, "virtual_fleet"):
            results.virtual_fleet = await measure_virtual_fleet(profile, work)
        if only in (None, "several_processes"):
            results.several_processes = await measure_several_processes(profile, work)
        if only in (None, "policy_check"):
            results.policy_check = measure_policy_check(profile)
        if only in (None, "revocation"):
            results.revocation = await measure_revocation(profile, work)
    return write_report(profile, results, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="tiny counts, no peers")
    parser.add_argument(
        "--only",
        choices=PARTS,
        help="the others' numbers stay as they are",
    )
    parser.add_argument("--out", type=Path, default=HERE, help="where RESULTS.md and results.json go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = uvloop.run(measure(SHORT if arguments.short else FULL, arguments.out, only=arguments.only))
    print(report.read_text())


if __name__ == "__main__":
    main()
