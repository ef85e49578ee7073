# The environment of this source tree, for bash: `source scripts/env.sh`. A sourced ROS 2 is used as it is; without
# one, ROS 2 comes from .venv. Everything started from here stays on this machine (config/dds/loopback.xml).
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -z "${ROS_DISTRO:-}" ]; then
  export AMENT_PREFIX_PATH=$repository/.venv CMAKE_PREFIX_PATH=$repository/.venv ROS_VERSION=2
  export LD_LIBRARY_PATH=$repository/.venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
export PATH=$repository/scripts:$repository/.venv/bin:$PATH
export PYTHONPATH=$repository/src${PYTHONPATH:+:$PYTHONPATH}
prefix=$repository/install/opendrivevla_ros
if [ -d "$prefix" ]; then
  export AMENT_PREFIX_PATH=$prefix:$AMENT_PREFIX_PATH LD_LIBRARY_PATH=$prefix/lib:${LD_LIBRARY_PATH:-}
  export PYTHONPATH=$PYTHONPATH:$(echo "$prefix"/lib/python3*/site-packages)
fi
export FASTRTPS_DEFAULT_PROFILES_FILE=$repository/config/dds/loopback.xml
export ROS_AUTOMATIC_DISCOVERY_RANGE=SYSTEM_DEFAULT RMW_IMPLEMENTATION=rmw_fastrtps_cpp
unset repository prefix
