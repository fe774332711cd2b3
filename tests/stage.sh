#!/bin/sh
# stage.sh NAME COMMAND...: runs one stage and prints how long it took, whatever its outcome.
name=$1; shift
began=$(date +%s)
printf '==> %s\n' "$name"
"$@"
outcome=$?
printf '<== %s: %s in %s s\n' "$name" "$([ $outcome = 0 ] && echo ok || echo FAILED)" "$(($(date +%s) - began))"
exit $outcome
