"""A bag through vla_node: `ros2 launch opendrivevla_ros bag_demo.launch.py bag:=FOLDER`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription, OpaqueFunction
from launch.launch_context import LaunchContext
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def play(context: LaunchContext) -> list[ExecuteProcess]:
    """`ros2 bag play` with the clock; --loop takes no value, so it is there or not."""
    command = [
        *("ros2", "bag", "play", LaunchConfiguration("bag"), "--clock", "100"),
        *("--rate", LaunchConfiguration("rate"), "--start-offset", LaunchConfiguration("start_offset")),
        *("--qos-profile-overrides-path", LaunchConfiguration("qos_overrides")),
    ]
    if LaunchConfiguration("loop").perform(context) == "true":
        command.append("--loop")
    return [ExecuteProcess(cmd=command, output="screen")]


def generate_launch_description() -> LaunchDescription:
    share = FindPackageShare("opendrivevla_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="folder of the bag, with vla_node's input topics"),
            DeclareLaunchArgument("rate", default_value="1.0", description="playback speed"),
            DeclareLaunchArgument("start_offset", default_value="0.0", description="seconds to skip at the start"),
            DeclareLaunchArgument(
                "loop", default_value="false", choices=["true", "false"], description="start again at the end"
            ),
            DeclareLaunchArgument(
                "qos_overrides",
                default_value=PathJoinSubstitution([share, "config", "dds", "bag_qos_overrides.yaml"]),
                description="QoS overrides of the player",
            ),
            # vla.launch.py's other arguments can be given here too: they reach it by name.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "vla.launch.py"])),
                launch_arguments={"use_sim_time": "true"}.items(),
            ),
            OpaqueFunction(function=play),
        ]
    )
