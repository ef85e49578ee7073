"""vla_node with every topic as an argument, plan_guard and RViz: `ros2 launch opendrivevla_ros vla.launch.py`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

CAMERAS = ("cam_front", "cam_front_right", "cam_front_left", "cam_back", "cam_back_left", "cam_back_right")
INPUTS = {
    **{f"{camera}_image": f"input/{camera}/image" for camera in CAMERAS},
    **{f"{camera}_image_compressed": f"input/{camera}/image/compressed" for camera in CAMERAS},
    **{f"{camera}_camera_info": f"input/{camera}/camera_info" for camera in CAMERAS},
    "odometry": "input/odometry",
    "imu": "input/imu",
    "command": "input/command",
}
OUTPUTS = {
    name: f"output/{name}"
    for name in ("trajectory", "path", "reasoning", "agents", "map_elements", "plan_status", "status")
}
DEBUG = {"markers": "debug/markers", "overview": "debug/overview/compressed", "prompt": "debug/prompt"}
TOPICS = INPUTS | OUTPUTS | DEBUG
# Topics and services of vla_node that plan_guard uses, under its own names.
GUARDED = {
    "input/odometry": "odometry",
    "input/trajectory": "trajectory",
    "input/agents": "agents",
    "input/map_elements": "map_elements",
    "input/vla_status": "status",
}

# Arguments that set a parameter of vla_node: its name, type, default, choices and description.
PARAMETERS = (
    ("policy", str, "opendrivevla-small", None, "policy name, or path of a checkpoint folder"),
    ("device", str, "cpu", None, "cpu, cuda or cuda:N"),
    ("precision", str, "float32", ["float32", "bfloat16"], "precision of the weights"),
    ("thinking_mode", str, "fast", ["auto", "fast", "slow"], "how long the model may reason"),
    ("extrinsics", str, "file", ["file", "tf"], "where the cameras sit: from rig_file, or from /tf_static"),
    ("intrinsics", str, "file", ["file", "camera_info"], "the cameras' pinholes: from rig_file, or camera_info"),
    ("autostart", bool, "true", ["true", "false"], "configure and activate by itself"),
    ("use_sim_time", bool, "false", ["true", "false"], "take the time from /clock"),
    ("deadline", float, "5.0", None, "a plan this many seconds after its stamp is refused; 0: never"),
)


def share(*parts: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([FindPackageShare("opendrivevla_ros"), *parts])


def of_vla_node(name: str) -> PythonExpression:
    """The topic of an argument as another node finds it: private names of vla_node are under its own."""
    return PythonExpression(["'", LaunchConfiguration(f"{name}_topic"), "'.replace('~/', 'vla_node/', 1)"])


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
        DeclareLaunchArgument(
            "param_file",
            default_value=share("config", "vla.param.yaml"),
            description="parameter file of vla_node; the arguments below win over it",
        ),
        DeclareLaunchArgument(
            "rig_file",
            default_value=share("config", "rig", "nuscenes.yaml"),
            description="calibration file: cameras and where they sit on the vehicle",
        ),
        DeclareLaunchArgument(
            "guard", default_value="true", choices=["true", "false"], description="start plan_guard, disarmed"
        ),
        DeclareLaunchArgument(
            "guard_param_file",
            default_value=share("config", "guard.param.yaml"),
            description="parameter file of plan_guard",
        ),
        DeclareLaunchArgument(
            "rviz", default_value="true", choices=["true", "false"], description="start RViz beside the node"
        ),
        DeclareLaunchArgument(
            "rviz_config", default_value=share("rviz", "vla.rviz"), description="configuration file of RViz"
        ),
    ]
    for name, _, default, choices, description in PARAMETERS:
        arguments.append(DeclareLaunchArgument(name, default_value=default, choices=choices, description=description))
    for name, topic in TOPICS.items():
        arguments.append(
            DeclareLaunchArgument(
                f"{name}_topic", default_value=f"~/{topic}", description=f"topic in place of ~/{topic}"
            )
        )
    parameters = {name: ParameterValue(LaunchConfiguration(name), value_type=kind) for name, kind, *_ in PARAMETERS}
    parameters["rig_file"] = ParameterValue(LaunchConfiguration("rig_file"), value_type=str)
    node = LifecycleNode(
        package="opendrivevla_ros",
        executable="vla_node",
        name="vla_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        respawn=True,
        respawn_delay=1.0,
        parameters=[ParameterFile(LaunchConfiguration("param_file")), parameters],
        remappings=[(f"~/{topic}", LaunchConfiguration(f"{name}_topic")) for name, topic in TOPICS.items()],
    )
    guard = LifecycleNode(
        package="opendrivevla_ros",
        executable="plan_guard",
        name="plan_guard",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        respawn=True,
        respawn_delay=0.5,
        parameters=[
            ParameterFile(LaunchConfiguration("guard_param_file")),
            {"use_sim_time": parameters["use_sim_time"]},
        ],
        remappings=[
            *((f"~/{topic}", of_vla_node(name)) for topic, name in GUARDED.items()),
            ("~/save_snapshot", "vla_node/save_snapshot"),
        ],
        condition=IfCondition(LaunchConfiguration("guard")),
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", LaunchConfiguration("rviz_config")],
        parameters=[{"use_sim_time": parameters["use_sim_time"]}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription([*arguments, node, guard, rviz])
