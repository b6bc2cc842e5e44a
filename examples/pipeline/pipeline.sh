#!/usr/bin/env bash
# The delivery of a model, as commands that run on any machine; pipeline.yml calls them from GitHub Actions.
#
#   pipeline.sh propose FILE MODEL     checks, renders, opens a pull request whose one changed line is modelUri
#   pipeline.sh deploy FILE NAMESPACE  applies FILE and waits for its rollout; status 1, and why, where it went back
#
# In: BASE, the branch that pull requests go to (main); MLFLOW_TRACKING_URI, AWS_* and KUBECONFIG where they are needed;
# TIMEOUT, the seconds that a rollout may take (3600).
set -euo pipefail

propose() {
  local file=$1 model=$2 work uri branch changed
  work=$(mktemp -d)
  trap "rm -rf '$work'" EXIT
  uri=$(velagen promote "$file" --model "$model" 2> >(tee "$work/said" >&2))
  if git diff --quiet -- "$file"; then
    return
  fi
  # One line and no other: what a person approves is what they see.
  changed=$(git diff --numstat | tr '\t' ' ')
  if [ "$changed" != "1 1 $file" ]; then
    echo "not one line of $file alone changed: $changed" >&2
    return 1
  fi
  branch=promote/$(printf '%s %s' "$file" "$uri" | sha256sum | cut -c1-12)
  if git ls-remote --exit-code --heads origin "$branch" > /dev/null; then
    echo "$branch is there already: somebody approves it, or closes it and deletes the branch" >&2
    git checkout -q -- "$file"
    return
  fi

  velagen check --apps-only "$file"
  git show "HEAD:./$file" > "$work/before.yaml"
  velagen render "$work/before.yaml" > "$work/before"
  velagen render "$file" > "$work/after"
  {
    printf '`%s` is `%s`.\n\n```\n%s\n```\nThe objects that change:\n```diff\n' "$model" "$uri" "$(cat "$work/said")"
    diff -u --label before --label after "$work/before" "$work/after" || true
    printf '```\n'
  } > "$work/body.md"
  git switch -q -c "$branch"
  git commit -q -m "Model $uri" -- "$file"
  git push -q origin "$branch"
  gh pr create --base "${BASE:-main}" --head "$branch" --title "Model $uri" --body-file "$work/body.md"
}

# What a path of Python leads to in the JSON of standard input.
said() { python3 -c "import json, sys; found = json.load(sys.stdin)$1; print(found if isinstance(found, str) else json.dumps(found))"; }

deploy() {
  local file=$1 namespace=$2 app version status end
  app=$(velagen render "$file" -o json | said '[0]["metadata"]["labels"]["app.oam.dev/name"]')
  # A revision with a name is what `vela workflow rollback` goes back to.
  version=v$(git rev-parse --short=12 HEAD)
  vela up -f "$file" -n "$namespace" --publish-version "$version"
  end=$((SECONDS + ${TIMEOUT:-3600}))
  while [ "$SECONDS" -lt "$end" ]; do
    status=$(vela status "$app" -n "$namespace" -o json | said '["status"]')
    status="$(said '.get("workflow", {}).get("appRevision")' <<< "$status") $(said '.get("status")' <<< "$status")"
    case $status in
      "$version running")
        vela status "$app" -n "$namespace"
        return
        ;;
      "$version workflowFailed" | "$version workflowTerminated")
        vela status "$app" -n "$namespace" >&2
        return 1
        ;;
    esac
    sleep 5
  done
  echo "after ${TIMEOUT:-3600} s the rollout of $app is not over: $status" >&2
  return 1
}

if [ $# -eq 3 ] && { [ "$1" = propose ] || [ "$1" = deploy ]; }; then
  "$@"
else
  sed -n '4,5p' "$0" >&2
  exit 2
fi
