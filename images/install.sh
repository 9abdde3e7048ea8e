#!/bin/sh
# Installs the packages of a lock file into /opt/venv and compiles them: install.sh LOCK [PACKAGE]. PACKAGE is a source package that is built against
# the other packages, so it is installed last. The build mounts pip's cache. Packages that are already installed are not changed.
set -eu
lock=$1
last=${2:-}
base=$(/opt/venv/bin/python -c 'import sys; print(sys._base_executable)')  # the base image's pip, because the environment has no pip

install() {
  # --no-compile: Python would check pip's bytecode against file times, and can't write new bytecode on a read-only root
  "$base" -m pip --python /opt/venv/bin/python install --disable-pip-version-check --root-user-action=ignore --no-warn-script-location \
    --cache-dir /root/.cache/pip --progress-bar off --no-compile --no-deps --require-hashes "$@"
}

if [ -n "$last" ] && grep -q "^$last==" "$lock"; then
  # an entry of a lock is one line and the indented lines after it
  awk -v name="$last==" '/^[^ #]/ { own = index($0, name) == 1 } !own' "$lock" > /tmp/rest.txt
  awk -v name="$last==" '/^[^ #]/ { own = index($0, name) == 1 } own' "$lock" > /tmp/last.txt
  install -r /tmp/rest.txt
  install --no-build-isolation -r /tmp/last.txt
  rm /tmp/rest.txt /tmp/last.txt
else
  install -r "$lock"
fi

# Unchecked bytecode stays valid if the files' times change. Some packages contain templates that aren't Python; errors about them are ignored.
/opt/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib > /tmp/compile.log 2>&1 || true
rm -f /tmp/compile.log
