#!/bin/sh
# The demo, step by step: photos, training (which downloads the weights), two predictions.
# usage: tools/demo.sh PYTHON auto|small|drawn [flags of train.py ...]
set -eu
python=$1 photos=$2
shift 2

if [ "$photos" = auto ]; then
    "$python" -m app fetch small data/small && code=0 || code=$?
    if [ "$code" = 0 ]; then
        photos=small
        echo "The demo uses the small set of real photos, which could be downloaded." >&2
    elif [ "$code" = 130 ]; then
        exit 130 # Ctrl-C is no missing network
    else
        photos=drawn
        echo "The demo uses the drawn sample, since the real photos could not be downloaded (the line" \
            "above says why)." >&2
    fi
else
    echo "The demo uses the set '$photos', as you chose." >&2
    [ "$photos" != small ] || "$python" -m app fetch small data/small
fi
[ "$photos" = small ] || "$python" -m app fetch "$photos" "data/$photos"

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
