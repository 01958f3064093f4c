"""Drain this node when AWS announces, two minutes ahead, that it will reclaim the spot instance.

A draining node gets no new work, and training saves its state. cluster.yaml starts this script on every node. Its
options are passed to `ray drain-node`.
"""

import http
import http.client
import json
import logging
import operator
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

METADATA = os.environ.get("METADATA", "http://169.254.169.254/latest")
POLL_S = 5.0
NOTICE_S = 110.0  # Of the two minutes between the notice and the end of the node.

logger = logging.getLogger(__name__)


def has_notice() -> bool:
    """Return whether the metadata service has a notice. Without one it answers 404.

    Every other answer, and every error of the connection, is logged and counts as no notice, because this script must
    outlive whatever happens to the service: the next poll repeats the request.
    """
    header = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    try:
        token = urllib.request.Request(f"{METADATA}/api/token", method="PUT", headers=header)
        with urllib.request.urlopen(token, timeout=5) as answer:
            header = {"X-aws-ec2-metadata-token": answer.read().decode()}
        action = urllib.request.Request(f"{METADATA}/meta-data/spot/instance-action", headers=header)
        with urllib.request.urlopen(action, timeout=5) as answer:
            logger.warning("notice: this node will %s at %s", *operator.itemgetter("action", "time")(json.load(answer)))
        return True
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.NOT_FOUND:
            logger.warning("the metadata service answered %d; the next poll repeats the request", error.code)
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:  # cut, or not of AWS
        logger.warning("no answer of the metadata service; the next poll repeats the request: %r", error)
    return False


def drain(options: list[str]) -> int:
    """Drain the node, and repeat that as long as the head does not accept it and the node exists.

    Returns:
        The exit code of the last `ray drain-node`.
    """
    command = ["ray", "drain-node", "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice", *options]
    end = time.monotonic() + NOTICE_S
    while True:
        left_s = max(int(end - time.monotonic()), 0)
        code = subprocess.run([*command, f"--deadline-remaining-seconds={left_s}"], check=False).returncode
        if code == 0 or time.monotonic() + POLL_S > end:
            return code
        logger.warning("ray drain-node exited %d; it is repeated", code)
        time.sleep(POLL_S)


def main(options: list[str]) -> int:
    """Wait for the notice, then drain the node. Return the exit code of `ray drain-node`."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    while not has_notice():
        time.sleep(POLL_S)
    return drain(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
