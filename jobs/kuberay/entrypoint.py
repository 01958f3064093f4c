"""Run a command as the entrypoint of a RayJob, and translate its exit code for KubeRay.

KubeRay has no rules for exit codes: it builds a new cluster, up to `backoffLimit` times, for every job that has failed.

3 (done, but some input is partial or quarantined) → 0: the RayJob has succeeded.
2 (wrong usage or configuration) → the job stops itself: the RayJob ends as STOPPED, which is not retried.
Anything else is unchanged.
"""

import os
import subprocess
import sys
import time

USAGE, PARTIAL = 2, 3
STOP_S = 60.0  # until the stop of the own job has failed


def main(command: list[str]) -> int:
    """Run the command and return the exit code for KubeRay."""
    code = subprocess.run(command, check=False).returncode
    if code == PARTIAL:
        report("exit code 3: done, but some input is partial or quarantined; reasons are in videos.parquet")
        return 0
    if code == USAGE:
        report("exit code 2: wrong usage or configuration; this job stops, because a retry would end the same way")
        stop_own_job()
    return code


def stop_own_job() -> None:
    """Ask Ray to stop the submitted job that this process belongs to, and wait for that."""
    from ray.job_submission import JobSubmissionClient

    from aupipe.pipelines.ray_internals import submission_id

    JobSubmissionClient(os.environ["RAY_ADDRESS"]).stop_job(submission_id())
    time.sleep(STOP_S)


def report(text: str) -> None:
    """Write a line to the job's log."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
