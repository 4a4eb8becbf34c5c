#!/usr/bin/env bash
# Proves the Terraform module and the lab environment: format, validation, the
# module's tests, then two PoPs really applied, changed and destroyed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CHECKPOINT_DISABLE=1 TF_CLI_CONFIG_FILE=$root/test/terraform.rc TF_IN_AUTOMATION=1
tf=${TERRAFORM:-$(command -v terraform || command -v tofu || echo "$root/.cache/tofu")}
tf() { "$tf" "$@" -no-color; }
binary=$root/bin/anyedge
work=$(mktemp -d)
export TF_DATA_DIR=$work/data

say() { printf '  %s\n' "$*"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

"$tf" version >"$work/version"
head -n 1 "$work/version"
"$tf" fmt -check -recursive terraform >/dev/null || fail "terraform fmt -recursive changes files"

cd "$root/terraform/modules/pop"
tf init -input=false >/dev/null
tf validate >/dev/null
tf test | tail -n 1

cd "$root/terraform/envs/lab"
args=(-input=false -auto-approve -state="$work/state" -var "binary=$binary" -var "state_dir=$work/run")
cleanup() {
	tf destroy "${args[@]}" >"$work/destroy.log" 2>&1 || cat "$work/destroy.log" >&2
	rm -rf "$work"
}
trap cleanup EXIT
tf init -input=false >/dev/null

pid() { cat "$work/run/$1.pid"; }
# No "| grep -q": it ends early, and pipefail makes that a failure of its feeder.
serves() { [[ $(curl -fsS -m 3 "http://$1:8080/") == *lab-origin* ]]; }
says() { [[ $("$binary" status --admin "$1:8600" --json) == *"$2"* ]]; }

tf apply "${args[@]}" >"$work/apply.log" || { cat "$work/apply.log"; fail "apply"; }
serves 127.79.1.1 || fail "fra does not serve"
serves 127.79.2.1 || fail "iad does not serve"
says 127.79.1.1 '"state": "healthy"' || fail "fra is not healthy"
says 127.79.2.1 '"pop": "iad"' || fail "iad is not who it should be"
"$binary" check --config "$work/run/fra.yaml" >/dev/null || fail "the rendered config does not pass the check"
say "applied: two PoPs serve, each healthy"

plan=0
tf plan -detailed-exitcode -input=false -state="$work/state" -var "binary=$binary" -var "state_dir=$work/run" >/dev/null || plan=$?
[ "$plan" -eq 0 ] || fail "a second plan wants changes"
say "a second plan changes nothing"

fra=$(pid fra) iad=$(pid iad)
cat >"$work/changed.tfvars" <<'V'
pops = {
  fra = { region = "eu", latitude = 50.11, longitude = 8.68, address = "127.79.1.1", router_id = "10.0.1.9" }
  iad = { region = "us", latitude = 39.04, longitude = -77.49, address = "127.79.2.1", router_id = "10.0.2.1" }
}
V
tf apply "${args[@]}" -var-file "$work/changed.tfvars" >"$work/apply.log" || { cat "$work/apply.log"; fail "second apply"; }
[ "$(pid fra)" != "$fra" ] || fail "fra was not replaced"
[ "$(pid iad)" = "$iad" ] || fail "iad was replaced although nothing of it changed"
serves 127.79.1.1 || fail "fra does not serve after the change"
say "a change of one PoP replaced that PoP only"

cat >"$work/one.tfvars" <<'V'
pops = { iad = { region = "us", latitude = 39.04, longitude = -77.49, address = "127.79.2.1", router_id = "10.0.2.1" } }
V
fra=$(pid fra)
tf apply "${args[@]}" -var-file "$work/one.tfvars" >"$work/apply.log" || { cat "$work/apply.log"; fail "third apply"; }
! kill -0 "$fra" 2>/dev/null || fail "fra still runs although it is no longer in the map"
serves 127.79.2.1 || fail "iad does not serve after fra went"
say "a PoP taken out of the map is gone, the other one serves"

tf destroy "${args[@]}" >"$work/destroy.log" || { cat "$work/destroy.log"; fail "destroy"; }
! kill -0 "$iad" 2>/dev/null || fail "iad still runs after destroy"
! serves 127.79.2.1 2>/dev/null || fail "iad still serves after destroy"
say "destroyed: no process is left"
trap 'rm -rf "$work"' EXIT
echo "terraform: ok"
