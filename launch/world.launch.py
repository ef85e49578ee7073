"""vla_node drives the synthetic world: `ros2 launch opendrivevla_ros world.launch.py policy:=/path/to/checkpoint`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")
SENSORS = (
    *("odometry", "command"),
    *(f"{camera}/{name}" for camera in CAMERAS for name in ("image/compressed", "camera_info")),
)

# Arguments that set a parameter of world_node: its name, type, default and description.
PARAMETERS = (
    ("family", str, "junction_left", "scenario family"),
    ("seed", int, "49", "seed of the scenario"),
    ("real_time_factor", float, "1.0", "world time per wall time"),
)


def share(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("opendrivevla_ros"), *parts])


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            "world_param_file",
            default_value=share("config", "world.param.yaml"),
            description="parameter file of world_node; the arguments below win over it",
        ),
        DeclareLaunchArgument(
            "plans_topic", default_value="/vla_node/output/trajectory", description="topic of the plans to follow"
        ),
    ]
    for name, _, default, description in PARAMETERS:
        arguments.append(DeclareLaunchArgument(name, default_value=default, description=description))
    world = Node(
        package="opendrivevla_ros",
        executable="world_node",
        name="world_node",
        output="screen",
        parameters=[
            ParameterFile(LaunchConfiguration("world_param_file")),
            {name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, kind, *_ in PARAMETERS},
        ],
        remappings=[
            *((f"~/output/{name}", f"/vla_node/input/{name}") for name in SENSORS),
            ("~/input/trajectory", LaunchConfiguration("plans_topic")),
        ],
    )
    # vla.launch.py's other arguments can be given here too: they reach it by name.
    planner = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(share("launch", "vla.launch.py")),
        launch_arguments={
            "use_sim_time": "true",
            "rig_file": share("config", "rig", "world.yaml"),
            "intrinsics": "camera_info",
        }.items(),
    )
    return LaunchDescription([*arguments, planner, world])
