#!/usr/bin/env bash
# What a CUDA device makes of this source tree, in one command that needs no installation:
#
#   bench/device_check.sh first FOLDER    under six minutes: is it right, where does the time go
#   bench/device_check.sh second FOLDER   under five: figures, baselines, the way to the host and to disk
#
# Every part is a process with a time limit of its own; one that fails, hangs or loses the device stops no other. FOLDER
# gets at most eight files: rows.jsonl as parts go, log.txt, device.json in the end. $PYTHON is python3 by default,
# $DEVICE_CHECK_OPTIONS goes to every part (--tiny tries every line, tests/test_device_check.py), and
# $DEVICE_CHECK_PARTS names the parts to run where it should not be all.
set -u
mode=${1:-}
folder=${2:-}
case "$mode" in first | second) ;; *) folder= ;; esac
if [ -z "$folder" ]; then
    echo "usage: device_check.sh first|second FOLDER" >&2
    exit 2
fi
mkdir -p "$folder" && folder=$(cd "$folder" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
log=$folder/log.txt apart=$(mktemp -d)
trap 'rm -rf "$apart"' EXIT
: >"$folder/rows.jsonl"

# limited SECONDS NAME COMMAND...: the command, to the log; its end is a row where it did not write one itself
limited() {
    local limit=$1 name=$2
    shift 2
    case " ${DEVICE_CHECK_PARTS:-$name} " in *" $name "*) ;; *) return ;; esac
    echo "== $name, at $SECONDS s" | tee -a "$log"
    timeout -k 5 "$limit" "$@" >>"$log" 2>&1
    local status=$?
    [ $status -eq 0 ] && return
    failed=1
    # a part says itself why it failed, unless it was ended
    tail -n 1 "$folder/rows.jsonl" | grep -q '"failed"' ||
        "$python" bench/device_check.py ended "$folder" --name "$name" --status $status
}

part() { limited "$1" "$2" "$python" "bench/device_check.py" "$2" "$folder" ${DEVICE_CHECK_OPTIONS:-}; }

# Nothing is timed on a device that computes something else.
timed() {
    if [ "$wrong" ]; then echo "== $2 is left out: the device is not right" | tee -a "$log"; else part "$@"; fi
}
failed= wrong=

{ nvidia-smi 2>&1 || true; } | head -15 >>"$log"
part 60 system
if [ "$mode" = first ]; then
    failed=
    part 40 ticks
    part 60 rows
    wrong=$failed
    timed 60 traces
    limited 90 tests "$python" -m pytest -q -W default -p no:cacheprovider tests/test_gpu.py
    if command -v ncu >/dev/null; then
        limited 40 profile ncu --clock-control none --kernel-name 'regex:sg_(draw|sums|time|scatter|arrange)' \
            --launch-count 12 --set full --csv --log-file "$folder/ncu.csv" \
            "$python" bench/device_check.py traces "$apart" ${DEVICE_CHECK_OPTIONS:-} --requests 2e8
    fi
    if command -v compute-sanitizer >/dev/null; then
        limited 60 sanitizer compute-sanitizer --error-exitcode 9 \
            "$python" bench/device_check.py rows "$apart" --tiny
    fi
    part 40 jax
else
    "$python" -m servegen_gpu.backends.native.build >>"$folder/native.txt" 2>&1 &
    native=$!
    failed=
    part 40 ticks
    wait "$native"
    part 60 large
    wrong=$failed
    timed 40 traces
    timed 40 host
    timed 60 baselines
    timed 40 to_disk
    part 20 copies
    part 20 draws
    part 30 sorts
fi
"$python" bench/device_check.py summary "$folder" | tee -a "$log"
exit "${PIPESTATUS[0]}"
