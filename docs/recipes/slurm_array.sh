#!/bin/bash
# Many CTs as a Slurm array: each task takes its share of the list, and none needs to know of the others.
#
#   sbatch docs/recipes/slurm_array.sh LIST.csv OUTPUT [OPTIONS of segmate predict]
#
# Run it again, with the same number of shares, to finish what failed or was cut off: finished CTs are skipped.
# To repeat a few tasks only: SHARES=100 sbatch --array=7,42 docs/recipes/slurm_array.sh LIST.csv OUTPUT
#SBATCH --job-name=segmate
#SBATCH --array=1-100%20
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=segmate-%A-%a.log
set -euo pipefail

list=${1:?usage: sbatch slurm_array.sh LIST.csv OUTPUT [OPTIONS]}
output=${2:?usage: sbatch slurm_array.sh LIST.csv OUTPUT [OPTIONS]}
shift 2

# "exec", so that Slurm's TERM two minutes before the end reaches segmate: it keeps what is finished and stops.
exec segmate predict "$list" -o "$output" \
    --share "$SLURM_ARRAY_TASK_ID/${SHARES:-$SLURM_ARRAY_TASK_COUNT}" \
    --threads "$SLURM_CPUS_PER_TASK" --statistics "$output/organs.csv" --quiet "$@"
