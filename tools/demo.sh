#!/bin/sh
# The demo, step by step: photos, training (weights are found on the way), two predictions.
# usage: tools/demo.sh PYTHON auto|small|drawn [flags of train.py ...]
set -eu
python=$1 photos=$2
shift 2

if [ "$photos" = auto ]; then
    if "$python" -m app.fetch small data/small; then
        photos=small
    else
        photos=drawn
        echo "The demo uses the drawn sample, since the real photos could not be fetched (the line" \
            "above says why)." >&2
    fi
else
    echo "The demo uses the set '$photos', as asked for." >&2
fi
"$python" -m app.fetch "$photos" "data/$photos"

name=demo-$(date -u +%Y%m%d-%H%M%S)
"$python" train.py --data "data/$photos" --run "$name" "$@"

# One photo of each class; where they lie depends on the set.
set -- "$(find "data/$photos" -ipath '*cat*/*.jpg' | sort | tail -n 1)" \
    "$(find "data/$photos" -ipath '*dog*/*.jpg' | sort | tail -n 1)"
echo
echo "$ python predict.py $*"
"$python" predict.py --run "$name" "$@"
echo
echo "photos: data/$photos   run: runs/$name   report: runs/$name/report.html"
