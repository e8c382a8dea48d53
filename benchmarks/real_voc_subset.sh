#!/usr/bin/env bash
# The runs of docs/real_voc_subset.md: bash benchmarks/real_voc_subset.sh DATA WEIGHTS OUT
# DATA: a VOC2012 tree; WEIGHTS: ImageNet MobileNetV2 state dict; OUT: where the run directories go.
# Two lanes of one thread each, side by side, are faster on two cores than one run on two threads.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$1 weights=$2 out=$3
export OMP_NUM_THREADS=1

train() { # METHOD SETUP NAME [options]
    local method=$1 setup=$2 name=$3
    shift 3
    sparcl train --dataset voc --data-root "$data" --task "$here/pets_then_farm.yaml" \
        --setup "$setup" --method "$method" --out "$out/$setup/$name" --resume \
        --config "$here/real_voc_subset.yaml" --backbone-weights "$weights" --accelerator cpu "$@"
}

lane() { # SETUP [SEED]: fine-tuning trains step 0, the others start from it
    local setup=$1 seed=${2:-0}
    local again=(--set seed="$seed" --start-from "$out/$setup/FT-$seed")
    train FT "$setup" "FT-$seed" --set seed="$seed"
    train MiB "$setup" "MiB-$seed" "${again[@]}"
    # The weights from which the authors of SDR suggest to start (KD as MiB's).
    train SDR "$setup" "SDR-$seed" "${again[@]}" --set method.terms.kd.weight=10 \
        --set method.terms.sparsification.weight=1e-4 --set method.terms.attraction.from_step=1 \
        --set method.terms.repulsion.from_step=1 --set method.terms.sparsification.from_step=1
}

# MiB's later step with the other policies for the backbone's batch norm (the recipe's is frozen).
batch_norm() {
    for policy in train slow; do
        train MiB disjoint "batch-norm-$policy" --set model.batch_norm="$policy" \
            --start-from "$out/disjoint/FT-0"
    done
}

(train Joint disjoint Joint-0 && lane overlapped) &
(lane disjoint && batch_norm) &
wait
train Joint overlapped Joint-0 --start-from "$out/disjoint/Joint-0"
for setup in disjoint overlapped; do
    sparcl report "$out/$setup"/{FT,MiB,SDR,Joint}-* --format html --out "$out/$setup.html"
    sparcl report "$out/$setup"/{FT,MiB,SDR,Joint}-*
done
