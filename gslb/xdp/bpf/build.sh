#!/usr/bin/env bash
# Compiles dns.c into the file named. The object says which source and which
# compiler it is of; one compiler makes equal objects anywhere.
set -euo pipefail
out=$(realpath -m "$1")
cd "$(dirname "$0")"
sum=$(sha256sum dns.c | cut -d ' ' -f 1)
clang -O2 -g -Wall -Wextra -Werror -Wno-address-of-packed-member -target bpf -mcpu=v3 \
	-ffile-prefix-map="$PWD"=. -I "/usr/include/$(uname -m)-linux-gnu" -DSOURCE="\"$sum\"" -c dns.c -o "$out"
llvm-strip -g "$out"
