#!/bin/bash
# Run a job on a Ray cluster of its own, on the nodes of a Slurm allocation, from the clone's folder:
#   sbatch --nodes=4 --cpus-per-task=16 jobs/slurm.sh python jobs/annotate.py --input /shared/videos --out /shared/out
#   sbatch --nodes=2 --gpus-per-node=1 jobs/slurm.sh python jobs/train.py --recipe NAME --data /shared/store \
#     --out /shared/run
# Paths, and the environment with `ray` and `python`, must be visible on all nodes. The exit code is the job's.
# Re-submit the same command to resume.
#SBATCH --job-name=aupipe
#SBATCH --ntasks-per-node=1
#SBATCH --output=aupipe-%j.log
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: sbatch [options] jobs/slurm.sh python jobs/JOB.py ..." >&2; exit 2; }

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}  # since Slurm 22.05 srun does not inherit it from sbatch
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN             # other users of the nodes can reach Ray's ports, but not use them
RAY_AUTH_TOKEN=$(python -c "import secrets; print(secrets.token_hex(32))")
base=$((20000 + SLURM_JOB_ID % 1000 * 10))            # jobs that share a node need ports and folders of their own
unset RAY_ADDRESS                                     # `ray start --head` refuses it
RAY_ADDRESS=$(hostname -I | cut -d' ' -f1):$base

start=(ray start --block --num-cpus="$SRUN_CPUS_PER_TASK" --dashboard-agent-listen-port=$((base + 1)))
start+=(--node-manager-port=$((base + 2)) --object-manager-port=$((base + 3)) --metrics-export-port=$((base + 4)))
[ -z "${SLURM_GPUS_ON_NODE:-}" ] || start+=(--num-gpus="$SLURM_GPUS_ON_NODE")
node=${SLURMD_NODENAME:-$(hostname -s)}                # Slurm's name of this node may differ from its host name
first=(--overlap --nodes=1 --ntasks=1 --nodelist="$node")
others=$((SLURM_JOB_NUM_NODES - 1))
trap 'jobs -p | xargs -r kill' EXIT
head=(--head --port=$base --temp-dir="/tmp/ray-$SLURM_JOB_ID" --dashboard-port=$((base + 5)) --disable-usage-stats)
srun "${first[@]}" "${start[@]}" "${head[@]}" --ray-client-server-port=$((base + 6)) &
export RAY_ADDRESS
if [ "$others" -gt 0 ]; then
  srun --overlap --nodes=$others --ntasks=$others --exclude="$node" "${start[@]}" --address="$RAY_ADDRESS" &
fi

python - "$SLURM_JOB_NUM_NODES" <<'PY'
import sys, time
import ray
end = time.monotonic() + 300
while True:
    try:
        ray.init(logging_level="ERROR", log_to_driver=False)
        while len([node for node in ray.nodes() if node["Alive"]]) < int(sys.argv[1]):
            if time.monotonic() > end:
                sys.exit(f"Ray has fewer than {sys.argv[1]} nodes after 300 s")
            time.sleep(1)
        break
    except (ConnectionError, ray.exceptions.RayError, RuntimeError) as error:
        if time.monotonic() > end:
            sys.exit(f"Ray did not start: {error}")
        time.sleep(1)
PY
"$@"
