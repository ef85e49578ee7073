"""The words everyone speaks: geometry, camera rig, ego state, command, observation, plan. numpy and scipy only."""
