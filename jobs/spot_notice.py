"""Drain this node when AWS announces, two minutes ahead, that it will reclaim the spot instance.

A draining node gets no new work, and training saves its state. cluster.yaml starts this script on every node. Its
options are passed to `ray drain-node`.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

METADATA = os.environ.get("METADATA", "http://169.254.169.254/latest")
POLL_S = 5
DEADLINE_S = 110  # Of the two minutes of notice.


def has_notice() -> bool:
    """Return whether the metadata service has a notice. Without one it returns 404."""
    header = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        token = urllib.request.Request(f"{METADATA}/api/token", method="PUT", headers=header)
        with urllib.request.urlopen(token, timeout=5) as answer:
            header = {"X-aws-ec2-metadata-token": answer.read().decode()}
        action = urllib.request.Request(f"{METADATA}/meta-data/spot/instance-action", headers=header)
        with urllib.request.urlopen(action, timeout=5):
            return True
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return False
    except (urllib.error.URLError, TimeoutError):
        return False  # The service is busy; the next poll repeats the request.


def main(options: list[str]) -> int:
    """Wait for the notice, then drain the node. Return the exit code of `ray drain-node`."""
    while not has_notice():
        time.sleep(POLL_S)
    drain = ["ray", "drain-node", "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice"]
    return subprocess.run([*drain, f"--deadline-remaining-seconds={DEADLINE_S}", *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
