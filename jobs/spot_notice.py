"""Tells Ray, two minutes ahead, that AWS will take this spot node away: it gets no new work, training saves its state.

cluster.yaml starts it on every node. Options are handed on to `ray drain-node`.
"""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

METADATA = os.environ.get("METADATA", "http://169.254.169.254/latest")
LOOK_S = 5
LEFT_S = 110  # of the two minutes


def noticed() -> bool:
    """Whether the metadata service says so; it answers 404 until it does."""
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
        return False  # busy; it is asked again


def main(options: list[str]) -> int:
    while not noticed():
        time.sleep(LOOK_S)
    drain = ["ray", "drain-node", "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice"]
    return subprocess.run([*drain, f"--deadline-remaining-seconds={LEFT_S}", *options], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
