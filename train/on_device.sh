#!/usr/bin/env bash
# Pretrains the folds of `spicula train ssm` or `train retrieval` on a bare machine with a GPU, from this checkout alone.
# See train/README.md.
#   DATA=slices.npz OUT=out MINUTES=12 bash train/on_device.sh        SMALL=1: tiny, on a CPU, to see that it runs
#   METHOD=simclr WIDTH=32 ARMS="simclr + frangi + gem;vae" DATA=... bash train/on_device.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
here=$(pwd)

export DATA=${DATA:-runs/slices.npz}             # what `train/packed.py pack` wrote
export OUT=${OUT:-runs/on_device/out}            # weights (each below 16 MiB), summary.json, log.txt
export WORK=${WORK:-runs/on_device/work}         # checkpoints: the same command goes on from them
export MINUTES=${MINUTES:-12}                    # of everything, from now on
export METHOD=${METHOD:-dinov2}                  # of `train ssm`; or simclr or vae, of `train retrieval`
export ARCH=${ARCH:-vit-mini}                    # dinov2: the transformer
export ARMS=${ARMS:-}                            # simclr, vae: encoders by name, ; between; else the method's own
export WIDTH=${WIDTH:-} PUBLISHED=${PUBLISHED:-} # simclr, vae: of the ResNet; 1: shape, views, sizes of the paper
export EPOCHS=${EPOCHS:-}                        # fewer if so many cannot be done in time; dinov2: 60 if not given
export FOLDS=${FOLDS:-0 1 2 3 4 all}
export SMALL=${SMALL:-}
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

fail() { echo "error: $*" >&2; exit 2; }
python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "no $python. Hint: PYTHON=/path/to/python bash train/on_device.sh"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$("$python" -V) is older than 3.11"
[ -f "$DATA" ] || fail "no $DATA. Hint: python train/packed.py pack RUN $DATA --data DATA, beforehand"
[ -n "$SMALL" ] || command -v nvidia-smi >/dev/null || fail "no nvidia-smi: no GPU. Hint: SMALL=1 tries it on a CPU"

mkdir -p "$OUT" "$WORK/site/spicula.dist-info"
# the package asks for its version, as if it were installed
sed -n 's/^version = "\(.*\)"/Metadata-Version: 2.1\nName: spicula\nVersion: \1/p' pyproject.toml >"$WORK/site/spicula.dist-info/METADATA"
export PYTHONPATH="$here/src:$here/train:$(cd "$WORK/site" && pwd)${PYTHONPATH:+:$PYTHONPATH}"
[ -n "$SMALL" ] || nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
"$python" train/pretrain_folds.py 2>&1 | tee "$OUT/log.txt"
