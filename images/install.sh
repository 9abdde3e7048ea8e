#!/bin/sh
# Installs a lock file into /opt/venv and compiles it: install.sh LOCK [PACKAGE]. PACKAGE comes as source that is built against the rest of the lock, so it is installed last.
# pip's cache is a mount of the build; what is installed already is left alone.
set -eu
lock=$1
last=${2:-}
base=$(/opt/venv/bin/python -c 'import sys; print(sys._base_executable)')  # the pip of the base image: the environment has none

install() {
  # without bytecode: pip's would be checked against times, on a root that can't be written
  "$base" -m pip --python /opt/venv/bin/python install --disable-pip-version-check --root-user-action=ignore --no-warn-script-location \
    --cache-dir /root/.cache/pip --progress-bar off --no-compile --no-deps --require-hashes "$@"
}

if [ -n "$last" ] && grep -q "^$last==" "$lock"; then
  # a lock's entry is its first line and the indented ones after it
  awk -v name="$last==" '/^[^ #]/ { own = index($0, name) == 1 } !own' "$lock" > /tmp/rest.txt
  awk -v name="$last==" '/^[^ #]/ { own = index($0, name) == 1 } own' "$lock" > /tmp/last.txt
  install -r /tmp/rest.txt
  install --no-build-isolation -r /tmp/last.txt
  rm /tmp/rest.txt /tmp/last.txt
else
  install -r "$lock"
fi

# Unchecked: valid whatever becomes of the files' times. Some packages carry templates that aren't Python; they stay as they are.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib > /tmp/compile.log 2>&1 || true
rm -f /tmp/compile.log
