#!/usr/bin/env bash
# bash benchmarks/studies/real_two_at_once/real_two_at_once.sh DATA WEIGHTS OUT [SEED ...]
# DATA: a VOC2012 tree; WEIGHTS: ImageNet MobileNetV2 state dict; OUT: where the run directories go;
# seeds 0 1 2 if none is given. Stopped, it goes on where it was.
# Two lanes of one thread each, side by side, are faster on two cores than one run on two threads.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$1 weights=$2 out=$3
shift 3
seeds=("$@")
[ $# -gt 0 ] || seeds=(0 1 2)
export OMP_NUM_THREADS=1

train() { # METHOD SETUP SEED NAME [options]
    local method=$1 setup=$2 seed=$3 name=$4
    shift 4
    sparcl train --dataset voc --data-root "$data" --task "$here/task.yaml" \
        --setup "$setup" --method "$method" --out "$out/$setup/$name-$seed" --resume \
        --config "$here/../real_one_by_one/settings.yaml" --backbone-weights "$weights" --accelerator cpu \
        --set seed="$seed" "$@"
}

lane() { # SETUP SEED: fine-tuning trains step 0, the others start from it
    local setup=$1 seed=$2
    local again=(--start-from "$out/$setup/FT-$seed")
    train FT "$setup" "$seed" FT
    train MiB "$setup" "$seed" MiB "${again[@]}"
    # SDR starts its new classifier at random: what of its difference to MiB is that start?
    train MiB "$setup" "$seed" MiB-random "${again[@]}" \
        --set method.classifier_init=random --set method.name="MiB, random start"
    # The weights from which the authors of SDR suggest to start (KD as MiB's).
    train SDR "$setup" "$seed" SDR "${again[@]}" --set method.terms.kd.weight=10 \
        --set method.terms.sparsification.weight=1e-4 --set method.terms.attraction.from_step=1 \
        --set method.terms.repulsion.from_step=1 --set method.terms.sparsification.from_step=1
}

# MiB's later step with the other policies for the backbone's batch norm (the recipe's is frozen).
batch_norm() { # SEED
    for policy in train slow; do
        train MiB disjoint "$1" "batch-norm-$policy" --set model.batch_norm="$policy" \
            --start-from "$out/disjoint/FT-$1"
    done
}

(for seed in "${seeds[@]}"; do train Joint disjoint "$seed" Joint; lane overlapped "$seed"; done) &
(for seed in "${seeds[@]}"; do lane disjoint "$seed"; batch_norm "$seed"; done) &
wait
for seed in "${seeds[@]}"; do
    train Joint overlapped "$seed" Joint --start-from "$out/disjoint/Joint-$seed"
done
for setup in disjoint overlapped; do
    sparcl report "$out/$setup"/{FT,MiB,MiB-random,SDR,Joint}-? --format html --out "$out/$setup.html"
    sparcl report "$out/$setup"/{FT,MiB,MiB-random,SDR,Joint}-?
done
sparcl report "$out/disjoint"/MiB-? --format md
sparcl report "$out/disjoint"/batch-norm-train-? --format md
sparcl report "$out/disjoint"/batch-norm-slow-? --format md
