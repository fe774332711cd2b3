#!/usr/bin/env bash
# Shows that each fuzz target finds a bug that was planted behind its parser's checks, within 60 s of fuzzing.
#
# The bugs are there only with `--cfg planted_bug`, which nothing but this script sets. Names of targets as arguments
# leave the others out.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${SECONDS_EACH:-60}
target=${FUZZ_TARGET_DIR:-target/proof}
command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz --version 0.13.2
export RUSTFLAGS="${RUSTFLAGS:-} --cfg planted_bug"
fuzz=(rustup run nightly cargo fuzz)
options=(--fuzz-dir . --sanitizer none --target-dir "$target")
"${fuzz[@]}" build "${options[@]}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
printf '%-22s %8s\n' target seconds
for name in $(sed -n 's/^name = "\([a-z0-9_]*\)"$/\1/p' Cargo.toml); do
    [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
    mkdir -p "$work/$name"
    cp corpus/"$name"/* "$work/$name"
    began=$(date +%s.%N)
    if "${fuzz[@]}" run "${options[@]}" "$name" "$work/$name" -- -max_total_time="$seconds" \
        -artifact_prefix="$work/" >"$work/$name.log" 2>&1; then
        printf '%-22s %8s\n' "$name" "not found"
        failed=1
    elif grep -q 'planted bug' "$work/$name.log"; then
        printf '%-22s %8.1f\n' "$name" "$(awk "BEGIN { print $(date +%s.%N) - $began }")"
    else
        printf '%-22s %8s\n' "$name" "failed"
        tail -20 "$work/$name.log"
        failed=1
    fi
done
exit $failed
